//! `[listen]` and `[server.tls]`: sockets beside the two ports, as they are typed, and what can be checked of them alone.
//! An address, or the path of a unix socket, that is empty opens nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::file::{duration, size};
use super::{Error, address, setting};

/// Certificate and key of a port; the files are read again when they change.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Certificates, PEM, the port's own first; empty: no TLS.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Certificates of those who sign clients' ones; empty: clients need none.
    pub client_ca: PathBuf,
}

impl Tls {
    /// Whether there is a certificate.
    pub fn is_on(&self) -> bool {
        !self.cert.as_os_str().is_empty()
    }

    fn check(&self, key: &'static str, client_ca: &'static str) -> Result<(), Error> {
        if self.is_on() == self.key.as_os_str().is_empty() {
            return Err(setting(key, "a certificate needs its key, and a key its certificate"));
        }
        if !self.is_on() && !self.client_ca.as_os_str().is_empty() {
            return Err(setting(client_ca, "needs a certificate and a key of the server's own"));
        }
        Ok(())
    }
}

/// `[listen]`: limits of all these sockets.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// Connections of one socket.
    pub connections_max: usize,
    /// Largest message of syslog and GELF.
    #[serde(with = "size")]
    pub message_bytes_max: usize,
    /// Messages of one socket that wait to be kept.
    #[serde(with = "size")]
    pub queue_bytes_max: usize,
    /// How long messages are gathered for one append.
    #[serde(with = "duration")]
    pub gather_max: Duration,
    /// A connection that sends nothing for so long is closed.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// Time for a TLS or Forward handshake.
    #[serde(with = "duration")]
    pub handshake_timeout: Duration,
    /// `[listen.tls]`: for the sockets that speak TLS.
    pub tls: Tls,
    /// `[listen.syslog]`
    pub syslog: Syslog,
    /// `[listen.forward]`
    pub forward: Forward,
    /// `[listen.gelf]`
    pub gelf: Gelf,
}

/// `[listen.syslog]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Syslog {
    /// Address for datagrams.
    pub udp: String,
    /// Address for streams.
    pub tcp: String,
    /// Address for streams with TLS.
    pub tls: String,
    /// Path for local datagrams, as /dev/log is.
    pub unix_datagram: PathBuf,
    /// Path for local streams.
    pub unix_stream: PathBuf,
    /// Where times of RFC 3164 were taken.
    pub timezone: String,
    /// Whose these logs are.
    pub tenant: String,
}

/// `[listen.forward]`
#[derive(Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Forward {
    /// Address for streams, and for heartbeats by datagram.
    pub tcp: String,
    /// Address for streams with TLS.
    pub tls: String,
    /// The key that clients have to know; empty: none.
    pub shared_key: String,
    /// Passwords by user name; needs a shared key.
    pub users: BTreeMap<String, String>,
    /// The name that this server tells in the handshake.
    pub hostname: String,
    /// Whose these logs are.
    pub tenant: String,
}

impl fmt::Debug for Forward {
    /// Tells neither key nor passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forward")
            .field("tcp", &self.tcp)
            .field("tls", &self.tls)
            .field("shared_key", &!self.shared_key.is_empty())
            .field("users", &self.users.keys())
            .finish_non_exhaustive()
    }
}

/// `[listen.gelf]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gelf {
    /// Address for datagrams.
    pub udp: String,
    /// Address for streams.
    pub tcp: String,
    /// Address for streams with TLS.
    pub tls: String,
    /// Whose these logs are.
    pub tenant: String,
}

impl Listen {
    /// Makes what is secret unreadable.
    pub(super) fn mask(&mut self) {
        if !self.forward.shared_key.is_empty() {
            self.forward.shared_key = "***".to_owned();
        }
        self.forward.users.values_mut().for_each(|password| *password = "***".to_owned());
    }

    /// What the queues of all sockets may hold together.
    pub(super) fn queues_bytes_max(&self) -> usize {
        let (syslog, forward, gelf) = (&self.syslog, &self.forward, &self.gelf);
        let addresses = [&syslog.udp, &syslog.tcp, &syslog.tls, &forward.tcp, &forward.tls, &gelf.tcp, &gelf.tls];
        let paths = [&syslog.unix_datagram, &syslog.unix_stream];
        let queues = addresses.into_iter().filter(|address| !address.is_empty()).count()
            + paths.into_iter().filter(|path| !path.as_os_str().is_empty()).count()
            // Chunks that wait for others take as much again.
            + if gelf.udp.is_empty() { 0 } else { 2 };
        self.queue_bytes_max.saturating_mul(queues)
    }

    /// Checks the whole section, and completes the addresses.
    pub(super) fn check(&mut self) -> Result<(), Error> {
        let has_certificate = self.tls.is_on();
        let (syslog, forward, gelf) = (&mut self.syslog, &mut self.forward, &mut self.gelf);
        let addresses = [
            ("listen.syslog.udp", &mut syslog.udp, false),
            ("listen.syslog.tcp", &mut syslog.tcp, false),
            ("listen.syslog.tls", &mut syslog.tls, true),
            ("listen.forward.tcp", &mut forward.tcp, false),
            ("listen.forward.tls", &mut forward.tls, true),
            ("listen.gelf.udp", &mut gelf.udp, false),
            ("listen.gelf.tcp", &mut gelf.tcp, false),
            ("listen.gelf.tls", &mut gelf.tls, true),
        ];
        for (name, text, needs_certificate) in addresses {
            if text.is_empty() {
                continue;
            }
            *text = address(name, text)?;
            if needs_certificate && !has_certificate {
                return Err(setting(name, "needs listen.tls.cert and listen.tls.key"));
            }
        }
        self.tls.check("listen.tls.key", "listen.tls.client_ca")?;
        if forward.shared_key.is_empty() && !forward.users.is_empty() {
            return Err(setting("listen.forward.users", "needs listen.forward.shared_key: without it nobody is asked"));
        }
        if let Some((name, _)) = forward.users.iter().find(|(name, password)| name.is_empty() || password.is_empty()) {
            return Err(setting("listen.forward.users", format!("user '{name}' has no name or no password")));
        }
        let positive = [
            ("listen.connections_max", self.connections_max),
            ("listen.message_bytes_max", self.message_bytes_max),
            ("listen.queue_bytes_max", self.queue_bytes_max),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(setting(name, "must be more than 0"));
        }
        // The permits of a tokio semaphore.
        if self.queue_bytes_max > u32::MAX as usize {
            return Err(setting("listen.queue_bytes_max", "must be less than 4GiB"));
        }
        if self.gather_max > Duration::from_secs(1) {
            return Err(setting("listen.gather_max", "must be at most 1s: Forward's clients wait for it"));
        }
        if self.idle_timeout.is_zero() || self.handshake_timeout.is_zero() {
            return Err(setting("listen.idle_timeout", "must be more than 0, as listen.handshake_timeout"));
        }
        Ok(())
    }
}

/// Checks `[server.tls]`.
pub(super) fn check_server_tls(tls: &Tls) -> Result<(), Error> {
    tls.check("server.tls.key", "server.tls.client_ca")
}
