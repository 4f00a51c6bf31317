//! Backups of a data directory to a directory or to S3, their restoration, and the check that either is whole:
//! `quiver backup`, `restore`, `verify`, `segments`. It opens no store and takes no lock, so it works beside one.
//!
//! **Invariant**: a backup exists once its manifest does, which is written last; everything the manifest names is in the
//! target then, and holds every record that was acknowledged before the backup began.

use std::path::{Path, PathBuf};

use crate::storage;
use crate::storage::remote::{self, Remote};
use crate::wal;

mod layout;
mod listing;
mod manifest;
mod progress;
mod restore;
mod take;
mod verify;

pub use listing::{Format, segments};
pub use restore::restore;
pub use take::backup;
pub use verify::{Report, verify};

/// Why a backup, a restoration or a check came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A flag's value is wrong.
    #[error("{0}")]
    Flag(String),
    /// The data directory can't be read.
    #[error(transparent)]
    Store(#[from] storage::Error),
    /// The write-ahead log can't be read.
    #[error(transparent)]
    Wal(#[from] wal::Error),
    /// The place of the backups failed.
    #[error(transparent)]
    Remote(#[from] remote::Error),
    /// A file or directory failed.
    #[error("can't {action} '{path}': {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is something where a store is to be restored.
    #[error("'{0}' is not empty; restore into a new directory")]
    NotEmpty(PathBuf),
    /// There is no such backup.
    #[error("there is no {what} in '{place}'{known}")]
    NoBackup {
        /// Which was asked for.
        what: String,
        /// Where.
        place: String,
        /// Those that are there.
        known: String,
    },
    /// A manifest can't be understood.
    #[error("the manifest '{object}' can't be used: {reason}")]
    Manifest {
        /// Its name in the target.
        object: String,
        /// What is wrong.
        reason: String,
    },
    /// Bytes are not what they were when they were written.
    #[error("'{path}' is damaged: {reason}; 'quiver verify' lists everything that is")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The target has segments of another store.
    #[error("the backups in '{place}' are of another store ('{path}' differs); use a target for each store")]
    OtherStore {
        /// The target.
        place: String,
        /// A segment of the same name and other contents.
        path: String,
    },
    /// The live segments changed faster than they could be copied.
    #[error(
        "segment '{0}' is in the catalog, and its file is not there; 'quiver verify' lists everything that is missing"
    )]
    Vanished(String),
}

/// Where the store is.
#[derive(Debug, Clone, clap::Args)]
pub struct Place {
    /// The store's data directory; the store may be running
    #[arg(long, value_name = "DIR", env = "QUIVER_DATA_DIR", default_value = "./quiver-data")]
    pub data_dir: PathBuf,
}

/// What `quiver backup` takes.
#[derive(Debug, Clone, clap::Args)]
pub struct BackupArguments {
    #[command(flatten)]
    place: Place,
    /// Where backups go: a directory, or s3://bucket/prefix (credentials, region and AWS_ENDPOINT_URL from AWS's variables)
    #[arg(long, value_name = "TARGET")]
    to: String,
    /// Keep this many backups, and remove older ones afterwards
    #[arg(long, value_name = "COUNT")]
    keep: Option<usize>,
}

/// What `quiver restore` takes.
#[derive(Debug, Clone, clap::Args)]
pub struct RestoreArguments {
    /// Where the backups are: a directory, or s3://bucket/prefix
    #[arg(long, value_name = "TARGET")]
    from: String,
    /// Which backup [default: the newest]
    #[arg(long, value_name = "ID")]
    backup: Option<String>,
    /// Where the store is to be; absent or empty
    #[arg(long, value_name = "DIR", env = "QUIVER_DATA_DIR")]
    data_dir: PathBuf,
}

/// What `quiver verify` takes.
#[derive(Debug, Clone, clap::Args)]
pub struct VerifyArguments {
    /// Check a data directory; the store may be running [default: ./quiver-data]
    #[arg(long, value_name = "DIR", env = "QUIVER_DATA_DIR", conflicts_with = "from")]
    data_dir: Option<PathBuf>,
    /// Check a backup instead: a directory, or s3://bucket/prefix
    #[arg(long, value_name = "TARGET")]
    from: Option<String>,
    /// Which backup [default: the newest]
    #[arg(long, value_name = "ID", requires = "from")]
    backup: Option<String>,
}

/// What `quiver segments` takes.
#[derive(Debug, Clone, clap::Args)]
pub struct SegmentsArguments {
    #[command(flatten)]
    place: Place,
    /// A table for people, or a JSON object per line
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    format: Format,
    /// Only this tenant's
    #[arg(long, value_name = "TENANT", env = "QUIVER_TENANT")]
    tenant: Option<String>,
}

fn open_target(place: &str) -> Result<Remote, Error> {
    // Plain HTTP is for AWS_ENDPOINT_URL=http://… only, where it was asked for in so many words.
    let endpoint = std::env::var("AWS_ENDPOINT_URL").or_else(|_| std::env::var("AWS_ENDPOINT")).unwrap_or_default();
    let allow_http = endpoint.starts_with("http://");
    Ok(Remote::open(place, &remote::Settings { allow_http, ..remote::Settings::default() })?)
}

/// As [`open_target`], of something that has to be there.
fn open_existing(place: &str) -> Result<Remote, Error> {
    if !place.contains("://") && !Path::new(place).is_dir() {
        return Err(Error::NoBackup { what: "backup".into(), place: place.into(), known: String::new() });
    }
    open_target(place)
}

fn file_error(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { action, path, source }
}

/// `12.3 MiB` for people.
fn size_text(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (0..units.len() - 1).take_while(|unit| bytes >> (10 * (unit + 1)) > 0).count();
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{:.1} {}", bytes as f64 / (1_u64 << (10 * unit)) as f64, units[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_people() {
        for (bytes, text) in
            [(0, "0 B"), (1_023, "1023 B"), (1_024, "1.0 KiB"), (5 << 29, "2.5 GiB"), (1 << 60, "1048576.0 TiB")]
        {
            assert_eq!(size_text(bytes), text);
        }
    }
}
