//! Keeps records: WAL, buffer, segments, catalog, behind one [`Store`]. It never knows `query`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;

use crate::clock::Clock;
use crate::error::Kind;
use crate::record::Tenant;

/// Numbers a user tunes.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where everything lives; made when absent.
    pub data_dir: PathBuf,
    /// The buffer is flushed to segments when it holds this much.
    pub flush_bytes_max: usize,
    /// … or when its oldest record is this old.
    pub flush_age_max: Duration,
    /// Appends wait, then fail with [`Kind::Limit`], when buffered plus flushing bytes pass this.
    pub buffer_bytes_max: usize,
}

/// What storage can answer instead of a result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Placeholder until storage is written.
    #[error("storage is closed")]
    Closed,
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        Kind::Unavailable
    }
}

/// The store of all tenants.
pub struct Store {}

impl Store {
    /// Opens or creates the store, recovering from WAL and catalog.
    pub async fn open(_options: Options, _clock: Clock) -> Result<Arc<Store>, Error> {
        unimplemented!()
    }

    /// Appends a decoded batch; returns when it is fsynced and visible to queries.
    pub async fn append(&self, _tenant: &Tenant, _batch: RecordBatch) -> Result<(), Error> {
        unimplemented!()
    }

    /// Writes everything that is buffered to segments.
    pub async fn flush(&self) -> Result<(), Error> {
        unimplemented!()
    }

    /// Stops accepting, flushes, and joins every task.
    pub async fn close(&self) -> Result<(), Error> {
        unimplemented!()
    }

    /// Registers the store's metrics.
    pub fn register_metrics(&self, _registry: &mut prometheus_client::registry::Registry) {
        unimplemented!()
    }
}
