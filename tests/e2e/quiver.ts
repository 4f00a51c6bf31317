/**
 * What the specs share: lines of their own in the store behind Grafana, and the way to Explore.
 * Invariant: every spec asks for its own service only, so that neither a demo's lines nor another run's disturb it.
 */
import { Locator, Page } from '@playwright/test';
import { randomUUID } from 'node:crypto';

export const DATASOURCE = { name: 'Quiver', uid: 'quiver', type: 'quiver-logs-datasource' };

const STORE = process.env.QUIVER_HTTP_URL ?? 'http://127.0.0.1:3100';
const MINUTE_MS = 60_000;

/** A query as Explore's address and a panel store it; twin of frontend/src/model.ts. */
export type Query = Record<string, unknown>;

export interface Line {
  /** Milliseconds since 1970. */
  at: number;
  level: string;
  message: string;
  [field: string]: unknown;
}

/** A service that no one else logs for. */
export function newService(): string {
  return `e2e-${randomUUID().slice(0, 8)}`;
}

/** Puts lines into the store; they are to be seen when this returns. */
export async function push(service: string, lines: Line[]): Promise<void> {
  const body = lines
    .map(({ at, ...fields }) => JSON.stringify({ timestamp: new Date(at).toISOString(), service, ...fields }))
    .join('\n');
  const response = await fetch(`${STORE}/api/v1/ingest`, { method: 'POST', body });
  if (!response.ok) {
    throw new Error(`the store at ${STORE} (QUIVER_HTTP_URL) answers ${response.status}: ${await response.text()}`);
  }
}

/** Lines of the last half hour, the newest a minute old: errors, warnings and information, every third with a trace. */
export async function pushHalfHour(service: string, count = 60): Promise<Line[]> {
  const levels = ['error', 'warn', 'info', 'info', 'info', 'info'];
  const newest = Date.now() - MINUTE_MS;
  const lines = Array.from({ length: count }, (_, index) => ({
    at: newest - Math.round((index * 29 * MINUTE_MS) / count),
    level: levels[index % levels.length],
    message: `request ${index} answered`,
    status: index % 6 === 0 ? 500 : 200,
    duration_ms: 10 + index,
    ...(index % 3 === 0 ? { trace_id: traceOf(index) } : {}),
  }));
  await push(service, lines);
  return lines;
}

/** The trace of the line with this number. */
export function traceOf(index: number): string {
  return (0xabc000 + index).toString(16).padStart(32, '4');
}

/** A builder query for a service's lines. */
export function linesOf(service: string, builder: Query = {}): Query {
  return {
    refId: 'A',
    version: 1,
    editor: 'builder',
    format: 'auto',
    builder: { filters: [{ field: 'service', op: '=', value: service, values: [] }], ...builder },
  };
}

/** A SQL query. */
export function sql(text: string, format = 'auto'): Query {
  return { refId: 'A', version: 1, editor: 'sql', sql: text, format };
}

/** Explore's address with this query; relative, as Playwright's page.goto takes it. */
export function exploreAddress(query: Query, range = { from: 'now-1h', to: 'now' }, theme = 'dark'): string {
  const pane = { datasource: DATASOURCE.uid, queries: [{ ...query, datasource: DATASOURCE }], range };
  return `/explore?schemaVersion=1&orgId=1&theme=${theme}&panes=${encodeURIComponent(JSON.stringify({ one: pane }))}`;
}

/** Opens Explore with this query and waits until Grafana has asked for it. */
export async function explore(
  page: Page,
  query: Query,
  range?: { from: string; to: string },
  theme?: string
): Promise<void> {
  const asked = page.waitForResponse((response) => response.url().includes('/api/ds/query'));
  await page.goto(exploreAddress(query, range, theme));
  await asked;
}

/** Chooses an option of one of our comboboxes, or types one that it does not offer. */
export async function choose(scope: Page | Locator, label: string, option: string): Promise<void> {
  const box = scope.getByRole('combobox', { name: label, exact: true });
  await box.fill(option);
  await box.page().getByRole('option', { name: option }).first().click();
}

/** Narrows a builder, wherever it stands, to one service. */
export async function chooseService(scope: Page | Locator, service: string): Promise<void> {
  await scope.getByTestId('quiver-filter-add').click();
  await choose(scope, 'Field of filter 1', 'service');
  await choose(scope, 'Value of filter 1', service);
}

/** Puts a text into the SQL editor, once Grafana has loaded it, in place of what is there. */
export async function writeSql(page: Page, text: string): Promise<void> {
  const editor = page.getByTestId('quiver-sql-editor');
  await editor.locator('.view-lines').click();
  await page.keyboard.press('ControlOrMeta+A');
  await page.keyboard.insertText(text);
}
