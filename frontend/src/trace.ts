/**
 * The trace beside a line's details. Grafana draws one when a link carries `query` and `queryType`, and asks the link's
 * data source for it; the link that our backend writes names us. The answer is the trace data source's own.
 */
import { DataQueryRequest, DataQueryResponse } from '@grafana/data';
import { getDataSourceSrv } from '@grafana/runtime';
import { DataQuery } from '@grafana/schema';
import { from, isObservable, Observable, of, switchMap } from 'rxjs';

import { QuiverQuery } from './types';

/** What Grafana's log details send: the id and the language, and nothing of our model. */
interface TraceQuery extends DataQuery {
  query: string;
}

export function isTraceRequest(query: QuiverQuery | TraceQuery): query is TraceQuery {
  const isModel = 'builder' in query || 'sql' in query;
  return query.queryType === 'traceql' && !isModel && 'query' in query && typeof query.query === 'string';
}

export function askTraceDatasource(
  request: DataQueryRequest<QuiverQuery>,
  uid: string | undefined
): Observable<DataQueryResponse> {
  if (!uid) {
    return of({ data: [], errors: [{ message: 'no data source for traces is set in the settings of this one' }] });
  }
  return from(getDataSourceSrv().get(uid)).pipe(
    switchMap((traces) => {
      const targets = request.targets.filter(isTraceRequest).map(({ refId, query, queryType }) => ({
        refId,
        query,
        datasource: traces.getRef(),
        // Tempo wants its language named; Jaeger takes a query without one for an id.
        ...(traces.type === 'tempo' ? { queryType } : {}),
      }));
      const answer = traces.query({ ...request, targets });
      return isObservable(answer) ? answer : from(answer);
    })
  );
}
