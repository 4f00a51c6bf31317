//! Which segments are merged into larger ones. Pure; the writer runs a merge at a time beside the flushes.
//!
//! Merges never cross a tenant, a UTC day or a retention class. **Invariant**: by its own will the plan writes each byte
//! fewer than [`WRITTEN_MAX`] times, the flush included: every segment knows how much was flushed and how much was
//! written for its records ([`History`](super::catalog::History)), and inputs for which the next merge would be too much wait for fresh ones.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::catalog::Segment;

/// Times a byte is written at most, as a fraction: 11/4 = 2.75.
pub const WRITTEN_MAX: (u64, u64) = (11, 4);
/// So many small segments are merged even when they do not come to the target.
const SMALL_COUNT_MAX: usize = 16;

/// Numbers that a plan keeps to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// A segment of this size is large enough for ever; a merge aims at it.
    pub target_bytes: u64,
    /// Input of one merge, as files.
    pub merge_bytes_max: u64,
    /// Records of one merge.
    pub merge_records_max: u64,
    /// Segments of one merge.
    pub inputs_max: usize,
    /// Segments to which nothing was added for so long are merged even when there are only two.
    pub quiet: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            target_bytes: 64 << 20,
            merge_bytes_max: 256 << 20,
            merge_records_max: 50_000_000,
            inputs_max: 64,
            quiet: Duration::from_secs(600),
        }
    }
}

/// When a merge is worth its writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eagerness {
    /// When it is due and within what may be written.
    Due,
    /// Always: somebody asked for it.
    Forced,
}

/// Segments of one tenant, day and class that become one.
#[derive(Debug, Clone, PartialEq)]
pub struct Merge {
    /// At least two, in order of time.
    pub inputs: Vec<Arc<Segment>>,
}

/// The merges that are worth doing at `now_ns`, those of most segments first.
pub fn plan<'a>(
    segments: impl IntoIterator<Item = &'a Arc<Segment>>,
    now_ns: i64,
    limits: &Limits,
    eagerness: Eagerness,
) -> Vec<Merge> {
    let mut groups: BTreeMap<_, Vec<&Arc<Segment>>> = BTreeMap::new();
    for segment in segments.into_iter().filter(|segment| segment.bytes < limits.target_bytes) {
        groups.entry((&segment.tenant, &segment.day, &segment.class)).or_default().push(segment);
    }
    let mut merges = Vec::new();
    for (_, mut small) in groups {
        small.sort_by_key(|segment| (segment.min_ts, segment.id));
        let runs = runs(&small, limits);
        let chosen: Vec<Vec<&Arc<Segment>>> = match eagerness {
            Eagerness::Due => runs.into_iter().map(affordable).collect(),
            Eagerness::Forced => runs.into_iter().map(<[_]>::to_vec).collect(),
        };
        let dear = small.len() - chosen.iter().map(Vec::len).sum::<usize>();
        let is_worth = |inputs: &Vec<&Arc<Segment>>| {
            inputs.len() >= 2 && (eagerness == Eagerness::Forced || is_due(inputs, dear, now_ns, limits))
        };
        let inputs = chosen.into_iter().filter(is_worth);
        merges.extend(inputs.map(|inputs| Merge { inputs: inputs.into_iter().cloned().collect() }));
    }
    merges.sort_by_key(|merge| std::cmp::Reverse(merge.inputs.len()));
    merges
}

/// Size of a segment's records after a merge, about: a flush packs quickly, not well (measured: 0.66).
fn merged_bytes(segment: &Segment) -> u64 {
    let is_flushed = segment.history.written_bytes == segment.history.flushed_bytes;
    if is_flushed { segment.bytes / 3 * 2 } else { segment.bytes }
}

/// Neighbours in time, cut where the target is reached or a limit would be passed.
fn runs<'a, 'b>(small: &'a [&'b Arc<Segment>], limits: &Limits) -> Vec<&'a [&'b Arc<Segment>]> {
    let mut runs = Vec::new();
    let (mut start, mut bytes, mut merged, mut records) = (0, 0, 0, 0);
    for (at, segment) in small.iter().enumerate() {
        let passes = bytes + segment.bytes > limits.merge_bytes_max
            || records + segment.records > limits.merge_records_max
            || at - start >= limits.inputs_max;
        if merged >= limits.target_bytes || (at > start && passes) {
            runs.push(&small[start..at]);
            (start, bytes, merged, records) = (at, 0, 0, 0);
        }
        bytes += segment.bytes;
        merged += merged_bytes(segment);
        records += segment.records;
    }
    runs.push(&small[start..]);
    runs
}

/// `dear` others of the group can't be merged now. The more of them there are, the more inputs a merge must have: else
/// every pause would leave another pair behind.
fn is_due(inputs: &[&Arc<Segment>], dear: usize, now_ns: i64, limits: &Limits) -> bool {
    let bytes: u64 = inputs.iter().map(|segment| merged_bytes(segment)).sum();
    let newest_ns = inputs.iter().map(|segment| segment.history.flushed_ns).max().unwrap_or(0);
    let quiet_ns = i64::try_from(limits.quiet.as_nanos()).unwrap_or(i64::MAX);
    let is_quiet = newest_ns.saturating_add(quiet_ns) <= now_ns;
    bytes >= limits.target_bytes || inputs.len() >= SMALL_COUNT_MAX || (is_quiet && inputs.len() >= dear / 2)
}

/// The run without those inputs for which so much was written already that their merge would be too dear.
fn affordable<'b>(run: &[&'b Arc<Segment>]) -> Vec<&'b Arc<Segment>> {
    let (times, per) = WRITTEN_MAX;
    let flushed = |segment: &Segment| segment.history.flushed_bytes.max(1);
    let written = |segment: &Segment| segment.history.written_bytes + segment.bytes;
    let mut inputs = run.to_vec();
    // Dearest last; the cross product compares two fractions.
    let price = |segment: &Segment| (u128::from(written(segment)), u128::from(flushed(segment)));
    inputs.sort_by(|a, b| {
        let ((a_written, a_flushed), (b_written, b_flushed)) = (price(a), price(b));
        (a_written * b_flushed).cmp(&(b_written * a_flushed))
    });
    let mut flushed_sum: u64 = inputs.iter().map(|segment| flushed(segment)).sum();
    let mut written_sum: u64 = inputs.iter().map(|segment| written(segment)).sum();
    while written_sum * per >= flushed_sum * times {
        let Some(dearest) = inputs.pop() else { break };
        flushed_sum -= flushed(dearest);
        written_sum -= written(dearest);
    }
    inputs.sort_by_key(|segment| (segment.min_ts, segment.id));
    inputs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Tenant;
    use crate::storage::catalog::{History, tests};
    use crate::storage::retention::Class;

    const MIB: u64 = 1 << 20;
    const NOW: i64 = 3_600_000_000_000;

    /// A segment as a flush wrote it just now.
    fn fresh(id: i64, bytes: u64) -> Segment {
        let history = History { flushed_ns: NOW, flushed_bytes: bytes, written_bytes: bytes, quarantined: None };
        Segment { bytes, min_ts: id, max_ts: id, history, ..tests::segment(id) }
    }

    fn many(segments: impl IntoIterator<Item = Segment>) -> Vec<Arc<Segment>> {
        segments.into_iter().map(Arc::new).collect()
    }

    fn planned(segments: &[Arc<Segment>], eagerness: Eagerness) -> Vec<Vec<i64>> {
        let merges = plan(segments, NOW, &Limits::default(), eagerness);
        merges.iter().map(|merge| merge.inputs.iter().map(|segment| segment.id).collect()).collect()
    }

    #[test]
    fn small_segments_are_merged_when_it_is_due() {
        let old = |id: i64| {
            let mut segment = fresh(id, MIB);
            segment.history.flushed_ns = NOW - 600_000_000_000;
            segment
        };
        let check = |segments: Vec<Segment>, expect: &[&[i64]]| {
            assert_eq!(planned(&many(segments), Eagerness::Due), expect);
        };
        check(vec![], &[]);
        check(vec![old(1)], &[]);
        check(vec![fresh(1, MIB), fresh(2, MIB)], &[]);
        check(vec![old(1), old(2)], &[&[1, 2]]);
        check(vec![old(1), fresh(2, MIB)], &[]);
        check(vec![fresh(1, 40 * MIB), fresh(2, 30 * MIB)], &[]);
        check(vec![fresh(1, 60 * MIB), fresh(2, 45 * MIB)], &[&[1, 2]]);
        check(vec![fresh(1, 60 * MIB), fresh(2, 64 * MIB), fresh(3, 45 * MIB)], &[&[1, 3]]);
        check((1..16).map(|id| fresh(id, MIB)).collect(), &[]);
        check((1..17).map(|id| fresh(id, MIB)).collect(), &[&(1..17).collect::<Vec<_>>()]);
        check((1..6).map(|id| fresh(id, 36 * MIB)).collect(), &[&[1, 2, 3]]);
    }

    #[test]
    fn tenants_days_and_classes_do_not_mix() {
        let mut segments: Vec<Segment> = (1..=4).map(|id| fresh(id, 60 * MIB)).collect();
        segments[1].tenant = Tenant::parse("other").unwrap();
        segments[2].day = "2026-02-11".into();
        segments[3].class = Class::parse("error").unwrap();
        assert!(planned(&many(segments), Eagerness::Forced).is_empty());
    }

    #[test]
    fn a_merge_keeps_to_its_limits() {
        let segments = many((1..=10).map(|id| fresh(id, MIB)));
        let limits = Limits { inputs_max: 4, ..Limits::default() };
        let sizes = |limits: &Limits| -> Vec<usize> {
            let merges = plan(&segments, NOW, limits, Eagerness::Forced);
            merges.iter().map(|merge| merge.inputs.len()).collect()
        };
        assert_eq!(sizes(&limits), [4, 4, 2]);
        assert_eq!(sizes(&Limits { merge_bytes_max: 3 * MIB, ..Limits::default() }), [3, 3, 3]);
        assert_eq!(sizes(&Limits { merge_records_max: 50, ..Limits::default() }), [5, 5]);
        assert_eq!(sizes(&Limits { merge_records_max: 5, ..Limits::default() }), [0_usize; 0]);
    }

    /// Flushes of one size for a day, merged as planned, where a merge saves nothing: the worst case.
    fn written_and_left(flushes: i64, bytes: u64, quiet_between: bool) -> (f64, usize) {
        let mut live: Vec<Arc<Segment>> = Vec::new();
        let (mut flushed, mut compacted, mut next_id) = (0, 0, 0);
        let limits = Limits::default();
        for minute in 0..flushes {
            let now = minute * 60_000_000_000;
            next_id += 1;
            flushed += bytes;
            let mut segment = fresh(next_id, bytes);
            segment.history.flushed_ns = now;
            live.push(Arc::new(segment));
            let asked = if quiet_between || minute == flushes - 1 { now + 600_000_000_000 } else { now };
            while let Some(merge) = plan(&live, asked, &limits, Eagerness::Due).into_iter().next() {
                next_id += 1;
                let sum = |of: fn(&Segment) -> u64| merge.inputs.iter().map(|segment| of(segment)).sum::<u64>();
                let mut merged = fresh(next_id, sum(|segment| segment.bytes));
                merged.min_ts = merge.inputs[0].min_ts;
                merged.records = sum(|segment| segment.records);
                merged.history = History {
                    flushed_ns: now,
                    flushed_bytes: sum(|segment| segment.history.flushed_bytes),
                    written_bytes: sum(|segment| segment.history.written_bytes) + merged.bytes,
                    quarantined: None,
                };
                compacted += merged.bytes;
                live.retain(|segment| !merge.inputs.iter().any(|input| input.id == segment.id));
                live.push(Arc::new(merged));
            }
        }
        ((flushed + compacted) as f64 / flushed as f64, live.len())
    }

    #[test]
    fn a_byte_is_written_fewer_than_three_times() {
        for (bytes, quiet_between) in [(MIB / 16, false), (MIB, false), (5 * MIB, false), (MIB / 16, true), (MIB, true)]
        {
            let (amplification, left) = written_and_left(1_440, bytes, quiet_between);
            assert!(amplification < 3.0, "{bytes} {quiet_between}: {amplification}");
            assert!(left < 1_440 / 8, "{bytes} {quiet_between}: {left} segments are left");
        }
    }
}
