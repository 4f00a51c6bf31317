//! TLS between plugin and store, by the settings of the data source, against a server that speaks TLS and nothing more:
//! once TLS stands, Save & test goes on to find that there is no store behind it.

use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::started::{Plugin, context};

/// What the plugin says once TLS stands.
const CONNECTED: &str = "is not the gRPC port of a Quiver store";

/// An authority, made for one test.
fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed")
}

/// A server that takes connections for `name`, from anyone or only from clients that `clients` has signed.
async fn server(name: &str, issuer: &CertifiedIssuer<'static, KeyPair>, ask_clients: bool) -> u16 {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, issuer).expect("signed");
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    let builder = if ask_clients {
        let mut roots = RootCertStore::empty();
        roots.add(issuer.der().clone()).expect("a certificate");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        builder.with_client_cert_verifier(verifier.expect("a verifier"))
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let mut config = builder.with_single_cert(vec![certificate.der().clone()], key).expect("a pair");
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A refused handshake is the plugin's to report; a good one is answered with what is no HTTP/2.
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let page = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
                let mut request = Vec::new();
                // Whether the plugin is still there does not matter.
                let _ = stream.write_all(page).await;
                let _ = stream.read_to_end(&mut request).await;
            }
        }
    });
    port
}

/// A SOCKS5 proxy that asks for a user, and connects to where it is told. Returns its port, and what it was asked for.
async fn socks_proxy() -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // RFC 1928 and 1929: methods, user and password, then CONNECT to a name.
            let mut lengths = [0; 2];
            stream.read_exact(&mut lengths).await.expect("a greeting");
            stream.read_exact(&mut vec![0; lengths[1].into()]).await.expect("methods");
            stream.write_all(&[5, 2]).await.expect("written");
            stream.read_exact(&mut lengths).await.expect("a login");
            let mut user = vec![0; lengths[1].into()];
            stream.read_exact(&mut user).await.expect("a user");
            let length = stream.read_u8().await.expect("a length");
            stream.read_exact(&mut vec![0; length.into()]).await.expect("a password");
            stream.write_all(&[1, 0]).await.expect("written");
            let mut head = [0; 5];
            stream.read_exact(&mut head).await.expect("a request");
            let mut host = vec![0; head[4].into()];
            stream.read_exact(&mut host).await.expect("a name");
            let target = (String::from_utf8(host).expect("text"), stream.read_u16().await.expect("a port"));
            seen.lock().expect("whole").push(format!("{} for {}", String::from_utf8_lossy(&user), target.0));
            let Ok(mut store) = tokio::net::TcpStream::connect(target).await else { continue };
            stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.expect("written");
            // It ends when either side does.
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut store).await;
        }
    });
    (port, asked)
}

#[tokio::test]
async fn a_store_is_reached_through_grafanas_proxy() {
    let issuer = authority();
    let port = server("localhost", &issuer, false).await;
    let (proxy, asked) = socks_proxy().await;
    let address = format!("127.0.0.1:{proxy}");
    let variables = [("SERVER_ENABLED", "true"), ("PROXY_ADDRESS", address.as_str()), ("ALLOW_INSECURE", "true")];
    let plugin = Plugin::start(
        &variables.map(|(name, value)| (format!("GF_SECURE_SOCKS_DATASOURCE_PROXY_{name}"), value.to_owned())),
    )
    .await;
    let settings = json!({"enableSecureSocksProxy": true, "tlsAuthWithCACert": true});
    let message = save_and_test(&plugin, port, settings, &[("tlsCACert", &issuer.pem())]).await;
    assert!(message.contains(CONNECTED), "{message}");
    assert_eq!(asked.lock().expect("whole").first().map(String::as_str), Some("quiver for localhost"));
    let message = save_and_test(&Plugin::start(&[]).await, port, json!({"enableSecureSocksProxy": true}), &[]).await;
    assert!(message.contains("off in Grafana's configuration"), "{message}");
}

/// What Save & test says about a store behind TLS.
async fn save_and_test(plugin: &Plugin, port: u16, json: Value, secrets: &[(&str, &str)]) -> String {
    let url = format!("https://localhost:{port}");
    plugin.health(context(&url, &json.to_string(), secrets)).await.1
}

#[tokio::test]
async fn certificates_are_verified_by_the_settings() {
    let plugin = Plugin::start(&[]).await;
    let (ours, other) = (authority(), authority());
    let localhost = server("localhost", &ours, false).await;
    let elsewhere = server("store.internal", &ours, false).await;
    let (ours, other) = (ours.pem(), other.pem());
    let with_ca = json!({"tlsAuthWithCACert": true});
    let named = json!({"tlsAuthWithCACert": true, "serverName": "store.internal"});
    for (port, settings, secret, expect) in [
        (localhost, json!({}), "", "signed by an authority that is not trusted here"),
        (localhost, with_ca.clone(), ours.as_str(), CONNECTED),
        (localhost, with_ca.clone(), other.as_str(), "signed by an authority that is not trusted here"),
        (localhost, with_ca.clone(), "no PEM", "the certificate of the authority cannot be used"),
        (localhost, json!({"tlsSkipVerify": true}), "", CONNECTED),
        (elsewhere, with_ca, ours.as_str(), "the store's certificate is for another name"),
        (elsewhere, named, ours.as_str(), CONNECTED),
    ] {
        let message = save_and_test(&plugin, port, settings.clone(), &[("tlsCACert", secret)]).await;
        assert!(message.contains(expect), "{settings}: {message}");
    }
}

#[tokio::test]
async fn a_store_may_ask_for_a_certificate() {
    let plugin = Plugin::start(&[]).await;
    let issuer = authority();
    let port = server("localhost", &issuer, true).await;
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["grafana".to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, &issuer).expect("signed");
    let (issuer, certificate, key) = (issuer.pem(), certificate.pem(), key.serialize_pem());

    let settings = json!({"tlsAuthWithCACert": true});
    let message = save_and_test(&plugin, port, settings, &[("tlsCACert", &issuer)]).await;
    // The store's alert and the end of the connection race each other.
    let told = message.contains("refused the TLS connection (CertificateRequired)")
        || message.contains("or the store wants a client certificate");
    assert!(told, "{message}");

    let settings = json!({"tlsAuthWithCACert": true, "tlsAuth": true});
    let secrets = [("tlsCACert", issuer.as_str()), ("tlsClientCert", &certificate), ("tlsClientKey", &key)];
    let message = save_and_test(&plugin, port, settings, &secrets).await;
    assert!(message.contains(CONNECTED), "{message}");
}
