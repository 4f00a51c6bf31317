//! Log lines as Grafana's `log-lines` frame: timestamp, body, severity, id, labels, and the trace links.
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

use super::{Error, Field, Frame, Request, column_names, notice};
use crate::settings::Traces;

/// What stands for a level that is not known.
pub const LEVEL_UNKNOWN: &str = "unknown";

/// Makes the frame. **Shape**: the rows' order stays.
pub fn frame(rows: &RecordBatch, request: &Request<'_>, notices: &mut Vec<Value>) -> Result<Frame, Error> {
    let rows = &timed(rows, notices)?;
    let timestamps = rows.column_by_name("timestamp").ok_or_else(|| Error::NoTimestamp(column_names(rows)))?;
    let labels = labels(rows)?;
    let bodies = bodies(rows, &labels)?;
    let ids = ids(rows, &bodies, &labels)?;
    let required = |field: Field| Field { nullable: false, ..field };
    let mut fields = vec![
        required(Field::new("timestamp", Arc::clone(timestamps))),
        required(Field::new("body", Arc::new(bodies))),
        required(Field::new("severity", Arc::new(severities(rows)))),
        required(Field::new("id", Arc::new(ids))),
        required(Field::new("labels", json_column(&labels))),
    ];
    fields.extend(trace_fields(rows, request.traces)?);
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

    /// Writes a value as a JSON string: Grafana's labels are texts.
    fn write_json(&self, row: usize, out: &mut Vec<u8>) {
        // Writing into a vector does not fail.
        let _ = match self {
            Cells::Text(array) => serde_json::to_writer(out, array.value(row)).map_err(Into::into),
            Cells::Other(array) => serde_json::to_writer(out, array.value(row)).map_err(Into::into),
            Cells::Integer(array) => write!(out, "\"{}\"", array.value(row)),
            Cells::Float(array) => write!(out, "\"{}\"", array.value(row)),
            Cells::Boolean(array) => write!(out, "\"{}\"", array.value(row)),
        };
    }
}

/// Every field of a line but those that have a place of their own, as one JSON object per row.
fn labels(rows: &RecordBatch) -> Result<Vec<Vec<u8>>, Error> {
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
    for row in 0..rows.num_rows() {
        let mut object = Vec::with_capacity(columns.len() * 24);
        object.push(b'{');
        for (key, cells) in columns.iter().filter(|(_, cells)| !cells.is_null(row)) {
            if object.len() > 1 {
                object.push(b',');
            }
            object.extend_from_slice(key);
            cells.write_json(row, &mut object);
        }
        object.push(b'}');
        labels.push(object);
    }
    Ok(labels)
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

/// One field per configured name that has a value here; the first is `traceID`, the name that Grafana's own links use.
fn trace_fields(rows: &RecordBatch, traces: &Traces) -> Result<Vec<Field>, Error> {
    let links = trace_links(traces);
    let mut fields = Vec::new();
    if links.is_empty() {
        return Ok(fields);
    }
    for name in &traces.field_names {
        let Some(array) = rows.column_by_name(name).filter(|array| array.null_count() < array.len()) else { continue };
        let ids = cast(array, &DataType::Utf8)?;
        let ids: StringArray = ids.as_string::<i32>().iter().map(|id| id.filter(|id| !id.is_empty())).collect();
        let (field, shown) = if fields.is_empty() { ("traceID", "trace") } else { (name.as_str(), name.as_str()) };
        let config = Some(json!({"displayNameFromDS": shown, "links": links}));
        fields.push(Field { config, ..Field::new(field, Arc::new(ids)) });
    }
    Ok(fields)
}

/// No `queryType` in the internal link: with one, Grafana asks Jaeger in a language it does not speak.
fn trace_links(traces: &Traces) -> Vec<Value> {
    let mut links = Vec::new();
    if !traces.datasource_uid.is_empty() {
        let name = if traces.datasource_name.is_empty() { &traces.datasource_uid } else { &traces.datasource_name };
        links.push(json!({
            "title": "View trace",
            "url": "",
            "internal": {
                "datasourceUid": traces.datasource_uid,
                "datasourceName": name,
                "query": {"query": "${__value.raw}"},
            },
        }));
    }
    if !traces.external_url.is_empty() {
        links.push(json!({"title": "Open trace", "url": traces.external_url, "targetBlank": true}));
    }
    links
}
