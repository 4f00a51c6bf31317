//! Fluent Forward's clients against the store: fluent-logger, and a client written to the specification that does what
//! Fluentd and Fluent Bit do on top (handshake, packed and compressed chunks, acknowledgements). What they send and demand
//! stands in `tests/clients`.

use std::net::UdpSocket;
use std::time::Duration;

use serde_json::{Value, json};

use crate::certificates::Authority;
use crate::clients::run_python;
use crate::listeners::rows;
use crate::quiver::{Quiver, data_dir};

fn start(settings: &[&str]) -> (tempfile::TempDir, Quiver) {
    let dir = data_dir();
    let mut arguments = vec!["--set", "listen.forward.tcp=127.0.0.1:0"];
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    let quiver = Quiver::start(dir.path(), &arguments);
    (dir, quiver)
}

/// Runs the client; `asked` is what its argument tells.
fn push(quiver: &Quiver, listener: &str, mut asked: Value) {
    asked["address"] = json!(quiver.listener(listener));
    run_python("push_forward.py", &[&asked.to_string()]);
}

#[test]
fn fluent_logger_sends() {
    let (_dir, quiver) = start(&[]);
    run_python("push_fluent_logger.py", &[&quiver.listener("forward.tcp")]);
    let columns = r#"tag, service, level, message, "user.id", "user.name", status, "from", "to""#;
    let expected = json!([
        {"tag": "shop.cart", "service": "shop.cart", "message": "cart opened", "user.id": 7, "user.name": "\u{e9}"},
        {"tag": "shop.cart", "service": "/cart", "level": "error", "message": "declined", "status": 402},
        {"tag": "shop", "service": "shop", "from": "a", "to": "[\"b\",\"c\"]"},
    ]);
    assert_eq!(Value::from(rows(&quiver, 3, columns)), expected);
    let time = quiver.count("SELECT CAST(timestamp AS BIGINT) AS ns FROM logs WHERE message = 'cart opened'");
    assert_eq!(time, 1_770_725_100_500_000_000);
}

#[test]
fn every_mode_is_kept_and_acknowledged() {
    let (_dir, quiver) = start(&[]);
    for (index, mode) in ["forward", "packed", "gzip", "zstd"].into_iter().enumerate() {
        let asked = json!({"mode": mode, "chunk": format!("chunk {mode}"), "first": index * 100, "count": 100});
        push(&quiver, "forward.tcp", asked);
        // The acknowledgement was waited for: everything is there.
        assert_eq!(quiver.count("SELECT count(DISTINCT n) FROM logs"), (index as u64 + 1) * 100, "{mode}");
    }
    push(&quiver, "forward.tcp", json!({"mode": "packed", "first": 400, "count": 1}));
    let last = &rows(&quiver, 401, "message, service, tag, n, CAST(timestamp AS BIGINT) AS ns")[400];
    let expected = json!({"message": "event 400", "service": "app.web", "tag": "app.web", "n": 400, "ns": 1_770_725_100_000_000_005_i64});
    assert_eq!(last, &expected);
}

#[test]
fn a_chunk_that_comes_again_is_kept_once() {
    let (dir, quiver) = start(&[]);
    let chunk = json!({"mode": "gzip", "chunk": "the same", "count": 10});
    for _ in 0..3 {
        push(&quiver, "forward.tcp", chunk.clone());
    }
    assert_eq!(quiver.count("SELECT count(*) FROM logs"), 10);
    assert_eq!(quiver.metric("quiver_listen_repeated_chunks_total{listener=\"forward.tcp\"}"), 2.0);
    quiver.kill9();
    let quiver = Quiver::start(dir.path(), &["--set", "listen.forward.tcp=127.0.0.1:0"]);
    push(&quiver, "forward.tcp", chunk);
    assert_eq!(quiver.count("SELECT count(*) FROM logs"), 10, "also after a crash");
}

#[test]
fn what_was_acknowledged_outlives_a_kill() {
    let (dir, quiver) = start(&[]);
    push(&quiver, "forward.tcp", json!({"mode": "packed", "chunk": "a", "count": 1_000}));
    quiver.kill9();
    let quiver = Quiver::start(dir.path(), &[]);
    assert_eq!(quiver.count("SELECT count(*) FROM logs"), 1_000);
}

#[test]
fn only_those_who_know_key_and_password_come_in() {
    let certificates = data_dir();
    let authority = Authority::new(certificates.path(), "authority");
    let identity = authority.sign(certificates.path(), "server");
    let (_dir, quiver) = start(&[
        "listen.forward.tls=127.0.0.1:0",
        &format!("listen.tls.cert={}", identity.cert()),
        &format!("listen.tls.key={}", identity.key()),
        "listen.forward.shared_key=secret",
        "listen.forward.users=fluent:password",
    ]);
    let asked = |key: &str, password: &str| json!({"shared_key": key, "user": "fluent", "password": password, "count": 1, "chunk": "c"});
    let refused = |mut asked: Value, reason: &str| {
        asked["refused"] = json!(reason);
        push(&quiver, "forward.tcp", asked);
    };
    refused(asked("wrong", "password"), "shared_key mismatch");
    refused(asked("secret", "wrong"), "username/password mismatch");
    assert_eq!(quiver.metric("quiver_listen_refused_connections_total{listener=\"forward.tcp\"}"), 2.0);
    assert_eq!(quiver.count("SELECT count(*) FROM logs"), 0);
    push(&quiver, "forward.tcp", asked("secret", "password"));
    let mut over_tls = asked("secret", "password");
    (over_tls["ca"], over_tls["chunk"]) = (json!(authority.file()), json!("d"));
    push(&quiver, "forward.tls", over_tls);
    assert_eq!(quiver.count("SELECT count(*) FROM logs"), 2);
    assert!(!quiver.log().contains("secret"), "secrets are not logged");
}

#[test]
fn heartbeats_are_answered() {
    let (_dir, quiver) = start(&[]);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("it can be set");
    socket.send_to(&[0], quiver.listener("forward.tcp")).expect("it is sent");
    let mut answer = [9; 8];
    assert_eq!(socket.recv(&mut answer).expect("it is answered"), 1);
    assert_eq!(answer[0], 0);
}
