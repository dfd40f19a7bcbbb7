//! Steady forwarding allocates nothing: not per packet, not per report.
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests; a counting allocator is the only way to know"
)]

use core::net::SocketAddr;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use weir::base::{
    DowntrackId, Instant, MediaKind, ParticipantId, PayloadType, RoomId, ShardId, Ssrc, TrackId, TransportId,
};
use weir::rtp::codec::Codec;
use weir::rtp::rtcp::{ReportBlock, write};
use weir::shard::command::Command;
use weir::shard::outbox::Outbox;
use weir::shard::{Shard, ShardConfig};
use weir::transport::params::{
    CodecParams, Demand, DowntrackParams, EncodingParams, ExtensionIds, PayloadMap, TrackParams,
};
use weir::transport::route::Route;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is handed to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SUBSCRIBERS: u64 = 10;

fn route(n: u64) -> Route {
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    Route::Udp { local: address(7882), remote: address(10_000 + n as u16) }
}

fn extensions() -> ExtensionIds {
    ExtensionIds { transport_cc: Some(3), abs_send_time: Some(2), audio_level: Some(1), ..ExtensionIds::default() }
}

/// A publisher of sound and of VP8, and subscribers whose packets are sealed.
fn call(out: &mut Outbox) -> Shard {
    let mut shard = empty(out);
    join(&mut shard, 0, out);
    (1..=SUBSCRIBERS).for_each(|n| join(&mut shard, n, out));
    for (track, kind) in TRACKS {
        let command = Command::Publish { transport: TransportId(0), track, params: published(track, kind) };
        shard.handle_command(Instant::ZERO, command, out);
    }
    subscribe(&mut shard, out);
    shard
}

/// The same on two shards: the publisher on the first, all others on the second.
fn call_apart(outs: &mut [Outbox; 2]) -> [Shard; 2] {
    let [here, there] = outs;
    let mut shards = [empty(here), empty(there)];
    join(&mut shards[0], 0, here);
    (1..=SUBSCRIBERS).for_each(|n| join(&mut shards[1], n, there));
    for (track, kind) in TRACKS {
        let params = published(track, kind);
        let mirror = Command::Mirror { room: RoomId(1), track, origin: ShardId(0), params: params.clone() };
        let publish = Command::Publish { transport: TransportId(0), track, params };
        shards[0].handle_command(Instant::ZERO, publish, here);
        shards[1].handle_command(Instant::ZERO, mirror, there);
    }
    subscribe(&mut shards[1], there);
    shards
}

const TRACKS: [(TrackId, MediaKind); 2] = [(TrackId(1), MediaKind::Audio), (TrackId(2), MediaKind::Video)];

fn empty(out: &mut Outbox) -> Shard {
    let mut shard = Shard::new(ShardConfig::default(), 1);
    shard.handle_command(Instant::ZERO, Command::AddRoom { room: RoomId(1) }, out);
    shard
}

fn join(shard: &mut Shard, n: u64, out: &mut Outbox) {
    let participant = ParticipantId(n);
    shard.handle_command(Instant::ZERO, Command::AddParticipant { room: RoomId(1), participant }, out);
    shard.add_sealing_transport(Instant::ZERO, participant, TransportId(n), route(n), &[7; 56], out);
}

fn codec(kind: MediaKind) -> CodecParams {
    let video = kind == MediaKind::Video;
    CodecParams {
        payload_type: PayloadType(if video { 96 } else { 111 }),
        codec: if video { Codec::Vp8 } else { Codec::Opus },
        clock_rate: if video { 90_000 } else { 48_000 },
        rtx: None,
    }
}

fn published(track: TrackId, kind: MediaKind) -> TrackParams {
    TrackParams {
        kind,
        screen_share: false,
        always_heard: false,
        mid: track.0.to_string(),
        codecs: vec![codec(kind)],
        encodings: vec![EncodingParams { rid: None, ssrc: Some(Ssrc(track.0 as u32)), rtx_ssrc: None }],
        extensions: extensions(),
        nack: true,
        muted: false,
    }
}

fn subscribe(shard: &mut Shard, out: &mut Outbox) {
    for (track, kind) in TRACKS {
        for n in 1..=SUBSCRIBERS {
            let ssrc = 1000 * n as u32 + 10 * track.0 as u32;
            let codec = codec(kind);
            let params = DowntrackParams {
                ssrc: Ssrc(ssrc),
                rtx_ssrc: (kind == MediaKind::Video).then_some(Ssrc(ssrc + 1)),
                payload_types: vec![PayloadMap {
                    from: codec.payload_type,
                    to: codec.payload_type,
                    rtx: Some(PayloadType(97)),
                }],
                extensions: extensions(),
                mid: String::new(),
                cname: "one".to_owned(),
                nack: true,
                demand: Demand { enabled: true, max_spatial: 2, max_temporal: 255, priority: 1 },
            };
            let downtrack = DowntrackId(n * 10 + track.0);
            let command = Command::Subscribe { transport: TransportId(n), track, downtrack, params };
            shard.handle_command(Instant::ZERO, command, out);
        }
    }
}

fn packet(ssrc: u32, n: u64, cc: u16, buffer: &mut [u8; 1100]) -> usize {
    let video = ssrc == 2;
    buffer[..2].copy_from_slice(&[0x90, if video { 96 | 0x80 } else { 111 }]);
    buffer[2..4].copy_from_slice(&(n as u16).to_be_bytes());
    buffer[4..8].copy_from_slice(&(n as u32 * 960).to_be_bytes());
    buffer[8..12].copy_from_slice(&ssrc.to_be_bytes());
    buffer[12..16].copy_from_slice(&[0xbe, 0xde, 0, 2]);
    let [high, low] = cc.to_be_bytes();
    buffer[16..24].copy_from_slice(&[0x10, 20, 0x31, high, low, 0, 0, 0]);
    let picture = (n as u16 | 0x8000).to_be_bytes();
    buffer[24..40].copy_from_slice(&[
        0x90, 0xe0, picture[0], picture[1], n as u8, 0x20, 0x10, 0, 0, 0x9d, 1, 0x2a, 64, 1, 240, 0,
    ]);
    if video { 1100 } else { 120 }
}

/// 20 ms of the call, with a report and a NACK of each subscriber now and then.
fn turn(shard: &mut Shard, n: u64, out: &mut Outbox, rtcp: &mut Vec<u8>, buffer: &mut [u8; 1100]) -> u64 {
    let now = Instant::from_millis(20 * n);
    for ssrc in [1, 2] {
        let len = packet(ssrc, n, (2 * n) as u16 + ssrc as u16, buffer);
        shard.handle_datagram(now, route(0), &mut buffer[..len], out);
    }
    if n.is_multiple_of(50) {
        for subscriber in 1..=SUBSCRIBERS {
            rtcp.clear();
            let ssrc = Ssrc(1000 * subscriber as u32 + 20);
            let block = ReportBlock::nothing_lost(ssrc, 0);
            write::receiver_report(rtcp, Ssrc(1), &[block]);
            shard.handle_datagram(now, route(subscriber), rtcp, out);
        }
    }
    if shard.next_timeout().is_some_and(|at| at <= now) {
        shard.handle_timeout(now, out);
    }
    shard.flush(now, out);
    let sent = out.datagrams().count() as u64;
    out.clear();
    sent
}

/// A room on two shards: the publisher on one, the subscribers on the other. Batches go over and their memory back, as
/// media threads do it.
fn turn_apart(shards: &mut [Shard; 2], outs: &mut [Outbox; 2], n: u64, buffer: &mut [u8; 1100]) -> u64 {
    let now = Instant::from_millis(20 * n);
    for ssrc in [1, 2] {
        let len = packet(ssrc, n, (2 * n) as u16 + ssrc as u16, buffer);
        shards[0].handle_datagram(now, route(0), &mut buffer[..len], &mut outs[0]);
    }
    let mut sent = 0;
    for from in [0, 1] {
        let to = 1 - from;
        let (shard, out) = (&mut shards[from], &mut outs[from]);
        if shard.next_timeout().is_some_and(|at| at <= now) {
            shard.handle_timeout(now, out);
        }
        shard.flush(now, out);
        sent += out.datagrams().count() as u64;
        out.clear();
        let [a, b] = outs;
        let (from_out, to_out) = if from == 0 { (a, b) } else { (b, a) };
        for (_, batch) in from_out.crossings.full() {
            shards[to].handle_relayed(now, ShardId(from as u16), batch, to_out);
            batch.clear();
        }
    }
    sent
}

#[test]
fn a_room_on_two_shards_allocates_nothing_either() {
    let mut outs = [Outbox::new(), Outbox::new()];
    let mut shards = call_apart(&mut outs);
    let mut buffer = [0x5a; 1100];
    let warm = 1000u64;
    for n in 1..warm {
        turn_apart(&mut shards, &mut outs, n, &mut buffer);
    }
    let forwarded = shards[1].stats().rtp_forwarded;
    let relayed = shards[0].stats().relayed_sent;
    let before = ALLOCATIONS.with(Cell::get);
    for n in warm..warm + 1000 {
        turn_apart(&mut shards, &mut outs, n, &mut buffer);
    }
    let allocations = ALLOCATIONS.with(Cell::get) - before;
    assert_eq!(shards[0].stats().relayed_sent - relayed, 2000, "each packet crosses once: {:?}", shards[0].stats());
    assert_eq!(shards[1].stats().rtp_forwarded - forwarded, 1000 * 2 * SUBSCRIBERS, "{:?}", shards[1].stats());
    assert_eq!(allocations, 0);
}

#[test]
fn steady_forwarding_allocates_nothing() {
    let mut out = Outbox::new();
    let mut shard = call(&mut out);
    let mut buffer = [0x5a; 1100];
    let mut rtcp = Vec::with_capacity(1500);
    let warm = 1000u64;
    for n in 1..warm {
        turn(&mut shard, n, &mut out, &mut rtcp, &mut buffer);
    }
    let forwarded = shard.stats().rtp_forwarded;
    let before = ALLOCATIONS.with(Cell::get);
    let sent: u64 = (warm..warm + 1000).map(|n| turn(&mut shard, n, &mut out, &mut rtcp, &mut buffer)).sum();
    let allocations = ALLOCATIONS.with(Cell::get) - before;
    let forwarded = shard.stats().rtp_forwarded - forwarded;
    assert_eq!(forwarded, 1000 * 2 * SUBSCRIBERS, "everything went through: {:?}", shard.stats());
    assert!(sent > forwarded, "reports too");
    assert_eq!(allocations, 0, "in {forwarded} forwarded packets over {:?}", Duration::from_millis(20_000));
}
