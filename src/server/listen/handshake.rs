//! Forward's handshake: HELO, PING and PONG, by which client and server show that they know one key, and the client its
//! user's password. Pure but for the nonce; `forward` sends and reads.
//! Source: Forward Protocol Specification v1.5, "Handshake messages".

use std::collections::BTreeMap;
use std::fmt::Write;

use ring::digest::{SHA512, digest};
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;

use crate::config;
use crate::decode::msgpack::{Reader, Token, write_array, write_binary, write_boolean, write_map, write_text};

/// What this server asks of its clients.
pub(super) struct Secrets {
    shared_key: String,
    users: BTreeMap<String, String>,
    hostname: String,
}

/// One connection's handshake.
pub(super) struct Handshake<'a> {
    secrets: &'a Secrets,
    nonce: [u8; 16],
    /// Salt of the password's digest.
    auth: [u8; 16],
}

/// The system gives no random bytes.
#[derive(Debug)]
pub(super) struct NoRandom;

/// What follows a PING: the answer, and why the client is not let in, if so.
pub(super) struct Pong {
    pub answer: Vec<u8>,
    pub refusal: Option<String>,
}

/// What a client sends.
struct Ping<'a> {
    hostname: &'a [u8],
    salt: &'a [u8],
    key_digest: &'a [u8],
    user: &'a [u8],
    password_digest: &'a [u8],
}

fn hex_digest(parts: &[&[u8]]) -> String {
    let mut text = String::with_capacity(128);
    for byte in digest(&SHA512, &parts.concat()).as_ref() {
        // Writing into a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

impl Secrets {
    /// What the settings ask; `None`: nothing, and there is no handshake.
    pub fn new(settings: &config::Forward) -> Option<Secrets> {
        (!settings.shared_key.is_empty()).then(|| Secrets {
            shared_key: settings.shared_key.clone(),
            users: settings.users.clone(),
            hostname: settings.hostname.clone(),
        })
    }

    /// Begins a handshake; gives the HELO to send.
    pub fn begin(&self) -> Result<(Handshake<'_>, Vec<u8>), NoRandom> {
        let random = SystemRandom::new();
        let (mut nonce, mut auth) = ([0; 16], [0; 16]);
        random.fill(&mut nonce).and_then(|()| random.fill(&mut auth)).map_err(|_| NoRandom)?;
        let handshake = Handshake { secrets: self, nonce, auth };
        let mut helo = Vec::new();
        write_array(2, &mut helo);
        write_text("HELO", &mut helo);
        write_map(3, &mut helo);
        write_text("nonce", &mut helo);
        write_binary(&handshake.nonce, &mut helo);
        write_text("auth", &mut helo);
        write_binary(if self.users.is_empty() { &[] } else { &handshake.auth }, &mut helo);
        write_text("keepalive", &mut helo);
        write_boolean(true, &mut helo);
        Ok((handshake, helo))
    }
}

impl Handshake<'_> {
    /// Checks a PING.
    pub fn answer(&self, ping: &[u8]) -> Pong {
        let (salt, refusal) = match read_ping(ping) {
            None => (&[][..], Some("no PING of six values".to_owned())),
            Some(ping) => (ping.salt, self.check(&ping).err()),
        };
        let secrets = self.secrets;
        let digest = match refusal {
            // A client that does not know the key learns nothing of it.
            Some(_) => String::new(),
            None => hex_digest(&[salt, secrets.hostname.as_bytes(), &self.nonce, secrets.shared_key.as_bytes()]),
        };
        let mut answer = Vec::new();
        write_array(5, &mut answer);
        write_text("PONG", &mut answer);
        write_boolean(refusal.is_none(), &mut answer);
        write_text(refusal.as_deref().unwrap_or(""), &mut answer);
        write_text(if refusal.is_none() { &secrets.hostname } else { "" }, &mut answer);
        write_text(&digest, &mut answer);
        Pong { answer, refusal }
    }

    fn check(&self, ping: &Ping<'_>) -> Result<(), String> {
        let key = self.secrets.shared_key.as_bytes();
        let expected = hex_digest(&[ping.salt, ping.hostname, &self.nonce, key]);
        if !bool::from(expected.as_bytes().ct_eq(ping.key_digest)) {
            return Err("shared_key mismatch".to_owned());
        }
        if self.secrets.users.is_empty() {
            return Ok(());
        }
        let user = std::str::from_utf8(ping.user).unwrap_or("");
        let password = self.secrets.users.get(user);
        let expected = hex_digest(&[&self.auth, ping.user, password.map_or(&b""[..], |text| text.as_bytes())]);
        let same = bool::from(expected.as_bytes().ct_eq(ping.password_digest));
        if same && password.is_some() { Ok(()) } else { Err("username/password mismatch".to_owned()) }
    }
}

fn read_ping(bytes: &[u8]) -> Option<Ping<'_>> {
    let mut reader = Reader::new(bytes);
    let (Ok(Token::Array(6)), Ok(Token::Text(b"PING"))) = (reader.token(), reader.token()) else { return None };
    let mut next = || match reader.token() {
        Ok(Token::Text(bytes) | Token::Binary(bytes)) => Some(bytes),
        _ => None,
    };
    Some(Ping { hostname: next()?, salt: next()?, key_digest: next()?, user: next()?, password_digest: next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Secrets {
        let users = BTreeMap::from([("fluent".to_owned(), "pass".to_owned())]);
        Secrets { shared_key: "key".to_owned(), users, hostname: "quiver".to_owned() }
    }

    fn ping(handshake: &Handshake<'_>, key: &str, user: &str, password: &str) -> Vec<u8> {
        let mut out = Vec::new();
        write_array(6, &mut out);
        write_text("PING", &mut out);
        write_text("client", &mut out);
        write_binary(b"salt", &mut out);
        write_text(&hex_digest(&[b"salt", b"client", &handshake.nonce, key.as_bytes()]), &mut out);
        write_text(user, &mut out);
        write_text(&hex_digest(&[&handshake.auth, user.as_bytes(), password.as_bytes()]), &mut out);
        out
    }

    #[test]
    fn only_key_and_password_let_in() {
        let secrets = secrets();
        let (handshake, helo) = secrets.begin().unwrap();
        assert!(helo.starts_with(b"\x92\xd9\x04HELO\x83"));
        for (key, user, password, refusal) in [
            ("key", "fluent", "pass", None),
            ("kex", "fluent", "pass", Some("shared_key mismatch")),
            ("key", "fluent", "word", Some("username/password mismatch")),
            ("key", "other", "", Some("username/password mismatch")),
        ] {
            let pong = handshake.answer(&ping(&handshake, key, user, password));
            assert_eq!(pong.refusal.as_deref(), refusal, "{key} {user} {password}");
            let mut reader = Reader::new(&pong.answer);
            let tokens: Vec<Token<'_>> = (0..6).map(|_| reader.token().unwrap()).collect();
            assert_eq!(tokens[..3], [Token::Array(5), Token::Text(b"PONG"), Token::Boolean(refusal.is_none())]);
            let digest = hex_digest(&[b"salt", b"quiver", &handshake.nonce, b"key"]);
            assert_eq!(tokens[5] == Token::Text(digest.as_bytes()), refusal.is_none());
        }
        for broken in [&b""[..], b"\x96", b"\x91\xa4PING", &helo] {
            assert!(handshake.answer(broken).refusal.is_some());
        }
    }
}
