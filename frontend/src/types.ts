/**
 * The types Grafana hands to this plugin: a query as stored, the settings, the answers of the resource calls.
 * The query model itself stands in model.ts.
 */
import { DataSourceJsonData } from '@grafana/data';
import { DataQuery } from '@grafana/schema';

import { Builder, Filter, PartialModel } from './model';

/** Set by Explore when it asks for a further page. */
export const INFINITE_SCROLL = 'infiniteScroll';

/** A query as a panel stores it: any part of the model may be missing. */
export type QuiverQuery = DataQuery &
  Omit<PartialModel, 'refId'> & {
    supportingQueryType?: string;
  };

export interface TraceSettings {
  datasourceUid?: string;
  /** Stored beside the uid because the backend, which writes the links, cannot look it up. */
  datasourceName?: string;
  fieldNames?: string[];
  externalUrl?: string;
}

/** A link to another system from a field of a line, or from what a pattern finds in it. */
export interface LinkSettings {
  name?: string;
  /** What the button says, if not the name. */
  title?: string;
  /** The field it starts from; `message` when empty. */
  field?: string;
  /** A regular expression; its first group, or all that it finds, is the value. Empty: the whole field. */
  pattern?: string;
  /** A page, with `${__value.raw}` where the value goes; or a query in another data source, below. */
  url?: string;
  datasourceUid?: string;
  datasourceName?: string;
  /** The query there, as JSON, with `${__value.raw}` in it. */
  query?: string | Record<string, unknown>;
}

/** jsonData. Header names sit beside these as httpHeaderName1, httpHeaderName2 … (headers.ts). */
export interface QuiverOptions extends DataSourceJsonData {
  tenant?: string;
  timeoutSeconds?: number;
  defaultLimit?: number;
  traces?: TraceSettings;
  links?: LinkSettings[];
  tlsSkipVerify?: boolean;
  tlsAuth?: boolean;
  tlsAuthWithCACert?: boolean;
  serverName?: string;
  /** Tenants a query may name instead of `tenant`. */
  tenants?: string[];
  /** Grafana's own: hand the user's login on. */
  oauthPassThru?: boolean;
  /** Grafana's own: names of cookies to hand on. */
  keepCookies?: string[];
  /** Grafana's own: go through the proxy that Grafana is configured with. */
  enableSecureSocksProxy?: boolean;
}

/** secureJsonData: goes in, never comes back out. Header values: httpHeaderValue1 … */
export interface QuiverSecrets {
  token?: string;
  basicAuthPassword?: string;
  tlsCACert?: string;
  tlsClientCert?: string;
  tlsClientKey?: string;
  [headerValue: `httpHeaderValue${number}`]: string | undefined;
}

export const DEFAULT_TIMEOUT_SECONDS = 30;
export const DEFAULT_LIMIT = 1000;
export const DEFAULT_TRACE_FIELDS = ['trace_id'];

export type ColumnType = 'string' | 'integer' | 'float' | 'boolean' | 'time';

/** A column of the store's table, as `GET fields` answers it. */
export interface Column {
  name: string;
  type: ColumnType;
}

/** A value of one column and how many lines have it, as `GET fields/values` answers it. */
export interface ColumnValue {
  value: string;
  count: number;
}

/** A SQL function, as `GET functions` answers it. */
export interface SqlFunction {
  name: string;
  description: string;
  syntax: string;
}

/** A part of a text and what comes in its place; `from` and `to` count UTF-16 units, as strings here do. */
export interface Edit {
  from: number;
  to: number;
  text: string;
}

/** Something wrong with SQL text, as `POST check` answers it. */
export interface Problem {
  from: number;
  to: number;
  message: string;
  /** Texts that may stand there instead. */
  instead: string[];
}

/** Something that would be better; `label` names the click that makes it so, in the SQL or in the builder. */
export interface Hint {
  message: string;
  label?: string;
  edits?: Edit[];
  builder?: Builder;
}

export interface Check {
  problems: Problem[];
  hints: Hint[];
  /** What the query does, a step a line. */
  explanation: string[];
  /** SQL without a condition on the time: the range on the screen bounds nothing. */
  readsAllTimes: boolean;
}

/** How much a time range holds. */
export interface Estimate {
  lines: number;
  bytes: number;
}

/** What a template variable asks the store for. */
export interface VariableQuery extends DataQuery {
  kind: 'fields' | 'values' | 'sql';
  /** kind values: whose values. */
  field?: string;
  /** kind values: only of lines that match. */
  filters?: Filter[];
  /** kind values: at most so many. */
  limit?: number;
  /** kind sql: first column, or `__text` and `__value`. */
  sql?: string;
}
