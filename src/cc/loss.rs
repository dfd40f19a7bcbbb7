//! Loss: is it ours, or does the path lose packets whatever is sent.
//!
//! Radio links lose packets at any rate, shallow queues and policers lose them because too much is sent. Told apart by
//! trying: loss that is new caps the rate at what got through; when it goes on all the same, it is the path's own, the cap
//! goes, and only more loss than that counts from then on. Owned by [`super::estimator`].

use crate::cc::throughput::rate;

/// An observation is as long as this; single ones decide nothing.
const OBSERVATION_US: u64 = 250_000;
/// Observations judged together: one second.
const JUDGED: usize = 4;
/// Packets that must be in one; with fewer it goes on.
const LEAST_PACKETS: u32 = 10;
/// Loss above the path's own that is looked at, in thousandths.
const EXCESS: u32 = 60;
/// How long a cap is tried before it is judged.
const TRIAL_US: u64 = 1_200_000;
/// Growth of the cap while the loss is ours: 8 % a second.
const GROWTH_PERCENT_PER_SECOND: u64 = 8;
/// Of the runs of lost packets, one part in so many is forgotten in each observation: half in eight seconds.
const RUNS_FORGET: u32 = 48;
/// Longer runs are those of a queue that overflows, or of an outage.
const MOST_LENGTH: u64 = 16;
/// Between two cuts.
const CUT_SPACING_US: u64 = 500_000;

#[derive(Clone, Copy, Debug, Default)]
struct Observation {
    packets: u32,
    lost: u32,
    squares: u32,
    bytes: u64,
    us: u64,
}

/// Lost packets lately, forgotten slowly: those in runs say less than as many single ones.
#[derive(Clone, Copy, Debug, Default)]
struct Runs {
    lost: u32,
    squares: u32,
}

/// What the loss says.
#[derive(Clone, Debug, Default)]
pub(super) struct LossControl {
    current: Observation,
    since: Option<u64>,
    recent: [Observation; JUDGED],
    /// Of the path itself, in thousandths.
    inherent: u32,
    runs: Runs,
    cap: Option<u64>,
    trial: Option<Trial>,
    last_cut: u64,
}

/// What a report says of loss.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    /// Packets that arrived, and their bytes.
    pub(super) received: u32,
    pub(super) bytes: u64,
    pub(super) lost: u32,
    /// How many of them in a row, squared and summed up.
    pub(super) lost_squares: u32,
    /// Lost ones that came after all.
    pub(super) recovered: u32,
    /// What may be sent.
    pub(super) target: u64,
    /// There is a queue that accounts for it.
    pub(super) congested: bool,
}

#[derive(Clone, Copy, Debug)]
struct Trial {
    until: u64,
    /// Loss that led to it, in thousandths.
    loss: u32,
}

impl LossControl {
    /// A report came in.
    pub(super) fn on_report(&mut self, now_us: u64, report: &Report) {
        if report.congested {
            // The queue explains the loss, and who looks at the queue sees to it.
            self.since = None;
            self.current = Observation::default();
            self.recent = [Observation::default(); JUDGED];
            self.trial = None;
            return;
        }
        let since = *self.since.get_or_insert(now_us);
        self.current.packets += report.received + report.lost;
        self.current.lost = (self.current.lost + report.lost).saturating_sub(report.recovered);
        self.current.squares += report.lost_squares;
        self.current.bytes += report.bytes;
        let elapsed = now_us.saturating_sub(since);
        if elapsed < OBSERVATION_US || self.current.packets < LEAST_PACKETS {
            return;
        }
        self.current.us = elapsed;
        self.runs.add(self.current);
        self.recent.rotate_left(1);
        if let Some(last) = self.recent.last_mut() {
            *last = self.current;
        }
        self.current = Observation::default();
        self.since = Some(now_us);
        self.judge(now_us, elapsed, report.target);
    }

    fn judge(&mut self, now_us: u64, elapsed: u64, target: u64) {
        self.grow(elapsed);
        let (packets, loss, delivered) = self.last_second();
        if self.recent.first().is_some_and(|oldest| oldest.packets == 0) {
            return;
        }
        if let Some(trial) = self.trial {
            if now_us < trial.until {
                return;
            }
            self.trial = None;
            if (loss + self.deviation(packets)) * 10 >= trial.loss * 6 {
                // Less was sent, as much was lost: it is the path.
                self.inherent = self.inherent.max(loss);
                self.cap = None;
                return;
            }
        }
        let excess = loss.saturating_sub(self.inherent);
        if excess <= EXCESS.max(3 * self.deviation(packets)) {
            // What the path loses changes slowly.
            self.inherent = (self.inherent * 15 + loss) / 16;
            return;
        }
        if now_us < self.last_cut + CUT_SPACING_US {
            return;
        }
        if self.recent.iter().filter(|o| o.lost > 0).count() < 2 {
            return;
        }
        self.last_cut = now_us;
        let before = self.cap.unwrap_or(target).min(target);
        // What would be sent if only the excess was too much.
        let cut = (delivered * 1000 / u64::from(1000 - self.inherent.min(900))).clamp(before / 2, before * 9 / 10);
        self.cap = Some(cut);
        self.trial = Some(Trial { until: now_us + TRIAL_US, loss });
    }

    /// Standard deviation of the loss of so many packets on this path, in thousandths. Where losses come in runs there are
    /// fewer independent ones.
    fn deviation(&self, packets: u32) -> u32 {
        let variance = u64::from(self.inherent.max(20)) * 1000 * self.runs.length() / u64::from(packets.max(1));
        u32::try_from(variance.isqrt()).unwrap_or(1000)
    }

    /// The most that should be sent.
    pub(super) const fn cap(&self) -> Option<u64> {
        self.cap
    }

    /// Loss of the path itself, in thousandths.
    pub(super) const fn inherent(&self) -> u32 {
        self.inherent
    }

    /// It is being found out whose the loss is, or it is ours.
    pub(super) const fn is_limiting(&self) -> bool {
        self.trial.is_some()
    }

    /// Loss of the last second, in thousandths.
    pub(super) fn loss(&self) -> u32 {
        self.last_second().1
    }

    /// A probe got through at this rate: no cap below it.
    pub(super) fn on_probe(&mut self, proven: u64) {
        if self.cap.is_some_and(|cap| cap < proven) {
            self.cap = Some(proven);
        }
    }

    fn grow(&mut self, elapsed: u64) {
        let Some(cap) = self.cap else { return };
        if self.trial.is_some() {
            return;
        }
        let more = cap / 100 * GROWTH_PERCENT_PER_SECOND * elapsed.min(1_000_000) / 1_000_000;
        self.cap = Some(cap + more.max(1000));
    }

    fn last_second(&self) -> (u32, u32, u64) {
        let sum = self.recent.iter().fold(Observation::default(), |a, b| Observation {
            packets: a.packets + b.packets,
            lost: a.lost + b.lost,
            squares: a.squares + b.squares,
            bytes: a.bytes + b.bytes,
            us: a.us + b.us,
        });
        let loss = (sum.lost * 1000).checked_div(sum.packets).unwrap_or(0).min(1000);
        (sum.packets, loss, rate(sum.bytes, sum.us).unwrap_or(0))
    }
}

impl Runs {
    fn add(&mut self, observed: Observation) {
        let keep = |sum: u32| sum - sum.div_ceil(RUNS_FORGET);
        self.lost = keep(self.lost).saturating_add(observed.lost * RUNS_FORGET);
        self.squares = keep(self.squares).saturating_add(observed.squares * RUNS_FORGET);
    }

    /// How many packets count as one, at least one.
    fn length(self) -> u64 {
        u64::from(self.squares.checked_div(self.lost).unwrap_or(1)).clamp(1, MOST_LENGTH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    /// Runs `seconds`; the path loses `inherent` thousandths and all above `capacity`. The caps over time.
    fn run(inherent: u64, capacity: u64, seconds: u64, seed: u64) -> Vec<u64> {
        let mut control = LossControl::default();
        let mut rng = Rng::new(seed);
        let mut caps = Vec::new();
        for step in 1..seconds * 20 {
            let target = 2_000_000u64;
            let sending = control.cap().unwrap_or(target).min(target);
            let packets = sending / 20 / 8 / 1000;
            let through = capacity.min(sending);
            let (mut received, mut lost) = (0, 0);
            for _ in 0..packets {
                if rng.below(sending) >= through || rng.below(1000) < inherent { lost += 1 } else { received += 1 }
            }
            let bytes = u64::from(received) * 1000;
            let report = Report { received, bytes, lost, lost_squares: lost, recovered: 0, target, congested: false };
            control.on_report(step * 50_000, &report);
            caps.push(control.cap().unwrap_or(target));
        }
        caps
    }

    #[test]
    fn the_path_own_loss_costs_a_moment_only() {
        for seed in 0..20 {
            let caps = run(200, u64::MAX, 60, seed);
            let limited = caps.iter().filter(|cap| **cap < 1_800_000).count();
            assert!(limited < 120, "{limited} of 1200 with seed {seed}");
            assert!(run(50, u64::MAX, 60, seed).iter().filter(|cap| **cap < 1_800_000).count() < 120);
        }
    }

    #[test]
    fn loss_of_too_much_is_cut_and_stays_cut() {
        for seed in 0..20 {
            let caps = run(0, 1_000_000, 60, seed);
            let late = &caps[60..];
            let mean = late.iter().sum::<u64>() / late.len() as u64;
            assert!((800_000..1_200_000).contains(&mean), "{mean} with seed {seed}");
        }
    }
}
