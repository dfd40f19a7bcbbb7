//! When to ask a publisher for a key frame of one encoding, however many subscribers want one.
//!
//! Wishes of subscribers (PLI, FIR) and of our own downtracks are one wish. Requests keep their distance; a wish that
//! came too early is kept until its time. One per encoding, owned by the track.

use core::time::Duration;

use crate::base::Instant;

/// What to ask a publisher for.
#[derive(Clone, Copy, Debug)]
pub struct KeyframeRequester {
    spacing: Duration,
    last_sent: Option<Instant>,
    last_keyframe: Option<Instant>,
    /// Somebody asked since the last key frame.
    asked: bool,
    /// A downtrack waits: ask again until it does not.
    waited_for: bool,
}

impl KeyframeRequester {
    /// Nothing asked. At most one request per `spacing` will be made.
    pub const fn new(spacing: Duration) -> Self {
        Self { spacing, last_sent: None, last_keyframe: None, asked: false, waited_for: false }
    }

    /// A subscriber asks, having heard what we sent until about `rtt` ago.
    pub fn ask(&mut self, now: Instant, rtt: Duration) {
        // A key frame that was still on its way when the request left answers it.
        if self.last_keyframe.is_none_or(|at| now.since(at) >= rtt.min(Duration::from_millis(300))) {
            self.asked = true;
        }
    }

    /// A downtrack waits for a key frame, or none does any more.
    pub const fn set_waited_for(&mut self, waited_for: bool) {
        self.waited_for = waited_for;
    }

    /// A key frame begins to arrive.
    pub const fn on_keyframe(&mut self, now: Instant) {
        self.last_keyframe = Some(now);
        self.asked = false;
    }

    /// When the last key frame began to arrive.
    pub const fn last_keyframe(&self) -> Option<Instant> {
        self.last_keyframe
    }

    /// When [`Self::poll`] would say yes; `rtt` is that of the publisher.
    pub fn due(&self, rtt: Duration) -> Option<Instant> {
        if !self.asked && !self.waited_for {
            return None;
        }
        let retry = (rtt * 2).clamp(Duration::from_millis(200), Duration::from_secs(1));
        let last = self.last_sent.map_or(Instant::ZERO, |at| at + self.spacing.max(retry));
        Some(last)
    }

    /// Whether to send a request now. Saying yes counts as sent.
    pub fn poll(&mut self, now: Instant, rtt: Duration) -> bool {
        if self.due(rtt).is_none_or(|due| due > now) {
            return false;
        }
        self.last_sent = Some(now);
        self.asked = false;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(50);

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn asks_at_once_and_then_keeps_its_distance_whatever_subscribers_do() {
        let mut requester = KeyframeRequester::new(Duration::from_millis(500));
        let mut sent = Vec::new();
        for ms in 1000..3000 {
            requester.ask(at(ms), RTT);
            if requester.poll(at(ms), RTT) {
                sent.push(ms);
            }
        }
        assert_eq!(sent, [1000, 1500, 2000, 2500]);
    }

    #[test]
    fn keeps_an_early_wish_until_its_time_unless_a_key_frame_answers_it() {
        let mut requester = KeyframeRequester::new(Duration::from_millis(500));
        requester.ask(at(1000), RTT);
        assert!(requester.poll(at(1000), RTT));
        requester.ask(at(1200), RTT);
        assert_eq!(requester.due(RTT), Some(at(1500)));
        requester.on_keyframe(at(1300));
        assert_eq!(requester.due(RTT), None);
    }

    #[test]
    fn ignores_a_request_that_crossed_its_key_frame() {
        let mut requester = KeyframeRequester::new(Duration::from_millis(500));
        requester.on_keyframe(at(1000));
        requester.ask(at(1030), RTT);
        assert!(!requester.poll(at(1030), RTT));
        requester.ask(at(1060), RTT);
        assert!(requester.poll(at(1060), RTT));
    }

    #[test]
    fn asks_again_while_a_downtrack_waits() {
        let mut requester = KeyframeRequester::new(Duration::from_millis(500));
        requester.set_waited_for(true);
        let sent = (0..2000).filter(|ms| requester.poll(at(*ms), RTT)).count();
        assert_eq!(sent, 4);
        requester.set_waited_for(false);
        assert_eq!(requester.due(RTT), None);
    }
}
