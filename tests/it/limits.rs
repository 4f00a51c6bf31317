//! More than the store can or may take: what is refused is told, what is acknowledged is there, memory stays in bounds.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::http;
use crate::quiver::{Quiver, data_dir, now_ns};

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

#[test]
fn new_streams_past_the_limit_are_refused_and_active_ones_go_on() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &["--set", "limits.streams_max=2"]);
    let stream = |labels: &str, line: &str| {
        let values = json!([[now_ns().to_string(), line]]);
        json!({ "stream": serde_json::from_str::<serde_json::Value>(labels).expect("labels"), "values": values })
    };
    let push = |tenant: &str, streams: &[serde_json::Value]| {
        let headers = [("content-type", "application/json"), ("x-scope-orgid", tenant)];
        let body = json!({ "streams": streams }).to_string();
        http::request(&quiver.http, "POST", "/loki/api/v1/push", &headers, body.as_bytes()).expect("it answers")
    };
    let [a, b, c] = [r#"{"app":"a"}"#, r#"{"app":"b","pod":"1"}"#, r#"{"app":"b","pod":"2"}"#];
    assert_eq!(push("blue", &[stream(a, "1"), stream(b, "2")]).status, 204);
    let refused = push("blue", &[stream(c, "3")]);
    assert_eq!(refused.status, 429);
    assert!(refused.text().contains("'limits.streams_max'"), "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    // What is active goes on, also beside what is not let in; other tenants have streams of their own.
    assert_eq!(push("blue", &[stream(c, "4"), stream(a, "5")]).status, 204);
    assert_eq!(push("red", &[stream(c, "6")]).status, 204);
    assert_eq!(quiver.metric("quiver_ingest_streams{tenant=\"blue\"}"), 2.0);
    assert_eq!(quiver.metric("quiver_ingest_streams{tenant=\"red\"}"), 1.0);
    let rejected = "quiver_ingest_rejected_records_total{protocol=\"loki\",tenant=\"blue\",reason=\"streams\"}";
    assert_eq!(quiver.metric(rejected), 2.0);

    // A document that is refused does not count as kept when it comes again.
    let headers = [("x-scope-orgid", "elastic")];
    let create =
        |index: &str, id: &str| format!("{{\"create\":{{\"_index\":\"{index}\",\"_id\":\"{id}\"}}}}\n{{\"n\":1}}\n");
    let bulk = |body: String| {
        let answer = http::request(&quiver.http, "POST", "/_bulk", &headers, body.as_bytes()).expect("it answers");
        let items = answer.json()["items"].as_array().cloned().unwrap_or_default();
        (answer.status, items.iter().map(|item| item["create"]["status"].as_u64()).collect::<Vec<_>>())
    };
    let [one, two, three] = [create("one", "1"), create("two", "1"), create("three", "1")];
    assert_eq!(bulk([&*one, &two, &three].concat()), (200, vec![Some(201), Some(201), Some(429)]));
    // Nothing is kept of this one, so all of it may come again.
    assert_eq!(bulk([&*one, &three].concat()).0, 429);
    assert_eq!(bulk(three).0, 429);
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

/// A chunk of Forward, `["t", entries, {"chunk": id}]`, with so many entries `[n, {"log": text}]`.
fn forward_chunk(id: &str, entries: u32) -> Vec<u8> {
    let text = format!("level=info chunk={id} {}", "x".repeat(200));
    let mut packed = Vec::new();
    for n in 0..entries {
        packed.extend_from_slice(&[0x92, 0xce]);
        packed.extend_from_slice(&(1_767_268_800 + n).to_be_bytes());
        packed.extend_from_slice(&[0x81, 0xa3, b'l', b'o', b'g', 0xda]);
        packed.extend_from_slice(&(text.len() as u16).to_be_bytes());
        packed.extend_from_slice(text.as_bytes());
    }
    let mut message = vec![0x93, 0xa1, b't', 0xc6];
    message.extend_from_slice(&(packed.len() as u32).to_be_bytes());
    message.extend_from_slice(&packed);
    message.extend_from_slice(&[0x81, 0xa5]);
    message.extend_from_slice(b"chunk");
    message.extend_from_slice(&[0xa0 | id.len() as u8]);
    message.extend_from_slice(id.as_bytes());
    message
}

/// More connections than the budget of requests has room for, each with a large chunk, and a socket of syslog beside
/// them, all far faster than the tenant may send.
#[test]
fn overloaded_sockets_keep_to_the_memory_and_what_they_acknowledged() {
    const MEMORY_MAX_BYTES: u64 = 256 << 20;
    const ENTRIES: u32 = 4_000;
    let dir = data_dir();
    let set = [
        "memory_max=256MiB",
        "limits.bytes_per_second=500KB",
        "limits.burst_bytes=2MiB",
        "listen.forward.tcp=127.0.0.1:0",
        "listen.syslog.tcp=127.0.0.1:0",
    ];
    let set: Vec<&str> = set.iter().flat_map(|one| ["--set", one]).collect();
    let quiver = Quiver::start_limited(dir.path(), &set, MEMORY_MAX_BYTES * 4);
    let acknowledged = AtomicU64::new(0);
    let until = Instant::now() + Duration::from_secs(8);
    thread::scope(|scope| {
        let (quiver, acknowledged) = (&quiver, &acknowledged);
        for writer in 0..40 {
            scope.spawn(move || {
                for number in 0.. {
                    let chunk = forward_chunk(&format!("w{writer}n{number}"), ENTRIES);
                    let Ok(mut stream) = TcpStream::connect(quiver.listener("forward.tcp")) else { return };
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
                        return;
                    }
                    stream.set_write_timeout(Some(left)).expect("it can be set");
                    let mut ack = [0; 64];
                    // A connection that waited too long for memory was closed: the chunk would be sent again.
                    if stream.write_all(&chunk).is_ok() && matches!(stream.read(&mut ack), Ok(1..)) {
                        acknowledged.fetch_add(u64::from(ENTRIES), Ordering::Relaxed);
                    }
                }
            });
        }
        for _ in 0..10 {
            scope.spawn(move || {
                let mut stream = TcpStream::connect(quiver.listener("syslog.tcp")).expect("it accepts");
                stream.set_write_timeout(Some(Duration::from_millis(200))).expect("it can be set");
                // No end of a line: it has to be put together within the budget.
                let part = "<14>1 - h a - - - ".to_owned() + &"y".repeat(800 << 10);
                while Instant::now() < until && stream.write_all(part.as_bytes()).is_ok() {
                    drop(stream.write_all(b"\n"));
                }
            });
        }
    });
    let acknowledged = acknowledged.into_inner();
    assert!(acknowledged > 0);
    let resident = quiver.metric("process_resident_memory_bytes");
    eprintln!("{acknowledged} records acknowledged, {} MiB resident", resident as u64 >> 20);
    assert!(resident < 1.4 * MEMORY_MAX_BYTES as f64, "{resident} bytes are resident");
    let kept = "SELECT count(*) FROM logs WHERE tag = 't'";
    assert!(quiver.count(kept) >= acknowledged);
    quiver.kill9();
    let quiver = Quiver::start(dir.path(), &[]);
    assert!(quiver.count(kept) >= acknowledged);
    assert_eq!(
        quiver.count("SELECT count(DISTINCT chunk) FROM logs WHERE tag = 't'") * u64::from(ENTRIES),
        quiver.count(kept)
    );
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
