//! The one way to the store: SQL text out, record batches back, over Arrow Flight SQL; what the text says and what
//! becomes of the batches is not known here. Invariant: an answer is bounded in rows, bytes and time, and dropping the
//! future of a query cancels it in the store.

mod proxy;
mod tls;

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{Schema, SchemaRef, UInt32Type};
use arrow::record_batch::RecordBatch;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{
    Any, CommandGetSqlInfo, CommandStatementQuery, ProstMessageExt, SqlInfo, TicketStatementQuery,
};
use arrow_flight::{FlightDescriptor, Ticket};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http::header::HeaderValue;
use prost::Message;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::error::Kind;
use crate::settings::{self, Settings};

/// Queries of one data source that run at once; a dashboard of thirty panels waits a little, and the store lives.
const CONCURRENCY_MAX: usize = 16;
/// Bytes of one answer, in Arrow; more would end in Grafana as several times as much JSON.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// One gRPC message; a batch of wide lines can be large.
const MESSAGE_BYTES_MAX: usize = 128 << 20;
/// A query is sent again when the connection breaks before the store has answered.
const TRIES_MAX: u32 = 3;
/// The store's own word about a deadline is better than ours: wait this much longer for it.
const DEADLINE_GRACE: Duration = Duration::from_secs(2);

/// Why there is no answer. The words are for the person at the panel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store can't be reached.
    #[error("cannot connect to the store at '{url}': {reason}")]
    Unreachable { url: String, reason: String },
    /// Something answers, and it is not a store.
    #[error("'{url}' is not the gRPC port of a Quiver store: {reason}")]
    NotAStore { url: String, reason: String },
    /// The store refuses the login.
    #[error("the store refused the login: {0}; check the token, or the user and password, of the data source")]
    Unauthenticated(String),
    /// The login is not allowed to do this.
    #[error("the store does not allow this: {0}")]
    Forbidden(String),
    /// The query is wrong; the store's words.
    #[error("{0}")]
    Invalid(String),
    /// The store has no such thing.
    #[error("{0}")]
    NotFound(String),
    /// A limit of the store was reached.
    #[error("{0}")]
    Limit(String),
    /// The answer is larger than a page can take.
    #[error("the answer is larger than {} MB; select fewer columns or lines", ANSWER_BYTES_MAX >> 20)]
    TooLarge,
    /// The store is starting, stopping, or full.
    #[error("the store cannot answer now: {0}")]
    Unavailable(String),
    /// It took too long.
    #[error("no answer within {0:?}; narrow the time range, or raise the time-out of the data source")]
    Deadline(Duration),
    /// The store's own word about a deadline.
    #[error("{0}")]
    StoreDeadline(String),
    /// A fault of the store.
    #[error("the store failed: {0}")]
    Internal(String),
}

impl Error {
    /// What the reader can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Unreachable { .. } | Error::NotAStore { .. } => Kind::Unreachable,
            Error::Unauthenticated(_) => Kind::Unauthenticated,
            Error::Forbidden(_) => Kind::Forbidden,
            Error::Invalid(_) => Kind::Invalid,
            Error::NotFound(_) => Kind::NotFound,
            Error::Limit(_) | Error::TooLarge => Kind::Limit,
            Error::Unavailable(_) => Kind::Unavailable,
            Error::Deadline(_) | Error::StoreDeadline(_) => Kind::Deadline,
            Error::Internal(_) => Kind::Internal,
        }
    }
}

/// What a query cost, as the store tells it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Records read.
    pub rows_scanned: u64,
    /// Bytes read.
    pub bytes_scanned: u64,
    /// Segments read.
    pub segments_scanned: u64,
    /// Segments left out.
    pub segments_pruned: u64,
    /// Time in the store.
    pub elapsed_ms: f64,
    /// Not all rows are there.
    pub truncated: bool,
    /// What the reader should know.
    pub notices: Vec<String>,
}

/// What a query asks for beside its text.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Rows at most.
    pub row_limit: Option<u64>,
    /// A shorter deadline than the data source's.
    pub timeout: Option<Duration>,
    /// Who asks, for the store's query log: `dashboard=…;panel=…`.
    pub source: Option<String>,
    /// The user's own login, instead of the data source's.
    pub authorization: Option<HeaderValue>,
    /// The user's cookies.
    pub cookies: Option<HeaderValue>,
    /// Whose logs, instead of the data source's tenant.
    pub tenant: Option<HeaderValue>,
    /// Rows that came before the store's deadline are an answer.
    pub partial: bool,
}

/// What the store answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Columns.
    pub schema: SchemaRef,
    /// Rows, in the order of the statement.
    pub batches: Vec<RecordBatch>,
    /// What it cost, if the store said so.
    pub stats: Option<Stats>,
    /// Why rows are missing: the store's words about its deadline.
    pub cut: Option<String>,
}

/// An open data source: one connection, made when it is first needed and made again when it breaks.
pub struct Client {
    flight: FlightServiceClient<Channel>,
    settings: Settings,
    permits: Semaphore,
    /// A store has answered here before: what fails now is not a wrong address.
    answered: AtomicBool,
}

impl Client {
    /// Opens a data source; nothing is connected yet. **Errors**: certificates that can't be used.
    pub fn new(settings: Settings) -> Result<Client, settings::Error> {
        let connector = tls::Connector::new(settings.tls.as_ref(), settings.proxy.as_ref())?;
        // TLS is the connector's; to tonic every store is plain, or it would look for its own TLS settings.
        let authority = settings.url.authority().map(ToString::to_string).unwrap_or_default();
        let authority = match (settings.url.port(), &settings.tls) {
            (None, Some(_)) => format!("{authority}:443"),
            _ => authority,
        };
        let bad = |reason: String| settings::Error::BadUrl { url: settings.url.to_string(), reason };
        let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(|error| bad(error.to_string()))?;
        let channel = endpoint
            .origin(settings.url.clone())
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_while_idle(true)
            .http2_adaptive_window(true)
            .user_agent(concat!("quiver-logs-datasource/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| bad(error.to_string()))?
            .connect_with_connector_lazy(connector);
        let permits = Semaphore::new(CONCURRENCY_MAX);
        let flight = FlightServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Client { flight, settings, permits, answered: AtomicBool::new(false) })
    }

    /// The settings it was opened with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Runs a statement and collects its rows. Dropping the future cancels it in the store.
    pub async fn query(&self, sql: &str, options: &Options) -> Result<Answer, Error> {
        let timeout = options.timeout.unwrap_or(self.settings.timeout).min(self.settings.timeout);
        let answer = async {
            let _permit = self.permits.acquire().await.expect("the semaphore is never closed");
            let handle = Bytes::copy_from_slice(sql.as_bytes());
            let ticket = TicketStatementQuery { statement_handle: handle }.as_any();
            self.run(&ticket, &self.metadata(options, timeout), options.partial).await
        };
        let answered = tokio::time::timeout(timeout + DEADLINE_GRACE, answer).await;
        answered.map_err(|_| self.no_answer(timeout))?
    }

    /// Has the store read and plan a statement, and not run it. **Errors**: what it says against it.
    pub async fn plan(&self, sql: &str, options: &Options) -> Result<(), Error> {
        let timeout = options.timeout.unwrap_or(self.settings.timeout).min(self.settings.timeout);
        let command = CommandStatementQuery { query: sql.to_owned(), transaction_id: None }.as_any();
        let descriptor = FlightDescriptor::new_cmd(command.encode_to_vec());
        let metadata = self.metadata(options, timeout);
        let planned = self
            .call(descriptor, &metadata, |mut flight, request| async move { flight.get_flight_info(request).await });
        let planned = tokio::time::timeout(timeout, planned).await;
        planned.map_err(|_| self.no_answer(timeout))?.map(drop)
    }

    fn no_answer(&self, timeout: Duration) -> Error {
        if self.answered.load(Ordering::Relaxed) {
            return Error::Deadline(timeout);
        }
        let reason = "it takes the connection, and does not answer; is this the store's gRPC address?".to_owned();
        Error::Unreachable { url: self.url(), reason }
    }

    fn url(&self) -> String {
        self.settings.url.to_string().trim_end_matches('/').to_owned()
    }

    /// Name and version of the store, as Flight SQL tells it; `None` when it does not.
    pub async fn server_name(&self, options: &Options) -> Option<String> {
        let names = [SqlInfo::FlightSqlServerName as u32, SqlInfo::FlightSqlServerVersion as u32];
        let timeout = options.timeout.unwrap_or(self.settings.timeout);
        let metadata = self.metadata(options, timeout);
        let command = CommandGetSqlInfo { info: names.to_vec() }.as_any();
        let answer = tokio::time::timeout(timeout, self.run(&command, &metadata, false)).await.ok()?.ok()?;
        let text = |wanted: u32| {
            answer.batches.iter().find_map(|batch| {
                let names = batch.column_by_name("info_name")?.as_primitive_opt::<UInt32Type>()?;
                let row = names.values().iter().position(|name| *name == wanted)?;
                let value = batch.column_by_name("value")?.as_union_opt()?.value(row);
                Some(value.as_string_opt::<i32>()?.value(0).to_owned())
            })
        };
        let name = text(names[0])?;
        Some(text(names[1]).map_or(name.clone(), |version| format!("{name} {version}")))
    }

    /// The rows behind a ticket. A ticket of this store is the statement itself (src/server/flight.rs): to ask for it first,
    /// as Flight SQL has it for stores one knows nothing of, would be another round trip, and plan the statement twice.
    async fn run(&self, ticket: &Any, metadata: &MetadataMap, partial: bool) -> Result<Answer, Error> {
        let ticket = Ticket::new(ticket.encode_to_vec());
        let stream =
            self.call(ticket, metadata, |mut flight, request| async move { flight.do_get(request).await }).await?;
        let mut decoder = FlightDataDecoder::new(stream.map_err(|status| FlightError::Tonic(Box::new(status))));
        let (mut schema, mut batches, mut stats) = (None, Vec::new(), None);
        let (mut bytes, mut cut) = (0, None);
        while let Some(message) = decoder.next().await {
            let message = match message.map_err(|error| self.explain_flight(error)) {
                Ok(message) => message,
                Err(Error::StoreDeadline(words)) if partial && !batches.is_empty() => {
                    cut = Some(words);
                    break;
                }
                Err(error) => return Err(error),
            };
            let app_metadata = message.app_metadata();
            if !app_metadata.is_empty() {
                stats = serde_json::from_slice(&app_metadata).ok().or(stats);
            }
            match message.payload {
                DecodedPayload::Schema(told) => schema = Some(told),
                DecodedPayload::RecordBatch(batch) if batch.num_rows() > 0 => {
                    bytes += batch.get_array_memory_size();
                    if bytes > ANSWER_BYTES_MAX {
                        return Err(Error::TooLarge);
                    }
                    batches.push(batch);
                }
                DecodedPayload::RecordBatch(_) | DecodedPayload::None => {}
            }
        }
        Ok(Answer { schema: schema.unwrap_or_else(|| Arc::new(Schema::empty())), batches, stats, cut })
    }

    /// Makes a call. A connection that broke since the last one is only noticed now, and made again: nothing was answered
    /// yet, and statements only read.
    async fn call<M: Clone, R, F>(
        &self,
        message: M,
        metadata: &MetadataMap,
        method: impl Fn(FlightServiceClient<Channel>, tonic::Request<M>) -> F,
    ) -> Result<R, Error>
    where
        F: Future<Output = Result<tonic::Response<R>, Status>>,
    {
        let mut tries = 1;
        loop {
            let request = tonic::Request::from_parts(metadata.clone(), tonic::Extensions::default(), message.clone());
            match method(self.flight.clone(), request).await {
                Ok(response) => {
                    self.answered.store(true, Ordering::Relaxed);
                    return Ok(response.into_inner());
                }
                Err(status) if tries < TRIES_MAX && matches!(transport_cause(&status), Some(Cause::Broken(_))) => {
                    tracing::debug!(%status, "the connection broke; trying again");
                    tries += 1;
                }
                Err(status) => return Err(self.explain(&status)),
            }
        }
    }

    fn metadata(&self, options: &Options, timeout: Duration) -> MetadataMap {
        let mut headers = http::HeaderMap::new();
        headers.extend(self.settings.headers.iter().cloned());
        if let Some(authorization) = options.authorization.as_ref().or(self.settings.authorization.as_ref()) {
            headers.insert(http::header::AUTHORIZATION, authorization.clone());
        }
        if let Some(cookies) = &options.cookies {
            headers.insert(http::header::COOKIE, cookies.clone());
        }
        if let Some(tenant) = options.tenant.as_ref().or(self.settings.tenant.as_ref()) {
            headers.insert("x-scope-orgid", tenant.clone());
        }
        let mut metadata = MetadataMap::from_headers(headers);
        metadata.insert("quiver-stats", AsciiMetadataValue::from_static("1"));
        metadata.insert("quiver-timeout-ms", AsciiMetadataValue::from(timeout.as_millis() as u64));
        if let Some(limit) = options.row_limit {
            metadata.insert("quiver-row-limit", AsciiMetadataValue::from(limit));
        }
        if let Some(source) = options.source.as_deref().and_then(|text| text.parse().ok()) {
            metadata.insert("quiver-source", source);
        }
        metadata
    }

    fn explain_flight(&self, error: FlightError) -> Error {
        match error {
            FlightError::Tonic(status) => self.explain(&status),
            other => Error::Internal(other.to_string()),
        }
    }

    /// Turns a gRPC status into words. What the transport saw stands in the status's sources.
    fn explain(&self, status: &Status) -> Error {
        let url = self.url();
        let message = status.message().to_owned();
        let transport = transport_cause(status);
        match (status.code(), transport) {
            (_, Some(Cause::Connect(reason))) => Error::Unreachable { url, reason },
            (_, Some(Cause::Broken(reason))) if self.answered.load(Ordering::Relaxed) => {
                Error::Unavailable(format!("the connection to '{url}' broke ({reason})"))
            }
            (_, Some(Cause::Broken(reason))) => {
                // Where TLS stands and the connection ends at once, a missing certificate is as likely as a wrong port.
                let no_certificate = self.settings.tls.as_ref().is_some_and(|tls| tls.client.is_none());
                let or =
                    if no_certificate { "; or the store wants a client certificate ('TLS client auth')" } else { "" };
                let reason = format!(
                    "what answers there does not speak gRPC ({reason}); give the store's gRPC port (4317, unless it \
                     was changed), not its HTTP port, and https:// if the store uses TLS{or}"
                );
                Error::NotAStore { url, reason }
            }
            (Code::Unimplemented | Code::Unknown | Code::Internal, None) if is_http_page(&message) => {
                let reason = "it answers HTTP, not gRPC; give the store's gRPC port (4317, unless it was changed), \
                              not its HTTP port (3100)"
                    .to_owned();
                Error::NotAStore { url, reason }
            }
            (Code::Unimplemented, _) => {
                let reason = format!("it speaks gRPC, and not Arrow Flight SQL ({message})");
                Error::NotAStore { url, reason }
            }
            (Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition, _) => Error::Invalid(message),
            (Code::NotFound, _) => Error::NotFound(message),
            (Code::DeadlineExceeded, _) => Error::StoreDeadline(message),
            (Code::ResourceExhausted, _) => Error::Limit(message),
            (Code::Unauthenticated, _) => Error::Unauthenticated(message),
            (Code::PermissionDenied, _) => Error::Forbidden(message),
            (Code::Unavailable | Code::Cancelled | Code::Aborted, _) => Error::Unavailable(message),
            _ => Error::Internal(message),
        }
    }
}

/// Whether a message of tonic's is about an answer that is no gRPC: HTTP/2, and a page, such as the store's HTTP port
/// gives. There is no code for it.
fn is_http_page(message: &str) -> bool {
    message.contains("HTTP status code") || message.contains("invalid compression flag")
}

/// What the transport saw, when it is the transport that failed.
enum Cause {
    /// There is no connection.
    Connect(String),
    /// There was one, and it ended, or what came over it is not HTTP/2.
    Broken(String),
}

fn transport_cause(status: &Status) -> Option<Cause> {
    let mut source = status.source();
    let mut last = None;
    while let Some(error) = source {
        if let Some(connect) = error.downcast_ref::<tls::Error>() {
            return Some(Cause::Connect(connect.to_string()));
        }
        if let Some(words) = error.downcast_ref().and_then(tls::refusal) {
            return Some(Cause::Connect(words));
        }
        last = Some(error.to_string());
        source = error.source();
    }
    last.map(Cause::Broken)
}
