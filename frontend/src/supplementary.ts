/**
 * The queries Explore runs beside the one that was asked: the volume of lines by level, and a sample of the lines
 * behind a metric. Pure; the backend turns `purpose` into SQL, so that every query form gets them.
 */
import { SupplementaryQueryOptions, SupplementaryQueryType } from '@grafana/data';

import { asksForLines, normalize } from './model';
import { QuiverQuery } from './types';

/** Grafana's own prefix: the legend and the link to the source query need it. */
export const VOLUME_REF_ID_PREFIX = 'log-volume-';
const SAMPLE_REF_ID_PREFIX = 'log-sample-';
const SAMPLE_LIMIT = 100;

export const SUPPORTED_TYPES = [SupplementaryQueryType.LogsVolume, SupplementaryQueryType.LogsSample];

export function supplementaryQuery(options: SupplementaryQueryOptions, query: QuiverQuery): QuiverQuery | undefined {
  if (query.hide) {
    return undefined;
  }
  return options.type === SupplementaryQueryType.LogsVolume ? volumeQuery(query) : sampleQuery(query, options.limit);
}

function volumeQuery(query: QuiverQuery): QuiverQuery | undefined {
  const model = normalize(query);
  if (!asksForLines(model)) {
    return undefined;
  }
  return { ...query, ...model, cursor: undefined, purpose: 'log-volume', refId: VOLUME_REF_ID_PREFIX + query.refId };
}

function sampleQuery(query: QuiverQuery, limit = SAMPLE_LIMIT): QuiverQuery | undefined {
  const model = normalize(query);
  // A table may hold anything; numbers are made of lines, and the backend finds which.
  if (asksForLines(model) || (model.editor === 'sql' && model.format === 'table')) {
    return undefined;
  }
  return {
    ...query,
    ...model,
    refId: SAMPLE_REF_ID_PREFIX + query.refId,
    purpose: 'logs-sample',
    format: 'logs',
    builder: { ...model.builder, aggregate: null, groupBy: [], limit },
  };
}
