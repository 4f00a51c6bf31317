//! Comparison as people expect it where types differ: a text column compared with a number compares those of its values
//! that are numbers; a numeric column compared with a quoted number compares as numbers. Such columns come about when
//! services disagree on a field's type, and must not make a query fail.

use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, cast, try_cast};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use arrow::datatypes::DataType;

/// Rewrites comparisons and arithmetic between text and numbers.
#[derive(Debug)]
pub(super) struct LooseTypes;

impl ExprPlanner for LooseTypes {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        if !is_comparison(&expr.op) {
            return Ok(PlannerResult::Original(expr));
        }
        let RawBinaryExpr { op, left, right } = expr;
        let (left, right) = reconcile(left, right, schema);
        let (right, left) = reconcile(right, left, schema);
        Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }))
    }
}

fn is_comparison(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}

/// Fits `one` to a literal `other`, or the literal to `one`.
fn reconcile(one: Expr, other: Expr, schema: &DFSchema) -> (Expr, Expr) {
    let (Expr::Literal(literal, _), Ok(kind)) = (&other, one.get_type(schema)) else { return (one, other) };
    if matches!(one, Expr::Literal(..)) {
        return (one, other);
    }
    let is_text = |kind: &DataType| matches!(kind, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8);
    if is_text(&kind) && literal.data_type().is_numeric() {
        return (try_cast(one, DataType::Float64), other);
    }
    match literal.try_as_str().flatten() {
        Some(text) if kind.is_numeric() => match number(text) {
            Some(number) => (one, Expr::Literal(number, None)),
            // No number equals it: compared as texts, so that the query has an answer.
            None => (cast(one, DataType::Utf8), other),
        },
        _ => (one, other),
    }
}

fn number(text: &str) -> Option<ScalarValue> {
    let integer = text.parse().ok().map(|value| ScalarValue::Int64(Some(value)));
    integer.or_else(|| text.parse().ok().map(|value| ScalarValue::Float64(Some(value))))
}
