//! `quiver verify`: reads everything there is, and says what is not as it was written. It repairs nothing.

use std::collections::HashMap;
use std::fmt::Write;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::manifest::{self, Manifest};
use super::progress::Progress;
use super::{Error, VerifyArguments, file_error, layout, open_existing, size_text};
use crate::storage::inspect::{self, CatalogCopy};
use crate::storage::remote::{self, Remote};
use crate::storage::{Segment, cache, paths};
use crate::wal;

/// What was read, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Report {
    segments: u64,
    records: u64,
    bytes: u64,
    frames: u64,
    frame_records: u64,
    /// What is no damage and worth knowing.
    notes: Vec<String>,
    /// Files and what is wrong with each.
    damage: Vec<(String, String)>,
}

impl Report {
    /// Whether everything is as it was written.
    pub fn is_whole(&self) -> bool {
        self.damage.is_empty()
    }

    /// The report for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (path, reason) in &self.damage {
            // Writing to a string does not fail.
            let _ = writeln!(text, "damaged: {path}: {reason}");
        }
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        let _ = writeln!(
            text,
            "{}: {} segments with {} records, {}; write-ahead log: {} frames with {} records",
            if self.is_whole() { "whole".to_owned() } else { format!("{} damaged", self.damage.len()) },
            self.segments,
            self.records,
            size_text(self.bytes),
            self.frames,
            self.frame_records
        );
        text
    }

    fn damaged(&mut self, path: impl Into<String>, reason: impl Into<String>) {
        self.damage.push((path.into(), reason.into()));
    }

    fn count(&mut self, segment: &Segment) {
        self.segments += 1;
        self.records += segment.records;
        self.bytes += segment.bytes;
    }

    fn check_segment(&mut self, file: &Path, shown: &str, segment: &Segment) {
        self.count(segment);
        if let Err(reason) = check_file(file, segment).unwrap_or_else(|| Err("it is not there".to_owned())) {
            self.damaged(shown, reason);
        }
    }

    fn check_wal(&mut self, file: &Path, shown: &str) -> Result<(), wal::Error> {
        let (mut frames, mut records, mut wrong) = (0, 0, None);
        let read = wal::read_file(file, |frame| {
            frames += 1;
            records += u64::from(frame.rows);
            if let Err(error) = inspect::check_frame(&frame) {
                wrong.get_or_insert(format!("the frame of record {}: {error}", frame.first_seq));
            }
        })?;
        self.frames += frames;
        self.frame_records += records;
        let (lost, at) = (read.bytes.len() - read.whole_bytes, read.whole_bytes);
        match (wrong, read.is_damaged()) {
            (Some(reason), _) => self.damaged(shown, reason),
            (None, true) => self.damaged(shown, format!("{lost} bytes from byte {at} on can't be read")),
            (None, false) if lost > 0 => {
                self.notes.push(format!("{shown}: {lost} bytes from byte {at} on were never acknowledged"));
            }
            (None, false) => {}
        }
        Ok(())
    }

    async fn check_catalog(&mut self, catalog: &CatalogCopy, shown: &str) -> Result<(), Error> {
        catalog.check().await?.into_iter().for_each(|found| self.damaged(shown, found));
        Ok(())
    }
}

/// Checks a data directory or a backup.
pub async fn verify(arguments: &VerifyArguments) -> Result<Report, Error> {
    match &arguments.from {
        Some(from) => verify_backup(&open_existing(from)?, arguments.backup.as_deref()).await,
        None => {
            let data_dir = arguments.data_dir.as_deref().unwrap_or(Path::new("./quiver-data"));
            verify_data_dir(data_dir).await
        }
    }
}

async fn verify_data_dir(data_dir: &Path) -> Result<Report, Error> {
    let mut report = Report::default();
    for file in inspect::wal_files(data_dir)? {
        match report.check_wal(&file, &file.display().to_string()) {
            // A running store has written its records to segments.
            Err(wal::Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            checked => checked?,
        }
    }
    let catalog = CatalogCopy::of(data_dir).await?;
    report.check_catalog(&catalog, &paths::catalog_file(data_dir).display().to_string()).await?;
    let progress = Progress::new("verify", catalog.segments.iter().map(|segment| segment.bytes).sum());
    let looking = Looking::at(data_dir)?;
    let mut suspects = Vec::new();
    for segment in &catalog.segments {
        match looking.look(segment).await? {
            Ok(()) => report.count(segment),
            Err(_) => suspects.push(segment.id),
        }
        progress.done(segment.bytes);
    }
    if !suspects.is_empty() {
        // A running store may have merged, expired or evicted them while they were looked at.
        let now = CatalogCopy::of(data_dir).await?;
        for segment in now.segments.iter().filter(|segment| suspects.contains(&segment.id)) {
            report.count(segment);
            if let Err(wrong) = looking.look(segment).await? {
                report.damaged(wrong.place, wrong.reason);
            }
        }
    }
    Ok(report)
}

/// Reads a segment's file; `None` when there is none.
fn check_file(file: &Path, segment: &Segment) -> Option<Result<(), String>> {
    match File::open(file) {
        Ok(opened) => Some(inspect::check_segment(opened, segment)),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => Some(Err(format!("it can't be opened: {error}"))),
    }
}

/// What is wrong with a segment, and where that was seen.
struct Wrong {
    place: String,
    reason: String,
}

/// A data directory whose segments are looked at, and the object store that has them besides.
struct Looking {
    root: PathBuf,
    elsewhere: Option<Remote>,
    room: TempDir,
}

impl Looking {
    fn at(data_dir: &Path) -> Result<Looking, Error> {
        let room = TempDir::with_prefix("quiver-verify-").map_err(file_error("create", &std::env::temp_dir()))?;
        Ok(Looking { root: paths::segments_dir(data_dir), elsewhere: cache::elsewhere(data_dir)?, room })
    }

    /// Reads a segment where it is: here, or in the object store.
    async fn look(&self, segment: &Segment) -> Result<Result<(), Wrong>, Error> {
        let file = self.root.join(&segment.path);
        let place = file.display().to_string();
        match check_file(&file, segment) {
            Some(Ok(())) => return Ok(Ok(())),
            Some(Err(reason)) => return Ok(Err(Wrong { place, reason })),
            None => {}
        }
        let absent = Wrong { place, reason: "it is not there".to_owned() };
        let Some(elsewhere) = &self.elsewhere else { return Ok(Err(absent)) };
        let (object, fetched) = (cache::object_of(segment), self.room.path().join("segment"));
        match elsewhere.fetch(&object, &fetched).await {
            Ok(_) => {
                let checked = check_file(&fetched, segment).unwrap_or(Err(absent.reason));
                Ok(checked.map_err(|reason| Wrong { place: object, reason }))
            }
            Err(remote::Error::NotFound { .. }) => Ok(Err(absent)),
            Err(error) => Err(error.into()),
        }
    }
}

async fn verify_backup(source: &Remote, id: Option<&str>) -> Result<Report, Error> {
    let manifest = Manifest::find(source, id).await?;
    let mut report = Report::default();
    let place = TempDir::with_prefix("quiver-verify-").map_err(file_error("create", &std::env::temp_dir()))?;
    let progress = Progress::new("verify", manifest.bytes());
    let by_path: HashMap<&str, &manifest::File> =
        manifest.files.iter().map(|file| (file.path.as_str(), file)).collect();
    let mut segments: HashMap<String, Segment> = HashMap::new();
    match by_path.get(layout::CATALOG) {
        None => report.damaged(layout::CATALOG, "the manifest does not name it"),
        Some(file) => {
            let fetched = place.path().join("catalog");
            if fetch_checked(source, &manifest.id, file, &fetched, &mut report).await? {
                let bytes = std::fs::read(&fetched).map_err(file_error("read", &fetched))?;
                let catalog = CatalogCopy::of_bytes(&bytes).await?;
                report.check_catalog(&catalog, layout::CATALOG).await?;
                let named = catalog.segments.into_iter().map(|segment| (layout::segment(&segment.path), segment));
                segments = named.collect();
            }
        }
    }
    for path in segments.keys().filter(|path| !by_path.contains_key(path.as_str())) {
        report.damaged(path, "the catalog names it, and the manifest does not");
    }
    for file in manifest.files.iter().filter(|file| file.path != layout::CATALOG) {
        let (fetched, shown) = (place.path().join("file"), layout::object(&manifest.id, &file.path));
        if fetch_checked(source, &manifest.id, file, &fetched, &mut report).await? {
            match segments.get(&file.path) {
                Some(segment) => report.check_segment(&fetched, &shown, segment),
                None if file.path.starts_with("wal/") => report.check_wal(&fetched, &shown)?,
                None => {}
            }
        }
        progress.done(file.bytes);
    }
    Ok(report)
}

/// Fetches a file of a backup; `false` when it is missing or wrong, which the report says then.
async fn fetch_checked(
    source: &Remote,
    id: &str,
    file: &manifest::File,
    to: &Path,
    report: &mut Report,
) -> Result<bool, Error> {
    let object = layout::object(id, &file.path);
    let checked = match source.fetch(&object, to).await {
        Ok(copied) => file.matches(&copied),
        Err(remote::Error::NotFound { .. }) => Err("it is not there".to_owned()),
        Err(error) => return Err(error.into()),
    };
    let is_whole = checked.is_ok();
    if let Err(reason) = checked {
        report.damaged(object, reason);
    }
    Ok(is_whole)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::clock::Clock;
    use crate::record::{Tenant, batch};
    use crate::storage::{Options, Store};

    /// A store that runs evicts a file, and fetches it again, at any moment.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_that_was_just_evicted_is_no_damage() {
        let dir = tempfile::tempdir().expect("there is room");
        let data_dir = dir.path().join("data");
        let place = dir.path().join("objects").display().to_string();
        let object_store = Some(cache::Place { place, settings: remote::Settings::default() });
        let store = Store::open(Options { object_store, ..Options::new(&data_dir) }, Clock::manual(0)).await.unwrap();
        let tenant = Tenant::default_tenant();
        store.append(&tenant, batch::tests::records(&[1, 2], &[])).await.unwrap();
        store.flush().await.unwrap();
        let file = store.segments_dir().join(&store.snapshot(&tenant).segments[0].path);
        store.close().await.unwrap();
        let (aside, stop) = (dir.path().join("aside"), AtomicBool::new(false));
        let arguments = VerifyArguments { data_dir: Some(data_dir), from: None, backup: None };
        let (runtime, stop) = (tokio::runtime::Handle::current(), &stop);
        let texts: Vec<String> = tokio::task::block_in_place(|| {
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        std::fs::rename(&file, &aside).unwrap();
                        std::fs::rename(&aside, &file).unwrap();
                    }
                });
                let verified = (0..100).map(|_| runtime.block_on(verify(&arguments)).unwrap());
                let texts = verified.filter(|report| !report.is_whole()).map(|report| report.text()).collect();
                stop.store(true, Ordering::Relaxed);
                texts
            })
        });
        assert!(texts.is_empty(), "{texts:?}");
    }
}
