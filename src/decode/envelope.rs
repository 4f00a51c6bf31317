//! JSON objects that a protocol puts around a line, read in place: their members, and how a member becomes a field.
//! Lines themselves are not read here, so that a line keeps its bytes.
//!
//! Invariant: a member's value is the text that stood in the body.

use std::borrow::Cow;

use super::columns::Cell;
use super::document::push_inner_line;
use super::json::skip_value;
use super::outer::{Naming, Outer};
use super::records::Records;
use super::token::{Value, number};
use crate::record::quote::unescape_json;
use crate::record::{Level, time};

/// Objects deeper than this become fields of JSON text.
const DEPTH_MAX: usize = 16;

/// A member of an object: its name, and its value as JSON text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Member<'a> {
    pub name: Cow<'a, str>,
    pub value: &'a str,
}

/// The members of the object that `text` is. **Errors**: what is wrong with it, for people.
pub(super) fn members(text: &str) -> Result<Vec<Member<'_>>, String> {
    let fault = |at: usize, what: &str| format!("not a JSON object: {what} at column {}", at + 1);
    let bytes = text.as_bytes();
    let start = blanks(text, 0);
    if bytes.get(start) != Some(&b'{') {
        return Err(fault(start, "expected '{'"));
    }
    // This checks all that is read below.
    let end = skip_value(text, start).map_err(|found| format!("not a JSON object: {found}"))?;
    if blanks(text, end) < text.len() {
        return Err(fault(end, "more after the object's end"));
    }
    let mut found = Vec::new();
    let mut at = blanks(text, start + 1);
    while bytes.get(at) == Some(&b'"') {
        let name_end = skip_value(text, at).map_err(|found| format!("not a JSON object: {found}"))?;
        let name = string(&text[at..name_end]).ok_or_else(|| fault(at, "an invalid escape"))?;
        let value_start = blanks(text, blanks(text, name_end) + 1);
        let value_end = skip_value(text, value_start).map_err(|found| format!("not a JSON object: {found}"))?;
        found.push(Member { name, value: &text[value_start..value_end] });
        // Past the comma, if there is one.
        at = blanks(text, (blanks(text, value_end) + 1).min(text.len()));
    }
    Ok(found)
}

/// The values of an array, each as JSON text; `None` when `text` is none.
pub(super) fn elements(text: &str) -> Option<Vec<&str>> {
    let start = blanks(text, 0);
    if text.as_bytes().get(start) != Some(&b'[') {
        return None;
    }
    let end = skip_value(text, start).ok()?;
    let mut found = Vec::new();
    let mut at = blanks(text, start + 1);
    while at + 1 < end {
        let value_end = skip_value(text, at).ok()?;
        found.push(&text[at..value_end]);
        at = blanks(text, (blanks(text, value_end) + 1).min(text.len()));
    }
    Some(found)
}

/// Where the next byte that is not blank stands.
pub(super) fn blanks(text: &str, at: usize) -> usize {
    let rest = text.as_bytes().get(at..).unwrap_or_default();
    at + rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// The member of this name, the last of several.
pub(super) fn find<'m, 'a>(members: &'m [Member<'a>], name: &str) -> Option<&'m Member<'a>> {
    members.iter().rev().find(|member| member.name == name)
}

/// The characters of a JSON string; `None` when `value` is none.
pub(super) fn string(value: &str) -> Option<Cow<'_, str>> {
    let inner = value.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    let mut characters = String::with_capacity(inner.len());
    unescape_json(inner, &mut characters).ok()?;
    Some(Cow::Owned(characters))
}

/// A string's characters, and any other value as it stands.
pub(super) fn text<'a>(value: &'a str) -> Cow<'a, str> {
    string(value).unwrap_or(Cow::Borrowed(value))
}

/// Reads a time: an epoch count in the unit of its magnitude, with or without a fraction, as number or text; or a
/// calendar time. **Units**: gives nanoseconds.
pub(super) fn time_of(value: &str) -> Option<i64> {
    let text = text(value);
    let text = text.trim();
    if let Some((whole, fraction)) = text.split_once('.')
        && let (Ok(count), true) = (whole.parse::<i64>(), fraction.bytes().all(|byte| byte.is_ascii_digit()))
    {
        let (ns, unit) = time::from_epoch(count)?;
        let mut scale = unit.nanos();
        let below = fraction.bytes().fold(0i64, |sum, digit| {
            scale /= 10;
            sum + i64::from(digit - b'0') * scale
        });
        return ns.checked_add(below);
    }
    match text.parse::<i64>() {
        Ok(count) => time::from_epoch(count).map(|(ns, _)| ns),
        Err(_) => time::parse(text.as_bytes()).map(|(ns, _)| ns),
    }
}

/// Adds a member as a field around the line; recognised names take their roles. An object's members are joined to its
/// name with dots, a null is no field.
pub(super) fn push(name: &str, value: &str, outer: &mut Outer, naming: &mut Naming<'_>) {
    push_at(name, value, 0, outer, naming);
}

fn push_at(name: &str, value: &str, depth: usize, outer: &mut Outer, naming: &mut Naming<'_>) {
    match value.as_bytes().first() {
        Some(b'"') => outer.push(name, Cell::Text(&text(value)), naming),
        Some(b't') => outer.push_field(name, Cell::Boolean(true), naming),
        Some(b'f') => outer.push_field(name, Cell::Boolean(false), naming),
        Some(b'n') | None => {}
        Some(b'{') if depth < DEPTH_MAX => match members(value) {
            Ok(members) if !members.is_empty() => {
                for member in members {
                    push_at(&format!("{name}.{}", member.name), member.value, depth + 1, outer, naming);
                }
            }
            _ => outer.push_field(name, Cell::Text(value), naming),
        },
        Some(b'{' | b'[') => outer.push_field(name, Cell::Text(value), naming),
        Some(_) => match number(value) {
            Value::Integer(count) => outer.push(name, Cell::Integer(count, value), naming),
            Value::Float(count) => outer.push(name, Cell::Float(count, value), naming),
            _ => outer.push_field(name, Cell::Text(value), naming),
        },
    }
}

/// Sets the level of lines that say none themselves, by a word of the protocol's own; one that is no level is a field.
pub(super) fn push_level(name: &str, text: &str, level: Option<Level>, outer: &mut Outer, naming: &mut Naming<'_>) {
    if let Some(level) = level {
        outer.set_level_hint(level);
    }
    if level.is_none_or(|level| level.as_str() != text) {
        outer.push_field(name, Cell::Text(text), naming);
    }
}

/// Adds what a protocol holds as its line: a string is a line of any format, an object is one by itself or holds one, and
/// of everything else the text is the message. **Errors**: as [`Records::line`].
pub(super) fn push_line(
    value: &str,
    time_ns: i64,
    records: &mut Records<'_>,
    place: usize,
) -> Result<(), super::Error> {
    if value.starts_with('{') && push_inner_line(value, Some(time_ns), records, place)? {
        return Ok(());
    }
    records.line(text(value).as_bytes(), Some(time_ns), place)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn members_keep_their_text() {
        let found = members(r#" { "a" : 1.50, "b\n":"x\"y" ,"c":{"d":[1, 2]},"e":null } "#).unwrap();
        let shown: Vec<(&str, &str)> = found.iter().map(|member| (&*member.name, member.value)).collect();
        assert_eq!(shown, [("a", "1.50"), ("b\n", r#""x\"y""#), ("c", r#"{"d":[1, 2]}"#), ("e", "null")]);
        assert_eq!(members("{}").unwrap(), []);
        for (wrong, reason) in [
            ("", "expected '{'"),
            ("[1]", "expected '{'"),
            (r#"{"a":1"#, "ends within"),
            (r#"{"a":1} x"#, "more after"),
            (r#"{"a" 1}"#, "expected ':'"),
        ] {
            let error = members(wrong).unwrap_err();
            assert!(error.contains(reason), "{wrong}: {error}");
        }
    }

    #[test]
    fn arrays_are_taken_apart() {
        assert_eq!(elements(r#" [1, {"a":[2]} ,"x"]"#).unwrap(), ["1", r#"{"a":[2]}"#, r#""x""#]);
        assert_eq!(elements("[ ]").unwrap(), [""; 0]);
        assert_eq!(elements("{}"), None);
        assert_eq!(elements("[1"), None);
    }

    #[test]
    fn times_in_any_unit() {
        for (value, ns) in [
            ("1426279439", Some(1_426_279_439_000_000_000)),
            ("1426279439.123", Some(1_426_279_439_123_000_000)),
            ("\"1426279439.000000001\"", Some(1_426_279_439_000_000_001)),
            ("1426279439123", Some(1_426_279_439_123_000_000)),
            ("1426279439123.5", Some(1_426_279_439_123_500_000)),
            ("\"2026-01-01T12:00:00Z\"", Some(1_767_268_800_000_000_000)),
            ("\"soon\"", None),
            ("true", None),
            ("1e300", None),
        ] {
            assert_eq!(time_of(value), ns, "{value}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "[{}\\[\\]\":,a0.\\\\ \n-]{0,40}") {
            let _ = members(&text);
            let _ = elements(&text);
            let _ = time_of(&text);
        }
    }
}
