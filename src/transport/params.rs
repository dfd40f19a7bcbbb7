//! What signalling negotiated, typed. Control fills these from SDP; the core obeys.

use crate::base::{MediaKind, PayloadType, Ssrc};
pub use crate::rtp::codec::Codec;
pub use crate::rtp::ext::ExtensionIds;

/// ICE user name fragment and password of one side (RFC 8445, 5.3).
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    /// 4 to 256 ice-chars.
    pub ufrag: String,
    /// 22 to 256 ice-chars. Secret.
    pub pwd: String,
}

impl core::fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "IceCredentials {{ ufrag: {:?}, pwd: *** }}", self.ufrag)
    }
}

/// SHA-256 fingerprint of a certificate (RFC 8122).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

/// Who we are towards every far end: one certificate per node, made by control. [`super::DtlsIdentity`] is what the
/// shards get of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// X.509 certificate, DER. Its SHA-256 is the fingerprint in our SDP.
    pub certificate: Vec<u8>,
    /// Its private key (ECDSA P-256), PKCS#8 DER. Secret.
    pub private_key: Vec<u8>,
}

impl core::fmt::Debug for Identity {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Identity {{ certificate: {} bytes, private_key: *** }}", self.certificate.len())
    }
}

/// A transport as control asks for it. We are ICE-lite, always, and DTLS server unless [`RemoteParams::dtls`] says
/// otherwise.
#[derive(Clone, Debug)]
pub struct TransportParams {
    /// Our credentials. The ufrag is unique on the node and starts with the shard number.
    pub local: IceCredentials,
    /// The far end's half, where it is known already (it is when the client offers).
    pub remote: Option<RemoteParams>,
    /// Whether we open the data channels (two-peer-connection clients, subscriber transport) or the far end does.
    pub open_channels: bool,
}

/// The far end's half of a transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteParams {
    /// Its ICE user name fragment; checks must be addressed `local:remote`.
    pub ufrag: String,
    /// Its certificate; media waits until the handshake proved it.
    pub fingerprint: Fingerprint,
    /// Our part in the handshake; another one later closes the transport, as another fingerprint does.
    pub dtls: DtlsRole,
}

/// Our part in a DTLS handshake (RFC 5763, 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DtlsRole {
    /// Server: we wait for the far end's ClientHello, which is taken even before its half is known.
    #[default]
    Passive,
    /// Client: we say the first word, as soon as the far end's half and a route to it are known.
    Active,
}

/// One payload type a publisher may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodecParams {
    /// Its number on this transport.
    pub payload_type: PayloadType,
    /// What it is.
    pub codec: Codec,
    /// RTP clock rate in Hz.
    pub clock_rate: u32,
    /// The payload type of its retransmissions (RFC 4588), if negotiated.
    pub rtx: Option<PayloadType>,
}

/// One simulcast encoding of a track, or its only RTP stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodingParams {
    /// Restriction identifier (RFC 8851) when the far end names its streams so.
    pub rid: Option<String>,
    /// Declared SSRC (RFC 5576), if any.
    pub ssrc: Option<Ssrc>,
    /// Declared SSRC of its retransmissions (`FID` group), if any.
    pub rtx_ssrc: Option<Ssrc>,
}

/// A published track as negotiated. Sent again with the same id, it replaces what changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackParams {
    /// Audio or video.
    pub kind: MediaKind,
    /// A screen rather than a camera: first in line for bandwidth, slower frame rates are normal.
    pub screen_share: bool,
    /// Sound that is no microphone somebody speaks into, the sound of a screen or music: forwarded whatever its level.
    pub always_heard: bool,
    /// Media section identifier on the publisher's transport (RFC 9143), at most 16 bytes.
    pub mid: String,
    /// Payload types the publisher may use.
    pub codecs: Vec<CodecParams>,
    /// Encodings from the lowest spatial layer to the highest; at most [`crate::room::MAX_SPATIAL`]. The position is the
    /// spatial layer.
    pub encodings: Vec<EncodingParams>,
    /// Header extensions of this section.
    pub extensions: ExtensionIds,
    /// The publisher answers NACK.
    pub nack: bool,
    /// Muted from the start.
    pub muted: bool,
}

/// How one payload type of the publisher is called towards a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadMap {
    /// The publisher's payload type.
    pub from: PayloadType,
    /// The subscriber's name for the same codec and parameters.
    pub to: PayloadType,
    /// Its retransmissions at the subscriber, if negotiated.
    pub rtx: Option<PayloadType>,
}

/// One track as sent to one subscriber, as negotiated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DowntrackParams {
    /// SSRC of the outgoing RTP stream, unique on the subscriber's transport.
    pub ssrc: Ssrc,
    /// SSRC of its retransmissions; present where the subscriber negotiated RTX.
    pub rtx_ssrc: Option<Ssrc>,
    /// Payload types; a packet whose type is not listed is dropped.
    pub payload_types: Vec<PayloadMap>,
    /// Header extensions the subscriber takes.
    pub extensions: ExtensionIds,
    /// Name of the subscriber's section (RFC 8843), told in packets until it first reports on the stream, and in each
    /// retransmission and padding packet; empty: never.
    pub mid: String,
    /// Canonical end-point name for RTCP SDES; the same for tracks that are to be lip-synced.
    pub cname: String,
    /// The subscriber sends NACK for it.
    pub nack: bool,
    /// What is wanted before the subscriber says otherwise.
    pub demand: Demand,
}

/// What a subscriber wants of a track: the most it can use, not what it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// False: send nothing.
    pub enabled: bool,
    /// Highest spatial layer of use, 0 the lowest.
    pub max_spatial: u8,
    /// Highest temporal layer of use, 0 the lowest; 255 for all.
    pub max_temporal: u8,
    /// Larger is served first when bandwidth is short: screen shares 255, cameras 1.
    pub priority: u8,
}
