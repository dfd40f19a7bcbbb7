//! How much can be sent to one transport, out of the transport-wide feedback on what was sent.
//!
//! The shard tells it of each packet that leaves with a transport-wide number and of each feedback packet, asks for the
//! target, and sends the padding it wants for probes. Below it: [`super::sent`] what is on the road, [`super::delay`]
//! whether the queue grows, [`super::throughput`] what got through, [`super::loss`], [`super::rate`] the control law,
//! [`super::probe`]. Pure; nothing is allocated per packet.

mod measure;

use core::time::Duration;

use crate::base::{Bitrate, Instant};
use crate::cc::delay::{Detector, Usage};
use crate::cc::estimator::measure::{Clock, Sent, TICK_US};
use crate::cc::loss::{LossControl, Report};
use crate::cc::probe::{Outcome, Prober, Situation};
use crate::cc::rate::{Input, Rate};
use crate::cc::sent::{Delivered, NO_CLUSTER, SendLog, Swept};
use crate::cc::throughput::Throughput;
use crate::rtp::seq::wire_u16;
use crate::rtp::twcc::Feedback;

/// Before anything is known. Higher shows a sharp picture sooner and floods small links.
const START: u64 = 600_000;
/// Never less: sound and signs of life.
const LEAST: u64 = 30_000;
/// Never more; one subscriber needs no more.
const MOST: u64 = 30_000_000;
/// After silence, not below this until something is heard.
const SILENT_FLOOR: u64 = 150_000;
/// Nothing is heard for this long: no probes. For the longer one: less and less.
const QUIET_US: u64 = 400_000;
const SILENT_US: u64 = 1_000_000;
/// Other reports come but no feedback, for this long: the far end does not do it.
const DEAF_US: u64 = 3_000_000;
/// The same where none ever came: what was negotiated is not done.
const FIRST_DEAF_US: u64 = 1_500_000;
const DEAF_PACKETS: u64 = 20;
/// A queue of this length accounts for loss.
const CONGESTED_QUEUE_US: i64 = 60_000;
/// The round trip before it was measured.
const DEFAULT_RTT: Duration = Duration::from_millis(100);
/// Sent at most this much faster than the target, in percent; and before anything is known. Higher shows key frames
/// sooner, and their queue looks like congestion.
const PACE_PERCENT: u64 = 115;
const FIRST_PACE_PERCENT: u64 = 400;
/// While no shortage was ever seen: what is sent finds out faster than probes how much there is.
const OPEN_PACE_PERCENT: u64 = 250;
/// First time limit: feedback or a sign that there is none. Later everything but probes and silence comes with feedback.
const FIRST_TICK: Duration = Duration::from_millis(100);
const TICK: Duration = Duration::from_millis(250);
const PROBE_TICK: Duration = Duration::from_millis(2);
/// A shortage that was seen is believed in for this long: loss above the path's own of so many thousandths, a queue that
/// stands, a probe of which less than so many percent got through.
const SHORT_US: u64 = 10_000_000;
const SHORT_LOSS: u32 = 50;
const SHORT_PROBE_PERCENT: u64 = 70;
/// Statuses read for each packet sent, and most at once: a report of few bytes can claim 65535 of them.
const STATUSES_PER_PACKET: usize = 8;
const MOST_STATUSES: usize = 16_384;
/// What is tried first on another path: half of the old target within these.
const NEW_PATH_LEAST: u64 = 300_000;
const NEW_PATH_MOST: u64 = 2_500_000;

/// What a packet is to the estimator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sound or picture, sent again or not.
    Media,
    /// Sent for a probe only.
    Padding,
}

/// Whether padding can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// There is no retransmission stream: more than there is media for can only be found out by sending media.
    Never,
    /// Something else has to go first.
    NotNow,
    /// Yes.
    Now,
}

/// Estimates for one transport.
#[derive(Clone, Debug)]
pub struct Estimator {
    log: SendLog,
    detector: Detector,
    throughput: Throughput,
    loss: LossControl,
    rate: Rate,
    prober: Prober,
    needed: u64,
    /// Sent without a number since the last one with.
    untracked: u16,
    sent: Sent,
    clock: Clock,
    rtt: Option<Duration>,
    /// When feedback last came, and how many packets had been sent by then.
    last_feedback: Option<(u64, u64)>,
    /// When the first packet left that no feedback has followed yet.
    unanswered: Option<u64>,
    silent_step: u64,
    last_other_report: Option<u64>,
    deaf: bool,
    padding: Padding,
    /// When a shortage was seen last.
    short: Option<u64>,
    /// Statuses that may be read.
    readable: usize,
    arrived: Vec<(i64, Delivered)>,
}

impl Estimator {
    /// Nothing is known. `first` is the number of the first packet.
    pub fn new(first: u16) -> Self {
        Self {
            log: SendLog::new(first),
            detector: Detector::new(),
            throughput: Throughput::new(),
            loss: LossControl::default(),
            rate: Rate::new(START, LEAST, MOST),
            prober: Prober::new(START),
            needed: 0,
            untracked: 0,
            sent: Sent::default(),
            clock: Clock::default(),
            rtt: None,
            last_feedback: None,
            unanswered: None,
            silent_step: 0,
            last_other_report: None,
            deaf: false,
            padding: Padding::NotNow,
            short: None,
            readable: 0,
            arrived: Vec::with_capacity(64),
        }
    }

    /// The transport-wide number of the next packet, to be written into it.
    pub fn next_number(&self) -> u16 {
        wire_u16(self.log.next())
    }

    /// A packet with [`Self::next_number`] in it leaves now; `size` is what it takes on the wire in bytes, headers below
    /// RTP included.
    pub fn on_sent(&mut self, now: Instant, size: usize, kind: Kind) {
        let now_us = us(now);
        let size = u16::try_from(size).unwrap_or(u16::MAX).saturating_add(core::mem::take(&mut self.untracked));
        let tag = self.prober.tag();
        let seq = self.log.push(now_us, size, tag);
        self.readable = (self.readable + STATUSES_PER_PACKET).min(MOST_STATUSES);
        self.unanswered.get_or_insert(now_us);
        if tag != NO_CLUSTER {
            self.prober.on_sent(now_us, seq, size);
        }
        if kind == Kind::Media {
            self.sent.add(now_us, size);
        }
    }

    /// A packet without a number leaves: sound towards far ends that take numbers on video only.
    pub fn on_untracked(&mut self, now: Instant, size: usize) {
        let size = u16::try_from(size).unwrap_or(u16::MAX);
        self.untracked = self.untracked.saturating_add(size);
        self.sent.add(us(now), size);
    }

    /// All that would be sent if there were room, and whether padding can be sent.
    pub fn set_demand(&mut self, needed: Bitrate, padding: Padding) {
        let needed = needed.as_bps().min(MOST);
        if needed > self.needed + self.needed / 10 {
            self.prober.on_demand();
        }
        self.needed = needed;
        self.padding = padding;
    }

    /// Packets go another way from now on: what is known of the old one says little.
    pub fn on_path_change(&mut self) {
        let start = (self.rate.target() / 2).clamp(NEW_PATH_LEAST, NEW_PATH_MOST);
        self.rate = Rate::new(start, LEAST, MOST);
        self.prober = Prober::new(start);
        self.detector = Detector::new();
        self.throughput.reset();
        self.loss = LossControl::default();
        self.rtt = None;
    }

    /// A report of another kind came from the far end: it lives.
    pub fn on_other_report(&mut self, now: Instant) {
        self.last_other_report = Some(us(now));
    }

    /// Feedback came.
    pub fn on_feedback(&mut self, now: Instant, feedback: &Feedback<'_>) {
        let now_us = us(now);
        let Some(base) = self.clock.unwrap(feedback.reference_time) else { return };
        if self.is_silent(now_us) {
            self.detector.reset();
            self.throughput.reset();
        }
        let (end, seen) = self.read(feedback, base);
        let swept = self.log.sweep(end, self.prober.pending());
        self.prober.on_lost(swept.lost_in_cluster);
        let Some(seen) = seen else { return };
        self.deaf = false;
        self.last_feedback = Some((now_us, self.log.next()));
        self.unanswered = (self.log.in_flight() > 0).then_some(now_us);
        self.silent_step = 0;
        self.learn(now_us, swept, seen);
    }

    /// Sort a report's packets out. The first number it says nothing about, and the highest that has arrived.
    fn read(&mut self, feedback: &Feedback<'_>, base: i64) -> (u64, Option<u64>) {
        let (mut end, mut seen) = (0, None);
        self.arrived.clear();
        let read = self.readable.min(usize::from(feedback.count));
        self.readable -= read;
        for status in feedback.statuses().take(read) {
            let Some(seq) = self.log.unwrap(status.sequence) else { continue };
            end = end.max(seq + 1);
            let Some(ticks) = status.arrival else {
                self.log.missing(seq);
                continue;
            };
            seen = seen.max(Some(seq));
            if let Some(delivered) = self.log.received(seq) {
                self.arrived.push((base + ticks * TICK_US, delivered));
            }
        }
        self.arrived.sort_unstable_by_key(|(arrival, delivered)| (*arrival, delivered.seq));
        (end, seen)
    }

    fn learn(&mut self, now_us: u64, swept: Swept, seen: u64) {
        let mut unknown = swept.unknown;
        let (mut bytes, mut recovered) = (0, 0);
        let mut smallest = i64::MAX;
        let (mut rtt, mut drained) = (u64::MAX, None);
        let newest = self.arrived.last().map_or(0, |(arrival, _)| *arrival);
        if self.clock.leaps(now_us, newest) {
            self.detector = Detector::new();
            self.throughput.reset();
        }
        for (arrival, delivered) in &self.arrived {
            bytes += u64::from(delivered.size);
            recovered += u32::from(delivered.recovered);
            let held = u64::try_from(newest - arrival).unwrap_or(0);
            rtt = rtt.min(now_us.saturating_sub(delivered.sent_us).saturating_sub(held));
            // What a report that never came would have told of is taken to have arrived by now.
            let size = u32::from(delivered.size).saturating_add(core::mem::take(&mut unknown));
            self.throughput.on_packet(delivered.sent_us, *arrival, size);
            drained = drained.max(self.detector.drained(delivered.sent_us, *arrival, delivered.size));
            if delivered.cluster != NO_CLUSTER {
                self.prober.on_arrived(delivered.cluster, *arrival, delivered.size);
                continue;
            }
            smallest = smallest.min(arrival - delivered.sent_us.cast_signed());
            self.detector.on_packet(delivered.sent_us, *arrival);
        }
        if smallest != i64::MAX {
            self.detector.on_report(now_us, smallest);
        }
        if rtt != u64::MAX {
            let rtt = Duration::from_micros(rtt);
            self.rtt = Some(self.rtt.map_or(rtt, |before| (before * 7 + rtt) / 8));
        }
        let received = u32::try_from(self.arrived.len()).unwrap_or(u32::MAX);
        let congested = !self.rate.is_foreign_queue()
            && (self.detector.usage() == Usage::Over || self.detector.queue_us() > CONGESTED_QUEUE_US);
        let target = self.rate.target();
        let Swept { lost, lost_squares, .. } = swept;
        let report = Report { received, bytes, lost, lost_squares, recovered, target, congested };
        self.loss.on_report(now_us, &report);
        if let Some(drained) = drained.filter(|_| lost == 0) {
            self.rate.on_drained(drained);
        }
        let outcome = self.prober.conclude(now_us, seen, self.loss.inherent(), self.rate.target(), self.needed);
        self.control(now_us, outcome);
    }

    fn control(&mut self, now_us: u64, outcome: Option<Outcome>) {
        let usage = self.detector.usage();
        if let Some(Outcome::Proven(proven, _)) = outcome
            && usage != Usage::Over
        {
            self.rate.on_probe(proven);
            self.loss.on_probe(proven);
        }
        let inherent = self.loss.inherent();
        let fell_short = match outcome {
            Some(Outcome::Proven(proven, goal)) => proven < goal * SHORT_PROBE_PERCENT / 100,
            _ => false,
        };
        // A failed probe alone may be a busy computer too.
        let fell_short = fell_short && self.short.is_some_and(|at| now_us.saturating_sub(at) < SHORT_US);
        if fell_short || self.detector.stands(now_us) || self.loss.loss().saturating_sub(inherent) > SHORT_LOSS {
            self.short = Some(now_us);
        }
        let (slow, fast) = self.throughput.rates();
        let input = Input {
            now_us,
            usage,
            slow: slow.map(|rates| rates.without_loss(inherent)),
            fast: fast.map(|rates| rates.without_loss(inherent)),
            queue_us: self.detector.queue_us(),
            rtt: self.rtt(),
            // Without padding it grows as far as is needed, and a queue has to tell when that is too far.
            blind: self.padding == Padding::Never && self.target_bps() < self.needed + self.needed / 4,
            limited: self.sent.is_limited(now_us, self.target_bps()),
            shadow: self.prober.shadow(now_us, self.rtt()),
            jitter_us: i64::try_from(self.detector.jitter().as_micros()).unwrap_or(0),
            loss: self.loss.loss().saturating_sub(self.loss.inherent()),
        };
        self.rate.on_report(&input);
        if let Some(before) = self.rate.take_drop() {
            self.prober.on_drop(before);
            self.prober.abort();
        }
        self.plan(now_us);
    }

    fn plan(&mut self, now_us: u64) {
        if self.padding != Padding::Now {
            return;
        }
        let blocked = self.detector.usage() == Usage::Over
            || self.loss.is_limiting()
            || self.deaf
            || self.quiet_for(now_us) > QUIET_US + u64::try_from(self.rtt().as_micros()).unwrap_or(0);
        let queue_us = if self.rate.is_foreign_queue() { 0 } else { self.detector.queue_us() };
        let situation = Situation {
            now_us,
            target: self.target_bps(),
            needed: self.needed,
            blocked,
            queue_us,
            last_overuse: self.rate.last_overuse(),
            rtt: self.rtt(),
            jitter: self.detector.jitter(),
        };
        self.prober.plan(&situation, self.log.next());
    }

    /// Bytes of padding to be sent now, for a probe. Ask again at [`Self::next_timeout`].
    pub fn padding(&mut self, now: Instant) -> usize {
        if self.padding == Padding::Now { self.prober.padding(us(now)) } else { 0 }
    }

    /// How large packets of padding should be, headers below RTP included.
    pub fn padding_size(&self) -> usize {
        self.prober.packet_size()
    }

    /// Do what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now_us = us(now);
        let quiet = self.quiet_for(now_us);
        if quiet >= self.deaf_after() && self.is_deaf(now_us) {
            self.deaf = true;
            self.prober.abort();
        }
        if !self.deaf && self.last_feedback.is_some() && quiet >= SILENT_US && now_us >= self.silent_step {
            self.silent_step = now_us + 1_000_000;
            self.rate.on_silence(SILENT_FLOOR);
            self.prober.abort();
        }
        if let Some(before) = self.rate.take_drop() {
            self.prober.on_drop(before);
        }
        self.plan(now_us);
    }

    /// When [`Self::handle_timeout`] and [`Self::padding`] want to be called again.
    pub fn next_timeout(&self, now: Instant) -> Instant {
        // A probe is filled up every other millisecond; everything else can wait for the next report.
        now + match (self.prober.sending(), self.last_feedback) {
            (Some(_), _) => PROBE_TICK,
            (None, None) => FIRST_TICK,
            (None, Some(_)) => TICK,
        }
    }

    /// What may be sent, wire overhead included. `None`: the far end gives no feedback.
    pub fn estimate(&self) -> Option<Bitrate> {
        (!self.deaf).then(|| Bitrate::from_bps(self.target_bps()))
    }

    /// Whether it was seen lately that less gets through than was sent. A low estimate alone may be a guess, or come of a
    /// computer that is too busy to receive in time.
    pub fn is_short(&self, now: Instant) -> bool {
        self.short.is_some_and(|at| us(now).saturating_sub(at) < SHORT_US)
    }

    /// How fast it may be sent: somewhat more than the estimate, so that a key frame does not wait for long.
    pub fn pacing(&self) -> Option<Bitrate> {
        if self.deaf {
            return None;
        }
        let factor = match (self.last_feedback, self.short) {
            (None, _) => FIRST_PACE_PERCENT,
            (_, None) if self.detector.queue_us() < CONGESTED_QUEUE_US => OPEN_PACE_PERCENT,
            _ => PACE_PERCENT,
        };
        let pace = self.target_bps() * factor / 100;
        Some(Bitrate::from_bps(pace.max(self.prober.sending().unwrap_or(0))))
    }

    /// Smoothed round trip time as feedback shows it.
    pub fn rtt(&self) -> Duration {
        self.rtt.unwrap_or(DEFAULT_RTT)
    }

    /// Queueing delay in the last report.
    pub fn queue(&self) -> Duration {
        Duration::from_micros(self.detector.queue_us().max(0).unsigned_abs())
    }

    /// Loss of the last second, in thousandths.
    pub fn loss_per_mille(&self) -> u32 {
        self.loss.loss()
    }

    /// Loss that does not depend on what is sent, in thousandths.
    pub fn path_loss_per_mille(&self) -> u32 {
        self.loss.inherent()
    }

    fn target_bps(&self) -> u64 {
        let target = self.rate.target();
        self.loss.cap().map_or(target, |cap| cap.min(target)).max(LEAST)
    }

    /// How long packets have been on the road without an answer.
    fn quiet_for(&self, now_us: u64) -> u64 {
        self.unanswered.map_or(0, |since| now_us.saturating_sub(since))
    }

    fn is_silent(&self, now_us: u64) -> bool {
        self.quiet_for(now_us) > SILENT_US
    }

    const fn deaf_after(&self) -> u64 {
        if self.last_feedback.is_some() { DEAF_US } else { FIRST_DEAF_US }
    }

    /// It never gave feedback; or it stopped, and something else is heard of it.
    fn is_deaf(&self, now_us: u64) -> bool {
        let Some((at, sent)) = self.last_feedback else { return true };
        let many = self.log.next() - sent >= DEAF_PACKETS;
        many && self.last_other_report.is_some_and(|other| other > at + DEAF_US && now_us < other + DEAF_US)
    }
}

fn us(at: Instant) -> u64 {
    at.as_nanos() / 1000
}

#[cfg(test)]
mod tests;
