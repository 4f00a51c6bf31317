//! Rows as they are: one frame, one field per column. Invariant: nothing is left out or reordered.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use serde_json::json;

use super::{Field, Frame, Request};

/// Makes the frame.
pub fn frame(rows: &RecordBatch, request: &Request<'_>) -> Frame {
    let columns = rows.schema_ref().fields().iter().zip(rows.columns());
    let fields = columns.map(|(field, array)| Field::new(field.name(), Arc::clone(array))).collect();
    Frame::new(request.ref_id, json!({}), fields)
}
