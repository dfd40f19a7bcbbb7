//! The listeners: the public one's port, and the operator's own with metrics and admin pages.

use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Bind, Config, ConfigError};

pub(super) const fn default_port() -> u16 {
    7880
}

/// Metrics for Prometheus at `/metrics`, liveness at `/healthz`, readiness at `/readyz`. Where `admin.port` is 0 and this
/// listener is on loopback alone, the admin pages are here too. Never reachable from the public listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PrometheusConfig {
    /// TCP port, 1 to 65535; 0 turns the listener off.
    pub port: u16,
    /// Addresses it listens on. There is no password: keep it on loopback or behind a firewall.
    pub bind_addresses: Vec<Bind>,
}

/// The status page at `/`, its data at `/status.json` and `/debug/rooms`, what `weir why` asks, and all that
/// `prometheus` serves. It shows who is in which call by pseudonyms only, yet is for operators alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// TCP port, 1 to 65535; 0 turns the listener off.
    pub port: u16,
    /// Addresses it listens on. There is no password: keep it on loopback.
    pub bind_addresses: Vec<Bind>,
}

fn loopback() -> Vec<Bind> {
    vec![Bind(std::net::Ipv4Addr::LOCALHOST.into())]
}

impl Default for PrometheusConfig {
    fn default() -> Self {
        Self { port: 0, bind_addresses: loopback() }
    }
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { port: 0, bind_addresses: loopback() }
    }
}

impl Config {
    /// Where metrics are; `None`: nowhere.
    pub fn metrics_addresses(&self) -> Option<(Vec<IpAddr>, u16)> {
        let port = if self.prometheus.port == 0 { self.prometheus_port } else { self.prometheus.port };
        (port != 0).then(|| (addresses(&self.prometheus.bind_addresses), port))
    }

    /// Where the admin pages are, if not beside the metrics.
    pub fn admin_addresses(&self) -> Option<(Vec<IpAddr>, u16)> {
        (self.admin.port != 0).then(|| (addresses(&self.admin.bind_addresses), self.admin.port))
    }

    /// Whether the admin pages are beside the metrics.
    pub fn metrics_serve_admin(&self) -> bool {
        self.admin.port == 0 && self.prometheus.bind_addresses.iter().all(|bind| bind.0.is_loopback())
    }

    /// Where `weir why` and others on this machine find the admin pages.
    ///
    /// # Errors
    /// When there are none, with what to set.
    pub fn admin_address(&self) -> Result<SocketAddr, ConfigError> {
        let beside = || self.metrics_addresses().filter(|_| self.metrics_serve_admin());
        let found = self.admin_addresses().or_else(beside);
        let (ips, port) = found
            .ok_or_else(|| ConfigError::new("weir has no listener for this: set `admin.port` and restart weir"))?;
        let ip = ips.first().copied().filter(|ip| !ip.is_unspecified());
        Ok(SocketAddr::new(ip.unwrap_or_else(|| std::net::Ipv4Addr::LOCALHOST.into()), port))
    }

    pub(super) fn check_listeners(&self) -> Result<(), ConfigError> {
        let metrics = self.metrics_addresses().map_or(0, |(_, port)| port);
        for (first, second, same) in [
            ("prometheus.port", "port", metrics != 0 && metrics == self.port),
            ("admin.port", "port", self.admin.port != 0 && self.admin.port == self.port),
            ("admin.port", "prometheus.port", self.admin.port != 0 && self.admin.port == metrics),
        ] {
            if same {
                return Err(ConfigError::new(format!(
                    "`{first}` and `{second}` are the same: give them different TCP ports"
                )));
            }
        }
        Ok(())
    }
}

fn addresses(binds: &[Bind]) -> Vec<IpAddr> {
    binds.iter().map(|bind| bind.0).collect()
}
