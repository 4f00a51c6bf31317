//! Minima and maxima without reading records: a question that asks for nothing else, of all records or of a range of time,
//! is put to catalog and footers of the segments. Records are read only where those can't tell: in the buffer, and in
//! segments that the range cuts.
//!
//! **Invariant**: the answer is the same as from the records.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::{TableType, provider_as_source};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, TableProviderFilterPushDown, TableScan};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;

use super::counted::Filters;
use super::prune::Bounds;
use super::table::LogsTable;
use crate::record::column;
use crate::storage::Segment;
use crate::storage::segment::{Extremes, extremes};

/// The same aggregate over few rows that have its extremes; `None` when it asks for more than these.
pub(super) fn told(aggregate: &Aggregate, scan: &TableScan, table: &LogsTable) -> Result<Option<LogicalPlan>> {
    let asks_extremes =
        aggregate.aggr_expr.iter().all(|expr| extreme_of(expr).is_some_and(|name| is_told(table, name)));
    if !asks_extremes || aggregate.aggr_expr.is_empty() || !aggregate.group_expr.is_empty() {
        return Ok(None);
    }
    let Some(filters) = Filters::of(table, &scan.filters).filter(Filters::are_of_time) else { return Ok(None) };
    let mut scan = scan.clone();
    scan.source = provider_as_source(Arc::new(ExtremesTable { table: table.clone(), filters }));
    scan.filters = Vec::new();
    let (input, schema) = (Arc::new(LogicalPlan::TableScan(scan)), aggregate.schema.clone());
    let same = Aggregate::try_new_with_schema(input, Vec::new(), aggregate.aggr_expr.clone(), schema)?;
    Ok(Some(LogicalPlan::Aggregate(same)))
}

/// The column of which an expression is the minimum or maximum.
fn extreme_of(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Alias(alias) => extreme_of(&alias.expr),
        Expr::AggregateFunction(AggregateFunction { func, params }) if ["min", "max"].contains(&func.name()) => {
            match (params.args.as_slice(), &params.filter) {
                ([Expr::Column(column)], None) => Some(&column.name),
                _ => None,
            }
        }
        _ => None,
    }
}

fn is_told(table: &LogsTable, name: &str) -> bool {
    let schema = table.schema();
    let kind = schema.field_with_name(name).map(Field::data_type);
    table.is_stored(name) && matches!(kind, Ok(DataType::Int64 | DataType::Float64 | DataType::Timestamp(..)))
}

/// The records of a table as far as extremes go: two rows stand for a segment.
#[derive(Debug)]
struct ExtremesTable {
    table: LogsTable,
    filters: Filters,
}

impl ExtremesTable {
    /// A row of minima and one of maxima; `None` when neither catalog nor footer has them.
    fn rows_of(&self, segment: &Arc<Segment>, output: &SchemaRef) -> Result<Option<RecordBatch>> {
        let in_catalog = |name: &str| match name {
            column::TIMESTAMP => Some(Extremes::Integers(segment.min_ts, segment.max_ts)),
            column::SEQ => Some(Extremes::Integers(segment.min_seq, segment.max_seq)),
            _ => None,
        };
        let mut columns = Vec::with_capacity(output.fields().len());
        let mut open = None;
        for field in output.fields() {
            let known = match in_catalog(field.name()) {
                Some(known) => Some(known),
                None => {
                    if open.is_none() {
                        open = self.table.open(segment)?;
                    }
                    // Reading a damaged segment tells of it, and gives nothing.
                    open.as_ref().and_then(|open| extremes(open, field.name()))
                }
            };
            let Some(column) = known.and_then(|known| column_of(known, field.data_type())) else { return Ok(None) };
            columns.push(column);
        }
        Ok(Some(RecordBatch::try_new(output.clone(), columns)?))
    }
}

/// Minimum and maximum in the table's type.
fn column_of(known: Extremes, kind: &DataType) -> Option<ArrayRef> {
    Some(match (known, kind) {
        (Extremes::Integers(min, max), DataType::Int64) => Arc::new(Int64Array::from(vec![min, max])),
        (Extremes::Integers(min, max), DataType::Timestamp(..)) => {
            Arc::new(TimestampNanosecondArray::from(vec![min, max]).with_timezone("UTC"))
        }
        // Other segments have broken numbers; an integer that no double holds would have made the column a text.
        (Extremes::Integers(min, max), DataType::Float64) => Arc::new(Float64Array::from(vec![min as f64, max as f64])),
        (Extremes::Floats(min, max), DataType::Float64) => Arc::new(Float64Array::from(vec![min, max])),
        (Extremes::NoValues, DataType::Int64 | DataType::Float64) => arrow::array::new_null_array(kind, 2),
        _ => return None,
    })
}

#[async_trait]
impl TableProvider for ExtremesTable {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
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
        let output = match projection {
            Some(projection) => Arc::new(self.schema().project(projection)?),
            None => self.schema(),
        };
        let bounds = Bounds::of(&self.filters.all, self.table.range(), |name| self.table.is_stored(name));
        let (first, last) = self.filters.time;
        let (mut told, mut left) = (Vec::new(), Vec::new());
        for segment in self.table.segments(&bounds) {
            let inside = first <= segment.min_ts && segment.max_ts <= last;
            match if inside { self.rows_of(&segment, &output)? } else { None } {
                Some(rows) => told.push(rows),
                None => left.push(segment),
            }
        }
        let known: Arc<dyn ExecutionPlan> = MemorySourceConfig::try_new_exec(&[told], output.clone(), None)?;
        let buffer = self.table.buffer(&bounds);
        if buffer.is_empty() && left.is_empty() {
            return Ok(known);
        }
        let read = self.table.scan_of(state, &output, &self.filters.all, buffer, left, None)?;
        UnionExec::try_new(vec![known, read])
    }
}
