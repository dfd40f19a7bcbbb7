//! Named timers of a room: what is due when. Setting a timer again moves it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A table of deadlines, one per key.
#[derive(Debug)]
pub(super) struct Timers<K> {
    at: BTreeMap<K, Duration>,
    order: BTreeSet<(Duration, K)>,
}

impl<K: Ord + Copy> Timers<K> {
    pub(super) const fn new() -> Self {
        Self { at: BTreeMap::new(), order: BTreeSet::new() }
    }

    pub(super) fn set(&mut self, key: K, at: Duration) {
        self.cancel(key);
        self.at.insert(key, at);
        self.order.insert((at, key));
    }

    /// Sets it unless it runs already: for work that is collected until the timer fires.
    pub(super) fn set_if_idle(&mut self, key: K, at: Duration) {
        if !self.at.contains_key(&key) {
            self.set(key, at);
        }
    }

    /// Sets it, or moves it nearer.
    pub(super) fn set_no_later(&mut self, key: K, at: Duration) {
        if self.at.get(&key).is_none_or(|before| at < *before) {
            self.set(key, at);
        }
    }

    pub(super) fn cancel(&mut self, key: K) {
        if let Some(at) = self.at.remove(&key) {
            self.order.remove(&(at, key));
        }
    }

    pub(super) fn is_set(&self, key: K) -> bool {
        self.at.contains_key(&key)
    }

    pub(super) fn next(&self) -> Option<Duration> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes the earliest timer that is due.
    pub(super) fn pop(&mut self, now: Duration) -> Option<K> {
        let (at, key) = *self.order.first()?;
        if at > now {
            return None;
        }
        self.cancel(key);
        Some(key)
    }

    pub(super) fn clear(&mut self) {
        self.at.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fires_in_order_and_once() {
        let mut timers = Timers::new();
        timers.set(1, Duration::from_secs(3));
        timers.set(2, Duration::from_secs(2));
        timers.set(1, Duration::from_secs(1));
        timers.set_if_idle(2, Duration::from_secs(9));
        assert_eq!(timers.next(), Some(Duration::from_secs(1)));
        let now = Duration::from_secs(2);
        assert_eq!((timers.pop(now), timers.pop(now), timers.pop(now)), (Some(1), Some(2), None));
    }
}
