//! How a scan reads: in stages, each of which loads columns and throws out records that its conditions do not meet, the
//! cheap columns first. The last stage loads what is left of the answer's columns, for the records that are left.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::cast::as_boolean_array;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::physical_expr::PhysicalExpr;

use crate::query::table::LogsTable;
use crate::record::column;

/// Columns to load, and conditions that can be decided once they are there.
#[derive(Debug)]
pub(in crate::query) struct Stage {
    /// Stored columns to read.
    pub stored: SchemaRef,
    /// What they become: columns of the table.
    columns: Vec<(FieldRef, Arc<dyn PhysicalExpr>)>,
    /// All columns loaded up to here; conditions speak of it.
    pub loaded: SchemaRef,
    conditions: Vec<Arc<dyn PhysicalExpr>>,
}

/// What a scan looks for and loads.
#[derive(Debug)]
pub(in crate::query) struct Stages {
    /// Stages with conditions, the cheap first.
    pub find: Vec<Stage>,
    /// Everything else that the answer has; nothing when conditions loaded it all.
    pub rest: Option<Stage>,
    /// Places of the answer's columns among the loaded ones.
    projection: Vec<usize>,
    output: SchemaRef,
    /// The same columns for records that are known already.
    everything: Option<Box<Stages>>,
    /// For a scan that looks for the newest records.
    newest: Option<Box<Stages>>,
}

impl Stages {
    /// Plans the reading of `output` for records that meet all `filters`.
    pub fn plan(table: &LogsTable, state: &dyn Session, output: &SchemaRef, filters: &[Expr]) -> Result<Stages> {
        let mut stages = Stages::of(table, state, output, filters, &[])?;
        // A sort by time may come above: then records are found by their time first, and loaded at the end.
        if output.index_of(column::TIMESTAMP).is_ok() {
            let mut finding = Stages::of(table, state, output, filters, &[column::TIMESTAMP])?;
            finding.everything = Some(Box::new(Stages::of(table, state, output, &[], &[])?));
            stages.newest = Some(Box::new(finding));
        }
        Ok(stages)
    }

    fn of(
        table: &LogsTable,
        state: &dyn Session,
        output: &SchemaRef,
        filters: &[Expr],
        first: &[&str],
    ) -> Result<Stages> {
        let conjuncts: Vec<&Expr> = filters.iter().flat_map(|filter| split_conjunction(filter)).collect();
        let (cheap, dear): (Vec<&Expr>, Vec<&Expr>) = conjuncts
            .into_iter()
            .partition(|conjunct| conjunct.column_refs().iter().all(|column| is_cheap(table, &column.name)));
        let mut loaded: Vec<FieldRef> = Vec::new();
        let mut find = Vec::new();
        let mut also: BTreeSet<&str> = first.iter().copied().collect();
        for conditions in [cheap, dear] {
            if conditions.is_empty() && also.is_empty() {
                continue;
            }
            let mut names: BTreeSet<String> =
                conditions.iter().flat_map(|one| one.column_refs()).map(|column| column.name.clone()).collect();
            names.extend(std::mem::take(&mut also).into_iter().map(str::to_owned));
            find.push(Stage::plan(table, state, &mut loaded, &names, &conditions)?);
        }
        let known = loaded.len();
        let names: BTreeSet<String> = output.fields().iter().map(|field| field.name().clone()).collect();
        let rest = Stage::plan(table, state, &mut loaded, &names, &[])?;
        let rest = (loaded.len() > known).then_some(rest);
        let place = |name: &str| loaded.iter().position(|field| field.name() == name).expect("it was loaded");
        let projection = output.fields().iter().map(|field| place(field.name())).collect();
        Ok(Stages { find, rest, projection, output: output.clone(), everything: None, newest: None })
    }

    /// The stages by which the newest records are found; `None` when the answer has no time.
    pub fn take_newest(&mut self) -> Option<Stages> {
        self.newest.take().map(|stages| *stages)
    }

    /// The stages that load whole records that were found.
    pub fn everything(&self) -> &Stages {
        self.everything.as_deref().unwrap_or(self)
    }

    /// The answer's columns.
    pub fn output(&self) -> SchemaRef {
        self.output.clone()
    }

    /// The answer's columns of records whose columns are all loaded.
    pub fn project(&self, columns: &[ArrayRef], rows: usize) -> Result<RecordBatch> {
        let columns = self.projection.iter().map(|place| columns[*place].clone()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(self.output.clone(), columns, &options)?)
    }
}

/// Columns that cost little to read: numbers, and texts that repeat.
fn is_cheap(table: &LogsTable, name: &str) -> bool {
    [column::TIMESTAMP, column::SEQ, column::LEVEL, column::SERVICE].contains(&name)
        || table.field(name).is_some_and(|field| field.data_type().is_primitive() && table.is_stored(name))
}

impl Stage {
    fn plan(
        table: &LogsTable,
        state: &dyn Session,
        loaded: &mut Vec<FieldRef>,
        names: &BTreeSet<String>,
        conditions: &[&Expr],
    ) -> Result<Stage> {
        let new: BTreeSet<&str> =
            names.iter().map(String::as_str).filter(|name| !loaded.iter().any(|field| field.name() == name)).collect();
        let stored: SchemaRef = Arc::new(Schema::new(table.stored_columns(&new)));
        let columns = new.iter().map(|name| {
            let field = Arc::new(table.field(name).expect("a plan names columns of the table"));
            Ok((field.clone(), table.expression(&field, &stored, state)?))
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        loaded.extend(columns.iter().map(|(field, _)| field.clone()));
        let schema = Arc::new(Schema::new(loaded.clone()));
        let frame = DFSchema::try_from(schema.as_ref().clone())?;
        let conditions = conditions.iter().map(|one| state.create_physical_expr((*one).clone(), &frame));
        let conditions = conditions.collect::<Result<Vec<_>>>()?;
        Ok(Stage { stored, columns, loaded: schema, conditions })
    }

    /// Turns stored columns into the table's.
    pub fn compute(&self, stored: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let rows = stored.num_rows();
        self.columns.iter().map(|(_, expression)| expression.evaluate(stored)?.into_array(rows)).collect()
    }

    /// Which of the loaded records meet the stage's conditions; `None`: all do.
    pub fn decide(&self, columns: &[ArrayRef], rows: usize) -> Result<Option<BooleanArray>> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(self.loaded.clone(), columns.to_vec(), &options)?;
        let mut kept: Option<BooleanArray> = None;
        for condition in &self.conditions {
            let decided = condition.evaluate(&batch)?.into_array(rows)?;
            let decided = as_boolean_array(&decided)?;
            let decided = match decided.nulls() {
                // Unknown is not met.
                Some(_) => arrow::compute::prep_null_mask_filter(decided),
                None => decided.clone(),
            };
            kept = Some(match kept {
                Some(before) => arrow::compute::and(&before, &decided)?,
                None => decided,
            });
        }
        Ok(kept.filter(|kept| kept.true_count() < rows))
    }
}
