//! Backups: taken beside a running store, restored elsewhere, and checked; what is damaged is found.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::quiver::{Quiver, binary, data_dir};

const COUNT: &str = "SELECT count(*) FROM logs";

/// Runs a command with nothing of the tests' own environment but `variables`.
pub fn run(variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("QUIVER_") || name.starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied()).args(arguments).output().expect("quiver runs")
}

/// What a command that has to succeed prints.
fn ok(arguments: &[&str]) -> String {
    let output = run(&[], arguments);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {stdout}{stderr}");
    stdout.into_owned()
}

/// What a command that has to fail prints, on both outputs.
fn fails(arguments: &[&str]) -> String {
    let output = run(&[], arguments);
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
    text
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

fn ingest(quiver: &Quiver, from: usize, count: usize) {
    let lines: Vec<String> = (from..from + count)
        .map(|n| {
            format!(r#"{{"level":"{}","service":"s{}","msg":"line {n}","n":{n}}}"#, ["info", "error"][n % 2], n % 3)
        })
        .collect();
    quiver.ingest(&lines.iter().map(String::as_str).collect::<Vec<_>>());
}

/// Ends a store so that its records are in segments.
pub fn end(quiver: Quiver) {
    assert!(quiver.terminate().success());
}

pub fn files_below(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("it can be listed") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            found.extend(files_below(&path, suffix));
        } else if text(&path).ends_with(suffix) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("it can be read");
    bytes[at] ^= 0x55;
    fs::write(path, bytes).expect("it can be written");
}

#[test]
fn a_restored_backup_answers_as_the_store_did() {
    let (dir, target, restored) = (data_dir(), data_dir(), data_dir());
    let quiver = Quiver::start(dir.path(), &[]);
    ingest(&quiver, 0, 300);
    end(quiver);
    // Some records in segments, some in the log only, and the store runs.
    let quiver = Quiver::start(dir.path(), &[]);
    ingest(&quiver, 300, 50);
    let sql = "SELECT _seq, level, service, message, n, _line FROM logs ORDER BY _seq";
    let rows = quiver.sql(sql);
    let said = ok(&["backup", "--data-dir", text(dir.path()), "--to", text(target.path())]);
    assert!(said.contains("2 segments with 300 records"), "{said}");
    assert!(ok(&["verify", "--from", text(target.path())]).starts_with("whole: 2 segments with 300 records"));
    assert!(ok(&["verify", "--data-dir", text(dir.path())]).contains("write-ahead log: 1 frames with 50 records"));
    let listed = ok(&["segments", "--data-dir", text(dir.path())]);
    assert!(listed.contains("error") && listed.contains("2 segments, 300 records"), "{listed}");
    let listed = ok(&["segments", "--data-dir", text(dir.path()), "--format", "json", "--tenant", "nobody"]);
    assert_eq!(listed, "");
    ingest(&quiver, 350, 10);
    quiver.kill9();

    let to = restored.path().join("new");
    ok(&["restore", "--from", text(target.path()), "--data-dir", text(&to)]);
    ok(&["verify", "--data-dir", text(&to)]);
    let quiver = Quiver::start(&to, &[]);
    assert_eq!(quiver.sql(sql), rows);
    ingest(&quiver, 1_000, 1);
    assert_eq!(quiver.count(COUNT), 351);
    let refused = fails(&["restore", "--from", text(target.path()), "--data-dir", text(&to)]);
    assert!(refused.contains("is not empty"), "{refused}");
}

#[test]
fn backups_under_load_have_what_was_acknowledged_before_them() {
    let (dir, target) = (data_dir(), data_dir());
    let quiver = Quiver::start(dir.path(), &["--set", "storage.flush_age_max=20ms"]);
    let (ended, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                ingest(&quiver, acknowledged.load(Ordering::Relaxed) as usize, 7);
                acknowledged.fetch_add(7, Ordering::Relaxed);
            }
        });
        let mut at_least = Vec::new();
        for _ in 0..4 {
            at_least.push(acknowledged.load(Ordering::Relaxed));
            ok(&["backup", "--data-dir", text(dir.path()), "--to", text(target.path()), "--keep", "2"]);
        }
        ended.store(true, Ordering::Relaxed);
        let manifests = files_below(&target.path().join("manifests"), ".json");
        assert_eq!(manifests.len(), 2, "two are kept");
        for (manifest, at_least) in manifests.iter().zip(&at_least[2..]) {
            let id = manifest.file_stem().and_then(|stem| stem.to_str()).expect("it has a name");
            let from = ["--from", text(target.path()), "--backup", id];
            ok(&[&["verify"], &from[..]].concat());
            let restored = data_dir();
            ok(&[&["restore", "--data-dir", text(restored.path())], &from[..]].concat());
            let copy = Quiver::start(restored.path(), &[]);
            let found = copy.count(COUNT);
            assert!(found >= *at_least, "{found} records of {at_least}");
            assert_eq!(copy.count("SELECT count(DISTINCT n) FROM logs"), found, "none is there twice");
            assert_eq!(copy.count("SELECT max(n) + 1 FROM logs"), found, "none is missing before the last");
        }
    });
}

#[test]
fn a_second_backup_copies_only_what_is_new_and_keep_removes_the_rest() {
    let (dir, target) = (data_dir(), data_dir());
    let backup = ["backup", "--data-dir", text(dir.path()), "--to", text(target.path())];
    let quiver = Quiver::start(dir.path(), &[]);
    ingest(&quiver, 0, 20);
    end(quiver);
    let first = ok(&backup);
    assert!(first.contains("; 4 files"), "{first}");
    assert!(ok(&backup).contains("; 0 files"));
    let quiver = Quiver::start(dir.path(), &[]);
    ingest(&quiver, 20, 20);
    end(quiver);
    let said = ok(&[&backup[..], &["--keep", "1"]].concat());
    assert!(said.contains("4 segments") && said.contains("; 4 files") && said.contains("removed 2 older"), "{said}");
    assert_eq!(
        fs::read_dir(target.path().join("backups"))
            .expect("it is there")
            .filter(|dir| {
                let dir = dir.as_ref().expect("it can be listed").path();
                !files_below(&dir, "").is_empty()
            })
            .count(),
        1
    );
    ok(&["verify", "--from", text(target.path())]);
    assert!(fails(&[&backup[..], &["--keep", "0"]].concat()).contains("keep at least 1"));
}

#[test]
fn the_target_of_another_store_is_refused() {
    let (one, other, target) = (data_dir(), data_dir(), data_dir());
    for (at, dir) in [&one, &other].into_iter().enumerate() {
        let quiver = Quiver::start(dir.path(), &[]);
        ingest(&quiver, at, 20);
        end(quiver);
    }
    ok(&["backup", "--data-dir", text(one.path()), "--to", text(target.path())]);
    let refused = fails(&["backup", "--data-dir", text(other.path()), "--to", text(target.path())]);
    assert!(refused.contains("of another store"), "{refused}");
}

#[test]
fn damage_is_found_file_by_file() {
    let (dir, target) = (data_dir(), data_dir());
    let quiver = Quiver::start(dir.path(), &[]);
    ingest(&quiver, 0, 200);
    end(quiver);
    let quiver = Quiver::start(dir.path(), &[]);
    ingest(&quiver, 200, 5);
    ingest(&quiver, 205, 5);
    quiver.kill9();
    let verify = ["verify", "--data-dir", text(dir.path())];
    ok(&verify);
    ok(&["backup", "--data-dir", text(dir.path()), "--to", text(target.path())]);

    let wal = files_below(&dir.path().join("wal"), ".wal").pop().expect("there is a log");
    let whole = fs::read(&wal).expect("it can be read");
    fs::write(&wal, &whole[..whole.len() - 3]).expect("it can be written");
    let said = ok(&verify);
    assert!(said.contains("note: ") && said.contains("1 frames with 5 records"), "{said}");
    fs::write(&wal, &whole).expect("it can be written");
    flip(&wal, 60);
    let said = fails(&verify);
    assert!(said.contains(&format!("damaged: {}: ", wal.display())) && said.contains("1 damaged"), "{said}");
    fs::write(&wal, &whole).expect("it can be written");

    let segments = files_below(&dir.path().join("segments"), ".parquet");
    let bytes = fs::read(&segments[0]).expect("it can be read");
    fs::write(&segments[0], &bytes[..bytes.len() - 1]).expect("it can be written");
    fs::remove_file(&segments[1]).expect("it can be removed");
    let said = fails(&verify);
    assert!(
        said.contains("the catalog says") && said.contains("it is not there") && said.contains("2 damaged"),
        "{said}"
    );

    let copies = files_below(&target.path().join("segments"), ".parquet");
    flip(&copies[0], 100);
    fs::remove_file(&copies[1]).expect("it can be removed");
    let said = fails(&["verify", "--from", text(target.path())]);
    assert!(
        said.contains("its checksum is") && said.contains("it is not there") && said.contains("2 damaged"),
        "{said}"
    );
    let restored = data_dir();
    let said = fails(&["restore", "--from", text(target.path()), "--data-dir", text(restored.path())]);
    assert!(said.contains("damaged") || said.contains("is not in"), "{said}");
    assert!(!restored.path().join("catalog.sqlite").exists(), "what was broken off is no store");
}

#[test]
fn places_without_store_or_backup_are_told() {
    let empty = data_dir();
    for (arguments, expected) in [
        (["backup", "--to", text(empty.path()), "--data-dir"], "catalog.sqlite"),
        (["segments", "--format", "json", "--data-dir"], "catalog.sqlite"),
        (["verify", "--backup", "x", "--from"], "there is no backup 'x' in"),
        (["restore", "--data-dir", "/nowhere", "--from"], "there is no backup in"),
    ] {
        let said = fails(&[&arguments[..], &[text(empty.path())]].concat());
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}
