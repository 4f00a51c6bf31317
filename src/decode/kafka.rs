//! Records of Kafka topics: what their values are, and what stands around them. Reading topics is `kafka`'s.
//!
//! Invariant: a value that is text is kept, whatever was expected of it; bytes that are neither text nor what was expected
//! are told with their place.

use std::fmt;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message as _;

use super::columns::Cell;
use super::envelope::{elements, find, members};
use super::outer::{Mark, is_id};
use super::records::Records;
use super::{Decoded, Error, Options, otlp};

/// What values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// What they look like, one by one.
    Auto,
    /// JSON: an object, several on lines of their own, or an array of them.
    Json,
    /// OTLP's message, as protobuf or JSON.
    Otlp,
    /// A line, or several that belong together.
    Text,
}

/// What becomes a field beside the value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fields {
    /// `kafka.topic`
    pub topic: bool,
    /// `kafka.partition`
    pub partition: bool,
    /// `kafka.offset`
    pub offset: bool,
    /// `kafka.key`, where it is text.
    pub key: bool,
    /// `kafka.header.NAME`, of each that is text.
    pub headers: bool,
}

/// A record of a topic.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition's number.
    pub partition: i32,
    /// Its number there.
    pub offset: i64,
    /// When it was made, ms; 0 or less: that is not known.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: &'a [u8],
    /// Names and values around it.
    pub headers: &'a [(Bytes, Option<Bytes>)],
}

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {} of '{}', partition {}", self.offset, self.topic, self.partition)
    }
}

/// Decodes messages; rejections name them by their places from 1. **Errors**: when the whole grows too large.
pub fn messages<'a>(
    messages: impl IntoIterator<Item = Message<'a>>,
    format: Format,
    fields: Fields,
    options: &Options,
    now_ns: i64,
) -> Result<Decoded, Error> {
    let mut records = Records::new(options, now_ns);
    for (place, message) in (1..).zip(messages) {
        records.reset_outer(Mark::default());
        let time_ns = (message.timestamp_ms > 0).then(|| message.timestamp_ms.saturating_mul(1_000_000));
        records.seen_at(time_ns.unwrap_or(now_ns));
        push_around(&message, fields, &mut records);
        push_value(&message, format, &mut records, place, time_ns.unwrap_or(now_ns))?;
    }
    Ok(records.finish())
}

fn push_around(message: &Message<'_>, fields: Fields, records: &mut Records<'_>) {
    let text = |bytes: &'_ [u8]| std::str::from_utf8(bytes).map(str::to_owned).ok();
    records.outer(|outer, naming| {
        if fields.topic {
            outer.push_field("kafka.topic", Cell::Text(message.topic), naming);
        }
        if fields.partition {
            outer.push_field("kafka.partition", Cell::Integer(i64::from(message.partition), ""), naming);
        }
        if fields.offset {
            outer.push_field("kafka.offset", Cell::Integer(message.offset, ""), naming);
        }
        if let Some(key) = message.key.filter(|_| fields.key).and_then(text) {
            outer.push_field("kafka.key", Cell::Text(&key), naming);
        }
        for (name, value) in message.headers {
            let (Some(name), Some(value)) = (text(name), value.as_deref().and_then(text)) else { continue };
            if let Some((trace_id, span_id)) = (name == "traceparent").then(|| trace_of(&value)).flatten() {
                outer.set_trace_id(trace_id);
                outer.set_span_id(span_id);
            } else if fields.headers {
                outer.push_field(&format!("kafka.header.{name}"), Cell::Text(&value), naming);
            }
        }
        outer.set_service_hint(message.topic);
    });
}

/// The ids of a W3C trace context, `00-TRACE-SPAN-01`.
fn trace_of(header: &str) -> Option<(&str, &str)> {
    let mut parts = header.split('-');
    let (_, trace_id, span_id) = (parts.next()?, parts.next()?, parts.next()?);
    (trace_id.len() == 32 && span_id.len() == 16 && is_id(trace_id) && is_id(span_id)).then_some((trace_id, span_id))
}

fn push_value(
    message: &Message<'_>,
    format: Format,
    records: &mut Records<'_>,
    place: usize,
    time_ns: i64,
) -> Result<(), Error> {
    if matches!(format, Format::Auto | Format::Otlp)
        && let Some(request) = otlp_request(message.value)
    {
        let around = records.outer_mark();
        return otlp::push_request(&request, records, around, &mut (place - 1), time_ns);
    }
    let value = match format {
        Format::Auto | Format::Json => without_schema(message.value),
        Format::Otlp | Format::Text => message.value,
    };
    match std::str::from_utf8(value) {
        Ok(text) if matches!(format, Format::Auto | Format::Json) => {
            for piece in pieces(text) {
                records.line(piece.as_bytes(), None, place)?;
            }
            Ok(())
        }
        Err(_) if is_binary(value) => {
            let expected = match format {
                Format::Auto => "text nor OTLP",
                Format::Json => "JSON nor text",
                Format::Otlp => "OTLP nor text",
                Format::Text => "text in UTF-8 nor without control characters",
            };
            records.reject(place, format!("{message}: {} bytes that are neither {expected}", value.len()));
            Ok(())
        }
        _ => records.line(without_end(value), None, place),
    }
}

/// The message of OTLP that a value is; one without records says nothing, so it may as well be text.
fn otlp_request(value: &[u8]) -> Option<ExportLogsServiceRequest> {
    let request = match value.first()? {
        // The first field of the protobuf message, of any length.
        0x0a => ExportLogsServiceRequest::decode(value).ok()?,
        b'{' if memchr::memmem::find(value, b"\"resourceLogs\"").is_some() => {
            let found = members(std::str::from_utf8(value).ok()?).ok()?;
            find(&found, "resourceLogs")?;
            serde_json::from_slice(value).ok()?
        }
        _ => return None,
    };
    (!request.resource_logs.is_empty()).then_some(request)
}

/// JSON without the id of its schema, which Confluent's serializers put before it: a null byte and four of the id.
fn without_schema(value: &[u8]) -> &[u8] {
    match value {
        [0, _, _, _, _, json @ ..] if json.starts_with(b"{") => json,
        other => other,
    }
}

/// The lines of a value: objects that stand on lines of their own or in an array are one each, everything else is one.
fn pieces(text: &str) -> Vec<&str> {
    let trimmed = text.trim();
    let is_object = |piece: &&str| piece.starts_with('{') && piece.ends_with('}');
    let found = match trimmed.as_bytes().first() {
        Some(b'[') => elements(trimmed).unwrap_or_default(),
        Some(b'{') if trimmed.contains('\n') => {
            trimmed.lines().map(str::trim).filter(|line| !line.is_empty()).collect()
        }
        _ => Vec::new(),
    };
    if !found.is_empty() && found.iter().all(is_object) { found } else { vec![text.trim_end_matches(['\r', '\n'])] }
}

/// Whether bytes that are not UTF-8 are not of an older encoding of text either.
fn is_binary(value: &[u8]) -> bool {
    value.iter().any(|byte| *byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | 0x1b))
}

fn without_end(value: &[u8]) -> &[u8] {
    let value = value.strip_suffix(b"\n").unwrap_or(value);
    value.strip_suffix(b"\r").unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, row};
    use super::*;

    const MS: i64 = 1_767_268_800_123;

    fn decoded(value: &[u8], format: Format, fields: Fields, headers: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let headers: Vec<(Bytes, Option<Bytes>)> = headers
            .iter()
            .map(|(name, value)| {
                (Bytes::copy_from_slice(name.as_bytes()), Some(Bytes::copy_from_slice(value.as_bytes())))
            })
            .collect();
        let message = Message {
            topic: "logs",
            partition: 2,
            offset: 41,
            timestamp_ms: MS,
            key: Some(b"k1"),
            value,
            headers: &headers,
        };
        let decoded = messages([message], format, fields, &Options::default(), NOW).unwrap();
        let rows = (0..decoded.accepted()).map(|index| row(&decoded.batch, index)).collect();
        (rows, decoded.rejected.into_iter().map(|one| one.reason).collect())
    }

    #[test]
    fn values_are_what_they_look_like() {
        let at = "timestamp=2026-01-01T12:00:00.123Z";
        let cases: &[(&str, &[&str])] = &[
            // Its own time, and its own service.
            (
                r#"{"ts":"2026-02-10T12:01:22Z","level":"error","service":"shop","msg":"m"}"#,
                &["timestamp=2026-02-10T12:01:22Z | level=error | service=shop | message=m"],
            ),
            ("plain text\n", &["{at} | service=logs | message=plain text"]),
            ("level=warn msg=slow", &["{at} | level=warn | service=logs | message=slow"]),
            ("Exception: a\n\tat b\n\tat c\n", &["{at} | service=logs | message=Exception: a\n\tat b\n\tat c"]),
            (
                "{\"msg\":\"a\"}\n{\"msg\":\"b\"}\n",
                &["{at} | service=logs | message=a", "{at} | service=logs | message=b"],
            ),
            (
                "[{\"msg\":\"a\"}, {\"msg\":\"b\"}]",
                &["{at} | service=logs | message=a", "{at} | service=logs | message=b"],
            ),
            ("{\n  \"msg\": \"a\"\n}", &["{at} | service=logs | message=a"]),
            ("[INFO] started", &["{at} | level=info | service=logs | message=started | level_original=INFO"]),
            ("\0\0\0\0\u{7}{\"msg\":\"a\"}", &["{at} | service=logs | message=a"]),
            // Fluent Bit's out_kafka.
            (
                r#"{"@timestamp":1767268805.5,"log":"x"}"#,
                &["timestamp=2026-01-01T12:00:05.5Z | service=logs | message=x"],
            ),
            (
                r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"pay"}}]},"scopeLogs":[{"logRecords":[{"body":{"stringValue":"one"},"severityNumber":17},{"timeUnixNano":"1767268805000000000","body":{"stringValue":"two"}}]}]}]}"#,
                &[
                    "{at} | level=error | service=pay | message=one",
                    "timestamp=2026-01-01T12:00:05Z | service=pay | message=two",
                ],
            ),
        ];
        for (value, expected) in cases {
            let (rows, rejected) = decoded(value.as_bytes(), Format::Auto, Fields::default(), &[]);
            let expected: Vec<String> = expected.iter().map(|row| row.replace("{at}", at)).collect();
            assert_eq!((rows, rejected), (expected, vec![]), "{value}");
        }
    }

    #[test]
    fn protobuf_is_told_from_text() {
        let json = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"one"}}]}]}]}"#;
        let request: ExportLogsServiceRequest = serde_json::from_str(json).unwrap();
        let bytes = request.encode_to_vec();
        for format in [Format::Auto, Format::Otlp] {
            let (rows, _) = decoded(&bytes, format, Fields::default(), &[]);
            assert!(rows.len() == 1 && rows[0].ends_with("service=logs | message=one"), "{rows:?}");
        }
        let (rows, _) = decoded(b"\nnot protobuf", Format::Otlp, Fields::default(), &[]);
        assert!(rows[0].ends_with("message=\nnot protobuf"), "{rows:?}");
        let (rows, _) = decoded(b"[1,2", Format::Json, Fields::default(), &[]);
        assert!(rows[0].ends_with("message=[1,2"), "{rows:?}");
    }

    #[test]
    fn poison_is_told_and_old_encodings_are_kept() {
        let (rows, rejected) = decoded(b"\x00\x01\xff\xfe", Format::Auto, Fields::default(), &[]);
        assert!(rows.is_empty());
        assert_eq!(rejected, ["offset 41 of 'logs', partition 2: 4 bytes that are neither text nor OTLP"]);
        let (rows, rejected) = decoded(b"caf\xe9 closed", Format::Auto, Fields::default(), &[]);
        assert!(rows.len() == 1 && rejected.is_empty(), "{rows:?} {rejected:?}");
    }

    #[test]
    fn what_stands_around_a_value_becomes_fields() {
        let all = Fields { topic: true, partition: true, offset: true, key: true, headers: true };
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let (rows, _) = decoded(b"m", Format::Text, all, &[("traceparent", trace), ("env", "prod")]);
        let expected = "timestamp=2026-01-01T12:00:00.123Z | service=logs | message=m | \
                        trace_id=4bf92f3577b34da6a3ce929d0e0e4736 | span_id=00f067aa0ba902b7 | kafka.topic=logs | \
                        kafka.partition=2 | kafka.offset=41 | kafka.key=k1 | kafka.header.env=prod";
        assert_eq!(rows, [expected]);
        let (rows, _) =
            decoded(b"m", Format::Text, Fields::default(), &[("traceparent", "00-00-00-01"), ("env", "prod")]);
        assert_eq!(rows, ["timestamp=2026-01-01T12:00:00.123Z | service=logs | message=m"]);
    }
}
