import { DataSourceInstanceSettings } from '@grafana/data';
import { BackendSrv, BackendSrvRequest, setBackendSrv } from '@grafana/runtime';
import { of } from 'rxjs';

import { checkQuery, edited, sizeText } from './checking';
import { QuiverDatasource } from './datasource';
import { normalize } from './model';
import { templates } from './testTemplates';
import { QuiverOptions } from './types';

it('sends the text with its variables in place, and turns the places back', async () => {
  const sql = 'SELECT * FROM logs WHERE service IN ($service) AND bda = 1';
  const sent: string[] = [];
  setBackendSrv({
    fetch: ({ data }: BackendSrvRequest) => {
      sent.push(data.query.sql);
      const from = sent[0].indexOf('bda');
      const value = sent[0].indexOf("'b'");
      const problems = [
        { from, to: from + 3, message: 'no field', instead: [] },
        { from: value, to: value + 3, message: 'in the variable', instead: [] },
      ];
      return of({ data: { problems, hints: [], explanation: [], readsAllTimes: false } });
    },
  } as unknown as BackendSrv);
  const settings = { uid: 'quiver', jsonData: {}, meta: {} } as DataSourceInstanceSettings<QuiverOptions>;
  const datasource = new QuiverDatasource(settings, templates({ name: 'service', value: ['aaaa', 'b'], multi: true }));
  const { problems } = await checkQuery(datasource, normalize({ editor: 'sql', sql }), {});
  expect(sent).toEqual([expect.stringContaining("IN ('aaaa','b') AND")]);
  expect(problems.map(({ from, to }) => sql.slice(from, to))).toEqual(['bda', '$service']);
});

it('edits from the back, so that places stay true', () => {
  const edits = [
    { from: 0, to: 1, text: 'AA' },
    { from: 2, to: 2, text: '!' },
  ];
  expect(edited('abc', edits)).toBe('AAb!c');
});

it.each([
  [0, 0, 'No lines to read in this time range'],
  [9876, 1_200_000, 'Reads at most 9,876 lines, 1.2 MB'],
  [12_345, 999, 'Reads at most about 12.3K lines, 999 B'],
  [3_000_000_000, 4.2e12, 'Reads at most about 3B lines, 4.2 TB'],
])('%d lines of %d bytes', (lines, bytes, expected) => {
  expect(sizeText({ lines, bytes })).toBe(expected);
});
