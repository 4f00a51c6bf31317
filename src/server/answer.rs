//! A query from the moment it is asked for until its last row: counted, logged when slow, cancelled when dropped.
//! HTTP and Flight SQL both answer with it; how rows look on the wire is theirs.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::Stream;
use tracing::{info, warn};

use super::status::Error;
use super::{App, query};
use crate::error::Kind;

/// How much of a statement is logged.
const LOGGED_SQL_BYTES_MAX: usize = 2_000;
/// Outcome of a query that was never to run; it is not counted.
const PLANNED: &str = "planned";
/// Outcome until another is known.
const CANCELLED: &str = "cancelled";

/// A planned query that has not started.
pub(super) struct Planned {
    prepared: query::Prepared,
    watch: Watch,
}

impl App {
    /// Plans a query; `endpoint` is its label in metrics, `source` what the caller said of itself.
    pub(super) async fn plan(
        self: &Arc<Self>,
        request: query::Request,
        endpoint: &'static str,
        source: Option<String>,
    ) -> Result<Planned, Error> {
        let (engine, mut watch) = self.watch(&request, endpoint, source)?;
        match engine.prepare(request).await {
            Ok(prepared) => Ok(Planned { prepared, watch }),
            Err(error) => Err(watch.failed(error)),
        }
    }

    /// Plans a query and starts it.
    pub(super) async fn ask(
        self: &Arc<Self>,
        request: query::Request,
        endpoint: &'static str,
        source: Option<String>,
    ) -> Result<Answer, Error> {
        let (engine, mut watch) = self.watch(&request, endpoint, source)?;
        match engine.start(request).await {
            Ok(rows) => Ok(Answer { rows: Box::pin(rows), ended: false, watch }),
            Err(error) => Err(watch.failed(error)),
        }
    }

    fn watch(
        self: &Arc<Self>,
        request: &query::Request,
        endpoint: &'static str,
        source: Option<String>,
    ) -> Result<(Arc<query::Engine>, Watch), Error> {
        let engine = self.parts()?.engine.clone();
        if request.sql.len() > self.sql_bytes_max {
            return Err(Error::TooLarge {
                what: "an SQL text",
                limit: self.sql_bytes_max,
                setting: "query.sql_bytes_max",
            });
        }
        let (sql, tenant, started) = (shorten(&request.sql), request.tenant.to_string(), Instant::now());
        let (app, rows, bytes, outcome) = (self.clone(), 0, 0, CANCELLED);
        Ok((engine, Watch { app, endpoint, sql, tenant, source, started, rows, bytes, outcome }))
    }
}

impl Planned {
    /// Schema of the answer. The plan is dropped without being run.
    pub(super) fn schema(mut self) -> SchemaRef {
        self.watch.outcome = PLANNED;
        self.prepared.schema()
    }
}

/// What is told when an answer was cut at the store's own limit (a limit of the caller's is no error).
pub(super) fn cut() -> Error {
    Error::Query(query::Error::Limit(
        "the answer was cut at the limit 'query.rows_max'; narrow the time range, aggregate, or add a LIMIT".to_owned(),
    ))
}

/// The rows of a running query.
pub(super) struct Answer {
    rows: Pin<Box<query::Rows>>,
    /// After the last row or an error nothing is asked of `rows` any more.
    ended: bool,
    watch: Watch,
}

impl Answer {
    /// Schema of the rows.
    pub(super) fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    /// What it cost so far; complete at the end.
    pub(super) fn stats(&self) -> query::Stats {
        self.rows.stats()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.watch.bytes = self.stats().bytes_scanned;
    }
}

impl Stream for Answer {
    type Item = Result<RecordBatch, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = futures::ready!(self.rows.as_mut().poll_next(context));
        self.ended = !matches!(next, Some(Ok(_)));
        match &next {
            Some(Ok(batch)) => self.watch.rows += batch.num_rows() as u64,
            Some(Err(error)) => self.watch.fail(error),
            None if self.watch.outcome == CANCELLED => self.watch.outcome = "ok",
            None => {}
        }
        Poll::Ready(next.map(|batch| batch.map_err(Error::from)))
    }
}

/// Counts and logs a query when it is over, however it ended.
struct Watch {
    app: Arc<App>,
    endpoint: &'static str,
    sql: String,
    tenant: String,
    source: Option<String>,
    started: Instant,
    rows: u64,
    /// Read for it.
    bytes: u64,
    outcome: &'static str,
}

impl Watch {
    /// The query did not start.
    fn failed(&mut self, error: query::Error) -> Error {
        self.fail(&error);
        error.into()
    }

    fn fail(&mut self, error: &query::Error) {
        self.outcome = error.kind().as_str();
        if matches!(error.kind(), Kind::Internal | Kind::Corrupt) {
            warn!(tenant = self.tenant, sql = self.sql, "a query failed: {error}");
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.outcome == PLANNED {
            return;
        }
        let took: Duration = self.started.elapsed();
        self.app.metrics.query(self.endpoint, self.outcome, self.rows, took);
        if took >= self.app.slow_after {
            let (source, outcome) = (self.source.as_deref().unwrap_or(""), self.outcome);
            let (rows, bytes_scanned) = (self.rows, self.bytes);
            info!(tenant = self.tenant, sql = self.sql, source, outcome, rows, bytes_scanned, ?took, "slow query");
        }
    }
}

/// Cuts a statement to what is logged, between characters.
fn shorten(sql: &str) -> String {
    let end = sql.floor_char_boundary(LOGGED_SQL_BYTES_MAX);
    if end == sql.len() { sql.to_owned() } else { format!("{}…", &sql[..end]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_statements_are_cut_between_characters() {
        assert_eq!(shorten("SELECT 1"), "SELECT 1");
        let cut = shorten(&"ä".repeat(2_000));
        assert_eq!(cut.chars().count(), 1_001);
        assert!(cut.ends_with("ä…"));
    }
}
