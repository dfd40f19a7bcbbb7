//! What a subscriber's REMB (draft-alvestrand-rmcat-remb) says about its link, read as a ceiling.
//!
//! The receiver-side estimator behind REMB follows what it receives: on an idle path it stands a little above the rate
//! sent, and after a jump of that rate it needs half a minute to catch up. So a REMB below the rate sent means shortage
//! only when it falls, or stays where it is; while it rises nothing is short. Only for clients that give no transport-wide
//! feedback: [`super::estimator`] does better.

use core::time::Duration;

use crate::base::{Bitrate, Instant};

/// A REMB that stays below the rate sent without rising for this long is meant.
const FLAT: Duration = Duration::from_secs(2);
/// How long a ceiling holds before more is tried; doubled each time the try fails.
const HOLD: Duration = Duration::from_secs(10);
const HOLD_MOST: Duration = Duration::from_secs(120);

/// The ceiling of one transport.
#[derive(Clone, Copy, Debug)]
pub struct RembCeiling {
    last: Option<Bitrate>,
    flat_since: Option<Instant>,
    ceiling: Option<Bitrate>,
    hold: Duration,
    held_until: Instant,
}

impl Default for RembCeiling {
    fn default() -> Self {
        Self { last: None, flat_since: None, ceiling: None, hold: HOLD, held_until: Instant::ZERO }
    }
}

impl RembCeiling {
    /// A REMB came while `sent` was the rate sent to the transport.
    pub fn on_remb(&mut self, now: Instant, remb: Bitrate, sent: Bitrate) {
        let last = self.last.replace(remb).unwrap_or(remb);
        if let Some(ceiling) = &mut self.ceiling {
            // While it holds, it follows.
            *ceiling = remb;
        }
        if remb.as_bps() >= percent(sent, 90) {
            self.flat_since = None;
        } else if remb.as_bps() < percent(last, 97) {
            self.shortage(now, remb);
        } else if remb > last {
            self.flat_since = None;
        } else if now.since(*self.flat_since.get_or_insert(now)) >= FLAT {
            self.shortage(now, remb);
        }
    }

    /// What may be sent; `None`: nothing speaks against anything.
    pub fn ceiling(&mut self, now: Instant) -> Option<Bitrate> {
        if self.ceiling.is_some() && now >= self.held_until {
            self.ceiling = None;
            self.flat_since = None;
        }
        self.ceiling
    }

    fn shortage(&mut self, now: Instant, remb: Bitrate) {
        if self.ceiling.is_none() {
            let recent = now.since(self.held_until) < HOLD * 3 && self.held_until > Instant::ZERO;
            self.hold = if recent { (self.hold * 2).min(HOLD_MOST) } else { HOLD };
        }
        self.ceiling = Some(remb);
        self.held_until = now + self.hold;
        self.flat_since = None;
    }
}

const fn percent(rate: Bitrate, share: u64) -> u64 {
    rate.as_bps() / 100 * share
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kbps(n: u64) -> Bitrate {
        Bitrate::from_kbps(n)
    }

    #[test]
    fn a_rising_remb_below_the_rate_sent_is_only_slow() {
        let mut ceiling = RembCeiling::default();
        for second in 0..30u64 {
            let now = Instant::from_millis(second * 1000);
            ceiling.on_remb(now, kbps(300 + 20 * second), kbps(2000));
            assert_eq!(ceiling.ceiling(now), None, "{second}");
        }
    }

    #[test]
    fn a_falling_one_counts_at_once_and_for_ten_seconds() {
        let mut ceiling = RembCeiling::default();
        ceiling.on_remb(Instant::from_millis(1000), kbps(2000), kbps(1900));
        ceiling.on_remb(Instant::from_millis(2000), kbps(900), kbps(1900));
        assert_eq!(ceiling.ceiling(Instant::from_millis(2000)), Some(kbps(900)));
        ceiling.on_remb(Instant::from_millis(3000), kbps(1000), kbps(500));
        assert_eq!(ceiling.ceiling(Instant::from_millis(11_999)), Some(kbps(1000)));
        assert_eq!(ceiling.ceiling(Instant::from_millis(12_000)), None);
    }

    #[test]
    fn a_constant_one_below_the_rate_sent_counts_after_two_seconds_and_longer_each_time() {
        let mut ceiling = RembCeiling::default();
        let mut limited = Vec::new();
        for second in 0..60u64 {
            let now = Instant::from_millis(second * 1000);
            let sent = if ceiling.ceiling(now).is_some() { kbps(250) } else { kbps(1500) };
            ceiling.on_remb(now, kbps(300), sent);
            limited.push(ceiling.ceiling(now).is_some());
        }
        assert!(!limited[1] && limited[2]);
        let free = limited.iter().skip(2).filter(|l| !**l).count();
        assert!(free <= 8, "tries rarely: {free} of 58 s");
    }
}
