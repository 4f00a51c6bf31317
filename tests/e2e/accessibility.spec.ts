/** Our parts of Grafana's pages without a mouse, and as axe judges them; what Grafana draws around them is not ours. */
import AxeBuilder from '@axe-core/playwright';
import { expect, test } from '@grafana/plugin-e2e';
import { Page } from '@playwright/test';

import { DATASOURCE, explore, linesOf, newService, pushHalfHour, sql } from './quiver';

test.describe('axe finds nothing serious', () => {
  test('in the settings', async ({ createDataSourceConfigPage, page }) => {
    await createDataSourceConfigPage({ type: DATASOURCE.type });
    await page.getByLabel('URL of the store').fill('https://quiver.example:4317');
    for (const id of ['quiver-tlsAuth', 'quiver-tlsAuthWithCACert']) {
      await page.getByTestId(id).check({ force: true });
    }
    await page.getByRole('radio', { name: 'User and password' }).check({ force: true });
    await page.getByTestId('quiver-header-add').click();
    await page.getByTestId('quiver-link-add').click();
    await page.getByTestId('quiver-link-add').click();
    await page.getByRole('radio', { name: 'Data source' }).last().check({ force: true });
    await page.getByTestId('quiver-link-line').fill('a line');
    await expect(page.getByTestId('quiver-link-found')).toBeVisible();
    await judge(page, 'quiver-config-editor');
  });

  for (const theme of ['dark', 'light']) {
    test(`in the builder, ${theme}`, async ({ page }) => {
      const service = newService();
      await pushHalfHour(service);
      const builder = {
        filters: [
          { field: 'service', op: '=', value: service, values: [] },
          { field: 'level', op: 'in', value: '', values: ['error', 'warn'] },
        ],
        search: [{ op: 'contains', text: 'answered' }],
        aggregate: { function: 'quantile', field: 'duration_ms', quantile: 0.95 },
        groupBy: ['level'],
      };
      await explore(page, linesOf(service, builder), undefined, theme);
      await page.getByTestId('quiver-explain').check({ force: true });
      await expect(page.getByTestId('quiver-explanation')).toBeVisible();
      await judge(page, 'quiver-query-editor');
      await page.getByTestId('quiver-explain').uncheck({ force: true });
    });
  }

  test('in the SQL editor, with a problem and filters beside it', async ({ page }) => {
    const query = {
      ...sql('SELECT * FROM logs WHERE $__timeFilter(timestamp) AND servce = 1'),
      filters: [{ field: 'level', op: '=', value: 'error', values: [] }],
    };
    await explore(page, query);
    await expect(page.getByTestId('quiver-problem')).toBeVisible();
    await expect(page.getByTestId('quiver-sql-editor').locator('.view-lines')).toBeVisible();
    await judge(page, 'quiver-query-editor');
  });

  test('in the context of a line', async ({ page }) => {
    const service = newService();
    await pushHalfHour(service);
    await explore(page, linesOf(service));
    await openContext(page);
    await judge(page, 'quiver-context-filters');
  });

  test('in the editor of variables', async ({ variableEditPage, page }) => {
    await variableEditPage.setVariableType('Query');
    await variableEditPage.datasource.set(DATASOURCE.name);
    await page.getByTestId('quiver-filter-add').click();
    await judge(page, 'quiver-variable-editor');
  });
});

test.describe('keys alone', () => {
  test('narrow a query and run it', async ({ page }) => {
    const service = newService();
    await pushHalfHour(service);
    await explore(page, linesOf(service));
    await expect(page.getByTestId('logRows')).toBeVisible();
    await reach(page, 'Add text condition');
    await page.keyboard.press('Enter');
    await expect(page.getByLabel('Text 1', { exact: true })).toBeFocused();
    await page.keyboard.type('request 7 ');
    await page.keyboard.press('Enter');
    await expect(page.getByTestId('logRows').getByText('request 7 answered')).toBeVisible();
    await expect(page.getByTestId('logRows').getByText('request 8 answered')).toHaveCount(0);
  });

  test('choose a field and its value', async ({ page }) => {
    const service = newService();
    await pushHalfHour(service);
    await explore(page, linesOf(service));
    await reach(page, 'Add filter');
    await page.keyboard.press('Enter');
    await expect(page.getByRole('combobox', { name: 'Field of filter 2' })).toBeFocused();
    await take(page, 'level');
    await reach(page, 'Value of filter 2');
    await take(page, 'error');
    await expect(page.getByTestId('logRows').getByText('request 0 answered')).toBeVisible();
    await expect(page.getByTestId('logRows').getByText('request 1 answered')).toHaveCount(0);
  });

  test('leave the SQL editor, which keeps Tab for the text until Ctrl+M', async ({ page }) => {
    await explore(page, sql('SELECT 1 AS one', 'table'));
    await page.getByTestId('quiver-sql-editor').locator('.view-lines').click();
    await page.keyboard.press('Control+M');
    await page.keyboard.press('Tab');
    await expect(page.getByTestId('quiver-sql-editor').locator(':focus')).toHaveCount(0);
  });

  test('fill in a link of the settings', async ({ createDataSourceConfigPage, page }) => {
    await createDataSourceConfigPage({ type: DATASOURCE.type });
    await reach(page, 'Add link');
    await page.keyboard.press('Enter');
    await expect(page.getByTestId('quiver-link-1-name')).toBeFocused();
    await page.keyboard.type('order');
    // Grafana's IconButton is called what its tooltip says.
    await reach(page, 'Remove this link');
    await page.keyboard.press('Enter');
    await expect(page.getByTestId('quiver-link-1-name')).toHaveCount(0);
  });

  test('change what the lines around a line have in common', async ({ page }) => {
    const service = newService();
    await pushHalfHour(service);
    await explore(page, linesOf(service));
    await openContext(page);
    await reach(page, 'Fields that the lines around have in common with this one');
    await page.keyboard.press('Backspace');
    await expect(page.getByTestId('quiver-context-filters').getByText('service', { exact: true })).toHaveCount(0);
  });

  test('choose the field of a variable', async ({ variableEditPage, page }) => {
    await variableEditPage.setVariableType('Query');
    await variableEditPage.datasource.set(DATASOURCE.name);
    await reach(page, 'Field');
    await take(page, 'level');
    await variableEditPage.runQuery();
    await expect(variableEditPage).toDisplayPreviews(['info']);
  });
});

/** The arrow of Grafana's MultiCombobox: a div with attributes of a button, which only a mouse reaches. */
const ARROW_OF_GRAFANA = 'div[id^="downshift-"][id$="-toggle-button"]';

/** Fails with what axe finds serious or critical below the element. */
async function judge(page: Page, testId: string): Promise<void> {
  await expect(page.getByTestId(testId)).toBeVisible();
  const { violations } = await new AxeBuilder({ page })
    .include(`[data-testid="${testId}"]`)
    .exclude(ARROW_OF_GRAFANA)
    .analyze();
  const serious = violations
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .map(({ id, nodes }) => ({ id, at: nodes.map(({ html }) => html.slice(0, 200)) }));
  expect(serious).toEqual([]);
}

/** Presses Tab until the element of this name has the focus, as somebody without a mouse does. */
async function reach(page: Page, name: string): Promise<void> {
  for (let presses = 0; presses < 150; presses++) {
    await page.keyboard.press('Tab');
    const focused = await page.evaluate(() => {
      const at = document.activeElement as HTMLInputElement | null;
      const by = document.getElementById(at?.getAttribute('aria-labelledby') ?? '')?.textContent;
      const label = at?.labels?.[0]?.firstChild?.textContent ?? at?.labels?.[0]?.textContent;
      return [at?.getAttribute('aria-label'), by, label, at?.textContent].find((text) => text?.trim())?.trim();
    });
    if (focused === name) {
      return;
    }
  }
  throw new Error(`no way by Tab to '${name}'`);
}

/** Types into the box that has the focus, and takes the option of this name. */
async function take(page: Page, option: string): Promise<void> {
  await page.keyboard.type(option);
  await expect(page.getByRole('option', { name: option }).first()).toBeVisible();
  await page.keyboard.press('Enter');
}

async function openContext(page: Page): Promise<void> {
  await page.getByTestId('logRows').getByRole('button', { name: 'Log menu' }).first().click();
  await page.getByText('Show context').click();
  await expect(page.getByTestId('quiver-context-filters')).toBeVisible();
}
