/** One line of text for a query, for Grafana's history and lists. Not SQL, and never parsed again. */
import { Builder, Filter, isCompleteFilter, isListOp, isPresenceOp, needsField, QueryModel } from './model';

const FUNCTION_NAMES: Record<string, string> = { count_distinct: 'count distinct' };

export function describe(model: QueryModel): string {
  return model.editor === 'sql' ? model.sql.trim() : describeBuilder(model.builder);
}

function describeBuilder(builder: Builder): string {
  const conditions = [
    ...builder.filters.filter(isCompleteFilter).map(describeFilter),
    ...builder.search.filter((search) => search.text !== '').map((search) => `message ${search.op} "${search.text}"`),
  ];
  const subject = describeSubject(builder);
  return conditions.length === 0 ? `${subject}, no filter` : `${subject} where ${conditions.join(' and ')}`;
}

function describeSubject(builder: Builder): string {
  const { aggregate, groupBy } = builder;
  if (!aggregate) {
    return 'lines';
  }
  const by = groupBy.length > 0 ? ` by ${groupBy.join(', ')}` : '';
  if (aggregate.function === 'quantile') {
    return `p${Number((aggregate.quantile * 100).toFixed(3))} of ${aggregate.field || '?'}${by}`;
  }
  const name = FUNCTION_NAMES[aggregate.function] ?? aggregate.function;
  return needsField(aggregate.function) ? `${name} of ${aggregate.field || '?'}${by}` : `${name}${by}`;
}

function describeFilter(filter: Filter): string {
  if (isPresenceOp(filter.op)) {
    return `${filter.field} ${filter.op === 'exists' ? 'exists' : 'is absent'}`;
  }
  const value = isListOp(filter.op) ? `(${filter.values.join(', ')})` : `"${filter.value}"`;
  const op = filter.op === '!in' ? 'not in' : filter.op;
  return `${filter.field} ${op} ${value}`;
}
