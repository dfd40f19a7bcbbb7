//! Thirty open microphones and people who talk at random: everybody is heard from the first packet, no more flow than there
//! are places, and nobody's numbering shows that silence was left out.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use weir::base::{
    DowntrackId, DropReason, Instant, MediaKind, ParticipantId, PayloadType, Rng, RoomId, Ssrc, TrackId, TransportId,
};
use weir::rtp::codec::Codec;
use weir::rtp::packet::PacketView;
use weir::shard::command::Command;
use weir::shard::outbox::Outbox;
use weir::shard::{Shard, ShardConfig};
use weir::transport::params::{
    CodecParams, Demand, DowntrackParams, EncodingParams, ExtensionIds, PayloadMap, TrackParams,
};
use weir::transport::route::Route;

const PEOPLE: u64 = 30;
/// How many of them listen: what one hears all hear.
const LISTENERS: u64 = 4;
const PLACES: usize = 8;
const ROOM: RoomId = RoomId(1);
const OPUS: PayloadType = PayloadType(111);
const FRAME: Duration = Duration::from_millis(20);

/// Somebody with an open microphone.
#[derive(Debug)]
struct Person {
    seq: u64,
    /// Background of the place where they are, in -dBov.
    background: u8,
    /// Until when they talk, in packets; zero: they listen.
    talks_until: u64,
    /// Within a word until then; between two words from then on, until the other.
    word_until: u64,
    pause_until: u64,
    loudness: u8,
}

/// What a subscriber has of one microphone.
struct Received {
    seq: u16,
    timestamp: u32,
    /// Number of the packet, as its publisher counts.
    number: u64,
}

struct Call {
    rng: Rng,
    shard: Shard,
    out: Outbox,
    people: Vec<Person>,
    received: BTreeMap<u32, Received>,
    frame: u64,
}

fn route(n: u64) -> Route {
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    Route::Udp { local: address(7882), remote: address(10_000 + n as u16) }
}

fn ssrc(subscriber: u64, publisher: u64) -> u32 {
    (subscriber * 1000 + publisher) as u32
}

impl Call {
    fn new(seed: u64) -> Self {
        let mut call = Self {
            rng: Rng::new(seed),
            shard: Shard::new(ShardConfig::default(), seed),
            out: Outbox::new(),
            people: Vec::new(),
            received: BTreeMap::new(),
            frame: 0,
        };
        call.command(Command::AddRoom { room: ROOM });
        for n in 0..PEOPLE {
            let participant = ParticipantId(n);
            call.command(Command::AddParticipant { room: ROOM, participant });
            call.shard.add_plain_transport(Instant::ZERO, participant, TransportId(n), route(n), &mut call.out);
            let params = TrackParams {
                kind: MediaKind::Audio,
                screen_share: false,
                always_heard: false,
                mid: n.to_string(),
                codecs: vec![CodecParams { payload_type: OPUS, codec: Codec::Opus, clock_rate: 48_000, rtx: None }],
                encodings: vec![EncodingParams { rid: None, ssrc: Some(Ssrc(n as u32 + 1)), rtx_ssrc: None }],
                extensions: ExtensionIds { audio_level: Some(1), ..ExtensionIds::default() },
                nack: false,
                muted: false,
            };
            call.command(Command::Publish { transport: TransportId(n), track: TrackId(n), params });
            let background = 55 + call.rng.below(40) as u8;
            let seq = call.rng.below(70_000);
            let (talks_until, word_until, pause_until) = (0, 0, 0);
            call.people.push(Person { seq, background, talks_until, word_until, pause_until, loudness: 0 });
        }
        for subscriber in 0..LISTENERS {
            for publisher in (0..PEOPLE).filter(|publisher| *publisher != subscriber) {
                let params = DowntrackParams {
                    ssrc: Ssrc(ssrc(subscriber, publisher)),
                    rtx_ssrc: None,
                    payload_types: vec![PayloadMap { from: OPUS, to: OPUS, rtx: None }],
                    extensions: ExtensionIds::default(),
                    mid: String::new(),
                    cname: "one".to_owned(),
                    nack: true,
                    demand: Demand { enabled: true, max_spatial: 0, max_temporal: 255, priority: 1 },
                };
                let downtrack = DowntrackId(u64::from(ssrc(subscriber, publisher)));
                let (transport, track) = (TransportId(subscriber), TrackId(publisher));
                call.command(Command::Subscribe { transport, track, downtrack, params });
            }
        }
        call
    }

    fn command(&mut self, command: Command) {
        self.shard.handle_command(Instant::ZERO, command, &mut self.out);
    }

    /// Somebody begins to talk, or goes on: how loud this packet of theirs is.
    fn level(&mut self, at: usize) -> (u8, bool) {
        let talkers = self.people.iter().filter(|person| self.frame < person.talks_until + 30).count();
        let (rng, frame, person) = (&mut self.rng, self.frame, &mut self.people[at]);
        if frame >= person.talks_until {
            let joins_in = talkers < PLACES && frame > 500 && rng.below(400) == 0;
            if !joins_in {
                return (person.background + rng.below(4) as u8, false);
            }
            // Softly or loudly, for a word or for ten seconds.
            (person.talks_until, person.word_until) = (frame + 10 + rng.below(500), frame + 10);
            person.loudness = 20 + rng.below(20) as u8;
        }
        if frame >= person.word_until {
            if frame >= person.pause_until {
                person.word_until = frame + 5 + rng.below(30);
                person.pause_until = person.word_until + 1 + rng.below(15);
            } else {
                return (person.background, true);
            }
        }
        (person.loudness + rng.below(6) as u8, true)
    }

    /// 20 ms of the call.
    fn turn(&mut self) {
        let now = Instant::ZERO + FRAME * u32::try_from(self.frame).unwrap();
        if self.shard.next_timeout().is_some_and(|at| at <= now) {
            self.shard.handle_timeout(now, &mut self.out);
        }
        let mut talking = Vec::new();
        for at in 0..self.people.len() {
            let (level, talks) = self.level(at);
            if talks {
                talking.push(at as u64);
            }
            let person = &mut self.people[at];
            let mut packet = vec![0x90, OPUS.0];
            packet.extend_from_slice(&(person.seq as u16).to_be_bytes());
            packet.extend_from_slice(&(self.frame as u32 * 960).to_be_bytes());
            packet.extend_from_slice(&(at as u32 + 1).to_be_bytes());
            packet.extend_from_slice(&[0xbe, 0xde, 0, 1, 0x10, level, 0, 0]);
            packet.push(0x78);
            packet.extend_from_slice(&self.frame.to_be_bytes());
            person.seq += 1;
            self.shard.handle_datagram(now, route(at as u64), &mut packet, &mut self.out);
        }
        self.shard.flush(now, &mut self.out);
        self.judge(&talking);
        self.out.clear();
        let stats = self.shard.stats();
        assert_eq!(stats.rtp_offered, stats.rtp_forwarded + stats.copies_dropped.total(), "{stats:?}");
        assert_eq!(stats.copies_dropped.of(DropReason::Bug), 0, "{stats:?}");
        self.frame += 1;
    }

    fn judge(&mut self, talking: &[u64]) {
        let mut heard: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        let mut begun: BTreeMap<u64, usize> = BTreeMap::new();
        for (_, bytes) in self.out.datagrams().filter(|(_, bytes)| !(192..=223).contains(&bytes[1])) {
            let view = PacketView::parse(bytes).unwrap();
            let (subscriber, publisher) = (u64::from(view.ssrc().0) / 1000, u64::from(view.ssrc().0) % 1000);
            heard.entry(subscriber).or_default().push(publisher);
            *begun.entry(subscriber).or_default() += usize::from(view.marker());
            let number = u64::from_be_bytes(view.payload()[1..].try_into().unwrap());
            assert_eq!(number, self.frame);
            let now = Received { seq: view.sequence(), timestamp: view.timestamp(), number };
            if let Some(before) = self.received.insert(view.ssrc().0, now) {
                assert_eq!(view.sequence(), before.seq.wrapping_add(1), "a gap in {publisher} to {subscriber}");
                let elapsed = (number - before.number) as u32 * 960;
                assert_eq!(view.timestamp(), before.timestamp.wrapping_add(elapsed), "time of {publisher} is not real");
                assert_eq!(view.marker(), number > before.number + 1, "the mark of a beginning");
            }
        }
        for subscriber in 0..LISTENERS {
            let heard = heard.remove(&subscriber).unwrap_or_default();
            for talker in talking.iter().filter(|talker| **talker != subscriber) {
                let person = &self.people[*talker as usize];
                assert!(
                    heard.contains(talker),
                    "{subscriber} misses {talker} in packet {}: {heard:?} of {talking:?}, {person:?}",
                    self.frame
                );
            }
            // Whoever begins may take the place of one who had this turn's packet out already. The room is a small one
            // until its microphones have been counted.
            let flowing = heard.len() - begun.remove(&subscriber).unwrap_or_default();
            assert!(self.frame < 50 || flowing <= PLACES, "{flowing} at once");
        }
    }
}

#[test]
fn everybody_who_talks_is_heard_from_the_first_packet() {
    for seed in 0..4 {
        let mut call = Call::new(seed);
        for _ in 0..2_500 {
            call.turn();
        }
        let stats = call.shard.stats();
        let silence = stats.copies_dropped.of(DropReason::Inaudible);
        assert!(silence > stats.rtp_offered / 2, "seed {seed}: silence goes somewhere: {stats:?}");
    }
}
