//! Protocol bytes → record batches, with rejected lines and their reasons. Pure: no clock, no I/O, no storage.

use arrow::record_batch::RecordBatch;

/// Limits and settings that every decoder keeps; from the config.
#[derive(Debug, Clone)]
pub struct Options {
    /// Longest line, in bytes; longer ones are rejected.
    pub line_bytes_max: usize,
}

/// What came of a request's bytes.
#[derive(Debug)]
pub struct Decoded {
    /// The accepted records, in the order they came; see [`crate::record::column`] for the columns.
    pub batch: RecordBatch,
    /// Lines that were not accepted.
    pub rejected: Vec<Rejection>,
}

/// One line or record that was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Place in the request, from 1.
    pub line: usize,
    /// Why, for people.
    pub reason: String,
}
