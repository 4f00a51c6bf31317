/**
 * Where the pages of a query ended, so that the next one begins exactly there.
 *
 * Grafana asks for "more" with a range in whole milliseconds; lines that share one would come twice or never.
 * This remembers the first and last line of what was shown, per query, and turns such a range into a cursor.
 * Invariant: a cursor is only given to a request that begins where a page seen here ended.
 */
import { DataFrame, Field } from '@grafana/data';

import { Cursor, QueryModel } from './model';

/** One line's place in the order of the store. */
interface Edge {
  ms: number;
  timestampNs: string;
  seq: string;
}

interface Pages {
  oldest: Edge;
  newest: Edge;
}

/** Queries remembered at most; the one least lately run goes first. */
const QUERIES_MAX = 50;
/** Views of one query remembered at most: the same query may stand in two panes with two ranges. */
const VIEWS_MAX = 4;

export class PageMemory {
  private readonly views = new Map<string, Pages[]>();

  /** The cursor for a further page over `fromMs..toMs`, or undefined where no page ended there. */
  cursor(model: QueryModel, fromMs: number, toMs: number): Cursor | undefined {
    const views = this.views.get(keyOf(model)) ?? [];
    const backward = views.filter((view) => toMs <= view.oldest.ms && fromMs < view.oldest.ms);
    if (backward.length > 0) {
      return toCursor(closest(backward, (view) => view.oldest.ms - toMs).oldest, 'backward');
    }
    const forward = views.filter((view) => fromMs >= view.newest.ms && toMs > view.newest.ms);
    if (forward.length > 0) {
      return toCursor(closest(forward, (view) => fromMs - view.newest.ms).newest, 'forward');
    }
    return undefined;
  }

  /** Takes note of a first page; `frames` are those of this query alone. */
  started(model: QueryModel, frames: DataFrame[]): void {
    const pages = pagesOf(frames);
    if (!pages) {
      return;
    }
    const key = keyOf(model);
    const others = (this.views.get(key) ?? []).filter(
      (view) => view.oldest.seq !== pages.oldest.seq && view.newest.seq !== pages.newest.seq
    );
    this.views.delete(key);
    this.views.set(key, [pages, ...others].slice(0, VIEWS_MAX));
    for (const oldKey of this.views.keys()) {
      if (this.views.size <= QUERIES_MAX) {
        break;
      }
      this.views.delete(oldKey);
    }
  }

  /** Takes note of a further page that came for `cursor`. */
  continued(model: QueryModel, cursor: Cursor, frames: DataFrame[]): void {
    const pages = pagesOf(frames);
    const view = this.views
      .get(keyOf(model))
      ?.find((known) => (cursor.direction === 'backward' ? known.oldest : known.newest).seq === cursor.seq);
    if (!pages || !view) {
      return;
    }
    if (cursor.direction === 'backward') {
      view.oldest = pages.oldest;
    } else {
      view.newest = pages.newest;
    }
  }
}

function keyOf(model: QueryModel): string {
  return JSON.stringify([
    model.editor,
    model.editor === 'sql' ? model.sql : model.builder,
    model.filters,
    model.format,
  ]);
}

function closest(views: Pages[], distance: (view: Pages) => number): Pages {
  return views.reduce((best, view) => (distance(view) < distance(best) ? view : best));
}

function toCursor(edge: Edge, direction: Cursor['direction']): Cursor {
  return { timestampNs: edge.timestampNs, seq: edge.seq, direction };
}

function pagesOf(frames: DataFrame[]): Pages | undefined {
  const edges = frames.flatMap((frame) => {
    const time = frame.fields.find((field) => field.name === 'timestamp');
    const id = frame.fields.find((field) => field.name === 'id');
    if (!time || !id || frame.length === 0) {
      return [];
    }
    return [edgeAt(time, id, 0), edgeAt(time, id, frame.length - 1)];
  });
  if (edges.length === 0) {
    return undefined;
  }
  return {
    oldest: edges.reduce((best, edge) => (isBefore(edge, best) ? edge : best)),
    newest: edges.reduce((best, edge) => (isBefore(best, edge) ? edge : best)),
  };
}

function edgeAt(time: Field, id: Field, row: number): Edge {
  const ms = Number(time.values[row]);
  return { ms, timestampNs: timestampNs(ms, time.nanos?.[row] ?? 0), seq: String(id.values[row]) };
}

/** Nanoseconds since the epoch from Grafana's pair: whole milliseconds, and the nanoseconds beyond them. */
export function timestampNs(ms: number, nanos: number): string {
  return (BigInt(Math.trunc(ms)) * 1_000_000n + BigInt(nanos)).toString();
}

function isBefore(a: Edge, b: Edge): boolean {
  const [aNs, bNs] = [BigInt(a.timestampNs), BigInt(b.timestampNs)];
  return aNs === bNs ? compareSeq(a.seq, b.seq) < 0 : aNs < bNs;
}

/** Decimal numbers of any length compare by length, then by digits. */
function compareSeq(a: string, b: string): number {
  return a.length === b.length ? (a < b ? -1 : a > b ? 1 : 0) : a.length - b.length;
}
