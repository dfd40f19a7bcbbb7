//! A room on two shards: what crosses, when, and what is asked for.

#![allow(clippy::expect_used, reason = "tests")]

use super::*;
use crate::base::ShardId;
use crate::rtp::rtcp::SenderInfo;

const HERE: ShardId = ShardId(0);
const THERE: ShardId = ShardId(1);

/// Participant 1 publishes at `here`; participants 2 and 3 are at `there`.
struct Pair {
    here: Bench,
    there: Bench,
}

impl Pair {
    fn new(params: &TrackParams) -> Self {
        let mut pair = Self { here: Bench::new(1), there: Bench::new(3) };
        pair.there.command(Command::RemoveParticipant { participant: ParticipantId(1) });
        pair.there.take();
        pair.here.publish(1, 1, params.clone());
        pair.mirror(params);
        pair
    }

    fn mirror(&mut self, params: &TrackParams) {
        let (room, track) = (ROOM, TrackId(1));
        self.there.command(Command::Mirror { room, track, origin: HERE, params: params.clone() });
        self.cross();
    }

    /// Let the shards take what they have for each other, until they have nothing more. Packets that crossed to `there`.
    fn cross(&mut self) -> usize {
        let mut packets = 0;
        loop {
            let mut any = false;
            for (to, batch) in self.here.out.crossings.full() {
                assert_eq!(to, THERE);
                packets += batch.packets();
                self.there.shard.handle_relayed(self.there.now, HERE, batch, &mut self.there.out);
                batch.clear();
                any = true;
            }
            for (to, batch) in self.there.out.crossings.full() {
                assert_eq!((to, batch.packets()), (HERE, 0));
                self.here.shard.handle_relayed(self.here.now, THERE, batch, &mut self.here.out);
                batch.clear();
                any = true;
            }
            if !any {
                return packets;
            }
        }
    }

    /// A packet from the publisher; how often it crossed and what left `there`.
    fn send(&mut self, packet: &[u8]) -> (usize, Vec<(Route, Vec<u8>)>) {
        self.here.send(1, packet);
        let crossed = self.cross();
        self.here.take();
        (crossed, self.there.take())
    }

    fn pass(&mut self, time: Duration) -> Vec<(Route, Vec<u8>)> {
        let mut asked = Vec::new();
        for _ in 0..time.as_millis() / 10 {
            self.there.pass(Duration::from_millis(10));
            self.cross();
            asked.extend(self.here.take());
            asked.extend(self.here.pass(Duration::from_millis(10)));
            self.cross();
        }
        asked
    }
}

fn audio(ssrc: u32, seq: u16, timestamp: u32) -> Vec<u8> {
    rtp(OPUS, seq, timestamp, ssrc, false, &[0x78, seq as u8])
}

fn video(ssrc: u32, seq: u16, timestamp: u32, picture: u16, key: bool) -> Vec<u8> {
    rtp(VP8, seq, timestamp, ssrc, true, &vp8(key, true, picture, &[7; 20]))
}

#[test]
fn a_track_crosses_once_however_many_take_it_and_not_at_all_when_nobody_does() {
    let mut pair = Pair::new(&track(MediaKind::Audio, 500));
    assert_eq!(pair.send(&audio(500, 1, 960)).0, 0, "nobody takes it");
    pair.there.subscribe(2, 1, 21, 9_000);
    pair.there.subscribe(3, 1, 31, 9_100);
    pair.cross();
    let (crossed, sent) = pair.send(&audio(500, 2, 1920));
    assert_eq!((crossed, sent.len()), (1, 2));
    pair.there.command(Command::Unsubscribe { downtrack: DowntrackId(21) });
    pair.cross();
    assert_eq!(pair.send(&audio(500, 3, 2880)).1.len(), 1);
    pair.there.command(Command::Unsubscribe { downtrack: DowntrackId(31) });
    pair.cross();
    assert_eq!(pair.send(&audio(500, 4, 3840)).0, 0);
    assert_eq!(pair.here.shard.stats().relayed_sent, 2);
    assert_eq!(pair.there.shard.stats().relayed_received, 2);
    pair.here.assert_conserved();
    pair.there.assert_conserved();
}

#[test]
fn nothing_crosses_of_a_muted_track_or_of_one_who_was_removed() {
    let mut pair = Pair::new(&track(MediaKind::Audio, 500));
    pair.there.subscribe(2, 1, 21, 9_000);
    pair.cross();
    assert_eq!(pair.send(&audio(500, 1, 960)).1.len(), 1);
    for bench in [&mut pair.here, &mut pair.there] {
        bench.command(Command::SetMuted { track: TrackId(1), muted: true });
    }
    assert_eq!(pair.send(&audio(500, 2, 1920)).0, 0, "muted");
    for bench in [&mut pair.here, &mut pair.there] {
        bench.command(Command::SetMuted { track: TrackId(1), muted: false });
    }
    assert_eq!(pair.send(&audio(500, 3, 2880)).1.len(), 1);
    // A packet is on its way when the publisher is removed: it goes no further.
    pair.here.send(1, &audio(500, 4, 3840));
    pair.here.command(Command::RemoveParticipant { participant: ParticipantId(1) });
    pair.there.command(Command::Unpublish { track: TrackId(1) });
    assert_eq!(pair.cross(), 1);
    assert!(pair.there.take().is_empty());
    assert_eq!(pair.there.shard.stats().mirrored_tracks, 0);
}

#[test]
fn a_key_frame_is_asked_for_through_the_shard_of_the_publisher_and_not_too_often() {
    let mut pair = Pair::new(&track(MediaKind::Video, 600));
    pair.send(&video(600, 1, 3000, 1, true));
    pair.there.subscribe(2, 1, 21, 9_000);
    pair.there.subscribe(3, 1, 31, 9_100);
    pair.cross();
    let asked = pair.pass(Duration::from_millis(10));
    assert_eq!(plis_to(&asked, 1), 1, "at once, and once for both");
    assert!(pair.send(&video(600, 2, 6000, 2, false)).1.is_empty(), "waits for a key frame");
    let (_, sent) = pair.send(&video(600, 3, 9000, 3, true));
    assert_eq!(sent.len(), 2);
    // Both ask all the time, for two seconds.
    let mut asked = 0;
    for _ in 0..200 {
        for n in [2, 3] {
            let mut pli = Vec::new();
            write::pli(&mut pli, Ssrc(1), Ssrc(if n == 2 { 9_000 } else { 9_100 }));
            pair.there.send(n, &pli);
        }
        let sent = pair.pass(Duration::from_millis(10));
        asked += plis_to(&sent, 1);
    }
    assert!((3..=5).contains(&asked), "{asked}");
}

#[test]
fn retransmissions_come_from_the_shard_of_the_subscriber() {
    let mut pair = Pair::new(&track(MediaKind::Video, 600));
    pair.there.subscribe(2, 1, 21, 9_000);
    pair.cross();
    let (_, sent) = pair.send(&video(600, 1, 3000, 1, true));
    let first = PacketView::parse(&sent[0].1).unwrap().sequence();
    pair.send(&video(600, 2, 6000, 2, false));
    let mut nack = Vec::new();
    write::nack(&mut nack, Ssrc(1), Ssrc(9_000), [first.wrapping_add(1)]);
    pair.there.send(2, &nack);
    let again = pair.there.take();
    assert_eq!(again.len(), 1);
    assert_eq!(PacketView::parse(&again[0].1).unwrap().ssrc(), Ssrc(9_001));
    assert_eq!(pair.cross(), 0, "the publisher's shard hears nothing of it");
}

#[test]
fn a_shard_that_dies_gets_nothing_more_and_its_place_is_taken_anew() {
    let params = track(MediaKind::Audio, 500);
    let mut pair = Pair::new(&params);
    pair.there.subscribe(2, 1, 21, 9_000);
    pair.cross();
    assert_eq!(pair.send(&audio(500, 1, 960)).0, 1);
    pair.there = Bench::new(3);
    pair.here.command(Command::ForgetShard { room: ROOM, shard: THERE });
    assert_eq!(pair.send(&audio(500, 2, 1920)).0, 0);
    pair.mirror(&params);
    pair.there.subscribe(2, 1, 22, 9_000);
    pair.cross();
    assert_eq!(pair.send(&audio(500, 3, 2880)).1.len(), 1);
}

#[test]
fn a_taker_that_falls_silent_is_forgotten() {
    let mut pair = Pair::new(&track(MediaKind::Audio, 500));
    pair.there.subscribe(2, 1, 21, 9_000);
    pair.cross();
    pair.pass(Duration::from_secs(10));
    assert_eq!(pair.send(&audio(500, 1, 960)).0, 1, "it said that it is there");
    pair.here.pass(Duration::from_secs(10));
    pair.here.out.crossings.clear();
    assert_eq!(pair.send(&audio(500, 2, 1920)).0, 0);
}

#[test]
fn sender_reports_carry_the_clock_of_the_publisher_across() {
    let mut pair = Pair::new(&track(MediaKind::Audio, 500));
    pair.there.subscribe(2, 1, 21, 9_000);
    pair.cross();
    let (_, sent) = pair.send(&audio(500, 1, 24_000));
    // Its clock stands at 48 000 ticks now: the packet is half a second older than it came.
    let mut report = Vec::new();
    let info = SenderInfo { ssrc: Ssrc(500), ntp: NtpTime(1 << 40), rtp: 48_000, packets: 1, octets: 1 };
    write::sender_report(&mut report, &info, &[]);
    pair.here.send(1, &report);
    pair.cross();
    let out = PacketView::parse(&sent[0].1).unwrap().timestamp();
    let sent = pair.there.pass(Duration::from_millis(100));
    let found = sent.iter().flat_map(|(_, bytes)| Compound::new(bytes)).find_map(|packet| match packet.unwrap() {
        Rtcp::SenderReport(info, _) => Some(info.rtp),
        _ => None,
    });
    let since = found.expect("a report follows the first packet").wrapping_sub(out);
    assert!((24_000..24_000 + 4_800).contains(&since), "{since}");
}

#[test]
fn who_speaks_is_said_once() {
    let mut params = track(MediaKind::Audio, 500);
    params.extensions.audio_level = Some(1);
    let mut pair = Pair::new(&params);
    pair.there.subscribe(2, 1, 21, 9_000);
    pair.cross();
    let (mut here, mut there) = (0, 0);
    for n in 0..50u16 {
        let mut packet = vec![0x90, 111];
        packet.extend_from_slice(&n.to_be_bytes());
        packet.extend_from_slice(&(u32::from(n) * 960).to_be_bytes());
        packet.extend_from_slice(&500u32.to_be_bytes());
        packet.extend_from_slice(&[0xbe, 0xde, 0, 1, 0x10, 10, 0, 0, 1, 2, 3]);
        pair.here.send(1, &packet);
        pair.cross();
        let spoken = |bench: &Bench| bench.out.events.iter().filter(|e| matches!(e, Event::Speakers { .. })).count();
        for (bench, count) in [(&mut pair.here, &mut here), (&mut pair.there, &mut there)] {
            bench.now = bench.now + Duration::from_millis(20);
            if bench.shard.next_timeout().is_some_and(|at| at <= bench.now) {
                bench.shard.handle_timeout(bench.now, &mut bench.out);
            }
            *count += spoken(bench);
            bench.take();
        }
    }
    assert!(here > 0, "the shard of the publisher says it");
    assert_eq!(there, 0);
}
