//! DataFusion's errors → ours: what the asker did wrong, in words that help, apart from what went wrong here. Pure.

use datafusion::common::{DataFusionError, SchemaError};
use datafusion::error::DataFusionError as Error_;

use super::Error;
use super::plan::{FieldNames, TABLE, unknown_field};
use crate::storage::segment::ReadError;

/// An error of planning: nearly always the statement is wrong.
pub(super) fn of_planning(
    error: &DataFusionError,
    sql: &str,
    fields: &FieldNames,
    functions: impl Fn() -> FieldNames,
) -> Error {
    if let Some(error) = reading(error) {
        return error;
    }
    match error.find_root() {
        Error_::SchemaError(schema_error, _) => Error::Invalid(schema_message(schema_error, sql, fields)),
        Error_::ResourcesExhausted(message) => Error::Limit(memory_message(message)),
        Error_::Internal(message) => Error::Internal(message.clone()),
        other => Error::Invalid(plan_message(&plain(other), functions)),
    }
}

/// An error of execution.
pub(super) fn of_execution(error: &DataFusionError) -> Error {
    if let Some(error) = reading(error) {
        return error;
    }
    match error.find_root() {
        Error_::ResourcesExhausted(message) => Error::Limit(memory_message(message)),
        Error_::ArrowError(..) | Error_::Execution(_) | Error_::Plan(_) | Error_::NotImplemented(_) => {
            Error::Invalid(plain(error.find_root()))
        }
        other => Error::Internal(plain(other)),
    }
}

/// What a scan could not read, or may not: damaged segments are passed over, so this is a disk or an object store that
/// fails, or a limit.
fn reading(error: &DataFusionError) -> Option<Error> {
    let Error_::External(inner) = error.find_root() else { return None };
    if let Some(Error::Limit(limit)) = inner.downcast_ref::<Error>() {
        return Some(Error::Limit(limit.clone()));
    }
    match inner.downcast_ref::<ReadError>()? {
        damaged @ ReadError::Damaged { .. } => Some(Error::Corrupt(damaged.to_string())),
        failed => Some(Error::Unavailable(failed.to_string())),
    }
}

fn schema_message(error: &SchemaError, sql: &str, fields: &FieldNames) -> String {
    match error {
        SchemaError::FieldNotFound { field, .. } => {
            // `http.status` without quotes arrives as a column of a table.
            let full = field.relation.as_ref().map_or_else(String::new, |relation| format!("{relation}."));
            let name = format!("{full}{}", field.name);
            let name = name.strip_prefix(&format!("{TABLE}.")).unwrap_or(&name);
            unknown_field(sql, name, fields)
        }
        other => other.to_string(),
    }
}

fn plan_message(message: &str, functions: impl Fn() -> FieldNames) -> String {
    let unknown = message.strip_prefix("Invalid function '").and_then(|rest| rest.split_once('\''));
    if let Some((name, _)) = unknown {
        let hint =
            functions().nearest(name).first().map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
        return format!("no function named '{name}'{hint}");
    }
    let missing = message.strip_prefix("table '").and_then(|rest| rest.split_once("' not found"));
    match missing {
        Some((table, _)) => {
            let name = table.rsplit('.').next().unwrap_or(table);
            format!("no table named '{name}'; the table of records is '{TABLE}'")
        }
        None => message.to_owned(),
    }
}

fn memory_message(message: &str) -> String {
    let first = message.lines().next().unwrap_or_default();
    format!(
        "the query needs more memory than it may use ('query.memory_bytes_max', a part of 'memory_max'); narrow the time \
         range, ask for fewer columns, or group by fewer values ({first})"
    )
}

/// The message without DataFusion's prefixes.
fn plain(error: &DataFusionError) -> String {
    let text = match error {
        Error_::Plan(text) | Error_::Execution(text) | Error_::NotImplemented(text) => text.clone(),
        Error_::ArrowError(error, _) => error.to_string(),
        other => other.to_string(),
    };
    text.trim().to_owned()
}
