/**
 * The SQL text box: Grafana's Monaco with completion and documentation from the store. What can be completed where is
 * completion.ts; this file only speaks Monaco.
 */
import { css } from '@emotion/css';
import { GrafanaTheme2 } from '@grafana/data';
import { CodeEditor as MonacoCodeEditor, Monaco, MonacoEditor, monacoTypes, useStyles2 } from '@grafana/ui';
import { useEffect, useRef, useState } from 'react';

import { complete, Completion, CompletionKind, CompletionSources, documentationOf, replacedLength } from './completion';
import { Problem } from './types';

export interface Props {
  value: string;
  sources: CompletionSources;
  /** Underlined; places in the text as it is typed. */
  problems?: Problem[];
  /** At each key, with the text so far. */
  onType?: (sql: string) => void;
  /** The text laid out, for the editor's own command. */
  layout?: (sql: string) => Promise<string>;
  onChange: (sql: string) => void;
  onRun: () => void;
  height?: number;
  label?: string;
}

const LINES_MIN = 5;
const LINES_MAX = 22;
const LINE_PX = 19;
const OWNER = 'quiver';

const OPTIONS = {
  fontSize: 13,
  lineNumbersMinChars: 3,
  padding: { top: 6, bottom: 6 },
  scrollBeyondLastLine: false,
  fixedOverflowWidgets: true,
  wordBasedSuggestions: false,
  quickSuggestions: { other: true, strings: true, comments: false },
} as const;

export function CodeEditor(props: Props) {
  const { value, sources, problems, onType, layout, onChange, onRun, label = 'SQL' } = props;
  const styles = useStyles2(getStyles);
  // Monaco keeps the functions it was mounted with; they must see the props of now.
  const latest = useRef({ sources, onChange, onRun, value, layout });
  useEffect(() => {
    latest.current = { sources, onChange, onRun, value, layout };
  });
  const [mounted, setMounted] = useState<{ editor: MonacoEditor; monaco: Monaco }>();
  useEffect(() => {
    const model = mounted?.editor.getModel();
    if (mounted && model) {
      mounted.monaco.editor.setModelMarkers(model, OWNER, (problems ?? []).map(toMarker(model, mounted.monaco)));
    }
  }, [mounted, problems]);
  const dispose = useRef<() => void>(() => undefined);
  useEffect(() => () => dispose.current(), []);

  const commit = (sql: string) => {
    if (sql !== latest.current.value) {
      latest.current.onChange(sql);
    }
  };

  const onMount = (editor: MonacoEditor, monaco: Monaco) => {
    editor.updateOptions({ ariaLabel: label });
    editor.addAction({
      id: 'quiver-run-query',
      label: 'Run query',
      keybindings: [monaco.KeyMod.CtrlCmd | monaco.KeyCode.Enter],
      run: () => {
        commit(editor.getValue());
        latest.current.onRun();
      },
    });
    const disposables = [
      ...registerLanguageSupport(editor, monaco, () => latest.current.sources),
      registerFixes(editor, monaco),
      registerLayout(editor, monaco, () => latest.current.layout),
    ];
    dispose.current = () => disposables.forEach((disposable) => disposable.dispose());
    setMounted({ editor, monaco });
  };

  const onBlur = (sql: string) => {
    const changed = sql !== latest.current.value;
    commit(sql);
    if (changed) {
      onRun();
    }
  };

  return (
    <div data-testid="quiver-sql-editor" aria-label={label} role="group" className={styles.box}>
      <MonacoCodeEditor
        language="sql"
        value={value}
        height={props.height ?? heightOf(value)}
        showMiniMap={false}
        showLineNumbers
        wordWrap
        monacoOptions={OPTIONS}
        onBlur={onBlur}
        onChange={onType}
        onSave={commit}
        onEditorDidMount={onMount}
      />
    </div>
  );
}

/** Tall enough for the text, within bounds. */
function heightOf(text: string): number {
  return Math.min(LINES_MAX, Math.max(LINES_MIN, text.split('\n').length + 1)) * LINE_PX + 12;
}

function toMarker(model: monacoTypes.editor.ITextModel, monaco: Monaco) {
  return ({ from, to, message, instead }: Problem): monacoTypes.editor.IMarkerData => {
    const [start, end] = [model.getPositionAt(from), model.getPositionAt(Math.max(to, from + 1))];
    return {
      severity: monaco.MarkerSeverity.Error,
      message,
      startLineNumber: start.lineNumber,
      startColumn: start.column,
      endLineNumber: end.lineNumber,
      endColumn: end.column,
      tags: [],
      // The fixes travel with the mark.
      code: JSON.stringify(instead),
    };
  };
}

/** "Did you mean" as Monaco's quick fixes (Ctrl+.). */
function registerFixes(editor: MonacoEditor, monaco: Monaco) {
  return monaco.languages.registerCodeActionProvider('sql', {
    provideCodeActions: (model, _range, context) => {
      const marks = model === editor.getModel() ? context.markers.filter((mark) => typeof mark.code === 'string') : [];
      const actions = marks.flatMap((mark) =>
        (JSON.parse(String(mark.code)) as string[]).map((text) => ({
          title: `Use ${text}`,
          kind: 'quickfix',
          diagnostics: [mark],
          isPreferred: true,
          edit: {
            edits: [{ resource: model.uri, versionId: undefined, textEdit: { range: monaco.Range.lift(mark), text } }],
          },
        }))
      );
      return { actions, dispose: () => undefined };
    },
  });
}

function registerLayout(editor: MonacoEditor, monaco: Monaco, layout: () => Props['layout']) {
  return monaco.languages.registerDocumentFormattingEditProvider('sql', {
    provideDocumentFormattingEdits: async (model) => {
      const lay = layout();
      if (model !== editor.getModel() || !lay) {
        return [];
      }
      // Text that cannot be laid out yet stays as it is; what is wrong with it is underlined.
      const text = await lay(model.getValue()).catch(() => undefined);
      return text === undefined ? [] : [{ range: model.getFullModelRange(), text }];
    },
  });
}

/** Providers belong to a language, not to an editor: each answers for its own text only. */
function registerLanguageSupport(editor: MonacoEditor, monaco: Monaco, sources: () => CompletionSources) {
  const completions = monaco.languages.registerCompletionItemProvider('sql', {
    triggerCharacters: ['$', '"', "'", '.', '(', ' '],
    provideCompletionItems: async (model, position) => {
      if (model !== editor.getModel()) {
        return { suggestions: [] };
      }
      const before = model.getValueInRange({
        startLineNumber: 1,
        startColumn: 1,
        endLineNumber: position.lineNumber,
        endColumn: position.column,
      });
      const items = await complete(before, sources());
      const after = model.getLineContent(position.lineNumber)[position.column - 1];
      const range = {
        startLineNumber: position.lineNumber,
        endLineNumber: position.lineNumber,
        // A literal that began on an earlier line is replaced from the start of this one.
        startColumn: Math.max(1, position.column - replacedLength(before)),
        endColumn: position.column,
      };
      return {
        suggestions: items.map((item, index) => toSuggestion(item, index, overClosing(item, range, after), monaco)),
      };
    },
  });
  const hovers = monaco.languages.registerHoverProvider('sql', {
    provideHover: async (model, position) => {
      const word = model === editor.getModel() ? wordAt(model, position) : undefined;
      const found = word && (await documentationOf(word, sources()));
      return found
        ? { contents: [{ value: `**${found.label}** ${found.detail}` }, { value: found.documentation }] }
        : null;
    },
  });
  return [completions, hovers];
}

/** Monaco closes a quote as soon as one is typed: an item that brings its own closing quote goes over that one. */
function overClosing(item: Completion, range: monacoTypes.IRange, after: string | undefined): monacoTypes.IRange {
  const closes = item.insertText.endsWith('"') && !item.insertText.startsWith('"');
  return closes && after === '"' ? { ...range, endColumn: range.endColumn + 1 } : range;
}

/** The word under the cursor, with the dollar sign before it, which Monaco takes for punctuation. */
function wordAt(model: monacoTypes.editor.ITextModel, position: monacoTypes.Position): string | undefined {
  const word = model.getWordAtPosition(position);
  if (!word) {
    return undefined;
  }
  const isMacro = model.getLineContent(position.lineNumber)[word.startColumn - 2] === '$';
  return isMacro ? `$${word.word}` : word.word;
}

function toSuggestion(
  item: Completion,
  index: number,
  range: monacoTypes.IRange,
  monaco: Monaco
): monacoTypes.languages.CompletionItem {
  const kinds = monaco.languages.CompletionItemKind;
  const kindOf: Record<CompletionKind, monacoTypes.languages.CompletionItemKind> = {
    column: kinds.Field,
    value: kinds.Value,
    function: kinds.Function,
    macro: kinds.Snippet,
    variable: kinds.Variable,
    keyword: kinds.Keyword,
    table: kinds.Struct,
  };
  const isSnippet = item.kind === 'macro' || item.kind === 'function' || item.kind === 'variable';
  return {
    label: item.label,
    kind: kindOf[item.kind],
    insertText: item.insertText,
    detail: item.detail,
    documentation: item.documentation,
    range,
    // The order they come in: columns first, keywords last.
    sortText: String(index).padStart(6, '0'),
    ...(isSnippet ? { insertTextRules: monaco.languages.CompletionItemInsertTextRule.InsertAsSnippet } : {}),
  };
}

function getStyles(theme: GrafanaTheme2) {
  return {
    box: css({
      border: `1px solid ${theme.colors.border.medium}`,
      borderRadius: theme.shape.radius.default,
      width: '100%',
      '&:focus-within': { borderColor: theme.colors.primary.border },
    }),
  };
}
