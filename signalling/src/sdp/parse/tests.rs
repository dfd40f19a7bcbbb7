//! Lines clients write, lines they should not write, and limits.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use super::super::{Description, Direction, Limits, SdpError, Section, SectionKind, Setup};
use crate::media::MediaKind;

const FINGERPRINT: &str = "fingerprint:sha-256 00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13:14:15:16:17:18:19:1a:1b:1c:1d:1e:1f";

fn session(more: &str) -> String {
    format!("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=ice-ufrag:abcd\r\na={FINGERPRINT}\r\n{more}")
}

fn parse(text: &str) -> Result<Description, SdpError> {
    Description::parse(text, &Limits::default())
}

/// One video section with these lines.
fn section(lines: &str) -> Result<Section, SdpError> {
    let text = session(&format!("a=group:BUNDLE 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:0\r\n{lines}"));
    Ok(parse(&text)?.sections.swap_remove(0))
}

#[test]
fn takes_transport_lines_of_the_session_or_of_the_first_section() {
    let description = parse(&session("")).unwrap();
    assert_eq!((description.remote.ufrag.as_str(), description.setup), ("abcd", Setup::ActPass));
    assert_eq!(description.remote.fingerprint[..3], [0, 1, 2]);
    let text = session(
        "a=group:BUNDLE 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\na=ice-ufrag:wrong\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:1\r\na=ice-ufrag:right\r\na=setup:active\r\n",
    );
    let description = parse(&text).unwrap();
    assert_eq!((description.remote.ufrag.as_str(), description.setup), ("right", Setup::Active), "the bundle decides");
    assert_eq!(description.sections.iter().map(|section| section.bundled).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn says_what_is_missing() {
    assert_eq!(parse("v=0\n"), Err(SdpError::MissingIce));
    assert_eq!(parse("v=0\na=ice-ufrag:abcd\n"), Err(SdpError::MissingFingerprint));
    let sha1 = "v=0\na=ice-ufrag:abcd\na=fingerprint:sha-1 00:01\n";
    assert_eq!(parse(sha1), Err(SdpError::MissingFingerprint), "only sha-256 is taken");
    assert_eq!(parse(&session("a=ice-lite\n")), Err(SdpError::Role("ice-lite on both sides")));
}

#[test]
fn refuses_broken_lines_with_their_number() {
    for (line, what) in [
        ("nonsense", "a letter and ="),
        ("a=fingerprint:sha-256 00:11", "fingerprint of 32 bytes"),
        ("a=ice-ufrag:a b c d", "ice-ufrag of 4 to 256 ice-chars"),
        ("m=audio", "m= with media, port, protocol"),
        ("m=audio 70000 RTP/SAVPF 0", "a port number"),
        ("m=audio 9 RTP/SAVPF 128", "a payload type from 0 to 127"),
        ("s=\u{7}", "no control characters"),
    ] {
        assert_eq!(parse(&session(line)), Err(SdpError::Syntax { line: 7, what }), "{line}");
    }
    for line in [
        "a=mid:seventeen-letters",
        "a=mid:",
        "a=rtpmap:96 VP8",
        "a=rtpmap:96 VP8/x",
        "a=extmap:x uri",
        "a=rid:q",
        "a=rid:q/1 send",
        "a=ssrc:x cname:y",
        "a=ssrc:4294967296 cname:y",
        "a=ssrc-group:FID 1 x",
        "a=rtcp-fb:96",
        "a=max-message-size:x",
    ] {
        assert!(matches!(section(line), Err(SdpError::Syntax { line: 10, .. })), "{line}");
    }
}

#[test]
fn keeps_to_its_limits() {
    let limits = Limits { bytes: 2000, sections: 2, codecs: 3, attributes: 4 };
    let refused = |lines: &str| Description::parse(&session(lines), &limits).unwrap_err();
    assert_eq!(refused(&"a=x\n".repeat(500)), SdpError::TooLarge("bytes"));
    assert_eq!(refused(&"m=audio 9 RTP/SAVPF 0\n".repeat(3)), SdpError::TooLarge("sections"));
    assert_eq!(refused("m=audio 9 RTP/SAVPF 0 1 2 3\n"), SdpError::TooLarge("codecs"));
    let many = format!("m=audio 9 RTP/SAVPF 0\n{}", "a=x\n".repeat(5));
    assert_eq!(refused(&many), SdpError::TooLarge("attributes"));
    let rids: String = (0..17).map(|index| format!("a=rid:r{index} send\n")).collect();
    assert_eq!(section(&rids), Err(SdpError::TooLarge("rids")));
    let ssrcs: String = (0..65).map(|ssrc| format!("a=ssrc:{ssrc} cname:x\n")).collect();
    assert_eq!(section(&ssrcs), Err(SdpError::TooLarge("ssrcs")));
    let groups = "a=ssrc-group:FID 1 2\n".repeat(200);
    assert_eq!(section(&groups), Err(SdpError::TooLarge("ssrcs")));
}

#[test]
fn refuses_a_mid_used_twice() {
    let text = session("m=audio 9 RTP/SAVPF 0\na=mid:0\nm=audio 9 RTP/SAVPF 0\na=mid:0\n");
    assert_eq!(parse(&text), Err(SdpError::Mismatch { index: 1, what: "mid is used twice" }));
}

#[test]
fn tells_rejected_from_bundle_only() {
    let text = session(
        "a=group:BUNDLE 1\r\nm=video 0 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\nm=video 0 UDP/TLS/RTP/SAVPF 96\r\na=bundle-only\r\na=mid:1\r\n",
    );
    let rejected: Vec<bool> = parse(&text).unwrap().sections.iter().map(|section| section.rejected).collect();
    assert_eq!(rejected, [true, false]);
}

#[test]
fn folds_retransmissions_and_leaves_redundancy_out() {
    let codecs = section(
        "a=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96;rtx-time=3000\r\na=rtcp-fb:96 nack pli\r\na=rtcp-fb:* nack\r\n",
    )
    .unwrap()
    .codecs;
    assert_eq!(codecs.len(), 1);
    let codec = codecs.first().unwrap();
    assert_eq!((codec.name.as_str(), codec.rtx), ("VP8", Some(97)));
    assert_eq!(codec.feedback, ["nack pli", "nack"]);
    for left_out in ["red", "ULPFEC", "flexfec-03", "telephone-event", "CN"] {
        assert_eq!(section(&format!("a=rtpmap:96 {left_out}/90000\r\n")).unwrap().codecs, [], "{left_out}");
    }
}

#[test]
fn reads_simulcast_in_both_forms() {
    let rids = |lines: &str| {
        let section = section(lines).unwrap();
        (section.rids.join(" "), section.draft_simulcast)
    };
    assert_eq!(rids("a=rid:q send\na=rid:h send\na=simulcast:send q;~h recv x"), ("q h".to_owned(), false));
    assert_eq!(rids("a=simulcast:recv x;y send a,b;~c,d"), ("a c".to_owned(), false), "first alternatives");
    assert_eq!(rids("a=simulcast: send rid=lo;hi"), ("lo hi".to_owned(), true));
    assert_eq!(rids("a=rid:q send"), ("q".to_owned(), false), "one rid needs no simulcast line");
    assert_eq!(rids("a=recvonly\na=rid:q recv\na=simulcast:recv q;h"), (String::new(), false), "not ours to take");
}

#[test]
fn pairs_ssrcs_with_their_retransmissions() {
    let lines = "a=ssrc-group:SIM 3 1\na=ssrc-group:FID 1 2\na=ssrc-group:FID 3 4\na=ssrc:1 cname:c\na=ssrc:2 cname:c\na=ssrc:3 msid:s t\na=ssrc:4 cname:c\n";
    let video = section(lines).unwrap();
    assert_eq!(video.ssrcs, [(3, Some(4)), (1, Some(2))], "in the order of the simulcast group");
    assert_eq!(video.cname.as_deref(), Some("c"));
    assert_eq!(video.msid, Some(("s".to_owned(), "t".to_owned())));
    let fec = section("a=ssrc-group:FEC-FR 1 9\na=ssrc:1 cname:c\na=ssrc:9 cname:c\n").unwrap();
    assert_eq!(fec.ssrcs, [(1, None)]);
    assert_eq!(section("a=recvonly\na=ssrc:1 cname:c\n").unwrap().ssrcs, [], "a receiver's SSRC is no encoding");
}

#[test]
fn reads_extensions_with_any_suffix() {
    let lines = "a=extmap:3/sendonly urn:ietf:params:rtp-hdrext:sdes:mid\na=extmap:4 urn:ietf:params:rtp-hdrext:ssrc-audio-level vad=on\na=extmap:5/inactive urn:3gpp:video-orientation\na=extmap:15 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\na=extmap:4096 http://www.webrtc.org/experiments/rtp-hdrext/playout-delay\na=extmap:9 urn:example:unknown\n";
    let ids = section(lines).unwrap().extensions;
    assert_eq!((ids.mid, ids.audio_level), (Some(3), Some(4)));
    assert_eq!((ids.video_orientation, ids.abs_send_time, ids.playout_delay), (None, None, None));
}

#[test]
fn reads_data_channels_of_any_age() {
    let size = |lines: &str| parse(&session(lines)).unwrap().sections.swap_remove(0).max_message_size;
    assert_eq!(size("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\na=max-message-size:262144\n"), 262_144);
    assert_eq!(size("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\na=max-message-size:0\n"), u32::MAX);
    assert_eq!(size("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\na=max-message-size:99999999999\n"), u32::MAX);
    assert_eq!(size("m=application 9 DTLS/SCTP 5000\na=sctpmap:5000 webrtc-datachannel 256\na=fmtp:x y\n"), 65536);
}

#[test]
fn takes_defaults_where_nothing_is_written() {
    let text = session("a=recvonly\nm=audio 9 UDP/TLS/RTP/SAVPF 0 8 9 20\nm=text 9 RTP/AVP 98\n");
    let sections = parse(&text).unwrap().sections;
    let audio = sections.first().unwrap();
    assert_eq!((audio.kind, audio.direction), (SectionKind::Media(MediaKind::Audio), Direction::RecvOnly));
    assert_eq!(audio.codecs.iter().map(|codec| codec.name.as_str()).collect::<Vec<_>>(), ["PCMU", "PCMA", "G722"]);
    assert!(audio.bundled && audio.mid.is_empty(), "one section needs no bundle");
    assert_eq!((sections[1].kind, sections[1].bundled), (SectionKind::Other, false));
}
