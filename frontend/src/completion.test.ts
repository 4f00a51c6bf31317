import { columnText, complete, CompletionSources, documentationOf, replacedLength } from './completion';

const SOURCES: CompletionSources = {
  columns: async () => [
    { name: 'service', type: 'string' },
    { name: 'http.method', type: 'string' },
    { name: 'reqId', type: 'string' },
  ],
  functions: async () => [
    { name: 'date_bin', description: 'Puts times into bins.', syntax: 'date_bin(interval, time)' },
  ],
  values: async (column) => [{ value: `${column}'s`, count: 1200 }],
  variables: () => ['level'],
};

const labels = async (before: string) => (await complete(before, SOURCES)).map((item) => item.label);
const texts = async (before: string) => (await complete(before, SOURCES)).map((item) => item.insertText);

describe('complete', () => {
  it('offers columns first, then functions, macros, keywords and variables', async () => {
    const all = await labels('SELECT ');
    expect(all.slice(0, 3)).toEqual(['service', 'http.method', 'reqId']);
    expect(all).toEqual(expect.arrayContaining(['_seq', 'date_bin', '$__timeFilter(column)', 'WHERE', '$level']));
    expect(all.indexOf('date_bin')).toBeLessThan(all.indexOf('WHERE'));
  });

  it('quotes the columns that need it', async () => {
    expect((await texts('SELECT ')).slice(0, 3)).toEqual(['service', '"http.method"', '"reqId"']);
    expect((await texts('SELECT "ht'))[1]).toBe('http.method"');
  });

  it.each([
    ["WHERE service = '", "service''s"],
    ["WHERE service != 'x", "service''s"],
    ["WHERE \"http.method\" IN ('GET', '", "http.method''s"],
    ["WHERE a = 'it''s' AND service NOT IN ('", "service''s"],
  ])('offers the values of the column in %s', async (before, expected) => {
    expect(await texts(before)).toEqual([expected]);
  });

  it('offers variables, and no SQL, in any other literal', async () => {
    expect(await labels("WHERE contains(message, '")).toEqual(['$level']);
  });

  it('offers tables after FROM', async () => {
    expect(await labels('SELECT * FROM lo')).toContain('logs');
    expect(await labels('SELECT * FROM ')).not.toContain('service');
  });

  it('offers macros and variables after a dollar sign', async () => {
    const all = await labels('WHERE $__t');
    expect(all).toContain('$__timeFilter(column)');
    expect(all).toContain('$level');
    expect(all).not.toContain('service');
  });

  it('goes on without a store', async () => {
    const failing = {
      ...SOURCES,
      columns: () => Promise.reject(new Error('down')),
      functions: () => Promise.reject(new Error('down')),
    };
    expect((await complete('SELECT ', failing)).map((item) => item.label)).toContain('WHERE');
  });
});

describe('documentationOf', () => {
  it.each(['date_bin', '$__timeFilter', 'service', 'where'])('knows %s', async (word) => {
    expect((await documentationOf(word, SOURCES))?.documentation).toBeTruthy();
  });

  it('has nothing for other words', async () => {
    expect(await documentationOf('nonsense', SOURCES)).toBeUndefined();
  });
});

describe('columnText', () => {
  it.each([
    ['level', 'level'],
    ['user_id', 'user_id'],
    ['http.status', '"http.status"'],
    ['UserId', '"UserId"'],
    ['9lives', '"9lives"'],
    ['offset', '"offset"'],
    ['a"b', '"a""b"'],
  ])('%s: %s', (name, expected) => {
    expect(columnText(name)).toBe(expected);
  });
});

describe('replacedLength', () => {
  it.each([
    ['SELECT ser', 'ser'],
    ['SELECT count(http.me', 'http.me'],
    ['SELECT ', ''],
    ['WHERE $__t', '$__t'],
    ['SELECT "http.me', 'http.me'],
    ["WHERE service = 'payments a-", 'payments a-'],
    ["WHERE service IN ('a', 'b-", 'b-'],
    ["WHERE message LIKE '%a $le", '$le'],
  ])('%s', (before, replaced) => {
    expect(before.slice(before.length - replacedLength(before))).toBe(replaced);
  });
});
