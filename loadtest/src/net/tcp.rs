//! A greedy TCP flow as the queue of a bottleneck sees it: NewReno with slow start, one cut for each round trip with
//! losses. It has no bytes of its own; the link asks how many packets it would send now.

use std::collections::BTreeSet;

/// Packets in flight when it begins.
const FIRST_WINDOW: f64 = 10.0;
const LEAST_WINDOW: f64 = 2.0;

/// One flow.
#[derive(Debug)]
pub(super) struct Tcp {
    window: f64,
    threshold: f64,
    in_flight: f64,
    /// Losses before this belong to the last cut.
    recovers: u64,
    /// What its sender learns and when: time, a number to tell them apart, whether the packet arrived.
    news: BTreeSet<(u64, u64, bool)>,
    count: u64,
}

impl Default for Tcp {
    fn default() -> Self {
        Self {
            window: FIRST_WINDOW,
            threshold: f64::INFINITY,
            in_flight: 0.0,
            recovers: 0,
            news: BTreeSet::new(),
            count: 0,
        }
    }
}

impl Tcp {
    /// Bytes of each of its packets, headers included.
    pub(super) const PACKET: usize = 1500;

    /// How many packets it sends at `now`, given the longest round trip. Microseconds.
    pub(super) fn due(&mut self, now: u64, round_trip: u64) -> u32 {
        while let Some((at, _, arrived)) = self.news.first().copied()
            && at <= now
        {
            self.news.pop_first();
            self.in_flight -= 1.0;
            if arrived {
                self.window += if self.window < self.threshold { 1.0 } else { 1.0 / self.window };
            } else if now > self.recovers {
                self.window = (self.window / 2.0).max(LEAST_WINDOW);
                self.threshold = self.window;
                self.recovers = now + round_trip;
            }
        }
        let mut room = 0;
        while self.in_flight + f64::from(room) < self.window {
            room += 1;
        }
        room
    }

    /// One was sent; when the queue did not take it, its sender knows at `known`.
    pub(super) fn on_sent(&mut self, taken: bool, known: u64) {
        self.in_flight += 1.0;
        if !taken {
            self.learns(known, false);
        }
    }

    /// One arrived, and its sender knows at `known`.
    pub(super) fn on_delivered(&mut self, known: u64) {
        self.learns(known, true);
    }

    fn learns(&mut self, at: u64, arrived: bool) {
        self.count += 1;
        self.news.insert((at, self.count, arrived));
    }
}
