//! Participants that are gone: their leave is sent, and a membership that still stands is cleared.
//!
//! A page that lost its connection may come back, so being gone is decided after a grace. A page that is alive and
//! announces itself again is not fought: one clean-up per membership in ten minutes.

use std::collections::BTreeMap;

use signalling::matrix::event::{CALL_MEMBER, Membership};
use signalling::matrix::identity::{Caller, IdentityForm};
use signalling::matrix::power::Dialect;
use signalling::matrix::view::MemberKey;

use super::super::calls::{HomeId, Known};
use super::super::homeserver::AskError;
use super::{Input, Service, spawn};
use crate::config::Feed;

/// How long somebody who hung up may take to turn out as somebody who joins anew, ms.
const SECOND_THOUGHTS: i64 = 1_200;
/// How long a leave that was sent may take to show in the room, ms.
const SENT: i64 = 3_000;
/// How long pages may take to be heard of after weir was restarted, ms. Clients try again every 7 s, give or take a half.
const RESTART: i64 = 12_000;
/// How long a page that was heard of may take to be in the call, ms.
const ARRIVES: i64 = 15_000;
/// How soon is looked again when there was no leave to send after all, ms: it may have been sent a moment ago.
const NOT_SENT: i64 = 500;
/// At most one clean-up of a membership in this time, ms.
const ONCE_IN: i64 = 600_000;
/// Departures and clean-ups remembered.
const MAX_REMEMBERED: usize = 65_536;
/// What cannot be looked at or done now, because the homeserver does not answer, is tried again after this, ms.
const AGAIN: i64 = 3_000;
/// And given up after this, ms: a membership ends by itself by then (matrix-js-sdk gives it four hours).
const GIVE_UP: i64 = 4 * 3_600_000;

/// SFU room and identity.
type GhostKey = (String, String);

/// Somebody who is gone, or about to be.
#[derive(Clone, Debug)]
pub(super) struct Departure {
    due: i64,
    since: i64,
    matrix_room: String,
    home: Option<HomeId>,
    dialect: Dialect,
    caller: Caller,
    /// The leave was dealt with; what is left is to look whether the membership is gone.
    leave_sent: bool,
    /// It was in the call when weir ended, and was not heard of since.
    awaited: bool,
    /// It is in the log that its membership is cleared: however often that has to be tried.
    is_told: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Ghosts {
    departures: BTreeMap<GhostKey, Departure>,
    /// When a membership was cleared last.
    cleared: BTreeMap<(String, String), i64>,
    sent: u64,
}

impl Ghosts {
    /// Somebody was in the call when weir ended.
    pub(super) fn restored(&mut self, now: i64, room: &str, matrix_room: &str, known: &Known) {
        self.gone(now, room, matrix_room, known, RESTART);
        if let Some(there) = self.of_mut(room, &known.caller) {
            there.awaited = true;
        }
    }

    /// Somebody who was in the call before weir was restarted is about to come back.
    pub(super) fn heard_of(&mut self, now: i64, room: &str, caller: &Caller) {
        if let Some(there) = self.of_mut(room, caller).filter(|there| there.awaited) {
            (there.awaited, there.due) = (false, now + ARRIVES);
        }
    }

    /// The homeserver had no such leave.
    pub(super) fn no_leave(&mut self, now: i64, room: &str, caller: &Caller) {
        if let Some(there) = self.of_mut(room, caller).filter(|there| there.leave_sent) {
            there.due = there.due.min(now + NOT_SENT);
        }
    }

    fn of_mut(&mut self, room: &str, caller: &Caller) -> Option<&mut Departure> {
        self.departures.get_mut(&(room.to_owned(), name_of(caller)?))
    }

    /// Somebody is gone, unless back within `grace`.
    pub(super) fn gone(&mut self, now: i64, room: &str, matrix_room: &str, known: &Known, grace: i64) {
        let Some(identity) = name_of(&known.caller) else { return };
        if self.departures.len() >= MAX_REMEMBERED {
            return;
        }
        let departure = Departure {
            due: now + grace,
            since: now,
            matrix_room: matrix_room.to_owned(),
            home: known.home,
            dialect: known.dialect,
            caller: known.caller.clone(),
            leave_sent: false,
            awaited: false,
            is_told: false,
        };
        // Further identities of the same device are the same ghost. What is known of both is kept: membership in room
        // state says more than a sticky one, and a member id is better than none.
        let Some(there) = self.departures.get_mut(&(room.to_owned(), identity.clone())) else {
            self.departures.insert((room.to_owned(), identity), departure);
            return;
        };
        there.due = departure.due;
        if departure.dialect == Dialect::State {
            there.dialect = Dialect::State;
        }
        there.caller.member = there.caller.member.take().or(departure.caller.member);
    }

    /// When the next one is to be looked at.
    pub(super) fn next_due(&self) -> Option<i64> {
        self.departures.values().map(|departure| departure.due).min()
    }

    /// Forget old clean-ups.
    pub(super) fn prune(&mut self, now: i64) {
        self.cleared.retain(|_, at| now.saturating_sub(*at) < ONCE_IN);
    }

    fn may_clear(&mut self, now: i64, room: &str, membership: &str) -> bool {
        let place = (room.to_owned(), membership.to_owned());
        let again = self.cleared.get(&place).is_some_and(|at| now.saturating_sub(*at) < ONCE_IN);
        if again || self.cleared.len() >= MAX_REMEMBERED {
            return false;
        }
        self.cleared.insert(place, now);
        true
    }

    /// Look at it once more, a while later.
    fn again(&mut self, now: i64, key: GhostKey, departure: Departure) {
        if now.saturating_sub(departure.since) < GIVE_UP && self.departures.len() < MAX_REMEMBERED {
            self.departures.entry(key).or_insert(Departure { due: now + AGAIN, ..departure });
        }
    }
}

/// What a ghost is known by, under whichever of its identities it was in the call.
fn name_of(caller: &Caller) -> Option<String> {
    let forms = [IdentityForm::UserDevice, IdentityForm::UserDeviceMember, IdentityForm::UserMember];
    forms.into_iter().find_map(|form| caller.identity(form))
}

/// A membership that was to be cleared.
#[derive(Debug)]
pub(in crate::control::matrix) struct Clearing {
    key: GhostKey,
    departure: Departure,
    /// Its state key or member id.
    membership: String,
}

impl Service {
    /// The last session of an identity ended.
    pub(super) fn departed(&mut self, now: i64, room: &str, identity: &str, intended: bool) {
        let Some((call, known)) = self.calls.known(room, identity) else { return };
        let (matrix_room, known) = (call.matrix_room.clone(), known.clone());
        let grace = i64::try_from(self.config.ghost_grace.0.as_millis()).unwrap_or(0);
        let grace = if intended { SECOND_THOUGHTS } else { grace };
        self.ghosts.gone(now, room, &matrix_room, &known, grace);
    }

    /// Whether another node has the call now.
    pub(super) fn is_elsewhere(&self, room: &str) -> bool {
        self.nodes.as_ref().is_some_and(|nodes| nodes.is_elsewhere(room))
    }

    pub(super) fn ghosts_due(&mut self, now: i64) {
        let due = |departure: &Departure| departure.due <= now;
        let keys: Vec<_> = self.ghosts.departures.iter().filter(|(_, d)| due(d)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            let Some(mut departure) = self.ghosts.departures.remove(&key) else { continue };
            let room = key.0.as_str();
            if self.calls.is_live(room, &departure.caller.user, departure.caller.device.as_deref()) {
                continue;
            }
            if self.is_elsewhere(room) {
                // That node knows whether it is there.
                self.ghosts.again(now, key, departure);
                continue;
            }
            if !departure.leave_sent && self.leave_gone(now, room, &departure.caller) {
                departure.leave_sent = true;
                departure.due = now + SENT;
                self.ghosts.departures.insert(key, departure);
                continue;
            }
            self.clear_membership(now, key, departure);
        }
    }

    /// A membership was cleared, or not.
    pub(super) fn on_cleared(&mut self, now: i64, clearing: Clearing, result: Result<(), AskError>) {
        let user = clearing.departure.caller.user.clone();
        let (label, words) = match result {
            Ok(()) => ("cleared", "had a stale call membership cleared"),
            Err(_) => ("failed", "has a stale call membership that could not be cleared"),
        };
        self.metrics.matrix.clearings.with_label_values(&[label]).inc();
        self.decisions.note(now, &user, words);
        if result == Err(AskError::Down) {
            self.ghosts.cleared.remove(&(clearing.departure.matrix_room.clone(), clearing.membership));
            self.ghosts.again(now, clearing.key, clearing.departure);
        }
    }

    /// Empty what still stands of somebody who is gone, in the name of a local user who may.
    fn clear_membership(&mut self, now: i64, key: GhostKey, mut departure: Departure) {
        let Some(home) = departure.home else { return };
        let room = (home, departure.matrix_room.clone());
        let Some(server) = self.homes.get(home.0).map(|it| it.server.clone()) else { return };
        let user = departure.caller.user.clone();
        // Others' homeservers look after their own.
        if server.config.feed != Feed::Full || !server.is_local(&user) {
            return;
        }
        let is_down = self.homes.get(home.0).is_some_and(|it| it.down_since.is_some());
        let seen = self.rooms.known(&room).filter(|watched| !is_down && !watched.view.is_doubtful());
        let Some(watched) = seen else {
            // A homeserver that is gone, or weir itself that was restarted, leaves no ghost for ever.
            self.rooms.want(now, &room);
            self.ghosts.again(now, key, departure);
            return;
        };
        let view = &watched.view;
        let device = departure.caller.device.as_deref();
        let joined = view.membership(&user) == Some(Membership::Join);
        let state_key = view.standing_members().find_map(|(key, member)| match key {
            MemberKey::State(key) if member.user == user && Some(member.device.as_str()) == device => Some(key),
            _ => None,
        });
        let matrix_room = departure.matrix_room.clone();
        match (state_key, departure.dialect, departure.caller.member.clone()) {
            (Some(membership), Dialect::State, _) => {
                let level = |who: &&str| view.level(who);
                let helper = view.joined().filter(|who| server.is_local(who)).max_by_key(level).map(str::to_owned);
                let Some(as_user) = (if joined { Some(user) } else { helper }) else { return };
                if !self.may_clear(now, &matrix_room, &membership) {
                    return;
                }
                if !std::mem::replace(&mut departure.is_told, true) {
                    tracing::info!("a stale call membership is cleared");
                }
                let clearing = Box::new(Clearing { key, departure, membership: membership.clone() });
                spawn(&self.results, async move {
                    let result = server.clear_state(&matrix_room, CALL_MEMBER, &membership, &as_user).await;
                    Input::Cleared { clearing, result }
                });
            }
            // Encrypted memberships cannot be read: unless a leave was seen, one is sent.
            (None, Dialect::Sticky, Some(member)) if joined && !view.sticky_left(&user, &member) => {
                if !self.may_clear(now, &matrix_room, &member) {
                    return;
                }
                self.ghosts.sent += 1;
                let txn = format!("weir-{now}-{}", self.ghosts.sent);
                let clearing = Box::new(Clearing { key, departure, membership: member.clone() });
                spawn(&self.results, async move {
                    let result = server.send_sticky_leave(&matrix_room, &user, &member, &txn).await;
                    Input::Cleared { clearing, result }
                });
            }
            _ => {}
        }
    }

    /// Not what was cleared a moment ago: a page that lives announces itself again, and is not fought.
    fn may_clear(&mut self, now: i64, matrix_room: &str, membership: &str) -> bool {
        let may = self.ghosts.may_clear(now, matrix_room, membership);
        if !may {
            self.metrics.matrix.clearings.with_label_values(&["left"]).inc();
        }
        may
    }
}
