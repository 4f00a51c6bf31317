/**
 * Live tail: one channel of Grafana Live per distinct query, so that many viewers share one stream of the backend.
 * Invariant: the path changes exactly when the query does, for Grafana runs one stream per path.
 */
import {
  CoreApp,
  DataFrame,
  DataQueryRequest,
  DataQueryResponse,
  LiveChannelScope,
  LoadingState,
  StreamingFrameAction,
} from '@grafana/data';
import { GrafanaLiveSrv } from '@grafana/runtime';
import { map, merge, Observable } from 'rxjs';

import { asksForLines, normalize, QueryModel } from './model';
import { QuiverQuery } from './types';

/** Lines kept while live; Explore shows the last 100. */
const LINES_MAX = 1000;

/** `targets` are interpolated already. */
export function tailQueries(
  uid: string,
  request: DataQueryRequest<QuiverQuery>,
  targets: QuiverQuery[],
  live: Pick<GrafanaLiveSrv, 'getDataStream'>
): Observable<DataQueryResponse> {
  const streams = targets
    .filter((target) => asksForLines(normalize(target)))
    .map((target) => {
      const model: QueryModel = { ...normalize(target), purpose: 'tail' };
      return live
        .getDataStream({
          addr: channelOf(uid, model),
          buffer: { maxLength: LINES_MAX, action: StreamingFrameAction.Append },
        })
        .pipe(
          map((response) => ({
            ...response,
            data: (response.data ?? []).map((frame: DataFrame) => ({
              ...(request.app === CoreApp.Explore ? withOrigin(frame) : frame),
              refId: target.refId,
            })),
            key: `quiver-tail-${request.requestId}-${target.refId}`,
            // An error says so by its state; anything else is a stream, whatever Grafana Live calls it.
            state: response.state === LoadingState.Error ? LoadingState.Error : LoadingState.Streaming,
          }))
        );
    });
  return merge(...streams);
}

/** Explore's live view shows time and text, and no label: a line says itself how bad it is and which service it is from. */
export function withOrigin(frame: DataFrame): DataFrame {
  const valuesOf = (name: string) => frame.fields.find((field) => field.name === name)?.values ?? [];
  const [levels, labels] = [valuesOf('severity'), valuesOf('labels')];
  const named = (body: unknown, row: number) => {
    const level = levels[row] === undefined || levels[row] === 'unknown' ? '' : `${String(levels[row]).toUpperCase()} `;
    const service = labels[row]?.service ? `[${labels[row].service}] ` : '';
    return `${level}${service}${body}`;
  };
  const fields = frame.fields.map((field) =>
    field.name === 'body' ? { ...field, values: Array.from(field.values, named) } : field
  );
  return { ...frame, fields };
}

function channelOf(uid: string, model: QueryModel) {
  const data = { ...model, refId: 'A' };
  return {
    scope: LiveChannelScope.DataSource,
    namespace: uid,
    // Grafana 13 renamed `namespace`; both are sent for one build to serve both.
    stream: uid,
    path: `tail/${fingerprint(JSON.stringify(data))}`,
    data,
  };
}

/** 128 bits of FNV-1a in hex: four lanes that differ in their start. Not a secret; the backend checks who may see what. */
export function fingerprint(text: string): string {
  const bytes = new TextEncoder().encode(text);
  return [0x811c9dc5, 0x01234567, 0x89abcdef, 0xdeadbeef]
    .map((start) => {
      let hash = start;
      for (const byte of bytes) {
        hash = Math.imul(hash ^ byte, 0x01000193);
      }
      return (hash >>> 0).toString(16).padStart(8, '0');
    })
    .join('');
}
