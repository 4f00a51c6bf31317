//! Records that were asked to be deleted are gone, from answers and from files; others, and later ones, stay.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::{self, Answer};
use crate::quiver::{Quiver, binary, data_dir, wait_for};

const DONE_MAX: Duration = Duration::from_secs(30);

fn ask(quiver: &Quiver, tenant: &str, method: &str, target: &str, body: &Value) -> Answer {
    let headers = [("content-type", "application/json"), ("x-scope-orgid", tenant)];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    http::request(&quiver.http, method, target, &headers, body.as_bytes()).expect("the store answers")
}

/// Asks for a deletion that has to be taken; its id.
fn delete(quiver: &Quiver, body: &Value) -> i64 {
    let answer = ask(quiver, "default", "POST", "/api/v1/delete", body);
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(answer.json()["state"], "active");
    answer.json()["id"].as_i64().expect("it has an id")
}

fn state(quiver: &Quiver, id: i64) -> Value {
    let listed = ask(quiver, "default", "GET", "/api/v1/delete", &Value::Null).json();
    let found = listed["deletions"].as_array().and_then(|all| all.iter().find(|deletion| deletion["id"] == id));
    found.unwrap_or_else(|| panic!("deletion {id} is not in {listed}")).clone()
}

/// The files of segments.
fn parquet_files(data_dir: &Path) -> Vec<PathBuf> {
    let mut dirs = vec![data_dir.join("segments")];
    let mut files = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).expect("it can be listed") {
            let path = entry.expect("it can be listed").path();
            match path.is_dir() {
                true => dirs.push(path),
                false if path.extension().is_some_and(|extension| extension == "parquet") => files.push(path),
                false => {}
            }
        }
    }
    files
}

fn wait_until_done(quiver: &Quiver, id: i64) -> Value {
    wait_for("the end of a deletion", DONE_MAX, || {
        let state = state(quiver, id);
        (state["state"] != "active").then_some(state)
    })
}

fn ingest(quiver: &Quiver, from: usize, count: usize) {
    let line = |n: usize| {
        let level = ["info", "error"][n / 3 % 2];
        format!(
            r#"{{"ts":"2026-02-10T00:{:02}:00Z","level":"{level}","msg":"m{n}","user_id":"u{}","n":{n}}}"#,
            n % 60,
            n % 3
        )
    };
    let lines: Vec<String> = (from..from + count).map(line).collect();
    quiver.ingest(&lines.iter().map(String::as_str).collect::<Vec<_>>());
}

const BY_USER: &str = "SELECT user_id, count(*) AS records FROM logs GROUP BY user_id ORDER BY user_id";

#[test]
fn records_are_gone_from_answers_and_files_and_later_ones_stay() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    ingest(&quiver, 0, 60);
    quiver.terminate();
    let quiver = Quiver::start(dir.path(), &[]);
    ingest(&quiver, 60, 60);
    let before = quiver.sql("SELECT _seq, _line FROM logs WHERE user_id <> 'u1' ORDER BY _seq");
    let id = delete(&quiver, &json!({"filter": "user_id = 'u1'"}));
    ingest(&quiver, 120, 3);
    let done = wait_until_done(&quiver, id);
    assert_eq!((&done["state"], &done["records_removed"]), (&json!("done"), &json!(40)), "{done}");
    assert_eq!(done["segments_done"], done["segments_total"], "{done}");
    let expected =
        json!([{"user_id": "u0", "records": 41}, {"user_id": "u1", "records": 1}, {"user_id": "u2", "records": 41}]);
    assert_eq!(Value::Array(quiver.sql(BY_USER)), expected);
    let after = quiver.sql("SELECT _seq, _line FROM logs WHERE user_id <> 'u1' AND n < 120 ORDER BY _seq");
    assert_eq!(after, before, "the others are as they were");
    assert!(quiver.terminate().success());

    let verified = Command::new(binary()).args(["verify", "--data-dir"]).arg(dir.path()).output().expect("it runs");
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    let quiver = Quiver::start(dir.path(), &[]);
    assert_eq!(Value::Array(quiver.sql(BY_USER)), expected);
    // Replaced files are swept at the latest now, so exactly the live ones are there.
    let listed = Command::new(binary()).args(["segments", "--format", "json", "--data-dir"]).arg(dir.path()).output();
    let live = String::from_utf8(listed.expect("it runs").stdout).expect("it is text").lines().count();
    let files = parquet_files(dir.path()).len();
    assert_eq!(files, live);
}

#[test]
fn a_range_and_a_tenant_bound_a_deletion() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    ingest(&quiver, 0, 60);
    let other = ask(&quiver, "other", "POST", "/api/v1/ingest", &json!({"msg": "theirs", "n": 1, "user_id": "u1"}));
    assert_eq!(other.status, 200, "{}", other.text());
    let body = json!({"filter": "n >= 0", "from": "2026-02-10T00:10:00Z", "to": "2026-02-10T00:20:00Z"});
    let done = wait_until_done(&quiver, delete(&quiver, &body));
    assert_eq!(done["records_removed"], 10, "{done}");
    assert_eq!(quiver.count("SELECT count(*) FROM logs WHERE n BETWEEN 10 AND 19"), 0);
    assert_eq!(quiver.count("SELECT count(*) FROM logs"), 50);
    let done = wait_until_done(&quiver, delete(&quiver, &json!({"filter": "user_id IS NOT NULL"})));
    assert_eq!((&done["records_removed"], quiver.count("SELECT count(*) FROM logs")), (&json!(50), 0));
    let theirs = ask(&quiver, "other", "POST", "/api/v1/sql", &Value::Null);
    assert_eq!(theirs.status, 400, "no SQL was sent");
    let listed = ask(&quiver, "other", "GET", "/api/v1/delete", &Value::Null).json();
    assert_eq!(listed, json!({"deletions": []}), "another tenant's deletions are not told");
    assert_eq!(ask(&quiver, "other", "DELETE", "/api/v1/delete/1", &Value::Null).status, 404);
}

#[test]
fn a_deletion_survives_kills() {
    let dir = data_dir();
    let mut quiver = Quiver::start(dir.path(), &["--set", "storage.flush_age_max=10ms"]);
    for round in 0..8 {
        ingest(&quiver, round * 30, 30);
    }
    let id = delete(&quiver, &json!({"filter": "user_id = 'u2'"}));
    for _ in 0..5 {
        quiver.kill9();
        quiver = Quiver::start(dir.path(), &[]);
    }
    let done = wait_until_done(&quiver, id);
    assert_eq!((&done["state"], &done["records_removed"]), (&json!("done"), &json!(80)), "{done}");
    assert_eq!(quiver.count("SELECT count(*) FROM logs"), 160);
    assert_eq!(quiver.count("SELECT count(DISTINCT n) FROM logs WHERE user_id <> 'u2'"), 160);
}

#[test]
fn a_deletion_waits_for_a_file_that_is_away() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    ingest(&quiver, 0, 60);
    assert!(quiver.terminate().success());
    let (file, aside) = (parquet_files(dir.path()).swap_remove(0), dir.path().join("aside"));
    fs::rename(&file, &aside).expect("it can be moved");

    let quiver = Quiver::start(dir.path(), &[]);
    let id = delete(&quiver, &json!({"filter": "user_id = 'u1'"}));
    let waiting = wait_until_done(&quiver, id);
    assert_eq!((&waiting["state"], &waiting["records_removed"]), (&json!("waiting"), &json!(10)), "{waiting}");
    assert!(waiting["error"].as_str().is_some_and(|error| error.contains("quarantined")), "{waiting}");
    quiver.terminate();
    fs::rename(&aside, &file).expect("it can be moved");

    let quiver = Quiver::start(dir.path(), &[]);
    let count = || quiver.count("SELECT count(*) FROM logs WHERE user_id = 'u1'");
    assert_eq!(count(), 0);
    let done = wait_until_done(&quiver, id);
    assert_eq!((&done["state"], &done["records_removed"]), (&json!("done"), &json!(20)), "{done}");
    assert_eq!((count(), quiver.count("SELECT count(*) FROM logs")), (0, 40));
}

#[test]
fn what_cannot_be_deleted_is_told() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    ingest(&quiver, 0, 3);
    let cases = [
        (json!({"filter": "user_id = "}), "no SQL condition"),
        (json!({"filter": "usr_id = 'u1'"}), "no field named 'usr_id'"),
        (json!({"filter": "user_id IN (SELECT user_id FROM logs)"}), "may not have a SELECT"),
        (json!({"filter": "n = 1", "from": "later"}), "is not a time"),
        (json!({"from": "1h"}), "missing field `filter`"),
        (json!({"filter": "n = 1", "until": "1h"}), "unknown field `until`"),
    ];
    for (body, expected) in cases {
        let answer = ask(&quiver, "default", "POST", "/api/v1/delete", &body);
        assert!(answer.status == 400 && answer.message().contains(expected), "{body}: {}", answer.text());
    }
    let id = delete(&quiver, &json!({"filter": "n = 1"}));
    wait_until_done(&quiver, id);
    let late = ask(&quiver, "default", "DELETE", &format!("/api/v1/delete/{id}"), &Value::Null);
    assert!(late.status == 400 && late.message().contains("is done already"), "{}", late.text());
    assert_eq!(quiver.count("SELECT count(*) FROM logs"), 2);
}

#[test]
fn quiver_delete_asks_waits_and_lists() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    ingest(&quiver, 0, 30);
    let run = |arguments: &[&str]| {
        let output = Command::new(binary())
            .env_clear()
            .args(["delete", "--url", &quiver.http])
            .args(arguments)
            .output()
            .expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    };
    let (success, stdout, stderr) = run(&["user_id = 'u0'", "--wait"]);
    assert!(success && stdout.contains("\"records_removed\":10") && stdout.contains("\"done\""), "{stdout}{stderr}");
    let (success, stdout, _) = run(&["--list"]);
    assert!(success && stdout.lines().count() == 1, "{stdout}");
    let (success, _, stderr) = run(&["--cancel", "77"]);
    assert!(!success && stderr.contains("there is no deletion '77'"), "{stderr}");
    let (success, _, stderr) = run(&[]);
    assert!(!success && stderr.contains("required"), "{stderr}");
}
