//! Filters written into SQL text, or taken out of it, where its author would have put them: in the WHERE of every SELECT
//! that reads `logs`. The syntax tree says where that is and checks the outcome; the text between stays as it was, with
//! its macros, variables, comments and line ends. Invariant: an edit that the tree does not confirm is refused.

use std::ops::{ControlFlow, Range};

use sqlparser::ast::{BinaryOperator, Expr, Ident, Query as SqlQuery, Select, TableFactor, VisitMut, VisitorMut};
use sqlparser::dialect::GenericDialect;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Location, Token, Tokenizer};

use super::narrow::{Place, each_place, is_loose, place, qualified};
use super::written::{is_name, parse, parse_condition, printed};
use super::{Error, builder, macros};
use crate::model::{Filter, Op};

/// Words and signs of a text that can be changed. A list of ids pasted as conditions is thousands of levels deep, and
/// copying and comparing such trees takes a stack of its own, of some KB for each level.
const TOKENS_MAX: usize = 2_000;
/// Twice what the longest text takes without optimizations.
const STACK_BYTES: usize = 32 << 20;

/// The text with `remove` taken out and `add` put in. What is asked for already is not asked for twice, and the opposite
/// of a filter goes. **Errors**: SQL that can't be read, or that has no place for conditions on lines.
pub fn edit(sql: &str, add: &[Filter], remove: &[Filter]) -> Result<String, Error> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        let edited = thread.spawn_scoped(scope, || edit_on_this_stack(sql, add, remove));
        let edited = edited.map_err(|error| refused(&format!("there is no thread for it ({error})")))?;
        edited.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn edit_on_this_stack(sql: &str, add: &[Filter], remove: &[Filter]) -> Result<String, Error> {
    let text = Text::read(sql)?;
    let sites = sites(&text.tree)?;
    let (mut edits, mut expected) = (Vec::new(), Vec::new());
    for site in &sites {
        let clause = text.clause(site)?;
        let wanted = clause.wanted(add, remove, site.qualifier.as_ref())?;
        expected.push(wanted.outcome(&clause));
        clause.write(&wanted, &mut edits);
    }
    let mut edited = sql.to_owned();
    edits.sort_by_key(|(range, _): &(Range<usize>, String)| range.start);
    for (range, replacement) in edits.into_iter().rev() {
        edited.replace_range(range, &replacement);
    }
    confirm(text.tree, &edited, &expected)?;
    Ok(edited)
}

fn refused(reason: &str) -> Error {
    Error::Edit(reason.to_owned())
}

/// SQL text, its tokens and its tree.
struct Text<'a> {
    sql: &'a str,
    tree: SqlQuery,
    /// Each with the bytes it takes; blanks and comments are left out.
    tokens: Vec<(Token, Location, Range<usize>)>,
}

impl Text<'_> {
    fn read(sql: &str) -> Result<Text<'_>, Error> {
        let masked = macros::mask(sql);
        let tokens = Tokenizer::new(&GenericDialect {}, &masked).tokenize_with_location();
        let tokens = tokens.map_err(|error| Error::Parse(error.to_string()))?;
        if tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).count() > TOKENS_MAX {
            return Err(refused("it is too long; write the condition yourself"));
        }
        let tree = parse(masked.trim_end().trim_end_matches(';')).map_err(Error::Parse)?;
        let starts = byte_offsets(&masked, tokens.iter().map(|token| token.span.start));
        let ends = starts.iter().skip(1).copied().chain([sql.len()]);
        let tokens = tokens
            .into_iter()
            .zip(starts.iter().copied().zip(ends))
            .filter(|(token, _)| !matches!(token.token, Token::Whitespace(_)))
            .map(|(token, (start, end))| (token.token, token.span.start, start..end))
            .collect();
        Ok(Text { sql, tree, tokens })
    }

    /// The WHERE of a SELECT, and what follows its FROM.
    fn clause(&self, site: &Site) -> Result<Clause<'_>, Error> {
        let table = self.tokens.iter().position(|(_, location, _)| *location == site.table);
        let table = table.ok_or_else(|| refused("its table was not found in the text"))?;
        let (mut depth, mut cases, mut between) = (0_i32, 0, false);
        let mut clause =
            Clause { sql: self.sql, from_end: self.tokens[table].2.end, keyword: None, pieces: Vec::new() };
        let mut tree = site.conjuncts();
        let mut piece: Option<Range<usize>> = None;
        let mut ranges = Vec::new();
        for (index, (token, _, range)) in self.tokens.iter().enumerate().skip(table) {
            let word = match token {
                Token::Word(word) if self.tokens[index - 1].0 != Token::Period => word.keyword,
                _ => Keyword::NoKeyword,
            };
            match token {
                Token::LParen | Token::LBracket => depth += 1,
                Token::RParen | Token::RBracket => depth -= 1,
                _ => {}
            }
            if depth < 0 || depth == 0 && cases == 0 && (*token == Token::SemiColon || ends_where(word)) {
                break;
            }
            match word {
                Keyword::WHERE if depth == 0 && clause.keyword.is_none() => {
                    clause.keyword = Some(range.clone());
                    continue;
                }
                Keyword::CASE => cases += 1,
                Keyword::END if cases > 0 => cases -= 1,
                Keyword::BETWEEN if depth == 0 && cases == 0 => between = true,
                Keyword::AND if depth == 0 && cases == 0 && between => between = false,
                // A condition with OR at its top is one piece, and has no AND that could cut it.
                Keyword::AND if depth == 0 && cases == 0 && clause.keyword.is_some() && tree.len() > 1 => {
                    ranges.extend(piece.take());
                    continue;
                }
                _ => {}
            }
            if clause.keyword.is_none() {
                clause.from_end = range.end;
            } else {
                piece = Some(piece.map_or(range.start, |piece| piece.start)..range.end);
            }
        }
        ranges.extend(piece);
        if ranges.len() != tree.len() {
            return Err(refused("its conditions could not be told apart"));
        }
        clause.pieces = ranges.into_iter().zip(tree.drain(..)).collect();
        Ok(clause)
    }
}

fn ends_where(word: Keyword) -> bool {
    use Keyword as K;
    matches!(
        word,
        K::GROUP
            | K::HAVING
            | K::ORDER
            | K::LIMIT
            | K::OFFSET
            | K::FETCH
            | K::UNION
            | K::INTERSECT
            | K::EXCEPT
            | K::WINDOW
            | K::QUALIFY
    )
}

/// The byte of each place; places come in their order.
fn byte_offsets(text: &str, places: impl Iterator<Item = Location>) -> Vec<usize> {
    let mut chars = text.char_indices();
    let (mut line, mut column, mut at) = (1, 1, 0);
    places
        .map(|place| {
            while (line, column) < (place.line, place.column) {
                match chars.next() {
                    None => break,
                    Some((_, '\n')) => (line, column) = (line + 1, 1),
                    Some(_) => column += 1,
                }
                at = chars.offset();
            }
            at
        })
        .collect()
}

/// A SELECT that reads `logs`.
struct Site {
    table: Location,
    qualifier: Option<Ident>,
    selection: Option<Expr>,
}

impl Site {
    fn conjuncts(&self) -> Vec<Expr> {
        self.selection.as_ref().map(conjuncts).unwrap_or_default()
    }
}

fn conjuncts(condition: &Expr) -> Vec<Expr> {
    match condition {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            let mut all = conjuncts(left);
            // The right side of a chain is never a chain itself, but for brackets.
            all.push(right.as_ref().clone());
            all
        }
        other => vec![other.clone()],
    }
}

fn sites(tree: &SqlQuery) -> Result<Vec<Site>, Error> {
    let mut sites = Vec::new();
    let clear = each_place(tree, |select, qualifier| {
        let table = table_location(select);
        sites.extend(table.map(|table| Site { table, qualifier, selection: select.selection.clone() }));
    });
    if clear {
        Ok(sites)
    } else {
        Err(refused("it has no SELECT from 'logs' alone that the condition could be added to"))
    }
}

fn table_location(select: &Select) -> Option<Location> {
    let mut factors = select
        .from
        .iter()
        .flat_map(|table| std::iter::once(&table.relation).chain(table.joins.iter().map(|join| &join.relation)));
    factors.find_map(|factor| match factor {
        TableFactor::Table { name, args: None, .. } if is_name(name, "logs") => {
            Some(name.0.last()?.as_ident()?.span.start)
        }
        _ => None,
    })
}

/// The WHERE of one SELECT in the text.
struct Clause<'a> {
    sql: &'a str,
    /// Where the FROM ends.
    from_end: usize,
    /// The word WHERE.
    keyword: Option<Range<usize>>,
    /// The conditions that must all hold.
    pieces: Vec<(Range<usize>, Expr)>,
}

/// What shall become of a clause.
struct Wanted {
    /// For each piece, whether it stays.
    stays: Vec<bool>,
    added: Vec<(String, Expr)>,
}

impl Wanted {
    fn outcome(&self, clause: &Clause<'_>) -> Vec<Expr> {
        let alone = clause.pieces.len() == 1;
        let wraps = |expr: &Expr| alone && !self.added.is_empty() && is_loose(expr);
        let kept = clause.pieces.iter().zip(&self.stays).filter(|(_, stays)| **stays);
        let kept =
            kept.map(|((_, expr), _)| if wraps(expr) { Expr::Nested(Box::new(expr.clone())) } else { expr.clone() });
        kept.chain(self.added.iter().map(|(_, expr)| expr.clone())).collect()
    }
}

impl Clause<'_> {
    fn wanted(&self, add: &[Filter], remove: &[Filter], table: Option<&Ident>) -> Result<Wanted, Error> {
        let conditions = |filters: &[Filter]| -> Result<Vec<Expr>, Error> {
            let conditions = builder::filter_conditions(filters)?;
            conditions.iter().map(|text| Ok(qualified(parse_condition(text)?, table))).collect()
        };
        let added = conditions(add)?;
        let opposites: Vec<Filter> = add.iter().filter_map(opposite).collect();
        let mut gone = conditions(remove)?;
        gone.extend(conditions(&opposites)?);
        let stays: Vec<bool> = self.pieces.iter().map(|(_, expr)| !gone.iter().any(|gone| same(gone, expr))).collect();
        let is_there = |wanted: &Expr| self.pieces.iter().any(|(_, expr)| same(wanted, expr));
        let added = added
            .into_iter()
            .filter(|wanted| !is_there(wanted))
            .map(|expr| (printed(&mut expr.clone()), expr))
            .collect();
        Ok(Wanted { stays, added })
    }

    /// Writes down what has to change in the text.
    fn write(&self, wanted: &Wanted, edits: &mut Vec<(Range<usize>, String)>) {
        let texts: Vec<&str> = wanted.added.iter().map(|(text, _)| text.as_str()).collect();
        let (and, place) = if self.sql.contains('\n') { ("\n  AND ", "\nWHERE ") } else { (" AND ", " WHERE ") };
        let Some(keyword) = &self.keyword else {
            if !texts.is_empty() {
                edits.push((self.from_end..self.from_end, format!("{place}{}", texts.join(and))));
            }
            return;
        };
        let end = self.pieces.last().map_or(keyword.end, |(range, _)| range.end);
        let Some(last) = wanted.stays.iter().rposition(|stays| *stays) else {
            let start = if texts.is_empty() { self.from_end } else { self.pieces[0].0.start };
            edits.push((start..end, texts.join(and)));
            return;
        };
        let mut kept_end = None;
        for (index, ((range, _), stays)) in self.pieces.iter().zip(&wanted.stays).enumerate() {
            if *stays {
                kept_end = Some(range.end);
            } else if let Some(kept_end) = kept_end {
                // With the AND before it, which the last of a row of them begins behind.
                edits.push((self.pieces[index - 1].0.end.max(kept_end)..range.end, String::new()));
            } else {
                edits.push((range.start..self.pieces[index + 1].0.start, String::new()));
            }
        }
        if texts.is_empty() {
            return;
        }
        let (range, expr) = &self.pieces[last];
        let wraps = self.pieces.len() == 1 && is_loose(expr);
        if wraps {
            edits.push((range.start..range.start, "(".to_owned()));
        }
        let close = if wraps { ")" } else { "" };
        edits.push((range.end..range.end, format!("{close}{and}{}", texts.join(and))));
    }
}

/// The filter that would leave nothing of this one, if there is one.
fn opposite(filter: &Filter) -> Option<Filter> {
    let op = match filter.op {
        Op::Eq => Op::Ne,
        Op::Ne => Op::Eq,
        Op::Contains => Op::NotContains,
        Op::NotContains => Op::Contains,
        Op::Exists => Op::NotExists,
        Op::NotExists => Op::Exists,
        _ => return None,
    };
    Some(Filter { op, ..filter.clone() })
}

/// Whether a condition in the text is the one that a filter makes; people write `a <> 'b'` without its other half.
fn same(made: &Expr, written: &Expr) -> bool {
    fn bare(expr: &Expr) -> &Expr {
        match expr {
            Expr::Nested(inner) => bare(inner),
            other => other,
        }
    }
    fn plain(expr: &Expr) -> String {
        // Quotes around a name that does not need them, and the table before it, change nothing.
        let mut expr = expr.clone();
        let _: ControlFlow<()> = sqlparser::ast::visit_expressions_mut(&mut expr, |expr| {
            let name = match expr {
                Expr::CompoundIdentifier(parts) => parts.last().cloned(),
                Expr::Identifier(name) => Some(name.clone()),
                _ => None,
            };
            if let Some(name) = name {
                *expr = Expr::Identifier(Ident::with_quote('"', name.value));
            }
            ControlFlow::Continue(())
        });
        expr.to_string()
    }
    let (made, written) = (bare(made), bare(written));
    let half = match made {
        Expr::BinaryOp { left, op: BinaryOperator::Or, right } if matches!(right.as_ref(), Expr::IsNull(_)) => {
            Some(left)
        }
        _ => None,
    };
    let written = plain(written);
    plain(made) == written || half.is_some_and(|half| plain(half) == written)
}

/// Reads the edited text again: nothing but the conditions may differ, and they must be those that were wanted.
fn confirm(before: SqlQuery, edited: &str, expected: &[Vec<Expr>]) -> Result<(), Error> {
    let after = Text::read(edited)?.tree;
    let conditions: Vec<Vec<Expr>> = sites(&after)?.iter().map(Site::conjuncts).collect();
    if conditions == expected && without_conditions(before) == without_conditions(after) {
        return Ok(());
    }
    Err(refused("the outcome would not be what was asked for"))
}

fn without_conditions(mut tree: SqlQuery) -> SqlQuery {
    struct Clear;
    impl VisitorMut for Clear {
        type Break = ();
        fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
            if matches!(place(select), Place::Of(_)) {
                select.selection = None;
            }
            ControlFlow::Continue(())
        }
    }
    // The visitor never breaks off.
    let _: ControlFlow<()> = VisitMut::visit(&mut tree, &mut Clear);
    tree
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::normalize_filter;

    fn filters(list: &Value) -> Vec<Filter> {
        list.as_array().expect("a list").iter().map(normalize_filter).collect()
    }

    fn check(sql: &str, add: Value, remove: Value, expect: &str) {
        let got = edit(sql, &filters(&add), &filters(&remove)).unwrap_or_else(|error| error.to_string());
        assert_eq!(got, expect, "{sql}");
    }

    #[test]
    fn conditions_are_written_where_their_author_would_have() {
        let error = || json!([{"field": "level", "value": "error"}]);
        for (sql, expect) in [
            ("SELECT * FROM logs", "SELECT * FROM logs WHERE level = 'error'"),
            (
                "SELECT *\nFROM logs -- all of them\nORDER BY 1",
                "SELECT *\nFROM logs\nWHERE level = 'error' -- all of them\nORDER BY 1",
            ),
            (
                "SELECT * FROM logs WHERE $__timeFilter() ORDER BY timestamp;",
                "SELECT * FROM logs WHERE $__timeFilter() AND level = 'error' ORDER BY timestamp;",
            ),
            (
                "SELECT $__timeGroup(timestamp, $__interval) AS t, count(*)\nFROM logs\nWHERE $__timeFilter(timestamp)\n  \
                 AND service IN (${service:csv}) /* ä */\nGROUP BY 1",
                "SELECT $__timeGroup(timestamp, $__interval) AS t, count(*)\nFROM logs\nWHERE $__timeFilter(timestamp)\n  \
                 AND service IN (${service:csv})\n  AND level = 'error' /* ä */\nGROUP BY 1",
            ),
            (
                "SELECT * FROM logs WHERE a = 'ä' OR b BETWEEN 1 AND 2",
                "SELECT * FROM logs WHERE (a = 'ä' OR b BETWEEN 1 AND 2) AND level = 'error'",
            ),
            (
                "SELECT * FROM logs WHERE CASE WHEN a AND b THEN c END AND b BETWEEN 1 AND 2 LIMIT $n",
                "SELECT * FROM logs WHERE CASE WHEN a AND b THEN c END AND b BETWEEN 1 AND 2 AND level = 'error' LIMIT $n",
            ),
            (
                "WITH e AS (SELECT * FROM logs WHERE x = 1) SELECT count(*) FROM e WHERE y = 2",
                "WITH e AS (SELECT * FROM logs WHERE x = 1 AND level = 'error') SELECT count(*) FROM e WHERE y = 2",
            ),
            (
                "SELECT * FROM logs l JOIN hosts h ON l.host = h.name",
                "SELECT * FROM logs l JOIN hosts h ON l.host = h.name WHERE l.level = 'error'",
            ),
            ("SELECT * FROM logs WHERE \"level\" = 'error'", "SELECT * FROM logs WHERE \"level\" = 'error'"),
            (
                "SELECT * FROM logs WHERE a = 1 AND level <> 'error' AND b = 2",
                "SELECT * FROM logs WHERE a = 1 AND b = 2 AND level = 'error'",
            ),
            ("SELECT * FROM logs WHERE level != 'error'", "SELECT * FROM logs WHERE level = 'error'"),
        ] {
            check(sql, error(), json!([]), expect);
        }
    }

    #[test]
    fn conditions_are_taken_out_with_the_words_around_them() {
        let error = || json!([{"field": "level", "value": "error"}]);
        for (sql, expect) in [
            ("SELECT * FROM logs WHERE level = 'error' LIMIT 5", "SELECT * FROM logs LIMIT 5"),
            ("SELECT * FROM logs WHERE level = 'error' AND a = 1", "SELECT * FROM logs WHERE a = 1"),
            (
                "SELECT * FROM logs WHERE a = 1 AND level = 'error' AND b = 2",
                "SELECT * FROM logs WHERE a = 1 AND b = 2",
            ),
            ("SELECT * FROM logs WHERE a = 1 OR level = 'error'", "SELECT * FROM logs WHERE a = 1 OR level = 'error'"),
            ("SELECT * FROM logs WHERE (level = 'error') AND level = 'error'", "SELECT * FROM logs"),
        ] {
            check(sql, json!([]), error(), expect);
        }
        let both = json!([{"field": "level", "value": "error"}, {"field": "a", "op": "!=", "value": "it's"}]);
        check(
            "SELECT * FROM logs",
            both,
            json!([]),
            "SELECT * FROM logs WHERE level = 'error' AND (\"a\" <> 'it''s' OR \"a\" IS NULL)",
        );
    }

    #[test]
    fn deep_conditions_do_not_overflow_the_stack() {
        let filter = filters(&json!([{"field": "level", "value": "error"}]));
        for words in [TOKENS_MAX / 2 - 10, 20_000] {
            let sql = format!("SELECT * FROM logs WHERE {}", vec!["a"; words].join(" OR "));
            let edited = edit(&sql, &filter, &[]).map_err(|error| error.to_string());
            let too_long = "this SQL cannot be changed: it is too long; write the condition yourself".to_owned();
            assert_eq!(edited.as_ref().err(), (words > TOKENS_MAX).then_some(&too_long));
        }
    }

    #[test]
    fn what_has_no_place_is_refused() {
        let no_place =
            "this SQL cannot be changed: it has no SELECT from 'logs' alone that the condition could be added to";
        for sql in ["SELECT 1", "SELECT * FROM logs a, logs b", "WITH logs AS (SELECT 1) SELECT * FROM logs"] {
            check(sql, json!([{"field": "level", "value": "error"}]), json!([]), no_place);
        }
    }

    proptest::proptest! {
        /// Whatever is asked for, the text that comes out has it, and taking it out again gives a text of the same meaning.
        #[test]
        fn what_was_put_in_can_be_taken_out(
            pieces in proptest::collection::vec(proptest::sample::select(vec![
                "a = 1", "$__timeFilter()", "b BETWEEN 1 AND 2", "(c OR d)", "x IN ('AND', '--')", "/* or */ e = 'ä'", "NOT f",
            ]), 0..5),
            tail in proptest::sample::select(vec!["", " GROUP BY 1", "\n-- end", " ORDER BY a LIMIT 3;"]),
            value in ".{0,8}",
        ) {
            let condition = if pieces.is_empty() { String::new() } else { format!(" WHERE {}", pieces.join("\nAND ")) };
            let sql = format!("SELECT a FROM logs{condition}{tail}");
            let filter = filters(&json!([{"field": "level", "value": value}]));
            let with = edit(&sql, &filter, &[]).expect("editable");
            let expected = parse(&macros::mask(&sql).replace(';', "")).expect("SQL");
            let without = edit(&with, &[], &filter).expect("editable");
            proptest::prop_assert_eq!(parse(&macros::mask(&without).replace(';', "")).expect("SQL"), expected);
        }
    }
}
