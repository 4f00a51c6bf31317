//! SQL over a snapshot of the store, with DataFusion: the only module that knows it.
//!
//! A statement is parsed (plan.rs), meets a table made for it from one snapshot (table.rs, prune.rs, computed.rs), and
//! runs on threads of its own under limits (engine.rs).

use std::sync::Arc;
use std::time::Duration;

mod admission;
mod buckets;
mod compare;
mod computed;
mod counted;
mod deletion;
mod engine;
mod extremes;
mod failure;
mod history;
mod output;
mod percentile;
mod plan;
mod pool;
mod prune;
mod runs;
mod scan;
mod search;
mod table;
#[cfg(test)]
mod tests;
mod yielding;

pub use engine::{Engine, Prepared, Rows};
pub use history::{History, Sample};

use crate::error::Kind;
use crate::memory::Ceiling;
use crate::record::Tenant;
use crate::storage;

/// Limits that every query keeps; a request may ask for less, never for more.
#[derive(Debug, Clone)]
pub struct Options {
    /// Deadline of a query.
    pub timeout_max: Duration,
    /// Memory of all running queries together.
    pub memory_bytes_max: usize,
    /// Memory of the process.
    pub ceiling: Arc<Ceiling>,
    /// Most rows a query may return; past it the answer is cut and says so.
    pub rows_max: usize,
    /// Bytes that a query may read from segments, as they are packed, and from the buffer; past it it fails. 0: any number.
    pub scan_bytes_max: u64,
    /// Queries that run at once; others wait.
    pub concurrency_max: usize,
    /// Threads for query work, apart from the threads that serve the network.
    pub threads: usize,
}

/// Half-open range of time `[from, to)`. **Units**: nanoseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    /// First nanosecond.
    pub from_ns: i64,
    /// One past the last nanosecond.
    pub to_ns: i64,
}

/// A query as asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Whose logs.
    pub tenant: Tenant,
    /// One read-only SQL statement.
    pub sql: String,
    /// Only records of this range are seen by the statement.
    pub range: Option<TimeRange>,
    /// Most rows wanted; cut silently (a LIMIT of the caller's), unlike [`Options::rows_max`].
    pub limit: Option<usize>,
    /// A shorter deadline than the default.
    pub timeout: Option<Duration>,
}

/// What a query cost so far.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Stats {
    /// Records read from buffer and segments.
    pub rows_scanned: u64,
    /// Bytes read from segments (compressed) and buffer.
    pub bytes_scanned: u64,
    /// Segments opened.
    pub segments_scanned: u64,
    /// Segments left out by time or statistics.
    pub segments_pruned: u64,
    /// Wall time since the start.
    pub elapsed_ms: f64,
    /// The answer was cut at `rows_max`.
    pub truncated: bool,
    /// What the reader should know, for people.
    pub notices: Vec<String>,
}

/// What a query can answer instead of rows.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The statement is wrong; the text points at the mistake.
    #[error("{0}")]
    Invalid(String),
    /// The deadline passed.
    #[error("the query took longer than {0:?}; narrow the time range, or add a filter")]
    Deadline(Duration),
    /// A limit was reached.
    #[error("{0}")]
    Limit(String),
    /// Stored bytes are damaged.
    #[error("{0}")]
    Corrupt(String),
    /// A disk or an object store does not answer; later it may.
    #[error("{0}")]
    Unavailable(String),
    /// The store refused to change a segment, or to remember how far a deletion is.
    #[error(transparent)]
    Store(#[from] storage::Error),
    /// The engine is closing.
    #[error("the store is shutting down")]
    Closed,
    /// A fault of our own.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Invalid(_) => Kind::Invalid,
            Error::Deadline(_) => Kind::Deadline,
            Error::Limit(_) => Kind::Limit,
            Error::Corrupt(_) => Kind::Corrupt,
            Error::Closed | Error::Unavailable(_) => Kind::Unavailable,
            Error::Store(error) => error.kind(),
            Error::Internal(_) => Kind::Internal,
        }
    }
}

/// A field as pickers show it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// `time`, `string`, `integer`, `float`, `boolean`
    pub r#type: &'static str,
}

/// One value of a field and in how many records it stands.
#[derive(Debug, Clone, serde::Serialize)]
pub struct FieldValue {
    /// The value as text.
    pub value: String,
    /// Records that have it.
    pub count: i64,
}

/// Which values of a field are wanted.
#[derive(Debug, Clone)]
pub struct FieldValuesRequest {
    /// Whose logs.
    pub tenant: Tenant,
    /// Name of the field.
    pub field: String,
    /// Only records of this range.
    pub range: Option<TimeRange>,
    /// An SQL condition on the records.
    pub filter: Option<String>,
    /// Only values that contain this, in any case.
    pub contains: Option<String>,
    /// Most values, the most frequent first.
    pub limit: usize,
}
