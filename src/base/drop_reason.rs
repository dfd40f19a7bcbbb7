//! Every way a packet can end without being forwarded. A packet is forwarded or counted here, exactly once per taker.

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident => $label:literal,)*) => {
        /// Why a packet (or one copy of it) went no further.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DropReason {
            $($(#[$doc])* $name,)*
        }
        impl DropReason {
            /// All reasons, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
            /// The metric label of this reason.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

reasons! {
    /// Neither STUN, DTLS, RTP nor RTCP (RFC 7983).
    NotMultiplexed => "not_multiplexed",
    /// No transport has this route and it is no valid ICE check of one.
    UnknownRoute => "unknown_route",
    /// STUN that does not parse.
    MalformedStun => "malformed_stun",
    /// STUN that parses but is not for us or not authentic.
    StunRefused => "stun_refused",
    /// DTLS from a route that has not passed ICE, or after the handshake limit.
    DtlsRefused => "dtls_refused",
    /// Media before the DTLS handshake gave keys.
    NoKeys => "no_keys",
    /// RTP or RTCP header that does not parse.
    MalformedRtp => "malformed_rtp",
    /// RTCP that does not parse.
    MalformedRtcp => "malformed_rtcp",
    /// SRTP or SRTCP authentication failed.
    Unauthentic => "unauthentic",
    /// Sequence number already seen, or too old to tell (RFC 3711, 3.3.2).
    Replayed => "replayed",
    /// No published track takes this SSRC, mid or rid.
    UnknownSsrc => "unknown_ssrc",
    /// Payload type not negotiated.
    UnknownPayloadType => "unknown_payload_type",
    /// Payload descriptor that does not parse.
    MalformedPayload => "malformed_payload",
    /// No media in it: padding only.
    Padding => "padding",
    /// Larger than a buffer of ours.
    TooLarge => "too_large",
    /// The retransmission carried a packet that had arrived already, or nothing.
    UselessRtx => "useless_rtx",
    /// Nobody subscribes.
    NoSubscriber => "no_subscriber",
    /// The subscriber's transport is not connected yet, or dead.
    NotConnected => "not_connected",
    /// The subscriber has turned this track off.
    Disabled => "disabled",
    /// The allocator has paused this downtrack.
    Paused => "paused",
    /// The publisher has muted the track.
    Muted => "muted",
    /// Of a microphone that is not worth hearing now: many are open, and others speak.
    Inaudible => "inaudible",
    /// Another encoding than the one being sent.
    OtherLayer => "other_layer",
    /// A temporal layer above the target.
    TemporalLayer => "temporal_layer",
    /// Of a spatial layer inside its encoding (SVC) that is above what is forwarded.
    SpatialLayer => "spatial_layer",
    /// Waiting for a key frame.
    AwaitingKeyframe => "awaiting_keyframe",
    /// Too old to fit into the numbering of the downtrack.
    TooLate => "too_late",
    /// Sent to this taker already.
    Duplicate => "duplicate",
    /// The participant has been removed.
    Removed => "removed",
    /// A queue or table was full.
    Full => "full",
    /// The way to another shard was full.
    RingFull => "ring_full",
    /// A bug of ours: the state that cannot be.
    Bug => "bug",
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();
}
