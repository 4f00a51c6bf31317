/** Alert rules: what a query gives is what a rule takes. */
import { expect, test } from '@grafana/plugin-e2e';

import { chooseService, DATASOURCE, newService, pushHalfHour } from './quiver';

test.describe('alert rules', () => {
  test('a new rule counts lines, and Grafana evaluates it', async ({ alertRuleEditPage }) => {
    const service = newService();
    await pushHalfHour(service);
    await alertRuleEditPage.enableAdvancedQueryMode();
    const query = await alertRuleEditPage.getQueryRow('A');
    await query.datasource.set(DATASOURCE.name);
    await chooseService(query.locator, service);
    await expect(alertRuleEditPage.evaluate()).toBeOK();
  });

  test('the provisioned rule evaluates', async ({ gotoAlertRuleEditPage }) => {
    const rule = await gotoAlertRuleEditPage({ uid: 'quiver-errors-share' });
    await expect(rule.evaluate()).toBeOK();
  });
});
