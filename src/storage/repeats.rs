//! Which requests, or records, were kept already, by the ids that clients give them: one that comes again is not kept
//! twice. Ids stand in the log's frames beside their records, and go to the catalog in the transaction that moves the
//! low-water mark; so what was acknowledged is remembered across restarts.
//!
//! Invariant: an id is claimed by one append at a time, and kept when that append is; of each tenant the newest
//! [`IDS_MAX`] are remembered.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::hash_map::Entry;
use hashbrown::{HashMap, HashSet};
use twox_hash::XxHash64;

use super::sources::{Reached, Sources};
use crate::record::{Seen, Tenant};

/// Ids that are remembered of a tenant: 64 bytes each, so at most 4 MiB.
pub const IDS_MAX: usize = 65_536;
/// Bytes of an id on disk.
pub const ID_BYTES: usize = 16;

/// What stands for an id that a client gave: a hash, so that it is short whatever came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchId(pub(super) u128);

impl BatchId {
    /// The id made up of these parts, each of which matters with its place.
    pub fn of(parts: &[&[u8]]) -> BatchId {
        let mut whole = Vec::new();
        for part in parts {
            whole.extend_from_slice(&(part.len() as u64).to_le_bytes());
            whole.extend_from_slice(part);
        }
        let halves = [0, 1].map(|seed| u128::from(XxHash64::oneshot(seed, &whole)));
        BatchId(halves[0] << 64 | halves[1])
    }

    pub(super) fn to_bytes(self) -> [u8; ID_BYTES] {
        self.0.to_le_bytes()
    }

    /// Ids that stand one after the other.
    pub(super) fn read(bytes: &[u8]) -> impl Iterator<Item = BatchId> + '_ {
        bytes.as_chunks::<ID_BYTES>().0.iter().map(|id| BatchId(u128::from_le_bytes(*id)))
    }
}

/// The ids of all tenants.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    tenants: Mutex<HashMap<Tenant, Known>>,
    claims: AtomicU64,
    /// How far sources that number their records were kept.
    pub sources: Sources,
}

/// What an append brings beside its records, to be remembered with them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Brought {
    pub ids: Vec<BatchId>,
    pub reached: Vec<Reached>,
}

#[derive(Debug, Default)]
struct Known {
    kept: HashSet<BatchId>,
    /// With the number of the first record of their append, the oldest in front.
    order: VecDeque<(u64, BatchId)>,
    /// By the number of the claim.
    claimed: HashMap<BatchId, u64>,
}

impl Known {
    fn keep(&mut self, seq: u64, id: BatchId) {
        self.claimed.remove(&id);
        if !self.kept.insert(id) {
            return;
        }
        self.order.push_back((seq, id));
        if self.order.len() > IDS_MAX
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.kept.remove(&oldest);
        }
    }
}

impl Repeats {
    fn lock(&self) -> MutexGuard<'_, HashMap<Tenant, Known>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers ids of records that are kept; those of the catalog have the number 0.
    pub fn keep(&self, tenant: &Tenant, seq: u64, ids: impl IntoIterator<Item = BatchId>) {
        let mut ids = ids.into_iter().peekable();
        // Most appends have none.
        if ids.peek().is_some() {
            let mut tenants = self.lock();
            let known = tenants.entry(tenant.clone()).or_default();
            ids.for_each(|id| known.keep(seq, id));
        }
    }

    /// The ids of records below `low_water` that the catalog does not have yet, which are those from `from` on.
    pub fn between(&self, from: u64, low_water: u64) -> Vec<(Tenant, Vec<BatchId>)> {
        let tenants = self.lock();
        let of = |known: &Known| -> Vec<BatchId> {
            let fresh = known.order.iter().filter(|(seq, _)| *seq >= from.max(1) && *seq < low_water);
            fresh.map(|(_, id)| *id).collect()
        };
        tenants.iter().map(|(tenant, known)| (tenant.clone(), of(known))).filter(|(_, ids)| !ids.is_empty()).collect()
    }
}

/// The ids that one append brings, and how far its sources are kept with it. Ids that were claimed and not kept are free
/// again when it is dropped.
#[derive(Debug)]
pub struct Claim {
    repeats: Arc<Repeats>,
    tenant: Tenant,
    number: u64,
    brought: Brought,
}

impl Claim {
    pub(super) fn new(repeats: Arc<Repeats>, tenant: Tenant) -> Claim {
        let number = repeats.claims.fetch_add(1, Ordering::Relaxed);
        Claim { repeats, tenant, number, brought: Brought::default() }
    }

    /// Claims an id unless it is taken; one that came twice with the same append is kept already.
    pub fn add(&mut self, id: BatchId) -> Seen {
        let mut tenants = self.repeats.lock();
        let known = tenants.entry(self.tenant.clone()).or_default();
        if known.kept.contains(&id) {
            return Seen::Kept;
        }
        match known.claimed.entry(id) {
            Entry::Occupied(holder) if *holder.get() == self.number => return Seen::Kept,
            Entry::Occupied(_) => return Seen::BeingKept,
            Entry::Vacant(free) => {
                free.insert(self.number);
            }
        }
        self.brought.ids.push(id);
        Seen::New
    }

    /// Claims the same for another tenant, to whom records of the same request go; tells whether they were kept, all.
    pub fn for_other(&self, tenant: &Tenant) -> (Claim, Seen) {
        let mut other = Claim::new(self.repeats.clone(), tenant.clone());
        let mut seen = if self.brought.ids.is_empty() { Seen::New } else { Seen::Kept };
        for id in &self.brought.ids {
            // Two tenants may give the same id to different requests.
            match other.add(BatchId::of(&[self.tenant.as_str().as_bytes(), &id.0.to_be_bytes()])) {
                Seen::Kept => {}
                Seen::New => seen = Seen::New,
                Seen::BeingKept => return (other, Seen::BeingKept),
            }
        }
        (other, seen)
    }

    /// Gives an id back whose record will not be kept.
    pub fn give_back(&mut self, id: BatchId) {
        if let Some(at) = self.brought.ids.iter().rposition(|held| *held == id) {
            self.brought.ids.swap_remove(at);
            if let Some(known) = self.repeats.lock().get_mut(&self.tenant) {
                known.claimed.remove(&id);
            }
        }
    }

    /// With this append a source is kept up to here.
    pub fn reach(&mut self, reached: Reached) {
        self.brought.reached.push(reached);
    }

    /// Gives what sources reach to a claim for another tenant; ids stay with those they were given for.
    pub fn give_sources_to(&mut self, other: &mut Claim) {
        other.brought.reached.append(&mut self.brought.reached);
    }

    pub(super) fn brought(&self) -> &Brought {
        &self.brought
    }

    /// The append was kept; `seq` is the number of its first record.
    pub(super) fn keep(mut self, seq: u64) {
        let Brought { ids, reached } = std::mem::take(&mut self.brought);
        self.repeats.keep(&self.tenant, seq, ids);
        self.repeats.sources.keep(seq, reached);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.brought.ids.is_empty() {
            return;
        }
        if let Some(known) = self.repeats.lock().get_mut(&self.tenant) {
            for id in &self.brought.ids {
                known.claimed.remove(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> BatchId {
        BatchId::of(&[text.as_bytes()])
    }

    #[test]
    fn an_id_is_claimed_once_and_kept_once() {
        let repeats = Arc::new(Repeats::default());
        let claim = || Claim::new(repeats.clone(), Tenant::default_tenant());
        let (mut first, mut second) = (claim(), claim());
        assert_eq!(
            [first.add(id("a")), first.add(id("a")), second.add(id("a"))],
            [Seen::New, Seen::Kept, Seen::BeingKept]
        );
        assert_eq!([second.add(id("b")), first.add(id("b"))], [Seen::New, Seen::BeingKept]);
        second.give_back(id("b"));
        assert_eq!(first.add(id("b")), Seen::New);
        drop(first);
        assert_eq!(second.add(id("a")), Seen::New, "what failed may come again");
        second.keep(7);
        assert_eq!([claim().add(id("a")), claim().add(id("b"))], [Seen::Kept, Seen::New]);
        let mut other = Claim::new(repeats.clone(), Tenant::parse("blue").unwrap());
        assert_eq!(other.add(id("a")), Seen::New);
    }

    #[test]
    fn what_sources_reach_is_kept_with_the_append_that_says_so() {
        let repeats = Arc::new(Repeats::default());
        let claim = || Claim::new(repeats.clone(), Tenant::default_tenant());
        let mut given_up = claim();
        given_up.reach(Reached::new("a", 5));
        drop(given_up);
        assert_eq!(repeats.sources.next("a"), None);
        // All records go to another tenant: the id stays behind, for it is not that tenant's.
        let mut moved = claim();
        moved.add(id("x"));
        moved.reach(Reached::new("a", 7));
        let mut other = Claim::new(repeats.clone(), Tenant::parse("blue").unwrap());
        moved.give_sources_to(&mut other);
        other.keep(3);
        drop(moved);
        assert_eq!((repeats.sources.next("a"), claim().add(id("x"))), (Some(7), Seen::New));
    }

    #[test]
    fn the_newest_are_remembered_and_handed_over_once() {
        let repeats = Repeats::default();
        let tenant = Tenant::default_tenant();
        let ids = |range: std::ops::Range<u64>| range.map(|at| BatchId(u128::from(at)));
        repeats.keep(&tenant, 0, ids(0..10));
        for seq in 10..20 {
            repeats.keep(&tenant, seq, [BatchId(u128::from(seq))]);
        }
        assert_eq!(repeats.between(1, 15), [(tenant.clone(), ids(10..15).collect())]);
        assert_eq!(repeats.between(15, 20), [(tenant.clone(), ids(15..20).collect())]);
        assert_eq!(repeats.between(20, 30), []);
        repeats.keep(&tenant, 30, ids(1_000..1_000 + IDS_MAX as u64));
        let tenants = repeats.lock();
        let known = &tenants[&tenant];
        assert_eq!((known.order.len(), known.kept.len()), (IDS_MAX, IDS_MAX));
        assert!(!known.kept.contains(&BatchId(19)) && known.kept.contains(&BatchId(1_000)));
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        let (a, b) = (BatchId::of(&[b"x", b"yz"]), BatchId::of(&[b"xy", b"z"]));
        assert_ne!(a, b);
        let bytes = [a.to_bytes(), b.to_bytes()].concat();
        assert_eq!(BatchId::read(&bytes).collect::<Vec<_>>(), [a, b]);
    }
}
