//! What is known is made true: whoever may no longer be in a call goes, whoever may do more or less is told.

use signalling::matrix::power::Dialect;
use signalling::matrix::view::Rights;
use tokio::sync::mpsc;

use super::super::admission::{self, Question, Refused, Rules};
use super::super::calls::HomeId;
use super::super::rooms::RoomKey;
use super::{Came, Order, Presence, Service, described};
use crate::control::audit::{Record, What};

impl Service {
    /// Whoever may no longer be in a call goes; whoever may do more or less is told.
    pub(super) fn recheck(&mut self, now: i64, key: &RoomKey) {
        for (room, identity) in self.calls.of_matrix_room(key.0, &key.1) {
            self.recheck_one(now, &room, &identity);
        }
    }

    pub(super) fn recheck_all(&mut self, now: i64, home: HomeId) {
        self.rooms.of_home(home).iter().for_each(|key| self.recheck(now, key));
    }

    pub(super) fn recheck_one(&mut self, now: i64, room: &str, identity: &str) {
        let Some((call, known)) = self.calls.known(room, identity) else { return };
        let Some(home) = known.home else { return };
        let key = (home, call.matrix_room.clone());
        let result = self.admit(&key, &known.caller.user, &call.slot, known.dialect, true);
        let (before, cap) = (known.rights, known.cap);
        match result {
            None => {}
            Some(Err(refused)) => self.eject(now, room, identity, refused),
            Some(Ok(rights)) => {
                let rights = rights.and(cap);
                if rights != before {
                    self.permit(now, room, identity, rights);
                }
            }
        }
    }

    /// What the view of a room says about a user; `None` when nothing is known of the room.
    pub(super) fn admit(
        &self,
        key: &RoomKey,
        user: &str,
        slot: &str,
        dialect: Dialect,
        is_inside: bool,
    ) -> Option<Result<Rights, Refused>> {
        let (watched, home) = (self.rooms.known(key)?, self.homes.get(key.0.0)?);
        let question = Question { user, slot, matrix_room: &key.1, dialect, is_inside };
        let rules = Rules { policies: &home.policies, feed: home.server.config.feed };
        Some(admission::admit(&watched.view, &question, &rules))
    }

    /// Out, and no way back with any token given so far.
    pub(super) fn eject(&mut self, now: i64, room: &str, identity: &str, why: Refused) {
        let matrix_room = self.calls.known(room, identity).map(|(call, _)| call.matrix_room.clone());
        let Some(known) = self.calls.revoke(now, room, identity) else { return };
        self.store.revoke(room, identity, now);
        self.order(Order::Remove { room: room.to_owned(), identity: identity.to_owned() });
        self.decisions.note(now, &known.caller.user, &format!("was removed, with all tokens: {}", why.words()));
        let at = if known.live.is_empty() { "token" } else { "call" };
        let (user, rule) = (&known.caller.user, why.label());
        self.audit.record(&Record {
            what: What::Ejection,
            at,
            room,
            who: user,
            rule,
            why: &format!("was removed, with all tokens: {}", why.words()),
            ..Record::default()
        });
        if known.live.is_empty() {
            return;
        }
        self.metrics.matrix.ejections.with_label_values(&[why.label()]).inc();
        if let Some(matrix_room) = matrix_room {
            self.ghosts.gone(now, room, &matrix_room, &known, 0);
        }
    }

    /// Tokens are given by who is there then. Who comes in with one is counted again: more may have been given than there
    /// are places. False when it had to go.
    fn keeps_quotas(&mut self, now: i64, room: &str, identity: &str) -> bool {
        let Some((_, known)) = self.calls.known(room, identity) else { return true };
        let Some(home) = known.home.filter(|_| known.live.is_empty()) else { return true };
        match self.cap_of(home, room, &known.caller.user, false) {
            Ok(cap) => {
                if let Some(known) = self.calls.known_mut(room, identity) {
                    known.cap = cap;
                }
                true
            }
            Err(refused) => {
                self.eject(now, room, identity, refused);
                false
            }
        }
    }

    /// Who has just come in may have lost a right after its token was checked and before the room knew it.
    fn confirm_rights(&self, room: &str, identity: &str) {
        if let Some((_, known)) = self.calls.known(room, identity) {
            let rights = known.rights;
            self.order(Order::Permit { room: room.to_owned(), identity: identity.to_owned(), rights });
        }
    }

    pub(super) fn permit(&mut self, now: i64, room: &str, identity: &str, rights: Rights) {
        let Some(known) = self.calls.known_mut(room, identity) else { return };
        known.rights = rights;
        let user = known.caller.user.clone();
        self.order(Order::Permit { room: room.to_owned(), identity: identity.to_owned(), rights });
        self.decisions.note(now, &user, &format!("may now publish {}", described(rights)));
    }

    pub(super) fn order(&self, order: Order) {
        if let Err(mpsc::error::TrySendError::Full(order)) = self.orders.try_send(order) {
            // More orders than places: none may be lost, so this one waits on its own.
            let orders = self.orders.clone();
            tokio::spawn(async move { orders.send(order).await });
        }
    }

    pub(super) fn on_presence(&mut self, now: i64, presence: &Presence) {
        let Presence { room, identity, sid, what } = presence;
        match what {
            Came::Joined => {
                if !self.keeps_quotas(now, room, identity) {
                    return;
                }
                if !self.calls.joined(room, identity, sid) {
                    // Let in by nobody, or removed while it was on its way.
                    self.audit.record(&Record {
                        what: What::Ejection,
                        at: "call",
                        room,
                        who: identity,
                        rule: "not_admitted",
                        why: "was let in by nobody, or removed on its way",
                        ..Record::default()
                    });
                    self.order(Order::Remove { room: room.clone(), identity: identity.clone() });
                    return;
                }
                self.store.live(room, identity, true);
                self.ceilings.joined(room, identity);
                self.leave_connected(now, room, identity);
                self.recheck_one(now, room, identity);
                self.confirm_rights(room, identity);
            }
            Came::Left { intended } => {
                if self.calls.left(room, identity, sid) {
                    self.store.live(room, identity, false);
                    self.departed(now, room, identity, *intended);
                }
            }
        }
    }
}
