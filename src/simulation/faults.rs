//! What happens to files: the picture of a directory at one moment, which is what a crash leaves; torn and damaged files;
//! directories that can't be written, a disk that is full where segments go, a catalog that refuses its transactions.
//! The store is the real one and knows of none of this. Nothing here depends on permissions, which root ignores.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Executor, Row};

use super::model::Outcome;
use super::random::Random;
use crate::storage::paths;
use crate::wal;

/// A directory that never stands still can't be pictured.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the object store is that a seed may have: in the data directory, so that a picture has both as they were.
pub(super) const OBJECTS: &str = "objects";

/// Ids of segments whose files the disk has no room for.
const FULL_IDS: i64 = 24;

/// What a catalog that refuses transactions has besides. Only the last has the commit itself fail; the others end a
/// transaction that has done a part of its work.
const REFUSALS: [&str; 3] = [
    "CREATE TRIGGER injected BEFORE INSERT ON segment BEGIN SELECT RAISE(ABORT, 'injected'); END;",
    "CREATE TRIGGER injected BEFORE UPDATE OF low_water ON store BEGIN SELECT RAISE(ABORT, 'injected'); END;",
    "CREATE TABLE injected_parent (id BIGINT PRIMARY KEY);
     CREATE TABLE injected_child (id BIGINT REFERENCES injected_parent (id) DEFERRABLE INITIALLY DEFERRED);
     CREATE TRIGGER injected AFTER INSERT ON segment BEGIN INSERT INTO injected_child VALUES (1); END;",
];
const NO_REFUSAL: &str = "DROP TRIGGER IF EXISTS injected;
     DROP TABLE IF EXISTS injected_child;
     DROP TABLE IF EXISTS injected_parent;";

/// A file as two looks have to find it.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// Never changed once it has its name: the file itself.
    Segment { inode: u64, bytes: u64 },
    /// Log and catalog: what stands in it.
    Content(Vec<u8>),
}

/// Makes `to` what `from` was at one moment, while threads write into it. Two looks find the same, and all files only
/// grow or come and go, so between the two all of them were as they were seen.
pub(super) fn picture(from: &Path, to: &Path) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match try_picture(from, to) {
            Ok(true) => return Ok(()),
            // A file went away between two looks.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(format!("no picture: {error}")),
            _ => {}
        }
        if Instant::now() > deadline {
            return Err("the directory never stands still".to_owned());
        }
        fs::remove_dir_all(to).map_err(|error| format!("no picture: {error}"))?;
    }
}

fn try_picture(from: &Path, to: &Path) -> io::Result<bool> {
    let first = look(from, Some(to))?;
    Ok(look(from, None)? == first)
}

/// Looks at all files; with `to` they are brought there.
fn look(from: &Path, to: Option<&Path>) -> io::Result<BTreeMap<PathBuf, Seen>> {
    let mut found = BTreeMap::new();
    to.map_or(Ok(()), fs::create_dir_all)?;
    let mut dirs = vec![PathBuf::new()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(from.join(&dir))? {
            let name = dir.join(entry?.file_name());
            let (path, target) = (from.join(&name), to.map(|to| to.join(&name)));
            let known = fs::metadata(&path)?;
            if known.is_dir() {
                target.map_or(Ok(()), fs::create_dir_all)?;
                dirs.push(name);
            } else if name.starts_with("segments") || name.starts_with(OBJECTS) {
                target.map_or(Ok(()), |target| fs::hard_link(&path, target))?;
                found.insert(name, Seen::Segment { inode: known.ino(), bytes: known.len() });
            } else if is_kept_by_a_crash(&name) {
                let content = fs::read(&path)?;
                target.map_or(Ok(()), |target| fs::write(target, &content))?;
                found.insert(name, Seen::Content(content));
            }
        }
    }
    Ok(found)
}

/// SQLite makes its shared memory anew; the lock and spilled queries are a process's own.
fn is_kept_by_a_crash(name: &Path) -> bool {
    !name.starts_with("spill") && !name.ends_with("LOCK") && name.extension().is_none_or(|end| end != "sqlite-shm")
}

/// The log's newest file and its size.
pub(super) fn log_end(dir: &Path) -> Outcome<(PathBuf, u64)> {
    let files = wal::files(&paths::wal_dir(dir)).map_err(|error| error.to_string())?;
    let newest = files.last().ok_or("there is no log")?;
    let bytes = fs::metadata(newest).map_err(|error| error.to_string())?.len();
    Ok((PathBuf::from(newest.file_name().unwrap_or_default()), bytes))
}

/// Cuts or garbles the log of a picture behind what was acknowledged when its newest file was `acknowledged`.
pub(super) fn tear(random: &mut Random, dir: &Path, acknowledged: &(PathBuf, u64)) -> Outcome<String> {
    let (newest, _) = log_end(dir)?;
    let path = paths::wal_dir(dir).join(&newest);
    let mut content = fs::read(&path).map_err(|error| error.to_string())?;
    // A later file has nothing acknowledged in it.
    let safe = if newest == acknowledged.0 { acknowledged.1 as usize } else { 0 };
    let safe = safe.min(content.len());
    let what = match random.below(4) {
        0 => {
            let at = safe + random.place(content.len() - safe + 1);
            content.truncate(at);
            "cut"
        }
        1 if safe < content.len() => {
            let at = safe + random.place(content.len() - safe);
            content[at] ^= 1 << random.below(8);
            "flipped"
        }
        2 => {
            // The head of a frame whose payload never came.
            content.extend(0x5146_4d31_u32.to_le_bytes());
            content.extend((random.below(100_000) as u32).to_le_bytes());
            content.extend((0..random.below(40)).map(|_| random.next() as u8).collect::<Vec<u8>>());
            "half a frame"
        }
        _ => {
            content.extend((0..random.below(3_000)).map(|_| random.next() as u8).collect::<Vec<u8>>());
            "garbage"
        }
    };
    replace(&path, &content)?;
    Ok(format!("{what} behind byte {safe} of '{}'", newest.display()))
}

/// Flips a bit anywhere in the log's newest file.
pub(super) fn flip_in_log(random: &mut Random, dir: &Path) -> Outcome<String> {
    let (newest, _) = log_end(dir)?;
    flip(random, &paths::wal_dir(dir).join(newest))
}

/// Flips a bit of a file.
pub(super) fn flip(random: &mut Random, path: &Path) -> Outcome<String> {
    let mut content = fs::read(path).map_err(|error| format!("'{}': {error}", path.display()))?;
    let at = random.place(content.len());
    content[at] ^= 1 << random.below(8);
    replace(path, &content)?;
    Ok(format!("flipped a bit of byte {at} of {} of '{}'", content.len(), path.display()))
}

/// Cuts a file somewhere.
pub(super) fn cut(random: &mut Random, path: &Path) -> Outcome<String> {
    let mut content = fs::read(path).map_err(|error| format!("'{}': {error}", path.display()))?;
    content.truncate(random.place(content.len()));
    replace(path, &content)?;
    Ok(format!("cut '{}' at {}", path.display(), content.len()))
}

/// Puts a new file in the place of one that a former directory may share.
fn replace(path: &Path, content: &[u8]) -> Outcome {
    let removed = fs::remove_file(path).and_then(|()| fs::write(path, content));
    removed.map_err(|error| format!("'{}': {error}", path.display()))
}

/// All files below the segments' root with this end, in order.
pub(super) fn segment_files(dir: &Path, suffix: &str) -> Outcome<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut dirs = vec![paths::segments_dir(dir)];
    while let Some(dir) = dirs.pop() {
        let entries = fs::read_dir(&dir).map_err(|error| format!("'{}': {error}", dir.display()))?;
        for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
            if path.is_dir() {
                dirs.push(path);
            } else if path.to_str().is_some_and(|path| path.ends_with(suffix)) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A directory with a file in its place, until [`Blocked::free`].
pub(super) struct Blocked {
    path: PathBuf,
    aside: PathBuf,
}

impl Blocked {
    pub fn new(path: PathBuf) -> Outcome<Blocked> {
        let aside = path.with_extension("aside");
        let failed = |error: io::Error| format!("can't block '{}': {error}", path.display());
        fs::rename(&path, &aside).and_then(|()| fs::write(&path, "not a directory")).map_err(failed)?;
        Ok(Blocked { path, aside })
    }

    pub fn free(self) -> Outcome {
        let failed = |error: io::Error| format!("can't free '{}': {error}", self.path.display());
        fs::remove_file(&self.path).and_then(|()| fs::rename(&self.aside, &self.path)).map_err(failed)
    }
}

async fn catalog(dir: &Path) -> Outcome<SqliteConnection> {
    let options = SqliteConnectOptions::new().filename(paths::catalog_file(dir)).busy_timeout(PATIENCE);
    options.connect().await.map_err(|error| format!("no way to the catalog: {error}"))
}

/// Has the catalog refuse to make segments live, in a way of the seed's choice, until [`accept_commits`].
pub(super) async fn refuse_commits(random: &mut Random, dir: &Path) -> Outcome<&'static str> {
    let refusal = random.pick(&REFUSALS);
    let mut catalog = catalog(dir).await?;
    catalog.execute(refusal).await.map_err(|error| format!("can't have commits refused: {error}"))?;
    catalog.close().await.map_err(|error| error.to_string())?;
    Ok(refusal.split(" ON ").next().unwrap_or(refusal))
}

pub(super) async fn accept_commits(dir: &Path) -> Outcome {
    let mut catalog = catalog(dir).await?;
    catalog.execute(NO_REFUSAL).await.map_err(|error| format!("can't have commits accepted: {error}"))?;
    catalog.close().await.map_err(|error| error.to_string())
}

/// Leaves no room for the next segments in the directories that there are: what is written to them goes to a device that
/// is always full. Gives the links, which [`make_room`] removes.
pub(super) async fn leave_no_room(dir: &Path) -> Outcome<Vec<PathBuf>> {
    let mut catalog = catalog(dir).await?;
    let row = sqlx::query("SELECT next_segment FROM store").fetch_one(&mut catalog).await;
    let next: i64 = row.map_err(|error| error.to_string())?.get(0);
    catalog.close().await.map_err(|error| error.to_string())?;
    let written = segment_files(dir, paths::SEGMENT_SUFFIX)?;
    let mut dirs: Vec<&Path> = written.iter().filter_map(|path| path.parent()).collect();
    dirs.dedup();
    let mut links = Vec::new();
    for dir in dirs {
        for id in next..next + FULL_IDS {
            let link = dir.join(format!("{id:012}{}", paths::UNFINISHED_SUFFIX));
            symlink("/dev/full", &link).map_err(|error| format!("'{}': {error}", link.display()))?;
            links.push(link);
        }
    }
    Ok(links)
}

/// Removes what is left of the links; a flush that failed has removed its own.
pub(super) fn make_room(links: &[PathBuf]) -> Outcome {
    for link in links.iter().filter(|link| link.is_symlink()) {
        fs::remove_file(link).map_err(|error| format!("'{}': {error}", link.display()))?;
    }
    Ok(())
}
