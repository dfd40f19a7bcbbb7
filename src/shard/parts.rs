//! What a shard keeps besides rooms: transports with their queues, received RTP streams, outgoing ones, publications.

use crate::base::{Bitrate, DowntrackId, Instant, ShardId, Ssrc, TrackId, TransportId};
use crate::cc::feedback::FeedbackGenerator;
use crate::cc::remb::RembCeiling;
use crate::room::downtrack::Header;
use crate::room::{DowntrackKey, MAX_SPATIAL, ParticipantKey, SenderKey, TrackKey};
use crate::rtp::dd;
use crate::shard::bandwidth::Bandwidth;
use crate::shard::timers::Scheduled;
use crate::transport::history::History;
use crate::transport::params::{CodecParams, ExtensionIds, PayloadMap, TrackParams};
use crate::transport::rx::{PublisherClock, RxStream};
use crate::transport::tx::TxStream;
use crate::transport::{Transport, TransportKey};

slotmap::new_key_type! {
    /// A room within its shard.
    pub struct RoomKey;
    /// A received RTP stream within its shard.
    pub struct StreamKey;
}

/// What a received SSRC is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    pub(super) ssrc: Ssrc,
    pub(super) stream: StreamKey,
    /// It carries retransmissions of the stream.
    pub(super) rtx: bool,
}

/// A transport and what runs over it.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) id: TransportId,
    pub(super) room: RoomKey,
    pub(super) participant: ParticipantKey,
    pub(super) transport: Transport,
    pub(super) connected: bool,
    /// Tracks published over it.
    pub(super) publications: Vec<TrackId>,
    /// Received SSRCs, sorted.
    pub(super) received: Vec<Bound>,
    /// Outgoing SSRCs, sorted.
    pub(super) sent: Vec<(Ssrc, SenderKey)>,
    /// Extension ids of what it publishes.
    pub(super) extensions: ExtensionIds,
    pub(super) feedback: FeedbackGenerator,
    pub(super) clock: PublisherClock,
    pub(super) remb: RembCeiling,
    /// Our SSRC in reports to it.
    pub(super) our_ssrc: Ssrc,
    pub(super) next_receiver_report: Instant,
    pub(super) next_sender_report: Option<Instant>,
    pub(super) scheduled: Scheduled,
    /// Where its far end gives transport-wide feedback.
    pub(super) bandwidth: Option<Box<Bandwidth>>,
    /// First and last of its copies in the pending list.
    pub(super) queue: Option<(u32, u32)>,
    /// It waits to send data.
    pub(super) drains: bool,
    pub(super) rate: Rate,
}

impl Line {
    pub(super) fn bound(&self, ssrc: Ssrc) -> Option<Bound> {
        let at = self.received.binary_search_by_key(&ssrc, |bound| bound.ssrc).ok()?;
        self.received.get(at).copied()
    }

    pub(super) fn bind(&mut self, bound: Bound) {
        match self.received.binary_search_by_key(&bound.ssrc, |b| b.ssrc) {
            Ok(at) => {
                if let Some(slot) = self.received.get_mut(at) {
                    *slot = bound;
                }
            }
            Err(at) => self.received.insert(at, bound),
        }
    }

    pub(super) fn sender(&self, ssrc: Ssrc) -> Option<SenderKey> {
        let at = self.sent.binary_search_by_key(&ssrc, |(ssrc, _)| *ssrc).ok()?;
        self.sent.get(at).map(|(_, sender)| *sender)
    }
}

/// Rate of what is sent to a transport, over the last full half second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    since: Instant,
    bytes: u64,
    measured: Bitrate,
}

impl Rate {
    pub(super) fn add(&mut self, now: Instant, bytes: usize) {
        let elapsed = now.since(self.since);
        if elapsed.as_millis() >= 500 {
            self.measured = Bitrate::of(self.bytes, elapsed);
            self.since = now;
            self.bytes = 0;
        }
        self.bytes += bytes as u64;
    }

    pub(super) fn measured(&self, now: Instant) -> Bitrate {
        if now.since(self.since).as_millis() >= 1000 {
            Bitrate::of(self.bytes, now.since(self.since))
        } else {
            self.measured
        }
    }
}

/// One received RTP stream: an encoding of a track.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) room: RoomKey,
    pub(super) track: TrackKey,
    pub(super) spatial: u8,
    pub(super) rx: RxStream,
    pub(super) history: History,
    pub(super) codecs: Vec<CodecParams>,
    pub(super) extensions: ExtensionIds,
    /// Layers of codecs whose payload does not tell them, or is encrypted.
    pub(super) dependency: dd::Reader,
    /// Nothing has come yet: the first packet begins a numbering nobody knows.
    pub(super) fresh: bool,
    /// Taken in since the flush with this number.
    pub(super) since_flush: (u64, u32, usize),
    /// Limits of the above: half of the history, so that nothing waiting to be sent can be written over.
    pub(super) flush_limits: (u32, usize),
}

/// One outgoing RTP stream: a downtrack on the wire.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) id: DowntrackId,
    pub(super) room: RoomKey,
    pub(super) downtrack: DowntrackKey,
    pub(super) track: TrackId,
    pub(super) line: TransportKey,
    pub(super) tx: TxStream,
    pub(super) rtx_ssrc: Option<Ssrc>,
    pub(super) payload_types: Vec<PayloadMap>,
    pub(super) extensions: ExtensionIds,
    /// Name of its section at the far end; empty: never told.
    pub(super) mid: String,
    pub(super) cname: String,
    pub(super) nack: bool,
    pub(super) reported: bool,
    /// When it was asked for.
    pub(super) born: Instant,
    pub(super) audio: bool,
}

impl Sender {
    /// The section, until the far end reports on the stream: packets may overtake the answer that tells it.
    pub(super) fn section(&self) -> Option<&str> {
        if self.tx.is_placed() { None } else { self.repair_section() }
    }

    /// The section, for packets of the retransmission stream. It is named for good: nobody reports on that stream, and
    /// a Firefox that has learnt one stream of a section from its name drops every other that never named it.
    pub(super) fn repair_section(&self) -> Option<&str> {
        Some(self.mid.as_str()).filter(|mid| !mid.is_empty())
    }

    /// Padding can be sent on its retransmission stream, and the far end reports on it.
    pub(super) fn can_pad(&self) -> bool {
        self.rtx_ssrc.is_some()
            && self.extensions.transport_cc.is_some()
            && self.payload_types.iter().any(|map| map.rtx.is_some())
    }
}

/// Where a track comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Its publisher's transport.
    Line(TransportKey),
    /// The shard its publisher is on.
    Shard(ShardId),
}

/// A published track as control named it.
#[derive(Debug)]
pub(super) struct Publication {
    pub(super) source: Source,
    pub(super) room: RoomKey,
    pub(super) track: TrackKey,
    pub(super) params: TrackParams,
    pub(super) streams: [Option<StreamKey>; MAX_SPATIAL],
    /// How far its publisher's clock is from ours, where another shard tells it.
    pub(super) clock: PublisherClock,
}

/// What a copy is sent as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copy {
    /// The packet itself.
    First,
    /// A retransmission that was asked for.
    Again,
    /// A retransmission nobody asked for: padding of a probe.
    Probe,
}

/// A copy decided and not yet sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) sender: SenderKey,
    pub(super) stream: StreamKey,
    /// Number in the history of the stream.
    pub(super) source: u64,
    pub(super) header: Header,
    pub(super) copy: Copy,
    /// Bytes of the packet as it was published, compared with others of its stream; 0: not to be compared.
    pub(super) size: u16,
    /// RTP padding to send it with, in bytes.
    pub(super) pad: u8,
    /// The next copy for the same transport.
    pub(super) next: Option<u32>,
}
