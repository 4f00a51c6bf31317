//! Who may run: a bounded number of queries at once, and no tenant all of them, so that one tenant's dashboards never keep
//! another's waiting for long.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::record::Tenant;

/// Places for running queries. Who waits longest is first.
#[derive(Debug)]
pub(super) struct Admission {
    places: Arc<Semaphore>,
    places_max: usize,
    tenants: Mutex<HashMap<Tenant, Arc<Semaphore>>>,
}

/// A place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    _of_tenant: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Admission {
    pub fn new(places_max: usize) -> Admission {
        let places_max = places_max.max(1);
        Admission { places: Arc::new(Semaphore::new(places_max)), places_max, tenants: Mutex::default() }
    }

    /// Places that one tenant can have: three of four, at least one.
    fn of_tenant_max(&self) -> usize {
        (self.places_max * 3 / 4).max(1)
    }

    fn of_tenant(&self, tenant: &Tenant) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock().expect("nothing panics with the lock held");
        // Those who neither run nor wait are forgotten; they would be made anew just so.
        tenants.retain(|_, places| Arc::strong_count(places) > 1);
        let made = || Arc::new(Semaphore::new(self.of_tenant_max()));
        tenants.entry(tenant.clone()).or_insert_with(made).clone()
    }

    /// Waits for a place; `None` when the engine closes.
    pub async fn enter(&self, tenant: &Tenant) -> Option<Place> {
        let of_tenant = self.of_tenant(tenant).acquire_owned().await.ok()?;
        let of_all = self.places.clone().acquire_owned().await.ok()?;
        Some(Place { _of_tenant: of_tenant, _of_all: of_all })
    }

    /// Waits until nobody runs.
    pub async fn idle(&self) {
        let all = u32::try_from(self.places_max).unwrap_or(u32::MAX);
        // Closed already: nobody will run any more.
        let _ = self.places.acquire_many(all).await;
    }

    /// Lets nobody in any more.
    pub fn close(&self) {
        self.places.close();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_tenant_never_takes_all_places() {
        let admission = Admission::new(4);
        let [one, other] = ["one", "other"].map(|name| Tenant::parse(name).unwrap());
        let mut places = Vec::new();
        for _ in 0..3 {
            places.push(admission.enter(&one).await.unwrap());
        }
        assert!(admission.enter(&one).now_or_never().is_none(), "a fourth place of the same tenant");
        let last = admission.enter(&other).now_or_never().flatten().expect("a place is left for others");
        assert!(admission.enter(&other).now_or_never().is_none(), "all places are taken");
        drop((places.pop(), last));
        assert!(admission.enter(&one).now_or_never().flatten().is_some());
        drop(places);
        admission.idle().await;
        admission.close();
        assert!(admission.enter(&one).await.is_none());
    }
}
