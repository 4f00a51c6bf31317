//! Functions in Promtail's templates: `{{ ToLower .Value }}`, `{{ .Value | Replace "a" "b" -1 }}`, one of them after the
//! other, of one field. Conditions and what is put together of several functions have no equal.
//! Source: clients/pkg/logentry/stages/template.go of grafana/loki 3.x.

use std::collections::BTreeMap;

use super::Step;
use super::promtail::Steps;
use super::selector::quoted;
use crate::pipeline::settings::{Case, Cased, Fields, Replace, Stage};

/// What a word of a template is.
#[derive(Debug, Clone, PartialEq)]
enum Word {
    /// `.Value`
    Field(String),
    /// `"text"`
    Text(String),
    /// A function, or a number.
    Name(String),
}

/// The field that a name in a template means, where `source` is the stage's.
pub(super) fn field<'n>(name: &'n str, source: &'n str) -> &'n str {
    match name {
        "Value" => source,
        "Entry" => "line",
        name => name,
    }
}

/// The stages for a template that is one action with functions in it; `None` when it is something else. **Errors**: the
/// function that has no equal.
pub(super) fn function(source: &str, template: &str) -> Option<Steps> {
    let inside = template.trim().strip_prefix("{{")?.strip_suffix("}}")?.trim_matches(['-', ' ']);
    if inside.contains("{{") {
        return None;
    }
    let mut calls = inside_calls(inside)?;
    // `f .Value` is `.Value | f`: the field is the last argument.
    let (first, rest) = calls.split_first_mut()?;
    let of = first.iter().position(|word| matches!(word, Word::Field(_)))?;
    let Word::Field(name) = first.remove(of) else { return None };
    if first.is_empty() && rest.is_empty() {
        return None;
    }
    let mut stages = Vec::new();
    let from = field(&name, source);
    if from != source {
        stages.push(Stage::Labels(Fields { fields: BTreeMap::from([(source.to_owned(), format!("${{{from}}}"))]) }));
    }
    for call in calls.iter().filter(|call| !call.is_empty()) {
        match stage(source, call) {
            Some(stage) => stages.push(stage),
            None => return Some(Err(format!("'{{{{{inside}}}}}' has a function that has no equal"))),
        }
    }
    Some(Ok(stages.into_iter().map(Step::Stage).collect()))
}

/// The words of an action, by `|`.
fn inside_calls(inside: &str) -> Option<Vec<Vec<Word>>> {
    let (mut calls, mut rest) = (vec![Vec::new()], inside.trim_start());
    while let Some(first) = rest.chars().next() {
        let after = match first {
            '|' => {
                calls.push(Vec::new());
                &rest[1..]
            }
            '"' | '`' => {
                let (text, after) = quoted(rest)?;
                calls.last_mut()?.push(Word::Text(text));
                after
            }
            '(' | ')' => return None,
            _ => {
                let end = rest.find(|letter: char| letter.is_whitespace() || letter == '|').unwrap_or(rest.len());
                let word = &rest[..end];
                calls.last_mut()?.push(match word.strip_prefix('.') {
                    Some(name) => Word::Field(name.to_owned()),
                    None => Word::Name(word.to_owned()),
                });
                &rest[end..]
            }
        };
        rest = after.trim_start();
    }
    Some(calls)
}

/// A call of one function as a stage; the field is not among its words.
fn stage(source: &str, call: &[Word]) -> Option<Stage> {
    let (Word::Name(name), arguments) = call.split_first()? else { return None };
    let texts: Vec<&str> = arguments
        .iter()
        .map(|word| match word {
            Word::Text(text) | Word::Name(text) => Some(text.as_str()),
            Word::Field(_) => None,
        })
        .collect::<Option<_>>()?;
    let cased = |to| Some(Stage::Case(Cased { source: source.to_owned(), to }));
    let replaced = |expression: String, with: &str| {
        regex::Regex::new(&expression).ok()?;
        Some(Stage::Replace(Replace { source: source.to_owned(), expression, with: with.to_owned() }))
    };
    let set = |cut: &str| cut.chars().map(|letter| regex::escape(&letter.to_string())).collect::<Vec<_>>().join("|");
    let literal = |text: &str| text.replace('$', "$$");
    match (name.as_str(), texts.as_slice()) {
        ("ToLower" | "lower", []) => cased(Case::Lower),
        ("ToUpper" | "upper", []) => cased(Case::Upper),
        ("TrimSpace" | "trim", []) => replaced(r"^\s+|\s+$".to_owned(), ""),
        ("Trim", [cut]) => replaced(format!("^(?:{0})+|(?:{0})+$", set(cut)), ""),
        ("TrimLeft", [cut]) => replaced(format!("^(?:{})+", set(cut)), ""),
        ("TrimRight", [cut]) => replaced(format!("(?:{})+$", set(cut)), ""),
        ("TrimPrefix" | "trimPrefix", [prefix]) => replaced(format!("^{}", regex::escape(prefix)), ""),
        ("TrimSuffix" | "trimSuffix", [suffix]) => replaced(format!("{}$", regex::escape(suffix)), ""),
        // Only "all of them" is what our stage does.
        ("Replace", [old, new, "-1"]) | ("replace", [old, new]) => replaced(regex::escape(old), &literal(new)),
        ("regexReplaceAll", [expression, with]) => replaced((*expression).to_owned(), with),
        ("regexReplaceAllLiteral", [expression, with]) => replaced((*expression).to_owned(), &literal(with)),
        _ => None,
    }
}
