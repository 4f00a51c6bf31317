//! Topics of a real broker as a way in: Apache Kafka from Maven (`make clients` puts its jars into tests/clients/kafka/lib),
//! one process per test, and librdkafka as the other clients.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::certificates::Authority;
use crate::clients::python;
use crate::http;
use crate::quiver::{Quiver, data_dir, repository, wait_for};

const SOON: Duration = Duration::from_secs(180);
const USER: &str = "alice";
const PASSWORD: &str = "kafka-secret";
/// Short, so that tests need not wait for the dead; long enough for a machine that is busy.
const SESSION: &str = "6s";

/// A broker that ends with the value.
struct Broker {
    dir: TempDir,
    child: Option<Child>,
    address: String,
    secure: String,
    authority: Authority,
}

fn free_ports<const N: usize>() -> [u16; N] {
    // All are held until the last one is known.
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("there are free ports"));
    listeners.each_ref().map(|listener| listener.local_addr().expect("it has an address").port())
}

fn java(arguments: &[&str], log: &Path) -> Command {
    let jars = repository().join("tests/clients/kafka/lib");
    assert!(jars.is_dir(), "'{}' is not there; `make clients` makes it", jars.display());
    let out = fs::OpenOptions::new().create(true).append(true).open(log).expect("a log can be made");
    let mut command = Command::new("java");
    command
        .args([
            "-Xmx256m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        ])
        .arg("-cp")
        .arg(format!("{}/*", jars.display()))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(out.try_clone().expect("a file can be shared"))
        .stderr(out);
    command
}

impl Broker {
    /// Formats a directory for a broker with a plain listener and one with TLS and credentials; it does not run yet.
    fn new() -> Broker {
        let dir = data_dir();
        let [plain, secure, controller] = free_ports();
        let authority = Authority::new(dir.path(), "authority");
        let identity = authority.sign(dir.path(), "broker");
        let read = |path: &PathBuf| fs::read_to_string(path).expect("it was written");
        let keystore = dir.path().join("keystore.pem");
        fs::write(&keystore, read(&identity.key) + &read(&identity.cert)).expect("it can be written");
        let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
        let settings = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{plain},SECURE://127.0.0.1:{secure},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SECURE://127.0.0.1:{secure}\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SECURE:SASL_SSL\n\
             listener.name.secure.ssl.keystore.type=PEM\nlistener.name.secure.ssl.keystore.location={keystore}\n\
             listener.name.secure.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n\
             listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";\n\
             listener.name.secure.scram-sha-256.sasl.jaas.config={scram}\n\
             listener.name.secure.scram-sha-512.sasl.jaas.config={scram}\n\
             log.dirs={logs}\nnum.partitions=3\nauto.create.topics.enable=false\nlog.retention.ms=-1\n\
             offsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=1\ngroup.initial.rebalance.delay.ms=0\n\
             broker.session.timeout.ms=5000\nbroker.heartbeat.interval.ms=500\n",
            keystore = keystore.display(),
            logs = dir.path().join("logs").display(),
        );
        let properties = dir.path().join("server.properties");
        fs::write(&properties, settings).expect("it can be written");
        let address = |port| format!("127.0.0.1:{port}");
        let (address, secure) = (address(plain), address(secure));
        let broker = Broker { dir, child: None, address, secure, authority };
        let properties = properties.to_str().expect("temporary paths are UTF-8");
        let credentials = ["256", "512"].map(|bits| format!("SCRAM-SHA-{bits}=[name={USER},password=\"{PASSWORD}\"]"));
        let format = ["kafka.tools.StorageTool", "format", "-t", "5L6g3nShT-eMCtK--X86sw", "-c", properties];
        let scram = credentials.iter().flat_map(|one| ["--add-scram", one]);
        let arguments: Vec<&str> = format.into_iter().chain(scram).collect();
        let done = java(&arguments, &broker.log()).status().expect("java runs; `make clients` installs it");
        assert!(done.success(), "{}", fs::read_to_string(broker.log()).unwrap_or_default());
        broker
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("broker.log")
    }

    fn start(&mut self) {
        let properties = self.dir.path().join("server.properties");
        let arguments = ["kafka.Kafka", properties.to_str().expect("temporary paths are UTF-8")];
        self.child = Some(java(&arguments, &self.log()).spawn().expect("java runs"));
        wait_for("the broker", SOON, || std::net::TcpStream::connect(&self.address).ok());
    }

    fn running() -> Broker {
        let mut broker = Broker::new();
        broker.start();
        broker
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Runs the client; gives what it printed.
    fn client(&self, arguments: &[&str], input: &str) -> String {
        let mut child = self.spawn_client(arguments);
        child.stdin.take().expect("stdin is piped").write_all(input.as_bytes()).expect("it reads");
        let done = child.wait_with_output().expect("it ends");
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).expect("it prints text")
    }

    fn spawn_client(&self, arguments: &[&str]) -> Child {
        Command::new(python())
            .arg(repository().join("tests/clients/push_kafka.py"))
            .arg(&self.address)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Python runs; `make clients` sets it up")
    }

    fn create(&self, topic: &str, partitions: u32) {
        self.client(&["create", topic, &partitions.to_string()], "");
    }

    fn produce(&self, topic: &str, compression: &str, records: &[Value]) {
        let lines: Vec<String> = records.iter().map(Value::to_string).collect();
        self.client(&["produce", topic, compression], &lines.join("\n"));
    }

    /// Produces lines that say their numbers.
    fn number(&self, topic: &str, numbers: std::ops::Range<u64>) {
        let records: Vec<Value> = numbers.map(|n| json!({"value": json!({"msg": "m", "n": n}).to_string()})).collect();
        self.produce(topic, "lz4", &records);
    }

    fn committed(&self, topic: &str, group: &str, partitions: u32) -> i64 {
        let text = self.client(&["committed", topic, group, &partitions.to_string()], "");
        let offsets: Vec<i64> = serde_json::from_str(&text).expect("it prints JSON");
        offsets.into_iter().filter(|offset| *offset > 0).sum()
    }

    /// The config of a source, with what is given besides.
    fn source(&self, topics: &str, more: &str) -> String {
        let address = &self.address;
        format!("[[kafka]]\nbrokers = [\"{address}\"]\ntopics = [{topics}]\nsession_timeout = \"{SESSION}\"\n{more}\n")
    }

    /// Starts a store with a config file.
    fn store(&self, data: &Path, config: &str) -> Quiver {
        let file = data.with_extension("toml");
        fs::write(&file, config).expect("it can be written");
        Quiver::start(data, &["--config", file.to_str().expect("temporary paths are UTF-8")])
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- log of the broker ---\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
        }
    }
}

/// A count; 0 while there is no record yet that has the fields it names.
fn count(quiver: &Quiver, sql: &str) -> u64 {
    let answer = quiver.ask("", "application/x-ndjson", sql);
    if answer.status == 400 && answer.text().contains("no field named") { 0 } else { quiver.count(sql) }
}

/// Waits until there are so many records; more are a failure.
fn wait_for_count(quiver: &Quiver, sql: &str, wanted: u64) {
    let found = wait_for(sql, SOON, || Some(count(quiver, sql)).filter(|found| *found >= wanted));
    assert_eq!(found, wanted, "{sql}");
}

/// Checks that each number below `count` came, and once.
fn check_numbers(quiver: &Quiver, topic: &str, wanted: u64) {
    let of = format!("FROM logs WHERE \"kafka.topic\" = '{topic}'");
    wait_for_count(quiver, &format!("SELECT count(DISTINCT n) {of}"), wanted);
    assert_eq!(quiver.count(&format!("SELECT count(*) {of}")), wanted, "records of '{topic}' are doubled");
}

#[test]
fn records_are_read_whatever_they_are() {
    let broker = Broker::running();
    for topic in ["logs", "codecs", "secure"] {
        broker.create(topic, 2);
    }
    let otlp = r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"pay"}}]},"scopeLogs":[{"logRecords":[{"body":{"stringValue":"by OTLP"},"severityNumber":17}]}]}]}"#;
    // ExportLogsServiceRequest { resource_logs: [{ scope_logs: [{ log_records: [{ body: "by protobuf" }] }] }] }
    let protobuf = b"\x0a\x15\x12\x13\x12\x11\x2a\x0f\x0a\x0dby protobuf!!";
    let base64 = |bytes: &[u8]| base64::prelude::BASE64_STANDARD.encode(bytes);
    let at = 1_767_268_800_123i64;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    broker.produce(
        "logs",
        "none",
        &[
            json!({"value": r#"{"ts":"2026-02-10T12:01:22Z","level":"error","service":"shop","msg":"JSON"}"#, "partition": 0}),
            json!({"value": "level=warn msg=logfmt", "timestamp": at, "partition": 0, "key": "k1",
                   "headers": {"traceparent": trace, "env": "prod"}}),
            json!({"value": otlp, "timestamp": at, "partition": 0}),
            json!({"base64": base64(protobuf), "timestamp": at, "partition": 0}),
            json!({"base64": base64(&[0, 1, 2, 0xff]), "partition": 0}),
            json!({"value": "{\"n\":1}\n{\"n\":2}", "timestamp": at, "partition": 0}),
            json!({"value": "after the poison", "timestamp": at, "partition": 0}),
        ],
    );
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let records: Vec<Value> = (0..50).map(|n| json!({"value": format!("codec={codec} n={n}")})).collect();
        broker.produce("codecs", codec, &records);
    }
    broker.produce("secure", "zstd", &[json!({"value": "a secret"})]);

    let data = data_dir();
    let mut config = broker.source(
        "\"logs\"",
        "group = \"values\"\nfields = [\"topic\", \"partition\", \"offset\", \"key\", \"headers\"]",
    );
    config += &broker.source("\"^codecs?$\"", "group = \"codecs\"");
    for (number, sasl) in ["plain", "scram-sha-256", "scram-sha-512"].into_iter().enumerate() {
        config += &format!(
            "[[kafka]]\nbrokers = [\"{}\"]\ntopics = [\"secure\"]\ngroup = \"secure{number}\"\nsession_timeout = \"{SESSION}\"\n\
             tls = true\ntls_ca = \"{}\"\nsasl = \"{sasl}\"\nuser = \"{USER}\"\npassword = \"{PASSWORD}\"\ntenant = \"secure\"\n",
            broker.secure,
            broker.authority.file(),
        );
    }
    let quiver = broker.store(data.path(), &config);
    wait_for_count(&quiver, "SELECT count(*) FROM logs WHERE \"kafka.topic\" = 'logs'", 7);
    let columns =
        "timestamp, level, service, message, trace_id, n, \"kafka.key\", \"kafka.header.env\", \"kafka.offset\"";
    let rows =
        quiver.sql(&format!("SELECT {columns} FROM logs WHERE \"kafka.topic\" = 'logs' ORDER BY \"kafka.offset\", n"));
    let time = "2026-01-01T12:00:00.123Z";
    let row = |time: &str, level: Value, service: &str, message: Value, offset: i64, n: Value| json!({"timestamp": time, "level": level, "service": service, "message": message, "kafka.offset": offset, "n": n});
    let mut expected = [
        row("2026-02-10T12:01:22Z", json!("error"), "shop", json!("JSON"), 0, Value::Null),
        row(time, json!("warn"), "logs", json!("logfmt"), 1, Value::Null),
        row(time, json!("error"), "pay", json!("by OTLP"), 2, Value::Null),
        row(time, Value::Null, "logs", json!("by protobuf!!"), 3, Value::Null),
        row(time, Value::Null, "logs", Value::Null, 5, json!(1)),
        row(time, Value::Null, "logs", Value::Null, 5, json!(2)),
        row(time, Value::Null, "logs", json!("after the poison"), 6, Value::Null),
    ];
    expected[1]["trace_id"] = json!("4bf92f3577b34da6a3ce929d0e0e4736");
    (expected[1]["kafka.key"], expected[1]["kafka.header.env"]) = (json!("k1"), json!("prod"));
    for (row, expected) in rows.iter().zip(&expected) {
        let told = row.as_object().expect("a row is an object").iter().filter(|(_, value)| !value.is_null());
        let wanted = expected.as_object().expect("so is this").iter().filter(|(_, value)| !value.is_null());
        let (told, wanted): (BTreeSet<_>, BTreeSet<_>) =
            (told.map(|pair| format!("{pair:?}")).collect(), wanted.map(|pair| format!("{pair:?}")).collect());
        assert_eq!(told, wanted);
    }
    wait_for_count(&quiver, "SELECT count(*) FROM logs WHERE codec IS NOT NULL", 250);
    assert_eq!(quiver.count("SELECT count(DISTINCT codec) FROM logs"), 5);
    let secrets = || {
        let sql = b"SELECT count(*) AS c FROM logs WHERE message = 'a secret'";
        let headers = [("x-scope-orgid", "secure"), ("accept", "application/x-ndjson")];
        let answer = http::request(&quiver.http, "POST", "/api/v1/sql", &headers, sql).ok()?;
        serde_json::from_str::<Value>(answer.text().lines().next()?).ok()?["c"].as_u64()
    };
    wait_for("three ways to show credentials", SOON, || secrets().filter(|count| *count == 3));
    let metrics = wait_for("no lag", SOON, || {
        let text = quiver.get("/metrics").text().to_owned();
        text.contains("quiver_kafka_lag_records{group=\"values\",topic=\"logs\",partition=\"0\"} 0").then_some(text)
    });
    for line in [
        "quiver_ingest_rejected_records_total{protocol=\"kafka\",tenant=\"default\",reason=\"malformed\"} 1",
        "quiver_kafka_connected{group=\"codecs\"} 1",
        "quiver_kafka_partitions{group=\"values\"} 2",
    ] {
        assert!(metrics.contains(line), "{line} is not in:\n{metrics}");
    }
    let log = quiver.log();
    assert!(log.contains("offset 4 of 'logs', partition 0: 4 bytes that are neither text nor OTLP"), "{log}");
    assert!(!log.contains(PASSWORD), "the log tells the password");
    assert!(quiver.terminate().success());
    wait_for("the commits", SOON, || (broker.committed("logs", "values", 2) == 7).then_some(()));
}

#[test]
fn what_was_kept_is_not_kept_twice() {
    let broker = Broker::running();
    broker.create("numbers", 3);
    let data = data_dir();
    let config = broker.source("\"numbers\"", "group = \"g\"\ninstance = \"store-1\"");
    let mut quiver = broker.store(data.path(), &config);
    // Killed while it reads; what was kept and not committed comes again.
    for round in 0..3u64 {
        broker.number("numbers", round * 2_000..(round + 1) * 2_000);
        let some = format!("SELECT count(*) FROM logs WHERE n >= {}", round * 2_000);
        wait_for("some of the records", SOON, || (count(&quiver, &some) > 0).then_some(()));
        quiver.kill9();
        quiver = broker.store(data.path(), &config);
    }
    check_numbers(&quiver, "numbers", 6_000);
    // The same with all commits lost: the store itself knows how far it is, from its log and from its catalog.
    for is_flushed in [false, true] {
        if is_flushed {
            assert!(quiver.terminate().success());
        } else {
            quiver.kill9();
        }
        broker.client(&["reset", "numbers", "g", "3", "0"], "");
        quiver = broker.store(data.path(), &config);
        let more = if is_flushed { 6_010..6_020 } else { 6_000..6_010 };
        let wanted = more.end;
        broker.number("numbers", more);
        check_numbers(&quiver, "numbers", wanted);
    }
    // A topic that is made again under its name has other records, which begin at 0.
    for from in [6_020, 6_040, 6_060] {
        broker.client(&["delete", "numbers"], "");
        broker.create("numbers", 3);
        broker.number("numbers", from..from + 20);
        check_numbers(&quiver, "numbers", from + 20);
    }
    // Another group reads everything once more.
    quiver.kill9();
    let quiver = broker.store(data.path(), &broker.source("\"numbers\"", "group = \"other\"\nstart = \"latest\""));
    wait_for("the start to be known", SOON, || {
        quiver.get("/metrics").text().contains("quiver_kafka_connected{group=\"other\"} 1").then_some(())
    });
    broker.number("numbers", 6_080..6_090);
    check_numbers(&quiver, "numbers", 6_090);
}

#[test]
fn members_of_a_group_share_partitions() {
    let broker = Broker::running();
    broker.create("shared", 4);
    let (first_data, second_data) = (data_dir(), data_dir());
    let config = broker.source("\"shared\"", "group = \"team\"");
    let first = broker.store(first_data.path(), &config);
    broker.number("shared", 0..1_000);
    let total = |quiver: &Quiver| quiver.count("SELECT count(*) FROM logs");
    let has = |quiver: &Quiver, partitions: &str| {
        quiver.get("/metrics").text().contains(&format!("quiver_kafka_partitions{{group=\"team\"}} {partitions}\n"))
    };
    wait_for("the first member", SOON, || (total(&first) == 1_000).then_some(()));
    let second = broker.store(second_data.path(), &config);
    // It comes while records do.
    broker.number("shared", 1_000..3_000);
    wait_for("two shares", SOON, || (has(&first, "2") && has(&second, "2")).then_some(()));
    broker.number("shared", 3_000..4_000);
    wait_for("both members", SOON, || (total(&first) + total(&second) >= 4_000).then_some(()));
    assert!(total(&second) > 0);
    let numbers = |quiver: &Quiver| -> Vec<u64> {
        quiver.sql("SELECT n FROM logs").iter().map(|row| row["n"].as_u64().expect("a number")).collect()
    };
    let check = |all: Vec<u64>, wanted: u64| {
        let different: BTreeSet<u64> = all.iter().copied().collect();
        assert_eq!((all.len() as u64, different.len() as u64), (wanted, wanted), "records are doubled or lost");
    };
    check([numbers(&first), numbers(&second)].concat(), 4_000);

    // Another client comes, and a store goes.
    let mut other = broker.spawn_client(&["consume", "shared", "team"]);
    let lines = Arc::new(Mutex::new(Vec::<String>::new()));
    let reader = BufReader::new(other.stdout.take().expect("stdout is piped"));
    let gathered = lines.clone();
    let gather = std::thread::spawn(move || {
        reader.lines().map_while(Result::ok).for_each(|line| gathered.lock().expect("no panic").push(line));
    });
    wait_for("the other client's share", SOON, || {
        lines.lock().expect("no panic").iter().any(|line| line.starts_with("#assigned")).then_some(())
    });
    let of_first = numbers(&first);
    assert!(first.terminate().success());
    broker.number("shared", 4_000..5_000);
    let of_other = || -> Vec<u64> {
        let lines = lines.lock().expect("no panic");
        let read = |line: &String| serde_json::from_str::<Value>(line).ok()?["n"].as_u64();
        lines.iter().filter_map(read).collect()
    };
    wait_for("what is left", SOON, || {
        (of_first.len() + numbers(&second).len() + of_other().len() >= 5_000).then_some(())
    });
    drop(other.stdin.take());
    assert!(other.wait().expect("it ends").success());
    gather.join().expect("it does not panic");
    assert!(!of_other().is_empty());
    check([of_first, numbers(&second), of_other()].concat(), 5_000);
}

#[test]
fn a_source_waits_for_its_broker_and_for_its_store() {
    let mut broker = Broker::new();
    let data = data_dir();
    // 40 KB a second are less than what comes.
    let limits = "[limits]\nbytes_per_second = \"40KB\"\nburst_bytes = \"40KB\"\n";
    let config = broker.source("\"numbers\"", "group = \"g\"\nfetch_bytes_max = \"16KiB\"") + limits;
    let quiver = broker.store(data.path(), &config);
    wait_for("a failure that is told", SOON, || quiver.log().contains("Kafka is tried again").then_some(()));
    assert_eq!(quiver.get("/ready").status, 200, "the store works without its broker");
    broker.start();
    wait_for("the group, though the topic is missing", SOON, || {
        quiver.get("/metrics").text().contains("quiver_kafka_connected{group=\"g\"} 1").then_some(())
    });
    broker.create("numbers", 3);
    broker.number("numbers", 0..10_000);
    let waits = || {
        let text = quiver.get("/metrics").text().to_owned();
        let line = text.lines().find_map(|line| line.strip_prefix("quiver_kafka_waits_total{group=\"g\"} "));
        line.and_then(|waits| waits.parse::<f64>().ok()).unwrap_or(0.0)
    };
    wait_for("the store's limit", SOON, || (waits() > 0.0).then_some(()));
    check_numbers(&quiver, "numbers", 10_000);
    broker.kill();
    broker.start();
    broker.number("numbers", 10_000..10_100);
    check_numbers(&quiver, "numbers", 10_100);
    assert!(quiver.terminate().success());
}
