//! Where a server of the federation is, and HTTPS requests to it (Matrix spec, server discovery). Its name is an
//! attacker's choice, so every address any step leads to is held against the list of forbidden ones, and a connection
//! goes to exactly an address that was checked: no second look-up, no redirect that was not checked, no proxy.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::Certificate;
use reqwest::dns::{Name, Resolve, Resolving};
use signalling::matrix::server_name::{Host, ServerName, is_public};
use url::Url;

use super::coalesced::{Coalesced, key};
use super::fetch::{Reply, read};

/// Where server names are looked up.
pub(super) trait Dns: Send + Sync + fmt::Debug {
    /// Addresses of a host.
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Vec<IpAddr>>;
    /// Targets of a service, best first.
    fn services<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Vec<(String, u16)>>;
}

/// Why a server could not be asked. Never shown to clients: it would tell them about our network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreachable {
    /// The name is no server name.
    #[error("not a server name")]
    BadName,
    /// It leads to an address or port that must not be asked.
    #[error("leads to a forbidden address or port")]
    Forbidden,
    /// No address at all.
    #[error("has no address")]
    Unknown,
    /// No answer, or none that could be used.
    #[error("does not answer")]
    NoAnswer,
}

/// Bytes of a discovery document or an answer.
const MAX_ANSWER: usize = 16 << 10;
/// Time one request may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Redirects followed for discovery documents; nothing else is redirected.
const MAX_REDIRECTS: usize = 2;
/// How long discovery is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);
/// How long a failed discovery is remembered.
const FAILURE_REMEMBERED: Duration = Duration::from_secs(60);
/// Discoveries remembered.
const MAX_REMEMBERED: usize = 4_096;
/// Service targets tried.
const MAX_TARGETS: usize = 4;

/// A server as it can be reached.
#[derive(Clone, Debug)]
struct Destination {
    /// `https://host[:port]`: what TLS and the `Host` header are about.
    base: Url,
    /// Checked addresses.
    addresses: Vec<SocketAddr>,
}

/// Asks servers of the federation.
#[derive(Debug)]
pub(super) struct Federation {
    dns: Arc<dyn Dns>,
    allowed: Vec<ipnet::IpNet>,
    authorities: Vec<Certificate>,
    well_known: Coalesced<Option<ServerName>>,
    client_api: Coalesced<Option<Url>>,
}

impl Federation {
    /// With private blocks that may be asked all the same, and further certificate authorities.
    pub(super) fn new(dns: Arc<dyn Dns>, allowed: Vec<ipnet::IpNet>, authorities: Vec<Certificate>) -> Self {
        let (well_known, client_api) = (Coalesced::new(MAX_REMEMBERED), Coalesced::new(MAX_REMEMBERED));
        Self { dns, allowed, authorities, well_known, client_api }
    }

    /// GET a path of a server's federation API.
    pub(super) async fn get(&self, server: &str, path_and_query: &str) -> Result<Reply, Unreachable> {
        let name = ServerName::parse(server).map_err(|_| Unreachable::BadName)?;
        let destination = self.find(&name).await?;
        let url = destination.base.join(path_and_query).map_err(|_| Unreachable::BadName)?;
        self.send(reqwest::Method::GET, url, &destination.addresses).await
    }

    /// POST an empty object to a path of the client API of a user's server, found by its `.well-known`.
    pub(super) async fn post_client(&self, server: &str, path: &[&str]) -> Result<Reply, Unreachable> {
        let name = ServerName::parse(server).map_err(|_| Unreachable::BadName)?;
        let base = self.client_api.get(key(&[server]), || self.ask_client_api(&name)).await;
        let mut url = base.ok_or(Unreachable::Unknown)?;
        url.path_segments_mut().map_err(|()| Unreachable::BadName)?.pop_if_empty().extend(path);
        let addresses = self.addresses_of_url(&url).await?;
        self.send(reqwest::Method::POST, url, &addresses).await
    }

    /// Server discovery, in the order of the specification.
    async fn find(&self, name: &ServerName) -> Result<Destination, Unreachable> {
        if name.port().is_some() || matches!(name.host(), Host::Ip(_)) {
            return self.direct(name).await;
        }
        let delegated = self.well_known.get(key(&[&name.to_string()]), || self.ask_well_known(name)).await;
        match delegated {
            Some(other) if other.port().is_some() || matches!(other.host(), Host::Ip(_)) => self.direct(&other).await,
            Some(other) => self.by_service(&other).await,
            None => self.by_service(name).await,
        }
    }

    async fn direct(&self, name: &ServerName) -> Result<Destination, Unreachable> {
        let port = name.port().unwrap_or(8448);
        let addresses = self.addresses(name.host(), port).await?;
        Ok(Destination { base: base(name.host(), Some(port))?, addresses })
    }

    async fn by_service(&self, name: &ServerName) -> Result<Destination, Unreachable> {
        let Host::Dns(host) = name.host() else { return self.direct(name).await };
        for service in ["_matrix-fed._tcp", "_matrix._tcp"] {
            let targets = self.dns.services(&format!("{service}.{host}")).await;
            if targets.is_empty() {
                continue;
            }
            let mut addresses = Vec::new();
            let mut last = Unreachable::Unknown;
            for (target, port) in targets.into_iter().take(MAX_TARGETS) {
                let target = ServerName::parse(target.trim_end_matches('.')).map_err(|_| Unreachable::BadName)?;
                match self.addresses(target.host(), port).await {
                    Ok(more) => addresses.extend(more),
                    Err(error) => last = error,
                }
            }
            // The certificate has to be that of the name, wherever the service stands.
            return if addresses.is_empty() {
                Err(last)
            } else {
                Ok(Destination { base: base(name.host(), None)?, addresses })
            };
        }
        self.direct(name).await
    }

    /// What `.well-known/matrix/server` delegates to; errors mean no delegation.
    async fn ask_well_known(&self, name: &ServerName) -> (Option<ServerName>, Duration) {
        let json = self.well_known_json(name.host(), "/.well-known/matrix/server").await;
        let other = json.and_then(|json| ServerName::parse(json.get("m.server")?.as_str()?).ok());
        let good_for = if other.is_some() { REMEMBERED } else { FAILURE_REMEMBERED };
        (other, good_for)
    }

    async fn ask_client_api(&self, name: &ServerName) -> (Option<Url>, Duration) {
        let json = self.well_known_json(name.host(), "/.well-known/matrix/client").await;
        let url = json.and_then(|json| Url::parse(json.get("m.homeserver")?.get("base_url")?.as_str()?).ok());
        let url = url.filter(|url| url.scheme() == "https" && url.has_host());
        let good_for = if url.is_some() { REMEMBERED } else { FAILURE_REMEMBERED };
        (url, good_for)
    }

    async fn well_known_json(&self, host: &Host, path: &str) -> Option<serde_json::Value> {
        let mut url = base(host, None).ok()?.join(path).ok()?;
        for _ in 0..=MAX_REDIRECTS {
            let addresses = self.addresses_of_url(&url).await.ok()?;
            let reply = self.send(reqwest::Method::GET, url.clone(), &addresses).await.ok()?;
            match (reply.status, reply.location) {
                (200, _) => return serde_json::from_slice(&reply.body).ok(),
                (301 | 302 | 303 | 307 | 308, Some(location)) => url = url.join(&location).ok()?,
                _ => return None,
            }
        }
        None
    }

    /// Checked addresses of the host of an `https` URL.
    async fn addresses_of_url(&self, url: &Url) -> Result<Vec<SocketAddr>, Unreachable> {
        if url.scheme() != "https" || !url.username().is_empty() || url.password().is_some() {
            return Err(Unreachable::Forbidden);
        }
        let host = match url.host().ok_or(Unreachable::BadName)? {
            url::Host::Domain(name) => ServerName::parse(name).map_err(|_| Unreachable::BadName)?.host().clone(),
            url::Host::Ipv4(v4) => Host::Ip(v4.into()),
            url::Host::Ipv6(v6) => Host::Ip(v6.into()),
        };
        self.addresses(&host, url.port_or_known_default().unwrap_or(443)).await
    }

    /// Addresses of a host that may be asked; an error when it has none or only forbidden ones.
    async fn addresses(&self, host: &Host, port: u16) -> Result<Vec<SocketAddr>, Unreachable> {
        // Below 1024 live services that are not HTTP and could be made to do things by what looks like HTTP to us.
        if port != 443 && port < 1024 {
            return Err(Unreachable::Forbidden);
        }
        let found = match host {
            Host::Ip(ip) => vec![*ip],
            Host::Dns(name) => tokio::time::timeout(PATIENCE, self.dns.addresses(name)).await.unwrap_or_default(),
        };
        if found.is_empty() {
            return Err(Unreachable::Unknown);
        }
        let good: Vec<SocketAddr> =
            found.into_iter().filter(|ip| self.permits(*ip)).map(|ip| SocketAddr::new(ip, port)).collect();
        if good.is_empty() { Err(Unreachable::Forbidden) } else { Ok(good) }
    }

    fn permits(&self, ip: IpAddr) -> bool {
        is_public(ip) || self.allowed.iter().any(|block| block.contains(&ip))
    }

    async fn send(&self, method: reqwest::Method, url: Url, to: &[SocketAddr]) -> Result<Reply, Unreachable> {
        let domain = url.host_str().unwrap_or_default().to_owned();
        // One client per request: it knows the checked addresses of this host and can look up nothing else.
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(NoLookups)
            .resolve_to_addrs(&domain, to)
            .pool_max_idle_per_host(0)
            .timeout(PATIENCE)
            .user_agent(super::fetch::USER_AGENT);
        if !self.authorities.is_empty() {
            builder = builder.tls_certs_merge(self.authorities.iter().cloned());
        }
        let client = builder.build().map_err(|_| Unreachable::NoAnswer)?;
        let mut request = client.request(method.clone(), url);
        if method == reqwest::Method::POST {
            request = request.header("content-type", "application/json").body("{}");
        }
        tokio::time::timeout(PATIENCE, async { read(request.send().await.ok()?, MAX_ANSWER).await })
            .await
            .ok()
            .flatten()
            .ok_or(Unreachable::NoAnswer)
    }
}

fn base(host: &Host, port: Option<u16>) -> Result<Url, Unreachable> {
    let host = match host {
        Host::Ip(IpAddr::V6(v6)) => format!("[{v6}]"),
        Host::Ip(IpAddr::V4(v4)) => v4.to_string(),
        Host::Dns(name) => name.clone(),
    };
    let text = port.map_or_else(|| format!("https://{host}"), |port| format!("https://{host}:{port}"));
    Url::parse(&text).map_err(|_| Unreachable::BadName)
}

/// Fails every look-up: what is not pinned is not asked.
#[derive(Debug)]
struct NoLookups;

impl Resolve for NoLookups {
    fn resolve(&self, _: Name) -> Resolving {
        Box::pin(async { Err("no look-up but the checked one".into()) })
    }
}

/// The resolver the system is configured with.
#[derive(Debug)]
pub(super) struct SystemDns(hickory_resolver::TokioResolver);

impl SystemDns {
    /// Reads the system's configuration.
    ///
    /// # Errors
    /// In words, when there is none that could be used.
    pub(super) fn new() -> Result<Self, String> {
        let builder = hickory_resolver::TokioResolver::builder_tokio().map_err(|e| e.to_string())?;
        builder.build().map(Self).map_err(|e| e.to_string())
    }
}

impl Dns for SystemDns {
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Vec<IpAddr>> {
        // With the dot at its end no search domain is added: the name is what it says.
        Box::pin(async move {
            let name = if host.contains('.') { format!("{host}.") } else { host.to_owned() };
            self.0.lookup_ip(name).await.map(|found| found.iter().collect()).unwrap_or_default()
        })
    }

    fn services<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Vec<(String, u16)>> {
        use hickory_resolver::proto::rr::RData;
        Box::pin(async move {
            let Ok(Ok(found)) = tokio::time::timeout(PATIENCE, self.0.srv_lookup(format!("{name}."))).await else {
                return Vec::new();
            };
            let mut targets: Vec<(u16, u16, String, u16)> = found
                .answers()
                .iter()
                .filter_map(|record| match &record.data {
                    RData::SRV(srv) => Some((srv.priority, u16::MAX - srv.weight, srv.target.to_utf8(), srv.port)),
                    _ => None,
                })
                .collect();
            targets.sort();
            targets.into_iter().filter(|(_, _, target, _)| target != ".").map(|(_, _, t, port)| (t, port)).collect()
        })
    }
}

#[cfg(test)]
mod tests;
