//! The builder's SQL as people go on writing it: with macros where the panel's range and interval stand.
//! Invariant: replacing the macros gives the statement that the builder itself would run, but for the width of a bucket that
//! the builder chose: that becomes the panel's interval, so that the text follows the range.

use super::{Context, Error, Range, builder, literal, statement};
use crate::model::{Direction, Format, Function, Query};

/// Lines of text for the SQL editor. **Errors**: as those of the statement.
pub fn editable(query: &Query, context: &Context) -> Result<String, Error> {
    let sql = statement(query, context)?.sql;
    // The builder puts the range first of all conditions, so what people wrote comes after it.
    let sql = sql.replacen(&time_filter(context.range), "WHERE $__timeFilter(timestamp)", 1);
    let Some(aggregate) = &query.builder.aggregate else { return Ok(plain_lines(sql, query, context)) };
    let is_rate = aggregate.function == Function::Rate;
    if query.format == Format::Number {
        let seconds = context.range.length_ms() as f64 / 1000.0;
        return Ok(if is_rate { with_divisor(&sql, seconds, RANGE_SECONDS) } else { sql });
    }
    if !query.builder.step.trim().is_empty() {
        return Ok(sql);
    }
    let step_ms = builder::automatic_step_ms(aggregate.function, context);
    let bucket = format!("date_bin({}, timestamp)", literal::interval(step_ms));
    let Some(rest) = sql.strip_prefix("SELECT ").and_then(|rest| rest.strip_prefix(&bucket)) else { return Ok(sql) };
    let sql = format!("SELECT $__timeGroup(timestamp, $__interval){rest}");
    let seconds = step_ms as f64 / 1000.0;
    Ok(if is_rate { with_divisor(&sql, seconds, INTERVAL_SECONDS) } else { sql })
}

/// Lines without what every query for lines is completed with: their number, which orders those of one moment, and the
/// data source's limit.
fn plain_lines(sql: String, query: &Query, context: &Context) -> String {
    let order = if query.builder.direction == Direction::Forward { "ASC" } else { "DESC" };
    let full = format!("\nORDER BY timestamp {order}, _seq {order}\nLIMIT {}", context.limit(query.builder.limit));
    let Some(rest) = sql.strip_prefix("SELECT *, _seq\n").and_then(|rest| rest.strip_suffix(&full)) else { return sql };
    let limit = if query.builder.limit == 0 {
        String::new()
    } else {
        format!("\nLIMIT {}", context.limit(query.builder.limit))
    };
    format!("SELECT *\n{rest}\nORDER BY timestamp {order}{limit}")
}

/// Seconds of a bucket.
pub const INTERVAL_SECONDS: &str = "($__interval_ms / 1000.0)";
/// Seconds of the range.
pub const RANGE_SECONDS: &str = "(($__toMs - $__fromMs) / 1000.0)";

fn time_filter(range: Range) -> String {
    format!("WHERE {}", range.condition("timestamp"))
}

/// The rate's divisor is the last thing before its name.
fn with_divisor(sql: &str, seconds: f64, with: &str) -> String {
    let Some((columns, rest)) = sql.split_once("\nFROM ") else { return sql.to_owned() };
    let divisor = format!(" / {seconds:?} AS ");
    match columns.rsplit_once(&divisor) {
        Some((before, name)) => format!("{before} / {with} AS {name}\nFROM {rest}"),
        None => sql.to_owned(),
    }
}
