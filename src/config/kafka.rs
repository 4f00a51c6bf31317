//! `[[kafka]]`: topics that are read, as they are typed, and what can be checked of them alone. Their defaults stand here, for
//! a section that may come several times has none in `defaults.toml`; that file documents them, and a test compares.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::file::{duration, size};
use super::{Error, address, setting};

/// Shortest time after which brokers take a member for dead, as far as this program cares; theirs is 6 s by default.
const SESSION_TIMEOUT_MIN: Duration = Duration::from_secs(1);
const SESSION_TIMEOUT_MAX: Duration = Duration::from_secs(30 * 60);
const FETCH_WAIT_MAX: Duration = Duration::from_secs(5);
const FETCH_BYTES_MIN: usize = 16 << 10;
/// Kafka's own limit of names.
const NAME_BYTES_MAX: usize = 249;

/// A source: topics of one cluster, read as a member of one group.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
#[serde(
    deny_unknown_fields,
    default,
    expecting = "a table with brokers and topics; in the config file [[kafka]] starts one"
)]
pub struct Kafka {
    /// Addresses to start from.
    pub brokers: Vec<String>,
    /// Names; patterns where they begin with `^`.
    pub topics: Vec<String>,
    /// The group that shares the partitions.
    pub group: String,
    /// What this store is called in the group; empty: it is a new member at each start.
    pub instance: String,
    /// Where a group that read nothing yet begins.
    pub start: Start,
    /// What the records are.
    pub format: Format,
    /// What becomes a field beside them.
    pub fields: Vec<KafkaField>,
    /// Whose these logs are.
    pub tenant: String,
    /// Brokers speak TLS.
    pub tls: bool,
    /// Who signs their certificates; empty: those whom the system trusts.
    pub tls_ca: PathBuf,
    /// Our own certificate; empty: none.
    pub tls_cert: PathBuf,
    /// Its key.
    pub tls_key: PathBuf,
    /// How credentials are shown.
    pub sasl: SaslMechanism,
    /// Who we are.
    pub user: String,
    /// What shows it.
    pub password: String,
    /// A file that holds the password.
    pub password_file: PathBuf,
    /// A variable of the environment that holds it.
    pub password_variable: String,
    /// A member that was not heard of for so long is taken for dead.
    #[serde(with = "duration")]
    pub session_timeout: Duration,
    /// How long brokers may gather records for an answer.
    #[serde(with = "duration")]
    pub fetch_wait_max: Duration,
    /// Bytes of one answer, as they are packed.
    #[serde(with = "size")]
    pub fetch_bytes_max: usize,
}

/// Where a new group begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// With all that is there.
    Earliest,
    /// With what comes from then on.
    Latest,
}

/// What records are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// What they look like.
    Auto,
    /// JSON.
    Json,
    /// OTLP, as protobuf or JSON.
    Otlp,
    /// Lines.
    Text,
}

/// What becomes a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KafkaField {
    /// `kafka.topic`
    Topic,
    /// `kafka.partition`
    Partition,
    /// `kafka.offset`
    Offset,
    /// `kafka.key`
    Key,
    /// `kafka.header.NAME`
    Headers,
}

/// How credentials are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum SaslMechanism {
    /// Not at all.
    #[serde(rename = "none")]
    None,
    /// PLAIN
    #[serde(rename = "plain")]
    Plain,
    /// SCRAM-SHA-256
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// SCRAM-SHA-512
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
}

impl Default for Kafka {
    fn default() -> Self {
        Kafka {
            brokers: Vec::new(),
            topics: Vec::new(),
            group: "quiver".to_owned(),
            instance: String::new(),
            start: Start::Earliest,
            format: Format::Auto,
            fields: vec![KafkaField::Topic, KafkaField::Partition, KafkaField::Key, KafkaField::Headers],
            tenant: "default".to_owned(),
            tls: false,
            tls_ca: PathBuf::new(),
            tls_cert: PathBuf::new(),
            tls_key: PathBuf::new(),
            sasl: SaslMechanism::None,
            user: String::new(),
            password: String::new(),
            password_file: PathBuf::new(),
            password_variable: String::new(),
            session_timeout: Duration::from_secs(30),
            fetch_wait_max: Duration::from_millis(200),
            fetch_bytes_max: 1 << 20,
        }
    }
}

impl fmt::Debug for Kafka {
    /// Tells no password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka")
            .field("brokers", &self.brokers)
            .field("topics", &self.topics)
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

impl Kafka {
    /// Makes what is secret unreadable.
    pub(super) fn mask(&mut self) {
        if !self.password.is_empty() {
            self.password = "***".to_owned();
        }
    }

    /// Reads the password from where it is kept, and checks the whole section.
    pub(super) fn check(&mut self, variable: impl Fn(&str) -> Option<String>) -> Result<(), Error> {
        if self.brokers.is_empty() {
            return Err(setting("kafka.brokers", "must name a broker such as \"kafka-1:9092\""));
        }
        for broker in &mut self.brokers {
            *broker = address("kafka.brokers", broker)?;
        }
        self.check_names()?;
        if !(SESSION_TIMEOUT_MIN..=SESSION_TIMEOUT_MAX).contains(&self.session_timeout) {
            return Err(setting(
                "kafka.session_timeout",
                "must be from 1s to 30m, and what the brokers allow (from 6s)",
            ));
        }
        if self.fetch_wait_max.is_zero() || self.fetch_wait_max > FETCH_WAIT_MAX {
            return Err(setting("kafka.fetch_wait_max", "must be more than 0, and at most 5s"));
        }
        if self.fetch_bytes_max < FETCH_BYTES_MIN {
            return Err(setting("kafka.fetch_bytes_max", "must be at least 16KiB"));
        }
        self.check_tls()?;
        self.check_sasl(variable)
    }

    fn check_names(&self) -> Result<(), Error> {
        if self.topics.is_empty() {
            return Err(setting("kafka.topics", "must name a topic, or a pattern of topics such as \"^logs\\\\..*\""));
        }
        let is_name = |name: &str| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
            (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(fits)
        };
        if let Some(topic) = self.topics.iter().find(|topic| !topic.starts_with('^') && !is_name(topic)) {
            let message = format!("'{topic}' is no name of a topic; a pattern of names begins with '^'");
            return Err(setting("kafka.topics", message));
        }
        if self.group.is_empty() || self.group.len() > NAME_BYTES_MAX {
            return Err(setting("kafka.group", "must be a name of at most 249 bytes"));
        }
        if !self.instance.is_empty() && !is_name(&self.instance) {
            return Err(setting(
                "kafka.instance",
                format!("'{}' is no name of letters, digits, '.', '_', '-'", self.instance),
            ));
        }
        Ok(())
    }

    fn check_tls(&self) -> Result<(), Error> {
        let is_set = |path: &PathBuf| !path.as_os_str().is_empty();
        if is_set(&self.tls_cert) != is_set(&self.tls_key) {
            return Err(setting("kafka.tls_key", "a certificate needs its key, and a key its certificate"));
        }
        if !self.tls && (is_set(&self.tls_ca) || is_set(&self.tls_cert)) {
            return Err(setting("kafka.tls", "must be true where certificates are named"));
        }
        Ok(())
    }

    fn check_sasl(&mut self, variable: impl Fn(&str) -> Option<String>) -> Result<(), Error> {
        let has_file = !self.password_file.as_os_str().is_empty();
        let ways = [!self.password.is_empty(), has_file, !self.password_variable.is_empty()];
        if ways.iter().filter(|way| **way).count() > 1 {
            return Err(setting(
                "kafka.password",
                "is also in kafka.password_file or kafka.password_variable; choose one",
            ));
        }
        if has_file {
            let path = &self.password_file;
            let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.clone(), source })?;
            self.password = text.trim_end_matches(['\r', '\n']).to_owned();
        }
        if !self.password_variable.is_empty() {
            let absent = || setting("kafka.password_variable", format!("'{}' is not set", self.password_variable));
            self.password = variable(&self.password_variable).ok_or_else(absent)?;
        }
        let is_known = !self.user.is_empty() && !self.password.is_empty();
        match self.sasl {
            SaslMechanism::None if !self.user.is_empty() || !self.password.is_empty() => {
                Err(setting("kafka.sasl", "must be plain, scram-sha-256 or scram-sha-512 where a user is named"))
            }
            SaslMechanism::None => Ok(()),
            _ if is_known => Ok(()),
            _ => Err(setting("kafka.user", "kafka.sasl needs a user and a password")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The commented section of `defaults.toml`.
    #[test]
    fn the_documented_defaults_are_these() {
        let lines = super::super::DEFAULTS.lines().skip_while(|line| *line != "#   [[kafka]]").skip(1);
        let section: String =
            lines.map_while(|line| line.strip_prefix("#   ")).map(|line| format!("{line}\n")).collect();
        let mut documented: Kafka = toml::from_str(&section).unwrap();
        assert!(!documented.brokers.is_empty() && !documented.topics.is_empty());
        let printed: toml::Table = section.parse().unwrap();
        assert_eq!(printed.len(), toml::Table::try_from(&documented).unwrap().len(), "every setting is documented");
        (documented.brokers, documented.topics) = (vec![], vec![]);
        assert!(documented == Kafka::default(), "{section}");
    }
}
