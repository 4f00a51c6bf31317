/** The editor of a query variable: each kind of variable gives the values it is for. */
import { expect, test } from '@grafana/plugin-e2e';

import { choose, DATASOURCE, newService, pushHalfHour, writeSql } from './quiver';

test.describe('variables', () => {
  test.beforeEach(async ({ variableEditPage }) => {
    await variableEditPage.setVariableType('Query');
    await variableEditPage.datasource.set(DATASOURCE.name);
  });

  test('values of a field, of the lines that match', async ({ variableEditPage, page }) => {
    const service = newService();
    await pushHalfHour(service);
    await choose(page, 'Field', 'level');
    await page.getByTestId('quiver-filter-add').click();
    await choose(page, 'Field of filter 1', 'service');
    await choose(page, 'Value of filter 1', service);
    await variableEditPage.runQuery();
    await expect(variableEditPage).toDisplayPreviews(['info', 'error', 'warn']);
  });

  test('names of fields', async ({ variableEditPage, page }) => {
    await pushHalfHour(newService());
    await page.getByRole('radio', { name: 'Names of fields' }).check({ force: true });
    await variableEditPage.runQuery();
    await expect(variableEditPage).toDisplayPreviews(['timestamp', 'level', 'service', 'message']);
  });

  test('SQL', async ({ variableEditPage, page }) => {
    await page.getByRole('radio', { name: 'SQL' }).check({ force: true });
    await writeSql(page, "SELECT 'one' AS v UNION ALL SELECT 'two' ORDER BY v");
    await variableEditPage.runQuery();
    await expect(variableEditPage).toDisplayPreviews(['one', 'two']);
  });
});
