//! The other ways in over HTTP: Splunk's event collector, Datadog's intake, Firehose, GELF, the journal, and the old
//! paths of Loki; in the bytes of their clients, and with systemd's own sender.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::{self, Answer};
use crate::quiver::{Quiver, data_dir, wait_for};

fn send(quiver: &Quiver, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    http::request(&quiver.http, "POST", target, headers, body).expect("it answers")
}

/// Splunk's documentation, "Format events for HTTP Event Collector" and "HTTP Event Collector examples".
#[test]
fn splunks_collector() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &["--set", "server.auth.tokens=B5A79AAD"]);
    let token = ("authorization", "Splunk B5A79AAD");
    let body = br#"{"time": 1437522387, "host": "dataserver992.example.com", "source": "testapp", "event": { "message": "Something happened", "severity": "INFO" }}{"event": "plain", "fields": {"service": "web"}}"#;
    let kept = send(&quiver, "/services/collector/event", &[token], body);
    assert_eq!((kept.status, kept.json()), (200, json!({"text": "Success", "code": 0})));
    let query = "/services/collector/raw?sourcetype=access&host=h&channel=FE0ECFAD-13D5-401B-847D-77833BD77131";
    let raw = send(&quiver, query, &[token], b"level=warn one\ntwo\n");
    let ack = raw.json()["ackId"].as_i64().expect("a channel gets an id");
    let asked = json!({"acks": [ack, ack + 1_000_000_000]}).to_string();
    let acks = send(&quiver, "/services/collector/ack?channel=FE0ECFAD", &[token], asked.as_bytes());
    assert_eq!(acks.json()["acks"], json!({ack.to_string(): true, (ack + 1_000_000_000).to_string(): false}));
    for (headers, body, status, code) in [
        (vec![], &b"{\"event\":1}"[..], 401, 2),
        (vec![("authorization", "Splunk other")], b"{\"event\":1}", 403, 4),
        (vec![token], b"", 400, 5),
        (vec![token], b"nonsense", 400, 6),
        (vec![token], b"{\"time\":1}", 400, 12),
        (vec![token], b"{\"event\":\"\"}", 400, 13),
    ] {
        let answer = send(&quiver, "/services/collector", &headers, body);
        assert_eq!((answer.status, answer.json()["code"].as_i64()), (status, Some(code)), "{}", answer.text());
    }
    let ask = |path: &str| http::request(&quiver.http, "GET", path, &[], b"").expect("it answers");
    assert_eq!(ask("/services/collector/health").json(), json!({"text": "HEC is healthy", "code": 17}));
    let sql = b"SELECT level, service, message, host, sourcetype FROM logs ORDER BY _seq";
    let rows = send(&quiver, "/api/v1/sql", &[("authorization", "Bearer B5A79AAD")], sql);
    let rows: Vec<Value> = rows.text().lines().map(|line| serde_json::from_str(line).expect("rows are JSON")).collect();
    let expected = json!([
        {"level": "info", "message": "Something happened", "host": "dataserver992.example.com"},
        {"service": "web", "message": "plain"},
        {"level": "warn", "message": "level=warn one", "host": "h", "sourcetype": "access"},
        {"message": "two", "host": "h", "sourcetype": "access"},
    ]);
    assert_eq!(Value::Array(rows), expected);
}

/// Datadog's API reference, "Send logs"; fluent-bit, plugins/out_datadog.
#[test]
fn datadogs_intake() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    let json_type = ("content-type", "application/json");
    let body = br#"[{"ddsource":"nginx","ddtags":"env:staging,version:5.1","hostname":"i-012345678","message":"level=error msg=boom","service":"payment"},
                   {"timestamp":1770724800123,"status":"warn","message":"text","service":"payment"}]"#;
    let v2 = send(&quiver, "/api/v2/logs", &[json_type, ("dd-api-key", "any")], body);
    assert_eq!((v2.status, v2.text()), (202, "{}"));
    let v1 = send(&quiver, "/v1/input?ddtags=env:prod&service=web", &[("content-type", "text/plain")], b"one\ntwo");
    assert_eq!((v1.status, v1.text()), (200, "{}"));
    assert_eq!(send(&quiver, "/api/v2/logs", &[json_type], b"nonsense").status, 400);
    assert_eq!(quiver.get("/api/v1/validate").json(), json!({"valid": true}));
    let rows = quiver.sql("SELECT level, service, message, env, hostname FROM logs ORDER BY _seq");
    let expected = json!([
        {"level": "error", "service": "payment", "message": "boom", "env": "staging", "hostname": "i-012345678"},
        {"level": "warn", "service": "payment", "message": "text"},
        {"service": "web", "message": "one", "env": "prod"},
        {"service": "web", "message": "two", "env": "prod"},
    ]);
    assert_eq!(Value::Array(rows), expected);
}

/// Firehose's "HTTP endpoint delivery request and response specifications"; the first record is `{"level":"warn","n":1}`
/// and a line's end, the second a CloudWatch message under gzip.
#[test]
fn firehoses_delivery() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &["--set", "server.auth.tokens=key"]);
    let cloudwatch = "H4sIAAAAAAACAzWOyw6CMBBF/2XWJDxEQXYkIitXuLPEFB1Jkz5IWzCE8O8OGpdzzp3cu4BC53iP13lAKOBUXsv7pWqasq4gAPPWaAnHyS7dH7L8GMUJYWn62ppxIBPytwslV92ThwOff7LxFrki6+h2Y+ceVgxeGH0W0qN1UNzgBe03W02o/UYWEM+til68oFWeKyqIsyzKkjSPqHkX/NdSbmEgcULJoGCA1hrLIGCgXP8lnTGKwco0rO36AX0lDNTmAAAA";
    let body = format!(
        r#"{{"requestId":"ed4acda5-034f-9f42-bba1-f29aea6d7d8f","timestamp":1578090901599,"records":[{{"data":"eyJsZXZlbCI6Indhcm4iLCJuIjoxfQo="}},{{"data":"{cloudwatch}"}}]}}"#
    );
    let headers = [
        ("content-type", "application/json"),
        ("x-amz-firehose-protocol-version", "1.0"),
        ("x-amz-firehose-request-id", "ed4acda5-034f-9f42-bba1-f29aea6d7d8f"),
        ("x-amz-firehose-common-attributes", r#"{"commonAttributes":{"deployment-context":"pre-prod-gamma"}}"#),
        ("x-amz-firehose-access-key", "key"),
    ];
    for _ in 0..2 {
        let answer = send(&quiver, "/aws/firehose", &headers, body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["requestId"], "ed4acda5-034f-9f42-bba1-f29aea6d7d8f");
        assert!(answer.json()["timestamp"].is_i64());
    }
    let refused = send(&quiver, "/aws/firehose", &headers[..4], body.as_bytes());
    assert_eq!(refused.status, 401);
    assert_eq!(refused.json()["requestId"], "ed4acda5-034f-9f42-bba1-f29aea6d7d8f");
    assert!(refused.json()["errorMessage"].to_string().contains("credentials"), "{}", refused.text());
    let sql = b"SELECT level, n, message, log_group, \"deployment-context\" AS context FROM logs ORDER BY _seq";
    let rows = send(&quiver, "/api/v1/sql", &[("authorization", "Bearer key")], sql);
    let rows: Vec<Value> = rows.text().lines().map(|line| serde_json::from_str(line).expect("rows are JSON")).collect();
    let expected = json!([
        {"level": "warn", "n": 1, "context": "pre-prod-gamma"},
        {"level": "error", "message": "boom", "log_group": "/aws/lambda/pay", "context": "pre-prod-gamma"},
    ]);
    assert_eq!(Value::Array(rows), expected, "the second delivery was a repetition");
}

/// Graylog's "GELF HTTP": 202.
#[test]
fn gelf_over_http() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    let body =
        br#"{"version":"1.1","host":"example.org","short_message":"A short message","level":4,"_some_info":"foo"}"#;
    assert_eq!(send(&quiver, "/gelf", &[], body).status, 202);
    assert_eq!(send(&quiver, "/gelf", &[], b"{}").status, 400);
    let rows = quiver.sql("SELECT level, message, host, some_info FROM logs");
    let expected = json!([{"level": "warn", "message": "A short message", "host": "example.org", "some_info": "foo"}]);
    assert_eq!(Value::Array(rows), expected);
}

/// vector, src/sinks/http.rs (a JSON array, or lines, by `framing`) and logstash-output-http (`json`, `json_batch`).
#[test]
fn vectors_and_logstashs_http_outputs() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    for (content_type, body) in [
        ("application/json", &b"[{\"message\":\"a\",\"n\":1},{\"message\":\"b\",\"n\":2}]"[..]),
        ("application/x-ndjson", b"{\"message\":\"c\",\"n\":3}\n{\"message\":\"d\",\"n\":4}\n"),
        ("text/plain", b"level=info n=5 msg=e\n"),
        (
            "application/json",
            b"{\"message\":\"f\",\"n\":6,\"@timestamp\":\"2026-02-10T12:00:00.000Z\",\"@version\":\"1\"}",
        ),
    ] {
        assert_eq!(quiver.post("/api/v1/ingest", content_type, body).status, 200);
    }
    assert_eq!(quiver.count("SELECT sum(n) FROM logs"), 21);
}

#[test]
fn lokis_old_and_other_paths() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    let old = br#"{"streams":[{"labels":"{app=\"web\"}","entries":[{"ts":"2026-02-10T12:00:00.000000001Z","line":"level=warn msg=old"}]}]}"#;
    for path in ["/api/prom/push", "/loki/api/v1/push"] {
        assert_eq!(quiver.post(path, "application/json", old).status, 204);
    }
    assert_eq!(quiver.post("/otlp/v1/logs", "application/json", b"{\"resourceLogs\":[]}").status, 200);
    assert_eq!(
        quiver.count("SELECT count(*) FROM logs WHERE level = 'warn' AND service = 'web' AND message = 'old'"),
        2
    );
}

/// A journal of three entries with a field of many lines, as `journalctl -o export` writes it.
#[test]
fn a_journals_export() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    let entry = |n: u32| {
        format!(
            "__CURSOR=s=1;i={n}\n__REALTIME_TIMESTAMP=177072480000000{n}\nPRIORITY=3\nSYSLOG_IDENTIFIER=sshd\n\
             _SYSTEMD_UNIT=ssh.service\nMESSAGE\n\u{7}\0\0\0\0\0\0\0foo\nba{n}\n\n"
        )
    };
    let export: String = (1..=3).map(entry).collect();
    let content_type = "application/vnd.fdo.journal";
    for _ in 0..2 {
        let answer = quiver.post("/upload", content_type, export.as_bytes());
        assert_eq!((answer.status, answer.text()), (202, "OK.\n"));
    }
    assert_eq!(quiver.post("/upload", "text/plain", b"x").status, 415);
    assert_eq!(quiver.post("/upload", content_type, b"=no name\n\n").status, 400);
    let rows = quiver.sql("SELECT level, service, message, systemd_unit FROM logs ORDER BY timestamp");
    let row = |n: u32| json!({"level": "error", "service": "sshd", "message": format!("foo\nba{n}"), "systemd_unit": "ssh.service"});
    assert_eq!(rows, [row(1), row(2), row(3)], "cursors that came before are known");
}

/// systemd's own sender follows a journal within one request that does not end.
#[test]
fn systemd_journal_upload_sends() {
    let (remote, upload) = ("/usr/lib/systemd/systemd-journal-remote", "/usr/lib/systemd/systemd-journal-upload");
    assert!(Path::new(upload).exists(), "no '{upload}': install the package systemd-journal-remote");
    let dir = data_dir();
    let journals = data_dir();
    let export = "__REALTIME_TIMESTAMP=1770724800000001\n__MONOTONIC_TIMESTAMP=1\n_BOOT_ID=49335d14a3c14ab0a26d6a1c4ba0d3f8\n\
                  PRIORITY=4\n_SYSTEMD_UNIT=web.service\nMESSAGE=from the journal\n\n";
    let source = journals.path().join("export");
    std::fs::write(&source, export).expect("a file can be written");
    let journal = journals.path().join("test.journal");
    let made = Command::new(remote).arg("-o").arg(&journal).arg("--split-mode=none").arg(&source).output();
    let made = made.expect("systemd-journal-remote runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let quiver = Quiver::start(dir.path(), &[]);
    let url = format!("--url=http://{}", quiver.http);
    let state = format!("--save-state={}", journals.path().join("state").display());
    let mut sender = Command::new(upload)
        .arg(url)
        .arg(state)
        .arg("--follow=yes")
        .arg(format!("--file={}", journal.display()))
        .spawn()
        .expect("systemd-journal-upload runs");
    let sql = "SELECT count(*) FROM logs WHERE service = 'web' AND level = 'warn' AND message = 'from the journal'";
    wait_for("the journal's entry", Duration::from_secs(20), || (quiver.count(sql) == 1).then_some(()));
    sender.kill().expect("a running process can be killed");
    sender.wait().expect("a killed process ends");
}
