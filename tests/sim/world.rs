//! A world of one room on one shard or several, and some participants on bad networks, run by a virtual clock from one seed.

use core::net::SocketAddr;
use core::time::Duration;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::hash::{DefaultHasher, Hash, Hasher};

use weir::base::{
    DowntrackId, Instant, MediaKind, ParticipantId, PayloadType, Rng, RoomId, ShardId, Ssrc, TrackId, TransportId,
};
use weir::rtp::codec::Codec;
use weir::rtp::packet::PacketView;
use weir::shard::command::Command;
use weir::shard::event::ShardStats;
use weir::shard::outbox::Outbox;
use weir::shard::{Shard, ShardConfig};
use weir::transport::params::{
    CodecParams, Demand, DowntrackParams, EncodingParams, ExtensionIds, PayloadMap, TrackParams,
};
use weir::transport::route::Route;

use crate::client::Client;
use crate::media::{Encoder, Label, OPUS, VP8, VP8_RTX};
use crate::net::Path;
use crate::oracle::{Intake, Stream};

const ROOM: RoomId = RoomId(1);
const TICK: Duration = Duration::from_millis(10);
/// Outgoing payload types: other numbers than the publishers'.
const OUT_VIDEO: PayloadType = PayloadType(100);
const OUT_VIDEO_RTX: PayloadType = PayloadType(101);
const OUT_AUDIO: PayloadType = PayloadType(63);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    ToShard(u64, Vec<u8>),
    ToClient(u64, Vec<u8>),
    Tick,
}

struct Subscription {
    track: u64,
    subscriber: u64,
    ssrc: u32,
    demand: Demand,
    stream: Stream,
    /// Encoding of the last packet and when it was sent.
    last: Option<(u8, Instant)>,
}

struct Published {
    publisher: u64,
    video: bool,
    muted: bool,
}

/// What was delivered of each downtrack: encoding and number there, and the number it went out with, in order.
pub type Delivered = BTreeMap<u64, Vec<(u8, u64, u16)>>;

pub struct World {
    pub now: Instant,
    rng: Rng,
    shards: Vec<Shard>,
    outs: Vec<Outbox>,
    /// The shard of each participant.
    seats: BTreeMap<u64, usize>,
    events: BinaryHeap<Reverse<(Instant, u64, What)>>,
    next_event: u64,
    clients: BTreeMap<u64, Client>,
    tracks: BTreeMap<u64, Published>,
    subscriptions: BTreeMap<u64, Subscription>,
    /// SSRC to downtrack, also of downtracks that ended: nothing may be sent on those.
    by_ssrc: BTreeMap<u32, u64>,
    intake: BTreeMap<(u32, u8), Intake>,
    next_id: u64,
    hash: DefaultHasher,
    calm: bool,
    /// The network is perfect and asks no dice: what happens depends on nothing but what is sent.
    steady: bool,
    /// What was delivered of each downtrack, where it is to be compared: outgoing number, encoding and number.
    pub delivered: Option<Delivered>,
}

fn route(n: u64) -> Route {
    let address = |port: u64| SocketAddr::from(([127, 0, 0, 1], port as u16));
    Route::Udp { local: address(7882), remote: address(10_000 + n) }
}

fn number(route: Route) -> u64 {
    match route {
        Route::Udp { remote, .. } => u64::from(remote.port()) - 10_000,
        Route::Tcp { .. } | Route::Turn { .. } => unreachable!("UDP only here"),
    }
}

impl World {
    /// With the room on `shards` shards.
    pub fn new(seed: u64, shards: usize) -> Self {
        let mut world = Self {
            now: Instant::from_millis(1000),
            rng: Rng::new(seed),
            shards: (0..shards as u64).map(|n| Shard::new(ShardConfig::default(), seed ^ (n << 32))).collect(),
            outs: (0..shards).map(|_| Outbox::new()).collect(),
            seats: BTreeMap::new(),
            events: BinaryHeap::new(),
            next_event: 0,
            clients: BTreeMap::new(),
            tracks: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            by_ssrc: BTreeMap::new(),
            intake: BTreeMap::new(),
            next_id: 1,
            hash: DefaultHasher::new(),
            calm: false,
            steady: false,
            delivered: None,
        };
        world.tell_all(&Command::AddRoom { room: ROOM });
        world.at(world.now, What::Tick);
        world
    }

    /// Let `time` pass with something happening about once a second, then calm down and see that everybody gets what
    /// it wants. Gives the hash of all that was sent.
    pub fn run(mut self, time: Duration) -> u64 {
        for _ in 0..2 + self.rng.below(2) {
            self.join();
        }
        let end = self.now + time;
        self.run_until(end);
        self.calm = true;
        for client in self.clients.values_mut() {
            client.up.calm();
            client.down.calm();
        }
        self.run_until(self.now + Duration::from_secs(8));
        self.assert_everybody_served();
        self.hash.finish()
    }

    /// Some participants on a perfect network, who mute and resize at fixed times: what everybody got.
    pub fn compare(mut self) -> Delivered {
        self.steady = true;
        self.calm = true;
        self.delivered = Some(BTreeMap::new());
        for _ in 0..5 {
            self.join();
        }
        let publishers = self.tracks.keys().copied().collect::<Vec<_>>();
        let subscriptions = self.subscriptions.keys().copied().collect::<Vec<_>>();
        for step in 0..20 {
            self.run_until(self.now + Duration::from_millis(1_500));
            match step % 4 {
                0 => self.mute(publishers[step % publishers.len()]),
                1 => self.mute(publishers[(step - 1) % publishers.len()]),
                _ => self.demand(subscriptions[(step * 7) % subscriptions.len()]),
            }
        }
        self.run_until(self.now + Duration::from_secs(3));
        self.delivered.take().unwrap_or_default()
    }

    fn next_timer(&self) -> Option<Instant> {
        self.shards.iter().filter_map(Shard::next_timeout).min()
    }

    fn run_until(&mut self, end: Instant) {
        loop {
            let event = self.events.peek().map(|Reverse((at, ..))| *at);
            let timer = self.next_timer();
            let Some(at) = event.into_iter().chain(timer).min().filter(|at| *at <= end) else { break };
            self.now = at.max(self.now);
            if timer.is_some_and(|timer| timer <= self.now) {
                for (shard, out) in self.shards.iter_mut().zip(&mut self.outs) {
                    if shard.next_timeout().is_some_and(|at| at <= self.now) {
                        shard.handle_timeout(self.now, out);
                        let next = shard.next_timeout();
                        assert!(next.is_none_or(|next| next > self.now), "a timer that does not move on");
                    }
                }
            } else if let Some(Reverse((_, _, what))) = self.events.pop() {
                self.happen(what);
            }
            self.turn();
        }
        self.now = end;
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Tick => {
                self.at(self.now + TICK, What::Tick);
                for id in self.clients.keys().copied().collect::<Vec<_>>() {
                    let packets = self.clients.get_mut(&id).map(|c| c.tick(self.now, &mut self.rng));
                    self.send(id, packets.unwrap_or_default());
                }
                if !self.calm && self.rng.below(100) == 0 {
                    self.operate();
                }
            }
            What::ToShard(from, mut bytes) => {
                self.take_note(from, &bytes);
                if let Some(seat) = self.seats.get(&from) {
                    let (shard, out) = (&mut self.shards[*seat], &mut self.outs[*seat]);
                    shard.handle_datagram(self.now, route(from), &mut bytes, out);
                }
            }
            What::ToClient(to, bytes) => self.deliver(to, &bytes),
        }
    }

    /// What the oracles must know of a packet that reaches the shard.
    fn take_note(&mut self, from: u64, bytes: &[u8]) {
        let Some(client) = self.clients.get(&from) else { return };
        let Ok(view) = PacketView::parse(bytes) else { return };
        let found = client.encoders.iter().find(|e| e.ssrc == view.ssrc().0 || e.rtx_ssrc == view.ssrc().0);
        let Some(encoder) = found.filter(|_| !(192..=223).contains(&bytes[1])) else { return };
        let rtx = encoder.rtx_ssrc == view.ssrc().0;
        let intake = self.intake.entry((encoder.track, encoder.encoding)).or_default();
        intake.lossless &= client.up.is_lossless();
        let payload = if rtx { &view.payload()[2..] } else { view.payload() };
        if payload.is_empty() {
            // Padding has no label; its number is the one after the highest, or a hole that does not matter.
            let highest = intake.arrived.last().copied().unwrap_or_else(|| u64::from(view.sequence()));
            let behind = (highest as u16).wrapping_sub(view.sequence());
            let seq = if behind < 0x8000 {
                highest.saturating_sub(u64::from(behind))
            } else {
                highest + u64::from(behind.wrapping_neg())
            };
            intake.arrive(seq);
        } else {
            intake.arrive(crate::media::Payload::read(encoder.video, payload).label.seq);
        }
    }

    fn deliver(&mut self, to: u64, bytes: &[u8]) {
        let Some(client) = self.clients.get_mut(&to) else { return };
        if (192..=223).contains(&bytes[1]) {
            let answers = client.control(bytes);
            self.send(to, answers);
        } else {
            let view = PacketView::parse(bytes).unwrap();
            if view.payload_type() != OUT_VIDEO_RTX {
                client.receive(self.now, &view);
            }
        }
    }

    fn send(&mut self, from: u64, packets: Vec<Vec<u8>>) {
        for bytes in packets {
            let Some(client) = self.clients.get_mut(&from) else { return };
            let arrivals = arrivals(&mut client.up, self.steady, self.now, &mut self.rng);
            for at in arrivals {
                self.at(at, What::ToShard(from, bytes.clone()));
            }
        }
    }

    fn at(&mut self, at: Instant, what: What) {
        self.next_event += 1;
        self.events.push(Reverse((at, self.next_event, what)));
    }

    /// A command for the shard of a participant.
    fn tell(&mut self, participant: u64, command: Command) {
        if let Some(seat) = self.seats.get(&participant) {
            self.shards[*seat].handle_command(self.now, command, &mut self.outs[*seat]);
        }
    }

    /// A command for all shards.
    fn tell_all(&mut self, command: &Command) {
        for (shard, out) in self.shards.iter_mut().zip(&mut self.outs) {
            shard.handle_command(self.now, command.clone(), out);
        }
    }

    /// End a turn of the media threads, and those that follow from it: judge all they send, then let the network have it.
    fn turn(&mut self) {
        loop {
            for seat in 0..self.shards.len() {
                self.end_turn(seat);
            }
            if !self.cross() {
                break;
            }
        }
        self.assert_conserved();
    }

    /// What shards have for each other. False: nothing.
    fn cross(&mut self) -> bool {
        let mut any = false;
        for from in 0..self.shards.len() {
            let mut batches = Vec::new();
            for (to, batch) in self.outs[from].crossings.full() {
                batches.push((to, std::mem::take(batch)));
            }
            any |= !batches.is_empty();
            for (to, batch) in batches {
                let to = usize::from(to.0);
                assert_ne!(to, from, "a shard sends to itself");
                let from = ShardId(from as u16);
                self.shards[to].handle_relayed(self.now, from, &batch, &mut self.outs[to]);
            }
        }
        any
    }

    fn end_turn(&mut self, seat: usize) {
        let mut out = std::mem::take(&mut self.outs[seat]);
        self.shards[seat].flush(self.now, &mut out);
        for (to, bytes) in out.datagrams() {
            let to = number(to);
            (self.now.as_nanos(), to, bytes).hash(&mut self.hash);
            assert!(self.clients.contains_key(&to), "sends to {to}, which has left");
            assert_eq!(self.seats.get(&to), Some(&seat), "sent by a shard it is not on");
            if !(192..=223).contains(&bytes[1]) {
                self.judge(to, bytes);
            }
            let Some(client) = self.clients.get_mut(&to) else { continue };
            let arrivals = arrivals(&mut client.down, self.steady, self.now, &mut self.rng);
            for at in arrivals {
                self.at(at, What::ToClient(to, bytes.to_vec()));
            }
        }
        format!("{:?}", out.events).hash(&mut self.hash);
        out.clear();
        self.outs[seat] = out;
    }

    fn judge(&mut self, to: u64, bytes: &[u8]) {
        let view = PacketView::parse(bytes).expect("the shard writes RTP that parses");
        let rtx = view.payload_type() == OUT_VIDEO_RTX;
        let ssrc = if rtx { view.ssrc().0 - 1 } else { view.ssrc().0 };
        let id = self.by_ssrc.get(&ssrc).expect("sends on an SSRC nobody asked for");
        let subscription = self.subscriptions.get_mut(id).expect("sends on a downtrack that has ended");
        assert_eq!(subscription.subscriber, to, "sent to the wrong one");
        let track = self.tracks.get(&subscription.track).expect("sends of a track that has ended");
        assert!(!track.muted, "sends of a muted track");
        if rtx {
            subscription.stream.on_retransmission(&view);
            return;
        }
        assert!(subscription.demand.enabled, "sends what is not wanted");
        let label = peek(track.video, &view);
        assert_eq!(u64::from(label.track), subscription.track);
        let intake = self.intake.get(&(label.track, label.encoding)).expect("forwards what never came");
        let label = subscription.stream.on_packet(&view, track.video, intake);
        subscription.last = Some((label.encoding, self.now));
        if let Some(delivered) = &mut self.delivered {
            delivered.entry(*id).or_default().push((label.encoding, label.seq, view.sequence()));
        }
    }

    fn assert_conserved(&self) {
        let bug = weir::base::DropReason::Bug;
        for shard in &self.shards {
            let stats = shard.stats();
            let accounted = stats.rtp_forwarded + stats.copies_dropped.total() + stats.copies_pending;
            assert_eq!(stats.rtp_offered, accounted, "copies vanish: {stats:?}");
            assert_eq!(stats.copies_dropped.of(bug), 0, "{stats:?}");
            assert_eq!(stats.dropped.of(bug), 0, "{stats:?}");
            assert_eq!(stats.relayed_dropped.total(), 0, "{stats:?}");
            let others = self.shards.len() as u64 - 1;
            assert!(stats.relayed_sent <= stats.rtp_received * others, "a packet crosses once: {stats:?}");
        }
        let sum = |of: fn(&ShardStats) -> u64| self.shards.iter().map(|shard| of(shard.stats())).sum::<u64>();
        assert_eq!(sum(|s| s.relayed_sent), sum(|s| s.relayed_received));
        assert_eq!(sum(|s| s.participants.into()) as usize, self.clients.len());
        assert_eq!(sum(|s| s.tracks.into()) as usize, self.tracks.len());
        assert_eq!(sum(|s| s.mirrored_tracks.into()) as usize, self.tracks.len() * (self.shards.len() - 1));
        assert_eq!(sum(|s| s.downtracks.into()) as usize, self.subscriptions.len());
    }

    fn operate(&mut self) {
        let someone = self.pick(self.clients.keys().copied().collect());
        let track = self.pick(self.tracks.keys().copied().collect());
        let subscription = self.pick(self.subscriptions.keys().copied().collect());
        match (self.rng.below(14), someone, track, subscription) {
            (0, ..) if self.clients.len() < 4 => self.join(),
            (1, Some(someone), ..) if self.clients.len() > 2 => self.leave(someone),
            (2 | 3, _, Some(track), _) => self.mute(track),
            (4..=6, _, _, Some(subscription)) => self.demand(subscription),
            (7, _, _, Some(subscription)) => self.unsubscribe(subscription),
            (8, Some(someone), Some(track), _) => self.subscribe(someone, track),
            (9 | 10, Some(someone), ..) => self.switch_encoding(someone),
            (11, _, _, Some(subscription)) => self.storm_of_requests(subscription),
            (12, _, Some(track), _) => self.unpublish(track),
            (13, Some(someone), ..) => self.cap(someone),
            _ => {}
        }
    }

    fn pick(&mut self, from: Vec<u64>) -> Option<u64> {
        let at = self.rng.below(from.len() as u64) as usize;
        from.get(at).copied()
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn join(&mut self) {
        let id = self.id();
        let client = Client::new(&mut self.rng);
        self.clients.insert(id, client);
        let seat = id as usize % self.shards.len();
        self.seats.insert(id, seat);
        self.tell(id, Command::AddParticipant { room: ROOM, participant: ParticipantId(id) });
        let (shard, out) = (&mut self.shards[seat], &mut self.outs[seat]);
        shard.add_plain_transport(self.now, ParticipantId(id), TransportId(id), route(id), out);
        for track in self.tracks.keys().copied().collect::<Vec<_>>() {
            self.subscribe(id, track);
        }
        self.publish(id, false);
        if self.rng.below(3) > 0 {
            self.publish(id, true);
        }
    }

    fn leave(&mut self, id: u64) {
        self.clients.remove(&id);
        self.tell(id, Command::RemoveParticipant { participant: ParticipantId(id) });
        let gone = self.tracks.iter().filter(|(_, track)| track.publisher == id).map(|(track, _)| *track);
        for track in gone.collect::<Vec<_>>() {
            self.tell_all(&Command::Unpublish { track: TrackId(track) });
        }
        self.seats.remove(&id);
        self.tracks.retain(|_, track| track.publisher != id);
        let tracks = &self.tracks;
        self.subscriptions.retain(|_, s| s.subscriber != id && tracks.contains_key(&s.track));
    }

    fn publish(&mut self, id: u64, video: bool) {
        let track = self.id();
        // Of several encodings, one nobody there wants may bridge the time to a key frame on one shard only.
        let encodings = if video && !self.steady { 1 + self.rng.below(3) as u8 } else { 1 };
        let codec = if video {
            CodecParams {
                payload_type: PayloadType(VP8),
                codec: Codec::Vp8,
                clock_rate: 90_000,
                rtx: Some(PayloadType(VP8_RTX)),
            }
        } else {
            CodecParams { payload_type: PayloadType(OPUS), codec: Codec::Opus, clock_rate: 48_000, rtx: None }
        };
        let ssrc = |encoding: u8| (track * 100 + u64::from(encoding) * 10) as u32;
        let params = TrackParams {
            kind: if video { MediaKind::Video } else { MediaKind::Audio },
            screen_share: false,
            always_heard: false,
            mid: track.to_string(),
            codecs: vec![codec],
            encodings: (0..encodings)
                .map(|e| EncodingParams { rid: None, ssrc: Some(Ssrc(ssrc(e))), rtx_ssrc: Some(Ssrc(ssrc(e) + 1)) })
                .collect(),
            extensions: ExtensionIds::default(),
            nack: video,
            muted: false,
        };
        let Some(client) = self.clients.get_mut(&id) else { return };
        for e in 0..encodings {
            client.encoders.push(Encoder::new(track as u32, e, ssrc(e), video, &mut self.rng));
            self.intake.insert((track as u32, e), Intake { lossless: true, ..Intake::default() });
        }
        self.tracks.insert(track, Published { publisher: id, video, muted: false });
        let origin = ShardId(self.seats[&id] as u16);
        let mirror = Command::Mirror { room: ROOM, track: TrackId(track), origin, params: params.clone() };
        self.tell(id, Command::Publish { transport: TransportId(id), track: TrackId(track), params });
        for seat in (0..self.shards.len()).filter(|seat| *seat != usize::from(origin.0)) {
            self.shards[seat].handle_command(self.now, mirror.clone(), &mut self.outs[seat]);
        }
        for subscriber in self.clients.keys().copied().collect::<Vec<_>>() {
            self.subscribe(subscriber, track);
        }
    }

    fn unpublish(&mut self, track: u64) {
        let Some(published) = self.tracks.remove(&track) else { return };
        if let Some(client) = self.clients.get_mut(&published.publisher) {
            client.encoders.retain(|encoder| u64::from(encoder.track) != track);
        }
        self.subscriptions.retain(|_, s| s.track != track);
        self.tell_all(&Command::Unpublish { track: TrackId(track) });
    }

    fn subscribe(&mut self, subscriber: u64, track: u64) {
        let own = self.tracks.get(&track).is_none_or(|t| t.publisher == subscriber);
        if own || self.subscriptions.values().any(|s| s.subscriber == subscriber && s.track == track) {
            return;
        }
        let id = self.id();
        let ssrc = 1_000_000 + id as u32 * 10;
        let demand = Demand { enabled: true, max_spatial: self.rng.below(3) as u8, max_temporal: 255, priority: 1 };
        let params = DowntrackParams {
            ssrc: Ssrc(ssrc),
            rtx_ssrc: Some(Ssrc(ssrc + 1)),
            payload_types: vec![
                PayloadMap { from: PayloadType(OPUS), to: OUT_AUDIO, rtx: None },
                PayloadMap { from: PayloadType(VP8), to: OUT_VIDEO, rtx: Some(OUT_VIDEO_RTX) },
            ],
            extensions: ExtensionIds::default(),
            mid: String::new(),
            cname: "one".to_owned(),
            nack: true,
            demand,
        };
        self.by_ssrc.insert(ssrc, id);
        let stream = Stream::default();
        self.subscriptions.insert(id, Subscription { track, subscriber, ssrc, demand, stream, last: None });
        let (transport, track, downtrack) = (TransportId(subscriber), TrackId(track), DowntrackId(id));
        self.tell(subscriber, Command::Subscribe { transport, track, downtrack, params });
    }

    fn unsubscribe(&mut self, id: u64) {
        let Some(subscription) = self.subscriptions.remove(&id) else { return };
        self.tell(subscription.subscriber, Command::Unsubscribe { downtrack: DowntrackId(id) });
    }

    fn mute(&mut self, track: u64) {
        let Some(published) = self.tracks.get_mut(&track) else { return };
        published.muted = !published.muted;
        let muted = published.muted;
        self.tell_all(&Command::SetMuted { track: TrackId(track), muted });
    }

    fn demand(&mut self, id: u64) {
        let demand = Demand {
            enabled: self.rng.below(4) > 0,
            max_spatial: self.rng.below(3) as u8,
            max_temporal: [0, 1, 2, 255, 255][self.rng.below(5) as usize],
            priority: 1,
        };
        let Some(subscription) = self.subscriptions.get_mut(&id) else { return };
        subscription.demand = demand;
        let subscriber = subscription.subscriber;
        self.tell(subscriber, Command::SetDemand { downtrack: DowntrackId(id), demand });
    }

    /// The publisher stops an encoding or starts it again, as dynacast makes it.
    fn switch_encoding(&mut self, id: u64) {
        let (a, b) = (self.rng.next_u64(), self.rng.below(3) == 0);
        if let Some(client) = self.clients.get_mut(&id) {
            let mut video: Vec<_> = client.encoders.iter_mut().filter(|e| e.video).collect();
            let at = (a % video.len().max(1) as u64) as usize;
            if let Some(encoder) = video.get_mut(at) {
                encoder.enabled = b || !encoder.enabled;
            }
        }
    }

    fn storm_of_requests(&mut self, id: u64) {
        let Some(subscription) = self.subscriptions.get(&id) else { return };
        let (subscriber, ssrc) = (subscription.subscriber, subscription.ssrc);
        self.send(subscriber, (0..20).map(|_| Client::pli(ssrc)).collect());
    }

    fn cap(&mut self, id: u64) {
        let kbps = 20 + self.rng.below(400);
        let cap = (self.rng.below(3) > 0).then(|| weir::base::Bitrate::from_kbps(kbps));
        self.tell(id, Command::CapBitrate { transport: TransportId(id), cap });
    }

    /// After some seconds of quiet on perfect networks: what is wanted, flows.
    fn assert_everybody_served(&mut self) {
        for id in self.clients.keys().copied().collect::<Vec<_>>() {
            self.tell(id, Command::CapBitrate { transport: TransportId(id), cap: None });
        }
        self.run_until(self.now + Duration::from_secs(5));
        for subscription in self.subscriptions.values() {
            let Some(track) = self.tracks.get(&subscription.track) else { panic!("a subscription to nothing") };
            if track.muted || !subscription.demand.enabled {
                continue;
            }
            let encoders = &self.clients[&track.publisher].encoders;
            let live = encoders.iter().filter(|e| u64::from(e.track) == subscription.track && e.enabled);
            let live: BTreeSet<u8> = live.map(|e| e.encoding).collect();
            let wanted = subscription.demand.max_spatial;
            let best = live.range(..=wanted).next_back().or_else(|| live.range(wanted..).next());
            let Some(best) = best else { continue };
            let Some((encoding, at)) = subscription.last else {
                panic!("nothing ever came of {:?}", subscription.track)
            };
            assert_eq!(encoding, *best, "wants {wanted} of {live:?}");
            let silence = self.now.since(at);
            assert!(silence < Duration::from_millis(900), "silent for {silence:?}: {:?}", subscription.demand);
        }
        let there = |shard: &Shard| shard.state(self.now).rooms[0].participants.len();
        assert_eq!(self.shards.iter().map(there).sum::<usize>(), self.clients.len());
    }
}

/// When a packet sent now arrives.
fn arrivals(path: &mut Path, steady: bool, now: Instant, rng: &mut Rng) -> Vec<Instant> {
    if steady { vec![now + Duration::from_millis(5)] } else { path.arrivals(now, rng).collect() }
}

fn peek(video: bool, view: &PacketView<'_>) -> Label {
    crate::media::Payload::read(video, view.payload()).label
}
