//! What the store counts.

use std::sync::atomic::AtomicU64;

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
    /// Appends refused because the write-ahead log could not be written.
    pub failed_appends: Counter,
    /// 1 when the write-ahead log takes nothing more until a restart.
    pub wal_broken: Gauge,
    /// Bytes of segments written by flushes.
    pub flushed_bytes: Counter,
    /// Bytes of segments written by merges.
    pub compacted_bytes: Counter,
    /// Bytes written by flushes and merges for each byte flushed, since the start.
    pub write_amplification: Gauge<f64, AtomicU64>,
    /// Merges done.
    pub compactions: Counter,
    /// Merges that failed and are tried again.
    pub failed_compactions: Counter,
    /// Segments that are to be merged now.
    pub compaction_pending: Gauge,
    /// Segments removed because their records outlived their rule.
    pub expired_segments: Counter,
    /// Their records.
    pub expired_records: Counter,
    /// Their size.
    pub expired_bytes: Counter,
    /// Segments removed to keep to the disk quota.
    pub quota_removed_segments: Counter,
    /// Their records.
    pub quota_removed_records: Counter,
    /// Their size.
    pub quota_removed_bytes: Counter,
    /// Segments that can't be read.
    pub quarantined_segments: Gauge,
    /// Records in them.
    pub quarantined_records: Gauge,
    /// Size of segments and write-ahead log.
    pub disk_bytes: Gauge,
    /// Size of the write-ahead log alone.
    pub wal_disk_bytes: Gauge,
    /// Free space of the file system.
    pub disk_free_bytes: Gauge,
    /// Time of a merge.
    pub compaction_seconds: Histogram,
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
            failed_appends: Counter::default(),
            wal_broken: Gauge::default(),
            flushed_bytes: Counter::default(),
            compacted_bytes: Counter::default(),
            write_amplification: Gauge::default(),
            compactions: Counter::default(),
            failed_compactions: Counter::default(),
            compaction_pending: Gauge::default(),
            expired_segments: Counter::default(),
            expired_records: Counter::default(),
            expired_bytes: Counter::default(),
            quota_removed_segments: Counter::default(),
            quota_removed_records: Counter::default(),
            quota_removed_bytes: Counter::default(),
            quarantined_segments: Gauge::default(),
            quarantined_records: Gauge::default(),
            wal_disk_bytes: Gauge::default(),
            disk_bytes: Gauge::default(),
            disk_free_bytes: Gauge::default(),
            compaction_seconds: Histogram::new(exponential_buckets(0.01, 2.0, 14)),
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
        self.register_upkeep(registry);
    }

    /// Those of merges, expiry, quota and quarantine.
    fn register_upkeep(&self, registry: &mut Registry) {
        registry.register(
            "failed_appends",
            "Appends refused because the write-ahead log could not be written",
            self.failed_appends.clone(),
        );
        registry.register(
            "wal_broken",
            "1 when the write-ahead log takes nothing more until a restart",
            self.wal_broken.clone(),
        );
        registry.register("flushed_bytes", "Bytes of segments written by flushes", self.flushed_bytes.clone());
        registry.register("compacted_bytes", "Bytes of segments written by merges", self.compacted_bytes.clone());
        registry.register(
            "write_amplification",
            "Bytes written by flushes and merges for each byte flushed, since the start",
            self.write_amplification.clone(),
        );
        registry.register("compactions", "Merges done", self.compactions.clone());
        registry.register(
            "failed_compactions",
            "Merges that failed and are tried again",
            self.failed_compactions.clone(),
        );
        registry.register("compaction_pending", "Segments that are to be merged now", self.compaction_pending.clone());
        registry.register(
            "expired_segments",
            "Segments removed because their records outlived their rule",
            self.expired_segments.clone(),
        );
        registry.register("expired_records", "Records of expired segments", self.expired_records.clone());
        registry.register("expired_bytes", "Size of expired segments", self.expired_bytes.clone());
        registry.register(
            "quota_removed_segments",
            "Segments removed to keep to the disk quota",
            self.quota_removed_segments.clone(),
        );
        registry.register(
            "quota_removed_records",
            "Records removed to keep to the disk quota",
            self.quota_removed_records.clone(),
        );
        registry.register(
            "quota_removed_bytes",
            "Size of segments removed to keep to the disk quota",
            self.quota_removed_bytes.clone(),
        );
        registry.register("quarantined_segments", "Segments that can't be read", self.quarantined_segments.clone());
        registry.register(
            "quarantined_records",
            "Records in segments that can't be read",
            self.quarantined_records.clone(),
        );
        registry.register("disk_bytes", "Size of segments and write-ahead log", self.disk_bytes.clone());
        registry.register("wal_disk_bytes", "Size of the write-ahead log", self.wal_disk_bytes.clone());
        registry.register("disk_free_bytes", "Free space of the file system", self.disk_free_bytes.clone());
        let help = "Time of a merge";
        registry.register_with_unit("compaction", help, Unit::Seconds, self.compaction_seconds.clone());
    }
}
