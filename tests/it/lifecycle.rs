//! The life of segments: many small ones become few, old ones go, the disk quota is kept, damage is told; and a query
//! answers the same whatever of it happens meanwhile.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::http;
use crate::quiver::{KEEP_BY_LEVEL, Quiver, data_dir, now_ns, wait_for};

const SOON: Duration = Duration::from_secs(20);
const ROWS: &str =
    "SELECT _seq, CAST(timestamp AS BIGINT) AS ns, level, service, message, n, extra, _line FROM logs ORDER BY _seq";
/// Nothing expires, so that records may be of any time.
const KEEP_ALL: &str = "[[retention]]\nmatch = ''\nkeep = 'forever'\n";

fn config(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file can be made");
    file.write_all(text.as_bytes()).expect("it can be written");
    file
}

fn start(dir: &Path, config: &NamedTempFile, set: &[&str]) -> Quiver {
    let mut arguments = vec!["--config", config.path().to_str().expect("temporary paths are UTF-8")];
    set.iter().for_each(|set| arguments.extend(["--set", set]));
    Quiver::start(dir, &arguments)
}

fn flush(quiver: &Quiver) {
    let answer = quiver.post("/api/v1/admin/flush", "", b"");
    assert_eq!((answer.status, answer.json()), (200, json!({"flushed": true})));
}

fn compact(quiver: &Quiver) -> Value {
    let answer = quiver.post("/api/v1/admin/compact", "", b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// All files below the segments' directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    fn below(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => below(&path, found),
                path => found.push(path),
            }
        }
    }
    let mut found = Vec::new();
    below(&dir.join("segments"), &mut found);
    found.retain(|path| path.extension().is_some_and(|extension| extension == "parquet"));
    found.sort();
    found
}

/// Lines of two days and several levels, with a field whose type changes and one that is rare.
fn fill(quiver: &Quiver, flushes: usize) {
    for batch in 0..flushes {
        let lines: Vec<String> = (0..30)
            .map(|at| {
                let (day, level) = (10 + at % 2, ["error", "warn", "info", "debug", "trace"][at % 5]);
                let extra = if batch % 2 == 0 { json!(at) } else { json!(format!("text {at}")) };
                let n = batch * 30 + at;
                json!({"ts": format!("2026-02-{day}T{:02}:00:{at:02}Z", batch % 24), "level": level, "msg": format!("m {n}"),
                       "service": format!("s{}", at % 3), "n": n, "extra": extra})
                .to_string()
            })
            .collect();
        quiver.ingest(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        flush(quiver);
    }
}

#[test]
fn many_flushes_become_few_files_with_the_same_rows() {
    let (dir, config) = (data_dir(), config(KEEP_BY_LEVEL));
    let quiver = start(dir.path(), &config, &[]);
    fill(&quiver, 12);
    let before = quiver.sql(ROWS);
    assert_eq!(before.len(), 360);
    // Two days, four classes.
    assert_eq!(files(dir.path()).len(), 96);
    let done = compact(&quiver);
    assert_eq!(
        done,
        json!({"merges": 8, "segments_merged": 96, "segments_written": 8, "records": 360}),
        "everything is merged once"
    );
    assert_eq!(quiver.sql(ROWS), before);
    assert_eq!(quiver.metric("quiver_storage_segments"), 8.0);
    assert_eq!(quiver.metric("quiver_storage_compaction_pending"), 0.0);
    assert!(quiver.metric("quiver_storage_write_amplification") < 3.0);
    wait_for("the merged files' end", SOON, || (files(dir.path()).len() == 8).then_some(()));
    assert_eq!(compact(&quiver)["merges"], json!(0), "there is nothing left to do");
    quiver.kill9();

    let quiver = start(dir.path(), &config, &[]);
    assert_eq!(quiver.sql(ROWS), before);
    assert_eq!(files(dir.path()).len(), 8);
    assert!(quiver.terminate().success());
}

#[test]
fn quiet_segments_are_merged_without_being_asked() {
    let (dir, config) = (data_dir(), config(KEEP_ALL));
    let quiver = start(dir.path(), &config, &["storage.compact_after=200ms"]);
    fill(&quiver, 6);
    let before = quiver.sql(ROWS);
    wait_for("few segments", SOON, || (quiver.metric("quiver_storage_segments") <= 4.0).then_some(()));
    wait_for("nothing pending", SOON, || (quiver.metric("quiver_storage_compaction_pending") == 0.0).then_some(()));
    assert_eq!(quiver.sql(ROWS), before);
    assert!(quiver.metric("quiver_storage_write_amplification") < 3.0);
    assert!(quiver.terminate().success());
}

#[test]
fn a_query_that_runs_keeps_its_answer_through_a_merge() {
    const FLUSHES: u64 = 12;
    const RECORDS: u64 = 20_000;
    let (dir, config) = (data_dir(), config(""));
    let quiver = start(dir.path(), &config, &[]);
    for batch in 0..FLUSHES {
        let lines: Vec<String> = (0..RECORDS)
            .map(|at| {
                let n = batch * RECORDS + at;
                format!(
                    r#"{{"msg":"line {n} of a query that takes its time {:x}","n":{n}}}"#,
                    n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
                )
            })
            .collect();
        quiver.ingest(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        flush(&quiver);
    }
    // The answer is larger than every buffer on its way, so the query is still in the middle when the merge comes.
    let sql = "SELECT n, message FROM logs";
    let mut answer = http::open(&quiver.http, "POST", "/api/v1/sql", &[("accept", "text/csv")], sql.as_bytes())
        .expect("the query is sent");
    let mut first = [0; 1_000];
    answer.read_exact(&mut first).expect("the answer starts");
    let merged = compact(&quiver);
    assert_eq!(merged["records"], json!(FLUSHES * RECORDS), "{merged}");
    let live = quiver.metric("quiver_storage_segments") as usize;
    assert!(files(dir.path()).len() > live, "the running query holds its files");
    assert_eq!(quiver.count("SELECT count(*) FROM logs"), FLUSHES * RECORDS);

    let mut rest = first.to_vec();
    answer.read_to_end(&mut rest).expect("the answer goes on to its end");
    drop(answer);
    let text = String::from_utf8(rest).expect("answers are UTF-8");
    let (_, body) = text.split_once("\r\n\r\n").expect("there is a head");
    let mut numbers: Vec<u64> = body
        .lines()
        .skip(1)
        .map(|line| line.split(',').next().and_then(|n| n.parse().ok()).expect("a number"))
        .collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..FLUSHES * RECORDS), "no record is missing or doubled");
    wait_for("the files' end after the query's", SOON, || (files(dir.path()).len() == live).then_some(()));
}

#[test]
fn records_expire_by_their_rule() {
    let dir = data_dir();
    let config = config("[[retention]]\nmatch = 'service = \"short-*\" and level = \"info\"'\nkeep = '1s'\n");
    let quiver = start(dir.path(), &config, &[]);
    quiver.push_loki(&json!({"service": "short-1", "level": "info"}), now_ns(), &["goes", "goes too"]);
    quiver.push_loki(&json!({"service": "short-1", "level": "error"}), now_ns(), &["stays"]);
    quiver.push_loki(&json!({"service": "long", "level": "info"}), now_ns(), &["stays too"]);
    flush(&quiver);
    let expired = || (quiver.metric("quiver_storage_expired_records_total") > 0.0).then_some(());
    wait_for("the short rule's records to go", SOON, expired);
    assert_eq!(quiver.metric("quiver_storage_expired_records_total"), 2.0);
    assert_eq!(quiver.metric("quiver_storage_expired_segments_total"), 1.0);
    assert!(quiver.metric("quiver_storage_expired_bytes_total") > 0.0);
    assert_eq!(
        quiver.sql("SELECT message FROM logs ORDER BY 1"),
        [json!({"message": "stays"}), json!({"message": "stays too"})]
    );
    wait_for("its file's end", SOON, || (files(dir.path()).len() == 2).then_some(()));
    assert!(quiver.log().contains("removed expired segments"));
    assert!(quiver.terminate().success());

    let quiver = start(dir.path(), &config, &[]);
    assert_eq!(quiver.count("SELECT count(*) FROM logs"), 2);
}

#[test]
fn the_disk_quota_takes_the_oldest_segments() {
    const BYTES_MAX: f64 = 300_000.0;
    let (dir, config) = (data_dir(), config(KEEP_ALL));
    let quiver = start(dir.path(), &config, &["storage.disk_bytes_max=300KB"]);
    let mut random = 7_u64;
    for batch in 0..10 {
        let lines: Vec<String> = (0..1_000)
            .map(|at| {
                let mut word = || {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    random
                };
                format!(
                    r#"{{"ts":"2026-02-10T{batch:02}:00:00Z","msg":"{at} {:x}{:x}{:x}{:x}"}}"#,
                    word(),
                    word(),
                    word(),
                    word()
                )
            })
            .collect();
        quiver.ingest(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        flush(&quiver);
    }
    assert!(quiver.metric("quiver_storage_quota_removed_segments_total") >= 1.0);
    assert!(quiver.metric("quiver_storage_disk_bytes") <= BYTES_MAX);
    assert!(quiver.metric("quiver_storage_disk_free_bytes") > 0.0);
    let left = quiver.sql("SELECT DISTINCT extract(hour FROM timestamp) AS hour FROM logs ORDER BY 1 DESC");
    let hours: Vec<u64> = left.iter().filter_map(|row| row["hour"].as_f64()).map(|hour| hour as u64).collect();
    assert!(!hours.is_empty() && hours.len() < 10, "{hours:?}");
    assert!(hours.iter().copied().eq((0..10).rev().take(hours.len())), "the newest stay: {hours:?}");
    let records = quiver.metric("quiver_storage_quota_removed_records_total") as u64;
    assert_eq!(quiver.count("SELECT count(*) FROM logs") + records, 10_000);
    assert!(quiver.log().contains("storage.disk_bytes_max"));
}

#[test]
fn a_missing_or_cut_file_is_told_and_the_rest_is_answered() {
    let (dir, config) = (data_dir(), config(KEEP_ALL));
    let quiver = start(dir.path(), &config, &[]);
    for at in 0..3 {
        quiver.ingest(&[format!(r#"{{"ts":"2026-02-1{at}T00:00:00Z","msg":"day {at}"}}"#).as_str()]);
        flush(&quiver);
    }
    quiver.kill9();
    let found = files(dir.path());
    assert_eq!(found.len(), 3);
    let (missing, cut) = (fs::read(&found[0]).expect("it can be read"), fs::read(&found[1]).expect("it can be read"));
    fs::remove_file(&found[0]).expect("it can be removed");
    fs::write(&found[1], &cut[..cut.len() / 2]).expect("it can be written");

    let quiver = start(dir.path(), &config, &[]);
    assert_eq!(quiver.metric("quiver_storage_quarantined_segments"), 2.0);
    assert_eq!(quiver.metric("quiver_storage_quarantined_records"), 2.0);
    assert_eq!(quiver.sql("SELECT message FROM logs"), [json!({"message": "day 2"})]);
    let log = quiver.log();
    assert!(log.contains("can't be found") && log.contains("bytes instead of"), "{log}");
    assert_eq!(files(dir.path()).len(), 2, "the cut file is kept");
    assert!(quiver.terminate().success());

    fs::write(&found[0], missing).expect("it can be written");
    fs::write(&found[1], cut).expect("it can be written");
    let quiver = start(dir.path(), &config, &[]);
    assert_eq!(quiver.metric("quiver_storage_quarantined_segments"), 0.0);
    assert_eq!(quiver.count("SELECT count(*) FROM logs"), 3, "files that are put back are read again");
}

#[test]
fn admin_endpoints_want_credentials() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &["--set", "server.auth.tokens=secret"]);
    for path in ["/api/v1/admin/flush", "/api/v1/admin/compact"] {
        assert_eq!(quiver.post(path, "", b"").status, 401, "{path}");
    }
}
