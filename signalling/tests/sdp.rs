//! Our answers to offers recorded from Chromium 156, Firefox 153 and the Python SDK 1.2.1, and to hand-made ones in the
//! style of Safari, of Firefox before 60 and of munged simulcast. Answers of this form were taken by the recorded clients;
//! a change in a snapshot has to be tried there again.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

use signalling::media::{IceCredentials, MediaKind};
use signalling::sdp::{
    Answer, AnswerSection, Bandwidth, Description, Direction, Limits, LocalTransport, OfferContent, OfferSection,
    ReceivePlan, SectionCodec, SectionKind, SendPlan, check_answer, write_answer,
};

fn local() -> LocalTransport {
    LocalTransport {
        session_id: 4711,
        session_version: 2,
        credentials: IceCredentials { ufrag: "0abcdefg".to_owned(), pwd: "abcdefghijklmnopqrstuvwx".to_owned() },
        fingerprint: [0xab; 32],
        candidates: vec![
            "candidate:1 1 udp 2130706431 127.0.0.1 7882 typ host".to_owned(),
            "candidate:2 1 tcp 1671430143 127.0.0.1 7881 typ host tcptype passive".to_owned(),
        ],
        max_message_size: 65536,
        bandwidth: Bandwidth::TransportCc,
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

fn send_plan(mid: &str, kind: MediaKind) -> SendPlan {
    let codecs = match kind {
        MediaKind::Audio => vec![codec(111, "opus", "")],
        MediaKind::Video => {
            vec![codec(96, "VP8", ""), codec(102, "H264", "packetization-mode=1;profile-level-id=42e01f")]
        }
    };
    SendPlan {
        stream_id: format!("PA_publisher|TR_{mid}"),
        track_id: format!("TR_{mid}"),
        ssrc: 1000,
        rtx_ssrc: (kind == MediaKind::Video).then_some(2000),
        cname: "PA_publisher".to_owned(),
        codecs,
        stereo: false,
    }
}

fn offer(name: &str) -> Description {
    let path = format!("{}/tests/sdp/{name}.sdp", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    Description::parse(&text, &Limits::default()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Takes everything, and sends a track into every second receiving section.
fn answer(name: &str) -> Answer {
    let offer = offer(name);
    let plan: Vec<AnswerSection> = offer
        .sections
        .iter()
        .enumerate()
        .map(|(index, section)| match (section.kind, section.direction) {
            (SectionKind::Media(_), Direction::SendRecv | Direction::SendOnly) => {
                AnswerSection::Receive(ReceivePlan { prefer: Some("video/VP8".to_owned()), ..ReceivePlan::default() })
            }
            (SectionKind::Media(kind), Direction::RecvOnly) if index % 2 == 0 => {
                AnswerSection::Send(send_plan(&section.mid, kind))
            }
            (SectionKind::Application, _) => AnswerSection::Application,
            _ => AnswerSection::Inactive,
        })
        .collect();
    write_answer(&offer, &local(), &plan).unwrap()
}

fn directions(answer: &Answer) -> String {
    let letter = |section: &signalling::sdp::NegotiatedSection| match (section.rejected, section.direction) {
        (true, _) => 'x',
        (_, Direction::SendOnly) => 's',
        (_, Direction::RecvOnly) => 'r',
        (_, Direction::SendRecv) => 'd',
        (_, Direction::Inactive) => '-',
    };
    answer.sections.iter().map(letter).collect()
}

/// Every answer is itself a description, with the same sections.
#[test]
fn every_answer_mirrors_its_offer() {
    for (name, expected) in [
        ("chromium-receive", "s-s-s-d"),
        ("chromium-publish", "s-s-s-rrrd"),
        ("chromium-addtrack", "rrd"),
        ("chromium-h264", "rrd"),
        ("firefox-receive", "s-s-s-d"),
        ("firefox-publish", "s-s-s-rrrd"),
        ("firefox-single", "rrd"),
        ("python-join", "s-s-s-d"),
        ("python-more-sections", "s-s-s-d-s"),
        ("python-publisher", "s-s-s-d"),
        ("safari-publish", "drr"),
        ("old-firefox-publish", "rd"),
        ("munged-simulcast", "r"),
    ] {
        let answer = answer(name);
        assert_eq!(directions(&answer), expected, "{name}");
        let sdp = answer.sdp.replace("a=ice-lite\r\n", "");
        let read = Description::parse(&sdp, &Limits::default()).unwrap();
        let offered = offer(name);
        assert_eq!(
            read.sections.iter().map(|section| &section.mid).collect::<Vec<_>>(),
            offered.sections.iter().map(|section| &section.mid).collect::<Vec<_>>(),
            "{name}"
        );
        for forbidden in [" red/", "ulpfec", "flexfec", "telephone-event", "video-orientation"] {
            assert!(!answer.sdp.contains(forbidden), "{name}: {forbidden}");
        }
        for (section, offered) in answer.sections.iter().zip(&offered.sections) {
            for codec in &section.codecs {
                let same = |offered: &&SectionCodec| offered.payload_type == codec.payload_type;
                assert_eq!(offered.codecs.iter().find(same).unwrap().name, codec.name, "{name}: offered numbers stay");
            }
        }
    }
}

#[test]
fn answers_a_publishing_chromium() {
    insta::assert_snapshot!(answer("chromium-publish").sdp);
}

#[test]
fn answers_a_publishing_firefox() {
    insta::assert_snapshot!(answer("firefox-publish").sdp);
}

#[test]
fn answers_python_after_more_sections() {
    insta::assert_snapshot!(answer("python-more-sections").sdp);
}

#[test]
fn answers_safari() {
    insta::assert_snapshot!(answer("safari-publish").sdp);
}

#[test]
fn answers_an_old_firefox_in_its_draft() {
    insta::assert_snapshot!(answer("old-firefox-publish").sdp);
}

/// Rids and SSRCs of what is published, lowest layer first.
fn encodings(name: &str, index: usize) -> String {
    let encodings = &answer(name).sections[index].encodings;
    let one = |encoding: &signalling::media::EncodingParams| match (&encoding.rid, encoding.ssrc) {
        (Some(rid), _) => rid.clone(),
        (None, Some(_)) => format!("ssrc{}", if encoding.rtx_ssrc.is_some() { "+rtx" } else { "" }),
        (None, None) => "any".to_owned(),
    };
    encodings.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn finds_the_encodings_of_every_client() {
    assert_eq!(encodings("chromium-publish", 6), "ssrc");
    assert_eq!(encodings("chromium-publish", 7), "q h f");
    assert_eq!(encodings("chromium-publish", 8), "q h");
    assert_eq!(encodings("chromium-addtrack", 1), "ssrc+rtx");
    assert_eq!(encodings("firefox-publish", 7), "q h f");
    assert_eq!(encodings("firefox-single", 1), "ssrc+rtx");
    assert_eq!(encodings("safari-publish", 2), "q h f");
    assert_eq!(encodings("old-firefox-publish", 0), "hi lo");
    assert_eq!(encodings("munged-simulcast", 0), "ssrc+rtx ssrc+rtx ssrc+rtx");
}

/// The offer that the recorded answers belong to.
fn offered() -> Vec<OfferSection> {
    let contents = [
        OfferContent::Application,
        OfferContent::Send(MediaKind::Audio, send_plan("1", MediaKind::Audio)),
        OfferContent::Send(MediaKind::Video, send_plan("2", MediaKind::Video)),
        OfferContent::Inactive(MediaKind::Video),
        OfferContent::Inactive(MediaKind::Audio),
        OfferContent::Send(
            MediaKind::Video,
            SendPlan {
                codecs: vec![codec(45, "AV1", ""), codec(98, "VP9", "profile-id=0")],
                ..send_plan("5", MediaKind::Video)
            },
        ),
    ];
    contents.into_iter().enumerate().map(|(mid, content)| OfferSection { mid: mid.to_string(), content }).collect()
}

#[test]
fn reads_the_answers_of_real_clients_to_our_offer() {
    for (name, codecs) in [("chromium", "VP8 H264"), ("python", "VP8 H264"), ("firefox", "VP8")] {
        let answer = offer(&format!("answer-{name}"));
        let agreed = check_answer(&local(), &offered(), &answer).unwrap();
        let directions: Vec<Direction> = agreed.iter().map(|section| section.direction).collect();
        use Direction::{Inactive, SendOnly, SendRecv};
        assert_eq!(directions, [SendRecv, SendOnly, SendOnly, Inactive, Inactive, SendOnly], "{name}");
        let video = &agreed[2];
        assert_eq!(
            video.codecs.iter().map(|codec| codec.name.as_str()).collect::<Vec<_>>().join(" "),
            codecs,
            "{name}"
        );
        assert!(video.nack && video.transport_cc && video.codecs.iter().all(|codec| codec.rtx.is_some()), "{name}");
    }
}
