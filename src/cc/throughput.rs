//! What got through: rates over the packets that have arrived last.
//!
//! Rates are taken over the receiver's clock and never above the rate sent, so that a burst that was held up and came at
//! once does not count as capacity. Kept by [`super::estimator`].

use core::time::Duration;

/// Packets looked back over.
const SAMPLES: usize = 512;
/// The slow rate goes over this time ...
const SLOW_US: i64 = 1_000_000;
/// ... and at most this, where packets are few.
const SLOW_MOST_US: i64 = 5_000_000;
const SLOW_PACKETS: usize = 20;
/// The fast rate, for what gets through right now.
const FAST_US: i64 = 250_000;
const FAST_MOST_US: i64 = 1_000_000;
const FAST_PACKETS: usize = 8;

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

    /// Over the last second and at least twenty packets.
    pub(super) fn slow(&self) -> Option<Rates> {
        self.over(SLOW_US, SLOW_PACKETS, SLOW_MOST_US)
    }

    /// Over the last quarter second and at least eight packets.
    pub(super) fn fast(&self) -> Option<Rates> {
        self.over(FAST_US, FAST_PACKETS, FAST_MOST_US)
    }

    fn over(&self, window: i64, least: usize, most: i64) -> Option<Rates> {
        let newest = self.sample(0)?;
        let held = self.count.min(SAMPLES);
        let (mut bytes, mut oldest, mut next) = (0u64, newest, newest);
        let (mut pause, mut second_pause) = (0i64, 0i64);
        let (mut first_sent, mut last_sent) = (newest.sent, newest.sent);
        let mut packets = 0;
        for back in 0..held {
            let Some(sample) = self.sample(back) else { break };
            let age = newest.arrival - sample.arrival;
            if age > most || (age > window && packets >= least) {
                break;
            }
            let gap = next.arrival - sample.arrival;
            if gap > pause {
                (second_pause, pause) = (pause, gap);
            } else {
                second_pause = second_pause.max(gap);
            }
            bytes += u64::from(sample.size);
            first_sent = first_sent.min(sample.sent);
            last_sent = last_sent.max(sample.sent);
            (oldest, next) = (sample, sample);
            packets += 1;
        }
        if packets < least / 2 {
            return None;
        }
        // The longest pause counts as the second longest: a receiver that stood still is not a slow path.
        let received = (newest.arrival - oldest.arrival) - pause + second_pause;
        Some(Rates {
            received: rate(bytes - u64::from(oldest.size), u64::try_from(received).ok()?)?,
            sent: rate(bytes - u64::from(newest.size), last_sent - first_sent)?,
        })
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
        let rates = throughput.slow().unwrap_or_default();
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
        assert!(throughput.slow().is_some_and(|rates| rates.acked() > 950_000), "{:?}", throughput.slow());
    }

    #[test]
    fn nothing_is_known_of_few_packets() {
        let mut throughput = Throughput::new();
        assert_eq!(throughput.slow(), None);
        for n in 0..3u32 {
            throughput.on_packet(u64::from(n) * 8_000, i64::from(n) * 8_000, 1000);
        }
        assert_eq!(throughput.fast(), None);
    }
}
