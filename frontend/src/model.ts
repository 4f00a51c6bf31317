/**
 * The query model, version 1: what a panel stores and what the backend turns into SQL.
 *
 * The same definition stands in backend/src/model.rs; backend/testdata/model/*.json holds both to it.
 * Not here: variables (variables.ts) and SQL text (the backend writes it).
 * Invariant: everything in this file is pure, and `normalize(normalize(m))` equals `normalize(m)`. What is unknown becomes
 * its default, but for an operator: another one in its place would find other lines, so the backend refuses the query.
 */

export const MODEL_VERSION = 1;

export const FILTER_OPS = [
  '=',
  '!=',
  'contains',
  '!contains',
  '=~',
  '!~',
  '<',
  '<=',
  '>',
  '>=',
  'exists',
  '!exists',
  'in',
  '!in',
] as const;
export type FilterOp = (typeof FILTER_OPS)[number];

export const SEARCH_OPS = ['contains', '!contains', '=~', '!~'] as const;
export type SearchOp = (typeof SEARCH_OPS)[number];

export const AGGREGATE_FUNCTIONS = ['count', 'rate', 'sum', 'avg', 'min', 'max', 'quantile', 'count_distinct'] as const;
export type AggregateFunction = (typeof AGGREGATE_FUNCTIONS)[number];

export const FORMATS = ['auto', 'logs', 'series', 'number', 'table'] as const;
export type Format = (typeof FORMATS)[number];

export const PURPOSES = ['log-volume', 'logs-sample', 'tail', 'context'] as const;
export type Purpose = (typeof PURPOSES)[number];

export type EditorMode = 'builder' | 'sql';
export type Direction = 'backward' | 'forward';

/** One condition on a field. `value` serves every op but in/!in, which read `values`; exists/!exists read neither. */
export interface Filter {
  field: string;
  op: FilterOp;
  value: string;
  values: string[];
}

/** One condition on the message. `contains` is case-sensitive. */
export interface Search {
  op: SearchOp;
  text: string;
}

export interface Aggregate {
  function: AggregateFunction;
  /** Read by every function but count and rate. */
  field: string;
  /** Read by quantile alone; 0 to 1. */
  quantile: number;
}

export interface Builder {
  filters: Filter[];
  search: Search[];
  /** null: the lines themselves. */
  aggregate: Aggregate | null;
  groupBy: string[];
  /** Lines at most; 0: the data source's default. */
  limit: number;
  direction: Direction;
  /** Width of a time bucket, such as `5m`; '': the panel's interval. */
  step: string;
}

/** A place between two lines: rows strictly beyond (timestamp, _seq) in `direction`. Both numbers are decimal text, for JSON has no 64 bits. */
export interface Cursor {
  timestampNs: string;
  seq: string;
  direction: Direction;
}

export interface QueryModel {
  refId: string;
  version: number;
  editor: EditorMode;
  builder: Builder;
  sql: string;
  /** Conditions beside the SQL text, which its lines must meet too; the backend puts them in. A builder has its own. */
  filters?: Filter[];
  format: Format;
  purpose?: Purpose;
  cursor?: Cursor;
  /** Widens the time range both ways, such as `1h`. */
  widen?: string;
  /** Show lines of any length whole. */
  wholeLines?: boolean;
  /** Whose logs, where the data source lets a query say so. */
  tenant?: string;
}

/** A model as it may arrive: from a panel, a link, a correlation or a hand-written file. */
export type PartialModel = Partial<Omit<QueryModel, 'builder' | 'filters'>> & {
  filters?: Array<Partial<Filter>>;
  builder?: Partial<Omit<Builder, 'filters' | 'search' | 'aggregate'>> & {
    filters?: Array<Partial<Filter>>;
    search?: Array<Partial<Search>>;
    aggregate?: Partial<Aggregate> | null;
  };
};

export const DEFAULT_QUANTILE = 0.95;

export function emptyBuilder(): Builder {
  return { filters: [], search: [], aggregate: null, groupBy: [], limit: 0, direction: 'backward', step: '' };
}

/** Fills in every default and drops what the model does not know. Rows still being edited (no field yet) are kept. */
export function normalize(model: unknown): QueryModel {
  const raw = asRecord(model);
  const normalized: QueryModel = {
    refId: text(raw.refId) || 'A',
    version: MODEL_VERSION,
    editor: raw.editor === 'sql' ? 'sql' : 'builder',
    builder: normalizeBuilder(raw.builder),
    sql: text(raw.sql),
    format: oneOf(FORMATS, raw.format, 'auto'),
  };
  const filters = asArray(raw.filters).map(normalizeFilter);
  if (filters.length > 0) {
    normalized.filters = filters;
  }
  if (raw.wholeLines === true) {
    normalized.wholeLines = true;
  }
  const purpose = PURPOSES.find((known) => known === raw.purpose);
  if (purpose) {
    normalized.purpose = purpose;
  }
  const cursor = asRecord(raw.cursor);
  if (text(cursor.timestampNs) !== '') {
    normalized.cursor = {
      timestampNs: text(cursor.timestampNs),
      seq: text(cursor.seq),
      direction: normalizeDirection(cursor.direction),
    };
  }
  if (text(raw.widen) !== '') {
    normalized.widen = text(raw.widen);
  }
  if (text(raw.tenant) !== '') {
    normalized.tenant = text(raw.tenant);
  }
  return normalized;
}

function normalizeBuilder(value: unknown): Builder {
  const raw = asRecord(value);
  return {
    filters: asArray(raw.filters).map(normalizeFilter),
    search: asArray(raw.search).map(normalizeSearch),
    aggregate: normalizeAggregate(raw.aggregate),
    groupBy: asArray(raw.groupBy).map(text),
    limit: wholeNumber(raw.limit),
    direction: normalizeDirection(raw.direction),
    step: text(raw.step),
  };
}

function normalizeFilter(value: unknown): Filter {
  const raw = asRecord(value);
  return {
    field: text(raw.field),
    op: (text(raw.op) || '=') as FilterOp,
    value: text(raw.value),
    values: asArray(raw.values).map(text),
  };
}

function normalizeSearch(value: unknown): Search {
  const raw = asRecord(value);
  return { op: (text(raw.op) || 'contains') as SearchOp, text: text(raw.text) };
}

function normalizeAggregate(value: unknown): Aggregate | null {
  if (value === null || value === undefined) {
    return null;
  }
  const raw = asRecord(value);
  return {
    function: oneOf(AGGREGATE_FUNCTIONS, raw.function, 'count'),
    field: text(raw.field),
    quantile: typeof raw.quantile === 'number' ? raw.quantile : DEFAULT_QUANTILE,
  };
}

function normalizeDirection(value: unknown): Direction {
  return value === 'forward' ? 'forward' : 'backward';
}

/** Whether an op reads the list `values` rather than `value`. */
export function isListOp(op: FilterOp): boolean {
  return op === 'in' || op === '!in';
}

/** Whether an op needs nothing beside the field. */
export function isPresenceOp(op: FilterOp): boolean {
  return op === 'exists' || op === '!exists';
}

/** Whether a filter says enough to be sent: a row someone is still writing must not empty the panel. */
export function isCompleteFilter(filter: Filter): boolean {
  if (filter.field === '') {
    return false;
  }
  return isPresenceOp(filter.op) || (isListOp(filter.op) ? filter.values.length > 0 : filter.value !== '');
}

/** Whether an aggregate reads a field at all. */
export function needsField(fn: AggregateFunction): boolean {
  return fn !== 'count' && fn !== 'rate';
}

/** Whether the model asks for numbers rather than lines, as far as that is known without running it. */
export function asksForLines(model: QueryModel): boolean {
  if (model.editor === 'sql') {
    return model.format === 'auto' || model.format === 'logs';
  }
  return model.builder.aggregate === null;
}

function asRecord(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

function asArray(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

function text(value: unknown): string {
  if (typeof value === 'string') {
    return value;
  }
  return typeof value === 'number' || typeof value === 'boolean' ? String(value) : '';
}

function wholeNumber(value: unknown): number {
  const number = typeof value === 'string' ? Number(value) : value;
  return typeof number === 'number' && Number.isFinite(number) && number > 0 ? Math.floor(number) : 0;
}

function oneOf<T extends string>(known: readonly T[], value: unknown, fallback: T): T {
  return known.find((item) => item === value) ?? fallback;
}
