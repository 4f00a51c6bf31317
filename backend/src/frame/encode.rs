//! A frame's two forms on the wire: an Arrow IPC file for answers, and Grafana's frame JSON for streams.
//! What a frame holds is not looked at. Invariant: names, labels and configuration get through both ways, and times
//! keep their nanoseconds.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{self, DataType, Float64Type, Int64Type, Schema, TimestampNanosecondType};
use arrow::error::ArrowError;
use arrow::ipc::writer::FileWriter;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use serde_json::{Value, json};

use super::{Field, Frame};

impl Frame {
    /// The frame as an Arrow IPC file, as Grafana reads it from a data answer.
    pub fn to_ipc(&self) -> Result<Vec<u8>, ArrowError> {
        let fields: Vec<_> = self.fields.iter().map(arrow_field).collect();
        let metadata = [("name", self.name.clone()), ("refId", self.ref_id.clone()), ("meta", self.meta.to_string())];
        let metadata: HashMap<_, _> = metadata.map(|(key, value)| (key.to_owned(), value)).into();
        let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
        let columns: Vec<ArrayRef> = self.fields.iter().map(|field| Arc::clone(&field.values)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.fields.first().map_or(0, |f| f.values.len())));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)?;
        let mut bytes = Vec::with_capacity(batch.get_array_memory_size() + 4096);
        let mut writer = FileWriter::try_new(&mut bytes, &schema)?;
        writer.write(&batch)?;
        writer.finish()?;
        drop(writer);
        Ok(bytes)
    }

    /// The frame as Grafana's frame JSON (`DataFrameJSON`), as streams carry it. **Shape**: members in the order that
    /// Go's reader needs, which reads on the fly: the schema before the data, the values before their nanoseconds.
    pub fn to_json(&self) -> String {
        let fields: Vec<_> = self.fields.iter().map(json_field).collect();
        let mut schema = json!({"refId": self.ref_id, "meta": self.meta, "fields": fields});
        if !self.name.is_empty() {
            schema["name"] = json!(self.name);
        }
        let values: Value = self.fields.iter().map(|field| json_values(&field.values)).collect();
        let nanos = if self.fields.iter().any(|field| is_time(field.values.data_type())) {
            let nanos: Value = self.fields.iter().map(|field| json_nanos(&field.values)).collect();
            format!(r#","nanos":{nanos}"#)
        } else {
            String::new()
        };
        format!(r#"{{"schema":{schema},"data":{{"values":{values}{nanos}}}}}"#)
    }
}

fn arrow_field(field: &Field) -> datatypes::Field {
    let mut metadata = HashMap::new();
    if !field.labels.is_empty() {
        metadata.insert("labels".to_owned(), json!(field.labels).to_string());
    }
    if let Some(config) = &field.config {
        metadata.insert("config".to_owned(), config.to_string());
    }
    datatypes::Field::new(&field.name, field.values.data_type().clone(), field.nullable).with_metadata(metadata)
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(..))
}

fn json_field(field: &Field) -> Value {
    let (kind, frame_type) = match field.values.data_type() {
        DataType::Timestamp(..) => ("time", "time.Time".to_owned()),
        DataType::Utf8 => ("string", "string".to_owned()),
        DataType::Boolean => ("boolean", "bool".to_owned()),
        DataType::Binary => ("other", "json.RawMessage".to_owned()),
        number => ("number", number.to_string().to_lowercase()),
    };
    let mut type_info = json!({"frame": frame_type});
    if field.nullable {
        type_info["nullable"] = json!(true);
    }
    let mut json = json!({"name": field.name, "type": kind, "typeInfo": type_info});
    if !field.labels.is_empty() {
        json["labels"] = json!(field.labels);
    }
    if let Some(config) = &field.config {
        json["config"] = config.clone();
    }
    json
}

fn json_values(array: &ArrayRef) -> Value {
    let each = |value: &dyn Fn(usize) -> Value| -> Value {
        (0..array.len()).map(|row| if array.is_null(row) { Value::Null } else { value(row) }).collect()
    };
    match array.data_type() {
        DataType::Timestamp(..) => {
            let times = array.as_primitive::<TimestampNanosecondType>();
            each(&|row| json!(times.value(row).div_euclid(1_000_000)))
        }
        DataType::Utf8 => each(&|row| json!(array.as_string::<i32>().value(row))),
        DataType::Boolean => each(&|row| json!(array.as_boolean().value(row))),
        DataType::Binary => {
            each(&|row| serde_json::from_slice(array.as_binary::<i32>().value(row)).unwrap_or(Value::Null))
        }
        data_type => {
            let target = if data_type.is_integer() { DataType::Int64 } else { DataType::Float64 };
            match cast(array, &target) {
                Ok(numbers) if target == DataType::Int64 => {
                    each(&|row| json!(numbers.as_primitive::<Int64Type>().value(row)))
                }
                Ok(numbers) => each(&|row| json!(numbers.as_primitive::<Float64Type>().value(row))),
                Err(_) => Value::Null,
            }
        }
    }
}

/// What milliseconds leave out of a time.
fn json_nanos(array: &ArrayRef) -> Value {
    match array.as_primitive_opt::<TimestampNanosecondType>() {
        None => Value::Null,
        Some(times) => times.iter().map(|time| json!(time.map_or(0, |time| time.rem_euclid(1_000_000)))).collect(),
    }
}
