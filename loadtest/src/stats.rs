//! Figures: a histogram of latencies, the clock they are measured by, and what the kernel says of a process.

use std::sync::LazyLock;
use std::time::Instant;

/// Buckets per doubling: percentiles are right to 3 %.
const FINE: u64 = 32;
const FINE_BITS: u32 = 5;
const BUCKETS: usize = 64 * 32;

static ZERO: LazyLock<Instant> = LazyLock::new(crate::peer::now);

/// Nanoseconds of the monotonic clock since this process first asked.
pub fn nanos() -> u64 {
    u64::try_from(crate::peer::now().duration_since(*ZERO).as_nanos()).unwrap_or(u64::MAX)
}

/// Durations in nanoseconds.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Box<[u64]>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS].into(), total: 0, max: 0 }
    }
}

impl Histogram {
    /// One more.
    pub fn add(&mut self, value: u64) {
        let octave = value.max(FINE).ilog2() - FINE_BITS;
        // Below 32 the bucket is the value.
        let at = u64::from(octave) * FINE + (value >> octave);
        if let Some(count) = usize::try_from(at).ok().and_then(|at| self.counts.get_mut(at)) {
            *count += 1;
        }
        self.total += 1;
        self.max = self.max.max(value);
    }

    /// The value that this share (0.0 to 1.0) is not above. 0 when empty.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a rank")]
    pub fn percentile(&self, share: f64) -> u64 {
        let rank = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (at, count) in (0u64..).zip(&self.counts) {
            seen += count;
            if *count > 0 && seen >= rank {
                let octave = (at / FINE).saturating_sub(1);
                let mantissa = at - octave * FINE;
                return (((mantissa + 1) << octave) - 1).min(self.max);
            }
        }
        0
    }

    /// All of another one too.
    pub fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(to, from)| *to += from);
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// How many.
    pub const fn total(&self) -> u64 {
        self.total
    }
}

/// Processor time a process has used, in microseconds, children not counted. `pid` may be `self`.
pub fn cpu_us(pid: &str) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    // Linux reports hundredths of a second on every architecture.
    Some((user + system) * 10_000)
}

/// Resident memory of a process in kB.
pub fn resident_kb(pid: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_to_three_percent() {
        let mut histogram = Histogram::default();
        (1..=100_000u64).for_each(|n| histogram.add(n * 1_000));
        for (share, right) in [(0.5, 50_000_000u64), (0.99, 99_000_000), (0.999, 99_900_000), (1.0, 100_000_000)] {
            let found = histogram.percentile(share);
            assert!(found >= right && found <= right + right / 30, "{share}: {found}");
        }
        assert_eq!(Histogram::default().percentile(0.5), 0);
    }

    #[test]
    fn reads_the_figures_of_this_process() {
        assert!(cpu_us("self").is_some() && resident_kb("self").is_some_and(|kb| kb > 500));
    }
}
