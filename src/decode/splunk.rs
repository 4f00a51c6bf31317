//! Splunk's HTTP event collector: objects one after the other (`/event`), and lines (`/raw`).
//!
//! Invariant: the line is `event` (an object in it is one as JSON); host, source, sourcetype, index and `fields` stand
//! around it.
//! Source: Splunk's "Format events for HTTP Event Collector".

use super::columns::Cell;
use super::envelope::{self, Member, blanks, find, members};
use super::json::skip_value;
use super::jsonline::split;
use super::outer::{Mark, Naming, Outer};
use super::records::Records;
use super::{Decoded, Error, Options};

/// What stands around every line of a `/raw` request; its query says it.
#[derive(Debug, Default)]
pub struct Metadata<'a> {
    /// `host`, `source`, `sourcetype`, `index` and their values.
    pub fields: Vec<(&'a str, &'a str)>,
    /// Time of all lines. **Units**: nanoseconds.
    pub time_ns: Option<i64>,
}

/// Where an event comes from: what tells one stream from another.
const ORIGIN: [&str; 4] = ["host", "source", "sourcetype", "index"];

/// Why an event was not kept, in the order of Splunk's codes.
pub const NO_EVENT: &str = "Event field is required";
/// An `event` without anything in it.
pub const BLANK_EVENT: &str = "Event field cannot be blank";

/// Decodes events, which may stand in a row without anything between them, or in an array. Behind bytes that are no
/// object, the next line that starts one is where it goes on. **Errors**: when the whole grows too large.
pub fn events(body: &[u8], options: &Options, now_ns: i64) -> Result<Decoded, Error> {
    let mut records = Records::new(options, now_ns);
    let text = String::from_utf8_lossy(body);
    let mut at = blanks(&text, 0);
    let mut place = 0;
    let is_array = text.as_bytes().get(at) == Some(&b'[');
    at += usize::from(is_array);
    loop {
        at = blanks(&text, at);
        match text.as_bytes().get(at) {
            None => break,
            Some(b',' | b']') if is_array => {
                at += 1;
                continue;
            }
            Some(_) => place += 1,
        }
        match skip_value(&text, at) {
            Ok(end) => {
                push_event(&text[at..end], &mut records, place, now_ns)?;
                at = end;
            }
            Err(fault) => {
                records.reject(place, format!("Invalid data format: {fault}"));
                match memchr::memmem::find(text[at..].as_bytes(), b"\n{") {
                    Some(next) => at += next,
                    None => break,
                }
            }
        }
    }
    Ok(records.finish())
}

fn push_event(text: &str, records: &mut Records<'_>, place: usize, now_ns: i64) -> Result<(), Error> {
    let found = match members(text) {
        Ok(found) => found,
        Err(reason) => {
            records.reject(place, format!("Invalid data format: {reason}"));
            return Ok(());
        }
    };
    let Some(event) = find(&found, "event").filter(|event| event.value != "null") else {
        records.reject(place, NO_EVENT.to_owned());
        return Ok(());
    };
    if event.value == "\"\"" {
        records.reject(place, BLANK_EVENT.to_owned());
        return Ok(());
    }
    let time_ns = find(&found, "time").and_then(|member| envelope::time_of(member.value));
    records.stream(ORIGIN.iter().filter_map(|name| Some((name, find(&found, name)?.value))));
    records.reset_outer(Mark::default());
    records.outer(|outer, naming| {
        for member in found.iter().filter(|member| !matches!(&*member.name, "event" | "time")) {
            push_metadata(member, outer, naming);
        }
    });
    envelope::push_line(event.value, time_ns.unwrap_or(now_ns), records, place)
}

fn push_metadata(member: &Member<'_>, outer: &mut Outer, naming: &mut Naming<'_>) {
    match members(member.value) {
        Ok(fields) if member.name == "fields" => {
            fields.iter().for_each(|field| envelope::push(&field.name, field.value, outer, naming));
        }
        _ => envelope::push(&member.name, member.value, outer, naming),
    }
}

/// Decodes lines with the same fields around each. **Errors**: as [`events`].
pub fn raw(body: &[u8], metadata: &Metadata<'_>, options: &Options, now_ns: i64) -> Result<Decoded, Error> {
    let mut records = Records::new(options, now_ns);
    records.stream(metadata.fields.iter().copied());
    records.outer(|outer, naming| {
        metadata.fields.iter().for_each(|(name, value)| outer.push(name, Cell::Text(value), naming));
    });
    for (line, place) in split(body) {
        records.line(line, metadata.time_ns, place)?;
    }
    Ok(records.finish())
}

/// The time of a `/raw` request as its query gives it. **Units**: nanoseconds.
pub fn time_of(text: &str) -> Option<i64> {
    envelope::time_of(text)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, row};
    use super::*;

    fn shown(decoded: &Decoded) -> (Vec<String>, Vec<String>) {
        let rows = (0..decoded.accepted()).map(|index| row(&decoded.batch, index)).collect();
        (rows, decoded.rejected.iter().map(|one| format!("{}: {}", one.line, one.reason)).collect())
    }

    #[test]
    fn events_become_records() {
        let body = r#"{"time":1426279439.5,"host":"localhost","source":"datasource","sourcetype":"txt","index":"main","event":"Hello world!"}{"event":{"level":"warn","msg":"slow","n":1.50},"time":"1767268800123","fields":{"service":"web","tags":["a","b"]}}
{"event":5,"time":1767268800}"#;
        let decoded = events(body.as_bytes(), &Options::default(), NOW).unwrap();
        let (rows, rejected) = shown(&decoded);
        assert_eq!(rejected, [""; 0]);
        assert_eq!(
            rows,
            [
                "timestamp=2015-03-13T20:43:59.5Z | message=Hello world! | host=localhost | source=datasource | \
                 sourcetype=txt | index=main",
                "timestamp=2026-01-01T12:00:00.123Z | level=warn | service=web | message=slow | tags=[\"a\",\"b\"] | n=1.5",
                "timestamp=2026-01-01T12:00:00Z | message=5",
            ]
        );
    }

    #[test]
    fn bad_events_are_told_and_good_ones_kept() {
        let body = "[{\"event\":\"one\"},{\"evnt\":1},{\"event\":\"\"},{\"event\":null},{\"event\":\"two\"}]";
        let (rows, rejected) = shown(&events(body.as_bytes(), &Options::default(), NOW).unwrap());
        assert_eq!(rows.len(), 2);
        assert_eq!(rejected, [format!("2: {NO_EVENT}"), format!("3: {BLANK_EVENT}"), format!("4: {NO_EVENT}"),]);
        let body = "{\"event\":\"one\"}\nhalf {\"event\":\"lost\"}\n{\"event\":\"two\"} 7";
        let (rows, rejected) = shown(&events(body.as_bytes(), &Options::default(), NOW).unwrap());
        assert_eq!(rows.len(), 2, "{rows:?}");
        assert_eq!(rejected.len(), 2, "{rejected:?}");
        assert!(rejected[0].starts_with("2: Invalid data format"), "{rejected:?}");
    }

    #[test]
    fn raw_lines_have_the_fields_of_the_query() {
        let metadata = Metadata { fields: vec![("host", "h"), ("service", "s")], time_ns: Some(NOW - 1) };
        let decoded = raw(b"level=warn msg=one\r\n\ntwo", &metadata, &Options::default(), NOW).unwrap();
        let (rows, _) = shown(&decoded);
        assert_eq!(rows.len(), 2);
        assert!(rows[0].ends_with("level=warn | service=s | message=one | host=h"), "{rows:?}");
    }
}
