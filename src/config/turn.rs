//! Settings of the embedded TURN service.

use std::net::IpAddr;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Bind, ConfigError, Seconds, settle_files};

/// TURN service of this node, for clients whose network lets nothing else through. It relays to this node's own media
/// addresses and to nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TurnConfig {
    /// Whether it runs.
    pub enabled: bool,
    /// Host name that clients reach TURN over TLS at; the certificate is for it. Empty: no TLS.
    pub domain: String,
    /// UDP port; 0 turns it off.
    pub udp_port: u16,
    /// TCP port without TLS; 0 turns it off.
    pub tcp_port: u16,
    /// TCP port with TLS, used where `domain` is set; 0 turns it off. 443 passes the most firewalls.
    pub tls_port: u16,
    /// The port that clients are told for TLS, where a forwarding turns it into `tls_port`; 0: the same.
    pub public_tls_port: u16,
    /// File with the certificate chain of `domain`, PEM. Read again when it changes.
    pub cert_file: String,
    /// File with its key, PEM.
    pub key_file: String,
    /// TLS is taken off by a proxy in front (layer 4): `tls_port` speaks plain TCP and no certificate is needed.
    pub external_tls: bool,
    /// Addresses it listens on. Empty: those of media.
    pub bind_addresses: Vec<Bind>,
    /// For how long a participant's credentials make new allocations. Existing ones last as long as they are used.
    pub ttl_seconds: Seconds,
    /// Allocations at once of one participant, 1 to 1000.
    pub per_user_relay_allocation_limit: u32,
    /// Allocations and connections at once from one address (one /64 of IPv6); 0: no limit. An office behind one address
    /// needs about four per participant.
    pub per_address_relay_allocation_limit: u32,
    /// Allocations at once, 1 to 16000.
    pub relay_allocation_limit: u32,
}

impl Default for TurnConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            domain: String::new(),
            udp_port: 3478,
            tcp_port: 3478,
            tls_port: 5349,
            public_tls_port: 0,
            cert_file: String::new(),
            key_file: String::new(),
            external_tls: false,
            bind_addresses: Vec::new(),
            ttl_seconds: Seconds(86_400),
            per_user_relay_allocation_limit: 24,
            per_address_relay_allocation_limit: 400,
            relay_allocation_limit: 8_000,
        }
    }
}

impl TurnConfig {
    /// Whether TLS is spoken, by weir or a proxy in front of it.
    pub const fn has_tls(&self) -> bool {
        !self.domain.is_empty() && self.tls_port != 0
    }

    /// Addresses it listens on: its own, or those of media.
    pub fn addresses(&self, media: &[IpAddr]) -> Vec<IpAddr> {
        if self.bind_addresses.is_empty() {
            return media.to_vec();
        }
        self.bind_addresses.iter().map(|bind| bind.0).collect()
    }

    pub(super) fn settle(&mut self, folder: &Path) {
        settle_files(folder, [&mut self.cert_file, &mut self.key_file]);
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let wrong = |what: &str| Err(ConfigError::new(what));
        if !self.enabled {
            return Ok(());
        }
        if self.udp_port == 0 && self.tcp_port == 0 && !self.has_tls() {
            return wrong(
                "`turn.enabled` without a port: set `turn.udp_port`, `turn.tcp_port`, or `turn.domain` and `turn.tls_port`",
            );
        }
        if !self.domain.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-')) {
            return wrong("`turn.domain`: expected a host name such as turn.example.org, without port or scheme");
        }
        let files = (self.cert_file.is_empty(), self.key_file.is_empty());
        if self.has_tls() && !self.external_tls && files != (false, false) {
            return wrong("`turn.domain` needs `turn.cert_file` and `turn.key_file` (or `turn.external_tls`)");
        }
        if self.domain.is_empty() && files != (true, true) {
            return wrong("`turn.cert_file` needs `turn.domain`: the host name it is for");
        }
        if self.has_tls() && self.tls_port == self.tcp_port {
            return wrong("`turn.tcp_port` and `turn.tls_port` are the same: give them different TCP ports");
        }
        if !(1..=1_000).contains(&self.per_user_relay_allocation_limit) {
            return wrong("`turn.per_user_relay_allocation_limit`: expected 1 to 1000");
        }
        if !(1..=16_000).contains(&self.relay_allocation_limit) {
            return wrong("`turn.relay_allocation_limit`: expected 1 to 16000");
        }
        if self.ttl_seconds.0 < 60 {
            return wrong("`turn.ttl_seconds`: expected 60 or more");
        }
        Ok(())
    }
}
