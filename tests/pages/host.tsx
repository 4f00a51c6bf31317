/**
 * The page that stands in for Grafana's: the real libraries, shared with the plugin through SystemJS as Grafana shares
 * them, and around the plugin's components no more than what they need. Its calls go to the bridge (tests/host).
 * The address says what is shown: ?show=query|config|variable|help&theme=dark|light&app=explore&query={…}
 */
import * as emotionCss from '@emotion/css';
import * as emotionReact from '@emotion/react';
import * as grafanaData from '@grafana/data';
import * as grafanaRuntime from '@grafana/runtime';
import * as grafanaUi from '@grafana/ui';
import * as react from 'react';
import * as jsxRuntime from 'react/jsx-runtime';
import * as reactDom from 'react-dom';
import { createRoot } from 'react-dom/client';
import * as rxjs from 'rxjs';
import 'systemjs/dist/system.js';
import 'systemjs/dist/extras/amd.js';

import { TestVariable, templates } from '../../frontend/src/testTemplates';

const SHARED: Record<string, object> = {
  '@emotion/css': emotionCss,
  '@emotion/react': emotionReact,
  '@grafana/data': grafanaData,
  '@grafana/runtime': grafanaRuntime,
  '@grafana/ui': grafanaUi,
  react,
  'react/jsx-runtime': jsxRuntime,
  'react-dom': reactDom,
  rxjs,
};

const { createElement: h, useState } = react;
const parameters = new URLSearchParams(location.search);
const show = parameters.get('show') ?? 'query';
const app = (parameters.get('app') ?? grafanaData.CoreApp.Explore) as grafanaData.CoreApp;
const jsonParameter = (name: string) => JSON.parse(parameters.get(name) ?? '{}');

declare const System: {
  constructor: { prototype: { resolve: (id: string, parent?: string) => string } };
  set: (id: string, module: object) => void;
  import: (id: string) => Promise<{ plugin: grafanaData.DataSourcePlugin<any, any, any, any> }>;
};

/** What the tests read. */
interface Seen {
  query?: unknown;
  queries: unknown[];
  options?: unknown;
  runs: number;
}
const seen: Seen = { queries: [], runs: 0 };
Object.assign(window, { seen });

function share() {
  const { resolve } = System.constructor.prototype;
  System.constructor.prototype.resolve = function (id, parent) {
    return id in SHARED ? `shared:${id}` : resolve.call(this, id, parent);
  };
  for (const [name, module] of Object.entries(SHARED)) {
    System.set(`shared:${name}`, { ...module, default: module, __useDefault: true });
  }
}

/** The few calls of Grafana's BackendSrv that DataSourceWithBackend makes. */
function fetchFromBridge(request: grafanaRuntime.BackendSrvRequest) {
  const url = new URL(request.url, location.origin);
  for (const [name, value] of Object.entries(request.params ?? {})) {
    url.searchParams.set(name, String(value));
  }
  const ask = async () => {
    const body = request.data === undefined ? undefined : JSON.stringify(request.data);
    const response = await fetch(url, { method: request.method ?? 'GET', body });
    const data = await response.json();
    const answer = { data, status: response.status, ok: response.ok, statusText: response.statusText, config: request };
    if (!response.ok) {
      throw answer;
    }
    return answer;
  };
  return rxjs.from(ask());
}

const JAEGER = { uid: 'jaeger', name: 'Jaeger', type: 'jaeger', meta: { id: 'jaeger', name: 'Jaeger', tracing: true, info: { logos: { small: '' } } }, jsonData: {} };

function provide() {
  grafanaRuntime.setAppEvents(new grafanaData.EventBusSrv());
  grafanaRuntime.setBackendSrv({ fetch: fetchFromBridge } as unknown as grafanaRuntime.BackendSrv);
  grafanaRuntime.setDataSourceSrv({
    getList: () => [JAEGER],
    getInstanceSettings: (ref: unknown) => (!ref || ref === 'jaeger' ? JAEGER : undefined),
  } as unknown as grafanaRuntime.DataSourceSrv);
  const variables: TestVariable[] = [
    { name: 'service', value: ['payments-api', 'bff'], multi: true, includeAll: true },
    { name: 'level', value: 'error' },
  ];
  grafanaRuntime.setTemplateSrv(templates(...variables) as grafanaRuntime.TemplateSrv);
}

function range(): grafanaData.TimeRange {
  const to = grafanaData.dateTime();
  const from = grafanaData.dateTime(to.valueOf() - 30 * 60_000);
  return { from, to, raw: { from: 'now-30m', to: 'now' } };
}

function requestOf(query: any, now: grafanaData.TimeRange): grafanaData.DataQueryRequest<any> {
  return {
    requestId: 'page', app, targets: [query], range: now, interval: '10s', intervalMs: 10_000, maxDataPoints: 800,
    scopedVars: {}, timezone: 'utc', startTime: Date.now(),
  };
}

function QueryPage({ plugin, datasource }: any) {
  const { QueryEditor } = plugin.components;
  const [query, setQuery] = useState<any>({ refId: 'A', ...datasource.getDefaultQuery(app), ...jsonParameter('query') });
  const [data, setData] = useState<grafanaData.PanelData>();
  const [now] = useState(range);
  seen.query = query;
  const run = async () => {
    seen.runs += 1;
    const request = requestOf(seen.query, now);
    setData({ state: grafanaData.LoadingState.Loading, series: [], timeRange: now, request });
    try {
      const response: any = await rxjs.lastValueFrom(datasource.query(request));
      setData({ state: grafanaData.LoadingState.Done, series: response.data.map(grafanaData.toDataFrame), errors: response.errors, error: response.error, timeRange: now, request });
    } catch (error: any) {
      setData({ state: grafanaData.LoadingState.Error, series: [], error, timeRange: now, request });
    }
  };
  const change = (next: any) => {
    seen.query = next;
    seen.queries.push(next);
    setQuery(next);
  };
  return h('div', null,
    h('section', { className: 'box' }, h('div', { className: 'head' }, 'A (Quiver)'),
      h(QueryEditor, { query, datasource, range: now, data, app, onChange: change, onRunQuery: run, queries: [query] })),
    h(Result, { data }));
}

/** What came back, as a table; Grafana's own panels are no library. */
function Result({ data }: { data?: grafanaData.PanelData }) {
  if (!data) {
    return null;
  }
  const error = data.error ?? data.errors?.[0];
  return h('section', { className: 'box', 'data-testid': 'result', 'data-state': data.state },
    error && h(grafanaUi.Alert, { title: error.message ?? error.data?.message ?? 'failed', severity: 'error' }),
    data.series.slice(0, 3).map((frame, key) => h('div', { key },
      h('div', { className: 'head' }, `${frame.name ?? frame.refId}: ${frame.length} rows · ${frame.meta?.type ?? 'untyped'}`),
      h(Rows, { frame }))));
}

function Rows({ frame }: { frame: grafanaData.DataFrame }) {
  const rows = Array.from({ length: Math.min(5, frame.length) }, (_, row) => row);
  const text = (value: unknown) => (typeof value === 'object' ? JSON.stringify(value) : String(value)).slice(0, 80);
  return h('table', { style: { fontSize: 12 } }, h('tbody', null, rows.map((row) =>
    h('tr', { key: row }, frame.fields.slice(0, 4).map((field) =>
      h('td', { key: field.name, style: { paddingRight: 16 } }, text(field.values[row])))))));
}

function ConfigPage({ plugin }: any) {
  const { ConfigEditor } = plugin.components;
  const [options, setOptions] = useState<any>({ uid: 'quiver', url: '', basicAuth: false, jsonData: {}, secureJsonData: {}, secureJsonFields: {}, ...jsonParameter('options') });
  const [answer, setAnswer] = useState<{ status: string; message: string }>();
  seen.options = options;
  const test = async () => {
    const response = await fetch('/api/datasources/uid/quiver/health', { method: 'POST', body: JSON.stringify(seen.options) });
    setAnswer(await response.json());
  };
  return h('section', { className: 'box' },
    h(ConfigEditor, { options, onOptionsChange: setOptions }),
    answer && h(grafanaUi.Alert, { title: answer.message, severity: answer.status === 'OK' ? 'success' : 'error', 'data-testid': 'health' } as any),
    h(grafanaUi.Button, { onClick: test }, 'Save & test'));
}

function VariablePage({ datasource }: any) {
  const Editor = datasource.variables.editor;
  const [query, setQuery] = useState<any>({ refId: 'variable', ...datasource.variables.getDefaultQuery(), ...jsonParameter('query') });
  const [values, setValues] = useState<string[]>();
  seen.query = query;
  const [now] = useState(range);
  const run = async () => {
    const answer: any = await rxjs.lastValueFrom(datasource.variables.query(requestOf(seen.query, now)));
    setValues(answer.data.map((item: { text: string }) => item.text));
  };
  return h('section', { className: 'box' },
    h(Editor, { query, datasource, range: now, onChange: (next: any) => { seen.query = next; setQuery(next); }, onRunQuery: run }),
    h(grafanaUi.Button, { onClick: run, variant: 'secondary' }, 'Preview of values'),
    values && h('pre', { 'data-testid': 'values' }, values.join('\n')));
}

function HelpPage({ plugin, datasource }: any) {
  const { QueryEditorHelp } = plugin.components;
  return h('section', { className: 'box' },
    h(QueryEditorHelp, { datasource, query: {}, exploreId: '', onClickExample: (query: any) => { seen.query = query; seen.queries.push(query); } }));
}

const PAGES: Record<string, (props: any) => react.ReactElement> = { query: QueryPage, config: ConfigPage, variable: VariablePage, help: HelpPage };

function theme() {
  return grafanaData.createTheme({ colors: { mode: parameters.get('theme') === 'light' ? 'light' : 'dark' } });
}

async function start() {
  share();
  provide();
  const { plugin } = await System.import(new URL('/plugin/module.js', location.origin).href);
  const meta = await (await fetch('/plugin/plugin.json')).json();
  const settings = { id: 1, uid: 'quiver', name: 'Quiver', type: meta.id, meta, jsonData: { tenants: ['team-a', 'team-b'] }, readOnly: false, access: 'proxy' };
  const datasource = new (plugin.DataSourceClass as any)(settings);
  datasource.components = plugin.components;
  Object.assign(window, { datasource });
  const { colors, typography } = theme();
  const style = document.createElement('style');
  style.textContent = `
    html, body { background: ${colors.background.canvas}; color: ${colors.text.primary}; font-family: ${typography.fontFamily}; margin: 0 }
    main { padding: 16px } .box { background: ${colors.background.primary}; border: 1px solid ${colors.border.weak}; padding: 12px; margin-bottom: 12px }
    .head { font-size: 12px; color: ${colors.text.secondary}; margin-bottom: 8px }`;
  document.head.append(style);
  createRoot(document.getElementById('page')!).render(
    h(grafanaData.ThemeContext.Provider, { value: theme() },
      h(grafanaUi.GlobalStyles, { isExploreContext: true } as any),
      h(grafanaUi.PortalContainer ?? 'div', null),
      h('main', null, h(PAGES[show], { plugin, datasource })))
  );
}

void start();
