//! Server names of the federation and the addresses behind them (Matrix spec, server names and server discovery).
//!
//! A server name arrives from a client and decides whom we ask: it is an attacker's choice. Parsing is strict, and every
//! address that a name leads to is held against [`is_public`] before a packet goes there.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A parsed server name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerName {
    host: Host,
    port: Option<u16>,
}

/// The host part of a server name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A literal address: asked directly, never looked up.
    Ip(IpAddr),
    /// A DNS name in lower case.
    Dns(String),
}

/// Why a server name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerNameError {
    /// Longer than the specification allows.
    #[error("a server name has at most 255 characters")]
    TooLong,
    /// Not of the form host, host:port, IPv4 or an IPv6 address in brackets.
    #[error("a server name is a DNS name or an IP address, with an optional port")]
    Malformed,
}

impl ServerName {
    /// Parse a server name.
    ///
    /// # Errors
    /// When it is longer than 255 bytes or breaks the grammar of the specification.
    pub fn parse(text: &str) -> Result<Self, ServerNameError> {
        if text.len() > 255 {
            return Err(ServerNameError::TooLong);
        }
        let (host, port) = split_port(text)?;
        let host = if let Some(literal) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Host::Ip(IpAddr::V6(literal.parse().map_err(|_| ServerNameError::Malformed)?))
        } else if let Ok(v4) = host.parse::<Ipv4Addr>() {
            Host::Ip(IpAddr::V4(v4))
        } else if is_dns_name(host) {
            Host::Dns(host.to_ascii_lowercase())
        } else {
            return Err(ServerNameError::Malformed);
        };
        Ok(Self { host, port })
    }

    /// The host.
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// The port, when the name has one.
    pub const fn port(&self) -> Option<u16> {
        self.port
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(v6)) => write!(f, "[{v6}]")?,
            Host::Ip(IpAddr::V4(v4)) => write!(f, "{v4}")?,
            Host::Dns(name) => f.write_str(name)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// The server part of a user id (`@local:server`).
pub fn server_of_user(user: &str) -> Option<&str> {
    let (local, server) = user.strip_prefix('@')?.split_once(':')?;
    (!local.is_empty() || !server.is_empty()).then_some(server)
}

fn split_port(text: &str) -> Result<(&str, Option<u16>), ServerNameError> {
    let after_literal = text.find(']').map_or(0, |end| end + 1);
    let Some(colon) = text.get(after_literal..).and_then(|rest| rest.find(':')) else {
        return Ok((text, None));
    };
    let (host, port) = text.split_at(after_literal + colon);
    let digits = port.trim_start_matches(':');
    let is_port =
        port.len() - digits.len() == 1 && (1..=5).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let port = if is_port { digits.parse().ok().filter(|p| *p != 0) } else { None };
    port.map(|port| (host, Some(port))).ok_or(ServerNameError::Malformed)
}

fn is_dns_name(host: &str) -> bool {
    let label = |l: &str| !l.is_empty() && l.len() <= 63 && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    // A name of digits and dots only would be read as an address by some resolvers (1.1 is 1.0.0.1).
    let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    !numeric && !host.is_empty() && host.split('.').all(label)
}

/// Whether an address may be asked on behalf of somebody we do not trust: globally reachable unicast, and nothing that
/// maps, tunnels or translates to something that is not.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

const fn is_public_v4(a: Ipv4Addr) -> bool {
    let [b0, b1, b2, _] = a.octets();
    !(b0 == 0                                   // this network
        || b0 == 10                             // private
        || (b0 == 100 && b1 & 0xc0 == 64)       // carrier-grade NAT
        || b0 == 127                            // loopback
        || (b0 == 169 && b1 == 254)             // link-local, cloud metadata
        || (b0 == 172 && b1 & 0xf0 == 16)       // private
        || (b0 == 192 && b1 == 0 && b2 == 0)    // IETF protocol assignments
        || (b0 == 192 && b1 == 0 && b2 == 2)    // documentation
        || (b0 == 192 && b1 == 88 && b2 == 99)  // 6to4 relay
        || (b0 == 192 && b1 == 168)             // private
        || (b0 == 198 && b1 & 0xfe == 18)       // benchmarking
        || (b0 == 198 && b1 == 51 && b2 == 100) // documentation
        || (b0 == 203 && b1 == 0 && b2 == 113)  // documentation
        || b0 >= 224) // multicast, reserved, broadcast
}

fn is_public_v6(a: Ipv6Addr) -> bool {
    let s = a.segments();
    // Only 2000::/3 is handed out for global unicast; mapped, compatible, translated (64:ff9b::/96), unique local,
    // link-local, site-local and multicast addresses all lie outside of it.
    let global = s[0] & 0xe000 == 0x2000;
    let teredo_or_protocol = s[0] == 0x2001 && s[1] < 0x0200;
    let documentation = (s[0] == 0x2001 && s[1] == 0x0db8) || (s[0] == 0x3fff && s[1] < 0x1000);
    let six_to_four = s[0] == 0x2002;
    global && !teredo_or_protocol && !documentation && !six_to_four
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn parses_what_the_specification_allows() {
        for (text, port) in [
            ("matrix.org", None),
            ("matrix.org:8888", Some(8888)),
            ("1.2.3.4", None),
            ("1.2.3.4:1234", Some(1234)),
            ("[1234:5678::abcd]", None),
            ("[1234:5678::abcd]:5678", Some(5678)),
            ("localhost:18448", Some(18448)),
        ] {
            let name = ServerName::parse(text).unwrap();
            assert_eq!(name.port(), port, "{text}");
            assert_eq!(name.to_string(), text);
        }
        assert_eq!(ServerName::parse("EXAMPLE.org").unwrap().to_string(), "example.org");
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            ":80",
            "a b",
            "a/b",
            "a@b",
            "a?b",
            "a#b",
            "host:",
            "host:0",
            "host:65536",
            "host:+1",
            "host::1",
            "1.1",
            "2130706433",
            "[::1",
            "::1",
            "[1.2.3.4]",
            "host:80:80",
            "a..b",
            "host\n",
            "é.example",
            "user:pass@host",
            "%00",
        ] {
            assert!(ServerName::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(ServerName::parse(&"a".repeat(256)), Err(ServerNameError::TooLong));
    }

    #[test]
    fn knows_addresses_that_must_not_be_asked() {
        for text in [
            "127.0.0.1",
            "127.255.255.254",
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "198.18.0.1",
            "192.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "::1",
            "::",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "100::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1"] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn finds_the_server_of_a_user() {
        assert_eq!(server_of_user("@a:b.c:80"), Some("b.c:80"));
        assert_eq!(server_of_user("a:b"), None);
        assert_eq!(server_of_user("@a"), None);
    }
}
