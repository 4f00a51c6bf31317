//! Sockets for senders that speak neither HTTP nor gRPC: syslog, Fluent Forward, GELF. Here they are opened, started and
//! ended, each with its queue; `stream` and `datagram` read transports, `framing`, `chunks` and `handshake` know where
//! messages begin and end, `forward` speaks Forward, `gather` keeps what came. What messages mean is `decode`'s.
//!
//! Invariants: every task is joined at the end; what waits has a limit, past which streams are not read and datagrams are
//! dropped and counted; a Forward chunk is acknowledged after its append returned.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jiff::tz::TimeZone;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, UdpSocket, UnixDatagram};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::App;
use super::status::Error;
use super::tls::{Tls, TlsListener};
use crate::config;
use crate::record::Tenant;

mod chunks;
mod datagram;
mod forward;
mod framing;
mod gather;
mod handshake;
mod local;
mod stream;

use forward::Forward;
use gather::{Intake, Item, Purpose};
use stream::Accepting;

/// `listener`: syslog.udp, forward.tcp, …
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    listener: &'static str,
}

/// What all sockets count; records and rejections are among those of ingest, under the socket's name.
#[derive(Debug, Clone, Default)]
struct Metrics {
    connections: Family<Label, Gauge>,
    accepted_connections: Family<Label, Counter>,
    refused_connections: Family<Label, Counter>,
    dropped_datagrams: Family<Label, Counter>,
    repeated_chunks: Family<Label, Counter>,
}

impl Metrics {
    fn register(&self, registry: &mut Registry) {
        let to = registry.sub_registry_with_prefix("quiver_listen");
        to.register("connections", "Open connections", self.connections.clone());
        to.register("accepted_connections", "Connections that were let in", self.accepted_connections.clone());
        to.register("refused_connections", "Connections past the limit, or refused", self.refused_connections.clone());
        to.register("dropped_datagrams", "Datagrams for which there was no room", self.dropped_datagrams.clone());
        to.register("repeated_chunks", "Forward chunks that were kept before", self.repeated_chunks.clone());
    }
}

/// What a socket's messages are.
#[derive(Debug, Clone)]
enum Protocol {
    /// Where RFC 3164's times were taken.
    Syslog(TimeZone),
    Forward(Arc<Forward>),
    Gelf,
}

/// Limits of every socket.
#[derive(Debug, Clone, Copy)]
struct Limits {
    connections_max: usize,
    message_bytes_max: usize,
    queue_bytes_max: usize,
    gather_max: Duration,
    idle_timeout: Duration,
    handshake_timeout: Duration,
}

/// A socket that is open.
enum Socket {
    Streams(Accepting),
    Udp(UdpSocket),
    UnixDatagram(UnixDatagram),
}

/// A socket, and what is needed to serve it.
struct Bound {
    socket: Socket,
    intake: Arc<Intake>,
    inbox: mpsc::Receiver<Item>,
}

/// All sockets, before and after they are started.
pub(super) struct Listeners {
    bound: Vec<Bound>,
    /// Forward's answers to heartbeats by datagram.
    heartbeats: Vec<UdpSocket>,
    /// Removed at the end.
    paths: Vec<PathBuf>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

/// Checks what the config takes as text: tenants and time zones.
pub(super) fn check(settings: &config::Listen) -> Result<(), Error> {
    time_zone(&settings.syslog.timezone)?;
    tenant("listen.syslog.tenant", &settings.syslog.tenant)?;
    tenant("listen.forward.tenant", &settings.forward.tenant)?;
    tenant("listen.gelf.tenant", &settings.gelf.tenant).map(drop)
}

fn time_zone(name: &str) -> Result<TimeZone, Error> {
    let wrong = |_| Error::Invalid(format!("listen.syslog.timezone: '{name}' is no time zone such as 'Europe/Berlin'"));
    TimeZone::get(name).map_err(wrong)
}

fn tenant(setting: &str, name: &str) -> Result<Tenant, Error> {
    Tenant::parse(name).ok_or_else(|| Error::Invalid(format!("{setting}: '{name}' can't be a tenant")))
}

impl Listeners {
    /// Opens every socket that has an address; nothing is read before [`Listeners::start`].
    /// **Errors**: [`Error::Bind`]; [`Error::Invalid`] for certificates, tenants and time zones that can't be used.
    pub async fn bind(settings: &config::Listen, app: &Arc<App>) -> Result<Listeners, Error> {
        let metrics = Metrics::default();
        let mut opening = Opening {
            app,
            metrics: metrics.clone(),
            limits: Limits {
                connections_max: settings.connections_max,
                message_bytes_max: settings.message_bytes_max,
                queue_bytes_max: settings.queue_bytes_max,
                gather_max: settings.gather_max,
                idle_timeout: settings.idle_timeout,
                handshake_timeout: settings.handshake_timeout,
            },
            tls: Tls::load("listen.tls", &settings.tls, &[], settings.handshake_timeout)?,
            listeners: Listeners {
                bound: Vec::new(),
                heartbeats: Vec::new(),
                paths: Vec::new(),
                tasks: JoinSet::new(),
                stop: CancellationToken::new(),
            },
        };
        let syslog = &settings.syslog;
        let tenant_of_syslog = tenant("listen.syslog.tenant", &syslog.tenant)?;
        let messages = (Protocol::Syslog(time_zone(&syslog.timezone)?), tenant_of_syslog);
        opening.udp("listen.syslog.udp", &syslog.udp, &messages).await?;
        opening.tcp("listen.syslog.tcp", &syslog.tcp, &messages).await?;
        opening.tls("listen.syslog.tls", &syslog.tls, &messages).await?;
        opening.unix_datagram("listen.syslog.unix_datagram", &syslog.unix_datagram, &messages)?;
        opening.unix_stream("listen.syslog.unix_stream", &syslog.unix_stream, &messages)?;

        let gelf = &settings.gelf;
        let messages = (Protocol::Gelf, tenant("listen.gelf.tenant", &gelf.tenant)?);
        opening.udp("listen.gelf.udp", &gelf.udp, &messages).await?;
        opening.tcp("listen.gelf.tcp", &gelf.tcp, &messages).await?;
        opening.tls("listen.gelf.tls", &gelf.tls, &messages).await?;

        let forward = &settings.forward;
        let spoken = Arc::new(Forward::new(forward));
        let messages = (Protocol::Forward(spoken), tenant("listen.forward.tenant", &forward.tenant)?);
        if let Some(address) = opening.tcp("listen.forward.tcp", &forward.tcp, &messages).await? {
            opening.heartbeats(address).await;
        }
        opening.tls("listen.forward.tls", &forward.tls, &messages).await?;
        if !opening.listeners.bound.is_empty() {
            metrics.register(&mut app.registry.lock().unwrap_or_else(PoisonError::into_inner));
        }
        Ok(opening.listeners)
    }

    /// Starts to read; needs a store that is open.
    pub fn start(&mut self) {
        for Bound { socket, intake, inbox } in self.bound.drain(..) {
            self.tasks.spawn(gather::run(intake.purpose.clone(), inbox, intake.limits.gather_max));
            let stop = self.stop.clone();
            match socket {
                Socket::Streams(accepting) => self.tasks.spawn(stream::run(accepting, intake, stop)),
                Socket::Udp(socket) => self.tasks.spawn(datagram::run_udp(socket, intake, stop)),
                Socket::UnixDatagram(socket) => self.tasks.spawn(datagram::run_unix(socket, intake, stop)),
            };
        }
        for socket in self.heartbeats.drain(..) {
            self.tasks.spawn(datagram::answer_heartbeats(socket, self.stop.clone()));
        }
    }

    /// Stops reading, keeps what was read, and ends every task; those that take longer than `grace` are broken off.
    pub async fn close(&mut self, grace: Duration) {
        self.stop.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, ended).await.is_err() {
            warn!("messages of listeners could not be kept within {grace:?} and are given up");
            self.tasks.shutdown().await;
        }
        for path in self.paths.drain(..) {
            if let Err(error) = std::fs::remove_file(&path) {
                warn!("the socket '{}' could not be removed: {error}", path.display());
            }
        }
    }
}

/// What is needed while sockets are opened.
struct Opening<'a> {
    app: &'a Arc<App>,
    metrics: Metrics,
    limits: Limits,
    tls: Option<Arc<Tls>>,
    listeners: Listeners,
}

/// What a socket's messages are, and whose.
type Messages = (Protocol, Tenant);

impl Opening<'_> {
    fn add(&mut self, setting: &'static str, socket: Socket, address: String, messages: &Messages) {
        let name = setting.trim_start_matches("listen.");
        info!(listener = name, address, "listening");
        let (protocol, tenant) = messages.clone();
        let purpose = Purpose::new(self.app.clone(), name, protocol, tenant, self.metrics.clone());
        let (intake, inbox) = Intake::new(purpose, self.limits);
        self.listeners.bound.push(Bound { socket, intake: Arc::new(intake), inbox });
    }

    async fn listener(setting: &'static str, address: &str) -> Result<Option<(TcpListener, SocketAddr)>, Error> {
        if address.is_empty() {
            return Ok(None);
        }
        let failed = |source| Error::Bind { flag: setting, address: address.to_owned(), source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Some((listener, address)))
    }

    async fn tcp(
        &mut self,
        setting: &'static str,
        address: &str,
        messages: &Messages,
    ) -> Result<Option<SocketAddr>, Error> {
        let Some((listener, address)) = Self::listener(setting, address).await? else { return Ok(None) };
        self.add(setting, Socket::Streams(Accepting::Tcp(listener)), address.to_string(), messages);
        Ok(Some(address))
    }

    async fn tls(&mut self, setting: &'static str, address: &str, messages: &Messages) -> Result<(), Error> {
        let Some((listener, address)) = Self::listener(setting, address).await? else { return Ok(()) };
        let needed = || Error::Invalid(format!("{setting}: needs listen.tls.cert and listen.tls.key"));
        let tls = self.tls.clone().ok_or_else(needed)?;
        let accepting = Accepting::Tls(Box::new(TlsListener::new(listener, tls)));
        self.add(setting, Socket::Streams(accepting), address.to_string(), messages);
        Ok(())
    }

    async fn udp(&mut self, setting: &'static str, address: &str, messages: &Messages) -> Result<(), Error> {
        if address.is_empty() {
            return Ok(());
        }
        let failed = |source| Error::Bind { flag: setting, address: address.to_owned(), source };
        let socket = UdpSocket::bind(address).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        self.add(setting, Socket::Udp(socket), address.to_string(), messages);
        Ok(())
    }

    fn unix_datagram(&mut self, setting: &'static str, path: &Path, messages: &Messages) -> Result<(), Error> {
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        let socket = local::bind_datagram(path).map_err(|source| local::failed(setting, path, source))?;
        self.listeners.paths.push(path.to_owned());
        self.add(setting, Socket::UnixDatagram(socket), path.display().to_string(), messages);
        Ok(())
    }

    fn unix_stream(&mut self, setting: &'static str, path: &Path, messages: &Messages) -> Result<(), Error> {
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        let socket = local::bind_stream(path).map_err(|source| local::failed(setting, path, source))?;
        self.listeners.paths.push(path.to_owned());
        self.add(setting, Socket::Streams(Accepting::Unix(socket)), path.display().to_string(), messages);
        Ok(())
    }

    /// Old Forward clients ask by datagram, on the port of the streams.
    async fn heartbeats(&mut self, address: SocketAddr) {
        match UdpSocket::bind(address).await {
            Ok(socket) => self.listeners.heartbeats.push(socket),
            Err(error) => warn!("heartbeats by datagram to {address} are not answered: {error}"),
        }
    }
}
