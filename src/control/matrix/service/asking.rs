//! Questions that may have to wait for a room to be read: may this user have a token, may this token be used?

use signalling::matrix::identity::{Caller, room_name};
use signalling::matrix::power::Dialect;
use signalling::matrix::server_name::server_of_user;
use signalling::matrix::view::Rights;
use signalling::token::CallClaim;
use tokio::sync::oneshot;

use super::super::admission::{self, Refused};
use super::super::calls::{HomeId, Known, RemoteLoad};
use super::super::rooms::RoomKey;
use super::{Admitted, Looked, ROOM_STATE, Service, Shown, TokenQuestion, WITHOUT_FEED, described};
use crate::config::Feed;
use crate::control::audit::{Record, What};

/// How old a view may be to give out a token, ms, where events are pushed.
const FRESH: i64 = 60_000;
/// The same where nothing is pushed.
const FRESH_POLLED: i64 = 2_000;
/// Questions that may wait at once; more are refused as if the homeserver were down.
const MAX_WAITING: usize = 4_096;

/// A question on its way through the views that may answer it.
#[derive(Debug)]
pub(super) struct Asking {
    matrix_room: String,
    /// Homeservers to be asked, in this order.
    homes: Vec<HomeId>,
    asked_at: i64,
    until: i64,
    purpose: Purpose,
}

#[derive(Debug)]
enum Purpose {
    Token { question: TokenQuestion, answer: oneshot::Sender<Result<Admitted, Refused>> },
    TakeUp { question: TokenQuestion, joined: bool, answer: oneshot::Sender<Looked> },
    Join { room: String, identity: String, user: String, answer: oneshot::Sender<Looked> },
}

impl Asking {
    /// When it is answered, whatever is known then.
    pub(super) const fn until(&self) -> i64 {
        self.until
    }

    /// Whom it is about, when it waits for this room.
    pub(super) fn user_for(&self, key: &RoomKey) -> Option<&str> {
        let waits = self.homes.first() == Some(&key.0) && self.matrix_room == key.1;
        waits.then_some(match &self.purpose {
            Purpose::Token { question, .. } | Purpose::TakeUp { question, .. } => question.caller.user.as_str(),
            Purpose::Join { user, .. } => user,
        })
    }

    fn is_join(&self) -> bool {
        matches!(self.purpose, Purpose::Join { .. })
    }
}

impl Service {
    pub(super) fn on_token(
        &mut self,
        now: i64,
        question: TokenQuestion,
        answer: oneshot::Sender<Result<Admitted, Refused>>,
    ) {
        let homes = self.homes_for(&question.caller.user);
        if homes.is_empty() {
            let result = admission::without_feed(self.config.without_feed);
            let result = result.and_then(|rights| self.grant(now, None, &question, rights, Rights::ALL));
            self.answer_token(now, &question, WITHOUT_FEED, result, answer);
            return;
        }
        let until = now + self.grace();
        let matrix_room = question.matrix_room.clone();
        let purpose = Purpose::Token { question, answer };
        self.consider(now, Asking { matrix_room, homes, asked_at: now, until, purpose });
    }

    pub(super) fn on_join(&mut self, now: i64, shown: Shown, answer: oneshot::Sender<Looked>) {
        let Shown { room, identity, issued_at, call, joined } = shown;
        if issued_at < self.calls.good_from(&room, &identity) {
            let _ = answer.send(Looked::nobody(Refused::Revoked));
            return;
        }
        let Some((call, known)) = self.calls.known(&room, &identity) else {
            match call.and_then(|call| question_of(*call, &room, identity)) {
                Some((home, question)) => self.take_up(now, &home, question, joined, answer),
                None => drop(answer.send(Looked::nobody(Refused::Revoked))),
            }
            return;
        };
        let Some(home) = known.home else {
            let user = Some(known.caller.user.clone());
            let _ = answer.send(Looked { user, rule: WITHOUT_FEED, result: Ok(known.rights) });
            return;
        };
        let (matrix_room, user) = (call.matrix_room.clone(), known.caller.user.clone());
        let purpose = Purpose::Join { room, identity, user, answer };
        let until = now + self.grace();
        self.consider(now, Asking { matrix_room, homes: vec![home], asked_at: now, until, purpose });
    }

    /// Another node let somebody in, or this one in an earlier life: the room says whether that still holds.
    fn take_up(
        &mut self,
        now: i64,
        home: &str,
        question: TokenQuestion,
        joined: bool,
        answer: oneshot::Sender<Looked>,
    ) {
        let mut homes = self.homes_for(&question.caller.user);
        if homes.is_empty() {
            let result = admission::without_feed(self.config.without_feed);
            let result = result.and_then(|rights| self.grant(now, None, &question, rights, Rights::ALL));
            let _ = answer.send(Looked::at(question.caller.user, WITHOUT_FEED, result));
            return;
        }
        let is_it = |id: &HomeId| self.homes.get(id.0).is_some_and(|it| it.server.config.server_name == home);
        // Who knew the user to be there is asked first.
        homes.sort_by_key(|id| !is_it(id));
        let until = now + self.grace();
        let matrix_room = question.matrix_room.clone();
        let purpose = Purpose::TakeUp { question, joined, answer };
        self.consider(now, Asking { matrix_room, homes, asked_at: now, until, purpose });
    }

    /// Whose views can say whether this user is in a room: the user's own homeserver's, else those of all.
    fn homes_for(&self, user: &str) -> Vec<HomeId> {
        let server = server_of_user(user).unwrap_or_default();
        let homes = self.homes.iter().enumerate();
        let own: Vec<_> = homes.clone().filter(|(_, home)| home.server.config.server_name == server).collect();
        let asked: Vec<_> = if own.is_empty() { homes.collect() } else { own };
        let with_feed = asked.into_iter().filter(|(_, home)| home.server.config.feed != Feed::Openid);
        with_feed.map(|(index, _)| HomeId(index)).collect()
    }

    fn grace(&self) -> i64 {
        i64::try_from(self.config.homeserver_grace.0.as_millis()).unwrap_or(10_000)
    }

    fn consider(&mut self, now: i64, mut asking: Asking) {
        while let Some(home) = asking.homes.first().copied() {
            let key = (home, asking.matrix_room.clone());
            if !self.can_answer(now, &key, &asking) {
                // However long it has been gone: whoever could prove who they are has just found it back.
                self.rooms.hurry(now, &key);
                self.hurry_lists(now, home);
                return self.wait(now, asking);
            }
            match self.decide(&key, &asking) {
                Ok((rights, cap)) => return self.accept(now, home, asking, rights, cap),
                // Clients ask for a token right after they have joined the room, and the push of that may be slower.
                Err(Refused::NotInRoom | Refused::Banned) if !self.is_sure(&key, &asking) => {
                    self.rooms.look_again(now, &key);
                    return self.wait(now, asking);
                }
                // Another homeserver may know this user to be in the room.
                Err(Refused::NotInRoom) if asking.homes.len() > 1 => drop(asking.homes.remove(0)),
                Err(refused) => return self.refuse(now, asking, refused),
            }
        }
    }

    /// Until the room was read; in the end nobody knows.
    fn wait(&mut self, now: i64, asking: Asking) {
        if now >= asking.until || self.waiting.len() >= MAX_WAITING {
            return self.refuse(now, asking, Refused::HomeserverDown);
        }
        self.waiting.push(asking);
    }

    /// Whether a refusal of a token can be certain: the room was read after the question came. Where many homeservers
    /// may be asked, those that have nobody in the room are not asked twice.
    fn is_sure(&self, key: &RoomKey, asking: &Asking) -> bool {
        let Some(watched) = self.rooms.get(key) else { return asking.is_join() };
        let is_elsewhere = asking.homes.len() > 1 && watched.view.joined().next().is_none();
        asking.is_join() || is_elsewhere || watched.began_at >= asking.asked_at
    }

    /// Whether a view is good enough for this question now.
    fn can_answer(&self, now: i64, key: &RoomKey, asking: &Asking) -> bool {
        let Some(watched) = self.rooms.known(key) else { return false };
        if asking.is_join() {
            // Whoever comes back to a running call is not kept waiting for long by a homeserver that fails.
            return !watched.view.is_doubtful() || now >= asking.until || self.is_down_for(now, key.0) > 0;
        }
        let fresh = if self.is_pushed(key.0) { FRESH } else { FRESH_POLLED };
        let down = self.is_down_for(now, key.0) > 0;
        let is_fresh = !watched.view.is_doubtful() && now.saturating_sub(watched.read_at) < fresh;
        is_fresh && !down && self.knows_lists(key.0)
    }

    fn is_down_for(&self, now: i64, home: HomeId) -> i64 {
        let since = self.homes.get(home.0).and_then(|home| home.down_since);
        since.map_or(0, |since| now.saturating_sub(since).max(1))
    }

    fn decide(&self, key: &RoomKey, asking: &Asking) -> Result<(Rights, Rights), Refused> {
        match &asking.purpose {
            Purpose::Token { question, .. } | Purpose::TakeUp { question, .. } => {
                let (user, slot) = (&question.caller.user, &question.slot);
                let room = room_name(&question.matrix_room, slot);
                let was_inside = matches!(asking.purpose, Purpose::TakeUp { joined: true, .. });
                let inside = was_inside || self.calls.is_live(&room, user, question.caller.device.as_deref());
                let rights =
                    self.admit(key, user, slot, question.dialect, inside).unwrap_or(Err(Refused::NotInRoom))?;
                Ok((rights, self.cap_of(key.0, &room, user, inside)?))
            }
            Purpose::Join { room, identity, .. } => {
                let (call, known) = self.calls.known(room, identity).ok_or(Refused::Revoked)?;
                let inside = !known.live.is_empty();
                let admitted = self.admit(key, &known.caller.user, &call.slot, known.dialect, inside);
                Ok((admitted.unwrap_or(Err(Refused::NotInRoom))?, known.cap))
            }
        }
    }

    /// The most a user may have by the policy for users of other homeservers, and by who is there already.
    pub(super) fn cap_of(&self, home: HomeId, room: &str, user: &str, inside: bool) -> Result<Rights, Refused> {
        let Some(it) = self.homes.get(home.0) else { return Err(Refused::NotInRoom) };
        if it.server.is_local(user) {
            return Ok(Rights::ALL);
        }
        let policy = self.remote_policy(home);
        let is_remote = |known: &Known| known.home == Some(home) && !it.server.is_local(&known.caller.user);
        let load = if inside {
            RemoteLoad::default()
        } else {
            self.calls.remote_load(room, server_of_user(user).unwrap_or_default(), is_remote)
        };
        admission::cap(policy, load)
    }

    fn accept(&mut self, now: i64, home: HomeId, asking: Asking, rights: Rights, cap: Rights) {
        match asking.purpose {
            Purpose::Token { question, answer } => {
                let result = self.grant(now, Some(home), &question, rights, cap);
                self.answer_token(now, &question, ROOM_STATE, result, answer);
            }
            Purpose::TakeUp { question, answer, .. } => {
                let room = room_name(&question.matrix_room, &question.slot);
                let result = self.grant(now, Some(home), &question, rights, cap);
                if result.is_ok() {
                    self.decisions.note(now, &question.caller.user, "was let in with a token of another node");
                    self.ghosts.heard_of(now, &room, &question.caller);
                }
                let _ = answer.send(Looked::at(question.caller.user, ROOM_STATE, result));
            }
            Purpose::Join { room, identity, user, answer } => {
                let rights = rights.and(cap);
                if let Some(known) = self.calls.known_mut(&room, &identity) {
                    known.rights = rights;
                    self.ghosts.heard_of(now, &room, &known.caller);
                }
                let _ = answer.send(Looked { user: Some(user), rule: ROOM_STATE, result: Ok(rights) });
            }
        }
    }

    fn refuse(&mut self, now: i64, asking: Asking, refused: Refused) {
        match asking.purpose {
            Purpose::Token { question, answer } => {
                self.answer_token(now, &question, refused.label(), Err(refused), answer);
            }
            Purpose::TakeUp { question: TokenQuestion { caller: Caller { user, .. }, .. }, answer, .. }
            | Purpose::Join { user, answer, .. } => {
                self.decisions.note(now, &user, &format!("was not let in with a token: {}", refused.words()));
                let _ = answer.send(Looked { user: Some(user), rule: refused.label(), result: Err(refused) });
            }
        }
    }

    fn answer_token(
        &mut self,
        now: i64,
        question: &TokenQuestion,
        rule: &'static str,
        result: Result<Admitted, Refused>,
        answer: oneshot::Sender<Result<Admitted, Refused>>,
    ) {
        let user = &question.caller.user;
        let words = match &result {
            Ok(admitted) => format!("got a token and may publish {}", described(admitted.rights)),
            Err(refused) => format!("got no token: {}", refused.words()),
        };
        self.decisions.note(now, user, &words);
        let room = room_name(&question.matrix_room, &question.slot);
        let (what, rule) = match &result {
            Ok(_) => (What::Admission, rule),
            Err(refused) => (What::Refusal, refused.label()),
        };
        self.audit.record(&Record {
            what,
            at: "token",
            room: &room,
            who: user,
            rule,
            why: &words,
            ..Record::default()
        });
        // Fails when the client has gone meanwhile.
        let _ = answer.send(result);
    }

    /// Remember who was let in, so that the token works, and what to do when they are gone.
    fn grant(
        &mut self,
        now: i64,
        home: Option<HomeId>,
        question: &TokenQuestion,
        rights: Rights,
        cap: Rights,
    ) -> Result<Admitted, Refused> {
        let room = room_name(&question.matrix_room, &question.slot);
        let rights = rights.and(cap);
        let known = Known {
            home,
            caller: question.caller.clone(),
            dialect: question.dialect,
            cap,
            rights,
            granted_at: now,
            live: std::collections::BTreeSet::new(),
        };
        let name = home.and_then(|id| self.homes.get(id.0)).map(|home| home.server.config.server_name.as_str());
        self.store.caller(&room, &question.matrix_room, &question.slot, &question.identity, name, &known);
        if !self.calls.grant(&room, &question.matrix_room, &question.slot, &question.identity, known) {
            return Err(Refused::Full);
        }
        if let Some(leave) = &question.leave {
            self.delegate(now, &room, &question.caller, leave);
        }
        Ok(Admitted { rights, not_before: self.calls.good_from(&room, &question.identity), home })
    }

    /// A room was read: whoever waited for it is answered, or asks the next homeserver.
    pub(super) fn reconsider(&mut self, now: i64, key: &RoomKey) {
        let (ready, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|asking| asking.homes.first() == Some(&key.0) && asking.matrix_room == key.1);
        self.waiting = waiting;
        let ready: Vec<Asking> = ready;
        ready.into_iter().for_each(|asking| self.consider(now, asking));
    }

    /// The lists of a homeserver were read: whoever waited for that is answered.
    pub(super) fn reconsider_home(&mut self, now: i64, home: HomeId) {
        let (ready, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition::<Vec<_>, _>(|asking| asking.homes.first() == Some(&home));
        self.waiting = waiting;
        ready.into_iter().for_each(|asking| self.consider(now, asking));
    }

    /// Nobody waits longer than the grace.
    pub(super) fn expire_waiting(&mut self, now: i64) {
        if self.waiting.iter().all(|asking| asking.until > now) {
            return;
        }
        let (over, waiting) =
            std::mem::take(&mut self.waiting).into_iter().partition::<Vec<_>, _>(|asking| asking.until <= now);
        self.waiting = waiting;
        over.into_iter().for_each(|asking| self.consider(now, asking));
    }
}

/// What was asked when this token was made, and of whom; `None`: its parts do not fit together.
fn question_of(call: CallClaim, room: &str, identity: String) -> Option<(String, TokenQuestion)> {
    let caller = Caller { user: call.user, device: call.device, member: call.member };
    let is_right = room_name(&call.room, &call.slot) == room && caller.identities().contains(&identity);
    is_right.then(|| {
        let dialect = if call.sticky { Dialect::Sticky } else { Dialect::State };
        let (matrix_room, slot) = (call.room, call.slot);
        (call.home, TokenQuestion { matrix_room, slot, caller, identity, dialect, leave: None })
    })
}
