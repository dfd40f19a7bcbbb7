//! A token bucket: how much of something a participant may use in the long run and at once.

use std::time::Duration;

/// Tokens that come back with time. May be overdrawn by the caller's choice.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    per_second: u64,
    burst: i64,
    tokens: i64,
    filled: Duration,
}

impl Bucket {
    pub(super) fn new(per_second: u64, burst: u64, now: Duration) -> Self {
        let burst = i64::try_from(burst).unwrap_or(i64::MAX / 2).max(1);
        Self { per_second: per_second.max(1), burst, tokens: burst, filled: now }
    }

    fn fill(&mut self, now: Duration) {
        let micros = now.saturating_sub(self.filled).as_micros();
        let earned = micros.saturating_mul(u128::from(self.per_second)) / 1_000_000;
        if earned == 0 {
            return;
        }
        self.filled = now;
        self.tokens = self.tokens.saturating_add(i64::try_from(earned).unwrap_or(i64::MAX)).min(self.burst);
    }

    /// Takes `cost` if it is there.
    pub(super) fn take(&mut self, now: Duration, cost: u64) -> bool {
        self.fill(now);
        let cost = i64::try_from(cost).unwrap_or(i64::MAX);
        let enough = self.tokens >= cost;
        if enough {
            self.tokens -= cost;
        }
        enough
    }

    /// Takes `cost` whether it is there or not, and says when the bucket will be out of debt.
    pub(super) fn overdraw(&mut self, now: Duration, cost: u64) -> Option<Duration> {
        self.fill(now);
        self.tokens = self.tokens.saturating_sub(i64::try_from(cost).unwrap_or(i64::MAX));
        self.debt_free_at(now)
    }

    /// When the bucket will be out of debt; `None` if it is.
    pub(super) fn debt_free_at(&mut self, now: Duration) -> Option<Duration> {
        self.fill(now);
        let debt = u64::try_from(self.tokens.checked_neg()?).ok().filter(|debt| *debt > 0)?;
        // A millisecond more than needed, so that the timer finds it paid.
        let millis = debt.saturating_mul(1000) / self.per_second + 1;
        Some(now.saturating_add(Duration::from_millis(millis)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allows_a_burst_then_the_rate() {
        let mut bucket = Bucket::new(10, 20, Duration::ZERO);
        let taken = (0..100).filter(|_| bucket.take(Duration::ZERO, 1)).count();
        assert_eq!(taken, 20);
        let second = Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| bucket.take(second, 1)).count(), 10);
    }

    #[test]
    fn says_when_a_debt_is_paid() {
        let mut bucket = Bucket::new(1000, 1000, Duration::ZERO);
        let at = bucket.overdraw(Duration::ZERO, 3000).unwrap();
        assert!(at >= Duration::from_secs(2) && at < Duration::from_millis(2010));
        assert_eq!(bucket.debt_free_at(at), None);
    }
}
