//! SQL text → statement: one read-only statement, with the names in it resolved to fields the way people expect.
//! Pure; no plan is made here. `names` says which columns the table must have for it.
//!
//! Names without quotes match a field as typed, else in any case, and dots join (`http.status` is one field when there
//! is such a field); quoted names match exactly. So camelCase fields need no quotes, and SQL stays case-insensitive.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    ExcludeSelectItem, Ident, ObjectName, Query, SelectItem, SetExpr, Statement, TableFactor, VisitMut, VisitorMut,
    WildcardAdditionalOptions,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, Word};

use super::{Error, history};
use crate::record::column;

/// The table of records.
pub(super) const TABLE: &str = "logs";
/// Columns that `*` leaves out.
const HIDDEN: [&str; 5] = [column::SEQ, column::LINE, column::SHAPE, column::RAW, column::OVERFLOW];
/// Longest statement. Longer ones are not written by people, and parsing must stay cheap.
const SQL_BYTES_MAX: usize = 256 << 10;

/// A statement that may be planned.
#[derive(Debug)]
pub(super) struct Read {
    pub statement: Statement,
    /// Names in it that may be columns.
    pub names: BTreeSet<String>,
    /// It asks for all columns, by `*`.
    pub wildcard: bool,
    /// It asks what there is (`information_schema`, SHOW, DESCRIBE).
    pub about_schema: bool,
}

/// Parses one statement. `fields` are the names of the table's columns.
///
/// **Errors**: [`Error::Invalid`], pointing at the place.
pub(super) fn read(sql: &str, fields: &FieldNames) -> Result<Read, Error> {
    if sql.len() > SQL_BYTES_MAX {
        return Err(Error::Invalid(format!("the statement is longer than {SQL_BYTES_MAX} bytes")));
    }
    let dialect = GenericDialect {};
    let tokens = Tokenizer::new(&dialect, sql)
        .tokenize_with_location()
        .map_err(|error| Error::Invalid(point(sql, error.location, 1, &lower_first(&error.message))))?;
    let asks_metrics = |word: &Word| word.value.eq_ignore_ascii_case(history::TABLE);
    let tokens = if tokens.iter().filter_map(word).any(asks_metrics) {
        resolve_names(tokens, &fields.with(history::COLUMNS))
    } else {
        resolve_names(tokens, fields)
    };
    let names: BTreeSet<String> = tokens.iter().filter_map(word).map(|word| word.value.clone()).collect();
    let about_schema = names.contains("information_schema") || tokens.iter().find_map(word).is_some_and(starts_inquiry);

    let mut parser = Parser::new(&dialect).with_tokens_with_locations(tokens);
    let statements =
        parser.parse_statements().map_err(|error| Error::Invalid(parser_message(sql, &error.to_string())))?;
    let mut statement = match <[Statement; 1]>::try_from(statements) {
        Ok([statement]) => statement,
        Err(found) if found.is_empty() => return Err(Error::Invalid("the statement is empty".into())),
        Err(found) => return Err(Error::Invalid(format!("one statement is expected, found {}", found.len()))),
    };
    check_read_only(&statement)?;
    let mut wildcards = Wildcards { mentioned: &names, found: false };
    let _ = statement.visit(&mut wildcards);
    let wildcard = wildcards.found;
    Ok(Read { statement, names, wildcard, about_schema })
}

/// A condition on a record.
#[derive(Debug)]
pub(super) struct ReadCondition {
    /// Its text, with names as columns have them.
    pub condition: String,
    /// Names in it that may be columns.
    pub names: BTreeSet<String>,
}

/// Parses one condition. `fields` are the names of the table's columns.
///
/// **Errors**: [`Error::Invalid`], as [`read`].
pub(super) fn read_condition(condition: &str, fields: &FieldNames) -> Result<ReadCondition, Error> {
    let read = read(&format!("SELECT 1 FROM {TABLE} WHERE ({condition})"), fields)?;
    let selection = match &read.statement {
        Statement::Query(query) => match query.body.as_ref() {
            SetExpr::Select(select) => select.selection.as_ref(),
            _ => None,
        },
        _ => None,
    };
    let selection = selection.ok_or_else(|| Error::Invalid(format!("'{condition}' is no condition")))?;
    Ok(ReadCondition { condition: selection.to_string(), names: read.names })
}

/// Column names, found as typed or in any case.
#[derive(Debug, Default)]
pub(super) struct FieldNames {
    exact: BTreeSet<String>,
    /// Lower case → the name; `None` where several names differ only in case.
    folded: BTreeMap<String, Option<String>>,
}

impl FieldNames {
    pub(super) fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> FieldNames {
        let mut all = FieldNames::default();
        for name in names {
            all.exact.insert(name.to_owned());
            let folded = all.folded.entry(name.to_lowercase());
            folded.and_modify(|known| *known = None).or_insert_with(|| Some(name.to_owned()));
        }
        all
    }

    /// These, and other names that are matched as typed.
    fn with<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> FieldNames {
        let exact = self.exact.iter().cloned().chain(names.into_iter().map(str::to_owned)).collect();
        FieldNames { exact, folded: self.folded.clone() }
    }

    /// Whether there is a field of exactly this name.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.exact.contains(name)
    }

    fn resolve(&self, typed: &str) -> Option<String> {
        if self.exact.contains(typed) {
            return Some(typed.to_owned());
        }
        let folded = typed.to_lowercase();
        if self.exact.contains(&folded) {
            return Some(folded);
        }
        self.folded.get(&folded).cloned().flatten()
    }

    /// The nearest names to one that does not exist, best first.
    pub(super) fn nearest(&self, name: &str) -> Vec<&str> {
        let wanted = name.to_lowercase();
        let score = |known: &str| strsim::jaro_winkler(&wanted, &known.to_lowercase());
        let mut near: Vec<(f64, &str)> = self
            .exact
            .iter()
            .filter(|known| !HIDDEN.contains(&known.as_str()))
            .map(|known| (score(known), known.as_str()))
            .filter(|(score, _)| *score > 0.8)
            .collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0));
        near.into_iter().map(|(_, known)| known).take(3).collect()
    }
}

/// "no field named 'x'; did you mean …", with the place in the statement.
pub(super) fn unknown_field(sql: &str, name: &str, fields: &FieldNames) -> String {
    let message = no_field(name, fields);
    match place_of(sql, name) {
        Some((location, width)) => point(sql, location, width, &message),
        None => message,
    }
}

/// "no field named 'x'; did you mean …"
pub(super) fn no_field(name: &str, fields: &FieldNames) -> String {
    let hint = match fields.nearest(name).as_slice() {
        [] => "; GET /api/v1/fields lists the fields there are".to_owned(),
        near => {
            format!("; did you mean {}?", near.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", "))
        }
    };
    format!("no field named '{name}'{hint}")
}

fn place_of(sql: &str, name: &str) -> Option<(Location, usize)> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location().ok()?;
    let first = name.split('.').next().unwrap_or(name);
    let matches = |token: &&TokenWithSpan| {
        word(token).is_some_and(|word| word.value.eq_ignore_ascii_case(name) || word.value.eq_ignore_ascii_case(first))
    };
    tokens.iter().find(matches).map(|token| (token.span.start, name.chars().count()))
}

/// A message with the line of the statement it is about, and a mark below the place.
fn point(sql: &str, location: Location, width: usize, message: &str) -> String {
    let (line, column) = (location.line as usize, location.column as usize);
    let Some(text) = line.checked_sub(1).and_then(|line| sql.lines().nth(line)) else { return message.to_owned() };
    let (indent, mark) = (" ".repeat(column.saturating_sub(1)), "^".repeat(width.max(1)));
    format!("{message} (line {line}, column {column})\n  {text}\n  {indent}{mark}")
}

/// sqlparser's message, its " at Line: 1, Column: 8" turned into our pointer.
fn parser_message(sql: &str, message: &str) -> String {
    let message = message.strip_prefix("sql parser error: ").unwrap_or(message);
    let parse = |text: &str| -> Option<(String, Location)> {
        let (before, place) = text.rsplit_once(" at Line: ")?;
        let (line, column) = place.split_once(", Column: ")?;
        Some((lower_first(before), Location { line: line.parse().ok()?, column: column.parse().ok()? }))
    };
    match parse(message) {
        Some((message, location)) => point(sql, location, 1, &message),
        None if message.ends_with("found: EOF") => point(sql, end_of(sql), 1, &lower_first(message)),
        None => lower_first(message),
    }
}

/// Just behind the last character.
fn end_of(sql: &str) -> Location {
    let last = sql.trim_end().lines().last().unwrap_or_default();
    Location { line: sql.trim_end().lines().count() as u64, column: last.chars().count() as u64 + 1 }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

fn word(token: &TokenWithSpan) -> Option<&Word> {
    match &token.token {
        Token::Word(word) => Some(word),
        _ => None,
    }
}

fn starts_inquiry(first: &Word) -> bool {
    matches!(first.keyword, Keyword::SHOW | Keyword::DESCRIBE | Keyword::DESC)
}

/// Replaces unquoted words by the fields they mean, and joins dotted ones.
fn resolve_names(tokens: Vec<TokenWithSpan>, fields: &FieldNames) -> Vec<TokenWithSpan> {
    let mut resolved: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        if let Some((token, used)) = dotted_field(&tokens[at..], fields) {
            resolved.push(token);
            at += used;
            continue;
        }
        let mut token = tokens[at].clone();
        let called = matches!(tokens.get(at + 1).map(|next| &next.token), Some(Token::LParen));
        if let Token::Word(word) = &mut token.token
            && word.quote_style.is_none()
        {
            let field = (!called).then(|| fields.resolve(&word.value)).flatten();
            word.value = field.unwrap_or_else(|| word.value.to_lowercase());
        }
        resolved.push(token);
        at += 1;
    }
    resolved
}

/// The longest run `a.b.c` of unquoted words that is the name of one field, as one quoted word.
fn dotted_field(tokens: &[TokenWithSpan], fields: &FieldNames) -> Option<(TokenWithSpan, usize)> {
    let mut joined = unquoted(tokens.first()?)?.to_owned();
    let (mut used, mut best) = (1, None);
    while let (Some(Token::Period), Some(next)) = (tokens.get(used).map(|token| &token.token), tokens.get(used + 1)) {
        let Some(part) = unquoted(next) else { break };
        joined = format!("{joined}.{part}");
        used += 2;
        if let Some(field) = fields.resolve(&joined) {
            best = Some((field, used));
        }
    }
    let (field, used) = best?;
    let mut token = tokens[0].clone();
    token.token = Token::make_word(&field, Some('"'));
    Some((token, used))
}

fn unquoted(token: &TokenWithSpan) -> Option<&str> {
    word(token).filter(|word| word.quote_style.is_none()).map(|word| word.value.as_str())
}

fn check_read_only(statement: &Statement) -> Result<(), Error> {
    match statement {
        Statement::Query(_)
        | Statement::Explain { .. }
        | Statement::ExplainTable { .. }
        | Statement::ShowTables { .. }
        | Statement::ShowColumns { .. }
        | Statement::ShowVariable { .. }
        | Statement::ShowFunctions { .. } => Ok(()),
        _ => Err(Error::Invalid(
            "only SELECT, WITH, EXPLAIN, SHOW and DESCRIBE are allowed: logs are kept as they came".into(),
        )),
    }
}

/// Finds `*` over the table of records, and makes it leave out hidden columns that the statement names elsewhere.
struct Wildcards<'a> {
    mentioned: &'a BTreeSet<String>,
    found: bool,
}

impl VisitorMut for Wildcards<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.visit_body(&mut query.body);
        ControlFlow::Continue(())
    }
}

impl Wildcards<'_> {
    fn visit_body(&mut self, body: &mut SetExpr) {
        match body {
            SetExpr::Select(select) => {
                let from_table = select.from.iter().any(|from| {
                    std::iter::once(&from.relation)
                        .chain(from.joins.iter().map(|join| &join.relation))
                        .any(|relation| matches!(relation, TableFactor::Table { name, .. } if is_table(name)))
                });
                let hidden: Vec<_> = HIDDEN
                    .iter()
                    .filter(|name| self.mentioned.contains(**name))
                    .map(|name| ObjectName::from(Ident::new(*name)))
                    .collect();
                for item in &mut select.projection {
                    let (SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options)) = item else {
                        continue;
                    };
                    self.found = true;
                    if from_table {
                        leave_out(options, &hidden);
                    }
                }
            }
            // Nested queries are visited on their own.
            SetExpr::SetOperation { left, right, .. } => {
                self.visit_body(left);
                self.visit_body(right);
            }
            _ => {}
        }
    }
}

/// Adds to what a `*` leaves out, which the statement's author may have begun with `EXCEPT` or `EXCLUDE`.
fn leave_out(options: &mut WildcardAdditionalOptions, hidden: &[ObjectName]) {
    let mut left_out = match options.opt_exclude.take() {
        None => Vec::new(),
        Some(ExcludeSelectItem::Single(name)) => vec![name],
        Some(ExcludeSelectItem::Multiple(names)) => names,
    };
    let excepted = options.opt_except.iter().flat_map(|except| {
        std::iter::once(&except.first_element).chain(&except.additional_elements).map(|ident| ident.clone().into())
    });
    let excepted: Vec<ObjectName> = excepted.collect();
    for name in hidden {
        // A name that is left out twice is an error.
        if !left_out.contains(name) && !excepted.contains(name) {
            left_out.push(name.clone());
        }
    }
    options.opt_exclude = (!left_out.is_empty()).then_some(ExcludeSelectItem::Multiple(left_out));
}

fn is_table(name: &ObjectName) -> bool {
    name.0.last().and_then(|part| part.as_ident()).is_some_and(|ident| ident.value == TABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> FieldNames {
        FieldNames::new([
            "timestamp",
            "level",
            "service",
            "message",
            "_seq",
            "userId",
            "http.status",
            "Count",
            "a",
            "A",
        ])
    }

    fn check(sql: &str, expect: &str) {
        assert_eq!(read(sql, &fields()).unwrap().statement.to_string(), expect);
    }

    fn fails(sql: &str, expect: &str) {
        let error = read(sql, &fields()).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    }

    #[test]
    fn names_mean_fields_as_people_expect() {
        check("SELECT userId FROM logs", "SELECT userId FROM logs");
        check("SELECT userid, LEVEL FROM LOGS", "SELECT userId, level FROM logs");
        check("SELECT http.status FROM logs", "SELECT \"http.status\" FROM logs");
        check("SELECT l.level FROM logs l", "SELECT l.level FROM logs l");
        check("SELECT Count(*) AS N FROM logs ORDER BY n", "SELECT count(*) AS n FROM logs ORDER BY n");
        check("SELECT a, A FROM logs", "SELECT a, A FROM logs");
        check("SELECT \"UserID\" FROM logs", "SELECT \"UserID\" FROM logs");
        check("SELECT 'UserID' FROM logs", "SELECT 'UserID' FROM logs");
    }

    #[test]
    fn the_metrics_columns_are_no_fields() {
        check("SELECT count FROM logs", "SELECT Count FROM logs");
        let fields = FieldNames::new(["Value", "Name"]);
        for (table, expect) in [("logs", "Name, Value"), ("Metrics", "name, value")] {
            let read = read(&format!("SELECT name, value FROM {table}"), &fields).unwrap();
            assert!(read.statement.to_string().contains(expect), "{}", read.statement);
        }
    }

    #[test]
    fn a_star_leaves_out_hidden_columns_that_are_named_beside_it() {
        check("SELECT * FROM logs", "SELECT * FROM logs");
        check("SELECT *, _seq FROM logs", "SELECT * EXCLUDE (_seq), _seq FROM logs");
        check("SELECT * EXCLUDE message, _seq FROM logs", "SELECT * EXCLUDE (message, _seq), _seq FROM logs");
        check("SELECT * EXCLUDE (_seq), _seq FROM logs", "SELECT * EXCLUDE (_seq), _seq FROM logs");
        check("SELECT * EXCEPT (a), _seq FROM logs", "SELECT * EXCLUDE (_seq) EXCEPT (a), _seq FROM logs");
        check(
            "SELECT * FROM (SELECT *, _seq FROM logs) WHERE level = 'info'",
            "SELECT * FROM (SELECT * EXCLUDE (_seq), _seq FROM logs) WHERE level = 'info'",
        );
        assert!(read("SELECT * FROM logs", &fields()).unwrap().wildcard);
        assert!(!read("SELECT count(*) FROM logs", &fields()).unwrap().wildcard);
    }

    #[test]
    fn mistakes_are_pointed_at() {
        fails("SELEC 1", "(line 1, column 1)\n  SELEC 1\n  ^");
        fails("SELECT level\nFROM logs WHERE (", "line 2");
        fails("SELECT 'open FROM logs", "(line 1, column 8)\n  SELECT 'open FROM logs\n         ^");
        fails("", "empty");
        fails("SELECT 1; SELECT 2", "one statement");
        let message = unknown_field("SELECT servce FROM logs", "servce", &fields());
        let expect = "no field named 'servce'; did you mean 'service'? (line 1, column 8)\n  SELECT servce FROM logs\n         ^^^^^^";
        assert_eq!(message, expect);
    }

    #[test]
    fn nothing_but_reading_is_allowed() {
        for sql in
            ["DROP TABLE logs", "DELETE FROM logs", "INSERT INTO logs VALUES (1)", "SET x = 1", "COPY logs TO 'x'"]
        {
            fails(sql, "only SELECT");
        }
        check("EXPLAIN SELECT 1", "EXPLAIN SELECT 1");
        assert!(read("SHOW TABLES", &fields()).unwrap().about_schema);
        assert!(!read("SELECT _seq FROM logs ORDER BY _seq DESC", &fields()).unwrap().about_schema);
    }
}
