//! Every name that storage gives to a file or directory, and nothing else.

use std::path::{Path, PathBuf};

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

/// How the name of the index beside a segment ends: the segment's name with this in place of [`SEGMENT_SUFFIX`].
pub const INDEX_SUFFIX: &str = ".index";

/// How the name of a file that is being written ends; such a file found at start is garbage.
pub const UNFINISHED_SUFFIX: &str = ".unfinished";
