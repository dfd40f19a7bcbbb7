//! What the SFU may know of a frame without decoding it: from the payload descriptor and the clear header bytes only.
//!
//! [`FrameInfo::read`] is called once per received packet; selectors and rewriters live on what it says. Payloads may be
//! end-to-end encrypted, so nothing past the descriptor is read but: VP8's frame tag and key frame header (10 bytes) and
//! H.264/H.265 NAL unit headers.

pub mod av1;
pub mod h264;
pub mod h265;
pub mod opus;
pub mod vp8;
pub mod vp9;

use crate::base::DropReason;
use crate::rtp::dd;

/// Which codec a payload type stands for. What is not listed is forwarded as published, without layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// RFC 7587.
    Opus,
    /// RFC 7741.
    Vp8,
    /// RFC 9628.
    Vp9,
    /// AV1 RTP specification 1.0.
    Av1,
    /// RFC 6184.
    H264,
    /// RFC 7798.
    H265,
    /// Anything else.
    Other,
}

/// What one packet says of its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameInfo {
    /// This packet starts a key frame: a decoder can begin here. True for every packet of codecs without key frames
    /// (Opus, unknown ones). Always together with `start_of_frame`.
    pub keyframe: bool,
    /// First packet of a frame (of a layer frame, with spatial layers in one stream). For H.264 and H.265 it only says
    /// that a NAL unit starts here; the first packet of a timestamp is the start of the frame.
    pub start_of_frame: bool,
    /// Last packet of a frame (marker bit, or the codec's own end bit for a layer frame).
    pub end_of_frame: bool,
    /// Spatial layer inside the RTP stream (SVC), 0 the lowest; always 0 for simulcast encodings.
    pub spatial: u8,
    /// Temporal layer, 0 the lowest; 0 when the codec does not say.
    pub temporal: u8,
    /// From here on higher temporal layers than so far may be forwarded (VP8 Y, VP9 U, dependency descriptor switch
    /// indication). Key frames are always switch points.
    pub temporal_switch: bool,
    /// Width and height in pixels where they are in the clear: on VP8 and VP9 key frames, and of the frame's layer
    /// wherever a dependency descriptor came with sizes.
    pub size: Option<(u16, u16)>,
    /// What only this codec has.
    pub detail: Detail,
}

/// Codec-specific part of a [`FrameInfo`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Nothing to know, or nothing we use.
    None,
    /// VP8: what has to be kept continuous across switches.
    Vp8(vp8::Descriptor),
    /// VP9: picture id and layer dependencies.
    Vp9(vp9::Descriptor),
    /// AV1 (and others that carry it): dependency descriptor.
    Dependency(dd::Frame),
}

impl FrameInfo {
    /// A packet that is a whole frame anyone can begin with: sound, and what we do not know.
    pub const WHOLE: Self = Self {
        keyframe: true,
        start_of_frame: true,
        end_of_frame: true,
        spatial: 0,
        temporal: 0,
        temporal_switch: false,
        size: None,
        detail: Detail::None,
    };

    /// Read what `payload` says of its frame. [`DropReason::MalformedPayload`] when the descriptor does not parse.
    pub fn read(codec: Codec, payload: &[u8], marker: bool) -> Result<Self, DropReason> {
        match codec {
            Codec::Opus => opus::read(payload),
            Codec::Vp8 => vp8::read(payload, marker),
            Codec::Vp9 => vp9::read(payload, marker),
            Codec::Av1 => av1::read(payload, marker),
            Codec::H264 => h264::read(payload, marker),
            Codec::H265 => h265::read(payload, marker),
            Codec::Other => Some(Self { end_of_frame: marker, ..Self::WHOLE }),
        }
        .ok_or(DropReason::MalformedPayload)
    }

    /// The same, bettered by a dependency descriptor, which knows layers where the payload is opaque. VP8 keeps its own
    /// descriptor: its numbers have to be rewritten.
    #[must_use]
    pub const fn with_dependency(self, frame: dd::Frame) -> Self {
        Self {
            keyframe: frame.has_structure && frame.start_of_frame,
            start_of_frame: frame.start_of_frame,
            end_of_frame: frame.end_of_frame,
            spatial: frame.spatial,
            temporal: frame.temporal,
            temporal_switch: frame.is_switch,
            size: match frame.size {
                Some(size) => Some(size),
                None => self.size,
            },
            detail: match self.detail {
                Detail::Vp8(_) => self.detail,
                _ => Detail::Dependency(frame),
            },
        }
    }
}
