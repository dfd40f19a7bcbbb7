//! How long packets waited: a histogram by the millisecond.

/// Longer waits count as this many milliseconds.
const LONGEST: usize = 5000;

/// Waits in milliseconds.
#[derive(Clone, Debug, Default)]
pub struct Waits {
    counts: Vec<u64>,
    total: u64,
}

impl Waits {
    /// One packet waited this long.
    pub fn add(&mut self, ms: u64) {
        let at = usize::try_from(ms).unwrap_or(LONGEST).min(LONGEST);
        if self.counts.len() <= at {
            self.counts.resize(at + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(at) {
            *count += 1;
            self.total += 1;
        }
    }

    /// Those of `other` as well.
    pub fn merge(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (ours, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *ours += theirs;
        }
        self.total += other.total;
    }

    /// What `percent` of all packets waited at most; 0 when there were none.
    pub fn percentile(&self, percent: u64) -> u64 {
        let rank = (self.total * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (ms, count) in (0..).zip(&self.counts) {
            seen += count;
            if seen >= rank {
                return ms;
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_all_packets() {
        let mut waits = Waits::default();
        assert_eq!(waits.percentile(95), 0);
        (1..=100).for_each(|ms| waits.add(ms));
        assert_eq!((waits.percentile(50), waits.percentile(95), waits.percentile(100)), (50, 95, 100));
        waits.add(1_000_000);
        assert_eq!(waits.percentile(100), 5000);
    }
}
