//! Our answers to clients' offers (RFC 9429, 5.3).
//!
//! Sections and mids mirror the offer, payload types and extension ids are the offered ones: a client that is answered
//! with other numbers may play nothing (Firefox does so for audio).

use super::codec::{format_parameters, is_supported, payload_maps, short_name};
use super::write::{Sdp, feedback, formats, opus_fmtp, receive_extensions, send_extensions};
use super::{
    Answer, AnswerSection, Description, Direction, LocalTransport, NegotiatedSection, ReceivePlan, SdpError, Section,
    SectionCodec, SectionKind, SendPlan, codec_of,
};
use crate::media::{Codec, DtlsRole, EncodingParams, ExtensionIds, MediaKind};

/// Most encodings we take of one track; one per spatial layer.
const MAX_ENCODINGS: usize = 3;
/// Longer names of sections are not told in packets, bytes.
const MAX_TOLD_MID: usize = 16;

/// Answers `offer` in the DTLS role of its [`crate::media::RemoteParams`]. `plan` goes section by section; what it does
/// not reach stays inactive (data channels: accepted).
///
/// # Errors
/// The plan puts media into an application section or the other way round.
pub fn write_answer(offer: &Description, local: &LocalTransport, plan: &[AnswerSection]) -> Result<Answer, SdpError> {
    let mut written = Vec::with_capacity(offer.sections.len());
    for (index, section) in offer.sections.iter().enumerate() {
        let allow_mixed = offer.allow_mixed || section.allow_mixed;
        written.push(
            negotiate(section, plan.get(index), local, allow_mixed)
                .map_err(|what| SdpError::Mismatch { index, what })?,
        );
    }
    let accepted = |written: &&Written<'_>| !written.negotiated.rejected;
    let bundle: Vec<&str> = if offer.has_bundle {
        written.iter().filter(accepted).map(|written| written.negotiated.mid.as_str()).collect()
    } else {
        Vec::new()
    };
    let mut sdp = Sdp::default();
    sdp.session(local, &bundle, offer.allow_mixed);
    let setup = match offer.remote.dtls {
        DtlsRole::Passive => "passive",
        DtlsRole::Active => "active",
    };
    let mut with_candidates = true;
    for (section, written) in offer.sections.iter().zip(&written) {
        write_section(&mut sdp, section, written, (local, setup), with_candidates);
        with_candidates &= written.negotiated.rejected;
    }
    Ok(Answer { sdp: sdp.finish(), sections: written.into_iter().map(|written| written.negotiated).collect() })
}

/// One section before it is written.
#[derive(Debug)]
struct Written<'a> {
    negotiated: NegotiatedSection,
    /// What stands on the `m=` line. A section where nothing flows still names its codecs, so that it can be used later.
    codecs: Vec<SectionCodec>,
    extensions: ExtensionIds,
    send: Option<&'a SendPlan>,
}

fn negotiate<'a>(
    section: &Section,
    plan: Option<&'a AnswerSection>,
    local: &LocalTransport,
    allow_mixed: bool,
) -> Result<Written<'a>, &'static str> {
    match (section.kind, plan) {
        (SectionKind::Media(_), Some(AnswerSection::Application)) => return Err("data channels in a media section"),
        (SectionKind::Application, Some(AnswerSection::Receive(_) | AnswerSection::Send(_))) => {
            return Err("media in an application section");
        }
        _ => {}
    }
    if section.rejected || !section.bundled {
        return Ok(rejected(section));
    }
    let kind = match (section.kind, plan) {
        (SectionKind::Media(kind), _) => kind,
        (SectionKind::Application, None | Some(AnswerSection::Application)) => return Ok(application(section)),
        _ => return Ok(rejected(section)),
    };
    let sends = matches!(section.direction, Direction::SendRecv | Direction::SendOnly);
    let receives = matches!(section.direction, Direction::SendRecv | Direction::RecvOnly);
    Ok(match plan {
        Some(AnswerSection::Receive(plan)) if sends => receive(section, kind, plan, allow_mixed),
        Some(AnswerSection::Send(plan)) if receives => send(section, kind, plan, local, allow_mixed),
        _ => inactive(section, kind, allow_mixed),
    })
}

fn blank(section: &Section) -> NegotiatedSection {
    NegotiatedSection {
        mid: section.mid.clone(),
        kind: section.kind,
        direction: Direction::Inactive,
        rejected: false,
        codecs: Vec::new(),
        extensions: ExtensionIds::default(),
        encodings: Vec::new(),
        nack: false,
        transport_cc: false,
        remb: false,
    }
}

fn rejected(section: &Section) -> Written<'static> {
    let negotiated = NegotiatedSection { rejected: true, ..blank(section) };
    Written { negotiated, codecs: Vec::new(), extensions: ExtensionIds::default(), send: None }
}

fn application(section: &Section) -> Written<'static> {
    let negotiated = NegotiatedSection { direction: Direction::SendRecv, ..blank(section) };
    Written { negotiated, codecs: Vec::new(), extensions: ExtensionIds::default(), send: None }
}

fn inactive(section: &Section, kind: MediaKind, allow_mixed: bool) -> Written<'static> {
    let codecs = accepted_codecs(section, kind, &ReceivePlan::default());
    if codecs.is_empty() {
        return rejected(section);
    }
    let extensions = receive_extensions(kind, &usable(&section.extensions, allow_mixed));
    Written { negotiated: blank(section), codecs, extensions, send: None }
}

fn receive(section: &Section, kind: MediaKind, plan: &ReceivePlan, allow_mixed: bool) -> Written<'static> {
    let codecs = accepted_codecs(section, kind, plan);
    if codecs.is_empty() {
        return rejected(section);
    }
    let mut extensions = receive_extensions(kind, &usable(&section.extensions, allow_mixed));
    // With a dependency descriptor libwebrtc leaves picture and temporal layer out of the VP8 descriptor, and we could
    // leave out no temporal layer.
    if codecs.first().is_some_and(|codec| codec_of(section.kind, &codec.name) == Codec::Vp8) {
        extensions.dependency_descriptor = None;
    }
    let negotiated = NegotiatedSection {
        direction: Direction::RecvOnly,
        encodings: encodings(section, &extensions),
        ..with_feedback(blank(section), &codecs, &extensions)
    };
    Written { negotiated, codecs, extensions, send: None }
}

fn send<'a>(
    section: &Section,
    kind: MediaKind,
    plan: &'a SendPlan,
    local: &LocalTransport,
    allow_mixed: bool,
) -> Written<'a> {
    let maps = payload_maps(&plan.codecs, &section.codecs);
    let mut codecs: Vec<SectionCodec> = Vec::new();
    // In the publisher's order: what it sends most comes first.
    for map in &maps {
        let new = section.codecs.iter().find(|codec| codec.payload_type == map.to);
        codecs.extend(new.filter(|new| codecs.iter().all(|codec| codec.payload_type != new.payload_type)).cloned());
    }
    if codecs.is_empty() {
        return inactive(section, kind, allow_mixed);
    }
    for codec in &mut codecs {
        codec.feedback = feedback(section.kind, &codec.feedback, Some(local.bandwidth));
        if codec_of(section.kind, &codec.name) == Codec::Opus {
            codec.fmtp = opus_fmtp(false, plan.stereo.then_some("sprop-stereo=1"));
        } else {
            codec.fmtp = format_parameters(codec);
        }
        codec.rtx = codec.rtx.filter(|_| plan.rtx_ssrc.is_some());
    }
    let offered = usable(&section.extensions, allow_mixed);
    // Packets may overtake the answer. Firefox then takes the stream for one of another section with the same payload
    // types, for ever, unless a packet says where it belongs.
    let extensions = ExtensionIds {
        mid: offered.mid.filter(|_| section.mid.len() <= MAX_TOLD_MID),
        ..send_extensions(kind, &offered, local.bandwidth)
    };
    let negotiated =
        NegotiatedSection { direction: Direction::SendOnly, ..with_feedback(blank(section), &codecs, &extensions) };
    // Written are all we know, though we send only some: libwebrtc takes what its receiving sections were answered with
    // as the extensions of its next offers, and refuses its own simulcast offer when mid and rid are missing there.
    Written { negotiated, codecs, extensions: receive_extensions(kind, &offered), send: Some(plan) }
}

/// Fills in what codecs, feedback and extensions amount to.
pub(super) fn with_feedback(
    mut negotiated: NegotiatedSection,
    codecs: &[SectionCodec],
    extensions: &ExtensionIds,
) -> NegotiatedSection {
    let has = |what: &str| codecs.iter().any(|codec| codec.feedback.iter().any(|feedback| feedback == what));
    negotiated.nack = has("nack");
    negotiated.transport_cc = has("transport-cc") && extensions.transport_cc.is_some();
    negotiated.remb = has("goog-remb");
    negotiated.codecs = codecs.to_vec();
    negotiated.extensions = *extensions;
    negotiated
}

/// Ids above 14 need two-byte headers, which need to be agreed on (RFC 8285, 4.3).
fn usable(offered: &ExtensionIds, allow_mixed: bool) -> ExtensionIds {
    let usable = |id: Option<u8>| id.filter(|id| *id <= 14 || allow_mixed);
    ExtensionIds {
        mid: usable(offered.mid),
        rid: usable(offered.rid),
        repaired_rid: usable(offered.repaired_rid),
        audio_level: usable(offered.audio_level),
        abs_send_time: usable(offered.abs_send_time),
        transport_cc: usable(offered.transport_cc),
        dependency_descriptor: usable(offered.dependency_descriptor),
        abs_capture_time: usable(offered.abs_capture_time),
        playout_delay: usable(offered.playout_delay),
        video_orientation: usable(offered.video_orientation),
        color_space: usable(offered.color_space),
        video_content_type: usable(offered.video_content_type),
    }
}

/// The offered codecs we take, preferred one first, with the parameters and feedback we answer.
fn accepted_codecs(section: &Section, kind: MediaKind, plan: &ReceivePlan) -> Vec<SectionCodec> {
    let is = |codec: &SectionCodec, mime: &str| short_name(mime).eq_ignore_ascii_case(&codec.name);
    let mut codecs: Vec<SectionCodec> = section
        .codecs
        .iter()
        .filter(|codec| is_supported(kind, &codec.name) && !plan.disabled.iter().any(|mime| is(codec, mime)))
        .cloned()
        .collect();
    if let Some(prefer) = &plan.prefer {
        if plan.only_preferred && codecs.iter().any(|codec| is(codec, prefer)) {
            codecs.retain(|codec| is(codec, prefer));
        }
        codecs.sort_by_key(|codec| !is(codec, prefer));
    }
    for codec in &mut codecs {
        codec.feedback = feedback(section.kind, &codec.feedback, None);
        if codec_of(section.kind, &codec.name) == Codec::Opus {
            codec.fmtp = opus_fmtp(!plan.no_dtx, plan.stereo.then_some("stereo=1;maxaveragebitrate=510000"));
        } else {
            codec.fmtp = format_parameters(codec);
        }
    }
    codecs
}

/// The encodings of a published track, lowest spatial layer first.
fn encodings(section: &Section, extensions: &ExtensionIds) -> Vec<EncodingParams> {
    let mut encodings: Vec<EncodingParams> = if extensions.rid.is_some() && !section.rids.is_empty() {
        let mut rids = section.rids.clone();
        sort_rids(&mut rids);
        rids.into_iter().map(|rid| EncodingParams { rid: Some(rid), ..EncodingParams::default() }).collect()
    } else {
        let declared = section.ssrcs.iter();
        declared.map(|(ssrc, rtx)| EncodingParams { rid: None, ssrc: Some(*ssrc), rtx_ssrc: *rtx }).collect()
    };
    encodings.truncate(MAX_ENCODINGS);
    if encodings.is_empty() {
        encodings.push(EncodingParams::default());
    }
    encodings
}

/// Puts the two sets of names that LiveKit's clients use from low to high, whatever order they were offered in. Unknown
/// names stay as they are.
fn sort_rids(rids: &mut [String]) {
    const SETS: [[&str; 3]; 2] = [["q", "h", "f"], ["2", "1", "0"]];
    for set in SETS {
        let rank = |rid: &String| set.iter().position(|known| known == rid);
        if rids.iter().all(|rid| rank(rid).is_some()) {
            rids.sort_by_key(rank);
        }
    }
}

fn write_section(
    sdp: &mut Sdp,
    section: &Section,
    written: &Written<'_>,
    (local, setup): (&LocalTransport, &str),
    candidates: bool,
) {
    let Section { media, protocol, .. } = section;
    let negotiated = &written.negotiated;
    if negotiated.rejected {
        // The line needs a format even when nothing is meant by it.
        let formats = if section.formats.is_empty() { "0" } else { section.formats.as_str() };
        sdp.line(format_args!("m={media} 0 {protocol} {formats}"));
        sdp.line(format_args!("c=IN IP4 0.0.0.0"));
        if !section.mid.is_empty() {
            sdp.line(format_args!("a=mid:{}", section.mid));
        }
        sdp.direction(Direction::Inactive);
        return;
    }
    let is_application = section.kind == SectionKind::Application;
    let formats = if is_application { section.formats.clone() } else { formats(&written.codecs) };
    sdp.line(format_args!("m={media} 9 {protocol} {formats}"));
    sdp.line(format_args!("c=IN IP4 0.0.0.0"));
    if !section.mid.is_empty() {
        sdp.line(format_args!("a=mid:{}", section.mid));
    }
    sdp.transport(local, setup, candidates);
    if is_application {
        sdp.data_channels(local, protocol, &formats);
        return;
    }
    sdp.direction(negotiated.direction);
    sdp.line(format_args!("a=rtcp-mux"));
    if section.rtcp_rsize {
        sdp.line(format_args!("a=rtcp-rsize"));
    }
    if section.allow_mixed {
        sdp.line(format_args!("a=extmap-allow-mixed"));
    }
    sdp.codecs(&written.codecs);
    sdp.extensions(&written.extensions);
    if let Some(plan) = written.send {
        sdp.source(plan, written.codecs.iter().any(|codec| codec.rtx.is_some()));
    }
    // In the order of the offer, whatever the order of the layers is.
    let taken = |rid: &&String| negotiated.encodings.iter().any(|encoding| encoding.rid.as_ref() == Some(rid));
    let rids: Vec<&str> = section.rids.iter().filter(taken).map(String::as_str).collect();
    sdp.simulcast(&rids, section.rids.len() > 1, section.draft_simulcast);
}

#[cfg(test)]
mod tests;
