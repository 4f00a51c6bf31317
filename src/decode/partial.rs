//! Lines that a container runtime cut: CRI marks the parts `P` and the last one `F`; Docker's driver leaves out the line
//! feed of parts of 16 KiB. They are joined while they come one after the other in a request.
//!
//! Invariant: what was cut is put together in the order it came, and nothing else is.

/// Docker's driver cuts lines at so many bytes.
const DOCKER_PART_BYTES: usize = 16 << 10;
/// How it starts a line.
pub(super) const DOCKER_START: &str = "{\"log\":\"";

/// A part of a cut line: what stands before and after the text in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part<'a> {
    /// `2026-01-01T12:00:00Z stdout`, or `{"log":"`
    before: &'a str,
    /// Its own text, escaped as it came.
    text: &'a str,
    /// `","stream":"stdout",…}`
    after: &'a str,
    stream: &'a str,
    pub is_last: bool,
}

/// Reads a line as a part; `None` when its runtime is not known. Cheap for all other lines.
pub(super) fn read(line: &str) -> Option<Part<'_>> {
    match line.as_bytes().first()? {
        b'{' => docker(line),
        b'0'..=b'9' => cri(line),
        _ => None,
    }
}

fn cri(line: &str) -> Option<Part<'_>> {
    let (time, rest) = line.split_at_checked(line.as_bytes().iter().take(40).position(|byte| *byte == b' ')?)?;
    if time.as_bytes().get(10) != Some(&b'T') {
        return None;
    }
    let (stream, rest) = rest.split_at_checked(" stdout".len())?;
    let tag = rest.get(..2).filter(|tag| matches!(*tag, " P" | " F"))?;
    let text = rest[2..].strip_prefix(' ').or(rest[2..].is_empty().then_some(""))?;
    let known = matches!(stream, " stdout" | " stderr");
    let before = &line[..time.len() + stream.len()];
    known.then_some(Part { before, text, after: "", stream, is_last: tag == " F" })
}

fn docker(line: &str) -> Option<Part<'_>> {
    let rest = line.strip_prefix(DOCKER_START)?;
    let end = string_end(rest.as_bytes())?;
    let (text, after) = rest.split_at(end);
    let stream = after.strip_prefix("\",\"stream\":\"").and_then(|after| after.split('"').next())?;
    let is_last = text.len() < DOCKER_PART_BYTES || text.ends_with("\\n");
    Some(Part { before: DOCKER_START, text, after, stream, is_last })
}

/// The end of a JSON string whose inside starts at the start: where its quote is.
pub(super) fn string_end(bytes: &[u8]) -> Option<usize> {
    let mut end = 0;
    loop {
        end += memchr::memchr2(b'"', b'\\', bytes.get(end..)?)?;
        if bytes[end] == b'"' {
            return Some(end);
        }
        end += 2;
    }
}

/// A line whose last part has not come yet.
#[derive(Debug)]
pub(super) struct Cut {
    stream: String,
    /// The line as it would be in one piece, without [`Cut::after`].
    joined: String,
    after: String,
    /// The parts as they came, a line feed between.
    pub received: Vec<u8>,
    pub given_ns: Option<i64>,
    /// Number of the first part in the request.
    pub place: usize,
}

impl Cut {
    pub fn new(line: &str, part: Part<'_>, given_ns: Option<i64>, place: usize) -> Cut {
        let mark = if part.after.is_empty() { " F " } else { "" };
        Cut {
            stream: part.stream.to_string(),
            joined: format!("{}{mark}{}", part.before, part.text),
            after: part.after.to_string(),
            received: line.as_bytes().to_vec(),
            given_ns,
            place,
        }
    }

    /// Whether the part belongs to it.
    pub fn is_of(&self, part: Part<'_>) -> bool {
        self.stream == part.stream && self.after.is_empty() == part.after.is_empty()
    }

    pub fn push(&mut self, line: &str, part: Part<'_>) {
        self.joined.push_str(part.text);
        self.received.push(b'\n');
        self.received.extend_from_slice(line.as_bytes());
    }

    /// Bytes of the line so far.
    pub fn bytes(&self) -> usize {
        self.joined.len()
    }

    /// The line in one piece.
    pub fn line(&self) -> String {
        format!("{}{}", self.joined, self.after)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_are_known() {
        for (line, last) in [
            ("2026-01-01T12:00:00Z stdout P abc", Some(false)),
            ("2026-01-01T12:00:00Z stderr F abc", Some(true)),
            ("2026-01-01T12:00:00Z stdout F", Some(true)),
            ("2026-01-01T12:00:00Z stdin F abc", None),
            ("2026-01-01 12:00:00 stdout P abc", None),
            (r#"{"log":"a\n","stream":"stdout","time":"x"}"#, Some(true)),
            (r#"{"log":"a","stream":"stdout","time":"x"}"#, Some(true)),
            (r#"{"log":"a","other":1}"#, None),
            ("", None),
        ] {
            assert_eq!(read(line).map(|part| part.is_last), last, "{line}");
        }
        let long = format!("{{\"log\":\"{}\",\"stream\":\"stdout\"}}", "x".repeat(DOCKER_PART_BYTES));
        assert!(!read(&long).unwrap().is_last);
    }

    proptest! {
        #[test]
        fn never_panics(line in "(2026-01-01T12:00:00Z )?(stdout|é)?[ PF{\"log:\\\\]{0,20}") {
            let _ = read(&line);
        }
    }
}
