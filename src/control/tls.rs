//! Certificates of the public listener and of TURN, which can be renewed under running connections.
//!
//! The files are looked at every ten seconds and on SIGHUP. What cannot be used is logged, and the certificate that is
//! in use stays.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{default_provider, sign::any_supported_type};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::{Config, ConfigError};

/// How often the files are looked at. Authorities renew weeks before the end.
const LOOK: Duration = Duration::from_secs(10);

/// Those that the configuration names.
#[derive(Clone, Debug)]
pub(super) struct Certificates {
    public: Option<Arc<Certificate>>,
    turn: Option<Arc<Certificate>>,
}

impl Certificates {
    /// Read all of them.
    ///
    /// # Errors
    /// When one cannot be used.
    pub(super) fn load(config: &Config) -> Result<Self, ConfigError> {
        let (tls, turn) = (&config.tls, &config.turn);
        let is_for_turn = turn.enabled && turn.has_tls() && !turn.external_tls;
        Ok(Self {
            public: tls.is_on().then(|| Certificate::load("tls", &tls.cert_file, &tls.key_file)).transpose()?,
            turn: is_for_turn.then(|| Certificate::load("turn", &turn.cert_file, &turn.key_file)).transpose()?,
        })
    }

    /// How connections to the public listener agree on TLS; `None`: they do not use it.
    ///
    /// # Errors
    /// When the library was built without the protocol versions it needs.
    pub(super) fn public(&self) -> Result<Option<Arc<ServerConfig>>, ConfigError> {
        // WebSockets are upgraded from HTTP/1.1.
        self.public.as_ref().map(|certificate| certificate.rules(&[b"http/1.1"])).transpose()
    }

    /// The same for TURN.
    ///
    /// # Errors
    /// As [`Self::public`].
    pub(super) fn turn(&self) -> Result<Option<Arc<ServerConfig>>, ConfigError> {
        self.turn.as_ref().map(|certificate| certificate.rules(&[])).transpose()
    }

    /// Read all files again; what is in use stays where they are no good.
    pub(super) fn reload(&self) {
        self.each().for_each(|certificate| certificate.reload());
    }

    /// Reload whenever files have changed, for ever.
    pub(super) fn watch(&self) {
        for certificate in self.each() {
            tokio::spawn(certificate.clone().watch());
        }
    }

    fn each(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.public.iter().chain(&self.turn)
    }
}

/// A certificate and where it comes from.
#[derive(Debug)]
struct Certificate {
    /// The section of the configuration that names it.
    section: &'static str,
    cert_file: PathBuf,
    key_file: PathBuf,
    current: ArcSwap<CertifiedKey>,
}

impl Certificate {
    /// Read both files, which `section` of the configuration names.
    ///
    /// # Errors
    /// When one cannot be read or they do not belong together.
    fn load(section: &'static str, cert_file: &str, key_file: &str) -> Result<Arc<Self>, ConfigError> {
        let (cert_file, key_file) = (PathBuf::from(cert_file), PathBuf::from(key_file));
        let current = ArcSwap::from_pointee(read(section, &cert_file, &key_file)?);
        Ok(Arc::new(Self { section, cert_file, key_file, current }))
    }

    /// How a connection agrees on TLS, and on which of these protocols inside (RFC 7301).
    ///
    /// # Errors
    /// When the library was built without the protocol versions it needs.
    fn rules(self: &Arc<Self>, protocols: &[&[u8]]) -> Result<Arc<ServerConfig>, ConfigError> {
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| ConfigError::new(format!("cannot speak TLS: {error}")))?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(self.clone());
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// Read both files again; what is in use stays where they are no good.
    fn reload(&self) {
        let section = self.section;
        match read(section, &self.cert_file, &self.key_file) {
            Ok(fresh) if fresh.cert == self.current.load().cert => {}
            Ok(fresh) => {
                self.current.store(Arc::new(fresh));
                tracing::info!(section, "the TLS certificate was renewed");
            }
            Err(error) => tracing::error!(%error, "the TLS certificate cannot be renewed: the old one stays in use"),
        }
    }

    /// Reload whenever the files have changed, for ever.
    async fn watch(self: Arc<Self>) {
        let mut seen = self.changed();
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.changed();
            if now != seen {
                seen = now;
                self.reload();
            }
        }
    }

    fn changed(&self) -> [Option<SystemTime>; 2] {
        [&self.cert_file, &self.key_file].map(|file| std::fs::metadata(file).and_then(|data| data.modified()).ok())
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn read(section: &str, cert_file: &Path, key_file: &Path) -> Result<CertifiedKey, ConfigError> {
    let wrong = |file: &Path, error: &dyn std::fmt::Display| {
        ConfigError::new(format!("`{section}`: cannot use {}: {error}", file.display()))
    };
    let chain = CertificateDer::pem_file_iter(cert_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(cert_file, &error))?;
    if chain.is_empty() {
        return Err(wrong(cert_file, &"there is no certificate in it"));
    }
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| wrong(key_file, &error))?;
    let key = any_supported_type(&key).map_err(|error| wrong(key_file, &error))?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().map_err(|_| wrong(key_file, &"it is not the key of the certificate"))?;
    Ok(certified)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may fail by panicking")]

    use super::*;

    fn write(folder: &Path, name: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
        let (cert_file, key_file) = (file("cert.pem"), file("key.pem"));
        std::fs::write(&cert_file, made.cert.pem()).unwrap();
        std::fs::write(&key_file, made.signing_key.serialize_pem()).unwrap();
        (cert_file, key_file)
    }

    #[test]
    fn renewed_files_are_taken_and_broken_ones_left() {
        let folder = std::env::temp_dir().join(format!("weir-tls-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (cert_file, key_file) = write(&folder, "old.example.org");
        let certificate = Certificate::load("tls", &cert_file, &key_file).unwrap();
        certificate.rules(&[]).unwrap();
        let old = certificate.current.load().cert.clone();
        let old_key = std::fs::read(&key_file).unwrap();
        write(&folder, "new.example.org");
        certificate.reload();
        let new = certificate.current.load().cert.clone();
        assert_ne!(old, new);
        std::fs::write(&key_file, old_key).unwrap();
        certificate.reload();
        assert_eq!(certificate.current.load().cert, new, "a key that is not its own");
        let error = Certificate::load("tls", &cert_file, &key_file).unwrap_err().to_string();
        assert!(error.contains("not the key"), "{error}");
        std::fs::remove_file(&cert_file).unwrap();
        certificate.reload();
        assert_eq!(certificate.current.load().cert, new);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
