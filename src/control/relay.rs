//! The TURN service as the rest of the node sees it: what to start, and what participants are told.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustls::ServerConfig;
use signalling::relay::RelayAccess;

use super::addresses;
use crate::config::Config;
use crate::mailbox::TurnLink;
use crate::media::TurnConfig;

/// What the media side is to start, if anything; `rules` say how its connections agree on TLS. The key is new with each start: what it was used for is gone by then.
///
/// # Errors
/// When the system gives no randomness.
pub(super) fn service(
    config: &Config,
    rules: Option<Arc<ServerConfig>>,
    advertised: &[IpAddr],
) -> Result<Option<TurnConfig>, String> {
    let turn = &config.turn;
    if !turn.enabled {
        return Ok(None);
    }
    let mut key = vec![0; 32];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| "the system gives no randomness".to_owned())?;
    let bind = turn.addresses(&addresses::bind_addresses(advertised));
    let at = |port: u16| match port {
        0 => Vec::new(),
        port => bind.iter().map(|ip| SocketAddr::new(*ip, port)).collect(),
    };
    let limit = |number: u32| if number == 0 { u32::MAX } else { number };
    Ok(Some(TurnConfig {
        udp: at(turn.udp_port),
        tcp: at(turn.tcp_port),
        tls: at(if turn.has_tls() { turn.tls_port } else { 0 }),
        rules,
        advertised: advertised.to_vec(),
        key,
        max_allocations: usize::try_from(turn.relay_allocation_limit).unwrap_or(usize::MAX),
        max_per_user: turn.per_user_relay_allocation_limit,
        // Behind a proxy everybody comes from its address.
        max_per_address: if turn.external_tls { u32::MAX } else { limit(turn.per_address_relay_allocation_limit) },
    }))
}

/// What participants are told: UDP and TCP at the best address of each family, TLS at the domain.
pub(super) fn access(config: &Config, turn: &TurnLink, key: Vec<u8>, advertised: &[IpAddr]) -> RelayAccess {
    let mut urls = Vec::new();
    for (bound, transport) in [(&turn.udp, "udp"), (&turn.tcp, "tcp")] {
        for ipv6 in [false, true] {
            let is_served = |ip: &IpAddr| {
                bound.iter().any(|b| b.ip() == *ip || b.ip().is_unspecified() && b.is_ipv6() == ip.is_ipv6())
            };
            let mut hosts = advertised.iter().filter(|ip| ip.is_ipv6() == ipv6);
            // Behind a NAT no address clients are told is one that is bound.
            let host = hosts.clone().find(|ip| is_served(ip)).or_else(|| hosts.next());
            let port = bound.iter().find(|bound| bound.is_ipv6() == ipv6).map(SocketAddr::port);
            if let (Some(host), Some(port)) = (host, port) {
                urls.push(format!("turn:{}?transport={transport}", SocketAddr::new(*host, port)));
            }
        }
    }
    if let Some(bound) = turn.tls.first() {
        let port = match config.turn.public_tls_port {
            0 => bound.port(),
            port => port,
        };
        urls.push(format!("turns:{}:{port}?transport=tcp", config.turn.domain));
    }
    RelayAccess { urls, key, lifetime: config.turn.ttl_seconds.into() }
}
