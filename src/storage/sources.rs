//! How far sources that number their records were kept: of a Kafka partition, the offset after the last one. It stands in
//! the log's frame beside the records, and goes to the catalog in the transaction that moves the low-water mark; so what a
//! source gives again, cut as it may be, is known, however the last process ended.
//!
//! Invariant: what is said to be reached is kept; of all sources the [`SOURCES_MAX`] that moved last are remembered.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

/// Sources that are remembered: about 200 bytes each, so at most 16 MiB.
pub const SOURCES_MAX: usize = 65_536;
/// Longest name of a source.
pub const SOURCE_BYTES_MAX: usize = 1024;

/// How far a source was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    source: Arc<str>,
    /// The number of its first record that was not kept.
    pub next: i64,
}

impl Reached {
    /// A source by a name that no other one ever has; what is longer than [`SOURCE_BYTES_MAX`] is cut.
    pub fn new(source: &str, next: i64) -> Reached {
        let end = (0..=source.len().min(SOURCE_BYTES_MAX)).rev().find(|end| source.is_char_boundary(*end));
        Reached { source: source[..end.unwrap_or(0)].into(), next }
    }

    /// Its name.
    pub fn source(&self) -> &str {
        &self.source
    }
}

/// All sources.
#[derive(Debug, Default)]
pub(super) struct Sources {
    known: Mutex<HashMap<Arc<str>, Known>>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    next: i64,
    /// The number of the first record of the append that brought it.
    seq: u64,
}

impl Sources {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what was reached by an append; `seq` is the number of its first record, 0 for what the catalog had.
    pub fn keep(&self, seq: u64, reached: impl IntoIterator<Item = Reached>) {
        let mut reached = reached.into_iter().peekable();
        if reached.peek().is_none() {
            return;
        }
        let mut known = self.lock();
        for Reached { source, next } in reached {
            known.insert(source, Known { next, seq });
        }
        while known.len() > SOURCES_MAX {
            let oldest = known.iter().min_by_key(|(_, known)| known.seq).map(|(source, _)| source.clone());
            oldest.and_then(|source| known.remove(&source));
        }
    }

    /// How far a source was kept; `None` for one that nothing was kept of.
    pub fn next(&self, source: &str) -> Option<i64> {
        self.lock().get(source).map(|known| known.next)
    }

    /// What was reached by appends from `from` on. It may be further than a flush that asks: the log has the rest.
    pub fn since(&self, from: u64) -> Vec<Reached> {
        let known = self.lock();
        let fresh = known.iter().filter(|(_, known)| known.seq >= from.max(1));
        fresh.map(|(source, known)| Reached { source: source.clone(), next: known.next }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_on_a_source_holds() {
        let sources = Sources::default();
        sources.keep(0, [Reached::new("a", 5), Reached::new("b", 7)]);
        sources.keep(10, [Reached::new("a", 9)]);
        // A source that begins anew goes back.
        sources.keep(20, [Reached::new("b", 1)]);
        assert_eq!([sources.next("a"), sources.next("b"), sources.next("c")], [Some(9), Some(1), None]);
        let mut fresh = sources.since(0);
        fresh.sort_by(|one, other| one.source.cmp(&other.source));
        assert_eq!(fresh, [Reached::new("a", 9), Reached::new("b", 1)]);
        assert_eq!(sources.since(11), [Reached::new("b", 1)]);
    }

    #[test]
    fn those_that_moved_last_are_remembered() {
        let sources = Sources::default();
        sources.keep(1, [Reached::new("old", 1)]);
        sources.keep(2, (0..SOURCES_MAX).map(|at| Reached::new(&format!("{at}"), 1)));
        assert_eq!((sources.next("old"), sources.next("0"), sources.lock().len()), (None, Some(1), SOURCES_MAX));
        assert_eq!(Reached::new(&"é".repeat(SOURCE_BYTES_MAX), 1).source().len(), SOURCE_BYTES_MAX);
    }
}
