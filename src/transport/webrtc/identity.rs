//! Our certificate, made ready for DTLS once and shared by all transports of the node.
//!
//! The DTLS library picks the SRTP profile in the client's order of preference, and browsers put the slow one first. So
//! there are two server configurations with one profile each, and `dtls` chooses by what the client offers. The client
//! configuration has both, in our order.

use std::sync::Arc;
use std::time::Instant as StdInstant;

use aws_lc_rs::digest;
use rtc_dtls::cipher_suite::CipherSuiteId;
use rtc_dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc_dtls::crypto::Certificate;
use rtc_dtls::crypto_provider::{RTCCryptoProvider, SignatureScheme, default_provider};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;

use crate::base::Instant;
use crate::transport::params::{Fingerprint, Identity};
use crate::transport::srtp::Profile;

/// Largest handshake datagram we send, bytes: fits what any path of the internet carries.
const MTU: usize = 1200;

/// Our ECDSA P-256 certificate and what is derived from it once.
pub struct DtlsIdentity {
    fingerprint: Fingerprint,
    gcm: Arc<HandshakeConfig>,
    cm: Arc<HandshakeConfig>,
    client: Arc<HandshakeConfig>,
    anchor: StdInstant,
}

impl core::fmt::Debug for DtlsIdentity {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("DtlsIdentity").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

/// Why a certificate cannot be made or used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the DTLS certificate: {0}")]
pub struct IdentityError(String);

fn error(error: impl core::fmt::Display) -> IdentityError {
    IdentityError(error.to_string())
}

/// A fresh ECDSA P-256 key with a self-signed certificate, from the system's randomness.
///
/// # Errors
/// The system gave no randomness.
pub fn generate_identity() -> Result<Identity, IdentityError> {
    let provider = default_provider().map_err(error)?;
    let made = Certificate::generate_self_signed(vec!["weir".to_owned()], provider.crypto()).map_err(error)?;
    let key = made.private_key.signing_key.to_pkcs8_der().map_err(error)?;
    let key = key.ok_or_else(|| error("the key cannot be exported"))?;
    let certificate = made.certificate.first().ok_or_else(|| error("no certificate was made"))?;
    Ok(Identity { certificate: certificate.to_vec(), private_key: key.as_ref().to_vec() })
}

impl DtlsIdentity {
    /// Make `identity` ready for handshakes. `anchor` is the moment [`Instant::ZERO`] stands for: the DTLS and SCTP
    /// libraries want the standard library's time, but only ever compare and subtract it, so any moment will do.
    ///
    /// # Errors
    /// The certificate or the key does not parse, or the key is not ECDSA P-256.
    pub fn new(identity: &Identity, anchor: StdInstant) -> Result<Self, IdentityError> {
        let provider = default_provider().map_err(error)?;
        let key = provider
            .crypto()
            .import_signing_key(SignatureScheme::EcdsaP256Sha256, &identity.private_key)
            .map_err(error)?;
        let certificate = Certificate::from_signing_key(vec![identity.certificate.clone().into()], key);
        let mut fingerprint = [0; 32];
        let digest = digest::digest(&digest::SHA256, &identity.certificate);
        fingerprint.copy_from_slice(digest.as_ref().get(..32).ok_or_else(|| error("no SHA-256"))?);
        let config = |is_client, profiles: &[_]| config(&provider, &certificate, is_client, profiles).map(Arc::new);
        let (gcm, cm) =
            (SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm, SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80);
        Ok(Self {
            fingerprint: Fingerprint(fingerprint),
            gcm: config(false, &[gcm])?,
            cm: config(false, &[cm])?,
            client: config(true, &[gcm, cm])?,
            anchor,
        })
    }

    /// SHA-256 of the certificate, for SDP (RFC 8122).
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The server configuration that negotiates `profile` only.
    pub(super) const fn server_config(&self, profile: Profile) -> &Arc<HandshakeConfig> {
        match profile {
            Profile::AeadAes128Gcm => &self.gcm,
            Profile::Aes128CmSha1 => &self.cm,
        }
    }

    /// The client configuration.
    pub(super) const fn client_config(&self) -> &Arc<HandshakeConfig> {
        &self.client
    }

    /// Our time as the libraries want it.
    pub(super) fn std(&self, now: Instant) -> StdInstant {
        let since = core::time::Duration::from_nanos(now.as_nanos());
        self.anchor.checked_add(since).unwrap_or(self.anchor)
    }

    /// The libraries' time as ours; what lies before the start is the start.
    pub(super) fn ours(&self, time: StdInstant) -> Instant {
        Instant::ZERO + time.saturating_duration_since(self.anchor)
    }
}

fn config(
    provider: &Arc<dyn RTCCryptoProvider>,
    certificate: &Certificate,
    is_client: bool,
    profiles: &[SrtpProtectionProfile],
) -> Result<HandshakeConfig, IdentityError> {
    ConfigBuilder::default()
        .with_crypto_provider(Arc::clone(provider))
        .with_certificates(vec![certificate.clone()])
        // What every WebRTC stack has; no CBC, no static keys.
        .with_cipher_suites(vec![
            CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Gcm_Sha256,
            CipherSuiteId::Tls_Ecdhe_Ecdsa_With_ChaCha20_Poly1305_Sha256,
        ])
        .with_srtp_protection_profiles(profiles.to_vec())
        // A certificate of any issuer, with proof of its key; that it is the right one is the fingerprint's task.
        .with_client_auth(ClientAuthType::RequireAnyClientCert)
        .with_insecure_skip_verify(true)
        .with_extended_master_secret(ExtendedMasterSecretType::Require)
        // What a client says in its hello; the library insists on something, and takes an address or `localhost`.
        .with_server_name("weir".to_owned())
        .with_mtu(MTU)
        .build(is_client, None)
        .map_err(error)
}
