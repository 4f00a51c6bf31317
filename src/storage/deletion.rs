//! Deletion of records: what was asked for, kept in the catalog; and segments written anew without some records. Which
//! records are meant is `query`'s to say; that it is done, `server`'s.
//!
//! **Invariants**: a deletion is in every snapshot from the moment it is acknowledged until its last segment was
//! replaced; it concerns records below its cut-off only, so none that comes later; a segment is replaced by one
//! transaction, which also counts it. A segment that could not be looked through is never read without it: the deletion
//! waits, and is active again before a snapshot has the segment.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::Int64Type;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::catalog::{self, Catalog, History, Segment};
use super::snapshot::{Snapshot, View};
use super::writer::Request;
use super::{Error, Store};
use crate::record::{Tenant, column};

/// Deletions that may be active at once: each costs every scan a condition.
pub const ACTIVE_MAX: usize = 100;
/// Deletions that may wait at once: they cost nothing until their segments are back.
const WAITING_MAX: i64 = 1_000;
/// Segments named in a message about a deletion that waits.
const AWAITED_NAMED: usize = 3;
/// Finished deletions that are remembered.
const REMEMBERED_MAX: i64 = 1_000;

/// Where a deletion stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its records are hidden from queries, and being removed from segments.
    Active,
    /// No segment that is read has its records; quarantined ones may. It is active again once one of them is back.
    Waiting,
    /// No segment has its records any more.
    Done,
    /// Ended by its owner; what was removed stays removed.
    Cancelled,
    /// Its condition can't be evaluated any more; see its error.
    Failed,
}

impl State {
    const ALL: [State; 5] = [State::Active, State::Waiting, State::Done, State::Cancelled, State::Failed];

    /// Whether something is left to be done.
    pub fn is_open(self) -> bool {
        matches!(self, State::Active | State::Waiting)
    }

    /// Its name in the catalog and in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Active => "active",
            State::Waiting => "waiting",
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
    /// The quarantined segments, by id, that it waits for, or last waited for.
    pub awaits: Vec<i64>,
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
            awaits: serde_json::from_str(row.get("awaits")).map_err(|error| format!("what it awaits: {error}"))?,
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
    /// Make a deletion inactive; `None` when it is not there, or was ended before.
    End { id: i64, ending: Ending, done: oneshot::Sender<Result<Option<Deletion>, Error>> },
    /// Keep the id of a segment for a rewritten one.
    Reserve { done: oneshot::Sender<Result<i64, Error>> },
    /// Put a rewritten segment into the place of the old one.
    Replace { rewritten: Box<Rewritten>, deletion: i64, done: oneshot::Sender<Result<Rewrite, Error>> },
}

/// How a deletion stops to be active.
pub(super) struct Ending {
    state: State,
    error: Option<String>,
    /// The segments that it waits for.
    awaits: Vec<i64>,
}

/// A segment written anew, not live yet.
pub(super) struct Rewritten {
    old: Arc<Segment>,
    /// Its other records; `None` when none is left.
    new: Option<Segment>,
}

/// What of the writer a change needs.
pub(super) struct Parts<'a> {
    pub view: &'a mut View,
    pub catalog: &'a Catalog,
    pub runtime: &'a Handle,
    pub next_seq: u64,
    /// No flush runs, so the next id is free.
    pub next_segment: &'a mut i64,
    pub fields_max: usize,
    /// The segment that is not live any more.
    pub replaced: &'a mut Option<Arc<Segment>>,
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
            Change::End { id, ending, done } => answer(done, end(id, ending, parts)),
            Change::Reserve { done } => {
                *parts.next_segment += 1;
                answer(done, Ok(*parts.next_segment - 1))
            }
            Change::Replace { rewritten, deletion, done } => answer(done, replace(*rewritten, deletion, parts)),
        }
    }
}

fn begin(wanted: Wanted, requested_ns: i64, parts: Parts<'_>) -> Result<Deletion, Error> {
    let active: usize = parts.view.tenants.values().map(|snapshot| snapshot.deletions.len()).sum();
    if active >= ACTIVE_MAX {
        return Err(Error::TooManyDeletions(ACTIVE_MAX));
    }
    if parts.runtime.block_on(parts.catalog.waiting_deletions())? >= WAITING_MAX {
        return Err(Error::TooManyWaiting(WAITING_MAX));
    }
    let cutoff_seq = parts.next_seq as i64;
    let deletion = parts.runtime.block_on(parts.catalog.insert_deletion(wanted, cutoff_seq, requested_ns))?;
    let snapshot = parts.view.tenants.entry(deletion.wanted.tenant.clone()).or_default();
    let snapshot = Arc::make_mut(snapshot);
    snapshot.deletions = snapshot.deletions.iter().cloned().chain([deletion.clone()]).collect();
    Ok(deletion)
}

fn end(id: i64, ending: Ending, parts: Parts<'_>) -> Result<Option<Deletion>, Error> {
    let ended = parts.runtime.block_on(parts.catalog.end_deletion(id, ending))?;
    for snapshot in parts.view.tenants.values_mut() {
        if snapshot.deletions.iter().any(|deletion| deletion.id == id) {
            let snapshot = Arc::make_mut(snapshot);
            snapshot.deletions = snapshot.deletions.iter().filter(|deletion| deletion.id != id).cloned().collect();
        }
    }
    Ok(ended)
}

fn replace(rewritten: Rewritten, deletion: i64, parts: Parts<'_>) -> Result<Rewrite, Error> {
    let Rewritten { old, new } = rewritten;
    let live = parts.view.tenants.get_mut(&old.tenant);
    let Some(snapshot) = live.filter(|snapshot| snapshot.segments.iter().any(|live| live.id == old.id)) else {
        // What was written is garbage, as any file that the catalog does not name.
        *parts.replaced = new.map(Arc::new);
        return Ok(Rewrite::Gone);
    };
    let new = new.map(|new| {
        let written_bytes = old.history.written_bytes + new.bytes;
        Segment { history: History { written_bytes, ..old.history.clone() }, ..new }
    });
    let removed = old.records - new.as_ref().map_or(0, |new| new.records);
    let replaced = parts.catalog.replace_for_deletion(&old, new.as_ref(), *parts.next_segment, deletion, removed);
    parts.runtime.block_on(replaced)?;
    let snapshot = Arc::make_mut(snapshot);
    snapshot.segments.retain(|live| live.id != old.id);
    if let Some(new) = new {
        snapshot.add_segment(new, parts.fields_max);
    }
    *parts.replaced = Some(old);
    Ok(Rewrite::Replaced(removed))
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
        let rows = sqlx::query("SELECT * FROM deletion ORDER BY id").fetch_all(self.pool()).await;
        rows.map_err(|error| self.deletion_failed(error))?.iter().map(|row| self.deletion_of(row)).collect()
    }

    async fn waiting_deletions(&self) -> Result<i64, catalog::Error> {
        let count = sqlx::query("SELECT count(*) FROM deletion WHERE state = $1").bind(State::Waiting.as_str());
        Ok(count.fetch_one(self.pool()).await.map_err(|error| self.deletion_failed(error))?.get(0))
    }

    /// Makes deletions active again that wait for one of these segments, which are read again.
    pub(super) async fn wake_deletions(&self, live: &HashSet<i64>) -> Result<(), catalog::Error> {
        let is_back = |found: &Deletion| found.awaits.iter().any(|segment| live.contains(segment));
        for found in self.deletions().await?.iter().filter(|found| found.state == State::Waiting && is_back(found)) {
            let update = sqlx::query("UPDATE deletion SET state = $1, error = NULL WHERE id = $2");
            let update = update.bind(State::Active.as_str()).bind(found.id).execute(self.pool()).await;
            update.map_err(|error| self.deletion_failed(error))?;
            tracing::info!(id = found.id, "a deletion goes on: a segment that it waited for is back");
        }
        Ok(())
    }

    async fn insert_deletion(
        &self,
        wanted: Wanted,
        cutoff_seq: i64,
        requested_ns: i64,
    ) -> Result<Deletion, catalog::Error> {
        let forget = "DELETE FROM deletion WHERE state NOT IN ('active', 'waiting') AND id NOT IN \
                      (SELECT id FROM deletion ORDER BY id DESC LIMIT $1)";
        let insert = "INSERT INTO deletion (id, tenant, filter, from_ns, to_ns, cutoff_seq, state, segments_done, \
                      segments_total, records_removed, error, requested_ns, awaits) \
                      SELECT coalesce(max(id), 0) + 1, $1, $2, $3, $4, $5, $6, 0, 0, 0, NULL, $7, '[]' FROM deletion \
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

    async fn end_deletion(&self, id: i64, ending: Ending) -> Result<Option<Deletion>, catalog::Error> {
        let update = "UPDATE deletion SET state = $1, error = $2, awaits = $3 \
                      WHERE id = $4 AND state IN ('active', 'waiting') RETURNING *";
        let awaits = serde_json::to_string(&ending.awaits).expect("numbers always serialise");
        let update = sqlx::query(update).bind(ending.state.as_str()).bind(ending.error).bind(awaits).bind(id);
        let row = update.fetch_optional(self.pool()).await;
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
            let delete = sqlx::query("DELETE FROM segment WHERE id = $1").bind(old.id);
            if delete.execute(&mut *transaction).await?.rows_affected() != 1 {
                return Err(sqlx::Error::RowNotFound);
            }
            if let Some(new) = new {
                catalog::insert(&mut transaction, new).await?;
            }
            catalog::raise_next_segment(&mut transaction, next_segment).await?;
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

    /// Ends a deletion that is active or waits; `None` when there is none of this number.
    pub async fn end_deletion(&self, id: i64, state: State, error: Option<String>) -> Result<Option<Deletion>, Error> {
        let ending = Ending { state, error, awaits: Vec::new() };
        self.change(|done| Change::End { id, ending, done }).await
    }

    /// Lets a deletion wait for quarantined segments; with these open again, or gone for good, it goes on.
    pub async fn suspend_deletion(&self, id: i64, awaited: &[&Arc<Segment>]) -> Result<Option<Deletion>, Error> {
        let paths: Vec<&str> = awaited.iter().take(AWAITED_NAMED).map(|segment| segment.path.as_str()).collect();
        let more = if awaited.len() > paths.len() { ", …" } else { "" };
        let (count, paths) = (awaited.len(), paths.join(", "));
        let error = format!("{count} quarantined segments may have its records, and it waits for them: {paths}{more}");
        let awaits = awaited.iter().map(|segment| segment.id).collect();
        let ending = Ending { state: State::Waiting, error: Some(error), awaits };
        self.change(|done| Change::End { id, ending, done }).await
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
        let id = self.change(|done| Change::Reserve { done }).await?;
        let (root, segment) = (self.segments_dir(), old.clone());
        let (limits, shared) = (self.options.segment_limits(), self.shared.clone());
        let work = move || {
            let kept = |batch: &RecordBatch| {
                let numbers = batch.column_by_name(column::SEQ)?.as_primitive_opt::<Int64Type>()?;
                Some(
                    numbers.values().iter().map(|seq| Some(seqs.binary_search(seq).is_err())).collect::<BooleanArray>(),
                )
            };
            let inputs = std::slice::from_ref(&segment);
            let new = shared.merge(&root, inputs, limits, id, &kept, &AtomicBool::new(false))?;
            Ok::<_, Error>(Rewritten { old: segment, new })
        };
        let rewritten = Box::new(tokio::task::spawn_blocking(work).await.map_err(|_| Error::Closed)??);
        self.change(|done| Change::Replace { rewritten, deletion, done }).await
    }

    async fn change<T>(&self, change: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Change) -> Result<T, Error> {
        let (done, answer) = oneshot::channel();
        self.requests.send(Request::Change(change(done))).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }
}
