//! Heads of loggers that write text: log4j, logback, Spring, Python's logging, Go, Rust's tracing, Serilog, PostgreSQL,
//! nginx's errors. They share a time, a level, and names in brackets or before a dash.
//!
//! Invariant: nothing is taken out of the message unless a level was found, but the time before it.

use super::{Cursor, Part, Rest};

/// Most elements between time and message.
const ELEMENTS_MAX: usize = 8;

/// Whether a word is a level as loggers write it before a message: in capitals. Fewer words than [`Level::parse`] knows,
/// as some are words of sentences.
///
/// [`Level::parse`]: crate::record::Level::parse
pub(super) fn is_level(word: &[u8]) -> bool {
    match word.len() {
        3 => matches!(word, b"TRC" | b"DBG" | b"INF" | b"WRN" | b"ERR" | b"FTL" | b"VRB" | b"CRT" | b"NTC"),
        4 => matches!(word, b"INFO" | b"WARN" | b"CRIT" | b"FINE" | b"DBUG" | b"EROR"),
        5 => matches!(word, b"TRACE" | b"DEBUG" | b"ERROR" | b"FATAL" | b"PANIC" | b"EMERG" | b"ALERT" | b"FINER"),
        6 => matches!(word, b"NOTICE" | b"SEVERE" | b"DPANIC" | b"FINEST"),
        7 => matches!(word, b"WARNING" | b"VERBOSE"),
        8 => matches!(word, b"CRITICAL"),
        _ => matches!(word, b"INFORMATION"),
    }
}

/// The same in any case; for places where nothing but a level would stand.
fn is_level_in_any_case(word: &[u8]) -> bool {
    let mut upper = [0; 16];
    let Some(upper) = upper.get_mut(..word.len()) else { return false };
    upper.copy_from_slice(word);
    upper.make_ascii_uppercase();
    is_level(upper)
}

/// What was found before the message.
#[derive(Default)]
struct Found {
    level: bool,
    thread: bool,
    logger: bool,
    pid: bool,
}

impl Cursor<'_> {
    pub(super) fn logger(&mut self) -> Option<Rest> {
        let start = self.at;
        let bracket = self.skip(b"[");
        let Some(time) = self.calendar().or_else(|| self.time_of_day()) else {
            self.at = start;
            return self.elements(false);
        };
        self.part(Part::Time, time);
        if bracket {
            return self.after_bracketed_time();
        }
        if self.rest().first() == Some(&b'\t')
            && let Some(rest) = self.zap()
        {
            return Some(rest);
        }
        match self.postgres() {
            Some(rest) => Some(rest),
            None if self.rest().first().is_none_or(|byte| b" \t|,;:-".contains(byte)) => self.elements(true),
            None => None,
        }
    }

    /// `12:00:00.123`
    fn time_of_day(&self) -> Option<usize> {
        let [a, b, b':', c, d, b':', e, f, rest @ ..] = self.rest() else { return None };
        if ![a, b, c, d, e, f].into_iter().all(u8::is_ascii_digit) {
            return None;
        }
        let fraction = match rest {
            [b'.' | b',', digits @ ..] => digits.iter().take_while(|byte| byte.is_ascii_digit()).count(),
            _ => 0,
        };
        Some(8 + if fraction > 0 { fraction + 1 } else { 0 })
    }

    /// `[time] …`, `[time LEVEL target] …` (env_logger), `[time: LEVEL/process] …` (Celery), `[time LEVEL] …` (Serilog).
    fn after_bracketed_time(&mut self) -> Option<Rest> {
        if self.skip(b"]") {
            return self.elements(true);
        }
        let celery = self.skip(b": ");
        if !celery {
            self.blanks();
        }
        let level = self.rest().iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
        if !is_level(&self.rest()[..level]) {
            return None;
        }
        self.part(Part::Level, level);
        if celery && self.skip(b"/") {
            let process = self.until(b"]")?;
            self.part(Part::Other("process"), process);
        } else {
            self.blanks();
            let target = self.until(b"]")?;
            if target > 0 {
                self.part(Part::Logger, target);
            }
        }
        self.skip(b"]").then_some(())?;
        self.skip(b" ");
        Some(Rest::Message(self.at))
    }

    /// What stands between the time and the message.
    fn elements(&mut self, timed: bool) -> Option<Rest> {
        let (start, count) = (self.at, self.tokens.list.len());
        let mut found = Found::default();
        for _ in 0..ELEMENTS_MAX {
            self.separators();
            let before = self.at;
            if !self.element(&mut found) {
                self.at = before;
                break;
            }
        }
        if found.level {
            if let Some(rest) = self.nginx() {
                return Some(rest);
            }
            self.separators();
            return (timed || !self.rest().is_empty()).then_some(Rest::Message(self.at));
        }
        self.tokens.truncate(count);
        self.at = start;
        self.separators();
        timed.then_some(Rest::Message(self.at))
    }

    /// Goes past blanks, and what stands between elements among them: `-`, `|`, `:`, `---`.
    fn separators(&mut self) {
        loop {
            let blanks = self.blanks();
            let signs = self.rest().iter().take_while(|byte| b"-|:,;".contains(byte)).count();
            let apart = matches!(self.rest().get(signs), Some(b' ' | b'\t'));
            let alone = signs == 1 || self.rest().starts_with(b"--- ");
            if signs == 0 || !apart || !alone || (blanks == 0 && self.rest()[0] == b'-') {
                return;
            }
            self.at += signs;
        }
    }

    /// Takes one element; false where the message starts.
    fn element(&mut self, found: &mut Found) -> bool {
        match self.rest().first() {
            Some(b'[') => self.bracketed(found),
            Some(b'0'..=b'9') if !found.pid => {
                // Spring's `12345 --- `, and MySQL's thread.
                let digits = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
                let after = &self.rest()[digits..];
                found.pid = after.starts_with(b" --- ") || after.starts_with(b" [");
                found.pid && self.integer("pid", b" ")
            }
            Some(byte) if byte.is_ascii_alphabetic() && !found.level => self.level(found) || self.named(found),
            Some(byte) if byte.is_ascii_alphabetic() && !found.logger => self.named(found),
            _ => false,
        }
    }

    /// `ERROR`, `error:`
    fn level(&mut self, found: &mut Found) -> bool {
        let length = self.rest().iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
        let (word, after) = self.rest().split_at(length);
        let apart = after.first().is_none_or(|byte| b" \t:|,]".contains(byte));
        let colon = after.starts_with(b": ");
        found.level = apart && (is_level(word) || colon && is_level_in_any_case(word));
        if found.level {
            self.part(Part::Level, length);
        }
        found.level
    }

    /// `[main]`, `[ERROR]`, `[123]`
    fn bracketed(&mut self, found: &mut Found) -> bool {
        let Some(close) = self.until(b"]") else { return false };
        let inside = &self.rest()[1..close];
        let blanks = inside.iter().take_while(|byte| **byte == b' ').count();
        let length = inside.trim_ascii().len();
        let word = &inside[blanks..blanks + length];
        let after = self.at + close + 1;
        // Spring's name of the application stands before the thread.
        let is_app = self.bytes[..self.at].ends_with(b"--- ") && self.bytes[after..].starts_with(b" [");
        let (is_level, has_bracket) = (is_level_in_any_case(word), word.contains(&b'['));
        let is_number = word.iter().all(u8::is_ascii_digit);
        self.at += 1 + blanks;
        if length == 0 || has_bracket {
            return false;
        }
        if is_level && !found.level {
            found.level = true;
            self.part(Part::Level, length);
        } else if is_number && !found.pid {
            found.pid = true;
            if !self.integer("pid", b" ]") {
                return false;
            }
        } else if is_app {
            self.part(Part::App, length);
        } else if !found.thread && (!found.level || self.leads_to_a_name(after)) {
            found.thread = true;
            self.part(Part::Thread, length);
        } else {
            return false;
        }
        self.at = after;
        true
    }

    /// Whether after a bracket comes another, or the name of a logger: else the bracket is the message's own.
    fn leads_to_a_name(&self, at: usize) -> bool {
        let rest = self.bytes[at..].trim_ascii_start();
        rest.first() == Some(&b'[') || name_length(rest).is_some()
    }

    /// `com.example.App - `, `shop::wal: `
    fn named(&mut self, found: &mut Found) -> bool {
        let Some((length, end)) = name_length(self.rest()) else { return false };
        if found.logger {
            return false;
        }
        found.logger = true;
        let after = self.at + end;
        self.part(Part::Logger, length);
        self.at = after;
        true
    }

    /// What nginx writes after the level: `7#7: *1 it failed, client: 1.2.3.4, server: x, request: "GET / HTTP/1.1"`
    fn nginx(&mut self) -> Option<Rest> {
        let (at, count) = (self.at, self.tokens.list.len());
        let found = self.nginx_parts();
        if found.is_none() {
            self.at = at;
            self.tokens.truncate(count);
        }
        found
    }

    fn nginx_parts(&mut self) -> Option<Rest> {
        self.blanks();
        self.integer("pid", b"#").then_some(())?;
        self.skip(b"#").then_some(())?;
        self.integer("tid", b":").then_some(())?;
        self.skip(b": ").then_some(())?;
        if self.skip(b"*") {
            self.integer("connection", b" ").then_some(())?;
            self.skip(b" ");
        }
        let Some(message) = memchr::memmem::find(self.rest(), b", client: ") else {
            return Some(Rest::Message(self.at));
        };
        self.part(Part::Message, message);
        const NAMES: [(&[u8], Part); 7] = [
            (b", client: ", Part::Client),
            (b", server: ", Part::Other("server")),
            (b", request: ", Part::Other("request")),
            (b", upstream: ", Part::Other("upstream")),
            (b", host: ", Part::Host),
            (b", referrer: ", Part::Other("referer")),
            (b", subrequest: ", Part::Other("subrequest")),
        ];
        for (name, part) in NAMES {
            if !self.skip(name) {
                continue;
            }
            if self.skip(b"\"") {
                let length = memchr::memchr(b'"', self.rest())?;
                self.part(part, length);
                self.at += 1;
            } else {
                let length = memchr::memchr(b',', self.rest()).unwrap_or(self.rest().len());
                self.part(part, length);
            }
        }
        Some(Rest::Nothing)
    }

    /// PostgreSQL's: ` UTC [1234] user@db LOG:  message`
    fn postgres(&mut self) -> Option<Rest> {
        let (at, count) = (self.at, self.tokens.list.len());
        let found = self.postgres_parts();
        if found.is_none() {
            self.at = at;
            self.tokens.truncate(count);
        }
        found
    }

    fn postgres_parts(&mut self) -> Option<Rest> {
        const WORDS: [&[u8]; 12] = [
            b"LOG",
            b"ERROR",
            b"FATAL",
            b"PANIC",
            b"WARNING",
            b"NOTICE",
            b"INFO",
            b"DEBUG",
            b"STATEMENT",
            b"DETAIL",
            b"HINT",
            b"CONTEXT",
        ];
        self.skip(b" ").then_some(())?;
        let zone = self.rest().iter().take_while(|byte| byte.is_ascii_uppercase()).count();
        if !(2..=5).contains(&zone) {
            return None;
        }
        self.at += zone;
        self.skip(b" [").then_some(())?;
        self.integer("pid", b"]-").then_some(())?;
        self.at += self.until(b"]")? + 1;
        self.skip(b" ").then_some(())?;
        let word = self.until(b" ")?;
        if let Some(at) = memchr::memchr(b'@', &self.rest()[..word]) {
            self.part_or_dash(Part::User, at);
            self.at += 1;
            self.part_or_dash(Part::Database, word - at - 1);
            self.skip(b" ").then_some(())?;
        }
        let level = self.until(b":").filter(|length| WORDS.contains(&&self.rest()[..*length]))?;
        self.part(Part::Level, level);
        self.at += 1;
        self.blanks();
        Some(Rest::Message(self.at))
    }

    /// zap's console: time, level, perhaps a logger, caller, message and perhaps an object, separated by tabs.
    fn zap(&mut self) -> Option<Rest> {
        let (at, count) = (self.at, self.tokens.list.len());
        let found = self.zap_parts();
        if found.is_none() {
            self.at = at;
            self.tokens.truncate(count);
        }
        found
    }

    fn zap_parts(&mut self) -> Option<Rest> {
        self.skip(b"\t").then_some(())?;
        let level = self.until(b"\t").filter(|length| is_level_in_any_case(&self.rest()[..*length]))?;
        self.part(Part::Level, level);
        self.at += 1;
        for part in [Part::Logger, Part::Caller] {
            let Some(length) = self.until(b"\t") else { break };
            let word = &self.rest()[..length];
            let is_caller =
                word.contains(&b':') && word.last().is_some_and(u8::is_ascii_digit) && !word.contains(&b' ');
            let is_name = !word.is_empty() && !word.contains(&b' ');
            if is_caller {
                self.part(Part::Caller, length);
                self.at += 1;
                break;
            }
            // A logger's name stands before a caller only.
            let after = &self.rest()[length + 1..];
            if part == Part::Caller || !is_name || !after.contains(&b'\t') {
                break;
            }
            self.part(Part::Logger, length);
            self.at += 1;
        }
        match memchr::memmem::find(self.rest(), b"\t{") {
            Some(length) if self.rest().last() == Some(&b'}') => {
                self.part(Part::Message, length);
                Some(Rest::Message(self.at + 1))
            }
            _ => Some(Rest::Message(self.at)),
        }
    }
}

/// Length of a logger's name at the start, and where what follows the sign after it starts: `Name - `, `a.b : `, `a::b: `.
fn name_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let is_name = |byte: &u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$' | b'/' | b':' | b'-' | b'[' | b']')
    };
    let length = bytes.iter().take(200).take_while(|byte| is_name(byte)).count();
    let name = &bytes[..length];
    if !name.first().is_some_and(|first| first.is_ascii_alphabetic() || *first == b'_') {
        return None;
    }
    let dotted = name[..length - 1].iter().any(|byte| matches!(byte, b'.' | b':'));
    if let Some(name) = name.strip_suffix(b":") {
        return (dotted && !name.ends_with(b":") && bytes.get(length) == Some(&b' ')).then_some((length - 1, length));
    }
    let after = &bytes[length..];
    let blanks = after.iter().take_while(|byte| **byte == b' ').count();
    let sign = matches!(after.get(blanks..blanks + 2), Some(b"- " | b": ")) && blanks > 0;
    sign.then_some((length, length + blanks + 1))
}
