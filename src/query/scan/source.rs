//! What a scan reads from: records of the buffer, or some records of a segment's row group; both give the columns that a
//! stage asks for.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{concat_batches, filter};
use arrow::datatypes::{Int64Type, SchemaRef, TimestampNanosecondType};
use datafusion::common::{DataFusionError, Result};
use parquet::arrow::arrow_reader::RowSelection;

use super::stage::{Stage, Stages};
use crate::query::table::ScanCounts;
use crate::record::batch::widen;
use crate::record::column;
use crate::storage::Buffered;
use crate::storage::segment::{OpenSegment, ReadError};

/// Bytes of columns that are unpacked at once, about.
const CHUNK_BYTES: usize = 16 << 20;
const CHUNK_ROWS_MIN: usize = 8_192;
/// Records of a batch that the rest of a plan gets.
pub(super) const BATCH_ROWS: usize = 8_192;

/// A run of records.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// Records of the buffer from the first on.
    Buffer(Arc<Buffered>, Range<usize>),
    /// Records of a row group, as ascending ranges.
    Segment(Arc<OpenSegment>, usize, Vec<Range<usize>>),
}

/// Columns that were loaded of some records of a source.
pub(super) struct Loaded {
    pub source: Source,
    /// In the order of the stages.
    pub columns: Vec<ArrayRef>,
    pub rows: usize,
}

impl Source {
    pub fn rows(&self) -> usize {
        match self {
            Source::Buffer(_, range) => range.len(),
            Source::Segment(_, _, ranges) => ranges.iter().map(Range::len).sum(),
        }
    }

    /// Bytes of a record that these stages unpack, about; what lies in the buffer is there already.
    fn row_bytes(&self, stages: &Stages) -> usize {
        let Source::Segment(open, row_group, _) = self else { return 0 };
        let all = stages.find.iter().chain(&stages.rest).flat_map(|stage| stage.stored.fields());
        let places: Vec<usize> = all.filter_map(|field| open.column(field.name())).collect();
        let group_rows = open.metadata().row_group(*row_group).num_rows().max(1) as u64;
        (open.unpacked_bytes(*row_group, &places) / group_rows).max(1) as usize
    }

    /// Memory that reading it takes at most, about. **Units**: bytes.
    pub fn memory_bytes(&self, stages: &Stages) -> usize {
        self.row_bytes(stages).saturating_mul(self.rows())
    }

    /// The same records in pieces that fit in memory, for these stages.
    pub fn chunks(self, stages: &Stages) -> Vec<Source> {
        let row_bytes = self.row_bytes(stages);
        let Source::Segment(open, row_group, ranges) = &self else { return vec![self] };
        let rows_max = (CHUNK_BYTES / row_bytes).max(CHUNK_ROWS_MIN);
        let mut chunks: Vec<Vec<Range<usize>>> = vec![Vec::new()];
        let mut left = rows_max;
        for range in ranges {
            let mut start = range.start;
            while start < range.end {
                if left == 0 {
                    chunks.push(Vec::new());
                    left = rows_max;
                }
                let end = range.end.min(start + left);
                chunks.last_mut().expect("there is one").push(start..end);
                left -= end - start;
                start = end;
            }
        }
        chunks.into_iter().map(|ranges| Source::Segment(open.clone(), *row_group, ranges)).collect()
    }

    /// The records of the mask.
    pub fn narrowed(&self, kept: &BooleanArray) -> Source {
        match self {
            // The buffer is in memory: its columns are cut when they are loaded.
            Source::Buffer(batch, range) => Source::Buffer(batch.clone(), range.clone()),
            Source::Segment(open, row_group, ranges) => Source::Segment(open.clone(), *row_group, narrow(ranges, kept)),
        }
    }

    /// Reads stored columns. **Shape**: `schema`; a row for each record.
    fn read(&self, schema: &SchemaRef, counts: &ScanCounts) -> Result<RecordBatch> {
        match self {
            Source::Buffer(batch, range) => read_buffered(batch, range, schema),
            Source::Segment(open, row_group, ranges) => read_segment(open, *row_group, ranges, schema, counts),
        }
    }
}

/// Places of the records that a mask over `ranges` keeps, as ranges.
fn narrow(ranges: &[Range<usize>], kept: &BooleanArray) -> Vec<Range<usize>> {
    let mut narrowed: Vec<Range<usize>> = Vec::new();
    let (mut start, mut at) = (0, 0);
    for (from, to) in kept.values().set_slices() {
        let mut from = from;
        while from < to {
            while from >= start + ranges[at].len() {
                start += ranges[at].len();
                at += 1;
            }
            let end = to.min(start + ranges[at].len());
            let first = ranges[at].start + (from - start);
            match narrowed.last_mut() {
                Some(last) if last.end == first => last.end = first + (end - from),
                _ => narrowed.push(first..first + (end - from)),
            }
            from = end;
        }
    }
    narrowed
}

/// Runs the stages that have conditions: what is left is loaded up to there.
pub(super) fn find(source: Source, stages: &Stages, counts: &ScanCounts) -> Result<Loaded> {
    find_with(source, stages, counts, None)
}

/// As [`find`], of records whose timestamp passes `bound` only; the first stage loads it.
pub(super) fn find_newer(
    source: Source,
    stages: &Stages,
    counts: &ScanCounts,
    bound: &dyn Fn(i64) -> bool,
) -> Result<Loaded> {
    find_with(source, stages, counts, Some(bound))
}

fn find_with(
    source: Source,
    stages: &Stages,
    counts: &ScanCounts,
    bound: Option<&dyn Fn(i64) -> bool>,
) -> Result<Loaded> {
    let rows = source.rows();
    let mut found = Loaded { source, columns: Vec::new(), rows };
    counts.rows.fetch_add(rows as u64, Relaxed);
    if let Source::Buffer(batch, _) = &found.source {
        counts.take_bytes((batch.bytes * rows / batch.rows().max(1)) as u64)?;
    }
    let mut masks: Option<BooleanArray> = None;
    for (at, stage) in stages.find.iter().enumerate() {
        load(&mut found, stage, masks.as_ref(), counts)?;
        let mut kept = stage.decide(&found.columns, found.rows)?;
        if let Some(bound) = bound.filter(|_| at == 0) {
            let place = stage.loaded.index_of(column::TIMESTAMP)?;
            let timestamps = found.columns[place].as_primitive::<TimestampNanosecondType>();
            let passes: BooleanArray = timestamps.values().iter().map(|timestamp| Some(bound(*timestamp))).collect();
            kept = match kept {
                Some(kept) => Some(arrow::compute::and(&kept, &passes)?),
                None => Some(passes).filter(|passes| passes.true_count() < found.rows),
            };
        }
        let Some(kept) = kept else { continue };
        for column in &mut found.columns {
            *column = filter(column, &kept)?;
        }
        found.rows = kept.true_count();
        found.source = found.source.narrowed(&kept);
        if matches!(found.source, Source::Buffer(..)) {
            masks = Some(match masks {
                None => kept,
                Some(before) => within(&before, &kept),
            });
        }
        if found.rows == 0 {
            break;
        }
    }
    if let (Source::Buffer(batch, range), Some(mask)) = (&found.source, &masks) {
        found.source = cut(batch, range, mask)?;
    }
    Ok(found)
}

/// Loads what is left of the answer's columns.
pub(super) fn fetch(found: &mut Loaded, stages: &Stages, counts: &ScanCounts) -> Result<RecordBatch> {
    if let Some(rest) = &stages.rest {
        load(found, rest, None, counts)?;
    }
    stages.project(&found.columns, found.rows)
}

fn load(found: &mut Loaded, stage: &Stage, mask: Option<&BooleanArray>, counts: &ScanCounts) -> Result<()> {
    if stage.loaded.fields().len() == found.columns.len() {
        return Ok(());
    }
    let mut stored = found.source.read(&stage.stored, counts)?;
    if let Some(mask) = mask {
        stored = arrow::compute::filter_record_batch(&stored, mask)?;
    }
    found.columns.extend(stage.compute(&stored)?);
    Ok(())
}

/// The mask over all records, where `inner` speaks of those that `outer` keeps.
fn within(outer: &BooleanArray, inner: &BooleanArray) -> BooleanArray {
    let mut inner = inner.iter();
    outer.iter().map(|kept| Some(kept == Some(true) && inner.next().flatten() == Some(true))).collect()
}

/// The records of the mask as a buffer of their own.
pub(super) fn cut(batch: &Arc<Buffered>, range: &Range<usize>, mask: &BooleanArray) -> Result<Source> {
    let rows = batch.batch.slice(range.start, range.len());
    let seq = batch.seq.slice(range.start, range.len());
    let records = arrow::compute::filter_record_batch(&rows, mask)?;
    let seq = filter(&seq, mask)?;
    let rows = records.num_rows();
    let seq = seq.as_primitive::<Int64Type>().clone();
    let cut = Buffered { batch: records, seq, min_ts: batch.min_ts, max_ts: batch.max_ts, bytes: 0 };
    Ok(Source::Buffer(Arc::new(cut), 0..rows))
}

fn read_buffered(buffered: &Buffered, range: &Range<usize>, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = schema.fields().iter().map(|field| {
        let stored: Option<ArrayRef> = if field.name() == column::SEQ {
            Some(Arc::new(buffered.seq.slice(range.start, range.len())))
        } else {
            buffered.batch.column_by_name(field.name()).map(|array| array.slice(range.start, range.len()))
        };
        in_type(stored, field.data_type(), range.len())
    });
    batch_of(schema, columns.collect::<Result<Vec<_>>>()?, range.len())
}

fn read_segment(
    open: &Arc<OpenSegment>,
    row_group: usize,
    ranges: &[Range<usize>],
    schema: &SchemaRef,
    counts: &ScanCounts,
) -> Result<RecordBatch> {
    let rows: usize = ranges.iter().map(Range::len).sum();
    let places: Vec<usize> = schema.fields().iter().filter_map(|field| open.column(field.name())).collect();
    if places.is_empty() || rows == 0 {
        let columns = schema.fields().iter().map(|field| in_type(None, field.data_type(), rows));
        return batch_of(schema, columns.collect::<Result<Vec<_>>>()?, rows);
    }
    let group_rows = open.metadata().row_group(row_group).num_rows() as usize;
    let selection =
        (rows < group_rows).then(|| RowSelection::from_consecutive_ranges(ranges.iter().cloned(), group_rows));
    counts.take_bytes(open.stored_bytes(row_group, &places) * rows as u64 / group_rows.max(1) as u64)?;
    let batches = open.read(row_group, &places, selection, rows).map_err(damaged)?;
    let batches = batches.collect::<Result<Vec<RecordBatch>, ReadError>>().map_err(damaged)?;
    let read = match <[RecordBatch; 1]>::try_from(batches) {
        Ok([one]) => one,
        Err(many) if many.is_empty() => return Err(damaged(open.damaged("a row group has no records"))),
        Err(many) => concat_batches(&many[0].schema(), &many)?,
    };
    if read.num_rows() != rows {
        return Err(damaged(open.damaged(format!("{} of {rows} records came back", read.num_rows()))));
    }
    let columns = schema
        .fields()
        .iter()
        .map(|field| in_type(read.column_by_name(field.name()).cloned(), field.data_type(), rows));
    batch_of(schema, columns.collect::<Result<Vec<_>>>()?, rows)
}

fn batch_of(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

/// A column in the table's type; all null where there is none.
fn in_type(column: Option<ArrayRef>, kind: &arrow::datatypes::DataType, rows: usize) -> Result<ArrayRef> {
    match column {
        Some(array) if array.data_type() == kind => Ok(array),
        Some(array) => widen(&array, kind).map_err(|error| DataFusionError::External(Box::new(error))),
        None => Ok(new_null_array(kind, rows)),
    }
}

/// An error of reading, on its way through DataFusion.
pub(super) fn damaged(error: ReadError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_narrows_ranges() {
        let mask = |kept: &[u8]| BooleanArray::from(kept.iter().map(|bit| *bit == 1).collect::<Vec<_>>());
        assert_eq!(narrow(&[10..13, 20..22], &mask(&[1, 0, 1, 1, 0])), [10..11, 12..13, 20..21]);
        assert_eq!(narrow(&[0..2, 2..4, 5..6], &mask(&[0, 1, 1, 0, 1])), [1..3, 5..6]);
        assert!(narrow(&[0..1, 2..3], &mask(&[0, 0])).is_empty());
        assert_eq!(within(&mask(&[1, 0, 1]), &mask(&[0, 1])), mask(&[0, 0, 1]));
    }
}
