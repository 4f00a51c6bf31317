//! `quiver segments`: the live segments as the catalog describes them.

use std::fmt::Write;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Error, SegmentsArguments, size_text};
use crate::record::Tenant;
use crate::storage::Segment;
use crate::storage::inspect::CatalogCopy;

/// How the list looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns for people, with a line of sums.
    Table,
    /// One JSON object per line.
    Json,
}

const HEADINGS: [&str; 8] = ["TENANT", "CLASS", "FROM", "TO", "RECORDS", "SIZE", "LEVELS", "PATH"];

/// Lists the live segments, by tenant and time.
pub async fn segments(arguments: &SegmentsArguments) -> Result<String, Error> {
    let tenant = match &arguments.tenant {
        Some(name) => Some(Tenant::parse(name).ok_or_else(|| Error::Flag(format!("'{name}' can't be a tenant")))?),
        None => None,
    };
    let mut segments = CatalogCopy::of(&arguments.place.data_dir).await?.segments;
    segments.retain(|segment| tenant.as_ref().is_none_or(|tenant| *tenant == segment.tenant));
    segments.sort_by(|a, b| (&a.tenant, a.min_ts, a.id).cmp(&(&b.tenant, b.min_ts, b.id)));
    Ok(match arguments.format {
        Format::Table => table(&segments),
        Format::Json => segments.iter().map(|segment| format!("{}\n", json_of(segment))).collect(),
    })
}

fn time(ns: i64) -> String {
    Timestamp::from_nanosecond(i128::from(ns)).map_or_else(|_| ns.to_string(), |time| time.to_string())
}

fn json_of(segment: &Segment) -> Value {
    json!({
        "id": segment.id,
        "tenant": segment.tenant.as_str(),
        "class": segment.class.as_str(),
        "day": segment.day,
        "from": time(segment.min_ts),
        "to": time(segment.max_ts),
        "min_seq": segment.min_seq,
        "max_seq": segment.max_seq,
        "records": segment.records,
        "bytes": segment.bytes,
        "levels": segment.detail.levels,
        "services": segment.detail.services,
        "path": segment.path,
    })
}

fn table(segments: &[Segment]) -> String {
    let rows: Vec<[String; 8]> = segments.iter().map(row).collect();
    let widths: Vec<usize> = (0..HEADINGS.len())
        .map(|at| rows.iter().map(|row| row[at].len()).chain([HEADINGS[at].len()]).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in std::iter::once(HEADINGS.map(str::to_owned)).chain(rows) {
        let cells = row.iter().zip(&widths).enumerate().map(|(at, (cell, width))| match HEADINGS[at] {
            "RECORDS" | "SIZE" => format!("{cell:>width$}"),
            _ => format!("{cell:<width$}"),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    let (records, bytes): (u64, u64) =
        segments.iter().fold((0, 0), |(records, bytes), one| (records + one.records, bytes + one.bytes));
    // Writing to a string does not fail.
    let _ = writeln!(text, "{} segments, {records} records, {}", segments.len(), size_text(bytes));
    text
}

fn row(segment: &Segment) -> [String; 8] {
    let levels: Vec<&str> = segment.detail.levels.iter().map(|level| level.as_deref().unwrap_or("-")).collect();
    [
        segment.tenant.to_string(),
        segment.class.as_str().to_owned(),
        time(segment.min_ts),
        time(segment.max_ts),
        segment.records.to_string(),
        size_text(segment.bytes),
        levels.join(","),
        segment.path.clone(),
    ]
}
