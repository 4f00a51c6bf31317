//! The write-ahead log: opaque, checksummed frames in files, and the one place that says "safe". It knows neither
//! records nor tenants; a frame is numbered by the sequence number of the first record in it.
//!
//! **Invariant**: after [`Wal::sync`] returned `Ok`, every frame appended before it is read back by [`replay`], whatever
//! happens to the process or the power. A failed `fsync` is final (the kernel may have dropped the pages): the log
//! refuses further work until it is opened anew.
//!
//! On disk, little endian: a file header `QVRWAL01`, then frames of
//! `magic u32 · payload length u32 · rows u32 · first sequence number u64 · crc32 u32 · payload`;
//! the checksum covers everything before it and the payload.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const FILE_MAGIC: &[u8; 8] = b"QVRWAL01";
const FRAME_MAGIC: u32 = 0x5146_4d31;
const FRAME_HEADER_BYTES: usize = 24;
/// A frame larger than this is not one of ours: the length field is damaged.
const FRAME_BYTES_MAX: usize = 1 << 30;

/// What the log can answer instead of success.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk is full; nothing of the failed frames is left in the log, and it works again when space is back.
    #[error("no space left for the write-ahead log '{path}'")]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// An `fsync` or a write failed for good; the log refuses work until the store is started again.
    #[error(
        "the write-ahead log '{path}' can't be written any more: {source}; restart the store once the disk is well"
    )]
    Broken {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file or directory can't be read or made.
    #[error("can't {action} '{path}': {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// One frame as it was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Sequence number of its first record.
    pub first_seq: u64,
    /// How many records it holds.
    pub rows: u32,
    /// The bytes given to [`Wal::append`].
    pub payload: Vec<u8>,
}

/// A part of a file that could not be read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The file.
    pub path: PathBuf,
    /// Where the first unreadable frame starts.
    pub offset: u64,
    /// Bytes from there to the next readable frame, or the end of the file.
    pub bytes: u64,
}

/// The open log: one file that grows, and older ones that wait for [`Wal::remove_before`].
#[derive(Debug)]
pub struct Wal {
    dir: PathBuf,
    path: PathBuf,
    file: File,
    /// Bytes of the file that are known to be on disk.
    synced_bytes: u64,
    pending: Vec<u8>,
    broken: bool,
}

impl Wal {
    /// Starts a new file for records from `next_seq` on; older files stay as they are.
    pub fn open(dir: &Path, next_seq: u64) -> Result<Wal, Error> {
        let failed = |source| Error::Io { action: "create", path: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        // The directory's own name must be safe before a frame in it is.
        if let Some(parent) = dir.parent() {
            File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)?;
        }
        let (path, file) = create_file(dir, next_seq)?;
        Ok(Wal {
            dir: dir.to_owned(),
            path,
            file,
            synced_bytes: FILE_MAGIC.len() as u64,
            pending: Vec::new(),
            broken: false,
        })
    }

    /// Adds a frame to those that the next [`Wal::sync`] makes safe. The payload is the concatenation of `parts`.
    pub fn append(&mut self, first_seq: u64, rows: u32, parts: &[&[u8]]) {
        let payload_bytes: usize = parts.iter().map(|part| part.len()).sum();
        assert!(payload_bytes <= FRAME_BYTES_MAX, "a frame is limited by the request that made it");
        let start = self.pending.len();
        self.pending.extend_from_slice(&FRAME_MAGIC.to_le_bytes());
        self.pending.extend_from_slice(&(payload_bytes as u32).to_le_bytes());
        self.pending.extend_from_slice(&rows.to_le_bytes());
        self.pending.extend_from_slice(&first_seq.to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(&self.pending[start..]);
        parts.iter().for_each(|part| crc.update(part));
        self.pending.extend_from_slice(&crc.finalize().to_le_bytes());
        parts.iter().for_each(|part| self.pending.extend_from_slice(part));
    }

    /// Bytes appended and not yet synced.
    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// Writes and fsyncs what was appended: the group commit. After an error none of it counts as appended.
    ///
    /// **Errors**: [`Error::Full`] leaves the log usable; [`Error::Broken`] is final.
    pub fn sync(&mut self) -> Result<(), Error> {
        if self.broken {
            self.pending.clear();
            let source = io::Error::other("an earlier write failed");
            return Err(Error::Broken { path: self.path.clone(), source });
        }
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return Ok(());
        }
        if let Err(source) = self.file.write_all(&pending) {
            return Err(self.undo_write(source));
        }
        if let Err(source) = self.file.sync_data() {
            self.broken = true;
            return Err(Error::Broken { path: self.path.clone(), source });
        }
        self.synced_bytes += pending.len() as u64;
        self.pending = pending;
        self.pending.clear();
        Ok(())
    }

    /// Cuts a half-written group off again, so that a full disk leaves no torn frame in the middle of the file.
    fn undo_write(&mut self, source: io::Error) -> Error {
        let undone =
            self.file.set_len(self.synced_bytes).and_then(|()| self.file.seek(SeekFrom::Start(self.synced_bytes)));
        let path = self.path.clone();
        match (undone, source.kind()) {
            (Ok(_), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => Error::Full { path },
            _ => {
                self.broken = true;
                Error::Broken { path, source }
            }
        }
    }

    /// Continues in a new file, so that the present one can go once its records are in segments.
    pub fn rotate(&mut self, next_seq: u64) -> Result<(), Error> {
        assert!(self.pending.is_empty(), "rotation comes after a sync");
        let (path, file) = create_file(&self.dir, next_seq)?;
        (self.path, self.file, self.synced_bytes) = (path, file, FILE_MAGIC.len() as u64);
        Ok(())
    }

    /// Unlinks the files whose records all lie below `low_water`.
    pub fn remove_before(&self, low_water: u64) -> Result<(), Error> {
        let files = list_files(&self.dir)?;
        // A file ends where the next one starts, so the last one is never removed.
        for pair in files.windows(2) {
            if pair[1].0 <= low_water && pair[0].1 != self.path {
                fs::remove_file(&pair[0].1).map_err(|source| Error::Io {
                    action: "remove",
                    path: pair[0].1.clone(),
                    source,
                })?;
            }
        }
        Ok(())
    }
}

/// What the files of the log take of the disk; 0 where they can't be looked at.
pub fn disk_bytes(dir: &Path) -> u64 {
    let files = list_files(dir).unwrap_or_default();
    files.iter().filter_map(|(_, path)| fs::metadata(path).ok()).map(|found| found.len()).sum()
}

/// Reads every whole frame from `low_water` on, oldest first, and says what could not be read. Behind a damaged frame it
/// goes on with the next one that has its checksum.
pub fn replay(dir: &Path, low_water: u64, mut each: impl FnMut(Frame)) -> Result<Vec<Loss>, Error> {
    let mut losses = Vec::new();
    if !dir.exists() {
        return Ok(losses);
    }
    for (_, path) in list_files(dir)? {
        let mut wanted = |frame: Frame| {
            if frame.first_seq >= low_water {
                each(frame);
            }
        };
        let read = read_file(&path, &mut wanted)?;
        let mut at = read.whole_bytes;
        while at < read.bytes.len() {
            let next = next_frame(&read.bytes, at);
            let (offset, bytes) = (at as u64, (next.unwrap_or(read.bytes.len()) - at) as u64);
            losses.push(Loss { path: path.clone(), offset, bytes });
            at = next.unwrap_or(read.bytes.len());
            while let Some((frame, frame_bytes)) = read_frame(&read.bytes[at..]) {
                at += frame_bytes;
                wanted(frame);
            }
        }
    }
    Ok(losses)
}

/// The log's files, oldest first; none when the directory is not there.
pub fn files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    Ok(list_files(dir)?.into_iter().map(|(_, path)| path).collect())
}

/// One file of the log, as far as it can be read.
#[derive(Debug)]
pub struct Read {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Where its last readable frame ends; 0 when not even the file's header is whole.
    pub whole_bytes: usize,
}

impl Read {
    /// Whether what can't be read is more than the torn end that a crash, or a write that still runs, leaves behind: a
    /// frame that is all there but wrong, or readable frames behind the unreadable place.
    pub fn is_damaged(&self) -> bool {
        let rest = &self.bytes[self.whole_bytes..];
        if self.whole_bytes == 0 {
            return rest.len() >= FILE_MAGIC.len();
        }
        let ends_inside = match rest.get(..FRAME_HEADER_BYTES) {
            None => true,
            Some(header) => {
                let payload_bytes = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
                header.starts_with(&FRAME_MAGIC.to_le_bytes()) && payload_bytes > rest.len() - FRAME_HEADER_BYTES
            }
        };
        let magic = FRAME_MAGIC.to_le_bytes();
        let mut behind = memchr::memmem::find_iter(rest, &magic);
        !ends_inside || behind.any(|at| read_frame(&rest[at..]).is_some())
    }
}

/// Reads one file of the log, also while it grows; `each` gets every frame before the first unreadable place.
pub fn read_file(path: &Path, mut each: impl FnMut(Frame)) -> Result<Read, Error> {
    let mut bytes = Vec::new();
    let failed = |source| Error::Io { action: "read", path: path.to_owned(), source };
    File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(failed)?;
    let mut whole_bytes = if bytes.starts_with(FILE_MAGIC) { FILE_MAGIC.len() } else { 0 };
    while let Some((frame, frame_bytes)) = read_frame(&bytes[whole_bytes..]).filter(|_| whole_bytes > 0) {
        whole_bytes += frame_bytes;
        each(frame);
    }
    Ok(Read { bytes, whole_bytes })
}

/// Where the next whole frame after `from` starts.
fn next_frame(bytes: &[u8], from: usize) -> Option<usize> {
    let magic = FRAME_MAGIC.to_le_bytes();
    let mut places = memchr::memmem::find_iter(&bytes[from..], &magic).map(|at| from + at);
    places.find(|at| *at > from && read_frame(&bytes[*at..]).is_some())
}

/// The frame at the start of `bytes`, and its size on disk; `None` when it is not whole.
fn read_frame(bytes: &[u8]) -> Option<(Frame, usize)> {
    let header = bytes.get(..FRAME_HEADER_BYTES)?;
    let u32_at = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let payload_bytes = u32_at(4) as usize;
    if u32_at(0) != FRAME_MAGIC || payload_bytes > FRAME_BYTES_MAX {
        return None;
    }
    let payload = bytes.get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + payload_bytes)?;
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[..20]);
    crc.update(payload);
    if crc.finalize() != u32_at(20) {
        return None;
    }
    let first_seq = u64::from(u32_at(12)) | u64::from(u32_at(16)) << 32;
    let frame = Frame { first_seq, rows: u32_at(8), payload: payload.to_vec() };
    Some((frame, FRAME_HEADER_BYTES + payload_bytes))
}

fn create_file(dir: &Path, next_seq: u64) -> Result<(PathBuf, File), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { action: "create", path, source }
    };
    let path = dir.join(format!("{next_seq:020}.wal"));
    // A file of this name has no readable frame: two files can't start with the same record. If there is more in it than
    // a header, it is kept for whoever wants to look.
    if fs::metadata(&path).is_ok_and(|found| found.len() > FILE_MAGIC.len() as u64) {
        let aside = path.with_extension("wal.damaged");
        fs::rename(&path, &aside).map_err(failed(&aside))?;
    }
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&path).map_err(failed(&path))?;
    file.write_all(FILE_MAGIC).and_then(|()| file.sync_all()).map_err(failed(&path))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed(dir))?;
    Ok((path, file))
}

/// The log's files with the sequence number each starts at, oldest first.
fn list_files(dir: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    let failed = |source| Error::Io { action: "list", path: dir.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let stem = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".wal"));
        if let Some(first_seq) = stem.and_then(|stem| stem.parse().ok()) {
            files.push((first_seq, path));
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(dir: &Path, low_water: u64) -> (Vec<Frame>, Vec<Loss>) {
        let mut frames = Vec::new();
        let losses = replay(dir, low_water, |frame| frames.push(frame)).unwrap();
        (frames, losses)
    }

    fn frame(first_seq: u64, payload: &[u8]) -> Frame {
        Frame { first_seq, rows: 2, payload: payload.to_vec() }
    }

    #[test]
    fn frames_come_back_in_order_over_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut wal = Wal::open(dir.path(), 0).unwrap();
        wal.append(0, 2, &[b"one", b"!"]);
        wal.append(2, 2, &[b"two"]);
        wal.sync().unwrap();
        wal.rotate(4).unwrap();
        wal.append(4, 2, &[b"three"]);
        wal.sync().unwrap();
        let all = vec![frame(0, b"one!"), frame(2, b"two"), frame(4, b"three")];
        assert_eq!(read_all(dir.path(), 0), (all.clone(), vec![]));
        assert_eq!(read_all(dir.path(), 2), (all[1..].to_vec(), vec![]));
        wal.remove_before(3).unwrap();
        assert_eq!(list_files(dir.path()).unwrap().len(), 2);
        wal.remove_before(4).unwrap();
        assert_eq!(read_all(dir.path(), 0), (all[2..].to_vec(), vec![]));
    }

    #[test]
    fn a_broken_log_refuses_everything_and_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut wal = Wal::open(dir.path(), 0).unwrap();
        wal.append(0, 2, &[b"first"]);
        wal.sync().unwrap();
        // A device that is always full, and that can't be cut back either.
        wal.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        for first_seq in [2, 4] {
            wal.append(first_seq, 2, &[b"never"]);
            assert!(matches!(wal.sync(), Err(Error::Broken { .. })));
            assert_eq!(wal.pending_bytes(), 0);
        }
        wal.rotate(2).unwrap();
        wal.append(2, 2, &[b"never"]);
        assert!(matches!(wal.sync(), Err(Error::Broken { .. })), "a new file does not make it well");
        assert_eq!(read_all(dir.path(), 0).0, vec![frame(0, b"first")]);
    }

    #[test]
    fn a_log_cut_at_any_byte_gives_back_the_whole_frames_before_the_cut() {
        let dir = tempfile::tempdir().unwrap();
        let mut wal = Wal::open(dir.path(), 0).unwrap();
        wal.append(0, 2, &[b"first"]);
        wal.append(2, 2, &[b"second frame"]);
        wal.sync().unwrap();
        let path = list_files(dir.path()).unwrap().remove(0).1;
        let whole = fs::read(&path).unwrap();
        let ends = [8, 8 + 24 + 5, whole.len()];
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let (frames, losses) = read_all(dir.path(), 0);
            let expect = ends.iter().filter(|end| **end <= cut).count().saturating_sub(1);
            assert_eq!(frames.len(), expect, "cut at {cut}");
            let lost: u64 = losses.iter().map(|loss| loss.bytes).sum();
            let whole_end = ends.iter().rev().find(|end| **end <= cut).copied().unwrap_or(0);
            assert_eq!(lost, (cut - whole_end) as u64, "cut at {cut}");
        }
    }

    #[test]
    fn a_torn_end_is_no_damage_and_everything_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut wal = Wal::open(dir.path(), 0).unwrap();
        wal.append(0, 2, &[b"first"]);
        wal.append(2, 2, &[b"second frame"]);
        wal.sync().unwrap();
        let path = files(dir.path()).unwrap().remove(0);
        let whole = fs::read(&path).unwrap();
        let is_damaged = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            read_file(&path, drop).unwrap().is_damaged()
        };
        for cut in 0..whole.len() {
            assert!(!is_damaged(&whole[..cut]), "cut at {cut}");
        }
        // In the first frame every flipped bit is damage; in the last one, a length that grew looks like a torn end.
        for at in (8..37).chain(45..whole.len()) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            assert!(is_damaged(&damaged), "bit flipped at {at}");
        }
    }

    #[test]
    fn frames_behind_a_damaged_one_come_back_and_the_damaged_file_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut wal = Wal::open(dir.path(), 1).unwrap();
        wal.append(1, 2, &[b"first"]);
        wal.append(3, 2, &[b"second frame"]);
        wal.append(5, 2, &[b"third"]);
        wal.sync().unwrap();
        let path = list_files(dir.path()).unwrap().remove(0).1;
        let whole = fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        damaged[40] ^= 1;
        fs::write(&path, &damaged).unwrap();
        let (frames, losses) = read_all(dir.path(), 0);
        assert_eq!(frames, vec![frame(1, b"first"), frame(5, b"third")]);
        assert_eq!(losses, vec![Loss { path: path.clone(), offset: 37, bytes: 36 }]);

        fs::write(&path, &whole[..30]).unwrap();
        Wal::open(dir.path(), 1).unwrap();
        assert_eq!(fs::read(path.with_extension("wal.damaged")).unwrap(), &whole[..30]);
        assert_eq!(list_files(dir.path()).unwrap().len(), 1);
    }

    #[test]
    fn a_flipped_bit_is_found_and_reported_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let mut wal = Wal::open(dir.path(), 0).unwrap();
        wal.append(0, 2, &[b"first"]);
        wal.append(2, 2, &[b"second frame"]);
        wal.sync().unwrap();
        let path = list_files(dir.path()).unwrap().remove(0).1;
        let whole = fs::read(&path).unwrap();
        for at in 37..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            fs::write(&path, &damaged).unwrap();
            let (frames, losses) = read_all(dir.path(), 0);
            assert_eq!(frames, vec![frame(0, b"first")], "bit flipped at {at}");
            assert_eq!(losses, vec![Loss { path: path.clone(), offset: 37, bytes: whole.len() as u64 - 37 }]);
        }
    }
}
