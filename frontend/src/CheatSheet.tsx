/** The help of the query editor: examples that run on a click, and the macros. The examples stand in examples.ts. */
import { css } from '@emotion/css';
import { GrafanaTheme2, QueryEditorHelpProps } from '@grafana/data';
import { useStyles2 } from '@grafana/ui';

import { MACROS } from './completion';
import { describe } from './describe';
import { Example, EXAMPLES } from './examples';
import { normalize } from './model';
import { QuiverQuery } from './types';

export function CheatSheet({ onClickExample }: QueryEditorHelpProps<QuiverQuery>) {
  const styles = useStyles2(getStyles);
  return (
    <div data-testid="quiver-cheat-sheet">
      <h2 className={styles.title}>Quiver: examples</h2>
      {EXAMPLES.map((group) => (
        <section key={group.title}>
          <h3 className={styles.group}>{group.title}</h3>
          <div className={styles.grid}>
            {group.examples.map((example) => (
              <ExampleCard key={example.title} example={example} onClick={(query) => onClickExample(query)} />
            ))}
          </div>
        </section>
      ))}
      <h3 className={styles.group}>Macros in SQL</h3>
      <dl className={styles.macros}>
        {MACROS.map(({ label, documentation }) => (
          <div key={label} className={styles.macro}>
            <dt>
              <code>{label}</code>
            </dt>
            <dd>{documentation}</dd>
          </div>
        ))}
      </dl>
    </div>
  );
}

function ExampleCard({ example, onClick }: { example: Example; onClick: (query: QuiverQuery) => void }) {
  const styles = useStyles2(getStyles);
  const model = normalize(example.query);
  const { refId, ...query } = model;
  return (
    <button type="button" className={styles.card} onClick={() => onClick({ refId, ...query })}>
      <strong>{example.title}</strong>
      <span className={styles.text}>{example.text}</span>
      <pre className={styles.code}>{describe(model)}</pre>
    </button>
  );
}

function getStyles(theme: GrafanaTheme2) {
  return {
    title: css({ fontSize: theme.typography.h4.fontSize }),
    group: css({ fontSize: theme.typography.h5.fontSize, margin: theme.spacing(2, 0, 1) }),
    grid: css({ display: 'grid', gridTemplateColumns: 'repeat(auto-fill, minmax(340px, 1fr))', gap: theme.spacing(1) }),
    card: css({
      display: 'flex',
      flexDirection: 'column',
      gap: theme.spacing(0.5),
      padding: theme.spacing(1.5),
      textAlign: 'left',
      color: theme.colors.text.primary,
      background: theme.colors.background.secondary,
      border: `1px solid ${theme.colors.border.weak}`,
      borderRadius: theme.shape.radius.default,
      '&:hover, &:focus-visible': { borderColor: theme.colors.primary.border },
    }),
    text: css({ color: theme.colors.text.secondary, fontSize: theme.typography.bodySmall.fontSize }),
    code: css({
      margin: 0,
      whiteSpace: 'pre-wrap',
      overflowWrap: 'anywhere',
      fontSize: theme.typography.bodySmall.fontSize,
    }),
    macros: css({ margin: 0 }),
    macro: css({
      display: 'grid',
      gridTemplateColumns: 'minmax(200px, 280px) 1fr',
      gap: theme.spacing(1),
      padding: theme.spacing(0.5, 0),
      '& dd, & dt': { margin: 0, fontWeight: 'normal' },
    }),
  };
}
