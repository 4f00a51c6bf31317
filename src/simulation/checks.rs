//! Questions to the store whose answers the model knows: counts, the newest records, texts, ids, paging, whole lines.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, RecordBatch};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::StreamExt;
use jiff::Timestamp;

use super::lines::{Code, NS_PER_HOUR, NS_PER_SECOND, SERVICES};
use super::model::{Allowance, Model, Outcome, Record, Row, State, TENANTS, in_range, shown};
use super::random::Random;
use super::world::{World, tenant_of};
use crate::query::{Error, Prepared, Request, Rows, TimeRange};
use crate::storage::Segment;

const LEVELS: [&str; 6] = ["fatal", "error", "warn", "info", "debug", "trace"];
const NS_PER_MINUTE: i64 = 60 * NS_PER_SECOND;
const ROWS_SHOWN_MAX: usize = 3;

/// A condition, as SQL and as the model understands it.
#[derive(Debug, Clone)]
pub(super) enum Filter {
    All,
    Level(&'static str),
    NoLevel,
    Service(&'static str),
    Trace(String),
    /// The message contains it; in any case when so said.
    Text(String, bool),
    /// The message starts with it.
    Start(String),
    /// The line contains it.
    Line(String),
    Number(u64, u64),
    Code(f64),
    Field(String, String),
    Both(Box<Filter>, Box<Filter>),
}

impl Filter {
    pub fn matches(&self, record: &Record) -> bool {
        let facts = &record.facts;
        match self {
            Filter::All => true,
            Filter::Level(level) => facts.level == Some(level),
            Filter::NoLevel => facts.level.is_none(),
            Filter::Service(service) => facts.service == Some(service),
            Filter::Trace(id) => facts.trace.as_ref() == Some(id),
            Filter::Text(text, false) => facts.message.contains(text),
            Filter::Text(text, true) => facts.message.to_lowercase().contains(&text.to_lowercase()),
            Filter::Start(text) => facts.message.starts_with(text),
            Filter::Line(text) => record.line.contains(text),
            Filter::Number(low, high) => facts.n.is_some_and(|n| (*low..*high).contains(&n)),
            Filter::Code(number) => facts.code == Some(Code::Number(*number)),
            Filter::Field(name, value) => facts.fields.iter().any(|field| (&field.0, &field.1) == (name, value)),
            Filter::Both(one, other) => one.matches(record) && other.matches(record),
        }
    }

    /// The condition in one of the ways of writing it.
    pub fn sql(&self, random: &mut Random) -> String {
        match self {
            Filter::All => "1 = 1".to_owned(),
            Filter::Level(level) => format!("level = '{level}'"),
            Filter::NoLevel => "level IS NULL".to_owned(),
            Filter::Service(service) => format!("service = '{service}'"),
            Filter::Trace(id) => format!("trace_id = '{id}'"),
            Filter::Text(text, false) => match random.below(4) {
                0 => format!("contains(message, '{text}')"),
                1 => format!("strpos(message, '{text}') > 0"),
                2 => format!("message ~ '{}'", text.replace('.', "\\.")),
                _ => format!("message LIKE '%{text}%'"),
            },
            Filter::Text(text, true) => match random.below(3) {
                0 => format!("message ILIKE '%{text}%'"),
                1 => format!("contains(lower(message), '{}')", text.to_lowercase()),
                _ => format!("message ~* '{}'", text.replace('.', "\\.")),
            },
            Filter::Start(text) if random.percent(50) => format!("starts_with(message, '{text}')"),
            Filter::Start(text) => format!("message LIKE '{text}%'"),
            Filter::Line(text) => format!("contains(_line, '{text}')"),
            Filter::Number(low, high) if random.percent(50) => format!("n BETWEEN {low} AND {}", high - 1),
            Filter::Number(low, high) => format!("n >= {low} AND n < {high}"),
            Filter::Code(number) => format!("code = {number}"),
            Filter::Field(name, value) => format!("{name} = '{value}'"),
            Filter::Both(one, other) => format!("({}) AND ({})", one.sql(random), other.sql(random)),
        }
    }

    /// A condition that often matches something, on fields that are there.
    pub fn choose(random: &mut Random, model: &Model, tenant: usize) -> Filter {
        let kept: Vec<&Record> = model.kept(tenant).collect();
        if kept.is_empty() {
            return Filter::All;
        }
        let record = kept[random.place(kept.len())];
        let facts = &record.facts;
        let chosen = match random.below(14) {
            0..2 => Filter::Level(random.pick(&LEVELS)),
            2 => Filter::NoLevel,
            3 => Filter::Service(random.pick(&SERVICES)),
            4 => facts.trace.clone().map_or(Filter::All, Filter::Trace),
            5 => Filter::Text(piece(random, &facts.message), false),
            6 => Filter::Text(ascii(&piece(random, &facts.message)), true),
            7 => Filter::Start(plain_start(&facts.message)),
            8 => Filter::Line(piece(random, &record.line)),
            9 => facts.n.map_or(Filter::NoLevel, |n| Filter::Number(n, n + 1 + random.below(60))),
            10 => match facts.code {
                Some(Code::Number(number)) if number < 1e15 => Filter::Code(number),
                _ => Filter::All,
            },
            11 => facts.fields.first().map_or(Filter::All, |(name, value)| Filter::Field(name.clone(), value.clone())),
            12 => Filter::Text("never-written".to_owned(), random.percent(50)),
            _ => {
                let level = random.pick(&LEVELS);
                Filter::Both(Box::new(Filter::Level(level)), Box::new(Filter::choose(random, model, tenant)))
            }
        };
        match chosen {
            Filter::Text(text, _) | Filter::Start(text) | Filter::Line(text) if text.is_empty() => Filter::All,
            chosen => chosen,
        }
    }
}

fn is_plain(char: char) -> bool {
    char.is_alphanumeric() || char == ' ' || char == '.'
}

fn ascii(text: &str) -> String {
    text.chars().filter(char::is_ascii).collect()
}

/// A piece of a text that can stand in any pattern as it is.
fn piece(random: &mut Random, text: &str) -> String {
    let runs: Vec<&str> = text.split(|char| !is_plain(char)).filter(|run| !run.is_empty()).collect();
    if runs.is_empty() {
        return String::new();
    }
    let run: Vec<char> = runs[random.place(runs.len())].chars().collect();
    let start = random.place(run.len());
    let length = 1 + random.place((run.len() - start).min(24));
    run[start..start + length].iter().collect()
}

fn plain_start(text: &str) -> String {
    text.chars().take_while(|char| is_plain(*char)).take(12).collect()
}

/// An answer as texts; `None` is null.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Answer {
    pub rows: Vec<Vec<Option<String>>>,
    pub notices: Vec<String>,
}

/// A query that was planned on what was there then, and is run after many changes.
pub(super) struct Held {
    pub sql: String,
    pub planned: Prepared,
    pub expected: Answer,
}

/// Reads an answer to its end.
pub(super) async fn collect(mut rows: Rows) -> Result<Answer, Error> {
    let mut answer = Answer::default();
    while let Some(batch) = rows.next().await {
        append(&mut answer.rows, &batch?)?;
    }
    answer.notices = rows.stats().notices;
    Ok(answer)
}

fn append(rows: &mut Vec<Vec<Option<String>>>, batch: &RecordBatch) -> Result<(), Error> {
    let options = FormatOptions::default();
    let formatters = batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
    let formatters: Vec<ArrayFormatter<'_>> =
        formatters.collect::<Result<_, _>>().map_err(|error| Error::Internal(error.to_string()))?;
    for row in 0..batch.num_rows() {
        let cells = formatters.iter().zip(batch.columns());
        let text = |formatter: &ArrayFormatter<'_>| formatter.value(row).to_string();
        rows.push(cells.map(|(formatter, column)| column.is_valid(row).then(|| text(formatter))).collect());
    }
    Ok(())
}

impl World {
    fn request(tenant: usize, sql: &str, range: Option<TimeRange>) -> Request {
        Request { tenant: tenant_of(tenant), sql: sql.to_owned(), range, limit: None, timeout: None }
    }

    pub async fn ask(&self, tenant: usize, sql: &str, range: Option<TimeRange>) -> Result<Answer, Error> {
        collect(self.engine().prepare(World::request(tenant, sql, range)).await?.run()).await
    }

    /// Reads a tenant's records above a number, and compares all of each; gives what is missing, and the notices.
    pub async fn read(&mut self, tenant: usize, after: i64) -> Outcome<(Vec<usize>, Vec<String>)> {
        let condition = if after > 0 { format!(" WHERE _seq > {after}") } else { String::new() };
        let sql = format!(
            "SELECT _seq, CAST(timestamp AS BIGINT), level, service, trace_id, message, _line FROM logs{condition} ORDER BY _seq"
        );
        let answer = self.ask(tenant, &sql, None).await.map_err(|error| format!("{sql}: {error}"))?;
        let rows: Vec<Row> = answer.rows.into_iter().map(row_of).collect::<Outcome<_>>()?;
        if rows.windows(2).any(|pair| pair[0].seq >= pair[1].seq) {
            return Err(format!("{sql}: the numbers do not ascend"));
        }
        let missing = self.model.compare(tenant, after, &rows).map_err(|error| format!("tenant {tenant}: {error}"))?;
        if !answer.notices.is_empty() && !self.damaged {
            return Err(format!("nothing was damaged, and the answer says: {:?}", answer.notices));
        }
        Ok((missing, answer.notices))
    }

    /// Reads everything; what may be missing is missing for ever then.
    pub async fn read_all(&mut self, allowance: Allowance<'_>) -> Outcome {
        let mut missing = Vec::new();
        for tenant in 0..TENANTS.len() {
            missing.extend(self.read(tenant, 0).await?.0);
        }
        self.model.judge(&missing, allowance)
    }

    /// Learns the numbers of records that came since the last reading, as live tail does.
    pub async fn read_new(&mut self, tenant: usize) -> Outcome {
        let after = self.model.seq_max(tenant);
        let (missing, _) = self.read(tenant, after).await?;
        self.model.judge(&missing, Allowance::Nothing)
    }

    /// Asks something of one tenant, and compares.
    pub async fn check(&mut self) -> Outcome {
        self.settle().await?;
        let tenant = self.random.place(TENANTS.len());
        self.read_new(tenant).await?;
        let filter =
            if self.random.percent(40) { Filter::All } else { Filter::choose(&mut self.random, &self.model, tenant) };
        let range = self.random.percent(40).then(|| self.range());
        let (sql, expected) = self.question(tenant, &filter, range);
        self.note(format!("check tenant {tenant} {range:?}: {sql}"));
        let (asked, sql) = self.with_range(range, sql);
        let found = self.ask(tenant, &sql, asked).await.map_err(|error| format!("{sql}: {error}"))?;
        expected.compare(&found.rows).map_err(|error| format!("{sql} ({range:?}): {error}"))
    }

    /// Plans a query now, to be run after further changes.
    pub async fn hold(&mut self) -> Outcome {
        self.settle().await?;
        let tenant = self.random.place(TENANTS.len());
        self.read_new(tenant).await?;
        let filter = Filter::choose(&mut self.random, &self.model, tenant);
        let sql = format!("SELECT _seq, _line FROM logs WHERE {} ORDER BY _seq", filter.sql(&mut self.random));
        let expected = self.ask(tenant, &sql, None).await.map_err(|error| format!("{sql}: {error}"))?;
        let planned = self.engine().prepare(World::request(tenant, &sql, None)).await;
        let planned = planned.map_err(|error| format!("{sql}: {error}"))?;
        self.note(format!("hold tenant {tenant}: {sql}"));
        self.held.push(Held { sql, planned, expected });
        Ok(())
    }

    /// Runs what was held: it has to give what was there when it was planned.
    pub async fn release(&mut self) -> Outcome {
        for held in std::mem::take(&mut self.held) {
            let found = collect(held.planned.run()).await.map_err(|error| format!("held, {}: {error}", held.sql))?;
            if found.rows != held.expected.rows {
                let error = difference(&found.rows, &held.expected.rows);
                return Err(format!("held, {}: another answer after changes: {error}", held.sql));
            }
        }
        Ok(())
    }

    /// A range of time around now.
    pub fn range(&mut self) -> TimeRange {
        let width = self.random.pick(&[NS_PER_MINUTE, NS_PER_HOUR, 30 * NS_PER_HOUR, 10 * 24 * NS_PER_HOUR]);
        let from_ns = self.model.now_ns - self.random.between(0, 3 * width);
        TimeRange { from_ns, to_ns: from_ns + 1 + self.random.between(0, width) }
    }

    /// The range as the request's, or as conditions.
    fn with_range(&mut self, range: Option<TimeRange>, sql: String) -> (Option<TimeRange>, String) {
        let Some(range) = range else { return (None, sql) };
        if self.random.percent(50) {
            return (Some(range), sql);
        }
        let at = |ns: i64| {
            let time = Timestamp::from_nanosecond(i128::from(ns)).map(|time| time.to_string());
            format!("TIMESTAMP '{}'", time.unwrap_or_default())
        };
        let condition = format!(" WHERE timestamp >= {} AND timestamp < {} AND ", at(range.from_ns), at(range.to_ns));
        (None, sql.replacen(" WHERE ", &condition, 1))
    }

    /// A question, and what the model answers.
    fn question(&mut self, tenant: usize, filter: &Filter, range: Option<TimeRange>) -> (String, Expected) {
        let condition = filter.sql(&mut self.random);
        let meant = |record: &&Record| in_range(record, range) && filter.matches(record);
        let mut records: Vec<&Record> = self.model.kept(tenant).filter(meant).collect();
        records.sort_by_key(|record| record.seq);
        let seq = |record: &Record| record.seq.map(|seq| seq.to_string());
        let whole = |record: &Record| vec![seq(record), Some(record.line.clone())];
        match self.random.below(8) {
            0 => {
                let sql = format!("SELECT count(*) FROM logs WHERE {condition}");
                (sql, Expected::Rows(vec![vec![Some(records.len().to_string())]]))
            }
            1 | 2 => {
                let (key, sql): (fn(&Record) -> Option<String>, &str) = match self.random.below(3) {
                    0 => (|record| record.facts.level.map(str::to_owned), "level"),
                    1 => (|record| record.facts.service.map(str::to_owned), "service"),
                    _ => (
                        |record| Some((record.ts.div_euclid(NS_PER_MINUTE) * NS_PER_MINUTE).to_string()),
                        "CAST(date_bin(INTERVAL '1 minute', timestamp) AS BIGINT)",
                    ),
                };
                let mut counts: BTreeMap<Option<String>, u64> = BTreeMap::new();
                records.iter().for_each(|record| *counts.entry(key(record)).or_default() += 1);
                let rows = counts.into_iter().map(|(key, count)| vec![key, Some(count.to_string())]);
                let sql = format!("SELECT {sql}, count(*) FROM logs WHERE {condition} GROUP BY 1");
                (sql, Expected::Unordered(rows.collect()))
            }
            3 | 4 => {
                let wanted = 1 + self.random.place(40);
                let newest = self.random.percent(70);
                let order = if newest { "DESC" } else { "ASC" };
                let candidates = records.iter().map(|record| (record.ts, whole(record))).collect();
                let sql =
                    format!("SELECT _seq, _line FROM logs WHERE {condition} ORDER BY timestamp {order} LIMIT {wanted}");
                (sql, Expected::Best { wanted, newest, candidates })
            }
            5 => {
                let wanted = 1 + self.random.place(40);
                records.sort_by_key(|record| std::cmp::Reverse((record.ts, record.seq)));
                let rows = records.into_iter().take(wanted).map(whole).collect();
                let sql = format!(
                    "SELECT _seq, _line FROM logs WHERE {condition} ORDER BY timestamp DESC, _seq DESC LIMIT {wanted}"
                );
                (sql, Expected::Rows(rows))
            }
            6 => {
                let wanted = 1 + self.random.place(200);
                let after = self.random.between(0, self.model.seq_max(tenant) + 1);
                let page = records.into_iter().filter(|record| record.seq.is_some_and(|seq| seq > after));
                let rows = page.take(wanted).map(whole).collect();
                let sql = format!(
                    "SELECT _seq, _line FROM logs WHERE _seq > {after} AND ({condition}) ORDER BY _seq LIMIT {wanted}"
                );
                (sql, Expected::Rows(rows))
            }
            _ => {
                let rows = records.into_iter().map(whole).collect();
                (format!("SELECT _seq, _line FROM logs WHERE {condition}"), Expected::Unordered(rows))
            }
        }
    }
}

/// What an answer has to be.
enum Expected {
    Rows(Vec<Vec<Option<String>>>),
    /// The same rows in any order.
    Unordered(Vec<Vec<Option<String>>>),
    /// The `wanted` newest (or oldest) of the candidates; among those of one time any.
    Best {
        wanted: usize,
        newest: bool,
        candidates: Vec<(i64, Vec<Option<String>>)>,
    },
}

impl Expected {
    fn compare(mut self, found: &[Vec<Option<String>>]) -> Outcome {
        match &mut self {
            Expected::Rows(rows) if rows == found => Ok(()),
            Expected::Rows(rows) => Err(difference(found, rows)),
            Expected::Unordered(rows) => {
                let mut found = found.to_vec();
                found.sort();
                rows.sort();
                if *rows == found { Ok(()) } else { Err(difference(&found, rows)) }
            }
            Expected::Best { wanted, newest, candidates } => {
                candidates.sort_by_key(|(ts, _)| if *newest { -ts } else { *ts });
                let times: BTreeMap<&Vec<Option<String>>, i64> =
                    candidates.iter().map(|(ts, row)| (row, *ts)).collect();
                let found_times: Vec<Option<i64>> = found.iter().map(|row| times.get(row).copied()).collect();
                let expected: Vec<Option<i64>> = candidates.iter().take(*wanted).map(|(ts, _)| Some(*ts)).collect();
                let different = found.iter().collect::<BTreeSet<_>>().len();
                if found_times != expected {
                    return Err(format!("the times are {found_times:?}, not {expected:?}"));
                }
                if different == found.len() { Ok(()) } else { Err("a record is given twice".to_owned()) }
            }
        }
    }
}

/// How two answers differ, in few words.
fn difference(found: &[Vec<Option<String>>], expected: &[Vec<Option<String>>]) -> String {
    let only = |some: &[Vec<Option<String>>], others: &[Vec<Option<String>>]| {
        let others: BTreeSet<_> = others.iter().collect();
        let rows = some.iter().filter(|row| !others.contains(row)).take(ROWS_SHOWN_MAX);
        rows.map(|row| shown(&format!("{row:?}"))).collect::<Vec<_>>().join(", ")
    };
    let (more, less) = (only(found, expected), only(expected, found));
    format!("{} rows instead of {}; too many: [{more}]; missing: [{less}]", found.len(), expected.len())
}

fn row_of(cells: Vec<Option<String>>) -> Outcome<Row> {
    let text = format!("{cells:?}");
    let wrong = || format!("not a record: {text}");
    let [seq, ts, level, service, trace, message, line] = <[_; 7]>::try_from(cells).map_err(|_| wrong())?;
    let number = |cell: Option<String>| cell.and_then(|text| text.parse().ok()).ok_or_else(wrong);
    Ok(Row { seq: number(seq)?, ts: number(ts)?, level, service, trace, message, line: line.ok_or_else(wrong)? })
}

/// Whether records are missing as they have to while these segments can't be read: all of theirs, where nothing hides some.
pub(super) fn missing_are_all_of(world: &World, missing: &[usize], segments: &[std::sync::Arc<Segment>]) -> Outcome {
    let records: u64 = segments.iter().map(|segment| segment.records).sum();
    let hidden = world.model.records.iter().any(|record| matches!(record.state, State::Deleted(_)));
    if hidden || missing.len() as u64 == records {
        return Ok(());
    }
    Err(format!("{} records are missing; the segments that can't be read hold {records}", missing.len()))
}
