/**
 * What can be written at a place in SQL text: columns, values, functions, macros, keywords, each with its documentation.
 *
 * Not a parser: it looks at the few words before the cursor. Monaco is not known here (CodeEditor.tsx).
 * Invariant: pure, but for the questions it asks of its sources.
 */
import { Column, ColumnValue, SqlFunction } from './types';
import { quoteIdentifier } from './variables';

export interface CompletionSources {
  columns(): Promise<Column[]>;
  functions(): Promise<SqlFunction[]>;
  values(column: string): Promise<ColumnValue[]>;
  /** Names of template variables, without the dollar sign. */
  variables(): string[];
}

export type CompletionKind = 'column' | 'value' | 'function' | 'macro' | 'variable' | 'keyword' | 'table';

export interface Completion {
  label: string;
  kind: CompletionKind;
  insertText: string;
  detail: string;
  documentation: string;
}

export interface Macro {
  label: string;
  /** A snippet: ${1:…} are its places to fill in. */
  snippet: string;
  documentation: string;
}

export const MACROS: Macro[] = [
  {
    label: '$__timeFilter(column)',
    snippet: '\\$__timeFilter(${1:timestamp})',
    documentation: "Only lines in the panel's time range. Without a column: timestamp.",
  },
  {
    label: '$__timeGroup(column, interval)',
    snippet: '\\$__timeGroup(${1:timestamp}, ${2:\\$__interval})',
    documentation: "The start of the line's time bucket. Without an interval: the panel's own.",
  },
  {
    label: '$__interval',
    snippet: '\\$__interval',
    documentation: "The panel's interval, such as 60 seconds. Write INTERVAL '$__interval'.",
  },
  { label: '$__interval_ms', snippet: '\\$__interval_ms', documentation: "The panel's interval in milliseconds." },
  { label: '$__from', snippet: '\\$__from', documentation: 'Start of the time range, as a timestamp.' },
  { label: '$__to', snippet: '\\$__to', documentation: 'End of the time range, as a timestamp.' },
  { label: '$__fromMs', snippet: '\\$__fromMs', documentation: 'Start of the time range, in milliseconds.' },
  { label: '$__toMs', snippet: '\\$__toMs', documentation: 'End of the time range, in milliseconds.' },
];

const KEYWORDS: Record<string, string> = {
  SELECT: 'The columns or expressions of the answer.',
  FROM: 'The table: logs.',
  WHERE: 'Which lines.',
  'GROUP BY': 'One row for each value of these expressions.',
  HAVING: 'Which groups.',
  'ORDER BY': 'The order of the answer, such as timestamp DESC.',
  LIMIT: 'At most so many rows.',
  OFFSET: 'Leaves out the first rows.',
  AS: 'Names an expression.',
  AND: 'Both conditions.',
  OR: 'Either condition.',
  NOT: 'The opposite of a condition.',
  IN: "One of a list, such as level IN ('error', 'fatal').",
  LIKE: "A pattern in which % stands for any text, such as message LIKE '%timeout%'.",
  ILIKE: 'LIKE that ignores case.',
  BETWEEN: 'Between two values, both included.',
  'IS NULL': 'The line has no such field.',
  'IS NOT NULL': 'The line has such a field.',
  DISTINCT: 'Each row once.',
  CASE: 'CASE WHEN condition THEN value ELSE value END.',
  WITH: 'Names a query for use in the next.',
  JOIN: 'Combines two tables.',
  'UNION ALL': 'The rows of two queries, one after the other.',
  INTERVAL: "A length of time, such as INTERVAL '5 minutes'.",
  OVER: 'A window for a function, such as OVER (ORDER BY timestamp).',
  FILTER: "Only some lines for one aggregate: count(*) FILTER (WHERE level = 'error').",
  DESC: 'Greatest first.',
  ASC: 'Smallest first.',
};

const TABLES: Array<[string, string]> = [
  [
    'logs',
    'Every line: timestamp, level, service, message, trace_id, span_id, then each other field as its own column.',
  ],
  ['metrics', 'The store itself, every 15 s: timestamp, name, labels, value, per_second.'],
  ['information_schema.columns', 'Names and types of all columns.'],
  ['information_schema.routines', 'All functions.'],
];

/** Hidden from `*`, but there to be asked for. */
const HIDDEN_COLUMNS: Array<[string, string]> = [
  ['_seq', 'Unique and increasing in order of arrival: a stable id for a line.'],
  ['_line', 'The line as it was received.'],
];

const SPECIAL: Record<string, string> = {
  timestamp: 'When the line was written, in nanoseconds, UTC.',
  level: 'trace, debug, info, warn, error or fatal; null when unknown.',
  service: 'The service that wrote the line.',
  message: 'The text of the line.',
  trace_id: 'The trace this line belongs to.',
  span_id: 'The span this line belongs to.',
};

/** Completions at the end of `before`, the text up to the cursor. */
export async function complete(before: string, sources: CompletionSources): Promise<Completion[]> {
  const comparison = openComparison(before);
  if (comparison !== undefined) {
    return valueCompletions(await sources.values(comparison));
  }
  if (isInLiteral(before)) {
    return variableCompletions(sources);
  }
  if (/\$\w*$/.test(before)) {
    return [...macroCompletions(), ...variableCompletions(sources)];
  }
  if (/"[^"\s]*$/.test(before) && count(before, '"') % 2 === 1) {
    return (await columnCompletions(sources)).map((column) => ({
      ...column,
      insertText: quoteIdentifier(column.label).slice(1),
    }));
  }
  if (/\b(from|join)\s+[\w.]*$/i.test(before)) {
    return TABLES.map(([label, documentation]) => completion('table', label, label, 'table', documentation));
  }
  const [columns, functions] = await Promise.all([columnCompletions(sources), functionCompletions(sources)]);
  return [...columns, ...functions, ...macroCompletions(), ...keywordCompletions(), ...variableCompletions(sources)];
}

/** How many characters before the cursor a completion replaces: names with dots and values with spaces are one word here. */
export function replacedLength(before: string): number {
  if (isInLiteral(before)) {
    const literal = before.slice(before.lastIndexOf("'") + 1);
    return openComparison(before) === undefined ? (/\$?\w*$/.exec(literal)?.[0].length ?? 0) : literal.length;
  }
  if (count(before, '"') % 2 === 1) {
    return before.length - before.lastIndexOf('"') - 1;
  }
  return /[\w.$]*$/.exec(before)?.[0].length ?? 0;
}

/** The documentation of one word, for the editor's hover. */
export async function documentationOf(word: string, sources: CompletionSources): Promise<Completion | undefined> {
  const wanted = word.toLowerCase();
  const macro = macroCompletions().find((item) => item.label.split('(')[0].toLowerCase() === wanted);
  if (macro) {
    return macro;
  }
  const [columns, functions] = await Promise.all([columnCompletions(sources), functionCompletions(sources)]);
  return [...columns, ...functions, ...keywordCompletions()].find((item) => item.label.toLowerCase() === wanted);
}

/** The column whose value is being written: `service = 'pa`, `"http.method" IN ('GET', '`. */
function openComparison(before: string): string | undefined {
  if (!isInLiteral(before)) {
    return undefined;
  }
  const match =
    /(?:"((?:[^"]|"")+)"|([A-Za-z_]\w*))\s*(?:=|!=|<>|\b(?:not\s+)?in\s*\((?:\s*'(?:[^']|'')*'\s*,)*)\s*'[^']*$/i.exec(
      before
    );
  return match ? (match[1]?.replaceAll('""', '"') ?? match[2]) : undefined;
}

function isInLiteral(before: string): boolean {
  return count(before, "'") % 2 === 1;
}

function count(text: string, character: string): number {
  return text.split(character).length - 1;
}

async function columnCompletions(sources: CompletionSources): Promise<Completion[]> {
  const columns = await sources.columns().catch(() => []);
  return [
    ...columns.map(({ name, type }) =>
      completion('column', name, columnText(name), type, SPECIAL[name] ?? `A field of the lines, ${type}.`)
    ),
    ...HIDDEN_COLUMNS.map(([name, documentation]) => completion('column', name, name, 'hidden', documentation)),
  ];
}

/** Names that SQL would read otherwise are quoted: capitals, dots, a leading digit. */
export function columnText(name: string): string {
  return /^[a-z_][a-z0-9_]*$/.test(name) && !(name.toUpperCase() in KEYWORDS) ? name : quoteIdentifier(name);
}

async function functionCompletions(sources: CompletionSources): Promise<Completion[]> {
  const functions = await sources.functions().catch(() => []);
  return functions.map(({ name, description, syntax }) =>
    completion('function', name, `${name}($1)`, syntax || `${name}()`, description)
  );
}

function valueCompletions(values: ColumnValue[]): Completion[] {
  return values.map(({ value, count: lines }) =>
    completion('value', value, value.replaceAll("'", "''"), `${lines.toLocaleString('en')} lines`, '')
  );
}

function macroCompletions(): Completion[] {
  return MACROS.map(({ label, snippet, documentation }) => completion('macro', label, snippet, 'macro', documentation));
}

function variableCompletions(sources: CompletionSources): Completion[] {
  return sources
    .variables()
    .map((name) =>
      completion(
        'variable',
        `$${name}`,
        `\\$${name}`,
        'variable',
        'A variable of the dashboard. Its value is quoted for the place it stands in; several become a list for IN (…).'
      )
    );
}

function keywordCompletions(): Completion[] {
  return Object.entries(KEYWORDS).map(([word, documentation]) =>
    completion('keyword', word, word, 'keyword', documentation)
  );
}

function completion(
  kind: CompletionKind,
  label: string,
  insertText: string,
  detail: string,
  documentation: string
): Completion {
  return { kind, label, insertText, detail, documentation };
}
