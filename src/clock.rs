//! The one source of time, so that tests can move it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Gives the time of day; cheap to clone.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The machine's clock.
    #[default]
    System,
    /// A clock that stands still until it is moved: nanoseconds since the epoch.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stands at `now_ns` until [`Clock::set_ns`].
    pub fn manual(now_ns: i64) -> Self {
        Clock::Manual(Arc::new(AtomicI64::new(now_ns)))
    }

    /// The time now. **Units**: nanoseconds since 1970-01-01 UTC.
    pub fn now_ns(&self) -> i64 {
        match self {
            Clock::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
            }
            Clock::Manual(now) => now.load(Ordering::SeqCst),
        }
    }

    /// Moves a manual clock; the system clock does not move.
    pub fn set_ns(&self, now_ns: i64) {
        if let Clock::Manual(now) = self {
            now.store(now_ns, Ordering::SeqCst);
        }
    }
}
