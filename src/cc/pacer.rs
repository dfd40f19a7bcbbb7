//! Spreads what is sent to one transport, so that a key frame does not arrive as one burst.
//!
//! Costs a comparison while nothing waits: the caller asks [`Pacer::admits`], sends at once when it may, and queues what
//! may not. Sound never asks. Nothing is dropped here, packets are numbered already: the longer the queue, the faster it
//! drains, so that nothing waits longer than [`DRAIN`].

use core::time::Duration;
use std::collections::VecDeque;

use crate::base::{Bitrate, Instant};

/// A queue is emptied within this time, whatever the rate. Longer delays key frames, shorter makes bursts of them.
const DRAIN: Duration = Duration::from_millis(150);
/// Bytes that may go at once: three packets, or what flows in the time below.
const LEAST_BURST: i64 = 3_600;
const BURST: Duration = Duration::from_millis(20);
/// Between two releases.
const TICK: Duration = Duration::from_millis(5);
/// Most that may wait; beyond, it is sent at once.
const MOST: usize = 2048;

/// A queue with a rate. `T` is whatever the caller needs to send the packet.
#[derive(Clone, Debug)]
pub struct Pacer<T> {
    urgent: VecDeque<(T, u32)>,
    rest: VecDeque<(T, u32)>,
    bytes: u64,
    /// Bytes that may be sent now; in debt after a burst.
    credit: i64,
    refilled: Instant,
}

impl<T> Default for Pacer<T> {
    fn default() -> Self {
        // Most links never make anything wait: no memory for them.
        Self { urgent: VecDeque::new(), rest: VecDeque::new(), bytes: 0, credit: 0, refilled: Instant::ZERO }
    }
}

impl<T> Pacer<T> {
    /// Whether a packet may leave at once. If not, [`Self::push`] it.
    pub fn admits(&mut self, now: Instant, rate: Bitrate) -> bool {
        if self.len() >= MOST {
            return true;
        }
        self.refill(now, rate);
        self.is_empty() && self.credit > 0
    }

    /// A packet of `size` bytes left, admitted or not: sound and padding count as well.
    pub fn on_sent(&mut self, size: usize) {
        self.credit = self.credit.saturating_sub(i64::try_from(size).unwrap_or(i64::MAX));
    }

    /// Keep a packet. `urgent`: one sent again.
    pub fn push(&mut self, item: T, size: usize, urgent: bool) {
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        self.bytes += u64::from(size);
        if urgent { &mut self.urgent } else { &mut self.rest }.push_back((item, size));
    }

    /// The next packet that may leave now.
    pub fn pop(&mut self, now: Instant, rate: Bitrate) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        self.refill(now, rate);
        if self.credit <= 0 {
            return None;
        }
        self.take()
    }

    /// The next packet, whatever the rate: when everything ends.
    pub fn take(&mut self) -> Option<T> {
        let (item, size) = self.urgent.pop_front().or_else(|| self.rest.pop_front())?;
        self.bytes = self.bytes.saturating_sub(u64::from(size));
        Some(item)
    }

    /// When [`Self::pop`] is due after `now`; `None` while nothing waits.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        (!self.is_empty()).then(|| now + TICK)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.urgent.len() + self.rest.len()
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.rest.is_empty()
    }

    fn refill(&mut self, now: Instant, rate: Bitrate) {
        let elapsed = now.since(self.refilled);
        if elapsed.is_zero() {
            return;
        }
        self.refilled = now;
        let draining = Bitrate::of(self.bytes, DRAIN);
        let rate = rate.max(draining);
        let burst = bytes(rate, BURST).max(LEAST_BURST);
        self.credit = self.credit.saturating_add(bytes(rate, elapsed.min(Duration::from_secs(1)))).min(burst);
    }
}

fn bytes(rate: Bitrate, time: Duration) -> i64 {
    i64::try_from(u128::from(rate.as_bps()) * time.as_micros() / 8_000_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Bitrate = Bitrate::from_kbps(1_000);

    #[test]
    fn admits_everything_while_little_is_sent() {
        let mut pacer = Pacer::<u32>::default();
        for n in 0..1000u64 {
            // 800 kbit/s in packets of 1000 bytes.
            assert!(pacer.admits(Instant::from_millis(1000 + n * 10), RATE));
            pacer.on_sent(1000);
        }
    }

    #[test]
    fn spreads_a_key_frame_and_keeps_the_order() {
        let mut pacer = Pacer::default();
        let mut sent = Vec::new();
        let mut now = Instant::from_millis(1000);
        for n in 0..40u32 {
            if pacer.admits(now, RATE) {
                pacer.on_sent(1000);
                sent.push((now, n));
            } else {
                pacer.push(n, 1000, false);
            }
        }
        assert_eq!(sent.len(), 4);
        pacer.push(99, 1000, true);
        while let Some(at) = pacer.next_timeout(now) {
            now = at;
            while let Some(n) = pacer.pop(now, RATE) {
                pacer.on_sent(1000);
                sent.push((now, n));
            }
        }
        let order: Vec<u32> = sent.iter().map(|(_, n)| *n).collect();
        assert_eq!(order, [0, 1, 2, 3, 99].into_iter().chain(4..40).collect::<Vec<_>>());
        let longest = now.since(Instant::from_millis(1000));
        assert!((100..400).contains(&longest.as_millis()), "{longest:?}");
        assert!(pacer.admits(now + Duration::from_millis(200), RATE));
    }

    #[test]
    fn nothing_waits_for_long_however_low_the_rate() {
        let mut pacer = Pacer::default();
        let mut now = Instant::from_millis(1000);
        (0..200u32).for_each(|n| pacer.push(n, 1200, false));
        let begun = now;
        while let Some(at) = pacer.next_timeout(now) {
            now = at;
            while pacer.pop(now, Bitrate::from_kbps(50)).is_some() {
                pacer.on_sent(1200);
            }
        }
        assert!(now.since(begun) < Duration::from_millis(1500), "{:?}", now.since(begun));
    }
}
