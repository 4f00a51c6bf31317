//! The table `logs` as DataFusion sees it: one snapshot of one tenant, with the columns that one statement needs.
//!
//! A scan (scan/) reads the buffer and the segments that pruning left. Columns that are not stored as such (`_line`,
//! fields that partly lie in the overflow) are computed on top, only when they are asked for.
//!
//! **Invariant**: every record of the snapshot is read exactly once or left out by a condition that it does not meet.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::datasource::TableType;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{col, lit};

use super::computed;
use super::prune::Bounds;
use super::scan::{Inputs, LogsScan, Stages, open_or_pass_over};
use super::search::search_of;
use super::{Error, TimeRange};
use crate::record::{FieldType, column};
use crate::storage::segment::OpenSegment;
use crate::storage::{Buffered, FieldInfo, Segment, Snapshot, Store};

/// Fields that `*` shows at most; the others can be named.
const WILDCARD_FIELDS_MAX: usize = 1_000;

/// One tenant's records, as one statement needs them.
#[derive(Clone)]
pub(super) struct LogsTable {
    store: Arc<Store>,
    snapshot: Arc<Snapshot>,
    schema: SchemaRef,
    range: Option<TimeRange>,
    /// What records of no active deletion satisfy.
    hidden: Vec<Expr>,
    counts: Arc<ScanCounts>,
}

impl std::fmt::Debug for LogsTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogsTable").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// What a statement's scans read and left out.
#[derive(Debug, Default)]
pub(super) struct ScanCounts {
    pub segments_scanned: AtomicU64,
    pub segments_pruned: AtomicU64,
    /// Records looked at.
    pub rows: AtomicU64,
    /// Bytes of files, packed, and of the buffer, about.
    bytes: AtomicU64,
    /// Most of them; 0: any number.
    bytes_max: u64,
    notices: Mutex<Vec<String>>,
}

impl ScanCounts {
    /// Counts with a limit of bytes; 0: none.
    pub fn within(bytes_max: u64) -> ScanCounts {
        ScanCounts { bytes_max, ..ScanCounts::default() }
    }

    /// Counts bytes that are about to be read. **Errors**: the statement may not read so many.
    pub fn take_bytes(&self, bytes: u64) -> Result<()> {
        let taken = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if self.bytes_max == 0 || taken <= self.bytes_max {
            return Ok(());
        }
        let limit = Error::Limit(format!(
            "the query would read more than the {} bytes that one may ('query.scan_bytes_max'); narrow the time range, name \
             fewer columns, or add a condition on an id, a word, a level or a service",
            self.bytes_max
        ));
        Err(DataFusionError::External(Box::new(limit)))
    }

    /// Bytes that were read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Something the reader should know of the answer, once.
    pub fn note(&self, notice: String) {
        let mut notices = self.notices.lock().expect("nothing panics with the lock held");
        if !notices.contains(&notice) {
            notices.push(notice);
        }
    }

    pub fn notices(&self) -> Vec<String> {
        self.notices.lock().expect("nothing panics with the lock held").clone()
    }
}

/// Which columns a table must have.
pub(super) enum Columns<'a> {
    /// Those among these names, and with the flag all visible ones.
    Named(&'a BTreeSet<String>, bool),
    /// All there are, hidden ones left out: for `information_schema`.
    All,
}

impl LogsTable {
    pub(super) fn new(
        store: Arc<Store>,
        snapshot: Arc<Snapshot>,
        columns: &Columns<'_>,
        range: Option<TimeRange>,
        counts: Arc<ScanCounts>,
    ) -> LogsTable {
        let schema = Arc::new(Schema::new(table_fields(&snapshot, columns)));
        LogsTable { store, snapshot, schema, range, hidden: Vec::new(), counts }
    }

    /// Shows no record that does not satisfy these conditions.
    pub(super) fn hide(&mut self, hidden: Vec<Expr>) {
        self.hidden = hidden;
    }

    /// The column of that name, whether the statement sees it or not.
    pub(super) fn field(&self, name: &str) -> Option<Field> {
        if let Ok(field) = self.schema.field_with_name(name) {
            return Some(field.clone());
        }
        let names = BTreeSet::from([name.to_owned()]);
        table_fields(&self.snapshot, &Columns::Named(&names, false)).into_iter().find(|field| field.name() == name)
    }

    /// The fields whose values partly lie in the overflow.
    fn overflows(&self, name: &str) -> bool {
        self.snapshot.fields.get(name).is_some_and(|field| field.overflow)
    }

    /// Whether a column is read as it lies in the store.
    pub(super) fn is_stored(&self, name: &str) -> bool {
        name != column::LINE && !self.overflows(name)
    }

    /// The stored columns that must be read for these columns of the table.
    pub(super) fn stored_columns(&self, wanted: &BTreeSet<&str>) -> Vec<Field> {
        let mut names: BTreeSet<&str> = wanted.iter().copied().filter(|name| *name != column::LINE).collect();
        if names.iter().any(|name| self.overflows(name)) {
            names.insert(column::OVERFLOW);
        }
        if wanted.contains(column::LINE) {
            names.extend(column::CORE.iter().chain(&column::HIDDEN));
            names.extend(self.snapshot.fields.iter().filter(|(_, field)| field.column).map(|(name, _)| name.as_str()));
        }
        names.into_iter().filter_map(|name| stored_field(&self.snapshot, name)).collect()
    }

    /// How a column of the table is made of the stored columns.
    pub(super) fn expression(
        &self,
        field: &Field,
        stored: &SchemaRef,
        state: &dyn Session,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        if field.name() == column::LINE {
            computed::line(stored, state.config_options())
        } else if self.overflows(field.name()) {
            let has_column = stored.index_of(field.name()).is_ok();
            computed::from_overflow(field, has_column, stored, state.config_options())
        } else {
            datafusion::physical_expr::expressions::col(field.name(), stored)
        }
    }

    fn range_filter(&self) -> Option<Expr> {
        let range = self.range?;
        let at = |ns| lit(ScalarValue::TimestampNanosecond(Some(ns), Some("UTC".into())));
        Some(col(column::TIMESTAMP).gt_eq(at(range.from_ns)).and(col(column::TIMESTAMP).lt(at(range.to_ns))))
    }

    /// Only records of this range are seen.
    pub(super) fn range(&self) -> Option<TimeRange> {
        self.range
    }

    /// Whether an active deletion hides records.
    pub(super) fn hides(&self) -> bool {
        !self.hidden.is_empty()
    }

    /// The segments that can hold a match, the newest first; says which are quarantined.
    pub(super) fn segments(&self, bounds: &Bounds) -> Vec<Arc<Segment>> {
        let known = &self.snapshot.segments;
        let mut segments: Vec<Arc<Segment>> =
            known.iter().filter(|segment| bounds.may_match_segment(segment)).cloned().collect();
        self.counts.begin(segments.len(), known.len() - segments.len());
        for segment in self.snapshot.quarantined.iter().filter(|segment| bounds.may_match_segment(segment)) {
            let reason = segment.history.quarantined.as_deref().unwrap_or("unknown");
            self.counts.note(format!(
                "segment {} is quarantined, so {} records may be missing: {reason}",
                segment.path, segment.records
            ));
        }
        segments.sort_by_key(|segment| std::cmp::Reverse(segment.max_ts));
        segments
    }

    /// The batches of the buffer that can hold a match, the newest first.
    pub(super) fn buffer(&self, bounds: &Bounds) -> Vec<Arc<Buffered>> {
        self.snapshot.buffer.iter().rev().filter(|batch| bounds.may_match_batch(batch)).cloned().collect()
    }

    /// Opens a segment; `None` when it is damaged, which is told.
    pub(super) fn open(&self, segment: &Arc<Segment>) -> Result<Option<Arc<OpenSegment>>> {
        open_or_pass_over(&self.store, &self.counts, segment)
    }

    /// A scan of these batches and segments.
    pub(super) fn scan_of(
        &self,
        state: &dyn Session,
        output: &SchemaRef,
        filters: &[Expr],
        buffer: Vec<Arc<Buffered>>,
        segments: Vec<Arc<Segment>>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let bounds = Bounds::of(filters, self.range, |name| self.is_stored(name));
        let hidden = self.hidden.iter().cloned();
        let filters: Vec<Expr> = filters.iter().cloned().chain(self.range_filter()).chain(hidden).collect();
        let stages = Stages::plan(self, state, output, &filters)?;
        let whole = segments.len() == self.snapshot.segments.len() && buffer.len() == self.snapshot.buffer.len();
        let inputs = Inputs {
            store: self.store.clone(),
            segments,
            buffer,
            // A segment's index knows whether it can tell anything of lines.
            search: search_of(&filters, |name| name == column::LINE || self.is_stored(name)),
            conditions: bounds.conditions(),
            counts: self.counts.clone(),
            all: (filters.is_empty() && whole).then(|| self.all()),
        };
        let partitions = state.config().target_partitions().max(1);
        Ok(Arc::new(LogsScan::new(inputs, stages, output.clone(), partitions, limit)))
    }

    /// How many records there are, and between which times.
    fn all(&self) -> (usize, Option<(i64, i64)>) {
        let segments = self.snapshot.segments.iter();
        let parts = segments
            .map(|found| (found.records as usize, found.min_ts, found.max_ts))
            .chain(self.snapshot.buffer.iter().map(|found| (found.rows(), found.min_ts, found.max_ts)));
        parts.fold((0, None), |(rows, times), (more, min, max)| {
            let times = times.map_or((min, max), |(low, high): (i64, i64)| (low.min(min), high.max(max)));
            (rows + more, Some(times))
        })
    }
}

#[async_trait]
impl TableProvider for LogsTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Exact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let output = match projection {
            Some(projection) => Arc::new(self.schema.project(projection)?),
            None => self.schema.clone(),
        };
        let bounds = Bounds::of(filters, self.range, |name| self.is_stored(name));
        let (segments, buffer) = (self.segments(&bounds), self.buffer(&bounds));
        self.scan_of(state, &output, filters, buffer, segments, limit)
    }
}

fn table_fields(snapshot: &Snapshot, columns: &Columns<'_>) -> Vec<Field> {
    let named = |name: &str| matches!(columns, Columns::Named(names, _) if names.contains(name));
    let wildcard = match columns {
        Columns::Named(_, wildcard) => *wildcard,
        Columns::All => true,
    };
    let mut fields: Vec<Field> = column::CORE.iter().filter_map(|name| stored_field(snapshot, name)).collect();
    let mut shown = 0;
    for (name, info) in snapshot.fields.iter() {
        let by_wildcard = wildcard && (matches!(columns, Columns::All) || (info.column && shown < WILDCARD_FIELDS_MAX));
        if by_wildcard || named(name) {
            shown += usize::from(by_wildcard);
            fields.push(Field::new(name, text_as_view(info.r#type.arrow()), true));
        }
    }
    fields.extend(column::HIDDEN.iter().filter(|name| named(name)).filter_map(|name| stored_field(snapshot, name)));
    if named(column::LINE) {
        fields.push(Field::new(column::LINE, DataType::Utf8, true));
    }
    if named(column::SEQ) {
        fields.extend(stored_field(snapshot, column::SEQ));
    }
    fields
}

/// A stored column as scans read it; `None` when there is no column of that name.
fn stored_field(snapshot: &Snapshot, name: &str) -> Option<Field> {
    let field = match name {
        column::TIMESTAMP => Field::new(name, DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), false),
        column::SEQ => Field::new(name, DataType::Int64, false),
        column::RAW => Field::new(name, DataType::Binary, true),
        _ if column::CORE.contains(&name) || column::HIDDEN.contains(&name) => {
            Field::new(name, DataType::Utf8View, true)
        }
        _ => {
            let info: &FieldInfo = snapshot.fields.get(name).filter(|field| field.column)?;
            Field::new(name, text_as_view(info.r#type.arrow()), true)
        }
    };
    Some(field)
}

/// Views are what Parquet reads without copying.
fn text_as_view(kind: DataType) -> DataType {
    if kind == FieldType::Text.arrow() { DataType::Utf8View } else { kind }
}
