/**
 * What is said about the query below its editor: problems and hints, each with the click that settles it, how much the
 * time range holds, and, when one asks for it, what the query does step by step. What they are is checking.ts.
 */
import { css } from '@emotion/css';
import { GrafanaTheme2 } from '@grafana/data';
import { Button, Icon, IconName, Stack, useStyles2 } from '@grafana/ui';
import { ReactNode } from 'react';

import { Checked, sizeText } from './checking';
import { Edit, Hint } from './types';

/** A range that holds more than this is worth a thought before it is read. */
const BIG_BYTES = 20e9;

export interface Props {
  checked: Checked;
  isExplained: boolean;
  onEdit: (edits: Edit[]) => void;
  onHint: (hint: Hint) => void;
}

export function Findings({ checked, isExplained, onEdit, onHint }: Props) {
  const styles = useStyles2(getStyles);
  const { problems, hints, explanation, estimate, settled } = checked;
  const isBig = estimate !== undefined && estimate.bytes > BIG_BYTES;
  return (
    <Stack direction="column" gap={0.5}>
      <div role="status" aria-label="Problems and hints" className={styles.list}>
        {problems.map(({ from, to, message, instead }) => (
          <Finding
            key={`${from} ${message}`}
            testId="quiver-problem"
            icon="exclamation-circle"
            className={styles.problem}
            text={message}
          >
            {instead.map((text) => (
              <Fix key={text} label={`Use ${text}`} disabled={!settled} onClick={() => onEdit([{ from, to, text }])} />
            ))}
          </Finding>
        ))}
        {hints.map((hint) => (
          <Finding
            key={hint.message}
            testId="quiver-hint"
            icon="info-circle"
            className={styles.hint}
            text={hint.message}
          >
            {hint.label && <Fix label={hint.label} disabled={!settled} onClick={() => onHint(hint)} />}
          </Finding>
        ))}
      </div>
      {isExplained && explanation.length > 0 && (
        <ol data-testid="quiver-explanation" aria-label="What the query does" className={styles.steps}>
          {explanation.map((step, index) => (
            <li key={index}>{step}</li>
          ))}
        </ol>
      )}
      {estimate && !checked.readsAllTimes && (
        <div data-testid="quiver-estimate" className={isBig ? styles.big : styles.note}>
          {isBig && <Icon name="exclamation-triangle" size="sm" />} {sizeText(estimate)}
          {isBig && '. A shorter range, or a filter on level or service, reads less.'}
        </div>
      )}
    </Stack>
  );
}

function Finding(props: { testId: string; icon: IconName; className: string; text: string; children: ReactNode }) {
  return (
    <Stack direction="row" gap={1} alignItems="center" wrap="wrap" data-testid={props.testId}>
      <Icon name={props.icon} className={props.className} />
      <span className={props.className}>{props.text}</span>
      {props.children}
    </Stack>
  );
}

function Fix({ label, disabled, onClick }: { label: string; disabled: boolean; onClick: () => void }) {
  return (
    <Button size="sm" variant="secondary" fill="outline" disabled={disabled} onClick={onClick}>
      {label}
    </Button>
  );
}

function getStyles(theme: GrafanaTheme2) {
  return {
    list: css({ display: 'flex', flexDirection: 'column', gap: theme.spacing(0.5), '&:empty': { display: 'none' } }),
    problem: css({ color: theme.colors.error.text }),
    hint: css({ color: theme.colors.text.secondary }),
    note: css({ color: theme.colors.text.secondary, fontSize: theme.typography.bodySmall.fontSize }),
    big: css({ color: theme.colors.warning.text, fontSize: theme.typography.bodySmall.fontSize }),
    steps: css({
      margin: 0,
      padding: theme.spacing(1, 1, 1, 4),
      background: theme.colors.background.secondary,
      borderRadius: theme.shape.radius.default,
      lineHeight: 1.6,
    }),
  };
}
