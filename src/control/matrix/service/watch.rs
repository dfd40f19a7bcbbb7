//! What homeservers tell: pushes, answers about rooms, signs of life, and when to ask again.

use std::collections::BTreeMap;

use signalling::matrix::event::{Event, Fact};

use super::super::calls::HomeId;
use super::super::homeserver::{AskError, Reach};
use super::super::rooms::RoomKey;
use super::{Input, Service, spawn};
use crate::config::Feed;

/// How often views with somebody in the call are read again, ms: finds what a crashed homeserver never pushed.
const RECONCILE: i64 = 60_000;
/// The same where nothing is pushed.
const POLL: i64 = 5_000;
/// The same of moderation lists, which may be long.
const LISTS: i64 = 600_000;
/// Pause between pings of a homeserver that is down, ms.
const PING: i64 = 2_000;
/// The same of one that answers, but cannot reach weir.
const PING_ONE_WAY: i64 = 30_000;

impl Service {
    pub(super) fn on_push(&mut self, now: i64, home: HomeId, events: Vec<Event>) {
        // It pushes: it lives.
        self.is_up(now, home, None);
        self.set_pushes(home, true);
        let (mut touched, mut joined): (Vec<RoomKey>, Vec<RoomKey>) = (Vec::new(), Vec::new());
        let mut lists_changed = false;
        for event in events {
            if let Fact::PolicyRule { kind, key, rule } = &event.fact {
                lists_changed |= self.on_rule(home, &event.room, *kind, key, rule.clone());
                continue;
            }
            let key = (home, event.room.clone());
            let changes = self.rooms.push(now, &key, event);
            if (!changes.left.is_empty() || changes.rights) && !touched.contains(&key) {
                touched.push(key.clone());
            }
            if !changes.joined.is_empty() && !joined.contains(&key) {
                joined.push(key);
            }
        }
        if lists_changed {
            self.recheck_all(now, home);
        }
        touched.iter().for_each(|key| self.recheck(now, key));
        joined.iter().for_each(|key| self.reconsider(now, key));
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
            _ => self.is_up(now, key.0, Some(key)),
        }
        let is_list = self.is_list(key);
        match &result {
            Ok(events) if is_list => self.install_list(now, key, events),
            // The rules that were read before stand.
            Err(AskError::Refused) if is_list => {
                tracing::warn!("a moderation list cannot be read: its `as_user` is not in the policy room");
            }
            _ => {}
        }
        let learnt = result != Err(AskError::Down);
        self.rooms.read(now, key, result);
        if learnt && is_list {
            self.reconsider_home(now, key.0);
        }
        if learnt {
            self.recheck(now, key);
            self.reconsider(now, key);
        }
    }

    fn is_list(&self, key: &RoomKey) -> bool {
        let home = self.homes.get(key.0.0);
        home.is_some_and(|home| home.server.config.policy_rooms.iter().any(|list| list.room == key.1))
    }

    /// Whether every moderation list of a homeserver was looked at since weir was started.
    pub(super) fn knows_lists(&self, home: HomeId) -> bool {
        let lists = self.homes.get(home.0).map(|it| it.server.config.policy_rooms.as_slice()).unwrap_or_default();
        lists.iter().all(|list| self.rooms.known(&(home, list.room.clone())).is_some())
    }

    /// Somebody waits for the lists.
    pub(super) fn hurry_lists(&mut self, now: i64, home: HomeId) {
        let lists = self.homes.get(home.0).map(|it| it.server.config.policy_rooms.as_slice()).unwrap_or_default();
        for key in lists.iter().map(|list| (home, list.room.clone())) {
            if self.rooms.known(&key).is_none() {
                self.rooms.hurry(now, &key);
            }
        }
    }

    fn install_list(&mut self, now: i64, key: &RoomKey, events: &[Event]) {
        let Some(home) = self.homes.get_mut(key.0.0) else { return };
        home.policies.clear(&key.1);
        for event in events {
            if let Fact::PolicyRule { kind, key: place, rule } = &event.fact {
                home.policies.apply(&key.1, *kind, place, rule.clone());
            }
        }
        home.lists_read.insert(key.1.clone(), now);
        let all = home.server.config.policy_rooms.iter();
        let oldest = all.map(|list| home.lists_read.get(&list.room).copied().unwrap_or(0)).min().unwrap_or(0);
        let name = [home.server.config.server_name.as_str()];
        self.metrics.matrix.lists_read.with_label_values(&name).set(oldest.div_euclid(1000));
        let rules = i64::try_from(home.policies.len()).unwrap_or(i64::MAX);
        self.metrics.matrix.list_rules.with_label_values(&name).set(rules);
        self.recheck_all(now, key.0);
    }

    /// It answers. `read`: a room that it has just told the state of.
    pub(super) fn is_up(&mut self, now: i64, home: HomeId, read: Option<&RoomKey>) {
        let Some(it) = self.homes.get_mut(home.0) else { return };
        if it.down_since.take().is_some() {
            self.metrics.matrix.homeserver_up.with_label_values(&[&it.server.config.server_name]).set(1);
            tracing::info!(homeserver = %it.server.config.server_name, "the homeserver answers again");
            // What was missed is read; what is held back is asked for.
            it.ping_due = (it.server.config.feed == Feed::Full).then_some(now);
            for key in self.rooms.of_home(home).into_iter().filter(|key| Some(key) != read) {
                self.rooms.doubt(now, &key);
            }
        }
    }

    pub(super) fn is_down(&mut self, now: i64, home: HomeId) {
        let Some(it) = self.homes.get_mut(home.0) else { return };
        if it.down_since.is_none() {
            let name = &it.server.config.server_name;
            tracing::warn!(homeserver = %name, "the homeserver does not answer as it should: calls go on, joins wait");
            self.metrics.matrix.homeserver_up.with_label_values(&[name]).set(0);
            it.down_since = Some(now);
        }
        it.ping_due.get_or_insert(now + PING);
    }

    pub(super) fn on_pinged(&mut self, now: i64, home: HomeId, result: Result<Reach, AskError>) {
        let Ok(reach) = result else { return self.is_down(now, home) };
        self.is_up(now, home, None);
        self.set_pushes(home, reach == Reach::Both);
        if let Some(it) = self.homes.get_mut(home.0) {
            it.ping_due = (reach == Reach::OneWay).then_some(now + PING_ONE_WAY);
        }
    }

    /// Whether it pushes what happens. Where it cannot, rooms are read often instead.
    fn set_pushes(&mut self, home: HomeId, pushes: bool) {
        let Some(it) = self.homes.get_mut(home.0).filter(|it| it.pushes != pushes) else { return };
        it.pushes = pushes;
        let name = &it.server.config.server_name;
        self.metrics.matrix.homeserver_pushes.with_label_values(&[name]).set(i64::from(pushes));
        if !pushes {
            tracing::warn!(
                homeserver = %name,
                "the homeserver cannot reach weir at the `url` of its registration: rooms are asked about every few seconds"
            );
        }
    }

    /// Whether what happens in rooms of this homeserver is heard of at once.
    pub(super) fn is_pushed(&self, home: HomeId) -> bool {
        self.homes.get(home.0).is_some_and(|it| it.server.config.feed == Feed::Full && it.pushes)
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
                let every = if self.is_pushed(home) { RECONCILE } else { POLL };
                if self.rooms.get(&key).is_none_or(|watched| now.saturating_sub(watched.read_at) >= every) {
                    old.insert(key, ());
                }
            }
        }
        for (index, home) in self.homes.iter().enumerate() {
            for list in &home.server.config.policy_rooms {
                let key = (HomeId(index), list.room.clone());
                if self.rooms.get(&key).is_none_or(|watched| now.saturating_sub(watched.read_at) >= LISTS) {
                    old.insert(key, ());
                }
            }
        }
        old.keys().for_each(|key| self.rooms.want(now, key));
    }
}
