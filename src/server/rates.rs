//! How fast each tenant may send: bytes per second with a burst. What comes too fast is refused before it is read.
//!
//! Invariant: over any time t a tenant is let in for at most `burst + rate × t` bytes and the requests that were under way
//! at its end; what was let in is never refused later.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::status::Error;
use crate::record::Tenant;

/// Tenants that are remembered; those with a full bucket are forgotten first, which changes nothing for them.
const TENANTS_MAX: usize = 10_000;
const NS_PER_S: f64 = 1e9;

/// The buckets of all tenants.
#[derive(Debug)]
pub struct Rates {
    /// 0: no limit.
    bytes_per_second: f64,
    burst_bytes: f64,
    buckets: Mutex<HashMap<Tenant, Bucket>>,
}

/// What a tenant may still send; below zero after a body that was larger than what was left.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at_ns: i64,
}

impl Rates {
    /// Limits for each tenant; a rate of 0 is none.
    pub fn new(bytes_per_second: usize, burst_bytes: usize) -> Rates {
        let (bytes_per_second, burst_bytes) = (bytes_per_second as f64, burst_bytes as f64);
        Rates { bytes_per_second, burst_bytes, buckets: Mutex::default() }
    }

    /// Lets a tenant's request in. **Errors**: [`Error::TooFast`] with the time after which it will be.
    pub fn admit(&self, tenant: &Tenant, now_ns: i64) -> Result<(), Error> {
        if self.bytes_per_second == 0.0 {
            return Ok(());
        }
        let left = self.change(tenant, now_ns, 0.0);
        if left > 0.0 {
            return Ok(());
        }
        Err(Error::TooFast { retry_after: Duration::from_secs_f64((1.0 - left) / self.bytes_per_second) })
    }

    /// Counts what was let in, as bytes after decompression.
    pub fn charge(&self, tenant: &Tenant, now_ns: i64, bytes: usize) {
        if self.bytes_per_second > 0.0 {
            self.change(tenant, now_ns, bytes as f64);
        }
    }

    fn change(&self, tenant: &Tenant, now_ns: i64, taken: f64) -> f64 {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let filled = |bucket: &Bucket| {
            let passed = now_ns.saturating_sub(bucket.at_ns).max(0) as f64 / NS_PER_S;
            (bucket.left + passed * self.bytes_per_second).min(self.burst_bytes)
        };
        if buckets.len() >= TENANTS_MAX && !buckets.contains_key(tenant) {
            buckets.retain(|_, bucket| filled(bucket) < self.burst_bytes);
        }
        let bucket = buckets.entry(tenant.clone()).or_insert(Bucket { left: self.burst_bytes, at_ns: now_ns });
        *bucket = Bucket { left: filled(bucket) - taken, at_ns: now_ns.max(bucket.at_ns) };
        bucket.left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn a_bucket_fills_with_time() {
        let rates = Rates::new(100, 1_000);
        let (blue, red) = (Tenant::parse("blue").unwrap(), Tenant::parse("red").unwrap());
        rates.admit(&blue, 0).unwrap();
        rates.charge(&blue, 0, 1_500);
        let refused = rates.admit(&blue, SECOND).unwrap_err();
        assert!(
            matches!(refused, Error::TooFast { retry_after } if retry_after == Duration::from_millis(4_010)),
            "{refused:?}"
        );
        rates.admit(&red, SECOND).unwrap();
        rates.admit(&blue, 6 * SECOND).unwrap();
        // Ten seconds later the burst is whole, and not more.
        rates.charge(&blue, 60 * SECOND, 999);
        rates.admit(&blue, 60 * SECOND).unwrap();
        rates.charge(&blue, 60 * SECOND, 1);
        assert!(rates.admit(&blue, 60 * SECOND).is_err());
        // A clock that is set back gives nothing and takes nothing.
        assert!(rates.admit(&blue, 0).is_err());
        rates.admit(&blue, 61 * SECOND).unwrap();
    }

    #[test]
    fn without_a_rate_everything_is_let_in() {
        let rates = Rates::new(0, 0);
        let tenant = Tenant::default_tenant();
        rates.charge(&tenant, 0, usize::MAX);
        rates.admit(&tenant, 0).unwrap();
    }

    #[test]
    fn full_buckets_are_forgotten() {
        let rates = Rates::new(1, 10);
        for at in 0..TENANTS_MAX {
            rates.charge(&Tenant::parse(&format!("t{at}")).unwrap(), 0, usize::from(at % 2 == 0));
        }
        rates.charge(&Tenant::parse("one-more").unwrap(), 0, 1);
        assert_eq!(rates.buckets.lock().unwrap().len(), TENANTS_MAX / 2 + 1);
    }
}
