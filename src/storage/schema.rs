//! What a batch's columns are to storage: names and types of its fields, and moving the long tail
//! of columns into the overflow. (`record::batch` brings batches into one schema.)

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, RecordBatch, StringArray, new_null_array};
use arrow::datatypes::{Field, Float64Type, Int64Type, Schema};
use arrow::error::ArrowError;
use serde_json::{Map, Value};

use crate::record::batch::{self, Error, becomes_float};
use crate::record::{FieldType, column, number, shape};

/// Whether every batch has the column.
pub(super) fn is_core(name: &str) -> bool {
    column::CORE.contains(&name)
}

/// Whether the name stands for one of our own columns, and for no field.
pub(super) fn is_own(name: &str) -> bool {
    is_core(name) || column::HIDDEN.contains(&name) || [column::SEQ, column::LINE].contains(&name)
}

/// What is known of a field, in a batch, a segment, or all of a tenant's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldInfo {
    /// The type that holds all its values.
    pub r#type: FieldType,
    /// Somewhere its values lie in the overflow column.
    pub overflow: bool,
    /// Somewhere it has a column of its own.
    pub column: bool,
    /// Somewhere it is an integer that no double holds exactly.
    pub large: bool,
}

impl FieldInfo {
    /// What is known of the field in both places.
    pub(super) fn and(self, other: FieldInfo) -> FieldInfo {
        let large = self.large || other.large;
        let unified = self.r#type.unify(other.r#type);
        FieldInfo {
            // As in `batch::unified_schema_of`: a column of doubles would change such an integer.
            r#type: if large && unified == FieldType::Float { FieldType::Text } else { unified },
            overflow: self.overflow || other.overflow,
            column: self.column || other.column,
            large,
        }
    }
}

/// The fields of a batch: those with a column of their own, and those in the overflow; some are both.
pub(super) fn fields_of(batch: &RecordBatch) -> BTreeMap<String, FieldInfo> {
    let schema = batch.schema();
    let own = own_columns(&schema).map(|field| {
        let kind = FieldType::of(field.data_type()).unwrap_or(FieldType::Text);
        let large = batch.column_by_name(field.name()).is_some_and(|array| !becomes_float(array));
        (field.name().clone(), FieldInfo { r#type: kind, overflow: false, column: true, large })
    });
    let mut fields: BTreeMap<String, FieldInfo> = own.collect();
    let overflow = batch.column_by_name(column::OVERFLOW).map(|array| array.as_string::<i32>());
    let members = overflow.into_iter().flatten().flatten().flat_map(object);
    for (name, value) in members.filter(|(name, _)| !is_own(name)) {
        let large = value.as_i64().is_some_and(|value| !number::is_exact(value));
        let info = FieldInfo { r#type: type_of(&value), overflow: true, column: false, large };
        fields.entry(name).and_modify(|known| *known = known.and(info)).or_insert(info);
    }
    fields
}

/// The columns of a schema that hold fields.
fn own_columns(schema: &Schema) -> impl Iterator<Item = &Arc<Field>> {
    schema.fields().iter().filter(|field| !is_own(field.name()))
}

fn type_of(value: &Value) -> FieldType {
    match value {
        Value::Bool(_) => FieldType::Boolean,
        Value::Number(number) if number.is_i64() => FieldType::Integer,
        Value::Number(_) => FieldType::Float,
        _ => FieldType::Text,
    }
}

/// Keeps the `columns_max` fields that most records have, and moves the values of the others to the overflow column.
pub(super) fn spill(records: RecordBatch, columns_max: usize) -> Result<RecordBatch, Error> {
    let schema = records.schema();
    let mut by_use: Vec<&str> = own_columns(&schema).map(|field| field.name().as_str()).collect();
    if by_use.len() <= columns_max {
        return Ok(records);
    }
    let filled = |name: &str| records.column_by_name(name).map_or(0, |array| array.len() - array.null_count());
    by_use.sort_by_key(|name| std::cmp::Reverse(filled(name)));
    move_to_overflow(&records, &by_use[columns_max..])
}

/// The fields of a schema beyond the first `columns_max`.
pub(super) fn beyond(schema: &Schema, columns_max: usize) -> Vec<String> {
    own_columns(schema).skip(columns_max).map(|field| field.name().clone()).collect()
}

/// Moves the values of these columns to the overflow. Records that lose a column keep their line as it came, so that
/// nothing has to be put together from the overflow.
pub(super) fn move_to_overflow(records: &RecordBatch, moved: &[&str]) -> Result<RecordBatch, Error> {
    let mut rows: Vec<Map<String, Value>> = match records.column_by_name(column::OVERFLOW) {
        Some(array) => array.as_string::<i32>().iter().map(|text| text.map(object).unwrap_or_default()).collect(),
        None => vec![Map::new(); records.num_rows()],
    };
    let mut touched = vec![false; records.num_rows()];
    for name in moved {
        let array = records.column_by_name(name).expect("the name comes from this batch");
        for row in (0..array.len()).filter(|row| array.is_valid(*row)) {
            rows[row].insert((*name).to_owned(), json(array, row));
            touched[row] = true;
        }
    }
    let overflow: StringArray =
        rows.into_iter().map(|row| (!row.is_empty()).then(|| Value::Object(row).to_string())).collect();
    let lines = shape::render_lines_bytes(records)?;
    Ok(replace_columns(records, moved, overflow, &touched, &lines)?)
}

/// The fields of an overflow object. What can't be read (earlier releases wrote numbers beyond all doubles) has none: a
/// record that is in the log has to be taken up, or the store would never start again.
fn object(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap_or_default()
}

/// A field's value, which is not null, as JSON.
fn json(array: &ArrayRef, row: usize) -> Value {
    match FieldType::of(array.data_type()) {
        Some(FieldType::Integer) => array.as_primitive::<Int64Type>().value(row).into(),
        Some(FieldType::Float) => array.as_primitive::<Float64Type>().value(row).into(),
        Some(FieldType::Boolean) => array.as_boolean().value(row).into(),
        _ => array.as_string::<i32>().value(row).into(),
    }
}

fn replace_columns(
    records: &RecordBatch,
    moved: &[&str],
    overflow: StringArray,
    touched: &[bool],
    lines: &BinaryArray,
) -> Result<RecordBatch, ArrowError> {
    let shape = match records.column_by_name(column::SHAPE) {
        Some(shapes) => arrow::compute::nullif(shapes, &BooleanArray::from(touched.to_vec()))?,
        None => new_null_array(&batch::shape_type(), records.num_rows()),
    };
    let raws = records.column_by_name(column::RAW).map(|array| array.as_binary::<i32>());
    let raw: BinaryArray = touched
        .iter()
        .enumerate()
        .map(|(row, touched)| {
            let kept = raws.filter(|raws| raws.is_valid(row)).map(|raws| raws.value(row));
            if *touched { Some(lines.value(row)) } else { kept }
        })
        .collect();

    let schema = records.schema();
    let replaced = |name: &str| moved.contains(&name) || column::HIDDEN.contains(&name);
    let (mut fields, mut columns): (Vec<Arc<Field>>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
    for (field, array) in schema.fields().iter().zip(records.columns()).filter(|(field, _)| !replaced(field.name())) {
        fields.push(field.clone());
        columns.push(array.clone());
    }
    let hidden: [ArrayRef; 3] = [shape, Arc::new(raw), Arc::new(overflow)];
    for (name, array) in column::HIDDEN.iter().zip(hidden) {
        fields.push(Arc::new(Field::new(*name, array.data_type().clone(), true)));
        columns.push(array);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array};

    use super::*;

    #[test]
    fn a_field_with_a_column_and_values_in_the_overflow_is_both() {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
        let overflow: ArrayRef = Arc::new(StringArray::from(vec![None, Some(r#"{"x":"a","y":2}"#)]));
        let batch = RecordBatch::try_from_iter([("x", column), (column::OVERFLOW, overflow)]).unwrap();
        let expect = [
            ("x", FieldInfo { r#type: FieldType::Text, overflow: true, column: true, large: false }),
            ("y", FieldInfo { r#type: FieldType::Integer, overflow: true, column: false, large: false }),
        ];
        assert_eq!(fields_of(&batch), expect.map(|(name, info)| (name.to_owned(), info)).into());
    }

    /// Seen in the simulation: 9007199254740993 came back in its line as 9007199254740992.
    #[test]
    fn large_integers_and_doubles_make_a_text() {
        let info = |array: ArrayRef| fields_of(&RecordBatch::try_from_iter([("x", array)]).unwrap())["x"];
        let large = info(Arc::new(Int64Array::from(vec![(1 << 53) + 1])));
        let small = info(Arc::new(Int64Array::from(vec![1])));
        let double = info(Arc::new(Float64Array::from(vec![1.5])));
        assert_eq!(large.and(small).r#type, FieldType::Integer);
        assert_eq!(small.and(double).r#type, FieldType::Float);
        for found in [large.and(double), double.and(large), small.and(double).and(large), large.and(small).and(double)]
        {
            assert_eq!(found.r#type, FieldType::Text);
        }
    }

    /// Logs and segments of earlier releases have such objects.
    #[test]
    fn an_overflow_that_is_not_understood_has_no_fields() {
        let objects = vec![Some(r#"{"x":1E+400}"#), Some("{"), Some(r#"{"level":"INFO","_seq":1}"#), None];
        let overflow: ArrayRef = Arc::new(StringArray::from(objects));
        let batch = RecordBatch::try_from_iter([(column::OVERFLOW, overflow)]).unwrap();
        assert_eq!(fields_of(&batch), BTreeMap::new());
    }
}
