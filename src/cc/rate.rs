//! The delay-based target: additive and multiplicative increase, guarded decrease.
//!
//! The control law of libwebrtc's estimator with what a forwarder needs besides: what gets through is often just what
//! there is to forward, so it is not taken for the capacity unless a queue says so; and a decrease goes deeper the
//! longer the queue it has to drain. Owned by [`super::estimator`].

use core::time::Duration;

use crate::cc::delay::Usage;
use crate::cc::throughput::Rates;

/// Share of what got through that is left after overuse, in thousandths: with an empty queue, and at the least.
const BETA: u64 = 900;
const LEAST_BETA: u64 = 500;
/// Queueing delay that costs nothing of it; above, a thousandth each millisecond.
const DRAIN_FREE_US: i64 = 30_000;
/// Nothing is raised while more than this waits in a queue of ours. Higher uses more of the link and delays sound.
const CALM_QUEUE_US: i64 = 20_000;
/// A queue that has not been short for this long though much less is sent is somebody else's. To wait for it would be to
/// give up: it is lived with, and only loss counts until it is gone.
const FOREIGN_QUEUE_US: u64 = 2_000_000;
/// Much less, in percent of what was sent when it began; and what is gone back to.
const FOREIGN_DECREASE: u64 = 60;
const FOREIGN_RETURN: u64 = 40;
/// Beside others, loss above this slows down, in thousandths; once in this time.
const FOREIGN_LOSS: u32 = 20;
const FOREIGN_SPACING_US: u64 = 500_000;
/// A delay that went this much faster than what was sent before it was none of the path's queue, in percent; and what is
/// gone back to then.
const DRAIN_PERCENT: u64 = 200;
const AFTER_STALL_PERCENT: u64 = 95;
/// Decrease below what is application-limited needs a queue of this length.
const GUARD_QUEUE_US: i64 = 80_000;
/// A decrease to less than this share is remembered and tried again soon, in percent.
const REMEMBERED_DROP: u64 = 66;
/// Multiplicative increase, percent a second.
const GROWTH: u64 = 8;
/// The same where only media itself can show what gets through.
const BLIND_GROWTH: u64 = 40;
/// Near the capacity, percent a second at least.
const NEAR_GROWTH: u64 = 2;
/// What is sent beyond the target and gets through is believed from here on, in percent of the target.
const BEYOND_PERCENT: u64 = 150;
/// What got through at overuse is the capacity within this distance, in percent.
const NEAR: u64 = 12;

/// What a report says, put together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input {
    pub(super) now_us: u64,
    pub(super) usage: Usage,
    pub(super) slow: Option<Rates>,
    pub(super) fast: Option<Rates>,
    pub(super) queue_us: i64,
    pub(super) rtt: Duration,
    /// Less is sent than may be.
    pub(super) limited: bool,
    /// More is wanted, and nothing but media can be sent to find out whether it gets through.
    pub(super) blind: bool,
    /// A probe may have filled the queue.
    pub(super) shadow: bool,
    /// Mean unevenness of arrivals.
    pub(super) jitter_us: i64,
    /// Loss of the last second above the path's own, in thousandths.
    pub(super) loss: u32,
}

/// The controller.
#[derive(Clone, Debug)]
pub(super) struct Rate {
    target: u64,
    least: u64,
    most: u64,
    /// What got through when the queue grew.
    capacity: Option<u64>,
    last_decrease: Option<u64>,
    last_overuse: Option<u64>,
    last_update: Option<u64>,
    last_short_queue: u64,
    /// The target then.
    episode: u64,
    foreign: bool,
    before_drop: Option<u64>,
    holding: bool,
}

impl Rate {
    pub(super) const fn new(start: u64, least: u64, most: u64) -> Self {
        Self {
            target: start,
            least,
            most,
            capacity: None,
            last_decrease: None,
            last_overuse: None,
            last_update: None,
            last_short_queue: 0,
            episode: start,
            foreign: false,
            before_drop: None,
            holding: false,
        }
    }

    pub(super) const fn target(&self) -> u64 {
        self.target
    }

    pub(super) const fn last_overuse(&self) -> Option<u64> {
        self.last_overuse
    }

    /// The target before it dropped far, once.
    pub(super) const fn take_drop(&mut self) -> Option<u64> {
        self.before_drop.take()
    }

    /// The queue is not ours.
    pub(super) const fn is_foreign_queue(&self) -> bool {
        self.foreign
    }

    pub(super) fn on_report(&mut self, input: &Input) {
        let elapsed = input.now_us.saturating_sub(self.last_update.unwrap_or(input.now_us)).min(1_000_000);
        self.last_update = Some(input.now_us);
        let calm = input.queue_us <= CALM_QUEUE_US + input.jitter_us;
        if calm || self.last_short_queue == 0 {
            self.last_short_queue = input.now_us;
            self.episode = self.target;
            self.foreign = false;
        } else if !self.foreign
            && input.now_us.saturating_sub(self.last_short_queue) > FOREIGN_QUEUE_US
            && self.target < self.episode * FOREIGN_DECREASE / 100
        {
            self.foreign = true;
            self.target = self.target.max(self.episode * FOREIGN_RETURN / 100);
        }
        if self.foreign {
            self.compete(input, elapsed);
            self.clamp();
            return;
        }
        if let (Some(capacity), Some(rates)) = (self.capacity, input.slow)
            && rates.acked() > capacity + capacity * NEAR / 100
        {
            self.capacity = None;
        }
        match input.usage {
            Usage::Over => self.overuse(input),
            Usage::Under => self.holding = true,
            Usage::Normal => {
                if calm {
                    self.believe(input);
                }
                if !core::mem::take(&mut self.holding) && calm && (!input.limited || input.blind) && !input.shadow {
                    self.increase(input, elapsed);
                }
            }
        }
        self.clamp();
    }

    /// A probe got through at this rate.
    pub(super) fn on_probe(&mut self, proven: u64) {
        if proven > self.target {
            self.target = proven;
            if self.capacity.is_some_and(|capacity| proven > capacity + capacity * NEAR / 100) {
                self.capacity = None;
            }
        }
        self.clamp();
    }

    /// A delay has gone, and packets arrived at this rate while it went. If that is far more than was sent before it came,
    /// it was no queue on the path: back to what was.
    pub(super) fn on_drained(&mut self, drained: u64) {
        if self.target >= self.episode || drained < self.episode * DRAIN_PERCENT / 100 {
            return;
        }
        self.target = self.target.max(self.episode * AFTER_STALL_PERCENT / 100);
        self.capacity = None;
        self.last_overuse = None;
        self.before_drop = None;
        self.clamp();
    }

    /// Nothing is heard: send less.
    pub(super) fn on_silence(&mut self, floor: u64) {
        self.before_drop = Some(self.before_drop.unwrap_or(self.target));
        self.target = (self.target / 2).max(floor.min(self.target));
        self.clamp();
    }

    fn overuse(&mut self, input: &Input) {
        if input.shadow && input.queue_us < 100_000 {
            return;
        }
        // Uneven arrivals look like a growing queue, but none is there.
        let queue_free = if input.limited { 15_000 + 2 * input.jitter_us } else { 5_000 + input.jitter_us };
        if input.queue_us < queue_free {
            return;
        }
        self.last_overuse = Some(input.now_us);
        self.holding = true;
        let spacing = input.rtt.clamp(Duration::from_millis(10), Duration::from_millis(200));
        let spacing = u64::try_from(spacing.as_micros()).unwrap_or(200_000);
        let due = self.last_decrease.is_none_or(|last| input.now_us.saturating_sub(last) >= spacing);
        let Some(rates) = input.fast.or(input.slow) else {
            if self.last_decrease.is_none_or(|last| input.now_us.saturating_sub(last) >= 200_000) {
                self.decrease_to(input.now_us, self.target / 2);
            }
            return;
        };
        let acked = rates.received.min(input.slow.map_or(u64::MAX, |slow| slow.received.saturating_mul(2)));
        if !due && acked >= self.target / 2 {
            return;
        }
        let limited = acked < self.target * 8 / 10;
        let uneven = u64::try_from(input.jitter_us / 500).unwrap_or(0).min(30);
        if limited && rates.capture_percent() + uneven >= 95 && input.queue_us < GUARD_QUEUE_US {
            // All that is sent gets through: nothing says that more would not.
            let guarded = acked.max(self.target * BETA / 1000);
            self.decrease_to(input.now_us, guarded);
            return;
        }
        let drain = u64::try_from((input.queue_us - DRAIN_FREE_US) / 1000).unwrap_or(0);
        let beta = BETA.saturating_sub(drain).max(LEAST_BETA);
        self.learn(acked);
        let mut cut = (acked.saturating_mul(beta) / 1000).saturating_sub(5_000);
        if cut >= self.target {
            cut = self.capacity.map_or(cut, |capacity| capacity * beta / 1000);
        }
        self.decrease_to(input.now_us, cut);
    }

    /// Beside a flow that keeps the queue filled.
    fn compete(&mut self, input: &Input, elapsed_us: u64) {
        if input.loss > FOREIGN_LOSS {
            if self.last_decrease.is_none_or(|last| input.now_us.saturating_sub(last) >= FOREIGN_SPACING_US) {
                self.last_overuse = Some(input.now_us);
                self.decrease_to(input.now_us, self.target * BETA / 1000);
            }
        } else if !input.limited {
            self.capacity = None;
            self.increase(input, elapsed_us);
        }
    }

    fn decrease_to(&mut self, now_us: u64, target: u64) {
        if target >= self.target {
            return;
        }
        if target < self.target * REMEMBERED_DROP / 100 {
            self.before_drop = Some(self.before_drop.map_or(self.target, |before| before.max(self.target)));
        }
        self.target = target;
        self.last_decrease = Some(now_us);
    }

    fn learn(&mut self, acked: u64) {
        self.capacity = Some(match self.capacity {
            Some(capacity) if acked.abs_diff(capacity) <= capacity * NEAR / 100 => (capacity * 19 + acked) / 20,
            _ => acked,
        });
    }

    /// Sound and the lowest layers are sent whatever the target. What came through as fast as it was sent, and left no
    /// queue, is proven as by a probe.
    fn believe(&mut self, input: &Input) {
        if let (Some(slow), Some(fast)) = (input.slow, input.fast)
            && input.loss == 0
        {
            let proven = slow.acked().min(fast.acked());
            // Less than that is within what the control law finds by itself, more gently.
            if proven > self.target * BEYOND_PERCENT / 100 {
                self.on_probe(proven);
            }
        }
    }

    fn increase(&mut self, input: &Input, elapsed_us: u64) {
        let Some(rates) = input.slow else { return };
        let cap = rates.acked() * 3 / 2 + 10_000;
        let near = self.capacity.is_some_and(|capacity| self.target > capacity * (100 - NEAR) / 100);
        let more = if near {
            // One packet of 1000 bytes in twice the time until its effect is seen.
            let response = u64::try_from(input.rtt.as_millis()).unwrap_or(u64::MAX).saturating_add(100) * 2;
            (8_000_000 / response.max(1)).max(self.target / 100 * NEAR_GROWTH)
        } else {
            self.target * if input.blind { BLIND_GROWTH } else { GROWTH } / 100
        };
        let raised = self.target + (more * elapsed_us / 1_000_000).max(1);
        self.target = if input.blind { raised } else { raised.min(cap.max(self.target)) };
    }

    fn clamp(&mut self) {
        self.target = self.target.clamp(self.least, self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(ms: u64, usage: Usage, acked: u64) -> Input {
        let rates = Rates { received: acked, sent: acked };
        Input {
            now_us: ms * 1000,
            usage,
            slow: Some(rates),
            fast: Some(rates),
            queue_us: 30_000,
            rtt: Duration::from_millis(100),
            limited: false,
            blind: false,
            shadow: false,
            jitter_us: 0,
            loss: 0,
        }
    }

    #[test]
    fn grows_eight_percent_a_second_where_nothing_is_known() {
        let mut rate = Rate::new(300_000, 30_000, 20_000_000);
        let mut ms = 0;
        while rate.target() < 2_500_000 {
            let acked = rate.target();
            rate.on_report(&Input { queue_us: 0, ..input(ms, Usage::Normal, acked) });
            ms += 50;
        }
        assert!((26_000..29_000).contains(&ms), "{ms}");
    }

    #[test]
    fn three_overuses_within_a_round_trip_are_one_decrease() {
        let mut rate = Rate::new(1_000_000, 30_000, 20_000_000);
        rate.on_report(&Input { queue_us: 90_000, ..input(1000, Usage::Over, 1_000_000) });
        let once = rate.target();
        assert_eq!(once, 835_000, "less 60 ms of queue");
        rate.on_report(&Input { queue_us: 90_000, ..input(1050, Usage::Over, 1_000_000) });
        assert_eq!(rate.target(), once);
    }

    #[test]
    fn a_stall_costs_little() {
        let mut rate = Rate::new(1_000_000, 30_000, 20_000_000);
        rate.on_report(&Input { queue_us: 0, ..input(1000, Usage::Normal, 900_000) });
        rate.on_report(&Input { queue_us: 200_000, ..input(1100, Usage::Over, 200_000) });
        let cut = rate.target();
        assert!(cut < 200_000, "{cut}");
        rate.on_drained(1_200_000);
        assert_eq!(rate.target(), cut, "as fast as a queue empties");
        rate.on_drained(30_000_000);
        assert_eq!(rate.target(), 950_000);
    }

    #[test]
    fn a_false_alarm_does_not_take_little_traffic_for_the_capacity() {
        let mut rate = Rate::new(2_000_000, 30_000, 20_000_000);
        for n in 0..5 {
            rate.on_report(&Input { limited: true, ..input(1000 + n * 300, Usage::Over, 130_000) });
        }
        assert!(rate.target() > 800_000, "{}", rate.target());
    }

    #[test]
    fn a_long_queue_makes_room_and_a_far_drop_is_remembered() {
        let mut rate = Rate::new(3_000_000, 30_000, 20_000_000);
        rate.on_report(&Input { queue_us: 300_000, ..input(1000, Usage::Over, 500_000) });
        assert!((280_000..320_000).contains(&rate.target()), "{}", rate.target());
        assert_eq!(rate.take_drop(), Some(3_000_000));
        assert_eq!(rate.take_drop(), None);
    }

    #[test]
    fn grows_beyond_what_is_sent_where_only_media_can_show_what_gets_through() {
        let mut rate = Rate::new(600_000, 30_000, 20_000_000);
        for n in 0..60 {
            rate.on_report(&Input { limited: true, blind: true, queue_us: 0, ..input(n * 50, Usage::Normal, 150_000) });
        }
        assert!(rate.target() > 1_500_000, "{}", rate.target());
    }

    #[test]
    fn believes_what_was_sent_beyond_the_target_and_came_through() {
        let mut rate = Rate::new(600_000, 30_000, 30_000_000);
        rate.on_report(&Input { queue_us: 100_000, ..input(1000, Usage::Normal, 20_000_000) });
        assert_eq!(rate.target(), 600_000, "there is a queue");
        rate.on_report(&Input { queue_us: 0, ..input(1050, Usage::Normal, 20_000_000) });
        assert!(rate.target() >= 20_000_000, "{}", rate.target());
    }

    #[test]
    fn does_not_grow_on_what_it_has_not_tried() {
        let mut rate = Rate::new(1_000_000, 30_000, 20_000_000);
        for n in 0..100 {
            rate.on_report(&Input { limited: true, queue_us: 0, ..input(n * 50, Usage::Normal, 300_000) });
        }
        assert_eq!(rate.target(), 1_000_000);
    }
}
