//! Connections of the HTTP port: accepted up to a limit, given up when no request comes, ended gently at shutdown.
//! It knows no path; what is answered is the router's.
//!
//! Invariant: a connection holds its place until it is closed, so there are never more of them than the limit.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, warn};

use super::tls::Tls;

/// After an error of `accept` (no file handles are left, mostly) it is tried again this much later.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// How many connections, and how long they may be silent.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open at once; further ones wait in the system's queue.
    pub connections_max: usize,
    /// Time for a request's head to arrive, counted from the end of the one before.
    pub head_timeout: Duration,
}

/// Serves connections, by TLS where there is one, until `stop`, then lets running requests end.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(limits.connections_max.min(Semaphore::MAX_PERMITS)));
    let mut running = JoinSet::new();
    loop {
        // The ones that ended are joined as they end.
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = running.join_next() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                let (router, tls, stop) = (router.clone(), tls.clone(), stop.clone());
                running.spawn(async move {
                    match tls {
                        None => serve_connection(stream, router, limits.head_timeout, stop).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve_connection(stream, router, limits.head_timeout, stop).await,
                            Err(error) => debug!("a connection ended: no TLS: {error}"),
                        },
                    }
                    drop(place);
                });
            }
            Err(error) => {
                warn!("the HTTP port can't accept a connection: {error}");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
    drop(listener);
    while running.join_next().await.is_some() {}
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Result<(TcpStream, OwnedSemaphorePermit), std::io::Error> {
    let place = places.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // Small answers must not wait for a full segment.
    if let Err(error) = stream.set_nodelay(true) {
        debug!("TCP_NODELAY could not be set: {error}");
    }
    Ok((stream, place))
}

async fn serve_connection<S>(stream: S, router: Router, head_timeout: Duration, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    // The time that the builder limits starts when the version of HTTP is known, which takes bytes that may never come.
    let asked = Arc::new(AtomicBool::new(false));
    let service = service_fn(|request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        router.clone().oneshot(request.map(Body::new))
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(head_timeout);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(head_timeout);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut silent = pin!(tokio::time::sleep(head_timeout));
    let (mut is_waiting, mut is_stopping) = (true, false);
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    debug!("a connection ended: {error}");
                }
                return;
            }
            () = &mut silent, if is_waiting => {
                is_waiting = false;
                if !asked.load(Ordering::Relaxed) {
                    debug!("a connection ended: no request came within {head_timeout:?}");
                    return;
                }
            }
            () = stop.cancelled(), if !is_stopping => {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn start(limits: Limits) -> (std::net::SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let router = Router::new().route("/", get(async || "here"));
        (address, stop.clone(), tokio::spawn(serve(listener, None, router, limits, stop)))
    }

    /// Everything until the server closes.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        // A reset is an end, too.
        let _ = stream.read_to_end(&mut text).await;
        String::from_utf8_lossy(&text).into_owned()
    }

    #[tokio::test]
    async fn a_head_that_does_not_come_is_given_up() {
        let limits = Limits { connections_max: 8, head_timeout: Duration::from_millis(50) };
        let (address, stop, served) = start(limits).await;
        for sent in ["", "PRI * HTTP", "GET / HTTP/1.1\r\nhost: x\r\n"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(sent.as_bytes()).await.unwrap();
            assert!(!rest(&mut stream).await.contains("here"), "{sent:?}");
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert!(rest(&mut stream).await.ends_with("here"), "a request is answered, then the idle connection closed");
        stop.cancel();
        served.await.unwrap();
    }

    #[tokio::test]
    async fn connections_over_the_limit_wait_for_a_place() {
        let limits = Limits { connections_max: 1, head_timeout: Duration::from_secs(60) };
        let (address, stop, served) = start(limits).await;
        let ask = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        let mut first = TcpStream::connect(address).await.unwrap();
        first.write_all(ask).await.unwrap();
        let mut answer = [0; 12];
        first.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(ask).await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(100), second.read_exact(&mut answer)).await.is_err());
        drop(first);
        second.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        stop.cancel();
        served.await.unwrap();
    }
}
