/**
 * The query editor: a builder or SQL text, and the way from the first to the second, which the backend writes.
 * Invariant: changing the mode loses nothing; SQL someone wrote is replaced only when they say so.
 */
import { CoreApp, LoadingState, QueryEditorProps } from '@grafana/data';
import { Alert, Button, ComboboxOption, ConfirmModal, InlineField, RadioButtonGroup, Stack } from '@grafana/ui';
import { KeyboardEvent, useCallback, useMemo, useState } from 'react';

import { BesideSql } from './BesideSql';
import { BuilderEditor } from './BuilderEditor';
import { CodeEditor } from './CodeEditor';
import { CompletionSources } from './completion';
import type { QuiverDatasource } from './datasource';
import { Download } from './Download';
import { Direction, EditorMode, Format, normalize, QueryModel } from './model';
import { Picker, TextBox } from './Picker';
import { useSortOrder } from './sortOrder';
import { messageOf } from './store';
import { DEFAULT_LIMIT, QuiverOptions, QuiverQuery } from './types';

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

/** The SQL someone wrote and the SQL the builder would put in its place. */
interface Replacement {
  written: string;
  generated: string;
}

export function QueryEditor({ query, datasource, range, data, app, onChange, onRunQuery }: Props) {
  const model = normalize(query);
  const [replacement, setReplacement] = useState<Replacement>();
  const [problem, setProblem] = useState<string>();
  const [busy, setBusy] = useState(false);
  const sources = useSources(datasource, range);
  const variables = datasource.templates.getVariables().map((variable) => variable.name);

  const change = (patch: Partial<QueryModel>) => {
    const { version, editor, builder, sql, format } = { ...model, ...patch };
    onChange({ ...query, version, editor, builder, sql, format });
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
    if (editor === 'builder') {
      change({ editor });
      return;
    }
    setBusy(true);
    try {
      const generated = await datasource.store.sql({ ...model, editor: 'builder' }, range, data?.request?.intervalMs);
      if (model.sql.trim() === '' || model.sql === generated) {
        change({ editor, sql: generated });
      } else {
        setReplacement({ written: model.sql, generated });
      }
    } catch (error) {
      setProblem(`The SQL of this builder could not be had: ${messageOf(error)}`);
      change({ editor });
    } finally {
      setBusy(false);
    }
  };

  const settle = (sql: string) => {
    setReplacement(undefined);
    change({ editor: 'sql', sql });
  };

  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
      onRunQuery();
    }
  };

  return (
    // A text box inside commits (and so runs) what was typed; its event only comes up here when there was nothing new.
    <div data-testid="quiver-query-editor" onKeyDown={onKeyDown}>
      <Stack direction="column" gap={1}>
        <Stack direction="row" gap={1} alignItems="center" wrap="wrap">
          <RadioButtonGroup<EditorMode>
            aria-label="Editor mode"
            data-testid="quiver-editor-mode"
            size="sm"
            value={model.editor}
            options={MODES}
            disabled={busy}
            onChange={switchTo}
          />
          <InlineField label="Format" transparent>
            <Picker
              label="Format"
              testId="quiver-format"
              minWidth={22}
              value={model.format}
              options={FORMATS}
              onChange={(format) => {
                change({ format: format as Format });
                onRunQuery();
              }}
            />
          </InlineField>
          {model.widen !== undefined && (
            <InlineField
              label="Widened by"
              transparent
              tooltip="The time range is widened by this much on both sides; a link from a trace does so. Empty it to keep to the range."
            >
              <TextBox
                label="Widened by"
                testId="quiver-widen"
                width={10}
                value={model.widen}
                onCommit={(widen) => {
                  onChange({ ...query, widen: widen.trim() || undefined });
                  onRunQuery();
                }}
              />
            </InlineField>
          )}
          {range && <Download address={(format) => datasource.exportAddress(query, range, format)} />}
          {app !== CoreApp.Explore && (
            <Button
              size="sm"
              variant="secondary"
              icon={data?.state === LoadingState.Loading ? 'spinner' : 'play'}
              data-testid="quiver-run"
              tooltip="Ctrl/Cmd + Enter"
              onClick={onRunQuery}
            >
              Run query
            </Button>
          )}
        </Stack>
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
          <CodeEditor value={model.sql} sources={sources} onChange={(sql) => change({ sql })} onRun={onRunQuery} />
        )}
        {model.editor === 'sql' && (
          <BesideSql
            model={model}
            store={datasource.store}
            range={range}
            variables={variables}
            onChange={({ sql = model.sql, filters }) => onChange({ ...query, sql, filters })}
            onRun={onRunQuery}
          />
        )}
      </Stack>
      {replacement && (
        <ConfirmModal
          isOpen
          title="There is SQL text already"
          body="You can keep it, or take the SQL of the builder in its place."
          confirmText="Keep my SQL"
          confirmVariant="primary"
          confirmButtonVariant="primary"
          alternativeText="Use the builder's SQL"
          onConfirm={() => settle(replacement.written)}
          onAlternative={() => settle(replacement.generated)}
          onDismiss={() => setReplacement(undefined)}
        />
      )}
    </div>
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
