/** The plugin's entry: what Grafana loads. */
import { DataSourcePlugin } from '@grafana/data';

import { CheatSheet } from './CheatSheet';
import { ConfigEditor } from './ConfigEditor';
import { QuiverDatasource } from './datasource';
import { QueryEditor } from './QueryEditor';
import { QuiverOptions, QuiverQuery, QuiverSecrets } from './types';

export const plugin = new DataSourcePlugin<QuiverDatasource, QuiverQuery, QuiverOptions, QuiverSecrets>(
  QuiverDatasource
)
  .setConfigEditor(ConfigEditor)
  .setQueryEditor(QueryEditor)
  .setQueryEditorHelp(CheatSheet);
