import {
  CoreApp,
  DataFrame,
  DataQueryRequest,
  DataSourceInstanceSettings,
  dateTime,
  FieldType,
  LogRowContextQueryDirection,
  LogRowModel,
  PluginType,
  SupplementaryQueryType,
  toDataFrame,
} from '@grafana/data';
import { BackendSrv, BackendSrvRequest, GrafanaLiveSrv, setBackendSrv, setGrafanaLiveSrv } from '@grafana/runtime';
import { finalize, lastValueFrom, NEVER, of } from 'rxjs';

import { QuiverDatasource } from './datasource';
import { templates, TestVariable } from './testTemplates';
import { QuiverOptions, QuiverQuery, VariableQuery } from './types';
import { QuiverVariableSupport } from './variableSupport';

const T = 1_767_268_800_000;

const SETTINGS: DataSourceInstanceSettings<QuiverOptions> = {
  id: 1,
  uid: 'quiver',
  name: 'Quiver',
  type: 'quiver-logs-datasource',
  access: 'proxy',
  readOnly: false,
  jsonData: {},
  meta: {
    id: 'quiver-logs-datasource',
    name: 'Quiver Logs',
    type: PluginType.datasource,
    module: '',
    baseUrl: '',
    info: {} as DataSourceInstanceSettings['meta']['info'],
  },
};

interface Body {
  queries: QuiverQuery[];
  from: string;
  to: string;
}

/** Stands where Grafana's HTTP client does; `answer` is given the body of a query or the address of a resource. */
function listen(answer: (body: Body, url: string) => unknown = () => ({ results: {} })) {
  const calls: Array<{ url: string; body: Body; params?: Record<string, unknown> }> = [];
  setBackendSrv({
    fetch: (request: BackendSrvRequest) => {
      calls.push({ url: request.url, body: request.data as Body, params: request.params });
      return of({ data: answer(request.data as Body, request.url), status: 200, ok: true });
    },
  } as unknown as BackendSrv);
  return calls;
}

function datasource(...variables: TestVariable[]) {
  return new QuiverDatasource(SETTINGS, templates(...variables));
}

function request(targets: QuiverQuery[], more: Partial<DataQueryRequest<QuiverQuery>> = {}) {
  const [from, to] = [dateTime(T), dateTime(T + 60_000)];
  return {
    requestId: 'r1',
    app: CoreApp.Explore,
    targets,
    range: { from, to, raw: { from, to } },
    interval: '1s',
    intervalMs: 1000,
    scopedVars: {},
    timezone: 'utc',
    startTime: 0,
    ...more,
  } satisfies DataQueryRequest<QuiverQuery>;
}

/** An answer of log lines as the backend gives it: [ms after T, nanoseconds beyond, seq]. */
function lines(refId: string, ...rows: Array<[number, number, string]>) {
  const frame = {
    schema: {
      refId,
      meta: { type: 'log-lines', typeVersion: [0, 0] },
      fields: [
        { name: 'timestamp', type: 'time' },
        { name: 'body', type: 'string' },
        { name: 'id', type: 'string' },
      ],
    },
    data: {
      values: [rows.map(([ms]) => T + ms), rows.map(() => 'x'), rows.map(([, , seq]) => seq)],
      nanos: [rows.map(([, nanos]) => nanos), null, null],
    },
  };
  return { results: { [refId]: { status: 200, frames: [frame] } } };
}

const BUILDER: QuiverQuery = { refId: 'A', builder: { filters: [{ field: 'service', op: '=', value: '$service' }] } };

describe('query', () => {
  it('sends the whole model with variables and ad-hoc filters in place', async () => {
    const calls = listen();
    await lastValueFrom(
      datasource({ name: 'service', value: ['a', 'b'], multi: true }).query(
        request([BUILDER], { filters: [{ key: 'severity', operator: '=|', value: '', values: ['error', 'fatal'] }] })
      )
    );
    expect(calls[0].body.queries[0]).toMatchObject({
      refId: 'A',
      version: 1,
      editor: 'builder',
      format: 'auto',
      builder: {
        filters: [
          { field: 'service', op: 'in', values: ['a', 'b'] },
          { field: 'level', op: 'in', values: ['error', 'fatal'] },
        ],
        limit: 0,
      },
      datasource: { uid: 'quiver', type: 'quiver-logs-datasource' },
    });
  });

  it('quotes variables in SQL, and sets ad-hoc filters beside it', async () => {
    const calls = listen(() => lines('A', [1, 0, '1']));
    await lastValueFrom(
      datasource({ name: 'service', value: "it's" }).query(
        request(
          [
            {
              refId: 'A',
              editor: 'sql',
              sql: 'SELECT $service, $__from',
              filters: [{ field: 'a', value: '$service' }],
            },
          ],
          { filters: [{ key: 'level', operator: '=', value: 'error' }] }
        )
      )
    );
    expect(calls[0].body.queries[0].sql).toBe("SELECT 'it''s', $__from");
    expect(calls[0].body.queries[0].filters).toEqual([
      { field: 'a', op: '=', value: "it's", values: [] },
      { field: 'level', op: '=', value: 'error', values: [] },
    ]);
  });

  it('asks for the oldest lines first where Explore shows them first', async () => {
    const calls = listen();
    const ask = (app: CoreApp) => lastValueFrom(datasource().query(request([BUILDER], { app })));
    window.localStorage.setItem('grafana.explore.logs.sortOrder', 'Ascending');
    try {
      await ask(CoreApp.Explore);
      await ask(CoreApp.Dashboard);
    } finally {
      window.localStorage.clear();
    }
    await ask(CoreApp.Explore);
    expect(calls.map((call) => call.body.queries[0].builder?.direction)).toEqual(['forward', 'backward', 'backward']);
  });

  it('runs neither hidden queries nor empty SQL', () => {
    const source = datasource();
    expect(source.filterQuery({ refId: 'A' })).toBe(true);
    expect(source.filterQuery({ refId: 'A', hide: true })).toBe(false);
    expect(source.filterQuery({ refId: 'A', editor: 'sql', sql: ' ' })).toBe(false);
    expect(source.filterQuery({ refId: 'A', editor: 'sql', sql: 'SELECT 1' })).toBe(true);
  });

  it('counts by default in alert rules and shows lines elsewhere', () => {
    expect(datasource().getDefaultQuery(CoreApp.UnifiedAlerting).builder?.aggregate?.function).toBe('count');
    expect(datasource().getDefaultQuery(CoreApp.PanelEditor).builder).toMatchObject({
      aggregate: { function: 'count' },
      groupBy: ['level'],
    });
    expect(datasource().getDefaultQuery(CoreApp.Explore).builder?.aggregate).toBeNull();
  });
});

describe('infinite scroll', () => {
  const more = (from: number, to: number, refId = 'scroll-A') => {
    const range = { from: dateTime(from), to: dateTime(to) };
    return request([{ ...BUILDER, refId, supportingQueryType: 'infiniteScroll' }], {
      range: { ...range, raw: range },
    });
  };

  it('goes on from the last line, over a range that holds its whole millisecond', async () => {
    const calls = listen(() => lines('A', [500, 999_999, '9'], [100, 250, '4']));
    const source = datasource();
    await lastValueFrom(source.query(request([BUILDER])));
    await lastValueFrom(source.query(more(T, T + 100)));
    expect(calls[1].body.queries[0]).toMatchObject({
      cursor: { timestampNs: `${BigInt(T) * 1_000_000n + 100_000_250n}`, seq: '4', direction: 'backward' },
    });
    expect([calls[1].body.from, calls[1].body.to]).toEqual([String(T), String(T + 101)]);
  });

  it('goes on page by page, both ways', async () => {
    const answers = [
      lines('A', [500, 0, '9'], [100, 0, '4']),
      lines('scroll-A', [100, 0, '3'], [100, 0, '2']),
      lines('scroll-A'),
      lines('scroll-A'),
    ];
    const calls = listen(() => answers.shift());
    const source = datasource();
    await lastValueFrom(source.query(request([BUILDER])));
    await lastValueFrom(source.query(more(T, T + 100)));
    await lastValueFrom(source.query(more(T, T + 100)));
    await lastValueFrom(source.query(more(T + 500, T + 90_000)));
    expect(
      calls.slice(1).map((call) => [call.body.queries[0].cursor?.seq, call.body.queries[0].cursor?.direction])
    ).toEqual([
      ['4', 'backward'],
      ['2', 'backward'],
      ['9', 'forward'],
    ]);
  });

  it('goes on in a dashboard, whose panel sends its request again with a range of its own', async () => {
    const calls = listen(() => lines('A', [500, 0, '9'], [100, 0, '4']));
    const source = datasource();
    const panel = request([BUILDER], { requestId: 'SQR7', app: CoreApp.Dashboard, startTime: 1 });
    await lastValueFrom(source.query(panel));
    await lastValueFrom(source.query(panel));
    const range = { from: dateTime(T), to: dateTime(T + 100) };
    await lastValueFrom(source.query({ ...panel, range: { ...range, raw: range } }));
    expect(calls.map((call) => call.body.queries[0].cursor?.seq)).toEqual([undefined, undefined, '4']);
  });

  it('asks without a cursor where it knows of no page', async () => {
    const calls = listen();
    await lastValueFrom(datasource().query(more(T, T + 100)));
    expect(calls[0].body.queries[0].cursor).toBeUndefined();
    expect(calls[0].body.to).toBe(String(T + 100));
  });
});

describe('live tail', () => {
  const live = () => {
    const addresses: Array<{ path: string; data: QuiverQuery; namespace: string }> = [];
    setGrafanaLiveSrv({
      getDataStream: ({ addr }: { addr: (typeof addresses)[0] }) => {
        addresses.push(addr);
        return of({ data: [toDataFrame({ fields: [] })] });
      },
    } as unknown as GrafanaLiveSrv);
    return addresses;
  };

  it('subscribes to a channel named after the query and marks what comes as a stream', async () => {
    const addresses = live();
    const source = datasource({ name: 'service', value: 'a' });
    const response = await lastValueFrom(source.query(request([BUILDER], { liveStreaming: true })));
    expect(addresses[0]).toMatchObject({
      namespace: 'quiver',
      data: { purpose: 'tail', builder: { filters: [{ field: 'service', op: '=', value: 'a' }] } },
    });
    expect(addresses[0].path).toMatch(/^tail\/[0-9a-f]{32}$/);
    expect(response).toMatchObject({ state: 'Streaming', key: 'quiver-tail-r1-A', data: [{ refId: 'A' }] });
  });

  it('changes the path exactly when the query changes', () => {
    const addresses = live();
    const path = (value: string, refId: string) => {
      datasource({ name: 'service', value })
        .query(request([{ ...BUILDER, refId }], { liveStreaming: true }))
        .subscribe();
      return addresses[addresses.length - 1].path;
    };
    expect(path('a', 'A')).toBe(path('a', 'B'));
    expect(path('a', 'A')).not.toBe(path('b', 'A'));
  });

  it('tails lines only', () => {
    const addresses = live();
    const metric: QuiverQuery = { refId: 'A', builder: { aggregate: { function: 'count' } } };
    datasource()
      .query(request([metric, { ...BUILDER, hide: true }], { liveStreaming: true }))
      .subscribe();
    expect(addresses).toEqual([]);
  });

  it('ends when Grafana leaves', () => {
    const left = jest.fn();
    setGrafanaLiveSrv({ getDataStream: () => NEVER.pipe(finalize(left)) } as unknown as GrafanaLiveSrv);
    const subscription = datasource()
      .query(request([BUILDER], { liveStreaming: true }))
      .subscribe();
    expect(left).not.toHaveBeenCalled();
    subscription.unsubscribe();
    expect(left).toHaveBeenCalledTimes(1);
  });
});

describe('supplementary queries', () => {
  const source = datasource();
  const metric: QuiverQuery = { refId: 'M', builder: { aggregate: { function: 'count' }, groupBy: ['level'] } };
  const sql: QuiverQuery = { refId: 'S', editor: 'sql', sql: 'SELECT * FROM logs' };
  const refIds = (type: SupplementaryQueryType, ...targets: QuiverQuery[]) =>
    source.getSupplementaryRequest(type, request(targets))?.targets.map((query) => [query.refId, query.purpose]);

  it('has a volume for lines, of the builder and of SQL', () => {
    expect(refIds(SupplementaryQueryType.LogsVolume, BUILDER, metric, sql, { ...sql, format: 'series' })).toEqual([
      ['log-volume-A', 'log-volume'],
      ['log-volume-S', 'log-volume'],
    ]);
  });

  it('has a sample of the lines behind a metric', () => {
    const sample = source.getSupplementaryQuery({ type: SupplementaryQueryType.LogsSample, limit: 7 }, metric);
    expect(sample).toMatchObject({
      refId: 'log-sample-M',
      purpose: 'logs-sample',
      builder: { aggregate: null, groupBy: [], limit: 7 },
    });
    expect(
      refIds(SupplementaryQueryType.LogsSample, BUILDER, sql, { ...sql, format: 'table' }, { ...sql, format: 'series' })
    ).toEqual([['log-sample-S', 'logs-sample']]);
  });

  it('has nothing beside a hidden query', () => {
    expect(refIds(SupplementaryQueryType.LogsVolume, { ...BUILDER, hide: true })).toBeUndefined();
  });

  it('says which it supports', () => {
    expect(source.getSupportedSupplementaryQueryTypes()).toEqual(['LogsVolume', 'LogsSample']);
  });
});

describe('log context', () => {
  const row = {
    rowIndex: 1,
    timeEpochMs: T + 5,
    timeEpochNs: `${BigInt(T + 5) * 1_000_000n + 7n}`,
    labels: { service: 'api', host: 'h1', user_id: '7', empty: '' },
    dataFrame: toDataFrame({
      refId: 'A',
      fields: [
        { name: 'timestamp', type: FieldType.time, values: [T, T + 5] },
        { name: 'id', type: FieldType.string, values: ['41', '42'] },
      ],
    }),
  } as unknown as LogRowModel;

  it('asks for the lines of the stream strictly before the line', async () => {
    const calls = listen();
    await datasource().getLogRowContext(row, { limit: 20, direction: LogRowContextQueryDirection.Backward });
    expect(calls[0].body.queries[0]).toMatchObject({
      purpose: 'context',
      cursor: { timestampNs: row.timeEpochNs, seq: '42', direction: 'backward' },
      builder: {
        limit: 20,
        filters: [
          { field: 'service', op: '=', value: 'api' },
          { field: 'host', op: '=', value: 'h1' },
        ],
      },
    });
    expect(calls[0].body.to).toBe(String(T + 6));
  });

  it('opens them as a query of this data source', async () => {
    expect(await datasource().getLogRowContextQuery(row)).toMatchObject({
      refId: 'A',
      datasource: { uid: 'quiver', type: 'quiver-logs-datasource' },
      builder: { limit: 0, filters: [{ field: 'service' }, { field: 'host' }] },
    });
  });

  it('gives the lines after it newest first, as the view reads them', async () => {
    const calls = listen(() => lines('context-A', [6, 1, '43'], [8, 2, '44']));
    const response = await datasource().getLogRowContext(row, {
      direction: LogRowContextQueryDirection.Forward,
      timeWindowMs: 1000,
    });
    expect([calls[0].body.from, calls[0].body.to]).toEqual([String(T + 5), String(T + 1005)]);
    const [time, , id] = (response.data[0] as DataFrame).fields;
    expect(id.values).toEqual(['44', '43']);
    expect(time.nanos).toEqual([2, 1]);
  });

  it('does not disturb the pages of the query itself', async () => {
    const calls = listen(() => lines('A', [500, 0, '9'], [100, 0, '4']));
    const source = datasource();
    await lastValueFrom(source.query(request([BUILDER])));
    await source.getLogRowContext(row);
    const scroll = { ...BUILDER, supportingQueryType: 'infiniteScroll' };
    const range = { from: dateTime(T), to: dateTime(T + 100) };
    await lastValueFrom(source.query(request([scroll], { range: { ...range, raw: range } })));
    expect(calls[2].body.queries[0].cursor?.seq).toBe('4');
  });
});

describe('filters', () => {
  const source = datasource();

  it('toggles and shows them in the builder, and beside SQL', () => {
    const options = { key: 'level', value: 'error' };
    for (const query of [{ refId: 'A' }, { refId: 'A', editor: 'sql' as const, sql: 'SELECT 1' }]) {
      const on = source.toggleQueryFilter(query, { type: 'FILTER_FOR', options });
      expect(source.queryHasFilter(query, options)).toBe(false);
      expect(source.queryHasFilter(on, options)).toBe(true);
      const off = source.toggleQueryFilter(on, { type: 'FILTER_FOR', options });
      expect(source.queryHasFilter(off, options)).toBe(false);
      expect(on.sql).toBe(query.sql);
    }
  });

  it('adds text to look for to the searches of a builder, and to the filters beside SQL', () => {
    const action = { type: 'ADD_STRING_FILTER', options: { value: 'x' } };
    expect(source.modifyQuery({ refId: 'A', editor: 'sql', sql: 'SELECT 1' }, action)).toEqual({
      refId: 'A',
      editor: 'sql',
      sql: 'SELECT 1',
      filters: [{ field: 'message', op: 'contains', value: 'x', values: [] }],
    });
  });

  it.each([
    ['ADD_FILTER', { filters: [{ field: 'a', op: '=', value: 'x' }] }],
    ['ADD_FILTER_OUT', { filters: [{ field: 'a', op: '!=', value: 'x' }] }],
    ['ADD_STRING_FILTER', { search: [{ op: 'contains', text: 'x' }] }],
    ['ADD_STRING_FILTER_OUT', { search: [{ op: '!contains', text: 'x' }] }],
  ])('%s', (type, builder) => {
    expect(source.getSupportedQueryModifications()).toContain(type);
    const changed = source.modifyQuery({ refId: 'A' }, { type, options: { key: 'a', value: 'x' } });
    expect(changed.builder).toMatchObject(builder);
  });
});

describe('ad-hoc filters', () => {
  it('offers every field but time, and values narrowed by the other filters', async () => {
    const calls = listen((_, url) =>
      url.endsWith('fields/values')
        ? [{ value: 'error', count: 3 }]
        : [
            { name: 'timestamp', type: 'time' },
            { name: 'level', type: 'string' },
          ]
    );
    const source = datasource();
    expect(await source.getTagKeys({ filters: [] })).toEqual([{ text: 'level' }]);
    const filters = [
      { key: 'level', operator: '=', value: 'warn' },
      { key: 'service', operator: '=', value: 'api' },
    ];
    expect(await source.getTagValues({ key: 'level', filters })).toEqual([{ text: 'error' }]);
    expect(calls[1].url).toBe('/api/datasources/uid/quiver/resources/fields/values');
    expect(calls[1].params).toMatchObject({ field: 'level', limit: 200 });
    expect(JSON.parse(String(calls[1].params?.filter))).toEqual([
      { field: 'service', op: '=', value: 'api', values: [] },
    ]);
  });

  it('says which cannot apply, because no line has the field', async () => {
    listen(() => [{ name: 'level', type: 'string' }]);
    const filters = [
      { key: 'severity', operator: '=', value: 'error' },
      { key: 'leve', operator: '=', value: 'error' },
    ];
    expect(await datasource().getDrilldownsApplicability({ filters, queries: [BUILDER] })).toEqual([
      { key: 'severity', applicable: true },
      { key: 'leve', applicable: false, reason: expect.stringContaining("'leve'") },
    ]);
  });
});

describe('variables', () => {
  const ask = (source: QuiverDatasource, query: Partial<VariableQuery>) =>
    lastValueFrom(
      (source.variables as QuiverVariableSupport).query({
        ...request([]),
        targets: [{ refId: 'variable', ...query } as VariableQuery],
      })
    );

  it('lists the values of a field under filters', async () => {
    const calls = listen(() => [{ value: 'api', count: 3 }]);
    const source = datasource({ name: 'level', value: ['error', 'fatal'], multi: true });
    const filters = [{ field: 'level', op: '=' as const, value: '$level', values: [] }];
    expect((await ask(source, { kind: 'values', field: 'service', filters })).data).toEqual([{ text: 'api' }]);
    expect(JSON.parse(String(calls[0].params?.filter))).toEqual([
      { field: 'level', op: 'in', value: '', values: ['error', 'fatal'] },
    ]);
  });

  it('lists fields', async () => {
    listen(() => [{ name: 'level', type: 'string' }]);
    expect((await ask(datasource(), { kind: 'fields' })).data).toEqual([{ text: 'level' }]);
  });

  it('runs SQL and takes its first column, or those it names', async () => {
    const answer = (...fields: Array<[string, unknown[]]>) => ({
      results: {
        variable: {
          status: 200,
          frames: [
            {
              schema: { refId: 'variable', fields: fields.map(([name]) => ({ name, type: 'string' })) },
              data: { values: fields.map(([, values]) => values) },
            },
          ],
        },
      },
    });
    const calls = listen(() => answer(['service', ['a', null]], ['n', ['1', '2']]));
    expect((await ask(datasource(), { kind: 'sql', sql: 'SELECT 1' })).data).toEqual([{ text: 'a' }, { text: '' }]);
    expect(calls[0].body.queries[0]).toMatchObject({ editor: 'sql', sql: 'SELECT 1', format: 'table' });
    listen(() => answer(['__value', ['1']], ['__text', ['One']]));
    expect((await ask(datasource(), { kind: 'sql', sql: 'SELECT 1' })).data).toEqual([{ text: 'One', value: '1' }]);
  });
});

describe('the store', () => {
  it('is asked once by many pickers, and again after a failure', async () => {
    let fails = true;
    const calls = listen(() => {
      if (fails) {
        throw new Error('down');
      }
      return [{ name: 'level', type: 'string' }];
    });
    const { store } = datasource();
    await expect(store.columns()).rejects.toThrow('down');
    fails = false;
    await Promise.all([store.columns(), store.columns(), store.columns()]);
    expect(calls).toHaveLength(2);
  });
});
