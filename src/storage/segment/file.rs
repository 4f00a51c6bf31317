//! One segment's file and its index while they are written: how columns are laid out, and that both are complete and
//! fsynced before anybody can name them.
//!
//! The choices (which columns are ids, which have no dictionary, how fine the time is) are made once per file, from the
//! records themselves; measured in shared/research/prototypes.md and ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampNanosecondType};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;

use super::ids::IdForm;
use super::{Error, FORMAT_VERSION, PAGE_ROWS_MAX, ROW_GROUP_ROWS_MAX};
use crate::record::column;
use crate::storage::index::IndexBuilder;
use crate::storage::paths;

/// Bytes of a piece of the file that has a checksum of its own.
pub(super) const PIECE_BYTES: usize = 64 << 10;
/// Records looked at to learn whether a column repeats itself.
const SAMPLE_ROWS: usize = 4_096;
/// A column with more different values than this share of the sample gets no dictionary.
const DISTINCT_PERCENT_MAX: usize = 30;
/// A text column with more different values than this share, and a name that says so, is an id.
const ID_PERCENT_MIN: usize = 80;
/// … of more values than these.
const ID_FILLED_MIN: usize = 16;
/// Dictionary pages grow to this; beyond it a column goes on without one.
const DICTIONARY_BYTES_MAX: usize = 512 << 10;
/// Texts longer than this are cut in statistics.
const STATISTICS_BYTES_MAX: usize = 64;
/// Directories from a segment's up to the segments' root.
const DIRECTORY_LEVELS: usize = 4;
const MERGED_ZSTD_LEVEL: i32 = 3;
const WRITE_BUFFER_BYTES: usize = 256 << 10;

/// How much work a file is worth: one that will soon be merged, or one that stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// From the buffer; compaction reads it soon.
    Flushed,
    /// From compaction.
    Merged,
}

impl Tier {
    /// What is read again within minutes is packed quickly; what stays is packed well.
    fn compression(self) -> Compression {
        match self {
            Tier::Flushed => Compression::LZ4_RAW,
            Tier::Merged => Compression::ZSTD(ZstdLevel::try_new(MERGED_ZSTD_LEVEL).expect("zstd has this level")),
        }
    }
}

/// How the columns of a file are laid out.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub ids: BTreeMap<String, IdForm>,
    pub time_unit: TimeUnit,
    /// Columns whose values the index holds.
    value_columns: BTreeSet<String>,
    without_dictionary: HashSet<String>,
    tier: Tier,
}

impl Layout {
    /// Chooses by all records of the file.
    pub fn of(records: &RecordBatch, tier: Tier) -> Layout {
        let ids = text_columns(records).filter_map(|(name, texts)| Some((name.to_owned(), IdForm::of(texts)?)));
        let timestamps = records.column(0).as_primitive::<TimestampNanosecondType>().values();
        Layout::new(ids.collect(), time_unit(timestamps), records, tier)
    }

    /// Chooses by a sample, where forms of ids and the unit of time are known.
    pub fn new(ids: BTreeMap<String, IdForm>, time_unit: TimeUnit, sample: &RecordBatch, tier: Tier) -> Layout {
        let named = sample.schema_ref().fields().iter().map(|field| field.name()).zip(sample.columns());
        let varied =
            named.filter(|(_, array)| variety(array).is_some_and(|(_, percent)| percent > DISTINCT_PERCENT_MAX));
        let mut without_dictionary: HashSet<String> = varied.map(|(name, _)| name.clone()).collect();
        // Ids that come in groups repeat within a row group, though not within the sample.
        if ids.contains_key(column::TRACE_ID) {
            without_dictionary.remove(column::TRACE_ID);
        }
        Layout { value_columns: value_columns(&ids, sample), ids, time_unit, without_dictionary, tier }
    }

    /// The columns as they lie in the file, but for shapes: [`written_schema`] says how these do.
    fn store(&self, records: &RecordBatch) -> Result<RecordBatch, Error> {
        let (mut fields, mut columns): (Vec<Arc<Field>>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
        for (field, array) in records.schema().fields().iter().zip(records.columns()) {
            let stored = match self.ids.get(field.name()) {
                Some(form) => form.encode(array.as_string::<i32>()),
                None if field.name() == column::TIMESTAMP => {
                    arrow::compute::cast(array, &DataType::Timestamp(self.time_unit, Some("UTC".into())))?
                }
                None => array.clone(),
            };
            fields.push(Arc::new(Field::new(field.name(), stored.data_type().clone(), field.is_nullable())));
            columns.push(stored);
        }
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }

    fn properties(&self, schema: &SchemaRef) -> WriterProperties {
        let ids = serde_json::to_string(&self.ids).expect("names and forms always serialise");
        let metadata = vec![
            KeyValue::new("quiver.format".to_owned(), FORMAT_VERSION.to_owned()),
            KeyValue::new("quiver.ids".to_owned(), ids),
        ];
        let mut properties = WriterProperties::builder()
            .set_created_by(concat!("quiver ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_key_value_metadata(Some(metadata))
            // Version 2, or fixed-length ids get no dictionary.
            .set_writer_version(WriterVersion::PARQUET_2_0)
            .set_encoding(Encoding::PLAIN)
            .set_compression(self.tier.compression())
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
            .set_data_page_row_count_limit(PAGE_ROWS_MAX)
            .set_write_batch_size(PAGE_ROWS_MAX)
            .set_dictionary_page_size_limit(DICTIONARY_BYTES_MAX)
            .set_statistics_truncate_length(Some(STATISTICS_BYTES_MAX))
            .set_statistics_enabled(EnabledStatistics::Chunk);
        for field in schema.fields() {
            let (name, path) = (field.name().as_str(), ColumnPath::new(vec![field.name().clone()]));
            let delta = [column::TIMESTAMP, column::SEQ].contains(&name);
            if delta || self.without_dictionary.contains(name) {
                properties = properties.set_column_dictionary_enabled(path.clone(), false);
            }
            if delta {
                properties = properties.set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED);
            }
            // Texts and ids tell nothing by their extremes, and would only make the footer big.
            let paged = delta || [column::LEVEL, column::SERVICE].contains(&name) || is_number(field.data_type());
            let long = [column::MESSAGE, column::SHAPE, column::RAW, column::OVERFLOW].contains(&name);
            let statistics = match (paged, long || self.ids.contains_key(name)) {
                (true, _) => EnabledStatistics::Page,
                (_, true) => EnabledStatistics::None,
                _ => EnabledStatistics::Chunk,
            };
            properties = properties.set_column_statistics_enabled(path, statistics);
        }
        properties.build()
    }
}

/// What readers are told of the columns: the dictionary of shapes is ours alone. (Parquet's writer takes one for a text.)
fn written_schema(stored: &Schema) -> SchemaRef {
    let fields = stored.fields().iter().map(|field| match field.data_type() {
        DataType::Dictionary(_, texts) => {
            Arc::new(Field::new(field.name(), texts.as_ref().clone(), field.is_nullable()))
        }
        _ => field.clone(),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The columns whose values the index holds: ids (but those of spans, which are asked for beside their trace's), and texts
/// that are named like ids and hardly repeat. `sample` starts with the first records of the file, so that an index that is
/// made again holds the same.
pub(super) fn value_columns(ids: &BTreeMap<String, IdForm>, sample: &RecordBatch) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = ids.keys().filter(|name| *name != column::SPAN_ID).cloned().collect();
    for (name, texts) in text_columns(sample) {
        let is_id = || {
            let texts: ArrayRef = Arc::new(texts.clone());
            variety(&texts).is_some_and(|(filled, percent)| filled > ID_FILLED_MIN && percent > ID_PERCENT_MIN)
        };
        if name == column::TRACE_ID || (names_an_id(name) && is_id()) {
            found.insert(name.to_owned());
        }
    }
    found
}

/// How many of a column's first records have a value, and how many percent of these differ; `None`: none has.
fn variety(array: &ArrayRef) -> Option<(usize, usize)> {
    let head = array.slice(0, array.len().min(SAMPLE_ROWS));
    let filled = head.len() - head.null_count();
    (filled > 0).then(|| (filled, distinct(&head) * 100 / filled))
}

fn is_number(kind: &DataType) -> bool {
    matches!(kind, DataType::Int64 | DataType::Float64)
}

fn names_an_id(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    ["id", "uuid", "guid", "hash", "digest"].iter().any(|end| lower.ends_with(end))
}

fn text_columns(records: &RecordBatch) -> impl Iterator<Item = (&str, &StringArray)> {
    let long = [column::MESSAGE, column::SHAPE, column::OVERFLOW, column::LEVEL, column::SERVICE];
    let names = records.schema_ref().fields().iter().map(|field| field.name().as_str());
    names
        .zip(records.columns())
        .filter(move |(name, array)| *array.data_type() == DataType::Utf8 && !long.contains(name))
        .map(|(name, array)| (name, array.as_string::<i32>()))
}

fn distinct(array: &ArrayRef) -> usize {
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().iter().flatten().collect::<HashSet<_>>().len(),
        DataType::Dictionary(..) => {
            let keys = array.as_dictionary_opt::<arrow::datatypes::Int32Type>().map(|texts| texts.keys());
            keys.into_iter().flatten().flatten().collect::<HashSet<_>>().len()
        }
        DataType::Int64 => {
            let values = array.as_primitive::<arrow::datatypes::Int64Type>();
            values.iter().flatten().collect::<HashSet<_>>().len()
        }
        DataType::Float64 => {
            let values = array.as_primitive::<arrow::datatypes::Float64Type>();
            values.iter().flatten().map(f64::to_bits).collect::<HashSet<_>>().len()
        }
        _ => 0,
    }
}

/// The coarsest unit that holds all timestamps exactly.
fn time_unit(timestamps: &[i64]) -> TimeUnit {
    let all = |unit: i64| timestamps.iter().all(|timestamp| timestamp % unit == 0);
    match () {
        () if all(1_000_000) => TimeUnit::Millisecond,
        () if all(1_000) => TimeUnit::Microsecond,
        () => TimeUnit::Nanosecond,
    }
}

/// What a finished file is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Finished {
    pub bytes: u64,
    pub index_bytes: u64,
    /// CRC-32 of the whole file.
    pub crc32: u32,
}

/// A segment's file that is being written; not there for anybody before [`FileWriter::finish`].
pub(super) struct FileWriter {
    path: PathBuf,
    unfinished: PathBuf,
    layout: Layout,
    schema: SchemaRef,
    writer: ArrowWriter<Checksummed>,
    index: IndexBuilder,
}

impl FileWriter {
    /// Starts a file for records of this schema. `path` is the final place.
    pub fn create(path: &Path, schema: SchemaRef, layout: Layout) -> Result<FileWriter, Error> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        let unfinished = path.with_extension(&paths::UNFINISHED_SUFFIX[1..]);
        create_dir_synced(path.parent().expect("a segment lies in a directory")).map_err(io)?;
        let file = File::create(&unfinished).map_err(io)?;
        let stored = written_schema(&layout.store(&RecordBatch::new_empty(schema.clone()))?.schema());
        let properties = layout.properties(&stored);
        let writer = ArrowWriter::try_new(Checksummed::new(file), stored, Some(properties))
            .map_err(|source| Error::Encode { path: path.to_owned(), source })?;
        let index = IndexBuilder::new(layout.value_columns.iter().cloned());
        Ok(FileWriter { path: path.to_owned(), unfinished, layout, schema, writer, index })
    }

    /// Writes a row group. **Shape**: the schema of [`FileWriter::create`], in the order of segments.
    pub fn write_row_group(&mut self, records: &RecordBatch) -> Result<(), Error> {
        debug_assert_eq!(records.schema(), self.schema);
        self.index.add_row_group(records);
        let stored = self.layout.store(records)?;
        let written = self.writer.write(&stored).and_then(|()| self.writer.flush());
        written.map_err(|source| Error::Encode { path: self.path.clone(), source })
    }

    /// Makes file and index durable, then gives them their names.
    pub fn finish(self) -> Result<Finished, Error> {
        let path = self.path;
        let io = |source| Error::Io { path: path.clone(), source };
        let checksummed = self.writer.into_inner().map_err(|source| Error::Encode { path: path.clone(), source })?;
        let (file, bytes, pieces, crc32) = checksummed.finish().map_err(io)?;
        file.sync_all().map_err(io)?;
        let index_path = paths::index_of(&path);
        let index = self.index.finish(&pieces);
        write_index(&index_path, &index).map_err(io)?;
        let dir = path.parent().expect("a segment lies in a directory");
        fs::rename(&self.unfinished, &path).map_err(io)?;
        // Class, day, tenant, root: an earlier flush that made one of them may have failed before it was synced.
        for dir in dir.ancestors().take(DIRECTORY_LEVELS) {
            sync_dir(dir).map_err(io)?;
        }
        Ok(Finished { bytes, index_bytes: index.len() as u64, crc32 })
    }
}

/// Writes an index beside its segment, durably but for its directory entry. Two readers that miss it may both make it
/// again at once, so each thread has a file of its own until it is whole.
pub(super) fn write_index(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let thread = std::thread::current().id();
    let unfinished = path.with_extension(format!("index.{thread:?}{}", paths::UNFINISHED_SUFFIX));
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)
}

/// A file that knows the checksum of each of its pieces, and of the whole.
struct Checksummed {
    file: BufWriter<File>,
    bytes: u64,
    piece: crc32fast::Hasher,
    piece_bytes: usize,
    pieces: Vec<u32>,
    whole: crc32fast::Hasher,
}

impl Checksummed {
    fn new(file: File) -> Checksummed {
        Checksummed {
            file: BufWriter::with_capacity(WRITE_BUFFER_BYTES, file),
            bytes: 0,
            piece: crc32fast::Hasher::new(),
            piece_bytes: 0,
            pieces: Vec::new(),
            whole: crc32fast::Hasher::new(),
        }
    }

    fn finish(mut self) -> io::Result<(File, u64, Vec<u32>, u32)> {
        self.file.flush()?;
        if self.piece_bytes > 0 {
            self.pieces.push(self.piece.finalize());
        }
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok((file, self.bytes, self.pieces, self.whole.finalize()))
    }
}

impl Write for Checksummed {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.file.write(buf)?;
        let mut rest = &buf[..written];
        self.whole.update(rest);
        self.bytes += written as u64;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(PIECE_BYTES - self.piece_bytes));
            self.piece.update(now);
            self.piece_bytes += now.len();
            if self.piece_bytes == PIECE_BYTES {
                self.pieces.push(std::mem::take(&mut self.piece).finalize());
                self.piece_bytes = 0;
            }
            rest = later;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The checksums of a file's pieces, as [`FileWriter`] makes them, and that of the whole.
pub(super) fn checksums_of(file: &File) -> io::Result<(Vec<u32>, u32)> {
    let (mut reader, mut piece) = (file, vec![0; PIECE_BYTES]);
    io::Seek::seek(&mut reader, io::SeekFrom::Start(0))?;
    let (mut pieces, mut whole) = (Vec::new(), crc32fast::Hasher::new());
    loop {
        let mut filled = 0;
        while filled < PIECE_BYTES {
            match io::Read::read(&mut reader, &mut piece[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        if filled == 0 {
            break;
        }
        pieces.push(crc32fast::hash(&piece[..filled]));
        whole.update(&piece[..filled]);
    }
    Ok((pieces, whole.finalize()))
}

/// Makes a directory and those above it, and makes their names durable.
fn create_dir_synced(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    // Only when somebody removed the data directory under a running store; the flush fails and says so.
    let parent = dir.parent().ok_or(io::ErrorKind::NotFound)?;
    create_dir_synced(parent)?;
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_dir(parent),
    }
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::index::BLOCK_ROWS;

    #[test]
    fn time_is_as_coarse_as_it_came() {
        assert_eq!(time_unit(&[1_000_000, -7_000_000]), TimeUnit::Millisecond);
        assert_eq!(time_unit(&[1_000_000, 1_000]), TimeUnit::Microsecond);
        assert_eq!(time_unit(&[1]), TimeUnit::Nanosecond);
    }

    #[test]
    fn pieces_have_the_checksums_of_their_bytes() {
        let file = tempfile::tempfile().unwrap();
        let mut checked = Checksummed::new(file);
        let bytes: Vec<u8> = (0..PIECE_BYTES * 2 + 5).map(|n| (n * 7 % 251) as u8).collect();
        bytes.chunks(1000).for_each(|part| checked.write_all(part).unwrap());
        let (file, length, pieces, whole) = checked.finish().unwrap();
        assert_eq!(length, bytes.len() as u64);
        let expect: Vec<u32> = bytes.chunks(PIECE_BYTES).map(crc32fast::hash).collect();
        assert_eq!((&pieces, whole), (&expect, crc32fast::hash(&bytes)));
        assert_eq!(checksums_of(&file).unwrap(), (pieces, whole));
        assert_eq!(BLOCK_ROWS, PAGE_ROWS_MAX);
    }
}
