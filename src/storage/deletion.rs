//! Deletion of records: what was asked for, kept in the catalog; and segments written anew without some records. Which
//! records are meant is `query`'s to say; that it is done, `server`'s.
//!
//! **Invariants**: a deletion is in every snapshot from the moment it is acknowledged until its last segment was
//! replaced; it concerns records below its cut-off only, so none that comes later; a segment is replaced by one
//! transaction, which also counts it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int64Type, TimestampNanosecondType};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use sqlx::sqlite::SqliteRow;
use sqlx::{Executor, Row};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::catalog::{self, Catalog, Detail, Segment};
use super::snapshot::{Snapshot, View};
use super::writer::Request;
use super::{Error, Store, paths, segment};
use crate::record::{Tenant, column};

/// Deletions that may be active at once: each costs every scan a condition.
pub const ACTIVE_MAX: usize = 100;
/// Finished deletions that are remembered.
const REMEMBERED_MAX: i64 = 1_000;
/// How long a replaced file stays for queries that began before.
pub const GRACE: Duration = Duration::from_secs(120);

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS deletion (
    id BIGINT PRIMARY KEY, tenant TEXT NOT NULL, filter TEXT NOT NULL, from_ns BIGINT NOT NULL, to_ns BIGINT NOT NULL,
    cutoff_seq BIGINT NOT NULL, state TEXT NOT NULL, segments_done BIGINT NOT NULL, segments_total BIGINT NOT NULL,
    records_removed BIGINT NOT NULL, error TEXT, requested_ns BIGINT NOT NULL
);";

/// Where a deletion stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its records are hidden from queries, and being removed from segments.
    Active,
    /// No segment has its records any more.
    Done,
    /// Ended by its owner; what was removed stays removed.
    Cancelled,
    /// Its condition can't be evaluated any more; see its error.
    Failed,
}

impl State {
    const ALL: [State; 4] = [State::Active, State::Done, State::Cancelled, State::Failed];

    /// Its name in the catalog and in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Active => "active",
            State::Done => "done",
            State::Cancelled => "cancelled",
            State::Failed => "failed",
        }
    }
}

/// A deletion as asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Whose records.
    pub tenant: Tenant,
    /// An SQL condition on a record, checked by `query`.
    pub filter: String,
    /// Only records from this time on; `i64::MIN` when open. **Units**: ns.
    pub from_ns: i64,
    /// Only records before this time; `i64::MAX` when open. **Units**: ns.
    pub to_ns: i64,
}

/// A deletion and how far it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Deletion {
    /// Its number in the store.
    pub id: i64,
    /// What was asked for.
    pub wanted: Wanted,
    /// Only records whose `_seq` is below.
    pub cutoff_seq: i64,
    /// Where it stands.
    pub state: State,
    /// Segments that were looked through.
    pub segments_done: u64,
    /// Segments to look through, as far as known.
    pub segments_total: u64,
    /// Records that were removed.
    pub records_removed: u64,
    /// What stands in its way.
    pub error: Option<String>,
    /// When it was asked for, ns.
    pub requested_ns: i64,
}

impl Deletion {
    /// Whether a segment may hold records of it.
    pub fn concerns(&self, segment: &Segment) -> bool {
        segment.tenant == self.wanted.tenant
            && segment.min_seq < self.cutoff_seq
            && segment.min_ts < self.wanted.to_ns
            && segment.max_ts >= self.wanted.from_ns
    }

    fn of_row(row: &SqliteRow) -> Result<Deletion, String> {
        let (tenant, state): (&str, &str) = (row.get("tenant"), row.get("state"));
        let known = State::ALL.into_iter().find(|known| known.as_str() == state);
        Ok(Deletion {
            id: row.get("id"),
            wanted: Wanted {
                tenant: Tenant::parse(tenant).ok_or_else(|| format!("'{tenant}' is no tenant"))?,
                filter: row.get("filter"),
                from_ns: row.get("from_ns"),
                to_ns: row.get("to_ns"),
            },
            cutoff_seq: row.get("cutoff_seq"),
            state: known.ok_or_else(|| format!("'{state}' is no state of a deletion"))?,
            segments_done: row.get::<i64, _>("segments_done") as u64,
            segments_total: row.get::<i64, _>("segments_total") as u64,
            records_removed: row.get::<i64, _>("records_removed") as u64,
            error: row.get("error"),
            requested_ns: row.get("requested_ns"),
        })
    }
}

/// What happened to a segment that was to be written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rewrite {
    /// It was replaced; so many records are gone.
    Replaced(u64),
    /// It is not live any more: compaction or expiry came first.
    Gone,
}

/// A change of deletions and segments, made by the writer.
pub(super) enum Change {
    /// Make a deletion active.
    Begin { wanted: Wanted, requested_ns: i64, done: oneshot::Sender<Result<Deletion, Error>> },
    /// Make an active deletion inactive; `None` when it is not there, or not active.
    End { id: i64, state: State, error: Option<String>, done: oneshot::Sender<Result<Option<Deletion>, Error>> },
    /// Put a rewritten segment into the place of the old one.
    Replace { rewritten: Box<Rewritten>, deletion: i64, done: oneshot::Sender<Result<Rewrite, Error>> },
}

/// A segment written anew, not live yet.
pub(super) struct Rewritten {
    old: Arc<Segment>,
    /// As `old`, with other records; `None` when none is left. Its id and path are still the old one's.
    new: Option<Segment>,
    /// Where it was written.
    unfinished: PathBuf,
}

/// What of the writer a change needs.
pub(super) struct Parts<'a> {
    pub view: &'a mut View,
    pub catalog: &'a Catalog,
    pub runtime: &'a Handle,
    pub next_seq: u64,
    /// No flush runs, so the next id is free.
    pub next_segment: &'a mut i64,
    pub segments_dir: PathBuf,
    pub fields_max: usize,
    pub replaced: &'a Replaced,
}

/// The answer to a change, to be given once the view is public.
pub(super) type Answer = Box<dyn FnOnce()>;

fn answer<T: 'static>(done: oneshot::Sender<T>, outcome: T) -> Answer {
    // Who went away does not need the answer.
    Box::new(move || drop(done.send(outcome)))
}

impl Change {
    /// Makes the change in catalog and view.
    pub(super) fn apply(self, parts: Parts<'_>) -> Answer {
        match self {
            Change::Begin { wanted, requested_ns, done } => answer(done, begin(wanted, requested_ns, parts)),
            Change::End { id, state, error, done } => answer(done, end(id, state, error, parts)),
            Change::Replace { rewritten, deletion, done } => answer(done, replace(&rewritten, deletion, parts)),
        }
    }
}

fn begin(wanted: Wanted, requested_ns: i64, parts: Parts<'_>) -> Result<Deletion, Error> {
    let active: usize = parts.view.tenants.values().map(|snapshot| snapshot.deletions.len()).sum();
    if active >= ACTIVE_MAX {
        return Err(Error::TooManyDeletions(ACTIVE_MAX));
    }
    let cutoff_seq = parts.next_seq as i64;
    let deletion = parts.runtime.block_on(parts.catalog.insert_deletion(wanted, cutoff_seq, requested_ns))?;
    let snapshot = parts.view.tenants.entry(deletion.wanted.tenant.clone()).or_default();
    let snapshot = Arc::make_mut(snapshot);
    snapshot.deletions = snapshot.deletions.iter().cloned().chain([deletion.clone()]).collect();
    Ok(deletion)
}

fn end(id: i64, state: State, error: Option<String>, parts: Parts<'_>) -> Result<Option<Deletion>, Error> {
    let ended = parts.runtime.block_on(parts.catalog.end_deletion(id, state, error))?;
    for snapshot in parts.view.tenants.values_mut() {
        if snapshot.deletions.iter().any(|deletion| deletion.id == id) {
            let snapshot = Arc::make_mut(snapshot);
            snapshot.deletions = snapshot.deletions.iter().filter(|deletion| deletion.id != id).cloned().collect();
        }
    }
    Ok(ended)
}

fn replace(rewritten: &Rewritten, deletion: i64, parts: Parts<'_>) -> Result<Rewrite, Error> {
    let old = &rewritten.old;
    let live = parts.view.tenants.get_mut(&old.tenant);
    let Some(snapshot) = live.filter(|snapshot| snapshot.segments.iter().any(|live| live.path == old.path)) else {
        // It is garbage like any file that the catalog does not name; the next start sweeps what can't be removed now.
        let _ = fs::remove_file(&rewritten.unfinished);
        return Ok(Rewrite::Gone);
    };
    let new = match rewritten.new.clone() {
        None => None,
        Some(mut new) => {
            new.id = *parts.next_segment;
            new.path = paths::segment(&new.tenant, &new.day, new.class.as_str(), new.id);
            let path = parts.segments_dir.join(&new.path);
            let renamed = fs::rename(&rewritten.unfinished, &path).and_then(|()| {
                let dir = path.parent().expect("a segment lies in a directory");
                File::open(dir)?.sync_all()
            });
            renamed.map_err(|source| segment::Error::Io { path, source })?;
            Some(new)
        }
    };
    let removed = old.records - new.as_ref().map_or(0, |new| new.records);
    let next_segment = *parts.next_segment + i64::from(new.is_some());
    let replaced = parts.catalog.replace_for_deletion(old, new.as_ref(), next_segment, deletion, removed);
    parts.runtime.block_on(replaced)?;
    *parts.next_segment = next_segment;
    let snapshot = Arc::make_mut(snapshot);
    snapshot.segments.retain(|live| live.path != old.path);
    if let Some(new) = new {
        snapshot.add_segment(new, parts.fields_max);
    }
    parts.replaced.add(parts.segments_dir.join(&old.path));
    Ok(Rewrite::Replaced(removed))
}

/// Files of replaced segments, until no query can read them any more. A restart sweeps them.
#[derive(Debug, Default)]
pub(super) struct Replaced(Mutex<Vec<(Instant, PathBuf)>>);

impl Replaced {
    fn add(&self, path: PathBuf) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), path));
    }

    /// Unlinks those that were replaced so long ago; how many are left.
    fn remove(&self, grace: Duration) -> usize {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|(since, path)| {
            let due = since.elapsed() >= grace;
            let index = path.with_extension("index");
            if due && index.exists() {
                // As for the segment: what can't be removed now is swept at the next start.
                let _ = fs::remove_file(&index);
            }
            !due || fs::remove_file(path).is_err_and(|error| error.kind() != std::io::ErrorKind::NotFound)
        });
        files.len()
    }
}

/// Deletions in the catalog.
impl Catalog {
    fn deletion_failed(&self, source: sqlx::Error) -> catalog::Error {
        catalog::Error::Database { path: self.path().to_owned(), source }
    }

    fn deletion_of(&self, row: &SqliteRow) -> Result<Deletion, catalog::Error> {
        Deletion::of_row(row).map_err(|reason| {
            let path = self.path().to_owned();
            catalog::Error::DamagedDeletion { path, id: row.get("id"), reason }
        })
    }

    /// All that are remembered, oldest first.
    pub(super) async fn deletions(&self) -> Result<Vec<Deletion>, catalog::Error> {
        self.pool().execute(SCHEMA).await.map_err(|error| self.deletion_failed(error))?;
        let rows = sqlx::query("SELECT * FROM deletion ORDER BY id").fetch_all(self.pool()).await;
        rows.map_err(|error| self.deletion_failed(error))?.iter().map(|row| self.deletion_of(row)).collect()
    }

    async fn insert_deletion(
        &self,
        wanted: Wanted,
        cutoff_seq: i64,
        requested_ns: i64,
    ) -> Result<Deletion, catalog::Error> {
        let forget = "DELETE FROM deletion WHERE state <> 'active' AND id NOT IN \
                      (SELECT id FROM deletion ORDER BY id DESC LIMIT $1)";
        let insert = "INSERT INTO deletion (id, tenant, filter, from_ns, to_ns, cutoff_seq, state, segments_done, \
                      segments_total, records_removed, error, requested_ns) \
                      SELECT coalesce(max(id), 0) + 1, $1, $2, $3, $4, $5, $6, 0, 0, 0, NULL, $7 FROM deletion \
                      RETURNING *";
        let inserted = async {
            let mut transaction = self.pool().begin().await?;
            sqlx::query(forget).bind(REMEMBERED_MAX).execute(&mut *transaction).await?;
            let row = sqlx::query(insert)
                .bind(wanted.tenant.as_str())
                .bind(&wanted.filter)
                .bind(wanted.from_ns)
                .bind(wanted.to_ns)
                .bind(cutoff_seq)
                .bind(State::Active.as_str())
                .bind(requested_ns)
                .fetch_one(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok(row)
        };
        self.deletion_of(&inserted.await.map_err(|error| self.deletion_failed(error))?)
    }

    async fn end_deletion(
        &self,
        id: i64,
        state: State,
        error: Option<String>,
    ) -> Result<Option<Deletion>, catalog::Error> {
        let update = "UPDATE deletion SET state = $1, error = $2 WHERE id = $3 AND state = 'active' RETURNING *";
        let row = sqlx::query(update).bind(state.as_str()).bind(error).bind(id).fetch_optional(self.pool()).await;
        row.map_err(|error| self.deletion_failed(error))?.map(|row| self.deletion_of(&row)).transpose()
    }

    async fn note_deletion(&self, id: i64, done: u64, total: u64, error: Option<String>) -> Result<(), catalog::Error> {
        let update = "UPDATE deletion SET segments_done = $1, segments_total = $2, error = $3 WHERE id = $4";
        let query = sqlx::query(update).bind(done as i64).bind(total as i64).bind(error).bind(id);
        query.execute(self.pool()).await.map(drop).map_err(|error| self.deletion_failed(error))
    }

    /// Puts `new` into the place of `old`, or nothing, and counts the records that are gone; all or nothing.
    async fn replace_for_deletion(
        &self,
        old: &Segment,
        new: Option<&Segment>,
        next_segment: i64,
        deletion: i64,
        removed: u64,
    ) -> Result<(), catalog::Error> {
        let replaced = async {
            let mut transaction = self.pool().begin().await?;
            let update = "UPDATE segment SET id = $1, path = $2, records = $3, bytes = $4, min_ts = $5, max_ts = $6, \
                          min_seq = $7, max_seq = $8, detail = $9 WHERE id = $10 AND path = $11";
            let query = match new {
                None => sqlx::query("DELETE FROM segment WHERE id = $1 AND path = $2"),
                Some(new) => sqlx::query(update)
                    .bind(new.id)
                    .bind(&new.path)
                    .bind(new.records as i64)
                    .bind(new.bytes as i64)
                    .bind(new.min_ts)
                    .bind(new.max_ts)
                    .bind(new.min_seq)
                    .bind(new.max_seq)
                    .bind(serde_json::to_string(&new.detail).expect("strings and lists always serialise")),
            };
            let changed = query.bind(old.id).bind(&old.path).execute(&mut *transaction).await?;
            if changed.rows_affected() != 1 {
                return Err(sqlx::Error::RowNotFound);
            }
            let update = "UPDATE store SET next_segment = $1 WHERE id = 1";
            sqlx::query(update).bind(next_segment).execute(&mut *transaction).await?;
            let update = "UPDATE deletion SET records_removed = records_removed + $1 WHERE id = $2";
            sqlx::query(update).bind(removed as i64).bind(deletion).execute(&mut *transaction).await?;
            transaction.commit().await
        };
        replaced.await.map_err(|error| self.deletion_failed(error))
    }
}

impl View {
    /// Adds the deletions that were active when the store was closed.
    pub(super) fn add_deletions(&mut self, deletions: Vec<Deletion>) {
        for deletion in deletions.into_iter().filter(|deletion| deletion.state == State::Active) {
            let snapshot: &mut Snapshot =
                Arc::make_mut(self.tenants.entry(deletion.wanted.tenant.clone()).or_default());
            snapshot.deletions = snapshot.deletions.iter().cloned().chain([deletion]).collect();
        }
    }
}

impl Store {
    /// Makes a deletion active: it is in the catalog, and in every snapshot taken after.
    ///
    /// **Errors**: [`Error::TooManyDeletions`].
    pub async fn begin_deletion(&self, wanted: Wanted, requested_ns: i64) -> Result<Deletion, Error> {
        self.change(|done| Change::Begin { wanted, requested_ns, done }).await
    }

    /// Ends an active deletion; `None` when there is none of this number.
    pub async fn end_deletion(&self, id: i64, state: State, error: Option<String>) -> Result<Option<Deletion>, Error> {
        self.change(|done| Change::End { id, state, error, done }).await
    }

    /// All deletions that are remembered, oldest first.
    pub async fn deletions(&self) -> Result<Vec<Deletion>, Error> {
        Ok(self.catalog.deletions().await?)
    }

    /// Remembers how far a deletion is, for people.
    pub async fn note_deletion(&self, id: i64, done: u64, total: u64, error: Option<String>) -> Result<(), Error> {
        Ok(self.catalog.note_deletion(id, done, total, error).await?)
    }

    /// Replaces a segment by one without the records of these numbers (ascending), for a deletion.
    ///
    /// **Errors**: the segment can't be read or written; it is live as before then.
    pub async fn rewrite_without(&self, old: &Arc<Segment>, seqs: Vec<i64>, deletion: i64) -> Result<Rewrite, Error> {
        let (root, segment) = (self.segments_dir(), old.clone());
        let work = move || {
            let unfinished = root.join(&segment.path).with_extension(format!("{deletion}{}", paths::UNFINISHED_SUFFIX));
            let new = write_without(&root.join(&segment.path), &segment, &seqs, &unfinished)?;
            Ok::<_, Error>(Rewritten { old: segment, new, unfinished })
        };
        let rewritten = Box::new(tokio::task::spawn_blocking(work).await.map_err(|_| Error::Closed)??);
        self.change(|done| Change::Replace { rewritten, deletion, done }).await
    }

    /// Unlinks the files of segments that were replaced longer than `grace` ago; how many wait still.
    pub fn remove_replaced(&self, grace: Duration) -> usize {
        self.shared.replaced.remove(grace)
    }

    async fn change<T>(&self, change: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Change) -> Result<T, Error> {
        let (done, answer) = oneshot::channel();
        self.requests.send(Request::Change(change(done))).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }
}

/// Writes the records of a segment that are not among `seqs` to `to`, row group by row group, and fsyncs it; `None`, and
/// no file, when none is left.
fn write_without(from: &Path, old: &Segment, seqs: &[i64], to: &Path) -> Result<Option<Segment>, Error> {
    let read_failed = |source| segment::Error::Io { path: from.to_owned(), source };
    let decode = |source| segment::Error::Encode { path: from.to_owned(), source };
    let encode = |source| segment::Error::Encode { path: to.to_owned(), source };
    let write_failed = |source| segment::Error::Io { path: to.to_owned(), source };

    let file = File::open(from).map_err(read_failed)?;
    let metadata = ArrowReaderMetadata::load(&file, Default::default()).map_err(decode)?;
    let own = metadata.metadata().file_metadata().key_value_metadata().cloned().unwrap_or_default();
    let own = own.into_iter().filter(|pair| pair.key != parquet::arrow::ARROW_SCHEMA_META_KEY).collect();
    let properties = WriterProperties::builder()
        .set_created_by(concat!("quiver ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_key_value_metadata(Some(own))
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).expect("zstd has a level 3")))
        .build();
    let buffered = BufWriter::with_capacity(1 << 20, File::create(to).map_err(write_failed)?);
    let mut writer = ArrowWriter::try_new(buffered, metadata.schema().clone(), Some(properties)).map_err(encode)?;
    let mut left = Left::default();
    for group in 0..metadata.metadata().num_row_groups() {
        let file = file.try_clone().map_err(read_failed)?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata.clone());
        for batch in builder.with_row_groups(vec![group]).build().map_err(decode)? {
            let batch = batch?;
            let numbers = batch.column_by_name(column::SEQ).and_then(|numbers| numbers.as_primitive_opt::<Int64Type>());
            let numbers = numbers.ok_or_else(|| Error::Frame(format!("'{}' has no _seq", from.display())))?;
            let keep: BooleanArray =
                numbers.values().iter().map(|seq| Some(seqs.binary_search(seq).is_err())).collect();
            let kept = filter_record_batch(&batch, &keep)?;
            if kept.num_rows() > 0 {
                left.count(&kept);
                writer.write(&kept).map_err(encode)?;
            }
        }
        writer.flush().map_err(encode)?;
    }
    let file = writer.into_inner().map_err(encode)?.into_inner().map_err(|error| write_failed(error.into_error()))?;
    if left.records == 0 {
        drop(file);
        fs::remove_file(to).map_err(write_failed)?;
        return Ok(None);
    }
    file.sync_all().map_err(write_failed)?;
    let bytes = file.metadata().map_err(write_failed)?.len();
    Ok(Some(left.describe(old, bytes)))
}

/// What is left of a segment.
#[derive(Default)]
struct Left {
    records: u64,
    time: Option<(i64, i64)>,
    seq: Option<(i64, i64)>,
    levels: Option<BTreeSet<Option<String>>>,
    services: Option<BTreeSet<Option<String>>>,
}

impl Left {
    fn count(&mut self, batch: &RecordBatch) {
        self.records += batch.num_rows() as u64;
        let times =
            batch.column_by_name(column::TIMESTAMP).map(|times| times.as_primitive::<TimestampNanosecondType>());
        let seqs = batch.column_by_name(column::SEQ).map(|seqs| seqs.as_primitive::<Int64Type>());
        let widen = |known: Option<(i64, i64)>, values: &[i64]| {
            values.iter().fold(known, |known, value| {
                known.map_or(Some((*value, *value)), |(min, max)| Some((min.min(*value), max.max(*value))))
            })
        };
        self.time = widen(self.time, times.map_or(&[], |times| times.values()));
        self.seq = widen(self.seq, seqs.map_or(&[], |seqs| seqs.values()));
        for (name, found) in [(column::LEVEL, &mut self.levels), (column::SERVICE, &mut self.services)] {
            if let Some(texts) = batch.column_by_name(name).and_then(|texts| texts.as_string_opt::<i32>()) {
                let found = found.get_or_insert_default();
                for text in texts {
                    if !found.contains(&text.map(str::to_owned)) {
                        found.insert(text.map(str::to_owned));
                    }
                }
            }
        }
    }

    fn describe(self, old: &Segment, bytes: u64) -> Segment {
        let (min_ts, max_ts) = self.time.unwrap_or((old.min_ts, old.max_ts));
        let (min_seq, max_seq) = self.seq.unwrap_or((old.min_seq, old.max_seq));
        let list = |found: BTreeSet<Option<String>>| found.into_iter().collect::<Vec<_>>();
        let detail = Detail {
            levels: self.levels.map_or_else(|| old.detail.levels.clone(), list),
            // A list that was too long stays away.
            services: old.detail.services.clone().map(|services| self.services.map_or(services, list)),
            ..old.detail.clone()
        };
        Segment { records: self.records, bytes, min_ts, max_ts, min_seq, max_seq, detail, ..old.clone() }
    }
}
