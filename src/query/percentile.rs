//! `approx_percentile_cont` for many groups at once: DataFusion's keeps a t-digest object for each group, which costs most
//! of the time of a latency panel. This one keeps the values themselves while a group has few, which is exact, and points
//! with weights once it has many.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, ListArray, PrimitiveArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::functions_aggregate::approx_percentile_cont::ApproxPercentileCont;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, Signature,
};
use datafusion::physical_expr::expressions::Literal;

/// Values that a group keeps one by one; the estimate of a larger group has an error of about one part in so many.
const POINTS_MAX: usize = 2_048;

/// The function, under DataFusion's name.
pub(super) fn approx_percentile_cont() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::new_from_impl(Percentile { inner: ApproxPercentileCont::new() }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Percentile {
    inner: ApproxPercentileCont,
}

impl AggregateUDFImpl for Percentile {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let (percentile, to) = (percentile(&args)?, args.return_field.data_type().clone());
        Ok(Box::new(OneGroup { percentile, to, points: Points::default() }))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let list = |name| Field::new_list(format_state_name(args.name, name), item(), false);
        Ok(["values", "points"].into_iter().map(list).map(Arc::new).collect())
    }

    fn supports_within_group_clause(&self) -> bool {
        self.inner.supports_within_group_clause()
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        let (percentile, to) = (percentile(&args)?, args.return_field.data_type().clone());
        Ok(Box::new(Percentiles { percentile, to, groups: Vec::new(), points: 0 }))
    }
}

/// The constant that says which percentile, from 0 to 1, in ascending order. (A number of centroids may follow; this
/// keeps more points than any sensible one.)
fn percentile(args: &AccumulatorArgs<'_>) -> Result<f64> {
    let any: &dyn std::any::Any = args.exprs[1].as_ref();
    let wanted = any.downcast_ref::<Literal>().map(|literal| literal.value().cast_to(&DataType::Float64));
    let descends = args.order_bys.first().is_some_and(|order| order.options.descending);
    match wanted {
        Some(Ok(ScalarValue::Float64(Some(wanted)))) if (0.0..=1.0).contains(&wanted) => {
            Ok(if descends { 1.0 - wanted } else { wanted })
        }
        _ => exec_err!("a percentile is a constant from 0 to 1"),
    }
}

fn item() -> FieldRef {
    Arc::new(Field::new_list_field(DataType::Float64, true))
}

/// A group's values: each with its weight.
#[derive(Debug, Default, Clone)]
struct Points {
    /// Values of weight 1.
    single: Vec<f64>,
    weighted: Vec<(f64, f64)>,
}

impl Points {
    fn len(&self) -> usize {
        self.single.len() + self.weighted.len()
    }

    fn add(&mut self, value: f64) {
        self.extend(&[value]);
    }

    fn extend(&mut self, mut values: &[f64]) {
        while !values.is_empty() {
            let room = (2 * POINTS_MAX).saturating_sub(self.single.len()).min(values.len());
            self.single.extend_from_slice(&values[..room]);
            values = &values[room..];
            if self.single.len() >= 2 * POINTS_MAX {
                self.shrink();
            }
        }
    }

    fn add_weighted(&mut self, value: f64, weight: f64) {
        if weight == 1.0 {
            return self.add(value);
        }
        self.weighted.push((value, weight));
        if self.weighted.len() >= 2 * POINTS_MAX {
            self.shrink();
        }
    }

    /// All points with their weights.
    fn all(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.weighted.iter().copied().chain(self.single.iter().map(|value| (*value, 1.0)))
    }

    /// All points in order; they are taken out.
    fn sorted(&mut self) -> Vec<(f64, f64)> {
        let mut points: Vec<(f64, f64)> = self.all().collect();
        self.weighted.clear();
        self.single.clear();
        points.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        points
    }

    /// Makes neighbours one, down to [`POINTS_MAX`] points of about the same weight; the ends stay as they are.
    fn shrink(&mut self) {
        let points = self.sorted();
        let total: f64 = points.iter().map(|point| point.1).sum();
        let share = total / POINTS_MAX as f64;
        let last = points.len() - 1;
        let (mut sum, mut weight) = (0.0, 0.0);
        for (at, point) in points.into_iter().enumerate() {
            sum += point.0 * point.1;
            weight += point.1;
            if weight >= share || at == 0 || at >= last.saturating_sub(1) {
                self.weighted.push((sum / weight, weight));
                (sum, weight) = (0.0, 0.0);
            }
        }
    }

    /// The value below which `percentile` of the weight lies, between neighbours by a straight line.
    fn percentile(&mut self, percentile: f64) -> Option<f64> {
        if self.weighted.is_empty() {
            return exact(&mut self.single, percentile);
        }
        let points = self.sorted();
        let total: f64 = points.iter().map(|point| point.1).sum();
        let wanted = percentile * (total - 1.0);
        let mut before: Option<(f64, f64)> = None;
        let mut start = 0.0;
        for (value, weight) in points {
            // A point stands for the middle of its weight.
            let at = start + (weight - 1.0) / 2.0;
            if at >= wanted {
                return Some(match before {
                    Some((known, known_at)) if at > known_at => {
                        known + (value - known) * (wanted - known_at) / (at - known_at)
                    }
                    _ => value,
                });
            }
            before = Some((value, at));
            start += weight;
        }
        before.map(|(value, _)| value)
    }
}

fn exact(values: &mut [f64], percentile: f64) -> Option<f64> {
    let last = values.len().checked_sub(1)?;
    let place = percentile * last as f64;
    let low = place.floor() as usize;
    let (_, found, above) = values.select_nth_unstable_by(low, f64::total_cmp);
    let found = *found;
    let next = above.iter().copied().min_by(f64::total_cmp);
    Some(next.map_or(found, |next| found + (next - found) * (place - low as f64)))
}

/// The values of all groups.
struct Percentiles {
    percentile: f64,
    to: DataType,
    groups: Vec<Points>,
    points: usize,
}

impl Percentiles {
    fn take(&mut self, emit_to: EmitTo) -> Vec<Points> {
        let taken = emit_to.take_needed(&mut self.groups);
        self.points = self.groups.iter().map(Points::len).sum();
        taken
    }
}

impl GroupsAccumulator for Percentiles {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups.resize_with(total_num_groups, Points::default);
        let values = cast(&values[0], &DataType::Float64)?;
        let values = values.as_primitive::<Float64Type>();
        let wanted = |row: usize| opt_filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
        // Records of a group often stand beside each other.
        let mut start = 0;
        for run in group_indices.chunk_by(|a, b| a == b) {
            let (rows, group) = (start..start + run.len(), &mut self.groups[run[0]]);
            start = rows.end;
            let missing = values.nulls().map_or(0, |nulls| nulls.slice(rows.start, rows.len()).null_count());
            if missing == 0 && opt_filter.is_none() {
                group.extend(&values.values()[rows]);
            } else if missing < rows.len() {
                rows.filter(|row| values.is_valid(*row) && wanted(*row)).for_each(|row| group.add(values.value(row)));
            }
        }
        self.points += group_indices.len();
        Ok(())
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.groups.resize_with(total_num_groups, Points::default);
        let states = States::of(values);
        for (row, group) in group_indices.iter().enumerate() {
            self.points += states.add_to(row, &mut self.groups[*group]);
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let percentile = self.percentile;
        let found: Float64Array =
            self.take(emit_to).into_iter().map(|mut points| points.percentile(percentile)).collect();
        Ok(cast(&found, &self.to)?)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(state_of(self.take(emit_to)))
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let mut alone = Percentiles { percentile: self.percentile, to: self.to.clone(), groups: Vec::new(), points: 0 };
        let rows: Vec<usize> = (0..values[0].len()).collect();
        alone.update_batch(values, &rows, opt_filter, rows.len())?;
        alone.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.groups.len() * size_of::<Points>() + self.points * 16
    }
}

/// The state of groups as columns: the values of weight 1 of each, and its points as pairs of value and weight.
fn state_of(groups: Vec<Points>) -> Vec<ArrayRef> {
    let mut single = Vec::with_capacity(groups.iter().map(|points| points.single.len()).sum());
    let (mut weighted, mut single_lengths, mut weighted_lengths) = (Vec::new(), Vec::new(), Vec::new());
    for mut points in groups {
        if points.len() > POINTS_MAX {
            points.shrink();
        }
        single.extend_from_slice(&points.single);
        single_lengths.push(points.single.len());
        weighted.extend(points.weighted.iter().flat_map(|(value, weight)| [*value, *weight]));
        weighted_lengths.push(2 * points.weighted.len());
    }
    let list = |lengths: Vec<usize>, values: Vec<f64>| {
        let values = Arc::new(Float64Array::from(values));
        Arc::new(ListArray::new(item(), OffsetBuffer::from_lengths(lengths), values, None)) as ArrayRef
    };
    vec![list(single_lengths, single), list(weighted_lengths, weighted)]
}

/// What [`state_of`] gave.
struct States<'a> {
    single: &'a ListArray,
    weighted: &'a ListArray,
}

impl States<'_> {
    fn of(columns: &[ArrayRef]) -> States<'_> {
        States { single: columns[0].as_list::<i32>(), weighted: columns[1].as_list::<i32>() }
    }

    /// Adds a group's state to another's; gives how many points these are.
    fn add_to(&self, row: usize, points: &mut Points) -> usize {
        let part = |list: &ListArray| {
            let values: &PrimitiveArray<Float64Type> = list.values().as_primitive();
            let offsets = list.value_offsets();
            values.values().slice(offsets[row] as usize, (offsets[row + 1] - offsets[row]) as usize)
        };
        let (single, weighted) = (part(self.single), part(self.weighted));
        points.extend(&single);
        weighted.as_chunks::<2>().0.iter().for_each(|pair| points.add_weighted(pair[0], pair[1]));
        single.len() + weighted.len() / 2
    }
}

/// The values of all records together.
#[derive(Debug)]
struct OneGroup {
    percentile: f64,
    to: DataType,
    points: Points,
}

impl Accumulator for OneGroup {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = cast(&values[0], &DataType::Float64)?;
        let values = values.as_primitive::<Float64Type>();
        if values.null_count() == 0 {
            self.points.extend(values.values());
        } else {
            values.iter().flatten().for_each(|value| self.points.add(value));
        }
        Ok(())
    }

    fn merge_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let states = States::of(columns);
        for row in 0..columns[0].len() {
            states.add_to(row, &mut self.points);
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let columns = state_of(vec![std::mem::take(&mut self.points)]);
        Ok(columns.into_iter().map(|column| ScalarValue::List(Arc::new(column.as_list::<i32>().clone()))).collect())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::Float64(self.points.clone().percentile(self.percentile)).cast_to(&self.to)
    }

    fn size(&self) -> usize {
        size_of_val(self) + 8 * self.points.single.capacity() + 16 * self.points.weighted.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: impl IntoIterator<Item = f64>) -> Points {
        let mut points = Points::default();
        values.into_iter().for_each(|value| points.add(value));
        points
    }

    #[test]
    fn few_values_give_the_exact_percentile() {
        assert_eq!(points([]).percentile(0.5), None);
        assert_eq!(points([7.0]).percentile(0.95), Some(7.0));
        assert_eq!(points([4.0, 1.0, 3.0, 2.0]).percentile(0.5), Some(2.5));
        assert_eq!(points((0..101).map(f64::from)).percentile(0.95), Some(95.0));
    }

    #[test]
    fn many_values_give_nearly_the_exact_percentile_and_merge() {
        let mixed = |n: u64| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64;
        let mut all: Vec<f64> = (0..100_000).map(mixed).collect();
        let (mut one, other) = (points(all[..60_000].iter().copied()), points(all[60_000..].iter().copied()));
        let mut other = other.clone();
        other.sorted().into_iter().for_each(|(value, weight)| one.add_weighted(value, weight));
        all.sort_by(f64::total_cmp);
        for percentile in [0.0, 0.01, 0.5, 0.95, 0.999, 1.0] {
            let found = one.clone().percentile(percentile).unwrap();
            let rank = all.partition_point(|value| *value < found) as f64 / all.len() as f64;
            assert!((rank - percentile).abs() < 0.002, "{percentile}: {found} has the rank {rank}");
        }
    }
}
