//! Log lines as Grafana's `log-lines` frame: timestamp, body, severity, id, labels, and fields with links (`links`).
//! Which rows those are was settled by the query. Invariant: timestamp and body are never null (a frame where they are
//! shows no line at all), and an id names the same line in every answer.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanArray, Float64Array, Int64Array, StringArray, StringBuilder,
    new_empty_array,
};
use arrow::compute::{cast, filter_record_batch, is_not_null};
use arrow::datatypes::{DataType, TimeUnit, TimestampNanosecondType};
use arrow::record_batch::RecordBatch;
use serde_json::{Value, json};

use super::{Error, Field, Frame, Request, column_names, links, notice};

/// What stands for a level that is not known.
pub const LEVEL_UNKNOWN: &str = "unknown";
/// Of a longer text, a page gets so much: it lays out every line it is given, and a thousand of a megabyte stop it.
const SHOWN_BYTES_MAX: usize = 16 << 10;

/// Makes the frame. **Shape**: the rows' order stays.
pub fn frame(rows: &RecordBatch, request: &Request<'_>, notices: &mut Vec<Value>) -> Result<Frame, Error> {
    let rows = &timed(rows, notices)?;
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
        required(Field::new("labels", json_column(&labels))),
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
    Ok(Frame { ref_id: request.ref_id.to_owned(), meta, fields })
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

    fn is_null(&self, row: usize) -> bool {
        match self {
            Cells::Text(array) => array.is_null(row),
            Cells::Integer(array) => array.is_null(row),
            Cells::Float(array) => array.is_null(row),
            Cells::Boolean(array) => array.is_null(row),
            Cells::Other(array) => array.is_null(row),
        }
    }

    /// Writes a value as a JSON string: Grafana's labels are texts. Returns whether it had to be cut.
    fn write_json(&self, row: usize, shown_max: usize, out: &mut Vec<u8>) -> bool {
        let mut cut = false;
        let mut text = |text: &str, out: &mut Vec<u8>| match start_of(text, shown_max) {
            None => serde_json::to_writer(out, text).map_err(Into::into),
            Some(start) => {
                cut = true;
                serde_json::to_writer(out, &start).map_err(Into::into)
            }
        };
        // Writing into a vector does not fail.
        let _: Result<(), std::io::Error> = match self {
            Cells::Text(array) => text(array.value(row), out),
            Cells::Other(array) => text(array.value(row), out),
            Cells::Integer(array) => write!(out, "\"{}\"", array.value(row)),
            Cells::Float(array) => write!(out, "\"{}\"", array.value(row)),
            Cells::Boolean(array) => write!(out, "\"{}\"", array.value(row)),
        };
        cut
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

/// Every field of a line but those that have a place of their own, as one JSON object per row, and whether it was cut.
fn labels(rows: &RecordBatch, shown_max: usize) -> Result<(Vec<Vec<u8>>, Vec<bool>), Error> {
    let mut columns = Vec::new();
    for (field, array) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        let own_place = matches!(field.name().as_str(), "timestamp" | "message" | "_seq");
        if own_place || array.null_count() == array.len() {
            continue;
        }
        let mut key = serde_json::to_vec(field.name()).expect("a text is JSON");
        key.push(b':');
        columns.push((key, Cells::of(array)?));
    }
    let mut labels = Vec::with_capacity(rows.num_rows());
    let mut cut = vec![false; rows.num_rows()];
    for (row, is_cut) in cut.iter_mut().enumerate() {
        let mut object = Vec::with_capacity(columns.len() * 24);
        object.push(b'{');
        for (key, cells) in columns.iter().filter(|(_, cells)| !cells.is_null(row)) {
            if object.len() > 1 {
                object.push(b',');
            }
            object.extend_from_slice(key);
            *is_cut |= cells.write_json(row, shown_max, &mut object);
        }
        object.push(b'}');
        labels.push(object);
    }
    Ok((labels, cut))
}

fn json_column(objects: &[Vec<u8>]) -> ArrayRef {
    let bytes = objects.iter().map(Vec::len).sum();
    let mut builder = BinaryBuilder::with_capacity(objects.len(), bytes);
    for object in objects {
        builder.append_value(object);
    }
    Arc::new(builder.finish())
}

/// The message; where a line has none, its fields.
fn bodies(rows: &RecordBatch, labels: &[Vec<u8>]) -> Result<StringArray, Error> {
    let messages = rows.column_by_name("message").map(|array| cast(array, &DataType::Utf8)).transpose()?;
    if let Some(messages) = &messages
        && messages.null_count() == 0
    {
        return Ok(messages.as_string::<i32>().clone());
    }
    let mut builder = StringBuilder::with_capacity(rows.num_rows(), rows.num_rows() * 64);
    for (row, object) in labels.iter().enumerate() {
        match &messages {
            Some(messages) if messages.is_valid(row) => builder.append_value(messages.as_string::<i32>().value(row)),
            _ => builder.append_value(String::from_utf8_lossy(object)),
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
fn ids(rows: &RecordBatch, bodies: &StringArray, labels: &[Vec<u8>]) -> Result<StringArray, Error> {
    if let Some(seq) = rows.column_by_name("_seq")
        && seq.null_count() == 0
    {
        return Ok(cast(seq, &DataType::Utf8)?.as_string::<i32>().clone());
    }
    let timestamps = rows.column_by_name("timestamp").map(|array| array.as_primitive::<TimestampNanosecondType>());
    let mut seen: HashMap<u64, u32> = HashMap::new();
    let id = |row: usize| {
        let mut hasher = DefaultHasher::new();
        (timestamps.map(|array| array.value(row)), bodies.value(row), &labels[row]).hash(&mut hasher);
        let hash = hasher.finish();
        let number = seen.entry(hash).and_modify(|number| *number += 1).or_default();
        Some(if *number == 0 { format!("{hash:016x}") } else { format!("{hash:016x}-{number}") })
    };
    Ok((0..rows.num_rows()).map(id).collect())
}
