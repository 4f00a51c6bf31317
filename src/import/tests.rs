//! Configurations of Promtail and what becomes of them. Their origin is grafana/loki, clients/pkg/logentry/stages
//! (Apache-2.0), where the file is named `…_test.go`.

use super::{imported, promtail};

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
                "# NO EQUAL: template: '{{ ToLower .Value }}' is more than the name of a field",
                "# source: app",
                "# template: '{{ ToLower .Value }}'",
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
