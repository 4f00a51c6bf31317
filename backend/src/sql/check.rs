//! SQL looked at while it is typed: what is wrong with it and where, and what would be better.
//! Names are checked by the store (`located` reads its words); everything else by the syntax tree.
//! Invariant: places are bytes of the text as typed, whatever macros were replaced in it.

use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, Expr, Function, Query as SqlQuery, Statement as SqlStatement, Value, Visit, Visitor,
};
use sqlparser::dialect::GenericDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use super::macros::{Expanded, Span, expand_with_places};
use super::written::{argument_pair, expr_name, is_name};
use super::{Context, Error};

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// Bytes of the text as typed.
    pub at: Span,
    /// What is wrong.
    pub message: String,
    /// Texts that may stand there instead.
    pub instead: Vec<String>,
}

/// What would be better, though nothing is wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Hint {
    /// What and why.
    pub message: String,
    /// What a click on it does, and the edits that do it, from the front to the back.
    pub fix: Option<(&'static str, Vec<Edit>)>,
}

/// A part of the text as typed, and what comes in its place.
pub type Edit = (Span, String);

/// A text that can be read.
#[derive(Debug)]
pub struct Read {
    typed: String,
    expanded: Expanded,
    query: SqlQuery,
}

/// Reads a text. **Errors**: the first thing that is wrong with it, as far as that is known without the store.
pub fn read(typed: &str, context: &Context) -> Result<Read, Problem> {
    let trimmed = typed.trim_end().trim_end_matches(';').trim_end();
    let whole = 0..trimmed.len();
    let problem = |at, message: String| Problem { at, message, instead: Vec::new() };
    let expanded = expand_with_places(trimmed, context).map_err(|error| match error {
        Error::Macro { reason, at, .. } => {
            Problem { instead: quoted_names(&reason, "did you mean "), ..problem(at, reason) }
        }
        other => problem(whole.clone(), other.to_string()),
    })?;
    let mut statements = Parser::parse_sql(&GenericDialect {}, &expanded.sql).map_err(|error| {
        let message = error.to_string();
        let message = message.strip_prefix("sql parser error: ").unwrap_or(&message);
        let (words, location) = split_place(message, " at Line: ", ", Column: ");
        let at = location.map_or_else(|| last_word(&expanded.sql), |location| token_at(&expanded.sql, location, 0));
        problem(expanded.typed(&at), words.replace("found: EOF", "found: the end of the query"))
    })?;
    match (statements.pop(), statements.is_empty()) {
        (Some(SqlStatement::Query(query)), true) => Ok(Read { typed: typed.to_owned(), expanded, query: *query }),
        (Some(_), true) => Err(problem(whole, "only queries can be sent: SELECT …".to_owned())),
        (None, _) => Err(problem(whole, Error::Empty.to_string())),
        (Some(_), false) => Err(problem(whole, "only one statement can be sent".to_owned())),
    }
}

impl Read {
    /// The text for the store.
    pub fn sql(&self) -> &str {
        &self.expanded.sql
    }

    /// A problem that the store tells: its words name the place, or the name.
    pub fn located(&self, words: &str) -> Problem {
        let first = words.lines().next().unwrap_or_default();
        let name = quoted_names(first, "named ").into_iter().next();
        let (message, location) = split_place(first, " (line ", ", column ");
        let sql = &self.expanded.sql;
        let width = name.as_deref().map_or(0, str::len);
        let at = match (location, &name) {
            (Some(location), _) => token_at(sql, location, width),
            (None, Some(name)) => word(sql, name).unwrap_or(0..sql.len()),
            (None, None) => 0..sql.len(),
        };
        Problem {
            at: self.expanded.typed(&at),
            message: message.to_owned(),
            instead: quoted_names(message, "did you mean "),
        }
    }

    /// Whether it reads lines whatever their time.
    pub fn reads_all_times(&self) -> bool {
        let found = self.found();
        found.reads_logs && !found.filters_time
    }

    fn found(&self) -> Found {
        let mut found = Found::default();
        // The visitor never breaks off.
        let _: ControlFlow<()> = self.query.visit(&mut found);
        found
    }

    /// What would be better.
    pub fn hints(&self) -> Vec<Hint> {
        let found = self.found();
        let time = self.reads_all_times().then(|| Hint {
            message: "no condition on timestamp: the query reads everything the store has, whatever the time range \
                      on the screen"
                .to_owned(),
            fix: self.time_filter().map(|edits| ("Add a time filter", edits)),
        });
        let patterns = found.patterns.iter().map(|text| Hint {
            message: format!(
                "'{text}' is plain text: contains(…, '{text}') finds the same lines by the index, without an expression"
            ),
            fix: self.contains(text).map(|edit| ("Use contains", vec![edit])),
        });
        time.into_iter().chain(patterns).collect()
    }

    /// A condition on the panel's range; `None` where it is not plain where that belongs.
    fn time_filter(&self) -> Option<Vec<Edit>> {
        const FILTER: &str = "$__timeFilter(timestamp)";
        if self.query.with.is_some() {
            return None;
        }
        let tokens = outermost(&self.expanded.sql)?;
        let from = tokens.iter().position(|token| keyword_of(token) == Keyword::FROM)?;
        let end = tokens.iter().position(|token| BEHIND_WHERE.contains(&keyword_of(token))).unwrap_or(tokens.len());
        let behind = |at: usize| {
            let end = byte_offset(&self.expanded.sql, tokens.get(at)?.span.end);
            let end = self.expanded.typed(&(end.saturating_sub(1)..end)).end;
            Some(end..end)
        };
        let insert = |at: usize, text: String| Some((behind(at)?, text));
        let last = end.checked_sub(1).filter(|last| *last > from)?;
        let Some(start) = tokens.iter().position(|token| keyword_of(token) == Keyword::WHERE) else {
            return Some(vec![insert(last, format!("\nWHERE {FILTER}"))?]);
        };
        if tokens[start..end].iter().all(|token| keyword_of(token) != Keyword::OR) {
            return Some(vec![insert(start, format!(" {FILTER} AND"))?]);
        }
        Some(vec![insert(start, format!(" {FILTER} AND ("))?, insert(last, ")".to_owned())?])
    }

    /// `contains` in the place of the name of a `regexp_like(…, 'text')`.
    fn contains(&self, text: &str) -> Option<Edit> {
        const NAME: &str = "regexp_like";
        let before = self.typed.find(&super::literal::text(text))?;
        let name = self.typed[..before].to_ascii_lowercase().rfind(NAME)?;
        let between = &self.typed[name + NAME.len()..before];
        // Another call, or another literal, in between: it is not this one's.
        let is_own = between.matches('(').count() == 1 && !between.contains('\'');
        is_own.then(|| (name..name + NAME.len(), "contains".to_owned()))
    }
}

const BEHIND_WHERE: [Keyword; 8] = [
    Keyword::GROUP,
    Keyword::HAVING,
    Keyword::ORDER,
    Keyword::LIMIT,
    Keyword::UNION,
    Keyword::WINDOW,
    Keyword::OFFSET,
    Keyword::QUALIFY,
];

/// What hints are about.
#[derive(Default)]
struct Found {
    reads_logs: bool,
    filters_time: bool,
    patterns: Vec<String>,
}

impl Visitor for Found {
    type Break = ();

    fn pre_visit_relation(&mut self, name: &sqlparser::ast::ObjectName) -> ControlFlow<()> {
        self.reads_logs |= is_name(name, "logs");
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::BinaryOp { left, op, right } if is_comparison(op) => {
                self.filters_time |= [left, right].iter().any(|side| expr_name(side).as_deref() == Some("timestamp"));
            }
            Expr::Between { expr, .. } => self.filters_time |= expr_name(expr).as_deref() == Some("timestamp"),
            Expr::Function(function) => self.patterns.extend(plain_pattern(function)),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn is_comparison(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq};
    matches!(op, Eq | Gt | GtEq | Lt | LtEq)
}

/// A call of `regexp_like` whose pattern has nothing of a pattern.
fn plain_pattern(function: &Function) -> Option<String> {
    let (_, pattern) = argument_pair(function).filter(|_| is_name(&function.name, "regexp_like"))?;
    let Expr::Value(value) = pattern else { return None };
    let Value::SingleQuotedString(text) = &value.value else { return None };
    is_plain_text(text).then(|| text.clone())
}

/// Whether a regular expression is a text that stands for itself.
pub fn is_plain_text(pattern: &str) -> bool {
    !pattern.is_empty() && regex_syntax::escape(pattern) == pattern
}

/// The first line of the store's words, without the place in a text that nobody typed.
pub fn without_place(words: &str) -> &str {
    split_place(words.lines().next().unwrap_or_default(), " (line ", ", column ").0
}

/// "message at Line: 1, Column: 8" taken apart.
fn split_place<'a>(message: &'a str, line: &str, column: &str) -> (&'a str, Option<Location>) {
    let parts = message.rsplit_once(line).and_then(|(before, place)| {
        let (line, column) = place.trim_end_matches(')').split_once(column)?;
        Some((before, Location { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? }))
    });
    parts.map_or((message, None), |(before, location)| (before, Some(location)))
}

/// The names in quotes behind a word: "did you mean 'a', 'b'?"
fn quoted_names(message: &str, behind: &str) -> Vec<String> {
    let Some((_, list)) = message.split_once(behind) else { return Vec::new() };
    let list = list.split(['?', ';']).next().unwrap_or_default();
    list.split('\'').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Where a place of the tokenizer lies. **Units**: bytes; its columns count characters from 1.
pub fn byte_offset(sql: &str, location: Location) -> usize {
    let mut line_start = 0;
    for _ in 1..location.line {
        match sql[line_start..].find('\n') {
            Some(end) => line_start += end + 1,
            None => return sql.len(),
        }
    }
    let column = usize::try_from(location.column).unwrap_or(usize::MAX).saturating_sub(1);
    sql[line_start..].char_indices().nth(column).map_or(sql.len(), |(at, _)| line_start + at)
}

/// The token at a place, or at least so many bytes.
fn token_at(sql: &str, location: Location, width: usize) -> Span {
    let start = byte_offset(sql, location);
    if start >= sql.len() {
        return last_word(sql);
    }
    let rest = &sql[start..];
    let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let first = rest.chars().next().map_or(1, char::len_utf8);
    let mut end = start + word.max(first).max(width).min(rest.len());
    while !sql.is_char_boundary(end) {
        end += 1;
    }
    start..end
}

/// The last word: what an end that came too early is shown at.
fn last_word(sql: &str) -> Span {
    let end = sql.trim_end().len();
    let start = sql[..end].rfind(char::is_whitespace).map_or(0, |at| at + 1);
    start..end
}

fn word(sql: &str, name: &str) -> Option<Span> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location().ok()?;
    let token = tokens
        .iter()
        .find(|token| matches!(&token.token, Token::Word(word) if word.value.eq_ignore_ascii_case(name)))?;
    Some(byte_offset(sql, token.span.start)..byte_offset(sql, token.span.end))
}

/// The tokens outside all brackets, without white space; `None` for a text that can't be cut into tokens.
fn outermost(sql: &str) -> Option<Vec<TokenWithSpan>> {
    let mut depth = 0_usize;
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location().ok()?;
    Some(
        tokens
            .into_iter()
            .filter(|token| {
                match token.token {
                    Token::LParen => depth += 1,
                    Token::RParen => {
                        depth = depth.saturating_sub(1);
                        return depth == 0;
                    }
                    _ => {}
                }
                depth == 0 && !matches!(token.token, Token::Whitespace(_))
            })
            .collect(),
    )
}

fn keyword_of(token: &TokenWithSpan) -> Keyword {
    match &token.token {
        Token::Word(word) if word.quote_style.is_none() => word.keyword,
        _ => Keyword::NoKeyword,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Range;
    use super::*;

    fn context() -> Context {
        let range = Range { from_ns: 1_767_268_800_000_000_000, to_ns: 1_767_272_400_000_000_000 };
        Context { range, interval_ms: 60_000, limit_default: 1000, points_max: 1000 }
    }

    #[test]
    fn mistakes_are_found_where_they_are() {
        for (sql, at, expect) in [
            ("SELECT * FORM logs WHERE $__timeFilter(timestamp)", "FORM", "Expected: end of statement, found: FORM"),
            ("SELECT * FROM logs WHERE", "WHERE", "Expected: an expression, found: the end of the query"),
            ("SELECT 'it FROM logs", "'", "Unterminated string literal"),
            (
                "SELECT *\nFROM logs\nWHERE $__timeFiltr(timestamp)",
                "$__timeFiltr",
                "no macro named '$__timeFiltr'; did you mean '$__timeFilter'?",
            ),
            ("SELECT * FROM logs WHERE $__timeFilter(timestamp) AND )", ")", "Expected: an expression, found: )"),
            ("DROP TABLE logs", "DROP TABLE logs", "only queries can be sent: SELECT …"),
            ("SELECT 1; SELECT 2", "SELECT 1; SELECT 2", "only one statement can be sent"),
        ] {
            let problem = read(sql, &context()).expect_err(sql);
            assert_eq!(problem.message, expect, "{sql}");
            assert!(sql[problem.at.clone()].starts_with(at), "{sql}: {}", &sql[problem.at]);
        }
        let problem = read("SELECT $__timeFiltr()", &context()).expect_err("no such macro");
        assert_eq!(problem.instead, ["$__timeFilter"]);
    }

    #[test]
    fn the_store_tells_names_and_places() {
        let sql = "SELECT *\nFROM logs\nWHERE $__timeFilter(timestamp) AND servce = 'bff'";
        let read = read(sql, &context()).expect("fine");
        let column = read.sql().lines().nth(2).expect("a line").find("servce").expect("there") + 1;
        let words =
            format!("no field named 'servce'; did you mean 'service', 'source'? (line 3, column {column})\n  x\n ^");
        let problem = read.located(&words);
        assert_eq!(&sql[problem.at], "servce");
        assert_eq!(problem.message, "no field named 'servce'; did you mean 'service', 'source'?");
        assert_eq!(problem.instead, ["service", "source"]);
        let problem = self::read("SELECT cuont(*) FROM logs", &context())
            .expect("fine")
            .located("no function named 'cuont'; did you mean 'count'?");
        assert_eq!((problem.at, problem.instead), (7..12, vec!["count".to_owned()]));
    }

    #[test]
    fn hints_come_with_the_text_they_would_make() {
        let check = |sql: &str, expect: &[&str]| {
            let hints = read(sql, &context()).expect("fine").hints();
            let fixed = |hint: &Hint| {
                let mut text = sql.to_owned();
                let edits = hint.fix.iter().flat_map(|(_, edits)| edits).rev();
                edits.for_each(|(at, with)| text.replace_range(at.clone(), with));
                text
            };
            assert_eq!(hints.iter().map(fixed).collect::<Vec<_>>(), expect, "{sql}");
        };
        check("SELECT * FROM logs WHERE $__timeFilter(timestamp)", &[]);
        check("SELECT 1", &[]);
        check("SELECT * FROM logs;", &["SELECT * FROM logs\nWHERE $__timeFilter(timestamp);"]);
        check(
            "SELECT * FROM logs WHERE level = 'error' LIMIT 5",
            &["SELECT * FROM logs WHERE $__timeFilter(timestamp) AND level = 'error' LIMIT 5"],
        );
        check(
            "SELECT level FROM logs WHERE a = 1 OR b = $__interval_ms GROUP BY 1",
            &["SELECT level FROM logs WHERE $__timeFilter(timestamp) AND ( a = 1 OR b = $__interval_ms) GROUP BY 1"],
        );
        let with = "WITH x AS (SELECT * FROM logs) SELECT * FROM x";
        check(with, &[with]);
        check(
            "SELECT * FROM logs WHERE timestamp > $__from AND regexp_like(message, 'declined')",
            &["SELECT * FROM logs WHERE timestamp > $__from AND contains(message, 'declined')"],
        );
        check("SELECT * FROM logs WHERE timestamp > $__from AND regexp_like(message, 'a.c')", &[]);
    }
}
