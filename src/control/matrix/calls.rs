//! Who was let into which call, and which tokens are revoked. Plain data: it decides nothing and asks nobody.

use std::collections::{BTreeMap, BTreeSet};

use signalling::matrix::identity::Caller;
use signalling::matrix::power::Dialect;
use signalling::matrix::view::Rights;

/// A homeserver, by its place in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HomeId(pub(super) usize);

/// A participant of a call as Matrix knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// The homeserver whose rooms say what this one may do; `None`: nothing is known, the policy decides.
    pub(super) home: Option<HomeId>,
    /// User, device and member id.
    pub(super) caller: Caller,
    /// How it announces its membership.
    pub(super) dialect: Dialect,
    /// The most the policy for remote users lets it have.
    pub(super) cap: Rights,
    /// What it was last allowed.
    pub(super) rights: Rights,
    /// Unix ms of its last token.
    pub(super) granted_at: i64,
    /// Sids of its sessions that are connected.
    pub(super) live: BTreeSet<String>,
}

/// A call: an SFU room with what it stands for.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) matrix_room: String,
    pub(super) slot: String,
    pub(super) participants: BTreeMap<String, Known>,
}

/// Most callers remembered per call.
const MAX_PER_CALL: usize = 4_096;
/// Callers of one user remembered per call: a page that is loaded anew is another one. The oldest that is not connected
/// makes place.
const MAX_PER_USER: usize = 32;
/// Most calls.
const MAX_CALLS: usize = 65_536;
/// When so many are remembered, one Matrix room may add none beyond this: slots are named by clients.
const MANY_CALLS: usize = 4_096;
const MAX_PER_MATRIX_ROOM: usize = 16;
/// Sessions of one identity that are counted; there is one, or two while one replaces the other.
const MAX_SESSIONS: usize = 8;
/// How long a revocation is kept, ms: longer than any token lives, with all refreshments of a lost connection.
const REVOKED_FOR: i64 = 24 * 3_600_000;

/// All calls.
#[derive(Debug, Default)]
pub(super) struct Calls {
    calls: BTreeMap<String, Call>,
    revoked: BTreeMap<(String, String), i64>,
}

impl Calls {
    /// Remember somebody who got a token. False when there is no place.
    pub(super) fn grant(&mut self, room: &str, matrix_room: &str, slot: &str, identity: &str, known: Known) -> bool {
        if !self.calls.contains_key(room) && !self.has_place_for_call(matrix_room) {
            return false;
        }
        let call = self.calls.entry(room.to_owned()).or_insert_with(|| Call {
            matrix_room: matrix_room.to_owned(),
            slot: slot.to_owned(),
            participants: BTreeMap::new(),
        });
        let is_new = !call.participants.contains_key(identity);
        let has_place = call.participants.len() < MAX_PER_CALL && (!is_new || call.make_place(&known.caller.user));
        match call.participants.get_mut(identity) {
            Some(there) => {
                let live = std::mem::take(&mut there.live);
                *there = Known { live, ..known };
                true
            }
            None if has_place => {
                call.participants.insert(identity.to_owned(), known);
                true
            }
            None => false,
        }
    }

    fn has_place_for_call(&self, matrix_room: &str) -> bool {
        let of_room = || self.calls.values().filter(|call| call.matrix_room == matrix_room).count();
        let count = self.calls.len();
        count < MANY_CALLS || (count < MAX_CALLS && of_room() < MAX_PER_MATRIX_ROOM)
    }

    /// Somebody who was let in.
    pub(super) fn known(&self, room: &str, identity: &str) -> Option<(&Call, &Known)> {
        let call = self.calls.get(room)?;
        Some((call, call.participants.get(identity)?))
    }

    /// The same, to be changed.
    pub(super) fn known_mut(&mut self, room: &str, identity: &str) -> Option<&mut Known> {
        self.calls.get_mut(room)?.participants.get_mut(identity)
    }

    /// All calls.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &Call)> {
        self.calls.iter().map(|(room, call)| (room.as_str(), call))
    }

    /// Everybody let in through a homeserver's view of a Matrix room, as (SFU room, identity).
    pub(super) fn of_matrix_room(&self, home: HomeId, matrix_room: &str) -> Vec<(String, String)> {
        let calls = self.calls.iter().filter(|(_, call)| call.matrix_room == matrix_room);
        let everybody = calls.flat_map(|(room, call)| {
            let of_home = call.participants.iter().filter(|(_, known)| known.home == Some(home));
            of_home.map(|(identity, _)| (room.clone(), identity.clone()))
        });
        everybody.collect()
    }

    /// Whether any session of this user's device is connected to the call.
    pub(super) fn is_live(&self, room: &str, user: &str, device: Option<&str>) -> bool {
        self.calls.get(room).is_some_and(|call| {
            call.participants.values().any(|known| {
                known.caller.user == user && known.caller.device.as_deref() == device && !known.live.is_empty()
            })
        })
    }

    /// A session connected. False when nobody let this identity in.
    pub(super) fn joined(&mut self, room: &str, identity: &str, sid: &str) -> bool {
        let Some(known) = self.known_mut(room, identity) else { return false };
        if known.live.len() < MAX_SESSIONS {
            known.live.insert(sid.to_owned());
        }
        true
    }

    /// A session ended. True when it was the last of its identity.
    pub(super) fn left(&mut self, room: &str, identity: &str, sid: &str) -> bool {
        let Some(known) = self.known_mut(room, identity) else { return false };
        known.live.remove(sid) && known.live.is_empty()
    }

    /// Forget a participant and refuse every token it has, from before `now` (unix ms).
    pub(super) fn revoke(&mut self, now: i64, room: &str, identity: &str) -> Option<Known> {
        self.revoked.insert((room.to_owned(), identity.to_owned()), now);
        self.calls.get_mut(room)?.participants.remove(identity)
    }

    /// Restore a revocation.
    pub(super) fn restore_revocation(&mut self, room: String, identity: String, at: i64) {
        self.revoked.insert((room, identity), at);
    }

    /// The first second in which a token may be signed that is not revoked, unix seconds.
    pub(super) fn good_from(&self, room: &str, identity: &str) -> i64 {
        let at = self.revoked.get(&(room.to_owned(), identity.to_owned()));
        at.map_or(0, |at| at.div_euclid(1000) + 1)
    }

    /// Forget who is not there and has no token any more, and old revocations. Gives the pairs forgotten.
    pub(super) fn prune(&mut self, now: i64, token_lifetime: i64) -> Vec<(String, String)> {
        self.revoked.retain(|_, at| now.saturating_sub(*at) < REVOKED_FOR);
        let mut gone = Vec::new();
        for (room, call) in &mut self.calls {
            call.participants.retain(|identity, known| {
                let keep = !known.live.is_empty() || now.saturating_sub(known.granted_at) < token_lifetime;
                if !keep {
                    gone.push((room.clone(), identity.clone()));
                }
                keep
            });
        }
        self.calls.retain(|_, call| !call.participants.is_empty());
        gone
    }

    /// Participants that are connected now, of users of other servers: of the call, and of one server in all calls.
    pub(super) fn remote_load(&self, room: &str, server: &str, is_remote: impl Fn(&Known) -> bool) -> RemoteLoad {
        let mut load = RemoteLoad::default();
        for (name, call) in &self.calls {
            for known in call.participants.values().filter(|known| !known.live.is_empty() && is_remote(known)) {
                let of_server = signalling::matrix::server_name::server_of_user(&known.caller.user) == Some(server);
                load.of_server += u32::from(of_server);
                load.publishers_of_server += u32::from(of_server && known.rights.any());
                load.in_room += u32::from(name == room);
                load.publishers_in_room += u32::from(name == room && known.rights.any());
            }
        }
        load
    }
}

impl Call {
    /// Whether one more caller of a user can be remembered; one of its own may be forgotten for it.
    fn make_place(&mut self, user: &str) -> bool {
        let of_user = || self.participants.iter().filter(|(_, known)| known.caller.user == user);
        if of_user().count() < MAX_PER_USER {
            return true;
        }
        let away = of_user().filter(|(_, known)| known.live.is_empty());
        let oldest = away.min_by_key(|(_, known)| known.granted_at).map(|(identity, _)| identity.clone());
        oldest.is_some_and(|identity| self.participants.remove(&identity).is_some())
    }
}

/// How many users of other servers are connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RemoteLoad {
    pub(super) in_room: u32,
    pub(super) publishers_in_room: u32,
    pub(super) of_server: u32,
    pub(super) publishers_of_server: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(user: &str, device: &str) -> Known {
        Known {
            home: Some(HomeId(0)),
            caller: Caller { user: user.to_owned(), device: Some(device.to_owned()), member: None },
            dialect: Dialect::State,
            cap: Rights::ALL,
            rights: Rights::ALL,
            granted_at: 1_000,
            live: BTreeSet::new(),
        }
    }

    #[test]
    fn one_user_takes_the_place_of_its_own_callers_only() {
        let mut calls = Calls::default();
        let mut grant = |user: &str, device: usize| {
            let device = format!("D{device}");
            let identity = format!("{user}:{device}");
            let granted_at =
                1_000 + i64::try_from(calls.all().map(|(_, call)| call.participants.len()).sum::<usize>()).unwrap();
            let is_in = calls.grant("r", "!a:hs", "s", &identity, Known { granted_at, ..known(user, &device) });
            calls.joined("r", &identity, "PA");
            is_in
        };
        assert!(grant("@bob:hs", 0));
        assert!((0..MAX_PER_USER).all(|device| grant("@eve:hs", device)));
        assert!(!grant("@eve:hs", 999), "all of them are connected");
        assert!(grant("@carol:hs", 0));
        calls.left("r", "@eve:hs:D3", "PA");
        assert!(calls.grant("r", "!a:hs", "s", "@eve:hs:D999", known("@eve:hs", "D999")));
        assert!(calls.known("r", "@eve:hs:D3").is_none() && calls.known("r", "@bob:hs:D0").is_some());
    }

    #[test]
    fn slots_of_one_room_do_not_take_the_places_of_all() {
        let mut calls = Calls::default();
        let mut grant = |room: &str, slot: usize| {
            calls.grant(&format!("{room}{slot}"), room, "s", "@bob:hs:D", known("@bob:hs", "D"))
        };
        assert!((0..MANY_CALLS).all(|slot| grant("!a:hs", slot)));
        assert!(!grant("!a:hs", MANY_CALLS) && grant("!b:hs", 0));
    }

    #[test]
    fn revokes_what_was_signed_before_and_nothing_later() {
        let mut calls = Calls::default();
        assert!(calls.grant("sfu", "!r", "s", "@a:x:D", known("@a:x", "D")));
        assert_eq!(calls.good_from("sfu", "@a:x:D"), 0);
        assert!(calls.revoke(5_500, "sfu", "@a:x:D").is_some());
        assert_eq!(calls.good_from("sfu", "@a:x:D"), 6, "the second of the kick is before it");
        assert!(calls.known("sfu", "@a:x:D").is_none());
        calls.prune(5_500 + REVOKED_FOR, 0);
        assert_eq!(calls.good_from("sfu", "@a:x:D"), 0);
    }

    #[test]
    fn counts_sessions_so_that_a_replaced_one_does_not_end_the_presence() {
        let mut calls = Calls::default();
        calls.grant("sfu", "!r", "s", "i", known("@a:x", "D"));
        assert!(calls.joined("sfu", "i", "PA_1"));
        assert!(calls.joined("sfu", "i", "PA_2"));
        assert!(!calls.left("sfu", "i", "PA_1"));
        assert!(calls.is_live("sfu", "@a:x", Some("D")));
        calls.grant("sfu", "!r", "s", "i", known("@a:x", "D"));
        assert!(calls.is_live("sfu", "@a:x", Some("D")), "a further token ends nothing");
        assert!(calls.left("sfu", "i", "PA_2"));
        assert!(!calls.left("sfu", "i", "PA_2"));
        assert!(!calls.joined("sfu", "stranger", "PA_3"));
    }

    #[test]
    fn keeps_who_is_there_and_who_may_still_come() {
        let mut calls = Calls::default();
        calls.grant("sfu", "!r", "s", "here", known("@a:x", "D"));
        calls.grant("sfu", "!r", "s", "gone", known("@b:x", "D"));
        calls.joined("sfu", "here", "PA_1");
        assert_eq!(calls.prune(1_500, 1_000), []);
        assert_eq!(calls.prune(2_500, 1_000), [("sfu".to_owned(), "gone".to_owned())]);
        assert_eq!(calls.all().count(), 1);
    }
}
