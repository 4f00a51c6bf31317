//! What becomes of the lines that well-known programs write, without any configuration.

use super::{NOON, NOW, has_shape, parsed, row, value};
use crate::decode::{Options, jsonline, loki};
use crate::pipeline::Pipelines;
use crate::record::shape::render_lines;
use crate::record::{Tenant, column};

/// Each line, and the row it becomes.
#[track_caller]
fn check(cases: &[(&str, &str)]) {
    for (line, wanted) in cases {
        let wanted = if wanted.starts_with("timestamp=") {
            (*wanted).to_string()
        } else {
            format!("timestamp=2026-06-01T00:00:00Z | {wanted}")
        };
        assert_eq!(parsed(line), wanted, "{line}");
        assert!(has_shape(line), "kept twice: {line}");
    }
}

#[test]
fn json_loggers() {
    check(&[
        // pino
        (
            r#"{"level":50,"time":1767268800000,"pid":7,"hostname":"web-1","msg":"it failed","err":{"type":"Error","stack":"Error: x\n    at y"}}"#,
            "timestamp=2026-01-01T12:00:00Z | level=error | message=it failed | level_original=50 | pid=7 | hostname=web-1 | err.type=Error | err.stack=Error: x\n    at y",
        ),
        // bunyan
        (
            r#"{"name":"myapp","hostname":"h1","pid":34572,"level":30,"msg":"hi","time":"2026-01-01T12:00:00.100Z","v":0}"#,
            "timestamp=2026-01-01T12:00:00.1Z | level=info | service=myapp | message=hi | hostname=h1 | pid=34572 | level_original=30 | v=0",
        ),
        // winston
        (
            r#"{"level":"warn","message":"slow","service":"user-service","timestamp":"2026-01-01T12:00:00.000Z"}"#,
            "timestamp=2026-01-01T12:00:00Z | level=warn | service=user-service | message=slow",
        ),
        // Elastic Common Schema
        (
            r#"{"@timestamp":"2026-01-01T12:00:00.123Z","log.level":"ERROR","message":"m","ecs.version":"1.2.0","service.name":"shop","log":{"logger":"a.B"},"trace":{"id":"4bf92f35"},"span.id":"00f0"}"#,
            "timestamp=2026-01-01T12:00:00.123Z | level=error | service=shop | message=m | trace_id=4bf92f35 | span_id=00f0 | log.level=ERROR | ecs.version=1.2.0 | log.logger=a.B",
        ),
        // OpenTelemetry: a log record of the protocol's JSON, and what the SDKs' console exporters write
        (
            r#"{"timeUnixNano":"1767268800000000000","severityNumber":13,"severityText":"WARN","body":{"stringValue":"b"},"traceId":"5b8aa5a2","spanId":"5fb3"}"#,
            "timestamp=2026-01-01T12:00:00Z | level=warn | message=b | trace_id=5b8aa5a2 | span_id=5fb3 | severityNumber=13 | severityText=WARN",
        ),
        (
            r#"{"body":"hi","severity_text":"INFO","timestamp":"2026-01-01T12:00:00.000001Z","trace_id":"0x0000","resource":{"attributes":{"service.name":"api"}}}"#,
            "timestamp=2026-01-01T12:00:00.000001Z | level=info | service=api | message=hi | trace_id=0x0000 | severity_text=INFO",
        ),
        // Go's slog, zap, zerolog
        (
            r#"{"time":"2026-01-01T12:00:00.5Z","level":"INFO","msg":"hello","count":3}"#,
            "timestamp=2026-01-01T12:00:00.5Z | level=info | message=hello | level_original=INFO | count=3",
        ),
        (
            r#"{"level":"error","ts":1767268800.25,"caller":"a/main.go:7","msg":"m","stacktrace":"main.main\n\t/a"}"#,
            "timestamp=2026-01-01T12:00:00.25Z | level=error | message=m | caller=a/main.go:7 | stacktrace=main.main\n\t/a",
        ),
        (
            r#"{"level":"debug","time":1767268800,"message":"hello world"}"#,
            "timestamp=2026-01-01T12:00:00Z | level=debug | message=hello world",
        ),
        // Serilog's compact format
        (
            r#"{"@t":"2026-01-01T12:00:00.0000001Z","@mt":"Hello, {User}","User":"ann"}"#,
            "timestamp=2026-01-01T12:00:00.0000001Z | level=info | message=Hello, {User} | User=ann",
        ),
        (
            r#"{"@t":"2026-01-01T12:00:00Z","@m":"Hello, ann","@mt":"Hello, {User}","@l":"Warning","@x":"System.Exception: x"}"#,
            "timestamp=2026-01-01T12:00:00Z | level=warn | message=Hello, ann | @mt=Hello, {User} | @l=Warning | @x=System.Exception: x",
        ),
    ]);
}

#[test]
fn pairs() {
    check(&[
        (
            r#"time=2026-01-01T12:00:00.123Z level=WARN msg="hello world" count=3"#,
            "timestamp=2026-01-01T12:00:00.123Z | level=warn | message=hello world | level_original=WARN | count=3",
        ),
        (
            "timestamp='2026-01-01T12:00:00Z' level='info' event='done' path='/api/v1' status_code=200",
            "timestamp=2026-01-01T12:00:00Z | level=info | message=done | path=/api/v1 | status_code=200",
        ),
        (
            "time=\"2026-01-01T12:00:00Z\" level=fatal msg=\"can't start\" error=\"exit status 1\"",
            "timestamp=2026-01-01T12:00:00Z | level=fatal | message=can't start | error=exit status 1",
        ),
    ]);
}

#[test]
fn container_runtimes() {
    check(&[
        (
            r#"2026-01-01T12:00:00.000000001Z stdout F {"level":"info","msg":"a","ts":"2026-01-01T11:00:00Z"}"#,
            "timestamp=2026-01-01T12:00:00.000000001Z | level=info | message=a | stream=stdout | ts=2026-01-01T11:00:00Z",
        ),
        (
            "2026-01-01T12:00:00.5Z stderr F [warn] slow disk",
            "timestamp=2026-01-01T12:00:00.5Z | level=warn | message=slow disk | stream=stderr",
        ),
        ("2026-01-01T12:00:00.5Z stdout F ", "timestamp=2026-01-01T12:00:00.5Z | message= | stream=stdout"),
        (
            "2026-01-01T12:00:00.5Z stdout F level=info msg=hi n=1",
            "timestamp=2026-01-01T12:00:00.5Z | level=info | message=hi | stream=stdout | n=1",
        ),
        (
            "2026-01-01T12:00:00.5Z stdout F 2026-01-01 11:59:59,123 ERROR [main] App - it failed",
            "timestamp=2026-01-01T12:00:00.5Z | level=error | message=it failed | stream=stdout | time=2026-01-01 11:59:59,123 | level_original=ERROR | thread=main | logger=App",
        ),
        (
            r#"{"log":"10.0.0.1 - - [01/Jan/2026:12:00:00 +0000] \"GET / HTTP/1.1\" 200 5\n","stream":"stdout","time":"2026-01-01T12:00:00.1Z"}"#,
            "timestamp=2026-01-01T12:00:00.1Z | message=GET / HTTP/1.1 | remote_addr=10.0.0.1 | time=01/Jan/2026:12:00:00 +0000 | method=GET | path=/ | protocol=HTTP/1.1 | status=200 | bytes=5 | stream=stdout",
        ),
        (
            r#"{"log":"plain <text>\n","stream":"stderr","attrs":{"tag":"web"},"time":"2026-01-01T12:00:00Z"}"#,
            "timestamp=2026-01-01T12:00:00Z | message=plain <text> | stream=stderr | attrs.tag=web",
        ),
        (
            r#"{"log":"WARN \u003cb\u003e\n","stream":"stderr","time":"2026-01-01T12:00:00Z"}"#,
            "timestamp=2026-01-01T12:00:00Z | level=warn | message=<b> | level_original=WARN | stream=stderr",
        ),
    ]);
}

#[test]
fn access_logs() {
    check(&[
        (
            r#"127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /apache_pb.gif HTTP/1.0" 200 2326"#,
            "timestamp=2000-10-10T20:55:36Z | message=GET /apache_pb.gif HTTP/1.0 | remote_addr=127.0.0.1 | remote_user=frank | method=GET | path=/apache_pb.gif | protocol=HTTP/1.0 | status=200 | bytes=2326",
        ),
        (
            r#"203.0.113.7 - - [01/Jan/2026:13:00:00 +0100] "POST /a?b=c HTTP/1.1" 502 150 "https://x.example/" "Mozilla/5.0 (X11)" "-""#,
            "timestamp=2026-01-01T12:00:00Z | message=POST /a?b=c HTTP/1.1 | remote_addr=203.0.113.7 | method=POST | path=/a?b=c | protocol=HTTP/1.1 | status=502 | bytes=150 | referer=https://x.example/ | user_agent=Mozilla/5.0 (X11)",
        ),
        (
            r#"::1 - - [01/Jan/2026:12:00:00 +0000] "GET / HTTP/2.0" 304 - "-" "curl/8" 0.005 upstream"#,
            "timestamp=2026-01-01T12:00:00Z | message=GET / HTTP/2.0 | remote_addr=::1 | method=GET | path=/ | protocol=HTTP/2.0 | status=304 | user_agent=curl/8 | extra=0.005 upstream",
        ),
        (
            r#"10.0.0.9 - - [01/Jan/2026:12:00:00 +0000] "\x16\x03\x01" 400 150 "-" "-""#,
            r"timestamp=2026-01-01T12:00:00Z | message=\x16\x03\x01 | remote_addr=10.0.0.9 | status=400 | bytes=150",
        ),
    ]);
}

#[test]
fn errors_of_web_servers() {
    check(&[
        (
            r#"2026/01/01 12:00:00 [error] 7#8: *15 open() "/srv/x" failed (2: No such file), client: 10.0.0.1, server: example.com, request: "GET /x HTTP/1.1", host: "example.com""#,
            "timestamp=2026-01-01T12:00:00Z | level=error | message=open() \"/srv/x\" failed (2: No such file) | pid=7 | tid=8 | connection=15 | remote_addr=10.0.0.1 | server=example.com | request=GET /x HTTP/1.1 | host=example.com",
        ),
        (
            "2026/01/01 12:00:00 [notice] 1#1: start worker processes",
            "timestamp=2026-01-01T12:00:00Z | level=info | message=start worker processes | level_original=notice | pid=1 | tid=1",
        ),
        (
            "[Thu Jan 01 12:00:00.902022 2026] [core:error] [pid 35708:tid 4328636416] [client 72.15.99.187:80] File does not exist",
            "timestamp=2026-01-01T12:00:00.902022Z | level=error | message=File does not exist | time=Thu Jan 01 12:00:00.902022 2026 | module=core | pid=35708 | tid=4328636416 | remote_addr=72.15.99.187:80",
        ),
    ]);
}

#[test]
fn system_logs() {
    check(&[
        (
            r#"<34>1 2026-01-01T12:00:00.003Z host.example su 123 ID47 [ex@32473 k="v" l="a b"] 'su root' failed"#,
            "timestamp=2026-01-01T12:00:00.003Z | level=fatal | service=su | message='su root' failed | priority=34 | host=host.example | pid=123 | msgid=ID47 | ex@32473.k=v | ex@32473.l=a b",
        ),
        (
            "<165>1 2026-01-01T12:00:00+02:00 h app - - - hello",
            "timestamp=2026-01-01T10:00:00Z | level=info | service=app | message=hello | priority=165 | host=h",
        ),
        (
            "<11>Jan  1 12:00:00 web-1 nginx: it failed",
            "timestamp=2026-01-01T12:00:00Z | level=error | service=nginx | message=it failed | priority=11 | time=Jan  1 12:00:00 | host=web-1",
        ),
        (
            "Jan  1 12:00:00 web-1 sshd[4242]: Failed password for root",
            "timestamp=2026-01-01T12:00:00Z | service=sshd | message=Failed password for root | time=Jan  1 12:00:00 | host=web-1 | pid=4242",
        ),
        (
            "2026-01-01T12:00:00.123456+00:00 web-1 systemd[1]: Started x.service",
            "timestamp=2026-01-01T12:00:00.123456Z | service=systemd | message=Started x.service | host=web-1 | pid=1",
        ),
        (
            "I0101 12:00:00.678901       1 reflector.go:12] watch ended",
            "timestamp=2026-01-01T12:00:00.678901Z | level=info | message=watch ended | level_original=I | time=0101 12:00:00.678901 | pid=1 | caller=reflector.go:12",
        ),
        (
            "E0101 12:00:00.000001   77 a/b.go:9] \"Failed\" err=\"x\"",
            "timestamp=2026-01-01T12:00:00.000001Z | level=error | message=\"Failed\" err=\"x\" | level_original=E | time=0101 12:00:00.000001 | pid=77 | caller=a/b.go:9",
        ),
    ]);
}

#[test]
fn text_loggers() {
    let noon = "timestamp=2026-01-01T12:00:00Z";
    let cases = [
        // log4j, logback, Spring Boot
        (
            "2026-01-01 12:00:00,123 ERROR [main] App - it failed",
            "timestamp=2026-01-01T12:00:00.123Z | level=error | message=it failed | level_original=ERROR | thread=main | logger=App".to_string(),
        ),
        (
            "2026-01-01 12:00:00.000 [http-nio-8080-exec-1] INFO  c.e.shop.Cart - added 5",
            format!("{noon} | level=info | message=added 5 | thread=http-nio-8080-exec-1 | level_original=INFO | logger=c.e.shop.Cart"),
        ),
        (
            "2026-01-01T13:00:00.000+01:00  INFO 12345 --- [shop] [           main] c.e.d.DemoApplication        : Started in 2 s",
            format!("{noon} | level=info | service=shop | message=Started in 2 s | level_original=INFO | pid=12345 | thread=main | logger=c.e.d.DemoApplication"),
        ),
        (
            "12:00:00.123 [main] DEBUG com.foo.Bar - hello",
            "timestamp=2026-06-01T00:00:00Z | level=debug | message=hello | time=12:00:00.123 | thread=main | level_original=DEBUG | logger=com.foo.Bar".to_string(),
        ),
        // Python
        (
            "2026-01-01 12:00:00,000 - my.module - WARNING - careful",
            format!("{noon} | level=warn | message=careful | logger=my.module | level_original=WARNING"),
        ),
        (
            "WARNING:root:Watch out!",
            "timestamp=2026-06-01T00:00:00Z | level=warn | message=Watch out! | level_original=WARNING | logger=root".to_string(),
        ),
        (
            "INFO:     127.0.0.1:5000 - \"GET / HTTP/1.1\" 200 OK",
            "timestamp=2026-06-01T00:00:00Z | level=info | message=127.0.0.1:5000 - \"GET / HTTP/1.1\" 200 OK | level_original=INFO".to_string(),
        ),
        (
            "[2026-01-01 12:00:00 +0000] [7] [INFO] Booting worker",
            format!("{noon} | level=info | message=Booting worker | pid=7 | level_original=INFO"),
        ),
        (
            "[2026-01-01 12:00:00,000: ERROR/MainProcess] Task failed",
            format!("{noon} | level=error | message=Task failed | level_original=ERROR | process=MainProcess"),
        ),
        // Go: slog through log, zap's console, zerolog's
        (
            "2026/01/01 12:00:00 INFO hello count=3",
            format!("{noon} | level=info | message=hello count=3 | level_original=INFO"),
        ),
        (
            "2026-01-01T12:00:00.000Z\tINFO\tserver\thttp/a.go:12\tready now\t{\"port\": 80}",
            format!("{noon} | level=info | message=ready now | level_original=INFO | logger=server | caller=http/a.go:12 | port=80"),
        ),
        ("2026-01-01T12:00:00Z INF starting n=1", format!("{noon} | level=info | message=starting n=1 | level_original=INF")),
        // Rust: tracing, env_logger
        (
            "2026-01-01T12:00:00.000000Z  WARN shop::wal: slow fsync ms=31",
            format!("{noon} | level=warn | message=slow fsync ms=31 | level_original=WARN | logger=shop::wal"),
        ),
        (
            "[2026-01-01T12:00:00Z DEBUG app::net] hi",
            format!("{noon} | level=debug | message=hi | level_original=DEBUG | logger=app::net"),
        ),
        // Serilog, PostgreSQL, MySQL
        (
            "2026-01-01 14:00:00.000 +02:00 [INF] Now listening",
            format!("{noon} | level=info | message=Now listening | level_original=INF"),
        ),
        (
            "2026-01-01 12:00:00.000 UTC [1234] app@shop ERROR:  relation \"x\" does not exist",
            format!("{noon} | level=error | message=relation \"x\" does not exist | pid=1234 | user=app | database=shop | level_original=ERROR"),
        ),
        (
            "2026-01-01 12:00:00.000 UTC [1] LOG:  database system is ready to accept connections",
            format!("{noon} | level=info | message=database system is ready to accept connections | pid=1 | level_original=LOG"),
        ),
        (
            "2026-01-01T12:00:00.000000Z 0 [Warning] [MY-010068] [Server] CA certificate is self signed.",
            format!("{noon} | level=warn | message=[Server] CA certificate is self signed. | pid=0 | level_original=Warning | thread=MY-010068"),
        ),
        // A time, a level, prose
        ("2026-01-01 12:00:00 [payment] card declined", format!("{noon} | message=[payment] card declined")),
        ("2026-01-01 12:00:00 ERROR [payment] declined", format!("{noon} | level=error | message=[payment] declined | level_original=ERROR")),
        ("2026-01-01 12:00:00 ERROR: disk: full", format!("{noon} | level=error | message=disk: full | level_original=ERROR")),
        ("2026-01-01T12:00:00Z server started: ok", format!("{noon} | message=server started: ok")),
        (
            "2026-01-01T12:00:00Z ERROR {\"code\":7,\"msg\":\"x\"}",
            format!("{noon} | level=error | message=x | level_original=ERROR | code=7"),
        ),
    ];
    let cases: Vec<(&str, &str)> = cases.iter().map(|(line, wanted)| (*line, wanted.as_str())).collect();
    check(&cases);
}

#[test]
fn a_stack_trace_stays_with_its_line() {
    let line = "2026-01-01 12:00:00,123 ERROR App - it failed\njava.lang.Error: x\n\tat a.B.c(B.java:1)";
    let entries = [line, line].map(|line| [NOON.to_string(), line.to_string()]);
    let body = serde_json::json!({ "streams": [{ "stream": {}, "values": entries }] }).to_string();
    let decoded = loki::push_json(body.as_bytes(), &Options::default(), NOW).unwrap();
    for index in 0..2 {
        assert_eq!(
            row(&decoded.batch, index),
            "timestamp=2026-01-01T12:00:00Z | level=error | message=it failed\njava.lang.Error: x\n\tat a.B.c(B.java:1) | time=2026-01-01 12:00:00,123 | level_original=ERROR | logger=App"
        );
        assert_eq!(render_lines(&decoded.batch).unwrap().value(index), line);
        assert_eq!(value(&decoded.batch, column::RAW, index), None);
    }
}

/// The rows of lines that came one after the other, and the lines as they are given back.
fn rows(lines: &[&str], options: &Options) -> (Vec<String>, Vec<String>) {
    let decoded = jsonline::text(lines.join("\n").as_bytes(), options, NOW).unwrap();
    let given_back = render_lines(&decoded.batch).unwrap();
    let rows = 0..decoded.batch.num_rows();
    (
        rows.clone().map(|index| row(&decoded.batch, index)).collect(),
        rows.map(|index| given_back.value(index).to_string()).collect(),
    )
}

#[test]
fn cut_lines_are_joined() {
    let lines = [
        "2026-01-01T12:00:00Z stdout P {\"msg\":\"a",
        "2026-01-01T12:00:01Z stderr P other ",
        "2026-01-01T12:00:02Z stdout P b",
        "2026-01-01T12:00:03Z stdout F c\"}",
        "2026-01-01T12:00:04Z stdout F whole",
    ];
    let (rows, given_back) = rows(&lines, &Options::default());
    assert_eq!(
        rows,
        [
            "timestamp=2026-01-01T12:00:00Z | message=abc | stream=stdout",
            "timestamp=2026-01-01T12:00:04Z | message=whole | stream=stdout",
            "timestamp=2026-01-01T12:00:01Z | message=other  | stream=stderr",
        ]
    );
    assert_eq!(given_back, [[lines[0], lines[2], lines[3]].join("\n").as_str(), lines[4], lines[1]]);
}

#[test]
fn parts_of_docker_s_driver_are_joined() {
    let long = "x".repeat(16 << 10);
    let line = |text: &str| format!("{{\"log\":\"{text}\",\"stream\":\"stdout\",\"time\":\"2026-01-01T12:00:00Z\"}}");
    let lines = [line(&long), line("end\\n"), line("next\\n")];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let (rows, given_back) = rows(&lines, &Options::default());
    assert_eq!(rows[0], format!("timestamp=2026-01-01T12:00:00Z | message={long}end | stream=stdout"));
    assert_eq!(rows[1], "timestamp=2026-01-01T12:00:00Z | message=next | stream=stdout");
    assert_eq!(given_back, [lines[..2].join("\n").as_str(), lines[2]]);
}

fn with_pipeline(stages: &str) -> Options {
    #[derive(serde::Deserialize)]
    struct File {
        pipeline: Vec<crate::pipeline::settings::Pipeline>,
    }
    let file: File = toml::from_str(&format!("[[pipeline]]\nstages = [{stages}]")).unwrap();
    Options { pipelines: Some(Pipelines::compile(&file.pipeline).unwrap().into()), ..Options::default() }
}

#[test]
fn lines_through_pipelines() {
    let now = "timestamp=2026-06-01T00:00:00Z";
    for (stages, lines, wanted, back) in [
        // A changed line is stored as changed, and parsed like any other.
        (
            "{ mask = { kinds = ['email'] } }",
            &[r#"{"msg":"hi","to":"a@b.cd"}"#][..],
            &["message=hi | to=***"][..],
            &[r#"{"msg":"hi","to":"***"}"#][..],
        ),
        // What json finds in the line is not kept twice.
        (
            "{ json = {} }, { rename = { fields = { b = 'c' } } }",
            &[r#"{"a":1,"b":2}"#],
            &["c=2 | a=1 | b=2"],
            &[r#"{"a":1,"b":2}"#],
        ),
        (
            "{ regex = { expression = '^(?P<who>\\w+): (?P<text>.*)' } }, { message = { source = 'text' } }, { remove = { fields = ['text'] } }, { level = { source = 'who', values = { ann = 'error' } } }",
            &["ann: went"],
            &["level=error | message=went | who=ann"],
            &["ann: went"],
        ),
        (
            "{ multiline = { first = '^\\S' } }, { drop = { match = 'line = \"x*\"' } }",
            &["a", " b", " c", "x", " y", "d"],
            &["message=a\n b\n c", "message=d"],
            &["a\n b\n c", "d"],
        ),
    ] {
        let (rows, given_back) = rows(lines, &with_pipeline(stages));
        let wanted: Vec<String> = wanted.iter().map(|row| format!("{now} | {row}")).collect();
        assert_eq!(rows, wanted, "{stages}");
        assert_eq!(given_back, back, "{stages}");
    }
}

#[test]
fn pipelines_see_labels_and_choose_tenants() {
    let stages = "{ match = { match = 'app = \"web\" and tenant = \"t1\"', stages = [{ tenant = { value = 't2' } }, { rename = { fields = { app = 'service' } } }] } }, { drop = { match = 'app = \"noise\"' } }";
    let options = Options { tenant: Tenant::parse("t1"), ..with_pipeline(stages) };
    let body = br#"{"streams":[{"stream":{"app":"web","x":"1"},"values":[["1767268800000000000","hi {a}"]]},{"stream":{"app":"noise"},"values":[["1767268800000000000","gone"]]},{"stream":{"app":"other","level":"warn"},"values":[["1767268800000000000","stays",{"trace_id":"ab"}]]}]}"#;
    let decoded = loki::push_json(body, &options, NOW).unwrap();
    assert_eq!((decoded.accepted(), decoded.dropped), (2, 1));
    assert_eq!(
        row(&decoded.batch, 0),
        "timestamp=2026-01-01T12:00:00Z | level=warn | service=other | message=stays | trace_id=ab"
    );
    let (tenant, batch) = &decoded.others[0];
    assert_eq!(tenant.as_str(), "t2");
    assert_eq!(row(batch, 0), "timestamp=2026-01-01T12:00:00Z | service=web | message=hi {a} | x=1");
}

#[test]
fn prose_stays_as_it_is() {
    for line in [
        "hello world",
        "HTTP server started on port 80",
        "Note that 5 files are missing",
        "GET /a 200",
        "May the force be with you",
        "[payment] card declined",
        "<html><body>",
        "1.2.3.4 is not reachable",
        "12:30 is lunch time",
        "2026-13-45 12:00:00 no date",
        "I am not klog",
    ] {
        assert_eq!(parsed(line), format!("timestamp=2026-06-01T00:00:00Z | message={line}"), "{line}");
    }
}
