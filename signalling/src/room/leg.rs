//! The two kinds of negotiation a participant has: where it offers and we answer, and (v0) where we offer.

use std::time::Duration;

use crate::media::{DowntrackId, MediaKind, RemoteParams, TrackId, TransportId};
use crate::sdp::{LocalTransport, NegotiatedSection, OfferSection};

/// One transport of a participant, as far as signalling is concerned.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) transport: TransportId,
    pub(super) local: LocalTransport,
    pub(super) remote: Option<RemoteParams>,
    pub(super) connected: bool,
    /// Data channels are open.
    pub(super) channels: bool,
    /// The media plane knows it.
    pub(super) open: bool,
    /// The media plane gave it up.
    pub(super) dead: bool,
}

/// When the next negotiation of ours may start: soon, but not one per change.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Debounce {
    last: Option<Duration>,
}

impl Debounce {
    const QUIET: Duration = Duration::from_millis(150);
    const SOON: Duration = Duration::from_millis(10);

    /// When to negotiate if asked now.
    pub(super) fn due(&self, now: Duration) -> Duration {
        let busy = self.last.is_some_and(|last| now.saturating_sub(last) <= Self::QUIET);
        now.saturating_add(if busy { Self::QUIET } else { Self::SOON })
    }

    pub(super) const fn done(&mut self, now: Duration) {
        self.last = Some(now);
    }
}

/// The client offers, we answer.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) leg: Leg,
    /// Media sections in m-line order.
    pub(super) slots: Vec<Slot>,
    /// v1: additional sections asked for since the last offer: audio, video.
    pub(super) requested: [u32; 2],
    pub(super) debounce: Debounce,
}

/// One media section of the client's offers.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) mid: String,
    pub(super) kind: Option<MediaKind>,
    /// The client offered to receive on it, last time.
    pub(super) receives: bool,
    pub(super) content: Content,
    /// What the last answer made of it, for sections the client sends on.
    pub(super) negotiated: Option<NegotiatedSection>,
    /// Track id of the client's `a=msid`.
    pub(super) client_track: Option<String>,
}

/// What is in a section of a client's offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing, may be used.
    Free,
    /// Data channels, or something we do not take part in.
    Other,
    /// The client sends something it has not announced yet.
    Unannounced,
    /// A published track.
    Track(TrackId),
    /// A track to the client.
    Downtrack(DowntrackId),
    /// Carried a downtrack; has to be answered inactive once before it can be used again, else the client takes the
    /// next track for the old one.
    Draining,
}

/// We offer, the client answers.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) leg: Leg,
    /// Media sections in m-line order; the data channels' section comes first and is not among them.
    pub(super) slots: Vec<OfferSlot>,
    pub(super) next_offer: u32,
    /// The offer that waits for its answer.
    pub(super) outstanding: Option<Outstanding>,
    /// Something changed since that offer.
    pub(super) again: bool,
    pub(super) debounce: Debounce,
    pub(super) trickled: bool,
}

/// One media section of our offers.
#[derive(Clone, Copy, Debug)]
pub(super) struct OfferSlot {
    pub(super) kind: MediaKind,
    pub(super) content: OfferUse,
    /// The track it was made for: browsers call whatever comes later by this track's id.
    pub(super) first: TrackId,
}

/// What is in a section of our offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OfferUse {
    Free,
    Downtrack(DowntrackId),
    /// Has to be offered inactive, and answered, before it is free.
    Draining,
}

/// An offer of ours without an answer yet.
#[derive(Debug)]
pub(super) struct Outstanding {
    pub(super) id: u32,
    pub(super) sections: Vec<OfferSection>,
    /// The downtrack of each section as it was offered.
    pub(super) downtracks: Vec<Option<DowntrackId>>,
}

/// Index of a kind in pairs of counters.
pub(super) const fn lane(kind: MediaKind) -> usize {
    match kind {
        MediaKind::Audio => 0,
        MediaKind::Video => 1,
    }
}
