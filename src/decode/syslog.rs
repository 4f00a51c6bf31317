//! Syslog messages, RFC 5424 and RFC 3164 (what senders make of it): one message, without its frame, becomes one record.
//!
//! Invariant: the header and its structured data are fields around the record; the text behind them is the line. What
//! can't be read as a header is part of the line, so nothing of a message is lost.
//! Source: RFC 5424 §6, RFC 3164 §4, and what rsyslog, syslog-ng, glibc, util-linux' logger and Docker send.

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;

use super::columns::Cell;
use super::outer::{Mark, Naming, Outer};
use super::records::Records;
use super::{Decoded, Error, Options};
use crate::record::{Level, time};

/// How far senders' clocks and zones may be wrong.
const AHEAD_MAX_NS: i64 = 24 * 3_600 * 1_000_000_000;
/// Longest word that is taken for a program's name.
const TAG_BYTES_MAX: usize = 128;
/// Words that RFC 5424 §6.2.1 gives the severities, from 0.
const SEVERITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
/// … and the facilities.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// The mark of Common Event Expression: JSON follows.
const CEE: &str = "@cee:";

/// A message as a socket gave it.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Address of the sender, for messages that name no host; empty: unknown.
    pub sender: &'a str,
}

/// Decodes messages in their order; `zone` is where times without one were taken. Empty messages are no records.
/// **Errors**: when the whole grows too large.
pub fn messages<'a>(
    messages: impl IntoIterator<Item = Message<'a>>,
    zone: &TimeZone,
    options: &Options,
    now_ns: i64,
) -> Result<Decoded, Error> {
    let mut records = Records::new(options, now_ns);
    for (message, place) in messages.into_iter().zip(1..) {
        let bytes = without_end(message.bytes);
        if bytes.is_empty() {
            continue;
        }
        let readable = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            // Where the header ends before the first bad byte, it is read all the same.
            Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or(""),
        };
        let header = Header::read(readable, zone, now_ns);
        records.stream([("host", header.host(message.sender)), ("app_name", header.app_name)]);
        records.reset_outer(Mark::default());
        records.outer(|outer, naming| header.push(message.sender, outer, naming));
        records.line(&bytes[header.length..], header.time_ns, place)?;
    }
    Ok(records.finish())
}

/// A message without what senders put behind it: line ends (also inside counted frames), and C's end of a string.
fn without_end(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r' | 0)).map_or(0, |last| last + 1);
    &bytes[..end]
}

/// What stands before the line.
#[derive(Debug, Default)]
struct Header<'a> {
    priority: Option<u8>,
    time_ns: Option<i64>,
    hostname: &'a str,
    app_name: &'a str,
    procid: &'a str,
    msgid: &'a str,
    /// Cisco's count of messages.
    sequence: &'a str,
    structured: Vec<(String, Cow<'a, str>)>,
    /// Bytes of it.
    length: usize,
}

impl<'a> Header<'a> {
    fn read(text: &'a str, zone: &TimeZone, now_ns: i64) -> Header<'a> {
        let mut header = Header::default();
        let Some((priority, rest)) = priority(text) else { return header };
        header.priority = Some(priority);
        let rest = match rest.strip_prefix("1 ").and_then(|rest| header.read_5424(rest)) {
            Some(rest) => rest,
            None => header.read_3164(rest, zone, now_ns),
        };
        let rest = match rest.trim_start_matches(' ').strip_prefix(CEE) {
            Some(json) => json.trim_start_matches(' '),
            None => rest,
        };
        header.length = text.len() - rest.len();
        header
    }

    /// RFC 5424 from its timestamp on; gives what is left, `None` when it is none.
    fn read_5424(&mut self, text: &'a str) -> Option<&'a str> {
        let (timestamp, rest) = text.split_once(' ')?;
        let time_ns = match timestamp {
            "-" => None,
            text => Some(time::parse(text.as_bytes()).map(|(ns, _)| ns)?),
        };
        let (hostname, rest) = rest.split_once(' ')?;
        let (app_name, rest) = rest.split_once(' ')?;
        let (procid, rest) = rest.split_once(' ')?;
        let (msgid, rest) = rest.split_once(' ')?;
        let known = |word: &'a str| if word == "-" { "" } else { word };
        (self.hostname, self.app_name, self.procid, self.msgid) =
            (known(hostname), known(app_name), known(procid), known(msgid));
        self.time_ns = time_ns;
        // Structured data that is broken stays in the line.
        let rest = match rest.strip_prefix('-') {
            Some(rest) if rest.is_empty() || rest.starts_with(' ') => rest,
            _ => match structured_data(rest) {
                Some((fields, rest)) => {
                    self.structured = fields;
                    rest
                }
                None => return Some(rest),
            },
        };
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        let rest = rest.strip_prefix('\u{feff}').unwrap_or(rest);
        // rsyslog keeps the blank behind RFC 3164's tag; more than one is the message's own indentation.
        Some(rest.strip_prefix(' ').filter(|rest| !rest.starts_with(' ')).unwrap_or(rest))
    }

    /// RFC 3164 from behind its priority on; gives what is left.
    fn read_3164(&mut self, text: &'a str, zone: &TimeZone, now_ns: i64) -> &'a str {
        let text = text.trim_start_matches(' ');
        let (sequence, timed) = text.split_once(": ").filter(|(first, _)| is_count(first)).unwrap_or(("", text));
        let Some((time_ns, rest)) = calendar_time(timed).or_else(|| yearless_time(timed, zone, now_ns)) else {
            return self.read_tag(text).unwrap_or(text);
        };
        self.sequence = sequence;
        self.time_ns = Some(time_ns);
        let rest = rest.strip_prefix(':').unwrap_or(rest).trim_start_matches(' ');
        // Without a host (local sockets) the program follows at once.
        if let Some(rest) = self.read_tag(rest) {
            return rest;
        }
        match rest.split_once(' ') {
            Some((host, rest)) if is_name(host) => {
                self.hostname = host;
                let rest = rest.trim_start_matches(' ');
                self.read_tag(rest).unwrap_or(rest)
            }
            _ => rest,
        }
    }

    /// `program[pid]: ` or `program: `; gives what is left.
    fn read_tag(&mut self, text: &'a str) -> Option<&'a str> {
        let end = text.find([' ', ':', '[']).filter(|end| *end > 0)?;
        let (name, rest) = text.split_at(end);
        if !is_name(name) || is_count(name) {
            return None;
        }
        let (pid, rest) = match rest.strip_prefix('[') {
            Some(inner) => {
                let (pid, rest) = inner.split_once(']')?;
                (is_name(pid).then_some(pid)?, rest.strip_prefix(':').unwrap_or(rest))
            }
            None => ("", rest.strip_prefix(':').filter(|rest| rest.is_empty() || rest.starts_with(' '))?),
        };
        (self.app_name, self.procid) = (name, pid);
        Some(rest.strip_prefix(' ').unwrap_or(rest))
    }

    /// The machine it comes from, by the header or as it was seen.
    fn host<'s>(&'s self, sender: &'s str) -> &'s str {
        if self.hostname.is_empty() { sender } else { self.hostname }
    }

    fn push(&self, sender: &str, outer: &mut Outer, naming: &mut Naming<'_>) {
        if let Some(priority) = self.priority {
            let (facility, severity) = (usize::from(priority >> 3), usize::from(priority & 7));
            if let Some(level) = Level::from_syslog(severity as i64) {
                outer.set_level_hint(level);
            }
            outer.push_field("facility", Cell::Text(FACILITIES[facility]), naming);
            outer.push_field("severity", Cell::Text(SEVERITIES[severity]), naming);
        }
        let fields = [
            ("hostname", self.host(sender)),
            ("procid", self.procid),
            ("msgid", self.msgid),
            ("sequence", self.sequence),
        ];
        for (name, text) in fields.into_iter().filter(|(_, text)| !text.is_empty()) {
            outer.push_field(name, Cell::Text(text), naming);
        }
        if !self.app_name.is_empty() {
            outer.push("app_name", Cell::Text(self.app_name), naming);
        }
        for (name, text) in &self.structured {
            outer.push_field(name, Cell::Text(text), naming);
        }
    }
}

/// `<34>`, up to 191.
fn priority(text: &str) -> Option<(u8, &str)> {
    let (digits, rest) = text.strip_prefix('<')?.split_once('>')?;
    let written = (1..=3).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let priority = digits.parse::<u8>().ok().filter(|priority| written && *priority < 192)?;
    Some((priority, rest))
}

/// Whether a word may be the name of a host, a program or a process: no part of a sentence, of JSON or of pairs.
fn is_name(word: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}' | b'"' | b'\'' | b'=' | b'<' | b'>');
    (1..=TAG_BYTES_MAX).contains(&word.len()) && word.bytes().all(fits)
}

fn is_count(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

/// A time as RFC 5424 has it, in front of what old senders send (rsyslog's "ForwardFormat").
fn calendar_time(text: &str) -> Option<(i64, &str)> {
    let (word, _) = text.split_once(' ')?;
    let (ns, _) = word.starts_with(|first: char| first.is_ascii_digit()).then(|| time::parse(word.as_bytes()))??;
    // A count of something is no time.
    (word.len() >= 19).then_some((ns, &text[word.len()..]))
}

/// `Oct 11 22:14:15`, also with a year behind the day or the time, with a fraction, and with Cisco's mark of a clock that
/// is not set. The year that is not told is the newest one by which the time is not ahead of now by more than a day.
fn yearless_time<'a>(text: &'a str, zone: &TimeZone, now_ns: i64) -> Option<(i64, &'a str)> {
    let text = text.trim_start_matches(['*', '.']);
    let month = MONTHS.iter().position(|month| text.starts_with(month))? as i8 + 1;
    let (day, rest) = number(text[3..].strip_prefix(' ')?.trim_start_matches(' '), 2)?;
    let rest = rest.strip_prefix(' ')?;
    let (mut year, rest) = match number(rest, 4) {
        Some((year @ 1970.., rest)) => (Some(year), rest.strip_prefix(' ')?),
        _ => (None, rest),
    };
    let (hour, rest) = number(rest, 2)?;
    let (minute, rest) = number(rest.strip_prefix(':')?, 2)?;
    let (second, mut rest) = number(rest.strip_prefix(':')?, 2)?;
    let mut nanos = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count().min(9);
        nanos = format!("{:0<9}", &fraction[..digits]).parse().ok()?;
        rest = &fraction[digits..];
    }
    if let (None, Some((found @ 1970..=2999, after))) = (year, rest.strip_prefix(' ').and_then(|rest| number(rest, 4)))
        && after.starts_with([' ', ':'])
    {
        (year, rest) = (Some(found), after);
    }
    let of_day =
        Time::new(hour.try_into().ok()?, minute.try_into().ok()?, second.min(59).try_into().ok()?, nanos).ok()?;
    let instant = |year: i64| -> Option<i64> {
        let date = Date::new(year.try_into().ok()?, month, day.try_into().ok()?).ok()?;
        // In an hour that a zone skips or has twice, as jiff's "compatible" says.
        let zoned = date.to_datetime(of_day).to_zoned(zone.clone()).ok()?;
        i64::try_from(zoned.timestamp().as_nanosecond()).ok()
    };
    let ns = match year {
        Some(year) => instant(year)?,
        None => {
            let now = Timestamp::from_nanosecond(i128::from(now_ns)).ok()?.to_zoned(zone.clone()).year();
            let years = (i64::from(now) - 1..=i64::from(now) + 1).rev();
            years.filter_map(instant).find(|ns| *ns <= now_ns.saturating_add(AHEAD_MAX_NS))?
        }
    };
    Some((ns, rest))
}

/// A number of at most so many digits; a year has to have all four.
fn number(text: &str, digits_max: usize) -> Option<(i64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let fits = (1..=digits_max).contains(&digits) && (digits_max < 4 || digits == 4);
    let value = text[..digits].parse().ok().filter(|_| fits)?;
    Some((value, &text[digits..]))
}

/// Name and value of a parameter of structured data.
type Parameter<'a> = (String, Cow<'a, str>);

/// `[id name="value" …][id …]` as fields `id.name`; an element without parameters is a field that is empty.
fn structured_data(text: &str) -> Option<(Vec<Parameter<'_>>, &str)> {
    let mut fields = Vec::new();
    let mut rest = text.strip_prefix('[')?;
    loop {
        let end = rest.find([' ', ']']).filter(|end| *end > 0)?;
        let (id, mut element) = rest.split_at(end);
        if element.starts_with(']') {
            fields.push((id.to_owned(), Cow::Borrowed("")));
        }
        while let Some(parameter) = element.strip_prefix(' ') {
            let parameter = parameter.trim_start_matches(' ');
            if parameter.starts_with(']') {
                element = parameter;
                break;
            }
            let (name, value) = parameter.split_once("=\"").filter(|(name, _)| is_name(name))?;
            let (value, after) = quoted(value)?;
            fields.push((format!("{id}.{name}"), value));
            element = after;
        }
        let after = element.strip_prefix(']')?;
        match after.strip_prefix('[') {
            Some(next) => rest = next,
            None => return Some((fields, after)),
        }
    }
}

/// A value up to its closing quote, where `\"`, `\\` and `\]` stand for what follows the backslash (RFC 5424 §6.3.3).
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let end = memchr::memchr2(b'"', b'\\', text.as_bytes())?;
    if text.as_bytes()[end] == b'"' {
        return Some((Cow::Borrowed(&text[..end]), &text[end + 1..]));
    }
    let mut value = text[..end].to_owned();
    let mut letters = text[end..].char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((Cow::Owned(value), &text[end + at + 1..])),
            '\\' => match letters.next()?.1 {
                escaped @ ('"' | '\\' | ']') => value.push(escaped),
                other => value.extend(['\\', other]),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{NOW, row, sorted_pairs, value};
    use super::*;
    use crate::record::column;

    fn decode(bytes: &[u8], zone: &TimeZone) -> Decoded {
        messages([Message { bytes, sender: "10.0.0.9" }], zone, &Options::default(), NOW).unwrap()
    }

    /// The only record, as `name=value | …`.
    fn shown(message: &str) -> String {
        row(&decode(message.as_bytes(), &TimeZone::UTC).batch, 0)
    }

    #[test]
    fn headers_become_fields() {
        let cases = [
            // RFC 5424 §6.5, examples 1 to 4.
            (
                "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed for lonvick on /dev/pts/8",
                "timestamp=2003-10-11T22:14:15.003Z | level=fatal | service=su | message='su root' failed for lonvick on /dev/pts/8 \
                 | facility=auth | severity=crit | hostname=mymachine.example.com | msgid=ID47",
            ),
            (
                "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to make the do-nuts.",
                "timestamp=2003-08-24T12:14:15.000003Z | level=info | service=myproc | message=%% It's time to make the do-nuts. \
                 | facility=local4 | severity=notice | hostname=192.0.2.1 | procid=8710",
            ),
            (
                r#"<165>1 2003-10-11T22:14:15.003Z mymachine evntslog - ID47 [exampleSDID@32473 iut="3" eventSource="Application"][examplePriority@32473 class="high"]"#,
                "timestamp=2003-10-11T22:14:15.003Z | level=info | service=evntslog | message= | facility=local4 | severity=notice \
                 | hostname=mymachine | msgid=ID47 | exampleSDID@32473.iut=3 | exampleSDID@32473.eventSource=Application \
                 | examplePriority@32473.class=high",
            ),
            // rsyslog 8.2302, RSYSLOG_SyslogProtocol23Format, as recorded in shared/research/servers.md.
            (
                "<13>1 2026-11-21T09:08:57.820901+00:00 vm app - M1 [timeQuality tzKnown=\"1\" isSynced=\"0\"][ex@1 k=\"v 1\"] hello \u{e9} multi\n",
                "timestamp=2026-06-01T00:00:00Z | level=info | service=app | message=hello \u{e9} multi | facility=user | severity=notice \
                 | hostname=vm | msgid=M1 | timeQuality.tzKnown=1 | timeQuality.isSynced=0 | ex@1.k=v 1 \
                 | timestamp_original=2026-11-21T09:08:57.820901Z",
            ),
            (
                "<11>1 2026-05-31T23:59:58Z vm shop 42 - -  card declined\n",
                "timestamp=2026-05-31T23:59:58Z | level=error | service=shop | message=card declined | facility=user | severity=err \
                 | hostname=vm | procid=42",
            ),
            (
                "<13>1 - - - - - -",
                "timestamp=2026-06-01T00:00:00Z | level=info | message= | facility=user | severity=notice | hostname=10.0.0.9",
            ),
            (
                r#"<14>1 - h a - - [x@1 q="a\"b\\c\]d\e"][empty] m"#,
                r#"timestamp=2026-06-01T00:00:00Z | level=info | service=a | message=m | facility=user | severity=info | hostname=h | x@1.q=a"b\c]d\e | empty="#,
            ),
            // Broken structured data is kept as text.
            (
                r#"<14>1 - h a - - [x@1 q="open m"#,
                r#"timestamp=2026-06-01T00:00:00Z | level=info | service=a | message=[x@1 q="open m | facility=user | severity=info | hostname=h"#,
            ),
            // RFC 3164 §5.4, examples 1, 2 and 4.
            (
                "<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
                "timestamp=2025-10-11T22:14:15Z | level=fatal | service=su | message='su root' failed for lonvick on /dev/pts/8 \
                 | facility=auth | severity=crit | hostname=mymachine",
            ),
            ("Use the BFG!", "timestamp=2026-06-01T00:00:00Z | message=Use the BFG! | hostname=10.0.0.9"),
            (
                "<0>1990 Oct 22 10:52:01 TZ-6 scapegoat.dmz.example.org 10.1.2.3 sched[0]: That's All Folks!",
                "timestamp=2026-06-01T00:00:00Z | level=fatal | message=1990 Oct 22 10:52:01 TZ-6 scapegoat.dmz.example.org 10.1.2.3 sched[0]: That's All Folks! \
                 | facility=kern | severity=emerg | hostname=10.0.0.9",
            ),
            // glibc's syslog(3) on a local socket; logger; rsyslog's RSYSLOG_ForwardFormat; a tag without pid.
            (
                "<30>May 31 23:59:58 cron[77]: (root) CMD (true)",
                "timestamp=2026-05-31T23:59:58Z | level=info | service=cron | message=(root) CMD (true) | facility=daemon | severity=info \
                 | hostname=10.0.0.9 | procid=77",
            ),
            (
                "<13>2026-05-31T23:59:58.123456+02:00 web-1 nginx: GET /",
                "timestamp=2026-05-31T21:59:58.123456Z | level=info | service=nginx | message=GET / | facility=user | severity=notice | hostname=web-1",
            ),
            (
                "<27>kernel: oops",
                "timestamp=2026-06-01T00:00:00Z | level=error | service=kernel | message=oops | facility=daemon | severity=err | hostname=10.0.0.9",
            ),
            // Cisco, with and without a year.
            (
                "<189>29: *Mar  1 18:46:11.123: %SYS-5-CONFIG_I: Configured from console",
                "timestamp=2026-03-01T18:46:11.123Z | level=info | service=%SYS-5-CONFIG_I | message=Configured from console | sequence=29 | facility=local7 | severity=notice \
                 | hostname=10.0.0.9",
            ),
            (
                "<166>Mar 01 2024 18:46:11: %ASA-6-302013: Built",
                "timestamp=2024-03-01T18:46:11Z | level=info | service=%ASA-6-302013 | message=Built | facility=local4 | severity=info | hostname=10.0.0.9",
            ),
            // JSON with and without CEE's mark: its own level and service know better than the log driver.
            (
                "<30>May 31 23:59:58 h shop[1]: @cee: {\"level\":\"error\",\"msg\":\"no\",\"n\":1}",
                "timestamp=2026-05-31T23:59:58Z | level=error | service=shop | message=no | facility=daemon | severity=info | hostname=h | procid=1 | n=1",
            ),
            (
                "<30>1 2026-05-31T23:59:58Z h shop 1 - - {\"severity\":\"WARN\",\"service\":\"pay\",\"msg\":\"no\"}",
                "timestamp=2026-05-31T23:59:58Z | level=warn | service=pay | message=no | facility=daemon | severity=info | hostname=h | procid=1 | app_name=shop \
                 | severity_extracted=WARN",
            ),
            // A priority that is none.
            ("<192>x: y", "timestamp=2026-06-01T00:00:00Z | message=<192>x: y | hostname=10.0.0.9"),
        ];
        for (message, expected) in cases {
            assert_eq!(sorted_pairs(&shown(message)), sorted_pairs(expected), "{message}");
        }
    }

    #[test]
    fn a_time_without_a_year_is_the_newest_that_can_be() {
        let zone = |name: &str| TimeZone::get(name).unwrap();
        let cases = [
            // Now is 2026-06-01.
            ("Jan  1 00:00:00", "UTC", "2026-01-01T00:00:00Z"),
            ("Nov 30 23:59:59", "UTC", "2025-11-30T23:59:59Z"),
            ("Jun  1 23:59:59", "UTC", "2026-06-01T23:59:59Z"),
            ("Jun  3 00:00:00", "UTC", "2025-06-03T00:00:00Z"),
            ("Dec 31 23:59:59", "UTC", "2025-12-31T23:59:59Z"),
            ("Jun 01 02:00:00", "Europe/Berlin", "2026-06-01T00:00:00Z"),
            ("Mar 29 02:30:00", "Europe/Berlin", "2026-03-29T01:30:00Z"),
            ("Oct 11 22:14:15 2025 ", "UTC", "2025-10-11T22:14:15Z"),
        ];
        for (text, name, expected) in cases {
            let (ns, _) = yearless_time(text, &zone(name), NOW).unwrap();
            let mut shown = Vec::new();
            time::write(ns, time::RFC_3339, &mut shown);
            assert_eq!(String::from_utf8(shown).unwrap(), expected, "{text} in {name}");
        }
        for text in ["Feb 30 00:00:00", "Jan 1 24:00:00", "Jan 1", "January 1 00:00:00", "Feb 29 00:00:00"] {
            assert_eq!(yearless_time(text, &TimeZone::UTC, NOW), None, "{text}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_kept() {
        let decoded = decode(b"<13>May 31 23:59:58 h app[7]: caf\xe9\n", &TimeZone::UTC);
        assert_eq!(value(&decoded.batch, column::SERVICE, 0).unwrap(), "app");
        assert_eq!(value(&decoded.batch, column::MESSAGE, 0).unwrap(), "caf\u{fffd}");
        assert_eq!(decode(b"\0\r\n", &TimeZone::UTC).accepted(), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_become_a_record(
            head in "(<[0-9]{1,4}>)?(1 )?([A-Z][a-z]{2} +[0-9]{1,2} [0-9:]{8}|[0-9TZ:.-]{20})?( [a-z-]{1,5}){0,4}",
            tail in prop::collection::vec(any::<u8>(), 0..80),
            inner in r#"[\[\]"\\= :{}a-z\u{feff}@ce-]{0,40}"#,
        ) {
            let bytes = [head.as_bytes(), b" ", inner.as_bytes(), &tail].concat();
            for bytes in [&bytes[..], &tail, inner.as_bytes()] {
                let decoded = decode(bytes, &TimeZone::UTC);
                prop_assert_eq!(decoded.accepted(), usize::from(!without_end(bytes).is_empty()));
                prop_assert_eq!(decoded.rejected_count, 0);
            }
        }
    }
}
