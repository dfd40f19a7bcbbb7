//! What an answer decides; what it looks like is pinned by snapshots over recorded offers in `tests/sdp.rs`.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use super::super::{Bandwidth, Limits};
use super::*;
use crate::media::IceCredentials;

fn local() -> LocalTransport {
    LocalTransport {
        session_id: u64::MAX,
        session_version: 3,
        credentials: IceCredentials { ufrag: "ours".to_owned(), pwd: "our password of some length".to_owned() },
        fingerprint: [0xab; 32],
        candidates: vec!["candidate:1 1 udp 1 127.0.0.1 7882 typ host".to_owned()],
        max_message_size: 65536,
        bandwidth: Bandwidth::TransportCc,
    }
}

/// An offer of these sections, each with its mid, all in the bundle.
fn offer(sections: &[&str]) -> Description {
    let mids: Vec<String> = (0..sections.len()).map(|mid| mid.to_string()).collect();
    let mut text = format!("v=0\na=group:BUNDLE {}\na=ice-ufrag:abcd\n", mids.join(" "));
    text.push_str("a=fingerprint:sha-256 ");
    text.push_str(&["00"; 32].join(":"));
    for (section, mid) in sections.iter().zip(mids) {
        let (line, rest) = section.split_once('\n').unwrap_or((section, ""));
        text.push_str(&format!("\n{line}\na=mid:{mid}\n{rest}"));
    }
    Description::parse(&text, &Limits::default()).unwrap()
}

const AUDIO: &str =
    "m=audio 9 UDP/TLS/RTP/SAVPF 111 63\na=rtpmap:111 opus/48000/2\na=rtpmap:63 red/48000/2\na=sendonly";
const VIDEO: &str = "m=video 9 UDP/TLS/RTP/SAVPF 96 97 102\na=rtpmap:96 VP8/90000\na=rtpmap:97 rtx/90000\na=fmtp:97 apt=96\na=rtpmap:102 H264/90000\na=fmtp:102 packetization-mode=1;profile-level-id=42e01f\na=rtcp-fb:96 nack\na=sendonly";
const DATA: &str = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\na=sctp-port:5000";

fn receiving(section: &str) -> String {
    section.replace("sendonly", "recvonly")
}

fn vp8() -> SectionCodec {
    let mut codecs = offer(&[VIDEO]).sections.swap_remove(0).codecs;
    codecs.swap_remove(0)
}

fn send_plan(codecs: Vec<SectionCodec>) -> AnswerSection {
    AnswerSection::Send(SendPlan {
        stream_id: "PA_a|TR_b".to_owned(),
        track_id: "TR_b".to_owned(),
        ssrc: 1,
        rtx_ssrc: Some(2),
        cname: "c".to_owned(),
        codecs,
        stereo: false,
    })
}

fn answer(sections: &[&str], plan: &[AnswerSection]) -> Answer {
    write_answer(&offer(sections), &local(), plan).unwrap()
}

fn receive(plan: ReceivePlan) -> AnswerSection {
    AnswerSection::Receive(plan)
}

#[test]
fn is_lite_and_passive_with_candidates_once() {
    let sdp = answer(&[AUDIO, VIDEO], &[]).sdp;
    assert!(sdp.starts_with("v=0\r\no=- 9223372036854775807 3 IN IP4 127.0.0.1\r\n"), "{sdp}");
    assert!(sdp.contains("a=group:BUNDLE 0 1\r\n") && sdp.contains("a=ice-lite\r\n"));
    assert_eq!(sdp.matches("a=candidate:1 1 udp").count(), 1);
    assert_eq!(sdp.matches("a=setup:passive\r\n").count(), 2);
    assert_eq!(sdp.matches("a=rtcp-mux\r\n").count(), 2);
}

#[test]
fn puts_the_preferred_codec_first_or_alone() {
    let names = |plan: ReceivePlan| {
        let codecs = answer(&[VIDEO], &[receive(plan)]).sections.swap_remove(0).codecs;
        codecs.iter().map(|codec| codec.name.clone()).collect::<Vec<_>>().join(" ")
    };
    let prefer = |mime: &str| ReceivePlan { prefer: Some(mime.to_owned()), ..ReceivePlan::default() };
    assert_eq!(names(ReceivePlan::default()), "VP8 H264");
    assert_eq!(names(prefer("video/h264")), "H264 VP8");
    assert_eq!(names(ReceivePlan { only_preferred: true, ..prefer("video/H264") }), "H264");
    assert_eq!(names(ReceivePlan { only_preferred: true, ..prefer("video/AV1") }), "VP8 H264", "it was not offered");
    assert_eq!(names(ReceivePlan { disabled: vec!["video/vp8".to_owned()], ..ReceivePlan::default() }), "H264");
}

#[test]
fn wants_dependency_descriptors_of_all_video_but_vp8() {
    let uri = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";
    let video = format!("{VIDEO}\na=extmap:5 {uri}");
    let wanted = |prefer: &str| {
        let plan = ReceivePlan { prefer: Some(prefer.to_owned()), ..ReceivePlan::default() };
        let answer = answer(&[&video], &[receive(plan)]);
        assert_eq!(answer.sections[0].extensions.dependency_descriptor.is_some(), answer.sdp.contains(uri));
        answer.sdp.contains(uri)
    };
    assert!(wanted("video/H264"));
    assert!(!wanted("video/VP8"));
}

#[test]
fn asks_for_what_the_track_wants_of_opus() {
    let fmtp =
        |plan: ReceivePlan| answer(&[AUDIO], &[receive(plan)]).sections.swap_remove(0).codecs.swap_remove(0).fmtp;
    assert_eq!(fmtp(ReceivePlan::default()), "minptime=10;useinbandfec=1;usedtx=1");
    assert_eq!(fmtp(ReceivePlan { no_dtx: true, ..ReceivePlan::default() }), "minptime=10;useinbandfec=1");
    let stereo = fmtp(ReceivePlan { stereo: true, no_dtx: true, ..ReceivePlan::default() });
    assert_eq!(stereo, "minptime=10;useinbandfec=1;stereo=1;maxaveragebitrate=510000");
}

#[test]
fn cuts_the_direction_to_what_is_offered() {
    let take = || receive(ReceivePlan::default());
    assert_eq!(answer(&[AUDIO], &[take()]).sections[0].direction, Direction::RecvOnly);
    assert_eq!(answer(&[&receiving(AUDIO)], &[take()]).sections[0].direction, Direction::Inactive);
    assert_eq!(answer(&[VIDEO], &[send_plan(vec![vp8()])]).sections[0].direction, Direction::Inactive);
    let sending = answer(&[&receiving(VIDEO)], &[send_plan(vec![vp8()])]);
    assert_eq!(sending.sections[0].direction, Direction::SendOnly);
    assert_eq!(sending.sections[0].codecs.len(), 1, "only what the publisher sends");
    assert!(sending.sdp.contains("a=msid:PA_a|TR_b TR_b\r\na=ssrc-group:FID 1 2\r\n"), "{}", sending.sdp);
}

#[test]
fn sends_nothing_to_a_section_without_the_publishers_codec() {
    let av1 = SectionCodec { name: "AV1".to_owned(), ..vp8() };
    let answer = answer(&[&receiving(VIDEO)], &[send_plan(vec![av1])]);
    let section = &answer.sections[0];
    assert_eq!((section.direction, section.rejected, section.codecs.len()), (Direction::Inactive, false, 0));
    assert!(answer.sdp.contains("m=video 9 UDP/TLS/RTP/SAVPF 96 97 102\r\n"), "it stays usable: {}", answer.sdp);
}

#[test]
fn leaves_retransmissions_out_when_one_side_has_none() {
    let video = receiving(VIDEO).replace("a=fmtp:97 apt=96\n", "");
    let answer = answer(&[&video], &[send_plan(vec![vp8()])]);
    assert!(!answer.sdp.contains("FID") && !answer.sdp.contains("a=ssrc:2 "), "{}", answer.sdp);
}

#[test]
fn rejects_what_it_cannot_take_and_keeps_the_order() {
    let unknown = "m=video 9 UDP/TLS/RTP/SAVPF 99\na=rtpmap:99 theora/90000\na=sendonly";
    let text = "m=text 9 RTP/AVP 98";
    let stopped = VIDEO.replace("m=video 9", "m=video 0");
    let answer = answer(&[unknown, text, &stopped, AUDIO, DATA], &[]);
    let rejected: Vec<bool> = answer.sections.iter().map(|section| section.rejected).collect();
    assert_eq!(rejected, [true, true, true, false, false]);
    assert!(answer.sdp.contains("a=group:BUNDLE 3 4\r\n"));
    assert!(answer.sdp.contains("m=text 0 RTP/AVP 98\r\n"));
    let first_accepted = answer.sdp.find("m=audio").unwrap();
    assert!(answer.sdp.find("a=candidate").unwrap() > first_accepted, "candidates go where the transport is");
}

#[test]
fn answers_data_channels_as_they_were_offered() {
    assert!(
        answer(&[DATA], &[AnswerSection::Application]).sdp.contains("a=sctp-port:5000\r\na=max-message-size:65536\r\n")
    );
    let old = "m=application 9 DTLS/SCTP 5000\na=sctpmap:5000 webrtc-datachannel 256";
    let answered = answer(&[old], &[]).sdp;
    assert!(
        answered.contains("m=application 9 DTLS/SCTP 5000\r\n")
            && answered.contains("a=sctpmap:5000 webrtc-datachannel 1024\r\n")
    );
    assert!(answer(&[DATA], &[AnswerSection::Inactive]).sections[0].rejected);
}

#[test]
fn refuses_a_plan_that_does_not_fit() {
    let refused =
        |sections: &[&str], plan: AnswerSection| write_answer(&offer(sections), &local(), &[plan]).unwrap_err();
    assert!(matches!(refused(&[AUDIO], AnswerSection::Application), SdpError::Mismatch { index: 0, .. }));
    assert!(matches!(refused(&[DATA], receive(ReceivePlan::default())), SdpError::Mismatch { index: 0, .. }));
}

#[test]
fn takes_the_dtls_role_that_is_left_and_keeps_it() {
    let text = |setup| {
        format!(
            "v=0\r\na=ice-ufrag:abcd\r\na=fingerprint:sha-256 {}\r\na=setup:{setup}\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\n\
             a=mid:0\r\n",
            ["AB"; 32].join(":")
        )
    };
    let offer = |setup| Description::parse(&text(setup), &Limits::default()).unwrap();
    let said = |offer: &Description| {
        let sdp = write_answer(offer, &local(), &[]).unwrap().sdp;
        sdp.lines().find_map(|line| line.strip_prefix("a=setup:").map(str::to_owned)).unwrap()
    };
    let first = offer("passive");
    assert_eq!(
        (said(&first), said(&offer("active")), said(&offer("actpass"))),
        ("active".into(), "passive".into(), "passive".into())
    );
    let mut again = offer("actpass");
    again.keep_role(Some(&first.remote));
    assert_eq!((said(&again), &again.remote), ("active".into(), &first.remote));
    again.keep_role(None);
    assert_eq!(said(&again), "active");
}

#[test]
fn orders_encodings_from_low_to_high() {
    let rids = |rids: &str| {
        let lines: String = rids.split(';').map(|rid| format!("\na=rid:{rid} send")).collect();
        let extensions = "\na=extmap:1 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
        let video = format!("{VIDEO}{lines}\na=simulcast:send {rids}{extensions}");
        let answer = answer(&[&video], &[receive(ReceivePlan::default())]);
        let encodings = answer.sections[0].encodings.iter().filter_map(|encoding| encoding.rid.clone());
        (encodings.collect::<Vec<_>>().join(";"), answer.sdp.contains(&format!("a=simulcast:recv {rids}\r\n")))
    };
    assert_eq!(rids("q;h;f"), ("q;h;f".to_owned(), true));
    assert_eq!(rids("f;h;q"), ("q;h;f".to_owned(), true), "the answer keeps the offered order");
    assert_eq!(rids("h;q"), ("q;h".to_owned(), true));
    assert_eq!(rids("0;1;2"), ("2;1;0".to_owned(), true));
    assert_eq!(rids("hi;lo"), ("hi;lo".to_owned(), true));
    assert_eq!(rids("a;b;c;d"), ("a;b;c".to_owned(), false), "no more than there are layers");
}

#[test]
fn takes_two_byte_extension_ids_only_when_allowed() {
    let video = format!("{VIDEO}\na=extmap:16 urn:ietf:params:rtp-hdrext:sdes:mid");
    assert_eq!(answer(&[&video], &[receive(ReceivePlan::default())]).sections[0].extensions.mid, None);
    let mixed = format!("{video}\na=extmap-allow-mixed");
    let answer = answer(&[&mixed], &[receive(ReceivePlan::default())]);
    assert_eq!(answer.sections[0].extensions.mid, Some(16));
    assert!(answer.sdp.contains("a=extmap-allow-mixed\r\n"));
}

#[test]
fn writes_no_line_break_that_came_from_a_client() {
    let AnswerSection::Send(plan) = send_plan(vec![vp8()]) else { return };
    let hostile = SendPlan { stream_id: "PA_a|x\r\na=ice-ufrag:evil y".to_owned(), ..plan };
    let sdp = answer(&[&receiving(VIDEO)], &[AnswerSection::Send(hostile)]).sdp;
    assert!(sdp.contains("a=msid:PA_a|x__a=ice-ufrag:evil_y TR_b\r\n"), "{sdp}");
}
