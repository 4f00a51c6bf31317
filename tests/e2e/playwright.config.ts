/**
 * Where the specs run: a Grafana that runs elsewhere (GRAFANA_URL), in the Chromium of this machine (CHROMIUM) where it
 * has one. Nothing is started here, and nothing is skipped: without GRAFANA_URL the run ends before the first spec.
 */
import type { PluginOptions } from '@grafana/plugin-e2e';
import { defineConfig } from '@playwright/test';
import { existsSync } from 'node:fs';
import path from 'node:path';

const baseURL = process.env.GRAFANA_URL;
if (!baseURL) {
  throw new Error('GRAFANA_URL is not set; tests/e2e/README.md tells how to start a Grafana for the specs');
}

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const LOGIN = 'playwright/.auth/admin.json';

export default defineConfig<PluginOptions>({
  testDir: '.',
  outputDir: 'results',
  // One Grafana, one store, one small machine.
  workers: 1,
  timeout: 150_000,
  expect: { timeout: 30_000 },
  reporter: [['list']],
  use: {
    baseURL,
    viewport: { width: 1600, height: 1000 },
    trace: 'retain-on-failure',
    screenshot: 'only-on-failure',
    provisioningRootDir: path.join(import.meta.dirname, '../../provisioning'),
    launchOptions: existsSync(CHROMIUM) ? { executablePath: CHROMIUM, args: ['--no-sandbox'] } : {},
  },
  projects: [
    { name: 'log in', testDir: 'node_modules/@grafana/plugin-e2e/dist/auth', testMatch: /auth\.setup\.js/ },
    { name: 'grafana', testMatch: /\.spec\.ts$/, use: { storageState: LOGIN }, dependencies: ['log in'] },
  ],
});
