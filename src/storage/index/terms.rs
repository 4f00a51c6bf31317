//! Which blocks hold a piece of text: the words of a text column, each with its blocks, and the hashes of what is no word.
//!
//! A text is cut into *terms*: runs of letters, digits and bytes beyond ASCII, in lower case. Terms that people write
//! (few digits, not too long) are *words*; they stand sorted in one blob, so that a part of a word is found by a scan of
//! the blob. All others (ids, long numbers) are *opaque*: only their hashes are kept (hashes.rs), and the set of blocks
//! that have any. Runs of four or more letters in an opaque term are words too, so that letters are always found by words.
//!
//! **Invariant**: a block whose text contains the needle is always found; other blocks may be.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::blocks::BlockSet;
use super::hashes::{HashesBuilder, Layout};

/// Longest word in bytes.
const WORD_BYTES_MAX: usize = 40;
/// A term up to this length is a word whatever it is made of.
const SHORT_BYTES_MAX: usize = 4;
/// Most digits of a longer word.
const WORD_DIGITS_MAX: usize = 2;
/// Shortest run of letters in an opaque term that becomes a word.
const RUN_BYTES_MIN: usize = 4;
/// A segment whose words pass this gets no index of its text: it is not made of words.
const BLOB_BYTES_MAX: usize = 8 << 20;
/// A needle's part that is in more words than this says too little to be worth the union of their blocks.
const MATCHES_MAX: usize = 4_096;

/// What a text must contain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needle {
    /// The text.
    pub text: String,
    /// It stands at the start of the value.
    pub at_start: bool,
    /// It stands at the end of the value.
    pub at_end: bool,
    /// In any case.
    pub any_case: bool,
}

impl Needle {
    /// A text anywhere in the value.
    pub fn anywhere(text: impl Into<String>) -> Needle {
        Needle { text: text.into(), at_start: false, at_end: false, any_case: false }
    }
}

const SEPARATOR: u8 = 0;
const LETTER: u8 = 1;
const DIGIT: u8 = 2;
const BEYOND: u8 = 3;

static KINDS: [u8; 256] = {
    let mut kinds = [SEPARATOR; 256];
    let mut byte = 0;
    while byte < 256 {
        kinds[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' => LETTER,
            b'0'..=b'9' => DIGIT,
            0x80.. => BEYOND,
            _ => SEPARATOR,
        };
        byte += 1;
    }
    kinds
};

/// A term of a text, in lower case.
struct Term<'a> {
    bytes: &'a [u8],
    /// It begins or ends with the text, so that a needle's term may be a part of a longer one.
    first: bool,
    last: bool,
    beyond_ascii: bool,
}

fn is_word(bytes: &[u8]) -> bool {
    if bytes.len() <= SHORT_BYTES_MAX {
        return true;
    }
    bytes.len() <= WORD_BYTES_MAX && bytes.iter().filter(|byte| byte.is_ascii_digit()).count() <= WORD_DIGITS_MAX
}

/// Calls `each` with every term of `text`; `lower` is room for one.
fn each_term(text: &[u8], lower: &mut Vec<u8>, mut each: impl FnMut(Term<'_>)) {
    let mut at = 0;
    while at < text.len() {
        if KINDS[usize::from(text[at])] == SEPARATOR {
            at += 1;
            continue;
        }
        let start = at;
        let mut kinds = 0;
        while at < text.len() && KINDS[usize::from(text[at])] != SEPARATOR {
            kinds |= u8::from(KINDS[usize::from(text[at])] == BEYOND);
            at += 1;
        }
        lower.clear();
        lower.extend_from_slice(&text[start..at]);
        lower.make_ascii_lowercase();
        let beyond_ascii = kinds != 0;
        if beyond_ascii {
            fold(lower);
        }
        each(Term { bytes: lower, first: start == 0, last: at == text.len(), beyond_ascii });
    }
}

/// The three characters beyond ASCII that a search in any case takes for ASCII letters: K (Kelvin), ſ, İ.
fn fold(term: &mut Vec<u8>) {
    for (from, to) in [("\u{212a}", b'k'), ("\u{17f}", b's'), ("\u{130}", b'i')] {
        while let Some(at) = memchr::memmem::find(term, from.as_bytes()) {
            term.splice(at..at + from.len(), [to]);
        }
    }
}

/// The runs of letters of an opaque term.
fn letter_runs(term: &[u8]) -> impl Iterator<Item = &[u8]> {
    term.split(|byte| KINDS[usize::from(*byte)] == DIGIT).filter(|run| run.len() >= RUN_BYTES_MIN)
}

/// A word while the index is built.
struct Word {
    start: u32,
    length: u32,
    last_block: u32,
    /// Differences of blocks, as variable-length integers.
    blocks: Vec<u8>,
}

/// Words that were seen lately: most words of a line were in the line before, and need no look-up among all.
const RECENT_WORDS: usize = 1 << 10;

/// A word that has its block already.
#[derive(Clone, Copy)]
struct Recent {
    block: u32,
    /// 0: none.
    length: u8,
    bytes: [u8; WORD_BYTES_MAX],
}

impl Recent {
    const NONE: Recent = Recent { block: 0, length: 0, bytes: [0; WORD_BYTES_MAX] };

    fn is(&self, word: &[u8], block: u32) -> bool {
        self.block == block && &self.bytes[..usize::from(self.length)] == word
    }

    fn of(word: &[u8], block: u32) -> Recent {
        let mut recent = Recent { block, length: word.len() as u8, ..Recent::NONE };
        recent.bytes[..word.len()].copy_from_slice(word);
        recent
    }
}

/// Collects the terms of a text column.
pub struct TermsBuilder {
    recent: Box<[Recent]>,
    hasher: DefaultHashBuilder,
    table: HashTable<u32>,
    words: Vec<Word>,
    arena: Vec<u8>,
    hashes: HashesBuilder,
    opaque: Vec<u32>,
    /// Blocks with a run of letters that is longer than a word may be.
    overlong: Vec<u32>,
    lower: Vec<u8>,
}

impl Default for TermsBuilder {
    fn default() -> TermsBuilder {
        TermsBuilder {
            recent: vec![Recent::NONE; RECENT_WORDS].into(),
            hasher: DefaultHashBuilder::default(),
            table: HashTable::new(),
            words: Vec::new(),
            arena: Vec::new(),
            hashes: HashesBuilder::default(),
            opaque: Vec::new(),
            overlong: Vec::new(),
            lower: Vec::new(),
        }
    }
}

impl std::fmt::Debug for TermsBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TermsBuilder").field("words", &self.words.len()).finish_non_exhaustive()
    }
}

impl TermsBuilder {
    /// Adds a text that stands in `block`; blocks come in ascending order.
    pub fn add(&mut self, text: &str, block: u32) {
        if self.arena.len() > BLOB_BYTES_MAX {
            return;
        }
        let mut lower = std::mem::take(&mut self.lower);
        each_term(text.as_bytes(), &mut lower, |term| {
            if is_word(term.bytes) {
                return self.add_word(term.bytes, block);
            }
            self.hashes.add(term.bytes, block);
            push_new(&mut self.opaque, block);
            for run in letter_runs(term.bytes) {
                if run.len() <= WORD_BYTES_MAX {
                    self.add_word(run, block);
                } else {
                    push_new(&mut self.overlong, block);
                }
            }
        });
        self.lower = lower;
    }

    fn add_word(&mut self, word: &[u8], block: u32) {
        let hash = self.hasher.hash_one(word);
        let recent = &mut self.recent[hash as usize % RECENT_WORDS];
        if recent.is(word, block) {
            return;
        }
        *recent = Recent::of(word, block);
        let (arena, words) = (&self.arena, &self.words);
        let spelled = |at: &u32| {
            let known = &words[*at as usize];
            &arena[known.start as usize..][..known.length as usize] == word
        };
        if let Some(at) = self.table.find(hash, spelled) {
            let known = &mut self.words[*at as usize];
            if known.last_block != block {
                write_varint(block - known.last_block, &mut known.blocks);
                known.last_block = block;
            }
            return;
        }
        let (start, length) = (self.arena.len() as u32, word.len() as u32);
        self.arena.extend_from_slice(word);
        let mut blocks = Vec::new();
        write_varint(block, &mut blocks);
        self.words.push(Word { start, length, last_block: block, blocks });
        let (arena, words, hasher) = (&self.arena, &self.words, &self.hasher);
        self.table.insert_unique(hash, words.len() as u32 - 1, |at| {
            let known = &words[*at as usize];
            hasher.hash_one(&arena[known.start as usize..][..known.length as usize])
        });
    }

    /// The parts of the index; `None` when the texts are not made of words.
    pub fn finish(mut self, blocks: u32) -> Option<TermsParts> {
        if self.arena.len() > BLOB_BYTES_MAX {
            return None;
        }
        let arena = std::mem::take(&mut self.arena);
        let spelled = |word: &Word| &arena[word.start as usize..][..word.length as usize];
        self.words.sort_unstable_by(|a, b| spelled(a).cmp(spelled(b)));
        let (mut blob, mut lengths, mut postings) = (vec![b'\n'], Vec::new(), Vec::new());
        for word in &self.words {
            blob.extend_from_slice(spelled(word));
            blob.push(b'\n');
            write_varint(word.blocks.len() as u32, &mut lengths);
            postings.extend_from_slice(&word.blocks);
        }
        let set = |members: &[u32]| BlockSet::of(blocks, members);
        let (layout, hashes) = self.hashes.finish(blocks);
        Some(TermsParts {
            terms: Terms::new(blob, &lengths, postings, set(&self.opaque), set(&self.overlong), blocks)?,
            lengths,
            layout,
            hashes,
        })
    }
}

fn push_new(blocks: &mut Vec<u32>, block: u32) {
    if blocks.last() != Some(&block) {
        blocks.push(block);
    }
}

/// What a finished builder gives to be written.
#[derive(Debug)]
pub struct TermsParts {
    /// The words.
    pub terms: Terms,
    /// Lengths of the postings, as variable-length integers in the order of the words.
    pub lengths: Vec<u8>,
    /// How the hashes of opaque terms are laid out.
    pub layout: Layout,
    /// Those hashes.
    pub hashes: Vec<u8>,
}

/// The words of a text column of one segment, in memory.
#[derive(Debug, PartialEq, Eq)]
pub struct Terms {
    /// `\n`, then each word and `\n`; sorted.
    pub blob: Vec<u8>,
    /// The blocks of each word, one after the other.
    pub postings: Vec<u8>,
    /// Blocks that have an opaque term.
    pub opaque: BlockSet,
    /// Blocks that have a longer run of letters than a word may be.
    pub overlong: BlockSet,
    /// Where each word starts in `blob`, and at last its end.
    starts: Vec<u32>,
    /// Where the blocks of each word start in `postings`, and at last its end.
    posting_starts: Vec<u32>,
    blocks: u32,
}

/// What a needle says.
#[derive(Debug)]
pub enum Found {
    /// Nothing: any block may match.
    Any,
    /// Only these blocks can match.
    Blocks(BlockSet),
    /// Only blocks of the set that also have all of these opaque terms.
    Also(BlockSet, Vec<Vec<u8>>),
}

impl Terms {
    /// Puts the parts together; `None` when they do not fit together.
    pub fn new(
        blob: Vec<u8>,
        lengths: &[u8],
        postings: Vec<u8>,
        opaque: BlockSet,
        overlong: BlockSet,
        blocks: u32,
    ) -> Option<Terms> {
        let starts: Vec<u32> = memchr::memchr_iter(b'\n', &blob).map(|at| at as u32 + 1).collect();
        let mut posting_starts = vec![0];
        let (mut rest, mut end) = (lengths, 0_u32);
        while !rest.is_empty() {
            end = end.checked_add(read_varint(&mut rest)?)?;
            posting_starts.push(end);
        }
        let whole = blob.first() == Some(&b'\n')
            && blob.last() == Some(&b'\n')
            && posting_starts.len() == starts.len()
            && end as usize == postings.len();
        whole.then_some(Terms { blob, postings, opaque, overlong, starts, posting_starts, blocks })
    }

    /// Which blocks can hold the needle.
    pub fn find(&self, needle: &Needle) -> Found {
        let (mut set, mut opaque_terms, mut known) = (BlockSet::full(self.blocks), Vec::new(), false);
        let mut lower = Vec::new();
        each_term(needle.text.as_bytes(), &mut lower, |term| {
            // What stands beyond ASCII has other forms in another case, even of another length.
            if set.is_empty() || (needle.any_case && term.beyond_ascii) {
                return;
            }
            let open_start = term.first && !needle.at_start;
            let open_end = term.last && !needle.at_end;
            if !open_start && !open_end && !is_word(term.bytes) {
                opaque_terms.push(term.bytes.to_vec());
                known = true;
            } else if let Some(found) = self.find_part(term.bytes, open_start, open_end) {
                set.intersect(&found);
                known = true;
            }
        });
        match (known, opaque_terms.is_empty()) {
            (false, _) => Found::Any,
            (true, true) => Found::Blocks(set),
            (true, false) => Found::Also(set, opaque_terms),
        }
    }

    /// The blocks that have a term of which `part` is the whole, the start, the end or anything; `None`: nearly all.
    fn find_part(&self, part: &[u8], open_start: bool, open_end: bool) -> Option<BlockSet> {
        let mut set = if open_start || open_end {
            self.find_hidden(part, open_start, open_end)
        } else {
            BlockSet::empty(self.blocks)
        };
        if set.is_full() && self.blocks > 0 {
            return None;
        }
        self.unite_words(part, open_start, open_end, &mut set).then_some(set)
    }

    /// The blocks with an opaque term that `part` may be a part of: all that have one, unless `part` has letters that
    /// tell, which are words.
    fn find_hidden(&self, part: &[u8], open_start: bool, open_end: bool) -> BlockSet {
        if part.len() >= RUN_BYTES_MIN && part.iter().all(|byte| KINDS[usize::from(*byte)] != DIGIT) {
            // Its run of letters in an opaque term is a word, and found as one, unless it is too long.
            return self.overlong.clone();
        }
        let mut hidden = self.opaque.clone();
        let mut at = 0;
        for run in part.split(|byte| KINDS[usize::from(*byte)] == DIGIT) {
            let (first, last) = (at == 0, at + run.len() == part.len());
            at += run.len() + 1;
            if run.len() < RUN_BYTES_MIN {
                continue;
            }
            let mut with_run = self.overlong.clone();
            if self.unite_words(run, first && open_start, last && open_end, &mut with_run) {
                hidden.intersect(&with_run);
            }
        }
        hidden
    }

    /// Adds the blocks of the words of which `part` is the whole, the start, the end or anything; `false`: too many.
    fn unite_words(&self, part: &[u8], open_start: bool, open_end: bool, set: &mut BlockSet) -> bool {
        let mut framed = Vec::with_capacity(part.len() + 2);
        framed.extend((!open_start).then_some(b'\n'));
        framed.extend_from_slice(part);
        framed.extend((!open_end).then_some(b'\n'));
        let mut next = 0;
        for (found, place) in memchr::memmem::find_iter(&self.blob, &framed).enumerate() {
            if found >= MATCHES_MAX {
                return false;
            }
            // The blob begins with '\n', so a framed part may start one byte before its word.
            let inside = place as u32 + u32::from(!open_start);
            let at = self.starts.partition_point(|start| *start <= inside) - 1;
            if at >= next {
                self.unite_blocks(at, set);
                next = at + 1;
            }
        }
        true
    }

    fn unite_blocks(&self, word: usize, set: &mut BlockSet) {
        let mut rest = &self.postings[self.posting_starts[word] as usize..self.posting_starts[word + 1] as usize];
        let mut block = 0_u32;
        while let Some(difference) = read_varint(&mut rest) {
            block = block.saturating_add(difference);
            set.insert(block);
        }
    }
}

fn write_varint(mut value: u32, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_varint(bytes: &mut &[u8]) -> Option<u32> {
    let mut value = 0;
    for shift in (0..32).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn build(blocks: &[&[&str]]) -> TermsParts {
        let mut builder = TermsBuilder::default();
        for (block, texts) in blocks.iter().enumerate() {
            texts.iter().for_each(|text| builder.add(text, block as u32));
        }
        builder.finish(blocks.len() as u32).unwrap()
    }

    fn look_up(parts: &TermsParts, needle: &Needle) -> BlockSet {
        let in_hashes = |term: &[u8]| {
            let (bucket, wanted) = parts.layout.place(term);
            let end = |at: usize| u32::from_le_bytes(parts.hashes[at * 4..at * 4 + 4].try_into().unwrap()) as usize;
            let start = if bucket == 0 { 0 } else { end(bucket - 1) };
            let mut found = BlockSet::empty(parts.terms.blocks);
            let bodies = &parts.hashes[parts.layout.ends_bytes()..];
            parts.layout.read_bucket(&bodies[start..end(bucket)], wanted, &mut found).unwrap();
            found
        };
        match parts.terms.find(needle) {
            Found::Any => BlockSet::full(parts.terms.blocks),
            Found::Blocks(set) => set,
            Found::Also(mut set, terms) => {
                terms.iter().for_each(|term| set.intersect(&in_hashes(term)));
                set
            }
        }
    }

    const BLOCKS: [&[&str]; 4] = [
        &["payment declined for order 123456789: card expired", "Connection timed out after 30s"],
        &["blk_-1608999687919862906 received", "user Ünal logged in on node17"],
        &["GET /api/v1/items/9f86d081884c7d659a2f 200", "declining"],
        &["", "...", "x=1"],
    ];

    fn check(needle: Needle, expect: &[u32]) {
        assert_eq!(look_up(&build(&BLOCKS), &needle).iter().collect::<Vec<_>>(), expect, "{needle:?}");
    }

    #[test]
    fn parts_of_words_are_found() {
        check(Needle::anywhere("declin"), &[0, 2]);
        check(Needle::anywhere("declined for"), &[0]);
        check(Needle::anywhere("ment declined f"), &[0]);
        check(Needle::anywhere("onnection timed"), &[0]);
        check(Needle::anywhere("zebra"), &[]);
        check(Needle::anywhere("node17"), &[1]);
        check(Needle::anywhere(" node17"), &[1]);
        check(Needle { at_end: true, ..Needle::anywhere(" node17") }, &[1]);
        check(Needle { at_start: true, ..Needle::anywhere("declin") }, &[0, 2]);
        check(Needle::anywhere("..."), &[0, 1, 2, 3]);
    }

    #[test]
    fn opaque_terms_are_found_whole_and_their_parts_are_not_missed() {
        check(Needle::anywhere("_-1608999687919862906 "), &[1]);
        check(Needle::anywhere("order 123456789:"), &[0]);
        check(Needle::anywhere("order 12345"), &[0]);
        check(Needle::anywhere("86d081884c"), &[0, 1, 2]);
        let rare = build(&[&["zxq7rareneedle42"], &["deadbeef1234567"], &["plain"]]);
        let found = |text: &str| look_up(&rare, &Needle::anywhere(text)).iter().collect::<Vec<_>>();
        assert_eq!(found("zxq7rareneedle42"), [0]);
        assert_eq!(found("7rareneedle4"), [0]);
        assert_eq!(found("7needle4"), [0_u32; 0]);
    }

    #[test]
    fn case_does_not_hide_anything() {
        check(Needle { any_case: true, ..Needle::anywhere("CONNECTION TIMED") }, &[0]);
        check(Needle { any_case: true, ..Needle::anywhere("ünal logged") }, &[1]);
        let kelvin = build(&[&["300 \u{212a}elvin"], &["nothing"]]);
        let needle = Needle { any_case: true, ..Needle::anywhere("kelvin") };
        assert_eq!(look_up(&kelvin, &needle).iter().collect::<Vec<_>>(), [0]);
    }

    proptest! {
        #[test]
        fn no_block_that_holds_the_needle_is_missed(
            texts in prop::collection::vec("[a-c1-3X_ .é]{0,60}", 1..12),
            from in 0_usize..40, length in 1_usize..30, any_case: bool,
        ) {
            let blocks: Vec<Vec<&str>> = texts.iter().map(|text| vec![text.as_str()]).collect();
            let blocks: Vec<&[&str]> = blocks.iter().map(Vec::as_slice).collect();
            let parts = build(&blocks);
            for text in &texts {
                let chars: Vec<char> = text.chars().collect();
                let end = (from + length).min(chars.len());
                if from >= end { continue; }
                let cut: String = chars[from..end].iter().collect();
                let cut = if any_case { cut.to_uppercase() } else { cut };
                let needle = Needle { at_start: from == 0, at_end: end == chars.len(), any_case, text: cut };
                let found = look_up(&parts, &needle);
                for (block, other) in texts.iter().enumerate() {
                    let (hay, cut) = if any_case {
                        (other.to_lowercase(), needle.text.to_lowercase())
                    } else {
                        (other.clone(), needle.text.clone())
                    };
                    let holds = match (needle.at_start, needle.at_end) {
                        (true, true) => hay == cut,
                        (true, false) => hay.starts_with(&cut),
                        (false, true) => hay.ends_with(&cut),
                        (false, false) => hay.contains(&cut),
                    };
                    prop_assert!(!holds || found.contains(block as u32), "{needle:?} in {other:?}");
                }
            }
        }
    }
}
