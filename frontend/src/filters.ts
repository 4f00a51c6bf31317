/**
 * Filters added to, taken out of and looked up in a query: from a line's details, from selected text, from ad-hoc filters.
 * Pure. SQL text stays as its author wrote it: filters stand beside it, and the backend puts them in by its syntax tree.
 * Invariant: no filter is doubled, and a field and value are never both asked for and excluded.
 */
import { AdHocVariableFilter } from '@grafana/data';

import { Filter, FilterOp, QueryModel, Search, SEARCH_OPS, SearchOp } from './model';

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

/** Whether the filters ask for exactly this value, alone or as one of several. */
export function hasFilter(filters: Filter[], key: string, value: string): boolean {
  const field = columnOf(key);
  return filters.some((filter) => filter.field === field && asksFor(filter, value));
}

/** Puts the filter in or, where it is already, takes it out; its opposite goes. */
export function toggleFilter(
  filters: Filter[],
  type: 'FILTER_FOR' | 'FILTER_OUT',
  key: string,
  value: string
): Filter[] {
  const field = columnOf(key);
  const present = filters.some(
    (filter) => filter.field === field && (type === 'FILTER_FOR' ? asksFor(filter, value) : leavesOut(filter, value))
  );
  const without = withoutValue(filters, field, value);
  return present ? without : addValue(without, field, type === 'FILTER_FOR' ? '=' : '!=', value);
}

/** Puts the filter in; where it is already, nothing changes. */
export function addFilter(filters: Filter[], op: '=' | '!=', key: string, value: string): Filter[] {
  const field = columnOf(key);
  return addValue(withoutValue(filters, field, value), field, op, value);
}

export function addSearch(searches: Search[], op: SearchOp, text: string): Search[] {
  if (text === '' || searches.some((search) => search.op === op && search.text === text)) {
    return searches;
  }
  const opposite = op === 'contains' ? '!contains' : 'contains';
  return [...searches.filter((search) => search.op !== opposite || search.text !== text), { op, text }];
}

/** The same among filters, for queries that have no searches of their own. */
export function addMessageFilter(filters: Filter[], op: SearchOp, text: string): Filter[] {
  const isSearch = (filter: Filter) => filter.field === 'message' && SEARCH_OPS.some((known) => known === filter.op);
  const searches = filters
    .filter(isSearch)
    .map((filter): Search => ({ op: filter.op as SearchOp, text: filter.value }));
  const added = addSearch(searches, op, text);
  return [
    ...filters.filter((filter) => !isSearch(filter)),
    ...added.map((search): Filter => ({ field: 'message', op: search.op, value: search.text, values: [] })),
  ];
}

function asksFor(filter: Filter, value: string): boolean {
  return (filter.op === '=' && filter.value === value) || (filter.op === 'in' && filter.values.includes(value));
}

function leavesOut(filter: Filter, value: string): boolean {
  return (filter.op === '!=' && filter.value === value) || (filter.op === '!in' && filter.values.includes(value));
}

function withoutValue(filters: Filter[], field: string, value: string): Filter[] {
  return filters.flatMap((filter): Filter[] => {
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
}

/** Two values asked of one field can only mean "either": `=` grows into `in`, for both at once would match nothing. */
function addValue(filters: Filter[], field: string, op: '=' | '!=', value: string): Filter[] {
  const list: FilterOp = op === '=' ? 'in' : '!in';
  const at = filters.findIndex((filter) => filter.field === field && (filter.op === op || filter.op === list));
  if (at < 0) {
    return [...filters, { field, op, value, values: [] }];
  }
  return filters.map((filter, index): Filter => {
    if (index !== at) {
      return filter;
    }
    const known = filter.op === list ? filter.values : [filter.value];
    return { field, op: list, value: '', values: [...known, value] };
  });
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

/** The query with a dashboard's ad-hoc filters beside its own. */
export function withAdHocFilters(model: QueryModel, adHoc: AdHocVariableFilter[] | undefined): QueryModel {
  const added = fromAdHocFilters(adHoc);
  return added.length === 0 ? model : editFilters(model, (filters) => [...filters, ...added]);
}

/** Changes the filters of a query: of the builder, or those that stand beside SQL text. */
export function editFilters(model: QueryModel, edit: (filters: Filter[]) => Filter[]): QueryModel {
  return model.editor === 'sql'
    ? { ...model, filters: edit(filtersOf(model)) }
    : { ...model, builder: { ...model.builder, filters: edit(model.builder.filters) } };
}

/** The filters that can be toggled: of the builder, or those that stand beside SQL text. */
export function filtersOf(model: QueryModel): Filter[] {
  return model.editor === 'sql' ? (model.filters ?? []) : model.builder.filters;
}

/** A filter without a field is not yet one. */
export function fromAdHocFilters(adHoc: AdHocVariableFilter[] | undefined): Filter[] {
  return (adHoc ?? []).flatMap((filter): Filter[] => {
    // One that is not known goes on as it is: the backend says so, and a filter left out would not be missed.
    const op = AD_HOC_OPS[filter.operator] ?? (filter.operator as FilterOp);
    if (!filter.key) {
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
