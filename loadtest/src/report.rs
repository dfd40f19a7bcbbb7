//! What came of a run: figures, a second at a time and in all, faults by name, thresholds.

pub mod compare;
pub mod html;
mod svg;

use serde::{Deserialize, Serialize};

use crate::scenario::Scenario;
use crate::stats::Histogram;

/// Four percentiles, in milliseconds, and how many values there were.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Percentiles {
    /// Half are not above.
    pub p50: f64,
    /// 95 % are not above.
    pub p95: f64,
    /// 99 % are not above.
    pub p99: f64,
    /// 99.9 % are not above.
    pub p999: f64,
    /// How many there were; with none, the rest means nothing.
    pub count: u64,
}

impl Percentiles {
    /// Of durations in nanoseconds.
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub fn of(histogram: &Histogram) -> Self {
        let at = |share| histogram.percentile(share) as f64 / 1e6;
        Self { p50: at(0.5), p95: at(0.95), p99: at(0.99), p999: at(0.999), count: histogram.total() }
    }

    fn words(&self) -> String {
        if self.count == 0 {
            return "-".to_owned();
        }
        format!("p50 {:.2}  p95 {:.2}  p99 {:.2}  p99.9 {:.2} ms", self.p50, self.p95, self.p99, self.p999)
    }
}

/// Frames at complete participants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Frames {
    /// Whole, and bit for bit as sent.
    pub right: u64,
    /// Whole, with wrong bits.
    pub wrong: u64,
    /// Given up, packets were missing.
    pub incomplete: u64,
    /// Never seen: their numbers were skipped.
    pub missing: u64,
    /// Encrypted with a key that had not come.
    pub unopened: u64,
    /// Key frames among those that are right.
    pub key_frames: u64,
    /// Times a picture stood still.
    pub freezes: u64,
    /// For how long in all, in milliseconds.
    pub frozen_ms: u64,
    /// Changes between encodings.
    pub switches: u64,
}

impl Frames {
    /// Those that should have come.
    pub const fn expected(&self) -> u64 {
        self.right + self.wrong + self.incomplete + self.missing + self.unopened
    }

    /// What came after `before`.
    pub const fn since(&self, before: &Self) -> Self {
        Self {
            right: self.right - before.right,
            wrong: self.wrong - before.wrong,
            incomplete: self.incomplete - before.incomplete,
            missing: self.missing.saturating_sub(before.missing),
            unopened: self.unopened - before.unopened,
            key_frames: self.key_frames - before.key_frames,
            freezes: self.freezes - before.freezes,
            frozen_ms: self.frozen_ms - before.frozen_ms,
            switches: self.switches - before.switches,
        }
    }
}

/// Frames of people at complete participants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Others {
    /// Whole, and they opened with their sender's key: each bit is right.
    pub opened: u64,
    /// They did not, or never became whole.
    pub failed: u64,
    /// Their key had not come (yet).
    pub unopened: u64,
}

/// A second of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Second {
    /// Seconds since the first join.
    pub at: f64,
    /// Participants.
    pub participants: u64,
    /// Joins within it, and how long the slowest took.
    pub joins: u64,
    /// In milliseconds.
    pub join_ms: Option<f64>,
    /// What arrived of what should have.
    pub delivery_percent: Option<f64>,
    /// What did not.
    pub loss_percent: Option<f64>,
    /// From sending to receiving: packets at light, frames at complete participants.
    pub p50_ms: Option<f64>,
    /// As `p50_ms`.
    pub p95_ms: Option<f64>,
    /// As `p50_ms`.
    pub p99_ms: Option<f64>,
    /// Media packets received per second.
    pub packets: f64,
    /// Media received, in Mbit/s.
    pub mbit: f64,
    /// Frames per second at complete participants.
    pub frames: f64,
    /// Freezes at complete participants.
    pub freezes: u64,
    /// Video streams at complete participants by encoding, from the lowest.
    pub layers: [u64; 3],
    /// Streams that brought something.
    pub streams: u64,
    /// Streams there should be.
    pub streams_wanted: u64,
    /// How busy the generator's processors were.
    pub generator_percent: f64,
    /// How busy the server was, in percent of one processor.
    pub server_percent: Option<f64>,
    /// Its resident memory.
    pub server_mb: Option<f64>,
}

/// A fault that was found, by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// dropped, corrupted, reordered, repeated, delayed, swapped, unreadable, keyless, silent.
    pub name: String,
    /// How often.
    pub count: u64,
    /// Of what.
    pub what: String,
}

/// How far `--find-limit` came.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Limit {
    /// What grew: participants of each room, or rooms.
    pub of: String,
    /// The last step that held all limits.
    pub held: Option<u32>,
    /// The first that did not.
    pub broke: Option<u32>,
    /// What broke.
    pub why: Vec<String>,
}

/// What came of a run. Figures are of the time measured, after everybody joined; the series is of all of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Who took part.
    pub scenario: Scenario,
    /// Base address of the server.
    pub url: String,
    /// Seconds since 1970.
    pub began: u64,
    /// Processors of the generator's machine.
    pub processors: usize,
    /// Time measured, in seconds.
    pub seconds: f64,
    /// Participants at its end.
    pub participants: u64,
    /// Joins that failed.
    pub failed_joins: u64,
    /// Packets light participants published.
    pub published: u64,
    /// Packets that should have arrived at light participants.
    pub expected: u64,
    /// Packets that did.
    pub delivered: u64,
    /// Share of packets and frames that arrived.
    pub delivery_percent: f64,
    /// Packets received per second, at all participants.
    pub packets_per_second: f64,
    /// Media received per second, in Mbit/s.
    pub mbit_per_second: f64,
    /// Packets that came twice or out of order.
    pub disordered: u64,
    /// Packets that did not open or ended with something else than was sent, and frames with wrong bits.
    pub wrong: u64,
    /// Frames at complete participants.
    pub frames: Frames,
    /// Frames of people in the same rooms, at complete participants, over the whole run.
    pub others: Others,
    /// From sending a packet to receiving it, at light participants.
    pub latency_ms: Percentiles,
    /// From sending a frame to having it whole, at complete participants.
    pub frame_delay_ms: Percentiles,
    /// From the first octet to SRTP being up.
    pub join_ms: Percentiles,
    /// From the first octet to the first media: a packet at light, a whole frame at complete participants.
    pub first_media_ms: Percentiles,
    /// How busy the generator's processors were.
    pub generator_cpu_percent: f64,
    /// The generator was too busy for the figures to mean anything.
    pub void: bool,
    /// Processor time of the server per packet it forwarded, in microseconds.
    pub server_cpu_us_per_packet: Option<f64>,
    /// How busy the server was, in percent of one processor.
    pub server_cpu_percent: Option<f64>,
    /// Resident memory of the server that came with each participant, in kB.
    pub server_kb_per_subscriber: Option<f64>,
    /// Faults by name.
    pub faults: Vec<Found>,
    /// Thresholds that were broken.
    pub broken: Vec<String>,
    /// What `--find-limit` found.
    pub limit: Option<Limit>,
    /// Second by second.
    pub series: Vec<Second>,
}

impl Report {
    /// For people.
    pub fn summary(&self) -> String {
        let mut lines = vec![format!("{}, {:.1} s", self.scenario.describe(), self.seconds)];
        let mut line = |name: &str, text: String| lines.push(format!("{name:<12} {text}"));
        line(
            "delivery",
            format!(
                "{:.3} % ({} of {} packets at light participants, {} of {} frames at complete ones)",
                self.delivery_percent,
                self.delivered,
                self.expected,
                self.frames.right,
                self.frames.expected(),
            ),
        );
        line("received", format!("{:.0} packets/s, {:.1} Mbit/s", self.packets_per_second, self.mbit_per_second));
        line("latency", self.latency_ms.words());
        if self.frames.expected() > 0 {
            line("frame delay", self.frame_delay_ms.words());
            line(
                "picture",
                format!(
                    "{} freezes, {:.1} s in all; {} key frames, {} changes between encodings",
                    self.frames.freezes,
                    self.frames.frozen_ms as f64 / 1e3,
                    self.frames.key_frames,
                    self.frames.switches
                ),
            );
        }
        if self.others != Others::default() {
            let Others { opened, failed, unopened } = self.others;
            line(
                "people",
                format!("{opened} frames of others opened, {failed} did not, {unopened} came before their key"),
            );
        }
        line("join", format!("{}, {} failed", self.join_ms.words(), self.failed_joins));
        line("first media", self.first_media_ms.words());
        let void = if self.void { ": VOID, the generator was the limit" } else { "" };
        line("generator", format!("{:.0} % busy{void}", self.generator_cpu_percent));
        if let Some(busy) = self.server_cpu_percent {
            let mut text = format!("{busy:.0} % of a processor");
            if let Some(cost) = self.server_cpu_us_per_packet {
                text.push_str(&format!(", {cost:.2} us per forwarded packet"));
            }
            if let Some(memory) = self.server_kb_per_subscriber {
                text.push_str(&format!(", {memory:.0} kB more resident memory per participant"));
            }
            line("server", text);
        }
        for fault in &self.faults {
            line("FAULT", format!("{}: {} {}", fault.name, fault.count, fault.what));
        }
        if self.faults.is_empty() {
            line("faults", "none".to_owned());
        }
        if let Some(limit) = &self.limit {
            line("limit", limit.words());
        }
        for broken in &self.broken {
            line("BROKEN", broken.clone());
        }
        lines.join("\n")
    }
}

impl Limit {
    /// In words.
    pub fn words(&self) -> String {
        let held = self.held.map_or_else(|| "not even the first step".to_owned(), |held| format!("{held} {}", self.of));
        match self.broke {
            Some(broke) => format!("{held} held; {broke} broke: {}", self.why.join("; ")),
            None => format!("{held} held, and that was the end of the search"),
        }
    }
}
