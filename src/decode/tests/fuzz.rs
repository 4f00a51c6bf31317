//! Sound bodies of every protocol, damaged step by step from a seed: no decoder panics, and what the text decoder accepts
//! it gives back. QUIVER_FUZZ_SEED repeats a run, QUIVER_FUZZ_STEPS makes it longer.

use arrow::array::Array;

use super::{NOON, NOW, wire};
use crate::decode::{
    Decoded, Error, Options, datadog, elastic, firehose, forward, gelf, journal, jsonline, loki, msgpack, otlp, splunk,
    streams, syslog,
};
use crate::pipeline::Pipelines;
use crate::record::shape::render_lines_bytes;
use crate::record::{Seen, Tenant};

/// Damaged bodies of each decoder; a few seconds without optimisation.
const STEPS: u64 = 1_500;
/// Longest body that is grown.
const BODY_BYTES_MAX: usize = 4 << 10;

/// Pieces that formats give a meaning.
const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    "'",
    "\\",
    "\\u",
    "\\ud800",
    ":",
    ",",
    "=",
    " ",
    "\n",
    "\r\n",
    "\t",
    "<",
    ">",
    "- ",
    " - ",
    "null",
    "-",
    "1e999",
    "0",
    "9223372036854775808",
    "⟨",
    "⟩",
    "é",
    "\u{feff}",
    "\u{1b}[31m",
    "ERROR",
    "[INFO]",
    "2026-01-01T12:00:00Z",
    "2026-01-01 12:00:00,123",
    "10/Oct/2000:13:55:36 -0700",
    "Oct 11 22:14:15",
    " stdout F ",
    " stderr P ",
    "<34>1 ",
    "{\"log\":\"",
    "\",\"stream\":\"stdout\",\"time\":\"",
    "I0102 15:04:05.678901 ",
    " LOG:  ",
    ", client: ",
    "time",
    "level",
    "trace_id",
    "@t",
    "@mt",
    "\"GET / HTTP/1.1\" ",
    "--- [",
];

/// xorshift64*: what it gives depends on the seed alone.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit.max(1)
    }
}

fn damage(body: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(body.len() + 1);
    let end = (at + random.below(12)).min(body.len());
    match random.below(6) {
        0 => drop(body.splice(at..end, PIECES[random.below(PIECES.len())].bytes())),
        1 => drop(body.drain(at..end)),
        2 if at < body.len() => body[at] ^= 1 << random.below(8),
        3 if at < body.len() => body[at] = random.below(256) as u8,
        4 => {
            let from = random.below(other.len() + 1);
            let to = (from + random.below(64)).min(other.len());
            drop(body.splice(at..at, other[from..to].iter().copied()));
        }
        _ => {
            let again = body[at..end].to_vec();
            drop(body.splice(at..at, again));
        }
    }
    body.truncate(BODY_BYTES_MAX);
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Damages the sound bodies again and again, and hands each to `decode`.
fn fuzz(sound: &[Vec<u8>], decode: impl Fn(&[u8])) {
    let seed = setting("QUIVER_FUZZ_SEED", 0x5175_6976_6572);
    let mut random = Random(seed | 1);
    let mut body = Vec::new();
    for step in 0..setting("QUIVER_FUZZ_STEPS", STEPS) {
        // Eight wounds, then from the start again.
        if step % 8 == 0 {
            body = sound[random.below(sound.len())].clone();
        }
        damage(&mut body, &sound[random.below(sound.len())], &mut random);
        let decoded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| decode(&body)));
        assert!(decoded.is_ok(), "seed {seed}, step {step}: {:?}", String::from_utf8_lossy(&body));
    }
}

/// Lines of all formats.
fn lines() -> Vec<Vec<u8>> {
    let lines = [
        r#"{"ts":"2026-01-01T12:00:00Z","level":"error","a":{"b":[1,2.50,{"c":null}],"d":"\u00e9\n"},"trace_id":"ab"}"#,
        r#"{"log":"{\"level\":\"info\",\"msg\":\"a\"}\n","stream":"stdout","time":"2026-01-01T12:00:00.5Z"}"#,
        r#"{"@t":"2026-01-01T12:00:00Z","@mt":"x","v":0}"#,
        "timestamp='2026-01-01T12:00:00Z' level='info' event=\"it's\" ok=True tags=['a b', 1] n=1.50",
        "2026-01-01T12:00:00.5Z stdout P 2026-01-01 12:00:00,123 ERROR [main] a.b.App - failed",
        "2026-01-01T12:00:00.5Z stdout F rest",
        r#"127.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "GET /a HTTP/1.0" 200 2326 "-" "x \" y" 0.1"#,
        r#"<34>1 2026-10-11T22:14:15.003Z h a 1 ID [ex@1 k="v\"]"][y z="1"] message"#,
        "<13>Oct 11 22:14:15 h app[12]: message",
        "I0102 15:04:05.678901       1 a.go:12] message",
        "2026/01/01 12:00:00 [error] 7#8: *9 it failed, client: 1.2.3.4, server: x, request: \"GET /\", host: \"h\"",
        "[Fri Sep 09 10:42:29.902022 2011] [core:error] [pid 7:tid 8] [client 1.2.3.4] AH001: x",
        "2026-01-01T12:00:00.000+01:00  INFO 12345 --- [app] [  main] c.e.Demo : Started",
        "2026-01-01T12:00:00.000Z\tINFO\tname\ta/b.go:12\tmessage\t{\"k\": \"v\"}",
        "2026-01-01 12:00:00.123 UTC [12] u@d LOG:  message",
        "[2026-01-01 12:00:00,000: ERROR/Main] x",
        "WARNING:root:x",
    ];
    lines.iter().map(|line| line.as_bytes().to_vec()).chain([lines.join("\n").into_bytes()]).collect()
}

fn check(decoded: &Decoded) {
    assert!(render_lines_bytes(&decoded.batch).unwrap().len() == decoded.batch.num_rows());
}

#[test]
fn text_lines() {
    fuzz(&lines(), |body| {
        let decoded = jsonline::text(body, &Options::default(), NOW).unwrap();
        let given_back = render_lines_bytes(&decoded.batch).unwrap();
        // Cut lines are put together behind others, so only their number of bytes is sure.
        let received: usize = given_back.iter().flatten().map(<[u8]>::len).sum();
        assert!(received <= body.len());
        let alone = body.split(|byte| *byte == b'\n').collect::<Vec<_>>();
        if let [line] = alone[..] {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
            assert!(given_back.is_empty() || given_back.value(0) == line);
        }
    });
}

#[test]
fn json_lines() {
    let array = br#"[{"a":1},{"b":"x"}]"#.to_vec();
    let sound: Vec<Vec<u8>> = lines().into_iter().chain([array]).collect();
    fuzz(&sound, |body| check(&jsonline::lines(body, &Options::default(), NOW).unwrap_or_else(|_| empty())));
}

#[test]
fn documents_and_bulk_requests() {
    let document =
        br#"{"@timestamp":"2026-01-01T12:00:00Z","message":"level=warn msg=\"slow\"","host":{"name":"h"},"n":5}"#;
    let bulk = [
        &b"{\"index\":{\"_index\":\"a\",\"_id\":\"1\"}}\n"[..],
        document,
        b"\n{\"delete\":{\"_id\":\"2\"}}\n{\"create\":{}}\n{\"log\":\"I0102 15:04:05.678901 1 a.go:12] x\\n\"}\n",
    ];
    fuzz(&[bulk.concat(), document.to_vec()], |body| {
        let mut known = |parts: &[&[u8]]| if parts.concat().len() % 3 == 0 { Seen::Kept } else { Seen::New };
        if let Ok(bulk) = elastic::bulk(body, Some("i"), &mut known, &Options::default(), NOW) {
            check(&bulk.decoded);
        }
        let target = (elastic::Action::Create, "i", Some("1"));
        if let Ok(bulk) = elastic::document(body, target, &mut known, &Options::default(), NOW) {
            assert_eq!(bulk.items.len(), 1);
            check(&bulk.decoded);
        }
    });
}

#[test]
fn splunk_events_datadog_logs_and_deliveries() {
    let events = br#"{"time":1426279439.5,"host":"h","event":"level=warn x"}{"event":{"line":"<34>1 - h a - - - m"},"fields":{"a":["b"]}}"#;
    let logs =
        br#"[{"ddtags":"env:x,team","message":"{\"a\":1}","status":"error","timestamp":1767268800123,"service":"s"}]"#;
    let records = br#"{"requestId":"r","timestamp":1,"records":[{"data":"eyJhIjoxfQo="},{"data":"H4sIAAAAAAAAA6tWSixKVbJSUDJU0lEqLU4tSkksSVSyAgD"}]}"#;
    let unzip = |data: bytes::Bytes| Ok::<_, Error>(Ok(data));
    fuzz(&[events.to_vec(), logs.to_vec(), records.to_vec()], |body| {
        let options = Options::default();
        check(&splunk::events(body, &options, NOW).unwrap_or_else(|_| empty()));
        let metadata = splunk::Metadata { fields: vec![("host", "h")], time_ns: Some(NOW) };
        check(&splunk::raw(body, &metadata, &options, NOW).unwrap_or_else(|_| empty()));
        check(&datadog::logs(body, &options, NOW).unwrap_or_else(|_| empty()));
        check(&datadog::text(body, &[("ddtags", "a:b")], &options, NOW).unwrap_or_else(|_| empty()));
        let attributes = std::str::from_utf8(body).ok();
        check(&firehose::delivery(body, attributes, unzip, &options, NOW).unwrap_or_else(|_| empty()));
    });
}

#[test]
fn gelf_and_journals() {
    let gelf = br#"{"version":"1.1","host":"h","short_message":"level=info x","full_message":"y","timestamp":1767268800.123,"level":3,"_user":"u"}"#;
    fuzz(&[gelf.to_vec(), [&gelf[..], b"\0", gelf].concat()], |body| {
        check(&gelf::body(body, &Options::default(), NOW).unwrap_or_else(|_| empty()));
    });
    let entry = b"__CURSOR=s=1\n__REALTIME_TIMESTAMP=1767268800000000\nPRIORITY=3\n_SYSTEMD_UNIT=a.service\n\
                  MESSAGE\n\x05\0\0\0\0\0\0\0a\nb=c\n_PID=7\n\n";
    fuzz(&[entry.to_vec(), entry.repeat(2)], |body| {
        assert!(journal::whole(body).is_ok_and(|end| end <= body.len()) || journal::whole(body).is_err());
        let is_new = |cursor: &[u8]| Ok::<_, Error>(cursor.len().is_multiple_of(2));
        check(&journal::entries(body, is_new, &Options::default(), NOW).unwrap_or_else(|_| empty()));
    });
}

#[test]
fn syslog_messages() {
    let sound = [
        &b"<34>1 2026-10-11T22:14:15.003Z h app 1 ID [ex@1 k=\"v\\\"]\"][y z=\"1\"] \xef\xbb\xbf{\"a\":1}"[..],
        b"<13>Oct 11 22:14:15 h app[12]: level=info x",
        b"<190>45: *Mar  1 18:46:11.123: %SYS-5-CONFIG_I: Configured",
        b"Oct 11 22:14:15 h a: @cee: {\"a\":1}\n",
    ];
    let zone = jiff::tz::TimeZone::get("Europe/Berlin").unwrap();
    fuzz(&sound.map(<[u8]>::to_vec), |bytes| {
        let messages = [syslog::Message { bytes, sender: "1.2.3.4" }; 2];
        check(&syslog::messages(messages, &zone, &Options::default(), NOW).unwrap_or_else(|_| empty()));
    });
}

#[test]
fn forward_messages() {
    // ["t", [[1, {"log": "level=info x", "n": 5, "m": {"k": [1.5, true]}}]], {"chunk": "c", "size": 1}]
    let record = b"\x83\xa3log\xaclevel=info x\xa1n\x05\xa1m\x81\xa1k\x92\xcb\x3f\xf8\0\0\0\0\0\0\xc3";
    let entry = [&b"\x92\xd7\0\x69\x56\x62\x40\0\0\0\x01"[..], record].concat();
    let options = b"\x82\xa5chunk\xa1c\xa4size\x01";
    let forward = [b"\x93\xa1t\x91", &entry[..], options].concat();
    let packed = [b"\x92\xa1t\xc4", &[entry.len() as u8][..], &entry].concat();
    fuzz(&[forward, packed, entry], |body| {
        let end = msgpack::Boundary::default().find(body);
        assert!(end.is_ok_and(|end| end.is_none_or(|end| end <= body.len())) || end.is_err());
        if let Ok(forward::Message::Events(events)) = forward::message(body) {
            let (forward::Entries::One(entries) | forward::Entries::Many(entries)) = events.entries;
            check(&forward::records([(events.tag, entries)], &Options::default(), NOW).unwrap_or_else(|_| empty()));
        }
        check(&forward::records([("t", body)], &Options::default(), NOW).unwrap_or_else(|_| empty()));
    });
}

#[test]
fn lines_through_pipelines() {
    let stages = r#"[
        { multiline = { first = '^\S' } },
        { match = { match = 'line =~ "GET"', stages = [{ grok = { pattern = '%{IP:peer} %{GREEDYDATA:rest}' } }] } },
        { json = { prefix = "j." } }, { logfmt = {} }, { kv = { separator = ";", assign = ":" } },
        { regex = { expression = '(?P<code>\d+) (?P<text>.*)' } }, { dissect = { pattern = "%{a->} %{?b} %{c}" } },
        { timestamp = { source = "a", formats = ["auto", "%d/%b/%Y:%H:%M:%S %z"] } },
        { level = { source = "code", values = { "5*" = "error" } } }, { rename = { fields = { a = "z" } } },
        { mask = { kinds = ["email", "card", "ipv4", "password", "iban", "phone", "jwt"] } },
        { replace = { expression = '\d+', with = "0" } }, { decolorize = {} },
        { labels = { fields = { l = "${z}@${c}" } } }, { drop = { longer_than = 2000 } }, { remove = { fields = ["j.*"] } },
        { tenant = { source = "c" } },
    ]"#;
    let settings: Vec<crate::pipeline::settings::Pipeline> = toml::from_str::<std::collections::BTreeMap<String, _>>(
        &format!("pipeline = [{{ name = \"p\", stages = {stages} }}]"),
    )
    .unwrap()
    .remove("pipeline")
    .unwrap();
    let pipelines = Some(std::sync::Arc::new(Pipelines::compile(&settings).unwrap()));
    let tenant = Some(Tenant::default_tenant());
    let streams = Some(streams::Streams::new(1, NOW).of(&Tenant::default_tenant(), NOW));
    let options = Options { pipelines, tenant, streams, ..Options::default() };
    fuzz(&lines(), |body| {
        let decoded = jsonline::text(body, &options, NOW).unwrap_or_else(|_| empty());
        check(&decoded);
        decoded.others.iter().for_each(|(_, batch)| assert!(batch.num_rows() > 0));
        check(&jsonline::lines(body, &options, NOW).unwrap_or_else(|_| empty()));
    });
}

fn empty() -> Decoded {
    jsonline::text(b"", &Options::default(), NOW).unwrap()
}

#[test]
fn loki_pushes() {
    let entries: Vec<Vec<u8>> = lines().iter().map(|line| wire::entry(NOON, line, &[("trace_id", "ab")])).collect();
    let protobuf = wire::stream(r#"{app="web", level="warn"}"#, &entries);
    fuzz(&[protobuf], |body| check(&loki::push_protobuf(body, &Options::default(), NOW).unwrap_or_else(|_| empty())));
    let json =
        br#"{"streams":[{"stream":{"app":"web"},"values":[["1767268800000000001","level=info n=5",{"a":"b"}]]}]}"#;
    fuzz(&[json.to_vec()], |body| check(&loki::push_json(body, &Options::default(), NOW).unwrap_or_else(|_| empty())));
}

#[test]
fn otlp_logs() {
    use prost::Message;
    let json = br#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"pay"}}]},"scopeLogs":[{"scope":{"name":"l"},"logRecords":[{"timeUnixNano":"1767268800000000001","severityNumber":17,"body":{"stringValue":"{\"a\":1}"},"traceId":"0102030405060708090a0b0c0d0e0f10","attributes":[{"key":"n","value":{"intValue":"5"}},{"key":"l","value":{"arrayValue":{"values":[{"doubleValue":1.5}]}}}]}]}]}]}"#;
    fuzz(&[json.to_vec()], |body| check(&otlp::logs_json(body, &Options::default(), NOW).unwrap_or_else(|_| empty())));
    let message: opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest =
        serde_json::from_slice(json).unwrap();
    fuzz(&[message.encode_to_vec()], |body| {
        check(&otlp::logs_protobuf(body, &Options::default(), NOW).unwrap_or_else(|_| empty()));
    });
}
