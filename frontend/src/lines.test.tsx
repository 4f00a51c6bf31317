import {
  CoreApp,
  DataQueryRequest,
  DataSourceApi,
  EventBusSrv,
  FieldType,
  LogRowModel,
  LogsSortOrder,
  LogSortOrderChangeEvent,
  toDataFrame,
} from '@grafana/data';
import { DataSourceSrv, setAppEvents, setDataSourceSrv } from '@grafana/runtime';
import { act, configure, render, screen, waitFor } from '@testing-library/react';
import user from '@testing-library/user-event';
import { lastValueFrom, of } from 'rxjs';

import { BesideSql } from './BesideSql';
import { ContextFilters } from './ContextFilters';
import { exportAddress } from './Download';
import { labelKind } from './labelKinds';
import { Filter, normalize, QueryModel } from './model';
import { useSortOrder } from './sortOrder';
import { ResourceCalls, Store } from './store';
import { withOrigin } from './tail';
import { askTraceDatasource, isTraceRequest } from './trace';
import { QuiverQuery } from './types';

configure({ defaultHidden: true });
const userEvent = user.setup({ delay: null });

const ERRORS = { field: 'level', op: '=' as const, value: 'error', values: [] };

describe('filters beside SQL', () => {
  function show(post: ResourceCalls['postResource'], filters = [ERRORS]) {
    const seen: { patches: Array<Partial<QueryModel>>; runs: number } = { patches: [], runs: 0 };
    const store = new Store({ getResource: () => Promise.resolve([] as never), postResource: post });
    render(
      <BesideSql
        model={normalize({ editor: 'sql', sql: 'SELECT * FROM logs', filters })}
        store={store}
        variables={[]}
        onChange={(patch) => seen.patches.push(patch)}
        onRun={() => seen.runs++}
      />
    );
    return seen;
  }

  it('are seen, and can be taken away', async () => {
    const seen = show(() => Promise.reject(new Error('not asked')));
    await userEvent.click(screen.getByTestId('quiver-filter-1-remove'));
    expect(seen).toEqual({ patches: [{ filters: [] }], runs: 1 });
  });

  it('are written into the text by the backend', async () => {
    const asked: unknown[] = [];
    const seen = show((path, body) => {
      asked.push([path, body]);
      return Promise.resolve({ sql: 'SELECT 2' } as never);
    });
    await userEvent.click(screen.getByTestId('quiver-write-filters'));
    await waitFor(() => expect(seen.runs).toBe(1));
    expect(asked).toEqual([['edit-sql', { sql: 'SELECT * FROM logs', add: [ERRORS], remove: [] }]]);
    expect(seen.patches).toEqual([{ filters: [], sql: 'SELECT 2' }]);
  });

  it('stay where the text cannot be changed, with the reason', async () => {
    const seen = show(() => Promise.reject({ data: { message: 'this SQL cannot be changed' } }));
    await userEvent.click(screen.getByTestId('quiver-write-filters'));
    expect(await screen.findByText('this SQL cannot be changed')).toBeInTheDocument();
    expect(seen.patches).toEqual([]);
  });

  it('take no room when there are none', () => {
    show(() => Promise.reject(new Error('not asked')), []);
    expect(screen.queryByTestId('quiver-beside-sql')).toBeNull();
  });
});

describe('the context view', () => {
  const row = { uid: '1', labels: { service: 'api', host: 'h1', user_id: '7' } } as unknown as LogRowModel;

  it('begins with the stream of the line, follows a choice, and forgets it', async () => {
    let chosen: Filter[] | undefined;
    const choose = (filters: Filter[] | undefined) => {
      chosen = filters;
    };
    const onRun = jest.fn();
    const { unmount } = render(<ContextFilters row={row} onChoose={choose} onRun={onRun} />);
    expect(chosen?.map((filter) => filter.field)).toEqual(['service', 'host']);
    await userEvent.click(screen.getByTestId('quiver-context-fields'));
    await userEvent.click(await screen.findByText('user_id = 7'));
    expect(chosen).toContainEqual({ field: 'user_id', op: '=', value: '7', values: [] });
    expect(onRun).toHaveBeenCalledTimes(1);
    unmount();
    expect(chosen).toBeUndefined();
  });
});

describe('the trace beside a line', () => {
  const ask = { refId: 'log-details-trace-abc', query: 'abc', queryType: 'traceql', tableType: 'traces' };

  it('is only what the details ask for', () => {
    expect(isTraceRequest(ask)).toBe(true);
    const link: QuiverQuery & { query: string } = { ...ask, editor: 'builder', builder: { filters: [] } };
    expect(isTraceRequest(link)).toBe(false);
    expect(isTraceRequest({ refId: 'A' })).toBe(false);
  });

  it.each([
    ['jaeger', { refId: ask.refId, query: 'abc' }],
    ['tempo', { refId: ask.refId, query: 'abc', queryType: 'traceql' }],
  ])('comes from %s', async (type, expected) => {
    const frame = toDataFrame({ fields: [{ name: 'traceID', type: FieldType.string, values: ['abc'] }] });
    const asked: unknown[] = [];
    const traces = {
      type,
      getRef: () => ({ uid: 'traces' }),
      query: (request: DataQueryRequest) => {
        asked.push(...request.targets);
        return of({ data: [frame] });
      },
    } as unknown as DataSourceApi;
    setDataSourceSrv({ get: () => Promise.resolve(traces) } as unknown as DataSourceSrv);
    const request = { targets: [ask] } as unknown as DataQueryRequest<QuiverQuery>;
    expect((await lastValueFrom(askTraceDatasource(request, 'traces'))).data).toEqual([frame]);
    expect(asked).toEqual([{ ...expected, datasource: { uid: 'traces' } }]);
  });
});

describe('the order of a panel', () => {
  function Panel({ app, onChange }: { app: CoreApp; onChange: (direction: string) => void }) {
    useSortOrder(app, 'backward', onChange);
    return null;
  }

  it('is followed while the panel is edited, and by nothing else', () => {
    const events = new EventBusSrv();
    setAppEvents(events);
    const [edited, explored] = [jest.fn(), jest.fn()];
    render(<Panel app={CoreApp.PanelEditor} onChange={edited} />);
    render(<Panel app={CoreApp.Explore} onChange={explored} />);
    act(() => events.publish(new LogSortOrderChangeEvent({ order: LogsSortOrder.Descending })));
    expect(edited).not.toHaveBeenCalled();
    act(() => events.publish(new LogSortOrderChangeEvent({ order: LogsSortOrder.Ascending })));
    expect(edited).toHaveBeenCalledWith('forward');
    expect(explored).not.toHaveBeenCalled();
  });
});

describe('a live line', () => {
  it('says how bad it is and which service it is from', () => {
    const frame = toDataFrame({
      fields: [
        { name: 'body', values: ['a', 'b'] },
        { name: 'severity', values: ['error', 'unknown'] },
        { name: 'labels', type: FieldType.other, values: [{ service: 'bff' }, {}] },
      ],
    });
    expect(withOrigin(frame).fields[0].values).toEqual(['ERROR [bff] a', 'b']);
    expect(frame.fields[0].values).toEqual(['a', 'b']);
  });
});

describe('labels and files', () => {
  it.each([
    ['service', 'Resource'],
    ['k8s.pod.name', 'Resource'],
    ['trace_id', 'Request'],
    ['order_id', 'Fields'],
  ])('%s is of the kind %s', (name, kind) => expect(labelKind(name)).toBe(kind));

  it('has an address for everything a query matches', () => {
    const address = exportAddress('u1', { refId: 'A', sql: 'a & b' }, { from: 1, to: 2 }, 'csv', '/grafana');
    const url = new URL(address, 'http://x');
    expect(url.pathname).toBe('/grafana/api/datasources/uid/u1/resources/export');
    expect(JSON.parse(url.searchParams.get('query')!)).toEqual({ refId: 'A', sql: 'a & b' });
    expect([url.searchParams.get('from'), url.searchParams.get('format')]).toEqual(['1', 'csv']);
  });
});
