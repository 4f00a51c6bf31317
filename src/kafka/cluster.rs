//! The brokers, and which of them leads which partition.
//!
//! Invariant: what is known is as some broker said it last; connections that failed are gone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kafka_protocol::error::ParseResponseErrorCode;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use regex::Regex;
use tracing::debug;
use uuid::Uuid;

use super::connection::Connection;
use super::{Error, Partition, Settings};

/// Newest version of what is asked: 12 is the first one that may leave names out, which is not done here.
const METADATA_VERSION: i16 = 12;
/// Topics that a pattern may take, so that one too wide does not take all memory.
const TOPICS_MAX: usize = 10_000;

/// Which topics are read.
#[derive(Debug, Clone, Default)]
pub struct Topics {
    /// By their names.
    names: Vec<String>,
    /// … or a pattern of theirs.
    patterns: Vec<Regex>,
}

impl Topics {
    /// Names, and where one begins with `^` a pattern. **Errors**: the pattern that is none, and why.
    pub fn new(topics: &[String]) -> Result<Topics, String> {
        let mut found = Topics::default();
        for topic in topics {
            if topic.starts_with('^') {
                found.patterns.push(Regex::new(topic).map_err(|error| format!("'{topic}' is no pattern: {error}"))?);
            } else {
                found.names.push(topic.clone());
            }
        }
        Ok(found)
    }

    /// Those that are named.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    fn wants(&self, name: &str, is_internal: bool) -> bool {
        let by_pattern = || self.patterns.iter().any(|pattern| pattern.is_match(name));
        self.names.iter().any(|one| one == name) || (!is_internal && !name.starts_with("__") && by_pattern())
    }
}

/// A topic as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Topic {
    /// Nil where brokers give none.
    pub id: Uuid,
    /// Which broker leads each partition.
    pub leaders: BTreeMap<i32, i32>,
}

/// What is known of the cluster.
pub struct Cluster {
    settings: Arc<Settings>,
    brokers: HashMap<i32, String>,
    connections: HashMap<i32, Connection>,
    pub(super) topics: BTreeMap<Arc<str>, Topic>,
}

impl Cluster {
    /// Nothing is asked yet.
    pub fn new(settings: Arc<Settings>) -> Cluster {
        Cluster { settings, brokers: HashMap::new(), connections: HashMap::new(), topics: BTreeMap::new() }
    }

    /// Learns of brokers and topics from any broker. **Errors**: why the last one that was asked did not tell.
    pub async fn refresh(&mut self) -> Result<(), Error> {
        let answer = self.ask_any().await?;
        self.brokers =
            answer.brokers.iter().map(|broker| (broker.node_id.0, address(&broker.host, broker.port))).collect();
        let brokers = &self.brokers;
        self.connections.retain(|id, connection| brokers.get(id) == Some(&connection.broker));
        self.topics.clear();
        for topic in answer.topics {
            let Some(name) = topic.name.filter(|name| self.settings.topics.wants(name, topic.is_internal)) else {
                continue;
            };
            if let Some(code) = topic.error_code.err() {
                // It may be made later.
                debug!(topic = name.as_str(), "no such topic now: {code}");
                continue;
            }
            if self.topics.len() == TOPICS_MAX {
                break;
            }
            let leaders = topic.partitions.iter().map(|one| (one.partition_index, one.leader_id.0)).collect();
            self.topics.insert(name.as_str().into(), Topic { id: topic.topic_id, leaders });
        }
        Ok(())
    }

    async fn ask_any(&mut self) -> Result<MetadataResponse, Error> {
        let topics = &self.settings.topics;
        let named = |name: &String| {
            MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_string(name.clone()))))
        };
        let wanted = topics.patterns.is_empty().then(|| topics.names.iter().map(named).collect());
        let request = MetadataRequest::default().with_topics(wanted).with_allow_auto_topic_creation(false);
        let known: Vec<i32> = self.brokers.keys().copied().collect();
        let mut failure = None;
        for broker in known {
            match self.ask_for_metadata(broker, &request).await {
                Ok(answer) => return Ok(answer),
                Err(error) => failure = Some(error),
            }
        }
        for address in &self.settings.brokers {
            let asked = async {
                let mut connection = Connection::open(address, &self.settings.security).await?;
                connection.ask(&request, METADATA_VERSION, "what topics there are").await
            };
            match asked.await {
                Ok(answer) => return Ok(answer),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| Error::Security("no broker is named".to_owned())))
    }

    async fn ask_for_metadata(&mut self, broker: i32, request: &MetadataRequest) -> Result<MetadataResponse, Error> {
        let mut connection = self.take(broker).await?;
        let answer = connection.ask(request, METADATA_VERSION, "what topics there are").await?;
        self.put_back(broker, connection);
        Ok(answer)
    }

    /// A connection to a broker, which is put back when it was used without a failure.
    pub(super) async fn take(&mut self, broker: i32) -> Result<Connection, Error> {
        match (self.connections.remove(&broker), self.brokers.get(&broker)) {
            (Some(connection), _) => Ok(connection),
            (None, Some(address)) => Connection::open(address, &self.settings.security).await,
            (None, None) => Err(Error::Security(format!("broker {broker} leads partitions and is not known"))),
        }
    }

    pub(super) fn put_back(&mut self, broker: i32, connection: Connection) {
        self.connections.insert(broker, connection);
    }

    /// Some broker that is known.
    pub(super) fn any(&self) -> Option<i32> {
        self.connections.keys().next().or_else(|| self.brokers.keys().next()).copied()
    }

    /// The id of a topic; empty where brokers give none, or the topic is not there.
    pub fn topic_id(&self, topic: &str) -> String {
        let found = self.topics.get(topic).filter(|topic| !topic.id.is_nil());
        found.map(|topic| topic.id.as_simple().to_string()).unwrap_or_default()
    }

    /// All partitions that are wanted, in order.
    pub fn partitions(&self) -> Vec<Partition> {
        let of = |(name, topic): (&Arc<str>, &Topic)| {
            let topic_name = name.clone();
            topic
                .leaders
                .keys()
                .map(move |number| Partition { topic: topic_name.clone(), number: *number })
                .collect::<Vec<_>>()
        };
        self.topics.iter().flat_map(of).collect()
    }

    /// Topics that are named and not there.
    pub fn missing(&self) -> Vec<&str> {
        let names = self.settings.topics.names.iter().map(String::as_str);
        names.filter(|name| !self.topics.contains_key(*name)).collect()
    }
}

pub(super) fn address(host: &str, port: i32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_named_or_match() {
        let topics = |list: &[&str]| Topics::new(&list.iter().map(|one| one.to_string()).collect::<Vec<_>>());
        let some = topics(&["logs.app", "^logs\\.(web|api)$", "__own"]).unwrap();
        for (name, is_internal, wanted) in [
            ("logs.app", false, true),
            ("logs.web", false, true),
            ("logs.web2", false, false),
            ("logs.api", true, false),
            ("__own", true, true),
            ("other", false, false),
        ] {
            assert_eq!(some.wants(name, is_internal), wanted, "{name}");
        }
        assert!(!topics(&["^.*"]).unwrap().wants("__consumer_offsets", false));
        assert!(topics(&["^("]).unwrap_err().starts_with("'^(' is no pattern"));
        assert_eq!([address("::1", 9092), address("kafka", 1)], ["[::1]:9092", "kafka:1"]);
    }
}
