//! What homeservers tell: pushes, answers about rooms, signs of life, and when to ask again.

use std::collections::BTreeMap;

use signalling::matrix::event::{Event, Fact};

use super::super::calls::HomeId;
use super::super::homeserver::AskError;
use super::super::rooms::RoomKey;
use super::{Input, Service, spawn};
use crate::config::Feed;

/// How often views with somebody in the call are read again, ms: finds what a crashed homeserver never pushed.
const RECONCILE: i64 = 60_000;
/// The same where nothing is pushed.
const POLL: i64 = 5_000;
/// Pause between pings of a homeserver that is down, ms.
const PING: i64 = 2_000;

impl Service {
    pub(super) fn on_push(&mut self, now: i64, home: HomeId, events: Vec<Event>) {
        // It pushes: it lives.
        self.is_up(now, home);
        let mut touched: Vec<RoomKey> = Vec::new();
        let mut lists_changed = false;
        for event in events {
            if let Fact::PolicyRule { kind, key, rule } = &event.fact {
                lists_changed |= self.on_rule(home, &event.room, *kind, key, rule.clone());
                continue;
            }
            let key = (home, event.room.clone());
            let changes = self.rooms.push(now, &key, event);
            if (!changes.left.is_empty() || changes.rights) && !touched.contains(&key) {
                touched.push(key);
            }
        }
        if lists_changed {
            self.recheck_all(now, home);
        }
        touched.iter().for_each(|key| self.recheck(now, key));
    }

    pub(super) fn on_rule(
        &mut self,
        home: HomeId,
        room: &str,
        kind: signalling::matrix::policy::RuleKind,
        key: &str,
        rule: Option<signalling::matrix::policy::Rule>,
    ) -> bool {
        let Some(home) = self.homes.get_mut(home.0) else { return false };
        let honoured = home.server.config.policy_rooms.iter().any(|list| list.room == room);
        honoured && home.policies.apply(room, kind, key, rule)
    }

    pub(super) fn on_read(&mut self, now: i64, key: &RoomKey, result: Result<Vec<Event>, AskError>) {
        match &result {
            Err(AskError::Down) => self.is_down(now, key.0),
            _ => self.is_up(now, key.0),
        }
        if let (Ok(events), Some(home)) = (&result, self.homes.get_mut(key.0.0))
            && home.server.config.policy_rooms.iter().any(|list| list.room == key.1)
        {
            home.policies.clear(&key.1);
            for event in events {
                if let Fact::PolicyRule { kind, key: place, rule } = &event.fact {
                    home.policies.apply(&key.1, *kind, place, rule.clone());
                }
            }
            self.recheck_all(now, key.0);
        }
        let learnt = result != Err(AskError::Down);
        self.rooms.read(now, key, result);
        if learnt {
            self.recheck(now, key);
            self.reconsider(now, key);
        }
    }

    pub(super) fn is_up(&mut self, now: i64, home: HomeId) {
        let Some(it) = self.homes.get_mut(home.0) else { return };
        if it.down_since.take().is_some() {
            self.metrics.homeserver_up.with_label_values(&[&it.server.config.server_name]).set(1);
            tracing::info!(homeserver = %it.server.config.server_name, "the homeserver answers again");
            // What was missed is read; what is held back is asked for.
            it.ping_due = (it.server.config.feed == Feed::Full).then_some(now);
            for key in self.rooms.of_home(home) {
                self.rooms.doubt(now, &key);
            }
        }
    }

    pub(super) fn is_down(&mut self, now: i64, home: HomeId) {
        let Some(it) = self.homes.get_mut(home.0) else { return };
        if it.down_since.is_none() {
            let name = &it.server.config.server_name;
            tracing::warn!(homeserver = %name, "the homeserver does not answer as it should: calls go on, joins wait");
            self.metrics.homeserver_up.with_label_values(&[name]).set(0);
            it.down_since = Some(now);
        }
        it.ping_due.get_or_insert(now + PING);
    }

    pub(super) fn on_pinged(&mut self, now: i64, home: HomeId, result: Result<(), AskError>) {
        match result {
            Ok(()) => self.is_up(now, home),
            Err(_) => self.is_down(now, home),
        }
    }

    pub(super) fn ping_due(&mut self, now: i64) {
        for (index, home) in self.homes.iter_mut().enumerate() {
            if home.ping_due.is_some_and(|due| due <= now) {
                home.ping_due = None;
                let server = home.server.clone();
                spawn(&self.results, async move { Input::Pinged { home: HomeId(index), result: server.ping().await } });
            }
        }
    }

    pub(super) fn read_due(&mut self, now: i64) {
        self.reconcile(now);
        for key in self.rooms.take_due(now, self.reads.available_permits()) {
            let Some(home) = self.homes.get(key.0.0) else { continue };
            let server = home.server.clone();
            let hint = self.hint(&key);
            let reads = self.reads.clone();
            spawn(&self.results, async move {
                let _place = reads.acquire().await;
                let result = server.room(&key.1, hint.as_deref()).await;
                Input::Read { key, result }
            });
        }
    }

    /// A local user who is probably in the room, through whom it is read.
    pub(super) fn hint(&self, key: &RoomKey) -> Option<String> {
        let home = self.homes.get(key.0.0)?;
        let list = home.server.config.policy_rooms.iter().find(|list| list.room == key.1);
        let waiting = self.waiting.iter().filter_map(|asking| asking.user_for(key)).map(str::to_owned);
        let joined = self.rooms.known(key).into_iter().flat_map(|w| w.view.joined()).map(str::to_owned);
        let candidates = list.map(|list| list.as_user.clone()).into_iter().chain(waiting).chain(joined);
        candidates.into_iter().find(|user| home.server.is_local(user))
    }

    /// Views that matter to somebody in a call are read now and then, whatever was pushed.
    pub(super) fn reconcile(&mut self, now: i64) {
        let mut old: BTreeMap<RoomKey, ()> = BTreeMap::new();
        for (_, call) in self.calls.all() {
            for known in call.participants.values().filter(|known| !known.live.is_empty()) {
                let Some(home) = known.home else { continue };
                let key = (home, call.matrix_room.clone());
                let pushed = self.homes.get(home.0).is_some_and(|it| it.server.config.feed == Feed::Full);
                let every = if pushed { RECONCILE } else { POLL };
                if self.rooms.get(&key).is_none_or(|watched| now.saturating_sub(watched.read_at) >= every) {
                    old.insert(key, ());
                }
            }
        }
        old.keys().for_each(|key| self.rooms.want(now, key));
    }
}
