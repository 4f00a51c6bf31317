//! Reading records: the one leaf of every plan over `logs`. A scan walks the buffer and the segments that pruning left,
//! asks each segment's index and footer which records can match, and reads in stages (stage.rs, source.rs). Where only
//! the newest or oldest records are wanted, it finds those first (newest.rs).
//!
//! **Invariant**: every record of the snapshot that meets the conditions is given exactly once; a scan for the newest
//! gives at least those that the sort above it will keep. A damaged segment is left out, reported, and told.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ColumnStatistics, Result, ScalarValue, Statistics};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, SendableRecordBatchStream,
};
use futures::stream;

mod newest;
mod source;
mod stage;

pub(super) use newest::{Newest, NewestFirst};
pub(super) use stage::Stages;

use super::table::ScanCounts;
use crate::record::column;
use crate::storage::index::Search;
use crate::storage::segment::{Condition, OpenSegment, ReadError, matching};
use crate::storage::{Buffered, Segment, Store};
use source::{BATCH_ROWS, Source};

/// Records of the buffer that are read at once.
const BUFFER_ROWS: usize = 32_768;

/// Where a scan reads, and what it may leave out.
pub(super) struct Inputs {
    pub store: Arc<Store>,
    pub segments: Vec<Arc<Segment>>,
    pub buffer: Vec<Arc<Buffered>>,
    pub conditions: Vec<Condition>,
    pub search: Search,
    pub counts: Arc<ScanCounts>,
    /// Records, and earliest and latest timestamp, where the scan gives all there are.
    pub all: Option<(usize, Option<(i64, i64)>)>,
}

/// Opens a segment; `None` when it is damaged: it is reported, and the answer goes on without it.
pub(super) fn open_or_pass_over(
    store: &Store,
    counts: &ScanCounts,
    segment: &Arc<Segment>,
) -> Result<Option<Arc<OpenSegment>>> {
    match store.open_segment(segment) {
        Ok(open) => Ok(Some(open)),
        Err(error) => pass_over(store, counts, segment, error).map(|()| None),
    }
}

fn pass_over(store: &Store, counts: &ScanCounts, segment: &Segment, error: ReadError) -> Result<()> {
    let ReadError::Damaged { reason, .. } = &error else { return Err(source::damaged(error)) };
    store.report_damage(segment.id, reason.clone());
    counts.note(format!(
        "segment {} is damaged and left out with its {} records ({reason}); it is kept for repair",
        segment.path, segment.records
    ));
    Ok(())
}

impl Inputs {
    fn open(&self, segment: &Arc<Segment>) -> Result<Option<Arc<OpenSegment>>> {
        open_or_pass_over(&self.store, &self.counts, segment)
    }

    /// Goes on without a damaged segment.
    fn without(&self, segment: &Segment, error: ReadError) -> Result<()> {
        pass_over(&self.store, &self.counts, segment, error)
    }

    /// Records of a row group that can match.
    fn candidates(&self, open: &Arc<OpenSegment>) -> Result<Vec<(usize, Vec<std::ops::Range<usize>>)>> {
        let blocks = match (&open.index, &self.search) {
            (None, _) | (_, Search::Any) => None,
            (Some(index), search) => match index.find(search) {
                Ok(blocks) => blocks,
                Err(error) => {
                    // Slower without it, and right; the next start makes it again.
                    tracing::warn!(%error, "an index is passed over");
                    None
                }
            },
        };
        if blocks.as_ref().is_some_and(|blocks| blocks.is_empty()) {
            return Ok(Vec::new());
        }
        let groups = 0..open.metadata().num_row_groups();
        let found = groups.map(|group| (group, matching(open, group, &self.conditions, blocks.as_ref())));
        Ok(found.filter(|(_, ranges)| !ranges.is_empty()).collect())
    }
}

/// The leaf of a plan.
pub(super) struct LogsScan {
    inputs: Arc<Inputs>,
    /// How records are found and what is given of them.
    stages: Arc<Stages>,
    newest_stages: Option<Arc<Stages>>,
    schema: SchemaRef,
    newest: Option<Newest>,
    fetch: Option<usize>,
    properties: Arc<PlanProperties>,
}

impl LogsScan {
    pub fn new(
        inputs: Inputs,
        mut stages: Stages,
        schema: SchemaRef,
        partitions: usize,
        fetch: Option<usize>,
    ) -> LogsScan {
        let newest_stages = stages.take_newest().map(Arc::new);
        let (inputs, stages) = (Arc::new(inputs), Arc::new(stages));
        let properties = properties(&schema, partitions);
        LogsScan { inputs, stages, newest_stages, schema, newest: None, fetch, properties }
    }

    fn partitions(&self) -> usize {
        self.properties.output_partitioning().partition_count()
    }

    /// The same scan for the newest or oldest records only.
    fn with_newest(&self, newest: Newest) -> Option<LogsScan> {
        Some(LogsScan {
            inputs: self.inputs.clone(),
            stages: self.newest_stages.clone()?,
            newest_stages: None,
            schema: self.schema.clone(),
            newest: Some(newest),
            fetch: None,
            properties: properties(&self.schema, 1),
        })
    }
}

fn properties(schema: &SchemaRef, partitions: usize) -> Arc<PlanProperties> {
    Arc::new(PlanProperties::new(
        EquivalenceProperties::new(schema.clone()),
        Partitioning::UnknownPartitioning(partitions),
        EmissionType::Incremental,
        Boundedness::Bounded,
    ))
}

impl fmt::Debug for LogsScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogsScan").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl DisplayAs for LogsScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(
            f,
            "LogsScan: segments={}, batches={}, columns=[{}]",
            self.inputs.segments.len(),
            self.inputs.buffer.len(),
            columns.join(", ")
        )?;
        if !self.inputs.conditions.is_empty() || self.inputs.search != Search::Any {
            write!(f, ", pruned by {:?} {:?}", self.inputs.conditions, self.inputs.search)?;
        }
        if let Some(newest) = &self.newest {
            write!(f, ", {newest}")?;
        }
        self.fetch.map_or(Ok(()), |fetch| write!(f, ", fetch={fetch}"))
    }
}

impl ExecutionPlan for LogsScan {
    fn name(&self) -> &str {
        "LogsScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if let Some(newest) = &self.newest {
            let found = newest.run(self.inputs.clone(), self.stages.clone());
            return Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), found)));
        }
        let reader = Reader {
            inputs: self.inputs.clone(),
            stages: self.stages.clone(),
            partition,
            partitions: self.partitions(),
            next_unit: 0,
            buffer: 0,
            segment: 0,
            sources: VecDeque::new(),
            batches: VecDeque::new(),
            held: MemoryConsumer::new("LogsScan").register(context.memory_pool()),
            rows_left: self.fetch.unwrap_or(usize::MAX),
        };
        let batches = stream::try_unfold(reader, |mut reader| async move {
            // Each step computes for milliseconds: let others, and a cancellation, have their turn.
            tokio::task::yield_now().await;
            Ok(reader.next()?.map(|batch| (batch, reader)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), batches)))
    }

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema);
        if let (Some((rows, bounds)), None) = (&self.inputs.all, partition)
            && self.fetch.is_none()
            && self.newest.is_none()
        {
            statistics.num_rows = Precision::Exact(*rows);
            let at = |ns: i64| Precision::Exact(ScalarValue::TimestampNanosecond(Some(ns), Some("UTC".into())));
            if let (Some(place), Some((min, max))) = (self.schema.index_of(column::TIMESTAMP).ok(), bounds) {
                let known = &mut statistics.column_statistics[place];
                *known = ColumnStatistics {
                    null_count: Precision::Exact(0),
                    min_value: at(*min),
                    max_value: at(*max),
                    ..ColumnStatistics::new_unknown()
                };
            }
        }
        Ok(Arc::new(statistics))
    }

    fn supports_limit_pushdown(&self) -> bool {
        false
    }

    fn fetch(&self) -> Option<usize> {
        self.fetch
    }
}

/// One partition of a scan: every so manieth unit (a piece of the buffer, a row group) is its.
struct Reader {
    inputs: Arc<Inputs>,
    stages: Arc<Stages>,
    partition: usize,
    partitions: usize,
    next_unit: usize,
    /// The next batch of the buffer, then the next segment.
    buffer: usize,
    segment: usize,
    sources: VecDeque<Source>,
    batches: VecDeque<RecordBatch>,
    /// Memory of what is being read, then of the batches that were read and not given yet.
    held: MemoryReservation,
    rows_left: usize,
}

impl Reader {
    fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if self.rows_left == 0 {
                return Ok(None);
            }
            if let Some(batch) = self.batches.pop_front() {
                let batch = if batch.num_rows() > self.rows_left { batch.slice(0, self.rows_left) } else { batch };
                self.rows_left -= batch.num_rows();
                return Ok(Some(batch));
            }
            let Some(source) = self.sources.pop_front() else {
                if self.advance()? {
                    continue;
                }
                return Ok(None);
            };
            let segment = match &source {
                Source::Segment(open, ..) => Some(open.segment.clone()),
                Source::Buffer(..) => None,
            };
            self.held.try_resize(source.memory_bytes(&self.stages))?;
            match read(source, &self.stages, &self.inputs.counts) {
                Ok(batch) => {
                    // What lies in the buffer is counted there.
                    self.held.try_resize(segment.map_or(0, |_| batch.get_array_memory_size()))?;
                    self.batches.extend(sliced(batch));
                }
                Err(error) => self.pass_over(segment, error)?,
            }
        }
    }

    /// Goes on behind a damaged segment.
    fn pass_over(&mut self, segment: Option<Arc<Segment>>, error: datafusion::error::DataFusionError) -> Result<()> {
        let Some(segment) = segment else { return Err(error) };
        match newest::read_error(error) {
            Ok(damage) => {
                self.inputs.without(&segment, damage)?;
                self.sources.clear();
                Ok(())
            }
            Err(other) => Err(other),
        }
    }

    /// Whether the next unit is this partition's.
    fn is_mine(&mut self) -> bool {
        let unit = self.next_unit;
        self.next_unit += 1;
        unit % self.partitions == self.partition
    }

    /// Takes up the next batch or segment; `false` at the end.
    fn advance(&mut self) -> Result<bool> {
        if let Some(batch) = self.inputs.buffer.get(self.buffer).cloned() {
            self.buffer += 1;
            for start in (0..batch.rows()).step_by(BUFFER_ROWS) {
                if self.is_mine() {
                    self.sources.push_back(Source::Buffer(batch.clone(), start..batch.rows().min(start + BUFFER_ROWS)));
                }
            }
            return Ok(true);
        }
        let Some(segment) = self.inputs.segments.get(self.segment).cloned() else { return Ok(false) };
        self.segment += 1;
        let Some(open) = self.inputs.open(&segment)? else { return Ok(true) };
        for (row_group, ranges) in self.inputs.candidates(&open)? {
            if self.is_mine() {
                self.sources.extend(Source::Segment(open.clone(), row_group, ranges).chunks(&self.stages));
            }
        }
        Ok(true)
    }
}

fn read(source: Source, stages: &Stages, counts: &ScanCounts) -> Result<RecordBatch> {
    let mut found = source::find(source, stages, counts)?;
    if found.rows == 0 {
        return Ok(RecordBatch::new_empty(stages.output()));
    }
    source::fetch(&mut found, stages, counts)
}

/// Batches that operators take well: all at once while columns are few, else in pieces.
pub(super) fn sliced(batch: RecordBatch) -> Vec<RecordBatch> {
    let rows = batch.num_rows();
    if rows == 0 {
        return Vec::new();
    }
    if batch.num_columns() <= 4 && rows <= 8 * BATCH_ROWS {
        return vec![batch];
    }
    (0..rows).step_by(BATCH_ROWS).map(|start| batch.slice(start, BATCH_ROWS.min(rows - start))).collect()
}

impl ScanCounts {
    /// Counts what a scan starts with.
    pub(super) fn begin(&self, scanned: usize, pruned: usize) {
        self.segments_scanned.fetch_add(scanned as u64, Relaxed);
        self.segments_pruned.fetch_add(pruned as u64, Relaxed);
    }
}
