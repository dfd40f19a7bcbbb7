//! Where nodes write what they are and have, and read it of each other. Two kinds: in memory, for a node alone and for
//! nodes of one process, and NATS ([`super::nats`]).
//!
//! No call takes longer than [`LIMIT`]; none can fail in a way that matters: what did not arrive is said again.

use std::collections::BTreeMap;
#[expect(clippy::disallowed_types, reason = "held for a few instructions")]
use std::sync::Mutex;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::nats::Nats;
use super::view::{NodeRow, PLACED, PlaceRow, RoomKey, RoomRow};

/// The most any call to the directory takes.
pub(super) const LIMIT: Duration = Duration::from_millis(100);
/// Facts that wait to be read. More are lost, and said again.
pub(super) const FACTS: usize = 16_384;

/// Something a node said.
#[derive(Clone, Debug)]
pub(super) enum Fact {
    Node(NodeRow),
    Room { key: RoomKey, node: String, row: RoomRow },
}

/// How a wish to place a room ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// As wished.
    Mine,
    /// Somebody was first. `revision`: to name when it is to be replaced.
    Theirs { place: PlaceRow, revision: u64 },
    /// The directory does not say.
    Unknown,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) enum Directory {
    Memory(Board),
    Nats(Box<Nats>),
}

impl Directory {
    /// This node about itself.
    pub(super) async fn announce(&self, row: &NodeRow) {
        match self {
            Self::Memory(board) => board.tell(&Fact::Node(row.clone())),
            Self::Nats(nats) => drop(timeout(LIMIT, nats.announce(row)).await),
        }
    }

    /// This node about a room of its own.
    pub(super) async fn set_room(&self, key: &RoomKey, node: &str, row: &RoomRow) {
        match self {
            Self::Memory(board) => {
                board.tell(&Fact::Room { key: key.clone(), node: node.to_owned(), row: row.clone() });
            }
            Self::Nats(nats) => drop(timeout(LIMIT, nats.set_room(key, node, row)).await),
        }
    }

    /// Place a room that nobody serves. `instead_of`: the revision of a placement that has become void.
    pub(super) async fn claim(&self, now: Duration, key: &RoomKey, place: &PlaceRow, instead_of: Option<u64>) -> Claim {
        match self {
            Self::Memory(board) => board.claim(now, key, place, instead_of),
            Self::Nats(nats) => {
                timeout(LIMIT, nats.claim(key, place, instead_of)).await.ok().flatten().unwrap_or(Claim::Unknown)
            }
        }
    }

    /// Have everything said again that others said of their rooms. False: it cannot be had now.
    pub(super) async fn recall(&self) -> bool {
        match self {
            Self::Memory(board) => board.recall(),
            // Several calls.
            Self::Nats(nats) => timeout(10 * LIMIT, nats.recall()).await.unwrap_or(false),
        }
    }
}

/// A directory in memory.
#[derive(Clone, Debug)]
#[expect(clippy::disallowed_types, reason = "see the import")]
pub(super) struct Board(Arc<Mutex<Written>>);

#[derive(Debug, Default)]
struct Written {
    readers: Vec<mpsc::Sender<Fact>>,
    rooms: BTreeMap<(RoomKey, String), RoomRow>,
    /// With revision and end.
    places: BTreeMap<RoomKey, (PlaceRow, u64, Duration)>,
    revision: u64,
    /// Tests: nothing gets through.
    silent: bool,
}

/// Placements kept before the old ones are swept out.
const MAX_PLACES: usize = 4_096;

impl Board {
    /// Nothing on it.
    #[expect(clippy::disallowed_types, reason = "see the import")]
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Written::default())))
    }

    /// Read it from now on.
    pub(super) fn read(&self) -> mpsc::Receiver<Fact> {
        let (sender, facts) = mpsc::channel(FACTS);
        self.written().readers.push(sender);
        facts
    }

    /// Let nothing through, or again.
    #[cfg(test)]
    pub(super) fn set_silent(&self, silent: bool) {
        self.written().silent = silent;
    }

    fn tell(&self, fact: &Fact) {
        let mut written = self.written();
        if written.silent {
            return;
        }
        if let Fact::Room { key, node, row } = fact {
            let at = (key.clone(), node.clone());
            if row.ended {
                written.rooms.remove(&at);
            } else {
                written.rooms.insert(at, row.clone());
            }
        }
        written.readers.retain(|reader| !reader.is_closed());
        for reader in &written.readers {
            // Full: it is said again.
            let _ = reader.try_send(fact.clone());
        }
    }

    fn claim(&self, now: Duration, key: &RoomKey, place: &PlaceRow, instead_of: Option<u64>) -> Claim {
        let mut written = self.written();
        if written.silent {
            return Claim::Unknown;
        }
        if let Some((there, revision, until)) = written.places.get(key)
            && there != place
            && instead_of != Some(*revision)
            && now < *until
        {
            return Claim::Theirs { place: there.clone(), revision: *revision };
        }
        if written.places.len() >= MAX_PLACES {
            written.places.retain(|_, (_, _, until)| now < *until);
        }
        written.revision += 1;
        let revision = written.revision;
        written.places.insert(key.clone(), (place.clone(), revision, now + PLACED));
        Claim::Mine
    }

    fn recall(&self) -> bool {
        let written = self.written();
        if written.silent {
            return false;
        }
        for ((key, node), row) in &written.rooms {
            let fact = Fact::Room { key: key.clone(), node: node.clone(), row: row.clone() };
            for reader in &written.readers {
                let _ = reader.try_send(fact.clone());
            }
        }
        true
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        // Whole after every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
