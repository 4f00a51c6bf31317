//! What a query does, in plain words, one step a line; for builders and for SQL, by the syntax tree.
//! Not SQL, and never read again. Invariant: a part without words of its own is quoted as SQL, never left out.

use sqlparser::ast::{BinaryOperator, Expr, GroupByExpr, LimitClause, Query as SqlQuery, Select, SetExpr};

use super::{Context, conversion, macros, written};
use crate::model::{Aggregate, Builder, Direction, Editor, Filter, Format, Function, Op, Query, SearchOp};

/// The steps of a query, in the order they are done. SQL that can't be read has none.
pub fn explain(query: &Query, context: &Context) -> Vec<String> {
    match query.editor {
        Editor::Builder => of_builder(&query.builder, query.format, context),
        Editor::Sql => match conversion::of_query(query) {
            Ok(said) => of_builder(&said.builder, said.format.unwrap_or(query.format), context),
            Err(_) => of_sql(query, context),
        },
    }
}

fn of_builder(builder: &Builder, format: Format, context: &Context) -> Vec<String> {
    let mut steps = vec!["Takes the lines of the time range on the screen.".to_owned()];
    steps.extend(builder.filters.iter().filter_map(filter_words).map(|words| format!("Keeps those where {words}.")));
    for search in builder.search.iter().filter(|search| !search.text.is_empty()) {
        let op = match &search.op {
            SearchOp::Contains => Op::Contains,
            SearchOp::NotContains => Op::NotContains,
            SearchOp::Matches => Op::Matches,
            SearchOp::NotMatches => Op::NotMatches,
            SearchOp::Unknown(op) => Op::Unknown(op.clone()),
        };
        let (field, value) = ("message".to_owned(), search.text.clone());
        steps.extend(
            filter_words(&Filter { field, op, value, values: Vec::new() })
                .map(|words| format!("Keeps those where {words}.")),
        );
    }
    match &builder.aggregate {
        None => {
            let limit = context.limit(builder.limit);
            steps.push(match builder.direction {
                Direction::Backward => format!("Shows the newest {limit} of them, the newest first."),
                Direction::Forward => format!("Shows the oldest {limit} of them, the oldest first."),
            });
        }
        Some(aggregate) => {
            let what = aggregate_words(aggregate);
            let step = builder.step.trim();
            let when = match (format, step) {
                (Format::Number, _) => " over the whole range".to_owned(),
                (_, "" | "$__interval") => " in each time bucket of the panel".to_owned(),
                (_, step) => format!(" in each {step}"),
            };
            let groups: Vec<_> =
                builder.group_by.iter().map(|name| name.trim()).filter(|name| !name.is_empty()).collect();
            let by = if groups.is_empty() { String::new() } else { format!(", for each {}", groups.join(" and ")) };
            steps.push(format!("{what}{when}{by}."));
        }
    }
    steps
}

fn aggregate_words(aggregate: &Aggregate) -> String {
    let field = if aggregate.field.is_empty() { "…" } else { &aggregate.field };
    let having = if aggregate.field.is_empty() { String::new() } else { format!(" that have {field}") };
    match aggregate.function {
        Function::Count => format!("Counts the lines{having}"),
        Function::Rate => format!("Counts the lines{having} per second"),
        Function::Sum => format!("Adds up {field}"),
        Function::Avg => format!("Takes the average of {field}"),
        Function::Min => format!("Takes the least {field}"),
        Function::Max => format!("Takes the greatest {field}"),
        Function::CountDistinct => format!("Counts the different values of {field}"),
        Function::Quantile => {
            let percent = (aggregate.quantile * 1e5).round() / 1e3;
            format!("Takes the {field} that {percent} % of the lines stay below (p{percent})")
        }
    }
}

/// A condition in words; `None` for a row that is still being typed.
fn filter_words(filter: &Filter) -> Option<String> {
    let field = filter.field.trim();
    if field.is_empty() {
        return None;
    }
    let value = format!("'{}'", filter.value);
    let list = || filter.values.iter().map(|value| format!("'{value}'")).collect::<Vec<_>>().join(", ");
    Some(match &filter.op {
        Op::Eq => format!("{field} is {value}"),
        Op::Ne => format!("{field} is not {value}, or is absent"),
        Op::Contains => format!("{field} contains {value} (in this case)"),
        Op::NotContains => format!("{field} does not contain {value}, or is absent"),
        Op::Matches => format!("{field} matches the expression {value}"),
        Op::NotMatches => format!("{field} does not match the expression {value}, or is absent"),
        Op::Lt => format!("{field} is less than {value}"),
        Op::Le => format!("{field} is at most {value}"),
        Op::Gt => format!("{field} is greater than {value}"),
        Op::Ge => format!("{field} is at least {value}"),
        Op::Exists => format!("{field} is there"),
        Op::NotExists => format!("{field} is absent"),
        Op::In => format!("{field} is one of {}", list()),
        Op::NotIn => format!("{field} is none of {}, or is absent", list()),
        Op::Unknown(op) => format!("{field} {op} {value}, for which there is no operator"),
    })
}

fn of_sql(query: &Query, context: &Context) -> Vec<String> {
    let beside: Vec<_> = query.filters.iter().filter_map(filter_words).collect();
    let Ok(expanded) = macros::expand(query.sql.trim().trim_end_matches(';'), context) else { return Vec::new() };
    let Ok(query) = written::parse(&expanded) else { return Vec::new() };
    let mut steps: Vec<_> =
        beside.iter().map(|words| format!("Reads only lines where {words}, by the filter beside the SQL.")).collect();
    for table in query.with.iter().flat_map(|with| &with.cte_tables) {
        steps.push(format!("First makes a table '{}' of: {}.", table.alias.name, one_line(&table.query.to_string())));
    }
    match query.body.as_ref() {
        SetExpr::Select(select) => of_select(select, context, &mut steps),
        other => steps.push(format!("Makes the rows of: {}.", one_line(&other.to_string()))),
    }
    ending(&query, &mut steps);
    steps
}

fn of_select(select: &Select, context: &Context, steps: &mut Vec<String>) {
    let from: Vec<_> = select.from.iter().map(ToString::to_string).collect();
    match from.as_slice() {
        [] => {}
        [table] if table == "logs" => steps.push("Takes the lines of the store.".to_owned()),
        tables => steps.push(format!("Takes the rows of {}.", one_line(&tables.join(", ")))),
    }
    let mut conditions = Vec::new();
    select.selection.iter().for_each(|condition| flatten(condition, &mut conditions));
    let in_range = context.range.condition("timestamp");
    for condition in conditions {
        let text = condition.to_string();
        if text.trim_matches(['(', ')']) == in_range {
            steps.push("Keeps those in the time range on the screen.".to_owned());
            continue;
        }
        // In SQL, a negative condition leaves out lines without the field.
        let words = conversion::filter(condition).and_then(|filter| filter_words(&filter));
        let words = words.map(|words| words.trim_end_matches(", or is absent").to_owned());
        steps.push(format!("Keeps those where {}.", words.unwrap_or_else(|| one_line(&text))));
    }
    if let GroupByExpr::Expressions(list, _) = &select.group_by
        && !list.is_empty()
    {
        let by: Vec<_> = list.iter().map(|expr| column_words(expr, select)).collect();
        steps.push(format!("Puts rows with the same {} together.", by.join(" and ")));
    }
    steps.extend(select.having.iter().map(|having| format!("Keeps groups where {}.", one_line(&having.to_string()))));
    let columns: Vec<_> = select.projection.iter().map(|item| one_line(&item.to_string())).collect();
    let distinct = if select.distinct.is_some() { ", each row once" } else { "" };
    steps.push(match columns.as_slice() {
        [star] if star == "*" => format!("Shows all columns{distinct}."),
        columns => format!("Shows {}{distinct}.", columns.join(", ")),
    });
}

/// `GROUP BY 1` means the first column.
fn column_words(expr: &Expr, select: &Select) -> String {
    let ordinal = expr.to_string().parse::<usize>().ok().and_then(|ordinal| ordinal.checked_sub(1));
    match ordinal.and_then(|at| select.projection.get(at)) {
        Some(item) => one_line(&item.to_string()),
        None => one_line(&expr.to_string()),
    }
}

fn ending(query: &SqlQuery, steps: &mut Vec<String>) {
    if let Some(order) = &query.order_by {
        let order = order.to_string();
        steps.push(format!("Sorts by {}.", one_line(order.trim_start_matches("ORDER BY "))));
    }
    if let Some(LimitClause::LimitOffset { limit: Some(limit), .. }) = &query.limit_clause {
        steps.push(format!("Ends after {limit} rows."));
    }
}

/// The conditions that all must hold; those of a time filter stay together.
fn flatten<'a>(condition: &'a Expr, all: &mut Vec<&'a Expr>) {
    match condition {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            flatten(left, all);
            flatten(right, all);
        }
        other => all.push(other),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::Range;
    use super::*;

    fn check(model: &serde_json::Value, expect: &[&str]) {
        let range = Range { from_ns: 0, to_ns: 3_600_000_000_000 };
        let context = Context { range, interval_ms: 60_000, limit_default: 1000, points_max: 1000 };
        assert_eq!(explain(&Query::normalize(model), &context), expect, "{model}");
    }

    #[test]
    fn builders_and_sql_that_says_the_same_read_alike() {
        let steps = [
            "Takes the lines of the time range on the screen.",
            "Keeps those where service is 'bff'.",
            "Keeps those where message contains 'declined' (in this case).",
            "Shows the newest 1000 of them, the newest first.",
        ];
        check(
            &serde_json::json!({"builder": {"filters": [{"field": "service", "op": "=", "value": "bff"}, {"field": ""}],
                                "search": [{"op": "contains", "text": "declined"}]}}),
            &steps,
        );
        let sql = "SELECT * FROM logs WHERE $__timeFilter() AND service = 'bff' AND contains(message, 'declined')";
        check(&serde_json::json!({"editor": "sql", "sql": sql}), &steps);
        check(
            &serde_json::json!({"builder": {"aggregate": {"function": "quantile", "field": "ms", "quantile": 0.95},
                                "groupBy": ["service"], "step": "5m"}}),
            &[steps[0], "Takes the ms that 95 % of the lines stay below (p95) in each 5m, for each service."],
        );
    }

    #[test]
    fn other_sql_is_told_clause_by_clause() {
        let sql = "SELECT service, count(*) AS n FROM logs WHERE $__timeFilter() AND (a = 1 OR b = 2) AND level <> 'info' \
                   GROUP BY 1 HAVING count(*) > 5 ORDER BY n DESC LIMIT 10";
        check(
            &serde_json::json!({"editor": "sql", "sql": sql}),
            &[
                "Takes the lines of the store.",
                "Keeps those in the time range on the screen.",
                "Keeps those where (a = 1 OR b = 2).",
                "Keeps those where level is not 'info'.",
                "Puts rows with the same service together.",
                "Keeps groups where count(*) > 5.",
                "Shows service, count(*) AS n.",
                "Sorts by n DESC.",
                "Ends after 10 rows.",
            ],
        );
        check(&serde_json::json!({"editor": "sql", "sql": "SELECT"}), &[]);
        check(
            &serde_json::json!({"editor": "sql", "sql": "SELECT DISTINCT service FROM logs",
                                "filters": [{"field": "level", "op": "=", "value": "error"}]}),
            &[
                "Reads only lines where level is 'error', by the filter beside the SQL.",
                "Takes the lines of the store.",
                "Shows service, each row once.",
            ],
        );
    }
}
