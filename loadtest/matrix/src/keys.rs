//! When a participant's key of frames changes and who gets it, as clients do it. Pure.
//!
//! The first key is used at once. Who comes gets the key there is. When somebody leaves, a new one goes to all that
//! stay, and is used a little later, when they have it: who left can read no more. Leaves in a row are one.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::wire::Device;

/// Leaves within this time are answered by one new key.
const GATHER: Duration = Duration::from_millis(300);
/// A new key is used this long after it was sent.
const USE_DELAY: Duration = Duration::from_secs(1);
/// Who could not be reached is tried again after this time.
const AGAIN: Duration = Duration::from_secs(1);

/// Length of the keys made here.
pub const LENGTH: usize = 16;

/// A key of frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Which of the participant's keys.
    pub index: u8,
    /// What frames' keys are derived from.
    pub material: [u8; LENGTH],
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send the key to these devices.
    Send(Key, Vec<Device>),
    /// Encrypt with it from now on.
    Use(Key),
}

/// The keys of one participant.
#[derive(Debug, Default)]
pub struct Keys {
    own: Option<Key>,
    /// Sent, to be used at this time.
    next: Option<(Key, Instant)>,
    /// Goes on over calls: a key never comes again under its index.
    index: u8,
    /// Devices that have the key.
    given: BTreeSet<Device>,
    rotate_at: Option<Instant>,
    again_at: Option<Instant>,
}

impl Keys {
    /// Enter a call with this key.
    pub fn enter(&mut self, material: [u8; LENGTH]) -> Action {
        let key = self.make(material);
        *self = Self { own: Some(key.clone()), index: self.index, ..Self::default() };
        Action::Use(key)
    }

    /// Leave it.
    pub fn leave(&mut self) {
        *self = Self { index: self.index, ..Self::default() };
    }

    fn make(&mut self, material: [u8; LENGTH]) -> Key {
        let key = Key { index: self.index, material };
        self.index = self.index.wrapping_add(1);
        key
    }

    /// These others are in the call now.
    pub fn members<'a>(&mut self, now: Instant, members: impl Iterator<Item = &'a Device>) -> Vec<Action> {
        let Some(own) = &self.own else { return Vec::new() };
        let members: BTreeSet<Device> = members.cloned().collect();
        if self.given.iter().any(|device| !members.contains(device)) {
            self.given.retain(|device| members.contains(device));
            self.rotate_at.get_or_insert(now + GATHER);
        }
        if self.again_at.is_some_and(|at| at > now) {
            return Vec::new();
        }
        self.again_at = None;
        let new: Vec<Device> = members.difference(&self.given).cloned().collect();
        if new.is_empty() {
            return Vec::new();
        }
        self.given.extend(new.iter().cloned());
        let next = self.next.as_ref().map(|(next, _)| Action::Send(next.clone(), new.clone()));
        [Some(Action::Send(own.clone(), new)), next].into_iter().flatten().collect()
    }

    /// A device could not be reached: [`Self::members`] names it again when it is due.
    pub fn missed(&mut self, now: Instant, device: &Device) {
        self.given.remove(device);
        self.again_at = Some(now + AGAIN);
    }

    /// When [`Self::due`] and [`Self::members`] want to be called.
    pub fn deadline(&self) -> Option<Instant> {
        let used = self.next.as_ref().map(|(_, at)| *at);
        [self.rotate_at, used, self.again_at].into_iter().flatten().min()
    }

    /// What is due; `material` is for a new key, if one is.
    pub fn due(&mut self, now: Instant, material: impl FnOnce() -> [u8; LENGTH]) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Some((key, _)) = self.next.take_if(|(_, at)| *at <= now) {
            self.own = Some(key.clone());
            actions.push(Action::Use(key));
        }
        if self.rotate_at.take_if(|at| *at <= now).is_some() {
            let key = self.make(material());
            actions.push(Action::Send(key.clone(), self.given.iter().cloned().collect()));
            self.next = Some((key, now + USE_DELAY));
        }
        actions
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn device(name: &str) -> Device {
        Device { user: format!("@{name}:example.org"), device: "D".to_owned() }
    }

    fn key(index: u8, byte: u8) -> Key {
        Key { index, material: [byte; LENGTH] }
    }

    #[test]
    fn who_comes_gets_the_key_and_who_goes_is_locked_out() {
        let start = Instant::now();
        let [a, b, c] = ["a", "b", "c"].map(device);
        let mut keys = Keys::default();
        assert!(keys.members(start, [&a].into_iter()).is_empty());
        assert_eq!(keys.enter([1; LENGTH]), Action::Use(key(0, 1)));
        assert_eq!(keys.members(start, [&a, &b].into_iter()), [Action::Send(key(0, 1), vec![a.clone(), b.clone()])]);
        assert!(keys.members(start, [&a, &b].into_iter()).is_empty());
        // Two go, one after the other: one new key, for who is there; used when it has come.
        assert_eq!(keys.members(start, [&b, &c].into_iter()), [Action::Send(key(0, 1), vec![c.clone()])]);
        assert!(keys.members(start + GATHER / 2, [&c].into_iter()).is_empty());
        assert_eq!(keys.deadline(), Some(start + GATHER));
        assert!(keys.due(start, || [9; LENGTH]).is_empty());
        let sent = start + GATHER;
        assert_eq!(keys.due(sent, || [2; LENGTH]), [Action::Send(key(1, 2), vec![c.clone()])]);
        // Who comes before it is used gets both.
        let both = [Action::Send(key(0, 1), vec![a.clone()]), Action::Send(key(1, 2), vec![a.clone()])];
        assert_eq!(keys.members(sent, [&a, &c].into_iter()), both);
        assert_eq!(keys.due(sent + USE_DELAY, || [9; LENGTH]), [Action::Use(key(1, 2))]);
        assert_eq!(keys.deadline(), None);
        // In the next call it is another key under another index.
        keys.leave();
        assert!(keys.members(sent, [&a].into_iter()).is_empty());
        assert_eq!(keys.enter([3; LENGTH]), Action::Use(key(2, 3)));
    }

    #[test]
    fn who_could_not_be_reached_is_tried_again() {
        let start = Instant::now();
        let [a, b] = ["a", "b"].map(device);
        let mut keys = Keys::default();
        keys.enter([1; LENGTH]);
        assert_eq!(keys.members(start, [&a, &b].into_iter()).len(), 1);
        keys.missed(start, &b);
        assert!(keys.members(start, [&a, &b].into_iter()).is_empty());
        assert_eq!(keys.deadline(), Some(start + AGAIN));
        assert_eq!(keys.members(start + AGAIN, [&a, &b].into_iter()), [Action::Send(key(0, 1), vec![b.clone()])]);
    }
}
