//! Grouping of records that lie in runs: segments are sorted by window, level, service and time, so records of one service
//! and ten minutes stand beside each other. Where keys come in runs, this looks up a key once a run, which DataFusion's
//! own partial aggregate does for every record; where they do not, it does the same as that.
//!
//! **Invariant**: it gives what the partial aggregate it replaces gives, in its schema; a group may come more than once,
//! which the final aggregate above expects.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{partition, take};
use arrow::datatypes::SchemaRef;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, aggregate_expressions};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, InputOrderMode, PlanProperties, SendableRecordBatchStream,
};
use futures::{StreamExt, TryStreamExt, stream};

use super::scan::{LogsScan, sliced};

/// Runs shorter than this, on average of a batch, are not worth taking keys out for.
const RUN_RECORDS_MIN: usize = 4;
/// Groups held at once; what has been found is given then (or earlier, where memory is short), and counting begins anew.
const GROUPS_MAX: usize = 100_000;

/// Replaces partial aggregates directly over scans.
#[derive(Debug)]
pub(super) struct GroupRuns;

impl PhysicalOptimizerRule for GroupRuns {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let transformed = plan.transform_up(|node| {
            let any: &dyn std::any::Any = node.as_ref();
            Ok(match any.downcast_ref::<AggregateExec>().and_then(RunsExec::instead_of) {
                Some(runs) => Transformed::yes(Arc::new(runs) as _),
                None => Transformed::no(node),
            })
        })?;
        Ok(transformed.data)
    }

    fn name(&self) -> &str {
        "group_runs"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// A partial aggregate of records in runs.
#[derive(Debug)]
struct RunsExec {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    aggregates: Vec<Arc<AggregateFunctionExpr>>,
    filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    input: Arc<dyn ExecutionPlan>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl RunsExec {
    /// What stands for a partial aggregate; `None` where it is not one of records of a scan, or has what this can't do.
    fn instead_of(aggregate: &AggregateExec) -> Option<RunsExec> {
        let scan: &dyn std::any::Any = aggregate.input().as_ref();
        let group_by = aggregate.group_expr();
        let plain = *aggregate.mode() == AggregateMode::Partial
            && scan.is::<LogsScan>()
            && group_by.is_single()
            && !group_by.is_empty()
            && !group_by.has_grouping_set()
            && aggregate.limit_options().is_none()
            && *aggregate.input_order_mode() == InputOrderMode::Linear
            && aggregate.aggr_expr().iter().all(|one| one.groups_accumulator_supported());
        plain.then(|| RunsExec {
            keys: group_by.expr().iter().map(|(key, _)| key.clone()).collect(),
            aggregates: aggregate.aggr_expr().to_vec(),
            filters: aggregate.filter_expr().to_vec(),
            input: aggregate.input().clone(),
            schema: aggregate.schema(),
            properties: aggregate.properties().clone(),
        })
    }
}

impl DisplayAs for RunsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<String> = self.keys.iter().map(ToString::to_string).collect();
        let aggregates: Vec<&str> = self.aggregates.iter().map(|one| one.name()).collect();
        write!(f, "GroupRuns: by=[{}], aggregates=[{}]", keys.join(", "), aggregates.join(", "))
    }
}

impl ExecutionPlan for RunsExec {
    fn name(&self) -> &str {
        "GroupRuns"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        apply: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for expression in self.keys.iter().chain(self.filters.iter().flatten()) {
            if apply(expression)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let Ok([input]) = <[_; 1]>::try_from(children) else { return internal_err!("GroupRuns has one input") };
        let (keys, aggregates, filters) = (self.keys.clone(), self.aggregates.clone(), self.filters.clone());
        let (schema, properties) = (self.schema.clone(), self.properties.clone());
        Ok(Arc::new(RunsExec { keys, aggregates, filters, input, schema, properties }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let held = MemoryConsumer::new("GroupRuns").register(context.memory_pool());
        let groups = Groups::new(self, held)?;
        let input = self.input.execute(partition, context)?;
        let found = stream::try_unfold(Some((groups, input)), |state| async move {
            let Some((mut groups, mut input)) = state else { return Ok::<_, DataFusionError>(None) };
            while let Some(batch) = input.next().await {
                groups.add(&batch?)?;
                if groups.are_enough() {
                    let found = groups.emit()?;
                    return Ok(Some((found, Some((groups, input)))));
                }
            }
            Ok(Some((groups.emit()?, None)))
        });
        let batches = found.map_ok(|found: RecordBatch| stream::iter(sliced(found).into_iter().map(Ok))).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), batches)))
    }
}

/// The groups of one partition.
struct Groups {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    arguments: Vec<Vec<Arc<dyn PhysicalExpr>>>,
    filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    values: Box<dyn GroupValues>,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    schema: SchemaRef,
    held: MemoryReservation,
    /// The group of each record of a batch; kept for its memory.
    of_record: Vec<usize>,
    of_run: Vec<usize>,
}

impl Groups {
    fn new(plan: &RunsExec, held: MemoryReservation) -> Result<Groups> {
        let key_schema = Arc::new(plan.schema.project(&(0..plan.keys.len()).collect::<Vec<_>>())?);
        let accumulators = plan.aggregates.iter().map(|one| one.create_groups_accumulator());
        Ok(Groups {
            keys: plan.keys.clone(),
            arguments: aggregate_expressions(&plan.aggregates, &AggregateMode::Partial, plan.keys.len())?,
            filters: plan.filters.clone(),
            values: new_group_values(key_schema, &GroupOrdering::None)?,
            accumulators: accumulators.collect::<Result<_>>()?,
            schema: plan.schema.clone(),
            held,
            of_record: Vec::new(),
            of_run: Vec::new(),
        })
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = batch.num_rows();
        let evaluate = |one: &Arc<dyn PhysicalExpr>| one.evaluate(batch)?.into_array(rows);
        let keys = self.keys.iter().map(evaluate).collect::<Result<Vec<_>>>()?;
        self.find(&keys)?;
        let groups = self.values.len();
        for ((accumulator, arguments), filter) in self.accumulators.iter_mut().zip(&self.arguments).zip(&self.filters) {
            let arguments = arguments.iter().map(evaluate).collect::<Result<Vec<_>>>()?;
            let filter = filter.as_ref().map(evaluate).transpose()?;
            let filter: Option<&BooleanArray> = filter.as_ref().map(|filter| filter.as_boolean());
            accumulator.update_batch(&arguments, &self.of_record, filter, groups)?;
        }
        Ok(())
    }

    /// Whether there are as many as may be held: what is above can spill, this can't.
    fn are_enough(&self) -> bool {
        let accumulated: usize = self.accumulators.iter().map(|accumulator| accumulator.size()).sum();
        self.values.len() >= GROUPS_MAX || self.held.try_resize(self.values.size() + accumulated).is_err()
    }

    /// Fills `of_record`.
    fn find(&mut self, keys: &[ArrayRef]) -> Result<()> {
        let rows = keys[0].len();
        let runs = partition(keys)?;
        if runs.len() * RUN_RECORDS_MIN > rows {
            return self.values.intern(keys, &mut self.of_record);
        }
        let ranges = runs.ranges();
        let starts: UInt32Array = ranges.iter().map(|run| run.start as u32).collect();
        let first = keys.iter().map(|key| Ok(take(key, &starts, None)?)).collect::<Result<Vec<_>>>()?;
        self.values.intern(&first, &mut self.of_run)?;
        self.of_record.clear();
        for (run, group) in ranges.into_iter().zip(&self.of_run) {
            self.of_record.extend(std::iter::repeat_n(*group, run.len()));
        }
        Ok(())
    }

    /// Gives all groups, and forgets them.
    fn emit(&mut self) -> Result<RecordBatch> {
        let rows = self.values.len();
        if rows == 0 {
            return Ok(RecordBatch::new_empty(self.schema.clone()));
        }
        let mut columns = self.values.emit(EmitTo::All)?;
        for accumulator in &mut self.accumulators {
            columns.extend(accumulator.state(EmitTo::All)?);
        }
        self.held.free();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}
