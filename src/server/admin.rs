//! The HTTP endpoints that ask the store to do now what it does by itself later. They change nothing that a query sees.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::App;
use super::status::Error;

/// `POST /api/v1/admin/flush`: answers when everything that was in memory is in live segments.
pub(super) async fn flush(State(app): State<Arc<App>>) -> Result<Json<Value>, Error> {
    app.parts()?.store.flush().await?;
    Ok(Json(json!({"flushed": true})))
}

/// `POST /api/v1/admin/compact`: flushes, merges every group of small segments, and answers with what was done.
pub(super) async fn compact(State(app): State<Arc<App>>) -> Result<Json<Value>, Error> {
    let store = &app.parts()?.store;
    store.flush().await?;
    let done = store.compact().await?;
    Ok(Json(json!({
        "merges": done.merges,
        "segments_merged": done.segments_merged,
        "segments_written": done.segments_written,
        "records": done.records,
    })))
}
