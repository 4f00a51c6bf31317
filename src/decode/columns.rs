//! Column builders of one batch: values go straight from the line into the column; nothing is built per line.
//!
//! Invariant: a column's type holds every value it was given (see [`FieldType::unify`](crate::record::FieldType)); a field
//! column that was given none is not in the batch.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanArray, DictionaryArray, Float64Array, Int32Builder, Int64Array, NullBufferBuilder,
    StringArray, StringBuilder, TimestampNanosecondArray,
};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use hashbrown::HashMap;

use crate::record::{batch, column, number};

/// A column's place in [`Columns`].
pub(super) type Slot = u32;

/// Slots of the columns that are always there; field columns follow.
pub(super) mod slot {
    use super::Slot;
    pub const LEVEL: Slot = 0;
    pub const SERVICE: Slot = 1;
    pub const MESSAGE: Slot = 2;
    pub const TRACE_ID: Slot = 3;
    pub const SPAN_ID: Slot = 4;
    pub const OVERFLOW: Slot = 5;
    /// The first field column.
    pub const FIELDS: Slot = 6;
}

const FIXED: [&str; slot::FIELDS as usize] =
    [column::LEVEL, column::SERVICE, column::MESSAGE, column::TRACE_ID, column::SPAN_ID, column::OVERFLOW];

/// A value on its way into a column. Numbers bring their spelling, for a column that is text; an empty one is made then.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cell<'a> {
    /// A text.
    Text(&'a str),
    /// An integer.
    Integer(i64, &'a str),
    /// A float.
    Float(f64, &'a str),
    /// A boolean.
    Boolean(bool),
}

#[derive(Debug)]
enum Values {
    /// No value yet.
    Unknown,
    Integers(Vec<i64>),
    Floats(Vec<f64>),
    Booleans(Vec<bool>),
    /// Keeps its own nulls, and never checks UTF-8 again: that check of whole columns cost a seventh of all decoding.
    Texts(StringBuilder),
}

#[derive(Debug)]
struct Column {
    name: Box<str>,
    values: Values,
    /// Nulls of columns that are not text.
    nulls: NullBufferBuilder,
    length: usize,
}

/// The columns of one batch.
#[derive(Debug)]
pub(super) struct Columns {
    columns: Vec<Column>,
    slots: HashMap<Box<str>, Slot>,
    times: Vec<i64>,
    /// Places among the shapes that [`Columns::finish`] is given.
    shapes: Int32Builder,
    raw: BinaryBuilder,
    /// Bytes of all texts so far, and what numbers, offsets and nulls take.
    bytes: usize,
}

impl Columns {
    pub fn new() -> Self {
        // The fixed columns are text from the start, whatever comes first.
        let column =
            |name: &&str| Column { values: Values::Texts(StringBuilder::with_capacity(64, 1024)), ..Column::new(name) };
        Columns {
            columns: FIXED.iter().map(column).collect(),
            slots: HashMap::new(),
            times: Vec::new(),
            shapes: Int32Builder::new(),
            raw: BinaryBuilder::new(),
            bytes: 0,
        }
    }

    /// Bytes that the batch takes at most, so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.times.len()
    }

    /// Makes room for `times` as many rows like those there are: columns that grow by doubling copy what they hold again
    /// and again (a ninth of all decoding), and end with up to twice the memory.
    pub fn reserve(&mut self, times: f64) {
        let rows = self.rows();
        let wanted = |length: usize| (length as f64 * times.max(1.0)) as usize;
        self.times.reserve(wanted(rows).saturating_sub(rows));
        for column in &mut self.columns {
            match &mut column.values {
                Values::Unknown => {}
                Values::Integers(values) => values.reserve(wanted(rows).saturating_sub(values.len())),
                Values::Floats(values) => values.reserve(wanted(rows).saturating_sub(values.len())),
                Values::Booleans(values) => values.reserve(wanted(rows).saturating_sub(values.len())),
                Values::Texts(texts) => {
                    let known = texts.finish();
                    *texts = StringBuilder::with_capacity(wanted(rows), wanted(known.value_data().len()));
                    texts.append_array(&known).expect("a few texts fit into a column");
                }
            }
        }
    }

    /// The name of a column.
    pub fn name(&self, slot: Slot) -> &str {
        &self.columns[slot as usize].name
    }

    /// The slot of a field; a new one while there are fewer than `fields_max` field columns.
    pub fn slot(&mut self, name: &str, fields_max: usize) -> Option<Slot> {
        if let Some(slot) = self.slots.get(name) {
            return Some(*slot);
        }
        if self.columns.len() - FIXED.len() >= fields_max {
            return None;
        }
        let slot = self.columns.len() as Slot;
        self.columns.push(Column::new(name));
        self.slots.insert(name.into(), slot);
        Some(slot)
    }

    /// Sets a value of the row that is being made.
    pub fn push(&mut self, slot: Slot, cell: Cell<'_>) {
        let row = self.times.len();
        if let Cell::Text(text) = cell {
            self.bytes += text.len();
        }
        self.columns[slot as usize].push(row, cell);
    }

    /// Ends the row. `shape` is its place among the shapes that [`Columns::finish`] will be given.
    pub fn end_row(&mut self, time_ns: i64, shape: Option<u32>, raw: Option<&[u8]>) {
        self.times.push(time_ns);
        // A number or an offset for each column, whether the row has a value or will be filled with a null.
        self.bytes += 8 * (3 + self.columns.len()) + raw.map_or(0, <[u8]>::len);
        self.shapes.append_option(shape.map(|shape| shape as i32));
        self.raw.append_option(raw);
    }

    /// The batch, in the order of [`crate::record::column`].
    pub fn finish(mut self, shapes: &[Box<str>]) -> RecordBatch {
        let rows = self.times.len();
        let times = TimestampNanosecondArray::from(std::mem::take(&mut self.times)).with_timezone("UTC");
        let mut fields: Vec<Field> = Vec::with_capacity(self.columns.len() + 2);
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.columns.len() + 2);
        let shapes = StringArray::from_iter_values(shapes.iter());
        let shapes = DictionaryArray::try_new(self.shapes.finish(), Arc::new(shapes));
        let shapes = shapes.expect("each row names a shape of the batch");
        fields.extend(batch::fixed_field(column::TIMESTAMP));
        arrays.push(Arc::new(times));
        let mut fixed: Vec<Column> = self.columns.drain(..FIXED.len()).collect();
        let overflow = fixed.split_off(slot::OVERFLOW as usize);
        let mut hidden: Vec<(&str, ArrayRef)> =
            vec![(column::SHAPE, Arc::new(shapes)), (column::RAW, Arc::new(self.raw.finish()))];
        for column in fixed.into_iter().chain(self.columns).chain(overflow) {
            if let Some(field) = batch::fixed_field(&column.name) {
                if field.name() == column::OVERFLOW {
                    for (name, array) in hidden.drain(..) {
                        fields.extend(batch::fixed_field(name));
                        arrays.push(array);
                    }
                }
                fields.push(field);
                arrays.push(column.finish_text(rows));
            } else if let Some(array) = column.finish(rows) {
                arrays.push(array.1);
                fields.push(array.0);
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
            .expect("every column was filled to the same length, with its field's type")
    }
}

impl Column {
    fn new(name: &str) -> Self {
        Column { name: name.into(), values: Values::Unknown, nulls: NullBufferBuilder::new(0), length: 0 }
    }

    /// Fills up with nulls to `row`.
    fn fill(&mut self, row: usize) {
        let missing = row - self.length;
        if missing == 0 {
            return;
        }
        self.length = row;
        match &mut self.values {
            Values::Texts(texts) => return texts.append_nulls(missing),
            Values::Unknown => {}
            Values::Integers(values) => values.resize(row, 0),
            Values::Floats(values) => values.resize(row, 0.0),
            Values::Booleans(values) => values.resize(row, false),
        }
        self.nulls.append_n_nulls(missing);
    }

    fn push(&mut self, row: usize, cell: Cell<'_>) {
        assert!(self.length <= row, "column {:?} was given two values for row {row}", self.name);
        self.fill(row);
        match (&mut self.values, cell) {
            (Values::Texts(texts), Cell::Text(text)) => texts.append_value(text),
            (Values::Integers(values), Cell::Integer(value, _)) => values.push(value),
            (Values::Floats(values), Cell::Float(value, _)) => values.push(value),
            (Values::Booleans(values), Cell::Boolean(value)) => values.push(value),
            _ => self.push_other(row, cell),
        }
        if !matches!(self.values, Values::Texts(_)) {
            self.nulls.append_non_null();
        }
        self.length = row + 1;
    }

    /// Takes a value that the column's type does not hold: the first one, or one that widens it.
    #[cold]
    fn push_other(&mut self, row: usize, cell: Cell<'_>) {
        match (&mut self.values, cell) {
            (Values::Unknown, Cell::Integer(..)) => self.values = Values::Integers(vec![0; row]),
            (Values::Unknown, Cell::Float(..)) => self.values = Values::Floats(vec![0.0; row]),
            (Values::Unknown, Cell::Boolean(_)) => self.values = Values::Booleans(vec![false; row]),
            (Values::Integers(values), Cell::Float(..)) if values.iter().all(|value| number::is_exact(*value)) => {
                self.values = Values::Floats(values.iter().map(|value| *value as f64).collect());
            }
            (Values::Floats(values), Cell::Integer(value, _)) if number::is_exact(value) => {
                return values.push(value as f64);
            }
            (Values::Texts(_), _) => {}
            _ => self.values = Values::Texts(self.as_texts()),
        }
        match (&mut self.values, cell) {
            (Values::Integers(values), Cell::Integer(value, _)) => values.push(value),
            (Values::Floats(values), Cell::Float(value, _)) => values.push(value),
            (Values::Booleans(values), Cell::Boolean(value)) => values.push(value),
            (Values::Texts(texts), Cell::Text(text)) => texts.append_value(text),
            (Values::Texts(texts), Cell::Boolean(value)) => texts.append_value(if value { "true" } else { "false" }),
            (Values::Texts(texts), Cell::Integer(value, "")) => texts.append_value(value.to_string()),
            (Values::Texts(texts), Cell::Float(value, "")) => texts.append_value(value.to_string()),
            (Values::Texts(texts), Cell::Integer(_, spelling) | Cell::Float(_, spelling)) => {
                texts.append_value(spelling)
            }
            (Values::Unknown | Values::Integers(_) | Values::Floats(_) | Values::Booleans(_), _) => {
                unreachable!("the column was made to hold the value")
            }
        }
    }

    /// All values so far as text.
    fn as_texts(&self) -> StringBuilder {
        let mut texts = StringBuilder::with_capacity(self.length + 1, self.length * 4);
        let mut text = Vec::new();
        for row in 0..self.length {
            text.clear();
            match &self.values {
                Values::Integers(values) => number::write_integer(values[row], &mut text),
                Values::Floats(values) => number::write_float(values[row], number::Style::Js, &mut text),
                Values::Booleans(values) => text.extend_from_slice(if values[row] { b"true" } else { b"false" }),
                Values::Unknown | Values::Texts(_) => {}
            }
            let is_null = matches!(self.values, Values::Unknown) || !self.nulls.is_valid(row);
            texts.append_option((!is_null).then(|| String::from_utf8_lossy(&text)));
        }
        texts
    }

    fn finish(mut self, rows: usize) -> Option<(Field, ArrayRef)> {
        self.fill(rows);
        let nulls = self.nulls.finish();
        let array: ArrayRef = match self.values {
            Values::Unknown => return None,
            Values::Integers(values) => Arc::new(Int64Array::new(values.into(), nulls)),
            Values::Floats(values) => Arc::new(Float64Array::new(values.into(), nulls)),
            Values::Booleans(values) => Arc::new(BooleanArray::new(BooleanBuffer::from(values), nulls)),
            Values::Texts(mut texts) => Arc::new(texts.finish()),
        };
        Some((Field::new(&*self.name, array.data_type().clone(), true), array))
    }

    fn finish_text(self, rows: usize) -> ArrayRef {
        self.finish(rows).map_or_else(|| Arc::new(StringArray::new_null(rows)) as ArrayRef, |(_, array)| array)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{DataType, Float64Type, Int64Type};

    use super::*;

    fn column_of(cells: &[Option<Cell<'_>>]) -> ArrayRef {
        let mut columns = Columns::new();
        let slot = columns.slot("x", 10).unwrap();
        for cell in cells {
            if let Some(cell) = cell {
                columns.push(slot, *cell);
            }
            columns.end_row(0, None, None);
        }
        columns.finish(&[]).column_by_name("x").unwrap().clone()
    }

    #[test]
    fn types_are_widened_without_loss() {
        let integer = |value: i64, text: &'static str| Some(Cell::Integer(value, text));
        let mixed = column_of(&[integer(1, "1"), None, Some(Cell::Float(2.5, "2.50")), integer(3, "3")]);
        assert_eq!(
            mixed.as_primitive::<Float64Type>().iter().collect::<Vec<_>>(),
            [Some(1.0), None, Some(2.5), Some(3.0)]
        );
        let large = column_of(&[integer((1 << 53) + 1, "9007199254740993"), Some(Cell::Float(2.5, "2.50"))]);
        assert_eq!(large.as_string::<i32>().iter().collect::<Vec<_>>(), [Some("9007199254740993"), Some("2.50")]);
        let texts = column_of(&[
            Some(Cell::Boolean(true)),
            None,
            integer(5, "5"),
            Some(Cell::Text("y")),
            Some(Cell::Boolean(false)),
        ]);
        let wanted = [Some("true"), None, Some("5"), Some("y"), Some("false")];
        assert_eq!(texts.as_string::<i32>().iter().collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn room_changes_no_value() {
        let mut columns = Columns::new();
        let (text, number) = (columns.slot("text", 9).unwrap(), columns.slot("number", 9).unwrap());
        for row in 0..6_i64 {
            if row == 3 {
                columns.reserve(2.5);
            }
            if row != 1 {
                columns.push(text, Cell::Text(&format!("value {row}")));
                columns.push(number, Cell::Integer(row, ""));
            }
            columns.end_row(row, None, None);
        }
        let batch = columns.finish(&[]);
        let texts = batch.column_by_name("text").unwrap().as_string::<i32>().iter().collect::<Vec<_>>();
        let wanted = [Some("value 0"), None, Some("value 2"), Some("value 3"), Some("value 4"), Some("value 5")];
        assert_eq!(texts, wanted);
        let numbers = batch.column_by_name("number").unwrap().as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
        assert_eq!(numbers, [Some(0), None, Some(2), Some(3), Some(4), Some(5)]);
    }

    #[test]
    fn the_order_of_columns() {
        let mut columns = Columns::new();
        let (b, empty) = (columns.slot("b", 3).unwrap(), columns.slot("empty", 3).unwrap());
        let a = columns.slot("a", 3).unwrap();
        assert_eq!(columns.slot("one too many", 3), None);
        assert_eq!(columns.slot("a", 3), Some(a));
        columns.push(a, Cell::Integer(1, "1"));
        columns.push(b, Cell::Integer(1, "1"));
        columns.end_row(5, Some(1), Some(b"raw"));
        let batch = columns.finish(&["x".into(), "y".into()]);
        let names: Vec<&str> = batch.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, column::CORE.into_iter().chain(["b", "a"]).chain(column::HIDDEN).collect::<Vec<_>>());
        assert_eq!(batch.column_by_name(column::RAW).unwrap().data_type(), &DataType::Binary);
        let shapes = batch.column_by_name(column::SHAPE).unwrap();
        assert_eq!(shapes.data_type(), &batch::shape_type());
        let shapes = arrow::compute::cast(shapes, &DataType::Utf8).unwrap();
        assert_eq!(shapes.as_string::<i32>().value(0), "y");
        assert!(empty > b);
    }
}
