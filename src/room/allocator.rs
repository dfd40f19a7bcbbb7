//! Which layer each downtrack of a subscriber gets out of what its link can carry. A pure function.
//!
//! Audio is funded before anything. Then every video gets its lowest layer before any gets a higher one; screens and
//! larger priorities go first in each round. A held layer is not dearer than a new one: there is a small reserve that
//! only raising has to respect.

use crate::base::{Bitrate, MediaKind};
use crate::room::MAX_SPATIAL;
use crate::room::layer::default_cost;
use crate::room::share::percent;

/// What one downtrack could use.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Audio or video.
    pub kind: MediaKind,
    /// Larger is served first.
    pub priority: u8,
    /// Highest spatial layer of use.
    pub max_spatial: u8,
    /// Cost of each spatial layer; `None` where the encoding does not flow.
    pub costs: [Option<Bitrate>; MAX_SPATIAL],
    /// Layer it has now.
    pub held: Option<u8>,
    /// Not above this for now, unless there is plenty: it was lowered a moment ago.
    pub not_above: Option<u8>,
    /// It is paused for lack of room.
    pub paused: bool,
}

impl Request {
    fn highest(&self) -> u8 {
        self.not_above.map_or(self.max_spatial, |most| most.min(self.max_spatial))
    }
}

/// What a downtrack gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// This spatial layer at most. With `starved` even that does not fit: only its base temporal layer.
    Layer {
        /// Spatial layer.
        spatial: u8,
        /// More than there is room for.
        starved: bool,
    },
    /// Nothing fits.
    Paused,
}

/// Whether a downtrack may get nothing at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pausing {
    /// The lowest layer is sent whatever it costs.
    Never,
    /// When its lowest layer is far from fitting, or it is paused already.
    WhenFarShort,
    /// When its lowest layer does not fit.
    Now,
}

/// Assumed cost of an audio downtrack of unknown rate, packet headers included.
pub const AUDIO_COST: Bitrate = Bitrate::from_kbps(40);

/// Raising must leave this share of the budget, in percent: what a measure is wrong by. More wastes the link, less makes
/// layers flap.
const RESERVE_PERCENT: u64 = 8;
/// A paused one goes on when it fits with this much to spare, in percent of its cost.
const RESUME_PERCENT: u64 = 110;
/// One that was lowered a moment ago is raised when it fits this many times, in percent of its cost.
const PLENTY_PERCENT: u64 = 125;
/// Up to this share of what is left, in percent, the lowest layer is borrowed for a moment.
const BORROW_PERCENT: u64 = 125;

/// Fill `targets` (one per request, in order) so that the sum of their costs stays within `budget`.
pub fn allocate(budget: Bitrate, requests: &[Request], pausing: Pausing, targets: &mut Vec<Target>) {
    targets.clear();
    targets.resize(requests.len(), Target::Paused);
    let mut left = budget;
    for (request, target) in requests.iter().zip(targets.iter_mut()).filter(|(r, _)| r.kind == MediaKind::Audio) {
        left = left.saturating_sub(audio_cost(request));
        *target = Target::Layer { spatial: 0, starved: false };
    }
    let reserve = percent(budget, RESERVE_PERCENT);
    // First the lowest layer of all, then one layer more for all, and so on; within a round by priority, then order.
    for round in 0..MAX_SPATIAL {
        for priority in priorities(requests) {
            for (request, target) in requests.iter().zip(targets.iter_mut()) {
                if request.kind == MediaKind::Audio || request.priority != priority {
                    continue;
                }
                if round == 0 {
                    *target = begin(request, &mut left, pausing);
                } else {
                    raise(request, target, &mut left, reserve);
                }
            }
        }
    }
    for (request, target) in requests.iter().zip(targets.iter_mut()) {
        anticipate(request, target, left.saturating_sub(reserve));
    }
}

/// What all requests together would take if there were room, with what raising must leave.
pub fn needed(requests: &[Request]) -> Bitrate {
    let wanted = |request: &Request| match request.kind {
        MediaKind::Audio => audio_cost(request),
        MediaKind::Video => {
            let at = |spatial: u8| request.costs.get(usize::from(spatial)).copied().flatten();
            let highest = request.max_spatial;
            at(highest).or_else(|| (0..highest).rev().find_map(at)).unwrap_or_else(|| default_cost(highest))
        }
    };
    let sum = requests.iter().map(wanted).fold(Bitrate::ZERO, Bitrate::saturating_add);
    Bitrate::from_bps(sum.as_bps().saturating_mul(100) / (100 - RESERVE_PERCENT))
}

fn audio_cost(request: &Request) -> Bitrate {
    request.costs.iter().flatten().next().copied().unwrap_or(AUDIO_COST).max(AUDIO_COST)
}

/// Where there is room for a higher layer that does not flow yet, let it in as soon as it does: its first packets are a
/// key frame. Nothing is set aside for it.
fn anticipate(request: &Request, target: &mut Target, left: Bitrate) {
    let Target::Layer { spatial, starved: false } = *target else { return };
    let cost_at = |spatial: u8| request.costs.get(usize::from(spatial)).copied().flatten();
    let best = (spatial + 1..=request.highest()).take_while(|s| cost_at(*s).is_none()).last();
    if let Some(best) = best
        && default_cost(best).saturating_sub(cost_at(spatial).unwrap_or_default()) <= left
    {
        *target = Target::Layer { spatial: best, starved: false };
    }
}

/// The priorities that occur, highest first.
fn priorities(requests: &[Request]) -> impl Iterator<Item = u8> {
    let mut last: Option<u8> = None;
    core::iter::from_fn(move || {
        last = requests.iter().map(|r| r.priority).filter(|p| last.is_none_or(|l| *p < l)).max();
        last
    })
}

/// The lowest layer, or what is done without it.
fn begin(request: &Request, left: &mut Bitrate, pausing: Pausing) -> Target {
    // What does not flow costs nothing and waits at the top of what is wanted.
    let lowest = (0u8..).zip(request.costs).find_map(|(spatial, cost)| Some((spatial, cost?)));
    let Some((spatial, cost)) = lowest else {
        return Target::Layer { spatial: request.max_spatial, starved: false };
    };
    let fits = if request.paused { percent(cost, RESUME_PERCENT) <= *left } else { cost <= *left };
    if fits {
        *left = left.saturating_sub(cost);
        return Target::Layer { spatial, starved: false };
    }
    let borrows = match pausing {
        Pausing::Never => true,
        Pausing::WhenFarShort => !request.paused && cost <= percent(*left, BORROW_PERCENT),
        Pausing::Now => false,
    };
    if borrows {
        *left = Bitrate::ZERO;
        return Target::Layer { spatial, starved: true };
    }
    Target::Paused
}

/// One layer more.
fn raise(request: &Request, target: &mut Target, left: &mut Bitrate, reserve: Bitrate) {
    let cost_at = |spatial: u8| request.costs.get(usize::from(spatial)).copied().flatten();
    let Target::Layer { spatial, starved: false } = *target else { return };
    let Some(next) = (spatial + 1..=request.max_spatial).find(|s| cost_at(*s).is_some()) else {
        return;
    };
    let more = cost_at(next).unwrap_or_default().saturating_sub(cost_at(spatial).unwrap_or_default());
    let held = request.held.is_some_and(|held| held >= next);
    let kept_down = request.not_above.is_some_and(|most| next > most);
    let needed = match (held, kept_down) {
        (true, _) => more,
        (false, false) => more.saturating_add(reserve),
        (false, true) => percent(more, PLENTY_PERCENT).saturating_add(reserve),
    };
    if needed <= *left {
        *left = left.saturating_sub(more);
        *target = Target::Layer { spatial: next, starved: false };
    }
}

#[cfg(test)]
mod tests;
