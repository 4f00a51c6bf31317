//! What leaves the store: plain Arrow types that every client knows. Pure.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;

/// The schema with views, large and dictionary-encoded texts as plain ones, and `UInt64` as `Int64`.
pub(super) fn plain_schema(schema: &Schema) -> SchemaRef {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| Field::new(field.name(), plain(field.data_type()), field.is_nullable()))
        .collect();
    Arc::new(Schema::new(fields))
}

/// A batch in the schema of [`plain_schema`].
pub(super) fn plain_batch(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns =
        batch
            .columns()
            .iter()
            .zip(schema.fields())
            .map(|(array, field)| {
                if array.data_type() == field.data_type() { Ok(array.clone()) } else { cast(array, field.data_type()) }
            })
            .collect::<Result<Vec<ArrayRef>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
}

fn plain(kind: &DataType) -> DataType {
    match kind {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::UInt64 => DataType::Int64,
        DataType::Dictionary(_, value) => plain(value),
        other => other.clone(),
    }
}
