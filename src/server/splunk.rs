//! Splunk's HTTP event collector: its paths, its codes, and acknowledgements asked for later.
//!
//! Invariant: an `ackId` is given after its events were fsynced, so whoever asks for one that was given is told `true`,
//! also after a restart: ids are the microseconds at which they were given, never the same one twice in a process.
//! Source: Splunk's "HTTP Event Collector REST API endpoints" and "About HTTP Event Collector Indexer Acknowledgment".

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::elastic::query_of;
use super::ingest::{Kept, Received, take};
use super::status::Error;
use super::{App, Caller, body};
use crate::decode::splunk;

/// Header that names the channel of a client; a query parameter may, too.
const CHANNEL: &str = "x-splunk-request-channel";
/// What a `/raw` request may say of all its lines.
const RAW_FIELDS: [&str; 4] = ["host", "source", "sourcetype", "index"];

/// The routes below `/services/collector`.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/services/collector", post(events))
        .route("/services/collector/event", post(events))
        .route("/services/collector/event/1.0", post(events))
        .route("/services/collector/raw", post(raw))
        .route("/services/collector/raw/1.0", post(raw))
        .route("/services/collector/ack", post(acks))
        .route("/services/collector/ack/1.0", post(acks))
}

/// The route that load balancers ask, without credentials.
pub(super) fn open_routes() -> Router<Arc<App>> {
    Router::new().route("/services/collector/health", get(health)).route("/services/collector/health/1.0", get(health))
}

/// The ids of acknowledgements.
#[derive(Debug, Default)]
pub(super) struct Acks {
    last: AtomicI64,
}

impl Acks {
    /// A new one, larger than all before.
    fn give(&self, now_ns: i64) -> i64 {
        let now = now_ns / 1_000;
        let next = |last: i64| Some(now.max(last + 1));
        self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).map_or(now, |last| now.max(last + 1))
    }

    /// Whether this one was given, by this process or one before.
    fn was_given(&self, id: i64, started_ns: i64) -> bool {
        id > 0 && id <= self.last.load(Ordering::Relaxed).max(started_ns / 1_000)
    }
}

async fn events(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Error> {
    let channel = channel_of(&request);
    let decoder = |received: &mut Received, app: &App, now_ns: i64| {
        let body = received.decompress(app)?;
        Ok(splunk::events(&body, &received.options, now_ns)?)
    };
    let kept = take(&app, &caller, "splunk", request, decoder).await?;
    Ok(answer(&app, &kept, channel.is_some()))
}

async fn raw(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Error> {
    let channel = channel_of(&request);
    let query: Vec<(String, String)> = query_of(&request).collect();
    let decoder = move |received: &mut Received, app: &App, now_ns: i64| {
        let body = received.decompress(app)?;
        let pairs = || query.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let time_ns = pairs().find(|(name, _)| *name == "time").and_then(|(_, value)| splunk::time_of(value));
        let fields = pairs().filter(|(name, _)| RAW_FIELDS.contains(name)).collect();
        Ok(splunk::raw(&body, &splunk::Metadata { fields, time_ns }, &received.options, now_ns)?)
    };
    let kept = take(&app, &caller, "splunk", request, decoder).await?;
    Ok(answer(&app, &kept, channel.is_some()))
}

fn channel_of(request: &Request) -> Option<String> {
    let header = |headers: &HeaderMap| headers.get(CHANNEL).and_then(|value| value.to_str().ok()).map(str::to_owned);
    header(request.headers()).or_else(|| query_of(request).find(|(name, _)| name == "channel").map(|(_, value)| value))
}

/// Success when at least one event was kept, since nothing of it may be sent again; the code of the first fault when none.
fn answer(app: &App, kept: &Kept, has_channel: bool) -> Response {
    let first = kept.reasons.first();
    if kept.accepted == 0 {
        let (text, code) = match first.map(|first| first.reason.as_str()) {
            None => ("No data", 5),
            Some(splunk::NO_EVENT) => (splunk::NO_EVENT, 12),
            Some(splunk::BLANK_EVENT) => (splunk::BLANK_EVENT, 13),
            Some(_) => ("Invalid data format", 6),
        };
        let mut body = json!({ "text": text, "code": code });
        if let Some(first) = first {
            // Counted from 0.
            body["invalid-event-number"] = json!(first.line.saturating_sub(1));
        }
        return (StatusCode::BAD_REQUEST, Json(body)).into_response();
    }
    let mut body = json!({ "text": "Success", "code": 0 });
    if has_channel {
        body["ackId"] = json!(app.splunk_acks.give(app.clock.now_ns()));
    }
    if kept.rejected > 0 {
        body["rejected"] = json!(kept.summary());
    }
    Json(body).into_response()
}

#[derive(Deserialize)]
struct AcksAsked {
    acks: Vec<i64>,
}

async fn acks(State(app): State<Arc<App>>, request: Request) -> Result<Response, Error> {
    if channel_of(&request).is_none() {
        return Ok(
            (StatusCode::BAD_REQUEST, Json(json!({ "text": "Data channel is missing", "code": 10 }))).into_response()
        );
    }
    let (parts, body) = request.into_parts();
    let body = body::read(&parts.headers, body, &app.limits, &mut app.budget.lease()).await?;
    let Ok(asked) = serde_json::from_slice::<AcksAsked>(&body) else {
        return Ok((StatusCode::BAD_REQUEST, Json(json!({ "text": "Invalid data format", "code": 6 }))).into_response());
    };
    let told = |id: i64| (id.to_string(), Value::Bool(app.splunk_acks.was_given(id, app.started_ns)));
    let acks: BTreeMap<String, Value> = asked.acks.into_iter().map(told).collect();
    Ok(Json(json!({ "acks": acks })).into_response())
}

async fn health(State(app): State<Arc<App>>) -> Result<Response, Error> {
    app.parts()?.store.health()?;
    Ok(Json(json!({ "text": "HEC is healthy", "code": 17 })).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_are_never_the_same_and_outlive_a_restart() {
        let acks = Acks::default();
        let given: Vec<i64> = [5_000_000, 5_000_000, 4_000_000, 9_000_000].map(|now_ns| acks.give(now_ns)).to_vec();
        assert_eq!(given, [5_000, 5_001, 5_002, 9_000]);
        assert!(given.iter().all(|id| acks.was_given(*id, 0)));
        assert!(!acks.was_given(9_001, 0) && !acks.was_given(0, 0) && !acks.was_given(-1, 0));
        let restarted = Acks::default();
        assert!(given.iter().all(|id| restarted.was_given(*id, 10_000_000)));
        assert!(!restarted.was_given(20_000, 10_000_000));
    }
}
