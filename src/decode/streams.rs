//! Streams: what senders themselves group lines by, and how many of them each tenant has. A stream is a set of labels
//! (Loki), the attributes of a resource (OTLP), or what a protocol says of where a line comes from: host and program,
//! tag, index. Lines that come without any of that are of no stream.
//!
//! Invariant: of each tenant no more streams are active than its limit; one that is active is never refused. What is
//! remembered is bounded.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::record::Tenant;

/// Streams of all tenants that are remembered, about 40 bytes each; past it new ones are let in without being counted,
/// so that a tenant can't use up what is another's.
const REMEMBERED_MAX: usize = 1 << 20;
/// Tenants that are remembered; past it those go whose streams are all idle, and further ones are not limited.
const TENANTS_MAX: usize = 10_000;

/// The streams of all tenants.
#[derive(Debug)]
pub struct Streams {
    limit: Limit,
    remembered: Arc<AtomicUsize>,
    tenants: Mutex<HashMap<Tenant, Arc<Active>>>,
}

#[derive(Debug, Clone, Copy)]
struct Limit {
    streams_max: usize,
    idle_ns: i64,
}

/// The active streams of a tenant.
#[derive(Debug)]
pub struct Active {
    limit: Limit,
    remembered: Arc<AtomicUsize>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// When something last came of each.
    last_ns: HashMap<u64, i64>,
    /// Before then none becomes idle.
    idle_from_ns: i64,
}

impl Streams {
    /// At most `streams_max` for each tenant; one of which nothing came for `idle_ns` is not active any more.
    pub fn new(streams_max: usize, idle_ns: i64) -> Streams {
        Streams { limit: Limit { streams_max, idle_ns }, remembered: Arc::default(), tenants: Mutex::default() }
    }

    /// The streams of a tenant.
    pub fn of(&self, tenant: &Tenant, now_ns: i64) -> Arc<Active> {
        let mut tenants = lock(&self.tenants);
        if let Some(active) = tenants.get(tenant) {
            return active.clone();
        }
        if tenants.len() >= TENANTS_MAX {
            tenants.retain(|_, active| Arc::strong_count(active) > 1 || active.count(now_ns) > 0);
        }
        let active =
            Arc::new(Active { limit: self.limit, remembered: self.remembered.clone(), seen: Mutex::default() });
        if tenants.len() < TENANTS_MAX {
            tenants.insert(tenant.clone(), active.clone());
        }
        active
    }

    /// How many active streams each tenant has.
    pub fn counts(&self, now_ns: i64) -> Vec<(Tenant, usize)> {
        let tenants = lock(&self.tenants);
        tenants.iter().map(|(tenant, active)| (tenant.clone(), active.count(now_ns))).collect()
    }
}

impl Active {
    /// Whether something of this stream may be kept; if so, it is active from now on.
    pub fn admit(&self, stream: u64, now_ns: i64) -> bool {
        let mut seen = lock(&self.seen);
        if let Some(last_ns) = seen.last_ns.get_mut(&stream) {
            *last_ns = now_ns.max(*last_ns);
            return true;
        }
        if seen.last_ns.len() >= self.limit.streams_max {
            self.forget_idle(&mut seen, now_ns);
        }
        if seen.last_ns.len() >= self.limit.streams_max {
            return false;
        }
        if self.remembered.load(Ordering::Relaxed) < REMEMBERED_MAX {
            self.remembered.fetch_add(1, Ordering::Relaxed);
            seen.last_ns.insert(stream, now_ns);
        }
        true
    }

    /// How many there may be.
    pub fn streams_max(&self) -> usize {
        self.limit.streams_max
    }

    fn count(&self, now_ns: i64) -> usize {
        let mut seen = lock(&self.seen);
        self.forget_idle(&mut seen, now_ns);
        seen.last_ns.len()
    }

    /// Forgets idle ones. They are looked through no more often than one of them can have become idle.
    fn forget_idle(&self, seen: &mut Seen, now_ns: i64) {
        if now_ns < seen.idle_from_ns {
            return;
        }
        let before = seen.last_ns.len();
        let idle_ns = self.limit.idle_ns;
        seen.last_ns.retain(|_, last_ns| last_ns.saturating_add(idle_ns) > now_ns);
        seen.idle_from_ns = seen.last_ns.values().min().map_or(i64::MIN, |oldest| oldest.saturating_add(idle_ns));
        self.remembered.fetch_sub(before - seen.last_ns.len(), Ordering::Relaxed);
        if seen.last_ns.is_empty() {
            seen.last_ns = HashMap::new();
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.remembered.fetch_sub(lock(&self.seen).last_ns.len(), Ordering::Relaxed);
    }
}

/// What [`stream_of`] gives where nothing is said of the origin.
pub const NO_STREAM: u64 = 0;

/// Names a stream by what tells it from others, in any order.
pub fn stream_of<N: AsRef<str>, V: AsRef<[u8]>>(parts: impl IntoIterator<Item = (N, V)>) -> u64 {
    let of_part = |(name, value): (N, V)| {
        let mut hasher = DefaultHasher::new();
        name.as_ref().hash(&mut hasher);
        value.as_ref().hash(&mut hasher);
        hasher.finish()
    };
    parts.into_iter().map(of_part).fold(NO_STREAM, u64::wrapping_add)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: i64 = 100;

    fn tenant(name: &str) -> Tenant {
        Tenant::parse(name).unwrap()
    }

    #[test]
    fn past_the_limit_new_streams_wait_until_one_is_idle() {
        let streams = Streams::new(2, IDLE);
        let blue = streams.of(&tenant("blue"), 0);
        // Time, stream, whether it is let in.
        let steps = [
            (0, 1, true),
            (10, 2, true),
            (20, 3, false),
            (90, 1, true),
            (109, 3, false),
            (110, 3, true),
            (111, 2, false),
            (111, 1, true),
            // A clock that is set back makes nothing idle and nothing new.
            (0, 1, true),
            (0, 2, false),
            (210, 4, true),
            (211, 5, true),
        ];
        for (now_ns, stream, is_in) in steps {
            assert_eq!(blue.admit(stream, now_ns), is_in, "stream {stream} at {now_ns}");
        }
        assert!(streams.of(&tenant("red"), 20).admit(3, 20));
        let mut counts = streams.counts(211);
        counts.sort_by_key(|(tenant, _)| tenant.as_str().to_owned());
        assert_eq!(counts, [(tenant("blue"), 2), (tenant("red"), 0)]);
    }

    #[test]
    fn what_is_remembered_is_given_back() {
        let streams = Streams::new(1_000, IDLE);
        for at in 0..TENANTS_MAX as i64 {
            assert!(streams.of(&tenant(&format!("t{at}")), 0).admit(1, at % 2 * IDLE));
        }
        // Half of the tenants are idle, and make room.
        assert!(streams.of(&tenant("one-more"), IDLE).admit(1, IDLE));
        assert_eq!(lock(&streams.tenants).len(), TENANTS_MAX / 2 + 1);
        assert_eq!(streams.remembered.load(Ordering::Relaxed), TENANTS_MAX / 2 + 1);
        let remembered = streams.remembered.clone();
        drop(streams);
        assert_eq!(remembered.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_stream_is_its_parts_in_any_order() {
        assert_eq!(stream_of::<&str, &str>([]), NO_STREAM);
        let one = stream_of([("app", "web"), ("host", "a")]);
        assert_eq!(one, stream_of([("host", "a"), ("app", "web")]));
        for other in [vec![("app", "a"), ("host", "web")], vec![("app", "web")], vec![("app", "we"), ("host", "ba")]] {
            assert_ne!(one, stream_of(other));
        }
    }
}
