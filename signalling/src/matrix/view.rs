//! One Matrix room as far as a call is concerned: pushed events and fetched state folded into who may do what.
//!
//! Pushes are hints. They come late, twice, after a gap, or not at all; timestamps are the sender's. So the fold takes a
//! push at once when it is clearly newer, and says [`View::is_doubtful`] when it cannot tell: the caller then fetches the
//! state and [`View::install`]s it, which is the truth. Whatever the order of pushes, the view ends as the room's state.

use std::collections::{BTreeMap, VecDeque};

use super::event::{CallMember, Event, Fact, Membership};
use super::power::{Dialect, PUBLISH_CAMERA, PUBLISH_MICROPHONE, PUBLISH_SCREEN, PowerLevels};

/// Event ids remembered per room, to tell a repeated push from an old one.
const MAX_SEEN: usize = 512;
/// Pushes kept while a fetch is under way; more make the view doubtful again.
const MAX_PENDING: usize = 1024;

/// A place in room state (or in the map of sticky events).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Create,
    PowerLevels,
    Tombstone,
    Encryption,
    Member(String),
    Slot(String),
    CallMember(String),
    Sticky(String, String),
}

/// The event that holds a place.
#[derive(Clone, Debug)]
struct Holder {
    id: String,
    origin_ts: i64,
    replaces: Option<String>,
    fact: Fact,
}

/// What a user may do in a call of the room now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// May publish from a microphone (or sound of any source).
    pub microphone: bool,
    /// May publish from a camera.
    pub camera: bool,
    /// May publish a screen.
    pub screen_share: bool,
}

impl Rights {
    /// Listen only.
    pub const NONE: Self = Self { microphone: false, camera: false, screen_share: false };
    /// Everything.
    pub const ALL: Self = Self { microphone: true, camera: true, screen_share: true };

    /// Whether anything may be published.
    pub const fn any(self) -> bool {
        self.microphone || self.camera || self.screen_share
    }

    /// What both allow.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            microphone: self.microphone && other.microphone,
            camera: self.camera && other.camera,
            screen_share: self.screen_share && other.screen_share,
        }
    }
}

/// Why a user may not join a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Not joined to the Matrix room (never was, left, was removed, or is only invited).
    NotInRoom,
    /// Banned from the Matrix room.
    Banned,
    /// The call slot is closed. Stops new joins only.
    SlotClosed,
    /// The room was replaced by another. Stops new joins only.
    RoomUpgraded,
}

/// What changed by an event or a fetch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Users that were joined to the Matrix room and are no longer, with what they are now.
    pub left: Vec<(String, Departure)>,
    /// Users that are joined now and were not.
    pub joined: Vec<String>,
    /// Levels, encryption or creators changed: everybody's rights have to be looked at again.
    pub rights: bool,
    /// A slot or the tombstone changed.
    pub slots: bool,
    /// Call memberships that came, changed or went: the key and whether it stands now.
    pub members: Vec<(MemberKey, bool)>,
}

/// How somebody left a Matrix room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// Left, was kicked, or never came.
    Left,
    /// Banned.
    Banned,
}

/// Which call membership.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberKey {
    /// The state key of a state event.
    State(String),
    /// Sender and sticky key of a sticky event.
    Sticky(String, String),
}

impl Changes {
    /// Nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A Matrix room, folded.
#[derive(Clone, Debug, Default)]
pub struct View {
    places: BTreeMap<Place, Holder>,
    seen: VecDeque<String>,
    fetching: Option<Vec<Event>>,
    known: bool,
    doubtful: bool,
}

impl View {
    /// A room nothing is known of: [`View::is_known`] is false until state was installed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether state was ever installed. Before that, every answer would be a guess.
    pub const fn is_known(&self) -> bool {
        self.known
    }

    /// Whether a push could not be put in order: fetch the state soon.
    pub const fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// A gap was noticed from outside (homeserver down, weir restarted): fetch the state soon.
    pub const fn doubt(&mut self) {
        self.doubtful = true;
    }

    /// A fetch of the whole state begins. Pushes from now on are taken, and kept to be looked at again after it.
    pub fn begin_fetch(&mut self) {
        self.fetching = Some(Vec::new());
        self.doubtful = false;
    }

    /// The fetch failed: what we have stands, and is doubtful.
    pub fn fetch_failed(&mut self) {
        self.fetching = None;
        self.doubtful = true;
    }

    /// The whole state as fetched. Replaces all state places; sticky memberships, which are no state, stay.
    pub fn install(&mut self, state: impl IntoIterator<Item = Event>) -> Changes {
        let before = std::mem::take(&mut self.places);
        for event in state {
            if let Some(place) = place_of(&event) {
                self.remember(&event.id);
                self.places.insert(place, holder(event));
            }
        }
        let sticky = before.iter().filter(|(place, _)| matches!(place, Place::Sticky(..)));
        self.places.extend(sticky.map(|(p, h)| (p.clone(), h.clone())));
        self.known = true;
        for event in self.fetching.take().unwrap_or_default() {
            self.take(event);
        }
        difference(&before, &self.places)
    }

    /// One pushed event.
    pub fn apply(&mut self, event: Event) -> Changes {
        let Some(place) = place_of(&event) else { return Changes::default() };
        if let Some(pending) = &mut self.fetching {
            if pending.len() < MAX_PENDING {
                pending.push(event.clone());
            } else {
                self.doubtful = true;
            }
        }
        let before = self.places.get(&place).cloned();
        if !self.take(event) {
            return Changes::default();
        }
        let old = before.map(|h| BTreeMap::from([(place.clone(), h)])).unwrap_or_default();
        let new = self.places.get(&place).map(|h| BTreeMap::from([(place, h.clone())])).unwrap_or_default();
        difference(&old, &new)
    }

    /// Put an event in its place if it is newer than what is there. False when it changed nothing.
    fn take(&mut self, event: Event) -> bool {
        let Some(place) = place_of(&event) else { return false };
        let current = self.places.get(&place);
        if current.is_some_and(|h| h.id == event.id) {
            return false;
        }
        let follows = current.is_none_or(|h| event.replaces.as_deref() == Some(h.id.as_str()));
        let precedes = current.is_some_and(|h| h.replaces.as_deref() == Some(event.id.as_str()));
        let repeated = self.seen.contains(&event.id);
        let later = current.is_none_or(|h| (h.origin_ts, h.id.as_str()) < (event.origin_ts, event.id.as_str()));
        self.remember(&event.id);
        if precedes || (repeated && !follows) {
            // Certainly or probably an echo of the past. A repeated id that is not what stands is never taken for news;
            // if it should be (state that went back to an old event by resolution), the next fetch tells.
            self.doubtful |= repeated && !precedes && later;
            return false;
        }
        if !follows && !later {
            self.doubtful = true;
            return false;
        }
        // Later by the sender's clock, but not by the homeserver's word: taken, and checked.
        self.doubtful |= !follows && !matches!(place, Place::Sticky(..));
        self.places.insert(place, holder(event));
        true
    }

    fn remember(&mut self, id: &str) {
        if self.seen.iter().any(|s| s == id) {
            return;
        }
        if self.seen.len() >= MAX_SEEN {
            self.seen.pop_front();
        }
        self.seen.push_back(id.to_owned());
    }

    /// A user's membership of the Matrix room.
    pub fn membership(&self, user: &str) -> Option<Membership> {
        match self.places.get(&Place::Member(user.to_owned()))?.fact {
            Fact::RoomMember { membership, .. } => Some(membership),
            _ => None,
        }
    }

    /// Users joined to the Matrix room.
    pub fn joined(&self) -> impl Iterator<Item = &str> {
        self.places.iter().filter_map(|(place, holder)| match (place, &holder.fact) {
            (Place::Member(user), Fact::RoomMember { membership: Membership::Join, .. }) => Some(user.as_str()),
            _ => None,
        })
    }

    /// Whether a user may join the call of a slot now.
    ///
    /// # Errors
    /// Why not.
    pub fn may_join(&self, user: &str, slot: &str) -> Result<(), Denied> {
        match self.membership(user) {
            Some(Membership::Join) => {}
            Some(Membership::Ban) => return Err(Denied::Banned),
            _ => return Err(Denied::NotInRoom),
        }
        if self.places.contains_key(&Place::Tombstone) {
            return Err(Denied::RoomUpgraded);
        }
        if self.slot_open(slot) { Ok(()) } else { Err(Denied::SlotClosed) }
    }

    /// Whether a slot is open; one without an event counts as open.
    pub fn slot_open(&self, slot: &str) -> bool {
        match self.places.get(&Place::Slot(slot.to_owned())).map(|h| &h.fact) {
            Some(Fact::Slot { open, .. }) => *open,
            _ => true,
        }
    }

    /// What a user may publish, by power levels alone. Whether the user may be there is [`View::may_join`]'s question.
    pub fn rights(&self, user: &str, dialect: Dialect) -> Rights {
        if self.is_unlimited_creator(user) {
            return Rights::ALL;
        }
        let absent;
        let levels = match self.places.get(&Place::PowerLevels).map(|h| &h.fact) {
            Some(Fact::PowerLevels(levels)) => levels,
            _ => {
                absent = PowerLevels::absent(self.creators());
                &absent
            }
        };
        let encrypted = self.places.contains_key(&Place::Encryption);
        let has = levels.of(user);
        let may = |source| has >= levels.to_publish(source, dialect, encrypted);
        Rights { microphone: may(PUBLISH_MICROPHONE), camera: may(PUBLISH_CAMERA), screen_share: may(PUBLISH_SCREEN) }
    }

    /// A user's power level, for finding one who can repair something.
    pub fn level(&self, user: &str) -> i64 {
        if self.is_unlimited_creator(user) {
            return i64::MAX;
        }
        match self.places.get(&Place::PowerLevels).map(|h| &h.fact) {
            Some(Fact::PowerLevels(levels)) => levels.of(user),
            _ => PowerLevels::absent(self.creators()).of(user),
        }
    }

    /// Call memberships that stand at `now` (unix ms): not left, not expired, of users joined to the Matrix room.
    pub fn call_members(&self, now: i64) -> impl Iterator<Item = (MemberKey, &CallMember)> {
        self.standing_members().filter(move |(_, member)| {
            member.expires_at > now && self.membership(&member.user) == Some(Membership::Join)
        })
    }

    /// Call memberships in state or sticky, whatever became of their users: where ghosts are found.
    pub fn standing_members(&self) -> impl Iterator<Item = (MemberKey, &CallMember)> {
        self.places.iter().filter_map(|(place, holder)| match (place, &holder.fact) {
            (Place::CallMember(key), Fact::CallMember { member: Some(member), .. }) => {
                Some((MemberKey::State(key.clone()), member))
            }
            (Place::Sticky(sender, key), Fact::StickyMember { member: Some(member), .. }) => {
                Some((MemberKey::Sticky(sender.clone(), key.clone()), member))
            }
            _ => None,
        })
    }

    /// Whether a sticky membership was seen to end. In encrypted rooms this is all that can be seen of it.
    pub fn sticky_left(&self, sender: &str, key: &str) -> bool {
        let place = Place::Sticky(sender.to_owned(), key.to_owned());
        matches!(self.places.get(&place).map(|h| &h.fact), Some(Fact::StickyMember { member: None, .. }))
    }

    fn creators(&self) -> &[String] {
        match self.places.get(&Place::Create).map(|h| &h.fact) {
            Some(Fact::Create { creators, .. }) => creators,
            _ => &[],
        }
    }

    fn is_unlimited_creator(&self, user: &str) -> bool {
        matches!(self.places.get(&Place::Create).map(|h| &h.fact),
            Some(Fact::Create { creators, creators_unlimited: true }) if creators.iter().any(|c| c == user))
    }
}

fn holder(event: Event) -> Holder {
    Holder { id: event.id, origin_ts: event.origin_ts, replaces: event.replaces, fact: event.fact }
}

fn place_of(event: &Event) -> Option<Place> {
    Some(match &event.fact {
        Fact::Create { .. } => Place::Create,
        Fact::PowerLevels(_) => Place::PowerLevels,
        Fact::Tombstone => Place::Tombstone,
        Fact::Encryption => Place::Encryption,
        Fact::RoomMember { user, .. } => Place::Member(user.clone()),
        Fact::Slot { slot, .. } => Place::Slot(slot.clone()),
        Fact::CallMember { key, .. } => Place::CallMember(key.clone()),
        Fact::StickyMember { key, .. } => Place::Sticky(event.sender.clone(), key.clone()),
        Fact::PolicyRule { .. } | Fact::Other => return None,
    })
}

/// What changed between two sets of places.
fn difference(before: &BTreeMap<Place, Holder>, after: &BTreeMap<Place, Holder>) -> Changes {
    let mut changes = Changes::default();
    let gone = before.keys().filter(|place| !after.contains_key(*place));
    for place in gone.chain(after.keys()) {
        let (old, new) = (before.get(place).map(|h| &h.fact), after.get(place).map(|h| &h.fact));
        if old == new {
            continue;
        }
        match place {
            Place::Member(user) => note_membership(&mut changes, user, old, new),
            Place::PowerLevels | Place::Create | Place::Encryption => changes.rights = true,
            Place::Slot(_) | Place::Tombstone => changes.slots = true,
            Place::CallMember(key) => {
                let stands = matches!(new, Some(Fact::CallMember { member: Some(_), .. }));
                changes.members.push((MemberKey::State(key.clone()), stands));
            }
            Place::Sticky(sender, key) => {
                let stands = matches!(new, Some(Fact::StickyMember { member: Some(_), .. }));
                changes.members.push((MemberKey::Sticky(sender.clone(), key.clone()), stands));
            }
        }
    }
    changes
}

fn note_membership(changes: &mut Changes, user: &str, old: Option<&Fact>, new: Option<&Fact>) {
    let of = |fact: Option<&Fact>| match fact {
        Some(Fact::RoomMember { membership, .. }) => *membership,
        _ => Membership::Leave,
    };
    match (of(old), of(new)) {
        (Membership::Join, Membership::Join) => {}
        (_, Membership::Join) => changes.joined.push(user.to_owned()),
        (Membership::Join, Membership::Ban) => changes.left.push((user.to_owned(), Departure::Banned)),
        (Membership::Join, _) => changes.left.push((user.to_owned(), Departure::Left)),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
