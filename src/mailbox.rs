//! The only thing control and media share: commands in, reports out, both bounded.
//!
//! Control holds a [`MediaLink`]: per media thread a [`Mailbox`] to send commands to, and one channel on which all
//! threads report. A media thread holds the other ends ([`Inbox`], [`Reporter`]). Neither side ever waits for the other:
//! a full mailbox is an error control answers with a refusal, a full report channel makes the thread keep what must
//! not be lost and merge what may be replaced.

mod inbox;
mod relay;
mod report;
mod ring;

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use tokio::sync::{mpsc, oneshot};

use crate::base::{DowntrackId, ParticipantId, RoomId, ShardId, TrackId, TransportId};
use crate::shard::command::Command;
use crate::shard::debug::ShardState;

pub use inbox::{Inbox, Order};
pub use relay::{RelayBox, RelayInbox, RelayedBatch, RelayedRun};
pub use report::{Report, Reporter, ThreadStats, TurnStats};
pub use ring::{Ring, RingInlet, RingOutlet};

/// Commands that wait for one media thread. More: the media thread is overloaded, a join is better refused.
pub const COMMANDS: usize = 1024;
/// Removals that wait for one media thread: a place for every downtrack a busy shard could end within a turn.
pub const REMOVALS: usize = 65_536;
/// Reports of all media threads that wait for control.
pub const REPORTS: usize = 4096;
/// Accepted ICE-TCP connections that wait for one media thread.
const CONNECTIONS: usize = 256;
/// Batches of relayed datagrams that wait for one media thread.
const BATCHES: usize = 1_024;
/// Debug pictures asked for at the same time.
const INSPECTIONS: usize = 4;

/// What control needs of the media threads.
#[derive(Debug)]
pub struct MediaLink {
    /// One per media thread, in order: the position is the thread number of [`ufrag_prefix`] and of `reports`.
    pub threads: Vec<ThreadLink>,
    /// Addresses the ICE-TCP acceptor listens on; empty when it is off.
    pub tcp: Vec<SocketAddr>,
    /// Where the TURN service listens, if there is one.
    pub turn: Option<TurnLink>,
    /// What all threads report, with the number of the thread.
    pub reports: mpsc::Receiver<(usize, Report)>,
}

/// Where the TURN service listens.
#[derive(Clone, Debug, Default)]
pub struct TurnLink {
    /// UDP.
    pub udp: Vec<SocketAddr>,
    /// TCP.
    pub tcp: Vec<SocketAddr>,
    /// TLS, or what a proxy that ends TLS forwards to.
    pub tls: Vec<SocketAddr>,
}

/// One media thread as control sees it.
#[derive(Clone, Debug)]
pub struct ThreadLink {
    /// Where commands go.
    pub mailbox: Mailbox,
    /// Its bound UDP addresses. An unspecified IP stands for all addresses of the machine; the port is always real.
    pub udp: Vec<SocketAddr>,
}

/// The sending end of one media thread's queues. Cheap to clone; usable from any thread or task without waiting.
#[derive(Clone, Debug)]
pub struct Mailbox(Arc<Shared>);

/// A queue of a media thread is full. The command comes back.
#[derive(Debug, thiserror::Error)]
#[error("the media thread has too many commands waiting")]
pub struct MailboxFull(pub Box<Command>);

/// A connection whose first frame named this thread, on its way from the acceptor.
#[derive(Debug)]
pub struct HandedOver {
    /// The connection, non-blocking.
    pub stream: TcpStream,
    /// What was read of it already: the first frame with its length, and perhaps more.
    pub read: Vec<u8>,
}

/// State of both ends.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Number of the next order of either queue, so that the reader can tell what was sent before what.
    ticket: AtomicU64,
    commands: ArrayQueue<(u64, Command)>,
    removals: ArrayQueue<(u64, Removal)>,
    connections: ArrayQueue<HandedOver>,
    relayed: ArrayQueue<RelayedBatch>,
    inspections: ArrayQueue<oneshot::Sender<ShardState>>,
    /// The thread is in poll, or about to be: whoever queues something must wake it.
    asleep: AtomicBool,
    /// The thread is to end.
    stop: AtomicBool,
    /// Times the watchdog found the thread stalled.
    stalls: AtomicU64,
    waker: mio::Waker,
}

impl Mailbox {
    /// Both ends of a mailbox. `waker` belongs to the poll of the thread that reads.
    pub fn new(waker: mio::Waker) -> (Self, Inbox) {
        let shared = Arc::new(Shared {
            ticket: AtomicU64::new(0),
            commands: ArrayQueue::new(COMMANDS),
            removals: ArrayQueue::new(REMOVALS),
            connections: ArrayQueue::new(CONNECTIONS),
            relayed: ArrayQueue::new(BATCHES),
            inspections: ArrayQueue::new(INSPECTIONS),
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            stalls: AtomicU64::new(0),
            waker,
        });
        (Self(shared.clone()), Inbox::new(shared))
    }

    /// Queue a command and wake the thread. Commands of one sender are obeyed in order, with one exception: what removes
    /// (`Remove*`, `Unpublish`, `Unsubscribe`) has a queue of its own, overtakes, and is obeyed a second time at its
    /// place in the order, so that nothing sent before it can bring back what it removed.
    pub fn send(&self, command: Command) -> Result<(), MailboxFull> {
        let removal = Removal::of(&command);
        let ticket = self.0.ticket.fetch_add(1, Ordering::AcqRel);
        let pushed = match removal {
            Some(removal) => self.0.removals.push((ticket, removal)).map_err(|_| command),
            None => self.0.commands.push((ticket, command)).map_err(|(_, command)| command),
        };
        pushed.map_err(|command| MailboxFull(Box::new(command)))?;
        self.0.wake();
        Ok(())
    }

    /// Ask for a picture of the shard. The receiver fails when too many ask, or the shard dies meanwhile.
    pub fn inspect(&self) -> oneshot::Receiver<ShardState> {
        let (sender, receiver) = oneshot::channel();
        // Full: the sender is dropped, which tells the receiver.
        let _ = self.0.inspections.push(sender);
        self.0.wake();
        receiver
    }

    /// Commands and removals that wait now.
    pub fn depth(&self) -> usize {
        self.0.commands.len() + self.0.removals.len()
    }

    /// How often the watchdog found this thread stalled for a second, since the start.
    pub fn stalls(&self) -> u64 {
        self.0.stalls.load(Ordering::Relaxed)
    }

    /// The watchdog found the thread stalled.
    pub fn count_stall(&self) {
        self.0.stalls.fetch_add(1, Ordering::Relaxed);
    }

    /// Hand over an accepted connection. Full: it comes back, to be closed.
    pub fn hand_over(&self, connection: HandedOver) -> Result<(), HandedOver> {
        self.0.connections.push(connection)?;
        self.0.wake();
        Ok(())
    }

    /// Hand over datagrams of the TURN service. Full: they come back, to be forgotten.
    pub fn relay(&self, batch: RelayedBatch) -> Result<(), RelayedBatch> {
        self.0.relayed.push(batch)?;
        self.0.wake();
        Ok(())
    }

    /// A way for the shard `from` to this thread's; the other end goes to [`Inbox::attach`].
    pub fn ring(&self, from: ShardId) -> (RingInlet, RingOutlet) {
        Ring::ends(from, self.0.clone())
    }

    /// Tell the thread to end after its current turn.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::SeqCst);
        self.0.wake();
    }
}

impl Shared {
    /// Wake the reader if it sleeps. The queue has been written before: the reader raises `asleep` first and looks at
    /// its queues afterwards, so one of both sees the other.
    fn wake(&self) {
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst) {
            // Fails only when the descriptor is gone, that is, never while `self` lives.
            let _ = self.waker.wake();
        }
    }
}

/// A command that takes away, in few bytes: it must get through however full the mailbox is.
#[derive(Clone, Copy, Debug)]
enum Removal {
    Room(RoomId),
    Participant(ParticipantId),
    Transport(TransportId),
    Track(TrackId),
    Downtrack(DowntrackId),
}

impl Removal {
    const fn of(command: &Command) -> Option<Self> {
        match command {
            Command::RemoveRoom { room } => Some(Self::Room(*room)),
            Command::RemoveParticipant { participant } => Some(Self::Participant(*participant)),
            Command::RemoveTransport { transport } => Some(Self::Transport(*transport)),
            Command::Unpublish { track } => Some(Self::Track(*track)),
            Command::Unsubscribe { downtrack } => Some(Self::Downtrack(*downtrack)),
            _ => None,
        }
    }

    const fn command(self) -> Command {
        match self {
            Self::Room(room) => Command::RemoveRoom { room },
            Self::Participant(participant) => Command::RemoveParticipant { participant },
            Self::Transport(transport) => Command::RemoveTransport { transport },
            Self::Track(track) => Command::Unpublish { track },
            Self::Downtrack(downtrack) => Command::Unsubscribe { downtrack },
        }
    }
}

const BASE36: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
/// Most media threads a node can have: what two characters of a ufrag can tell apart.
pub const MAX_THREADS: usize = 36 * 36;

/// The two characters every ICE user name fragment of a media thread starts with (its number in base 36), so that the
/// first check on an ICE-TCP connection tells where it belongs. `None` from [`MAX_THREADS`] on.
pub fn ufrag_prefix(thread: usize) -> Option<[char; 2]> {
    let high = BASE36.get(thread / 36)?;
    let low = BASE36.get(thread % 36)?;
    Some([char::from(*high), char::from(*low)])
}

/// The media thread a ufrag of ours belongs to, by its first two characters; whether that thread exists is not checked.
pub fn thread_of_ufrag(ufrag: &[u8]) -> Option<usize> {
    let digit = |at: usize| BASE36.iter().position(|c| Some(c) == ufrag.get(at));
    Some(digit(0)? * 36 + digit(1)?)
}

#[cfg(test)]
mod tests;
