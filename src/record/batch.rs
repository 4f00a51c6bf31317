//! Batches with different columns brought together: the schema that holds them all, and a batch in that schema.
//! Used where batches meet (buffer, flush, scan); it does not decide which batches do.
//!
//! Invariant: widening loses no value: `Int64` → `Float64` → `Utf8`, `Boolean` → `Utf8`. (Whether an `Int64` column may
//! become `Float64` depends on its values: see [`conform`].)

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, DictionaryArray, Float64Array, Int32Array, Int64Array, StringBuilder,
    new_null_array,
};
use arrow::datatypes::{DataType, Field, Float64Type, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use super::{FieldType, column, number};

/// Why batches could not be brought together.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The column's text is longer than one array can hold.
    #[error("the text of column {0:?} is longer than 2 GiB")]
    TooLong(&'static str),
    /// A column has a type that is none of the data model, or cannot become the wanted one.
    #[error("column {name:?} of type {from} can't become {to}")]
    Type {
        /// The column.
        name: String,
        /// Its type.
        from: DataType,
        /// The type asked for.
        to: DataType,
    },
    /// Arrow refused.
    #[error("arrow: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
}

/// The column's field as every batch has it: core columns, hidden columns, and `_seq` have their fixed types.
pub fn fixed_field(name: &str) -> Option<Field> {
    let (data_type, nullable) = match name {
        column::TIMESTAMP => (DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), false),
        column::SEQ => (DataType::Int64, false),
        column::RAW => (DataType::Binary, true),
        column::SHAPE => (shape_type(), true),
        _ if column::CORE.contains(&name) || column::HIDDEN.contains(&name) => (DataType::Utf8, true),
        _ => return None,
    };
    Some(Field::new(name, data_type, nullable))
}

/// The type of `_shape` in memory. The lines of a batch have few shapes, and a shape is about as long as its line: as a
/// text for each row they took more memory than all other columns together.
pub fn shape_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// The schema that holds all batches: core columns, then fields in order of first appearance with unified types, then the
/// hidden columns, then `_seq` where one has it. Metadata is dropped.
pub fn unified_schema(schemas: &[SchemaRef]) -> SchemaRef {
    let mut order: Vec<Field> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut has_seq = false;
    for field in schemas.iter().flat_map(|schema| schema.fields()) {
        if field.name() == column::SEQ {
            has_seq = true;
        }
        if fixed_field(field.name()).is_some() {
            continue;
        }
        match places.get(field.name().as_str()) {
            None => {
                places.insert(field.name(), order.len());
                order.push(Field::new(field.name(), plain(field.data_type()), true));
            }
            Some(place) => {
                let known = &mut order[*place];
                let unified = unify(known.data_type(), field.data_type());
                known.set_data_type(unified);
            }
        }
    }
    let fixed = |name: &&str| fixed_field(name);
    let mut fields: Vec<Field> = column::CORE.iter().filter_map(fixed).collect();
    fields.append(&mut order);
    fields.extend(column::HIDDEN.iter().filter_map(fixed));
    if has_seq {
        fields.extend(fixed_field(column::SEQ));
    }
    Arc::new(Schema::new(fields))
}

/// The plain form of a text type.
fn plain(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::Dictionary(_, value) => plain(value),
        other => other.clone(),
    }
}

fn unify(a: &DataType, b: &DataType) -> DataType {
    match (FieldType::of(a), FieldType::of(b)) {
        (Some(a), Some(b)) => a.unify(b).arrow(),
        _ if plain(a) == plain(b) => plain(a),
        _ => DataType::Utf8,
    }
}

/// As [`unified_schema`], looking at values where types alone can't tell: an integer column with a value that no double
/// holds exactly unifies with a float column to text.
pub fn unified_schema_of(batches: &[RecordBatch]) -> SchemaRef {
    let schemas: Vec<SchemaRef> = batches.iter().map(RecordBatch::schema).collect();
    let unified = unified_schema(&schemas);
    let inexact =
        |name: &str| batches.iter().filter_map(|batch| batch.column_by_name(name)).any(|array| !becomes_float(array));
    let fields = unified.fields().iter().map(|field| match field.data_type() {
        DataType::Float64 if inexact(field.name()) => Arc::new(Field::new(field.name(), DataType::Utf8, true)),
        _ => field.clone(),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Whether each integer of the column is a double; columns of other types do not stand in the way.
pub fn becomes_float(array: &ArrayRef) -> bool {
    match array.as_primitive_opt::<Int64Type>() {
        Some(integers) if *array.data_type() == DataType::Int64 => integers.iter().flatten().all(number::is_exact),
        _ => true,
    }
}

/// The batch in `schema`: columns by name, absent ones null, types widened; columns that `schema` does not have are
/// dropped. An integer that no double holds becomes the nearest one where `schema` says `Float64`; make the schema by
/// [`unified_schema_of`] to avoid that. **Errors**: when a type would have to be narrowed.
pub fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, Error> {
    if batch.schema_ref() == schema {
        return Ok(batch.clone());
    }
    let rows = batch.num_rows();
    let columns = schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        None => Ok(new_null_array(field.data_type(), rows)),
        Some(array) => widen(array, field.data_type()).map_err(|error| match error {
            Error::Type { from, to, .. } => Error::Type { name: field.name().clone(), from, to },
            other => other,
        }),
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

/// One batch of all rows, in their order. **Errors**: when a column's text passes 2 GiB.
pub fn concat(batches: &[RecordBatch]) -> Result<RecordBatch, Error> {
    let schema = unified_schema_of(batches);
    let conformed = batches.iter().map(|batch| conform(batch, &schema)).collect::<Result<Vec<_>, _>>()?;
    let columns = (0..schema.fields().len()).map(|at| {
        let parts: Vec<&ArrayRef> = conformed.iter().map(|batch| batch.column(at)).collect();
        join(&parts, arrow::compute::concat)
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

/// A column of the rows that `indices` names as (part, row), in that order. **Errors**: as [`concat`].
pub fn interleave(parts: &[&ArrayRef], indices: &[(usize, usize)]) -> Result<ArrayRef, Error> {
    join(parts, |parts| arrow::compute::interleave(parts, indices))
}

/// Makes one column of many. Dictionaries are made one first, of the texts that are used, each once; Arrow would put them
/// behind each other, and they would grow with every merge.
fn join(parts: &[&ArrayRef], take: impl Fn(&[&dyn Array]) -> Result<ArrayRef, ArrowError>) -> Result<ArrayRef, Error> {
    let dictionaries: Option<Vec<&DictionaryArray<Int32Type>>> =
        parts.iter().map(|part| part.as_dictionary_opt::<Int32Type>()).collect();
    let Some(dictionaries) = dictionaries.filter(|found| !found.is_empty()) else {
        let parts: Vec<&dyn Array> = parts.iter().map(|part| part.as_ref()).collect();
        return Ok(take(&parts)?);
    };
    let (keys, texts) = one_dictionary(&dictionaries)?;
    let keys: Vec<&dyn Array> = keys.iter().map(|keys| keys as &dyn Array).collect();
    let keys = take(&keys)?.as_primitive::<Int32Type>().clone();
    Ok(Arc::new(DictionaryArray::try_new(keys, texts)?))
}

/// The keys of all dictionaries in one, and its texts.
fn one_dictionary(dictionaries: &[&DictionaryArray<Int32Type>]) -> Result<(Vec<Int32Array>, ArrayRef), Error> {
    let first = dictionaries[0].values();
    if dictionaries.iter().all(|dictionary| Arc::ptr_eq(dictionary.values(), first)) {
        return Ok((dictionaries.iter().map(|dictionary| dictionary.keys().clone()).collect(), first.clone()));
    }
    let mut places: HashMap<&str, i32> = HashMap::new();
    let mut texts = StringBuilder::new();
    let mut bytes = 0;
    let mut all_keys = Vec::with_capacity(dictionaries.len());
    for dictionary in dictionaries {
        let own = dictionary.values().as_string_opt::<i32>().ok_or_else(|| Error::Type {
            name: column::SHAPE.to_owned(),
            from: dictionary.data_type().clone(),
            to: shape_type(),
        })?;
        let mut known: Vec<Option<i32>> = vec![None; own.len()];
        let mut place_of = |key: i32| {
            let key = usize::try_from(key).ok().filter(|key| own.is_valid(*key))?;
            Some(*known[key].get_or_insert_with(|| {
                let (text, next) = (own.value(key), places.len() as i32);
                *places.entry(text).or_insert_with(|| {
                    bytes += text.len();
                    if bytes <= i32::MAX as usize {
                        texts.append_value(text);
                    }
                    next
                })
            }))
        };
        let keys: Int32Array = dictionary.keys().iter().map(|key| key.and_then(&mut place_of)).collect();
        all_keys.push(keys);
    }
    if bytes > i32::MAX as usize {
        return Err(Error::TooLong(column::SHAPE));
    }
    Ok((all_keys, Arc::new(texts.finish())))
}

/// The column in a wider type; text of numbers as JavaScript prints them. **Errors**: when `to` is narrower.
pub fn widen(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, Error> {
    let from = array.data_type();
    if from == to {
        return Ok(array.clone());
    }
    let is_text = |data_type: &DataType| plain(data_type) == DataType::Utf8;
    match from {
        DataType::Int64 if *to == DataType::Float64 => Ok(Arc::new(floats(array.as_primitive::<Int64Type>()))),
        DataType::Int64 | DataType::Float64 | DataType::Boolean if is_text(to) => {
            let text = as_text(array);
            if *to == DataType::Utf8 { Ok(text) } else { Ok(arrow::compute::cast(&text, to)?) }
        }
        _ if plain(from) == plain(to) || from.is_null() => Ok(arrow::compute::cast(array, to)?),
        DataType::Binary | DataType::BinaryView | DataType::LargeBinary
            if matches!(to, DataType::Binary | DataType::BinaryView | DataType::LargeBinary) =>
        {
            Ok(arrow::compute::cast(array, to)?)
        }
        _ if matches!((from, to), (DataType::Timestamp(a, _), DataType::Timestamp(b, _)) if a == b) => {
            Ok(arrow::compute::cast(array, to)?)
        }
        _ => Err(Error::Type { name: String::new(), from: from.clone(), to: to.clone() }),
    }
}

fn floats(integers: &Int64Array) -> Float64Array {
    integers.unary(|value| value as f64)
}

fn as_text(array: &ArrayRef) -> ArrayRef {
    let mut out = StringBuilder::with_capacity(array.len(), array.len() * 8);
    let mut text = Vec::new();
    for row in 0..array.len() {
        if array.is_null(row) {
            out.append_null();
            continue;
        }
        text.clear();
        match array.data_type() {
            DataType::Int64 => number::write_integer(array.as_primitive::<Int64Type>().value(row), &mut text),
            DataType::Float64 => {
                number::write_float(array.as_primitive::<Float64Type>().value(row), number::Style::Js, &mut text);
            }
            _ => {
                let booleans: &BooleanArray = array.as_boolean();
                text.extend_from_slice(if booleans.value(row) { b"true" } else { b"false" });
            }
        }
        out.append_value(String::from_utf8_lossy(&text));
    }
    Arc::new(out.finish())
}

#[cfg(test)]
pub(crate) mod tests {
    use arrow::array::{BinaryArray, StringArray, TimestampNanosecondArray};

    use super::*;

    fn batch(fields: Vec<(&str, ArrayRef)>) -> RecordBatch {
        let rows = fields.first().map_or(1, |(_, array)| array.len());
        let times = TimestampNanosecondArray::from(vec![7; rows]).with_timezone("UTC");
        let mut columns: Vec<(&str, ArrayRef, bool)> = vec![(column::TIMESTAMP, Arc::new(times), false)];
        columns.extend(fields.into_iter().map(|(name, array)| (name, array, true)));
        RecordBatch::try_from_iter_with_nullable(columns).unwrap()
    }

    /// Records as storage takes them: these columns, and the core and hidden ones that are not among them empty.
    pub(crate) fn records(times_ns: &[i64], given: &[(&str, ArrayRef)]) -> RecordBatch {
        let is_fixed = |name: &str| fixed_field(name).is_some();
        let fixed = column::CORE.iter().chain(&column::HIDDEN).map(|name| {
            let empty = || new_null_array(fixed_field(name).unwrap().data_type(), times_ns.len());
            let array = given.iter().find(|(known, _)| known == name).map(|(_, array)| array.clone());
            match *name {
                column::TIMESTAMP => {
                    let times = TimestampNanosecondArray::from(times_ns.to_vec()).with_timezone("UTC");
                    (*name, Arc::new(times) as ArrayRef, false)
                }
                _ => (*name, array.unwrap_or_else(empty), true),
            }
        });
        let others = given.iter().filter(|(name, _)| !is_fixed(name)).map(|(name, array)| (*name, array.clone(), true));
        RecordBatch::try_from_iter_with_nullable(fixed.chain(others)).unwrap()
    }

    #[test]
    fn columns_are_unified() {
        let integers = batch(vec![
            ("n", Arc::new(Int64Array::from(vec![Some(1), None]))),
            ("b", Arc::new(BooleanArray::from(vec![true, false]))),
        ]);
        let floats =
            batch(vec![("n", Arc::new(Float64Array::from(vec![2.5]))), ("m", Arc::new(StringArray::from(vec!["x"])))]);
        let texts = batch(vec![
            ("b", Arc::new(StringArray::from(vec!["y"]))),
            ("_raw", Arc::new(BinaryArray::from(vec![&b"r"[..]]))),
        ]);
        let all = concat(&[integers.clone(), floats.clone(), texts]).unwrap();
        assert_eq!(all.num_rows(), 4);
        let names: Vec<&str> = all.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
        let wanted: Vec<&str> = column::CORE.into_iter().chain(["n", "b", "m"]).chain(column::HIDDEN).collect();
        assert_eq!(names, wanted);
        let numbers = all.column_by_name("n").unwrap().as_primitive::<Float64Type>();
        assert_eq!(numbers.iter().collect::<Vec<_>>(), [Some(1.0), None, Some(2.5), None]);
        let texts = all.column_by_name("b").unwrap().as_string::<i32>();
        assert_eq!(texts.iter().collect::<Vec<_>>(), [Some("true"), Some("false"), None, Some("y")]);
        assert!(conform(&floats, &integers.schema()).is_err());
    }

    fn shapes(texts: &[Option<&str>]) -> ArrayRef {
        Arc::new(texts.iter().copied().collect::<DictionaryArray<Int32Type>>())
    }

    fn texts_of(array: &ArrayRef) -> Vec<Option<String>> {
        let texts = arrow::compute::cast(array, &DataType::Utf8).unwrap();
        texts.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
    }

    #[test]
    fn dictionaries_of_shapes_become_one() {
        let old = batch(vec![("_shape", Arc::new(StringArray::from(vec![Some("b"), None])))]);
        let new = batch(vec![("_shape", shapes(&[Some("unused"), Some("a"), None, Some("b")]).slice(1, 3))]);
        let without = batch(vec![("n", Arc::new(Int64Array::from(vec![1])))]);
        let all = concat(&[old, new.clone(), without, new]).unwrap();
        let column = all.column_by_name("_shape").unwrap();
        let wanted =
            ["b", "", "a", "", "b", "", "a", "", "b"].map(|text| Some(text.to_owned()).filter(|text| !text.is_empty()));
        assert_eq!(texts_of(column), wanted);
        assert_eq!(column.as_dictionary::<Int32Type>().values().len(), 2, "each text once, none that is not used");

        let picked =
            interleave(&[column, &shapes(&[Some("c"), Some("a")])], &[(1, 1), (0, 0), (1, 0), (0, 1)]).unwrap();
        assert_eq!(
            texts_of(&picked),
            ["a", "b", "c", ""].map(|text| Some(text.to_owned()).filter(|text| !text.is_empty()))
        );
        let halves = [column.slice(0, 4), column.slice(4, 5)];
        let again = join(&[&halves[0], &halves[1]], arrow::compute::concat).unwrap();
        assert!(Arc::ptr_eq(again.as_dictionary::<Int32Type>().values(), column.as_dictionary::<Int32Type>().values()));
        let view = widen(column, &DataType::Utf8View).unwrap();
        assert_eq!(texts_of(&view), wanted);
    }

    #[test]
    fn an_integer_that_is_no_double_becomes_text() {
        let large = (1 << 53) + 1;
        let integers = batch(vec![("n", Arc::new(Int64Array::from(vec![large])))]);
        let floats = batch(vec![("n", Arc::new(Float64Array::from(vec![2.0])))]);
        let all = concat(&[integers, floats]).unwrap();
        let texts = all.column_by_name("n").unwrap().as_string::<i32>();
        assert_eq!(texts.iter().collect::<Vec<_>>(), [Some("9007199254740993"), Some("2")]);
    }
}
