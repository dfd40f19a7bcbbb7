//! The part of STUN (RFC 8489) an ICE-lite agent needs: read Binding requests, write their answers.
//!
//! Own, because a check may come from anyone: it reads a borrowed datagram once, allocates nothing and stops at the
//! first thing wrong. Nothing is trusted before [`Request::is_authentic`] said so.

use core::net::{IpAddr, SocketAddr};

use aws_lc_rs::hmac;

use crate::base::DropReason;

/// Fixed bits of each STUN message (RFC 8489, 5).
const MAGIC_COOKIE: u32 = 0x2112_a442;
const HEADER: usize = 20;
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
const ICE_CONTROLLED: u16 = 0x8029;

/// A check of a browser has about eight attributes; what has more than this is no check.
const MAX_ATTRIBUTES: usize = 24;
/// Longest USERNAME we look at: two ufrags of 256 and a colon (RFC 8445, 5.3).
const MAX_USERNAME: usize = 513;
const INTEGRITY_SIZE: usize = 20;
const FINGERPRINT_XOR: u32 = 0x5354_554e;

/// A Binding request that parses and carries a right FINGERPRINT. Not authentic yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    packet: &'a [u8],
    transaction: [u8; 12],
    username: Option<&'a str>,
    /// Where MESSAGE-INTEGRITY starts and its value.
    integrity: Option<(usize, &'a [u8])>,
    /// The far end asks for this route to be used (RFC 8445, 8.1.1).
    pub(crate) use_candidate: bool,
    /// The far end thinks it is controlled, as we are (RFC 8445, 7.3.1.1).
    pub(crate) controlled: bool,
}

/// Read a datagram as a Binding request.
///
/// # Errors
/// `MalformedStun` for what does not parse or whose FINGERPRINT is wrong or missing, `StunRefused` for another method
/// or class.
pub(crate) fn parse(packet: &[u8]) -> Result<Request<'_>, DropReason> {
    const BAD: DropReason = DropReason::MalformedStun;
    let header: &[u8; HEADER] = packet.first_chunk().ok_or(BAD)?;
    let [t0, t1, l0, l1, c0, c1, c2, c3, transaction @ ..] = *header;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    if u32::from_be_bytes([c0, c1, c2, c3]) != MAGIC_COOKIE || packet.len() != HEADER + length || length % 4 != 0 {
        return Err(BAD);
    }
    if u16::from_be_bytes([t0, t1]) != BINDING_REQUEST {
        return Err(DropReason::StunRefused);
    }
    let mut request =
        Request { packet, transaction, username: None, integrity: None, use_candidate: false, controlled: false };
    let mut at = HEADER;
    for _ in 0..MAX_ATTRIBUTES {
        let Some(&[k0, k1, n0, n1]) = packet.get(at..).and_then(|rest| rest.first_chunk()) else { return Err(BAD) };
        let size = usize::from(u16::from_be_bytes([n0, n1]));
        let value = packet.get(at + 4..at + 4 + size).ok_or(BAD)?;
        match u16::from_be_bytes([k0, k1]) {
            // Must be the last (RFC 8489, 14.7). A cheap sieve for what is no STUN or damaged; required of checks
            // (RFC 8445, 7.1), so nothing without it is worth an HMAC.
            FINGERPRINT => {
                let ours = crc32(packet.get(..at).ok_or(BAD)?) ^ FINGERPRINT_XOR;
                let whole = at + 8 == packet.len();
                return if whole && value == ours.to_be_bytes() { Ok(request) } else { Err(BAD) };
            }
            // What stands between MESSAGE-INTEGRITY and FINGERPRINT is not covered by it and is ignored (14.5).
            _ if request.integrity.is_some() => {}
            USERNAME if request.username.is_none() && size <= MAX_USERNAME => {
                request.username = Some(core::str::from_utf8(value).map_err(|_| BAD)?);
            }
            MESSAGE_INTEGRITY if size == INTEGRITY_SIZE => request.integrity = Some((at, value)),
            USE_CANDIDATE => request.use_candidate = true,
            ICE_CONTROLLED => request.controlled = true,
            _ => {}
        }
        at += 4 + size.next_multiple_of(4);
    }
    Err(BAD)
}

impl<'a> Request<'a> {
    /// The ufrags of USERNAME: the one of the agent asked, then the one of the asker (RFC 8445, 7.2.2).
    pub(crate) fn ice_username(&self) -> Option<(&'a str, &'a str)> {
        self.username?.split_once(':')
    }

    /// Whether MESSAGE-INTEGRITY was made with this password's key (RFC 8489, 14.5). Compared in constant time.
    pub(crate) fn is_authentic(&self, key: &hmac::Key) -> bool {
        let Some((at, value)) = self.integrity else { return false };
        let Some(covered) = self.packet.get(4..at) else { return false };
        let Some(kind) = self.packet.first_chunk::<2>() else { return false };
        // The length field counts as if MESSAGE-INTEGRITY were the last attribute.
        let Ok(length) = u16::try_from(at + 4 + INTEGRITY_SIZE - HEADER) else { return false };
        let mut context = hmac::Context::with_key(key);
        context.update(kind);
        context.update(&length.to_be_bytes());
        context.update(covered);
        let tag = context.sign();
        aws_lc_rs::constant_time::verify_slices_are_equal(tag.as_ref(), value).is_ok()
    }

    /// Append the success answer: XOR-MAPPED-ADDRESS, MESSAGE-INTEGRITY, FINGERPRINT.
    pub(crate) fn write_success(&self, from: SocketAddr, key: &hmac::Key, out: &mut Vec<u8>) {
        let start = self.write_header(BINDING_SUCCESS, out);
        let port = (from.port() ^ 0x2112).to_be_bytes();
        let cookie = MAGIC_COOKIE.to_be_bytes();
        match from.ip() {
            IpAddr::V4(ip) => {
                attribute(out, XOR_MAPPED_ADDRESS, 8);
                out.extend_from_slice(&[0, 1]);
                out.extend_from_slice(&port);
                out.extend(ip.octets().iter().zip(cookie).map(|(a, b)| a ^ b));
            }
            IpAddr::V6(ip) => {
                attribute(out, XOR_MAPPED_ADDRESS, 20);
                out.extend_from_slice(&[0, 2]);
                out.extend_from_slice(&port);
                let mask = cookie.iter().chain(&self.transaction);
                out.extend(ip.octets().iter().zip(mask).map(|(a, b)| a ^ b));
            }
        }
        seal(out, start, key);
    }

    /// Append a Role Conflict error answer (RFC 8445, 7.3.1.1): the far end must take the controlling role.
    pub(crate) fn write_role_conflict(&self, key: &hmac::Key, out: &mut Vec<u8>) {
        let start = self.write_header(BINDING_ERROR, out);
        // Class 4, number 87, no reason phrase: it would only make the answer larger.
        attribute(out, ERROR_CODE, 4);
        out.extend_from_slice(&[0, 0, 4, 87]);
        seal(out, start, key);
    }

    fn write_header(&self, kind: u16, out: &mut Vec<u8>) -> usize {
        let start = out.len();
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
        out.extend_from_slice(&self.transaction);
        start
    }
}

/// The HMAC key of a short-term password (RFC 8489, 9.1.1).
pub(crate) fn integrity_key(password: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes())
}

fn attribute(out: &mut Vec<u8>, kind: u16, size: u16) {
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&size.to_be_bytes());
}

/// Append MESSAGE-INTEGRITY and FINGERPRINT to the message that starts at `start`.
fn seal(out: &mut Vec<u8>, start: usize, key: &hmac::Key) {
    set_length(out, start, 4 + INTEGRITY_SIZE);
    let tag = hmac::sign(key, out.get(start..).unwrap_or_default());
    attribute(out, MESSAGE_INTEGRITY, 20);
    out.extend_from_slice(tag.as_ref());
    set_length(out, start, 8);
    let crc = crc32(out.get(start..).unwrap_or_default()) ^ FINGERPRINT_XOR;
    attribute(out, FINGERPRINT, 4);
    out.extend_from_slice(&crc.to_be_bytes());
}

/// Set the length field to what is there plus `more` bytes to come.
fn set_length(out: &mut [u8], start: usize, more: usize) {
    let length = u16::try_from(out.len() + more - start - HEADER).unwrap_or(u16::MAX);
    if let Some(field) = out.get_mut(start + 2..start + 4) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

/// CRC-32 of ISO 3309, by nibbles: 64 bytes of table, and checks are short and rare.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 16] = {
        let mut table: [u32; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        let mut i = 0;
        while i < 16 {
            let mut crc = table[i];
            let mut bit = 0;
            while bit < 4 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    let step = |crc: u32, nibble: u32| (crc >> 4) ^ TABLE[((crc ^ nibble) & 15) as usize];
    !bytes.iter().fold(!0, |crc, byte| {
        let byte = u32::from(*byte);
        step(step(crc, byte), byte >> 4)
    })
}

#[cfg(test)]
mod tests;
