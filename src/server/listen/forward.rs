//! Fluent Forward's connections: the handshake, messages one after the other, and acknowledgements of chunks.
//!
//! Invariant: a chunk is acknowledged after its records are safe; one that comes again, on any connection, is acknowledged
//! and not kept twice, as far as the store remembers its id.
//! Source: Forward Protocol Specification v1.5 (fluent/fluentd wiki).

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::gather::Intake;
use super::handshake::{NoRandom, Secrets};
use super::stream::{Arrival, Connection, read_more, take_memory};
use crate::config;
use crate::decode::Cause;
use crate::decode::forward::{ENTRY_HEAD, Entries, Message, message};
use crate::decode::msgpack::{Boundary, write_map, write_text};
use crate::decode::streams::stream_of;
use crate::server::Error;
use crate::server::body::{self, Encoding, Lease};
use crate::storage::BatchId;

/// Longest PING: two digests of 128 bytes, names and a salt.
const PING_BYTES_MAX: usize = 4 << 10;

/// What all connections of Forward share.
pub(super) struct Forward {
    secrets: Option<Secrets>,
}

impl fmt::Debug for Forward {
    /// Tells no secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forward").field("asks", &self.secrets.is_some()).finish_non_exhaustive()
    }
}

impl Forward {
    pub fn new(settings: &config::Forward) -> Forward {
        Forward { secrets: Secrets::new(settings) }
    }
}

fn broken(reason: impl fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_string())
}

/// Reads a connection to its end.
pub(super) async fn serve(
    mut connection: Connection,
    spoken: &Forward,
    intake: &Intake,
    stop: &CancellationToken,
) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    if let Some(secrets) = &spoken.secrets {
        let shaken = greet(&mut connection, secrets, intake, &mut buffer, stop);
        match tokio::time::timeout(intake.limits.handshake_timeout, shaken).await {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
    loop {
        let mut lease = intake.purpose.app.budget.lease();
        let Some(bytes) = next_message(&mut connection, &mut buffer, &mut lease, intake, stop).await? else {
            return Ok(());
        };
        if let Some(chunk) = take(&bytes, lease, intake, &connection.peer).await? {
            let mut ack = Vec::new();
            write_map(1, &mut ack);
            write_text("ack", &mut ack);
            write_text(&chunk, &mut ack);
            connection.stream.write_all(&ack).await?;
            connection.stream.flush().await?;
        }
    }
}

/// The handshake; `false` when the client is not let in, or went away.
async fn greet(
    connection: &mut Connection,
    secrets: &Secrets,
    intake: &Intake,
    buffer: &mut BytesMut,
    stop: &CancellationToken,
) -> bool {
    let done: io::Result<Option<String>> = async {
        let (handshake, helo) = secrets.begin().map_err(|NoRandom| broken("the system gives no random bytes"))?;
        connection.stream.write_all(&helo).await?;
        connection.stream.flush().await?;
        let mut boundary = Boundary::default();
        let ping = loop {
            match boundary.find(buffer).map_err(broken)? {
                Some(end) => break buffer.split_to(end),
                None if buffer.len() > PING_BYTES_MAX => return Err(broken("the PING is too long")),
                None => {}
            }
            let arrival = read_more(&mut *connection.stream, buffer, intake.limits.handshake_timeout, stop).await?;
            if !matches!(arrival, Arrival::More) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let pong = handshake.answer(&ping);
        connection.stream.write_all(&pong.answer).await?;
        connection.stream.flush().await?;
        Ok(pong.refusal)
    }
    .await;
    let refusal = match done {
        Ok(None) => return true,
        Ok(Some(refusal)) => refusal,
        // Checks of whether somebody listens open a connection, and close it.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return false,
        Err(error) => error.to_string(),
    };
    intake.purpose.metrics.refused_connections.get_or_create(&intake.purpose.label()).inc();
    warn!(listener = intake.purpose.name, peer = %connection.peer, "a client was refused: {refusal}");
    false
}

/// The bytes of the next message, for which `lease` is grown; `None` at the end.
async fn next_message(
    connection: &mut Connection,
    buffer: &mut BytesMut,
    lease: &mut Lease,
    intake: &Intake,
    stop: &CancellationToken,
) -> io::Result<Option<Bytes>> {
    let limits = &intake.purpose.app.limits;
    let mut boundary = Boundary::default();
    loop {
        take_memory(lease, buffer.len()).await?;
        let found = boundary.find(buffer);
        if let Ok(Some(end)) = found {
            return Ok(Some(buffer.split_to(end).freeze()));
        }
        // Where messages end can't be told any more.
        let fault = match found {
            Err(fault) => Some((Cause::Malformed, format!("no Forward message: {fault}"))),
            Ok(_) if buffer.len() > limits.body_bytes_max => {
                let (limit, setting) = (limits.body_bytes_max, limits.body_setting);
                Some((Cause::TooLong, format!("a message of more than {limit} bytes; the limit is '{setting}'")))
            }
            Ok(_) => None,
        };
        if let Some((cause, reason)) = fault {
            intake.purpose.reject(&connection.peer, cause, &reason);
            return Err(broken(reason));
        }
        match read_more(&mut *connection.stream, buffer, intake.limits.idle_timeout, stop).await? {
            Arrival::More => {}
            Arrival::Closed if !buffer.is_empty() => {
                let reason = "the sender closed within a message";
                intake.purpose.reject(&connection.peer, Cause::Malformed, reason);
                return Ok(None);
            }
            Arrival::Closed | Arrival::Stopped => return Ok(None),
        }
    }
}

/// Keeps a message; gives the chunk to acknowledge. **Errors**: the connection is to be closed, so that the chunk comes
/// again.
async fn take(bytes: &Bytes, lease: Lease, intake: &Intake, peer: &Arc<str>) -> io::Result<Option<String>> {
    let events = match message(bytes) {
        Ok(Message::Events(events)) => events,
        Ok(Message::Heartbeat) => return Ok(None),
        Err(error) => {
            intake.purpose.reject(peer, Cause::Malformed, &error.to_string());
            return Ok(None);
        }
    };
    if !intake.purpose.admits(stream_of([("tag", events.tag)])) {
        let reason = format!("tag '{}' is a new stream; the limit is 'limits.streams_max'", events.tag);
        intake.purpose.reject(peer, Cause::Streams, &reason);
        return match events.chunk {
            Some(_) => Err(broken(reason)),
            None => Ok(None),
        };
    }
    let entries = match events.entries {
        Entries::One(entry) => Bytes::from([&[ENTRY_HEAD], entry].concat()),
        Entries::Many(entries) => bytes.slice_ref(entries),
    };
    let (entries, lease) = match unpack(entries, events.compression, lease, intake).await {
        Ok(unpacked) => unpacked,
        Err(error) if error.is_passing() => return Err(io::Error::other(error)),
        Err(error) => {
            // It would be no better another time.
            intake.purpose.reject(peer, Cause::Malformed, &error.to_string());
            return Ok(events.chunk.map(str::to_owned));
        }
    };
    let Some(chunk) = events.chunk else {
        intake.push(entries, events.tag.into(), Some(lease)).await;
        return Ok(None);
    };
    let id = BatchId::of(&[b"forward", chunk.as_bytes()]);
    if !intake.keep(entries, events.tag.into(), id, lease).await {
        return Err(broken("the chunk could not be kept"));
    }
    Ok(Some(chunk.to_owned()))
}

/// Undoes the compression of packed entries.
async fn unpack(
    entries: Bytes,
    compression: Option<&str>,
    mut lease: Lease,
    intake: &Intake,
) -> Result<(Bytes, Lease), Error> {
    let encoding = match compression {
        None | Some("text") => return Ok((entries, lease)),
        Some("gzip") => Encoding::Gzip,
        Some("zstd") => Encoding::Zstd,
        Some(other) => return Err(Error::Unsupported(format!("compression '{other}' is neither gzip nor zstd"))),
    };
    let unpacked = intake.purpose.app.offload(usize::MAX, move |app| {
        let unpacked = body::decompress(entries, encoding, &app.limits, &mut lease);
        (unpacked, lease)
    });
    let (unpacked, lease) = unpacked.await?;
    Ok((unpacked?, lease))
}
