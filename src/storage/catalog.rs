//! The catalog: which segments are live, and up to which record the write-ahead log is no longer needed. The only commit
//! point of the store: one transaction moves both. SQLite through sqlx, in SQL that PostgreSQL takes too.
//!
//! **Invariant**: a segment that the catalog names is complete and fsynced; a record is below the low-water mark exactly
//! when it lies in such a segment.

use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{Executor, Row};

use super::repeats::{BatchId, IDS_MAX};
use super::retention::Class;
use super::schema::FieldInfo;
use super::sources::{Reached, SOURCES_MAX};
use crate::record::{FieldType, Tenant};

/// Version of the tables; a store of a later version is refused.
const SCHEMA_VERSION: i64 = 1 + UPGRADES.len() as i64;

/// An id in hexadecimal.
const ID_DIGITS: usize = 32;

/// Codes of SQLite for a file that is damaged, and for one that is no database at all.
const SQLITE_DAMAGED: [&str; 2] = ["11", "26"];

/// The tables of version 1.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS store (
    id BIGINT PRIMARY KEY, version BIGINT NOT NULL, low_water BIGINT NOT NULL, next_segment BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS segment (
    id BIGINT PRIMARY KEY, tenant TEXT NOT NULL, path TEXT NOT NULL, class TEXT NOT NULL, day TEXT NOT NULL,
    records BIGINT NOT NULL, bytes BIGINT NOT NULL, min_ts BIGINT NOT NULL, max_ts BIGINT NOT NULL,
    min_seq BIGINT NOT NULL, max_seq BIGINT NOT NULL, detail TEXT NOT NULL
);";

/// What leads from each version to the next.
const UPGRADES: [&str; 4] = [
    "
ALTER TABLE segment ADD COLUMN flushed_ns BIGINT NOT NULL DEFAULT 0;
ALTER TABLE segment ADD COLUMN flushed_bytes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE segment ADD COLUMN written_bytes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE segment ADD COLUMN quarantined TEXT;
UPDATE segment SET flushed_bytes = bytes, written_bytes = bytes;",
    // Catalogs of version 2 have this table from the first deletion on.
    "
CREATE TABLE IF NOT EXISTS deletion (
    id BIGINT PRIMARY KEY, tenant TEXT NOT NULL, filter TEXT NOT NULL, from_ns BIGINT NOT NULL, to_ns BIGINT NOT NULL,
    cutoff_seq BIGINT NOT NULL, state TEXT NOT NULL, segments_done BIGINT NOT NULL, segments_total BIGINT NOT NULL,
    records_removed BIGINT NOT NULL, error TEXT, requested_ns BIGINT NOT NULL
);
ALTER TABLE deletion ADD COLUMN awaits TEXT NOT NULL DEFAULT '[]';",
    "
CREATE TABLE batch_id (tenant TEXT NOT NULL, low_water BIGINT NOT NULL, ids TEXT NOT NULL, PRIMARY KEY (tenant, low_water));",
    "
CREATE TABLE reached (source TEXT PRIMARY KEY, next BIGINT NOT NULL, low_water BIGINT NOT NULL);",
];

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
    /// What happened to it so far.
    pub history: History,
}

/// What happened to a segment's records since they left the buffer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// When the newest of them were flushed, ns; 0 when that was before this was written down.
    pub flushed_ns: i64,
    /// Size of the segments that they were flushed to.
    pub flushed_bytes: u64,
    /// Bytes written for them by that flush and all merges since.
    pub written_bytes: u64,
    /// Why the segment can't be read, when it can't: it keeps its files, and queries leave it out and say so.
    pub quarantined: Option<String>,
}

impl Segment {
    /// What it takes on disk, with its index.
    pub fn disk_bytes(&self) -> u64 {
        self.bytes + self.detail.index_bytes
    }
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
    /// CRC-32 of the file; segments of format 1 have none, and no index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc32: Option<u32>,
    /// Size of the index beside the file.
    #[serde(default)]
    pub index_bytes: u64,
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
    /// Some of its values are integers that no double holds exactly.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub large: bool,
}

fn yes() -> bool {
    true
}

impl From<(String, FieldInfo)> for SegmentField {
    fn from((name, info): (String, FieldInfo)) -> SegmentField {
        SegmentField { name, r#type: info.r#type, overflow: info.overflow, column: info.column, large: info.large }
    }
}

impl SegmentField {
    /// What is known of the field in this segment.
    pub fn info(&self) -> FieldInfo {
        FieldInfo { r#type: self.r#type, overflow: self.overflow, column: self.column, large: self.large }
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
    /// The file is no SQLite database, or a damaged one.
    #[error(
        "the catalog '{path}' is damaged: {reason}; stop quiver and restore the data directory's catalog and segments \
         from a backup (the segments are plain Parquet files and can be read without it)"
    )]
    Unreadable {
        /// The database.
        path: String,
        /// What SQLite said.
        reason: String,
    },
    /// A segment to be replaced is not there any more; nothing was changed.
    #[error("segment {id} is not in the catalog '{path}' any more")]
    Gone {
        /// The database.
        path: String,
        /// The segment.
        id: i64,
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
    /// All segments, the quarantined ones among them.
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
    /// Opens or creates the catalog in `file`, and brings an older one to the present version.
    ///
    /// **Errors**: [`Error::Unreadable`] when the file is damaged, [`Error::Version`] when it is too new.
    pub async fn open(file: &Path) -> Result<(Catalog, Contents), Error> {
        let path = file.display().to_string();
        let options = SqliteConnectOptions::from_str("sqlite://")
            .map_err(|source| failure(&path, source))?
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let pool = SqlitePoolOptions::new().max_connections(2).connect_with(options).await;
        let catalog = Catalog { pool: pool.map_err(|source| failure(&path, source))?, path };
        catalog.upgrade().await?;
        let contents = catalog.read().await?;
        Ok((catalog, contents))
    }

    fn failed(&self, source: sqlx::Error) -> Error {
        failure(&self.path, source)
    }

    /// Makes the tables, and takes the steps from their version to ours, each in a transaction of its own.
    async fn upgrade(&self) -> Result<(), Error> {
        let failed = |source| self.failed(source);
        let mut transaction = self.pool.begin().await.map_err(failed)?;
        transaction.execute(SCHEMA).await.map_err(failed)?;
        let insert =
            "INSERT INTO store (id, version, low_water, next_segment) VALUES (1, 1, 0, 1) ON CONFLICT DO NOTHING";
        transaction.execute(insert).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        loop {
            let mut transaction = self.pool.begin().await.map_err(failed)?;
            let select = sqlx::query("SELECT version FROM store WHERE id = 1");
            let found: i64 = select.fetch_one(&mut *transaction).await.map_err(failed)?.get("version");
            if found > SCHEMA_VERSION {
                return Err(Error::Version { path: self.path.clone(), found });
            }
            let Some(step) = usize::try_from(found - 1).ok().and_then(|at| UPGRADES.get(at)) else { return Ok(()) };
            transaction.execute(*step).await.map_err(failed)?;
            let update = sqlx::query("UPDATE store SET version = version + 1 WHERE id = 1");
            update.execute(&mut *transaction).await.map_err(failed)?;
            transaction.commit().await.map_err(failed)?;
        }
    }

    pub(super) fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    async fn read(&self) -> Result<Contents, Error> {
        let failed = |source| self.failed(source);
        let store = sqlx::query("SELECT low_water, next_segment FROM store WHERE id = 1")
            .fetch_one(&self.pool)
            .await
            .map_err(failed)?;
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
            history: History {
                flushed_ns: row.get("flushed_ns"),
                flushed_bytes: row.get::<i64, _>("flushed_bytes") as u64,
                written_bytes: row.get::<i64, _>("written_bytes") as u64,
                quarantined: row.get("quarantined"),
            },
        })
    }

    /// Makes `segments` live, remembers the `ids` of their records and what their sources `reached`, and moves the low-water
    /// mark, in one transaction.
    pub async fn commit(
        &self,
        segments: &[Segment],
        ids: &[(Tenant, Vec<BatchId>)],
        reached: &[Reached],
        low_water: u64,
        next_segment: i64,
    ) -> Result<(), Error> {
        let failed = |source| self.failed(source);
        let mut transaction = self.pool.begin().await.map_err(failed)?;
        for segment in segments {
            insert(&mut transaction, segment).await.map_err(failed)?;
        }
        for (tenant, ids) in ids {
            insert_ids(&mut transaction, tenant, ids, low_water).await.map_err(failed)?;
        }
        insert_reached(&mut transaction, reached, low_water).await.map_err(failed)?;
        let update = sqlx::query("UPDATE store SET low_water = $1 WHERE id = 1").bind(low_water as i64);
        update.execute(&mut *transaction).await.map_err(failed)?;
        raise_next_segment(&mut transaction, next_segment).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)
    }

    /// The ids that flushes brought, of each tenant from the oldest.
    pub async fn batch_ids(&self) -> Result<Vec<(Tenant, Vec<BatchId>)>, Error> {
        let rows =
            sqlx::query("SELECT tenant, ids FROM batch_id ORDER BY tenant, low_water").fetch_all(&self.pool).await;
        let read = |row: &SqliteRow| {
            // An id that can't be read is one that is not known; it costs no more than a line that is there twice.
            let tenant = Tenant::parse(row.get("tenant"))?;
            let texts = row.get::<&str, _>("ids").as_bytes().chunks(ID_DIGITS);
            let ids = texts.filter_map(|text| u128::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok());
            Some((tenant, ids.map(BatchId).collect()))
        };
        Ok(rows.map_err(|source| self.failed(source))?.iter().filter_map(read).collect())
    }

    /// How far sources were kept, of those that moved last.
    pub async fn reached(&self) -> Result<Vec<Reached>, Error> {
        let select = sqlx::query("SELECT source, next FROM reached ORDER BY low_water DESC LIMIT $1");
        let rows = select.bind(SOURCES_MAX as i64).fetch_all(&self.pool).await.map_err(|source| self.failed(source))?;
        Ok(rows.iter().map(|row| Reached::new(row.get("source"), row.get("next"))).collect())
    }

    /// Removes segments by id and makes others live in their place, in one transaction; with nothing `added` it only
    /// removes. The files are the caller's to unlink, once nobody reads them.
    ///
    /// **Errors**: [`Error::Gone`] when one of `removed` is not there; then nothing is changed.
    pub async fn replace(&self, removed: &[i64], added: &[Segment], next_segment: i64) -> Result<(), Error> {
        let failed = |source| self.failed(source);
        let mut transaction = self.pool.begin().await.map_err(failed)?;
        for id in removed {
            let delete = sqlx::query("DELETE FROM segment WHERE id = $1").bind(*id);
            if delete.execute(&mut *transaction).await.map_err(failed)?.rows_affected() != 1 {
                return Err(Error::Gone { path: self.path.clone(), id: *id });
            }
        }
        for segment in added {
            insert(&mut transaction, segment).await.map_err(failed)?;
        }
        raise_next_segment(&mut transaction, next_segment).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)
    }

    /// Marks a segment as one that can't be read. **Errors**: [`Error::Gone`] when there is none of that id.
    pub async fn quarantine(&self, id: i64, reason: &str) -> Result<(), Error> {
        let update = sqlx::query("UPDATE segment SET quarantined = $1 WHERE id = $2").bind(reason).bind(id);
        let found = update.execute(&self.pool).await.map_err(|source| self.failed(source))?.rows_affected();
        if found == 1 { Ok(()) } else { Err(Error::Gone { path: self.path.clone(), id }) }
    }

    /// Closes the database; what was committed is on disk already.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

fn failure(path: &str, source: sqlx::Error) -> Error {
    let damaged = |error: &dyn sqlx::error::DatabaseError| {
        error.code().is_some_and(|code| SQLITE_DAMAGED.contains(&code.as_ref())).then(|| error.to_string())
    };
    match source.as_database_error().and_then(damaged) {
        Some(reason) => Error::Unreadable { path: path.to_owned(), reason },
        None => Error::Database { path: path.to_owned(), source },
    }
}

/// Adds a flush's ids of a tenant, and forgets the flushes whose ids are not among the newest [`IDS_MAX`].
async fn insert_ids(
    connection: &mut SqliteConnection,
    tenant: &Tenant,
    ids: &[BatchId],
    low_water: u64,
) -> Result<(), sqlx::Error> {
    let text: String = ids.iter().map(|id| format!("{:032x}", id.0)).collect();
    let query = sqlx::query("INSERT INTO batch_id (tenant, low_water, ids) VALUES ($1, $2, $3)");
    query.bind(tenant.as_str()).bind(low_water as i64).bind(text).execute(&mut *connection).await?;
    let select = "SELECT low_water, length(ids) AS length FROM batch_id WHERE tenant = $1 ORDER BY low_water DESC";
    let mut newer = 0;
    for row in sqlx::query(select).bind(tenant.as_str()).fetch_all(&mut *connection).await? {
        if newer >= IDS_MAX {
            let delete = sqlx::query("DELETE FROM batch_id WHERE tenant = $1 AND low_water = $2");
            delete.bind(tenant.as_str()).bind(row.get::<i64, _>("low_water")).execute(&mut *connection).await?;
        }
        newer += row.get::<i64, _>("length") as usize / ID_DIGITS;
    }
    Ok(())
}

/// Writes down how far sources were kept, and forgets the oldest when there are too many.
async fn insert_reached(
    connection: &mut SqliteConnection,
    reached: &[Reached],
    low_water: u64,
) -> Result<(), sqlx::Error> {
    for one in reached {
        let insert = "INSERT INTO reached (source, next, low_water) VALUES ($1, $2, $3) ON CONFLICT (source) DO UPDATE \
                      SET next = excluded.next, low_water = excluded.low_water";
        let insert = sqlx::query(insert).bind(one.source()).bind(one.next).bind(low_water as i64);
        insert.execute(&mut *connection).await?;
    }
    if !reached.is_empty() {
        let delete =
            "DELETE FROM reached WHERE source NOT IN (SELECT source FROM reached ORDER BY low_water DESC LIMIT $1)";
        sqlx::query(delete).bind(SOURCES_MAX as i64).execute(&mut *connection).await?;
    }
    Ok(())
}

pub(super) async fn insert(to: &mut SqliteConnection, segment: &Segment) -> Result<(), sqlx::Error> {
    let detail = serde_json::to_string(&segment.detail).expect("strings and lists always serialise");
    let insert = "INSERT INTO segment (id, tenant, path, class, day, records, bytes, min_ts, max_ts, min_seq, max_seq, \
                  detail, flushed_ns, flushed_bytes, written_bytes, quarantined) \
                  VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";
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
        .bind(segment.history.flushed_ns)
        .bind(segment.history.flushed_bytes as i64)
        .bind(segment.history.written_bytes as i64)
        .bind(&segment.history.quarantined)
        .execute(to)
        .await?;
    Ok(())
}

/// Flushes and merges run beside each other, so the one that ends last need not have the highest ids.
pub(super) async fn raise_next_segment(to: &mut SqliteConnection, next_segment: i64) -> Result<(), sqlx::Error> {
    let update = "UPDATE store SET next_segment = $1 WHERE id = 1 AND next_segment < $1";
    sqlx::query(update).bind(next_segment).execute(to).await?;
    Ok(())
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
pub(crate) mod tests {
    use super::*;

    /// A segment of 10 records.
    pub(crate) fn segment(id: i64) -> Segment {
        let fields = vec![
            SegmentField {
                name: "status".into(),
                r#type: FieldType::Integer,
                overflow: false,
                column: true,
                large: false,
            },
            SegmentField { name: "rare".into(), r#type: FieldType::Text, overflow: true, column: false, large: false },
        ];
        Segment {
            id,
            tenant: Tenant::default_tenant(),
            path: format!("default/2026-02-10/warn/{id:012}.parquet"),
            class: Class::parse("warn").unwrap(),
            day: "2026-02-10".into(),
            records: 10,
            bytes: 1000,
            min_ts: -5,
            max_ts: i64::MAX,
            min_seq: 1,
            max_seq: 10,
            detail: Detail {
                fields,
                levels: vec![Some("warn".into())],
                services: Some(vec![None]),
                crc32: Some(7),
                index_bytes: 9,
            },
            history: History { flushed_ns: 5, flushed_bytes: 900, written_bytes: 1900, quarantined: None },
        }
    }

    #[tokio::test]
    async fn what_was_committed_is_there_after_opening_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("catalog.sqlite");
        let (catalog, contents) = Catalog::open(&file).await.unwrap();
        assert_eq!((contents.segments.len(), contents.low_water, contents.next_segment), (0, 0, 1));
        let reached = |next| Reached::new("kafka/g/logs/id/0", next);
        catalog.commit(&[segment(1)], &[], &[reached(5), Reached::new("other", 7)], 11, 2).await.unwrap();
        catalog.commit(&[segment(2)], &[], &[reached(9)], 21, 3).await.unwrap();
        catalog.close().await;
        let (catalog, contents) = Catalog::open(&file).await.unwrap();
        assert_eq!(catalog.reached().await.unwrap(), [reached(9), Reached::new("other", 7)]);
        assert_eq!(contents.segments, [segment(1), segment(2)]);
        assert_eq!((contents.low_water, contents.next_segment), (21, 3));
    }

    #[tokio::test]
    async fn a_commit_that_fails_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("catalog.sqlite");
        let (catalog, _) = Catalog::open(&file).await.unwrap();
        catalog.commit(&[segment(1)], &[], &[], 11, 2).await.unwrap();
        assert!(catalog.commit(&[segment(2), segment(1)], &[], &[], 21, 3).await.is_err(), "segment 1 exists");
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

    #[tokio::test]
    async fn a_replacement_is_all_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("catalog.sqlite");
        let (catalog, _) = Catalog::open(&file).await.unwrap();
        catalog.commit(&[segment(1), segment(2), segment(3)], &[], &[], 31, 4).await.unwrap();
        catalog.replace(&[1, 2], &[segment(4)], 5).await.unwrap();
        let error = catalog.replace(&[3, 2], &[segment(5)], 6).await.unwrap_err();
        assert!(matches!(error, Error::Gone { id: 2, .. }), "{error}");
        assert!(catalog.replace(&[3], &[segment(4)], 6).await.is_err(), "segment 4 exists");
        let contents = catalog.read().await.unwrap();
        assert_eq!(contents.segments, [segment(3), segment(4)]);
        assert_eq!((contents.low_water, contents.next_segment), (31, 5));
        catalog.replace(&[3, 4], &[], 2).await.unwrap();
        let contents = catalog.read().await.unwrap();
        assert_eq!((contents.segments.len(), contents.next_segment), (0, 5), "an id is never used again");
    }

    #[tokio::test]
    async fn a_quarantined_segment_stays_so() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("catalog.sqlite");
        let (catalog, _) = Catalog::open(&file).await.unwrap();
        catalog.commit(&[segment(1), segment(2)], &[], &[], 21, 3).await.unwrap();
        catalog.quarantine(2, "page 7 is damaged").await.unwrap();
        assert!(matches!(catalog.quarantine(3, "x").await, Err(Error::Gone { id: 3, .. })));
        catalog.close().await;
        let (_, contents) = Catalog::open(&file).await.unwrap();
        let reasons: Vec<_> = contents.segments.iter().map(|found| found.history.quarantined.as_deref()).collect();
        assert_eq!(reasons, [None, Some("page 7 is damaged")]);
    }

    #[tokio::test]
    async fn a_catalog_of_version_1_opens() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("catalog.sqlite");
        let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
        let old = SqlitePool::connect_with(options).await.unwrap();
        old.execute(SCHEMA).await.unwrap();
        old.execute("INSERT INTO store VALUES (1, 1, 11, 2)").await.unwrap();
        let row = "INSERT INTO segment VALUES (1, 'default', 'default/2026-02-10/warn/000000000001.parquet', 'warn', \
                   '2026-02-10', 10, 1000, -5, 9, 1, 10, '{\"fields\":[],\"levels\":[\"warn\"],\"services\":null}')";
        old.execute(row).await.unwrap();
        old.close().await;
        for _ in 0..2 {
            let (catalog, contents) = Catalog::open(&file).await.unwrap();
            assert_eq!((contents.low_water, contents.next_segment), (11, 2));
            let [segment] = contents.segments.as_slice() else { panic!("{:?}", contents.segments) };
            assert_eq!((segment.class.as_str(), segment.records), ("warn", 10));
            let expect = History { flushed_ns: 0, flushed_bytes: 1000, written_bytes: 1000, quarantined: None };
            assert_eq!(segment.history, expect);
            catalog.close().await;
        }
    }

    #[tokio::test]
    async fn a_deletion_of_version_2_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("catalog.sqlite");
        let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
        let old = SqlitePool::connect_with(options).await.unwrap();
        for statements in [SCHEMA, UPGRADES[0], "INSERT INTO store VALUES (1, 2, 11, 2)"] {
            old.execute(statements).await.unwrap();
        }
        let table = "CREATE TABLE deletion (id BIGINT PRIMARY KEY, tenant TEXT NOT NULL, filter TEXT NOT NULL, \
                     from_ns BIGINT NOT NULL, to_ns BIGINT NOT NULL, cutoff_seq BIGINT NOT NULL, state TEXT NOT NULL, \
                     segments_done BIGINT NOT NULL, segments_total BIGINT NOT NULL, records_removed BIGINT NOT NULL, \
                     error TEXT, requested_ns BIGINT NOT NULL)";
        old.execute(table).await.unwrap();
        let row = "INSERT INTO deletion VALUES (4, 'default', 'n = 1', 0, 9, 11, 'active', 1, 2, 3, NULL, 5)";
        old.execute(row).await.unwrap();
        old.close().await;
        let (catalog, _) = Catalog::open(&file).await.unwrap();
        let found = catalog.deletions().await.unwrap();
        let [deletion] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((deletion.id, deletion.records_removed, deletion.awaits.len()), (4, 3, 0));
        catalog.close().await;
    }

    #[tokio::test]
    async fn a_damaged_file_is_told_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("catalog.sqlite");
        let (catalog, _) = Catalog::open(&file).await.unwrap();
        catalog.commit(&[segment(1)], &[], &[], 11, 2).await.unwrap();
        catalog.close().await;
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[..100].fill(0x5a);
        std::fs::write(&file, &bytes).unwrap();
        let error = Catalog::open(&file).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Unreadable { .. }), "{text}");
        assert!(text.contains("catalog.sqlite") && text.contains("from a backup"), "{text}");
    }
}
