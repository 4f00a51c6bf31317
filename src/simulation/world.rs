//! The store that is tested and the model beside it: how a store is opened with numbers of the seed's choice, closed,
//! and brought to a state in which every answer is certain.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::checks::Held;
use super::faults;
use super::model::{Allowance, Model, Outcome, RuleSet, TENANTS};
use super::random::Random;
use crate::clock::Clock;
use crate::memory::Ceiling;
use crate::query::{self, Engine};
use crate::record::Tenant;
use crate::storage::{self, Options, Segment, Store, cache, remote, retention};

/// How long anything may take that comes by itself.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(5);
/// Steps that are told after a failure.
const NOTES_MAX: usize = 40;
/// Noon of a day.
const START_NS: i64 = 1_773_144_000_000_000_000;

/// A store that is open.
pub(super) struct Live {
    pub store: Arc<Store>,
    pub engine: Arc<Engine>,
    pub dir: PathBuf,
}

/// The store, the model, and what happened.
pub(super) struct World {
    pub random: Random,
    pub model: Model,
    pub held: Vec<Held>,
    /// Deletions that are not done yet.
    pub active: Vec<storage::Deletion>,
    /// Some file was damaged, so answers may have notices.
    pub damaged: bool,
    /// Something may expire, or may have.
    pub unsettled: bool,
    pub notes: VecDeque<String>,
    pub next_n: u64,
    /// Segments are kept in an object store too.
    pub has_objects: bool,
    clock: Clock,
    root: PathBuf,
    directories: u32,
    live: Option<Live>,
}

pub(super) fn tenant_of(tenant: usize) -> Tenant {
    Tenant::parse(TENANTS[tenant]).expect("the simulation's tenants are tenants")
}

impl World {
    /// An empty store below `root`.
    pub async fn new(seed: u64, root: PathBuf) -> Outcome<World> {
        let clock = Clock::manual(START_NS);
        let mut random = Random::new(seed);
        let has_objects = random.percent(30);
        let mut world = World {
            random,
            has_objects,
            model: Model::new(START_NS),
            held: Vec::new(),
            active: Vec::new(),
            damaged: false,
            unsettled: false,
            notes: VecDeque::new(),
            next_n: 1,
            clock,
            root,
            directories: 0,
            live: None,
        };
        let dir = world.next_dir();
        world.open(dir, |_| {}).await?;
        Ok(world)
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.live.as_ref().expect("the store is open between steps").store
    }

    pub fn engine(&self) -> &Arc<Engine> {
        &self.live.as_ref().expect("the store is open between steps").engine
    }

    pub fn dir(&self) -> PathBuf {
        self.live.as_ref().expect("the store is open between steps").dir.clone()
    }

    /// Remembers what is done, for people.
    pub fn note(&mut self, note: String) {
        if self.notes.len() == NOTES_MAX {
            self.notes.pop_front();
        }
        self.notes.push_back(note);
    }

    /// A directory that was never used.
    pub fn next_dir(&mut self) -> PathBuf {
        self.directories += 1;
        self.root.join(self.directories.to_string())
    }

    pub fn set_now(&mut self, now_ns: i64) {
        self.model.now_ns = now_ns;
        self.clock.set_ns(now_ns);
        self.unsettled |= self.model.has_expiring();
    }

    /// Opens the store in `dir` with numbers of the seed's choice; `change` has the last word on them.
    pub async fn open(&mut self, dir: PathBuf, change: impl FnOnce(&mut Options)) -> Outcome {
        let random = &mut self.random;
        let mut options = Options::new(&dir);
        options.flush_bytes_max = random.pick(&[20_000, 200_000, 4 << 20]);
        options.flush_age_max = Duration::from_secs(random.pick(&[1, 60, 3_600]));
        options.open_bytes_max = random.pick(&[1, 100_000, 64 << 20]);
        options.page_cache_bytes_max = random.pick(&[1, 200_000, 64 << 20]);
        options.columns_max = random.pick(&[20, 60, 1_000]);
        options.merge_limits.quiet = Duration::from_secs(random.pick(&[1, 60, 600]));
        options.merge_limits.inputs_max = random.pick(&[2, 5, 64]);
        options.merge_limits.target_bytes = random.pick(&[20_000, 300_000, 64 << 20]);
        options.merge_limits.merge_records_max = random.pick(&[500, 50_000_000]);
        if random.percent(30) {
            self.model.change_rules(RuleSet(random.place(RuleSet::COUNT)));
        }
        options.rules = self.model.rule_set.rules();
        if self.has_objects {
            let place = dir.join(faults::OBJECTS).display().to_string();
            options.object_store = Some(cache::Place { place, settings: remote::Settings::default() });
            options.cache_bytes_max = self.random.pick(&[0, 1, 40_000]);
        }
        change(&mut options);
        self.unsettled = true;
        let deadline = Instant::now() + PATIENCE;
        let store = loop {
            match Store::open(options.clone(), self.clock.clone()).await {
                Ok(store) => break store,
                // The last reader of the closed store is about to go.
                Err(storage::Error::Locked(_)) if Instant::now() < deadline => tokio::time::sleep(POLL_EVERY).await,
                Err(error) => return Err(format!("the store can't be opened: {error}")),
            }
        };
        let limits = query::Options {
            timeout_max: Duration::from_secs(3_600),
            memory_bytes_max: 1 << 30,
            ceiling: Ceiling::none(),
            rows_max: 1_000_000,
            scan_bytes_max: 0,
            concurrency_max: 4,
            threads: 1 + self.random.place(3),
        };
        let engine = Engine::new(store.clone(), limits).map_err(|error| format!("no engine: {error}"))?;
        self.live = Some(Live { store, engine, dir });
        self.active = self.active_deletions().await?;
        Ok(())
    }

    /// Those that the store goes on with; each that was begun and not ended is known to it.
    async fn active_deletions(&self) -> Outcome<Vec<storage::Deletion>> {
        let mut known = self.store().deletions().await.map_err(|error| error.to_string())?;
        for deletion in self.model.deletions.iter().filter(|deletion| !deletion.cancelled) {
            if !known.iter().any(|found| found.id == deletion.id) {
                return Err(format!("deletion {} is not known any more", deletion.id));
            }
        }
        known.retain(|deletion| deletion.state == storage::deletion::State::Active);
        Ok(known)
    }

    /// Ends the store in order; gives its directory.
    pub async fn close(&mut self) -> Outcome<PathBuf> {
        self.release().await?;
        let Live { store, engine, dir } = self.live.take().expect("the store is open between steps");
        engine.close(PATIENCE).await;
        drop(engine);
        store.close().await.map_err(|error| format!("the store can't be closed: {error}"))?;
        Ok(dir)
    }

    /// Lets the store go as a crash does, with whatever runs.
    pub fn drop_live(&mut self) {
        self.held.clear();
        self.live = None;
    }

    /// All segments that are read, of all tenants.
    pub fn segments(&self) -> Vec<Arc<Segment>> {
        let snapshots = (0..TENANTS.len()).map(|tenant| self.store().snapshot(&tenant_of(tenant)));
        snapshots.flat_map(|snapshot| snapshot.segments.clone()).collect()
    }

    /// The segments that can't be read.
    pub fn quarantined(&self) -> Vec<Arc<Segment>> {
        let snapshots = (0..TENANTS.len()).map(|tenant| self.store().snapshot(&tenant_of(tenant)));
        snapshots.flat_map(|snapshot| snapshot.quarantined.clone()).collect()
    }

    pub async fn flush(&self) -> Outcome {
        self.store().flush().await.map_err(|error| format!("the flush failed: {error}"))
    }

    /// Waits until everything that can expire now has: then nothing goes by itself before the next change.
    pub async fn settle(&mut self) -> Outcome {
        if !self.unsettled {
            return Ok(());
        }
        self.flush().await?;
        let (rules, now_ns) = (self.model.rule_set.rules(), self.model.now_ns);
        let left = || {
            let all: Vec<Arc<Segment>> = self.segments().into_iter().chain(self.quarantined()).collect();
            retention::expired(&all, now_ns, &rules)
        };
        if let Err(error) = eventually("what expired to go", || left().is_empty()).await {
            return Err(format!("{error}; at {now_ns}: {:?}", left()));
        }
        self.read_all(Allowance::Nothing).await?;
        self.unsettled = false;
        Ok(())
    }
}

/// Waits until something is so.
pub(super) async fn eventually(what: &str, is_so: impl Fn() -> bool) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        if Instant::now() > deadline {
            return Err(format!("waited in vain for {what}"));
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
    Ok(())
}
