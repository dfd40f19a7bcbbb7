//! Our offers to clients with two peer connections, and their answers (RFC 9429, 5.2).
//!
//! Only the server sends on these transports, so payload types and extension ids are a fixed table: the same number
//! means the same in every section and every offer, as a bundle demands.

use super::answer::with_feedback;
use super::codec::payload_maps;
use super::write::{Sdp, formats, opus_fmtp, send_extensions};
use super::{
    Bandwidth, Description, Direction, LocalTransport, NegotiatedSection, OfferContent, OfferSection, SdpError,
    Section, SectionCodec, SectionKind, SendPlan, codec_of,
};
use crate::media::{Codec, ExtensionIds, MediaKind};

/// Payload type, name and parameters of every video codec that may be offered; retransmissions are one higher.
const VIDEO: [(u8, &str, &str); 15] = [
    (96, "VP8", ""),
    (98, "VP9", "profile-id=0"),
    (100, "VP9", "profile-id=1"),
    (45, "VP9", "profile-id=2"),
    (47, "VP9", "profile-id=3"),
    (125, "H264", "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"),
    (108, "H264", "level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e01f"),
    (102, "H264", "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f"),
    (104, "H264", "level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42001f"),
    (106, "H264", "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=4d001f"),
    (39, "H264", "level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=4d001f"),
    (123, "H264", "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=640032"),
    (119, "H264", "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=640c1f"),
    (35, "AV1", ""),
    (116, "H265", ""),
];

/// Payload type, name, clock rate and channels of every audio codec that may be offered.
const AUDIO: [(u8, &str, u32, u8); 3] = [(111, "opus", 48_000, 2), (0, "PCMU", 8000, 1), (8, "PCMA", 8000, 1)];

/// Ids of the header extensions in our offers.
const EXTENSIONS: ExtensionIds = ExtensionIds {
    mid: None,
    rid: None,
    repaired_rid: None,
    audio_level: None,
    abs_send_time: Some(2),
    transport_cc: Some(3),
    dependency_descriptor: Some(5),
    abs_capture_time: Some(4),
    playout_delay: None,
    video_orientation: None,
    color_space: None,
    video_content_type: None,
};

/// Writes the offer of a subscriber's transport. Payload types and header extension ids are always the same ones.
///
/// A track none of whose codecs can be offered is written as inactive.
pub fn write_offer(local: &LocalTransport, sections: &[OfferSection]) -> String {
    let mut sdp = Sdp::default();
    let bundle: Vec<&str> = sections.iter().map(|section| section.mid.as_str()).collect();
    sdp.session(local, &bundle, true);
    for (index, section) in sections.iter().enumerate() {
        let Offered { kind, direction, codecs, extensions, plan } = Offered::new(section, local.bandwidth);
        let (media, protocol, formats) = match kind {
            SectionKind::Media(MediaKind::Audio) => ("audio", "UDP/TLS/RTP/SAVPF", formats(&codecs)),
            SectionKind::Media(MediaKind::Video) => ("video", "UDP/TLS/RTP/SAVPF", formats(&codecs)),
            _ => ("application", "UDP/DTLS/SCTP", "webrtc-datachannel".to_owned()),
        };
        sdp.line(format_args!("m={media} 9 {protocol} {formats}"));
        sdp.line(format_args!("c=IN IP4 0.0.0.0"));
        sdp.line(format_args!("a=mid:{}", section.mid));
        sdp.transport(local, "actpass", index == 0);
        if !matches!(kind, SectionKind::Media(_)) {
            sdp.data_channels(local, protocol, &formats);
            continue;
        }
        sdp.direction(direction);
        sdp.line(format_args!("a=rtcp-mux"));
        sdp.line(format_args!("a=rtcp-rsize"));
        sdp.codecs(&codecs);
        sdp.extensions(&extensions);
        if let Some(plan) = plan {
            sdp.source(plan, codecs.iter().any(|codec| codec.rtx.is_some()));
        }
    }
    sdp.finish()
}

/// What a client's answer makes of our offer, section by section.
///
/// # Errors
/// The answer has other sections than the offer.
pub fn check_answer(
    local: &LocalTransport,
    offer: &[OfferSection],
    answer: &Description,
) -> Result<Vec<NegotiatedSection>, SdpError> {
    if offer.len() != answer.sections.len() {
        let index = offer.len().min(answer.sections.len());
        return Err(SdpError::Mismatch { index, what: "the answer has not as many sections as the offer" });
    }
    let pairs = offer.iter().zip(&answer.sections).enumerate();
    pairs
        .map(|(index, (offered, answered))| {
            let mismatch = |what| SdpError::Mismatch { index, what };
            if !answered.mid.is_empty() && answered.mid != offered.mid {
                return Err(mismatch("the answer has another mid than the offer"));
            }
            let mine = Offered::new(offered, local.bandwidth);
            if mine.kind != answered.kind {
                return Err(mismatch("the answer is of another kind than the offer"));
            }
            Ok(mine.agree(&offered.mid, answered))
        })
        .collect()
}

/// A section of ours with everything that is offered in it.
#[derive(Debug)]
struct Offered<'a> {
    kind: SectionKind,
    direction: Direction,
    codecs: Vec<SectionCodec>,
    extensions: ExtensionIds,
    plan: Option<&'a SendPlan>,
}

impl<'a> Offered<'a> {
    fn new(section: &'a OfferSection, bandwidth: Bandwidth) -> Self {
        let (kind, plan) = match &section.content {
            OfferContent::Application => {
                return Self {
                    kind: SectionKind::Application,
                    direction: Direction::SendRecv,
                    codecs: Vec::new(),
                    extensions: ExtensionIds::default(),
                    plan: None,
                };
            }
            OfferContent::Send(kind, plan) => (*kind, Some(plan)),
            OfferContent::Inactive(kind) => (*kind, None),
        };
        let table = table(kind, bandwidth);
        let extensions = send_extensions(kind, &EXTENSIONS, bandwidth);
        if let Some(plan) = plan {
            let codecs = plan_codecs(&table, plan);
            if !codecs.is_empty() {
                return Self {
                    kind: SectionKind::Media(kind),
                    direction: Direction::SendOnly,
                    codecs,
                    extensions,
                    plan: Some(plan),
                };
            }
        }
        Self { kind: SectionKind::Media(kind), direction: Direction::Inactive, codecs: table, extensions, plan: None }
    }

    fn agree(&self, mid: &str, answered: &Section) -> NegotiatedSection {
        let mut negotiated = NegotiatedSection {
            mid: mid.to_owned(),
            kind: self.kind,
            direction: Direction::Inactive,
            rejected: answered.rejected,
            codecs: Vec::new(),
            extensions: ExtensionIds::default(),
            encodings: Vec::new(),
            nack: false,
            transport_cc: false,
            remb: false,
        };
        if answered.rejected {
            return negotiated;
        }
        if self.kind == SectionKind::Application {
            negotiated.direction = Direction::SendRecv;
            return negotiated;
        }
        let takes = matches!(answered.direction, Direction::SendRecv | Direction::RecvOnly);
        if self.direction != Direction::SendOnly || !takes {
            return negotiated;
        }
        let mut codecs = Vec::new();
        for theirs in &answered.codecs {
            // An answer keeps the offered numbers (RFC 3264, 6.1); one that does not is not understood.
            let same = |mine: &&SectionCodec| {
                mine.payload_type == theirs.payload_type && mine.name.eq_ignore_ascii_case(&theirs.name)
            };
            let Some(mine) = self.codecs.iter().find(same) else { continue };
            let mut codec = mine.clone();
            codec.feedback.retain(|what| theirs.feedback.iter().any(|theirs| theirs.eq_ignore_ascii_case(what)));
            codec.rtx = codec.rtx.filter(|rtx| theirs.rtx == Some(*rtx));
            codecs.push(codec);
        }
        if codecs.is_empty() {
            return negotiated;
        }
        negotiated.direction = Direction::SendOnly;
        with_feedback(negotiated, &codecs, &common(&self.extensions, &answered.extensions))
    }
}

/// Our ids, where the answer kept them.
fn common(mine: &ExtensionIds, theirs: &ExtensionIds) -> ExtensionIds {
    let both = |mine: Option<u8>, theirs: Option<u8>| mine.filter(|id| theirs == Some(*id));
    ExtensionIds {
        abs_send_time: both(mine.abs_send_time, theirs.abs_send_time),
        transport_cc: both(mine.transport_cc, theirs.transport_cc),
        dependency_descriptor: both(mine.dependency_descriptor, theirs.dependency_descriptor),
        abs_capture_time: both(mine.abs_capture_time, theirs.abs_capture_time),
        ..ExtensionIds::default()
    }
}

fn table(kind: MediaKind, bandwidth: Bandwidth) -> Vec<SectionCodec> {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let (audio_feedback, video_feedback) = match bandwidth {
        Bandwidth::TransportCc => (
            owned(&["nack", "transport-cc"]),
            // Who leaves transport-cc out can still say what it takes.
            owned(&["goog-remb", "transport-cc", "ccm fir", "nack", "nack pli"]),
        ),
        Bandwidth::Remb => (owned(&["nack"]), owned(&["goog-remb", "ccm fir", "nack", "nack pli"])),
    };
    let audio = AUDIO.iter().map(|(payload_type, name, clock_rate, channels)| SectionCodec {
        payload_type: *payload_type,
        name: (*name).to_owned(),
        clock_rate: *clock_rate,
        channels: *channels,
        fmtp: if *name == "opus" { opus_fmtp(false, None) } else { String::new() },
        feedback: audio_feedback.clone(),
        rtx: None,
    });
    let video = VIDEO.iter().map(|(payload_type, name, fmtp)| SectionCodec {
        payload_type: *payload_type,
        name: (*name).to_owned(),
        clock_rate: 90_000,
        channels: 1,
        fmtp: (*fmtp).to_owned(),
        feedback: video_feedback.clone(),
        rtx: Some(payload_type + 1),
    });
    match kind {
        MediaKind::Audio => audio.collect(),
        MediaKind::Video => video.collect(),
    }
}

/// What of the table the track can be sent as, in the publisher's order.
fn plan_codecs(table: &[SectionCodec], plan: &SendPlan) -> Vec<SectionCodec> {
    let mut codecs: Vec<SectionCodec> = Vec::new();
    for map in payload_maps(&plan.codecs, table) {
        if codecs.iter().any(|codec| codec.payload_type == map.to) {
            continue;
        }
        let Some(mut codec) = table.iter().find(|codec| codec.payload_type == map.to).cloned() else { continue };
        if plan.stereo && codec_of(SectionKind::Media(MediaKind::Audio), &codec.name) == Codec::Opus {
            codec.fmtp = opus_fmtp(false, Some("sprop-stereo=1"));
        }
        codec.rtx = codec.rtx.filter(|_| plan.rtx_ssrc.is_some());
        codecs.push(codec);
    }
    codecs
}

#[cfg(test)]
mod tests;
