//! Our offers read back, and what answers make of them.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use super::super::Limits;
use super::*;
use crate::media::IceCredentials;

fn local(bandwidth: Bandwidth) -> LocalTransport {
    LocalTransport {
        session_id: 1,
        session_version: 1,
        credentials: IceCredentials { ufrag: "ours".to_owned(), pwd: "our password of some length".to_owned() },
        fingerprint: [0xab; 32],
        candidates: Vec::new(),
        max_message_size: 65536,
        bandwidth,
    }
}

fn codec(payload_type: u8, name: &str, fmtp: &str) -> SectionCodec {
    let is_opus = name == "opus";
    SectionCodec {
        payload_type,
        name: name.to_owned(),
        clock_rate: if is_opus { 48_000 } else { 90_000 },
        channels: if is_opus { 2 } else { 1 },
        fmtp: fmtp.to_owned(),
        feedback: Vec::new(),
        rtx: None,
    }
}

fn track(kind: MediaKind, codecs: Vec<SectionCodec>) -> OfferContent {
    let plan = SendPlan {
        stream_id: "PA_a|TR_b".to_owned(),
        track_id: "TR_b".to_owned(),
        ssrc: 10,
        rtx_ssrc: (kind == MediaKind::Video).then_some(11),
        cname: "c".to_owned(),
        codecs,
        stereo: true,
    };
    OfferContent::Send(kind, plan)
}

fn sections() -> Vec<OfferSection> {
    let contents = [
        OfferContent::Application,
        track(MediaKind::Audio, vec![codec(109, "opus", "")]),
        track(
            MediaKind::Video,
            vec![codec(120, "VP8", ""), codec(97, "H264", "packetization-mode=1;profile-level-id=42e01f")],
        ),
        OfferContent::Inactive(MediaKind::Video),
        track(MediaKind::Video, vec![codec(120, "theora", "")]),
    ];
    contents.into_iter().enumerate().map(|(mid, content)| OfferSection { mid: mid.to_string(), content }).collect()
}

/// What a client that takes everything would answer: our offer with the roles turned round.
fn answered(offer: &str) -> Description {
    let answer = offer.replace("a=sendonly", "a=recvonly").replace("actpass", "active").replace("a=ice-lite\r\n", "");
    Description::parse(&answer, &Limits::default()).unwrap()
}

#[test]
fn offers_each_payload_type_once() {
    let mut numbers: Vec<u8> = VIDEO.iter().flat_map(|(number, ..)| [*number, number + 1]).collect();
    numbers.extend(AUDIO.iter().map(|(number, ..)| *number));
    let count = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), count);
    assert!(numbers.iter().all(|number| !(64..96).contains(number) && *number < 128), "RFC 5761, 4");
}

#[test]
fn offers_the_tracks_codecs_with_fixed_numbers() {
    let offer = answered(&write_offer(&local(Bandwidth::TransportCc), &sections()));
    let numbers =
        |index: usize| offer.sections[index].codecs.iter().map(|codec| codec.payload_type).collect::<Vec<_>>();
    assert_eq!(numbers(1), [111]);
    assert_eq!(numbers(2), [96, 125]);
    assert_eq!(numbers(3).len(), VIDEO.len(), "a free section can be used for anything");
    assert_eq!(offer.sections[4].direction, Direction::Inactive, "what cannot be offered is not sent");
    assert!(offer.sections[1].codecs[0].fmtp.contains("sprop-stereo=1"));
}

#[test]
fn agrees_with_an_answer_that_takes_everything() {
    for (bandwidth, transport_cc, remb) in [(Bandwidth::TransportCc, true, true), (Bandwidth::Remb, false, true)] {
        let local = local(bandwidth);
        let answer = answered(&write_offer(&local, &sections()));
        let agreed = check_answer(&local, &sections(), &answer).unwrap();
        let directions: Vec<Direction> = agreed.iter().map(|section| section.direction).collect();
        use Direction::{Inactive, SendOnly, SendRecv};
        assert_eq!(directions, [SendRecv, SendOnly, SendOnly, Inactive, Inactive]);
        let video = &agreed[2];
        assert_eq!((video.nack, video.transport_cc, video.remb), (true, transport_cc, remb));
        assert_eq!(video.codecs.iter().map(|codec| codec.rtx).collect::<Vec<_>>(), [Some(97), Some(126)]);
        assert_eq!(video.extensions.dependency_descriptor, Some(5));
        assert_eq!(video.extensions.mid, None);
    }
}

#[test]
fn takes_away_what_the_answer_leaves_out() {
    let local = local(Bandwidth::TransportCc);
    let mut answer = answered(&write_offer(&local, &sections()));
    answer.sections[1].direction = Direction::Inactive;
    let video = &mut answer.sections[2];
    video.codecs.truncate(1);
    video.codecs[0].rtx = None;
    video.codecs[0].feedback.clear();
    video.extensions.transport_cc = Some(9);
    answer.sections[3].rejected = true;
    let agreed = check_answer(&local, &sections(), &answer).unwrap();
    assert_eq!(agreed[1].direction, Direction::Inactive);
    let video = &agreed[2];
    assert_eq!((video.codecs.len(), video.codecs[0].rtx, video.nack), (1, None, false));
    assert_eq!((video.transport_cc, video.extensions.transport_cc), (false, None), "a changed id is not agreed on");
    assert!(agreed[3].rejected);
}

#[test]
fn refuses_an_answer_to_another_offer() {
    let local = local(Bandwidth::TransportCc);
    let answer = answered(&write_offer(&local, &sections()));
    let refused = |change: &dyn Fn(&mut Description)| {
        let mut answer = answer.clone();
        change(&mut answer);
        check_answer(&local, &sections(), &answer).unwrap_err()
    };
    assert!(matches!(refused(&|answer| answer.sections.truncate(2)), SdpError::Mismatch { index: 2, .. }));
    assert!(matches!(refused(&|answer| answer.sections.swap(1, 2)), SdpError::Mismatch { index: 1, .. }));
    assert!(matches!(
        refused(&|answer| answer.sections[0].kind = SectionKind::Other),
        SdpError::Mismatch { index: 0, .. }
    ));
}
