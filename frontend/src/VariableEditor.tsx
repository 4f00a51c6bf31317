/**
 * The editor of a query variable: names of fields, values of one field, or SQL. What they answer is variableSupport.ts.
 */
import { QueryEditorProps } from '@grafana/data';
import { Field, RadioButtonGroup, Stack } from '@grafana/ui';

import { CodeEditor } from './CodeEditor';
import type { QuiverDatasource } from './datasource';
import { fieldOptions, FilterRows } from './FilterRows';
import { Filter } from './model';
import { Picker, TextBox } from './Picker';
import { useSources } from './QueryEditor';
import { QuiverOptions, QuiverQuery, VariableQuery } from './types';

export type Props = QueryEditorProps<QuiverDatasource, QuiverQuery, QuiverOptions, VariableQuery>;

const KINDS = [
  { value: 'values' as const, label: 'Values of a field' },
  { value: 'fields' as const, label: 'Names of fields' },
  { value: 'sql' as const, label: 'SQL' },
];

export function VariableEditor({ query, datasource, range, onChange }: Props) {
  const current: VariableQuery = { ...query, refId: query.refId || 'variable', kind: query.kind ?? 'values' };
  const change = (patch: Partial<VariableQuery>) => onChange({ ...current, ...patch });
  const sources = useSources(datasource, range);
  const variables = datasource.templates.getVariables().map((variable) => variable.name);
  return (
    <Stack direction="column" gap={1} data-testid="quiver-variable-editor">
      <Field noMargin label="Values from">
        <RadioButtonGroup
          aria-label="Values from"
          data-testid="quiver-variable-kind"
          value={current.kind}
          options={KINDS}
          onChange={(kind) => change({ kind })}
        />
      </Field>
      {current.kind === 'values' && (
        <>
          <Field noMargin label="Field" description="Its values, the most frequent first.">
            <Picker
              label="Field"
              testId="quiver-variable-field"
              placeholder="Field"
              custom
              minWidth={24}
              value={current.field || null}
              options={fieldOptions(datasource.store, range, ({ type }) => type !== 'time')}
              onChange={(field) => change({ field })}
            />
          </Field>
          <Field noMargin label="Filters" description="Only values of lines that match. May use other variables.">
            <FilterRows
              filters={(current.filters ?? []).map((filter): Filter => ({ ...EMPTY_FILTER, ...filter }))}
              store={datasource.store}
              range={range}
              variables={variables}
              onChange={(filters) => change({ filters })}
            />
          </Field>
          <Field noMargin label="Limit" description="Values at most.">
            <TextBox
              label="Limit"
              testId="quiver-variable-limit"
              type="number"
              min={1}
              width={14}
              placeholder="1000"
              value={current.limit ? String(current.limit) : ''}
              onCommit={(text) => change({ limit: Math.floor(Number(text)) || undefined })}
            />
          </Field>
        </>
      )}
      {current.kind === 'sql' && (
        <Field
          noMargin
          label="SQL"
          description="The first column gives the values; or name two columns __text and __value. Leave the box to apply."
        >
          <CodeEditor
            value={current.sql ?? ''}
            sources={sources}
            height={120}
            onChange={(sql) => change({ sql })}
            onRun={() => undefined}
          />
        </Field>
      )}
    </Stack>
  );
}

const EMPTY_FILTER: Filter = { field: '', op: '=', value: '', values: [] };
