//! A connection to one broker: TCP or TLS, who we are, and requests answered one after the other.
//!
//! Invariant: a connection whose request did not come to its end is not used again: whoever drops the future drops it.

use std::collections::HashMap;
use std::fmt::Display;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::error::ParseResponseErrorCode;
use kafka_protocol::messages::{
    ApiVersionsRequest, RequestHeader, ResponseHeader, SaslAuthenticateRequest, SaslHandshakeRequest,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Message, Request, StrBytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto, version};

use super::sasl::{Sasl, Steps};
use super::{Error, TlsFiles};

/// Time to connect, with all handshakes.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Time for an answer, beside what the request itself asks the broker to wait.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Longest answer; a broker sends a batch whole, however little was asked for.
const ANSWER_BYTES_MAX: usize = 128 << 20;
const CLIENT_ID: &str = "quiver";

/// TLS and credentials.
#[derive(Debug, Clone, Default)]
pub struct Security {
    tls: Option<Arc<ClientConfig>>,
    sasl: Option<Sasl>,
}

impl Security {
    /// Reads the files of TLS. **Errors**: [`Error::Security`] with the file.
    pub fn new(tls: Option<&TlsFiles>, sasl: Option<Sasl>) -> Result<Security, Error> {
        let tls = tls.map(client_config).transpose().map_err(Error::Security)?;
        Ok(Security { tls, sasl })
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error: &dyn Display| format!("can't read certificates of '{}': {error}", path.display());
    let found = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?;
    let found = found.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(&error))?;
    if found.is_empty() { Err(wrong(&"it has none")) } else { Ok(found) }
}

fn client_config(files: &TlsFiles) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    if files.ca.as_os_str().is_empty() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err("this system trusts no certificate authority; set tls_ca".to_owned());
        }
    } else {
        for certificate in certificates(&files.ca)? {
            let wrong = |error| format!("'{}' has no certificate authority: {error}", files.ca.display());
            roots.add(certificate).map_err(wrong)?;
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    if files.cert.as_os_str().is_empty() {
        return Ok(Arc::new(builder.with_no_client_auth()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| format!("can't read the key of '{}': {error}", files.key.display()))?;
    let config = builder
        .with_client_auth_cert(certificates(&files.cert)?, key)
        .map_err(|error| format!("'{}' and '{}': {error}", files.cert.display(), files.key.display()))?;
    Ok(Arc::new(config))
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// An open connection.
pub(super) struct Connection {
    pub broker: String,
    stream: Box<dyn Stream>,
    /// Versions that the broker speaks, by the key of the request.
    versions: HashMap<i16, (i16, i16)>,
    correlation: i32,
    buffer: BytesMut,
}

impl Connection {
    /// Connects, and says who we are. **Errors**: [`Error::Connect`], [`Error::Security`].
    pub async fn open(broker: &str, security: &Security) -> Result<Connection, Error> {
        let opened = tokio::time::timeout(CONNECT_MAX, Connection::open_unbounded(broker, security));
        let late = |_| Error::Timeout { broker: broker.to_owned(), what: "a connection", after: CONNECT_MAX };
        opened.await.map_err(late)?
    }

    async fn open_unbounded(broker: &str, security: &Security) -> Result<Connection, Error> {
        let failed = |source| Error::Connect { broker: broker.to_owned(), source };
        let stream = TcpStream::connect(broker).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let stream: Box<dyn Stream> = match &security.tls {
            None => Box::new(stream),
            Some(config) => {
                let host = broker.rsplit_once(':').map_or(broker, |(host, _)| host).trim_matches(['[', ']']);
                let name = ServerName::try_from(host.to_owned())
                    .map_err(|error| Error::Security(format!("'{host}' is no name for TLS: {error}")))?;
                Box::new(TlsConnector::from(config.clone()).connect(name, stream).await.map_err(failed)?)
            }
        };
        let (versions, buffer) = (HashMap::new(), BytesMut::new());
        let mut connection = Connection { broker: broker.to_owned(), stream, versions, correlation: 0, buffer };
        connection.learn_versions().await?;
        if let Some(sasl) = &security.sasl {
            connection.authenticate(sasl).await?;
        }
        Ok(connection)
    }

    async fn learn_versions(&mut self) -> Result<(), Error> {
        // Version 0 is the one that every broker answers.
        let answer = self.ask_as(&ApiVersionsRequest::default(), 0, "its versions", ANSWER_MAX).await?;
        if let Some(code) = answer.error_code.err() {
            return Err(Error::Refused { what: format!("the versions of '{}'", self.broker), code });
        }
        self.versions = answer.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect();
        Ok(())
    }

    async fn authenticate(&mut self, sasl: &Sasl) -> Result<(), Error> {
        let refused = |broker: &str, reason: &dyn Display| {
            Error::Security(format!(
                "'{broker}' does not accept '{}' by {}: {reason}",
                sasl.user,
                sasl.mechanism.name()
            ))
        };
        let handshake =
            SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(sasl.mechanism.name()));
        let answer = self.ask(&handshake, 1, "the handshake of SASL").await?;
        if let Some(code) = answer.error_code.err() {
            let offered: Vec<&str> = answer.mechanisms.iter().map(StrBytes::as_str).collect();
            return Err(refused(&self.broker, &format!("{code}; it offers {}", offered.join(", "))));
        }
        let mut steps = Steps::new(sasl).map_err(|reason| refused(&self.broker, &reason))?;
        let mut message = steps.first();
        loop {
            let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(message));
            let answer = self.ask(&request, 1, "credentials").await?;
            if let Some(code) = answer.error_code.err() {
                let reason = answer.error_message.map_or_else(|| code.to_string(), |text| text.to_string());
                return Err(refused(&self.broker, &reason));
            }
            match steps.next(&answer.auth_bytes).map_err(|reason| refused(&self.broker, &reason))? {
                Some(more) => message = more,
                None => return Ok(()),
            }
        }
    }

    /// The version of a request that both sides speak, at most `newest`.
    pub fn version<R: Request>(&self, newest: i16, what: &'static str) -> Result<i16, Error> {
        let (oldest_there, newest_there) = self.versions.get(&R::KEY).copied().unwrap_or((0, -1));
        let version = newest.min(newest_there);
        if version < oldest_there.max(<R as Message>::VERSIONS.min) {
            return Err(Error::Version { broker: self.broker.clone(), what });
        }
        Ok(version)
    }

    /// Asks in the newest version that both sides speak, at most `newest`.
    pub async fn ask<R: Request>(
        &mut self,
        request: &R,
        newest: i16,
        what: &'static str,
    ) -> Result<R::Response, Error> {
        let version = self.version::<R>(newest, what)?;
        self.ask_as(request, version, what, ANSWER_MAX).await
    }

    /// Asks in a version, and waits so long for the answer. **Errors**: the connection is of no use then.
    pub async fn ask_as<R: Request>(
        &mut self,
        request: &R,
        version: i16,
        what: &'static str,
        wait: Duration,
    ) -> Result<R::Response, Error> {
        let malformed = |broker: &str, reason: &dyn Display| Error::Malformed {
            broker: broker.to_owned(),
            reason: format!("{what}, version {version}: {reason}"),
        };
        self.correlation = self.correlation.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str(CLIENT_ID)));
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        let encoded = header.encode(&mut frame, R::header_version(version));
        encoded.and_then(|()| request.encode(&mut frame, version)).map_err(|error| malformed(&self.broker, &error))?;
        let length = i32::try_from(frame.len() - 4).map_err(|error| malformed(&self.broker, &error))?;
        frame[..4].copy_from_slice(&length.to_be_bytes());

        let exchanged = tokio::time::timeout(wait, self.exchange(&frame)).await;
        let late = |_| Error::Timeout { broker: self.broker.clone(), what, after: wait };
        let broken = |source| Error::Broken { broker: self.broker.clone(), source };
        let mut answer = exchanged.map_err(late)?.map_err(broken)?;
        let header = ResponseHeader::decode(&mut answer, R::Response::header_version(version));
        let header = header.map_err(|error| malformed(&self.broker, &error))?;
        if header.correlation_id != self.correlation {
            return Err(malformed(&self.broker, &"it answers another request"));
        }
        R::Response::decode(&mut answer, version).map_err(|error| malformed(&self.broker, &error))
    }

    /// Sends a frame, and reads one; memory grows with what has come, not with what was said to come.
    async fn exchange(&mut self, frame: &[u8]) -> io::Result<Bytes> {
        self.stream.write_all(frame).await?;
        self.stream.flush().await?;
        let length = self.stream.read_i32().await?;
        let length = usize::try_from(length).ok().filter(|length| *length <= ANSWER_BYTES_MAX);
        let length =
            length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an answer of no possible length"))?;
        self.buffer.clear();
        while self.buffer.len() < length {
            let missing = (length - self.buffer.len()) as u64;
            if (&mut self.stream).take(missing).read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.split().freeze())
    }
}
