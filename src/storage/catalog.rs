//! The catalog: which segments are live, and up to which record the write-ahead log is no longer needed. The only commit
//! point of the store: one transaction moves both. SQLite through sqlx, in SQL that PostgreSQL takes too.
//!
//! **Invariant**: a segment that the catalog names is complete and fsynced; a record is below the low-water mark exactly
//! when it lies in such a segment.

use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{Executor, Row};

use super::retention::Class;
use super::schema::FieldInfo;
use crate::record::{FieldType, Tenant};

/// Version of the tables below; a store of a later version is refused.
const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS store (
    id BIGINT PRIMARY KEY, version BIGINT NOT NULL, low_water BIGINT NOT NULL, next_segment BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS segment (
    id BIGINT PRIMARY KEY, tenant TEXT NOT NULL, path TEXT NOT NULL, class TEXT NOT NULL, day TEXT NOT NULL,
    records BIGINT NOT NULL, bytes BIGINT NOT NULL, min_ts BIGINT NOT NULL, max_ts BIGINT NOT NULL,
    min_seq BIGINT NOT NULL, max_seq BIGINT NOT NULL, detail TEXT NOT NULL
);";

/// A live segment as the catalog describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Never used twice.
    pub id: i64,
    /// Whose records.
    pub tenant: Tenant,
    /// Place below the segments' root.
    pub path: String,
    /// Which retention holds for it.
    pub class: Class,
    /// UTC day, `2026-02-10`.
    pub day: String,
    /// How many records.
    pub records: u64,
    /// Size of the file.
    pub bytes: u64,
    /// Earliest timestamp, ns.
    pub min_ts: i64,
    /// Latest timestamp, ns.
    pub max_ts: i64,
    /// Lowest sequence number.
    pub min_seq: i64,
    /// Highest sequence number.
    pub max_seq: i64,
    /// What planning needs beyond the columns of the catalog.
    pub detail: Detail,
}

/// The part of a segment's description that no SQL looks into; JSON in the catalog.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Detail {
    /// The fields, in the order of the file's columns.
    pub fields: Vec<SegmentField>,
    /// The levels in it, `None` standing for records without one.
    pub levels: Vec<Option<String>>,
    /// The services in it, likewise; absent when there are too many to list.
    pub services: Option<Vec<Option<String>>>,
}

/// A field of a segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SegmentField {
    /// Its name.
    pub name: String,
    /// Its type in this segment.
    #[serde(with = "field_type")]
    pub r#type: FieldType,
    /// Some of its values lie in the overflow column.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overflow: bool,
    /// It has a column in this segment.
    #[serde(default = "yes", skip_serializing_if = "bool::clone")]
    pub column: bool,
}

fn yes() -> bool {
    true
}

impl From<(String, FieldInfo)> for SegmentField {
    fn from((name, info): (String, FieldInfo)) -> SegmentField {
        SegmentField { name, r#type: info.r#type, overflow: info.overflow, column: info.column }
    }
}

impl SegmentField {
    /// What is known of the field in this segment.
    pub fn info(&self) -> FieldInfo {
        FieldInfo { r#type: self.r#type, overflow: self.overflow, column: self.column }
    }
}

/// What the catalog can answer instead of a result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database refused or failed.
    #[error("the catalog '{path}' failed: {source}")]
    Database {
        /// The database.
        path: String,
        /// What it said.
        source: sqlx::Error,
    },
    /// Written by a later release.
    #[error("the catalog '{path}' has version {found}, this program knows up to {SCHEMA_VERSION}; use a newer quiver")]
    Version {
        /// The database.
        path: String,
        /// Its version.
        found: i64,
    },
    /// A row can't be understood.
    #[error("segment {id} of the catalog '{path}' is damaged: {reason}")]
    Damaged {
        /// The database.
        path: String,
        /// The row.
        id: i64,
        /// What is wrong with it.
        reason: String,
    },
    /// A deletion can't be understood.
    #[error("deletion {id} of the catalog '{path}' is damaged: {reason}")]
    DamagedDeletion {
        /// The database.
        path: String,
        /// The row.
        id: i64,
        /// What is wrong with it.
        reason: String,
    },
}

/// What the catalog says when it is opened.
#[derive(Debug, Default)]
pub struct Contents {
    /// All live segments.
    pub segments: Vec<Segment>,
    /// Records below it are in segments.
    pub low_water: u64,
    /// The next segment's id.
    pub next_segment: i64,
}

/// The open catalog.
#[derive(Debug, Clone)]
pub struct Catalog {
    pool: SqlitePool,
    path: String,
}

impl Catalog {
    /// Opens or creates the catalog in `file`.
    pub async fn open(file: &Path) -> Result<(Catalog, Contents), Error> {
        let path = file.display().to_string();
        let failed = |source| Error::Database { path: path.clone(), source };
        let options = SqliteConnectOptions::from_str("sqlite://")
            .map_err(failed)?
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let pool = SqlitePoolOptions::new().max_connections(2).connect_with(options).await.map_err(failed)?;
        pool.execute(SCHEMA).await.map_err(failed)?;
        let insert =
            "INSERT INTO store (id, version, low_water, next_segment) VALUES (1, $1, 0, 1) ON CONFLICT DO NOTHING";
        sqlx::query(insert).bind(SCHEMA_VERSION).execute(&pool).await.map_err(failed)?;
        let catalog = Catalog { pool, path };
        let contents = catalog.read().await?;
        Ok((catalog, contents))
    }

    pub(super) fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    async fn read(&self) -> Result<Contents, Error> {
        let failed = |source| Error::Database { path: self.path.clone(), source };
        let store = sqlx::query("SELECT version, low_water, next_segment FROM store WHERE id = 1")
            .fetch_one(&self.pool)
            .await
            .map_err(failed)?;
        let found: i64 = store.get("version");
        if found > SCHEMA_VERSION {
            return Err(Error::Version { path: self.path.clone(), found });
        }
        let rows = sqlx::query("SELECT * FROM segment ORDER BY id").fetch_all(&self.pool).await.map_err(failed)?;
        let segments = rows.iter().map(|row| self.segment(row)).collect::<Result<_, _>>()?;
        let low_water = store.get::<i64, _>("low_water") as u64;
        Ok(Contents { segments, low_water, next_segment: store.get("next_segment") })
    }

    fn segment(&self, row: &SqliteRow) -> Result<Segment, Error> {
        let id = row.get("id");
        let damaged = |reason: String| Error::Damaged { path: self.path.clone(), id, reason };
        let tenant: &str = row.get("tenant");
        let class: &str = row.get("class");
        Ok(Segment {
            id,
            tenant: Tenant::parse(tenant).ok_or_else(|| damaged(format!("'{tenant}' is no tenant")))?,
            path: row.get("path"),
            class: Class::parse(class).ok_or_else(|| damaged(format!("'{class}' is no retention class")))?,
            day: row.get("day"),
            records: row.get::<i64, _>("records") as u64,
            bytes: row.get::<i64, _>("bytes") as u64,
            min_ts: row.get("min_ts"),
            max_ts: row.get("max_ts"),
            min_seq: row.get("min_seq"),
            max_seq: row.get("max_seq"),
            detail: serde_json::from_str(row.get("detail")).map_err(|error| damaged(error.to_string()))?,
        })
    }

    /// Makes `segments` live and moves the low-water mark, in one transaction.
    pub async fn commit(&self, segments: &[Segment], low_water: u64, next_segment: i64) -> Result<(), Error> {
        let failed = |source| Error::Database { path: self.path.clone(), source };
        let mut transaction = self.pool.begin().await.map_err(failed)?;
        for segment in segments {
            let detail = serde_json::to_string(&segment.detail).expect("strings and lists always serialise");
            let insert = "INSERT INTO segment (id, tenant, path, class, day, records, bytes, min_ts, max_ts, min_seq, \
                          max_seq, detail) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
            sqlx::query(insert)
                .bind(segment.id)
                .bind(segment.tenant.as_str())
                .bind(&segment.path)
                .bind(segment.class.as_str())
                .bind(&segment.day)
                .bind(segment.records as i64)
                .bind(segment.bytes as i64)
                .bind(segment.min_ts)
                .bind(segment.max_ts)
                .bind(segment.min_seq)
                .bind(segment.max_seq)
                .bind(detail)
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
        }
        sqlx::query("UPDATE store SET low_water = $1, next_segment = $2 WHERE id = 1")
            .bind(low_water as i64)
            .bind(next_segment)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)
    }

    /// Closes the database; what was committed is on disk already.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Field types as words in the catalog's JSON.
mod field_type {
    use super::FieldType;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    const WORDS: [(FieldType, &str); 4] = [
        (FieldType::Integer, "integer"),
        (FieldType::Float, "float"),
        (FieldType::Boolean, "boolean"),
        (FieldType::Text, "text"),
    ];

    pub fn serialize<S: Serializer>(kind: &FieldType, serializer: S) -> Result<S::Ok, S::Error> {
        let word = WORDS.iter().find(|(known, _)| known == kind).map_or("text", |(_, word)| word);
        serializer.serialize_str(word)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<FieldType, D::Error> {
        let word = String::deserialize(deserializer)?;
        let found = WORDS.iter().find(|(_, known)| *known == word);
        found.map(|(kind, _)| *kind).ok_or_else(|| D::Error::custom(format!("'{word}' is no field type")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(id: i64) -> Segment {
        let fields = vec![
            SegmentField { name: "status".into(), r#type: FieldType::Integer, overflow: false, column: true },
            SegmentField { name: "rare".into(), r#type: FieldType::Text, overflow: true, column: false },
        ];
        Segment {
            id,
            tenant: Tenant::default_tenant(),
            path: format!("default/2026-02-10/warn/{id:012}.parquet"),
            class: Class::Warn,
            day: "2026-02-10".into(),
            records: 10,
            bytes: 1000,
            min_ts: -5,
            max_ts: i64::MAX,
            min_seq: 1,
            max_seq: 10,
            detail: Detail { fields, levels: vec![Some("warn".into())], services: Some(vec![None]) },
        }
    }

    #[tokio::test]
    async fn what_was_committed_is_there_after_opening_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("catalog.sqlite");
        let (catalog, contents) = Catalog::open(&file).await.unwrap();
        assert_eq!((contents.segments.len(), contents.low_water, contents.next_segment), (0, 0, 1));
        catalog.commit(&[segment(1), segment(2)], 21, 3).await.unwrap();
        catalog.close().await;
        let (_, contents) = Catalog::open(&file).await.unwrap();
        assert_eq!(contents.segments, [segment(1), segment(2)]);
        assert_eq!((contents.low_water, contents.next_segment), (21, 3));
    }

    #[tokio::test]
    async fn a_commit_that_fails_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("catalog.sqlite");
        let (catalog, _) = Catalog::open(&file).await.unwrap();
        catalog.commit(&[segment(1)], 11, 2).await.unwrap();
        assert!(catalog.commit(&[segment(2), segment(1)], 21, 3).await.is_err(), "segment 1 exists");
        let (_, contents) = Catalog::open(&file).await.unwrap();
        assert_eq!((contents.segments.len(), contents.low_water), (1, 11));
    }

    #[tokio::test]
    async fn a_catalog_of_a_later_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("catalog.sqlite");
        let (catalog, _) = Catalog::open(&file).await.unwrap();
        catalog.pool.execute("UPDATE store SET version = 99").await.unwrap();
        catalog.close().await;
        let error = Catalog::open(&file).await.unwrap_err().to_string();
        assert!(error.contains("version 99"), "{error}");
    }
}
