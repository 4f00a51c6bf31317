//! What the writer does beside requests and flushes: merges, expiry, the disk quota, quarantine, and the unlinking of
//! files that nobody reads any more. It decides nothing: `compact`, `retention` and `quota` are pure and do.
//!
//! **Invariant**: a segment's files are unlinked only after the catalog dropped it and the last snapshot that has it is
//! gone; so a running query reads what it started with, whatever is merged or expires meanwhile.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::catalog::{self, History, Segment};
use super::compact::{self, Eagerness, Merge};
use super::snapshot::View;
use super::writer::{Request, Writer};
use super::{Compacted, Error, paths, quota, retention, segment};

/// How often files of removed segments are looked at, while there are some.
const BURY_EVERY: Duration = Duration::from_millis(500);
/// How often merges are planned, unless segments changed; more often when the quiet time is short.
const PLAN_EVERY_MAX: Duration = Duration::from_secs(10);
const PLAN_EVERY_MIN: Duration = Duration::from_millis(100);
/// Segments whose merge failed are left alone for so long; doubles up to the maximum.
const HOLD_MIN: Duration = Duration::from_secs(5);
const HOLD_MAX: Duration = Duration::from_secs(3600);

/// The state of it.
pub(super) struct Upkeep {
    merge: Option<Running>,
    /// Inputs of merges that failed: until when they are left alone, and how long that is.
    held: HashMap<i64, (Instant, Duration)>,
    /// Segments that the catalog dropped and somebody may still read.
    graveyard: Vec<Arc<Segment>>,
    /// Takes the objects of segments that are gone.
    removals: mpsc::Sender<String>,
    /// Directories that may have become empty.
    left_dirs: BTreeSet<PathBuf>,
    /// Who asked for all merges, and what was done for them.
    forced: Vec<oneshot::Sender<Result<Compacted, Error>>>,
    forced_done: Compacted,
    round_at: Instant,
    plan_at: Instant,
    bury_at: Instant,
}

struct Running {
    inputs: Vec<Arc<Segment>>,
    started: Instant,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Upkeep {
    /// The first look for expired segments comes after a whole interval: what was just recovered can be looked at.
    pub(super) fn new(check_every: Duration, removals: mpsc::Sender<String>) -> Upkeep {
        let now = Instant::now();
        Upkeep {
            merge: None,
            held: HashMap::new(),
            graveyard: Vec::new(),
            removals,
            left_dirs: BTreeSet::new(),
            forced: Vec::new(),
            forced_done: Compacted::default(),
            round_at: now + check_every,
            plan_at: now,
            bury_at: now,
        }
    }

    /// How long nothing becomes due by itself; the end of a flush or a merge comes as a request.
    pub(super) fn wait_max(&self, flush_runs: bool) -> Duration {
        let mut at = self.round_at;
        if self.merge.is_none() && !flush_runs {
            at = at.min(self.plan_at);
        }
        if !self.graveyard.is_empty() || !self.left_dirs.is_empty() {
            at = at.min(self.bury_at);
        }
        at.saturating_duration_since(Instant::now())
    }

    /// Plans anew at the next occasion: segments changed.
    pub(super) fn plan_now(&mut self) {
        self.plan_at = Instant::now();
    }
}

impl Writer {
    /// Whatever is due now.
    pub(super) fn upkeep_when_due(&mut self, runtime: &Handle) {
        if self.closing {
            return;
        }
        let now = Instant::now();
        if self.upkeep.round_at <= now {
            self.expire(runtime);
            self.keep_quota(runtime);
            self.upkeep.round_at = Instant::now() + self.options.rules.check_every();
        }
        // A merge starts between flushes, so that both know which ids are theirs; then they run beside each other.
        if self.upkeep.plan_at <= now && self.upkeep.merge.is_none() && !self.flush_runs() {
            self.merge_when_due();
        }
        if self.upkeep.bury_at <= now && !(self.upkeep.graveyard.is_empty() && self.upkeep.left_dirs.is_empty()) {
            self.bury();
            self.upkeep.bury_at = Instant::now() + BURY_EVERY;
        }
    }

    /// Ends what runs: a merge is abandoned, its inputs stay live, what it wrote is swept at the next start.
    pub(super) fn end_upkeep(&mut self) {
        for done in std::mem::take(&mut self.upkeep.forced) {
            let _ = done.send(Err(Error::Closed));
        }
        if let Some(running) = &self.upkeep.merge {
            running.stop.store(true, Ordering::Relaxed);
        }
    }

    /// Waits for the thread of the merge; nobody listens to it any more.
    pub(super) fn join_merge(&mut self) {
        if let Some(running) = self.upkeep.merge.take() {
            running.thread.join().expect("a merge's panic is caught");
        }
        self.bury();
    }

    fn all_segments(&self) -> Vec<Arc<Segment>> {
        self.shared.view.load().all_segments()
    }

    /// Plans, and starts the first merge; with nothing left to do, answers those who asked for all.
    fn merge_when_due(&mut self) {
        let merges = self.plan(Eagerness::Due);
        self.publish_pending(&merges);
        let merges = if self.upkeep.forced.is_empty() { merges } else { self.plan(Eagerness::Forced) };
        match merges.into_iter().next() {
            Some(merge) => self.start_merge(merge),
            None => {
                let done = std::mem::take(&mut self.upkeep.forced_done);
                let waiters = std::mem::take(&mut self.upkeep.forced);
                waiters.into_iter().for_each(|waiter| drop(waiter.send(Ok(done.clone()))));
            }
        }
        let every = self.options.merge_limits.quiet / 2;
        self.upkeep.plan_at = Instant::now() + every.clamp(PLAN_EVERY_MIN, PLAN_EVERY_MAX);
    }

    fn plan(&mut self, eagerness: Eagerness) -> Vec<Merge> {
        let now = Instant::now();
        let live: Vec<Arc<Segment>> = {
            let view = self.shared.view.load();
            let segments = view.tenants.values().flat_map(|snapshot| &snapshot.segments);
            let held =
                |segment: &Arc<Segment>| self.upkeep.held.get(&segment.id).is_some_and(|(until, _)| *until > now);
            segments.filter(|segment| !held(segment)).cloned().collect()
        };
        compact::plan(&live, self.clock.now_ns(), &self.options.merge_limits, eagerness)
    }

    fn publish_pending(&self, merges: &[Merge]) {
        let pending: usize = merges.iter().map(|merge| merge.inputs.len()).sum();
        self.shared.metrics.compaction_pending.set(pending as i64);
    }

    /// After a flush: what is to be merged now, told before the flush is.
    pub(super) fn recount_pending(&mut self) {
        let merges = self.plan(Eagerness::Due);
        self.publish_pending(&merges);
        self.upkeep.plan_now();
    }

    fn start_merge(&mut self, merge: Merge) {
        let inputs = merge.inputs;
        let root = paths::segments_dir(&self.options.data_dir);
        if !has_room(&root, inputs.iter().map(|input| input.bytes).sum::<u64>() + self.options.flush_bytes_max as u64) {
            let source = io::ErrorKind::StorageFull.into();
            return self.merge_failed(&inputs, segment::Error::Io { path: root, source }.into());
        }
        let first_id = self.next_segment;
        self.next_segment += inputs.len() as i64;
        let stop = Arc::new(AtomicBool::new(false));
        let (job, stopped) = (inputs.clone(), stop.clone());
        let limits = self.options.segment_limits();
        let (requests, shared) = (self.requests.clone(), self.shared.clone());
        let work = move || {
            let ids = first_id..first_id + job.len() as i64;
            let merge = || shared.merge(&root, &job, limits, ids.start, &|_| None, &stopped);
            let outcome = catch_unwind(AssertUnwindSafe(merge)).unwrap_or(Err(segment::Error::Panicked));
            let outcome = outcome.map(|written| written.into_iter().collect());
            if outcome.is_err() {
                remove_unfinished(&root, &job[0], ids);
            }
            drop(job);
            if let Some(requests) = requests.upgrade() {
                // Nobody listens when the store closes; the files are swept at the next start.
                let _ = requests.blocking_send(Request::Merged { outcome });
            }
        };
        match std::thread::Builder::new().name("quiver-merge".into()).spawn(work) {
            Ok(thread) => self.upkeep.merge = Some(Running { inputs, started: Instant::now(), stop, thread }),
            Err(error) => self.merge_failed(&inputs, segment::Error::Io { path: PathBuf::new(), source: error }.into()),
        }
    }

    /// The running merge ended.
    pub(super) fn merged(&mut self, outcome: Result<Vec<Segment>, segment::Error>, runtime: &Handle) {
        let Running { inputs, started, thread, .. } =
            self.upkeep.merge.take().expect("only a running merge reports its end");
        thread.join().expect("a merge's panic is caught");
        self.upkeep.plan_now();
        match outcome {
            Ok(added) => self.replace_merged(&inputs, added, started, runtime),
            Err(segment::Error::Stopped) => {}
            Err(error) => {
                if let segment::Error::Read(segment::ReadError::Damaged { id, reason, .. }) = &error {
                    let _ = self.quarantine(*id, reason, runtime);
                }
                self.merge_failed(&inputs, error.into());
            }
        }
    }

    fn replace_merged(&mut self, inputs: &[Arc<Segment>], mut added: Vec<Segment>, started: Instant, runtime: &Handle) {
        let bytes: u64 = added.iter().map(Segment::disk_bytes).sum();
        self.shared.metrics.compacted_bytes.inc_by(bytes);
        self.shared.publish_amplification();
        inherit(inputs, &mut added);
        let records = |segments: &mut dyn Iterator<Item = u64>| segments.sum::<u64>();
        let (before, after) = (
            records(&mut inputs.iter().map(|segment| segment.records)),
            records(&mut added.iter().map(|segment| segment.records)),
        );
        if before != after {
            tracing::error!(before, after, "a merge lost or made records; its result is thrown away");
            self.discard(added);
            return self.merge_failed(inputs, segment::Error::Miscounted { before, after }.into());
        }
        let ids: Vec<i64> = inputs.iter().map(|segment| segment.id).collect();
        if !self.are_live(inputs) {
            tracing::debug!("an input of a merge expired or was quarantined meanwhile; its result is thrown away");
            return self.discard(added);
        }
        match runtime.block_on(self.catalog.replace(&ids, &added, self.next_segment)) {
            Ok(()) => {
                self.upkeep.held.retain(|id, _| !ids.contains(id));
                let done = &mut self.upkeep.forced_done;
                done.merges += 1;
                done.segments_merged += inputs.len() as u64;
                done.segments_written += added.len() as u64;
                done.records += after;
                self.shared.metrics.compactions.inc();
                self.shared.metrics.compaction_seconds.observe(started.elapsed().as_secs_f64());
                let (merged, written) = (inputs.len(), added.len());
                tracing::debug!(merged, written, records = after, bytes, elapsed = ?started.elapsed(), "compacted");
                self.show_replaced(inputs, added);
            }
            Err(error @ catalog::Error::Gone { .. }) => {
                self.discard(added);
                self.merge_failed(inputs, error.into());
            }
            // Whether it was committed is not known, so what was written stays until the next start.
            Err(error) => self.merge_failed(inputs, error.into()),
        }
    }

    /// Whether all of them are still read by new queries.
    fn are_live(&self, segments: &[Arc<Segment>]) -> bool {
        let view = self.shared.view.load();
        let live = |wanted: &Arc<Segment>| {
            let snapshot = view.tenants.get(&wanted.tenant);
            snapshot.is_some_and(|snapshot| snapshot.segments.iter().any(|segment| segment.id == wanted.id))
        };
        segments.iter().all(live)
    }

    fn merge_failed(&mut self, inputs: &[Arc<Segment>], error: Error) {
        self.shared.metrics.failed_compactions.inc();
        let known = inputs.iter().filter_map(|input| self.upkeep.held.get(&input.id)).map(|(_, hold)| *hold).max();
        let hold = known.map_or(HOLD_MIN, |hold| (hold * 2).min(HOLD_MAX));
        let until = Instant::now() + hold;
        self.upkeep.held.retain(|_, (until, hold)| *until + *hold > Instant::now());
        self.upkeep.held.extend(inputs.iter().map(|input| (input.id, (until, hold))));
        tracing::error!(%error, segments = inputs.len(), retry_in = ?hold, "a merge failed; its inputs stay live");
        let error = Arc::new(error);
        for waiter in std::mem::take(&mut self.upkeep.forced) {
            let _ = waiter.send(Err(Error::Shared(error.clone())));
        }
    }

    /// Merges everything that can be merged.
    pub(super) fn compact_all(&mut self, done: oneshot::Sender<Result<Compacted, Error>>) {
        if self.closing {
            let _ = done.send(Err(Error::Closed));
            return;
        }
        if self.upkeep.forced.is_empty() {
            self.upkeep.forced_done = Compacted::default();
        }
        self.upkeep.forced.push(done);
        self.upkeep.held.clear();
        self.upkeep.plan_now();
    }

    /// Removes what outlived its rule.
    fn expire(&mut self, runtime: &Handle) {
        let segments = self.all_segments();
        let expired = retention::expired(&segments, self.clock.now_ns(), &self.options.rules);
        drop(segments);
        if let Some(records) = self.remove(&expired, "expired", runtime) {
            let metrics = &self.shared.metrics;
            let bytes = expired.iter().map(|segment| segment.disk_bytes()).sum();
            metrics.expired_segments.inc_by(expired.len() as u64);
            metrics.expired_records.inc_by(records);
            metrics.expired_bytes.inc_by(bytes);
            tracing::info!(segments = expired.len(), records, bytes, "removed expired segments");
        }
    }

    /// Removes what the disk quota has no room for, and says how full the disk is.
    pub(super) fn keep_quota(&mut self, runtime: &Handle) {
        let segments = self.all_segments();
        let wal_bytes = crate::wal::disk_bytes(&paths::wal_dir(&self.options.data_dir));
        let used = segments.iter().map(|segment| segment.disk_bytes()).sum::<u64>() + wal_bytes;
        let (bytes_max, order) = (self.options.disk_bytes_max, self.options.quota_order);
        let surplus = quota::surplus(&segments, used, bytes_max, order, &self.options.rules);
        drop(segments);
        let removed = self.remove(&surplus, "over the disk quota", runtime);
        let bytes = surplus.iter().map(|segment| segment.disk_bytes()).sum();
        let metrics = &self.shared.metrics;
        if let Some(records) = removed {
            metrics.quota_removed_segments.inc_by(surplus.len() as u64);
            metrics.quota_removed_records.inc_by(records);
            metrics.quota_removed_bytes.inc_by(bytes);
            tracing::warn!(
                segments = surplus.len(),
                records,
                bytes,
                used,
                "removed segments to keep to 'storage.disk_bytes_max'"
            );
        }
        let used = used - if removed.is_some() { bytes } else { 0 };
        metrics.disk_bytes.set(i64::try_from(used).unwrap_or(i64::MAX));
        metrics.wal_disk_bytes.set(i64::try_from(wal_bytes).unwrap_or(i64::MAX));
        match rustix::fs::statvfs(&self.options.data_dir) {
            Ok(found) => {
                let free = found.f_bavail.saturating_mul(found.f_frsize);
                metrics.disk_free_bytes.set(i64::try_from(free).unwrap_or(i64::MAX));
            }
            Err(error) => tracing::warn!(%error, "the file system does not say how much room it has"),
        }
    }

    /// Takes segments out of the catalog and of the view; gives their records. `None` when there was nothing to do, or
    /// the catalog refused: then it is tried again at the next round.
    fn remove(&mut self, segments: &[Arc<Segment>], why: &str, runtime: &Handle) -> Option<u64> {
        if segments.is_empty() {
            return None;
        }
        let ids: Vec<i64> = segments.iter().map(|segment| segment.id).collect();
        if let Err(error) = runtime.block_on(self.catalog.replace(&ids, &[], self.next_segment)) {
            tracing::error!(%error, segments = ids.len(), why, "segments can't be removed; they stay for now");
            return None;
        }
        self.show_replaced(segments, Vec::new());
        Some(segments.iter().map(|segment| segment.records).sum())
    }

    /// Takes a segment out of what is read, and keeps its files.
    pub(super) fn quarantine(&mut self, id: i64, reason: &str, runtime: &Handle) -> Result<(), Error> {
        runtime.block_on(self.catalog.quarantine(id, reason))?;
        let Some(known) = self.all_segments().into_iter().find(|segment| segment.id == id) else { return Ok(()) };
        tracing::warn!(id, tenant = known.tenant.as_str(), records = known.records, reason, "segment quarantined");
        let mut marked = Segment::clone(&known);
        marked.history.quarantined = Some(reason.to_owned());
        self.swap(&[id], vec![marked]);
        self.upkeep.plan_now();
        Ok(())
    }

    /// Shows what the catalog has already; the files of what it dropped go when nobody reads them any more.
    fn show_replaced(&mut self, removed: &[Arc<Segment>], added: Vec<Segment>) {
        let ids: Vec<i64> = removed.iter().map(|segment| segment.id).collect();
        self.swap(&ids, added);
        self.upkeep.graveyard.extend(removed.iter().cloned());
        self.upkeep.plan_now();
    }

    fn swap(&mut self, removed: &[i64], added: Vec<Segment>) {
        let removed: HashSet<i64> = removed.iter().copied().collect();
        let mut view = View::clone(&self.shared.view.load());
        for snapshot in view.tenants.values_mut() {
            if snapshot.all_segments().any(|segment| removed.contains(&segment.id)) {
                Arc::make_mut(snapshot)
                    .remove_segments(|segment| removed.contains(&segment.id), self.options.fields_max);
            }
        }
        for segment in added {
            let snapshot = Arc::make_mut(view.tenants.entry(segment.tenant.clone()).or_default());
            snapshot.add_segment(segment, self.options.fields_max);
        }
        self.shared.view.store(Arc::new(view));
        self.shared.publish_segment_gauges();
    }

    /// A segment that the catalog dropped; its files go when nobody reads it any more.
    pub(super) fn let_go(&mut self, segment: Option<Arc<Segment>>) {
        self.upkeep.graveyard.extend(segment);
    }

    /// Segments that were written and never became live.
    fn discard(&mut self, written: Vec<Segment>) {
        self.upkeep.graveyard.extend(written.into_iter().map(Arc::new));
    }

    /// Unlinks the files of segments that only the graveyard knows.
    fn bury(&mut self) {
        let graveyard = std::mem::take(&mut self.upkeep.graveyard);
        graveyard.iter().for_each(|segment| self.shared.opened.forget(segment.id));
        let (dead, read): (Vec<_>, Vec<_>) = graveyard.into_iter().partition(|segment| Arc::strong_count(segment) == 1);
        self.upkeep.graveyard = read;
        let root = paths::segments_dir(&self.options.data_dir);
        for segment in &dead {
            let path = root.join(&segment.path);
            if let Err(error) = paths::remove_segment(&path) {
                tracing::warn!(%error, path = %path.display(), "a removed segment's file stays until the next start");
            }
            for object in self.shared.cache.forget(segment) {
                // What the queue has no room for is deleted at the next start.
                let _ = self.upkeep.removals.try_send(object);
            }
            self.upkeep.left_dirs.extend(path.parent().map(Path::to_owned));
        }
        // A flush or a merge may be about to make a file where the directory is empty now.
        if self.flush_runs() || self.upkeep.merge.is_some() {
            return;
        }
        for dir in std::mem::take(&mut self.upkeep.left_dirs) {
            if let Err(error) = remove_empty_dirs(&dir, &root) {
                tracing::warn!(%error, path = %dir.display(), "a directory can't be made durable after a removal");
            }
        }
    }
}

/// Gives merged segments the history of what they were merged from, in proportion to their size.
fn inherit(inputs: &[Arc<Segment>], added: &mut [Segment]) {
    let bytes = added.iter().map(|segment| segment.bytes).sum::<u64>().max(1);
    let sum = |of: fn(&History) -> u64| inputs.iter().map(|segment| of(&segment.history)).sum::<u64>();
    let (flushed, written) = (sum(|history| history.flushed_bytes), sum(|history| history.written_bytes));
    let newest = inputs.iter().map(|segment| segment.history.flushed_ns).max().unwrap_or(0);
    for segment in added {
        let share = |sum: u64| (u128::from(sum) * u128::from(segment.bytes) / u128::from(bytes)) as u64;
        segment.history = History {
            flushed_ns: newest,
            flushed_bytes: share(flushed),
            written_bytes: share(written) + segment.bytes,
            quarantined: None,
        };
    }
}

/// What a merge that failed may have written.
fn remove_unfinished(root: &Path, input: &Segment, ids: std::ops::Range<i64>) {
    for id in ids {
        let path = root.join(paths::segment(&input.tenant, &input.day, input.class.as_str(), id));
        let unfinished = path.with_extension(&paths::UNFINISHED_SUFFIX[1..]);
        // What can't be removed now is swept at the next start.
        let _ = paths::remove_segment(&path).and_then(|()| paths::remove_segment(&unfinished));
    }
}

/// Whether the file system has so much left; where it does not say, the write will.
fn has_room(dir: &Path, bytes: u64) -> bool {
    rustix::fs::statvfs(dir).map_or(true, |found| found.f_bavail.saturating_mul(found.f_frsize) >= bytes)
}

/// Removes a directory and those above it up to `root` as long as they are empty, and makes the removals durable.
fn remove_empty_dirs(dir: &Path, root: &Path) -> io::Result<()> {
    let mut dir = dir;
    while dir != root && dir.starts_with(root) {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => break,
            _ => dir = dir.parent().unwrap_or(root),
        }
    }
    File::open(dir)?.sync_all()
}

#[cfg(test)]
pub(super) mod tests {
    use arrow::array::{RecordBatch, StringArray};

    use super::*;
    use crate::clock::Clock;
    use crate::record::{Tenant, batch, column};
    use crate::storage::retention::Rules;
    use crate::storage::{Options, Store};

    const NS_PER_DAY: i64 = 86_400_000_000_000;
    const PATIENCE: Duration = Duration::from_secs(30);

    /// A record of each time, all of one level.
    pub fn records(level: &str, times_ns: &[i64]) -> RecordBatch {
        let levels = StringArray::from(vec![level; times_ns.len()]);
        batch::tests::records(times_ns, &[(column::LEVEL, Arc::new(levels))])
    }

    pub async fn eventually(what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A store with a segment for each list of times.
    async fn store(options: Options, clock: Clock, segments: &[&[i64]]) -> (Arc<Store>, Tenant) {
        let (store, tenant) = (Store::open(options, clock).await.unwrap(), Tenant::default_tenant());
        for times_ns in segments {
            store.append(&tenant, records("info", times_ns)).await.unwrap();
            store.flush().await.unwrap();
        }
        (store, tenant)
    }

    #[tokio::test]
    async fn files_of_merged_segments_go_with_their_last_reader() {
        let dir = tempfile::tempdir().unwrap();
        let (store, tenant) = store(Options::new(dir.path()), Clock::manual(0), &[&[1, 5], &[2], &[3, 4]]).await;
        let reader = store.snapshot(&tenant);
        let old: Vec<PathBuf> = reader.segments.iter().map(|found| store.segments_dir().join(&found.path)).collect();
        let index = old[0].with_extension("index");
        fs::write(&index, "beside the segment").unwrap();
        let done = store.compact().await.unwrap();
        assert_eq!(done, Compacted { merges: 1, segments_merged: 3, segments_written: 1, records: 5 });
        let merged = store.snapshot(&tenant);
        let [segment] = merged.segments.as_slice() else { panic!("{:?}", merged.segments) };
        assert_eq!((segment.records, segment.min_ts, segment.max_ts), (5, 1, 5));
        assert_eq!((segment.min_seq, segment.max_seq), (1, 5));
        assert!(segment.history.written_bytes > segment.history.flushed_bytes);
        tokio::time::sleep(BURY_EVERY * 3).await;
        assert!(old.iter().all(|path| path.exists()), "the reader still has them");
        drop(reader);
        eventually("the files' end", || !old.iter().any(|path| path.exists()) && !index.exists()).await;
        store.close().await.unwrap();
    }

    #[tokio::test]
    async fn what_expires_leaves_neither_rows_nor_directories() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::new(dir.path());
        options.rules = Arc::new(Rules::new([("", Some(Duration::from_secs(1)))]).unwrap());
        let clock = Clock::manual(NS_PER_DAY);
        let (store, tenant) = store(options, clock.clone(), &[&[NS_PER_DAY - 5], &[NS_PER_DAY + 5]]).await;
        let days = || fs::read_dir(store.segments_dir().join("default")).map_or(0, Iterator::count);
        assert_eq!((store.snapshot(&tenant).segments.len(), days()), (2, 2));
        clock.set_ns(NS_PER_DAY + 1_000_000_000);
        eventually("the first to expire", || store.snapshot(&tenant).segments.len() == 1).await;
        assert_eq!(store.snapshot(&tenant).segments[0].max_ts, NS_PER_DAY + 5);
        eventually("its directory's end", || days() == 1).await;
        clock.set_ns(2 * NS_PER_DAY);
        eventually("the second to expire", || store.snapshot(&tenant).segments.is_empty()).await;
        eventually("its directory's end", || days() == 0).await;
        assert!(store.segments_dir().is_dir());
        store.append(&tenant, records("info", &[2 * NS_PER_DAY])).await.unwrap();
        store.flush().await.unwrap();
        assert_eq!(store.snapshot(&tenant).segments.len(), 1, "a day comes back");
        store.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_quarantined_segment_is_kept_and_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let options = || Options::new(dir.path());
        let (first, tenant) = store(options(), Clock::manual(0), &[&[1], &[2]]).await;
        let id = first.snapshot(&tenant).segments[0].id;
        first.quarantine(id, "its checksum is wrong").await.unwrap();
        let missing = first.quarantine(99, "x").await.unwrap_err();
        assert_eq!(missing.kind(), crate::error::Kind::NotFound);
        first.close().await.unwrap();
        drop(first);
        let again = Store::open(options(), Clock::manual(0)).await.unwrap();
        let snapshot = again.snapshot(&tenant);
        assert_eq!((snapshot.segments.len(), snapshot.quarantined.len()), (1, 1));
        assert_eq!(snapshot.quarantined[0].history.quarantined.as_deref(), Some("its checksum is wrong"));
        assert!(again.segments_dir().join(&snapshot.quarantined[0].path).exists());
        again.close().await.unwrap();
    }

    #[tokio::test]
    async fn an_input_that_is_gone_is_quarantined_and_the_others_are_merged() {
        let dir = tempfile::tempdir().unwrap();
        let (store, tenant) = store(Options::new(dir.path()), Clock::manual(0), &[&[1], &[2], &[3]]).await;
        let path = store.segments_dir().join(&store.snapshot(&tenant).segments[1].path);
        fs::remove_file(path).unwrap();
        let error = store.compact().await.unwrap_err().to_string();
        assert!(error.contains("is damaged: it is gone"), "{error}");
        assert_eq!(store.snapshot(&tenant).quarantined.len(), 1);
        assert_eq!(store.compact().await.unwrap().segments_merged, 2);
        assert_eq!(store.snapshot(&tenant).segments.len(), 1);
        store.close().await.unwrap();
    }

    /// Seen in the simulation: one of two queries that made an index again at once failed, for the other's file was gone.
    #[tokio::test]
    async fn an_index_that_readers_miss_at_once_is_made_again_by_each() {
        let dir = tempfile::tempdir().unwrap();
        let (store, tenant) = store(Options::new(dir.path()), Clock::manual(0), &[&[1, 2]]).await;
        let (root, segment) = (store.segments_dir(), store.snapshot(&tenant).segments[0].clone());
        for _ in 0..20 {
            fs::remove_file(paths::index_of(&root.join(&segment.path))).unwrap();
            std::thread::scope(|scope| {
                let open = || segment::OpenSegment::open(&root, &segment).map(drop);
                let readers: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
                readers.into_iter().for_each(|reader| reader.join().unwrap().unwrap());
            });
        }
        store.close().await.unwrap();
    }

    #[test]
    fn merged_segments_share_the_history_of_their_inputs() {
        let input = |bytes: u64, written_bytes: u64, flushed_ns: i64| {
            let history = History { flushed_ns, flushed_bytes: bytes, written_bytes, quarantined: None };
            Arc::new(Segment { bytes, history, ..catalog::tests::segment(1) })
        };
        let mut added = [catalog::tests::segment(2), catalog::tests::segment(3)];
        (added[0].bytes, added[1].bytes) = (100, 300);
        inherit(&[input(200, 200, 7), input(240, 600, 5)], &mut added);
        let history =
            |flushed_bytes, written_bytes| History { flushed_ns: 7, flushed_bytes, written_bytes, quarantined: None };
        assert_eq!(added[0].history, history(110, 300));
        assert_eq!(added[1].history, history(330, 900));
    }
}
