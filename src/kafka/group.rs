//! A member of a consumer group, by the classic protocol, which every broker speaks: it joins, shares partitions out when it
//! is the leader, says that it lives, commits and leaves.
//!
//! Invariant: commits carry the generation in which the partitions were given, so that a member that was taken for dead
//! changes nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::error::ParseResponseErrorCode;
use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, FindCoordinatorRequest, GroupId, HeartbeatRequest,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
    TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use tracing::debug;

use super::assignment::{Members, STRATEGIES, share_out};
use super::cluster::{Cluster, address};
use super::connection::{ANSWER_MAX, Connection};
use super::position::Committed;
use super::{Error, Partition, Settings};

/// How long a rebalance waits for members that are busy.
pub const REBALANCE_MAX: Duration = Duration::from_secs(60);
/// Heartbeats in the time after which a member is taken for dead.
const BEATS: u32 = 10;
const PROTOCOL_TYPE: &str = "consumer";
/// Version of subscriptions and assignments: later ones only add what is not needed here.
const SUBSCRIPTION_VERSION: i16 = 0;
/// Newest versions of requests that are spoken: those before the compact encoding, which brokers of all ages know.
const JOIN_VERSION: i16 = 5;
const SYNC_VERSION: i16 = 3;
const HEARTBEAT_VERSION: i16 = 3;
const LEAVE_VERSION: i16 = 2;
const COMMIT_VERSION: i16 = 7;
const COMMITTED_VERSION: i16 = 5;
const COORDINATOR_VERSION: i16 = 3;

/// What a heartbeat was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// All is as it was.
    Steady,
    /// Partitions are shared out anew: join again.
    Rebalancing,
}

/// A member of a group.
pub struct Member {
    settings: Arc<Settings>,
    id: StrBytes,
    generation: i32,
    coordinator: Option<Connection>,
    /// It shares partitions out, so it has to look for new ones.
    pub is_leader: bool,
}

impl Member {
    /// One that has not joined.
    pub fn new(settings: Arc<Settings>) -> Member {
        Member { settings, id: StrBytes::default(), generation: -1, coordinator: None, is_leader: false }
    }

    fn group(&self) -> GroupId {
        GroupId(StrBytes::from_string(self.settings.group.clone()))
    }

    fn instance(&self) -> Option<StrBytes> {
        (!self.settings.instance.is_empty()).then(|| StrBytes::from_string(self.settings.instance.clone()))
    }

    /// How often it should say that it lives.
    pub fn beat_every(&self) -> Duration {
        self.settings.session_timeout / BEATS
    }

    fn refused(&self, what: &str, code: ResponseError) -> Error {
        Error::Refused { what: format!("{what} of group '{}'", self.settings.group), code }
    }

    /// The connection to the group's coordinator. It is taken: who comes to the end of his request puts it back.
    async fn coordinator(&mut self, cluster: &mut Cluster) -> Result<Connection, Error> {
        if let Some(connection) = self.coordinator.take() {
            return Ok(connection);
        }
        let broker = match cluster.any() {
            Some(broker) => broker,
            None => {
                cluster.refresh().await?;
                cluster.any().ok_or_else(|| self.refused("the coordinator", ResponseError::BrokerNotAvailable))?
            }
        };
        let mut connection = cluster.take(broker).await?;
        let request = FindCoordinatorRequest::default().with_key(StrBytes::from_string(self.settings.group.clone()));
        let answer = connection.ask(&request, COORDINATOR_VERSION, "the group's coordinator").await?;
        cluster.put_back(broker, connection);
        if let Some(code) = answer.error_code.err() {
            return Err(self.refused("the coordinator", code));
        }
        Connection::open(&address(&answer.host, answer.port), &self.settings.security).await
    }

    /// Forgets who it is where the group does not know it any more.
    fn heed(&mut self, code: ResponseError) {
        use ResponseError::{FencedInstanceId, UnknownMemberId};
        if matches!(code, UnknownMemberId | FencedInstanceId) {
            self.id = StrBytes::default();
        }
    }

    /// Joins, or joins again; gives the partitions that are its own now. It may take as long as the slowest member.
    pub async fn join(&mut self, cluster: &mut Cluster) -> Result<Vec<Partition>, Error> {
        cluster.refresh().await?;
        let mut coordinator = self.coordinator(cluster).await?;
        let mut joined = self.ask_to_join(&mut coordinator, cluster).await?;
        if joined.error_code.err() == Some(ResponseError::MemberIdRequired) {
            self.id = joined.member_id;
            joined = self.ask_to_join(&mut coordinator, cluster).await?;
        }
        if let Some(code) = joined.error_code.err() {
            self.heed(code);
            return Err(self.refused("joining", code));
        }
        (self.id, self.generation) = (joined.member_id, joined.generation_id);
        self.is_leader = joined.leader == self.id;
        let strategy = joined.protocol_name.unwrap_or_default();
        let shares = if self.is_leader { shares(&strategy, &joined.members, cluster) } else { Vec::new() };
        let request = SyncGroupRequest::default()
            .with_group_id(self.group())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance())
            .with_assignments(shares);
        let version = coordinator.version::<SyncGroupRequest>(SYNC_VERSION, "its share")?;
        let answer = coordinator.ask_as(&request, version, "its share", REBALANCE_MAX + ANSWER_MAX).await?;
        if let Some(code) = answer.error_code.err() {
            self.heed(code);
            return Err(self.refused("sharing", code));
        }
        self.coordinator = Some(coordinator);
        let share = read_assignment(answer.assignment);
        debug!(group = self.settings.group, generation = self.generation, partitions = share.len(), "joined");
        Ok(share)
    }

    async fn ask_to_join(&self, coordinator: &mut Connection, cluster: &Cluster) -> Result<JoinGroupResponse, Error> {
        let topics = cluster.topics.keys().map(|name| name.to_string());
        let topics: std::collections::BTreeSet<String> =
            topics.chain(self.settings.topics.names().iter().cloned()).collect();
        let subscription = ConsumerProtocolSubscription::default()
            .with_topics(topics.into_iter().map(StrBytes::from_string).collect());
        let metadata = versioned(&subscription);
        let offer = |name: &'static str| {
            JoinGroupRequestProtocol::default()
                .with_name(StrBytes::from_static_str(name))
                .with_metadata(metadata.clone())
        };
        let request = JoinGroupRequest::default()
            .with_group_id(self.group())
            .with_session_timeout_ms(self.settings.session_timeout.as_millis() as i32)
            .with_rebalance_timeout_ms(REBALANCE_MAX.as_millis() as i32)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance())
            .with_protocol_type(StrBytes::from_static_str(PROTOCOL_TYPE))
            .with_protocols(STRATEGIES.map(offer).to_vec());
        let version = coordinator.version::<JoinGroupRequest>(JOIN_VERSION, "to join")?;
        let wait = REBALANCE_MAX.max(self.settings.session_timeout) + ANSWER_MAX;
        coordinator.ask_as(&request, version, "to join the group", wait).await
    }

    /// Says that it lives. **Errors**: the member has to join again.
    pub async fn beat(&mut self) -> Result<Beat, Error> {
        let Some(mut coordinator) = self.coordinator.take() else {
            return Err(self.refused("a heartbeat", ResponseError::CoordinatorNotAvailable));
        };
        let request = HeartbeatRequest::default()
            .with_group_id(self.group())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance());
        let answer = coordinator.ask(&request, HEARTBEAT_VERSION, "a heartbeat").await?;
        match answer.error_code.err() {
            None | Some(ResponseError::RebalanceInProgress) => {
                self.coordinator = Some(coordinator);
                Ok(if answer.error_code.is_ok() { Beat::Steady } else { Beat::Rebalancing })
            }
            Some(code) => {
                self.heed(code);
                Err(self.refused("a heartbeat", code))
            }
        }
    }

    /// Commits: of each partition the first record that was not kept, with a note. **Errors**: nothing, or not all, was
    /// committed; the member has to join again.
    pub async fn commit(&mut self, offsets: &[(Partition, i64, String)]) -> Result<(), Error> {
        let Some(mut coordinator) = self.coordinator.take() else {
            return Err(self.refused("a commit", ResponseError::CoordinatorNotAvailable));
        };
        let mut topics: BTreeMap<&Arc<str>, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
        for (partition, next, note) in offsets {
            let one = OffsetCommitRequestPartition::default()
                .with_partition_index(partition.number)
                .with_committed_offset(*next)
                .with_committed_metadata(Some(StrBytes::from_string(note.clone())));
            topics.entry(&partition.topic).or_default().push(one);
        }
        let topics = topics.into_iter().map(|(topic, partitions)| {
            OffsetCommitRequestTopic::default().with_name(topic_name(topic)).with_partitions(partitions)
        });
        let request = OffsetCommitRequest::default()
            .with_group_id(self.group())
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance())
            .with_topics(topics.collect());
        let answer = coordinator.ask(&request, COMMIT_VERSION, "a commit").await?;
        let codes = answer.topics.iter().flat_map(|topic| &topic.partitions).filter_map(|one| one.error_code.err());
        // A rebalance that goes on takes commits still, and says so only later.
        match codes.clone().find(|code| *code != ResponseError::RebalanceInProgress).or(codes.clone().next()) {
            None => {
                self.coordinator = Some(coordinator);
                Ok(())
            }
            Some(code) => {
                self.heed(code);
                if code == ResponseError::RebalanceInProgress {
                    self.coordinator = Some(coordinator);
                }
                Err(self.refused("a commit", code))
            }
        }
    }

    /// What the group committed of partitions; what it never did is absent.
    pub async fn committed(&mut self, partitions: &[Partition]) -> Result<HashMap<Partition, Committed>, Error> {
        let Some(mut coordinator) = self.coordinator.take() else {
            return Err(self.refused("what was committed", ResponseError::CoordinatorNotAvailable));
        };
        let mut topics: BTreeMap<&Arc<str>, Vec<i32>> = BTreeMap::new();
        partitions.iter().for_each(|one| topics.entry(&one.topic).or_default().push(one.number));
        let topics = topics.into_iter().map(|(topic, numbers)| {
            OffsetFetchRequestTopic::default().with_name(topic_name(topic)).with_partition_indexes(numbers)
        });
        let request = OffsetFetchRequest::default().with_group_id(self.group()).with_topics(Some(topics.collect()));
        let answer = coordinator.ask(&request, COMMITTED_VERSION, "what was committed").await?;
        let of_partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
        let mut codes = of_partitions.map(|one| one.error_code).chain([answer.error_code]);
        if let Some(code) = codes.find_map(|code| code.err()) {
            return Err(self.refused("what was committed", code));
        }
        self.coordinator = Some(coordinator);
        let mut found = HashMap::new();
        for topic in &answer.topics {
            let name: Arc<str> = topic.name.as_str().into();
            for one in topic.partitions.iter().filter(|one| one.committed_offset >= 0) {
                let note = one.metadata.as_ref().map(|note| note.to_string()).unwrap_or_default();
                let partition = Partition { topic: name.clone(), number: one.partition_index };
                found.insert(partition, Committed { offset: one.committed_offset, note });
            }
        }
        Ok(found)
    }

    /// Leaves, so that others need not wait until it is taken for dead; one that comes back under its own name stays.
    pub async fn leave(&mut self) -> Result<(), Error> {
        let Some(mut coordinator) = self.coordinator.take().filter(|_| self.settings.instance.is_empty()) else {
            return Ok(());
        };
        let request = LeaveGroupRequest::default().with_group_id(self.group()).with_member_id(self.id.clone());
        let answer = coordinator.ask(&request, LEAVE_VERSION, "to leave the group").await?;
        self.id = StrBytes::default();
        answer.error_code.err().map_or(Ok(()), |code| Err(self.refused("leaving", code)))
    }
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// A message of members among themselves, with its version before it.
fn versioned(message: &impl Encodable) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(SUBSCRIPTION_VERSION);
    message.encode(&mut bytes, SUBSCRIPTION_VERSION).expect("lists of short names have an encoding");
    bytes.freeze()
}

/// Reads such a message; a version that is later than ours begins as ours does.
fn read_versioned<M: Decodable>(mut bytes: Bytes) -> Option<M> {
    let version = bytes.try_get_i16().ok()?;
    M::decode(&mut bytes, version.clamp(0, SUBSCRIPTION_VERSION)).ok()
}

fn read_assignment(bytes: Bytes) -> Vec<Partition> {
    let Some(assignment) = read_versioned::<ConsumerProtocolAssignment>(bytes) else { return Vec::new() };
    let mut share = Vec::new();
    for topic in assignment.assigned_partitions {
        let name: Arc<str> = topic.topic.as_str().into();
        share.extend(topic.partitions.into_iter().map(|number| Partition { topic: name.clone(), number }));
    }
    share.sort();
    share
}

/// What the leader tells all members.
fn shares(strategy: &str, members: &[JoinGroupResponseMember], cluster: &Cluster) -> Vec<SyncGroupRequestAssignment> {
    let wants = |member: &JoinGroupResponseMember| {
        let subscription = read_versioned::<ConsumerProtocolSubscription>(member.metadata.clone());
        let topics = subscription.map(|one| one.topics).unwrap_or_default();
        (member.member_id.to_string(), topics.iter().map(|topic| topic.to_string()).collect())
    };
    let members: Members = members.iter().map(wants).collect();
    let counts = cluster.topics.iter().map(|(name, topic)| (name.clone(), topic.leaders.len() as i32)).collect();
    let shares = share_out(strategy, &members, &counts);
    let share = |(member, partitions): (String, Vec<Partition>)| {
        let mut topics: BTreeMap<Arc<str>, Vec<i32>> = BTreeMap::new();
        partitions.into_iter().for_each(|one| topics.entry(one.topic).or_default().push(one.number));
        let assigned = topics
            .into_iter()
            .map(|(topic, numbers)| TopicPartition::default().with_topic(topic_name(&topic)).with_partitions(numbers));
        let assignment = ConsumerProtocolAssignment::default().with_assigned_partitions(assigned.collect());
        SyncGroupRequestAssignment::default()
            .with_member_id(StrBytes::from_string(member))
            .with_assignment(versioned(&assignment))
    };
    shares.into_iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_read_as_they_are_written() {
        let topic = |name: &str, numbers: &[i32]| {
            TopicPartition::default().with_topic(topic_name(name)).with_partitions(numbers.to_vec())
        };
        let assigned = vec![topic("b", &[1, 0]), topic("a", &[7])];
        let bytes = versioned(&ConsumerProtocolAssignment::default().with_assigned_partitions(assigned));
        let read: Vec<String> = read_assignment(bytes.clone()).iter().map(Partition::to_string).collect();
        assert_eq!(read, ["a/7", "b/0", "b/1"]);
        // Another member's leader may write a later version, which has more behind it.
        let mut later = bytes.to_vec();
        later[1] = 3;
        later.extend([0, 0, 0, 9]);
        assert_eq!(read_assignment(later.into()).len(), 3);
        for end in 0..bytes.len() {
            assert!(read_assignment(bytes.slice(..end)).len() <= 3);
        }
    }
}
