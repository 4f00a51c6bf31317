/**
 * The query editor: a builder or SQL text, and the way from each to the other, which the backend finds by the syntax tree.
 * Invariant: changing the mode loses nothing; SQL the builder has no parts for is replaced only when one says so.
 */
import { css } from '@emotion/css';
import { CoreApp, LoadingState, QueryEditorProps } from '@grafana/data';
import { Alert, Button, ComboboxOption, ConfirmModal, InlineField, RadioButtonGroup, Stack, Switch } from '@grafana/ui';
import { KeyboardEvent, ReactNode, useCallback, useId, useMemo, useState } from 'react';

import { BesideSql } from './BesideSql';
import { BuilderEditor } from './BuilderEditor';
import { edited, useCheck } from './checking';
import { CodeEditor } from './CodeEditor';
import { CompletionSources } from './completion';
import type { QuiverDatasource } from './datasource';
import { Download } from './Download';
import { Findings } from './Findings';
import { Direction, EditorMode, Format, normalize, QueryModel } from './model';
import { Picker, TextBox } from './Picker';
import { useSortOrder } from './sortOrder';
import { messageOf } from './store';
import { DEFAULT_LIMIT, Hint, QuiverOptions, QuiverQuery } from './types';
import { withLists } from './variables';

export type Props = QueryEditorProps<QuiverDatasource, QuiverQuery, QuiverOptions>;

const MODES = [
  { value: 'builder' as const, label: 'Builder' },
  { value: 'sql' as const, label: 'SQL' },
];

const FORMATS: Array<ComboboxOption<Format>> = [
  { value: 'auto', label: 'Auto', description: 'by what the query answers' },
  { value: 'logs', label: 'Logs', description: 'lines: needs timestamp and message' },
  { value: 'series', label: 'Time series', description: 'numbers over time: needs a time column' },
  { value: 'number', label: 'Number', description: 'one number for each group over the whole range' },
  { value: 'table', label: 'Table', description: 'rows and columns as they come' },
];

const EXPLAIN_KEY = 'quiver-logs-datasource.explain';

/** What stands in the way of changing the mode, and the ways on; each is a change of the query. */
interface Question {
  title: string;
  body: string;
  go: Way;
  other?: Way;
  stay: string;
}

interface Way {
  label: string;
  patch: Partial<QueryModel>;
}

export function QueryEditor({ query, datasource, range, data, app, onChange, onRunQuery }: Props) {
  const model = normalize(query);
  const [question, setQuestion] = useState<Question>();
  const [problem, setProblem] = useState<string>();
  // The form that was asked for and is not here yet: it shows as chosen, so that a slow store is not a click without effect.
  const [awaited, setAwaited] = useState<EditorMode>();
  const [isExplained, setExplained] = useState(() => localStorage.getItem(EXPLAIN_KEY) === 'true');
  // The text as it is typed; the query has it once the box is left.
  const [draft, setDraft] = useState<string>();
  const sources = useSources(datasource, range);
  const variables = datasource.templates.getVariables().map((variable) => variable.name);
  const intervalMs = data?.request?.intervalMs;
  const checked = useCheck(datasource, { ...model, sql: draft ?? model.sql }, range, intervalMs);

  const change = (patch: Partial<QueryModel>) => {
    const { version, editor, builder, sql, format, tenant, filters } = { ...model, ...patch };
    setDraft(undefined);
    onChange({
      ...query,
      ...{ version, editor, builder, sql, format },
      tenant: tenant || undefined,
      filters: filters?.length ? filters : undefined,
    });
  };
  const changeAndRun = (patch: Partial<QueryModel>) => {
    change(patch);
    onRunQuery();
  };

  const setDirection = useCallback(
    (direction: Direction) => {
      const { builder } = normalize(query);
      onChange({ ...query, builder: { ...builder, direction } });
      onRunQuery();
    },
    [query, onChange, onRunQuery]
  );
  useSortOrder(app, model.builder.direction, setDirection);

  const switchTo = async (editor: EditorMode) => {
    setProblem(undefined);
    setAwaited(editor);
    try {
      const current = { ...model, sql: draft ?? model.sql };
      const next =
        editor === 'sql'
          ? await toSql(datasource, current, { range, intervalMs })
          : await toBuilder(datasource, current);
      if ('title' in next) {
        setQuestion(next);
      } else {
        change(next);
      }
    } catch (error) {
      setProblem(`The other form of this query could not be had: ${messageOf(error)}`);
      change({ editor });
    } finally {
      setAwaited(undefined);
    }
  };

  const follow = (hint: Hint) =>
    changeAndRun(hint.builder ? { builder: hint.builder } : { sql: edited(draft ?? model.sql, hint.edits ?? []) });

  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
      onRunQuery();
    }
  };

  return (
    // A text box inside commits (and so runs) what was typed; its event only comes up here when there was nothing new.
    <div data-testid="quiver-query-editor" onKeyDown={onKeyDown}>
      <Stack direction="column" gap={1}>
        <Header>
          <InlineField label="Format" transparent className={flush}>
            <Picker
              label="Format"
              testId="quiver-format"
              minWidth={18}
              value={model.format}
              options={FORMATS}
              onChange={(format) => changeAndRun({ format: format as Format })}
            />
          </InlineField>
          <TenantField datasource={datasource} tenant={model.tenant} onChange={(tenant) => changeAndRun({ tenant })} />
          {model.widen !== undefined && (
            <WidenField
              widen={model.widen}
              onChange={(widen) => {
                onChange({ ...query, widen });
                onRunQuery();
              }}
            />
          )}
          <span className={spacer} />
          {model.editor === 'sql' && (
            <Button
              size="sm"
              variant="secondary"
              fill="outline"
              icon="brackets-curly"
              data-testid="quiver-layout"
              tooltip="A clause on each line, keywords in capitals"
              onClick={async () => {
                const sql = await datasource.store.layout({ ...model, sql: draft ?? model.sql }).catch(() => undefined);
                if (sql !== undefined) {
                  change({ sql });
                }
              }}
            >
              Lay out
            </Button>
          )}
          <ExplainSwitch
            value={isExplained}
            onChange={(value) => {
              localStorage.setItem(EXPLAIN_KEY, String(value));
              setExplained(value);
            }}
          />
          <RadioButtonGroup<EditorMode>
            aria-label="Editor mode"
            data-testid="quiver-editor-mode"
            size="sm"
            value={awaited ?? model.editor}
            options={MODES}
            disabled={awaited !== undefined}
            onChange={switchTo}
          />
          {range && <Download address={(format) => datasource.exportAddress(query, range, format)} />}
          {app !== CoreApp.Explore && (
            <Button
              size="sm"
              icon={data?.state === LoadingState.Loading ? 'spinner' : 'play'}
              data-testid="quiver-run"
              tooltip="Ctrl/Cmd + Enter"
              onClick={onRunQuery}
            >
              Run query
            </Button>
          )}
        </Header>
        {problem && <Alert title={problem} severity="warning" onRemove={() => setProblem(undefined)} />}
        {model.editor === 'builder' ? (
          <BuilderEditor
            builder={model.builder}
            store={datasource.store}
            range={range}
            variables={variables}
            defaultLimit={datasource.settings.jsonData?.defaultLimit || DEFAULT_LIMIT}
            onChange={(builder) => change({ builder })}
            onRun={onRunQuery}
          />
        ) : (
          <CodeEditor
            value={model.sql}
            sources={sources}
            problems={checked.settled ? checked.problems : undefined}
            layout={(sql) => datasource.store.layout({ ...model, sql })}
            onType={setDraft}
            onChange={(sql) => change({ sql })}
            onRun={onRunQuery}
          />
        )}
        {model.editor === 'sql' && (
          <BesideSql
            model={{ ...model, sql: draft ?? model.sql }}
            store={datasource.store}
            range={range}
            variables={variables}
            onChange={({ sql = draft ?? model.sql, filters }) => change({ sql, filters })}
            onRun={onRunQuery}
          />
        )}
        <Findings
          checked={checked}
          isExplained={isExplained}
          onEdit={(edits) => changeAndRun({ sql: edited(draft ?? model.sql, edits) })}
          onHint={follow}
        />
      </Stack>
      {question && <Ask question={question} onTake={change} onEnd={() => setQuestion(undefined)} />}
    </div>
  );
}

function Ask(props: { question: Question; onTake: (patch: Partial<QueryModel>) => void; onEnd: () => void }) {
  const { question, onTake, onEnd } = props;
  const take = (way: Way) => () => {
    onTake(way.patch);
    onEnd();
  };
  return (
    <ConfirmModal
      isOpen
      title={question.title}
      body={question.body}
      confirmText={question.go.label}
      confirmVariant="primary"
      confirmButtonVariant="primary"
      alternativeText={question.other?.label}
      dismissText={question.stay}
      onConfirm={take(question.go)}
      onAlternative={question.other && take(question.other)}
      onDismiss={onEnd}
    />
  );
}

type Next = Partial<QueryModel> | Question;

/** The builder as SQL. Text that says the same stays as it is, with its comments. */
async function toSql(
  datasource: QuiverDatasource,
  model: QueryModel,
  screen: Parameters<typeof datasource.store.sql>[1]
): Promise<Next> {
  const builder = withLists(model.builder, datasource.templates);
  const sql = await datasource.store.sql({ ...model, builder, editor: 'builder', purpose: undefined }, screen);
  // Filters that stood beside an older text are not the builder's.
  const generated = { editor: 'sql' as const, sql, filters: undefined };
  if (model.sql.trim() === '' || model.sql === sql) {
    return generated;
  }
  const known = await datasource.store.builder(model);
  if ('builder' in known && JSON.stringify(known.builder) === JSON.stringify(builder)) {
    return { editor: 'sql' };
  }
  if ('builder' in known && !/--|\/\*/.test(model.sql)) {
    return generated;
  }
  return {
    title: 'There is SQL text already',
    body: 'You can keep it, or take the SQL of the builder in its place.',
    go: { label: 'Keep my SQL', patch: { editor: 'sql' } },
    other: { label: "Use the builder's SQL", patch: generated },
    stay: 'Cancel',
  };
}

/** SQL and the filters beside it as a builder, where the builder has parts for all of it. */
async function toBuilder(datasource: QuiverDatasource, model: QueryModel): Promise<Next> {
  if (model.sql.trim() === '') {
    return { editor: 'builder' };
  }
  const known = await datasource.store.builder(model);
  if ('builder' in known) {
    return { editor: 'builder', builder: known.builder, format: known.format, sql: model.sql, filters: undefined };
  }
  return {
    title: 'The builder cannot show this query',
    body: `${sentence(known.reason)} Your SQL is kept either way.`,
    stay: 'Stay with SQL',
    go: { label: 'Open the builder as it was', patch: { editor: 'builder', sql: model.sql } },
  };
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}

function Header({ children }: { children: ReactNode }) {
  return (
    <Stack direction="row" gap={1} alignItems="center" wrap="wrap">
      {children}
    </Stack>
  );
}

function ExplainSwitch({ value, onChange }: { value: boolean; onChange: (value: boolean) => void }) {
  const id = useId();
  return (
    <Stack direction="row" gap={1} alignItems="center">
      {/* Not InlineSwitch: its label has an aria-label, which labels must not. */}
      <label htmlFor={id} className={small}>
        Explain
      </label>
      <Switch
        id={id}
        data-testid="quiver-explain"
        value={value}
        onChange={(event) => onChange(event.currentTarget.checked)}
      />
    </Stack>
  );
}

function TenantField(props: { datasource: QuiverDatasource; tenant?: string; onChange: (tenant?: string) => void }) {
  const { jsonData } = props.datasource.settings;
  const tenants = jsonData?.tenants ?? [];
  if (tenants.length === 0 && !props.tenant) {
    return null;
  }
  const own = jsonData?.tenant || 'default';
  return (
    <InlineField label="Tenant" transparent className={flush} tooltip="Whose logs this query reads.">
      <Picker
        label="Tenant"
        testId="quiver-tenant-of-query"
        minWidth={14}
        value={props.tenant ?? own}
        options={[
          { value: own, label: own, description: "the data source's own" },
          ...tenants.filter((name) => name !== own).map((name) => ({ value: name, label: name })),
        ]}
        onChange={(tenant) => props.onChange(tenant === own ? undefined : tenant)}
      />
    </InlineField>
  );
}

function WidenField({ widen, onChange }: { widen: string; onChange: (widen?: string) => void }) {
  return (
    <InlineField
      label="Widened by"
      transparent
      className={flush}
      tooltip="The time range is widened by this much on both sides; a link from a trace does so. Empty it to keep to the range."
    >
      <TextBox
        label="Widened by"
        testId="quiver-widen"
        width={10}
        value={widen}
        onCommit={(text) => onChange(text.trim() || undefined)}
      />
    </InlineField>
  );
}

/** What completion asks, bound to this data source and the time range on the screen. */
export function useSources(datasource: QuiverDatasource, range: Props['range']): CompletionSources {
  return useMemo(
    () => ({
      columns: () => datasource.store.columns(range),
      functions: () => datasource.store.functions(),
      values: (column) => datasource.store.values(column, { range }).catch(() => []),
      variables: () => datasource.templates.getVariables().map((variable) => variable.name),
    }),
    [datasource, range]
  );
}

const flush = css({ margin: 0 });
const small = css({ margin: 0, fontSize: 12, cursor: 'pointer' });
const spacer = css({ flexGrow: 1 });
