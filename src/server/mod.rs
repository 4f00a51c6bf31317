//! The public protocols: one HTTP port and one gRPC port over one store and one query engine.
//! Wire formats are `decode`'s, rows are `query`'s; this module lets in, counts, hands over and answers.
//!
//! Invariants: a request is let in (credentials, tenant, limits) before its body is read; every [`status::Error`] gets
//! its HTTP or gRPC status in [`status`] and nowhere else; the ports answer from the moment they are bound, with 503
//! until the store has recovered.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::config::{self, Config};
use crate::decode;
use crate::decode::streams::Streams;
use crate::memory::{Allocator, Ceiling};
use crate::pipeline::Pipelines;
use crate::query::{self, Engine};
use crate::record::Tenant;
use crate::storage::retention::Rules;
use crate::storage::{self, Store, cache, compact, quota, remote};
use crate::telemetry::{Metrics, Sampler};

mod admin;
mod answer;
mod auth;
mod body;
mod connections;
mod deletions;
mod elastic;
mod flight;
mod grpc;
mod http_routes;
mod ingest;
mod kafka;
mod listen;
mod query_routes;
pub mod range;
mod rates;
mod receivers;
pub mod rows;
mod sampling;
mod splunk;
mod sql_metadata;
mod status;
mod tls;

pub use auth::TENANT;
pub use status::Error;

use auth::Auth;
use body::{Budget, Limits};
use rates::Rates;
use tls::Tls;

/// Tenants whose streams are told as metrics.
const TENANTS_TOLD_MAX: usize = 200;

/// Who calls, once let in.
#[derive(Debug, Clone)]
struct Caller {
    tenant: Tenant,
}

/// The parts that answer once the store has recovered.
struct Parts {
    store: Arc<Store>,
    engine: Arc<Engine>,
}

/// What the two ports share.
struct App {
    clock: Clock,
    auth: Auth,
    limits: Limits,
    budget: Budget,
    requests: Arc<Semaphore>,
    connections: connections::Limits,
    rates: Rates,
    /// `None`: they have no limit.
    streams: Option<Arc<Streams>>,
    splunk_acks: splunk::Acks,
    started_ns: i64,
    /// Decoding that may run at once: it is CPU work, so more than the processors only takes memory.
    decoders: Semaphore,
    /// Without a tenant; see [`App::decode_options`].
    decode: Arc<decode::Options>,
    sql_bytes_max: usize,
    slow_after: Duration,
    rejections: Sampler,
    metrics: Metrics,
    registry: Mutex<Registry>,
    phase: AtomicU8,
    parts: OnceLock<Parts>,
    /// A deletion was asked for.
    deletion_wanted: Notify,
}

const STARTING: u8 = 0;
const READY: u8 = 1;
const CLOSING: u8 = 2;

impl App {
    /// **Errors**: when a pipeline can't be.
    fn new(config: &Config, clock: Clock, ceiling: Arc<Ceiling>) -> Result<App, Error> {
        let server = &config.server;
        let metrics = Metrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let requests = Arc::new(Semaphore::new(server.requests_max.min(Semaphore::MAX_PERMITS)));
        let budget = Budget::new(server.in_flight_bytes_max.bytes(), ceiling);
        let load =
            Load { requests: requests.clone(), requests_max: requests.available_permits(), budget: budget.clone() };
        registry.register_collector(Box::new(load));
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let limits = &config.limits;
        let idle_ns = i64::try_from(limits.streams_idle.as_nanos()).expect("the config was validated");
        let streams = (limits.streams_max > 0).then(|| Arc::new(Streams::new(limits.streams_max, idle_ns)));
        if let Some(streams) = streams.clone() {
            registry.register_collector(Box::new(ActiveStreams { streams, clock: clock.clone() }));
        }
        Ok(App {
            auth: Auth::new(&server.auth),
            limits: Limits {
                body_bytes_max: server.body_bytes_max.bytes(),
                body_setting: "server.body_bytes_max",
                decompressed_bytes_max: server.decompressed_bytes_max.bytes(),
                decompressed_setting: "server.decompressed_bytes_max",
                timeout: server.body_timeout,
            },
            budget,
            requests,
            connections: connections::Limits {
                connections_max: server.connections_max,
                head_timeout: server.head_timeout,
            },
            rates: Rates::new(limits.bytes_per_second, limits.burst_bytes),
            streams,
            splunk_acks: splunk::Acks::default(),
            started_ns: clock.now_ns(),
            clock,
            decoders: Semaphore::new(processors * 2),
            decode: Arc::new(decode_options(config)?),
            sql_bytes_max: config.query.sql_bytes_max,
            slow_after: config.query.slow_after,
            rejections: Sampler::default(),
            metrics,
            registry: Mutex::new(registry),
            phase: AtomicU8::new(STARTING),
            parts: OnceLock::new(),
            deletion_wanted: Notify::new(),
        })
    }

    /// How a tenant's lines are decoded.
    fn decode_options(&self, tenant: &Tenant) -> Arc<decode::Options> {
        if self.decode.pipelines.is_none() && self.streams.is_none() {
            return self.decode.clone();
        }
        let streams = self.streams.as_ref().map(|streams| streams.of(tenant, self.clock.now_ns()));
        Arc::new(decode::Options { tenant: Some(tenant.clone()), streams, ..(*self.decode).clone() })
    }

    /// Store and engine. **Errors**: [`Error::NotReady`] before recovery and after the start of closing.
    fn parts(&self) -> Result<&Parts, Error> {
        match (self.phase.load(Ordering::Acquire), self.parts.get()) {
            (READY, Some(parts)) => Ok(parts),
            (CLOSING, _) => Err(Error::NotReady("closing")),
            _ => Err(Error::NotReady("starting")),
        }
    }

    /// Lets a request in: credentials, tenant, and a place among the running requests.
    fn admit(&self, headers: &HeaderMap) -> Result<(Caller, OwnedSemaphorePermit), Error> {
        self.auth.check(headers)?;
        let tenant = auth::tenant(headers)?;
        let place = self.requests.clone().try_acquire_owned().map_err(|_| Error::Overloaded)?;
        Ok((Caller { tenant }, place))
    }

    /// The metrics as OpenMetrics text.
    fn metrics_text(&self) -> Result<String, Error> {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)
            .map_err(|error| Error::Internal(error.to_string()))?;
        Ok(text)
    }
}

/// What the limits hold right now, as metrics.
#[derive(Debug)]
struct Load {
    requests: Arc<Semaphore>,
    requests_max: usize,
    budget: Budget,
}

impl Collector for Load {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let requests = self.requests_max.saturating_sub(self.requests.available_permits());
        let gauges = [
            ("quiver_server_requests_in_flight", "Requests being served", requests),
            ("quiver_server_in_flight_bytes", "Bytes of requests being read, decoded and kept", self.budget.used()),
            ("quiver_memory_bytes", "Memory in use, of memory_max", self.budget.ceiling().in_use()),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

/// How many active streams tenants have, as a metric.
#[derive(Debug)]
struct ActiveStreams {
    streams: Arc<Streams>,
    clock: Clock,
}

impl Collector for ActiveStreams {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let help = "Active streams of the tenants that have most of them, of limits.streams_max";
        let mut counts = self.streams.counts(self.clock.now_ns());
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let mut family = encoder.encode_descriptor("quiver_ingest_streams", help, None, MetricType::Gauge)?;
        for (tenant, count) in counts.iter().take(TENANTS_TOLD_MAX) {
            let gauge = ConstGauge::new(i64::try_from(*count).unwrap_or(i64::MAX));
            gauge.encode(family.encode_family(&[("tenant", tenant.as_str())])?)?;
        }
        Ok(())
    }
}

/// A running server.
pub struct Server {
    app: Arc<App>,
    config: Config,
    stop: CancellationToken,
    health: HealthReporter,
    listeners: listen::Listeners,
    sources: kafka::Sources,
    ports: JoinSet<&'static str>,
    /// Where HTTP is answered.
    pub http: std::net::SocketAddr,
    /// Where gRPC is answered.
    pub grpc: std::net::SocketAddr,
}

impl Server {
    /// Opens both ports; they answer 503 until [`Server::open`]. The ceiling of memory is over what
    /// `allocator` holds.
    /// **Errors**: [`Error::Bind`].
    pub async fn bind(config: Config, clock: Clock, allocator: Allocator) -> Result<Server, Error> {
        check(&config)?;
        let http_listener = listen("--http", &config.server.http).await?;
        let grpc_listener = listen("--grpc", &config.server.grpc).await?;
        let unbound = |source| Error::Internal(format!("a listener has no address: {source}"));
        let http = http_listener.local_addr().map_err(unbound)?;
        let grpc = grpc_listener.local_addr().map_err(unbound)?;
        let app = Arc::new(App::new(&config, clock, Ceiling::new(config.memory_max, allocator))?);
        if app.auth.is_open() && !(http.ip().is_loopback() && grpc.ip().is_loopback()) {
            warn!(
                "everybody who reaches {http} or {grpc} may read and write: [server.auth] has neither tokens nor users"
            );
        }
        let tls = |protocols: &[&str]| {
            Tls::load("server.tls", &config.server.tls, protocols, config.listen.handshake_timeout)
        };
        let (http_tls, grpc_tls) = (tls(&["h2", "http/1.1"])?, tls(&["h2"])?);
        let sources = kafka::Sources::new(&config.kafka, &app, config.server.in_flight_bytes_max.bytes())?;
        let listeners = listen::Listeners::bind(&config.listen, &app).await?;
        let stop = CancellationToken::new();
        let mut ports = JoinSet::new();
        ports.spawn(http_routes::serve(http_listener, http_tls, app.clone(), stop.clone()));
        let health = HealthReporter::new();
        health.set_service_status("", ServingStatus::NotServing).await;
        ports.spawn(grpc::serve(grpc_listener, grpc_tls, app.clone(), health.clone(), stop.clone()));
        Ok(Server { app, config, stop, health, listeners, sources, ports, http, grpc })
    }

    /// Opens the store, recovering what the last run left; from then on requests are served.
    pub async fn open(&mut self) -> Result<(), Error> {
        let store = Store::open(storage_options(&self.config)?, self.app.clock.clone()).await?;
        let ceiling = self.app.budget.ceiling();
        let engine = Engine::new(store.clone(), query_options(&self.config.query, ceiling))?;
        {
            let mut registry = self.app.registry.lock().unwrap_or_else(PoisonError::into_inner);
            store.register_metrics(&mut registry);
            engine.register_metrics(&mut registry);
        }
        if self.app.parts.set(Parts { store, engine }).is_err() {
            return Err(Error::Internal("the server was opened twice".to_owned()));
        }
        self.app.phase.store(READY, Ordering::Release);
        self.ports.spawn(deletions::run(self.app.clone(), self.stop.clone()));
        let every = self.config.server.sample_every;
        self.ports.spawn(sampling::run(self.app.clone(), every, self.stop.clone()));
        self.health.set_service_status("", ServingStatus::Serving).await;
        self.ports.spawn(grpc::follow_health(self.app.clone(), self.health.clone(), self.stop.clone()));
        self.listeners.start();
        self.sources.start();
        Ok(())
    }

    /// Stops accepting, lets running requests end within the grace, flushes and closes the store.
    pub async fn close(mut self) -> Result<(), Error> {
        let grace = self.config.server.shutdown_grace;
        self.sources.close(grace).await;
        // What came in by sockets that acknowledge nothing is still kept.
        self.listeners.close(grace).await;
        self.app.phase.store(CLOSING, Ordering::Release);
        self.stop.cancel();
        let drained = async { while self.ports.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, drained).await.is_err() {
            warn!("some requests did not end within {grace:?} and are broken off");
            self.ports.shutdown().await;
        }
        let Some(parts) = self.app.parts.get() else { return Ok(()) };
        parts.engine.close(grace).await;
        parts.store.close().await?;
        info!("closed; everything is in segments");
        Ok(())
    }
}

async fn listen(flag: &'static str, address: &str) -> Result<TcpListener, Error> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| Error::Bind { flag, address: address.to_owned(), source })
}

/// Checks what `config` takes as text: the rules of retention, pipelines, tenants, time zones, and patterns of topics.
pub fn check(config: &Config) -> Result<(), Error> {
    listen::check(&config.listen)?;
    kafka::check(&config.kafka)?;
    storage_options(config)?;
    decode_options(config).map(drop)
}

fn storage_options(config: &Config) -> Result<storage::Options, Error> {
    let settings = &config.storage;
    let rules = Rules::new(config.retention.iter().map(|rule| (rule.r#match.as_str(), rule.keep)));
    let rules = rules.map_err(|error| Error::Invalid(error.to_string()))?;
    Ok(storage::Options {
        data_dir: settings.data_dir.clone(),
        flush_bytes_max: settings.flush_bytes_max.bytes(),
        flush_age_max: settings.flush_age_max,
        buffer_bytes_max: settings.buffer_bytes_max.bytes(),
        open_bytes_max: settings.open_bytes_max.bytes(),
        page_cache_bytes_max: settings.page_cache_bytes_max.bytes(),
        columns_max: settings.columns_max,
        fields_max: settings.fields_max,
        rules: Arc::new(rules),
        merge_limits: compact::Limits {
            target_bytes: settings.compact_target_bytes as u64,
            merge_bytes_max: settings.merge_bytes_max as u64,
            quiet: settings.compact_after,
            ..compact::Limits::default()
        },
        disk_bytes_max: settings.disk_bytes_max as u64,
        quota_order: match settings.quota_order {
            config::QuotaOrder::Oldest => quota::Order::Oldest,
            config::QuotaOrder::ShortestKeptFirst => quota::Order::ShortestKeptFirst,
        },
        object_store: object_store(settings),
        cache_bytes_max: settings.cache_bytes_max as u64,
    })
}

fn object_store(settings: &config::Storage) -> Option<cache::Place> {
    let reached = remote::Settings {
        endpoint: settings.object_store_endpoint.clone(),
        region: settings.object_store_region.clone(),
        virtual_hosted: !settings.object_store_path_style,
        allow_http: settings.object_store_allow_http,
    };
    (!settings.object_store.is_empty())
        .then(|| cache::Place { place: settings.object_store.clone(), settings: reached })
}

fn query_options(settings: &config::Query, ceiling: Arc<Ceiling>) -> query::Options {
    query::Options {
        timeout_max: settings.timeout_max,
        memory_bytes_max: settings.memory_bytes_max.bytes(),
        ceiling,
        rows_max: settings.rows_max,
        scan_bytes_max: settings.scan_bytes_max as u64,
        concurrency_max: settings.concurrency_max,
        threads: settings.threads,
    }
}

/// How lines are decoded, of no tenant in particular. **Errors**: when a pipeline can't be.
pub fn decode_options(config: &Config) -> Result<decode::Options, Error> {
    let settings = &config.ingest;
    let pipelines = Pipelines::compile(&config.pipeline).map_err(|error| Error::Invalid(error.to_string()))?;
    Ok(decode::Options {
        pipelines: (!pipelines.is_empty()).then(|| Arc::new(pipelines)),
        tenant: None,
        streams: None,
        line_bytes_max: settings.line_bytes_max,
        fields_per_line_max: settings.fields_per_line_max,
        field_name_bytes_max: settings.field_name_bytes_max,
        columns_max: settings.columns_max,
        batch_bytes_max: settings.batch_bytes_max.bytes(),
        rejections_max: settings.rejections_max,
        future_max_ns: i64::try_from(settings.future_max.as_nanos()).expect("the config was validated"),
        timestamp_names: settings.timestamp_names.clone(),
        level_names: settings.level_names.clone(),
        service_names: settings.service_names.clone(),
        service_hint_names: settings.service_hint_names.clone(),
        message_names: settings.message_names.clone(),
        trace_id_names: settings.trace_id_names.clone(),
        span_id_names: settings.span_id_names.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let flags = config::Flags {
            http: Some("127.0.0.1:0".into()),
            grpc: Some("127.0.0.1:0".into()),
            // Enough for each part to be as large as it gets.
            set: vec!["memory_max=8GiB".into()],
            ..config::Flags::default()
        };
        Config::load(&flags, |_| None).unwrap()
    }

    #[test]
    fn the_documented_names_are_the_decoders() {
        let (ours, theirs) = (decode_options(&config()).unwrap(), decode::Options::default());
        assert_eq!(ours.timestamp_names, theirs.timestamp_names);
        assert_eq!(ours.level_names, theirs.level_names);
        assert_eq!(ours.service_names, theirs.service_names);
        assert_eq!(ours.service_hint_names, theirs.service_hint_names);
        assert_eq!(ours.message_names, theirs.message_names);
        assert_eq!(ours.trace_id_names, theirs.trace_id_names);
        assert_eq!(ours.span_id_names, theirs.span_id_names);
    }

    #[test]
    fn the_documented_defaults_are_the_stores() {
        let config = config();
        let (ours, theirs) = (storage_options(&config).unwrap(), storage::Options::new(&config.storage.data_dir));
        assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
    }

    #[test]
    fn a_rule_that_can_t_be_is_told_with_its_place() {
        let mut config = config();
        config.retention.push(config::Retention { r#match: "level = \"eror\"".into(), keep: None });
        let error = check(&config).unwrap_err().to_string();
        assert!(error.starts_with("retention rule 1, match, column 9: 'eror' is no level"), "{error}");
    }

    #[tokio::test]
    async fn a_taken_port_is_told_with_its_flag() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = config();
        config.server.grpc = taken.local_addr().unwrap().to_string();
        let error = Server::bind(config, Clock::System, Allocator::UNKNOWN).await.err().unwrap().to_string();
        assert!(error.contains("(--grpc)") && error.contains(&taken.local_addr().unwrap().to_string()), "{error}");
    }

    #[tokio::test]
    async fn the_ports_answer_before_the_store_is_open_and_close_at_once() {
        let server = Server::bind(config(), Clock::System, Allocator::UNKNOWN).await.unwrap();
        let (http, grpc) = (server.http, server.grpc);
        assert_ne!(http, grpc);
        assert!(matches!(server.app.parts(), Err(Error::NotReady("starting"))));
        server.close().await.unwrap();
        assert!(tokio::net::TcpStream::connect(http).await.is_err());
        assert!(tokio::net::TcpStream::connect(grpc).await.is_err());
    }
}
