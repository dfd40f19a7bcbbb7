//! Collects the first ClientHello, which may come in fragments, to see which SRTP profiles the client offers.
//!
//! The DTLS library must be given its configuration before the first byte, so the datagrams are kept until the message
//! is whole and then handed over as they came. Chromium's hello with a post-quantum key share takes two.

use crate::transport::srtp::Profile;

/// Longest ClientHello taken; real ones have at most 2 kB.
const MAX_HELLO: usize = 8 * 1024;
/// Datagrams kept until it is whole; beyond, the client's retransmission starts it afresh.
const MAX_DATAGRAMS: usize = 24;

const RECORD_HEADER: usize = 13;
const MESSAGE_HEADER: usize = 12;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const USE_SRTP: u16 = 14;

/// A ClientHello being put together.
#[derive(Debug, Default)]
pub(super) struct HelloCollector {
    datagrams: Vec<Vec<u8>>,
    message: Vec<u8>,
    /// Which bytes of `message` have arrived, as sorted ranges that do not touch.
    have: Vec<(usize, usize)>,
}

impl HelloCollector {
    /// Take a datagram. When the ClientHello is whole, gives the profile to negotiate and all datagrams so far.
    pub(super) fn push(&mut self, datagram: &[u8]) -> Option<(Profile, Vec<Vec<u8>>)> {
        if self.datagrams.len() >= MAX_DATAGRAMS {
            *self = Self::default();
        }
        let mut useful = false;
        for record in Records::new(datagram) {
            if record.kind == HANDSHAKE && record.epoch == 0 {
                useful |= self.add_messages(record.body);
            }
        }
        if !useful {
            return None;
        }
        self.datagrams.push(datagram.to_vec());
        let whole = matches!(self.have.as_slice(), [(0, end)] if *end == self.message.len());
        if !whole {
            return None;
        }
        let profile = choose(&self.message);
        Some((profile, core::mem::take(self).datagrams))
    }

    /// Add the fragments of message 0 in a record; false when there are none.
    fn add_messages(&mut self, mut body: &[u8]) -> bool {
        let mut found = false;
        while let Some((header, rest)) = body.split_first_chunk::<MESSAGE_HEADER>() {
            let [kind, l0, l1, l2, q0, q1, o0, o1, o2, n0, n1, n2] = *header;
            let (length, offset, size) = (u24(l0, l1, l2), u24(o0, o1, o2), u24(n0, n1, n2));
            let Some((fragment, rest)) = rest.split_at_checked(size) else { return found };
            body = rest;
            let first_message = kind == CLIENT_HELLO && u16::from_be_bytes([q0, q1]) == 0;
            if !first_message || length > MAX_HELLO || offset + size > length {
                continue;
            }
            if self.message.len() != length {
                *self = Self { message: vec![0; length], ..Self::default() };
            }
            if let Some(place) = self.message.get_mut(offset..offset + size) {
                place.copy_from_slice(fragment);
                self.cover(offset, offset + size);
                found = true;
            }
        }
        found
    }

    fn cover(&mut self, start: usize, end: usize) {
        let (mut start, mut end) = (start, end);
        self.have.retain(|range| {
            let apart = range.1 < start || end < range.0;
            if !apart {
                start = start.min(range.0);
                end = end.max(range.1);
            }
            apart
        });
        self.have.push((start, end));
    }
}

/// GCM whenever the client offers it. One that offers nothing of ours gets an alert from the DTLS library.
fn choose(hello: &[u8]) -> Profile {
    let offers_gcm = use_srtp(hello).is_some_and(|profiles| profiles.chunks_exact(2).any(|p| p == [0, 7]));
    if offers_gcm { Profile::AeadAes128Gcm } else { Profile::Aes128CmSha1 }
}

/// The list of SRTP profiles of a ClientHello body (RFC 6347, 4.2.1; RFC 5764, 4.1.1).
fn use_srtp(hello: &[u8]) -> Option<&[u8]> {
    // Version and random.
    let rest = hello.get(34..)?;
    let (_session, rest) = vector8(rest)?;
    let (_cookie, rest) = vector8(rest)?;
    let (_suites, rest) = vector16(rest)?;
    let (_compression, rest) = vector8(rest)?;
    let (mut extensions, _) = vector16(rest)?;
    while let Some((kind, rest)) = extensions.split_first_chunk() {
        let (value, rest) = vector16(rest)?;
        extensions = rest;
        if u16::from_be_bytes(*kind) == USE_SRTP {
            return vector16(value).map(|(profiles, _)| profiles);
        }
    }
    None
}

fn vector8(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

fn vector16(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

fn u24(a: u8, b: u8, c: u8) -> usize {
    (usize::from(a) << 16) | (usize::from(b) << 8) | usize::from(c)
}

/// A DTLS 1.2 record of a datagram (RFC 6347, 4.1).
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) kind: u8,
    pub(super) epoch: u16,
    pub(super) body: &'a [u8],
    /// Header and body.
    pub(super) whole: &'a [u8],
}

/// The records of a datagram; ends at the first that is cut off.
#[derive(Clone, Debug)]
pub(super) struct Records<'a>(&'a [u8]);

impl<'a> Records<'a> {
    pub(super) const fn new(datagram: &'a [u8]) -> Self {
        Self(datagram)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let &[kind, _, _, e0, e1, _, _, _, _, _, _, n0, n1] = self.0.first_chunk::<RECORD_HEADER>()?;
        let end = RECORD_HEADER + usize::from(u16::from_be_bytes([n0, n1]));
        let (whole, rest) = self.0.split_at_checked(end)?;
        self.0 = rest;
        Some(Record { kind, epoch: u16::from_be_bytes([e0, e1]), body: whole.get(RECORD_HEADER..)?, whole })
    }
}
