//! The builder's parts as SQL: conditions, lines, series and single numbers. User-written SQL is in `written`.
//! Invariant: every statement made here filters on time, and every name and value is quoted by `literal`.

use super::{Context, Error, Lines, Shape, Statement, literal, volume};
use crate::model::{Aggregate, Builder, Filter, Format, Function, Op, Query, Search, SearchOp};

/// Buckets across the range at most where the query leaves their width open and counts lines: in narrower ones a few lines
/// are a comb of ones, and a share of them is all or nothing.
const COUNTED_BUCKETS_MAX: u64 = 200;
/// Points of one series at most, as Prometheus has it; a page can't draw more.
const POINTS_MAX: u64 = 11_000;
/// Columns that every store has, and that are text in every one.
const TEXT_COLUMNS: [&str; 5] = ["level", "service", "message", "trace_id", "span_id"];
/// Levels in their order, for `level >= warn`.
const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "fatal"];

/// The lines a builder selects.
pub fn lines(builder: &Builder, context: &Context) -> Result<Lines, Error> {
    let mut conditions = vec![context.range.condition("timestamp")];
    conditions.extend(filter_conditions(&builder.filters)?);
    for search in &builder.search {
        conditions.extend(search_condition(search)?);
    }
    Ok(Lines::of_logs(conditions))
}

/// The statement of a builder query: lines, or numbers made of them.
pub fn statement(query: &Query, context: &Context) -> Result<Statement, Error> {
    let builder = &query.builder;
    let lines = lines(builder, context)?;
    let search_words = search_words(builder);
    match &builder.aggregate {
        None => {
            let limit = context.limit(builder.limit);
            let direction = query.cursor.as_ref().map_or(builder.direction, |cursor| cursor.direction);
            let sql = lines.select(query.cursor.as_ref(), direction, limit)?;
            Ok(Statement {
                limit: Some(limit),
                pages: Some(direction),
                search_words,
                ..Statement::new(sql, Shape::Logs)
            })
        }
        Some(aggregate) if query.format == Format::Number => {
            let sql = number(&lines, aggregate, &builder.group_by, context)?;
            let groups = Some(group_columns(&builder.group_by).len());
            Ok(Statement::new(sql, Shape::Number { groups }))
        }
        Some(aggregate) => {
            let step_ms = step_ms(&builder.step, aggregate.function, context)?;
            let sql = series(&lines, aggregate, &builder.group_by, step_ms)?;
            // No line in a bucket is a count of nothing, and alert rules have to see the zero.
            let fill = matches!(aggregate.function, Function::Count | Function::Rate);
            let shape = match query.format {
                Format::Table => Shape::Table,
                _ => {
                    let groups = Some(group_columns(&builder.group_by).len());
                    Shape::Series { fill: fill.then(|| context.buckets(step_ms)), groups }
                }
            };
            Ok(Statement::new(sql, shape))
        }
    }
}

fn step_ms(step: &str, function: Function, context: &Context) -> Result<u64, Error> {
    let range_ms = context.range.length_ms();
    if step.trim().is_empty() || step.trim() == "$__interval" {
        return Ok(automatic_step_ms(function, context));
    }
    let ms = literal::duration_ms(step).ok_or_else(|| Error::Step(step.to_owned()))?;
    let points = range_ms / ms;
    if points > POINTS_MAX {
        return Err(Error::Points { step: step.to_owned(), points, points_max: POINTS_MAX });
    }
    Ok(ms)
}

/// The width of a bucket where the query leaves it open: the panel's interval, or more where that is too fine.
pub fn automatic_step_ms(function: Function, context: &Context) -> u64 {
    let counts = matches!(function, Function::Count | Function::Rate);
    let points_max = if counts { COUNTED_BUCKETS_MAX } else { POINTS_MAX };
    let least = context.range.length_ms().div_ceil(points_max).max(1);
    if context.interval_ms >= least { context.interval_ms } else { volume::round_step_ms(least) }
}

fn series(lines: &Lines, aggregate: &Aggregate, group_by: &[String], step_ms: u64) -> Result<String, Error> {
    let value = aggregate_expression(aggregate, step_ms as f64 / 1000.0)?;
    let groups = group_columns(group_by);
    let (time_name, value_name) = column_names(&groups);
    let mut columns = vec![format!("date_bin({}, timestamp) AS {time_name}", literal::interval(step_ms))];
    columns.extend(groups.iter().map(|name| literal::identifier(name)));
    let ordinals: Vec<_> = (1..=columns.len()).map(|ordinal| ordinal.to_string()).collect();
    columns.push(format!("{value} AS {value_name}"));
    Ok(format!("SELECT {}\n{}\nGROUP BY {}\nORDER BY 1", columns.join(", "), lines.clauses(&[]), ordinals.join(", ")))
}

fn number(lines: &Lines, aggregate: &Aggregate, group_by: &[String], context: &Context) -> Result<String, Error> {
    let value = aggregate_expression(aggregate, context.range.length_ms() as f64 / 1000.0)?;
    let groups = group_columns(group_by);
    let (_, value_name) = column_names(&groups);
    let mut columns: Vec<_> = groups.iter().map(|name| literal::identifier(name)).collect();
    columns.push(format!("{value} AS {value_name}"));
    let mut sql = format!("SELECT {}\n{}", columns.join(", "), lines.clauses(&[]));
    if !groups.is_empty() {
        let ordinals: Vec<_> = (1..=groups.len()).map(|ordinal| ordinal.to_string()).collect();
        sql += &format!("\nGROUP BY {}\nORDER BY {} DESC", ordinals.join(", "), groups.len() + 1);
    }
    Ok(sql)
}

fn group_columns(group_by: &[String]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for name in group_by.iter().map(|name| name.trim()).filter(|name| !name.is_empty()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Names of the time and value columns, out of the way of the fields one groups by.
fn column_names(groups: &[&str]) -> (&'static str, &'static str) {
    let time = if groups.contains(&"time") { "\"_time\"" } else { "time" };
    let value = if groups.contains(&"value") { "\"_value\"" } else { "value" };
    (time, value)
}

fn aggregate_expression(aggregate: &Aggregate, seconds: f64) -> Result<String, Error> {
    let field = aggregate.field.trim();
    let column = literal::identifier(field);
    let needs_field = !matches!(aggregate.function, Function::Count | Function::Rate);
    if needs_field && field.is_empty() {
        return Err(Error::NoField(aggregate.function));
    }
    Ok(match aggregate.function {
        Function::Count if field.is_empty() => "count(*)".to_owned(),
        Function::Count => format!("count({column})"),
        Function::Rate if field.is_empty() => format!("count(*) / {seconds:?}"),
        Function::Rate => format!("count({column}) / {seconds:?}"),
        Function::Sum => format!("sum({column})"),
        Function::Avg => format!("avg({column})"),
        Function::Min => format!("min({column})"),
        Function::Max => format!("max({column})"),
        Function::CountDistinct => format!("count(DISTINCT {column})"),
        Function::Quantile => {
            if !(0.0..=1.0).contains(&aggregate.quantile) {
                return Err(Error::Quantile(aggregate.quantile));
            }
            format!("approx_percentile_cont({column}, {:?})", aggregate.quantile)
        }
    })
}

/// The conditions of filters, without those that are still being typed. **Errors**: an unknown operator.
pub fn filter_conditions(filters: &[Filter]) -> Result<Vec<String>, Error> {
    filters.iter().filter_map(|filter| filter_condition(filter).transpose()).collect()
}

/// The condition of one filter; `None` for one that is still being typed. **Errors**: an unknown operator.
pub fn filter_condition(filter: &Filter) -> Result<Option<String>, Error> {
    let field = filter.field.trim();
    if field.is_empty() {
        return Ok(None);
    }
    let column = literal::identifier(field);
    let value = literal::text(&filter.value);
    // Only text has parts: of a number, the digits are meant. The store's own text columns are left as they are, for its
    // indexes are on them.
    let text = if TEXT_COLUMNS.contains(&field) { column.clone() } else { format!("CAST({column} AS VARCHAR)") };
    // A line that does not have the field is not equal to anything, and contains nothing.
    let or_absent = |condition: String| format!("({condition} OR {column} IS NULL)");
    let condition = match &filter.op {
        Op::Eq => format!("{column} = {value}"),
        Op::Ne => or_absent(format!("{column} <> {value}")),
        Op::Contains => format!("contains({text}, {value})"),
        Op::NotContains => or_absent(format!("NOT contains({text}, {value})")),
        Op::Matches => format!("regexp_like({text}, {value})"),
        Op::NotMatches => or_absent(format!("NOT regexp_like({text}, {value})")),
        Op::Lt | Op::Le | Op::Gt | Op::Ge => ordering(field, &column, &filter.op, &filter.value),
        Op::Exists => format!("{column} IS NOT NULL"),
        Op::NotExists => format!("{column} IS NULL"),
        Op::In | Op::NotIn if filter.values.is_empty() => return Ok(None),
        Op::In => format!("{column} IN ({})", list(&filter.values)),
        Op::NotIn => or_absent(format!("{column} NOT IN ({})", list(&filter.values))),
        Op::Unknown(op) => return Err(Error::Operator { field: field.to_owned(), op: op.clone() }),
    };
    Ok(Some(condition))
}

fn list<T: AsRef<str>>(values: &[T]) -> String {
    values.iter().map(|value| literal::text(value.as_ref())).collect::<Vec<_>>().join(", ")
}

/// Levels are words with an order of their own; everything else compares as the store does.
fn ordering(field: &str, column: &str, op: &Op, value: &str) -> String {
    let rank = LEVELS.iter().position(|level| value.trim().eq_ignore_ascii_case(level));
    if let (true, Some(rank)) = (field == "level", rank) {
        let levels = match op {
            Op::Lt => &LEVELS[..rank],
            Op::Le => &LEVELS[..=rank],
            Op::Gt => &LEVELS[rank + 1..],
            _ => &LEVELS[rank..],
        };
        return if levels.is_empty() { "false".to_owned() } else { format!("level IN ({})", list(levels)) };
    }
    let sign = match op {
        Op::Lt => "<",
        Op::Le => "<=",
        Op::Gt => ">",
        _ => ">=",
    };
    format!("{column} {sign} {}", literal::number_or_text(value))
}

fn search_condition(search: &Search) -> Result<Option<String>, Error> {
    if search.text.is_empty() {
        return Ok(None);
    }
    let text = literal::text(&search.text);
    let condition = match &search.op {
        SearchOp::Contains => format!("contains(message, {text})"),
        SearchOp::NotContains => format!("(NOT contains(message, {text}) OR message IS NULL)"),
        SearchOp::Matches => format!("regexp_like(message, {text})"),
        SearchOp::NotMatches => format!("(NOT regexp_like(message, {text}) OR message IS NULL)"),
        SearchOp::Unknown(op) => return Err(Error::Operator { field: "message".to_owned(), op: op.clone() }),
    };
    Ok(Some(condition))
}

/// What to highlight in the lines: Grafana takes regular expressions.
fn search_words(builder: &Builder) -> Vec<String> {
    let searches = builder.search.iter().filter_map(|search| match search.op {
        SearchOp::Contains => Some(regex_syntax::escape(&search.text)),
        SearchOp::Matches => Some(search.text.clone()),
        SearchOp::NotContains | SearchOp::NotMatches | SearchOp::Unknown(_) => None,
    });
    let filters =
        builder.filters.iter().filter(|filter| filter.field.trim() == "message").filter_map(|filter| match filter.op {
            Op::Contains => Some(regex_syntax::escape(&filter.value)),
            Op::Matches => Some(filter.value.clone()),
            _ => None,
        });
    searches.chain(filters).filter(|word| !word.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(op: Op, field: &str, value: &str, expect: &str) {
        let filter = Filter { field: field.into(), op, value: value.into(), values: vec!["a".into(), "it's".into()] };
        let got = filter_condition(&filter).unwrap_or_else(|error| Some(error.to_string()));
        assert_eq!(got.as_deref(), Some(expect));
    }

    #[test]
    fn every_op_becomes_a_condition() {
        check(Op::Eq, "service", "bff", "service = 'bff'");
        check(Op::Eq, "http.status", "500", "\"http.status\" = '500'");
        check(Op::Ne, "user_id", "x", "(\"user_id\" <> 'x' OR \"user_id\" IS NULL)");
        check(Op::Contains, "service", "api", "contains(service, 'api')");
        check(Op::Contains, "path", "/api", "contains(CAST(\"path\" AS VARCHAR), '/api')");
        check(Op::NotContains, "path", "'", "(NOT contains(CAST(\"path\" AS VARCHAR), '''') OR \"path\" IS NULL)");
        check(Op::Matches, "path", "^/a+$", "regexp_like(CAST(\"path\" AS VARCHAR), '^/a+$')");
        check(Op::NotMatches, "path", "x", "(NOT regexp_like(CAST(\"path\" AS VARCHAR), 'x') OR \"path\" IS NULL)");
        check(Op::Lt, "duration_ms", "12.5", "\"duration_ms\" < 12.5");
        check(Op::Ge, "status", "500", "\"status\" >= 500");
        check(Op::Gt, "version", "1.2.3", "\"version\" > '1.2.3'");
        check(Op::Ge, "level", "warn", "level IN ('warn', 'error', 'fatal')");
        check(Op::Lt, "level", "INFO", "level IN ('trace', 'debug')");
        check(Op::Lt, "level", "trace", "false");
        check(Op::Exists, "trace_id", "", "trace_id IS NOT NULL");
        check(Op::NotExists, "trace_id", "", "trace_id IS NULL");
        check(Op::In, "service", "", "service IN ('a', 'it''s')");
        check(Op::NotIn, "service", "", "(service NOT IN ('a', 'it''s') OR service IS NULL)");
        check(
            Op::Unknown("==".into()),
            "service",
            "a",
            "the filter on 'service' has the operator '==', which there is not; there are =, !=, contains, !contains, \
             =~, !~, <, <=, >, >=, exists, !exists, in and !in",
        );
    }

    #[test]
    fn buckets_that_count_are_wide_enough_to_hold_lines() {
        for (function, range_ms, interval_ms, expect) in [
            (Function::Count, 1_800_000, 2_000, 10_000),
            (Function::Rate, 1_800_000, 15_000, 15_000),
            (Function::Avg, 1_800_000, 2_000, 2_000),
            (Function::Avg, 86_400_000, 1_000, 10_000),
        ] {
            let range = super::super::Range::of_ms(0, range_ms);
            let context = Context { range, interval_ms, limit_default: 1, points_max: 1 };
            assert_eq!(automatic_step_ms(function, &context), expect, "{function:?} over {range_ms} ms");
        }
    }

    #[test]
    fn unfinished_rows_are_skipped() {
        let filter = |field: &str, op| Filter { field: field.into(), op, value: String::new(), values: Vec::new() };
        assert_eq!(filter_conditions(&[filter(" ", Op::Eq), filter("a", Op::In)]).expect("fine"), [""; 0]);
        assert_eq!(search_condition(&Search { op: SearchOp::Contains, text: String::new() }).expect("fine"), None);
    }
}
