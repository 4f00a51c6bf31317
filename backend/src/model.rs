//! The query model, version 1: what the editor writes into a dashboard and the backend turns into SQL; no SQL here.
//! Its twin is frontend/src/model.ts, and backend/testdata/model/*.json holds both to one meaning. Invariant: reading
//! never fails; what is missing or unknown becomes its default, for models are also written by hand and by links. Only an
//! unknown operator is kept as it is, for another one in its place would find other lines.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Version that this code reads and writes.
pub const VERSION: u32 = 1;
/// Quantile of an aggregate that names none.
const QUANTILE_DEFAULT: f64 = 0.95;

/// Which of the two editors the query was written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Editor {
    /// The one with rows and pickers.
    Builder,
    /// The one for text.
    Sql,
}

/// What a condition asks of a field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Equal.
    #[serde(rename = "=")]
    Eq,
    /// Not equal; lines without the field are not equal.
    #[serde(rename = "!=")]
    Ne,
    /// Has the text in it, in the same case.
    #[serde(rename = "contains")]
    Contains,
    /// Has it not.
    #[serde(rename = "!contains")]
    NotContains,
    /// A regular expression finds something in it.
    #[serde(rename = "=~")]
    Matches,
    /// It finds nothing.
    #[serde(rename = "!~")]
    NotMatches,
    /// Less; a number in the operand compares as a number.
    #[serde(rename = "<")]
    Lt,
    /// Less or equal.
    #[serde(rename = "<=")]
    Le,
    /// Greater.
    #[serde(rename = ">")]
    Gt,
    /// Greater or equal.
    #[serde(rename = ">=")]
    Ge,
    /// The line has the field.
    #[serde(rename = "exists")]
    Exists,
    /// The line has it not.
    #[serde(rename = "!exists")]
    NotExists,
    /// Equal to one of several.
    #[serde(rename = "in")]
    In,
    /// Equal to none of them.
    #[serde(rename = "!in")]
    NotIn,
    /// No operator; the query is refused.
    #[serde(untagged)]
    Unknown(String),
}

/// What a condition asks of the message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SearchOp {
    /// Has the text in it, in the same case.
    #[serde(rename = "contains")]
    Contains,
    /// Has it not.
    #[serde(rename = "!contains")]
    NotContains,
    /// A regular expression finds something in it.
    #[serde(rename = "=~")]
    Matches,
    /// It finds nothing.
    #[serde(rename = "!~")]
    NotMatches,
    /// No operator; the query is refused.
    #[serde(untagged)]
    Unknown(String),
}

/// How lines become a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    /// How many lines; with a field: that have it.
    Count,
    /// How many per second.
    Rate,
    /// Sum of a field.
    Sum,
    /// Its mean.
    Avg,
    /// Its least value.
    Min,
    /// Its greatest value.
    Max,
    /// Its value at a quantile.
    Quantile,
    /// How many different values it has.
    CountDistinct,
}

/// What the answer should become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// By the columns of the answer.
    Auto,
    /// Log lines.
    Logs,
    /// Time series.
    Series,
    /// One number per group over the whole range.
    Number,
    /// Rows as they are.
    Table,
}

/// Why a query is sent, when it is not for the panel itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Counts per level over time.
    LogVolume,
    /// Some lines behind a query for numbers.
    LogsSample,
    /// New lines as they come.
    Tail,
    /// Lines around a line.
    Context,
}

/// Which end of the range is asked for first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The newest lines.
    Backward,
    /// The oldest lines.
    Forward,
}

/// A condition on a field. `values` serves in and !in, `value` every other op that needs one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Filter {
    /// Name of the field; empty: still being typed, and skipped.
    pub field: String,
    /// What is asked.
    pub op: Op,
    /// The operand.
    pub value: String,
    /// The operands of in and !in.
    pub values: Vec<String>,
}

/// A condition on the message.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Search {
    /// What is asked.
    pub op: SearchOp,
    /// The text or the regular expression; empty: skipped.
    pub text: String,
}

/// How lines become a number.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Aggregate {
    /// The function.
    pub function: Function,
    /// What it is computed from; count and rate need none.
    pub field: String,
    /// For quantile: 0 to 1.
    pub quantile: f64,
}

/// A query made of parts.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Builder {
    /// All of them must hold.
    pub filters: Vec<Filter>,
    /// All of them must hold.
    pub search: Vec<Search>,
    /// `None`: the lines themselves.
    pub aggregate: Option<Aggregate>,
    /// Fields whose values make the series.
    pub group_by: Vec<String>,
    /// Lines at most; 0: the data source's default.
    pub limit: u64,
    /// Which end of the range is asked for first.
    pub direction: Direction,
    /// Width of a time bucket such as `5m`; empty: the panel's interval.
    pub step: String,
}

/// A place between two lines: rows strictly beyond (timestamp, _seq). The numbers are decimal text, for JSON has no 64 bits.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cursor {
    /// Nanoseconds since the epoch.
    pub timestamp_ns: String,
    /// `_seq` of the line.
    pub seq: String,
    /// Backward: older lines.
    pub direction: Direction,
}

/// One query of a panel.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Query {
    /// Its name in the panel.
    pub ref_id: String,
    /// Of the model.
    pub version: u32,
    /// Which of the two parts below counts.
    pub editor: Editor,
    /// The query made of parts.
    pub builder: Builder,
    /// The query as text.
    pub sql: String,
    /// Conditions beside the text: its lines must meet them too. A builder has its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// What the answer should become.
    pub format: Format,
    /// Why it is sent, when not for the panel itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purpose: Option<Purpose>,
    /// Where to go on from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
    /// Widens the time range both ways, such as `1h`; empty: not at all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub widen: String,
    /// Show lines of any length whole.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub whole_lines: bool,
    /// Whose logs, where the data source lets a query say so; empty: the data source's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tenant: String,
}

impl Query {
    /// Reads a model, filling in every default.
    pub fn normalize(model: &Value) -> Query {
        let ref_id = text(&model["refId"]);
        let cursor = &model["cursor"];
        let timestamp_ns = text(&cursor["timestampNs"]);
        Query {
            ref_id: if ref_id.is_empty() { "A".to_owned() } else { ref_id },
            version: VERSION,
            editor: word(&model["editor"]).unwrap_or(Editor::Builder),
            builder: normalize_builder(&model["builder"]),
            sql: text(&model["sql"]),
            filters: items(&model["filters"]).iter().map(normalize_filter).collect(),
            format: word(&model["format"]).unwrap_or(Format::Auto),
            purpose: word(&model["purpose"]),
            cursor: (!timestamp_ns.is_empty()).then(|| Cursor {
                timestamp_ns,
                seq: text(&cursor["seq"]),
                direction: normalize_direction(&cursor["direction"]),
            }),
            widen: text(&model["widen"]),
            whole_lines: model["wholeLines"] == true,
            tenant: text(&model["tenant"]),
        }
    }
}

fn normalize_builder(raw: &Value) -> Builder {
    Builder {
        filters: items(&raw["filters"]).iter().map(normalize_filter).collect(),
        search: items(&raw["search"]).iter().map(normalize_search).collect(),
        aggregate: normalize_aggregate(&raw["aggregate"]),
        group_by: items(&raw["groupBy"]).iter().map(text).collect(),
        limit: whole_number(&raw["limit"]),
        direction: normalize_direction(&raw["direction"]),
        step: text(&raw["step"]),
    }
}

/// Reads one condition, as it stands in a model and in the pickers' requests.
pub fn normalize_filter(raw: &Value) -> Filter {
    Filter {
        field: text(&raw["field"]),
        op: operator(&raw["op"]).unwrap_or(Op::Eq),
        value: text(&raw["value"]),
        values: items(&raw["values"]).iter().map(text).collect(),
    }
}

fn normalize_search(raw: &Value) -> Search {
    Search { op: operator(&raw["op"]).unwrap_or(SearchOp::Contains), text: text(&raw["text"]) }
}

fn normalize_aggregate(raw: &Value) -> Option<Aggregate> {
    (!raw.is_null()).then(|| Aggregate {
        function: word(&raw["function"]).unwrap_or(Function::Count),
        field: text(&raw["field"]),
        quantile: raw["quantile"].as_f64().unwrap_or(QUANTILE_DEFAULT),
    })
}

fn normalize_direction(raw: &Value) -> Direction {
    word(raw).unwrap_or(Direction::Backward)
}

fn word<T: DeserializeOwned>(value: &Value) -> Option<T> {
    T::deserialize(value).ok()
}

/// The operator, if there is one: an unknown word is one too.
fn operator<T: DeserializeOwned>(value: &Value) -> Option<T> {
    let name = text(value);
    if name.is_empty() { None } else { word(&Value::String(name)) }
}

/// Text, or a number or truth value written where text is meant.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(truth) => truth.to_string(),
        // JavaScript writes 5.0 as 5.
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 1e15 => format!("{float:.0}"),
            _ => number.to_string(),
        },
        Value::Null | Value::Array(_) | Value::Object(_) => String::new(),
    }
}

fn whole_number(value: &Value) -> u64 {
    let number = match value {
        Value::String(text) => text.trim().parse().unwrap_or(0.0),
        other => other.as_f64().unwrap_or(0.0),
    };
    if number.is_finite() && number > 0.0 { number as u64 } else { 0 }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every fixture says what a model means once its defaults are filled in; the frontend checks the same files.
    #[test]
    fn fixtures_mean_the_same_here_and_in_the_editor() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/model");
        let mut count = 0;
        for entry in std::fs::read_dir(directory).expect("fixtures are there") {
            let path = entry.expect("readable").path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("readable");
            let fixture: Value = serde_json::from_str(&text).expect("JSON");
            let once = serde_json::to_value(Query::normalize(&fixture["model"])).expect("serializable");
            assert_eq!(numbers(&once), numbers(&fixture["normalized"]), "{}", path.display());
            let twice = serde_json::to_value(Query::normalize(&once)).expect("serializable");
            assert_eq!(once, twice, "{}", path.display());
            count += 1;
        }
        assert!(count >= 3, "only {count} fixtures");
    }

    /// 1 and 1.0 are one number in JSON, and two in serde_json.
    fn numbers(value: &Value) -> Value {
        match value {
            Value::Number(number) => serde_json::json!(number.as_f64()),
            Value::Array(items) => items.iter().map(numbers).collect(),
            Value::Object(map) => Value::Object(map.iter().map(|(k, v)| (k.clone(), numbers(v))).collect()),
            other => other.clone(),
        }
    }
}
