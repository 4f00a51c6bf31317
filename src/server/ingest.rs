//! Lines in, over HTTP: Loki push, OTLP, and lines as they are; and what every way in (also gRPC) does with decoded
//! records: keep them, count them, tell what was rejected. The formats themselves are `decode`'s.
//!
//! Invariant: an answer that says "kept" is given after [`crate::storage::Store::append`] returned, never before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampNanosecondType;
use axum::Extension;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use prost::Message;
use serde_json::json;
use tracing::warn;

use super::body::{self, Encoding, Lease};
use super::status::{Error, FIREHOSE_REQUEST_ID, is_media_type};
use super::{App, Caller};
use crate::decode::{self, Cause, Decoded, Rejection};
use crate::record::{Seen, Tenant, column};
use crate::storage::{BatchId, Claim};
use crate::telemetry::IngestOutcome;

/// Smaller bodies are decoded where they are: handing them to another thread costs more than the work.
const INLINE_BYTES_MAX: usize = 64 << 10;
/// Reasons that are told in one text.
const TOLD_REASONS_MAX: usize = 5;

/// What became of a request's records.
pub(super) struct Kept {
    pub(super) accepted: usize,
    pub(super) rejected: usize,
    /// The first of the rejected, with reasons.
    pub(super) reasons: Vec<Rejection>,
    /// How many were rejected, by cause.
    pub(super) causes: [usize; Cause::COUNT],
    /// The same request was kept before; this is what was answered then.
    pub(super) is_repeat: bool,
}

/// Headers with an id that a client gives to a request, and gives again when it sends it again.
const BATCH_IDS: [&str; 3] = ["x-quiver-batch-id", "idempotency-key", FIREHOSE_REQUEST_ID];

/// The ids by which a request is known when it comes again.
pub(super) struct Ids {
    pub(super) claim: Claim,
    is_repeat: bool,
}

impl Ids {
    /// Claims the id of a request's headers, if it has one. **Errors**: [`Error::BeingKept`].
    pub(super) fn of(app: &App, caller: &Caller, protocol: &str, headers: &HeaderMap) -> Result<Ids, Error> {
        let mut claim = app.parts()?.store.claim(&caller.tenant);
        let header = BATCH_IDS.iter().find_map(|name| headers.get(*name)).filter(|value| !value.is_empty());
        let seen = header.map(|value| claim.add(BatchId::of(&[protocol.as_bytes(), value.as_bytes()])));
        match seen {
            Some(Seen::BeingKept) => Err(Error::BeingKept),
            seen => Ok(Ids { claim, is_repeat: seen == Some(Seen::Kept) }),
        }
    }
}

impl Kept {
    /// Whether nothing of what came could be kept.
    pub(super) fn is_all_rejected(&self) -> bool {
        self.accepted == 0 && self.rejected > 0
    }

    /// Whether all that came is of new streams, and there may be none now: it may come again later.
    fn is_refused(&self) -> bool {
        self.is_all_rejected() && self.causes[Cause::Streams as usize] == self.rejected
    }

    /// The rejected lines in a sentence.
    pub(super) fn summary(&self) -> String {
        let told: Vec<String> = self
            .reasons
            .iter()
            .take(TOLD_REASONS_MAX)
            .map(|one| format!("line {}: {}", one.line, one.reason))
            .collect();
        let more = self.rejected.saturating_sub(told.len());
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        let all = self.accepted + self.rejected;
        format!("{} of {all} lines were rejected: {}{more}", self.rejected, told.join("; "))
    }
}

impl App {
    /// Runs CPU work on bodies, off the async threads when `bytes` is more than a little.
    pub(super) async fn offload<T, F>(self: &Arc<Self>, bytes: usize, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&App) -> T + Send + 'static,
    {
        if bytes <= INLINE_BYTES_MAX {
            return Ok(work(self));
        }
        let turn = self.decoders.acquire().await.map_err(|_| Error::NotReady("closing"))?;
        let app = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&app)).await;
        drop(turn);
        done.map_err(|panic| Error::Internal(format!("a decoder failed: {panic}")))
    }

    /// Keeps what was decoded; returns when it is safe. The lease, which held the body, holds the batch until then.
    pub(super) async fn keep(
        &self,
        caller: &Caller,
        protocol: &'static str,
        decoded: Decoded,
        ids: Ids,
        lease: &mut Lease,
    ) -> Result<Kept, Error> {
        let (accepted, rejected) = (decoded.accepted(), decoded.rejected_count);
        let Decoded { batch, others, rejected: reasons, causes, .. } = decoded;
        let kept = Kept { accepted, rejected, reasons, causes, is_repeat: ids.is_repeat };
        if kept.is_refused() {
            self.metrics.rejected(protocol, caller.tenant.as_str(), Cause::Streams.as_str(), rejected);
            return Err(Error::TooManyStreams);
        }
        if !kept.is_repeat {
            self.append(&caller.tenant, batch, others, ids.claim, lease).await?;
        }
        if kept.rejected > 0
            && let Some(left_out) = self.rejections.admit(self.clock.now_ns())
        {
            let tenant = caller.tenant.as_str();
            warn!(protocol, tenant, left_out, "{}", kept.summary());
        }
        Ok(kept)
    }

    /// Appends a tenant's records, and those that pipelines gave to other tenants.
    pub(super) async fn append(
        &self,
        tenant: &Tenant,
        batch: RecordBatch,
        others: Vec<(Tenant, RecordBatch)>,
        mut claim: Claim,
        lease: &mut Lease,
    ) -> Result<(), Error> {
        // The batches, and their frames for the log.
        let all = others.iter().map(|(_, batch)| batch).chain([&batch]);
        let bytes: usize = all.map(|batch| batch.get_array_memory_size()).sum();
        lease.change_to(bytes.saturating_mul(3) / 2)?;
        let store = &self.parts()?.store;
        let mut others = others.into_iter().peekable();
        while let Some((other, records)) = others.next() {
            // Each knows what it has, so that a request that came to half is not doubled when it comes again.
            let (mut of_other, seen) = claim.for_other(&other);
            // How far sources are kept goes with what is appended last.
            if others.peek().is_none() && batch.num_rows() == 0 {
                claim.give_sources_to(&mut of_other);
            }
            match seen {
                Seen::New => store.append_claimed(&other, records, of_other).await?,
                Seen::Kept => {}
                Seen::BeingKept => return Err(Error::BeingKept),
            }
        }
        let newest_ns = newest_ns(&batch);
        // The tenant's own records are last: what it knows was kept as a whole.
        store.append_claimed(tenant, batch, claim).await?;
        if let Some(newest_ns) = newest_ns {
            let lag_ns = self.clock.now_ns().saturating_sub(newest_ns);
            self.metrics.lag(Duration::from_nanos(u64::try_from(lag_ns).unwrap_or(0)));
        }
        Ok(())
    }

    /// Counts a request that came to an end.
    pub(super) fn count(
        &self,
        caller: &Caller,
        protocol: &'static str,
        started: Instant,
        mut came: IngestOutcome,
        end: Result<&Kept, &Error>,
    ) {
        if let Ok(kept) = end {
            came.accepted = if kept.is_repeat { 0 } else { kept.accepted };
            for cause in Cause::ALL {
                let count = kept.causes[cause as usize];
                self.metrics.rejected(protocol, caller.tenant.as_str(), cause.as_str(), count);
            }
        }
        let outcome = match end {
            Ok(kept) if kept.is_repeat => "repeated",
            Ok(_) => "ok",
            Err(error) => error.word(),
        };
        self.metrics.ingest(protocol, outcome, came, started.elapsed());
    }
}

/// Time of the newest record.
fn newest_ns(batch: &RecordBatch) -> Option<i64> {
    let times = batch.column_by_name(column::TIMESTAMP)?.as_primitive_opt::<TimestampNanosecondType>()?;
    arrow::compute::max(times)
}

/// A body on its way to a decoder; it holds its share of the budget until its records are kept.
pub(super) struct Received {
    pub(super) headers: HeaderMap,
    body: Bytes,
    encoding: Encoding,
    pub(super) ids: Ids,
    pub(super) lease: Lease,
    /// How the caller's lines are decoded.
    pub(super) options: Arc<decode::Options>,
    /// Bytes after decompression.
    plain_bytes: usize,
}

impl Received {
    /// Undoes `Content-Encoding`.
    pub(super) fn decompress(&mut self, app: &App) -> Result<Bytes, Error> {
        let body = std::mem::take(&mut self.body);
        let plain = body::decompress(body, self.encoding, &app.limits, &mut self.lease)?;
        self.plain_bytes = plain.len();
        Ok(plain)
    }

    /// Upper bound of the bytes there are to work on, as far as it is known before.
    fn work_bytes(&self) -> usize {
        match self.encoding {
            // Also a Loki push, whose body is a snappy block without saying so: it grows at most 22 times.
            Encoding::Identity if is_media_type(&self.headers, PROTOBUF) => self.body.len().saturating_mul(22),
            Encoding::Identity => self.body.len(),
            _ => usize::MAX,
        }
    }
}

/// Reads, decodes, keeps and counts one HTTP request.
pub(super) async fn take(
    app: &Arc<App>,
    caller: &Caller,
    protocol: &'static str,
    request: Request,
    decoder: impl FnOnce(&mut Received, &App, i64) -> Result<Decoded, Error> + Send + 'static,
) -> Result<Kept, Error> {
    let decoder = |received: &mut Received, app: &App, now_ns| Ok((decoder(received, app, now_ns)?, ()));
    take_with(app, caller, protocol, request, decoder).await.map(|(kept, ())| kept)
}

/// As [`take`], of a protocol whose answer needs more of the request than what was kept.
pub(super) async fn take_with<T: Send + 'static>(
    app: &Arc<App>,
    caller: &Caller,
    protocol: &'static str,
    request: Request,
    decoder: impl FnOnce(&mut Received, &App, i64) -> Result<(Decoded, T), Error> + Send + 'static,
) -> Result<(Kept, T), Error> {
    let started = Instant::now();
    let mut came = IngestOutcome::default();
    let end = async {
        app.parts()?;
        app.rates.admit(&caller.tenant, app.clock.now_ns())?;
        let (parts, body) = request.into_parts();
        let encoding = Encoding::of(&parts.headers)?;
        let ids = Ids::of(app, caller, protocol, &parts.headers)?;
        let mut lease = app.budget.lease();
        let body = body::read(&parts.headers, body, &app.limits, &mut lease).await?;
        came.received_bytes = body.len();
        let now_ns = app.clock.now_ns();
        let options = app.decode_options(&caller.tenant);
        let mut received = Received { headers: parts.headers, body, encoding, ids, lease, options, plain_bytes: 0 };
        let work_bytes = received.work_bytes();
        let decode = move |app: &App| {
            let decoded = decoder(&mut received, app, now_ns);
            (received, decoded)
        };
        let (received, decoded) = app.offload(work_bytes, decode).await?;
        came.decoded_bytes = received.plain_bytes;
        app.rates.charge(&caller.tenant, now_ns, received.plain_bytes);
        let (decoded, more) = decoded?;
        let Received { ids, mut lease, .. } = received;
        Ok((app.keep(caller, protocol, decoded, ids, &mut lease).await?, more))
    };
    let end = end.await;
    app.count(caller, protocol, started, came, end.as_ref().map(|(kept, _)| kept));
    end
}

const PROTOBUF: &str = "application/x-protobuf";
pub(super) const JSON: &str = "application/json";

/// `POST /loki/api/v1/push`: 204 when at least one line was kept (as nothing of it may be sent again), 400 with the
/// reasons when none was.
pub(super) async fn loki_push(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<StatusCode, Error> {
    let decoder = match content_type(request.headers()) {
        JSON => loki_json,
        // Loki's own default.
        PROTOBUF | "" => loki_protobuf,
        other => {
            return Err(Error::Unsupported(format!("content-type '{other}' is neither '{PROTOBUF}' nor '{JSON}'")));
        }
    };
    let kept = take(&app, &caller, "loki", request, decoder).await?;
    if kept.is_all_rejected() { Err(Error::Invalid(kept.summary())) } else { Ok(StatusCode::NO_CONTENT) }
}

fn loki_json(received: &mut Received, app: &App, now_ns: i64) -> Result<Decoded, Error> {
    let body = received.decompress(app)?;
    Ok(decode::loki::push_json(&body, &received.options, now_ns)?)
}

/// A protobuf push is a snappy block, with or without a `Content-Encoding: snappy`. Under another encoding there may be
/// a block inside (Loki's reading), or the message itself (what a sender of zstd or gzip most likely means).
fn loki_protobuf(received: &mut Received, app: &App, now_ns: i64) -> Result<Decoded, Error> {
    let body = match received.encoding {
        Encoding::Identity | Encoding::Snappy => {
            received.encoding = Encoding::Snappy;
            received.decompress(app)?
        }
        _ => {
            let outer = received.decompress(app)?;
            match body::snappy_block(&outer, &app.limits, &mut received.lease) {
                Ok(inner) => inner,
                Err(Error::Invalid(_)) => outer,
                Err(limit) => return Err(limit),
            }
        }
    };
    received.plain_bytes = body.len();
    Ok(decode::loki::push_protobuf(&body, &received.options, now_ns)?)
}

/// `POST /v1/logs`: the answer is in the type of the request; rejected records are told as a partial success.
pub(super) async fn otlp_logs(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Error> {
    let is_json = match content_type(request.headers()) {
        JSON => true,
        PROTOBUF => false,
        other => {
            return Err(Error::Unsupported(format!("content-type '{other}' is neither '{PROTOBUF}' nor '{JSON}'")));
        }
    };
    let decoder = if is_json { otlp_json } else { otlp_protobuf };
    let kept = take(&app, &caller, "otlp_http", request, decoder).await?;
    let answer = export_response(&kept);
    if !is_json {
        return Ok(([(CONTENT_TYPE, PROTOBUF)], answer.encode_to_vec()).into_response());
    }
    // proto3's JSON form: 64-bit integers are strings.
    let body = match answer.partial_success {
        Some(partial) => json!({ "partialSuccess": {
            "rejectedLogRecords": partial.rejected_log_records.to_string(), "errorMessage": partial.error_message } }),
        None => json!({}),
    };
    Ok(([(CONTENT_TYPE, JSON)], body.to_string()).into_response())
}

fn otlp_json(received: &mut Received, app: &App, now_ns: i64) -> Result<Decoded, Error> {
    let body = received.decompress(app)?;
    Ok(decode::otlp::logs_json(&body, &received.options, now_ns)?)
}

fn otlp_protobuf(received: &mut Received, app: &App, now_ns: i64) -> Result<Decoded, Error> {
    let body = received.decompress(app)?;
    Ok(decode::otlp::logs_protobuf(&body, &received.options, now_ns)?)
}

/// OTLP's answer; a full success has no `partial_success` (specification, "Full Success").
pub(super) fn export_response(kept: &Kept) -> ExportLogsServiceResponse {
    let partial = ExportLogsPartialSuccess {
        rejected_log_records: i64::try_from(kept.rejected).unwrap_or(i64::MAX),
        error_message: kept.summary(),
    };
    ExportLogsServiceResponse { partial_success: (kept.rejected > 0).then_some(partial) }
}

/// `POST /api/v1/ingest`: 200 with counts and reasons; 400 when nothing was kept and something rejected.
pub(super) async fn lines(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Error> {
    let decoder = match content_type(request.headers()) {
        JSON | "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines" => {
            json_lines
        }
        "text/plain" => text_lines,
        // curl sends --data-binary as a form; what it is shows in its first byte.
        _ => any_lines,
    };
    let kept = take(&app, &caller, "lines", request, decoder).await?;
    let errors: Vec<_> = kept.reasons.iter().map(|one| json!({ "line": one.line, "reason": one.reason })).collect();
    let mut body = json!({ "accepted": kept.accepted, "rejected": kept.rejected, "errors": errors });
    let mut status = StatusCode::OK;
    if kept.is_all_rejected() {
        let error = Error::Invalid(kept.summary());
        status = error.http_status();
        body["error"] = error.to_json()["error"].take();
    }
    Ok((status, [(CONTENT_TYPE, JSON)], format!("{body}\n")).into_response())
}

fn json_lines(received: &mut Received, app: &App, now_ns: i64) -> Result<Decoded, Error> {
    let body = received.decompress(app)?;
    Ok(decode::jsonline::lines(&body, &received.options, now_ns)?)
}

fn text_lines(received: &mut Received, app: &App, now_ns: i64) -> Result<Decoded, Error> {
    let body = received.decompress(app)?;
    Ok(decode::jsonline::text(&body, &received.options, now_ns)?)
}

fn any_lines(received: &mut Received, app: &App, now_ns: i64) -> Result<Decoded, Error> {
    let body = received.decompress(app)?;
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    let decoder = if matches!(first, Some(b'{' | b'[')) { decode::jsonline::lines } else { decode::jsonline::text };
    Ok(decoder(&body, &received.options, now_ns)?)
}

/// The media type without its parameters; "" when there is none.
pub(super) fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    value.split(';').next().unwrap_or("").trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(accepted: usize, rejected: usize) -> Kept {
        let reasons = (1..=rejected.min(100)).map(|line| Rejection { line, reason: "not JSON".to_owned() }).collect();
        Kept { accepted, rejected, reasons, causes: [rejected, 0, 0, 0], is_repeat: false }
    }

    #[test]
    fn rejections_are_summed_up() {
        assert_eq!(kept(1, 2).summary(), "2 of 3 lines were rejected: line 1: not JSON; line 2: not JSON");
        assert!(kept(0, 200).summary().ends_with("line 5: not JSON; and 195 more"));
        assert!(kept(0, 1).is_all_rejected() && !kept(1, 1).is_all_rejected() && !kept(0, 0).is_all_rejected());
    }

    #[test]
    fn otlp_is_told_of_rejections_only() {
        assert_eq!(export_response(&kept(3, 0)), ExportLogsServiceResponse { partial_success: None });
        assert_eq!(export_response(&kept(3, 2)).partial_success.unwrap().rejected_log_records, 2);
    }
}
