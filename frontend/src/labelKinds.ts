/**
 * What a field of a line is, by its name: where the line comes from, what request it belongs to, or a part of what it says.
 * Names are those of OpenTelemetry, of Kubernetes' agents and of the store's own columns. Pure.
 */

/** What tells one stream of lines from another; a line carries some of these. The first ones say most. */
export const STREAM_FIELDS = [
  'service',
  'namespace',
  'kubernetes.namespace_name',
  'k8s.namespace.name',
  'pod',
  'kubernetes.pod_name',
  'k8s.pod.name',
  'container',
  'kubernetes.container_name',
  'k8s.container.name',
  'host',
  'hostname',
  'host.name',
  'instance',
  'stream',
  'filename',
];

const RESOURCE_PREFIXES = [
  'service.',
  'k8s.',
  'kubernetes.',
  'container.',
  'host.',
  'cloud.',
  'deployment.',
  'process.',
  'os.',
  'telemetry.',
  'faas.',
  'resource.',
];
const RESOURCE_FIELDS = [...STREAM_FIELDS, 'cluster', 'node', 'region', 'env', 'environment', 'job', 'app'];
const REQUEST_FIELDS = ['trace_id', 'span_id', 'parent_span_id', 'request_id', 'correlation_id', 'session_id'];

export function labelKind(name: string): string {
  if (REQUEST_FIELDS.includes(name)) {
    return 'Request';
  }
  const isResource = RESOURCE_FIELDS.includes(name) || RESOURCE_PREFIXES.some((prefix) => name.startsWith(prefix));
  return isResource ? 'Resource' : 'Fields';
}
