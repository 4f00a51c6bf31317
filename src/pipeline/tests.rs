//! What pipelines make of entries; what they refuse at start.

use proptest::prelude::*;

use super::settings::Pipeline;
use super::{Entry, Field, Outcome, Pipelines, Value};
use crate::record::time;

/// 2026-01-01T12:00:00Z
const NOON: i64 = 1_767_268_800_000_000_000;

#[derive(serde::Deserialize)]
struct File {
    pipeline: Vec<Pipeline>,
}

fn typed(stages: &str) -> Vec<Pipeline> {
    toml::from_str::<File>(&format!("[[pipeline]]\nname = 'p'\nstages = [{stages}]")).unwrap().pipeline
}

fn entry(line: &str) -> Entry {
    let field = |name: &str, value: &str| Field { name: name.into(), value: Value::Text(value.into()), of_line: false };
    let fields = vec![field("app", "web"), field("env", "prod")];
    Entry { line: line.into(), fields, time_ns: Some(NOON), ..Entry::default() }
}

/// What is left of an entry, and changed: `line | name=value | …`; fields of the line itself in brackets.
fn shown(entry: &Entry) -> String {
    let mut parts = vec![entry.line.clone()];
    for (name, value) in [
        ("level", entry.level.map(|level| level.as_str().to_string())),
        ("message", entry.message.clone()),
        ("tenant", entry.tenant.as_ref().map(ToString::to_string)),
    ] {
        parts.extend(value.map(|value| format!("{name}={value}")));
    }
    if let Some(ns) = entry.time_ns.filter(|ns| *ns != NOON) {
        let mut text = Vec::new();
        time::write(ns, time::RFC_3339, &mut text);
        parts.push(format!("time={}", String::from_utf8(text).unwrap()));
    }
    for field in &entry.fields {
        let pair = format!("{}={}", field.name, field.value.text());
        parts.push(if field.of_line { format!("({pair})") } else { pair });
    }
    parts.join(" | ").replace(" | app=web | env=prod", " | …")
}

#[track_caller]
fn run(stages: &str, line: &str) -> String {
    let pipelines = Pipelines::compile(&typed(stages)).unwrap();
    let mut one = entry(line);
    let mut other = one.clone();
    let outcome = pipelines.run(&mut one, NOON);
    assert_eq!(pipelines.explain(&mut other, NOON).0, outcome);
    assert_eq!(one, other, "explained otherwise than run");
    match outcome {
        Outcome::Kept => shown(&one),
        Outcome::Dropped => "dropped".to_string(),
    }
}

#[test]
fn stages() {
    for (stages, line, wanted) in [
        ("{ json = {} }", r#"{"a":1,"b":{"c":"x"}}"#, r#"{"a":1,"b":{"c":"x"}} | … | (a=1) | (b.c=x)"#),
        ("{ json = { fields = { d = 'b.c' } } }", r#"{"a":1,"b":{"c":"x"}}"#, r#"{"a":1,"b":{"c":"x"}} | … | d=x"#),
        ("{ json = {} }", "no json", "no json | …"),
        ("{ logfmt = { prefix = 'l.' } }", "a=1 b=\"x y\" c", "a=1 b=\"x y\" c | … | l.a=1 | l.b=x y"),
        ("{ kv = { separator = ';', assign = ':' } }", "a:1; b:x y", "a:1; b:x y | … | a=1 | b=x y"),
        ("{ regex = { expression = '^(?P<who>\\w+) (?P<n>\\d+)' } }", "ann 5 x", "ann 5 x | … | who=ann | n=5"),
        (
            "{ grok = { pattern = '%{IP:client.ip} %{WORD:verb} %{MINE:rest}', patterns = { MINE = '.*' } } }",
            "10.0.0.1 GET /x y",
            "10.0.0.1 GET /x y | … | client.ip=10.0.0.1 | verb=GET | rest=/x y",
        ),
        (
            "{ dissect = { pattern = '%{a} [%{?skip}] %{b->} %{c}' } }",
            "1 [x] y   z w",
            "1 [x] y   z w | … | a=1 | b=y | c=z w",
        ),
        (
            "{ regex = { expression = '(?P<t>.*)' } }, { timestamp = { source = 't', formats = ['%d.%m.%Y %H:%M'], zone = 'Europe/Berlin' } }, { remove = { fields = ['t'] } }",
            "02.07.2026 14:30",
            "02.07.2026 14:30 | time=2026-07-02T12:30:00Z | …",
        ),
        (
            "{ timestamp = { source = 'line', formats = ['auto', 'unix_ms'] } }",
            "1767268800001",
            "1767268800001 | time=2026-01-01T12:00:00.001Z | …",
        ),
        ("{ level = { source = 'line', values = { '5*' = 'error' } } }", "503", "503 | level=error | …"),
        ("{ level = { source = 'line' } }", "Warning", "Warning | level=warn | …"),
        (
            "{ regex = { expression = '- (?P<m>.*)' } }, { message = { source = 'm' } }, { remove = { fields = ['m'] } }",
            "x - hi",
            "x - hi | message=hi | …",
        ),
        ("{ labels = { fields = { where = '${app}/${env}', fix = 'x' } } }", "l", "l | … | fix=x | where=web/prod"),
        ("{ rename = { fields = { app = 'service' } } }", "l", "l | env=prod | service=web"),
        ("{ remove = { fields = ['e*'] } }", "l", "l | app=web"),
        ("{ keep = { fields = ['env'] } }", "l", "l | env=prod"),
        ("{ drop = { match = 'line =~ \"health\"' } }", "GET /health", "dropped"),
        ("{ drop = { match = 'line =~ \"health\"' } }", "GET /", "GET / | …"),
        ("{ drop = { longer_than = 3 } }", "four", "dropped"),
        ("{ drop = { older_than = '1h' } }", "young", "young | …"),
        ("{ sample = { rate = 0 } }", "l", "dropped"),
        ("{ sample = { rate = 1 } }", "l", "l | …"),
        ("{ mask = { kinds = ['email'], expressions = ['w.b'] } }", "to a@b.cd", "to *** | app=*** | env=prod"),
        ("{ replace = { expression = '(\\d)\\d+', with = '${1}x' } }", "a 123 45", "a 1x 4x | …"),
        ("{ tenant = { value = 't1' } }", "l", "l | tenant=t1 | …"),
        ("{ tenant = { source = 'app' } }", "l", "l | tenant=web | …"),
        ("{ tenant = { source = 'line' } }", "no tenant!", "no tenant! | …"),
        ("{ decolorize = {} }", "\u{1b}[31mred\u{1b}[0m", "red | …"),
        (
            "{ match = { match = 'app = \"w*\" and env in (\"dev\", \"prod\")', stages = [{ tenant = { value = 'x' } }] } }",
            "l",
            "l | tenant=x | …",
        ),
        ("{ match = { match = 'app != \"web\"', stages = [{ drop = {} }] } }", "l", "l | …"),
        ("{ match = { match = 'nothing = \"\"', stages = [{ drop = {} }] } }", "l", "dropped"),
    ] {
        assert_eq!(run(stages, line), wanted, "{stages}");
    }
}

#[test]
fn what_can_not_be_is_told_with_its_place() {
    for (stages, wanted) in [
        ("{ regex = { expression = '(' } }", "pipeline 'p', stage 1 (regex), 'expression': unclosed group"),
        (
            "{ regex = { expression = 'x' } }",
            "pipeline 'p', stage 1 (regex), 'expression': no group has a name: write (?P<name>…)",
        ),
        (
            "{ drop = {} }, { grok = { pattern = '%{NOPE:x}' } }",
            "pipeline 'p', stage 2 (grok), 'pattern': 'NOPE' is no known pattern; name it in 'patterns'",
        ),
        (
            "{ grok = { pattern = '%{A:x}', patterns = { A = '%{A}' } } }",
            "pipeline 'p', stage 1 (grok), 'pattern': the patterns are nested too deep",
        ),
        (
            "{ dissect = { pattern = '%{a}%{b}' } }",
            "pipeline 'p', stage 1 (dissect), 'pattern': nothing stands between '%{a}' and the next",
        ),
        (
            "{ level = { source = 'x', values = { a = 'loud' } } }",
            "pipeline 'p', stage 1 (level), 'values': 'loud' is no level; levels are trace, debug, info, warn, error, fatal",
        ),
        ("{ sample = { rate = 7 } }", "pipeline 'p', stage 1 (sample), 'rate': 7 is not between 0 and 1"),
        (
            "{ tenant = { value = 'a/b' } }",
            "pipeline 'p', stage 1 (tenant), 'value': 'a/b' can't be a tenant: 1 to 64 of letters, digits, '_', '-' and '.'",
        ),
        (
            "{ match = { match = '', stages = [{ mask = {} }] } }",
            "pipeline 'p', stage 1 (match), stage 1 (mask), 'kinds': names nothing to mask; give kinds or expressions",
        ),
        (
            "{ drop = {} }, { multiline = { first = 'x' } }",
            "pipeline 'p', stage 2 (multiline), 'first': lines are joined before anything else: it must be the first stage of a pipeline",
        ),
        (
            "{ timestamp = { source = 'x', formats = ['RFC3339'] } }",
            "pipeline 'p', stage 1 (timestamp), 'formats': 'RFC3339' is none of auto, unix, unix_ms, unix_us, unix_ns, or signs such as %Y-%m-%d %H:%M:%S",
        ),
        (
            "{ drop = { match = 'app ~ \"x\"' } }",
            "pipeline 'p', stage 1 (drop), 'match': column 5: expected =, !=, =~, !~ or in (…); a condition is such as app = \"web-*\" and line =~ \"timeout\"",
        ),
    ] {
        assert_eq!(Pipelines::compile(&typed(stages)).unwrap_err().to_string(), wanted);
    }
}

#[test]
fn lines_that_go_on() {
    let pipelines = Pipelines::compile(&typed("{ multiline = { first = '^\\d', lines_max = 3 } }")).unwrap();
    let first = entry("1 first");
    assert!(pipelines.is_multiline(&first));
    assert!(pipelines.joins(&first, 1, "\tat x"));
    assert!(!pipelines.joins(&first, 1, "2 second"));
    assert!(!pipelines.joins(&first, 3, "\tat x"));
}

#[test]
fn explanations_name_stage_and_change() {
    let stages =
        "{ regex = { expression = '(?P<a>x)' } }, { match = { match = 'a = \"x\"', stages = [{ drop = {} }] } }";
    let (outcome, told) = Pipelines::compile(&typed(stages)).unwrap().explain(&mut entry("x"), NOON);
    let told: Vec<String> = told.iter().map(|one| format!("{}: {}", one.stage, one.changes.join("; "))).collect();
    assert_eq!(told, ["p: stage 1 (regex): a = x", "p: stage 2 (match), stage 1 (drop): the line is dropped"]);
    assert_eq!(outcome, Outcome::Dropped);
}

proptest! {
    #[test]
    fn never_panics(line in "\\PC{0,60}", other in "[a=\"'{}:, \\\\\\[\\]0-9é.@-]{0,60}") {
        let stages = "{ json = {} }, { logfmt = {} }, { kv = { separator = ';', assign = '=' } }, \
            { dissect = { pattern = '%{x} %{y->},%{z}' } }, { grok = { pattern = '%{COMBINEDAPACHELOG:all}' } }, \
            { timestamp = { source = 'x', formats = ['auto', 'unix', '%H:%M'] } }, { level = { source = 'y' } }, \
            { message = { source = 'z' } }, { rename = { fields = { x = 'line', a = 'b' } } }, \
            { mask = { kinds = ['email', 'card', 'password', 'ipv6', 'iban', 'phone'] } }, { decolorize = {} }, { sample = { rate = 0.5 } }";
        let pipelines = Pipelines::compile(&typed(stages)).unwrap();
        for line in [line, other] {
            let (mut one, mut again) = (entry(&line), entry(&line));
            prop_assert_eq!(pipelines.run(&mut one, NOON), pipelines.explain(&mut again, NOON).0);
            prop_assert_eq!(one, again);
        }
    }

    #[test]
    fn conditions_and_patterns_never_panic(text in "[a-z=!~\"\\\\(), {}%:*\\[\\]>?-]{0,40}") {
        let _ = super::condition::Condition::parse(&text);
        let _ = super::patterns::Dissect::parse(&text).map(|pattern| pattern.read(&text).is_some());
        let _ = super::patterns::grok(&text, &Default::default());
    }
}
