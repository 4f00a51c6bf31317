//! Columns in the types that Grafana's reader knows: Utf8, integers, floats, booleans, Timestamp(ns).
//! What a column means is not known here. Invariant: nothing else comes out, whatever goes in.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, TimestampNanosecondType};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// Casts every column.
pub fn batch(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(column).collect::<Result<Vec<_>, _>>()?;
    let fields = batch.schema_ref().fields().iter().zip(&columns);
    let fields: Vec<_> =
        fields.map(|(field, column)| Field::new(field.name(), column.data_type().clone(), true)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}

fn column(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    const NANOSECONDS: DataType = DataType::Timestamp(TimeUnit::Nanosecond, None);
    match array.data_type() {
        data_type if is_plain(data_type) => Ok(Arc::clone(array)),
        DataType::Timestamp(_, zone) => {
            // A zone says how to show an instant, and Grafana shows it as its user likes: the instant stays.
            let exact = cast(array, &DataType::Timestamp(TimeUnit::Nanosecond, zone.clone()))?;
            Ok(Arc::new(exact.as_primitive::<TimestampNanosecondType>().clone().with_timezone_opt(None::<Arc<str>>)))
        }
        DataType::Date32 | DataType::Date64 => cast(array, &NANOSECONDS),
        DataType::LargeUtf8 | DataType::Utf8View => cast(array, &DataType::Utf8),
        DataType::Float16 => cast(array, &DataType::Float32),
        data_type if data_type.is_decimal() => cast(array, &DataType::Float64),
        DataType::Dictionary(_, values) => column(&cast(array, values)?),
        DataType::Null => Ok(new_null_array(&DataType::Utf8, array.len())),
        DataType::Binary => Ok(Arc::new(binary_text(array))),
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            column(&cast(array, &DataType::Binary)?)
        }
        _ => displayed(array),
    }
}

fn is_plain(data_type: &DataType) -> bool {
    use DataType as T;
    match data_type {
        T::Utf8 | T::Boolean | T::Float32 | T::Float64 | T::Timestamp(TimeUnit::Nanosecond, None) => true,
        other => other.is_integer(),
    }
}

/// Bytes as text where they are text. Grafana takes a binary column for JSON, and shows nothing where it is none.
fn binary_text(array: &ArrayRef) -> StringArray {
    array.as_binary::<i32>().iter().map(|value| value.map(String::from_utf8_lossy)).collect()
}

/// Lists, structs, intervals: as Arrow prints them.
fn displayed(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(array, &options)?;
    let mut builder = StringBuilder::with_capacity(array.len(), array.len() * 16);
    for row in 0..array.len() {
        if array.is_null(row) { builder.append_null() } else { builder.append_value(formatter.value(row).to_string()) }
    }
    Ok(Arc::new(builder.finish()))
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        BinaryArray, Date32Array, Decimal128Array, DictionaryArray, Int32Array, LargeStringArray, ListArray, NullArray,
        StringViewArray, TimestampMillisecondArray, UInt64Array,
    };
    use arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn every_type_becomes_one_that_grafana_reads() {
        let zoned = TimestampMillisecondArray::from(vec![1_767_268_800_123]).with_timezone("Europe/Berlin");
        let decimal = Decimal128Array::from(vec![1250]).with_precision_and_scale(10, 2).expect("fits");
        let dictionary: DictionaryArray<Int32Type> = ["a"].into_iter().collect();
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None])]);
        for (array, data_type, text) in [
            (Arc::new(LargeStringArray::from(vec!["x"])) as ArrayRef, DataType::Utf8, "x"),
            (Arc::new(StringViewArray::from(vec!["x"])), DataType::Utf8, "x"),
            (Arc::new(dictionary), DataType::Utf8, "a"),
            (Arc::new(UInt64Array::from(vec![u64::MAX])), DataType::UInt64, "18446744073709551615"),
            (Arc::new(decimal), DataType::Float64, "12.5"),
            (Arc::new(zoned), DataType::Timestamp(TimeUnit::Nanosecond, None), "2026-01-01T12:00:00.123"),
            (
                Arc::new(Date32Array::from(vec![1])),
                DataType::Timestamp(TimeUnit::Nanosecond, None),
                "1970-01-02T00:00:00",
            ),
            (Arc::new(list), DataType::Utf8, "[1, ]"),
            (Arc::new(BinaryArray::from(vec![b"ab\xff".as_slice()])), DataType::Utf8, "ab\u{fffd}"),
            (Arc::new(NullArray::new(1)), DataType::Utf8, ""),
            (Arc::new(Int32Array::from(vec![7])), DataType::Int32, "7"),
        ] {
            let plain = column(&array).expect("castable");
            assert_eq!(*plain.data_type(), data_type, "{array:?}");
            let options = FormatOptions::default();
            let shown = ArrayFormatter::try_new(&plain, &options).expect("shown").value(0).to_string();
            assert_eq!(shown, text, "{array:?}");
        }
    }
}
