//! What readers see: an immutable view of the buffer and the live segments, replaced as a whole at every change.
//!
//! **Invariant**: every acknowledged record is in exactly one place of a view: the buffer, the batches being flushed, or
//! a segment.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::buffer::Buffered;
use super::catalog::Segment;
use crate::record::{FieldType, Tenant};

/// The view of all tenants.
#[derive(Debug, Clone, Default)]
pub struct View {
    pub(super) tenants: HashMap<Tenant, Arc<Snapshot>>,
}

/// One tenant's records at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Records in memory, in order of arrival; those being flushed first.
    pub buffer: Vec<Arc<Buffered>>,
    /// How many entries of `buffer` are being written to segments.
    pub(super) flushing: usize,
    /// Live segments, by id.
    pub segments: Vec<Arc<Segment>>,
    /// Every field that occurs.
    pub fields: Arc<Fields>,
}

/// The fields of a tenant by name.
pub type Fields = BTreeMap<String, FieldInfo>;

/// A field over all batches and segments of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldInfo {
    /// The type that holds all its values.
    pub r#type: FieldType,
    /// Somewhere its values lie in the overflow column.
    pub overflow: bool,
    /// Somewhere it has a column of its own.
    pub column: bool,
}

impl Snapshot {
    /// Adds fields to those known; copies the map only when something is new.
    pub(super) fn learn(&mut self, found: impl IntoIterator<Item = (String, (FieldType, bool))>, fields_max: usize) {
        for (name, (kind, overflow)) in found {
            let known = self.fields.get(&name).copied();
            let merged = FieldInfo {
                r#type: known.map_or(kind, |known| known.r#type.unify(kind)),
                overflow: overflow || known.is_some_and(|known| known.overflow),
                column: !overflow || known.is_some_and(|known| known.column),
            };
            if known != Some(merged) && (known.is_some() || self.fields.len() < fields_max) {
                Arc::make_mut(&mut self.fields).insert(name, merged);
            }
        }
    }

    /// Memory that the buffer holds.
    pub fn buffer_bytes(&self) -> usize {
        self.buffer.iter().map(|buffered| buffered.bytes).sum()
    }
}
