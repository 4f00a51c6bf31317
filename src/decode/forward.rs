//! Fluent Forward: its messages, and the entries in them, of Fluentd, Fluent Bit and their clients. Connections,
//! handshakes and acknowledgements are `server`'s.
//!
//! Invariant: an entry is one record; its text for people (`log`, `message`, …) is the line, every other member a field
//! around it, and without such a text the whole record is the line, as JSON.
//! Source: Forward Protocol Specification v1.5 (fluent/fluentd wiki), and `flb_log_event_decoder.c` for Fluent Bit's
//! entries with metadata.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::columns::Cell;
use super::msgpack::{Fault, Reader, Token};
use super::names::Role;
use super::outer::{Mark, Naming, Outer};
use super::records::Records;
use super::{Decoded, Error, Options};
use crate::record::{number, overflow, time};

/// Deepest nesting of values that is flattened or written as JSON.
const DEPTH_MAX: usize = 100;
/// The type of the extension that holds seconds and nanoseconds.
const EVENT_TIME: i8 = 0;

/// An array of two, which Message mode leaves out.
pub const ENTRY_HEAD: u8 = 0x92;

/// What a client sends once it is let in.
#[derive(Debug, Clone, PartialEq)]
pub enum Message<'a> {
    /// Nothing but a sign of life.
    Heartbeat,
    /// Entries.
    Events(Events<'a>),
}

/// The entries of one message.
#[derive(Debug, Clone, PartialEq)]
pub struct Events<'a> {
    /// What the sender calls their source.
    pub tag: &'a str,
    /// The entries, one after the other, as [`records`] reads them; compressed when `compression` says so.
    pub entries: Entries<'a>,
    /// How they are compressed: "gzip" or "zstd"; "text" is none.
    pub compression: Option<&'a str>,
    /// The sender waits until this chunk is acknowledged.
    pub chunk: Option<&'a str>,
}

/// Where the entries stand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Entries<'a> {
    /// Time and record of the only one: [`records`] needs [`ENTRY_HEAD`] before them.
    One(&'a [u8]),
    /// Any number of them.
    Many(&'a [u8]),
}

fn malformed(fault: Fault) -> Error {
    Error::Malformed(format!("no Forward message: {fault}"))
}

fn wrong(what: &str) -> Error {
    Error::Malformed(format!("no Forward message: {what}"))
}

/// Reads a whole message. **Errors**: when it is none.
pub fn message(bytes: &[u8]) -> Result<Message<'_>, Error> {
    let mut reader = Reader::new(bytes);
    let count = match reader.token().map_err(malformed)? {
        Token::Nil => return Ok(Message::Heartbeat),
        Token::Array(count @ 2..=4) => count,
        _ => return Err(wrong("it is no array of two to four values")),
    };
    let tag = match reader.token().map_err(malformed)? {
        Token::Text(tag) | Token::Binary(tag) => {
            std::str::from_utf8(tag).map_err(|_| wrong("the tag is not valid UTF-8"))?
        }
        _ => return Err(wrong("it does not start with a tag")),
    };
    let after_tag = reader.rest();
    let second = reader.token().map_err(malformed)?;
    let (entries, used) = match second {
        Token::Binary(packed) | Token::Text(packed) => (Entries::Many(packed), 2),
        // A list of entries; an entry of Message mode never has an array as its time.
        Token::Array(entries) if count < 4 => {
            let list = reader.rest();
            for _ in 0..entries {
                reader.skip().map_err(malformed)?;
            }
            (Entries::Many(&list[..list.len() - reader.rest().len()]), 2)
        }
        _ if count >= 3 => {
            let mut whole = Reader::new(after_tag);
            whole.skip().map_err(malformed)?;
            whole.skip().map_err(malformed)?;
            reader = whole;
            (Entries::One(&after_tag[..after_tag.len() - whole.rest().len()]), 3)
        }
        _ => return Err(wrong("there are no entries")),
    };
    let mut events = Events { tag, entries, compression: None, chunk: None };
    if count > used {
        options(&mut reader, &mut events)?;
    }
    Ok(Message::Events(events))
}

fn options<'a>(reader: &mut Reader<'a>, events: &mut Events<'a>) -> Result<(), Error> {
    let count = match reader.token().map_err(malformed)? {
        Token::Nil => return Ok(()),
        Token::Map(count) => count,
        _ => return Err(wrong("its option is no map")),
    };
    for _ in 0..count {
        let name = reader.token().map_err(malformed)?;
        let mut value = Reader::new(reader.skip().map_err(malformed)?);
        let (Token::Text(name), Ok(Token::Text(value) | Token::Binary(value))) = (name, value.token()) else {
            continue;
        };
        let value = std::str::from_utf8(value);
        match name {
            b"chunk" => events.chunk = Some(value.map_err(|_| wrong("the chunk's id is not valid UTF-8"))?),
            b"compressed" => events.compression = Some(value.unwrap_or("?")),
            _ => {}
        }
    }
    Ok(())
}

/// Decodes entries, `[time, record]` one after the other, of any number of messages with their tags. Where one is no
/// entry it is rejected with its place; behind bytes that are no MessagePack the rest of its message is.
/// **Errors**: when the whole grows too large.
pub fn records<'a>(
    messages: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    options: &Options,
    now_ns: i64,
) -> Result<Decoded, Error> {
    let mut records = Records::new(options, now_ns);
    let mut place = 0;
    for (tag, entries) in messages {
        let mut rest = Reader::new(entries);
        while !rest.rest().is_empty() {
            place += 1;
            match rest.skip() {
                Ok(entry) => push_entry(tag, entry, &mut records, place)?,
                Err(fault) => {
                    records.reject(place, format!("the entries of tag '{tag}' are broken from here: {fault}"));
                    break;
                }
            }
        }
    }
    Ok(records.finish())
}

fn push_entry(tag: &str, entry: &[u8], records: &mut Records<'_>, place: usize) -> Result<(), Error> {
    let (time_ns, metadata, record) = match entry_parts(entry) {
        Ok(parts) => parts,
        Err(reason) => {
            records.reject(place, format!("{reason} (tag '{tag}')"));
            return Ok(());
        }
    };
    let mut line = None;
    records.reset_outer(Mark::default());
    records.outer(|outer, naming| {
        line = message_of(record, naming);
        push_field("tag", tag, outer, naming);
        if let Some(metadata) = metadata {
            push_members("", metadata, None, 0, outer, naming);
        }
        if let Some((name, _)) = line {
            push_members("", record, Some(name), 0, outer, naming);
        }
        outer.set_service_hint(tag);
    });
    match line {
        // Docker and CRI leave the line's end in `log`.
        Some((_, text)) => records.line(text.strip_suffix(b"\n").unwrap_or(text), time_ns, place),
        None => {
            let mut json = String::new();
            write_json(&mut Reader::new(record), 0, &mut json);
            records.line(json.as_bytes(), time_ns, place)
        }
    }
}

/// Time, metadata and record of an entry: `[time, record]`, or Fluent Bit's `[[time, metadata], record]`.
type Parts<'a> = (Option<i64>, Option<&'a [u8]>, &'a [u8]);

fn entry_parts(entry: &[u8]) -> Result<Parts<'_>, String> {
    let broken = |fault: Fault| format!("no entry: {fault}");
    let mut reader = Reader::new(entry);
    let Token::Array(2..) = reader.token().map_err(broken)? else {
        return Err("no entry: it is no array of a time and a record".to_owned());
    };
    let mut time = Reader::new(reader.skip().map_err(broken)?);
    let record = reader.skip().map_err(broken)?;
    let Ok(Token::Map(_)) = Reader::new(record).token() else { return Err("the record is no map".to_owned()) };
    let mut metadata = None;
    let mut token = time.token().map_err(broken)?;
    if let Token::Array(2) = token {
        token = time.token().map_err(broken)?;
        metadata = Some(time.rest()).filter(|rest| matches!(Reader::new(rest).token(), Ok(Token::Map(1..))));
    }
    let time_ns = time_of(token).ok_or("the entry's time is neither seconds nor an EventTime")?;
    Ok((Some(time_ns), metadata, record))
}

/// **Units**: gives nanoseconds; what comes is seconds, or an EventTime.
fn time_of(token: Token<'_>) -> Option<i64> {
    match token {
        Token::Integer(seconds) => seconds.checked_mul(1_000_000_000),
        Token::Float(seconds) if seconds.is_finite() => Some((seconds * 1e9) as i64),
        Token::Extension(EVENT_TIME, bytes) => {
            let (seconds, nanos) = bytes.split_first_chunk::<4>()?;
            let nanos = <[u8; 4]>::try_from(nanos).ok()?;
            Some(i64::from(u32::from_be_bytes(*seconds)) * 1_000_000_000 + i64::from(u32::from_be_bytes(nanos)))
        }
        _ => None,
    }
}

/// Name and value of a map's member.
type Member<'a> = (&'a [u8], &'a [u8]);

/// The member that is the text for people, by the best of its names.
fn message_of<'a>(record: &'a [u8], naming: &Naming<'_>) -> Option<Member<'a>> {
    let mut best: Option<(u16, Member<'_>)> = None;
    for (name, value) in members(record) {
        let (Ok(text), Ok(Token::Text(value))) = (std::str::from_utf8(name), Reader::new(value).token()) else {
            continue;
        };
        let recognised = naming.names.recognise(text).filter(|found| found.role == Role::Message);
        if let Some(found) = recognised
            && best.is_none_or(|(rank, _)| found.rank < rank)
        {
            best = Some((found.rank, (name, value)));
        }
    }
    best.map(|(_, member)| member)
}

/// Names and values of a map, as far as they can be read; a name that is no string has its bytes.
fn members(map: &[u8]) -> impl Iterator<Item = Member<'_>> {
    let mut reader = Reader::new(map);
    let count = if let Ok(Token::Map(count)) = reader.token() { count } else { 0 };
    (0..count).map_while(move |_| {
        let name = reader.skip().ok()?;
        let name =
            if let Ok(Token::Text(text) | Token::Binary(text)) = Reader::new(name).token() { text } else { name };
        Some((name, reader.skip().ok()?))
    })
}

fn push_field(name: &str, text: &str, outer: &mut Outer, naming: &mut Naming<'_>) {
    if !text.is_empty() {
        outer.push_field(name, Cell::Text(text), naming);
    }
}

/// Pushes the members of a map but `except`; those of maps inside with their names joined by dots.
fn push_members(
    prefix: &str,
    map: &[u8],
    mut except: Option<&[u8]>,
    depth: usize,
    outer: &mut Outer,
    naming: &mut Naming<'_>,
) {
    for (name, value) in members(map) {
        // A name that came twice is left out once.
        if except.take_if(|except| *except == name).is_some() {
            continue;
        }
        let name = format!("{prefix}{}", String::from_utf8_lossy(name));
        match Reader::new(value).token() {
            Err(_) | Ok(Token::Nil) => {}
            Ok(Token::Boolean(value)) => outer.push_field(&name, Cell::Boolean(value), naming),
            Ok(Token::Integer(value)) => outer.push_field(&name, Cell::Integer(value, ""), naming),
            Ok(Token::Float(value)) if value.is_finite() => outer.push_field(&name, Cell::Float(value, ""), naming),
            Ok(Token::Map(1..)) if depth < DEPTH_MAX => {
                push_members(&format!("{name}."), value, None, depth + 1, outer, naming);
            }
            Ok(token) => outer.push(&name, Cell::Text(&text_of(token, value)), naming),
        }
    }
}

/// A value as text: strings as they are, bytes that are none as base64, lists as JSON.
fn text_of(token: Token<'_>, value: &[u8]) -> String {
    match token {
        Token::Text(text) => String::from_utf8_lossy(text).into_owned(),
        Token::Binary(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => BASE64_STANDARD.encode(bytes),
        },
        Token::Unsigned(value) => value.to_string(),
        Token::Float(value) => value.to_string(),
        Token::Extension(EVENT_TIME, bytes) if bytes.len() == 8 => {
            let mut text = Vec::new();
            time::write(time_of(token).unwrap_or_default(), time::RFC_3339, &mut text);
            String::from_utf8_lossy(&text).into_owned()
        }
        Token::Extension(_, bytes) => BASE64_STANDARD.encode(bytes),
        _ => {
            let mut json = String::new();
            write_json(&mut Reader::new(value), 0, &mut json);
            json
        }
    }
}

/// Writes a value as JSON; what JSON does not have is a string.
fn write_json(reader: &mut Reader<'_>, depth: usize, out: &mut String) {
    let value = reader.rest();
    let Ok(token) = reader.token() else { return out.push_str("null") };
    match token {
        Token::Nil => out.push_str("null"),
        Token::Boolean(value) => out.push_str(if value { "true" } else { "false" }),
        Token::Integer(value) => out.push_str(&value.to_string()),
        Token::Unsigned(value) => out.push_str(&value.to_string()),
        Token::Float(value) if value.is_finite() => {
            let mut text = Vec::new();
            number::write_float(value, number::Style::Rust, &mut text);
            out.push_str(&String::from_utf8_lossy(&text));
        }
        Token::Array(_) | Token::Map(_) if depth >= DEPTH_MAX => {
            *reader = Reader::new(value);
            // What can't be passed over ends the value, and everything behind it.
            if reader.skip().is_err() {
                *reader = Reader::new(&[]);
            }
            out.push_str("null");
        }
        Token::Array(count) => {
            out.push('[');
            for index in 0..count {
                if reader.rest().is_empty() {
                    break;
                }
                if index > 0 {
                    out.push(',');
                }
                write_json(reader, depth + 1, out);
            }
            out.push(']');
        }
        Token::Map(count) => {
            out.push('{');
            for index in 0..count {
                let Ok(name) = reader.skip() else { break };
                if index > 0 {
                    out.push(',');
                }
                let name = Reader::new(name).token().map_or_else(|_| String::new(), |token| text_of(token, name));
                overflow::push_string(out, &name);
                out.push(':');
                write_json(reader, depth + 1, out);
            }
            out.push('}');
        }
        token => overflow::push_string(out, &text_of(token, value)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::msgpack::{write_array, write_binary, write_boolean, write_map, write_text};
    use super::super::tests::{NOW, row, sorted_pairs};
    use super::*;

    /// 2026-01-01T12:00:00.000000005Z as an EventTime.
    const EVENT_TIME_NOON: [u8; 10] = [0xd7, 0, 0x69, 0x56, 0x61, 0xc0, 0, 0, 0, 5];
    /// The same second as an integer.
    const SECONDS_NOON: [u8; 5] = [0xce, 0x69, 0x56, 0x61, 0xc0];

    fn record(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        write_map(members.len() as u8, &mut out);
        for (name, value) in members {
            write_text(name, &mut out);
            out.extend_from_slice(value);
        }
        out
    }

    fn text(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        write_text(text, &mut out);
        out
    }

    fn entry(time: &[u8], record: &[u8]) -> Vec<u8> {
        [&[0x92], time, record].concat()
    }

    fn decode(tag: &str, entries: &[u8]) -> Decoded {
        records([(tag, entries)], &Options::default(), NOW).unwrap()
    }

    #[test]
    fn the_modes_of_a_message() {
        let (time, one) = (&SECONDS_NOON[..], record(&[("log", &text("a"))]));
        let entries = [entry(time, &one), entry(&EVENT_TIME_NOON, &one)].concat();
        let options = record(&[("chunk", &text("c1")), ("size", &[2]), ("compressed", &text("gzip"))]);
        let message_of = |parts: &[&[u8]]| {
            let mut out = Vec::new();
            write_array(parts.len() as u8 + 1, &mut out);
            write_text("t", &mut out);
            parts.iter().for_each(|part| out.extend_from_slice(part));
            out
        };
        let mut packed = Vec::new();
        write_binary(&entries, &mut packed);
        let list = [&[0x92][..], &entries].concat();
        let single = [time, &one].concat();
        let cases: [(&[&[u8]], Entries<'_>, bool); 7] = [
            (&[time, &one], Entries::One(&single), false),
            (&[time, &one, &options], Entries::One(&single), true),
            (&[time, &one, &[0xc0]], Entries::One(&single), false),
            (&[&list], Entries::Many(&entries), false),
            (&[&list, &options], Entries::Many(&entries), true),
            (&[&packed], Entries::Many(&entries), false),
            (&[&packed, &options], Entries::Many(&entries), true),
        ];
        for (parts, entries, with_options) in cases {
            let bytes = message_of(parts);
            let (chunk, compression) = if with_options { (Some("c1"), Some("gzip")) } else { (None, None) };
            let expected = Message::Events(Events { tag: "t", entries, compression, chunk });
            assert_eq!(message(&bytes).unwrap(), expected, "{bytes:02x?}");
        }
        assert_eq!(message(&[0xc0]).unwrap(), Message::Heartbeat);
        for bytes in [&[0x91, 0xa1, b't'][..], &[0x80], &[0x92, 1, 2], &[0x92, 0xa1, b't', 7], b"GET / HTTP/1.1"] {
            assert!(matches!(message(bytes), Err(Error::Malformed(_))), "{bytes:02x?}");
        }
    }

    #[test]
    fn entries_become_records() {
        let kubernetes = record(&[("pod_name", &text("shop-1")), ("labels", &record(&[("app", &text("shop"))]))]);
        let cases = [
            (
                entry(
                    &EVENT_TIME_NOON,
                    &record(&[
                        ("log", &text("{\"level\":\"warn\",\"msg\":\"slow\",\"ms\":5}\n")),
                        ("stream", &text("stdout")),
                    ]),
                ),
                "timestamp=2026-01-01T12:00:00.000000005Z | level=warn | service=app.web | message=slow | tag=app.web | stream=stdout | ms=5",
            ),
            (
                entry(
                    &SECONDS_NOON,
                    &record(&[
                        ("message", &text("hi")),
                        ("n", &[7]),
                        ("ok", &[0xc3]),
                        ("none", &[0xc0]),
                        ("kubernetes", &kubernetes),
                    ]),
                ),
                "timestamp=2026-01-01T12:00:00Z | service=app.web | message=hi | tag=app.web | n=7 | ok=true \
                 | kubernetes.pod_name=shop-1 | kubernetes.labels.app=shop",
            ),
            // Docker's fluentd log driver.
            (
                entry(
                    &SECONDS_NOON,
                    &record(&[
                        ("container_name", &text("/shop")),
                        ("source", &text("stderr")),
                        ("log", &text("ERROR no")),
                    ]),
                ),
                "timestamp=2026-01-01T12:00:00Z | level=error | level_original=ERROR | service=/shop | message=no | tag=app.web | source=stderr",
            ),
            // Nothing for people: the record is the line.
            (
                entry(&SECONDS_NOON, &record(&[("from", &text("a")), ("to", &[0x92, 1, 0xa1, b'b'])])),
                "timestamp=2026-01-01T12:00:00Z | service=app.web | tag=app.web | from=a | to=[1,\"b\"]",
            ),
            // Fluent Bit's metadata.
            (
                entry(
                    &[&[0x92], &SECONDS_NOON[..], &record(&[("otlp", &record(&[("x", &[1])]))])].concat(),
                    &record(&[("log", &text("hi"))]),
                ),
                "timestamp=2026-01-01T12:00:00Z | service=app.web | message=hi | tag=app.web | otlp.x=1",
            ),
            (
                entry(&[&[0x92], &SECONDS_NOON[..], &[0x80]].concat(), &record(&[("log", &text("hi"))])),
                "timestamp=2026-01-01T12:00:00Z | service=app.web | message=hi | tag=app.web",
            ),
        ];
        for (bytes, expected) in cases {
            let decoded = decode("app.web", &bytes);
            assert_eq!((decoded.accepted(), decoded.rejected_count), (1, 0), "{:?}", decoded.rejected);
            let found = row(&decoded.batch, 0);
            assert_eq!(sorted_pairs(&found), sorted_pairs(expected));
        }
    }

    #[test]
    fn a_bad_entry_costs_no_good_one() {
        let good = entry(&SECONDS_NOON, &record(&[("log", &text("a"))]));
        let bad = entry(&[0xc0], &record(&[]));
        let no_map = [0x92, 1, 2];
        let entries = [&good[..], &bad, &no_map, &[5], &good, &[0xc1], &good].concat();
        let decoded = decode("t", &entries);
        let told: Vec<(usize, &str)> = decoded.rejected.iter().map(|one| (one.line, one.reason.as_str())).collect();
        assert_eq!(decoded.accepted(), 2);
        assert_eq!(
            told,
            [
                (2, "the entry's time is neither seconds nor an EventTime (tag 't')"),
                (3, "the record is no map (tag 't')"),
                (4, "no entry: it is no array of a time and a record (tag 't')"),
                (
                    6,
                    &format!(
                        "the entries of tag 't' are broken from here: a reserved byte at byte {}",
                        entries.len() - good.len() - 1
                    )
                ),
            ]
        );
    }

    fn value() -> impl Strategy<Value = Vec<u8>> {
        let leaf = prop_oneof![
            any::<i8>().prop_map(|value| vec![0xd0, value as u8]),
            "[a-z\"\\\\\u{e9}]{0,9}".prop_map(|value| text(&value)),
            prop::collection::vec(any::<u8>(), 0..9).prop_map(|bytes| {
                let mut out = Vec::new();
                write_binary(&bytes, &mut out);
                out
            }),
            any::<bool>().prop_map(|value| {
                let mut out = Vec::new();
                write_boolean(value, &mut out);
                out
            }),
            Just(vec![0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0]),
            Just(EVENT_TIME_NOON.to_vec()),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(|values| [
                    vec![0x90 | values.len() as u8],
                    values.concat()
                ]
                .concat()),
                prop::collection::vec((prop_oneof!["log|msg|level|time|service|[a-z]{1,3}"], inner), 0..4).prop_map(
                    |members| {
                        let members: Vec<(&str, &[u8])> =
                            members.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
                        record(&members)
                    }
                ),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = message(&bytes);
            let decoded = decode("t", &bytes);
            prop_assert_eq!(decoded.accepted(), decoded.batch.num_rows());
        }

        #[test]
        fn any_record_is_kept(members in prop::collection::vec(("log|msg|level|time|tag|[a-z]{1,3}", value()), 0..6)) {
            let members: Vec<(&str, &[u8])> =
                members.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
            let decoded = decode("t", &entry(&EVENT_TIME_NOON, &record(&members)));
            prop_assert_eq!((decoded.accepted(), decoded.rejected_count), (1, 0));
        }
    }
}
