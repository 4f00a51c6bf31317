//! What the store counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The store's metrics; names and units are those of `/metrics`.
#[derive(Debug)]
pub struct Metrics {
    /// Records acknowledged.
    pub appended_records: Counter,
    /// Bytes written to the write-ahead log.
    pub wal_bytes: Counter,
    /// Time of a group commit: write and fsync.
    pub wal_sync_seconds: Histogram,
    /// Bytes of the write-ahead log that could not be read back at start.
    pub wal_lost_bytes: Counter,
    /// Appends refused because memory was full.
    pub refused_appends: Counter,
    /// Memory of the buffer.
    pub buffer_bytes: Gauge,
    /// Records in the buffer.
    pub buffer_records: Gauge,
    /// Flushes done.
    pub flushes: Counter,
    /// Flushes that failed and will be tried again.
    pub failed_flushes: Counter,
    /// Time of a flush.
    pub flush_seconds: Histogram,
    /// Live segments.
    pub segments: Gauge,
    /// Their size on disk.
    pub segment_bytes: Gauge,
    /// Their records.
    pub segment_records: Gauge,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            appended_records: Counter::default(),
            wal_bytes: Counter::default(),
            wal_sync_seconds: Histogram::new(exponential_buckets(0.000_25, 2.0, 14)),
            wal_lost_bytes: Counter::default(),
            refused_appends: Counter::default(),
            buffer_bytes: Gauge::default(),
            buffer_records: Gauge::default(),
            flushes: Counter::default(),
            failed_flushes: Counter::default(),
            flush_seconds: Histogram::new(exponential_buckets(0.01, 2.0, 12)),
            segments: Gauge::default(),
            segment_bytes: Gauge::default(),
            segment_records: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Puts every metric under `quiver_storage_…`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("quiver_storage");
        registry.register("appended_records", "Records acknowledged", self.appended_records.clone());
        registry.register("wal_bytes", "Bytes written to the write-ahead log", self.wal_bytes.clone());
        let help = "Time of a group commit (write and fsync)";
        registry.register_with_unit("wal_sync", help, Unit::Seconds, self.wal_sync_seconds.clone());
        let help = "Bytes of the write-ahead log that could not be read back at start";
        registry.register("wal_lost_bytes", help, self.wal_lost_bytes.clone());
        registry.register("refused_appends", "Appends refused because memory was full", self.refused_appends.clone());
        registry.register_with_unit("buffer", "Memory of the buffer", Unit::Bytes, self.buffer_bytes.clone());
        registry.register("buffer_records", "Records in the buffer", self.buffer_records.clone());
        registry.register("flushes", "Flushes done", self.flushes.clone());
        registry.register("failed_flushes", "Flushes that failed and are tried again", self.failed_flushes.clone());
        registry.register_with_unit("flush", "Time of a flush", Unit::Seconds, self.flush_seconds.clone());
        registry.register("segments", "Live segments", self.segments.clone());
        registry.register_with_unit("segment", "Size of the live segments", Unit::Bytes, self.segment_bytes.clone());
        registry.register("segment_records", "Records in live segments", self.segment_records.clone());
    }
}
