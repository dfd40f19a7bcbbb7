//! What got through: rates over the packets that have arrived last.
//!
//! Rates are taken over the receiver's clock and never above the rate sent, so that a burst that was held up and came at
//! once does not count as capacity. Kept by [`super::estimator`].

use core::time::Duration;

/// Packets looked back over.
const SAMPLES: usize = 512;
const SLOW: Window = Window { us: 1_000_000, most_us: 5_000_000, packets: 20 };
/// For what gets through right now.
const FAST: Window = Window { us: 250_000, most_us: 1_000_000, packets: 8 };

/// What a rate is taken over.
struct Window {
    /// This time ...
    us: i64,
    /// ... and at most this, where packets are fewer than those.
    most_us: i64,
    packets: usize,
}

impl Window {
    /// Whether a sample that old does not belong to it any more.
    const fn ends(&self, age: i64, packets: usize) -> bool {
        age > self.most_us || (age > self.us && packets >= self.packets)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    arrival: i64,
    sent: u64,
    size: u32,
}

/// A ring of what has arrived.
#[derive(Clone, Debug)]
pub(super) struct Throughput {
    samples: Box<[Sample]>,
    count: usize,
}

/// What was seen going back from the newest sample.
struct Scan {
    newest: Sample,
    oldest: Sample,
    bytes: u64,
    packets: usize,
    pause: i64,
    second_pause: i64,
    first_sent: u64,
    last_sent: u64,
}

impl Scan {
    const fn new(newest: Sample) -> Self {
        let Sample { sent, .. } = newest;
        Self {
            newest,
            oldest: newest,
            bytes: 0,
            packets: 0,
            pause: 0,
            second_pause: 0,
            first_sent: sent,
            last_sent: sent,
        }
    }

    fn add(&mut self, sample: &Sample) {
        let gap = self.oldest.arrival - sample.arrival;
        if gap > self.pause {
            (self.second_pause, self.pause) = (self.pause, gap);
        } else {
            self.second_pause = self.second_pause.max(gap);
        }
        self.bytes += u64::from(sample.size);
        self.first_sent = self.first_sent.min(sample.sent);
        self.last_sent = self.last_sent.max(sample.sent);
        self.oldest = *sample;
        self.packets += 1;
    }

    fn rates(&self, window: &Window) -> Option<Rates> {
        if self.packets < window.packets / 2 {
            return None;
        }
        // The longest pause counts as the second longest: a receiver that stood still is not a slow path.
        let received = (self.newest.arrival - self.oldest.arrival) - self.pause + self.second_pause;
        Some(Rates {
            received: rate(self.bytes - u64::from(self.oldest.size), u64::try_from(received).ok()?)?,
            sent: rate(self.bytes - u64::from(self.newest.size), self.last_sent - self.first_sent)?,
        })
    }
}

/// Rates over one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rates {
    /// Bits per second at the receiver, without its longest pause.
    pub(super) received: u64,
    /// Bits per second at which the same packets were sent.
    pub(super) sent: u64,
}

impl Rates {
    /// The same on a path that loses nothing, which has `inherent` thousandths of loss of its own.
    pub(super) fn without_loss(self, inherent: u32) -> Self {
        let kept = u64::from(1000 - inherent.min(500));
        Self { received: self.received * 1000 / kept, sent: self.sent * 1000 / kept }
    }

    /// What got through.
    pub(super) fn acked(&self) -> u64 {
        self.received.min(self.sent)
    }

    /// How much of what was sent came in the same time, in percent.
    pub(super) fn capture_percent(&self) -> u64 {
        (self.received.saturating_mul(100)).checked_div(self.sent).unwrap_or(100).min(100)
    }
}

impl Throughput {
    pub(super) fn new() -> Self {
        Self { samples: vec![Sample::default(); SAMPLES].into(), count: 0 }
    }

    pub(super) const fn reset(&mut self) {
        self.count = 0;
    }

    pub(super) fn on_packet(&mut self, sent: u64, arrival: i64, size: u32) {
        if let Some(slot) = self.samples.get_mut(self.count % SAMPLES) {
            *slot = Sample { arrival, sent, size };
            self.count += 1;
        }
    }

    /// Over the last second and at least twenty packets, and over the last quarter second and at least eight.
    pub(super) fn rates(&self) -> (Option<Rates>, Option<Rates>) {
        let Some(newest) = self.sample(0) else { return (None, None) };
        let mut scan = Scan::new(newest);
        let mut fast = None;
        for sample in self.back() {
            let age = newest.arrival - sample.arrival;
            if fast.is_none() && FAST.ends(age, scan.packets) {
                fast = Some(scan.rates(&FAST));
            }
            if SLOW.ends(age, scan.packets) {
                break;
            }
            scan.add(sample);
        }
        (scan.rates(&SLOW), fast.unwrap_or_else(|| scan.rates(&FAST)))
    }

    /// Samples from the newest back.
    fn back(&self) -> impl Iterator<Item = &Sample> {
        let next = self.count % SAMPLES;
        let (new, old) = self.samples.split_at_checked(next).unwrap_or_default();
        // What was never written lies behind what was.
        let old = if self.count < SAMPLES { &[] } else { old };
        new.iter().rev().chain(old.iter().rev())
    }

    fn sample(&self, back: usize) -> Option<Sample> {
        let at = self.count.checked_sub(back + 1)?;
        self.samples.get(at % SAMPLES).copied()
    }
}

/// Bits per second; `None` over no time.
pub(super) fn rate(bytes: u64, us: u64) -> Option<u64> {
    (bytes.saturating_mul(8_000_000)).checked_div(us)
}

/// Bytes that flow at `bps` in `time`.
pub(super) fn bytes_in(bps: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(bps) * time.as_micros() / 8_000_000).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_lower_of_both_ends() {
        let mut throughput = Throughput::new();
        for n in 0..200u32 {
            // 1000 bytes each 8 ms: 1 Mbit/s sent; received at 800 kbit/s.
            throughput.on_packet(u64::from(n) * 8_000, i64::from(n) * 10_000, 1000);
        }
        let rates = throughput.rates().0.unwrap_or_default();
        assert_eq!(rates, Rates { received: 800_000, sent: 1_000_000 });
        assert_eq!((rates.acked(), rates.capture_percent()), (800_000, 80));
    }

    #[test]
    fn a_pause_of_the_receiver_is_not_a_slow_path() {
        let mut throughput = Throughput::new();
        for n in 0..200u32 {
            let pause = if n > 150 { 300_000 } else { 0 };
            throughput.on_packet(u64::from(n) * 8_000, i64::from(n) * 8_000 + pause, 1000);
        }
        assert!(throughput.rates().0.is_some_and(|rates| rates.acked() > 950_000), "{:?}", throughput.rates().0);
    }

    #[test]
    fn nothing_is_known_of_few_packets() {
        let mut throughput = Throughput::new();
        assert_eq!(throughput.rates().0, None);
        for n in 0..3u32 {
            throughput.on_packet(u64::from(n) * 8_000, i64::from(n) * 8_000, 1000);
        }
        assert_eq!(throughput.rates().1, None);
    }
}
