//! One ICE connectivity check, as the client end sends it (RFC 8445, RFC 8489): a Binding request with the credentials of
//! an offer, and what its answer says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aws_lc_rs::hmac;

const MAGIC_COOKIE: u32 = 0x2112_a442;
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PRIORITY: u16 = 0x0024;
const FINGERPRINT: u16 = 0x8028;
const ICE_CONTROLLING: u16 = 0x802a;
const FINGERPRINT_XOR: u32 = 0x5354_554e;

/// A check for the far end with these credentials.
pub(super) fn check(ufrag: &str, password: &str, transaction: [u8; 12]) -> Vec<u8> {
    let mut packet = Vec::new();
    packet.extend_from_slice(&BINDING_REQUEST.to_be_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
    packet.extend_from_slice(&transaction);
    attribute(&mut packet, USERNAME, format!("{ufrag}:doctor").as_bytes());
    attribute(&mut packet, PRIORITY, &1_u32.to_be_bytes());
    attribute(&mut packet, ICE_CONTROLLING, &[0; 8]);
    // Both count as being the last when they are computed.
    set_length(&mut packet, 24);
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    let tag = hmac::sign(&key, &packet);
    attribute(&mut packet, MESSAGE_INTEGRITY, tag.as_ref());
    set_length(&mut packet, 8);
    let sum = crc32(&packet) ^ FINGERPRINT_XOR;
    attribute(&mut packet, FINGERPRINT, &sum.to_be_bytes());
    packet
}

/// A request any STUN or TURN server answers, be it with a refusal: Allocate without credentials (RFC 8656, 7.1).
pub(super) fn allocate(transaction: [u8; 12]) -> Vec<u8> {
    let mut packet = vec![0x00, 0x03, 0, 0];
    packet.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
    packet.extend_from_slice(&transaction);
    // REQUESTED-TRANSPORT: UDP.
    attribute(&mut packet, 0x0019, &[17, 0, 0, 0]);
    set_length(&mut packet, 0);
    packet
}

/// Whether it is an answer to this transaction, of whatever kind.
pub(super) fn answers(packet: &[u8], transaction: [u8; 12]) -> bool {
    packet.get(4..8) == Some(MAGIC_COOKIE.to_be_bytes().as_slice()) && packet.get(8..20) == Some(transaction.as_slice())
}

/// The address a success says it came from.
pub(super) fn mapped(packet: &[u8], transaction: [u8; 12]) -> Option<SocketAddr> {
    if !answers(packet, transaction) || packet.get(..2)? != BINDING_SUCCESS.to_be_bytes() {
        return None;
    }
    let mut rest = packet.get(20..)?;
    while let Some((head, after)) = rest.split_at_checked(4) {
        let [k0, k1, n0, n1] = *head else { return None };
        let size = usize::from(u16::from_be_bytes([n0, n1]));
        let value = after.get(..size)?;
        if u16::from_be_bytes([k0, k1]) == XOR_MAPPED_ADDRESS {
            return unmasked(value, transaction);
        }
        rest = after.get(size.next_multiple_of(4)..)?;
    }
    None
}

fn unmasked(value: &[u8], transaction: [u8; 12]) -> Option<SocketAddr> {
    let (&[_, family, p0, p1], address) = value.split_first_chunk()?;
    let cookie = MAGIC_COOKIE.to_be_bytes();
    let port = u16::from_be_bytes([p0, p1]) ^ 0x2112;
    let mask: Vec<u8> = cookie.iter().chain(&transaction).copied().collect();
    let plain: Vec<u8> = address.iter().zip(&mask).map(|(a, m)| a ^ m).collect();
    let ip = match family {
        1 => IpAddr::V4(Ipv4Addr::from(*plain.first_chunk::<4>()?)),
        2 => IpAddr::V6(Ipv6Addr::from(*plain.first_chunk::<16>()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn attribute(packet: &mut Vec<u8>, kind: u16, value: &[u8]) {
    packet.extend_from_slice(&kind.to_be_bytes());
    packet.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    packet.extend_from_slice(value);
    packet.resize(packet.len().next_multiple_of(4), 0);
}

/// As if `more` bytes followed.
fn set_length(packet: &mut [u8], more: usize) {
    let length = u16::try_from(packet.len() + more - 20).unwrap_or(u16::MAX).to_be_bytes();
    if let Some(slot) = packet.get_mut(2..4) {
        slot.copy_from_slice(&length);
    }
}

/// CRC-32 of ITU V.42, bit by bit: there are a hundred bytes.
fn crc32(bytes: &[u8]) -> u32 {
    let fold = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    };
    !bytes.iter().fold(!0, fold)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may fail by panicking")]

    use super::*;

    #[test]
    fn the_sum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn addresses_are_read_from_an_answer() {
        let transaction = [7; 12];
        let mut answer = vec![1, 1, 0, 12];
        answer.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
        answer.extend_from_slice(&transaction);
        answer.extend_from_slice(&[
            0,
            0x20,
            0,
            8,
            0,
            1,
            0x21 ^ 0x1e,
            0x12 ^ 0xc8,
            192 ^ 0x21,
            0x12,
            2 ^ 0xa4,
            1 ^ 0x42,
        ]);
        assert_eq!(mapped(&answer, transaction), Some("192.0.2.1:7880".parse().unwrap()));
        assert_eq!(mapped(&answer, [8; 12]), None);
        for cut in 0..answer.len() {
            assert_eq!(mapped(answer.get(..cut).unwrap(), transaction), None);
        }
    }
}
