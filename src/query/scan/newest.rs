//! The newest (or oldest) records: what Explore asks all day. Instead of reading everything and sorting it, a scan below
//! such a sort walks units from the newest: segments, their row groups, their pages; it remembers where the best records
//! lie, stops when nothing left can be newer than the worst of them, and reads whole records only for those.

use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::TimestampNanosecondType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DataFusionError, Result};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{ExecutionPlan, replace_children_if_necessary};
use futures::{Stream, TryStreamExt, stream};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use tokio::task::JoinSet;

use super::source::{self, Loaded, Source};
use super::{Inputs, LogsScan, Stages, sliced};
use crate::record::column;
use crate::storage::segment::{OpenSegment, ReadError};
use crate::storage::{Buffered, Segment};

/// Most records that are worth finding this way; a longer sort reads everything.
const WANTED_MAX: usize = 100_000;
/// Pages looked at before the bound is moved; doubles while little is found.
const PAGES_MIN: usize = 16;
const PAGES_MAX: usize = 1_024;

/// Replaces the scan below a sort for the newest or oldest records.
#[derive(Debug)]
pub(in super::super) struct NewestFirst;

impl PhysicalOptimizerRule for NewestFirst {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let threads = config.execution.target_partitions.max(1);
        let transformed = plan.transform_up(|node| {
            let any: &dyn std::any::Any = node.as_ref();
            let Some(sort) = any.downcast_ref::<SortExec>() else { return Ok(Transformed::no(node)) };
            let wanted = sort.fetch().filter(|wanted| (1..=WANTED_MAX).contains(wanted));
            let first = sort.expr().first();
            let (Some(wanted), Some(key)) = (wanted, key_column(first.expr.as_ref())) else {
                return Ok(Transformed::no(node));
            };
            let newest = Newest::new(wanted, first.options.descending, threads);
            match replaced(sort.input(), key, &newest)? {
                Some(input) => Ok(Transformed::yes(replace_children_if_necessary(node.clone(), vec![input])?)),
                None => Ok(Transformed::no(node)),
            }
        })?;
        Ok(transformed.data)
    }

    fn name(&self) -> &str {
        "newest_first"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn key_column(key: &dyn datafusion::physical_expr::PhysicalExpr) -> Option<usize> {
    let any: &dyn std::any::Any = key;
    any.downcast_ref::<Column>().map(Column::index)
}

/// The input of a sort by its column `key`, with its scan replaced; `None` when it is not a scan with nothing but
/// projections above it.
fn replaced(plan: &Arc<dyn ExecutionPlan>, key: usize, newest: &Newest) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let any: &dyn std::any::Any = plan.as_ref();
    if let Some(scan) = any.downcast_ref::<LogsScan>() {
        let by_time = scan.schema.field(key).name() == column::TIMESTAMP && scan.fetch.is_none();
        let scan = by_time.then(|| scan.with_newest(newest.clone())).flatten();
        return Ok(scan.map(|scan| Arc::new(scan) as _));
    }
    let key = if let Some(projection) = any.downcast_ref::<ProjectionExec>() {
        match key_column(projection.expr()[key].expr.as_ref()) {
            Some(key) => key,
            None => return Ok(None),
        }
    } else if any.is::<CoalescePartitionsExec>() || any.is::<CooperativeExec>() {
        key
    } else {
        return Ok(None);
    };
    let children = plan.children();
    let Some(input) = replaced(children[0], key, newest)? else { return Ok(None) };
    Ok(Some(replace_children_if_necessary(plan.clone(), vec![input])?))
}

/// How many of the newest or oldest records are wanted.
#[derive(Debug, Clone)]
pub(in super::super) struct Newest {
    wanted: usize,
    /// The newest; else the oldest.
    descending: bool,
    threads: usize,
}

impl fmt::Display for Newest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", if self.descending { "newest" } else { "oldest" }, self.wanted)
    }
}

impl Newest {
    fn new(wanted: usize, descending: bool, threads: usize) -> Newest {
        Newest { wanted, descending, threads }
    }

    /// Larger is better.
    fn rank(&self, timestamp: i64) -> i64 {
        if self.descending { timestamp } else { timestamp.saturating_neg() }
    }

    /// The best rank in a range of time.
    fn best(&self, min: i64, max: i64) -> i64 {
        self.rank(if self.descending { max } else { min })
    }

    /// The wanted records, in any order, and perhaps more.
    pub(super) fn run(
        &self,
        inputs: Arc<Inputs>,
        stages: Arc<Stages>,
    ) -> impl Stream<Item = Result<RecordBatch>> + Send + use<> {
        let newest = self.clone();
        let found = async move {
            let batches = newest.find_and_fetch(inputs, stages).await?;
            Ok::<_, DataFusionError>(stream::iter(batches.into_iter().flat_map(sliced).map(Ok)))
        };
        stream::once(found).try_flatten()
    }

    async fn find_and_fetch(&self, inputs: Arc<Inputs>, stages: Arc<Stages>) -> Result<Vec<RecordBatch>> {
        let floor = Arc::new(AtomicI64::new(i64::MIN));
        let mut tasks = JoinSet::new();
        for thread in 0..self.threads {
            let walk = Walk {
                newest: self.clone(),
                inputs: inputs.clone(),
                stages: stages.clone(),
                floor: floor.clone(),
                thread,
                units: BinaryHeap::new(),
                found: Vec::new(),
                sources: Vec::new(),
            };
            tasks.spawn(walk.run());
        }
        let (mut sources, mut found): (Vec<Source>, Vec<Found>) = (Vec::new(), Vec::new());
        while let Some(walked) = tasks.join_next().await {
            let (more, places) = walked.map_err(|error| DataFusionError::External(Box::new(error)))??;
            let base = sources.len() as u32;
            sources.extend(more);
            found.extend(places.into_iter().map(|place| Found { source: place.source + base, ..place }));
        }
        keep_best(&mut found, self.wanted);
        let mut rows: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        found.into_iter().for_each(|place| rows.entry(place.source).or_default().push(place.row));
        let mut tasks = JoinSet::new();
        let parts: Vec<(Source, Vec<u32>)> =
            rows.into_iter().map(|(source, rows)| (sources[source as usize].clone(), rows)).collect();
        for thread in 0..self.threads {
            let mine: Vec<_> = parts.iter().skip(thread).step_by(self.threads).cloned().collect();
            let (stages, inputs) = (stages.clone(), inputs.clone());
            tasks.spawn(async move {
                let mut batches = Vec::new();
                for (source, rows) in mine {
                    tokio::task::yield_now().await;
                    batches.push(fetch_rows(source, rows, &stages, &inputs)?);
                }
                Ok::<_, DataFusionError>(batches)
            });
        }
        let mut batches = Vec::new();
        while let Some(fetched) = tasks.join_next().await {
            batches.extend(fetched.map_err(|error| DataFusionError::External(Box::new(error)))??);
        }
        Ok(batches)
    }
}

/// Reads the answer's columns of some records.
fn fetch_rows(source: Source, mut rows: Vec<u32>, stages: &Stages, inputs: &Inputs) -> Result<RecordBatch> {
    rows.sort_unstable();
    let ranges = rows.chunk_by(|a, b| a + 1 == *b).map(|run| run[0] as usize..run[run.len() - 1] as usize + 1);
    let ranges: Vec<Range<usize>> = ranges.collect();
    let whole = stages.everything();
    match source {
        Source::Segment(open, row_group, _) => {
            let segment = open.segment.clone();
            let source = Source::Segment(open, row_group, ranges);
            let mut found = Loaded { rows: source.rows(), source, columns: Vec::new() };
            match source::fetch(&mut found, whole, &inputs.counts) {
                Ok(batch) => Ok(batch),
                Err(error) => {
                    inputs.without(&segment, read_error(error)?)?;
                    Ok(RecordBatch::new_empty(stages.output()))
                }
            }
        }
        Source::Buffer(batch, range) => {
            let mut kept = vec![false; range.len()];
            rows.iter().for_each(|row| kept[*row as usize] = true);
            let source = source::cut(&batch, &range, &BooleanArray::from(kept))?;
            let mut found = Loaded { rows: source.rows(), source, columns: Vec::new() };
            source::fetch(&mut found, whole, &inputs.counts)
        }
    }
}

/// The error of a segment in what came through DataFusion.
pub(super) fn read_error(error: DataFusionError) -> Result<ReadError> {
    match error {
        DataFusionError::External(inner) => match inner.downcast::<ReadError>() {
            Ok(error) => Ok(*error),
            Err(inner) => Err(DataFusionError::External(inner)),
        },
        other => Err(other),
    }
}

/// A record that may be among the wanted.
#[derive(Debug, Clone, Copy)]
struct Found {
    rank: i64,
    source: u32,
    row: u32,
}

/// Keeps the `wanted` best and all that are as good as the worst of them; gives its rank when there are so many.
fn keep_best(found: &mut Vec<Found>, wanted: usize) -> Option<i64> {
    if found.len() < wanted {
        return None;
    }
    let (_, worst, _) = found.select_nth_unstable_by_key(wanted - 1, |place| std::cmp::Reverse(place.rank));
    let floor = worst.rank;
    found.retain(|place| place.rank >= floor);
    Some(floor)
}

/// What may still hold a wanted record, by its best rank.
enum Unit {
    Buffer(Arc<Buffered>),
    Segment(Arc<Segment>),
    RowGroup(Arc<OpenSegment>, usize, Vec<Range<usize>>),
    Page(Arc<OpenSegment>, usize, Range<usize>),
}

struct Ranked(i64, Unit);

impl PartialEq for Ranked {
    fn eq(&self, other: &Ranked) -> bool {
        self.0 == other.0
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Ranked) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Ranked) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

/// One thread's walk; threads share the units, and what they know of the worst record that is still wanted.
struct Walk {
    newest: Newest,
    inputs: Arc<Inputs>,
    stages: Arc<Stages>,
    floor: Arc<AtomicI64>,
    thread: usize,
    units: BinaryHeap<Ranked>,
    found: Vec<Found>,
    sources: Vec<Source>,
}

impl Walk {
    async fn run(mut self) -> Result<(Vec<Source>, Vec<Found>)> {
        for (at, batch) in self.inputs.buffer.iter().enumerate() {
            if at % self.newest.threads == self.thread {
                let rank = self.newest.best(batch.min_ts, batch.max_ts);
                self.units.push(Ranked(rank, Unit::Buffer(batch.clone())));
            }
        }
        for segment in &self.inputs.segments {
            let rank = self.newest.best(segment.min_ts, segment.max_ts);
            self.units.push(Ranked(rank, Unit::Segment(segment.clone())));
        }
        let mut pages_max = PAGES_MIN;
        let mut pages: Vec<(Arc<OpenSegment>, usize, Range<usize>)> = Vec::new();
        loop {
            let floor = self.floor.load(Ordering::Relaxed);
            let next = self.units.pop().filter(|unit| unit.0 >= floor);
            match next {
                Some(Ranked(_, Unit::Page(open, row_group, rows))) => pages.push((open, row_group, rows)),
                Some(Ranked(_, unit)) => self.open(unit)?,
                None if pages.is_empty() => break,
                None => {}
            }
            let ended = self.units.peek().is_none_or(|unit| unit.0 < self.floor.load(Ordering::Relaxed));
            if pages.len() >= pages_max || (ended && !pages.is_empty()) {
                self.look_at(std::mem::take(&mut pages)).await?;
                pages_max = (pages_max * 2).min(PAGES_MAX);
            }
        }
        Ok((self.sources, self.found))
    }

    /// Takes a unit apart.
    fn open(&mut self, unit: Unit) -> Result<()> {
        match unit {
            Unit::Buffer(batch) => {
                let rows = batch.rows();
                self.look_for(Source::Buffer(batch, 0..rows))
            }
            Unit::Segment(segment) => {
                let Some(open) = self.inputs.open(&segment)? else { return Ok(()) };
                for (row_group, ranges) in self.inputs.candidates(&open)? {
                    // Threads take turns; all see the same units.
                    if (row_group + segment.id as usize) % self.newest.threads == self.thread {
                        let (min, max) = row_group_times(&open, row_group).unwrap_or((segment.min_ts, segment.max_ts));
                        let unit = Unit::RowGroup(open.clone(), row_group, ranges);
                        self.units.push(Ranked(self.newest.best(min, max), unit));
                    }
                }
                Ok(())
            }
            Unit::RowGroup(open, row_group, ranges) => {
                for (rows, min, max) in pages_of(&open, row_group, &ranges) {
                    self.units.push(Ranked(self.newest.best(min, max), Unit::Page(open.clone(), row_group, rows)));
                }
                Ok(())
            }
            Unit::Page(..) => unreachable!("pages are collected"),
        }
    }

    async fn look_at(&mut self, mut pages: Vec<(Arc<OpenSegment>, usize, Range<usize>)>) -> Result<()> {
        pages.sort_by_key(|(open, row_group, rows)| (open.segment.id, *row_group, rows.start));
        for same in pages.chunk_by(|a, b| (a.0.segment.id, a.1) == (b.0.segment.id, b.1)) {
            tokio::task::yield_now().await;
            let (open, row_group, _) = &same[0];
            let mut ranges: Vec<Range<usize>> = Vec::new();
            for (_, _, rows) in same {
                match ranges.last_mut() {
                    Some(last) if last.end == rows.start => last.end = rows.end,
                    _ => ranges.push(rows.clone()),
                }
            }
            for chunk in Source::Segment(open.clone(), *row_group, ranges).chunks(&self.stages) {
                let segment = open.segment.clone();
                if let Err(error) = self.look_for(chunk) {
                    self.inputs.without(&segment, read_error(error)?)?;
                }
            }
        }
        Ok(())
    }

    /// Remembers the records of a source that are good enough.
    fn look_for(&mut self, source: Source) -> Result<()> {
        let floor = self.floor.load(Ordering::Relaxed);
        let newest = self.newest.clone();
        let bound = move |timestamp: i64| newest.rank(timestamp) >= floor;
        let found = source::find_newer(source, &self.stages, &self.inputs.counts, &bound)?;
        if found.rows == 0 {
            return Ok(());
        }
        let place = self.stages.find.last().and_then(|stage| stage.loaded.index_of(column::TIMESTAMP).ok());
        let place = place.expect("the timestamp is loaded first");
        let timestamps = found.columns[place].as_primitive::<TimestampNanosecondType>();
        let source = self.sources.len() as u32;
        let rows: Box<dyn Iterator<Item = u32>> = match &found.source {
            Source::Buffer(..) => Box::new(0..found.rows as u32),
            Source::Segment(_, _, ranges) => {
                Box::new(ranges.clone().into_iter().flat_map(|range| range.start as u32..range.end as u32))
            }
        };
        let ranked = rows.zip(timestamps.values()).map(|(row, timestamp)| Found {
            rank: self.newest.rank(*timestamp),
            source,
            row,
        });
        self.found.extend(ranked.filter(|place| place.rank >= floor));
        self.sources.push(found.source);
        if self.found.len() >= self.newest.wanted
            && let Some(worst) = keep_best(&mut self.found, self.newest.wanted)
        {
            self.floor.fetch_max(worst, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Earliest and latest timestamp of a row group, ns.
fn row_group_times(open: &OpenSegment, row_group: usize) -> Option<(i64, i64)> {
    let place = open.column(column::TIMESTAMP)?;
    match open.metadata().row_group(row_group).column(place).statistics()? {
        parquet::file::statistics::Statistics::Int64(found) => {
            let scale = open.nanoseconds();
            Some((found.min_opt()?.saturating_mul(scale), found.max_opt()?.saturating_mul(scale)))
        }
        _ => None,
    }
}

/// The parts of `ranges` that lie in one page of timestamps each, with its earliest and latest; the whole as one where
/// the footer does not tell.
fn pages_of(open: &OpenSegment, row_group: usize, ranges: &[Range<usize>]) -> Vec<(Range<usize>, i64, i64)> {
    pages_by_index(open, row_group, ranges).unwrap_or_else(|| {
        let (min, max) = row_group_times(open, row_group).unwrap_or((i64::MIN, i64::MAX));
        ranges.iter().map(|range| (range.clone(), min, max)).collect()
    })
}

fn pages_by_index(
    open: &OpenSegment,
    row_group: usize,
    ranges: &[Range<usize>],
) -> Option<Vec<(Range<usize>, i64, i64)>> {
    let place = open.column(column::TIMESTAMP)?;
    let metadata = open.metadata();
    let rows = metadata.row_group(row_group).num_rows() as usize;
    let locations = metadata.offset_index()?.get(row_group)?.get(place)?.page_locations();
    let ColumnIndexMetaData::INT64(index) = metadata.column_index()?.get(row_group)?.get(place)? else { return None };
    let scale = open.nanoseconds();
    let mut pages = Vec::new();
    let mut at = 0;
    for (page, location) in locations.iter().enumerate() {
        let start = location.first_row_index as usize;
        let end = locations.get(page + 1).map_or(rows, |next| next.first_row_index as usize);
        let (min, max) = (index.min_value(page)?.saturating_mul(scale), index.max_value(page)?.saturating_mul(scale));
        while at < ranges.len() && ranges[at].end <= start {
            at += 1;
        }
        let inside = ranges[at..].iter().take_while(|range| range.start < end);
        pages.extend(inside.map(|range| (range.start.max(start)..range.end.min(end), min, max)));
    }
    Some(pages)
}
