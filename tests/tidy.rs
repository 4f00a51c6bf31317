//! The house rules that a machine can check: who may know whom (shared/design.md's ladder), names, sizes, file docs.
//! It reads source text with nothing but `std`; it is no parser, and tells each breach with file and line.

use std::fs;
use std::path::{Path, PathBuf};

/// Which top-level modules each may use; `main` and what it is made of may use all.
const MAY_USE: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("clock", &["error"]),
    ("memory", &["error"]),
    ("kafka", &["error"]),
    ("record", &["error", "clock"]),
    ("pipeline", &["error", "record"]),
    ("decode", &["error", "clock", "record", "pipeline"]),
    ("wal", &["error", "clock", "record"]),
    ("storage", &["error", "clock", "record", "decode", "wal"]),
    ("backup", &["error", "clock", "record", "wal", "storage"]),
    ("query", &["error", "clock", "memory", "record", "storage"]),
    (
        "server",
        &[
            "error",
            "clock",
            "memory",
            "record",
            "pipeline",
            "decode",
            "storage",
            "query",
            "config",
            "telemetry",
            "kafka",
        ],
    ),
    ("simulation", &["error", "clock", "memory", "record", "decode", "wal", "storage", "query"]),
    ("parse", &["error", "clock", "record", "pipeline", "decode", "server", "config"]),
    ("import", &["error", "record", "pipeline"]),
];

/// Crates that only some top-level modules may name.
const CRATES: &[(&str, &[&str])] = &[
    ("datafusion", &["query"]),
    ("grafana_plugin_sdk", &[]),
    ("opentelemetry_proto", &["decode", "server"]),
    ("axum", &["server"]),
    ("tikv_jemalloc_ctl", &["main"]),
    ("tonic", &["server", "client"]),
    ("reqwest", &["client"]),
    ("tokio_rustls", &["server", "kafka"]),
    ("ring", &["server", "kafka"]),
    ("kafka_protocol", &["kafka"]),
    ("arrow_flight", &["server", "client"]),
];

const BANNED_NAMES: &[&str] = &["util", "common", "helper", "misc", "manager"];
const LINES_MAX: usize = 1_000;

/// A source file without its comments.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// Numbered lines of code; comments are blank.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate();
        lines.map(|(at, line)| (at + 1, if line.trim_start().starts_with("//") { "" } else { line }))
    }

    /// As [`Source::code`], with each `use` statement on one line, numbered as its first.
    fn statements(&self) -> Vec<(usize, String)> {
        let mut found: Vec<(usize, String)> = Vec::new();
        for (number, line) in self.code() {
            match found.last_mut() {
                Some((_, open)) if is_open_use(open) => *open = format!("{open} {}", line.trim()).replace("{ ", "{"),
                _ => found.push((number, line.trim().to_owned())),
            }
        }
        found
    }

    /// The code before the file's own tests.
    fn code_outside_tests(&self) -> impl Iterator<Item = (usize, &str)> {
        let names = |path: &Path| path.file_stem().is_some_and(|stem| stem == "tests");
        let is_test_file = names(&self.path) || self.path.parent().is_some_and(names);
        self.code().take_while(move |(_, line)| !is_test_file && line.trim() != "#[cfg(test)]")
    }

    /// `decode` for src/decode/loki.rs and src/decode.rs; `None` outside src.
    fn module(&self) -> Option<String> {
        let inner = self.path.strip_prefix(root().join("src")).ok()?;
        let first = inner.components().next()?.as_os_str().to_str()?;
        Some(first.trim_end_matches(".rs").to_owned())
    }

    fn breach(&self, line: usize, what: &str) -> String {
        let shown = self.path.strip_prefix(root()).unwrap_or(&self.path);
        format!("{}:{line}: {what}", shown.display())
    }
}

fn is_open_use(line: &str) -> bool {
    line.trim_start_matches("pub ").starts_with("use ") && !line.ends_with(';')
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("can't list '{}': {error}", dir.display()));
    for entry in entries {
        let path = entry.expect("a directory can be listed").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_ours = !["target", "node_modules", "dist", "testdata"].contains(&name) && !name.starts_with('.');
        if path.is_dir() && is_ours {
            files_below(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}

/// The Rust files below some directories of the repository, in order.
fn sources(dirs: &[&str]) -> Vec<Source> {
    let mut paths = Vec::new();
    dirs.iter().for_each(|dir| files_below(&root().join(dir), &mut paths));
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    paths.sort();
    assert!(paths.len() > 5, "too few files below {dirs:?}: tidy looks in the wrong place");
    let read = |path: PathBuf| Source { text: fs::read_to_string(&path).expect("sources are UTF-8"), path };
    paths.into_iter().map(read).collect()
}

fn tidy(breaches: &[String]) {
    assert!(breaches.is_empty(), "{} breaches:\n{}", breaches.len(), breaches.join("\n"));
}

/// The words of a line that stand before `::`, with what follows: `crate::wal::Frame` gives (`crate`, `wal::Frame`).
fn paths_in(line: &str) -> impl Iterator<Item = (&str, &str)> {
    line.match_indices("::").map(move |(at, _)| {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let start = line.as_bytes()[..at].iter().rposition(|byte| !is_name(*byte)).map_or(0, |before| before + 1);
        (&line[start..at], &line[at + 2..])
    })
}

/// The names that paths start with: `tonic` in `use tonic::Status`, not in `use opentelemetry_proto::tonic::logs`.
fn first_names(line: &str) -> impl Iterator<Item = &str> {
    let inner = line.match_indices("::").map(|(at, _)| at + 2).collect::<Vec<_>>();
    let starts = move |name: &str| !inner.contains(&(name.as_ptr().addr() - line.as_ptr().addr()));
    paths_in(line).map(|(name, _)| name).filter(move |name| starts(name))
}

/// The name that a text starts with.
fn first_word(text: &str) -> &str {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap_or("")
}

/// The modules that a line takes from the crate: `use crate::{clock, wal::Wal};` gives both.
fn crate_modules(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (_, rest) in paths_in(line).filter(|(name, _)| *name == "crate" || *name == "quiver") {
        match rest.strip_prefix('{') {
            Some(list) => found.extend(list.trim_end_matches("};").split(", ").map(|item| first_word(item.trim()))),
            None => found.push(first_word(rest)),
        }
    }
    found
}

#[test]
fn imports_keep_the_ladder() {
    let mut breaches = Vec::new();
    for source in sources(&["src"]) {
        let module = source.module().unwrap_or_default();
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == module) else { continue };
        for (number, line) in source.statements() {
            for used in crate_modules(&line) {
                let is_rung = MAY_USE.iter().any(|(name, _)| *name == used) || used == "config" || used == "client";
                if is_rung && used != module && !allowed.contains(&used) {
                    breaches.push(source.breach(number, &format!("'{module}' may not know '{used}'")));
                }
            }
        }
    }
    tidy(&breaches);
}

#[test]
fn every_module_has_its_rung() {
    let known: Vec<&str> =
        MAY_USE.iter().map(|(name, _)| *name).chain(["main", "lib", "config", "telemetry", "client"]).collect();
    let breaches: Vec<String> = sources(&["src"])
        .iter()
        .filter(|source| !source.module().is_some_and(|module| known.contains(&module.as_str())))
        .map(|source| source.breach(1, "this module has no place in tests/tidy.rs and in ARCHITECTURE.md's ladder"))
        .collect();
    tidy(&breaches);
}

#[test]
fn crates_stay_where_they_belong() {
    let mut breaches = Vec::new();
    for source in sources(&["src"]) {
        let module = source.module().unwrap_or_default();
        for (number, line) in source.code() {
            for name in first_names(line) {
                let known = CRATES.iter().find(|(start, _)| name == *start || name.starts_with(&format!("{start}_")));
                if let Some((_, allowed)) = known.filter(|(_, allowed)| !allowed.contains(&module.as_str())) {
                    breaches
                        .push(source.breach(number, &format!("'{name}' belongs to {allowed:?}, not to '{module}'")));
                }
            }
        }
    }
    tidy(&breaches);
}

#[test]
fn grafana_stays_in_the_plugin() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("there is a manifest");
    let store = manifest.split("[dependencies]").nth(1).expect("the store has dependencies");
    assert!(!store.contains("grafana"), "the store may not depend on Grafana's SDK");
    let backend = fs::read_to_string(root().join("backend/Cargo.toml")).expect("the plugin has a manifest");
    assert!(!backend.lines().any(|line| line.starts_with("datafusion")), "DataFusion belongs to the store's query/");
}

#[test]
fn files_say_what_they_are_and_stay_short() {
    let mut breaches = Vec::new();
    for source in sources(&["src", "backend/src", "tests"]) {
        if !source.text.starts_with("//! ") {
            breaches.push(source.breach(1, "the first line has to say what the file is (`//! …`)"));
        }
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            breaches.push(source.breach(lines, &format!("more than {LINES_MAX} lines; split it by concept")));
        }
    }
    tidy(&breaches);
}

#[test]
fn names_say_something() {
    let mut paths = Vec::new();
    for dir in ["src", "backend", "frontend/src", "tests", "provisioning"] {
        files_below(&root().join(dir), &mut paths);
    }
    let is_banned = |path: &&PathBuf| {
        let inner = path.strip_prefix(root()).unwrap_or(path);
        inner.components().filter_map(|part| part.as_os_str().to_str()).any(|part| {
            let name = part.split('.').next().unwrap_or(part).to_lowercase();
            BANNED_NAMES.iter().any(|banned| name == *banned || name == format!("{banned}s"))
        })
    };
    let breaches: Vec<String> =
        paths.iter().filter(is_banned).map(|path| format!("{}: a name that says nothing", path.display())).collect();
    tidy(&breaches);
}

#[test]
fn no_test_is_switched_off() {
    let marker = concat!("#[", "ignore");
    let mut breaches = Vec::new();
    for source in sources(&["src", "backend", "tests"]) {
        let found = source.code().filter(|(_, line)| line.contains(marker));
        breaches.extend(found.map(|(number, _)| source.breach(number, "a test that does not run proves nothing")));
    }
    tidy(&breaches);
}

#[test]
fn unwrap_is_for_tests() {
    let call = concat!(".unwrap", "()");
    let mut breaches = Vec::new();
    for source in sources(&["src", "backend/src"]) {
        let found = source.code_outside_tests().filter(|(_, line)| line.contains(call));
        breaches.extend(found.map(|(number, _)| source.breach(number, "`expect(\"why this holds\")` instead")));
    }
    tidy(&breaches);
}
