import {
  CoreApp,
  DataSourceInstanceSettings,
  DataSourceSettings,
  EventBusSrv,
  PluginType,
  ScopedVars,
} from '@grafana/data';
import {
  BackendSrv,
  BackendSrvRequest,
  DataSourceSrv,
  setAppEvents,
  setBackendSrv,
  setDataSourceSrv,
  setTemplateSrv,
  TemplateSrv,
} from '@grafana/runtime';
import { act, configure, render, screen, waitFor } from '@testing-library/react';
import user from '@testing-library/user-event';
import { useState } from 'react';
import { of, throwError } from 'rxjs';

import { ConfigEditor, urlProblem } from './ConfigEditor';
import { QuiverDatasource } from './datasource';
import { normalize } from './model';
import { QueryEditor } from './QueryEditor';
import { templates } from './testTemplates';
import { QuiverOptions, QuiverQuery, QuiverSecrets, VariableQuery } from './types';
import { VariableEditor } from './VariableEditor';

// Monaco needs a real browser: a plain text box with the same contract stands in for it.
jest.mock('@grafana/ui', () => ({
  ...jest.requireActual('@grafana/ui'),
  CodeEditor: ({ value, onBlur }: { value: string; onBlur: (value: string) => void }) => (
    <textarea aria-label="sql" defaultValue={value} onBlur={(event) => onBlur(event.currentTarget.value)} />
  ),
}));

// Whether an element is hidden costs jsdom most of a second to tell; nothing here is hidden.
configure({ defaultHidden: true, asyncUtilTimeout: 15_000 });
const userEvent = user.setup({ delay: null });

const SETTINGS = {
  id: 1,
  uid: 'quiver',
  name: 'Quiver',
  type: 'quiver-logs-datasource',
  jsonData: { defaultLimit: 500 },
  meta: { id: 'quiver-logs-datasource', type: PluginType.datasource },
} as unknown as DataSourceInstanceSettings<QuiverOptions>;

const RESOURCES: Record<string, unknown> = {
  fields: [
    { name: 'service', type: 'string' },
    { name: 'status', type: 'integer' },
  ],
  'fields/values': [{ value: 'payments-api', count: 12 }],
  sql: { sql: 'SELECT generated' },
  builder: { reason: 'the builder has no part for this' },
  layout: { sql: 'SELECT 1' },
  check: { problems: [], hints: [], explanation: ['Takes the lines.'] },
  estimate: { lines: 12_345_678, bytes: 4_200_000_000 },
  functions: [],
};

beforeAll(() => {
  setAppEvents(new EventBusSrv());
  setDataSourceSrv({ getList: () => [], getInstanceSettings: () => undefined } as unknown as DataSourceSrv);
  setTemplateSrv({
    replace: (text: string, vars: ScopedVars) => text.replace('${__value.raw}', vars.__value?.value.raw),
  } as unknown as TemplateSrv);
});

function answer(resources: Record<string, unknown>) {
  const urls: string[] = [];
  setBackendSrv({
    fetch: ({ url }: BackendSrvRequest) => {
      urls.push(url);
      const found = resources[url.split('/resources/')[1]];
      return found ? of({ data: found }) : throwError(() => ({ data: { message: 'the store is not reachable' } }));
    },
  } as unknown as BackendSrv);
  return urls;
}

function showQueryEditor(first: Partial<QuiverQuery>, app = CoreApp.Dashboard, jsonData: QuiverOptions = {}) {
  const seen = { query: { refId: 'A', ...first } as QuiverQuery, runs: [] as QuiverQuery[] };
  const settings = { ...SETTINGS, jsonData: { ...SETTINGS.jsonData, ...jsonData } };
  const datasource = new QuiverDatasource(settings, templates({ name: 'env', value: 'prod' }));
  function Host() {
    const [query, setQuery] = useState(seen.query);
    return (
      <QueryEditor
        query={query}
        datasource={datasource}
        app={app}
        onChange={(next) => {
          seen.query = next;
          setQuery(next);
        }}
        onRunQuery={() => seen.runs.push(seen.query)}
      />
    );
  }
  render(<Host />);
  return seen;
}

async function pick(testId: string, option: RegExp) {
  await userEvent.click(screen.getByTestId(testId));
  const found = await waitFor(() => {
    const options = screen.getAllByRole('option').filter((item) => item.textContent?.match(option));
    expect(options.length).toBeGreaterThan(0);
    return options[0];
  });
  await userEvent.click(found);
}

describe('QueryEditor', () => {
  it('builds a filter from what the store knows, and runs once it says something', async () => {
    answer(RESOURCES);
    const seen = showQueryEditor({});
    await userEvent.click(screen.getByTestId('quiver-filter-add'));
    await pick('quiver-filter-1-field', /service/);
    expect(seen.runs).toHaveLength(0);
    await pick('quiver-filter-1-value', /payments-api/);
    expect(normalize(seen.runs[0]).builder.filters).toEqual([
      { field: 'service', op: '=', value: 'payments-api', values: [] },
    ]);
    await pick('quiver-filter-1-op', /^is one of$/);
    expect(normalize(seen.query).builder.filters[0]).toMatchObject({ op: 'in', values: ['payments-api'] });
    await userEvent.click(screen.getByTestId('quiver-filter-1-remove'));
    expect(normalize(seen.runs[seen.runs.length - 1]).builder.filters).toEqual([]);
  });

  it('takes text when it is left, or with Enter, and runs the query on the screen with Ctrl+Enter', async () => {
    answer(RESOURCES);
    const seen = showQueryEditor({ builder: { search: [{ op: 'contains', text: '' }] } });
    await userEvent.type(screen.getByLabelText('Text 1'), 'declined');
    expect(seen.runs).toHaveLength(0);
    await userEvent.keyboard('{Control>}{Enter}{/Control}');
    expect(seen.runs.map((query) => normalize(query).builder.search)).toEqual([[{ op: 'contains', text: 'declined' }]]);
    await userEvent.keyboard('{Control>}{Enter}{/Control}');
    expect(seen.runs).toHaveLength(2);
    await userEvent.type(screen.getByLabelText('Limit'), '50');
    await userEvent.tab();
    expect(normalize(seen.runs[seen.runs.length - 1]).builder.limit).toBe(50);
  });

  it('shows the fields an aggregate needs', async () => {
    answer(RESOURCES);
    const seen = showQueryEditor({});
    expect(screen.getByText('Newest first')).toBeInTheDocument();
    await pick('quiver-aggregate', /Quantile/);
    await pick('quiver-aggregate-field', /status/);
    await userEvent.clear(screen.getByTestId('quiver-quantile'));
    await userEvent.type(screen.getByTestId('quiver-quantile'), '0.99{Enter}');
    expect(normalize(seen.query).builder.aggregate).toEqual({ function: 'quantile', field: 'status', quantile: 0.99 });
    expect(screen.queryByText('Newest first')).not.toBeInTheDocument();
    await pick('quiver-aggregate', /Log lines/);
    expect(normalize(seen.query).builder.aggregate).toBeNull();
  });

  it('offers for a number only the fields that are one', async () => {
    answer(RESOURCES);
    showQueryEditor({ builder: { aggregate: { function: 'sum', field: '' } } });
    await userEvent.click(screen.getByTestId('quiver-aggregate-field'));
    const options = await screen.findAllByRole('option');
    expect(options.map((option) => option.textContent)).toEqual(['statusinteger']);
  });

  it('turns the builder into the SQL the backend writes', async () => {
    const urls = answer(RESOURCES);
    const seen = showQueryEditor({ builder: { limit: 7 } });
    await userEvent.click(screen.getByText('SQL'));
    expect(await screen.findByLabelText('sql')).toHaveValue('SELECT generated');
    expect(seen.query).toMatchObject({ editor: 'sql', sql: 'SELECT generated', builder: { limit: 7 } });
    expect(urls).toContain('/api/datasources/uid/quiver/resources/sql');
  });

  it('shows SQL in the builder where it has parts for it, and keeps the text', async () => {
    const { builder } = normalize({ builder: { limit: 9 } });
    answer({ ...RESOURCES, builder: { builder, format: 'logs' } });
    const seen = showQueryEditor({ editor: 'sql', sql: 'SELECT * -- mine' });
    await userEvent.click(screen.getByText('Builder'));
    await waitFor(() =>
      expect(seen.query).toMatchObject({ editor: 'builder', sql: 'SELECT * -- mine', builder, format: 'logs' })
    );
    // Nothing was changed in the builder, so the text still says the same.
    await userEvent.click(screen.getByText('SQL'));
    await waitFor(() => expect(seen.query).toMatchObject({ editor: 'sql', sql: 'SELECT * -- mine' }));
  });

  it.each([
    ['Stay with SQL', { editor: 'sql' }],
    ['Open the builder as it was', { editor: 'builder', builder: { limit: 7 } }],
  ])('says what the builder cannot show, and loses nothing: %s', async (button, expected) => {
    answer(RESOURCES);
    const seen = showQueryEditor({ editor: 'sql', sql: 'SELECT mine', builder: { limit: 7 } });
    await userEvent.click(screen.getByText('Builder'));
    expect(await screen.findByText(/The builder has no part for this\. Your SQL is kept/)).toBeInTheDocument();
    await userEvent.click(screen.getByText(button));
    await waitFor(() => expect(seen.query).toMatchObject({ ...expected, sql: 'SELECT mine' }));
  });

  it('tells problems and hints, and settles them on a click', async () => {
    const problem = { from: 14, to: 18, message: "no table named 'lgos'", instead: ['logs'] };
    const hint = {
      message: 'no condition on timestamp',
      label: 'Add a time filter',
      edits: [{ from: 18, to: 18, text: ' WHERE x' }],
    };
    answer({ ...RESOURCES, check: { problems: [problem], hints: [hint], explanation: [] } });
    const seen = showQueryEditor({ editor: 'sql', sql: 'SELECT * FROM lgos' });
    await userEvent.click(await screen.findByText('Use logs'));
    expect(seen.runs.map(({ sql }) => sql)).toEqual(['SELECT * FROM logs']);
    await waitFor(() => expect(screen.getByText('Add a time filter').closest('button')).toBeEnabled());
    await userEvent.click(screen.getByText('Add a time filter'));
    expect(seen.query.sql).toBe('SELECT * FROM logs WHERE x');
  });

  it('tells how much the range holds, and what the query does when one asks', async () => {
    answer(RESOURCES);
    showQueryEditor({});
    expect(await screen.findByText(/about 12\.3M lines, 4\.2 GB/)).toBeInTheDocument();
    expect(screen.queryByText('Takes the lines.')).not.toBeInTheDocument();
    await userEvent.click(screen.getByTestId('quiver-explain'));
    expect(screen.getByText('Takes the lines.')).toBeInTheDocument();
    await userEvent.click(screen.getByTestId('quiver-explain'));
  });

  it('lets a query name a tenant of the list', async () => {
    answer(RESOURCES);
    const seen = showQueryEditor({}, CoreApp.Dashboard, { tenants: ['team-a'] });
    await pick('quiver-tenant-of-query', /team-a/);
    expect(normalize(seen.runs[0]).tenant).toBe('team-a');
    await pick('quiver-tenant-of-query', /default/);
    expect(normalize(seen.query).tenant).toBeUndefined();
  });

  it.each([
    ['Keep my SQL', 'SELECT mine'],
    ["Use the builder's SQL", 'SELECT generated'],
  ])('asks before it replaces SQL that someone wrote: %s', async (button, sql) => {
    answer(RESOURCES);
    const seen = showQueryEditor({ sql: 'SELECT mine' });
    await userEvent.click(screen.getByText('SQL'));
    await userEvent.click(await screen.findByText(button));
    await waitFor(() => expect(seen.query).toMatchObject({ editor: 'sql', sql }));
  });

  it('says why there is no SQL, and lets one write it', async () => {
    answer({});
    const seen = showQueryEditor({});
    await userEvent.click(screen.getByText('SQL'));
    expect(await screen.findByText(/the store is not reachable/)).toBeInTheDocument();
    expect(seen.query.editor).toBe('sql');
  });

  it('runs changed SQL when its box is left, and not unchanged SQL', async () => {
    answer(RESOURCES);
    const seen = showQueryEditor({ editor: 'sql', sql: 'SELECT 1' });
    await userEvent.click(screen.getByLabelText('sql'));
    await userEvent.tab();
    expect(seen.runs).toHaveLength(0);
    await userEvent.type(screen.getByLabelText('sql'), '0');
    await userEvent.tab();
    expect(seen.runs.map((query) => query.sql)).toEqual(['SELECT 10']);
  });

  it('has a button to run in dashboards, where Explore has its own', async () => {
    answer(RESOURCES);
    const seen = showQueryEditor({});
    await userEvent.click(screen.getByTestId('quiver-run'));
    expect(seen.runs).toHaveLength(1);
  });

  it('has none in Explore', () => {
    answer(RESOURCES);
    showQueryEditor({}, CoreApp.Explore);
    expect(screen.queryByTestId('quiver-run')).not.toBeInTheDocument();
  });

  it('shows a partial model from a link as it is', () => {
    answer(RESOURCES);
    showQueryEditor({ builder: { filters: [{ field: 'trace_id', op: '=', value: 'abc' }] } });
    expect(screen.getByTestId('quiver-filter-1-field')).toHaveValue('trace_id');
    expect(screen.getByTestId('quiver-filter-1-value')).toHaveValue('abc');
    expect(screen.getByTestId('quiver-limit')).toHaveAttribute('placeholder', '500');
  });
});

describe('a query from a trace', () => {
  it('shows that its range is widened, and lets one end that', async () => {
    answer(RESOURCES);
    const seen = showQueryEditor({ widen: '1h' });
    await userEvent.clear(screen.getByTestId('quiver-widen'));
    await userEvent.tab();
    expect(normalize(seen.runs[0]).widen).toBeUndefined();
    expect(screen.queryByTestId('quiver-widen')).not.toBeInTheDocument();
  });
});

describe('VariableEditor', () => {
  it('edits each kind', async () => {
    answer(RESOURCES);
    let query: VariableQuery = { refId: '', kind: 'values', field: 'level' };
    const datasource = new QuiverDatasource(SETTINGS, templates());
    function Host() {
      const [current, setCurrent] = useState(query);
      const onChange = (next: VariableQuery) => {
        query = next;
        setCurrent(next);
      };
      return (
        <VariableEditor query={current} datasource={datasource} onChange={onChange} onRunQuery={() => undefined} />
      );
    }
    render(<Host />);
    await pick('quiver-variable-field', /service/);
    expect(query).toEqual({ refId: 'variable', kind: 'values', field: 'service' });
    await userEvent.click(screen.getByText('Names of fields'));
    expect(query.kind).toBe('fields');
    await userEvent.click(screen.getByText('SQL'));
    await userEvent.type(screen.getByLabelText('sql'), 'SELECT 1');
    await userEvent.tab();
    expect(query).toMatchObject({ kind: 'sql', sql: 'SELECT 1' });
  });
});

describe('ConfigEditor', () => {
  type Options = DataSourceSettings<QuiverOptions, QuiverSecrets>;

  function showConfigEditor(first: Partial<Options> = {}) {
    const seen = {
      options: {
        url: '',
        basicAuth: false,
        jsonData: {},
        secureJsonData: {},
        secureJsonFields: {},
        ...first,
      } as Options,
    };
    function Host() {
      const [options, setOptions] = useState(seen.options);
      return (
        <ConfigEditor
          options={options}
          onOptionsChange={(next) => {
            seen.options = next;
            setOptions(next);
          }}
        />
      );
    }
    render(<Host />);
    return seen;
  }

  it('stores address, tenant, limits and trace settings', async () => {
    const seen = showConfigEditor();
    await userEvent.type(screen.getByLabelText(/URL of the store/), 'http://quiver:4317 ');
    await userEvent.type(screen.getByLabelText(/^Tenant(?!s)/), 'team-a');
    await userEvent.type(screen.getByLabelText(/Default limit/), '200');
    await userEvent.type(screen.getByLabelText(/Time-out/), '10');
    await userEvent.type(screen.getByLabelText(/External URL/), 'http://j/${{__value.raw}');
    expect(seen.options).toMatchObject({
      url: 'http://quiver:4317',
      jsonData: {
        tenant: 'team-a',
        defaultLimit: 200,
        timeoutSeconds: 10,
        traces: { externalUrl: 'http://j/${__value.raw}' },
      },
    });
  });

  it('forgets the secret of the method that is left', async () => {
    const seen = showConfigEditor({ secureJsonFields: { token: true } });
    expect(screen.getByTestId('quiver-token')).toBeDisabled();
    await userEvent.click(screen.getByText('User and password'));
    expect(seen.options).toMatchObject({
      basicAuth: true,
      secureJsonFields: { token: false },
      secureJsonData: { token: '' },
    });
    await userEvent.type(screen.getByTestId('quiver-user'), 'me');
    await userEvent.type(screen.getByTestId('quiver-basicAuthPassword'), 'secret');
    expect(seen.options).toMatchObject({ basicAuthUser: 'me', secureJsonData: { basicAuthPassword: 'secret' } });
  });

  it('has TLS settings where the address says https', async () => {
    const seen = showConfigEditor({ url: 'https://quiver:4317' });
    await act(() => userEvent.click(screen.getByTestId('quiver-tlsAuthWithCACert')));
    await userEvent.type(screen.getByTestId('quiver-tlsCACert'), 'PEM');
    expect(seen.options).toMatchObject({ jsonData: { tlsAuthWithCACert: true }, secureJsonData: { tlsCACert: 'PEM' } });
  });

  it('hands on login and cookies, and lists the tenants of queries', async () => {
    const seen = showConfigEditor();
    await userEvent.click(screen.getByTestId('quiver-oauthPassThru'));
    await userEvent.type(screen.getByLabelText(/^Cookies/), 'session{Enter}');
    await userEvent.type(screen.getByLabelText(/^Tenants of queries/), 'team-a{Enter}');
    expect(seen.options.jsonData).toEqual({ oauthPassThru: true, keepCookies: ['session'], tenants: ['team-a'] });
    expect(screen.queryByText('Secure socks proxy')).not.toBeInTheDocument();
  });

  it('writes links to other systems, and tells what they find', async () => {
    const urls = answer({
      'newest-line': { order_id: 'A-17' },
      links: [
        { name: 'order', field: 'order_id', value: 'A-17' },
        { name: 'x', problem: 'the pattern is wrong' },
      ],
    });
    const seen = showConfigEditor({ uid: 'quiver' });
    expect(screen.queryByTestId('quiver-link-line')).not.toBeInTheDocument();
    await userEvent.click(screen.getByTestId('quiver-link-add'));
    await userEvent.type(screen.getByLabelText('Name'), 'order');
    await userEvent.type(screen.getByLabelText('Field'), 'order_id');
    await userEvent.type(screen.getByLabelText('URL'), 'http://shop/${{__value.raw}');
    await userEvent.click(screen.getByTestId('quiver-link-add'));
    await userEvent.type(screen.getByTestId('quiver-link-2-name'), 'order');
    expect(screen.getAllByText('Another link has this name')).toHaveLength(2);
    const [order, second] = seen.options.jsonData.links ?? [];
    expect(order).toEqual({ name: 'order', field: 'order_id', url: 'http://shop/${__value.raw}' });
    expect(second).toEqual({ name: 'order' });
    await userEvent.click(screen.getByTestId('quiver-link-newest'));
    expect(await screen.findByText('A-17')).toBeInTheDocument();
    expect(screen.getByText('http://shop/A-17')).toHaveAttribute('href', 'http://shop/A-17');
    expect(screen.getByText('the pattern is wrong')).toBeInTheDocument();
    expect(urls).toContain('/api/datasources/uid/quiver/resources/links');
    await userEvent.click(screen.getByTestId('quiver-link-2-remove'));
    await userEvent.click(screen.getByTestId('quiver-link-1-remove'));
    expect(seen.options.jsonData.links).toBeUndefined();
  });

  it('leads a link to a query where one chooses a data source', async () => {
    answer({});
    const seen = showConfigEditor({ jsonData: { links: [{ name: 'x', url: 'http://x' }] } });
    await userEvent.click(screen.getByLabelText('Data source'));
    await userEvent.type(screen.getByLabelText('Query'), '{{}');
    expect(seen.options.jsonData.links).toEqual([{ name: 'x', datasourceUid: '', query: '{}' }]);
    await userEvent.click(screen.getByLabelText('Page'));
    expect(seen.options.jsonData.links).toEqual([{ name: 'x' }]);
  });

  it('adds and removes headers', async () => {
    const seen = showConfigEditor();
    await userEvent.click(screen.getByTestId('quiver-header-add'));
    await userEvent.type(screen.getByTestId('quiver-header-1-name'), 'X-A');
    await userEvent.type(screen.getByTestId('quiver-header-1-value'), 'v');
    expect(seen.options).toMatchObject({
      jsonData: { httpHeaderName1: 'X-A' },
      secureJsonData: { httpHeaderValue1: 'v' },
    });
    await userEvent.click(screen.getByTestId('quiver-header-1-remove'));
    expect(seen.options.jsonData).toEqual({});
  });

  it.each([
    ['', false],
    ['http://127.0.0.1:4317', false],
    ['https://quiver.example:443/', false],
    ['quiver:4317', true],
    ['http://quiver:4317/path', true],
  ])('judges the address %s', (url, wrong) => {
    expect(urlProblem(url) !== undefined).toBe(wrong);
  });
});
