//! Which packets to ask for again, and when: a short sorted queue of holes.
//!
//! A hole is asked for at once, then again after a round trip that grows by a quarter each time, at most five times.

use core::time::Duration;

use crate::base::Instant;
use crate::rtp::seq::wire_u16;

/// Most holes remembered; more at once is an outage that a key frame mends better.
pub const MAX_MISSING: usize = 100;
/// How often one packet is asked for.
const MAX_TRIES: u8 = 5;
/// Between two requests for one packet, before growth.
const MIN_SPACING: Duration = Duration::from_millis(20);
const MAX_SPACING: Duration = Duration::from_millis(400);
/// Until the round-trip time is known.
const DEFAULT_RTT: Duration = Duration::from_millis(70);

#[derive(Clone, Copy, Debug)]
struct Missing {
    seq: u64,
    due: Instant,
    tries: u8,
}

/// Holes of one stream in ascending order.
#[derive(Debug)]
pub(super) struct NackQueue {
    missing: Vec<Missing>,
    asked: Vec<u16>,
}

/// What to do now about holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NackRound<'a> {
    /// Sequence numbers to ask for, ascending around the wrap; for [`crate::rtp::rtcp::write::nack`].
    pub lost: &'a [u16],
    /// Packets given up in this round; for video their frame will never be whole.
    pub given_up: usize,
}

impl NackQueue {
    pub(super) const fn new() -> Self {
        Self { missing: Vec::new(), asked: Vec::new() }
    }

    /// The numbers from `first` up to and without `end` have not come. False when there were too many: all holes are
    /// forgotten then.
    pub(super) fn on_gap(&mut self, now: Instant, first: u64, end: u64) -> bool {
        let gap = usize::try_from(end.saturating_sub(first)).unwrap_or(usize::MAX);
        if gap == 0 {
            return true;
        }
        if self.missing.len().saturating_add(gap) > MAX_MISSING {
            self.missing.clear();
            return false;
        }
        if self.missing.capacity() == 0 {
            self.missing.reserve_exact(MAX_MISSING);
            self.asked.reserve_exact(MAX_MISSING);
        }
        self.missing.extend((first..end).map(|seq| Missing { seq, due: now, tries: 0 }));
        true
    }

    /// This one came after all.
    pub(super) fn on_arrived(&mut self, seq: u64) {
        if let Ok(at) = self.missing.binary_search_by_key(&seq, |missing| missing.seq) {
            self.missing.remove(at);
        }
    }

    pub(super) fn poll(&mut self, now: Instant, rtt: Option<Duration>) -> NackRound<'_> {
        let spacing = rtt.unwrap_or(DEFAULT_RTT).clamp(MIN_SPACING, MAX_SPACING);
        self.asked.clear();
        let before = self.missing.len();
        let asked = &mut self.asked;
        self.missing.retain_mut(|missing| {
            if missing.due > now {
                return true;
            }
            if missing.tries >= MAX_TRIES {
                return false;
            }
            asked.push(wire_u16(missing.seq));
            missing.due = now + backed_off(spacing, missing.tries);
            missing.tries += 1;
            true
        });
        NackRound { given_up: before - self.missing.len(), lost: &self.asked }
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.missing.iter().map(|missing| missing.due).min()
    }

    pub(super) fn clear(&mut self) {
        self.missing.clear();
    }
}

/// Spacing times 1.25 to the power of the requests so far, within the bounds.
fn backed_off(spacing: Duration, tries: u8) -> Duration {
    (0..tries).fold(spacing, |spacing, _| spacing * 5 / 4).clamp(MIN_SPACING, MAX_SPACING)
}
