//! Keeping what a source brings: decoded together, appended with how far its partitions are kept, tried again while the store
//! can't take it.
//!
//! Invariant: nothing is given up but single records that can never be kept, which are counted and told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{Label, Metrics, PROTOCOL};
use crate::decode::kafka::{self as values, Fields, Format};
use crate::decode::{self, Decoded};
use crate::kafka::{Fetched, Partition, Settings};
use crate::record::Tenant;
use crate::server::body::Lease;
use crate::server::ingest::Kept;
use crate::server::{App, Caller, Error};
use crate::storage::Reached;
use crate::telemetry::{IngestOutcome, Sampler};

/// Waits between two tries to append.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The ids of topics, as they were when their records were read; empty where brokers give none.
pub(super) type TopicIds = HashMap<Arc<str>, String>;

/// What keeps the records of a source.
pub(super) struct Keeper {
    pub app: Arc<App>,
    pub settings: Arc<Settings>,
    pub metrics: Metrics,
    caller: Caller,
    format: Format,
    fields: Fields,
    rejections: Sampler,
    failures: Sampler,
}

/// What came of a try to keep records.
enum Tried {
    /// They are kept, or are nothing that can be.
    Ended,
    /// They become too large together.
    TooLarge,
    /// The store can't take them now.
    Later(Error),
}

impl Keeper {
    pub fn new(
        app: Arc<App>,
        tenant: Tenant,
        settings: Arc<Settings>,
        (format, fields): (Format, Fields),
        metrics: Metrics,
    ) -> Keeper {
        let (rejections, failures) = (Sampler::default(), Sampler::default());
        Keeper { app, settings, metrics, caller: Caller { tenant }, format, fields, rejections, failures }
    }

    pub fn label(&self) -> Label {
        Label { group: self.settings.group.clone() }
    }

    /// The name under which the store knows a partition: of a group, since another group means to read all once more; of a
    /// topic by its id, since one made again has other records.
    fn name(&self, partition: &Partition, topic_id: &str) -> String {
        let (group, topic) = (&self.settings.group, &partition.topic);
        let id = if topic_id.is_empty() { self.settings.brokers.first().map_or("", |one| one) } else { topic_id };
        format!("{PROTOCOL}/{group}/{topic}/{id}/{}", partition.number)
    }

    /// How far a partition was kept here.
    pub fn kept(&self, partition: &Partition, topic_id: &str) -> Option<i64> {
        self.app.parts().ok()?.store.reached(&self.name(partition, topic_id))
    }

    /// Whether a failure is to be told now; how many were left out since the last one.
    pub fn may_tell(&self) -> Option<u64> {
        self.failures.admit(self.app.clock.now_ns())
    }

    /// Counts that records can't be kept now.
    pub fn tell_waiting(&self, failure: &Error) {
        self.metrics.waits.get_or_create(&self.label()).inc();
        if let Some(left_out) = self.may_tell() {
            warn!(group = self.settings.group, left_out, "records wait in Kafka: {failure}");
        }
    }

    fn tell_skipped(&self, fetched: &Fetched) {
        for one in &fetched.skipped {
            let records = u64::try_from(one.to.saturating_sub(one.from)).unwrap_or(0);
            self.metrics.unreadable.get_or_create(&self.label()).inc_by(records);
            let (topic, partition, offset) = (&fetched.partition.topic, fetched.partition.number, one.from);
            error!(%topic, partition, offset, records, "records can't be read and are passed over: {}", one.reason);
        }
    }

    fn tell_rejections(&self, kept: &Kept, records: &[Fetched]) {
        if kept.rejected == 0 {
            return;
        }
        let Some(left_out) = self.rejections.admit(self.app.clock.now_ns()) else { return };
        let first = kept.reasons.first().and_then(|one| messages(records).nth(one.line.saturating_sub(1)));
        let (topic, partition, offset) = first.map_or(("", -1, -1), |one| (one.topic, one.partition, one.offset));
        let tenant = self.caller.tenant.as_str();
        warn!(group = self.settings.group, tenant, topic, partition, offset, left_out, "{}", kept.summary());
    }

    /// Keeps records; while the store can't take them, tries again until it is told to give up. Gives what was kept, up to
    /// where. The lease holds the memory of the records as they came.
    pub async fn keep(
        &self,
        fetched: Vec<Fetched>,
        ids: &TopicIds,
        _lease: Lease,
        give_up: &CancellationToken,
    ) -> Vec<(Partition, i64)> {
        fetched.iter().for_each(|one| self.tell_skipped(one));
        let mut done = Vec::new();
        let mut waiting = vec![Arc::new(fetched)];
        let mut pause = PAUSE_MIN;
        while let Some(records) = waiting.pop() {
            match self.try_to_keep(&records, ids).await {
                Tried::Ended => {
                    done.extend(records.iter().map(|one| (one.partition.clone(), one.next)));
                    pause = PAUSE_MIN;
                }
                Tried::TooLarge => match halves(Arc::unwrap_or_clone(records)) {
                    Ok((first, second)) => waiting.extend([Arc::new(second), Arc::new(first)]),
                    Err(alone) => {
                        self.give_up(&alone);
                        done.extend(alone.into_iter().map(|one| (one.partition, one.next)));
                    }
                },
                Tried::Later(failure) => {
                    self.tell_waiting(&failure);
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = give_up.cancelled() => return done,
                    }
                    pause = (pause * 2).min(PAUSE_MAX);
                    waiting.push(records);
                }
            }
        }
        done
    }

    /// A record that alone becomes larger than a batch may be never can be kept.
    fn give_up(&self, alone: &[Fetched]) {
        for one in alone {
            let (topic, partition, before) = (&one.partition.topic, one.partition.number, one.next);
            error!(%topic, partition, before, "a record is too large and passed over; the limit is 'ingest.batch_bytes_max'");
        }
        self.app.metrics.rejected(PROTOCOL, self.caller.tenant.as_str(), "too_long", alone.len());
    }

    async fn try_to_keep(&self, records: &Arc<Vec<Fetched>>, ids: &TopicIds) -> Tried {
        let started = Instant::now();
        let bytes = records.iter().flat_map(|one| &one.records).map(|record| record.bytes()).sum();
        let (all, tenant, format, fields) = (records.clone(), self.caller.tenant.clone(), self.format, self.fields);
        let decode = move |app: &App| {
            let options = app.decode_options(&tenant);
            values::messages(messages(&all), format, fields, &options, app.clock.now_ns())
        };
        let end = match self.app.offload(bytes, decode).await {
            Ok(Ok(decoded)) => self.append(decoded, records, ids, bytes).await,
            Ok(Err(decode::Error::TooLarge(_))) => return Tried::TooLarge,
            Ok(Err(unreadable)) => Err(unreadable.into()),
            Err(failure) => Err(failure),
        };
        if let Ok(kept) = &end {
            self.tell_rejections(kept, records);
        }
        let came = IngestOutcome { received_bytes: bytes, decoded_bytes: bytes, ..IngestOutcome::default() };
        self.app.count(&self.caller, PROTOCOL, started, came, end.as_ref());
        end.map_or_else(Tried::Later, |_| Tried::Ended)
    }

    async fn append(&self, decoded: Decoded, records: &[Fetched], ids: &TopicIds, bytes: usize) -> Result<Kept, Error> {
        let (app, tenant) = (&self.app, &self.caller.tenant);
        app.rates.admit(tenant, app.clock.now_ns())?;
        let mut claim = app.parts()?.store.claim(tenant);
        for one in records {
            let topic_id = ids.get(&one.partition.topic).map_or("", |id| id);
            claim.reach(Reached::new(&self.name(&one.partition, topic_id), one.next));
        }
        let (accepted, rejected) = (decoded.accepted(), decoded.rejected_count);
        let Decoded { batch, others, rejected: reasons, causes, .. } = decoded;
        if accepted > 0 {
            app.append(tenant, batch, others, claim, &mut app.budget.lease()).await?;
        }
        app.rates.charge(tenant, app.clock.now_ns(), bytes);
        Ok(Kept { accepted, rejected, reasons, causes, is_repeat: false })
    }
}

/// Records that say something, as decoders take them.
fn messages(records: &[Fetched]) -> impl Iterator<Item = values::Message<'_>> {
    records.iter().flat_map(|one| {
        one.records.iter().filter_map(move |record| {
            Some(values::Message {
                topic: &one.partition.topic,
                partition: one.partition.number,
                offset: record.offset,
                timestamp_ms: record.timestamp_ms,
                key: record.key.as_deref(),
                value: record.value.as_deref()?,
                headers: &record.headers,
            })
        })
    })
}

/// Two halves, in order; what can't be halved comes back.
fn halves(mut all: Vec<Fetched>) -> Result<(Vec<Fetched>, Vec<Fetched>), Vec<Fetched>> {
    if all.len() > 1 {
        let second = all.split_off(all.len() / 2);
        return Ok((all, second));
    }
    match all.pop() {
        Some(mut one) if one.records.len() > 1 => {
            let records = one.records.split_off(one.records.len() / 2);
            let second = Fetched { partition: one.partition.clone(), records, skipped: Vec::new(), next: one.next };
            one.next = second.records.first().map_or(one.next, |record| record.offset);
            Ok((vec![one], vec![second]))
        }
        rest => Err(rest.into_iter().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::Record;

    fn fetched(topic: &str, offsets: &[i64], next: i64) -> Fetched {
        let record =
            |offset: &i64| Record { offset: *offset, timestamp_ms: 0, key: None, value: None, headers: vec![] };
        let partition = Partition { topic: topic.into(), number: 0 };
        Fetched { partition, records: offsets.iter().map(record).collect(), skipped: vec![], next }
    }

    #[test]
    fn what_is_too_large_is_halved_without_a_gap() {
        let ends = |all: &[Fetched]| all.iter().map(|one| (one.records.len(), one.next)).collect::<Vec<_>>();
        let (first, second) = halves(vec![fetched("a", &[1], 2), fetched("b", &[5], 6)]).unwrap();
        assert_eq!((ends(&first), ends(&second)), (vec![(1, 2)], vec![(1, 6)]));
        let (first, second) = halves(vec![fetched("a", &[1, 4, 9], 12)]).unwrap();
        assert_eq!((ends(&first), ends(&second)), (vec![(1, 4)], vec![(2, 12)]));
        assert_eq!(ends(&halves(vec![fetched("a", &[1], 2)]).unwrap_err()), [(1, 2)]);
    }
}
