//! A data source's settings as Grafana keeps them, read and checked; nothing here connects or reads files.
//! Invariant: settings that [`Settings::parse`] returns are complete: every later step may take them as they are.

mod link;

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::Uri;
use http::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;

use crate::model::Query;
use link::LinkForm;
pub use link::{Link, LinkTarget, tried};

/// Deadline of a query when the settings name none.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// No query may run longer, whatever the settings say.
const TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// Lines of an answer when neither query nor settings say.
const LIMIT_DEFAULT: u64 = 1000;
/// More lines than this no page can draw; a query that asks for more gets these.
pub const LIMIT_MAX: u64 = 50_000;

/// Why settings can't be used. The words are for whoever fills in the form.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL field is empty.
    #[error("the URL of the store is missing; give its gRPC address, such as http://localhost:4317")]
    NoUrl,
    /// The URL can't be read.
    #[error("'{url}' is not a URL of a store ({reason}); it should look like http://localhost:4317")]
    BadUrl { url: String, reason: String },
    /// `jsonData` is not what the form writes.
    #[error("the settings cannot be read: {0}")]
    BadJson(#[from] serde_json::Error),
    /// A custom header can't be sent.
    #[error("the custom header '{0}' cannot be sent: its name or its value has characters that are not allowed")]
    BadHeader(String),
    /// Certificate or key that is not PEM.
    #[error("the {what} cannot be used: {reason}")]
    BadCertificate { what: &'static str, reason: String },
    /// A link whose pattern can't be read.
    #[error("the pattern of the link '{link}' cannot be read: {reason}")]
    BadPattern { link: String, reason: String },
    /// A switch is on and what it needs is not there.
    #[error("'{switch}' is on, and the {what} is missing")]
    Missing { switch: &'static str, what: &'static str },
    /// A query names a tenant it may not read.
    #[error("queries of this data source may not read the tenant '{0}'; its settings list those they may")]
    Tenant(String),
    /// The proxy that Grafana is configured with can't be used.
    #[error("the secure socks proxy cannot be used: {0}")]
    Proxy(String),
}

/// How the store is reached over TLS. The texts are PEM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// Take any certificate. Only for tests and closed networks.
    pub skip_verify: bool,
    /// Certificates of the authorities that are trusted instead of the public ones.
    pub ca: Option<String>,
    /// Our own certificate and its key.
    pub client: Option<(String, String)>,
    /// Name expected in the store's certificate, when it is not the host of the URL.
    pub server_name: Option<String>,
}

/// Where a trace id leads to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Traces {
    /// Uid of the data source that shows traces; empty: no internal link.
    pub datasource_uid: String,
    /// Its name, for the link.
    pub datasource_name: String,
    /// Fields that hold a trace id.
    pub field_names: Vec<String>,
    /// A plain URL with `${__value.raw}` where the trace id goes; empty: none.
    pub external_url: String,
}

impl Default for Traces {
    fn default() -> Self {
        Traces {
            datasource_uid: String::new(),
            datasource_name: String::new(),
            field_names: vec!["trace_id".to_owned()],
            external_url: String::new(),
        }
    }
}

/// Every link that lines have.
#[derive(Debug, Clone, Default)]
pub struct Links {
    /// Where a trace id leads to.
    pub traces: Traces,
    /// Links to other systems.
    pub others: Vec<Link>,
    /// This data source, for links to lines; `None` while it has no uid.
    pub own: Option<Own>,
}

/// A data source as links name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// What it is found by.
    pub uid: String,
    /// What people call it.
    pub name: String,
}

/// A data source, ready to be used.
#[derive(Debug, Clone)]
pub struct Settings {
    /// gRPC address of the store, with scheme, host and port.
    pub url: Uri,
    /// Set when the scheme is https.
    pub tls: Option<Tls>,
    /// Value of the `authorization` header, from the token or from basic auth.
    pub authorization: Option<HeaderValue>,
    /// Custom headers, sent with every request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whose logs; `None`: the store's default.
    pub tenant: Option<HeaderValue>,
    /// Deadline of a query.
    pub timeout: Duration,
    /// Lines of an answer when the query names none.
    pub limit_default: u64,
    /// Links of log lines.
    pub links: Links,
    /// Hand the user's own login on to the store.
    pub forward_oauth: bool,
    /// Tenants that a query may name.
    pub tenants: Vec<String>,
    /// The proxy on the way to the store.
    pub proxy: Option<Proxy>,
}

/// Grafana's secure socks proxy, as its configuration has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Host and port.
    pub address: String,
    /// How the proxy itself is reached over TLS; `None`: in the clear, where Grafana allows it.
    pub tls: Option<Tls>,
    /// Who connects, for the proxy's rules: the data source's name.
    pub user: String,
    /// What it shows for that.
    pub password: String,
}

/// `jsonData` as the form writes it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Form {
    tenant: String,
    timeout_seconds: Option<f64>,
    default_limit: Option<f64>,
    traces: Traces,
    links: Vec<LinkForm>,
    tls_skip_verify: bool,
    tls_auth: bool,
    tls_auth_with_ca_cert: bool,
    // Grafana's own spelling of the same switch.
    #[serde(rename = "tlsAuthWithCACert")]
    tls_auth_with_ca_cert_grafana: bool,
    server_name: String,
    oauth_pass_thru: bool,
    tenants: Vec<String>,
    enable_secure_socks_proxy: bool,
    secure_socks_proxy_username: String,
    #[serde(flatten)]
    others: HashMap<String, Value>,
}

/// What Grafana tells about a data source, before it is checked.
#[derive(Debug, Default)]
pub struct Raw<'a> {
    /// Its uid.
    pub uid: &'a str,
    /// Its name.
    pub name: &'a str,
    /// The URL field.
    pub url: &'a str,
    /// Basic auth is switched on.
    pub basic_auth: bool,
    /// User of basic auth.
    pub basic_auth_user: &'a str,
    /// The form's fields, as JSON.
    pub json: &'a [u8],
    /// Decrypted secrets.
    pub secrets: Option<&'a HashMap<String, String>>,
    /// What Grafana says about its secure socks proxy, by the names behind [`PROXY_PREFIX`].
    pub proxy: HashMap<String, String>,
}

/// Environment variables that tell about the secure socks proxy begin with this.
pub const PROXY_PREFIX: &str = "GF_SECURE_SOCKS_DATASOURCE_PROXY_";

impl Raw<'_> {
    fn secret(&self, name: &str) -> Option<&str> {
        self.secrets.and_then(|secrets| secrets.get(name)).map(String::as_str).filter(|text| !text.trim().is_empty())
    }
}

impl Settings {
    /// The tenant that a query names. **Errors**: one that is not in the settings' list.
    pub fn tenant_of(&self, query: &Query) -> Result<Option<HeaderValue>, Error> {
        let name = query.tenant.trim();
        if name.is_empty() || self.tenant.as_ref().is_some_and(|own| own == name) {
            return Ok(None);
        }
        let known = self.tenants.iter().any(|tenant| tenant == name);
        let value = known.then(|| HeaderValue::from_str(name).ok()).flatten();
        value.map(Some).ok_or_else(|| Error::Tenant(name.to_owned()))
    }

    /// Checks what Grafana has. **Errors**: the field that is wrong, in words for the form.
    pub fn parse(raw: &Raw<'_>) -> Result<Settings, Error> {
        let json = if raw.json.is_empty() { b"{}".as_slice() } else { raw.json };
        let form: Form = serde_json::from_slice(json)?;
        let url = parse_url(raw.url)?;
        let tls = (url.scheme_str() == Some("https")).then(|| parse_tls(&form, raw)).transpose()?;
        let tenant = form.tenant.trim();
        let tenant = (!tenant.is_empty())
            .then(|| HeaderValue::from_str(tenant).map_err(|_| Error::BadHeader("X-Scope-OrgID".to_owned())))
            .transpose()?;
        let proxy = parse_proxy(&form, raw)?;
        let timeout = form.timeout_seconds.filter(|seconds| *seconds > 0.0);
        let timeout = timeout.map_or(TIMEOUT_DEFAULT, |seconds| Duration::from_secs_f64(seconds.min(1e6)));
        let limit = form.default_limit.filter(|limit| *limit >= 1.0).map_or(LIMIT_DEFAULT, |limit| limit as u64);
        Ok(Settings {
            tls,
            authorization: parse_authorization(raw)?,
            headers: parse_headers(&form, raw)?,
            tenant,
            timeout: timeout.min(TIMEOUT_MAX),
            limit_default: limit.min(LIMIT_MAX),
            links: Links {
                traces: form.traces,
                others: form.links.into_iter().filter_map(|link| link.parse().transpose()).collect::<Result<_, _>>()?,
                own: (!raw.uid.is_empty()).then(|| Own { uid: raw.uid.to_owned(), name: raw.name.to_owned() }),
            },
            forward_oauth: form.oauth_pass_thru,
            tenants: form.tenants.iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect(),
            proxy,
            url,
        })
    }
}

/// The proxy of Grafana's `[secure_socks_datasource_proxy]`. Wherever it is set, Grafana hands it to plugins in these
/// environment variables (its pkg/services/pluginsintegration/pluginconfig/envvars.go).
fn parse_proxy(form: &Form, raw: &Raw<'_>) -> Result<Option<Proxy>, Error> {
    if !form.enable_secure_socks_proxy {
        return Ok(None);
    }
    let variable = |name: &str| raw.proxy.get(name).map(|text| text.trim()).filter(|text| !text.is_empty());
    let is_on = |name: &str| variable(name).is_some_and(|text| text.eq_ignore_ascii_case("true"));
    if !is_on("SERVER_ENABLED") {
        let why = "it is on here, and off in Grafana's configuration ('enabled' of [secure_socks_datasource_proxy])";
        return Err(Error::Proxy(why.to_owned()));
    }
    let needed =
        |name: &str| variable(name).ok_or_else(|| Error::Proxy(format!("Grafana gives no {PROXY_PREFIX}{name}")));
    let file = |path: &str| {
        std::fs::read_to_string(path).map_err(|error| Error::Proxy(format!("'{path}' cannot be read: {error}")))
    };
    let tls = if is_on("ALLOW_INSECURE") {
        None
    } else {
        let client = Some((file(needed("CLIENT_CERT")?)?, file(needed("CLIENT_KEY")?)?));
        // Several files stand with spaces between them.
        let ca = needed("ROOT_CA_CERT")?.split(' ').map(file).collect::<Result<Vec<_>, _>>()?.join("\n");
        let server_name = variable("SERVER_NAME").map(str::to_owned);
        Some(Tls { skip_verify: false, ca: Some(ca), client, server_name })
    };
    let name = form.secure_socks_proxy_username.trim();
    let user = if name.is_empty() { raw.uid } else { name };
    let password = raw.secret("secureSocksProxyPassword").unwrap_or("password");
    Ok(Some(Proxy {
        address: needed("PROXY_ADDRESS")?.to_owned(),
        tls,
        user: user.to_owned(),
        password: password.to_owned(),
    }))
}

fn parse_url(text: &str) -> Result<Uri, Error> {
    let text = text.trim().trim_end_matches('/');
    if text.is_empty() {
        return Err(Error::NoUrl);
    }
    // People write "localhost:4317" and "grpc://…"; both say what is meant.
    let full = match text.split_once("://") {
        None => format!("http://{text}"),
        Some(("grpc", rest)) => format!("http://{rest}"),
        Some(("grpcs" | "grpc+tls", rest)) => format!("https://{rest}"),
        Some(("http" | "https", _)) => text.to_owned(),
        Some((scheme, _)) => {
            return Err(Error::BadUrl { url: text.to_owned(), reason: format!("unknown scheme '{scheme}'") });
        }
    };
    let bad = |reason: String| Error::BadUrl { url: text.to_owned(), reason };
    let uri: Uri = full.parse().map_err(|error: http::uri::InvalidUri| bad(error.to_string()))?;
    if uri.host().is_none_or(str::is_empty) {
        return Err(bad("it has no host".to_owned()));
    }
    Ok(uri)
}

fn parse_tls(form: &Form, raw: &Raw<'_>) -> Result<Tls, Error> {
    let needed = |name: &str, switch, what| raw.secret(name).map(str::to_owned).ok_or(Error::Missing { switch, what });
    let ca = (form.tls_auth_with_ca_cert || form.tls_auth_with_ca_cert_grafana)
        .then(|| needed("tlsCACert", "With CA cert", "certificate of the authority"))
        .transpose()?;
    let client = form
        .tls_auth
        .then(|| {
            let certificate = needed("tlsClientCert", "TLS client auth", "client certificate")?;
            Ok::<_, Error>((certificate, needed("tlsClientKey", "TLS client auth", "client key")?))
        })
        .transpose()?;
    let server_name = Some(form.server_name.trim().to_owned()).filter(|name| !name.is_empty());
    Ok(Tls { skip_verify: form.tls_skip_verify, ca, client, server_name })
}

fn parse_authorization(raw: &Raw<'_>) -> Result<Option<HeaderValue>, Error> {
    let text = if raw.basic_auth {
        let password = raw.secret("basicAuthPassword").unwrap_or_default();
        format!("Basic {}", BASE64_STANDARD.encode(format!("{}:{password}", raw.basic_auth_user)))
    } else if let Some(token) = raw.secret("token") {
        let token = token.trim();
        format!("Bearer {}", token.strip_prefix("Bearer ").unwrap_or(token))
    } else {
        return Ok(None);
    };
    let mut value = HeaderValue::from_str(&text).map_err(|_| Error::BadHeader("Authorization".to_owned()))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn parse_headers(form: &Form, raw: &Raw<'_>) -> Result<Vec<(HeaderName, HeaderValue)>, Error> {
    let mut headers = Vec::new();
    let mut names: Vec<_> = form
        .others
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix("httpHeaderName")?, value.as_str()?.trim())))
        .filter(|(_, name)| !name.is_empty())
        .collect();
    names.sort_unstable();
    for (number, name) in names {
        let Some(value) = raw.secret(&format!("httpHeaderValue{number}")) else { continue };
        let bad = || Error::BadHeader(name.to_owned());
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        let mut value = HeaderValue::from_str(value.trim()).map_err(|_| bad())?;
        value.set_sensitive(true);
        headers.push((header, value));
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secrets(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn parse(url: &str, json: &str, pairs: &[(&str, &str)]) -> Result<Settings, Error> {
        let secrets = secrets(pairs);
        Settings::parse(&Raw { url, json: json.as_bytes(), secrets: Some(&secrets), ..Raw::default() })
    }

    #[test]
    fn urls_are_taken_as_people_write_them() {
        let check = |text: &str, expect: &str| match parse_url(text) {
            Ok(uri) => assert_eq!(uri.to_string(), expect, "{text}"),
            Err(error) => assert_eq!(error.to_string(), expect, "{text}"),
        };
        check("http://localhost:4317", "http://localhost:4317/");
        check(" https://logs.example.com:443/ ", "https://logs.example.com:443/");
        check("localhost:4317", "http://localhost:4317/");
        check("grpc://store:4317", "http://store:4317/");
        check("grpc+tls://store:4317", "https://store:4317/");
        check("", "the URL of the store is missing; give its gRPC address, such as http://localhost:4317");
        let shape = "it should look like http://localhost:4317";
        check("ftp://x", &format!("'ftp://x' is not a URL of a store (unknown scheme 'ftp'); {shape}"));
        check("http://a b", &format!("'http://a b' is not a URL of a store (invalid uri character); {shape}"));
    }

    #[test]
    fn an_empty_form_has_defaults() {
        let settings = parse("http://localhost:4317", "", &[]).expect("fine");
        assert_eq!(settings.timeout, Duration::from_secs(30));
        assert_eq!(settings.limit_default, 1000);
        assert_eq!(settings.links.traces, Traces::default());
        assert!(settings.tls.is_none() && settings.authorization.is_none() && settings.tenant.is_none());
    }

    #[test]
    fn token_and_basic_auth_become_one_header() {
        let settings = parse("http://s:1", "{}", &[("token", "abc")]).expect("fine");
        assert_eq!(settings.authorization.expect("set"), "Bearer abc");
        let secrets = secrets(&[("basicAuthPassword", "p"), ("token", "unused")]);
        let raw = Raw {
            url: "http://s:1",
            basic_auth: true,
            basic_auth_user: "u",
            secrets: Some(&secrets),
            ..Raw::default()
        };
        assert_eq!(Settings::parse(&raw).expect("fine").authorization.expect("set"), "Basic dTpw");
    }

    #[test]
    fn headers_are_joined_with_their_secret_values() {
        let json = r#"{"httpHeaderName2":"X-B","httpHeaderName1":"X-A","httpHeaderName3":"X-None"}"#;
        let settings =
            parse("http://s:1", json, &[("httpHeaderValue1", "a"), ("httpHeaderValue2", "b")]).expect("fine");
        let headers: Vec<_> = settings.headers.iter().map(|(n, v)| (n.as_str(), v.to_str().expect("text"))).collect();
        assert_eq!(headers, [("x-a", "a"), ("x-b", "b")]);
        let error = parse("http://s:1", r#"{"httpHeaderName1":"a b"}"#, &[("httpHeaderValue1", "x")]).expect_err("bad");
        assert!(error.to_string().starts_with("the custom header 'a b' cannot be sent"), "{error}");
    }

    #[test]
    fn tls_switches_need_their_secrets() {
        let error = parse("https://s:1", r#"{"tlsAuth":true}"#, &[]).expect_err("no certificate");
        assert_eq!(error.to_string(), "'TLS client auth' is on, and the client certificate is missing");
        let error = parse("https://s:1", r#"{"tlsAuthWithCACert":true}"#, &[]).expect_err("no authority");
        assert_eq!(error.to_string(), "'With CA cert' is on, and the certificate of the authority is missing");
        let settings = parse("http://s:1", r#"{"tlsAuth":true}"#, &[]).expect("plain http needs none");
        assert!(settings.tls.is_none());
    }

    #[test]
    fn links_are_read_as_the_form_and_as_people_write_them() {
        let json = r#"{"links":[
            {"name":"order","field":"order_id","url":"https://shop/${__value.raw}"},
            {"pattern":"id=(\\w+)","datasourceUid":"tempo","query":"{\"query\":\"${__value.raw}\",\"queryType\":\"traceql\"}"},
            {"name":"loki","datasourceUid":"loki","query":"{app=\"x\"}"},
            {"name":"not filled in"}]}"#;
        let links = parse("http://s:1", json, &[]).expect("fine").links.others;
        let told: Vec<_> = links.iter().map(|link| (link.name.as_str(), link.field.as_str(), &link.target)).collect();
        let query =
            |uid: &str, query| LinkTarget::Query { datasource_uid: uid.into(), datasource_name: uid.into(), query };
        assert_eq!(
            told,
            [
                ("order", "order_id", &LinkTarget::Url("https://shop/${__value.raw}".into())),
                ("message", "message", &query("tempo", json!({"query": "${__value.raw}", "queryType": "traceql"}))),
                ("loki", "message", &query("loki", json!({"query": "{app=\"x\"}"}))),
            ]
        );
        let error = parse("http://s:1", r#"{"links":[{"name":"x","url":"u","pattern":"("}]}"#, &[]).expect_err("bad");
        assert!(error.to_string().starts_with("the pattern of the link 'x' cannot be read"), "{error}");
    }

    #[test]
    fn a_query_may_name_the_tenants_of_the_list() {
        let json = r#"{"tenant":"own","tenants":["team-a "," "]}"#;
        let settings = parse("http://s:1", json, &[]).expect("fine");
        let of = |name: &str| settings.tenant_of(&Query::normalize(&json!({"tenant": name})));
        assert_eq!(of("").expect("fine"), None);
        assert_eq!(of("own").expect("fine"), None);
        assert_eq!(of("team-a").expect("fine"), Some(HeaderValue::from_static("team-a")));
        let error = of("team-b").expect_err("not listed");
        assert!(
            error.to_string().starts_with("queries of this data source may not read the tenant 'team-b'"),
            "{error}"
        );
    }

    #[test]
    fn a_proxy_is_taken_from_grafanas_configuration() {
        let on = br#"{"enableSecureSocksProxy":true}"#;
        let with = |json: &'static [u8], pairs: &[(&str, &str)]| {
            let raw = Raw { url: "http://s:1", json, uid: "quiver", proxy: secrets(pairs), ..Raw::default() };
            Settings::parse(&raw).map(|settings| settings.proxy).map_err(|error| error.to_string())
        };
        assert_eq!(with(b"{}", &[("SERVER_ENABLED", "true")]), Ok(None));
        assert!(with(on, &[]).expect_err("off in Grafana").contains("off in Grafana's configuration"));
        let address = [("SERVER_ENABLED", "true"), ("PROXY_ADDRESS", "pdc:1080"), ("ALLOW_INSECURE", "true")];
        let proxy = Proxy { address: "pdc:1080".into(), tls: None, user: "quiver".into(), password: "password".into() };
        assert_eq!(with(on, &address), Ok(Some(proxy)));
        let error = with(on, &[("SERVER_ENABLED", "true"), ("PROXY_ADDRESS", "x:1"), ("CLIENT_CERT", "/no/such")]);
        assert!(error.expect_err("no file").contains("'/no/such' cannot be read"));
    }

    #[test]
    fn limits_have_a_ceiling() {
        let json = r#"{"timeoutSeconds":100000,"defaultLimit":99999999,"tenant":" team-a "}"#;
        let settings = parse("http://s:1", json, &[]).expect("fine");
        assert_eq!(settings.timeout, TIMEOUT_MAX);
        assert_eq!(settings.limit_default, LIMIT_MAX);
        assert_eq!(settings.tenant.expect("set"), "team-a");
    }
}
