//! What an operator sets: one YAML file, LiveKit's key names where the concept is the same.
//!
//! Parsed once, at the start, into types that cannot hold nonsense; [`Config::check`] says what types cannot. The doc
//! comments of these structs are the documentation: `weir config example` prints them. Every error is one line that
//! says what to change and never shows a value that may be a secret.

mod audit;
mod drain;
mod error;
pub mod example;
mod http;
mod keys;
mod layers;
mod limit;
mod livekit;
mod logging;
mod matrix;
mod media;
mod nodes;
pub mod reference;
mod room;
mod rtc;
mod tls;
mod turn;
mod units;
mod webhook;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use audit::{AuditConfig, AuditTarget};
pub use drain::{DrainCalls, DrainConfig};
pub use error::ConfigError;
pub use http::{AdminConfig, PrometheusConfig};
pub use keys::{Keys, Secret};
pub use limit::LimitConfig;
pub use logging::{LogLevel, LoggingConfig};
pub use matrix::{Feed, HomeserverConfig, MatrixConfig, PolicyRoomConfig, RemoteUsersConfig, Trust};
pub use media::{AudioConfig, VideoConfig};
pub use nodes::{NodesConfig, RegionConfig};
pub use room::{CodecConfig, RoomConfig};
pub use rtc::{Filter, IceServerConfig, RtcConfig};
pub use tls::TlsConfig;
pub use turn::{LegacyCallsConfig, TurnConfig};
pub use units::{Bind, Cidr, PortRange, Seconds, Span};
pub use webhook::WebhookConfig;

/// API key of `weir serve --dev`.
pub const DEV_KEY: &str = "devkey";
/// Secret of `weir serve --dev`. Known to everybody, so it is refused anywhere else.
pub const DEV_SECRET: &str = "secret";
/// Shortest secret that is taken, bytes: what HMAC-SHA-256 needs to be as strong as its hash (RFC 7518, 3.2).
pub const MIN_SECRET: usize = 32;

/// Everything an operator can set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Set by `--dev`: loopback, a well-known key, short secrets allowed.
    #[serde(skip)]
    pub development: bool,
    /// What is odd about the file though it is good, a line each: keys of LiveKit that have no effect here.
    #[serde(skip)]
    pub notes: Vec<String>,
    /// TCP port of HTTP and WebSocket, 1 to 65535; 0 takes any free one. TLS is a reverse proxy's work, or see `tls`.
    #[serde(default = "http::default_port")]
    pub port: u16,
    /// Addresses HTTP listens on. Empty: all. Example: [127.0.0.1, "::1"]
    pub bind_addresses: Vec<Bind>,
    /// TLS on `port`, for those who want no reverse proxy.
    pub tls: TlsConfig,
    /// Reverse proxies in front, as blocks: `X-Forwarded-For` of requests that come from them says who the client is,
    /// and the limits per address count clients, not the proxy. Example: [127.0.0.1, "::1", 10.0.0.0/8]
    pub trusted_proxies: Vec<Cidr>,
    /// Whether connections from `trusted_proxies` begin with a PROXY protocol header, version 1 or 2. One without is
    /// closed.
    pub proxy_protocol: bool,
    /// API keys and their secrets, as `key: secret`; at least one, here or in `key_file`. Secrets have at least 32
    /// bytes; `weir keys` makes a pair. The first key signs the tokens weir itself gives out.
    pub keys: Keys,
    /// File with further `key: secret` lines, readable by weir alone (mode 0600). Empty: none.
    pub key_file: String,
    /// Name of the region this node stands in, told to clients. May be empty.
    pub region: String,
    /// Further nodes, in this region and in others.
    pub nodes: NodesConfig,
    /// Whether data tracks may be published.
    #[serde(default = "room::yes")]
    pub enable_data_tracks: bool,
    /// Media: ports, addresses, threads.
    #[serde(deserialize_with = "livekit::sift")]
    pub rtc: RtcConfig,
    /// TURN, for clients behind firewalls that let neither UDP nor the media ports through.
    #[serde(deserialize_with = "livekit::sift")]
    pub turn: TurnConfig,
    /// Rooms: lifetimes and what may be in them.
    #[serde(deserialize_with = "livekit::sift")]
    pub room: RoomConfig,
    /// Active speakers.
    #[serde(deserialize_with = "livekit::sift")]
    pub audio: AudioConfig,
    /// Video.
    #[serde(deserialize_with = "livekit::sift")]
    pub video: VideoConfig,
    /// Calls of Matrix rooms.
    pub matrix: MatrixConfig,
    /// How much of everything there may be. What comes from the network never grows beyond these.
    #[serde(deserialize_with = "livekit::sift")]
    pub limit: LimitConfig,
    /// What becomes of calls when weir ends.
    pub drain: DrainConfig,
    /// Log lines, on stderr.
    #[serde(deserialize_with = "livekit::sift")]
    pub logging: LoggingConfig,
    /// Who was let in, refused or removed, by which rule, and what operators changed.
    pub audit: AuditConfig,
    /// Metrics, on a listener of their own.
    #[serde(deserialize_with = "livekit::sift")]
    pub prometheus: PrometheusConfig,
    /// Older name of `prometheus.port`, which wins; 0: not given.
    pub prometheus_port: u16,
    /// Status page and diagnosis for operators, on a listener of their own.
    pub admin: AdminConfig,
    /// Who is told what happens in rooms.
    #[serde(deserialize_with = "livekit::sift")]
    pub webhook: WebhookConfig,
}

impl Config {
    /// The defaults of an empty file.
    pub fn new() -> Self {
        Self { port: http::default_port(), enable_data_tracks: true, ..Self::default() }
    }

    /// What `--dev` means: HTTP on loopback, media on loopback and the machine's own addresses, the well-known key.
    pub fn dev() -> Self {
        let mut config = Self::new();
        config.development = true;
        config.bind_addresses = vec![Bind(std::net::Ipv4Addr::LOCALHOST.into())];
        config.keys = Keys::single(DEV_KEY, DEV_SECRET);
        config.rtc.enable_loopback_candidate = true;
        config
    }

    /// Read a file and the key file it names, and check both.
    ///
    /// # Errors
    /// When a file cannot be read, is no YAML, has an unknown key or a value out of range.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let config = Self::parse(&read(path)?).map_err(|e| e.in_file(path))?;
        // A relative name counts from the file that names it, not from where weir happens to be started.
        config.settle(path, path.parent().unwrap_or_else(|| Path::new(".")))
    }

    /// The same of a text that came without a file; relative names count from where weir is started.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_body(text: &str) -> Result<Self, ConfigError> {
        Self::parse(text)?.settle(Path::new("configuration"), Path::new("."))
    }

    /// Read the files that are named in what was read from `path`.
    fn settle(self, path: &Path, beside: &Path) -> Result<Self, ConfigError> {
        let mut config = self;
        config.matrix.settle(beside, &state_folder(beside)).map_err(|e| e.in_file(path))?;
        config.tls.settle(beside);
        config.turn.settle(beside).map_err(|e| e.in_file(path))?;
        config.nodes.settle(beside);
        config.audit.settle(beside);
        if !config.key_file.is_empty() {
            let file = beside.join(&config.key_file);
            config.keys.extend(Keys::parse(&read(&file)?).map_err(|e| e.in_file(&file))?);
        }
        Ok(config)
    }

    /// Parse the text of a file. Does not read the key file and does not [`check`](Self::check).
    ///
    /// # Errors
    /// When it is no YAML, has an unknown key or a value of the wrong kind. An empty text gives the defaults.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::new());
        }
        let WholeFile(mut config) = error::parse_yaml(text)?;
        livekit::adopt(&mut config, text);
        Ok(config)
    }

    /// Check what types cannot say: ranges, and what belongs together.
    ///
    /// # Errors
    /// The first thing that is wrong, with what to change.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.keys.check(self.development)?;
        self.rtc.check()?;
        self.turn.check()?;
        self.room.check()?;
        self.audio.check()?;
        self.limit.check()?;
        self.matrix.check()?;
        self.check_listeners()?;
        self.tls.check()?;
        self.drain.check()?;
        self.nodes.check()?;
        self.check_audit()?;
        if self.proxy_protocol && self.trusted_proxies.is_empty() {
            return Err(ConfigError::new(
                "`proxy_protocol` is on and `trusted_proxies` empty: name the proxies that speak it",
            ));
        }
        self.webhook.check(&self.keys)?;
        self.check_ports()?;
        if self.rtc.tcp_port != 0 && self.rtc.tcp_port == self.port {
            return Err(ConfigError::new("`rtc.tcp_port` and `port` are the same: give them different TCP ports"));
        }
        Ok(())
    }

    /// TURN's ports beside the others. Its UDP port may stand among those of media only by mistake.
    fn check_ports(&self) -> Result<(), ConfigError> {
        if !self.turn.enabled {
            return Ok(());
        }
        let tls = if self.turn.has_tls() { self.turn.tls_port } else { 0 };
        for (key, port) in [("turn.tcp_port", self.turn.tcp_port), ("turn.tls_port", tls)] {
            for (other, taken) in [("port", self.port), ("rtc.tcp_port", self.rtc.tcp_port)] {
                if port != 0 && port == taken && self.turn.bind_addresses.is_empty() {
                    return Err(ConfigError::new(format!(
                        "`{key}` and `{other}` are the same: give them different TCP ports"
                    )));
                }
            }
        }
        let first = usize::from(self.rtc.udp_port.first);
        let media = first..first + self.rtc.threads();
        if first != 0 && media.contains(&usize::from(self.turn.udp_port)) && self.turn.bind_addresses.is_empty() {
            return Err(ConfigError::new("`turn.udp_port` is one of the ports of `rtc.udp_port`: choose another"));
        }
        let calls = &self.turn.legacy_calls;
        let relayed = calls.relay_range_start..=calls.relay_range_end;
        let taken = media.chain([usize::from(self.turn.udp_port)]);
        if calls.enabled && taken.filter_map(|port| u16::try_from(port).ok()).any(|port| relayed.contains(&port)) {
            return Err(ConfigError::new(
                "`turn.legacy_calls.relay_range_start` to `_end` holds a port of `rtc.udp_port` or `turn.udp_port`: \
                 choose others",
            ));
        }
        Ok(())
    }

    /// Addresses HTTP listens on: the configured ones, or all.
    pub fn http_addresses(&self) -> Vec<IpAddr> {
        if self.bind_addresses.is_empty() {
            return vec![std::net::Ipv6Addr::UNSPECIFIED.into()];
        }
        self.bind_addresses.iter().map(|bind| bind.0).collect()
    }
}

/// The configuration without what is LiveKit's alone.
#[derive(Deserialize)]
#[serde(transparent)]
struct WholeFile(#[serde(deserialize_with = "livekit::sift")] Config);

impl livekit::Section for Config {
    const NAME: &'static str = "";
}

/// Sections that LiveKit has too.
macro_rules! sections {
    ($($name:literal => $section:ty),*) => { $(
        impl livekit::Section for $section {
            const NAME: &'static str = $name;
        }
    )* };
}
sections!(
    "rtc" => RtcConfig,
    "turn" => TurnConfig,
    "room" => RoomConfig,
    "audio" => AudioConfig,
    "video" => VideoConfig,
    "limit" => LimitConfig,
    "logging" => LoggingConfig,
    "prometheus" => PrometheusConfig,
    "webhook" => WebhookConfig
);

/// Where a service may write: what systemd made for it (systemd.exec, `StateDirectory=`), or the image; else `beside`.
#[expect(clippy::disallowed_methods, reason = "the configuration is where the environment is read")]
fn state_folder(beside: &Path) -> PathBuf {
    let given = std::env::var("STATE_DIRECTORY").unwrap_or_default();
    match given.split(':').next() {
        Some(folder) if !folder.is_empty() => PathBuf::from(folder),
        _ => beside.to_owned(),
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path)
        .map_err(|e| ConfigError::new(format!("cannot read {}: {}", path.display(), plain(&e))))
}

/// An input/output error as a person says it, without the number.
pub(crate) fn plain(error: &std::io::Error) -> String {
    use std::io::ErrorKind as K;
    match error.kind() {
        K::NotFound => "there is no such file".to_owned(),
        K::PermissionDenied => "permission denied".to_owned(),
        K::AddrInUse => "the port is in use by another program".to_owned(),
        K::AddrNotAvailable => "this machine does not have that address".to_owned(),
        _ => error.to_string(),
    }
}

/// A relative file name counts from the file that names it; an empty one stays what it is.
fn settle_files<const N: usize>(folder: &Path, files: [&mut String; N]) {
    for file in files.into_iter().filter(|file| !file.is_empty()) {
        *file = folder.join(&*file).to_string_lossy().into_owned();
    }
}

#[cfg(test)]
mod tests;
