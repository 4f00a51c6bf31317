//! Which records of a row group a condition leaves, by the statistics in the footer and by the index. Pure but for the
//! footer that is already in memory, and never wrong on the side of leaving out what could match.

use std::collections::BTreeSet;
use std::ops::Range;

use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::statistics::Statistics;

use super::open::OpenSegment;
use crate::record::column;
use crate::storage::index::{BLOCK_ROWS, BlockSet};

/// What every matching record satisfies in one column.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// An integer (or, for the timestamp, nanoseconds) from the first to the second.
    Integers(String, i64, i64),
    /// A number from the first to the second.
    Numbers(String, f64, f64),
    /// One of these texts.
    Texts(String, BTreeSet<String>),
}

impl Condition {
    fn column(&self) -> &str {
        match self {
            Condition::Integers(name, ..) | Condition::Numbers(name, ..) | Condition::Texts(name, _) => name,
        }
    }

    fn allows_integers(&self, min: i64, max: i64) -> bool {
        match self {
            Condition::Integers(_, low, high) => *low <= max && min <= *high,
            // An integer beyond 2⁵³ may round either way.
            Condition::Numbers(_, low, high) => *low <= (max as f64).next_up() && (min as f64).next_down() <= *high,
            Condition::Texts(..) => true,
        }
    }

    fn allows_floats(&self, min: f64, max: f64) -> bool {
        match self {
            Condition::Integers(_, low, high) => {
                (*low as f64).next_down() <= max && min <= (*high as f64).next_up() || min.is_nan() || max.is_nan()
            }
            Condition::Numbers(_, low, high) => *low <= max && min <= *high || min.is_nan() || max.is_nan(),
            Condition::Texts(..) => true,
        }
    }

    fn allows_texts(&self, min: &[u8], max: &[u8]) -> bool {
        match self {
            Condition::Texts(_, values) => {
                values.iter().any(|value| min <= value.as_bytes() && value.as_bytes() <= max)
            }
            _ => true,
        }
    }
}

/// The records of a row group that can meet all conditions and lie in the blocks, as ascending ranges.
pub fn matching(
    open: &OpenSegment,
    row_group: usize,
    conditions: &[Condition],
    blocks: Option<&BlockSet>,
) -> Vec<Range<usize>> {
    let rows = open.metadata().row_group(row_group).num_rows() as usize;
    let mut left = match blocks {
        Some(blocks) => of_blocks(open, row_group, rows, blocks),
        None => std::iter::once(0..rows).collect(),
    };
    for condition in conditions {
        if left.is_empty() {
            break;
        }
        let Some(place) = open.column(condition.column()) else { continue };
        if !row_group_allows(open, row_group, place, condition) {
            return Vec::new();
        }
        if let Some(pages) = of_pages(open, row_group, place, rows, condition) {
            left = intersect(&left, &pages);
        }
    }
    left
}

/// The first block of a row group among those of its segment.
fn first_block(open: &OpenSegment, row_group: usize) -> u32 {
    open.row_groups().take(row_group).map(|rows| rows.div_ceil(BLOCK_ROWS) as u32).sum()
}

fn of_blocks(open: &OpenSegment, row_group: usize, rows: usize, blocks: &BlockSet) -> Vec<Range<usize>> {
    let first = first_block(open, row_group);
    let here = (0..rows.div_ceil(BLOCK_ROWS)).filter(|block| blocks.contains(first + *block as u32));
    joined(here.map(|block| block * BLOCK_ROWS..((block + 1) * BLOCK_ROWS).min(rows)))
}

fn scale(open: &OpenSegment, condition: &Condition) -> i64 {
    if condition.column() == column::TIMESTAMP { open.nanoseconds() } else { 1 }
}

fn row_group_allows(open: &OpenSegment, row_group: usize, place: usize, condition: &Condition) -> bool {
    let chunk = open.metadata().row_group(row_group).column(place);
    match chunk.statistics() {
        Some(Statistics::Int64(found)) => match (found.min_opt(), found.max_opt()) {
            (Some(min), Some(max)) => {
                let scale = scale(open, condition);
                condition.allows_integers(min.saturating_mul(scale), max.saturating_mul(scale))
            }
            _ => true,
        },
        Some(Statistics::Double(found)) => match (found.min_opt(), found.max_opt()) {
            (Some(min), Some(max)) => condition.allows_floats(*min, *max),
            _ => true,
        },
        Some(Statistics::ByteArray(found)) if !open.ids().contains_key(condition.column()) => {
            match (found.min_bytes_opt(), found.max_bytes_opt()) {
                (Some(min), Some(max)) => condition.allows_texts(min, max),
                _ => true,
            }
        }
        _ => true,
    }
}

/// The records of the pages that can meet the condition; `None`: the footer does not tell.
fn of_pages(
    open: &OpenSegment,
    row_group: usize,
    place: usize,
    rows: usize,
    condition: &Condition,
) -> Option<Vec<Range<usize>>> {
    let index = open.metadata().column_index()?.get(row_group)?.get(place)?;
    let pages = open.metadata().offset_index()?.get(row_group)?.get(place)?.page_locations();
    let scale = scale(open, condition);
    let allows = |page: usize| -> bool {
        match index {
            ColumnIndexMetaData::INT64(index) => match (index.min_value(page), index.max_value(page)) {
                (Some(min), Some(max)) => {
                    condition.allows_integers(min.saturating_mul(scale), max.saturating_mul(scale))
                }
                // Only nulls: no comparison holds.
                _ => !index.is_null_page(page),
            },
            ColumnIndexMetaData::DOUBLE(index) => match (index.min_value(page), index.max_value(page)) {
                (Some(min), Some(max)) => condition.allows_floats(*min, *max),
                _ => !index.is_null_page(page),
            },
            ColumnIndexMetaData::BYTE_ARRAY(index) => match (index.min_value(page), index.max_value(page)) {
                (Some(min), Some(max)) => condition.allows_texts(min, max),
                _ => !index.is_null_page(page),
            },
            _ => true,
        }
    };
    if matches!(index, ColumnIndexMetaData::NONE) || index.num_pages() as usize != pages.len() {
        return None;
    }
    let start = |page: usize| pages.get(page).map_or(rows, |page| page.first_row_index as usize);
    Some(joined((0..pages.len()).filter(|page| allows(*page)).map(|page| start(page)..start(page + 1))))
}

/// The smallest and the largest value of a column of numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Extremes {
    /// No record has a value.
    NoValues,
    /// Integers.
    Integers(i64, i64),
    /// Doubles.
    Floats(f64, f64),
}

impl Extremes {
    fn and(self, other: Extremes) -> Option<Extremes> {
        match (self, other) {
            (Extremes::NoValues, known) | (known, Extremes::NoValues) => Some(known),
            (Extremes::Integers(a, b), Extremes::Integers(c, d)) => Some(Extremes::Integers(a.min(c), b.max(d))),
            (Extremes::Floats(a, b), Extremes::Floats(c, d)) => Some(Extremes::Floats(a.min(c), b.max(d))),
            _ => None,
        }
    }
}

/// The extremes of a column by the footer; `None`: it does not tell. (A zero has two signs, and statistics only one.)
pub fn extremes(open: &OpenSegment, name: &str) -> Option<Extremes> {
    let Some(place) = open.column(name) else { return Some(Extremes::NoValues) };
    let mut all = Extremes::NoValues;
    for group in open.metadata().row_groups() {
        let statistics = group.column(place).statistics()?;
        if statistics.null_count_opt() == Some(group.num_rows() as u64) {
            continue;
        }
        let known = match statistics {
            Statistics::Int64(found) => Extremes::Integers(*found.min_opt()?, *found.max_opt()?),
            Statistics::Double(found) => Extremes::Floats(*found.min_opt()?, *found.max_opt()?),
            _ => return None,
        };
        if !statistics.min_is_exact() || !statistics.max_is_exact() {
            return None;
        }
        all = all.and(known)?;
    }
    match all {
        Extremes::Floats(min, max) if min == 0.0 || max == 0.0 || min.is_nan() || max.is_nan() => None,
        known => Some(known),
    }
}

/// Ascending ranges with neighbours made one.
fn joined(ranges: impl Iterator<Item = Range<usize>>) -> Vec<Range<usize>> {
    let mut all: Vec<Range<usize>> = Vec::new();
    for range in ranges.filter(|range| !range.is_empty()) {
        match all.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => all.push(range),
        }
    }
    all
}

/// What is in both of two lists of ascending ranges.
fn intersect(a: &[Range<usize>], b: &[Range<usize>]) -> Vec<Range<usize>> {
    let (mut found, mut at, mut other) = (Vec::new(), 0, 0);
    while at < a.len() && other < b.len() {
        let range = a[at].start.max(b[other].start)..a[at].end.min(b[other].end);
        if a[at].end < b[other].end {
            at += 1;
        } else {
            other += 1;
        }
        found.push(range);
    }
    joined(found.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_joined_and_met() {
        let found = intersect(&[0..10, 20..30], &[5..25, 28..40]);
        assert_eq!(found, [5..10, 20..25, 28..30]);
        assert_eq!(joined([0..2, 2..4, 5..5, 6..7].into_iter()), [0..4, 6..7]);
    }

    #[test]
    fn conditions_compare_with_extremes() {
        let texts = Condition::Texts("level".into(), BTreeSet::from(["info".to_owned(), "warn".to_owned()]));
        assert!(texts.allows_texts(b"debug", b"info") && !texts.allows_texts(b"j", b"t"));
        let numbers = Condition::Numbers("status".into(), 500.0, f64::INFINITY);
        assert!(numbers.allows_integers(200, 500) && !numbers.allows_integers(200, 404));
        assert!(numbers.allows_floats(f64::NAN, 1.0) && !numbers.allows_floats(0.0, 499.9));
        let integers = Condition::Integers("n".into(), 5, 7);
        assert!(integers.allows_integers(7, 9) && !integers.allows_integers(8, 9));
    }
}
