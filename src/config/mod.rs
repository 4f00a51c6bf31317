//! Settings in two steps: typed ([`file`], what was written) → validated ([`Config`], what is in force).
//! It knows no other module but how pipelines are typed: `server` hands each part its share.
//!
//! Invariant: a [`Config`] was checked as a whole; no setting is read from anywhere else.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use crate::pipeline::settings::Pipeline;

mod file;
mod kafka;
mod listen;
mod memory;

pub use file::{Auth, File, Ingest, Limits, Log, LogFormat, Query, QuotaOrder, Retention, Server, Share, Storage};
pub use kafka::{Format, Kafka, KafkaField, SaslMechanism, Start};
pub use listen::{Forward, Gelf, Listen, Syslog, Tls};

/// The documented defaults, as a file that can be edited.
pub const DEFAULTS: &str = include_str!("defaults.toml");

/// Why settings can't be used; the text says where the mistake stands.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file can't be read.
    #[error("cannot read '{}': {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A mistake in the file's text.
    #[error("{}:{line}: {message}", path.display())]
    Typed {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A mistake in a variable or a flag.
    #[error("{origin}: {message}")]
    Given {
        /// The variable or flag.
        origin: String,
        /// What is wrong.
        message: String,
    },
    /// A value that can't be, alone or beside the others.
    #[error("setting '{setting}': {message}")]
    Setting {
        /// Its dotted name.
        setting: &'static str,
        /// What is wrong, and what would be right.
        message: String,
    },
}

/// Flags that set something; every one overrides the file and the environment.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Flags {
    /// Config file (TOML); `quiver check --defaults` prints one to start from
    #[arg(long, value_name = "FILE", env = "QUIVER_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where everything is kept; made when absent [default: ./quiver-data]
    #[arg(long, value_name = "DIR", env = "QUIVER_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of the HTTP port; port 0 takes a free one [default: 127.0.0.1:3100]
    #[arg(long, value_name = "ADDR", env = "QUIVER_HTTP")]
    pub http: Option<String>,
    /// Address of the gRPC port; port 0 takes a free one [default: 127.0.0.1:4317]
    #[arg(long, value_name = "ADDR", env = "QUIVER_GRPC")]
    pub grpc: Option<String>,
    /// Own logs: off, error, warn, info, debug, trace, or directives [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Own logs as text or JSON [default: text on a terminal, else JSON]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Any other setting, e.g. --set storage.flush_age_max=30s (also as QUIVER_STORAGE_FLUSH_AGE_MAX=30s)
    #[arg(long, value_name = "SETTING=VALUE")]
    pub set: Vec<String>,
}

/// What is in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Bytes of the whole process; the sizes below are parts of it.
    pub memory_max: usize,
    /// Ports and limits of requests; tokens of `tokens_file` are among `auth.tokens`.
    pub server: Server,
    /// Sockets beside the two ports.
    pub listen: Listen,
    /// How fast each tenant may send.
    pub limits: Limits,
    /// Limits of lines and fields, names that are recognised.
    pub ingest: Ingest,
    /// Where and when to keep.
    pub storage: Storage,
    /// What is kept for how long; the matches are not read yet.
    pub retention: Vec<Retention>,
    /// What is done to lines before they are decoded; not compiled yet.
    pub pipeline: Vec<Pipeline>,
    /// Topics that are read; passwords are here wherever they were kept. Patterns are not compiled yet.
    pub kafka: Vec<Kafka>,
    /// Limits of queries; `threads` is at least 1.
    pub query: Query,
    /// Own logs.
    pub log: Log,
}

impl Config {
    /// Puts together defaults, file, environment (`variable`) and flags, and checks the whole.
    pub fn load(flags: &Flags, variable: impl Fn(&str) -> Option<String>) -> Result<Config, Error> {
        let mut table = defaults();
        if let Some(path) = &flags.config {
            let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.clone(), source })?;
            overlay(&mut table, parse_file(path, &text)?);
        }
        for setting in setting_names() {
            let name = variable_name(&setting);
            if let Some(text) = variable(&name) {
                overlay(&mut table, given(&name, &setting, &text)?);
            }
        }
        for (flag, setting, text) in flag_settings(flags)? {
            overlay(&mut table, given(&flag, &setting, &text)?);
        }
        let typed = File::deserialize(table)
            .map_err(|error| Error::Given { origin: "settings".to_owned(), message: error.message().to_owned() })?;
        let mut config = validate(typed, memory::available)?;
        config.kafka.iter_mut().try_for_each(|source| source.check(&variable))?;
        Ok(config)
    }

    /// What is in force, as TOML; secrets are masked.
    pub fn to_toml(&self) -> String {
        let mut server = self.server.clone();
        server.auth.tokens.iter_mut().for_each(|token| *token = "***".to_owned());
        server.auth.users.values_mut().for_each(|password| *password = "***".to_owned());
        let mut listen = self.listen.clone();
        listen.mask();
        let mut kafka = self.kafka.clone();
        kafka.iter_mut().for_each(kafka::Kafka::mask);
        let file = File {
            memory_max: Share::Bytes(self.memory_max),
            retention: self.retention.clone(),
            pipeline: self.pipeline.clone(),
            kafka,
            server,
            listen,
            limits: self.limits.clone(),
            ingest: self.ingest.clone(),
            storage: self.storage.clone(),
            query: self.query.clone(),
            log: self.log.clone(),
        };
        toml::to_string(&file).unwrap_or_else(|error| format!("# cannot be printed: {error}\n"))
    }
}

/// The defaults as a table.
fn defaults() -> Table {
    DEFAULTS.parse().expect("defaults.toml is TOML: a test reads it")
}

/// Reads a file's text; the types and names are checked here, where the line is known.
fn parse_file(path: &Path, text: &str) -> Result<Table, Error> {
    let place = |error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = text.get(..start).unwrap_or("").matches('\n').count() + 1;
        Error::Typed { path: path.to_owned(), line, message: explain(error.message()) }
    };
    toml::from_str::<File>(text).map_err(place)?;
    text.parse::<Table>().map_err(place)
}

/// Says it in the words of this program; for an unknown name, with the nearest known one.
fn explain(message: &str) -> String {
    let Some(rest) = message.strip_prefix("unknown field `") else {
        return message.trim().replace('`', "'").replace('\n', "; ");
    };
    let mut names = rest.split('`').step_by(2);
    let unknown = names.next().unwrap_or("");
    let known: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
    let mut text = format!("unknown setting '{unknown}'");
    match nearest(unknown, known.iter().copied()) {
        Some(name) => text.push_str(&format!("; did you mean '{name}'?")),
        None => text.push_str(&format!("; known here: {}", known.join(", "))),
    }
    text
}

/// The known name that `name` was probably meant to be.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.map(|other| (strsim::jaro_winkler(name, other), other));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > 0.75).then_some(best.1)
}

/// Lays `over` onto `base`: tables are merged, everything else replaces.
fn overlay(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => overlay(below, above),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Dotted names of all settings.
fn setting_names() -> Vec<String> {
    fn walk(table: &Table, prefix: &str, names: &mut Vec<String>) {
        for (key, value) in table {
            let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match value {
                Value::Table(inner) if !inner.is_empty() => walk(inner, &name, names),
                _ => names.push(name),
            }
        }
    }
    let mut names = Vec::new();
    walk(&defaults(), "", &mut names);
    names
}

/// `storage.flush_age_max` → `QUIVER_STORAGE_FLUSH_AGE_MAX`
fn variable_name(setting: &str) -> String {
    format!("QUIVER_{}", setting.replace('.', "_").to_uppercase())
}

/// A value that came as text from a variable or a flag, checked alone so that the message can name its origin.
fn given(origin: &str, setting: &str, text: &str) -> Result<Table, Error> {
    let wrong = |message: String| Error::Given { origin: origin.to_owned(), message };
    let mut default = Value::Table(defaults());
    for key in setting.split('.') {
        default = match default.as_table_mut().and_then(|table| table.remove(key)) {
            Some(value) => value,
            None => {
                let names = setting_names();
                let near = nearest(setting, names.iter().map(String::as_str));
                let hint = near.map_or(String::new(), |name| format!("; did you mean '{name}'?"));
                return Err(wrong(format!("unknown setting '{setting}'{hint}")));
            }
        };
    }
    let items = || text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let value = match default {
        Value::Integer(_) => {
            Value::Integer(text.trim().parse().map_err(|_| wrong(format!("'{text}' is not a number")))?)
        }
        Value::Boolean(_) => {
            Value::Boolean(text.trim().parse().map_err(|_| wrong(format!("'{text}' is neither true nor false")))?)
        }
        Value::Array(_) => Value::Array(items().map(Value::from).collect()),
        Value::Table(_) => {
            let pairs =
                items().map(|item| item.split_once(':').map(|(name, value)| (name.to_owned(), Value::from(value))));
            Value::Table(pairs.collect::<Option<_>>().ok_or_else(|| wrong("expected name:value, …".to_owned()))?)
        }
        _ => Value::from(text),
    };
    let table = setting.rsplit('.').fold(value, |inner, key| Value::Table(Table::from_iter([(key.to_owned(), inner)])));
    let Value::Table(table) = table else { return Err(wrong(format!("unknown setting '{setting}'"))) };
    File::deserialize(table.clone()).map_err(|error| wrong(error.message().to_owned()))?;
    Ok(table)
}

/// The flags as (flag, setting, text).
fn flag_settings(flags: &Flags) -> Result<Vec<(String, String, String)>, Error> {
    let format = flags.log_format.map(|format| format!("{format:?}").to_lowercase());
    let data_dir = flags.data_dir.as_ref().map(|path| path.to_string_lossy().into_owned());
    let named = [
        ("--data-dir", "storage.data_dir", data_dir),
        ("--http", "server.http", flags.http.clone()),
        ("--grpc", "server.grpc", flags.grpc.clone()),
        ("--log-level", "log.level", flags.log_level.clone()),
        ("--log-format", "log.format", format),
    ];
    let named =
        named.into_iter().filter_map(|(flag, setting, text)| Some((flag.to_owned(), setting.to_owned(), text?)));
    let mut settings: Vec<_> = named.collect();
    for pair in &flags.set {
        let Some((setting, text)) = pair.split_once('=') else {
            let message = format!("'{pair}' is not SETTING=VALUE, e.g. storage.flush_age_max=30s");
            return Err(Error::Given { origin: "--set".to_owned(), message });
        };
        settings.push((format!("--set {setting}"), setting.trim().to_owned(), text.to_owned()));
    }
    Ok(settings)
}

/// Typed → validated. `available` tells the memory there is, in bytes.
fn validate(mut typed: File, available: impl FnOnce() -> usize) -> Result<Config, Error> {
    let memory_max = memory::share_out(&mut typed, available)?;
    let server = &mut typed.server;
    server.http = address("server.http", &server.http)?;
    server.grpc = address("server.grpc", &server.grpc)?;
    if server.http == server.grpc && !server.http.ends_with(":0") {
        return Err(setting("server.grpc", format!("'{}' is also server.http; they are two ports", server.grpc)));
    }
    check_auth(&mut server.auth)?;
    listen::check_server_tls(&server.tls)?;
    typed.listen.check()?;
    let positive = [
        ("server.body_bytes_max", server.body_bytes_max.bytes()),
        ("server.decompressed_bytes_max", server.decompressed_bytes_max.bytes()),
        ("server.requests_max", server.requests_max),
        ("server.connections_max", server.connections_max),
        ("limits.burst_bytes", typed.limits.burst_bytes),
        ("ingest.line_bytes_max", typed.ingest.line_bytes_max),
        ("ingest.batch_bytes_max", typed.ingest.batch_bytes_max.bytes()),
        ("storage.flush_bytes_max", typed.storage.flush_bytes_max.bytes()),
        ("storage.columns_max", typed.storage.columns_max),
        ("storage.compact_target_bytes", typed.storage.compact_target_bytes),
        ("storage.merge_bytes_max", typed.storage.merge_bytes_max),
        ("storage.fields_max", typed.storage.fields_max),
        ("query.memory_bytes_max", typed.query.memory_bytes_max.bytes()),
        ("query.rows_max", typed.query.rows_max),
        ("query.concurrency_max", typed.query.concurrency_max),
        ("query.sql_bytes_max", typed.query.sql_bytes_max),
    ];
    if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
        return Err(setting(name, "must be more than 0"));
    }
    // A body takes its compressed and its decompressed size; one that could never be taken would be retried for ever.
    let in_flight = server.in_flight_bytes_max.bytes();
    if in_flight < server.body_bytes_max.bytes().saturating_add(server.decompressed_bytes_max.bytes()) {
        let message = "must be at least server.body_bytes_max + server.decompressed_bytes_max";
        return Err(setting("server.in_flight_bytes_max", message));
    }
    // The permits of a tokio semaphore, one for each KiB.
    if in_flight / 1024 > u32::MAX as usize {
        return Err(setting("server.in_flight_bytes_max", "must be less than 4TiB"));
    }
    if typed.storage.buffer_bytes_max.bytes() < typed.storage.flush_bytes_max.bytes() {
        return Err(setting("storage.buffer_bytes_max", "must be at least storage.flush_bytes_max"));
    }
    if typed.storage.data_dir.as_os_str().is_empty() {
        return Err(setting("storage.data_dir", "must name a directory"));
    }
    check_object_store(&typed.storage)?;
    if server.head_timeout.is_zero() {
        return Err(setting("server.head_timeout", "must be more than 0"));
    }
    if server.sample_every.is_zero() {
        return Err(setting("server.sample_every", "must be more than 0"));
    }
    if typed.query.timeout_max.is_zero() {
        return Err(setting("query.timeout_max", "must be more than 0"));
    }
    if typed.limits.streams_idle.is_zero() || i64::try_from(typed.limits.streams_idle.as_nanos()).is_err() {
        return Err(setting("limits.streams_idle", "must be more than 0 and less than 292 years"));
    }
    if i64::try_from(typed.ingest.future_max.as_nanos()).is_err() {
        return Err(setting("ingest.future_max", "must be less than 292 years"));
    }
    if typed.query.threads == 0 {
        typed.query.threads = std::thread::available_parallelism().map_or(1, usize::from);
    }
    memory::check_sum(&typed, memory_max)?;
    let File { retention, pipeline, kafka, server, listen, limits, ingest, storage, query, log, .. } = typed;
    Ok(Config { memory_max, server, listen, limits, ingest, storage, retention, pipeline, kafka, query, log })
}

fn check_object_store(storage: &Storage) -> Result<(), Error> {
    let is_s3 = storage.object_store.strip_prefix("s3://").is_some_and(|rest| !rest.is_empty());
    if !storage.object_store.is_empty() && !is_s3 {
        let message = format!("'{}' is not s3://bucket/prefix", storage.object_store);
        return Err(setting("storage.object_store", message));
    }
    if storage.object_store.is_empty() && storage.cache_bytes_max > 0 {
        let message = "needs storage.object_store: without it the local files are the only ones";
        return Err(setting("storage.cache_bytes_max", message));
    }
    if storage.object_store_endpoint.starts_with("http://") && !storage.object_store_allow_http {
        let message = "is unencrypted; set storage.object_store_allow_http if it may be";
        return Err(setting("storage.object_store_endpoint", message));
    }
    Ok(())
}

fn setting(setting: &'static str, message: impl fmt::Display) -> Error {
    Error::Setting { setting, message: message.to_string() }
}

/// Checks `host:port`; a missing host means every interface, as elsewhere.
fn address(name: &'static str, text: &str) -> Result<String, Error> {
    let text = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.trim().to_owned() };
    let port = text.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port)?.parse::<u16>().ok());
    if port.is_none() || (text.starts_with('[') && text.parse::<SocketAddr>().is_err()) {
        return Err(setting(name, format!("'{text}' is not an address such as 127.0.0.1:3100")));
    }
    Ok(text)
}

/// Checks users and tokens, and reads the file of tokens.
fn check_auth(auth: &mut Auth) -> Result<(), Error> {
    if !auth.tokens_file.as_os_str().is_empty() {
        let path = &auth.tokens_file;
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.clone(), source })?;
        let tokens: Vec<String> =
            text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
        if tokens.is_empty() {
            return Err(setting("server.auth.tokens_file", format!("'{}' has no token", path.display())));
        }
        auth.tokens.extend(tokens);
    }
    let visible = |text: &String| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !auth.tokens.iter().all(visible) {
        return Err(setting("server.auth.tokens", "a token must be visible ASCII without blanks"));
    }
    if let Some(name) = auth.users.keys().find(|name| name.is_empty() || name.contains(':')) {
        return Err(setting("server.auth.users", format!("'{name}' can't be a user: it is empty or has a ':'")));
    }
    if let Some((name, _)) = auth.users.iter().find(|(_, password)| password.is_empty()) {
        return Err(setting("server.auth.users", format!("user '{name}' has no password")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    fn nothing(_: &str) -> Option<String> {
        None
    }

    fn load_text(text: &str) -> Result<Config, Error> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let flags = Flags { config: Some(file.path().to_owned()), ..Flags::default() };
        Config::load(&flags, nothing)
    }

    #[test]
    fn defaults_name_every_setting_and_are_valid() {
        let typed: File = toml::from_str(DEFAULTS).unwrap();
        let printed: Table = toml::to_string(&typed).unwrap().parse().unwrap();
        let mut written = defaults();
        let keys = |table: &Table| -> Vec<String> {
            table
                .iter()
                .flat_map(|(section, inner)| {
                    let none = Table::new();
                    let inner = inner.as_table().unwrap_or(&none).clone();
                    inner.keys().map(|key| format!("{section}.{key}")).collect::<Vec<_>>()
                })
                .collect()
        };
        assert_eq!(keys(&printed), keys(&written));
        let auth = |table: &mut Table| table["server"]["auth"].as_table().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(auth(&mut printed.clone()), auth(&mut written));
        let config = Config::load(&Flags::default(), nothing).unwrap();
        assert_eq!(config.server.http, "127.0.0.1:3100");
        assert!(config.query.threads >= 1);
    }

    #[test]
    fn later_sources_win() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(
            b"[server]\nhttp = \"127.0.0.1:1\"\n[storage]\nflush_age_max = \"1s\"\nflush_bytes_max = \"1MiB\"\n",
        )
        .unwrap();
        let flags = Flags {
            config: Some(file.path().to_owned()),
            http: Some("127.0.0.1:3".to_owned()),
            set: vec!["query.rows_max=7".to_owned()],
            ..Flags::default()
        };
        let config = Config::load(&flags, |name| match name {
            "QUIVER_SERVER_HTTP" => Some("127.0.0.1:2".to_owned()),
            "QUIVER_STORAGE_FLUSH_AGE_MAX" => Some("2s".to_owned()),
            "QUIVER_SERVER_AUTH_TOKENS" => Some("a, b".to_owned()),
            "QUIVER_SERVER_AUTH_USERS" => Some("grafana:secret".to_owned()),
            _ => None,
        });
        let config = config.unwrap();
        assert_eq!(config.server.http, "127.0.0.1:3");
        assert_eq!(config.storage.flush_age_max, Duration::from_secs(2));
        assert_eq!(config.storage.flush_bytes_max.bytes(), 1 << 20);
        assert_eq!(config.query.rows_max, 7);
        assert_eq!(config.server.auth.tokens, ["a", "b"]);
        assert_eq!(config.server.auth.users["grafana"], "secret");
        let printed = config.to_toml();
        assert!(!printed.contains("secret") && printed.contains("***"), "{printed}");
        assert!(!format!("{config:?}").contains("secret"));
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        let config = Config::load(&Flags::default(), nothing).unwrap();
        assert_eq!(load_text(&config.to_toml()).unwrap(), config);
    }

    #[test]
    fn mistakes_are_placed_and_explained() {
        let cases = [
            ("[server]\nhtpp = \"x\"\n", ":2: unknown setting 'htpp'; did you mean 'http'?"),
            ("[servr]\n", ":1: unknown setting 'servr'; did you mean 'server'?"),
            ("[query]\n\nzzz = 1\n", ":3: unknown setting 'zzz'; known here: timeout_max"),
            ("[storage]\nflush_bytes_max = \"64 apples\"\n", ":2: '64 apples' is not a size"),
            ("[storage]\nflush_age_max = 10\n", ":2: "),
            ("[server\n", ":1: "),
            ("[server]\nhttp = \"nowhere\"\n", "setting 'server.http': 'nowhere' is not an address"),
            ("[server]\ngrpc = \"127.0.0.1:3100\"\n", "setting 'server.grpc': '127.0.0.1:3100' is also server.http"),
            ("[[retention]]\nmatch = ''\nkeep = \"soon\"\n", ":3: 'soon' is not a duration such as"),
            ("[[retention]]\nmatsch = ''\nkeep = \"3d\"\n", ":2: unknown setting 'matsch'; did you mean 'match'?"),
            ("[[retention]]\nmatch = ''\n", ":1: missing field 'keep'"),
            ("[storage]\nquota_order = \"newest\"\n", ":2: unknown variant 'newest'"),
            ("[[kafka]]\n", "setting 'kafka.brokers': must name a broker"),
            ("[[kafka]]\nbrokers = [\"kafka\"]\n", "setting 'kafka.brokers': 'kafka' is not an address"),
            ("[[kafka]]\nbrokers = [\"k:1\"]\n", "setting 'kafka.topics': must name a topic"),
            ("[[kafka]]\nbrokers = [\"k:1\"]\ntopics = [\"a b\"]\n", "'a b' is no name of a topic; a pattern"),
            ("[[kafka]]\nformat = \"xml\"\n", ":2: unknown variant 'xml'"),
            ("[[kafka]]\ntopic = \"a\"\n", ":2: unknown setting 'topic'; did you mean 'topics'?"),
            (
                "[[kafka]]\nbrokers = [\"k:1\"]\ntopics = [\"a\"]\nuser = \"u\"\n",
                "setting 'kafka.sasl': must be plain, scram-sha-256",
            ),
            (
                "[[kafka]]\nbrokers = [\"k:1\"]\ntopics = [\"a\"]\nsasl = \"plain\"\nuser = \"u\"\n",
                "setting 'kafka.user': kafka.sasl needs a user and a password",
            ),
            (
                "[[kafka]]\nbrokers = [\"k:1\"]\ntopics = [\"a\"]\npassword_variable = \"NOT_SET\"\n",
                "setting 'kafka.password_variable': 'NOT_SET' is not set",
            ),
            (
                "[[kafka]]\nbrokers = [\"k:1\"]\ntopics = [\"a\"]\ntls_ca = \"ca.pem\"\n",
                "setting 'kafka.tls': must be true",
            ),
            (
                "[[kafka]]\nbrokers = [\"k:1\"]\ntopics = [\"a\"]\nsession_timeout = \"1h\"\n",
                "setting 'kafka.session_timeout': must be from 1s",
            ),
            ("[query]\nrows_max = 0\n", "setting 'query.rows_max': must be more than 0"),
            ("[storage]\nbuffer_bytes_max = 1\n", "setting 'storage.buffer_bytes_max': must be at least"),
            ("memory_max = \"100MiB\"\n", "setting 'memory_max': must be at least 256MiB"),
            ("memory_max = \"much\"\n", ":1: 'much' is not a size"),
            (
                "memory_max = \"1GiB\"\n[query]\nmemory_bytes_max = \"900MiB\"\n",
                "setting 'memory_max': 1GiB has no room for query.memory_bytes_max = 900MiB beside the other parts",
            ),
            ("[server.auth]\ntokens = [\"a b\"]\n", "setting 'server.auth.tokens'"),
            ("[server.tls]\ncert = \"a.pem\"\n", "setting 'server.tls.key': a certificate needs its key"),
            ("[listen.tls]\nclient_ca = \"a.pem\"\n", "setting 'listen.tls.client_ca': needs a certificate"),
            ("[listen.syslog]\nudpp = \":514\"\n", ":2: unknown setting 'udpp'; did you mean 'udp'?"),
            ("[listen.syslog]\nudp = \"514\"\n", "setting 'listen.syslog.udp': '514' is not an address"),
            ("[listen.gelf]\ntls = \":12201\"\n", "setting 'listen.gelf.tls': needs listen.tls.cert"),
            ("[listen.forward.users]\na = \"b\"\n", "setting 'listen.forward.users': needs listen.forward.shared_key"),
            ("[listen]\ngather_max = \"2s\"\n", "setting 'listen.gather_max': must be at most 1s"),
            ("[server.auth.users]\ngrafana = \"\"\n", "user 'grafana' has no password"),
            ("[server.auth]\ntokens_file = \"/does/not/exist\"\n", "cannot read '/does/not/exist'"),
        ];
        for (text, expected) in cases {
            let error = load_text(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{text:?} gave: {error}");
        }
    }

    #[test]
    fn rules_of_retention_are_read_in_order() {
        let text = "[[retention]]\nmatch = 'level = \"debug\"'\nkeep = \"3d\"\n[[retention]]\nkeep = \"forever\"\n";
        let config = load_text(text).unwrap();
        let rule = |text: &str, keep| Retention { r#match: text.to_owned(), keep };
        let three_days = Duration::from_secs(3 * 86_400);
        assert_eq!(config.retention, [rule("level = \"debug\"", Some(three_days)), rule("", None)]);
        assert_eq!(load_text(&config.to_toml()).unwrap(), config);
        let flags = Flags { set: vec!["retention=3d".to_owned()], ..Flags::default() };
        let error = Config::load(&flags, nothing).unwrap_err().to_string();
        assert!(error.contains("[[retention]]"), "{error}");
    }

    #[test]
    fn a_mistake_in_a_flag_or_variable_names_it() {
        let flag = |set: &str| {
            let flags = Flags { set: vec![set.to_owned()], ..Flags::default() };
            Config::load(&flags, nothing).expect_err(set).to_string()
        };
        assert!(flag("storage.flush_age=1s").contains("did you mean 'storage.flush_age_max'?"));
        assert!(flag("query.rows_max=many").starts_with("--set query.rows_max: 'many' is not a number"));
        assert!(flag("nonsense").contains("SETTING=VALUE"));
        let error =
            Config::load(&Flags::default(), |name| (name == "QUIVER_QUERY_TIMEOUT_MAX").then(|| "soon".to_owned()));
        assert!(error.unwrap_err().to_string().starts_with("QUIVER_QUERY_TIMEOUT_MAX: 'soon' is not a duration"));
    }
}
