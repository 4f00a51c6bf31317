//! Which blocks hold a value, for values that are almost all different (ids, long numbers): sorted hashes with their
//! blocks, in buckets of about five hundred values, so that a look-up reads one bucket of a kilobyte or two.
//!
//! A hash is as short as lets one absent value in sixteen be taken for a present one: that costs one block read in vain,
//! and each bit saved is a bit for each value. In a bucket: differences of hashes as Rice codes, blocks as plain bits.
//!
//! **Invariant**: a block that holds the value is always found.

use twox_hash::XxHash64;

use super::blocks::BlockSet;

/// Values of a bucket, about.
const BUCKET_VALUES: usize = 512;
/// Hash bits beyond those that count the values: one false answer in 2⁴.
const SPARE_BITS: u32 = 4;
/// Bits of the hash that are kept while building; the others of a `u64` are the block.
const HASH_BITS: u32 = 40;
const BLOCK_BITS: u32 = 64 - HASH_BITS;
/// Low bits of a difference that are written as they are.
const RICE_BITS: u32 = 3;
const SEED: u64 = 0x5156_5248;

/// The hash of a value, in its upper [`HASH_BITS`].
fn hash(value: &[u8]) -> u64 {
    XxHash64::oneshot(SEED, value) >> BLOCK_BITS << BLOCK_BITS
}

/// Collects values and their blocks.
#[derive(Debug, Default)]
pub struct HashesBuilder {
    entries: Vec<u64>,
}

impl HashesBuilder {
    /// Adds a value that occurs in a block.
    pub fn add(&mut self, value: &[u8], block: u32) {
        let entry = hash(value) | u64::from(block);
        // Neighbours are often alike: the lines of one trace in one block.
        if self.entries.last() != Some(&entry) {
            self.entries.push(entry);
        }
    }

    /// The entries as bytes: `buckets × u32` ends of the buckets, then the buckets.
    pub fn finish(mut self, blocks: u32) -> (Layout, Vec<u8>) {
        self.entries.sort_unstable();
        self.entries.dedup();
        let values = self.entries.chunk_by(|a, b| a >> BLOCK_BITS == b >> BLOCK_BITS).count();
        let layout = Layout::new(values, blocks);
        let buckets = 1_usize << layout.bucket_bits;
        let (mut ends, mut bodies) = (Vec::with_capacity(buckets * 4), Vec::new());
        let mut rest = self.entries.as_slice();
        for bucket in 0..buckets as u64 {
            let length = rest.partition_point(|entry| layout.bucket_of(*entry) <= bucket);
            let (here, after) = rest.split_at(length);
            layout.write_bucket(here, &mut bodies);
            ends.extend_from_slice(&u32::try_from(bodies.len()).expect("an index is far below 4 GiB").to_le_bytes());
            rest = after;
        }
        ends.append(&mut bodies);
        (layout, ends)
    }
}

/// How the bits of a hash are used in one index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Layout {
    /// Leading bits that choose the bucket.
    bucket_bits: u32,
    /// Bits after them that are kept.
    value_bits: u32,
    /// Bits of a block.
    block_bits: u32,
    /// Blocks of the segment.
    blocks: u32,
}

impl Layout {
    fn new(values: usize, blocks: u32) -> Layout {
        let bits_for = |count: usize| usize::BITS - count.saturating_sub(1).leading_zeros();
        let bucket_bits = bits_for(values.div_ceil(BUCKET_VALUES)).min(HASH_BITS - SPARE_BITS);
        let all = (bits_for(values) + SPARE_BITS).min(HASH_BITS);
        let block_bits = bits_for(blocks as usize).max(1);
        Layout { bucket_bits, value_bits: all.saturating_sub(bucket_bits).max(1), block_bits, blocks }
    }

    /// Bytes of the ends of all buckets, at the start of the entries.
    pub fn ends_bytes(&self) -> usize {
        4 << self.bucket_bits
    }

    fn bucket_of(&self, entry: u64) -> u64 {
        if self.bucket_bits == 0 { 0 } else { entry >> (64 - self.bucket_bits) }
    }

    fn value_of(&self, entry: u64) -> u64 {
        entry << self.bucket_bits >> (64 - self.value_bits)
    }

    /// The bucket of a value, and what it is called there.
    pub fn place(&self, value: &[u8]) -> (usize, u64) {
        let hash = hash(value);
        (self.bucket_of(hash) as usize, self.value_of(hash))
    }

    fn write_bucket(&self, entries: &[u64], out: &mut Vec<u8>) {
        let mut pairs: Vec<(u64, u32)> =
            entries.iter().map(|entry| (self.value_of(*entry), (entry & ((1 << BLOCK_BITS) - 1)) as u32)).collect();
        pairs.sort_unstable();
        pairs.dedup();
        let start = out.len();
        out.extend_from_slice(&u32::try_from(pairs.len()).expect("a bucket is small").to_le_bytes());
        let mut bits = BitWriter { out, bits: 0, filled: 0 };
        let mut last = 0;
        for (value, block) in pairs {
            bits.write_rice(value - last);
            bits.write(u64::from(block), self.block_bits);
            last = value;
        }
        bits.finish();
        let crc = crc32fast::hash(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
    }

    /// Adds the blocks of the value `wanted` in a bucket to `found`; `None` when the bucket is damaged.
    pub fn read_bucket(&self, bucket: &[u8], wanted: u64, found: &mut BlockSet) -> Option<()> {
        let (body, crc) = bucket.split_last_chunk::<4>()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (count, body) = body.split_first_chunk::<4>()?;
        let mut bits = BitReader { bytes: body, at: 0 };
        let mut value = 0;
        for _ in 0..u32::from_le_bytes(*count) {
            value += bits.read_rice()?;
            let block = bits.read(self.block_bits)?;
            if value == wanted {
                found.insert(block as u32);
            } else if value > wanted {
                break;
            }
        }
        Some(())
    }
}

struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    bits: u64,
    filled: u32,
}

impl BitWriter<'_> {
    /// The low `count` bits of `value`, lowest first; at most 56.
    fn write(&mut self, value: u64, count: u32) {
        self.bits |= value << self.filled;
        self.filled += count;
        while self.filled >= 8 {
            self.out.push(self.bits as u8);
            self.bits >>= 8;
            self.filled -= 8;
        }
    }

    fn write_rice(&mut self, value: u64) {
        let mut ones = value >> RICE_BITS;
        while ones >= 32 {
            self.write((1 << 32) - 1, 32);
            ones -= 32;
        }
        self.write((1 << ones) - 1, ones as u32 + 1);
        self.write(value & ((1 << RICE_BITS) - 1), RICE_BITS);
    }

    fn finish(mut self) {
        if self.filled > 0 {
            self.write(0, 8 - self.filled);
        }
    }
}

struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl BitReader<'_> {
    fn read(&mut self, count: u32) -> Option<u64> {
        let (byte, shift) = (self.at / 8, self.at % 8);
        self.at += count as usize;
        if self.at > self.bytes.len() * 8 {
            return None;
        }
        let word = match self.bytes.get(byte..byte + 8) {
            Some(eight) => u64::from_le_bytes(eight.try_into().ok()?),
            None => self.bytes[byte..].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
        };
        Some(word >> shift & ((1 << count) - 1))
    }

    fn read_rice(&mut self) -> Option<u64> {
        let mut ones = 0;
        while self.read(1)? == 1 {
            ones += 1;
        }
        Some(ones << RICE_BITS | self.read(RICE_BITS)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_up(layout: Layout, bytes: &[u8], value: &[u8]) -> BlockSet {
        let (bucket, wanted) = layout.place(value);
        let end = |at: usize| u32::from_le_bytes(bytes[at * 4..at * 4 + 4].try_into().unwrap()) as usize;
        let start = if bucket == 0 { 0 } else { end(bucket - 1) };
        let bodies = &bytes[layout.ends_bytes()..];
        let mut found = BlockSet::empty(layout.blocks);
        layout.read_bucket(&bodies[start..end(bucket)], wanted, &mut found).unwrap();
        found
    }

    #[test]
    fn every_value_is_found_and_few_others() {
        for count in [0_u32, 1, 2, 500, 20_000] {
            let blocks = count / 64 + 1;
            let mut builder = HashesBuilder::default();
            for n in 0..count {
                builder.add(format!("id {n}").as_bytes(), n / 64);
                builder.add(format!("id {n}").as_bytes(), (n / 64 + 7) % blocks);
            }
            let (layout, bytes) = builder.finish(blocks);
            for n in 0..count {
                let found = look_up(layout, &bytes, format!("id {n}").as_bytes());
                assert!(found.contains(n / 64) && found.contains((n / 64 + 7) % blocks), "{n} of {count}");
            }
            let wrong = (0..1000).filter(|n| !look_up(layout, &bytes, format!("absent {n}").as_bytes()).is_empty());
            assert!(wrong.count() < 120, "{count} values");
            if count == 20_000 {
                assert!(bytes.len() * 8 / 40_000 < 16, "{} bytes for 40,000 entries", bytes.len());
            }
        }
    }

    #[test]
    fn damage_is_found() {
        let mut builder = HashesBuilder::default();
        builder.add(b"x", 0);
        let (layout, bytes) = builder.finish(1);
        let bucket = &bytes[layout.ends_bytes()..];
        for at in 0..bucket.len() {
            let mut damaged = bucket.to_vec();
            damaged[at] ^= 4;
            assert_eq!(layout.read_bucket(&damaged, 0, &mut BlockSet::empty(1)), None, "byte {at}");
        }
    }
}
