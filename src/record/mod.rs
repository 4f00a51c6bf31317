//! The data model: what a record is, the names and types of its columns, and the levels.
//! It knows Arrow, and neither protocols nor storage.

use std::fmt;
use std::sync::Arc;

pub mod batch;
pub mod level;
pub mod number;
pub mod overflow;
pub mod quote;
pub mod shape;
pub mod time;

pub use level::Level;

/// Names of the columns that every batch has.
pub mod column {
    /// When it happened: `Timestamp(ns, "UTC")`, never null.
    pub const TIMESTAMP: &str = "timestamp";
    /// Normalised level (`Utf8`): trace, debug, info, warn, error, fatal; null when unknown.
    pub const LEVEL: &str = "level";
    /// Which service wrote it (`Utf8`).
    pub const SERVICE: &str = "service";
    /// The text for people (`Utf8`).
    pub const MESSAGE: &str = "message";
    /// Trace id as it came (`Utf8`).
    pub const TRACE_ID: &str = "trace_id";
    /// Span id as it came (`Utf8`).
    pub const SPAN_ID: &str = "span_id";
    /// Order of arrival (`Int64`, never null, unique per store): given by storage, not part of a decoded batch.
    pub const SEQ: &str = "_seq";
    /// The line's shape (a dictionary of `Utf8` in memory, `Utf8` in segments; see [`super::shape`]): its text with a
    /// placeholder for each value that lives in a column; null: see `_raw`, and where that is null too the line is the
    /// message.
    pub const SHAPE: &str = "_shape";
    /// The line as received (`Binary`), only where shape and columns cannot give it back.
    pub const RAW: &str = "_raw";
    /// JSON object (`Utf8`) of the fields that found no column of their own; null when there are none.
    pub const OVERFLOW: &str = "_overflow";
    /// The line as received (`Utf8`), made from shape, columns and raw when it is read; never stored.
    pub const LINE: &str = "_line";
    /// Columns a decoded batch always starts with, in this order.
    pub const CORE: [&str; 6] = [TIMESTAMP, LEVEL, SERVICE, MESSAGE, TRACE_ID, SPAN_ID];
    /// Columns a decoded batch always ends with, in this order.
    pub const HIDDEN: [&str; 3] = [SHAPE, RAW, OVERFLOW];
}

/// What is known of an id that a client gave to what it sends, so that it is not kept twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It did not come before; it is claimed now.
    New,
    /// What it stands for was kept.
    Kept,
    /// What it stands for is being kept by somebody else, who may yet fail.
    BeingKept,
}

/// Whose logs these are: 1 to 64 of `[A-Za-z0-9_.-]`, not starting with a dot; safe as a directory name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(Arc<str>);

impl Tenant {
    /// The tenant of requests that name none.
    pub fn default_tenant() -> Self {
        Tenant("default".into())
    }

    /// Checks the form; `None` when `name` can't be a tenant.
    pub fn parse(name: &str) -> Option<Self> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let valid = (1..=64).contains(&name.len()) && !name.starts_with('.') && name.chars().all(fits);
        valid.then(|| Tenant(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Type of a field's column. Arrow: `Int64`, `Float64`, `Boolean`, `Utf8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FieldType {
    /// `Int64`
    Integer,
    /// `Float64`
    Float,
    /// `Boolean`
    Boolean,
    /// `Utf8`
    Text,
}

impl FieldType {
    /// The type that holds values of both without loss; comparison of numbers in text is the planner's work.
    pub fn unify(self, other: FieldType) -> FieldType {
        use FieldType::{Float, Integer, Text};
        match (self, other) {
            (a, b) if a == b => a,
            (Integer, Float) | (Float, Integer) => Float,
            _ => Text,
        }
    }

    /// The type of a column with this Arrow type; `None` for types that fields do not have.
    pub fn of(data_type: &arrow::datatypes::DataType) -> Option<FieldType> {
        use arrow::datatypes::DataType;
        match data_type {
            DataType::Int64 => Some(FieldType::Integer),
            DataType::Float64 => Some(FieldType::Float),
            DataType::Boolean => Some(FieldType::Boolean),
            DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => Some(FieldType::Text),
            _ => None,
        }
    }

    /// The Arrow type of a column of this type.
    pub fn arrow(self) -> arrow::datatypes::DataType {
        use arrow::datatypes::DataType;
        match self {
            FieldType::Integer => DataType::Int64,
            FieldType::Float => DataType::Float64,
            FieldType::Boolean => DataType::Boolean,
            FieldType::Text => DataType::Utf8,
        }
    }
}
