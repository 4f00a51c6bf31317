//! Shapes: a received line as its literal text with a placeholder for each value that lives in a column, and the way
//! back from shape and columns to the line. How shapes are found is `decode`'s work.
//!
//! Invariant: a decoder stores a shape only where writing each value in its placeholder's style gave the bytes that were
//! received; so [`Bound::write`] gives back the line, also after a column's type was widened ([`super::batch::conform`]).
//!
//! A shape as text: `{"ts":"⟨t-T.3Z timestamp⟩","level":"⟨s level⟩","status":⟨n status⟩}`; a placeholder is a code, a space
//! and the column's name between U+27E8 and U+27E9. Lines that have one of these two characters outside of their values
//! get no shape.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BooleanArray, Float64Array, Int32Array, Int64Array,
    StringArray, StringBuilder, StringViewArray, TimestampNanosecondArray,
};
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type, TimeUnit, TimestampNanosecondType};
use arrow::record_batch::RecordBatch;

use super::quote::Quote;
use super::{column, number, time};

/// Opens a placeholder.
pub const OPEN: char = '\u{27e8}';
/// Closes a placeholder.
pub const CLOSE: char = '\u{27e9}';

/// How a value is written into its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The characters of a text; also numbers and JSON that are kept as text.
    Text(Quote),
    /// A number.
    Number(number::Style),
    /// `true` or `false`.
    Boolean,
    /// `True` or `False`.
    BooleanPython,
    /// A time; the column is `timestamp`.
    Time(time::Style),
}

/// A placeholder's way of writing: a kind, and, where the line stood inside a string of another (Docker's wrapper), the
/// quoting of that string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rendering {
    /// How the value is written into its own line.
    pub kind: Kind,
    /// How that line is quoted inside the received one.
    pub wrapper: Option<Quote>,
}

/// One part of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text that is the same in all lines of the shape.
    Literal(String),
    /// A value.
    Value {
        /// How it is written.
        rendering: Rendering,
        /// Where it lives.
        column: String,
    },
}

/// A shape that has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// The line's parts, from its start.
    pub parts: Vec<Part>,
}

impl Rendering {
    /// A value that stands in the received line itself.
    pub fn plain(kind: Kind) -> Self {
        Rendering { kind, wrapper: None }
    }

    fn write_code(self, out: &mut String) {
        if let Some(wrapper) = self.wrapper {
            out.extend([wrapper.code(), '>']);
        }
        match self.kind {
            Kind::Text(quote) => out.push(quote.code()),
            Kind::Number(style) => style.write_code(out),
            Kind::Boolean => out.push('b'),
            Kind::BooleanPython => out.push('B'),
            Kind::Time(style) => style.write_code(out),
        }
    }

    fn parse_code(code: &str) -> Option<Self> {
        let (wrapper, code) = match code.split_once('>') {
            Some((wrapper, code)) => (Some(Quote::parse_code(wrapper.chars().next()?)?), code),
            None => (None, code),
        };
        let mut characters = code.chars();
        let single = characters.next().filter(|_| characters.next().is_none());
        let kind = match single {
            Some('b') => Kind::Boolean,
            Some('B') => Kind::BooleanPython,
            Some(letter) if Quote::parse_code(letter).is_some() => Kind::Text(Quote::parse_code(letter)?),
            _ => match number::Style::parse_code(code) {
                Some(style) => Kind::Number(style),
                None => Kind::Time(time::Style::parse_code(code)?),
            },
        };
        Some(Rendering { kind, wrapper })
    }
}

/// Whether a literal or a column's name can stand in a shape.
pub fn can_hold(text: &str) -> bool {
    // Both characters start with the same two bytes, which few texts have.
    memchr::memmem::find(text.as_bytes(), b"\xe2\x9f").is_none() || !text.contains([OPEN, CLOSE])
}

/// Appends a placeholder to a shape's text.
pub fn write_placeholder(rendering: Rendering, column: &str, out: &mut String) {
    out.push(OPEN);
    rendering.write_code(out);
    out.push(' ');
    out.push_str(column);
    out.push(CLOSE);
}

impl Template {
    /// Reads a shape; `None` when the text is none.
    pub fn parse(shape: &str) -> Option<Template> {
        let mut parts = Vec::new();
        let mut rest = shape;
        while let Some((literal, after)) = rest.split_once(OPEN) {
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_string()));
            }
            let (placeholder, after) = after.split_once(CLOSE)?;
            let (code, column) = placeholder.split_once(' ')?;
            parts.push(Part::Value { rendering: Rendering::parse_code(code)?, column: column.to_string() });
            rest = after;
        }
        if rest.contains(CLOSE) {
            return None;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_string()));
        }
        Some(Template { parts })
    }

    /// Names of the columns it needs, in order of first use.
    pub fn columns(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for part in &self.parts {
            if let Part::Value { column, .. } = part
                && !names.contains(&column.as_str())
            {
                names.push(column);
            }
        }
        names
    }
}

/// Names of the columns that a template needs.
pub fn columns_of(template: &Template) -> Vec<&str> {
    template.columns()
}

/// A column as templates read it.
#[derive(Debug, Clone)]
enum Values {
    Text(StringArray),
    View(StringViewArray),
    Shared(Int32Array, StringArray),
    Integer(Int64Array),
    Float(Float64Array),
    Boolean(BooleanArray),
    Time(TimestampNanosecondArray),
    Binary(BinaryArray),
    Absent,
}

impl Values {
    fn of(array: &ArrayRef) -> Values {
        match array.data_type() {
            DataType::Utf8 => Values::Text(array.as_string::<i32>().clone()),
            DataType::Utf8View => Values::View(array.as_string_view().clone()),
            DataType::Int64 => Values::Integer(array.as_primitive::<Int64Type>().clone()),
            DataType::Float64 => Values::Float(array.as_primitive::<Float64Type>().clone()),
            DataType::Boolean => Values::Boolean(array.as_boolean().clone()),
            DataType::Binary => Values::Binary(array.as_binary::<i32>().clone()),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                Values::Time(array.as_primitive::<TimestampNanosecondType>().clone())
            }
            DataType::Dictionary(key, text) if (&**key, &**text) == (&DataType::Int32, &DataType::Utf8) => {
                let dictionary = array.as_dictionary::<Int32Type>();
                Values::Shared(dictionary.keys().clone(), dictionary.values().as_string::<i32>().clone())
            }
            // Other dictionaries, large and binary views: what else holds text is made plain once.
            _ => match arrow::compute::cast(array, &DataType::Utf8) {
                Ok(text) => Values::Text(text.as_string::<i32>().clone()),
                Err(_) => Values::Absent,
            },
        }
    }

    fn text(&self, row: usize) -> Option<&str> {
        match self {
            Values::Text(array) => array.is_valid(row).then(|| array.value(row)),
            Values::View(array) => array.is_valid(row).then(|| array.value(row)),
            Values::Shared(keys, texts) => {
                let key = keys.is_valid(row).then(|| keys.value(row) as usize)?;
                texts.is_valid(key).then(|| texts.value(key))
            }
            _ => None,
        }
    }

    /// Appends the value as `kind` writes it; nothing for a null, which no placeholder was made for.
    fn write(&self, kind: Kind, row: usize, out: &mut Vec<u8>) {
        match self {
            Values::Text(array) if array.is_valid(row) => write_text(array.value(row), kind, out),
            Values::View(array) if array.is_valid(row) => write_text(array.value(row), kind, out),
            Values::Shared(..) => self.text(row).into_iter().for_each(|text| write_text(text, kind, out)),
            Values::Integer(array) if array.is_valid(row) => match kind {
                Kind::Number(style) => number::write_integer_as(array.value(row), style, out),
                Kind::Time(style) => time::write(array.value(row), style, out),
                _ => number::write_integer(array.value(row), out),
            },
            Values::Float(array) if array.is_valid(row) => match kind {
                Kind::Number(style) => number::write_float(array.value(row), style, out),
                _ => number::write_float(array.value(row), number::Style::Js, out),
            },
            Values::Boolean(array) if array.is_valid(row) => write_boolean(array.value(row), kind, out),
            Values::Time(array) if array.is_valid(row) => match kind {
                Kind::Time(style) => time::write(array.value(row), style, out),
                _ => number::write_integer(array.value(row), out),
            },
            Values::Binary(array) if array.is_valid(row) => match std::str::from_utf8(array.value(row)) {
                Ok(text) => write_text(text, kind, out),
                Err(_) => out.extend_from_slice(array.value(row)),
            },
            _ => {}
        }
    }
}

fn write_boolean(value: bool, kind: Kind, out: &mut Vec<u8>) {
    let text: &[u8] = match (value, kind) {
        (true, Kind::BooleanPython) => b"True",
        (false, Kind::BooleanPython) => b"False",
        (true, _) => b"true",
        (false, _) => b"false",
    };
    out.extend_from_slice(text);
}

fn write_text(text: &str, kind: Kind, out: &mut Vec<u8>) {
    match kind {
        Kind::Text(quote) => quote.write(text, out),
        Kind::Number(style) => number::write_text_as(text, style, out),
        Kind::BooleanPython => match text {
            "true" => out.extend_from_slice(b"True"),
            "false" => out.extend_from_slice(b"False"),
            _ => out.extend_from_slice(text.as_bytes()),
        },
        Kind::Boolean | Kind::Time(_) => out.extend_from_slice(text.as_bytes()),
    }
}

/// A template with its columns found in one batch.
#[derive(Debug)]
pub struct Bound {
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Literal(String),
    Value(Rendering, Arc<Values>),
}

impl Bound {
    /// Appends the line of `row`.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) {
        for step in &self.steps {
            match step {
                Step::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Step::Value(Rendering { kind, wrapper: None }, values) => values.write(*kind, row, out),
                Step::Value(Rendering { kind, wrapper: Some(wrapper) }, values) => {
                    let mut inner = Vec::new();
                    values.write(*kind, row, &mut inner);
                    wrapper.write(&String::from_utf8_lossy(&inner), out);
                }
            }
        }
    }
}

/// Gives back the lines of one batch; keeps what it has read of shapes and columns.
pub struct Lines<'a> {
    batch: &'a RecordBatch,
    shapes: Values,
    raw: Values,
    message: Values,
    columns: HashMap<String, Arc<Values>>,
    bound: HashMap<String, Option<Bound>>,
}

impl<'a> Lines<'a> {
    /// **Shape**: `batch` has `_shape`, `_raw`, `message` and the columns that its shapes name ([`columns_of`]); an absent
    /// one counts as null.
    pub fn new(batch: &'a RecordBatch) -> Self {
        let values = |name: &str| batch.column_by_name(name).map_or(Values::Absent, Values::of);
        Lines {
            batch,
            shapes: values(column::SHAPE),
            raw: values(column::RAW),
            message: values(column::MESSAGE),
            columns: HashMap::new(),
            bound: HashMap::new(),
        }
    }

    /// Appends the line of `row` as it was received.
    pub fn write(&mut self, row: usize, out: &mut Vec<u8>) {
        if let Values::Binary(raw) = &self.raw
            && raw.is_valid(row)
        {
            return out.extend_from_slice(raw.value(row));
        }
        let Some(shape) = self.shapes.text(row) else {
            return self.message.write(Kind::Text(Quote::Verbatim), row, out);
        };
        if !self.bound.contains_key(shape) {
            let bound = Template::parse(shape).map(|template| bind(self.batch, &template, &mut self.columns));
            self.bound.insert(shape.to_string(), bound);
        }
        match self.bound.get(shape) {
            Some(Some(bound)) => bound.write(row, out),
            _ => out.extend_from_slice(shape.as_bytes()),
        }
    }
}

fn bind(batch: &RecordBatch, template: &Template, columns: &mut HashMap<String, Arc<Values>>) -> Bound {
    let steps = template.parts.iter().map(|part| match part {
        Part::Literal(text) => Step::Literal(text.clone()),
        Part::Value { rendering, column } => {
            let values = columns
                .entry(column.clone())
                .or_insert_with(|| Arc::new(batch.column_by_name(column).map_or(Values::Absent, Values::of)));
            Step::Value(*rendering, values.clone())
        }
    });
    Bound { steps: steps.collect() }
}

/// Binds a template to the columns of a batch; a column that the batch does not have counts as null.
pub fn bound_to(template: &Template, batch: &RecordBatch) -> Bound {
    bind(batch, template, &mut HashMap::new())
}

/// Appends the line of `row` that `template` and the columns of `batch` give; for many rows use [`render_lines`].
pub fn render(template: &Template, batch: &RecordBatch, row: usize, out: &mut Vec<u8>) {
    bound_to(template, batch).write(row, out);
}

/// The `_line` column of a batch: each line as it was received, U+FFFD for what is not UTF-8. See [`Lines::new`] for the
/// columns that have to be there. **Errors**: when the lines together are longer than 2 GiB.
pub fn render_lines(batch: &RecordBatch) -> Result<StringArray, super::batch::Error> {
    let mut lines = Lines::new(batch);
    let mut out = StringBuilder::with_capacity(batch.num_rows(), batch.num_rows() * 256);
    let (mut line, mut bytes) = (Vec::new(), 0usize);
    for row in 0..batch.num_rows() {
        line.clear();
        lines.write(row, &mut line);
        let text = String::from_utf8_lossy(&line);
        bytes += text.len();
        if bytes > i32::MAX as usize {
            return Err(super::batch::Error::TooLong(column::LINE));
        }
        out.append_value(text);
    }
    Ok(out.finish())
}

/// The lines of a batch, byte for byte. **Errors**: as [`render_lines`].
pub fn render_lines_bytes(batch: &RecordBatch) -> Result<BinaryArray, super::batch::Error> {
    let mut lines = Lines::new(batch);
    let mut out = BinaryBuilder::with_capacity(batch.num_rows(), batch.num_rows() * 256);
    let (mut line, mut bytes) = (Vec::new(), 0usize);
    for row in 0..batch.num_rows() {
        line.clear();
        lines.write(row, &mut line);
        bytes += line.len();
        if bytes > i32::MAX as usize {
            return Err(super::batch::Error::TooLong(column::LINE));
        }
        out.append_value(&line);
    }
    Ok(out.finish())
}

/// Names of all columns that the shapes of a batch (its `_shape` column) need, without order.
pub fn columns_needed(shapes: &ArrayRef) -> Vec<String> {
    let values = Values::of(shapes);
    let mut seen = std::collections::HashSet::new();
    let mut names = std::collections::BTreeSet::new();
    for row in 0..shapes.len() {
        if let Some(shape) = values.text(row)
            && seen.insert(shape)
            && let Some(template) = Template::parse(shape)
        {
            names.extend(template.columns().into_iter().map(str::to_string));
        }
    }
    names.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_shape_is_read_and_written() {
        let shape =
            "{\"ts\":\"⟨t-T.3Z timestamp⟩\",\"n\":⟨n http.status⟩,\"log\":\"⟨s>g a b⟩⟨.2 x⟩⟨ef* t⟩⟨t-T.*+120: u⟩\"}";
        let template = Template::parse(shape).unwrap();
        assert_eq!(columns_of(&template), ["timestamp", "http.status", "a b", "x", "t", "u"]);
        let mut again = String::new();
        for part in &template.parts {
            match part {
                Part::Literal(text) => again.push_str(text),
                Part::Value { rendering, column } => write_placeholder(*rendering, column, &mut again),
            }
        }
        assert_eq!(again, shape);
        assert_eq!(Template::parse("{⟨n x}"), None);
        assert_eq!(Template::parse("{⟨? x⟩}"), None);
        assert_eq!(Template::parse("x⟩"), None);
    }

    #[test]
    fn a_line_is_rendered_from_any_type() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![12, 200]));
        let texts = arrow::compute::cast(&numbers, &DataType::Utf8).unwrap();
        let views = arrow::compute::cast(&numbers, &DataType::Utf8View).unwrap();
        let shared = arrow::compute::cast(&texts, &super::super::batch::shape_type()).unwrap();
        let floats = arrow::compute::cast(&numbers, &DataType::Float64).unwrap();
        let template = Template::parse("status=⟨n status⟩;").unwrap();
        for array in [numbers, texts, views, shared, floats] {
            let batch = RecordBatch::try_from_iter([("status", array)]).unwrap();
            let mut out = Vec::new();
            render(&template, &batch, 1, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), "status=200;");
        }
    }

    proptest! {
        #[test]
        fn never_panics(shape in "[⟨⟩ sn.2tT*:+>e{}a-]{0,40}") {
            if let Some(template) = Template::parse(&shape) {
                let batch = RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
                render(&template, &batch, 0, &mut Vec::new());
            }
        }
    }
}
