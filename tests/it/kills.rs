//! The promise, put to the test: a store under load is killed again and again on one directory; nothing that it
//! acknowledged may be missing, nothing may be there twice, and nothing may be there that was not sent.
//!
//! `QUIVER_KILLS` says how often, `QUIVER_SEED` repeats the moments of a run.

use std::collections::{HashMap, HashSet};
use std::env;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::http;
use crate::quiver::{Quiver, data_dir, loki_push, now_ns};

const KILLS_DEFAULT: u64 = 100;
const WRITERS: u64 = 4;
const LINES_PER_BATCH_MAX: u64 = 8;
/// Numbers of one writer in one round; more than any writer sends in 400 ms.
const NUMBERS_PER_WRITER: u64 = 1_000_000;
const LOST_SHOWN_MAX: usize = 20;

/// SplitMix64: the moments of a run, from its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// What a writer did in one round.
#[derive(Default)]
struct Written {
    acknowledged: Vec<u64>,
    /// Numbers below this were sent, from the writer's first on.
    sent_to: u64,
}

fn line(n: u64) -> String {
    let level = ["info", "error", "debug"][(n % 3) as usize];
    format!(r#"{{"level":"{level}","msg":"line {n}","n":{n}}}"#)
}

/// Writes batches until the store is gone; a batch counts as acknowledged when its whole 2xx was read.
fn write_until_killed(address: &str, first: u64, mut random: Random) -> Written {
    let mut written = Written { acknowledged: Vec::new(), sent_to: first };
    loop {
        let numbers = written.sent_to..written.sent_to + 1 + random.below(LINES_PER_BATCH_MAX);
        written.sent_to = numbers.end;
        let lines: Vec<String> = numbers.clone().map(line).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let (target, content_type, body) = if random.below(2) == 0 {
            let body = loki_push(&json!({"app": "kills"}), now_ns(), &lines);
            ("/loki/api/v1/push", "application/json", body)
        } else {
            ("/api/v1/ingest", "application/x-ndjson", lines.join("\n"))
        };
        match http::request(address, "POST", target, &[("content-type", content_type)], body.as_bytes()) {
            Ok(answer) if answer.status / 100 == 2 => written.acknowledged.extend(numbers),
            Ok(answer) => panic!("a good batch was answered {}: {}", answer.status, answer.text()),
            Err(_) => return written,
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    let given = env::var(name).ok().filter(|text| !text.is_empty());
    given.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

#[test]
fn kills_lose_nothing_and_double_nothing() {
    let kills = setting("QUIVER_KILLS", KILLS_DEFAULT);
    let seed = setting("QUIVER_SEED", now_ns() as u64);
    eprintln!("kill test: QUIVER_SEED={seed} QUIVER_KILLS={kills}");
    let started = Instant::now();
    let mut random = Random(seed);
    let dir = data_dir();
    let arguments = ["--set", "storage.flush_age_max=100ms", "--set", "storage.compact_after=100ms"];
    let mut acknowledged: Vec<u64> = Vec::new();
    let mut sent: HashMap<u64, u64> = HashMap::new();
    for round in 0..kills {
        let quiver = Quiver::start(dir.path(), &arguments);
        let found = quiver.count("SELECT count(*) FROM logs");
        let expected = acknowledged.len() as u64;
        assert!(found >= expected, "before kill {round} (seed {seed}): {found} of {expected} acknowledged records");
        let alive = Duration::from_millis(20 + random.below(380));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (address, first) = (quiver.http.clone(), (round * WRITERS + writer) * NUMBERS_PER_WRITER);
                let random = Random(random.below(u64::MAX));
                (first, thread::spawn(move || write_until_killed(&address, first, random)))
            })
            .collect();
        // The moment of the kill is what is tested, so it is a time and not a condition.
        thread::sleep(alive);
        quiver.kill9();
        for (first, writer) in writers {
            let written = writer.join().expect("a writer ends when the store is gone");
            acknowledged.extend(written.acknowledged);
            sent.insert(first, written.sent_to);
        }
    }

    let quiver = Quiver::start(dir.path(), &[]);
    let doubled = quiver.sql("SELECT n, count(*) AS times FROM logs GROUP BY n HAVING count(*) > 1");
    assert!(doubled.is_empty(), "seed {seed}: {} records are doubled: {doubled:?}", doubled.len());
    let mut found = HashSet::new();
    for row in quiver.sql("SELECT n, _line FROM logs") {
        let n = row["n"].as_u64().unwrap_or_else(|| panic!("seed {seed}: a record without number: {row}"));
        let first = n - n % NUMBERS_PER_WRITER;
        assert!(sent.get(&first).is_some_and(|end| n < *end), "seed {seed}: {n} was never sent");
        assert_eq!(row["_line"], line(n), "seed {seed}");
        found.insert(n);
    }
    let lost: Vec<u64> = acknowledged.iter().copied().filter(|n| !found.contains(n)).collect();
    let shown = &lost[..lost.len().min(LOST_SHOWN_MAX)];
    assert!(lost.is_empty(), "seed {seed}: {} of {} records are lost: {shown:?}", lost.len(), acknowledged.len());
    let (flushes, all) = (quiver.metric("quiver_storage_segments"), acknowledged.len());
    assert!(kills < 20 || (all > 0 && flushes > 0.0), "the kills met no flush");
    eprintln!(
        "kill test: {kills} kills, {all} records acknowledged, {} found, 0 lost, 0 doubled, {flushes} segments, {:?}",
        found.len(),
        started.elapsed()
    );
}
