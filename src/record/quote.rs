//! How a string stands inside a line: the styles in which languages quote, writing and reading them.
//!
//! Invariant: a style writes character by character, so that the pieces of a text may be quoted one by one.

/// How the characters of a string are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quote {
    /// As they are.
    Verbatim,
    /// JSON with the fewest escapes: `\"`, `\\`, `\b\f\n\r\t`, `\u00xx` (JavaScript, serde_json).
    Json,
    /// The same in ASCII only: `\u00e9` (Python's json).
    JsonAscii,
    /// The same with `<`, `>`, `&`, U+2028 and U+2029 escaped (Go's encoding/json).
    JsonGo,
    /// ASCII only, with `\/` (PHP's json_encode).
    JsonPhp,
    /// Python's repr between single quotes.
    PythonSingle,
    /// Python's repr between double quotes.
    PythonDouble,
}

impl Quote {
    /// The styles of a JSON string, the most usual first.
    pub const JSON: [Quote; 4] = [Quote::Json, Quote::JsonAscii, Quote::JsonGo, Quote::JsonPhp];

    /// Whether the style leaves this text, which has neither quotes, nor backslashes, nor control characters, as it is.
    pub fn leaves(self, text: &[u8]) -> bool {
        match self {
            Quote::Verbatim | Quote::Json => true,
            Quote::JsonAscii => text.is_ascii(),
            Quote::JsonPhp => text.is_ascii() && !text.contains(&b'/'),
            Quote::JsonGo => {
                !text.iter().any(|byte| matches!(byte, b'<' | b'>' | b'&'))
                    && memchr::memmem::find(text, b"\xe2\x80").is_none()
            }
            // Which characters Python can print is Unicode's affair; ASCII is certain.
            Quote::PythonSingle | Quote::PythonDouble => text.iter().all(|byte| (0x20..0x7f).contains(byte)),
        }
    }

    /// Appends `text` in this style, without the quotes around it.
    pub fn write(self, text: &str, out: &mut Vec<u8>) {
        if self == Quote::Verbatim {
            return out.extend_from_slice(text.as_bytes());
        }
        let bytes = text.as_bytes();
        let beyond_ascii = matches!(self, Quote::JsonAscii | Quote::JsonPhp | Quote::JsonGo);
        let (mut at, mut done) = (0, 0);
        while let Some(byte) = bytes.get(at) {
            let character = match *byte {
                0x80.. if !beyond_ascii => '\u{80}',
                0x80.. => text[at..].chars().next().unwrap_or('\u{80}'),
                ascii => char::from(ascii),
            };
            if (character == '\u{80}' && !beyond_ascii) || !self.escapes(character) {
                at += if beyond_ascii { character.len_utf8() } else { 1 };
                continue;
            }
            out.extend_from_slice(&bytes[done..at]);
            at += character.len_utf8();
            done = at;
            self.write_escape(character, out);
        }
        out.extend_from_slice(&bytes[done..]);
    }

    fn escapes(self, character: char) -> bool {
        match character {
            '\\' | '\0'..='\x1f' => true,
            '"' => self != Quote::PythonSingle,
            '\'' => self == Quote::PythonSingle,
            '/' => self == Quote::JsonPhp,
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' if self == Quote::JsonGo => true,
            '\x7f' => matches!(self, Quote::PythonSingle | Quote::PythonDouble),
            '\u{80}'.. => matches!(self, Quote::JsonAscii | Quote::JsonPhp),
            _ => false,
        }
    }

    fn write_escape(self, character: char, out: &mut Vec<u8>) {
        let python = matches!(self, Quote::PythonSingle | Quote::PythonDouble);
        let short = match character {
            '"' | '\\' | '\'' | '/' => character as u8,
            '\n' => b'n',
            '\r' => b'r',
            '\t' => b't',
            '\x08' if !python => b'b',
            '\x0c' if !python => b'f',
            _ if python => {
                out.extend_from_slice(b"\\x");
                out.extend_from_slice(&hex4(character as u16)[2..]);
                return;
            }
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    out.extend_from_slice(b"\\u");
                    out.extend_from_slice(&hex4(*unit));
                }
                return;
            }
        };
        out.extend_from_slice(&[b'\\', short]);
    }

    /// The style's code, as shapes carry it.
    pub(super) fn code(self) -> char {
        match self {
            Quote::Verbatim => 'v',
            Quote::Json => 's',
            Quote::JsonAscii => 'a',
            Quote::JsonGo => 'g',
            Quote::JsonPhp => 'h',
            Quote::PythonSingle => 'q',
            Quote::PythonDouble => 'Q',
        }
    }

    /// The inverse of [`Quote::code`].
    pub(super) fn parse_code(code: char) -> Option<Quote> {
        Some(match code {
            'v' => Quote::Verbatim,
            's' => Quote::Json,
            'a' => Quote::JsonAscii,
            'g' => Quote::JsonGo,
            'h' => Quote::JsonPhp,
            'q' => Quote::PythonSingle,
            'Q' => Quote::PythonDouble,
            _ => return None,
        })
    }
}

fn hex4(unit: u16) -> [u8; 4] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [12, 8, 4, 0].map(|shift| DIGITS[usize::from(unit >> shift & 15)])
}

/// Reads the inside of a JSON string, appending its characters. **Errors**: the offset of the escape that is none, or of
/// half a surrogate pair.
pub fn unescape_json(raw: &str, out: &mut String) -> Result<(), usize> {
    let bytes = raw.as_bytes();
    let mut done = 0;
    while let Some(found) = memchr::memchr(b'\\', &bytes[done..]) {
        let at = done + found;
        out.push_str(&raw[done..at]);
        done = at + 2;
        let character = match bytes.get(at + 1).ok_or(at)? {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\x08',
            b'f' => '\x0c',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let (character, used) = unescape_utf16(bytes, at).ok_or(at)?;
                done = at + used;
                character
            }
            _ => return Err(at),
        };
        out.push(character);
    }
    out.push_str(&raw[done..]);
    Ok(())
}

/// Reads `\uXXXX`, or two of them that are one character.
fn unescape_utf16(bytes: &[u8], at: usize) -> Option<(char, usize)> {
    let unit = |at: usize| -> Option<u32> { hex_value(bytes.get(at..at + 4)?) };
    let first = unit(at + 2)?;
    match first {
        0xd800..=0xdbff => {
            if bytes.get(at + 6..at + 8)? != b"\\u" {
                return None;
            }
            let second = unit(at + 8)?;
            if !(0xdc00..=0xdfff).contains(&second) {
                return None;
            }
            Some((char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))?, 12))
        }
        _ => Some((char::from_u32(first)?, 6)),
    }
}

fn hex_value(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value, digit| Some(value * 16 + char::from(*digit).to_digit(16)?))
}

/// Reads the inside of a Python string literal, appending its characters; what is no escape stays as it is, as in Python.
/// **Errors**: the offset of an escape that is cut or no character.
pub fn unescape_python(raw: &str, out: &mut String) -> Result<(), usize> {
    let bytes = raw.as_bytes();
    let mut done = 0;
    while let Some(found) = memchr::memchr(b'\\', &bytes[done..]) {
        let at = done + found;
        out.push_str(&raw[done..at]);
        let code = |digits: usize| -> Result<(char, usize), usize> {
            let value = bytes.get(at + 2..at + 2 + digits).and_then(hex_value).and_then(char::from_u32);
            value.map(|character| (character, 2 + digits)).ok_or(at)
        };
        let (character, used) = match bytes.get(at + 1).ok_or(at)? {
            b'n' => ('\n', 2),
            b'r' => ('\r', 2),
            b't' => ('\t', 2),
            quoted @ (b'\\' | b'\'' | b'"') => (char::from(*quoted), 2),
            b'x' => code(2)?,
            b'u' => code(4)?,
            b'U' => code(8)?,
            _ => ('\\', 1),
        };
        out.push(character);
        done = at + used;
    }
    out.push_str(&raw[done..]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quoted(text: &str, quote: Quote) -> String {
        let mut out = Vec::new();
        quote.write(text, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn styles() {
        let text = "a\"b\\c\n\u{1}<é>/'🦀";
        assert_eq!(quoted(text, Quote::Json), r#"a\"b\\c\n\u0001<é>/'🦀"#);
        assert_eq!(quoted(text, Quote::JsonAscii), r#"a\"b\\c\n\u0001<\u00e9>/'\ud83e\udd80"#);
        assert_eq!(quoted(text, Quote::JsonGo), r#"a\"b\\c\n\u0001\u003cé\u003e/'🦀"#);
        assert_eq!(quoted(text, Quote::JsonPhp), r#"a\"b\\c\n\u0001<\u00e9>\/'\ud83e\udd80"#);
        assert_eq!(quoted(text, Quote::PythonSingle), r#"a"b\\c\n\x01<é>/\'🦀"#);
    }

    #[test]
    fn wrong_escapes() {
        for raw in [r"\x", r"\", r"\u12", r"\ud800", r"\ud800\u0041", r"\udc00", r"\u+123"] {
            assert!(unescape_json(raw, &mut String::new()).is_err(), "{raw}");
        }
    }

    proptest! {
        #[test]
        fn read_again(text in "\\PC{0,20}[\\x00-\\x7f]{0,10}") {
            for quote in Quote::JSON {
                let mut again = String::new();
                prop_assert!(unescape_json(&quoted(&text, quote), &mut again).is_ok());
                prop_assert_eq!(&again, &text);
            }
            for quote in [Quote::PythonSingle, Quote::PythonDouble] {
                let mut again = String::new();
                prop_assert!(unescape_python(&quoted(&text, quote), &mut again).is_ok());
                prop_assert_eq!(&again, &text);
            }
        }

        #[test]
        fn what_a_style_leaves(text in "[ !#-&(-\\[\\]-~é\u{2028}]{0,8}") {
            for quote in Quote::JSON {
                if quote.leaves(text.as_bytes()) {
                    prop_assert_eq!(quoted(&text, quote), text.clone());
                }
            }
        }

        #[test]
        fn never_panics(raw in "[\\\\uxU0-9a-dé]{0,20}") {
            let _ = unescape_json(&raw, &mut String::new());
            let _ = unescape_python(&raw, &mut String::new());
        }
    }
}
