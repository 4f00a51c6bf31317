//! The one thread that changes the store. It takes requests in order: appends become one group commit, then visible,
//! then acknowledged; a full or old buffer is frozen and handed to a flush, which runs beside it.
//!
//! **Invariant**: a view that readers can get never shows a record that is not fsynced, and never loses one that was
//! shown: what a flush froze leaves the buffer in the same replacement that brings its segments.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::catalog::{Catalog, History, Segment};
use super::repeats::Claim;
use super::snapshot::View;
use super::upkeep::Upkeep;
use super::{Buffered, Compacted, Error, Options, Shared, deletion, paths, segment};
use crate::clock::Clock;
use crate::record::Tenant;
use crate::wal::{self, Wal};

/// A group commit takes no further appends past this.
const GROUP_BYTES_MAX: usize = 16 << 20;
/// Wait before a failed flush is tried again; doubles up to [`RETRY_WAIT_MAX`].
const RETRY_WAIT_MIN: Duration = Duration::from_millis(500);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(30);

type Done = oneshot::Sender<Result<(), Error>>;

/// Everything that can happen to the store.
pub(super) enum Request {
    /// Make a batch durable and visible.
    Append { tenant: Tenant, batch: RecordBatch, payload: Vec<u8>, claim: Claim, done: Done },
    /// Write the buffer to segments.
    Flush { done: Done },
    /// Change deletions, or segments for one.
    Change(deletion::Change),
    /// The running flush ended.
    Flushed { outcome: Result<Flushed, Error> },
    /// Merge all small segments.
    Compact { done: oneshot::Sender<Result<Compacted, Error>> },
    /// The running merge ended.
    Merged { outcome: Result<Vec<Segment>, segment::Error> },
    /// Read a segment no longer.
    Quarantine { id: i64, reason: String, done: Done },
    /// Flush, then stop.
    Close { done: Done },
}

/// What a flush brought about; the catalog has it already.
pub(super) struct Flushed {
    segments: Vec<Segment>,
    next_segment: i64,
}

/// An append on its way through a group commit.
struct Waiting {
    tenant: Tenant,
    batch: RecordBatch,
    first_seq: u64,
    claim: Claim,
    done: Done,
}

/// A frozen part of the buffer on its way to segments.
#[derive(Clone)]
struct Frozen {
    tenants: Vec<(Tenant, Vec<Arc<Buffered>>)>,
    low_water: u64,
}

/// Where the flush stands.
enum Flush {
    Idle,
    Running {
        frozen: Frozen,
        started: Instant,
        thread: JoinHandle<()>,
    },
    /// It failed; what it froze is still in memory and in the log.
    Retry {
        frozen: Frozen,
        at: Instant,
        wait: Duration,
    },
}

pub(super) struct Writer {
    pub(super) options: Options,
    pub(super) clock: Clock,
    pub(super) shared: Arc<Shared>,
    pub(super) catalog: Catalog,
    wal: Wal,
    next_seq: u64,
    /// Ids of records below it are in the catalog.
    ids_written: u64,
    pub(super) next_segment: i64,
    /// Brings the end of a flush or a merge back to this thread; weak, so that a dropped store ends it.
    pub(super) requests: mpsc::WeakSender<Request>,
    pub(super) upkeep: Upkeep,
    flush: Flush,
    retry_wait: Duration,
    /// Wait for the running flush, and for the one after it.
    waiters: Vec<Done>,
    waiters_next: Vec<Done>,
    /// Wait until no flush runs: a flush takes the ids of segments as it needs them.
    changes: Vec<deletion::Change>,
    pub(super) closing: bool,
    /// When the oldest record of the buffer came, ns; `None` when only frozen records are left.
    oldest_ns: Option<i64>,
    unfrozen_bytes: usize,
}

impl Writer {
    #[expect(clippy::too_many_arguments, reason = "each is a different part, and there is one caller")]
    pub(super) fn new(
        options: Options,
        clock: Clock,
        shared: Arc<Shared>,
        catalog: Catalog,
        wal: Wal,
        next_seq: u64,
        ids_written: u64,
        next_segment: i64,
        requests: mpsc::WeakSender<Request>,
        removals: mpsc::Sender<String>,
    ) -> Writer {
        let unfrozen_bytes = shared.buffer_bytes.load(Ordering::Relaxed);
        let oldest_ns = (unfrozen_bytes > 0).then(|| clock.now_ns());
        let upkeep = Upkeep::new(options.rules.check_every(), removals);
        Writer {
            options,
            clock,
            shared,
            catalog,
            wal,
            next_seq,
            ids_written,
            next_segment,
            requests,
            upkeep,
            flush: Flush::Idle,
            retry_wait: RETRY_WAIT_MIN,
            waiters: Vec::new(),
            waiters_next: Vec::new(),
            changes: Vec::new(),
            closing: false,
            oldest_ns,
            unfrozen_bytes,
        }
    }

    /// Works until [`Request::Close`], or until the store is dropped.
    pub(super) fn run(mut self, mut inbox: mpsc::Receiver<Request>, runtime: &Handle) {
        self.keep_quota(runtime);
        loop {
            let wait = self.wait_max();
            // A timer needs the runtime's context, which `block_on` gives the future only while it polls it.
            let next = runtime.block_on(async { tokio::time::timeout(wait, inbox.recv()).await });
            match next {
                Ok(None) => break,
                Ok(Some(request)) => self.take(request, &mut inbox, runtime),
                Err(_) => {}
            }
            self.make_changes(runtime);
            self.upkeep_when_due(runtime);
            self.flush_when_due(runtime);
            if self.closing && self.waiters.is_empty() && self.waiters_next.is_empty() {
                break;
            }
        }
        self.end_upkeep();
        drop(inbox);
        if let Flush::Running { thread, .. } = std::mem::replace(&mut self.flush, Flush::Idle) {
            thread.join().expect("a flush never panics");
        }
        self.join_merge();
        runtime.block_on(self.catalog.close());
    }

    fn take(&mut self, request: Request, inbox: &mut mpsc::Receiver<Request>, runtime: &Handle) {
        let mut group = Vec::new();
        let mut next = Some(request);
        while let Some(request) = next.take() {
            match request {
                Request::Append { done, .. } if self.closing => drop(done.send(Err(Error::Closed))),
                Request::Append { tenant, batch, payload, claim, done } => {
                    let first_seq = self.log(&batch, &payload);
                    group.push(Waiting { tenant, batch, first_seq, claim, done });
                }
                Request::Flush { done } => {
                    self.commit(std::mem::take(&mut group));
                    self.flush_for(done, runtime);
                }
                Request::Change(change) => {
                    self.commit(std::mem::take(&mut group));
                    self.changes.push(change);
                }
                Request::Flushed { outcome } => self.flushed(outcome, runtime),
                Request::Compact { done } => self.compact_all(done),
                Request::Merged { outcome } => self.merged(outcome, runtime),
                Request::Quarantine { id, reason, done } => {
                    // Who went away does not need the answer.
                    let _ = done.send(self.quarantine(id, &reason, runtime));
                }
                Request::Close { done } => {
                    self.commit(std::mem::take(&mut group));
                    self.closing = true;
                    self.end_upkeep();
                    self.flush_for(done, runtime);
                }
            }
            if self.wal.pending_bytes() < GROUP_BYTES_MAX {
                next = inbox.try_recv().ok();
            }
        }
        self.commit(group);
    }

    /// Gives the number of the first record.
    fn log(&mut self, batch: &RecordBatch, payload: &[u8]) -> u64 {
        let rows = u32::try_from(batch.num_rows()).expect("a request's size is limited");
        let first_seq = self.next_seq;
        self.wal.append(first_seq, rows, &[payload]);
        self.next_seq += u64::from(rows);
        first_seq
    }

    /// Makes the logged appends safe, then visible, then acknowledges them.
    fn commit(&mut self, group: Vec<Waiting>) {
        let Some(first) = group.first() else { return };
        let (first_seq, bytes, started) = (first.first_seq, self.wal.pending_bytes(), Instant::now());
        if let Err(error) = self.wal.sync() {
            tracing::error!(%error, "appends are refused");
            self.next_seq = first_seq;
            let is_final = matches!(error, wal::Error::Broken { .. });
            let error = Arc::new(Error::from(error));
            if is_final && self.shared.broken.set(error.clone()).is_ok() {
                self.shared.metrics.wal_broken.set(1);
            }
            self.shared.metrics.failed_appends.inc_by(group.len() as u64);
            return refuse(group, &error);
        }
        self.shared.metrics.wal_sync_seconds.observe(started.elapsed().as_secs_f64());
        self.shared.metrics.wal_bytes.inc_by(bytes as u64);
        let mut view = View::clone(&self.shared.view.load());
        let mut answers = Vec::with_capacity(group.len());
        for waiting in group {
            self.shared.metrics.appended_records.inc_by(waiting.batch.num_rows() as u64);
            waiting.claim.keep(waiting.first_seq);
            answers.push((waiting.done, self.show(&mut view, waiting.tenant, waiting.batch, waiting.first_seq)));
        }
        self.shared.view.store(Arc::new(view));
        self.recount();
        for (done, answer) in answers {
            // Who went away does not need the answer.
            let _ = done.send(answer);
        }
    }

    fn show(&mut self, view: &mut View, tenant: Tenant, batch: RecordBatch, first_seq: u64) -> Result<(), Error> {
        let snapshot = Arc::make_mut(view.tenants.entry(tenant).or_default());
        self.oldest_ns = self.oldest_ns.or_else(|| Some(self.clock.now_ns()));
        Ok(snapshot.add_batch(Buffered::new(batch, first_seq), self.options.fields_max)?)
    }

    /// Brings the counts of memory up to date after the view changed.
    fn recount(&mut self) {
        let view = self.shared.view.load();
        let bytes = |skip_frozen: bool| -> usize {
            let skip = |flushing: usize| if skip_frozen { flushing } else { 0 };
            let tenants = view.tenants.values();
            tenants.flat_map(|found| &found.buffer[skip(found.flushing)..]).map(|buffered| buffered.bytes).sum()
        };
        self.unfrozen_bytes = bytes(true);
        self.shared.buffer_bytes.store(bytes(false), Ordering::Relaxed);
        self.shared.publish_buffer_gauges();
    }

    /// Makes the changes that wait, unless a flush runs; its end brings the next chance.
    fn make_changes(&mut self, runtime: &Handle) {
        if matches!(self.flush, Flush::Running { .. }) {
            return;
        }
        for change in std::mem::take(&mut self.changes) {
            let mut view = View::clone(&self.shared.view.load());
            let mut replaced = None;
            let answer = change.apply(deletion::Parts {
                view: &mut view,
                catalog: &self.catalog,
                runtime,
                next_seq: self.next_seq,
                next_segment: &mut self.next_segment,
                fields_max: self.options.fields_max,
                replaced: &mut replaced,
            });
            self.shared.view.store(Arc::new(view));
            self.let_go(replaced);
            self.shared.publish_segment_gauges();
            answer();
        }
    }

    /// How long nothing can become due by itself.
    fn wait_max(&self) -> Duration {
        let flush = self.wait_for_flush();
        if self.closing { flush } else { flush.min(self.upkeep.wait_max(self.flush_runs())) }
    }

    pub(super) fn flush_runs(&self) -> bool {
        matches!(self.flush, Flush::Running { .. })
    }

    fn wait_for_flush(&self) -> Duration {
        match (&self.flush, self.oldest_ns) {
            (Flush::Retry { at, .. }, _) => at.saturating_duration_since(Instant::now()),
            (Flush::Idle, Some(oldest_ns)) => self.options.flush_age_max.saturating_sub(self.age(oldest_ns)),
            _ => Duration::from_secs(3600),
        }
    }

    fn age(&self, since_ns: i64) -> Duration {
        Duration::from_nanos(u64::try_from(self.clock.now_ns().saturating_sub(since_ns)).unwrap_or(0))
    }

    fn flush_when_due(&mut self, runtime: &Handle) {
        match &self.flush {
            Flush::Running { .. } => {}
            Flush::Retry { at, .. } if *at > Instant::now() => {}
            Flush::Retry { frozen, .. } => {
                let frozen = frozen.clone();
                self.start_flush(frozen, runtime);
            }
            Flush::Idle => {
                let old = self.oldest_ns.is_some_and(|oldest_ns| self.age(oldest_ns) >= self.options.flush_age_max);
                if old || self.unfrozen_bytes >= self.options.flush_bytes_max {
                    self.freeze_and_flush(runtime);
                }
            }
        }
    }

    fn flush_for(&mut self, done: Done, runtime: &Handle) {
        match &self.flush {
            Flush::Idle if self.oldest_ns.is_none() => drop(done.send(Ok(()))),
            Flush::Idle => {
                self.waiters.push(done);
                self.freeze_and_flush(runtime);
            }
            Flush::Running { .. } => self.waiters_next.push(done),
            Flush::Retry { frozen, .. } => {
                let frozen = frozen.clone();
                self.waiters_next.push(done);
                self.start_flush(frozen, runtime);
            }
        }
    }

    /// Freezes the buffer and starts to write it; the log goes on in a new file.
    fn freeze_and_flush(&mut self, runtime: &Handle) {
        if let Err(error) = self.wal.rotate(self.next_seq) {
            tracing::warn!(%error, "the write-ahead log goes on in its old file");
        }
        let mut view = View::clone(&self.shared.view.load());
        let mut tenants = Vec::new();
        for (tenant, snapshot) in &mut view.tenants {
            if !snapshot.buffer.is_empty() {
                let snapshot = Arc::make_mut(snapshot);
                snapshot.flushing = snapshot.buffer.len();
                tenants.push((tenant.clone(), snapshot.buffer.clone()));
            }
        }
        self.shared.view.store(Arc::new(view));
        (self.oldest_ns, self.unfrozen_bytes) = (None, 0);
        self.start_flush(Frozen { tenants, low_water: self.next_seq }, runtime);
    }

    fn start_flush(&mut self, frozen: Frozen, runtime: &Handle) {
        let (job, catalog, options) = (frozen.clone(), self.catalog.clone(), self.options.clone());
        let (requests, runtime, mut next_segment) = (self.requests.clone(), runtime.clone(), self.next_segment);
        let (now_ns, shared) = (self.clock.now_ns(), self.shared.clone());
        let ids = self.shared.repeats.between(self.ids_written, frozen.low_water);
        let reached = self.shared.repeats.sources.since(self.ids_written);
        let work = move || {
            let outcome = write_segments(&options, &job, now_ns, &mut next_segment).and_then(|segments| {
                shared.cache.upload(&segments)?;
                runtime.block_on(catalog.commit(&segments, &ids, &reached, job.low_water, next_segment))?;
                Ok(Flushed { segments, next_segment })
            });
            shared.evict();
            if let Some(requests) = requests.upgrade() {
                // The writer is gone only when the store was dropped; the next start finds what the catalog says.
                let _ = requests.blocking_send(Request::Flushed { outcome });
            }
        };
        let thread = std::thread::Builder::new().name("quiver-flush".into()).spawn(work);
        self.flush = match thread {
            Ok(thread) => Flush::Running { frozen, started: Instant::now(), thread },
            Err(error) => {
                tracing::error!(%error, "no thread for a flush");
                self.retry(frozen)
            }
        };
    }

    fn retry(&mut self, frozen: Frozen) -> Flush {
        let wait = self.retry_wait;
        self.retry_wait = (wait * 2).min(RETRY_WAIT_MAX);
        Flush::Retry { frozen, at: Instant::now() + wait, wait }
    }

    fn flushed(&mut self, outcome: Result<Flushed, Error>, runtime: &Handle) {
        let Flush::Running { frozen, started, thread } = std::mem::replace(&mut self.flush, Flush::Idle) else {
            unreachable!("only a running flush reports its end");
        };
        thread.join().expect("a flush never panics");
        self.shared.metrics.flush_seconds.observe(started.elapsed().as_secs_f64());
        let waiters = std::mem::take(&mut self.waiters);
        match outcome {
            Ok(flushed) => {
                self.ids_written = frozen.low_water;
                self.publish(flushed, frozen.low_water, started);
                self.keep_quota(runtime);
                self.recount_pending();
                waiters.into_iter().for_each(|done| drop(done.send(Ok(()))));
            }
            Err(error) => {
                self.shared.metrics.failed_flushes.inc();
                self.flush = self.retry(frozen);
                if let Flush::Retry { wait, .. } = &self.flush {
                    tracing::error!(%error, ?wait, "a flush failed; its records stay in memory and in the log");
                }
                let error = Arc::new(error);
                let failed = waiters.into_iter().chain(std::mem::take(&mut self.waiters_next));
                failed.for_each(|done| drop(done.send(Err(Error::Shared(error.clone())))));
            }
        }
        for done in std::mem::take(&mut self.waiters_next) {
            if matches!(self.flush, Flush::Running { .. }) {
                self.waiters.push(done);
            } else {
                self.flush_for(done, runtime);
            }
        }
    }

    /// Replaces what was frozen by its segments, for all readers at once.
    fn publish(&mut self, flushed: Flushed, low_water: u64, started: Instant) {
        self.retry_wait = RETRY_WAIT_MIN;
        self.next_segment = self.next_segment.max(flushed.next_segment);
        let bytes = flushed.segments.iter().map(|segment| segment.bytes).sum();
        self.shared.metrics.flushed_bytes.inc_by(bytes);
        self.shared.publish_amplification();
        let (segments, records): (usize, u64) =
            (flushed.segments.len(), flushed.segments.iter().map(|segment| segment.records).sum());
        let mut view = View::clone(&self.shared.view.load());
        for snapshot in view.tenants.values_mut().filter(|snapshot| snapshot.flushing > 0) {
            let snapshot = Arc::make_mut(snapshot);
            snapshot.buffer.drain(..snapshot.flushing);
            snapshot.flushing = 0;
        }
        for segment in flushed.segments {
            let snapshot = Arc::make_mut(view.tenants.entry(segment.tenant.clone()).or_default());
            snapshot.add_segment(segment, self.options.fields_max);
        }
        self.shared.view.store(Arc::new(view));
        self.recount();
        self.shared.publish_segment_gauges();
        self.shared.room.notify_waiters();
        self.shared.metrics.flushes.inc();
        if let Err(error) = self.wal.remove_before(low_water) {
            tracing::warn!(%error, "files of the write-ahead log stay behind");
        }
        tracing::debug!(segments, records, elapsed = ?started.elapsed(), "flushed");
    }
}

fn write_segments(options: &Options, job: &Frozen, now_ns: i64, next_segment: &mut i64) -> Result<Vec<Segment>, Error> {
    let root = paths::segments_dir(&options.data_dir);
    let mut segments = Vec::new();
    for (tenant, buffer) in &job.tenants {
        segments.extend(segment::write(&root, tenant, buffer, &options.rules, options.columns_max, next_segment)?);
    }
    for segment in &mut segments {
        let bytes = segment.bytes;
        segment.history = History { flushed_ns: now_ns, flushed_bytes: bytes, written_bytes: bytes, quarantined: None };
    }
    Ok(segments)
}

fn refuse(group: Vec<Waiting>, error: &Arc<Error>) {
    group.into_iter().for_each(|waiting| drop(waiting.done.send(Err(Error::Shared(error.clone())))));
}
