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
    Tcp(TcpConnection),
}

/// Number of an accepted ICE-TCP connection, unique on its media thread and never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TcpConnection(pub u64);
