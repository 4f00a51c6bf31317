//! The memory of queries: DataFusion's fair pool under the ceiling of the whole process.

use std::fmt;
use std::sync::Arc;

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{FairSpillPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};

use crate::memory::{Ceiling, Purpose};

/// A pool that also refuses what the process has no room for: an operator spills then, or its query ends.
#[derive(Debug)]
pub(super) struct QueryPool {
    shared: FairSpillPool,
    ceiling: Arc<Ceiling>,
}

impl QueryPool {
    /// `bytes_max` for all queries together.
    pub fn new(bytes_max: usize, ceiling: Arc<Ceiling>) -> QueryPool {
        QueryPool { shared: FairSpillPool::new(bytes_max), ceiling }
    }
}

impl fmt::Display for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl MemoryPool for QueryPool {
    fn name(&self) -> &str {
        "queries"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.shared.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.shared.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.shared.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.shared.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let admitted = self.ceiling.admit(Purpose::Query, additional);
        admitted.map_err(|full| DataFusionError::ResourcesExhausted(full.to_string()))?;
        self.shared.try_grow(reservation, additional)
    }

    fn reserved(&self) -> usize {
        self.shared.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.shared.memory_limit()
    }
}
