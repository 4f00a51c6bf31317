//! Where messages end in a stream: RFC 6587's two framings of syslog, and GELF's null byte. Pure; nothing is read here.
//!
//! Invariant: a message that is too large or cut off costs no other one.

use bytes::{Buf, Bytes, BytesMut};

use crate::decode::Cause;

/// How messages are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// `LENGTH SP MESSAGE`, or lines: told for each message by its first bytes (RFC 6587 §3.4), as senders mix them.
    Syslog,
    /// Each ends with a null byte.
    Null,
}

/// Why a message can't be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub cause: Cause,
    pub reason: String,
}

/// Takes messages out of bytes as they arrive.
#[derive(Debug)]
pub(super) struct Splitter {
    framing: Framing,
    message_bytes_max: usize,
    /// Where a delimiter is looked for next.
    searched: usize,
    /// What is passed over of a message that is too large.
    passing: Passing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passing {
    Nothing,
    Bytes(usize),
    ToDelimiter,
}

/// How a message starts.
enum Start {
    /// It has so many bytes, after as many of its count.
    Counted {
        skip: usize,
        length: usize,
    },
    Delimited,
    /// More bytes will tell.
    Unknown,
}

/// Digits of a count; RFC 6587 has no limit, but more would be beyond any message.
const COUNT_DIGITS_MAX: usize = 9;

impl Splitter {
    pub fn new(framing: Framing, message_bytes_max: usize) -> Self {
        Splitter { framing, message_bytes_max, searched: 0, passing: Passing::Nothing }
    }

    fn delimiter(&self) -> u8 {
        if self.framing == Framing::Syslog { b'\n' } else { 0 }
    }

    /// The next message; `None`: more bytes are needed, and the buffer holds no more than a message.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Option<Result<Bytes, Fault>> {
        self.pass_over(buffer);
        if self.passing != Passing::Nothing {
            return None;
        }
        if self.searched == 0 {
            // Between counted messages some senders put line ends too.
            let filler = buffer.iter().take_while(|byte| matches!(byte, b'\n' | b'\r' | 0)).count();
            buffer.advance(filler);
        }
        match self.start(buffer) {
            Start::Unknown => None,
            Start::Counted { skip, length } if length > self.message_bytes_max => {
                buffer.advance(skip);
                self.passing = Passing::Bytes(length);
                self.pass_over(buffer);
                Some(Err(self.too_large(length)))
            }
            Start::Counted { skip, length } => (buffer.len() >= skip + length).then(|| {
                buffer.advance(skip);
                Ok(buffer.split_to(length).freeze())
            }),
            Start::Delimited => self.delimited(buffer),
        }
    }

    fn delimited(&mut self, buffer: &mut BytesMut) -> Option<Result<Bytes, Fault>> {
        match memchr::memchr(self.delimiter(), &buffer[self.searched..]) {
            Some(found) => {
                let end = self.searched + found;
                self.searched = 0;
                let message = buffer.split_to(end).freeze();
                buffer.advance(1);
                Some(if end > self.message_bytes_max { Err(self.too_large(end)) } else { Ok(message) })
            }
            None if buffer.len() > self.message_bytes_max => {
                let bytes = buffer.len();
                buffer.clear();
                (self.searched, self.passing) = (0, Passing::ToDelimiter);
                Some(Err(self.too_large(bytes)))
            }
            None => {
                self.searched = buffer.len();
                None
            }
        }
    }

    /// What is left when the sender closes: the last line may lack its end.
    pub fn finish(&mut self, buffer: &mut BytesMut) -> Option<Result<Bytes, Fault>> {
        if buffer.is_empty() || self.passing != Passing::Nothing {
            return None;
        }
        let bytes = buffer.len();
        match self.start(buffer) {
            Start::Counted { skip, length } => {
                let reason = format!("the sender closed after {} of {length} bytes", bytes - skip);
                Some(Err(Fault { cause: Cause::Malformed, reason }))
            }
            Start::Delimited | Start::Unknown => Some(Ok(buffer.split().freeze())),
        }
    }

    fn start(&self, buffer: &[u8]) -> Start {
        if self.framing == Framing::Null || self.searched > 0 {
            return Start::Delimited;
        }
        let digits = buffer.iter().take_while(|byte| byte.is_ascii_digit()).count();
        match (buffer.first(), buffer.get(digits), buffer.get(digits + 1)) {
            (None, ..) => Start::Unknown,
            (Some(b'1'..=b'9'), None, _) if digits <= COUNT_DIGITS_MAX => Start::Unknown,
            (Some(b'1'..=b'9'), Some(b' '), None) if digits <= COUNT_DIGITS_MAX => Start::Unknown,
            // A counted message starts with its priority; a line that starts with a number does not go on so.
            (Some(b'1'..=b'9'), Some(b' '), Some(b'<')) if digits <= COUNT_DIGITS_MAX => {
                let length = buffer[..digits].iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
                Start::Counted { skip: digits + 1, length }
            }
            _ => Start::Delimited,
        }
    }

    fn pass_over(&mut self, buffer: &mut BytesMut) {
        match self.passing {
            Passing::Nothing => {}
            Passing::Bytes(left) => {
                let passed = left.min(buffer.len());
                buffer.advance(passed);
                self.passing = if passed < left { Passing::Bytes(left - passed) } else { Passing::Nothing };
            }
            Passing::ToDelimiter => match memchr::memchr(self.delimiter(), buffer) {
                Some(end) => {
                    buffer.advance(end + 1);
                    self.passing = Passing::Nothing;
                }
                None => buffer.clear(),
            },
        }
    }

    fn too_large(&self, bytes: usize) -> Fault {
        let limit = self.message_bytes_max;
        Fault {
            cause: Cause::TooLong,
            reason: format!("a message of {bytes} bytes or more; listen.message_bytes_max is {limit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All messages of a stream that arrives in pieces of `step` bytes; `!` for a fault.
    fn split(framing: Framing, stream: &[u8], step: usize) -> Vec<String> {
        let mut splitter = Splitter::new(framing, 20);
        let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
        let shown = |message: Result<Bytes, Fault>| match message {
            Ok(message) => String::from_utf8_lossy(&message).into_owned(),
            Err(_) => "!".to_owned(),
        };
        for piece in stream.chunks(step) {
            buffer.extend_from_slice(piece);
            while let Some(message) = splitter.next(&mut buffer) {
                found.push(shown(message));
            }
        }
        found.extend(splitter.finish(&mut buffer).map(shown));
        found
    }

    #[test]
    fn messages_are_told_apart() {
        let cases: [(Framing, &str, &[&str]); 12] = [
            (Framing::Syslog, "<13>a\n<13>b\n", &["<13>a", "<13>b"]),
            (Framing::Syslog, "<13>a\r\n\n<13>b", &["<13>a\r", "<13>b"]),
            (Framing::Syslog, "6 <13>a\n5 <13>b", &["<13>a\n", "<13>b"]),
            (Framing::Syslog, "5 <13>a\n5 <13>b\n<13>c\n", &["<13>a", "<13>b", "<13>c"]),
            (Framing::Syslog, "12 apples\n7\n", &["12 apples", "7"]),
            (Framing::Syslog, "2026-01-01 plain\n{}\n", &["2026-01-01 plain", "{}"]),
            (Framing::Syslog, "5 <13>a9 <13>", &["<13>a", "!"]),
            (Framing::Syslog, "25 <13>xxxxxxxxxxxxxxxxxxxxx5 <13>b", &["!", "<13>b"]),
            (Framing::Syslog, "<13>xxxxxxxxxxxxxxxxxxxxxxxxxxxx\n<13>b\n", &["!", "<13>b"]),
            (Framing::Syslog, "9999999999999999999 <1>\n<13>b\n", &["!", "<13>b"]),
            (Framing::Null, "{\"a\":\n1}\0{}\0\0{\"c\":1}", &["{\"a\":\n1}", "{}", "{\"c\":1}"]),
            (Framing::Null, "{xxxxxxxxxxxxxxxxxxxxxxxxx}\0{}\0", &["!", "{}"]),
        ];
        for (framing, stream, expected) in cases {
            for step in [1, 2, 7, 100] {
                assert_eq!(split(framing, stream.as_bytes(), step), expected, "{stream:?} by {step}");
            }
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(stream in "([0-9]{1,2} )?[<>0-9a\n \0]{0,60}", step in 1usize..20) {
            for framing in [Framing::Syslog, Framing::Null] {
                let whole = split(framing, stream.as_bytes(), usize::MAX >> 1);
                prop_assert_eq!(split(framing, stream.as_bytes(), step), whole);
            }
        }
    }
}
