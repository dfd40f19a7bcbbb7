//! Bodies for the TURN service: what strangers may send it, and what somebody with credentials may.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    unreachable_pub,
    reason = "tests; cargo-fuzz targets take the bodies from here"
)]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use aws_lc_rs::hmac;
use md5::{Digest, Md5};
use weir::base::{Bitrate, Instant};
use weir::transport::route::{Route, TcpConnection};
use weir::turn::frame::Frames;
use weir::turn::{CallsConfig, Config, Output, PeerRules, TurnServer, is_public};

const KEY: &[u8] = b"key";
const USERNAME: &[u8] = b"9999:PA_anna";
const RELAYED: [u8; 4] = [9, 9, 9, 9];
/// A homeserver's user, and base64 of HMAC-SHA-1 of the name under `KEY`.
const CALLER: (&[u8], &[u8]) = (b"9999:@anna:a.b", b"h/b8LbW2fn2K8kcNZ/QL8smn/YA=");

fn link() -> Route {
    Route::Udp { local: ([192, 0, 2, 1], 3478).into(), remote: ([198, 51, 100, 7], 9).into() }
}

fn server() -> TurnServer {
    server_with(None)
}

fn server_with(calls: Option<CallsConfig>) -> TurnServer {
    let peer: SocketAddr = ([192, 0, 2, 1], 7882).into();
    let peers = [(peer, 0)].into();
    let key = KEY.to_vec();
    TurnServer::new(Config { peers, key, max_allocations: 4, max_per_user: 2, max_per_address: 3, calls }, 1)
}

/// Nothing a stranger sends is answered by more than it is, but a challenge, and that by half more at most.
pub fn turn(data: &[u8]) {
    let (mut server, mut out) = (server(), Output::default());
    server.handle(Instant::from_millis(1), link(), data, &mut out);
    let sent: usize = out.outbox.datagrams().map(|(_, datagram)| datagram.len()).sum();
    assert!(sent <= data.len() + data.len() / 2);
    assert!(out.inward.is_empty());
    assert_eq!(server.stats().allocations(), 0);
}

/// A connection's bytes, cut into messages.
pub fn turn_stream(data: &[u8]) {
    let (mut server, mut out, mut frames) = (server(), Output::default(), Frames::default());
    let route = Route::Tcp { connection: TcpConnection(1), remote: ([198, 51, 100, 7], 9).into() };
    for part in data.chunks(61) {
        frames.extend(part);
        while let Ok(Some(message)) = frames.take() {
            server.handle(Instant::from_millis(1), route, message, &mut out);
        }
    }
    assert!(out.inward.is_empty());
}

/// Signed requests and data of somebody with credentials: pieces of the input are the attributes. Whatever comes,
/// nothing but the one media address is spoken to, and nothing is left when all time limits have passed.
pub fn turn_signed(data: &[u8]) {
    let mut server = server();
    signed(&mut server, data, (USERNAME, &password()), |_, out| {
        for inward in &out.inward {
            assert!(
                matches!(inward.route, Route::Turn { peer, .. } if peer == SocketAddr::from(([192, 0, 2, 1], 7882)))
            );
        }
        assert!(out.outward.is_empty());
    });
}

/// The same of a homeserver's user: nothing but the public Internet is spoken to, and ports come back.
pub fn turn_calls(data: &[u8]) {
    let rules = PeerRules {
        relayed: vec![RELAYED.into()],
        ports: 50_000..=50_003,
        own: [RELAYED.into(), [192, 0, 2, 1].into()].into(),
        allowed: Vec::new(),
        denied: Vec::new(),
    };
    let rate = Bitrate::from_kbps(100);
    let calls = CallsConfig {
        secrets: vec![KEY.to_vec()],
        rules,
        max_allocations: 2,
        max_per_user: 2,
        user_rate: rate,
        total_rate: rate,
    };
    let mut server = server_with(Some(calls));
    for port in 50_000..50_002 {
        server.offer_relay((RELAYED, port).into());
    }
    let mut given = 0;
    signed(&mut server, data, CALLER, |server, out| {
        assert!(out.inward.is_empty());
        for outward in &out.outward {
            assert!(
                is_public(outward.peer.ip()) && outward.peer.ip() != IpAddr::from(RELAYED) && outward.peer.port() != 0
            );
            assert_eq!(outward.relayed.ip(), IpAddr::from(RELAYED));
        }
        given += std::iter::from_fn(|| server.next_ended_relay()).count();
    });
    given += std::iter::from_fn(|| server.next_ended_relay()).count();
    assert_eq!(given as u64, server.stats().calls.allocated);
}

/// Requests of one user with good signatures, and its data.
fn signed(
    server: &mut TurnServer,
    data: &[u8],
    (username, password): (&[u8], &[u8]),
    mut check: impl FnMut(&mut TurnServer, &Output),
) {
    let mut out = Output::default();
    let mut now = Instant::from_millis(1);
    let (realm, nonce) = challenge(server, now, &mut out);
    let key = long_term_key(username, &realm, password);
    let request = |kind, attributes: &[u8]| request(kind, attributes, username, (&realm, &nonce), &key);
    let mut rest = data;
    for _ in 0..32 {
        let Some(([method, length, wait, ..], after)) = rest.split_first_chunk::<4>() else { break };
        let (attributes, after) = after.split_at(usize::from(*length).min(after.len()) & !3);
        rest = after;
        now = now + Duration::from_secs(u64::from(*wait));
        server.handle_timeout(now);
        out.clear();
        let packet = match method % 8 {
            0 => request(3, &[&[0, 0x19, 0, 4, 17, 0, 0, 0], attributes].concat()),
            1 => request(4, attributes),
            2 => request(8, attributes),
            3 => request(9, attributes),
            4 => message(0x16, attributes),
            5 => [&[0x40, 0, 0, attributes.len() as u8], attributes].concat(),
            6 => request(9, BIND),
            _ => {
                server.handle_peer(now, (RELAYED, 50_000).into(), ([8, 8, 8, 8], 53).into(), attributes, &mut out);
                request(8, PERMIT_PUBLIC)
            }
        };
        server.handle(now, link(), &packet, &mut out);
        check(server, &out);
        assert!(server.stats().allocations() <= 1);
    }
    server.handle_timeout(now + Duration::from_secs(3_600));
    assert_eq!((server.stats().allocations(), server.next_timeout()), (0, None));
}

/// CHANNEL-NUMBER 0x4000 and the media address.
const BIND: &[u8] = &[0, 0x0c, 0, 4, 0x40, 0, 0, 0, 0, 0x12, 0, 8, 0, 1, 0x3f, 0xd8, 0xe1, 0x12, 0xa6, 0x43];

/// A public address.
const PERMIT_PUBLIC: &[u8] = &[0, 0x12, 0, 8, 0, 1, 0x21, 0x27, 0x29, 0x1a, 0xac, 0x4a];

fn challenge(server: &mut TurnServer, now: Instant, out: &mut Output) -> (Vec<u8>, Vec<u8>) {
    server.handle(now, link(), &message(3, &[0, 0x19, 0, 4, 17, 0, 0, 0, 0x80, 0x22, 0, 4, 1, 2, 3, 4]), out);
    let answer: Vec<u8> = out.outbox.datagrams().next().unwrap().1.to_vec();
    // ERROR-CODE, REALM of four bytes, NONCE of four bytes.
    (answer[32..36].to_vec(), answer[40..44].to_vec())
}

/// A participant's.
fn password() -> Vec<u8> {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY), USERNAME);
    tag.as_ref().iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
}

fn long_term_key(username: &[u8], realm: &[u8], password: &[u8]) -> hmac::Key {
    let hash = Md5::digest([username, b":", realm, b":", password].concat());
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &hash)
}

fn message(kind: u16, attributes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(attributes.len()).unwrap_or(0);
    let head = [&kind.to_be_bytes()[..], &length.to_be_bytes(), &[0x21, 0x12, 0xa4, 0x42], &[7; 12]];
    [&head.concat(), attributes].concat()
}

fn request(kind: u16, attributes: &[u8], username: &[u8], (realm, nonce): (&[u8], &[u8]), key: &hmac::Key) -> Vec<u8> {
    let mut all = attributes.to_vec();
    for (number, value) in [(6u16, username), (0x14, realm), (0x15, nonce)] {
        all.extend(number.to_be_bytes());
        all.extend((value.len() as u16).to_be_bytes());
        all.extend(value);
        all.resize(all.len().next_multiple_of(4), 0);
    }
    let mut covered = message(kind, &all);
    let length = covered.len() - 20 + 24;
    covered[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    let tag = hmac::sign(key, &covered);
    [&covered[..], &[0, 8, 0, 20], tag.as_ref()].concat()
}
