//! Descriptions as clients write them, reduced to what matters here.

use std::fmt::Write as _;

/// One media section of a client's description.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) kind: &'static str,
    pub(crate) direction: &'static str,
    /// Track id of `a=msid`.
    pub(crate) track: Option<String>,
    pub(crate) rids: Vec<&'static str>,
    pub(crate) codecs: &'static [(u8, &'static str)],
}

const AUDIO: &[(u8, &str)] = &[(111, "opus/48000/2")];
const VIDEO: &[(u8, &str)] = &[(96, "VP8/90000"), (98, "VP9/90000"), (45, "AV1/90000")];

impl Section {
    pub(crate) fn receiving(kind: &'static str) -> Self {
        Self { kind, direction: "recvonly", track: None, rids: Vec::new(), codecs: Self::codecs(kind) }
    }

    pub(crate) fn sending(kind: &'static str, track: &str) -> Self {
        let track = Some(track.to_owned());
        Self { kind, direction: "sendonly", track, rids: Vec::new(), codecs: Self::codecs(kind) }
    }

    pub(crate) fn simulcast(track: &str) -> Self {
        Self { rids: vec!["q", "h", "f"], ..Self::sending("video", track) }
    }

    pub(crate) fn channels() -> Self {
        Self { kind: "application", direction: "sendrecv", track: None, rids: Vec::new(), codecs: &[] }
    }

    fn codecs(kind: &str) -> &'static [(u8, &'static str)] {
        if kind == "audio" { AUDIO } else { VIDEO }
    }
}

/// A description of a client whose sections have their index as identifier.
pub(crate) fn describe(ufrag: &str, setup: &str, sections: &[Section]) -> String {
    let mut sdp = String::from("v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE");
    for index in 0..sections.len() {
        write!(sdp, " {index}").unwrap();
    }
    sdp.push_str("\r\na=extmap-allow-mixed\r\na=msid-semantic: WMS\r\n");
    for (index, section) in sections.iter().enumerate() {
        let common = format!(
            "c=IN IP4 0.0.0.0\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n\
             a=fingerprint:sha-256 {}\r\na=setup:{setup}\r\na=mid:{index}\r\n",
            vec!["AB"; 32].join(":")
        );
        if section.kind == "application" {
            write!(sdp, "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n{common}a=sctp-port:5000\r\n").unwrap();
            continue;
        }
        let types: Vec<_> = section.codecs.iter().flat_map(|(number, _)| [*number, number + 1]).collect();
        let types: Vec<_> = types.iter().map(u8::to_string).collect();
        write!(sdp, "m={} 9 UDP/TLS/RTP/SAVPF {}\r\n{common}", section.kind, types.join(" ")).unwrap();
        write!(
            sdp,
            "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
             a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\na={}\r\na=rtcp-mux\r\n",
            section.direction
        )
        .unwrap();
        for (number, codec) in section.codecs {
            write!(sdp, "a=rtpmap:{number} {codec}\r\na=rtcp-fb:{number} nack\r\n").unwrap();
            if section.kind == "video" {
                let rtx = number + 1;
                write!(sdp, "a=rtpmap:{rtx} rtx/90000\r\na=fmtp:{rtx} apt={number}\r\n").unwrap();
            }
        }
        if let Some(track) = &section.track {
            write!(sdp, "a=msid:stream {track}\r\n").unwrap();
            if section.rids.is_empty() {
                let ssrc = 1000 + index;
                write!(sdp, "a=ssrc:{ssrc} cname:c\r\n").unwrap();
            }
        }
        for rid in &section.rids {
            write!(sdp, "a=rid:{rid} send\r\n").unwrap();
        }
        if !section.rids.is_empty() {
            write!(sdp, "a=simulcast:send {}\r\n", section.rids.join(";")).unwrap();
        }
    }
    sdp
}

/// The sections of a description of ours as a receiving client would answer them.
pub(crate) fn answer_to(offer: &str, ufrag: &str) -> String {
    let mut sections = Vec::new();
    for media in offer.split("\r\nm=").skip(1) {
        let kind = if media.starts_with("audio") {
            "audio"
        } else if media.starts_with("video") {
            "video"
        } else {
            sections.push(Section::channels());
            continue;
        };
        let sends = media.contains("a=sendonly");
        let codecs = if kind == "audio" { AUDIO } else { VIDEO };
        let direction = if sends { "recvonly" } else { "inactive" };
        sections.push(Section { kind, direction, track: None, rids: Vec::new(), codecs });
    }
    describe(ufrag, "active", &sections)
}

/// `(mid, direction, msid)` of each section of a description of ours.
pub(crate) fn outline(sdp: &str) -> Vec<(String, String, Option<String>)> {
    let line = |media: &str, prefix: &str| {
        let found = media.split("\r\n").find_map(|line| line.strip_prefix(prefix));
        found.map(str::to_owned)
    };
    let sections = sdp.split("\r\nm=").skip(1);
    let outline = sections.map(|media| {
        let directions = ["sendrecv", "sendonly", "recvonly", "inactive"];
        let direction = directions.into_iter().find(|direction| media.contains(&format!("a={direction}\r\n")));
        (line(media, "a=mid:").unwrap_or_default(), direction.unwrap_or("").to_owned(), line(media, "a=msid:"))
    });
    outline.collect()
}
