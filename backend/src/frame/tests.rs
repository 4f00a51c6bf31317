//! Named cases: rows as the store sends them, and the frames they become. Each is a directory of testdata/frame with a
//! `case.json` (`request`, `columns`, `rows`) and the `expected.json`. `UPDATE_EXPECT=1` rewrites the latter.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray, StringViewArray, TimestampNanosecondArray,
};
use arrow::datatypes::{Field as ArrowField, Schema};
use arrow::ipc::reader::FileReader;
use arrow::record_batch::RecordBatchOptions;

use super::*;
use crate::settings::{Raw, Settings};
use crate::sql::Buckets;

fn column(kind: &str, values: &[&Value]) -> ArrayRef {
    match kind {
        "timestamp" => {
            let times: TimestampNanosecondArray = values.iter().map(|value| value.as_i64()).collect();
            Arc::new(times.with_timezone("UTC"))
        }
        "integer" => Arc::new(values.iter().map(|value| value.as_i64()).collect::<Int64Array>()),
        "float" => Arc::new(values.iter().map(|value| value.as_f64()).collect::<Float64Array>()),
        "boolean" => Arc::new(values.iter().map(|value| value.as_bool()).collect::<BooleanArray>()),
        "text" => Arc::new(values.iter().map(|value| value.as_str()).collect::<StringArray>()),
        "view" => Arc::new(values.iter().map(|value| value.as_str()).collect::<StringViewArray>()),
        other => panic!("no type '{other}'"),
    }
}

fn batch(case: &Value) -> RecordBatch {
    let rows = case["rows"].as_array().expect("rows");
    let columns = case["columns"].as_array().expect("columns").iter().enumerate().map(|(index, column_case)| {
        let values: Vec<&Value> = rows.iter().map(|row| &row[index]).collect();
        let array = column(column_case[1].as_str().expect("type"), &values);
        (ArrowField::new(column_case[0].as_str().expect("name"), array.data_type().clone(), true), array)
    });
    let (fields, arrays): (Vec<_>, Vec<_>) = columns.unzip();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options).expect("rows of one shape")
}

fn shape(request: &Value) -> Shape {
    let groups = request["groups"].as_u64().map(|groups| groups as usize);
    let number = |name: &str| request["buckets"][name].as_i64().expect("a number");
    let buckets = (!request["buckets"].is_null()).then(|| Buckets {
        start_ns: number("start_ns"),
        step_ns: number("step_ns"),
        count: number("count") as usize,
    });
    match request["shape"].as_str().unwrap_or("auto") {
        "auto" => Shape::Auto,
        "logs" => Shape::Logs,
        "series" => Shape::Series { fill: buckets, groups },
        "number" => Shape::Number { groups },
        "table" => Shape::Table,
        "volume" => Shape::Volume { buckets: buckets.expect("buckets") },
        other => panic!("no shape '{other}'"),
    }
}

fn case_frames(case: &Value) -> Result<Vec<Frame>, Error> {
    let request = &case["request"];
    let words: Vec<String> = serde_json::from_value(request["searchWords"].clone()).unwrap_or_default();
    let form = json!({"traces": request["traces"], "links": request["links"].as_array().cloned().unwrap_or_default()});
    let form = if request["traces"].is_null() { json!({"links": form["links"]}) } else { form };
    let uid = request["own"].as_str().unwrap_or_default();
    let form = form.to_string();
    let raw = Raw { url: "http://s:1", uid, name: "Quiver", json: form.as_bytes(), ..Raw::default() };
    let settings = Settings::parse(&raw).expect("settings");
    let notices: Vec<String> = serde_json::from_value(request["notices"].clone()).unwrap_or_default();
    let stats: Option<Stats> = serde_json::from_value(request["stats"].clone()).expect("statistics");
    let rows = batch(case);
    let request = Request {
        ref_id: "A",
        shape: shape(request),
        sql: "SELECT …",
        limit: request["limit"].as_u64(),
        page: match request["page"].as_str() {
            None => Page::First,
            Some("in front") => Page::InFront,
            Some(id) => Page::Behind(id),
        },
        search_words: &words,
        links: &settings.links,
        whole_lines: request["wholeLines"] == true,
        notices: &notices,
        numbers_only: request["numbersOnly"].as_bool().unwrap_or(false),
        stats: stats.as_ref(),
    };
    frames(&rows.schema(), &[rows], &request)
}

fn json_of(frame: &Frame) -> Value {
    let text = frame.to_json();
    assert!(text.starts_with(r#"{"schema":"#), "the schema has to come first: {text}");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn rows_become_the_frames_of_their_case() {
    let cases = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/frame"));
    let mut count = 0;
    for entry in std::fs::read_dir(cases).expect("cases are there") {
        let directory = entry.expect("readable").path();
        let text = std::fs::read_to_string(directory.join("case.json")).expect("case.json");
        let case: Value = serde_json::from_str(&text).expect("JSON");
        let got = match case_frames(&case) {
            Err(error) => json!({"error": error.to_string()}),
            Ok(frames) => {
                frames.iter().for_each(assert_round_trip);
                frames.iter().map(json_of).collect()
            }
        };
        let path = directory.join("expected.json");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            let pretty = serde_json::to_string_pretty(&got).expect("JSON");
            std::fs::write(&path, pretty + "\n").expect("writable");
        }
        let expected: Value =
            serde_json::from_str(&std::fs::read_to_string(&path).expect("expected.json")).expect("JSON");
        assert_eq!(got, expected, "{}", directory.display());
        count += 1;
    }
    assert!(count >= 12, "only {count} cases");
}

/// What Grafana reads from the Arrow file is what the frame holds, in types that its reader knows.
fn assert_round_trip(frame: &Frame) {
    let bytes = frame.to_ipc().expect("encodable");
    let mut reader = FileReader::try_new(Cursor::new(bytes), None).expect("an Arrow file");
    let schema = reader.schema();
    assert_eq!(schema.metadata()["refId"], frame.ref_id);
    assert_eq!(serde_json::from_str::<Value>(&schema.metadata()["meta"]).expect("JSON"), frame.meta);
    let rows = reader.next().expect("one batch").expect("readable");
    assert!(reader.next().is_none(), "one batch");
    assert_eq!(rows.num_columns(), frame.fields.len());
    for ((arrow_field, array), field) in schema.fields().iter().zip(rows.columns()).zip(&frame.fields) {
        assert_eq!(*arrow_field.name(), field.name);
        assert_eq!(array, &field.values);
        let known = match array.data_type() {
            DataType::Utf8 | DataType::Boolean | DataType::Binary => true,
            DataType::Timestamp(unit, None) => *unit == arrow::datatypes::TimeUnit::Nanosecond,
            other => other.is_integer() || *other == DataType::Float64 || *other == DataType::Float32,
        };
        assert!(known, "Grafana cannot read {}", array.data_type());
        let metadata =
            |key: &str| arrow_field.metadata().get(key).map(|text| serde_json::from_str(text).expect("JSON"));
        assert_eq!(metadata("config"), field.config);
        let labels: Option<Value> = metadata("labels");
        assert_eq!(labels.unwrap_or_else(|| json!({})), json!(field.labels));
    }
}

#[test]
fn lines_without_a_sequence_number_get_stable_and_distinct_ids() {
    let case = json!({
        "request": {"shape": "logs"},
        "columns": [["timestamp", "timestamp"], ["message", "text"]],
        "rows": [[1, "a"], [1, "a"], [1, "b"]],
    });
    let ids = |case: &Value| json_of(&case_frames(case).expect("fine")[0])["data"]["values"][3].clone();
    let first = ids(&case);
    assert_eq!(first, ids(&case), "the same in every answer");
    let distinct: std::collections::HashSet<_> = first.as_array().expect("ids").iter().collect();
    assert_eq!(distinct.len(), 3, "{first}");
}
