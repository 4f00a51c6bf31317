//! The way from a socket to the store: a bounded queue per socket, and one task that takes what came within a few
//! milliseconds, decodes it together and appends it.
//!
//! Invariant: a message is answered `true` when its records are in the fsynced log, or are none; while the store can't
//! take them, the task tries again and the queue fills.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tracing::{error, warn};

use super::{Label, Limits, Metrics, Protocol};
use crate::decode::{self, Cause, Decoded};
use crate::record::{Seen, Tenant};
use crate::server::body::Lease;
use crate::server::ingest::Kept;
use crate::server::{App, Caller, Error};
use crate::storage::{BatchId, Claim};
use crate::telemetry::{IngestOutcome, Sampler};

/// Messages that wait at most, however small.
const MESSAGES_QUEUED_MAX: usize = 16_384;
/// What a waiting message takes beside its bytes.
const MESSAGE_BYTES_EXTRA: usize = 128;
/// Messages of one batch, and the bytes at which it is full.
const BATCH_MESSAGES_MAX: usize = 8_192;
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Waits between two tries to append.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A message that waits to be kept.
pub(super) struct Item {
    bytes: Bytes,
    /// Who sent it, for people; of Forward its tag.
    from: Arc<str>,
    /// What its sender calls it, when it wants to know that it is safe, and will send it again otherwise.
    chunk: Option<BatchId>,
    /// Told whether it is.
    done: Option<oneshot::Sender<bool>>,
    /// Its shares of the memory of requests, where it may be large, and of the queue: held until it is kept.
    _lease: Option<Lease>,
    _room: OwnedSemaphorePermit,
}

/// What a socket is for, and whom its messages belong to.
pub(super) struct Purpose {
    pub app: Arc<App>,
    pub name: &'static str,
    pub protocol: Protocol,
    pub metrics: Metrics,
    caller: Caller,
    rejections: Sampler,
    failures: Sampler,
}

impl Purpose {
    pub fn new(
        app: Arc<App>,
        name: &'static str,
        protocol: Protocol,
        tenant: Tenant,
        metrics: Metrics,
    ) -> Arc<Purpose> {
        let (rejections, failures) = (Sampler::default(), Sampler::default());
        Arc::new(Purpose { app, name, protocol, metrics, caller: Caller { tenant }, rejections, failures })
    }

    pub fn label(&self) -> Label {
        Label { listener: self.name }
    }

    /// Whether messages of this origin may be kept, or are of one stream too many. What a sender sends again when it is
    /// not acknowledged is asked here, before it is acknowledged; of all else the decoder asks.
    pub fn admits(&self, origin: u64) -> bool {
        let app = &self.app;
        let streams = app.streams.as_ref().map(|streams| streams.of(&self.caller.tenant, app.clock.now_ns()));
        streams.is_none_or(|active| active.admit(origin, app.clock.now_ns()))
    }

    /// Counts and tells a message that never became one: too large, cut off, not to be unpacked.
    pub fn reject(&self, from: &str, cause: Cause, reason: &str) {
        self.app.metrics.rejected(self.name, self.caller.tenant.as_str(), cause.as_str(), 1);
        if let Some(left_out) = self.rejections.admit(self.app.clock.now_ns()) {
            warn!(listener = self.name, from, left_out, "a message was rejected: {reason}");
        }
    }
}

/// Where a socket puts its messages.
pub(super) struct Intake {
    pub purpose: Arc<Purpose>,
    pub limits: Limits,
    queue: mpsc::Sender<Item>,
    room: Arc<Semaphore>,
}

impl Intake {
    pub fn new(purpose: Arc<Purpose>, limits: Limits) -> (Intake, mpsc::Receiver<Item>) {
        let (queue, inbox) = mpsc::channel(MESSAGES_QUEUED_MAX);
        let room = Arc::new(Semaphore::new(limits.queue_bytes_max));
        // So that a socket that dropped nothing says so.
        drop(purpose.metrics.dropped_datagrams.get_or_create(&purpose.label()));
        drop(purpose.metrics.connections.get_or_create(&purpose.label()));
        (Intake { purpose, limits, queue, room }, inbox)
    }

    /// Room that a message takes; one that is larger than the queue waits until it is alone.
    fn room_of(&self, bytes: &Bytes) -> u32 {
        (bytes.len() + MESSAGE_BYTES_EXTRA).min(self.limits.queue_bytes_max) as u32
    }

    /// Puts a message into the queue once there is room.
    pub async fn push(&self, bytes: Bytes, from: Arc<str>, lease: Option<Lease>) {
        let Ok(room) = self.room.clone().acquire_many_owned(self.room_of(&bytes)).await else { return };
        // The other end is gone only when everything was broken off.
        let _ = self.queue.send(Item { bytes, from, chunk: None, done: None, _lease: lease, _room: room }).await;
    }

    /// As [`Intake::push`], and waits until it is safe, now or when it came before; `false` when that will not be.
    pub async fn keep(&self, bytes: Bytes, from: Arc<str>, chunk: BatchId, lease: Lease) -> bool {
        let Ok(room) = self.room.clone().acquire_many_owned(self.room_of(&bytes)).await else { return false };
        let (done, answer) = oneshot::channel();
        let (chunk, done, lease) = (Some(chunk), Some(done), Some(lease));
        self.queue.send(Item { bytes, from, chunk, done, _lease: lease, _room: room }).await.is_ok()
            && answer.await.unwrap_or(false)
    }

    /// Puts a datagram into the queue if there is room, else drops and counts it.
    pub fn offer(&self, bytes: Bytes, from: Arc<str>) {
        let room = self.room.clone().try_acquire_many_owned(self.room_of(&bytes)).ok();
        let sent = room.is_some_and(|room| {
            self.queue.try_send(Item { bytes, from, chunk: None, done: None, _lease: None, _room: room }).is_ok()
        });
        if !sent {
            self.purpose.metrics.dropped_datagrams.get_or_create(&self.purpose.label()).inc();
            if let Some(left_out) = self.purpose.failures.admit(self.purpose.app.clock.now_ns()) {
                let listener = self.purpose.name;
                warn!(listener, left_out, "a datagram was dropped: listen.queue_bytes_max is reached");
            }
        }
    }
}

/// Keeps what comes until no socket can send any more.
pub(super) async fn run(purpose: Arc<Purpose>, mut inbox: mpsc::Receiver<Item>, gather_max: Duration) {
    while let Some(first) = inbox.recv().await {
        let deadline = tokio::time::Instant::now() + gather_max;
        let mut bytes = first.bytes.len();
        let mut items = vec![first];
        while bytes < BATCH_BYTES_MAX && items.len() < BATCH_MESSAGES_MAX {
            match tokio::time::timeout_at(deadline, inbox.recv()).await {
                Ok(Some(item)) => {
                    bytes += item.bytes.len();
                    items.push(item);
                }
                // The time is over, or nobody sends any more.
                Ok(None) | Err(_) => break,
            }
        }
        purpose.keep(items).await;
    }
}

/// What came of a try to keep a batch.
enum Tried {
    /// It is kept, or given up; its senders were told.
    Ended,
    /// It becomes too large, and was halved.
    Halved(Vec<Item>, Vec<Item>),
    /// The store can't take it now.
    Later(Vec<Item>, Error),
}

impl Purpose {
    /// Keeps a batch; while the store can't take it, tries again.
    async fn keep(self: &Arc<Self>, items: Vec<Item>) {
        let mut waiting = vec![items];
        let mut pause = PAUSE_MIN;
        while let Some(items) = waiting.pop() {
            match self.try_to_keep(items).await {
                Tried::Ended => pause = PAUSE_MIN,
                Tried::Halved(first, second) => waiting.extend([second, first]),
                Tried::Later(items, failure) => {
                    if let Some(left_out) = self.failures.admit(self.app.clock.now_ns()) {
                        warn!(listener = self.name, left_out, "messages wait: {failure}");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                    waiting.push(items);
                }
            }
        }
    }

    async fn try_to_keep(self: &Arc<Self>, items: Vec<Item>) -> Tried {
        let started = Instant::now();
        let bytes: usize = items.iter().map(|item| item.bytes.len()).sum();
        let (claim, is_new) = match self.claim(&items) {
            Ok(claimed) => claimed,
            Err(failure) => return Tried::Later(items, failure),
        };
        let purpose = self.clone();
        let work = move |app: &App| {
            let new = items.iter().zip(&is_new).filter(|(_, is_new)| **is_new).map(|(item, _)| item);
            let options = app.decode_options(&purpose.caller.tenant);
            let decoded = purpose.decode(new, &options, app.clock.now_ns());
            (items, is_new, decoded)
        };
        let (mut items, is_new, decoded) = match self.app.offload(bytes, work).await {
            Ok(done) => done,
            Err(failure) => {
                error!(listener = self.name, "{bytes} bytes of messages are given up: {failure}");
                return Tried::Ended;
            }
        };
        let end = match decoded {
            Err(decode::Error::TooLarge(_)) if items.len() > 1 => {
                let second = items.split_off(items.len() / 2);
                return Tried::Halved(items, second);
            }
            Err(unreadable) => Err(unreadable.into()),
            Ok(decoded) => self.append(decoded, claim, bytes).await,
        };
        let end = match end {
            Err(failure) if failure.is_passing() => return Tried::Later(items, failure),
            end => end,
        };
        match &end {
            Err(failure) => error!(listener = self.name, "{bytes} bytes of messages are given up: {failure}"),
            Ok(kept) => self.tell_rejections(kept, &items),
        }
        let came = IngestOutcome { received_bytes: bytes, decoded_bytes: bytes, ..IngestOutcome::default() };
        self.app.count(&self.caller, self.name, started, came, end.as_ref());
        let repeated = is_new.iter().filter(|is_new| !**is_new).count();
        self.metrics.repeated_chunks.get_or_create(&self.label()).inc_by(repeated as u64);
        // What can't be decoded would fare no better when it is sent again: it was counted and told, as bad lines are.
        let settled = matches!(end, Ok(_) | Err(Error::Decode(_)));
        for done in items.into_iter().filter_map(|item| item.done) {
            // Nobody waits any more when the connection is gone.
            let _ = done.send(settled);
        }
        Tried::Ended
    }

    /// Claims the ids of chunks; says which messages were not kept before. **Errors**: [`Error::BeingKept`] by another
    /// socket, which may yet fail.
    fn claim(&self, items: &[Item]) -> Result<(Claim, Vec<bool>), Error> {
        let mut claim = self.app.parts()?.store.claim(&self.caller.tenant);
        let mut add = |item: &Item| match item.chunk.map(|chunk| claim.add(chunk)) {
            None | Some(Seen::New) => Ok(true),
            Some(Seen::Kept) => Ok(false),
            Some(Seen::BeingKept) => Err(Error::BeingKept),
        };
        let is_new = items.iter().map(&mut add).collect::<Result<Vec<_>, _>>()?;
        Ok((claim, is_new))
    }

    fn decode<'a>(
        &self,
        items: impl Iterator<Item = &'a Item>,
        options: &decode::Options,
        now_ns: i64,
    ) -> Result<Decoded, decode::Error> {
        match &self.protocol {
            Protocol::Syslog(zone) => {
                let messages = items.map(|item| decode::syslog::Message { bytes: &item.bytes, sender: &item.from });
                decode::syslog::messages(messages, zone, options, now_ns)
            }
            Protocol::Forward(_) => {
                decode::forward::records(items.map(|item| (&*item.from, &*item.bytes)), options, now_ns)
            }
            Protocol::Gelf => decode::gelf::messages(items.map(|item| &*item.bytes), options, now_ns),
        }
    }

    async fn append(&self, decoded: Decoded, claim: Claim, bytes: usize) -> Result<Kept, Error> {
        let (app, tenant) = (&self.app, &self.caller.tenant);
        app.rates.admit(tenant, app.clock.now_ns())?;
        let (accepted, rejected) = (decoded.accepted(), decoded.rejected_count);
        let Decoded { batch, others, rejected: reasons, causes, .. } = decoded;
        if accepted > 0 {
            app.append(tenant, batch, others, claim, &mut app.budget.lease_beyond()).await?;
        }
        app.rates.charge(tenant, app.clock.now_ns(), bytes);
        Ok(Kept { accepted, rejected, reasons, causes, is_repeat: false })
    }

    fn tell_rejections(&self, kept: &Kept, items: &[Item]) {
        if kept.rejected == 0 {
            return;
        }
        let Some(left_out) = self.rejections.admit(self.app.clock.now_ns()) else { return };
        // Forward's entries are more than its messages, and name their tag.
        let first = kept.reasons.first().filter(|_| !matches!(self.protocol, Protocol::Forward(_)));
        let from = first.and_then(|one| items.get(one.line - 1)).map_or("", |item| &*item.from);
        warn!(listener = self.name, tenant = self.caller.tenant.as_str(), from, left_out, "{}", kept.summary());
    }
}
