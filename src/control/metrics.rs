//! Numbers for operators, in Prometheus form. The core counts with plain integers; this file and those below it alone
//! know the library.
//!
//! Labels come from closed sets only: never a room, a user or an address.

mod build;
mod matrix;
mod media;
mod process;
pub(super) mod reference;
mod turn;

use livekit_protocol as proto;
use prometheus::core::Collector as _;
use prometheus::{Encoder, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, TextEncoder};

use self::build::{Builder, Described};
use self::matrix::MatrixNumbers;
use self::media::{LoadGauges, Media};
use self::process::Process;
use self::turn::TurnNumbers;
use super::load::Load;
use crate::mailbox::ThreadStats;

/// Seconds a join may take, for a histogram: from 10 ms to where clients give up.
const JOIN_SECONDS: [f64; 10] = [0.01, 0.03, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0];
/// Seconds a room lasts.
const ROOM_SECONDS: [f64; 9] = [5.0, 10.0, 60.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0, 21_600.0];

/// All numbers of a node.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: prometheus::Registry,
    described: Vec<Described>,
    pub(super) rooms: IntGauge,
    /// Rooms on more than one media thread.
    pub(super) spread_rooms: IntGauge,
    livekit_rooms: IntGauge,
    pub(super) room_sizes: IntGaugeVec,
    pub(super) room_seconds: Histogram,
    pub(super) connections: IntGauge,
    pub(super) joins: IntCounterVec,
    pub(super) full: IntCounterVec,
    pub(super) participants_joined: IntCounter,
    pub(super) participants_left: IntCounterVec,
    pub(super) participants_aborted: IntCounterVec,
    livekit_joined: IntCounterVec,
    join_seconds: Histogram,
    livekit_start: Histogram,
    pub(super) slow_readers: IntCounter,
    pub(super) mailbox_full: IntCounter,
    pub(super) data_dropped: IntCounter,
    pub(super) room_panics: IntCounter,
    pub(super) accept_errors: IntCounter,
    pub(super) api_requests: IntCounterVec,
    pub(super) webhooks: IntCounterVec,
    pub(super) audit: IntCounterVec,
    pub(super) matrix: MatrixNumbers,
    pub(super) passed: IntCounterVec,
    pub(super) nodes: IntGauge,
    pub(super) directory_silent: IntGauge,
    ready: IntGauge,
    media: Media,
    pub(super) turn: TurnNumbers,
    gauges: LoadGauges,
    pub(super) load: Load,
}

impl Metrics {
    /// All at zero.
    pub(super) fn new(node_id: &str, load: Load) -> Result<Self, prometheus::Error> {
        let registry = prometheus::Registry::new();
        registry.register(Box::new(Process::new()?))?;
        let make = Builder::new(&registry, node_id);
        let labelled = |name: &str, help: &str, label: &str| make.counters(name, help, &[label]);
        let version = make.gauges("weir_build_info", "Always 1; which weir this is.", &["version"])?;
        version.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let milliseconds: Vec<f64> = JOIN_SECONDS.iter().map(|seconds| seconds * 1_000.0).collect();
        let mut it = Self {
            rooms: make.gauge("weir_control_rooms", "Rooms now.")?,
            spread_rooms: make.gauge("weir_control_spread_rooms", "Rooms on more than one media thread now.")?,
            livekit_rooms: make.gauge("livekit_room_total", "Rooms now.")?,
            room_sizes: make.gauges("weir_control_rooms_by_size", "Rooms now, by participants in them.", &["size"])?,
            room_seconds: make.histogram("livekit_room_duration_seconds", "How long rooms lasted.", &ROOM_SECONDS)?,
            connections: make.gauge("weir_control_connections", "Signalling connections now.")?,
            joins: labelled("weir_control_joins_total", "Joins by how they were answered.", "result")?,
            full: labelled("weir_control_full_total", "Rooms not made because a limit was reached.", "limit")?,
            participants_joined: make
                .counter("weir_control_participants_joined_total", "Participants whose media connected.")?,
            participants_left: labelled("weir_control_participants_left_total", "Participants that left.", "reason")?,
            participants_aborted: labelled(
                "weir_control_participants_aborted_total",
                "Participants that left before their media connected.",
                "reason",
            )?,
            livekit_joined: make.counters(
                "livekit_participant_join_total",
                "Participants by how far they came.",
                &["state"],
            )?,
            join_seconds: make.histogram(
                "weir_control_join_seconds",
                "Time from a join to its media being connected.",
                &JOIN_SECONDS,
            )?,
            livekit_start: make.histogram(
                "livekit_session_start_time_ms",
                "Time from a join to its media being connected.",
                &milliseconds,
            )?,
            slow_readers: make
                .counter("weir_control_slow_readers_total", "Connections cut because the client did not read.")?,
            mailbox_full: make
                .counter("weir_control_mailbox_full_total", "Times a media thread had no place for a command.")?,
            data_dropped: make
                .counter("weir_control_data_dropped_total", "Data messages dropped because control was behind.")?,
            room_panics: make.counter("weir_control_room_panics_total", "Rooms that ended by a fault of weir.")?,
            accept_errors: make
                .counter("weir_control_accept_errors_total", "Connections the system could not accept.")?,
            api_requests: labelled("weir_control_api_requests_total", "Server API requests by answer.", "code")?,
            webhooks: labelled("weir_control_webhooks_total", "Webhooks by what became of them.", "result")?,
            audit: labelled("weir_audit_records_total", "Audit records by what became of them.", "result")?,
            matrix: MatrixNumbers::new(&make)?,
            passed: labelled(
                "weir_passed_total",
                "Requests that reached this node and were passed on to another, by what they were.",
                "what",
            )?,
            nodes: make.gauge("weir_nodes", "Nodes this one knows to live, itself included.")?,
            directory_silent: make.gauge(
                "weir_directory_silent_seconds",
                "How long the directory of nodes has been silent; 0: it is not.",
            )?,
            ready: make.gauge("weir_ready", "Whether new calls are taken; /readyz says why not.")?,
            media: Media::new(&make)?,
            turn: TurnNumbers::new(&make)?,
            gauges: LoadGauges::new(&make)?,
            load,
            described: Vec::new(),
            registry: registry.clone(),
        };
        it.described = make.described();
        it.begin();
        Ok(it)
    }

    /// Whatever can be counted starts at zero: the first fault has to be seen as a change.
    fn begin(&self) {
        let begin = |counters: &IntCounterVec, values: &[&str]| {
            for value in values {
                counters.with_label_values(&[*value]).inc_by(0);
            }
        };
        begin(
            &self.joins,
            &[
                "joined",
                "must_rejoin",
                "bad_request",
                "unauthorized",
                "no_such_room",
                "too_many",
                "unavailable",
                "error",
            ],
        );
        begin(&self.full, &["threads", "bandwidth", "tracks", "participants", "rooms"]);
        begin(&self.livekit_joined, &["signal_connected", "signal_failed", "rtc_connected"]);
        begin(&self.webhooks, &["delivered", "refused", "expired", "dropped"]);
        begin(&self.audit, &["written", "dropped", "failed"]);
        self.matrix.begin();
        self.turn.begin();
        begin(&self.passed, &["join", "token", "push", "api", "no_answer"]);
        let reasons = (0..64).filter_map(|number| proto::DisconnectReason::try_from(number).ok());
        let reasons: Vec<&str> = reasons.map(|reason| reason.as_str_name()).collect();
        begin(&self.participants_left, &reasons);
        begin(&self.participants_aborted, &reasons);
    }

    /// Count how a join was answered.
    pub(super) fn join(&self, result: &'static str) {
        self.joins.with_label_values(&[result]).inc();
        let state = if result == "joined" { "signal_connected" } else { "signal_failed" };
        self.livekit_joined.with_label_values(&[state]).inc();
    }

    /// Count a participant whose media connected, so long after it asked.
    pub(super) fn connected(&self, milliseconds: i64) {
        self.participants_joined.inc();
        self.livekit_joined.with_label_values(&["rtc_connected"]).inc();
        let milliseconds = f64::from(i32::try_from(milliseconds.max(0)).unwrap_or(i32::MAX));
        self.join_seconds.observe(milliseconds / 1_000.0);
        self.livekit_start.observe(milliseconds);
    }

    /// So many rooms now.
    pub(super) fn set_rooms(&self, rooms: usize) {
        self.load.set_rooms(rooms);
        let rooms = i64::try_from(rooms).unwrap_or(i64::MAX);
        self.rooms.set(rooms);
        self.livekit_rooms.set(rooms);
    }

    /// Take over the counters of a media thread. `all` holds the last ones of each, to add only what is new.
    pub(super) fn fold(&self, all: &mut [ThreadStats], thread: usize, stats: &ThreadStats) {
        self.media.fold(all, thread, stats);
    }

    /// A shard began anew: its counters start at zero, its thread's go on.
    pub(super) fn shard_died(&self, all: &mut [ThreadStats], thread: usize) {
        self.media.shard_died(all, thread);
    }

    /// Media threads that lost their rooms, and rooms that ended by a fault.
    pub(super) fn faults(&self) -> (u64, u64) {
        (self.media.deaths(), self.room_panics.get())
    }

    /// Homeservers that did not answer when they were last asked.
    pub(super) fn homeservers_down(&self) -> Vec<String> {
        let families = self.matrix.homeserver_up.collect();
        let metrics = families.iter().flat_map(prometheus::proto::MetricFamily::get_metric);
        let down = metrics.filter(|metric| metric.get_gauge().get_value() < 0.5);
        down.flat_map(|metric| metric.get_label().iter().map(|label| label.value().to_owned())).collect()
    }

    /// The page Prometheus reads.
    pub(super) fn page(&self, ready: bool) -> Vec<u8> {
        self.ready.set(i64::from(ready));
        let figure = self.load.figure();
        self.gauges.node.set(figure.load);
        for (part, share) in figure.parts {
            self.gauges.parts.with_label_values(&[part]).set(share);
        }
        for (thread, busy) in figure.threads.iter().enumerate() {
            self.gauges.threads.with_label_values(&[thread.to_string()]).set(*busy);
        }
        let mut page = Vec::new();
        // Writing to memory cannot fail; a broken metric would show as a page that ends early.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut page);
        page
    }
}

/// A room among those of its size, until dropped.
#[derive(Debug)]
pub(super) struct SizeClass {
    gauges: IntGaugeVec,
    class: Option<&'static str>,
}

impl SizeClass {
    /// In no class yet.
    pub(super) const fn new(gauges: IntGaugeVec) -> Self {
        Self { gauges, class: None }
    }

    /// It has so many participants.
    pub(super) fn set(&mut self, participants: usize) {
        let class = match participants {
            0 => "0",
            1 => "1",
            2 => "2",
            3..=5 => "3-5",
            6..=10 => "6-10",
            11..=25 => "11-25",
            26..=100 => "26-100",
            _ => "101+",
        };
        if self.class == Some(class) {
            return;
        }
        self.leave();
        self.gauges.with_label_values(&[class]).inc();
        self.class = Some(class);
    }

    fn leave(&mut self) {
        if let Some(class) = self.class.take() {
            self.gauges.with_label_values(&[class]).dec();
        }
    }
}

impl Drop for SizeClass {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests;
