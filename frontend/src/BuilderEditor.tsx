/**
 * The builder: conditions, what to show, and how much of it, without a word of SQL.
 * Invariant: everything on the screen is in the model; there is no state of its own beside texts being typed.
 */
import { css } from '@emotion/css';
import { TimeRange } from '@grafana/data';
import { Button, ComboboxOption, IconButton, InlineField, InlineLabel, RadioButtonGroup, Stack } from '@grafana/ui';
import { ComponentProps, ReactNode, useState } from 'react';

import { fieldOptions, FilterRows } from './FilterRows';
import {
  Aggregate,
  AggregateFunction,
  Builder,
  DEFAULT_QUANTILE,
  Direction,
  isCompleteFilter,
  needsField,
  Search,
  SearchOp,
} from './model';
import { MultiPicker, Picker, TextBox } from './Picker';
import { Store } from './store';

export interface Props {
  builder: Builder;
  store: Store;
  range?: TimeRange;
  variables: string[];
  defaultLimit: number;
  onChange: (builder: Builder) => void;
  onRun: () => void;
}

const LINES = 'lines';

const SHOW: Array<ComboboxOption<string>> = [
  { value: LINES, label: 'Log lines', description: 'the lines themselves' },
  { value: 'count', label: 'Count', description: 'lines per bucket' },
  { value: 'rate', label: 'Rate', description: 'lines per second' },
  { value: 'sum', label: 'Sum', description: 'of a numeric field' },
  { value: 'avg', label: 'Average', description: 'of a numeric field' },
  { value: 'min', label: 'Minimum', description: 'of a numeric field' },
  { value: 'max', label: 'Maximum', description: 'of a numeric field' },
  { value: 'quantile', label: 'Quantile', description: 'such as p95 of a numeric field' },
  { value: 'count_distinct', label: 'Count distinct', description: 'different values of a field' },
];

const SEARCH_OPS: Array<ComboboxOption<SearchOp>> = [
  { value: 'contains', label: 'contains' },
  { value: '!contains', label: 'not contains' },
  { value: '=~', label: 'matches' },
  { value: '!~', label: 'not matches' },
];

const DIRECTIONS = [
  { value: 'backward' as const, label: 'Newest first', description: 'Where the limit cuts, the newest lines stay' },
  { value: 'forward' as const, label: 'Oldest first', description: 'Where the limit cuts, the oldest lines stay' },
];

const LABEL_WIDTH = 10;

export function BuilderEditor({ builder, store, range, variables, defaultLimit, onChange, onRun }: Props) {
  const change = (patch: Partial<Builder>) => onChange({ ...builder, ...patch });
  const changeAndRun = (patch: Partial<Builder>) => {
    change(patch);
    onRun();
  };
  return (
    <Stack direction="column" gap={1}>
      <Row label="Filters" tooltip="Conditions on fields. All of them must hold.">
        <FilterRows
          filters={builder.filters}
          store={store}
          range={range}
          variables={variables}
          onChange={(filters) =>
            // A row that is still being written changes nothing yet.
            complete(filters) === complete(builder.filters) ? change({ filters }) : changeAndRun({ filters })
          }
        />
      </Row>
      <Row
        label="Text"
        tooltip="Conditions on the message of the line. All of them must hold; contains is case-sensitive."
      >
        <SearchRows
          search={builder.search}
          onChange={(search) =>
            search.filter(hasText).length === 0 && builder.search.filter(hasText).length === 0
              ? change({ search })
              : changeAndRun({ search })
          }
        />
      </Row>
      <Row label="Show" tooltip="The lines themselves, or a number made of them.">
        <AggregateFields builder={builder} store={store} range={range} onChange={changeAndRun} />
      </Row>
      <Row label="Options">
        <LimitFields builder={builder} defaultLimit={defaultLimit} onChange={changeAndRun} />
      </Row>
    </Stack>
  );
}

function complete(filters: Builder['filters']): string {
  return JSON.stringify(filters.filter(isCompleteFilter));
}

function hasText(search: Search): boolean {
  return search.text !== '';
}

/** Grafana's inline field without the margin that puts it out of line with its neighbours. */
function Labelled(props: ComponentProps<typeof InlineField>) {
  return <InlineField {...props} className={flush} />;
}

const flush = css({ margin: 0 });

function Row({ label, tooltip, children }: { label: string; tooltip?: string; children: ReactNode }) {
  return (
    <Stack direction="row" gap={0.5} alignItems="flex-start">
      <InlineLabel width={LABEL_WIDTH} tooltip={tooltip}>
        {label}
      </InlineLabel>
      <Stack direction="row" gap={1} wrap="wrap" alignItems="center" flex={1}>
        {children}
      </Stack>
    </Stack>
  );
}

function SearchRows({ search, onChange }: { search: Search[]; onChange: (search: Search[]) => void }) {
  // Whoever adds a row goes on in it; with keys alone it would be behind them.
  const [added, setAdded] = useState<number>();
  const replace = (index: number, changed: Search) => onChange(search.map((old, at) => (at === index ? changed : old)));
  return (
    <>
      {search.map((item, index) => (
        <Stack key={index} direction="row" gap={0} alignItems="center">
          <Picker
            label={`Operator of text ${index + 1}`}
            testId={`quiver-search-${index + 1}-op`}
            minWidth={16}
            maxWidth={20}
            value={item.op}
            options={SEARCH_OPS}
            onChange={(op) => replace(index, { ...item, op: op as SearchOp })}
          />
          <TextBox
            label={`Text ${index + 1}`}
            testId={`quiver-search-${index + 1}-text`}
            placeholder={item.op === 'contains' || item.op === '!contains' ? 'Text' : 'Regular expression'}
            width={36}
            autoFocus={index === added}
            value={item.text}
            onCommit={(text) => replace(index, { ...item, text })}
          />
          <IconButton
            name="times"
            size="lg"
            aria-label={`Remove text ${index + 1}`}
            tooltip="Remove this condition"
            data-testid={`quiver-search-${index + 1}-remove`}
            onClick={() => onChange(search.filter((_, at) => at !== index))}
          />
        </Stack>
      ))}
      <Button
        icon="plus"
        variant="secondary"
        fill="outline"
        aria-label="Add text condition"
        tooltip="Add a condition on the message"
        data-testid="quiver-search-add"
        onClick={() => {
          setAdded(search.length);
          onChange([...search, { op: 'contains', text: '' }]);
        }}
      />
    </>
  );
}

type PatchProps = { builder: Builder; onChange: (patch: Partial<Builder>) => void };

function AggregateFields({ builder, store, range, onChange }: PatchProps & Pick<Props, 'store' | 'range'>) {
  const { aggregate } = builder;
  const change = (patch: Partial<Aggregate>) => aggregate && onChange({ aggregate: { ...aggregate, ...patch } });
  const isNumeric = aggregate !== null && aggregate.function !== 'count_distinct';
  return (
    <>
      <Picker
        label="Show"
        testId="quiver-aggregate"
        minWidth={22}
        value={aggregate?.function ?? LINES}
        options={SHOW}
        onChange={(chosen) => onChange({ aggregate: aggregateOf(chosen, aggregate) })}
      />
      {aggregate && needsField(aggregate.function) && (
        <Labelled label="of" transparent>
          <Picker
            label="Field to aggregate"
            testId="quiver-aggregate-field"
            placeholder={isNumeric ? 'Numeric field' : 'Field'}
            custom
            invalid={aggregate.field === ''}
            value={aggregate.field || null}
            options={fieldOptions(store, range, ({ type }) => !isNumeric || type === 'integer' || type === 'float')}
            onChange={(field) => change({ field })}
          />
        </Labelled>
      )}
      {aggregate?.function === 'quantile' && (
        <Labelled label="at" transparent tooltip="0.95 is the 95th percentile">
          <TextBox
            label="Quantile, 0 to 1"
            testId="quiver-quantile"
            type="number"
            min={0}
            max={1}
            step="any"
            width={10}
            value={String(aggregate.quantile)}
            onCommit={(text) => change({ quantile: Math.min(1, Math.max(0, Number(text) || 0)) })}
          />
        </Labelled>
      )}
      {aggregate && (
        <>
          <Labelled label="by" transparent tooltip="One series for each value of these fields">
            <MultiPicker
              label="Group by"
              testId="quiver-group-by"
              placeholder="Everything together"
              custom
              value={builder.groupBy}
              options={fieldOptions(store, range, ({ type }) => type !== 'time')}
              onChange={(groupBy) => onChange({ groupBy })}
            />
          </Labelled>
          <Labelled label="every" transparent tooltip="Width of a time bucket, such as 5m">
            <TextBox
              label="Width of a time bucket"
              testId="quiver-step"
              placeholder="auto"
              width={14}
              value={builder.step}
              onCommit={(step) => onChange({ step: step.trim() })}
            />
          </Labelled>
        </>
      )}
    </>
  );
}

function aggregateOf(chosen: string, old: Aggregate | null): Aggregate | null {
  if (chosen === LINES) {
    return null;
  }
  return { field: '', quantile: DEFAULT_QUANTILE, ...old, function: chosen as AggregateFunction };
}

function LimitFields({ builder, defaultLimit, onChange }: PatchProps & { defaultLimit: number }) {
  const isLines = builder.aggregate === null;
  return (
    <>
      <Labelled label="Limit" tooltip={isLines ? 'Lines at most' : 'Series at most'}>
        <TextBox
          label="Limit"
          testId="quiver-limit"
          type="number"
          min={1}
          width={14}
          placeholder={`${defaultLimit}`}
          value={builder.limit === 0 ? '' : String(builder.limit)}
          onCommit={(text) => onChange({ limit: Math.max(0, Math.floor(Number(text) || 0)) })}
        />
      </Labelled>
      {isLines && (
        <Labelled label="Direction" tooltip="Which end of the time range is kept where there are more lines">
          <RadioButtonGroup<Direction>
            aria-label="Direction"
            data-testid="quiver-direction"
            value={builder.direction}
            options={DIRECTIONS}
            onChange={(direction) => onChange({ direction })}
          />
        </Labelled>
      )}
    </>
  );
}
