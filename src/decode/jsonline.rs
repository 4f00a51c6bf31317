//! Lines as the body of a request (`/api/v1/ingest`): JSON lines, a JSON array of objects, or plain text.
//!
//! Invariant: a line ends at `\n` or `\r\n`, which are no part of it; blank lines are no records, but count as places.

use super::columns::Cell;
use super::document::push_inner_line;
use super::json::skip_value;
use super::records::Records;
use super::{Decoded, Error, Options};

/// Decodes JSON lines, or a JSON array when the first byte that is not blank is `[`. A line that is no JSON object is
/// rejected with the place in it. **Errors**: when the whole grows too large.
pub fn lines(body: &[u8], options: &Options, now_ns: i64) -> Result<Decoded, Error> {
    let body = without_mark(body);
    if body.trim_ascii_start().first() == Some(&b'[') {
        return array(body, options, now_ns);
    }
    let mut records = Records::new(options, now_ns);
    records.expect(body.len());
    for (line, place) in split(body) {
        push(line, &mut records, place)?;
    }
    Ok(records.finish())
}

/// Adds a JSON object, or the line that it holds.
fn push(object: &[u8], records: &mut Records<'_>, place: usize) -> Result<(), Error> {
    // Of what is not UTF-8, `object` says where.
    let text = std::str::from_utf8(object).unwrap_or_default();
    if push_inner_line(text, None, records, place)? { Ok(()) } else { records.object(object, place) }
}

/// As [`text`], with labels around each line.
pub fn labelled(body: &[u8], labels: &[(String, String)], options: &Options, now_ns: i64) -> Result<Decoded, Error> {
    let mut records = Records::new(options, now_ns);
    records.expect(body.len());
    records.outer(|outer, naming| {
        labels.iter().for_each(|(name, value)| outer.push(name, Cell::Text(value), naming));
    });
    for (line, place) in split(without_mark(body)) {
        records.line(line, None, place)?;
    }
    Ok(records.finish())
}

/// Decodes text lines of any format: each is parsed where its format is known, else kept as plain text.
/// **Errors**: when the whole grows too large.
pub fn text(body: &[u8], options: &Options, now_ns: i64) -> Result<Decoded, Error> {
    labelled(body, &[], options, now_ns)
}

/// The lines that are not blank, with their numbers from 1.
pub(super) fn split(body: &[u8]) -> impl Iterator<Item = (&[u8], usize)> {
    let mut rest = Some(body).filter(|body| !body.is_empty());
    let next = move || {
        let body = rest?;
        let end = memchr::memchr(b'\n', body);
        rest = end.map(|end| &body[end + 1..]);
        let line = &body[..end.unwrap_or(body.len())];
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    };
    std::iter::from_fn(next).zip(1..).filter(|(line, _)| !line.trim_ascii().is_empty())
}

fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

/// Decodes the objects of an array; where the array itself is broken, what stands before is kept.
fn array(body: &[u8], options: &Options, now_ns: i64) -> Result<Decoded, Error> {
    let text = std::str::from_utf8(body).map_err(|error| {
        Error::Malformed(format!("the array is not valid UTF-8 at byte {}", error.valid_up_to() + 1))
    })?;
    let mut records = Records::new(options, now_ns);
    let blanks = |at: usize| at + text.as_bytes()[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    let mut at = blanks(blanks(0) + 1);
    let mut place = 1;
    let mut closed = text.as_bytes().get(at) == Some(&b']');
    while !closed {
        match skip_value(text, at) {
            Ok(end) => {
                push(&body[at..end], &mut records, place)?;
                at = blanks(end);
            }
            Err(fault) => {
                records.reject(place, format!("the array is broken here: {fault}"));
                return Ok(records.finish());
            }
        }
        place += 1;
        match text.as_bytes().get(at) {
            Some(b',') => at = blanks(at + 1),
            Some(b']') => closed = true,
            _ => {
                records.reject(place, format!("the array is broken here: expected ',' or ']' at column {}", at + 1));
                return Ok(records.finish());
            }
        }
    }
    if !text[at + 1..].trim_ascii().is_empty() {
        records.reject(place, format!("more after the array's end at column {}", at + 2));
    }
    Ok(records.finish())
}
