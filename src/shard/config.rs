//! Limits and rules of a shard. Control fills it from the operator's file; nothing in the core is unlimited.

use std::sync::Arc;

use crate::room::RoomConfig;
use crate::transport::{self, DtlsIdentity, history};

/// Configuration of a shard, fixed for its life.
#[derive(Clone, Debug, Default)]
pub struct ShardConfig {
    /// Our certificate and key. `None` only where every transport is plain (simulation): WebRTC transports then fail.
    pub identity: Option<Arc<DtlsIdentity>>,
    /// The NTP timestamp (RFC 5905, 32.32 seconds since 1900) of [`crate::base::Instant::ZERO`], for sender reports. The
    /// same for all shards of a node.
    pub ntp_at_zero: u64,
    /// Sizes.
    pub limits: Limits,
    /// Limits and times of transports.
    pub transport: transport::Config,
    /// Rules of rooms.
    pub room: RoomConfig,
}

/// How many of everything. A command beyond a limit is refused; what hangs on it is ignored.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rooms on this shard.
    pub rooms: usize,
    /// Participants of one room.
    pub participants_per_room: usize,
    /// Participants on this shard.
    pub participants: usize,
    /// Transports of one participant.
    pub transports_per_participant: usize,
    /// Transports on this shard.
    pub transports: usize,
    /// Of those, how many may wait for their first authentic ICE check.
    pub unconnected_transports: usize,
    /// Tracks one participant may publish.
    pub tracks_per_participant: usize,
    /// Tracks one participant may receive.
    pub downtracks_per_participant: usize,
    /// Kept of each received audio stream for retransmission.
    pub history_audio: history::Limits,
    /// The same for each video encoding.
    pub history_video: history::Limits,
    /// Sent packets that can be sent again, per downtrack; rounded up to a power of two, 32 bytes each.
    pub answerable: usize,
    /// Copies decided between two flushes; a turn that decides more flushes by itself.
    pub pending_copies: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rooms: 1_000,
            participants_per_room: 500,
            participants: 5_000,
            transports_per_participant: 2,
            transports: 10_000,
            unconnected_transports: 2_000,
            tracks_per_participant: 32,
            downtracks_per_participant: 1_000,
            history_audio: history::Limits::AUDIO,
            history_video: history::Limits::VIDEO,
            answerable: 512,
            pending_copies: 65_536,
        }
    }
}
