//! The table `metrics`: what the store's own metrics were in the last hours, so that panels can show them without
//! anything else installed. Who samples them is the server's.
//!
//! **Invariant**: it takes a fixed room in memory, the oldest samples making place, and a query sees each sample whole or
//! not at all. It begins anew with the process.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use arrow::array::{
    ArrayRef, AsArray, Float64Builder, RecordBatch, StringArray, StringViewBuilder, TimestampNanosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, Result};
use datafusion::datasource::TableType;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use futures::stream;

use super::TimeRange;

/// The table's name.
pub(super) const TABLE: &str = "metrics";
/// Its columns.
pub(super) const COLUMNS: [&str; 5] = ["timestamp", "name", "labels", "value", "per_second"];
/// Values kept, of all series: 2 MiB, which is half a day of some ninety series, sampled every 15 s.
const POINTS_MAX: usize = 1 << 18;
/// Series kept; further ones are left out.
const SERIES_MAX: usize = 1_000;

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let types = [time, DataType::Utf8View, DataType::Utf8View, DataType::Float64, DataType::Float64];
    let fields = COLUMNS.into_iter().zip(types);
    Arc::new(Schema::new(fields.map(|(name, kind)| Field::new(name, kind, name == "per_second")).collect::<Vec<_>>()))
});

/// A metric at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its name, as `/metrics` has it.
    pub name: String,
    /// Its labels as `key="value",…`; empty: none.
    pub labels: String,
    /// It only rises while the process runs, so that its rate means something.
    pub is_counter: bool,
    /// Its value.
    pub value: f64,
}

/// What one series is called.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Series {
    name: String,
    labels: String,
    is_counter: bool,
}

/// The values of all series at one moment, by the place of the series; NaN: it had none.
#[derive(Debug)]
struct Row {
    at_ns: i64,
    values: Box<[f64]>,
}

/// The samples that are kept.
#[derive(Debug, Default)]
pub struct History {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    places: HashMap<Series, usize>,
    /// As in `places`, by their place.
    series: Vec<Arc<Series>>,
    rows: VecDeque<Arc<Row>>,
    points: usize,
}

impl History {
    /// Keeps the samples of one moment.
    pub fn record(&self, at_ns: i64, samples: impl IntoIterator<Item = Sample>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = &mut *kept;
        let mut values = vec![f64::NAN; kept.series.len()];
        for sample in samples {
            let series = Series { name: sample.name, labels: sample.labels, is_counter: sample.is_counter };
            let known = kept.places.get(&series).copied();
            if let Some(place) = known {
                values[place] = sample.value;
            } else if kept.series.len() < SERIES_MAX {
                kept.places.insert(series.clone(), kept.series.len());
                kept.series.push(Arc::new(series));
                values.push(sample.value);
            }
        }
        kept.points += values.len();
        kept.rows.push_back(Arc::new(Row { at_ns, values: values.into() }));
        while kept.points > POINTS_MAX {
            kept.points -= kept.rows.pop_front().map_or(kept.points, |row| row.values.len());
        }
    }

    /// All that is kept now; the values are shared.
    fn snapshot(&self, range: Option<TimeRange>) -> (Vec<Arc<Series>>, Arc<[Arc<Row>]>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |at_ns: i64| range.is_none_or(|range| (range.from_ns..range.to_ns).contains(&at_ns));
        (kept.series.clone(), kept.rows.iter().filter(|row| fits(row.at_ns)).cloned().collect())
    }
}

/// The table, as one statement sees it.
#[derive(Debug)]
pub(super) struct MetricsTable {
    pub history: Arc<History>,
    /// Only samples of this range are seen.
    pub range: Option<TimeRange>,
}

#[async_trait]
impl TableProvider for MetricsTable {
    fn schema(&self) -> SchemaRef {
        SCHEMA.clone()
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
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (series, rows) = self.history.snapshot(self.range);
        let wanted = wanted(&series, state, filters)?;
        let chosen = series.into_iter().enumerate().zip(wanted).filter(|(_, wanted)| *wanted);
        let points = Points { series: chosen.map(|(series, _)| series).collect(), rows };
        // A limit is kept only where no filter is left to do above.
        let limit = limit.filter(|_| filters.is_empty());
        let plan = StreamingTableExec::try_new(SCHEMA.clone(), vec![Arc::new(points)], projection, None, false, limit)?;
        Ok(Arc::new(plan))
    }
}

/// Which series can have a match: those whose name and labels meet the conditions that ask for nothing else.
fn wanted(series: &[Arc<Series>], state: &dyn Session, filters: &[Expr]) -> Result<Vec<bool>> {
    let names: StringArray = series.iter().map(|series| Some(series.name.as_str())).collect();
    let labels: StringArray = series.iter().map(|series| Some(series.labels.as_str())).collect();
    let columns: [(&str, ArrayRef); 2] = [("name", Arc::new(names)), ("labels", Arc::new(labels))];
    let known = RecordBatch::try_from_iter(columns)?;
    let schema = DFSchema::try_from(known.schema().as_ref().clone())?;
    let mut wanted = vec![true; series.len()];
    for filter in filters {
        if !filter.column_refs().iter().all(|column| schema.has_column_with_unqualified_name(&column.name)) {
            continue;
        }
        let met = state.create_physical_expr(filter.clone(), &schema)?.evaluate(&known)?.into_array(series.len())?;
        wanted.iter_mut().zip(met.as_boolean()).for_each(|(wanted, met)| *wanted &= met == Some(true));
    }
    Ok(wanted)
}

/// Series with their places, and the rows in which they have values.
#[derive(Debug)]
struct Points {
    series: Vec<(usize, Arc<Series>)>,
    rows: Arc<[Arc<Row>]>,
}

impl PartitionStream for Points {
    fn schema(&self) -> &SchemaRef {
        &SCHEMA
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = self.rows.clone();
        let batches = self.series.clone().into_iter().map(move |(place, series)| points(place, &series, &rows));
        Box::pin(RecordBatchStreamAdapter::new(SCHEMA.clone(), stream::iter(batches)))
    }
}

/// One series over time.
fn points(place: usize, series: &Series, rows: &[Arc<Row>]) -> Result<RecordBatch> {
    let mut times = TimestampNanosecondBuilder::with_capacity(rows.len()).with_timezone("UTC");
    let mut values = Float64Builder::with_capacity(rows.len());
    let mut rates = Float64Builder::with_capacity(rows.len());
    let mut before: Option<(i64, f64)> = None;
    for row in rows {
        let Some(value) = row.values.get(place).copied().filter(|value| !value.is_nan()) else { continue };
        let rate = before.filter(|(at_ns, _)| series.is_counter && row.at_ns > *at_ns);
        rates.append_option(rate.map(|(at_ns, low)| (value - low).max(0.0) * 1e9 / (row.at_ns - at_ns) as f64));
        times.append_value(row.at_ns);
        values.append_value(value);
        before = Some((row.at_ns, value));
    }
    let (times, values) = (times.finish(), values.finish());
    let repeated = |text: &str| -> Result<ArrayRef> {
        let mut texts = StringViewBuilder::with_capacity(times.len());
        let block = texts.append_block(text.as_bytes().into());
        for _ in 0..times.len() {
            texts.try_append_view(block, 0, text.len() as u32)?;
        }
        Ok(Arc::new(texts.finish()))
    };
    let (names, labels) = (repeated(&series.name)?, repeated(&series.labels)?);
    Ok(RecordBatch::try_new(
        SCHEMA.clone(),
        vec![Arc::new(times), names, labels, Arc::new(values), Arc::new(rates.finish())],
    )?)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Float64Type;

    use super::*;

    fn sample(name: &str, is_counter: bool, value: f64) -> Sample {
        Sample { name: name.to_owned(), labels: String::new(), is_counter, value }
    }

    fn column(history: &History, place: usize, name: &str) -> Vec<Option<f64>> {
        let (series, rows) = history.snapshot(None);
        let batch = points(place, &series[place], &rows).unwrap();
        batch[name].as_primitive::<Float64Type>().iter().collect()
    }

    #[test]
    fn counters_have_a_rate_and_gauges_have_none() {
        let history = History::default();
        history.record(1_000_000_000, [sample("count", true, 10.0), sample("level", false, 5.0)]);
        history.record(3_000_000_000, [sample("level", false, 1.0), sample("count", true, 40.0)]);
        history.record(4_000_000_000, [sample("count", true, 40.0), sample("late", true, 1.0)]);
        assert_eq!(column(&history, 0, "value"), [Some(10.0), Some(40.0), Some(40.0)]);
        assert_eq!(column(&history, 0, "per_second"), [None, Some(15.0), Some(0.0)]);
        assert_eq!(column(&history, 1, "value"), [Some(5.0), Some(1.0)], "no value where it was not sampled");
        assert_eq!(column(&history, 1, "per_second"), [None, None]);
        assert_eq!(column(&history, 2, "value"), [Some(1.0)], "a series may come later");
    }

    #[test]
    fn the_oldest_samples_make_place() {
        let history = History::default();
        let samples = || (0..SERIES_MAX + 7).map(|number| sample(&number.to_string(), false, 0.0));
        let kept = POINTS_MAX / SERIES_MAX;
        (0..kept as i64 + 9).for_each(|at_ns| history.record(at_ns, samples()));
        let (series, rows) = history.snapshot(None);
        assert_eq!((series.len(), rows.len()), (SERIES_MAX, kept));
        assert_eq!(rows[0].at_ns, 9);
        let range = Some(TimeRange { from_ns: 20, to_ns: 22 });
        assert_eq!(history.snapshot(range).1.len(), 2);
    }
}
