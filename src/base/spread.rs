//! Durations by class, counted with plain integers: what a histogram is made of. Nothing is allocated; whoever counts
//! copies the whole out now and then. One scale for everything, from microseconds of work to seconds of waiting.

use core::time::Duration;

/// How often durations fell into each class.
#[derive(Clone, Debug, Default)]
pub struct Spread {
    classes: [u64; Self::BOUNDS.len() + 1],
    count: u64,
    sum_nanos: u64,
}

impl Spread {
    /// Upper ends of the classes, microseconds; longer durations fall into one more class. The first
    /// [`Self::WORK`] are for work, the others for waiting.
    pub const BOUNDS: [u64; 18] = [
        50, 100, 250, 500, 1_000, 2_000, 3_000, 5_000, 10_000, 20_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
        2_000_000, 5_000_000, 10_000_000,
    ];
    /// How many of the bounds tell durations of work apart.
    pub const WORK: usize = 10;

    /// Count a duration `times` times.
    pub fn add(&mut self, took: Duration, times: u64) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let class = Self::BOUNDS.iter().position(|bound| nanos <= bound * 1_000).unwrap_or(Self::BOUNDS.len());
        if let Some(slot) = self.classes.get_mut(class) {
            *slot = slot.wrapping_add(times);
        }
        self.count = self.count.wrapping_add(times);
        self.sum_nanos = self.sum_nanos.wrapping_add(nanos.wrapping_mul(times));
    }

    /// How many fell into each class; one more than there are bounds.
    pub const fn classes(&self) -> &[u64] {
        &self.classes
    }

    /// All durations.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Their sum, nanoseconds.
    pub const fn sum_nanos(&self) -> u64 {
        self.sum_nanos
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_class_they_do_not_exceed() {
        let mut spread = Spread::default();
        spread.add(Duration::from_micros(100), 1);
        spread.add(Duration::from_micros(101), 2);
        spread.add(Duration::from_secs(11), 3);
        assert_eq!(spread.classes().get(1..3), Some([1, 2].as_slice()));
        assert_eq!(spread.classes().last(), Some(&3));
        assert_eq!((spread.count(), spread.sum_nanos()), (6, 100_000 + 2 * 101_000 + 33_000_000_000));
        assert!(Spread::BOUNDS.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
