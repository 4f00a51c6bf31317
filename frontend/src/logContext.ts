/**
 * The lines around one line: the same stream, strictly before or after it, however many share its timestamp.
 * Invariant: the cursor is the line itself, so that it comes neither twice nor hides a neighbour.
 */
import { DataFrame, LogRowContextOptions, LogRowContextQueryDirection, LogRowModel, TimeRange } from '@grafana/data';

import { STREAM_FIELDS } from './labelKinds';
import { Direction, emptyBuilder, Filter, MODEL_VERSION, QueryModel } from './model';
import { rangeOf } from './store';

const WINDOW_MS = 2 * 3_600_000;
const LIMIT = 10;
export const CONTEXT_REF_ID_PREFIX = 'context-';

export interface ContextQuery {
  model: QueryModel;
  range: TimeRange;
}

/** `filters`: what the lines around must have in common with it. */
export function contextQuery(
  row: LogRowModel,
  options: LogRowContextOptions = {},
  filters = streamFilters(row)
): ContextQuery {
  const direction: Direction = options.direction === LogRowContextQueryDirection.Forward ? 'forward' : 'backward';
  const model: QueryModel = {
    refId: CONTEXT_REF_ID_PREFIX + (row.dataFrame.refId ?? 'A'),
    version: MODEL_VERSION,
    editor: 'builder',
    builder: { ...emptyBuilder(), filters, limit: options.limit ?? LIMIT, direction },
    sql: '',
    format: 'logs',
    purpose: 'context',
    cursor: { timestampNs: row.timeEpochNs, seq: idOf(row), direction },
  };
  return { model, range: contextRange(row.timeEpochMs, direction, options.timeWindowMs ?? WINDOW_MS) };
}

/** Grafana's window is the whole of it, both ways. The line's own millisecond belongs to both halves. */
function contextRange(ms: number, direction: Direction, windowMs: number): TimeRange {
  return direction === 'forward' ? rangeOf(ms, ms + windowMs) : rangeOf(ms - windowMs, ms + 1);
}

/** The stream of a line, by what it carries of `fields`. */
export function streamFilters(row: LogRowModel, fields: string[] = STREAM_FIELDS): Filter[] {
  return fields.flatMap((field): Filter[] => {
    const value = row.labels[field];
    return value === undefined || value === '' ? [] : [{ field, op: '=', value: String(value), values: [] }];
  });
}

function idOf(row: LogRowModel): string {
  const ids = row.dataFrame.fields.find((field) => field.name === 'id');
  return String(ids?.values[row.rowIndex] ?? row.rowId ?? '');
}

/** The context view reads every answer newest first. */
export function newestFirst(frame: DataFrame): DataFrame {
  const time = frame.fields.find((field) => field.name === 'timestamp');
  if (!time || frame.length < 2 || time.values[0] >= time.values[frame.length - 1]) {
    return frame;
  }
  return {
    ...frame,
    fields: frame.fields.map((field) => ({
      ...field,
      values: [...field.values].reverse(),
      ...(field.nanos ? { nanos: [...field.nanos].reverse() } : {}),
    })),
  };
}
