//! TLS between plugin and store, by the settings of the data source, against a server that speaks TLS and nothing more:
//! once TLS stands, Save & test goes on to find that there is no store behind it.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::Arc;

use grafana_plugin_sdk::pluginv2;
use pluginv2::diagnostics_client::DiagnosticsClient;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tonic_sdk::transport::Channel;

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

async fn plugin() -> (Child, Channel) {
    let mut process = Command::new(env!("CARGO_BIN_EXE_gpx_quiver_logs"))
        .env("grafana_plugin_type", "datasource")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the plugin starts");
    let mut line = String::new();
    let stdout = process.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut line).await.expect("a first line");
    let address = line.split('|').nth(3).expect("an address").to_owned();
    let channel = Channel::from_shared(format!("http://{address}")).expect("an address").connect().await;
    (process, channel.expect("it listens"))
}

async fn save_and_test(channel: &Channel, port: u16, json: Value, secrets: &[(&str, &str)]) -> String {
    let secret = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let source = pluginv2::DataSourceInstanceSettings {
        url: format!("https://localhost:{port}"),
        json_data: json.to_string().into_bytes(),
        decrypted_secure_json_data: secrets.iter().map(secret).collect(),
        ..Default::default()
    };
    let plugin_context = pluginv2::PluginContext { data_source_instance_settings: Some(source), ..Default::default() };
    let request = pluginv2::CheckHealthRequest { plugin_context: Some(plugin_context), headers: HashMap::new() };
    let answer = DiagnosticsClient::new(channel.clone()).check_health(request).await;
    answer.expect("an answer").into_inner().message
}

#[tokio::test]
async fn certificates_are_verified_by_the_settings() {
    let (_process, channel) = plugin().await;
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
        let message = save_and_test(&channel, port, settings.clone(), &[("tlsCACert", secret)]).await;
        assert!(message.contains(expect), "{settings}: {message}");
    }
}

#[tokio::test]
async fn a_store_may_ask_for_a_certificate() {
    let (_process, channel) = plugin().await;
    let issuer = authority();
    let port = server("localhost", &issuer, true).await;
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["grafana".to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, &issuer).expect("signed");
    let (issuer, certificate, key) = (issuer.pem(), certificate.pem(), key.serialize_pem());

    let settings = json!({"tlsAuthWithCACert": true});
    let message = save_and_test(&channel, port, settings, &[("tlsCACert", &issuer)]).await;
    // The store's alert and the end of the connection race each other.
    let told = message.contains("refused the TLS connection (CertificateRequired)")
        || message.contains("or the store wants a client certificate");
    assert!(told, "{message}");

    let settings = json!({"tlsAuthWithCACert": true, "tlsAuth": true});
    let secrets = [("tlsCACert", issuer.as_str()), ("tlsClientCert", &certificate), ("tlsClientKey", &key)];
    let message = save_and_test(&channel, port, settings, &secrets).await;
    assert!(message.contains(CONNECTED), "{message}");
}
