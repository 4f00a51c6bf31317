//! Segments' files between the local disk and an object store: the disk is a write-through cache. What is written is
//! uploaded before the catalog names it, what is not here is fetched when it is read, and what was not read for long goes
//! when there is little room. Without an object store it does nothing.
//!
//! **Invariants**: a segment that the catalog names is in the object store once, or on the local disk until it was
//! uploaded; a local file goes only while it is uploaded, and while nobody reads or opens it; nothing is written to a
//! place of another store.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::catalog::Segment;
use super::remote::{self, Remote};
use super::segment::ReadError;
use super::{Error, Options, Shared, paths};

/// Segments that are uploaded at once.
const UPLOADS_AT_ONCE: usize = 4;
/// Removed segments whose objects wait to be deleted; more are left to the next start.
const REMOVALS_QUEUED_MAX: usize = 4_096;
/// An object that the catalog does not name is deleted at start when it is older than this.
const ORPHAN_AGE_MIN: Duration = Duration::from_secs(3_600);
/// Wait before the object store is asked again after a failure; doubles up to the maximum.
const RETRY_WAIT_MIN: Duration = Duration::from_secs(1);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(60);

/// Where segments are kept beside the local disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// `s3://bucket/prefix`, or a directory.
    pub place: String,
    /// How it is reached.
    pub settings: remote::Settings,
}

/// Which store this is, and whether a place was seen to be its own. In the data directory, not in the catalog: a copy of
/// the catalog is another store.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Identity {
    store: String,
    claimed: Option<Place>,
}

/// What the object [`paths::OWNER_OBJECT`] says.
#[derive(Debug, Serialize, Deserialize)]
struct Owner {
    store: String,
}

/// The object store and what is known of it.
#[derive(Debug)]
struct Far {
    remote: Remote,
    store: String,
    /// In this process it was seen to be ours, and to keep put-if-absent.
    claimed: AtomicBool,
    runtime: Handle,
}

#[derive(Debug, Default)]
struct State {
    local: HashMap<i64, Local>,
    uploaded: HashSet<i64>,
    /// Segments that somebody opens or merges, by how many.
    pinned: HashMap<i64, usize>,
    fetching: HashSet<i64>,
    bytes: u64,
    clock: u64,
}

#[derive(Debug)]
struct Local {
    path: String,
    bytes: u64,
    used: u64,
}

impl State {
    fn add(&mut self, segment: &Segment) {
        self.clock += 1;
        let (bytes, used) = (segment.disk_bytes(), self.clock);
        let old = self.local.insert(segment.id, Local { path: segment.path.clone(), bytes, used });
        self.bytes = self.bytes + bytes - old.map_or(0, |old| old.bytes);
    }

    fn remove(&mut self, id: i64) {
        self.bytes -= self.local.remove(&id).map_or(0, |local| local.bytes);
    }
}

#[derive(Debug, Default)]
struct Metrics {
    uploaded_segments: Counter,
    failed_uploads: Counter,
    fetched_segments: Counter,
    failed_fetches: Counter,
    evicted_segments: Counter,
    orphans: Counter,
    cached_bytes: Gauge,
    reachable: Gauge,
}

/// The segments' files.
#[derive(Debug)]
pub(super) struct Cache {
    root: PathBuf,
    bytes_max: u64,
    far: Option<Far>,
    metrics: Metrics,
    state: Mutex<State>,
    fetched: Condvar,
}

/// What the start found out.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Live segments that are not in the object store; `None`: it did not answer, so it is to be asked again.
    pub missing: Option<Vec<Arc<Segment>>>,
    /// Live segments that are nowhere.
    pub gone: Vec<i64>,
}

/// Keeps local files where they are while it lives.
pub(super) struct Pinned<'a> {
    cache: &'a Cache,
    ids: Vec<i64>,
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        let mut state = self.cache.state();
        for id in &self.ids {
            if let Some(pins) = state.pinned.get_mut(id) {
                *pins -= 1;
                if *pins == 0 {
                    state.pinned.remove(id);
                }
            }
        }
    }
}

impl Cache {
    /// Takes stock of the local files, and makes sure that the place is ours.
    ///
    /// **Errors**: [`Error::ObjectStore`] when the place can't be used, or does not answer and was never seen to be ours;
    /// [`Error::OtherOwner`].
    pub async fn open(options: &Options, live: &[Arc<Segment>]) -> Result<Cache, Error> {
        let root = paths::segments_dir(&options.data_dir);
        let mut state = State::default();
        let far = match &options.object_store {
            None => None,
            Some(place) => {
                let remote = Remote::open(&place.place, &place.settings)?;
                let here = live.iter().filter(|segment| root.join(&segment.path).is_file());
                here.for_each(|segment| state.add(segment));
                let mut identity = Identity::of(&options.data_dir)?;
                let far = Far {
                    remote,
                    store: identity.store.clone(),
                    claimed: AtomicBool::new(false),
                    runtime: Handle::current(),
                };
                match far.claim().await {
                    Ok(()) => {
                        identity.claimed = Some(place.clone());
                        identity.keep(&options.data_dir)?;
                    }
                    Err(Error::ObjectStore(error @ remote::Error::Failed { .. }))
                        if identity.claimed.as_ref() == Some(place) =>
                    {
                        tracing::warn!(%error, "the object store does not answer; records are kept in the log until it does");
                    }
                    Err(error) => return Err(error),
                }
                Some(far)
            }
        };
        let (bytes_max, fetched, metrics) = (options.cache_bytes_max, Condvar::new(), Metrics::default());
        metrics.reachable.set(i64::from(far.as_ref().is_some_and(|far| far.claimed.load(Ordering::Relaxed))));
        Ok(Cache { root, bytes_max, far, metrics, state: Mutex::new(state), fetched })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics with the lock held")
    }

    /// Before anything is written: compares the object store with the catalog, and deletes old objects that it does not
    /// name. `is_new`: the catalog is, so that objects mean that it was lost.
    pub async fn take_stock(&self, live: &[Arc<Segment>], is_new: bool, now_ns: i64) -> Result<Found, Error> {
        let Some(far) = self.far.as_ref().filter(|far| far.claimed.load(Ordering::Relaxed)) else {
            return Ok(Found::default());
        };
        let listed = match far.remote.list(paths::OBJECTS).await {
            Ok(listed) => listed,
            Err(error @ remote::Error::Failed { .. }) => {
                tracing::warn!(%error, "the object store can't be listed; it is asked again");
                return Ok(Found::default());
            }
            Err(error) => return Err(error.into()),
        };
        let has_segments = listed.keys().any(|object| object.ends_with(paths::SEGMENT_SUFFIX));
        if is_new && has_segments {
            return Err(Error::CatalogLost(PathBuf::from(far.remote.place())));
        }
        let missing = self.learn(live, &listed);
        let gone = missing.iter().filter(|segment| !self.state().local.contains_key(&segment.id));
        let gone = gone.map(|segment| segment.id).collect();
        let named: HashSet<String> = live.iter().flat_map(|segment| objects_of(&segment.path)).collect();
        let before_ns = now_ns.saturating_sub(ORPHAN_AGE_MIN.as_nanos() as i64);
        let orphans = listed.iter().filter(|(object, found)| !named.contains(*object) && found.modified_ns < before_ns);
        for (object, _) in orphans {
            match far.remote.delete(object).await {
                Ok(()) => self.metrics.orphans.inc(),
                Err(error) => {
                    tracing::warn!(%error, "objects that no segment needs stay until the next start");
                    break;
                }
            };
        }
        Ok(Found { missing: Some(missing), gone })
    }

    /// Notes which segments are uploaded; gives the others.
    fn learn(
        &self,
        live: &[Arc<Segment>],
        listed: &std::collections::BTreeMap<String, remote::Listed>,
    ) -> Vec<Arc<Segment>> {
        let mut state = self.state();
        let is_there = |segment: &&Arc<Segment>| {
            listed.get(&objects_of(&segment.path)[0]).is_some_and(|found| found.bytes == segment.bytes)
        };
        let (there, missing): (Vec<_>, Vec<_>) = live.iter().partition(is_there);
        state.uploaded.extend(there.iter().map(|segment| segment.id));
        missing.into_iter().cloned().collect()
    }

    /// Brings segments that are complete and fsynced to the object store; returns when all are there. Not for async
    /// threads.
    pub fn upload(&self, segments: &[Segment]) -> Result<(), Error> {
        let Some(far) = &self.far else { return Ok(()) };
        let files: Vec<String> = segments.iter().map(|segment| segment.path.clone()).collect();
        let (remote, root) = (far.remote.clone(), self.root.clone());
        let outcome =
            far.wait_until_claimed().and_then(|()| far.wait(async move { put_all(&remote, &root, files).await }));
        self.metrics.reachable.set(i64::from(outcome.is_ok()));
        if let Err(error) = outcome {
            self.metrics.failed_uploads.inc();
            return Err(error);
        }
        self.metrics.uploaded_segments.inc_by(segments.len() as u64);
        let mut state = self.state();
        for segment in segments {
            state.add(segment);
            state.uploaded.insert(segment.id);
        }
        Ok(())
    }

    /// Makes sure that a segment's files are here, and stay. Not for async threads of the store.
    ///
    /// **Errors**: [`ReadError::Fetch`] when the object store does not give them, [`ReadError::Damaged`] when it has none.
    pub fn pin(&self, segment: &Segment) -> Result<Pinned<'_>, ReadError> {
        let Some(far) = &self.far else { return Ok(Pinned { cache: self, ids: Vec::new() }) };
        let id = segment.id;
        let mut state = self.state();
        *state.pinned.entry(id).or_default() += 1;
        let pinned = Pinned { cache: self, ids: vec![id] };
        while state.fetching.contains(&id) {
            state = self.fetched.wait(state).expect("nothing panics with the lock held");
        }
        state.clock += 1;
        let used = state.clock;
        if let Some(local) = state.local.get_mut(&id) {
            local.used = used;
            drop(state);
            return Ok(pinned);
        }
        state.fetching.insert(id);
        drop(state);
        let outcome = self.fetch(far, segment);
        let mut state = self.state();
        state.fetching.remove(&id);
        if outcome.is_ok() {
            state.add(segment);
        }
        drop(state);
        self.fetched.notify_all();
        outcome.map(|()| pinned)
    }

    /// As [`Cache::pin`], of several.
    pub fn pin_all(&self, segments: &[Arc<Segment>]) -> Result<Vec<Pinned<'_>>, ReadError> {
        segments.iter().map(|segment| self.pin(segment)).collect()
    }

    fn fetch(&self, far: &Far, segment: &Segment) -> Result<(), ReadError> {
        let path = self.root.join(&segment.path);
        let [object, index_object] = objects_of(&segment.path);
        let (remote, to) = (far.remote.clone(), path.clone());
        let fetched = far.wait(async move {
            // The index first: where the segment is, its index was asked for. One that is missing is made again.
            match remote.fetch(&index_object, &paths::index_of(&to)).await {
                Ok(_) | Err(remote::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            match remote.fetch(&object, &to).await {
                // The writer may have removed the directory as an empty one just when it was made.
                Err(remote::Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    Ok(remote.fetch(&object, &to).await?)
                }
                fetched => Ok(fetched?),
            }
        });
        match fetched {
            Ok(copied) => {
                self.metrics.fetched_segments.inc();
                tracing::debug!(id = segment.id, bytes = copied.bytes, "fetched a segment");
                Ok(())
            }
            Err(Error::ObjectStore(remote::Error::NotFound { .. })) => {
                let reason = "it is neither here nor in the object store".to_owned();
                Err(ReadError::Damaged { id: segment.id, path, reason })
            }
            Err(error) => {
                self.metrics.failed_fetches.inc();
                Err(ReadError::Fetch { path, reason: error.to_string() })
            }
        }
    }

    /// Notes that a segment was read.
    pub fn touch(&self, id: i64) {
        if self.far.is_some() {
            let mut state = self.state();
            state.clock += 1;
            let used = state.clock;
            if let Some(local) = state.local.get_mut(&id) {
                local.used = used;
            }
        }
    }

    /// Forgets a removed segment, whose local files the caller unlinked; gives its objects, to be deleted.
    pub fn forget(&self, segment: &Segment) -> Vec<String> {
        if self.far.is_none() {
            return Vec::new();
        }
        let mut state = self.state();
        state.remove(segment.id);
        state.uploaded.remove(&segment.id);
        objects_of(&segment.path).to_vec()
    }

    /// Unlinks local files that were not read for long until the others fit. `close_idle` says whether nobody reads a
    /// segment, and closes it then.
    pub fn evict(&self, close_idle: impl Fn(i64) -> bool) {
        let mut state = self.state();
        self.metrics.cached_bytes.set(i64::try_from(state.bytes).unwrap_or(i64::MAX));
        if self.far.is_none() || self.bytes_max == 0 || state.bytes <= self.bytes_max {
            return;
        }
        let mut oldest: Vec<(u64, i64)> = state.local.iter().map(|(id, local)| (local.used, *id)).collect();
        oldest.sort_unstable();
        for (_, id) in oldest {
            if state.bytes <= self.bytes_max {
                break;
            }
            if state.pinned.contains_key(&id) || !state.uploaded.contains(&id) || !close_idle(id) {
                continue;
            }
            let path = self.root.join(&state.local[&id].path);
            if let Err(error) = paths::remove_segment(&path) {
                tracing::warn!(%error, path = %path.display(), "a local copy can't be removed");
                continue;
            }
            state.remove(id);
            self.metrics.evicted_segments.inc();
        }
        self.metrics.cached_bytes.set(i64::try_from(state.bytes).unwrap_or(i64::MAX));
    }

    /// Registers the metrics, where there is an object store.
    pub fn register(&self, registry: &mut Registry) {
        if self.far.is_none() {
            return;
        }
        let registry = registry.sub_registry_with_prefix("quiver_object_store");
        let metrics = &self.metrics;
        let help = "Segments brought to the object store";
        registry.register("uploaded_segments", help, metrics.uploaded_segments.clone());
        registry.register("failed_uploads", "Uploads that failed and are tried again", metrics.failed_uploads.clone());
        registry.register("reachable", "1 when the last upload succeeded", metrics.reachable.clone());
        registry.register("fetched_segments", "Segments fetched to be read", metrics.fetched_segments.clone());
        registry.register("failed_fetches", "Segments that could not be fetched", metrics.failed_fetches.clone());
        let help = "Local copies removed to keep to 'storage.cache_bytes_max'";
        registry.register("evicted_segments", help, metrics.evicted_segments.clone());
        registry.register("deleted_orphans", "Objects deleted at start that no segment needs", metrics.orphans.clone());
        registry.register("cached_bytes", "Size of the local copies", metrics.cached_bytes.clone());
    }
}

impl Far {
    /// Makes sure that the store keeps put-if-absent, and that nobody else's segments are at this place.
    async fn claim(&self) -> Result<(), Error> {
        self.remote.probe().await?;
        let owner = serde_json::to_vec(&Owner { store: self.store.clone() }).expect("a string always serialises");
        match self.remote.put_new(paths::OWNER_OBJECT, Bytes::from(owner)).await {
            Ok(()) => {}
            Err(remote::Error::Exists { .. }) => {
                let found = self.remote.get(paths::OWNER_OBJECT).await?;
                let owner =
                    serde_json::from_slice::<Owner>(&found).map_or_else(|_| "unknown".to_owned(), |owner| owner.store);
                if owner != self.store {
                    return Err(Error::OtherOwner { place: self.remote.place().to_owned(), owner });
                }
            }
            Err(error) => return Err(error.into()),
        }
        self.claimed.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn wait_until_claimed(&self) -> Result<(), Error> {
        if self.claimed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let again = Far {
            remote: self.remote.clone(),
            store: self.store.clone(),
            claimed: AtomicBool::new(false),
            runtime: self.runtime.clone(),
        };
        self.wait(async move { again.claim().await })?;
        self.claimed.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Does it on the store's runtime and waits: the callers are threads of flushes, merges and queries.
    fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let (send, receive) = std::sync::mpsc::sync_channel(1);
        self.runtime.spawn(async move {
            // Nobody waits any more only when the caller panicked.
            let _ = send.send(work.await);
        });
        receive.recv().unwrap_or(Err(Error::Closed))
    }
}

impl Identity {
    /// That of a data directory; a new one where there is none.
    fn of(data_dir: &Path) -> Result<Identity, Error> {
        let path = paths::identity_file(data_dir);
        let failed = |source| Error::DataDir { path: path.clone(), source };
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed(io::Error::other(error))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let random = || std::hash::RandomState::new().build_hasher().finish();
                let identity = Identity { store: format!("{:016x}{:016x}", random(), random()), claimed: None };
                identity.keep(data_dir)?;
                Ok(identity)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Durable before the place is claimed in its name.
    fn keep(&self, data_dir: &Path) -> Result<(), Error> {
        let path = paths::identity_file(data_dir);
        let failed = |source| Error::DataDir { path: path.clone(), source };
        let unfinished = path.with_extension(&paths::UNFINISHED_SUFFIX[1..]);
        let text = serde_json::to_vec(self).expect("strings always serialise");
        let mut file = fs::File::create(&unfinished).map_err(failed)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
        fs::rename(&unfinished, &path).map_err(failed)?;
        fs::File::open(data_dir).and_then(|dir| dir.sync_all()).map_err(failed)
    }
}

/// Where the segments of a data directory are besides, as its store was last started. For those who look at one from
/// outside.
pub fn elsewhere(data_dir: &Path) -> Result<Option<Remote>, Error> {
    if !paths::identity_file(data_dir).is_file() {
        return Ok(None);
    }
    let place = Identity::of(data_dir)?.claimed;
    Ok(place.map(|place| Remote::open(&place.place, &place.settings)).transpose()?)
}

/// The object of a segment's file.
pub fn object_of(segment: &Segment) -> String {
    let [object, _] = objects_of(&segment.path);
    object
}

/// The objects of a segment and of its index.
fn objects_of(path: &str) -> [String; 2] {
    let segment = format!("{}/{path}", paths::OBJECTS);
    let index = paths::index_of(Path::new(&segment)).to_string_lossy().into_owned();
    [segment, index]
}

async fn put_all(remote: &Remote, root: &Path, files: Vec<String>) -> Result<(), Error> {
    let put = |path: String| async move {
        let [object, index_object] = objects_of(&path);
        let file = root.join(&path);
        match remote.put(&index_object, &paths::index_of(&file)).await {
            Err(remote::Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        remote.put(&object, &file).await.map(drop)
    };
    Ok(futures::stream::iter(files).map(put).buffer_unordered(UPLOADS_AT_ONCE).try_collect::<()>().await?)
}

/// The queue of objects to be deleted.
pub(super) fn removals() -> (mpsc::Sender<String>, mpsc::Receiver<String>) {
    mpsc::channel(REMOVALS_QUEUED_MAX)
}

/// What is done beside everything else, until the writer ends: objects of removed segments are deleted, and segments that
/// are here only are uploaded.
pub(super) async fn keep(shared: Arc<Shared>, found: Found, mut removals: mpsc::Receiver<String>) {
    let Some(far) = &shared.cache.far else { return };
    let (mut missing, mut wait) = (found.missing, RETRY_WAIT_MIN);
    let mut next = tokio::time::Instant::now();
    loop {
        let idle = missing.as_ref().is_some_and(Vec::is_empty);
        tokio::select! {
            object = removals.recv() => {
                let Some(object) = object else { return };
                if let Err(error) = far.remote.delete(&object).await {
                    tracing::warn!(%error, "an object that no segment needs stays until the next start");
                }
            }
            () = tokio::time::sleep_until(next), if !idle => {
                next = match catch_up(&shared, far, &mut missing).await {
                    Ok(()) => {
                        wait = RETRY_WAIT_MIN;
                        tokio::time::Instant::now()
                    }
                    Err(error) => {
                        shared.cache.metrics.failed_uploads.inc();
                        tracing::warn!(%error, retry_in = ?wait, "a segment is on the local disk only");
                        wait = (wait * 2).min(RETRY_WAIT_MAX);
                        tokio::time::Instant::now() + wait
                    }
                };
            }
        }
    }
}

/// Uploads one segment that is missing; finds out which are, where that is not known yet.
async fn catch_up(shared: &Shared, far: &Far, missing: &mut Option<Vec<Arc<Segment>>>) -> Result<(), Error> {
    let cache = &shared.cache;
    if !far.claimed.load(Ordering::Relaxed) {
        far.claim().await?;
    }
    let Some(left) = missing else {
        let live = shared.view.load().all_segments();
        let listed = far.remote.list(paths::OBJECTS).await?;
        *missing = Some(cache.learn(&live, &listed));
        return Ok(());
    };
    let Some(segment) = left.last() else { return Ok(()) };
    match put_all(&far.remote, &cache.root, vec![segment.path.clone()]).await {
        Ok(()) => {
            cache.metrics.uploaded_segments.inc();
            cache.state().uploaded.insert(segment.id);
        }
        // It was merged or expired meanwhile.
        Err(Error::ObjectStore(remote::Error::File { source, .. })) if source.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    left.pop();
    shared.evict();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::record::Tenant;
    use crate::storage::Store;
    use crate::storage::upkeep::tests::{eventually, records};

    fn options(data_dir: &Path, place: Option<&Path>) -> Options {
        let place =
            place.map(|dir| Place { place: dir.to_str().unwrap().into(), settings: remote::Settings::default() });
        Options { object_store: place, ..Options::new(data_dir) }
    }

    async fn fill(store: &Store, segments: i64) {
        for time_ns in 0..segments {
            store.append(&Tenant::default_tenant(), records("info", &[time_ns])).await.unwrap();
            store.flush().await.unwrap();
        }
    }

    /// The lock goes with the value.
    async fn close(store: Arc<Store>) {
        store.close().await.unwrap();
    }

    fn objects(place: &Path) -> Vec<String> {
        fn below(dir: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                match entry.path() {
                    path if path.is_dir() => below(&path, found),
                    path => found.push(path.display().to_string()),
                }
            }
        }
        let mut found = Vec::new();
        below(&place.join(paths::OBJECTS), &mut found);
        found
    }

    fn now() -> Clock {
        Clock::manual(Clock::System.now_ns())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_store_that_was_local_is_uploaded_and_reads_from_there() {
        let (dir, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = Store::open(options(dir.path(), None), now()).await.unwrap();
        fill(&store, 3).await;
        close(store).await;
        let store = Store::open(options(dir.path(), Some(place.path())), now()).await.unwrap();
        eventually("all objects", || objects(place.path()).len() == 6).await;
        close(store).await;
        fs::remove_dir_all(dir.path().join("segments")).unwrap();
        let store = Store::open(options(dir.path(), Some(place.path())), now()).await.unwrap();
        let snapshot = store.snapshot(&Tenant::default_tenant());
        assert_eq!((snapshot.segments.len(), snapshot.quarantined.len()), (3, 0));
        let (opener, segment) = (store.clone(), snapshot.segments[1].clone());
        let open = tokio::task::spawn_blocking(move || opener.open_segment(&segment)).await.unwrap().unwrap();
        assert_eq!(open.row_groups().sum::<usize>(), 1);
        drop((open, snapshot));
        assert_eq!(store.compact().await.unwrap().segments_merged, 3);
        eventually("the end of what was merged", || objects(place.path()).len() == 2).await;
        close(store).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn objects_that_no_segment_needs_go_once_they_are_old() {
        let (dir, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = Store::open(options(dir.path(), Some(place.path())), now()).await.unwrap();
        fill(&store, 1).await;
        close(store).await;
        let orphan = place.path().join(paths::OBJECTS).join("default/1970-01-01/info/000000000099.parquet");
        fs::create_dir_all(orphan.parent().unwrap()).unwrap();
        fs::write(&orphan, "of a flush that was cut short").unwrap();
        for (later_ns, is_there) in [(0, true), (2 * ORPHAN_AGE_MIN.as_nanos() as i64, false)] {
            let clock = Clock::manual(Clock::System.now_ns() + later_ns);
            let store = Store::open(options(dir.path(), Some(place.path())), clock).await.unwrap();
            assert_eq!(orphan.exists(), is_there);
            assert_eq!(store.snapshot(&Tenant::default_tenant()).segments.len(), 1);
            close(store).await;
        }
        assert_eq!(objects(place.path()).len(), 2);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_lost_catalog_and_another_store_are_refused() {
        let (dir, place, other) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = Store::open(options(dir.path(), Some(place.path())), now()).await.unwrap();
        fill(&store, 1).await;
        fill(&store, 1).await;
        close(store).await;
        let refused = Store::open(options(other.path(), Some(place.path())), now()).await.err().unwrap();
        assert!(matches!(refused, Error::OtherOwner { .. }), "{refused}");
        fs::remove_file(paths::catalog_file(dir.path())).unwrap();
        fs::remove_dir_all(paths::segments_dir(dir.path())).unwrap();
        let refused = Store::open(options(dir.path(), Some(place.path())), now()).await.err().unwrap();
        assert!(matches!(refused, Error::CatalogLost(_)), "{refused}");
        assert_eq!(objects(place.path()).len(), 4);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_segment_that_is_nowhere_is_quarantined_until_it_is_put_back() {
        let (dir, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = Store::open(options(dir.path(), Some(place.path())), now()).await.unwrap();
        fill(&store, 2).await;
        let lost = store.snapshot(&Tenant::default_tenant()).segments[0].path.clone();
        close(store).await;
        fs::remove_dir_all(dir.path().join("segments")).unwrap();
        let object = place.path().join(paths::OBJECTS).join(lost);
        let bytes = fs::read(&object).unwrap();
        fs::remove_file(&object).unwrap();
        for (readable, quarantined) in [(1, 1), (2, 0)] {
            let store = Store::open(options(dir.path(), Some(place.path())), now()).await.unwrap();
            let snapshot = store.snapshot(&Tenant::default_tenant());
            assert_eq!((snapshot.segments.len(), snapshot.quarantined.len()), (readable, quarantined));
            drop(snapshot);
            close(store).await;
            fs::write(&object, &bytes).unwrap();
        }
    }
}
