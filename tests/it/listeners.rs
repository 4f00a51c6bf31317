//! The sockets of syslog, GELF and Forward by exact bytes: transports, framings, limits, back-pressure and the end.
//! Real senders are in `syslog_daemons` and `forward_clients`.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::quiver::{Quiver, data_dir, wait_for};

/// Longer than anything here takes on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// Waits until so many records are there, and gives the asked columns, in order of arrival.
pub fn rows(quiver: &Quiver, count: u64, columns: &str) -> Vec<Value> {
    wait_for(&format!("{count} records"), SOON, || (quiver.count("SELECT count(*) FROM logs") >= count).then_some(()));
    let rows = quiver.sql(&format!("SELECT {columns} FROM logs ORDER BY _seq"));
    assert_eq!(rows.len() as u64, count, "{rows:?}");
    rows
}

fn start(arguments: &[&str]) -> (tempfile::TempDir, Quiver) {
    let dir = data_dir();
    let settings: Vec<&str> = arguments.iter().flat_map(|setting| ["--set", setting]).collect();
    let quiver = Quiver::start(dir.path(), &settings);
    (dir, quiver)
}

/// A metric of one listener.
fn metric(quiver: &Quiver, name: &str, listener: &str) -> f64 {
    quiver.metric(&format!("{name}{{listener=\"{listener}\"}}"))
}

/// Messages that a listener rejected for a reason.
fn rejected(quiver: &Quiver, listener: &str, reason: &str) -> f64 {
    let name = "quiver_ingest_rejected_records_total";
    quiver.metric(&format!("{name}{{protocol=\"{listener}\",tenant=\"default\",reason=\"{reason}\"}}"))
}

fn connect(quiver: &Quiver, listener: &str) -> TcpStream {
    let stream = TcpStream::connect(quiver.listener(listener)).expect("the listener accepts");
    stream.set_read_timeout(Some(SOON)).expect("it can be set");
    stream
}

fn send_udp(quiver: &Quiver, listener: &str, datagrams: &[&[u8]]) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    for datagram in datagrams {
        socket.send_to(datagram, quiver.listener(listener)).expect("it is sent");
    }
}

#[test]
fn syslog_comes_by_every_transport() {
    let sockets = data_dir();
    let (datagrams, streams) = (sockets.path().join("log"), sockets.path().join("stream"));
    let settings = [
        "listen.syslog.udp=127.0.0.1:0".to_owned(),
        "listen.syslog.tcp=127.0.0.1:0".to_owned(),
        format!("listen.syslog.unix_datagram={}", datagrams.display()),
        format!("listen.syslog.unix_stream={}", streams.display()),
        "listen.syslog.timezone=Europe/Berlin".to_owned(),
    ];
    let (_dir, quiver) = start(&settings.each_ref().map(String::as_str));
    let mut expected = Vec::new();
    let mut sent = |app: &str, level: &str, hostname: Option<&str>| {
        let mut row = json!({"service": app, "level": level, "message": format!("from {app}")});
        if let Some(hostname) = hostname {
            row["hostname"] = json!(hostname);
        }
        expected.push(row);
        rows(&quiver, expected.len() as u64, "service, level, message, hostname")
    };
    send_udp(&quiver, "syslog.udp", &[b"<11>1 2026-01-01T12:00:00Z h udp - - - from udp"]);
    sent("udp", "error", Some("h"));
    // No line end at the end of the connection, as `logger` leaves it.
    connect(&quiver, "syslog.tcp").write_all(b"<14>Jan  1 12:00:00 h lines[1]: from lines").expect("it is sent");
    sent("lines", "info", Some("h"));
    let mut counted = connect(&quiver, "syslog.tcp");
    let text = "<12>1 - h counted - - - from counted\n";
    counted.write_all(format!("{} {text}\n", text.len()).as_bytes()).expect("it is sent");
    sent("counted", "warn", Some("h"));
    UnixDatagram::unbound()
        .and_then(|socket| socket.send_to(b"<15>Jan  1 12:00:00 local[2]: from local", &datagrams))
        .expect("it is sent");
    sent("local", "debug", None);
    let mut stream = UnixStream::connect(&streams).expect("the listener accepts");
    stream.write_all(b"<8>Jan  1 12:00:00 stream: from stream\n").expect("it is sent");
    let rows = sent("stream", "fatal", None);
    assert_eq!(rows, expected);
    // Noon in Berlin, in a year that was not told.
    let times = quiver.sql("SELECT DISTINCT CAST(timestamp AS VARCHAR) AS at FROM logs WHERE service = 'local'");
    assert!(times[0]["at"].as_str().is_some_and(|at| at.ends_with("-01-01T11:00:00Z")), "{times:?}");
    assert_eq!(metric(&quiver, "quiver_listen_accepted_connections_total", "syslog.tcp"), 2.0);
    assert_eq!(metric(&quiver, "quiver_listen_dropped_datagrams_total", "syslog.udp"), 0.0);
    assert!(quiver.metric("quiver_ingest_records_total{protocol=\"syslog.udp\"}") == 1.0);
    assert!(quiver.terminate().success(), "open connections do not hold the store");
    assert!(!datagrams.exists() && !streams.exists(), "its sockets go with it");
}

#[test]
fn what_can_t_be_kept_costs_nothing_else() {
    let (_dir, quiver) = start(&[
        "listen.syslog.tcp=127.0.0.1:0",
        "listen.gelf.udp=127.0.0.1:0",
        "listen.message_bytes_max=1KiB",
        "listen.connections_max=1",
    ]);
    let mut stream = connect(&quiver, "syslog.tcp");
    let long = format!("<13>h a: {}\n", "x".repeat(3_000));
    stream
        .write_all(format!("<13>a: before\n{long}<13>a: between\n2000 {}<13>a: after\n", &long[..2_000]).as_bytes())
        .expect("it is sent");
    let messages = rows(&quiver, 3, "message");
    assert_eq!(messages, [json!({"message": "before"}), json!({"message": "between"}), json!({"message": "after"})]);
    assert_eq!(rejected(&quiver, "syslog.tcp", "too_long"), 2.0);
    assert!(quiver.log().contains("listen.message_bytes_max is 1024"), "{}", quiver.log());
    // The second connection is closed at once.
    let mut second = connect(&quiver, "syslog.tcp");
    assert_eq!(second.read(&mut [0; 1]).expect("it is closed"), 0);
    assert_eq!(metric(&quiver, "quiver_listen_refused_connections_total", "syslog.tcp"), 1.0);
    assert_eq!(metric(&quiver, "quiver_listen_connections", "syslog.tcp"), 1.0);
    // A bomb, and what is no GELF.
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    bomb.write_all(&[b' '; 100_000]).and_then(|()| bomb.flush()).expect("it is packed");
    send_udp(&quiver, "gelf.udp", &[&bomb.finish().expect("it is packed"), b"{", br#"{"short_message":"good"}"#]);
    assert_eq!(rows(&quiver, 4, "message")[3], json!({"message": "good"}));
    wait_for("both rejections", SOON, || {
        let text = quiver.get("/metrics").text().to_owned();
        let of =
            |reason: &str| text.contains(&format!("protocol=\"gelf.udp\",tenant=\"default\",reason=\"{reason}\"}} 1"));
        (of("too_long") && of("malformed")).then_some(())
    });
}

#[test]
fn an_idle_connection_is_closed() {
    let (_dir, quiver) = start(&["listen.syslog.tcp=127.0.0.1:0", "listen.idle_timeout=2s"]);
    let mut stream = connect(&quiver, "syslog.tcp");
    stream.write_all(b"<13>a: first\n<13>a: cut").expect("it is sent");
    assert_eq!(stream.read(&mut [0; 1]).expect("it is closed"), 0);
    assert_eq!(rows(&quiver, 2, "message")[1], json!({"message": "cut"}));
}

#[test]
fn gelf_comes_whole_packed_chunked_and_framed() {
    let (_dir, quiver) = start(&["listen.gelf.udp=127.0.0.1:0", "listen.gelf.tcp=127.0.0.1:0"]);
    let message =
        |text: &str| format!(r#"{{"version":"1.1","host":"h","short_message":"{text}","level":3,"_user_id":7}}"#);
    let gzip = |text: &str| {
        let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        to.write_all(message(text).as_bytes()).expect("it is packed");
        to.finish().expect("it is packed")
    };
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    zlib.write_all(message("zlib").as_bytes()).expect("it is packed");
    let chunked = gzip("chunked");
    let parts: Vec<&[u8]> = chunked.chunks(chunked.len().div_ceil(3)).collect();
    let chunk = |number: usize| [b"\x1e\x0fABCDEFGH", &[number as u8, parts.len() as u8][..], parts[number]].concat();
    let datagrams = [
        message("plain").into_bytes(),
        gzip("gzip"),
        zlib.finish().expect("it is packed"),
        chunk(2),
        chunk(0),
        chunk(1),
    ];
    send_udp(&quiver, "gelf.udp", &datagrams.each_ref().map(Vec::as_slice));
    rows(&quiver, 4, "message");
    let mut stream = connect(&quiver, "gelf.tcp");
    stream.write_all(format!("{}\0{}\0", message("framed"), message("twice")).as_bytes()).expect("it is sent");
    let expected = ["plain", "gzip", "zlib", "chunked", "framed", "twice"]
        .map(|text| json!({"message": text, "level": "error", "host": "h", "user_id": 7}));
    assert_eq!(rows(&quiver, 6, "message, level, host, user_id"), expected);
}

#[test]
fn a_burst_is_kept_whole_and_in_order() {
    let (_dir, quiver) = start(&["listen.syslog.tcp=127.0.0.1:0", "listen.queue_bytes_max=64KiB"]);
    let mut stream = connect(&quiver, "syslog.tcp");
    let lines: String = (0..5_000).map(|n| format!("<14>1 - h burst - - - {{\"n\":{n}}}\n")).collect();
    stream.write_all(lines.as_bytes()).expect("it is sent");
    drop(stream);
    wait_for("the burst", SOON, || (quiver.count("SELECT count(*) FROM logs") == 5_000).then_some(()));
    assert_eq!(quiver.count("SELECT count(DISTINCT n) FROM logs"), 5_000);
    let unordered =
        "SELECT count(*) FROM (SELECT n, lag(n) OVER (ORDER BY _seq) AS before FROM logs) WHERE n <= before";
    assert_eq!(quiver.count(unordered), 0);
    // Terminated in the middle of a stream, nothing that was queued is lost, and the next start has it.
    assert!(quiver.terminate().success());
}

#[test]
fn a_tenant_of_its_own() {
    let (_dir, quiver) = start(&["listen.syslog.udp=127.0.0.1:0", "listen.syslog.tenant=network"]);
    send_udp(&quiver, "syslog.udp", &[b"<11>1 - switch port - - - down"]);
    let headers = [("accept", "application/x-ndjson"), ("x-scope-orgid", "network")];
    wait_for("the record of the tenant", SOON, || {
        let answer = crate::http::request(&quiver.http, "POST", "/api/v1/sql", &headers, b"SELECT message FROM logs");
        answer.expect("it answers").text().contains("down").then_some(())
    });
    assert_eq!(quiver.count("SELECT count(*) FROM logs"), 0);
}
