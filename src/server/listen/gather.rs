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
use crate::decode::{self, Decoded};
use crate::record::Tenant;
use crate::server::body::Lease;
use crate::server::ingest::Kept;
use crate::server::{App, Error};
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
    pub bytes: Bytes,
    /// Who sent it, for people; of Forward its tag.
    pub from: Arc<str>,
    /// Told when it is safe.
    pub done: Option<oneshot::Sender<bool>>,
    /// Its share of the memory of requests, where it may be large, and of the queue: held until it is kept.
    _lease: Option<Lease>,
    _room: OwnedSemaphorePermit,
}

/// What a socket is for, and whom its messages belong to.
pub(super) struct Purpose {
    pub app: Arc<App>,
    pub name: &'static str,
    pub protocol: Protocol,
    tenant: Tenant,
    rejections: Sampler,
    failures: Sampler,
}

impl Purpose {
    pub fn new(app: Arc<App>, name: &'static str, protocol: Protocol, tenant: Tenant) -> Arc<Purpose> {
        Arc::new(Purpose { app, name, protocol, tenant, rejections: Sampler::default(), failures: Sampler::default() })
    }

    /// Counts and tells a message that never became one: too large, cut off, not to be unpacked.
    pub fn reject(&self, from: &str, bytes: usize, reason: &str) {
        let came = IngestOutcome { received_bytes: bytes, decoded_bytes: bytes, accepted: 0, rejected: 1 };
        self.app.metrics.ingest(self.name, "invalid", came, Duration::ZERO);
        if let Some(left_out) = self.rejections.admit(self.app.clock.now_ns()) {
            warn!(listener = self.name, from, left_out, "a message was rejected: {reason}");
        }
    }
}

/// Where a socket puts its messages.
pub(super) struct Intake {
    pub purpose: Arc<Purpose>,
    pub limits: Limits,
    pub metrics: Metrics,
    queue: mpsc::Sender<Item>,
    room: Arc<Semaphore>,
}

impl Intake {
    pub fn new(purpose: Arc<Purpose>, limits: Limits, metrics: Metrics) -> (Intake, mpsc::Receiver<Item>) {
        let (queue, inbox) = mpsc::channel(MESSAGES_QUEUED_MAX);
        let room = Arc::new(Semaphore::new(limits.queue_bytes_max));
        // So that a socket that dropped nothing says so.
        let label = Label { listener: purpose.name };
        drop(metrics.dropped_datagrams.get_or_create(&label));
        drop(metrics.connections.get_or_create(&label));
        (Intake { purpose, limits, metrics, queue, room }, inbox)
    }

    pub fn label(&self) -> Label {
        Label { listener: self.purpose.name }
    }

    /// Room that a message takes; one that is larger than the queue waits until it is alone.
    fn room_of(&self, bytes: &Bytes) -> u32 {
        (bytes.len() + MESSAGE_BYTES_EXTRA).min(self.limits.queue_bytes_max) as u32
    }

    /// Puts a message into the queue once there is room.
    pub async fn push(&self, bytes: Bytes, from: Arc<str>) {
        self.send(bytes, from, None, None).await;
    }

    /// Puts a message into the queue once there is room, and waits until it is safe; `false` when that will not be.
    pub async fn keep(&self, bytes: Bytes, from: Arc<str>, lease: Lease) -> bool {
        let (done, answer) = oneshot::channel();
        self.send(bytes, from, Some(done), Some(lease)).await;
        answer.await.unwrap_or(false)
    }

    /// As [`Intake::push`], for a message with a share of the memory of requests.
    pub async fn push_leased(&self, bytes: Bytes, from: Arc<str>, lease: Lease) {
        self.send(bytes, from, None, Some(lease)).await;
    }

    async fn send(&self, bytes: Bytes, from: Arc<str>, done: Option<oneshot::Sender<bool>>, lease: Option<Lease>) {
        let Ok(room) = self.room.clone().acquire_many_owned(self.room_of(&bytes)).await else { return };
        // The other end is gone only when everything was broken off.
        let _ = self.queue.send(Item { bytes, from, done, _lease: lease, _room: room }).await;
    }

    /// Puts a datagram into the queue if there is room, else drops and counts it.
    pub fn offer(&self, bytes: Bytes, from: Arc<str>) {
        let room = self.room.clone().try_acquire_many_owned(self.room_of(&bytes)).ok();
        let sent = room.is_some_and(|room| {
            self.queue.try_send(Item { bytes, from, done: None, _lease: None, _room: room }).is_ok()
        });
        if !sent {
            self.metrics.dropped_datagrams.get_or_create(&self.label()).inc();
            if let Some(left_out) = self.purpose.failures.admit(self.purpose.app.clock.now_ns()) {
                warn!(
                    listener = self.purpose.name,
                    left_out, "a datagram was dropped: listen.queue_bytes_max is reached"
                );
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

impl Purpose {
    /// Keeps a batch; one that becomes too large is kept in halves.
    async fn keep(self: &Arc<Self>, items: Vec<Item>) {
        let mut waiting = vec![items];
        while let Some(items) = waiting.pop() {
            let started = Instant::now();
            let bytes: usize = items.iter().map(|item| item.bytes.len()).sum();
            let purpose = self.clone();
            let work = move |app: &App| {
                let decoded = purpose.decode(&items, &app.decode, app.clock.now_ns());
                (items, decoded)
            };
            let (mut items, decoded) = match self.app.offload(bytes, work).await {
                Ok(done) => done,
                Err(failure) => {
                    error!(listener = self.name, "{bytes} bytes of messages are given up: {failure}");
                    continue;
                }
            };
            let came = IngestOutcome { received_bytes: bytes, decoded_bytes: bytes, ..IngestOutcome::default() };
            let end = match decoded {
                Ok(decoded) => self.append(&items, decoded).await,
                Err(decode::Error::TooLarge(_)) if items.len() > 1 => {
                    let second = items.split_off(items.len() / 2);
                    waiting.extend([second, items]);
                    continue;
                }
                Err(unreadable) => Err(unreadable.into()),
            };
            self.app.count(self.name, started, came, end.as_ref());
            if let Err(failure) = &end {
                error!(listener = self.name, "{bytes} bytes of messages are given up: {failure}");
            }
            // What can't be decoded would fare no better when it is sent again: it was counted and told, as bad lines are.
            let settled = matches!(end, Ok(_) | Err(Error::Decode(_)));
            for done in items.into_iter().filter_map(|item| item.done) {
                // Nobody waits any more when the connection is gone.
                let _ = done.send(settled);
            }
        }
    }

    fn decode(&self, items: &[Item], options: &decode::Options, now_ns: i64) -> Result<Decoded, decode::Error> {
        match &self.protocol {
            Protocol::Syslog(zone) => {
                let messages =
                    items.iter().map(|item| decode::syslog::Message { bytes: &item.bytes, sender: &item.from });
                decode::syslog::messages(messages, zone, options, now_ns)
            }
            Protocol::Forward(_) => {
                let messages = items.iter().map(|item| (&*item.from, &*item.bytes));
                decode::forward::records(messages, options, now_ns)
            }
            Protocol::Gelf => decode::gelf::messages(items.iter().map(|item| &*item.bytes), options, now_ns),
        }
    }

    /// Appends a batch; while the store can't take it, tries again.
    async fn append(&self, items: &[Item], decoded: Decoded) -> Result<Kept, Error> {
        let mut kept =
            Kept { accepted: decoded.accepted(), rejected: decoded.rejected_count, reasons: decoded.rejected };
        let mut pause = PAUSE_MIN;
        while let Err(failure) = self.try_append(&decoded.batch).await {
            if !failure.is_passing() {
                return Err(failure);
            }
            if let Some(left_out) = self.failures.admit(self.app.clock.now_ns()) {
                warn!(listener = self.name, left_out, "messages wait: {failure}");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        if kept.rejected > 0
            && let Some(left_out) = self.rejections.admit(self.app.clock.now_ns())
        {
            // Forward's entries are more than its messages, and name their tag.
            for one in kept.reasons.iter_mut().filter(|_| !matches!(self.protocol, Protocol::Forward(_))) {
                let from = items.get(one.line - 1).map_or("", |item| &*item.from);
                one.reason = format!("from '{from}': {}", one.reason);
            }
            warn!(listener = self.name, tenant = self.tenant.as_str(), left_out, "{}", kept.summary());
        }
        Ok(kept)
    }

    async fn try_append(&self, batch: &arrow::record_batch::RecordBatch) -> Result<(), Error> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let mut lease = self.app.budget.lease();
        // The batch, and its frame for the log.
        lease.change_to(batch.get_array_memory_size().saturating_mul(3) / 2)?;
        self.app.parts()?.store.append(&self.tenant, batch.clone()).await?;
        Ok(())
    }
}
