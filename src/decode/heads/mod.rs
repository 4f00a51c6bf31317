//! Scanners of text lines: the time, level, logger and such that stand before the message in the formats of well-known
//! programs, and access logs. Not JSON, not `key=value`: those may follow a head, and are read by their own scanners.
//!
//! Invariant: parts do not overlap and stand in the line's order (but for [`Value::Echo`]); the same bytes give the same
//! parts, and no other.

use super::token::{Part, Syntax, Tokens, Value, number_length};
use crate::record::time;

mod logger;

/// Which family a line is of: lines of two families may look alike and mean different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// No known head.
    Plain,
    /// A container runtime's (CRI): the rest is a line of its own.
    Cri,
    /// A time, or a level, then what stands around loggers' names.
    Logger,
    Access,
    ApacheError,
    Klog,
    Syslog,
    Python,
}

/// What [`scan`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Families of the heads found, the outer ones in the higher digits.
    pub families: u32,
    /// Where the rest starts that may be a JSON object or pairs; if it is neither, it is the message.
    pub open: Option<usize>,
}

/// How many heads may stand before one another.
const HEADS_MAX: u32 = 3;
/// What [`Head::families`] counts in.
pub(super) const FAMILIES: u32 = Family::Python as u32 + 1;
/// Length of `0102 15:04:05.678901`.
const KLOG_TIME_BYTES: usize = 20;

/// Finds the head of the text at `at..end`, appending its parts to `tokens`.
pub(super) fn scan(text: &str, at: usize, end: usize, tokens: &mut Tokens) -> Head {
    let mut families = 0;
    let mut at = at;
    for _ in 0..HEADS_MAX {
        let mut cursor = Cursor { text, bytes: &text.as_bytes()[..end], at, tokens };
        let (family, rest) = cursor.head();
        families = families * FAMILIES + family as u32;
        match rest {
            Rest::Line(rest) => at = rest,
            Rest::Nothing => return Head { families, open: None },
            Rest::Message(_) if families == Family::Plain as u32 => return Head { families, open: None },
            Rest::Message(rest) => {
                let open = may_be_structured(&text[rest..end]).then_some(rest);
                if open.is_none() {
                    push_message(tokens, rest, end);
                }
                return Head { families, open };
            }
        }
    }
    push_message(tokens, at, end);
    Head { families, open: None }
}

/// Adds the rest of the line as its message; one that was found before is made longer.
pub(super) fn push_message(tokens: &mut Tokens, start: usize, end: usize) {
    let message = Value::Text { syntax: Syntax::Part(Part::Message), escaped: false };
    match tokens.list.last_mut() {
        Some(last) if last.value == message => last.end = end as u32,
        _ => push(tokens, Part::Message, start, end),
    }
}

fn push(tokens: &mut Tokens, part: Part, start: usize, end: usize) {
    let name = tokens.names.len();
    tokens.names.push_str(part.name());
    tokens.push(name, start, end, Value::Text { syntax: Syntax::Part(part), escaped: false });
}

/// Whether a text starts like a JSON object or a pair.
pub(super) fn may_be_structured(text: &str) -> bool {
    let bytes = text.trim_ascii_start().as_bytes();
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'@' | b'/');
    match bytes.first() {
        Some(b'{') => true,
        _ => bytes.iter().position(|byte| !is_name(byte)).is_some_and(|at| at > 0 && bytes[at] == b'='),
    }
}

/// What follows a head.
enum Rest {
    /// A line of its own.
    Line(usize),
    /// The message, or something structured.
    Message(usize),
    /// All parts were found.
    Nothing,
}

struct Cursor<'a> {
    text: &'a str,
    /// The line up to its end.
    bytes: &'a [u8],
    at: usize,
    tokens: &'a mut Tokens,
}

impl Cursor<'_> {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    fn skip(&mut self, literal: &[u8]) -> bool {
        let found = self.rest().starts_with(literal);
        self.at += if found { literal.len() } else { 0 };
        found
    }

    /// Goes past blanks; gives how many there are.
    fn blanks(&mut self) -> usize {
        let count = self.rest().iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        self.at += count;
        count
    }

    /// Length of what stands before the next of `stops`, at most 256 bytes.
    fn until(&self, stops: &[u8]) -> Option<usize> {
        self.rest().iter().take(256).position(|byte| stops.contains(byte))
    }

    /// Length of the word here: up to a blank or the end.
    fn word(&self) -> usize {
        self.rest().iter().take_while(|byte| **byte > b' ').count()
    }

    /// Takes the next `length` bytes as a part.
    fn part(&mut self, part: Part, length: usize) {
        push(self.tokens, part, self.at, self.at + length);
        self.at += length;
    }

    /// Takes a part, or leaves a `-`, which says that there is none.
    fn part_or_dash(&mut self, part: Part, length: usize) {
        match &self.rest()[..length] {
            b"-" | b"" => self.at += length,
            _ => self.part(part, length),
        }
    }

    /// Takes an integer that is followed by one of `stops`, or by the end.
    fn integer(&mut self, name: &str, stops: &[u8]) -> bool {
        let Some(length) = number_length(self.rest()) else { return false };
        let (text, after) = self.text[self.at..self.bytes.len()].split_at(length);
        let Ok(value) = text.parse::<i64>() else { return false };
        if text == "-0" || !after.as_bytes().first().is_none_or(|byte| stops.contains(byte)) {
            return false;
        }
        let start = self.tokens.names.len();
        self.tokens.names.push_str(name);
        self.tokens.push(start, self.at, self.at + length, Value::Integer(value));
        self.at += length;
        true
    }

    /// Tries one of the families, and forgets what it found when the line is none of it.
    fn attempt(&mut self, family: Family, scanner: fn(&mut Self) -> Option<Rest>) -> Option<(Family, Rest)> {
        let (at, count) = (self.at, self.tokens.list.len());
        let found = scanner(self);
        if found.is_none() {
            self.at = at;
            self.tokens.truncate(count);
        }
        found.map(|rest| (family, rest))
    }

    fn head(&mut self) -> (Family, Rest) {
        let plain = (Family::Plain, Rest::Message(self.at));
        let found = match self.rest() {
            [b'<', ..] => self.attempt(Family::Syslog, Self::syslog),
            [b'[', ..] => {
                let apache = self.attempt(Family::ApacheError, Self::apache_error);
                apache.or_else(|| self.attempt(Family::Logger, Self::logger))
            }
            [b'I' | b'W' | b'E' | b'F', b'0' | b'1', b'0'..=b'9', ..] => self.attempt(Family::Klog, Self::klog),
            [b'0'..=b'9', _, _, _, b'-' | b'/', ..] => {
                let cri = self.attempt(Family::Cri, Self::cri);
                let syslog = cri.or_else(|| self.attempt(Family::Syslog, Self::syslog_of_today));
                syslog.or_else(|| self.attempt(Family::Logger, Self::logger))
            }
            [b'0'..=b'9', b'0'..=b'9', b':', ..] => self.attempt(Family::Logger, Self::logger),
            [b'A'..=b'Z', b'a'..=b'z', b'a'..=b'z', b' ', ..] => self.attempt(Family::Syslog, Self::syslog_of_old),
            [b'A'..=b'Z', b'A'..=b'Z', ..] => {
                let python = self.attempt(Family::Python, Self::python);
                python.or_else(|| self.attempt(Family::Logger, Self::logger))
            }
            _ => None,
        };
        let access = found.or_else(|| self.attempt(Family::Access, Self::access));
        access.unwrap_or(plain)
    }

    /// Length of the time of day with a date that is here, if one is.
    fn calendar(&self) -> Option<usize> {
        time::parse_calendar(self.rest()).map(|(_, _, used)| used)
    }

    /// The same, when the date is followed by a `T`.
    fn calendar_with_t(&self) -> Option<usize> {
        self.rest().get(10).filter(|byte| **byte == b'T').and_then(|_| self.calendar())
    }

    /// `2016-10-06T00:17:09.669794202Z stdout F the line`
    fn cri(&mut self) -> Option<Rest> {
        let time = self.calendar_with_t()?;
        self.tokens.clock = Some(self.tokens.list.len());
        self.part(Part::Time, time);
        let stream = [&b" stdout "[..], b" stderr "].into_iter().find(|stream| self.rest().starts_with(stream))?;
        self.at += 1;
        self.part(Part::Stream, stream.len() - 2);
        let known = self.skip(b" F") || self.skip(b" P");
        (known && (self.skip(b" ") || self.rest().is_empty())).then_some(Rest::Line(self.at))
    }

    /// `<34>1 2026-10-11T22:14:15.003Z host app 123 ID47 [ex@32473 k="v"] message` and
    /// `<34>Oct 11 22:14:15 host app[123]: message`
    fn syslog(&mut self) -> Option<Rest> {
        self.at += 1;
        self.tokens.priority = Some(self.tokens.list.len());
        let digits = self.until(b">").filter(|length| (1..=3).contains(length))?;
        if !self.integer("priority", b">") || digits == 0 || !self.skip(b">") {
            return None;
        }
        if !self.skip(b"1 ") {
            return match self.calendar() {
                Some(_) => self.syslog_of_today(),
                None => self.syslog_of_old(),
            };
        }
        match self.calendar() {
            Some(time) => self.part(Part::Time, time),
            None if self.skip(b"-") => {}
            None => return None,
        }
        for part in [Part::Host, Part::App, Part::Other("pid"), Part::Other("msgid")] {
            if !self.skip(b" ") {
                return None;
            }
            let length = self.word();
            self.part_or_dash(part, length);
        }
        if !self.skip(b" ") {
            return None;
        }
        if !self.skip(b"-") {
            self.structured_data()?;
        }
        self.skip(b" ");
        self.skip(b"\xef\xbb\xbf");
        Some(Rest::Message(self.at))
    }

    /// `[id name="value" …][id …]`; a field is named `id.name`.
    fn structured_data(&mut self) -> Option<()> {
        if self.rest().first() != Some(&b'[') {
            return None;
        }
        while self.skip(b"[") {
            let id = self.at..self.at + self.until(b" ]")?;
            self.at = id.end;
            while self.skip(b" ") {
                let name = self.at..self.at + self.until(b"= ]\"")?;
                self.at = name.end;
                if !self.skip(b"=\"") {
                    return None;
                }
                let (length, escaped) = self.quoted()?;
                let start = self.tokens.names.len();
                self.tokens.names.push_str(&self.text[id.clone()]);
                self.tokens.names.push('.');
                self.tokens.names.push_str(&self.text[name]);
                let value = Value::Text { syntax: Syntax::Double, escaped };
                self.tokens.push(start, self.at - 1, self.at + length + 1, value);
                self.at += length + 1;
            }
            if !self.skip(b"]") {
                return None;
            }
        }
        Some(())
    }

    /// Length of what stands before the closing quote, and whether it has backslashes.
    fn quoted(&self) -> Option<(usize, bool)> {
        let (mut at, mut escaped) = (0, false);
        loop {
            let found = at + memchr::memchr2(b'"', b'\\', self.rest().get(at..)?)?;
            if self.rest()[found] == b'"' {
                return Some((found, escaped));
            }
            escaped = true;
            at = found + 2;
        }
    }

    /// `Oct 11 22:14:15 host app[123]: message`
    fn syslog_of_old(&mut self) -> Option<Rest> {
        let time = self.rest().get(..15)?;
        // Any moment will do to see whether it is a time.
        time::parse_without_year(time, 0)?;
        self.part(Part::Time, 15);
        self.host_and_tag(true)
    }

    /// rsyslog's other format: `2026-01-01T12:00:00.123456+00:00 host app[123]: message`
    fn syslog_of_today(&mut self) -> Option<Rest> {
        let time = self.calendar_with_t()?;
        self.part(Part::Time, time);
        let priority = self.tokens.priority.is_some();
        self.host_and_tag(priority)
    }

    /// ` host app[123]: `, or ` host app: ` when `bare` is allowed.
    fn host_and_tag(&mut self, bare: bool) -> Option<Rest> {
        if !self.skip(b" ") {
            return None;
        }
        let host = self.word();
        if host == 0 || self.rest()[..host].ends_with(b":") {
            return None;
        }
        self.part(Part::Host, host);
        if !self.skip(b" ") {
            return None;
        }
        let tag = self.until(b"[: ").filter(|length| *length > 0)?;
        match self.rest()[tag] {
            b'[' => {
                self.part(Part::App, tag);
                self.at += 1;
                let pid = self.until(b"]")?;
                if !self.integer("pid", b"]") {
                    self.part(Part::Other("pid"), pid);
                }
                (self.skip(b"]: ") || self.skip(b"]:")).then_some(())?;
            }
            b':' if bare => {
                self.part(Part::App, tag);
                self.at += 1;
                self.skip(b" ");
            }
            _ if bare => {}
            _ => return None,
        }
        Some(Rest::Message(self.at))
    }

    /// `I0102 15:04:05.678901       1 reflector.go:12] message`
    fn klog(&mut self) -> Option<Rest> {
        self.part(Part::Level, 1);
        let time = self.rest().get(..KLOG_TIME_BYTES)?;
        time::parse_without_year(time, 0)?;
        self.part(Part::Time, KLOG_TIME_BYTES);
        self.blanks();
        if !self.integer("pid", b" ") || !self.skip(b" ") {
            return None;
        }
        let caller = self.until(b"] ").filter(|length| self.rest()[*length] == b']')?;
        self.part(Part::Caller, caller);
        self.at += 1;
        self.skip(b" ");
        Some(Rest::Message(self.at))
    }

    /// `WARNING:root:message`
    fn python(&mut self) -> Option<Rest> {
        let level = self.until(b":").filter(|length| logger::is_level(&self.rest()[..*length]))?;
        self.part(Part::Level, level);
        self.at += 1;
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        let logger = self.rest().iter().take_while(|byte| is_name(byte)).count();
        if logger == 0 || self.rest().get(logger) != Some(&b':') {
            return None;
        }
        self.part(Part::Logger, logger);
        self.at += 1;
        Some(Rest::Message(self.at))
    }

    /// `[Fri Sep 09 10:42:29.902022 2011] [core:error] [pid 35708:tid 4328636416] [client 72.15.99.187] message`
    fn apache_error(&mut self) -> Option<Rest> {
        self.at += 1;
        let time = self.until(b"]").filter(|length| (24..=31).contains(length))?;
        if !self.rest()[..time].contains(&b':')
            || time::parse(&self.rest()[..time]).is_none()
            || self.calendar().is_some()
        {
            return None;
        }
        self.part(Part::Time, time);
        self.at += 1;
        while self.skip(b" [") {
            let length = self.until(b"]")?;
            let inside = &self.rest()[..length];
            if inside.starts_with(b"pid ") {
                self.at += 4;
                self.integer("pid", b":]").then_some(())?;
                if self.skip(b":tid ") {
                    self.integer("tid", b"]").then_some(())?;
                }
            } else if inside.starts_with(b"client ") {
                self.at += 7;
                self.part(Part::Client, length - 7);
            } else if let Some(colon) = memchr::memchr(b':', inside) {
                self.part_or_dash(Part::Other("module"), colon);
                self.at += 1;
                self.part(Part::Level, length - colon - 1);
            } else {
                self.part(Part::Level, length);
            }
            self.skip(b"]").then_some(())?;
        }
        self.skip(b" ");
        Some(Rest::Message(self.at))
    }

    /// `127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /a HTTP/1.0" 200 2326 "http://from" "a browser"`, with what
    /// else stands at the end.
    fn access(&mut self) -> Option<Rest> {
        let client = self.word();
        let host_like = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b':' | b'-' | b'_');
        if client == 0 || client > 255 || !self.rest()[..client].iter().all(host_like) {
            return None;
        }
        self.part_or_dash(Part::Client, client);
        for part in [Part::Other("ident"), Part::Other("remote_user")] {
            self.skip(b" ").then_some(())?;
            let length = self.word();
            self.part_or_dash(part, length);
        }
        self.skip(b" [").then_some(())?;
        let time =
            self.until(b"]").filter(|length| matches!(time::parse(&self.rest()[..*length]), Some((_, Some(_)))))?;
        self.part(Part::Time, time);
        self.skip(b"] \"").then_some(())?;
        self.request()?;
        self.skip(b" ").then_some(())?;
        self.integer("status", b" ").then_some(())?;
        self.skip(b" ").then_some(())?;
        if !self.skip(b"-") {
            self.integer("bytes", b" ").then_some(())?;
        }
        for part in [Part::Other("referer"), Part::Other("user_agent"), Part::Other("forwarded_for")] {
            if !self.skip(b" \"") {
                break;
            }
            let (length, _) = self.quoted()?;
            self.part_or_dash(part, length);
            self.at += 1;
        }
        if self.skip(b" ") && !self.rest().is_empty() {
            self.part(Part::Other("extra"), self.rest().len());
        }
        self.rest().is_empty().then_some(Rest::Nothing)
    }

    /// The request of an access log, up to its quote: method, path and protocol, and all of it as the message.
    fn request(&mut self) -> Option<()> {
        let (start, length) = (self.at, self.quoted()?.0);
        let request = &self.rest()[..length];
        let method = request.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
        let protocol =
            memchr::memrchr(b' ', request).filter(|at| request[*at..].starts_with(b" HTTP/") && *at > method);
        match (request.get(method), protocol) {
            (Some(b' '), Some(protocol)) if method > 0 => {
                self.part(Part::Other("method"), method);
                self.at += 1;
                self.part(Part::Path, protocol - method - 1);
                self.at += 1;
                self.part(Part::Other("protocol"), length - protocol - 1);
                let name = self.tokens.names.len();
                self.tokens.names.push_str(Part::Message.name());
                self.tokens.push(name, start, start + length, Value::Echo);
            }
            _ => self.part_or_dash(Part::Message, length),
        }
        self.skip(b"\"").then_some(())
    }
}
