import { addFilter, addMessageFilter, addSearch, fromAdHocFilters, hasFilter, toggleFilter } from './filters';
import { Filter, normalize } from './model';

function filtersOf(...filters: Array<[string, string, ...string[]]>): Filter[] {
  return normalize({
    builder: {
      filters: filters.map(([field, op, ...rest]) =>
        op === 'in' || op === '!in' ? { field, op, values: rest } : { field, op, value: rest[0] }
      ),
    },
  }).builder.filters;
}

function shown(filters: Filter[]) {
  return filters.map(({ field, op, value, values }) => [field, op, ...(values.length > 0 ? values : [value])]);
}

describe('toggleFilter', () => {
  it.each<[string, Filter[], 'FILTER_FOR' | 'FILTER_OUT', string[][]]>([
    ['adds', filtersOf(), 'FILTER_FOR', [['a', '=', '1']]],
    ['adds its opposite', filtersOf(), 'FILTER_OUT', [['a', '!=', '1']]],
    ['takes out', filtersOf(['a', '=', '1'], ['b', '=', '2']), 'FILTER_FOR', [['b', '=', '2']]],
    ['replaces the opposite', filtersOf(['a', '!=', '1']), 'FILTER_FOR', [['a', '=', '1']]],
    ['replaces by the opposite', filtersOf(['a', '=', '1']), 'FILTER_OUT', [['a', '!=', '1']]],
    ['asks for either of two', filtersOf(['a', '=', '2']), 'FILTER_FOR', [['a', 'in', '2', '1']]],
    ['grows a list', filtersOf(['a', 'in', '2', '3']), 'FILTER_FOR', [['a', 'in', '2', '3', '1']]],
    ['shrinks a list', filtersOf(['a', 'in', '1', '2', '3']), 'FILTER_FOR', [['a', 'in', '2', '3']]],
    ['shrinks a list to one', filtersOf(['a', 'in', '1', '2']), 'FILTER_FOR', [['a', '=', '2']]],
    ['leaves out two', filtersOf(['a', '!=', '2']), 'FILTER_OUT', [['a', '!in', '2', '1']]],
    [
      'leaves other operators alone',
      filtersOf(['a', '=~', '1']),
      'FILTER_FOR',
      [
        ['a', '=~', '1'],
        ['a', '=', '1'],
      ],
    ],
  ])('%s', (_, before, type, expected) => {
    expect(shown(toggleFilter(before, type, 'a', '1'))).toEqual(expected);
  });

  it('is undone by itself', () => {
    const before = filtersOf(['a', 'in', '2', '3'], ['b', '!=', '1']);
    for (const type of ['FILTER_FOR', 'FILTER_OUT'] as const) {
      expect(toggleFilter(toggleFilter(before, type, 'a', '1'), type, 'a', '1')).toEqual(before);
    }
  });

  it("knows the store's name of a frame's field", () => {
    expect(shown(toggleFilter(filtersOf(), 'FILTER_FOR', 'severity', 'error'))).toEqual([['level', '=', 'error']]);
    expect(hasFilter(filtersOf(['trace_id', '=', 'x']), 'traceID', 'x')).toBe(true);
  });
});

describe('addFilter', () => {
  it('changes nothing that is there', () => {
    const before = filtersOf(['a', '=', '1']);
    expect(addFilter(before, '=', 'a', '1')).toEqual(before);
  });
});

describe('addSearch', () => {
  it('adds once, and its opposite instead', () => {
    const once = addSearch([], 'contains', "it's");
    expect(addSearch(once, 'contains', "it's")).toBe(once);
    expect(addSearch(once, '!contains', "it's")).toEqual([{ op: '!contains', text: "it's" }]);
    expect(addSearch(once, 'contains', '')).toBe(once);
  });

  it('does the same among filters', () => {
    const before = filtersOf(['message', 'in', 'x', 'y'], ['message', '!contains', 'a'], ['level', '=', 'error']);
    expect(shown(addMessageFilter(before, 'contains', 'a'))).toEqual([
      ['message', 'in', 'x', 'y'],
      ['level', '=', 'error'],
      ['message', 'contains', 'a'],
    ]);
  });
});

describe('fromAdHocFilters', () => {
  it('reads each operator of Grafana', () => {
    const filters = fromAdHocFilters([
      { key: 'a', operator: '=', value: '1' },
      { key: 'a', operator: '!=', value: '1' },
      { key: 'a', operator: '=~', value: '1' },
      { key: 'a', operator: '!~', value: '1' },
      { key: 'a', operator: '<', value: '1' },
      { key: 'a', operator: '>', value: '1' },
      { key: 'severity', operator: '=|', value: 'x', values: ['error', 'fatal'] },
      { key: 'a', operator: '!=|', value: '1' },
      { key: '', operator: '=', value: '' },
      { key: 'a', operator: '??', value: '1' },
    ]);
    expect(shown(filters)).toEqual([
      ['a', '=', '1'],
      ['a', '!=', '1'],
      ['a', '=~', '1'],
      ['a', '!~', '1'],
      ['a', '<', '1'],
      ['a', '>', '1'],
      ['level', 'in', 'error', 'fatal'],
      ['a', '!in', '1'],
      ['a', '??', '1'],
    ]);
  });
});
