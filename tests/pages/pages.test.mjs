// One test for each thing that has a screen: the built module.js, the real libraries, backend and store, in Chromium.
// Each leaves a picture in screenshots/, which is not committed.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Stage } from './stage.mjs';

let stage;
before(async () => {
  stage = await Stage.open();
});
after(() => stage?.close());

/** A test with a page of its own. */
function scene(name, options, act) {
  test(name, { timeout: 60_000 }, async () => {
    const opened = await stage.show(name.replace(/[^a-z]+/gi, '-'), options);
    await act(opened);
    await opened.end();
  });
}

const SQL = (sql, format = 'auto') => ({ query: { editor: 'sql', sql, format } });
const ERRORS = { filters: [{ field: 'level', op: '=', value: 'error' }] };

scene('builder finds fields and values, and runs', {}, async (s) => {
  await s.at('quiver-filter-add').click();
  await s.pick('quiver-filter-1-field', 'service');
  await s.pick('quiver-filter-1-value', 'payments-api');
  await s.page.locator('[data-testid=result][data-state=Done]').waitFor();
  const query = await s.query((query) => query.builder.filters.length === 1);
  assert.deepEqual(query.builder.filters[0], { field: 'service', op: '=', value: 'payments-api', values: [] });
  assert.match(await s.at('result').innerText(), /rows · log-lines/);
});

scene('builder counts by level', { query: { builder: { aggregate: { function: 'count' }, groupBy: ['level'] } }, app: 'dashboard' }, async (s) => {
  await s.at('quiver-run').click();
  await s.page.locator('[data-testid=result][data-state=Done]').waitFor();
  assert.match(await s.at('result').innerText(), /timeseries-multi/);
});

scene('builder works by keyboard alone', {}, async (s) => {
  const focusOn = async (name) => {
    for (let presses = 0; presses < 40; presses++) {
      await s.page.keyboard.press('Tab');
      const label = await s.page.evaluate(() => {
        const { activeElement: at } = document;
        return at.getAttribute('aria-label') ?? document.getElementById(at.getAttribute('aria-labelledby') ?? '')?.textContent;
      });
      if (label === name) {
        return;
      }
    }
    assert.fail(`no way by Tab to '${name}'`);
  };
  await focusOn('Add text condition');
  await s.page.keyboard.press('Enter');
  await focusOn('Text 1');
  await s.page.keyboard.type('declined');
  await s.page.keyboard.press('Enter');
  await s.query((query) => query.builder.search[0]?.text === 'declined');
  await s.page.locator('[data-testid=result][data-state=Done]').waitFor();
});

scene('sql completes columns with their documentation', SQL('SELECT * FROM logs'), async (s) => {
  await s.type('SELECT ser');
  await s.page.keyboard.press('Control+Space');
  await s.page.locator('.suggest-widget .monaco-list-row', { hasText: 'service' }).first().waitFor();
  await s.page.keyboard.press('Control+Space');
  await s.page.locator('.suggest-details', { hasText: 'The service that wrote the line' }).waitFor();
});

scene('sql completes values of a column', SQL('SELECT * FROM logs'), async (s) => {
  await s.type("SELECT * FROM logs WHERE service = 'pa");
  await s.page.keyboard.press('Control+Space');
  await s.page.locator('.suggest-widget .monaco-list-row', { hasText: 'payments-api' }).first().waitFor();
});

scene('sql completes functions and macros', SQL('SELECT 1'), async (s) => {
  await s.type('SELECT approx_perc');
  await s.page.keyboard.press('Control+Space');
  await s.page.locator('.suggest-widget .monaco-list-row', { hasText: 'approx_percentile_cont' }).first().waitFor();
  await s.shoot('-functions');
  await s.type('SELECT * FROM logs WHERE $__t');
  await s.page.keyboard.press('Control+Space');
  await s.page.locator('.suggest-widget .monaco-list-row', { hasText: '$__timeFilter' }).first().waitFor();
});

scene('sql problems are underlined as typed, without running', SQL('SELECT * FROM logs WHERE $__timeFilter(timestamp)'), async (s) => {
  await s.type('SELECT *\nFROM logs\nWHERE $__timeFilter(timestamp)\n  AND servce IN ($service)');
  await s.page.locator('.squiggly-error').first().waitFor();
  assert.match(await s.at('quiver-problem').innerText(), /no field named 'servce'; did you mean 'service'/);
  assert.equal((await s.seen()).runs, 0);
  await s.shoot('-found');
  await s.page.getByRole('button', { name: 'Use service' }).click();
  await s.query((query) => query.sql.includes('AND service IN ($service)'));
  await s.page.locator('.squiggly-error').first().waitFor({ state: 'detached' });
});

scene('sql that cannot be read is underlined', SQL('SELECT 1'), async (s) => {
  await s.type('SELECT *\nFORM logs');
  await s.page.locator('.squiggly-error').first().waitFor();
  assert.match(await s.at('quiver-problem').innerText(), /Expected: end of statement, found: logs|found: FORM/);
});

scene('sql without a time filter gets a hint', SQL("SELECT *\nFROM logs\nWHERE regexp_like(message, 'declined')"), async (s) => {
  await s.page.getByRole('button', { name: 'Add a time filter' }).click();
  await s.query((query) => query.sql.includes('WHERE $__timeFilter(timestamp) AND regexp_like'));
  await s.page.getByRole('button', { name: 'Use contains' }).click();
  await s.query((query) => query.sql.endsWith("AND contains(message, 'declined')"));
});

scene('builder hints offer the field that was meant', { query: { builder: { filters: [{ field: 'servce', op: '=~', value: 'bff' }] } } }, async (s) => {
  await s.page.getByRole('button', { name: 'Use service' }).click();
  await s.query((query) => query.builder.filters[0].field === 'service');
  await s.page.getByRole('button', { name: 'Use contains' }).click();
  await s.query((query) => query.builder.filters[0].op === 'contains');
});

scene('sql is laid out', SQL("select level,count(*) from logs where $__timeFilter(timestamp) and service='bff' group by 1"), async (s) => {
  await s.at('quiver-layout').click();
  await s.query((query) => query.sql === "SELECT level, count(*)\nFROM logs\nWHERE $__timeFilter(timestamp)\n  AND service = 'bff'\nGROUP BY 1");
});

scene('explain tells what a query does, and how much the range holds', { query: { builder: { ...ERRORS, aggregate: { function: 'count' }, groupBy: ['service'] } } }, async (s) => {
  await s.at('quiver-explain').check({ force: true });
  await s.at('quiver-explanation').waitFor();
  assert.match(await s.at('quiver-explanation').innerText(), /level is 'error'[\s\S]*Counts the lines in each time bucket of the panel, for each service/);
  assert.match(await s.at('quiver-estimate').innerText(), /Reads at most (about )?[\d.,]+K? lines, [\d.]+ [kM]?B/);
});

scene('builder becomes sql and comes back', { query: { builder: { ...ERRORS, search: [{ op: 'contains', text: 'declined' }] } } }, async (s) => {
  await s.choose('SQL');
  const { sql } = await s.query((query) => query.editor === 'sql');
  assert.match(sql, /WHERE \$__timeFilter\(timestamp\)\n {2}AND level = 'error'\n {2}AND contains\(message, 'declined'\)/);
  await s.shoot('-sql');
  await s.type(sql.replace("'error'", "'warn'"));
  await s.choose('Builder');
  const { builder } = await s.query((query) => query.editor === 'builder' && query.builder.filters[0].value === 'warn');
  assert.deepEqual(builder.search, [{ op: 'contains', text: 'declined' }]);
});

scene('filters beside sql come along into the builder', {
  query: { editor: 'sql', sql: "SELECT * FROM logs WHERE $__timeFilter(timestamp) AND level = 'error'", filters: [{ field: 'service', op: '=', value: 'payments-api' }] },
}, async (s) => {
  await s.at('quiver-beside-sql').waitFor();
  await s.shoot('-sql');
  await s.choose('Builder');
  const query = await s.query((query) => query.editor === 'builder');
  assert.deepEqual(query.builder.filters.map(({ field }) => field), ['level', 'service']);
  assert.equal(query.filters, undefined);
});

scene('builder says what it cannot show', SQL('SELECT * FROM logs WHERE $__timeFilter(timestamp) AND (level = $level OR user_id IS NULL)'), async (s) => {
  await s.choose('Builder');
  await s.page.getByText('The builder cannot show this query').waitFor();
  await s.shoot('-question');
  await s.page.getByRole('button', { name: 'Stay with SQL' }).click();
  await s.query((query) => query.editor === 'sql' && query.sql.includes('user_id IS NULL'));
});

scene('cheat sheet examples all run', { show: 'help' }, async (s) => {
  const cards = s.at('quiver-cheat-sheet').getByRole('button');
  const count = await cards.count();
  assert.ok(count >= 8, `${count} examples`);
  for (let card = 0; card < count; card++) {
    await cards.nth(card).click();
  }
  const { queries } = await s.seen();
  assert.equal(queries.length, count);
  for (const query of queries) {
    const body = { from: String(Date.now() - 1_800_000), to: String(Date.now()), queries: [{ ...query, refId: 'A', intervalMs: 10_000, maxDataPoints: 500 }] };
    const response = await fetch(`${stage.address}/api/ds/query`, { method: 'POST', body: JSON.stringify(body) });
    const { results } = await response.json();
    assert.equal(results.A.error, undefined, JSON.stringify(query));
    assert.ok(results.A.frames[0].data.values[0].length > 0, `no rows: ${JSON.stringify(query)}`);
  }
});

scene('variables: values of a field under a filter', { show: 'variable', query: { field: 'level', filters: [{ field: 'service', op: '=', value: 'payments-api' }] } }, async (s) => {
  await s.page.getByRole('button', { name: 'Preview of values' }).click();
  await s.at('values').waitFor();
  assert.match(await s.at('values').innerText(), /info/);
});

scene('variables: names of fields, and sql', { show: 'variable' }, async (s) => {
  await s.choose('Names of fields');
  await s.page.getByRole('button', { name: 'Preview of values' }).click();
  await s.at('values').filter({ hasText: 'trace_id' }).waitFor();
  await s.choose('SQL');
  await s.type('SELECT DISTINCT service FROM logs WHERE $__timeFilter(timestamp) ORDER BY 1');
  await s.page.getByRole('button', { name: 'Preview of values' }).click();
  await s.at('values').filter({ hasText: 'bff' }).waitFor();
});

scene('settings are checked in words', { show: 'config' }, async (s) => {
  const test = async (expected) => {
    await s.page.getByRole('button', { name: 'Save & test' }).click();
    await s.page.getByText(expected).waitFor();
  };
  await test(/the URL of the store is missing/);
  await s.at('quiver-url').fill('http://127.0.0.1:1');
  await test(/connection refused; is the store running/);
  await s.at('quiver-url').fill(`https://${stage.grpc}`);
  await test(/does not speak TLS on this port/);
  await s.shoot('-tls');
  await s.at('quiver-url').fill(`http://${stage.grpc}`);
  await test(/Connected to .*fields, .*lines in the last hour/);
});

scene('links are tried on the newest line', {
  show: 'config',
  options: { jsonData: { links: [{ name: 'owner', field: 'service', url: 'https://owners.example/${__value.raw}' }, { name: 'broken', pattern: '(' }] } },
}, async (s) => {
  await s.at('quiver-link-2-url').fill('https://x.example');
  await s.at('quiver-link-newest').click();
  const found = s.at('quiver-link-found');
  await found.getByText('https://owners.example/').waitFor();
  await found.getByText(/the pattern of the link 'broken' cannot be read/).waitFor();
  await s.at('quiver-link-2-pattern').fill('(?i)ORDER=(.+)');
  await s.at('quiver-link-line').fill('order=A-17');
  await found.getByText('A-17').waitFor();
  await found.getByText('nothing in service').waitFor();
});

scene('a query names a tenant of the list', {}, async (s) => {
  await s.pick('quiver-tenant-of-query', 'team-a');
  await s.query((query) => query.tenant === 'team-a');
  await s.page.locator('[data-testid=result][data-state=Done]').waitFor();
});

scene('a query from loki is taken over', {}, async (s) => {
  const [query] = await s.page.evaluate(() =>
    window.datasource.importQueries([{ refId: 'A', expr: '{app="payments-api"} |= "declined"' }], { type: 'loki' })
  );
  const shown = await stage.show('a-query-from-loki-shown', { query });
  assert.equal(await shown.at('quiver-filter-1-value').inputValue(), 'payments-api');
  assert.equal(await shown.at('quiver-search-1-text').inputValue(), 'declined');
  await shown.end();
});

for (const theme of ['dark', 'light']) {
  for (const [name, options] of [
    ['builder', { query: { builder: { ...ERRORS, search: [{ op: 'contains', text: 'a' }], aggregate: { function: 'quantile', field: 'duration_ms' } } } }],
    ['sql', SQL('SELECT *\nFROM logs\nWHERE servce = 1')],
    ['variable', { show: 'variable', query: { filters: ERRORS.filters } }],
    ['settings', { show: 'config', options: { url: 'https://quiver:4317', jsonData: { tlsAuth: true, tlsAuthWithCACert: true, httpHeaderName1: 'X-A', links: [{ name: 'order', url: 'https://x' }, { datasourceUid: '' }] } } }],
    ['cheat sheet', { show: 'help' }],
  ]) {
    scene(`accessible: ${name}, ${theme}`, { ...options, theme }, async (s) => {
      if (name === 'sql') {
        await s.at('quiver-problem').waitFor();
      }
      assert.deepEqual(await s.findings(), []);
    });
  }
}
