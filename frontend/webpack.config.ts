/**
 * The scaffold's webpack configuration (.config/webpack, @grafana/create-plugin), with the output at the top of the
 * repository: dist/ holds both halves of the plugin, so what the backend's build put there is left alone.
 */
import CopyWebpackPlugin from 'copy-webpack-plugin';
import path from 'path';
import ReplaceInFileWebpackPlugin from 'replace-in-file-webpack-plugin';
import type { Configuration, RuleSetRule } from 'webpack';

import grafanaConfig, { type Env } from './.config/webpack/webpack.config.ts';

const TOP = path.resolve(process.cwd(), '..');

/** React's automatic JSX runtime, which Grafana 12.3 and later provide, and syntax every browser of theirs reads. */
function modern(rule: RuleSetRule): RuleSetRule {
  const use = rule.use as { loader?: string; options?: { jsc?: object } } | undefined;
  if (use?.loader !== 'swc-loader') {
    return rule;
  }
  const jsc = { ...use.options?.jsc, target: 'es2022', transform: { react: { runtime: 'automatic' } } };
  return { ...rule, use: { ...use, options: { ...use.options, jsc } } };
}

const config = async (env: Env): Promise<Configuration> => {
  const base = await grafanaConfig(env);
  return {
    ...base,
    module: { rules: (base.module?.rules ?? []).map((rule) => modern(rule as RuleSetRule)) },
    output: { ...base.output, path: path.join(TOP, 'dist'), clean: { keep: /^gpx_quiver_logs/ } },
    plugins: [
      ...(base.plugins ?? []).filter(
        (plugin) => !(plugin instanceof CopyWebpackPlugin || plugin instanceof ReplaceInFileWebpackPlugin)
      ),
      new CopyWebpackPlugin({
        patterns: [
          { from: path.join(TOP, 'plugin.json'), to: '.' },
          { from: 'img', to: 'img' },
          // The repository's README is for those who run the store; the catalog shows the plugin's own.
          { from: path.join(TOP, 'docs/plugin.md'), to: 'README.md' },
          { from: path.join(TOP, 'CHANGELOG.md'), to: '.' },
          // Without toType, a name without an extension would be taken for a template of names.
          { from: path.join(TOP, 'LICENSE'), to: '.', toType: 'dir' },
          {
            from: path.join(TOP, 'provisioning/dashboards/*.json'),
            to: 'dashboards/[name][ext]',
            noErrorOnMissing: true,
          },
        ],
      }),
    ],
  };
};

export default config;
