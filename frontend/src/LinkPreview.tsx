/**
 * What links that are still being written find in a line: one that somebody pastes, or the store's newest. The backend
 * looks, with the same code that makes the links of an answer, so that a pattern means here what it means there.
 */
import { css } from '@emotion/css';
import { GrafanaTheme2 } from '@grafana/data';
import { getBackendSrv, getTemplateSrv } from '@grafana/runtime';
import { Alert, Button, Field, Stack, TextArea, useStyles2 } from '@grafana/ui';
import { useEffect, useState } from 'react';
import { lastValueFrom } from 'rxjs';

import { messageOf } from './store';
import { LinkSettings } from './types';

/** As long as somebody types, nothing is asked. */
const PAUSE_MS = 300;

/** What one link found, as `POST links` answers it. */
interface Found {
  name: string;
  field?: string;
  value?: string;
  problem?: string;
}

export function LinkPreview({ uid, links }: { uid: string; links: LinkSettings[] }) {
  const styles = useStyles2(getStyles);
  const [line, setLine] = useState('');
  const [found, setFound] = useState<Found[]>();
  const [problem, setProblem] = useState<string>();
  const asked = JSON.stringify({ links, line });

  useEffect(() => {
    let isCurrent = true;
    const settle = (answer?: Found[], error?: unknown) => {
      if (isCurrent) {
        setFound(answer);
        setProblem(error === undefined ? undefined : messageOf(error));
      }
    };
    const timer = setTimeout(() => {
      if (line.trim() === '') {
        settle();
      } else {
        call<Found[]>(uid, 'POST', 'links', JSON.parse(asked)).then(settle, (error) => settle(undefined, error));
      }
    }, PAUSE_MS);
    return () => {
      isCurrent = false;
      clearTimeout(timer);
    };
  }, [uid, asked, line]);

  const takeNewest = async () => {
    try {
      const newest = await call<Record<string, string> | null>(uid, 'GET', 'newest-line');
      setProblem(newest === null ? 'the store has no line of the last day' : undefined);
      if (newest !== null) {
        setLine(JSON.stringify(newest, null, 2));
      }
    } catch (error) {
      setProblem(messageOf(error));
    }
  };

  return (
    <Stack direction="column" gap={1}>
      <Field
        noMargin
        htmlFor="quiver-link-line"
        label="Try the links on a line"
        description="JSON has its fields by their names, any other text is a message. Nothing needs to be saved."
      >
        <TextArea
          id="quiver-link-line"
          data-testid="quiver-link-line"
          className={styles.line}
          rows={line.includes('\n') ? 8 : 3}
          placeholder={'{"message": "payment of order=A-17 captured", "order_id": "A-17"}'}
          value={line}
          onChange={(event) => setLine(event.currentTarget.value)}
        />
      </Field>
      <div>
        <Button size="sm" variant="secondary" fill="outline" data-testid="quiver-link-newest" onClick={takeNewest}>
          Take the newest line
        </Button>
      </div>
      {problem !== undefined && (
        <Alert severity="warning" title="The links could not be tried">
          {problem}
        </Alert>
      )}
      {found !== undefined && (
        <table className={styles.found} data-testid="quiver-link-found">
          <thead>
            <tr>
              <th scope="col">Link</th>
              <th scope="col">Value</th>
              <th scope="col">Leads to</th>
            </tr>
          </thead>
          <tbody>
            {found.map((one, index) => (
              <tr key={index}>
                <td>{one.name}</td>
                <td>{one.value ?? <em>{one.problem ?? `nothing in ${one.field}`}</em>}</td>
                <td>{one.value !== undefined && links[index] && <Target link={links[index]} value={one.value} />}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </Stack>
  );
}

function Target({ link, value }: { link: LinkSettings; value: string }) {
  const filled = (text: string) => getTemplateSrv().replace(text, { __value: { text: value, value: { raw: value } } });
  if (!link.datasourceUid) {
    const url = filled(link.url ?? '');
    return (
      <a className="external-link" href={url} target="_blank" rel="noreferrer">
        {url}
      </a>
    );
  }
  const { query = '${__value.raw}' } = link;
  return (
    <span>
      {link.datasourceName || link.datasourceUid}: {filled(typeof query === 'string' ? query : JSON.stringify(query))}
    </span>
  );
}

/** The form has no data source object to ask: what it edits may not be saved yet. */
async function call<T>(uid: string, method: string, path: string, data?: unknown): Promise<T> {
  const url = `/api/datasources/uid/${uid}/resources/${path}`;
  return (await lastValueFrom(getBackendSrv().fetch<T>({ method, url, data, showErrorAlert: false }))).data;
}

const getStyles = (theme: GrafanaTheme2) => ({
  line: css({ width: theme.spacing(90), fontFamily: theme.typography.fontFamilyMonospace }),
  found: css({
    maxWidth: theme.spacing(112),
    'th, td': { padding: theme.spacing(0.5, 2, 0.5, 0), textAlign: 'left', verticalAlign: 'top' },
    th: { fontWeight: theme.typography.fontWeightMedium },
    td: { overflowWrap: 'anywhere' },
    em: { color: theme.colors.text.secondary },
  }),
});
