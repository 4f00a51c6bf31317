//! Own logs (stderr, by tracing) and the server's metrics. No registry and no metric is global: `server` owns them.

use std::collections::BTreeSet;
use std::fmt;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Why logging can't start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A level that is none.
    #[error(
        "setting 'log.level': '{level}' is neither a level (off, error, warn, info, debug, trace) nor directives: {source}"
    )]
    Level {
        /// What was given.
        level: String,
        /// The cause.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Logging was started before.
    #[error("logging is already set up")]
    Twice,
}

/// Checks `[log]` without starting anything.
pub fn check(log: &Log) -> Result<(), Error> {
    filter(log).map(drop)
}

/// Sends the process's own logs to stderr.
pub fn start(log: &Log) -> Result<(), Error> {
    let json = match log.format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter(log)?).with_writer(std::io::stderr);
    let started = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
    started.map_err(|_| Error::Twice)
}

fn filter(log: &Log) -> Result<EnvFilter, Error> {
    EnvFilter::try_new(&log.level).map_err(|source| Error::Level { level: log.level.clone(), source })
}

/// `protocol`: loki, otlp_http, otlp_grpc, lines, elastic, splunk, datadog, firehose, gelf, journal, kafka
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Protocol {
    protocol: &'static str,
}

/// `tenant`: one of the first [`TENANTS_MAX`], else [`OTHER_TENANTS`]; `reason`: the word of a cause
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rejected {
    protocol: &'static str,
    tenant: String,
    reason: &'static str,
}

/// Tenants that are counted by name; whoever may write can make up more.
const TENANTS_MAX: usize = 200;
/// All the others.
const OTHER_TENANTS: &str = "other";

/// `outcome`: ok, repeated (it was kept before), or the word of the error
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProtocolOutcome {
    protocol: &'static str,
    outcome: &'static str,
}

/// `endpoint`: http, flight, fields
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Endpoint {
    endpoint: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointOutcome {
    endpoint: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

type Durations<L> = Family<L, Histogram, fn() -> Histogram>;

/// From 0.5 ms to 65 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 18))
}

/// What the server counts; cheap to clone, all clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    ingest_requests: Family<ProtocolOutcome, Counter>,
    ingest_records: Family<Protocol, Counter>,
    ingest_rejected_records: Family<Rejected, Counter>,
    rejected_tenants: Arc<Mutex<BTreeSet<String>>>,
    ingest_received_bytes: Family<Protocol, Counter>,
    ingest_decoded_bytes: Family<Protocol, Counter>,
    ingest_seconds: Durations<Protocol>,
    ingest_lag_seconds: Histogram,
    queries: Family<EndpointOutcome, Counter>,
    query_rows: Family<Endpoint, Counter>,
    query_seconds: Durations<Endpoint>,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            ingest_requests: Family::default(),
            ingest_records: Family::default(),
            ingest_rejected_records: Family::default(),
            rejected_tenants: Arc::default(),
            ingest_received_bytes: Family::default(),
            ingest_decoded_bytes: Family::default(),
            ingest_seconds: Family::new_with_constructor(seconds),
            // From 10 ms to a day.
            ingest_lag_seconds: Histogram::new(exponential_buckets(0.01, 2.0, 24)),
            queries: Family::default(),
            query_rows: Family::default(),
            query_seconds: Family::new_with_constructor(seconds),
        }
    }
}

/// What one ingest request came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct IngestOutcome {
    /// Bytes as they came.
    pub received_bytes: usize,
    /// Bytes after decompression.
    pub decoded_bytes: usize,
    /// Records that were kept.
    pub accepted: usize,
}

impl Metrics {
    /// Counts an ingest request; `outcome` is "ok" or the word of the error.
    pub fn ingest(&self, protocol: &'static str, outcome: &'static str, came: IngestOutcome, took: Duration) {
        let label = Protocol { protocol };
        self.ingest_requests.get_or_create(&ProtocolOutcome { protocol, outcome }).inc();
        self.ingest_records.get_or_create(&label).inc_by(came.accepted as u64);
        self.ingest_received_bytes.get_or_create(&label).inc_by(came.received_bytes as u64);
        self.ingest_decoded_bytes.get_or_create(&label).inc_by(came.decoded_bytes as u64);
        self.ingest_seconds.get_or_create(&label).observe(took.as_secs_f64());
    }

    /// Notes how old the newest record of an append was when it came.
    pub fn lag(&self, lag: Duration) {
        self.ingest_lag_seconds.observe(lag.as_secs_f64());
    }

    /// Counts records that were not kept.
    pub fn rejected(&self, protocol: &'static str, tenant: &str, reason: &'static str, count: usize) {
        if count == 0 {
            return;
        }
        let mut known = self.rejected_tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let tenant = if known.contains(tenant) || known.len() < TENANTS_MAX { tenant } else { OTHER_TENANTS };
        if !known.contains(tenant) {
            known.insert(tenant.to_owned());
        }
        let label = Rejected { protocol, tenant: tenant.to_owned(), reason };
        self.ingest_rejected_records.get_or_create(&label).inc_by(count as u64);
    }

    /// Counts a query; `outcome` is "ok", "cancelled" or the word of the error.
    pub fn query(&self, endpoint: &'static str, outcome: &'static str, rows: u64, took: Duration) {
        self.queries.get_or_create(&EndpointOutcome { endpoint, outcome }).inc();
        self.query_rows.get_or_create(&Endpoint { endpoint }).inc_by(rows);
        self.query_seconds.get_or_create(&Endpoint { endpoint }).observe(took.as_secs_f64());
    }

    /// Puts them, and the process's own, into a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "quiver_build",
            "The version that runs",
            Info::new(Build { version: env!("CARGO_PKG_VERSION") }),
        );
        let to = registry.sub_registry_with_prefix("quiver");
        let ingest = to.sub_registry_with_prefix("ingest");
        ingest.register("requests", "Ingest requests by outcome", self.ingest_requests.clone());
        ingest.register("records", "Records that were acknowledged", self.ingest_records.clone());
        ingest.register("rejected_records", "Records that could not be kept", self.ingest_rejected_records.clone());
        ingest.register_with_unit(
            "received",
            "Body bytes as they came",
            Unit::Bytes,
            self.ingest_received_bytes.clone(),
        );
        ingest.register_with_unit(
            "decoded",
            "Body bytes after decompression",
            Unit::Bytes,
            self.ingest_decoded_bytes.clone(),
        );
        ingest.register_with_unit("duration", "Time until the answer", Unit::Seconds, self.ingest_seconds.clone());
        let help = "Age of the newest record of an append when it was kept";
        ingest.register_with_unit("lag", help, Unit::Seconds, self.ingest_lag_seconds.clone());
        // `quiver_query_…` is the engine's own.
        let query = to.sub_registry_with_prefix("server_query");
        query.register("requests", "Queries by outcome", self.queries.clone());
        query.register("returned_rows", "Rows sent to callers", self.query_rows.clone());
        query.register_with_unit("duration", "Time until the last row", Unit::Seconds, self.query_seconds.clone());
        registry.register_collector(Box::new(Process));
    }
}

/// The process's own memory and CPU time, under Prometheus' usual names; read from /proc when asked for.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        // Linux only, in pages of 4 KiB and ticks of 10 ms (sysconf's values on every platform that is supported).
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        if let Some(pages) = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<i64>().ok()) {
            let gauge = ConstGauge::new(pages * 4096);
            let unit = Some(&Unit::Bytes);
            let to =
                encoder.encode_descriptor("process_resident_memory", "Resident memory", unit, gauge.metric_type())?;
            gauge.encode(to)?;
        }
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        let ticks = |at: usize| fields.split(' ').nth(at).and_then(|ticks| ticks.parse::<f64>().ok());
        // proc(5): utime and stime are the 14th and 15th field, of which the first two stand before the bracket's end.
        if let (Some(user), Some(system)) = (ticks(11), ticks(12)) {
            let counter = ConstCounter::new((user + system) / 100.0);
            let unit = Some(&Unit::Seconds);
            let to = encoder.encode_descriptor("process_cpu", "CPU time", unit, counter.metric_type())?;
            counter.encode(to)?;
        }
        Ok(())
    }
}

/// Lets one event in a while be logged, and counts those between.
#[derive(Debug, Default)]
pub struct Sampler {
    last_ns: AtomicI64,
    left_out: AtomicU64,
}

impl Sampler {
    const PERIOD_NS: i64 = 10_000_000_000;

    /// `Some(events left out since the last time)` when this one may be logged.
    pub fn admit(&self, now_ns: i64) -> Option<u64> {
        let last = self.last_ns.load(Ordering::Relaxed);
        let due = last == 0 || now_ns.saturating_sub(last) >= Self::PERIOD_NS;
        if due && self.last_ns.compare_exchange(last, now_ns, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return Some(self.left_out.swap(0, Ordering::Relaxed));
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_written_as_prometheus_reads_them() {
        let metrics = Metrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let came = IngestOutcome { received_bytes: 10, decoded_bytes: 100, accepted: 3 };
        metrics.ingest("loki", "ok", came, Duration::from_millis(2));
        metrics.rejected("loki", "blue", "too_long", 2);
        (0..=TENANTS_MAX).for_each(|at| metrics.rejected("loki", &format!("t{at}"), "malformed", 1));
        metrics.query("http", "invalid", 0, Duration::from_millis(1));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "quiver_ingest_requests_total{protocol=\"loki\",outcome=\"ok\"} 1",
            "quiver_ingest_records_total{protocol=\"loki\"} 3",
            "quiver_ingest_rejected_records_total{protocol=\"loki\",tenant=\"blue\",reason=\"too_long\"} 2",
            "quiver_ingest_rejected_records_total{protocol=\"loki\",tenant=\"other\",reason=\"malformed\"} 2",
            "quiver_ingest_received_bytes_total{protocol=\"loki\"} 10",
            "quiver_ingest_duration_seconds_count{protocol=\"loki\"} 1",
            "quiver_server_query_requests_total{endpoint=\"http\",outcome=\"invalid\"} 1",
            "quiver_build_info{version=",
            "process_resident_memory_bytes ",
            "process_cpu_seconds_total ",
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
    }

    #[test]
    fn a_sampler_admits_one_in_ten_seconds() {
        let sampler = Sampler::default();
        assert_eq!(sampler.admit(1), Some(0));
        assert_eq!(sampler.admit(2), None);
        assert_eq!(sampler.admit(9_999_999_999), None);
        assert_eq!(sampler.admit(10_000_000_001), Some(2));
    }

    #[test]
    fn levels_are_checked() {
        let log = |level: &str| Log { level: level.to_owned(), format: LogFormat::Text };
        assert!(check(&log("info,quiver::query=debug")).is_ok());
        assert!(check(&log("=loud=")).unwrap_err().to_string().contains("'=loud='"));
    }
}
