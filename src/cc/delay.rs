//! Whether the path's queue grows: packets in groups, the trend of their delay, an adaptive threshold.
//!
//! The trend line filter of libwebrtc's send-side estimator, and beside it the queueing delay itself, taken as the
//! distance to the smallest delay of the last half minute. Fed by [`super::estimator`] with every packet that has
//! arrived, in order of arrival, but those of probes.

use core::time::Duration;

use crate::cc::throughput::rate;

/// Packets sent within this time of the first are one group: what a pacer or a flush puts out at once.
const GROUP_US: u64 = 5_000;
/// A group that arrives squeezed together goes on for at most this long.
const BURST_US: i64 = 100_000;
/// Groups in the regression. More react later, fewer take jitter for a trend.
const WINDOW: usize = 20;
/// Weight of the past in the smoothed delay.
const SMOOTHING: f64 = 0.9;
const GAIN: f64 = 4.0;
const MAX_GAIN_GROUPS: u32 = 60;
/// The threshold starts here and stays within its bounds; the lower one is about 25 ms of queue per second.
const THRESHOLD: f64 = 12.5;
const MIN_THRESHOLD: f64 = 6.0;
const MAX_THRESHOLD: f64 = 600.0;
const THRESHOLD_UP: f64 = 0.0087;
const THRESHOLD_DOWN: f64 = 0.039;
/// Trends this far above the threshold are spikes and do not move it.
const SPIKE: f64 = 15.0;
/// The trend has to be above the threshold for this long.
const OVERUSE_MS: f64 = 10.0;
/// Of the smallest delay, half the time it is remembered. Shorter takes a standing queue for the path, longer lets two
/// clocks drift apart.
const BASE_US: u64 = 15_000_000;
/// Queueing delay that counts as a growing queue by itself when it rises from report to report; two mean jitters more.
const RISING_US: i64 = 60_000;

/// A queue that stands: all packets wait this long, for this long.
const STANDING_US: i64 = 100_000;
const STANDING_FOR_US: u64 = 1_200_000;
/// A delay worth watching the end of.
const PEAK_US: i64 = 40_000;

/// What the path's queue does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Usage {
    /// Neither grows nor shrinks.
    #[default]
    Normal,
    /// Grows: more is sent than gets through.
    Over,
    /// Shrinks.
    Under,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    first_sent: u64,
    last_sent: u64,
    first_arrival: i64,
    last_arrival: i64,
}

/// The detector.
#[derive(Clone, Debug)]
pub(super) struct Detector {
    current: Option<Group>,
    previous: Option<Group>,
    backwards: u8,
    trend: Trend,
    queue: Queue,
    peak: Option<Peak>,
    jitter_us: i64,
}

/// The packet that waited longest, and what has arrived since.
#[derive(Clone, Copy, Debug)]
struct Peak {
    delay: i64,
    arrival: i64,
    bytes: u64,
}

impl Detector {
    pub(super) const fn new() -> Self {
        Self {
            current: None,
            previous: None,
            backwards: 0,
            trend: Trend::new(),
            queue: Queue::new(),
            peak: None,
            jitter_us: 0,
        }
    }

    /// Begin anew after a silence; what is known of the queue stays.
    pub(super) fn reset(&mut self) {
        self.current = None;
        self.previous = None;
        self.backwards = 0;
        self.trend = Trend::new();
    }

    /// A packet has arrived; not one of a probe.
    pub(super) fn on_packet(&mut self, sent: u64, arrival: i64) {
        let Some(group) = &mut self.current else {
            self.current = Some(Group::of(sent, arrival));
            return;
        };
        if sent < group.first_sent {
            return;
        }
        if group.takes(sent, arrival) {
            group.last_sent = group.last_sent.max(sent);
            group.last_arrival = group.last_arrival.max(arrival);
            return;
        }
        let closed = *group;
        self.current = Some(Group::of(sent, arrival));
        let Some(before) = self.previous.replace(closed) else { return };
        let sent_apart = signed(closed.last_sent.saturating_sub(before.last_sent));
        let arrived_apart = closed.last_arrival - before.last_arrival;
        if arrived_apart < 0 {
            self.backwards += 1;
            if self.backwards >= 3 {
                self.reset();
            }
            return;
        }
        self.backwards = 0;
        let deviation = (arrived_apart - sent_apart).abs().min(200_000);
        self.jitter_us += (deviation - self.jitter_us) / 16;
        self.trend.update(sent_apart, arrived_apart, closed.last_arrival);
    }

    /// Any packet has arrived, those of probes too. When a delay has gone: how fast packets arrived while it went, bits per
    /// second. A queue empties no faster than its link; what stood still and then gave out everything at once was none.
    pub(super) fn drained(&mut self, sent: u64, arrival: i64, size: u16) -> Option<u64> {
        let base = self.queue.base()?;
        let delay = arrival - signed(sent) - base;
        let Some(peak) = self.peak.as_mut().filter(|peak| peak.delay > delay) else {
            self.peak = (delay > PEAK_US).then_some(Peak { delay, arrival, bytes: 0 });
            return None;
        };
        peak.bytes += u64::from(size);
        if delay > peak.delay / 3 {
            return None;
        }
        let Peak { arrival: since, bytes, .. } = self.peak.take()?;
        rate(bytes, (arrival - since).max(1).unsigned_abs())
    }

    /// The smallest one-way delay of a report, on two clocks of unknown distance.
    pub(super) fn on_report(&mut self, now_us: u64, smallest_delay: i64) {
        self.queue.on_report(now_us, smallest_delay);
    }

    pub(super) fn usage(&self) -> Usage {
        if self.queue.rises(RISING_US + 2 * self.jitter_us) { Usage::Over } else { self.trend.usage }
    }

    /// Queueing delay in the last report.
    pub(super) const fn queue_us(&self) -> i64 {
        self.queue.delay
    }

    /// Every packet of the last moments waited: a queue that stands, not a receiver that stood still for once.
    pub(super) fn stands(&self, now_us: u64) -> bool {
        self.queue.standing_since.is_some_and(|since| now_us.saturating_sub(since) >= STANDING_FOR_US)
    }

    /// Mean difference between how far apart groups were sent and arrived.
    pub(super) fn jitter(&self) -> Duration {
        Duration::from_micros(self.jitter_us.unsigned_abs())
    }
}

impl Group {
    const fn of(sent: u64, arrival: i64) -> Self {
        Self { first_sent: sent, last_sent: sent, first_arrival: arrival, last_arrival: arrival }
    }

    const fn takes(&self, sent: u64, arrival: i64) -> bool {
        if sent - self.first_sent <= GROUP_US {
            return true;
        }
        let arrived_apart = arrival - self.last_arrival;
        let sent_apart = signed(sent.saturating_sub(self.last_sent));
        arrived_apart < sent_apart && arrived_apart <= signed(GROUP_US) && arrival - self.first_arrival < BURST_US
    }
}

/// Regression over the smoothed delay of the last groups.
#[derive(Clone, Debug)]
struct Trend {
    usage: Usage,
    accumulated: f64,
    smoothed: f64,
    first_arrival: Option<i64>,
    points: [(f64, f64); WINDOW],
    count: usize,
    groups: u32,
    slope: f64,
    threshold: f64,
    last_adapted: Option<i64>,
    over_ms: Option<f64>,
    over_count: u32,
}

impl Trend {
    const fn new() -> Self {
        Self {
            usage: Usage::Normal,
            accumulated: 0.0,
            smoothed: 0.0,
            first_arrival: None,
            points: [(0.0, 0.0); WINDOW],
            count: 0,
            groups: 0,
            slope: 0.0,
            threshold: THRESHOLD,
            last_adapted: None,
            over_ms: None,
            over_count: 0,
        }
    }

    fn update(&mut self, sent_apart: i64, arrived_apart: i64, arrival: i64) {
        let first = *self.first_arrival.get_or_insert(arrival);
        self.groups = (self.groups + 1).min(1000);
        self.accumulated += millis(arrived_apart - sent_apart);
        self.smoothed = SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * self.accumulated;
        let at = self.count % WINDOW;
        if let Some(point) = self.points.get_mut(at) {
            *point = (millis(arrival - first), self.smoothed);
        }
        self.count += 1;
        let before = self.slope;
        if self.count >= WINDOW {
            self.slope = slope(&self.points).unwrap_or(self.slope);
        }
        self.detect(millis(sent_apart), before, arrival);
    }

    fn detect(&mut self, sent_apart_ms: f64, slope_before: f64, arrival: i64) {
        if self.groups < 2 {
            return;
        }
        let modified = f64::from(self.groups.min(MAX_GAIN_GROUPS)) * self.slope * GAIN;
        if modified > self.threshold {
            let over = self.over_ms.map_or(sent_apart_ms / 2.0, |over| over + sent_apart_ms);
            self.over_ms = Some(over);
            self.over_count += 1;
            if over > OVERUSE_MS && self.over_count > 1 && self.slope >= slope_before {
                self.over_ms = Some(0.0);
                self.over_count = 0;
                self.usage = Usage::Over;
            }
        } else {
            self.over_ms = None;
            self.over_count = 0;
            self.usage = if modified < -self.threshold { Usage::Under } else { Usage::Normal };
        }
        self.adapt(modified, arrival);
    }

    fn adapt(&mut self, modified: f64, arrival: i64) {
        let last = *self.last_adapted.get_or_insert(arrival);
        self.last_adapted = Some(arrival);
        let magnitude = modified.abs();
        if magnitude > self.threshold + SPIKE {
            return;
        }
        let speed = if magnitude < self.threshold { THRESHOLD_DOWN } else { THRESHOLD_UP };
        let elapsed = millis(arrival - last).clamp(0.0, 100.0);
        self.threshold += speed * (magnitude - self.threshold) * elapsed;
        self.threshold = self.threshold.clamp(MIN_THRESHOLD, MAX_THRESHOLD);
    }
}

/// Least squares slope; order does not matter.
fn slope(points: &[(f64, f64); WINDOW]) -> Option<f64> {
    let count = 20.0;
    let (sum_x, sum_y) = points.iter().fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
    let (mean_x, mean_y) = (sum_x / count, sum_y / count);
    let (over, under) = points.iter().fold((0.0, 0.0), |(over, under), (x, y)| {
        let from_mean = x - mean_x;
        (over + from_mean * (y - mean_y), under + from_mean * from_mean)
    });
    (under > 0.0).then(|| over / under)
}

/// Queueing delay: what is more than the smallest delay of the last half minute.
#[derive(Clone, Debug)]
struct Queue {
    /// Smallest of this quarter minute and of the one before.
    smallest: (i64, i64),
    since: Option<u64>,
    delay: i64,
    /// How often in a row it has risen.
    rises: u8,
    /// Since when no packet came without waiting.
    standing_since: Option<u64>,
}

impl Queue {
    const fn new() -> Self {
        Self { smallest: (i64::MAX, i64::MAX), since: None, delay: 0, rises: 0, standing_since: None }
    }

    fn on_report(&mut self, now_us: u64, delay: i64) {
        let since = *self.since.get_or_insert(now_us);
        if now_us.saturating_sub(since) >= BASE_US {
            self.smallest = (delay, self.smallest.0);
            self.since = Some(now_us);
        }
        self.smallest.0 = self.smallest.0.min(delay);
        let queue = delay - self.smallest.0.min(self.smallest.1);
        self.rises = if queue > self.delay { self.rises.saturating_add(1) } else { 0 };
        self.delay = queue;
        self.standing_since = (queue > STANDING_US).then(|| self.standing_since.unwrap_or(now_us));
    }

    fn base(&self) -> Option<i64> {
        self.since.map(|_| self.smallest.0.min(self.smallest.1))
    }

    const fn rises(&self, above: i64) -> bool {
        self.delay > above && self.rises >= 2
    }
}

fn millis(us: i64) -> f64 {
    // Differences of recent times: far below 2^52.
    i32::try_from(us).map_or(0.0, f64::from) / 1000.0
}

const fn signed(us: u64) -> i64 {
    us.cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets 10 ms apart; arrivals stretched by `per_mille` from number 60 on. The usage at each.
    fn run(per_mille: i64, packets: i64) -> Vec<Usage> {
        let mut detector = Detector::new();
        let mut late = 0;
        (0..packets)
            .map(|n| {
                if n > 60 {
                    late += 10 * per_mille;
                }
                detector.on_packet(u64::try_from(n * 10_000).unwrap_or(0), 5_000_000 + n * 10_000 + late);
                detector.usage()
            })
            .collect()
    }

    #[test]
    fn a_steady_stream_is_normal_for_ever() {
        assert!(run(0, 5000).iter().all(|usage| *usage == Usage::Normal));
    }

    #[test]
    fn five_per_cent_of_stretch_is_overuse_and_half_a_per_cent_is_not() {
        let usages = run(60, 400);
        let at = usages.iter().position(|usage| *usage == Usage::Over);
        assert!(at.is_some_and(|at| (61..120).contains(&at)), "{at:?}");
        assert!(run(5, 1000).iter().all(|usage| *usage != Usage::Over));
    }

    #[test]
    fn a_leap_of_the_queue_is_overuse_before_the_trend_knows() {
        let mut detector = Detector::new();
        for n in 0..10u64 {
            detector.on_report(n * 50_000, 1000);
        }
        for (n, delay) in [(10, 30_000), (11, 70_000), (12, 120_000)] {
            detector.on_report(n * 50_000, delay);
        }
        assert_eq!(detector.usage(), Usage::Over);
        assert_eq!(detector.queue_us(), 119_000);
        detector.on_report(700_000, 110_000);
        assert_eq!(detector.usage(), Usage::Normal, "it falls");
    }

    #[test]
    fn a_receiver_that_stood_still_shows_by_how_fast_it_goes_on() {
        let mut detector = Detector::new();
        detector.on_report(0, 0);
        // 1000 bytes each 10 ms; those of 200 ms are read at once.
        let stalled = (0..40u64).filter_map(|n| {
            let sent = n * 10_000;
            detector.drained(sent, signed(sent).max(300_000), 1000)
        });
        assert!(stalled.collect::<Vec<_>>().first().is_some_and(|rate| *rate > 50_000_000));
        // A queue of 200 ms behind 800 kbit/s, and half of that sent.
        let mut detector = Detector::new();
        detector.on_report(0, 0);
        let queued = (0..60)
            .filter_map(|n| detector.drained(n * 20_000, signed(200_000 + n * 10_000).max(signed(n * 20_000)), 1000));
        assert!(queued.collect::<Vec<_>>().iter().all(|rate| (700_000..900_000).contains(rate)));
    }

    #[test]
    fn another_path_delay_becomes_the_base_within_half_a_minute() {
        let mut detector = Detector::new();
        for n in 0..20u64 {
            detector.on_report(n * 50_000, -7_000_000);
        }
        for n in 20..900u64 {
            detector.on_report(n * 50_000, -6_900_000);
        }
        assert_eq!(detector.queue_us(), 0);
    }
}
