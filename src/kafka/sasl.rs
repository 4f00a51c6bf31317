//! What is said to a broker that asks who we are: PLAIN (RFC 4616) and SCRAM (RFC 5802, 7677). Pure but for the nonce.

use std::fmt;
use std::num::NonZeroU32;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::rand::SecureRandom as _;
use ring::{digest, hmac, pbkdf2};

/// Rounds of hashing that a broker may ask for; more would only cost time.
const ROUNDS_MAX: u32 = 1_000_000;

/// How credentials are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// As they are; only over TLS.
    Plain,
    /// Neither side tells its secret; SHA-256.
    ScramSha256,
    /// … SHA-512.
    ScramSha512,
}

impl Mechanism {
    /// Its registered name.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Credentials.
#[derive(Clone)]
pub struct Sasl {
    /// How they are shown.
    pub mechanism: Mechanism,
    /// Who we are.
    pub user: String,
    /// What shows it.
    pub password: String,
}

impl fmt::Debug for Sasl {
    /// Tells no password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sasl").field("mechanism", &self.mechanism).field("user", &self.user).finish_non_exhaustive()
    }
}

/// The messages of one exchange.
pub(super) struct Steps<'a> {
    sasl: &'a Sasl,
    nonce: String,
    /// What the broker's last message has to show, once ours was sent.
    expected: Option<Vec<u8>>,
}

impl<'a> Steps<'a> {
    /// **Errors**: the system gives no random bytes.
    pub fn new(sasl: &'a Sasl) -> Result<Steps<'a>, &'static str> {
        let mut nonce = [0; 18];
        ring::rand::SystemRandom::new().fill(&mut nonce).map_err(|_| "the system gives no random bytes")?;
        Ok(Steps { sasl, nonce: BASE64_STANDARD.encode(nonce), expected: None })
    }

    /// The first message.
    pub fn first(&self) -> Vec<u8> {
        match self.sasl.mechanism {
            Mechanism::Plain => format!("\0{}\0{}", self.sasl.user, self.sasl.password).into_bytes(),
            _ => format!("n,,{}", self.first_bare()).into_bytes(),
        }
    }

    fn first_bare(&self) -> String {
        format!("n={},r={}", self.sasl.user.replace('=', "=3D").replace(',', "=2C"), self.nonce)
    }

    /// What is said to an answer; `None` when nothing is left to say. **Errors**: why the broker can't be believed.
    pub fn next(&mut self, answer: &[u8]) -> Result<Option<Vec<u8>>, String> {
        if self.sasl.mechanism == Mechanism::Plain {
            return Ok(None);
        }
        let text = std::str::from_utf8(answer).map_err(|_| "its answer is no text")?;
        match &self.expected {
            None => self.prove(text).map(Some),
            Some(expected) => {
                let shown = attribute(text, 'v').and_then(|shown| BASE64_STANDARD.decode(shown).ok());
                if shown.as_ref() != Some(expected) {
                    return Err("it does not show that it knows the password".to_owned());
                }
                Ok(None)
            }
        }
    }

    fn prove(&mut self, challenge: &str) -> Result<Vec<u8>, String> {
        let nonce = attribute(challenge, 'r').filter(|nonce| nonce.starts_with(&self.nonce) && *nonce != self.nonce);
        let nonce = nonce.ok_or("its challenge is not for us")?;
        let salt = attribute(challenge, 's').and_then(|salt| BASE64_STANDARD.decode(salt).ok());
        let salt = salt.ok_or("its challenge has no salt")?;
        let rounds = attribute(challenge, 'i').and_then(|rounds| rounds.parse::<NonZeroU32>().ok());
        let rounds =
            rounds.filter(|rounds| rounds.get() <= ROUNDS_MAX).ok_or("it asks for no possible number of rounds")?;
        let (keys, hashes, rounds_of) = match self.sasl.mechanism {
            Mechanism::ScramSha512 => (hmac::HMAC_SHA512, &digest::SHA512, pbkdf2::PBKDF2_HMAC_SHA512),
            _ => (hmac::HMAC_SHA256, &digest::SHA256, pbkdf2::PBKDF2_HMAC_SHA256),
        };
        let mut salted = vec![0; hashes.output_len()];
        pbkdf2::derive(rounds_of, rounds, &salt, self.sasl.password.as_bytes(), &mut salted);
        let sign = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(keys, key), text);

        let bare = format!("c=biws,r={nonce}");
        let signed = format!("{},{challenge},{bare}", self.first_bare());
        let client_key = sign(&salted, b"Client Key");
        let stored_key = digest::digest(hashes, client_key.as_ref());
        let signature = sign(stored_key.as_ref(), signed.as_bytes());
        let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let server_key = sign(&salted, b"Server Key");
        self.expected = Some(sign(server_key.as_ref(), signed.as_bytes()).as_ref().to_vec());
        Ok(format!("{bare},p={}", BASE64_STANDARD.encode(proof)).into_bytes())
    }
}

/// The value of `name=` in a message of SCRAM.
fn attribute(message: &str, name: char) -> Option<&str> {
    message.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sasl(mechanism: Mechanism) -> Sasl {
        Sasl { mechanism, user: "user".to_owned(), password: "pencil".to_owned() }
    }

    #[test]
    fn plain_is_said_at_once() {
        let sasl = sasl(Mechanism::Plain);
        let mut steps = Steps::new(&sasl).unwrap();
        assert_eq!(steps.first(), b"\0user\0pencil");
        assert_eq!(steps.next(b""), Ok(None));
    }

    /// The example of RFC 7677, section 3.
    #[test]
    fn scram_proves_both_sides() {
        let sasl = sasl(Mechanism::ScramSha256);
        let mut steps = Steps { sasl: &sasl, nonce: "rOprNGfwEbeRWgbNEkqO".to_owned(), expected: None };
        assert_eq!(steps.first(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let challenge = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let proof = steps.next(challenge).unwrap().unwrap();
        assert_eq!(
            String::from_utf8(proof).unwrap(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert!(steps.next(b"v=AAAA").is_err());
        assert_eq!(steps.next(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), Ok(None));
    }

    #[test]
    fn challenges_that_can_t_be_are_refused() {
        let sasl = sasl(Mechanism::ScramSha512);
        for challenge in [
            "",
            "r=other,s=AAAA,i=4096",
            "r=abc,s=AAAA,i=4096",
            "r=abcd,i=4096",
            "r=abcd,s=AAAA,i=0",
            "r=abcd,s=AAAA,i=99999999",
        ] {
            let mut steps = Steps { sasl: &sasl, nonce: "abc".to_owned(), expected: None };
            assert!(steps.next(challenge.as_bytes()).is_err(), "{challenge}");
        }
        assert!(!format!("{sasl:?}").contains("pencil"));
    }
}
