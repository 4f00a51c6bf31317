/**
 * Custom headers as Grafana stores them: names in jsonData.httpHeaderName1…, values in secureJsonData.httpHeaderValue1….
 * Pure. Invariant: numbers have no holes, for readers of these settings stop at the first one missing.
 */
import { DataSourceSettings } from '@grafana/data';

import { QuiverOptions, QuiverSecrets } from './types';

export type Settings = DataSourceSettings<QuiverOptions, QuiverSecrets>;

export interface Header {
  number: number;
  name: string;
  /** Whether a value is stored; it cannot be read back. */
  hasValue: boolean;
}

type Json = Record<string, unknown>;

export function headersOf(settings: Settings): Header[] {
  const names = settings.jsonData as unknown as Json;
  const headers: Header[] = [];
  for (let number = 1; typeof names[`httpHeaderName${number}`] === 'string'; number++) {
    headers.push({
      number,
      name: String(names[`httpHeaderName${number}`]),
      hasValue: Boolean(settings.secureJsonFields?.[`httpHeaderValue${number}`]),
    });
  }
  return headers;
}

export function addHeader(settings: Settings): Settings {
  return renameHeader(settings, headersOf(settings).length + 1, '');
}

export function renameHeader(settings: Settings, number: number, name: string): Settings {
  return { ...settings, jsonData: { ...settings.jsonData, [`httpHeaderName${number}`]: name } };
}

/**
 * Takes one header out. A stored value cannot be moved to another number, so those behind it keep theirs
 * only if it was the last one: else their values must be given again.
 */
export function removeHeader(settings: Settings, number: number): Settings {
  const headers = headersOf(settings);
  const jsonData = { ...settings.jsonData } as unknown as Json;
  const secureJsonData = { ...settings.secureJsonData } as Json;
  const secureJsonFields = { ...settings.secureJsonFields };
  for (const header of headers.filter((known) => known.number >= number)) {
    const next = headers.find((known) => known.number === header.number + 1);
    const [nameKey, valueKey] = [`httpHeaderName${header.number}`, `httpHeaderValue${header.number}`];
    if (next) {
      jsonData[nameKey] = next.name;
    } else {
      delete jsonData[nameKey];
    }
    secureJsonFields[valueKey] = false;
    secureJsonData[valueKey] = next ? (secureJsonData[`httpHeaderValue${next.number}`] ?? '') : '';
  }
  return {
    ...settings,
    jsonData: jsonData as unknown as QuiverOptions,
    secureJsonData: secureJsonData as QuiverSecrets,
    secureJsonFields,
  };
}
