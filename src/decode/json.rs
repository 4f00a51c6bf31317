//! A scanner of JSON objects that finds the values and where they stand, and builds no tree.
//!
//! Invariant: it accepts exactly the objects that serde_json accepts, and beside them numbers beyond a double's range,
//! which are kept as text. Nested objects are flattened, their names joined with dots.

use super::token::{Syntax, Tokens, Value, number, number_length};
use crate::record::quote::unescape_json;

/// Objects deeper than this are kept as JSON text.
const FLATTEN_DEPTH_MAX: usize = 16;
/// Deepest nesting that is accepted, as in serde_json.
const DEPTH_MAX: usize = 127;

/// Where a text stops being a JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    /// Offset in bytes.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at column {}", self.what, self.at + 1)
    }
}

/// Finds the values of the object that `text` is, appending them to `tokens`; nulls and members of empty names are found
/// like others, except that a null has no token. **Errors**: where the text is no JSON object.
pub(super) fn scan_object(text: &str, tokens: &mut Tokens) -> Result<(), Fault> {
    let mut scanner = Scanner { text, bytes: text.as_bytes(), at: 0, path: String::new(), tokens };
    scanner.blanks();
    if scanner.peek() != Some(b'{') {
        return Err(scanner.fault("expected '{'"));
    }
    scanner.object(1)?;
    scanner.blanks();
    match scanner.peek() {
        None => Ok(()),
        Some(_) => Err(scanner.fault("more after the object's end")),
    }
}

/// The end of the JSON value that starts at `at`. **Errors**: where it is none.
pub(super) fn skip_value(text: &str, at: usize) -> Result<usize, Fault> {
    let mut tokens = Tokens::default();
    let mut scanner = Scanner { text, bytes: text.as_bytes(), at, path: String::new(), tokens: &mut tokens };
    scanner.skip(0)?;
    Ok(scanner.at)
}

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// Names of the objects around, each with a dot after it.
    path: String,
    tokens: &'a mut Tokens,
}

impl Scanner<'_> {
    fn fault(&self, what: &'static str) -> Fault {
        let what = if self.at >= self.bytes.len() { "the line ends within an object" } else { what };
        Fault { at: self.at, what }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), Fault> {
        self.blanks();
        if self.peek() != Some(byte) {
            return Err(self.fault(what));
        }
        self.at += 1;
        Ok(())
    }

    /// Goes past a string; true when it holds escapes. They are checked by who reads the string.
    fn string(&mut self) -> Result<bool, Fault> {
        let mut escaped = false;
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.at += 2;
                }
                Some(0..=0x1f) => return Err(self.fault("a control character in a string")),
                Some(_) => self.at += 1,
                None => {
                    self.at = self.bytes.len();
                    return Err(self.fault(""));
                }
            }
        }
        self.at += 1;
        Ok(escaped)
    }

    /// Goes past a string and checks its escapes; gives its characters when `out` is wanted.
    fn checked_string(&mut self, out: &mut String) -> Result<bool, Fault> {
        let start = self.at + 1;
        let escaped = self.string()?;
        let raw = &self.text[start..self.at - 1];
        if !escaped {
            out.push_str(raw);
        } else if let Err(at) = unescape_json(raw, out) {
            return Err(Fault { at: start + at, what: "an invalid escape in a string" });
        }
        Ok(escaped)
    }

    /// The members of an object whose `{` is next.
    fn object(&mut self, depth: usize) -> Result<(), Fault> {
        let prefix = self.path.len();
        self.at += 1;
        self.blanks();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.blanks();
            if self.peek() != Some(b'"') {
                return Err(self.fault("expected a name in quotes"));
            }
            let name_start = self.tokens.names.len();
            let mut names = std::mem::take(&mut self.tokens.names);
            names.push_str(&self.path);
            let found = self.checked_string(&mut names);
            self.tokens.names = names;
            found?;
            self.expect(b':', "expected ':'")?;
            self.blanks();
            self.value(name_start, depth)?;
            self.path.truncate(prefix);
            self.blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.fault("expected ',' or '}'")),
            }
        }
        self.at += 1;
        Ok(())
    }

    fn value(&mut self, name_start: usize, depth: usize) -> Result<(), Fault> {
        let start = self.at;
        let value = match self.peek() {
            Some(b'"') => {
                let escaped = self.string()?;
                if escaped {
                    self.check_escapes(start + 1)?;
                }
                Value::Text { syntax: Syntax::Json, escaped }
            }
            Some(b'{') if depth < FLATTEN_DEPTH_MAX && !self.is_empty_object() => {
                self.path.clear();
                let joined = &self.tokens.names[name_start..];
                self.path.push_str(joined);
                self.path.push('.');
                return self.object(depth + 1);
            }
            Some(b'-' | b'0'..=b'9') => {
                self.number()?;
                number(&self.text[start..self.at])
            }
            Some(b't') => {
                self.word("true")?;
                Value::Boolean { value: true, python: false }
            }
            Some(b'f') => {
                self.word("false")?;
                Value::Boolean { value: false, python: false }
            }
            Some(b'n') => {
                self.word("null")?;
                self.tokens.names.truncate(name_start);
                return Ok(());
            }
            Some(b'[' | b'{') => {
                self.skip(depth)?;
                Value::Verbatim
            }
            _ => return Err(self.fault("expected a value")),
        };
        self.tokens.push(name_start, start, self.at, value);
        Ok(())
    }

    fn check_escapes(&mut self, start: usize) -> Result<(), Fault> {
        let raw = &self.text[start..self.at - 1];
        let mut at = 0;
        while let Some(found) = memchr::memchr(b'\\', &raw.as_bytes()[at..]) {
            let escape = at + found;
            // One escape, or the two halves of a pair, at a time: no text is built.
            let length = match raw.as_bytes().get(escape + 1) {
                Some(b'u') if raw.as_bytes().get(escape + 6) == Some(&b'\\') && is_high_surrogate(&raw[escape..]) => 12,
                Some(b'u') => 6,
                _ => 2,
            };
            let one = raw
                .get(escape..escape + length)
                .ok_or(Fault { at: start + escape, what: "an invalid escape in a string" })?;
            unescape_json(one, &mut String::new())
                .map_err(|_| Fault { at: start + escape, what: "an invalid escape in a string" })?;
            at = escape + length;
        }
        Ok(())
    }

    fn is_empty_object(&self) -> bool {
        let after = self.bytes[self.at + 1..].iter().find(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
        after == Some(&b'}')
    }

    fn number(&mut self) -> Result<(), Fault> {
        self.at += number_length(&self.bytes[self.at..]).ok_or(self.fault("an invalid number"))?;
        Ok(())
    }

    fn word(&mut self, word: &str) -> Result<(), Fault> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err(self.fault("expected a value"));
        }
        self.at += word.len();
        Ok(())
    }

    /// Goes past a value inside of `depth` objects and arrays.
    fn skip(&mut self, depth: usize) -> Result<(), Fault> {
        let start = self.at;
        match self.peek() {
            Some(b'"') => {
                if self.string()? {
                    self.check_escapes(start + 1)?;
                }
                Ok(())
            }
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            Some(b'[' | b'{') if depth >= DEPTH_MAX => Err(self.fault("nested too deep")),
            Some(b'[') => self.skip_members(b']', depth + 1),
            Some(b'{') => self.skip_members(b'}', depth + 1),
            _ => Err(self.fault("expected a value")),
        }
    }

    fn skip_members(&mut self, close: u8, depth: usize) -> Result<(), Fault> {
        self.at += 1;
        self.blanks();
        if self.peek() == Some(close) {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.blanks();
            if close == b'}' {
                if self.peek() != Some(b'"') {
                    return Err(self.fault("expected a name in quotes"));
                }
                self.skip(depth)?;
                self.expect(b':', "expected ':'")?;
                self.blanks();
            }
            self.skip(depth)?;
            self.blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(byte) if byte == close => break,
                _ => return Err(self.fault("expected ',' or the end of the list")),
            }
        }
        self.at += 1;
        Ok(())
    }
}

fn is_high_surrogate(escape: &str) -> bool {
    matches!(escape.as_bytes(), [b'\\', b'u', b'd' | b'D', b'8' | b'9' | b'a' | b'b' | b'A' | b'B', ..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(text: &str) -> Result<Vec<(String, String)>, Fault> {
        let mut tokens = Tokens::default();
        scan_object(text, &mut tokens)?;
        let pair = |token| (tokens.name(token).to_string(), text[token.inner()].to_string());
        Ok(tokens.list.iter().map(pair).collect())
    }

    /// Whether we judge as serde_json does; it gives up at a number beyond range, and says nothing of the rest.
    fn agrees_with_serde(text: &str) -> bool {
        match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text) {
            Ok(_) => scan(text).is_ok(),
            Err(error) => scan(text).is_err() || error.to_string().starts_with("number out of range"),
        }
    }

    #[test]
    fn values_are_found() {
        let found =
            scan(r#" {"a":1,"b":{"c":"x","d":{"e":[1,{"f":2}]}},"g":{},"h":null,"i\n":true , "":-0.5e3} "#).unwrap();
        let found: Vec<(&str, &str)> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let wanted =
            [("a", "1"), ("b.c", "x"), ("b.d.e", "[1,{\"f\":2}]"), ("g", "{}"), ("i\n", "true"), ("", "-0.5e3")];
        assert_eq!(found, wanted);
    }

    #[test]
    fn faults_name_the_place() {
        for (text, fault) in [
            (r#"{"a":1,"#, "the line ends within an object at column 8"),
            (r#"{"a" 1}"#, "expected ':' at column 6"),
            (r#"{"a":01}"#, "expected ',' or '}' at column 7"),
            (r#"{"a":"\q"}"#, "an invalid escape in a string at column 7"),
            (r#"{"a":"#, "the line ends within an object at column 6"),
            (r#"{a:1}"#, "expected a name in quotes at column 2"),
            (r#"{"a":1} x"#, "more after the object's end at column 9"),
            (r#"[1]"#, "expected '{' at column 1"),
        ] {
            assert_eq!(scan(text).unwrap_err().to_string(), fault, "{text}");
        }
    }

    #[test]
    fn nesting_has_the_limit_of_serde_json() {
        for depth in 120..135 {
            for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
                let text = format!("{{\"x\":{}1{}}}", open.repeat(depth), close.repeat(depth));
                assert!(agrees_with_serde(&text), "{depth} {open}");
                assert_eq!(scan(&text).is_ok(), depth < 127);
            }
        }
    }

    #[test]
    fn numbers_beyond_range_are_text() {
        let mut tokens = Tokens::default();
        scan_object(r#"{"a":1e999,"b":18446744073709551615,"c":-9223372036854775808,"d":-0}"#, &mut tokens).unwrap();
        let values: Vec<Value> = tokens.list.iter().map(|token| token.value).collect();
        assert_eq!(values, [Value::Verbatim, Value::Verbatim, Value::Integer(i64::MIN), Value::Float(-0.0)]);
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            "\\PC{0,12}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::hash_map("\\PC{0,6}", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn accepts_what_serde_accepts(members in prop::collection::hash_map("\\PC{0,6}", json(), 0..5)) {
            let text = serde_json::to_string(&members).unwrap();
            prop_assert!(scan(&text).is_ok(), "{text}");
        }

        #[test]
        fn judges_damaged_objects_as_serde_does(
            members in prop::collection::hash_map("[a-c\\\\\"é]{0,3}", json(), 0..3), at in any::<prop::sample::Index>(),
            insert in "[\\[\\]{},:\"\\\\ \\t\\n0-9.eE+tfnu\u{1}-]{0,2}", cut in 0usize..3,
        ) {
            let text = serde_json::to_string(&members).unwrap();
            let mut characters: Vec<char> = text.chars().collect();
            let at = at.index(characters.len());
            let end = (at + cut).min(characters.len());
            characters.splice(at..end, insert.chars());
            let damaged: String = characters.into_iter().collect();
            prop_assert!(agrees_with_serde(&damaged), "{}", damaged);
        }

        #[test]
        fn judges_any_text_as_serde_does(inside in "[\\[\\]{},:\"\\\\ 0-9.eEtruefalsn+-]{0,24}") {
            let text = format!("{{{inside}}}");
            prop_assert!(agrees_with_serde(&text), "{}", text);
        }

        #[test]
        fn judges_escapes_as_serde_does(inside in "(\\\\[\\\\\"/bfnrtux]|u|[dD][89abcABCD][0-9a-f]{2}|[0-9a-f]{4}|é){0,6}") {
            let text = format!("{{\"a\":\"{inside}\",\"b\":[\"{inside}\"],\"{inside}\":1}}");
            prop_assert!(agrees_with_serde(&text), "{}", text);
        }

        #[test]
        fn never_panics(text in "\\PC{0,60}") {
            let _ = scan(&text);
            let _ = skip_value(&text, 0);
        }
    }
}
