// What the page tests stand on: the bundled page, the bridge with plugin and store behind it, and a headless Chromium.
// Invariant: a test that logs an error to the console, or whose page fails, fails itself.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { chromium } from 'playwright-core';

import { bundle } from './bundle.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const SCREENSHOTS = join(here, 'screenshots');
const SITE = join(here, 'node_modules/.site');
/** Grafana's combobox puts aria attributes on an arrow that screen readers never reach; not ours to change. */
const GRAFANAS = ['[id$="-toggle-button"]'];
/** Grafana's fonts, and one of its icons, are no part of its libraries. */
const MISSING = /\/public\/fonts\/|\/spinner\.svg$/;

function setting(name) {
  assert.ok(process.env[name], `${name} is not set; run \`make test-pages\``);
  return process.env[name];
}

export class Stage {
  static async open() {
    await bundle(setting('QUIVER_DIST'), SITE);
    mkdirSync(SCREENSHOTS, { recursive: true });
    const bridge = spawn(setting('QUIVER_BRIDGE'), ['--quiver', setting('QUIVER_BIN'), '--plugin', setting('QUIVER_PLUGIN_BIN'), '--files', SITE], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const line = await new Promise((resolve, reject) => {
      bridge.stdout.once('data', (data) => resolve(String(data).trim()));
      bridge.once('exit', (code) => reject(new Error(`the bridge ended with ${code}`)));
    });
    const [address, grpc] = line.split(' ');
    const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox'] });
    // One context for all pages: the libraries are large, and then read from its cache.
    const context = await browser.newContext({ viewport: { width: 1366, height: 900 } });
    await context.addInitScript(() => localStorage.clear());
    return Object.assign(new Stage(), { bridge, address, grpc, browser, context });
  }

  async close() {
    await this.browser.close();
    const ended = new Promise((resolve) => this.bridge.once('exit', resolve));
    this.bridge.stdin.end();
    assert.equal(await ended, 0, 'the bridge ends in good order');
  }

  /** Opens the page with what is to be shown, and waits for the plugin. */
  async show(name, { show = 'query', theme = 'dark', app = 'explore', query, options } = {}) {
    const page = await this.context.newPage();
    page.setDefaultTimeout(15_000);
    page.setDefaultNavigationTimeout(45_000);
    const errors = [];
    page.on('pageerror', (error) => errors.push(error.message));
    page.on('console', (message) => {
      if (message.type() === 'error' && !MISSING.test(message.location().url)) {
        errors.push(`${message.text()} ${message.location().url}`);
      }
    });
    const parameters = new URLSearchParams({ show, theme, app });
    for (const [key, value] of Object.entries({ query, options })) {
      if (value) {
        parameters.set(key, JSON.stringify(value));
      }
    }
    await page.goto(`${this.address}/?${parameters}`);
    await page.locator('main section').first().waitFor();
    return new Scene(page, name, errors);
  }
}

/** One page with the plugin on it. */
export class Scene {
  constructor(page, name, errors) {
    Object.assign(this, { page, name, errors });
  }

  at(testId) {
    return this.page.getByTestId(testId);
  }

  /** What the editors told the page. */
  seen() {
    return this.page.evaluate(() => window.seen);
  }

  /** Waits until the page was told a query for which the function holds. */
  async query(holds, argument) {
    await this.page.waitForFunction(`(${holds})(window.seen.query ?? {}, ${JSON.stringify(argument)})`);
    return (await this.seen()).query;
  }

  /** Takes one of a row of choices. */
  async choose(name) {
    await this.page.getByRole('radio', { name, exact: true }).click({ force: true });
  }

  /** Opens a picker and takes the option of this text. */
  async pick(testId, text) {
    await this.at(testId).click();
    await this.page.getByRole('option').filter({ hasText: text }).first().click();
  }

  /** Puts a text into the SQL box as keys are typed, without what Monaco adds by itself. */
  async type(text) {
    await this.page.locator('.monaco-editor .view-lines').first().click();
    await this.page.keyboard.press('Control+A');
    await this.page.keyboard.insertText(text);
  }

  async text() {
    return this.page.evaluate(() => document.querySelector('.monaco-editor .view-lines').innerText.replaceAll('\u00a0', ' '));
  }

  async shoot(suffix = '') {
    await this.page.screenshot({ path: join(SCREENSHOTS, `${this.name}${suffix}.png`) });
  }

  /** Serious findings of axe-core, as text. */
  async findings() {
    await this.page.evaluate(AXE);
    const { violations } = await this.page.evaluate((exclude) => window.axe.run({ include: ['main'], exclude }), GRAFANAS);
    return violations
      .filter(({ impact }) => impact === 'serious' || impact === 'critical')
      .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 200)).join(' | ')}`);
  }

  /** Takes the last picture, and sees that nothing failed. */
  async end() {
    await this.shoot();
    await this.page.close();
    assert.deepEqual(this.errors, []);
  }
}
