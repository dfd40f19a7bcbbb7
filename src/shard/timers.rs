//! Who has to be called when. A heap with lazy removal: an entry that is no longer the owner's next is skipped.
//!
//! Owners remember the time they are scheduled for; only an earlier one is pushed, so that the heap holds few stale
//! entries and a packet that changes nothing costs one comparison.

use core::cmp::Reverse;
use core::time::Duration;
use std::collections::BinaryHeap;

use crate::base::Instant;
use crate::shard::parts::RoomKey;
use crate::transport::TransportKey;

/// What a timer calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    Transport(TransportKey),
    Room(RoomKey),
}

/// When an owner is scheduled for, kept by the owner.
pub(super) type Scheduled = Option<Instant>;

/// What is due later than `FAR` comes together with others, up to `SLOT` later: reports and estimates of a hundred
/// transports then wake the thread fifty times a second instead of six hundred. More wakes it less and blurs them.
const FAR: Duration = Duration::from_millis(100);
const SLOT: u64 = 20_000_000;

/// When something that is due at `at` is called, seen from `now`.
pub(super) fn shared(now: Instant, at: Instant) -> Instant {
    if at.since(now) < FAR { at } else { Instant::from_nanos(at.as_nanos().next_multiple_of(SLOT)) }
}

/// An owner that is always due is called this often, so that time passes between two calls.
const LEAST: Duration = Duration::from_millis(1);

#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, Owner)>>,
    /// Owners being called now.
    due: Vec<(Instant, Owner)>,
}

impl Timers {
    /// `owner` wants to be called at `at` or earlier.
    pub(super) fn schedule(&mut self, owner: Owner, scheduled: &mut Scheduled, at: Option<Instant>) {
        let Some(at) = at else { return };
        if scheduled.is_none_or(|before| at < before) {
            *scheduled = Some(at);
            self.heap.push(Reverse((at, owner)));
        }
    }

    /// The same after `owner` was called at `now`.
    pub(super) fn reschedule(&mut self, now: Instant, owner: Owner, scheduled: &mut Scheduled, at: Option<Instant>) {
        *scheduled = None;
        self.schedule(owner, scheduled, at.map(|at| shared(now, at.max(now + LEAST))));
    }

    /// When somebody is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Take all that are due; give the buffer back with [`Self::done`].
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(Instant, Owner)> {
        let mut due = core::mem::take(&mut self.due);
        due.clear();
        while let Some(Reverse((at, owner))) = self.heap.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            self.heap.pop();
            due.push((at, owner));
        }
        due
    }

    pub(super) fn done(&mut self, due: Vec<(Instant, Owner)>) {
        self.due = due;
    }
}
