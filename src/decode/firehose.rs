//! Amazon Data Firehose's delivery over HTTP: records in base64, of lines, or of CloudWatch Logs' own gzip messages.
//!
//! Invariant: a record that can't be read is rejected by its place and costs no other.
//! Source: Firehose's "HTTP endpoint delivery request and response specifications"; CloudWatch Logs' "Subscription filters".

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::Deserialize;

use super::columns::Cell;
use super::envelope::{self, members};
use super::jsonline::split;
use super::outer::Mark;
use super::records::Records;
use super::{Decoded, Options};

#[derive(Deserialize)]
struct Delivery<'a> {
    #[serde(borrow)]
    records: Vec<Record<'a>>,
}

#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    data: Cow<'a, str>,
}

/// What CloudWatch Logs sends to its subscribers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CloudWatch<'a> {
    #[serde(borrow)]
    message_type: Cow<'a, str>,
    #[serde(borrow, default)]
    owner: Cow<'a, str>,
    #[serde(borrow, default)]
    log_group: Cow<'a, str>,
    #[serde(borrow, default)]
    log_stream: Cow<'a, str>,
    #[serde(borrow, default)]
    log_events: Vec<LogEvent<'a>>,
}

#[derive(Deserialize)]
struct LogEvent<'a> {
    /// Milliseconds.
    timestamp: i64,
    #[serde(borrow)]
    message: Cow<'a, str>,
}

/// Decodes a delivery. `attributes` is the header X-Amz-Firehose-Common-Attributes, `unzip` undoes a record's gzip within
/// the request's limits. **Errors**: when the body is no delivery or grows too large, and those of `unzip` that are no
/// fault of the record.
pub fn delivery<E: From<super::Error>>(
    body: &[u8],
    attributes: Option<&str>,
    mut unzip: impl FnMut(Bytes) -> Result<Result<Bytes, String>, E>,
    options: &Options,
    now_ns: i64,
) -> Result<Decoded, E> {
    let delivery: Delivery<'_> = serde_json::from_slice(body)
        .map_err(|error| super::Error::Malformed(format!("the body is no delivery of Firehose: {error}")))?;
    let mut records = Records::new(options, now_ns);
    push_attributes(attributes.unwrap_or_default(), &mut records);
    let around = records.outer_mark();
    let mut place = 0;
    for record in &delivery.records {
        records.reset_outer(around);
        let data = match BASE64_STANDARD.decode(record.data.as_bytes()) {
            Ok(data) if data.starts_with(b"\x1f\x8b") => unzip(Bytes::from(data))?,
            Ok(data) => Ok(Bytes::from(data)),
            Err(error) => Err(format!("the data is no base64: {error}")),
        };
        match data {
            Ok(data) => push_data(&data, &mut records, &mut place)?,
            Err(reason) => {
                place += 1;
                records.reject(place, reason);
            }
        }
    }
    Ok(records.finish())
}

fn push_attributes(header: &str, records: &mut Records<'_>) {
    let found = members(header).unwrap_or_default();
    let found = envelope::find(&found, "commonAttributes").and_then(|member| members(member.value).ok());
    records.outer(|outer, naming| {
        for member in found.unwrap_or_default() {
            envelope::push(&member.name, member.value, outer, naming);
        }
    });
}

fn push_data(data: &[u8], records: &mut Records<'_>, place: &mut usize) -> Result<(), super::Error> {
    match serde_json::from_slice::<CloudWatch<'_>>(data) {
        Ok(message) => push_events(&message, records, place),
        Err(_) => {
            records.stream::<&str, &str>([]);
            for (line, _) in split(data) {
                *place += 1;
                records.line(line, None, *place)?;
            }
            Ok(())
        }
    }
}

fn push_events(message: &CloudWatch<'_>, records: &mut Records<'_>, place: &mut usize) -> Result<(), super::Error> {
    // CONTROL_MESSAGE only asks whether somebody is here.
    if message.message_type != "DATA_MESSAGE" {
        return Ok(());
    }
    let fields = [("owner", &message.owner), ("log_group", &message.log_group), ("log_stream", &message.log_stream)];
    records.stream(fields.map(|(name, value)| (name, value.as_bytes())));
    records.outer(|outer, naming| {
        fields.into_iter().for_each(|(name, value)| outer.push(name, Cell::Text(value), naming));
    });
    for event in &message.log_events {
        *place += 1;
        let line = event.message.trim_end_matches(['\n', '\r']);
        records.line(line.as_bytes(), Some(event.timestamp.saturating_mul(1_000_000)), *place)?;
    }
    records.reset_outer(Mark::default());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, row};
    use super::*;

    fn decoded(records: &[&[u8]]) -> Decoded {
        let records: Vec<String> =
            records.iter().map(|data| format!(r#"{{"data":"{}"}}"#, BASE64_STANDARD.encode(data))).collect();
        let body = format!(r#"{{"requestId":"r","timestamp":1,"records":[{},{{"data":"?"}}]}}"#, records.join(","));
        let attributes = r#"{"commonAttributes":{"deployment":"blue"}}"#;
        let unzip = |data: Bytes| Ok::<_, super::super::Error>(Ok(data.slice(2..)));
        delivery(body.as_bytes(), Some(attributes), unzip, &Options::default(), NOW).unwrap()
    }

    #[test]
    fn records_hold_lines_or_cloudwatch_messages() {
        let cloudwatch = br#"XX{"messageType":"DATA_MESSAGE","owner":"123456789012","logGroup":"/aws/lambda/pay","logStream":"s","subscriptionFilters":["f"],"logEvents":[{"id":"1","timestamp":1767268800123,"message":"{\"level\":\"warn\",\"msg\":\"slow\"}\n"},{"id":"2","timestamp":1767268800124,"message":"text"}]}"#;
        let mut zipped = cloudwatch.to_vec();
        zipped[..2].copy_from_slice(b"\x1f\x8b");
        let control = br#"{"messageType":"CONTROL_MESSAGE","owner":"CloudwatchLogs","logEvents":[{"id":"","timestamp":1,"message":"CWL CONTROL MESSAGE: Checking health of destination Firehose."}]}"#;
        let decoded = decoded(&[b"{\"level\":\"info\",\"n\":1}\nplain\n", &zipped, control]);
        let rows: Vec<String> = (0..decoded.accepted()).map(|index| row(&decoded.batch, index)).collect();
        assert_eq!(rows.len(), 4, "{rows:?}");
        assert!(rows[0].ends_with("level=info | deployment=blue | n=1"), "{rows:?}");
        assert_eq!(
            rows[2],
            "timestamp=2026-01-01T12:00:00.123Z | level=warn | message=slow | deployment=blue | owner=123456789012 | \
             log_group=/aws/lambda/pay | log_stream=s"
        );
        assert_eq!((decoded.rejected_count, decoded.rejected[0].line), (1, 5));
    }
}
