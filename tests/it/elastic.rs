//! Senders that speak to Elasticsearch: its Python client, and the exchanges of Filebeat, Logstash and Fluent Bit.
//! What each asks and sends is told with its origin.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::clients::run_python;
use crate::http;
use crate::quiver::{Quiver, data_dir};

#[test]
fn elasticsearch_py_sends() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    run_python("push_elasticsearch.py", &[&quiver.http]);
    assert_eq!(quiver.count("SELECT count(*) FROM logs WHERE \"index\" = 'logs-web-prod'"), 1000);
    assert_eq!(quiver.count("SELECT count(DISTINCT n) FROM logs"), 1000);
    let rows = quiver.sql("SELECT level, message FROM logs WHERE \"index\" IN ('single', 'mixed') ORDER BY _seq");
    let expected = json!([
        {"message": "good"}, {"message": "good, too"}, {"level": "warn", "message": "one"}, {"message": "two"}
    ]);
    assert_eq!(Value::Array(rows), expected);
}

/// One step of an exchange: method, path, body, and the status that the client goes on with.
type Step<'a> = (&'a str, &'a str, &'a str, u16);

fn exchange(quiver: &Quiver, headers: &[(&str, &str)], steps: &[Step<'_>]) -> Vec<http::Answer> {
    let ask = |(method, path, body, status): &Step<'_>| {
        let answer = http::request(&quiver.http, method, path, headers, body.as_bytes()).expect("it answers");
        assert_eq!(answer.status, *status, "{method} {path}: {}", answer.text());
        assert_eq!(answer.header("x-elastic-product"), Some("Elasticsearch"), "{method} {path}");
        answer
    };
    steps.iter().map(ask).collect()
}

/// elastic/beats: libbeat/esleg/eslegclient/connection.go (Ping), libbeat/licenser, libbeat/idxmgmt/lifecycle and
/// libbeat/template/load.go (what is there, what is put), libbeat/outputs/elasticsearch/client.go (bulk).
#[test]
fn filebeats_exchange() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    let headers = [("accept", "application/json"), ("user-agent", "Elastic-filebeat/8.17.0 (linux; amd64)")];
    let template = format!("{{\"index_patterns\":[\"filebeat-8.17.0\"],\"pad\":\"{}\"}}", "x".repeat(900_000));
    let bulk = "{\"create\":{\"_index\":\"filebeat-8.17.0\"}}\n\
        {\"@timestamp\":\"2026-02-10T12:00:00.123Z\",\"log\":{\"offset\":0,\"file\":{\"path\":\"/var/log/app.log\"}},\"message\":\"{\\\"level\\\":\\\"error\\\",\\\"msg\\\":\\\"declined\\\",\\\"n\\\":7}\",\"input\":{\"type\":\"filestream\"},\"ecs\":{\"version\":\"8.0.0\"},\"host\":{\"name\":\"web-1\"},\"agent\":{\"type\":\"filebeat\",\"version\":\"8.17.0\"}}\n\
        {\"create\":{\"_index\":\"filebeat-8.17.0\"}}\n\
        {\"@timestamp\":\"2026-02-10T12:00:01.000Z\",\"message\":\"plain text\",\"host\":{\"name\":\"web-1\"}}\n";
    let answers = exchange(
        &quiver,
        &headers,
        &[
            ("GET", "/", "", 200),
            ("GET", "/_license?human=false", "", 200),
            ("GET", "/_ilm/policy/filebeat", "", 404),
            ("PUT", "/_ilm/policy/filebeat", "{\"policy\":{\"phases\":{}}}", 200),
            ("HEAD", "/_index_template/filebeat-8.17.0", "", 404),
            ("PUT", "/_index_template/filebeat-8.17.0", &template, 200),
            ("GET", "/_data_stream/filebeat-8.17.0", "", 404),
            ("PUT", "/_data_stream/filebeat-8.17.0", "", 200),
            ("POST", "/_bulk?filter_path=errors%2Citems.%2A.error%2Citems.%2A.status", bulk, 200),
        ],
    );
    assert_eq!(answers[0].json()["version"]["number"], "8.19.0");
    let bulk = answers.last().expect("there are answers").json();
    assert_eq!(bulk["items"], json!([{"create": {"status": 201}}, {"create": {"status": 201}}]));
    let sql = "SELECT level, message, n, \"host.name\", \"log.file.path\", \"index\" FROM logs ORDER BY timestamp";
    let expected = json!([
        {"level": "error", "message": "declined", "n": 7, "host.name": "web-1", "log.file.path": "/var/log/app.log",
         "index": "filebeat-8.17.0"},
        {"message": "plain text", "host.name": "web-1", "index": "filebeat-8.17.0"},
    ]);
    assert_eq!(Value::Array(quiver.sql(sql)), expected);
    let line = quiver.value("SELECT _line FROM logs WHERE n = 7");
    assert_eq!(line, "{\"level\":\"error\",\"msg\":\"declined\",\"n\":7}");
}

/// logstash-plugins/logstash-output-elasticsearch: http_client/pool.rb (HEAD and GET of the root, the licence),
/// template_manager.rb, http_client_builder.rb (`filter_path`), http_client/manticore_adapter.rb (headers).
#[test]
fn logstashs_exchange() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    let headers = [("content-type", "application/json"), ("x-elastic-product-origin", "logstash-output-elasticsearch")];
    let bulk = "{\"create\":{\"_index\":\"logs-generic-default\",\"routing\":null}}\n\
        {\"@timestamp\":\"2026-02-10T12:00:00.123Z\",\"@version\":\"1\",\"message\":\"level=warn msg=slow\",\"host\":{\"name\":\"box\"},\"data_stream\":{\"type\":\"logs\",\"dataset\":\"generic\",\"namespace\":\"default\"}}\n";
    let answers = exchange(
        &quiver,
        &headers,
        &[
            ("HEAD", "/", "", 200),
            ("GET", "/", "", 200),
            ("GET", "/_license", "", 200),
            ("GET", "/_nodes/http", "", 200),
            ("HEAD", "/_index_template/ecs-logstash", "", 404),
            ("PUT", "/_index_template/ecs-logstash", "{\"index_patterns\":[\"ecs-logstash-*\"]}", 200),
            ("HEAD", "/logstash", "", 200),
            ("POST", "/_bulk?filter_path=errors,items.*.error,items.*.status", bulk, 200),
        ],
    );
    let root = answers[1].json();
    assert_eq!(
        (&root["tagline"], &root["version"]["build_flavor"]),
        (&json!("You Know, for Search"), &json!("default"))
    );
    assert_eq!(answers[3].json()["nodes"]["quiver"]["http"]["publish_address"], quiver.http.as_str());
    assert_eq!(answers[7].json()["errors"], false);
    let expected = json!([{"level": "warn", "message": "slow", "data_stream.dataset": "generic"}]);
    let rows = quiver.sql("SELECT level, message, \"data_stream.dataset\" FROM logs");
    assert_eq!(Value::Array(rows), expected);
}

/// fluent/fluent-bit, plugins/out_es/es.c: it sends at once, reads `errors` and `items` where they stand side by side
/// when the answer is longer than its buffer, and `Generate_ID` makes the id from the record.
#[test]
fn fluent_bits_exchange() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    let headers = [("user-agent", "Fluent-Bit"), ("content-type", "application/x-ndjson")];
    let bulk = "{\"create\":{\"_index\":\"fluent-bit\",\"_type\":\"_doc\",\"_id\":\"b2a6\"}}\n\
        {\"@timestamp\":\"2026-02-10T12:00:00.123Z\",\"log\":\"{\\\"level\\\":\\\"info\\\",\\\"msg\\\":\\\"up\\\"}\\n\",\"stream\":\"stdout\"}\n";
    let twice = exchange(&quiver, &headers, &[("POST", "/_bulk", bulk, 200), ("POST", "/_bulk", bulk, 200)]);
    assert!(twice[0].text().contains("\"errors\":false,\"items\":["), "{}", twice[0].text());
    let statuses = [&twice[0], &twice[1]].map(|answer| answer.json()["items"][0]["create"]["status"].clone());
    assert_eq!(statuses, [json!(201), json!(409)], "the second is known, which Fluent Bit takes for kept");
    let rows = quiver.sql("SELECT level, message, stream FROM logs");
    assert_eq!(Value::Array(rows), json!([{"level": "info", "message": "up", "stream": "stdout"}]));
}

#[test]
fn elasticsearchs_errors_look_as_its_own() {
    let dir = data_dir();
    let quiver = Quiver::start(
        dir.path(),
        &["--set", "server.auth.tokens=secret", "--set", "server.decompressed_bytes_max=1MiB"],
    );
    let send = |headers: &[(&str, &str)], body: &[u8]| {
        http::request(&quiver.http, "POST", "/logs/_bulk", headers, body).expect("it answers")
    };
    let refused = send(&[], b"{\"index\":{}}\n{}\n");
    assert_eq!((refused.status, &refused.json()["error"]["type"]), (401, &json!("security_exception")));
    // `id:secret`
    let known = [("authorization", "ApiKey aWQ6c2VjcmV0")];
    assert_eq!(send(&known, b"{\"index\":{}}\n{\"n\":1}\n").status, 200);
    assert_eq!(send(&known, b"").json()["error"]["type"], "illegal_argument_exception");
    // Small as it comes: a body that is too large already is answered before it is read.
    let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
    zipped.write_all(&vec![b'x'; 2 << 20]).expect("a buffer can be written");
    let zipped = zipped.finish().expect("a buffer can be written");
    let large = send(&[known[0], ("content-encoding", "gzip")], &zipped);
    assert_eq!((large.status, large.json()["status"].as_u64()), (413, Some(413)));
    assert!(large.json()["error"]["reason"].to_string().contains("server.decompressed_bytes_max"), "{}", large.text());
}
