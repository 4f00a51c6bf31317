//! What readers see: an immutable view of the buffer and the live segments, replaced as a whole at every change.
//!
//! **Invariant**: every acknowledged record is in exactly one place of a view: the buffer, the batches being flushed, or
//! a segment.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::buffer::{self, Buffered};
use super::catalog::Segment;
use super::deletion::Deletion;
use super::schema::{self, FieldInfo};
use crate::record::{Tenant, batch};

/// The view of all tenants.
#[derive(Debug, Clone, Default)]
pub struct View {
    pub(super) tenants: HashMap<Tenant, Arc<Snapshot>>,
}

impl View {
    /// The segments of all tenants that have files, the quarantined ones among them.
    pub(super) fn all_segments(&self) -> Vec<Arc<Segment>> {
        self.tenants.values().flat_map(|snapshot| snapshot.all_segments()).cloned().collect()
    }

    /// Takes segments out of what is read, for as long as the process runs.
    pub(super) fn quarantine(&mut self, ids: &[i64], reason: &str, fields_max: usize) {
        let live = self.all_segments();
        for segment in live.iter().filter(|segment| ids.contains(&segment.id)) {
            let Some(snapshot) = self.tenants.get_mut(&segment.tenant) else { continue };
            let snapshot = Arc::make_mut(snapshot);
            snapshot.remove_segments(|found| found.id == segment.id, fields_max);
            let mut marked = Segment::clone(segment);
            let reason = marked.history.quarantined.take().unwrap_or_else(|| reason.to_owned());
            tracing::warn!(
                id = segment.id,
                records = segment.records,
                reason,
                "a segment can't be read; answers lack its records"
            );
            marked.history.quarantined = Some(reason);
            snapshot.add_segment(marked, fields_max);
        }
    }
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
    /// Segments that can't be read, for a reason that their history tells: what they hold is missing in answers.
    pub quarantined: Vec<Arc<Segment>>,
    /// Every field that occurs.
    pub fields: Arc<Fields>,
    /// Active deletions: records they match are to be seen by nobody.
    pub deletions: Arc<[Deletion]>,
}

/// The fields of a tenant by name.
pub type Fields = BTreeMap<String, FieldInfo>;

impl Snapshot {
    /// Adds a batch behind those that are there.
    pub(super) fn add_batch(&mut self, added: Buffered, fields_max: usize) -> Result<(), batch::Error> {
        self.learn(added.fields(), fields_max);
        buffer::push(&mut self.buffer, self.flushing, added)
    }

    /// Adds a segment where it belongs: to those that are read, or to the quarantined. The fields of these are known too,
    /// so that a condition on one means the same whether its segment is read or not.
    pub(super) fn add_segment(&mut self, segment: Segment, fields_max: usize) {
        self.learn(segment.detail.fields.iter().map(|field| (field.name.clone(), field.info())), fields_max);
        let is_read = segment.history.quarantined.is_none();
        let segments = if is_read { &mut self.segments } else { &mut self.quarantined };
        segments.push(Arc::new(segment));
    }

    /// Takes segments out. Fields that were only in them stay known until there is little room for further ones.
    pub(super) fn remove_segments(&mut self, gone: impl Fn(&Segment) -> bool, fields_max: usize) {
        self.segments.retain(|segment| !gone(segment));
        self.quarantined.retain(|segment| !gone(segment));
        if self.fields.len() > fields_max / 2 {
            self.fields = Arc::default();
            for segment in self.all_segments().cloned().collect::<Vec<_>>() {
                self.learn(segment.detail.fields.iter().map(|field| (field.name.clone(), field.info())), fields_max);
            }
            for buffered in self.buffer.clone() {
                self.learn(buffered.fields(), fields_max);
            }
        }
    }

    /// All segments that have files, the quarantined ones among them.
    pub(super) fn all_segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.segments.iter().chain(&self.quarantined)
    }

    /// Adds fields to those known; copies the map only when something is new. What earlier releases put into the overflow
    /// under the name of one of our own columns is no field: a table can't have two columns of a name.
    fn learn(&mut self, found: impl IntoIterator<Item = (String, FieldInfo)>, fields_max: usize) {
        for (name, info) in found.into_iter().filter(|(name, _)| !schema::is_own(name)) {
            let known = self.fields.get(&name).copied();
            let merged = known.map_or(info, |known| known.and(info));
            if known != Some(merged) && (known.is_some() || self.fields.len() < fields_max) {
                Arc::make_mut(&mut self.fields).insert(name, merged);
            }
        }
    }

    /// The records of one segment, those of active deletions among them.
    pub fn of_segment(&self, segment: Arc<Segment>) -> Snapshot {
        Snapshot { segments: vec![segment], fields: self.fields.clone(), ..Snapshot::default() }
    }

    /// Memory that the buffer holds.
    pub fn buffer_bytes(&self) -> usize {
        self.buffer.iter().map(|buffered| buffered.bytes).sum()
    }
}
