//! Whole files in an object store: S3 and what speaks like it, or a directory that stands for one. It keeps no state,
//! and knows no segments.
//!
//! **Invariants**: an object appears as a whole or not at all; a fetched file has the name asked for only once it is
//! complete and fsynced; every call ends within a limit of time. Credentials come from AWS's usual variables and are
//! never printed.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use twox_hash::XxHash64;

use super::paths;

/// Larger files go in parts of this size.
const PART_BYTES: usize = 8 << 20;
/// A call may take this long, and longer by its size at [`BYTES_PER_SECOND_MIN`].
const CALL_TIME_MAX: Duration = Duration::from_secs(60);
const BYTES_PER_SECOND_MIN: u64 = 128 << 10;
/// Time for one request and its repetitions.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(20);
const REPETITIONS_MAX: usize = 4;
/// Writers that race at the probe.
const RACERS: usize = 8;

/// What an object store can answer instead of success.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name of the place is no URL or directory, or the variables don't fit it.
    #[error("'{place}' can't be used as an object store: {reason}")]
    Invalid {
        /// What was named.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The object is not there.
    #[error("'{object}' is not in '{place}'")]
    NotFound {
        /// The object.
        object: String,
        /// Where it was looked for.
        place: String,
    },
    /// Put-if-absent found an object.
    #[error("'{object}' is in '{place}' already")]
    Exists {
        /// The object.
        object: String,
        /// Where it was to go.
        place: String,
    },
    /// The store failed, or did not answer in time.
    #[error("'{place}' failed at '{object}': {reason}")]
    Failed {
        /// The object.
        object: String,
        /// Where.
        place: String,
        /// What it said.
        reason: String,
    },
    /// A local file failed.
    #[error("can't {action} '{path}': {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The store overwrites where it must not.
    #[error(
        "'{place}' does not keep put-if-absent (If-None-Match): {reason}; segments would be lost there, so use a store \
         that does, such as AWS S3, MinIO or Ceph"
    )]
    Overwrites {
        /// Where.
        place: String,
        /// What was seen.
        reason: String,
    },
}

/// What can be said of an S3 store beyond its URL; empty texts leave it to AWS's usual variables.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Settings {
    /// URL of the service.
    pub endpoint: String,
    /// Region.
    pub region: String,
    /// The URL names the bucket (`https://bucket.service`), which is not in the path then.
    pub virtual_hosted: bool,
    /// Speak unencrypted HTTP.
    pub allow_http: bool,
}

/// An object as it is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Its size.
    pub bytes: u64,
    /// When it was written, by the store's clock. **Units**: ns.
    pub modified_ns: i64,
}

/// Size and checksum of what was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Bytes.
    pub bytes: u64,
    /// xxhash64 of them, seed 0.
    pub xxh64: u64,
}

/// A place in an object store.
#[derive(Debug, Clone)]
pub struct Remote {
    objects: Arc<dyn ObjectStore>,
    prefix: Key,
    /// The directory, where it is one: we fsync what the library does not.
    directory: Option<PathBuf>,
    place: String,
}

impl Remote {
    /// Opens `s3://bucket/prefix`, or a directory (made when absent). Nothing is sent yet.
    ///
    /// **Errors**: [`Error::Invalid`], [`Error::File`].
    pub fn open(place: &str, settings: &Settings) -> Result<Remote, Error> {
        let invalid = |reason: String| Error::Invalid { place: place.to_owned(), reason };
        let Some((scheme, rest)) = place.split_once("://") else { return Remote::open_directory(place) };
        if scheme != "s3" {
            return Err(invalid("it is neither a directory nor s3://bucket/prefix".to_owned()));
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(invalid("it names no bucket; write s3://bucket/prefix".to_owned()));
        }
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(RetryConfig {
            max_retries: REPETITIONS_MAX,
            retry_timeout: REQUEST_TIME_MAX,
            ..RetryConfig::default()
        });
        if settings.allow_http {
            builder = builder.with_client_options(ClientOptions::new().with_allow_http(true));
        }
        if settings.virtual_hosted {
            builder = builder.with_virtual_hosted_style_request(true);
        }
        if !settings.endpoint.is_empty() {
            builder = builder.with_endpoint(&settings.endpoint);
        }
        if !settings.region.is_empty() {
            builder = builder.with_region(&settings.region);
        }
        let objects = builder.build().map_err(|error| invalid(error.to_string()))?;
        let prefix = Key::parse(prefix.trim_matches('/')).map_err(|error| invalid(error.to_string()))?;
        Ok(Remote { objects: Arc::new(objects), prefix, directory: None, place: place.to_owned() })
    }

    fn open_directory(place: &str) -> Result<Remote, Error> {
        let failed = |source| Error::File { action: "use", path: place.into(), source };
        std::fs::create_dir_all(place).map_err(failed)?;
        let directory = std::fs::canonicalize(place).map_err(failed)?;
        let objects = LocalFileSystem::new_with_prefix(&directory)
            .map_err(|error| Error::Invalid { place: place.to_owned(), reason: error.to_string() })?;
        let (objects, prefix) = (Arc::new(objects), Key::default());
        Ok(Remote { objects, prefix, directory: Some(directory), place: place.to_owned() })
    }

    /// As it was named.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Finds out whether the store keeps put-if-absent, one after another and in a race.
    ///
    /// **Errors**: [`Error::Overwrites`] when it does not, [`Error::Failed`] when it does not answer.
    pub async fn probe(&self) -> Result<(), Error> {
        let overwrites = |reason: String| Error::Overwrites { place: self.place.clone(), reason };
        let nonce = format!("{:x}-{:x}", std::process::id(), crate::clock::Clock::System.now_ns());
        let (plain, race) = (format!("probe/{nonce}-plain"), format!("probe/{nonce}-race"));
        self.put_new(&plain, Bytes::from_static(b"first")).await?;
        let second = self.put_new(&plain, Bytes::from_static(b"second")).await;
        let racers = (0..RACERS).map(|at| self.put_new(&race, Bytes::from(vec![at as u8; 1_024])));
        let raced = futures::future::join_all(racers).await;
        let mut deleted = Ok(());
        for object in [&plain, &race] {
            deleted = deleted.and(self.delete(object).await);
        }
        match second {
            Err(Error::Exists { .. }) => {}
            Err(error) => return Err(error),
            Ok(()) => return Err(overwrites("a second create of one object succeeded".to_owned())),
        }
        let mut winners = 0;
        for outcome in raced {
            match outcome {
                Ok(()) => winners += 1,
                Err(Error::Exists { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        match winners {
            1 => deleted,
            _ => Err(overwrites(format!("{winners} of {RACERS} simultaneous creates of one object succeeded"))),
        }
    }

    /// Stores bytes, replacing what is there.
    pub async fn put_bytes(&self, object: &str, bytes: Bytes) -> Result<(), Error> {
        self.put_with(object, bytes, PutMode::Overwrite).await
    }

    /// Stores bytes where nothing is. **Errors**: [`Error::Exists`].
    pub async fn put_new(&self, object: &str, bytes: Bytes) -> Result<(), Error> {
        self.put_with(object, bytes, PutMode::Create).await
    }

    async fn put_with(&self, object: &str, bytes: Bytes, mode: PutMode) -> Result<(), Error> {
        let (key, size) = (self.key(object), bytes.len() as u64);
        let put = self.objects.put_opts(&key, PutPayload::from_bytes(bytes), PutOptions::from(mode));
        self.in_time(object, size, put).await?;
        self.seal(object)
    }

    /// Stores a file, replacing what is there; the same file may be stored again.
    ///
    /// **Errors**: [`Error::File`] (its source says whether the file is there), [`Error::Failed`].
    pub async fn put(&self, object: &str, file: &Path) -> Result<Copied, Error> {
        let failed = |source| Error::File { action: "read", path: file.to_owned(), source };
        let mut opened = File::open(file).await.map_err(failed)?;
        let size = opened.metadata().await.map_err(failed)?.len();
        if size <= PART_BYTES as u64 {
            let mut bytes = Vec::with_capacity(size as usize);
            opened.read_to_end(&mut bytes).await.map_err(failed)?;
            let copied = copied_of(&bytes);
            self.put_bytes(object, bytes.into()).await?;
            return Ok(copied);
        }
        let key = self.key(object);
        let mut upload = self.in_time(object, 0, self.objects.put_multipart(&key)).await?;
        let (mut bytes, mut hash) = (0, XxHash64::with_seed(0));
        let outcome = async {
            loop {
                let mut part = Vec::with_capacity(PART_BYTES);
                (&mut opened).take(PART_BYTES as u64).read_to_end(&mut part).await.map_err(failed)?;
                if part.is_empty() {
                    break;
                }
                hash.write(&part);
                bytes += part.len() as u64;
                let part_bytes = part.len() as u64;
                self.in_time(object, part_bytes, upload.put_part(PutPayload::from(part))).await?;
            }
            self.in_time(object, 0, upload.complete()).await
        };
        if let Err(error) = outcome.await {
            // The error that ended the upload is told; parts that stay behind are the store's to expire.
            let _ = self.in_time(object, 0, upload.abort()).await;
            return Err(error);
        }
        self.seal(object)?;
        Ok(Copied { bytes, xxh64: hash.finish() })
    }

    /// Reads an object into memory. **Errors**: [`Error::NotFound`], [`Error::Failed`].
    pub async fn get(&self, object: &str) -> Result<Bytes, Error> {
        let key = self.key(object);
        let get = async { self.objects.get(&key).await?.bytes().await };
        self.in_time(object, 64 << 20, get).await
    }

    /// Copies an object to a local file, which has its name once it is complete and fsynced.
    ///
    /// **Errors**: [`Error::NotFound`], [`Error::Failed`], [`Error::File`].
    pub async fn fetch(&self, object: &str, to: &Path) -> Result<Copied, Error> {
        let mut name = to.as_os_str().to_owned();
        name.push(paths::UNFINISHED_SUFFIX);
        let unfinished = PathBuf::from(name);
        let failed = |action| move |source| Error::File { action, path: to.to_owned(), source };
        let parent = to.parent().unwrap_or(Path::new("."));
        tokio::fs::create_dir_all(parent).await.map_err(failed("make the directory of"))?;
        let key = self.key(object);
        let found = self.in_time(object, 0, self.objects.get(&key)).await?;
        let expected = found.meta.size;
        let mut file = File::create(&unfinished).await.map_err(failed("create"))?;
        let (mut bytes, mut hash) = (0, XxHash64::with_seed(0));
        let mut stream = found.into_stream();
        while let Some(piece) = self.in_time(object, PART_BYTES as u64, stream.try_next()).await? {
            hash.write(&piece);
            bytes += piece.len() as u64;
            file.write_all(&piece).await.map_err(failed("write"))?;
        }
        if bytes != expected {
            return Err(self.failed(object, format!("{bytes} of {expected} bytes came")));
        }
        file.flush().await.map_err(failed("write"))?;
        file.sync_all().await.map_err(failed("fsync"))?;
        tokio::fs::rename(&unfinished, to).await.map_err(failed("rename"))?;
        sync_directory(parent).map_err(failed("fsync the directory of"))?;
        Ok(Copied { bytes, xxh64: hash.finish() })
    }

    /// Removes an object; one that is not there is no error.
    pub async fn delete(&self, object: &str) -> Result<(), Error> {
        let key = self.key(object);
        match self.in_time(object, 0, self.objects.delete(&key)).await {
            Err(Error::NotFound { .. }) => Ok(()),
            outcome => outcome,
        }
    }

    /// The objects below a place.
    pub async fn list(&self, below: &str) -> Result<BTreeMap<String, Listed>, Error> {
        let key = self.key(below);
        let mut listed = self.objects.list(Some(&key)).boxed();
        let mut found = BTreeMap::new();
        while let Some(meta) = self.in_time(below, 0, listed.try_next()).await? {
            let inner = meta.location.as_ref().strip_prefix(self.prefix.as_ref()).unwrap_or(meta.location.as_ref());
            let modified_ns = meta.last_modified.timestamp_nanos_opt().unwrap_or(i64::MAX);
            found.insert(inner.trim_start_matches('/').to_owned(), Listed { bytes: meta.size, modified_ns });
        }
        Ok(found)
    }

    fn key(&self, object: &str) -> Key {
        if self.prefix.as_ref().is_empty() { Key::from(object) } else { Key::from(format!("{}/{object}", self.prefix)) }
    }

    async fn in_time<T>(
        &self,
        object: &str,
        bytes: u64,
        call: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Error> {
        let limit = CALL_TIME_MAX + Duration::from_secs(bytes / BYTES_PER_SECOND_MIN);
        let (object_name, place) = (object.to_owned(), self.place.clone());
        match tokio::time::timeout(limit, call).await {
            Err(_) => Err(self.failed(object, format!("no answer within {limit:?}"))),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(object_store::Error::NotFound { .. })) => Err(Error::NotFound { object: object_name, place }),
            Ok(Err(object_store::Error::AlreadyExists { .. })) => Err(Error::Exists { object: object_name, place }),
            Ok(Err(error)) => Err(self.failed(object, innermost(&error))),
        }
    }

    fn failed(&self, object: &str, reason: String) -> Error {
        Error::Failed { object: object.to_owned(), place: self.place.clone(), reason }
    }

    /// Makes an object of a directory durable, with the names that lead to it.
    fn seal(&self, object: &str) -> Result<(), Error> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let path = directory.join(object);
        let failed = |source| Error::File { action: "fsync", path: path.clone(), source };
        std::fs::File::open(&path).and_then(|file| file.sync_all()).map_err(failed)?;
        let mut parents = path.ancestors().skip(1).take_while(|parent| parent.starts_with(directory));
        parents.try_for_each(sync_directory).map_err(failed)
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    std::fs::File::open(path)?.sync_all()
}

fn copied_of(bytes: &[u8]) -> Copied {
    Copied { bytes: bytes.len() as u64, xxh64: XxHash64::oneshot(0, bytes) }
}

/// An error with the one below all others: the outer ones repeat each other.
fn innermost(error: &dyn std::error::Error) -> String {
    let last = std::iter::successors(Some(error), |error| error.source()).last();
    match last.map(ToString::to_string) {
        Some(cause) if !error.to_string().contains(&cause) => format!("{error}: {cause}"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_come_back_as_they_went() {
        let (dir, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let remote = Remote::open(dir.path().to_str().unwrap(), &Settings::default()).unwrap();
        for size in [0, 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES + 5] {
            let (from, to) = (files.path().join("from"), files.path().join("a/to"));
            let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            std::fs::write(&from, &bytes).unwrap();
            let put = remote.put("segments/a/x.parquet", &from).await.unwrap();
            let fetched = remote.fetch("segments/a/x.parquet", &to).await.unwrap();
            assert_eq!((put, std::fs::read(&to).unwrap() == bytes), (fetched, true), "{size}");
            assert_eq!(remote.list("segments").await.unwrap()["segments/a/x.parquet"].bytes, size as u64);
        }
        remote.delete("segments/a/x.parquet").await.unwrap();
        remote.delete("segments/a/x.parquet").await.unwrap();
        assert!(matches!(remote.get("segments/a/x.parquet").await, Err(Error::NotFound { .. })));
    }

    #[tokio::test]
    async fn a_directory_keeps_put_if_absent() {
        let dir = tempfile::tempdir().unwrap();
        let remote = Remote::open(dir.path().to_str().unwrap(), &Settings::default()).unwrap();
        remote.probe().await.unwrap();
        assert!(remote.list("probe").await.unwrap().is_empty());
    }

    #[test]
    fn places_that_cannot_be_are_told() {
        for (place, reason) in [("gs://b/c", "neither a directory nor s3"), ("s3:///x", "names no bucket")] {
            let error = Remote::open(place, &Settings::default()).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
