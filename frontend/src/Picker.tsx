/**
 * The small inputs of the editors: Grafana's own, each with a label that screen readers find, and a text box that speaks
 * when it is left rather than at each key.
 */
import { css } from '@emotion/css';
import { Combobox, ComboboxOption, Input, MultiCombobox } from '@grafana/ui';
import { KeyboardEvent, useId, useState } from 'react';

type Options = Array<ComboboxOption<string>> | ((typed: string) => Promise<Array<ComboboxOption<string>>>);

interface Common {
  label: string;
  testId: string;
  options: Options;
  placeholder?: string;
  /** Whether a text that is not among the options may be taken. */
  custom?: boolean;
  minWidth?: number;
  maxWidth?: number;
  disabled?: boolean;
  invalid?: boolean;
  autoFocus?: boolean;
}

/** What Grafana's two boxes take alike: the label beside them, and widths that follow the text. */
function useCommon({ label, testId, custom = false, minWidth = 16, maxWidth = 40, ...rest }: Common) {
  const id = useId();
  const hiddenLabel = (
    <span id={id} className={hidden}>
      {label}
    </span>
  );
  const common = {
    ...rest,
    'aria-labelledby': id,
    'data-testid': testId,
    createCustomValue: custom,
    width: 'auto' as const,
    minWidth,
    maxWidth,
  };
  return { hiddenLabel, common };
}

export function Picker({
  value,
  onChange,
  ...props
}: Common & { value: string | null; onChange: (value: string) => void }) {
  const { hiddenLabel, common } = useCommon(props);
  return (
    <>
      {hiddenLabel}
      <Combobox {...common} value={value} onChange={(option) => onChange(option.value)} />
    </>
  );
}

export function MultiPicker(props: Common & { value: string[]; onChange: (values: string[]) => void }) {
  const { value, onChange, ...rest } = props;
  const { hiddenLabel, common } = useCommon({ minWidth: 20, maxWidth: 60, ...rest });
  return (
    <>
      {hiddenLabel}
      <MultiCombobox {...common} value={value} onChange={(chosen) => onChange(chosen.map((option) => option.value))} />
    </>
  );
}

export interface TextBoxProps {
  label: string;
  testId: string;
  value: string;
  /** Called when the box is left or Enter is pressed, with a text that differs. */
  onCommit: (value: string) => void;
  placeholder?: string;
  width?: number;
  type?: 'text' | 'number';
  min?: number;
  max?: number;
  step?: number | 'any';
  id?: string;
  invalid?: boolean;
  autoFocus?: boolean;
}

export function TextBox({ label, testId, value, onCommit, ...rest }: TextBoxProps) {
  // null: not being edited, the value given is shown.
  const [draft, setDraft] = useState<string | null>(null);
  const commit = (): boolean => {
    const changed = draft !== null && draft !== value;
    if (changed) {
      onCommit(draft);
    }
    setDraft(null);
    return changed;
  };
  const onKeyDown = (event: KeyboardEvent) => {
    // What is committed runs by itself: Ctrl+Enter must not run it a second time.
    if (event.key === 'Enter' && commit()) {
      event.stopPropagation();
    }
  };
  return (
    <Input
      aria-label={label}
      data-testid={testId}
      value={draft ?? value}
      onChange={(event) => setDraft(event.currentTarget.value)}
      onBlur={commit}
      onKeyDown={onKeyDown}
      {...rest}
    />
  );
}

const hidden = css({
  position: 'absolute',
  width: 1,
  height: 1,
  overflow: 'hidden',
  clipPath: 'inset(50%)',
  whiteSpace: 'nowrap',
});
