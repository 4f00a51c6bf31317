//! Keeps records: WAL, buffer, segments and catalog behind one [`Store`]. It never knows `query`.
//!
//! One thread, the writer (writer.rs), changes anything; everybody else sends it requests and reads immutable
//! [`Snapshot`]s. **Invariant**: an append that returned `Ok` is fsynced, and is in every snapshot taken after.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use prometheus_client::registry::Registry;
use tokio::sync::{Mutex, mpsc, oneshot};

mod buffer;
pub mod cache;
pub mod catalog;
pub mod compact;
pub mod deletion;
mod frame;
pub mod index;
pub mod inspect;
pub mod metrics;
mod opened;
pub mod paths;
pub mod quota;
mod recovery;
pub mod remote;
mod repeats;
pub mod retention;
mod schema;
pub mod segment;
mod snapshot;
mod sources;
mod upkeep;
mod writer;

pub use buffer::Buffered;
pub use catalog::Segment;
pub use deletion::Deletion;
pub use repeats::{BatchId, Claim};
pub use schema::FieldInfo;
pub use snapshot::{Fields, Snapshot};
pub use sources::Reached;

use crate::clock::Clock;
use crate::error::Kind;
use crate::record::Tenant;
use crate::wal;
use cache::Cache;
use metrics::Metrics;
use opened::Opened;
use repeats::Repeats;
use segment::OpenSegment;
use snapshot::View;
use writer::Request;

/// Appends that wait for the writer at most; more wait at the door.
const APPENDS_QUEUED_MAX: usize = 256;
/// How long an append waits for room in the buffer before it is refused.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long objects of removed segments may take to go when the store closes.
const OBJECTS_CLOSE_MAX: Duration = Duration::from_secs(5);
/// Payloads above this are encoded off the async threads.
const ENCODE_INLINE_BYTES_MAX: usize = 256 << 10;

/// Numbers a user tunes.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where everything lives; made when absent.
    pub data_dir: PathBuf,
    /// The buffer is flushed to segments when it holds this much.
    pub flush_bytes_max: usize,
    /// … or when its oldest record is this old.
    pub flush_age_max: Duration,
    /// Appends wait, then fail with [`Kind::Limit`], when buffered plus flushing bytes pass this.
    pub buffer_bytes_max: usize,
    /// Footers and indexes of segments that are kept in memory.
    pub open_bytes_max: usize,
    /// Unpacked pages of segments that are kept in memory.
    pub page_cache_bytes_max: usize,
    /// Columns of a segment; the values of further fields go to the overflow column.
    pub columns_max: usize,
    /// Field names known to a tenant; values of further names are kept, but can't be asked for by name.
    pub fields_max: usize,
    /// What is kept for how long.
    pub rules: Arc<retention::Rules>,
    /// When and how segments are merged.
    pub merge_limits: compact::Limits,
    /// Segments and write-ahead log together; past it whole segments go. 0: no limit.
    pub disk_bytes_max: u64,
    /// Which segments go first then.
    pub quota_order: quota::Order,
    /// Where segments are kept besides.
    pub object_store: Option<cache::Place>,
    /// Local copies of segments that the object store has; 0: all are kept.
    pub cache_bytes_max: u64,
}

impl Options {
    /// The defaults, for a store in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Options {
        Options {
            data_dir: data_dir.into(),
            flush_bytes_max: 64 << 20,
            flush_age_max: Duration::from_secs(60),
            buffer_bytes_max: 192 << 20,
            open_bytes_max: 128 << 20,
            page_cache_bytes_max: 128 << 20,
            columns_max: 1_000,
            fields_max: 20_000,
            rules: Arc::default(),
            merge_limits: compact::Limits::default(),
            disk_bytes_max: 0,
            quota_order: quota::Order::default(),
            object_store: None,
            cache_bytes_max: 0,
        }
    }
}

impl Options {
    /// What a merge may hold in memory: about as much as a flush, which sorts a copy of what it writes.
    fn segment_limits(&self) -> segment::MergeLimits {
        let memory_bytes_max = self.flush_bytes_max.saturating_mul(3) / 2;
        segment::MergeLimits { columns_max: self.columns_max, memory_bytes_max }
    }
}

/// What storage can answer instead of a result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store is closing or closed.
    #[error("the store is shutting down")]
    Closed,
    /// Appends come faster than segments can be written.
    #[error("the store holds {0} bytes in memory and can't write them out fast enough; send slower, or try again")]
    Overloaded(usize),
    /// Another process has the data directory open.
    #[error("another quiver process has '{0}' open; stop it, or choose another --data-dir")]
    Locked(PathBuf),
    /// There are segments and no catalog that names them.
    #[error(
        "the catalog of the segments in '{0}' is missing or new; put 'catalog.sqlite' back (quiver restore), or move the segments away"
    )]
    CatalogLost(PathBuf),
    /// The object store can't be used, or does not answer.
    #[error(transparent)]
    ObjectStore(#[from] remote::Error),
    /// The segments of another store are there.
    #[error(
        "'{place}' has the segments of another store ('{owner}'); give each store a prefix of its own, or, when the other \
         one is gone for good, delete the object 'OWNER' there"
    )]
    OtherOwner {
        /// Where.
        place: String,
        /// Which store.
        owner: String,
    },
    /// The data directory can't be used.
    #[error("can't use the data directory '{path}': {source}")]
    DataDir {
        /// The directory, or what in it.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The write-ahead log failed.
    #[error(transparent)]
    Wal(#[from] wal::Error),
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// A segment can't be written.
    #[error(transparent)]
    Segment(#[from] segment::Error),
    /// A batch can't be encoded or decoded.
    #[error("a batch can't be encoded: {0}")]
    Batch(#[from] ArrowError),
    /// Batches can't be brought into one schema.
    #[error(transparent)]
    Schema(#[from] crate::record::batch::Error),
    /// A frame of the write-ahead log passed its checksum but makes no sense.
    #[error("a frame of the write-ahead log is not understood: {0}; was it written by a newer quiver?")]
    Frame(String),
    /// No further deletion can be taken.
    #[error("{0} deletions are active, which is the most; cancel one, or wait until one is done")]
    TooManyDeletions(usize),
    /// … for so many wait.
    #[error("{0} deletions wait for quarantined segments, which is the most; put the segments back, or cancel some")]
    TooManyWaiting(i64),
    /// An error that several waiting requests share.
    #[error(transparent)]
    Shared(Arc<Error>),
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Overloaded(_) | Error::TooManyDeletions(_) | Error::TooManyWaiting(_) => Kind::Limit,
            Error::Closed | Error::Locked(_) | Error::DataDir { .. } | Error::Wal(_) | Error::Segment(_) => {
                Kind::Unavailable
            }
            Error::ObjectStore(remote::Error::Invalid { .. } | remote::Error::Overwrites { .. })
            | Error::OtherOwner { .. } => Kind::Invalid,
            Error::ObjectStore(_) => Kind::Unavailable,
            Error::CatalogLost(_) => Kind::Corrupt,
            Error::Catalog(catalog::Error::Gone { .. }) => Kind::NotFound,
            Error::Catalog(
                catalog::Error::Damaged { .. }
                | catalog::Error::DamagedDeletion { .. }
                | catalog::Error::Unreadable { .. },
            )
            | Error::Frame(_) => Kind::Corrupt,
            Error::Catalog(_) => Kind::Unavailable,
            Error::Batch(_) | Error::Schema(_) => Kind::Internal,
            Error::Shared(error) => error.kind(),
        }
    }
}

/// What [`Store::compact`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Merges done.
    pub merges: u64,
    /// Segments that were merged.
    pub segments_merged: u64,
    /// Segments that came of it.
    pub segments_written: u64,
    /// Records in them.
    pub records: u64,
}

/// The store of all tenants.
pub struct Store {
    options: Options,
    shared: Arc<Shared>,
    catalog: catalog::Catalog,
    requests: mpsc::Sender<Request>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
    /// Deletes and uploads objects, until the writer ended.
    cache_keeper: Mutex<Option<tokio::task::JoinHandle<()>>>,
    _lock: File,
}

/// What the writer and everybody else look at together.
struct Shared {
    view: ArcSwap<View>,
    buffer_bytes: AtomicUsize,
    room: tokio::sync::Notify,
    opened: Opened,
    pages: Arc<segment::PageCache>,
    cache: Cache,
    metrics: Metrics,
    repeats: Arc<Repeats>,
    /// Why nothing can be appended until a restart, once that is so.
    broken: OnceLock<Arc<Error>>,
}

impl Store {
    /// Opens or creates the store, recovering from catalog and WAL. Needs a tokio runtime.
    ///
    /// **Errors**: [`Error::Locked`] when another process has it; [`Kind::Corrupt`] when the catalog is damaged.
    pub async fn open(options: Options, clock: Clock) -> Result<Arc<Store>, Error> {
        let lock = lock(&options.data_dir)?;
        let mut recovered = recovery::recover(&options).await?;
        let live = recovered.view.all_segments();
        let cache = Cache::open(&options, &live).await?;
        let found = cache.take_stock(&live, recovered.is_new, clock.now_ns()).await?;
        recovered.view.quarantine(&found.gone, "it is neither here nor in the object store", options.fields_max);
        drop(live);
        let metrics = Metrics::default();
        metrics.wal_lost_bytes.inc_by(recovered.wal_lost_bytes);
        let buffer_bytes = recovered.view.tenants.values().map(|snapshot| snapshot.buffer_bytes()).sum();
        let shared = Arc::new(Shared {
            view: ArcSwap::from_pointee(recovered.view),
            buffer_bytes: AtomicUsize::new(buffer_bytes),
            room: tokio::sync::Notify::new(),
            opened: Opened::new(options.open_bytes_max),
            pages: Arc::new(segment::PageCache::new(options.page_cache_bytes_max)),
            cache,
            metrics,
            repeats: Arc::new(recovered.repeats),
            broken: OnceLock::new(),
        });
        shared.publish_buffer_gauges();
        shared.publish_segment_gauges();
        shared.evict();
        let (removals, removed) = cache::removals();
        let (requests, inbox) = mpsc::channel(APPENDS_QUEUED_MAX);
        let catalog = recovered.catalog.clone();
        let writer = writer::Writer::new(
            options.clone(),
            clock,
            shared.clone(),
            recovered.catalog,
            recovered.wal,
            recovered.next_seq,
            recovered.low_water,
            recovered.next_segment,
            requests.downgrade(),
            removals,
        );
        let runtime = tokio::runtime::Handle::current();
        let writer = std::thread::Builder::new()
            .name("quiver-writer".into())
            .spawn(move || writer.run(inbox, &runtime))
            .map_err(|source| Error::DataDir { path: options.data_dir.clone(), source })?;
        let cache_keeper = tokio::spawn(cache::keep(shared.clone(), found, removed));
        let (writer, cache_keeper) = (Mutex::new(Some(writer)), Mutex::new(Some(cache_keeper)));
        Ok(Arc::new(Store { options, shared, catalog, requests, writer, cache_keeper, _lock: lock }))
    }

    /// Appends a decoded batch; returns when it is fsynced and in every later snapshot.
    ///
    /// **Errors**: [`Kind::Limit`] when memory is full, [`Kind::Unavailable`] when the disk is full or the store closes;
    /// nothing of the batch is kept then, unless the process dies at that moment.
    pub async fn append(&self, tenant: &Tenant, batch: RecordBatch) -> Result<(), Error> {
        self.append_claimed(tenant, batch, self.claim(tenant)).await
    }

    /// The ids that a next append of the tenant's brings.
    pub fn claim(&self, tenant: &Tenant) -> Claim {
        Claim::new(self.shared.repeats.clone(), tenant.clone())
    }

    /// How far a source of this name was kept; `None` when nothing of it was.
    pub fn reached(&self, source: &str) -> Option<i64> {
        self.shared.repeats.sources.next(source)
    }

    /// As [`Store::append`]; the claimed ids, and how far sources are kept, are remembered with the records, however the
    /// process ends then. An empty batch keeps nothing, and no id.
    pub async fn append_claimed(&self, tenant: &Tenant, batch: RecordBatch, claim: Claim) -> Result<(), Error> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.wait_for_room().await?;
        let (tenant_of_frame, encoded, brought) = (tenant.clone(), batch.clone(), claim.brought().clone());
        let payload = if batch.get_array_memory_size() > ENCODE_INLINE_BYTES_MAX {
            let encode = move || frame::encode(&tenant_of_frame, &brought, &encoded);
            tokio::task::spawn_blocking(encode).await.map_err(|_| Error::Closed)??
        } else {
            frame::encode(&tenant_of_frame, &brought, &encoded)?
        };
        let (done, answer) = oneshot::channel();
        let request = Request::Append { tenant: tenant.clone(), batch, payload, claim, done };
        self.requests.send(request).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    async fn wait_for_room(&self) -> Result<(), Error> {
        let full = || self.shared.buffer_bytes.load(Ordering::Relaxed) > self.options.buffer_bytes_max;
        let deadline = tokio::time::Instant::now() + ROOM_WAIT_MAX;
        loop {
            let room = self.shared.room.notified();
            if !full() {
                return Ok(());
            }
            if tokio::time::timeout_at(deadline, room).await.is_err() {
                self.shared.metrics.refused_appends.inc();
                return Err(Error::Overloaded(self.shared.buffer_bytes.load(Ordering::Relaxed)));
            }
        }
    }

    /// The records of a tenant at this moment.
    pub fn snapshot(&self, tenant: &Tenant) -> Arc<Snapshot> {
        self.shared.view.load().tenants.get(tenant).cloned().unwrap_or_default()
    }

    /// Writes everything that is buffered to segments; returns when they are live.
    pub async fn flush(&self) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        self.requests.send(Request::Flush { done }).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Merges every group of small segments to the end, whether it is due or not; returns when it is done.
    pub async fn compact(&self) -> Result<Compacted, Error> {
        let (done, answer) = oneshot::channel();
        self.requests.send(Request::Compact { done }).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Takes a segment that can't be read out of every later snapshot's `segments`; its files are kept.
    ///
    /// **Errors**: [`Kind::NotFound`] when there is none of that id.
    pub async fn quarantine(&self, id: i64, reason: &str) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        let request = Request::Quarantine { id, reason: reason.to_owned(), done };
        self.requests.send(request).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Whether appends can succeed. **Errors**: why they can't before the store is started again.
    pub fn health(&self) -> Result<(), Error> {
        self.shared.broken.get().map_or(Ok(()), |error| Err(Error::Shared(error.clone())))
    }

    /// Stops accepting, flushes, and joins the writer. A second call returns at once.
    pub async fn close(&self) -> Result<(), Error> {
        let Some(writer) = self.writer.lock().await.take() else { return Ok(()) };
        let (done, answer) = oneshot::channel();
        let closed = match self.requests.send(Request::Close { done }).await {
            Ok(()) => answer.await.map_err(|_| Error::Closed)?,
            Err(_) => Err(Error::Closed),
        };
        let joined = tokio::task::spawn_blocking(move || writer.join()).await;
        assert!(matches!(joined, Ok(Ok(()))), "the writer thread never panics");
        if let Some(mut keeper) = self.cache_keeper.lock().await.take()
            && tokio::time::timeout(OBJECTS_CLOSE_MAX, &mut keeper).await.is_err()
        {
            // What it left is done at the next start.
            keeper.abort();
        }
        closed
    }

    /// A segment, open; kept open while there is room for it.
    ///
    /// **Errors**: [`segment::ReadError::Damaged`] when its file is not what was written.
    pub fn open_segment(&self, segment: &Arc<Segment>) -> Result<Arc<OpenSegment>, segment::ReadError> {
        let mut was_here = true;
        let open = self.shared.opened.get(segment.id, || {
            was_here = false;
            let _pinned = self.shared.cache.pin(segment)?;
            Ok(OpenSegment::open(&self.segments_dir(), segment)?.with_pages(self.shared.pages.clone()))
        })?;
        if was_here {
            self.shared.cache.touch(segment.id);
        } else {
            self.shared.evict();
        }
        Ok(open)
    }

    /// Takes a damaged segment out of all later snapshots.
    pub fn report_damage(&self, id: i64, reason: String) {
        self.shared.opened.forget(id);
        let (done, _) = oneshot::channel();
        // A writer that is busy hears of it from the next query.
        let _ = self.requests.try_send(Request::Quarantine { id, reason, done });
    }

    /// Where the segments lie; the paths of [`Segment`]s are below it.
    pub fn segments_dir(&self) -> PathBuf {
        paths::segments_dir(&self.options.data_dir)
    }

    /// Where queries may spill.
    pub fn spill_dir(&self) -> PathBuf {
        paths::spill_dir(&self.options.data_dir)
    }

    /// Registers the store's metrics.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.shared.metrics.register(registry);
        self.shared.cache.register(registry);
        self.shared.pages.register(registry.sub_registry_with_prefix("quiver_storage"));
    }
}

impl Shared {
    /// Removes local copies of segments when there are too many.
    fn evict(&self) {
        self.cache.evict(|id| self.opened.close_idle(id));
    }

    /// As [`segment::merge`], with inputs that may have to be fetched, and an output that is uploaded.
    fn merge(
        &self,
        root: &Path,
        inputs: &[Arc<Segment>],
        limits: segment::MergeLimits,
        id: i64,
        keep: &segment::Keep<'_>,
        stop: &AtomicBool,
    ) -> Result<Option<Segment>, segment::Error> {
        let pinned = self.cache.pin_all(inputs)?;
        let merged = segment::merge(root, inputs, limits, id, keep, stop)?;
        drop(pinned);
        let uploaded = self.cache.upload(merged.as_slice());
        self.evict();
        uploaded.map_err(|error| segment::Error::Upload(error.to_string()))?;
        Ok(merged)
    }

    /// After every group commit: looks at the buffer only.
    fn publish_buffer_gauges(&self) {
        let view = self.view.load();
        let buffered = view.tenants.values().flat_map(|snapshot| &snapshot.buffer);
        self.metrics.buffer_bytes.set(self.buffer_bytes.load(Ordering::Relaxed) as i64);
        self.metrics.buffer_records.set(buffered.map(|batch| batch.rows() as i64).sum());
    }

    /// After the live segments changed.
    fn publish_segment_gauges(&self) {
        let view = self.view.load();
        let segments = || view.tenants.values().flat_map(|snapshot| &snapshot.segments);
        self.metrics.segments.set(segments().count() as i64);
        self.metrics.segment_bytes.set(segments().map(|segment| segment.disk_bytes() as i64).sum());
        self.metrics.segment_records.set(segments().map(|segment| segment.records as i64).sum());
        let quarantined = || view.tenants.values().flat_map(|snapshot| &snapshot.quarantined);
        self.metrics.quarantined_segments.set(quarantined().count() as i64);
        self.metrics.quarantined_records.set(quarantined().map(|segment| segment.records as i64).sum());
    }

    /// After a flush or a merge.
    fn publish_amplification(&self) {
        let flushed = self.metrics.flushed_bytes.get();
        if flushed > 0 {
            let written = flushed + self.metrics.compacted_bytes.get();
            self.metrics.write_amplification.set(written as f64 / flushed as f64);
        }
    }
}

fn lock(data_dir: &Path) -> Result<File, Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::DataDir { path, source }
    };
    std::fs::create_dir_all(data_dir).map_err(failed(data_dir))?;
    let above = data_dir.canonicalize().ok().and_then(|dir| dir.parent().map(Path::to_owned));
    if let Some(above) = above {
        // A directory above that can't be opened was not made by us.
        let _ = File::open(above).and_then(|dir| dir.sync_all());
    }
    let path = paths::lock_file(data_dir);
    let file = File::create(&path).map_err(failed(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::Locked(data_dir.to_owned())),
        Err(std::fs::TryLockError::Error(source)) => Err(Error::DataDir { path, source }),
    }
}
