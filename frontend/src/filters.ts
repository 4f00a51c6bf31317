/**
 * Filters added to, taken out of and looked up in a builder: from a line's details, from selected text, from ad-hoc filters.
 * Pure; SQL text is not touched here.
 * Invariant: no filter is doubled, and a field and value are never both asked for and excluded.
 */
import { AdHocVariableFilter } from '@grafana/data';

import { Builder, Filter, FilterOp, SearchOp } from './model';

/** The names that Grafana's log frame gives to columns of the store. */
const COLUMN_OF_FRAME_FIELD: Record<string, string> = {
  body: 'message',
  severity: 'level',
  detected_level: 'level',
  traceID: 'trace_id',
  spanID: 'span_id',
};

export function columnOf(frameField: string): string {
  return COLUMN_OF_FRAME_FIELD[frameField] ?? frameField;
}

/** Whether the builder asks for exactly this value, alone or as one of several. */
export function hasFilter(builder: Builder, key: string, value: string): boolean {
  const field = columnOf(key);
  return builder.filters.some((filter) => filter.field === field && asksFor(filter, value));
}

/** Puts the filter in or, where it is already, takes it out; its opposite goes. */
export function toggleFilter(builder: Builder, type: 'FILTER_FOR' | 'FILTER_OUT', key: string, value: string): Builder {
  const field = columnOf(key);
  const present = builder.filters.some(
    (filter) => filter.field === field && (type === 'FILTER_FOR' ? asksFor(filter, value) : leavesOut(filter, value))
  );
  const without = withoutValue(builder, field, value);
  return present ? without : addValue(without, field, type === 'FILTER_FOR' ? '=' : '!=', value);
}

/** Puts the filter in; where it is already, nothing changes. */
export function addFilter(builder: Builder, op: '=' | '!=', key: string, value: string): Builder {
  const field = columnOf(key);
  return addValue(withoutValue(builder, field, value), field, op, value);
}

export function addSearch(builder: Builder, op: SearchOp, text: string): Builder {
  if (text === '' || builder.search.some((search) => search.op === op && search.text === text)) {
    return builder;
  }
  const opposite = op === 'contains' ? '!contains' : 'contains';
  const others = builder.search.filter((search) => search.op !== opposite || search.text !== text);
  return { ...builder, search: [...others, { op, text }] };
}

function asksFor(filter: Filter, value: string): boolean {
  return (filter.op === '=' && filter.value === value) || (filter.op === 'in' && filter.values.includes(value));
}

function leavesOut(filter: Filter, value: string): boolean {
  return (filter.op === '!=' && filter.value === value) || (filter.op === '!in' && filter.values.includes(value));
}

function withoutValue(builder: Builder, field: string, value: string): Builder {
  const filters = builder.filters.flatMap((filter): Filter[] => {
    if (filter.field !== field || !(asksFor(filter, value) || leavesOut(filter, value))) {
      return [filter];
    }
    const rest = filter.values.filter((known) => known !== value);
    if (filter.op === '=' || filter.op === '!=' || rest.length === 0) {
      return [];
    }
    return rest.length === 1
      ? [{ field, op: filter.op === 'in' ? '=' : '!=', value: rest[0], values: [] }]
      : [{ ...filter, values: rest }];
  });
  return { ...builder, filters };
}

/** Two values asked of one field can only mean "either": `=` grows into `in`, for both at once would match nothing. */
function addValue(builder: Builder, field: string, op: '=' | '!=', value: string): Builder {
  const list: FilterOp = op === '=' ? 'in' : '!in';
  const at = builder.filters.findIndex((filter) => filter.field === field && (filter.op === op || filter.op === list));
  if (at < 0) {
    return { ...builder, filters: [...builder.filters, { field, op, value, values: [] }] };
  }
  const filters = builder.filters.map((filter, index): Filter => {
    if (index !== at) {
      return filter;
    }
    const known = filter.op === list ? filter.values : [filter.value];
    return { field, op: list, value: '', values: [...known, value] };
  });
  return { ...builder, filters };
}

const AD_HOC_OPS: Record<string, FilterOp> = {
  '=': '=',
  '!=': '!=',
  '=~': '=~',
  '!~': '!~',
  '<': '<',
  '<=': '<=',
  '>': '>',
  '>=': '>=',
  '=|': 'in',
  '!=|': '!in',
};

/** The builder with a dashboard's ad-hoc filters beside its own. A filter without a field is not yet one. */
export function withAdHocFilters(builder: Builder, adHoc: AdHocVariableFilter[] | undefined): Builder {
  const added = fromAdHocFilters(adHoc);
  return added.length === 0 ? builder : { ...builder, filters: [...builder.filters, ...added] };
}

export function fromAdHocFilters(adHoc: AdHocVariableFilter[] | undefined): Filter[] {
  return (adHoc ?? []).flatMap((filter): Filter[] => {
    const op = AD_HOC_OPS[filter.operator];
    if (!filter.key || op === undefined) {
      return [];
    }
    const field = columnOf(filter.key);
    if (op === 'in' || op === '!in') {
      const values = filter.values?.length ? filter.values : [filter.value];
      return [{ field, op, value: '', values }];
    }
    return [{ field, op, value: filter.value, values: [] }];
  });
}
