//! A scanner of `key=value` lines: logfmt, and what Python services write (`key='value'`, values as repr prints them).
//!
//! Invariant: prose is not taken for pairs: the line starts with one, and most of its words are pairs.

use super::token::{Syntax, Tokens, Value, number, number_length};

/// Finds the pairs of `text`, appending them to `tokens`; false when the line is not made of pairs. Nulls (`null`, `None`,
/// `nil`) have no token.
pub(super) fn scan_pairs(text: &str, tokens: &mut Tokens) -> bool {
    let bytes = text.as_bytes();
    let (mut at, mut pairs, mut words) = (blanks(bytes, 0), 0, 0);
    while at < bytes.len() {
        let name_end = at + bytes[at..].iter().take_while(|byte| is_name(**byte)).count();
        if name_end > at && bytes.get(name_end) == Some(&b'=') {
            let Some((end, value)) = scan_value(text, name_end + 1) else { return false };
            if let Some(value) = value {
                let name_start = tokens.names.len();
                tokens.names.push_str(&text[at..name_end]);
                tokens.push(name_start, name_end + 1, end, value);
            }
            pairs += 1;
            at = end;
            if at < bytes.len() && !is_blank(bytes[at]) {
                return false;
            }
        } else {
            // A word that is no pair: the line must have started with a pair.
            words += 1;
            if pairs == 0 {
                return false;
            }
            at += bytes[at..].iter().take_while(|byte| !is_blank(**byte)).count();
        }
        at = blanks(bytes, at);
    }
    // One pair alone is a line such as `x=1`, which is as likely prose or code.
    pairs >= 2 && words * 2 <= pairs
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'@' | b'/') || byte >= 0x80
}

fn blanks(bytes: &[u8], at: usize) -> usize {
    at + bytes[at..].iter().take_while(|byte| is_blank(**byte)).count()
}

/// The value at `at` and its end; `Some((end, None))` is a null, `None` no value at all.
fn scan_value(text: &str, at: usize) -> Option<(usize, Option<Value>)> {
    let bytes = text.as_bytes();
    match bytes.get(at) {
        Some(quote @ (b'"' | b'\'')) => {
            let (end, escaped) = quoted_end(bytes, at + 1, *quote)?;
            let syntax = if *quote == b'"' { Syntax::Double } else { Syntax::Single };
            Some((end, Some(Value::Text { syntax, escaped })))
        }
        Some(open @ (b'[' | b'{' | b'(')) => {
            let end = bracket_end(bytes, at, *open).unwrap_or_else(|| bare_end(bytes, at));
            Some((end, Some(Value::Verbatim)))
        }
        _ => {
            let end = bare_end(bytes, at);
            let bare = &text[at..end];
            (!bare.bytes().any(|byte| byte < 0x20)).then(|| (end, bare_value(bare)))
        }
    }
}

/// What an unquoted value is; `None` for null.
pub(super) fn bare_value(bare: &str) -> Option<Value> {
    let text = Value::Text { syntax: Syntax::Bare, escaped: false };
    Some(match bare.as_bytes() {
        b"true" => Value::Boolean { value: true, python: false },
        b"false" => Value::Boolean { value: false, python: false },
        b"True" => Value::Boolean { value: true, python: true },
        b"False" => Value::Boolean { value: false, python: true },
        b"null" | b"None" | b"nil" => return None,
        bytes @ [b'-' | b'0'..=b'9', ..] if number_length(bytes) == Some(bytes.len()) => match number(bare) {
            // A number beyond 64 bits is an id: a text like others.
            Value::Verbatim => text,
            typed => typed,
        },
        _ => text,
    })
}

fn bare_end(bytes: &[u8], at: usize) -> usize {
    at + bytes[at..].iter().take_while(|byte| !is_blank(**byte)).count()
}

/// The end of a quoted text that starts at `at`, past its quote, and whether it holds escapes.
fn quoted_end(bytes: &[u8], at: usize, quote: u8) -> Option<(usize, bool)> {
    let (mut at, mut escaped) = (at, false);
    loop {
        let found = at + memchr::memchr2(quote, b'\\', bytes.get(at..)?)?;
        if bytes[found] == quote {
            return Some((found + 1, escaped));
        }
        escaped = true;
        at = found + 2;
    }
}

/// The end of a list, dict or tuple as repr prints it: brackets balance, and quotes hide them.
fn bracket_end(bytes: &[u8], at: usize, open: u8) -> Option<usize> {
    let close = match open {
        b'[' => b']',
        b'{' => b'}',
        _ => b')',
    };
    let (mut at, mut depth) = (at, 0usize);
    loop {
        match *bytes.get(at)? {
            byte if byte == open => depth += 1,
            byte if byte == close => depth -= 1,
            quote @ (b'"' | b'\'') => at = quoted_end(bytes, at + 1, quote)?.0 - 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return (bytes.get(at).is_none_or(|byte| is_blank(*byte))).then_some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(text: &str) -> Option<Vec<(String, String)>> {
        let mut tokens = Tokens::default();
        let pair = |tokens: &Tokens, at: usize| {
            let token = tokens.list[at];
            (tokens.name(&token).to_string(), text[token.inner()].to_string())
        };
        scan_pairs(text, &mut tokens).then(|| (0..tokens.list.len()).map(|at| pair(&tokens, at)).collect())
    }

    #[test]
    fn pairs_are_found() {
        let found = scan(
            r#"level=warn ts=2026-01-01T12:00:00Z caller=main.go:12 msg="slow \"query\"" duration=1.2s n=5 empty= x=null"#,
        );
        let found = found.unwrap();
        assert_eq!(found.len(), 7);
        assert_eq!(found[3], ("msg".to_string(), r#"slow \"query\""#.to_string()));
        assert_eq!(found[6], ("empty".to_string(), String::new()));
        let found = scan(r#"level='info' event="it's" tags=['a b', 'c]'] ok=True none=None status_code=200"#).unwrap();
        assert_eq!(found[2], ("tags".to_string(), "['a b', 'c]']".to_string()));
        assert_eq!(found.len(), 5);
    }

    #[test]
    fn prose_is_not() {
        for text in [
            "user logged in with id=5",
            "GET /path?a=b&c=d HTTP/1.1",
            "x=1",
            "a=1 is not equal to b=2 in this sentence",
            "a = 5 b = 6",
            "",
            "=",
            "a=\"unclosed b=1",
            "{\"a\":1}",
        ] {
            assert_eq!(scan(text), None, "{text}");
        }
    }

    #[test]
    fn bare_values_are_typed() {
        assert_eq!(bare_value("200"), Some(Value::Integer(200)));
        assert_eq!(bare_value("007"), Some(Value::Text { syntax: Syntax::Bare, escaped: false }));
        assert_eq!(bare_value("1.50"), Some(Value::Float(1.5)));
        assert_eq!(bare_value("True"), Some(Value::Boolean { value: true, python: true }));
        assert_eq!(bare_value("None"), None);
        assert_eq!(bare_value("1.2s"), Some(Value::Text { syntax: Syntax::Bare, escaped: false }));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a-c='\"\\\\ \\t\\[\\](){}0-9é.]{0,40}") {
            if let Some(found) = scan(&text) {
                prop_assert!(found.len() <= text.len());
            }
        }
    }
}
