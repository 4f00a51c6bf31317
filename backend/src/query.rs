//! One query of a panel, from its model to encoded frames: SQL, the store's answer, frames. Each step is another
//! module's; here is their order. Invariant: dropping the future cancels the query in the store.

use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;
use serde_json::Value;

use crate::client::{Answer, Client, Options};
use crate::error::Error;
use crate::frame::{self, Page};
use crate::model::{Editor, Format, Query};
use crate::settings::LIMIT_MAX;
use crate::sql::{self, Context, Range, Shape};

/// A query as Grafana sends it. **Units**: milliseconds.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Its name in the panel.
    pub ref_id: String,
    /// What the editor stored.
    pub model: Value,
    /// Start of the panel's range.
    pub from_ms: i64,
    /// Its end.
    pub to_ms: i64,
    /// The panel's interval.
    pub interval_ms: u64,
    /// Points across the panel.
    pub points_max: u64,
}

/// Who asks, as far as the request's headers tell.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// An alert rule or an expression: only numbers are of use.
    pub numbers_only: bool,
    /// An alert rule: it takes numbers as they are, and of a series it would reduce the last bucket, which is not full yet.
    pub alert: bool,
    /// For the store's query log: `dashboard=…;title=…;panel=…;panel-title=…;user=…`.
    pub source: Option<String>,
    /// The user's own login, where the data source hands it on.
    pub authorization: Option<HeaderValue>,
    /// The cookies that the data source hands on; Grafana sends no others.
    pub cookies: Option<HeaderValue>,
}

impl Caller {
    /// What every request to the store says about who asks.
    pub fn options(&self) -> Options {
        Options {
            source: self.source.clone(),
            authorization: self.authorization.clone(),
            cookies: self.cookies.clone(),
            ..Options::default()
        }
    }
}

/// What a model is turned into SQL with: the panel's range and sizes, and the data source's limits.
pub fn context(ask: &Ask, query: &Query, client: &Client) -> Result<Context, Error> {
    let range = sql::range(query, Range::of_ms(ask.from_ms, ask.to_ms))?;
    Ok(Context {
        range,
        interval_ms: if ask.interval_ms == 0 { 60_000 } else { ask.interval_ms },
        limit_default: client.settings().limit_default,
        points_max: if ask.points_max == 0 { 1000 } else { ask.points_max },
    })
}

/// Runs a query. **Shape**: Arrow IPC files, at least one.
pub async fn run(client: &Arc<Client>, ask: &Ask, caller: &Caller) -> Result<Vec<Vec<u8>>, Error> {
    let mut query = Query::normalize(&ask.model);
    if caller.alert && query.format == Format::Auto && query.editor == Editor::Builder {
        query.format = Format::Number;
    }
    let mut statement = sql::statement(&query, &context(ask, &query, client)?)?;
    if caller.numbers_only && statement.shape == Shape::Logs {
        // Nothing to read first: the answer would be refused.
        return Err(frame::Error::LinesInAlert.into());
    }
    let options = Options {
        row_limit: statement.limit.map(|limit| limit.min(LIMIT_MAX)),
        tenant: client.settings().tenant_of(&query)?,
        // A person is told what is missing; an alert rule would take a part for the whole.
        partial: !caller.numbers_only,
        ..caller.options()
    };
    let started = Instant::now();
    let answer = client.query(&statement.sql, &options).await?;
    let answered = started.elapsed();
    statement.notices.extend(answer.cut.iter().map(|words| format!("Not all of the answer: {words}.")));
    let sql = statement.sql.clone();
    let (client, ref_id, numbers_only) = (Arc::clone(client), ask.ref_id.clone(), caller.numbers_only);
    // Encoding a thousand wide lines takes milliseconds, which no async thread has.
    let encoded = tokio::task::spawn_blocking(move || {
        let request = frame::Request {
            ref_id: &ref_id,
            shape: statement.shape,
            sql: &statement.sql,
            limit: statement.limit,
            page: page(&query),
            search_words: &statement.search_words,
            links: &client.settings().links,
            whole_lines: query.whole_lines,
            notices: &statement.notices,
            numbers_only,
            stats: answer.stats.as_ref(),
        };
        encode(&answer, &request)
    });
    let frames = encoded.await.map_err(|error| Error::Fault(error.to_string()))??;
    let encoding = started.elapsed() - answered;
    tracing::debug!(ref_id = ask.ref_id, sql, ?answered, ?encoding, frames = frames.len(), "query answered");
    Ok(frames)
}

/// A cursor against the query's own order leads in front of the first page.
fn page(query: &Query) -> Page<'_> {
    match &query.cursor {
        Some(cursor) if query.purpose.is_none() => {
            if cursor.direction == query.builder.direction {
                Page::Behind(&cursor.seq)
            } else {
                Page::InFront
            }
        }
        _ => Page::First,
    }
}

fn encode(answer: &Answer, request: &frame::Request<'_>) -> Result<Vec<Vec<u8>>, Error> {
    let frames = frame::frames(&answer.schema, &answer.batches, request)?;
    let encoded: Result<Vec<_>, _> = frames.iter().map(frame::Frame::to_ipc).collect();
    Ok(encoded.map_err(frame::Error::from)?)
}
