//! Which addresses of this machine clients are told, and the ICE candidate lines made of them (RFC 8445, RFC 6544).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::external;
use crate::config::{Config, ConfigError};

/// Addresses told to clients, best first. Loopback comes last: Firefox never uses it.
///
/// # Errors
/// When none is left.
pub fn advertised(config: &Config) -> Result<Vec<IpAddr>, ConfigError> {
    let rtc = &config.rtc;
    let mut found = rtc.node_ips()?;
    let mut own = Vec::new();
    for (name, ip) in machine_addresses() {
        let taken = rtc.interfaces.takes(|entry| *entry == name) && rtc.ips.takes(|block| block.0.contains(&ip));
        if taken && is_reachable(ip) && !own.contains(&ip) {
            own.push(ip);
        }
    }
    // IPv4 first: where both work, networks that are half broken are half broken for IPv6.
    own.sort_by_key(IpAddr::is_ipv6);
    if rtc.use_external_ip {
        found.push(external::discover(&rtc.stun_servers)?.into());
        // IPv6 knows no NAT that would have to be asked about.
        found.extend(own.iter().filter(|ip| ip.is_ipv6()));
    }
    if found.is_empty() || rtc.advertise_internal_ip {
        found.extend(own);
    }
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|ip| seen.insert(*ip));
    if rtc.enable_loopback_candidate {
        found.push(std::net::Ipv4Addr::LOCALHOST.into());
    }
    if found.is_empty() {
        return Err(ConfigError::new(
            "this machine has no address clients could send media to: set `rtc.node_ip` \
             (or `rtc.enable_loopback_candidate` for tests on one machine)",
        ));
    }
    Ok(found)
}

/// All addresses this machine has now.
pub(super) fn machine() -> Vec<IpAddr> {
    machine_addresses().into_iter().map(|(_, ip)| ip).collect()
}

/// Addresses of all interfaces that are up, with the interface's name.
fn machine_addresses() -> Vec<(String, IpAddr)> {
    use nix::net::if_::InterfaceFlags;
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    interfaces
        .filter(|i| i.flags.contains(InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING))
        .filter_map(|i| {
            let address = i.address?;
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            let ip = v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))?;
            Some((i.interface_name, ip))
        })
        .collect()
}

/// Whether somebody else could send to it without knowing an interface.
fn is_reachable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_unspecified() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unspecified() && !is_link_local(ip),
    }
}

const fn is_link_local(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xffc0 == 0xfe80
}

/// Where UDP and ICE-TCP are bound so that all advertised addresses arrive: each family's wildcard, because answers to
/// a NAT's address come in on an address of ours that is not advertised.
pub fn bind_addresses(advertised: &[IpAddr]) -> Vec<IpAddr> {
    let mut bind = vec![IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)];
    if advertised.iter().any(IpAddr::is_ipv6) {
        bind.push(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    }
    bind
}

/// The candidate lines of a media thread: its UDP port on every address, then ICE-TCP on every address.
pub fn candidates(advertised: &[IpAddr], udp: &[SocketAddr], tcp: &[SocketAddr]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut add = |bound: &[SocketAddr], transport: &str, type_preference: u32, suffix: &str| {
        for ip in advertised {
            let Some(port) = bound.iter().find(|b| b.is_ipv4() == ip.is_ipv4()).map(SocketAddr::port) else {
                continue;
            };
            let number = u32::try_from(lines.len()).unwrap_or(u32::MAX);
            // RFC 8445, 5.1.2.1; the first address is preferred, component 1 is the only one.
            let local_preference = 65_535_u32.saturating_sub(number);
            let priority = (type_preference << 24) + (local_preference << 8) + 255;
            lines.push(format!("candidate:{} 1 {transport} {priority} {ip} {port} typ host{suffix}", number + 1));
        }
    };
    add(udp, "udp", 126, "");
    // Below everything over UDP: over TCP one lost packet holds up all behind it.
    add(tcp, "tcp", 90, " tcptype passive");
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may fail by panicking")]

    use super::*;

    #[test]
    fn candidates_name_the_port_of_their_family_and_prefer_udp() {
        let ips = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap(), "127.0.0.1".parse().unwrap()];
        let udp = ["0.0.0.0:7882".parse().unwrap(), "[::]:7892".parse().unwrap()];
        let tcp = ["0.0.0.0:7881".parse().unwrap()];
        let lines = candidates(&ips, &udp, &tcp);
        assert_eq!(lines[0], "candidate:1 1 udp 2130706431 192.0.2.1 7882 typ host");
        assert!(lines[1].ends_with("2001:db8::1 7892 typ host"));
        assert!(lines[2].ends_with("127.0.0.1 7882 typ host"));
        assert!(lines[3].ends_with("192.0.2.1 7881 typ host tcptype passive"));
        assert_eq!(lines.len(), 5, "no TCP over IPv6, where nothing listens");
        let priority = |line: &String| line.split(' ').nth(3).unwrap().parse::<u32>().unwrap();
        assert!(lines.windows(2).all(|pair| priority(&pair[0]) > priority(&pair[1])));
    }

    #[test]
    fn node_ip_replaces_the_machines_addresses() {
        let mut config = Config::dev();
        config.rtc.node_ip = "203.0.113.5, 2001:db8::5".to_owned();
        let shown: Vec<String> = advertised(&config).unwrap().iter().map(IpAddr::to_string).collect();
        assert_eq!(shown, ["203.0.113.5", "2001:db8::5", "127.0.0.1"]);
    }

    #[test]
    fn internal_addresses_follow_the_external_ones_where_wanted() {
        let mut config = Config::dev();
        let own = advertised(&config).unwrap();
        config.rtc.node_ip = "203.0.113.5".to_owned();
        config.rtc.advertise_internal_ip = true;
        let all = advertised(&config).unwrap();
        assert_eq!(all[0], "203.0.113.5".parse::<IpAddr>().unwrap());
        assert_eq!(all[1..], own);
    }

    #[test]
    fn excluded_blocks_are_left_out() {
        let mut config = Config::dev();
        config.rtc.ips.excludes = vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
        assert_eq!(advertised(&config).unwrap(), ["127.0.0.1".parse::<IpAddr>().unwrap()]);
        config.rtc.enable_loopback_candidate = false;
        assert!(advertised(&config).unwrap_err().to_string().contains("rtc.node_ip"));
    }
}
