/**
 * What the lines around a line must have in common with it: chosen in the context view, above the lines.
 * Invariant: a choice lasts as long as the view that it was made in.
 */
import { LogRowModel } from '@grafana/data';
import { InlineField } from '@grafana/ui';
import { useEffect, useMemo, useState } from 'react';

import { streamFilters } from './logContext';
import { Filter } from './model';
import { MultiPicker } from './Picker';

export interface Props {
  row: LogRowModel;
  /** Told what was chosen, and nothing when the view is closed. It has to stay the same function. */
  onChoose: (filters: Filter[] | undefined) => void;
  onRun?: () => void;
}

export function ContextFilters({ row, onChoose, onRun }: Props) {
  const own = useMemo(() => streamFilters(row).map((filter) => filter.field), [row]);
  const [fields, setFields] = useState(own);
  useEffect(() => {
    onChoose(streamFilters(row, own));
    return () => onChoose(undefined);
  }, [onChoose, row, own]);
  const options = Object.keys(row.labels).map((field) => ({ value: field, label: `${field} = ${row.labels[field]}` }));
  const change = (chosen: string[]) => {
    setFields(chosen);
    onChoose(streamFilters(row, chosen));
    onRun?.();
  };
  return (
    <InlineField label="Lines with the same" transparent grow data-testid="quiver-context-filters">
      <MultiPicker
        label="Fields that the lines around have in common with this one"
        testId="quiver-context-fields"
        placeholder="Any line of the store"
        value={fields}
        options={async (typed) => options.filter((option) => option.label.toLowerCase().includes(typed.toLowerCase()))}
        onChange={change}
      />
    </InlineField>
  );
}
