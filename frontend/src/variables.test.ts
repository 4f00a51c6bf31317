import { normalize } from './model';
import { templates } from './testTemplates';
import { expand, interpolateModel, interpolateSql } from './variables';

const VARIABLES = templates(
  { name: 'service', value: "pay'ments" },
  { name: 'levels', value: ['error', "fa'tal"], multi: true },
  { name: 'one', value: ['error'], multi: true },
  { name: 'id', value: '42', multi: true },
  { name: 'n', value: '42' },
  { name: 'padded', value: '007' },
  { name: 'none', value: [] as string[], multi: true },
  { name: 'every', value: '5m' },
  { name: 'column', value: 'http."status' },
  { name: 'blank', value: '' },
  { name: 'everything', value: '$__all', includeAll: true, options: ['a', 'b'] },
  { name: '__from', value: '1767268800000' }
);

describe('interpolateSql', () => {
  it.each([
    ['quotes a value', 'WHERE service = $service', "WHERE service = 'pay''ments'"],
    ['doubles quotes inside a literal', "WHERE service = '$service'", "WHERE service = 'pay''ments'"],
    ['knows each way to write a variable', '${service} [[service]]', "'pay''ments' 'pay''ments'"],
    ['makes a list of several', 'level IN ($levels)', "level IN ('error','fa''tal')"],
    ['makes a list of several inside quotes', "level IN ('$levels')", "level IN ('error','fa''tal')"],
    ['makes a list of one', 'level IN ($one)', "level IN ('error')"],
    ['matches nothing where nothing is chosen', 'level IN ($none)', 'level IN (NULL)'],
    ['lists all of All', 'service IN ($everything)', "service IN ('a','b')"],
    ['leaves numbers alone', 'LIMIT $n', 'LIMIT 42'],
    ['takes a number of a multi-value variable for a value', 'user_id IN ($id)', "user_id IN ('42')"],
    ['keeps what only looks like a number', 'WHERE code = $padded', "WHERE code = '007'"],
    ['quotes an identifier', 'SELECT "$column"', 'SELECT "http.""status"'],
    ['keeps a bucket width', '$__timeGroup(timestamp, $every)', '$__timeGroup(timestamp, 5m)'],
    ['quotes a width elsewhere', 'WHERE took = $every', "WHERE took = '5m'"],
    ['leaves macros to the backend', "$__timeFilter(ts) AND x > $__from AND INTERVAL '$__interval'", undefined],
    ['leaves comments alone', "-- it's $service\nSELECT /* ' $n */ $n", "-- it's $service\nSELECT /* ' $n */ 42"],
    ['leaves what is no variable', "WHERE price = '$5' AND x = $unknown", undefined],
    [
      'is not fooled by a doubled quote',
      "WHERE a = 'it''s $service' AND b = $n",
      "WHERE a = 'it''s pay''ments' AND b = 42",
    ],
    ['takes dashes inside a literal for text', "WHERE a = '--' AND b = $n", "WHERE a = '--' AND b = 42"],
    ['guards a literal from an explicit format', "WHERE a = '${service:csv}'", "WHERE a = 'pay''ments'"],
    ['gives raw text where raw is asked for', 'ORDER BY ${service:raw}', "ORDER BY pay'ments"],
  ])('%s', (_, sql, expected) => {
    expect(interpolateSql(sql, {}, VARIABLES)).toBe(expected ?? sql);
  });

  it('never lets a value out of its literal', () => {
    const values = ["'; DROP TABLE logs; --", "\\'", "''", "'", '" OR 1=1', '/*', '$n', "a'b''c"];
    for (const value of values) {
      const set = templates({ name: 'x', value }, { name: 'xs', value: [value, value], multi: true });
      for (const sql of ['SELECT $x', "SELECT '$x'", 'SELECT $xs', "SELECT '$xs'", "SELECT 'a $x b'"]) {
        const literals = interpolateSql(sql, {}, set).slice('SELECT '.length);
        expect(literals).toMatch(/^'(?:[^']|'')*'(?:,'(?:[^']|'')*')*$/);
      }
    }
  });

  it('prefers scoped variables', () => {
    expect(interpolateSql('= $service', { service: { text: 'x', value: 'x' } }, VARIABLES)).toBe("= 'x'");
  });
});

describe('interpolateModel', () => {
  const filters = (...filters: object[]) =>
    interpolateModel(normalize({ builder: { filters } }), {}, VARIABLES).builder.filters.map(
      ({ field, op, value, values }) => (values.length > 0 ? [field, op, ...values] : [field, op, value])
    );

  it.each([
    ['puts one value as it is', { field: 'service', op: '=', value: '$service' }, ['service', '=', "pay'ments"]],
    ['turns several into a list', { field: 'level', op: '=', value: '$levels' }, ['level', 'in', 'error', "fa'tal"]],
    [
      'turns several into a list left out',
      { field: 'level', op: '!=', value: '$levels' },
      ['level', '!in', 'error', "fa'tal"],
    ],
    [
      'spreads several in a list',
      { field: 'level', op: 'in', values: ['$levels', 'warn'] },
      ['level', 'in', 'error', "fa'tal", 'warn'],
    ],
    ['makes a pattern of several', { field: 'a', op: '=~', value: '^$levels$' }, ['a', '=~', "(^error$|^fa'tal$)"]],
    [
      'makes a pattern of several texts',
      { field: 'a', op: 'contains', value: 'x.$levels' },
      ['a', '=~', "(x\\.error|x\\.fa'tal)"],
    ],
    ['replaces the field too', { field: '$n', op: 'exists' }, ['42', 'exists', '']],
  ])('%s', (_, filter, expected) => {
    expect(filters(filter)).toEqual([expected]);
  });

  it('leaves out a filter on All, and one without a value', () => {
    expect(
      filters(
        { field: 'service', op: '=', value: '$everything' },
        { field: 'service', op: 'in', values: ['$everything'] },
        { field: 'service', op: '=~', value: '${everything}' },
        { field: 'service', op: '=', value: '$blank' },
        { field: 'service' },
        { field: '', op: '=', value: 'x' }
      )
    ).toEqual([]);
  });

  it('excludes each value of All', () => {
    expect(filters({ field: 'service', op: '!=', value: '$everything' })).toEqual([['service', '!in', 'a', 'b']]);
  });

  it('keeps a chosen value literal in a pattern, and a typed one as the pattern it is', () => {
    const set = templates({ name: 'host', value: ['a.b'], multi: true }, { name: 'typed', value: 'a.*' });
    const model = normalize({
      builder: { filters: ['$host', '$typed'].map((value) => ({ field: 'h', op: '=~', value })) },
    });
    expect(interpolateModel(model, {}, set).builder.filters.map((filter) => filter.value)).toEqual(['a\\.b', 'a.*']);
  });

  it('replaces text, groups, step, aggregate and SQL', () => {
    const model = interpolateModel(
      normalize({
        sql: 'SELECT $n',
        widen: '$every',
        builder: {
          search: [
            { text: 'no $service' },
            { op: '!contains', text: '$levels' },
            { text: '$everything' },
            { text: '' },
          ],
          groupBy: ['$levels', 'b'],
          step: '$every',
          aggregate: { function: 'max', field: '$n' },
        },
      }),
      {},
      VARIABLES
    );
    expect(model).toMatchObject({
      sql: 'SELECT 42',
      widen: '5m',
      builder: {
        search: [
          { op: 'contains', text: "no pay'ments" },
          { op: '!~', text: "(error|fa'tal)" },
        ],
        groupBy: ['error', "fa'tal", 'b'],
        step: '5m',
        aggregate: { field: '42' },
      },
    });
  });
});

describe('expand', () => {
  it('gives every combination', () => {
    expect(expand('$levels/$everything', {}, VARIABLES)).toEqual(['error/a', 'error/b', "fa'tal/a", "fa'tal/b"]);
  });
});
