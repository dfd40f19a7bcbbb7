//! Who a client is behind a reverse proxy: the PROXY protocol's header in front of a connection (versions 1 and 2), and
//! `X-Forwarded-For` of a request. Only believed when it comes from an address of `trusted_proxies`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::http::HeaderMap;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::config::Cidr;

/// What the operator says about proxies.
#[derive(Clone, Debug, Default)]
pub(super) struct Proxies {
    /// Whose word counts.
    pub(super) trusted: Vec<Cidr>,
    /// Whether they put a PROXY header in front of each connection.
    pub(super) header: bool,
}

/// First bytes of a version 2 header.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Longest version 1 header with its line end.
const LONGEST_LINE: usize = 107;
/// Longest version 2 header after its fixed part: addresses and a few notes of the proxy.
const LONGEST_NOTES: u16 = 2_048;
/// Entries of `X-Forwarded-For` that are looked at.
const MOST_HOPS: usize = 32;

impl Proxies {
    /// Whether this is one of the proxies.
    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|block| block.0.contains(&address))
    }

    /// Whose connection it is that comes from `peer`: reads the PROXY header where one has to be there.
    ///
    /// # Errors
    /// When there is none, or it is no such header.
    pub(super) async fn origin(&self, stream: &mut (impl AsyncRead + Unpin), peer: IpAddr) -> io::Result<IpAddr> {
        if !self.header || !self.trusts(peer) {
            return Ok(peer);
        }
        Ok(read_header(stream).await?.unwrap_or(peer))
    }

    /// The client a proxy at `peer` asks for; `None`: `peer` itself is the client, or does not say.
    ///
    /// From the right, as each proxy adds whom it saw: the first that is no proxy of ours. What stands left of it was
    /// written by somebody nobody vouches for.
    pub(super) fn forwarded(&self, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        if !self.trusts(peer) {
            return None;
        }
        let lines: Vec<&str> =
            headers.get_all("x-forwarded-for").iter().filter_map(|line| line.to_str().ok()).collect();
        let hops = lines.iter().rev().flat_map(|line| line.rsplit(',')).take(MOST_HOPS);
        let mut last = None;
        for hop in hops {
            let Some(address) = hop_address(hop.trim()) else { break };
            last = Some(address);
            if !self.trusts(address) {
                break;
            }
        }
        last
    }
}

/// An entry of `X-Forwarded-For`: an address, by some proxies with a port.
fn hop_address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Some(address.ip().to_canonical());
    }
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// Read a PROXY header, and not a byte more. `None`: the proxy speaks for itself, as for a health check.
async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    let mut start = [0; SIGNATURE.len()];
    stream.read_exact(&mut start).await?;
    if start == SIGNATURE {
        let mut fixed = [0; 4];
        stream.read_exact(&mut fixed).await?;
        let [command, family, high, low] = fixed;
        let length = u16::from_be_bytes([high, low]);
        if length > LONGEST_NOTES {
            return Err(wrong());
        }
        let mut rest = vec![0; usize::from(length)];
        stream.read_exact(&mut rest).await?;
        return parse_v2(command, family, &rest).ok_or_else(wrong);
    }
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() == LONGEST_LINE {
            return Err(wrong());
        }
        line.push(stream.read_u8().await?);
    }
    parse_v1(&line).ok_or_else(wrong)
}

fn wrong() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no PROXY header")
}

/// A version 1 line; the outer `None` when it is none, the inner one for `UNKNOWN`.
fn parse_v1(line: &[u8]) -> Option<Option<IpAddr>> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix("\r\n")?;
    let mut words = line.strip_prefix("PROXY ")?.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(None);
    }
    let source: IpAddr = words.next()?.parse().ok()?;
    let target: IpAddr = words.next()?.parse().ok()?;
    let ports = words.by_ref().take(2).filter(|port| port.parse::<u16>().is_ok()).count();
    let fits = match family {
        "TCP4" => source.is_ipv4() && target.is_ipv4(),
        "TCP6" => source.is_ipv6() && target.is_ipv6(),
        _ => false,
    };
    (fits && ports == 2 && words.next().is_none()).then(|| Some(source.to_canonical()))
}

/// The rest of a version 2 header; the outer `None` when it is none, the inner one for the proxy's own connections.
fn parse_v2(command: u8, family: u8, rest: &[u8]) -> Option<Option<IpAddr>> {
    match (command, family >> 4) {
        (0x20, _) | (0x21, 0 | 3) => Some(None),
        (0x21, 1) => {
            // Both addresses and both ports have to be there, though only the first address matters.
            let bytes: [u8; 4] = rest.get(..12)?.get(..4)?.try_into().ok()?;
            Some(Some(Ipv4Addr::from(bytes).into()))
        }
        (0x21, 2) => {
            let bytes: [u8; 16] = rest.get(..36)?.get(..16)?.try_into().ok()?;
            Some(Some(IpAddr::from(Ipv6Addr::from(bytes)).to_canonical()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may fail by panicking")]

    use super::*;

    const CLIENT: &str = "203.0.113.7";

    fn proxies() -> Proxies {
        Proxies { trusted: vec!["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()], header: true }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    async fn origin(bytes: &[u8], peer: &str) -> (io::Result<IpAddr>, Vec<u8>) {
        let mut stream = bytes;
        let origin = proxies().origin(&mut stream, ip(peer)).await;
        (origin, stream.to_vec())
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        bytes.extend(rest);
        bytes.extend(b"GET /");
        bytes
    }

    #[tokio::test]
    async fn headers_of_both_versions_name_the_client_and_leave_the_request() {
        let v4 = [203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x34, 0, 80];
        let v6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1], &[0; 20]].concat();
        let noted = [&v4[..], &[4, 0, 2, b'h', b'i']].concat();
        for (bytes, expected) in [
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 56324 443\r\nGET /".to_vec(), CLIENT),
            (b"PROXY TCP6 2001:db8::1 ::1 56324 443\r\nGET /".to_vec(), "2001:db8::1"),
            (b"PROXY UNKNOWN\r\nGET /".to_vec(), "10.0.0.9"),
            (v2(0x21, 0x11, &v4), CLIENT),
            (v2(0x21, 0x11, &noted), CLIENT),
            (v2(0x21, 0x21, &v6), "2001:db8::1"),
            (v2(0x20, 0x00, &[]), "10.0.0.9"),
        ] {
            let (origin, rest) = origin(&bytes, "10.0.0.9").await;
            assert_eq!(origin.unwrap(), ip(expected));
            assert_eq!(rest, b"GET /");
        }
    }

    #[tokio::test]
    async fn a_proxy_without_a_header_is_cut_and_a_stranger_with_one_is_not_believed() {
        let long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
        for bytes in [
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 ::1 1 2\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 10.0.0.1 1 70000\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7\r\nxx".to_vec(),
            long,
            v2(0x21, 0x11, &[1, 2, 3]),
            v2(0x31, 0x11, &[0; 12]),
            v2(0x21, 0x11, &[0; 3_000]),
            b"PROX".to_vec(),
        ] {
            assert!(origin(&bytes, "10.0.0.9").await.0.is_err(), "{bytes:?}");
        }
        let (origin, rest) = origin(b"PROXY TCP4 10.0.0.1 10.0.0.1 1 2\r\n", "192.0.2.1").await;
        assert_eq!(origin.unwrap(), ip("192.0.2.1"));
        assert!(rest.starts_with(b"PROXY"), "left for HTTP to refuse");
    }

    #[test]
    fn forwarded_addresses_count_from_the_right_and_only_from_proxies() {
        let forwarded = |peer: &str, lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", line.parse().unwrap());
            }
            proxies().forwarded(ip(peer), &headers)
        };
        assert_eq!(forwarded("10.0.0.1", &[CLIENT]), Some(ip(CLIENT)));
        assert_eq!(forwarded("10.0.0.1", &["6.6.6.6, 203.0.113.7, 10.0.0.2"]), Some(ip(CLIENT)), "never the leftmost");
        assert_eq!(forwarded("10.0.0.1", &["6.6.6.6", "203.0.113.7"]), Some(ip(CLIENT)), "lines are one list");
        assert_eq!(forwarded("10.0.0.1", &["203.0.113.7:4433"]), Some(ip(CLIENT)));
        assert_eq!(forwarded("::1", &["[2001:db8::1]:4433"]), Some(ip("2001:db8::1")));
        assert_eq!(forwarded("::ffff:10.0.0.1", &[CLIENT]), Some(ip(CLIENT)), "IPv4 on an IPv6 socket");
        assert_eq!(forwarded("10.0.0.1", &["nonsense, 10.0.0.2"]), Some(ip("10.0.0.2")));
        assert_eq!(forwarded("10.0.0.1", &[]), None);
        assert_eq!(forwarded("192.0.2.1", &[CLIENT]), None, "no proxy of ours");
    }
}
