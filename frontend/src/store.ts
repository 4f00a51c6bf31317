/**
 * What the store knows, asked through the plugin's resource calls: columns, values, functions, and what it makes of a query.
 * Not the queries of panels (datasource.ts).
 * Invariant: one answer serves every picker for a while; a failed call is never remembered.
 */
import { dateTime, TimeRange } from '@grafana/data';

import { Builder, Filter, Format, isCompleteFilter, QueryModel } from './model';
import { Check, Column, ColumnValue, Estimate, SqlFunction } from './types';

/** The two resource calls of DataSourceWithBackend. */
export interface ResourceCalls {
  getResource<T>(path: string, params?: Record<string, unknown>, options?: { showErrorAlert?: boolean }): Promise<T>;
  postResource<T>(path: string, body?: unknown, options?: { showErrorAlert?: boolean }): Promise<T>;
}

/** The time range and interval a query is looked at with. */
export interface Screen {
  range?: TimeRange;
  intervalMs?: number;
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

  /** The builder as SQL to go on writing, with macros where range and interval stand. */
  async sql(query: QueryModel, screen: Screen): Promise<string> {
    return (await this.about<{ sql: string }>('sql', query, screen)).sql;
  }

  /** The SQL as a builder, or why it has no such form. */
  builder(query: QueryModel): Promise<{ builder: Builder; format: Format } | { reason: string }> {
    return this.about('builder', query, {});
  }

  /** The SQL laid out, a clause on each line. */
  async layout(query: QueryModel): Promise<string> {
    return (await this.about<{ sql: string }>('layout', query, {})).sql;
  }

  /** What is wrong with a query, what would be better, and what it does; nothing is run. */
  check(query: QueryModel, screen: Screen): Promise<Check> {
    return this.about('check', query, screen);
  }

  /** How much the time range holds. */
  estimate(query: QueryModel, screen: Screen): Promise<Estimate> {
    const { editor, sql, filters, builder, format } = query;
    return this.remembered(
      ['estimate', editor, sql, filters, builder.filters, format, this.rangeParams(screen.range)],
      () => this.about('estimate', query, screen)
    );
  }

  private about<T>(path: string, query: QueryModel, { range, intervalMs = 60_000 }: Screen): Promise<T> {
    return this.calls.postResource<T>(path, { query, range: this.rangeParams(range), intervalMs }, QUIET);
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
