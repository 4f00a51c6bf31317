//! Kinds of secrets and personal data, as expressions. They find what has the form; what it is, nobody can know.

use regex::Regex;

/// Kinds by name. A group `keep` is what stays.
const KINDS: &[(&str, &str)] = &[
    ("email", r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+"),
    ("card", r"\b(?:\d[ -]?){12,18}\d\b"),
    ("iban", r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b"),
    ("ipv4", r"\b(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)\b"),
    ("ipv6", r"(?i)\b(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}\b|\b(?:[0-9a-f]{1,4}:){1,6}(?::[0-9a-f]{1,4}){1,6}\b"),
    ("phone", r"\+\d{1,3}[ -]?(?:\(\d{1,4}\)[ -]?)?\d{2,4}(?:[ -]?\d{2,4}){2,4}\b"),
    ("jwt", r"\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"),
    ("bearer", r"(?i)(?P<keep>\b(?:bearer|basic) +)[A-Za-z0-9._~+/-]+=*"),
    // Between quotes, and without.
    (
        "password",
        r#"(?i)(?P<keep>\b(?:password|passwd|pwd|secret|token|api[_-]?key|access[_-]?key|authorization)\\?["']? ?[=:] ?\\?["'])[^"'\\]+"#,
    ),
    (
        "password",
        r#"(?i)(?P<keep>\b(?:password|passwd|pwd|secret|token|api[_-]?key|access[_-]?key|authorization) ?[=:] ?)[^\s"'&,;\\]+"#,
    ),
    ("aws_key", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    ("private_key", r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)-----END [A-Z ]*PRIVATE KEY-----"),
];

/// One kind, ready for use.
#[derive(Debug, Clone)]
pub(super) struct Mask {
    expression: Regex,
    /// Digits must have the check digit of payment cards.
    luhn: bool,
}

impl Mask {
    /// **Errors**: the known kinds, when it is none.
    pub fn of_kind(name: &str) -> Result<Vec<Mask>, String> {
        let known = KINDS.iter().filter(|(known, _)| *known == name);
        let masks = known.map(|(_, expression)| Mask::of_expression(expression));
        let mut masks = masks.collect::<Result<Vec<Mask>, String>>()?;
        if masks.is_empty() {
            let mut names: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
            names.dedup();
            return Err(format!("'{name}' is no known kind; known are {}", names.join(", ")));
        }
        masks.iter_mut().for_each(|mask| mask.luhn = name == "card");
        Ok(masks)
    }

    /// **Errors**: what is wrong with the expression.
    pub fn of_expression(expression: &str) -> Result<Mask, String> {
        let expression = Regex::new(expression).map_err(|error| super::condition::told(&error))?;
        Ok(Mask { expression, luhn: false })
    }

    /// The text with `with` in place of what is found; `None` when nothing is.
    pub fn apply(&self, text: &str, with: &str) -> Option<String> {
        if !self.expression.is_match(text) {
            return None;
        }
        let replaced = self.expression.replace_all(text, |found: &regex::Captures<'_>| {
            let whole = found.get(0).map_or("", |whole| whole.as_str());
            if self.luhn && !is_card(whole) {
                return whole.to_string();
            }
            let kept = found.name("keep").map_or("", |kept| kept.as_str());
            format!("{kept}{with}")
        });
        (replaced != text).then(|| replaced.into_owned())
    }
}

/// Whether the digits end in the check digit of payment cards (ISO/IEC 7812-1, annex B).
fn is_card(text: &str) -> bool {
    let digits = text.bytes().rev().filter(u8::is_ascii_digit).map(|byte| u32::from(byte - b'0'));
    let sum: u32 = digits
        .zip(0..)
        .map(|(digit, place)| match (place % 2, digit * 2) {
            (0, _) => digit,
            (_, twice) => twice / 10 + twice % 10,
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_find_what_they_name() {
        for (kind, text, wanted) in [
            ("email", "from ann.b+c@example.co.uk to x", "from *** to x"),
            ("email", "a@b", "a@b"),
            ("card", "card 4111 1111 1111 1111 ok", "card *** ok"),
            ("card", "id 1234567890123456", "id 1234567890123456"),
            ("iban", "DE89 3704 0044 0532 0130 00.", "***."),
            ("ipv4", "peer 10.0.0.1:80", "peer ***:80"),
            ("ipv4", "version 1.2.3", "version 1.2.3"),
            ("ipv6", "from 2001:db8::1 on", "from *** on"),
            ("phone", "call +49 30 123456 now", "call *** now"),
            ("jwt", "t=eyJhbGciOiJI.eyJzdWIi.SflKxw x", "t=*** x"),
            ("bearer", "Authorization: Bearer abc.def==", "Authorization: Bearer ***"),
            ("password", "user=a password=hunter2 x=1", "user=a password=*** x=1"),
            ("password", r#"{"password":"p w","a":1}"#, r#"{"password":"***","a":1}"#),
            ("aws_key", "AKIAIOSFODNN7EXAMPLE", "***"),
            ("private_key", "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----", "***"),
        ] {
            let masks = Mask::of_kind(kind).unwrap();
            let masked = masks.iter().fold(text.to_string(), |text, mask| mask.apply(&text, "***").unwrap_or(text));
            assert_eq!(masked, wanted, "{kind}: {text}");
        }
        assert!(Mask::of_kind("emial").unwrap_err().contains("email"));
    }
}
