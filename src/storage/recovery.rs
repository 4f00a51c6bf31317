//! Opening a store: what the catalog and the write-ahead log say is put together again, and garbage is swept.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::catalog::{Catalog, Segment};
use super::repeats::Repeats;
use super::snapshot::View;
use super::{Buffered, Error, Options, frame, paths};
use crate::wal::{self, Wal};

/// A store as it was when the last process ended.
pub(super) struct Recovered {
    pub catalog: Catalog,
    pub wal: Wal,
    pub view: View,
    pub repeats: Repeats,
    /// Ids of records below it are in the catalog.
    pub low_water: u64,
    pub next_seq: u64,
    pub next_segment: i64,
    pub wal_lost_bytes: u64,
    /// The catalog has nothing, and the log does not start with the first record.
    pub is_new: bool,
}

/// Reads catalog and log, and starts a new log file.
pub(super) async fn recover(options: &Options) -> Result<Recovered, Error> {
    let (catalog, contents) = Catalog::open(&paths::catalog_file(&options.data_dir)).await?;
    let mut view = View::default();
    let root = paths::segments_dir(&options.data_dir);
    for mut segment in contents.segments {
        if segment.history.quarantined.is_none() {
            // Not written to the catalog: when the file is put back, the next start finds it well.
            segment.history.quarantined = damage(&root, &segment, options.object_store.is_some());
        }
        if let Some(reason) = &segment.history.quarantined {
            let (id, tenant, records) = (segment.id, segment.tenant.as_str(), segment.records);
            tracing::warn!(id, tenant, records, reason, "a segment can't be read; answers lack its records");
        }
        let snapshot = Arc::make_mut(view.tenants.entry(segment.tenant.clone()).or_default());
        snapshot.add_segment(segment, options.fields_max);
    }
    let live = view.tenants.values().flat_map(|found| &found.segments).map(|segment| segment.id).collect();
    catalog.wake_deletions(&live).await?;
    view.add_deletions(catalog.deletions().await?);
    let wal_dir = paths::wal_dir(&options.data_dir);
    let is_new = is_new(&options.data_dir, &view, contents.low_water)?;
    refuse_lost_catalog(&root, is_new)?;
    sweep(&options.data_dir, &view)?;

    // Numbers start at 1, so that 0 stands before all records: a cursor that has seen nothing.
    let mut next_seq = contents.low_water.max(1);
    let mut failure = None;
    let repeats = Repeats::default();
    repeats.sources.keep(0, catalog.reached().await?);
    for (tenant, ids) in catalog.batch_ids().await? {
        repeats.keep(&tenant, 0, ids);
    }
    let losses = wal::replay(&wal_dir, contents.low_water, |found| {
        let last = found.first_seq + u64::from(found.rows);
        match restore(&mut view, &repeats, &found, options.fields_max) {
            Ok(()) => next_seq = next_seq.max(last),
            Err(error) => failure = failure.take().or(Some(error)),
        }
    })?;
    if let Some(error) = failure {
        return Err(error);
    }
    for loss in &losses {
        let (path, offset, bytes) = (loss.path.display(), loss.offset, loss.bytes);
        tracing::warn!(%path, offset, bytes, "the end of the write-ahead log is torn; everything before it is recovered");
    }
    let records: usize = view.tenants.values().flat_map(|snapshot| &snapshot.buffer).map(|found| found.rows()).sum();
    let segments: usize = view.tenants.values().map(|snapshot| snapshot.segments.len()).sum();
    tracing::info!(segments, records_from_wal = records, next_seq, "store opened");
    let wal = Wal::open(&wal_dir, next_seq)?;
    let wal_lost_bytes = losses.iter().map(|loss| loss.bytes).sum();
    let next_segment = contents.next_segment;
    Ok(Recovered {
        catalog,
        wal,
        view,
        repeats,
        low_water: contents.low_water,
        next_seq,
        next_segment,
        wal_lost_bytes,
        is_new,
    })
}

/// Why a segment's file can't be what the catalog says, as far as the directory tells. Where there is an object store, a
/// file that is absent is fetched when it is read, and so is one that was cut, which goes.
pub(super) fn damage(root: &Path, segment: &Segment, is_elsewhere: bool) -> Option<String> {
    let path = root.join(&segment.path);
    match fs::metadata(&path) {
        Ok(found) if found.len() == segment.bytes => None,
        Err(error) if is_elsewhere && error.kind() == io::ErrorKind::NotFound => None,
        Ok(_) if is_elsewhere && paths::remove_segment(&path).is_ok() => None,
        Ok(found) => {
            let (found, expected) = (found.len(), segment.bytes);
            Some(format!("the file '{}' has {found} bytes instead of {expected}", path.display()))
        }
        Err(error) => Some(format!("the file '{}' can't be found: {error}", path.display())),
    }
}

fn restore(view: &mut View, repeats: &Repeats, found: &wal::Frame, fields_max: usize) -> Result<(), Error> {
    let frame::Decoded { tenant, brought, batch } = frame::decode(&found.payload)?;
    if batch.num_rows() == 0 || batch.num_rows() != found.rows as usize {
        return Err(Error::Frame(format!("it names {} records and holds {}", found.rows, batch.num_rows())));
    }
    repeats.keep(&tenant, found.first_seq, brought.ids);
    repeats.sources.keep(found.first_seq, brought.reached);
    let snapshot = Arc::make_mut(view.tenants.entry(tenant).or_default());
    Ok(snapshot.add_batch(Buffered::new(batch, found.first_seq), fields_max)?)
}

/// Whether the catalog has never had anything. (Segments of a first flush that was cut short are in the log still.)
fn is_new(data_dir: &Path, view: &View, low_water: u64) -> Result<bool, Error> {
    if low_water > 1 || !view.all_segments().is_empty() {
        return Ok(false);
    }
    let mut starts_at_first = false;
    wal::replay(&paths::wal_dir(data_dir), 0, |frame| starts_at_first |= frame.first_seq <= 1)?;
    Ok(!starts_at_first)
}

/// A new catalog beside segments that were not written lately is no new store: somebody removed the catalog, and the
/// segments must not be taken for garbage.
fn refuse_lost_catalog(root: &Path, is_new: bool) -> Result<(), Error> {
    if !is_new || !root.exists() {
        return Ok(());
    }
    let io = |source| Error::DataDir { path: root.to_owned(), source };
    if count_segments(root).map_err(io)? == 0 { Ok(()) } else { Err(Error::CatalogLost(root.to_owned())) }
}

fn count_segments(dir: &Path) -> io::Result<usize> {
    let mut found = 0;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found += count_segments(&path)?;
        } else if path.extension().is_some_and(|end| end == &paths::SEGMENT_SUFFIX[1..]) {
            found += 1;
        }
    }
    Ok(found)
}

/// Removes what a process that died left behind: files the catalog does not name, and spilled queries.
fn sweep(data_dir: &Path, view: &View) -> Result<(), Error> {
    let root = paths::segments_dir(data_dir);
    let spill = paths::spill_dir(data_dir);
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::DataDir { path, source }
    };
    if spill.exists() {
        fs::remove_dir_all(&spill).map_err(io(&spill))?;
    }
    fs::create_dir_all(&spill).map_err(io(&spill))?;
    fs::create_dir_all(&root).map_err(io(&root))?;
    // The names of catalog, log and segments' root must be safe before anything in them is.
    fs::File::open(data_dir).and_then(|dir| dir.sync_all()).map_err(io(data_dir))?;
    let live: HashSet<_> =
        view.tenants.values().flat_map(|found| found.all_segments()).map(|segment| root.join(&segment.path)).collect();
    let of_live = |path: &Path| {
        let is_index = path.to_str().is_some_and(|path| path.ends_with(paths::INDEX_SUFFIX));
        live.contains(path) || (is_index && live.contains(&path.with_extension(&paths::SEGMENT_SUFFIX[1..])))
    };
    let removed = sweep_dir(&root, &of_live).map_err(io(&root))?;
    if removed > 0 {
        tracing::info!(files = removed, "removed unfinished segments");
    }
    Ok(())
}

fn sweep_dir(dir: &Path, live: &impl Fn(&Path) -> bool) -> io::Result<usize> {
    let mut removed = 0;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let suffixes = [paths::SEGMENT_SUFFIX, paths::INDEX_SUFFIX, paths::UNFINISHED_SUFFIX];
        let ours = suffixes.iter().any(|suffix| name.ends_with(suffix));
        if path.is_dir() {
            removed += sweep_dir(&path, live)?;
        } else if ours && !live(&path) {
            fs::remove_file(&path)?;
            removed += 1;
        }
    }
    Ok(removed)
}
