//! Looks at a data directory without opening the store, also while another process has it open: a consistent copy of
//! the catalog, the log's frames, and whether a segment can be read. It takes no lock and changes nothing.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row};
use tempfile::TempDir;

use super::catalog::{self, Catalog, Segment};
use super::{Error, frame, paths};
use crate::wal::{self, Frame};

/// How long another process may keep the catalog to itself.
const BUSY_MAX: Duration = Duration::from_secs(30);

/// The catalog as it was at one moment, in a file of its own that goes away with this value.
#[derive(Debug)]
pub struct CatalogCopy {
    _dir: TempDir,
    /// The copy: a whole catalog.
    pub file: PathBuf,
    /// The live segments.
    pub segments: Vec<Segment>,
    /// Records below it are in segments.
    pub low_water: u64,
}

impl CatalogCopy {
    /// Copies the catalog of a data directory. **Errors**: [`Error::DataDir`] when there is none.
    pub async fn of(data_dir: &Path) -> Result<CatalogCopy, Error> {
        let original = paths::catalog_file(data_dir);
        let (dir, file) = place_for_copy()?;
        let failed = |source| catalog::Error::Database { path: original.display().to_string(), source };
        if !original.is_file() {
            return Err(Error::DataDir { path: original, source: io::ErrorKind::NotFound.into() });
        }
        let options = SqliteConnectOptions::new().filename(&original).busy_timeout(BUSY_MAX);
        let mut connection = options.connect().await.map_err(failed)?;
        let copied =
            sqlx::query("VACUUM INTO $1").bind(file.display().to_string()).execute(&mut connection).await.map(drop);
        connection.close().await.and(copied).map_err(failed)?;
        CatalogCopy::read(dir, file).await
    }

    /// Takes the bytes of a catalog that was copied before.
    pub async fn of_bytes(bytes: &[u8]) -> Result<CatalogCopy, Error> {
        let (dir, file) = place_for_copy()?;
        std::fs::write(&file, bytes).map_err(|source| Error::DataDir { path: file.clone(), source })?;
        CatalogCopy::read(dir, file).await
    }

    async fn read(dir: TempDir, file: PathBuf) -> Result<CatalogCopy, Error> {
        let (catalog, contents) = Catalog::open(&file).await?;
        catalog.close().await;
        Ok(CatalogCopy { _dir: dir, file, segments: contents.segments, low_water: contents.low_water })
    }

    /// Has SQLite check the whole file; what it found wrong, in its words.
    pub async fn check(&self) -> Result<Vec<String>, Error> {
        let failed = |source| catalog::Error::Database { path: self.file.display().to_string(), source };
        let mut connection = SqliteConnectOptions::new().filename(&self.file).connect().await.map_err(failed)?;
        let rows = sqlx::query("PRAGMA integrity_check").fetch_all(&mut connection).await.map_err(failed)?;
        connection.close().await.map_err(failed)?;
        Ok(rows.iter().map(|row| row.get::<String, _>(0)).filter(|found| found != "ok").collect())
    }
}

fn place_for_copy() -> Result<(TempDir, PathBuf), Error> {
    let dir = TempDir::with_prefix("quiver-catalog-")
        .map_err(|source| Error::DataDir { path: std::env::temp_dir(), source })?;
    let file = paths::catalog_file(dir.path());
    Ok((dir, file))
}

/// The files of the write-ahead log, oldest first.
pub fn wal_files(data_dir: &Path) -> Result<Vec<PathBuf>, Error> {
    Ok(wal::files(&paths::wal_dir(data_dir))?)
}

/// Decodes what a frame of the write-ahead log holds. **Errors**: [`Error::Frame`] and what Arrow says.
pub fn check_frame(found: &Frame) -> Result<(), Error> {
    let batch = frame::decode(&found.payload)?.batch;
    if batch.num_rows() != found.rows as usize {
        return Err(Error::Frame(format!("it names {} records and holds {}", found.rows, batch.num_rows())));
    }
    Ok(())
}

/// Decodes every value of a segment's file; what is wrong with it, if anything is. An open file can be read to its end,
/// whatever becomes of its name.
pub fn check_segment(opened: File, segment: &Segment) -> Result<(), String> {
    let bytes = opened.metadata().map_err(|error| error.to_string())?.len();
    if bytes != segment.bytes {
        return Err(format!("it has {bytes} bytes, the catalog says {}", segment.bytes));
    }
    let reader = ParquetRecordBatchReaderBuilder::try_new(opened)
        .and_then(|builder| builder.with_batch_size(8_192).build())
        .map_err(|error| format!("its footer can't be read: {error}"))?;
    let mut records = 0;
    for batch in reader {
        let batch = batch.map_err(|error| format!("it can't be decoded behind record {records}: {error}"))?;
        records += batch.num_rows() as u64;
    }
    if records != segment.records {
        return Err(format!("it has {records} records, the catalog says {}", segment.records));
    }
    Ok(())
}
