//! weir: a decentralized voice and video SFU for Matrix.
//!
//! # The way of a packet
//! 1. `media` (one thread, one UDP port) takes in all datagrams that have arrived and hands each to its shard.
//! 2. `shard::Shard::handle_datagram` finds the transport by route and asks `rtp::demux` what the datagram is.
//! 3. `transport` opens SRTP; the packet goes into the history of the RTP stream it belongs to.
//! 4. `room::Room::on_rtp` finds the track and asks each of its downtracks: forward, or drop for which reason?
//! 5. `room::downtrack` decides: the selector picks the layer, the rewriter keeps numbering continuous.
//! 6. At the end of the turn `shard::Shard::flush` walks the decisions transport by transport, writes headers and
//!    seals payloads into runs of the `shard::outbox::Outbox`.
//! 7. The media thread sends each run with one system call. What is taken on another thread crosses there as it is
//!    (`shard::relay`) and goes on at 4.
//!
//! Everything from `base` to `shard` is pure: no clock, socket, lock, log, async, LiveKit or Matrix type. Layers only
//! know what stands above them in this list. `ARCHITECTURE.md` says the rest.

pub mod base;
pub mod cc;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod control;
pub mod room;
pub mod rtp;
pub mod shard;
pub mod transport;
pub mod turn;

#[cfg(feature = "server")]
pub mod mailbox;
#[cfg(feature = "server")]
pub mod media;
