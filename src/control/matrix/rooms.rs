//! Views of Matrix rooms, one per homeserver and room: when each was read, when it is to be read again, and who waits for it.

use std::collections::BTreeMap;

use signalling::matrix::event::Event;
use signalling::matrix::view::{Changes, View};

use super::calls::HomeId;
use super::homeserver::AskError;

/// A room of a homeserver.
pub(super) type RoomKey = (HomeId, String);

/// Most views kept; those nobody needs go first.
const MAX_VIEWS: usize = 16_384;
/// Doubts are settled together: a burst of pushes costs one request.
const DEBOUNCE: i64 = 200;
/// How soon a failed request is tried again, ms; doubles up to [`MAX_RETRY`].
const MIN_RETRY: i64 = 500;
/// Longest pause between tries, ms.
const MAX_RETRY: i64 = 15_000;
/// Before somebody is refused the room is read once more, however many are refused: not more often than this, ms.
const MIN_PAUSE: i64 = 500;
/// A room that is slow to read is read at most this part of the time on behalf of those who are refused.
const PAUSE_PER_READ: i64 = 10;
/// Longest pause between such reads, ms: whoever is refused waits for it.
const MAX_PAUSE: i64 = 5_000;

/// One view.
#[derive(Debug, Default)]
pub(super) struct Watched {
    pub(super) view: View,
    /// Unix ms of the last successful read.
    pub(super) read_at: i64,
    /// Unix ms at which that read began: what was accepted by the homeserver before is in the view.
    pub(super) began_at: i64,
    /// Unix ms at which to read; `None`: no need.
    due: Option<i64>,
    reading: bool,
    /// When the read that is under way began.
    reading_since: i64,
    retry: i64,
    used_at: i64,
}

/// All views.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    views: BTreeMap<RoomKey, Watched>,
}

impl Rooms {
    /// A room's view, if there is one.
    pub(super) fn get(&self, key: &RoomKey) -> Option<&Watched> {
        self.views.get(key)
    }

    /// A view that is known.
    pub(super) fn known(&self, key: &RoomKey) -> Option<&Watched> {
        self.views.get(key).filter(|watched| watched.view.is_known())
    }

    /// Read a room as soon as possible.
    pub(super) fn want(&mut self, now: i64, key: &RoomKey) {
        self.make_place(now);
        let watched = self.views.entry(key.clone()).or_default();
        watched.used_at = now;
        // While the homeserver fails, the pause between tries is kept.
        if !watched.reading && watched.retry == 0 {
            watched.due = Some(now);
        }
    }

    /// Somebody waits for a room: read it as soon as possible, while the homeserver fails as well.
    pub(super) fn hurry(&mut self, now: i64, key: &RoomKey) {
        self.want(now, key);
        if let Some(watched) = self.views.get_mut(key).filter(|watched| !watched.reading) {
            let soon = if watched.retry == 0 { now } else { now + MIN_RETRY };
            watched.due = Some(watched.due.map_or(soon, |due| due.min(soon)));
        }
    }

    /// Somebody is about to be refused by a view that is a moment old: read once more, and spare the homeserver however
    /// many are refused.
    pub(super) fn look_again(&mut self, now: i64, key: &RoomKey) {
        let Some(watched) = self.views.get_mut(key).filter(|watched| !watched.reading) else { return };
        let took = watched.read_at.saturating_sub(watched.began_at);
        let pause = took.saturating_mul(PAUSE_PER_READ).clamp(MIN_PAUSE, MAX_PAUSE);
        let at = watched.read_at.saturating_add(pause).max(now);
        watched.due = Some(watched.due.map_or(at, |due| due.min(at)));
    }

    /// Read a room again soon: something may have been missed.
    pub(super) fn doubt(&mut self, now: i64, key: &RoomKey) {
        if let Some(watched) = self.views.get_mut(key) {
            watched.view.doubt();
            watched.retry = 0;
            watched.due = Some(now);
        }
    }

    /// Something was pushed. Rooms nobody asked about are not followed.
    pub(super) fn push(&mut self, now: i64, key: &RoomKey, event: Event) -> Changes {
        let Some(watched) = self.views.get_mut(key) else { return Changes::default() };
        let changes = watched.view.apply(event);
        if watched.view.is_doubtful() && watched.due.is_none() {
            watched.due = Some(now + DEBOUNCE);
        }
        changes
    }

    /// Rooms to be read now, marked as being read.
    pub(super) fn take_due(&mut self, now: i64, at_most: usize) -> Vec<RoomKey> {
        let due = self.views.iter_mut().filter(|(_, w)| !w.reading && w.due.is_some_and(|due| due <= now));
        due.take(at_most)
            .map(|(key, watched)| {
                watched.reading = true;
                watched.reading_since = now;
                watched.due = None;
                watched.view.begin_fetch();
                key.clone()
            })
            .collect()
    }

    /// A read ended. A refusal means that nobody of that homeserver is in the room: nobody is joined, as far as it knows.
    pub(super) fn read(&mut self, now: i64, key: &RoomKey, result: Result<Vec<Event>, AskError>) -> Changes {
        let Some(watched) = self.views.get_mut(key) else { return Changes::default() };
        watched.reading = false;
        match result {
            Ok(events) => watched.install(now, events),
            Err(AskError::Refused) => watched.install(now, Vec::new()),
            Err(AskError::Down) => {
                watched.view.fetch_failed();
                watched.retry = (watched.retry * 2).clamp(MIN_RETRY, MAX_RETRY);
                watched.due = Some(now + watched.retry);
                Changes::default()
            }
        }
    }

    /// When the next room is to be read.
    pub(super) fn next_due(&self) -> Option<i64> {
        self.views.values().filter(|w| !w.reading).filter_map(|w| w.due).min()
    }

    /// All rooms of a homeserver.
    pub(super) fn of_home(&self, home: HomeId) -> Vec<RoomKey> {
        self.views.keys().filter(|(of, _)| *of == home).cloned().collect()
    }

    /// Forget rooms nobody needed for a while.
    pub(super) fn prune(&mut self, now: i64, idle: i64, needed: impl Fn(&RoomKey) -> bool) {
        self.views.retain(|key, w| w.reading || needed(key) || now.saturating_sub(w.used_at) < idle);
    }

    fn make_place(&mut self, now: i64) {
        if self.views.len() < MAX_VIEWS {
            return;
        }
        let oldest = self.views.iter().filter(|(_, w)| !w.reading).min_by_key(|(_, w)| w.used_at);
        if let Some(key) = oldest.filter(|(_, w)| w.used_at < now).map(|(key, _)| key.clone()) {
            self.views.remove(&key);
        }
    }
}

impl Watched {
    fn install(&mut self, now: i64, events: Vec<Event>) -> Changes {
        self.read_at = now;
        self.began_at = self.reading_since;
        self.retry = 0;
        let changes = self.view.install(events);
        // Pushes that crossed the read may have raised a doubt of their own.
        self.due = self.view.is_doubtful().then_some(now + DEBOUNCE);
        changes
    }
}
