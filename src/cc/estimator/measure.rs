//! What the estimator measures with: the rate of the media sent, and the far end's clock.

use crate::cc::throughput::rate;
use crate::rtp::twcc::TICKS_PER_REFERENCE;

/// Media sent is measured over this.
const SENT_WINDOW_US: u64 = 500_000;
/// Less than this share of the target is sent: the sender has no more, in percent.
const LIMITED_PERCENT: u64 = 70;
/// Units of a status: 250 us.
pub(super) const TICK_US: i64 = 250;
/// Arrival clocks that leap further than this begin anew.
const CLOCK_LEAP_US: i64 = 3_000_000;

/// Rate of the media sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    since: u64,
    bytes: u64,
    rate: Option<u64>,
}

/// The far end's clock: 24 bits of 64 ms.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    reference: Option<(u32, i64)>,
    last: Option<(u64, i64)>,
}

impl Sent {
    pub(super) fn add(&mut self, now_us: u64, size: u16) {
        let elapsed = now_us.saturating_sub(self.since);
        if elapsed >= SENT_WINDOW_US {
            // After a long silence the measure begins anew.
            let known = elapsed < 4 * SENT_WINDOW_US;
            self.rate = if known { rate(self.bytes, elapsed) } else { None };
            (self.since, self.bytes) = (now_us, 0);
        }
        self.bytes += u64::from(size);
    }

    pub(super) fn is_limited(&self, now_us: u64, target: u64) -> bool {
        let stale = now_us.saturating_sub(self.since) >= 2 * SENT_WINDOW_US;
        stale || self.rate.is_none_or(|rate| rate < target / 100 * LIMITED_PERCENT)
    }
}

impl Clock {
    /// Microseconds of the reference time, going on over its wraps: the candidate closest to the last one.
    pub(super) fn unwrap(&mut self, reference: u32) -> Option<i64> {
        let unwrapped = match self.reference {
            None => i64::from(reference),
            Some((before, unwrapped)) => {
                let ahead = reference.wrapping_sub(before) & 0xff_ffff;
                unwrapped + if ahead < 1 << 23 { i64::from(ahead) } else { i64::from(ahead) - (1 << 24) }
            }
        };
        if self.reference.is_none_or(|(_, before)| unwrapped > before) {
            self.reference = Some((reference, unwrapped));
        }
        unwrapped.checked_mul(TICKS_PER_REFERENCE * TICK_US)
    }

    /// Whether the far end's clock has leapt against ours.
    pub(super) fn leaps(&mut self, now_us: u64, arrival: i64) -> bool {
        let before = self.last.replace((now_us, arrival));
        before.is_some_and(|(at, before)| {
            let ours = now_us.saturating_sub(at).cast_signed();
            (arrival - before - ours).abs() > CLOCK_LEAP_US
        })
    }
}
