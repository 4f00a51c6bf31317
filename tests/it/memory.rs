//! `memory_max` holds: a store that may have half a gigabyte lives under a hard limit of one, while writers send as fast as
//! they can and the worst queries run beside them. What can't be had is refused in words, and nothing acknowledged is lost.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::http;
use crate::quiver::{Quiver, data_dir, now_ns, wait_for};

/// What the system gives the process at most: memory that it may write to, whether it does or not.
const LIMIT_BYTES: u64 = 1 << 30;
/// How long writers and queries run beside each other.
const LOAD: Duration = Duration::from_secs(12);
const WRITERS: u64 = 4;
const READERS: u64 = 2;
const LINES_PER_BODY: u64 = 2_000;
/// Of a long answer only the end is looked at.
const TAIL_BYTES: usize = 4 << 10;

/// None of these has a filter that leaves much out, and most have as many groups as there are records.
const WORST: [&str; 8] = [
    "SELECT request_id, count(*) AS n FROM logs GROUP BY request_id ORDER BY n DESC, request_id LIMIT 10",
    "SELECT count(DISTINCT request_id) FROM logs",
    "SELECT * FROM logs ORDER BY message, request_id",
    "SELECT * FROM logs",
    "SELECT _line FROM logs",
    "SELECT count(*) FROM logs WHERE regexp_like(message, '(a|b)[0-9a-f]+.*(7|8)[0-9]? ms$')",
    "SELECT path, approx_percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms) FROM logs GROUP BY path",
    "SELECT array_agg(_line) FROM logs",
];

/// The lines of a body, each with what no other line has.
fn body(writer: u64, body: u64) -> String {
    let mut lines = String::with_capacity(LINES_PER_BODY as usize * 320);
    for line in 0..LINES_PER_BODY {
        let n = ((writer << 40) | (body << 20) | line).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let level = ["debug", "info", "info", "info", "warn", "error"][(n % 6) as usize];
        let duration_ms = (n >> 20) % 5_000;
        writeln!(
            lines,
            r#"{{"level":"{level}","service":"shop-{}","writer":{writer},"body":{body},"request_id":"{n:016x}{:016x}","path":"/api/v1/items/{}","duration_ms":{duration_ms}.5,"user_agent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36","msg":"request {n:x} was served in {duration_ms} ms"}}"#,
            n % 12,
            !n,
            (n >> 13) % 200_000,
        )
        .expect("a text can be written to");
    }
    lines
}

/// Sends until the time is over; gives the numbers of the bodies that were acknowledged.
fn write(address: &str, writer: u64, is_over: &AtomicBool, refused: &AtomicU64) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        let body = body(writer, number);
        while !is_over.load(Ordering::Relaxed) {
            let headers = [("content-type", "application/x-ndjson")];
            match http::request(address, "POST", "/api/v1/ingest", &headers, body.as_bytes()) {
                Ok(answer) if answer.status / 100 == 2 => {
                    acknowledged.push(number);
                    break;
                }
                Ok(answer) => assert_eq!(answer.status, 429, "{}", answer.text()),
                // Refused while it was still being sent.
                Err(error) => assert_ne!(error.kind(), io::ErrorKind::ConnectionRefused, "the store is gone"),
            }
            refused.fetch_add(1, Ordering::Relaxed);
            thread::park_timeout(Duration::from_millis(10));
        }
        if is_over.load(Ordering::Relaxed) {
            return acknowledged;
        }
    }
    unreachable!("there are more numbers than time")
}

/// Asks, and reads the whole answer: its status, and its end.
fn ask(address: &str, sql: &str) -> io::Result<(u16, String)> {
    let headers = [("accept", "application/x-ndjson")];
    let mut stream = http::open(address, "POST", "/api/v1/sql", &headers, sql.as_bytes())?;
    let (mut head, mut tail, mut piece) = (Vec::new(), Vec::new(), vec![0; 64 << 10]);
    loop {
        let read = stream.read(&mut piece)?;
        if read == 0 {
            break;
        }
        head.extend_from_slice(&piece[..read.min(16 - head.len().min(16))]);
        tail.extend_from_slice(&piece[..read]);
        tail.drain(..tail.len().saturating_sub(TAIL_BYTES));
    }
    let status = String::from_utf8_lossy(&head).split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("the answer has no status"))?;
    Ok((status, String::from_utf8_lossy(&tail).into_owned()))
}

/// Whether the query was refused; an answer, or a refusal in other words than it should have, is looked at here.
fn is_refused(sql: &str, status: u16, tail: &str) -> bool {
    let last = tail.trim_end().lines().last().unwrap_or_default();
    if status == 200 && !last.starts_with(r#"{"error""#) {
        return false;
    }
    // An answer may also end at its limit of rows: all of the answer that a client may have was there then.
    if last.contains("query.rows_max") {
        return false;
    }
    let names_memory = last.contains("memory_max") || last.contains("server.in_flight_bytes_max");
    assert!(names_memory && (status == 200 || status >= 400), "{sql} was answered {status}: {last}");
    true
}

/// A line of /proc/<pid>/status, in bytes.
fn memory(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the store runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}"));
    let kib = line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse::<u64>();
    kib.expect("it is a number") << 10
}

#[test]
fn half_a_gigabyte_is_enough_for_the_worst_queries_under_full_load() {
    let dir = data_dir();
    let arguments = ["--set", "memory_max=512MiB", "--set", "storage.compact_after=1s"];
    let quiver = Quiver::start_limited(dir.path(), &arguments, LIMIT_BYTES);
    // Queries name fields, which are known once a record has them.
    let first = quiver.post("/api/v1/ingest", "application/x-ndjson", body(WRITERS, 0).as_bytes());
    assert_eq!(first.status, 200, "{}", first.text());
    let (is_over, refused) = (AtomicBool::new(false), AtomicU64::new(0));
    let (answered, out_of_memory) = (AtomicU64::new(0), AtomicU64::new(0));
    let started = Instant::now();
    let acknowledged: Vec<Vec<u64>> = thread::scope(|scope| {
        let (quiver, is_over, refused) = (&quiver, &is_over, &refused);
        let writers: Vec<_> =
            (0..WRITERS).map(|writer| scope.spawn(move || write(&quiver.http, writer, is_over, refused))).collect();
        for reader in 0..READERS {
            let (answered, out_of_memory) = (&answered, &out_of_memory);
            scope.spawn(move || {
                let first = (reader * WORST.len() as u64 / READERS) as usize;
                for sql in WORST.iter().cycle().skip(first) {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let (status, tail) =
                        ask(&quiver.http, sql).unwrap_or_else(|error| panic!("no answer to '{sql}': {error}"));
                    let counter = if is_refused(sql, status, &tail) { out_of_memory } else { answered };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while started.elapsed() < LOAD {
            thread::park_timeout(LOAD - started.elapsed());
        }
        is_over.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().expect("a writer says why it fails")).collect()
    });
    let (peak, bodies) = (memory(quiver.pid(), "VmHWM"), acknowledged.iter().map(Vec::len).sum::<usize>());
    eprintln!(
        "memory test at {}: {bodies} bodies acknowledged, {} refused; {} queries answered, {} out of memory; peak {} MiB",
        now_ns(),
        refused.load(Ordering::Relaxed),
        answered.load(Ordering::Relaxed),
        out_of_memory.load(Ordering::Relaxed),
        peak >> 20
    );
    assert!(peak < LIMIT_BYTES, "{peak}");
    assert!(bodies > 0 && answered.load(Ordering::Relaxed) > 0);

    // Flushes and merges of what came last still have the memory for a moment.
    let sql = "SELECT writer, body, count(*) AS lines FROM logs GROUP BY writer, body";
    let found = wait_for("room for a question", LOAD, || {
        let answer = quiver.ask("", "application/x-ndjson", sql);
        let last = answer.text().trim_end().lines().last().unwrap_or_default().to_owned();
        (!is_refused(sql, answer.status, &last)).then(|| answer.text().to_owned())
    });
    let found: Vec<serde_json::Value> =
        found.lines().map(|line| serde_json::from_str(line).expect("rows are JSON")).collect();
    let number = |row: &serde_json::Value, name: &str| row[name].as_u64().unwrap_or_else(|| panic!("{row}"));
    let found: HashMap<(u64, u64), u64> =
        found.iter().map(|row| ((number(row, "writer"), number(row, "body")), number(row, "lines"))).collect();
    for (writer, bodies) in (0..).zip(&acknowledged) {
        for body in bodies {
            assert_eq!(found.get(&(writer, *body)), Some(&LINES_PER_BODY), "body {body} of writer {writer}");
        }
    }
    assert!(quiver.terminate().success());
}

#[test]
fn a_query_that_needs_too_much_says_what_to_do() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &["--set", "query.memory_bytes_max=1MiB"]);
    for number in 0..4 {
        let answer = quiver.post("/api/v1/ingest", "application/x-ndjson", body(0, number).as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let (status, tail) = ask(&quiver.http, "SELECT array_agg(_line) FROM logs").expect("it is answered");
    assert!(is_refused("array_agg", status, &tail) && tail.contains("narrow the time range"), "{status}: {tail}");
    assert_eq!(quiver.count("SELECT count(*) FROM logs"), 4 * LINES_PER_BODY);
}
