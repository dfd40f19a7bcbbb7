//! TLS of the public listener: which files hold the certificate and its key.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConfigError, settle_files};

/// TLS on `port`: then clients connect to wss:// without a reverse proxy. Renewed files are taken up by themselves
/// within ten seconds, and at once after SIGHUP; running calls notice nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// File with the certificate and those that lead to its authority (PEM), relative to this one. Empty: no TLS.
    pub cert_file: String,
    /// File with the certificate's private key (PEM).
    pub key_file: String,
}

impl TlsConfig {
    /// Whether it is on.
    pub const fn is_on(&self) -> bool {
        !self.cert_file.is_empty()
    }

    pub(super) fn settle(&mut self, folder: &Path) {
        settle_files(folder, [&mut self.cert_file, &mut self.key_file]);
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.cert_file.is_empty() != self.key_file.is_empty() {
            return Err(ConfigError::new("`tls` needs both `cert_file` and `key_file`, or neither"));
        }
        Ok(())
    }
}
