//! What goes in comes out: Loki push and `/api/v1/ingest`, from the buffer and from segments.

use serde_json::{Value, json};

use crate::quiver::{Quiver, data_dir, now_ns};

/// Runs the same checks on a store whose records are in the buffer and, after a restart, in segments.
fn in_both_states(fill: impl FnOnce(&Quiver), check: impl Fn(&Quiver)) {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    fill(&quiver);
    assert_eq!(quiver.metric("quiver_storage_segment_records"), 0.0, "nothing is flushed yet");
    check(&quiver);
    let records = quiver.metric("quiver_storage_buffer_records");
    assert!(quiver.terminate().success());
    let quiver = Quiver::start(dir.path(), &[]);
    assert_eq!(quiver.metric("quiver_storage_buffer_records"), 0.0, "everything was flushed");
    assert_eq!(quiver.metric("quiver_storage_segment_records"), records);
    check(&quiver);
}

fn lines_in_order(quiver: &Quiver) -> Vec<String> {
    let rows = quiver.sql("SELECT _line FROM logs ORDER BY _seq");
    rows.iter().map(|row| row["_line"].as_str().expect("a record has a line").to_owned()).collect()
}

/// Ingests JSON lines; gives the answer.
fn ingest(quiver: &Quiver, lines: &[&[u8]]) -> Value {
    let answer = quiver.post("/api/v1/ingest", "application/x-ndjson", &lines.join(&b'\n'));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[test]
fn loki_push_is_in_the_next_answer() {
    let time_ns = now_ns() - 1_000_000_000;
    let line = r#"{"level":"warn", "msg":"card declined","status":502,"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","duration_ms":12.5}"#;
    in_both_states(
        |quiver| quiver.push_loki(&json!({"app": "payments-api", "env": "prod"}), time_ns, &[line]),
        |quiver| {
            let sql = "SELECT CAST(timestamp AS BIGINT) AS ns, level, service, message, trace_id, env, status, \
                       duration_ms, _line FROM logs WHERE status = 502";
            let expected = json!([{
                "ns": time_ns, "level": "warn", "service": "payments-api", "message": "card declined",
                "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "env": "prod", "status": 502, "duration_ms": 12.5,
                "_line": line,
            }]);
            assert_eq!(Value::Array(quiver.sql(sql)), expected);
        },
    );
}

#[test]
fn every_line_comes_back_byte_for_byte() {
    let lines = [
        r#"{"msg":"plain","n":1}"#,
        r#"{ "msg" : "spaced" , "n" : 1.0 , "m":1e5, "z":-0 }"#,
        r#"{"msg":"A\/ \u00e9 \ud83d\ude00 é 😀","tab":"\t"}"#,
        r#"{"a":1,"a":2,"msg":"twice"}"#,
        r#"{"msg":"big","id":12345678901234567890,"f":0.1000,"g":1E-7}"#,
        r#"{"msg":null,"ok":true,"list":[1, 2,{"x":[]}],"o":{}}"#,
        r#"{"msg":"nested","a":{"b":{"c":1}},"a.b.c":2}"#,
        r#"level=warn msg="quoted \"text\"" status=500 empty= path=/a/b"#,
        "tskv\tlevel=ERROR\ttext=a\\tb\\nc\tstatus=007",
        "plain text  with two spaces and an end ",
        "   leading, [brackets] {braces} %percent \\backslash \u{0}nul",
        "two\nlines\r\nand a tab\t",
        "{not json at all",
        r#"{"timestamp":"2026-02-10T12:00:00.120+03:00","level":"ERROR","message":"zone"}"#,
        r#"2026-02-10 12:00:00,120 INFO com.example.Main - started"#,
        "",
    ];
    in_both_states(
        |quiver| quiver.push_loki(&json!({"app": "a", "level": "info"}), now_ns(), &lines),
        |quiver| assert_eq!(lines_in_order(quiver), lines),
    );
}

#[test]
fn bad_lines_are_told_and_good_lines_kept() {
    let good_first = br#"{"msg":"first","n":1}"#;
    let good_last = br#"{"msg":"last","n":2}"#;
    let lines: &[&[u8]] =
        &[good_first, br#"{"msg":"half","n"#, b"{\"msg\":\"not \xff utf-8\"}", b"[1,2]", b"just text", good_last];
    in_both_states(
        |quiver| {
            let answer = ingest(quiver, lines);
            assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(2), &json!(4)), "{answer}");
            let errors = answer["errors"].as_array().expect("errors are listed");
            let told: Vec<u64> = errors.iter().filter_map(|error| error["line"].as_u64()).collect();
            assert_eq!(told, [2, 3, 4, 5]);
            let reason = |at: usize| errors[at]["reason"].as_str().expect("a reason is given");
            assert!(reason(0).contains("not a JSON object"), "{answer}");
            assert!(reason(1).contains("UTF-8"), "{answer}");
        },
        |quiver| {
            let kept =
                [good_first.as_slice(), good_last.as_slice()].map(|line| String::from_utf8_lossy(line).into_owned());
            assert_eq!(lines_in_order(quiver), kept);
            assert_eq!(quiver.count("SELECT sum(n) FROM logs"), 3);
        },
    );
}

#[test]
fn a_request_of_bad_lines_only_is_refused() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    let answer = quiver.post("/api/v1/ingest", "application/x-ndjson", b"{\"half\":\nnothing\n");
    assert_eq!(answer.status, 400, "{}", answer.text());
    let answer = quiver.post("/loki/api/v1/push", "application/json", b"{\"streams\":[{\"stre");
    assert_eq!(answer.status, 400);
    assert!(!answer.text().starts_with('{'), "Loki's errors are plain text: {}", answer.text());
    assert_eq!(quiver.count("SELECT count(*) FROM logs"), 0);
}

#[test]
fn text_that_is_not_utf8_is_kept_readable() {
    in_both_states(
        |quiver| {
            let answer = quiver.post("/api/v1/ingest", "text/plain", b"good line\nbad \xff byte\nanother\n");
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.json()["accepted"], 3);
        },
        |quiver| assert_eq!(lines_in_order(quiver), ["good line", "bad \u{fffd} byte", "another"]),
    );
}

#[test]
fn a_megabyte_line_is_kept_and_a_longer_one_told() {
    const LINE_BYTES_MAX: usize = 1 << 20;
    let frame = r#"{"msg":"big","pad":""}"#;
    let of = |bytes: usize, name: &str| format!(r#"{{"msg":"{name}","pad":"{}"}}"#, "x".repeat(bytes - frame.len()));
    let (fits, too_long) = (of(LINE_BYTES_MAX, "big"), of(LINE_BYTES_MAX + 1, "big"));
    let text = format!("{}é", "y".repeat(LINE_BYTES_MAX - 2));
    in_both_states(
        |quiver| {
            let answer = ingest(quiver, &[br#"{"msg":"small"}"#, fits.as_bytes(), too_long.as_bytes()]);
            assert_eq!((&answer["accepted"], &answer["errors"][0]["line"]), (&json!(2), &json!(3)), "{answer}");
            quiver.push_loki(&json!({"app": "a"}), now_ns(), &[&text]);
        },
        |quiver| assert!(lines_in_order(quiver) == [r#"{"msg":"small"}"#, &fits, &text], "a long line changed"),
    );
}

#[test]
fn clashing_types_compare_as_people_expect() {
    let lines = [
        r#"{"status":500,"msg":"integer"}"#,
        r#"{"status":"oops","msg":"text"}"#,
        r#"{"status":"404","msg":"quoted"}"#,
        r#"{"status":20.5,"msg":"float"}"#,
        r#"{"status":true,"msg":"boolean"}"#,
        r#"{"other":1,"msg":"none"}"#,
    ];
    in_both_states(
        |quiver| lines.iter().for_each(|line| quiver.ingest(&[line])),
        |quiver| {
            assert_eq!(lines_in_order(quiver), lines);
            let of = |condition: &str| -> Vec<String> {
                let rows = quiver.sql(&format!("SELECT message FROM logs WHERE {condition} ORDER BY _seq"));
                rows.iter().map(|row| row["message"].as_str().expect("it has a message").to_owned()).collect()
            };
            assert_eq!(of("status = 500"), ["integer"]);
            assert_eq!(of("status = '500'"), ["integer"]);
            assert_eq!(of("status >= 400"), ["integer", "quoted"]);
            assert_eq!(of("status < 100"), ["float"]);
            assert_eq!(of("status = 'oops'"), ["text"]);
            assert_eq!(of("status IS NULL"), ["none"]);
        },
    );
}

#[test]
fn times_beyond_belief_are_kept() {
    const YEAR_NS: i64 = 365 * 24 * 3_600 * 1_000_000_000;
    let started_ns = now_ns();
    let next_year = started_ns + YEAR_NS;
    let lines =
        [r#"{"ts":"1970-01-01T00:00:05Z","msg":"old"}"#.to_owned(), format!(r#"{{"ts":{next_year},"msg":"new"}}"#)];
    in_both_states(
        |quiver| quiver.ingest(&[&lines[0], &lines[1]]),
        |quiver| {
            assert_eq!(lines_in_order(quiver), lines);
            let ns = |message: &str| {
                quiver.value(&format!("SELECT CAST(timestamp AS BIGINT) FROM logs WHERE message = '{message}'"))
            };
            // The past is believed: logs are loaded from archives. A clock that runs ahead is not.
            assert_eq!(ns("old"), json!(5_000_000_000_i64));
            let arrived_ns = ns("new").as_i64().expect("it has a time");
            assert!((started_ns..=now_ns()).contains(&arrived_ns), "{arrived_ns} is not the time of arrival");
            let rows = quiver.sql("SELECT message, timestamp_original FROM logs WHERE timestamp_original IS NOT NULL");
            assert_eq!(rows.len(), 1, "{rows:?}");
            assert_eq!(rows[0]["message"], "new");
        },
    );
}

#[test]
fn ten_thousand_field_names_are_queryable() {
    const NAMES: usize = 10_000;
    let pairs: Vec<String> = (0..NAMES).map(|at| format!(r#""field_{at}":{at}"#)).collect();
    let spread: Vec<String> = pairs.chunks(100).map(|chunk| format!("{{{}}}", chunk.join(","))).collect();
    let one = format!("{{{}}}", pairs.join(",").replace("field_", "wide_"));
    let mut lines: Vec<&str> = spread.iter().map(String::as_str).collect();
    lines.push(&one);
    in_both_states(
        |quiver| quiver.ingest(&lines),
        |quiver| {
            for at in [7, 5_005, 9_999] {
                for name in ["field", "wide"] {
                    let sql = format!(r#"SELECT "{name}_{at}" FROM logs WHERE "{name}_{at}" = {at}"#);
                    assert_eq!(quiver.value(&sql), json!(at), "{sql}");
                }
            }
            assert!(lines_in_order(quiver) == lines, "a wide line changed");
        },
    );
}

#[test]
fn nested_fields_are_joined_with_dots() {
    in_both_states(
        |quiver| quiver.ingest(&[r#"{"msg":"m","http":{"request":{"method":"GET","size":10},"ok":true}}"#]),
        |quiver| {
            let rows = quiver.sql(r#"SELECT "http.request.method", "http.request.size", "http.ok" FROM logs"#);
            let expected = json!([{"http.request.method": "GET", "http.request.size": 10, "http.ok": true}]);
            assert_eq!(Value::Array(rows), expected);
        },
    );
}

#[test]
fn a_json_array_and_text_lines_are_taken() {
    in_both_states(
        |quiver| {
            let array = br#"[{"msg":"one","n":1},{"msg":"two","n":2}]"#;
            let answer = quiver.post("/api/v1/ingest", "application/json", array);
            assert_eq!((answer.status, &answer.json()["accepted"]), (200, &json!(2)), "{}", answer.text());
            let answer = quiver.post("/api/v1/ingest", "text/plain", b"level=error msg=three n=3\njust text\n");
            assert_eq!((answer.status, &answer.json()["accepted"]), (200, &json!(2)), "{}", answer.text());
        },
        |quiver| {
            assert_eq!(quiver.count("SELECT sum(n) FROM logs"), 6);
            assert_eq!(quiver.value("SELECT level FROM logs WHERE n = 3"), "error");
            assert_eq!(quiver.count("SELECT count(*) FROM logs WHERE message = 'just text'"), 1);
        },
    );
}

#[test]
fn tenants_do_not_see_each_other() {
    let dir = data_dir();
    let quiver = Quiver::start(dir.path(), &[]);
    let body = br#"{"msg":"secret"}"#;
    let with = [("content-type", "application/x-ndjson"), ("x-scope-orgid", "blue")];
    let sent = crate::http::request(&quiver.http, "POST", "/api/v1/ingest", &with, body).expect("it answers");
    assert_eq!(sent.status, 200);
    assert_eq!(quiver.count("SELECT count(*) FROM logs"), 0);
    let sql = b"SELECT message FROM logs";
    let blue = crate::http::request(&quiver.http, "POST", "/api/v1/sql", &[("x-scope-orgid", "blue")], sql);
    assert_eq!(blue.expect("it answers").text(), "{\"message\":\"secret\"}\n");
}
