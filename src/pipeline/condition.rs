//! Conditions: `app = "web-*" and env != "dev" and line =~ "timeout|refused"`, as `match` has them.
//!
//! Invariant: an absent field is the empty text, as in `[[retention]]` and in Loki's selectors.

use regex::Regex;

use super::Entry;

/// What a line must be.
#[derive(Debug, Clone, Default)]
pub(super) struct Condition(Vec<Term>);

#[derive(Debug, Clone)]
struct Term {
    /// A field, `line` or `tenant`.
    name: String,
    wanted: Wanted,
    negated: bool,
}

#[derive(Debug, Clone)]
enum Wanted {
    /// One of these texts; `*` stands for any characters.
    Texts(Vec<String>),
    Expression(Regex),
}

impl Condition {
    /// Reads a condition; the empty one holds always. **Errors**: what is wrong, with its column.
    pub fn parse(text: &str) -> Result<Condition, String> {
        let mut rest = Reader { text, at: 0 };
        let mut terms = Vec::new();
        rest.blanks();
        while !rest.is_done() {
            if !terms.is_empty() && !rest.word("and") {
                return Err(rest.fault("expected 'and'"));
            }
            terms.push(rest.term()?);
            rest.blanks();
        }
        Ok(Condition(terms))
    }

    /// Whether it holds for an entry.
    pub fn holds(&self, entry: &Entry) -> bool {
        self.0.iter().all(|term| {
            let text = entry.text(&term.name).unwrap_or_default();
            let found = match &term.wanted {
                Wanted::Texts(texts) => texts.iter().any(|wanted| like(wanted, &text)),
                Wanted::Expression(expression) => expression.is_match(&text),
            };
            found != term.negated
        })
    }
}

/// Whether `text` is `pattern`, in which `*` stands for any characters.
pub(super) fn like(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let Some((middle, end)) = rest.rsplit_once('*') else { return text.ends_with(rest) };
    for part in middle.split('*') {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(end)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn is_done(&self) -> bool {
        self.rest().is_empty()
    }

    fn blanks(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn fault(&self, what: &str) -> String {
        format!("column {}: {what}; a condition is such as app = \"web-*\" and line =~ \"timeout\"", self.at + 1)
    }

    fn sign(&mut self, sign: &str) -> bool {
        self.blanks();
        let found = self.rest().starts_with(sign);
        self.at += if found { sign.len() } else { 0 };
        found
    }

    fn word(&mut self, word: &str) -> bool {
        self.blanks();
        let after = self.rest().strip_prefix(word).map(str::len);
        let found = after.is_some_and(|after| {
            let next = self.text[self.text.len() - after..].chars().next();
            next.is_none_or(|next| !is_name(next))
        });
        self.at += if found { word.len() } else { 0 };
        found
    }

    fn term(&mut self) -> Result<Term, String> {
        self.blanks();
        let length = self.rest().find(|letter| !is_name(letter)).unwrap_or(self.rest().len());
        if length == 0 {
            return Err(self.fault("expected the name of a field, 'line' or 'tenant'"));
        }
        let name = self.rest()[..length].to_string();
        self.at += length;
        for (sign, negated, expression) in
            [("!~", true, true), ("=~", false, true), ("!=", true, false), ("=", false, false)]
        {
            if self.sign(sign) {
                let start = self.at;
                let text = self.quoted()?;
                let wanted = match expression {
                    false => Wanted::Texts(vec![text]),
                    true => Wanted::Expression(Regex::new(&text).map_err(|error| {
                        self.at = start + 1;
                        self.fault(&told(&error))
                    })?),
                };
                return Ok(Term { name, wanted, negated });
            }
        }
        if !self.word("in") || !self.sign("(") {
            return Err(self.fault("expected =, !=, =~, !~ or in (…)"));
        }
        let mut texts = vec![self.quoted()?];
        while self.sign(",") {
            texts.push(self.quoted()?);
        }
        if !self.sign(")") {
            return Err(self.fault("expected ',' or ')'"));
        }
        Ok(Term { name, wanted: Wanted::Texts(texts), negated: false })
    }

    /// A text in quotes; a backslash stands before a quote or a backslash only.
    fn quoted(&mut self) -> Result<String, String> {
        if !self.sign("\"") {
            return Err(self.fault("expected a text in double quotes"));
        }
        let (mut text, mut escaped) = (String::new(), false);
        for (offset, letter) in self.rest().char_indices() {
            match letter {
                '"' if !escaped => {
                    self.at += offset + 1;
                    return Ok(text);
                }
                '\\' if !escaped => escaped = true,
                _ => {
                    if escaped && !matches!(letter, '"' | '\\') {
                        text.push('\\');
                    }
                    escaped = false;
                    text.push(letter);
                }
            }
        }
        Err(self.fault("the text has no end"))
    }
}

fn is_name(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '_' | '.' | '-' | '@' | '/')
}

/// What is wrong with an expression, in one line.
pub(super) fn told(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_string()
}
