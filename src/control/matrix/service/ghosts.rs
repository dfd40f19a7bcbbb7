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
use super::{Input, Service, spawn};
use crate::config::Feed;

/// How long somebody who hung up may take to turn out as somebody who joins anew, ms.
const SECOND_THOUGHTS: i64 = 1_200;
/// How long a leave that was sent may take to show in the room, ms.
const SENT: i64 = 3_000;
/// How long pages may take to come back after weir was restarted, ms.
const RESTART: i64 = 20_000;
/// At most one clean-up of a membership in this time, ms.
const ONCE_IN: i64 = 600_000;
/// Departures and clean-ups remembered.
const MAX_REMEMBERED: usize = 65_536;

#[derive(Debug)]
struct Departure {
    due: i64,
    matrix_room: String,
    home: Option<HomeId>,
    dialect: Dialect,
    caller: Caller,
    /// The leave was dealt with; what is left is to look whether the membership is gone.
    leave_sent: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Ghosts {
    /// By SFU room and identity.
    departures: BTreeMap<(String, String), Departure>,
    /// When a membership was cleared last.
    cleared: BTreeMap<(String, String), i64>,
    sent: u64,
}

impl Ghosts {
    /// Somebody was in the call when weir ended.
    pub(super) fn restored(&mut self, now: i64, room: &str, matrix_room: &str, known: &Known) {
        self.gone(now, room, matrix_room, known, RESTART);
    }

    /// Somebody is gone, unless back within `grace`.
    pub(super) fn gone(&mut self, now: i64, room: &str, matrix_room: &str, known: &Known, grace: i64) {
        let form = [IdentityForm::UserDevice, IdentityForm::UserDeviceMember, IdentityForm::UserMember];
        let Some(identity) = form.into_iter().find_map(|form| known.caller.identity(form)) else { return };
        if self.departures.len() >= MAX_REMEMBERED {
            return;
        }
        let departure = Departure {
            due: now + grace,
            matrix_room: matrix_room.to_owned(),
            home: known.home,
            dialect: known.dialect,
            caller: known.caller.clone(),
            leave_sent: false,
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

    pub(super) fn ghosts_due(&mut self, now: i64) {
        let due = |departure: &Departure| departure.due <= now;
        let keys: Vec<_> = self.ghosts.departures.iter().filter(|(_, d)| due(d)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            let Some(mut departure) = self.ghosts.departures.remove(&key) else { continue };
            let room = key.0.as_str();
            if self.calls.is_live(room, &departure.caller.user, departure.caller.device.as_deref()) {
                continue;
            }
            if !departure.leave_sent && self.leave_gone(now, room, &departure.caller) {
                departure.leave_sent = true;
                departure.due = now + SENT;
                self.ghosts.departures.insert(key, departure);
                continue;
            }
            self.clear_membership(now, &departure);
        }
    }

    /// Empty what still stands of somebody who is gone, in the name of a local user who may.
    fn clear_membership(&mut self, now: i64, departure: &Departure) {
        let Some(home) = departure.home else { return };
        let room = (home, departure.matrix_room.clone());
        let Some(server) = self.homes.get(home.0).map(|it| it.server.clone()) else { return };
        let user = departure.caller.user.clone();
        // Others' homeservers look after their own.
        if server.config.feed != Feed::Full || !server.is_local(&user) {
            return;
        }
        let Some(watched) = self.rooms.known(&room) else { return };
        let view = &watched.view;
        let device = departure.caller.device.as_deref();
        let joined = view.membership(&user) == Some(Membership::Join);
        let state_key = view.standing_members().find_map(|(key, member)| match key {
            MemberKey::State(key) if member.user == user && Some(member.device.as_str()) == device => Some(key),
            _ => None,
        });
        let matrix_room = departure.matrix_room.clone();
        match (state_key, departure.dialect, &departure.caller.member) {
            (Some(key), Dialect::State, _) => {
                let level = |who: &&str| view.level(who);
                let helper = view.joined().filter(|who| server.is_local(who)).max_by_key(level).map(str::to_owned);
                let Some(as_user) = (if joined { Some(user.clone()) } else { helper }) else { return };
                if self.ghosts.may_clear(now, &matrix_room, &key) {
                    tracing::info!("a stale call membership is cleared");
                    spawn(&self.results, async move {
                        let result = server.clear_state(&matrix_room, CALL_MEMBER, &key, &as_user).await;
                        Input::Cleared { user, result }
                    });
                }
            }
            // Encrypted memberships cannot be read: unless a leave was seen, one is sent.
            (None, Dialect::Sticky, Some(member))
                if joined && !view.sticky_left(&user, member) && self.ghosts.may_clear(now, &matrix_room, member) =>
            {
                self.ghosts.sent += 1;
                let (member, txn) = (member.clone(), format!("weir-{now}-{}", self.ghosts.sent));
                spawn(&self.results, async move {
                    let result = server.send_sticky_leave(&matrix_room, &user, &member, &txn).await;
                    Input::Cleared { user, result }
                });
            }
            _ => {}
        }
    }
}
