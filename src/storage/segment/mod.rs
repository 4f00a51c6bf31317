//! Segments: buffered records, sorted and written as Parquet files, each of one tenant, UTC day and retention class.
//!
//! Inside a segment records lie in windows of one hour, and in a window by level, service and time: lines that look
//! alike lie together, which is what makes them small, and a window is one row group (or a few), which is what lets a
//! query skip them (measured: shared/research/prototypes.md). docs/format.md tells readers what they find.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, TimestampNanosecondType};
use hashbrown::HashMap;
use parquet::errors::ParquetError;

mod file;
mod ids;
mod merge;
mod open;
mod pages;
mod rows;

pub use file::Tier;
pub use ids::IdForm;
pub use merge::{Keep, MergeLimits, merge};
pub use open::{Error as ReadError, OpenSegment};
pub use pages::PageCache;
pub use rows::{Condition, Extremes, extremes, matching};

use self::file::{FileWriter, Finished, Layout};
use super::buffer::Buffered;
use super::catalog::{Detail, History, Segment, SegmentField};
use super::retention::{Class, Rules};
use super::{paths, schema};
use crate::record::{Tenant, batch, column};

/// Version of the format, in the file's key-value metadata.
pub const FORMAT_VERSION: &str = "2";
const NS_PER_DAY: i64 = 86_400_000_000_000;
const NS_PER_WINDOW: i64 = 3_600_000_000_000;
const WINDOWS_PER_DAY: i64 = NS_PER_DAY / NS_PER_WINDOW;
/// Most records of a row group.
const ROW_GROUP_ROWS_MAX: usize = 65_536;
/// A row group is closed at the end of a window only when it holds this many: tiny row groups cost more than they prune.
const ROW_GROUP_ROWS_MIN: usize = 8_192;
/// Records of a data page: the smallest piece that is decompressed for one record.
const PAGE_ROWS_MAX: usize = 2_048;
/// A segment's services are listed in the catalog up to this many.
const SERVICES_LISTED_MAX: usize = 256;

/// What writing a segment can answer instead of a file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("can't write the segment '{path}': {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Parquet refused.
    #[error("can't encode the segment '{path}': {source}")]
    Encode {
        /// The file.
        path: PathBuf,
        /// What the encoder said.
        source: ParquetError,
    },
    /// A merge gave another number of records than it read.
    #[error("a merge of {before} records gave {after}")]
    Miscounted {
        /// Records of the inputs.
        before: u64,
        /// Records of what was written.
        after: u64,
    },
    /// A fault of our own, in a merge.
    #[error("a merge panicked; the log has the cause")]
    Panicked,
    /// What was written can't be brought to the object store.
    #[error("can't upload a segment: {0}")]
    Upload(String),
    /// A merge was told to stop.
    #[error("the merge was stopped")]
    Stopped,
    /// Arrow refused.
    #[error("can't sort records into segments: {0}")]
    Sort(#[from] batch::Error),
    /// A segment that is to be merged can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Error {
        Error::Sort(error.into())
    }
}

/// Where a record goes and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    timestamp: i64,
    seq: i64,
    /// Place of its class among those that are written.
    class: u32,
    batch: u32,
    row: u32,
}

impl Place {
    fn day(&self) -> i64 {
        self.timestamp.div_euclid(NS_PER_DAY)
    }

    fn window(&self) -> i64 {
        self.timestamp.div_euclid(NS_PER_WINDOW)
    }
}

/// Writes the buffer of one tenant below `root`, one segment per UTC day and retention class. Ids are taken from
/// `next_id`. Every file is complete and fsynced when this returns, and no file is live before the catalog says so.
pub fn write(
    root: &Path,
    tenant: &Tenant,
    buffer: &[Arc<Buffered>],
    rules: &Rules,
    columns_max: usize,
    next_id: &mut i64,
) -> Result<Vec<Segment>, Error> {
    let places = sorted_places(buffer, |level, service| rules.place_of(tenant, level, service) as u32);
    let class = |place: u32| rules.class(place as usize).clone();
    write_runs(root, tenant, buffer, &places, class, columns_max, next_id)
}

fn write_runs(
    root: &Path,
    tenant: &Tenant,
    buffer: &[Arc<Buffered>],
    places: &[Place],
    class: impl Fn(u32) -> Class,
    columns_max: usize,
    next_id: &mut i64,
) -> Result<Vec<Segment>, Error> {
    let mut segments = Vec::new();
    for run in places.chunk_by(|a, b| (a.day(), a.class) == (b.day(), b.class)) {
        let id = *next_id;
        *next_id += 1;
        segments.push(write_one(root, tenant, buffer, run, class(run[0].class), columns_max, id)?);
    }
    Ok(segments)
}

/// Window, level and service of records that lie beside each other.
type Alike<'a> = (i64, u8, Option<&'a str>);

/// All records as they will lie in segments: by day, class, window, level, service, time and `_seq`.
///
/// Records of one window, level and service are collected first. They come in the order of time, nearly, which a stable
/// sort makes use of: that is half the work of sorting all of them.
fn sorted_places(buffer: &[Arc<Buffered>], class_of: impl Fn(Option<&str>, Option<&str>) -> u32) -> Vec<Place> {
    let mut groups: HashMap<Alike<'_>, (u32, Vec<Place>)> = HashMap::new();
    for (batch, buffered) in buffer.iter().enumerate() {
        let timestamps = buffered.batch.column(0).as_primitive::<TimestampNanosecondType>().values();
        let levels = buffered.batch.column(1).as_string::<i32>();
        let services = buffered.batch.column(2).as_string::<i32>();
        for row in 0..buffered.rows() {
            let level = levels.is_valid(row).then(|| levels.value(row));
            let service = services.is_valid(row).then(|| services.value(row));
            let (timestamp, seq) = (timestamps[row], buffered.seq.value(row));
            let key = (timestamp.div_euclid(NS_PER_WINDOW), level_rank(level), service);
            // Rules are asked once for each group.
            let (class, places) = groups.entry(key).or_insert_with(|| (class_of(level, service), Vec::new()));
            places.push(Place { timestamp, seq, class: *class, batch: batch as u32, row: row as u32 });
        }
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_unstable_by_key(|((window, level, service), (class, _))| {
        (window.div_euclid(WINDOWS_PER_DAY), *class, *window, *level, *service)
    });
    let mut sorted = Vec::with_capacity(buffer.iter().map(|buffered| buffered.rows()).sum());
    for (_, (_, mut places)) in groups {
        places.sort_by_key(|place| (place.timestamp, place.seq));
        sorted.append(&mut places);
    }
    sorted
}

fn level_rank(level: Option<&str>) -> u8 {
    match level {
        Some("fatal") => 0,
        Some("error") => 1,
        Some("warn") => 2,
        Some("info") => 3,
        None => 4,
        Some("debug") => 5,
        Some("trace") => 6,
        Some(_) => 7,
    }
}

fn write_one(
    root: &Path,
    tenant: &Tenant,
    buffer: &[Arc<Buffered>],
    run: &[Place],
    class: Class,
    columns_max: usize,
    id: i64,
) -> Result<Segment, Error> {
    let records = gather(buffer, run, columns_max)?;
    let day = day_text(run[0].day());
    let path = paths::segment(tenant, &day, class.as_str(), id);
    let finished = write_file(&root.join(&path), &records, &row_groups(run), Tier::Flushed)?;
    let (min_ts, max_ts) = bounds(run.iter().map(|place| place.timestamp));
    let (min_seq, max_seq) = bounds(run.iter().map(|place| place.seq));
    let detail = Detail { crc32: Some(finished.crc32), index_bytes: finished.index_bytes, ..detail(&records) };
    let records = run.len() as u64;
    Ok(Segment {
        id,
        tenant: tenant.clone(),
        path,
        class,
        day,
        records,
        bytes: finished.bytes,
        min_ts,
        max_ts,
        min_seq,
        max_seq,
        detail,
        history: History::default(),
    })
}

/// The records of `run` in its order, in one schema without empty columns, `_seq` last.
fn gather(buffer: &[Arc<Buffered>], run: &[Place], columns_max: usize) -> Result<RecordBatch, Error> {
    let mut used: Vec<u32> = run.iter().map(|place| place.batch).collect();
    used.sort_unstable();
    used.dedup();
    let slots: HashMap<u32, usize> = used.iter().copied().zip(0..).collect();
    let batches: Vec<RecordBatch> = used.iter().map(|batch| buffer[*batch as usize].batch.clone()).collect();
    let unified = batch::unified_schema_of(&batches);
    let conformed =
        batches.iter().map(|records| batch::conform(records, &unified)).collect::<Result<Vec<RecordBatch>, _>>()?;
    let indices: Vec<(usize, usize)> = run.iter().map(|place| (slots[&place.batch], place.row as usize)).collect();

    let (mut fields, mut columns): (Vec<Arc<Field>>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
    for (at, field) in unified.fields().iter().enumerate() {
        let parts: Vec<&ArrayRef> = conformed.iter().map(|batch| batch.column(at)).collect();
        let column = batch::interleave(&parts, &indices)?;
        if column.null_count() < column.len() || schema::is_core(field.name()) {
            fields.push(field.clone());
            columns.push(column);
        }
    }
    let records = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    let records = schema::spill(records, columns_max)?;
    let seq: ArrayRef = Arc::new(arrow::array::Int64Array::from_iter_values(run.iter().map(|place| place.seq)));
    let mut fields: Vec<Arc<Field>> = records.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(column::SEQ, DataType::Int64, false)));
    let mut columns = records.columns().to_vec();
    columns.push(seq);
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Writes records that lie in order, as `groups` of (start, length); nothing is left behind when it fails.
fn write_file(path: &Path, records: &RecordBatch, groups: &[(usize, usize)], tier: Tier) -> Result<Finished, Error> {
    let mut writer = FileWriter::create(path, records.schema(), Layout::of(records, tier))?;
    for (start, rows) in groups {
        writer.write_row_group(&records.slice(*start, *rows))?;
    }
    writer.finish()
}

/// Start and length of each row group: a window each, cut where it is too long, joined where it is too short.
fn row_groups(run: &[Place]) -> Vec<(usize, usize)> {
    let mut groups = Vec::new();
    let (mut start, mut rows) = (0, 0);
    for window in run.chunk_by(|a, b| a.window() == b.window()) {
        rows += window.len();
        while rows >= ROW_GROUP_ROWS_MAX {
            groups.push((start, ROW_GROUP_ROWS_MAX));
            (start, rows) = (start + ROW_GROUP_ROWS_MAX, rows - ROW_GROUP_ROWS_MAX);
        }
        if rows >= ROW_GROUP_ROWS_MIN {
            groups.push((start, rows));
            (start, rows) = (start + rows, 0);
        }
    }
    if rows > 0 {
        groups.push((start, rows));
    }
    groups
}

fn detail(records: &RecordBatch) -> Detail {
    let fields = schema::fields_of(records).into_iter().map(SegmentField::from).collect();
    let distinct = |at: usize| {
        let values = distinct_texts(records.column(at).as_string::<i32>()).into_iter();
        values.map(|value| value.map(str::to_owned)).collect::<Vec<_>>()
    };
    let services = Some(distinct(2)).filter(|services| services.len() <= SERVICES_LISTED_MAX);
    Detail { fields, levels: distinct(1), services, ..Detail::default() }
}

/// The values of a column whose neighbours are mostly alike.
fn distinct_texts(texts: &StringArray) -> BTreeSet<Option<&str>> {
    let mut last = None;
    texts.iter().filter(|text| last.replace(*text) != Some(*text)).collect()
}

fn bounds(values: impl Iterator<Item = i64>) -> (i64, i64) {
    values.fold((i64::MAX, i64::MIN), |(min, max), value| (min.min(value), max.max(value)))
}

/// `2026-02-10` for a number of days since 1970.
fn day_text(day: i64) -> String {
    let date = i32::try_from(day)
        .ok()
        .and_then(|days| jiff::civil::date(1970, 1, 1).checked_add(jiff::Span::new().try_days(days).ok()?).ok());
    date.map_or_else(|| format!("day-{day}"), |date| date.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(window: i64) -> Place {
        Place { timestamp: window * NS_PER_WINDOW, seq: 0, class: 0, batch: 0, row: 0 }
    }

    #[test]
    fn row_groups_follow_windows_within_their_bounds() {
        let run = |windows: &[usize]| -> Vec<Place> {
            windows.iter().zip(0..).flat_map(|(rows, window)| vec![place(window); *rows]).collect()
        };
        let check = |windows: &[usize], expect: &[(usize, usize)]| assert_eq!(row_groups(&run(windows)), expect);
        check(&[], &[]);
        check(&[5], &[(0, 5)]);
        check(&[10_000, 10_000], &[(0, 10_000), (10_000, 10_000)]);
        check(&[100, 200, 9_000, 7], &[(0, 9_300), (9_300, 7)]);
        check(&[100_000], &[(0, 65_536), (65_536, 34_464)]);
    }

    #[test]
    fn days_are_named_in_utc() {
        assert_eq!(day_text(0), "1970-01-01");
        assert_eq!(day_text(-1), "1969-12-31");
        assert_eq!(day_text(20_494), "2026-02-10");
    }
}
