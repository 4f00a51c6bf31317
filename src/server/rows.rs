//! Record batches → the text and byte formats that people and programs read: NDJSON, CSV, a table, an Arrow stream.
//! Used by the HTTP query endpoint and by `quiver sql`; it runs no query. Pure.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::util::display::{DurationFormat, FormatOptions};
use arrow::util::pretty::pretty_format_batches_with_options;
use arrow_ipc::writer::StreamWriter;

/// A table is laid out as a whole, so it is bounded; the other formats are not.
const TABLE_ROWS_MAX: usize = 10_000;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A frame drawn of lines, for people.
    Table,
    /// RFC 4180, with a header line.
    Csv,
    /// One JSON object per line; null fields are left out.
    Ndjson,
    /// The Arrow IPC streaming format.
    Arrow,
}

impl Format {
    /// The format that an `Accept` header prefers; `None` when it names none of ours.
    pub fn from_accept(accept: &str) -> Option<Format> {
        let mut wanted: Vec<(f32, &str)> = accept
            .split(',')
            .map(|part| {
                let mut pieces = part.split(';').map(str::trim);
                let media_type = pieces.next().unwrap_or("");
                let quality = pieces.find_map(|piece| piece.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
                (quality, media_type)
            })
            .filter(|(quality, media_type)| *quality > 0.0 && !media_type.is_empty())
            .collect();
        if wanted.is_empty() {
            return Some(Format::Ndjson);
        }
        wanted.sort_by(|a, b| b.0.total_cmp(&a.0));
        wanted.iter().find_map(|(_, media_type)| match media_type.to_ascii_lowercase().as_str() {
            "application/x-ndjson" | "application/jsonl" | "application/json" | "application/*" | "*/*" => {
                Some(Format::Ndjson)
            }
            "text/csv" => Some(Format::Csv),
            "text/plain" | "text/*" => Some(Format::Table),
            "application/vnd.apache.arrow.stream" => Some(Format::Arrow),
            _ => None,
        })
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Table => "text/plain; charset=utf-8",
            Format::Csv => "text/csv; charset=utf-8; header=present",
            Format::Ndjson => "application/x-ndjson",
            Format::Arrow => "application/vnd.apache.arrow.stream",
        }
    }
}

/// Writes the batches of one answer.
pub struct Writer {
    schema: SchemaRef,
    state: State,
}

enum State {
    Table { batches: Vec<RecordBatch>, rows: usize, left_out: usize },
    Csv { started: bool },
    Ndjson,
    Arrow(Box<StreamWriter<Vec<u8>>>),
}

impl Writer {
    /// A writer for batches of `schema`.
    pub fn new(format: Format, schema: SchemaRef) -> Result<Writer, ArrowError> {
        let state = match format {
            Format::Table => State::Table { batches: Vec::new(), rows: 0, left_out: 0 },
            Format::Csv => State::Csv { started: false },
            Format::Ndjson => State::Ndjson,
            Format::Arrow => State::Arrow(Box::new(StreamWriter::try_new(Vec::new(), &schema)?)),
        };
        Ok(Writer { schema, state })
    }

    /// Writes a batch; the bytes may be none yet.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
        match &mut self.state {
            State::Table { batches, rows, left_out } => {
                let taken = batch.num_rows().min(TABLE_ROWS_MAX - *rows);
                *rows += taken;
                *left_out += batch.num_rows() - taken;
                batches.push(batch.slice(0, taken));
                Ok(Vec::new())
            }
            State::Csv { started } => {
                let mut bytes = Vec::new();
                let with_header = !std::mem::replace(started, true);
                arrow::csv::WriterBuilder::new().with_header(with_header).build(&mut bytes).write(batch)?;
                Ok(bytes)
            }
            State::Ndjson => {
                let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
                writer.write(batch)?;
                writer.finish()?;
                Ok(writer.into_inner())
            }
            State::Arrow(writer) => {
                writer.write(batch)?;
                Ok(std::mem::take(writer.get_mut()))
            }
        }
    }

    /// Writes what stands at the end.
    pub fn finish(&mut self) -> Result<Vec<u8>, ArrowError> {
        match &mut self.state {
            State::Table { batches, left_out, .. } => {
                if batches.is_empty() {
                    batches.push(RecordBatch::new_empty(self.schema.clone()));
                }
                let options = FormatOptions::new().with_duration_format(DurationFormat::Pretty);
                let mut text = format!("{}\n", pretty_format_batches_with_options(batches, &options)?);
                if *left_out > 0 {
                    text.push_str(&format!(
                        "{left_out} more rows; a table shows {TABLE_ROWS_MAX}, CSV and NDJSON show all\n"
                    ));
                }
                Ok(text.into_bytes())
            }
            State::Csv { started: false } => self.write(&RecordBatch::new_empty(self.schema.clone())),
            State::Csv { started: true } | State::Ndjson => Ok(Vec::new()),
            State::Arrow(writer) => {
                writer.finish()?;
                Ok(std::mem::take(writer.get_mut()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array, StringArray, TimestampNanosecondArray};
    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

    use super::*;

    fn batch() -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("timestamp", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), false),
            Field::new("message", DataType::Utf8, true),
            Field::new("n", DataType::Int64, true),
            Field::new("x", DataType::Float64, true),
        ]);
        let times = TimestampNanosecondArray::from(vec![1_767_225_600_000_000_001, 0]).with_timezone("UTC");
        RecordBatch::try_new(
            Arc::new(schema),
            vec![
                Arc::new(times),
                Arc::new(StringArray::from(vec![Some("a, \"b\"\nc"), None])),
                Arc::new(Int64Array::from(vec![None, Some(i64::MAX)])),
                Arc::new(Float64Array::from(vec![Some(1.5), Some(f64::NAN)])),
            ],
        )
        .unwrap()
    }

    fn written(format: Format, batches: &[RecordBatch]) -> Vec<u8> {
        let mut writer = Writer::new(format, batch().schema()).unwrap();
        let mut bytes: Vec<u8> = batches.iter().flat_map(|batch| writer.write(batch).unwrap()).collect();
        bytes.extend(writer.finish().unwrap());
        bytes
    }

    #[test]
    fn texts_are_as_documented() {
        let cases = [
            (
                Format::Ndjson,
                "{\"timestamp\":\"2026-01-01T00:00:00.000000001Z\",\"message\":\"a, \\\"b\\\"\\nc\",\"x\":1.5}\n\
                 {\"timestamp\":\"1970-01-01T00:00:00Z\",\"n\":9223372036854775807,\"x\":null}\n",
            ),
            (
                Format::Csv,
                "timestamp,message,n,x\n2026-01-01T00:00:00.000000001Z,\"a, \"\"b\"\"\nc\",,1.5\n1970-01-01T00:00:00Z,,9223372036854775807,NaN\n",
            ),
        ];
        for (format, expected) in cases {
            assert_eq!(String::from_utf8(written(format, &[batch()])).unwrap(), expected, "{format:?}");
        }
        let table = String::from_utf8(written(Format::Table, &[batch()])).unwrap();
        assert!(table.contains("| 2026-01-01T00:00:00.000000001Z | a, \"b\""), "{table}");
    }

    #[test]
    fn no_rows_still_tell_their_columns() {
        assert_eq!(written(Format::Csv, &[]), b"timestamp,message,n,x\n");
        assert_eq!(written(Format::Ndjson, &[]), b"");
        assert!(String::from_utf8(written(Format::Table, &[])).unwrap().contains("| timestamp | message | n | x |"));
        let arrow = written(Format::Arrow, &[]);
        assert_eq!(arrow_ipc::reader::StreamReader::try_new(&arrow[..], None).unwrap().schema(), batch().schema());
    }

    #[test]
    fn a_header_stands_once_and_arrow_comes_back() {
        let csv = String::from_utf8(written(Format::Csv, &[batch(), batch()])).unwrap();
        assert_eq!(csv.matches("timestamp,message").count(), 1);
        let arrow = written(Format::Arrow, &[batch(), batch()]);
        let back: Vec<_> =
            arrow_ipc::reader::StreamReader::try_new(&arrow[..], None).unwrap().map(Result::unwrap).collect();
        assert_eq!(back.len(), 2);
        assert_eq!(back[0].column(1), batch().column(1));
    }

    #[test]
    fn a_table_is_bounded_and_says_so() {
        let many: Vec<_> = (0..6_000).map(|_| batch()).collect();
        let table = String::from_utf8(written(Format::Table, &many)).unwrap();
        assert!(table.ends_with("2000 more rows; a table shows 10000, CSV and NDJSON show all\n"));
    }

    #[test]
    fn accept_chooses_the_format() {
        let cases = [
            ("", Some(Format::Ndjson)),
            ("*/*", Some(Format::Ndjson)),
            ("application/json", Some(Format::Ndjson)),
            ("text/csv", Some(Format::Csv)),
            ("text/plain;q=0.5, text/csv", Some(Format::Csv)),
            ("text/html, text/plain;q=0.2, */*;q=0.1", Some(Format::Table)),
            ("application/vnd.apache.arrow.stream", Some(Format::Arrow)),
            ("image/png", None),
        ];
        for (accept, expected) in cases {
            assert_eq!(Format::from_accept(accept), expected, "{accept}");
        }
    }
}
