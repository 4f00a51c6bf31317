/**
 * Which end of the range is asked for first: the one that is shown first. Someone who reads the oldest line on top and
 * gets the newest thousand sees the wrong end of the range.
 */
import { CoreApp, LogsSortOrder, LogSortOrderChangeEvent, store } from '@grafana/data';
import { getAppEvents } from '@grafana/runtime';
import { useEffect } from 'react';

import { Direction } from './model';

/** Where Explore keeps its order; it tells no data source but Loki. */
const EXPLORE_ORDER_KEY = 'grafana.explore.logs.sortOrder';

/** The direction of a query: its own, or oldest first where Explore shows the oldest first. */
export function directionFor(app: string | undefined, own: Direction): Direction {
  const oldestFirst = app === CoreApp.Explore && store.get(EXPLORE_ORDER_KEY) === LogsSortOrder.Ascending;
  return oldestFirst ? 'forward' : own;
}

/** Follows the order of the logs panel that is being edited, as Grafana's own data source does. */
export function useSortOrder(app: CoreApp | undefined, direction: Direction, onChange: (direction: Direction) => void) {
  useEffect(() => {
    if (app !== CoreApp.Dashboard && app !== CoreApp.PanelEditor) {
      return;
    }
    const subscription = getAppEvents().subscribe(LogSortOrderChangeEvent, ({ payload }) => {
      const wanted: Direction = payload.order === LogsSortOrder.Ascending ? 'forward' : 'backward';
      if (wanted !== direction) {
        onChange(wanted);
      }
    });
    return () => subscription.unsubscribe();
  }, [app, direction, onChange]);
}
