//! Your logs stay yours: other programs read the segment files and find what SQL finds.

use std::fs;

use crate::clients::{fill, run_python};
use crate::quiver::{Quiver, data_dir};

#[test]
fn pyarrow_and_duckdb_read_the_segments() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    fill(&quiver);
    quiver.ingest(&[r#"{"ts":"2026-02-11T00:00:01Z","msg":"another day","other":true}"#]);
    // Times and ids of each kind, a day each: the script knows how each is to lie in its file.
    let ids =
        |n: usize| format!(r#""trace_id":"{:032x}","request":"{n:08x}-0000-4000-8000-00000000000f""#, n * 0x1234_5678);
    for (day, decimals) in [(12, "123"), (13, "123456"), (14, "123456789")] {
        let line = |n: usize| {
            format!(r#"{{"ts":"2026-02-{day}T10:00:{n:02}.{decimals}Z","msg":"with ids","n":{n},{}}}"#, ids(n))
        };
        let lines: Vec<String> = (0..20).map(line).collect();
        quiver.ingest(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    }
    assert!(quiver.terminate().success());

    let quiver = Quiver::start(dir.path(), &[]);
    let sql = "SELECT _seq, CAST(timestamp AS BIGINT) AS ns, level, service, message, n, trace_id, request FROM logs";
    let rows = quiver.ask("", "application/x-ndjson", sql);
    assert_eq!(rows.text().lines().count(), 161, "{}", rows.text());
    let written = dir.path().join("rows.ndjson");
    fs::write(&written, &rows.body).expect("it can be written");
    let segments = dir.path().join("segments");
    let shown = |path: &std::path::Path| path.to_str().expect("temporary paths are UTF-8").to_owned();
    run_python("read_segments.py", &[&shown(&segments), &shown(&written)]);
}
