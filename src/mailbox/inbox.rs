//! The reading end of a mailbox: removals first, everything else in order, never more than a turn's worth.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::{HandedOver, RelayedBatch, Removal, RingOutlet, Shared};
use crate::shard::command::Command;
use crate::shard::debug::ShardState;

/// The receiving end of one media thread's queues. One thread reads it.
#[derive(Debug)]
pub struct Inbox {
    shared: Arc<Shared>,
    /// Removals obeyed early, to be obeyed once more when the commands sent before them have been. At most as many as
    /// fit the removal queue: further ones stay there.
    again: VecDeque<(u64, Removal)>,
    /// A command taken out of the queue that a removal of `again` comes before.
    held: Option<(u64, Command)>,
    /// What the other shards of the node have for this one.
    rings: Vec<RingOutlet>,
}

/// One thing a media thread is asked to do.
#[derive(Debug)]
pub enum Order {
    /// For the shard.
    Command(Command),
    /// A connection the acceptor found to be ours.
    Connection(HandedOver),
    /// Datagrams that came through the TURN service.
    Relayed(RelayedBatch),
    /// Somebody wants a picture.
    Inspect(oneshot::Sender<ShardState>),
}

impl Inbox {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, again: VecDeque::new(), held: None, rings: Vec::new() }
    }

    /// The next thing to do, or nothing for now. Never waits.
    pub fn take(&mut self) -> Option<Order> {
        if let Some((ticket, removal)) = self.shared.removals.pop() {
            // Nothing is before it when no command waits: then once is enough.
            if self.held.is_some() || !self.shared.commands.is_empty() {
                self.again.push_back((ticket, removal));
            }
            return Some(Order::Command(removal.command()));
        }
        if let Some(command) = self.next_in_order() {
            return Some(Order::Command(command));
        }
        if let Some(connection) = self.shared.connections.pop() {
            return Some(Order::Connection(connection));
        }
        if let Some(batch) = self.shared.relayed.pop() {
            return Some(Order::Relayed(batch));
        }
        self.shared.inspections.pop().map(Order::Inspect)
    }

    /// Another shard will send to this one.
    pub fn attach(&mut self, ring: RingOutlet) {
        self.rings.push(ring);
    }

    /// The ways from the other shards.
    pub fn rings(&self) -> &[RingOutlet] {
        &self.rings
    }

    /// The next command, or the removal that was sent before it. A sender takes its tickets one after the other, each
    /// only when the command before is in its queue; so a command with a higher ticket stands behind all that came
    /// before the removal.
    fn next_in_order(&mut self) -> Option<Command> {
        let next = self.held.take().or_else(|| self.shared.commands.pop());
        let removal_is_due = match (self.again.front(), &next) {
            (Some((removal, _)), Some((command, _))) => removal < command,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if removal_is_due {
            self.held = next;
            return self.again.pop_front().map(|(_, removal)| removal.command());
        }
        next.map(|(_, command)| command)
    }

    /// Announce that the thread is about to sleep. `false`: something waits, or the thread is to stop; do not sleep.
    pub fn may_sleep(&self) -> bool {
        self.shared.asleep.store(true, Ordering::SeqCst);
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.is_empty() && !self.is_stopped() {
            return true;
        }
        self.awake();
        false
    }

    /// The thread is awake: no need to wake it.
    pub fn awake(&self) {
        self.shared.asleep.store(false, Ordering::SeqCst);
    }

    /// Whether the thread is to end.
    pub fn is_stopped(&self) -> bool {
        self.shared.stop.load(Ordering::SeqCst)
    }

    /// Commands and removals that wait.
    pub fn depth(&self) -> usize {
        self.shared.commands.len() + self.shared.removals.len()
    }

    fn is_empty(&self) -> bool {
        self.held.is_none()
            && self.again.is_empty()
            && self.shared.removals.is_empty()
            && self.shared.commands.is_empty()
            && self.shared.connections.is_empty()
            && self.shared.relayed.is_empty()
            && self.shared.inspections.is_empty()
            && self.rings.iter().all(RingOutlet::is_empty)
    }
}
