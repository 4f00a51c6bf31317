//! The log volume: how many lines of each level lie in each bucket of time, for any query that has lines.
//! Invariant: the buckets cover the whole range, are cut in the store, and are few enough to see.

use super::{Context, Error, Lines, Shape, Statement, literal};

/// Bars across the histogram; more are thinner than what one can click.
const BARS_MAX: u64 = 120;
/// Widths that people read without thinking. **Units**: milliseconds.
const STEPS_MS: [u64; 27] = [
    1,
    5,
    10,
    50,
    100,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    15_000,
    30_000,
    60_000,
    120_000,
    300_000,
    600_000,
    900_000,
    1_800_000,
    3_600_000,
    7_200_000,
    10_800_000,
    21_600_000,
    43_200_000,
    86_400_000,
    172_800_000,
    604_800_000,
    2_592_000_000,
];

/// The statement that counts lines per bucket and level.
pub fn statement(lines: &Lines, context: &Context) -> Result<Statement, Error> {
    let step_ms = step_ms(context);
    let level = if lines.has_level { "level" } else { "'unknown' AS level" };
    let sql = format!(
        "{}SELECT date_bin({}, timestamp) AS time, {level}, count(*) AS value\n{}\nGROUP BY 1, 2\nORDER BY 1",
        lines.with,
        literal::interval(step_ms),
        lines.clauses(&[]),
    );
    Ok(Statement::new(sql, Shape::Volume { buckets: context.buckets(step_ms) }))
}

fn step_ms(context: &Context) -> u64 {
    let bars = context.points_max.clamp(1, BARS_MAX);
    round_step_ms(context.range.length_ms().div_ceil(bars))
}

/// The next width that people read without thinking.
pub fn round_step_ms(least: u64) -> u64 {
    STEPS_MS.into_iter().find(|step| *step >= least).unwrap_or(least.next_multiple_of(86_400_000))
}

#[cfg(test)]
mod tests {
    use super::super::Range;
    use super::*;

    #[test]
    fn steps_are_round_and_few() {
        for (range_ms, points, expect) in [
            (3_600_000, 1000, 30_000),
            (300_000, 1000, 5_000),
            (86_400_000, 1000, 900_000),
            (7 * 86_400_000, 1000, 7_200_000),
            (1_000, 1000, 10),
            (3_600_000, 10, 600_000),
            (3_600_000, 0, 3_600_000),
            (1, 1000, 1),
            (20 * 365 * 86_400_000, 1000, 61 * 86_400_000),
        ] {
            let range = Range::of_ms(0, range_ms);
            let context = Context { range, interval_ms: 1, limit_default: 1, points_max: points };
            assert_eq!(step_ms(&context), expect, "{range_ms} ms in {points} points");
        }
    }
}
