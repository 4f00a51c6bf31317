//! Sets of blocks: a block is a run of records of a segment that an index entry points at.

/// Records of a block; the last block of a row group may be shorter. The same as of a data page, so that a block that is
/// left out is a page that is not read.
pub const BLOCK_ROWS: usize = 2_048;

/// A set of the blocks of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockSet {
    words: Vec<u64>,
    blocks: u32,
}

impl BlockSet {
    /// The empty set among `blocks` blocks.
    pub fn empty(blocks: u32) -> BlockSet {
        BlockSet { words: vec![0; blocks.div_ceil(64) as usize], blocks }
    }

    /// These members among `blocks` blocks.
    pub fn of(blocks: u32, members: &[u32]) -> BlockSet {
        let mut set = BlockSet::empty(blocks);
        members.iter().for_each(|block| set.insert(*block));
        set
    }

    /// All of `blocks` blocks.
    pub fn full(blocks: u32) -> BlockSet {
        let mut set = BlockSet { words: vec![u64::MAX; blocks.div_ceil(64) as usize], blocks };
        if let Some(last) = set.words.last_mut().filter(|_| !blocks.is_multiple_of(64)) {
            *last = (1 << (blocks % 64)) - 1;
        }
        set
    }

    /// How many blocks there are, in the set or not.
    pub fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Adds a block; one beyond the last is ignored.
    pub fn insert(&mut self, block: u32) {
        if block < self.blocks {
            self.words[(block / 64) as usize] |= 1 << (block % 64);
        }
    }

    /// Whether the block is in the set.
    pub fn contains(&self, block: u32) -> bool {
        self.words.get((block / 64) as usize).is_some_and(|word| word >> (block % 64) & 1 == 1)
    }

    /// Keeps what is in both.
    pub fn intersect(&mut self, other: &BlockSet) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= other);
    }

    /// Adds what is in the other.
    pub fn unite(&mut self, other: &BlockSet) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
    }

    /// How many blocks are in the set.
    pub fn len(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether no block is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Whether all blocks are in the set.
    pub fn is_full(&self) -> bool {
        self.len() == self.blocks
    }

    /// The blocks of the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().enumerate().flat_map(|(at, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(at as u32 * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_sets() {
        let of = |members: &[u32]| BlockSet::of(130, members);
        let mut set = of(&[0, 63, 64, 129, 500]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 129]);
        set.intersect(&of(&[1, 63, 129]));
        assert_eq!(set, of(&[63, 129]));
        set.unite(&of(&[5]));
        assert_eq!((set.len(), set.contains(5), set.contains(6)), (3, true, false));
        assert!(BlockSet::full(130).is_full() && BlockSet::full(128).is_full() && BlockSet::empty(3).is_empty());
        assert_eq!(BlockSet::full(130).iter().count(), 130);
    }
}
