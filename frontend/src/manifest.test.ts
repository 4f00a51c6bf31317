import packageJson from '../package.json';
import manifest from './plugin.json';

it('has one version', () => {
  expect(manifest.info.version).toBe(packageJson.version);
});

it('names the datasource and the backend as the rest of the project does', () => {
  expect(manifest).toMatchObject({
    id: 'quiver-logs-datasource',
    executable: 'gpx_quiver_logs',
    backend: true,
    logs: true,
    streaming: true,
    alerting: true,
    multiValueFilterOperators: true,
  });
});
