//! `quiver restore`: a backup becomes a data directory. The catalog comes last, so what was broken off is no store.

use std::fs::File;
use std::path::Path;

use futures::{StreamExt, TryStreamExt};

use super::manifest::{self, Manifest};
use super::progress::Progress;
use super::{Error, RestoreArguments, file_error, layout, open_existing, size_text};
use crate::storage::paths;
use crate::storage::remote::Remote;

/// Files fetched at once.
const FETCHED_AT_ONCE: usize = 4;

/// Restores a backup; the text says what there is now.
pub async fn restore(arguments: &RestoreArguments) -> Result<String, Error> {
    let data_dir = &arguments.data_dir;
    let source = open_existing(&arguments.from)?;
    let manifest = Manifest::find(&source, arguments.backup.as_deref()).await?;
    check_empty(data_dir)?;
    std::fs::create_dir_all(data_dir).map_err(file_error("create", data_dir))?;
    // No store may start on what is not whole yet.
    let lock_path = paths::lock_file(data_dir);
    let lock = File::create(&lock_path).map_err(file_error("create", &lock_path))?;
    lock.try_lock().map_err(|_| Error::NotEmpty(data_dir.clone()))?;

    let progress = Progress::new("restore", manifest.bytes());
    let (last, first): (Vec<_>, Vec<_>) = manifest.files.iter().partition(|file| file.path == layout::CATALOG);
    for files in [first, last] {
        let fetch = |file| fetch(&source, &manifest.id, file, data_dir, &progress);
        futures::stream::iter(files).map(fetch).buffer_unordered(FETCHED_AT_ONCE).try_collect::<()>().await?;
        sync_directories(data_dir)?;
    }
    drop(progress);
    Ok(format!(
        "restored backup {} to '{}': {} segments with {} records, {}\n",
        manifest.id,
        data_dir.display(),
        manifest.segments,
        manifest.records,
        size_text(manifest.bytes())
    ))
}

fn check_empty(data_dir: &Path) -> Result<(), Error> {
    match std::fs::read_dir(data_dir).map(Iterator::count) {
        Ok(0) => Ok(()),
        Ok(_) => Err(Error::NotEmpty(data_dir.to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(file_error("list", data_dir)(error)),
    }
}

async fn fetch(
    source: &Remote,
    id: &str,
    file: &manifest::File,
    data_dir: &Path,
    progress: &Progress,
) -> Result<(), Error> {
    let object = layout::object(id, &file.path);
    let copied = source.fetch(&object, &data_dir.join(&file.path)).await?;
    file.matches(&copied).map_err(|reason| Error::Damaged { path: object, reason })?;
    progress.done(file.bytes);
    Ok(())
}

/// Makes the names durable: those of new directories, up to the data directory's own.
fn sync_directories(dir: &Path) -> Result<(), Error> {
    for entry in std::fs::read_dir(dir).map_err(file_error("list", dir))? {
        let path = entry.map_err(file_error("list", dir))?.path();
        if path.is_dir() {
            sync_directories(&path)?;
        }
    }
    File::open(dir).and_then(|opened| opened.sync_all()).map_err(file_error("fsync", dir))
}
