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
    assert!(quiver.terminate().success());

    let quiver = Quiver::start(dir.path(), &[]);
    let sql = "SELECT _seq, CAST(timestamp AS BIGINT) AS ns, level, service, message, n FROM logs";
    let rows = quiver.ask("", "application/x-ndjson", sql);
    assert_eq!(rows.text().lines().count(), 101, "{}", rows.text());
    let written = dir.path().join("rows.ndjson");
    fs::write(&written, &rows.body).expect("it can be written");
    let segments = dir.path().join("segments");
    let shown = |path: &std::path::Path| path.to_str().expect("temporary paths are UTF-8").to_owned();
    run_python("read_segments.py", &[&shown(&segments), &shown(&written)]);
}
