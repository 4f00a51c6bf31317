import { AbstractLabelOperator, DataSourceApi } from '@grafana/data';

import { fromLogQl, fromLucene, importQueries } from './importing';
import { Builder } from './model';

function parts({ filters, search, aggregate, groupBy }: Builder): unknown[] {
  return [
    ...filters.map(({ field, op, value, values }) => [field, op, values.length > 0 ? values : value]),
    ...search.map(({ op, text }) => [op, text]),
    ...(aggregate ? [[aggregate.function, ...groupBy]] : []),
  ];
}

it.each([
  [
    '{app="payments-api", env!="dev"} |= "declined" != `it\'s` |~ "a.c"',
    [
      ['service', '=', 'payments-api'],
      ['env', '!=', 'dev'],
      ['contains', 'declined'],
      ['!contains', "it's"],
      ['=~', 'a.c'],
    ],
  ],
  [
    '{job=~"a|b", host=~"web-.*"}',
    [
      ['service', 'in', ['a', 'b']],
      ['host', '=~', '^(?:web-.*)$'],
    ],
  ],
  [
    '{app="x"} | json | status >= 500 | line_format "{{.msg}} |= \\"no\\"" | level="error"',
    [
      ['service', '=', 'x'],
      ['status', '>=', '500'],
      ['level', '=', 'error'],
    ],
  ],
  [
    'sum by (level) (count_over_time({app="x"} |= "a}b" [5m]))',
    [
      ['service', '=', 'x'],
      ['contains', 'a}b'],
      ['count', 'level'],
    ],
  ],
  ['rate({app="x"}[1m])', [['service', '=', 'x'], ['rate']]],
  ['{app="a \\"b\\""}', [['service', '=', 'a "b"']]],
  ['', []],
  ['not a query', []],
])('LogQL: %s', (expr, expected) => {
  expect(parts(fromLogQl(expr))).toEqual(expected);
});

it.each([
  [
    'service.name:bff AND NOT level:debug "card declined"',
    [
      ['service', '=', 'bff'],
      ['level', '!=', 'debug'],
      ['contains', 'card declined'],
    ],
  ],
  [
    'status:>=500 path:\\/api* -user:"a b"',
    [
      ['status', '>=', '500'],
      ['path', '=~', '^\\\\/api.*$'],
      ['user', '!=', 'a b'],
    ],
  ],
  [
    '_exists_:traceId timeout*',
    [
      ['trace_id', 'exists', ''],
      ['contains', 'timeout'],
    ],
  ],
  ['a:1 OR b:2', []],
  ['(a:1)', []],
  ['*', [['message', 'exists', '']]],
  ['', []],
])('Lucene: %s', (query, expected) => {
  expect(parts(fromLucene(query))).toEqual(expected);
});

it('takes the labels that any other data source exports', async () => {
  const origin = {
    type: 'prometheus',
    exportToAbstractQueries: async () => [
      { refId: 'B', labelMatchers: [{ name: 'job', operator: AbstractLabelOperator.Equal, value: 'api' }] },
    ],
  } as unknown as DataSourceApi;
  const [query] = await importQueries([{ refId: 'B' }], origin);
  expect(query).toMatchObject({
    refId: 'B',
    editor: 'builder',
    builder: { filters: [{ field: 'service', op: '=', value: 'api' }] },
  });
  expect(await importQueries([{ refId: 'C' }], { type: 'x' } as DataSourceApi)).toMatchObject([
    { refId: 'C', builder: { filters: [] } },
  ]);
});
