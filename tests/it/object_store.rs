//! Quiver against an S3 server (moto, the one of those tried that keeps put-if-absent in a race).

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::backup::{end, run, text};
use crate::clients::python;
use crate::http;
use crate::quiver::{Quiver, data_dir, wait_for};

const BUCKET: &str = "backups";
const START_MAX: Duration = Duration::from_secs(60);

/// A running S3 server with an empty bucket; it ends with this value.
struct S3 {
    server: Child,
    url: String,
}

impl S3 {
    fn start() -> S3 {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("a port is free");
        let mut command = Command::new(python());
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &address.port().to_string()]);
        let server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("moto can be started");
        let s3 = S3 { server, url: format!("http://{address}") };
        wait_for("the S3 server", START_MAX, || {
            let made = http::request(&address.to_string(), "PUT", &format!("/{BUCKET}"), &[], b"");
            made.ok().filter(|answer| answer.status == 200)
        });
        s3
    }

    /// What a command prints that has to succeed.
    fn ok(&self, arguments: &[&str]) -> String {
        let variables = [
            ("AWS_ENDPOINT_URL", self.url.as_str()),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "AKIATEST"),
            ("AWS_SECRET_ACCESS_KEY", "not-a-secret"),
        ];
        let output = run(&variables, arguments);
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {stdout}{stderr}");
        assert!(!format!("{stdout}{stderr}").contains("not-a-secret"), "a secret is printed");
        stdout.into_owned()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        // An error here means that it has ended already.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Lines that hardly compress, so that a segment is larger than one part of an upload.
fn ingest_noise(quiver: &Quiver, records: usize) {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut letter = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[(state >> 58) as usize] as char
    };
    for _ in 0..records / 1_000 {
        let lines: Vec<String> = (0..1_000)
            .map(|_| {
                format!(r#"{{"ts":"2026-02-10T00:00:00Z","msg":"{}"}}"#, (0..300).map(|_| letter()).collect::<String>())
            })
            .collect();
        quiver.ingest(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn a_backup_goes_to_s3_and_comes_back() {
    let s3 = S3::start();
    let (dir, restored) = (data_dir(), data_dir());
    let target = format!("s3://{BUCKET}/stores/one");
    let quiver = Quiver::start(dir.path(), &[]);
    ingest_noise(&quiver, 40_000);
    end(quiver);
    let quiver = Quiver::start(dir.path(), &[]);
    quiver.ingest(&[r#"{"msg":"in the log only"}"#]);
    let sums = "SELECT count(*), max(message), min(message), sum(_seq) FROM logs";
    let before = quiver.sql(sums);

    let backup = ["backup", "--data-dir", text(dir.path()), "--to", &target, "--keep", "1"];
    let said = s3.ok(&backup);
    assert!(said.contains("1 segments with 40000 records") && said.contains("; 2 files"), "{said}");
    let bytes: u64 = {
        let listed = s3.ok(&["segments", "--data-dir", text(dir.path()), "--format", "json"]);
        serde_json::from_str::<serde_json::Value>(&listed).expect("it is JSON")["bytes"].as_u64().expect("a number")
    };
    assert!(bytes > 8 << 20, "{bytes} bytes are sent in one part");
    let said = s3.ok(&backup);
    assert!(said.contains("; 0 files") && said.contains("removed 1 older backups"), "{said}");
    s3.ok(&["verify", "--from", &target]);
    quiver.kill9();
    let to = restored.path().join("store");
    s3.ok(&["restore", "--from", &target, "--data-dir", text(&to)]);
    let quiver = Quiver::start(&to, &[]);
    assert_eq!(quiver.sql(sums), before);
}
