//! Every name in a backup target, and nothing else. Files keep the path they have in the data directory: segments are
//! shared by all backups, everything else belongs to one.

use std::path::{Component, Path};

use crate::storage::paths;

/// Below it lie the manifests.
pub(super) const MANIFESTS: &str = "manifests";
/// Below it lie the segments, in the target as in a data directory.
pub(super) const SEGMENTS: &str = "segments";
/// Below it lies what belongs to one backup.
pub(super) const BACKUPS: &str = "backups";
/// The catalog, in a data directory.
pub(super) const CATALOG: &str = "catalog.sqlite";

/// The manifest of a backup.
pub(super) fn manifest(id: &str) -> String {
    format!("{MANIFESTS}/{id}.json")
}

/// The id of a manifest's backup.
pub(super) fn id_of(manifest: &str) -> Option<&str> {
    manifest.strip_prefix(MANIFESTS)?.strip_prefix('/')?.strip_suffix(".json")
}

/// Where a file of the data directory lies in the target.
pub(super) fn object(id: &str, path: &str) -> String {
    if is_shared(path) { path.to_owned() } else { format!("{BACKUPS}/{id}/{path}") }
}

/// Whether a file is the same in all backups that have it.
pub(super) fn is_shared(path: &str) -> bool {
    path.starts_with("segments/")
}

/// A segment's path in the data directory, from the one in the catalog.
pub(super) fn segment(path: &str) -> String {
    format!("{SEGMENTS}/{path}")
}

/// Where a segment's index lies, if it has one.
pub(super) fn index_of(segment: &str) -> String {
    format!("{}.index", segment.strip_suffix(paths::SEGMENT_SUFFIX).unwrap_or(segment))
}

/// A file of the write-ahead log, in the data directory.
pub(super) fn wal(file: &Path) -> String {
    format!("wal/{}", file.file_name().unwrap_or_default().to_string_lossy())
}

/// Whether a path of a manifest stays within the directory it is restored to.
pub(super) fn is_inside(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        assert_eq!(id_of(&manifest("20260210T000000Z")), Some("20260210T000000Z"));
        assert_eq!(object("x", "segments/a/1.parquet"), "segments/a/1.parquet");
        assert_eq!(object("x", CATALOG), "backups/x/catalog.sqlite");
        assert_eq!(index_of("segments/a/1.parquet"), "segments/a/1.index");
        assert_eq!(segment("a/1.parquet"), "segments/a/1.parquet");
        assert_eq!(paths::catalog_file(Path::new("d")), Path::new("d").join(CATALOG));
        assert_eq!(paths::segments_dir(Path::new("d")), Path::new("d").join(SEGMENTS));
        assert_eq!(paths::wal_dir(Path::new("d")).join("1.wal"), Path::new("d").join(wal(Path::new("x/1.wal"))));
    }

    #[test]
    fn paths_that_lead_out_are_seen() {
        for path in ["", "/etc/passwd", "../x", "wal/../../x", "."] {
            assert!(!is_inside(path), "{path}");
        }
        assert!(is_inside("segments/default/2026-02-10/warn/000000000017.parquet"));
    }
}
