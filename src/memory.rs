//! The ceiling of the process' memory: what the allocator holds is looked at every few milliseconds, and what would pass
//! the ceiling is refused. Every part has a limit of its own (`config/memory` shares out); this one counts what no part
//! counts: copies, what is being unpacked, what libraries take, and freed pages that are not given back yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A look at the allocator is good for so long; in that time a process does not take more than a few megabytes.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Free pages are taken from the allocator so often at most: it asks the system for the next ones anew.
const GIVE_BACK_EVERY: Duration = Duration::from_millis(50);
/// Code and stacks, which the allocator does not count.
const UNCOUNTED_BYTES: usize = 64 << 20;
/// Of 16 parts of the rest: up to where free pages are left to the allocator, up to where queries may grow, and up to
/// where new requests are taken in. What is above is left to work that can't be refused: flushes, merges, answers under
/// way.
const UNUSED_PARTS: usize = 10;
const QUERY_PARTS: usize = 13;
const REQUEST_PARTS: usize = 14;

/// What the process' allocator can tell and do.
#[derive(Debug, Clone, Copy)]
pub struct Allocator {
    /// Bytes of memory that it holds: given out, and free pages that it has not given back to the system.
    pub held: fn() -> usize,
    /// Gives its free pages back.
    pub give_back: fn(),
}

impl Allocator {
    /// One of which nothing is known.
    pub const UNKNOWN: Allocator = Allocator { held: || 0, give_back: || {} };
}

/// Who asks for memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Logs that come in.
    Request,
    /// A query that grows; it ends first.
    Query,
}

/// There is no memory for that now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{} MiB of the {} MiB of 'memory_max' are in use", in_use >> 20, bytes_max >> 20)]
pub struct Full {
    /// Bytes in use.
    pub in_use: usize,
    /// The ceiling.
    pub bytes_max: usize,
}

/// What may be in use at most, and what is.
#[derive(Debug)]
pub struct Ceiling {
    bytes_max: usize,
    allocator: Allocator,
    started: Instant,
    seen: AtomicUsize,
    /// When the next look is due, and when free pages may be given back next; µs since `started`.
    next_look_us: AtomicU64,
    next_give_back_us: AtomicU64,
}

impl Ceiling {
    /// A ceiling of `bytes_max` over what the allocator holds.
    pub fn new(bytes_max: usize, allocator: Allocator) -> Arc<Ceiling> {
        let (seen, next_look_us, next_give_back_us) = Default::default();
        Arc::new(Ceiling { bytes_max, allocator, started: Instant::now(), seen, next_look_us, next_give_back_us })
    }

    /// No ceiling.
    pub fn none() -> Arc<Ceiling> {
        Ceiling::new(usize::MAX, Allocator::UNKNOWN)
    }

    /// Bytes in use, a few milliseconds old at most.
    pub fn in_use(&self) -> usize {
        if self.is_mine(&self.next_look_us, LOOK_EVERY) {
            let mut held = (self.allocator.held)();
            if held > self.parts(UNUSED_PARTS) && self.is_mine(&self.next_give_back_us, GIVE_BACK_EVERY) {
                (self.allocator.give_back)();
                held = (self.allocator.held)();
            }
            self.seen.store(held, Ordering::Relaxed);
        }
        self.seen.load(Ordering::Relaxed)
    }

    /// Whether this thread has to do what is due `every` so long.
    fn is_mine(&self, next_us: &AtomicU64, every: Duration) -> bool {
        let now = self.started.elapsed().as_micros() as u64;
        let (due, next) = (next_us.load(Ordering::Relaxed), now + every.as_micros() as u64);
        now >= due && next_us.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// So many of the 16 parts, bytes.
    fn parts(&self, parts: usize) -> usize {
        self.bytes_max.saturating_sub(UNCOUNTED_BYTES) / 16 * parts
    }

    /// Whether so many bytes more may be taken. **Errors**: [`Full`]; later there may be room.
    pub fn admit(&self, purpose: Purpose, more: usize) -> Result<(), Full> {
        let in_use = self.in_use();
        let parts = match purpose {
            Purpose::Request => REQUEST_PARTS,
            Purpose::Query => QUERY_PARTS,
        };
        if in_use.saturating_add(more) <= self.parts(parts) {
            return Ok(());
        }
        Err(Full { in_use, bytes_max: self.bytes_max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_end_before_requests_are_refused() {
        let bytes_max = UNCOUNTED_BYTES + 1600;
        let ceiling = Ceiling::new(bytes_max, Allocator { held: || 1250, ..Allocator::UNKNOWN });
        assert_eq!(ceiling.admit(Purpose::Query, 50), Ok(()));
        assert_eq!(ceiling.admit(Purpose::Query, 51), Err(Full { in_use: 1250, bytes_max }));
        assert_eq!(ceiling.admit(Purpose::Request, 150), Ok(()));
        assert!(ceiling.admit(Purpose::Request, 151).is_err());
        assert!(Ceiling::none().admit(Purpose::Query, usize::MAX / 2).is_ok());
    }

    #[test]
    fn free_pages_are_given_back_before_something_is_refused() {
        static HELD: AtomicUsize = AtomicUsize::new(1500);
        let give_back = || HELD.store(200, Ordering::Relaxed);
        let allocator = Allocator { held: || HELD.load(Ordering::Relaxed), give_back };
        let ceiling = Ceiling::new(UNCOUNTED_BYTES + 1600, allocator);
        assert_eq!(ceiling.admit(Purpose::Query, 1000), Ok(()));
    }
}
