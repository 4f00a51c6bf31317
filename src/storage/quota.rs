//! The disk quota: which segments go when the store takes more of the disk than it may. Pure; the writer removes.
//!
//! **Invariant**: no more goes than is needed, and nothing goes while there is no quota.

use std::sync::Arc;

use super::catalog::Segment;
use super::retention::Rules;

/// Which segments go first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// Those with the oldest records.
    #[default]
    Oldest,
    /// Those that would be kept the shortest anyway; among equals the oldest.
    ShortestKeptFirst,
}

/// The segments to remove so that `used_bytes` (segments and write-ahead log) come to lie within `bytes_max`, in order.
/// A `bytes_max` of 0 is no limit.
pub fn surplus<'a>(
    segments: impl IntoIterator<Item = &'a Arc<Segment>>,
    used_bytes: u64,
    bytes_max: u64,
    order: Order,
    rules: &Rules,
) -> Vec<Arc<Segment>> {
    if bytes_max == 0 || used_bytes <= bytes_max {
        return Vec::new();
    }
    let mut candidates: Vec<&Arc<Segment>> = segments.into_iter().collect();
    match order {
        Order::Oldest => candidates.sort_by_key(|segment| (segment.max_ts, segment.id)),
        Order::ShortestKeptFirst => {
            candidates.sort_by_cached_key(|segment| (rules.keep_of(segment), segment.max_ts, segment.id));
        }
    }
    let mut left = used_bytes;
    let goes = |segment: &&Arc<Segment>| {
        let over = left > bytes_max;
        left = left.saturating_sub(segment.disk_bytes());
        over
    };
    candidates.into_iter().take_while(goes).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::catalog::tests::segment;

    #[test]
    fn as_many_go_as_needed_in_order() {
        // Id, level, latest record.
        let segments: Vec<Arc<Segment>> = [(1, "error", 10), (2, "debug", 40), (3, "info", 20), (4, "debug", 30)]
            .into_iter()
            .map(|(id, level, max_ts)| {
                let mut found = segment(id);
                (found.bytes, found.max_ts) = (100, max_ts);
                found.detail.levels = vec![Some(level.to_owned())];
                Arc::new(found)
            })
            .collect();
        let check = |used: u64, max: u64, order: Order, expect: &[i64]| {
            let found = surplus(&segments, used, max, order, &Rules::default());
            let ids: Vec<i64> = found.iter().map(|segment| segment.id).collect();
            assert_eq!(ids, expect, "{used} of {max}, {order:?}");
        };
        check(400, 0, Order::Oldest, &[]);
        check(400, 400, Order::Oldest, &[]);
        check(401, 400, Order::Oldest, &[1]);
        check(450, 250, Order::Oldest, &[1, 3]);
        check(450, 250, Order::ShortestKeptFirst, &[4, 2]);
        check(450, 100, Order::ShortestKeptFirst, &[4, 2, 3, 1]);
        check(450, 1, Order::Oldest, &[1, 3, 4, 2]);
    }
}
