//! The ceiling of the process' memory: what the allocator has given out is looked at every few milliseconds, and what
//! would pass the ceiling is refused. Every part has a limit of its own (`config/memory` shares out); this one counts
//! what no part counts: copies, what is being unpacked, what libraries take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A look at the allocator is good for so long; in that time a process does not take more than a few megabytes.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Code, stacks and what the allocator keeps for itself, which it does not count.
const UNCOUNTED_BYTES: usize = 64 << 20;
/// Of 16 parts of the rest: up to where new requests are taken in, and up to where queries may grow. What is above is
/// left to work that can't be refused (flushes, merges, answers under way), and to what the allocator itself needs.
const REQUEST_PARTS: usize = 13;
const QUERY_PARTS: usize = 12;

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
    allocated: fn() -> usize,
    started: Instant,
    seen: AtomicUsize,
    /// When the next look is due, µs since `started`.
    next_look_us: AtomicU64,
}

impl Ceiling {
    /// A ceiling of `bytes_max`; `allocated` says how many bytes are in use.
    pub fn new(bytes_max: usize, allocated: fn() -> usize) -> Arc<Ceiling> {
        let (seen, next_look_us) = Default::default();
        Arc::new(Ceiling { bytes_max, allocated, started: Instant::now(), seen, next_look_us })
    }

    /// No ceiling.
    pub fn none() -> Arc<Ceiling> {
        Ceiling::new(usize::MAX, || 0)
    }

    /// Bytes in use, a few milliseconds old at most.
    pub fn in_use(&self) -> usize {
        let now = self.started.elapsed().as_micros() as u64;
        let due = self.next_look_us.load(Ordering::Relaxed);
        let next = now + LOOK_EVERY.as_micros() as u64;
        let mine =
            now >= due && self.next_look_us.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if mine {
            self.seen.store((self.allocated)(), Ordering::Relaxed);
        }
        self.seen.load(Ordering::Relaxed)
    }

    /// Whether so many bytes more may be taken. **Errors**: [`Full`]; later there may be room.
    pub fn admit(&self, purpose: Purpose, more: usize) -> Result<(), Full> {
        let in_use = self.in_use();
        let parts = match purpose {
            Purpose::Request => REQUEST_PARTS,
            Purpose::Query => QUERY_PARTS,
        };
        if in_use.saturating_add(more) <= self.bytes_max.saturating_sub(UNCOUNTED_BYTES) / 16 * parts {
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
        let ceiling = Ceiling::new(bytes_max, || 1150);
        assert_eq!(ceiling.admit(Purpose::Query, 50), Ok(()));
        assert_eq!(ceiling.admit(Purpose::Query, 51), Err(Full { in_use: 1150, bytes_max }));
        assert_eq!(ceiling.admit(Purpose::Request, 150), Ok(()));
        assert!(ceiling.admit(Purpose::Request, 151).is_err());
        assert!(Ceiling::none().admit(Purpose::Query, usize::MAX / 2).is_ok());
    }
}
