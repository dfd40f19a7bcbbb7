//! Numbers of the media plane. Media threads count with plain integers and report copies of them about once a second;
//! what is new in a copy is added here.

use prometheus::{Error, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::build::{Builder, Taken};
use crate::base::{DropReason, Spread};
use crate::mailbox::{ThreadStats, TurnStats};
use crate::shard::census::{Census, VideoDowntracks};
use crate::shard::event::{DropCounts, ShardStats};

/// See the module.
#[derive(Debug)]
pub(super) struct Media {
    deaths: IntCounter,
    received: IntCounter,
    offered: IntCounter,
    forwarded: IntCounter,
    pending: IntGauge,
    datagrams_dropped: IntCounterVec,
    copies_dropped: IntCounterVec,
    nacks_refused: IntCounterVec,
    relayed: IntCounterVec,
    relays_dropped: IntCounterVec,
    bytes: IntCounterVec,
    nacks: IntCounterVec,
    rtx: IntCounterVec,
    keyframe_requests: IntCounterVec,
    datagrams: IntCounterVec,
    system_calls: IntCounterVec,
    unsent: IntCounterVec,
    turns: IntCounter,
    turn_time: Taken,
    forwarding: Taken,
    first_packet: Taken,
    sizes: IntGaugeVec,
    downtracks: IntGaugeVec,
    bitrates: IntGaugeVec,
    tcp: IntGauge,
    tcp_full: IntCounter,
    waiting: IntGaugeVec,
    data_lost: IntCounter,
    livekit: LiveKit,
}

/// The same under the names of LiveKit's dashboards.
#[derive(Debug)]
struct LiveKit {
    packets: IntCounterVec,
    bytes: IntCounterVec,
    nacks: IntCounterVec,
    plis: IntCounterVec,
    forwarding: Taken,
    participants: IntGauge,
    published: IntGaugeVec,
    subscribed: IntGaugeVec,
}

impl Media {
    pub(super) fn new(make: &Builder<'_>) -> Result<Self, Error> {
        let counter = |name, help| make.counter(name, help);
        let by = |label: &'static str| move |name: &str, help: &str| make.counters(name, help, &[label]);
        let (by_reason, by_direction) = (by("reason"), by("direction"));
        Ok(Self {
            deaths: counter("weir_media_shard_deaths_total", "Media threads that lost their rooms by a fault.")?,
            received: counter("weir_shard_packets_received_total", "RTP packets received.")?,
            offered: counter(
                "weir_shard_packets_offered_total",
                "Copies wanted, packets times takers: forwarded, dropped or pending.",
            )?,
            forwarded: counter("weir_shard_packets_forwarded_total", "Copies sent.")?,
            pending: make.gauge("weir_shard_packets_pending", "Copies decided and not yet sent.")?,
            datagrams_dropped: by_reason(
                "weir_shard_datagrams_dropped_total",
                "Datagrams that ended before they were offered to anybody.",
            )?,
            copies_dropped: by_reason("weir_shard_packets_dropped_total", "Copies that were not sent.")?,
            nacks_refused: by_reason("weir_shard_nacks_refused_total", "Retransmissions that were not sent.")?,
            relayed: by_direction(
                "weir_shard_relayed_packets_total",
                "Packets of rooms on several media threads that crossed to another thread.",
            )?,
            relays_dropped: by_reason(
                "weir_shard_relays_dropped_total",
                "Packets that were to cross to another media thread and did not.",
            )?,
            bytes: by_direction("weir_shard_bytes_total", "Bytes at the UDP level.")?,
            nacks: by_direction("weir_shard_nacks_total", "Packets asked for again.")?,
            rtx: by_direction("weir_shard_retransmissions_total", "Packets sent again.")?,
            keyframe_requests: by_direction("weir_shard_keyframe_requests_total", "Key frame requests.")?,
            datagrams: by_direction("weir_media_datagrams_total", "UDP datagrams.")?,
            system_calls: by_direction(
                "weir_media_system_calls_total",
                "Calls that carried them: fewer where runs of datagrams form.",
            )?,
            unsent: by_reason("weir_media_unsent_datagrams_total", "UDP datagrams the kernel did not take.")?,
            turns: counter("weir_media_turns_total", "Loop turns of media threads.")?,
            turn_time: make.taken(
                "weir_media_turn_seconds",
                "Time of loop turns from waking to sleeping.",
                &TurnStats::BOUNDS,
                1.0,
            )?,
            forwarding: make.taken(
                "weir_media_forward_seconds",
                "Time copies were inside weir at most: the turn that sent them.",
                Spread::BOUNDS.get(..Spread::WORK).unwrap_or_default(),
                1.0,
            )?,
            first_packet: make.taken(
                "weir_shard_first_packet_seconds",
                "Time from a subscription to its first packet; waiting for the publisher counts.",
                Spread::BOUNDS.get(4..).unwrap_or_default(),
                1.0,
            )?,
            sizes: make.gauges("weir_shard_objects", "What shards hold now.", &["kind"])?,
            downtracks: make.gauges(
                "weir_shard_downtracks",
                "Tracks sent to subscribers, by what flows.",
                &["flow"],
            )?,
            bitrates: make.gauges(
                "weir_shard_bitrate_bps",
                "Of transports whose bandwidth is known: what they could take, and what is sent.",
                &["what"],
            )?,
            tcp: make.gauge("weir_media_tcp_connections", "ICE-TCP connections now.")?,
            tcp_full: counter("weir_media_tcp_frames_dropped_total", "Packets an ICE-TCP connection had no room for.")?,
            waiting: make.gauges("weir_media_waiting_commands", "Commands that wait, by media thread.", &["thread"])?,
            data_lost: counter("weir_media_data_lost_total", "Data messages lost because control was behind.")?,
            livekit: LiveKit::new(make)?,
        })
    }

    /// Shards that died.
    pub(super) fn deaths(&self) -> u64 {
        self.deaths.get()
    }

    /// A shard began anew: its counters start at zero, its thread's go on.
    pub(super) fn shard_died(&self, all: &mut [ThreadStats], thread: usize) {
        self.deaths.inc();
        if let Some(last) = all.get_mut(thread) {
            last.shard = ShardStats::default();
        }
    }

    /// Take over the counters of a media thread. `all` holds the last ones of each.
    pub(super) fn fold(&self, all: &mut [ThreadStats], thread: usize, stats: &ThreadStats) {
        let Some(last) = all.get_mut(thread) else { return };
        self.fold_shard(&stats.shard, &last.shard);
        self.fold_thread(stats, last);
        self.waiting.with_label_values(&[thread.to_string()]).set(i64::from(stats.mailbox_depth));
        *last = stats.clone();
        self.sizes(all);
    }

    fn fold_shard(&self, new: &ShardStats, old: &ShardStats) {
        add(&self.received, new.rtp_received, old.rtp_received);
        add(&self.offered, new.rtp_offered, old.rtp_offered);
        add(&self.forwarded, new.rtp_forwarded, old.rtp_forwarded);
        reasons(&self.datagrams_dropped, &new.dropped, &old.dropped);
        reasons(&self.copies_dropped, &new.copies_dropped, &old.copies_dropped);
        reasons(&self.nacks_refused, &new.nacks_refused, &old.nacks_refused);
        both(&self.relayed, (new.relayed_received, old.relayed_received), (new.relayed_sent, old.relayed_sent));
        reasons(&self.relays_dropped, &new.relayed_dropped, &old.relayed_dropped);
        both(&self.bytes, (new.bytes_received, old.bytes_received), (new.bytes_sent, old.bytes_sent));
        both(&self.nacks, (new.nacks_received, old.nacks_received), (new.nacks_sent, old.nacks_sent));
        both(&self.rtx, (new.rtx_received, old.rtx_received), (new.rtx_sent, old.rtx_sent));
        both(
            &self.keyframe_requests,
            (new.keyframe_requests_received, old.keyframe_requests_received),
            (new.keyframe_requests_sent, old.keyframe_requests_sent),
        );
        let bounds = 4; // The classes below one millisecond count as one.
        let shifted = |spread: &Spread| {
            let (low, high) = spread.classes().split_at_checked(bounds).unwrap_or_default();
            let mut classes = high.to_vec();
            if let Some(first) = classes.first_mut() {
                *first += low.iter().sum::<u64>();
            }
            classes
        };
        let (new_classes, old_classes) = (shifted(&new.first_packet), shifted(&old.first_packet));
        let sums = (new.first_packet.sum_nanos(), old.first_packet.sum_nanos());
        self.first_packet.add((&new_classes, sums.0), (&old_classes, sums.1));
        self.livekit.fold(new, old);
    }

    fn fold_thread(&self, new: &ThreadStats, old: &ThreadStats) {
        both(
            &self.datagrams,
            (new.datagrams_received, old.datagrams_received),
            (new.datagrams_sent, old.datagrams_sent),
        );
        both(&self.system_calls, (new.receive_calls, old.receive_calls), (new.send_calls, old.send_calls));
        add(&self.unsent.with_label_values(&["full"]), new.send_full, old.send_full);
        add(&self.unsent.with_label_values(&["failed"]), new.send_failed, old.send_failed);
        add(&self.turns, new.turns.count, old.turns.count);
        add(&self.tcp_full, new.tcp_full, old.tcp_full);
        add(&self.data_lost, new.data_lost, old.data_lost);
        self.turn_time.add((&new.turns.buckets, new.turns.sum_nanos), (&old.turns.buckets, old.turns.sum_nanos));
        self.forwarding.add_spread(&new.forwarding, &old.forwarding);
        self.livekit.forwarding.add_spread(&new.forwarding, &old.forwarding);
    }

    /// What is there now, of all threads together.
    fn sizes(&self, all: &[ThreadStats]) {
        let sum = |of: fn(&ThreadStats) -> u32| all.iter().map(|stats| i64::from(of(stats))).sum::<i64>();
        let census = |of: fn(&Census) -> u32| all.iter().map(|stats| i64::from(of(&stats.census))).sum::<i64>();
        let video = |of: fn(&VideoDowntracks) -> u32| {
            all.iter().map(|stats| i64::from(of(&stats.census.video_downtracks))).sum::<i64>()
        };
        let bps = |of: fn(&Census) -> u64| all.iter().map(|stats| of(&stats.census)).sum::<u64>();
        let size = |kind: &str, count: i64| self.sizes.with_label_values(&[kind]).set(count);
        size("room", sum(|s| s.shard.rooms));
        size("participant", sum(|s| s.shard.participants));
        size("transport", sum(|s| s.shard.transports));
        size("connected_transport", census(|c| c.connected_transports));
        size("track", sum(|s| s.shard.tracks));
        size("inaudible_track", census(|c| c.inaudible_tracks));
        size("downtrack", sum(|s| s.shard.downtracks));
        let flow = |flow: &str, count: i64| self.downtracks.with_label_values(&[flow]).set(count);
        flow("audio", census(|c| c.audio_downtracks));
        flow("video_low", video(|v| v.layers[0]));
        flow("video_middle", video(|v| v.layers[1]));
        flow("video_high", video(|v| v.layers[2]));
        flow("video_paused", video(|v| v.paused));
        flow("video_disabled", video(|v| v.disabled));
        flow("video_idle", video(|v| v.idle));
        let rate =
            |what: &str, bps: u64| self.bitrates.with_label_values(&[what]).set(bps.try_into().unwrap_or(i64::MAX));
        rate("estimate", bps(|c| c.estimate.as_bps()));
        rate("allocated", bps(|c| c.allocated.as_bps()));
        self.tcp.set(sum(|s| s.tcp_connections));
        let pending = all.iter().map(|stats| stats.shard.copies_pending).sum::<u64>();
        self.pending.set(pending.try_into().unwrap_or(i64::MAX));
        let livekit = &self.livekit;
        livekit.participants.set(sum(|s| s.shard.participants));
        let (published, subscribed) = (&livekit.published, &livekit.subscribed);
        published.with_label_values(&["AUDIO"]).set(census(|c| c.audio_tracks));
        published.with_label_values(&["VIDEO"]).set(census(|c| c.video_tracks));
        subscribed.with_label_values(&["AUDIO"]).set(census(|c| c.audio_downtracks));
        subscribed.with_label_values(&["VIDEO"]).set(video(VideoDowntracks::total));
    }
}

impl LiveKit {
    fn new(make: &Builder<'_>) -> Result<Self, Error> {
        const PACKETS: [&str; 3] = ["direction", "transmission", "country"];
        const REQUESTS: [&str; 2] = ["direction", "country"];
        Ok(Self {
            packets: make.counters("livekit_packet_total", "Packets.", &PACKETS)?,
            bytes: make.counters("livekit_packet_bytes", "Bytes of packets.", &PACKETS)?,
            nacks: make.counters("livekit_nack_total", "Packets asked for again.", &REQUESTS)?,
            plis: make.counters("livekit_pli_total", "Key frame requests.", &REQUESTS)?,
            forwarding: make.taken(
                "livekit_forward_latency_ns",
                "Time copies were inside weir at most.",
                Spread::BOUNDS.get(..Spread::WORK).unwrap_or_default(),
                1e9,
            )?,
            participants: make.gauge("livekit_participant_total", "Participants now.")?,
            published: make.gauges("livekit_track_published_total", "Tracks published now.", &["kind"])?,
            subscribed: make.gauges("livekit_track_subscribed_total", "Tracks sent to subscribers now.", &["kind"])?,
        })
    }

    /// What comes from clients is `incoming`, what is sent to them `outgoing`.
    fn fold(&self, new: &ShardStats, old: &ShardStats) {
        let packets = |direction, transmission, new, old| {
            add(&self.packets.with_label_values(&[direction, transmission, ""]), new, old);
        };
        packets("incoming", "initial", new.rtp_received, old.rtp_received);
        packets("outgoing", "initial", new.rtp_forwarded, old.rtp_forwarded);
        packets("incoming", "retransmit", new.rtx_received, old.rtx_received);
        packets("outgoing", "retransmit", new.rtx_sent, old.rtx_sent);
        let bytes = |direction, new, old| add(&self.bytes.with_label_values(&[direction, "initial", ""]), new, old);
        bytes("incoming", new.bytes_received, old.bytes_received);
        bytes("outgoing", new.bytes_sent, old.bytes_sent);
        let requests = |of: &IntCounterVec, direction, new, old| add(&of.with_label_values(&[direction, ""]), new, old);
        requests(&self.nacks, "incoming", new.nacks_received, old.nacks_received);
        requests(&self.nacks, "outgoing", new.nacks_sent, old.nacks_sent);
        requests(&self.plis, "incoming", new.keyframe_requests_received, old.keyframe_requests_received);
        requests(&self.plis, "outgoing", new.keyframe_requests_sent, old.keyframe_requests_sent);
    }
}

fn add(counter: &IntCounter, new: u64, old: u64) {
    counter.inc_by(new.saturating_sub(old));
}

fn both(counters: &IntCounterVec, received: (u64, u64), sent: (u64, u64)) {
    add(&counters.with_label_values(&["received"]), received.0, received.1);
    add(&counters.with_label_values(&["sent"]), sent.0, sent.1);
}

fn reasons(counters: &IntCounterVec, new: &DropCounts, old: &DropCounts) {
    for reason in DropReason::ALL {
        add(&counters.with_label_values(&[reason.label()]), new.of(*reason), old.of(*reason));
    }
}

/// Load as metrics.
#[derive(Debug)]
pub(super) struct LoadGauges {
    pub(super) node: prometheus::Gauge,
    pub(super) parts: GaugeVec,
    pub(super) threads: GaugeVec,
}

impl LoadGauges {
    pub(super) fn new(make: &Builder<'_>) -> Result<Self, Error> {
        Ok(Self {
            node: make
                .ratio("weir_load", "How much of what this node can do it does, 0 to 1; the rest is head-room.")?,
            parts: make.ratios(
                "weir_load_part",
                "The same by what could be exhausted; the largest is the load.",
                "part",
            )?,
            threads: make.ratios("weir_media_thread_load", "Share of time media threads work, 0 to 1.", "thread")?,
        })
    }
}
