//! SDP text to typed media sections and back (RFC 8866, RFC 9429). Only what WebRTC clients of LiveKit's protocol use:
//! one bundle, rtcp-mux, ICE-lite on our side.
//!
//! [`parse`](Description::parse) reads an offer or an answer; [`write_answer`] and [`write_offer`] write ours. What the
//! room decides (which track goes into which section) comes in as [`AnswerSection`]s and [`OfferSection`]s; codecs,
//! payload types and header extensions are negotiated here and handed back as [`NegotiatedSection`]s.

use crate::media::{CodecParams, EncodingParams, ExtensionIds, IceCredentials, MediaKind, RemoteParams};

mod answer;
mod codec;
mod offer;
mod parse;
mod write;

pub use answer::write_answer;
pub use codec::{codec_from_mime, codec_of, mime_of, payload_maps};
pub use offer::{check_answer, write_offer};

/// A parsed session description.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// The far end's ICE user name fragment and certificate (session level or first bundled section), and the DTLS role
    /// this description leaves us.
    pub remote: RemoteParams,
    /// Sections in order; their index is the m-line index.
    pub sections: Vec<Section>,
    /// The far end's DTLS role.
    pub setup: Setup,
    /// `a=extmap-allow-mixed` at session level: two-byte header extensions may be mixed in.
    pub allow_mixed: bool,
    /// There is a `BUNDLE` group.
    pub has_bundle: bool,
}

/// What [`Description::parse`] takes at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Size of the whole text in bytes.
    pub bytes: usize,
    /// Media sections.
    pub sections: usize,
    /// Payload types of one section, retransmissions included.
    pub codecs: usize,
    /// Attributes of one section, candidates included.
    pub attributes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // There are 128 payload types, and native clients with hardware codecs come near the 64 dynamic ones.
        Self { bytes: 256 * 1024, sections: 512, codecs: 128, attributes: 1024 }
    }
}

/// Why a description was not understood, or cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// Over one of the [`Limits`], which is named.
    #[error("sdp has too many or too large {0}")]
    TooLarge(&'static str),
    /// A line could not be read.
    #[error("sdp line {line}: {what}")]
    Syntax {
        /// Line number, from 1.
        line: usize,
        /// What was expected.
        what: &'static str,
    },
    /// No section carries ICE credentials.
    #[error("sdp has no ice-ufrag")]
    MissingIce,
    /// No certificate fingerprint with SHA-256.
    #[error("sdp has no sha-256 fingerprint")]
    MissingFingerprint,
    /// The far end is ICE-lite like us.
    #[error("sdp asks for an impossible role: {0}")]
    Role(&'static str),
    /// The plan does not fit the offer, or the answer does not fit our offer.
    #[error("sdp section {index}: {what}")]
    Mismatch {
        /// Index of the media section.
        index: usize,
        /// What does not fit.
        what: &'static str,
    },
}

/// DTLS role of the writer of a description (RFC 8842).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Setup {
    /// Either; what offers say.
    #[default]
    ActPass,
    /// The writer is the DTLS client.
    Active,
    /// The writer is the DTLS server.
    Passive,
}

/// Which way media may go, as the writer of the description sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Both ways.
    SendRecv,
    /// The writer sends.
    SendOnly,
    /// The writer receives.
    RecvOnly,
    /// Neither.
    Inactive,
}

/// What a section carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionKind {
    /// RTP.
    Media(MediaKind),
    /// Data channels.
    Application,
    /// Something else; always answered as rejected.
    Other,
}

/// One media section of the far end.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// Media section identifier.
    pub mid: String,
    /// What it carries.
    pub kind: SectionKind,
    /// As the far end sees it. A section with port zero (outside a bundle) is `rejected`.
    pub direction: Direction,
    /// Stopped: port 0 and not bundle-only.
    pub rejected: bool,
    /// Codecs in order of preference, retransmission codecs folded into the codec they repair.
    pub codecs: Vec<SectionCodec>,
    /// Header extensions.
    pub extensions: ExtensionIds,
    /// `a=msid` of a sending section: stream id and track id.
    pub msid: Option<(String, String)>,
    /// Declared SSRCs of sending encodings, first one first, each with its `FID` partner.
    pub ssrcs: Vec<(u32, Option<u32>)>,
    /// Sending rids in the order of `a=simulcast:send`, paused ones included, without `~`.
    pub rids: Vec<String>,
    /// The rids stand in the old draft form (`a=simulcast: send rid=q;h`), which the answer has to use too.
    pub draft_simulcast: bool,
    /// Part of the bundle, so it can be accepted.
    pub bundled: bool,
    /// First word of the `m=` line, for example `audio`.
    pub media: String,
    /// Third word of the `m=` line, for example `UDP/TLS/RTP/SAVPF`.
    pub protocol: String,
    /// The formats of the `m=` line as written, mirrored when the section is rejected.
    pub formats: String,
    /// `a=rtcp-rsize` was written.
    pub rtcp_rsize: bool,
    /// `a=extmap-allow-mixed` in this section.
    pub allow_mixed: bool,
    /// Canonical name of the sending source, if declared.
    pub cname: Option<String>,
    /// Largest SCTP message the far end takes, bytes (RFC 8841, 6: 65536 where not written); application sections only.
    pub max_message_size: u32,
}

/// One codec of a section.
#[derive(Clone, Debug, PartialEq)]
pub struct SectionCodec {
    /// Payload type.
    pub payload_type: u8,
    /// Encoding name as written, for example `VP8` or `opus`.
    pub name: String,
    /// Hz.
    pub clock_rate: u32,
    /// Channels, 1 where not written.
    pub channels: u8,
    /// Format parameters as written, may be empty.
    pub fmtp: String,
    /// `a=rtcp-fb` values, for example `nack`, `nack pli`, `transport-cc`.
    pub feedback: Vec<String>,
    /// Payload type of its retransmissions.
    pub rtx: Option<u8>,
}

/// Our half of every description of one transport.
#[derive(Clone, Debug)]
pub struct LocalTransport {
    /// Session id of the `o=` line, fixed for the life of the transport.
    pub session_id: u64,
    /// Version of the `o=` line, one up with each description.
    pub session_version: u64,
    /// Our ICE credentials.
    pub credentials: IceCredentials,
    /// SHA-256 of our certificate.
    pub fingerprint: [u8; 32],
    /// `candidate:…` lines without `a=`, put into the first section; may be empty when trickled.
    pub candidates: Vec<String>,
    /// Largest SCTP message we take, bytes.
    pub max_message_size: u32,
    /// How subscribers tell us what bandwidth there is.
    pub bandwidth: Bandwidth,
}

/// Feedback asked of a subscriber for video.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bandwidth {
    /// Transport-wide feedback; we estimate.
    #[default]
    TransportCc,
    /// `goog-remb` with absolute send time; the subscriber estimates.
    Remb,
}

/// What to answer to one section of an offer, decided by the room.
///
/// The direction is cut to what the offer allows, and a section the offer rejects, that is outside the bundle, of
/// unknown kind or without a codec in common is rejected whatever the plan says.
#[derive(Clone, Debug, PartialEq)]
pub enum AnswerSection {
    /// The client publishes here.
    Receive(ReceivePlan),
    /// We send a track here.
    Send(SendPlan),
    /// Nothing flows, the section stays usable. For an application section: rejected.
    Inactive,
    /// Data channels.
    Application,
}

/// How to take a track.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceivePlan {
    /// MIME type to put first (`video/VP8`, any case), if it was offered.
    pub prefer: Option<String>,
    /// Accept only `prefer` (clients that do not honour the order), as long as it was offered.
    pub only_preferred: bool,
    /// Ask for stereo Opus at full rate.
    pub stereo: bool,
    /// Do not ask for discontinuous transmission.
    pub no_dtx: bool,
    /// MIME types that are switched off in this room, any case.
    pub disabled: Vec<String>,
}

/// How to send a track.
#[derive(Clone, Debug, PartialEq)]
pub struct SendPlan {
    /// Stream id of `a=msid`, `PA_…|TR_…`.
    pub stream_id: String,
    /// Track id of `a=msid`.
    pub track_id: String,
    /// SSRC of the downtrack.
    pub ssrc: u32,
    /// SSRC of its retransmissions; left out where the client takes none.
    pub rtx_ssrc: Option<u32>,
    /// Canonical name.
    pub cname: String,
    /// What the publisher may send, as negotiated with it; only these are taken up.
    pub codecs: Vec<SectionCodec>,
    /// The track is stereo.
    pub stereo: bool,
}

/// One section of our offer. The order is the m-line order and must never change on a transport.
#[derive(Clone, Debug, PartialEq)]
pub struct OfferSection {
    /// Media section identifier, ours.
    pub mid: String,
    /// What is in it.
    pub content: OfferContent,
}

/// Content of one section of our offer.
#[derive(Clone, Debug, PartialEq)]
pub enum OfferContent {
    /// A track.
    Send(MediaKind, SendPlan),
    /// A section that carried a track and may carry another one.
    Inactive(MediaKind),
    /// Data channels.
    Application,
}

/// Our answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The text.
    pub sdp: String,
    /// What it says, section by section of the offer.
    pub sections: Vec<NegotiatedSection>,
}

/// What both ends agreed on for one section.
#[derive(Clone, Debug, PartialEq)]
pub struct NegotiatedSection {
    /// Media section identifier.
    pub mid: String,
    /// What it carries.
    pub kind: SectionKind,
    /// As we see it: `RecvOnly` for a published track, `SendOnly` for a downtrack, else `Inactive`; `SendRecv` for an
    /// accepted application section.
    pub direction: Direction,
    /// Stopped.
    pub rejected: bool,
    /// Common codecs with the payload types of the section, preferred one first. Empty where nothing flows.
    pub codecs: Vec<SectionCodec>,
    /// Header extensions agreed on.
    pub extensions: ExtensionIds,
    /// Published encodings, lowest spatial layer first; one without rid and SSRC where nothing was declared. Empty where
    /// we do not receive.
    pub encodings: Vec<EncodingParams>,
    /// The sender answers NACK (we receive), or the receiver sends it (we send).
    pub nack: bool,
    /// Transport-wide feedback flows.
    pub transport_cc: bool,
    /// `goog-remb` may flow.
    pub remb: bool,
}

impl NegotiatedSection {
    /// The codecs as the media plane wants them.
    pub fn codec_params(&self) -> Vec<CodecParams> {
        self.codecs.iter().map(|codec| codec.params(self.kind)).collect()
    }
}

impl SectionCodec {
    /// As the media plane wants it.
    pub fn params(&self, kind: SectionKind) -> CodecParams {
        CodecParams {
            payload_type: self.payload_type,
            codec: codec_of(kind, &self.name),
            clock_rate: self.clock_rate,
            rtx: self.rtx,
        }
    }
}
