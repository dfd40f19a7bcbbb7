//! Several nodes behind one name: how they find each other, and in which region a call is.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{Cidr, ConfigError, settle_files};

/// Several nodes that share the work. A call is whole on one of them, whichever node its people reach first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NodesConfig {
    /// NATS servers (with JetStream) through which nodes learn where rooms are, as URLs; empty: this node is alone. All
    /// nodes need the same `keys`. Example: `["nats://weir:secret@10.0.0.2:4222"]`
    pub directory: Vec<String>,
    /// File with certificates (PEM) of authorities for `directory`, beside the system's; relative to this file.
    pub directory_ca_file: String,
    /// Name of this node, unlike every other's: lower-case letters, digits and hyphens. Empty: the machine's.
    pub name: String,
    /// Where the other nodes reach `port` of this one, such as http://10.0.0.5:7880. They pass clients on to it, so its
    /// address has to be among their `trusted_proxies`.
    pub address: String,
    /// What clients of calls on this node are told to connect to: a name that leads to every node, since clients come
    /// back to it when this one is gone, with a path by which a proxy can prefer this node; any path does. Example:
    /// wss://rtc.example.org/node/a. Empty: `matrix.url`.
    pub url: String,
    /// Header in which the edge names the region a client is in; only believed from `trusted_proxies`. Empty: none.
    pub region_header: String,
    /// Which clients are where. Each has a `name` as in `region`; `networks`, blocks of client addresses; `homeservers`,
    /// server names whose users are there; and `pinned`, server names whose users' calls never leave it: they are
    /// refused rather than held elsewhere. The first joiner decides, the first of header, network and homeserver that
    /// says something counts, and where nothing does, the region of the node that was reached.
    pub regions: Vec<RegionConfig>,
}

/// A region. See [`NodesConfig::regions`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RegionConfig {
    /// As in `region` of the nodes there.
    pub name: String,
    /// Blocks of addresses of clients that are there.
    pub networks: Vec<Cidr>,
    /// Homeservers whose users are there.
    pub homeservers: Vec<String>,
    /// Homeservers whose users' calls stay there.
    pub pinned: Vec<String>,
}

/// Whether this may be the name of a node: it is part of what a NATS server routes by.
fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

impl NodesConfig {
    /// Whether there may be others.
    pub fn is_on(&self) -> bool {
        !self.directory.is_empty()
    }

    /// The name of this node. Without one of its own it is the machine's, in what characters may be in it.
    pub fn node_name(&self) -> String {
        if !self.name.is_empty() {
            return self.name.clone();
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name: String = host
            .trim()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .take(64)
            .collect();
        if is_name(&name) { name } else { "weir".to_owned() }
    }

    /// User and password of the first of [`directory`](Self::directory) that has them.
    pub fn directory_user(&self) -> Option<(String, String)> {
        let decoded = |text: &str| {
            let text = text.replace('+', "%2B");
            url::form_urlencoded::parse(text.as_bytes()).next().map_or_else(String::new, |(text, _)| text.into_owned())
        };
        let urls = self.directory.iter().filter_map(|url| Url::parse(url).ok());
        let mut with_user = urls.filter(|url| !url.username().is_empty());
        with_user.next().map(|url| (decoded(url.username()), decoded(url.password().unwrap_or_default())))
    }

    pub(super) fn settle(&mut self, beside: &Path) {
        settle_files(beside, [&mut self.directory_ca_file]);
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if !self.name.is_empty() && !is_name(&self.name) {
            return Err(ConfigError::new("`nodes.name`: give 1 to 64 lower-case letters, digits and hyphens"));
        }
        for server in &self.directory {
            let known = Url::parse(server).is_ok_and(|url| matches!(url.scheme(), "nats" | "tls") && url.has_host());
            if !known {
                return Err(ConfigError::new("`nodes.directory`: give URLs such as nats://10.0.0.2:4222"));
            }
        }
        if self.is_on() {
            let http = Url::parse(&self.address)
                .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host() && url.path() == "/");
            if !http {
                return Err(ConfigError::new(
                    "`nodes.address`: say where other nodes reach this one, such as http://10.0.0.5:7880",
                ));
            }
        }
        let ws = |url: &Url| matches!(url.scheme(), "ws" | "wss") && url.has_host() && url.query().is_none();
        if !self.url.is_empty() && !Url::parse(&self.url).is_ok_and(|url| ws(&url)) {
            return Err(ConfigError::new(
                "`nodes.url`: give what clients connect to, such as wss://rtc.example.org/node/a",
            ));
        }
        if !self.region_header.is_empty() && self.region_header.parse::<axum::http::HeaderName>().is_err() {
            return Err(ConfigError::new("`nodes.region_header`: this is no name of a header"));
        }
        if self.regions.iter().any(|region| region.name.is_empty()) {
            return Err(ConfigError::new("`nodes.regions`: give each region the `name` its nodes have as `region`"));
        }
        let pinned: Vec<&String> = self.regions.iter().flat_map(|region| &region.pinned).collect();
        if let Some(twice) =
            pinned.iter().enumerate().find(|(at, name)| pinned.iter().skip(at + 1).any(|it| it == *name))
        {
            return Err(ConfigError::new(format!("`nodes.regions`: {} is pinned to two regions", twice.1)));
        }
        Ok(())
    }
}
