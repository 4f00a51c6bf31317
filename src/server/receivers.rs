//! The smaller ways in over HTTP: Datadog's intake, Amazon Firehose, GELF, and systemd's journal. Their formats are
//! `decode`'s; here are their paths and answers.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::body::{self, Encoding};
use super::elastic::query_of;
use super::ingest::{Ids, Kept, Received, content_type, take};
use super::status::{Error, FIREHOSE_PATH, FIREHOSE_REQUEST_ID};
use super::{App, Caller};
use crate::decode;
use crate::record::Seen;
use crate::storage::BatchId;
use crate::telemetry::IngestOutcome;

const FIREHOSE_ATTRIBUTES: &str = "x-amz-firehose-common-attributes";
/// What Datadog's intake takes from the query for lines of text.
const DATADOG_FIELDS: [&str; 4] = ["ddsource", "ddtags", "hostname", "service"];
/// A journal's entries are kept when there are so many bytes of them.
const JOURNAL_PART_BYTES: usize = 1 << 20;
/// … or when none came for so long: `systemd-journal-upload` follows the journal within one request.
const JOURNAL_PART_AGE: std::time::Duration = std::time::Duration::from_secs(1);

/// The routes.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/v2/logs", post(datadog_v2))
        .route("/v1/input", post(datadog_v1))
        .route("/v1/input/{key}", post(datadog_v1))
        .route("/api/v1/validate", get(async || Json(json!({ "valid": true }))))
        .route(FIREHOSE_PATH, post(firehose))
        .route("/gelf", post(gelf))
        .route("/upload", post(journal))
}

/// An error when nothing of what came could be kept.
fn kept_any(kept: &Kept) -> Result<(), Error> {
    if kept.is_all_rejected() { Err(Error::Invalid(kept.summary())) } else { Ok(()) }
}

/// `POST /api/v2/logs`: 202 and an empty object.
async fn datadog_v2(app: State<Arc<App>>, caller: Extension<Caller>, request: Request) -> Result<Response, Error> {
    datadog(app, caller, request).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({}))).into_response())
}

/// `POST /v1/input`, the intake before: 200.
async fn datadog_v1(app: State<Arc<App>>, caller: Extension<Caller>, request: Request) -> Result<Response, Error> {
    datadog(app, caller, request).await?;
    Ok(Json(json!({})).into_response())
}

async fn datadog(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<(), Error> {
    let is_text = content_type(request.headers()) == "text/plain";
    let query: Vec<(String, String)> = query_of(&request).collect();
    let decoder = move |received: &mut Received, app: &App, now_ns: i64| {
        let body = received.decompress(app)?;
        if !is_text {
            return Ok(decode::datadog::logs(&body, &received.options, now_ns)?);
        }
        let pairs = query.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let fields: Vec<_> = pairs.filter(|(name, _)| DATADOG_FIELDS.contains(name)).collect();
        Ok(decode::datadog::text(&body, &fields, &received.options, now_ns)?)
    };
    kept_any(&take(&app, &caller, "datadog", request, decoder).await?)
}

/// `POST /aws/firehose`: 200 when everything that can ever be kept is; Firehose sends all of it again otherwise.
async fn firehose(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Error> {
    let [id, attributes] = [FIREHOSE_REQUEST_ID, FIREHOSE_ATTRIBUTES]
        .map(|name| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned));
    let decoder = move |received: &mut Received, app: &App, now_ns: i64| {
        let body = received.decompress(app)?;
        let unzip = |data: Bytes| match body::decompress(data, Encoding::Gzip, &app.limits, &mut received.lease) {
            Err(Error::Invalid(reason)) => Ok(Err(reason)),
            unzipped => unzipped.map(Ok),
        };
        decode::firehose::delivery(&body, attributes.as_deref(), unzip, &received.options, now_ns)
    };
    take(&app, &caller, "firehose", request, decoder).await?;
    let now_ms = app.clock.now_ns() / 1_000_000;
    Ok(Json(json!({ "requestId": id.unwrap_or_default(), "timestamp": now_ms })).into_response())
}

/// `POST /gelf`: 202, as Graylog answers.
async fn gelf(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<StatusCode, Error> {
    let decoder = |received: &mut Received, app: &App, now_ns: i64| {
        let body = received.decompress(app)?;
        Ok(decode::gelf::body(&body, &received.options, now_ns)?)
    };
    kept_any(&take(&app, &caller, "gelf", request, decoder).await?)?;
    Ok(StatusCode::ACCEPTED)
}

/// `POST /upload`: a journal without end, kept part by part. What was kept of a request that broke off comes again, as
/// the sender goes on from the last request that was answered.
async fn journal(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Error> {
    let (parts, mut body) = request.into_parts();
    let content_type = content_type(&parts.headers);
    if content_type != "application/vnd.fdo.journal" {
        let reason = format!("content-type '{content_type}' is not 'application/vnd.fdo.journal'");
        return Err(Error::Unsupported(reason));
    }
    if Encoding::of(&parts.headers)? != Encoding::Identity {
        return Err(Error::Unsupported("a journal is taken without content-encoding".to_owned()));
    }
    let mut waiting = BytesMut::new();
    let mut lease = app.budget.lease();
    // Grows with an entry that is not whole yet, so that it is not looked through at every frame.
    let mut part_bytes = JOURNAL_PART_BYTES;
    let mut due: Option<Instant> = None;
    loop {
        let far = Instant::now() + app.limits.timeout;
        let frame = match timeout_at(due.unwrap_or(far), body.frame()).await {
            Ok(frame) => frame,
            // A sender that follows its journal is silent while there is nothing to say.
            Err(_) => {
                due = None;
                keep_entries(&app, &caller, &mut waiting, false).await?;
                lease.change_to(waiting.len())?;
                continue;
            }
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| Error::Invalid(format!("the body broke off: {error}")))?;
        let Ok(chunk) = frame.into_data() else { continue };
        lease.grow(chunk.len())?;
        waiting.extend_from_slice(&chunk);
        due = due.or_else(|| Some(Instant::now() + JOURNAL_PART_AGE));
        if waiting.len() >= part_bytes {
            due = None;
            keep_entries(&app, &caller, &mut waiting, false).await?;
            lease.change_to(waiting.len())?;
            part_bytes = JOURNAL_PART_BYTES.max(waiting.len() * 2);
        }
    }
    keep_entries(&app, &caller, &mut waiting, true).await?;
    Ok((StatusCode::ACCEPTED, [(CONTENT_TYPE, "text/plain")], "OK.\n").into_response())
}

/// Keeps the whole entries of `waiting`, at the end also the one that is cut.
async fn keep_entries(app: &Arc<App>, caller: &Caller, waiting: &mut BytesMut, is_end: bool) -> Result<(), Error> {
    let end = if is_end { waiting.len() } else { decode::journal::whole(waiting)? };
    if waiting.len() - end > app.limits.body_bytes_max {
        let (limit, setting) = (app.limits.body_bytes_max, app.limits.body_setting);
        return Err(Error::TooLarge { what: "an entry of a journal", limit, setting });
    }
    if end == 0 {
        return Ok(());
    }
    let started = std::time::Instant::now();
    let part = waiting.split_to(end).freeze();
    let bytes = part.len();
    let came = IngestOutcome { received_bytes: bytes, decoded_bytes: bytes, accepted: 0 };
    let kept = async {
        app.parts()?;
        let now_ns = app.clock.now_ns();
        app.rates.admit(&caller.tenant, now_ns)?;
        app.rates.charge(&caller.tenant, now_ns, bytes);
        let mut ids = Ids::of(app, caller, "journal", &HeaderMap::new())?;
        let mut lease = app.budget.lease();
        lease.grow(bytes)?;
        let options = app.decode_options(&caller.tenant);
        let decode = move |_: &App| {
            let is_new = |cursor: &[u8]| match ids.claim.add(BatchId::of(&[b"journal", cursor])) {
                Seen::New => Ok(true),
                Seen::Kept => Ok(false),
                Seen::BeingKept => Err(Error::BeingKept),
            };
            decode::journal::entries(&part, is_new, &options, now_ns).map(|decoded| (decoded, ids))
        };
        let (decoded, ids) = app.offload(bytes, decode).await??;
        app.keep(caller, "journal", decoded, ids, &mut lease).await
    };
    let kept = kept.await;
    app.count(caller, "journal", started, came, kept.as_ref());
    kept.map(drop)
}
