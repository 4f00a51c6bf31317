//! Real clients, as published, against the real store: Loki, OpenTelemetry, ADBC, pyarrow and pino.
//! What each does and demands stands in `tests/clients`; here is checked what the store made of it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::quiver::{Quiver, data_dir, repository, wait_for};

/// The Python that has the clients.
pub fn python() -> PathBuf {
    let given = std::env::var_os("QUIVER_PYTHON").map(PathBuf::from);
    let python = given.unwrap_or_else(|| repository().join(".venv/bin/python"));
    assert!(python.exists(), "no '{}': `make test` sets up the clients' Python", python.display());
    python
}

/// Runs a client to its end; its output is the test's failure.
pub fn run(mut command: Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} can't be started: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} ended with {}\n{stdout}{stderr}", output.status);
}

/// Runs `tests/clients/<script>`.
pub fn run_python(script: &str, arguments: &[&str]) {
    let mut command = Command::new(python());
    command.arg(repository().join("tests/clients").join(script)).args(arguments);
    run(command);
}

/// 100 records, n from 0 to 99, every tenth an error, a second apart.
pub fn fill(quiver: &Quiver) {
    let lines: Vec<String> = (0..100)
        .map(|n| {
            let level = if n % 10 == 0 { "error" } else { "info" };
            let time = format!("2026-02-10T12:{:02}:{:02}Z", n / 60, n % 60);
            format!(r#"{{"ts":"{time}","level":"{level}","service":"orders","msg":"line {n}","n":{n}}}"#)
        })
        .collect();
    quiver.ingest(&lines.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn python_logging_loki_pushes() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    run_python("push_python_logging_loki.py", &[&quiver.http]);
    let rows = quiver.sql("SELECT level, service, message, logger, region, status FROM logs ORDER BY _seq");
    let expected = json!([
        {"level": "info", "service": "py-loki", "message": "cart opened", "logger": "shop.cart"},
        {"level": "warn", "service": "py-loki", "message": "cart 7 is slow", "logger": "shop.cart", "region": "eu"},
        {"level": "error", "service": "py-loki", "message": "declined", "logger": "shop.cart", "status": 402},
    ]);
    assert_eq!(Value::Array(rows), expected);
}

fn opentelemetry_pushes(protocol: &str, address: impl Fn(&Quiver) -> &str) {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    run_python("push_otel.py", &[protocol, address(&quiver)]);
    let sql = r#"SELECT CAST(timestamp AS BIGINT) AS ns, level, service, message, trace_id, span_id, "http.status",
                 ratio, ok FROM logs ORDER BY timestamp"#;
    let row = |number: i64, level: &str| {
        json!({
            "ns": 1_770_725_100_000_000_001_i64 + number, "level": level, "service": format!("otel-{protocol}"),
            "message": format!("otel line {number}"), "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
            "span_id": "00f067aa0ba902b7", "http.status": 200 + number, "ratio": 0.5, "ok": true,
        })
    };
    assert_eq!(quiver.sql(sql), [row(0, "info"), row(1, "error")]);
}

#[test]
fn opentelemetry_pushes_by_http() {
    opentelemetry_pushes("http", |quiver| &quiver.http);
}

#[test]
fn opentelemetry_pushes_by_grpc() {
    opentelemetry_pushes("grpc", |quiver| &quiver.grpc);
}

#[test]
fn pino_loki_pushes() {
    let node = repository().join("tests/clients/node");
    assert!(node.join("node_modules/pino-loki").exists(), "`make test` sets up the clients in tests/clients/node");
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    let mut command = Command::new("node");
    command.arg(node.join("push.mjs")).arg(&quiver.http);
    run(command);
    let two = || (quiver.count("SELECT count(*) FROM logs") == 2).then_some(());
    wait_for("pino's two records", Duration::from_secs(20), two);
    let rows = quiver.sql("SELECT level, service, message, user_id, status FROM logs ORDER BY message");
    let expected = json!([
        {"level": "info", "service": "pino-app", "message": "user came", "user_id": 7},
        {"level": "error", "service": "pino-app", "message": "user failed", "status": 500},
    ]);
    assert_eq!(Value::Array(rows), expected);
}

#[test]
fn adbc_reads_by_flight_sql() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    fill(&quiver);
    run_python("read_adbc.py", &[&quiver.grpc]);
}

#[test]
fn pyarrow_reads_the_arrow_stream() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    fill(&quiver);
    run_python("read_arrow.py", &[&quiver.http]);
}
