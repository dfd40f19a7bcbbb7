//! The shard with plain transports: commands in, RTP in, RTP out.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]

mod runs;

use core::net::SocketAddr;
use core::time::Duration;

use super::*;
use crate::base::{MediaKind, PayloadType, Ssrc};
use crate::rtp::codec::Codec;
use crate::rtp::packet::PacketView;
use crate::rtp::rtcp::{Compound, Packet as Rtcp, ReportBlock, write};
use crate::shard::command::Command;
use crate::transport::params::{
    CodecParams, Demand, DowntrackParams, EncodingParams, ExtensionIds, PayloadMap, TrackParams,
};

mod relay;

const ROOM: RoomId = RoomId(1);
const OPUS: PayloadType = PayloadType(111);
const VP8: PayloadType = PayloadType(96);
const VP8_RTX: PayloadType = PayloadType(97);

fn route(n: u64) -> Route {
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    Route::Udp { local: address(7882), remote: address(10_000 + n as u16) }
}

/// A shard, its outbox, the time, and what came out.
struct Bench {
    shard: Shard,
    out: Outbox,
    now: Instant,
    /// Subscribers negotiate transport-wide feedback.
    numbered: bool,
}

impl Bench {
    /// A room with participants 1 to `participants`, each with a transport of the same number.
    fn new(participants: u64) -> Self {
        let (shard, now) = (Shard::new(ShardConfig::default(), 7), Instant::from_millis(1000));
        let mut bench = Self { shard, out: Outbox::new(), now, numbered: false };
        bench.command(Command::AddRoom { room: ROOM });
        for n in 1..=participants {
            bench.command(Command::AddParticipant { room: ROOM, participant: ParticipantId(n) });
            let (participant, transport) = (ParticipantId(n), TransportId(n));
            bench.shard.add_plain_transport(bench.now, participant, transport, route(n), &mut bench.out);
        }
        bench.take();
        bench
    }

    fn command(&mut self, command: Command) {
        self.shard.handle_command(self.now, command, &mut self.out);
    }

    fn publish(&mut self, transport: u64, track: u64, params: TrackParams) {
        self.command(Command::Publish { transport: TransportId(transport), track: TrackId(track), params });
    }

    fn subscribe(&mut self, transport: u64, track: u64, downtrack: u64, ssrc: u32) {
        self.subscribe_in(transport, track, downtrack, ssrc, "");
    }

    /// In a section with a name, where it is not empty.
    fn subscribe_in(&mut self, transport: u64, track: u64, downtrack: u64, ssrc: u32, mid: &str) {
        let params = DowntrackParams {
            ssrc: Ssrc(ssrc),
            rtx_ssrc: Some(Ssrc(ssrc + 1)),
            payload_types: vec![
                PayloadMap { from: OPUS, to: PayloadType(63), rtx: None },
                PayloadMap { from: VP8, to: PayloadType(100), rtx: Some(PayloadType(101)) },
            ],
            extensions: ExtensionIds {
                mid: Some(4),
                transport_cc: self.numbered.then_some(5),
                ..ExtensionIds::default()
            },
            mid: mid.to_owned(),
            cname: "PA_one".to_owned(),
            nack: true,
            demand: Demand { enabled: true, max_spatial: 2, max_temporal: 255, priority: 1 },
        };
        self.command(Command::Subscribe {
            transport: TransportId(transport),
            track: TrackId(track),
            downtrack: DowntrackId(downtrack),
            params,
        });
    }

    fn send(&mut self, from: u64, datagram: &[u8]) {
        self.shard.handle_datagram(self.now, route(from), &mut datagram.to_vec(), &mut self.out);
    }

    /// End a turn; what came out, by destination.
    fn take(&mut self) -> Vec<(Route, Vec<u8>)> {
        self.shard.flush(self.now, &mut self.out);
        let sent = self.out.datagrams().map(|(route, bytes)| (route, bytes.to_vec())).collect();
        self.out.clear();
        sent
    }

    /// Let time pass, turn by turn; what came out.
    fn pass(&mut self, time: Duration) -> Vec<(Route, Vec<u8>)> {
        let end = self.now + time;
        let mut sent = Vec::new();
        while let Some(at) = self.shard.next_timeout().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.shard.handle_timeout(self.now, &mut self.out);
            sent.extend(self.take());
        }
        self.now = end;
        sent
    }

    fn assert_conserved(&self) {
        let stats = self.shard.stats();
        assert_eq!(stats.rtp_offered, stats.rtp_forwarded + stats.copies_dropped.total(), "{stats:?}");
    }
}

fn track(kind: MediaKind, ssrc: u32) -> TrackParams {
    let audio = CodecParams { payload_type: OPUS, codec: Codec::Opus, clock_rate: 48_000, rtx: None };
    let video = CodecParams { payload_type: VP8, codec: Codec::Vp8, clock_rate: 90_000, rtx: Some(VP8_RTX) };
    TrackParams {
        kind,
        screen_share: false,
        always_heard: false,
        mid: ssrc.to_string(),
        codecs: vec![if kind == MediaKind::Audio { audio } else { video }],
        encodings: vec![EncodingParams { rid: None, ssrc: Some(Ssrc(ssrc)), rtx_ssrc: Some(Ssrc(ssrc + 1)) }],
        extensions: ExtensionIds { audio_level: Some(1), ..ExtensionIds::default() },
        nack: true,
        muted: false,
    }
}

fn rtp(payload_type: PayloadType, seq: u16, timestamp: u32, ssrc: u32, marker: bool, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, payload_type.0 | if marker { 0x80 } else { 0 }];
    packet.extend_from_slice(&seq.to_be_bytes());
    packet.extend_from_slice(&timestamp.to_be_bytes());
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

/// A packet of VP8 with picture id, TL0PICIDX and temporal layer.
fn vp8(key: bool, start: bool, picture: u16, tail: &[u8]) -> Vec<u8> {
    let mut payload = vec![0x80 | if start { 0x10 } else { 0 }, 0xe0];
    payload.extend_from_slice(&(picture | 0x8000).to_be_bytes());
    payload.extend_from_slice(&[picture as u8, 0x20]);
    if start {
        payload.extend_from_slice(if key { &[0x10, 0, 0, 0x9d, 1, 0x2a, 64, 1, 240, 0] } else { &[0x11, 0, 0] });
    }
    payload.extend_from_slice(tail);
    payload
}

fn rtp_to(sent: &[(Route, Vec<u8>)], to: u64) -> Vec<&[u8]> {
    let is_rtp = |bytes: &[u8]| !(192..=223).contains(&bytes[1]);
    sent.iter().filter(|(r, bytes)| *r == route(to) && is_rtp(bytes)).map(|(_, bytes)| bytes.as_slice()).collect()
}

fn plis_to(sent: &[(Route, Vec<u8>)], to: u64) -> usize {
    let rtcp = sent.iter().filter(|(r, bytes)| *r == route(to) && (192..=223).contains(&bytes[1]));
    rtcp.flat_map(|(_, bytes)| Compound::new(bytes)).filter(|p| matches!(p, Ok(Rtcp::Pli { .. }))).count()
}

#[test]
fn forwards_sound_to_every_subscriber_with_its_own_numbers() {
    let mut bench = Bench::new(3);
    bench.publish(1, 10, track(MediaKind::Audio, 500));
    bench.subscribe(2, 10, 20, 9000);
    bench.subscribe(3, 10, 30, 9100);
    let mut first = None;
    for n in 0..50u16 {
        bench.send(1, &rtp(OPUS, 65_530u16.wrapping_add(n), 1000 + 960 * u32::from(n), 500, n == 0, &[0x78, n as u8]));
        let sent = bench.take();
        for (to, ssrc) in [(2, 9000), (3, 9100)] {
            let packets = rtp_to(&sent, to);
            assert_eq!(packets.len(), 1, "packet {n} to {to}");
            let view = PacketView::parse(packets[0]).unwrap();
            assert_eq!(view.ssrc(), Ssrc(ssrc));
            assert_eq!(view.payload_type(), PayloadType(63));
            assert_eq!(view.payload(), [0x78, n as u8]);
            if to == 2 {
                let start = *first.get_or_insert_with(|| view.sequence());
                assert_eq!(view.sequence(), start.wrapping_add(n));
            }
        }
        assert!(rtp_to(&sent, 1).is_empty(), "nothing comes back");
        bench.now = bench.now + Duration::from_millis(20);
    }
    bench.assert_conserved();
    assert_eq!(bench.shard.stats().rtp_forwarded, 100);
}

#[test]
fn asks_for_a_key_frame_and_begins_with_it() {
    let mut bench = Bench::new(2);
    bench.publish(1, 10, track(MediaKind::Video, 500));
    bench.send(1, &rtp(VP8, 1, 3000, 500, true, &vp8(false, true, 1, b"delta")));
    bench.subscribe(2, 10, 20, 9000);
    let sent = bench.take();
    assert_eq!(plis_to(&sent, 1), 1);
    bench.send(1, &rtp(VP8, 2, 6000, 500, true, &vp8(false, true, 2, b"delta")));
    assert!(rtp_to(&bench.take(), 2).is_empty());
    bench.send(1, &rtp(VP8, 3, 9000, 500, false, &vp8(true, true, 3, b"key")));
    bench.send(1, &rtp(VP8, 4, 9000, 500, true, &vp8(true, false, 3, b"rest")));
    let sent = bench.take();
    let packets = rtp_to(&sent, 2);
    assert_eq!(packets.len(), 2);
    let [a, b] = [0, 1].map(|n| PacketView::parse(packets[n]).unwrap());
    assert_eq!(b.sequence(), a.sequence().wrapping_add(1));
    assert_eq!(a.payload(), vp8(true, true, 3, b"key"));
    assert!(b.marker());
    assert_eq!(plis_to(&bench.pass(Duration::from_secs(3)), 1), 0, "nobody waits any more");
    bench.assert_conserved();
}

#[test]
fn answers_a_nack_on_the_retransmission_stream() {
    let mut bench = Bench::new(2);
    bench.publish(1, 10, track(MediaKind::Video, 500));
    bench.subscribe(2, 10, 20, 9000);
    for n in 0..3u16 {
        bench.send(1, &rtp(VP8, n, 3000 * u32::from(n), 500, true, &vp8(n == 0, true, n, &[n as u8; 20])));
    }
    let sent = bench.take();
    let lost = PacketView::parse(rtp_to(&sent, 2)[1]).unwrap();
    let mut nack = Vec::new();
    write::nack(&mut nack, Ssrc(1), Ssrc(9000), [lost.sequence()]);
    bench.send(2, &nack);
    let sent = bench.take();
    let again = PacketView::parse(rtp_to(&sent, 2)[0]).unwrap();
    assert_eq!((again.ssrc(), again.payload_type()), (Ssrc(9001), PayloadType(101)));
    assert_eq!(again.timestamp(), lost.timestamp());
    assert_eq!(again.payload()[..2], lost.sequence().to_be_bytes());
    assert_eq!(&again.payload()[2..], lost.payload());
    bench.send(2, &nack);
    assert!(rtp_to(&bench.take(), 2).is_empty(), "not again at once");
}

#[test]
fn asks_the_publisher_for_what_is_missing_and_fits_it_in() {
    let mut bench = Bench::new(2);
    bench.publish(1, 10, track(MediaKind::Video, 500));
    bench.subscribe(2, 10, 20, 9000);
    for n in [0u16, 1, 3] {
        bench.send(1, &rtp(VP8, n, 3000 * u32::from(n), 500, true, &vp8(n == 0, true, n, b"x")));
    }
    let sent = bench.take();
    let numbers: Vec<u16> = rtp_to(&sent, 2).iter().map(|p| PacketView::parse(p).unwrap().sequence()).collect();
    assert_eq!(numbers[2], numbers[1] + 2, "a hole is left");
    let sent = bench.pass(Duration::from_millis(5));
    let lost: Vec<u16> = sent
        .iter()
        .flat_map(|(_, bytes)| Compound::new(bytes))
        .filter_map(|p| match p {
            Ok(Rtcp::Nack { media: Ssrc(500), lost }) => Some(lost.collect::<Vec<_>>()),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(lost, [2]);
    let mut payload = 2u16.to_be_bytes().to_vec();
    payload.extend(vp8(false, true, 2, b"late"));
    bench.send(1, &rtp(VP8_RTX, 77, 6000, 501, true, &payload));
    let sent = bench.take();
    let late = PacketView::parse(rtp_to(&sent, 2)[0]).unwrap();
    assert_eq!(late.sequence(), numbers[1] + 1);
    assert_eq!(late.timestamp(), 6000);
    assert_eq!(late.payload(), vp8(false, true, 2, b"late"));
    bench.assert_conserved();
}

#[test]
fn nothing_passes_after_a_removal() {
    let mut bench = Bench::new(3);
    bench.publish(1, 10, track(MediaKind::Audio, 500));
    bench.subscribe(2, 10, 20, 9000);
    bench.subscribe(3, 10, 30, 9100);
    bench.send(1, &rtp(OPUS, 1, 960, 500, false, &[1]));
    bench.command(Command::RemoveParticipant { participant: ParticipantId(2) });
    let sent = bench.take();
    assert_eq!((rtp_to(&sent, 2).len(), rtp_to(&sent, 3).len()), (0, 1), "what was decided is not sent either");
    bench.command(Command::RemoveParticipant { participant: ParticipantId(1) });
    bench.send(1, &rtp(OPUS, 2, 1920, 500, false, &[2]));
    assert!(bench.take().is_empty());
    assert_eq!(bench.shard.stats().dropped.of(DropReason::UnknownRoute), 1);
    assert_eq!(bench.shard.stats().tracks, 0);
    assert_eq!(bench.shard.stats().downtracks, 0);
    bench.assert_conserved();
}

#[test]
fn a_mute_holds_everything_back_and_an_unmute_begins_with_a_key_frame() {
    let mut bench = Bench::new(2);
    bench.publish(1, 10, track(MediaKind::Video, 500));
    bench.subscribe(2, 10, 20, 9000);
    bench.send(1, &rtp(VP8, 1, 3000, 500, true, &vp8(true, true, 1, b"key")));
    let sent = bench.take();
    let before = PacketView::parse(rtp_to(&sent, 2)[0]).unwrap().sequence();
    bench.command(Command::SetMuted { track: TrackId(10), muted: true });
    bench.send(1, &rtp(VP8, 2, 6000, 500, true, &vp8(false, true, 2, b"black")));
    bench.now = bench.now + Duration::from_secs(2);
    assert!(rtp_to(&bench.take(), 2).is_empty());
    bench.command(Command::SetMuted { track: TrackId(10), muted: false });
    assert_eq!(plis_to(&bench.take(), 1), 1);
    bench.send(1, &rtp(VP8, 9, 183_000, 500, true, &vp8(false, true, 3, b"delta")));
    assert!(rtp_to(&bench.take(), 2).is_empty());
    bench.send(1, &rtp(VP8, 10, 186_000, 500, true, &vp8(true, true, 4, b"key")));
    let sent = bench.take();
    let after = PacketView::parse(rtp_to(&sent, 2)[0]).unwrap();
    assert_eq!(after.sequence(), before + 1);
    assert_eq!(after.timestamp(), 186_000);
    bench.assert_conserved();
}

#[test]
fn reports_soon_after_the_first_packet_and_once_a_second() {
    let mut bench = Bench::new(2);
    bench.publish(1, 10, track(MediaKind::Audio, 500));
    bench.subscribe(2, 10, 20, 9000);
    bench.send(1, &rtp(OPUS, 1, 960, 500, false, &[1]));
    bench.take();
    let reports = |sent: &[(Route, Vec<u8>)]| {
        let all = sent.iter().flat_map(|(_, bytes)| Compound::new(bytes));
        all.fold((0, 0), |(sr, rr), packet| match packet {
            Ok(Rtcp::SenderReport(info, _)) if info.ssrc == Ssrc(9000) => (sr + 1, rr),
            Ok(Rtcp::ReceiverReport(_, blocks)) if blocks.clone().any(|b| b.ssrc == Ssrc(500)) => (sr, rr + 1),
            _ => (sr, rr),
        })
    };
    assert_eq!(reports(&bench.pass(Duration::from_millis(50))), (1, 0));
    let (sr, rr) = reports(&bench.pass(Duration::from_secs(10)));
    assert!((9..=11).contains(&sr) && (9..=11).contains(&rr), "{sr} {rr}");
}

#[test]
fn packets_name_their_section_until_the_far_end_reports_on_them() {
    let mut bench = Bench::new(2);
    bench.publish(1, 10, track(MediaKind::Audio, 500));
    bench.subscribe_in(2, 10, 20, 9000, "17");
    let named = |bench: &mut Bench, seq: u16| {
        bench.send(1, &rtp(OPUS, seq, 960 * u32::from(seq), 500, false, &[1]));
        let sent = bench.take();
        PacketView::parse(rtp_to(&sent, 2)[0]).unwrap().extension(4) == Some(b"17")
    };
    assert!(named(&mut bench, 1) && named(&mut bench, 2));
    let block = ReportBlock::nothing_lost(Ssrc(9000), 2);
    let mut report = Vec::new();
    write::receiver_report(&mut report, Ssrc(1), &[block]);
    bench.send(2, &report);
    assert!(!named(&mut bench, 3));
}

#[test]
fn what_repairs_a_stream_always_names_its_section() {
    let mut bench = Bench::new(2);
    bench.publish(1, 10, track(MediaKind::Video, 500));
    bench.subscribe_in(2, 10, 20, 9000, "17");
    bench.send(1, &rtp(VP8, 0, 0, 500, true, &vp8(true, true, 0, b"x")));
    let sent = bench.take();
    let lost = PacketView::parse(rtp_to(&sent, 2)[0]).unwrap().sequence();
    let mut reports = Vec::new();
    write::receiver_report(&mut reports, Ssrc(1), &[ReportBlock::nothing_lost(Ssrc(9000), lost.into())]);
    write::nack(&mut reports, Ssrc(1), Ssrc(9000), [lost]);
    bench.send(2, &reports);
    let sent = bench.take();
    let again = PacketView::parse(rtp_to(&sent, 2)[0]).unwrap();
    assert_eq!((again.ssrc(), again.extension(4)), (Ssrc(9001), Some(&b"17"[..])));
}

#[test]
fn who_gives_no_feedback_is_sent_everything_after_a_while() {
    let mut bench = Bench::new(2);
    bench.numbered = true;
    bench.publish(1, 10, track(MediaKind::Video, 500));
    bench.subscribe(2, 10, 20, 9000);
    let mut last = 0;
    for n in 0..1000u16 {
        bench.shard.handle_timeout(bench.now, &mut bench.out);
        for k in 0..10 {
            let seq = n * 10 + k;
            bench.send(1, &rtp(VP8, seq, 3000 * u32::from(seq), 500, true, &vp8(seq == 0, true, seq, &[7; 1000])));
        }
        last = rtp_to(&bench.take(), 2).len();
        bench.now = bench.now + Duration::from_millis(5);
    }
    assert_eq!(last, 10, "16 Mbit/s");
}

/// An RTP packet with one-byte header extensions.
fn rtp_named(payload_type: PayloadType, seq: u16, ssrc: u32, names: &[(u8, &str)], payload: &[u8]) -> Vec<u8> {
    let mut packet = rtp(payload_type, seq, 3000, ssrc, true, &[]);
    packet[0] |= 0x10;
    let mut block = Vec::new();
    for (id, name) in names {
        block.push((id << 4) | (name.len() as u8 - 1));
        block.extend_from_slice(name.as_bytes());
    }
    block.resize(block.len().next_multiple_of(4), 0);
    packet.extend_from_slice(&[0xbe, 0xde, 0, (block.len() / 4) as u8]);
    packet.extend_from_slice(&block);
    packet.extend_from_slice(payload);
    packet
}

/// Three encodings known by rid only, as browsers publish.
fn simulcast() -> TrackParams {
    let encoding = |rid: &str| EncodingParams { rid: Some(rid.to_owned()), ssrc: None, rtx_ssrc: None };
    let ids = ExtensionIds { mid: Some(4), rid: Some(10), repaired_rid: Some(11), ..ExtensionIds::default() };
    TrackParams {
        mid: "1".to_owned(),
        encodings: ["q", "h", "f"].map(encoding).to_vec(),
        extensions: ids,
        ..track(MediaKind::Video, 0)
    }
}

#[test]
fn finds_encodings_by_mid_and_rid_and_their_retransmissions_by_repaired_rid() {
    let mut bench = Bench::new(2);
    bench.publish(1, 10, simulcast());
    bench.subscribe(2, 10, 20, 9000);
    let key = vp8(true, true, 1, b"key");
    bench.send(1, &rtp_named(VP8, 1, 700, &[(4, "1"), (10, "q")], &key));
    bench.send(1, &rtp_named(VP8, 1, 702, &[(4, "1"), (10, "f")], &key));
    bench.send(1, &rtp(VP8, 3, 9000, 702, true, &vp8(false, true, 3, b"no names any more")));
    assert_eq!(rtp_to(&bench.take(), 2).len(), 3);
    let mut lost = 2u16.to_be_bytes().to_vec();
    lost.extend(vp8(false, true, 2, b"lost"));
    bench.send(1, &rtp_named(VP8_RTX, 50, 712, &[(4, "1"), (11, "f")], &lost));
    let sent = bench.take();
    let late = PacketView::parse(rtp_to(&sent, 2)[0]).unwrap();
    assert_eq!(late.payload()[6..], vp8(false, true, 2, b"lost")[6..]);
    for (names, reason) in [
        (&[(4, "9"), (10, "q")][..], DropReason::UnknownSsrc),
        (&[(4, "1"), (10, "x")][..], DropReason::UnknownSsrc),
        (&[(4, "1")][..], DropReason::UnknownSsrc),
    ] {
        let before = bench.shard.stats().dropped.of(reason);
        bench.send(1, &rtp_named(VP8, 1, 799, names, &key));
        assert_eq!(bench.shard.stats().dropped.of(reason), before + 1, "{names:?}");
    }
    bench.assert_conserved();
}

#[test]
fn an_encoding_may_change_its_ssrc_but_not_with_every_packet() {
    let mut bench = Bench::new(2);
    bench.publish(1, 10, simulcast());
    bench.subscribe(2, 10, 20, 9000);
    let names = [(4, "1"), (10, "q")];
    bench.send(1, &rtp_named(VP8, 1, 700, &names, &vp8(true, true, 1, b"key")));
    let sent = bench.take();
    let first = PacketView::parse(rtp_to(&sent, 2)[0]).unwrap().sequence();
    bench.send(1, &rtp_named(VP8, 1, 701, &names, &vp8(true, true, 1, b"key")));
    assert!(rtp_to(&bench.take(), 2).is_empty());
    bench.now = bench.now + Duration::from_millis(300);
    bench.send(1, &rtp_named(VP8, 60_000, 702, &names, &vp8(true, true, 9, b"key")));
    let sent = bench.take();
    assert_eq!(PacketView::parse(rtp_to(&sent, 2)[0]).unwrap().sequence(), first + 1);
}

#[test]
fn messages_are_handed_up_and_out() {
    let mut bench = Bench::new(3);
    bench.send(1, &[20, 0, b'h', b'i']);
    let data = bench.out.events.iter().find_map(|event| match event {
        Event::Data { transport: TransportId(1), channel: command::DataChannel::Reliable, payload } => {
            Some(payload.clone())
        }
        _ => None,
    });
    assert_eq!(data.as_deref(), Some(&b"hi"[..]));
    let transports = vec![TransportId(2), TransportId(3), TransportId(99)];
    let payload = bytes::Bytes::from_static(b"hi");
    bench.command(Command::SendData { transports, channel: command::DataChannel::Lossy, payload });
    let sent = bench.take();
    assert_eq!(sent, [(route(2), vec![20, 1, b'h', b'i']), (route(3), vec![20, 1, b'h', b'i'])]);
}

#[test]
fn limits_hold_and_what_is_refused_disturbs_nobody() {
    let mut config = ShardConfig::default();
    config.limits.rooms = 1;
    config.limits.participants_per_room = 2;
    config.limits.tracks_per_participant = 1;
    config.limits.downtracks_per_participant = 1;
    let mut bench = Bench::new(0);
    bench.shard = Shard::new(config, 1);
    for n in 1..4 {
        bench.command(Command::AddRoom { room: RoomId(n) });
        bench.command(Command::AddParticipant { room: ROOM, participant: ParticipantId(n) });
        for t in 0..4 {
            let (participant, transport) = (ParticipantId(n), TransportId(n * 10 + t));
            bench.shard.add_plain_transport(bench.now, participant, transport, route(n * 10 + t), &mut bench.out);
        }
    }
    bench.publish(10, 1, track(MediaKind::Audio, 500));
    bench.publish(10, 2, track(MediaKind::Audio, 600));
    bench.subscribe(20, 1, 1, 9000);
    bench.subscribe(20, 1, 2, 9100);
    let stats = bench.shard.stats();
    let sizes = (stats.rooms, stats.participants, stats.transports, stats.tracks, stats.downtracks);
    assert_eq!(sizes, (1, 2, 4, 1, 1));
    bench.send(10, &rtp(OPUS, 1, 960, 500, false, &[1]));
    assert_eq!(rtp_to(&bench.take(), 20).len(), 1);
}
