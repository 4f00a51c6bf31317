//! A segment as it is read: its footer, its index, and its columns as text, numbers and times, whatever lies in the file.
//!
//! **Invariant**: no byte leaves a file before its piece was seen to have its checksum, in this process. (Segments of
//! format 1 have none.)

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::arrow::{ProjectionMask, parquet_to_arrow_field_levels};
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use parquet::file::reader::{ChunkReader, Length};

use super::file::{self, PIECE_BYTES};
use super::ids::IdForm;
use super::pages::{CachedRowGroup, PageCache};
use crate::record::{batch, column};
use crate::storage::catalog::Segment;
use crate::storage::index::{self, Index, IndexBuilder};
use crate::storage::paths;

/// What reading a segment can answer instead of records.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be opened or read.
    #[error("can't read the segment '{path}': {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is in the object store, which does not give it.
    #[error("can't fetch the segment '{path}': {reason}")]
    Fetch {
        /// Where it was to go.
        path: PathBuf,
        /// What the object store said.
        reason: String,
    },
    /// The file is not what was written.
    #[error("the segment '{path}' is damaged: {reason}")]
    Damaged {
        /// Which segment.
        id: i64,
        /// The file.
        path: PathBuf,
        /// In what way.
        reason: String,
    },
}

/// A piece of a file does not have its checksum.
#[derive(Debug, thiserror::Error)]
#[error("bytes {} to {} do not have their checksum", piece * PIECE_BYTES, (piece + 1) * PIECE_BYTES)]
struct BadPiece {
    piece: usize,
}

/// A file whose pieces are checked when they are first read.
#[derive(Debug)]
pub(super) struct CheckedFile {
    file: File,
    bytes: u64,
    /// Empty: there are no checksums.
    checksums: Vec<u32>,
    /// A bit for each piece.
    checked: Vec<AtomicU64>,
}

impl CheckedFile {
    fn new(file: File, bytes: u64, checksums: Vec<u32>) -> CheckedFile {
        let checked = (0..checksums.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        CheckedFile { file, bytes, checksums, checked }
    }

    fn is_checked(&self, piece: usize) -> bool {
        self.checksums.is_empty() || self.checked[piece / 64].load(Ordering::Relaxed) >> (piece % 64) & 1 == 1
    }

    fn read(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let external = |error: io::Error| ParquetError::External(Box::new(error));
        if start.checked_add(length as u64).is_none_or(|end| end > self.bytes) {
            return Err(external(io::ErrorKind::UnexpectedEof.into()));
        }
        let pieces = (start as usize / PIECE_BYTES)..(start as usize + length).div_ceil(PIECE_BYTES);
        if pieces.clone().all(|piece| self.is_checked(piece)) {
            let mut bytes = vec![0; length];
            self.file.read_exact_at(&mut bytes, start).map_err(external)?;
            return Ok(bytes.into());
        }
        let first = pieces.start * PIECE_BYTES;
        let end = (pieces.end * PIECE_BYTES).min(self.bytes as usize);
        let mut bytes = vec![0; end - first];
        self.file.read_exact_at(&mut bytes, first as u64).map_err(external)?;
        for (piece, body) in pieces.zip(bytes.chunks(PIECE_BYTES)) {
            if self.checksums.get(piece) != Some(&crc32fast::hash(body)) {
                return Err(ParquetError::External(Box::new(BadPiece { piece })));
            }
            self.checked[piece / 64].fetch_or(1 << (piece % 64), Ordering::Relaxed);
        }
        let from = start as usize - first;
        Ok(Bytes::from(bytes).slice(from..from + length))
    }
}

/// The same file for one reader.
#[derive(Debug, Clone)]
pub(super) struct SharedFile(Arc<CheckedFile>);

impl Length for SharedFile {
    fn len(&self) -> u64 {
        self.0.bytes
    }
}

impl ChunkReader for SharedFile {
    type T = io::BufReader<Reading>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(io::BufReader::new(Reading { file: self.0.clone(), at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        self.0.read(start, length)
    }
}

/// Reads a file from a place on.
#[derive(Debug)]
pub(super) struct Reading {
    file: Arc<CheckedFile>,
    at: u64,
}

impl io::Read for Reading {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let length = buf.len().min(usize::try_from(self.file.bytes.saturating_sub(self.at)).unwrap_or(usize::MAX));
        let bytes = self.file.read(self.at, length).map_err(io::Error::other)?;
        buf[..length].copy_from_slice(&bytes);
        self.at += length as u64;
        Ok(length)
    }
}

/// An open segment. Cheap to share; footer and index are in memory.
#[derive(Debug)]
pub struct OpenSegment {
    /// What the catalog says of it.
    pub segment: Arc<Segment>,
    /// Its index; segments of format 1 have none.
    pub index: Option<Index>,
    path: PathBuf,
    file: SharedFile,
    /// Texts as views: what is read without copying.
    views: ArrowReaderMetadata,
    /// Texts as records in memory have them.
    plain: ArrowReaderMetadata,
    ids: BTreeMap<String, IdForm>,
    /// Where unpacked pages are kept; `None`: nowhere.
    pages: Option<Arc<PageCache>>,
}

impl OpenSegment {
    /// Opens a segment below `root`; an index that is missing or damaged is made again.
    ///
    /// **Errors**: [`Error::Damaged`] when the file is not what was written: it should be quarantined.
    pub fn open(root: &Path, segment: &Arc<Segment>) -> Result<OpenSegment, Error> {
        let path = root.join(&segment.path);
        let io = |source| Error::Io { path: path.clone(), source };
        let damaged = |reason: String| Error::Damaged { id: segment.id, path: path.clone(), reason };
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(damaged("it is gone".into())),
            opened => opened.map_err(io)?,
        };
        let bytes = file.metadata().map_err(io)?.len();
        if bytes != segment.bytes {
            return Err(damaged(format!("it has {bytes} bytes instead of {}", segment.bytes)));
        }
        let index = match segment.detail.crc32 {
            Some(crc32) => Some(open_or_rebuild(&path, segment, &file, crc32)?),
            None => None,
        };
        let checksums = match &index {
            Some((_, checksums)) => checksums.clone(),
            None => Vec::new(),
        };
        let file = SharedFile(Arc::new(CheckedFile::new(file, bytes, checksums)));
        let parquet = |error: ParquetError| damaged(error.to_string());
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
        let written = ArrowReaderMetadata::load(&file, options.clone()).map_err(parquet)?;
        let read_as = |schema: SchemaRef| {
            ArrowReaderMetadata::try_new(written.metadata().clone(), options.clone().with_schema(schema))
                .map_err(parquet)
        };
        let views = read_as(with_views(written.schema()))?;
        let plain = read_as(with_shapes(written.schema()))?;
        let ids = ids_of(written.metadata()).map_err(damaged)?;
        let has = |name: &str| written.schema().field_with_name(name).is_ok();
        let mut index = index.map(|(index, _)| index);
        if let Some(index) = index.as_mut().filter(|_| !has(column::SHAPE) && !has(column::RAW)) {
            index.take_lines_for_messages();
        }
        Ok(OpenSegment { segment: segment.clone(), index, path, file, views, plain, ids, pages: None })
    }

    /// The same segment, whose unpacked pages [`OpenSegment::read`] keeps.
    pub fn with_pages(self, pages: Arc<PageCache>) -> OpenSegment {
        OpenSegment { pages: Some(pages), ..self }
    }

    /// Memory that footer and index hold.
    pub fn memory_bytes(&self) -> usize {
        let index = self.index.as_ref().map_or(0, Index::memory_bytes);
        self.metadata().memory_size() + index + 4 * self.file.0.checksums.len()
    }

    /// The footer.
    pub fn metadata(&self) -> &ParquetMetaData {
        self.plain.metadata()
    }

    /// Records of each row group.
    pub fn row_groups(&self) -> impl Iterator<Item = usize> + '_ {
        self.metadata().row_groups().iter().map(|group| group.num_rows() as usize)
    }

    /// The place of a column in the file.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.plain.schema().index_of(name).ok()
    }

    /// Which columns lie in the file as ids, and in which form.
    pub fn ids(&self) -> &BTreeMap<String, IdForm> {
        &self.ids
    }

    /// How fine the timestamps are kept.
    pub fn time_unit(&self) -> TimeUnit {
        match self.plain.schema().field(0).data_type() {
            DataType::Timestamp(unit, _) => *unit,
            _ => TimeUnit::Nanosecond,
        }
    }

    /// Factor from a timestamp in the file to nanoseconds.
    pub fn nanoseconds(&self) -> i64 {
        match self.time_unit() {
            TimeUnit::Second => 1_000_000_000,
            TimeUnit::Millisecond => 1_000_000,
            TimeUnit::Microsecond => 1_000,
            TimeUnit::Nanosecond => 1,
        }
    }

    /// The columns of the file as records have them: texts and nanoseconds.
    pub fn schema(&self) -> SchemaRef {
        let fields = self.plain.schema().fields().iter().map(|field| {
            let kind = match field.data_type() {
                DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Nanosecond, zone.clone()),
                _ if self.ids.contains_key(field.name()) => DataType::Utf8,
                kind => kind.clone(),
            };
            Field::new(field.name(), kind, field.is_nullable())
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// What went wrong in the file, as an error that names it.
    pub fn damaged(&self, reason: impl std::fmt::Display) -> Error {
        Error::Damaged { id: self.segment.id, path: self.path.clone(), reason: reason.to_string() }
    }

    /// Columns of a row group, only the selected records, in batches of at most `batch_rows`. Columns that the file does
    /// not have are left out. **Shape**: texts and ids as views, in the file's order of columns.
    pub fn read(
        &self,
        row_group: usize,
        columns: &[usize],
        selection: Option<RowSelection>,
        batch_rows: usize,
    ) -> Result<Columns<'_>, Error> {
        let mask = ProjectionMask::roots(self.views.parquet_schema(), columns.iter().copied());
        let metadata = self.views.metadata();
        if let (Some(cache), Some(_)) = (&self.pages, metadata.offset_index()) {
            let pages = CachedRowGroup {
                cache: cache.clone(),
                segment: self.segment.id,
                file: Arc::new(self.file.clone()),
                metadata: metadata.clone(),
                row_group,
            };
            let hint = Some(self.views.schema().fields());
            let levels = parquet_to_arrow_field_levels(self.views.parquet_schema(), mask, hint);
            let levels = levels.map_err(|error| self.damaged(error))?;
            let reader =
                ParquetRecordBatchReader::try_new_with_row_groups(&levels, &pages, batch_rows.max(1), selection)
                    .map_err(|error| self.damaged(error))?;
            return Ok(Columns { segment: self, reader, plain: false });
        }
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.clone(), self.views.clone());
        let mut builder =
            builder.with_projection(mask).with_row_groups(vec![row_group]).with_batch_size(batch_rows.max(1));
        if let Some(selection) = selection {
            builder = builder.with_row_selection(selection);
        }
        let reader = builder.build().map_err(|error| self.damaged(error))?;
        Ok(Columns { segment: self, reader, plain: false })
    }

    /// All records in their order, all columns. **Shape**: as [`OpenSegment::schema`].
    pub fn read_all(&self, batch_rows: usize) -> Result<Columns<'_>, Error> {
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.clone(), self.plain.clone());
        let reader = builder.with_batch_size(batch_rows).build().map_err(|error| self.damaged(error))?;
        Ok(Columns { segment: self, reader, plain: true })
    }

    /// Bytes of these columns of a row group in the file.
    pub fn stored_bytes(&self, row_group: usize, columns: &[usize]) -> u64 {
        let group = self.metadata().row_group(row_group);
        columns.iter().map(|column| group.column(*column).compressed_size().max(0) as u64).sum()
    }

    /// Bytes of these columns of a row group, unpacked.
    pub fn unpacked_bytes(&self, row_group: usize, columns: &[usize]) -> u64 {
        let group = self.metadata().row_group(row_group);
        columns.iter().map(|column| group.column(*column).uncompressed_size().max(0) as u64).sum()
    }
}

/// Batches of a segment's columns.
pub struct Columns<'a> {
    segment: &'a OpenSegment,
    reader: ParquetRecordBatchReader,
    plain: bool,
}

impl Iterator for Columns<'_> {
    type Item = Result<RecordBatch, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let stored = match self.reader.next()? {
            Ok(stored) => stored,
            Err(error) => return Some(Err(self.segment.damaged(error))),
        };
        Some(as_records(&stored, &self.segment.ids, self.plain).map_err(|error| self.segment.damaged(error)))
    }
}

/// Ids as text, times in nanoseconds.
fn as_records(
    stored: &RecordBatch,
    ids: &BTreeMap<String, IdForm>,
    plain: bool,
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let zone = || Some("UTC".into());
    let (mut fields, mut columns): (Vec<Arc<Field>>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
    for (field, array) in stored.schema().fields().iter().zip(stored.columns()) {
        let column = match (ids.get(field.name()), array.data_type()) {
            (Some(form), DataType::FixedSizeBinary(_)) => {
                let views = form.decode(array);
                if plain { arrow::compute::cast(&views, &DataType::Utf8)? } else { views }
            }
            (_, DataType::Timestamp(unit, _)) if *unit != TimeUnit::Nanosecond => {
                arrow::compute::cast(array, &DataType::Timestamp(TimeUnit::Nanosecond, zone()))?
            }
            _ => array.clone(),
        };
        fields.push(Arc::new(Field::new(field.name(), column.data_type().clone(), field.is_nullable())));
        columns.push(column);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(stored.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}

fn with_views(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Utf8 => Arc::new(Field::new(field.name(), DataType::Utf8View, field.is_nullable())),
        _ => field.clone(),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The shapes as a dictionary, which is how they lie in the file: a merge copies their numbers.
fn with_shapes(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| match field.name().as_str() {
        column::SHAPE => Arc::new(Field::new(field.name(), batch::shape_type(), field.is_nullable())),
        _ => field.clone(),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn ids_of(metadata: &ParquetMetaData) -> Result<BTreeMap<String, IdForm>, String> {
    let pairs = metadata.file_metadata().key_value_metadata();
    let ids = pairs.into_iter().flatten().find(|pair| pair.key == "quiver.ids").and_then(|pair| pair.value.as_ref());
    ids.map_or(Ok(BTreeMap::new()), |text| serde_json::from_str(text).map_err(|error| error.to_string()))
}

fn open_or_rebuild(path: &Path, segment: &Arc<Segment>, file: &File, crc32: u32) -> Result<(Index, Vec<u32>), Error> {
    let index_path = paths::index_of(path);
    let opened = Index::open(&index_path).and_then(|index| index.checksums().map(|checksums| (index, checksums)));
    let missing = match opened {
        Ok((index, checksums)) if checksums.len() == (segment.bytes as usize).div_ceil(PIECE_BYTES) => {
            return Ok((index, checksums));
        }
        Ok(_) => "it belongs to another file".to_owned(),
        Err(index::Error::Io { source, .. }) if source.kind() != io::ErrorKind::NotFound => {
            return Err(Error::Io { path: index_path, source });
        }
        Err(error) => error.to_string(),
    };
    tracing::warn!(segment = %path.display(), reason = missing, "the index is made again");
    rebuild(path, segment, file, crc32)
}

/// Makes the index of a segment from its records, once the whole file was seen to be what was written.
fn rebuild(path: &Path, segment: &Arc<Segment>, file: &File, crc32: u32) -> Result<(Index, Vec<u32>), Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let damaged = |reason: String| Error::Damaged { id: segment.id, path: path.to_owned(), reason };
    let (checksums, found) = file::checksums_of(file).map_err(io)?;
    if found != crc32 {
        return Err(damaged("it does not have its checksum".into()));
    }
    let bare = Arc::new(Segment {
        detail: crate::storage::catalog::Detail { crc32: None, ..segment.detail.clone() },
        ..Segment::clone(segment)
    });
    let root = path.ancestors().nth(Path::new(&segment.path).components().count()).unwrap_or(Path::new("/"));
    let open = OpenSegment::open(root, &bare)?;
    let mut builder: Option<IndexBuilder> = None;
    let wanted = 0..open.plain.schema().fields().len();
    for row_group in 0..open.metadata().num_row_groups() {
        let columns: Vec<usize> = wanted.clone().collect();
        let rows = open.metadata().row_group(row_group).num_rows() as usize;
        for batch in open.read(row_group, &columns, None, rows)? {
            let records = plain_texts(&batch?).map_err(|error| damaged(error.to_string()))?;
            let builder = builder.get_or_insert_with(|| IndexBuilder::new(file::value_columns(&open.ids, &records)));
            builder.add_row_group(&records);
        }
    }
    let index_path = paths::index_of(path);
    file::write_index(&index_path, &builder.unwrap_or_default().finish(&checksums)).map_err(io)?;
    let index = Index::open(&index_path).map_err(|error| damaged(error.to_string()))?;
    Ok((index, checksums))
}

fn plain_texts(batch: &RecordBatch) -> Result<RecordBatch, arrow::error::ArrowError> {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, array)| {
        let plain = match array.data_type() {
            DataType::Utf8View => arrow::compute::cast(array, &DataType::Utf8)?,
            _ => array.clone(),
        };
        Ok((field.name().clone(), plain))
    });
    RecordBatch::try_from_iter(columns.collect::<Result<Vec<_>, arrow::error::ArrowError>>()?)
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;

    use super::*;
    use crate::clock::Clock;
    use crate::record::Tenant;
    use crate::storage::{Options, Store};

    #[tokio::test]
    async fn an_index_that_is_made_again_is_what_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Options::new(dir.path()), Clock::manual(0)).await.unwrap();
        let times: Vec<i64> = (0..9_000).map(|n| n * 1_000_000_000).collect();
        let text =
            |of: fn(usize) -> String| Arc::new((0..9_000).map(|n| Some(of(n))).collect::<StringArray>()) as ArrayRef;
        let order_ids = text(|n| format!("order-{n}"));
        let shop_ids = text(|n| format!("shop-{}", n % 7));
        let batch = batch::tests::records(&times, &[("order_id", order_ids), ("shop_id", shop_ids)]);
        let tenant = Tenant::default_tenant();
        store.append(&tenant, batch).await.unwrap();
        store.flush().await.unwrap();
        let (root, segment) = (store.segments_dir(), store.snapshot(&tenant).segments[0].clone());
        let index_path = paths::index_of(&root.join(&segment.path));
        let written = std::fs::read(&index_path).unwrap();
        std::fs::remove_file(&index_path).unwrap();
        OpenSegment::open(&root, &segment).unwrap();
        assert!(std::fs::read(&index_path).unwrap() == written, "it is another index");
        let index = Index::open(&index_path).unwrap();
        let absent = |column: &str| {
            let search = index::Search::Equals { column: column.into(), value: "nowhere".into() };
            index.find(&search).unwrap().map(|blocks| blocks.iter().count())
        };
        assert_eq!(absent("shop_id"), None, "few values are not indexed");
        assert!(absent("order_id").is_some_and(|blocks| blocks <= 1));
        store.close().await.unwrap();
    }
}
