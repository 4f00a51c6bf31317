//! The life of one source: it joins its group, reads its partitions, keeps what comes, commits; and again, when partitions
//! are shared out anew or a broker fails.
//!
//! Invariant: at any time there is one answer's worth of records that are not kept yet; who loses a partition has committed
//! what was kept of it, as far as the broker takes commits.

use std::collections::HashMap;
use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::time::{Instant as Due, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::keeper::{Keeper, TopicIds};
use crate::kafka::position::{From, Start, note, start_of};
use crate::kafka::{Beat, Error as BrokerError, Fetched, Fetcher, Member, Partition};
use crate::server::body::Lease;

/// Waits between two tries to reach brokers.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How often new topics and partitions are looked for; and where a named one is missing.
const LOOK_EVERY: Duration = Duration::from_secs(30);
const LOOK_EVERY_MISSING: Duration = Duration::from_secs(2);

/// One source.
pub(super) struct Source {
    keeper: Keeper,
    start: Start,
    member: Member,
    fetcher: Fetcher,
}

/// Why a share of partitions is not read any more.
enum Ended {
    /// The source is to end.
    Stopped,
    /// Partitions are shared out anew.
    Rebalancing,
}

impl Source {
    pub fn new(keeper: Keeper, start: Start) -> Source {
        let (member, fetcher) = (Member::new(keeper.settings.clone()), Fetcher::new(keeper.settings.clone()));
        Source { keeper, start, member, fetcher }
    }

    fn group(&self) -> &str {
        &self.keeper.settings.group
    }

    /// Reads until it is told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        self.set_share(0, false);
        let mut pause = PAUSE_MIN;
        loop {
            let began = Instant::now();
            let ended = self.read_share(&stop).await;
            self.keeper.metrics.set_lags(self.group(), std::iter::empty());
            match ended {
                Ok(Ended::Stopped) => break,
                Ok(Ended::Rebalancing) => pause = PAUSE_MIN,
                Err(failure) => {
                    self.set_share(0, false);
                    self.keeper.metrics.errors.get_or_create(&self.keeper.label()).inc();
                    // Who was at work for a while failed for another reason than last time.
                    pause = if began.elapsed() > PAUSE_MAX { PAUSE_MIN } else { pause };
                    if let Some(left_out) = self.keeper.may_tell() {
                        warn!(group = self.group(), left_out, "Kafka is tried again: {failure}");
                    }
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = stop.cancelled() => break,
                    }
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
        match self.member.leave().await {
            Ok(()) => info!(group = self.group(), "left the group"),
            Err(failure) => debug!(group = self.group(), "the group was left without a word: {failure}"),
        }
        self.set_share(0, false);
    }

    fn set_share(&self, partitions: usize, is_connected: bool) {
        let (metrics, label) = (&self.keeper.metrics, self.keeper.label());
        metrics.connected.get_or_create(&label).set(i64::from(is_connected));
        metrics.partitions.get_or_create(&label).set(partitions as i64);
    }

    /// Joins the group, and reads the partitions that are given until they are shared out anew.
    async fn read_share(&mut self, stop: &CancellationToken) -> Result<Ended, BrokerError> {
        let share = tokio::select! {
            joined = self.member.join(self.fetcher.cluster()) => joined?,
            () = stop.cancelled() => return Ok(Ended::Stopped),
        };
        let mut due = Due::now() + self.member.beat_every();
        let starts = self.starts(&share).await?;
        self.keeper.metrics.rebalances.get_or_create(&self.keeper.label()).inc();
        self.set_share(share.len(), true);
        info!(group = self.group(), partitions = share.len(), "joined the group");
        self.fetcher.assign(starts);
        let known = self.fetcher.cluster().partitions();
        let mut looked = Instant::now();
        while !stop.is_cancelled() {
            if self.read_once(&mut due, stop).await? == Beat::Rebalancing {
                return Ok(Ended::Rebalancing);
            }
            let has_missing = !self.fetcher.cluster().missing().is_empty();
            if looked.elapsed() > if has_missing { LOOK_EVERY_MISSING } else { LOOK_EVERY } {
                looked = Instant::now();
                self.fetcher.cluster().refresh().await?;
                // The leader has others join again by doing so.
                if self.member.is_leader && self.fetcher.cluster().partitions() != known {
                    return Ok(Ended::Rebalancing);
                }
            }
        }
        Ok(Ended::Stopped)
    }

    /// Reads what there is, keeps it and commits.
    async fn read_once(&mut self, due: &mut Due, stop: &CancellationToken) -> Result<Beat, BrokerError> {
        let never = CancellationToken::new();
        let mut lease = self.keeper.app.budget.lease();
        if let Err(busy) = lease.grow(self.keeper.settings.fetch_bytes_max) {
            self.keeper.tell_waiting(&busy);
            return beside(&mut self.member, due, &never, sleep(PAUSE_MIN)).await.1;
        }
        let (fetched, beat) = beside(&mut self.member, due, &never, self.fetcher.fetch()).await;
        let fetched = fetched?;
        self.keeper.metrics.set_lags(&self.keeper.settings.group, self.fetcher.lags());
        match beat? {
            beat if fetched.is_empty() => Ok(beat),
            beat => self.keep_and_commit(fetched, lease, due, beat, stop).await,
        }
    }

    /// Where each partition is begun.
    async fn starts(&mut self, share: &[Partition]) -> Result<Vec<(Partition, From)>, BrokerError> {
        if share.is_empty() {
            return Ok(Vec::new());
        }
        let all = self.fetcher.cluster().partitions();
        let committed = self.member.committed(&all).await?;
        let mut starts = Vec::new();
        for partition in share {
            let topic_id = self.fetcher.cluster().topic_id(&partition.topic);
            let kept = self.keeper.kept(partition, &topic_id);
            let is_known = committed.keys().any(|one| one.topic == partition.topic);
            let from = start_of(&topic_id, committed.get(partition), kept, is_known, self.start);
            debug!(group = self.group(), %partition, ?from, "a partition is read");
            starts.push((partition.clone(), from));
        }
        if starts.iter().any(|(_, from)| *from == From::End) {
            self.find_ends(&mut starts).await?;
        }
        // Where it begins is committed when that is not what it was: the newest are asked for once only, and a commit that was
        // lost is made up for.
        let mut begun = Vec::new();
        for (partition, from) in &starts {
            let was = committed.get(partition).map(|one| one.offset);
            if let From::Offset(next) = from
                && was != Some(*next)
            {
                begun.push((partition.clone(), *next, note(&self.fetcher.cluster().topic_id(&partition.topic))));
            }
        }
        if !begun.is_empty() {
            self.member.commit(&begun).await?;
        }
        Ok(starts)
    }

    /// Finds where partitions end now.
    async fn find_ends(&mut self, starts: &mut [(Partition, From)]) -> Result<(), BrokerError> {
        self.fetcher.assign(starts.iter().cloned());
        self.fetcher.resolve().await?;
        let found: HashMap<Partition, i64> =
            self.fetcher.positions().map(|(partition, next)| (partition.clone(), next)).collect();
        for (partition, from) in starts {
            if let (From::End, Some(next)) = (&from, found.get(partition)) {
                *from = From::Offset(*next);
            }
        }
        Ok(())
    }

    /// Keeps what came, and commits what was kept, which is less only when partitions are shared out anew or the source
    /// ends.
    async fn keep_and_commit(
        &mut self,
        fetched: Vec<Fetched>,
        mut lease: Lease,
        due: &mut Due,
        beat: Beat,
        stop: &CancellationToken,
    ) -> Result<Beat, BrokerError> {
        let cluster = self.fetcher.cluster();
        let topics = fetched.iter().map(|one| one.partition.topic.clone());
        let ids: TopicIds = topics.map(|topic| (topic.clone(), cluster.topic_id(&topic))).collect();
        let give_up = stop.child_token();
        if beat == Beat::Rebalancing {
            give_up.cancel();
        }
        // What is here is here; where there is no memory to count it, appends are refused until there is.
        let bytes = fetched.iter().flat_map(|one| &one.records).map(|record| record.bytes()).sum();
        if let Err(busy) = lease.change_to(bytes) {
            self.keeper.tell_waiting(&busy);
        }
        let kept = self.keeper.keep(fetched, &ids, lease, &give_up);
        let (kept, later) = beside(&mut self.member, due, &give_up, kept).await;
        let later = later?;
        if !kept.is_empty() {
            let with_note = |(partition, next): (Partition, i64)| {
                let note = note(ids.get(&partition.topic).map_or("", |id| id));
                (partition, next, note)
            };
            let done: Vec<_> = kept.into_iter().map(with_note).collect();
            self.member.commit(&done).await?;
            let (metrics, label) = (&self.keeper.metrics, self.keeper.label());
            metrics.commits.get_or_create(&label).inc();
            metrics.last_commit.get_or_create(&label).set(self.keeper.app.clock.now_ns() / 1_000_000_000);
        }
        Ok(if beat == Beat::Rebalancing { beat } else { later })
    }
}

/// Runs some work to its end while the member says that it lives. `give_up` is cancelled when its partitions are not sure
/// any more.
async fn beside<T>(
    member: &mut Member,
    due: &mut Due,
    give_up: &CancellationToken,
    work: impl Future<Output = T>,
) -> (T, Result<Beat, BrokerError>) {
    let mut work = pin!(work);
    let mut beat = Ok(Beat::Steady);
    loop {
        let is_steady = matches!(beat, Ok(Beat::Steady));
        tokio::select! {
            done = &mut work => return (done, beat),
            () = sleep_until(*due), if is_steady => {
                beat = member.beat().await;
                *due = Due::now() + member.beat_every();
                if !matches!(beat, Ok(Beat::Steady)) {
                    give_up.cancel();
                }
            }
        }
    }
}
