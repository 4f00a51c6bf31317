//! The index of a segment, a file beside it: how many records there are per minute, level and service; which blocks hold
//! which words and ids; and the checksums of the segment's pieces.
//!
//! On disk: `QVRIDX01`, sections, a directory (JSON: what each section is, where it lies, its CRC-32), then length of the
//! directory `u32`, its CRC-32 `u32` and `QVRIDXEN`, little endian. An index can be made again from its segment.
//!
//! **Invariant**: what an index leaves out does not match; it may leave in what does not match either.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampNanosecondType;
use serde::{Deserialize, Serialize};

mod blocks;
mod counts;
mod hashes;
mod search;
mod terms;

pub use blocks::{BLOCK_ROWS, BlockSet};
pub use counts::{CELL_NS, Cell, Counts};
pub use search::Search;
pub use terms::Needle;

use crate::record::column;
use counts::CountsBuilder;
use hashes::{HashesBuilder, Layout};
use terms::{Found, Terms, TermsBuilder};

const MAGIC: &[u8; 8] = b"QVRIDX01";
const END_MAGIC: &[u8; 8] = b"QVRIDXEN";
const TAIL_BYTES: usize = 16;
/// A directory larger than this is damage.
const DIRECTORY_BYTES_MAX: usize = 16 << 20;
/// A section larger than this, unpacked, is damage.
const SECTION_BYTES_MAX: usize = 1 << 30;
/// Words and counts are packed at this level; the rest does not pack.
const ZSTD_LEVEL: i32 = 3;

/// What an index can answer instead of a result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be read.
    #[error("can't read the index '{path}': {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not whole.
    #[error("the index '{path}' is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In what way.
        reason: String,
    },
}

/// A section's bytes make no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BlobError(String);

#[derive(Debug, Serialize, Deserialize)]
struct Directory {
    /// Records of each row group, in order.
    row_groups: Vec<u32>,
    sections: Vec<Section>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Section {
    kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    column: Option<String>,
    offset: u64,
    /// Bytes in the file.
    length: u64,
    /// Bytes when unpacked; 0 for a section that is not packed.
    unpacked: u64,
    crc: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    layout: Option<Layout>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    keys: Vec<(Option<String>, Option<String>)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    opaque: Vec<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    overlong: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Counts,
    /// CRC-32 of each piece of the segment's file.
    Checksums,
    Words,
    WordBlocks,
    WordBlockLengths,
    /// Hashes of opaque terms of a text column.
    Opaque,
    /// Hashes of the values of a column.
    Values,
}

/// Makes the index of a segment while it is written.
#[derive(Debug, Default)]
pub struct IndexBuilder {
    row_groups: Vec<u32>,
    blocks: u32,
    counts: CountsBuilder,
    message: TermsBuilder,
    values: Vec<(String, HashesBuilder)>,
}

impl IndexBuilder {
    /// An index of the message, and of the values of these columns.
    pub fn new(value_columns: impl IntoIterator<Item = String>) -> IndexBuilder {
        let values = value_columns.into_iter().map(|name| (name, HashesBuilder::default())).collect();
        IndexBuilder { values, ..IndexBuilder::default() }
    }

    /// Adds the records of the next row group. **Shape**: plain columns, as in a decoded batch.
    pub fn add_row_group(&mut self, records: &RecordBatch) {
        let rows = records.num_rows();
        let text = |name: &str| records.column_by_name(name).map(|array| array.as_string::<i32>());
        let first_block = self.blocks;
        let block_of = |row: usize| first_block + (row / BLOCK_ROWS) as u32;
        let timestamps = records.column(0).as_primitive::<TimestampNanosecondType>().values();
        let (levels, services) = (text(column::LEVEL), text(column::SERVICE));
        for (row, timestamp) in timestamps.iter().enumerate() {
            let level = levels.filter(|array| array.is_valid(row)).map(|array| array.value(row));
            let service = services.filter(|array| array.is_valid(row)).map(|array| array.value(row));
            self.counts.add(*timestamp, level, service);
        }
        if let Some(messages) = text(column::MESSAGE) {
            for row in (0..rows).filter(|row| messages.is_valid(*row)) {
                self.message.add(messages.value(row), block_of(row));
            }
        }
        for (name, values) in &mut self.values {
            let Some(texts) = text(name) else { continue };
            for row in (0..rows).filter(|row| texts.is_valid(*row)) {
                values.add(texts.value(row).as_bytes(), block_of(row));
            }
        }
        self.row_groups.push(rows as u32);
        self.blocks += rows.div_ceil(BLOCK_ROWS) as u32;
    }

    /// The file's bytes. `checksums` are those of the segment's pieces.
    pub fn finish(self, checksums: &[u32]) -> Vec<u8> {
        let mut out = Sections { bytes: MAGIC.to_vec(), list: Vec::new() };
        let checksums: Vec<u8> = checksums.iter().flat_map(|crc| crc.to_le_bytes()).collect();
        out.add(Kind::Checksums, None, checksums, false);
        if let Some(counts) = self.counts.finish() {
            let section = out.add(Kind::Counts, None, counts.to_bytes(), true);
            section.keys = counts.keys;
        }
        if let Some(parts) = self.message.finish(self.blocks) {
            let message = Some(column::MESSAGE);
            let words = out.add(Kind::Words, message, parts.terms.blob, true);
            words.opaque = parts.terms.opaque.iter().collect();
            words.overlong = parts.terms.overlong.iter().collect();
            out.add(Kind::WordBlocks, message, parts.terms.postings, true);
            out.add(Kind::WordBlockLengths, message, parts.lengths, true);
            out.add(Kind::Opaque, message, parts.hashes, false).layout = Some(parts.layout);
        }
        for (name, values) in self.values {
            let (layout, bytes) = values.finish(self.blocks);
            out.add(Kind::Values, Some(&name), bytes, false).layout = Some(layout);
        }
        let directory = Directory { row_groups: self.row_groups, sections: out.list };
        let directory = serde_json::to_vec(&directory).expect("numbers and strings always serialise");
        out.bytes.extend_from_slice(&directory);
        out.bytes.extend_from_slice(&(directory.len() as u32).to_le_bytes());
        out.bytes.extend_from_slice(&crc32fast::hash(&directory).to_le_bytes());
        out.bytes.extend_from_slice(END_MAGIC);
        out.bytes
    }
}

struct Sections {
    bytes: Vec<u8>,
    list: Vec<Section>,
}

impl Sections {
    fn add(&mut self, kind: Kind, column: Option<&str>, body: Vec<u8>, pack: bool) -> &mut Section {
        let unpacked = if pack { body.len() as u64 } else { 0 };
        let body =
            if pack { zstd::bulk::compress(&body, ZSTD_LEVEL).expect("memory to memory does not fail") } else { body };
        self.list.push(Section {
            kind,
            column: column.map(str::to_owned),
            offset: self.bytes.len() as u64,
            length: body.len() as u64,
            unpacked,
            crc: crc32fast::hash(&body),
            layout: None,
            keys: Vec::new(),
            opaque: Vec::new(),
            overlong: Vec::new(),
        });
        self.bytes.extend_from_slice(&body);
        self.list.last_mut().expect("it was just added")
    }
}

/// An open index; its sections are read when they are first asked for, and kept.
#[derive(Debug)]
pub struct Index {
    path: PathBuf,
    file: File,
    directory: Directory,
    blocks: u32,
    /// What is asked of lines is asked of messages.
    lines_are_messages: bool,
    terms: OnceLock<Terms>,
    counts: OnceLock<Counts>,
    ends: Vec<OnceLock<Vec<u8>>>,
}

impl Index {
    /// Opens an index and reads its directory.
    ///
    /// **Errors**: [`Error::Damaged`] when it is not whole: make it again.
    pub fn open(path: &Path) -> Result<Index, Error> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        let damaged = |reason: &str| Error::Damaged { path: path.to_owned(), reason: reason.to_owned() };
        let file = File::open(path).map_err(io)?;
        let bytes = file.metadata().map_err(io)?.len();
        let tail_at = bytes.checked_sub(TAIL_BYTES as u64).ok_or_else(|| damaged("it is too short"))?;
        let mut tail = [0; TAIL_BYTES];
        file.read_exact_at(&mut tail, tail_at).map_err(io)?;
        let number = |at: usize| u32::from_le_bytes([tail[at], tail[at + 1], tail[at + 2], tail[at + 3]]);
        let length = number(0) as usize;
        if &tail[8..] != END_MAGIC || length > DIRECTORY_BYTES_MAX || length as u64 > tail_at {
            return Err(damaged("its end is missing"));
        }
        let mut directory = vec![0; length];
        file.read_exact_at(&mut directory, tail_at - length as u64).map_err(io)?;
        if crc32fast::hash(&directory) != number(4) {
            return Err(damaged("its directory does not have its checksum"));
        }
        let directory: Directory = serde_json::from_slice(&directory).map_err(|error| damaged(&error.to_string()))?;
        let blocks = directory.row_groups.iter().map(|rows| rows.div_ceil(BLOCK_ROWS as u32)).sum();
        let ends = directory.sections.iter().map(|_| OnceLock::new()).collect();
        let (terms, counts) = Default::default();
        let (path, lines_are_messages) = (path.to_owned(), false);
        Ok(Index { path, file, directory, blocks, lines_are_messages, terms, counts, ends })
    }

    /// Lets the index answer for `_line` too: every record of the segment has neither shape nor raw line, so that its line
    /// is its message. Where a line is put together from a shape, no text that is indexed need have a part of it.
    pub(super) fn take_lines_for_messages(&mut self) {
        self.lines_are_messages = true;
    }

    /// Memory it holds when everything has been asked for.
    pub fn memory_bytes(&self) -> usize {
        let sections = self.directory.sections.iter();
        let kept: u64 = sections
            .map(|section| match (section.kind, section.layout) {
                (Kind::Checksums, _) => 0,
                (_, Some(layout)) => layout.ends_bytes() as u64,
                (Kind::Words, _) => section.unpacked * 3 / 2,
                (Kind::WordBlockLengths, _) => section.unpacked * 4,
                _ => section.unpacked,
            })
            .sum();
        kept as usize + 4096
    }

    /// Records of each row group.
    pub fn row_groups(&self) -> &[u32] {
        &self.directory.row_groups
    }

    /// How many blocks the segment has.
    pub fn blocks(&self) -> u32 {
        self.blocks
    }

    fn section(&self, kind: Kind, column: Option<&str>) -> Option<usize> {
        self.directory.sections.iter().position(|found| found.kind == kind && found.column.as_deref() == column)
    }

    fn damaged(&self, reason: impl Into<String>) -> Error {
        Error::Damaged { path: self.path.clone(), reason: reason.into() }
    }

    fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; length];
        let read = self.file.read_exact_at(&mut bytes, offset);
        read.map_err(|source| Error::Io { path: self.path.clone(), source })?;
        Ok(bytes)
    }

    fn read_section(&self, at: usize) -> Result<Vec<u8>, Error> {
        let section = &self.directory.sections[at];
        let (length, unpacked) = (section.length as usize, section.unpacked as usize);
        if length > SECTION_BYTES_MAX || unpacked > SECTION_BYTES_MAX {
            return Err(self.damaged("a section is too long"));
        }
        let body = self.read(section.offset, length)?;
        if crc32fast::hash(&body) != section.crc {
            return Err(self.damaged(format!("section {:?} does not have its checksum", section.kind)));
        }
        if unpacked == 0 {
            return Ok(body);
        }
        zstd::bulk::decompress(&body, unpacked).map_err(|error| self.damaged(error.to_string()))
    }

    /// The checksums of the segment's pieces.
    pub fn checksums(&self) -> Result<Vec<u32>, Error> {
        let at = self.section(Kind::Checksums, None).ok_or_else(|| self.damaged("it has no checksums"))?;
        let bytes = self.read_section(at)?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|crc| u32::from_le_bytes(*crc)).collect())
    }

    /// Records per minute, level and service; `None` when the segment has too many of them.
    pub fn counts(&self) -> Result<Option<&Counts>, Error> {
        if let Some(counts) = self.counts.get() {
            return Ok(Some(counts));
        }
        let Some(at) = self.section(Kind::Counts, None) else { return Ok(None) };
        let keys = self.directory.sections[at].keys.clone();
        let read = Counts::from_bytes(&self.read_section(at)?, keys).map_err(|error| self.damaged(error.0))?;
        Ok(Some(self.counts.get_or_init(|| read)))
    }

    fn terms(&self, column: &str) -> Result<Option<&Terms>, Error> {
        let column = if column == column::LINE && self.lines_are_messages { column::MESSAGE } else { column };
        if column != column::MESSAGE {
            return Ok(None);
        }
        if let Some(terms) = self.terms.get() {
            return Ok(Some(terms));
        }
        let parts =
            [Kind::Words, Kind::WordBlocks, Kind::WordBlockLengths].map(|kind| self.section(kind, Some(column)));
        let [Some(words), Some(blocks), Some(lengths)] = parts else { return Ok(None) };
        let set = |members: &[u32]| BlockSet::of(self.blocks, members);
        let section = &self.directory.sections[words];
        let (opaque, overlong) = (set(&section.opaque), set(&section.overlong));
        let read = Terms::new(
            self.read_section(words)?,
            &self.read_section(lengths)?,
            self.read_section(blocks)?,
            opaque,
            overlong,
            self.blocks,
        );
        let read = read.ok_or_else(|| self.damaged("its words do not fit together"))?;
        Ok(Some(self.terms.get_or_init(|| read)))
    }

    /// Blocks that can hold the value among the hashes of a section.
    fn find_hash(&self, at: usize, layout: Layout, value: &[u8]) -> Result<BlockSet, Error> {
        let section = &self.directory.sections[at];
        let ends_bytes = layout.ends_bytes();
        if ends_bytes as u64 > section.length {
            return Err(self.damaged("its hashes are cut"));
        }
        let ends = match self.ends[at].get() {
            Some(ends) => ends,
            None => {
                let read = self.read(section.offset, ends_bytes)?;
                self.ends[at].get_or_init(|| read)
            }
        };
        let (bucket, wanted) = layout.place(value);
        let (ends, _) = ends.as_chunks::<4>();
        let end = |at: usize| u64::from(u32::from_le_bytes(ends[at]));
        let start = if bucket == 0 { 0 } else { end(bucket - 1) };
        let length = end(bucket).checked_sub(start).filter(|_| ends_bytes as u64 + end(bucket) <= section.length);
        let length = length.ok_or_else(|| self.damaged("its hashes are cut"))?;
        let bytes = self.read(section.offset + ends_bytes as u64 + start, length as usize)?;
        let mut found = BlockSet::empty(self.blocks);
        layout.read_bucket(&bytes, wanted, &mut found).ok_or_else(|| self.damaged("a bucket of hashes"))?;
        Ok(found)
    }

    /// The blocks that can hold a match; `None`: any can.
    pub fn find(&self, search: &Search) -> Result<Option<BlockSet>, Error> {
        match search {
            Search::Any => Ok(None),
            Search::Text { column, needle } => self.find_text(column, needle),
            Search::Equals { column, value } => {
                if let Some(at) = self.section(Kind::Values, Some(column))
                    && let Some(layout) = self.directory.sections[at].layout
                {
                    return Ok(Some(self.find_hash(at, layout, value.as_bytes())?));
                }
                let needle = Needle { at_start: true, at_end: true, ..Needle::anywhere(value.as_str()) };
                self.find_text(column, &needle)
            }
            Search::All(parts) => {
                let mut all: Option<BlockSet> = None;
                for part in parts {
                    if let Some(found) = self.find(part)? {
                        all = Some(match all.take() {
                            None => found,
                            Some(mut known) => {
                                known.intersect(&found);
                                known
                            }
                        });
                    }
                    if all.as_ref().is_some_and(BlockSet::is_empty) {
                        break;
                    }
                }
                Ok(all)
            }
            Search::OneOf(parts) => {
                let mut one = BlockSet::empty(self.blocks);
                for part in parts {
                    match self.find(part)? {
                        None => return Ok(None),
                        Some(found) => one.unite(&found),
                    }
                }
                Ok(Some(one))
            }
        }
    }

    fn find_text(&self, column: &str, needle: &Needle) -> Result<Option<BlockSet>, Error> {
        let Some(terms) = self.terms(column)? else { return Ok(None) };
        match terms.find(needle) {
            Found::Any => Ok(None),
            Found::Blocks(set) => Ok(Some(set)),
            Found::Also(mut set, opaque) => {
                let Some(at) = self.section(Kind::Opaque, Some(column::MESSAGE)) else { return Ok(Some(set)) };
                let Some(layout) = self.directory.sections[at].layout else { return Ok(Some(set)) };
                for term in opaque {
                    if set.is_empty() {
                        break;
                    }
                    set.intersect(&self.find_hash(at, layout, &term)?);
                }
                Ok(Some(set))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, StringArray, TimestampNanosecondArray};

    use super::*;

    fn records(messages: Vec<&str>, ids: Vec<&str>) -> RecordBatch {
        let rows = messages.len();
        let times = TimestampNanosecondArray::from_iter_values((0..rows as i64).map(|n| n * 1_000_000_000));
        let level: StringArray = vec![Some("info"); rows].into();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("timestamp", Arc::new(times)),
            ("level", Arc::new(level)),
            ("message", Arc::new(StringArray::from(messages))),
            ("trace_id", Arc::new(StringArray::from(ids))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn written() -> (tempfile::NamedTempFile, Vec<u8>) {
        let mut builder = IndexBuilder::new(["trace_id".to_owned()]);
        let many = 3_000;
        let ids: Vec<String> = (0..many).map(|n| format!("{n:032x}")).collect();
        let messages: Vec<&str> = (0..many).map(|n| if n == 2_500 { "card declined" } else { "all is well" }).collect();
        builder.add_row_group(&records(messages, ids.iter().map(String::as_str).collect()));
        builder.add_row_group(&records(vec!["card declined again"], vec!["x"]));
        let bytes = builder.finish(&[1, 2]);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        (file, bytes)
    }

    fn found(index: &Index, search: &Search) -> Option<Vec<u32>> {
        index.find(search).unwrap().map(|set| set.iter().collect())
    }

    #[test]
    fn what_was_written_is_found() {
        let (file, _) = written();
        let index = Index::open(file.path()).unwrap();
        assert_eq!((index.blocks(), index.row_groups()), (3, &[3_000, 1][..]));
        assert_eq!(index.checksums().unwrap(), [1, 2]);
        let text = |text: &str| Search::Text { column: "message".into(), needle: Needle::anywhere(text) };
        let id = |value: String| Search::Equals { column: "trace_id".into(), value };
        assert_eq!(found(&index, &text("declin")), Some(vec![1, 2]));
        assert_eq!(found(&index, &text("zzz")), Some(vec![]));
        assert!(found(&index, &id(format!("{:032x}", 7))).unwrap().contains(&0));
        let both = Search::all([text("declined"), id("x".into())]);
        assert!(found(&index, &both).unwrap().contains(&2));
        let either = Search::one_of(vec![text("again"), text("zzz")]);
        assert_eq!(found(&index, &either), Some(vec![2]));
        assert_eq!(found(&index, &Search::Text { column: "path".into(), needle: Needle::anywhere("x") }), None);
        assert_eq!(index.counts().unwrap().unwrap().cells.iter().map(|cell| cell.count).sum::<u32>(), 3_001);
    }

    #[test]
    fn damage_anywhere_is_found_or_does_no_harm() {
        let (file, bytes) = written();
        let search = Search::Text { column: "message".into(), needle: Needle::anywhere("declin") };
        for at in (0..bytes.len()).step_by(7) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x20;
            std::fs::write(file.path(), &damaged).unwrap();
            let Ok(index) = Index::open(file.path()) else { continue };
            if let Ok(blocks) = index.find(&search) {
                assert_eq!(blocks.map(|set| set.iter().collect::<Vec<_>>()), Some(vec![1, 2]), "byte {at}");
            }
        }
    }
}
