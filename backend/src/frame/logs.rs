//! Log lines as Grafana's `log-lines` frame: timestamp, body, severity, id, labels, and fields with links (`links`).
//! Which rows those are was settled by the query. Invariant: timestamp and body are never null (a frame where they are
//! shows no line at all), and an id names the same line in every answer.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray, StringBuilder,
    UInt64Array, new_empty_array,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::compute::{cast, filter_record_batch, is_not_null, take_record_batch};
use arrow::datatypes::{DataType, TimeUnit, TimestampNanosecondType};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use serde_json::{Value, json};

use super::{Error, Field, Frame, Page, Request, column_names, links, notice};

/// What stands for a level that is not known.
pub const LEVEL_UNKNOWN: &str = "unknown";
/// Of a longer text, a page gets so much: it lays out every line it is given, and a thousand of a megabyte stop it.
const SHOWN_BYTES_MAX: usize = 16 << 10;

/// Makes the frame. **Shape**: the rows' order stays, but for a page in front, whose order becomes that of the first page.
pub fn frame(rows: &RecordBatch, request: &Request<'_>, notices: &mut Vec<Value>) -> Result<Frame, Error> {
    let rows = &timed(rows, notices)?;
    let rows = &if request.page == Page::InFront { reversed(rows)? } else { rows.clone() };
    let timestamps = rows.column_by_name("timestamp").ok_or_else(|| Error::NoTimestamp(column_names(rows)))?;
    let shown_max = if request.whole_lines { usize::MAX } else { SHOWN_BYTES_MAX };
    let (labels, mut cut) = labels(rows, shown_max)?;
    let bodies = bodies(rows, &labels)?;
    // By the whole line: what is shown of two of them may be the same.
    let ids = ids(rows, &bodies, &labels)?;
    let bodies = shortened(bodies, shown_max, &mut cut);
    let required = |field: Field| Field { nullable: false, ..field };
    let mut fields = vec![
        required(Field::new("timestamp", Arc::clone(timestamps))),
        required(Field::new("body", Arc::new(bodies))),
        required(Field::new("severity", Arc::new(severities(rows)))),
        required(Field::new("id", Arc::new(ids.clone()))),
        required(Field::new("labels", Arc::new(labels))),
    ];
    fields.extend(links::trace_fields(rows, request.links)?);
    fields.extend(links::other_fields(rows, &request.links.others)?);
    if cut.contains(&true) {
        let lines = cut.iter().filter(|cut| **cut).count();
        let size = SHOWN_BYTES_MAX >> 10;
        let has_seq = rows.column_by_name("_seq").is_some_and(|seq| seq.null_count() == 0);
        let way = match &request.links.own {
            Some(own) if has_seq => {
                fields.extend(links::whole_lines(
                    ids.iter().zip(&cut).map(|(id, cut)| id.filter(|_| *cut)).collect(),
                    own,
                ));
                "; 'whole line' in a line's details shows all of it"
            }
            _ => "",
        };
        let text = format!("Cut for display: lines of more than {size} KB ({lines}){way}.");
        notices.push(notice("info", &text));
    }
    let mut meta = json!({
        "type": "log-lines",
        "typeVersion": [0, 0],
        "custom": {"searchWords": request.search_words},
    });
    if let Some(limit) = request.limit {
        meta["custom"]["limit"] = json!(limit);
    }
    let frame = Frame::new(request.ref_id, meta, fields);
    Ok(match request.page {
        Page::Behind(id) => Frame { name: format!("beyond {id}"), ..frame },
        Page::First | Page::InFront => frame,
    })
}

/// The fields that every frame of lines has, without rows.
pub fn empty_fields() -> Vec<Field> {
    let types = [
        ("timestamp", DataType::Timestamp(TimeUnit::Nanosecond, None)),
        ("body", DataType::Utf8),
        ("severity", DataType::Utf8),
        ("id", DataType::Utf8),
        ("labels", DataType::Binary),
    ];
    types.map(|(name, data_type)| Field { nullable: false, ..Field::new(name, new_empty_array(&data_type)) }).into()
}

fn reversed(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let last_first = (0..rows.num_rows() as u64).rev();
    take_record_batch(rows, &UInt64Array::from_iter_values(last_first))
}

/// The rows that have a time.
fn timed(rows: &RecordBatch, notices: &mut Vec<Value>) -> Result<RecordBatch, Error> {
    let Some(timestamps) = rows.column_by_name("timestamp") else {
        return Err(Error::NoTimestamp(column_names(rows)));
    };
    if timestamps.as_primitive_opt::<TimestampNanosecondType>().is_none() {
        return Err(Error::NoTimestamp(column_names(rows)));
    }
    if timestamps.null_count() == 0 {
        return Ok(rows.clone());
    }
    let text = format!("Not shown: rows without a timestamp ({}).", timestamps.null_count());
    notices.push(notice("warning", &text));
    Ok(filter_record_batch(rows, &is_not_null(timestamps)?)?)
}

/// A column ready to be written as text, row by row, without an allocation each.
enum Cells<'a> {
    Text(&'a StringArray),
    Integer(&'a Int64Array),
    Float(&'a Float64Array),
    Boolean(&'a BooleanArray),
    Other(StringArray),
}

impl<'a> Cells<'a> {
    fn of(array: &'a ArrayRef) -> Result<Cells<'a>, Error> {
        Ok(match array.data_type() {
            DataType::Utf8 => Cells::Text(array.as_string()),
            DataType::Int64 => Cells::Integer(array.as_primitive()),
            DataType::Float64 => Cells::Float(array.as_primitive()),
            DataType::Boolean => Cells::Boolean(array.as_boolean()),
            _ => Cells::Other(cast(array, &DataType::Utf8)?.as_string().clone()),
        })
    }

    /// Writes a value as a JSON string: Grafana's labels are texts. Returns whether it had to be cut.
    fn write_json(&self, row: usize, shown_max: usize, out: &mut Vec<u8>) -> bool {
        match self {
            Cells::Text(array) => return write_text(array.value(row), shown_max, out),
            Cells::Other(array) => return write_text(array.value(row), shown_max, out),
            Cells::Boolean(array) => {
                out.extend_from_slice(if array.value(row) { b"\"true\"" } else { b"\"false\"" });
            }
            Cells::Integer(array) => {
                out.push(b'"');
                serde_json::to_writer(&mut *out, &array.value(row)).expect(WRITABLE);
                out.push(b'"');
            }
            Cells::Float(array) => {
                out.push(b'"');
                write_float(array.value(row), out);
                out.push(b'"');
            }
        }
        false
    }
}

const WRITABLE: &str = "writing into a vector does not fail";

fn write_text(text: &str, shown_max: usize, out: &mut Vec<u8>) -> bool {
    let start = start_of(text, shown_max);
    serde_json::to_writer(out, start.as_deref().unwrap_or(text)).expect(WRITABLE);
    start.is_some()
}

/// As Rust shows it (5, 0.25, NaN, never an exponent), by ways that are several times as fast for what logs have.
fn write_float(value: f64, out: &mut Vec<u8>) {
    if value.fract() == 0.0 && value.abs() < 1e15 && value.to_bits() != (-0.0f64).to_bits() {
        serde_json::to_writer(out, &(value as i64)).expect(WRITABLE);
    } else if (1e-3..1e15).contains(&value.abs()) {
        serde_json::to_writer(out, &value).expect(WRITABLE);
    } else {
        write!(out, "{value}").expect(WRITABLE);
    }
}

/// What is shown of a text that is too long, with a word about the rest.
fn start_of(text: &str, shown_max: usize) -> Option<String> {
    if text.len() <= shown_max {
        return None;
    }
    let start = &text[..text.floor_char_boundary(shown_max)];
    Some(format!("{start} … (cut: {} of {} bytes)", start.len(), text.len()))
}

fn shortened(bodies: StringArray, shown_max: usize, cut: &mut [bool]) -> StringArray {
    if bodies.iter().flatten().all(|body| body.len() <= shown_max) {
        return bodies;
    }
    let shorten = |(body, cut): (Option<&str>, &mut bool)| {
        let body = body.unwrap_or_default();
        let start = start_of(body, shown_max);
        *cut |= start.is_some();
        Some(start.unwrap_or_else(|| body.to_owned()))
    };
    bodies.iter().zip(cut.iter_mut()).map(shorten).collect()
}

/// A column of labels.
struct Label<'a> {
    /// Its name as a member of a JSON object, with the colon.
    key: Vec<u8>,
    nulls: Option<&'a NullBuffer>,
    cells: Cells<'a>,
}

/// Every field of a line but those that have a place of their own, as one JSON object per row, and whether it was cut.
fn labels(rows: &RecordBatch, shown_max: usize) -> Result<(BinaryArray, Vec<bool>), Error> {
    let mut columns = Vec::new();
    for (field, array) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        let own_place = matches!(field.name().as_str(), "timestamp" | "message" | "_seq");
        if own_place || array.null_count() == array.len() {
            continue;
        }
        let mut key = serde_json::to_vec(field.name()).expect("a text is JSON");
        key.push(b':');
        columns.push(Label { key, nulls: array.nulls(), cells: Cells::of(array)? });
    }
    let mut cut = vec![false; rows.num_rows()];
    let mut offsets = Vec::with_capacity(rows.num_rows() + 1);
    offsets.push(0);
    let mut json = Vec::with_capacity(rows.num_rows() * (2 + columns.len() * 24));
    for (row, is_cut) in cut.iter_mut().enumerate() {
        let mut separator = b'{';
        for column in columns.iter().filter(|column| column.nulls.is_none_or(|nulls| nulls.is_valid(row))) {
            json.push(separator);
            json.extend_from_slice(&column.key);
            *is_cut |= column.cells.write_json(row, shown_max, &mut json);
            separator = b',';
        }
        json.extend_from_slice(if separator == b'{' { b"{}" } else { b"}" });
        offsets.push(i32::try_from(json.len()).map_err(|_| ArrowError::OffsetOverflowError(json.len()))?);
    }
    let objects = BinaryArray::try_new(OffsetBuffer::new(offsets.into()), Buffer::from_vec(json), None)?;
    Ok((objects, cut))
}

/// The message; where a line has none, its fields.
fn bodies(rows: &RecordBatch, labels: &BinaryArray) -> Result<StringArray, Error> {
    let messages = rows.column_by_name("message").map(|array| cast(array, &DataType::Utf8)).transpose()?;
    if let Some(messages) = &messages
        && messages.null_count() == 0
    {
        return Ok(messages.as_string::<i32>().clone());
    }
    let mut builder = StringBuilder::with_capacity(rows.num_rows(), rows.num_rows() * 64);
    for row in 0..rows.num_rows() {
        match &messages {
            Some(messages) if messages.is_valid(row) => builder.append_value(messages.as_string::<i32>().value(row)),
            _ => builder.append_value(String::from_utf8_lossy(labels.value(row))),
        }
    }
    Ok(builder.finish())
}

fn severities(rows: &RecordBatch) -> StringArray {
    let levels = rows.column_by_name("level").and_then(|levels| levels.as_string_opt::<i32>());
    match levels {
        None => std::iter::repeat_n(Some(LEVEL_UNKNOWN), rows.num_rows()).collect(),
        Some(levels) => levels.iter().map(|level| Some(level.unwrap_or(LEVEL_UNKNOWN))).collect(),
    }
}

/// `_seq` where the rows have it; otherwise a hash of the line, numbered among equals.
fn ids(rows: &RecordBatch, bodies: &StringArray, labels: &BinaryArray) -> Result<StringArray, Error> {
    if let Some(seq) = rows.column_by_name("_seq")
        && seq.null_count() == 0
    {
        return Ok(cast(seq, &DataType::Utf8)?.as_string::<i32>().clone());
    }
    let timestamps = rows.column_by_name("timestamp").map(|array| array.as_primitive::<TimestampNanosecondType>());
    let mut seen: HashMap<u64, u32> = HashMap::new();
    let id = |row: usize| {
        let mut hasher = DefaultHasher::new();
        (timestamps.map(|array| array.value(row)), bodies.value(row), labels.value(row)).hash(&mut hasher);
        let hash = hasher.finish();
        let number = seen.entry(hash).and_modify(|number| *number += 1).or_default();
        Some(if *number == 0 { format!("{hash:016x}") } else { format!("{hash:016x}-{number}") })
    };
    Ok((0..rows.num_rows()).map(id).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(value: f64) -> String {
        let mut out = Vec::new();
        write_float(value, &mut out);
        String::from_utf8(out).expect("digits")
    }

    proptest! {
        #[test]
        fn floats_are_written_as_rust_shows_them(value in prop_oneof![any::<f64>(), -1e6..1e6, (-9999i32..9999).prop_map(|n| f64::from(n) / 8.0)]) {
            prop_assert_eq!(written(value), value.to_string());
        }
    }

    #[test]
    fn odd_floats_too() {
        for value in [0.0, -0.0, 5.0, -5.0, 0.1, 1e-3, 1e-5, 1e15, 1e16, 1e300, f64::NAN, f64::INFINITY, f64::MIN] {
            assert_eq!(written(value), value.to_string());
        }
    }
}
