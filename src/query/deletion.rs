//! What a deletion's condition means: whether it is one, and which records of a segment match it.

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
use crate::record::Tenant;
use crate::storage::{Deletion, Segment};

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

    /// The numbers of a segment's records that a deletion matches, ascending, whether they are hidden already or not.
    pub async fn matching(self: &Arc<Self>, deletion: &Deletion, segment: &Arc<Segment>) -> Result<Vec<i64>, Error> {
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
            if seqs.len() == before {
                return Ok(seqs);
            }
        }
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
    use super::*;

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
