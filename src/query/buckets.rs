//! `date_bin` for records in the order of time, or nearly: a bucket is worked out once for all records in it, where
//! DataFusion's divides for every record. Panels over time ask for nothing more often.

use std::sync::Arc;

use arrow::array::{Array, AsArray, PrimitiveArray};
use arrow::datatypes::{DataType, TimestampNanosecondType};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions::datetime::date_bin::DateBinFunc;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

const NS_PER_DAY: i64 = 86_400_000_000_000;

/// The function, under DataFusion's name.
pub(super) fn date_bin() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(Buckets { inner: DateBinFunc::new() }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Buckets {
    inner: DateBinFunc,
}

impl ScalarUDFImpl for Buckets {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let found = match args.args.as_slice() {
            [ColumnarValue::Scalar(stride), ColumnarValue::Array(times)] => stride_ns(stride)
                .zip(times.as_primitive_opt::<TimestampNanosecondType>())
                .and_then(|(stride, times)| binned(times, stride)),
            _ => None,
        };
        found.map_or_else(|| self.inner.invoke_with_args(args), |found| Ok(ColumnarValue::Array(Arc::new(found))))
    }

    fn output_ordering(&self, input: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.output_ordering(input)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}

/// A stride of one length; `None`: it has months, or is none.
fn stride_ns(stride: &ScalarValue) -> Option<i64> {
    let ScalarValue::IntervalMonthDayNano(Some(stride)) = stride else { return None };
    let ns = i64::from(stride.days).checked_mul(NS_PER_DAY)?.checked_add(stride.nanoseconds)?;
    Some(ns).filter(|ns| stride.months == 0 && *ns > 0)
}

/// The start of each time's bucket, counted from 1970; `None` when one lies before all times there are.
fn binned(
    times: &PrimitiveArray<TimestampNanosecondType>,
    stride: i64,
) -> Option<PrimitiveArray<TimestampNanosecondType>> {
    let (mut start, mut end) = (i64::MAX, i64::MAX);
    let mut binned = Vec::with_capacity(times.len());
    for time in times.values() {
        if *time < start || *time >= end {
            start = time.checked_sub(time.rem_euclid(stride))?;
            end = start.saturating_add(stride);
        }
        binned.push(start);
    }
    Some(PrimitiveArray::new(binned.into(), times.nulls().cloned()).with_data_type(times.data_type().clone()))
}

#[cfg(test)]
mod tests {
    use arrow::array::TimestampNanosecondArray;
    use arrow::datatypes::IntervalMonthDayNano;

    use super::*;

    #[test]
    fn buckets_are_those_of_datafusion() {
        let times =
            [Some(0), Some(1), None, Some(59), Some(60), Some(-1), Some(61), Some(-60), Some(-61), Some(i64::MAX)];
        let times = TimestampNanosecondArray::from_iter(times).with_timezone("UTC");
        let binned = binned(&times, 60).unwrap();
        let last = i64::MAX - i64::MAX % 60;
        let wanted =
            [Some(0), Some(0), None, Some(0), Some(60), Some(-60), Some(60), Some(-60), Some(-120), Some(last)];
        assert_eq!(binned.iter().collect::<Vec<_>>(), wanted);
        assert_eq!(binned.data_type(), times.data_type());
        assert!(super::binned(&TimestampNanosecondArray::from(vec![i64::MIN]), 60).is_none());
    }

    #[test]
    fn only_strides_of_one_length_are_taken() {
        let interval = |months, days, nanoseconds| {
            ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano { months, days, nanoseconds }))
        };
        assert_eq!(stride_ns(&interval(0, 1, 5)), Some(NS_PER_DAY + 5));
        assert_eq!(stride_ns(&interval(1, 0, 0)), None);
        assert_eq!(stride_ns(&interval(0, 0, 0)), None);
        assert_eq!(stride_ns(&interval(0, -1, 0)), None);
        assert_eq!(stride_ns(&ScalarValue::Null), None);
    }
}
