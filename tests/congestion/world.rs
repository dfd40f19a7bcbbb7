//! Shard, publishers, bottleneck and subscriber, a millisecond at a time.

use core::net::SocketAddr;

use weir::base::{
    DowntrackId, Instant, MediaKind, ParticipantId, PayloadType, Rng, RoomId, Ssrc, TrackId, TransportId,
};
use weir::rtp::codec::Codec;
use weir::rtp::rtcp::{Compound, Packet};
use weir::shard::command::Command;
use weir::shard::event::Event;
use weir::shard::outbox::Outbox;
use weir::shard::{Shard, ShardConfig};
use weir::transport::params::{
    CodecParams, Demand, DowntrackParams, EncodingParams, ExtensionIds, PayloadMap, TrackParams,
};
use weir::transport::route::Route;
use weir_loadtest::net::waits::Waits;

use crate::link::{Link, Shape};
use crate::publisher::{Encoder, FPS, LADDER, OPUS, VP8};
use crate::subscriber::{Screen, Subscriber, TRANSPORT_CC, Voice};

const ROOM: RoomId = RoomId(1);
const SUBSCRIBER: u64 = 99;
const START_MS: u64 = 1000;
/// What the link carries is counted from then on.
const COUNTED_FROM_MS: u64 = 20_000;
/// What sound and each encoding take of a link, headers and all.
const VOICE_COST: u64 = 60_000;
const COSTS: [u64; 3] = [LADDER[0] * 112 / 100, LADDER[1] * 108 / 100, LADDER[2] * 106 / 100];

/// What came of a run.
#[derive(Debug, Default)]
pub struct Outcome {
    waits: Waits,
    pub longest_silence: u64,
    pub freezes: u64,
    pub frozen_ms: u64,
    /// Frozen at the end, ms.
    pub stuck_ms: u64,
    /// Share of the time in which the best layers that fit into 0.9 of the rate were flowing.
    pub best_percent: u64,
    pub switches: u64,
    pub padding_percent: u64,
    pub pauses: u64,
    /// What the call took of the link, and the TCP flow beside, in percent, from the twentieth second on.
    pub used_percent: u64,
    pub tcp_percent: u64,
    /// Per tenth of a second: whether what flowed was the best, or better.
    best: Vec<bool>,
    /// Five times a second, when it is asked for: what the server knows and does.
    pub trace: Vec<String>,
}

impl Outcome {
    /// Queueing delay, ms.
    pub fn queue(&self, percent: u64) -> u64 {
        self.waits.percentile(percent)
    }

    /// Milliseconds after the given second until the best flows and has for half a second.
    pub fn until_best(&self, second: usize) -> Option<u64> {
        let from = self.best.get(second * 10..)?;
        from.windows(5).position(|w| w.iter().all(|best| *best)).map(|at| at as u64 * 100)
    }
}

pub struct World {
    shard: Shard,
    out: Outbox,
    rng: Rng,
    link: Link,
    back: std::collections::VecDeque<(u64, usize, Vec<u8>)>,
    voices: Vec<Encoder>,
    cameras: Vec<Encoder>,
    subscribers: Vec<Subscriber>,
    outcome: Outcome,
    publishers: u64,
    /// Until when server and subscriber stand still, and what has come for them.
    stalled: [u64; 2],
    /// Whether to keep a trace.
    pub traced: bool,
    for_server: Vec<(Route, Vec<u8>)>,
    for_subscriber: Vec<(usize, Vec<u8>)>,
}

fn route(n: u64) -> Route {
    let address = |port: u64| SocketAddr::from(([127, 0, 0, 1], port as u16));
    Route::Udp { local: address(7882), remote: address(10_000 + n) }
}

impl World {
    pub fn new(seed: u64, shape: Shape, publishers: u64) -> Self {
        let mut config = ShardConfig::default();
        config.room.allow_pause = true;
        let mut world = Self {
            shard: Shard::new(config, seed),
            out: Outbox::new(),
            rng: Rng::new(seed),
            subscribers: (0..shape.viewers).map(|_| Subscriber::new(shape.mute)).collect(),
            link: Link::new(shape, seed),
            back: std::collections::VecDeque::new(),
            voices: Vec::new(),
            cameras: Vec::new(),
            outcome: Outcome::default(),
            publishers,
            stalled: [0, 0],
            traced: false,
            for_server: Vec::new(),
            for_subscriber: Vec::new(),
        };
        world.set_up();
        world
    }

    fn set_up(&mut self) {
        let now = Instant::from_millis(START_MS);
        self.command(now, Command::AddRoom { room: ROOM });
        let viewers = (0..self.subscribers.len()).map(id_of);
        for n in (1..=self.publishers).chain(viewers) {
            self.command(now, Command::AddParticipant { room: ROOM, participant: ParticipantId(n) });
            self.shard.add_plain_transport(now, ParticipantId(n), TransportId(n), route(n), &mut self.out);
        }
        for n in 1..=self.publishers {
            let ssrc = n as u32 * 1000;
            self.voices.push(Encoder::sound(ssrc));
            self.publish(now, n, MediaKind::Audio, ssrc, 1);
            for spatial in 0..3u8 {
                self.cameras.push(Encoder::camera(ssrc + 100 + u32::from(spatial) * 10, spatial));
            }
            self.publish(now, n, MediaKind::Video, ssrc + 100, 3);
            for viewer in 0..self.subscribers.len() {
                self.subscribe(now, viewer, n, MediaKind::Audio);
                self.subscribe(now, viewer, n, MediaKind::Video);
            }
        }
        self.out.clear();
    }

    fn command(&mut self, now: Instant, command: Command) {
        self.shard.handle_command(now, command, &mut self.out);
    }

    fn publish(&mut self, now: Instant, n: u64, kind: MediaKind, ssrc: u32, encodings: u32) {
        let audio = CodecParams { payload_type: PayloadType(OPUS), codec: Codec::Opus, clock_rate: 48_000, rtx: None };
        let video = CodecParams { payload_type: PayloadType(VP8), codec: Codec::Vp8, clock_rate: 90_000, rtx: None };
        let encoding = |at| EncodingParams { rid: None, ssrc: Some(Ssrc(ssrc + at * 10)), rtx_ssrc: None };
        let params = TrackParams {
            kind,
            screen_share: false,
            always_heard: false,
            mid: ssrc.to_string(),
            codecs: vec![if kind == MediaKind::Audio { audio } else { video }],
            encodings: (0..encodings).map(encoding).collect(),
            extensions: ExtensionIds::default(),
            nack: true,
            muted: false,
        };
        self.command(now, Command::Publish { transport: TransportId(n), track: track(n, kind), params });
    }

    fn subscribe(&mut self, now: Instant, viewer: usize, n: u64, kind: MediaKind) {
        let ssrc = 50_000 + viewer as u32 * 10_000 + n as u32 * 100 + if kind == MediaKind::Audio { 0 } else { 50 };
        let subscriber = &mut self.subscribers[viewer];
        if kind == MediaKind::Audio {
            subscriber.voices.insert(ssrc, Voice::default());
        } else {
            subscriber.screens.insert(ssrc, Screen::default());
        }
        let rtx = kind == MediaKind::Video;
        let params = DowntrackParams {
            ssrc: Ssrc(ssrc),
            rtx_ssrc: rtx.then_some(Ssrc(ssrc + 1)),
            payload_types: vec![
                PayloadMap { from: PayloadType(OPUS), to: PayloadType(63), rtx: None },
                PayloadMap { from: PayloadType(VP8), to: PayloadType(100), rtx: Some(PayloadType(101)) },
            ],
            extensions: ExtensionIds { transport_cc: Some(TRANSPORT_CC), ..ExtensionIds::default() },
            mid: String::new(),
            cname: "one".to_owned(),
            nack: rtx,
            demand: Demand { enabled: true, max_spatial: 2, max_temporal: 255, priority: 1 },
        };
        let (transport, track) = (TransportId(id_of(viewer)), track(n, kind));
        self.command(now, Command::Subscribe { transport, track, downtrack: DowntrackId(ssrc.into()), params });
    }

    pub fn run(mut self) -> Outcome {
        let end = self.link.shape.seconds * 1000;
        for ms in 0..end {
            self.millisecond(ms);
            if ms.is_multiple_of(100) {
                self.judge(ms);
            }
            if ms == COUNTED_FROM_MS {
                self.outcome.waits = self.link.counts().waits;
            }
        }
        let mut outcome = self.outcome;
        let counts = self.link.counts();
        outcome.used_percent = counts.bytes * 800 / counts.capacity;
        outcome.tcp_percent = counts.tcp_bytes * 800 / counts.capacity;
        outcome.waits.merge(&counts.waits);
        let voices = self.subscribers.iter().flat_map(|subscriber| subscriber.voices.values());
        outcome.longest_silence = voices.map(|v| v.longest).max().unwrap_or(0);
        for screen in self.subscribers.iter().flat_map(|subscriber| subscriber.screens.values()) {
            outcome.freezes += screen.freezes.len() as u64;
            outcome.frozen_ms += screen.freezes.iter().sum::<u64>();
            outcome.switches += screen.switches;
            outcome.stuck_ms = outcome.stuck_ms.max(screen.frozen_at_end(START_MS + end));
        }
        let good = outcome.best.iter().filter(|best| **best).count();
        outcome.best_percent = (good * 100 / outcome.best.len()) as u64;
        let sum = |of: fn(&Subscriber) -> u64| self.subscribers.iter().map(of).sum::<u64>();
        outcome.padding_percent = sum(|s| s.padding) * 100 / sum(|s| s.bytes).max(1);
        let stats = self.shard.stats();
        assert_eq!(
            stats.rtp_offered,
            stats.rtp_forwarded + stats.copies_dropped.total() + stats.copies_pending,
            "{stats:?}"
        );
        outcome
    }

    fn millisecond(&mut self, ms: u64) {
        let now = Instant::from_millis(START_MS + ms);
        let starved = self.link.shape.starved;
        for until in &mut self.stalled {
            if starved > 0 && *until <= ms && self.rng.below(200) == 0 {
                *until = ms + 20 + self.rng.below(starved);
            }
        }
        for (n, voice) in self.voices.iter_mut().enumerate() {
            if (ms + n as u64 * 7).is_multiple_of(20) {
                let packets = voice.frame(ms, &mut self.rng);
                self.for_server.extend(packets.into_iter().map(|packet| (route(n as u64 + 1), packet)));
            }
        }
        for (n, camera) in self.cameras.iter_mut().enumerate() {
            if (ms + n as u64 * 5).is_multiple_of(1000 / FPS) {
                let packets = camera.frame(ms, &mut self.rng);
                self.for_server.extend(packets.into_iter().map(|packet| (route(n as u64 / 3 + 1), packet)));
            }
        }
        while self.back.front().is_some_and(|(at, ..)| *at <= ms) {
            let (_, viewer, packet) = self.back.pop_front().unwrap();
            self.for_server.push((route(id_of(viewer)), packet));
        }
        if self.stalled[0] <= ms {
            for (route, mut packet) in self.for_server.drain(..) {
                self.shard.handle_datagram(now, route, &mut packet, &mut self.out);
            }
            if self.shard.next_timeout().is_some_and(|at| at <= now) {
                self.shard.handle_timeout(now, &mut self.out);
            }
            self.shard.flush(now, &mut self.out);
            self.turn(ms);
        }
        let arrived = self.link.step(ms);
        self.for_subscriber.extend(arrived);
        if self.stalled[1] > ms {
            return;
        }
        for (viewer, packet) in self.for_subscriber.drain(..) {
            self.subscribers[viewer].receive(now, &packet);
        }
        for (viewer, subscriber) in self.subscribers.iter_mut().enumerate() {
            for packet in subscriber.tick(now) {
                // Nothing gets through a dead link, either way.
                if self.link.shape.rate(ms) > 0 {
                    self.back.push_back((ms + self.link.shape.delay, viewer, packet));
                }
            }
        }
    }

    /// Carry out what the shard wants.
    fn turn(&mut self, ms: u64) {
        let mut to_subscriber = Vec::new();
        for (to, bytes) in self.out.datagrams() {
            if let Some(viewer) = (0..self.subscribers.len()).find(|viewer| to == route(id_of(*viewer))) {
                to_subscriber.push((viewer, bytes.to_vec()));
                continue;
            }
            for packet in Compound::new(bytes) {
                if let Ok(Packet::Pli { media }) = packet
                    && let Some(camera) = self.cameras.iter_mut().find(|camera| Ssrc(camera.ssrc) == media)
                {
                    camera.key = true;
                }
            }
        }
        for (viewer, bytes) in to_subscriber {
            self.link.send(ms, viewer, bytes);
        }
        for event in &self.out.events {
            if matches!(event, Event::StreamState { paused: true, .. }) {
                self.outcome.pauses += 1;
            }
        }
        self.out.clear();
    }

    fn judge(&mut self, ms: u64) {
        let room = self.link.shape.rate(ms) * 9 / 10;
        let streams = self.publishers * self.subscribers.len() as u64;
        let mut left = room.saturating_sub(VOICE_COST * streams);
        let mut best = vec![None; streams as usize];
        for (round, cost) in COSTS.into_iter().enumerate() {
            for layer in &mut best {
                let held = layer.map_or(0, |layer: usize| COSTS[layer]);
                if layer.map_or(0, |layer| layer + 1) == round && cost - held <= left {
                    left -= cost - held;
                    *layer = Some(round);
                }
            }
        }
        let wanted: usize = best.iter().map(|layer| layer.map_or(0, |layer| layer + 1)).sum();
        let fresh = |screen: &&Screen| screen.frozen_at_end(START_MS + ms) < 500;
        let screens = self.subscribers.iter().flat_map(|subscriber| subscriber.screens.values());
        let shown: usize = screens.filter(fresh).filter_map(|s| s.layer).map(|l| usize::from(l) + 1).sum();
        self.outcome.best.push(shown >= wanted);
        if self.traced && ms.is_multiple_of(200) {
            let line = self.line(ms, shown, wanted);
            self.outcome.trace.push(line);
        }
    }

    fn line(&self, ms: u64, shown: usize, wanted: usize) -> String {
        let state = self.shard.state(Instant::from_millis(START_MS + ms));
        let to = state.rooms[0].participants.iter().find(|p| p.id == ParticipantId(SUBSCRIBER)).unwrap();
        let transport = &to.transports[0];
        let (queue, loss) = transport.path.map_or((0, 0), |path| (path.queue.as_millis(), path.loss_per_mille));
        let layers: Vec<String> = to
            .downtracks
            .iter()
            .filter(|d| d.demand == Some(2))
            .map(|d| format!("{}>{}", d.current.map_or(-1, i64::from), d.target.map_or(-1, i64::from)))
            .collect();
        format!(
            "{:6.1} s: link {:5} estimate {:5} sending {:5} allotted {:5} needed {:5} queue {queue:4} loss {loss:3} \
             shown {shown}/{wanted} {}",
            ms as f64 / 1000.0,
            self.link.shape.rate(ms) / 1000,
            transport.estimate.as_bps() / 1000,
            transport.sending.as_bps() / 1000,
            to.allotted.as_bps() / 1000,
            to.needed.as_bps() / 1000,
            layers.join(" "),
        )
    }
}

/// The number of a viewer.
const fn id_of(viewer: usize) -> u64 {
    SUBSCRIBER + viewer as u64
}

fn track(n: u64, kind: MediaKind) -> TrackId {
    TrackId(n * 10 + u64::from(kind == MediaKind::Video))
}
