/**
 * The data source as Grafana sees it: every query goes through the backend; what happens here is what only the browser knows
 * (template variables, ad-hoc filters, the page one scrolls on from, live channels).
 * Not here: SQL, frames and trace links (the backend), editors.
 */
import {
  AdHocVariableFilter,
  CoreApp,
  DataFrame,
  DataQueryRequest,
  DataQueryResponse,
  DataSourceApi,
  DataSourceGetDrilldownsApplicabilityOptions,
  DataSourceGetTagKeysOptions,
  DataSourceGetTagValuesOptions,
  DataSourceInstanceSettings,
  DataSourceWithLogsContextSupport,
  DataSourceWithQueryModificationSupport,
  DataSourceWithSupplementaryQueriesSupport,
  DataSourceWithToggleableQueryFiltersSupport,
  DrilldownsApplicability,
  LogRowContextOptions,
  LogRowModel,
  MetricFindValue,
  QueryFilterOptions,
  QueryFixAction,
  ScopedVars,
  SupplementaryQueryOptions,
  SupplementaryQueryType,
  ToggleFilterAction,
} from '@grafana/data';
import { DataSourceWithBackend, getGrafanaLiveSrv, getTemplateSrv } from '@grafana/runtime';
import { DataQuery } from '@grafana/schema';
import { lastValueFrom, map, Observable, tap } from 'rxjs';

import { describe } from './describe';
import { addFilter, addSearch, fromAdHocFilters, hasFilter, toggleFilter, withAdHocFilters } from './filters';
import { importQueries } from './importing';
import { contextQuery, newestFirst } from './logContext';
import { Builder, Cursor, normalize } from './model';
import { PageMemory } from './paging';
import { rangeOf, Store } from './store';
import { supplementaryQuery, SUPPORTED_TYPES } from './supplementary';
import { tailQueries } from './tail';
import { INFINITE_SCROLL, QuiverOptions, QuiverQuery } from './types';
import { interpolateModel, Templates } from './variables';
import { QuiverVariableSupport } from './variableSupport';

const SQL_KEEPS_OUT = 'ad-hoc filters apply to builder queries; this query is SQL text';

export class QuiverDatasource
  extends DataSourceWithBackend<QuiverQuery, QuiverOptions>
  implements
    DataSourceWithSupplementaryQueriesSupport<QuiverQuery>,
    DataSourceWithLogsContextSupport<QuiverQuery>,
    DataSourceWithToggleableQueryFiltersSupport<QuiverQuery>,
    DataSourceWithQueryModificationSupport<QuiverQuery>
{
  readonly store: Store = new Store(this);
  readonly supportsAdjustableWindow = true;
  private readonly pages = new PageMemory();

  constructor(
    readonly settings: DataSourceInstanceSettings<QuiverOptions>,
    readonly templates: Templates = getTemplateSrv()
  ) {
    super(settings);
    this.annotations = {};
    this.variables = new QuiverVariableSupport(this);
  }

  getDefaultQuery(app: CoreApp): Partial<QuiverQuery> {
    const { version, editor, builder, format } = normalize({});
    const counts = app === CoreApp.UnifiedAlerting || app === CoreApp.CloudAlerting;
    const aggregate = counts ? { function: 'count' as const, field: '', quantile: 0.95 } : null;
    return { version, editor, builder: { ...builder, aggregate }, format };
  }

  /** Not importFromAbstractQueries: those carry labels only, and Grafana would ask for them first. */
  importQueries(queries: DataQuery[], origin: DataSourceApi<DataQuery>): Promise<QuiverQuery[]> {
    return importQueries(queries, origin);
  }

  filterQuery(query: QuiverQuery): boolean {
    return !query.hide && (query.editor !== 'sql' || (query.sql ?? '').trim() !== '');
  }

  getQueryDisplayText(query: QuiverQuery): string {
    return describe(normalize(query));
  }

  applyTemplateVariables(query: QuiverQuery, scopedVars: ScopedVars, adHoc?: AdHocVariableFilter[]): QuiverQuery {
    const model = interpolateModel(normalize(query), scopedVars, this.templates);
    return { ...query, ...model, builder: withAdHocFilters(model.builder, adHoc) };
  }

  interpolateVariablesInQueries(
    queries: QuiverQuery[],
    scopedVars: ScopedVars,
    adHoc?: AdHocVariableFilter[]
  ): QuiverQuery[] {
    return queries.map((query) => ({
      ...this.applyTemplateVariables(query, scopedVars, adHoc),
      datasource: this.getRef(),
    }));
  }

  query(request: DataQueryRequest<QuiverQuery>): Observable<DataQueryResponse> {
    if (request.liveStreaming) {
      const targets = request.targets
        .filter((query) => this.filterQuery(query))
        .map((query) => this.applyTemplateVariables(query, request.scopedVars, request.filters));
      return tailQueries(this.uid, request, targets, getGrafanaLiveSrv());
    }
    if (request.targets.some((query) => query.supportingQueryType === INFINITE_SCROLL)) {
      return this.queryFurtherPage(request);
    }
    return super.query(request).pipe(
      tap((response) => this.rememberPages(request.targets, response)),
      map((response) => withSqlNotice(response, request))
    );
  }

  private rememberPages(targets: QuiverQuery[], response: DataQueryResponse): void {
    for (const target of targets) {
      const model = normalize(target);
      if (model.purpose === undefined) {
        this.pages.started(model, framesOf(response, target.refId));
      }
    }
  }

  private queryFurtherPage(request: DataQueryRequest<QuiverQuery>): Observable<DataQueryResponse> {
    const [fromMs, toMs] = [request.range.from.valueOf(), request.range.to.valueOf()];
    const asked = request.targets.map((target) => {
      const model = normalize(target);
      return { target, model, cursor: this.pages.cursor(model, fromMs, toMs) };
    });
    const targets = asked.map(({ target, model, cursor }) =>
      cursor ? { ...target, cursor, builder: { ...model.builder, direction: cursor.direction } } : target
    );
    const range = rangeAround(
      fromMs,
      toMs,
      asked.flatMap(({ cursor }) => cursor ?? [])
    );
    return super.query({ ...request, targets, range }).pipe(
      tap((response) => {
        for (const { target, model, cursor } of asked) {
          if (cursor) {
            this.pages.continued(model, cursor, framesOf(response, target.refId));
          }
        }
      })
    );
  }

  getSupportedSupplementaryQueryTypes(): SupplementaryQueryType[] {
    return SUPPORTED_TYPES;
  }

  getSupplementaryQuery(options: SupplementaryQueryOptions, query: QuiverQuery): QuiverQuery | undefined {
    return supplementaryQuery(options, query);
  }

  getSupplementaryRequest(
    type: SupplementaryQueryType,
    request: DataQueryRequest<QuiverQuery>,
    options?: SupplementaryQueryOptions
  ): DataQueryRequest<QuiverQuery> | undefined {
    const targets = request.targets.flatMap((query) => supplementaryQuery({ ...options, type }, query) ?? []);
    return targets.length === 0 ? undefined : { ...request, targets };
  }

  getLogRowContext = async (row: LogRowModel, options?: LogRowContextOptions): Promise<DataQueryResponse> => {
    const { model, range } = contextQuery(row, options);
    const response = await lastValueFrom(
      this.query({
        requestId: `${model.refId}-${model.cursor?.direction}`,
        app: CoreApp.Explore,
        targets: [model],
        range,
        interval: '1s',
        intervalMs: 1000,
        scopedVars: options?.scopedVars ?? {},
        timezone: 'browser',
        startTime: Date.now(),
      })
    );
    return { ...response, data: response.data.map(newestFirst) };
  };

  getLogRowContextQuery = async (row: LogRowModel, options?: LogRowContextOptions): Promise<QuiverQuery> => {
    const { builder, editor, version, format } = contextQuery(row, options).model;
    return { refId: row.dataFrame.refId ?? 'A', version, editor, format, builder: { ...builder, limit: 0 } };
  };

  toggleQueryFilter(query: QuiverQuery, filter: ToggleFilterAction): QuiverQuery {
    const { key, value } = filter.options;
    return this.editBuilder(query, (builder) => toggleFilter(builder, filter.type, key, value));
  }

  queryHasFilter(query: QuiverQuery, filter: QueryFilterOptions): boolean {
    const model = normalize(query);
    return model.editor === 'builder' && hasFilter(model.builder, filter.key, filter.value);
  }

  getSupportedQueryModifications(): string[] {
    return ['ADD_FILTER', 'ADD_FILTER_OUT', 'ADD_STRING_FILTER', 'ADD_STRING_FILTER_OUT'];
  }

  modifyQuery(query: QuiverQuery, action: QueryFixAction): QuiverQuery {
    const { key = '', value = '' } = action.options ?? {};
    return this.editBuilder(query, (builder) => {
      switch (action.type) {
        case 'ADD_FILTER':
          return addFilter(builder, '=', key, value);
        case 'ADD_FILTER_OUT':
          return addFilter(builder, '!=', key, value);
        case 'ADD_STRING_FILTER':
          return addSearch(builder, 'contains', value);
        case 'ADD_STRING_FILTER_OUT':
          return addSearch(builder, '!contains', value);
        default:
          return builder;
      }
    });
  }

  /** SQL text stays as its author wrote it. */
  private editBuilder(query: QuiverQuery, edit: (builder: Builder) => Builder): QuiverQuery {
    const model = normalize(query);
    return model.editor === 'sql' ? query : { ...query, builder: edit(model.builder) };
  }

  async getTagKeys(options?: DataSourceGetTagKeysOptions<QuiverQuery>): Promise<MetricFindValue[]> {
    const columns = await this.store.columns(options?.timeRange);
    return columns.filter((column) => column.type !== 'time').map((column) => ({ text: column.name }));
  }

  /** Narrowed by the other filters, never by those on the same field: that would hide every other choice. */
  async getTagValues(options: DataSourceGetTagValuesOptions<QuiverQuery>): Promise<MetricFindValue[]> {
    const others = options.filters?.filter((filter) => filter.key !== options.key);
    const filters = fromAdHocFilters(others);
    const values = await this.store.values(options.key, { range: options.timeRange, filters });
    return values.map(({ value }) => ({ text: value }));
  }

  async getDrilldownsApplicability(
    options?: DataSourceGetDrilldownsApplicabilityOptions<QuiverQuery>
  ): Promise<DrilldownsApplicability[]> {
    const queries = options?.queries ?? [];
    const applicable = queries.length === 0 || queries.some((query) => normalize(query).editor === 'builder');
    return (options?.filters ?? []).map(({ key, origin }) => ({
      key,
      applicable,
      ...(origin ? { origin } : {}),
      ...(applicable ? {} : { reason: SQL_KEEPS_OUT }),
    }));
  }
}

function framesOf(response: DataQueryResponse, refId: string): DataFrame[] {
  return (response.data ?? []).filter((frame: DataFrame) => frame.refId === refId);
}

/**
 * The range of a further page, wide enough for every cursor: Grafana's bounds are whole milliseconds of the line at the
 * edge, and lines of that same millisecond may still be missing.
 */
function rangeAround(fromMs: number, toMs: number, cursors: Cursor[]) {
  const edges = cursors.map((cursor) => ({
    direction: cursor.direction,
    ms: Number(BigInt(cursor.timestampNs) / 1_000_000n),
  }));
  const lowest = edges.filter((edge) => edge.direction === 'forward').map((edge) => edge.ms);
  const highest = edges.filter((edge) => edge.direction === 'backward').map((edge) => edge.ms + 1);
  return rangeOf(Math.min(fromMs, ...lowest), Math.max(toMs, ...highest));
}

/** Filters that did nothing must not look as if they had. */
function withSqlNotice(response: DataQueryResponse, request: DataQueryRequest<QuiverQuery>): DataQueryResponse {
  if (fromAdHocFilters(request.filters).length === 0) {
    return response;
  }
  const sqlRefIds = request.targets.filter((query) => query.editor === 'sql').map((query) => query.refId);
  const data = (response.data ?? []).map((frame: DataFrame) =>
    frame.refId !== undefined && sqlRefIds.includes(frame.refId)
      ? {
          ...frame,
          meta: {
            ...frame.meta,
            notices: [...(frame.meta?.notices ?? []), { severity: 'info' as const, text: SQL_KEEPS_OUT }],
          },
        }
      : frame
  );
  return { ...response, data };
}
