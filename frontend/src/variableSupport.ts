/**
 * Query variables: names of fields, values of one field under filters, or the first column of a SQL query.
 * Invariant: the values keep the store's order, most frequent first; nothing is added to them.
 */
import {
  CustomVariableSupport,
  DataFrame,
  DataQueryRequest,
  DataQueryResponse,
  MetricFindValue,
  ScopedVars,
  TimeRange,
} from '@grafana/data';
import { from, map, Observable } from 'rxjs';

import type { QuiverDatasource } from './datasource';
import { QuiverQuery, VariableQuery } from './types';
import { VariableEditor } from './VariableEditor';
import { expand, interpolateFilters } from './variables';

export const DEFAULT_VARIABLE_QUERY: VariableQuery = { refId: 'variable', kind: 'values', field: 'service' };
const VALUES_LIMIT = 1000;

export class QuiverVariableSupport extends CustomVariableSupport<QuiverDatasource, VariableQuery> {
  editor = VariableEditor;

  constructor(private readonly datasource: QuiverDatasource) {
    super();
  }

  getDefaultQuery(): Partial<VariableQuery> {
    return { kind: DEFAULT_VARIABLE_QUERY.kind, field: DEFAULT_VARIABLE_QUERY.field };
  }

  query(request: DataQueryRequest<VariableQuery>): Observable<DataQueryResponse> {
    const query = { ...DEFAULT_VARIABLE_QUERY, ...request.targets[0] };
    if (query.kind === 'sql') {
      return this.sqlValues(query, request);
    }
    return from(this.listValues(query, request.range, request.scopedVars)).pipe(map((data) => ({ data })));
  }

  private async listValues(query: VariableQuery, range: TimeRange, scopedVars: ScopedVars): Promise<MetricFindValue[]> {
    const { store, templates } = this.datasource;
    if (query.kind === 'fields') {
      const columns = await store.columns(range);
      return columns.map((column) => ({ text: column.name }));
    }
    const field = expand(query.field ?? '', scopedVars ?? {}, templates)[0];
    if (field === '') {
      return [];
    }
    const filters = interpolateFilters(query.filters ?? [], scopedVars ?? {}, templates);
    const values = await store.values(field, { range, filters, limit: query.limit ?? VALUES_LIMIT });
    return values.map(({ value }) => ({ text: value }));
  }

  private sqlValues(query: VariableQuery, request: DataQueryRequest<VariableQuery>): Observable<DataQueryResponse> {
    const target: QuiverQuery = { refId: query.refId, editor: 'sql', sql: query.sql ?? '', format: 'table' };
    return this.datasource
      .query({ ...request, targets: [target] })
      .pipe(map((response) => ({ ...response, data: response.data.flatMap(valuesOfFrame) })));
  }
}

/** `__text` and `__value` where the query names them so, else the first column. */
export function valuesOfFrame(frame: DataFrame): MetricFindValue[] {
  const texts = frame.fields.find((field) => field.name === '__text') ?? frame.fields[0];
  const values = frame.fields.find((field) => field.name === '__value');
  if (!texts) {
    return [];
  }
  return Array.from(texts.values, (text: unknown, row) => ({
    text: String(text ?? ''),
    ...(values ? { value: String(values.values[row] ?? '') } : {}),
  }));
}
