//! Comparison as people expect it where types differ: a text column compared with a number compares those of its values
//! that are numbers; a numeric column compared with a quoted number compares as numbers. Such columns come about when
//! services disagree on a field's type, and must not make a query fail. An integer that no double holds is compared as
//! the integer it is.

use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, Operator, binary_expr, cast, try_cast, when};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use arrow::datatypes::DataType;

use crate::record::number;

/// Rewrites comparisons and arithmetic between text and numbers.
#[derive(Debug)]
pub(super) struct LooseTypes;

impl ExprPlanner for LooseTypes {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let Some(operator) = comparison(&expr.op) else { return Ok(PlannerResult::Original(expr)) };
        let RawBinaryExpr { op, left, right } = expr;
        if is_text(&left, schema) && is_large(&right) {
            return Ok(PlannerResult::Planned(by_number(left, |number| binary_expr(number, operator, right.clone()))?));
        }
        if is_text(&right, schema) && is_large(&left) {
            return Ok(PlannerResult::Planned(by_number(right, |number| binary_expr(left.clone(), operator, number))?));
        }
        let (left, right) = reconcile(left, right, schema);
        let (right, left) = reconcile(right, left, schema);
        Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }))
    }
}

fn comparison(op: &BinaryOperator) -> Option<Operator> {
    match op {
        BinaryOperator::Eq => Some(Operator::Eq),
        BinaryOperator::NotEq => Some(Operator::NotEq),
        BinaryOperator::Lt => Some(Operator::Lt),
        BinaryOperator::LtEq => Some(Operator::LtEq),
        BinaryOperator::Gt => Some(Operator::Gt),
        BinaryOperator::GtEq => Some(Operator::GtEq),
        _ => None,
    }
}

fn is_text(expr: &Expr, schema: &DFSchema) -> bool {
    let text = |kind: DataType| matches!(kind, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8);
    !matches!(expr, Expr::Literal(..)) && expr.get_type(schema).is_ok_and(text)
}

/// Whether it is an integer that no double holds.
fn is_large(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Int64(Some(value)), _) if !number::is_exact(*value))
}

/// Compares a text's value as the integer that it is, and else as a double.
fn by_number(text: Expr, compare: impl Fn(Expr) -> Expr) -> Result<Expr> {
    let integer = try_cast(text.clone(), DataType::Int64);
    let other = compare(try_cast(text, DataType::Float64));
    when(integer.clone().is_not_null(), compare(integer)).otherwise(other)
}

/// Fits `one` to a literal `other`, or the literal to `one`.
fn reconcile(one: Expr, other: Expr, schema: &DFSchema) -> (Expr, Expr) {
    let (Expr::Literal(literal, _), Ok(kind)) = (&other, one.get_type(schema)) else { return (one, other) };
    if matches!(one, Expr::Literal(..)) {
        return (one, other);
    }
    if is_text(&one, schema) && literal.data_type().is_numeric() {
        return (try_cast(one, DataType::Float64), other);
    }
    match literal.try_as_str().flatten() {
        Some(text) if kind.is_numeric() => match parsed(text) {
            Some(number) => (one, Expr::Literal(number, None)),
            // No number equals it: compared as texts, so that the query has an answer.
            None => (cast(one, DataType::Utf8), other),
        },
        _ => (one, other),
    }
}

fn parsed(text: &str) -> Option<ScalarValue> {
    let integer = text.parse().ok().map(|value| ScalarValue::Int64(Some(value)));
    integer.or_else(|| text.parse().ok().map(|value| ScalarValue::Float64(Some(value))))
}
