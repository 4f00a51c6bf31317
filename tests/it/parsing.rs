//! Lines through pipelines: as the store keeps them, as `quiver parse` shows them, and imported from Promtail.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::http;
use crate::quiver::{Quiver, binary, data_dir, now_ns};

const PIPELINES: &str = r#"
[[pipeline]]
name = "secrets"
stages = [{ mask = { kinds = ["email"] } }]

[[pipeline]]
name = "web"
match = 'app = "web"'
stages = [
  { drop = { match = 'line =~ "health"' } },
  { regex = { expression = 'took (?P<ms>\d+)ms' } },
  { match = { match = 'line =~ "audit"', stages = [{ tenant = { value = "security" } }] } },
]
"#;

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file can be made");
    file.write_all(text.as_bytes()).expect("it can be written");
    file
}

fn path(file: &NamedTempFile) -> &str {
    file.path().to_str().expect("temporary paths are UTF-8")
}

/// Runs a command of the program to its end.
fn run(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    child.stdin.take().expect("it has an input").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("it writes UTF-8")
}

#[test]
fn the_store_keeps_what_pipelines_leave() {
    let (dir, config) = (data_dir(), file(PIPELINES));
    let quiver = Quiver::start(dir.path(), &["--config", path(&config)]);
    let lines = ["GET /health", "GET /a took 15ms by a@b.cd", "audit: login", "2026-01-01 12:00:00 ERROR plain text"];
    quiver.push_loki(&json!({"app": "web"}), now_ns(), &lines);
    quiver.push_loki(&json!({"app": "other"}), now_ns(), &["GET /health"]);
    let statement = "SELECT service, level, message, ms, _line FROM logs ORDER BY service, timestamp";
    assert_eq!(
        quiver.sql(statement),
        [
            json!({"service": "other", "message": "GET /health", "_line": "GET /health"}),
            json!({"service": "web", "message": "GET /a took 15ms by ***", "ms": 15, "_line": "GET /a took 15ms by ***"}),
            json!({"service": "web", "level": "error", "message": "plain text", "_line": "2026-01-01 12:00:00 ERROR plain text"}),
        ]
    );
    let headers = [("accept", "application/x-ndjson"), ("x-scope-orgid", "security")];
    let answer = http::request(&quiver.http, "POST", "/api/v1/sql", &headers, b"SELECT message FROM logs");
    assert_eq!(answer.expect("it answers").text().trim(), r#"{"message":"audit: login"}"#);
}

#[test]
fn parse_shows_what_would_be_kept() {
    let config = file(PIPELINES);
    let shown = run(
        &["parse", "--config", path(&config), "--label", "app=web", "--json"],
        "GET /health\nGET /a took 15ms by a@b.cd\naudit: login\n",
    );
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    let rows: Vec<Value> = text(&shown.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((rows[0]["ms"].clone(), rows[0]["_line"].clone()), (json!(15), json!("GET /a took 15ms by ***")));
    assert_eq!((rows[1]["message"].clone(), rows.len()), (json!("audit: login"), 2));
    assert!(text(&shown.stderr).contains("3 lines: 2 records, 1 dropped, 0 rejected"), "{}", text(&shown.stderr));

    let explained =
        run(&["parse", "--config", path(&config), "--label", "app=web", "--explain"], "GET /health\naudit a@b.cd\n");
    let explained = text(&explained.stdout);
    for wanted in [
        "web: stage 1 (drop): the line is dropped",
        "secrets: stage 1 (mask): line = audit ***",
        "web: stage 2 (regex): nothing",
        "web: stage 3 (match), stage 1 (tenant): tenant = security",
        "(tenant security)",
    ] {
        assert!(explained.contains(wanted), "{wanted:?} is not in\n{explained}");
    }
}

#[test]
fn parse_needs_no_config() {
    let lines = file(
        "{\"level\":\"warn\",\"msg\":\"hi\",\"n\":1}\n127.0.0.1 - - [10/Oct/2000:13:55:36 -0700] \"GET /a HTTP/1.0\" 200 5\n",
    );
    let shown = run(&["parse", path(&lines)], "");
    let out = text(&shown.stdout);
    for wanted in
        ["warn", "    hi\n      n = 1\n", "2000-10-10T20:55:36", "    GET /a HTTP/1.0\n", "      status = 200\n"]
    {
        assert!(out.contains(wanted), "{wanted:?} is not in\n{out}");
    }
    let measured = run(&["parse", "--measure", path(&lines)], "");
    assert!(text(&measured.stdout).contains("CPU-seconds per GB: 2 lines"), "{}", text(&measured.stdout));
}

#[test]
fn parse_tells_what_is_wrong() {
    let long = file("[ingest]\nline_bytes_max = 5\n");
    let shown = run(&["parse", "--config", path(&long)], "short\ntoo long\n");
    assert_eq!(shown.status.code(), Some(1));
    assert!(text(&shown.stderr).contains("line 2: the line has 8 bytes; the limit is 5"), "{}", text(&shown.stderr));

    let broken = file("[[pipeline]]\nname = 'p'\nstages = [{ regex = { expression = '(' } }]\n");
    for command in ["parse", "check"] {
        let shown = run(&[command, "--config", path(&broken)], "");
        assert_eq!(shown.status.code(), Some(1));
        let told = text(&shown.stderr);
        assert!(told.contains("pipeline 'p', stage 1 (regex), 'expression': unclosed group"), "{told}");
    }
    let unknown = file("[[pipeline]]\nstages = [{ regexp = {} }]\n");
    let told = run(&["check", "--config", path(&unknown)], "");
    assert!(text(&told.stderr).contains("regexp"), "{}", text(&told.stderr));
}

#[test]
fn what_is_imported_is_a_config() {
    let promtail = "scrape_configs:\n- job_name: web\n  static_configs: [{targets: [localhost], labels: {job: web}}]\n  pipeline_stages:\n  - regex: {expression: 'took (?P<ms>\\d+)ms'}\n  - labels: {ms: }\n";
    let (whole, missing) = (file(promtail), file(&format!("{promtail}  - metrics: {{}}\n")));
    let imported = run(&["import", path(&whole)], "");
    assert!(imported.status.success(), "{}", text(&imported.stderr));
    let config = file(text(&imported.stdout));
    let shown = run(&["parse", "--config", path(&config), "--label", "job=web", "--json"], "it took 7ms\n");
    let row: Value = serde_json::from_str(text(&shown.stdout).trim()).expect("JSON");
    assert_eq!(row["ms"], json!(7), "{}", text(&shown.stderr));

    let imported = run(&["import", path(&missing)], "");
    assert_eq!(imported.status.code(), Some(1));
    assert!(text(&imported.stdout).contains("# NO EQUAL: metrics"), "{}", text(&imported.stdout));
    let nothing = run(&["import", path(&file("a: 1\n"))], "");
    assert!(
        text(&nothing.stderr).contains("has neither pipeline_stages nor loki.process"),
        "{}",
        text(&nothing.stderr)
    );
}
