/** Annotations from a query's lines. */
import { expect, test } from '@grafana/plugin-e2e';

import { chooseService, DATASOURCE, newService, pushHalfHour } from './quiver';

test('lines become annotations', async ({ annotationEditPage, page }) => {
  const service = newService();
  await pushHalfHour(service, 6);
  await annotationEditPage.datasource.set(DATASOURCE.name);
  await chooseService(page, service);
  await expect(annotationEditPage.runQuery()).toBeOK();
  await expect(page.getByText('6 events')).toBeVisible();
});
