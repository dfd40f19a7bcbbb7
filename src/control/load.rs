//! How much of what this node can do it does: one figure from 0 to 1, with what it comes from and its last hour.
//!
//! Fed with what media threads report about once a second, asked by whoever makes rooms and by those who watch. Rooms
//! that run are never touched by it: only new ones go elsewhere when there is no head-room.

use std::collections::VecDeque;
#[expect(clippy::disallowed_types, reason = "held for a few instructions, by tasks that count and ask")]
use std::sync::Mutex;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::config::LimitConfig;
use crate::mailbox::ThreadStats;

/// Time over which load is smoothed: a short burst is no reason to send anybody away.
const SMOOTH: f64 = 10.0;
/// One point of the history.
const STEP: Duration = Duration::from_secs(10);
/// Points of the history: an hour.
const POINTS: usize = 360;
/// A media thread that has not reported for this long is ill.
const SILENT: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
#[expect(clippy::disallowed_types, reason = "see the import")]
pub(super) struct Load {
    limits: LimitConfig,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    threads: Vec<Thread>,
    /// Of the node: a room may be on several threads.
    rooms: u32,
    history: VecDeque<Point>,
    next_point: Instant,
}

/// A media thread as last reported.
#[derive(Clone, Copy, Debug)]
struct Thread {
    heard: Instant,
    reported: bool,
    busy: f64,
    turn_nanos: u64,
    sent: u64,
    received: u64,
    out_bytes: f64,
    in_bytes: f64,
    tracks: u32,
    participants: u32,
}

/// What was at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    /// Unix seconds.
    pub(super) at: u64,
    pub(super) load: f64,
    pub(super) participants: u32,
    pub(super) rooms: u32,
    /// Bits per second.
    pub(super) received: f64,
    /// Bits per second.
    pub(super) sent: f64,
}

/// The figure and what it comes from.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figure {
    pub(super) load: f64,
    /// Name and share.
    pub(super) parts: [(&'static str, f64); 5],
    pub(super) threads: Vec<f64>,
}

impl Load {
    /// Nothing to do yet.
    #[expect(clippy::disallowed_types, reason = "see the import")]
    pub(super) fn new(limits: LimitConfig, threads: usize, now: Instant) -> Self {
        let thread = Thread {
            heard: now,
            reported: false,
            busy: 0.0,
            turn_nanos: 0,
            sent: 0,
            received: 0,
            out_bytes: 0.0,
            in_bytes: 0.0,
            tracks: 0,
            participants: 0,
        };
        let state = State {
            threads: vec![thread; threads],
            rooms: 0,
            history: VecDeque::with_capacity(POINTS),
            next_point: now,
        };
        Self { limits, state: Mutex::new(state) }
    }

    /// A media thread reports. `unix`: seconds.
    pub(super) fn observe(&self, thread: usize, stats: &ThreadStats, now: Instant, unix: u64) {
        let mut state = self.state();
        let Some(it) = state.threads.get_mut(thread) else { return };
        let elapsed = now.saturating_duration_since(it.heard).as_secs_f64();
        if elapsed > 0.0 && it.reported {
            // A shard that began anew counts from zero: that second is not known.
            let rate = |new: u64, old: u64| per_second(new.saturating_sub(old), elapsed);
            let share = 1.0 - (-elapsed / SMOOTH).exp();
            let busy = (rate(stats.turns.sum_nanos, it.turn_nanos) / 1e9).min(1.0);
            it.busy += (busy - it.busy) * share;
            it.out_bytes += (rate(stats.shard.bytes_sent, it.sent) - it.out_bytes) * share;
            it.in_bytes += (rate(stats.shard.bytes_received, it.received) - it.in_bytes) * share;
        }
        let shard = &stats.shard;
        (it.heard, it.reported) = (now, true);
        (it.turn_nanos, it.sent, it.received) = (stats.turns.sum_nanos, shard.bytes_sent, shard.bytes_received);
        (it.tracks, it.participants) = (shard.tracks + shard.downtracks, shard.participants);
        if state.next_point <= now {
            state.next_point = now + STEP;
            let point = state.point(&self.limits, unix);
            if state.history.len() == POINTS {
                state.history.pop_front();
            }
            state.history.push_back(point);
        }
    }

    /// How many rooms there are now.
    pub(super) fn set_rooms(&self, rooms: usize) {
        self.state().rooms = u32::try_from(rooms).unwrap_or(u32::MAX);
    }

    /// The figure now.
    pub(super) fn figure(&self) -> Figure {
        self.state().figure(&self.limits)
    }

    /// What a further room would exceed, if anything.
    pub(super) fn exhausted(&self) -> Option<&'static str> {
        if self.limits.max_load == 0 {
            return None;
        }
        let most = f64::from(self.limits.max_load) / 100.0;
        let figure = self.figure();
        // How many rooms and participants there may be is counted exactly elsewhere.
        figure.parts.iter().take(3).find(|(_, share)| *share >= most).map(|(name, _)| *name)
    }

    /// Media threads that have not reported for too long, by number.
    pub(super) fn silent(&self, now: Instant) -> Vec<usize> {
        let state = self.state();
        let is_silent = |thread: &Thread| now.saturating_duration_since(thread.heard) > SILENT;
        state.threads.iter().enumerate().filter(|(_, thread)| is_silent(thread)).map(|(at, _)| at).collect()
    }

    /// The last hour, oldest first, and now.
    pub(super) fn history(&self, unix: u64) -> Vec<Point> {
        let state = self.state();
        let now = state.point(&self.limits, unix);
        state.history.iter().copied().chain(std::iter::once(now)).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after every step: a panic elsewhere tears nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn figure(&self, limits: &LimitConfig) -> Figure {
        let count = u32::try_from(self.threads.len()).unwrap_or(u32::MAX).max(1);
        let sum = |of: fn(&Thread) -> f64| self.threads.iter().map(of).sum::<f64>();
        let of = |value: f64, limit: f64| if limit > 0.0 { value / limit } else { 0.0 };
        let most = |limit: u32| f64::from(limit);
        let parts = [
            ("threads", sum(|thread| thread.busy) / f64::from(count)),
            ("bandwidth", of(sum(|thread| thread.out_bytes + thread.in_bytes), most(limits.bytes_per_sec))),
            ("tracks", of(sum(|thread| f64::from(thread.tracks)), most(limits.num_tracks))),
            ("participants", of(sum(|thread| f64::from(thread.participants)), most(limits.max_participants))),
            ("rooms", of(f64::from(self.rooms), most(limits.max_rooms))),
        ];
        let load = parts.iter().map(|(_, share)| *share).fold(0.0, f64::max).min(1.0);
        Figure { load, parts, threads: self.threads.iter().map(|thread| thread.busy).collect() }
    }

    fn point(&self, limits: &LimitConfig, at: u64) -> Point {
        let bits = |of: fn(&Thread) -> f64| self.threads.iter().map(of).sum::<f64>() * 8.0;
        Point {
            at,
            load: self.figure(limits).load,
            participants: self.threads.iter().map(|thread| thread.participants).sum(),
            rooms: self.rooms,
            received: bits(|thread| thread.in_bytes),
            sent: bits(|thread| thread.out_bytes),
        }
    }
}

impl Figure {
    /// For the admin API.
    pub(super) fn json(&self) -> Value {
        let parts: serde_json::Map<String, Value> =
            self.parts.iter().map(|(name, share)| ((*name).to_owned(), json!(rounded(*share)))).collect();
        let threads: Vec<f64> = self.threads.iter().map(|busy| rounded(*busy)).collect();
        json!({ "load": rounded(self.load), "headroom": rounded(1.0 - self.load), "parts": parts, "threads": threads })
    }
}

impl Point {
    /// For the admin API.
    pub(super) fn json(&self) -> Value {
        json!({
            "at": self.at,
            "load": rounded(self.load),
            "participants": self.participants,
            "rooms": self.rooms,
            "received_bps": self.received.round(),
            "sent_bps": self.sent.round(),
        })
    }
}

fn rounded(share: f64) -> f64 {
    (share * 1_000.0).round() / 1_000.0
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people and thresholds")]
fn per_second(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may fail by panicking")]

    use super::*;

    /// A thread that was at work for `busy_percent` of each second and sent `bytes`, for `seconds`.
    fn run(load: &Load, thread: usize, from: Instant, seconds: u32, busy_percent: u64, bytes: u64) {
        let mut stats = ThreadStats::default();
        for second in 0..=seconds {
            stats.turns.sum_nanos = u64::from(second) * busy_percent * 10_000_000;
            stats.shard.bytes_sent = u64::from(second) * bytes;
            (stats.shard.tracks, stats.shard.downtracks) = (10, 90);
            load.observe(thread, &stats, from + Duration::from_secs(second.into()), second.into());
        }
    }

    #[test]
    fn what_is_nearest_to_its_limit_is_the_load() {
        let now = Instant::now();
        let limits = LimitConfig { bytes_per_sec: 1_000_000, num_tracks: 1_000, max_load: 90, ..Default::default() };
        let load = Load::new(limits, 2, now);
        run(&load, 0, now, 120, 80, 500_000);
        run(&load, 1, now, 120, 20, 100_000);
        let figure = load.figure();
        let part = |name| figure.parts.iter().find(|part| part.0 == name).unwrap().1;
        assert!((part("threads") - 0.5).abs() < 0.01, "{figure:?}");
        assert!((part("bandwidth") - 0.6).abs() < 0.01, "{figure:?}");
        assert!((part("tracks") - 0.2).abs() < 0.01, "{figure:?}");
        assert!((figure.load - 0.6).abs() < 0.01 && load.exhausted().is_none());
        run(&load, 1, now, 240, 100, 500_000);
        assert_eq!(load.exhausted(), Some("bandwidth"), "{:?}", load.figure());
    }

    #[test]
    fn a_burst_sends_nobody_away_and_zero_means_no_limit() {
        let now = Instant::now();
        let load = Load::new(LimitConfig { max_load: 90, ..Default::default() }, 1, now);
        run(&load, 0, now, 5, 100, 0);
        assert!(load.figure().load > 0.3 && load.exhausted().is_none());
        run(&load, 0, now, 60, 100, 0);
        assert_eq!(load.exhausted(), Some("threads"));
        let unlimited = Load::new(LimitConfig { max_load: 0, ..Default::default() }, 1, now);
        run(&unlimited, 0, now, 60, 100, 0);
        assert_eq!(unlimited.exhausted(), None);
    }

    #[test]
    fn the_history_is_an_hour_and_silence_is_noticed() {
        let now = Instant::now();
        let load = Load::new(LimitConfig::default(), 1, now);
        run(&load, 0, now, 7_200, 50, 1_000);
        let history = load.history(7_200);
        assert_eq!(history.len(), POINTS + 1);
        assert!(history.first().unwrap().at >= 3_600 && (history.last().unwrap().load - 0.5).abs() < 0.01);
        assert!((history.last().unwrap().sent - 8_000.0).abs() < 1.0);
        let end = now + Duration::from_secs(7_200);
        assert_eq!(load.silent(end), Vec::<usize>::new());
        assert_eq!(load.silent(end + Duration::from_secs(6)), [0]);
    }
}
