/**
 * What the backend says about the query on the screen, asked a moment after the last key: problems, hints, explanation,
 * and how much it would read. Places are those of the text as typed, its variables not yet replaced.
 * Invariant: an answer that comes late, about an older text, is dropped.
 */
import { TimeRange } from '@grafana/data';
import { useEffect, useMemo, useState } from 'react';

import type { QuiverDatasource } from './datasource';
import { isCompleteFilter, QueryModel } from './model';
import { Check, Edit, Estimate } from './types';
import { interpolateWithPlaces } from './variables';

const PAUSE_MS = 350;
const NOTHING: Check = { problems: [], hints: [], explanation: [], readsAllTimes: false };

export interface Checked extends Check {
  estimate?: Estimate;
  /** Whether the answer is about the text on the screen; until it is, the last one stands. */
  settled: boolean;
}

export function useCheck(
  datasource: QuiverDatasource,
  model: QueryModel,
  range?: TimeRange,
  intervalMs?: number
): Checked {
  const { editor, sql, filters, builder, format, tenant } = model;
  // The same question again, such as after another panel was drawn, is not asked again.
  const key = JSON.stringify([editor, editor === 'sql' ? [sql, filters] : builder, format, tenant, rangeKey(range)]);
  const [answer, setAnswer] = useState<{ key: string; check: Check }>({ key: '', check: NOTHING });
  const [estimate, setEstimate] = useState<Estimate>();
  useEffect(() => {
    let isOld = false;
    const timer = setTimeout(async () => {
      const screen = { range, intervalMs };
      // A row that is still being written is not yet part of the query.
      const asked = {
        ...model,
        builder: { ...model.builder, filters: model.builder.filters.filter(isCompleteFilter) },
        filters: filters?.filter(isCompleteFilter),
      };
      // Where there is no answer nothing is shown: the query itself tells what fails.
      const sized = datasource.store.estimate(asked, screen).catch(() => undefined);
      const check = await checkQuery(datasource, asked, screen).catch(() => NOTHING);
      const size = await sized;
      if (!isOld) {
        setAnswer({ key, check });
        setEstimate(size);
      }
    }, PAUSE_MS);
    return () => {
      isOld = true;
      clearTimeout(timer);
    };
    // eslint-disable-next-line react-hooks/exhaustive-deps -- `key` stands for model and range
  }, [datasource, key, intervalMs]);
  return useMemo(() => ({ ...answer.check, estimate, settled: answer.key === key }), [answer, estimate, key]);
}

function rangeKey(range?: TimeRange): string {
  return range ? `${range.raw.from.valueOf()}…${range.raw.to.valueOf()}` : '';
}

/** Asks the backend, variables put in, and turns its places back into those of the text as typed. */
export async function checkQuery(
  datasource: QuiverDatasource,
  model: QueryModel,
  screen: { range?: TimeRange; intervalMs?: number }
): Promise<Check> {
  const { sql, typed } = interpolateWithPlaces(model.sql, {}, datasource.templates);
  const check = await datasource.store.check({ ...model, sql }, screen);
  const back = <T extends { from: number; to: number }>(part: T): T => {
    const from = typed(part.from, 'start');
    return { ...part, from, to: Math.max(from, typed(part.to, 'end')) };
  };
  return {
    ...check,
    problems: check.problems.map(back),
    hints: check.hints.map((hint) => ({ ...hint, ...(hint.edits ? { edits: hint.edits.map(back) } : {}) })),
  };
}

/** A text after its edits, which come from the front to the back and do not overlap. */
export function edited(text: string, edits: Edit[]): string {
  return [...edits].reverse().reduce((rest, edit) => rest.slice(0, edit.from) + edit.text + rest.slice(edit.to), text);
}

/** "Reads at most about 1.2M lines, 340 MB". */
export function sizeText({ lines, bytes }: Estimate): string {
  const number = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });
  if (lines === 0) {
    return 'No lines to read in this time range';
  }
  return `Reads at most ${lines < 10_000 ? lines.toLocaleString('en') : `about ${number.format(lines)}`} lines, ${bytesText(bytes)}`;
}

function bytesText(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  const power = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(bytes, 1)) / 3));
  const value = bytes / 1000 ** power;
  return `${value < 10 && power > 0 ? value.toFixed(1) : Math.round(value)} ${units[power]}`;
}
