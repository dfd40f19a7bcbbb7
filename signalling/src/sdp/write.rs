//! Lines that offers and answers share, and the header extensions with their URIs.

use std::fmt::Write as _;

use super::{Direction, LocalTransport, SectionCodec, SectionKind, SendPlan};
use crate::media::{ExtensionIds, MediaKind};

/// Text being written. Writing to a `String` cannot fail, so the results of `write!` are dropped in one place.
#[derive(Debug, Default)]
pub(super) struct Sdp(String);

impl Sdp {
    pub(super) fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let _ = self.0.write_fmt(line);
        self.0.push_str("\r\n");
    }

    pub(super) fn finish(self) -> String {
        self.0
    }

    pub(super) fn session(&mut self, local: &LocalTransport, bundle: &[&str], allow_mixed: bool) {
        self.line(format_args!("v=0"));
        // The session id has to fit a signed 64-bit number (RFC 9429, 5.2.1).
        let id = local.session_id & (u64::MAX >> 1);
        self.line(format_args!("o=- {id} {} IN IP4 127.0.0.1", local.session_version));
        self.line(format_args!("s=-"));
        self.line(format_args!("t=0 0"));
        if !bundle.is_empty() {
            self.line(format_args!("a=group:BUNDLE {}", bundle.join(" ")));
        }
        if allow_mixed {
            self.line(format_args!("a=extmap-allow-mixed"));
        }
        self.line(format_args!("a=msid-semantic: WMS *"));
        self.line(format_args!("a=ice-lite"));
    }

    /// What every accepted section says of the transport. Only the first one carries the candidates.
    pub(super) fn transport(&mut self, local: &LocalTransport, setup: &str, with_candidates: bool) {
        self.line(format_args!("a=ice-ufrag:{}", local.credentials.ufrag));
        self.line(format_args!("a=ice-pwd:{}", local.credentials.pwd));
        self.line(format_args!("a=ice-options:trickle"));
        let mut hex = String::with_capacity(95);
        for (index, byte) in local.fingerprint.iter().enumerate() {
            let _ = write!(hex, "{}{byte:02X}", if index == 0 { "" } else { ":" });
        }
        self.line(format_args!("a=fingerprint:sha-256 {hex}"));
        self.line(format_args!("a=setup:{setup}"));
        if with_candidates {
            for candidate in &local.candidates {
                self.line(format_args!("a={candidate}"));
            }
        }
    }

    pub(super) fn direction(&mut self, direction: Direction) {
        let word = match direction {
            Direction::SendRecv => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::Inactive => "inactive",
        };
        self.line(format_args!("a={word}"));
    }

    /// Data channels as RFC 8841 writes them, or as old clients do (`DTLS/SCTP 5000`).
    pub(super) fn data_channels(&mut self, local: &LocalTransport, protocol: &str, formats: &str) {
        if protocol == "DTLS/SCTP" {
            self.line(format_args!("a=sctpmap:{formats} webrtc-datachannel 1024"));
        } else {
            self.line(format_args!("a=sctp-port:5000"));
        }
        self.line(format_args!("a=max-message-size:{}", local.max_message_size));
    }

    pub(super) fn codecs(&mut self, codecs: &[SectionCodec]) {
        for codec in codecs {
            let SectionCodec { payload_type, name, clock_rate, channels, fmtp, feedback, rtx } = codec;
            let channels = if *channels > 1 { format!("/{channels}") } else { String::new() };
            self.line(format_args!("a=rtpmap:{payload_type} {name}/{clock_rate}{channels}"));
            for what in feedback {
                self.line(format_args!("a=rtcp-fb:{payload_type} {what}"));
            }
            if !fmtp.is_empty() {
                self.line(format_args!("a=fmtp:{payload_type} {fmtp}"));
            }
            if let Some(rtx) = rtx {
                self.line(format_args!("a=rtpmap:{rtx} rtx/{clock_rate}"));
                self.line(format_args!("a=fmtp:{rtx} apt={payload_type}"));
            }
        }
    }

    pub(super) fn extensions(&mut self, extensions: &ExtensionIds) {
        let mut copy = *extensions;
        for uri in URIS {
            if let Some(Some(id)) = extension_slot(&mut copy, uri) {
                self.line(format_args!("a=extmap:{id} {uri}"));
            }
        }
    }

    /// Names the track and its SSRCs (RFC 8830, RFC 5576).
    pub(super) fn source(&mut self, plan: &SendPlan, with_rtx: bool) {
        let (stream, track, cname) = (token(&plan.stream_id), token(&plan.track_id), token(&plan.cname));
        self.line(format_args!("a=msid:{stream} {track}"));
        let ssrc = plan.ssrc;
        let rtx = plan.rtx_ssrc.filter(|_| with_rtx);
        if let Some(rtx) = rtx {
            self.line(format_args!("a=ssrc-group:FID {ssrc} {rtx}"));
        }
        for ssrc in std::iter::once(ssrc).chain(rtx) {
            self.line(format_args!("a=ssrc:{ssrc} cname:{cname}"));
            self.line(format_args!("a=ssrc:{ssrc} msid:{stream} {track}"));
        }
    }

    /// Takes these rids (RFC 8851, RFC 8853).
    pub(super) fn simulcast(&mut self, rids: &[&str], is_simulcast: bool, draft: bool) {
        for rid in rids {
            self.line(format_args!("a=rid:{rid} recv"));
        }
        let rids = rids.join(";");
        match (rids.is_empty() || !is_simulcast, draft) {
            (true, _) => {}
            (false, false) => self.line(format_args!("a=simulcast:recv {rids}")),
            (false, true) => self.line(format_args!("a=simulcast: recv rid={rids}")),
        }
    }
}

/// Payload types of an `m=` line: each codec followed by its retransmissions.
pub(super) fn formats(codecs: &[SectionCodec]) -> String {
    let numbers: Vec<String> = codecs
        .iter()
        .flat_map(|codec| std::iter::once(codec.payload_type).chain(codec.rtx))
        .map(|number| number.to_string())
        .collect();
    numbers.join(" ")
}

/// Text from a client's message made safe for one word of a line.
fn token(text: &str) -> String {
    let safe: String = text.chars().take(256).map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect();
    if safe.is_empty() { "-".to_owned() } else { safe }
}

const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
const RID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
const REPAIRED_RID: &str = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id";
const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
const ABS_SEND_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";
const TRANSPORT_CC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
const DEPENDENCY_DESCRIPTOR: &str =
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";
const ABS_CAPTURE_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time";
const PLAYOUT_DELAY: &str = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay";
const VIDEO_ORIENTATION: &str = "urn:3gpp:video-orientation";
const COLOR_SPACE: &str = "http://www.webrtc.org/experiments/rtp-hdrext/color-space";
const VIDEO_CONTENT_TYPE: &str = "http://www.webrtc.org/experiments/rtp-hdrext/video-content-type";

/// All known extensions, in the order we write them.
const URIS: [&str; 12] = [
    MID,
    RID,
    REPAIRED_RID,
    AUDIO_LEVEL,
    ABS_SEND_TIME,
    TRANSPORT_CC,
    DEPENDENCY_DESCRIPTOR,
    ABS_CAPTURE_TIME,
    PLAYOUT_DELAY,
    VIDEO_ORIENTATION,
    COLOR_SPACE,
    VIDEO_CONTENT_TYPE,
];

/// Where the id of an extension is kept; `None` for one we do not know.
pub(super) fn extension_slot<'a>(ids: &'a mut ExtensionIds, uri: &str) -> Option<&'a mut Option<u8>> {
    Some(match uri {
        MID => &mut ids.mid,
        RID => &mut ids.rid,
        REPAIRED_RID => &mut ids.repaired_rid,
        AUDIO_LEVEL => &mut ids.audio_level,
        ABS_SEND_TIME => &mut ids.abs_send_time,
        TRANSPORT_CC => &mut ids.transport_cc,
        DEPENDENCY_DESCRIPTOR => &mut ids.dependency_descriptor,
        ABS_CAPTURE_TIME => &mut ids.abs_capture_time,
        PLAYOUT_DELAY => &mut ids.playout_delay,
        VIDEO_ORIENTATION => &mut ids.video_orientation,
        COLOR_SPACE => &mut ids.color_space,
        VIDEO_CONTENT_TYPE => &mut ids.video_content_type,
        _ => return None,
    })
}

/// The extensions of `offered` that serve a published track. Orientation is left out on purpose: without it the client
/// turns the picture itself, so that subscribers need not know it.
pub(super) const fn receive_extensions(kind: MediaKind, offered: &ExtensionIds) -> ExtensionIds {
    let mut ids = none();
    ids.mid = offered.mid;
    ids.rid = offered.rid;
    ids.abs_send_time = offered.abs_send_time;
    ids.transport_cc = offered.transport_cc;
    ids.abs_capture_time = offered.abs_capture_time;
    match kind {
        MediaKind::Audio => ids.audio_level = offered.audio_level,
        MediaKind::Video => {
            ids.repaired_rid = offered.repaired_rid;
            ids.dependency_descriptor = offered.dependency_descriptor;
        }
    }
    ids
}

/// The extensions of `offered` that serve a downtrack. No mid: an answer adds it where it needs it.
pub(super) fn send_extensions(kind: MediaKind, offered: &ExtensionIds, bandwidth: super::Bandwidth) -> ExtensionIds {
    let mut ids = none();
    ids.abs_capture_time = offered.abs_capture_time;
    match bandwidth {
        super::Bandwidth::TransportCc if offered.transport_cc.is_some() => ids.transport_cc = offered.transport_cc,
        super::Bandwidth::TransportCc if kind == MediaKind::Video => ids.abs_send_time = offered.abs_send_time,
        super::Bandwidth::Remb if kind == MediaKind::Video => ids.abs_send_time = offered.abs_send_time,
        super::Bandwidth::TransportCc | super::Bandwidth::Remb => {}
    }
    if kind == MediaKind::Video {
        ids.dependency_descriptor = offered.dependency_descriptor;
    }
    ids
}

/// What of a client's feedback list we use, in our order.
pub(super) fn feedback(kind: SectionKind, offered: &[String], bandwidth: Option<super::Bandwidth>) -> Vec<String> {
    use super::Bandwidth::{Remb, TransportCc};
    let wanted: &[&str] = match (kind, bandwidth) {
        (SectionKind::Media(MediaKind::Audio), Some(Remb)) => &["nack"],
        (SectionKind::Media(MediaKind::Audio), _) => &["nack", "transport-cc"],
        (_, None | Some(TransportCc)) => &["goog-remb", "transport-cc", "ccm fir", "nack", "nack pli"],
        (_, Some(Remb)) => &["goog-remb", "ccm fir", "nack", "nack pli"],
    };
    let is_offered = |what: &&&str| offered.iter().any(|offered| offered.eq_ignore_ascii_case(what));
    wanted.iter().filter(is_offered).map(|what| (*what).to_owned()).collect()
}

/// Opus as clients do it, with what differs per track (RFC 7587, 6.1).
pub(super) fn opus_fmtp(dtx: bool, stereo: Option<&str>) -> String {
    let mut fmtp = "minptime=10;useinbandfec=1".to_owned();
    if dtx {
        fmtp.push_str(";usedtx=1");
    }
    if let Some(stereo) = stereo {
        fmtp.push(';');
        fmtp.push_str(stereo);
    }
    fmtp
}

const fn none() -> ExtensionIds {
    ExtensionIds {
        mid: None,
        rid: None,
        repaired_rid: None,
        audio_level: None,
        abs_send_time: None,
        transport_cc: None,
        dependency_descriptor: None,
        abs_capture_time: None,
        playout_delay: None,
        video_orientation: None,
        color_space: None,
        video_content_type: None,
    }
}
