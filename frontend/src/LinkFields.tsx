/**
 * The settings of links to other systems: from a field of a line, or from what a pattern finds in it, to a page or to a
 * query in another data source. The backend makes the links; LinkPreview shows what they find.
 */
import { css } from '@emotion/css';
import { DataSourceInstanceSettings, GrafanaTheme2 } from '@grafana/data';
import { DataSourcePicker } from '@grafana/runtime';
import { Button, Field, FieldSet, IconButton, Input, RadioButtonGroup, Stack, useStyles2 } from '@grafana/ui';
import { useState } from 'react';

import type { Props } from './ConfigEditor';
import { LinkPreview } from './LinkPreview';
import { LinkSettings } from './types';

const VALUE = '${__value.raw}';

const TARGETS = [
  { value: 'url' as const, label: 'Page' },
  { value: 'query' as const, label: 'Data source' },
];

export function LinkFields({ options, onOptionsChange }: Props) {
  const styles = useStyles2(getStyles);
  const links = options.jsonData.links ?? [];
  // Whoever adds a link goes on in it; with keys alone it would be behind them.
  const [added, setAdded] = useState<number>();
  const change = (changed: LinkSettings[]) =>
    onOptionsChange({ ...options, jsonData: { ...options.jsonData, links: changed.length > 0 ? changed : undefined } });
  return (
    <FieldSet label="Links">
      <p className={styles.intro}>
        From a field of a line, or from what a regular expression finds in it, to any other system. A link stands in the
        details of each line it finds a value in; {VALUE} stands for the value.
      </p>
      <Stack direction="column" gap={2} alignItems="flex-start">
        {links.map((link, index) => (
          <LinkCard
            key={index}
            number={index + 1}
            link={link}
            autoFocus={index === added}
            isNameTaken={links.some((other, at) => at !== index && Boolean(link.name) && other.name === link.name)}
            onChange={(patch) => change(links.map((old, at) => (at === index ? { ...old, ...patch } : old)))}
            onRemove={() => change(links.filter((_, at) => at !== index))}
          />
        ))}
        <Button
          icon="plus"
          variant="secondary"
          size="sm"
          data-testid="quiver-link-add"
          onClick={() => {
            setAdded(links.length);
            change([...links, {}]);
          }}
        >
          Add link
        </Button>
        {links.length > 0 && <LinkPreview uid={options.uid} links={links} />}
      </Stack>
    </FieldSet>
  );
}

interface CardProps {
  number: number;
  link: LinkSettings;
  autoFocus: boolean;
  isNameTaken: boolean;
  onChange: (patch: Partial<LinkSettings>) => void;
  onRemove: () => void;
}

function LinkCard({ number, link, autoFocus, isNameTaken, onChange, onRemove }: CardProps) {
  const styles = useStyles2(getStyles);
  const target = link.datasourceUid === undefined ? 'url' : 'query';
  const text = (
    name: 'name' | 'field' | 'pattern' | 'url' | 'title' | 'query',
    label: string,
    width: number,
    placeholder: string,
    error?: string
  ) => {
    const id = `quiver-link-${number}-${name}`;
    const value = link[name] ?? '';
    return (
      <Field noMargin htmlFor={id} label={label} invalid={error !== undefined} error={error}>
        <Input
          id={id}
          data-testid={id}
          width={width}
          autoFocus={autoFocus && name === 'name'}
          placeholder={placeholder}
          value={typeof value === 'string' ? value : JSON.stringify(value)}
          onChange={(event) => onChange({ [name]: event.currentTarget.value || undefined })}
        />
      </Field>
    );
  };
  return (
    <div className={styles.card} role="group" aria-label={`Link ${number}`}>
      <Stack direction="row" gap={1} wrap="wrap" alignItems="flex-start">
        {text('name', 'Name', 22, link.field || 'message', isNameTaken ? 'Another link has this name' : undefined)}
        {text('field', 'Field', 22, 'message')}
        {text('pattern', 'Regular expression', 42, 'none: the whole field; or order=(\\w+)')}
        <IconButton
          className={styles.remove}
          name="trash-alt"
          aria-label={`Remove link ${number}`}
          tooltip="Remove this link"
          data-testid={`quiver-link-${number}-remove`}
          onClick={onRemove}
        />
      </Stack>
      <Stack direction="row" gap={1} wrap="wrap" alignItems="flex-start">
        <Field noMargin label="Leads to">
          <RadioButtonGroup
            aria-label={`Where link ${number} leads to`}
            value={target}
            options={TARGETS}
            onChange={(chosen) =>
              onChange(
                chosen === 'url'
                  ? { datasourceUid: undefined, datasourceName: undefined, query: undefined }
                  : { datasourceUid: '', url: undefined }
              )
            }
          />
        </Field>
        {target === 'url' ? (
          text('url', 'URL', 58, `https://shop.example/orders/${VALUE}`)
        ) : (
          <>
            <Field noMargin htmlFor={`quiver-link-${number}-datasource`} label="Data source">
              <DataSourcePicker
                inputId={`quiver-link-${number}-datasource`}
                noDefault
                width={24}
                placeholder="Choose"
                current={link.datasourceUid || null}
                onChange={({ uid, name }: DataSourceInstanceSettings) =>
                  onChange({ datasourceUid: uid, datasourceName: name })
                }
              />
            </Field>
            {text('query', 'Query', 33, VALUE)}
          </>
        )}
        {text('title', 'Button', 22, link.name || link.field || 'message')}
      </Stack>
    </div>
  );
}

const getStyles = (theme: GrafanaTheme2) => ({
  intro: css({ color: theme.colors.text.secondary, maxWidth: theme.spacing(90) }),
  card: css({
    display: 'flex',
    flexDirection: 'column',
    gap: theme.spacing(1.5),
    padding: theme.spacing(1.5, 2),
    border: `1px solid ${theme.colors.border.weak}`,
    borderRadius: theme.shape.radius.default,
    background: theme.colors.background.secondary,
  }),
  remove: css({ marginTop: theme.spacing(3.5) }),
});
