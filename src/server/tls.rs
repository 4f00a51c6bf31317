//! TLS of a port: certificates from files that are read again when they change, and handshakes beside each other, so that
//! a slow client keeps no other waiting. What is spoken inside is others' matter.
//!
//! Invariant: while changed files can't be used (half written, key and certificate apart), what was read before holds.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto, version};
use tokio_rustls::server::TlsStream;
use tracing::{debug, info, warn};

use super::status::Error;
use crate::config;

/// How often the files are looked at, at most; only when somebody connects.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// Handshakes of one port at once; further connections wait in the system's queue.
const HANDSHAKES_MAX: usize = 256;
/// How long to wait after the system could not give a connection (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What shows that a file was changed: its inode (Kubernetes swaps links), size and time.
type Stamp = Vec<Option<(u64, u64, i64, i64)>>;

/// The certificates of a port.
pub(super) struct Tls {
    section: &'static str,
    files: config::Tls,
    /// Names of the protocols inside, for ALPN; none: it is not spoken of.
    protocols: Vec<Vec<u8>>,
    handshake_timeout: Duration,
    current: Mutex<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    stamp: Stamp,
    looked: Instant,
}

impl Tls {
    /// Reads the files; `None` where there is no certificate. **Errors**: [`Error::Invalid`] with the file.
    pub fn load(
        section: &'static str,
        files: &config::Tls,
        protocols: &[&str],
        handshake_timeout: Duration,
    ) -> Result<Option<Arc<Tls>>, Error> {
        if !files.is_on() {
            return Ok(None);
        }
        let protocols: Vec<Vec<u8>> = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stamp = stamp(files);
        let config = read(files, &protocols).map_err(|reason| Error::Invalid(format!("[{section}]: {reason}")))?;
        let current = Mutex::new(Current { config, stamp, looked: Instant::now() });
        Ok(Some(Arc::new(Tls { section, files: files.clone(), protocols, handshake_timeout, current })))
    }

    /// The certificates as they are now.
    fn acceptor(&self) -> TlsAcceptor {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= LOOK_PERIOD {
            current.looked = Instant::now();
            let found = stamp(&self.files);
            if found != current.stamp {
                match read(&self.files, &self.protocols) {
                    Ok(config) => {
                        info!(section = self.section, "the certificates were changed and read again");
                        (current.config, current.stamp) = (config, found);
                    }
                    // Looked at again with the next connection: what is half written now is whole then.
                    Err(reason) => warn!(section = self.section, "changed certificates can't be used: {reason}"),
                }
            }
        }
        TlsAcceptor::from(current.config.clone())
    }

    /// The handshake. **Errors**: what was wrong with it, or that it took too long.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        // Small answers must not wait for a full segment.
        stream.set_nodelay(true)?;
        let handshake = self.acceptor().accept(stream);
        tokio::time::timeout(self.handshake_timeout, handshake).await.map_err(|_| io::ErrorKind::TimedOut)?
    }
}

fn stamp(files: &config::Tls) -> Stamp {
    let paths = [&files.cert, &files.key, &files.client_ca];
    let stamp =
        |path: &PathBuf| fs::metadata(path).ok().map(|file| (file.ino(), file.len(), file.mtime(), file.mtime_nsec()));
    paths.into_iter().map(stamp).collect()
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("can't read certificates of '{}': {error}", path.display());
    let found = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?;
    let found = found.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(&error))?;
    if found.is_empty() { Err(wrong(&"it has none")) } else { Ok(found) }
}

fn read(files: &config::Tls, protocols: &[Vec<u8>]) -> Result<Arc<ServerConfig>, String> {
    let chain = certificates(&files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| format!("can't read the key of '{}': {error}", files.key.display()))?;
    let provider = Arc::new(crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(|error| error.to_string())?;
    let builder = if files.client_ca.as_os_str().is_empty() {
        builder.with_no_client_auth()
    } else {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&files.client_ca)? {
            let wrong = |error| format!("'{}' has no certificate authority: {error}", files.client_ca.display());
            roots.add(certificate).map_err(wrong)?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        builder.with_client_cert_verifier(verifier.map_err(|error| error.to_string())?)
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| format!("'{}' and '{}': {error}", files.cert.display(), files.key.display()))?;
    config.alpn_protocols = protocols.to_vec();
    Ok(Arc::new(config))
}

/// A port whose connections come out once their handshake is done.
pub(super) struct TlsListener {
    listener: TcpListener,
    tls: Arc<Tls>,
    handshakes: JoinSet<Option<(TlsStream<TcpStream>, SocketAddr)>>,
}

impl TlsListener {
    pub fn new(listener: TcpListener, tls: Arc<Tls>) -> Self {
        TlsListener { listener, tls, handshakes: JoinSet::new() }
    }

    /// The next connection; those whose handshake fails are told in the log at debug level.
    pub async fn next(&mut self) -> (TlsStream<TcpStream>, SocketAddr) {
        loop {
            let has_room = self.handshakes.len() < HANDSHAKES_MAX;
            tokio::select! {
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = done {
                        return connection;
                    }
                }
                accepted = self.listener.accept(), if has_room => match accepted {
                    Ok((stream, peer)) => {
                        let tls = self.tls.clone();
                        self.handshakes.spawn(async move {
                            match tls.accept(stream).await {
                                Ok(stream) => Some((stream, peer)),
                                Err(error) => {
                                    debug!(%peer, "no TLS: {error}");
                                    None
                                }
                            }
                        });
                    }
                    Err(error) => {
                        warn!("a connection could not be accepted: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }
}
