//! Sockets of datagrams: UDP, where a full queue drops and counts, and unix, where it makes the sender wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::{UdpSocket, UnixDatagram};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Protocol;
use super::chunks::{Added, Chunks};
use super::gather::Intake;
use crate::decode::Cause;
use crate::server::Error;
use crate::server::body::{self, Encoding};

/// Longest datagram of UDP over IPv4 or IPv6.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;
/// How long to wait after the system could not give a datagram.
const RECEIVE_PAUSE: Duration = Duration::from_millis(100);

/// Reads datagrams until `stop`.
pub(super) async fn run_udp(socket: UdpSocket, intake: Arc<Intake>, stop: CancellationToken) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let mut chunks = Chunks::new(intake.limits.queue_bytes_max, intake.limits.message_bytes_max);
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            () = stop.cancelled() => return,
        };
        match received {
            Ok((0, _)) => {}
            Ok((length, peer)) => {
                let from: Arc<str> = peer.ip().to_string().into();
                let datagram = &buffer[..length];
                match intake.purpose.protocol {
                    Protocol::Gelf => take_gelf(datagram, &from, peer, &mut chunks, &intake),
                    _ => intake.offer(Bytes::copy_from_slice(datagram), from),
                }
            }
            Err(error) => {
                warn!(listener = intake.purpose.name, "a datagram could not be received: {error}");
                tokio::time::sleep(RECEIVE_PAUSE).await;
            }
        }
    }
}

/// GELF over UDP: a whole message or a chunk of one, which may be compressed.
fn take_gelf(datagram: &[u8], from: &Arc<str>, peer: std::net::SocketAddr, chunks: &mut Chunks, intake: &Intake) {
    let message = match chunks.add(peer.ip(), datagram, Instant::now()) {
        Added::Whole(message) => message,
        Added::Waiting => return,
        Added::Bad(reason) => return intake.purpose.reject(from, Cause::Malformed, reason),
    };
    let encoding = match message[..] {
        [0x1f, 0x8b, ..] => Encoding::Gzip,
        // As zlib writes it; a message that is not compressed starts with a brace.
        [0x78, ..] => Encoding::Deflate,
        _ => return intake.offer(message, from.clone()),
    };
    // A datagram, and what becomes of it, is small: this is no work for another thread.
    let limits = body::Limits {
        body_setting: "listen.message_bytes_max",
        decompressed_bytes_max: intake.limits.message_bytes_max,
        decompressed_setting: "listen.message_bytes_max",
        ..intake.purpose.app.limits
    };
    let mut lease = intake.purpose.app.budget.lease();
    match body::decompress(message, encoding, &limits, &mut lease) {
        Ok(message) => intake.offer(message, from.clone()),
        Err(error @ Error::TooLarge { .. }) => intake.purpose.reject(from, Cause::TooLong, &error.to_string()),
        Err(error) => intake.purpose.reject(from, Cause::Malformed, &error.to_string()),
    }
}

/// Reads local datagrams until `stop`; their senders wait while the queue is full.
pub(super) async fn run_unix(socket: UnixDatagram, intake: Arc<Intake>, stop: CancellationToken) {
    // One byte more, to see what was cut off.
    let mut buffer = vec![0; intake.limits.message_bytes_max + 1];
    loop {
        let received = tokio::select! {
            received = socket.recv(&mut buffer) => received,
            () = stop.cancelled() => return,
        };
        match received {
            Ok(0) => {}
            Ok(length) if length > intake.limits.message_bytes_max => {
                let reason = "the message is larger than listen.message_bytes_max";
                intake.purpose.reject("", Cause::TooLong, reason);
            }
            Ok(length) => intake.push(Bytes::copy_from_slice(&buffer[..length]), "".into(), None).await,
            Err(error) => {
                warn!(listener = intake.purpose.name, "a datagram could not be received: {error}");
                tokio::time::sleep(RECEIVE_PAUSE).await;
            }
        }
    }
}

/// Answers Forward's heartbeats by datagram (protocol v1, "Heartbeat Message") until `stop`.
pub(super) async fn answer_heartbeats(socket: UdpSocket, stop: CancellationToken) {
    let mut buffer = [0; 16];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            () = stop.cancelled() => return,
        };
        let answered = match received {
            Ok((_, peer)) => socket.send_to(&[0], peer).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = answered {
            debug!("a heartbeat could not be answered: {error}");
            tokio::time::sleep(RECEIVE_PAUSE).await;
        }
    }
}
