//! Rows of numbers as series over time (`timeseries-multi`) and as single numbers (`numeric-multi`), the two types that
//! alert rules, reduce and expressions take. Invariant: within a series times rise and are never null, and every
//! series is told from the others by its labels.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, StringArray, TimestampNanosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, TimestampNanosecondType};
use arrow::record_batch::RecordBatch;
use serde_json::{Value, json};

use super::logs::LEVEL_UNKNOWN;
use super::{Error, Field, Frame, Request, column_names, notice};
use crate::sql::Buckets;

/// Series of one answer at most: no legend is read beyond, and each is a frame of its own.
const SERIES_MAX: usize = 5_000;
/// What a legend says where lines do not have the field.
const ABSENT: &str = "(none)";
/// The levels, worst first, and the colours that the bundled dashboards give them: nearly those of Grafana's own log views.
const LEVELS: [(&str, &str); 6] = [
    ("fatal", "purple"),
    ("error", "red"),
    ("warn", "orange"),
    ("info", "green"),
    ("debug", "blue"),
    ("trace", "light-blue"),
];
const LEVEL_UNKNOWN_COLOUR: &str = "#8e8e8e";
/// Zeros filled in at most; past it the gaps stay gaps.
const FILLED_POINTS_MAX: usize = 2_000_000;

/// What is known of the rows beside their types.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    /// A bucket without a row is a zero.
    pub fill: Option<Buckets>,
    /// So many columns after the time are labels whatever their type, and the last is the number.
    pub groups: Option<usize>,
    /// Counts per level: a level that is not known has a name, and the levels their order.
    pub volume: bool,
}

type Labels = BTreeMap<String, String>;

/// The columns by the part they play.
struct Columns<'a> {
    time: Option<&'a TimestampNanosecondArray>,
    labels: Vec<(&'a str, StringArray)>,
    numbers: Vec<(&'a str, Float64Array)>,
}

impl<'a> Columns<'a> {
    fn of(rows: &'a RecordBatch, groups: Option<usize>) -> Result<Columns<'a>, Error> {
        let mut columns = Columns { time: None, labels: Vec::new(), numbers: Vec::new() };
        let last = rows.num_columns().saturating_sub(1);
        for (index, (field, array)) in rows.schema_ref().fields().iter().zip(rows.columns()).enumerate() {
            let name = field.name().as_str();
            let is_label = match groups {
                Some(_) => index != last,
                None => !field.data_type().is_numeric(),
            };
            match array.as_primitive_opt::<TimestampNanosecondType>() {
                Some(times) if columns.time.is_none() => columns.time = Some(times),
                _ if is_label => columns.labels.push((name, cast(array, &DataType::Utf8)?.as_string().clone())),
                _ => {
                    let numbers = cast(array, &DataType::Float64)?;
                    columns.numbers.push((name, numbers.as_primitive::<Float64Type>().clone()));
                }
            }
        }
        if columns.numbers.is_empty() {
            return Err(Error::NoNumber(column_names(rows)));
        }
        Ok(columns)
    }

    fn label_values<'b>(&'b self, row: usize, unknown: &'b str) -> impl Iterator<Item = &'b str> {
        self.labels.iter().map(move |(_, array)| if array.is_null(row) { unknown } else { array.value(row) })
    }

    fn labels_of(&self, row: usize, unknown: &str) -> Labels {
        let names = self.labels.iter().map(|(name, _)| (*name).to_owned());
        names.zip(self.label_values(row, unknown).map(str::to_owned)).collect()
    }

    /// The rows of each set of labels, without those that have no time.
    fn by_labels(&self, times: &TimestampNanosecondArray, unknown: &str) -> Vec<(Labels, Vec<usize>)> {
        let mut groups: Vec<(Labels, Vec<usize>)> = Vec::new();
        let mut index_of: HashMap<Box<[&str]>, usize> = HashMap::new();
        let mut values = Vec::with_capacity(self.labels.len());
        for row in (0..times.len()).filter(|row| times.is_valid(*row)) {
            values.clear();
            values.extend(self.label_values(row, unknown));
            let index = index_of.get(values.as_slice()).copied().unwrap_or_else(|| {
                groups.push((self.labels_of(row, unknown), Vec::new()));
                index_of.insert(values.as_slice().into(), groups.len() - 1);
                groups.len() - 1
            });
            groups[index].1.push(row);
        }
        groups
    }
}

/// Makes one frame per set of labels and number column.
pub fn over_time(
    rows: &RecordBatch,
    request: &Request<'_>,
    asked: Asked,
    notices: &mut Vec<Value>,
) -> Result<Vec<Frame>, Error> {
    let columns = Columns::of(rows, asked.groups)?;
    let times = columns.time.ok_or(Error::NoTime)?;
    let unknown = if asked.volume { LEVEL_UNKNOWN } else { "" };
    let mut groups = columns.by_labels(times, unknown);
    let untimed = times.null_count();
    if untimed > 0 {
        notices.push(notice("warning", &format!("Not shown: rows without a time ({untimed}).")));
    }
    if groups.is_empty() && asked.fill.is_some() && asked.groups == Some(0) {
        // A count of nothing is a zero, and not the absence of data.
        groups.push((Labels::new(), Vec::new()));
    }
    // By their labels, not by who came first: a series keeps its colour from one refresh to the next.
    groups.sort_by(|(one, _), (other, _)| one.cmp(other));
    groups.sort_by_key(|(labels, _)| level_of(labels).map(level_rank));
    if groups.len() > SERIES_MAX {
        let text =
            format!("{} series, of which the first {SERIES_MAX} are shown; group by fewer fields.", groups.len());
        notices.push(notice("warning", &text));
        groups.truncate(SERIES_MAX);
    }
    let fill = asked.fill.filter(|buckets| buckets.count.saturating_mul(groups.len()) <= FILLED_POINTS_MAX);
    let mut frames = Vec::with_capacity(groups.len() * columns.numbers.len());
    for (name, numbers) in &columns.numbers {
        for (labels, rows) in &groups {
            let (times, values) = points(times, numbers, rows, fill);
            let values = Float64Array::from(values);
            // The log volume is named by Grafana.
            let config = if asked.volume { None } else { coloured(shown_as(labels, name, &columns), labels) };
            let value = Field { labels: labels.clone(), config, ..Field::new(*name, Arc::new(values)) };
            frames.push(series(request, times, value));
        }
    }
    Ok(frames)
}

/// The level that labels stand for, where they are nothing else.
fn level_of(labels: &Labels) -> Option<&str> {
    labels.get("level").filter(|_| labels.len() == 1).map(String::as_str)
}

fn level_rank(level: &str) -> usize {
    LEVELS.iter().position(|(known, _)| *known == level).unwrap_or(LEVELS.len())
}

/// A level has one colour wherever it is seen; by itself Grafana would draw errors blue and information orange.
fn coloured(config: Option<Value>, labels: &Labels) -> Option<Value> {
    let mut config = config?;
    if let Some(level) = level_of(labels) {
        let colour = LEVELS.get(level_rank(level)).map_or(LEVEL_UNKNOWN_COLOUR, |(_, colour)| colour);
        config["color"] = json!({"mode": "fixed", "fixedColor": colour});
    }
    Some(config)
}

/// The points of one series, in the order of time.
fn points(
    times: &TimestampNanosecondArray,
    numbers: &Float64Array,
    rows: &[usize],
    fill: Option<Buckets>,
) -> (Vec<i64>, Vec<Option<f64>>) {
    let point = |row: &usize| (times.value(*row), numbers.is_valid(*row).then(|| numbers.value(*row)));
    let Some(buckets) = fill else {
        let mut points: Vec<_> = rows.iter().map(point).collect();
        points.sort_by_key(|(time, _)| *time);
        return points.into_iter().unzip();
    };
    let start = |index: usize| buckets.start_ns + buckets.step_ns * index as i64;
    let mut values = vec![Some(0.0); buckets.count];
    for (time, value) in rows.iter().map(point) {
        let index = (time - buckets.start_ns).div_euclid(buckets.step_ns);
        if let Some(slot) = usize::try_from(index).ok().and_then(|index| values.get_mut(index)) {
            *slot = value;
        }
    }
    ((0..buckets.count).map(start).collect(), values)
}

fn series(request: &Request<'_>, times: Vec<i64>, value: Field) -> Frame {
    let time = Field { nullable: false, ..Field::new("time", Arc::new(TimestampNanosecondArray::from(times))) };
    let meta = json!({"type": "timeseries-multi", "typeVersion": [0, 1]});
    Frame::new(request.ref_id, meta, vec![time, value])
}

/// What a legend says: the values of the labels. Grafana's own words are the column and the values, of which the first
/// is the same everywhere, and nothing at all for a value that is absent.
fn shown_as(labels: &Labels, name: &str, columns: &Columns<'_>) -> Option<Value> {
    if labels.is_empty() {
        return None;
    }
    let values = labels.values().map(|value| if value.is_empty() { ABSENT } else { value });
    let values = values.collect::<Vec<_>>().join(", ");
    let shown = if columns.numbers.len() > 1 { format!("{name} {values}") } else { values };
    Some(json!({"displayNameFromDS": shown}))
}

/// Makes one frame per row and number column, each of one number.
pub fn numbers(rows: &RecordBatch, request: &Request<'_>, groups: Option<usize>) -> Result<Vec<Frame>, Error> {
    let columns = Columns::of(rows, groups)?;
    let mut frames = Vec::with_capacity(rows.num_rows().min(SERIES_MAX));
    for (name, numbers) in &columns.numbers {
        for row in 0..rows.num_rows().min(SERIES_MAX) {
            let value: ArrayRef = Arc::new(numbers.slice(row, 1));
            let labels = columns.labels_of(row, "");
            let config = shown_as(&labels, name, &columns);
            let field = Field { labels, config, ..Field::new(*name, value) };
            let meta = json!({"type": "numeric-multi", "typeVersion": [0, 1]});
            frames.push(Frame::new(request.ref_id, meta, vec![field]));
        }
    }
    Ok(frames)
}
