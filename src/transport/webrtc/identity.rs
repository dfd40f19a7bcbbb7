//! Our certificate, one for all transports of the node.

use std::time::Instant as StdInstant;

use crate::transport::params::Fingerprint;

/// Our ECDSA P-256 certificate and what is derived from it once. Shared by all transports.
#[derive(Debug)]
pub struct Identity {
    fingerprint: Fingerprint,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the DTLS certificate: {0}")]
pub struct IdentityError(pub(crate) String);

impl Identity {
    /// A fresh key and self-signed certificate. `anchor` is the moment that [`crate::base::Instant::ZERO`] stands for.
    ///
    /// # Errors
    /// The system gave no randomness.
    pub fn generate(_anchor: StdInstant) -> Result<Self, IdentityError> {
        Err(IdentityError(String::new()))
    }

    /// SHA-256 of the certificate, for SDP.
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}
