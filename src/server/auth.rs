//! Who calls: credentials and tenant, from the headers that HTTP and gRPC share. It knows no endpoint.
//!
//! Invariant: how long a comparison takes tells nothing about how much of a secret was right.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use subtle::{Choice, ConstantTimeEq};

use super::status::Error;
use crate::config;
use crate::record::Tenant;

/// Header (HTTP) and metadata (gRPC) that names the tenant.
pub const TENANT: &str = "x-scope-orgid";

/// Headers that hold a token and nothing else: Datadog's and Firehose's.
const TOKEN_HEADERS: [&str; 2] = ["dd-api-key", "x-amz-firehose-access-key"];

/// Said when there are no credentials.
pub const MISSING: &str = "credentials are missing; send 'Authorization: Bearer …' or 'Basic …'";
/// Said when there are others.
pub const WRONG: &str = "the credentials are wrong";

/// The credentials that let in. A user of Flight SQL who logs in by name and password goes on with a bearer token: it
/// is the same `base64(name:password)`, so no session has to be kept, and a restart logs nobody out.
pub struct Auth {
    tokens: Vec<Vec<u8>>,
    /// `base64(name:password)` without padding, as arrow-go (and so ADBC) sends it; other clients pad.
    users: Vec<Vec<u8>>,
}

impl Auth {
    /// Takes tokens and users from the settings.
    pub fn new(settings: &config::Auth) -> Self {
        let encode = |(name, password): (&String, &String)| {
            BASE64_STANDARD_NO_PAD.encode(format!("{name}:{password}")).into_bytes()
        };
        Auth {
            tokens: settings.tokens.iter().map(|token| token.clone().into_bytes()).collect(),
            users: settings.users.iter().map(encode).collect(),
        }
    }

    /// Whether everybody may come in.
    pub fn is_open(&self) -> bool {
        self.tokens.is_empty() && self.users.is_empty()
    }

    /// Lets a request in, or says what is missing. Each protocol's own form is known: `Bearer` and `Basic`, `ApiKey`
    /// (Elasticsearch), `Splunk`, and the headers of [`TOKEN_HEADERS`]. A token may also be the password of any user, as
    /// Splunk's clients send it.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Error> {
        if self.is_open() {
            return Ok(());
        }
        let Some(value) = headers.get(AUTHORIZATION) else {
            let Some(token) = TOKEN_HEADERS.iter().find_map(|name| headers.get(*name)) else {
                return Err(Error::Unauthenticated(MISSING));
            };
            return admitted(any_equal(&self.tokens, token.as_bytes()));
        };
        let Some((scheme, secret)) = value.to_str().ok().and_then(|value| value.trim().split_once(' ')) else {
            return Err(Error::Unauthenticated("the authorization header is malformed"));
        };
        let secret = secret.trim().as_bytes();
        let users = any_equal(&self.users, without_padding(secret));
        // `base64(id:key)`, of Elasticsearch's keys and of users: the key, or the password, may be a token.
        let paired = || {
            let pair = BASE64_STANDARD_NO_PAD.decode(without_padding(secret)).unwrap_or_default();
            let colon = pair.iter().position(|byte| *byte == b':').map_or(pair.len(), |colon| colon + 1);
            any_equal(&self.tokens, &pair[colon..])
        };
        let known = match scheme.to_ascii_lowercase().as_str() {
            "bearer" => any_equal(&self.tokens, secret) | users,
            "basic" => users | paired(),
            "apikey" => any_equal(&self.tokens, secret) | users | paired(),
            "splunk" => any_equal(&self.tokens, secret),
            _ => {
                let reason = "the authorization scheme is none of 'Bearer', 'Basic', 'ApiKey', 'Splunk'";
                return Err(Error::Unauthenticated(reason));
            }
        };
        admitted(known)
    }

    /// Flight's handshake: the `authorization` value to send with every later request. **Errors**: as [`Auth::check`].
    pub fn handshake(&self, headers: &HeaderMap) -> Result<String, Error> {
        self.check(headers)?;
        let given =
            headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| value.split_once(' '));
        Ok(format!("Bearer {}", given.map_or("anonymous", |(_, secret)| secret.trim())))
    }
}

fn admitted(known: Choice) -> Result<(), Error> {
    if bool::from(known) { Ok(()) } else { Err(Error::Unauthenticated(WRONG)) }
}

fn without_padding(base64: &[u8]) -> &[u8] {
    let end = base64.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    &base64[..end]
}

fn any_equal(secrets: &[Vec<u8>], given: &[u8]) -> Choice {
    secrets.iter().fold(Choice::from(0), |known, secret| known | secret.as_slice().ct_eq(given))
}

/// The tenant that a request names; without the header, the default one.
pub fn tenant(headers: &HeaderMap) -> Result<Tenant, Error> {
    let Some(value) = headers.get(TENANT) else { return Ok(Tenant::default_tenant()) };
    let name = value.to_str().unwrap_or("").trim();
    if name.is_empty() {
        return Ok(Tenant::default_tenant());
    }
    Tenant::parse(name).ok_or_else(|| {
        let form = "1 to 64 letters, digits, '_', '-' or '.', not starting with '.'";
        Error::Invalid(format!("'{name}' in X-Scope-OrgID can't be a tenant: {form}"))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use base64::prelude::BASE64_STANDARD;

    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    fn auth() -> Auth {
        let users = BTreeMap::from([("grafana".to_owned(), "pass:word".to_owned())]);
        Auth::new(&config::Auth { tokens: vec!["t1".into(), "t2".into()], tokens_file: PathBuf::new(), users })
    }

    #[test]
    fn only_right_credentials_let_in() {
        let basic = BASE64_STANDARD.encode("grafana:pass:word");
        let cases = [
            ("Bearer t1".to_owned(), true),
            ("bearer t2".to_owned(), true),
            ("Bearer t3".to_owned(), false),
            ("Bearer t".to_owned(), false),
            ("Bearer ".to_owned(), false),
            ("t1".to_owned(), false),
            ("Basic t1".to_owned(), false),
            (format!("Basic {basic}"), true),
            (format!("Bearer {basic}"), true),
            // "grafana:pass:word" is padded with one '='.
            (format!("Basic {}", basic.trim_end_matches('=')), true),
            (format!("Digest {basic}"), false),
            (format!("Basic {}", BASE64_STANDARD.encode("grafana:pass")), false),
            ("Splunk t1".to_owned(), true),
            ("Splunk t3".to_owned(), false),
            // HEC's basic form: any user, and the token.
            (format!("Basic {}", BASE64_STANDARD.encode("x:t2")), true),
            (format!("Basic {}", BASE64_STANDARD.encode("x:")), false),
            (format!("Basic {}", BASE64_STANDARD.encode("t2")), false),
            // Elasticsearch's keys: `id:key` in base64, or the encoded key as it was given.
            (format!("ApiKey {}", BASE64_STANDARD.encode("id:t2")), true),
            ("ApiKey t1".to_owned(), true),
            (format!("ApiKey {}", BASE64_STANDARD.encode("id:t3")), false),
        ];
        for name in ["dd-api-key", "x-amz-firehose-access-key"] {
            assert!(auth().check(&headers(name, "t1")).is_ok() && auth().check(&headers(name, "t3")).is_err());
        }
        assert!(auth().check(&headers("x-api-key", "t1")).is_err());
        for (value, expected) in cases {
            assert_eq!(auth().check(&headers("authorization", &value)).is_ok(), expected, "{value}");
        }
        assert!(auth().check(&HeaderMap::new()).is_err());
        assert!(Auth::new(&config::Auth::default()).check(&HeaderMap::new()).is_ok());
    }

    #[test]
    fn a_handshakes_token_lets_in() {
        let basic = format!("Basic {}", BASE64_STANDARD.encode("grafana:pass:word"));
        let token = auth().handshake(&headers("authorization", &basic)).unwrap();
        assert!(token.starts_with("Bearer "));
        assert!(auth().check(&headers("authorization", &token)).is_ok());
        assert!(auth().handshake(&HeaderMap::new()).is_err());
    }

    #[test]
    fn tenants_are_named_by_header() {
        assert_eq!(tenant(&HeaderMap::new()).unwrap().as_str(), "default");
        assert_eq!(tenant(&headers(TENANT, "team-a")).unwrap().as_str(), "team-a");
        assert!(tenant(&headers(TENANT, "a|b")).is_err());
        assert!(tenant(&headers(TENANT, "../etc")).is_err());
    }
}
