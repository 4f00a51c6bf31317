//! rsyslog and syslog-ng, as Debian has them, send to the store by every transport. `make test` sets them up: rsyslog from
//! its package, syslog-ng unpacked in tests/clients/syslog-ng, since their packages exclude each other.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::certificates::Authority;
use crate::listeners::rows;
use crate::quiver::{Quiver, data_dir, repository, wait_for};

const SOON: Duration = Duration::from_secs(60);
const COLUMNS: &str = "service, level, message, hostname, procid, n";

/// A daemon that ends with the value; its output is shown when the test fails.
struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    fn start(mut command: Command, dir: &Path) -> Daemon {
        let log = dir.join("daemon.log");
        let out = fs::File::create(&log).expect("a log can be made");
        let err = out.try_clone().expect("a file can be shared");
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        Daemon { child: child.unwrap_or_else(|error| panic!("{command:?}: {error}; `make test` sets it up")), log }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the daemon ---\n{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The store, a directory with an authority and the daemon's input socket, and what listens.
struct Setup {
    quiver: Quiver,
    dir: tempfile::TempDir,
    authority: Authority,
    _data: tempfile::TempDir,
}

impl Setup {
    fn new() -> Setup {
        let (dir, data) = (data_dir(), data_dir());
        let authority = Authority::new(dir.path(), "authority");
        let identity = authority.sign(dir.path(), "server");
        let settings = [
            "listen.syslog.udp=127.0.0.1:0".to_owned(),
            "listen.syslog.tcp=127.0.0.1:0".to_owned(),
            "listen.syslog.tls=127.0.0.1:0".to_owned(),
            format!("listen.tls.cert={}", identity.cert()),
            format!("listen.tls.key={}", identity.key()),
        ];
        let arguments: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        let quiver = Quiver::start(data.path(), &arguments);
        Setup { quiver, dir, authority, _data: data }
    }

    fn input(&self) -> PathBuf {
        self.dir.path().join("input")
    }

    fn port(&self, listener: &str) -> String {
        self.quiver.listener(listener).rsplit(':').next().expect("an address has a port").to_owned()
    }

    /// Writes a config file; gives its path.
    fn config(&self, text: &str) -> PathBuf {
        let path = self.dir.path().join("daemon.conf");
        let mut file = fs::File::create(&path).expect("a config can be made");
        file.write_all(text.as_bytes()).expect("it can be written");
        path
    }

    /// Gives a daemon two messages as a local program does, once it listens; the second is JSON with CEE's mark.
    fn log(&self) {
        let socket = UnixDatagram::unbound().expect("a socket");
        wait_for("the daemon's socket", SOON, || socket.connect(self.input()).ok());
        for message in [
            "<11>Jan  1 12:00:00 shop[42]: card declined: caf\u{e9}",
            "<14>Jan  1 12:00:00 shop[42]: @cee: {\"level\":\"warn\",\"msg\":\"slow\",\"n\":5}",
        ] {
            socket.send(message.as_bytes()).expect("the daemon takes it");
        }
    }

    /// Both messages, from a host of any name.
    fn check(&self, how: &str) {
        let mut found = rows(&self.quiver, 2, COLUMNS);
        for row in &mut found {
            let hostname = row["hostname"].take();
            assert!(hostname.as_str().is_some_and(|name| !name.is_empty()), "{how}: {row}");
        }
        let expected = [
            json!({"service": "shop", "level": "error", "message": "card declined: caf\u{e9}", "hostname": null, "procid": "42"}),
            json!({"service": "shop", "level": "warn", "message": "slow", "hostname": null, "procid": "42", "n": 5}),
        ];
        assert_eq!(Value::from(found), Value::from(expected.to_vec()), "{how}");
    }
}

/// Runs rsyslogd with an output of `action`.
fn rsyslog_sends(how: &str, action: impl Fn(&Setup) -> String) {
    let setup = Setup::new();
    let dir = setup.dir.path().display();
    let config = setup.config(&format!(
        r#"
global(workDirectory="{dir}" defaultNetstreamDriverCAFile="{authority}")
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="{input}" CreatePath="on" IgnoreTimestamp="on" UsePIDFromSystem="off")
action(type="omfwd" target="localhost" action.resumeRetryCount="-1" action.resumeInterval="1" {action})
"#,
        authority = setup.authority.file(),
        input = setup.input().display(),
        action = action(&setup),
    ));
    let mut command = Command::new("/usr/sbin/rsyslogd");
    command.arg("-n").arg("-i").arg(setup.dir.path().join("pid")).arg("-f").arg(&config);
    let _daemon = Daemon::start(command, setup.dir.path());
    setup.log();
    setup.check(how);
}

#[test]
fn rsyslog_sends_over_udp() {
    for template in ["RSYSLOG_TraditionalForwardFormat", "RSYSLOG_SyslogProtocol23Format"] {
        rsyslog_sends(template, |setup| {
            format!(r#"protocol="udp" port="{}" template="{template}""#, setup.port("syslog.udp"))
        });
    }
}

#[test]
fn rsyslog_sends_over_tcp() {
    for (framing, template) in [
        ("traditional", "RSYSLOG_TraditionalForwardFormat"),
        ("traditional", "RSYSLOG_ForwardFormat"),
        ("octet-counted", "RSYSLOG_SyslogProtocol23Format"),
    ] {
        rsyslog_sends(template, |setup| {
            let port = setup.port("syslog.tcp");
            format!(r#"protocol="tcp" port="{port}" TCP_Framing="{framing}" template="{template}""#)
        });
    }
}

#[test]
fn rsyslog_sends_over_tls() {
    rsyslog_sends("TLS", |setup| {
        let port = setup.port("syslog.tls");
        format!(
            r#"protocol="tcp" port="{port}" TCP_Framing="octet-counted" template="RSYSLOG_SyslogProtocol23Format"
            StreamDriver="ossl" StreamDriverMode="1" StreamDriverAuthMode="x509/name" StreamDriverPermittedPeers="localhost""#
        )
    });
}

/// Runs syslog-ng with this destination.
fn syslog_ng_sends(how: &str, destination: impl Fn(&Setup) -> String) {
    let setup = Setup::new();
    let config = setup.config(&format!(
        "@version: 3.38\nsource s {{ unix-dgram(\"{input}\"); }};\ndestination d {{ {destination}; }};\n\
         log {{ source(s); destination(d); }};\n",
        input = setup.input().display(),
        destination = destination(&setup),
    ));
    let root = repository().join("tests/clients/syslog-ng");
    let (dir, libraries) = (setup.dir.path(), root.join("usr/lib/syslog-ng"));
    let mut command = Command::new(root.join("usr/sbin/syslog-ng"));
    command.env("LD_LIBRARY_PATH", &libraries).args(["-F", "--no-caps", "-f"]).arg(&config);
    command.arg("-R").arg(dir.join("persist")).arg("-p").arg(dir.join("pid")).arg("-c").arg(dir.join("control"));
    command.arg(format!("--module-path={}", libraries.join("3.38").display()));
    let _daemon = Daemon::start(command, dir);
    setup.log();
    setup.check(how);
}

#[test]
fn syslog_ng_sends_over_udp_and_tcp() {
    for (driver, transport) in [("network", "udp"), ("network", "tcp"), ("syslog", "udp"), ("syslog", "tcp")] {
        syslog_ng_sends(&format!("{driver} {transport}"), |setup| {
            let port = setup.port(&format!("syslog.{transport}"));
            format!(r#"{driver}("127.0.0.1" port({port}) transport("{transport}"))"#)
        });
    }
}

#[test]
fn syslog_ng_sends_over_tls() {
    syslog_ng_sends("TLS", |setup| {
        let port = setup.port("syslog.tls");
        let authority = setup.authority.file();
        format!(
            r#"syslog("localhost" port({port}) transport("tls") tls(ca-file("{authority}") peer-verify(required-trusted)))"#
        )
    });
}
