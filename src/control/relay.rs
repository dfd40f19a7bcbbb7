//! The TURN service as the rest of the node sees it: what to start, and what participants are told.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustls::ServerConfig;
use signalling::relay::RelayAccess;

use super::addresses;
use crate::base::Bitrate;
use crate::config::{Cidr, Config, LegacyCallsConfig};
use crate::mailbox::TurnLink;
use crate::media::TurnConfig;
use crate::turn::{Block, CallsConfig, PeerRules, is_public};

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
        calls: turn.legacy_calls.enabled.then(|| calls(&turn.legacy_calls, advertised)),
    }))
}

/// Legacy calls: relayed at the best address of each family, to nothing that is this machine's.
fn calls(config: &LegacyCallsConfig, advertised: &[IpAddr]) -> CallsConfig {
    let machine = addresses::machine();
    let best = |ipv6: bool| {
        let mut family = advertised.iter().copied().filter(|ip| ip.is_ipv6() == ipv6);
        let public = family.clone().find(|ip| is_public(*ip));
        public.or_else(|| family.next())
    };
    let block = |cidr: &Cidr| Block { network: cidr.0.addr(), prefix: cidr.0.prefix_len() };
    CallsConfig {
        secrets: config.shared_secrets.iter().map(|secret| secret.expose().as_bytes().to_vec()).collect(),
        rules: PeerRules {
            relayed: [best(false), best(true)].into_iter().flatten().collect(),
            ports: config.relay_range_start..=config.relay_range_end,
            own: machine.iter().chain(advertised).copied().collect(),
            allowed: config.allow_restricted_peer_cidrs.iter().map(block).collect(),
            denied: config.deny_peer_cidrs.iter().map(block).collect(),
        },
        max_allocations: usize::try_from(config.relay_allocation_limit).unwrap_or(usize::MAX),
        max_per_user: config.per_user_relay_allocation_limit,
        user_rate: Bitrate::from_kbps(config.per_user_kbps.into()),
        total_rate: Bitrate::from_kbps(config.total_kbps.into()),
    }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may fail by panicking")]

    use std::net::{Ipv4Addr, Ipv6Addr};

    use crate::base::Rng;

    /// The core cannot ask signalling, which knows the same of homeservers' addresses.
    #[test]
    fn what_is_public_is_so_for_homeservers_and_for_peers() {
        let mut rng = Rng::new(1);
        let agree = |ip| assert_eq!(super::is_public(ip), signalling::matrix::server_name::is_public(ip), "{ip}");
        for _ in 0..200_000 {
            agree(Ipv4Addr::from_bits(rng.next_u32()).into());
            let low = u128::from(rng.next_u64());
            let near = [0x2001_u16, 0x2002, 0x3fff, 0x0064, 0x2a00, 0xfe80][usize::try_from(rng.below(6)).unwrap()];
            let next = rng.next_u16() & [0xffff, 0x0fff, 0x000f][usize::try_from(rng.below(3)).unwrap()];
            agree(Ipv6Addr::from_bits(u128::from(near) << 112 | u128::from(next) << 96 | low).into());
            agree(Ipv6Addr::from_bits(u128::from(rng.next_u64()) << 64 | low).into());
        }
        for edge in 0..=u16::MAX {
            agree(Ipv4Addr::from_bits(u32::from(edge) << 16).into());
            agree(Ipv4Addr::from_bits(u32::from(edge) << 16 | 0xffff).into());
            agree(Ipv6Addr::from_bits(u128::from(edge) << 112).into());
        }
    }
}
