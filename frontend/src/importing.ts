/**
 * Queries of other data sources as ours, when one switches to this one: Loki's and Elasticsearch's with their labels and
 * text filters; of any other, the labels that it exports. Pure, but for that question.
 * Not parsers of those languages: what is not plainly a label or a text filter is left out, and nothing is guessed.
 */
import { AbstractLabelOperator, AbstractQuery, DataSourceApi, hasQueryExportSupport } from '@grafana/data';
import { DataQuery } from '@grafana/schema';

import { columnOf } from './filters';
import { Builder, emptyBuilder, Filter, FilterOp, normalize, Search } from './model';
import { QuiverQuery } from './types';

export async function importQueries(queries: DataQuery[], origin: DataSourceApi<DataQuery>): Promise<QuiverQuery[]> {
  switch (origin.type ?? origin.meta?.id) {
    case 'loki':
      return queries.map((query) => toQuery(query, fromLogQl((query as { expr?: string }).expr ?? '')));
    case 'elasticsearch':
    case 'grafana-opensearch-datasource':
      return queries.map((query) => toQuery(query, fromLucene((query as { query?: string }).query ?? '')));
    default:
      return hasQueryExportSupport(origin)
        ? (await origin.exportToAbstractQueries(queries)).map((query) => toQuery(query, fromAbstract(query)))
        : queries.map((query) => toQuery(query, emptyBuilder()));
  }
}

function toQuery({ refId, hide }: DataQuery, builder: Builder): QuiverQuery {
  return { ...normalize({ refId, editor: 'builder', builder }), ...(hide ? { hide } : {}) };
}

const ABSTRACT_OPS: Record<AbstractLabelOperator, FilterOp> = {
  [AbstractLabelOperator.Equal]: '=',
  [AbstractLabelOperator.NotEqual]: '!=',
  [AbstractLabelOperator.EqualRegEx]: '=~',
  [AbstractLabelOperator.NotEqualRegEx]: '!~',
};

function fromAbstract(query: AbstractQuery): Builder {
  return {
    ...emptyBuilder(),
    filters: query.labelMatchers.map(({ name, operator, value }) => label(name, ABSTRACT_OPS[operator], value)),
  };
}

/** Other systems match a whole label; ours finds a part, so the ends are said. */
function label(name: string, op: FilterOp, value: string): Filter {
  const field = nameOf(name);
  const isPattern = op === '=~' || op === '!~';
  if (!isPattern) {
    return { field, op, value, values: [] };
  }
  // `a|b` of plain words is a list, which the index answers.
  const words = value.split('|');
  return words.every((word) => /^[\w./:-]+$/.test(word) && !word.includes('.'))
    ? { field, op: op === '=~' ? 'in' : '!in', value: '', values: words }
    : { field, op, value: `^(?:${value})$`, values: [] };
}

/** The names under which the store keeps what others call otherwise. */
const NAMES: Record<string, string> = {
  service_name: 'service',
  'service.name': 'service',
  app: 'service',
  job: 'service',
  'log.level': 'level',
  severity: 'level',
  traceId: 'trace_id',
  'trace.id': 'trace_id',
  '@timestamp': 'timestamp',
  msg: 'message',
};

function nameOf(name: string): string {
  return NAMES[name] ?? columnOf(name);
}

const MATCHER = /([A-Za-z_][\w.]*)\s*(=~|!~|!=|=)\s*("(?:[^"\\]|\\.)*"|`[^`]*`)/g;
const LINE_FILTER = /(\|=|!=|\|~|!~)\s*("(?:[^"\\]|\\.)*"|`[^`]*`)/y;
const LABEL_FILTER =
  /\|\s*([A-Za-z_][\w.]*)\s*(=~|!~|!=|>=|<=|==|=|>|<)\s*("(?:[^"\\]|\\.)*"|`[^`]*`|\d+(?:\.\d+)?)(?![\w.])/y;
const STAGE = /\|\s*(?:"(?:[^"\\]|\\.)*"|`[^`]*`|[^|"`!)[\]])*/y;
const SEARCH_OF: Record<string, Search['op']> = { '|=': 'contains', '!=': '!contains', '|~': '=~', '!~': '!~' };

/** Labels, line filters and label filters of the first stream selector in a LogQL text; what counts it, and over what. */
export function fromLogQl(expr: string): Builder {
  const builder = emptyBuilder();
  const start = expr.indexOf('{');
  const selector = /\{((?:"(?:[^"\\]|\\.)*"|`[^`]*`|[^}"`])*)\}/.exec(expr);
  if (start < 0 || !selector) {
    return builder;
  }
  for (const [, name, op, text] of selector[1].matchAll(MATCHER)) {
    builder.filters.push(label(name, op as FilterOp, unquoted(text)));
  }
  readStages(expr, selector.index + selector[0].length, builder);
  const before = expr.slice(0, selector.index);
  const counted = /\b(count_over_time|rate)\s*\(\s*$/.exec(before);
  if (counted) {
    builder.aggregate = { function: counted[1] === 'rate' ? 'rate' : 'count', field: '', quantile: 0.95 };
    const by = /\bsum\s+by\s*\(([^)]*)\)/.exec(before) ?? /\)\s*by\s*\(([^)]*)\)/.exec(expr);
    builder.groupBy = by
      ? by[1]
          .split(',')
          .map((name) => nameOf(name.trim()))
          .filter(Boolean)
      : [];
  }
  return builder;
}

function readStages(expr: string, from: number, builder: Builder): void {
  const take = (pattern: RegExp, at: number) => {
    pattern.lastIndex = at;
    return pattern.exec(expr);
  };
  let at = from;
  for (;;) {
    at += /^\s*/.exec(expr.slice(at))![0].length;
    const line = take(LINE_FILTER, at);
    const field = line ? null : take(LABEL_FILTER, at);
    const found = line ?? field ?? take(STAGE, at);
    if (!found || found[0] === '') {
      return;
    }
    if (line) {
      builder.search.push({ op: SEARCH_OF[line[1]], text: unquoted(line[2]) });
    } else if (field && !/^\s*(?:or|,)\b/.test(expr.slice(at + found[0].length))) {
      builder.filters.push(label(field[1], (field[2] === '==' ? '=' : field[2]) as FilterOp, unquoted(field[3])));
    }
    at += found[0].length;
  }
}

function unquoted(text: string): string {
  if (text.startsWith('`')) {
    return text.slice(1, -1);
  }
  return text.startsWith('"') ? text.slice(1, -1).replace(/\\(["\\])/g, '$1') : text;
}

const TERM = /(\bNOT\s+|[-!])?(?:([\w@.]+):)?(?:(>=|<=|>|<)\s*(\d+(?:\.\d+)?)|"((?:[^"\\]|\\.)*)"|([^\s()":]+))/y;

/** Terms of a Lucene text that all must hold; a text with OR or brackets is left as it is, for a part of it means another thing. */
export function fromLucene(query: string): Builder {
  const builder = emptyBuilder();
  if (/[()[\]{}]|\bOR\b|\|\|/.test(query.replace(/"(?:[^"\\]|\\.)*"/g, '""'))) {
    return builder;
  }
  let at = 0;
  for (;;) {
    at += /^(?:\s+|AND\b|&&)*/.exec(query.slice(at))![0].length;
    TERM.lastIndex = at;
    const term = TERM.exec(query);
    if (!term || term[0] === '') {
      return builder;
    }
    putTerm(builder, term);
    at += term[0].length;
  }
}

function putTerm(builder: Builder, [, not, name, order, number, phrase, word]: RegExpExecArray): void {
  const text = phrase !== undefined ? phrase.replace(/\\(.)/g, '$1') : (word ?? '');
  const field = name === undefined ? 'message' : nameOf(name);
  if (order) {
    builder.filters.push({ field, op: order as FilterOp, value: number, values: [] });
  } else if (text === '*' || name === '_exists_') {
    builder.filters.push({
      field: name === '_exists_' ? nameOf(text) : field,
      op: not ? '!exists' : 'exists',
      value: '',
      values: [],
    });
  } else if (field === 'message') {
    builder.search.push({ op: not ? '!contains' : 'contains', text: text.replace(/^\*+|\*+$/g, '') });
  } else if (/[*?]/.test(text) && phrase === undefined) {
    const pattern = text
      .replace(/[\\^$.+()[\]{}|]/g, '\\$&')
      .replace(/\*/g, '.*')
      .replace(/\?/g, '.');
    builder.filters.push({ field, op: not ? '!~' : '=~', value: `^${pattern}$`, values: [] });
  } else {
    builder.filters.push({ field, op: not ? '!=' : '=', value: text, values: [] });
  }
}
