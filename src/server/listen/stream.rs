//! Sockets of streams: TCP, TLS and unix. Connections are let in up to a limit, each read by a task of its own, which
//! waits when the queue is full; so the sender waits too.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::framing::{Fault, Framing, Splitter};
use super::gather::Intake;
use super::{Protocol, forward};
use crate::server::body::Lease;
use crate::server::tls::TlsListener;

/// How much is read at once.
const READ_BYTES: usize = 16 << 10;
/// How long to wait after the system could not give a connection (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a message waits for memory before its connection is closed, so that two can't wait for each other.
const MEMORY_WAIT_MAX: Duration = Duration::from_secs(10);
const MEMORY_PAUSE: Duration = Duration::from_millis(20);

/// What a connection is read from and written to.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection, and who is at its other end.
pub(super) struct Connection {
    pub stream: Box<dyn Duplex>,
    /// Its address, without a port; empty for a local process.
    pub peer: Arc<str>,
}

/// A socket that gives connections.
pub(super) enum Accepting {
    Tcp(TcpListener),
    Tls(Box<TlsListener>),
    Unix(UnixListener),
}

impl Accepting {
    async fn next(&mut self) -> io::Result<Connection> {
        Ok(match self {
            Accepting::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Acknowledgements are small, and waited for.
                stream.set_nodelay(true)?;
                Connection { stream: Box::new(stream), peer: peer.ip().to_string().into() }
            }
            Accepting::Tls(listener) => {
                let (stream, peer) = listener.next().await;
                Connection { stream: Box::new(stream), peer: peer.ip().to_string().into() }
            }
            Accepting::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Connection { stream: Box::new(stream), peer: "".into() }
            }
        })
    }
}

/// Accepts until `stop`, then waits for its connections to end.
pub(super) async fn run(mut accepting: Accepting, intake: Arc<Intake>, stop: CancellationToken) {
    let name = intake.purpose.name;
    let label = intake.purpose.label();
    let open = intake.purpose.metrics.connections.get_or_create_owned(&label);
    let mut connections = JoinSet::new();
    loop {
        open.set(connections.len() as i64);
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => {
                if let Err(panic) = ended {
                    warn!(listener = name, "a connection failed: {panic}");
                }
            }
            accepted = accepting.next() => match accepted {
                Ok(connection) if connections.len() >= intake.limits.connections_max => {
                    intake.purpose.metrics.refused_connections.get_or_create(&label).inc();
                    debug!(listener = name, peer = %connection.peer, "refused: listen.connections_max is reached");
                }
                Ok(connection) => {
                    intake.purpose.metrics.accepted_connections.get_or_create(&label).inc();
                    connections.spawn(serve(connection, intake.clone(), stop.clone()));
                }
                Err(error) => {
                    warn!(listener = name, "a connection could not be accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    while connections.join_next().await.is_some() {}
    open.set(0);
}

async fn serve(connection: Connection, intake: Arc<Intake>, stop: CancellationToken) {
    let peer = connection.peer.clone();
    let ended = match &intake.purpose.protocol {
        Protocol::Syslog(_) => read_frames(connection, &intake, Framing::Syslog, &stop).await,
        Protocol::Gelf => read_frames(connection, &intake, Framing::Null, &stop).await,
        Protocol::Forward(spoken) => {
            let spoken = spoken.clone();
            forward::serve(connection, &spoken, &intake, &stop).await
        }
    };
    if let Err(reason) = ended {
        debug!(listener = intake.purpose.name, %peer, "a connection ended: {reason}");
    }
}

/// What came of waiting for bytes.
pub(super) enum Arrival {
    /// There are more.
    More,
    /// The sender closed.
    Closed,
    /// This server closes.
    Stopped,
}

/// Reads what there is. **Errors**: a broken connection, and one that was silent for `timeout`.
pub(super) async fn read_more(
    stream: &mut dyn Duplex,
    buffer: &mut BytesMut,
    timeout: Duration,
    stop: &CancellationToken,
) -> io::Result<Arrival> {
    buffer.reserve(READ_BYTES);
    tokio::select! {
        read = tokio::time::timeout(timeout, stream.read_buf(buffer)) => match read {
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
            Ok(Err(error)) => Err(error),
            Ok(Ok(0)) => Ok(Arrival::Closed),
            Ok(Ok(_)) => Ok(Arrival::More),
        },
        () = stop.cancelled() => Ok(Arrival::Stopped),
    }
}

/// Makes a lease hold `bytes` as soon as there is memory. **Errors**: there was none for too long.
pub(super) async fn take_memory(lease: &mut Lease, bytes: usize) -> io::Result<()> {
    let deadline = tokio::time::Instant::now() + MEMORY_WAIT_MAX;
    while let Err(busy) = lease.change_to(bytes) {
        if tokio::time::Instant::now() >= deadline {
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, busy.to_string()));
        }
        tokio::time::sleep(MEMORY_PAUSE).await;
    }
    Ok(())
}

/// Reads framed messages into the queue. At the end what is there is kept, as its sender believes it to be.
async fn read_frames(
    mut connection: Connection,
    intake: &Intake,
    framing: Framing,
    stop: &CancellationToken,
) -> io::Result<()> {
    let mut splitter = Splitter::new(framing, intake.limits.message_bytes_max);
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    // Of a large message that is not whole yet; what is whole counts in the queue.
    let mut lease = intake.purpose.app.budget.lease();
    let ended = loop {
        while let Some(message) = splitter.next(&mut buffer) {
            take(message, &connection.peer, intake).await;
        }
        if let Err(error) = take_memory(&mut lease, buffer.len().saturating_sub(READ_BYTES)).await {
            break Err(error);
        }
        match read_more(&mut *connection.stream, &mut buffer, intake.limits.idle_timeout, stop).await {
            Ok(Arrival::More) => {}
            Ok(Arrival::Closed | Arrival::Stopped) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    if let Some(message) = splitter.finish(&mut buffer) {
        take(message, &connection.peer, intake).await;
    }
    ended
}

async fn take(message: Result<bytes::Bytes, Fault>, peer: &Arc<str>, intake: &Intake) {
    match message {
        Ok(bytes) => intake.push(bytes, peer.clone(), None).await,
        Err(fault) => intake.purpose.reject(peer, fault.cause, &fault.reason),
    }
}
