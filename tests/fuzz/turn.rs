//! Bodies for the TURN service: what strangers may send it, and what somebody with credentials may.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    unreachable_pub,
    reason = "tests; cargo-fuzz targets take the bodies from here"
)]

use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::hmac;
use md5::{Digest, Md5};
use weir::base::Instant;
use weir::transport::route::{Route, TcpConnection};
use weir::turn::frame::Frames;
use weir::turn::{Config, Output, TurnServer};

const KEY: &[u8] = b"key";
const USERNAME: &[u8] = b"9999:PA_anna";

fn link() -> Route {
    Route::Udp { local: ([192, 0, 2, 1], 3478).into(), remote: ([198, 51, 100, 7], 9).into() }
}

fn server() -> TurnServer {
    let peer: SocketAddr = ([192, 0, 2, 1], 7882).into();
    let peers = [(peer, 0)].into();
    TurnServer::new(Config { peers, key: KEY.to_vec(), max_allocations: 4, max_per_user: 2, max_per_address: 3 }, 1)
}

/// Nothing a stranger sends is answered by more than it is, but a challenge, and that by half more at most.
pub fn turn(data: &[u8]) {
    let (mut server, mut out) = (server(), Output::default());
    server.handle(Instant::from_millis(1), link(), data, &mut out);
    let sent: usize = out.outbox.datagrams().map(|(_, datagram)| datagram.len()).sum();
    assert!(sent <= data.len() + data.len() / 2);
    assert!(out.inward.is_empty());
    assert_eq!(server.stats().allocations, 0);
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
    let (mut server, mut out) = (server(), Output::default());
    let mut now = Instant::from_millis(1);
    let (realm, nonce) = challenge(&mut server, now, &mut out);
    let key = long_term_key(&realm);
    let mut rest = data;
    for _ in 0..32 {
        let Some(([method, length, wait, ..], after)) = rest.split_first_chunk::<4>() else { break };
        let (attributes, after) = after.split_at(usize::from(*length).min(after.len()) & !3);
        rest = after;
        now = now + Duration::from_secs(u64::from(*wait));
        server.handle_timeout(now);
        out.clear();
        let packet = match method % 8 {
            0 => request(3, &[&[0, 0x19, 0, 4, 17, 0, 0, 0], attributes].concat(), &realm, &nonce, &key),
            1 => request(4, attributes, &realm, &nonce, &key),
            2 => request(8, attributes, &realm, &nonce, &key),
            3 => request(9, attributes, &realm, &nonce, &key),
            4 => message(0x16, attributes),
            5 => [&[0x40, 0, 0, attributes.len() as u8], attributes].concat(),
            6 => request(9, BIND, &realm, &nonce, &key),
            _ => request(8, attributes, &realm, &nonce, &key),
        };
        server.handle(now, link(), &packet, &mut out);
        for inward in &out.inward {
            assert!(
                matches!(inward.route, Route::Turn { peer, .. } if peer == SocketAddr::from(([192, 0, 2, 1], 7882)))
            );
        }
        assert!(server.stats().allocations <= 1);
    }
    server.handle_timeout(now + Duration::from_secs(3_600));
    assert_eq!((server.stats().allocations, server.next_timeout()), (0, None));
}

/// CHANNEL-NUMBER 0x4000 and the media address.
const BIND: &[u8] = &[0, 0x0c, 0, 4, 0x40, 0, 0, 0, 0, 0x12, 0, 8, 0, 1, 0x3f, 0xd8, 0xe1, 0x12, 0xa6, 0x43];

fn challenge(server: &mut TurnServer, now: Instant, out: &mut Output) -> (Vec<u8>, Vec<u8>) {
    server.handle(now, link(), &message(3, &[0, 0x19, 0, 4, 17, 0, 0, 0, 0x80, 0x22, 0, 4, 1, 2, 3, 4]), out);
    let answer: Vec<u8> = out.outbox.datagrams().next().unwrap().1.to_vec();
    // ERROR-CODE, REALM of four bytes, NONCE of four bytes.
    (answer[32..36].to_vec(), answer[40..44].to_vec())
}

fn long_term_key(realm: &[u8]) -> hmac::Key {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY), USERNAME);
    let password: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let hash = Md5::digest([USERNAME, b":", realm, b":", password.as_bytes()].concat());
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &hash)
}

fn message(kind: u16, attributes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(attributes.len()).unwrap_or(0);
    let head = [&kind.to_be_bytes()[..], &length.to_be_bytes(), &[0x21, 0x12, 0xa4, 0x42], &[7; 12]];
    [&head.concat(), attributes].concat()
}

fn request(kind: u16, attributes: &[u8], realm: &[u8], nonce: &[u8], key: &hmac::Key) -> Vec<u8> {
    let mut all = attributes.to_vec();
    for (number, value) in [(6u16, USERNAME), (0x14, realm), (0x15, nonce)] {
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
