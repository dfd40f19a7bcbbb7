//! Settings of the embedded TURN service.

use std::net::IpAddr;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Bind, Cidr, ConfigError, MIN_SECRET, Seconds, Secret, plain, settle_files};

/// TURN service of this node, for clients whose network lets nothing else through. It relays to this node's own media
/// addresses and, unless `legacy_calls` is on, to nothing else.
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
    /// One-to-one calls of Matrix rooms that go from client to client, not through weir (`m.call.invite`).
    pub legacy_calls: LegacyCallsConfig,
}

/// TURN for the users of homeservers, for calls that do not go through weir: what `turn_shared_secret` of Synapse is for.
/// Their datagrams go to the public Internet and to each other, never into a network of the operator's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LegacyCallsConfig {
    /// Whether it is offered; `turn.enabled` is needed too.
    pub enabled: bool,
    /// Secrets shared with homeservers, at least 32 bytes each, at most 8: one for each homeserver, or an old and a new one.
    pub shared_secrets: Vec<Secret>,
    /// File with further ones, one on a line, readable by weir alone (mode 0600). Empty: none.
    pub shared_secrets_file: String,
    /// First UDP port of relayed addresses; each allocation takes one. They have to be open to everybody.
    pub relay_range_start: u16,
    /// The last one.
    pub relay_range_end: u16,
    /// Allocations at once of one user, 1 to 1000. A client makes two to eight for a call.
    pub per_user_relay_allocation_limit: u32,
    /// Allocations at once of all users, 1 to 16000; no more than there are ports.
    pub relay_allocation_limit: u32,
    /// What one user may relay, kbit/s, both directions together. A call with video takes about 5000.
    pub per_user_kbps: u32,
    /// What all may relay together, kbit/s. It keeps the thread that does it free for weir's own calls.
    pub total_kbps: u32,
    /// Blocks that are not public and may be relayed to all the same; this machine's own addresses never are. Example: [10.20.0.0/16]
    pub allow_restricted_peer_cidrs: Vec<Cidr>,
    /// Blocks that are public and may not be relayed to: networks that trust this machine by its address.
    pub deny_peer_cidrs: Vec<Cidr>,
}

impl Default for LegacyCallsConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            shared_secrets: Vec::new(),
            shared_secrets_file: String::new(),
            relay_range_start: 49_160,
            relay_range_end: 50_159,
            per_user_relay_allocation_limit: 16,
            relay_allocation_limit: 1_000,
            per_user_kbps: 10_000,
            total_kbps: 200_000,
            allow_restricted_peer_cidrs: Vec::new(),
            deny_peer_cidrs: Vec::new(),
        }
    }
}

impl LegacyCallsConfig {
    /// Read the file of secrets.
    fn settle(&mut self, folder: &Path) -> Result<(), ConfigError> {
        if self.shared_secrets_file.is_empty() {
            return Ok(());
        }
        settle_files(folder, [&mut self.shared_secrets_file]);
        let file = &self.shared_secrets_file;
        let text = std::fs::read_to_string(file)
            .map_err(|e| ConfigError::new(format!("cannot read {file}: {}", plain(&e))))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        self.shared_secrets.extend(lines.map(Secret::new));
        Ok(())
    }

    fn check(&self, turn: &TurnConfig) -> Result<(), ConfigError> {
        let wrong = |what: &str| Err(ConfigError::new(what));
        if !self.enabled {
            return Ok(());
        }
        if !turn.enabled {
            return wrong("`turn.legacy_calls.enabled` needs `turn.enabled: true`");
        }
        if self.shared_secrets.is_empty() {
            return wrong(
                "`turn.legacy_calls` needs the homeserver's `turn_shared_secret` in `shared_secrets` or \
                 `shared_secrets_file`",
            );
        }
        if self.shared_secrets.len() > crate::turn::MAX_SECRETS {
            return wrong("`turn.legacy_calls.shared_secrets`: 8 are the most");
        }
        if self.shared_secrets.iter().any(|secret| secret.expose().len() < MIN_SECRET) {
            return wrong(
                "`turn.legacy_calls.shared_secrets`: one is shorter than 32 bytes: make one with `openssl rand -hex 32`",
            );
        }
        if self.relay_range_start < 1_024 || self.relay_range_end < self.relay_range_start {
            return wrong(
                "`turn.legacy_calls.relay_range_start` and `_end`: expected ports from low to high, above 1023",
            );
        }
        let limit = usize::try_from(self.relay_allocation_limit).unwrap_or(usize::MAX);
        if !(1..=16_000).contains(&limit) || limit > (self.relay_range_start..=self.relay_range_end).len() {
            return wrong(
                "`turn.legacy_calls.relay_allocation_limit`: expected 1 to 16000, and no more than there are ports from \
                 `relay_range_start` to `relay_range_end`",
            );
        }
        if !(1..=1_000).contains(&self.per_user_relay_allocation_limit) {
            return wrong("`turn.legacy_calls.per_user_relay_allocation_limit`: expected 1 to 1000");
        }
        if self.per_user_kbps < 64 || self.total_kbps < self.per_user_kbps {
            return wrong("`turn.legacy_calls.per_user_kbps`: expected 64 or more, and no more than `total_kbps`");
        }
        Ok(())
    }
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
            legacy_calls: LegacyCallsConfig::default(),
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

    pub(super) fn settle(&mut self, folder: &Path) -> Result<(), ConfigError> {
        settle_files(folder, [&mut self.cert_file, &mut self.key_file]);
        self.legacy_calls.settle(folder)
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let wrong = |what: &str| Err(ConfigError::new(what));
        self.legacy_calls.check(self)?;
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
