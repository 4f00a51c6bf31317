//! `quiver backup`: first the write-ahead log, then the catalog, then the segments it names. What was acknowledged before
//! the start is in the log's copy, or in segments of the catalog that was read after it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hasher;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use tempfile::TempDir;
use twox_hash::XxHash64;

use super::manifest::{self, Manifest};
use super::progress::Progress;
use super::{BackupArguments, Error, file_error, layout, open_target, size_text};
use crate::storage::inspect::{self, CatalogCopy};
use crate::storage::remote::{self, Remote};
use crate::storage::{Segment, cache};
use crate::wal;

/// Segments copied at once.
const COPIED_AT_ONCE: usize = 4;
/// The catalog is read again this often when a segment vanished: each time, a compaction or expiry came between.
const READS_OF_CATALOG_MAX: usize = 10;
/// The end of a segment that tells whose it is: the footer has sizes and extremes of all columns.
const TAIL_BYTES: u64 = 64 << 10;

/// Makes a backup; the text says what was done.
pub async fn backup(arguments: &BackupArguments) -> Result<String, Error> {
    if arguments.keep == Some(0) {
        return Err(Error::Flag("--keep 0 would remove the backup just made; keep at least 1".to_owned()));
    }
    let data_dir = &arguments.place.data_dir;
    let id = Manifest::new_id(Timestamp::now());
    // A data directory that is none is told before anything is made at the target.
    drop(CatalogCopy::of(data_dir).await?);
    let target = open_target(&arguments.to)?;
    let wal = copy_wal(data_dir, &target, &id).await?;
    let mut copier = Copier::new(data_dir, &target).await?;
    let (catalog, segments) = copier.copy_live_segments().await?;

    let mut manifest = Manifest::new(id, Timestamp::now());
    manifest.segments = catalog.segments.len() as u64;
    manifest.records = catalog.segments.iter().map(|segment| segment.records).sum();
    let copied = target.put(&layout::object(&manifest.id, layout::CATALOG), &catalog.file).await?;
    manifest.files = segments;
    manifest.files.extend(wal);
    manifest.files.push(file_of(layout::CATALOG.to_owned(), &copied));
    manifest.completed = Timestamp::now();
    manifest.write(&target).await?;

    let mut text = format!(
        "backup {} is complete: {} segments with {} records, {}; {} files with {} were new\n",
        manifest.id,
        manifest.segments,
        manifest.records,
        size_text(manifest.bytes()),
        copier.new_files,
        size_text(copier.new_bytes)
    );
    if let Some(keep) = arguments.keep {
        let removed = prune(&target, keep).await?;
        text.push_str(&format!("removed {} older backups and {} files\n", removed.backups, removed.files));
    }
    Ok(text)
}

fn file_of(path: String, copied: &remote::Copied) -> manifest::File {
    manifest::File { path, bytes: copied.bytes, xxh64: manifest::hex(copied.xxh64), tail_xxh64: None }
}

/// Copies the log's files up to their last whole frame. One that vanishes meanwhile is in segments by then.
async fn copy_wal(data_dir: &Path, target: &Remote, id: &str) -> Result<Vec<manifest::File>, Error> {
    let mut files = Vec::new();
    for file in inspect::wal_files(data_dir)? {
        let mut read = match wal::read_file(&file, drop) {
            Err(wal::Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => continue,
            read => read?,
        };
        if read.is_damaged() {
            eprintln!("warning: '{}' is damaged; its frames before byte {} are kept", file.display(), read.whole_bytes);
        }
        if read.whole_bytes == 0 {
            continue;
        }
        read.bytes.truncate(read.whole_bytes);
        let path = layout::wal(&file);
        let copied = remote::Copied { bytes: read.bytes.len() as u64, xxh64: XxHash64::oneshot(0, &read.bytes) };
        target.put_bytes(&layout::object(id, &path), Bytes::from(read.bytes)).await?;
        files.push(file_of(path, &copied));
    }
    Ok(files)
}

/// Brings segments to the target that are not there yet.
struct Copier<'a> {
    data_dir: &'a Path,
    target: &'a Remote,
    /// Shared files of earlier backups, as the newest names them.
    known: HashMap<String, manifest::File>,
    /// What is in the target, with its size.
    present: BTreeMap<String, u64>,
    /// Where segments are that are not in the data directory, and the room for one on its way from there.
    elsewhere: Option<Remote>,
    room: TempDir,
    new_files: u64,
    new_bytes: u64,
}

/// What became of one file.
enum Outcome {
    Reused(manifest::File),
    Uploaded(manifest::File),
    Vanished,
}

impl<'a> Copier<'a> {
    async fn new(data_dir: &'a Path, target: &'a Remote) -> Result<Copier<'a>, Error> {
        let earlier = Manifest::all(target).await?;
        let shared = earlier.into_iter().flat_map(|manifest| manifest.files);
        let known = shared.filter(|file| layout::is_shared(&file.path)).map(|file| (file.path.clone(), file)).collect();
        let listed = target.list(layout::SEGMENTS).await?;
        let present = listed.into_iter().map(|(object, found)| (object, found.bytes)).collect();
        let elsewhere = cache::elsewhere(data_dir)?;
        let room = TempDir::with_prefix("quiver-backup-").map_err(file_error("create", &std::env::temp_dir()))?;
        Ok(Copier { data_dir, target, known, present, elsewhere, room, new_files: 0, new_bytes: 0 })
    }

    /// Copies what one reading of the catalog names. A segment that is gone from the disk was replaced or expired, and a
    /// later catalog says so.
    async fn copy_live_segments(&mut self) -> Result<(CatalogCopy, Vec<manifest::File>), Error> {
        let mut vanished = String::new();
        for _ in 0..READS_OF_CATALOG_MAX {
            let catalog = CatalogCopy::of(self.data_dir).await?;
            let mut paths = Vec::new();
            for segment in &catalog.segments {
                let path = layout::segment(&segment.path);
                let index = layout::index_of(&path);
                let has_index = self.data_dir.join(&index).is_file();
                paths.push((path, Some(segment)));
                paths.extend(has_index.then_some((index, None)));
            }
            let progress = Progress::new("backup", catalog.segments.iter().map(|segment| segment.bytes).sum());
            match self.copy_all(paths, &progress).await? {
                Ok(files) => return Ok((catalog, files)),
                Err(path) => vanished = path,
            }
        }
        Err(Error::Vanished(vanished))
    }

    /// The files as they are in the target now; `Err` with the path of one that is gone from the data directory.
    async fn copy_all<'s>(
        &mut self,
        paths: Vec<(String, Option<&'s Segment>)>,
        progress: &Progress,
    ) -> Result<Result<Vec<manifest::File>, String>, Error> {
        let copier = &*self;
        let copy = |(path, segment): (String, Option<&'s Segment>)| async move {
            let outcome = copier.copy(&path, segment).await?;
            if let Outcome::Reused(file) | Outcome::Uploaded(file) = &outcome {
                progress.done(file.bytes);
            }
            Ok::<_, Error>((path, outcome))
        };
        let outcomes: Vec<(String, Outcome)> =
            futures::stream::iter(paths).map(copy).buffered(COPIED_AT_ONCE).try_collect().await?;
        let (mut files, mut vanished) = (Vec::with_capacity(outcomes.len()), None);
        for (path, outcome) in outcomes {
            match outcome {
                Outcome::Vanished => vanished = Some(path),
                Outcome::Reused(file) => files.push(file),
                Outcome::Uploaded(file) => {
                    self.new_files += 1;
                    self.new_bytes += file.bytes;
                    self.present.insert(path.clone(), file.bytes);
                    self.known.insert(path, file.clone());
                    files.push(file);
                }
            }
        }
        Ok(vanished.map_or(Ok(files), Err))
    }

    async fn copy(&self, path: &str, segment: Option<&Segment>) -> Result<Outcome, Error> {
        let bytes = segment.map(|segment| segment.bytes);
        let local = self.data_dir.join(path);
        match (&self.elsewhere, segment) {
            (Some(elsewhere), Some(segment)) if !local.exists() => {
                let known = self.known.get(path).filter(|known| Some(known.bytes) == bytes);
                if let Some(known) = known.filter(|known| self.present.get(path) == Some(&known.bytes)) {
                    return Ok(Outcome::Reused(known.clone()));
                }
                let fetched = self.room.path().join(segment.id.to_string());
                match elsewhere.fetch(&cache::object_of(segment), &fetched).await {
                    Err(remote::Error::NotFound { .. }) => return Ok(Outcome::Vanished),
                    copied => {
                        copied?;
                    }
                }
                let outcome = self.copy_file(path, &fetched, bytes).await;
                std::fs::remove_file(&fetched).map_err(file_error("remove", &fetched))?;
                outcome
            }
            _ => self.copy_file(path, &local, bytes).await,
        }
    }

    async fn copy_file(&self, path: &str, local: &Path, bytes: Option<u64>) -> Result<Outcome, Error> {
        let (found_bytes, tail) = match tail_of(local) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Outcome::Vanished),
            Err(error) => return Err(file_error("read", local)(error)),
        };
        if let Some(bytes) = bytes.filter(|bytes| *bytes != found_bytes) {
            let reason = format!("it has {found_bytes} bytes, the catalog says {bytes}");
            return Err(Error::Damaged { path: local.display().to_string(), reason });
        }
        let tail = Some(manifest::hex(tail));
        if let Some(known) = self.known.get(path).filter(|_| self.present.contains_key(path)) {
            if known.bytes != found_bytes || known.tail_xxh64 != tail {
                return Err(Error::OtherStore { place: self.target.place().to_owned(), path: path.to_owned() });
            }
            if self.present.get(path) == Some(&known.bytes) {
                return Ok(Outcome::Reused(known.clone()));
            }
        }
        match self.target.put(path, local).await {
            Ok(copied) => {
                Ok(Outcome::Uploaded(manifest::File { tail_xxh64: tail, ..file_of(path.to_owned(), &copied) }))
            }
            Err(remote::Error::File { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(Outcome::Vanished),
            Err(error) => Err(error.into()),
        }
    }
}

/// Size of a file, and the checksum of its end.
fn tail_of(path: &Path) -> std::io::Result<(u64, u64)> {
    let mut file = std::fs::File::open(path)?;
    let bytes = file.metadata()?.len();
    file.seek(SeekFrom::Start(bytes.saturating_sub(TAIL_BYTES)))?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail)?;
    let mut hash = XxHash64::with_seed(0);
    hash.write(&tail);
    Ok((bytes, hash.finish()))
}

struct Removed {
    backups: usize,
    files: usize,
}

/// Removes all but the newest `keep` backups, then every file that none of those names. A manifest goes before its files.
async fn prune(target: &Remote, keep: usize) -> Result<Removed, Error> {
    let mut kept = Manifest::all(target).await?;
    let old: Vec<Manifest> = kept.drain(..kept.len().saturating_sub(keep)).collect();
    for manifest in &old {
        target.delete(&layout::manifest(&manifest.id)).await?;
    }
    let named: BTreeSet<String> = kept
        .iter()
        .flat_map(|manifest| manifest.files.iter().map(|file| layout::object(&manifest.id, &file.path)))
        .collect();
    let mut files = 0;
    for place in [layout::BACKUPS, layout::SEGMENTS] {
        for object in target.list(place).await?.into_keys().filter(|object| !named.contains(object)) {
            target.delete(&object).await?;
            files += 1;
        }
    }
    Ok(Removed { backups: old.len(), files })
}
