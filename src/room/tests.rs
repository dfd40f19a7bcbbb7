//! A room by itself: who gets which packet, with which numbers.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]

use core::time::Duration;

use super::*;
use crate::base::{Bitrate, DowntrackId, DropReason, PayloadType};
use crate::rtp::codec::{Detail, FrameInfo, vp8};
use crate::rtp::ntp::NtpTime;
use crate::rtp::rtcp::SenderInfo;
use crate::transport::params::PayloadMap;
use crate::transport::rx::{Config, RxStream};

mod svc;

/// A room with one publisher of VP8 in three encodings and one subscriber.
struct Bench {
    room: Room,
    track: TrackKey,
    downtrack: DowntrackKey,
    subscriber: ParticipantKey,
    now: Instant,
    fanout: Fanout,
    events: Vec<Event>,
}

/// What one test packet is.
#[derive(Clone, Copy)]
struct Frame {
    spatial: u8,
    seq: u64,
    timestamp: u32,
    picture: u16,
    key: bool,
    temporal: u8,
    sync: bool,
}

const FRAME: Frame = Frame { spatial: 0, seq: 100, timestamp: 3000, picture: 7, key: false, temporal: 0, sync: false };

fn demand(max_spatial: u8) -> Demand {
    Demand { enabled: true, max_spatial, max_temporal: 255, priority: 1 }
}

fn packet(now: Instant, frame: Frame) -> Packet {
    let descriptor = vp8::Descriptor::read(&[
        0x90,
        0xf0,
        (frame.picture >> 8) as u8 | 0x80,
        frame.picture as u8,
        frame.picture as u8,
        (frame.temporal << 6) | (u8::from(frame.sync) << 5) | 3,
        0x11,
        0,
        0,
    ])
    .unwrap();
    Packet {
        arrival: now,
        spatial: frame.spatial,
        seq: frame.seq,
        newest: true,
        restarted: false,
        timestamp: frame.timestamp,
        marker: true,
        payload_type: PayloadType(96),
        padding_only: false,
        size: 1000,
        audio_level: None,
        frame: FrameInfo {
            keyframe: frame.key,
            temporal: frame.temporal,
            temporal_switch: frame.sync,
            detail: Detail::Vp8(descriptor),
            ..FrameInfo::WHOLE
        },
    }
}

impl Bench {
    fn new(max_spatial: u8) -> Self {
        let now = Instant::from_millis(10_000);
        let mut room = Room::new(RoomId(1), RoomConfig::default(), now);
        let publisher = room.add_participant(ParticipantId(1));
        let subscriber = room.add_participant(ParticipantId(2));
        let track = room.add_track(TrackId(3), publisher, MediaKind::Video);
        room.tracks[track].encodings = 3;
        let new = NewDowntrack {
            id: DowntrackId(4),
            track,
            subscriber,
            sender: SenderKey::default(),
            payload_types: vec![PayloadMap { from: PayloadType(96), to: PayloadType(100), rtx: None }],
            demand: demand(max_spatial),
            first_seq: 1000,
            connected: true,
        };
        let downtrack = room.add_downtrack(now, new).unwrap();
        Self { room, track, downtrack, subscriber, now, fanout: Fanout::default(), events: Vec::new() }
    }

    fn offer(&mut self, frame: Frame) -> Option<Header> {
        self.offer_packet(&packet(self.now, frame))
    }

    fn offer_packet(&mut self, packet: &Packet) -> Option<Header> {
        self.room.on_rtp(self.track, packet, &mut self.fanout, &mut self.events);
        self.fanout.sends.pop().map(|(_, header)| header)
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.room.next_timeout().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.room.handle_timeout(self.now, &mut self.events);
            if self.room.next_timeout().is_some_and(|next| next <= self.now) {
                break;
            }
        }
        self.now = end;
    }

    fn requests(&mut self) -> Vec<u8> {
        self.room.keyframe_requests.drain(..).map(|(_, spatial)| spatial).collect()
    }
}

#[test]
fn goes_up_at_the_key_frame_of_the_higher_encoding_and_not_before() {
    let mut bench = Bench::new(2);
    let low = bench.offer(Frame { key: true, ..FRAME }).unwrap();
    assert_eq!(low.numbering.seq, 1000);
    let high = Frame { spatial: 2, seq: 5000, timestamp: 90_000, picture: 300, ..FRAME };
    assert!(bench.offer(high).is_none(), "no key frame");
    let low = bench.offer(Frame { seq: 101, timestamp: 6000, picture: 8, ..FRAME }).unwrap();
    assert_eq!(low.numbering.seq, 1001, "the lower one goes on meanwhile");
    bench.now = bench.now + Duration::from_millis(33);
    let up = bench.offer(Frame { seq: 5001, timestamp: 93_000, picture: 301, key: true, ..high }).unwrap();
    assert_eq!(up.numbering.seq, 1002);
    assert_eq!(up.numbering.vp8.unwrap().picture_id, low.numbering.vp8.unwrap().picture_id + 1);
    assert_eq!(up.numbering.timestamp, 6000 + 33 * 90, "by arrival, as no report tells better");
    assert!(bench.offer(Frame { seq: 102, timestamp: 9000, picture: 9, ..FRAME }).is_none(), "the lower one has ended");
    assert_eq!(bench.fanout.dropped.of(DropReason::OtherLayer), 2);
}

#[test]
fn timestamps_of_two_encodings_meet_by_their_sender_reports() {
    let mut bench = Bench::new(2);
    for (spatial, rtp) in [(0usize, 1_000_000u32), (2, 77_000_000)] {
        let mut rx = RxStream::new(Config { ssrc: crate::base::Ssrc(1), clock_rate: 90_000, nack: false });
        let ntp = NtpTime(0x1234_5678_0000_0000);
        let info = SenderInfo { ssrc: crate::base::Ssrc(1), ntp, rtp, packets: 0, octets: 0 };
        rx.on_sender_report(bench.now, &info);
        bench.room.tracks[bench.track].clocks[spatial] = rx.sender_clock();
    }
    bench.offer(Frame { key: true, timestamp: 1_009_000, ..FRAME }).unwrap();
    // Captured 50 ms after that frame, but 400 ms late in the network.
    bench.now = bench.now + Duration::from_millis(450);
    let up = bench.offer(Frame { spatial: 2, seq: 9, timestamp: 77_013_500, key: true, ..FRAME }).unwrap();
    assert_eq!(up.numbering.timestamp, 1_013_500);
}

#[test]
fn an_encoding_of_the_same_moment_still_comes_after() {
    let mut bench = Bench::new(1);
    bench.offer(Frame { key: true, ..FRAME }).unwrap();
    let up = bench.offer(Frame { spatial: 1, seq: 9, timestamp: 1, key: true, ..FRAME }).unwrap();
    assert_eq!(up.numbering.timestamp, 3001);
}

#[test]
fn falls_to_what_flows_and_comes_back() {
    let mut bench = Bench::new(2);
    bench.offer(Frame { spatial: 2, key: true, ..FRAME }).unwrap();
    bench.requests();
    for n in 1..20u64 {
        // The top encoding has stopped: only the lowest comes.
        bench.offer(Frame { seq: 500 + n, timestamp: 3000 * n as u32, ..FRAME });
        bench.pass(Duration::from_millis(100));
    }
    assert!(bench.requests().contains(&0), "asks for a key frame of the one that flows");
    bench.offer(Frame { seq: 600, timestamp: 70_000, key: true, ..FRAME }).unwrap();
    assert_eq!(bench.room.downtracks[bench.downtrack].current(), Some(0));
    let back = Frame { spatial: 2, seq: 9000, timestamp: 500_000, key: true, ..FRAME };
    assert!(bench.offer(back).is_some(), "its first key frame is taken at once");
    assert_eq!(bench.room.downtracks[bench.downtrack].current(), Some(2));
}

#[test]
fn leaves_temporal_layers_out_without_a_gap_and_takes_them_in_at_a_sync_frame() {
    let mut bench = Bench::new(0);
    bench.offer(Frame { key: true, ..FRAME }).unwrap();
    let low = Demand { max_temporal: 0, ..demand(0) };
    bench.room.set_demand(bench.now, bench.downtrack, low);
    let mut seen = Vec::new();
    for n in 1..9u16 {
        let temporal = [0, 2, 1, 2][usize::from(n % 4)];
        let frame =
            Frame { seq: 100 + u64::from(n), timestamp: 3000 * u32::from(n + 1), picture: 7 + n, temporal, ..FRAME };
        if let Some(header) = bench.offer(frame) {
            seen.push((header.numbering.seq, header.numbering.vp8.unwrap().picture_id));
        }
    }
    assert_eq!(seen, [(1001, 8), (1002, 9)], "numbers and picture ids close over what is left out");
    bench.room.set_demand(bench.now, bench.downtrack, demand(0));
    let next = |seq: u64, temporal, sync| Frame {
        seq,
        timestamp: 3000 * seq as u32,
        picture: seq as u16,
        temporal,
        sync,
        ..FRAME
    };
    assert!(bench.offer(next(109, 1, false)).is_none(), "refers to frames that were not sent");
    assert!(bench.offer(next(110, 1, true)).is_some());
    assert!(bench.offer(next(111, 2, false)).is_none());
    assert!(bench.offer(next(112, 2, true)).is_some());
    assert!(bench.offer(next(113, 1, false)).is_some());
}

#[test]
fn a_late_packet_fills_the_hole_that_was_left_for_it() {
    let mut bench = Bench::new(2);
    bench.offer(Frame { key: true, ..FRAME }).unwrap();
    bench.offer(Frame { seq: 102, picture: 9, timestamp: 9000, ..FRAME }).unwrap();
    let mut late = packet(bench.now, Frame { seq: 101, picture: 8, timestamp: 6000, ..FRAME });
    late.newest = false;
    let header = bench.offer_packet(&late).unwrap();
    assert_eq!((header.numbering.seq, header.numbering.timestamp), (1001, 6000));
    assert_eq!(header.numbering.vp8.unwrap().picture_id, 8);
    let mut before = packet(bench.now, Frame { seq: 50, picture: 1, timestamp: 10, ..FRAME });
    before.newest = false;
    assert!(bench.offer_packet(&before).is_none(), "from before the beginning");
    assert_eq!(bench.fanout.dropped.of(DropReason::TooLate), 1);
    // After a switch the old encoding may still fill its own holes.
    bench.offer(Frame { seq: 104, picture: 11, timestamp: 15_000, ..FRAME }).unwrap();
    bench.offer(Frame { spatial: 2, seq: 7, key: true, timestamp: 1, ..FRAME }).unwrap();
    let mut late = packet(bench.now, Frame { seq: 103, picture: 10, timestamp: 12_000, ..FRAME });
    late.newest = false;
    assert_eq!(bench.offer_packet(&late).unwrap().numbering.seq, 1003);
}

#[test]
fn padding_leaves_no_gap() {
    let mut bench = Bench::new(0);
    bench.offer(Frame { key: true, ..FRAME }).unwrap();
    let mut padding = packet(bench.now, Frame { seq: 101, ..FRAME });
    padding.padding_only = true;
    padding.frame = FrameInfo { keyframe: false, ..FrameInfo::WHOLE };
    assert!(bench.offer_packet(&padding).is_none());
    assert_eq!(bench.offer(Frame { seq: 102, picture: 8, ..FRAME }).unwrap().numbering.seq, 1001);
}

#[test]
fn a_restarted_stream_goes_on_in_the_same_numbering() {
    let mut bench = Bench::new(0);
    bench.offer(Frame { key: true, ..FRAME }).unwrap();
    let mut again =
        packet(bench.now, Frame { seq: 200_000, key: true, picture: 500, timestamp: 4_000_000_000, ..FRAME });
    again.restarted = true;
    let header = bench.offer_packet(&again).unwrap();
    assert_eq!(header.numbering.seq, 1001);
    assert_eq!(header.numbering.vp8.unwrap().picture_id, 8);
}

#[test]
fn a_low_ceiling_takes_the_lowest_layer_and_pauses_only_where_it_may() {
    let mut bench = Bench::new(2);
    for spatial in [0, 1, 2] {
        bench.offer(Frame { spatial, seq: 10, key: true, ..FRAME });
    }
    assert_eq!(bench.room.downtracks[bench.downtrack].current(), Some(2));
    bench.room.set_may_pause(bench.subscriber, Some(false));
    bench.room.on_estimate(bench.subscriber, Some(Bitrate::from_kbps(50)));
    bench.room.reallocate(bench.now, &mut bench.events);
    assert_eq!(bench.room.downtracks[bench.downtrack].wanted(), Some(0));
    assert!(!bench.events.iter().any(|e| matches!(e, Event::StreamState { .. })), "never paused against its will");
    bench.room.set_may_pause(bench.subscriber, None);
    bench.room.set_cap(bench.subscriber, Some(Bitrate::from_kbps(20)));
    bench.room.reallocate(bench.now, &mut bench.events);
    assert!(bench.events.iter().any(|e| matches!(e, Event::StreamState { paused: true, .. })));
    assert!(bench.offer(Frame { spatial: 2, seq: 11, ..FRAME }).is_none());
    assert_eq!(bench.fanout.dropped.of(DropReason::Paused), 1);
    bench.room.set_cap(bench.subscriber, None);
    bench.room.on_estimate(bench.subscriber, None);
    bench.room.reallocate(bench.now, &mut bench.events);
    assert!(matches!(bench.events.last(), Some(Event::StreamState { paused: false, .. })));
}

#[test]
fn nothing_is_paused_for_a_guess() {
    let mut bench = Bench::new(2);
    bench.offer(Frame { spatial: 0, seq: 10, key: true, ..FRAME });
    bench.room.set_certain(bench.subscriber, false);
    bench.room.on_estimate(bench.subscriber, Some(Bitrate::from_kbps(20)));
    bench.room.reallocate(bench.now, &mut bench.events);
    assert!(!bench.events.iter().any(|e| matches!(e, Event::StreamState { .. })));
    bench.room.set_certain(bench.subscriber, true);
    bench.room.reallocate(bench.now, &mut bench.events);
    assert!(bench.events.iter().any(|e| matches!(e, Event::StreamState { paused: true, .. })));
}

#[test]
fn reports_the_first_packet_of_a_track_once() {
    let mut bench = Bench::new(2);
    for n in 0..3 {
        bench.offer(Frame { seq: 100 + n, key: true, ..FRAME });
    }
    let started = bench.events.iter().filter(|e| matches!(e, Event::TrackStarted { track: TrackId(3) })).count();
    assert_eq!(started, 1);
}

#[test]
fn a_still_screen_is_asked_for_the_encoding_it_has() {
    let mut bench = Bench::new(2);
    bench.room.tracks[bench.track].screen_share = true;
    bench.offer(Frame { key: true, ..FRAME }).unwrap();
    bench.pass(Duration::from_secs(20));
    bench.requests();
    bench.room.set_demand(bench.now, bench.downtrack, Demand { enabled: false, ..demand(2) });
    bench.room.set_demand(bench.now, bench.downtrack, demand(2));
    assert_eq!(bench.room.downtracks[bench.downtrack].wanted(), Some(0));
    assert_eq!(bench.requests(), [0]);
}

/// A packet of a microphone each 20 ms, at a level.
fn sound(now: Instant, n: u64, level: u8) -> Packet {
    let frame = Frame { seq: 500 + n, timestamp: 960 * n as u32, ..FRAME };
    Packet {
        payload_type: PayloadType(96),
        audio_level: Some(level),
        marker: false,
        frame: FrameInfo::WHOLE,
        ..packet(now, frame)
    }
}

#[test]
fn a_microphone_that_is_heard_again_goes_on_as_if_it_had_never_stopped() {
    let now = Instant::from_millis(10_000);
    let mut room = Room::new(RoomId(1), RoomConfig::default(), now);
    let subscriber = room.add_participant(ParticipantId(2));
    let microphones: Vec<TrackKey> = (0..14)
        .map(|n| {
            let publisher = room.add_participant(ParticipantId(100 + n));
            let track = room.add_track(TrackId(n), publisher, MediaKind::Audio);
            room.tracks[track].clock_rate = 48_000;
            let new = NewDowntrack {
                id: DowntrackId(n),
                track,
                subscriber,
                sender: SenderKey::default(),
                payload_types: vec![PayloadMap { from: PayloadType(96), to: PayloadType(100), rtx: None }],
                demand: demand(0),
                first_seq: 1000,
                connected: true,
            };
            room.add_downtrack(now, new).unwrap();
            track
        })
        .collect();
    let (mut fanout, mut events) = (Fanout::default(), Vec::new());
    let mut sent = Vec::new();
    let mut offered = 0;
    for n in 0..1_000u64 {
        let now = now + Duration::from_millis(20 * n);
        for (at, track) in microphones.iter().enumerate() {
            // One of them speaks in the first and in the last seconds, the others are quiet.
            let level = if at == 5 && !(200..800).contains(&n) { 20 } else { 80 };
            room.on_rtp(*track, &sound(now, n, level), &mut fanout, &mut events);
            offered += 1;
            let copies: Vec<Header> = fanout.sends.drain(..).map(|(_, header)| header).collect();
            if at == 5 {
                sent.extend(copies.iter().map(|header| (n, *header)));
            } else if n > 100 {
                assert!(copies.is_empty(), "silence of {at}");
            }
        }
        room.handle_timeout(now, &mut events);
    }
    let first = sent[0].1.numbering;
    for (place, (n, header)) in sent.iter().enumerate() {
        assert_eq!(header.numbering.seq, first.seq + place as u64, "no gap");
        assert_eq!(header.numbering.timestamp, first.timestamp.wrapping_add(960 * *n as u32), "time is real");
        assert_eq!(header.marker, *n == 0 || *n == 800, "the mark of a beginning, at {n}");
    }
    let numbers: Vec<u64> = sent.iter().map(|(n, _)| *n).collect();
    assert!(numbers.contains(&300), "lingers");
    assert!(!numbers.contains(&400), "silence goes nowhere");
    assert!((800..1_000).all(|n| numbers.contains(&n)), "from the first packet on");
    assert_eq!(fanout.offered, offered);
    assert!(fanout.dropped.of(DropReason::Inaudible) > 13 * 800);
}
