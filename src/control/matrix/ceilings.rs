//! Keeps what users of other homeservers publish below the ceilings of `matrix.remote_users`, per call and per server:
//! near one their video is kept at lower layers, all of them alike; sound is never touched. Pure.
//!
//! Fed with what each of them publishes, about once a second. Lowering waits until the last step shows in the rates;
//! raising needs room for what the ladder of clients multiplies by, and more patience each time it had to be taken back.

use std::collections::BTreeMap;

use super::calls::HomeId;

/// What shares a ceiling.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    /// Remote participants of a call, as one homeserver knows them.
    Room(HomeId, String),
    /// Participants of one remote server in all calls of a homeserver.
    Server(HomeId, String),
}

/// What one remote participant publishes.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) identity: String,
    pub(super) home: HomeId,
    pub(super) server: String,
    pub(super) bps: u64,
}

/// A participant: SFU room and identity.
pub(super) type Who = (String, String);

/// Lowering begins at this share of a ceiling, percent, and raising has to stay below it.
const NEAR_PERCENT: u64 = 90;
/// What one layer more multiplies a rate by at most: clients encode about 150, 500 and 1700 kbit/s.
const LADDER: u64 = 5;
/// How long a step takes to show: the publisher is told, stops a layer, and a mean over some seconds follows, ms.
const SETTLES: i64 = 5_000;
/// How long it has to be quiet before one layer is given back, ms; doubles up to [`MAX_PATIENCE`].
const PATIENCE: i64 = 10_000;
/// See [`PATIENCE`].
const MAX_PATIENCE: i64 = 640_000;
/// A layer given back that has to be taken again within this time was given back too early, ms.
const RELAPSE: i64 = 60_000;
/// Rates older than this say nothing, ms.
const OLD: i64 = 5_000;
/// All layers, two, one.
const LOWEST: u8 = 2;
/// Most participants looked at.
const MAX_PUBLISHERS: usize = 65_536;

#[derive(Debug)]
struct Entry {
    published: Published,
    at: i64,
}

/// Where a group stands.
#[derive(Clone, Copy, Debug)]
struct Standing {
    /// Layers taken away.
    lowered: u8,
    /// When that changed last.
    since: i64,
    was_raised: bool,
    patience: i64,
}

/// All groups.
#[derive(Debug, Default)]
pub(super) struct Ceilings {
    entries: BTreeMap<Who, Entry>,
    groups: BTreeMap<Group, Standing>,
    told: BTreeMap<Who, u8>,
}

impl Ceilings {
    /// What remote participants of a call publish now.
    pub(super) fn note(&mut self, now: i64, room: &str, all: impl Iterator<Item = Published>) {
        for published in all {
            let who = (room.to_owned(), published.identity.clone());
            if self.entries.len() < MAX_PUBLISHERS || self.entries.contains_key(&who) {
                self.entries.insert(who, Entry { published, at: now });
            }
        }
    }

    /// A participant joined anew: it has to be told again.
    pub(super) fn joined(&mut self, room: &str, identity: &str) {
        self.told.remove(&(room.to_owned(), identity.to_owned()));
    }

    /// Look at all groups. `ceiling` gives theirs in bit/s, 0 for none. Gives who may send up to which spatial layer
    /// from now on, `None` for all, where that is news.
    pub(super) fn review(&mut self, now: i64, ceiling: impl Fn(&Group) -> u64) -> Vec<(Who, Option<u8>)> {
        self.entries.retain(|_, entry| now.saturating_sub(entry.at) < OLD);
        let mut sums: BTreeMap<Group, u64> = BTreeMap::new();
        for (who, Entry { published, .. }) in &self.entries {
            for group in groups_of(who, published) {
                let sum = sums.entry(group).or_default();
                *sum = sum.saturating_add(published.bps);
            }
        }
        self.groups.retain(|group, standing| sums.contains_key(group) || now.saturating_sub(standing.since) < RELAPSE);
        for (group, sum) in sums {
            let ceiling = ceiling(&group);
            // In most calls nothing is ever near a ceiling: nothing is kept of them.
            if self.groups.contains_key(&group) || is_near(sum, ceiling) {
                self.groups.entry(group).or_insert_with(|| Standing::new(now)).step(now, sum, ceiling);
            }
        }
        let mut news = Vec::new();
        for (who, Entry { published, .. }) in &self.entries {
            let standings = groups_of(who, published).into_iter().filter_map(|group| self.groups.get(&group));
            let lowered = standings.map(|standing| standing.lowered).max().unwrap_or(0);
            if self.told.get(who).copied().unwrap_or(0) != lowered {
                news.push((who.clone(), (lowered > 0).then(|| LOWEST - lowered)));
                self.told.insert(who.clone(), lowered);
            }
        }
        self.told.retain(|who, lowered| *lowered > 0 && self.entries.contains_key(who));
        news
    }

    /// How many calls and how many servers are kept low.
    pub(super) fn lowered(&self) -> (usize, usize) {
        let low = self.groups.iter().filter(|(_, standing)| standing.lowered > 0);
        let (rooms, servers): (Vec<_>, Vec<_>) = low.partition(|(group, _)| matches!(group, Group::Room(..)));
        (rooms.len(), servers.len())
    }
}

fn groups_of((room, _): &Who, published: &Published) -> [Group; 2] {
    [Group::Room(published.home, room.clone()), Group::Server(published.home, published.server.clone())]
}

const fn is_near(sum: u64, ceiling: u64) -> bool {
    ceiling > 0 && sum.saturating_mul(100) >= ceiling.saturating_mul(NEAR_PERCENT)
}

impl Standing {
    const fn new(now: i64) -> Self {
        Self { lowered: 0, since: now - SETTLES, was_raised: false, patience: PATIENCE }
    }

    fn step(&mut self, now: i64, sum: u64, ceiling: u64) {
        let quiet_for = now.saturating_sub(self.since);
        if is_near(sum, ceiling) {
            if self.lowered < LOWEST && quiet_for >= SETTLES {
                if self.was_raised && quiet_for < RELAPSE {
                    self.patience = self.patience.saturating_mul(2).min(MAX_PATIENCE);
                }
                (self.lowered, self.since, self.was_raised) = (self.lowered + 1, now, false);
            }
        } else if self.lowered > 0 && quiet_for >= self.patience && !is_near(sum.saturating_mul(LADDER), ceiling) {
            (self.lowered, self.since, self.was_raised) = (self.lowered - 1, now, true);
        } else if self.was_raised && quiet_for >= RELAPSE {
            (self.was_raised, self.patience) = (false, PATIENCE);
        }
    }
}

#[cfg(test)]
mod tests;
