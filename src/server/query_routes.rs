//! The HTTP endpoints that ask: SQL with streamed rows, and the fields and values for pickers.
//!
//! Invariant: an error before the first byte has a status; a later one is told in the answer (NDJSON, table) or breaks it
//! off (CSV, Arrow), so a cut answer never looks whole.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::record_batch::RecordBatch;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use futures::StreamExt;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::json;
use tracing::warn;

use super::answer::Answer;
use super::body::{self, Encoding, Limits};
use super::range::parse_range;
use super::rows::{Format, Writer};
use super::status::Error;
use super::{App, Caller, answer, query};

/// Rows that are written at once: bounds what is held of an answer, and how long a thread is kept.
const WRITE_ROWS_MAX: usize = 4_096;
/// Fewer rows are written on the async thread.
const INLINE_ROWS_MAX: usize = 128;
/// Tells what the reader should know of an answer, where that is known before its first row.
const NOTICE_HEADER: &str = "x-quiver-notice";
const VALUES_DEFAULT: usize = 100;
const VALUES_MAX: usize = 10_000;

/// `?from=&to=&limit=&timeout=&format=`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SqlParameters {
    from: Option<String>,
    to: Option<String>,
    limit: Option<usize>,
    timeout: Option<String>,
    format: Option<String>,
}

/// `POST /api/v1/sql`
pub(super) async fn sql(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    parameters: Result<Query<SqlParameters>, QueryRejection>,
    request: Request,
) -> Result<Response, Error> {
    app.parts()?;
    let Query(parameters) = parameters.map_err(|error| Error::Invalid(error.body_text()))?;
    let format = format(&parameters, &request)?;
    let range = parse_range(parameters.from.as_deref(), parameters.to.as_deref(), app.clock.now_ns())
        .map_err(Error::Invalid)?;
    let timeout = parameters.timeout.as_deref().map(parse_timeout).transpose()?;
    let sql = read_sql(&app, request).await?;
    let request = query::Request { tenant: caller.tenant, sql, range, limit: parameters.limit, timeout };
    let mut answer = app.ask(request, "http", None).await?;
    let writer = Writer::new(format, answer.schema()).map_err(|error| unwritable(&error))?;
    let first = answer.next().await.transpose()?;
    let told = answer.stats().notices;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    for notice in &told {
        // A notice that no header can hold is told at the end, or ends the answer.
        headers.extend(HeaderValue::from_str(notice).map(|notice| (HeaderName::from_static(NOTICE_HEADER), notice)));
    }
    let told = headers.get_all(NOTICE_HEADER).iter().count();
    let mut output = Output { answer, ready: first, waiting: None, writer: Some(writer), format, told };
    // The first rows are written before the status is: what can't be written in this format is a 400 too.
    let head = output.next().await?;
    let rest = futures::stream::try_unfold(output, async |mut output: Output| -> Result<_, Error> {
        Ok(output.next().await?.map(|bytes| (bytes, output)))
    });
    let body = futures::stream::iter(head.map(Ok)).chain(rest);
    Ok((headers, Body::from_stream(body)).into_response())
}

fn format(parameters: &SqlParameters, request: &Request) -> Result<Format, Error> {
    let known = "ndjson (application/x-ndjson), csv (text/csv), table (text/plain), arrow (application/vnd.apache.arrow.stream)";
    if let Some(name) = &parameters.format {
        return clap::ValueEnum::from_str(name, true)
            .map_err(|_| Error::Invalid(format!("'format={name}' is none of {known}")));
    }
    let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    Format::from_accept(accept).ok_or_else(|| Error::NotAcceptable(format!("'{accept}' names none of {known}")))
}

fn parse_timeout(text: &str) -> Result<Duration, Error> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok());
    parsed.ok_or_else(|| Error::Invalid(format!("'timeout={text}' is not a duration such as 10s")))
}

async fn read_sql(app: &Arc<App>, request: Request) -> Result<String, Error> {
    let (parts, body) = request.into_parts();
    if Encoding::of(&parts.headers)? != Encoding::Identity {
        return Err(Error::Unsupported("an SQL text is sent without content-encoding".to_owned()));
    }
    let limits = Limits { body_bytes_max: app.sql_bytes_max, body_setting: "query.sql_bytes_max", ..app.limits };
    let body = body::read(&parts.headers, body, &limits, &mut app.budget.lease()).await?;
    let sql = String::from_utf8(body.to_vec()).map_err(|_| Error::Invalid("the SQL text is not UTF-8".to_owned()))?;
    if sql.trim().is_empty() {
        return Err(Error::Invalid(
            "the body is empty; it holds the SQL text, e.g. SELECT * FROM logs LIMIT 10".to_owned(),
        ));
    }
    Ok(sql)
}

/// The columns can't be written in the format that was asked for (nested ones in CSV).
fn unwritable(error: &arrow::error::ArrowError) -> Error {
    Error::Invalid(format!("the answer can't be written in this format: {error}"))
}

/// The bytes of an answer, one piece after another.
struct Output {
    answer: Answer,
    /// The next batch, already there.
    ready: Option<RecordBatch>,
    /// What is left of a batch that is written piece by piece.
    waiting: Option<RecordBatch>,
    /// `None` when everything was written.
    writer: Option<Writer>,
    format: Format,
    /// How many notices the headers tell.
    told: usize,
}

impl Output {
    /// The next bytes; `None` at the end. **Errors**: break the answer off.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let Some(writer) = self.writer.take() else { return Ok(None) };
            let batch = match self.waiting.take().or_else(|| self.ready.take()) {
                Some(batch) => Some(Ok(batch)),
                None => self.answer.next().await,
            };
            match batch {
                Some(Ok(batch)) => {
                    let rows = batch.num_rows().min(WRITE_ROWS_MAX);
                    if batch.num_rows() > rows {
                        self.waiting = Some(batch.slice(rows, batch.num_rows() - rows));
                    }
                    let (writer, bytes) = write(writer, batch.slice(0, rows)).await?;
                    self.writer = Some(writer);
                    if !bytes.is_empty() {
                        return Ok(Some(bytes));
                    }
                }
                Some(Err(error)) => return self.broken(error),
                None => return self.end(writer).map(Some),
            }
        }
    }

    /// Tells an error in the answer where the format has a place for it.
    fn broken(&self, error: Error) -> Result<Option<Bytes>, Error> {
        match self.format {
            Format::Ndjson => Ok(Some(Bytes::from(format!("{}\n", error.to_json())))),
            Format::Table => Ok(Some(Bytes::from(format!("error: {error}\n")))),
            Format::Csv | Format::Arrow => {
                warn!("an answer was broken off: {error}");
                Err(error)
            }
        }
    }

    /// The last bytes, with what the reader should know.
    fn end(&self, mut writer: Writer) -> Result<Bytes, Error> {
        let stats = self.answer.stats();
        let cut = answer::cut();
        let mut bytes = match self.format {
            Format::Csv | Format::Arrow if stats.truncated => {
                warn!("an answer was broken off: {cut}");
                return Err(cut);
            }
            Format::Csv | Format::Arrow if stats.notices.len() > self.told => {
                let notices = stats.notices.join("; ");
                warn!("an answer was broken off: {notices}");
                return Err(Error::Query(query::Error::Corrupt(notices)));
            }
            _ => writer.finish().map_err(|error| unwritable(&error))?,
        };
        match self.format {
            Format::Ndjson if !stats.truncated => {
                for notice in &stats.notices {
                    bytes.extend_from_slice(format!("{}\n", json!({ "notice": notice })).as_bytes());
                }
            }
            Format::Ndjson if stats.truncated => bytes.extend_from_slice(format!("{}\n", cut.to_json()).as_bytes()),
            // The engine's notices tell of the cut too.
            Format::Table => {
                stats.notices.iter().for_each(|note| bytes.extend_from_slice(format!("note: {note}\n").as_bytes()));
            }
            _ => {}
        }
        Ok(Bytes::from(bytes))
    }
}

/// Writes a piece, off the async threads when it is more than a little.
async fn write(mut writer: Writer, batch: RecordBatch) -> Result<(Writer, Bytes), Error> {
    let is_little = batch.num_rows() <= INLINE_ROWS_MAX;
    let write = move || writer.write(&batch).map(|bytes| (writer, Bytes::from(bytes)));
    let written = if is_little {
        write()
    } else {
        tokio::task::spawn_blocking(write)
            .await
            .map_err(|panic| Error::Internal(format!("rows can't be written: {panic}")))?
    };
    written.map_err(|error| unwritable(&error))
}

/// `?from=&to=`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FieldsParameters {
    from: Option<String>,
    to: Option<String>,
}

/// `GET /api/v1/fields`
pub(super) async fn fields(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    parameters: Result<Query<FieldsParameters>, QueryRejection>,
) -> Result<Response, Error> {
    let Query(asked) = parameters.map_err(|error| Error::Invalid(error.body_text()))?;
    let range = parse_range(asked.from.as_deref(), asked.to.as_deref(), app.clock.now_ns()).map_err(Error::Invalid)?;
    let started = Instant::now();
    let fields = app.parts()?.engine.fields(&caller.tenant, range).await;
    counted(&app, started, fields, |fields| (fields.len(), json!({ "fields": fields })))
}

/// `?from=&to=&filter=&contains=&limit=`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ValuesParameters {
    from: Option<String>,
    to: Option<String>,
    filter: Option<String>,
    contains: Option<String>,
    limit: Option<usize>,
}

/// `GET /api/v1/fields/{name}/values`
pub(super) async fn field_values(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(field): Path<String>,
    parameters: Result<Query<ValuesParameters>, QueryRejection>,
) -> Result<Response, Error> {
    let Query(asked) = parameters.map_err(|error| Error::Invalid(error.body_text()))?;
    let range = parse_range(asked.from.as_deref(), asked.to.as_deref(), app.clock.now_ns()).map_err(Error::Invalid)?;
    let written = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
    let request = query::FieldValuesRequest {
        tenant: caller.tenant,
        field,
        range,
        filter: written(asked.filter),
        contains: asked.contains.filter(|text| !text.is_empty()),
        limit: asked.limit.unwrap_or(VALUES_DEFAULT).min(VALUES_MAX),
    };
    let started = Instant::now();
    let values = app.parts()?.engine.field_values(request).await;
    counted(&app, started, values, |values| (values.len(), json!({ "values": values })))
}

/// Counts a picker's question and writes its answer.
fn counted<T>(
    app: &App,
    started: Instant,
    result: Result<T, query::Error>,
    write: impl FnOnce(T) -> (usize, serde_json::Value),
) -> Result<Response, Error> {
    let outcome = result.as_ref().map_or_else(|error| error.kind().as_str(), |_| "ok");
    let written = result.map(write);
    let rows = written.as_ref().map_or(0, |(rows, _)| *rows as u64);
    app.metrics.query("fields", outcome, rows, started.elapsed());
    let (_, body) = written?;
    Ok(Json(body).into_response())
}
