//! Live tail: a query's lines as they come, as packets of frame JSON. Asked of the store by polling, for a poll of a few
//! milliseconds needs no protocol of its own. Invariant: a line is sent once, lines that are left out in a flood are
//! counted, and dropping the stream ends the polling.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, Int64Array, StringArray, new_null_array};
use arrow::compute::{cast, concat_batches, sort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use futures::Stream;
use serde_json::{Value, json};

use crate::client::{self, Client, Options};
use crate::error::{Error, Kind};
use crate::frame;
use crate::model::Query;
use crate::query::Caller;
use crate::sql::{Context, Range, Shape, Tail};

/// Between two looks at the store: a line is on the screen in a quarter of a second.
const POLL_EVERY: Duration = Duration::from_millis(200);
/// Between two tries to reach a store that is away.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// One look may take this long.
const POLL_TIMEOUT: Duration = Duration::from_secs(10);
/// Lines of a packet. The page keeps about a thousand, and more than twice that in a fifth of a second nobody reads.
const PACKET_LINES_MAX: usize = 2_000;
/// Lines shown before the first new one.
const BACKFILL_LINES: usize = 100;
/// Lines with older timestamps are not live, and looking for them would read all there is.
const LOOK_BACK_NS: i64 = 3_600_000_000_000;
/// A store's first line has the number 0.
const BEFORE_ALL_SEQ: i64 = -1;
/// Queries that panels may follow by their key.
const CHANNELS_MAX: usize = 1_000;

/// Grafana runs a stream right after the subscription; later, it is another viewer's.
const SUBSCRIPTION_AGE_MAX: Duration = Duration::from_secs(10);

/// What is known of channels between the calls about them.
#[derive(Default)]
pub struct Channels {
    /// The queries of dashboard panels, whose subscriptions come with a path and nothing else.
    known: Mutex<VecDeque<(String, Value)>>,
    /// Where the store was when somebody subscribed: lines after that are new to them.
    subscribed: Mutex<VecDeque<Subscription>>,
}

struct Subscription {
    channel: String,
    newest_seq: i64,
    at: Instant,
}

impl Channels {
    /// Remembers a model, and gives the path that stands for it. The oldest is forgotten.
    pub fn remember(&self, model: Value) -> String {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        model.to_string().hash(&mut hasher);
        let path = format!("tail/{:016x}", hasher.finish());
        let mut known = self.known.lock().expect("no code panics under this lock");
        known.retain(|(other, _)| *other != path);
        known.push_back((path.clone(), model));
        if known.len() > CHANNELS_MAX {
            known.pop_front();
        }
        path
    }

    /// The model of a stream: what came with the request, or what its path stands for.
    pub fn model(&self, path: &str, data: &[u8]) -> Option<Value> {
        if !path.starts_with("tail/") {
            return None;
        }
        if let Ok(model @ Value::Object(_)) = serde_json::from_slice(data) {
            return Some(model);
        }
        let known = self.known.lock().expect("no code panics under this lock");
        known.iter().find(|(other, _)| other == path).map(|(_, model)| model.clone())
    }

    /// Remembers where the store was when a viewer came to a channel.
    pub fn subscribe(&self, channel: &str, newest_seq: i64) {
        let mut subscribed = self.subscribed.lock().expect("no code panics under this lock");
        subscribed.retain(|other| other.channel != channel && other.at.elapsed() < SUBSCRIPTION_AGE_MAX);
        subscribed.push_back(Subscription { channel: channel.to_owned(), newest_seq, at: Instant::now() });
        if subscribed.len() > CHANNELS_MAX {
            subscribed.pop_front();
        }
    }

    /// Where a stream that starts now has to begin; `None` when nobody has just come.
    pub fn begin(&self, channel: &str) -> Option<i64> {
        let mut subscribed = self.subscribed.lock().expect("no code panics under this lock");
        let index = subscribed.iter().position(|other| other.channel == channel)?;
        let found = subscribed.remove(index)?;
        (found.at.elapsed() < SUBSCRIPTION_AGE_MAX).then_some(found.newest_seq)
    }
}

/// Where the store is now. **Errors**: it does not answer.
pub async fn newest_seq(client: &Client, caller: &Caller) -> Result<i64, client::Error> {
    Ok(number(client, &Tail::newest(since_ns()), &options(caller)).await?.unwrap_or(BEFORE_ALL_SEQ))
}

/// Whether a model can be followed. **Errors**: why not, for its editor.
pub fn check(model: &Value, client: &Client) -> Result<(), Error> {
    tail(&Query::normalize(model), client).map(|_| ())
}

/// Follows a query until the stream is dropped, or the store refuses the query itself. Lines after `begin_seq` are new;
/// without it, those that come after the first look at the store.
pub fn follow(
    client: Arc<Client>,
    model: &Value,
    caller: &Caller,
    begin_seq: Option<i64>,
) -> impl Stream<Item = Result<Vec<u8>, Error>> + use<> {
    let follower = Follower {
        client,
        query: Query::normalize(model),
        options: options(caller),
        begin_seq,
        seq: None,
        interrupted: false,
        lines_max: PACKET_LINES_MAX,
    };
    futures::stream::unfold(Some(follower), |follower| async {
        let mut follower = follower?;
        match follower.next().await {
            Ok(packet) => Some((Ok(packet), Some(follower))),
            Err(error) => Some((Err(error), None)),
        }
    })
}

fn options(caller: &Caller) -> Options {
    Options { timeout: Some(POLL_TIMEOUT), ..caller.options() }
}

fn tail(query: &Query, client: &Client) -> Result<Tail, Error> {
    let since_ns = since_ns();
    let limit_default = client.settings().limit_default;
    let range = Range { from_ns: since_ns, to_ns: i64::MAX };
    Ok(Tail::new(query, since_ns, &Context { range, interval_ms: 60_000, limit_default, points_max: 1000 })?)
}

fn since_ns() -> i64 {
    let now_ns = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
    now_ns.saturating_sub(LOOK_BACK_NS)
}

struct Follower {
    client: Arc<Client>,
    query: Query,
    options: Options,
    /// Where to begin.
    begin_seq: Option<i64>,
    /// The last line that was sent, or looked past; `None` before the first look.
    seq: Option<i64>,
    /// The store was away: it may be another one now.
    interrupted: bool,
    /// Lines of the next packet; fewer once they turned out to be very long.
    lines_max: usize,
}

impl Follower {
    /// Waits for lines. **Errors**: only those that another try would meet again.
    async fn next(&mut self) -> Result<Vec<u8>, Error> {
        loop {
            let first = self.seq.is_none();
            match self.look().await {
                Ok(Some(packet)) => return Ok(packet),
                Ok(None) if first => {}
                Ok(None) => tokio::time::sleep(POLL_EVERY).await,
                Err(Error::Client(client::Error::TooLarge)) if self.lines_max > 1 => {
                    self.lines_max = (self.lines_max / 4).max(1)
                }
                Err(error) => {
                    let passes = matches!(
                        error.kind(),
                        Kind::Unreachable | Kind::Unavailable | Kind::Deadline | Kind::Limit | Kind::Internal
                    );
                    if !passes {
                        return Err(error);
                    }
                    if !self.interrupted {
                        tracing::warn!(%error, "live tail is interrupted");
                    }
                    self.interrupted = true;
                    tokio::time::sleep(RETRY_EVERY).await;
                }
            }
        }
    }

    async fn look(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let tail = tail(&self.query, &self.client)?;
        let Some(mut seq) = self.seq else {
            let newest = match self.begin_seq {
                Some(seq) => seq,
                None => self.number(&Tail::newest(since_ns())).await?.unwrap_or(BEFORE_ALL_SEQ),
            };
            let rows = self.rows(&tail.backfill(newest, BACKFILL_LINES.min(self.lines_max))).await?;
            self.seq = Some(newest);
            return self.packet(rows, 0);
        };
        if self.interrupted {
            // A store that starts again from nothing counts from the start.
            let newest = self.number(&Tail::newest(since_ns())).await?;
            if newest.is_some_and(|newest| newest < seq) {
                seq = BEFORE_ALL_SEQ;
            }
            self.interrupted = false;
            tracing::info!("live tail goes on");
        }
        let rows = self.rows(&tail.after(seq, self.lines_max)).await?;
        let Some((oldest, newest)) = rows.as_ref().and_then(bounds) else { return Ok(None) };
        let full = rows.as_ref().is_some_and(|rows| rows.num_rows() >= self.lines_max);
        let dropped = if full { self.number(&tail.count_between(seq, oldest)).await?.unwrap_or(0) } else { 0 };
        self.seq = Some(newest);
        self.packet(rows, dropped)
    }

    async fn rows(&self, sql: &str) -> Result<Option<RecordBatch>, client::Error> {
        rows(&self.client, sql, &self.options).await
    }

    async fn number(&self, sql: &str) -> Result<Option<i64>, client::Error> {
        number(&self.client, sql, &self.options).await
    }

    /// The lines as a packet, the oldest first: a stream grows at its end.
    fn packet(&self, rows: Option<RecordBatch>, dropped: i64) -> Result<Option<Vec<u8>>, Error> {
        let Some(rows) = rows else { return Ok(None) };
        let mut rows = by_seq(&rows).map_err(frame::Error::from)?;
        if dropped > 0 {
            let gap = gap(&rows, dropped).map_err(frame::Error::from)?;
            rows = concat_batches(&rows.schema(), [&gap, &rows]).map_err(frame::Error::from)?;
        }
        let request = frame::Request {
            ref_id: &self.query.ref_id,
            shape: Shape::Logs,
            sql: "",
            limit: None,
            page: frame::Page::First,
            search_words: &[],
            links: &self.client.settings().links,
            whole_lines: false,
            notices: &[],
            numbers_only: false,
            stats: None,
        };
        let mut frames = frame::frames(&rows.schema(), &[rows], &request)?;
        let mut packet = frames.swap_remove(0);
        if dropped > 0 {
            packet.meta["custom"]["dropped"] = json!(dropped);
        }
        Ok(Some(packet.to_json().into_bytes()))
    }
}

/// A line that stands where lines were left out. The live view shows lines and nothing else, so that a notice of the
/// frame would not be seen.
fn gap(rows: &RecordBatch, dropped: i64) -> Result<RecordBatch, ArrowError> {
    let text = format!("… {dropped} lines came too fast to be shown here; add a filter, or stop and run the query");
    let schema = rows.schema();
    let columns = schema.fields().iter().zip(rows.columns()).map(|(field, column)| match field.name().as_str() {
        "timestamp" => Ok(column.slice(0, 1)),
        // Between the line before it and the first that is shown: no other line has this number.
        "_seq" => {
            let first = cast(column, &DataType::Int64)?.as_primitive::<Int64Type>().value(0);
            cast(&Int64Array::from(vec![first - 1]), column.data_type())
        }
        "message" => cast(&StringArray::from(vec![text.as_str()]), column.data_type()),
        "level" => cast(&StringArray::from(vec!["warn"]), column.data_type()),
        _ => Ok(new_null_array(column.data_type(), 1)),
    });
    let columns = columns.collect::<Result<_, _>>()?;
    RecordBatch::try_new(schema, columns)
}

async fn rows(client: &Client, sql: &str, options: &Options) -> Result<Option<RecordBatch>, client::Error> {
    let answer = client.query(sql, options).await?;
    let rows = concat_batches(&answer.schema, &answer.batches);
    let rows = rows.map_err(|error| client::Error::Internal(error.to_string()))?;
    Ok((rows.num_rows() > 0).then_some(rows))
}

async fn number(client: &Client, sql: &str, options: &Options) -> Result<Option<i64>, client::Error> {
    let rows = rows(client, sql, options).await?;
    let column = rows.as_ref().and_then(|rows| rows.columns().first()?.as_primitive_opt::<Int64Type>());
    Ok(column.filter(|column| column.is_valid(0)).map(|column| column.value(0)))
}

fn bounds(rows: &RecordBatch) -> Option<(i64, i64)> {
    let seq = rows.column_by_name("_seq")?.as_primitive_opt::<Int64Type>()?;
    Some((arrow::compute::min(seq)?, arrow::compute::max(seq)?))
}

fn by_seq(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    match rows.column_by_name("_seq") {
        None => Ok(rows.clone()),
        Some(seq) => take_record_batch(rows, &sort_to_indices(seq, None, None)?),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, TimestampNanosecondArray};

    use super::*;

    #[test]
    fn lines_left_out_leave_a_line_that_says_so() {
        let columns: [(&str, ArrayRef); 4] = [
            ("timestamp", Arc::new(TimestampNanosecondArray::from(vec![70, 80]))),
            ("message", Arc::new(StringArray::from(vec!["a", "b"]))),
            ("service", Arc::new(StringArray::from(vec![Some("bff"), None]))),
            ("_seq", Arc::new(Int64Array::from(vec![7, 8]))),
        ];
        let rows = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true)));
        let gap = gap(&rows.expect("rows"), 12).expect("a row");
        let text = |name: &str| gap[name].as_string::<i32>().clone();
        assert_eq!(gap.num_rows(), 1);
        assert!(text("message").value(0).starts_with("… 12 lines came too fast"), "{gap:?}");
        assert!(text("service").is_null(0));
        assert_eq!(gap["_seq"].as_primitive::<Int64Type>().value(0), 6);
    }

    #[test]
    fn a_stream_begins_where_its_viewer_came_and_only_once() {
        let channels = Channels::default();
        channels.subscribe("a", 7);
        channels.subscribe("b", 8);
        channels.subscribe("a", 9);
        assert_eq!(channels.begin("a"), Some(9));
        assert_eq!(channels.begin("a"), None, "a stream that Grafana starts again begins with the present");
        assert_eq!(channels.begin("b"), Some(8));
    }

    #[test]
    fn a_path_stands_for_its_query() {
        let channels = Channels::default();
        let path = channels.remember(json!({"refId": "A"}));
        assert_eq!(channels.remember(json!({"refId": "A"})), path, "one query, one path");
        assert_ne!(channels.remember(json!({"refId": "B"})), path);
        assert_eq!(channels.model(&path, b""), Some(json!({"refId": "A"})));
        assert_eq!(
            channels.model("tail/x", b"{\"sql\":\"\"}"),
            Some(json!({"sql": ""})),
            "what comes along counts first"
        );
        assert_eq!(channels.model("tail/x", b""), None);
        assert_eq!(channels.model("other/x", b"{}"), None);
        for number in 0..CHANNELS_MAX {
            channels.remember(json!({"refId": number}));
        }
        assert_eq!(channels.model(&path, b""), None, "the oldest is forgotten");
    }
}
