/** Queries that work on any store: what the cheat sheet shows, and where one starts from. Not a list of features. */
import { PartialModel } from './model';

export interface Example {
  title: string;
  text: string;
  query: PartialModel;
}

const builder = (parts: NonNullable<PartialModel['builder']>): PartialModel => ({ editor: 'builder', builder: parts });
const sql = (text: string, format: PartialModel['format'] = 'auto'): PartialModel => ({
  editor: 'sql',
  sql: text,
  format,
});

export const EXAMPLES: Array<{ title: string; examples: Example[] }> = [
  {
    title: 'Lines',
    examples: [
      {
        title: 'Everything that went wrong',
        text: 'Lines of level error or fatal, the newest first.',
        query: builder({ filters: [{ field: 'level', op: 'in', values: ['error', 'fatal'] }] }),
      },
      {
        title: 'A word in the message',
        text: 'contains is exact and uses the index; matches takes a regular expression.',
        query: builder({ search: [{ op: 'contains', text: 'declined' }] }),
      },
      {
        title: 'Lines that belong to a trace',
        text: 'Each has a link to its trace.',
        query: builder({ filters: [{ field: 'trace_id', op: 'exists' }] }),
      },
      {
        title: 'The same in SQL',
        text: '$__timeFilter keeps to the time range on the screen; order and limit are added where they are missing.',
        query: sql("SELECT *\nFROM logs\nWHERE $__timeFilter(timestamp)\n  AND level IN ('error', 'fatal')"),
      },
      {
        title: 'Whole lines, as they were sent',
        text: '_line is the line byte for byte, where the message is only what it says.',
        query: sql('SELECT * EXCEPT (message), _line AS message\nFROM logs\nWHERE $__timeFilter(timestamp)'),
      },
    ],
  },
  {
    title: 'Numbers',
    examples: [
      {
        title: 'Lines per level over time',
        text: 'One series for each level.',
        query: builder({ aggregate: { function: 'count' }, groupBy: ['level'] }),
      },
      {
        title: 'Share of errors, in percent',
        text: 'FILTER counts only some of the lines.',
        query: sql(
          "SELECT $__timeGroup(timestamp, $__interval) AS time,\n  100.0 * count(*) FILTER (WHERE level IN ('error', 'fatal')) / count(*) AS errors\nFROM logs\nWHERE $__timeFilter(timestamp)\nGROUP BY 1\nORDER BY 1",
          'series'
        ),
      },
      {
        title: 'The services that log most',
        text: 'A table.',
        query: sql(
          'SELECT service, count(*) AS lines, count(DISTINCT trace_id) AS traces\nFROM logs\nWHERE $__timeFilter(timestamp)\nGROUP BY service\nORDER BY lines DESC\nLIMIT 20',
          'table'
        ),
      },
      {
        title: 'The messages that come most often',
        text: 'Digits are taken out, so that lines of one kind count together.',
        query: sql(
          "SELECT regexp_replace(message, '[0-9]+', '#', 'g') AS message_kind, count(*) AS lines\nFROM logs\nWHERE $__timeFilter(timestamp)\nGROUP BY 1\nORDER BY 2 DESC\nLIMIT 20",
          'table'
        ),
      },
    ],
  },
];
