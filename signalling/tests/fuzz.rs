//! Fuzz bodies of every parser of this crate that sees the network, run over a small corpus with seeded mutations. None
//! may panic or take more memory than its limits allow; what is checked beyond that stands in each body.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::collections::BTreeMap;

use signalling::livekit::{
    CandidateInit, Frame, JoinLimits, Wire, decode_request, encode_request, join_request, proto,
};
use signalling::media::IceCredentials;
use signalling::room::api::{Generation, Grants};
use signalling::sdp::{
    AnswerSection, Bandwidth, Description, Limits, LocalTransport, ReceivePlan, SectionKind, write_answer,
};
use signalling::token::{Claims, mint, verify};

/// A description that parses can be answered, and the answer parses.
pub fn fuzz_sdp(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(offer) = Description::parse(&text, &Limits::default()) else { return };
    let local = LocalTransport {
        session_id: 1,
        session_version: 1,
        credentials: IceCredentials { ufrag: "abcd".to_owned(), pwd: "0123456789abcdef01234567".to_owned() },
        fingerprint: [0; 32],
        candidates: Vec::new(),
        max_message_size: 65536,
        bandwidth: Bandwidth::TransportCc,
    };
    let plan: Vec<AnswerSection> = offer
        .sections
        .iter()
        .map(|section| match section.kind {
            SectionKind::Media(_) => AnswerSection::Receive(ReceivePlan::default()),
            _ => AnswerSection::Inactive,
        })
        .collect();
    let Ok(answer) = write_answer(&offer, &local, &plan) else { return };
    assert_eq!(answer.sections.len(), offer.sections.len());
    let all_rejected = answer.sections.iter().all(|section| section.rejected);
    let read = Description::parse(&answer.sdp.replace("a=ice-lite\r\n", ""), &Limits::default());
    assert!(all_rejected || read.is_ok(), "{read:?}\n{}", answer.sdp);
}

/// Nothing but what we signed is believed.
pub fn fuzz_token(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(claims) = verify(&text, |_| Some("secret"), 1000) {
        assert_eq!(claims, claims_we_sign());
    }
}

/// Either generation, as value of the parameter that matters there.
pub fn fuzz_join(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let limits = JoinLimits { decoded: 4096, ..JoinLimits::default() };
    let _ = join_request(Generation::V1, [("join_request", text.as_ref())], grants(), &limits);
    let _ = join_request(Generation::V0, [("attributes", text.as_ref())], grants(), &limits);
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    if let Ok(request) = join_request(Generation::V0, pairs, grants(), &limits) {
        assert!(request.client.version.len() <= 256);
    }
}

/// What decodes encodes again.
pub fn fuzz_frame(data: &[u8]) {
    if let Ok(request) = decode_request(Frame::Binary(data), 4096) {
        let _ = encode_request(&request, Wire::Text);
        encode_request(&request, Wire::Binary).unwrap();
    }
    let text = String::from_utf8_lossy(data);
    let _ = decode_request(Frame::Text(&text), 4096);
    if let Ok(Some(candidate)) = CandidateInit::decode(&text) {
        assert!(candidate.encode().is_ok());
    }
}

fn claims_we_sign() -> Claims {
    serde_json::from_value(serde_json::json!({
        "iss": "key", "sub": "alice", "exp": 2000, "video": {"roomJoin": true, "room": "r", "canUpdateOwnMetadata": true}
    }))
    .unwrap()
}

fn grants() -> Grants {
    claims_we_sign().grants().unwrap()
}

/// SplitMix64; the seed is the test's.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from(z >> 33).unwrap() % bound.max(1)
    }
}

/// Runs `body` over the corpus and over `rounds` mutations: bytes changed, pieces removed, doubled, or swapped in from
/// another entry.
fn run(corpus: &[Vec<u8>], rounds: usize, body: fn(&[u8])) {
    let mut rng = Rng(42);
    for entry in corpus {
        body(entry);
    }
    for _ in 0..rounds {
        let mut data = corpus[rng.below(corpus.len())].clone();
        for _ in 0..=rng.below(4) {
            let (from, to) = (rng.below(data.len()), rng.below(data.len()));
            let (from, to) = (from.min(to), from.max(to).min(from.min(to) + 200));
            match rng.below(5) {
                0 if !data.is_empty() => data[from] = u8::try_from(rng.below(256)).unwrap(),
                1 => drop(data.drain(from..to)),
                2 => {
                    let piece = data[from..to].to_vec();
                    data.splice(to..to, piece);
                }
                3 => {
                    let other = &corpus[rng.below(corpus.len())];
                    let start = rng.below(other.len());
                    let piece = other[start..other.len().min(start + 100)].to_vec();
                    data.splice(from..to, piece);
                }
                _ => data.truncate(to),
            }
        }
        body(&data);
    }
}

#[test]
fn sdp_survives() {
    let folder = format!("{}/tests/sdp", env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let corpus: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    run(&corpus, 2000, fuzz_sdp);
}

#[test]
fn token_survives() {
    let signed = mint(&claims_we_sign(), "secret").unwrap();
    let none = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJrZXkiLCJleHAiOjIwMDB9.".to_owned();
    let corpus = [signed, none, "a.b.c".to_owned()].map(String::into_bytes);
    run(&corpus, 5000, fuzz_token);
}

#[test]
fn join_survives() {
    use base64::Engine as _;
    use prost::Message as _;
    use std::io::Write as _;
    let request = proto::JoinRequest { participant_sid: "PA_x".to_owned(), reconnect: true, ..Default::default() };
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&request.encode_to_vec()).unwrap();
    let wrap = |compression: i32, join_request: Vec<u8>| {
        let wrapped = proto::WrappedJoinRequest { compression, join_request };
        base64::engine::general_purpose::URL_SAFE.encode(wrapped.encode_to_vec()).into_bytes()
    };
    let corpus = [
        wrap(1, gzip.finish().unwrap()),
        wrap(0, request.encode_to_vec()),
        b"eyJhIjoiYiJ9".to_vec(),
        b"sdk=js&version=2.5.0&protocol=15&auto_subscribe=1&reconnect=1&sid=PA_x&attributes=eyJhIjoiYiJ9".to_vec(),
    ];
    run(&corpus, 5000, fuzz_join);
}

#[test]
fn frame_survives() {
    use prost::Message as _;
    let offer = proto::SessionDescription {
        sdp: "v=0".to_owned(),
        id: 3,
        mid_to_track_id: BTreeMap::new().into_iter().collect(),
        ..Default::default()
    };
    let track = proto::AddTrackRequest {
        cid: "c".to_owned(),
        layers: vec![proto::VideoLayer::default()],
        ..Default::default()
    };
    let messages = [
        proto::signal_request::Message::Offer(offer),
        proto::signal_request::Message::AddTrack(track),
        proto::signal_request::Message::Leave(proto::LeaveRequest::default()),
    ];
    let requests = messages.map(|message| proto::SignalRequest { message: Some(message) });
    let mut corpus: Vec<Vec<u8>> = requests.iter().map(proto::SignalRequest::encode_to_vec).collect();
    corpus.extend(requests.iter().map(|request| serde_json::to_vec(request).unwrap()));
    corpus.push(br#"{"candidate":"candidate:1 1 udp 1 127.0.0.1 1 typ host","sdpMid":"0","sdpMLineIndex":0}"#.to_vec());
    run(&corpus, 5000, fuzz_frame);
}
