/**
 * The way to everything a query matches, as a file: Grafana's own download holds the lines on the screen.
 * The backend sends it page by page, so the browser only sees a download.
 */
import { Button, Dropdown, Menu } from '@grafana/ui';

import { QuiverQuery } from './types';

const FORMATS = [
  { format: 'json', label: 'JSON lines', description: 'every field' },
  { format: 'csv', label: 'CSV', description: 'every field, as a table' },
  { format: 'txt', label: 'Text', description: 'time and message' },
];

export interface Props {
  /** The address of a file of this format. */
  address: (format: string) => string;
}

export function Download({ address }: Props) {
  const menu = (
    <Menu>
      {FORMATS.map(({ format, label, description }) => (
        <Menu.Item key={format} label={label} description={description} url={address(format)} target="_blank" />
      ))}
    </Menu>
  );
  return (
    <Dropdown overlay={menu}>
      <Button
        size="sm"
        variant="secondary"
        icon="download-alt"
        tooltip="Download everything this query matches, beyond the limit of the panel"
        data-testid="quiver-download"
      >
        Download all
      </Button>
    </Dropdown>
  );
}

/** Where the backend serves the file of a query; `query` has its variables in place. */
export function exportAddress(
  uid: string,
  query: QuiverQuery,
  range: { from: number; to: number },
  format: string,
  subUrl = ''
): string {
  const parameters = new URLSearchParams({
    query: JSON.stringify(query),
    from: String(range.from),
    to: String(range.to),
    format,
  });
  return `${subUrl}/api/datasources/uid/${uid}/resources/export?${parameters}`;
}
