/**
 * What the store knows, asked through the plugin's resource calls: columns, values, functions, the SQL of a builder.
 * Not the queries of panels (datasource.ts).
 * Invariant: one answer serves every picker for a while; a failed call is never remembered.
 */
import { dateTime, TimeRange } from '@grafana/data';

import { Filter, isCompleteFilter, QueryModel } from './model';
import { Column, ColumnValue, SqlFunction } from './types';

/** The two resource calls of DataSourceWithBackend. */
export interface ResourceCalls {
  getResource<T>(path: string, params?: Record<string, unknown>, options?: { showErrorAlert?: boolean }): Promise<T>;
  postResource<T>(path: string, body?: unknown, options?: { showErrorAlert?: boolean }): Promise<T>;
}

const REMEMBERED_MS = 30_000;
const ANSWERS_MAX = 200;
/** Ranges are asked in whole minutes, so that a picker opened twice asks once. */
const RANGE_STEP_MS = 60_000;
const HOUR_MS = 3_600_000;
export const VALUES_LIMIT = 200;
const QUIET = { showErrorAlert: false };

export class Store {
  private readonly answers = new Map<string, { at: number; answer: Promise<unknown> }>();

  constructor(
    private readonly calls: ResourceCalls,
    private readonly now: () => number = Date.now
  ) {}

  columns(range?: TimeRange): Promise<Column[]> {
    const params = this.rangeParams(range);
    return this.remembered(['fields', params], () => this.calls.getResource<Column[]>('fields', params, QUIET));
  }

  values(field: string, search: { range?: TimeRange; filters?: Filter[]; contains?: string; limit?: number }) {
    const filters = (search.filters ?? []).filter(isCompleteFilter);
    const params = {
      field,
      ...this.rangeParams(search.range),
      ...(filters.length > 0 ? { filter: JSON.stringify(filters) } : {}),
      ...(search.contains ? { contains: search.contains } : {}),
      limit: search.limit ?? VALUES_LIMIT,
    };
    return this.remembered(['fields/values', params], () =>
      this.calls.getResource<ColumnValue[]>('fields/values', params, QUIET)
    );
  }

  functions(): Promise<SqlFunction[]> {
    return this.remembered(['functions'], () => this.calls.getResource<SqlFunction[]>('functions', undefined, QUIET));
  }

  /** The SQL text the backend would run for this model, macros left in. */
  async sql(query: QueryModel, range?: TimeRange, intervalMs = 60_000): Promise<string> {
    const answer = await this.calls.postResource<{ sql: string }>(
      'sql',
      { query, range: this.rangeParams(range), intervalMs },
      QUIET
    );
    return answer.sql;
  }

  /** The SQL text with these filters written into its WHERE. */
  async editSql(sql: string, add: Filter[]): Promise<string> {
    const answer = await this.calls.postResource<{ sql: string }>('edit-sql', { sql, add, remove: [] }, QUIET);
    return answer.sql;
  }

  private rangeParams(range?: TimeRange): { from: number; to: number } {
    const from = range?.from.valueOf() ?? this.now() - HOUR_MS;
    const to = range?.to.valueOf() ?? this.now();
    return {
      from: Math.floor(from / RANGE_STEP_MS) * RANGE_STEP_MS,
      to: Math.ceil(to / RANGE_STEP_MS) * RANGE_STEP_MS,
    };
  }

  private remembered<T>(key: unknown[], ask: () => Promise<T>): Promise<T> {
    const name = JSON.stringify(key);
    const known = this.answers.get(name);
    if (known && this.now() - known.at < REMEMBERED_MS) {
      return known.answer as Promise<T>;
    }
    const answer = ask();
    this.answers.delete(name);
    this.answers.set(name, { at: this.now(), answer });
    answer.catch(() => this.answers.delete(name));
    if (this.answers.size > ANSWERS_MAX) {
      this.answers.delete(this.answers.keys().next().value!);
    }
    return answer;
  }
}

/** What a failed resource call says to a person. */
export function messageOf(error: unknown): string {
  const { data, message, statusText } = (error ?? {}) as {
    data?: { message?: string; error?: string | { message?: string } };
    message?: string;
    statusText?: string;
  };
  const inner = typeof data?.error === 'string' ? data.error : data?.error?.message;
  return inner ?? data?.message ?? message ?? statusText ?? String(error);
}

export function rangeOf(fromMs: number, toMs: number): TimeRange {
  const from = dateTime(fromMs);
  const to = dateTime(toMs);
  return { from, to, raw: { from, to } };
}
