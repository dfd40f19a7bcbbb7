//! Which layer each downtrack of a subscriber gets out of what its link can carry. A pure function.
//!
//! Audio is funded before anything. Then every video gets its lowest layer before any gets a higher one; screens and
//! larger priorities go first in each round. A held layer is not dearer than a new one: there is a small reserve that
//! only raising has to respect.

use crate::base::{Bitrate, MediaKind};
use crate::room::MAX_SPATIAL;
use crate::room::layer::default_cost;

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

/// Assumed cost of an audio downtrack of unknown rate, packet headers included.
pub const AUDIO_COST: Bitrate = Bitrate::from_kbps(40);

/// Raising must leave this share of the budget, in percent.
const RESERVE_PERCENT: u64 = 5;

/// Fill `targets` (one per request, in order) so that the sum of their costs stays within `budget`.
pub fn allocate(budget: Bitrate, requests: &[Request], allow_pause: bool, targets: &mut Vec<Target>) {
    targets.clear();
    targets.resize(requests.len(), Target::Paused);
    let mut left = budget;
    for (request, target) in requests.iter().zip(targets.iter_mut()).filter(|(r, _)| r.kind == MediaKind::Audio) {
        left = left.saturating_sub(request.costs.iter().flatten().next().copied().unwrap_or(AUDIO_COST));
        *target = Target::Layer { spatial: 0, starved: false };
    }
    let reserve = Bitrate::from_bps(budget.as_bps() / 100 * RESERVE_PERCENT);
    // First the lowest layer of all, then one layer more for all, and so on; within a round by priority, then order.
    for round in 0..MAX_SPATIAL {
        for priority in priorities(requests) {
            for (request, target) in requests.iter().zip(targets.iter_mut()) {
                if request.kind == MediaKind::Audio || request.priority != priority {
                    continue;
                }
                raise(request, target, round, &mut left, reserve, allow_pause);
            }
        }
    }
    for (request, target) in requests.iter().zip(targets.iter_mut()) {
        anticipate(request, target, left);
    }
}

/// Where there is room for a higher layer that does not flow yet, let it in as soon as it does: its first packets are a
/// key frame. Nothing is set aside for it.
fn anticipate(request: &Request, target: &mut Target, left: Bitrate) {
    let Target::Layer { spatial, starved: false } = *target else { return };
    let cost_at = |spatial: u8| request.costs.get(usize::from(spatial)).copied().flatten();
    let best = (spatial + 1..=request.max_spatial).take_while(|s| cost_at(*s).is_none()).last();
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

fn raise(
    request: &Request,
    target: &mut Target,
    round: usize,
    left: &mut Bitrate,
    reserve: Bitrate,
    allow_pause: bool,
) {
    let cost_at = |spatial: u8| request.costs.get(usize::from(spatial)).copied().flatten();
    if round == 0 {
        // What does not flow costs nothing and waits at the top of what is wanted.
        let Some(lowest) = (0u8..).take(MAX_SPATIAL).find(|s| cost_at(*s).is_some()) else {
            *target = Target::Layer { spatial: request.max_spatial, starved: false };
            return;
        };
        let cost = cost_at(lowest).unwrap_or_default();
        if cost <= *left {
            *left = left.saturating_sub(cost);
            *target = Target::Layer { spatial: lowest, starved: false };
        } else if !allow_pause {
            *left = Bitrate::ZERO;
            *target = Target::Layer { spatial: lowest, starved: true };
        }
        return;
    }
    let Target::Layer { spatial, starved: false } = *target else { return };
    let Some(next) = (spatial + 1..=request.max_spatial).find(|s| cost_at(*s).is_some()) else {
        return;
    };
    let more = cost_at(next).unwrap_or_default().saturating_sub(cost_at(spatial).unwrap_or_default());
    let held = request.held.is_some_and(|held| held >= next);
    let needed = if held { more } else { more.saturating_add(reserve) };
    if needed <= *left {
        *left = left.saturating_sub(more);
        *target = Target::Layer { spatial: next, starved: false };
    }
}

#[cfg(test)]
mod tests;
