/** The settings of a data source, from an empty form to an answer in words. */
import { expect, test } from '@grafana/plugin-e2e';

import { DATASOURCE } from './quiver';

test.describe('settings', () => {
  test('Save & test says what the store holds', async ({ createDataSourceConfigPage, page, request }) => {
    const { url } = await (await request.get(`/api/datasources/uid/${DATASOURCE.uid}`)).json();
    const settings = await createDataSourceConfigPage({ type: DATASOURCE.type });
    await page.getByLabel('URL of the store').fill(url);
    await expect(settings.saveAndTest()).toBeOK();
    await expect(settings).toHaveAlert('success');
  });

  test('Save & test says why it cannot reach the store', async ({ createDataSourceConfigPage, page }) => {
    const settings = await createDataSourceConfigPage({ type: DATASOURCE.type });
    await page.getByLabel('URL of the store').fill('http://127.0.0.1:1');
    await expect(settings.saveAndTest()).not.toBeOK();
    await expect(settings).toHaveAlert('error', { hasText: '127.0.0.1:1' });
  });

  test('a token goes in and does not come back', async ({ createDataSourceConfigPage, page, request }) => {
    const settings = await createDataSourceConfigPage({ type: DATASOURCE.type });
    await page.getByLabel('URL of the store').fill('http://127.0.0.1:1');
    await page.getByRole('radio', { name: 'Token' }).check({ force: true });
    await page.getByTestId('quiver-token').fill('secret-of-the-spec');
    await settings.saveAndTest();
    await page.reload();
    await expect(page.getByTestId('quiver-token')).toBeDisabled();
    const stored = await (await request.get(`/api/datasources/uid/${settings.datasource.uid}`)).json();
    expect(stored.secureJsonFields).toEqual({ token: true });
    expect(JSON.stringify(stored)).not.toContain('secret-of-the-spec');
  });

  test('TLS has its settings when the address is https', async ({ createDataSourceConfigPage, page }) => {
    await createDataSourceConfigPage({ type: DATASOURCE.type });
    await expect(page.getByTestId('quiver-tlsAuth')).toHaveCount(0);
    await page.getByLabel('URL of the store').fill('https://quiver.example:4317');
    await page.getByTestId('quiver-tlsAuth').check({ force: true });
    await expect(page.getByTestId('quiver-tlsClientKey')).toBeVisible();
  });
});
