//! Columns that are made when they are read: the line as received, and fields whose values partly lie in the overflow.

use std::hash::Hash;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::physical_expr::expressions::{IsNotNullExpr, TryCastExpr, case, col, lit};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};

use crate::record::{column, overflow, shape};

/// The line as received, from all columns of `stored`.
pub(super) fn line(stored: &Schema, options: &ConfigOptions) -> Result<Arc<dyn PhysicalExpr>> {
    let names: Vec<String> = stored.fields().iter().map(|field| field.name().clone()).collect();
    let arguments = names.iter().map(|name| col(name, stored)).collect::<Result<Vec<_>>>()?;
    call(LineFunction { names, signature: Signature::variadic_any(Volatility::Immutable) }, arguments, options)
}

/// A field from its own column, where there is one, and else from the overflow, in the field's type.
pub(super) fn from_overflow(
    field: &Field,
    has_column: bool,
    stored: &Schema,
    options: &ConfigOptions,
) -> Result<Arc<dyn PhysicalExpr>> {
    let overflow = col(column::OVERFLOW, stored)?;
    let name = lit(field.name().as_str());
    let function = OverflowFunction { signature: Signature::any(2, Volatility::Immutable) };
    let extracted: Arc<dyn PhysicalExpr> =
        Arc::new(TryCastExpr::new(call(function, vec![overflow, name], options)?, field.data_type().clone()));
    if !has_column {
        return Ok(extracted);
    }
    let own = col(field.name(), stored)?;
    // DataFusion's `coalesce` is for plans only; it can't be evaluated.
    let has_own: Arc<dyn PhysicalExpr> = Arc::new(IsNotNullExpr::new(own.clone()));
    case(None, vec![(has_own, own)], Some(extracted))
}

fn call(
    function: impl ScalarUDFImpl + 'static,
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    options: &ConfigOptions,
) -> Result<Arc<dyn PhysicalExpr>> {
    let name = function.name().to_owned();
    let returned = Arc::new(Field::new(&name, DataType::Utf8, true));
    let function = Arc::new(ScalarUDF::new_from_impl(function));
    Ok(Arc::new(ScalarFunctionExpr::new(&name, function, arguments, returned, Arc::new(options.clone()))))
}

/// All stored columns → `_line`. A line that is no UTF-8 is shown with replacement characters; `_raw` has its bytes.
#[derive(Debug, PartialEq, Eq, Hash)]
struct LineFunction {
    names: Vec<String>,
    signature: Signature,
}

impl ScalarUDFImpl for LineFunction {
    fn name(&self) -> &str {
        "line_as_received"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let named = self.names.iter().map(String::as_str).zip(columns);
        let stored = RecordBatch::try_from_iter_with_nullable(named.map(|(name, array)| (name, array, true)))?;
        let lines = shape::render_lines(&stored).map_err(|error| DataFusionError::External(Box::new(error)))?;
        Ok(ColumnarValue::Array(Arc::new(lines)))
    }
}

/// `(_overflow, name)` → the field's value as text.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OverflowFunction {
    signature: Signature,
}

impl ScalarUDFImpl for OverflowFunction {
    fn name(&self) -> &str {
        "overflow_field"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [overflow, ColumnarValue::Scalar(ScalarValue::Utf8(Some(name)))] = args.args.as_slice() else {
            return datafusion::common::internal_err!("overflow_field takes a column and a name");
        };
        let overflow = overflow.to_array(args.number_rows)?;
        Ok(ColumnarValue::Array(Arc::new(overflow::extract(&overflow, name))))
    }
}
