import { describe as describeQuery } from './describe';
import { normalize } from './model';

it.each([
  [{}, 'lines, no filter'],
  [
    {
      builder: {
        filters: [
          { field: 'service', op: '=', value: 'a' },
          { field: 'level', op: '!in', values: ['debug', 'trace'] },
          { field: 'trace_id', op: 'exists' },
          { field: 'half' },
        ],
        search: [{ text: 'declined' }, { text: '' }],
      },
    },
    'lines where service = "a" and level not in (debug, trace) and trace_id exists and message contains "declined"',
  ],
  [{ builder: { aggregate: { function: 'count' }, groupBy: ['level'] } }, 'count by level, no filter'],
  [{ builder: { aggregate: { function: 'quantile', field: 'ms', quantile: 0.999 } } }, 'p99.9 of ms, no filter'],
  [{ builder: { aggregate: { function: 'count_distinct', field: 'user' } } }, 'count distinct of user, no filter'],
  [{ editor: 'sql', sql: ' SELECT 1 ' }, 'SELECT 1'],
])('%j', (model, expected) => {
  expect(describeQuery(normalize(model))).toBe(expected);
});
