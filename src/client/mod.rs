//! `quiver sql` (and [`delete`] for `quiver delete`): a statement over Flight SQL to a running store, its rows to a writer. It opens no store.

use std::io::{self, IsTerminal, Read, Write};
use std::time::Duration;

use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::TryStreamExt;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Status};

pub mod delete;

use crate::clock::Clock;
use crate::server::range::parse_time;
use crate::server::rows::{Format, Writer};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why no rows came.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A flag's value is wrong.
    #[error("{0}")]
    Flag(String),
    /// The store does not answer.
    #[error("cannot reach the store at '{url}': {cause}; is 'quiver serve' running there, and is it the gRPC port?")]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// The cause.
        cause: String,
    },
    /// The store's answer is an error.
    #[error("{message}")]
    Store {
        /// What kind of an error.
        code: Code,
        /// The store's words.
        message: String,
    },
    /// The store's HTTP port does not answer.
    #[error("cannot reach the store at '{url}': {cause}; is 'quiver serve' running there, and is it the HTTP port?")]
    NoHttp {
        /// Where it was looked for.
        url: String,
        /// The cause.
        cause: String,
    },
    /// The store said no.
    #[error("{0}")]
    Refused(String),
    /// An answer that is not understood.
    #[error("the store's answer can't be read: {0}")]
    Protocol(String),
    /// Rows can't be written in the format.
    #[error("the rows can't be written: {0}")]
    Format(#[from] arrow::error::ArrowError),
    /// Standard input or output failed.
    #[error("cannot read the statement or write the rows: {0}")]
    Io(#[from] io::Error),
}

/// Who asks: whose logs, and with which credentials.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Caller {
    /// Whose logs
    #[arg(long, value_name = "TENANT", env = "QUIVER_TENANT")]
    pub tenant: Option<String>,
    /// Bearer token
    #[arg(long, value_name = "TOKEN", env = "QUIVER_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Name and password
    #[arg(long, value_name = "NAME:PASSWORD", env = "QUIVER_USER", hide_env_values = true, conflicts_with = "token")]
    pub user: Option<String>,
}

/// What `quiver sql` takes.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// One SQL statement; `-` reads it from standard input
    pub sql: String,
    /// The store's gRPC port
    #[arg(long, value_name = "URL", env = "QUIVER_URL", default_value = "http://127.0.0.1:4317")]
    pub url: String,
    /// Format of the rows [default: table on a terminal, else ndjson]
    #[arg(long, short, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// Only records from this time on: RFC 3339, digits since the epoch, or a duration ago such as 15m
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Only records before this time
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
    /// Most rows
    #[arg(long, value_name = "ROWS")]
    pub limit: Option<usize>,
    /// Give up after, e.g. 10s
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<String>,
    /// Who asks
    #[command(flatten)]
    pub caller: Caller,
    /// Tell on standard error what the query cost
    #[arg(long)]
    pub stats: bool,
}

/// Runs the statement and writes its rows to standard output.
pub async fn run(arguments: &Arguments) -> Result<(), Error> {
    let mut sql = arguments.sql.clone();
    if sql == "-" {
        sql.clear();
        io::stdin().read_to_string(&mut sql)?;
    }
    let terminal = io::stdout().is_terminal();
    let format = arguments.format.unwrap_or(if terminal { Format::Table } else { Format::Ndjson });
    let mut client = connect(&arguments.url).await?;
    for (name, value) in metadata(arguments, Clock::System.now_ns())? {
        client.set_header(name, value);
    }
    let info = client.execute(sql, None).await.map_err(|error| failed(error, &arguments.url))?;
    let mut writer = None;
    for endpoint in info.endpoint {
        let ticket = endpoint.ticket.ok_or_else(|| Error::Protocol("an endpoint has no ticket".to_owned()))?;
        let mut rows = client.do_get(ticket).await.map_err(|error| failed(error, &arguments.url))?.into_inner();
        while let Some(message) = rows.try_next().await.map_err(|error| failed(error, &arguments.url))? {
            use arrow_flight::decode::DecodedPayload;
            let cost = message.app_metadata();
            match message.payload {
                DecodedPayload::Schema(schema) if writer.is_none() => writer = Some(Writer::new(format, schema)?),
                DecodedPayload::RecordBatch(batch) if !cost.is_empty() => {
                    debug_assert_eq!(batch.num_rows(), 0, "the cost travels on an empty batch");
                    tell_cost(&cost, arguments.stats);
                }
                DecodedPayload::RecordBatch(batch) => {
                    if let Some(writer) = &mut writer {
                        put(&writer.write(&batch)?)?;
                    }
                }
                _ => {}
            }
        }
    }
    if let Some(writer) = &mut writer {
        put(&writer.finish()?)?;
    }
    Ok(io::stdout().flush()?)
}

/// Writes to standard output; a reader that has seen enough (`| head`) is no error.
fn put(bytes: &[u8]) -> Result<(), Error> {
    match io::stdout().write_all(bytes) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => Ok(result?),
    }
}

/// What the reader should know goes to standard error, always; the cost when it was asked for.
fn tell_cost(json: &[u8], wanted: bool) {
    let Ok(stats) = serde_json::from_slice::<serde_json::Value>(json) else { return };
    for notice in stats["notices"].as_array().into_iter().flatten().filter_map(|notice| notice.as_str()) {
        eprintln!("note: {notice}");
    }
    if wanted {
        eprintln!("{stats}");
    }
}

async fn connect(url: &str) -> Result<FlightSqlServiceClient<Channel>, Error> {
    let wrong = |cause: String| Error::Flag(format!("'{url}' is not a URL such as http://127.0.0.1:4317: {cause}"));
    let url_text = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let endpoint = Endpoint::from_shared(url_text.clone()).map_err(|error| wrong(error.to_string()))?;
    let mut endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
    if url_text.starts_with("https://") {
        let tls = ClientTlsConfig::new().with_enabled_roots();
        endpoint = endpoint.tls_config(tls).map_err(|error| wrong(error.to_string()))?;
    }
    let channel =
        endpoint.connect().await.map_err(|error| Error::Unreachable { url: url.to_owned(), cause: causes(&error) })?;
    let inner =
        arrow_flight::flight_service_client::FlightServiceClient::new(channel).max_decoding_message_size(usize::MAX);
    Ok(FlightSqlServiceClient::new_from_inner(inner))
}

/// An error with the errors below it: tonic's own says "transport error" only.
fn causes(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).last().map_or(String::new(), ToString::to_string)
}

/// Metadata of every call (names as in `server::flight`).
fn metadata(arguments: &Arguments, now_ns: i64) -> Result<Vec<(&'static str, String)>, Error> {
    let mut pairs = vec![("quiver-source", "quiver sql".to_owned()), ("quiver-stats", "1".to_owned())];
    for (flag, name, text) in [("--from", "quiver-from", &arguments.from), ("--to", "quiver-to", &arguments.to)] {
        let Some(text) = text else { continue };
        let time = parse_time(text, now_ns).ok_or_else(|| {
            Error::Flag(format!(
                "'{flag} {text}' is not a time: RFC 3339, digits since the epoch, or a duration ago such as 15m"
            ))
        })?;
        // RFC 3339: nanoseconds as digits would be read as seconds when there are few.
        let time =
            jiff::Timestamp::from_nanosecond(i128::from(time)).map_err(|error| Error::Flag(error.to_string()))?;
        pairs.push((name, time.to_string()));
    }
    if let Some(text) = &arguments.timeout {
        let timeout = text.parse::<jiff::SignedDuration>().ok().filter(|timeout| timeout.is_positive());
        let timeout =
            timeout.ok_or_else(|| Error::Flag(format!("'--timeout {text}' is not a duration such as 10s")))?;
        pairs.push(("quiver-timeout-ms", timeout.as_millis().to_string()));
    }
    pairs.extend(arguments.limit.map(|limit| ("quiver-row-limit", limit.to_string())));
    let Caller { tenant, token, user } = &arguments.caller;
    pairs.extend(tenant.clone().map(|tenant| (crate::server::TENANT, tenant)));
    pairs.extend(token.as_ref().map(|token| ("authorization", format!("Bearer {token}"))));
    pairs.extend(user.as_ref().map(|user| ("authorization", format!("Basic {}", BASE64_STANDARD.encode(user)))));
    Ok(pairs)
}

fn failed(error: FlightError, url: &str) -> Error {
    match error {
        FlightError::Tonic(status) => told(*status, url),
        other => Error::Protocol(other.to_string()),
    }
}

fn told(status: Status, url: &str) -> Error {
    match status.code() {
        // tonic's words for an answer that is no gRPC, such as an HTTP port's.
        Code::Internal if status.message().starts_with("protocol error") => {
            Error::Unreachable { url: url.to_owned(), cause: "what answers there does not speak gRPC".to_owned() }
        }
        // No answer at all: the connection broke, or the port speaks something else.
        Code::Unavailable | Code::Unknown | Code::Internal
            if status.metadata().is_empty() && status.details().is_empty() =>
        {
            let cause = std::error::Error::source(&status).map(causes);
            match cause {
                Some(cause) => Error::Unreachable { url: url.to_owned(), cause },
                None => Error::Store { code: status.code(), message: status.message().to_owned() },
            }
        }
        code => Error::Store { code, message: status.message().to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments() -> Arguments {
        Arguments {
            sql: "SELECT 1".into(),
            url: "http://127.0.0.1:4317".into(),
            format: None,
            from: None,
            to: None,
            limit: None,
            timeout: None,
            caller: Caller::default(),
            stats: false,
        }
    }

    #[test]
    fn flags_become_metadata() {
        let arguments = Arguments {
            from: Some("15m".into()),
            to: Some("now".into()),
            limit: Some(5),
            timeout: Some("2s".into()),
            caller: Caller { tenant: Some("a".into()), user: Some("u:p".into()), ..Caller::default() },
            ..arguments()
        };
        let pairs = metadata(&arguments, 1_767_225_600_000_000_000).unwrap();
        for pair in [
            ("quiver-from", "2025-12-31T23:45:00Z"),
            ("quiver-to", "2026-01-01T00:00:00Z"),
            ("quiver-row-limit", "5"),
            ("quiver-timeout-ms", "2000"),
            ("x-scope-orgid", "a"),
            ("authorization", "Basic dTpw"),
        ] {
            assert!(pairs.contains(&(pair.0, pair.1.to_owned())), "{pair:?} is not in {pairs:?}");
        }
    }

    #[test]
    fn wrong_flags_are_told() {
        let wrong = |arguments: &Arguments| metadata(arguments, 0).unwrap_err().to_string();
        assert!(wrong(&Arguments { from: Some("soon".into()), ..arguments() }).contains("'--from soon'"));
        assert!(wrong(&Arguments { timeout: Some("-1s".into()), ..arguments() }).contains("'--timeout -1s'"));
    }

    #[test]
    fn a_port_that_speaks_something_else_is_told() {
        let status = Status::internal("protocol error: received message with invalid compression flag: 123");
        let error = told(status, "http://127.0.0.1:3100").to_string();
        assert!(error.contains("does not speak gRPC") && error.ends_with("is it the gRPC port?"), "{error}");
    }

    #[tokio::test]
    async fn a_store_that_is_not_there_is_told_with_its_url() {
        // Port 1 is reserved (tcpmux) and answered by nobody.
        let arguments = Arguments { url: "http://127.0.0.1:1".into(), ..arguments() };
        let error = run(&arguments).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot reach the store at 'http://127.0.0.1:1': "), "{error}");
    }
}
