//! Quiver against an S3 server (moto, the one of those tried that keeps put-if-absent in a race): backups go there, and
//! so do segments, of which the local disk has copies then.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::backup::{end, files_below, run, text};
use crate::clients::python;
use crate::http;
use crate::quiver::{Quiver, data_dir, wait_for};

const BUCKET: &str = "backups";
const START_MAX: Duration = Duration::from_secs(60);

/// A running S3 server with an empty bucket; it ends with this value.
struct S3 {
    server: Child,
    url: String,
}

impl S3 {
    fn start() -> S3 {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("a port is free");
        let mut command = Command::new(python());
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &address.port().to_string()]);
        let server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("moto can be started");
        let s3 = S3 { server, url: format!("http://{address}") };
        wait_for("the S3 server", START_MAX, || {
            let made = http::request(&address.to_string(), "PUT", &format!("/{BUCKET}"), &[], b"");
            made.ok().filter(|answer| answer.status == 200)
        });
        s3
    }

    /// What a command prints that has to succeed.
    fn ok(&self, arguments: &[&str]) -> String {
        let endpoint = [("AWS_ENDPOINT_URL", self.url.as_str())];
        let output = run(&[&endpoint[..], &VARIABLES].concat(), arguments);
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {stdout}{stderr}");
        assert!(!format!("{stdout}{stderr}").contains("not-a-secret"), "a secret is printed");
        stdout.into_owned()
    }
}

/// Region and credentials, as everybody gives them.
const VARIABLES: [(&str, &str); 3] =
    [("AWS_REGION", "us-east-1"), ("AWS_ACCESS_KEY_ID", "AKIATEST"), ("AWS_SECRET_ACCESS_KEY", "not-a-secret")];
const SOON: Duration = Duration::from_secs(60);
const ROWS: &str =
    "SELECT _seq, CAST(timestamp AS BIGINT) AS ns, level, service, message, trace_id, n, _line FROM logs ORDER BY _seq";

impl S3 {
    /// The names of the objects below a prefix.
    fn objects(&self, prefix: &str) -> Vec<String> {
        let address = self.url.trim_start_matches("http://");
        let target = format!("/{BUCKET}?list-type=2&prefix={prefix}");
        let answer = http::request(address, "GET", &target, &[], b"").expect("the S3 server answers");
        let keys = answer.text().split("<Key>").skip(1).map(|rest| rest.split('<').next().unwrap_or_default());
        keys.map(str::to_owned).collect()
    }
}

/// Settings of a store whose segments go to a place at a URL.
fn settings(url: &str, prefix: &str, more: &[&str]) -> Vec<String> {
    let own = [
        format!("storage.object_store=s3://{BUCKET}/{prefix}"),
        format!("storage.object_store_endpoint={url}"),
        "storage.object_store_allow_http=true".to_owned(),
    ];
    let all = own.into_iter().chain(more.iter().map(|set| (*set).to_owned()));
    all.flat_map(|set| ["--set".to_owned(), set]).collect()
}

fn start(dir: &Path, settings: &[String]) -> Quiver {
    Quiver::start_with(dir, &settings.iter().map(String::as_str).collect::<Vec<_>>(), &VARIABLES)
}

/// What a store says that does not start.
fn refused(dir: &Path, settings: &[String]) -> String {
    let mut arguments = vec!["serve", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--data-dir", text(dir)];
    arguments.extend(settings.iter().map(String::as_str));
    let output = run(&VARIABLES, &arguments);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!said.contains("not-a-secret"), "a secret is printed");
    said
}

fn fill(quiver: &Quiver, from: usize, count: usize) {
    let line = |n: usize| {
        let (level, service) = (["info", "error", "warn"][n % 3], n % 2);
        format!(r#"{{"level":"{level}","service":"s{service}","msg":"line {n}","n":{n},"trace_id":"{n:032x}"}}"#)
    };
    let lines: Vec<String> = (from..from + count).map(line).collect();
    quiver.ingest(&lines.iter().map(String::as_str).collect::<Vec<_>>());
}

fn flush(quiver: &Quiver) {
    let answer = quiver.post("/api/v1/admin/flush", "", b"");
    assert_eq!((answer.status, answer.json()), (200, json!({"flushed": true})));
}

/// Ends a store as a power cut would, with the loss of all local segments.
fn lose_segments(quiver: Quiver, dir: &TempDir) {
    quiver.kill9();
    fs::remove_dir_all(dir.path().join("segments")).expect("they can be removed");
}

#[test]
fn segments_outlive_the_local_disk() {
    let (s3, dir) = (S3::start(), data_dir());
    let settings = settings(&s3.url, "stores/lost", &[]);
    let quiver = start(dir.path(), &settings);
    for batch in 0..4 {
        fill(&quiver, batch * 100, 100);
        flush(&quiver);
    }
    fill(&quiver, 400, 50);
    let before = quiver.sql(ROWS);
    assert_eq!(before.len(), 450);
    let live = files_below(&dir.path().join("segments"), "").len();
    assert_eq!(s3.objects("stores/lost/live/").len(), live);
    lose_segments(quiver, &dir);

    let quiver = start(dir.path(), &settings);
    assert_eq!(quiver.sql(ROWS), before);
    let fetched = quiver.metric("quiver_object_store_fetched_segments_total");
    assert!(fetched > 0.0 && quiver.metric("quiver_storage_quarantined_segments") == 0.0);
    assert_eq!(quiver.sql(ROWS), before);
    assert_eq!(quiver.metric("quiver_object_store_fetched_segments_total"), fetched, "each is fetched once");
    lose_segments(quiver, &dir);

    // Inputs of merges and of deletions are fetched too; what they replace goes from both places.
    let quiver = start(dir.path(), &settings);
    let answer = quiver.post("/api/v1/admin/compact", "", b"");
    assert!(answer.status == 200 && answer.json()["segments_merged"].as_u64() > Some(3), "{}", answer.text());
    assert_eq!(quiver.sql(ROWS), before);
    s3.ok(&["delete", "--url", &format!("http://{}", quiver.http), "--wait", "n < 7"]);
    let left = quiver.sql(ROWS);
    assert_eq!(left.len(), 443);
    wait_for("the end of what was replaced", SOON, || {
        let objects = s3.objects("stores/lost/live/").len();
        (objects == 2 * quiver.metric("quiver_storage_segments") as usize).then_some(())
    });
    let log = quiver.log();
    assert!(!log.contains("not-a-secret"), "a secret is logged");
    lose_segments(quiver, &dir);
    assert_eq!(start(dir.path(), &settings).sql(ROWS), left);
}

#[test]
fn local_copies_go_when_there_are_too_many_and_answers_stay_the_same() {
    let (s3, dir) = (S3::start(), data_dir());
    let settings = settings(&s3.url, "stores/small", &["storage.cache_bytes_max=20KB"]);
    let quiver = start(dir.path(), &settings);
    for batch in 0..6 {
        fill(&quiver, batch * 100, 100);
        flush(&quiver);
    }
    let before = quiver.sql(ROWS);
    assert_eq!(before.len(), 600);
    let ask = || (0..5).for_each(|_| assert_eq!(quiver.sql(ROWS), before));
    thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(ask))));
    fill(&quiver, 600, 10);
    flush(&quiver);
    let evicted = quiver.metric("quiver_object_store_evicted_segments_total");
    let cached = quiver.metric("quiver_object_store_cached_bytes");
    assert!(evicted > 0.0 && cached <= 20_000.0, "{evicted} evicted, {cached} bytes kept");
    let here: u64 = files_below(&dir.path().join("segments"), "")
        .iter()
        .map(|file| fs::metadata(file).expect("it is there").len())
        .sum();
    assert!(here <= 20_000, "{here} bytes are here");
    assert_eq!(quiver.count("SELECT count(n) FROM logs"), 610);
    end(quiver);

    // What is not here is checked and backed up all the same; the restored store needs no object store.
    let (target, restored) = (data_dir(), data_dir());
    let said = s3.ok(&["verify", "--data-dir", text(dir.path())]);
    assert!(said.contains("610 records"), "{said}");
    for expected in ["610 records", "; 0 files"] {
        let said = s3.ok(&["backup", "--data-dir", text(dir.path()), "--to", text(target.path())]);
        assert!(said.contains(expected), "{said}");
    }
    let to = restored.path().join("store");
    s3.ok(&["restore", "--from", text(target.path()), "--data-dir", text(&to)]);
    let all = "SELECT count(n), sum(n), max(_line) FROM logs WHERE n >= 0";
    assert_eq!(Quiver::start(&to, &[]).sql(all), start(dir.path(), &settings).sql(all));
}

/// A way to a server that can be cut.
struct Way {
    url: String,
    cut: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Way {
    fn to(server: &str) -> Way {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it has an address"));
        let way = Way { url, cut: Arc::default(), streams: Arc::default() };
        let (server, cut, streams) =
            (server.trim_start_matches("http://").to_owned(), way.cut.clone(), way.streams.clone());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if cut.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(&server) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (mut from, mut to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
                    thread::spawn(move || {
                        // Either side may break off.
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                streams.lock().expect("nobody panics with it").extend([client, server]);
            }
        });
        way
    }

    fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        for stream in self.streams.lock().expect("nobody panics with it").drain(..) {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn mend(&self) {
        self.cut.store(false, Ordering::SeqCst);
    }
}

#[test]
fn nothing_is_lost_while_the_object_store_is_away() {
    let (s3, dir) = (S3::start(), data_dir());
    let way = Way::to(&s3.url);
    let more = ["storage.flush_bytes_max=64KiB", "storage.buffer_bytes_max=512KiB"];
    let settings = settings(&way.url, "stores/away", &more);
    let quiver = start(dir.path(), &settings);
    fill(&quiver, 0, 100);
    flush(&quiver);
    way.cut();
    fill(&quiver, 100, 100);
    let answer = quiver.post("/api/v1/admin/flush", "", b"");
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.text().contains("s3://backups/stores/away"), "{}", answer.text());
    assert!(quiver.metric("quiver_storage_failed_flushes_total") > 0.0);
    assert_eq!(quiver.metric("quiver_object_store_reachable"), 0.0);
    // Ingest goes on until the buffer is full; what is refused is not kept.
    let (mut taken, padding) = (200_u64, "x".repeat(1_000));
    let status = loop {
        let lines: Vec<String> = (0..100).map(|n| format!(r#"{{"msg":"more {n} {padding}","n":{n}}}"#)).collect();
        let answer = quiver.post("/api/v1/ingest", "application/x-ndjson", lines.join("\n").as_bytes());
        match answer.status {
            200 => taken += 100,
            other => break other,
        }
        assert!(taken < 100_000, "the buffer has no end");
    };
    assert_eq!((status, quiver.count("SELECT count(*) FROM logs")), (429, taken));
    let before = quiver.sql(ROWS);
    quiver.kill9();

    // Also at the next start, which knows the place already.
    let quiver = start(dir.path(), &settings);
    assert_eq!(quiver.sql(ROWS), before);
    way.mend();
    wait_for("a flush", SOON, || (quiver.metric("quiver_storage_buffer_records") == 0.0).then_some(()));
    assert_eq!(quiver.metric("quiver_object_store_reachable"), 1.0);
    assert_eq!(quiver.sql(ROWS), before);
    lose_segments(quiver, &dir);
    assert_eq!(start(dir.path(), &settings).sql(ROWS), before);
}

#[test]
fn a_second_store_at_the_same_place_is_refused() {
    let (s3, dir, other) = (S3::start(), data_dir(), data_dir());
    let settings = settings(&s3.url, "stores/taken", &[]);
    let quiver = start(dir.path(), &settings);
    fill(&quiver, 0, 10);
    let said = refused(other.path(), &settings);
    assert!(said.contains("the segments of another store") && said.contains("OWNER"), "{said}");
    end(quiver);
    let said = refused(other.path(), &settings);
    assert!(said.contains("the segments of another store"), "{said}");
    assert_eq!(start(dir.path(), &settings).count("SELECT count(*) FROM logs"), 10);
}

/// A server that takes every PUT, whether something is there or not; ends with the test's process.
fn start_careless_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = format!("http://{}", listener.local_addr().expect("it has an address"));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                let (mut method, mut bytes) = (String::new(), 0);
                for line in reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
                    let lower = line.to_ascii_lowercase();
                    match lower.strip_prefix("content-length: ") {
                        Some(length) => bytes = length.parse().expect("a length is a number"),
                        None if method.is_empty() => method = line.split(' ').next().unwrap_or_default().to_owned(),
                        None => {}
                    }
                }
                let mut body = vec![0; bytes];
                reader.read_exact(&mut body).expect("the body comes");
                let body =
                    if method == "POST" { "<DeleteResult><Deleted><Key>x</Key></Deleted></DeleteResult>" } else { "" };
                let head =
                    format!("HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: {}\r\nConnection: close", body.len());
                write!(reader.into_inner(), "{head}\r\n\r\n{body}").expect("the answer is taken");
            });
        }
    });
    url
}

#[test]
fn an_object_store_that_overwrites_is_refused() {
    let dir = data_dir();
    let said = refused(dir.path(), &settings(&start_careless_server(), "stores/careless", &[]));
    assert!(said.contains("does not keep put-if-absent"), "{said}");
}

#[test]
fn settings_that_cannot_be_are_told() {
    let dir = data_dir();
    for (sets, expected) in [
        (&["storage.object_store=gs://b"][..], "is not s3://bucket/prefix"),
        (&["storage.cache_bytes_max=1GiB"], "needs storage.object_store"),
        (&["storage.object_store_endpoint=http://x"], "storage.object_store_allow_http"),
        (&["storage.object_store_allow_http=perhaps"], "neither true nor false"),
    ] {
        let settings: Vec<String> = sets.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]).collect();
        let said = refused(dir.path(), &settings);
        assert!(said.contains(expected), "{said}");
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        // An error here means that it has ended already.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Lines that hardly compress, so that a segment is larger than one part of an upload.
fn ingest_noise(quiver: &Quiver, records: usize) {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut letter = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[(state >> 58) as usize] as char
    };
    for _ in 0..records / 1_000 {
        let lines: Vec<String> = (0..1_000)
            .map(|_| {
                format!(r#"{{"ts":"2026-02-10T00:00:00Z","msg":"{}"}}"#, (0..300).map(|_| letter()).collect::<String>())
            })
            .collect();
        quiver.ingest(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn a_backup_goes_to_s3_and_comes_back() {
    let s3 = S3::start();
    let (dir, restored) = (data_dir(), data_dir());
    let target = format!("s3://{BUCKET}/stores/one");
    let quiver = Quiver::start(dir.path(), &[]);
    ingest_noise(&quiver, 40_000);
    end(quiver);
    let quiver = Quiver::start(dir.path(), &[]);
    quiver.ingest(&[r#"{"msg":"in the log only"}"#]);
    let sums = "SELECT count(*), max(message), min(message), sum(_seq) FROM logs";
    let before = quiver.sql(sums);

    let backup = ["backup", "--data-dir", text(dir.path()), "--to", &target, "--keep", "1"];
    let said = s3.ok(&backup);
    assert!(said.contains("1 segments with 40000 records") && said.contains("; 2 files"), "{said}");
    let bytes: u64 = {
        let listed = s3.ok(&["segments", "--data-dir", text(dir.path()), "--format", "json"]);
        serde_json::from_str::<serde_json::Value>(&listed).expect("it is JSON")["bytes"].as_u64().expect("a number")
    };
    assert!(bytes > 8 << 20, "{bytes} bytes are sent in one part");
    let said = s3.ok(&backup);
    assert!(said.contains("; 0 files") && said.contains("removed 1 older backups"), "{said}");
    s3.ok(&["verify", "--from", &target]);
    quiver.kill9();
    let to = restored.path().join("store");
    s3.ok(&["restore", "--from", &target, "--data-dir", text(&to)]);
    let quiver = Quiver::start(&to, &[]);
    assert_eq!(quiver.sql(sums), before);
}
