//! Once a second: what arrived since the last time, at whom, and how busy both ends were.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::Sender;

use anyhow::{Context, anyhow};
use tokio::sync::oneshot;

use super::crowd::{Crowd, Member};
use crate::content::source_of;
use crate::light::engine::{Order, Totals};
use crate::light::shape::LIGHT_SOURCE;
use crate::receive::Received;
use crate::report::{Found, Frames, Others, Second};
use crate::scrape::{Load, Scraper};
use crate::stats::{Histogram, cpu_us, nanos, resident_kb};

/// A frame later than this is called delayed.
pub(super) const LATE_NS: u64 = 300_000_000;
const FULL_TRACKS: [&str; 3] = ["mic", "cam", "screen"];

/// Sums over all complete participants, those that left included.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) frames: Frames,
    pub(super) repeated: u64,
    pub(super) disordered: u64,
    pub(super) swapped: u64,
    pub(super) late: u64,
    pub(super) bytes: u64,
    pub(super) packets: u64,
    pub(super) others: Others,
}

/// Asks everybody.
pub(super) struct Meter {
    engine: Sender<Order>,
    pid: Option<String>,
    scraper: Option<Scraper>,
    tally: Tally,
    totals: Totals,
    at: u64,
    began: u64,
    generator_us: u64,
    server: Load,
    /// Delays of frames since measuring began.
    pub(super) delays: Histogram,
    /// Participants and tracks that did not fit, once each.
    strange: BTreeMap<(String, String), ()>,
    /// Tracks of people, by sid.
    foreign: BTreeSet<String>,
    joins: Vec<u64>,
}

/// Sums at a moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Moment {
    pub(super) tally: Tally,
    pub(super) totals: Totals,
    pub(super) at: u64,
    pub(super) generator_us: u64,
    pub(super) server: Load,
}

impl Meter {
    pub(super) fn new(engine: Sender<Order>, pid: Option<u32>, scraper: Option<Scraper>) -> Self {
        Self {
            engine,
            pid: pid.map(|pid| pid.to_string()),
            scraper,
            tally: Tally::default(),
            totals: Totals::default(),
            at: nanos(),
            began: nanos(),
            generator_us: cpu_us("self").unwrap_or(0),
            server: Load::default(),
            delays: Histogram::default(),
            strange: BTreeMap::new(),
            foreign: BTreeSet::new(),
            joins: Vec::new(),
        }
    }

    /// A join took this long.
    pub(super) fn joined(&mut self, join_ns: u64) {
        self.joins.push(join_ns);
    }

    /// Sums as they were last seen.
    pub(super) fn moment(&self) -> Moment {
        Moment {
            tally: self.tally.clone(),
            totals: self.totals.clone(),
            at: self.at,
            generator_us: self.generator_us,
            server: self.server,
        }
    }

    async fn server(&self) -> Load {
        if let Some(pid) = &self.pid {
            return Load {
                cpu_seconds: cpu_us(pid).map(|us| float(us) / 1e6),
                memory: resident_kb(pid).map(|kb| float(kb) * 1e3),
            };
        }
        match &self.scraper {
            // One that does not answer has nothing to say in this second.
            Some(scraper) => scraper.load().await.unwrap_or_default(),
            None => Load::default(),
        }
    }

    /// Look, and say what happened since the last look.
    pub(super) async fn second(&mut self, crowd: &mut Crowd) -> anyhow::Result<Second> {
        let before = self.moment();
        let delays = self.ask_full(crowd).await;
        let mut streams = delays.streams;
        let (reply, told) = oneshot::channel();
        self.engine.send(Order::Tell(reply)).map_err(|_| anyhow!("the receiving thread has ended"))?;
        self.totals = told.await.context("the receiving thread has ended")?;
        streams += self.totals.streams;
        self.server = self.server().await;
        self.generator_us = cpu_us("self").unwrap_or(self.generator_us);
        self.at = nanos();
        let elapsed = float(self.at - before.at) / 1e9;
        let wanted: u64 = crowd.seats.iter().map(|seat| u64::from(crowd.scenario.streams_for(seat.number))).sum();
        let mut recent = delays.recent;
        recent.merge(&self.totals.recent);
        let (frames, light) = (self.tally.frames.since(&before.tally.frames), &before.totals);
        let counted = self.totals.came - light.came;
        let spanned = self.totals.spanned.saturating_sub(light.spanned);
        let came = counted + frames.right;
        let should = spanned + frames.expected();
        let bytes = self.totals.bytes - light.bytes + self.tally.bytes - before.tally.bytes;
        let joins: Vec<u64> = std::mem::take(&mut self.joins);
        let milliseconds = |share| (recent.total() > 0).then(|| float(recent.percentile(share)) / 1e6);
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let server = before.server.cpu_seconds.zip(self.server.cpu_seconds);
        Ok(Second {
            at: float(self.at - self.began) / 1e9,
            participants: crowd.seats.len() as u64,
            joins: joins.len() as u64,
            join_ms: joins.iter().max().map(|ns| float(*ns) / 1e6),
            delivery_percent: (should > 0).then(|| (float(came) / float(should) * 100.0).min(100.0)),
            loss_percent: (should > 0).then(|| (100.0 - float(came) / float(should) * 100.0).max(0.0)),
            p50_ms: milliseconds(0.5),
            p95_ms: milliseconds(0.95),
            p99_ms: milliseconds(0.99),
            packets: float(counted + self.tally.packets - before.tally.packets) / elapsed,
            mbit: float(bytes) * 8.0 / elapsed / 1e6,
            frames: float(frames.right) / elapsed,
            freezes: frames.freezes,
            layers: delays.layers,
            streams,
            streams_wanted: wanted,
            generator_percent: float(self.generator_us - before.generator_us)
                / (elapsed * 1e4 * float(processors as u64)),
            server_percent: server.map(|(before, now)| ((now - before) / elapsed * 100.0).max(0.0)),
            server_mb: self.server.memory.map(|bytes| bytes / 1e6),
        })
    }

    async fn ask_full(&mut self, crowd: &mut Crowd) -> Answers {
        let mut answers = Answers::default();
        for seat in &mut crowd.seats {
            let Member::Full(client) = &mut seat.member else { continue };
            client.forget_events();
            // One that ended says nothing more: its streams are missed.
            let Ok(sample) = client.sample().await else { continue };
            for delay in &sample.delays {
                answers.recent.add(*delay);
                self.delays.add(*delay);
                self.tally.late += u64::from(*delay > LATE_NS);
            }
            for (sid, received) in &sample.snapshot.received {
                let before = seat.last.snapshot.received.get(sid).cloned().unwrap_or_default();
                let publisher = sample.snapshot.others.values().find_map(|info| {
                    let track = info.tracks.iter().find(|track| track.sid == *sid)?;
                    Some((info.identity.clone(), track.name.clone()))
                });
                if publisher.as_ref().is_some_and(|(identity, _)| !crowd.door.is_ours(identity)) {
                    self.foreign.insert(sid.clone());
                }
                if self.foreign.contains(sid) {
                    self.tally.others.add(received, &before);
                    continue;
                }
                self.tally.add(received, &before);
                if received.frames > before.frames {
                    answers.streams += 1;
                    if received.size != (0, 0)
                        && let Some(count) = answers.layers.get_mut(usize::from(received.layer))
                    {
                        *count += 1;
                    }
                }
                if let Some((publisher, track)) = publisher
                    && received.frames > 0
                    && received.source != expected_source(&publisher, &track)
                    && self.strange.insert((seat.identity.clone(), sid.clone()), ()).is_none()
                {
                    self.tally.swapped += 1;
                }
            }
            seat.last = sample;
        }
        answers
    }

    /// Faults by name, between then and now.
    pub(super) fn faults(&self, before: &Moment, silent: u64, keyless: u64) -> Vec<Found> {
        let (tally, totals) = (&self.tally, &self.totals);
        let frames = tally.frames.since(&before.tally.frames);
        let lost = (totals.spanned - before.totals.spanned).saturating_sub(totals.came - before.totals.came);
        let unauthentic = totals.unauthentic - before.totals.unauthentic;
        let disordered = totals.disordered - before.totals.disordered + tally.disordered - before.tally.disordered;
        [
            ("dropped", frames.incomplete + frames.missing, "frames that never became whole, or were skipped"),
            ("dropped", lost, "packets whose numbers were skipped (light participants)"),
            ("corrupted", frames.wrong, "frames that were whole, with wrong bits"),
            ("corrupted", unauthentic, "packets that did not open (SRTP)"),
            ("reordered", disordered, "packets that came after later ones"),
            ("repeated", tally.repeated - before.tally.repeated, "packets that came twice"),
            ("delayed", tally.late - before.tally.late, "frames later than 300 ms"),
            ("swapped", tally.swapped - before.tally.swapped, "frames of another source than the track's"),
            ("unreadable", frames.unopened, "frames whose key had not come"),
            ("keyless", keyless, "keys of other participants that did not come in time to one who joined"),
            ("silent", silent, "streams that should be there and brought nothing in the last second"),
        ]
        .into_iter()
        .filter(|(_, count, _)| *count > 0)
        .map(|(name, count, what)| Found { name: name.to_owned(), count, what: what.to_owned() })
        .collect()
    }
}

/// What complete participants said.
#[derive(Default)]
struct Answers {
    streams: u64,
    layers: [u64; 3],
    recent: Histogram,
}

fn expected_source(publisher: &str, track: &str) -> u64 {
    if FULL_TRACKS.contains(&track) { source_of(publisher, track) } else { LIGHT_SOURCE }
}

impl Others {
    /// What real clients send carries no mark: that it opens says that each bit is right.
    fn add(&mut self, now: &Received, before: &Received) {
        let fresh = Received::default();
        let before = if now.packets < before.packets { &fresh } else { before };
        self.opened += now.unmarked - before.unmarked;
        self.failed +=
            (now.wrong - now.unmarked) - (before.wrong - before.unmarked) + now.incomplete - before.incomplete;
        self.unopened += now.unopened - before.unopened;
    }
}

impl Tally {
    fn add(&mut self, now: &Received, before: &Received) {
        // A stream that began anew counts from nothing.
        let fresh = Received::default();
        let before = if now.packets < before.packets { &fresh } else { before };
        let frames = &mut self.frames;
        frames.right += now.frames - before.frames;
        frames.wrong += now.wrong - before.wrong;
        frames.incomplete += now.incomplete - before.incomplete;
        frames.missing += now.missing.saturating_sub(before.missing);
        frames.unopened += now.unopened - before.unopened;
        frames.key_frames += now.key_frames - before.key_frames;
        frames.freezes += now.freezes - before.freezes;
        frames.frozen_ms += (now.frozen_ns - before.frozen_ns) / 1_000_000;
        frames.switches += now.switches - before.switches;
        self.repeated += now.repeated - before.repeated;
        self.disordered += now.disordered - before.disordered;
        self.swapped += now.swapped - before.swapped;
        self.bytes += now.bytes - before.bytes;
        self.packets += now.packets - before.packets;
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(super) const fn float(number: u64) -> f64 {
    number as f64
}
