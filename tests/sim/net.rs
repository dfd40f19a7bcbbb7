//! A bad network: latency, jitter (and with it reordering), loss in bursts, duplicates. All from the seed.

use weir::base::{Instant, Rng};

/// How one direction of a path behaves.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    pub latency_us: u64,
    pub jitter_us: u64,
    /// Chance in 10 000 that a burst of loss begins with a packet.
    pub loss: u64,
    /// Mean length of such a burst.
    pub burst: u64,
    /// Chance in 10 000 that a packet comes twice.
    pub duplicate: u64,
    /// Packets of the current burst still to be lost.
    burst_left: u64,
}

impl Path {
    pub const PERFECT: Self = Self { latency_us: 5_000, jitter_us: 0, loss: 0, burst: 0, duplicate: 0, burst_left: 0 };

    /// Anything from a cable to a moving train.
    pub fn random(rng: &mut Rng) -> Self {
        if rng.below(3) == 0 {
            return Self { latency_us: 500 + rng.below(40_000), ..Self::PERFECT };
        }
        Self {
            latency_us: 500 + rng.below(60_000),
            jitter_us: rng.below(30_000),
            loss: rng.below(200),
            burst: 1 + rng.below(5),
            duplicate: rng.below(100),
            burst_left: 0,
        }
    }

    /// Nothing is lost from here on. The latency stays: a shorter one would overtake.
    pub fn calm(&mut self) {
        let latency_us = self.latency_us + self.jitter_us;
        *self = Self { latency_us, ..Self::PERFECT };
    }

    /// Everything sent arrives, once and in order.
    pub fn is_lossless(&self) -> bool {
        self.loss == 0 && self.jitter_us == 0
    }

    /// When a packet sent now arrives: never, once or twice.
    pub fn arrivals(&mut self, now: Instant, rng: &mut Rng) -> impl Iterator<Item = Instant> {
        if self.burst_left == 0 && rng.below(10_000) < self.loss {
            self.burst_left = 1 + rng.below(self.burst * 2);
        }
        let lost = self.burst_left > 0;
        self.burst_left = self.burst_left.saturating_sub(1);
        let twice = rng.below(10_000) < self.duplicate;
        let mut at = || {
            let micros = self.latency_us + rng.below(self.jitter_us + 1);
            Instant::from_nanos(now.as_nanos() + micros * 1000)
        };
        let first = (!lost).then(&mut at);
        let second = (!lost && twice).then(at);
        first.into_iter().chain(second)
    }
}
