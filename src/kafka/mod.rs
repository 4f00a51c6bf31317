//! A consumer of Kafka: brokers, groups, partitions, record batches. It knows nothing of logs: `server` gives it settings
//! and keeps what it brings. The messages are kafka-protocol's, made of Kafka's own definitions; what is here is how they are
//! used (no library with groups could be had without other features of crates that DataFusion is built on).
//!
//! `connection` and `sasl` speak with one broker, `cluster` knows all of them, `group` is a member's life, `fetch` reads
//! partitions; `assignment`, `batch` and `position` are pure.
//!
//! Invariants: what a broker says is never believed further than its bytes reach; every wait ends; a partition is read from
//! where it is told, and its offset is committed only when told.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;

use crate::error::Kind;

mod assignment;
mod batch;
mod cluster;
mod connection;
mod fetch;
mod group;
pub mod position;
mod sasl;

pub use batch::{Record, Skipped};
pub use cluster::{Cluster, Topics};
pub use connection::Security;
pub use fetch::{Fetched, Fetcher};
pub use group::{Beat, Member};
pub use sasl::{Mechanism, Sasl};

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its number there.
    pub number: i32,
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.number)
    }
}

/// Whom to ask, and as whom.
#[derive(Debug)]
pub struct Settings {
    /// Addresses to start from, `host:port`.
    pub brokers: Vec<String>,
    /// The group that shares the partitions.
    pub group: String,
    /// What this member is called across restarts; empty: it is a new one each time.
    pub instance: String,
    /// What is read.
    pub topics: Topics,
    /// How brokers are spoken to.
    pub security: Security,
    /// A member that was not heard of for so long is taken for dead.
    pub session_timeout: Duration,
    /// How long brokers may gather records for an answer.
    pub fetch_wait_max: Duration,
    /// Bytes of one answer of a broker, as they are packed.
    pub fetch_bytes_max: usize,
    /// Bytes that an answer is unpacked to, beyond which the rest of it waits for the next one.
    pub unpacked_bytes_max: usize,
    /// Bytes that one batch may be unpacked to; a larger one can't be read.
    pub batch_bytes_max: usize,
}

/// Files and names of TLS.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// Who signs brokers' certificates, PEM; empty: those whom the system trusts.
    pub ca: PathBuf,
    /// Our own certificate, PEM; empty: none.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Why brokers did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No broker can be reached.
    #[error("can't connect to '{broker}': {source}")]
    Connect {
        /// Its address.
        broker: String,
        /// The cause.
        source: io::Error,
    },
    /// A connection broke.
    #[error("the connection to '{broker}' broke: {source}")]
    Broken {
        /// Its address.
        broker: String,
        /// The cause.
        source: io::Error,
    },
    /// An answer did not come in time.
    #[error("'{broker}' did not answer {what} within {after:?}")]
    Timeout {
        /// Its address.
        broker: String,
        /// What was asked.
        what: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// An answer is not what the protocol says.
    #[error("the answer of '{broker}' is not understood: {reason}; is it a broker, and does it speak TLS there?")]
    Malformed {
        /// Its address.
        broker: String,
        /// What is wrong.
        reason: String,
    },
    /// Versions of broker and program have nothing in common.
    #[error("'{broker}' speaks no version of {what} that this program knows; it takes Kafka 1.0 to 4.x")]
    Version {
        /// Its address.
        broker: String,
        /// Of which request.
        what: &'static str,
    },
    /// Credentials or certificates are not accepted, or can't be used.
    #[error("{0}")]
    Security(String),
    /// The broker said no.
    #[error("{what} was refused: {code}")]
    Refused {
        /// What was asked, with its object.
        what: String,
        /// Kafka's error.
        code: ResponseError,
    },
}

impl Error {
    /// What can be done about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Security(_) => Kind::Invalid,
            _ => Kind::Unavailable,
        }
    }

    /// The code of a refusal.
    pub fn code(&self) -> Option<ResponseError> {
        match self {
            Error::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}
