//! How much may be relayed in a time: the generic cell rate algorithm, two words per meter. Pure.

use core::time::Duration;

use crate::base::{Bitrate, Instant};

/// How far somebody may be ahead of the rate: a key frame of video at once.
const BURST: Duration = Duration::from_millis(500);

/// A rate and how far it is used up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meter {
    rate: Bitrate,
    /// When all that was taken would have gone by at exactly this rate.
    paid_until: Instant,
}

impl Meter {
    /// Used up at first, so that nobody gains by beginning anew; after `BURST` it is not.
    pub(super) fn new(rate: Bitrate, now: Instant) -> Self {
        Self { rate, paid_until: now + BURST }
    }

    /// Whether something may go by now.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.paid_until <= now + BURST
    }

    /// So many bytes went by.
    pub(super) fn take(&mut self, now: Instant, bytes: usize) {
        let nanos = (bytes as u64).saturating_mul(8_000_000_000) / self.rate.as_bps().max(1);
        self.paid_until = self.paid_until.max(now) + Duration::from_nanos(nanos);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that go by in `time` when somebody offers 1000 each millisecond.
    fn passed(meter: &mut Meter, from: Instant, time: Duration) -> usize {
        let mut bytes = 0;
        for step in 0..time.as_millis() {
            let now = from + Duration::from_millis(u64::try_from(step).unwrap_or(0));
            if meter.is_open(now) {
                meter.take(now, 1_000);
                bytes += 1_000;
            }
        }
        bytes
    }

    #[test]
    fn lets_by_the_rate_and_after_silence_half_a_second_more() {
        let start = Instant::from_millis(5_000);
        let mut meter = Meter::new(Bitrate::from_kbps(800), start);
        let second = Duration::from_secs(1);
        assert!((99_000..=102_000).contains(&passed(&mut meter, start, second)), "no credit for beginners");
        let later = start + Duration::from_secs(10);
        assert!((149_000..=152_000).contains(&passed(&mut meter, later, second)));
        assert!((99_000..=102_000).contains(&passed(&mut meter, later + second, second)));
    }
}
