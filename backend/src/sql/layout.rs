//! SQL text laid out again: a clause on each line, keywords in capitals, nothing else changed.
//! By the parser's tokens, so that macros, variables and comments stay where they are. Invariant: without white space
//! and the case of keywords, the text is the one that came in; laying it out twice changes nothing.

use sqlparser::dialect::GenericDialect;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, Whitespace};

use super::Error;
use super::check::byte_offset;

const INDENT: &str = "  ";

/// Lays a text out. **Errors**: a text whose quotes or comments do not end.
pub fn layout(sql: &str) -> Result<String, Error> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql)
        .tokenize_with_location()
        .map_err(|error| Error::Parse(error.to_string()))?;
    let pieces: Vec<Piece<'_>> = tokens.iter().filter_map(|token| Piece::of(token, sql)).collect();
    let mut page = Page::default();
    for (at, piece) in pieces.iter().enumerate() {
        page.put(piece, at.checked_sub(1).map(|before| &pieces[before]), &pieces[at + 1..]);
    }
    Ok(page.text)
}

/// A token that is no white space.
struct Piece<'a> {
    text: &'a str,
    token: &'a Token,
    /// There was white space before it.
    spaced: bool,
}

impl<'a> Piece<'a> {
    fn of(token: &'a TokenWithSpan, sql: &'a str) -> Option<Piece<'a>> {
        let start = byte_offset(sql, token.span.start);
        let text = sql[start..byte_offset(sql, token.span.end)].trim_end();
        let blank =
            matches!(&token.token, Token::Whitespace(Whitespace::Space | Whitespace::Newline | Whitespace::Tab));
        let spaced = sql[..start].ends_with(char::is_whitespace);
        (!blank && token.token != Token::EOF && !text.is_empty()).then_some(Piece { text, token: &token.token, spaced })
    }

    fn keyword(&self) -> Keyword {
        match self.token {
            Token::Word(word) if word.quote_style.is_none() => word.keyword,
            _ => Keyword::NoKeyword,
        }
    }

    fn is_line_comment(&self) -> bool {
        matches!(self.token, Token::Whitespace(Whitespace::SingleLineComment { .. }))
    }
}

#[derive(Default)]
struct Page {
    text: String,
    /// Open brackets: whether each holds a query.
    brackets: Vec<bool>,
    /// Between BETWEEN and its AND.
    in_between: bool,
    in_case: usize,
}

impl Page {
    fn put(&mut self, piece: &Piece<'_>, before: Option<&Piece<'_>>, after: &[Piece<'_>]) {
        let keyword = piece.keyword();
        let in_query = self.brackets.last().is_none_or(|is_query| *is_query);
        self.track(keyword);
        match piece.token {
            Token::RParen if self.brackets.pop() == Some(true) => self.line(0),
            _ if before.is_some_and(Piece::is_line_comment) => self.line(0),
            _ if before.is_none() => {}
            _ if in_query && starts_clause(keyword, before, after) => self.line(0),
            _ if in_query && self.starts_condition(keyword) => self.line(1),
            _ if needs_space(piece, before) => self.text.push(' '),
            _ => {}
        }
        if *piece.token == Token::LParen {
            let query = after.first().is_some_and(|next| matches!(next.keyword(), Keyword::SELECT | Keyword::WITH));
            self.brackets.push(query);
            self.text.push_str(piece.text);
            if query {
                self.line(0);
            }
            return;
        }
        let is_keyword = KEYWORDS.contains(&keyword) && !is_name(before, after);
        if is_keyword { self.text.push_str(&piece.text.to_uppercase()) } else { self.text.push_str(piece.text) }
    }

    fn track(&mut self, keyword: Keyword) {
        match keyword {
            Keyword::CASE => self.in_case += 1,
            Keyword::END => self.in_case = self.in_case.saturating_sub(1),
            Keyword::BETWEEN => self.in_between = true,
            _ => {}
        }
    }

    fn starts_condition(&mut self, keyword: Keyword) -> bool {
        let is_and = keyword == Keyword::AND;
        if is_and && std::mem::take(&mut self.in_between) {
            return false;
        }
        (is_and || keyword == Keyword::OR) && self.in_case == 0
    }

    fn line(&mut self, extra: usize) {
        let kept = self.text.trim_end().len();
        self.text.truncate(kept);
        if !self.text.is_empty() {
            let depth = self.brackets.iter().filter(|is_query| **is_query).count() + extra;
            self.text.push('\n');
            self.text.push_str(&INDENT.repeat(depth));
        }
    }
}

fn starts_clause(keyword: Keyword, before: Option<&Piece<'_>>, after: &[Piece<'_>]) -> bool {
    let before = before.map_or(Keyword::NoKeyword, Piece::keyword);
    let is_called = after.first().is_some_and(|next| *next.token == Token::LParen);
    match keyword {
        Keyword::JOIN => !JOINS.contains(&before) && before != Keyword::OUTER,
        Keyword::FROM => before != Keyword::DISTINCT,
        _ if JOINS.contains(&keyword) => !is_called,
        _ => CLAUSES.contains(&keyword),
    }
}

const JOINS: [Keyword; 5] = [Keyword::LEFT, Keyword::RIGHT, Keyword::FULL, Keyword::INNER, Keyword::CROSS];
const CLAUSES: [Keyword; 10] = [
    Keyword::SELECT,
    Keyword::WHERE,
    Keyword::GROUP,
    Keyword::HAVING,
    Keyword::ORDER,
    Keyword::LIMIT,
    Keyword::OFFSET,
    Keyword::UNION,
    Keyword::EXCEPT,
    Keyword::INTERSECT,
];

fn needs_space(piece: &Piece<'_>, before: Option<&Piece<'_>>) -> bool {
    let Some(before) = before else { return false };
    match (before.token, piece.token) {
        (Token::LParen | Token::Period | Token::DoubleColon, _)
        | (_, Token::Comma | Token::RParen | Token::Period | Token::SemiColon | Token::DoubleColon) => false,
        // A function's bracket, and IN (…).
        (_, Token::LParen) => piece.spaced || KEYWORDS.contains(&before.keyword()),
        (Token::Comma, _) => true,
        // `-1`, `${name}` and the like stay as they were written.
        _ => piece.spaced || is_comparison(before.token) || is_comparison(piece.token),
    }
}

fn is_comparison(token: &Token) -> bool {
    matches!(token, Token::Eq | Token::Neq | Token::Lt | Token::Gt | Token::LtEq | Token::GtEq)
}

/// Behind a dot, or called: a name, though SQL knows the word.
fn is_name(before: Option<&Piece<'_>>, after: &[Piece<'_>]) -> bool {
    before.is_some_and(|piece| *piece.token == Token::Period)
        || after.first().is_some_and(|next| *next.token == Token::Period)
}

/// Words in capitals; other words that the parser knows are names as often as not (`level`, `message`).
const KEYWORDS: [Keyword; 48] = [
    Keyword::SELECT,
    Keyword::DISTINCT,
    Keyword::FROM,
    Keyword::WHERE,
    Keyword::GROUP,
    Keyword::BY,
    Keyword::HAVING,
    Keyword::ORDER,
    Keyword::LIMIT,
    Keyword::OFFSET,
    Keyword::AS,
    Keyword::AND,
    Keyword::OR,
    Keyword::NOT,
    Keyword::IN,
    Keyword::LIKE,
    Keyword::ILIKE,
    Keyword::BETWEEN,
    Keyword::IS,
    Keyword::NULL,
    Keyword::CASE,
    Keyword::WHEN,
    Keyword::THEN,
    Keyword::ELSE,
    Keyword::END,
    Keyword::WITH,
    Keyword::JOIN,
    Keyword::ON,
    Keyword::USING,
    Keyword::LEFT,
    Keyword::RIGHT,
    Keyword::FULL,
    Keyword::INNER,
    Keyword::CROSS,
    Keyword::OUTER,
    Keyword::UNION,
    Keyword::ALL,
    Keyword::EXCEPT,
    Keyword::INTERSECT,
    Keyword::INTERVAL,
    Keyword::OVER,
    Keyword::FILTER,
    Keyword::DESC,
    Keyword::ASC,
    Keyword::CAST,
    Keyword::TRUE,
    Keyword::FALSE,
    Keyword::EXISTS,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_clause_gets_its_line() {
        for (sql, expect) in [
            (
                "select * from logs where $__timeFilter(timestamp) and level='error' order by timestamp desc limit 10",
                "SELECT *\nFROM logs\nWHERE $__timeFilter(timestamp)\n  AND level = 'error'\nORDER BY timestamp DESC\n\
                 LIMIT 10",
            ),
            (
                "select count(*) filter (where level = 'a  b' and x between 1 and 2),\"From\" from logs -- all\nwhere 1=1",
                "SELECT count(*) FILTER (WHERE level = 'a  b' AND x BETWEEN 1 AND 2), \"From\"\nFROM logs -- all\n\
                 WHERE 1 = 1",
            ),
            (
                "with x as (select a from logs where b in (1,-2) or c>=$c) select x.a from x",
                "WITH x AS (\n  SELECT a\n  FROM logs\n  WHERE b IN (1, -2)\n    OR c >= $c\n)\nSELECT x.a\nFROM x",
            ),
            (
                "select case when a and b then 1 else 2 end from logs where service in (${service:sqlstring})",
                "SELECT CASE WHEN a AND b THEN 1 ELSE 2 END\nFROM logs\nWHERE service IN (${service:sqlstring})",
            ),
        ] {
            let once = layout(sql).expect("fine");
            assert_eq!(once, expect, "{sql}");
            assert_eq!(layout(&once).expect("fine"), once, "{sql}");
        }
        assert!(layout("SELECT 'open").is_err());
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_lost(sql in "([a-z\"'$({)}., =<>\\-*/\n]|select|from|and|--|é){0,40}") {
            let bare = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_lowercase();
            if let Ok(out) = layout(&sql) {
                proptest::prop_assert_eq!(bare(&out), bare(&sql));
            }
        }
    }
}
