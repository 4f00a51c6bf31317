//! What a deletion's condition means: whether it is one, and which records of a segment match it; and how a deletion is
//! carried out with that. When that is done is the caller's to say.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use datafusion::sql::sqlparser::ast::{Query, Visit, Visitor};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use futures::StreamExt;

use super::plan::TABLE;
use super::{Engine, Error, Request, TimeRange};
use crate::error::Kind;
use crate::record::Tenant;
use crate::storage::deletion::{Rewrite, State};
use crate::storage::segment::{self, ReadError};
use crate::storage::{self, Deletion, Segment};

/// Longest condition.
const FILTER_BYTES_MAX: usize = 16 << 10;
/// Numbers asked for at once; bounds the memory of the sort.
const PAGE_ROWS: usize = 250_000;

impl Engine {
    /// Checks the condition of a deletion. **Shape**: the condition alone, without comments, as it is to be kept.
    ///
    /// **Errors**: [`Error::Invalid`] when it is none, names a field that no record has, or asks other records.
    pub async fn check_filter(self: &Arc<Self>, tenant: &Tenant, filter: &str) -> Result<String, Error> {
        let filter = normalized(filter)?;
        let sql = format!("SELECT 1 FROM {TABLE} WHERE ({filter})");
        let request = Request { tenant: tenant.clone(), sql, range: None, limit: None, timeout: None };
        self.prepare(request).await?;
        Ok(filter)
    }

    /// Carries a deletion out as far as it can be now, and tells the store where it stands then.
    ///
    /// **Errors**: a segment can't be read or written now, or the catalog failed: it is as active as before.
    pub async fn carry_out(self: &Arc<Self>, deletion: &Deletion) -> Result<State, Error> {
        let carried = Carried { engine: self, deletion, clean: HashSet::new() };
        match deletion.state {
            State::Active => carried.run().await,
            State::Waiting => {
                let snapshot = self.store.snapshot(&deletion.wanted.tenant);
                if snapshot.quarantined.iter().any(|segment| deletion.awaits.contains(&segment.id)) {
                    return Ok(State::Waiting);
                }
                // What it waited for has expired: a segment that is back makes it active.
                carried.end(State::Done, None).await
            }
            ended => Ok(ended),
        }
    }

    /// The numbers of a segment's records that a deletion matches, ascending, whether they are hidden already or not.
    ///
    /// **Errors**: [`Error::Corrupt`] when the segment is damaged.
    async fn matching(self: &Arc<Self>, deletion: &Deletion, segment: &Arc<Segment>) -> Result<Vec<i64>, Error> {
        let wanted = &deletion.wanted;
        let snapshot = Arc::new(self.store.snapshot(&wanted.tenant).of_segment(segment.clone()));
        let range = TimeRange { from_ns: wanted.from_ns, to_ns: wanted.to_ns };
        let mut seqs: Vec<i64> = Vec::new();
        loop {
            let (after, cutoff) = (seqs.last().copied().unwrap_or(i64::MIN + 1), deletion.cutoff_seq);
            let sql = format!(
                "SELECT _seq FROM {TABLE} WHERE _seq > {after} AND _seq < {cutoff} AND ({}) ORDER BY _seq LIMIT {PAGE_ROWS}",
                wanted.filter
            );
            let range = Some(range).filter(|range| (range.from_ns, range.to_ns) != (i64::MIN, i64::MAX));
            let request = Request { tenant: wanted.tenant.clone(), sql, range, limit: None, timeout: None };
            let mut rows = self.prepare_on(snapshot.clone(), request, 0).await?.run();
            let before = seqs.len();
            while let Some(batch) = rows.next().await {
                seqs.extend(batch?.column(0).as_primitive::<Int64Type>().values());
            }
            // A query goes on without a damaged segment; a deletion must not take it for one without matches.
            if let Some(damage) = rows.left_out().pop() {
                return Err(Error::Corrupt(damage));
            }
            if seqs.len() == before {
                return Ok(seqs);
            }
        }
    }
}

/// A deletion being carried out.
struct Carried<'a> {
    engine: &'a Arc<Engine>,
    deletion: &'a Deletion,
    /// Segments that were read and have none of its records, by id.
    clean: HashSet<i64>,
}

impl Carried<'_> {
    /// Looks through segments until there is none left that could have its records; those that a merge makes meanwhile
    /// are looked through too.
    async fn run(mut self) -> Result<State, Error> {
        let (store, id) = (&self.engine.store, self.deletion.id);
        // What lies below the cut-off is in segments from here on.
        store.flush().await?;
        loop {
            let snapshot = store.snapshot(&self.deletion.wanted.tenant);
            if !snapshot.deletions.iter().any(|active| active.id == id) {
                return Ok(State::Cancelled);
            }
            let concerned = |segment: &&Arc<Segment>| self.deletion.concerns(segment);
            let open = |segment: &&Arc<Segment>| self.deletion.concerns(segment) && !self.clean.contains(&segment.id);
            let total = snapshot.segments.iter().filter(concerned).count() as u64;
            let left = snapshot.segments.iter().filter(open).count() as u64;
            store.note_deletion(id, total - left, total, None).await?;
            if let Some(segment) = snapshot.segments.iter().find(open) {
                match self.look_through(segment).await {
                    Err(error) if error.kind() == Kind::Invalid => {
                        tracing::warn!(id, %error, "a deletion failed");
                        return self.end(State::Failed, Some(error.to_string())).await;
                    }
                    looked => looked?,
                }
                continue;
            }
            let awaited: Vec<&Arc<Segment>> = snapshot.quarantined.iter().filter(open).collect();
            if awaited.is_empty() {
                return self.end(State::Done, None).await;
            }
            tracing::warn!(id, segments = awaited.len(), "a deletion waits for quarantined segments");
            let waiting = store.suspend_deletion(id, &awaited).await?;
            return Ok(waiting.map_or(State::Cancelled, |deletion| deletion.state));
        }
    }

    async fn look_through(&mut self, segment: &Arc<Segment>) -> Result<(), Error> {
        let store = &self.engine.store;
        let seqs = match self.engine.matching(self.deletion, segment).await {
            Err(Error::Corrupt(reason)) => return Ok(store.quarantine(segment.id, &reason).await?),
            found => found?,
        };
        if seqs.is_empty() {
            self.clean.insert(segment.id);
            return Ok(());
        }
        // The new segment is looked through once more: nothing is believed that was not seen.
        match store.rewrite_without(segment, seqs, self.deletion.id).await {
            Ok(Rewrite::Replaced(records)) => {
                tracing::info!(id = self.deletion.id, records, segment = segment.id, "records removed");
                Ok(())
            }
            Ok(Rewrite::Gone) => Ok(()),
            Err(storage::Error::Segment(segment::Error::Read(ReadError::Damaged { reason, .. }))) => {
                Ok(store.quarantine(segment.id, &reason).await?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Tells the store; somebody may have cancelled it meanwhile.
    async fn end(&self, state: State, error: Option<String>) -> Result<State, Error> {
        let ended = self.engine.store.end_deletion(self.deletion.id, state, error).await?;
        Ok(ended.map_or(State::Cancelled, |deletion| deletion.state))
    }
}

/// One condition and nothing else, written as the parser understood it.
fn normalized(filter: &str) -> Result<String, Error> {
    if filter.len() > FILTER_BYTES_MAX {
        return Err(Error::Invalid(format!("the filter is longer than {FILTER_BYTES_MAX} bytes")));
    }
    let wrong = |error: &dyn std::fmt::Display| Error::Invalid(format!("the filter is no SQL condition: {error}"));
    let dialect = GenericDialect {};
    let mut parser = Parser::new(&dialect).try_with_sql(filter).map_err(|error| wrong(&error))?;
    let condition = parser.parse_expr().map_err(|error| wrong(&error))?;
    let rest = parser.next_token();
    if rest.token != Token::EOF {
        return Err(wrong(&format!("'{rest}' stands behind it")));
    }
    if condition.visit(&mut Subqueries).is_break() {
        return Err(Error::Invalid("the filter may not have a SELECT in it: it looks at one record".to_owned()));
    }
    Ok(condition.to_string())
}

struct Subqueries;

impl Visitor for Subqueries {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        ControlFlow::Break(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;
    use crate::query::tests::{self, closed};
    use crate::record::batch;
    use crate::storage::Store;
    use crate::storage::deletion::Wanted;

    /// Answers are cut early, which must not cut what is deleted.
    async fn opened(dir: &Path) -> (Arc<Store>, Arc<Engine>) {
        tests::opened_with(dir, |limits| limits.rows_max = 2).await
    }

    /// A segment with a record of each user, one field of its own; its file.
    async fn add_segment(store: &Store, n: i64) -> PathBuf {
        let users: ArrayRef = Arc::new(StringArray::from(vec!["u0", "u1", "u2"]));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![n; 3]));
        let own: ArrayRef = Arc::new(StringArray::from(vec!["x"; 3]));
        let records =
            batch::tests::records(&[1, 2, 3], &[("user", users), ("n", numbers), (&format!("only_{n}"), own)]);
        let tenant = Tenant::default_tenant();
        store.append(&tenant, records).await.unwrap();
        store.flush().await.unwrap();
        store.segments_dir().join(&store.snapshot(&tenant).segments.last().unwrap().path)
    }

    async fn begun(store: &Store, engine: &Arc<Engine>, filter: &str) -> Deletion {
        let tenant = Tenant::default_tenant();
        let filter = engine.check_filter(&tenant, filter).await.unwrap();
        let wanted = Wanted { tenant, filter, from_ns: i64::MIN, to_ns: i64::MAX };
        store.begin_deletion(wanted, 0).await.unwrap()
    }

    async fn found(engine: &Arc<Engine>, condition: &str) -> String {
        tests::answer(engine, &format!("SELECT count(n) FROM logs WHERE {condition}")).await
    }

    async fn carried_out(store: &Store, engine: &Arc<Engine>) -> Vec<State> {
        let mut states = Vec::new();
        for deletion in store.deletions().await.unwrap() {
            states.push(engine.carry_out(&deletion).await.unwrap());
        }
        let kept: Vec<State> = store.deletions().await.unwrap().iter().map(|deletion| deletion.state).collect();
        assert_eq!(kept, states, "what is answered is what is kept");
        states
    }

    #[tokio::test]
    async fn a_deletion_waits_for_a_segment_that_is_away() {
        let dir = tempfile::tempdir().unwrap();
        let (store, engine) = opened(dir.path()).await;
        let path = add_segment(&store, 0).await;
        add_segment(&store, 1).await;
        closed((store, engine)).await;
        let aside = dir.path().join("aside");
        fs::rename(&path, &aside).unwrap();

        let (store, engine) = opened(dir.path()).await;
        begun(&store, &engine, "user = 'u1'").await;
        begun(&store, &engine, "only_1 = 'x' AND user = 'u2'").await;
        begun(&store, &engine, "only_0 IS NOT NULL AND user = 'u0'").await;
        assert_eq!(carried_out(&store, &engine).await, [State::Waiting; 3]);
        let error = store.deletions().await.unwrap()[0].error.clone().unwrap();
        assert!(error.contains("1 quarantined segments") && error.contains(".parquet"), "{error}");
        assert_eq!(found(&engine, "user IN ('u1', 'u2')").await, "0");
        assert!(store.snapshot(&Tenant::default_tenant()).deletions.is_empty(), "waiting costs queries nothing");
        closed((store, engine)).await;

        let (store, engine) = opened(dir.path()).await;
        assert_eq!(carried_out(&store, &engine).await, [State::Waiting; 3], "over restarts");
        closed((store, engine)).await;
        fs::rename(&aside, &path).unwrap();

        let (store, engine) = opened(dir.path()).await;
        assert_eq!(found(&engine, "user = 'u1'").await + &found(&engine, "n = 0").await, "01", "hidden at once");
        assert_eq!(carried_out(&store, &engine).await, [State::Done; 3]);
        closed((store, engine)).await;
        let (store, engine) = opened(dir.path()).await;
        assert_eq!(found(&engine, "user = 'u1'").await + &found(&engine, "true").await, "02");
        closed((store, engine)).await;
    }

    #[tokio::test]
    async fn a_deletion_takes_no_damaged_segment_for_a_clean_one() {
        let dir = tempfile::tempdir().unwrap();
        let (store, engine) = opened(dir.path()).await;
        let path = add_segment(&store, 0).await;
        add_segment(&store, 1).await;
        begun(&store, &engine, "n >= 0").await;
        fs::remove_file(&path).unwrap();
        assert_eq!(carried_out(&store, &engine).await, [State::Waiting]);
        assert_eq!(store.snapshot(&Tenant::default_tenant()).quarantined.len(), 1);
        assert_eq!(found(&engine, "true").await, "0");
        let ended = store.end_deletion(1, State::Cancelled, None).await.unwrap().unwrap();
        assert_eq!((ended.state, ended.awaits), (State::Cancelled, vec![]));
        closed((store, engine)).await;
    }

    #[test]
    fn a_filter_is_one_condition() {
        let cases = [
            ("user_id = 'u1'", Ok("user_id = 'u1'")),
            ("a = 1 or  b like 'x%' -- all of it", Ok("a = 1 OR b LIKE 'x%'")),
            ("\"http.status\" in (200, 404)", Ok("\"http.status\" IN (200, 404)")),
            ("http.status = 200", Ok("http.status = 200")),
            ("", Err("is no SQL condition")),
            ("1=1) OR (1=1", Err("')' stands behind it")),
            ("a = 1; DROP TABLE logs", Err("';' stands behind it")),
            ("user_id IN (SELECT user_id FROM logs)", Err("may not have a SELECT")),
            ("EXISTS (SELECT 1)", Err("may not have a SELECT")),
        ];
        for (filter, expected) in cases {
            match (normalized(filter), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{filter}"),
                (Err(found), Err(expected)) => assert!(found.to_string().contains(expected), "{filter}: {found}"),
                (found, expected) => panic!("{filter}: {found:?}, not {expected:?}"),
            }
        }
    }
}
