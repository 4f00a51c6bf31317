//! Reading partitions: one request to each broker that leads some of them, all at once, and what is done when a partition
//! is not where it was.
//!
//! Invariants: a partition goes on where its last record was handed out; where the log was cut, or a topic made again, it is
//! read from where nothing new is missed, and that is told.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use kafka_protocol::ResponseError;
use kafka_protocol::error::ParseResponseErrorCode;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{FetchRequest, FetchResponse, ListOffsetsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use tracing::{debug, warn};
use uuid::Uuid;

use super::batch::{Record, Skipped, walk};
use super::cluster::Cluster;
use super::connection::{ANSWER_MAX, Connection};
use super::position::From;
use super::{Error, Partition, Settings};

/// From this version on topics are named by their ids, so that one made again is not taken for the old one.
const FETCH_BY_ID_VERSION: i16 = 13;
const FETCH_BY_NAME_VERSION: i16 = 12;
const LIST_OFFSETS_VERSION: i16 = 5;
/// Of transactions, only what was committed.
const READ_COMMITTED: i8 = 1;
const OLDEST: i64 = -2;
const NEWEST: i64 = -1;
/// Pause where nothing can be read now.
const PAUSE: Duration = Duration::from_millis(200);

/// Where a partition is read.
#[derive(Debug, Clone)]
struct Place {
    /// Of which topic: one that is made again has the same name.
    topic_id: Uuid,
    /// The next record.
    next: From,
    /// The offset after its newest record, as its broker said last.
    end: Option<i64>,
    /// The broker has no such record.
    is_outside: bool,
}

/// What came of a partition.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Which.
    pub partition: Partition,
    /// Its records, in order; they may be none where only something was passed over.
    pub records: Vec<Record>,
    /// What could not be read.
    pub skipped: Vec<Skipped>,
    /// The offset after all of that.
    pub next: i64,
}

/// Reads the partitions of a member.
pub struct Fetcher {
    settings: Arc<Settings>,
    cluster: Cluster,
    places: BTreeMap<Partition, Place>,
    /// Which partition is asked for first, so that each has its turn when an answer is full.
    turn: usize,
}

/// What a broker is asked, and with which connection.
struct Asked {
    broker: i32,
    partitions: Vec<(Partition, i64)>,
}

impl Fetcher {
    /// One that reads nothing yet.
    pub fn new(settings: Arc<Settings>) -> Fetcher {
        Fetcher { cluster: Cluster::new(settings.clone()), settings, places: BTreeMap::new(), turn: 0 }
    }

    /// What is known of the brokers.
    pub fn cluster(&mut self) -> &mut Cluster {
        &mut self.cluster
    }

    /// Reads these partitions from now on, and no others.
    pub fn assign(&mut self, partitions: impl IntoIterator<Item = (Partition, From)>) {
        let place = |(partition, next): (Partition, From)| {
            let topic_id = self.cluster.topics.get(&partition.topic).map_or(Uuid::nil(), |topic| topic.id);
            (partition, Place { topic_id, next, end: None, is_outside: false })
        };
        self.places = partitions.into_iter().map(place).collect();
    }

    /// Partitions, and how many records each has that were not handed out, as far as that is known.
    pub fn lags(&self) -> impl Iterator<Item = (&Partition, Option<i64>)> {
        self.places.iter().map(|(partition, place)| {
            let lag = match (&place.next, place.end) {
                (From::Offset(next), Some(end)) => Some((end - next).max(0)),
                _ => None,
            };
            (partition, lag)
        })
    }

    /// Where each partition is, where that is a number.
    pub fn positions(&self) -> impl Iterator<Item = (&Partition, i64)> {
        self.places.iter().filter_map(|(partition, place)| match place.next {
            From::Offset(next) => Some((partition, next)),
            From::Beginning | From::End => None,
        })
    }

    /// Waits for records, so long as the settings say. **Errors**: brokers can't be reached, or topics are not what they
    /// were: join again.
    pub async fn fetch(&mut self) -> Result<Vec<Fetched>, Error> {
        self.check_topics()?;
        self.resolve().await?;
        self.check_topics()?;
        let asked = self.plan();
        if asked.is_empty() {
            if !self.places.is_empty() {
                // Partitions without a leader.
                self.cluster.refresh().await?;
            }
            tokio::time::sleep(PAUSE).await;
            return Ok(Vec::new());
        }
        let (mut connections, mut failure) = (Vec::new(), None);
        for one in asked {
            match self.cluster.take(one.broker).await {
                Ok(connection) => connections.push((connection, one)),
                Err(error) => failure = Some(error),
            }
        }
        let share = self.settings.fetch_bytes_max / connections.len().max(1);
        let (cluster, settings) = (&self.cluster, &self.settings);
        let answers = connections.into_iter().map(|(mut connection, asked)| async move {
            let answer = ask(&mut connection, &asked, cluster, settings, share).await;
            (connection, asked, answer)
        });
        let answers = join_all(answers).await;
        let mut fetched = Vec::new();
        let mut bytes_left = self.settings.unpacked_bytes_max;
        let mut is_stale = false;
        for (connection, asked, answer) in answers {
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) => {
                    failure = Some(error);
                    continue;
                }
            };
            self.cluster.put_back(asked.broker, connection);
            for (partition, data) in self.sort(answer, &asked) {
                is_stale |= self.take(partition, data, &mut fetched, &mut bytes_left)?;
            }
        }
        // What came is handed out first; who can't be reached is found out about again at the next round.
        if let Some(error) = failure.filter(|_| fetched.is_empty()) {
            self.cluster.refresh().await?;
            return Err(error);
        }
        if is_stale {
            self.cluster.refresh().await?;
            tokio::time::sleep(PAUSE).await;
        }
        Ok(fetched)
    }

    /// Whether topics are those that were assigned; an offset says nothing of another one of the same name.
    fn check_topics(&self) -> Result<(), Error> {
        let known = |partition: &Partition| self.cluster.topics.get(&partition.topic).map(|topic| topic.id);
        match self.places.iter().find(|(partition, place)| is_made_again(place.topic_id, known(partition))) {
            Some((partition, _)) => Err(made_again(partition, ResponseError::InconsistentTopicId)),
            None => Ok(()),
        }
    }

    /// Partitions by the brokers that lead them.
    fn plan(&mut self) -> Vec<Asked> {
        self.turn = self.turn.wrapping_add(1);
        let first = self.turn % self.places.len().max(1);
        let mut asked: BTreeMap<i32, Vec<(Partition, i64)>> = BTreeMap::new();
        let (before, after) = (self.places.iter().take(first), self.places.iter().skip(first));
        for (partition, place) in after.chain(before) {
            let topic = self.cluster.topics.get(&partition.topic);
            let leader = topic.and_then(|topic| topic.leaders.get(&partition.number)).filter(|leader| **leader >= 0);
            if let (Some(leader), From::Offset(next)) = (leader, place.next) {
                asked.entry(*leader).or_default().push((partition.clone(), next));
            }
        }
        asked.into_iter().map(|(broker, partitions)| Asked { broker, partitions }).collect()
    }

    /// The parts of an answer, by the partitions that were asked for.
    fn sort(&self, answer: FetchResponse, asked: &Asked) -> Vec<(Partition, PartitionData)> {
        let mut found = Vec::new();
        for topic in answer.responses {
            let is_it = |name: &Arc<str>| match topic.topic_id.is_nil() {
                true => **name == *topic.topic.as_str(),
                false => self.cluster.topics.get(name).is_some_and(|known| known.id == topic.topic_id),
            };
            let Some(name) = asked.partitions.iter().map(|(one, _)| &one.topic).find(|name| is_it(name)) else {
                continue;
            };
            let of = |data: PartitionData| (Partition { topic: name.clone(), number: data.partition_index }, data);
            found.extend(topic.partitions.into_iter().map(of));
        }
        found
    }

    /// Takes what came of one partition; says whether what is known of the cluster is old.
    fn take(
        &mut self,
        partition: Partition,
        data: PartitionData,
        fetched: &mut Vec<Fetched>,
        bytes_left: &mut usize,
    ) -> Result<bool, Error> {
        let Some(place) = self.places.get_mut(&partition) else { return Ok(false) };
        let From::Offset(next) = place.next else { return Ok(false) };
        if data.high_watermark >= 0 {
            place.end = Some(data.high_watermark);
        }
        match data.error_code.err() {
            None => {}
            Some(ResponseError::OffsetOutOfRange) => {
                // Whether it was cut, or lost its oldest records, `resolve` finds out.
                place.is_outside = true;
                return Ok(false);
            }
            Some(code @ (ResponseError::UnknownTopicId | ResponseError::InconsistentTopicId)) => {
                return Err(made_again(&partition, code));
            }
            Some(code) => {
                debug!(topic = %partition.topic, partition = partition.number, "can't be read now: {code}");
                return Ok(true);
            }
        }
        let aborted = data.aborted_transactions.unwrap_or_default();
        let aborted = aborted.iter().map(|one| (one.producer_id.0, one.first_offset)).collect();
        let bytes = data.records.unwrap_or_default();
        let walked = walk(bytes, next, aborted, bytes_left, self.settings.batch_bytes_max);
        if walked.next > next {
            place.next = From::Offset(walked.next);
            let (records, skipped, next) = (walked.records, walked.skipped, walked.next);
            fetched.push(Fetched { partition, records, skipped, next });
        }
        Ok(false)
    }

    /// Finds numbers for partitions that begin at an end, or have no record where they are.
    pub async fn resolve(&mut self) -> Result<(), Error> {
        let open = |place: &Place| !matches!(place.next, From::Offset(_)) || place.is_outside;
        let unresolved: Vec<(Partition, Place)> = self
            .places
            .iter()
            .filter(|(_, place)| open(place))
            .map(|(one, place)| (one.clone(), place.clone()))
            .collect();
        for (partition, place) in unresolved {
            let Some(leader) = self.leader(&partition) else { continue };
            let ends = self.ends(leader, &partition).await;
            let (oldest, newest) = match ends {
                Ok(ends) => ends,
                Err(error @ Error::Refused { .. }) => {
                    debug!(topic = %partition.topic, partition = partition.number, "its ends are not told: {error}");
                    self.cluster.refresh().await?;
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let has_id = !self.cluster.topic_id(&partition.topic).is_empty();
            let next = match place.next {
                From::Beginning => oldest,
                From::End => newest,
                From::Offset(next) => within(next, oldest, newest, has_id),
            };
            if let From::Offset(before) = place.next {
                let (topic, number) = (&partition.topic, partition.number);
                warn!(%topic, partition = number, before, next, "reading goes on where the partition has records");
            }
            let found = Place { next: From::Offset(next), end: Some(newest), is_outside: false, ..place };
            self.places.insert(partition, found);
        }
        Ok(())
    }

    fn leader(&self, partition: &Partition) -> Option<i32> {
        let topic = self.cluster.topics.get(&partition.topic)?;
        topic.leaders.get(&partition.number).copied().filter(|leader| *leader >= 0)
    }

    /// The offset of a partition's oldest record, and the one after its newest.
    async fn ends(&mut self, leader: i32, partition: &Partition) -> Result<(i64, i64), Error> {
        let mut connection = self.cluster.take(leader).await?;
        let mut ends = [0; 2];
        for (end, timestamp) in ends.iter_mut().zip([OLDEST, NEWEST]) {
            let one = ListOffsetsPartition::default().with_partition_index(partition.number).with_timestamp(timestamp);
            let topic = ListOffsetsTopic::default().with_name(topic_name(&partition.topic)).with_partitions(vec![one]);
            let request = ListOffsetsRequest::default()
                .with_replica_id((-1).into())
                .with_isolation_level(READ_COMMITTED)
                .with_topics(vec![topic]);
            let answer = connection.ask(&request, LIST_OFFSETS_VERSION, "where a partition begins and ends").await?;
            let found = answer.topics.iter().flat_map(|topic| &topic.partitions).next();
            let refused = |code| Error::Refused { what: format!("where {partition} begins and ends"), code };
            let found = found.ok_or_else(|| refused(ResponseError::UnknownTopicOrPartition))?;
            if let Some(code) = found.error_code.err() {
                self.cluster.put_back(leader, connection);
                return Err(refused(code));
            }
            *end = found.offset;
        }
        self.cluster.put_back(leader, connection);
        Ok((ends[0], ends[1]))
    }
}

/// Whether a topic is another one than that which is read, though it has its name. Where brokers have no ids, nobody knows.
fn is_made_again(read: Uuid, known: Option<Uuid>) -> bool {
    known.is_some_and(|known| !known.is_nil() && !read.is_nil() && known != read)
}

fn made_again(partition: &Partition, code: ResponseError) -> Error {
    Error::Refused { what: format!("reading '{}', which was made again", partition.topic), code }
}

/// Where to go on with a partition that has no record at `next`. One that ends before it was cut, or is another one of the
/// same name: where ids tell topics apart it was cut, and what it had was read; else all that is there may be new.
fn within(next: i64, oldest: i64, newest: i64, has_id: bool) -> i64 {
    if next > newest && !has_id { oldest } else { next.clamp(oldest, newest.max(oldest)) }
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

async fn ask(
    connection: &mut Connection,
    asked: &Asked,
    cluster: &Cluster,
    settings: &Settings,
    bytes_max: usize,
) -> Result<FetchResponse, Error> {
    let bytes_max = i32::try_from(bytes_max).unwrap_or(i32::MAX);
    let has_ids =
        asked.partitions.iter().all(|(one, _)| cluster.topics.get(&one.topic).is_some_and(|topic| !topic.id.is_nil()));
    let newest = if has_ids { FETCH_BY_ID_VERSION } else { FETCH_BY_NAME_VERSION };
    let version = connection.version::<FetchRequest>(newest, "records")?;
    let mut topics: HashMap<&Arc<str>, Vec<FetchPartition>> = HashMap::new();
    for (partition, next) in &asked.partitions {
        let one = FetchPartition::default()
            .with_partition(partition.number)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(*next)
            .with_last_fetched_epoch(-1)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(bytes_max);
        topics.entry(&partition.topic).or_default().push(one);
    }
    let topics = topics.into_iter().map(|(name, partitions)| {
        let topic = FetchTopic::default().with_partitions(partitions);
        match cluster.topics.get(name).filter(|_| version >= FETCH_BY_ID_VERSION) {
            Some(known) => topic.with_topic_id(known.id),
            None => topic.with_topic(topic_name(name)),
        }
    });
    let request = FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_wait_ms(settings.fetch_wait_max.as_millis() as i32)
        .with_min_bytes(bytes_max.min(FETCH_BYTES_MIN))
        .with_max_bytes(bytes_max)
        .with_isolation_level(READ_COMMITTED)
        .with_session_epoch(-1)
        .with_topics(topics.collect());
    let answer = connection.ask_as(&request, version, "records", settings.fetch_wait_max + ANSWER_MAX).await?;
    match answer.error_code.err() {
        Some(code) => Err(Error::Refused { what: "reading".to_owned(), code }),
        None => Ok(answer),
    }
}

/// A broker answers before the wait is over once it has so much; each answer costs an append and a commit.
const FETCH_BYTES_MIN: i32 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_goes_on_where_nothing_new_is_missed() {
        for (case, next, has_id, expected) in [
            ("its oldest records are gone", 5, true, 10),
            ("the same without ids", 5, false, 10),
            ("it was cut", 25, true, 20),
            ("it was cut, or is another one", 25, false, 10),
        ] {
            assert_eq!(within(next, 10, 20, has_id), expected, "{case}");
        }
    }

    #[test]
    fn a_topic_that_was_made_again_is_known_by_its_id() {
        let (old, new) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert!(is_made_again(old, Some(new)));
        for known in [Some(old), Some(Uuid::nil()), None] {
            assert!(!is_made_again(old, known), "{known:?}");
        }
        assert!(!is_made_again(Uuid::nil(), Some(new)));
    }
}
