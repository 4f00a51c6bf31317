//! What conditions ask of indexes: the texts that every matching record must contain, read from LIKE, ILIKE, `contains`,
//! `starts_with`, `ends_with`, `strpos`, equality, IN and the literals inside a regular expression. Pure, and never wrong
//! on the side of asking for more than the condition does.

use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Like, Operator};
use datafusion::scalar::ScalarValue;
use regex_syntax::hir::{Hir, HirKind};

use crate::storage::index::{Needle, Search};

/// Branches of an alternation that are followed; more say too little each.
const BRANCHES_MAX: usize = 64;

/// What a conjunction of conditions asks, of columns that are stored as they are compared.
pub(super) fn search_of(filters: &[Expr], is_stored: impl Fn(&str) -> bool) -> Search {
    Search::all(filters.iter().map(|filter| of(filter, &is_stored)))
}

fn of(filter: &Expr, is_stored: &dyn Fn(&str) -> bool) -> Search {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            Search::all([of(left, is_stored), of(right, is_stored)])
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            Search::one_of(vec![of(left, is_stored), of(right, is_stored)])
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => of_comparison(left, *op, right, is_stored),
        Expr::InList(list) if !list.negated && list.list.len() <= BRANCHES_MAX => {
            let values: Option<Vec<&str>> = list.list.iter().map(text).collect();
            match (column(&list.expr, is_stored), values) {
                (Some(column), Some(values)) => {
                    Search::one_of(values.into_iter().map(|value| equals(column, value)).collect())
                }
                _ => Search::Any,
            }
        }
        Expr::Like(like) if !like.negated => of_like(like, is_stored),
        Expr::ScalarFunction(call) => of_call(call, is_stored),
        _ => Search::Any,
    }
}

fn equals(column: &str, value: &str) -> Search {
    Search::Equals { column: column.to_owned(), value: value.to_owned() }
}

fn holds(column: &str, needle: Needle) -> Search {
    Search::Text { column: column.to_owned(), needle }
}

fn of_comparison(left: &Expr, op: Operator, right: &Expr, is_stored: &dyn Fn(&str) -> bool) -> Search {
    match (op, column_in_case(left, is_stored), text(right)) {
        (Operator::Eq, Some((column, false)), Some(value)) => return equals(column, value),
        (Operator::Eq, Some((column, true)), Some(value)) => {
            return holds(column, Needle { text: value.to_owned(), at_start: true, at_end: true, any_case: true });
        }
        (Operator::RegexMatch, Some((column, any_case)), Some(pattern)) => {
            return of_pattern(column, pattern, any_case);
        }
        (Operator::RegexIMatch, Some((column, _)), Some(pattern)) => return of_pattern(column, pattern, true),
        (Operator::LikeMatch, Some((column, any_case)), Some(pattern)) => {
            return of_like_pattern(column, pattern, None, any_case);
        }
        (Operator::ILikeMatch, Some((column, _)), Some(pattern)) => {
            return of_like_pattern(column, pattern, None, true);
        }
        _ => {}
    }
    if let (Operator::Eq, Some(value), Some(column)) = (op, text(left), column(right, is_stored)) {
        return equals(column, value);
    }
    // strpos(column, 'text') > 0, and 0 < strpos(…)
    let position = match (op, left, right) {
        (Operator::Gt | Operator::NotEq, Expr::ScalarFunction(call), Expr::Literal(bound, _)) => Some((call, bound)),
        (Operator::Lt | Operator::NotEq, Expr::Literal(bound, _), Expr::ScalarFunction(call)) => Some((call, bound)),
        _ => None,
    };
    match position {
        Some((call, bound)) if is_zero(bound) && ["strpos", "instr", "position"].contains(&call.name()) => {
            of_two(call, is_stored).map_or(Search::Any, |(column, any_case, value)| {
                holds(column, Needle { any_case, ..Needle::anywhere(value) })
            })
        }
        _ => Search::Any,
    }
}

fn is_zero(value: &ScalarValue) -> bool {
    matches!(value, ScalarValue::Int64(Some(0)) | ScalarValue::Int32(Some(0)))
}

fn of_call(call: &ScalarFunction, is_stored: &dyn Fn(&str) -> bool) -> Search {
    if call.name() == "regexp_like" {
        let flags = match call.args.get(2) {
            None => Some(""),
            Some(flags) => text(flags),
        };
        // Other flags than "i" change what the pattern means.
        let any_case = match flags {
            Some("") => false,
            Some("i") => true,
            _ => return Search::Any,
        };
        return match (call.args.first().and_then(|arg| column_in_case(arg, is_stored)), call.args.get(1).and_then(text))
        {
            (Some((column, lowered)), Some(pattern)) => of_pattern(column, pattern, any_case || lowered),
            _ => Search::Any,
        };
    }
    let Some((column, any_case, value)) = of_two(call, is_stored) else { return Search::Any };
    let needle = Needle { any_case, ..Needle::anywhere(value) };
    match call.name() {
        "contains" => holds(column, needle),
        "starts_with" => holds(column, Needle { at_start: true, ..needle }),
        "ends_with" => holds(column, Needle { at_end: true, ..needle }),
        _ => Search::Any,
    }
}

/// The arguments of a call on a column and a text.
fn of_two<'a>(call: &'a ScalarFunction, is_stored: &dyn Fn(&str) -> bool) -> Option<(&'a str, bool, &'a str)> {
    let [on, value] = call.args.as_slice() else { return None };
    let (column, any_case) = column_in_case(on, is_stored)?;
    Some((column, any_case, text(value)?))
}

fn of_like(like: &Like, is_stored: &dyn Fn(&str) -> bool) -> Search {
    match (column_in_case(&like.expr, is_stored), text(&like.pattern)) {
        (Some((column, lowered)), Some(pattern)) => {
            of_like_pattern(column, pattern, like.escape_char, like.case_insensitive || lowered)
        }
        _ => Search::Any,
    }
}

/// The pieces between the wildcards of a LIKE pattern.
fn of_like_pattern(column: &str, pattern: &str, escape: Option<char>, any_case: bool) -> Search {
    let escape = escape.unwrap_or('\\');
    let (mut pieces, mut piece) = (Vec::new(), String::new());
    let mut at_start = true;
    let mut chars = pattern.chars();
    while let Some(char) = chars.next() {
        match char {
            _ if char == escape => match chars.next() {
                Some(escaped) => piece.push(escaped),
                None => return Search::Any,
            },
            '%' | '_' => {
                pieces.push(Needle { text: std::mem::take(&mut piece), at_start, at_end: false, any_case });
                at_start = false;
            }
            _ => piece.push(char),
        }
    }
    pieces.push(Needle { text: piece, at_start, at_end: true, any_case });
    Search::all(pieces.into_iter().filter(|piece| !piece.text.is_empty()).map(|piece| holds(column, piece)))
}

fn of_pattern(column: &str, pattern: &str, any_case: bool) -> Search {
    let parsed = regex_syntax::ParserBuilder::new().build().parse(pattern);
    parsed.map_or(Search::Any, |parsed| required(column, &parsed, any_case))
}

/// The literals that every match of an expression has. In any case they are known already: `(?i)` makes letters classes,
/// so only what was written without it stands here as literals.
fn required(column: &str, pattern: &Hir, any_case: bool) -> Search {
    match pattern.kind() {
        HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
            Ok(text) => holds(column, Needle { any_case, ..Needle::anywhere(text) }),
            Err(_) => Search::Any,
        },
        HirKind::Class(_) => letter(pattern)
            .map_or(Search::Any, |letter| holds(column, Needle { any_case: true, ..Needle::anywhere(letter) })),
        HirKind::Capture(capture) => required(column, &capture.sub, any_case),
        HirKind::Repetition(repetition) if repetition.min > 0 => required(column, &repetition.sub, any_case),
        HirKind::Concat(parts) => Search::all(of_sequence(column, parts, any_case)),
        HirKind::Alternation(branches) if branches.len() <= BRANCHES_MAX => {
            Search::one_of(branches.iter().map(|branch| required(column, branch, any_case)).collect())
        }
        _ => Search::Any,
    }
}

/// A sequence's literals, with letters in any case put together into words.
fn of_sequence(column: &str, parts: &[Hir], any_case: bool) -> Vec<Search> {
    let (mut found, mut run, mut folded) = (Vec::new(), String::new(), false);
    let end = |run: &mut String, folded: &mut bool, found: &mut Vec<Search>| {
        if !run.is_empty() {
            let needle = Needle { any_case: any_case || *folded, ..Needle::anywhere(std::mem::take(run)) };
            found.push(holds(column, needle));
        }
        *folded = false;
    };
    for part in parts {
        let literal = match part.kind() {
            HirKind::Literal(literal) => std::str::from_utf8(&literal.0).ok().map(str::to_owned),
            HirKind::Class(_) => letter(part).inspect(|_| folded = true).map(String::from),
            _ => None,
        };
        match literal {
            Some(literal) => run.push_str(&literal),
            None => {
                end(&mut run, &mut folded, &mut found);
                found.push(required(column, part, any_case));
            }
        }
    }
    end(&mut run, &mut folded, &mut found);
    found
}

/// The ASCII letter that a class is the two cases of.
fn letter(pattern: &Hir) -> Option<char> {
    let HirKind::Class(regex_syntax::hir::Class::Unicode(class)) = pattern.kind() else { return None };
    let members: Vec<char> = class.iter().flat_map(|range| range.start()..=range.end()).take(4).collect();
    let first = members.first().copied().filter(char::is_ascii_alphabetic)?.to_ascii_lowercase();
    // K (Kelvin) and ſ are cases of k and s, for indexes too.
    let same = |member: &char| match member {
        '\u{212a}' => first == 'k',
        '\u{17f}' => first == 's',
        member => member.to_ascii_lowercase() == first,
    };
    (members.len() >= 2 && members.iter().all(same)).then_some(first)
}

/// A stored column, bare.
fn column<'a>(expr: &'a Expr, is_stored: &dyn Fn(&str) -> bool) -> Option<&'a str> {
    match expr {
        Expr::Column(column) if is_stored(&column.name) => Some(&column.name),
        _ => None,
    }
}

/// A stored column, and whether it stands in `lower(…)`.
fn column_in_case<'a>(expr: &'a Expr, is_stored: &dyn Fn(&str) -> bool) -> Option<(&'a str, bool)> {
    match expr {
        Expr::ScalarFunction(call) if call.name() == "lower" => {
            let [inner] = call.args.as_slice() else { return None };
            column(inner, is_stored).map(|name| (name, true))
        }
        _ => column(expr, is_stored).map(|name| (name, false)),
    }
}

fn text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::functions::expr_fn::{contains, lower, starts_with, strpos};
    use datafusion::logical_expr::binary_expr;
    use datafusion::prelude::{col, lit};

    use super::*;

    fn check(filter: Expr, expect: Search) {
        assert_eq!(search_of(std::slice::from_ref(&filter), |_| true), expect, "{filter}");
    }

    fn anywhere(text: &str) -> Search {
        holds("message", Needle::anywhere(text))
    }

    fn any_case(text: &str) -> Search {
        holds("message", Needle { any_case: true, ..Needle::anywhere(text) })
    }

    #[test]
    fn texts_are_read_from_conditions() {
        let message = || col("message");
        check(message().like(lit("%declin%")), anywhere("declin"));
        check(message().ilike(lit("%declin%")), any_case("declin"));
        check(message().like(lit("a%b_c")), {
            let needle = |text: &str, at_start, at_end| Needle { text: text.into(), at_start, at_end, any_case: false };
            Search::All(vec![
                holds("message", needle("a", true, false)),
                holds("message", needle("b", false, false)),
                holds("message", needle("c", false, true)),
            ])
        });
        check(message().like(lit("%100\\%%")), anywhere("100%"));
        check(contains(message(), lit("x")), anywhere("x"));
        check(contains(lower(message()), lit("x")), any_case("x"));
        check(strpos(message(), lit("x")).gt(lit(0_i64)), anywhere("x"));
        check(starts_with(message(), lit("x")), holds("message", Needle { at_start: true, ..Needle::anywhere("x") }));
        check(col("trace_id").eq(lit("ab")), equals("trace_id", "ab"));
        check(
            col("a").in_list(vec![lit("x"), lit("y")], false),
            Search::OneOf(vec![equals("a", "x"), equals("a", "y")]),
        );
        check(message().like(lit("%a%")).or(message().like(lit("%b%"))), {
            Search::OneOf(vec![anywhere("a"), anywhere("b")])
        });
    }

    #[test]
    fn literals_are_read_from_patterns() {
        let matches = |pattern: &str| binary_expr(col("message"), Operator::RegexMatch, lit(pattern));
        check(matches("timed out after \\d+"), anywhere("timed out after "));
        check(matches("conn(ection)? (refused|reset)"), {
            Search::All(vec![
                anywhere("conn"),
                anywhere(" "),
                Search::OneOf(vec![anywhere("refused"), anywhere("reset")]),
            ])
        });
        check(matches("(?i)declined"), any_case("declined"));
        check(matches("a|.*"), Search::Any);
        check(matches("["), Search::Any);
    }

    #[test]
    fn what_is_not_understood_asks_nothing() {
        check(col("message").not_like(lit("%x%")), Search::Any);
        check(col("message").like(lit("%x%")).or(col("level").not_eq(lit("a"))), Search::Any);
        check(contains(col("message"), col("level")), Search::Any);
        let stored = search_of(&[col("x").eq(lit("a"))], |_| false);
        assert_eq!(stored, Search::Any);
    }
}
