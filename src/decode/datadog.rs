//! Datadog's log intake: an array of objects, or one; and lines with their tags in the request's query.
//!
//! Invariant: the line is `message`; status, service, host, source and each of `ddtags` stand around it.
//! Source: Datadog's API reference, "Send logs"; datadog-agent, pkg/logs/processor/json.go.

use super::columns::Cell;
use super::envelope::{self, Member, elements, find, members};
use super::jsonline::split;
use super::outer::{Mark, Naming, Outer};
use super::records::Records;
use super::{Decoded, Error, Options};
use crate::record::Level;

/// Where a log comes from: what tells one stream from another.
const ORIGIN: [&str; 3] = ["hostname", "service", "ddsource"];

/// Decodes a JSON body. An element that is no object is rejected by its place. **Errors**: when the body is neither an
/// array nor an object, or grows too large.
pub fn logs(body: &[u8], options: &Options, now_ns: i64) -> Result<Decoded, Error> {
    let text = String::from_utf8_lossy(body);
    let mut records = Records::new(options, now_ns);
    let logs = match elements(&text) {
        Some(logs) => logs,
        None if text.trim_start().starts_with('{') => vec![&*text],
        None => return Err(Error::Malformed("the body is neither a JSON array of logs nor a log".to_owned())),
    };
    for (place, log) in (1..).zip(logs) {
        match members(log) {
            Ok(found) => push_log(log, &found, &mut records, place, now_ns)?,
            Err(reason) => records.reject(place, reason),
        }
    }
    Ok(records.finish())
}

/// Decodes lines; `fields` are those of the query. **Errors**: as [`logs`].
pub fn text(body: &[u8], fields: &[(&str, &str)], options: &Options, now_ns: i64) -> Result<Decoded, Error> {
    let mut records = Records::new(options, now_ns);
    records.stream(fields.iter().copied().filter(|(name, _)| ORIGIN.contains(name)));
    records.outer(|outer, naming| fields.iter().for_each(|(name, value)| push_text(name, value, outer, naming)));
    for (line, place) in split(body) {
        records.line(line, None, place)?;
    }
    Ok(records.finish())
}

fn push_log(
    log: &str,
    found: &[Member<'_>],
    records: &mut Records<'_>,
    place: usize,
    now_ns: i64,
) -> Result<(), Error> {
    // `timestamp` is the agent's and ours, `date` what the API documents beside.
    let time = find(found, "timestamp").or_else(|| find(found, "date")).or_else(|| find(found, "@timestamp"));
    let time_ns = time.and_then(|member| envelope::time_of(member.value));
    records.stream(ORIGIN.iter().filter_map(|name| Some((name, find(found, name)?.value))));
    records.reset_outer(Mark::default());
    let Some(line) = find(found, "message") else { return records.object(log.trim_ascii().as_bytes(), place) };
    records.outer(|outer, naming| {
        for member in found.iter().filter(|member| !std::ptr::eq(*member, line)) {
            match envelope::string(member.value) {
                Some(value) => push_text(&member.name, &value, outer, naming),
                None if time.is_some_and(|time| std::ptr::eq(member, time)) && time_ns.is_some() => {}
                None => envelope::push(&member.name, member.value, outer, naming),
            }
        }
    });
    envelope::push_line(line.value, time_ns.unwrap_or(now_ns), records, place)
}

fn push_text(name: &str, value: &str, outer: &mut Outer, naming: &mut Naming<'_>) {
    match name {
        "ddtags" => {
            for tag in value.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
                // A tag without a value is one of its own.
                let (name, value) = tag.split_once(':').unwrap_or((tag, "true"));
                outer.push(name, Cell::Text(value), naming);
            }
        }
        "status" => {
            let level = Level::parse(value.as_bytes());
            envelope::push_level(name, value, level, outer, naming);
        }
        "timestamp" | "date" | "@timestamp" => {}
        _ => outer.push(name, Cell::Text(value), naming),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, row};
    use super::*;

    fn rows(decoded: &Decoded) -> Vec<String> {
        (0..decoded.accepted()).map(|index| row(&decoded.batch, index)).collect()
    }

    #[test]
    fn logs_become_records() {
        let body = r#"[{"ddsource":"nginx","ddtags":"env:staging,version:5.1,canary","hostname":"i-012345678","message":"2019-11-19T14:37:58,995 INFO hello","service":"payment"},
            {"message":"{\"n\":5,\"msg\":\"boom\"}","status":"error","timestamp":1767268800123,"service":"web"},
            7, {"no":"message","n":1}]"#;
        let decoded = logs(body.as_bytes(), &Options::default(), NOW).unwrap();
        let rows = rows(&decoded);
        assert_eq!(rows.len(), 3, "{rows:?}");
        assert!(rows[0].contains("level=info | service=payment | message=") && rows[0].contains("hello"), "{rows:?}");
        let tags = "env=staging | version=5.1 | canary=true | hostname=i-012345678";
        assert!(rows[0].contains(tags), "{rows:?}");
        assert_eq!(rows[1], "timestamp=2026-01-01T12:00:00.123Z | level=error | service=web | message=boom | n=5");
        assert_eq!(decoded.rejected[0].line, 3);
        assert!(matches!(logs(b"text", &Options::default(), NOW), Err(Error::Malformed(_))));
    }

    #[test]
    fn lines_have_the_tags_of_the_query() {
        let fields = [("ddtags", "env:prod"), ("service", "web"), ("status", "WARN")];
        let decoded = text(b"one\ntwo\n", &fields, &Options::default(), NOW).unwrap();
        assert!(rows(&decoded)[1].ends_with("level=warn | service=web | message=two | env=prod | status=WARN"));
    }
}
