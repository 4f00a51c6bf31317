//! Manifests: what a backup consists of, as JSON. A backup without one does not exist.

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Error, layout};
use crate::storage::remote::{self, Remote};

/// Version of the layout; a later one is refused.
const FORMAT: u32 = 1;
/// Manifests read at once.
const READ_AT_ONCE: usize = 4;

/// One backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub format: u32,
    /// When it began, UTC: `20261121T134422.123Z`; ids sort by time.
    pub id: String,
    /// The program that wrote it.
    pub quiver: String,
    /// When it was complete.
    pub completed: Timestamp,
    /// Live segments and the records in them.
    pub segments: u64,
    pub records: u64,
    /// Everything a data directory needs.
    pub files: Vec<File>,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct File {
    /// Its place in the data directory.
    pub path: String,
    pub bytes: u64,
    /// xxhash64 of its bytes, seed 0, as 16 hexadecimal digits.
    pub xxh64: String,
    /// The same of its last bytes, of segments: tells whose segment it is without reading all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail_xxh64: Option<String>,
}

impl File {
    pub fn matches(&self, copied: &remote::Copied) -> Result<(), String> {
        if copied.bytes != self.bytes {
            return Err(format!("it has {} bytes, the manifest says {}", copied.bytes, self.bytes));
        }
        let found = hex(copied.xxh64);
        if found != self.xxh64 {
            return Err(format!("its checksum is {found}, the manifest says {}", self.xxh64));
        }
        Ok(())
    }
}

/// A checksum as manifests write it.
pub(super) fn hex(xxh64: u64) -> String {
    format!("{xxh64:016x}")
}

impl Manifest {
    pub fn new(id: String, completed: Timestamp) -> Manifest {
        let quiver = env!("CARGO_PKG_VERSION").to_owned();
        Manifest { format: FORMAT, id, quiver, completed, segments: 0, records: 0, files: Vec::new() }
    }

    /// The id of a backup that begins now.
    pub fn new_id(now: Timestamp) -> String {
        now.strftime("%Y%m%dT%H%M%S.%3fZ").to_string()
    }

    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Writes it where none of this id is.
    pub async fn write(&self, target: &Remote) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(self).expect("strings and numbers always serialise");
        Ok(target.put_new(&layout::manifest(&self.id), text.into_bytes().into()).await?)
    }

    async fn read(target: &Remote, id: &str) -> Result<Manifest, Error> {
        let object = layout::manifest(id);
        let text = target.get(&object).await?;
        let wrong = |reason: String| Error::Manifest { object: object.clone(), reason };
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        if manifest.format > FORMAT {
            let found = manifest.format;
            return Err(wrong(format!("it has format {found}, this program knows up to {FORMAT}; use a newer quiver")));
        }
        if let Some(file) = manifest.files.iter().find(|file| !layout::is_inside(&file.path)) {
            return Err(wrong(format!("its path '{}' leads out of the data directory", file.path)));
        }
        Ok(manifest)
    }

    /// Ids of all backups, oldest first.
    pub async fn ids(target: &Remote) -> Result<Vec<String>, Error> {
        let listed = target.list(layout::MANIFESTS).await?;
        Ok(listed.keys().filter_map(|object| layout::id_of(object)).map(str::to_owned).collect())
    }

    /// All backups, oldest first.
    pub async fn all(target: &Remote) -> Result<Vec<Manifest>, Error> {
        let ids = Manifest::ids(target).await?;
        let read = |id: String| async move { Manifest::read(target, &id).await };
        futures::stream::iter(ids).map(read).buffered(READ_AT_ONCE).try_collect().await
    }

    /// The backup of that id, or the newest. **Errors**: [`Error::NoBackup`] tells which there are.
    pub async fn find(target: &Remote, id: Option<&str>) -> Result<Manifest, Error> {
        let ids = Manifest::ids(target).await?;
        let found = match id {
            Some(id) => ids.iter().find(|known| *known == id),
            None => ids.last(),
        };
        let Some(found) = found else {
            let what = id.map_or("backup".to_owned(), |id| format!("backup '{id}'"));
            let known = if ids.is_empty() { String::new() } else { format!("; there are {}", ids.join(", ")) };
            return Err(Error::NoBackup { what, place: target.place().to_owned(), known });
        };
        Manifest::read(target, found).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn manifests_are_found_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let target = Remote::open(dir.path().to_str().unwrap(), &remote::Settings::default()).unwrap();
        let id_at = |second| Manifest::new_id(Timestamp::from_second(second).unwrap());
        assert_eq!(id_at(1_770_681_600), "20260210T000000.000Z");
        let error = Manifest::find(&target, None).await.unwrap_err().to_string();
        assert!(error.starts_with("there is no backup in"), "{error}");
        for second in [3, 1, 2] {
            Manifest::new(id_at(second), Timestamp::UNIX_EPOCH).write(&target).await.unwrap();
        }
        let again = Manifest::new(id_at(1), Timestamp::UNIX_EPOCH).write(&target).await;
        assert!(matches!(again, Err(Error::Remote(remote::Error::Exists { .. }))));
        assert_eq!(Manifest::find(&target, None).await.unwrap().id, id_at(3));
        assert_eq!(Manifest::find(&target, Some(&id_at(2))).await.unwrap().id, id_at(2));
        assert_eq!(Manifest::all(&target).await.unwrap().len(), 3);
        let error = Manifest::find(&target, Some("x")).await.unwrap_err().to_string();
        assert!(error.contains("backup 'x'") && error.contains(&id_at(1)), "{error}");
    }

    #[tokio::test]
    async fn a_manifest_that_leads_out_or_is_newer_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let target = Remote::open(dir.path().to_str().unwrap(), &remote::Settings::default()).unwrap();
        let mut manifest = Manifest::new("a".into(), Timestamp::UNIX_EPOCH);
        manifest.files = vec![File { path: "../x".into(), bytes: 1, xxh64: hex(1), tail_xxh64: None }];
        manifest.write(&target).await.unwrap();
        let error = Manifest::find(&target, Some("a")).await.unwrap_err().to_string();
        assert!(error.contains("leads out"), "{error}");
        Manifest { format: 99, id: "b".into(), ..manifest }.write(&target).await.unwrap();
        let error = Manifest::find(&target, Some("b")).await.unwrap_err().to_string();
        assert!(error.contains("format 99"), "{error}");
    }
}
