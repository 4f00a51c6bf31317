//! Answers over a store of a test's own: what the modules of `query` can't be asked one by one. Also what their tests share.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::StreamExt;

use super::{Engine, Error, Options, Request, Stats, TimeRange};
use crate::clock::Clock;
use crate::error::Kind;
use crate::memory::Ceiling;
use crate::record::{Tenant, batch, column};
use crate::storage::{self, Store};

/// A store whose segments stay as they are, and an engine.
async fn opened(dir: &Path) -> (Arc<Store>, Arc<Engine>) {
    opened_with(dir, |_| {}).await
}

/// As [`opened`], with other limits.
pub(super) async fn opened_with(dir: &Path, change: impl FnOnce(&mut Options)) -> (Arc<Store>, Arc<Engine>) {
    let mut options = storage::Options::new(dir);
    options.merge_limits.inputs_max = 1;
    options.rules = Arc::new(storage::retention::Rules::new([("", None)]).unwrap());
    let store = Store::open(options, Clock::manual(0)).await.unwrap();
    let mut limits = Options {
        timeout_max: Duration::from_secs(60),
        memory_bytes_max: 1 << 28,
        ceiling: Ceiling::none(),
        rows_max: 100_000,
        scan_bytes_max: 0,
        concurrency_max: 2,
        threads: 2,
    };
    change(&mut limits);
    let engine = Engine::new(store.clone(), limits).unwrap();
    (store, engine)
}

pub(super) async fn closed((store, engine): (Arc<Store>, Arc<Engine>)) {
    engine.close(Duration::from_secs(10)).await;
    drop(engine);
    store.close().await.unwrap();
}

/// Records of their own segment, of these times and fields.
async fn add_segment(store: &Store, times_ns: &[i64], fields: &[(&str, ArrayRef)]) {
    store.append(&Tenant::default_tenant(), batch::tests::records(times_ns, fields)).await.unwrap();
    store.flush().await.unwrap();
}

async fn ask(engine: &Arc<Engine>, sql: &str, range: Option<TimeRange>) -> Result<(String, Stats), Error> {
    let request = Request { tenant: Tenant::default_tenant(), sql: sql.to_owned(), range, limit: None, timeout: None };
    let mut rows = engine.prepare(request).await?.run();
    let mut lines = Vec::new();
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        let options = FormatOptions::default().with_null("null");
        let cells: Vec<_> =
            batch.columns().iter().map(|array| ArrayFormatter::try_new(array.as_ref(), &options).unwrap()).collect();
        let line = |row| cells.iter().map(|cell| cell.value(row).to_string()).collect::<Vec<_>>().join(" ");
        lines.extend((0..batch.num_rows()).map(line));
    }
    Ok((lines.join("; "), rows.stats()))
}

/// The answer as text: cells apart by spaces, rows by semicolons.
pub(super) async fn answer(engine: &Arc<Engine>, sql: &str) -> String {
    ask(engine, sql, None).await.unwrap_or_else(|error| panic!("{sql}: {error}")).0
}

/// Left from issue 3: a double for the column of both segments rounded the integers of one.
#[tokio::test]
async fn large_integers_beside_doubles_are_shown_and_compared_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let (store, engine) = opened(dir.path()).await;
    let large = (1_i64 << 53) + 1;
    add_segment(&store, &[1, 2], &[("n", Arc::new(Int64Array::from(vec![large, large + 1])))]).await;
    add_segment(&store, &[3, 4], &[("n", Arc::new(Float64Array::from(vec![1.5, 1e300])))]).await;
    for (sql, expected) in [
        ("SELECT n FROM logs ORDER BY timestamp", "9007199254740993; 9007199254740994; 1.5; 1e+300"),
        ("SELECT n FROM logs WHERE n = 9007199254740993", "9007199254740993"),
        ("SELECT n FROM logs WHERE n <> 9007199254740993 ORDER BY timestamp", "9007199254740994; 1.5; 1e+300"),
        ("SELECT n FROM logs WHERE n > 9007199254740993 ORDER BY timestamp", "9007199254740994; 1e+300"),
        ("SELECT n FROM logs WHERE 9007199254740993 >= n ORDER BY timestamp", "9007199254740993; 1.5"),
        ("SELECT n FROM logs WHERE n < 2", "1.5"),
    ] {
        assert_eq!(answer(&engine, sql).await, expected, "{sql}");
    }
    closed((store, engine)).await;
}

#[tokio::test]
async fn a_query_reads_no_more_bytes_than_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let (store, engine) = opened_with(dir.path(), |limits| limits.scan_bytes_max = 20_000).await;
    let times: Vec<i64> = (0..20_000).map(|n| n * 1_000_000_007).collect();
    let texts: StringArray =
        times.iter().map(|time| Some(format!("{:x}", time.wrapping_mul(0x9e37_79b9_7f4a)))).collect();
    add_segment(&store, &times, &[(column::MESSAGE, Arc::new(texts))]).await;
    let error = ask(&engine, "SELECT max(message) FROM logs", None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Limit);
    assert!(error.to_string().contains("20000 bytes") && error.to_string().contains("query.scan_bytes_max"), "{error}");
    let narrow = "SELECT count(message) FROM logs WHERE timestamp < TIMESTAMP '1970-01-01T00:00:10Z'";
    let (found, stats) = ask(&engine, narrow, None).await.unwrap();
    assert!(found == "10" && stats.bytes_scanned > 0, "{found}, {} bytes", stats.bytes_scanned);
    closed((store, engine)).await;
}

/// A line is its message where a segment has no shapes; else no index can tell.
#[tokio::test]
async fn lines_that_are_messages_are_found_by_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let (store, engine) = opened(dir.path()).await;
    let times: Vec<i64> = (0..9_000).collect();
    let text = |n: &i64| if *n == 8_500 { "card declined".to_owned() } else { format!("all is well with {n}") };
    let plain: StringArray = times.iter().map(|n| Some(text(n))).collect();
    add_segment(&store, &times, &[(column::MESSAGE, Arc::new(plain))]).await;
    let (found, stats) = ask(&engine, "SELECT _line FROM logs WHERE _line LIKE '%d declin%'", None).await.unwrap();
    assert_eq!(found, "card declined");
    assert!(stats.rows_scanned <= 2_048, "{} records were looked at", stats.rows_scanned);

    let shapes: StringArray = vec![Some("card ⟨v outcome⟩")].into();
    let shapes = arrow::compute::cast(&shapes, &batch::shape_type()).unwrap();
    let outcome: ArrayRef = Arc::new(StringArray::from(vec!["declined"]));
    add_segment(&store, &[1], &[(column::SHAPE, shapes), ("outcome", outcome)]).await;
    let (found, _) = ask(&engine, "SELECT count(*) FROM logs WHERE contains(_line, 'd declin')", None).await.unwrap();
    assert_eq!(found, "2", "put together from a shape and a value, no text has it");
    closed((store, engine)).await;
}

/// Numbers from a seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

#[tokio::test]
async fn extremes_are_those_of_the_records() {
    let dir = tempfile::tempdir().unwrap();
    let (store, engine) = opened(dir.path()).await;
    let mut numbers = Numbers(7);
    let mut add = |rows: u64| {
        let times: Vec<i64> = (0..rows).map(|_| 1_000_000 * numbers.below(86_400_000) as i64).collect();
        let whole: Int64Array = (0..rows).map(|_| numbers.below(2_000) as i64 - 1_000).map(Some).collect();
        let broken: Float64Array = (0..rows).map(|_| Some(numbers.below(9_000) as f64 / 7.0 - 300.0)).collect();
        (times, whole, broken)
    };
    for rows in [3_000, 1, 700, 40] {
        let (times, whole, broken) = add(rows);
        let fields: [(&str, ArrayRef); 2] = [("whole", Arc::new(whole)), ("broken", Arc::new(broken))];
        add_segment(&store, &times, &fields).await;
        add_segment(&store, &times[..1], &[("few", Arc::new(Int64Array::from(vec![rows as i64])))]).await;
    }
    let questions =
        ["min(whole), max(whole)", "max(timestamp)", "min(timestamp), max(broken), min(broken), max(_seq)", "max(few)"];
    let hour = 3_600_000_000_000;
    let ranges =
        [None, Some(TimeRange { from_ns: 5 * hour + 1, to_ns: 20 * hour }), Some(TimeRange { from_ns: 0, to_ns: 1 })];
    for question in questions {
        for range in ranges {
            let (told, stats) = ask(&engine, &format!("SELECT {question} FROM logs"), range).await.unwrap();
            // A condition on another column has the records looked at.
            let read = format!("SELECT {question} FROM logs WHERE message IS NULL");
            assert_eq!(told, ask(&engine, &read, range).await.unwrap().0, "{question} {range:?}");
            assert!(range.is_some() || stats.bytes_scanned == 0, "{question}: {} bytes", stats.bytes_scanned);
        }
    }
    // The buffer has no footer, and a zero has two signs.
    let zeros: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0]));
    add_segment(&store, &[5, 6], &[("zero", zeros)]).await;
    assert_eq!(answer(&engine, "SELECT min(zero), max(zero) FROM logs").await, {
        answer(&engine, "SELECT min(zero), max(zero) FROM logs WHERE message IS NULL").await
    });
    let late = batch::tests::records(&[9], &[("whole", Arc::new(Int64Array::from(vec![5_000])))]);
    store.append(&Tenant::default_tenant(), late).await.unwrap();
    assert_eq!(answer(&engine, "SELECT max(whole), min(whole) > -1001 FROM logs").await, "5000 true");
    closed((store, engine)).await;
}

#[tokio::test]
async fn levels_and_services_are_told_by_counts() {
    let dir = tempfile::tempdir().unwrap();
    let (store, engine) = opened(dir.path()).await;
    let text = |values: [Option<&str>; 3]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
    let levels = text([Some("info"), Some("error"), None]);
    let services = text([Some("web"), None, Some("web")]);
    add_segment(&store, &[1, 2, 3], &[(column::LEVEL, levels), (column::SERVICE, services)]).await;
    for (sql, expected) in [
        ("SELECT count(*) FROM logs", "3"),
        ("SELECT DISTINCT level FROM logs ORDER BY level", "error; info; null"),
        ("SELECT count(DISTINCT service) FROM logs", "1"),
        ("SELECT DISTINCT service FROM logs WHERE level = 'info'", "web"),
    ] {
        let (found, stats) = ask(&engine, sql, None).await.unwrap();
        assert_eq!((found.as_str(), stats.bytes_scanned), (expected, 0), "{sql}");
    }
    closed((store, engine)).await;
}

/// A sub-query that no optimizer merges into the scan keeps DataFusion's own partial aggregate: both give the same.
#[tokio::test]
async fn groups_are_the_same_whether_keys_come_in_runs_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let stores = [
        opened(&dir.path().join("much")).await,
        // So little that groups are given early.
        opened_with(&dir.path().join("little"), |limits| limits.memory_bytes_max = 8 << 20).await,
    ];
    for (store, engine) in stores {
        for segment in 0..2 {
            let rows = segment * 20_000..(segment + 1) * 20_000_i64;
            let times: Vec<i64> = rows.clone().map(|n| n * 50_000_000).collect();
            let runs: StringArray = rows.clone().map(|n| (n % 3 > 0).then(|| format!("run-{}", n % 3))).collect();
            let mixed: StringArray = rows.clone().map(|n| Some(format!("user-{}", n * 7_919 % 5_003))).collect();
            let numbers: Float64Array = rows.map(|n| (n % 11 > 0).then_some((n % 1_000) as f64)).collect();
            let fields: [(&str, ArrayRef); 3] =
                [(column::SERVICE, Arc::new(runs)), ("user_name", Arc::new(mixed)), ("n", Arc::new(numbers))];
            add_segment(&store, &times, &fields).await;
        }
        let minutes = "date_bin(INTERVAL '1 minute', timestamp)";
        for (keys, places) in [
            ("service".to_owned(), "1"),
            (format!("{minutes}, service"), "1, 2"),
            ("user_name".to_owned(), "1"),
            ("user_name, service".to_owned(), "1, 2"),
        ] {
            let of = |from: &str| {
                format!(
                    "SELECT {keys}, count(*), sum(n), min(n), max(n), count(*) FILTER (WHERE n > 500) FROM {from} \
                     GROUP BY {places}"
                )
            };
            let plan = answer(&engine, &format!("EXPLAIN {}", of("logs"))).await;
            assert!(plan.contains("GroupRuns"), "{plan}");
            let apart = of("(SELECT * FROM logs UNION ALL SELECT * FROM logs WHERE service = 'none')");
            let plan = answer(&engine, &format!("EXPLAIN {apart}")).await;
            assert!(!plan.contains("GroupRuns"), "{plan}");
            let [found, expected] = [answer(&engine, &of("logs")).await, answer(&engine, &apart).await];
            let sorted = |rows: &str| rows.split("; ").map(str::to_owned).collect::<BTreeSet<String>>();
            assert_eq!(sorted(&found), sorted(&expected), "{keys}");
        }
        closed((store, engine)).await;
    }
}
