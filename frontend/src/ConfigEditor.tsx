/**
 * The settings of a data source: where the store is, how one proves who one is, limits, and where traces are. Links: LinkFields.
 * Each setting says what it does. Secrets go in and never come back.
 */
import {
  DataSourceInstanceSettings,
  DataSourcePluginOptionsEditorProps,
  onUpdateDatasourceSecureJsonDataOption,
  updateDatasourcePluginResetOption,
} from '@grafana/data';
import { config, DataSourcePicker } from '@grafana/runtime';
import {
  Button,
  Field,
  FieldSet,
  IconButton,
  Input,
  RadioButtonGroup,
  SecretInput,
  SecretTextArea,
  Stack,
  Switch,
  TagsInput,
} from '@grafana/ui';
import { ReactElement, useState } from 'react';

import { addHeader, headersOf, removeHeader, renameHeader } from './headers';
import { LinkFields } from './LinkFields';
import {
  DEFAULT_LIMIT,
  DEFAULT_TIMEOUT_SECONDS,
  DEFAULT_TRACE_FIELDS,
  QuiverOptions,
  QuiverSecrets,
  TraceSettings,
} from './types';

export type Props = DataSourcePluginOptionsEditorProps<QuiverOptions, QuiverSecrets>;

type Auth = 'none' | 'token' | 'basic';

const AUTHS = [
  { value: 'none' as const, label: 'None' },
  { value: 'token' as const, label: 'Token' },
  { value: 'basic' as const, label: 'User and password' },
];

const WIDTH = 50;

export function ConfigEditor(props: Props) {
  return (
    <div data-testid="quiver-config-editor">
      <ConnectionFields {...props} />
      <AuthFields {...props} />
      <TlsFields {...props} />
      <TenantFields {...props} />
      <QueryFields {...props} />
      <TraceFields {...props} />
      <LinkFields {...props} />
    </div>
  );
}

function Setting(props: { id: string; label: string; description: string; error?: string; children: ReactElement }) {
  const { id, label, description, error, children } = props;
  return (
    <Field htmlFor={id} label={label} description={description} invalid={error !== undefined} error={error}>
      {children}
    </Field>
  );
}

function ConnectionFields(props: Props) {
  const { options, onOptionsChange } = props;
  return (
    <FieldSet label="Connection">
      <Setting
        id="quiver-url"
        label="URL of the store"
        description="The store's gRPC address, the one it prints as grpc=… when it starts. With https:// the connection is encrypted."
        error={urlProblem(options.url)}
      >
        <Input
          id="quiver-url"
          data-testid="quiver-url"
          width={WIDTH}
          placeholder="http://127.0.0.1:4317"
          value={options.url ?? ''}
          onChange={(event) => onOptionsChange({ ...options, url: event.currentTarget.value })}
          onBlur={(event) => onOptionsChange({ ...options, url: event.currentTarget.value.trim() })}
        />
      </Setting>
      {(config.secureSocksDSProxyEnabled || options.jsonData.enableSecureSocksProxy) && (
        <ToggleSetting
          {...props}
          name="enableSecureSocksProxy"
          label="Secure socks proxy"
          description="Reach the store through the proxy of Grafana's configuration ([secure_socks_datasource_proxy] in grafana.ini)."
        />
      )}
    </FieldSet>
  );
}

/** What is wrong with an address, in words; nothing is wrong with one not yet given. */
export function urlProblem(url: string | undefined): string | undefined {
  if (!url || /^https?:\/\/[^\s/]+\/?$/.test(url.trim())) {
    return undefined;
  }
  return /^https?:\/\//.test(url)
    ? 'Only host and port, such as http://quiver:4317'
    : 'Begins with http:// or https://, such as http://quiver:4317';
}

function AuthFields(props: Props) {
  const { options, onOptionsChange } = props;
  const [auth, setAuth] = useState<Auth>(() => authOf(options));
  const choose = (chosen: Auth) => {
    setAuth(chosen);
    const forget = (key: 'token' | 'basicAuthPassword') => ({ [key]: '' });
    onOptionsChange({
      ...options,
      basicAuth: chosen === 'basic',
      secureJsonFields: {
        ...options.secureJsonFields,
        ...(chosen === 'token' ? {} : { token: false }),
        ...(chosen === 'basic' ? {} : { basicAuthPassword: false }),
      },
      secureJsonData: {
        ...options.secureJsonData,
        ...(chosen === 'token' ? {} : forget('token')),
        ...(chosen === 'basic' ? {} : forget('basicAuthPassword')),
      },
    });
  };
  return (
    <FieldSet label="Authentication">
      <Field label="Method" description="How Grafana proves to the store who it is.">
        <RadioButtonGroup
          aria-label="Authentication method"
          data-testid="quiver-auth"
          value={auth}
          options={AUTHS}
          onChange={choose}
        />
      </Field>
      {auth === 'token' && (
        <Secret {...props} name="token" label="Token" description="Sent as Authorization: Bearer … with each query." />
      )}
      {auth === 'basic' && (
        <>
          <Setting id="quiver-user" label="User" description="A user the store's configuration names.">
            <Input
              id="quiver-user"
              data-testid="quiver-user"
              width={WIDTH}
              autoComplete="off"
              value={options.basicAuthUser ?? ''}
              onChange={(event) => onOptionsChange({ ...options, basicAuthUser: event.currentTarget.value })}
            />
          </Setting>
          <Secret {...props} name="basicAuthPassword" label="Password" description="Stored encrypted by Grafana." />
        </>
      )}
      <ToggleSetting
        {...props}
        name="oauthPassThru"
        label="Forward the user's login"
        description="Where users sign in to Grafana by OAuth, their own token is sent instead of the method above."
      />
      <NamesSetting
        {...props}
        name="keepCookies"
        label="Cookies"
        description="Names of cookies that are handed on from the user's browser, for a proxy that asks for them."
      />
    </FieldSet>
  );
}

function authOf(options: Props['options']): Auth {
  if (options.basicAuth) {
    return 'basic';
  }
  return options.secureJsonFields?.token || options.secureJsonData?.token ? 'token' : 'none';
}

interface SecretProps extends Props {
  name: keyof QuiverSecrets & string;
  label: string;
  description: string;
  /** A PEM text of many lines. */
  pem?: boolean;
}

function Secret({ pem, ...props }: SecretProps) {
  const { name, label, description, options } = props;
  const id = `quiver-${name}`;
  const common = {
    id,
    'data-testid': id,
    isConfigured: Boolean(options.secureJsonFields?.[name]),
    value: options.secureJsonData?.[name] ?? '',
    onReset: () => updateDatasourcePluginResetOption(props, name),
    onChange: onUpdateDatasourceSecureJsonDataOption(props, name),
  };
  return (
    <Setting id={id} label={label} description={description}>
      {pem ? (
        <SecretTextArea {...common} cols={WIDTH + 20} rows={5} placeholder="-----BEGIN …-----" />
      ) : (
        <SecretInput {...common} width={WIDTH} autoComplete="new-password" />
      )}
    </Setting>
  );
}

type Toggle = 'tlsSkipVerify' | 'tlsAuth' | 'tlsAuthWithCACert' | 'oauthPassThru' | 'enableSecureSocksProxy';

function ToggleSetting(props: Props & { name: Toggle; label: string; description: string }) {
  const { name, label, description, options, onOptionsChange } = props;
  const { jsonData } = options;
  const id = `quiver-${name}`;
  return (
    <Setting id={id} label={label} description={description}>
      <Switch
        id={id}
        data-testid={id}
        value={jsonData[name] ?? false}
        onChange={(event) =>
          onOptionsChange({ ...options, jsonData: { ...jsonData, [name]: event.currentTarget.checked } })
        }
      />
    </Setting>
  );
}

function NamesSetting(props: Props & { name: 'keepCookies' | 'tenants'; label: string; description: string }) {
  const { name, label, description, options, onOptionsChange } = props;
  const id = `quiver-${name}`;
  return (
    <Setting id={id} label={label} description={description}>
      <TagsInput
        id={id}
        width={WIDTH}
        placeholder="Add a name (Enter)"
        tags={options.jsonData[name] ?? []}
        onChange={(names) => onOptionsChange({ ...options, jsonData: { ...options.jsonData, [name]: names } })}
      />
    </Setting>
  );
}

function TlsFields(props: Props) {
  const { options, onOptionsChange } = props;
  const { jsonData } = options;
  if (!options.url?.startsWith('https://')) {
    return null;
  }
  return (
    <FieldSet label="TLS">
      <ToggleSetting
        {...props}
        name="tlsAuthWithCACert"
        label="Own certificate authority"
        description="Trust the store's certificate because this authority signed it."
      />
      {jsonData.tlsAuthWithCACert && (
        <Secret {...props} pem name="tlsCACert" label="CA certificate" description="PEM, one or more certificates." />
      )}
      <ToggleSetting
        {...props}
        name="tlsAuth"
        label="Client certificate"
        description="Show the store a certificate of our own."
      />
      {jsonData.tlsAuth && (
        <>
          <Secret {...props} pem name="tlsClientCert" label="Client certificate" description="PEM." />
          <Secret {...props} pem name="tlsClientKey" label="Client key" description="PEM, not encrypted." />
        </>
      )}
      <Setting
        id="quiver-server-name"
        label="Server name"
        description="The name in the store's certificate, where it differs from the one in the URL."
      >
        <Input
          id="quiver-server-name"
          data-testid="quiver-server-name"
          width={WIDTH}
          value={jsonData.serverName ?? ''}
          onChange={(event) =>
            onOptionsChange({ ...options, jsonData: { ...jsonData, serverName: event.currentTarget.value } })
          }
        />
      </Setting>
      <ToggleSetting
        {...props}
        name="tlsSkipVerify"
        label="Skip verification"
        description="Accept any certificate. Anyone in between can then read and change what is sent: only for trying things out."
      />
    </FieldSet>
  );
}

function TenantFields(props: Props) {
  const { options, onOptionsChange } = props;
  return (
    <FieldSet label="Tenant and headers">
      <Setting
        id="quiver-tenant"
        label="Tenant"
        description="Whose logs: sent as X-Scope-OrgID. Empty means the tenant named default."
      >
        <Input
          id="quiver-tenant"
          data-testid="quiver-tenant"
          width={WIDTH}
          placeholder="default"
          value={options.jsonData.tenant ?? ''}
          onChange={(event) =>
            onOptionsChange({ ...options, jsonData: { ...options.jsonData, tenant: event.currentTarget.value } })
          }
        />
      </Setting>
      <NamesSetting
        {...props}
        name="tenants"
        label="Tenants of queries"
        description="Tenants that a single query may name instead. Whoever may query this data source may read them; empty: none."
      />
      <Field
        label="Headers"
        description="Sent with each query, for a proxy between Grafana and the store. Removing one that has others after it means giving the values of those again."
      >
        <Stack direction="column" gap={1} alignItems="flex-start">
          {headersOf(options).map((header) => (
            <Stack key={header.number} direction="row" gap={1} alignItems="center">
              <Input
                aria-label={`Name of header ${header.number}`}
                data-testid={`quiver-header-${header.number}-name`}
                width={24}
                placeholder="X-My-Header"
                value={header.name}
                onChange={(event) => onOptionsChange(renameHeader(options, header.number, event.currentTarget.value))}
              />
              <SecretInput
                aria-label={`Value of header ${header.number}`}
                data-testid={`quiver-header-${header.number}-value`}
                width={32}
                placeholder="Value"
                isConfigured={header.hasValue}
                value={options.secureJsonData?.[`httpHeaderValue${header.number}`] ?? ''}
                onReset={() => updateDatasourcePluginResetOption(props, `httpHeaderValue${header.number}`)}
                onChange={onUpdateDatasourceSecureJsonDataOption(props, `httpHeaderValue${header.number}`)}
              />
              <IconButton
                name="trash-alt"
                aria-label={`Remove header ${header.number}`}
                tooltip="Remove this header"
                data-testid={`quiver-header-${header.number}-remove`}
                onClick={() => onOptionsChange(removeHeader(options, header.number))}
              />
            </Stack>
          ))}
          <Button
            icon="plus"
            variant="secondary"
            size="sm"
            data-testid="quiver-header-add"
            onClick={() => onOptionsChange(addHeader(options))}
          >
            Add header
          </Button>
        </Stack>
      </Field>
    </FieldSet>
  );
}

function QueryFields({ options, onOptionsChange }: Props) {
  const number = (name: 'defaultLimit' | 'timeoutSeconds', label: string, description: string, fallback: number) => (
    <Setting id={`quiver-${name}`} label={label} description={description}>
      <Input
        id={`quiver-${name}`}
        data-testid={`quiver-${name}`}
        type="number"
        min={1}
        width={16}
        placeholder={String(fallback)}
        value={options.jsonData[name] ?? ''}
        onChange={(event) => {
          const value = Math.floor(Number(event.currentTarget.value));
          onOptionsChange({ ...options, jsonData: { ...options.jsonData, [name]: value > 0 ? value : undefined } });
        }}
      />
    </Setting>
  );
  return (
    <FieldSet label="Queries">
      {number(
        'defaultLimit',
        'Default limit',
        'Lines at most for a query that names no limit of its own.',
        DEFAULT_LIMIT
      )}
      {number(
        'timeoutSeconds',
        'Time-out in seconds',
        'A query that takes longer is ended, in the store too.',
        DEFAULT_TIMEOUT_SECONDS
      )}
    </FieldSet>
  );
}

function TraceFields({ options, onOptionsChange }: Props) {
  const traces = options.jsonData.traces ?? {};
  const change = (patch: Partial<TraceSettings>) =>
    onOptionsChange({ ...options, jsonData: { ...options.jsonData, traces: { ...traces, ...patch } } });
  return (
    <FieldSet label="Traces">
      <Setting
        id="quiver-traces-datasource"
        label="Data source of traces"
        description="Each line with a trace id gets a link that opens the trace in this data source, such as Jaeger."
      >
        <DataSourcePicker
          inputId="quiver-traces-datasource"
          tracing
          noDefault
          width={WIDTH}
          placeholder="None"
          current={traces.datasourceUid || null}
          onChange={({ uid, name }: DataSourceInstanceSettings) => change({ datasourceUid: uid, datasourceName: name })}
          onClear={() => change({ datasourceUid: undefined, datasourceName: undefined })}
        />
      </Setting>
      <Setting
        id="quiver-traces-fields"
        label="Fields with trace ids"
        description="The first of these that a line has is its trace. The store names trace_id, traceId, trace.id and otelTraceID all trace_id."
      >
        <TagsInput
          id="quiver-traces-fields"
          width={WIDTH}
          placeholder="Add a field (Enter)"
          tags={traces.fieldNames ?? DEFAULT_TRACE_FIELDS}
          onChange={(fieldNames) => change({ fieldNames })}
        />
      </Setting>
      <Setting
        id="quiver-traces-url"
        label="External URL"
        description={"A second link, to the tracing system's own pages. ${__value.raw} stands for the trace id."}
      >
        <Input
          id="quiver-traces-url"
          data-testid="quiver-traces-url"
          width={WIDTH + 20}
          placeholder="http://jaeger:16686/trace/${__value.raw}"
          value={traces.externalUrl ?? ''}
          onChange={(event) => change({ externalUrl: event.currentTarget.value })}
        />
      </Setting>
    </FieldSet>
  );
}
