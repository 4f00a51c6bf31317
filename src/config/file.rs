//! Settings as they are typed: the TOML sections, human sizes and durations. Nothing here is checked against anything
//! else, and no default stands here: `defaults.toml` is the one place of the defaults and of their documentation.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::kafka::Kafka;
use super::listen::{Listen, Tls};
use crate::pipeline::settings::Pipeline;

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// Memory of the whole process.
    pub memory_max: Share,
    /// `[[retention]]`
    pub retention: Vec<Retention>,
    /// `[[pipeline]]`
    pub pipeline: Vec<Pipeline>,
    /// `[[kafka]]`
    pub kafka: Vec<Kafka>,
    /// `[server]`
    pub server: Server,
    /// `[listen]`
    pub listen: Listen,
    /// `[limits]`
    pub limits: Limits,
    /// `[ingest]`
    pub ingest: Ingest,
    /// `[storage]`
    pub storage: Storage,
    /// `[query]`
    pub query: Query,
    /// `[log]`
    pub log: Log,
}

/// `[server]`: the two ports and the limits that hold before anybody looks into a body.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Address of the HTTP port.
    pub http: String,
    /// Address of the gRPC port.
    pub grpc: String,
    /// Largest request body.
    pub body_bytes_max: Share,
    /// Largest body after decompression.
    pub decompressed_bytes_max: Share,
    /// Bytes of all requests being read, decoded and kept.
    pub in_flight_bytes_max: Share,
    /// Requests served at once.
    pub requests_max: usize,
    /// Connections of the HTTP port.
    pub connections_max: usize,
    /// Time for the head of a request to arrive.
    #[serde(with = "duration")]
    pub head_timeout: Duration,
    /// Time for a body to arrive.
    #[serde(with = "duration")]
    pub body_timeout: Duration,
    /// Time for running requests to end at shutdown.
    #[serde(with = "duration")]
    pub shutdown_grace: Duration,
    /// Time between two samples of the store's own metrics.
    #[serde(with = "duration")]
    pub sample_every: Duration,
    /// `[server.auth]`
    pub auth: Auth,
    /// `[server.tls]`
    pub tls: Tls,
}

/// `[server.auth]`: who may come in.
#[derive(Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Bearer tokens.
    pub tokens: Vec<String>,
    /// File with a token per line; empty: none.
    pub tokens_file: PathBuf,
    /// Passwords by user name.
    pub users: BTreeMap<String, String>,
}

impl std::fmt::Debug for Auth {
    /// Tells how many there are, never the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth")
            .field("tokens", &self.tokens.len())
            .field("tokens_file", &self.tokens_file)
            .field("users", &self.users.keys())
            .finish()
    }
}

/// `[limits]`: how fast each tenant may send, and of how many streams.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes after decompression; 0: no limit.
    #[serde(with = "size")]
    pub bytes_per_second: usize,
    /// Bytes that may come at once after a while of silence.
    #[serde(with = "size")]
    pub burst_bytes: usize,
    /// Streams that may be active at a time; 0: no limit.
    pub streams_max: usize,
    /// A stream of which nothing came for so long is not active any more.
    #[serde(with = "duration")]
    pub streams_idle: Duration,
}

/// `[ingest]`: limits of lines and fields, and the names that are recognised.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ingest {
    /// Longest line.
    #[serde(with = "size")]
    pub line_bytes_max: usize,
    /// Fields of a line that become columns.
    pub fields_per_line_max: usize,
    /// Longest field name that becomes a column.
    pub field_name_bytes_max: usize,
    /// Field columns of a request.
    pub columns_max: usize,
    /// Bytes of values one request may become.
    pub batch_bytes_max: Share,
    /// Rejected lines told one by one.
    pub rejections_max: usize,
    /// How far in the future a timestamp may lie.
    #[serde(with = "duration")]
    pub future_max: Duration,
    /// Names that hold the time.
    pub timestamp_names: Vec<String>,
    /// Names that hold the level.
    pub level_names: Vec<String>,
    /// Names that hold the service.
    pub service_names: Vec<String>,
    /// Names that only hint at the service.
    pub service_hint_names: Vec<String>,
    /// Names that hold the text for people.
    pub message_names: Vec<String>,
    /// Names that hold the trace id.
    pub trace_id_names: Vec<String>,
    /// Names that hold the span id.
    pub span_id_names: Vec<String>,
}

/// `[storage]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Storage {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Size at which the buffer is flushed.
    pub flush_bytes_max: Share,
    /// Age at which the buffer is flushed.
    #[serde(with = "duration")]
    pub flush_age_max: Duration,
    /// Buffered plus flushing bytes.
    pub buffer_bytes_max: Share,
    /// Footers and indexes of segments kept in memory.
    pub open_bytes_max: Share,
    /// Pages of segments kept unpacked.
    pub page_cache_bytes_max: Share,
    /// Columns of a segment.
    pub columns_max: usize,
    /// Field names known to a tenant.
    pub fields_max: usize,
    /// Segments to which nothing was added for so long are merged.
    #[serde(with = "duration")]
    pub compact_after: Duration,
    /// Segments of this size are not merged any more.
    #[serde(with = "size")]
    pub compact_target_bytes: usize,
    /// Input of one merge.
    #[serde(with = "size")]
    pub merge_bytes_max: usize,
    /// Segments and write-ahead log together; 0: no limit.
    #[serde(with = "size")]
    pub disk_bytes_max: usize,
    /// Which segments go first when they pass it.
    pub quota_order: QuotaOrder,
    /// `s3://bucket/prefix` where segments are kept besides; empty: nowhere.
    pub object_store: String,
    /// URL of its service; empty: AWS's.
    pub object_store_endpoint: String,
    /// Its region; empty: as AWS's variables say.
    pub object_store_region: String,
    /// Its buckets stand in the path, not in the name of the host.
    pub object_store_path_style: bool,
    /// Unencrypted HTTP is spoken with it.
    pub object_store_allow_http: bool,
    /// Local copies of segments that it has; 0: all.
    #[serde(with = "size")]
    pub cache_bytes_max: usize,
}

/// Which segments go first when the disk quota is passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum QuotaOrder {
    /// Those with the oldest records.
    #[default]
    Oldest,
    /// Those that are kept the shortest.
    ShortestKeptFirst,
}

/// `[[retention]]`: what is kept for how long. The match is text here; `storage` reads it.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table with match and keep; in the config file [[retention]] starts one")]
pub struct Retention {
    /// Which records.
    #[serde(default)]
    pub r#match: String,
    /// How long; `None`: for ever.
    #[serde(with = "keep")]
    pub keep: Option<Duration>,
}

/// `[query]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Query {
    /// Deadline of a query.
    #[serde(with = "duration")]
    pub timeout_max: Duration,
    /// Memory of all running queries.
    pub memory_bytes_max: Share,
    /// Rows of one answer.
    pub rows_max: usize,
    /// Bytes that one query reads; 0: no limit.
    #[serde(with = "size")]
    pub scan_bytes_max: usize,
    /// Queries at once.
    pub concurrency_max: usize,
    /// Threads; 0: one per processor.
    pub threads: usize,
    /// Longest SQL text.
    #[serde(with = "size")]
    pub sql_bytes_max: usize,
    /// Slower queries are logged.
    #[serde(with = "duration")]
    pub slow_after: Duration,
}

/// `[log]`: our own logs, on stderr.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Level or directives.
    pub level: String,
    /// Text or JSON.
    pub format: LogFormat,
}

/// How our own logs are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    #[default]
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// A size, or what is chosen for it: `"auto"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Share {
    /// A part of `memory_max`.
    #[default]
    Auto,
    /// So many bytes.
    Bytes(usize),
}

impl Share {
    /// The size that was typed or, in a [`Config`](super::Config), chosen.
    pub fn bytes(self) -> usize {
        match self {
            Share::Bytes(bytes) => bytes,
            Share::Auto => unreachable!("validation chooses every size"),
        }
    }

    /// The size, `chosen` where none was typed.
    pub(super) fn settle(&mut self, chosen: usize) -> usize {
        if *self == Share::Auto {
            *self = Share::Bytes(chosen);
        }
        self.bytes()
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Share, D::Error> {
        size::deserialize_or_auto(from).map(|bytes| bytes.map_or(Share::Auto, Share::Bytes))
    }
}

impl Serialize for Share {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Share::Auto => to.serialize_str(size::AUTO),
            Share::Bytes(bytes) => size::serialize(bytes, to),
        }
    }
}

/// Sizes: `65536` or `"64KiB"`.
pub(super) mod size {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    const UNITS: [(&str, u64); 9] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("B", 1),
    ];

    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a size such as 65536, \"64MiB\" or \"10MB\"")]
    enum Typed {
        Number(u64),
        Text(String),
    }

    /// Stands for a size that is chosen.
    pub const AUTO: &str = "auto";

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
        bytes_of(Typed::deserialize(from)?).map_err(D::Error::custom)
    }

    /// As [`deserialize`]; `None` for `"auto"`.
    pub fn deserialize_or_auto<'de, D: Deserializer<'de>>(from: D) -> Result<Option<usize>, D::Error> {
        match Typed::deserialize(from)? {
            Typed::Text(text) if text.trim() == AUTO => Ok(None),
            typed => bytes_of(typed).map(Some).map_err(D::Error::custom),
        }
    }

    fn bytes_of(typed: Typed) -> Result<usize, String> {
        let bytes = match typed {
            Typed::Number(bytes) => bytes,
            Typed::Text(text) => parse(&text).ok_or_else(|| format!("'{text}' is not a size such as \"64MiB\""))?,
        };
        usize::try_from(bytes).map_err(|_| "size is out of range".to_owned())
    }

    pub fn serialize<S: Serializer>(bytes: &usize, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&print(*bytes))
    }

    /// Reads a size; a text without a unit is a number of bytes.
    pub fn parse(text: &str) -> Option<u64> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = (text[..digits].trim(), text[digits..].trim());
        let factor = match unit {
            "" => 1,
            // "M" and "Mi" are Kubernetes' spelling.
            unit => UNITS.iter().find_map(|(name, factor)| {
                let short = name.strip_suffix('B').filter(|short| !short.is_empty());
                let fits =
                    unit.eq_ignore_ascii_case(name) || short.is_some_and(|short| unit.eq_ignore_ascii_case(short));
                fits.then_some(*factor)
            })?,
        };
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(factor);
        }
        let bytes = number.parse::<f64>().ok()? * factor as f64;
        (bytes.is_finite() && bytes < u64::MAX as f64).then_some(bytes as u64)
    }

    /// Writes a size with the largest binary unit that gives a whole number.
    pub fn print(bytes: usize) -> String {
        let fitting = UNITS[..4].iter().rev().find(|(_, factor)| bytes > 0 && (bytes as u64).is_multiple_of(*factor));
        match fitting {
            Some((unit, factor)) => format!("{}{unit}", bytes as u64 / factor),
            None => format!("{bytes}B"),
        }
    }
}

/// How long to keep: a duration or `"forever"`.
mod keep {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::duration;

    const FOREVER: &str = "forever";

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        let text = String::deserialize(from)?;
        if text.trim() == FOREVER {
            return Ok(None);
        }
        let wrong =
            || D::Error::custom(format!("'{text}' is not a duration such as \"3d\" or \"12h\", nor \"forever\""));
        duration::parse(&text).map(Some).ok_or_else(wrong)
    }

    pub fn serialize<S: Serializer>(keep: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        match keep {
            Some(keep) => to.serialize_str(&duration::print(*keep)),
            None => to.serialize_str(FOREVER),
        }
    }
}

/// Durations: `"10s"`, `"1h 30m"`.
pub(super) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a duration such as \"500ms\", \"10s\" or \"1h 30m\"")]
        enum Typed {
            Text(String),
        }
        let Typed::Text(text) = Typed::deserialize(from)?;
        parse(&text)
            .ok_or_else(|| D::Error::custom(format!("'{text}' is not a duration such as \"10s\" or \"1h 30m\"")))
    }

    pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&print(*duration))
    }

    /// Reads a duration; days are 24 hours.
    pub fn parse(text: &str) -> Option<Duration> {
        if let Some(days) = text.trim().strip_suffix('d').and_then(|days| days.parse::<u64>().ok()) {
            return days.checked_mul(86_400).map(Duration::from_secs);
        }
        let signed: jiff::SignedDuration = text.trim().parse().ok()?;
        Duration::try_from(signed).ok()
    }

    /// Writes a duration as [`parse`] reads it.
    pub fn print(duration: Duration) -> String {
        match jiff::SignedDuration::try_from(duration) {
            Ok(signed) => format!("{signed:#}"),
            Err(_) => format!("{}s", duration.as_secs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        let cases = [
            ("0", Some(0)),
            ("65536", Some(65_536)),
            ("64KiB", Some(65_536)),
            ("64 kib", Some(65_536)),
            ("1.5GiB", Some(3 << 29)),
            ("10MB", Some(10_000_000)),
            ("512Mi", Some(512 << 20)),
            ("2G", Some(2_000_000_000)),
            ("7B", Some(7)),
            ("", None),
            ("MiB", None),
            ("-1", None),
            ("12 apples", None),
            ("99999999999TiB", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(size::parse(text), bytes, "{text}");
        }
        for bytes in [0, 1, 1023, 1024, 1025, 64 << 20, 3 << 29, 10_000_000] {
            assert_eq!(size::parse(&size::print(bytes)), Some(bytes as u64), "{}", size::print(bytes));
        }
        assert_eq!(size::print(64 << 20), "64MiB");
    }

    #[test]
    fn durations_are_read_and_written() {
        let cases = [
            ("10s", Some(Duration::from_secs(10))),
            ("1h 30m", Some(Duration::from_secs(5400))),
            ("1h30m", Some(Duration::from_secs(5400))),
            ("250ms", Some(Duration::from_millis(250))),
            ("3d", Some(Duration::from_secs(3 * 86_400))),
            ("-5s", None),
            ("10", None),
            ("soon", None),
        ];
        for (text, duration) in cases {
            assert_eq!(duration::parse(text), duration, "{text}");
            if let Some(duration) = duration {
                assert_eq!(
                    duration::parse(&duration::print(duration)),
                    Some(duration),
                    "{}",
                    duration::print(duration)
                );
            }
        }
    }
}
