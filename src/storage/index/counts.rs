//! How many records a segment has for each minute, level and service: what volume panels ask, without reading records.

use std::collections::HashMap;

use super::BlobError;

/// A cell is a minute.
pub const CELL_NS: i64 = 60_000_000_000;
/// More cells than this are no summary any more; such a segment has no counts.
const CELLS_MAX: usize = 1 << 18;

/// Collects records.
#[derive(Debug, Default)]
pub struct CountsBuilder {
    cells: HashMap<(i64, u32), u32>,
    keys: HashMap<(Option<String>, Option<String>), u32>,
    last: Option<(i64, u32, u32)>,
    last_key: Option<(Option<String>, Option<String>, u32)>,
}

impl CountsBuilder {
    /// Adds a record. Neighbours are mostly of one key and minute: those cost nothing.
    pub fn add(&mut self, timestamp: i64, level: Option<&str>, service: Option<&str>) {
        let minute = timestamp.div_euclid(CELL_NS);
        let key = self.key(level, service);
        match &mut self.last {
            Some((known, known_key, count)) if *known == minute && *known_key == key => *count += 1,
            _ => {
                self.settle();
                self.last = Some((minute, key, 1));
            }
        }
    }

    fn key(&mut self, level: Option<&str>, service: Option<&str>) -> u32 {
        if let Some((known_level, known_service, key)) = &self.last_key
            && known_level.as_deref() == level
            && known_service.as_deref() == service
        {
            return *key;
        }
        let next = self.keys.len() as u32;
        let (level, service) = (level.map(str::to_owned), service.map(str::to_owned));
        let key = *self.keys.entry((level.clone(), service.clone())).or_insert(next);
        self.last_key = Some((level, service, key));
        key
    }

    fn settle(&mut self) {
        if let Some((minute, key, count)) = self.last.take() {
            *self.cells.entry((minute, key)).or_default() += count;
        }
    }

    /// The counts; `None` when there are too many cells.
    pub fn finish(mut self) -> Option<Counts> {
        self.settle();
        if self.cells.len() > CELLS_MAX || self.cells.is_empty() {
            return None;
        }
        let mut keys = vec![(None, None); self.keys.len()];
        self.keys.into_iter().for_each(|(key, at)| keys[at as usize] = key);
        let mut cells: Vec<Cell> =
            self.cells.into_iter().map(|((minute, key), count)| Cell { minute, key, count }).collect();
        cells.sort_unstable_by_key(|cell| (cell.minute, cell.key));
        Some(Counts { keys, cells })
    }
}

/// The records of one minute, level and service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// Minutes since the epoch.
    pub minute: i64,
    /// Place in [`Counts::keys`].
    pub key: u32,
    /// Records.
    pub count: u32,
}

/// A segment's counts, by minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    /// Level and service of each key.
    pub keys: Vec<(Option<String>, Option<String>)>,
    /// Ascending by minute and key.
    pub cells: Vec<Cell>,
}

impl Counts {
    /// As bytes: the cells in three columns, little endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let base = self.cells.first().map_or(0, |cell| cell.minute);
        let mut bytes = base.to_le_bytes().to_vec();
        let mut last = base;
        for cell in &self.cells {
            bytes.extend_from_slice(&((cell.minute - last) as u32).to_le_bytes());
            last = cell.minute;
        }
        self.cells.iter().for_each(|cell| bytes.extend_from_slice(&cell.key.to_le_bytes()));
        self.cells.iter().for_each(|cell| bytes.extend_from_slice(&cell.count.to_le_bytes()));
        bytes
    }

    /// The reverse of [`Counts::to_bytes`].
    pub fn from_bytes(bytes: &[u8], keys: Vec<(Option<String>, Option<String>)>) -> Result<Counts, BlobError> {
        let damaged = || BlobError("the counts are cut".into());
        let (base, columns) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
        let (numbers, rest) = columns.as_chunks::<4>();
        if !rest.is_empty() || !numbers.len().is_multiple_of(3) {
            return Err(damaged());
        }
        let cells_count = numbers.len() / 3;
        let number = |at: usize| u32::from_le_bytes(numbers[at]);
        let mut minute = i64::from_le_bytes(*base);
        let mut cells = Vec::with_capacity(cells_count);
        for at in 0..cells_count {
            minute = minute.checked_add(i64::from(number(at))).ok_or_else(damaged)?;
            let key = number(cells_count + at);
            if key as usize >= keys.len() {
                return Err(damaged());
            }
            cells.push(Cell { minute, key, count: number(2 * cells_count + at) });
        }
        Ok(Counts { keys, cells })
    }

    /// Memory it holds.
    pub fn memory_bytes(&self) -> usize {
        self.cells.len() * size_of::<Cell>() + self.keys.len() * 64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_and_come_back() {
        let mut builder = CountsBuilder::default();
        for (timestamp, level) in [(5, "info"), (CELL_NS - 1, "info"), (CELL_NS, "info"), (6, "warn"), (-1, "info")] {
            builder.add(timestamp, Some(level), None);
        }
        let counts = builder.finish().unwrap();
        let found: Vec<_> = counts
            .cells
            .iter()
            .map(|cell| (cell.minute, counts.keys[cell.key as usize].0.as_deref().unwrap(), cell.count))
            .collect();
        assert_eq!(found, [(-1, "info", 1), (0, "info", 2), (0, "warn", 1), (1, "info", 1)]);
        assert_eq!(Counts::from_bytes(&counts.to_bytes(), counts.keys.clone()).unwrap(), counts);
        assert!(Counts::from_bytes(&counts.to_bytes()[..19], counts.keys.clone()).is_err());
    }
}
