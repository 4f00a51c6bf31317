import { createDataFrame, FieldType } from '@grafana/data';

import { normalize } from './model';
import { PageMemory, timestampNs } from './paging';

const MODEL = normalize({ builder: { filters: [{ field: 'a', op: '=', value: '1' }] } });
const T = 1_767_268_800_000;

/** Lines as [milliseconds after T, nanoseconds beyond, seq]. */
function frame(...lines: Array<[number, number, string]>) {
  const result = createDataFrame({
    refId: 'A',
    fields: [
      { name: 'timestamp', type: FieldType.time, values: lines.map(([ms]) => T + ms) },
      { name: 'id', type: FieldType.string, values: lines.map(([, , seq]) => seq) },
    ],
  });
  result.fields[0].nanos = lines.map(([, nanos]) => nanos);
  return result;
}

describe('PageMemory', () => {
  it('goes on from the last line, to the nanosecond and the id', () => {
    const pages = new PageMemory();
    pages.started(MODEL, [frame([5, 7, '12'], [5, 7, '9'], [3, 1, '4'])]);
    expect(pages.cursor(MODEL, T - 1000, T + 3)).toEqual({
      timestampNs: '1767268800003000001',
      seq: '4',
      direction: 'backward',
    });
    expect(pages.cursor(MODEL, T + 5, T + 1000)).toEqual({
      timestampNs: timestampNs(T + 5, 7),
      seq: '12',
      direction: 'forward',
    });
  });

  it('walks on, page by page, through lines that share one millisecond', () => {
    const pages = new PageMemory();
    pages.started(MODEL, [frame([0, 0, '300'], [0, 0, '200'])]);
    const first = pages.cursor(MODEL, T - 1000, T)!;
    expect(first.seq).toBe('200');
    pages.continued(MODEL, first, [frame([0, 0, '199'], [0, 0, '100'])]);
    const second = pages.cursor(MODEL, T - 1000, T)!;
    expect(second.seq).toBe('100');
    pages.continued(MODEL, second, [frame()]);
    expect(pages.cursor(MODEL, T - 1000, T)!.seq).toBe('100');
    expect(pages.cursor(MODEL, T, T + 1000)!.seq).toBe('300');
  });

  it('finds the edges whichever way the lines are sorted', () => {
    const pages = new PageMemory();
    pages.started(MODEL, [frame([1, 0, '1'], [1, 5, '2'], [9, 0, '3'])]);
    expect(pages.cursor(MODEL, T - 10, T + 1)!.seq).toBe('1');
    expect(pages.cursor(MODEL, T + 9, T + 99)!.seq).toBe('3');
  });

  it('compares ids as numbers, whatever their length', () => {
    const pages = new PageMemory();
    pages.started(MODEL, [frame([0, 0, '9007199254740993'], [0, 0, '999'])]);
    expect(pages.cursor(MODEL, T - 10, T)!.seq).toBe('999');
  });

  it('gives no cursor for another query, nor for a range that overlaps what was shown', () => {
    const pages = new PageMemory();
    pages.started(MODEL, [frame([5, 0, '2'], [1, 0, '1'])]);
    expect(pages.cursor(normalize({ editor: 'sql', sql: 'SELECT 1' }), T - 10, T + 1)).toBeUndefined();
    expect(pages.cursor(MODEL, T, T + 3)).toBeUndefined();
  });

  it('keeps two views of one query apart', () => {
    const pages = new PageMemory();
    pages.started(MODEL, [frame([900, 0, '9'], [800, 0, '8'])]);
    pages.started(MODEL, [frame([200, 0, '2'], [100, 0, '1'])]);
    expect(pages.cursor(MODEL, T, T + 800)!.seq).toBe('8');
    expect(pages.cursor(MODEL, T, T + 100)!.seq).toBe('1');
  });

  it('remembers a bounded number of queries', () => {
    const pages = new PageMemory();
    for (let index = 0; index <= 60; index++) {
      pages.started(normalize({ editor: 'sql', sql: String(index) }), [frame([1, 0, '1'])]);
    }
    expect(pages.cursor(normalize({ editor: 'sql', sql: '0' }), T - 10, T + 1)).toBeUndefined();
    expect(pages.cursor(normalize({ editor: 'sql', sql: '60' }), T - 10, T + 1)).toBeDefined();
  });

  it('has nothing to say of frames that are not lines', () => {
    const pages = new PageMemory();
    pages.started(MODEL, [createDataFrame({ fields: [{ name: 'time', type: FieldType.time, values: [T] }] })]);
    expect(pages.cursor(MODEL, T - 10, T)).toBeUndefined();
  });
});
