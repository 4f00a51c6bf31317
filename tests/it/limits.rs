//! More than the store can or may take: what is refused is told, what is acknowledged is there, memory stays in bounds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::http;
use crate::quiver::{Quiver, data_dir};

/// A batch of about this size.
const BATCH_BYTES: usize = 256 << 10;

fn batch(first: u64) -> (String, u64) {
    let mut lines = String::new();
    let mut n = first;
    while lines.len() < BATCH_BYTES {
        lines.push_str(&format!(
            "{{\"level\":\"info\",\"service\":\"s{}\",\"n\":{n},\"pad\":\"{:0120}\"}}\n",
            n % 7,
            n
        ));
        n += 1;
    }
    (lines, n - first)
}

#[test]
fn a_tenant_that_sends_too_fast_waits_and_others_do_not() {
    let dir = data_dir();
    let set = ["--set", "limits.bytes_per_second=1KB", "--set", "limits.burst_bytes=300KB"];
    let quiver = Quiver::start(dir.path(), &set);
    let send = |tenant: &str| {
        let headers = [("content-type", "application/x-ndjson"), ("x-scope-orgid", tenant)];
        http::request(&quiver.http, "POST", "/api/v1/ingest", &headers, batch(0).0.as_bytes()).expect("it answers")
    };
    // The second one takes the bucket below zero, the third has to wait for it.
    assert_eq!([send("blue").status, send("blue").status], [200, 200]);
    let refused = send("blue");
    assert_eq!(refused.status, 429);
    assert!(refused.message().contains("limits.bytes_per_second"), "{}", refused.text());
    let seconds: u64 = refused.header("retry-after").expect("it is told").parse().expect("seconds");
    assert!((100..=300).contains(&seconds), "{seconds}");
    assert_eq!(send("red").status, 200);
    let headers = [("x-scope-orgid", "blue")];
    let elastic = http::request(&quiver.http, "POST", "/_bulk", &headers, b"{}").expect("it answers");
    assert_eq!((elastic.status, &elastic.json()["error"]["type"]), (429, &json!("es_rejected_execution_exception")));
}

/// Ten writers that never wait, and offer at least ten times of what their tenant may send.
#[test]
fn tenfold_overload_drops_nothing_that_was_acknowledged() {
    const MEMORY_MAX_BYTES: u64 = 256 << 20;
    let dir = data_dir();
    let rate = 200_000;
    let set = [
        "--set",
        "memory_max=256MiB",
        "--set",
        &format!("limits.bytes_per_second={rate}"),
        "--set",
        "limits.burst_bytes=1MiB",
    ];
    let quiver = Quiver::start_limited(dir.path(), &set, MEMORY_MAX_BYTES * 4);
    let (acknowledged, refused, offered) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let started = Instant::now();
    let until = started + Duration::from_secs(4);
    thread::scope(|scope| {
        for writer in 0..10u64 {
            let (quiver, acknowledged, refused, offered) = (&quiver, &acknowledged, &refused, &offered);
            scope.spawn(move || {
                let (body, records) = batch(writer * 1_000_000);
                while Instant::now() < until {
                    offered.fetch_add(body.len() as u64, Ordering::Relaxed);
                    let headers = [("content-type", "application/x-ndjson")];
                    let answer = http::request(&quiver.http, "POST", "/api/v1/ingest", &headers, body.as_bytes());
                    match answer.map(|answer| (answer.status, answer.header("retry-after").is_some())) {
                        Ok((200, _)) => drop(acknowledged.fetch_add(records, Ordering::Relaxed)),
                        Ok((429, true)) => drop(refused.fetch_add(1, Ordering::Relaxed)),
                        // It answered before it had read the body, which ends in a reset.
                        Err(_) => drop(refused.fetch_add(1, Ordering::Relaxed)),
                        Ok(other) => panic!("{other:?}"),
                    }
                }
            });
        }
    });
    let (acknowledged, refused, offered) = (acknowledged.into_inner(), refused.into_inner(), offered.into_inner());
    assert!(refused > 0 && acknowledged > 0, "{refused} refused, {acknowledged} acknowledged");
    let allowed = rate * started.elapsed().as_secs().max(1);
    assert!(offered > 10 * allowed, "only {offered} bytes were offered");
    let resident = quiver.metric("process_resident_memory_bytes");
    assert!(resident < 1.4 * MEMORY_MAX_BYTES as f64, "{resident} bytes are resident");
    let kept = quiver.count("SELECT count(*) FROM logs");
    assert!(kept >= acknowledged, "{kept} of {acknowledged} records are there");
    quiver.kill9();
    let quiver = Quiver::start(dir.path(), &[]);
    assert!(quiver.count("SELECT count(*) FROM logs") >= acknowledged);
}

#[test]
fn rejected_records_are_counted_by_protocol_tenant_and_reason() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &["--set", "ingest.line_bytes_max=1KiB"]);
    let long = format!("{{\"msg\":\"{}\"}}", "x".repeat(2_000));
    let headers = [("content-type", "application/x-ndjson"), ("x-scope-orgid", "blue")];
    let body = [b"{\"n\":1}\nno json\n{\"msg\":\"\xff\"}\n", long.as_bytes()].concat();
    let answer = http::request(&quiver.http, "POST", "/api/v1/ingest", &headers, &body).expect("it answers");
    assert_eq!(answer.json()["rejected"], 3);
    for reason in ["malformed", "not_utf8", "too_long"] {
        let name =
            format!("quiver_ingest_rejected_records_total{{protocol=\"lines\",tenant=\"blue\",reason=\"{reason}\"}}");
        assert_eq!(quiver.metric(&name), 1.0);
    }
}
