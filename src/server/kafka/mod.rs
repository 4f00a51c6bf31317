//! Topics of Kafka as a way in: the sources of the config, started and ended, and what they count. `source` is the life of
//! one; `kafka` (the module) speaks with brokers, `decode::kafka` reads values.
//!
//! Invariants: offsets are committed after the append of their records returned; a source whose records can't be kept now
//! waits and tries again, and reads no further; brokers that can't be reached keep nothing else from working.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::App;
use super::status::Error;
use crate::config::{self, KafkaField, SaslMechanism};
use crate::decode::kafka::{Fields, Format};
use crate::kafka::{Mechanism, Partition, Sasl, Security, Settings, TlsFiles, Topics, position};
use crate::record::Tenant;

mod keeper;
mod source;

use keeper::Keeper;
use source::Source;

/// What records of this way in are counted under, and known by in the store.
const PROTOCOL: &str = "kafka";

/// Partitions of all sources whose lag is told one by one; that of the others is summed up.
const LAGS_MAX: usize = 1_000;
/// Their number.
const OTHERS: &str = "other";

/// `group` of a source.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    group: String,
}

/// A partition of a source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct PartitionLabel {
    group: String,
    topic: String,
    partition: String,
}

/// What all sources count; records, bytes and rejections are among those of ingest, under `kafka`.
#[derive(Debug, Clone, Default)]
struct Metrics {
    connected: Family<Label, Gauge>,
    partitions: Family<Label, Gauge>,
    rebalances: Family<Label, Counter>,
    errors: Family<Label, Counter>,
    waits: Family<Label, Counter>,
    commits: Family<Label, Counter>,
    last_commit: Family<Label, Gauge>,
    unreadable: Family<Label, Counter>,
    lags: Arc<Mutex<BTreeMap<PartitionLabel, i64>>>,
}

impl Metrics {
    fn register(&self, registry: &mut Registry) {
        let to = registry.sub_registry_with_prefix("quiver_kafka");
        to.register("connected", "1: it is a member of its group", self.connected.clone());
        to.register("partitions", "Partitions that are its own now", self.partitions.clone());
        to.register("rebalances", "Times that it joined its group", self.rebalances.clone());
        to.register("errors", "Failures of brokers, each tried again", self.errors.clone());
        to.register("waits", "Times that records could not be kept at once", self.waits.clone());
        to.register("commits", "Commits of offsets", self.commits.clone());
        to.register("last_commit_timestamp_seconds", "When the last commit was", self.last_commit.clone());
        to.register("unreadable_records", "Records of batches that could not be read", self.unreadable.clone());
        registry.register_collector(Box::new(Lags(self.lags.clone())));
    }

    /// Replaces what is told of a group's partitions.
    fn set_lags<'a>(&self, group: &str, lags: impl Iterator<Item = (&'a Partition, Option<i64>)>) {
        let mut known = self.lags.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|label, _| label.group != group);
        for (partition, lag) in lags {
            let Some(lag) = lag else { continue };
            let mut label = PartitionLabel {
                group: group.to_owned(),
                topic: partition.topic.to_string(),
                partition: partition.number.to_string(),
            };
            if known.len() >= LAGS_MAX {
                (label.topic, label.partition) = (OTHERS.to_owned(), OTHERS.to_owned());
            }
            *known.entry(label).or_default() += lag;
        }
    }
}

/// The lags as they are when they are asked for, of partitions that are read now.
#[derive(Debug)]
struct Lags(Arc<Mutex<BTreeMap<PartitionLabel, i64>>>);

impl Collector for Lags {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let lags = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = ConstGauge::new(0i64).metric_type();
        let mut family =
            encoder.encode_descriptor("quiver_kafka_lag_records", "Records that were not read yet", None, kind)?;
        for (label, lag) in &*lags {
            ConstGauge::new(*lag).encode(family.encode_family(label)?)?;
        }
        Ok(())
    }
}

/// All sources, before and after they are started.
pub(super) struct Sources {
    waiting: Vec<Source>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

/// Checks what the config takes as text: patterns, tenants and files.
pub(super) fn check(sources: &[config::Kafka]) -> Result<(), Error> {
    sources.iter().try_for_each(|source| {
        settings(source, usize::MAX)?;
        tenant(source).map(drop)
    })
}

fn tenant(source: &config::Kafka) -> Result<Tenant, Error> {
    let wrong = || Error::Invalid(format!("kafka.tenant: '{}' can't be a tenant", source.tenant));
    Tenant::parse(&source.tenant).ok_or_else(wrong)
}

fn settings(source: &config::Kafka, in_flight_bytes_max: usize) -> Result<Settings, Error> {
    let files = TlsFiles { ca: source.tls_ca.clone(), cert: source.tls_cert.clone(), key: source.tls_key.clone() };
    let mechanism = match source.sasl {
        SaslMechanism::None => None,
        SaslMechanism::Plain => Some(Mechanism::Plain),
        SaslMechanism::ScramSha256 => Some(Mechanism::ScramSha256),
        SaslMechanism::ScramSha512 => Some(Mechanism::ScramSha512),
    };
    let sasl = mechanism.map(|mechanism| {
        let (user, password) = (source.user.clone(), source.password.clone());
        Sasl { mechanism, user, password }
    });
    let security = Security::new(source.tls.then_some(&files), sasl);
    Ok(Settings {
        brokers: source.brokers.clone(),
        group: source.group.clone(),
        instance: source.instance.clone(),
        topics: Topics::new(&source.topics).map_err(|reason| Error::Invalid(format!("kafka.topics: {reason}")))?,
        security: security.map_err(|error| Error::Invalid(format!("[[kafka]]: {error}")))?,
        session_timeout: source.session_timeout,
        fetch_wait_max: source.fetch_wait_max,
        fetch_bytes_max: source.fetch_bytes_max,
        // Packed and unpacked together stay well within what requests have.
        unpacked_bytes_max: in_flight_bytes_max / 8,
        batch_bytes_max: in_flight_bytes_max / 2,
    })
}

fn format(source: &config::Kafka) -> Format {
    match source.format {
        config::Format::Auto => Format::Auto,
        config::Format::Json => Format::Json,
        config::Format::Otlp => Format::Otlp,
        config::Format::Text => Format::Text,
    }
}

fn fields(source: &config::Kafka) -> Fields {
    let has = |field| source.fields.contains(&field);
    Fields {
        topic: has(KafkaField::Topic),
        partition: has(KafkaField::Partition),
        offset: has(KafkaField::Offset),
        key: has(KafkaField::Key),
        headers: has(KafkaField::Headers),
    }
}

impl Sources {
    /// Makes every source; no broker is spoken to before [`Sources::start`]. `in_flight_bytes_max` is what all that comes in
    /// may take together. **Errors**: [`Error::Invalid`] for files, patterns and tenants that can't be used.
    pub fn new(all: &[config::Kafka], app: &Arc<App>, in_flight_bytes_max: usize) -> Result<Sources, Error> {
        let metrics = Metrics::default();
        let mut waiting = Vec::new();
        for one in all {
            if one.sasl == SaslMechanism::Plain && !one.tls {
                warn!(
                    group = one.group,
                    "the password goes to brokers as it is: [[kafka]] has sasl = \"plain\" without tls"
                );
            }
            let settings = Arc::new(settings(one, in_flight_bytes_max)?);
            let start = match one.start {
                config::Start::Earliest => position::Start::Earliest,
                config::Start::Latest => position::Start::Latest,
            };
            let values = (format(one), fields(one));
            let keeper = Keeper::new(app.clone(), tenant(one)?, settings, values, metrics.clone());
            waiting.push(Source::new(keeper, start));
        }
        if !all.is_empty() {
            metrics.register(&mut app.registry.lock().unwrap_or_else(PoisonError::into_inner));
        }
        Ok(Sources { waiting, tasks: JoinSet::new(), stop: CancellationToken::new() })
    }

    /// Starts to read; needs a store that is open. Each source has a thread of its own: unpacking batches is no work for the
    /// threads that answer requests.
    pub fn start(&mut self) {
        for source in self.waiting.drain(..) {
            let stop = self.stop.clone();
            self.tasks.spawn_blocking(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                match runtime {
                    Ok(runtime) => runtime.block_on(source.run(stop)),
                    Err(error) => error!("a source of Kafka can't run: {error}"),
                }
            });
        }
    }

    /// Stops reading, keeps and commits what was read, and leaves the groups; what takes longer than `grace` is broken off
    /// (it is read again after the next start).
    pub async fn close(&mut self, grace: Duration) {
        self.stop.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, ended).await.is_err() {
            warn!("sources of Kafka did not end within {grace:?}; what they did not keep is read again");
        }
    }
}
