//! Narrows SQL that people wrote to the lines that filters let through: the conditions go into every SELECT that reads
//! `logs`, by the syntax tree. The text in the editor is not touched; that is `edit`.
//! Invariant: either every SELECT that reads `logs` gets the conditions, or none does.

use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, Expr, Ident, ObjectName, Query as SqlQuery, Select, TableFactor, Visit, VisitMut, Visitor,
    VisitorMut, visit_expressions_mut,
};

use super::written::{and, is_name, parse_condition};
use super::{Error, builder};
use crate::model::Filter;

/// What became of the filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Narrowed {
    /// There were none.
    Nothing,
    /// Every SELECT that reads `logs` has them.
    All,
    /// There is no SELECT where they could go.
    NoPlace,
}

impl Narrowed {
    /// What the reader must know: filters that did nothing must not look as if they had.
    pub fn notice(self, filters: &[Filter]) -> Option<String> {
        let fields: Vec<_> = filters.iter().map(|filter| format!("'{}'", filter.field)).collect();
        (self == Narrowed::NoPlace).then(|| {
            format!(
                "not filtered by {}: this SQL has no SELECT from 'logs' alone that the condition could be added to",
                fields.join(", ")
            )
        })
    }
}

/// Adds the filters to a query. **Errors**: an unknown operator.
pub fn apply(query: &mut SqlQuery, filters: &[Filter]) -> Result<Narrowed, Error> {
    let conditions = builder::filter_conditions(filters)?;
    let conditions: Vec<Expr> = conditions.iter().map(|text| parse_condition(text)).collect::<Result<_, _>>()?;
    if conditions.is_empty() {
        return Ok(Narrowed::Nothing);
    }
    if !each_place(query, |_, _| {}) {
        return Ok(Narrowed::NoPlace);
    }
    // The visitor never breaks off.
    let _: ControlFlow<()> = VisitMut::visit(query, &mut Adder { conditions });
    Ok(Narrowed::All)
}

/// Calls `found` with every SELECT that reads `logs` and the name that its columns need before them. False: there is none,
/// or one of them leaves open which lines are meant.
pub fn each_place<F: FnMut(&Select, Option<Ident>)>(query: &SqlQuery, found: F) -> bool {
    struct Places<F> {
        found: F,
        count: usize,
    }
    impl<F: FnMut(&Select, Option<Ident>)> Visitor for Places<F> {
        type Break = ();
        fn pre_visit_query(&mut self, query: &SqlQuery) -> ControlFlow<()> {
            if shadows_logs(query) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
        fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
            match place(select) {
                Place::None => ControlFlow::Continue(()),
                Place::Unclear => ControlFlow::Break(()),
                Place::Of(qualifier) => {
                    self.count += 1;
                    (self.found)(select, qualifier);
                    ControlFlow::Continue(())
                }
            }
        }
    }
    let mut places = Places { found, count: 0 };
    let ended: ControlFlow<()> = Visit::visit(query, &mut places);
    ended.is_continue() && places.count > 0
}

struct Adder {
    conditions: Vec<Expr>,
}

impl VisitorMut for Adder {
    type Break = ();

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if let Place::Of(qualifier) = place(select) {
            for condition in self.conditions.clone() {
                let condition = qualified(condition, qualifier.as_ref());
                select.selection = Some(match select.selection.take() {
                    None => condition,
                    Some(own) if is_loose(&own) => and(Expr::Nested(Box::new(own)), condition),
                    Some(own) => and(own, condition),
                });
            }
        }
        ControlFlow::Continue(())
    }
}

/// A common table expression with the table's name.
pub fn shadows_logs(query: &SqlQuery) -> bool {
    let mut tables = query.with.iter().flat_map(|with| &with.cte_tables);
    tables.any(|table| table.alias.name.value.eq_ignore_ascii_case("logs"))
}

/// Where in a SELECT conditions on lines belong.
#[derive(Debug, PartialEq)]
pub enum Place {
    /// It does not read `logs`.
    None,
    /// In its WHERE; columns need this name before them, where other tables are joined.
    Of(Option<Ident>),
    /// It reads `logs` more than once, so that nobody can know which lines are meant.
    Unclear,
}

/// Looks for `logs` in the FROM of a SELECT, without its subqueries.
pub fn place(select: &Select) -> Place {
    let factors: Vec<&TableFactor> = select
        .from
        .iter()
        .flat_map(|table| std::iter::once(&table.relation).chain(table.joins.iter().map(|join| &join.relation)))
        .collect();
    let mut names = factors.iter().filter_map(|factor| match factor {
        TableFactor::Table { name, alias, args: None, .. } if is_name(name, "logs") => {
            Some(alias.as_ref().map_or_else(|| last_part(name), |alias| alias.name.clone()))
        }
        _ => None,
    });
    match (names.next(), names.next()) {
        (None, _) => Place::None,
        (Some(_), None) if factors.len() == 1 => Place::Of(None),
        (Some(name), None) => Place::Of(Some(name)),
        (Some(_), Some(_)) => Place::Unclear,
    }
}

fn last_part(name: &ObjectName) -> Ident {
    name.0.last().and_then(|part| part.as_ident()).cloned().unwrap_or_else(|| Ident::new("logs"))
}

/// Whether a condition needs brackets before another one is added.
pub fn is_loose(condition: &Expr) -> bool {
    matches!(condition, Expr::BinaryOp { op: BinaryOperator::Or | BinaryOperator::Xor, .. })
}

/// The condition with its columns named by their table.
pub fn qualified(mut condition: Expr, table: Option<&Ident>) -> Expr {
    let Some(table) = table else { return condition };
    // The visitor never breaks off.
    let _: ControlFlow<()> = visit_expressions_mut(&mut condition, |expr| {
        if let Expr::Identifier(column) = expr {
            *expr = Expr::CompoundIdentifier(vec![table.clone(), column.clone()]);
        }
        ControlFlow::Continue(())
    });
    condition
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::written::parse;
    use super::*;
    use crate::model::normalize_filter;

    #[test]
    fn filters_go_where_the_lines_come_from() {
        let filters = [json!({"field": "level", "value": "error"}), json!({"field": "a.b", "op": "!=", "value": "x"})];
        let filters: Vec<_> = filters.iter().map(normalize_filter).collect();
        let both = "level = 'error' AND (\"a.b\" <> 'x' OR \"a.b\" IS NULL)";
        for (sql, expect) in [
            ("SELECT * FROM logs", format!("SELECT * FROM logs WHERE {both}")),
            ("SELECT * FROM logs l WHERE l.x = 1", format!("SELECT * FROM logs l WHERE l.x = 1 AND {both}")),
            ("SELECT * FROM logs WHERE a OR b", format!("SELECT * FROM logs WHERE (a OR b) AND {both}")),
            ("SELECT * FROM logs WHERE a AND b", format!("SELECT * FROM logs WHERE a AND b AND {both}")),
            (
                "WITH e AS (SELECT * FROM logs) SELECT count(*) FROM e WHERE x = 1",
                format!("WITH e AS (SELECT * FROM logs WHERE {both}) SELECT count(*) FROM e WHERE x = 1"),
            ),
            (
                "SELECT * FROM logs UNION ALL SELECT * FROM logs ORDER BY 1",
                format!("SELECT * FROM logs WHERE {both} UNION ALL SELECT * FROM logs WHERE {both} ORDER BY 1"),
            ),
            (
                "SELECT * FROM logs JOIN hosts AS h ON logs.host = h.name",
                "SELECT * FROM logs JOIN hosts AS h ON logs.host = h.name WHERE logs.level = 'error' AND \
                 (logs.\"a.b\" <> 'x' OR logs.\"a.b\" IS NULL)"
                    .to_owned(),
            ),
            ("SELECT * FROM logs a JOIN logs b ON a.trace_id = b.trace_id", "no place".to_owned()),
            ("WITH logs AS (SELECT 1) SELECT * FROM logs", "no place".to_owned()),
            ("SELECT 1", "no place".to_owned()),
        ] {
            let mut query = parse(sql).expect("fine");
            let got = match apply(&mut query, &filters).expect("fine") {
                Narrowed::All => query.to_string(),
                Narrowed::NoPlace => "no place".to_owned(),
                Narrowed::Nothing => "nothing".to_owned(),
            };
            let expect = if expect == "no place" { expect } else { parse(&expect).expect("fine").to_string() };
            assert_eq!(got, expect, "{sql}");
        }
    }
}
