//! Nanoseconds per forwarded packet for 1, 10 and 100 subscribers, beside the bare cost of sealing and of sending.
//!
//! `cargo bench --bench fanout`. A packet is 1100 bytes of VP8; a turn takes in 16 packets of one publisher. The bare
//! costs are those of the same bytes: AES-128-GCM in place, and one `sendto` per datagram on loopback.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a bench measures real time and may fail loudly"
)]

use core::hint::black_box;
use core::net::SocketAddr;
use std::net::UdpSocket;
use std::time::Instant as Clock;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use weir::base::{DowntrackId, Instant, MediaKind, ParticipantId, PayloadType, RoomId, Ssrc, TrackId, TransportId};
use weir::rtp::codec::Codec;
use weir::shard::command::Command;
use weir::shard::outbox::Outbox;
use weir::shard::{Shard, ShardConfig};
use weir::transport::params::{
    CodecParams, Demand, DowntrackParams, EncodingParams, ExtensionIds, PayloadMap, TrackParams,
};
use weir::transport::route::Route;

const SIZE: usize = 1100;
const BATCH: u64 = 16;
/// Turns of 5 ms before anything is measured.
const WARM_UP: u64 = 600;
const VP8: PayloadType = PayloadType(96);

fn route(n: u64) -> Route {
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    Route::Udp { local: address(7882), remote: address(10_000 + n as u16) }
}

fn call(subscribers: u64, sealed: bool, out: &mut Outbox) -> Shard {
    let now = Instant::ZERO;
    let mut shard = Shard::new(ShardConfig::default(), 1);
    let room = RoomId(1);
    shard.handle_command(now, Command::AddRoom { room }, out);
    for n in 0..=subscribers {
        let participant = ParticipantId(n);
        shard.handle_command(now, Command::AddParticipant { room, participant }, out);
        if sealed {
            shard.add_sealing_transport(now, participant, TransportId(n), route(n), &[7; 56], out);
        } else {
            shard.add_plain_transport(now, participant, TransportId(n), route(n), out);
        }
    }
    let codec = CodecParams { payload_type: VP8, codec: Codec::Vp8, clock_rate: 90_000, rtx: None };
    let params = TrackParams {
        kind: MediaKind::Video,
        screen_share: false,
        always_heard: false,
        mid: "0".to_owned(),
        codecs: vec![codec],
        encodings: vec![EncodingParams { rid: None, ssrc: Some(Ssrc(1)), rtx_ssrc: None }],
        extensions: ExtensionIds::default(),
        nack: true,
        muted: false,
    };
    let track = TrackId(1);
    shard.handle_command(now, Command::Publish { transport: TransportId(0), track, params }, out);
    for n in 1..=subscribers {
        let params = DowntrackParams {
            ssrc: Ssrc(1000 * n as u32),
            rtx_ssrc: Some(Ssrc(1000 * n as u32 + 1)),
            payload_types: vec![PayloadMap { from: VP8, to: VP8, rtx: Some(PayloadType(97)) }],
            extensions: ExtensionIds { abs_send_time: Some(2), transport_cc: Some(3), ..ExtensionIds::default() },
            mid: String::new(),
            cname: "one".to_owned(),
            nack: true,
            demand: Demand { enabled: true, max_spatial: 2, max_temporal: 255, priority: 1 },
        };
        let command = Command::Subscribe { transport: TransportId(n), track, downtrack: DowntrackId(n), params };
        shard.handle_command(now, command, out);
    }
    shard
}

fn packet(n: u64, buffer: &mut [u8; SIZE]) {
    buffer[..2].copy_from_slice(&[0x80, 96 | 0x80]);
    buffer[2..4].copy_from_slice(&(n as u16).to_be_bytes());
    buffer[4..8].copy_from_slice(&(n as u32 * 3000).to_be_bytes());
    buffer[8..12].copy_from_slice(&1u32.to_be_bytes());
    let picture = (n as u16 | 0x8000).to_be_bytes();
    buffer[12..28].copy_from_slice(&[
        0x90, 0xe0, picture[0], picture[1], n as u8, 0x20, 0x10, 0, 0, 0x9d, 1, 0x2a, 64, 1, 240, 0,
    ]);
}

/// Nanoseconds per forwarded packet.
fn forward(subscribers: u64, sealed: bool) -> f64 {
    let mut out = Outbox::new();
    let mut shard = call(subscribers, sealed, &mut out);
    let mut buffer = [0x5a; SIZE];
    let mut turn = |n: u64, shard: &mut Shard| {
        let now = Instant::from_millis(n * 5);
        for k in 0..BATCH {
            packet(n * BATCH + k, &mut buffer);
            shard.handle_datagram(now, route(0), &mut buffer, &mut out);
        }
        if shard.next_timeout().is_some_and(|at| at <= now) {
            shard.handle_timeout(now, &mut out);
        }
        shard.flush(now, &mut out);
        black_box(out.transmits().count());
        out.clear();
    };
    let turns = 200 + 40_000 / (subscribers + 3);
    // Nobody gives feedback here: until that is certain, video is held to a first guess.
    (1..WARM_UP).for_each(|n| turn(n, &mut shard));
    let (before, start) = (shard.stats().rtp_forwarded, Clock::now());
    (WARM_UP..WARM_UP + turns).for_each(|n| turn(n, &mut shard));
    let forwarded = shard.stats().rtp_forwarded - before;
    assert_eq!(forwarded, turns * BATCH * subscribers, "everything is forwarded");
    start.elapsed().as_nanos() as f64 / forwarded as f64
}

fn seal() -> f64 {
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16]).unwrap());
    let mut buffer = vec![0x5a; SIZE];
    let rounds = 200_000u64;
    let start = Clock::now();
    for n in 0..rounds {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&n.to_be_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let _tag = black_box(key.seal_in_place_separate_tag(nonce, Aad::from([0u8; 24]), &mut buffer).unwrap());
    }
    start.elapsed().as_nanos() as f64 / rounds as f64
}

fn send() -> f64 {
    let to = UdpSocket::bind("127.0.0.1:0").unwrap();
    let from = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (address, buffer) = (to.local_addr().unwrap(), vec![0x5a; SIZE]);
    let rounds = 50_000u32;
    let start = Clock::now();
    for _ in 0..rounds {
        // What the receiver has no room for is thrown away by the kernel; sending costs the same.
        let _sent = from.send_to(&buffer, address).unwrap();
    }
    start.elapsed().as_nanos() as f64 / f64::from(rounds)
}

fn main() {
    println!("bare, per packet of {SIZE} bytes: seal {:.0} ns, sendto on loopback {:.0} ns", seal(), send());
    for subscribers in [1, 10, 100] {
        let (plain, sealed) = (forward(subscribers, false), forward(subscribers, true));
        println!("{subscribers:>4} subscribers: {plain:.0} ns per forwarded packet plain, {sealed:.0} ns with SRTP");
    }
}
