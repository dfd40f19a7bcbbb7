//! Sharing out: asks the allocator for each participant something changed for, and tells its downtracks.
//!
//! What the allocator must know of the past is kept here and in [`Downtrack`]: who is short since when, who was lowered a
//! moment ago.

use core::time::Duration;

use crate::base::{Bitrate, Instant};
use crate::room::allocator::{self, Pausing, Request, Target};
use crate::room::downtrack::Downtrack;
use crate::room::participant::Participant;
use crate::room::track::Track;
use crate::room::{DowntrackKey, Room};
use crate::shard::event::Event;

/// Not even the lowest layers fit for this long before something is paused that nearly fits.
const PATIENCE: Duration = Duration::from_secs(1);

impl Room {
    /// Share out what can be sent to each participant that something changed for.
    pub fn reallocate(&mut self, now: Instant, events: &mut Vec<Event>) {
        let Self { config, participants, tracks, downtracks, requests, targets, .. } = self;
        let mut changed = false;
        for participant in participants.values_mut().filter(|p| p.needs_allocation) {
            participant.needs_allocation = false;
            participant.shared = participant.estimate;
            requests.clear();
            let wants = |key: &DowntrackKey| downtracks.get(*key).filter(|d| d.demand.enabled);
            requests.extend(participant.downtracks.iter().filter_map(wants).filter_map(|downtrack| {
                let track = tracks.get(downtrack.track).filter(|t| !t.muted)?;
                Some(request(now, downtrack, track))
            }));
            participant.needed = allocator::needed(requests);
            participant.held_down = requests.iter().any(|request| request.not_above.is_some());
            let budget = participant.budget(config.default_estimate);
            let pausing = pausing(now, participant, config.allow_pause);
            allocator::allocate(budget, requests, pausing, targets);
            let short = targets.iter().any(|target| matches!(target, Target::Layer { starved: true, .. }));
            participant.short_since = short.then(|| participant.short_since.unwrap_or(now));
            let mut targets = targets.iter();
            for key in &participant.downtracks {
                let Some(downtrack) = downtracks.get_mut(*key).filter(|d| d.demand.enabled) else { continue };
                let Some(track) = tracks.get(downtrack.track).filter(|t| !t.muted) else { continue };
                let Some(target) = targets.next() else { continue };
                let before = downtrack.target();
                if before != *target {
                    changed = true;
                    downtrack.share(now, *target, track);
                }
                let paused = *target == Target::Paused;
                if paused != (before == Target::Paused) {
                    events.push(Event::StreamState { downtrack: downtrack.id, paused });
                }
            }
        }
        if changed {
            for track in self.tracks.values_mut() {
                Self::update_waits(track, &self.downtracks);
            }
            self.ask_for_keyframes(now);
            self.wishes_changed();
        }
    }
}

fn request(now: Instant, downtrack: &Downtrack, track: &Track) -> Request {
    Request {
        kind: track.kind,
        priority: downtrack.demand.priority,
        max_spatial: downtrack.demand.max_spatial.min(track.top()),
        costs: track.costs(),
        held: downtrack.current(),
        not_above: downtrack.held_down(now),
        paused: downtrack.target() == Target::Paused,
    }
}

fn pausing(now: Instant, participant: &Participant, default: bool) -> Pausing {
    if participant.uncertain || !participant.may_pause.unwrap_or(default) {
        Pausing::Never
    } else if participant.short_since.is_some_and(|since| now.since(since) >= PATIENCE) {
        Pausing::Now
    } else {
        Pausing::WhenFarShort
    }
}

/// Keeps a downtrack that was lowered for lack of room from being raised again at once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Steadiness {
    raised: Option<Instant>,
    lowered: Option<Instant>,
    hold: Duration,
}

/// A lowered downtrack is not raised again for this long, and up to the longer time when that fails again and again.
const HOLD: Duration = Duration::from_secs(2);
const MOST_HOLD: Duration = Duration::from_secs(6);
/// Lowered within this time of being raised: raising it was wrong.
const REGRET: Duration = Duration::from_secs(10);
/// Held this long, a layer has proved itself.
const PROVEN: Duration = Duration::from_secs(30);

impl Steadiness {
    /// The spatial layer changed by decision of the allocator.
    pub(super) fn on_change(&mut self, now: Instant, raised: bool) {
        if raised {
            self.raised = Some(now);
            return;
        }
        let since_raise = self.raised.map(|at| now.since(at));
        self.hold = match since_raise {
            Some(since) if since < REGRET => (self.hold * 2).clamp(HOLD, MOST_HOLD),
            Some(since) if since < PROVEN => self.hold.max(HOLD),
            _ => HOLD,
        };
        self.lowered = Some(now);
    }

    /// It should stay where it is.
    pub(super) fn holds(&self, now: Instant) -> bool {
        self.lowered.is_some_and(|at| now.since(at) < self.hold)
    }
}

/// What a budget leaves after a share, for the reserves of the allocator.
pub(super) const fn percent(rate: Bitrate, share: u64) -> Bitrate {
    Bitrate::from_bps(rate.as_bps() / 100 * share)
}
