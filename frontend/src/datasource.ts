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
  TimeRange,
  ToggleFilterAction,
} from '@grafana/data';
import { config, DataSourceWithBackend, getGrafanaLiveSrv, getTemplateSrv } from '@grafana/runtime';
import { DataQuery } from '@grafana/schema';
import { createElement, ReactNode } from 'react';
import { lastValueFrom, Observable, tap } from 'rxjs';

import { ContextFilters } from './ContextFilters';
import { describe } from './describe';
import { exportAddress } from './Download';
import {
  addFilter,
  addMessageFilter,
  addSearch,
  columnOf,
  editFilters,
  filtersOf,
  fromAdHocFilters,
  hasFilter,
  toggleFilter,
  withAdHocFilters,
} from './filters';
import { importQueries } from './importing';
import { labelKind } from './labelKinds';
import { contextQuery, newestFirst } from './logContext';
import { Cursor, DEFAULT_QUANTILE, Filter, normalize, QueryModel, SearchOp } from './model';
import { PageMemory } from './paging';
import { rangeOf, Store } from './store';
import { supplementaryQuery, SUPPORTED_TYPES } from './supplementary';
import { tailQueries } from './tail';
import { INFINITE_SCROLL, QuiverOptions, QuiverQuery } from './types';
import { directionFor } from './sortOrder';
import { askTraceDatasource, isTraceRequest } from './trace';
import { interpolateModel, Templates } from './variables';
import { QuiverVariableSupport } from './variableSupport';

/** Requests remembered: more panels than are on a page. */
const REQUESTS_MAX = 200;

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
  /** The range that each of the last requests was first sent with. */
  private readonly asked = new Map<string, string>();
  /** What someone chose in the context view that is open. */
  private contextFilters: Filter[] | undefined;
  private readonly chooseContext = (filters: Filter[] | undefined) => {
    this.contextFilters = filters;
  };

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
    // A new panel is a time series, which lines are not; alert rules take numbers only.
    const isPanel = app === CoreApp.PanelEditor;
    const counts = isPanel || app === CoreApp.UnifiedAlerting || app === CoreApp.CloudAlerting;
    const aggregate = counts ? { function: 'count' as const, field: '', quantile: DEFAULT_QUANTILE } : null;
    return { version, editor, builder: { ...builder, aggregate, groupBy: isPanel ? ['level'] : [] }, format };
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
    return { ...query, ...withAdHocFilters(model, adHoc) };
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
    if (request.targets.some(isTraceRequest)) {
      return askTraceDatasource(request, this.settings.jsonData?.traces?.datasourceUid);
    }
    if (this.asksForMore(request)) {
      return this.queryFurtherPage(request);
    }
    const targets = request.targets.map((query) => {
      const { builder } = normalize(query);
      return { ...query, builder: { ...builder, direction: directionFor(request.app, builder.direction) } };
    });
    return super.query({ ...request, targets }).pipe(tap((response) => this.rememberPages(request, response)));
  }

  /** Explore says so; a dashboard's panel sends its last request again, for another range. */
  private asksForMore({ targets, requestId, startTime, range }: DataQueryRequest<QuiverQuery>): boolean {
    if (targets.some((query) => query.supportingQueryType === INFINITE_SCROLL)) {
      return true;
    }
    const [name, bounds] = [`${requestId}/${startTime}`, `${range.from.valueOf()}-${range.to.valueOf()}`];
    const known = this.asked.get(name);
    this.asked.set(name, known ?? bounds);
    if (this.asked.size > REQUESTS_MAX) {
      this.asked.delete(this.asked.keys().next().value!);
    }
    return known !== undefined && known !== bounds;
  }

  private rememberPages({ targets, filters }: DataQueryRequest<QuiverQuery>, response: DataQueryResponse): void {
    for (const target of targets) {
      const model = withAdHocFilters(normalize(target), filters);
      if (model.purpose === undefined) {
        this.pages.started(model, framesOf(response, target.refId));
      }
    }
  }

  private queryFurtherPage(request: DataQueryRequest<QuiverQuery>): Observable<DataQueryResponse> {
    const [fromMs, toMs] = [request.range.from.valueOf(), request.range.to.valueOf()];
    const asked = request.targets.map((target) => {
      const model = normalize(target);
      const shown = withAdHocFilters(model, request.filters);
      return { target, shown, cursor: this.pages.cursor(shown, fromMs, toMs) };
    });
    // The builder keeps its direction: by it, the backend knows on which side of the first page the lines will stand.
    const targets = asked.map(({ target, cursor }) => (cursor ? { ...target, cursor } : target));
    const range = rangeAround(
      fromMs,
      toMs,
      asked.flatMap(({ cursor }) => cursor ?? [])
    );
    return super.query({ ...request, targets, range }).pipe(
      tap((response) => {
        for (const { target, shown, cursor } of asked) {
          if (cursor) {
            this.pages.continued(shown, cursor, framesOf(response, target.refId));
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
    const { model, range } = contextQuery(row, options, this.contextFilters);
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
    const { builder, editor, version, format } = contextQuery(row, options, this.contextFilters).model;
    return {
      refId: row.dataFrame.refId ?? 'A',
      // Without it, Grafana has no button that opens the query.
      datasource: this.getRef(),
      version,
      editor,
      format,
      builder: { ...builder, limit: 0, direction: 'backward' },
    };
  };

  getLogRowContextUi = (row: LogRowModel, runContextQuery?: () => void): ReactNode =>
    createElement(ContextFilters, { key: row.uid, row, onChoose: this.chooseContext, onRun: runContextQuery });

  /** Where everything a query matches can be had as a file. */
  exportAddress(query: QuiverQuery, range: TimeRange, format: string): string {
    const filled = this.applyTemplateVariables(query, {});
    const bounds = { from: range.from.valueOf(), to: range.to.valueOf() };
    return exportAddress(this.uid, filled, bounds, format, config.appSubUrl);
  }

  toggleQueryFilter(query: QuiverQuery, filter: ToggleFilterAction): QuiverQuery {
    const { key, value } = filter.options;
    const edited = editFilters(normalize(query), (filters) => toggleFilter(filters, filter.type, key, value));
    return withModel(query, edited);
  }

  queryHasFilter(query: QuiverQuery, filter: QueryFilterOptions): boolean {
    return hasFilter(filtersOf(normalize(query)), filter.key, filter.value);
  }

  getSupportedQueryModifications(): string[] {
    return ['ADD_FILTER', 'ADD_FILTER_OUT', 'ADD_STRING_FILTER', 'ADD_STRING_FILTER_OUT'];
  }

  modifyQuery(query: QuiverQuery, action: QueryFixAction): QuiverQuery {
    const { key = '', value = '' } = action.options ?? {};
    const model = normalize(query);
    switch (action.type) {
      case 'ADD_FILTER':
        return withModel(
          query,
          editFilters(model, (filters) => addFilter(filters, '=', key, value))
        );
      case 'ADD_FILTER_OUT':
        return withModel(
          query,
          editFilters(model, (filters) => addFilter(filters, '!=', key, value))
        );
      case 'ADD_STRING_FILTER':
        return withModel(query, addText(model, 'contains', value));
      case 'ADD_STRING_FILTER_OUT':
        return withModel(query, addText(model, '!contains', value));
      default:
        return query;
    }
  }

  /** What a label of a line is, for the groups of its details (Grafana 12.4 and later). */
  getLabelDisplayTypeFromFrame(labelKey: string): string | null {
    return labelKind(labelKey);
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
    // Where the store does not answer, the queries themselves say so.
    const columns = await this.store.columns(options?.timeRange).catch(() => undefined);
    return (options?.filters ?? []).map(({ key, origin }) => {
      const applicable = columns === undefined || columns.some((column) => column.name === columnOf(key));
      return {
        key,
        applicable,
        ...(origin ? { origin } : {}),
        ...(applicable ? {} : { reason: `no line has the field '${key}'` }),
      };
    });
  }
}

/** The query with a changed model; what else Grafana keeps in it stays. */
function withModel(query: QuiverQuery, { editor, builder, filters }: QueryModel): QuiverQuery {
  return editor === 'sql' ? { ...query, filters } : { ...query, builder };
}

function addText(model: QueryModel, op: SearchOp, text: string): QueryModel {
  return model.editor === 'sql'
    ? editFilters(model, (filters) => addMessageFilter(filters, op, text))
    : { ...model, builder: { ...model.builder, search: addSearch(model.builder.search, op, text) } };
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
