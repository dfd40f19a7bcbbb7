//! Places for participants on this node. Every room holds as many as it has participants, those without a WebSocket
//! included; a newcomer is let in only where one is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// All places of the node.
#[derive(Debug)]
pub(super) struct Places {
    limit: usize,
    taken: AtomicUsize,
}

impl Places {
    /// So many.
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, taken: AtomicUsize::new(0) })
    }

    /// Whether nobody is there.
    pub(super) fn is_empty(&self) -> bool {
        self.taken.load(Ordering::Relaxed) == 0
    }

    /// Whether no newcomer can be let in now.
    pub(super) fn is_full(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.limit
    }
}

/// The places one room holds. Given back when dropped, however the room ends.
#[derive(Debug)]
pub(super) struct Crowd {
    places: Arc<Places>,
    count: usize,
}

impl Crowd {
    /// None yet.
    pub(super) const fn new(places: Arc<Places>) -> Self {
        Self { places, count: 0 }
    }

    /// Take a place for a newcomer, if one is left. [`Self::set`] gives it back should the newcomer not come.
    pub(super) fn try_one_more(&mut self) -> bool {
        let limit = self.places.limit;
        let more = |taken: usize| (taken < limit).then_some(taken + 1);
        let taken = self.places.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        self.count += usize::from(taken);
        taken
    }

    /// The room has so many participants.
    pub(super) fn set(&mut self, count: usize) {
        if count > self.count {
            self.places.taken.fetch_add(count - self.count, Ordering::Relaxed);
        } else {
            self.places.taken.fetch_sub(self.count - count, Ordering::Relaxed);
        }
        self.count = count;
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_share_the_places_and_give_them_back() {
        let places = Places::new(2);
        let (mut first, mut second) = (Crowd::new(places.clone()), Crowd::new(places.clone()));
        assert!(first.try_one_more() && second.try_one_more());
        assert!(!first.try_one_more() && places.is_full());
        // The newcomer was refused for another reason.
        first.set(0);
        assert!(second.try_one_more());
        second.set(2);
        drop(second);
        assert!(!places.is_full() && first.try_one_more() && first.try_one_more());
    }
}
