//! Numbers for operators, in Prometheus form. The core counts with plain integers; this file alone knows the library.
//!
//! Labels come from closed sets only: never a room, a user or an address.

use prometheus::{Encoder, IntCounter, IntCounterVec, IntGauge, Opts, TextEncoder};

use crate::base::DropReason;
use crate::mailbox::ThreadStats;
use crate::shard::event::ShardStats;

/// All numbers of a node.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: prometheus::Registry,
    pub(super) rooms: IntGauge,
    pub(super) connections: IntGauge,
    pub(super) joins: IntCounterVec,
    pub(super) participants_joined: IntCounter,
    pub(super) participants_left: IntCounterVec,
    pub(super) participants_aborted: IntCounterVec,
    pub(super) slow_readers: IntCounter,
    pub(super) mailbox_full: IntCounter,
    pub(super) data_dropped: IntCounter,
    pub(super) room_panics: IntCounter,
    pub(super) accept_errors: IntCounter,
    pub(super) api_requests: IntCounterVec,
    pub(super) webhooks: IntCounterVec,
    shard_deaths: IntCounter,
    received: IntCounter,
    offered: IntCounter,
    forwarded: IntCounter,
    dropped: IntCounterVec,
    bytes: IntCounterVec,
    nacks: IntCounterVec,
    rtx: IntCounterVec,
    keyframe_requests: IntCounterVec,
    datagrams: IntCounterVec,
    system_calls: IntCounterVec,
    unsent: IntCounterVec,
    turns: IntCounter,
    sizes: prometheus::IntGaugeVec,
}

impl Metrics {
    /// All at zero.
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let registry = prometheus::Registry::new();
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let labelled = |name: &str, help: &str, label: &str| -> Result<IntCounterVec, prometheus::Error> {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok(counters)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let sizes = prometheus::IntGaugeVec::new(Opts::new("weir_shard_objects", "What shards hold now."), &["kind"])?;
        registry.register(Box::new(sizes.clone()))?;
        Ok(Self {
            rooms: gauge("weir_control_rooms", "Rooms now.")?,
            connections: gauge("weir_control_connections", "Signalling connections now.")?,
            joins: labelled("weir_control_joins_total", "Joins by how they were answered.", "result")?,
            participants_joined: counter(
                "weir_control_participants_joined_total",
                "Participants whose media connected.",
            )?,
            participants_left: labelled("weir_control_participants_left_total", "Participants that left.", "reason")?,
            participants_aborted: labelled(
                "weir_control_participants_aborted_total",
                "Participants that left before their media connected.",
                "reason",
            )?,
            slow_readers: counter(
                "weir_control_slow_readers_total",
                "Connections cut because the client did not read.",
            )?,
            mailbox_full: counter(
                "weir_control_mailbox_full_total",
                "Times a media thread had no place for a command.",
            )?,
            data_dropped: counter(
                "weir_control_data_dropped_total",
                "Data messages dropped because control was behind.",
            )?,
            room_panics: counter("weir_control_room_panics_total", "Rooms that ended by a fault of weir.")?,
            accept_errors: counter("weir_control_accept_errors_total", "Connections the system could not accept.")?,
            api_requests: labelled("weir_control_api_requests_total", "Server API requests by answer.", "code")?,
            webhooks: labelled("weir_control_webhooks_total", "Webhooks by what became of them.", "result")?,
            shard_deaths: counter("weir_media_shard_deaths_total", "Media threads that lost their rooms by a fault.")?,
            received: counter("weir_shard_packets_received_total", "RTP packets received.")?,
            offered: counter("weir_shard_packets_offered_total", "Copies wanted: packets times takers.")?,
            forwarded: counter("weir_shard_packets_forwarded_total", "Copies sent.")?,
            dropped: labelled("weir_shard_packets_dropped_total", "Datagrams and copies that ended.", "reason")?,
            bytes: labelled("weir_shard_bytes_total", "Bytes at the UDP level.", "direction")?,
            nacks: labelled("weir_shard_nacks_total", "Packets asked for again.", "direction")?,
            rtx: labelled("weir_shard_retransmissions_total", "Packets sent again.", "direction")?,
            keyframe_requests: labelled("weir_shard_keyframe_requests_total", "Key frame requests.", "direction")?,
            datagrams: labelled("weir_media_datagrams_total", "UDP datagrams.", "direction")?,
            system_calls: labelled(
                "weir_media_system_calls_total",
                "Calls that carried them: fewer where runs of datagrams form.",
                "direction",
            )?,
            unsent: labelled("weir_media_unsent_datagrams_total", "UDP datagrams the kernel did not take.", "reason")?,
            turns: counter("weir_media_turns_total", "Loop turns of media threads.")?,
            sizes,
            registry,
        })
    }

    /// Count how a join was answered.
    pub(super) fn join(&self, result: &'static str) {
        self.joins.with_label_values(&[result]).inc();
    }

    /// Take over the counters of a media thread. `all` holds the last ones of each, to add only what is new.
    pub(super) fn fold(&self, all: &mut [ThreadStats], thread: usize, stats: &ThreadStats) {
        let Some(last) = all.get_mut(thread) else { return };
        let (new, old) = (&stats.shard, &last.shard);
        let add = |counter: &IntCounter, new: u64, old: u64| counter.inc_by(new.saturating_sub(old));
        add(&self.received, new.rtp_received, old.rtp_received);
        add(&self.offered, new.rtp_offered, old.rtp_offered);
        add(&self.forwarded, new.rtp_forwarded, old.rtp_forwarded);
        for reason in DropReason::ALL {
            let count = new.dropped.of(*reason).saturating_sub(old.dropped.of(*reason));
            self.dropped.with_label_values(&[reason.label()]).inc_by(count);
        }
        let both = |counters: &IntCounterVec, received: (u64, u64), sent: (u64, u64)| {
            add(&counters.with_label_values(&["received"]), received.0, received.1);
            add(&counters.with_label_values(&["sent"]), sent.0, sent.1);
        };
        both(&self.bytes, (new.bytes_received, old.bytes_received), (new.bytes_sent, old.bytes_sent));
        both(&self.nacks, (new.nacks_received, old.nacks_received), (new.nacks_sent, old.nacks_sent));
        both(&self.rtx, (new.rtx_received, old.rtx_received), (new.rtx_sent, old.rtx_sent));
        both(
            &self.keyframe_requests,
            (new.keyframe_requests_received, old.keyframe_requests_received),
            (new.keyframe_requests_sent, old.keyframe_requests_sent),
        );
        both(
            &self.datagrams,
            (stats.datagrams_received, last.datagrams_received),
            (stats.datagrams_sent, last.datagrams_sent),
        );
        both(&self.system_calls, (stats.receive_calls, last.receive_calls), (stats.send_calls, last.send_calls));
        add(&self.unsent.with_label_values(&["full"]), stats.send_full, last.send_full);
        add(&self.unsent.with_label_values(&["failed"]), stats.send_failed, last.send_failed);
        add(&self.turns, stats.turns.count, last.turns.count);
        *last = stats.clone();
        let sum = |of: fn(&ThreadStats) -> u32| all.iter().map(|stats| i64::from(of(stats))).sum::<i64>();
        self.sizes.with_label_values(&["room"]).set(sum(|s| s.shard.rooms));
        self.sizes.with_label_values(&["participant"]).set(sum(|s| s.shard.participants));
        self.sizes.with_label_values(&["transport"]).set(sum(|s| s.shard.transports));
        self.sizes.with_label_values(&["track"]).set(sum(|s| s.shard.tracks));
        self.sizes.with_label_values(&["downtrack"]).set(sum(|s| s.shard.downtracks));
    }

    /// A shard began anew: its counters start at zero, its thread's go on.
    pub(super) fn shard_died(&self, all: &mut [ThreadStats], thread: usize) {
        self.shard_deaths.inc();
        if let Some(last) = all.get_mut(thread) {
            last.shard = ShardStats::default();
        }
    }

    /// The page Prometheus reads.
    pub(super) fn page(&self) -> Vec<u8> {
        let mut page = Vec::new();
        // Writing to memory cannot fail; a broken metric would show as a page that ends early.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut page);
        page
    }
}
