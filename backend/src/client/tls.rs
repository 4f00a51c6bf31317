//! How a connection to a store is made: TCP, then TLS by the data source's settings; nothing about gRPC or queries.
//! Written by hand because tonic's own TLS cannot leave verification out. Invariant: verification is left out only
//! where the settings say so, and certificates are read once, when the data source is opened.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::proxy::{self, Proxy};
use crate::settings::{self, Tls};

/// A store that does not take the connection in this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no connection. **Source**: the operating system or rustls.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is unknown.
    #[error("the name '{host}' cannot be resolved ({source})")]
    Resolve { host: String, source: io::Error },
    /// Nobody takes the connection.
    #[error("{}", tcp_words(.source))]
    Tcp { source: io::Error },
    /// Connected, and then TLS failed.
    #[error("{}", tls_words(.source))]
    Tls { source: io::Error },
    /// No answer at all.
    #[error("no answer within {CONNECT_TIMEOUT:?}; is the address right, and not blocked by a firewall?")]
    Timeout,
    /// The proxy on the way.
    #[error(transparent)]
    Proxy(#[from] proxy::Error),
    /// The host can't be a name in a certificate.
    #[error("'{0}' cannot be a name in a certificate; set 'Server name'")]
    ServerName(String),
}

fn tcp_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused; is the store running, and is this its gRPC address \
             (port 4317, unless it was changed)?"
            .to_owned(),
        io::ErrorKind::TimedOut => "no answer; is the address right, and not blocked by a firewall?".to_owned(),
        _ => error.to_string(),
    }
}

pub(super) fn tls_words(error: &io::Error) -> String {
    use rustls::CertificateError as Bad;
    use rustls::Error as Rustls;
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<Rustls>());
    match cause {
        Some(Rustls::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature)) => {
            "the store's certificate is signed by an authority that is not trusted here; add its certificate under \
             'With CA cert'"
                .to_owned()
        }
        Some(Rustls::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. })) => {
            "the store's certificate is for another name; set 'Server name' to the name in it".to_owned()
        }
        Some(Rustls::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. })) => {
            "the store's certificate has expired".to_owned()
        }
        Some(Rustls::InvalidCertificate(other)) => format!("the store's certificate is not valid ({other})"),
        Some(Rustls::InvalidMessage(_)) => {
            "the store does not speak TLS on this port; use http:// in the URL".to_owned()
        }
        Some(Rustls::AlertReceived(alert)) => format!("the store refused the TLS connection ({alert:?})"),
        _ if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the store closed the connection during the TLS handshake; does it speak TLS on this port?".to_owned()
        }
        _ => format!("the TLS handshake failed ({error})"),
    }
}

/// Words for a refusal that comes after the handshake: with TLS 1.3 a client certificate is judged only then. By its
/// text, for on the way through HTTP/2 nothing else is left of it.
pub fn refusal(error: &io::Error) -> Option<String> {
    let text = error.to_string();
    let alert = text.strip_prefix("received fatal alert: ")?;
    Some(format!("the store refused the TLS connection ({alert})"))
}

/// Makes connections to one store.
#[derive(Clone)]
pub struct Connector {
    tls: Option<(TlsConnector, Option<String>)>,
    proxy: Option<Arc<Proxy>>,
}

impl Connector {
    /// Reads the certificates. **Errors**: a text that is not PEM, or a key that does not fit its certificate.
    pub fn new(tls: Option<&Tls>, proxy: Option<&settings::Proxy>) -> Result<Connector, settings::Error> {
        let tls = tls.map(|tls| {
            let mut config = client_config(tls)?;
            config.alpn_protocols = vec![b"h2".to_vec()];
            Ok::<_, settings::Error>((TlsConnector::from(Arc::new(config)), tls.server_name.clone()))
        });
        let proxy = proxy.map(Proxy::new).transpose()?.map(Arc::new);
        Ok(Connector { tls: tls.transpose()?, proxy })
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<Box<dyn Io>>, Error> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, async {
            let tcp: Box<dyn Io> = match &self.proxy {
                None => Box::new(connect_tcp(&host, port).await?),
                Some(proxy) => proxy.connect(&host, port).await?,
            };
            let Some((connector, name)) = self.tls else { return Ok::<Box<dyn Io>, Error>(tcp) };
            let name = name.unwrap_or(host);
            let server = ServerName::try_from(name.clone()).map_err(|_| Error::ServerName(name))?;
            let stream = connector.connect(server, tcp).await.map_err(|source| Error::Tls { source })?;
            Ok(Box::new(stream) as Box<dyn Io>)
        });
        Ok(TokioIo::new(connected.await.map_err(|_| Error::Timeout)??))
    }
}

pub(super) async fn connect_tcp(host: &str, port: u16) -> Result<TcpStream, Error> {
    let resolved = tokio::net::lookup_host((host, port)).await;
    let addresses = resolved.map_err(|source| Error::Resolve { host: host.to_owned(), source })?;
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Queries are small messages that wait for each other.
                stream.set_nodelay(true).map_err(|source| Error::Tcp { source })?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(Error::Tcp { source: failure })
}

/// A connection, encrypted or not.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Io>>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Self::Response, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

pub(super) fn client_config(tls: &Tls) -> Result<ClientConfig, settings::Error> {
    let provider = Arc::new(ring::default_provider());
    let fault = |reason: String| settings::Error::BadCertificate { what: "TLS set-up", reason };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| fault(error.to_string()))?;
    let builder = if tls.skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(NoVerification(provider)))
    } else {
        builder.with_root_certificates(roots(tls)?)
    };
    Ok(match &tls.client {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let what = "client key";
            let bad = |reason: String| settings::Error::BadCertificate { what, reason };
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| bad(error.to_string()))?;
            let chain = certificates("client certificate", certificate)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| bad(error.to_string()))?
        }
    })
}

fn roots(tls: &Tls) -> Result<RootCertStore, settings::Error> {
    let mut roots = RootCertStore::empty();
    match &tls.ca {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(pem) => {
            let what = "certificate of the authority";
            for certificate in certificates(what, pem)? {
                let bad = |error: rustls::Error| settings::Error::BadCertificate { what, reason: error.to_string() };
                roots.add(certificate).map_err(bad)?;
            }
        }
    }
    Ok(roots)
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, settings::Error> {
    let bad = |reason: String| settings::Error::BadCertificate { what, reason };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| bad(error.to_string()))?;
    if chain.is_empty() {
        return Err(bad("there is no '-----BEGIN CERTIFICATE-----' in it".to_owned()));
    }
    Ok(chain)
}

/// Takes any certificate; signatures are still checked, so that the peer has the key of what it shows.
#[derive(Debug)]
struct NoVerification(Arc<CryptoProvider>);

impl ServerCertVerifier for NoVerification {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
