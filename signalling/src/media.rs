//! What the room machine asks of the media plane, and what the media plane tells it.
//!
//! The same words as weir's core uses, in types of our own: this crate does not know the core. One file on the other
//! side translates.

use std::fmt;

use bytes::Bytes;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);
    };
}

id!(
    /// A participant, unique on the node for the life of the process.
    ParticipantId
);
id!(
    /// A transport, unique on the node.
    TransportId
);
id!(
    /// A track, unique on the node.
    TrackId
);
id!(
    /// A downtrack, unique on the node.
    DowntrackId
);

/// What the room wants done. Obeyed in order, fire and forget: ids are ours.
#[derive(Clone, Debug, PartialEq)]
pub enum MediaCommand {
    /// A participant came.
    AddParticipant {
        /// Who.
        participant: ParticipantId,
    },
    /// A participant said whether what it receives may be paused when its link is too small; otherwise the operator's
    /// rule holds.
    SetPausing {
        /// Who.
        participant: ParticipantId,
        /// It may.
        allowed: bool,
    },
    /// A participant is gone, with everything of it.
    RemoveParticipant {
        /// Who.
        participant: ParticipantId,
    },
    /// Open a transport.
    AddTransport {
        /// Whose.
        participant: ParticipantId,
        /// Its id.
        transport: TransportId,
        /// What was negotiated.
        params: TransportParams,
    },
    /// The far end's half became known.
    SetRemote {
        /// Which transport.
        transport: TransportId,
        /// Its half.
        remote: RemoteParams,
    },
    /// ICE restart with new credentials of ours.
    RestartIce {
        /// Which transport.
        transport: TransportId,
        /// Ours.
        local: IceCredentials,
        /// Theirs, when they asked for it.
        remote: Option<RemoteParams>,
    },
    /// Close a transport.
    RemoveTransport {
        /// Which.
        transport: TransportId,
    },
    /// Take a track, or change its parameters.
    Publish {
        /// The publisher's transport.
        transport: TransportId,
        /// Its id.
        track: TrackId,
        /// What was negotiated.
        params: TrackParams,
    },
    /// Stop taking a track.
    Unpublish {
        /// Which.
        track: TrackId,
    },
    /// A track was muted or unmuted.
    SetMuted {
        /// Which.
        track: TrackId,
        /// Muted or not.
        muted: bool,
    },
    /// Send a track to a subscriber, or change how.
    Subscribe {
        /// The subscriber's transport.
        transport: TransportId,
        /// Which track.
        track: TrackId,
        /// The downtrack's id.
        downtrack: DowntrackId,
        /// What was negotiated.
        params: DowntrackParams,
    },
    /// Stop sending a track to a subscriber.
    Unsubscribe {
        /// Which.
        downtrack: DowntrackId,
    },
    /// Another size is wanted.
    SetDemand {
        /// Of which downtrack.
        downtrack: DowntrackId,
        /// What.
        demand: Demand,
    },
    /// Cap what is sent to a transport, in bits per second; `None` lifts it (LiveKit's simulated scenarios).
    CapBitrate {
        /// Which transport.
        transport: TransportId,
        /// The cap.
        bps: Option<u64>,
    },
    /// Send a message on a data channel of each transport.
    SendData {
        /// To whom.
        transports: Vec<TransportId>,
        /// Which channel.
        channel: DataChannel,
        /// The message.
        payload: Bytes,
    },
    /// `bytes` of data messages of this transport have been handled.
    DataTaken {
        /// Which transport.
        transport: TransportId,
        /// Message bytes.
        bytes: usize,
    },
}

/// What the media plane reports.
#[derive(Clone, Debug, PartialEq)]
pub enum MediaEvent {
    /// ICE and DTLS are through for the first time.
    TransportConnected {
        /// Which.
        transport: TransportId,
    },
    /// The transport is dead.
    TransportFailed {
        /// Which.
        transport: TransportId,
        /// A short reason for logs, from a closed set.
        reason: &'static str,
        /// True when the far end closed it in an orderly way.
        closed_by_peer: bool,
    },
    /// `_reliable` and `_lossy` are open.
    ChannelsOpen {
        /// Which transport.
        transport: TransportId,
    },
    /// A data channel message came in.
    Data {
        /// On which transport.
        transport: TransportId,
        /// On which channel.
        channel: DataChannel,
        /// The message.
        payload: Bytes,
    },
    /// First packet of a track.
    TrackStarted {
        /// Which.
        track: TrackId,
    },
    /// A downtrack was paused for lack of bandwidth, or goes on.
    StreamState {
        /// Which.
        downtrack: DowntrackId,
        /// Paused or not.
        paused: bool,
    },
    /// Changed audio levels, 0.0 (silent) to 1.0 (loudest).
    Speakers {
        /// Track and level.
        levels: Vec<(TrackId, f32)>,
    },
    /// Connection quality of a participant, 0 to 100.
    Quality {
        /// Who.
        participant: ParticipantId,
        /// How good.
        score: u8,
    },
}

/// The data channels of a LiveKit transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataChannel {
    /// `_reliable`.
    Reliable,
    /// `_lossy`.
    Lossy,
    /// `_data_track`.
    DataTrack,
}

/// ICE user name fragment and password.
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    /// The fragment.
    pub ufrag: String,
    /// The password. Secret.
    pub pwd: String,
}

impl fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IceCredentials {{ ufrag: {:?}, pwd: *** }}", self.ufrag)
    }
}

/// A transport to open. We are ICE-lite, and DTLS server unless [`RemoteParams::dtls`] says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportParams {
    /// Our credentials.
    pub local: IceCredentials,
    /// The far end's half where known.
    pub remote: Option<RemoteParams>,
    /// Whether we open the data channels.
    pub open_channels: bool,
}

/// The far end's half of a transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteParams {
    /// Its ICE user name fragment.
    pub ufrag: String,
    /// SHA-256 fingerprint of its certificate.
    pub fingerprint: [u8; 32],
    /// The DTLS role it leaves us; the same for the life of the transport.
    pub dtls: DtlsRole,
}

/// Our part in a DTLS handshake (RFC 5763, 5; RFC 8842).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DtlsRole {
    /// We are the server and wait for the far end's ClientHello; so it is wherever the far end lets us choose.
    #[default]
    Passive,
    /// We are the client: the far end's description says `setup:passive`.
    Active,
}

/// Audio or video.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MediaKind {
    /// Sound.
    Audio,
    /// Camera or screen.
    Video,
}

/// What a payload type stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// audio/opus
    Opus,
    /// video/VP8
    Vp8,
    /// video/VP9
    Vp9,
    /// video/AV1
    Av1,
    /// video/H264
    H264,
    /// video/H265
    H265,
    /// Anything else.
    Other,
}

/// One payload type a publisher may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodecParams {
    /// 0 to 127.
    pub payload_type: u8,
    /// What it is.
    pub codec: Codec,
    /// Hz.
    pub clock_rate: u32,
    /// Payload type of its retransmissions.
    pub rtx: Option<u8>,
}

/// Negotiated header extension ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as the extensions are; the URIs stand beside the SDP code")]
pub struct ExtensionIds {
    pub mid: Option<u8>,
    pub rid: Option<u8>,
    pub repaired_rid: Option<u8>,
    pub audio_level: Option<u8>,
    pub abs_send_time: Option<u8>,
    pub transport_cc: Option<u8>,
    pub dependency_descriptor: Option<u8>,
    pub abs_capture_time: Option<u8>,
    pub playout_delay: Option<u8>,
    pub video_orientation: Option<u8>,
    pub color_space: Option<u8>,
    pub video_content_type: Option<u8>,
}

/// One encoding of a track.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodingParams {
    /// Restriction identifier.
    pub rid: Option<String>,
    /// Declared SSRC.
    pub ssrc: Option<u32>,
    /// Declared SSRC of its retransmissions.
    pub rtx_ssrc: Option<u32>,
}

/// A published track as negotiated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackParams {
    /// Audio or video.
    pub kind: MediaKind,
    /// A screen rather than a camera.
    pub screen_share: bool,
    /// Sound that is no microphone somebody speaks into: that of a screen, or music.
    pub always_heard: bool,
    /// Media section identifier.
    pub mid: String,
    /// Payload types.
    pub codecs: Vec<CodecParams>,
    /// Encodings, lowest spatial layer first.
    pub encodings: Vec<EncodingParams>,
    /// Header extensions.
    pub extensions: ExtensionIds,
    /// The publisher answers NACK.
    pub nack: bool,
    /// Muted from the start.
    pub muted: bool,
}

/// How one payload type of the publisher is called towards a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadMap {
    /// At the publisher.
    pub from: u8,
    /// At the subscriber.
    pub to: u8,
    /// Retransmissions at the subscriber.
    pub rtx: Option<u8>,
}

/// One track as sent to one subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DowntrackParams {
    /// Outgoing SSRC.
    pub ssrc: u32,
    /// SSRC of retransmissions.
    pub rtx_ssrc: Option<u32>,
    /// Payload types.
    pub payload_types: Vec<PayloadMap>,
    /// Header extensions the subscriber takes.
    pub extensions: ExtensionIds,
    /// Name of the section (RFC 8843), told in packets until the subscriber has placed the stream; empty where the SSRC
    /// is known to it before the first packet.
    pub mid: String,
    /// Canonical name, the same for tracks to be lip-synced.
    pub cname: String,
    /// The subscriber sends NACK.
    pub nack: bool,
    /// What is wanted at first.
    pub demand: Demand,
}

/// What a subscriber wants of a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// False: nothing.
    pub enabled: bool,
    /// Highest spatial layer of use.
    pub max_spatial: u8,
    /// Highest temporal layer of use; 255 for all.
    pub max_temporal: u8,
    /// Larger is served first.
    pub priority: u8,
}
