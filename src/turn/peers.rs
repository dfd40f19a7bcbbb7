//! To whom allocations of legacy calls may speak: addresses of the public Internet, each other, and what the operator
//! names. Never to an address of this node, whatever listens there.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::ops::RangeInclusive;
use std::collections::BTreeSet;

/// A block of addresses: those whose first `prefix` bits are `network`'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Any address of it.
    pub network: IpAddr,
    /// Bits that count; as many as there are, at most.
    pub prefix: u8,
}

impl Block {
    /// Whether an address is in it. Nothing is in a block of the other family.
    pub const fn contains(&self, ip: IpAddr) -> bool {
        match (self.network, ip) {
            (IpAddr::V4(network), IpAddr::V4(ip)) => {
                let mask = u32::MAX.unbounded_shl(32_u32.saturating_sub(self.prefix as u32));
                network.to_bits() & mask == ip.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(ip)) => {
                let mask = u128::MAX.unbounded_shl(128_u32.saturating_sub(self.prefix as u32));
                network.to_bits() & mask == ip.to_bits() & mask
            }
            _ => false,
        }
    }
}

/// Who may be a peer.
#[derive(Clone, Debug)]
pub struct PeerRules {
    /// Addresses of relayed ports as clients are told them, one of a family at most.
    pub relayed: Vec<IpAddr>,
    /// Ports of relayed addresses.
    pub ports: RangeInclusive<u16>,
    /// All addresses of this machine, and those clients are told.
    pub own: BTreeSet<IpAddr>,
    /// Blocks that are not public and may be peers all the same.
    pub allowed: Vec<Block>,
    /// Blocks that are public and may not.
    pub denied: Vec<Block>,
}

impl PeerRules {
    /// Whether it may be a peer. Port 0: with some port.
    pub(super) fn allows(&self, peer: SocketAddr) -> bool {
        let ip = peer.ip();
        if self.is_relayed(ip) {
            return peer.port() == 0 || self.ports.contains(&peer.port());
        }
        let within = |blocks: &[Block]| blocks.iter().any(|block| block.contains(ip));
        !self.own.contains(&ip) && is_somebody(ip) && !within(&self.denied) && (is_public(ip) || within(&self.allowed))
    }

    /// Whether it is the address of other allocations.
    pub(super) fn is_relayed(&self, ip: IpAddr) -> bool {
        self.relayed.contains(&ip)
    }
}

/// One host, by its own name: no permission of an operator makes a peer of a group, of nobody, or of an address inside
/// another one.
const fn is_somebody(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast() && ip.to_ipv4_mapped().is_none(),
    }
}

/// What is not for everybody (IANA's registry of special-purpose addresses), multicast, and what is reserved.
const NOT_PUBLIC_V4: [([u8; 4], u8); 15] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
];

/// What is handed out to hosts at all. Mapped, compatible and translated IPv4, unique local, link-local and multicast
/// addresses all lie outside of it.
const GLOBAL_V6: ([u16; 2], u8) = ([0x2000, 0], 3);
/// What is special within: IETF protocols with Teredo, documentation, 6to4.
const NOT_PUBLIC_V6: [([u16; 2], u8); 4] =
    [([0x2001, 0], 23), ([0x2001, 0xdb8], 32), ([0x2002, 0], 16), ([0x3fff, 0], 20)];

/// Whether an address is one of the public Internet.
pub fn is_public(ip: IpAddr) -> bool {
    let v4 = |(network, prefix): &([u8; 4], u8)| {
        Block { network: Ipv4Addr::from_octets(*network).into(), prefix: *prefix }.contains(ip)
    };
    let v6 = |([a, b], prefix): &([u16; 2], u8)| {
        Block { network: Ipv6Addr::new(*a, *b, 0, 0, 0, 0, 0, 0).into(), prefix: *prefix }.contains(ip)
    };
    match ip {
        IpAddr::V4(_) => !NOT_PUBLIC_V4.iter().any(v4),
        IpAddr::V6(_) => v6(&GLOBAL_V6) && !NOT_PUBLIC_V6.iter().any(v6),
    }
}
