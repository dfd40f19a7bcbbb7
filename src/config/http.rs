//! The listeners: the public one's port, and the operator's own with metrics and debug pages.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Bind, ConfigError};

pub(super) const fn default_port() -> u16 {
    7880
}

/// Metrics and debug pages: `/metrics`, `/debug/rooms`, `/healthz`. Never reachable from the public listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PrometheusConfig {
    /// TCP port, 1 to 65535; 0 turns the listener off.
    pub port: u16,
    /// Addresses it listens on. There is no password: keep it on loopback or behind a firewall.
    pub bind_addresses: Vec<Bind>,
}

impl Default for PrometheusConfig {
    fn default() -> Self {
        Self { port: 0, bind_addresses: vec![Bind(std::net::Ipv4Addr::LOCALHOST.into())] }
    }
}

impl PrometheusConfig {
    pub(super) fn check(&self, http: u16) -> Result<(), ConfigError> {
        if self.port != 0 && self.port == http {
            return Err(ConfigError::new("`prometheus.port` and `port` are the same: give them different TCP ports"));
        }
        Ok(())
    }
}
