// Bundles the host page and lays out what the bridge serves: the page, Grafana's icons, and the built plugin as it is.
// Usage: node bundle.mjs DIST OUT
import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const here = dirname(fileURLToPath(import.meta.url));
const modules = join(here, '../../frontend/node_modules');

const PAGE = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Quiver</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="/host.css"></head>
<body><div id="page"></div>
<script>
window.grafanaBootData = { settings: { featureToggles: {}, buildInfo: { version: '12.3.0' }, datasources: {} }, user: {}, navTree: [] };
window.__grafana_public_path__ = '/public/';
</script>
<script src="/host.js"></script></body></html>
`;

export async function bundle(dist, out) {
  rmSync(out, { recursive: true, force: true });
  mkdirSync(out, { recursive: true });
  await build({
    entryPoints: { host: join(here, 'host.tsx') },
    bundle: true,
    outdir: out,
    format: 'iife',
    target: 'chrome120',
    jsx: 'automatic',
    minify: true,
    nodePaths: [modules],
    define: { 'process.env.NODE_ENV': '"production"', global: 'window' },
    loader: { '.ttf': 'dataurl', '.svg': 'dataurl', '.png': 'dataurl', '.woff2': 'dataurl' },
    logLevel: 'error',
  });
  writeFileSync(join(out, 'index.html'), PAGE);
  cpSync(join(modules, '@grafana/ui/dist/public/img'), join(out, 'public/build/img'), { recursive: true });
  cpSync(dist, join(out, 'plugin'), { recursive: true, filter: (path) => !path.includes('gpx_') });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await bundle(process.argv[2], process.argv[3]);
}
