//! Every name that storage gives to a file, a directory or an object, and nothing else.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::record::Tenant;

/// Held locked while a process has the store open.
pub fn lock_file(data_dir: &Path) -> PathBuf {
    data_dir.join("LOCK")
}

/// The SQLite catalog.
pub fn catalog_file(data_dir: &Path) -> PathBuf {
    data_dir.join("catalog.sqlite")
}

/// Files of the write-ahead log.
pub fn wal_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("wal")
}

/// Where queries spill what does not fit in memory; emptied at start.
pub fn spill_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("spill")
}

/// Root of the segments; what the catalog names is relative to it.
pub fn segments_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("segments")
}

/// Place of a segment below [`segments_dir`]: `tenant/2026-02-10/warn/000000000017.parquet`. The id is never used again.
pub fn segment(tenant: &Tenant, day: &str, class: &str, id: i64) -> String {
    format!("{tenant}/{day}/{class}/{id:012}{SEGMENT_SUFFIX}")
}

/// How a segment's name ends.
pub const SEGMENT_SUFFIX: &str = ".parquet";

/// How an index's name ends; otherwise it is its segment's.
pub const INDEX_SUFFIX: &str = ".index";

/// The index of a segment's file.
pub fn index_of(segment: &Path) -> PathBuf {
    segment.with_extension(&INDEX_SUFFIX[1..])
}

/// Which store a data directory is, for the object store's sake.
pub fn identity_file(data_dir: &Path) -> PathBuf {
    data_dir.join("object-store.json")
}

/// Where the objects of segments are in the object store, named as below [`segments_dir`]. Not "segments": that is where
/// backups put theirs, which a backup may remove.
pub const OBJECTS: &str = "live";

/// The object that says whose segments are there.
pub const OWNER_OBJECT: &str = "OWNER";

/// Unlinks a segment's file and what stands beside it; what is not there is fine.
pub fn remove_segment(path: &Path) -> io::Result<()> {
    for path in [path, &index_of(path)] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// How the name of a file that is being written ends; such a file found at start is garbage.
pub const UNFINISHED_SUFFIX: &str = ".unfinished";
