//! After a crash or an orderly end, the store holds what it acknowledged: once, unchanged, in order.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::http;
use crate::quiver::{Quiver, append_to, data_dir, now_ns, wait_for};

const ROWS: &str =
    "SELECT _seq, CAST(timestamp AS BIGINT) AS ns, level, service, message, n, _line FROM logs ORDER BY _seq";

fn wal_files(data_dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data_dir.join("wal")).expect("there is a WAL directory");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    files.sort();
    files
}

fn fill(quiver: &Quiver) {
    for batch in 0..10 {
        let lines: Vec<String> =
            (0..20).map(|at| format!(r#"{{"level":"error","msg":"m{at}","n":{}}}"#, batch * 20 + at)).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        if batch % 2 == 0 {
            quiver.ingest(&lines);
        } else {
            quiver.push_loki(&json!({"app": "a"}), now_ns(), &lines);
        }
    }
}

#[test]
fn kill9_loses_doubles_and_changes_nothing() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    fill(&quiver);
    let before = quiver.sql(ROWS);
    assert_eq!(before.len(), 200);
    quiver.kill9();

    let quiver = Quiver::start(dir.path(), &[]);
    assert_eq!(quiver.sql(ROWS), before);
    let highest = before.last().and_then(|row| row["_seq"].as_i64()).expect("there are rows");
    quiver.ingest(&[r#"{"msg":"later","n":1000}"#]);
    let later = quiver.value("SELECT _seq FROM logs WHERE n = 1000").as_i64().expect("it was ingested");
    assert!(later > highest, "_seq {later} was given although {highest} was taken");
    let before = quiver.sql(ROWS);
    assert!(quiver.terminate().success());

    let quiver = Quiver::start(dir.path(), &[]);
    assert_eq!(quiver.sql(ROWS), before, "segments hold the same");
}

/// Damages the end of the newest WAL file of a killed store; everything acknowledged has to be there all the same.
fn torn_tail(tail: &[u8]) {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    fill(&quiver);
    let before = quiver.sql(ROWS);
    quiver.kill9();
    let newest = wal_files(dir.path()).pop().expect("there is a WAL file");
    append_to(&newest).write_all(tail).expect("it can be written");

    let quiver = Quiver::start(dir.path(), &[]);
    assert!(quiver.metric("quiver_storage_wal_lost_bytes_total") > 0.0, "the loss is reported");
    assert!(quiver.log().contains("torn"), "the loss is logged");
    assert_eq!(quiver.sql(ROWS), before);
    quiver.ingest(&[r#"{"msg":"later","n":1000}"#]);
    quiver.kill9();

    // What was acknowledged behind the torn end is read as well.
    let quiver = Quiver::start(dir.path(), &[]);
    assert_eq!(quiver.sql(ROWS).len(), before.len() + 1);
}

#[test]
fn a_wal_with_garbage_at_its_end_opens() {
    torn_tail(b"\x01garbage that is no frame\xff\x00\xfe");
}

#[test]
fn a_wal_with_half_a_frame_at_its_end_opens() {
    // The head of a frame (src/wal.rs: magic, length, rows, first number, checksum) whose payload never came.
    let mut head = 0x5146_4d31_u32.to_le_bytes().to_vec();
    head.extend(4_096_u32.to_le_bytes());
    head.extend(7_u32.to_le_bytes());
    head.extend(200_u64.to_le_bytes());
    head.extend(0_u32.to_le_bytes());
    head.extend(b"only the start of the payload");
    torn_tail(&head);
}

#[test]
fn a_second_store_on_the_same_directory_is_refused() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    let second = std::panic::catch_unwind(|| Quiver::start(dir.path(), &[]).http.clone());
    assert!(second.is_err(), "two processes write to one directory");
    quiver.ingest(&[r#"{"msg":"still here"}"#]);
    assert_eq!(quiver.count("SELECT count(*) FROM logs"), 1);
}

#[test]
fn sigterm_under_load_drains_into_segments() {
    let dir = data_dir();
    let mut quiver = Quiver::start(dir.path(), &[]);
    let acknowledged = AtomicU64::new(0);
    let next = AtomicU64::new(0);
    let ended = AtomicBool::new(false);
    let sent: Vec<Vec<u64>> = thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|_| {
                let address = quiver.http.clone();
                let (acknowledged, next, ended) = (&acknowledged, &next, &ended);
                scope.spawn(move || {
                    let mut mine = Vec::new();
                    while !ended.load(Ordering::Relaxed) {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        let body = format!("{{\"msg\":\"load\",\"n\":{n}}}\n");
                        let answer = http::request(&address, "POST", "/api/v1/ingest", &[], body.as_bytes());
                        if answer.is_ok_and(|answer| answer.status == 200) {
                            acknowledged.fetch_add(1, Ordering::Relaxed);
                            mine.push(n);
                        }
                    }
                    mine
                })
            })
            .collect();
        let enough = || (acknowledged.load(Ordering::Relaxed) > 200).then_some(());
        wait_for("200 acknowledged records", Duration::from_secs(60), enough);
        quiver.ask_to_end();
        let status = quiver.wait_for_exit();
        ended.store(true, Ordering::Relaxed);
        assert!(status.success(), "SIGTERM ended the store with {status}");
        writers.into_iter().map(|writer| writer.join().expect("a writer ends")).collect()
    });
    drop(quiver);

    let quiver = Quiver::start(dir.path(), &[]);
    assert_eq!(quiver.metric("quiver_storage_buffer_records"), 0.0, "nothing was left to the WAL");
    let found: Vec<Value> = quiver.sql("SELECT n FROM logs ORDER BY n");
    let found: Vec<u64> = found.iter().filter_map(|row| row["n"].as_u64()).collect();
    assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "a record is there twice");
    let lost: Vec<u64> = sent.concat().into_iter().filter(|n| found.binary_search(n).is_err()).collect();
    assert!(lost.is_empty(), "{} acknowledged records are lost: {lost:?}", lost.len());
}
