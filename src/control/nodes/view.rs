//! What a node knows of the others, and the rules by which all of them conclude the same from it. Pure: time comes in.
//!
//! Every fact has one writer, the node it is about. A node that two others see differently is no fault: whoever serves
//! a room that is served elsewhere too finds out by [`View::serving`] who goes on with it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A node that has not been heard for this long is dead, as long as the directory itself is heard.
pub(super) const DEAD: Duration = Duration::from_secs(4);
/// How long a node is left alone that could not be reached, unless it starts anew before.
const UNREACHABLE: Duration = Duration::from_secs(10);
/// How long a placement holds until the room is seen to run: the way from a token to the first join.
pub(super) const PLACED: Duration = Duration::from_secs(10);
/// Nodes, rooms and placements remembered: what a broken directory may make us keep.
const MAX_NODES: usize = 1_024;
const MAX_ROOMS: usize = 1 << 20;
const MAX_PLACED: usize = 1 << 16;

/// A room, named so that the directory does not learn its name: the hexadecimal begin of a keyed hash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RoomKey(pub(super) String);

/// What a node takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::control) enum State {
    /// Anything.
    #[default]
    Ready,
    /// Joins into the rooms it has, and no new rooms: full, or waiting for its calls to end.
    Full,
    /// Nothing any more: its rooms go elsewhere, if there is a place.
    Leaving,
}

/// A node about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct NodeRow {
    /// Version of what follows: 1.
    pub(super) v: u32,
    pub(super) node: String,
    /// Unix nanoseconds of its start: a larger one is a later life.
    pub(super) boot: u64,
    /// Counts its own messages.
    pub(super) seq: u64,
    pub(super) region: String,
    /// Where other nodes reach its HTTP.
    pub(super) address: String,
    /// What clients of its rooms are told to connect to.
    pub(super) url: String,
    pub(super) state: State,
    /// Thousandths.
    pub(super) load: u32,
}

/// A node about one of its rooms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct RoomRow {
    pub(super) v: u32,
    pub(super) boot: u64,
    pub(super) seq: u64,
    /// Unix milliseconds of its start there.
    pub(super) since: i64,
    pub(super) ended: bool,
}

/// Where a room is to be that nobody serves yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct PlaceRow {
    pub(super) v: u32,
    pub(super) node: String,
    pub(super) boot: u64,
    /// For those who have not heard of the node yet.
    pub(super) region: String,
    pub(super) address: String,
}

impl PlaceRow {
    /// On this node.
    pub(super) fn on(node: &NodeRow) -> Self {
        let (name, region, address) = (node.node.clone(), node.region.clone(), node.address.clone());
        Self { v: 1, node: name, boot: node.boot, region, address }
    }
}

#[derive(Debug)]
struct Known {
    row: NodeRow,
    heard: Duration,
    unreachable_until: Option<Duration>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct View {
    me: String,
    nodes: BTreeMap<String, Known>,
    rooms: BTreeMap<RoomKey, BTreeMap<String, RoomRow>>,
    placed: BTreeMap<RoomKey, (PlaceRow, Duration)>,
    /// When the directory last brought anything.
    heard: Duration,
    /// From when on silence of a node counts: after a silence of the directory everybody gets a new term.
    counted_from: Duration,
}

impl View {
    /// Knows this node only.
    pub(super) fn new(me: NodeRow, now: Duration) -> Self {
        let name = me.node.clone();
        let known = Known { row: me, heard: now, unreachable_until: None };
        Self {
            nodes: BTreeMap::from([(name.clone(), known)]),
            me: name,
            rooms: BTreeMap::new(),
            placed: BTreeMap::new(),
            heard: now,
            counted_from: now,
        }
    }

    /// A node says something about itself. False: it has this node's name and is another.
    pub(super) fn hear_node(&mut self, now: Duration, row: NodeRow) -> bool {
        self.hear(now);
        let has_place = self.nodes.len() < MAX_NODES;
        match self.nodes.get_mut(&row.node) {
            Some(known) if row.node == self.me => return known.row.boot == row.boot,
            Some(known) if (row.boot, row.seq) > (known.row.boot, known.row.seq) => {
                if row.boot > known.row.boot {
                    known.unreachable_until = None;
                }
                (known.row, known.heard) = (row, now);
            }
            // Old: it came the long way.
            Some(_) => {}
            None if has_place => {
                self.nodes.insert(row.node.clone(), Known { row, heard: now, unreachable_until: None });
            }
            None => {}
        }
        true
    }

    /// A node says something about a room. The newest counts, in whatever order it comes.
    pub(super) fn hear_room(&mut self, now: Duration, key: RoomKey, node: String, row: RoomRow) {
        self.hear(now);
        if node != self.me {
            self.keep_room(key, node, row);
        }
    }

    /// This node about itself and its rooms: known at once, whatever the directory does.
    pub(super) fn set_own(&mut self, now: Duration, row: NodeRow) {
        let known = Known { row, heard: now, unreachable_until: None };
        self.nodes.insert(self.me.clone(), known);
    }

    /// The same about a room of its own.
    pub(super) fn set_own_room(&mut self, key: RoomKey, row: RoomRow) {
        self.keep_room(key, self.me.clone(), row);
    }

    fn keep_room(&mut self, key: RoomKey, node: String, row: RoomRow) {
        if !self.rooms.contains_key(&key) && (row.ended || self.rooms.len() >= MAX_ROOMS) {
            return;
        }
        let rows = self.rooms.entry(key.clone()).or_default();
        let has_place = rows.len() < MAX_NODES;
        match rows.get_mut(&node) {
            Some(old) if (row.boot, row.seq) >= (old.boot, old.seq) => *old = row,
            Some(_) => {}
            None if has_place => drop(rows.insert(node, row)),
            None => {}
        }
        if rows.values().all(|row| row.ended) {
            self.rooms.remove(&key);
        }
    }

    fn hear(&mut self, now: Duration) {
        if self.is_silent(now) {
            self.counted_from = now;
        }
        self.heard = now;
    }

    /// Whether nothing comes from the directory, not even what this node says itself. What is known is kept as it is then.
    pub(super) fn is_silent(&self, now: Duration) -> bool {
        now.saturating_sub(self.heard) >= DEAD
    }

    /// For how long nothing has come.
    pub(super) fn silence(&self, now: Duration) -> Duration {
        now.saturating_sub(self.heard)
    }

    /// A node did not answer.
    pub(super) fn unreachable(&mut self, now: Duration, node: &str) {
        if let Some(known) = self.nodes.get_mut(node) {
            known.unreachable_until = Some(now + UNREACHABLE);
        }
    }

    fn is_alive(&self, now: Duration, known: &Known) -> bool {
        if known.row.node == self.me {
            return true;
        }
        let heard = known.heard.max(self.counted_from);
        let reachable = known.unreachable_until.is_none_or(|until| now >= until);
        reachable && (self.is_silent(now) || now.saturating_sub(heard) < DEAD)
    }

    /// A node by name, if it lives.
    pub(super) fn alive(&self, now: Duration, node: &str) -> Option<&NodeRow> {
        self.nodes.get(node).filter(|known| self.is_alive(now, known)).map(|known| &known.row)
    }

    /// All that live but this one.
    pub(super) fn others(&self, now: Duration) -> impl Iterator<Item = &NodeRow> {
        let alive = self.nodes.values().filter(move |known| self.is_alive(now, known)).map(|known| &known.row);
        alive.filter(|row| row.node != self.me)
    }

    /// Who goes on with a room: of those that serve it, the one where it has been for longest; of equals, the one whose
    /// name comes first. All who know the same rows say the same.
    pub(super) fn serving(&self, now: Duration, key: &RoomKey) -> Option<&NodeRow> {
        let rows = self.rooms.get(key)?;
        let refuge = self.nodes.values().any(|known| known.row.state == State::Ready && self.is_alive(now, known));
        let serves = |(node, row): (&String, &RoomRow)| {
            let it = self.alive(now, node).filter(|it| it.boot == row.boot && !row.ended)?;
            (it.state != State::Leaving || !refuge).then_some((row.since, it))
        };
        rows.iter().filter_map(serves).min_by(|a, b| (a.0, &a.1.node).cmp(&(b.0, &b.1.node))).map(|(_, node)| node)
    }

    /// Where a room was placed lately that is not seen to run.
    pub(super) fn placed(&self, now: Duration, key: &RoomKey) -> Option<&NodeRow> {
        let (place, _) = self.placed.get(key).filter(|(_, until)| now < *until)?;
        self.takes(now, place)
    }

    /// The node of a placement, as long as it is the one meant and takes rooms.
    pub(super) fn takes(&self, now: Duration, place: &PlaceRow) -> Option<&NodeRow> {
        self.alive(now, &place.node).filter(|it| it.boot == place.boot && it.state != State::Leaving)
    }

    /// Somebody placed a room on this node: it lives, though nothing may have been heard of it yet.
    pub(super) fn learn(&mut self, now: Duration, place: &PlaceRow) {
        if self.nodes.get(&place.node).is_none_or(|known| known.row.boot < place.boot) && place.node != self.me {
            let row = NodeRow {
                v: 1,
                node: place.node.clone(),
                boot: place.boot,
                region: place.region.clone(),
                address: place.address.clone(),
                ..NodeRow::default()
            };
            self.hear_node(now, row);
        }
    }

    /// Remember a placement.
    pub(super) fn place(&mut self, now: Duration, key: RoomKey, place: PlaceRow) {
        if self.placed.len() >= MAX_PLACED {
            self.placed.retain(|_, (_, until)| now < *until);
        }
        if self.placed.len() < MAX_PLACED {
            self.placed.insert(key, (place, now + PLACED));
        }
    }

    /// The best node for a room that nobody serves: in the wanted region if there is one that takes rooms, else anywhere,
    /// unless `only`. Less loaded nodes first; among equals a hash decides, so that all doors choose the same without
    /// asking. `by_hash`, and while the directory is silent: only the hash does, since loads
    /// are not equally old and two joiners may want two regions: meeting comes before distance.
    pub(super) fn choose(
        &self,
        now: Duration,
        key: &RoomKey,
        region: &str,
        only: bool,
        by_hash: bool,
    ) -> Option<&NodeRow> {
        let by_hash = by_hash || self.is_silent(now);
        let load = |row: &NodeRow| if by_hash { 0 } else { row.load / 250 };
        let best = |in_region: bool| {
            let alive = self.nodes.values().filter(|known| self.is_alive(now, known)).map(|known| &known.row);
            let fit = alive.filter(|row| row.state == State::Ready && (!in_region || row.region == region));
            fit.min_by_key(|row| (load(row), std::cmp::Reverse(weight(key, &row.node))))
        };
        if only {
            return best(true);
        }
        // Doors in two regions are to choose the same.
        if by_hash { best(false) } else { best(true).or_else(|| best(false)) }
    }

    /// Forget nodes long gone, with their rooms.
    pub(super) fn prune(&mut self, now: Duration) {
        if self.is_silent(now) {
            return;
        }
        let (me, counted) = (&self.me, self.counted_from);
        self.nodes.retain(|name, known| name == me || now.saturating_sub(known.heard.max(counted)) < 20 * DEAD);
        let nodes = &self.nodes;
        self.rooms.retain(|_, rows| {
            rows.retain(|node, row| nodes.get(node).is_some_and(|known| known.row.boot <= row.boot));
            !rows.is_empty()
        });
        self.placed.retain(|_, (_, until)| now < *until);
    }
}

/// Rendezvous hashing: how much a room belongs to a node.
fn weight(key: &RoomKey, node: &str) -> [u8; 8] {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    context.update(key.0.as_bytes());
    context.update(b"\0");
    context.update(node.as_bytes());
    let mut weight = [0; 8];
    for (to, from) in weight.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    weight
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may fail by panicking")]

    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn node(name: &str, region: &str) -> NodeRow {
        NodeRow { node: name.to_owned(), boot: 1, seq: 1, region: region.to_owned(), ..NodeRow::default() }
    }

    fn key(name: &str) -> RoomKey {
        RoomKey(name.to_owned())
    }

    fn served(since: i64) -> RoomRow {
        RoomRow { boot: 1, seq: 1, since, ..RoomRow::default() }
    }

    fn three() -> View {
        let mut view = View::new(node("a", "eu"), S);
        assert!(view.hear_node(S, node("b", "eu")) && view.hear_node(S, node("c", "us")));
        view
    }

    #[test]
    fn of_two_that_serve_a_room_the_older_goes_on_and_names_decide_between_equals() {
        let mut view = three();
        view.set_own_room(key("r"), served(5));
        view.hear_room(S, key("r"), "b".to_owned(), served(3));
        assert_eq!(view.serving(S, &key("r")).unwrap().node, "b");
        view.hear_room(S, key("r"), "c".to_owned(), served(3));
        assert_eq!(view.serving(S, &key("r")).unwrap().node, "b");
        let ended = RoomRow { seq: 2, ended: true, ..served(3) };
        view.hear_room(S, key("r"), "b".to_owned(), ended);
        // What is older comes late and changes nothing.
        view.hear_room(S, key("r"), "b".to_owned(), served(3));
        assert_eq!(view.serving(S, &key("r")).unwrap().node, "c");
        assert!(view.serving(S, &key("other")).is_none());
    }

    #[test]
    fn the_dead_serve_nothing_but_silence_of_the_directory_is_no_death() {
        let mut view = three();
        view.hear_room(S, key("r"), "b".to_owned(), served(3));
        assert!(view.hear_node(3 * S, NodeRow { seq: 2, ..node("c", "us") }));
        assert!(view.serving(4 * S, &key("r")).is_some());
        assert!(view.hear_node(5 * S, NodeRow { seq: 3, ..node("c", "us") }));
        assert!(view.serving(6 * S, &key("r")).is_none(), "heard by others, but not of b");
        let silent = 600 * S;
        assert!(view.is_silent(silent));
        assert_eq!(view.serving(silent, &key("r")).unwrap().node, "b", "what is known is kept");
        view.prune(silent);
        // The directory is back; b gets a term to be heard.
        assert!(view.hear_node(silent, NodeRow { seq: 9, ..node("c", "us") }));
        assert!(view.serving(silent + S, &key("r")).is_some());
        for at in 1..6 {
            view.hear_node(silent + at * S, NodeRow { seq: 9 + u64::from(at), ..node("c", "us") });
        }
        assert!(view.serving(silent + 5 * S, &key("r")).is_none());
    }

    #[test]
    fn a_new_life_of_a_node_has_none_of_its_rooms() {
        let mut view = three();
        view.hear_room(S, key("r"), "b".to_owned(), served(3));
        view.unreachable(S, "b");
        assert!(view.serving(S, &key("r")).is_none() && view.alive(S, "b").is_none());
        view.hear_node(S, NodeRow { boot: 2, seq: 0, ..node("b", "eu") });
        assert!(view.alive(S, "b").is_some() && view.serving(S, &key("r")).is_none());
        assert!(!view.hear_node(S, NodeRow { boot: 7, ..node("a", "eu") }), "two with one name");
    }

    #[test]
    fn a_leaving_node_keeps_its_rooms_only_where_nobody_else_takes_them() {
        let mut view = View::new(node("a", "eu"), S);
        view.set_own_room(key("r"), served(5));
        view.set_own(S, NodeRow { state: State::Leaving, ..node("a", "eu") });
        assert_eq!(view.serving(S, &key("r")).unwrap().node, "a");
        view.hear_node(S, node("b", "eu"));
        assert!(view.serving(S, &key("r")).is_none());
        assert_eq!(view.choose(S, &key("r"), "eu", false, false).unwrap().node, "b");
    }

    #[test]
    fn a_room_goes_to_its_region_to_who_has_most_room_and_elsewhere_only_where_it_may() {
        let mut view = three();
        assert_eq!(view.choose(S, &key("r"), "us", false, false).unwrap().node, "c");
        view.hear_node(S, NodeRow { seq: 2, load: 800, ..node("b", "eu") });
        for room in 0..20 {
            assert_eq!(view.choose(S, &key(&room.to_string()), "eu", false, false).unwrap().node, "a");
        }
        view.hear_node(S, NodeRow { seq: 2, state: State::Full, ..node("c", "us") });
        assert_eq!(view.choose(S, &key("r"), "us", false, false).unwrap().node, "a");
        assert!(view.choose(S, &key("r"), "us", true, false).is_none());
        let spread = |at: Duration, of: &View| {
            (0..100)
                .filter(|room| of.choose(at, &key(&room.to_string()), "eu", false, false).unwrap().node == "a")
                .count()
        };
        assert!((30..70).contains(&spread(60 * S, &view)), "silent: by the hash alone");
    }

    #[test]
    fn placements_hold_for_a_while_and_only_for_the_life_they_were_made_for() {
        let mut view = three();
        let place = PlaceRow::on(&node("b", "eu"));
        view.place(S, key("r"), place.clone());
        assert_eq!(view.placed(2 * S, &key("r")).unwrap().node, "b");
        assert!(view.placed(12 * S, &key("r")).is_none());
        view.hear_node(2 * S, NodeRow { boot: 2, ..node("b", "eu") });
        assert!(view.placed(2 * S, &key("r")).is_none() && view.takes(2 * S, &place).is_none());
    }
}
