//! What becomes of whole lines: the columns they fill, and that each line is given back byte for byte.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampNanosecondType};
use arrow::record_batch::RecordBatch;
use proptest::prelude::*;

use super::{Decoded, Error, Options, datadog, elastic, firehose, gelf, journal, jsonline, loki, otlp, splunk};
use crate::error::Kind;
use crate::record::batch::{conform, unified_schema, unified_schema_of};
use crate::record::shape::{render_lines, render_lines_bytes};
use crate::record::{Seen, column, overflow, time};

mod docs;
mod formats;
mod fuzz;

/// 2026-06-01T00:00:00Z
pub(super) const NOW: i64 = 1_780_272_000_000_000_000;
/// 2026-01-01T12:00:00Z
const NOON: i64 = 1_767_268_800_000_000_000;

/// The value as text, times as RFC 3339; `None` for a null and for a column that is not there.
pub(super) fn value(batch: &RecordBatch, name: &str, row: usize) -> Option<String> {
    let array: &ArrayRef = batch.column_by_name(name)?;
    if array.is_null(row) {
        return None;
    }
    Some(match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float64 => format!("{:?}", array.as_primitive::<Float64Type>().value(row)),
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Binary => String::from_utf8_lossy(array.as_binary::<i32>().value(row)).into_owned(),
        DataType::Timestamp(..) => {
            let mut text = Vec::new();
            time::write(array.as_primitive::<TimestampNanosecondType>().value(row), time::RFC_3339, &mut text);
            String::from_utf8(text).unwrap()
        }
        other => panic!("column {name} has type {other}"),
    })
}

/// All values of a row but the hidden ones, as `name=value`, in the order of the columns.
pub(super) fn row(batch: &RecordBatch, row: usize) -> String {
    let names: Vec<String> = batch.schema_ref().fields().iter().map(|field| field.name().clone()).collect();
    let shown = names.iter().filter(|name| !column::HIDDEN.contains(&name.as_str()));
    shown
        .filter_map(|name| value(batch, name, row).map(|value| format!("{name}={value}")))
        .collect::<Vec<_>>()
        .join(" | ")
}

/// The pairs of a [`row`] without regard to their order, and to blanks around them.
pub(super) fn sorted_pairs(row: &str) -> Vec<&str> {
    let mut pairs: Vec<&str> = row.split(" | ").map(str::trim).collect();
    pairs.sort_unstable();
    pairs
}

/// As [`row`], with each text that is a number as that number: `1e5` that came before its column was text stands there as
/// `100000`, one that came later as it was spelled.
fn row_of_numbers(batch: &RecordBatch, index: usize) -> Vec<String> {
    let plain = |pair: &str| match pair.split_once('=') {
        Some((name, value)) => match value.parse::<f64>() {
            Ok(number) => format!("{name}={number:?}"),
            Err(_) => pair.to_string(),
        },
        None => pair.to_string(),
    };
    row(batch, index).split(" | ").map(plain).collect()
}

fn text(body: &[u8]) -> Decoded {
    jsonline::text(body, &Options::default(), NOW).unwrap()
}

/// The row that one line becomes; checks that it is given back, alone and when its form is known already.
#[track_caller]
fn parsed(line: &str) -> String {
    let twice = text(format!("{line}\n{line}").as_bytes());
    assert_eq!(row(&twice.batch, 0), row(&twice.batch, 1), "the form was learnt wrong: {line}");
    let lines = render_lines(&twice.batch).unwrap();
    assert_eq!((lines.value(0), lines.value(1)), (line, line));
    row(&twice.batch, 0)
}

/// Whether the line is given back by its shape, and not kept beside its values.
fn has_shape(line: &str) -> bool {
    value(&text(line.as_bytes()).batch, column::RAW, 0).is_none()
}

#[test]
fn lines_as_they_really_come() {
    for (line, wanted) in [
        (
            r#"{"ts":"2026-02-10T12:01:22Z","level":"error","service":"telemetry-processing","trace_id":"abc123","device_id":5512,"msg":"failed to parse packet"}"#,
            "timestamp=2026-02-10T12:01:22Z | level=error | service=telemetry-processing | message=failed to parse packet | trace_id=abc123 | device_id=5512",
        ),
        (
            "timestamp='2026-01-01T12:00:00Z' level='info' logger='service' event='Request completed' method='GET' path='/api/v1' status_code=200 trace_id='550e8400-e29b-41d4-a716-446655440000' request_id='r1'",
            "timestamp=2026-01-01T12:00:00Z | level=info | message=Request completed | trace_id=550e8400-e29b-41d4-a716-446655440000 | logger=service | method=GET | path=/api/v1 | status_code=200 | request_id=r1",
        ),
        (
            r#"{"log":"timestamp='2026-01-01T11:59:59Z' level='info' event='it\"s'\n","stream":"stdout","time":"2026-01-01T12:00:00.000000000Z"}"#,
            "timestamp=2026-01-01T12:00:00Z | level=info | message=it\"s | timestamp_extracted=2026-01-01T11:59:59Z | stream=stdout",
        ),
        (
            r#"{"log":"{\"level\":\"info\",\"msg\":\"a \\\"b\\\"\",\"n\":1.50}\n","stream":"stderr","time":"2026-01-01T12:00:00.25Z"}"#,
            "timestamp=2026-01-01T12:00:00.25Z | level=info | message=a \"b\" | n=1.5 | stream=stderr",
        ),
        (
            r#"{"log":"ERROR: <disk> full\r\n","stream":"stdout","time":"2026-01-01T12:00:00Z"}"#,
            "timestamp=2026-01-01T12:00:00Z | level=error | message=<disk> full | level_original=ERROR | stream=stdout",
        ),
        (
            r#"{"level":30,"time":1767268800000,"pid":7,"hostname":"web-1","reqId":"x","msg":"request completed","responseTime":12.4}"#,
            "timestamp=2026-01-01T12:00:00Z | level=info | message=request completed | level_original=30 | pid=7 | hostname=web-1 | reqId=x | responseTime=12.4",
        ),
        (
            r#"{"level":"info","message":"m","timestamp":"2026-01-01T12:00:00.000Z","service":"bff"}"#,
            "timestamp=2026-01-01T12:00:00Z | level=info | service=bff | message=m",
        ),
        (
            "level=warn ts=2026-01-01T12:00:00Z caller=main.go:12 msg=\"slow query\" duration=1.2s",
            "timestamp=2026-01-01T12:00:00Z | level=warn | message=slow query | caller=main.go:12 | duration=1.2s",
        ),
        (
            "\tat com.example.App.main(App.java:12)",
            "timestamp=2026-06-01T00:00:00Z | message=\tat com.example.App.main(App.java:12)",
        ),
    ] {
        assert_eq!(parsed(line), wanted);
        assert!(has_shape(line), "{line}");
    }
}

#[test]
fn names_and_types() {
    for (line, wanted) in [
        (
            r#"{"http":{"status":500,"ok":false,"t":[1, 2],"e":{}},"n":null}"#,
            "http.status=500 | http.ok=false | http.t=[1, 2] | http.e={}",
        ),
        (r#"{"a.b":1,"a":{"b":2}}"#, "a.b=1 | a.b_extracted=2"),
        (
            r#"{"_seq":1,"_raw":"x","_line":true,"_shape":2.5,"_overflow":[]}"#,
            "_seq_extracted=1 | _raw_extracted=x | _line_extracted=true | _shape_extracted=2.5 | _overflow_extracted=[]",
        ),
        (r#"{"message":"a","msg":"b","event":"c"}"#, "message=a | msg=b | event=c"),
        (r#"{"service":"a","app":"b","service_name":"c"}"#, "service=a | app=b | service_name=c"),
        (r#"{"app":"b","job":"c"}"#, "service=b | job=c"),
        (r#"{"trace_id":"","span_id":"0000000000000000"}"#, ""),
        (r#"{"dd.trace_id":"77","traceId":"ab"}"#, "trace_id=ab | dd.trace_id=77"),
        (r#"{"trace_id":12345678901234567890}"#, "trace_id=12345678901234567890"),
        (r#"{"level":"ERROR"}"#, "level=error | level_original=ERROR"),
        (r#"{"severity":"Warning"}"#, "level=warn | severity=Warning"),
        (r#"{"level":"loud"}"#, "level_original=loud"),
        (r#"{"level":"loud","severity":"err"}"#, "level=error | level_original=loud | severity=err"),
        (
            r#"{"big":18446744073709551615,"tiny":-1e-7,"z":-0,"f":12.0}"#,
            "big=18446744073709551615 | tiny=-1e-7 | z=-0.0 | f=12.0",
        ),
        (r#"{"text":"tab\there \u00e9 \"q\""}"#, "text=tab\there é \"q\""),
        (r#"{"msg":5}"#, "message=5"),
        ("a=1 b=yes c=2.50 d=True e=None f=\"x y\"", "a=1 | b=yes | c=2.5 | d=true | f=x y"),
        ("trace_id=123456 msg=77 n=1", "message=77 | trace_id=123456 | n=1"),
        ("{\"half\":", "message={\"half\":"),
        (
            "level=info is not a pair of words, it is prose",
            "level=info | message=level=info is not a pair of words, it is prose",
        ),
    ] {
        let now = "timestamp=2026-06-01T00:00:00Z";
        let wanted = if wanted.is_empty() { now.to_string() } else { format!("{now} | {wanted}") };
        assert_eq!(parsed(line), wanted, "{line}");
    }
}

#[test]
fn times_of_lines() {
    for (line, wanted) in [
        (r#"{"ts":1767268800}"#, "timestamp=2026-01-01T12:00:00Z"),
        (r#"{"ts":1767268800.125}"#, "timestamp=2026-01-01T12:00:00.125Z"),
        (r#"{"ts":"1970-01-01T00:00:00Z"}"#, "timestamp=1970-01-01T00:00:00Z"),
        (r#"{"time":"2026-01-01 14:00:00.5+02:00"}"#, "timestamp=2026-01-01T12:00:00.5Z"),
        (
            r#"{"time":"Thu, 01 Jan 2026 12:00:00 +0000"}"#,
            "timestamp=2026-01-01T12:00:00Z | time=Thu, 01 Jan 2026 12:00:00 +0000",
        ),
        (r#"{"ts":"soon"}"#, "timestamp=2026-06-01T00:00:00Z | ts=soon"),
        (r#"{"time":12.5}"#, "timestamp=2026-06-01T00:00:00Z | time=12.5"),
        (r#"{"ts":"soon","time":1767268800}"#, "timestamp=2026-01-01T12:00:00Z | ts=soon"),
        (r#"{"timestamp":"soon"}"#, "timestamp=2026-06-01T00:00:00Z | timestamp_extracted=soon"),
        (
            r#"{"ts":"2027-06-01T00:00:00Z"}"#,
            "timestamp=2026-06-01T00:00:00Z | timestamp_original=2027-06-01T00:00:00Z",
        ),
        (r#"{"ts":"2026-06-01T23:00:00Z"}"#, "timestamp=2026-06-01T23:00:00Z"),
    ] {
        assert_eq!(parsed(line), wanted, "{line}");
        assert!(has_shape(line), "{line}");
    }
}

#[test]
fn bad_lines_are_told_and_good_ones_kept() {
    let body = b"{\"a\":1}\n\n{\"a\":\nplain\n[1]\n{\"a\":2}\r\n{\"a\":\"\xff\"}\n";
    let decoded = jsonline::lines(body, &Options::default(), NOW).unwrap();
    assert_eq!(decoded.accepted(), 2);
    let told: Vec<String> = decoded.rejected.iter().map(|one| format!("{}: {}", one.line, one.reason)).collect();
    assert_eq!(
        told,
        [
            "3: not a JSON object: the line ends within an object at column 6",
            "4: not a JSON object: expected '{' at column 1",
            "5: not a JSON object: expected '{' at column 1",
            "7: not valid UTF-8 at column 7",
        ]
    );
    assert_eq!(decoded.rejected_count, 4);
    let options = Options { rejections_max: 1, line_bytes_max: 10, ..Options::default() };
    let decoded = jsonline::lines(b"{\"a\":1}\n{}x\n{\"a\":12345}\n", &options, NOW).unwrap();
    assert_eq!((decoded.accepted(), decoded.rejected.len(), decoded.rejected_count), (1, 1, 2));
}

#[test]
fn an_array_of_objects() {
    let decoded = jsonline::lines(b" [ {\"a\":1} , {\"a\":[2]},3,{\"a\":3}]\n", &Options::default(), NOW).unwrap();
    assert_eq!((decoded.accepted(), decoded.rejected_count), (3, 1));
    assert_eq!(render_lines(&decoded.batch).unwrap().value(1), r#"{"a":[2]}"#);
    let decoded = jsonline::lines(b"[{\"a\":1},{\"a\":", &Options::default(), NOW).unwrap();
    assert_eq!((decoded.accepted(), decoded.rejected[0].line), (1, 2));
    assert_eq!(jsonline::lines(b"[]", &Options::default(), NOW).unwrap().accepted(), 0);
    assert_eq!(jsonline::lines(b"", &Options::default(), NOW).unwrap().accepted(), 0);
    let error = jsonline::lines(b"[\"\xff\"]", &Options::default(), NOW).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
}

#[test]
fn a_long_line_and_many_fields() {
    let long = format!("{{\"message\":\"{}\",\"n\":1}}", "x".repeat(1_000_000));
    assert!(has_shape(&long));
    assert_eq!(text(long.as_bytes()).accepted(), 1);
    let members: Vec<String> = (0..10_000).map(|index| format!("\"f{index}\":{index}")).collect();
    let wide = format!("{{{}}}", members.join(","));
    let decoded = text(wide.as_bytes());
    assert_eq!(decoded.accepted(), 1);
    assert_eq!(render_lines(&decoded.batch).unwrap().value(0), wide);
    assert_eq!(value(&decoded.batch, "f999", 0).as_deref(), Some("999"));
    let rest = decoded.batch.column_by_name(column::OVERFLOW).unwrap();
    assert_eq!(overflow::extract(rest, "f9999").value(0), "9999");
    let lines: Vec<String> = (0..10_000).map(|index| format!("{{\"f{index}\":{index}}}")).collect();
    let decoded = text(lines.join("\n").as_bytes());
    assert_eq!(decoded.batch.num_columns(), 6 + 1_000 + 3);
    let rest = decoded.batch.column_by_name(column::OVERFLOW).unwrap();
    assert_eq!(overflow::extract(rest, "f5000").value(5_000), "5000");
    let given_back = render_lines(&decoded.batch).unwrap();
    assert!(lines.iter().enumerate().all(|(index, line)| given_back.value(index) == line));
}

#[test]
fn labels_repeated_without_end_are_refused() {
    let options = Options { batch_bytes_max: 10_000, ..Options::default() };
    let error = jsonline::text(b"x\n".repeat(10_000).as_slice(), &options, NOW).unwrap_err();
    assert!(matches!(error, Error::TooLarge(10_000)));
    assert_eq!(error.kind(), Kind::Limit);
}

#[test]
fn bytes_that_are_not_utf_8() {
    let decoded = text(b"caf\xe9 WARN\n{\"a\":\"\xff\"}");
    assert_eq!(row(&decoded.batch, 0), "timestamp=2026-06-01T00:00:00Z | level=warn | message=caf\u{fffd} WARN");
    let lines = render_lines_bytes(&decoded.batch).unwrap();
    assert_eq!((lines.value(0), lines.value(1)), (&b"caf\xe9 WARN"[..], &b"{\"a\":\"\xff\"}"[..]));
}

/// Protobuf as Loki's clients write it.
mod wire {
    pub fn bytes(tag: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![tag << 3 | 2];
        out.extend(varint(payload.len() as u64));
        out.extend_from_slice(payload);
        out
    }

    pub fn varint(mut value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
        out
    }

    pub fn entry(time_ns: i64, line: &[u8], metadata: &[(&str, &str)]) -> Vec<u8> {
        let mut time = vec![8];
        time.extend(varint((time_ns / 1_000_000_000) as u64));
        time.push(16);
        time.extend(varint((time_ns % 1_000_000_000) as u64));
        let mut entry = [bytes(1, &time), bytes(2, line)].concat();
        for (name, value) in metadata {
            entry.extend(bytes(3, &[bytes(1, name.as_bytes()), bytes(2, value.as_bytes())].concat()));
        }
        entry
    }

    pub fn stream(labels: &str, entries: &[Vec<u8>]) -> Vec<u8> {
        let entries = entries.iter().flat_map(|entry| bytes(2, entry));
        bytes(1, &bytes(1, labels.as_bytes()).into_iter().chain(entries).collect::<Vec<u8>>())
    }
}

/// What a line says of a service that a label names already is a field of its own, and such lines are learnt like others.
#[test]
fn a_label_and_a_line_name_different_services() {
    let lines: [&[u8]; 2] = [br#"{"service":"inner","msg":"a"}"#, br#"{"service":"other","msg":"b"}"#];
    let entries = lines.map(|line| wire::entry(NOON, line, &[]));
    let push = wire::stream(r#"{service="web"}"#, &entries);
    let decoded = loki::push_protobuf(&push, &Options::default(), NOW).unwrap();
    let rows = [0, 1].map(|index| row(&decoded.batch, index));
    let at = "timestamp=2026-01-01T12:00:00Z | service=web";
    let wanted = [("a", "inner"), ("b", "other")];
    assert_eq!(
        rows,
        wanted.map(|(message, service)| format!("{at} | message={message} | service_extracted={service}"))
    );
    let shapes = decoded.batch.column_by_name(column::SHAPE).unwrap();
    assert_eq!(shapes.null_count(), 0, "the lines can be made of their shape");
    let given_back = render_lines(&decoded.batch).unwrap();
    assert_eq!([0, 1].map(|index| given_back.value(index).as_bytes()), lines);
}

#[test]
fn a_loki_push() {
    let push = [
        wire::stream(
            r#"{app="web", level="warn", path="a\"b\\c"}"#,
            &[
                wire::entry(
                    NOON + 1,
                    br#"{"msg":"x","app":"inner","ts":"2026-01-01T12:00:00.000000001Z","level":"warn"}"#,
                    &[],
                ),
                wire::entry(
                    NOON + 2,
                    br#"{"msg":"y","service":"inner","ts":"2026-01-01T12:00:00Z","level":"error"}"#,
                    &[("trace_id", "abc"), ("user", "7")],
                ),
                wire::entry(NOON + 3, b"plain text", &[]),
            ],
        ),
        wire::stream("{broken", &[wire::entry(NOON, b"lost", &[])]),
        wire::stream("{}", &[wire::entry(NOW * 2, b"", &[])]),
    ]
    .concat();
    let decoded = loki::push_protobuf(&push, &Options::default(), NOW).unwrap();
    assert_eq!(decoded.rejected.len(), 1);
    assert_eq!(decoded.rejected[0].line, 4);
    let rows: Vec<String> = (0..decoded.accepted()).map(|index| row(&decoded.batch, index)).collect();
    assert_eq!(
        rows,
        [
            "timestamp=2026-01-01T12:00:00.000000001Z | level=warn | service=web | message=x | app=inner | path=a\"b\\c",
            "timestamp=2026-01-01T12:00:00.000000002Z | level=warn | service=inner | message=y | trace_id=abc | app=web | path=a\"b\\c | user=7 | ts=2026-01-01T12:00:00Z | level_extracted=error",
            "timestamp=2026-01-01T12:00:00.000000003Z | level=warn | service=web | message=plain text | path=a\"b\\c",
            "timestamp=2026-06-01T00:00:00Z | message= | timestamp_original=2082-10-30T00:00:00Z",
        ]
        .map(|row| row.replace("app=inner | path=a\"b\\c", "path=a\"b\\c | app_extracted=inner"))
    );
    let lines = render_lines(&decoded.batch).unwrap();
    assert_eq!(lines.value(0), r#"{"msg":"x","app":"inner","ts":"2026-01-01T12:00:00.000000001Z","level":"warn"}"#);
    assert_eq!(lines.value(2), "plain text");
    assert!(loki::push_protobuf(&push[..push.len() - 1], &Options::default(), NOW).is_err());
    assert_eq!(loki::push_protobuf(b"", &Options::default(), NOW).unwrap().accepted(), 0);
}

#[test]
fn a_loki_push_as_json() {
    let body = br#"{"streams":[{"stream":{"service_name":"web","job":"x"},"values":[["1767268800000000001","level=info n=5 msg=\"a b\""],["now","lost"],["1767268800000000002","{\"n\":2.5}",{"span_id":"s"}]]}]}"#;
    let decoded = loki::push_json(body, &Options::default(), NOW).unwrap();
    assert_eq!(decoded.rejected_count, 1);
    assert_eq!(
        row(&decoded.batch, 0),
        "timestamp=2026-01-01T12:00:00.000000001Z | level=info | service=web | message=a b | job=x | n=5.0"
    );
    assert_eq!(
        row(&decoded.batch, 1),
        "timestamp=2026-01-01T12:00:00.000000002Z | service=web | span_id=s | job=x | n=2.5"
    );
    assert_eq!(render_lines(&decoded.batch).unwrap().value(0), "level=info n=5 msg=\"a b\"");
    assert_eq!(loki::push_json(b"{\"streams\":5}", &Options::default(), NOW).unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn otlp_logs() {
    let body = br#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"pay"}},{"key":"host","value":{"kvlistValue":{"values":[{"key":"name","value":{"stringValue":"h1"}}]}}}]},
      "scopeLogs":[{"scope":{"name":"lib"},"logRecords":[
        {"timeUnixNano":"1767268800000000001","severityNumber":17,"severityText":"ERROR","body":{"stringValue":"it failed"},"traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"0102030405060708","flags":1,
         "attributes":[{"key":"n","value":{"intValue":"5"}},{"key":"list","value":{"arrayValue":{"values":[{"intValue":"1"},{"stringValue":"x"}]}}},{"key":"ok","value":{"boolValue":true}}]},
        {"observedTimeUnixNano":"1767268800000000002","body":{"stringValue":"{\"msg\":\"inner\",\"user\":7}"}},
        {"body":{"kvlistValue":{"values":[{"key":"msg","value":{"stringValue":"kv"}},{"key":"n","value":{"doubleValue":1.5}}]}},"severityText":"warn"},
        {"eventName":"e"}
      ]}]}]}"#;
    let decoded = otlp::logs_json(body, &Options::default(), NOW).unwrap();
    let rows: Vec<String> = (0..decoded.accepted()).map(|index| row(&decoded.batch, index)).collect();
    assert_eq!(
        rows,
        [
            "timestamp=2026-01-01T12:00:00.000000001Z | level=error | service=pay | message=it failed | trace_id=0102030405060708090a0b0c0d0e0f10 | span_id=0102030405060708 | host.name=h1 | scope.name=lib | severity_text=ERROR | flags=1 | n=5.0 | list=[1,\"x\"] | ok=true",
            "timestamp=2026-01-01T12:00:00.000000002Z | service=pay | message=inner | host.name=h1 | scope.name=lib | user=7",
            "timestamp=2026-06-01T00:00:00Z | level=warn | service=pay | message=kv | host.name=h1 | scope.name=lib | n=1.5",
            "timestamp=2026-06-01T00:00:00Z | service=pay | host.name=h1 | scope.name=lib | event_name=e",
        ]
    );
    assert_eq!(render_lines(&decoded.batch).unwrap().value(2), r#"{"msg":"kv","n":1.5}"#);
    assert_eq!(otlp::logs_json(b"{", &Options::default(), NOW).unwrap_err().kind(), Kind::Invalid);
    assert_eq!(otlp::logs_protobuf(b"\xff", &Options::default(), NOW).unwrap_err().kind(), Kind::Invalid);
}

/// As the Collector's filelog receiver sends lines without a parser of times.
#[test]
fn an_observed_time_is_that_of_lines_without_one() {
    let body = br#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[
        {"observedTimeUnixNano":"1767268800000000002","body":{"stringValue":"level=info ts=2026-01-01T11:00:00Z msg=one"}},
        {"observedTimeUnixNano":"1767268800000000003","body":{"stringValue":"two"}},
        {"timeUnixNano":"1767268800000000004","observedTimeUnixNano":"5","body":{"stringValue":"ts=2026-01-01T11:00:00Z msg=three"}},
        {"observedTimeUnixNano":"9999999999999999999","body":{"stringValue":"four"}}
      ]}]}]}"#;
    let decoded = otlp::logs_json(body, &Options::default(), NOW).unwrap();
    let times: Vec<_> = (0..4).map(|index| value(&decoded.batch, column::TIMESTAMP, index).unwrap()).collect();
    // The last one is not believed.
    assert_eq!(
        times,
        [
            "2026-01-01T11:00:00Z",
            "2026-01-01T12:00:00.000000003Z",
            "2026-01-01T12:00:00.000000004Z",
            "2026-06-01T00:00:00Z"
        ]
    );
}

/// Lines that clash with each other in types, names, styles and order.
fn lively_line() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        Just("a"),
        Just("b"),
        Just("level"),
        Just("severity"),
        Just("ts"),
        Just("time"),
        Just("msg"),
        Just("message"),
        Just("service"),
        Just("app"),
        Just("trace_id"),
        Just("log"),
        Just("stream"),
        Just("_raw"),
        Just("c.d"),
        Just("e⟨"),
    ];
    let json = prop_oneof![
        "-?(0|[1-9][0-9]{0,19})",
        "-?(0|[1-9][0-9]{0,3})[.][0-9]{1,4}",
        "[1-9]e[+-]?[0-9]{1,2}",
        Just("null".to_string()),
        Just("true".to_string()),
        Just("false".to_string()),
        Just("[1, {\"x\":[]}]".to_string()),
        Just("{ }".to_string()),
        Just("{\"d\":1,\"e\":{\"f\":\"x\"}}".to_string()),
        Just("1767268800123".to_string()),
        Just("1767268800.50".to_string()),
        Just("30".to_string()),
        Just("9007199254740993".to_string()),
        "\"[a-z<>&/é'⟩ ]{0,6}\"",
        "\"(\\\\n|\\\\u00e9|\\\\u003c|\\\\/|\\\\\\\\|\\\\u001F|x){0,3}\"",
        "\"(info|ERROR|Warn|loud|)\"",
        "\"2026-01-01T12:00:0[0-9]([.][0-9]{1,10})?(Z|[+]02:00)\"",
        "\"20(26|70)-01-01 12:00:00,[0-9]{3}\"",
        Just("\"a='x' level='info' b=7\\n\"".to_string()),
        Just("\"{\\\"a\\\":\\\"\\\\n\\\",\\\"b\\\":1.50}\\n\"".to_string()),
    ];
    let object = prop::collection::vec((name.clone(), json), 0..6).prop_map(|members| {
        let members: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    });
    let bare = prop_oneof![
        "[a-z0-9.:⟨-]{0,6}",
        "\"[a-z \\\\n']{0,5}\"",
        "'[a-zé\" ]{0,5}'",
        "'(\\\\n|\\\\'|\\\\x1b|\\\\q|a){0,3}'",
        Just("True".to_string()),
        Just("None".to_string()),
        Just("['a b', 1]".to_string()),
        "[0-9]{1,3}([.][0-9]{1,3})?",
        Just("1e5".to_string()),
    ];
    let pairs = prop::collection::vec((name, bare), 1..6)
        .prop_map(|pairs| pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "));
    let docker = object.clone().prop_map(|inner| {
        let log = serde_json::to_string(&format!("{inner}\n")).unwrap();
        format!("{{\"log\":{log},\"stream\":\"stdout\",\"time\":\"2026-01-01T12:00:00.000000001Z\"}}")
    });
    // Heads of text lines, whole and broken, before messages, objects and pairs.
    let head = prop_oneof![
        Just("2026-01-01T12:00:00.5Z stdout F "),
        Just("2026-01-01T12:00:00Z stderr F "),
        Just("2026-01-01 12:00:00,123 ERROR [main] App - "),
        Just("2026-01-01 12:00:00 [main] info: "),
        Just("2026-01-01T12:00:00Z\tWARN\tmain.go:7\t"),
        Just("2026-01-01 12:00:00.000 +02:00 [INF] "),
        Just("2026-01-01 12:00:00 UTC [7] a@b LOG:  "),
        Just("2026/01/01 12:00:00 [error] 7#8: *9 "),
        Just("<34>1 2026-01-01T12:00:00Z h a - - [x y=\"z\\\"\"] "),
        Just("<34>Jan  1 12:00:00 h a[7]: "),
        Just("Feb 29 12:00:00 h a: "),
        Just("I0101 12:00:00.678901   1 a.go:1] "),
        Just("[Thu Jan 01 12:00:00.9 2026] [core:error] [pid 7:tid 8] "),
        Just("[2026-01-01 12:00:00] ERROR in app: "),
        Just("WARNING:root:"),
        Just("INFO: "),
        Just("::1 - - [01/Jan/2026:12:00:00 +0000] \"GET / HTTP/1.1\" 200 5 \"-\" \"x\""),
        Just(""),
    ];
    let tail = prop_oneof![
        object.clone(),
        pairs.clone(),
        "[ -~]{0,20}",
        Just(", client: 1.2.3.4, server: x".to_string()),
        Just("[a] b - c".to_string()),
        Just("\t{\"a\":1}".to_string()),
        Just(" ⟨é⟩".to_string()),
    ];
    let text = (head, tail, 0usize..60).prop_map(|(head, tail, cut)| {
        let line = format!("{head}{tail}");
        if cut < 50 { line } else { line.chars().skip(cut - 50).collect() }
    });
    let wrapped = text.clone().prop_map(|inner| {
        let log = serde_json::to_string(&format!("{inner}\n")).unwrap();
        format!("{{\"log\":{log},\"stream\":\"stdout\",\"time\":\"2026-01-01T12:00:00.000000001Z\"}}")
    });
    prop_oneof![4 => object, 3 => pairs, 1 => docker, 4 => text, 1 => wrapped, 1 => "[ -~\t]{0,30}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_line_is_given_back(lines in prop::collection::vec(lively_line(), 1..12), given in any::<bool>()) {
        let entries: Vec<Vec<u8>> = lines.iter().map(|line| wire::entry(NOON, line.as_bytes(), &[])).collect();
        let labels = if given { r#"{app="web", a="label", level="info"}"# } else { "{}" };
        let decoded = loki::push_protobuf(&wire::stream(labels, &entries), &Options::default(), NOW).unwrap();
        prop_assert_eq!(decoded.accepted(), lines.len());
        let given_back = render_lines(&decoded.batch).unwrap();
        for (index, line) in lines.iter().enumerate() {
            prop_assert_eq!(given_back.value(index), line, "{}", row(&decoded.batch, index));
        }
    }

    #[test]
    fn every_line_is_given_back_when_columns_are_widened(a in prop::collection::vec(lively_line(), 1..6), b in prop::collection::vec(lively_line(), 1..6)) {
        let options = Options::default();
        let decode = |lines: &[String]| {
            let lines: Vec<&str> = lines.iter().map(String::as_str).filter(|line| !line.trim().is_empty()).collect();
            (jsonline::text(lines.join("\n").as_bytes(), &options, NOW).unwrap().batch, lines.len())
        };
        let ((a_batch, _), (b_batch, _)) = (decode(&a), decode(&b));
        let schema = unified_schema_of(&[a_batch.clone(), b_batch.clone()]);
        prop_assert_eq!(schema.fields().len(), unified_schema(&[a_batch.schema(), b_batch.schema()]).fields().len());
        for (batch, lines) in [(a_batch, a), (b_batch, b)] {
            let given_back = render_lines(&conform(&batch, &schema).unwrap()).unwrap();
            for (index, line) in lines.iter().filter(|line| !line.trim().is_empty()).enumerate() {
                prop_assert_eq!(given_back.value(index), line);
            }
        }
    }

    #[test]
    fn a_learnt_form_places_values_as_the_slow_way_does(lines in prop::collection::vec(lively_line(), 1..8)) {
        let together: Vec<Vec<u8>> = lines.iter().chain(&lines).map(|line| wire::entry(NOON, line.as_bytes(), &[])).collect();
        let decoded = loki::push_protobuf(&wire::stream("{}", &together), &Options::default(), NOW).unwrap();
        for index in 0..lines.len() {
            prop_assert_eq!(row_of_numbers(&decoded.batch, index), row_of_numbers(&decoded.batch, index + lines.len()));
        }
    }

    #[test]
    fn any_bytes_are_given_back(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6)) {
        let entries: Vec<Vec<u8>> = lines.iter().map(|line| wire::entry(NOON, line, &[])).collect();
        let decoded = loki::push_protobuf(&wire::stream("{}", &entries), &Options::default(), NOW).unwrap();
        let given_back = render_lines_bytes(&decoded.batch).unwrap();
        for (index, line) in lines.iter().enumerate() {
            prop_assert_eq!(given_back.value(index), line.as_slice());
        }
    }

    #[test]
    fn never_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let options = Options::default();
        let _ = loki::push_protobuf(&body, &options, NOW);
        let _ = loki::push_json(&body, &options, NOW);
        let _ = otlp::logs_protobuf(&body, &options, NOW);
        let _ = otlp::logs_json(&body, &options, NOW);
        let _ = jsonline::lines(&body, &options, NOW);
        let _ = jsonline::text(&body, &options, NOW);
        let _ = elastic::bulk(&body, None, &mut |_| Seen::New, &options, NOW);
        let _ = gelf::body(&body, &options, NOW);
        let _ = splunk::events(&body, &options, NOW);
        let _ = splunk::raw(&body, &splunk::Metadata::default(), &options, NOW);
        let _ = datadog::logs(&body, &options, NOW);
        let _ = journal::entries(&body, |_| Ok::<_, Error>(true), &options, NOW);
        let _ = firehose::delivery(&body, None, |data| Ok::<_, Error>(Ok(data)), &options, NOW);
    }

    #[test]
    fn never_panics_on_damaged_objects(at in any::<prop::sample::Index>(), byte in any::<u8>(), line in lively_line()) {
        let quoted = serde_json::to_string(&line).unwrap();
        let object = format!(
            "{{\"event\":{quoted},\"message\":{quoted},\"short_message\":{quoted},\"log\":{quoted},\"time\":1.5,\
             \"timestamp\":\"2026-01-01T12:00:00Z\",\"level\":3,\"fields\":{{\"a\":[1,{{\"b\":null}}]}},\"ddtags\":\"a:b,c\"}}"
        );
        let mut body = format!("{{\"create\":{{\"_index\":\"i\",\"_id\":\"1\"}}}}\n{object}\n").into_bytes();
        let at = at.index(body.len());
        body[at] = byte;
        let options = Options::default();
        let _ = elastic::bulk(&body, Some("i"), &mut |_| Seen::New, &options, NOW);
        let document = body.split(|byte| *byte == b'\n').next_back().unwrap_or_default();
        let _ = elastic::document(document, (elastic::Action::Create, "i", None), &mut |_| Seen::New, &options, NOW);
        let _ = gelf::body(&body, &options, NOW);
        let _ = splunk::events(&body, &options, NOW);
        let _ = datadog::logs(&body, &options, NOW);
    }

    #[test]
    fn never_panics_on_damaged_pushes(at in any::<prop::sample::Index>(), byte in any::<u8>(), labels in "\\{?[a-z=\"\\\\,{} `]{0,12}\\}?") {
        let mut push = wire::stream(&labels, &[wire::entry(NOON, br#"{"a":"b"}"#, &[("c", "d")])]);
        let at = at.index(push.len());
        push[at] = byte;
        let _ = loki::push_protobuf(&push, &Options::default(), NOW);
    }
}

/// Seen in the simulation: such a value made the store's writer panic, and again at each start.
#[test]
fn values_that_are_no_json_can_lie_in_the_overflow() {
    let options = Options { columns_max: 0, ..Options::default() };
    let lines = [r#"{"x":1E+400}"#, r#"{"x":-0}"#, "x=007 y=NaN", r#"{"x":18446744073709551616}"#];
    for line in lines {
        let decoded = jsonline::text(line.as_bytes(), &options, NOW).unwrap();
        let object = value(&decoded.batch, column::OVERFLOW, 0).unwrap();
        let read: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_str(&object);
        assert!(read.is_ok_and(|fields| fields.contains_key("x")), "{line}: {object}");
    }
}

/// Seen in the simulation: with a field `level` in the overflow, every query of the tenant failed.
#[test]
fn fields_in_the_overflow_are_not_named_as_our_own_columns() {
    let options = Options { columns_max: 0, ..Options::default() };
    let line = r#"{"level":"INFO","_seq":5,"severity":"x","other":1}"#;
    let decoded = jsonline::lines(line.as_bytes(), &options, NOW).unwrap();
    let names = overflow::names(decoded.batch.column_by_name(column::OVERFLOW).unwrap());
    assert_eq!(names, ["_seq_extracted", "level_extracted", "other", "severity"]);
    assert_eq!(value(&decoded.batch, column::LEVEL, 0).as_deref(), Some("info"));
}
