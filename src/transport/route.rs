//! The way a datagram takes between the machine and a far end. Every transmit carries one.

use core::net::SocketAddr;

/// Where a datagram came from or goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Route {
    /// The shard's UDP port and the far end's address.
    Udp {
        /// Address of ours that the datagram arrived at (its port is the shard's). The IP is the wildcard where the
        /// system does not tell.
        local: SocketAddr,
        /// Address of the far end as we see it.
        remote: SocketAddr,
    },
    /// An accepted ICE-TCP connection (RFC 6544 passive, RFC 4571 framing).
    Tcp {
        /// Which one.
        connection: TcpConnection,
        /// Address of the far end as we see it.
        remote: SocketAddr,
    },
    /// An allocation of our own TURN service (RFC 8656), handed over in process.
    Turn {
        /// Which one.
        allocation: Allocation,
        /// Its relayed address: what the far end is told it comes from.
        relayed: SocketAddr,
        /// The address of ours that the far end speaks to.
        peer: SocketAddr,
    },
}

impl Route {
    /// The address of the far end as it would see itself from here: what answers to its checks reflect.
    pub const fn reflexive(&self) -> SocketAddr {
        match self {
            Self::Udp { remote, .. } | Self::Tcp { remote, .. } => *remote,
            Self::Turn { relayed, .. } => *relayed,
        }
    }
}

/// Number of an accepted ICE-TCP connection, unique on its media thread and never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TcpConnection(pub u64);

/// Number of an allocation of our TURN service, unique in this process for as long as anybody could remember it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Allocation(pub u32);
