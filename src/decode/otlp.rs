//! OTLP logs: protobuf and JSON bodies of `/v1/logs`, and the message that gRPC hands over.
//!
//! Invariant: attributes of resource, scope and record are fields around the record; its body is the line.
//! Source: the OTLP specification, and "Log data model" for severities and times.

use base64::Engine;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs};
use prost::Message;

use super::columns::Cell;
use super::outer::{Mark, Naming, Outer};
use super::records::Records;
use super::{Decoded, Error, Options};
use crate::record::{Level, number, overflow};

/// Deepest nesting of attribute values that is flattened or written as JSON; prost's own limit is 100.
const DEPTH_MAX: usize = 100;

/// Decodes a protobuf `ExportLogsServiceRequest`. **Errors**: when the bytes are none, or it grows too large.
pub fn logs_protobuf(body: &[u8], options: &Options, now_ns: i64) -> Result<Decoded, Error> {
    let request = ExportLogsServiceRequest::decode(body)
        .map_err(|error| Error::Malformed(format!("the body is no ExportLogsServiceRequest: {error}")))?;
    logs_request(&request, options, now_ns)
}

/// Decodes the JSON form. **Errors**: as [`logs_protobuf`].
pub fn logs_json(body: &[u8], options: &Options, now_ns: i64) -> Result<Decoded, Error> {
    let request: ExportLogsServiceRequest = serde_json::from_slice(body)
        .map_err(|error| Error::Malformed(format!("the body is no ExportLogsServiceRequest: {error}")))?;
    logs_request(&request, options, now_ns)
}

/// Takes a decoded message, as gRPC hands it over; what is rejected belongs into the answer's partial success.
/// **Errors**: when it grows too large.
pub fn logs_request(request: &ExportLogsServiceRequest, options: &Options, now_ns: i64) -> Result<Decoded, Error> {
    let mut records = Records::new(options, now_ns);
    push_request(request, &mut records, Mark::default(), &mut 0, now_ns)?;
    Ok(records.finish())
}

/// Adds a message's records, with the fields around them that are there already.
pub(super) fn push_request(
    request: &ExportLogsServiceRequest,
    records: &mut Records<'_>,
    around: Mark,
    place: &mut usize,
    now_ns: i64,
) -> Result<(), Error> {
    for resource in &request.resource_logs {
        records.reset_outer(around);
        push_resource(resource, records, place, now_ns)?;
    }
    Ok(())
}

fn push_resource(logs: &ResourceLogs, records: &mut Records<'_>, place: &mut usize, now_ns: i64) -> Result<(), Error> {
    let attributes = logs.resource.iter().flat_map(|resource| &resource.attributes);
    records.stream(attributes.clone().map(|attribute| (&attribute.key, attribute.encode_to_vec())));
    records.outer(|outer, naming| {
        attributes.for_each(|attribute| push_attribute("", attribute, 0, outer, naming));
    });
    let of_resource = records.outer_mark();
    for scope in &logs.scope_logs {
        records.reset_outer(of_resource);
        if let Some(scope) = &scope.scope {
            records.outer(|outer, naming| push_scope(scope, outer, naming));
        }
        let of_scope = records.outer_mark();
        for record in &scope.log_records {
            *place += 1;
            records.reset_outer(of_scope);
            records.outer(|outer, naming| push_record_fields(record, outer, naming));
            push_record(record, records, *place, now_ns)?;
        }
    }
    Ok(())
}

fn push_scope(scope: &InstrumentationScope, outer: &mut Outer, naming: &mut Naming<'_>) {
    for (name, text) in [("scope.name", &scope.name), ("scope.version", &scope.version)] {
        if !text.is_empty() {
            outer.push_field(name, Cell::Text(text), naming);
        }
    }
    scope.attributes.iter().for_each(|attribute| push_attribute("scope.", attribute, 0, outer, naming));
}

fn push_record_fields(record: &LogRecord, outer: &mut Outer, naming: &mut Naming<'_>) {
    let text = record.severity_text.as_str();
    let level = Level::from_otlp(i64::from(record.severity_number)).or_else(|| Level::parse(text.as_bytes()));
    if let Some(level) = level {
        outer.set_level(level);
    }
    if !text.is_empty() && level.is_none_or(|level| level.as_str() != text) {
        outer.push_field("severity_text", Cell::Text(text), naming);
    }
    if record.trace_id.iter().any(|byte| *byte != 0) {
        outer.set_trace_id(&hex(&record.trace_id));
    }
    if record.span_id.iter().any(|byte| *byte != 0) {
        outer.set_span_id(&hex(&record.span_id));
    }
    if !record.event_name.is_empty() {
        outer.push_field("event_name", Cell::Text(&record.event_name), naming);
    }
    for (name, count) in [("flags", record.flags), ("dropped_attributes_count", record.dropped_attributes_count)] {
        if count != 0 {
            push_integer(name, i64::from(count), outer, naming);
        }
    }
    record.attributes.iter().for_each(|attribute| push_attribute("", attribute, 0, outer, naming));
}

fn push_record(record: &LogRecord, records: &mut Records<'_>, place: usize, now_ns: i64) -> Result<(), Error> {
    // The time of the event; where it is unknown, the line may tell it, and else it is when the line was seen.
    let time_of = |time: u64| (time != 0).then(|| i64::try_from(time).unwrap_or(i64::MAX));
    let given_ns = time_of(record.time_unix_nano);
    let seen_ns = time_of(record.observed_time_unix_nano).unwrap_or(now_ns);
    let time_ns = given_ns.unwrap_or(seen_ns);
    records.seen_at(seen_ns);
    match record.body.as_ref().and_then(|body| body.value.as_ref()) {
        None => records.message(None, time_ns, place),
        Some(Value::StringValue(text)) => records.line(text.as_bytes(), given_ns, place),
        Some(value @ Value::KvlistValue(_)) => {
            let mut json = String::new();
            write_json(value, 0, &mut json);
            records.line(json.as_bytes(), given_ns, place)
        }
        Some(value) => records.message(Some(&text_of(value)), time_ns, place),
    }
}

fn push_integer(name: &str, value: i64, outer: &mut Outer, naming: &mut Naming<'_>) {
    outer.push_field(name, Cell::Integer(value, ""), naming);
}

fn push_attribute(prefix: &str, attribute: &KeyValue, depth: usize, outer: &mut Outer, naming: &mut Naming<'_>) {
    let joined;
    let name = if prefix.is_empty() {
        attribute.key.as_str()
    } else {
        joined = format!("{prefix}{}", attribute.key);
        &joined
    };
    match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        None => {}
        Some(Value::StringValue(text)) => outer.push(name, Cell::Text(text), naming),
        Some(Value::IntValue(value)) => push_integer(name, *value, outer, naming),
        Some(Value::BoolValue(value)) => outer.push_field(name, Cell::Boolean(*value), naming),
        Some(Value::DoubleValue(value)) if value.is_finite() => {
            outer.push_field(name, Cell::Float(*value, ""), naming);
        }
        Some(Value::KvlistValue(list)) if depth < DEPTH_MAX && !list.values.is_empty() => {
            let prefix = format!("{name}.");
            list.values.iter().for_each(|member| push_attribute(&prefix, member, depth + 1, outer, naming));
        }
        Some(value) => outer.push_field(name, Cell::Text(&text_of(value)), naming),
    }
}

/// A value as text: strings as they are, bytes as base64, lists as JSON.
fn text_of(value: &Value) -> String {
    match value {
        Value::StringValue(text) => text.clone(),
        Value::BytesValue(bytes) => base64::engine::general_purpose::STANDARD.encode(bytes),
        Value::DoubleValue(value) if !value.is_finite() => value.to_string(),
        other => {
            let mut json = String::new();
            write_json(other, 0, &mut json);
            json
        }
    }
}

/// Writes a value as JSON; floats that JSON does not have are strings.
fn write_json(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::IntValue(value) => out.push_str(&value.to_string()),
        Value::BoolValue(value) => out.push_str(&value.to_string()),
        Value::DoubleValue(value) if value.is_finite() => {
            let mut text = Vec::new();
            number::write_float(*value, number::Style::Rust, &mut text);
            out.push_str(&String::from_utf8_lossy(&text));
        }
        Value::ArrayValue(list) if depth < DEPTH_MAX => {
            out.push('[');
            for (index, element) in list.values.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                match &element.value {
                    Some(value) => write_json(value, depth + 1, out),
                    None => out.push_str("null"),
                }
            }
            out.push(']');
        }
        Value::KvlistValue(list) if depth < DEPTH_MAX => {
            out.push('{');
            for (index, member) in list.values.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                overflow::push_string(out, &member.key);
                out.push(':');
                match member.value.as_ref().and_then(|value| value.value.as_ref()) {
                    Some(value) => write_json(value, depth + 1, out),
                    None => out.push_str("null"),
                }
            }
            out.push('}');
        }
        Value::ArrayValue(_) | Value::KvlistValue(_) => out.push_str("null"),
        other => overflow::push_string(out, &text_of(other)),
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}
