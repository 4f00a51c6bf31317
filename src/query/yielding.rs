//! Plans that can be stopped: a nested-loop or cross join that finds no match computes for minutes without giving its
//! thread back, and then neither a deadline nor a client that went away ends it. DataFusion makes leaves and exchanges
//! cooperative; this rule makes such joins look up after every few rows they read.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::joins::{CrossJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
    replace_children_if_necessary,
};
use futures::{StreamExt, stream};

/// Rows that a join reads before it looks up; each meets every row of the other side.
const ROWS_MAX: usize = 128;

/// Puts a [`YieldExec`] below the side that nested-loop and cross joins read row by row.
#[derive(Debug)]
pub(super) struct JoinsYield;

impl PhysicalOptimizerRule for JoinsYield {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let transformed = plan.transform_up(|node| {
            let join: &dyn std::any::Any = node.as_ref();
            if !join.is::<CrossJoinExec>() && !join.is::<NestedLoopJoinExec>() {
                return Ok(Transformed::no(node));
            }
            let mut children: Vec<_> = node.children().into_iter().cloned().collect();
            if let Some(read) = children.pop() {
                children.push(Arc::new(YieldExec { input: read }));
            }
            Ok(Transformed::yes(replace_children_if_necessary(node, children)?))
        })?;
        Ok(transformed.data)
    }

    fn name(&self) -> &str {
        "joins_yield"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Its input in batches of few rows, and a chance for others, and for cancellation, before each.
#[derive(Debug)]
struct YieldExec {
    input: Arc<dyn ExecutionPlan>,
}

impl DisplayAs for YieldExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "YieldExec: rows={ROWS_MAX}")
    }
}

impl ExecutionPlan for YieldExec {
    fn name(&self) -> &str {
        "YieldExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.pop().expect("it has one child");
        Ok(Arc::new(YieldExec { input }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let slices = input.flat_map(|batch| stream::iter(sliced(batch)));
        let yielding = slices.then(|slice| async {
            tokio::task::yield_now().await;
            slice
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), yielding)))
    }
}

fn sliced(batch: Result<RecordBatch>) -> Vec<Result<RecordBatch>> {
    match batch {
        Err(error) => vec![Err(error)],
        Ok(batch) => {
            let rows = batch.num_rows();
            (0..rows).step_by(ROWS_MAX).map(|start| Ok(batch.slice(start, ROWS_MAX.min(rows - start)))).collect()
        }
    }
}
