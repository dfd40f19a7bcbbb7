//! STUN messages as TURN uses them (RFC 8489, 5 and 14; RFC 8656, 18): read requests and indications, write answers.
//!
//! Reads a borrowed datagram once and allocates nothing. Nothing read is trusted before [`Message::is_authentic`] said
//! so. The Binding requests of ICE are not read here but in [`crate::transport`].

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;

use aws_lc_rs::hmac;

const MAGIC_COOKIE: u32 = 0x2112_a442;
/// Bytes of a STUN header.
pub(super) const HEADER: usize = 20;
/// Attributes looked at; no request of a client has as many.
const MAX_ATTRIBUTES: usize = 24;
/// XOR-PEER-ADDRESS attributes taken from one request.
pub(super) const MAX_PEERS: usize = 8;
const INTEGRITY_SIZE: usize = 20;

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
const CHANNEL_NUMBER: u16 = 0x000c;
const LIFETIME: u16 = 0x000d;
const XOR_PEER_ADDRESS: u16 = 0x0012;
const DATA: u16 = 0x0013;
const REALM: u16 = 0x0014;
const NONCE: u16 = 0x0015;
const XOR_RELAYED_ADDRESS: u16 = 0x0016;
const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
const EVEN_PORT: u16 = 0x0018;
const REQUESTED_TRANSPORT: u16 = 0x0019;
/// What is handed over in process is never fragmented; outside, nothing can be promised.
pub(super) const DONT_FRAGMENT: u16 = 0x001a;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const RESERVATION_TOKEN: u16 = 0x0022;
/// Attributes from here on may be ignored (RFC 8489, 14).
const FIRST_OPTIONAL: u16 = 0x8000;

/// Methods (RFC 8656, 17).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Binding,
    Allocate,
    Refresh,
    CreatePermission,
    ChannelBind,
}

impl Method {
    const fn bits(self) -> u16 {
        match self {
            Self::Binding => 0x001,
            Self::Allocate => 0x003,
            Self::Refresh => 0x004,
            Self::CreatePermission => 0x008,
            Self::ChannelBind => 0x009,
        }
    }
}

/// What kind of message it is. Answers and what nobody sends to a server are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Request(Method),
    /// A Send indication.
    Send,
}

const DATA_INDICATION: u16 = 0x0017;

impl Kind {
    const fn read(bits: u16) -> Option<Self> {
        Some(match bits {
            0x0001 => Self::Request(Method::Binding),
            0x0003 => Self::Request(Method::Allocate),
            0x0004 => Self::Request(Method::Refresh),
            0x0008 => Self::Request(Method::CreatePermission),
            0x0009 => Self::Request(Method::ChannelBind),
            0x0016 => Self::Send,
            _ => return None,
        })
    }
}

/// A message that parses. Not authentic yet.
#[derive(Debug)]
pub(super) struct Message<'a> {
    packet: &'a [u8],
    pub(super) kind: Kind,
    pub(super) transaction: [u8; 12],
    pub(super) username: Option<&'a str>,
    pub(super) realm: Option<&'a [u8]>,
    pub(super) nonce: Option<&'a [u8]>,
    integrity: Option<(usize, &'a [u8])>,
    pub(super) lifetime: Option<Duration>,
    /// Protocol number of REQUESTED-TRANSPORT.
    pub(super) transport: Option<u8>,
    pub(super) wants_ipv6: Option<bool>,
    peers: [Option<SocketAddr>; MAX_PEERS],
    pub(super) channel: Option<u16>,
    pub(super) data: Option<&'a [u8]>,
    /// EVEN-PORT with a reservation, or RESERVATION-TOKEN: wishes for two ports.
    pub(super) wants_ports: bool,
    /// EVEN-PORT without a reservation.
    pub(super) wants_even: bool,
    /// DONT-FRAGMENT.
    pub(super) dont_fragment: bool,
    /// An attribute it must not be served without understanding.
    pub(super) unknown: Option<u16>,
    malformed: bool,
}

impl<'a> Message<'a> {
    /// Read a datagram. `None`: no STUN message, or one that is not for a server.
    pub(super) fn parse(packet: &'a [u8]) -> Option<Self> {
        let header: &[u8; HEADER] = packet.first_chunk()?;
        let [t0, t1, l0, l1, c0, c1, c2, c3, transaction @ ..] = *header;
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        if u32::from_be_bytes([c0, c1, c2, c3]) != MAGIC_COOKIE
            || packet.len() != HEADER + length
            || !length.is_multiple_of(4)
        {
            return None;
        }
        let mut message = Self {
            packet,
            kind: Kind::read(u16::from_be_bytes([t0, t1]))?,
            transaction,
            username: None,
            realm: None,
            nonce: None,
            integrity: None,
            lifetime: None,
            transport: None,
            wants_ipv6: None,
            peers: [None; MAX_PEERS],
            channel: None,
            data: None,
            wants_ports: false,
            wants_even: false,
            dont_fragment: false,
            unknown: None,
            malformed: false,
        };
        let mut at = HEADER;
        for _ in 0..MAX_ATTRIBUTES {
            if at == packet.len() {
                return Some(message);
            }
            let [k0, k1, n0, n1] = *packet.get(at..)?.first_chunk()?;
            let size = usize::from(u16::from_be_bytes([n0, n1]));
            let value = packet.get(at + 4..at + 4 + size)?;
            message.take(u16::from_be_bytes([k0, k1]), value, at)?;
            at += 4 + size.next_multiple_of(4);
        }
        None
    }

    fn take(&mut self, kind: u16, value: &'a [u8], at: usize) -> Option<()> {
        // What stands behind MESSAGE-INTEGRITY is not covered by it and is ignored (RFC 8489, 14.5).
        if self.integrity.is_some() {
            return Some(());
        }
        match (kind, value) {
            (USERNAME, value) => self.username = Some(core::str::from_utf8(value).ok()?),
            (REALM, value) => self.realm = Some(value),
            (NONCE, value) => self.nonce = Some(value),
            (MESSAGE_INTEGRITY, value) if value.len() == INTEGRITY_SIZE => self.integrity = Some((at, value)),
            (LIFETIME, &[a, b, c, d]) => {
                self.lifetime = Some(Duration::from_secs(u64::from(u32::from_be_bytes([a, b, c, d]))));
            }
            (REQUESTED_TRANSPORT, &[protocol, ..]) => self.transport = Some(protocol),
            (REQUESTED_ADDRESS_FAMILY, &[family @ (1 | 2), ..]) => self.wants_ipv6 = Some(family == 2),
            (CHANNEL_NUMBER, &[high, low, ..]) => self.channel = Some(u16::from_be_bytes([high, low])),
            (XOR_PEER_ADDRESS, value) => {
                let address = read_address(value, &self.transaction);
                let free = self.peers.iter_mut().find(|slot| slot.is_none());
                match (address, free) {
                    (Some(address), Some(slot)) => *slot = Some(address),
                    _ => self.malformed = true,
                }
            }
            (DATA, value) => self.data = Some(value),
            (EVEN_PORT, &[flags, ..]) if flags & 0x80 == 0 => self.wants_even = true,
            (EVEN_PORT | RESERVATION_TOKEN, _) => self.wants_ports = true,
            (DONT_FRAGMENT, _) => self.dont_fragment = true,
            (LIFETIME | REQUESTED_TRANSPORT | REQUESTED_ADDRESS_FAMILY | CHANNEL_NUMBER | MESSAGE_INTEGRITY, _) => {
                self.malformed = true
            }
            (other, _) if other < FIRST_OPTIONAL => self.unknown = self.unknown.or(Some(other)),
            _ => {}
        }
        Some(())
    }

    /// Whether an attribute could not be read; the request is to be refused with 400.
    pub(super) const fn is_malformed(&self) -> bool {
        self.malformed
    }

    /// Whether it carries MESSAGE-INTEGRITY.
    pub(super) const fn is_signed(&self) -> bool {
        self.integrity.is_some()
    }

    /// The addresses of XOR-PEER-ADDRESS.
    pub(super) fn peers(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.peers.iter().flatten().copied()
    }

    /// The only peer, or none when there is not exactly one.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        match self.peers {
            [Some(peer), None, ..] => Some(peer),
            _ => None,
        }
    }

    /// Whether MESSAGE-INTEGRITY was made with this key (RFC 8489, 14.5). Compared in constant time.
    pub(super) fn is_authentic(&self, key: &hmac::Key) -> bool {
        let Some((at, value)) = self.integrity else { return false };
        let (Some(covered), Some(kind)) = (self.packet.get(4..at), self.packet.first_chunk::<2>()) else {
            return false;
        };
        let Ok(length) = u16::try_from(at + 4 + INTEGRITY_SIZE - HEADER) else { return false };
        let mut context = hmac::Context::with_key(key);
        context.update(kind);
        context.update(&length.to_be_bytes());
        context.update(covered);
        aws_lc_rs::constant_time::verify_slices_are_equal(context.sign().as_ref(), value).is_ok()
    }
}

/// An answer or indication being written at the end of a buffer.
#[derive(Debug)]
pub(super) struct Writer<'b> {
    out: &'b mut Vec<u8>,
    start: usize,
    transaction: [u8; 12],
}

impl<'b> Writer<'b> {
    /// A success answer.
    pub(super) fn success(out: &'b mut Vec<u8>, method: Method, transaction: [u8; 12]) -> Self {
        Self::begin(out, method.bits() | 0x0100, transaction)
    }

    /// An error answer with ERROR-CODE and no reason phrase: it would only make the answer larger.
    pub(super) fn error(out: &'b mut Vec<u8>, method: Method, transaction: [u8; 12], code: u16) -> Self {
        let mut writer = Self::begin(out, method.bits() | 0x0110, transaction);
        let [_, class] = (code / 100).to_be_bytes();
        let [_, number] = (code % 100).to_be_bytes();
        writer.attribute(ERROR_CODE, &[0, 0, class, number]);
        writer
    }

    /// A Data indication.
    pub(super) fn data(out: &'b mut Vec<u8>, transaction: [u8; 12], from: SocketAddr, payload: &[u8]) -> Self {
        let mut writer = Self::begin(out, DATA_INDICATION, transaction);
        writer.address(XOR_PEER_ADDRESS, from);
        writer.attribute(DATA, payload);
        writer
    }

    fn begin(out: &'b mut Vec<u8>, kind: u16, transaction: [u8; 12]) -> Self {
        let start = out.len();
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
        out.extend_from_slice(&transaction);
        Self { out, start, transaction }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let Ok(size) = u16::try_from(value.len()) else { return };
        self.out.extend_from_slice(&kind.to_be_bytes());
        self.out.extend_from_slice(&size.to_be_bytes());
        self.out.extend_from_slice(value);
        self.out.resize(self.out.len() + value.len().next_multiple_of(4) - value.len(), 0);
    }

    fn address(&mut self, kind: u16, address: SocketAddr) {
        let [p0, p1] = (address.port() ^ 0x2112).to_be_bytes();
        match address.ip() {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = (ip.to_bits() ^ MAGIC_COOKIE).to_be_bytes();
                self.attribute(kind, &[0, 1, p0, p1, a, b, c, d]);
            }
            IpAddr::V6(ip) => {
                let mut value = [0; 20];
                let (head, tail) = value.split_at_mut(4);
                head.copy_from_slice(&[0, 2, p0, p1]);
                tail.copy_from_slice(&(ip.to_bits() ^ mask(&self.transaction)).to_be_bytes());
                self.attribute(kind, &value);
            }
        }
    }

    pub(super) fn mapped(mut self, address: SocketAddr) -> Self {
        self.address(XOR_MAPPED_ADDRESS, address);
        self
    }

    pub(super) fn relayed(mut self, address: SocketAddr) -> Self {
        self.address(XOR_RELAYED_ADDRESS, address);
        self
    }

    pub(super) fn lifetime(mut self, lifetime: Duration) -> Self {
        let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
        self.attribute(LIFETIME, &seconds.to_be_bytes());
        self
    }

    pub(super) fn challenge(mut self, realm: &[u8], nonce: &[u8]) -> Self {
        self.attribute(REALM, realm);
        self.attribute(NONCE, nonce);
        self
    }

    pub(super) fn unknown(mut self, attribute: u16) -> Self {
        self.attribute(UNKNOWN_ATTRIBUTES, &attribute.to_be_bytes());
        self
    }

    /// Set the length; nothing is signed.
    pub(super) fn finish(mut self) {
        self.set_length(0);
    }

    /// Sign with MESSAGE-INTEGRITY and set the length.
    pub(super) fn sign(mut self, key: &hmac::Key) {
        // The length counts as if MESSAGE-INTEGRITY were there already.
        self.set_length(4 + INTEGRITY_SIZE);
        let tag = hmac::sign(key, self.out.get(self.start..).unwrap_or_default());
        self.attribute(MESSAGE_INTEGRITY, tag.as_ref());
        self.set_length(0);
    }

    fn set_length(&mut self, more: usize) {
        let length = u16::try_from(self.out.len() + more - self.start - HEADER).unwrap_or(u16::MAX);
        if let Some(field) = self.out.get_mut(self.start + 2..self.start + 4) {
            field.copy_from_slice(&length.to_be_bytes());
        }
    }
}

/// What the 128 bits of an IPv6 address are masked with (RFC 8489, 14.2).
fn mask(transaction: &[u8; 12]) -> u128 {
    transaction.iter().fold(u128::from(MAGIC_COOKIE), |mask, byte| mask << 8 | u128::from(*byte))
}

fn read_address(value: &[u8], transaction: &[u8; 12]) -> Option<SocketAddr> {
    let [_, family, p0, p1, ip @ ..] = value else { return None };
    let port = u16::from_be_bytes([*p0, *p1]) ^ 0x2112;
    let ip = match family {
        1 => IpAddr::V4(Ipv4Addr::from_bits(u32::from_be_bytes(ip.try_into().ok()?) ^ MAGIC_COOKIE)),
        2 => IpAddr::V6(Ipv6Addr::from_bits(u128::from_be_bytes(ip.try_into().ok()?) ^ mask(transaction))),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}
