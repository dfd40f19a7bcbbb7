//! Everything a shard reports to control.

use bytes::Bytes;

use crate::base::{DowntrackId, DropReason, ParticipantId, RoomId, Spread, TrackId, TransportId};
use crate::shard::command::DataChannel;

/// One thing that happened. Edges are bounded by commands; levels (`Speakers`, `Quality`, `Stats`) may be replaced by a
/// newer value of the same key while the channel is full.
#[derive(Clone, Debug)]
pub enum Event {
    /// ICE and DTLS are through for the first time: media flows.
    TransportConnected {
        /// Which.
        transport: TransportId,
    },
    /// The transport is dead or was closed by the core. What ran over it has ended.
    TransportFailed {
        /// Which.
        transport: TransportId,
        /// Why.
        reason: CloseReason,
    },
    /// All data channels the clients wait for (`_reliable` and `_lossy`) are open.
    ChannelsOpen {
        /// Which transport.
        transport: TransportId,
    },
    /// A message arrived on a data channel. Not read past its length. Answer with `Command::DataTaken`.
    Data {
        /// Which transport.
        transport: TransportId,
        /// On which channel.
        channel: DataChannel,
        /// The message.
        payload: Bytes,
    },
    /// The first packet of a track arrived.
    TrackStarted {
        /// Which.
        track: TrackId,
    },
    /// The allocator paused a downtrack or let it go on.
    StreamState {
        /// Which.
        downtrack: DowntrackId,
        /// True: nothing is sent for lack of bandwidth.
        paused: bool,
    },
    /// Who is heard, loudest first; sent every interval in which something changed.
    Speakers {
        /// Where.
        room: RoomId,
        /// Every audio track whose level changed; level 0.0 (silent) to 1.0 (loudest).
        levels: Vec<(TrackId, f32)>,
    },
    /// How well a participant is connected, every few seconds.
    Quality {
        /// Who.
        participant: ParticipantId,
        /// 0 (worst) to 100 (nothing to better): the least of all its tracks, up and down.
        score: u8,
    },
    /// Counters, once a second.
    Stats(Box<ShardStats>),
}

/// Why the core ended a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CloseReason {
    /// No ICE check arrived in time.
    IceTimeout,
    /// The DTLS handshake failed or took too long.
    DtlsFailed,
    /// The certificate or the DTLS role is not the one signalled, or signalling changed it.
    FingerprintMismatch,
    /// Nothing authentic was heard for the liveness time.
    Silent,
    /// The far end closed DTLS or SCTP.
    ClosedByPeer,
    /// More data was queued for it than the limit.
    DataQueueFull,
    /// It sent what breaks the rules of SCTP or data channels.
    DataProtocol,
    /// A limit of the shard.
    Limit,
}

/// Counters since the shard started, and sizes now. Plain integers: control turns them into metrics.
#[derive(Clone, Debug, Default)]
pub struct ShardStats {
    /// RTP packets taken in, after decryption.
    pub rtp_received: u64,
    /// Copies wanted: received packets times downtracks of their track.
    pub rtp_offered: u64,
    /// Copies sent. `rtp_offered == rtp_forwarded + copies_dropped.total() + copies_pending`.
    pub rtp_forwarded: u64,
    /// Bytes received and sent at the UDP level.
    pub bytes_received: u64,
    /// See above.
    pub bytes_sent: u64,
    /// Datagrams that ended before they were offered to anybody, by reason.
    pub dropped: DropCounts,
    /// Copies that ended, by reason.
    pub copies_dropped: DropCounts,
    /// Copies decided and not yet sent: spread over time.
    pub copies_pending: u64,
    /// Packets handed to other shards, one for each that takes them.
    pub relayed_sent: u64,
    /// Packets that were to go to another shard and did not, by reason.
    pub relayed_dropped: DropCounts,
    /// Packets taken from other shards.
    pub relayed_received: u64,
    /// Key frame requests of other shards.
    pub keyframe_requests_relayed: u64,
    /// Retransmissions asked of publishers, packets.
    pub nacks_sent: u64,
    /// Retransmissions subscribers asked for, packets.
    pub nacks_received: u64,
    /// Of those, packets that could not be sent again, by reason.
    pub nacks_refused: DropCounts,
    /// Retransmissions sent.
    pub rtx_sent: u64,
    /// Packets sent to find out how much gets through; they carry nothing new.
    pub probes_sent: u64,
    /// Retransmissions received and used.
    pub rtx_received: u64,
    /// Key frame requests sent to publishers.
    pub keyframe_requests_sent: u64,
    /// Key frame requests received from subscribers.
    pub keyframe_requests_received: u64,
    /// Time from each subscription to its first packet sent; waiting for the publisher counts.
    pub first_packet: Spread,
    /// Rooms now.
    pub rooms: u32,
    /// Participants now.
    pub participants: u32,
    /// Transports now.
    pub transports: u32,
    /// Tracks published here now.
    pub tracks: u32,
    /// Tracks of other shards that can be taken here now.
    pub mirrored_tracks: u32,
    /// Downtracks now.
    pub downtracks: u32,
}

/// One counter per [`DropReason`].
#[derive(Clone, Debug)]
pub struct DropCounts([u64; DropReason::COUNT]);

impl Default for DropCounts {
    fn default() -> Self {
        Self([0; DropReason::COUNT])
    }
}

impl DropCounts {
    /// Count one.
    pub const fn add(&mut self, reason: DropReason) {
        self.add_many(reason, 1);
    }

    /// Count several.
    pub const fn add_many(&mut self, reason: DropReason, count: u64) {
        let slot = &mut self.0[reason as usize];
        *slot = slot.wrapping_add(count);
    }

    /// How many ended for any reason.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, n| sum.wrapping_add(*n))
    }

    /// How many ended for this reason.
    pub const fn of(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }
}
