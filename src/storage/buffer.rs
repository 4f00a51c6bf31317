//! Records in memory: acknowledged, visible to queries, not yet in a segment. Immutable batches in order of arrival;
//! small neighbours are merged, so that many small requests do not make queries slow.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampNanosecondType};

use super::schema::{self, FieldInfo};
use crate::record::batch::{self, Error};

/// Batches at least this long are never merged any more: each merge copies, and a scan takes such batches well.
const MERGED_ROWS_MAX: usize = 2_048;
/// Batches whose columns together pass this are not merged: a wide, sparse batch costs more than a second one.
const MERGED_COLUMNS_MAX: usize = 512;

/// An immutable batch of acknowledged records.
#[derive(Debug, Clone)]
pub struct Buffered {
    /// The records as they were decoded.
    pub batch: RecordBatch,
    /// Their sequence numbers, ascending.
    pub seq: Int64Array,
    /// Earliest timestamp, ns.
    pub min_ts: i64,
    /// Latest timestamp, ns.
    pub max_ts: i64,
    /// Memory it holds.
    pub bytes: usize,
}

impl Buffered {
    /// Wraps a decoded batch whose first record has the number `first_seq`. The batch must not be empty.
    pub fn new(batch: RecordBatch, first_seq: u64) -> Buffered {
        let first = first_seq as i64;
        let seq = Int64Array::from_iter_values(first..first + batch.num_rows() as i64);
        Buffered::with_seq(batch, seq)
    }

    /// Wraps records that have their numbers already. The batch must not be empty.
    pub(super) fn with_seq(batch: RecordBatch, seq: Int64Array) -> Buffered {
        let timestamps = batch.column(0).as_primitive::<TimestampNanosecondType>();
        let min_ts = arrow::compute::min(timestamps).expect("a buffered batch has records");
        let max_ts = arrow::compute::max(timestamps).expect("a buffered batch has records");
        let bytes = batch.get_array_memory_size() + seq.get_array_memory_size();
        Buffered { batch, seq, min_ts, max_ts, bytes }
    }

    /// How many records.
    pub fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// Lowest and highest sequence number.
    pub fn seq_range(&self) -> (i64, i64) {
        (self.seq.value(0), self.seq.value(self.seq.len() - 1))
    }

    /// The fields of the batch: those with a column, and those in the overflow.
    pub fn fields(&self) -> BTreeMap<String, FieldInfo> {
        schema::fields_of(&self.batch)
    }

    fn merge(parts: &[Arc<Buffered>]) -> Result<Buffered, Error> {
        let batches: Vec<RecordBatch> = parts.iter().map(|part| part.batch.clone()).collect();
        let batch = batch::concat(&batches)?;
        let seqs: Vec<&dyn Array> = parts.iter().map(|part| &part.seq as &dyn Array).collect();
        let seq = arrow::compute::concat(&seqs)?.as_primitive::<Int64Type>().clone();
        Ok(Buffered::with_seq(batch, seq))
    }
}

/// Adds a batch to a buffer, merging the tail like a binary counter: each record is copied `log n` times at most.
/// The first `frozen` entries are left alone.
pub fn push(buffer: &mut Vec<Arc<Buffered>>, frozen: usize, added: Buffered) -> Result<(), Error> {
    let mut rows = added.rows();
    let mut columns = added.batch.num_columns();
    buffer.push(Arc::new(added));
    let mut start = buffer.len() - 1;
    while start > frozen {
        let before = &buffer[start - 1];
        let wide = columns + before.batch.num_columns() > MERGED_COLUMNS_MAX;
        if wide || before.rows() >= MERGED_ROWS_MAX || before.rows() > 2 * rows {
            break;
        }
        rows += before.rows();
        columns = columns.max(before.batch.num_columns());
        start -= 1;
    }
    if start + 1 < buffer.len() {
        let merged = Buffered::merge(&buffer[start..])?;
        buffer.truncate(start);
        buffer.push(Arc::new(merged));
    }
    Ok(())
}
