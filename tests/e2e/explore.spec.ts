/** Explore: lines with what Grafana asks for beside them (volume, sample), their trace, and scrolling on. */
import { expect, test } from '@grafana/plugin-e2e';
import { Locator, Page } from '@playwright/test';

import { explore, linesOf, newService, push, pushHalfHour, sql, traceOf } from './quiver';

test.describe('explore', () => {
  test('shows lines, newest first, and their volume by level', async ({ page }) => {
    const service = newService();
    await pushHalfHour(service);
    await explore(page, linesOf(service));
    await expect(page.getByTestId('logRows').getByText('request 0 answered')).toBeVisible();
    const volume = page.getByTestId('data-testid panel content').first();
    for (const level of ['error', 'warning', 'info']) {
      await expect(volume.getByText(level, { exact: true })).toBeVisible();
    }
  });

  test('shows the volume of SQL too', async ({ page }) => {
    const service = newService();
    await pushHalfHour(service);
    const text = `SELECT timestamp, level, message FROM logs WHERE $__timeFilter(timestamp) AND service = '${service}'`;
    await explore(page, sql(text, 'logs'));
    await expect(page.getByTestId('logRows').getByText('request 0 answered')).toBeVisible();
    await expect(
      page.getByTestId('data-testid panel content').first().getByText('error', { exact: true })
    ).toBeVisible();
  });

  test('shows a sample of the lines behind a metric', async ({ page }) => {
    const service = newService();
    await pushHalfHour(service);
    await explore(page, linesOf(service, { aggregate: { function: 'count', field: '' } }));
    // The first of that name is the outline's.
    await page.getByRole('button', { name: 'Logs sample' }).last().click();
    await expect(page.getByText('request 0 answered')).toBeVisible();
  });

  test('a line opens its trace in Jaeger', async ({ page }) => {
    const service = newService();
    await pushHalfHour(service, 3);
    await explore(page, linesOf(service));
    await page.getByTestId('logRows').getByText('request 0 answered').click();
    await page.getByRole('button', { name: 'View trace' }).click();
    await expect(page).toHaveURL(new RegExp(traceOf(0)));
    await expect(page).toHaveURL(/jaeger/);
  });

  test('scrolling on loses no line and shows none twice, within one millisecond too', async ({ page }) => {
    const service = newService();
    const at = Date.now() - 60_000;
    const count = 250;
    await push(
      service,
      Array.from({ length: count }, (_, n) => ({ at, level: 'info', message: `same instant ${n}` }))
    );
    await explore(page, linesOf(service, { limit: 100 }));
    const rows = page.getByTestId('logRows');
    await expect(rows.getByText(/same instant \d+/).first()).toBeVisible();
    await rows.hover();
    await wheelUntil(page, 600, page.getByText('End of the selected time range'));
    // Each was loaded once, and all of them are in the list: on the way back they are all seen.
    await expect(page.getByText(`${count} lines displayed`)).toBeVisible();
    const seen = new Set<number>();
    await expect(async () => {
      for (const text of await rows.getByText(/same instant \d+/).allInnerTexts()) {
        seen.add(Number(/same instant (\d+)/.exec(text)?.[1]));
      }
      await page.mouse.wheel(0, -300);
      expect(seen.size).toBe(count);
    }).toPass({ timeout: 60_000, intervals: [100] });
  });

  test('live tail shows lines as they come', async ({ page }) => {
    const service = newService();
    await pushHalfHour(service, 3);
    await explore(page, linesOf(service));
    await page.getByRole('button', { name: 'Live', exact: true }).click();
    await expect(async () => {
      await push(service, [{ at: Date.now(), level: 'info', message: 'a line of now' }]);
      await expect(page.getByText('a line of now').first()).toBeVisible({ timeout: 1000 });
    }).toPass({ timeout: 30_000 });
  });
});

/** Turns the wheel where the mouse is until something is to be seen. */
async function wheelUntil(page: Page, pixels: number, wanted: Locator): Promise<void> {
  await expect(async () => {
    await page.mouse.wheel(0, pixels);
    await expect(wanted).toBeVisible({ timeout: 200 });
  }).toPass({ timeout: 60_000, intervals: [100] });
}
