//! The certificate of TURN over TLS: read at the start, and again when its files change. A new pair that does not fit
//! together, or cannot be read, leaves the old one in use.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate on disk and the settings made of it.
#[derive(Debug)]
pub(super) struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    changed: [Option<SystemTime>; 2],
    current: Arc<ServerConfig>,
}

impl Certificate {
    /// Read both files. The error says which one is wrong and never shows what is in them.
    pub(super) fn load(chain: &Path, key: &Path) -> Result<Self, String> {
        let changed = [changed(chain), changed(key)];
        let current = read(chain, key)?;
        Ok(Self { chain: chain.to_owned(), key: key.to_owned(), changed, current })
    }

    /// For connections from now on.
    pub(super) const fn current(&self) -> &Arc<ServerConfig> {
        &self.current
    }

    /// Read the files again if they have changed, or anyway.
    pub(super) fn look(&mut self, anyway: bool) {
        let now = [changed(&self.chain), changed(&self.key)];
        if now == self.changed && !anyway {
            return;
        }
        match read(&self.chain, &self.key) {
            Ok(config) => {
                self.current = config;
                tracing::info!("the certificate of TURN was read again");
            }
            // The two are written one after the other: when the second comes, they are looked at again.
            Err(error) => tracing::warn!("the old certificate of TURN stays in use: {error}"),
        }
        self.changed = now;
    }
}

fn changed(file: &Path) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|file| file.modified()).ok()
}

fn read(chain: &Path, key: &Path) -> Result<Arc<ServerConfig>, String> {
    let bad = |file: &Path| format!("{} cannot be read or is no PEM file of the right kind", file.display());
    let certificates = CertificateDer::pem_file_iter(chain).map_err(|_| bad(chain))?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(|_| bad(chain))?;
    if certificates.is_empty() {
        return Err(format!("{} holds no certificate", chain.display()));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|_| bad(key))?;
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, secret))
        .map_err(|error| format!("{} and {}: {error}", chain.display(), key.display()))?;
    Ok(Arc::new(config))
}
