//! Asks STUN servers (RFC 8489, Binding) under which IPv4 address this machine is seen from outside. Once, at the start,
//! and only where the operator wants it and names the servers.

use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use crate::config::ConfigError;

const MAGIC_COOKIE: u32 = 0x2112_a442;
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const MAPPED_ADDRESS: u16 = 0x0001;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const HEADER: usize = 20;
const DEFAULT_PORT: u16 = 3478;
/// How long to wait for an answer before asking the next time, or the next server.
const PATIENCE: Duration = Duration::from_millis(700);
/// How often each server is asked: datagrams get lost.
const TRIES: usize = 3;

/// The address the first server that answers sees. Blocks for some seconds at worst.
///
/// # Errors
/// When no server answers.
pub(super) fn discover(servers: &[String]) -> Result<Ipv4Addr, ConfigError> {
    let found = servers.iter().filter_map(|server| ask(server)).find(|ip| !ip.is_unspecified());
    found.ok_or_else(|| {
        ConfigError::new(
            "`rtc.use_external_ip`: no server of `rtc.stun_servers` answers over IPv4; name others, or set `rtc.node_ip`",
        )
    })
}

fn ask(server: &str) -> Option<Ipv4Addr> {
    let resolved = match server.to_socket_addrs() {
        Ok(addresses) => addresses.collect::<Vec<_>>(),
        Err(_) => (server, DEFAULT_PORT).to_socket_addrs().ok()?.collect(),
    };
    let server = resolved.into_iter().find(SocketAddr::is_ipv4)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(server).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut transaction = [0; 12];
    aws_lc_rs::rand::fill(&mut transaction).ok()?;
    let mut request = Vec::with_capacity(HEADER);
    request.extend_from_slice(&BINDING_REQUEST.to_be_bytes());
    request.extend_from_slice(&[0, 0]);
    request.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
    request.extend_from_slice(&transaction);
    let mut buffer = [0; 1_500];
    for _ in 0..TRIES {
        socket.send(&request).ok()?;
        // Only the server's datagrams come in; a late answer to an earlier try is as good.
        if let Ok(length) = socket.recv(&mut buffer)
            && let Some(ip) = buffer.get(..length).and_then(|answer| read(answer, &transaction))
        {
            return Some(ip);
        }
    }
    None
}

/// The IPv4 address in an answer to our request.
fn read(answer: &[u8], transaction: &[u8; 12]) -> Option<Ipv4Addr> {
    let (header, mut rest) = answer.split_first_chunk::<HEADER>()?;
    let [t0, t1, _, _, cookie @ .., _, _, _, _, _, _, _, _, _, _, _, _] = header;
    if u16::from_be_bytes([*t0, *t1]) != BINDING_SUCCESS
        || u32::from_be_bytes(*cookie) != MAGIC_COOKIE
        || header.last_chunk::<12>() != Some(transaction)
    {
        return None;
    }
    let mut plain = None;
    while let Some(([k0, k1, l0, l1], after)) = rest.split_first_chunk::<4>() {
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        let value = after.get(..length)?;
        if let Some(&[_, 1, _, _, a, b, c, d]) = value.first_chunk() {
            let bits = u32::from_be_bytes([a, b, c, d]);
            match u16::from_be_bytes([*k0, *k1]) {
                XOR_MAPPED_ADDRESS => return Some(Ipv4Addr::from_bits(bits ^ MAGIC_COOKIE)),
                // Servers of the first generation.
                MAPPED_ADDRESS => plain = Some(Ipv4Addr::from_bits(bits)),
                _ => {}
            }
        }
        rest = after.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    plain
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may fail by panicking")]

    use super::*;

    fn answer(transaction: &[u8], attributes: &[u8]) -> Vec<u8> {
        let length = u16::try_from(attributes.len()).unwrap().to_be_bytes();
        [&[1, 1], &length[..], &[0x21, 0x12, 0xa4, 0x42], transaction, attributes].concat()
    }

    /// 203.0.113.5 as both attributes have it.
    const XORED: &[u8] = &[0, 0x20, 0, 8, 0, 1, 0, 0, 203 ^ 0x21, 0x12, 113 ^ 0xa4, 5 ^ 0x42];
    const PLAIN: &[u8] = &[0, 1, 0, 8, 0, 1, 0, 0, 203, 0, 113, 5];

    #[test]
    fn reads_the_answer_to_its_own_request_only() {
        let expected = Some(Ipv4Addr::new(203, 0, 113, 5));
        let software = [0x80, 0x22, 0, 3, b'a', b'b', b'c', 0];
        for attributes in [XORED, PLAIN, &[&software[..], PLAIN, XORED].concat()] {
            assert_eq!(read(&answer(&[7; 12], attributes), &[7; 12]), expected);
            assert_eq!(read(&answer(&[8; 12], attributes), &[7; 12]), None);
        }
        let whole = answer(&[7; 12], XORED);
        for cut in 0..whole.len() {
            assert_eq!(read(&whole[..cut], &[7; 12]), None, "cut at {cut}");
        }
    }

    #[test]
    fn asks_the_next_server_when_one_does_not_answer() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = server.local_addr().unwrap().port();
        let serving = std::thread::spawn(move || {
            let mut buffer = [0; 100];
            let (length, from) = server.recv_from(&mut buffer).unwrap();
            server.send_to(&answer(&buffer[8..length], XORED), from).unwrap();
        });
        let servers = ["no such host:1".to_owned(), format!("127.0.0.1:{port}")];
        assert_eq!(discover(&servers).unwrap(), Ipv4Addr::new(203, 0, 113, 5));
        serving.join().unwrap();
        assert!(discover(&[]).unwrap_err().to_string().contains("rtc.node_ip"));
    }
}
