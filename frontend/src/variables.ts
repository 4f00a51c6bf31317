/**
 * Template variables put into a query model, with each value quoted for the place it stands in.
 *
 * Not a parser of SQL: it only knows where quotes and comments begin and end.
 * Invariant: a variable's value can never end the literal or identifier it was put into, unless its format is `:raw`.
 */
import { ScopedVars, TypedVariableModel } from '@grafana/data';
import { TemplateSrv } from '@grafana/runtime';

import { Builder, Filter, FilterOp, isCompleteFilter, QueryModel, Search } from './model';

export type Templates = Pick<TemplateSrv, 'replace' | 'getVariables'>;

/** The backend's macros. Some carry the name of a Grafana variable ($__from), so they are kept from Grafana. */
export const MACRO_NAMES = [
  '__timeFilter',
  '__timeGroup',
  '__interval',
  '__interval_ms',
  '__from',
  '__to',
  '__fromMs',
  '__toMs',
];

const REFERENCE = String.raw`\$\{[^}]+\}|\[\[[^\]]+\]\]|\$\w+`;
const OUTSIDE = new RegExp(String.raw`'|"|--[^\n]*|/\*[\s\S]*?\*/|${REFERENCE}`, 'g');
const IN_LITERAL = new RegExp(`'|${REFERENCE}`, 'g');
const IN_IDENTIFIER = new RegExp(`"|${REFERENCE}`, 'g');
const DURATION = /^\d+(ms|s|m|h|d|w)$/;
const BUCKET_ARGUMENT = /\$__timeGroup\([^()]*,\s*$/;
/** Formats whose result is SQL already, or is the author's own choice. */
const QUOTING_FORMATS = ['raw', 'sqlstring', 'singlequote', 'doublequote'];

type Place = 'outside' | 'literal' | 'identifier';
type Value = string | number | boolean | Array<string | number | boolean>;

export function quoteLiteral(value: string): string {
  return `'${value.replaceAll("'", "''")}'`;
}

export function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** SQL text with its variables in place; macros stay for the backend. */
export function interpolateSql(sql: string, scopedVars: ScopedVars, templates: Templates): string {
  return interpolateWithPlaces(sql, scopedVars, templates).sql;
}

/** SQL text with its variables in place, and the way back from a place in it to the text as typed. */
export interface Interpolated {
  sql: string;
  /** Where `at` stood; inside a replacement, the end of the variable or else its start. */
  typed: (at: number, side: 'start' | 'end') => number;
}

export function interpolateWithPlaces(sql: string, scopedVars: ScopedVars, templates: Templates): Interpolated {
  const replaced: Replaced[] = [];
  let place: Place = 'outside';
  let result = '';
  let at = 0;
  for (;;) {
    const token = nextToken(sql, at, place);
    if (!token) {
      return { sql: result + sql.slice(at), typed: (to, side) => placeBefore(replaced, to, side) };
    }
    result += sql.slice(at, token.index);
    at = token.index + token.text.length;
    if (token.text === "'" || token.text === '"') {
      place = place === 'outside' ? (token.text === "'" ? 'literal' : 'identifier') : 'outside';
      result += token.text;
    } else if (/^[$[]/.test(token.text)) {
      const value = replaceReference(token.text, place, result, scopedVars, templates);
      replaced.push({ typed: [token.index, at], sent: [result.length, result.length + value.length] });
      result += value;
    } else {
      result += token.text;
    }
  }
}

interface Replaced {
  typed: [number, number];
  sent: [number, number];
}

function placeBefore(replaced: Replaced[], at: number, side: 'start' | 'end'): number {
  let shift = 0;
  for (const { typed, sent } of replaced) {
    if (at <= sent[0]) {
      break;
    }
    if (at < sent[1]) {
      return typed[side === 'start' ? 0 : 1];
    }
    shift = typed[1] - sent[1];
  }
  return at + shift;
}

function nextToken(sql: string, from: number, place: Place): { text: string; index: number } | undefined {
  const pattern = place === 'outside' ? OUTSIDE : place === 'literal' ? IN_LITERAL : IN_IDENTIFIER;
  pattern.lastIndex = from;
  const match = pattern.exec(sql);
  return match ? { text: match[0], index: match.index } : undefined;
}

function replaceReference(
  reference: string,
  place: Place,
  before: string,
  scopedVars: ScopedVars,
  templates: Templates
): string {
  if (MACRO_NAMES.includes(reference.slice(1))) {
    return reference;
  }
  const format = formatOf(reference);
  if (format !== undefined) {
    const text = templates.replace(reference, scopedVars);
    return place === 'literal' && !QUOTING_FORMATS.includes(format) ? text.replaceAll("'", "''") : text;
  }
  const inBucket = place === 'outside' && BUCKET_ARGUMENT.test(before);
  return templates.replace(reference, scopedVars, (value: Value, variable?: VariableShape) =>
    quoteFor(place, value, variable, inBucket)
  );
}

interface VariableShape {
  multi?: boolean;
  includeAll?: boolean;
}

function quoteFor(place: Place, value: Value, variable: VariableShape | undefined, inBucket: boolean): string {
  const values = (Array.isArray(value) ? value : [value]).map(String);
  if (place === 'literal') {
    return values.map((item) => item.replaceAll("'", "''")).join("','");
  }
  if (place === 'identifier') {
    return values.map((item) => item.replaceAll('"', '""')).join('","');
  }
  const isList = Array.isArray(value) || variable?.multi || variable?.includeAll;
  if (!isList && (isPlainNumber(values[0]) || (inBucket && DURATION.test(values[0])))) {
    return values[0];
  }
  return values.length === 0 ? 'NULL' : values.map(quoteLiteral).join(',');
}

/** Only numbers that read back as themselves: `007` and long ids stay text. */
function isPlainNumber(value: string): boolean {
  return value.trim() !== '' && String(Number(value)) === value && Number.isFinite(Number(value));
}

function formatOf(reference: string): string | undefined {
  const colon = reference.indexOf(':');
  return colon < 0 ? undefined : reference.slice(colon + 1).replace(/[}\]]+$/, '');
}

/** The model with its variables in place. A filter whose variable says "All", or has no value, is left out. */
export function interpolateModel(model: QueryModel, scopedVars: ScopedVars, templates: Templates): QueryModel {
  const one = (text: string) => expand(text, scopedVars, templates).join(',');
  const { builder } = model;
  const interpolated: QueryModel = {
    ...model,
    sql: interpolateSql(model.sql, scopedVars, templates),
    builder: {
      ...builder,
      filters: interpolateFilters(builder.filters, scopedVars, templates),
      search: builder.search
        .flatMap((search) => interpolateSearch(search, scopedVars, templates))
        .filter((search) => search.text !== ''),
      groupBy: builder.groupBy.flatMap((field) => expand(field, scopedVars, templates)),
      step: one(builder.step),
      aggregate: builder.aggregate && { ...builder.aggregate, field: one(builder.aggregate.field) },
    },
  };
  if (model.filters !== undefined) {
    interpolated.filters = interpolateFilters(model.filters, scopedVars, templates);
  }
  return model.widen === undefined ? interpolated : { ...interpolated, widen: one(model.widen) };
}

/** A builder for SQL text: what may become several values is asked for as a list, for text has no rule for it. */
export function withLists(builder: Builder, templates: Templates): Builder {
  const isMany = (text: string) => {
    const variable = templates.getVariables().find((known) => known.name === soleName(text));
    return (
      variable !== undefined &&
      (('multi' in variable && variable.multi) || ('includeAll' in variable && variable.includeAll))
    );
  };
  const filters = builder.filters.map((filter): Filter => {
    const list = filter.op === '=' ? 'in' : filter.op === '!=' ? '!in' : undefined;
    return list && isMany(filter.value) ? { ...filter, op: list, value: '', values: [filter.value] } : filter;
  });
  return { ...builder, filters };
}

export function interpolateFilters(filters: Filter[], scopedVars: ScopedVars, templates: Templates): Filter[] {
  return filters.flatMap((filter) => interpolateFilter(filter, scopedVars, templates)).filter(isCompleteFilter);
}

function interpolateFilter(filter: Filter, scopedVars: ScopedVars, templates: Templates): Filter[] {
  const field = expand(filter.field, scopedVars, templates).join(',');
  if (filter.op === 'in' || filter.op === '!in') {
    if (filter.op === 'in' && filter.values.some((value) => isAll(value, scopedVars, templates))) {
      return [];
    }
    return [{ ...filter, field, values: filter.values.flatMap((value) => expand(value, scopedVars, templates)) }];
  }
  if (!filter.op.startsWith('!') && isAll(filter.value, scopedVars, templates)) {
    return [];
  }
  const values = expandFor(filter.op, filter.value, scopedVars, templates);
  if (values.length === 1) {
    return [{ ...filter, field, value: values[0] }];
  }
  return [manyValued({ ...filter, field }, values)];
}

/** The same condition for several values at once: `=` becomes `in`, text and patterns become one pattern. */
function manyValued(filter: Filter, values: string[]): Filter {
  switch (filter.op) {
    case '=':
      return { ...filter, op: 'in', value: '', values };
    case '!=':
      return { ...filter, op: '!in', value: '', values };
    case 'contains':
      return { ...filter, op: '=~', value: alternation(values.map(escapePattern)) };
    case '!contains':
      return { ...filter, op: '!~', value: alternation(values.map(escapePattern)) };
    case '=~':
    case '!~':
      return { ...filter, value: alternation(values) };
    default:
      return { ...filter, value: values.join(',') };
  }
}

function interpolateSearch(search: Search, scopedVars: ScopedVars, templates: Templates): Search[] {
  if (!search.op.startsWith('!') && isAll(search.text, scopedVars, templates)) {
    return [];
  }
  const texts = expandFor(search.op, search.text, scopedVars, templates);
  if (texts.length === 1) {
    return [{ ...search, text: texts[0] }];
  }
  const isPattern = search.op === '=~' || search.op === '!~';
  const op = search.op.startsWith('!') ? '!~' : '=~';
  return [{ op, text: alternation(isPattern ? texts : texts.map(escapePattern)) }];
}

/** In a pattern, chosen values stand for themselves; a typed (single) value may be a pattern. */
function expandFor(op: FilterOp, text: string, scopedVars: ScopedVars, templates: Templates): string[] {
  return expand(text, scopedVars, templates, op === '=~' || op === '!~');
}

function alternation(values: string[]): string {
  return `(${values.join('|')})`;
}

function escapePattern(value: string): string {
  return value.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');
}

/** Every text that comes of putting each chosen value in the place of its variable. */
export function expand(text: string, scopedVars: ScopedVars, templates: Templates, asPattern = false): string[] {
  let results = [''];
  let at = 0;
  for (const match of text.matchAll(new RegExp(REFERENCE, 'g'))) {
    const before = text.slice(at, match.index);
    const values = valuesOf(match[0], scopedVars, templates, asPattern);
    results = results.flatMap((result) => values.map((value) => result + before + value));
    at = match.index + match[0].length;
  }
  return results.map((result) => result + text.slice(at));
}

function valuesOf(reference: string, scopedVars: ScopedVars, templates: Templates, asPattern: boolean): string[] {
  let captured: string[] | undefined;
  const replaced = templates.replace(
    reference,
    scopedVars,
    formatOf(reference) === undefined
      ? (value: Value, variable?: VariableShape) => {
          const values = (Array.isArray(value) ? value : [value]).map(String);
          const chosen = Array.isArray(value) || variable?.multi || variable?.includeAll;
          captured = asPattern && chosen ? values.map(escapePattern) : values;
          return '';
        }
      : undefined
  );
  return captured === undefined || captured.length === 0 ? [replaced] : captured;
}

/** The name of the variable that the text is, and nothing else. */
function soleName(text: string): string | undefined {
  return /^(?:\$(\w+)|\$\{(\w+)\}|\[\[(\w+)\]\])$/.exec(text)?.slice(1).find(Boolean);
}

/** Whether the text is one variable and nothing else, and that variable says "All" without a text of its own for it. */
function isAll(text: string, scopedVars: ScopedVars, templates: Templates): boolean {
  const name = soleName(text);
  if (name === undefined || name in scopedVars) {
    return false;
  }
  const variable = templates.getVariables().find((known) => known.name === name);
  return variable !== undefined && saysAll(variable);
}

function saysAll(variable: TypedVariableModel): boolean {
  if (variable.type !== 'query' && variable.type !== 'custom') {
    return false;
  }
  const value = variable.current?.value;
  const all = Array.isArray(value) ? value.includes('$__all') : value === '$__all';
  return all && !variable.allValue;
}
