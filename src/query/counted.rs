//! Counts without reading records: a question that only counts by time bucket, level and service is put to the counts in
//! the segments' indexes (a number for each minute, level and service). Records are read only where those can't tell: in
//! the buffer, at the ends of a range that cut a minute, and in segments without counts.
//!
//! **Invariant**: the answer is the same as from the records.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringViewBuilder, TimestampNanosecondArray,
    UInt32Array,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider, default_table_source::source_as_provider};
use datafusion::common::cast::as_boolean_array;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::{TableType, provider_as_source};
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_aggregate::expr_fn::sum;
use datafusion::logical_expr::expr::{AggregateFunction, ScalarFunction};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, TableProviderFilterPushDown};
use datafusion::logical_expr::{TableScan, TableScanBuilder};
use datafusion::optimizer::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions as physical;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::union::UnionExec;
use datafusion::prelude::{col, lit};

use super::extremes;
use super::prune::Bounds;
use super::table::LogsTable;
use crate::record::column;
use crate::storage::Segment;
use crate::storage::index::{CELL_NS, Counts};

/// How many records a row stands for.
const COUNT: &str = "_count";
const NS_PER_DAY: i64 = 86_400_000_000_000;

/// Puts counting questions to the counts, and those for extremes to catalog and footers.
#[derive(Debug)]
pub(super) struct AnswerWithoutRecords;

impl OptimizerRule for AnswerWithoutRecords {
    fn name(&self) -> &str {
        "answer_without_records"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let rewritten = match &plan {
            LogicalPlan::Aggregate(aggregate) => told(aggregate)?,
            _ => None,
        };
        Ok(rewritten.map_or_else(|| Transformed::no(plan), Transformed::yes))
    }
}

/// The aggregate over something that is smaller than the records; `None` when there is nothing.
fn told(aggregate: &Aggregate) -> Result<Option<LogicalPlan>> {
    let LogicalPlan::TableScan(scan) = aggregate.input.as_ref() else { return Ok(None) };
    let provider = source_as_provider(&scan.source)?;
    let any: &dyn std::any::Any = provider.as_ref();
    let Some(table) = any.downcast_ref::<LogsTable>().filter(|_| scan.fetch.is_none()) else { return Ok(None) };
    match counted(aggregate, scan, table)? {
        None => extremes::told(aggregate, scan, table),
        counted => Ok(counted),
    }
}

/// The aggregate over counts; `None` when they do not tell.
fn counted(aggregate: &Aggregate, scan: &TableScan, table: &LogsTable) -> Result<Option<LogicalPlan>> {
    let mut used = Used::default();
    let fits = aggregate.group_expr.iter().all(|expr| used.allows(expr))
        && aggregate
            .aggr_expr
            .iter()
            .all(|expr| count_of(expr).is_some_and(|filter| filter.is_none_or(|filter| used.allows(filter))));
    let Some(filters) = Filters::of(table, &scan.filters).filter(|_| fits) else { return Ok(None) };

    let counts = CountsTable { table: table.clone(), filters, used };
    let scan = TableScanBuilder::new(scan.table_name.clone(), provider_as_source(Arc::new(counts))).build()?;
    let sums = aggregate.aggr_expr.iter().enumerate().map(|(at, expr)| {
        let filter = count_of(expr).flatten().cloned();
        let sum = sum(col(Column::new(Some(scan.table_name.clone()), COUNT)));
        let sum = match (sum, filter) {
            (Expr::AggregateFunction(mut call), Some(filter)) => {
                call.params.filter = Some(Box::new(filter));
                Expr::AggregateFunction(call)
            }
            (sum, _) => sum,
        };
        sum.alias(format!("{COUNT}{at}"))
    });
    let sums: Vec<Expr> = sums.collect();
    let built = LogicalPlanBuilder::from(LogicalPlan::TableScan(scan)).aggregate(aggregate.group_expr.clone(), sums)?;
    let groups = aggregate.schema.fields().len() - aggregate.aggr_expr.len();
    let outputs = aggregate.schema.iter().zip(built.schema().iter()).enumerate();
    let outputs = outputs.map(|(at, ((qualifier, field), (from, summed)))| {
        let summed = Expr::Column(Column::from((from, summed)));
        if at < groups {
            summed
        } else {
            coalesce(vec![summed, lit(0_i64)]).alias_qualified(qualifier.cloned(), field.name())
        }
    });
    let outputs: Vec<Expr> = outputs.collect();
    Ok(Some(built.project(outputs)?.build()?))
}

/// The condition of a plain `count(*)`, if it has one; `None` when it is another aggregate.
fn count_of(expr: &Expr) -> Option<Option<&Expr>> {
    match expr {
        Expr::Alias(alias) => count_of(&alias.expr),
        Expr::AggregateFunction(AggregateFunction { func, params }) if func.name() == "count" => {
            let plain = !params.distinct
                && params.order_by.is_empty()
                && params.args.iter().all(|arg| matches!(arg, Expr::Literal(value, _) if !value.is_null()));
            plain.then_some(params.filter.as_deref())
        }
        _ => None,
    }
}

/// What a question looks at.
#[derive(Debug, Clone, Default)]
struct Used {
    level: bool,
    service: bool,
    /// All of its buckets of time begin at multiples of this. **Units**: ns.
    bucket_ns: Option<i64>,
}

impl Used {
    /// Whether an expression is the same for all records of a minute, level and service; notes what it looks at.
    fn allows(&mut self, expr: &Expr) -> bool {
        if let Some(bucket_ns) = bucket_of(expr) {
            self.bucket_ns = Some(self.bucket_ns.map_or(bucket_ns, |known| greatest_common_divisor(known, bucket_ns)));
            return true;
        }
        match expr {
            Expr::Column(column) => match column.name.as_str() {
                column::LEVEL => {
                    self.level = true;
                    true
                }
                column::SERVICE => {
                    self.service = true;
                    true
                }
                _ => false,
            },
            Expr::AggregateFunction(_)
            | Expr::WindowFunction(_)
            | Expr::Exists(_)
            | Expr::InSubquery(_)
            | Expr::ScalarSubquery(_)
            | Expr::OuterReferenceColumn(..)
            | Expr::GroupingSet(_) => false,
            Expr::ScalarFunction(call)
                if call.func.signature().volatility == datafusion::logical_expr::Volatility::Volatile =>
            {
                false
            }
            _ => {
                let mut all = true;
                // The closure never fails.
                let _ = expr.apply_children(|child| {
                    all &= self.allows(child);
                    Ok(if all { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
                });
                all
            }
        }
    }
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// The width of the buckets that an expression puts the timestamp into, where they are made of whole minutes.
fn bucket_of(expr: &Expr) -> Option<i64> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else { return None };
    match (func.name(), args.as_slice()) {
        ("date_bin", [Expr::Literal(stride, _), of, rest @ ..]) if is_timestamp(of) => {
            let stride = interval_ns(stride)?;
            let aligned = match rest {
                [] => true,
                [Expr::Literal(ScalarValue::TimestampNanosecond(Some(origin), _), _)] => origin % CELL_NS == 0,
                _ => false,
            };
            (aligned && stride > 0 && stride % CELL_NS == 0).then_some(if rest.is_empty() { stride } else { CELL_NS })
        }
        ("date_trunc", [Expr::Literal(unit, _), of]) if is_timestamp(of) => {
            match unit.try_as_str().flatten()?.to_lowercase().as_str() {
                "minute" => Some(CELL_NS),
                "hour" => Some(60 * CELL_NS),
                "day" | "week" | "month" | "quarter" | "year" => Some(NS_PER_DAY),
                _ => None,
            }
        }
        _ => None,
    }
}

fn is_timestamp(expr: &Expr) -> bool {
    matches!(expr, Expr::Column(column) if column.name == column::TIMESTAMP)
}

fn interval_ns(interval: &ScalarValue) -> Option<i64> {
    let of = |days: i32, ns: i64| i64::from(days).checked_mul(NS_PER_DAY)?.checked_add(ns);
    match interval {
        ScalarValue::IntervalMonthDayNano(Some(found)) if found.months == 0 => of(found.days, found.nanoseconds),
        ScalarValue::IntervalDayTime(Some(found)) => of(found.days, i64::from(found.milliseconds) * 1_000_000),
        _ => None,
    }
}

/// Conditions taken apart: those on level and service, and a range of time.
#[derive(Debug, Clone)]
pub(super) struct Filters {
    /// As they came, for where records are read.
    pub all: Vec<Expr>,
    on_keys: Vec<Expr>,
    /// First and last nanosecond.
    pub time: (i64, i64),
}

impl Filters {
    /// `None` when there are others, or an active deletion hides records.
    pub fn of(table: &LogsTable, filters: &[Expr]) -> Option<Filters> {
        // A record that a deletion hides is counted still.
        if table.hides() || !table.is_stored(column::LEVEL) || !table.is_stored(column::SERVICE) {
            return None;
        }
        // A scan is given its conditions without the table's name.
        let filters: Vec<Expr> = filters.iter().cloned().map(unqualified).collect::<Result<_>>().ok()?;
        let mut on_keys = Vec::new();
        let mut timed = Vec::new();
        for conjunct in filters.iter().flat_map(|filter| split_conjunction(filter)) {
            if bounds_time(conjunct) {
                timed.push(conjunct.clone());
            } else if Used::default().allows(conjunct)
                && conjunct.column_refs().iter().all(|found| found.name != column::TIMESTAMP)
            {
                on_keys.push(conjunct.clone());
            } else {
                return None;
            }
        }
        let time = Bounds::of(&timed, table.range(), |_| true).timestamp;
        Some(Filters { all: filters, on_keys, time })
    }

    /// Whether they say nothing of level and service.
    pub fn are_of_time(&self) -> bool {
        self.on_keys.is_empty()
    }

    /// The whole minutes of the range: from the first to before the second. **Units**: minutes since the epoch.
    fn minutes(&self) -> (i64, i64) {
        let first = self.time.0.div_euclid(CELL_NS) + i64::from(self.time.0.rem_euclid(CELL_NS) != 0);
        let end = match self.time.1 {
            i64::MAX => i64::MAX / CELL_NS,
            last => (last + 1).div_euclid(CELL_NS),
        };
        (first, end)
    }

    /// Which keys of a segment meet the conditions on level and service.
    fn keys(&self, state: &dyn Session, counts: &Counts) -> Result<Vec<bool>> {
        let Some(condition) = conjunction(self.on_keys.iter().cloned()) else {
            return Ok(vec![true; counts.keys.len()]);
        };
        let (mut levels, mut services) = (StringViewBuilder::new(), StringViewBuilder::new());
        for (level, service) in &counts.keys {
            levels.append_option(level.as_deref());
            services.append_option(service.as_deref());
        }
        let text = |name: &str| Field::new(name, DataType::Utf8View, true);
        let schema = Arc::new(Schema::new(vec![text(column::LEVEL), text(column::SERVICE)]));
        let columns: Vec<ArrayRef> = vec![Arc::new(levels.finish()), Arc::new(services.finish())];
        let batch = RecordBatch::try_new(schema.clone(), columns)?;
        let condition = state.create_physical_expr(condition, &DFSchema::try_from(schema.as_ref().clone())?)?;
        let decided = condition.evaluate(&batch)?.into_array(counts.keys.len())?;
        let decided = as_boolean_array(&decided)?;
        Ok((0..decided.len()).map(|key| decided.is_valid(key) && decided.value(key)).collect())
    }
}

/// Whether a condition is nothing but a bound of the timestamp, as [`Bounds`] reads it exactly.
fn bounds_time(conjunct: &Expr) -> bool {
    let is_time = |expr: &Expr| matches!(expr, Expr::Literal(ScalarValue::TimestampNanosecond(Some(_), _), _));
    match conjunct {
        Expr::BinaryExpr(found) => {
            use datafusion::logical_expr::Operator::{Eq, Gt, GtEq, Lt, LtEq};
            matches!(found.op, Eq | Gt | GtEq | Lt | LtEq)
                && (is_timestamp(&found.left) && is_time(&found.right)
                    || is_time(&found.left) && is_timestamp(&found.right))
        }
        Expr::Between(found) => {
            !found.negated && is_timestamp(&found.expr) && is_time(&found.low) && is_time(&found.high)
        }
        _ => false,
    }
}

fn unqualified(expr: Expr) -> Result<Expr> {
    let plain = expr.transform(|expr| {
        Ok(match expr {
            Expr::Column(column) if column.relation.is_some() => {
                Transformed::yes(Expr::Column(Column::new_unqualified(column.name)))
            }
            other => Transformed::no(other),
        })
    })?;
    Ok(plain.data)
}

/// The records of a table as counts: a row stands for `_count` records that a question can't tell apart.
struct CountsTable {
    table: LogsTable,
    filters: Filters,
    used: Used,
}

impl fmt::Debug for CountsTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CountsTable").field("used", &self.used).finish_non_exhaustive()
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new(column::TIMESTAMP, DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), false),
        Field::new(column::LEVEL, DataType::Utf8View, true),
        Field::new(column::SERVICE, DataType::Utf8View, true),
        Field::new(COUNT, DataType::Int64, false),
    ]))
}

/// Counts added up: by bucket, and by level and service, which are numbered as they come.
#[derive(Default)]
struct Sums {
    keys: BTreeMap<(Option<String>, Option<String>), u32>,
    /// In any order; a place may stand more than once.
    counts: Vec<((i64, u32), i64)>,
}

impl Sums {
    fn number(&mut self, level: Option<&str>, service: Option<&str>) -> u32 {
        let next = self.keys.len() as u32;
        *self.keys.entry((level.map(str::to_owned), service.map(str::to_owned))).or_insert(next)
    }
}

impl CountsTable {
    /// Adds the counts of a segment's whole minutes.
    fn add(&self, state: &dyn Session, counts: &Counts, sums: &mut Sums) -> Result<()> {
        let (first, end) = self.filters.minutes();
        let allowed = self.filters.keys(state, counts)?;
        let bucket_minutes = self.used.bucket_ns.map_or(i64::MAX, |bucket_ns| bucket_ns / CELL_NS);
        // Keys that the question can't tell apart become one.
        let mut places: BTreeMap<(Option<&str>, Option<&str>), usize> = BTreeMap::new();
        let place_of: Vec<Option<usize>> = counts
            .keys
            .iter()
            .zip(allowed)
            .map(|((level, service), allowed)| {
                let key =
                    (level.as_deref().filter(|_| self.used.level), service.as_deref().filter(|_| self.used.service));
                let next = places.len();
                allowed.then(|| *places.entry(key).or_insert(next))
            })
            .collect();
        let mut totals = vec![0_i64; places.len()];
        let start = counts.cells.partition_point(|cell| cell.minute < first);
        let cells = counts.cells[start..].iter().take_while(|cell| cell.minute < end);
        let mut bucket: Option<i64> = None;
        let mut numbers = vec![0; places.len()];
        places.iter().for_each(|((level, service), place)| numbers[*place] = sums.number(*level, *service));
        let mut settle = |bucket: Option<i64>, totals: &mut Vec<i64>| {
            let Some(bucket) = bucket else { return };
            for (total, number) in totals.iter_mut().zip(&numbers).filter(|(total, _)| **total > 0) {
                sums.counts.push(((bucket, *number), std::mem::take(total)));
            }
        };
        for cell in cells {
            let of_cell = if bucket_minutes == i64::MAX { 0 } else { cell.minute.div_euclid(bucket_minutes) };
            if bucket != Some(of_cell) {
                settle(bucket, &mut totals);
                bucket = Some(of_cell);
            }
            if let Some(place) = place_of[cell.key as usize] {
                totals[place] += i64::from(cell.count);
            }
        }
        settle(bucket, &mut totals);
        Ok(())
    }

    fn batch(&self, sums: Sums) -> Result<RecordBatch> {
        let width = self.used.bucket_ns.unwrap_or(0);
        let mut keys: Vec<_> = sums.keys.into_iter().collect();
        keys.sort_unstable_by_key(|(_, number)| *number);
        let (mut levels, mut services) = (StringViewBuilder::new(), StringViewBuilder::new());
        for ((level, service), _) in keys {
            levels.append_option(level);
            services.append_option(service);
        }
        // In the order of time, in which questions mostly want them.
        let mut cells = sums.counts;
        cells.sort_unstable_by_key(|(place, _)| *place);
        cells.dedup_by(|next, first| {
            let same = next.0 == first.0;
            first.1 += if same { next.1 } else { 0 };
            same
        });
        let rows = cells.len();
        let numbers: UInt32Array = cells.iter().map(|((_, number), _)| *number).collect();
        let times = TimestampNanosecondArray::from_iter_values(cells.iter().map(|((bucket, _), _)| bucket * width));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(times.with_timezone("UTC")),
            take(&levels.finish(), &numbers, None)?,
            take(&services.finish(), &numbers, None)?,
            Arc::new(Int64Array::from_iter_values(cells.iter().map(|(_, count)| *count))),
        ];
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(schema(), columns, &options)?)
    }

    /// The condition that leaves what lies in no whole minute of the range; `None`: nothing does.
    fn ends(&self) -> Option<Expr> {
        let (first, end) = self.filters.minutes();
        let (low, high) = self.filters.time;
        let at = |ns: i64| lit(ScalarValue::TimestampNanosecond(Some(ns), Some("UTC".into())));
        if first >= end {
            return Some(lit(true));
        }
        let timestamp = || col(column::TIMESTAMP);
        let before = (low > i64::MIN && low < first * CELL_NS).then(|| timestamp().lt(at(first * CELL_NS)));
        let after = (high < i64::MAX && high >= end * CELL_NS).then(|| timestamp().gt_eq(at(end * CELL_NS)));
        match (before, after) {
            (Some(before), Some(after)) => Some(before.or(after)),
            (one, other) => one.or(other),
        }
    }

    /// Records, each counted as one.
    fn ones(&self, scan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let read = scan.schema();
        let columns = schema()
            .fields()
            .iter()
            .map(|field| {
                let expr: Arc<dyn PhysicalExpr> =
                    if field.name() == COUNT { physical::lit(1_i64) } else { physical::col(field.name(), &read)? };
                Ok(ProjectionExpr { expr, alias: field.name().clone() })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(ProjectionExec::try_new(columns, scan)?))
    }
}

#[async_trait]
impl TableProvider for CountsTable {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Unsupported; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let bounds = Bounds::of(&self.filters.all, self.table.range(), |name| self.table.is_stored(name));
        let (first, end) = self.filters.minutes();
        let (mut sums, mut uncounted, mut cut): (Sums, Vec<Arc<Segment>>, Vec<Arc<Segment>>) = Default::default();
        for segment in self.table.segments(&bounds) {
            let Some(open) = self.table.open(&segment)? else { continue };
            match open.index.as_ref().map(|index| index.counts()) {
                Some(Ok(Some(counts))) if first < end => {
                    self.add(state, counts, &mut sums)?;
                    let inside = first * CELL_NS <= segment.min_ts && segment.max_ts < end.saturating_mul(CELL_NS);
                    if !inside {
                        cut.push(segment);
                    }
                }
                _ => uncounted.push(segment),
            }
        }
        let columns: BTreeSet<&str> = [column::TIMESTAMP, column::LEVEL, column::SERVICE].into();
        let output: SchemaRef = Arc::new(Schema::new(
            schema()
                .fields()
                .iter()
                .filter(|field| columns.contains(field.name().as_str()))
                .cloned()
                .collect::<Vec<_>>(),
        ));
        let batch = self.batch(sums)?;
        let mut parts: Vec<Arc<dyn ExecutionPlan>> =
            vec![MemorySourceConfig::try_new_exec(&[vec![batch]], schema(), None)?];
        let buffer = self.table.buffer(&bounds);
        if !buffer.is_empty() || !uncounted.is_empty() {
            let scan = self.table.scan_of(state, &output, &self.filters.all, buffer, uncounted, None)?;
            parts.push(self.ones(scan)?);
        }
        if let Some(ends) = self.ends().filter(|_| !cut.is_empty()) {
            let filters: Vec<Expr> = self.filters.all.iter().cloned().chain([ends]).collect();
            let scan = self.table.scan_of(state, &output, &filters, Vec::new(), cut, None)?;
            parts.push(self.ones(scan)?);
        }
        let whole = match <[_; 1]>::try_from(parts) {
            Ok([one]) => one,
            Err(parts) => UnionExec::try_new(parts)?,
        };
        let Some(projection) = projection else { return Ok(whole) };
        let columns = projection.iter().map(|place| {
            let field = schema().field(*place).clone();
            Ok(ProjectionExpr { expr: physical::col(field.name(), &schema())?, alias: field.name().clone() })
        });
        Ok(Arc::new(ProjectionExec::try_new(columns.collect::<Result<Vec<_>>>()?, whole)?))
    }
}
