//! What the editors ask for beside queries: fields, their values, the store's functions; about the query on the screen
//! `editor` knows.
//! All of it comes from the store by SQL. Invariant: lists are bounded, and a failure is JSON with a message.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::record_batch::RecordBatch;
use serde_json::{Value, json};

use crate::client::{Client, Options};
use crate::editor::Asked;
use crate::error::Error;
use crate::model::normalize_filter;
use crate::query::Caller;
use crate::sql::{self, Range};

/// Values of a picker when it does not say.
const VALUES_DEFAULT: u64 = 100;
/// Values of a picker at most.
const VALUES_MAX: u64 = 10_000;

/// Answers one call. `target` is the path with its query string.
pub async fn call(client: &Arc<Client>, target: &str, body: &[u8], caller: &Caller) -> Result<Value, Error> {
    let (path, parameters) = target.split_once('?').unwrap_or((target, ""));
    let parameters: HashMap<String, String> = form_urlencoded::parse(parameters.as_bytes()).into_owned().collect();
    let options = caller.options();
    match path.trim_matches('/') {
        "fields" => fields(client, &options).await,
        "fields/values" => values(client, &parameters, options).await,
        "edit-sql" => edited(body),
        "functions" => functions(client, &options).await,
        "newest-line" => newest_line(client, &options).await,
        "sql" => Asked::read(client, body)?.sql(),
        "builder" => Ok(Asked::read(client, body)?.builder()),
        "layout" => Asked::read(client, body)?.layout(),
        "check" => Asked::read(client, body)?.check(client, &options).await,
        "estimate" => Asked::read(client, body)?.estimate(client, &options).await,
        other => Err(Error::NoResource(other.to_owned())),
    }
}

async fn fields(client: &Client, options: &Options) -> Result<Value, Error> {
    let sql = "SELECT column_name, data_type FROM information_schema.columns \
               WHERE table_name = 'logs' ORDER BY ordinal_position";
    let answer = client.query(sql, options).await?;
    let mut fields = Vec::new();
    for batch in &answer.batches {
        let [names, types] = texts(batch)?;
        for (name, data_type) in names.iter().zip(types.iter()) {
            let (Some(name), Some(data_type)) = (name, data_type) else { continue };
            fields.push(json!({"name": name, "type": field_type(data_type)}));
        }
    }
    Ok(Value::Array(fields))
}

/// The fields' names. **Errors**: those of the query.
pub async fn field_names(client: &Client, options: &Options) -> Result<Vec<String>, Error> {
    let fields = fields(client, options).await?;
    let names = fields.as_array().into_iter().flatten().filter_map(|field| field["name"].as_str());
    Ok(names.map(str::to_owned).collect())
}

/// The store's names of types, as `information_schema` has them, in the pickers' words.
fn field_type(data_type: &str) -> &'static str {
    match data_type {
        text if text.starts_with("Timestamp") => "time",
        text if text.starts_with("Int") || text.starts_with("UInt") => "integer",
        text if text.starts_with("Float") || text.starts_with("Decimal") => "float",
        "Boolean" => "boolean",
        _ => "string",
    }
}

async fn values(client: &Client, parameters: &HashMap<String, String>, options: Options) -> Result<Value, Error> {
    let text = |name: &str| parameters.get(name).map(|text| text.trim()).filter(|text| !text.is_empty());
    let field = text("field").ok_or_else(|| Error::Request("the parameter 'field' is missing".to_owned()))?;
    let number = |name: &str| -> Result<Option<i64>, Error> {
        let wrong = |text: &str| Error::Request(format!("the parameter '{name}' is not a number: '{text}'"));
        text(name).map(|text| text.parse().map_err(|_| wrong(text))).transpose()
    };
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let to_ms = number("to")?.unwrap_or(now_ms);
    let range = Range::of_ms(number("from")?.unwrap_or(to_ms - 3_600_000), to_ms);
    let filters: Vec<Value> = match text("filter") {
        None => Vec::new(),
        Some(filters) => serde_json::from_str(filters)
            .map_err(|error| Error::Request(format!("the parameter 'filter' is not a list of filters: {error}")))?,
    };
    let limit = number("limit")?.and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit > 0);
    let limit = limit.unwrap_or(VALUES_DEFAULT).min(VALUES_MAX);
    let filters: Vec<_> = filters.iter().map(normalize_filter).collect();
    let sql = sql::values(field, range, &filters, text("contains"), limit)?;
    let answer = client.query(&sql, &Options { row_limit: Some(limit), ..options }).await?;
    let mut values = Vec::new();
    for batch in &answer.batches {
        let [shown] = texts(&batch.project(&[0]).map_err(crate::frame::Error::from)?)?;
        let counts = cast(batch.column(1), &DataType::Int64).map_err(crate::frame::Error::from)?;
        let counts = counts.as_primitive::<Int64Type>();
        for row in (0..batch.num_rows()).filter(|row| shown.is_valid(*row)) {
            values.push(json!({"value": shown.value(row), "count": counts.value(row)}));
        }
    }
    Ok(Value::Array(values))
}

/// The fields of the newest line of the last day, as texts; `null` where there is none.
async fn newest_line(client: &Client, options: &Options) -> Result<Value, Error> {
    let sql =
        "SELECT * FROM logs WHERE timestamp >= now() - INTERVAL '1 day' ORDER BY timestamp DESC, _seq DESC LIMIT 1";
    let answer = client.query(sql, options).await?;
    let Some(row) = answer.batches.iter().find(|batch| batch.num_rows() > 0) else { return Ok(Value::Null) };
    let mut line = serde_json::Map::new();
    for (field, array) in row.schema_ref().fields().iter().zip(row.columns()) {
        let texts = cast(array, &DataType::Utf8).map_err(crate::frame::Error::from)?;
        let texts = texts.as_string::<i32>();
        if texts.is_valid(0) {
            line.insert(field.name().clone(), texts.value(0).into());
        }
    }
    Ok(Value::Object(line))
}

/// SQL text with filters written into it, or taken out.
fn edited(body: &[u8]) -> Result<Value, Error> {
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| Error::Request(format!("the body is not JSON with 'sql', 'add' and 'remove': {error}")))?;
    let sql = body["sql"].as_str().ok_or_else(|| Error::Request("the body has no 'sql'".to_owned()))?;
    let filters =
        |name: &str| -> Vec<_> { body[name].as_array().into_iter().flatten().map(normalize_filter).collect() };
    Ok(json!({"sql": sql::edit(sql, &filters("add"), &filters("remove"))?}))
}

async fn functions(client: &Client, options: &Options) -> Result<Value, Error> {
    let sql = "SELECT DISTINCT routine_name, description, syntax_example FROM information_schema.routines \
               ORDER BY routine_name";
    let answer = client.query(sql, options).await?;
    let mut functions: Vec<Value> = Vec::new();
    for batch in &answer.batches {
        let [names, descriptions, syntaxes] = texts(batch)?;
        for row in (0..batch.num_rows()).filter(|row| names.is_valid(*row)) {
            let name = names.value(row);
            let text =
                |array: &arrow::array::StringArray| if array.is_null(row) { "" } else { array.value(row) }.to_owned();
            // Overloads follow each other, and the first tells enough.
            if functions.last().is_none_or(|last| last["name"] != name) {
                let (description, syntax) = (text(&descriptions), text(&syntaxes));
                functions.push(json!({"name": name, "description": description, "syntax": syntax}));
            }
        }
    }
    Ok(Value::Array(functions))
}

/// The first columns of a batch as text.
fn texts<const N: usize>(batch: &RecordBatch) -> Result<[arrow::array::StringArray; N], Error> {
    let column = |array: &ArrayRef| Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone());
    let columns: Result<Vec<_>, arrow::error::ArrowError> = batch.columns().iter().take(N).map(column).collect();
    let columns = columns.map_err(crate::frame::Error::from)?;
    columns.try_into().map_err(|_| Error::Fault("the store's answer has too few columns".to_owned()))
}
