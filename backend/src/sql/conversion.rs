//! From SQL text back to the builder, where the builder has parts for all of it; else the first thing it has none for.
//! By the syntax tree. Invariant: a builder that comes out asks the store for exactly what the text asks for.

use sqlparser::ast::{
    BinaryOperator, CastKind, DuplicateTreatment, Expr, Function as Call, FunctionArg, FunctionArgExpr,
    FunctionArguments, GroupByExpr, LimitClause, OrderByKind, Query as SqlQuery, Select, SelectItem, UnaryOperator,
    Value,
};

use super::editable::{INTERVAL_SECONDS, RANGE_SECONDS};
use super::written::{argument_pair, expr_name, is_name, item_name, parse, select_of_logs, text_of};
use super::{Context, Error, Range, literal, macros};
use crate::model::{Aggregate, Builder, Direction, Filter, Format, Function, Op, Query, Search, SearchOp};

/// What the builder has no part for, in words.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Unsayable(String);

/// What a text says in the builder's parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// The parts.
    pub builder: Builder,
    /// The format that the parts need, where it is not the one they had.
    pub format: Option<Format>,
}

/// Macros are replaced by what nobody writes, so that only they are taken for the panel's range and interval.
const CONTEXT: Context = Context {
    range: Range { from_ns: 86_399_123_456_789, to_ns: 172_799_987_654_321 },
    interval_ms: 86_399_917,
    limit_default: 1,
    points_max: 1,
};

/// Reads a query's text, with the filters beside it. **Errors**: the first part that the builder can't show.
pub fn of_query(query: &Query) -> Result<Said, Unsayable> {
    let mut said = to_builder(&query.sql, query.format)?;
    query.filters.iter().cloned().for_each(|filter| add(filter, &mut said.builder));
    Ok(said)
}

/// Reads a text. **Errors**: the first part that the builder can't show.
pub fn to_builder(sql: &str, format: Format) -> Result<Said, Unsayable> {
    let text = sql.trim().trim_end_matches(';');
    let expanded = macros::expand(text, &CONTEXT).map_err(|error: Error| Unsayable(error.to_string()))?;
    let query = parse(&expanded).map_err(|error| no(format!("the SQL cannot be read yet: {error}")))?;
    let Some((select, from)) = select_of_logs(&query) else {
        return Err(no("the builder reads the table 'logs' alone, without joins, subqueries and unions"));
    };
    refuse_clauses(&query, select, &from)?;
    let mut builder = conditions(select)?;
    match grouping(select)? {
        None => {
            lines(&query, select, &mut builder)?;
            let is_lines = matches!(format, Format::Auto | Format::Logs);
            if !is_lines {
                return Err(no("the builder shows lines as logs only; set the format to Auto or Logs"));
            }
            Ok(Said { builder, format: None })
        }
        Some(numbers) => {
            if query.limit_clause.is_some() {
                return Err(no("the builder has no limit for numbers"));
            }
            refuse_order(&query, numbers.timed, numbers.groups.len())?;
            let wants = if numbers.timed { Format::Auto } else { Format::Number };
            let fits = if numbers.timed { format != Format::Number } else { format == Format::Number };
            builder.aggregate = Some(numbers.aggregate);
            builder.group_by = numbers.groups;
            builder.step = numbers.step;
            Ok(Said { builder, format: (!fits).then_some(wants) })
        }
    }
}

fn no(why: impl Into<String>) -> Unsayable {
    Unsayable(why.into())
}

fn refuse_clauses(query: &SqlQuery, select: &Select, from: &str) -> Result<(), Unsayable> {
    for (is_there, what) in [
        (query.with.is_some(), "WITH"),
        (select.distinct.is_some(), "DISTINCT"),
        (select.having.is_some(), "HAVING"),
        (select.qualify.is_some(), "QUALIFY"),
        (!select.named_window.is_empty(), "WINDOW"),
        (query.fetch.is_some(), "FETCH"),
        (from != "logs", "another name for 'logs'"),
    ] {
        if is_there {
            return Err(no(format!("the builder has no part for {what}")));
        }
    }
    Ok(())
}

fn conditions(select: &Select) -> Result<Builder, Unsayable> {
    let mut builder = Query::normalize(&serde_json::Value::Null).builder;
    let mut all = Vec::new();
    select.selection.iter().for_each(|condition| flatten(condition, &mut all));
    let (mut from, mut to) = (false, false);
    for condition in all {
        match bound(condition) {
            Some(Bound::From) => from = true,
            Some(Bound::To) => to = true,
            Some(Bound::Other) => {
                return Err(no(format!(
                    "the builder keeps to the time range on the screen, and has no part for '{condition}'"
                )));
            }
            None => put(condition, &mut builder)?,
        }
    }
    if !(from && to) {
        return Err(no("the builder always keeps to the time range on the screen; add WHERE $__timeFilter(timestamp)"));
    }
    Ok(builder)
}

/// The conditions that all must hold.
fn flatten<'a>(condition: &'a Expr, all: &mut Vec<&'a Expr>) {
    match condition {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            flatten(left, all);
            flatten(right, all);
        }
        Expr::Nested(inner) if matches!(inner.as_ref(), Expr::BinaryOp { op: BinaryOperator::And, .. }) => {
            flatten(inner, all);
        }
        other => all.push(other),
    }
}

enum Bound {
    From,
    To,
    Other,
}

fn bound(condition: &Expr) -> Option<Bound> {
    match condition {
        Expr::BinaryOp { left, op, right } if expr_name(left).as_deref() == Some("timestamp") => {
            let is = |ns| right.to_string() == literal::timestamp(ns);
            Some(match op {
                BinaryOperator::GtEq if is(CONTEXT.range.from_ns) => Bound::From,
                BinaryOperator::Lt if is(CONTEXT.range.to_ns) => Bound::To,
                _ => Bound::Other,
            })
        }
        Expr::Between { expr, .. } if expr_name(expr).as_deref() == Some("timestamp") => Some(Bound::Other),
        _ => None,
    }
}

/// Puts a condition into the builder.
fn put(condition: &Expr, builder: &mut Builder) -> Result<(), Unsayable> {
    let unsayable = || no(format!("the builder has no part for the condition '{condition}'"));
    let (filter, or_absent) = match condition {
        Expr::Nested(inner) => match inner.as_ref() {
            Expr::BinaryOp { left, op: BinaryOperator::Or, right } => {
                let filter = filter(left).filter(|filter| is_negative(&filter.op)).ok_or_else(unsayable)?;
                let absent =
                    matches!(right.as_ref(), Expr::IsNull(expr) if field(expr).as_ref() == Some(&filter.field));
                if !absent {
                    return Err(unsayable());
                }
                (filter, true)
            }
            other => return put(other, builder),
        },
        other => (filter(other).ok_or_else(unsayable)?, false),
    };
    // In SQL nothing is unequal to what a line does not have; in the builder it is.
    if is_negative(&filter.op) && !or_absent {
        let exists = Filter { field: filter.field.clone(), op: Op::Exists, value: String::new(), values: Vec::new() };
        builder.filters.push(exists);
    }
    add(filter, builder);
    Ok(())
}

/// Puts a filter where the builder shows it: text in the message has rows of its own.
fn add(filter: Filter, builder: &mut Builder) {
    match search_op(&filter) {
        Some(op) => builder.search.push(Search { op, text: filter.value }),
        None => builder.filters.push(filter),
    }
}

fn is_negative(op: &Op) -> bool {
    matches!(op, Op::Ne | Op::NotContains | Op::NotMatches | Op::NotIn)
}

fn search_op(filter: &Filter) -> Option<SearchOp> {
    let is_text = filter.field == "message" && !filter.value.is_empty();
    is_text.then_some(())?;
    Some(match filter.op {
        Op::Contains => SearchOp::Contains,
        Op::NotContains => SearchOp::NotContains,
        Op::Matches => SearchOp::Matches,
        Op::NotMatches => SearchOp::NotMatches,
        _ => return None,
    })
}

/// One condition on one field, with SQL's meaning for lines that do not have it.
pub fn filter(condition: &Expr) -> Option<Filter> {
    let one = |expr: &Expr, op, value: String| Some(Filter { field: field(expr)?, op, value, values: Vec::new() });
    match condition {
        Expr::Nested(inner) => filter(inner),
        Expr::BinaryOp { left, op, right } => {
            let op = match op {
                BinaryOperator::Eq => Op::Eq,
                BinaryOperator::NotEq => Op::Ne,
                BinaryOperator::Lt => Op::Lt,
                BinaryOperator::LtEq => Op::Le,
                BinaryOperator::Gt => Op::Gt,
                BinaryOperator::GtEq => Op::Ge,
                BinaryOperator::PGRegexMatch => Op::Matches,
                BinaryOperator::PGRegexNotMatch => Op::NotMatches,
                _ => return None,
            };
            let is_order = matches!(op, Op::Lt | Op::Le | Op::Gt | Op::Ge);
            let value = value(right)?;
            // The builder orders levels by their weight, SQL by their letters; and digits in quotes as numbers.
            let differs = field(left)? == "level" || literal::number_or_text(&value) != right.to_string();
            (!is_order || !differs).then(|| one(left, op, value))?
        }
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => {
            let filter = filter(expr)?;
            let op = match filter.op {
                Op::Contains => Op::NotContains,
                Op::Matches => Op::NotMatches,
                Op::Eq => Op::Ne,
                Op::In => Op::NotIn,
                _ => return None,
            };
            Some(Filter { op, ..filter })
        }
        Expr::IsNull(expr) => one(expr, Op::NotExists, String::new()),
        Expr::IsNotNull(expr) => one(expr, Op::Exists, String::new()),
        Expr::InList { expr, list, negated } => {
            let values = list.iter().map(value).collect::<Option<Vec<_>>>()?;
            let op = if *negated { Op::NotIn } else { Op::In };
            Some(Filter { field: field(expr)?, op, value: String::new(), values })
        }
        Expr::Like { negated, any: false, expr, pattern, escape_char: None } => {
            let text = text_of(pattern)?.strip_prefix('%')?.strip_suffix('%')?.to_owned();
            let op = if *negated { Op::NotContains } else { Op::Contains };
            let is_plain = !text.is_empty() && !text.contains(['%', '_', '\\']);
            is_plain.then(|| one(expr, op, text))?
        }
        Expr::Function(call) => {
            let (subject, text) = plain_call(call).and_then(argument_pair)?;
            let op = match () {
                () if is_name(&call.name, "contains") => Op::Contains,
                () if is_name(&call.name, "regexp_like") => Op::Matches,
                () => return None,
            };
            let FunctionArguments::List(list) = &call.args else { return None };
            (list.args.len() == 2).then(|| one(subject, op, text_of(text)?))?
        }
        _ => None,
    }
}

/// The name of a field, also where it is turned into text: only its text has parts.
fn field(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Nested(inner) => field(inner),
        Expr::Cast { kind: CastKind::Cast, expr, data_type, .. } if data_type.to_string() == "VARCHAR" => field(expr),
        // Without quotes, `http.status` is one name to the store.
        Expr::CompoundIdentifier(parts) => {
            let parts: Vec<_> = parts.iter().map(|part| part.value.as_str()).collect();
            Some(parts.join(".")).map(|name| name.strip_prefix("logs.").map_or(name.clone(), str::to_owned))
        }
        other => expr_name(other),
    }
}

fn value(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text.clone()),
            Value::Number(text, _) => Some(text.clone()),
            Value::Boolean(truth) => Some(truth.to_string()),
            // A template variable.
            Value::Placeholder(name) => Some(name.clone()),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match value(expr)? {
            digits if literal::number_or_text(&digits) == digits => Some(format!("-{digits}")),
            _ => None,
        },
        _ => None,
    }
}

fn plain_call(call: &Call) -> Option<&Call> {
    (call.over.is_none() && call.filter.is_none() && call.within_group.is_empty()).then_some(call)
}

fn lines(query: &SqlQuery, select: &Select, builder: &mut Builder) -> Result<(), Unsayable> {
    for item in &select.projection {
        let is_seq = item_name(item).as_deref() == Some("_seq");
        if !is_seq && !matches!(item, SelectItem::Wildcard(_)) {
            return Err(no(format!("the builder shows whole lines, and the query selects '{item}'")));
        }
    }
    if let Some(order) = &query.order_by {
        let descending = |at: usize, name: &str| match &order.kind {
            OrderByKind::Expressions(list) => list.get(at).and_then(|by| {
                let plain = expr_name(&by.expr).as_deref() == Some(name) && by.options.nulls_first.is_none();
                plain.then_some(by.options.asc == Some(false))
            }),
            OrderByKind::All(_) => None,
        };
        let length = if let OrderByKind::Expressions(list) = &order.kind { list.len() } else { 0 };
        let first =
            descending(0, "timestamp").filter(|_| length == 1 || descending(1, "_seq").is_some() && length == 2);
        let agrees = length < 2 || descending(0, "timestamp") == descending(1, "_seq");
        let down = first.filter(|_| agrees).ok_or_else(|| no("the builder orders lines by time only"))?;
        builder.direction = if down { Direction::Backward } else { Direction::Forward };
    }
    builder.limit = match &query.limit_clause {
        None => 0,
        Some(LimitClause::LimitOffset { limit: Some(Expr::Value(number)), offset: None, limit_by })
            if limit_by.is_empty() =>
        {
            let number = number.value.to_string().parse().ok().filter(|number| *number > 0);
            number.ok_or_else(|| no("the limit is not a number"))?
        }
        Some(_) => return Err(no("the builder has no part for OFFSET")),
    };
    Ok(())
}

/// A query for numbers.
struct Numbers {
    timed: bool,
    step: String,
    groups: Vec<String>,
    aggregate: Aggregate,
}

/// `None`: lines are asked for.
fn grouping(select: &Select) -> Result<Option<Numbers>, Unsayable> {
    let by = match &select.group_by {
        GroupByExpr::Expressions(list, modifiers) if modifiers.is_empty() => list,
        _ => return Err(no("the builder has no part for GROUP BY ALL and its like")),
    };
    let items: Vec<&Expr> = select.projection.iter().filter_map(item_expr).collect();
    let last = items.last().copied();
    if items.len() != select.projection.len() || (by.is_empty() && last.is_none_or(|expr| field(expr).is_some())) {
        return if by.is_empty() { Ok(None) } else { Err(no("the builder groups by fields only")) };
    }
    let last = last.ok_or_else(|| no("the query selects nothing"))?;
    let step = items.first().and_then(|first| bucket(first));
    let groups = &items[usize::from(step.is_some())..items.len() - 1];
    let names = groups.iter().map(|group| field(group)).collect::<Option<Vec<_>>>();
    let names = names.ok_or_else(|| no("the builder groups by time and by fields, and shows one number"))?;
    let grouped = items.len() - 1;
    let by_them = by.len() == grouped
        && by.iter().enumerate().all(|(at, expr)| {
            let same = expr.to_string() == items[at].to_string();
            let named = item_name(&select.projection[at]).is_some_and(|name| expr_name(expr) == Some(name));
            expr.to_string() == (at + 1).to_string() || same || named
        });
    if !by_them {
        return Err(no("the builder groups by each column before the number, and by nothing else"));
    }
    let timed = step.is_some();
    let step = step.unwrap_or_default();
    let aggregate =
        aggregate(last, timed, &step).ok_or_else(|| no(format!("the builder has no part for the number '{last}'")))?;
    Ok(Some(Numbers { timed, step, groups: names, aggregate }))
}

fn item_expr(item: &SelectItem) -> Option<&Expr> {
    match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    }
}

/// The width of a time bucket; empty: the panel's interval.
fn bucket(expr: &Expr) -> Option<String> {
    let Expr::Function(call) = expr else { return None };
    let (width, column) = plain_call(call).filter(|call| is_name(&call.name, "date_bin")).and_then(argument_pair)?;
    if expr_name(column)? != "timestamp" {
        return None;
    }
    let Expr::Interval(interval) = width else { return None };
    let ms = literal::duration_ms(&text_of(&interval.value)?)?;
    Some(if ms == CONTEXT.interval_ms { String::new() } else { step_text(ms) })
}

fn step_text(ms: u64) -> String {
    for (unit, length) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        if ms.is_multiple_of(length) {
            return format!("{}{unit}", ms / length);
        }
    }
    format!("{ms}ms")
}

fn aggregate(expr: &Expr, timed: bool, step: &str) -> Option<Aggregate> {
    if let Expr::BinaryOp { left, op: BinaryOperator::Divide, right } = expr {
        let counted = aggregate(left, timed, step).filter(|counted| counted.function == Function::Count)?;
        let macros = if timed { INTERVAL_SECONDS } else { RANGE_SECONDS };
        let seconds = match literal::duration_ms(step) {
            Some(ms) => format!("{:?}", ms as f64 / 1000.0),
            None => macros::expand(macros, &CONTEXT).ok()?,
        };
        return (right.to_string() == seconds).then_some(Aggregate { function: Function::Rate, ..counted });
    }
    let Expr::Function(call) = expr else { return None };
    let FunctionArguments::List(list) = &plain_call(call)?.args else { return None };
    let function = |function, field: String| Aggregate { function, field, quantile: 0.95 };
    let distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
    let [first, rest @ ..] = list.args.as_slice() else { return None };
    let FunctionArg::Unnamed(first) = first else { return None };
    let named = |name: &str| is_name(&call.name, name);
    let column = match first {
        FunctionArgExpr::Wildcard if named("count") && !distinct => {
            return Some(function(Function::Count, String::new()));
        }
        FunctionArgExpr::Expr(expr) => field(expr)?,
        _ => return None,
    };
    if named("approx_percentile_cont") {
        let quantile = argument_pair(call).and_then(|(_, rank)| value(rank))?.parse().ok()?;
        return (!distinct && rest.len() == 1).then_some(Aggregate {
            function: Function::Quantile,
            field: column,
            quantile,
        });
    }
    let known = match () {
        () if !rest.is_empty() => return None,
        () if named("count") && distinct => Function::CountDistinct,
        () if distinct => return None,
        () if named("count") => Function::Count,
        () if named("sum") => Function::Sum,
        () if named("avg") => Function::Avg,
        () if named("min") => Function::Min,
        () if named("max") => Function::Max,
        () => return None,
    };
    Some(function(known, column))
}

/// Series come in the order of time, numbers with the greatest first; the builder knows no other.
fn refuse_order(query: &SqlQuery, timed: bool, groups: usize) -> Result<(), Unsayable> {
    let Some(order) = &query.order_by else { return Ok(()) };
    let by = order.to_string();
    let by = by.trim_start_matches("ORDER BY ").to_owned();
    let fits = if timed {
        ["1", "1 ASC", "time", "time ASC"].contains(&by.as_str())
    } else {
        by == format!("{} DESC", groups + 1) || by == "value DESC"
    };
    if fits { Ok(()) } else { Err(no(format!("the builder has its own order, and none for 'ORDER BY {by}'"))) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Value as Json;

    use super::super::editable::editable;
    use super::*;
    use crate::model::Editor;

    fn context() -> Context {
        Context {
            range: Range { from_ns: 0, to_ns: 3_600_000_000_000 },
            interval_ms: 60_000,
            limit_default: 1000,
            points_max: 1000,
        }
    }

    /// The builder's own SQL, for every builder of testdata/query: as text with macros it means the same statement, and
    /// read back it is the same builder (or one that makes the same statement).
    #[test]
    fn what_the_builder_writes_can_be_read_back() {
        let cases = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/query"));
        let mut count = 0;
        for entry in std::fs::read_dir(cases).expect("cases are there") {
            let case = entry.expect("readable").path();
            let input: Json =
                serde_json::from_str(&std::fs::read_to_string(case.join("query.json")).expect("readable"))
                    .expect("JSON");
            let mut query = Query::normalize(&input["model"]);
            (query.cursor, query.purpose) = (None, None);
            let Ok(text) = editable(&query, &context()) else { continue };
            if query.editor == Editor::Sql {
                continue;
            }
            let is_rate = query.builder.aggregate.as_ref().is_some_and(|known| known.function == Function::Rate);
            if !is_rate {
                let runs = super::super::statement(&query, &context()).expect("fine").sql;
                let typed = Query { editor: Editor::Sql, sql: text.clone(), ..query.clone() };
                let completed = super::super::statement(&typed, &context()).expect("fine").sql;
                assert_eq!(as_read(&completed), as_read(&with_brackets(&runs)), "{}", case.display());
            }
            let said =
                to_builder(&text, query.format).unwrap_or_else(|error| panic!("{}: {error}\n{text}", case.display()));
            let again = Query { builder: said.builder, format: said.format.unwrap_or(query.format), ..query };
            let read_back = editable(&again, &context()).expect("fine");
            assert_eq!(read_back, text, "{}", case.display());
            count += 1;
        }
        assert!(count >= 10, "only {count} cases");
    }

    /// Without what a text's layout adds.
    fn as_read(sql: &str) -> String {
        parse(sql).expect("SQL").to_string()
    }

    /// The macro puts its condition in brackets.
    fn with_brackets(sql: &str) -> String {
        let range = context().range.condition("timestamp");
        sql.replacen(&range, &format!("({range})"), 1)
    }

    #[test]
    fn filters_beside_the_text_come_along() {
        let sql = "SELECT * FROM logs WHERE $__timeFilter() AND level = 'error'";
        let beside = serde_json::json!([{"field": "service", "op": "!=", "value": "bff"},
                                        {"field": "message", "op": "contains", "value": "declined"}]);
        let query = Query::normalize(&serde_json::json!({"editor": "sql", "sql": sql, "filters": beside}));
        let builder = of_query(&query).expect("fine").builder;
        let fields: Vec<_> = builder.filters.iter().map(|filter| (filter.field.as_str(), &filter.op)).collect();
        assert_eq!(fields, [("level", &Op::Eq), ("service", &Op::Ne)]);
        assert_eq!(builder.search, [Search { op: SearchOp::Contains, text: "declined".into() }]);
    }

    #[test]
    fn people_write_it_in_other_ways() {
        let check = |sql: &str, expect: &str| {
            let model = serde_json::to_value(to_builder(sql, Format::Auto).expect(sql).builder).expect("JSON");
            let wanted: Json = serde_json::from_str(expect).expect("JSON");
            for (name, value) in wanted.as_object().expect("an object") {
                assert_eq!(&model[name], value, "{sql}");
            }
        };
        check(
            "select * from logs where $__timeFilter() and service <> 'bff' and message like '%declined%' limit 20",
            r#"{"filters":[{"field":"service","op":"exists","value":"","values":[]},
                {"field":"service","op":"!=","value":"bff","values":[]}],
                "search":[{"op":"contains","text":"declined"}],"limit":20,"direction":"backward"}"#,
        );
        check(
            "SELECT $__timeGroup(timestamp, 5m) AS t, level, count(*) FROM logs \
             WHERE timestamp >= $__from AND timestamp < $__to AND http.status >= 500 GROUP BY t, level ORDER BY 1",
            r#"{"filters":[{"field":"http.status","op":">=","value":"500","values":[]}],"groupBy":["level"],"step":"5m",
                "aggregate":{"function":"count","field":"","quantile":0.95}}"#,
        );
        let number = to_builder(
            "SELECT service, avg(ms) FROM logs WHERE $__timeFilter(timestamp) GROUP BY 1 ORDER BY 2 DESC",
            Format::Auto,
        );
        assert_eq!(number.expect("fine").format, Some(Format::Number));
    }

    #[test]
    fn what_the_builder_cannot_say_is_named() {
        for (sql, expect) in [
            ("SELECT * FROM logs", "add WHERE $__timeFilter(timestamp)"),
            ("SELECT * FROM logs WHERE timestamp > now()", "no part for 'timestamp > now()'"),
            (
                "SELECT * FROM logs WHERE $__timeFilter() AND (a = 1 OR b = 2)",
                "no part for the condition '(a = 1 OR b = 2)'",
            ),
            ("SELECT a, b FROM logs WHERE $__timeFilter()", "selects 'a'"),
            (
                "SELECT * FROM logs WHERE $__timeFilter() AND level > 'info'",
                "no part for the condition 'level > 'info''",
            ),
            ("SELECT * FROM logs WHERE $__timeFilter() ORDER BY level", "orders lines by time only"),
            ("SELECT count(*), sum(x) FROM logs WHERE $__timeFilter()", "shows one number"),
            ("SELECT stddev(x) FROM logs WHERE $__timeFilter()", "no part for the number 'stddev(x)'"),
            ("SELECT level, count(*) FROM logs WHERE $__timeFilter() GROUP BY level LIMIT 3", "no limit for numbers"),
            ("SELECT * FROM a JOIN b ON true", "reads the table 'logs' alone"),
            ("SELECT * FORM logs", "cannot be read yet"),
            ("WITH x AS (SELECT 1) SELECT * FROM logs WHERE $__timeFilter()", "no part for WITH"),
        ] {
            let error = to_builder(sql, Format::Auto).expect_err(sql).to_string();
            assert!(error.contains(expect), "{sql}: {error}");
        }
    }
}
