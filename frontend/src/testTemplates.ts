/** Template variables for tests: Grafana's rules of replacement over a given set of variables. */
import { ScopedVars, TypedVariableModel } from '@grafana/data';

import { Templates } from './variables';

type Value = string | number | string[];

export interface TestVariable {
  name: string;
  value: Value;
  multi?: boolean;
  includeAll?: boolean;
  /** What `$__all` stands for. */
  options?: string[];
}

export function templates(...variables: TestVariable[]): Templates {
  const find = (name: string) => variables.find((variable) => variable.name === name);
  return {
    getVariables: () =>
      variables.map(
        ({ name, value, ...rest }) =>
          ({ name, type: 'query', current: { value }, ...rest }) as unknown as TypedVariableModel
      ),
    replace: (target = '', scopedVars: ScopedVars = {}, format?: string | Function) =>
      target.replace(
        /\$(\w+)|\$\{(\w+)(?::(\w+))?\}|\[\[(\w+)\]\]/g,
        (match: string, plain?: string, braced?: string, explicit?: string, square?: string) => {
          const name = plain ?? braced ?? square ?? '';
          const variable = find(name);
          const scoped = scopedVars[name];
          if (!variable && !scoped) {
            return match;
          }
          const isAll = [variable?.value].flat().includes('$__all');
          const value: Value = scoped ? scoped.value : isAll ? (variable?.options ?? []) : (variable?.value ?? '');
          if (typeof format === 'function' && explicit === undefined) {
            return format(value, variable ?? { name });
          }
          return explicit === 'csv' || explicit === 'raw' || !Array.isArray(value)
            ? [value].flat().join(',')
            : `{${value.join(',')}}`;
        }
      ),
  };
}
