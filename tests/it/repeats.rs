//! Requests that come again: an id that a client gives is kept once, also when the store ended in between.

use serde_json::json;

use crate::http;
use crate::quiver::{Quiver, data_dir};

fn send(quiver: &Quiver, id: (&str, &str), body: &[u8]) -> u16 {
    let headers = [("content-type", "application/x-ndjson"), id];
    let answer = http::request(&quiver.http, "POST", "/api/v1/ingest", &headers, body).expect("it answers");
    assert_eq!(answer.json(), json!({"accepted": 1, "rejected": 0, "errors": []}), "a repetition is answered alike");
    answer.status
}

#[test]
fn a_batch_id_is_kept_once_across_ends_of_every_kind() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    let (a, b) = (("x-quiver-batch-id", "a"), ("idempotency-key", "b"));
    let count = |quiver: &Quiver| quiver.count("SELECT count(*) FROM logs");
    for _ in 0..3 {
        send(&quiver, a, b"{\"n\":1}");
    }
    send(&quiver, b, b"{\"n\":1}");
    assert_eq!(count(&quiver), 2);
    assert_eq!(quiver.metric("quiver_ingest_requests_total{protocol=\"lines\",outcome=\"repeated\"}"), 2.0);
    // The id is in the log only.
    quiver.kill9();
    let quiver = Quiver::start(dir.path(), &[]);
    send(&quiver, a, b"{\"n\":1}");
    assert_eq!(count(&quiver), 2);
    // Now it goes to the catalog.
    assert_eq!(quiver.post("/api/v1/admin/flush", "text/plain", b"").status, 200);
    send(&quiver, ("x-quiver-batch-id", "c"), b"{\"n\":1}");
    quiver.kill9();
    let quiver = Quiver::start(dir.path(), &[]);
    for id in [a, b, ("x-quiver-batch-id", "c")] {
        send(&quiver, id, b"{\"n\":1}");
    }
    assert_eq!(count(&quiver), 3);
    assert!(quiver.terminate().success());
    let quiver = Quiver::start(dir.path(), &[]);
    for id in [a, b, ("x-quiver-batch-id", "c")] {
        send(&quiver, id, b"{\"n\":1}");
    }
    assert_eq!(count(&quiver), 3);
}

#[test]
fn what_was_refused_may_come_again() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    let id = ("x-quiver-batch-id", "a");
    let refused = http::request(&quiver.http, "POST", "/api/v1/ingest", &[id], b"{half").expect("it answers");
    assert_eq!(refused.status, 400);
    send(&quiver, id, b"{\"n\":1}");
    send(&quiver, id, b"{\"n\":1}");
    assert_eq!(quiver.count("SELECT count(*) FROM logs"), 1);
}

#[test]
fn documents_of_elasticsearch_are_known_by_their_id() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    let body = b"{\"create\":{\"_id\":\"1\"}}\n{\"n\":1}\n{\"index\":{\"_id\":\"2\"}}\n{\"n\":2}\n{\"create\":{}}\n{\"n\":3}\n";
    let statuses = |quiver: &Quiver| -> Vec<u64> {
        let answer = quiver.post("/logs/_bulk", "application/x-ndjson", body).json();
        let items = answer["items"].as_array().expect("there are items").clone();
        let of = |item: &serde_json::Value| item.as_object()?.values().next()?["status"].as_u64();
        items.iter().filter_map(of).collect()
    };
    assert_eq!(statuses(&quiver), [201, 201, 201]);
    quiver.kill9();
    let quiver = Quiver::start(dir.path(), &[]);
    assert_eq!(statuses(&quiver), [409, 200, 201]);
    assert_eq!(quiver.count("SELECT count(*) FROM logs"), 4);
}

/// Also where pipelines gave all of its records to other tenants.
#[test]
fn a_request_whose_records_moved_is_kept_once() {
    let dir = data_dir();
    let config = dir.path().join("quiver.toml");
    std::fs::write(&config, "[[pipeline]]\nstages = [{ json = {} }, { tenant = { source = \"team\" } }]\n")
        .expect("it is written");
    let config = config.to_str().expect("a path");
    let quiver = Quiver::start(dir.path(), &["--config", config]);
    let headers = [("content-type", "text/plain"), ("x-quiver-batch-id", "a")];
    let body = b"{\"team\":\"red\",\"n\":1}\n{\"team\":\"blue\",\"n\":2}\n";
    let post =
        |quiver: &Quiver| http::request(&quiver.http, "POST", "/api/v1/ingest", &headers, body).expect("it answers");
    let count = |quiver: &Quiver, tenant: &str| {
        let headers = [("accept", "application/x-ndjson"), ("x-scope-orgid", tenant)];
        let sql = b"SELECT count(*) AS n FROM logs";
        http::request(&quiver.http, "POST", "/api/v1/sql", &headers, sql).expect("it answers").json()["n"].as_u64()
    };
    for _ in 0..2 {
        assert_eq!(post(&quiver).status, 200);
    }
    quiver.kill9();
    let quiver = Quiver::start(dir.path(), &["--config", config]);
    assert_eq!(post(&quiver).status, 200);
    assert_eq!((count(&quiver, "red"), count(&quiver, "blue"), count(&quiver, "default")), (Some(1), Some(1), Some(0)));
}
