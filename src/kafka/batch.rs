//! Record batches as they lie in a partition: checked, unpacked and taken apart. Pure.
//!
//! Invariants: the bytes of a broker never make it panic, and take no more memory than the limits say; what can't be read is
//! passed over by whole batches, with its offsets and the reason; nothing is passed over in silence.
//! Source: Kafka's documentation, "Implementation", "Message Format".

use std::collections::HashSet;
use std::io::Read;

use bytes::{Buf, Bytes};

/// Where the records of a batch begin.
const HEADER_BYTES: usize = 61;
/// What stands before the length of a batch, with it.
const LENGTH_BYTES: usize = 12;
/// The only version of batches since Kafka 0.11.
const MAGIC: i8 = 2;
const COMPRESSION: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
/// What Java's snappy puts before its blocks: this, and two versions of four bytes.
const XERIAL: &[u8] = b"\x82SNAPPY\0";
const XERIAL_BYTES: usize = 16;
/// A zstd frame may ask for a window of this many bits (32 MiB).
const ZSTD_WINDOW_BITS_MAX: u32 = 25;

/// A record of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub offset: i64,
    /// When it was made, or written by the broker where the topic says so, ms.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<Bytes>,
    /// What it says; `None` stands for a removal.
    pub value: Option<Bytes>,
    /// Names and values around it.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

impl Record {
    /// What it takes.
    pub fn bytes(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Bytes::len));
        self.key.as_ref().map_or(0, Bytes::len) + self.value.as_ref().map_or(0, Bytes::len) + headers.sum::<usize>()
    }
}

/// Records that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The first.
    pub from: i64,
    /// The one after the last.
    pub to: i64,
    /// Why.
    pub reason: String,
}

/// What was read of a partition.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Walked {
    pub records: Vec<Record>,
    pub skipped: Vec<Skipped>,
    /// Where to go on.
    pub next: i64,
}

/// A transaction that was given up: its producer, and its first record.
pub(super) type Aborted = (i64, i64);

/// Reads batches from `from` on, until they end or `bytes_left` is spent, which no single batch may pass either. The last
/// batch may be cut short, as brokers do.
pub(super) fn walk(
    mut bytes: Bytes,
    from: i64,
    mut aborted: Vec<Aborted>,
    bytes_left: &mut usize,
    batch_bytes_max: usize,
) -> Walked {
    let mut walked = Walked { next: from, ..Walked::default() };
    let mut giving_up: HashSet<i64> = HashSet::new();
    aborted.sort_unstable_by_key(|(_, first)| *first);
    let mut aborted = aborted.into_iter().peekable();
    while let Some(batch) = Batch::split(&mut bytes) {
        // Whole batches come, also where only their last record was asked for.
        let fits = batch.is_cut || batch.next > walked.next;
        if !fits {
            continue;
        }
        if batch.is_cut {
            // The next answer has it whole, unless this one had nothing else.
            break;
        }
        while let Some((producer, _)) = aborted.next_if(|(_, first)| *first <= batch.base) {
            giving_up.insert(producer);
        }
        if batch.magic != MAGIC {
            let reason = format!("a batch of format {}, which Kafka before 0.11 wrote", batch.magic);
            walked.skip(&batch, reason);
            continue;
        }
        if batch.attributes & CONTROL != 0 {
            if batch.ends_aborted() {
                giving_up.remove(&batch.producer);
            }
            walked.next = batch.next;
            continue;
        }
        if batch.attributes & TRANSACTIONAL != 0 && giving_up.contains(&batch.producer) {
            walked.next = batch.next;
            continue;
        }
        if *bytes_left == 0 {
            break;
        }
        match batch.records(walked.next, batch_bytes_max) {
            Ok((records, unpacked_bytes)) => {
                *bytes_left = bytes_left.saturating_sub(unpacked_bytes);
                walked.records.extend(records);
                walked.next = batch.next;
            }
            Err(reason) => walked.skip(&batch, reason),
        }
    }
    walked
}

impl Walked {
    fn skip(&mut self, batch: &Batch, reason: String) {
        self.skipped.push(Skipped { from: self.next, to: batch.next, reason });
        self.next = batch.next;
    }
}

/// A batch, not unpacked yet.
struct Batch {
    base: i64,
    /// The offset after its last record.
    next: i64,
    magic: i8,
    attributes: i16,
    base_ms: i64,
    max_ms: i64,
    producer: i64,
    count: i32,
    crc: u32,
    /// What the checksum is of.
    checked: Bytes,
    /// The records, as they are packed.
    packed: Bytes,
    /// It is not here to its end.
    is_cut: bool,
}

impl Batch {
    /// Takes the first batch off; `None` when nothing is left of which the start can be read.
    fn split(bytes: &mut Bytes) -> Option<Batch> {
        let head = bytes.get(..LENGTH_BYTES + 5)?;
        let base = i64::from_be_bytes(*head.first_chunk()?);
        let length = i32::from_be_bytes(*head[8..].first_chunk()?);
        let magic = head[16] as i8;
        let end = LENGTH_BYTES + usize::try_from(length).ok()?;
        let mut batch = Batch {
            base,
            next: base.saturating_add(1),
            magic,
            attributes: 0,
            base_ms: 0,
            max_ms: 0,
            producer: -1,
            count: 0,
            crc: 0,
            checked: Bytes::new(),
            packed: Bytes::new(),
            is_cut: bytes.len() < end || end < LENGTH_BYTES + 5,
        };
        if batch.is_cut {
            return Some(batch);
        }
        let whole = bytes.split_to(end);
        if magic == MAGIC && whole.len() >= HEADER_BYTES {
            let mut rest = whole.slice(17..);
            batch.crc = rest.get_u32();
            batch.checked = whole.slice(21..);
            batch.attributes = rest.get_i16();
            batch.next = base.saturating_add(i64::from(rest.get_i32())).saturating_add(1);
            batch.base_ms = rest.get_i64();
            batch.max_ms = rest.get_i64();
            batch.producer = rest.get_i64();
            rest.advance(6);
            batch.count = rest.get_i32();
            batch.packed = rest;
        }
        Some(batch)
    }

    /// Whether it is the mark that ends a transaction that was given up: a record whose key is a version and the type 0.
    fn ends_aborted(&self) -> bool {
        let records = self.records(i64::MIN, HEADER_BYTES * 16);
        let Ok((records, _)) = records else { return false };
        let key = records.first().and_then(|record| record.key.as_deref());
        key.is_some_and(|key| key.get(2..4) == Some(&[0, 0]))
    }

    /// Its records from `from` on, and how many bytes all of them took. **Errors**: why they can't be read.
    fn records(&self, from: i64, bytes_max: usize) -> Result<(Vec<Record>, usize), String> {
        if crc32c::crc32c(&self.checked) != self.crc {
            return Err("a batch with a wrong checksum".to_owned());
        }
        let mut plain = unpack(self.attributes & COMPRESSION, &self.packed, bytes_max)?;
        let bytes = plain.len();
        let mut records = Vec::new();
        for _ in 0..self.count {
            let record = self.record(&mut plain).ok_or("a batch whose records are broken")?;
            if record.offset >= from {
                records.push(record);
            }
        }
        Ok((records, bytes))
    }

    fn record(&self, bytes: &mut Bytes) -> Option<Record> {
        let length = length_of(bytes)??;
        let mut rest = split(bytes, length)?;
        split(&mut rest, 1)?;
        let time_delta = varint(&mut rest)?;
        let offset_delta = varint(&mut rest)?;
        let is_appended = self.attributes & LOG_APPEND_TIME != 0;
        let timestamp_ms = if is_appended { self.max_ms } else { self.base_ms.saturating_add(time_delta) };
        let key = field(&mut rest)?;
        let value = field(&mut rest)?;
        let mut headers = Vec::new();
        for _ in 0..varint(&mut rest)? {
            headers.push((field(&mut rest)?.unwrap_or_default(), field(&mut rest)?));
        }
        Some(Record { offset: self.base.saturating_add(offset_delta), timestamp_ms, key, value, headers })
    }
}

/// A number of up to ten groups of seven bits, the lowest first, its sign in the lowest bit.
fn varint(bytes: &mut Bytes) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = bytes.first().copied()?;
        bytes.advance(1);
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

/// A length; the inner `None` stands for an absent field.
fn length_of(bytes: &mut Bytes) -> Option<Option<usize>> {
    let length = varint(bytes)?;
    if length == -1 { Some(None) } else { usize::try_from(length).ok().map(Some) }
}

fn field(bytes: &mut Bytes) -> Option<Option<Bytes>> {
    match length_of(bytes)? {
        None => Some(None),
        Some(length) => split(bytes, length).map(Some),
    }
}

fn split(bytes: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

/// Undoes a batch's compression. **Errors**: why it can't be.
fn unpack(codec: i16, packed: &Bytes, bytes_max: usize) -> Result<Bytes, String> {
    match codec {
        0 if packed.len() > bytes_max => Err(too_large(bytes_max)),
        0 => Ok(packed.clone()),
        1 => drain("gzip", flate2::bufread::MultiGzDecoder::new(&packed[..]), bytes_max),
        2 => snappy(packed, bytes_max),
        3 => drain("lz4", lz4_flex::frame::FrameDecoder::new(&packed[..]), bytes_max),
        4 => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(&packed[..])
                .and_then(|mut decoder| decoder.window_log_max(ZSTD_WINDOW_BITS_MAX).map(|()| decoder))
                .map_err(|error| format!("a batch that is no zstd: {error}"))?;
            drain("zstd", &mut decoder, bytes_max)
        }
        other => Err(format!("a batch of compression {other}, which is not known")),
    }
}

fn too_large(bytes_max: usize) -> String {
    format!("a batch of more than {bytes_max} bytes when it is unpacked")
}

fn drain(codec: &str, from: impl Read, bytes_max: usize) -> Result<Bytes, String> {
    let mut plain = Vec::new();
    let read = from.take(bytes_max as u64 + 1).read_to_end(&mut plain);
    read.map_err(|error| format!("a batch that is no {codec}: {error}"))?;
    if plain.len() > bytes_max { Err(too_large(bytes_max)) } else { Ok(plain.into()) }
}

/// One block, or Java's: blocks with their lengths before them.
fn snappy(packed: &Bytes, bytes_max: usize) -> Result<Bytes, String> {
    if !packed.starts_with(XERIAL) {
        return snappy_block(packed, bytes_max).map(Bytes::from);
    }
    let mut rest = packed.get(XERIAL_BYTES..).unwrap_or_default();
    let mut plain = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let (block, after) = after.split_at_checked(length).ok_or("a batch whose snappy is cut")?;
        plain.extend(snappy_block(block, bytes_max - plain.len())?);
        rest = after;
    }
    Ok(plain.into())
}

fn snappy_block(block: &[u8], bytes_max: usize) -> Result<Vec<u8>, String> {
    let broken = |error| format!("a batch that is no snappy: {error}");
    if snap::raw::decompress_len(block).map_err(broken)? > bytes_max {
        return Err(too_large(bytes_max));
    }
    snap::raw::Decoder::new().decompress_vec(block).map_err(broken)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    const PLENTY: usize = 1 << 20;

    fn put_varint(value: i64, out: &mut Vec<u8>) {
        let mut rest = ((value << 1) ^ (value >> 63)) as u64;
        while rest >= 0x80 {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    }

    fn put_field(value: Option<&[u8]>, out: &mut Vec<u8>) {
        put_varint(value.map_or(-1, |value| value.len() as i64), out);
        out.extend_from_slice(value.unwrap_or_default());
    }

    /// Records with these offsets after `base`, each saying its offset.
    fn records(base: i64, deltas: &[i64]) -> Vec<u8> {
        let mut out = Vec::new();
        for delta in deltas {
            let mut record = vec![0];
            put_varint(delta * 10, &mut record);
            put_varint(*delta, &mut record);
            put_field((delta % 2 == 0).then_some(b"key"), &mut record);
            put_field(Some(format!("line {}", base + delta).as_bytes()), &mut record);
            put_varint(1, &mut record);
            put_field(Some(b"name"), &mut record);
            put_field(None, &mut record);
            put_varint(record.len() as i64, &mut out);
            out.extend(record);
        }
        out
    }

    fn batch(base: i64, last_delta: i32, attributes: i16, producer: i64, count: i32, packed: &[u8]) -> Vec<u8> {
        let mut checked = Vec::new();
        checked.extend(attributes.to_be_bytes());
        checked.extend(last_delta.to_be_bytes());
        checked.extend(1_000i64.to_be_bytes());
        checked.extend(9_000i64.to_be_bytes());
        checked.extend(producer.to_be_bytes());
        checked.extend([0; 6]);
        checked.extend(count.to_be_bytes());
        checked.extend(packed);
        let mut out = base.to_be_bytes().to_vec();
        out.extend((checked.len() as i32 + 9).to_be_bytes());
        out.extend(7i32.to_be_bytes());
        out.push(MAGIC as u8);
        out.extend(crc32c::crc32c(&checked).to_be_bytes());
        out.extend(checked);
        out
    }

    fn plain(base: i64, deltas: &[i64]) -> Vec<u8> {
        let last = deltas.last().copied().unwrap_or(0) as i32;
        batch(base, last, 0, -1, deltas.len() as i32, &records(base, deltas))
    }

    fn walked(batches: &[Vec<u8>], from: i64, aborted: &[Aborted]) -> (Vec<i64>, i64, Vec<String>) {
        let mut left = PLENTY;
        let walked = walk(batches.concat().into(), from, aborted.to_vec(), &mut left, PLENTY);
        let offsets = walked.records.iter().map(|record| record.offset).collect();
        let skipped = walked.skipped.iter().map(|one| format!("{}..{} {}", one.from, one.to, one.reason)).collect();
        (offsets, walked.next, skipped)
    }

    #[test]
    fn records_are_read_from_where_is_asked() {
        let batches = [plain(10, &[0, 1, 2]), plain(13, &[0, 4])];
        assert_eq!(walked(&batches, 11, &[]), (vec![11, 12, 13, 17], 18, vec![]));
        let mut left = PLENTY;
        let first = &walk(plain(10, &[0, 1]).into(), 10, vec![], &mut left, PLENTY).records[1];
        let expected = Record {
            offset: 11,
            timestamp_ms: 1_010,
            key: None,
            value: Some("line 11".into()),
            headers: vec![("name".into(), None)],
        };
        assert_eq!(first, &expected);
        assert!(left < PLENTY);
    }

    #[test]
    fn every_compression_is_undone() {
        let plain = records(5, &[0, 1, 2]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(&plain).unwrap();
        let block = |part: &[u8]| snap::raw::Encoder::new().compress_vec(part).unwrap();
        let mut xerial = [XERIAL, &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
        for part in plain.chunks(20) {
            let block = block(part);
            xerial.extend((block.len() as u32).to_be_bytes());
            xerial.extend(block);
        }
        for (codec, packed) in [
            (1, gzip.finish().unwrap()),
            (2, block(&plain)),
            (2, xerial),
            (3, lz4.finish().unwrap()),
            (4, zstd::encode_all(&plain[..], 3).unwrap()),
        ] {
            let (batch, cut) =
                (batch(5, 2, codec, -1, 3, &packed), batch(5, 2, codec, -1, 3, &packed[..packed.len() / 2]));
            assert_eq!(walked(std::slice::from_ref(&batch), 5, &[]), (vec![5, 6, 7], 8, vec![]), "{codec}");
            let (offsets, next, skipped) = walked(&[cut], 5, &[]);
            assert!(offsets.is_empty() && next == 8 && skipped.len() == 1, "{codec}: {skipped:?}");
            let mut left = PLENTY;
            let small = walk(batch.into(), 5, vec![], &mut left, plain.len() - 1);
            assert!(small.skipped[0].reason.contains("when it is unpacked"), "{codec}: {small:?}");
        }
    }

    #[test]
    fn what_carries_no_records_is_passed() {
        let emptied = batch(10, 4, 0, -1, 0, &[]);
        let mut mark = Vec::new();
        let mut record = vec![0, 0, 0];
        put_field(Some(&[0, 0, 0, 0]), &mut record);
        put_field(None, &mut record);
        put_varint(0, &mut record);
        put_varint(record.len() as i64, &mut mark);
        mark.extend(record);
        let of = |base, producer| batch(base, 0, TRANSACTIONAL, producer, 1, &records(base, &[0]));
        let abort = batch(17, 0, TRANSACTIONAL | CONTROL, 4, 1, &mark);
        let batches = [emptied, of(15, 4), of(16, 5), abort, of(18, 4)];
        assert_eq!(walked(&batches, 10, &[(4, 15)]), (vec![16, 18], 19, vec![]));
    }

    #[test]
    fn what_can_t_be_read_is_told_and_the_rest_is_read() {
        let mut damaged = plain(10, &[0, 1]);
        *damaged.last_mut().unwrap() ^= 1;
        let mut old = plain(12, &[0]);
        old[16] = 1;
        let batches = [damaged, old, batch(13, 1, 6, -1, 2, b"x"), plain(15, &[0])];
        let (offsets, next, skipped) = walked(&batches, 11, &[]);
        assert_eq!((offsets, next), (vec![15], 16));
        let starts: Vec<&str> = skipped.iter().map(|one| one.split(" a batch").next().unwrap()).collect();
        assert_eq!(starts, ["11..12", "12..13", "13..15"], "{skipped:?}");
        // The end of an answer may be anywhere.
        let whole = [plain(10, &[0]), plain(11, &[0])].concat();
        for end in 0..whole.len() {
            let (offsets, next, skipped) = walked(&[whole[..end].to_vec()], 10, &[]);
            assert!(next == 10 + offsets.len() as i64 && skipped.is_empty(), "{end}");
        }
    }

    #[test]
    fn an_answer_is_read_until_its_memory_is_spent() {
        let batches = [plain(10, &[0, 1]), plain(12, &[0]), plain(13, &[0])].concat();
        let mut left = 1;
        let walked = walk(batches.into(), 10, vec![], &mut left, PLENTY);
        assert_eq!((walked.records.len(), walked.next, left), (2, 12, 0));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..100, byte: u8, codec in 0i16..8) {
            let mut left = PLENTY;
            let _ = walk(bytes.clone().into(), 0, vec![(1, 0)], &mut left, PLENTY);
            let _ = walk(batch(0, 3, codec, 1, i32::MAX, &bytes).into(), 0, vec![], &mut left, PLENTY);
            let mut changed = plain(0, &[0, 1, 2]);
            let at = at.min(changed.len() - 1);
            changed[at] = byte;
            let _ = walk(changed.into(), 0, vec![], &mut left, PLENTY);
        }
    }
}
