//! Loki's push protocol (`/loki/api/v1/push`): protobuf and JSON bodies, already decompressed. Read in place: a line is
//! not copied before it is in its columns.
//!
//! Invariant: labels of the stream, then structured metadata, are fields around each line; the entry's time is the record's.
//! Source: pkg/push/push.proto and the HTTP API's documentation in Loki's repository.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use super::columns::Cell;
use super::outer::Mark;
use super::records::Records;
use super::{Decoded, Error, Options};
use crate::record::quote::unescape_python;
use crate::record::time;

/// Decodes a protobuf `PushRequest`. A stream whose labels are none is rejected line by line, the others are kept.
/// **Errors**: when the bytes are no `PushRequest`, or it grows too large.
pub fn push_protobuf(body: &[u8], options: &Options, now_ns: i64) -> Result<Decoded, Error> {
    let mut records = Records::new(options, now_ns);
    records.expect(body.len());
    let mut place = 0;
    for field in Fields(body) {
        if let (1, Payload::Bytes(stream)) = field? {
            push_stream(stream, &mut records, &mut place)?;
        }
    }
    Ok(records.finish())
}

fn push_stream(stream: &[u8], records: &mut Records<'_>, place: &mut usize) -> Result<(), Error> {
    // Labels stand first, but no one promised it.
    let mut labels: &[u8] = b"{}";
    for field in Fields(stream) {
        if let (1, Payload::Bytes(bytes)) = field? {
            labels = bytes;
        }
    }
    let labels = String::from_utf8_lossy(labels);
    let parsed = parse_labels(&labels);
    if let Ok(pairs) = &parsed {
        set_labels(records, pairs.iter().map(|(name, value)| (*name, value.as_ref())));
    }
    let mark = records.outer_mark();
    for field in Fields(stream) {
        let (2, Payload::Bytes(entry)) = field? else { continue };
        *place += 1;
        match &parsed {
            Ok(_) => push_entry(entry, records, mark, *place)?,
            Err(reason) => records.reject(*place, reason.clone()),
        }
    }
    Ok(())
}

fn set_labels<'a>(records: &mut Records<'_>, labels: impl Iterator<Item = (&'a str, &'a str)> + Clone) {
    records.stream(labels.clone());
    records.reset_outer(Mark::default());
    records.outer(|outer, naming| labels.for_each(|(name, value)| outer.push(name, Cell::Text(value), naming)));
}

fn push_entry(entry: &[u8], records: &mut Records<'_>, mark: Mark, place: usize) -> Result<(), Error> {
    let (mut time_ns, mut line, mut metadata) = (0, &b""[..], false);
    for field in Fields(entry) {
        match field? {
            (1, Payload::Bytes(timestamp)) => time_ns = read_timestamp(timestamp)?,
            (2, Payload::Bytes(bytes)) => line = bytes,
            (3, Payload::Bytes(pair)) => {
                let (name, value) = read_pair(pair)?;
                records.outer(|outer, naming| outer.push(&name, Cell::Text(&value), naming));
                metadata = true;
            }
            _ => {}
        }
    }
    records.line(line, Some(time_ns), place)?;
    if metadata {
        records.reset_outer(mark);
    }
    Ok(())
}

fn read_timestamp(bytes: &[u8]) -> Result<i64, Error> {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    for field in Fields(bytes) {
        match field? {
            (1, Payload::Number(value)) => seconds = value as i64,
            (2, Payload::Number(value)) => nanos = value as i64,
            _ => {}
        }
    }
    Ok(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

fn read_pair(bytes: &[u8]) -> Result<(Cow<'_, str>, Cow<'_, str>), Error> {
    let (mut name, mut value) = (Cow::Borrowed(""), Cow::Borrowed(""));
    for field in Fields(bytes) {
        match field? {
            (1, Payload::Bytes(bytes)) => name = String::from_utf8_lossy(bytes),
            (2, Payload::Bytes(bytes)) => value = String::from_utf8_lossy(bytes),
            _ => {}
        }
    }
    Ok((name, value))
}

/// What a protobuf field holds.
enum Payload<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Fixed-width fields, which Loki's messages do not have.
    Other,
}

/// The fields of a protobuf message in their order.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for (index, byte) in self.0.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.0 = &self.0[index + 1..];
                return Some(value);
            }
        }
        None
    }

    fn bytes(&mut self, length: u64) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(bytes)
    }

    fn field(&mut self) -> Option<(u64, Payload<'a>)> {
        let tag = self.varint()?;
        let payload = match tag & 7 {
            0 => Payload::Number(self.varint()?),
            1 => self.bytes(8).map(|_| Payload::Other)?,
            2 => {
                let length = self.varint()?;
                Payload::Bytes(self.bytes(length)?)
            }
            5 => self.bytes(4).map(|_| Payload::Other)?,
            _ => return None,
        };
        Some((tag >> 3, payload))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Payload<'a>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or_else(|| Error::Malformed("the body is no protobuf PushRequest".to_string())))
    }
}

type Labels<'a> = Vec<(&'a str, Cow<'a, str>)>;

/// Reads `{name="value", …}`. **Errors**: what is wrong with it, for people.
fn parse_labels(text: &str) -> Result<Labels<'_>, String> {
    let fault = |what: &str| format!("labels {text:?}: {what}");
    let inside = text.trim().strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    let mut rest = inside.ok_or_else(|| fault("expected {name=\"value\", …}"))?.trim();
    let mut labels = Vec::new();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or_else(|| fault("expected '='"))?;
        let (value, after) = parse_quoted(after.trim_start()).ok_or_else(|| fault("expected a value in quotes"))?;
        labels.push((name.trim().trim_matches('"'), value));
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None if rest.is_empty() => {}
            None => return Err(fault("expected ','")),
        }
    }
    Ok(labels)
}

/// Reads a text in Go's quotes at the start; gives what follows.
fn parse_quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    if let Some(text) = text.strip_prefix('`') {
        return text.split_once('`').map(|(value, after)| (Cow::Borrowed(value), after));
    }
    let text = text.strip_prefix('"')?;
    let mut end = memchr::memchr2(b'"', b'\\', text.as_bytes())?;
    if text.as_bytes()[end] == b'"' {
        return Some((Cow::Borrowed(&text[..end]), &text[end + 1..]));
    }
    while text.as_bytes()[end] == b'\\' {
        let from = end + 2;
        end = from + memchr::memchr2(b'"', b'\\', text.as_bytes().get(from..)?)?;
    }
    let mut value = String::new();
    unescape_python(&text[..end], &mut value).ok()?;
    Some((Cow::Owned(value), &text[end + 1..]))
}

/// A JSON push body.
#[derive(Deserialize)]
struct PushBody<'a> {
    #[serde(borrow)]
    streams: Vec<StreamBody<'a>>,
}

#[derive(Deserialize)]
struct StreamBody<'a> {
    #[serde(borrow, default)]
    stream: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    #[serde(borrow, default)]
    values: Vec<EntryBody<'a>>,
    /// The form of `/api/prom/push`, before Loki 1.
    #[serde(borrow, default)]
    labels: Cow<'a, str>,
    #[serde(borrow, default)]
    entries: Vec<OldEntryBody<'a>>,
}

#[derive(Deserialize)]
struct OldEntryBody<'a> {
    #[serde(borrow)]
    ts: Cow<'a, str>,
    #[serde(borrow)]
    line: Cow<'a, str>,
}

/// `["<unix nanoseconds>", "<line>", {"structured": "metadata"}]`
#[derive(Deserialize)]
struct EntryBody<'a>(
    #[serde(borrow)] Cow<'a, str>,
    #[serde(borrow)] Cow<'a, str>,
    #[serde(borrow, default)] BTreeMap<Cow<'a, str>, Cow<'a, str>>,
);

/// Decodes a JSON push body. An entry whose time is none is rejected, the others are kept. **Errors**: as
/// [`push_protobuf`].
pub fn push_json(body: &[u8], options: &Options, now_ns: i64) -> Result<Decoded, Error> {
    let push: PushBody<'_> = serde_json::from_slice(body)
        .map_err(|error| Error::Malformed(format!("the body is no push request: {error}")))?;
    let mut records = Records::new(options, now_ns);
    let mut place = 0;
    for stream in &push.streams {
        set_labels(&mut records, stream.stream.iter().map(|(name, value)| (name.as_ref(), value.as_ref())));
        let mark = records.outer_mark();
        for EntryBody(time, line, metadata) in &stream.values {
            place += 1;
            let Ok(time_ns) = time.parse::<i64>() else {
                records.reject(place, format!("the time {time:?} is no count of nanoseconds"));
                continue;
            };
            if !metadata.is_empty() {
                let pairs = metadata.iter();
                records.outer(|outer, naming| {
                    pairs.for_each(|(name, value)| outer.push(name, Cell::Text(value), naming));
                });
            }
            records.line(line.as_bytes(), Some(time_ns), place)?;
            if !metadata.is_empty() {
                records.reset_outer(mark);
            }
        }
        push_old(stream, &mut records, &mut place)?;
    }
    Ok(records.finish())
}

fn push_old(stream: &StreamBody<'_>, records: &mut Records<'_>, place: &mut usize) -> Result<(), Error> {
    if stream.entries.is_empty() {
        return Ok(());
    }
    let labels = parse_labels(&stream.labels);
    if let Ok(pairs) = &labels {
        set_labels(records, pairs.iter().map(|(name, value)| (*name, value.as_ref())));
    }
    for entry in &stream.entries {
        *place += 1;
        match (&labels, time::parse(entry.ts.as_bytes())) {
            (Ok(_), Some((time_ns, _))) => records.line(entry.line.as_bytes(), Some(time_ns), *place)?,
            (Err(reason), _) => records.reject(*place, reason.clone()),
            (Ok(_), None) => records.reject(*place, format!("{:?} is no time", entry.ts)),
        }
    }
    Ok(())
}
