//! TLS on the store's own ports: HTTPS, gRPC and Flight SQL with real clients, certificates that change, clients that need
//! one. Listeners' TLS is with their senders.

use std::process::Command;
use std::time::Duration;

use crate::certificates::Authority;
use crate::clients::{python, run_python};
use crate::quiver::{Quiver, data_dir, repository, wait_for};

const SOON: Duration = Duration::from_secs(120);

#[test]
fn both_ports_speak_tls_and_follow_the_files() {
    let (dir, data) = (data_dir(), data_dir());
    let first = Authority::new(dir.path(), "first");
    let identity = first.sign(dir.path(), "server");
    let settings = [format!("server.tls.cert={}", identity.cert()), format!("server.tls.key={}", identity.key())];
    let arguments: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let quiver = Quiver::start(data.path(), &arguments);
    run_python("read_tls.py", &[&quiver.http, &quiver.grpc, first.file()]);

    // The same files, signed by another authority: soon those who trust that one are served.
    let second = Authority::new(dir.path(), "second");
    second.sign(dir.path(), "server");
    wait_for("the new certificate", SOON, || {
        let mut command = Command::new(python());
        command.arg(repository().join("tests/clients/read_tls.py")).args([&quiver.http, &quiver.grpc]);
        command.arg(second.file()).output().expect("it can be started").status.success().then_some(())
    });
    assert!(quiver.log().contains("the certificates were changed and read again"), "{}", quiver.log());

    // Files that are broken leave what was read before.
    std::fs::write(&identity.key, "no key").expect("it can be written");
    wait_for("the complaint", SOON, || {
        run_python("read_tls.py", &[&quiver.http, &quiver.grpc, second.file()]);
        quiver.log().contains("changed certificates can't be used").then_some(())
    });
    assert!(quiver.terminate().success());
}

#[test]
fn clients_may_need_certificates() {
    let (dir, data) = (data_dir(), data_dir());
    let authority = Authority::new(dir.path(), "authority");
    let (server, client) = (authority.sign(dir.path(), "server"), authority.sign(dir.path(), "client"));
    let stranger = Authority::new(dir.path(), "stranger").sign(dir.path(), "stranger");
    let settings = [
        format!("server.tls.cert={}", server.cert()),
        format!("server.tls.key={}", server.key()),
        format!("server.tls.client_ca={}", authority.file()),
    ];
    let arguments: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let quiver = Quiver::start(data.path(), &arguments);
    run_python("read_tls.py", &[&quiver.http, &quiver.grpc, authority.file(), client.cert(), client.key()]);
    for wrong in [&[][..], &[stranger.cert(), stranger.key()]] {
        let mut command = Command::new(python());
        command.arg(repository().join("tests/clients/read_tls.py"));
        command.args([&quiver.http, &quiver.grpc, authority.file()]).args(wrong);
        assert!(!command.output().expect("it can be started").status.success(), "{wrong:?}");
    }
}

#[test]
fn certificates_that_can_t_be_used_are_told_at_start() {
    let (dir, data) = (data_dir(), data_dir());
    let mut command = Command::new(crate::quiver::binary());
    command.args(["serve", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--data-dir"]).arg(data.path());
    let missing = dir.path().join("missing.pem");
    command.args(["--set", &format!("server.tls.cert={}", missing.display())]);
    command.args(["--set", &format!("server.tls.key={}", missing.display())]);
    let output = command.output().expect("it can be started");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("[server.tls]: can't read certificates of"), "{said}");
}
