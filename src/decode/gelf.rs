//! GELF, Graylog's message: a JSON object, however it came (HTTP here; UDP chunks and TCP frames are put together before).
//!
//! Invariant: the line is `short_message`; everything else of the message is a field around it.
//! Source: Graylog's documentation, "GELF Payload Specification" 1.1.

use super::columns::Cell;
use super::envelope::{self, Member, find, members};
use super::outer::{Mark, Naming, Outer};
use super::records::Records;
use super::{Decoded, Error, Options};
use crate::record::Level;

/// Decodes messages, one object each, already decompressed; one that is none is rejected by its place from 1.
/// **Errors**: when the whole grows too large.
pub fn messages<'a>(
    messages: impl IntoIterator<Item = &'a [u8]>,
    options: &Options,
    now_ns: i64,
) -> Result<Decoded, Error> {
    let mut records = Records::new(options, now_ns);
    for (place, message) in (1..).zip(messages) {
        push_message(message, &mut records, place, now_ns)?;
    }
    Ok(records.finish())
}

/// Decodes a body of messages that stand on a line each, or end with a null byte as over TCP. **Errors**: as
/// [`messages`].
pub fn body(body: &[u8], options: &Options, now_ns: i64) -> Result<Decoded, Error> {
    // One message may well be written over many lines.
    if std::str::from_utf8(body).is_ok_and(|text| members(text).is_ok()) {
        return messages([body], options, now_ns);
    }
    let parts = body.split(|byte| matches!(byte, b'\n' | 0)).filter(|part| !part.trim_ascii().is_empty());
    messages(parts, options, now_ns)
}

fn push_message(message: &[u8], records: &mut Records<'_>, place: usize, now_ns: i64) -> Result<(), Error> {
    let text = String::from_utf8_lossy(message);
    let found = match members(&text) {
        Ok(found) => found,
        Err(reason) => {
            records.reject(place, reason);
            return Ok(());
        }
    };
    // Senders that leave it out mean the other one.
    let line =
        find(&found, "short_message").or_else(|| find(&found, "full_message")).or_else(|| find(&found, "message"));
    let Some(line) = line else {
        records.reject(place, "the message has no 'short_message'".to_owned());
        return Ok(());
    };
    let time_ns = find(&found, "timestamp").and_then(|member| envelope::time_of(member.value));
    records.stream(find(&found, "host").map(|host| ("host", host.value)));
    records.reset_outer(Mark::default());
    records.outer(|outer, naming| {
        for member in found.iter().filter(|member| !std::ptr::eq(*member, line)) {
            push_member(member, line.value, outer, naming);
        }
    });
    envelope::push_line(line.value, time_ns.unwrap_or(now_ns), records, place)
}

fn push_member(member: &Member<'_>, line: &str, outer: &mut Outer, naming: &mut Naming<'_>) {
    match &*member.name {
        "version" | "timestamp" => {}
        "level" => {
            let text = envelope::text(member.value);
            let level = match text.parse::<i64>() {
                Ok(number) => Level::from_syslog(number),
                Err(_) => Level::parse(text.as_bytes()),
            };
            // A number of syslog's says no more than the level.
            match (level, text.parse::<i64>()) {
                (Some(level), Ok(_)) => outer.set_level_hint(level),
                _ => envelope::push_level("level_original", &text, level, outer, naming),
            }
        }
        // Many senders repeat the short one.
        "full_message" if member.value == line => {}
        "full_message" => outer.push_field("full_message", Cell::Text(&envelope::text(member.value)), naming),
        name => envelope::push(name.strip_prefix('_').unwrap_or(name), member.value, outer, naming),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, row};
    use super::*;

    fn decoded(text: &str) -> (Vec<String>, Vec<String>) {
        let decoded = body(text.as_bytes(), &Options::default(), NOW).unwrap();
        let rows = (0..decoded.accepted()).map(|index| row(&decoded.batch, index)).collect();
        (rows, decoded.rejected.iter().map(|one| format!("{}: {}", one.line, one.reason)).collect())
    }

    #[test]
    fn messages_become_records() {
        for (message, wanted) in [
            // The example of the specification.
            (
                r#"{"version": "1.1", "host": "example.org", "short_message": "A short message that helps you identify what is going on",
                    "full_message": "Backtrace here\n\nmore stuff", "timestamp": 1385053862.3072, "level": 1,
                    "_user_id": 9001, "_some_info": "foo", "_some_env_var": "bar"}"#,
                "timestamp=2013-11-21T17:11:02.3072Z | level=fatal | message=A short message that helps you identify what is \
                 going on | host=example.org | full_message=Backtrace here\n\nmore stuff | user_id=9001 | some_info=foo | \
                 some_env_var=bar",
            ),
            // Docker's gelf driver.
            (
                r#"{"version":"1.1","host":"box","short_message":"{\"level\":\"warn\",\"msg\":\"slow\",\"n\":5}","timestamp":1767268800.123,"level":6,"_container_name":"web-1","_tag":"ab"}"#,
                "timestamp=2026-01-01T12:00:00.123Z | level=warn | service=web-1 | message=slow | host=box | tag=ab | n=5",
            ),
            (r#"{"short_message":"m","level":"WARNING","_service":"s","_level":3}"#, "s"),
        ] {
            let (rows, rejected) = decoded(message);
            assert_eq!(rejected, [""; 0], "{message}");
            assert!(rows.len() == 1 && rows[0].contains(wanted), "{message}\n{}\n{wanted}", rows[0]);
        }
    }

    #[test]
    fn bad_messages_are_told_and_good_ones_kept() {
        let (rows, rejected) =
            decoded("{\"short_message\":\"one\"}\n{\"host\":\"x\"}\nno json\0{\"short_message\":\"two\"}\0");
        assert_eq!(rows.len(), 2);
        assert_eq!(
            rejected,
            ["2: the message has no 'short_message'", "3: not a JSON object: expected '{' at column 1"]
        );
    }
}
