//! `quiver verify`: reads everything there is, and says what is not as it was written. It repairs nothing.

use std::collections::HashMap;
use std::fmt::Write;
use std::io::ErrorKind;
use std::path::Path;

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

    fn check_segment(&mut self, file: &Path, shown: &str, segment: &Segment) {
        self.segments += 1;
        self.records += segment.records;
        self.bytes += segment.bytes;
        if let Err(reason) = inspect::check_segment(file, segment) {
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
    let root = paths::segments_dir(data_dir);
    let mut missing = Vec::new();
    let elsewhere = cache::elsewhere(data_dir)?;
    let room = TempDir::with_prefix("quiver-verify-").map_err(file_error("create", &std::env::temp_dir()))?;
    for segment in &catalog.segments {
        let (file, fetched) = (root.join(&segment.path), room.path().join("segment"));
        match &elsewhere {
            _ if file.exists() => report.check_segment(&file, &file.display().to_string(), segment),
            None => missing.push(segment),
            Some(elsewhere) => match elsewhere.fetch(&cache::object_of(segment), &fetched).await {
                Ok(_) => report.check_segment(&fetched, &cache::object_of(segment), segment),
                Err(remote::Error::NotFound { .. }) => missing.push(segment),
                Err(error) => return Err(error.into()),
            },
        }
        progress.done(segment.bytes);
    }
    if !missing.is_empty() {
        // A running store may have replaced or expired them since.
        let now = CatalogCopy::of(data_dir).await?;
        for segment in missing.into_iter().filter(|segment| now.segments.iter().any(|live| live.id == segment.id)) {
            report.damaged(root.join(&segment.path).display().to_string(), "it is not there");
        }
    }
    Ok(report)
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
