//! Stores that earlier releases wrote open with this one, and answer as they did. How they were made stands in
//! tests/fixtures/README.md.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::http;
use crate::quiver::{KEEP_BY_LEVEL, Quiver, data_dir, repository};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("it can be made");
    for entry in fs::read_dir(from).expect("it can be listed") {
        let path = entry.expect("it can be listed").path();
        let target = to.join(path.file_name().expect("an entry has a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("it can be copied");
        }
    }
}

/// Rows of a tenant, with the tenant in front, as the fixtures have them.
fn rows(quiver: &Quiver, tenant: &str, sql: &str) -> Vec<Value> {
    let headers = [("accept", "application/x-ndjson"), ("x-scope-orgid", tenant)];
    let answer = http::request(&quiver.http, "POST", "/api/v1/sql", &headers, sql.as_bytes()).expect("it answers");
    assert_eq!(answer.status, 200, "{sql}: {}", answer.text());
    let row = |line: &str| {
        let mut row: Value = serde_json::from_str(line).expect("rows are JSON");
        row["tenant"] = json!(tenant);
        row
    };
    answer.text().lines().map(row).collect()
}

/// Starts the present program on a copy of a stored data directory and compares every row; then again once everything
/// was written anew.
fn check(name: &str) {
    let fixtures = repository().join("tests/fixtures");
    let text = fs::read_to_string(fixtures.join(format!("{name}.ndjson"))).expect("it can be read");
    let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("it is JSON"));
    let statement = lines.next().expect("the first line is the statement");
    let sql = statement["sql"].as_str().expect("the statement is a text");
    let expected: Vec<Value> = lines.collect();
    assert!(expected.len() > 100, "only {} rows", expected.len());

    let (dir, mut config) = (data_dir(), tempfile::NamedTempFile::new().expect("a temporary file can be made"));
    copy(&fixtures.join(name), dir.path());
    config.write_all(KEEP_BY_LEVEL.as_bytes()).expect("it can be written");
    let arguments = ["--config", config.path().to_str().expect("temporary paths are UTF-8")];
    let all = |quiver: &Quiver| [rows(quiver, "default", sql), rows(quiver, "other", sql)].concat();
    let compare = |found: Vec<Value>, when: &str| {
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found, expected, "{when}");
        }
        assert_eq!(found.len(), expected.len(), "{when}");
    };

    let quiver = Quiver::start(dir.path(), &arguments);
    assert!(quiver.metric("quiver_storage_buffer_records") > 0.0, "the log has records");
    compare(all(&quiver), "opened");
    assert!(!quiver.log().contains("made again"), "an index was not understood:\n{}", quiver.log());
    for id in ["trace_id", "span_id", "request_id", "digest", "message"] {
        let of_default = || expected.iter().filter(|row| row["tenant"] == "default");
        let value = of_default().rev().find_map(|row| row[id].as_str()).expect("some record has one");
        let found = rows(&quiver, "default", &format!("SELECT _seq FROM logs WHERE {id} = '{value}' ORDER BY _seq"));
        let seqs = |rows: &mut dyn Iterator<Item = &Value>| rows.map(|row| row["_seq"].clone()).collect::<Vec<_>>();
        let wanted = seqs(&mut of_default().filter(|row| row[id] == value));
        assert_eq!(seqs(&mut found.iter()), wanted, "{id} = '{value}'");
    }
    let answer = quiver.post("/api/v1/admin/flush", "", b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = quiver.post("/api/v1/admin/compact", "", b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.json()["segments_merged"].as_u64() > Some(0), "{}", answer.text());
    compare(all(&quiver), "merged");
    assert!(quiver.terminate().success());
    compare(all(&Quiver::start(dir.path(), &arguments)), "started again");
}

#[test]
fn a_store_of_release_0_1_opens() {
    check("store-0.1");
}
