/** The builder and the SQL editor, in a panel. */
import { expect, test } from '@grafana/plugin-e2e';

import { choose, chooseService, DATASOURCE, newService, pushHalfHour, writeSql } from './quiver';

test.describe('query editor', () => {
  test('the builder counts lines by level', async ({ panelEditPage, page }) => {
    const service = newService();
    await pushHalfHour(service);
    await panelEditPage.datasource.set(DATASOURCE.name);
    await panelEditPage.timeRange.set({ from: 'now-1h', to: 'now' });
    await panelEditPage.setVisualization('Table');
    await chooseService(page, service);
    await choose(page, 'Show', 'Count');
    await choose(page, 'Format', 'Number');
    await expect(panelEditPage.refreshPanel()).toBeOK();
    await expect(panelEditPage.panel.data).toContainText(['60']);
  });

  test('the builder becomes SQL, which runs', async ({ panelEditPage, page }) => {
    const service = newService();
    await pushHalfHour(service);
    await panelEditPage.datasource.set(DATASOURCE.name);
    await panelEditPage.timeRange.set({ from: 'now-1h', to: 'now' });
    await panelEditPage.setVisualization('Table');
    await chooseService(page, service);
    await page.getByRole('radio', { name: 'SQL' }).click({ force: true });
    await expect(page.getByTestId('quiver-sql-editor').locator('.view-lines')).toContainText(service);
    await expect(panelEditPage.refreshPanel()).toBeOK();
    await expect(panelEditPage.panel.data.first()).toBeVisible();
  });

  test('SQL that is wrong says where', async ({ panelEditPage, page }) => {
    await panelEditPage.datasource.set(DATASOURCE.name);
    await page.getByRole('radio', { name: 'SQL' }).click({ force: true });
    await writeSql(page, 'SELECT no_such_field FROM logs WHERE $__timeFilter(timestamp)');
    await expect(panelEditPage.refreshPanel()).not.toBeOK();
    await expect(panelEditPage.panel.getErrorIcon()).toBeVisible();
  });
});
