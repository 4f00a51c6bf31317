//! The table `logs` as DataFusion sees it: one snapshot of one tenant, with the columns that one statement needs.
//!
//! A scan is the buffer beside the segments that pruning left. Columns that are not stored as such (`_line`, fields that
//! partly lie in the overflow) are computed on top, only when they are asked for.
//!
//! **Invariant**: every record of the snapshot is read exactly once or left out by a condition that it does not meet.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::TaskContext;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use datafusion::prelude::{col, lit};

use super::TimeRange;
use super::computed;
use super::prune::Bounds;
use crate::record::batch::widen;
use crate::record::{FieldType, column};
use crate::storage::{Buffered, FieldInfo, Segment, Snapshot};

/// Where the segments are registered as an object store.
pub(super) const STORE_URL: &str = "quiver://segments/";
/// Fields that `*` shows at most; the others can be named.
const WILDCARD_FIELDS_MAX: usize = 1_000;

/// One tenant's records, as one statement needs them.
#[derive(Debug)]
pub(super) struct LogsTable {
    snapshot: Arc<Snapshot>,
    schema: SchemaRef,
    range: Option<TimeRange>,
    counts: Arc<ScanCounts>,
}

/// What a statement's scans opened and left out, as far as DataFusion does not count it.
#[derive(Debug, Default)]
pub(super) struct ScanCounts {
    pub segments_scanned: AtomicU64,
    pub segments_pruned: AtomicU64,
    pub buffer_rows: AtomicU64,
    pub buffer_bytes: AtomicU64,
}

/// Which columns a table must have.
pub(super) enum Columns<'a> {
    /// Those among these names, and with the flag all visible ones.
    Named(&'a BTreeSet<String>, bool),
    /// All there are, hidden ones left out: for `information_schema`.
    All,
}

impl LogsTable {
    pub(super) fn new(snapshot: Arc<Snapshot>, columns: &Columns<'_>, range: Option<TimeRange>) -> LogsTable {
        let schema = Arc::new(Schema::new(table_fields(&snapshot, columns)));
        LogsTable { snapshot, schema, range, counts: Arc::default() }
    }

    pub(super) fn counts(&self) -> Arc<ScanCounts> {
        self.counts.clone()
    }

    /// The fields whose values partly lie in the overflow.
    fn overflows(&self, name: &str) -> bool {
        self.snapshot.fields.get(name).is_some_and(|field| field.overflow)
    }

    fn is_stored(&self, name: &str) -> bool {
        name != column::LINE && !self.overflows(name)
    }

    /// The stored columns that a scan must read for these columns of the table.
    fn stored_columns(&self, wanted: &BTreeSet<&str>) -> Vec<Field> {
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

    fn range_filter(&self) -> Option<Expr> {
        let range = self.range?;
        let at = |ns| lit(ScalarValue::TimestampNanosecond(Some(ns), Some("UTC".into())));
        Some(col(column::TIMESTAMP).gt_eq(at(range.from_ns)).and(col(column::TIMESTAMP).lt(at(range.to_ns))))
    }

    fn segments_to_scan(&self, bounds: &Bounds) -> Vec<Arc<Segment>> {
        let mut segments: Vec<Arc<Segment>> =
            self.snapshot.segments.iter().filter(|segment| bounds.may_match_segment(segment)).cloned().collect();
        self.counts.segments_scanned.fetch_add(segments.len() as u64, Relaxed);
        self.counts.segments_pruned.fetch_add((self.snapshot.segments.len() - segments.len()) as u64, Relaxed);
        // The newest first: a search for the newest records can skip the rest once it has them.
        segments.sort_by_key(|segment| std::cmp::Reverse(segment.max_ts));
        segments
    }

    fn scan_buffer(
        &self,
        partitions: usize,
        bounds: &Bounds,
        schema: &SchemaRef,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let mut dealt: Vec<Vec<Arc<Buffered>>> = vec![Vec::new(); partitions];
        let newest_first = self.snapshot.buffer.iter().rev().filter(|batch| bounds.may_match_batch(batch));
        for (at, batch) in newest_first.enumerate() {
            dealt[at % partitions].push(batch.clone());
        }
        dealt.retain(|batches| !batches.is_empty());
        if dealt.is_empty() {
            return Ok(None);
        }
        let part = |batches| {
            let scan = BufferScan { batches, schema: schema.clone(), counts: self.counts.clone() };
            Arc::new(scan) as Arc<dyn PartitionStream>
        };
        let parts = dealt.into_iter().map(part).collect();
        let plan = StreamingTableExec::try_new(schema.clone(), parts, None, None, false, None)?;
        Ok(Some(Arc::new(plan)))
    }

    fn scan_segments(
        &self,
        state: &dyn Session,
        segments: Vec<Arc<Segment>>,
        schema: &SchemaRef,
        predicate: Option<&Expr>,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        if segments.is_empty() {
            return Ok(None);
        }
        let url = ObjectStoreUrl::parse(STORE_URL)?;
        let store = state.runtime_env().object_store(&url)?;
        let cache = state.runtime_env().cache_manager.get_file_metadata_cache();
        let mut source = ParquetSource::new(schema.clone())
            .with_parquet_file_reader_factory(Arc::new(CachedParquetFileReaderFactory::new(store, cache)))
            .with_pushdown_filters(true)
            .with_reorder_filters(true)
            .with_enable_page_index(true);
        if let Some(predicate) = predicate {
            let schema = DFSchema::try_from(schema.as_ref().clone())?;
            source = source.with_predicate(state.create_physical_expr(predicate.clone(), &schema)?);
        }
        let partitions = state.config().target_partitions().min(segments.len());
        let mut groups: Vec<Vec<PartitionedFile>> = vec![Vec::new(); partitions];
        for (at, segment) in segments.iter().enumerate() {
            groups[at % partitions].push(PartitionedFile::new(segment.path.clone(), segment.bytes));
        }
        let groups = groups.into_iter().map(FileGroup::new).collect();
        let config = FileScanConfigBuilder::new(url, Arc::new(source)).with_file_groups(groups).build();
        Ok(Some(DataSourceExec::from_data_source(config)))
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
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let projection = projection.unwrap_or(&all);
        let output = Arc::new(self.schema.project(projection)?);
        let bounds = Bounds::of(filters, self.range);
        let pushed: Vec<Expr> = filters.iter().filter(|filter| self.can_push(filter)).cloned().collect();
        let predicate = conjunction(pushed.into_iter().chain(self.range_filter()));

        let mut wanted: BTreeSet<&str> = output.fields().iter().map(|field| field.name().as_str()).collect();
        let in_predicate = predicate.as_ref().map(Expr::column_refs).unwrap_or_default();
        wanted.extend(in_predicate.iter().map(|column| column.name.as_str()));
        let stored: SchemaRef = Arc::new(Schema::new(self.stored_columns(&wanted)));

        let segments = self.scan_segments(state, self.segments_to_scan(&bounds), &stored, predicate.as_ref())?;
        let parts: Vec<_> = self
            .scan_buffer(state.config().target_partitions(), &bounds, &stored)?
            .into_iter()
            .chain(segments)
            .collect();
        let mut plan: Arc<dyn ExecutionPlan> = match <[_; 1]>::try_from(parts) {
            Ok([one]) => one,
            Err(parts) if parts.is_empty() => {
                return Ok(Arc::new(datafusion::physical_plan::empty::EmptyExec::new(output)));
            }
            Err(parts) => UnionExec::try_new(parts)?,
        };
        if let Some(range) = self.range_filter() {
            let schema = DFSchema::try_from(stored.as_ref().clone())?;
            plan = Arc::new(FilterExec::try_new(state.create_physical_expr(range, &schema)?, plan)?);
        }
        let expressions = self.output_expressions(state, &output, &stored)?;
        Ok(Arc::new(ProjectionExec::try_new(expressions, plan)?))
    }
}

impl LogsTable {
    /// Whether a condition speaks of stored columns only.
    fn can_push(&self, filter: &Expr) -> bool {
        filter.column_refs().iter().all(|column| self.is_stored(&column.name))
    }

    fn output_expressions(
        &self,
        state: &dyn Session,
        output: &Schema,
        stored: &SchemaRef,
    ) -> Result<Vec<ProjectionExpr>> {
        output
            .fields()
            .iter()
            .map(|field| {
                let expression = if field.name() == column::LINE {
                    computed::line(stored, state.config_options())?
                } else if self.overflows(field.name()) {
                    let has_column = stored.index_of(field.name()).is_ok();
                    computed::from_overflow(field, has_column, stored, state.config_options())?
                } else {
                    datafusion::physical_expr::expressions::col(field.name(), stored)?
                };
                Ok(ProjectionExpr { expr: expression, alias: field.name().clone() })
            })
            .collect()
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

/// The buffer's batches, newest first, brought into one schema.
#[derive(Debug)]
struct BufferScan {
    batches: Vec<Arc<Buffered>>,
    schema: SchemaRef,
    counts: Arc<ScanCounts>,
}

impl PartitionStream for BufferScan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows_max = context.session_config().batch_size();
        let (schema, counts) = (self.schema.clone(), self.counts.clone());
        let slices: Vec<(Arc<Buffered>, usize)> = self
            .batches
            .iter()
            .flat_map(|batch| (0..batch.rows()).step_by(rows_max).map(move |start| (batch.clone(), start)))
            .collect();
        let batches = slices.into_iter().map(move |(batch, start)| {
            let rows = rows_max.min(batch.rows() - start);
            let read = read_buffered(&batch, start, rows, &schema)?;
            counts.buffer_rows.fetch_add(rows as u64, Relaxed);
            counts.buffer_bytes.fetch_add((batch.bytes * rows / batch.rows()) as u64, Relaxed);
            Ok(read)
        });
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), futures::stream::iter(batches)))
    }
}

fn read_buffered(buffered: &Buffered, start: usize, rows: usize, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = schema
        .fields()
        .iter()
        .map(|field| {
            let stored: Option<ArrayRef> = if field.name() == column::SEQ {
                Some(Arc::new(buffered.seq.slice(start, rows)))
            } else {
                buffered.batch.column_by_name(field.name()).map(|array| array.slice(start, rows))
            };
            match stored {
                Some(array) if array.data_type() == field.data_type() => Ok(array),
                Some(array) => widen(&array, field.data_type()),
                None => Ok(new_null_array(field.data_type(), rows)),
            }
        })
        .collect::<Result<Vec<ArrayRef>, _>>()
        .map_err(|error| DataFusionError::External(Box::new(error)))?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(DataFusionError::from)
}
