//! Documents of shippers: a JSON object with a log line in one of its members, and around it what the shipper knows
//! (Filebeat, Vector, Logstash, Fluent Bit). The line is taken apart as it is by any other way; `envelope` reads objects.
//!
//! Invariant: a document that names a level is a program's own line, and is left whole; so is one whose text is plain.

use super::Error;
use super::envelope::{self, Member, find, members};
use super::names::Role;
use super::partial::DOCKER_START;
use super::records::Records;

/// Members that may hold a log line, best first.
const LINES: [&str; 3] = ["message", "log", "line"];
/// Members that Docker's json-file writes, whose lines have a reader of their own.
const DOCKER: [&str; 4] = ["log", "stream", "time", "attrs"];

/// Adds the line that a document holds, with its other members around it; `false` when it holds none and nothing was
/// done. `given_ns` is the protocol's time, else the document's holds. **Errors**: as [`Records::line`].
pub(super) fn push_inner_line(
    document: &str,
    given_ns: Option<i64>,
    records: &mut Records<'_>,
    place: usize,
) -> Result<bool, Error> {
    let Some((found, at)) = inner_line(document, records) else { return Ok(false) };
    let time = found
        .iter()
        .filter_map(|member| records.rank(&member.name, Role::Timestamp).map(|rank| (rank, member)))
        .filter_map(|(rank, member)| Some((rank, member, envelope::time_of(member.value)?)))
        .min_by_key(|(rank, ..)| *rank)
        .filter(|_| given_ns.is_none());
    let around = records.outer_mark();
    records.outer(|outer, naming| {
        let is_time = |member: &Member<'_>| time.is_some_and(|(_, time, _)| std::ptr::eq(time, member));
        for (_, member) in found.iter().enumerate().filter(|(index, member)| *index != at && !is_time(member)) {
            envelope::push(&member.name, member.value, outer, naming);
        }
    });
    let line = envelope::text(found[at].value);
    let line = line.strip_suffix('\n').unwrap_or(&line);
    records.line(line.as_bytes(), given_ns.or(time.map(|(.., ns)| ns)), place)?;
    records.reset_outer(around);
    Ok(true)
}

/// The members of a document, and which of them is a log line of a known form.
fn inner_line<'d>(document: &'d str, records: &mut Records<'_>) -> Option<(Vec<Member<'d>>, usize)> {
    // Most lines that are no documents of a shipper say a level, and end here.
    let holds = |needle: &str| memchr::memmem::find(document.as_bytes(), needle.as_bytes()).is_some();
    if holds("evel\":") || !LINES.iter().any(|name| holds(name)) {
        return None;
    }
    let found = members(document).ok()?;
    let is_docker = document.starts_with(DOCKER_START) && found.iter().all(|member| DOCKER.contains(&&*member.name));
    if is_docker || names_level("", &found, records) {
        return None;
    }
    let at = LINES.iter().find_map(|name| {
        let line = find(&found, name)?;
        let is_line = envelope::string(line.value).is_some_and(|text| records.is_of_known_form(&text));
        is_line.then(|| found.iter().position(|member| std::ptr::eq(member, line)))?
    })?;
    Some((found, at))
}

/// Whether a document, or an object in it, says a level.
fn names_level(prefix: &str, found: &[Member<'_>], records: &Records<'_>) -> bool {
    found.iter().any(|member| {
        let name = format!("{prefix}{}", member.name);
        let says = !matches!(member.value, "null" | "\"\"") && records.rank(&name, Role::Level).is_some();
        // `log.level` is as deep as names of levels are.
        let inner = || {
            prefix.is_empty()
                && members(member.value).is_ok_and(|inner| names_level(&format!("{name}."), &inner, records))
        };
        says || member.value.starts_with('{') && inner()
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, row};
    use super::super::{Options, jsonline};
    use crate::record::shape::render_lines;

    #[test]
    fn a_line_of_a_known_form_is_taken_apart() {
        let cases = [
            // Vector's http sink.
            (
                r#"{"file":"/var/log/a.log","host":"box","message":"I0102 15:04:05.678901       1 a.go:12] it runs","source_type":"file","timestamp":"2026-01-01T12:00:00.5Z"}"#,
                "level=info | message=it runs | file=/var/log/a.log | host=box | source_type=file",
            ),
            // Fluent Bit's http, with the line's end that CRI leaves.
            (
                r#"{"date":1767268800.25,"log":"{\"level\":\"warn\",\"msg\":\"slow\",\"n\":5}\n","stream":"stderr"}"#,
                "timestamp=2026-01-01T12:00:00.25Z | level=warn | message=slow | stream=stderr | n=5",
            ),
            (
                r#"{"@timestamp":"2026-01-01T12:00:00.000Z","message":"ts=1 level=error msg=\"it broke\"","host":{"name":"box"}}"#,
                "timestamp=2026-01-01T12:00:00Z | level=error | message=it broke | host.name=box | ts=1",
            ),
            (
                r#"{"@timestamp":"2026-01-01T12:00:00.000Z","message":"10.0.0.1 - - [01/Jan/2026:12:00:00 +0000] \"GET /a HTTP/1.1\" 200 5"}"#,
                "path=/a",
            ),
        ];
        for (document, wanted) in cases {
            let decoded = jsonline::lines(document.as_bytes(), &Options::default(), NOW).unwrap();
            let shown = row(&decoded.batch, 0);
            assert!(shown.contains(wanted), "{document}\n{shown}\n{wanted}");
        }
    }

    #[test]
    fn a_program_s_own_line_is_left_whole() {
        for line in [
            r#"{"level":"info","message":"{\"a\":1}"}"#,
            r#"{"log":{"level":"info"},"message":"I0102 15:04:05.678901       1 a.go:12] it runs"}"#,
            r#"{"message":"something was done","n":1}"#,
            r#"{"message":"{half","n":1}"#,
            r#"{"message":7,"n":1}"#,
            r#"{"severity":"INFO","message":"level=warn is not meant"}"#,
        ] {
            let decoded = jsonline::lines(line.as_bytes(), &Options::default(), NOW).unwrap();
            let shown = row(&decoded.batch, 0);
            assert!(shown.contains("message=") && !shown.contains("| caller="), "{line}\n{shown}");
            assert_eq!(render_lines(&decoded.batch).unwrap().value(0), line, "{shown}");
        }
    }
}
