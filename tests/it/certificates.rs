//! An authority of the test's own, and what it signs, as files.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// Certificate and key, as PEM files.
pub struct Identity {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Identity {
    pub fn cert(&self) -> &str {
        self.cert.to_str().expect("temporary paths are UTF-8")
    }

    pub fn key(&self) -> &str {
        self.key.to_str().expect("temporary paths are UTF-8")
    }
}

/// Signs certificates for one test.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    /// A new one, whose certificate becomes a file of this name.
    pub fn new(dir: &Path, name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        // A name of its own: one whose issuer has the same name would be taken for self-signed.
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed");
        let file = dir.join(format!("{name}.pem"));
        fs::write(&file, issuer.pem()).expect("it can be written");
        Authority { issuer, file }
    }

    /// The file of its certificate.
    pub fn file(&self) -> &str {
        self.file.to_str().expect("temporary paths are UTF-8")
    }

    /// Signs a certificate for this machine, into files of this name; those that are there are replaced.
    pub fn sign(&self, dir: &Path, name: &str) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names).expect("names").signed_by(&key, &self.issuer).expect("signed");
        let identity =
            Identity { cert: dir.join(format!("{name}.cert.pem")), key: dir.join(format!("{name}.key.pem")) };
        fs::write(&identity.cert, certificate.pem()).expect("it can be written");
        fs::write(&identity.key, key.serialize_pem()).expect("it can be written");
        identity
    }
}
