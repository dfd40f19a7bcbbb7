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
    let name = short_name(mime);
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

/// `VP8` of `video/VP8`; a name without a slash is itself.
pub(super) fn short_name(mime: &str) -> &str {
    mime.rsplit('/').next().unwrap_or(mime)
}

/// Whether this codec is taken at all. G.711 is forwarded without being understood.
pub(super) fn is_supported(kind: MediaKind, name: &str) -> bool {
    match codec_of(SectionKind::Media(kind), name) {
        Codec::Other => {
            kind == MediaKind::Audio && ["PCMU", "PCMA"].iter().any(|known| known.eq_ignore_ascii_case(name))
        }
        _ => true,
    }
}

/// One parameter of an fmtp line.
pub(super) fn parameter<'a>(fmtp: &'a str, name: &str) -> Option<&'a str> {
    fmtp.split(';').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The parameters of a video codec that say what the format is. What they say of the client's own limits as a receiver
/// (`max-fs`, `max-fr`, bitrates) is left out: in our answer it would limit what the client sends.
pub(super) fn format_parameters(codec: &SectionCodec) -> String {
    let kept: &[&str] = match codec_of(SectionKind::Media(MediaKind::Video), &codec.name) {
        Codec::H264 => &["level-asymmetry-allowed", "packetization-mode", "profile-level-id"],
        Codec::Vp9 => &["profile-id"],
        Codec::Av1 => &["level-idx", "profile", "tier"],
        Codec::H265 => &["level-id", "profile-id", "tier-flag", "tx-mode"],
        _ => &[],
    };
    let pairs = kept.iter().filter_map(|name| parameter(&codec.fmtp, name).map(|value| format!("{name}={value}")));
    pairs.collect::<Vec<_>>().join(";")
}

/// Names each payload type of a publisher in the words of a subscriber's section. Payload types the subscriber did not
/// take are left out; an empty result means that it cannot decode the track.
///
/// The same format is preferred; for H.264 a profile that includes the publisher's is good enough.
pub fn payload_maps(publisher: &[SectionCodec], subscriber: &[SectionCodec]) -> Vec<PayloadMap> {
    publisher
        .iter()
        .filter_map(|from| {
            let to = subscriber
                .iter()
                .find(|to| is_same(from, to))
                .or_else(|| subscriber.iter().find(|to| can_decode(to, from)))?;
            Some(PayloadMap { from: from.payload_type, to: to.payload_type, rtx: to.rtx })
        })
        .collect()
}

fn is_same_encoding(a: &SectionCodec, b: &SectionCodec) -> bool {
    a.name.eq_ignore_ascii_case(&b.name) && a.clock_rate == b.clock_rate && a.channels == b.channels
}

fn is_same(a: &SectionCodec, b: &SectionCodec) -> bool {
    let same_or = |name: &str, default: &str| {
        parameter(&a.fmtp, name).unwrap_or(default).eq_ignore_ascii_case(parameter(&b.fmtp, name).unwrap_or(default))
    };
    is_same_encoding(a, b)
        && match codec_of(SectionKind::Media(MediaKind::Video), &a.name) {
            // RFC 6184, 8.1; levels may differ.
            Codec::H264 => same_or("packetization-mode", "0") && H264Profile::of(a) == H264Profile::of(b),
            // RFC 9628, 6.
            Codec::Vp9 => same_or("profile-id", "0"),
            // AV1 RTP specification, 7.2.1.
            Codec::Av1 => same_or("profile", "0"),
            // RFC 7798, 7.1.
            Codec::H265 => same_or("profile-id", "1") && same_or("tier-flag", "0") && same_or("tx-mode", "SRST"),
            _ => true,
        }
}

/// Whether what `from` names can be decoded as `to` though the two are not the same.
fn can_decode(to: &SectionCodec, from: &SectionCodec) -> bool {
    use H264Profile::{Baseline, ConstrainedBaseline, ConstrainedHigh, High, Main};
    let mode = |codec: &SectionCodec| parameter(&codec.fmtp, "packetization-mode") == Some("1");
    is_same_encoding(to, from)
        && codec_of(SectionKind::Media(MediaKind::Video), &from.name) == Codec::H264
        && mode(to) == mode(from)
        && matches!(
            (H264Profile::of(from), H264Profile::of(to)),
            (ConstrainedBaseline, Baseline | Main | ConstrainedHigh | High) | (Main | ConstrainedHigh, High)
        )
}

/// H.264 profiles as `profile-level-id` names them (RFC 6184, table 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum H264Profile {
    ConstrainedBaseline,
    Baseline,
    Main,
    ConstrainedHigh,
    High,
    /// profile_idc and the constraint bits.
    Other(u8, u8),
}

impl H264Profile {
    pub(super) fn of(codec: &SectionCodec) -> Self {
        // Baseline at level 1 where nothing is said (RFC 6184, 8.1).
        let id = parameter(&codec.fmtp, "profile-level-id").unwrap_or("42000a");
        let byte = |at: usize| id.get(at..at + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()).unwrap_or(0);
        match (byte(0), byte(2)) {
            (0x42, constraints) if constraints & 0x4f == 0x40 => Self::ConstrainedBaseline,
            (0x4d, constraints) if constraints & 0x8f == 0x80 => Self::ConstrainedBaseline,
            (0x58, constraints) if constraints & 0xcf == 0xc0 => Self::ConstrainedBaseline,
            (0x42, constraints) if constraints & 0x4f == 0 => Self::Baseline,
            (0x58, constraints) if constraints & 0xcf == 0x80 => Self::Baseline,
            (0x4d, constraints) if constraints & 0xaf == 0 => Self::Main,
            (0x64, 0x0c) => Self::ConstrainedHigh,
            (0x64, 0) => Self::High,
            (idc, constraints) => Self::Other(idc, constraints),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use super::*;

    fn codec(payload_type: u8, name: &str, fmtp: &str) -> SectionCodec {
        SectionCodec {
            payload_type,
            name: name.to_owned(),
            clock_rate: 90_000,
            channels: 1,
            fmtp: fmtp.to_owned(),
            feedback: Vec::new(),
            rtx: Some(payload_type + 1),
        }
    }

    fn mapped(from: &[SectionCodec], to: &[SectionCodec]) -> Vec<(u8, u8)> {
        payload_maps(from, to).iter().map(|map| (map.from, map.to)).collect()
    }

    #[test]
    fn maps_by_meaning_and_not_by_number() {
        let publisher =
            [codec(96, "VP8", ""), codec(98, "VP9", "profile-id=0"), codec(45, "AV1", "level-idx=5;profile=0")];
        let subscriber = [codec(120, "vp8", "max-fs=12288"), codec(121, "VP9", ""), codec(35, "AV1", "")];
        assert_eq!(mapped(&publisher, &subscriber), [(96, 120), (98, 121), (45, 35)]);
        assert_eq!(payload_maps(&publisher, &subscriber).first().unwrap().rtx, Some(121));
    }

    #[test]
    fn keeps_profiles_apart() {
        let publisher = [codec(98, "VP9", "profile-id=2"), codec(45, "AV1", "profile=1")];
        let subscriber = [codec(98, "VP9", "profile-id=0"), codec(45, "AV1", "")];
        assert_eq!(mapped(&publisher, &subscriber), []);
    }

    #[test]
    fn compares_h264_by_profile_and_packetization_mode_not_by_level() {
        let publisher = [codec(102, "H264", "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f")];
        let subscriber = [
            codec(97, "H264", "packetization-mode=0;profile-level-id=42e01f"),
            codec(126, "H264", "profile-level-id=42E034;packetization-mode=1"),
        ];
        assert_eq!(mapped(&publisher, &subscriber), [(102, 126)]);
    }

    #[test]
    fn falls_back_to_an_h264_profile_that_includes_the_publishers() {
        let publisher = [codec(102, "H264", "packetization-mode=1;profile-level-id=42e01f")];
        let high = [codec(104, "H264", "packetization-mode=1;profile-level-id=64001f")];
        assert_eq!(mapped(&publisher, &high), [(102, 104)]);
        assert_eq!(mapped(&high, &publisher), [], "baseline cannot decode high");
    }

    #[test]
    fn reads_a_mime_type_and_a_short_name_alike() {
        assert_eq!(codec_from_mime("video/vp8"), Codec::Vp8);
        assert_eq!(codec_from_mime("av1"), Codec::Av1);
        assert_eq!(codec_from_mime("audio/opus"), Codec::Opus);
        assert_eq!(codec_from_mime("text/plain"), Codec::Other);
    }

    #[test]
    fn survives_a_profile_level_id_cut_inside_a_character() {
        let odd = [codec(1, "H264", "profile-level-id=4é0")];
        assert_eq!(payload_maps(&odd, &odd).len(), 1);
    }
}
