/**
 * Conditions on fields, one row each: field, operator, value. Names and values come from the store as one types.
 * Used by the builder and by the variable editor.
 */
import { TimeRange } from '@grafana/data';
import { Button, ComboboxOption, IconButton, Stack } from '@grafana/ui';
import { useState } from 'react';

import { Filter, FilterOp, isCompleteFilter, isListOp, isPresenceOp } from './model';
import { MultiPicker, Picker, TextBox } from './Picker';
import { Store } from './store';
import { Column } from './types';

export interface Props {
  filters: Filter[];
  store: Store;
  range?: TimeRange;
  /** Template variables, without the dollar sign. */
  variables: string[];
  onChange: (filters: Filter[]) => void;
}

const OPS: Array<ComboboxOption<FilterOp>> = [
  { value: '=', label: '=' },
  { value: '!=', label: '≠' },
  { value: 'in', label: 'is one of' },
  { value: '!in', label: 'is none of' },
  { value: 'contains', label: 'contains' },
  { value: '!contains', label: 'not contains' },
  { value: '=~', label: 'matches' },
  { value: '!~', label: 'not matches' },
  { value: '<', label: '<' },
  { value: '<=', label: '≤' },
  { value: '>', label: '>' },
  { value: '>=', label: '≥' },
  { value: 'exists', label: 'exists' },
  { value: '!exists', label: 'is absent' },
];

const PATTERN_OR_NUMBER: FilterOp[] = ['=~', '!~', 'contains', '!contains', '<', '<=', '>', '>='];

export function FilterRows({ filters, store, range, variables, onChange }: Props) {
  // Whoever adds a row goes on in it; with keys alone it would be behind them.
  const [added, setAdded] = useState<number>();
  const replace = (index: number, filter: Filter) => onChange(filters.map((old, at) => (at === index ? filter : old)));
  const remove = (index: number) => onChange(filters.filter((_, at) => at !== index));
  return (
    <Stack direction="row" gap={1} wrap="wrap" alignItems="center">
      {filters.map((filter, index) => (
        <FilterRow
          key={index}
          number={index + 1}
          filter={filter}
          autoFocus={index === added}
          store={store}
          range={range}
          variables={variables}
          others={filters.filter((other, at) => at !== index && isCompleteFilter(other))}
          onChange={(changed) => replace(index, changed)}
          onRemove={() => remove(index)}
        />
      ))}
      <Button
        icon="plus"
        variant="secondary"
        fill="outline"
        aria-label="Add filter"
        tooltip="Add a filter on a field"
        data-testid="quiver-filter-add"
        onClick={() => {
          setAdded(filters.length);
          onChange([...filters, { field: '', op: '=', value: '', values: [] }]);
        }}
      />
    </Stack>
  );
}

interface RowProps extends Omit<Props, 'filters' | 'onChange'> {
  number: number;
  filter: Filter;
  autoFocus: boolean;
  others: Filter[];
  onChange: (filter: Filter) => void;
  onRemove: () => void;
}

function FilterRow({ number, filter, autoFocus, others, store, range, variables, onChange, onRemove }: RowProps) {
  const testId = (part: string) => `quiver-filter-${number}-${part}`;
  const loadValues = async (typed: string) => {
    const named = variables.filter((name) => `$${name}`.includes(typed)).map(variableOption);
    if (filter.field === '') {
      return named;
    }
    const values = await store.values(filter.field, { range, filters: others, contains: typed }).catch(() => []);
    return [
      ...values.map(({ value, count }) => ({
        value,
        label: value,
        description: `${count.toLocaleString('en')} lines`,
      })),
      ...named,
    ];
  };
  return (
    <Stack direction="row" gap={0} wrap="wrap" alignItems="center" data-testid={testId('row')}>
      <Picker
        label={`Field of filter ${number}`}
        testId={testId('field')}
        placeholder="Field"
        custom
        autoFocus={autoFocus}
        value={filter.field || null}
        options={fieldOptions(store, range)}
        onChange={(field) => onChange({ ...filter, field })}
      />
      <Picker
        label={`Operator of filter ${number}`}
        testId={testId('op')}
        minWidth={14}
        maxWidth={18}
        value={filter.op}
        options={OPS}
        onChange={(op) => onChange(withOp(filter, op as FilterOp))}
      />
      {isListOp(filter.op) && (
        <MultiPicker
          label={`Values of filter ${number}`}
          testId={testId('values')}
          placeholder="Values"
          custom
          value={filter.values}
          options={loadValues}
          onChange={(values) => onChange({ ...filter, values })}
        />
      )}
      {PATTERN_OR_NUMBER.includes(filter.op) && (
        <TextBox
          label={`Value of filter ${number}`}
          testId={testId('value')}
          placeholder={filter.op === '=~' || filter.op === '!~' ? 'Regular expression' : 'Value'}
          width={24}
          value={filter.value}
          onCommit={(value) => onChange({ ...filter, value })}
        />
      )}
      {(filter.op === '=' || filter.op === '!=') && (
        <Picker
          label={`Value of filter ${number}`}
          testId={testId('value')}
          placeholder="Value"
          custom
          minWidth={16}
          value={filter.value || null}
          options={loadValues}
          onChange={(value) => onChange({ ...filter, value })}
        />
      )}
      <IconButton
        name="times"
        size="lg"
        aria-label={`Remove filter ${number}`}
        tooltip="Remove this filter"
        data-testid={testId('remove')}
        onClick={onRemove}
      />
    </Stack>
  );
}

/** A value goes along when the operator changes, where the new one can read it. */
export function withOp(filter: Filter, op: FilterOp): Filter {
  if (isPresenceOp(op)) {
    return { ...filter, op, value: '', values: [] };
  }
  if (isListOp(op)) {
    const values = filter.values.length > 0 ? filter.values : filter.value === '' ? [] : [filter.value];
    return { ...filter, op, value: '', values };
  }
  return { ...filter, op, value: filter.value || (filter.values[0] ?? ''), values: [] };
}

/** Loads the columns once; `only` narrows them to those that make sense. */
export function fieldOptions(store: Store, range?: TimeRange, only: (column: Column) => boolean = () => true) {
  return async (typed: string): Promise<Array<ComboboxOption<string>>> => {
    const columns = await store.columns(range).catch(() => []);
    const wanted = typed.toLowerCase();
    return columns
      .filter((column) => only(column) && column.name.toLowerCase().includes(wanted))
      .map(({ name, type }) => ({ value: name, label: name, description: type }));
  };
}

function variableOption(name: string): ComboboxOption<string> {
  return { value: `$${name}`, label: `$${name}`, description: 'variable' };
}
