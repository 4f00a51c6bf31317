//! The examples of docs/parsing.md are true: each `toml` block is a config, and the `text` block after it says what becomes
//! of lines with the label `app="web"`.

use super::{NOW, row};
use crate::decode::{Options, jsonline};
use crate::pipeline::Pipelines;
use crate::pipeline::settings::{Pipeline, Stage};

const DOCS: &str = include_str!("../../../docs/parsing.md");
const NOW_TEXT: &str = "timestamp=2026-06-01T00:00:00Z | ";

#[derive(serde::Deserialize)]
struct File {
    pipeline: Vec<Pipeline>,
}

/// The blocks of a kind with what follows each.
fn blocks<'a>(text: &'a str, kind: &str) -> Vec<(&'a str, &'a str)> {
    let fence = format!("```{kind}\n");
    let after = text.split(fence.as_str()).skip(1);
    after.filter_map(|after| after.split_once("\n```\n")).collect()
}

fn rows(file: &File, lines: &str) -> Vec<String> {
    let pipelines = Pipelines::compile(&file.pipeline).unwrap();
    let options = Options { pipelines: Some(pipelines.into()), ..Options::default() };
    let labels = [("app".to_string(), "web".to_string())];
    let decoded = jsonline::labelled(lines.as_bytes(), &labels, &options, NOW).unwrap();
    let own = (0..decoded.batch.num_rows()).map(|index| row(&decoded.batch, index));
    let others = decoded.others.iter().flat_map(|(tenant, batch)| {
        (0..batch.num_rows()).map(move |index| format!("({tenant}) {}", row(batch, index)))
    });
    own.chain(others).map(|row| row.replace(NOW_TEXT, "").replace('\n', "\\n")).collect()
}

#[test]
fn examples_are_true() {
    let mut shown = Vec::new();
    for (config, after) in blocks(DOCS, "toml") {
        let file: File = toml::from_str(config).unwrap_or_else(|error| panic!("{config}\n{error}"));
        let (example, _) = blocks(after, "text")[0];
        let of = |sign: &str| -> Vec<&str> { example.lines().filter_map(|line| line.strip_prefix(sign)).collect() };
        assert_eq!(rows(&file, &of("< ").join("\n")), of("> "), "{config}");
        shown.extend(file.pipeline.iter().flat_map(|pipeline| &pipeline.stages).map(Stage::kind));
    }
    for kind in Stage::KINDS {
        assert!(shown.contains(&kind), "stage '{kind}' has no example");
    }
}
