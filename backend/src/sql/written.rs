//! SQL that people write: macros replaced, and, where it plainly selects log lines, completed so that the lines get
//! their id, a stable order and a limit. By its syntax tree, never by searching in the text.
//! Invariant: SQL that is not plainly lines of `logs`, or that the parser can't read, is sent as it was written.

use std::fmt::Display;
use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, LimitClause,
    ObjectName, OrderBy, OrderByExpr, OrderByKind, OrderByOptions, Query as SqlQuery, Select, SelectItem, SetExpr,
    Statement as SqlStatement, TableFactor, Value, ValueWithSpan, Visit, VisitMut, Visitor, VisitorMut,
};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;

use super::narrow::{self, Narrowed};
use super::{Context, Error, Lines, Shape, Statement, cursor_condition, macros};
use crate::model::{Direction, Format, Query};
use crate::settings::LIMIT_MAX;

/// The statement of a query in SQL.
pub fn statement(query: &Query, context: &Context) -> Result<Statement, Error> {
    let sql = expanded(query, context)?;
    let shape = match query.format {
        Format::Auto => Shape::Auto,
        Format::Logs => Shape::Logs,
        Format::Series => Shape::Series { fill: None, groups: None },
        Format::Number => Shape::Number { groups: None },
        Format::Table => Shape::Table,
    };
    // What the parser can't read, the store can't either, and the store tells it better.
    let Ok(mut parsed) = parse(&sql) else { return Ok(Statement::new(sql, shape)) };
    let narrowed = narrow::apply(&mut parsed, &query.filters)?;
    let statement = Statement {
        search_words: search_words(&parsed),
        notices: narrowed.notice(&query.filters).into_iter().collect(),
        ..Statement::new(sql, shape)
    };
    let wants_lines = matches!(query.format, Format::Auto | Format::Logs);
    if wants_lines && selects_lines(&parsed) {
        // A limit of its own is part of the query, and an order of its own has no place to go on from.
        let ordered = match (&parsed.order_by, orders_by_time(&parsed)) {
            (None, _) => Some(query.builder.direction),
            (Some(_), Some(true)) => Some(Direction::Backward),
            (Some(_), Some(false)) => Some(Direction::Forward),
            (Some(_), None) => None,
        };
        let pages = ordered.filter(|_| !has_limit(&parsed));
        let limit = complete(&mut parsed, query, context)?;
        return Ok(Statement { sql: printed(&mut parsed), limit: Some(limit), pages, ..statement });
    }
    Ok(if narrowed == Narrowed::All { Statement { sql: printed(&mut parsed), ..statement } } else { statement })
}

/// The lines a query in SQL is about. **Errors**: SQL that can't be read, or that has no lines.
pub fn lines(query: &Query, context: &Context, what: &'static str) -> Result<Lines, Error> {
    let sql = expanded(query, context)?;
    let mut parsed = parse(&sql).map_err(Error::Parse)?;
    narrow::apply(&mut parsed, &query.filters)?;
    double_quotes(&mut parsed);
    let in_range = context.range.condition("timestamp");
    if let Some((select, from)) = select_of_logs(&parsed) {
        let mut lines = Lines::of_logs(vec![in_range]);
        lines.conditions.extend(select.selection.as_ref().map(|condition| format!("({condition})")));
        lines.from = from;
        lines.with = parsed.with.as_ref().map(|with| format!("{with}\n")).unwrap_or_default();
        return Ok(lines);
    }
    parsed.order_by = None;
    parsed.limit_clause = None;
    parsed.fetch = None;
    let columns = output_columns(&parsed.body);
    let has = |name: &str| columns.as_ref().is_none_or(|columns| columns.iter().any(|column| column == name));
    if !has("timestamp") {
        return Err(Error::NotLines { what, needs: "selects the column 'timestamp', or reads 'logs' itself" });
    }
    Ok(Lines {
        with: String::new(),
        from: format!("({parsed}) AS lines"),
        conditions: vec![in_range],
        direct: false,
        has_level: has("level"),
    })
}

/// Whether the rows of the answer are lines of `logs`, which can be followed as they come.
pub fn shows_lines(query: &Query, context: &Context) -> Result<bool, Error> {
    Ok(selects_lines(&parse(&expanded(query, context)?).map_err(Error::Parse)?))
}

fn expanded(query: &Query, context: &Context) -> Result<String, Error> {
    let sql = query.sql.trim().trim_end_matches(';').trim_end();
    if sql.is_empty() {
        return Err(Error::Empty);
    }
    macros::expand(sql, context)
}

/// Reads one SELECT. **Errors**: the parser's words.
pub fn parse(sql: &str) -> Result<SqlQuery, String> {
    let mut statements = Parser::parse_sql(&GenericDialect {}, sql).map_err(|error| error.to_string())?;
    match (statements.pop(), statements.is_empty()) {
        (Some(SqlStatement::Query(query)), true) => Ok(*query),
        (Some(_), true) => Err("it is not a SELECT".to_owned()),
        _ => Err("it is more than one statement".to_owned()),
    }
}

/// A tree as text, after which it is of no other use.
pub fn printed<T: VisitMut + Display>(tree: &mut T) -> String {
    double_quotes(tree);
    tree.to_string()
}

/// Makes the texts of a tree ready to be printed. The parser's own printing takes a quote behind a backslash, and two
/// quotes in a row, for escaped ones: `'\'''` would come out as a text that does not end. Doubled beforehand, they come
/// out as they went in.
fn double_quotes<T: VisitMut>(tree: &mut T) {
    struct Quotes;
    impl VisitorMut for Quotes {
        type Break = ();
        fn pre_visit_value(&mut self, value: &mut ValueWithSpan) -> ControlFlow<()> {
            if let Value::SingleQuotedString(text) = &mut value.value {
                *text = text.replace('\'', "''");
            }
            ControlFlow::Continue(())
        }
    }
    // The visitor never breaks off.
    let _: ControlFlow<()> = VisitMut::visit(tree, &mut Quotes);
}

/// The select of a query that reads the table `logs` and nothing else, and the table as its FROM names it.
pub(super) fn select_of_logs(query: &SqlQuery) -> Option<(&Select, String)> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let [table] = select.from.as_slice() else { return None };
    let TableFactor::Table { name, alias, args: None, .. } = &table.relation else { return None };
    if !table.joins.is_empty() || !is_name(name, "logs") || narrow::shadows_logs(query) {
        return None;
    }
    let from = alias.as_ref().map_or_else(|| "logs".to_owned(), |alias| format!("logs {alias}"));
    Some((select, from))
}

/// Whether the answer's rows are lines of `logs`, one for one.
fn selects_lines(query: &SqlQuery) -> bool {
    let Some((select, _)) = select_of_logs(query) else { return false };
    let grouped = match &select.group_by {
        GroupByExpr::All(_) => true,
        GroupByExpr::Expressions(list, _) => !list.is_empty(),
    };
    if grouped || select.distinct.is_some() || select.having.is_some() || query.fetch.is_some() {
        return false;
    }
    let wildcard = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    let names: Vec<_> = select.projection.iter().filter_map(item_name).collect();
    let has = |name: &str| names.iter().any(|known| known == name);
    // A bare `timestamp` beside an aggregate would need a GROUP BY, so these are lines.
    select.projection.iter().any(wildcard)
        || (has("timestamp") && has("message") && !select.projection.iter().any(is_call))
}

fn is_call(item: &SelectItem) -> bool {
    // `max(timestamp) AS timestamp` is an aggregate under a line's name.
    matches!(item, SelectItem::ExprWithAlias { expr: Expr::Function(_), alias } if ["timestamp", "message"].contains(&alias.value.as_str()))
}

/// Adds the id, an order and a limit where they are missing, and the place to go on from. Returns the limit.
fn complete(parsed: &mut SqlQuery, query: &Query, context: &Context) -> Result<u64, Error> {
    let direction = query.cursor.as_ref().map_or(query.builder.direction, |cursor| cursor.direction);
    if let SetExpr::Select(select) = parsed.body.as_mut() {
        if !select.projection.iter().filter_map(item_name).any(|name| name == "_seq") {
            select.projection.push(SelectItem::UnnamedExpr(column("_seq")));
        }
        if let Some(cursor) = &query.cursor {
            let beyond = parse_condition(&cursor_condition(cursor)?)?;
            select.selection = Some(match select.selection.take() {
                None => beyond,
                Some(own) => and(Expr::Nested(Box::new(own)), beyond),
            });
        }
    }
    let ordered = parsed.order_by.as_ref().map(|_| orders_by_time(parsed));
    match (ordered, &query.cursor) {
        // Paging has an order of its own; without one, so has everything that shows lines.
        (None, _) | (Some(_), Some(_)) => parsed.order_by = Some(lines_order(direction)),
        (Some(Some(descending)), None) => {
            parsed.order_by = Some(lines_order(if descending { Direction::Backward } else { Direction::Forward }));
        }
        (Some(None), None) => {}
    }
    Ok(complete_limit(parsed, context))
}

fn complete_limit(parsed: &mut SqlQuery, context: &Context) -> u64 {
    let number = |expr: &Expr| match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(text, _) => text.parse::<u64>().ok(),
            _ => None,
        },
        _ => None,
    };
    match &mut parsed.limit_clause {
        Some(LimitClause::LimitOffset { limit: Some(limit), .. } | LimitClause::OffsetCommaLimit { limit, .. }) => {
            number(limit).unwrap_or(LIMIT_MAX).min(LIMIT_MAX)
        }
        Some(LimitClause::LimitOffset { limit, .. }) => {
            *limit = Some(number_literal(context.limit_default));
            context.limit_default
        }
        none => {
            let limit = Some(number_literal(context.limit_default));
            *none = Some(LimitClause::LimitOffset { limit, offset: None, limit_by: Vec::new() });
            context.limit_default
        }
    }
}

fn number_literal(number: u64) -> Expr {
    Expr::Value(Value::Number(number.to_string(), false).into())
}

fn column(name: &str) -> Expr {
    Expr::Identifier(Ident::new(name))
}

/// Both conditions.
pub fn and(left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::And, right: Box::new(right) }
}

/// Reads a condition that was made here.
pub fn parse_condition(text: &str) -> Result<Expr, Error> {
    let parse = || Parser::new(&GenericDialect {}).try_with_sql(text)?.parse_expr();
    parse().map_err(|error| Error::Parse(error.to_string()))
}

/// `Some(descending)` when the order is by the timestamp alone.
fn orders_by_time(query: &SqlQuery) -> Option<bool> {
    let OrderByKind::Expressions(list) = &query.order_by.as_ref()?.kind else { return None };
    let [one] = list.as_slice() else { return None };
    (expr_name(&one.expr)? == "timestamp").then_some(one.options.asc == Some(false))
}

fn has_limit(query: &SqlQuery) -> bool {
    match &query.limit_clause {
        None => false,
        Some(LimitClause::LimitOffset { limit, offset, .. }) => limit.is_some() || offset.is_some(),
        Some(LimitClause::OffsetCommaLimit { .. }) => true,
    }
}

fn lines_order(direction: Direction) -> OrderBy {
    let options = OrderByOptions { asc: Some(direction == Direction::Forward), nulls_first: None };
    let by = |name: &str| OrderByExpr { expr: column(name), options, with_fill: None };
    OrderBy { kind: OrderByKind::Expressions(vec![by("timestamp"), by("_seq")]), interpolate: None }
}

/// Whether an object's name ends in this word, in any case.
pub fn is_name(name: &ObjectName, wanted: &str) -> bool {
    name.0.last().and_then(|part| part.as_ident()).is_some_and(|ident| ident.value.eq_ignore_ascii_case(wanted))
}

pub(super) fn expr_name(expr: &Expr) -> Option<String> {
    let ident = match expr {
        Expr::Identifier(ident) => ident,
        Expr::CompoundIdentifier(parts) => parts.last()?,
        _ => return None,
    };
    Some(ident_name(ident))
}

fn ident_name(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

pub(super) fn item_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::UnnamedExpr(expr) => expr_name(expr),
        SelectItem::ExprWithAlias { alias, .. } => Some(ident_name(alias)),
        _ => None,
    }
}

/// Names of the columns that come out, as far as they can be known without the tables: `None` where a `*` stands.
fn output_columns(body: &SetExpr) -> Option<Vec<String>> {
    match body {
        SetExpr::Select(select) => {
            let wildcard =
                |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
            if select.projection.iter().any(wildcard) {
                return None;
            }
            Some(select.projection.iter().filter_map(item_name).collect())
        }
        SetExpr::Query(query) => output_columns(&query.body),
        SetExpr::SetOperation { left, .. } => output_columns(left),
        _ => Some(Vec::new()),
    }
}

/// What is looked for in the message, as regular expressions: that is what Grafana highlights.
fn search_words(query: &SqlQuery) -> Vec<String> {
    let mut found = Words(Vec::new());
    // The visitor never breaks off.
    let _: ControlFlow<()> = query.visit(&mut found);
    found.0
}

struct Words(Vec<String>);

impl Visitor for Words {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let word = match expr {
            Expr::Like { negated: false, expr, pattern, .. } | Expr::ILike { negated: false, expr, pattern, .. }
                if expr_name(expr).as_deref() == Some("message") =>
            {
                text_of(pattern).map(|text| regex_syntax::escape(text.trim_matches('%')))
            }
            Expr::Function(function) => call_word(function),
            _ => None,
        };
        self.0.extend(word.filter(|word| !word.is_empty()));
        ControlFlow::Continue(())
    }
}

fn call_word(function: &Function) -> Option<String> {
    let (subject, text) = argument_pair(function)?;
    let text = text_of(text)?;
    if expr_name(subject)? != "message" {
        return None;
    }
    if is_name(&function.name, "contains") || is_name(&function.name, "strpos") {
        return Some(regex_syntax::escape(&text));
    }
    is_name(&function.name, "regexp_like").then_some(text)
}

/// The first two arguments of a call.
pub(super) fn argument_pair(function: &Function) -> Option<(&Expr, &Expr)> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let mut arguments = list.args.iter().filter_map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    });
    Some((arguments.next()?, arguments.next()?))
}

pub(super) fn text_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::normalize_filter;

    #[test]
    fn words_to_highlight_come_from_conditions_on_the_message() {
        for (condition, expect) in [
            ("contains(message, 'a.b')", vec!["a\\.b"]),
            ("message LIKE '%declined%'", vec!["declined"]),
            ("regexp_like(message, '^x+') AND level = 'error'", vec!["^x+"]),
            ("NOT (message NOT LIKE '%a%') AND contains(path, 'b')", vec![]),
        ] {
            let parsed = parse(&format!("SELECT * FROM logs WHERE {condition}")).expect("fine");
            assert_eq!(search_words(&parsed), expect, "{condition}");
        }
    }

    #[test]
    fn texts_come_out_as_they_went_in() {
        for text in [r"'\'''", "''''''", "'it''s'", r"'\\'", "'a'''''"] {
            let sql = format!("SELECT * FROM logs WHERE message = {text}");
            assert_eq!(printed(&mut parse(&sql).expect("fine")), sql);
        }
    }

    #[test]
    fn only_plain_selects_of_logs_are_lines() {
        for (sql, expect) in [
            ("SELECT * FROM logs", true),
            ("SELECT l.* FROM logs AS l WHERE l.level = 'error'", true),
            ("SELECT timestamp, message, path FROM logs", true),
            ("SELECT timestamp, upper(message) AS message FROM logs", false),
            ("SELECT timestamp, path FROM logs", false),
            ("SELECT max(timestamp) AS timestamp, max(message) AS message FROM logs", false),
            ("SELECT DISTINCT timestamp, message FROM logs", false),
            ("SELECT count(*) FROM logs", false),
            ("SELECT * FROM (SELECT * FROM logs) AS x", false),
            ("SELECT * FROM logs a JOIN logs b ON a.trace_id = b.trace_id", false),
            ("WITH logs AS (SELECT 1) SELECT * FROM logs", false),
            ("SELECT * FROM logs UNION ALL SELECT * FROM logs", false),
            ("SELECT * FROM other", false),
        ] {
            assert_eq!(selects_lines(&parse(sql).expect("fine")), expect, "{sql}");
        }
    }

    /// A list of ids pasted as conditions is thousands of levels deep in the syntax tree.
    #[test]
    fn deep_conditions_do_not_overflow_the_stack() {
        let condition = vec!["user_id = 'x'"; 10_000].join(" OR ");
        let model = serde_json::json!({"editor": "sql", "sql": format!("SELECT * FROM logs WHERE {condition}")});
        let range = super::super::Range { from_ns: 0, to_ns: 1 };
        let context = Context { range, interval_ms: 1000, limit_default: 10, points_max: 100 };
        let mut query = Query::normalize(&model);
        for filters in [vec![], vec![normalize_filter(&serde_json::json!({"field": "a", "value": "b"}))]] {
            query.filters = filters;
            let statement = statement(&query, &context).expect("fine");
            assert!(statement.sql.ends_with("ORDER BY timestamp DESC, _seq DESC LIMIT 10"));
            assert!(lines(&query, &context, "a test").is_ok());
        }
    }
}
