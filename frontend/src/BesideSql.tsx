/**
 * What stands beside SQL text: the filters that were set from lines and by hand. They apply to the text's lines, and can
 * be written into the text, which the backend does by its syntax tree.
 * Invariant: a filter that applies is seen.
 */
import { TimeRange } from '@grafana/data';
import { Alert, Button, InlineLabel, Stack } from '@grafana/ui';
import { useState } from 'react';

import { FilterRows } from './FilterRows';
import { Filter, isCompleteFilter, QueryModel } from './model';
import { messageOf, Store } from './store';

export interface Props {
  model: QueryModel;
  store: Store;
  range?: TimeRange;
  /** Template variables, without the dollar sign. */
  variables: string[];
  onChange: (patch: Pick<QueryModel, 'filters'> & Partial<Pick<QueryModel, 'sql'>>) => void;
  onRun: () => void;
}

export function BesideSql({ model, store, range, variables, onChange, onRun }: Props) {
  const [problem, setProblem] = useState<string>();
  const filters = model.filters ?? [];
  if (filters.length === 0) {
    return null;
  }
  const change = (changed: Filter[]) => {
    onChange({ filters: changed });
    if (changed.every(isCompleteFilter)) {
      onRun();
    }
  };
  const write = async () => {
    try {
      const sql = await store.editSql(model.sql, filters);
      setProblem(undefined);
      onChange({ filters: [], sql });
      onRun();
    } catch (error) {
      setProblem(messageOf(error));
    }
  };
  return (
    <Stack direction="column" gap={1} data-testid="quiver-beside-sql">
      <Stack direction="row" gap={1} wrap="wrap" alignItems="center">
        <InlineLabel
          width="auto"
          transparent
          tooltip="Filters set from a line's details. They narrow the lines of the SQL above when it runs."
        >
          And only lines with
        </InlineLabel>
        <Button
          size="sm"
          variant="secondary"
          icon="arrow-up"
          tooltip="Puts the conditions into the WHERE of the SQL, and takes them from here"
          data-testid="quiver-write-filters"
          onClick={write}
        >
          Write into the SQL
        </Button>
      </Stack>
      <FilterRows filters={filters} store={store} range={range} variables={variables} onChange={change} />
      {problem && <Alert title={problem} severity="warning" onRemove={() => setProblem(undefined)} />}
    </Stack>
  );
}
