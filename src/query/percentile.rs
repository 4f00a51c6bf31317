//! `approx_percentile_cont` for many groups at once: DataFusion's keeps a t-digest object for each group, which costs most
//! of the time of a latency panel. This one keeps the values themselves while a group has few, which is exact, and points
//! with weights once it has many. Alone, without groups, DataFusion's own is used; both write the same state.

use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, ListArray, UInt64Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::functions_aggregate::approx_percentile_cont::ApproxPercentileCont;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, Signature,
};
use datafusion::physical_expr::expressions::Literal;

/// Values that a group keeps one by one; the estimate of a larger group has an error of about one part in so many.
const POINTS_MAX: usize = 2_048;
/// The state's size of a digest, for DataFusion's own to read.
const DIGEST_SIZE: u64 = 100;

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
        self.inner.accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn supports_within_group_clause(&self) -> bool {
        self.inner.supports_within_group_clause()
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        let ascending = args.order_bys.iter().all(|order| !order.options.descending);
        ascending && args.exprs.len() == 2 && percentile(&args).is_ok()
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        let (percentile, to) = (percentile(&args)?, args.return_field.data_type().clone());
        Ok(Box::new(Percentiles { percentile, to, groups: Vec::new(), points: 0 }))
    }
}

/// The constant that says which percentile, from 0 to 1.
fn percentile(args: &AccumulatorArgs<'_>) -> Result<f64> {
    let any: &dyn std::any::Any = args.exprs[1].as_ref();
    let wanted = any.downcast_ref::<Literal>().map(|literal| literal.value().cast_to(&DataType::Float64));
    match wanted {
        Some(Ok(ScalarValue::Float64(Some(wanted)))) if (0.0..=1.0).contains(&wanted) => Ok(wanted),
        _ => exec_err!("a percentile is a constant from 0 to 1"),
    }
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
        self.single.push(value);
        if self.single.len() >= 2 * POINTS_MAX {
            self.shrink();
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
        for (row, group) in group_indices.iter().enumerate() {
            if values.is_valid(row) && wanted(row) {
                self.groups[*group].add(values.value(row));
            }
        }
        self.points += group_indices.len();
        Ok(())
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.groups.resize_with(total_num_groups, Points::default);
        let centroids = values[5].as_list::<i32>();
        for (row, group) in group_indices.iter().enumerate() {
            let pairs = centroids.value(row);
            let pairs = pairs.as_primitive::<Float64Type>().values();
            for pair in pairs.as_chunks::<2>().0 {
                self.groups[*group].add_weighted(pair[0], pair[1]);
            }
            self.points += pairs.len() / 2;
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

/// The columns of DataFusion's digest, with points in any order: who reads them sorts them once, if at all.
fn state_of(groups: Vec<Points>) -> Vec<ArrayRef> {
    let mut centroids = Vec::with_capacity(2 * groups.iter().map(Points::len).sum::<usize>());
    let mut lengths = Vec::with_capacity(groups.len());
    let (mut sums, mut weights, mut highest, mut lowest) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for mut points in groups {
        if points.len() > POINTS_MAX {
            points.shrink();
        }
        let (mut sum, mut total, mut high, mut low) = (0.0, 0.0, f64::NAN, f64::NAN);
        for (value, weight) in points.all() {
            centroids.extend([value, weight]);
            (sum, total, high, low) = (sum + value * weight, total + weight, value.max(high), value.min(low));
        }
        lengths.push(2 * points.len());
        sums.push(sum);
        weights.push(total);
        highest.push(high);
        lowest.push(low);
    }
    let sizes = UInt64Array::from(vec![DIGEST_SIZE; sums.len()]);
    let floats = |values: Vec<f64>| Arc::new(Float64Array::from(values)) as ArrayRef;
    let item = Arc::new(Field::new_list_field(DataType::Float64, true));
    let centroids = ListArray::new(item, OffsetBuffer::from_lengths(lengths), floats(centroids), None);
    vec![Arc::new(sizes), floats(sums), floats(weights), floats(highest), floats(lowest), Arc::new(centroids)]
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
