//! The top of the pure core: all rooms and transports of one media thread, as a value.
//!
//! `handle_*` takes an input and the time and pushes packets and events into an [`outbox::Outbox`] the caller lends.
//! Forwarding has two phases: a datagram is decided upon when it comes in, copies leave at [`Shard::flush`], sorted by
//! transport. Called by the media thread and by simulations; knows no socket and no clock.

pub mod command;
pub mod config;
pub mod debug;
pub mod event;
pub mod outbox;

pub use config::{Limits, ShardConfig};

use crate::base::{Instant, ParticipantId, Rng, TransportId};
use crate::shard::command::Command;
use crate::shard::debug::ShardState;
use crate::shard::event::ShardStats;
use crate::shard::outbox::Outbox;
use crate::transport::route::{Route, TcpConnection};

/// All rooms and transports of one media thread.
#[derive(Debug)]
pub struct Shard {
    config: ShardConfig,
    rng: Rng,
    stats: ShardStats,
}

impl Shard {
    /// An empty shard. `seed` feeds sequence number offsets and the like, never keys.
    pub fn new(config: ShardConfig, seed: u64) -> Self {
        Self { config, rng: Rng::new(seed), stats: ShardStats::default() }
    }

    /// Take one datagram (one framed packet on ICE-TCP). It is decrypted in place.
    pub fn handle_datagram(&mut self, now: Instant, route: Route, datagram: &mut [u8], out: &mut Outbox) {
        let _ = (now, route, datagram, out);
    }

    /// Obey a command. One about something that is gone is ignored.
    pub fn handle_command(&mut self, now: Instant, command: Command, out: &mut Outbox) {
        let _ = (now, command, out, &self.config, &mut self.rng);
    }

    /// Do what is due. Call it when [`Self::next_timeout`] has come, or earlier.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) {
        let _ = (now, out);
    }

    /// When [`Self::handle_timeout`] wants to be called at the latest. Changes with every input.
    pub fn next_timeout(&self) -> Option<Instant> {
        None
    }

    /// Send what was decided since the last flush. Call it at the end of each turn, before the transmits are sent.
    pub fn flush(&mut self, now: Instant, out: &mut Outbox) {
        let _ = (now, out);
    }

    /// An ICE-TCP connection has ended. (One the shard wants closed is in [`Outbox::close_tcp`].)
    pub fn route_closed(&mut self, now: Instant, connection: TcpConnection, out: &mut Outbox) {
        let _ = (now, connection, out);
    }

    /// Open a transport without ICE, DTLS and SRTP to a known route, connected at once. For simulations, benches and
    /// links between shards; never reachable from signalling.
    pub fn add_plain_transport(
        &mut self,
        now: Instant,
        participant: ParticipantId,
        transport: TransportId,
        route: Route,
        out: &mut Outbox,
    ) {
        let _ = (now, participant, transport, route, out);
    }

    /// Counters up to now.
    pub fn stats(&self) -> &ShardStats {
        &self.stats
    }

    /// A picture of everything, for people.
    pub fn state(&self, now: Instant) -> ShardState {
        let _ = now;
        ShardState::default()
    }
}
