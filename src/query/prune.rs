//! Which segments and batches a query need not open: bounds read from its conditions, compared with what the catalog
//! knows. Pure, and never wrong on the side of leaving something out that could match.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::scalar::ScalarValue;

use super::TimeRange;
use crate::record::{column, number};
use crate::storage::segment::Condition;
use crate::storage::{Buffered, Segment};

/// What every matching record satisfies.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bounds {
    /// Earliest and latest timestamp, ns.
    pub timestamp: (i64, i64),
    /// Lowest and highest sequence number.
    pub seq: (i64, i64),
    /// Levels that can match; `None`: all.
    pub levels: Option<BTreeSet<String>>,
    /// Services that can match; `None`: all.
    pub services: Option<BTreeSet<String>>,
    /// Other columns: numbers from and to.
    pub numbers: BTreeMap<String, (f64, f64)>,
    /// Other columns: texts that can match.
    pub texts: BTreeMap<String, BTreeSet<String>>,
}

impl Bounds {
    /// Bounds of a conjunction of conditions, and of the request's range of time.
    /// Columns that are not stored as they are compared (`is_stored`) bound nothing.
    pub(super) fn of(filters: &[Expr], range: Option<TimeRange>, is_stored: impl Fn(&str) -> bool) -> Bounds {
        let mut bounds = Bounds {
            timestamp: (i64::MIN, i64::MAX),
            seq: (i64::MIN, i64::MAX),
            levels: None,
            services: None,
            numbers: BTreeMap::new(),
            texts: BTreeMap::new(),
        };
        if let Some(range) = range {
            bounds.timestamp = (range.from_ns, range.to_ns.saturating_sub(1));
        }
        filters.iter().for_each(|filter| bounds.narrow(filter));
        bounds.numbers.retain(|name, _| is_stored(name));
        bounds.texts.retain(|name, _| is_stored(name));
        bounds
    }

    /// The same, as footers of segments are asked.
    pub(super) fn conditions(self) -> Vec<Condition> {
        let integers = [(column::TIMESTAMP, self.timestamp), (column::SEQ, self.seq)];
        let bounded = integers.into_iter().filter(|(_, bound)| *bound != (i64::MIN, i64::MAX));
        let mut conditions: Vec<Condition> =
            bounded.map(|(name, (low, high))| Condition::Integers(name.to_owned(), low, high)).collect();
        let texts = [(column::LEVEL, self.levels), (column::SERVICE, self.services)];
        let texts = texts.into_iter().filter_map(|(name, values)| Some((name.to_owned(), values?)));
        conditions.extend(texts.chain(self.texts).map(|(name, values)| Condition::Texts(name, values)));
        conditions.extend(self.numbers.into_iter().map(|(name, (low, high))| Condition::Numbers(name, low, high)));
        conditions
    }

    fn narrow(&mut self, filter: &Expr) {
        match filter {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
                self.narrow(left);
                self.narrow(right);
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (column_name(left), literal(right)) {
                (Some(name), Some(value)) => self.compare(name, *op, value),
                _ => {
                    if let (Some(value), Some(name), Some(op)) = (literal(left), column_name(right), op.swap()) {
                        self.compare(name, op, value);
                    }
                }
            },
            Expr::Between(between) if !between.negated => {
                if let Some(name) = column_name(&between.expr) {
                    literal(&between.low).into_iter().for_each(|low| self.compare(name, Operator::GtEq, low));
                    literal(&between.high).into_iter().for_each(|high| self.compare(name, Operator::LtEq, high));
                }
            }
            Expr::InList(list) if !list.negated => {
                let values: Option<BTreeSet<String>> =
                    list.list.iter().map(|item| literal(item).and_then(text)).collect();
                if let (Some(name), Some(values)) = (column_name(&list.expr), values) {
                    self.one_of(name, values);
                }
            }
            _ => {}
        }
    }

    fn compare(&mut self, name: &str, op: Operator, value: &ScalarValue) {
        let number = match name {
            column::TIMESTAMP => nanoseconds(value),
            column::SEQ => integer(value),
            _ => {
                if let (Operator::Eq, Some(value)) = (op, text(value)) {
                    self.one_of(name, BTreeSet::from([value]));
                } else if let Some(value) = float(value) {
                    self.compare_number(name, op, value);
                }
                return;
            }
        };
        let Some(number) = number else { return };
        let bound = if name == column::TIMESTAMP { &mut self.timestamp } else { &mut self.seq };
        match op {
            Operator::Eq => *bound = (bound.0.max(number), bound.1.min(number)),
            Operator::Gt => bound.0 = bound.0.max(number.saturating_add(1)),
            Operator::GtEq => bound.0 = bound.0.max(number),
            Operator::Lt => bound.1 = bound.1.min(number.saturating_sub(1)),
            Operator::LtEq => bound.1 = bound.1.min(number),
            _ => {}
        }
    }

    fn compare_number(&mut self, name: &str, op: Operator, value: f64) {
        let bound = self.numbers.entry(name.to_owned()).or_insert((f64::NEG_INFINITY, f64::INFINITY));
        match op {
            Operator::Eq => *bound = (bound.0.max(value), bound.1.min(value)),
            Operator::Gt | Operator::GtEq => bound.0 = bound.0.max(value),
            Operator::Lt | Operator::LtEq => bound.1 = bound.1.min(value),
            _ => {}
        }
    }

    fn one_of(&mut self, name: &str, values: BTreeSet<String>) {
        let narrowed = |known: Option<BTreeSet<String>>| match known {
            Some(before) => before.intersection(&values).cloned().collect(),
            None => values.clone(),
        };
        match name {
            column::LEVEL => self.levels = Some(narrowed(self.levels.take())),
            column::SERVICE => self.services = Some(narrowed(self.services.take())),
            _ => {
                let known = self.texts.remove(name);
                self.texts.insert(name.to_owned(), narrowed(known));
            }
        }
    }

    /// Whether a segment can hold a match.
    pub(super) fn may_match_segment(&self, segment: &Segment) -> bool {
        let holds = |wanted: &Option<BTreeSet<String>>, there: Option<&Vec<Option<String>>>| match (wanted, there) {
            (Some(wanted), Some(there)) => there.iter().flatten().any(|value| wanted.contains(value)),
            _ => true,
        };
        overlap(self.timestamp, (segment.min_ts, segment.max_ts))
            && overlap(self.seq, (segment.min_seq, segment.max_seq))
            && holds(&self.levels, Some(&segment.detail.levels))
            && holds(&self.services, segment.detail.services.as_ref())
    }

    /// Whether a batch of the buffer can hold a match.
    pub(super) fn may_match_batch(&self, batch: &Buffered) -> bool {
        overlap(self.timestamp, (batch.min_ts, batch.max_ts)) && overlap(self.seq, batch.seq_range())
    }
}

fn overlap(a: (i64, i64), b: (i64, i64)) -> bool {
    a.0 <= b.1 && b.0 <= a.1
}

/// The column, also under casts between time zones.
fn column_name(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Column(column) => Some(&column.name),
        Expr::Cast(cast) => column_name(&cast.expr).filter(|name| *name == column::TIMESTAMP),
        _ => None,
    }
}

fn literal(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        _ => None,
    }
}

fn nanoseconds(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::TimestampNanosecond(value, _) => *value,
        _ => None,
    }
}

fn integer(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::Int64(value) => *value,
        _ => None,
    }
}

fn float(value: &ScalarValue) -> Option<f64> {
    match value {
        // An integer that no double holds is no exact bound.
        ScalarValue::Int64(Some(value)) => number::is_exact(*value).then_some(*value as f64),
        ScalarValue::Float64(Some(value)) => (!value.is_nan()).then_some(*value),
        _ => None,
    }
}

fn text(value: &ScalarValue) -> Option<String> {
    value.try_as_str().flatten().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::{col, lit};

    fn ts(ns: i64) -> Expr {
        lit(ScalarValue::TimestampNanosecond(Some(ns), Some("UTC".into())))
    }

    fn check(filters: &[Expr], expect: impl Fn(&Bounds) -> bool) {
        let bounds = Bounds::of(filters, None, |_| true);
        assert!(expect(&bounds), "{filters:?} → {bounds:?}");
    }

    #[test]
    fn bounds_are_read_from_conjunctions() {
        check(&[col("timestamp").gt_eq(ts(5)), col("timestamp").lt(ts(9))], |b| b.timestamp == (5, 8));
        check(&[ts(5).lt(col("timestamp"))], |b| b.timestamp == (6, i64::MAX));
        check(&[col("timestamp").between(ts(1), ts(2)).and(col("_seq").gt(lit(7_i64)))], |b| {
            b.timestamp == (1, 2) && b.seq == (8, i64::MAX)
        });
        check(&[col("level").eq(lit("error"))], |b| b.levels == Some(BTreeSet::from(["error".to_owned()])));
        check(&[col("service").in_list(vec![lit("a"), lit("b")], false), col("service").eq(lit("b"))], |b| {
            b.services == Some(BTreeSet::from(["b".to_owned()]))
        });
    }

    #[test]
    fn what_is_not_understood_bounds_nothing() {
        let all = Bounds::of(&[], None, |_| true);
        check(&[col("timestamp").gt(ts(5)).or(col("level").eq(lit("error")))], |b| *b == all);
        check(&[col("level").not_eq(lit("error"))], |b| *b == all);
        check(&[col("service").in_list(vec![lit("a")], true)], |b| *b == all);
        check(&[col("timestamp").gt(lit("2026-01-01"))], |b| *b == all);
    }

    #[test]
    fn the_range_of_a_request_is_half_open() {
        let bounds = Bounds::of(&[], Some(TimeRange { from_ns: 3, to_ns: 7 }), |_| true);
        assert_eq!(bounds.timestamp, (3, 6));
    }
}
