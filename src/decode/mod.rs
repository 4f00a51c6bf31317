//! Protocol bytes → record batches, with rejected lines and their reasons. Pure: no clock, no I/O, no storage.
//!
//! Invariant: a record of a batch gives back the line it came from, byte for byte ([`crate::record::shape`]); a line
//! that can't become a record is a [`Rejection`], and the good lines of the same request are kept.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;

use crate::error::Kind;
use crate::pipeline::Pipelines;
use crate::record::Tenant;

mod columns;
pub mod datadog;
mod document;
pub mod elastic;
mod envelope;
pub mod firehose;
mod forms;
pub mod forward;
pub mod gelf;
mod heads;
pub mod journal;
mod json;
pub mod jsonline;
pub mod kafka;
mod lines;
pub mod loki;
pub mod msgpack;
mod names;
pub mod otlp;
mod outer;
mod pairs;
mod partial;
mod records;
pub mod splunk;
pub mod streams;
pub mod syslog;
#[cfg(test)]
mod tests;
mod token;

/// Limits and settings that every decoder keeps; from the config.
#[derive(Debug, Clone)]
pub struct Options {
    /// Longest line, in bytes; longer ones are rejected. Default 1 MiB.
    pub line_bytes_max: usize,
    /// Most fields of one line that get columns; the rest goes to `_overflow`. Default 1,000.
    pub fields_per_line_max: usize,
    /// Longest name of a field that gets a column, in bytes; longer ones go to `_overflow`. Default 256.
    pub field_name_bytes_max: usize,
    /// Most field columns of one batch; later fields go to `_overflow`. Default 1,000.
    pub columns_max: usize,
    /// Most bytes of values that a request may become (labels are repeated for every line). Default 512 MiB.
    pub batch_bytes_max: usize,
    /// Most rejected lines that are told one by one; the others are only counted. Default 100.
    pub rejections_max: usize,
    /// How far after now a timestamp may lie; a later one becomes now, and stays in `timestamp_original`. Default 1 day.
    /// **Units**: nanoseconds.
    pub future_max_ns: i64,
    /// What is done to lines before they are decoded; `None`: nothing.
    pub pipelines: Option<Arc<Pipelines>>,
    /// Whose request it is, for pipelines to see; records that they give to another tenant are told apart.
    pub tenant: Option<Tenant>,
    /// The active streams of whose request it is; `None`: they have no limit.
    pub streams: Option<Arc<streams::Active>>,
    /// Names that hold the time of a line, best first; compared without regard to ASCII case, as are the lists below.
    pub timestamp_names: Vec<String>,
    /// Names that hold the level.
    pub level_names: Vec<String>,
    /// Names that say which service it is.
    pub service_names: Vec<String>,
    /// Names that only hint at the service (container, job); used where none of `service_names` is there.
    pub service_hint_names: Vec<String>,
    /// Names that hold the text for people.
    pub message_names: Vec<String>,
    /// Names that hold the trace id.
    pub trace_id_names: Vec<String>,
    /// Names that hold the span id.
    pub span_id_names: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        let list = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        Options {
            line_bytes_max: 1 << 20,
            fields_per_line_max: 1_000,
            field_name_bytes_max: 256,
            columns_max: 1_000,
            batch_bytes_max: 512 << 20,
            rejections_max: 100,
            future_max_ns: 24 * 3_600 * 1_000_000_000,
            pipelines: None,
            tenant: None,
            streams: None,
            timestamp_names: list(&[
                "timestamp",
                "@timestamp",
                "ts",
                "time",
                "datetime",
                "asctime",
                "@t",
                "eventtime",
                "t",
                "timeunixnano",
                "date",
            ]),
            level_names: list(&[
                "level",
                "severity",
                "lvl",
                "log.level",
                "loglevel",
                "severitytext",
                "severity_text",
                "levelname",
                "level_name",
                "@l",
                "detected_level",
            ]),
            service_names: list(&[
                "service",
                "service.name",
                "service_name",
                "servicename",
                "resource.attributes.service.name",
                "resource.service.name",
            ]),
            service_hint_names: list(&[
                "app",
                "application",
                "app.kubernetes.io/name",
                "app_kubernetes_io_name",
                "app_name",
                "container",
                "container_name",
                "job",
            ]),
            message_names: list(&[
                "message",
                "msg",
                "event",
                "log",
                "body",
                "@m",
                "short_message",
                "body.stringvalue",
                "@mt",
            ]),
            trace_id_names: list(&["trace_id", "traceid", "trace.id", "oteltraceid", "dd.trace_id", "@tr"]),
            span_id_names: list(&["span_id", "spanid", "span.id", "otelspanid", "dd.span_id", "@sp"]),
        }
    }
}

/// What came of a request's bytes.
#[derive(Debug)]
pub struct Decoded {
    /// The accepted records, in the order they came; see [`crate::record::column`] for the columns.
    pub batch: RecordBatch,
    /// Records that pipelines gave to other tenants.
    pub others: Vec<(Tenant, RecordBatch)>,
    /// How many lines pipelines dropped.
    pub dropped: usize,
    /// Lines that were not accepted: the first [`Options::rejections_max`] of them.
    pub rejected: Vec<Rejection>,
    /// How many lines were not accepted, told in `rejected` or not.
    pub rejected_count: usize,
    /// The same by [`Cause`].
    pub causes: [usize; Cause::COUNT],
}

impl Decoded {
    /// How many records were accepted.
    pub fn accepted(&self) -> usize {
        self.batch.num_rows() + self.others.iter().map(|(_, batch)| batch.num_rows()).sum::<usize>()
    }
}

/// Why a line was not accepted, in a word for those who count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It is not what the protocol says.
    Malformed,
    /// It is not UTF-8 where it has to be.
    NotUtf8,
    /// It is longer than [`Options::line_bytes_max`].
    TooLong,
    /// It is of a new stream, and the tenant has as many as it may.
    Streams,
}

impl Cause {
    /// How many causes there are; a cause is an index below it.
    pub const COUNT: usize = 4;
    /// All of them, in their order.
    pub const ALL: [Cause; Cause::COUNT] = [Cause::Malformed, Cause::NotUtf8, Cause::TooLong, Cause::Streams];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Malformed => "malformed",
            Cause::NotUtf8 => "not_utf8",
            Cause::TooLong => "too_long",
            Cause::Streams => "streams",
        }
    }
}

/// One line or record that was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Place in the request, from 1.
    pub line: usize,
    /// Why, for people.
    pub reason: String,
}

/// Why a whole request could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are not what the protocol says.
    #[error("{0}")]
    Malformed(String),
    /// The records together would be larger than [`Options::batch_bytes_max`].
    #[error("the request's records take more than {0} bytes; send fewer lines at once")]
    TooLarge(usize),
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Malformed(_) => Kind::Invalid,
            Error::TooLarge(_) => Kind::Limit,
        }
    }
}
