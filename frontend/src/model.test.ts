import fs from 'fs';
import path from 'path';

import { asksForLines, isCompleteFilter, normalize } from './model';

const FIXTURES = path.resolve(__dirname, '../../backend/testdata/model');

const cases = fs
  .readdirSync(FIXTURES)
  .filter((file) => file.endsWith('.json'))
  .map((file) => JSON.parse(fs.readFileSync(path.join(FIXTURES, file), 'utf8')));

describe('normalize', () => {
  it('has shared cases to agree on with the backend', () => {
    expect(cases.length).toBeGreaterThanOrEqual(12);
  });

  it.each(cases)('$name', ({ model, normalized }) => {
    expect(normalize(model)).toEqual(normalized);
    expect(normalize(normalized)).toEqual(normalized);
  });

  it('takes what hand-written files hold: numbers for text, null for lists, unknown words', () => {
    const model = normalize({
      builder: {
        filters: [{ field: 'status', op: '>=', value: 500 }, { field: 'a', op: 'like' }, null],
        search: null,
        groupBy: [1],
        limit: '20',
        direction: 'sideways',
        aggregate: { function: 'median', quantile: '0.5' },
      },
      format: 'graph',
      editor: 7,
    });
    expect(model.builder.filters.map(({ op, value }) => [op, value])).toEqual([
      ['>=', '500'],
      ['like', ''],
      ['=', ''],
    ]);
    expect(model.builder).toMatchObject({ search: [], groupBy: ['1'], limit: 20, direction: 'backward' });
    expect(model.builder.aggregate).toEqual({ function: 'count', field: '', quantile: 0.95 });
    expect(model).toMatchObject({ format: 'auto', editor: 'builder' });
  });

  it.each([undefined, null, 'text', 3, []])('gives a whole model for %p', (value) => {
    expect(normalize(value)).toEqual(normalize({}));
  });

  it.each([-5, 0, NaN, Infinity, 'many', {}])('has the default limit for %p', (limit) => {
    expect(normalize({ builder: { limit } }).builder.limit).toBe(0);
  });
});

describe('asksForLines', () => {
  it.each([
    [{}, true],
    [{ builder: { aggregate: { function: 'count' } } }, false],
    [{ editor: 'sql', sql: 'SELECT 1' }, true],
    [{ editor: 'sql', sql: 'SELECT 1', format: 'logs' }, true],
    [{ editor: 'sql', sql: 'SELECT 1', format: 'series' }, false],
  ])('%j: %s', (model, expected) => {
    expect(asksForLines(normalize(model))).toBe(expected);
  });
});

describe('isCompleteFilter', () => {
  it.each([
    ['', '=', 'x', [], false],
    ['a', '=', '', [], false],
    ['a', '=', 'x', [], true],
    ['a', 'exists', '', [], true],
    ['a', 'in', 'x', [], false],
    ['a', '!in', '', ['x'], true],
  ] as const)('%s %s %s %j: %s', (field, op, value, values, expected) => {
    expect(isCompleteFilter({ field, op, value, values: [...values] })).toBe(expected);
  });
});
