//! Settings of media transport: ports, addresses, threads, ICE servers told to clients.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Cidr, ConfigError, PortRange};

/// Media transport.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RtcConfig {
    /// UDP port of media, one per media thread from this one up; or a range such as 7882-7885, which bounds the number
    /// of threads. 0 takes any free ports.
    pub udp_port: PortRange,
    /// TCP port of media for clients whose network lets no UDP through (ICE-TCP); 0 turns it off.
    pub tcp_port: u16,
    /// Media threads, 1 to 64; 0: one less than the machine has cores. Small rooms live on one of
    /// them, see `room.participants_per_thread`.
    pub media_threads: u16,
    /// Addresses clients reach media at, where they are not the machine's own (NAT): one, or an IPv4 and an IPv6
    /// address with a comma between. Empty: the machine's own addresses.
    pub node_ip: String,
    /// Ask `stun_servers` at the start under which IPv4 address this machine is seen, and tell clients that one instead
    /// of its own: for machines behind a NAT that keeps ports (1:1). `node_ip` must be empty.
    pub use_external_ip: bool,
    /// With `node_ip` or `use_external_ip`: tell clients the machine's own addresses as well, after those.
    pub advertise_internal_ip: bool,
    /// Which network interfaces' addresses are told to clients.
    pub interfaces: Filter<String>,
    /// Which addresses are told to clients, as blocks such as 10.0.0.0/8.
    pub ips: Filter<Cidr>,
    /// Whether 127.0.0.1 is told to clients: for tests on one machine.
    pub enable_loopback_candidate: bool,
    /// STUN servers told to clients, as host:port. weir asks them itself only for `use_external_ip`; clients need none
    /// for weir.
    pub stun_servers: Vec<String>,
    /// TURN servers told to clients.
    pub turn_servers: Vec<IceServerConfig>,
    /// Whether a subscriber's video may be paused when not even its lowest layer fits its network. A client that says
    /// itself whether it may is heard instead.
    pub allow_pause: bool,
}

/// Names or blocks that are used. With `includes` only those, without it all; never those of `excludes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Filter<T> {
    /// Only these. Empty: all.
    pub includes: Vec<T>,
    /// Not these.
    pub excludes: Vec<T>,
}

impl<T> Default for Filter<T> {
    fn default() -> Self {
        Self { includes: Vec::new(), excludes: Vec::new() }
    }
}

impl<T> Filter<T> {
    /// Whether something passes, given how one entry matches.
    pub fn takes(&self, matches: impl Fn(&T) -> bool) -> bool {
        (self.includes.is_empty() || self.includes.iter().any(&matches)) && !self.excludes.iter().any(&matches)
    }
}

/// A TURN server told to clients.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IceServerConfig {
    /// Its host name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// One of udp, tcp, tls.
    pub protocol: String,
    /// User name.
    #[serde(default)]
    pub username: String,
    /// Password. Told to every client.
    #[serde(default)]
    pub credential: String,
}

impl std::fmt::Debug for IceServerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IceServerConfig {{ {}:{}/{}, credential: *** }}", self.host, self.port, self.protocol)
    }
}

impl Default for RtcConfig {
    fn default() -> Self {
        Self {
            udp_port: PortRange { first: 7882, last: None },
            tcp_port: 7881,
            media_threads: 0,
            node_ip: String::new(),
            use_external_ip: false,
            advertise_internal_ip: false,
            interfaces: Filter::default(),
            ips: Filter::default(),
            enable_loopback_candidate: false,
            stun_servers: Vec::new(),
            turn_servers: Vec::new(),
            allow_pause: true,
        }
    }
}

impl RtcConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let given = self.node_ips()?;
        if self.use_external_ip && !given.is_empty() {
            return Err(ConfigError::new("`rtc.use_external_ip` and `rtc.node_ip`: remove one of them"));
        }
        if self.use_external_ip && self.stun_servers.is_empty() {
            return Err(ConfigError::new(
                "`rtc.use_external_ip` needs a server to ask: name one in `rtc.stun_servers`",
            ));
        }
        if self.media_threads > 64 {
            return Err(ConfigError::new(
                "`rtc.media_threads` is above 64: set it from 1 to 64, or 0 for one per core",
            ));
        }
        let threads = self.threads();
        if let Some(last) = self.udp_port.last
            && usize::from(self.media_threads) > usize::from(last - self.udp_port.first) + 1
        {
            return Err(ConfigError::new(format!(
                "`rtc.udp_port` has too few ports for {threads} media threads: each needs one of its own"
            )));
        }
        if usize::from(self.udp_port.first) + threads > 65_536 {
            return Err(ConfigError::new("`rtc.udp_port` leaves too few ports above it: choose a lower one"));
        }
        for server in &self.turn_servers {
            if !matches!(server.protocol.as_str(), "udp" | "tcp" | "tls") || server.host.is_empty() || server.port == 0
            {
                return Err(ConfigError::new(
                    "`rtc.turn_servers`: each needs `host`, `port` and `protocol` (udp, tcp or tls)",
                ));
            }
        }
        Ok(())
    }

    /// The addresses of `node_ip`, if any.
    ///
    /// # Errors
    /// When one is no IP address.
    pub fn node_ips(&self) -> Result<Vec<IpAddr>, ConfigError> {
        let parts = self.node_ip.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts
            .map(|part| {
                part.parse::<IpAddr>().ok().filter(|ip| !ip.is_unspecified()).ok_or_else(|| {
                    ConfigError::new(format!("`rtc.node_ip`: `{part}` is no IP address clients could reach"))
                })
            })
            .collect()
    }

    /// How many media threads there will be.
    pub fn threads(&self) -> usize {
        if self.media_threads != 0 {
            return usize::from(self.media_threads);
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let wanted = cores.saturating_sub(1).clamp(1, 64);
        match self.udp_port.last {
            Some(last) => wanted.min(usize::from(last - self.udp_port.first) + 1),
            None => wanted,
        }
    }
}
