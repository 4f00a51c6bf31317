//! The way to a store through Grafana's secure socks proxy: TLS to the proxy with a certificate of ours, then SOCKS5.
//! Nothing about the store's own TLS, which goes through it. Invariant: the store's name is resolved by the proxy.

use std::io;
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_socks::tcp::Socks5Stream;

use super::tls::{Io, client_config, connect_tcp, tls_words};
use crate::settings;

/// Why the proxy does not let us through.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not there.
    #[error("the secure socks proxy at '{address}' cannot be reached ({reason})")]
    Unreachable { address: String, reason: String },
    /// It is there, and refuses.
    #[error("the secure socks proxy at '{address}' does not connect to the store ({reason})")]
    Refused { address: String, reason: String },
}

/// A proxy, its certificates read.
pub struct Proxy {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    user: String,
    password: String,
}

impl Proxy {
    /// Reads the settings. **Errors**: an address or a certificate that can't be used.
    pub fn new(settings: &settings::Proxy) -> Result<Proxy, settings::Error> {
        let bad = |what: &str| settings::Error::Proxy(format!("its address '{}' has no {what}", settings.address));
        let (host, port) = settings.address.rsplit_once(':').ok_or_else(|| bad("port"))?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let port = port.parse().map_err(|_| bad("port"))?;
        let tls = settings.tls.as_ref().map(|tls| {
            let name = tls.server_name.clone().unwrap_or_else(|| host.clone());
            let name = ServerName::try_from(name).map_err(|_| bad("name that a certificate can have"))?;
            Ok::<_, settings::Error>((TlsConnector::from(Arc::new(client_config(tls)?)), name))
        });
        let (user, password) = (settings.user.clone(), settings.password.clone());
        Ok(Proxy { host, port, tls: tls.transpose()?, user, password })
    }

    /// A connection to a store's port.
    pub async fn connect(&self, host: &str, port: u16) -> Result<Box<dyn Io>, Error> {
        let address = || format!("{}:{}", self.host, self.port);
        let unreachable = |reason: String| Error::Unreachable { address: address(), reason };
        let tcp = connect_tcp(&self.host, self.port).await.map_err(|error| unreachable(error.to_string()))?;
        let way: Box<dyn Io> = match &self.tls {
            None => Box::new(tcp),
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), tcp).await;
                Box::new(stream.map_err(|error: io::Error| unreachable(tls_words(&error)))?)
            }
        };
        let through = Socks5Stream::connect_with_password_and_socket(way, (host, port), &self.user, &self.password);
        let through =
            through.await.map_err(|error| Error::Refused { address: address(), reason: error.to_string() })?;
        Ok(Box::new(through.into_inner()))
    }
}
