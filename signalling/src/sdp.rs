//! SDP text to typed media sections and back (RFC 8866, RFC 9429). Only what WebRTC clients of LiveKit's protocol use:
//! one bundle, rtcp-mux, ICE-lite on our side.
//!
//! [`parse`](Description::parse) reads an offer or an answer; [`write_answer`] and [`write_offer`] write ours. What the
//! room decides (which track goes into which section) comes in as [`LocalSection`]s; codecs, payload types and header
//! extensions are negotiated here.

use crate::media::{ExtensionIds, IceCredentials, MediaKind, RemoteParams};

/// A parsed session description.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// The far end's ICE user name fragment and certificate (session level or first bundled section).
    pub remote: RemoteParams,
    /// Sections in order; their index is the m-line index.
    pub sections: Vec<Section>,
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
}
