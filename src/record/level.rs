//! The six levels, and the many ways in which loggers write them. Not how a level is found in a line.

/// A normalised level; ordered by severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// Finest detail.
    Trace,
    /// For developers.
    Debug,
    /// Normal work.
    Info,
    /// Something to look at.
    Warn,
    /// Something failed.
    Error,
    /// The service, or something worse, failed.
    Fatal,
}

impl Level {
    /// All levels, from the least severe.
    pub const ALL: [Level; 6] = [Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error, Level::Fatal];

    /// The word that stands in the `level` column.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::Fatal => "fatal",
        }
    }

    /// Reads a level as loggers write it, in any case: words, their abbreviations, and pino's numbers as text.
    pub fn parse(text: &[u8]) -> Option<Level> {
        let mut lower = [0u8; 16];
        let word = lower.get_mut(..text.len())?;
        word.copy_from_slice(text);
        word.make_ascii_lowercase();
        Some(match &*word {
            b"info" | b"inf" | b"log" | b"information" | b"informational" | b"i" | b"notice" | b"note" | b"ntc"
            | b"success" => Level::Info,
            b"error" | b"err" | b"eror" | b"e" | b"severe" | b"failure" => Level::Error,
            b"warn" | b"warning" | b"wrn" | b"w" => Level::Warn,
            b"debug" | b"dbg" | b"dbug" | b"d" | b"fine" | b"config" | b"http" => Level::Debug,
            b"trace" | b"trc" | b"t" | b"finest" | b"finer" | b"verbose" | b"vrb" | b"v" | b"silly" => Level::Trace,
            b"fatal" | b"ftl" | b"f" | b"critical" | b"crit" | b"crt" | b"c" | b"alert" | b"emerg" | b"emergency"
            | b"panic" | b"dpanic" => Level::Fatal,
            [tens @ b'1'..=b'6', b'0'..=b'9'] => return Self::from_pino(i64::from(*tens - b'0') * 10),
            _ => return None,
        })
    }

    /// Reads the numbers of pino and bunyan: 10 trace, 20 debug … 60 fatal; what lies between belongs to the lower one.
    pub fn from_pino(number: i64) -> Option<Level> {
        match number {
            10..=69 => Some(Self::ALL[(number / 10 - 1) as usize]),
            _ => None,
        }
    }

    /// Reads OTLP's SeverityNumber: 1 to 4 trace, 5 to 8 debug … 21 to 24 fatal; 0 is unspecified.
    pub fn from_otlp(number: i64) -> Option<Level> {
        match number {
            1..=24 => Some(Self::ALL[((number - 1) / 4) as usize]),
            _ => None,
        }
    }

    /// Reads the severities of syslog (RFC 5424 §6.2.1): 0 emergency … 7 debug. Only where the protocol says it is one.
    pub fn from_syslog(number: i64) -> Option<Level> {
        match number {
            0..=2 => Some(Level::Fatal),
            3 => Some(Level::Error),
            4 => Some(Level::Warn),
            5 | 6 => Some(Level::Info),
            7 => Some(Level::Debug),
            _ => None,
        }
    }

    /// Looks for a level in the first 64 bytes of plain text: a word in capitals (`ERROR`), in brackets (`[warn]`), after
    /// `level=`, followed by a colon (`error:`), or the head of a klog line (`E0102 15:04:05`).
    pub fn find_in_text(text: &[u8]) -> Option<Level> {
        let head = &text[..text.len().min(64)];
        if let [letter @ (b'I' | b'W' | b'E' | b'F'), rest @ ..] = head
            && rest.len() > 5
            && rest[..4].iter().all(u8::is_ascii_digit)
            && rest[4] == b' '
        {
            return Level::parse(&[*letter]);
        }
        let mut at = 0;
        while at < head.len() {
            if !head[at].is_ascii_alphabetic() {
                at += 1;
                continue;
            }
            let length = head[at..].iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
            let (word, before, after) = (&head[at..at + length], &head[..at], &text[at + length..]);
            if (3..=13).contains(&length)
                && stands_out(word, before, after)
                && let Some(level) = Level::parse(word)
            {
                return Some(level);
            }
            at += length;
        }
        None
    }
}

/// Whether the word stands as levels stand, not as a word of a sentence.
fn stands_out(word: &[u8], before: &[u8], after: &[u8]) -> bool {
    let joined = |byte: Option<&u8>| byte.is_some_and(|byte| matches!(byte, b'_' | b'-' | b'.' | b'/' | b'0'..=b'9'));
    if joined(before.last()) || joined(after.first()) && after.get(1).is_some_and(|byte| byte.is_ascii_alphanumeric()) {
        return false;
    }
    // PostgreSQL's LOG and winston's HTTP are levels in their places only.
    let capitals = word.iter().all(u8::is_ascii_uppercase) && !matches!(word, b"LOG" | b"HTTP");
    let bracketed = matches!((before.last(), after.first()), (Some(b'['), Some(b']')) | (Some(b'<'), Some(b'>')));
    let assigned = before.ends_with(b"level=") || before.ends_with(b"level=\"") || before.ends_with(b"level: ");
    let heads = before.iter().all(|byte| !byte.is_ascii_alphabetic()) && after.first() == Some(&b':');
    capitals || bracketed || assigned || heads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers() {
        for (text, level) in [
            ("INFO", Some(Level::Info)),
            ("err", Some(Level::Error)),
            ("Warning", Some(Level::Warn)),
            ("critical", Some(Level::Fatal)),
            ("EMERG", Some(Level::Fatal)),
            ("notice", Some(Level::Info)),
            ("Information", Some(Level::Info)),
            ("finest", Some(Level::Trace)),
            ("30", Some(Level::Info)),
            ("60", Some(Level::Fatal)),
            ("70", None),
            ("", None),
            ("unknown", None),
            ("a very long text that is no level", None),
        ] {
            assert_eq!(Level::parse(text.as_bytes()), level, "{text}");
        }
        assert_eq!(Level::from_pino(35), Some(Level::Info));
        assert_eq!(Level::from_pino(70), None);
        assert_eq!(Level::from_otlp(17), Some(Level::Error));
        assert_eq!(Level::from_otlp(0), None);
        assert_eq!(Level::from_syslog(3), Some(Level::Error));
    }

    #[test]
    fn levels_in_plain_text() {
        for (text, level) in [
            ("2026-01-01 12:00:00,123 ERROR [main] c.e.App - failed", Some(Level::Error)),
            ("[warn] slow disk", Some(Level::Warn)),
            ("error: no such file", Some(Level::Error)),
            ("E0102 15:04:05.678901       1 reflector.go:12] watch failed", Some(Level::Error)),
            ("2026/01/01 12:00:00 [error] 7#7: *1 open() failed", Some(Level::Error)),
            ("an error occurred, they say", None),
            ("GET /ERROR/page 200", None),
            ("ERROR_CODE=5", None),
            ("I am here", None),
            ("connection closed", None),
            ("ERROR", Some(Level::Error)),
        ] {
            assert_eq!(Level::find_in_text(text.as_bytes()), level, "{text}");
        }
    }
}
