//! What SQL over HTTP answers: formats, ranges, limits, errors that help, deadlines, and the pickers' endpoints.

use std::io::Read;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::{self, escape};
use crate::quiver::{Quiver, data_dir, wait_for};

/// Works until it is stopped: ten thousand million rows, none of which is kept.
const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 1000000) AS a(x), generate_series(1, 100000) AS b(y) \
                       WHERE x * y % 7 = 8";

/// 100 records, one a minute from 2026-02-10T12:00:00Z on, every tenth an error.
fn filled(arguments: &[&str]) -> (TempDir, Quiver) {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), arguments);
    let line = |at: usize| {
        let (level, service) =
            (if at.is_multiple_of(10) { "error" } else { "info" }, ["payments-api", "orders"][at % 2]);
        let time = format!("2026-02-10T{:02}:{:02}:00Z", 12 + at / 60, at % 60);
        format!(
            r#"{{"ts":"{time}","level":"{level}","service":"{service}","msg":"m {at}","n":{at},"http.status":200}}"#
        )
    };
    let lines: Vec<String> = (0..100).map(line).collect();
    quiver.ingest(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    (dir, quiver)
}

#[test]
fn accept_chooses_the_format() {
    let (_dir, quiver) = filled(&[]);
    let sql = "SELECT n, level, trace_id FROM logs ORDER BY n LIMIT 2";
    let check = |accept: &str, content_type: &str, text: &str| {
        let answer = quiver.ask("", accept, sql);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.header("content-type").is_some_and(|found| found.starts_with(content_type)), "{answer:?}");
        assert_eq!(answer.text(), text, "{accept}");
    };
    let ndjson = "{\"n\":0,\"level\":\"error\"}\n{\"n\":1,\"level\":\"info\"}\n";
    check("*/*", "application/x-ndjson", ndjson);
    check("application/x-ndjson", "application/x-ndjson", ndjson);
    check("text/csv", "text/csv", "n,level,trace_id\n0,error,\n1,info,\n");
    let table = "+---+-------+----------+\n| n | level | trace_id |\n+---+-------+----------+\n\
                 | 0 | error |          |\n| 1 | info  |          |\n+---+-------+----------+\n";
    check("text/plain", "text/plain", table);
    let arrow = quiver.ask("", "application/vnd.apache.arrow.stream", sql);
    assert_eq!(arrow.header("content-type"), Some("application/vnd.apache.arrow.stream"));
    assert!(arrow.body.starts_with(&[0xff; 4]) && arrow.body.len() > 100, "an Arrow stream starts so");
    assert_eq!(quiver.ask("", "image/png", sql).status, 406);
}

#[test]
fn from_to_and_limit_narrow_the_answer() {
    let (_dir, quiver) = filled(&[]);
    let numbers = |parameters: &str| -> Vec<u64> {
        let rows = quiver.sql_with(parameters, "SELECT n FROM logs ORDER BY n");
        rows.iter().filter_map(|row| row["n"].as_u64()).collect()
    };
    let expected: Vec<u64> = (5..10).collect();
    // Seconds, milli-, micro- and nanoseconds of 12:05:00 and 12:10:00; the end is exclusive.
    for zeros in ["", "000", "000000", "000000000"] {
        assert_eq!(numbers(&format!("?from=1770725100{zeros}&to=1770725400{zeros}")), expected, "{zeros}");
    }
    assert_eq!(numbers("?from=2026-02-10T12:05:00Z&to=2026-02-10T12:10:00Z"), expected);
    assert_eq!(numbers("?from=2026-02-10T13:38:00Z"), [98, 99]);
    assert_eq!(numbers("?limit=3"), [0, 1, 2]);
    assert_eq!(numbers("?from=2026-02-10T12:05:00Z&limit=1"), [5]);
    assert_eq!(quiver.ask("?from=yesterdayish", "*/*", "SELECT n FROM logs").status, 400);
    assert_eq!(quiver.ask("?from=2026-02-10T13:00:00Z&to=2026-02-10T12:00:00Z", "*/*", "SELECT 1").status, 400);
}

#[test]
fn aggregates_are_right() {
    let (_dir, quiver) = filled(&[]);
    let sql = "SELECT date_bin(INTERVAL '60 minutes', timestamp) AS hour, level, count(*) AS lines, max(n) AS last \
               FROM logs GROUP BY 1, 2 ORDER BY 1, 2";
    let expected = json!([
        {"hour": "2026-02-10T12:00:00Z", "level": "error", "lines": 6, "last": 50},
        {"hour": "2026-02-10T12:00:00Z", "level": "info", "lines": 54, "last": 59},
        {"hour": "2026-02-10T13:00:00Z", "level": "error", "lines": 4, "last": 90},
        {"hour": "2026-02-10T13:00:00Z", "level": "info", "lines": 36, "last": 99},
    ]);
    assert_eq!(Value::Array(quiver.sql(sql)), expected);
    assert_eq!(quiver.count(r#"SELECT count(*) FROM logs WHERE "http.status" = 200 AND contains(message, 'm 1')"#), 11);
    assert_eq!(quiver.value("SELECT message FROM logs ORDER BY timestamp DESC LIMIT 1"), "m 99");
    assert_eq!(quiver.count("SELECT count(*) FROM logs a JOIN logs b ON a.n = b.n + 1"), 99);
    // Found by the host test: a cross join of the table with itself panicked.
    assert_eq!(quiver.count("SELECT count(*) FROM logs a, logs b WHERE a.n + b.n = 3"), 4);
}

#[test]
fn wrong_queries_are_explained() {
    let (_dir, quiver) = filled(&[]);
    let refused = |sql: &str| {
        let answer = quiver.ask("", "*/*", sql);
        assert_eq!(answer.status, 400, "{sql}: {}", answer.text());
        assert_eq!(answer.json()["error"]["kind"], "invalid");
        answer.message()
    };
    let unknown = refused("SELECT servise FROM logs");
    assert!(unknown.starts_with("no field named 'servise'; did you mean 'service'?"), "{unknown}");
    assert!(unknown.contains("line 1, column 8"), "{unknown}");
    let syntax = refused("SELECT n\nFROM logs WHERE )");
    assert!(syntax.contains("line 2"), "where the mistake is: {syntax}");
    assert!(syntax.lines().any(|line| line.trim() == "^"), "a pointer at the mistake: {syntax}");
    let table = refused("SELECT * FROM log");
    assert!(table.contains("'log'") && table.contains("'logs'"), "{table}");
    for sql in [
        "DELETE FROM logs",
        "UPDATE logs SET n = 1",
        "INSERT INTO logs VALUES (1)",
        "DROP TABLE logs",
        "CREATE TABLE t AS SELECT 1",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "COPY logs TO '/tmp/quiver-test-copy.csv'",
        "SET datafusion.execution.batch_size = 1",
        "EXPLAIN ANALYZE DELETE FROM logs",
        "SELECT 1; SELECT 2",
    ] {
        refused(sql);
    }
    let files = refused("SELECT * FROM '/etc/passwd'");
    assert!(!files.contains("root:"), "{files}");
    assert_eq!(quiver.count("SELECT count(*) FROM logs"), 100);
    refused("");
}

#[test]
fn an_unknown_function_suggests_the_nearest() {
    let (_dir, quiver) = filled(&[]);
    for (wrong, right) in [("coutn(*)", "'count'"), ("date_bn(timestamp)", "'date_bin'")] {
        let answer = quiver.ask("", "*/*", &format!("SELECT {wrong} FROM logs"));
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(answer.message().contains(right), "{wrong}: {}", answer.message());
    }
}

#[test]
fn fields_and_their_values_are_listed() {
    let (_dir, quiver) = filled(&[]);
    let fields = quiver.get("/api/v1/fields").json();
    let types: Vec<_> = fields["fields"].as_array().expect("fields are listed").iter().collect();
    let of = |name: &str| types.iter().find(|field| field["name"] == name).map(|field| field["type"].clone());
    assert_eq!(of("timestamp"), Some(json!("time")));
    assert_eq!(of("level"), Some(json!("string")));
    assert_eq!(of("http.status"), Some(json!("integer")));
    assert_eq!(of("_seq"), None, "hidden columns are no fields");

    let values = |parameters: &str| quiver.get(&format!("/api/v1/fields/{parameters}")).json()["values"].clone();
    let both = json!([{"value": "info", "count": 90}, {"value": "error", "count": 10}]);
    assert_eq!(values("level/values"), both, "most frequent first");
    assert_eq!(values("level/values?limit=1"), json!([{"value": "info", "count": 90}]));
    assert_eq!(values("level/values?contains=err"), json!([{"value": "error", "count": 10}]));
    let filter = escape("service = 'orders'");
    assert_eq!(values(&format!("level/values?filter={filter}")), json!([{"value": "info", "count": 50}]));
    let range = "from=2026-02-10T12:00:00Z&to=2026-02-10T12:05:00Z";
    let first = json!([{"value": "info", "count": 4}, {"value": "error", "count": 1}]);
    assert_eq!(values(&format!("level/values?{range}")), first);
    let wrong = quiver.get(&format!("/api/v1/fields/level/values?filter={}", escape("servise = 'a'")));
    assert_eq!(wrong.status, 400, "{}", wrong.text());
    assert!(wrong.message().contains("service"), "{}", wrong.message());
}

#[test]
fn a_deadline_ends_a_query() {
    let (_dir, quiver) = filled(&[]);
    let started = Instant::now();
    let answer = quiver.ask("?timeout=500ms", "*/*", ENDLESS);
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert!(started.elapsed() < Duration::from_secs(5), "it took {:?}", started.elapsed());
    assert!(!answer.message().is_empty());
    idle(&quiver);
}

#[test]
fn the_store_sets_the_longest_deadline() {
    let (_dir, quiver) = filled(&["--set", "query.timeout_max=300ms"]);
    let answer = quiver.ask("?timeout=1h", "*/*", ENDLESS);
    assert!(answer.status == 504 || answer.status == 400, "{}", answer.text());
    assert_eq!(quiver.ask("", "*/*", ENDLESS).status, 504);
}

#[test]
fn a_row_limit_is_told() {
    let (_dir, quiver) = filled(&["--set", "query.rows_max=10"]);
    let answer = quiver.ask("", "application/x-ndjson", "SELECT n FROM logs ORDER BY n");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let lines: Vec<Value> = answer.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 11, "ten rows and a notice");
    assert!(lines[10]["error"]["message"].as_str().is_some_and(|message| message.contains("rows")), "{}", lines[10]);
    let table = quiver.ask("", "text/plain", "SELECT n FROM logs");
    assert!(table.text().lines().last().is_some_and(|line| line.starts_with("note: ")), "{}", table.text());
    assert_eq!(quiver.sql("SELECT n FROM logs LIMIT 10").len(), 10, "an answer that fits has no notice");
}

#[test]
fn the_bytes_of_a_query_are_told_and_limited() {
    let (_dir, quiver) = filled(&["--set", "query.scan_bytes_max=1000", "--set", "query.slow_after=0s"]);
    let refused = quiver.ask("", "application/x-ndjson", "SELECT _line FROM logs");
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert!(refused.message().contains("1000 bytes") && refused.message().contains("query.scan_bytes_max"));
    let is_counted = || (quiver.metric("quiver_query_scanned_bytes_total") > 1_000.0).then_some(());
    wait_for("the bytes to be counted", Duration::from_secs(20), is_counted);
    assert_eq!(quiver.sql("SELECT 1 AS one").len(), 1, "what reads nothing is answered");
    let log = quiver.log();
    let line =
        log.lines().find(|line| line.contains("slow query") && line.contains("SELECT _line")).expect("it is logged");
    assert!(line.contains("bytes_scanned"), "{line}");
}

#[test]
fn a_client_that_goes_away_cancels_its_query() {
    let (_dir, quiver) = filled(&[]);
    let waiting = http::open(&quiver.http, "POST", "/api/v1/sql", &[], ENDLESS.as_bytes()).expect("it connects");
    let running = || (quiver.metric("quiver_query_running") == 1.0).then_some(());
    wait_for("the query to run", Duration::from_secs(20), running);
    drop(waiting);
    idle(&quiver);

    // The same while rows are flowing.
    let rows = "SELECT a.value AS x, b.value AS y FROM generate_series(1, 100000) a, generate_series(1, 100000) b";
    let mut flowing = http::open(&quiver.http, "POST", "/api/v1/sql", &[], rows.as_bytes()).expect("it connects");
    let mut start = [0; 4096];
    flowing.read_exact(&mut start).expect("rows arrive");
    assert!(start.starts_with(b"HTTP/1.0 200"), "{}", String::from_utf8_lossy(&start));
    assert_eq!(quiver.metric("quiver_query_running"), 1.0);
    drop(flowing);
    idle(&quiver);
}

/// Waits until no query runs; far less than a query's deadline.
fn idle(quiver: &Quiver) {
    let idle = || (quiver.metric("quiver_query_running") == 0.0).then_some(());
    wait_for("the query to end", Duration::from_secs(10), idle);
}

/// Both seen in the simulation: a line of very many fields made all queries on `zz`, and all on `level`, fail.
#[test]
fn a_field_with_a_column_here_and_in_the_overflow_there_can_be_asked_for() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    let many: Vec<String> = (0..1_000).map(|at| format!(r#""f{at}":1"#)).collect();
    quiver.ingest(&[r#"{"zz":5,"msg":"first"}"#]);
    quiver.ingest(&[&format!(r#"{{"msg":"second",{},"zz":7,"level":"INFO"}}"#, many.join(","))]);
    let found = quiver.sql("SELECT zz FROM logs WHERE zz >= 5 ORDER BY _seq");
    assert_eq!(found, [json!({"zz": 5}), json!({"zz": 7})]);
    // The level stands behind the fields that are looked at.
    assert_eq!(quiver.count("SELECT count(*) FROM logs WHERE level IS NULL"), 2);
    assert_eq!(quiver.value("SELECT message FROM logs WHERE zz = 7"), "second");
}
