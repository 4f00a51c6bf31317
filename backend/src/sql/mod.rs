//! From the query model to SQL text; what the store answers is `frame`'s, and nothing here knows Grafana or a network.
//! Invariant: pure: the same model and context give the same text, and whatever a model holds is quoted or refused.
//!
//! A query selects [`Lines`], by the builder's parts (`builder`) or by SQL of its own (`written`); a statement then
//! shows them, counts them over time (`volume`), or follows them (`tail`). Filters beside SQL text narrow its lines when
//! it runs (`narrow`), and can be written into it (`edit`).

mod builder;
pub mod check;
pub mod conversion;
mod edit;
pub mod editable;
pub mod explain;
pub mod layout;
pub mod literal;
mod macros;
mod narrow;
mod volume;
mod written;

pub use edit::edit;

use crate::model::{Cursor, Direction, Editor, Filter, Function, Purpose, Query};
use crate::settings::LIMIT_MAX;

/// Why a model does not become SQL. The words are for whoever edits the query.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The SQL editor is empty.
    #[error("the query is empty; write SQL such as: SELECT * FROM logs WHERE $__timeFilter()")]
    Empty,
    /// A macro that is unknown or wrongly used.
    #[error("{reason}, {place}")]
    Macro {
        reason: String,
        /// Line and column.
        place: String,
        /// Bytes of the text as typed.
        at: std::ops::Range<usize>,
    },
    /// SQL that can't be rewritten because it can't be read.
    #[error("the query cannot be read: {0}")]
    Parse(String),
    /// SQL whose lines can't be counted or followed.
    #[error("{what} needs a query that {needs}")]
    NotLines { what: &'static str, needs: &'static str },
    /// A step that is no length of time.
    #[error("the step '{0}' is not a length of time; write 30s, 5m or 1h")]
    Step(String),
    /// More points than a page can draw.
    #[error(
        "a step of '{step}' gives {points} points over this range, and {points_max} is the most; choose a longer step"
    )]
    Points { step: String, points: u64, points_max: u64 },
    /// An aggregate of nothing.
    #[error("choose the field for '{}'", serde_json::to_value(.0).unwrap_or_default().as_str().unwrap_or_default())]
    NoField(Function),
    /// A quantile that is none.
    #[error("a quantile lies between 0 and 1, and '{0}' does not")]
    Quantile(f64),
    /// A place to go on from that can't be read.
    #[error("the cursor ('{timestamp_ns}', '{seq}') is not a place between two lines")]
    Cursor { timestamp_ns: String, seq: String },
    /// SQL whose text has no place for a condition.
    #[error("this SQL cannot be changed: {0}")]
    Edit(String),
    /// An operator of another language, or misspelt.
    #[error(
        "the filter on '{field}' has the operator '{op}', which there is not; there are =, !=, contains, !contains, =~, \
         !~, <, <=, >, >=, exists, !exists, in and !in"
    )]
    Operator { field: String, op: String },
    /// A widening that is no length of time.
    #[error("'{0}' is not a length of time to widen the range by; write 30s, 5m or 1h")]
    Widen(String),
}

/// Half-open range of time. **Units**: nanoseconds since the epoch; an end of `i64::MAX` is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First nanosecond.
    pub from_ns: i64,
    /// One past the last.
    pub to_ns: i64,
}

impl Range {
    /// From Grafana's milliseconds; a range without length becomes one of a millisecond.
    pub fn of_ms(from_ms: i64, to_ms: i64) -> Range {
        let from_ns = from_ms.saturating_mul(1_000_000);
        Range { from_ns, to_ns: to_ms.saturating_mul(1_000_000).max(from_ns.saturating_add(1_000_000)) }
    }

    /// Both ends moved outwards.
    pub fn widened(self, ms: u64) -> Range {
        let ns = i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        Range { from_ns: self.from_ns.saturating_sub(ns), to_ns: self.to_ns.saturating_add(ns) }
    }

    fn start_ms(self) -> i64 {
        self.from_ns.div_euclid(1_000_000)
    }

    fn end_ms(self) -> i64 {
        self.to_ns.div_euclid(1_000_000)
    }

    fn length_ms(self) -> u64 {
        (self.to_ns.saturating_sub(self.from_ns).max(0) as u64) / 1_000_000
    }

    fn condition(self, column: &str) -> String {
        let from = format!("{column} >= {}", literal::timestamp(self.from_ns));
        if self.to_ns == i64::MAX {
            return from;
        }
        format!("{from} AND {column} < {}", literal::timestamp(self.to_ns))
    }
}

/// What a model is turned into SQL with.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// The panel's range of time.
    pub range: Range,
    /// The panel's interval.
    pub interval_ms: u64,
    /// Lines when the query does not say.
    pub limit_default: u64,
    /// Points across the panel.
    pub points_max: u64,
}

impl Context {
    fn limit(&self, wanted: u64) -> u64 {
        if wanted == 0 { self.limit_default } else { wanted.min(LIMIT_MAX) }
    }

    fn buckets(&self, step_ms: u64) -> Buckets {
        let step_ns = i64::try_from(step_ms.max(1)).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        let first = self.range.from_ns.div_euclid(step_ns);
        let last = self.range.to_ns.saturating_sub(1).div_euclid(step_ns);
        Buckets { start_ns: first.saturating_mul(step_ns), step_ns, count: (last - first + 1).max(0) as usize }
    }
}

/// The time buckets of a range, as `date_bin` cuts it: aligned to the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buckets {
    /// Start of the first one.
    pub start_ns: i64,
    /// Length of each.
    pub step_ns: i64,
    /// How many.
    pub count: usize,
}

/// What becomes of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// What its columns say.
    Auto,
    /// Log lines.
    Logs,
    /// One series per group; with `fill`, a bucket without a row is a zero. With `groups`, the columns are a time, so
    /// many labels, and the number; without, their types tell.
    Series { fill: Option<Buckets>, groups: Option<usize> },
    /// One number per group. With `groups`, the columns are so many labels and the number.
    Number { groups: Option<usize> },
    /// Rows as they are.
    Table,
    /// Counts per level, every bucket filled.
    Volume { buckets: Buckets },
}

/// SQL to send, and what to make of the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// The text.
    pub sql: String,
    /// What becomes of the answer.
    pub shape: Shape,
    /// Lines at most, where lines are asked for.
    pub limit: Option<u64>,
    /// Behind the limit there may be more lines, and a cursor of this direction goes on to them.
    pub pages: Option<Direction>,
    /// Regular expressions to highlight in the lines.
    pub search_words: Vec<String>,
    /// What the reader should know about how the query was understood.
    pub notices: Vec<String>,
}

impl Statement {
    fn new(sql: String, shape: Shape) -> Statement {
        Statement { sql, shape, limit: None, pages: None, search_words: Vec::new(), notices: Vec::new() }
    }
}

/// The statement of a query. **Errors**: what is wrong with the model, in words for its editor.
pub fn statement(query: &Query, context: &Context) -> Result<Statement, Error> {
    match query.purpose {
        Some(Purpose::LogVolume) => volume::statement(&lines(query, context, "the log volume")?, context),
        Some(Purpose::LogsSample) => {
            let limit = context.limit(query.builder.limit);
            let sql = lines(query, context, "a sample of the lines")?.select(None, Direction::Backward, limit)?;
            Ok(Statement { limit: Some(limit), ..Statement::new(sql, Shape::Logs) })
        }
        Some(Purpose::Tail | Purpose::Context) | None => match query.editor {
            Editor::Builder => builder::statement(query, context),
            Editor::Sql => written::statement(query, context),
        },
    }
}

/// The range of a query: the panel's, widened where the model says so.
pub fn range(query: &Query, range: Range) -> Result<Range, Error> {
    let widen = query.widen.trim();
    if widen.is_empty() {
        return Ok(range);
    }
    literal::duration_ms(widen).map(|ms| range.widened(ms)).ok_or_else(|| Error::Widen(widen.to_owned()))
}

/// The statement that lists a field's values for a picker, the most frequent first. `contains` looks in any case.
pub fn values(
    field: &str,
    range: Range,
    filters: &[Filter],
    contains: Option<&str>,
    limit: u64,
) -> Result<String, Error> {
    let column = literal::identifier(field);
    let mut conditions = vec![range.condition("timestamp"), format!("{column} IS NOT NULL")];
    conditions.extend(builder::filter_conditions(filters)?);
    conditions
        .extend(contains.map(|text| {
            format!("contains(lower(CAST({column} AS VARCHAR)), {})", literal::text(&text.to_lowercase()))
        }));
    let clauses = Lines::of_logs(conditions).clauses(&[]);
    let counted = format!("SELECT {column} AS value, count(*) AS lines\n{clauses}");
    Ok(format!("{counted}\nGROUP BY 1\nORDER BY 2 DESC, 1\nLIMIT {limit}"))
}

/// The statement that counts the lines of a range.
pub fn count(range: Range, filters: &[Filter]) -> Result<String, Error> {
    Ok(format!("SELECT count(*) AS lines\n{}", Lines::of_filters(range, filters)?.clauses(&[])))
}

/// The statement for the mean length of the newest lines, as they were received. **Units**: bytes.
pub fn line_length(range: Range, filters: &[Filter], lines: u64) -> Result<String, Error> {
    let clauses = Lines::of_filters(range, filters)?.clauses(&[]);
    let newest = format!("SELECT _line\n{clauses}\nORDER BY timestamp DESC\nLIMIT {lines}");
    Ok(format!("SELECT avg(octet_length(_line)) AS bytes\nFROM ({newest}) AS newest"))
}

/// The statements that follow a query's lines as they come.
#[derive(Debug, Clone)]
pub struct Tail {
    lines: Lines,
}

impl Tail {
    /// Follows the lines of a query whose timestamps are not before `since_ns`.
    pub fn new(query: &Query, since_ns: i64, context: &Context) -> Result<Tail, Error> {
        let context = Context { range: Range { from_ns: since_ns, to_ns: i64::MAX }, ..*context };
        let shows_lines = match query.editor {
            Editor::Builder => query.builder.aggregate.is_none(),
            Editor::Sql => written::shows_lines(query, &context)?,
        };
        if !shows_lines {
            let needs = "selects lines of 'logs', without aggregates, joins and subqueries";
            return Err(Error::NotLines { what: "live tail", needs });
        }
        let lines = lines(query, &context, "live tail")?;
        Ok(Tail { lines })
    }

    /// Where the store is now.
    pub fn newest(since_ns: i64) -> String {
        let range = Range { from_ns: since_ns, to_ns: i64::MAX };
        format!("SELECT max(_seq) AS seq\nFROM logs\nWHERE {}", range.condition("timestamp"))
    }

    /// The last lines up to a place, the newest first.
    pub fn backfill(&self, upto_seq: i64, limit: usize) -> String {
        let upto = [format!("_seq <= {upto_seq}")];
        let clauses = self.lines.clauses(&upto);
        format!("{}SELECT *, _seq\n{clauses}\nORDER BY timestamp DESC, _seq DESC\nLIMIT {limit}", self.lines.with)
    }

    /// The lines after a place, the newest first, so that a flood leaves out the oldest of them.
    pub fn after(&self, seq: i64, limit: usize) -> String {
        let clauses = self.lines.clauses(&[format!("_seq > {seq}")]);
        format!("{}SELECT *, _seq\n{clauses}\nORDER BY _seq DESC\nLIMIT {limit}", self.lines.with)
    }

    /// How many lines lie strictly between two places.
    pub fn count_between(&self, after_seq: i64, before_seq: i64) -> String {
        let between = [format!("_seq > {after_seq}"), format!("_seq < {before_seq}")];
        format!("{}SELECT count(*) AS lines\n{}", self.lines.with, self.lines.clauses(&between))
    }
}

fn lines(query: &Query, context: &Context, what: &'static str) -> Result<Lines, Error> {
    match query.editor {
        Editor::Builder => builder::lines(&query.builder, context),
        Editor::Sql => written::lines(query, context, what),
    }
}

/// The lines a query is about: where they stand, and what must hold for them.
#[derive(Debug, Clone)]
struct Lines {
    /// `WITH …` and a line end, or nothing.
    with: String,
    /// `logs`, or a subquery.
    from: String,
    /// All of them must hold.
    conditions: Vec<String>,
    /// It is the table itself, with all its columns.
    direct: bool,
    /// There is a column `level`.
    has_level: bool,
}

impl Lines {
    fn of_logs(conditions: Vec<String>) -> Lines {
        Lines { with: String::new(), from: "logs".to_owned(), conditions, direct: true, has_level: true }
    }

    fn of_filters(range: Range, filters: &[Filter]) -> Result<Lines, Error> {
        let mut conditions = vec![range.condition("timestamp")];
        conditions.extend(builder::filter_conditions(filters)?);
        Ok(Lines::of_logs(conditions))
    }

    /// FROM and WHERE.
    fn clauses(&self, extra: &[String]) -> String {
        let conditions: Vec<&str> = extra.iter().chain(&self.conditions).map(String::as_str).collect();
        if conditions.is_empty() {
            return format!("FROM {}", self.from);
        }
        format!("FROM {}\nWHERE {}", self.from, conditions.join("\n  AND "))
    }

    fn select(&self, cursor: Option<&Cursor>, direction: Direction, limit: u64) -> Result<String, Error> {
        let beyond = cursor.map(cursor_condition).transpose()?;
        let order = order(direction);
        let columns = if self.direct { "*, _seq" } else { "*" };
        let order = if self.direct { format!("timestamp {order}, _seq {order}") } else { format!("timestamp {order}") };
        let clauses = self.clauses(beyond.as_slice());
        Ok(format!("{}SELECT {columns}\n{clauses}\nORDER BY {order}\nLIMIT {limit}", self.with))
    }
}

fn order(direction: Direction) -> &'static str {
    match direction {
        Direction::Backward => "DESC",
        Direction::Forward => "ASC",
    }
}

/// Rows strictly beyond a place. The bound on the timestamp alone is what the store prunes by.
fn cursor_condition(cursor: &Cursor) -> Result<String, Error> {
    let bad = || Error::Cursor { timestamp_ns: cursor.timestamp_ns.clone(), seq: cursor.seq.clone() };
    let timestamp = literal::timestamp(cursor.timestamp_ns.parse().map_err(|_| bad())?);
    let sign = if cursor.direction == Direction::Backward { '<' } else { '>' };
    if cursor.seq.is_empty() {
        return Ok(format!("timestamp {sign} {timestamp}"));
    }
    let seq: i64 = cursor.seq.parse().map_err(|_| bad())?;
    Ok(format!("timestamp {sign}= {timestamp} AND (timestamp {sign} {timestamp} OR _seq {sign} {seq})"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Value;

    use super::*;

    /// Each case is a directory of testdata/query with a `query.json` (`model`, and `context` where it differs from the
    /// default) and the `expected.sql` it becomes; an error stands there as `-- error: …`. `UPDATE_EXPECT=1` rewrites.
    #[test]
    fn queries_become_the_sql_of_their_case() {
        let cases = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/query"));
        let mut count = 0;
        for entry in std::fs::read_dir(cases).expect("cases are there") {
            let case = entry.expect("readable").path();
            let text = std::fs::read_to_string(case.join("query.json")).expect("query.json");
            let input: Value = serde_json::from_str(&text).expect("JSON");
            let query = Query::normalize(&input["model"]);
            let ms = |name: &str, default: i64| input["context"][name].as_i64().unwrap_or(default);
            let panel = Range::of_ms(ms("from", 1_767_268_800_000), ms("to", 1_767_272_400_000));
            let got = range(&query, panel).and_then(|range| {
                let interval_ms = ms("intervalMs", 60_000) as u64;
                statement(&query, &Context { range, interval_ms, limit_default: 1000, points_max: 1000 })
            });
            let got = match got {
                Ok(statement) => format!("{}\n", statement.sql),
                Err(error) => format!("-- error: {error}\n"),
            };
            let path = case.join("expected.sql");
            if std::env::var_os("UPDATE_EXPECT").is_some() {
                std::fs::write(&path, &got).expect("writable");
            }
            let expected = std::fs::read_to_string(&path).expect("expected.sql");
            assert_eq!(got, expected, "{}", case.display());
            count += 1;
        }
        assert!(count >= 20, "only {count} cases");
    }

    #[test]
    fn buckets_cover_the_range_and_start_where_date_bin_does() {
        let range = Range { from_ns: 90_000_000_000, to_ns: 240_000_000_000 };
        let context = Context { range, interval_ms: 1000, limit_default: 1, points_max: 1 };
        let buckets = context.buckets(60_000);
        assert_eq!(buckets, Buckets { start_ns: 60_000_000_000, step_ns: 60_000_000_000, count: 3 });
    }

    #[test]
    fn a_tail_follows_by_order_of_arrival() {
        let model = serde_json::json!({"builder": {"filters": [{"field": "service", "op": "=", "value": "bff"}]}});
        let range = Range { from_ns: 0, to_ns: 1 };
        let context = Context { range, interval_ms: 1000, limit_default: 10, points_max: 1 };
        let tail = Tail::new(&Query::normalize(&model), 0, &context).expect("fine");
        let condition = "timestamp >= TIMESTAMP '1970-01-01T00:00:00Z'\n  AND service = 'bff'";
        assert_eq!(
            tail.after(7, 500),
            format!("SELECT *, _seq\nFROM logs\nWHERE _seq > 7\n  AND {condition}\nORDER BY _seq DESC\nLIMIT 500")
        );
        assert_eq!(
            tail.count_between(7, 9),
            format!("SELECT count(*) AS lines\nFROM logs\nWHERE _seq > 7\n  AND _seq < 9\n  AND {condition}")
        );
    }
}
