//! Configurations of Promtail and what becomes of them. Their origin is grafana/loki, clients/pkg/logentry/stages
//! (Apache-2.0), where the file is named `…_test.go`.

use super::{alloy, imported, promtail};

fn toml_of(yaml: &str) -> String {
    let pipelines = promtail::pipelines(&serde_yaml_ng::from_str(yaml).unwrap());
    imported(&pipelines).unwrap().toml
}

/// What stands in `stages = […]`, a line each.
fn stages_of(yaml: &str) -> Vec<String> {
    let toml = toml_of(yaml);
    let lines = toml.lines().filter_map(|line| line.strip_prefix("  "));
    lines.map(|line| line.trim_end_matches(',').to_string()).collect()
}

#[test]
fn stages_of_promtail() {
    for (origin, yaml, wanted) in [
        (
            "labels_test.go",
            "pipeline_stages:\n- json:\n    expressions:\n      level:\n      app_rename: app\n- labels:\n    level:\n    app: app_rename\n",
            &[
                r#"{ json = { fields = { app_rename = "app", level = "level" } } }"#,
                r#"{ labels = { fields = { app = "${app_rename}" } } }"#,
            ][..],
        ),
        (
            "logfmt_test.go",
            "pipeline_stages:\n- logfmt:\n    mapping:\n      extra:\n- logfmt:\n    mapping:\n      user:\n    source: extra\n",
            &[
                r#"{ logfmt = { fields = { extra = "extra" } } }"#,
                r#"{ logfmt = { fields = { user = "user" }, source = "extra" } }"#,
            ],
        ),
        (
            "replace_test.go",
            "pipeline_stages:\n- replace:\n    expression: \"11.11.11.11 - (\\\\S+) .*\"\n    replace: \"dummy\"\n",
            &[
                r#"{ replace = { expression = '(?P<before>11.11.11.11 - )(?:\S+)(?P<after> .*)', with = "${before}dummy${after}" } }"#,
            ],
        ),
        (
            "drop_test.go",
            "pipeline_stages:\n- drop:\n    source:\n      - src\n    expression: \".*test.*\"\n    older_than: 24h\n    longer_than: 8kb\n- drop:\n    expression: \".*app1.*\"\n- drop:\n    longer_than: 10000\n",
            &[
                r#"{ drop = { longer_than = 8192, match = 'src =~ ".*test.*"', older_than = "86400s" } }"#,
                r#"{ drop = { match = 'line =~ ".*app1.*"' } }"#,
                r#"{ drop = { longer_than = 10000 } }"#,
            ],
        ),
        (
            "pipeline_test.go",
            "pipeline_stages:\n- match:\n    selector: \"{match=\\\"true\\\"}\"\n    stages:\n    - docker:\n    - timestamp:\n        source: timestamp\n        format: \"02/Jan/2006:15:04:05 -0700\"\n    - labels:\n        action:\n        status_code: \"status\"\n- match:\n    selector: \"{match=\\\"false\\\"}\"\n    action: drop\n",
            &[
                "# docker: these lines are recognised and unwrapped anyway",
                r#"{ match = { match = 'match = "true"', stages = [{ timestamp = { formats = ["%d/%b/%Y:%H:%M:%S %z"], source = "timestamp" } }, { labels = { fields = { status_code = "${status}" } } }] } }"#,
                r#"{ drop = { match = 'match = "false"' } }"#,
            ],
        ),
        (
            "pack_test.go, limit_test.go",
            "pipeline_stages:\n- pack:\n    labels:\n      - pod\n- limit:\n    rate: 1\n- cri: {}\n- decolorize:\n- sampling:\n    rate: 0.25\n",
            &[
                "# NO EQUAL: pack: labels are columns, and need not be packed into the line",
                "# labels:",
                "# - pod",
                "# NO EQUAL: limit: rates are limited by tenant, in the server's settings",
                "# rate: 1",
                "# cri: these lines are recognised and unwrapped anyway",
                "{ decolorize = {} }",
                "{ sample = { rate = 0.25 } }",
            ],
        ),
        (
            "template_test.go",
            "pipeline_stages:\n- template:\n    source: app\n    template: '{{ .Value }} doki {{.env}}'\n- template:\n    source: app\n    template: '{{ ToLower .Value }}'\n- tenant:\n    source: customer_id\n- labeldrop:\n  - filename\n- labelallow: [app]\n- static_labels:\n    cluster: eu\n- output:\n    source: message\n- structured_metadata:\n    pod:\n",
            &[
                r#"{ labels = { fields = { app = "${app} doki ${env}" } } }"#,
                r#"{ case = { source = "app", to = "lower" } }"#,
                r#"{ tenant = { source = "customer_id" } }"#,
                r#"{ remove = { fields = ["filename"] } }"#,
                r#"{ keep = { fields = ["app"] } }"#,
                r#"{ labels = { fields = { cluster = "eu" } } }"#,
                r#"{ message = { source = "message" } }"#,
                "# structured_metadata pod: extracted values are fields anyway",
            ],
        ),
        (
            "multiline_test.go",
            "pipeline_stages:\n- multiline:\n    firstline: ^START\n    max_wait_time: 3s\n- json:\n    expressions:\n      a: b[0]\n",
            &[
                r#"{ multiline = { first = "^START" } }"#,
                "# NO EQUAL: json: 'b[0]' is more than a name or names joined with dots",
                "# expressions:",
                "#   a: b[0]",
            ],
        ),
    ] {
        assert_eq!(stages_of(yaml), wanted, "{origin}");
    }
}

#[test]
fn functions_of_templates() {
    let no_equal = |template: &str, why: &str| vec![format!("# NO EQUAL: template: '{template}' {why}")];
    for (template, wanted) in [
        (r#"{{ .Value | ToUpper }}"#, vec![r#"{ case = { source = "a", to = "upper" } }"#.to_owned()]),
        (
            r#"{{ TrimSuffix .b "\n" }}"#,
            vec![r#"{ labels = { fields = { a = "${b}" } } }"#.to_owned(), r#"{ replace = { expression = "#.to_owned()],
        ),
        (
            r#"{{ .Value | Replace "a.b" "$1" -1 | TrimPrefix "x" }}"#,
            vec![
                r#"{ replace = { expression = 'a\.b', source = "a", with = "$$1" } }"#.to_owned(),
                r#"{ replace = { expression = "^x", source = "a", with = "" } }"#.to_owned(),
            ],
        ),
        (
            r#"{{ regexReplaceAllLiteral "(ts=)" .Value "timestamp=" }}"#,
            vec![r#"{ replace = { expression = "(ts=)", source = "a", with = "timestamp=" } }"#.to_owned()],
        ),
        (
            r#"{{ Replace .Value "a" "b" 1 }}"#,
            no_equal(r#"{{Replace .Value "a" "b" 1}}"#, "has a function that has no equal"),
        ),
        (r#"{{ Hash .Value "salt" }}"#, no_equal(r#"{{Hash .Value "salt"}}"#, "has a function that has no equal")),
        (r#"{{ if .Value }}x{{ end }}"#, no_equal("{{ if .Value }}", "is more than the name of a field")),
    ] {
        let yaml = format!("pipeline_stages:\n- template:\n    source: a\n    template: '{template}'\n");
        let found = stages_of(&yaml);
        for (found, wanted) in found.iter().zip(&wanted) {
            assert!(found.starts_with(wanted.as_str()), "{template}: {found}\n{wanted}");
        }
        assert!(found.len() >= wanted.len(), "{template}: {found:?}");
    }
}

/// The example of Alloy's documentation for `loki.process`, with a part of its tutorial "Collect and transform logs".
const ALLOY: &str = r#"
// Sources.
local.file_match "local_files" {
    path_targets = [{"__path__" = "/var/log/*.log", "job" = "var"}, {"__path__" = "/x", job = "sys",}]
    sync_period = "5s"
}
loki.source.file "log_scrape" {
    targets    = local.file_match.local_files.targets
    forward_to = [loki.process.filter_logs.receiver]
    tail_from_end = true
}
loki.process "filter_logs" { /* first */
  stage.drop {
      source = ""
      expression  = ".*Connection closed by authenticating user root"
      drop_counter_reason = "noisy"
    }
  stage.json {
      expressions = { output = "log", stream = "stream", "extra" = "" }
  }
  stage.match {
    selector = "{app=\"loki\"} |= `x`"
    stage.labels { values = { level = "", lvl = "severity" } }
    stage.output { source = "msg" }
  }
  stage.label_drop { values = [ "filename", "pid" ] }
  stage.static_labels { values = { cluster = env("CLUSTER") } }
  stage.static_labels { values = { region = "eu" } }
  stage.metrics {
    metric.counter { name = "n" max_idle_duration = "24h" }
  }
  forward_to = [loki.process.second.receiver]
}
loki.process "second" {
  stage.regex { expression = `^(?P<ip>\S+) ` }
  forward_to = [loki.write.default.receiver,]
}
loki.process "api" {
  forward_to = loki.write.default.receiver
  stage.timestamp { source = "ts" format = "RFC3339" fallback_formats = ["Unix"] }
}
loki.source.api "api" {
  http { listen_address = "0.0.0.0" listen_port = 9999 + 1 }
  forward_to = [loki.process.api.receiver]
}
loki.write "default" { endpoint { url = sys.env("URL") + "/loki/api/v1/push" } }
"#;

#[test]
fn a_configuration_of_alloy() {
    let pipelines = alloy::pipelines(ALLOY).unwrap();
    let toml = imported(&pipelines).unwrap().toml;
    for wanted in [
        "name = \"filter_logs\"\nmatch = 'job in (\"sys\", \"var\")'\n",
        "{ drop = { match = 'line =~ \".*Connection closed by authenticating user root\"' } }",
        "{ json = { fields = { extra = \"extra\", output = \"log\", stream = \"stream\" } } }",
        "stages = [{ labels = { fields = { lvl = \"${severity}\" } } }, { message = { source = \"msg\" } }] } }",
        "{ remove = { fields = [\"filename\", \"pid\"] } }",
        "# NO EQUAL: static_labels: 'cluster' is told only when Alloy runs",
        "{ labels = { fields = { region = \"eu\" } } }",
        "# NO EQUAL: metrics",
        "name = \"second\"\nmatch = 'job in (\"sys\", \"var\")'\n",
        "{ regex = { expression = '^(?P<ip>\\S+) ' } }",
        "name = \"api\"\nstages",
        "{ timestamp = { formats = [\"auto\", \"unix\"], source = \"ts\" } }",
    ] {
        assert!(toml.contains(wanted), "{wanted}\n{toml}");
    }
}

#[test]
fn what_is_no_configuration_of_alloy_is_told_with_its_place() {
    for (text, fault) in [
        ("loki.process \"a\" {\n  x = \n}", "line 3, column 1: expected a value"),
        ("a b", "line 1, column 3: expected '=' or '{'"),
        ("a {", "expected an attribute, a block or '}'"),
        ("a { b = \"x }", "expected a text that ends"),
        ("}", "line 1, column 1: expected a block, or the end"),
        (&format!("a = {}", "[".repeat(1_000)), "expected less nesting"),
    ] {
        let told = alloy::pipelines(text).unwrap_err();
        assert!(told.contains(fault), "{text}: {told}");
    }
}

proptest::proptest! {
    #[test]
    fn never_panics(
        start in 0usize..1_500, text in "[\\{\\}\\[\\]\"`=,.(|+/*a-c0 \n\\\\é-]{0,60}", length in 0usize..200
    ) {
        let _ = alloy::pipelines(&text);
        let mut damaged = ALLOY.to_owned();
        if damaged.is_char_boundary(start) && damaged.is_char_boundary((start + length).min(ALLOY.len())) {
            damaged.replace_range(start.min(ALLOY.len())..(start + length).min(ALLOY.len()), &text);
        }
        let _ = alloy::pipelines(&damaged).map(|pipelines| imported(&pipelines).map(|_| ()));
        if let Ok(yaml) = serde_yaml_ng::from_str(&format!("pipeline_stages:\n- template:\n    source: a\n    template: '{text}'\n")) {
            let _ = imported(&promtail::pipelines(&yaml));
        }
    }
}

#[test]
fn a_whole_configuration() {
    let yaml = "scrape_configs:\n- job_name: a\n  static_configs:\n  - targets: [localhost]\n    labels: {job: varlogs}\n  pipeline_stages:\n  - match:\n      selector: '{app=~\"x.*\", env!=\"dev\"} |= \"a.b\" !~ \"c\"'\n      stages: [{output: {source: m}}]\n- job_name: b\n  pipeline_stages: [{cri: {}}]\n- job_name: c\n";
    let toml = toml_of(yaml);
    assert!(toml.contains("[[pipeline]]\nname = \"a\"\nmatch = 'job = \"varlogs\"'\n"), "{toml}");
    let condition = r#"app =~ "^(?:x.*)$" and env != "dev" and line =~ "a\\.b" and line !~ "c""#;
    assert!(toml.contains(&format!("match = '{condition}'")), "{toml}");
    assert!(toml.contains("name = \"b\"") && !toml.contains("name = \"c\""), "{toml}");
}

#[test]
fn nothing_to_import() {
    for yaml in ["a: 1", "[]: x", "text"] {
        assert!(promtail::pipelines(&serde_yaml_ng::from_str(yaml).unwrap()).is_empty(), "{yaml}");
    }
}
