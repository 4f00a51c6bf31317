//! From record batches to Grafana's frames: what kind of frame an answer becomes, and what every frame has in common.
//! Invariant: pure, and only types that Grafana's reader knows leave here; one it does not know (LargeUtf8, a view, a
//! dictionary, a date, a decimal, a list) fails the whole request with HTTP 500.

mod encode;
mod links;
mod logs;
mod plain;
mod series;
mod table;

use std::collections::BTreeMap;

use arrow::array::ArrayRef;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use serde_json::{Value, json};

use crate::client::Stats;
use crate::error::Kind;
use crate::settings::Links;
use crate::sql::Shape;

/// Why an answer does not become what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Log lines can't be compared with a threshold.
    #[error(
        "this query gives log lines, and an alert rule needs numbers: choose an aggregate such as 'count' in the \
         builder, or select a number in SQL, for example SELECT count(*) AS errors FROM logs WHERE $__timeFilter()"
    )]
    LinesInAlert,
    /// A series without time.
    #[error(
        "a time series needs a column with the time; add $__timeGroup(timestamp) AS time, or choose another format"
    )]
    NoTime,
    /// Nothing to draw or to compare.
    #[error("the answer has no column with numbers (there are: {0}); choose the format 'table', or select a number")]
    NoNumber(String),
    /// Lines without time.
    #[error("log lines need the column 'timestamp' (there are: {0}); choose another format, or select it")]
    NoTimestamp(String),
    /// A fault of ours.
    #[error("the answer cannot be made into a frame: {0}")]
    Arrow(#[from] ArrowError),
}

impl Error {
    /// What the reader can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Arrow(_) => Kind::Internal,
            _ => Kind::Invalid,
        }
    }
}

/// One frame, in types that Grafana reads.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Name of the query in the panel.
    pub ref_id: String,
    /// Its own name: empty but for further pages of lines.
    pub name: String,
    /// A JSON object: type, notices, statistics…
    pub meta: Value,
    /// Columns, all of one length.
    pub fields: Vec<Field>,
}

/// One column of a frame.
#[derive(Debug, Clone)]
pub struct Field {
    /// Its name; for log lines the contract's.
    pub name: String,
    /// What tells a series from its neighbours.
    pub labels: BTreeMap<String, String>,
    /// Links and the like, as JSON.
    pub config: Option<Value>,
    /// Rows may be null.
    pub nullable: bool,
    /// The rows.
    pub values: ArrayRef,
}

impl Frame {
    fn new(ref_id: &str, meta: Value, fields: Vec<Field>) -> Frame {
        Frame { ref_id: ref_id.to_owned(), name: String::new(), meta, fields }
    }
}

impl Field {
    fn new(name: impl Into<String>, values: ArrayRef) -> Field {
        Field { name: name.into(), labels: BTreeMap::new(), config: None, nullable: true, values }
    }
}

/// How lines go with those that are on the screen. Grafana puts a frame of the same query and name in front of the one it
/// has, and a frame of another name behind all; then it sorts by time, which leaves lines of one time where they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page<'a> {
    /// There are none yet.
    First,
    /// Further lines in the order of the first page, beyond the line of this id.
    Behind(&'a str),
    /// Lines before the first page's, in the order of the cursor: away from it.
    InFront,
}

/// What frames are made with, beside the rows.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Name of the query in the panel.
    pub ref_id: &'a str,
    /// What should become of the rows.
    pub shape: Shape,
    /// The SQL that was sent.
    pub sql: &'a str,
    /// Lines at most.
    pub limit: Option<u64>,
    /// Where the lines go.
    pub page: Page<'a>,
    /// Regular expressions to highlight.
    pub search_words: &'a [String],
    /// Links of log lines.
    pub links: &'a Links,
    /// Show lines of any length whole.
    pub whole_lines: bool,
    /// What the reader should know about how the query was understood.
    pub notices: &'a [String],
    /// An alert rule or an expression asks: only numbers are of use.
    pub numbers_only: bool,
    /// What it cost.
    pub stats: Option<&'a Stats>,
}

/// Makes the frames of an answer. **Shape**: at least one; the first carries notices, statistics and the SQL.
pub fn frames(schema: &SchemaRef, batches: &[RecordBatch], request: &Request<'_>) -> Result<Vec<Frame>, Error> {
    let rows = plain::batch(&concat_batches(schema, batches)?)?;
    let shape = resolve(&rows, request);
    let mut notices = request.notices.iter().map(|text| notice("warning", text)).collect();
    let (mut frames, visualisation) = match shape {
        Resolved::Lines if request.numbers_only => return Err(Error::LinesInAlert),
        Resolved::Lines => (vec![logs::frame(&rows, request, &mut notices)?], "logs"),
        Resolved::Series(asked) => (series::over_time(&rows, request, asked, &mut notices)?, "graph"),
        Resolved::Numbers { groups } => (series::numbers(&rows, request, groups)?, "table"),
        Resolved::Table => (vec![table::frame(&rows, request)], "table"),
    };
    if frames.is_empty() {
        // Alert rules know "no data" by a frame of the right type without fields.
        let kind = if matches!(shape, Resolved::Series(_)) { "timeseries-multi" } else { "numeric-multi" };
        let meta = json!({"type": kind, "typeVersion": [0, 1]});
        frames.push(Frame::new(request.ref_id, meta, Vec::new()));
    }
    describe(&mut frames[0], request, visualisation, notices);
    Ok(frames)
}

/// A frame without rows that tells the page which channel to follow.
pub fn of_channel(ref_id: &str, channel: &str) -> Frame {
    let meta = json!({
        "type": "log-lines",
        "typeVersion": [0, 0],
        "preferredVisualisationType": "logs",
        "channel": channel,
    });
    Frame::new(ref_id, meta, logs::empty_fields())
}

/// A shape that is no longer a guess.
enum Resolved {
    Lines,
    Series(series::Asked),
    Numbers { groups: Option<usize> },
    Table,
}

fn resolve(rows: &RecordBatch, request: &Request<'_>) -> Resolved {
    use series::Asked;
    match request.shape {
        Shape::Logs => Resolved::Lines,
        Shape::Series { fill, groups } => Resolved::Series(Asked { fill, groups, volume: false }),
        Shape::Volume { buckets } => Resolved::Series(Asked { fill: Some(buckets), groups: Some(1), volume: true }),
        Shape::Number { groups } => Resolved::Numbers { groups },
        Shape::Table if request.numbers_only => by_columns(rows, true),
        Shape::Table => Resolved::Table,
        Shape::Auto => by_columns(rows, request.numbers_only),
    }
}

fn by_columns(rows: &RecordBatch, numbers_only: bool) -> Resolved {
    let schema = rows.schema_ref();
    let is_time = |data_type: &DataType| matches!(data_type, DataType::Timestamp(..));
    let of_type = |name: &str, is: fn(&DataType) -> bool| schema.field_with_name(name).is_ok_and(|f| is(f.data_type()));
    let lines =
        of_type("timestamp", |t| matches!(t, DataType::Timestamp(..))) && of_type("message", |t| *t == DataType::Utf8);
    let time = schema.fields().iter().any(|field| is_time(field.data_type()));
    let number = schema.fields().iter().any(|field| field.data_type().is_numeric());
    match (lines, time, number) {
        (true, ..) => Resolved::Lines,
        (_, true, true) => Resolved::Series(series::Asked::default()),
        _ if numbers_only => Resolved::Numbers { groups: None },
        _ => Resolved::Table,
    }
}

fn column_names(rows: &RecordBatch) -> String {
    let names: Vec<_> = rows.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Name under which Explore shows the bytes a query read.
const BYTES_STAT: &str = "Summary: total bytes processed";

/// What every first frame tells beside its rows.
fn describe(frame: &mut Frame, request: &Request<'_>, visualisation: &str, mut notices: Vec<Value>) {
    frame.meta["preferredVisualisationType"] = json!(visualisation);
    frame.meta["executedQueryString"] = json!(request.sql);
    if let Some(stats) = request.stats {
        frame.meta["stats"] = json!([
            {"displayName": BYTES_STAT, "value": stats.bytes_scanned, "unit": "decbytes"},
            {"displayName": "Rows scanned", "value": stats.rows_scanned, "unit": "short"},
            {"displayName": "Segments read", "value": stats.segments_scanned, "unit": "short"},
            {"displayName": "Segments left out", "value": stats.segments_pruned, "unit": "short"},
            {"displayName": "Time in the store", "value": stats.elapsed_ms, "unit": "ms"},
        ]);
        if visualisation == "logs" {
            frame.meta["custom"]["lokiQueryStatKey"] = json!(BYTES_STAT);
        }
        notices.extend(stats.notices.iter().map(|text| notice("warning", text)));
        if stats.truncated {
            let text = "The answer was cut at the store's limit of rows; narrow the time range, or aggregate.";
            notices.push(notice("warning", text));
        }
    }
    if !notices.is_empty() {
        frame.meta["notices"] = Value::Array(notices);
    }
}

fn notice(severity: &str, text: &str) -> Value {
    json!({"severity": severity, "text": text})
}

#[cfg(test)]
mod tests;
