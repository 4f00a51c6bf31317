//! Deletion of records: the endpoints that ask for it, tell how far it is and cancel it, and the one task that has it
//! carried out (`query` does it).
//!
//! Invariant: a deletion that was answered 202 is done eventually, over restarts, unless it is cancelled or its condition
//! can't be evaluated any more, which its state says. What a quarantined segment may have of it waits for the segment.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::body::{self, Limits};
use super::range::parse_range;
use super::status::Error;
use super::{App, Caller, Parts};
use crate::query::TimeRange;
use crate::storage::Deletion;
use crate::storage::deletion::{State as DeletionState, Wanted};

/// Wait after a failure, and between looks at files that wait for their end.
const WAIT: Duration = Duration::from_secs(5);
/// Wait when nothing is to be done; a request ends it.
const IDLE: Duration = Duration::from_secs(3_600);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    filter: String,
    from: Option<String>,
    to: Option<String>,
}

/// `POST /api/v1/delete`
pub(super) async fn request(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Error> {
    let parts = app.parts()?;
    let (head, body) = request.into_parts();
    let limits = Limits { body_bytes_max: app.sql_bytes_max, body_setting: "query.sql_bytes_max", ..app.limits };
    let body = body::read(&head.headers, body, &limits, &mut app.budget.lease()).await?;
    let asked: Asked = serde_json::from_slice(&body).map_err(|error| {
        Error::Invalid(format!("the body is not {{\"filter\": …, \"from\": …, \"to\": …}}: {error}"))
    })?;
    let now_ns = app.clock.now_ns();
    let range = parse_range(asked.from.as_deref(), asked.to.as_deref(), now_ns).map_err(Error::Invalid)?;
    let TimeRange { from_ns, to_ns } = range.unwrap_or(TimeRange { from_ns: i64::MIN, to_ns: i64::MAX });
    let filter = parts.engine.check_filter(&caller.tenant, &asked.filter).await?;
    let wanted = Wanted { tenant: caller.tenant, filter, from_ns, to_ns };
    let deletion = parts.store.begin_deletion(wanted, now_ns).await?;
    info!(id = deletion.id, tenant = %deletion.wanted.tenant, filter = deletion.wanted.filter, "deletion asked for");
    app.deletion_wanted.notify_one();
    Ok((StatusCode::ACCEPTED, Json(shown(&deletion))).into_response())
}

/// `GET /api/v1/delete`
pub(super) async fn list(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>) -> Result<Response, Error> {
    let mut deletions = app.parts()?.store.deletions().await?;
    deletions.retain(|deletion| deletion.wanted.tenant == caller.tenant);
    let shown: Vec<Value> = deletions.iter().rev().map(shown).collect();
    Ok(Json(json!({ "deletions": shown })).into_response())
}

/// `DELETE /api/v1/delete/{id}`
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    let store = &app.parts()?.store;
    let known = store.deletions().await?;
    let is_own = |deletion: &&Deletion| deletion.id.to_string() == id && deletion.wanted.tenant == caller.tenant;
    let Some(found) = known.iter().find(is_own) else {
        return Err(Error::NotFound(format!("there is no deletion '{id}'")));
    };
    match store.end_deletion(found.id, DeletionState::Cancelled, None).await? {
        Some(ended) => Ok(Json(shown(&ended)).into_response()),
        None => Err(Error::Invalid(format!("deletion {id} is {} already", found.state.as_str()))),
    }
}

fn shown(deletion: &Deletion) -> Value {
    let time = |ns: i64| Timestamp::from_nanosecond(i128::from(ns)).map(|time| time.to_string()).ok();
    let wanted = &deletion.wanted;
    json!({
        "id": deletion.id,
        "filter": wanted.filter,
        "from": time(wanted.from_ns).filter(|_| wanted.from_ns != i64::MIN),
        "to": time(wanted.to_ns).filter(|_| wanted.to_ns != i64::MAX),
        "state": deletion.state.as_str(),
        "segments_done": deletion.segments_done,
        "segments_total": deletion.segments_total,
        "records_removed": deletion.records_removed,
        "error": deletion.error,
        "requested": time(deletion.requested_ns),
    })
}

/// Does what was asked for, one deletion after another, until `stop`.
pub(super) async fn run(app: Arc<App>, stop: CancellationToken) -> &'static str {
    let work = async {
        loop {
            let wait = match app.parts() {
                Ok(parts) => pass(parts).await,
                Err(_) => WAIT,
            };
            tokio::select! {
                () = app.deletion_wanted.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
    "deletions"
}

/// One look at everything that is to be done; how long the next one can wait.
async fn pass(parts: &Parts) -> Duration {
    let mut wait = IDLE;
    let deletions = match parts.store.deletions().await {
        Ok(deletions) => deletions,
        Err(error) => {
            warn!(%error, "the deletions can't be read");
            return WAIT;
        }
    };
    for deletion in deletions.iter().filter(|deletion| deletion.state.is_open()) {
        let Err(error) = parts.engine.carry_out(deletion).await else { continue };
        warn!(id = deletion.id, %error, "a deletion is tried again");
        wait = WAIT;
        let (done, total) = (deletion.segments_done, deletion.segments_total);
        let noted = parts.store.note_deletion(deletion.id, done, total, Some(error.to_string())).await;
        if let Err(error) = noted {
            warn!(id = deletion.id, %error, "the state of a deletion can't be kept");
        }
    }
    wait
}
