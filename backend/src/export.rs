//! Everything a query matches as a file, page by page: what a panel shows ends at a limit, a download does not.
//! What the lines are is the query's; a page is asked for when the one before it was taken. Invariant: memory holds one
//! page, no line comes twice, and a file that could not be finished says so in its last line.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimestampNanosecondType};
use arrow::record_batch::RecordBatch;
use futures::Stream;
use serde_json::{Value, json};

use crate::client::{Client, Options};
use crate::error::Error;
use crate::frame;
use crate::model::{Cursor, Query};
use crate::query::{Ask, Caller, context};
use crate::sql::{self, Statement};

/// Lines asked for at once.
const PAGE_LINES: u64 = 5_000;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line.
    Json,
    /// A header and rows, as RFC 4180 has it.
    Csv,
    /// Time and message.
    Text,
}

impl Format {
    /// By its name in a request; none is JSON.
    pub fn named(name: Option<&str>) -> Result<Format, Error> {
        match name {
            None | Some("json") => Ok(Format::Json),
            Some("csv") => Ok(Format::Csv),
            Some("txt") => Ok(Format::Text),
            Some(other) => Err(Error::Request(format!("no format '{other}'; there are json, csv and txt"))),
        }
    }

    /// The headers of the answer.
    pub fn headers(self) -> [(&'static str, &'static str); 2] {
        match self {
            Format::Json => [
                ("Content-Type", "application/x-ndjson"),
                ("Content-Disposition", "attachment; filename=\"logs.jsonl\""),
            ],
            Format::Csv => [("Content-Type", "text/csv"), ("Content-Disposition", "attachment; filename=\"logs.csv\"")],
            Format::Text => [
                ("Content-Type", "text/plain; charset=utf-8"),
                ("Content-Disposition", "attachment; filename=\"logs.txt\""),
            ],
        }
    }
}

/// What to export, from the parameters of a request: `query` (the model), `from` and `to` (milliseconds), `format`.
pub fn ask(parameters: &HashMap<String, String>) -> Result<(Ask, Format), Error> {
    let text = |name: &str| parameters.get(name).map(|text| text.trim()).filter(|text| !text.is_empty());
    let missing = |name: &str| Error::Request(format!("the parameter '{name}' is missing"));
    let model: Value = serde_json::from_str(text("query").ok_or_else(|| missing("query"))?)
        .map_err(|error| Error::Request(format!("the parameter 'query' is not JSON: {error}")))?;
    let number = |name: &str| -> Result<i64, Error> {
        let text = text(name).ok_or_else(|| missing(name))?;
        text.parse().map_err(|_| Error::Request(format!("the parameter '{name}' is not a number: '{text}'")))
    };
    let (from_ms, to_ms) = (number("from")?, number("to")?);
    let interval_ms = parameters.get("intervalMs").and_then(|text| text.parse().ok()).unwrap_or(0);
    let ask = Ask { ref_id: String::new(), model, from_ms, to_ms, interval_ms, points_max: 0 };
    Ok((ask, Format::named(text("format"))?))
}

/// The file, in pieces. **Errors**: only before the first piece; what fails later stands in the last one.
pub async fn file(
    client: Arc<Client>,
    ask: Ask,
    format: Format,
    caller: &Caller,
) -> Result<impl Stream<Item = Vec<u8>> + use<>, Error> {
    let mut query = Query::normalize(&ask.model);
    query.purpose = None;
    query.builder.limit = PAGE_LINES;
    query.cursor = None;
    let options =
        Options { source: caller.source.clone(), authorization: caller.authorization.clone(), ..Options::default() };
    let mut pages = Pages { client, ask, query, options, format, columns: None, ended: false };
    let first = pages.next().await?;
    Ok(futures::stream::unfold((Some(first), pages), |(ready, mut pages)| async {
        match ready {
            Some(piece) => Some((piece, (None, pages))),
            None if pages.ended => None,
            None => match pages.next().await {
                Ok(piece) => Some((piece, (None, pages))),
                Err(error) => {
                    pages.ended = true;
                    tracing::info!(%error, "an export ended early");
                    Some((unfinished(pages.format, &error), (None, pages)))
                }
            },
        }
    }))
}

fn unfinished(format: Format, error: &Error) -> Vec<u8> {
    let text = format!("this file is not complete: {error}");
    match format {
        Format::Json => format!("{}\n", json!({"error": text})).into_bytes(),
        Format::Csv | Format::Text => format!("# {}\n", text.replace('\n', " ")).into_bytes(),
    }
}

struct Pages {
    client: Arc<Client>,
    ask: Ask,
    query: Query,
    options: Options,
    format: Format,
    /// Of the first page: columns that come up later have no place in a table's header.
    columns: Option<Vec<String>>,
    ended: bool,
}

impl Pages {
    async fn next(&mut self) -> Result<Vec<u8>, Error> {
        let context = sql::Context { limit_default: PAGE_LINES, ..context(&self.ask, &self.query, &self.client)? };
        let statement = sql::statement(&self.query, &context)?;
        let options = Options { row_limit: statement.limit, ..self.options.clone() };
        let answer = self.client.query(&statement.sql, &options).await?;
        let mut piece = Vec::new();
        if self.columns.is_none() {
            self.columns = Some(shown_columns(&answer.schema));
            self.write_header(&mut piece);
        }
        for batch in &answer.batches {
            self.write(batch, &mut piece)?;
        }
        let rows: usize = answer.batches.iter().map(RecordBatch::num_rows).sum();
        let last = answer.batches.iter().rfind(|batch| batch.num_rows() > 0).and_then(last_place);
        self.go_on(&statement, rows as u64, last);
        Ok(piece)
    }

    /// Sets the place to go on from, or the end.
    fn go_on(&mut self, statement: &Statement, rows: u64, last: Option<(i64, i64)>) {
        match (last, statement.pages) {
            (Some((timestamp_ns, seq)), Some(direction)) if rows >= PAGE_LINES => {
                self.query.cursor =
                    Some(Cursor { timestamp_ns: timestamp_ns.to_string(), seq: seq.to_string(), direction });
            }
            _ => self.ended = true,
        }
    }

    fn write_header(&self, out: &mut Vec<u8>) {
        if self.format == Format::Csv {
            let names: Vec<_> = self.columns.iter().flatten().map(|name| csv(name)).collect();
            // Writing into a vector does not fail.
            let _ = writeln!(out, "{}", names.join(","));
        }
    }

    fn write(&self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), Error> {
        let mut cells = Vec::new();
        for name in self.columns.iter().flatten() {
            // A later page may lack one: its place in the row stays.
            let array = batch.column_by_name(name);
            let texts = array.map(text_of).transpose().map_err(frame::Error::from)?;
            let texts = texts.unwrap_or_else(|| StringArray::new_null(batch.num_rows()));
            cells.push((name.as_str(), texts, array.is_some_and(|array| is_bare(array.data_type()))));
        }
        for row in 0..batch.num_rows() {
            match self.format {
                Format::Json => write_json(&cells, row, out),
                Format::Csv => {
                    let row: Vec<_> = cells.iter().map(|(_, texts, _)| csv(value(texts, row))).collect();
                    let _ = writeln!(out, "{}", row.join(","));
                }
                Format::Text => {
                    let named = |wanted: &str| cells.iter().find(|(name, ..)| *name == wanted);
                    let parts = ["timestamp", "message"].iter().filter_map(|name| named(name));
                    let parts: Vec<_> = parts.map(|(_, texts, _)| value(texts, row)).collect();
                    let _ = writeln!(out, "{}", parts.join(" "));
                }
            }
        }
        Ok(())
    }
}

/// All but the store's own.
fn shown_columns(schema: &SchemaRef) -> Vec<String> {
    schema.fields().iter().map(|field| field.name().clone()).filter(|name| name != "_seq").collect()
}

fn text_of(array: &ArrayRef) -> Result<StringArray, arrow::error::ArrowError> {
    Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())
}

/// Numbers and truth values stand without quotes.
fn is_bare(data_type: &DataType) -> bool {
    data_type.is_numeric() || *data_type == DataType::Boolean
}

fn value(texts: &StringArray, row: usize) -> &str {
    if texts.is_null(row) { "" } else { texts.value(row) }
}

fn write_json(cells: &[(&str, StringArray, bool)], row: usize, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut separator = "";
    for (name, texts, bare) in cells.iter().filter(|(_, texts, _)| texts.is_valid(row)) {
        let text = texts.value(row);
        // JSON has no NaN and no infinity.
        let bare = *bare && serde_json::from_str::<Value>(text).is_ok();
        let text = if bare { text.to_owned() } else { json!(text).to_string() };
        let _ = write!(out, "{separator}{}:{text}", json!(name));
        separator = ",";
    }
    out.extend_from_slice(b"}\n");
}

fn csv(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

fn last_place(batch: &RecordBatch) -> Option<(i64, i64)> {
    let row = batch.num_rows().checked_sub(1)?;
    let nanoseconds = DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, None);
    let times = cast(batch.column_by_name("timestamp")?, &nanoseconds).ok()?;
    let seqs = cast(batch.column_by_name("_seq")?, &DataType::Int64).ok()?;
    Some((times.as_primitive::<TimestampNanosecondType>().value(row), seqs.as_primitive::<Int64Type>().value(row)))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array};

    use super::*;

    #[test]
    fn rows_are_written_so_that_they_can_be_read_again() {
        let columns: [(&str, ArrayRef); 4] = [
            ("message", Arc::new(StringArray::from(vec![Some("say \"hi\", then\nleave"), None]))),
            ("status", Arc::new(Int64Array::from(vec![Some(500), None]))),
            ("ratio", Arc::new(Float64Array::from(vec![0.5, f64::NAN]))),
            ("_seq", Arc::new(Int64Array::from(vec![1, 2]))),
        ];
        let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true)));
        let batch = batch.expect("rows");
        assert_eq!(shown_columns(&batch.schema()), ["message", "status", "ratio"]);
        let cells: Vec<_> =
            batch.columns()[..3].iter().map(|array| (text_of(array), is_bare(array.data_type()))).collect();
        let names = ["message", "status", "ratio"];
        let cells: Vec<_> =
            names.into_iter().zip(cells).map(|(name, (texts, bare))| (name, texts.expect("text"), bare)).collect();
        let mut out = Vec::new();
        write_json(&cells, 0, &mut out);
        write_json(&cells, 1, &mut out);
        let text = String::from_utf8(out).expect("UTF-8");
        assert_eq!(
            text,
            "{\"message\":\"say \\\"hi\\\", then\\nleave\",\"status\":500,\"ratio\":0.5}\n{\"ratio\":\"NaN\"}\n"
        );
        assert_eq!(csv("say \"hi\", then"), "\"say \"\"hi\"\", then\"");
        assert_eq!(csv("plain"), "plain");
    }
}
