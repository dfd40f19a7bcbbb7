//! Probes: short bursts of more than the target, to find out whether more gets through.
//!
//! A forwarder cannot send more media than there is, so it fills up with padding for a few hundredths of a second and
//! sees at which rate that arrives. Planned here, padding is sent by the shard, [`super::estimator`] says when each packet
//! left and arrived. A probe that fails lowers nothing.

use core::time::Duration;

use crate::cc::sent::NO_CLUSTER;
use crate::cc::throughput::{bytes_in, rate};

/// How long a probe lasts. Shorter takes jitter for capacity, longer fills queues: at twice what fits, a probe delays
/// everything by its own length.
const DURATION: Duration = Duration::from_millis(25);
/// The first ones know nothing of the path and may be ten times too large.
const FIRST_DURATION: Duration = Duration::from_millis(15);
/// The longest, where packets arrive unevenly.
const MOST_DURATION: Duration = Duration::from_millis(100);
/// Packets of a probe, where they are as small as they should be; fewer than the lesser number say nothing.
const PACKETS: u32 = 8;
const LEAST_PACKETS: u32 = 5;
/// While more is needed: between two probes, and at most after failures.
const INTERVAL_US: u64 = 2_500_000;
const MOST_INTERVAL_US: u64 = 4_000_000;
/// After a far drop, no sooner than this one after the other.
const RECOVER_SPACING_US: u64 = 5_000_000;
/// After overuse, at least.
const CALM_US: u64 = 1_000_000;
/// A queue longer than this leaves no room to see anything.
const CALM_QUEUE_US: i64 = 15_000;
/// Not sent after this time: nothing to send it with.
const PATIENCE_US: u64 = 60_000;
/// Padding is handed out this far ahead: timers are not finer.
const AHEAD: Duration = Duration::from_millis(2);
/// The highest goal of the first probes.
const MOST_FIRST_GOAL: u64 = 5_000_000;

/// What a plan goes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Situation {
    pub(super) now_us: u64,
    pub(super) target: u64,
    /// All that would be sent if there were room.
    pub(super) needed: u64,
    /// The queue grows, or loss is being judged, or nothing is heard.
    pub(super) blocked: bool,
    pub(super) queue_us: i64,
    pub(super) last_overuse: Option<u64>,
    pub(super) rtt: Duration,
    pub(super) jitter: Duration,
}

/// A burst on the road.
#[derive(Clone, Copy, Debug)]
struct Cluster {
    id: u8,
    goal: u64,
    duration: Duration,
    opened: u64,
    sent: Span,
    last_seq: u64,
    closed: Option<u64>,
    arrived: Span,
    first_arrival: Option<i64>,
    lost: u32,
}

/// Packets over a time.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    packets: u32,
    bytes: u64,
    first: u64,
    last: u64,
    first_size: u16,
    last_size: u16,
}

impl Span {
    fn add(&mut self, at: u64, size: u16) {
        if self.packets == 0 {
            self.first = at;
            self.first_size = size;
        }
        self.packets += 1;
        self.bytes += u64::from(size);
        self.last = at;
        self.last_size = size;
    }
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// This much gets through, and this was tried.
    Proven(u64, u64),
    /// Nothing was learnt.
    Void,
}

/// Plans probes, one at a time.
#[derive(Clone, Debug)]
pub(super) struct Prober {
    cluster: Option<Cluster>,
    next_id: u8,
    /// Goal of the next of the first probes; `None` when these are over.
    first_goal: Option<u64>,
    /// The target before a far drop.
    recover: Option<u64>,
    last_recovery: Option<u64>,
    /// No probe before this.
    not_before: u64,
    interval: u64,
    was_deficient: bool,
}

impl Prober {
    pub(super) const fn new(start: u64) -> Self {
        Self {
            cluster: None,
            next_id: NO_CLUSTER,
            first_goal: Some(start * 3),
            recover: None,
            last_recovery: None,
            not_before: 0,
            interval: INTERVAL_US,
            was_deficient: false,
        }
    }

    /// The cluster packets belong to now.
    pub(super) fn tag(&self) -> u8 {
        self.cluster.filter(|cluster| cluster.closed.is_none()).map_or(NO_CLUSTER, |cluster| cluster.id)
    }

    /// The cluster whose packets are still reported on.
    pub(super) fn pending(&self) -> u8 {
        self.cluster.map_or(NO_CLUSTER, |cluster| cluster.id)
    }

    /// The rate of a probe being sent.
    pub(super) fn sending(&self) -> Option<u64> {
        self.cluster.filter(|cluster| cluster.closed.is_none()).map(|cluster| cluster.goal)
    }

    /// A probe may have filled the queue until now.
    pub(super) fn shadow(&self, now_us: u64, rtt: Duration) -> bool {
        self.cluster.is_some_and(|cluster| {
            let since = now_us.saturating_sub(cluster.opened);
            Duration::from_micros(since) < cluster.duration + rtt + Duration::from_millis(150)
        })
    }

    /// The target fell far from this.
    pub(super) const fn on_drop(&mut self, before: u64) {
        self.recover = Some(before);
    }

    /// More or less is needed: what failed before says nothing about it.
    pub(super) const fn on_demand(&mut self) {
        self.not_before = 0;
        self.interval = INTERVAL_US;
    }

    pub(super) fn abort(&mut self) {
        self.cluster = None;
    }

    pub(super) fn on_sent(&mut self, now_us: u64, seq: u64, size: u16) {
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.closed.is_none()) else { return };
        cluster.sent.add(now_us, size);
        cluster.last_seq = seq;
        if cluster.is_complete(now_us) {
            cluster.closed = Some(now_us);
        }
    }

    pub(super) fn on_arrived(&mut self, id: u8, arrival: i64, size: u16) {
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.id == id) else { return };
        let first = *cluster.first_arrival.get_or_insert(arrival);
        cluster.arrived.add(u64::try_from(arrival - first).unwrap_or(0), size);
    }

    /// So many packets of the pending cluster are lost.
    pub(super) fn on_lost(&mut self, lost: u32) {
        if let Some(cluster) = &mut self.cluster {
            cluster.lost += lost;
        }
    }

    /// Bytes of padding wanted now.
    pub(super) fn padding(&mut self, now_us: u64) -> usize {
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.closed.is_none()) else { return 0 };
        if now_us.saturating_sub(cluster.opened) > PATIENCE_US && !cluster.is_complete(now_us) {
            cluster.closed = Some(now_us);
            return 0;
        }
        let begun = if cluster.sent.packets == 0 { now_us } else { cluster.sent.first };
        let elapsed = Duration::from_micros(now_us.saturating_sub(begun)) + AHEAD;
        let wanted = bytes_in(cluster.goal, elapsed.min(cluster.duration + AHEAD));
        usize::try_from(wanted.saturating_sub(cluster.sent.bytes)).unwrap_or(0)
    }

    /// Of what size packets of padding should be, headers and all, so that enough of them fit into the probe.
    pub(super) fn packet_size(&self) -> usize {
        let size = self.cluster.map_or(0, |cluster| bytes_in(cluster.goal, cluster.duration) / u64::from(PACKETS));
        usize::try_from(size).unwrap_or(usize::MAX)
    }

    /// Begin what is due. `next` is the number of the next packet.
    pub(super) fn plan(&mut self, s: &Situation, next: u64) {
        if self.cluster.is_some() {
            return;
        }
        let deficient = s.target < s.needed + s.needed / 10;
        if deficient != self.was_deficient {
            self.was_deficient = deficient;
            self.interval = INTERVAL_US;
        }
        if s.blocked {
            return;
        }
        let goal = if let Some(goal) = self.first_goal {
            Some((goal.min(MOST_FIRST_GOAL), FIRST_DURATION))
        } else if s.queue_us > CALM_QUEUE_US + signed_us(s.jitter) {
            None
        } else if let Some(before) = self.due_recovery(s) {
            Some((before * 85 / 100, DURATION))
        } else if deficient && self.is_calm(s) && s.now_us >= self.not_before {
            let most = (s.needed + s.needed / 5).max(s.target + s.target / 5);
            Some(((s.target * 2).min(most), DURATION))
        } else {
            None
        };
        let Some((goal, duration)) = goal else { return };
        self.next_id = if self.next_id == u8::MAX { 1 } else { self.next_id + 1 };
        self.cluster = Some(Cluster {
            id: self.next_id,
            goal,
            duration: (duration + s.jitter * 2).min(MOST_DURATION),
            opened: s.now_us,
            sent: Span::default(),
            last_seq: next,
            closed: None,
            arrived: Span::default(),
            first_arrival: None,
            lost: 0,
        });
    }

    fn is_calm(&self, s: &Situation) -> bool {
        let calm = CALM_US.max(u64::try_from(s.rtt.as_micros()).unwrap_or(0).saturating_mul(5));
        s.last_overuse.is_none_or(|last| s.now_us.saturating_sub(last) >= calm)
    }

    fn due_recovery(&mut self, s: &Situation) -> Option<u64> {
        let before = self.recover?;
        if self.last_recovery.is_some_and(|last| s.now_us.saturating_sub(last) < RECOVER_SPACING_US) {
            self.recover = None;
            return None;
        }
        let settled = s.last_overuse.is_none_or(|last| s.now_us.saturating_sub(last) >= 500_000);
        if !settled {
            return None;
        }
        self.recover = None;
        self.last_recovery = Some(s.now_us);
        let before = before.min(s.target.saturating_mul(4)).min(s.needed.saturating_mul(2).max(s.target));
        (before * 85 / 100 > s.target).then_some(before)
    }

    /// A report has been read up to number `seen`. How the probe ended, once it has.
    pub(super) fn conclude(
        &mut self,
        now_us: u64,
        seen: u64,
        inherent: u32,
        target: u64,
        needed: u64,
    ) -> Option<Outcome> {
        let cluster = self.cluster?;
        let closed = cluster.closed?;
        let all_here = cluster.arrived.packets >= cluster.sent.packets;
        let waited = now_us.saturating_sub(closed) > 1_000_000;
        if !all_here && !waited && seen <= cluster.last_seq {
            return None;
        }
        self.cluster = None;
        let outcome = cluster.outcome(inherent);
        let proven = match outcome {
            Outcome::Proven(proven, _) => proven,
            Outcome::Void => 0,
        };
        let good = proven > cluster.goal * 7 / 10;
        if let Some(goal) = self.first_goal {
            let enough = target.max(proven) >= needed + needed / 5 && goal >= 3_000_000;
            self.first_goal = (good && !enough && goal < MOST_FIRST_GOAL).then_some(goal * 2);
            self.not_before = now_us + 1_000_000;
            return Some(outcome);
        }
        if good {
            self.interval = INTERVAL_US;
            self.not_before = now_us;
        } else {
            self.not_before = now_us + self.interval;
            self.interval = (self.interval * 3 / 2).min(MOST_INTERVAL_US);
        }
        Some(outcome)
    }
}

impl Cluster {
    fn is_complete(&self, now_us: u64) -> bool {
        self.sent.packets >= LEAST_PACKETS
            && self.sent.bytes >= bytes_in(self.goal, self.duration)
            && now_us.saturating_sub(self.sent.first) * 10 >= u64::try_from(self.duration.as_micros()).unwrap_or(0) * 8
    }

    fn outcome(&self, inherent: u32) -> Outcome {
        let here = u64::from(self.arrived.packets) * 1000;
        // What the path loses at any rate is not held against it.
        let share = 800 * u64::from(1000 - inherent.min(500)) / 1000;
        if self.arrived.packets < LEAST_PACKETS || here < u64::from(self.sent.packets) * share {
            return Outcome::Void;
        }
        let sent_us = self.sent.last - self.sent.first;
        let Some(sent) = rate(self.sent.bytes - u64::from(self.sent.last_size), sent_us) else {
            return Outcome::Void;
        };
        let bytes = self.arrived.bytes - u64::from(self.arrived.first_size);
        // Lost packets took their time on the road.
        let bytes = bytes * u64::from(self.sent.packets) / u64::from(self.arrived.packets.max(1));
        let Some(received) = rate(bytes, self.arrived.last) else { return Outcome::Void };
        if sent < self.goal * 8 / 10 || received > sent * 2 || sent_us > 1_000_000 {
            return Outcome::Void;
        }
        let low = received < sent * 9 / 10;
        let proven = if low { received * 95 / 100 } else { sent.min(received).min(self.goal) };
        Outcome::Proven(proven, self.goal)
    }
}

fn signed_us(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn situation(now_us: u64, target: u64, needed: u64) -> Situation {
        Situation {
            now_us,
            target,
            needed,
            blocked: false,
            queue_us: 0,
            last_overuse: None,
            rtt: Duration::from_millis(50),
            jitter: Duration::ZERO,
        }
    }

    /// Sends the probe that is open with packets of `size`, over a path of `capacity`. The outcome.
    fn play(prober: &mut Prober, start: u64, size: u16, capacity: u64) -> Option<Outcome> {
        let (mut now, mut seq, mut free) = (start, 1000u64, 0u64);
        let mut packets = Vec::new();
        while prober.tag() != NO_CLUSTER && now < start + 100_000 {
            while prober.padding(now) > 0 && prober.tag() != NO_CLUSTER {
                prober.on_sent(now, seq, size);
                free = free.max(now) + u64::from(size) * 8_000_000 / capacity;
                packets.push(free + 25_000);
                seq += 1;
            }
            now += 2_000;
        }
        let id = prober.pending();
        for arrival in packets {
            prober.on_arrived(id, i64::try_from(arrival).unwrap_or(0), size);
        }
        prober.conclude(now + 100_000, seq, 0, 600_000, 3_000_000)
    }

    #[test]
    fn the_first_ones_double_until_they_fail() {
        let mut prober = Prober::new(600_000);
        prober.plan(&situation(1_000_000, 600_000, 3_000_000), 1000);
        assert_eq!(prober.sending(), Some(1_800_000));
        let outcome = play(&mut prober, 1_000_000, 500, 20_000_000);
        assert!(matches!(outcome, Some(Outcome::Proven(1_600_000..=1_800_000, _))), "{outcome:?}");
        prober.plan(&situation(1_200_000, 1_700_000, 3_000_000), 1000);
        assert_eq!(prober.sending(), Some(3_600_000));
        let outcome = play(&mut prober, 1_200_000, 500, 2_000_000);
        assert!(matches!(outcome, Some(Outcome::Proven(1_700_000..=2_100_000, _))), "{outcome:?}");
        prober.plan(&situation(1_300_000, 2_000_000, 3_000_000), 1000);
        assert_eq!(prober.sending(), None, "not at once after a failure");
        prober.plan(&situation(2_500_000, 2_000_000, 3_000_000), 1000);
        assert_eq!(prober.sending(), Some(3_600_000));
    }

    #[test]
    fn one_starved_of_bytes_says_nothing() {
        let mut prober = Prober::new(600_000);
        prober.plan(&situation(1_000_000, 600_000, 3_000_000), 1000);
        for n in 0..10 {
            prober.on_sent(1_000_000 + n * 8_000, 1000 + n, 16);
        }
        assert_eq!(prober.padding(1_070_000), 0, "given up");
        let id = prober.pending();
        (0..10).for_each(|n| prober.on_arrived(id, n * 8_000, 16));
        assert_eq!(prober.conclude(1_200_000, 1011, 0, 600_000, 3_000_000), Some(Outcome::Void));
    }

    #[test]
    fn nothing_is_probed_for_when_there_is_enough() {
        let mut prober = Prober { first_goal: None, ..Prober::new(600_000) };
        prober.plan(&situation(1_000_000, 600_000, 300_000), 1);
        assert_eq!(prober.sending(), None);
        prober.plan(&Situation { blocked: true, ..situation(1_000_000, 600_000, 900_000) }, 1);
        assert_eq!(prober.sending(), None);
        prober.plan(&situation(1_000_000, 600_000, 900_000), 1);
        assert_eq!(prober.sending(), Some(1_080_000));
    }
}
