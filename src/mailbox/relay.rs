//! The way between media threads and the TURN thread: what shards send to allocations, and what clients send to shards.
//! Bounded both ways; what does not fit is lost, as on any path.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_queue::ArrayQueue;

use crate::transport::route::{Allocation, Route};

/// Runs that wait for the TURN thread: some tens of milliseconds of a busy node.
const RUNS: usize = 4_096;

/// Datagrams of a shard for one client of the TURN service, each `segment` bytes long, the last perhaps shorter.
#[derive(Debug)]
pub struct RelayedRun {
    /// Whose.
    pub allocation: Allocation,
    /// The address of ours the client knows the shard by.
    pub from: SocketAddr,
    /// All of them, one after the other.
    pub bytes: Vec<u8>,
    /// Size of each but the last.
    pub segment: usize,
}

/// Datagrams of clients of the TURN service for one media thread.
#[derive(Debug, Default)]
pub struct RelayedBatch {
    /// All of them, one after the other.
    pub bytes: Vec<u8>,
    /// Each with the route answers take.
    pub datagrams: Vec<(Route, Range<usize>)>,
}

#[derive(Debug)]
struct Shared {
    runs: ArrayQueue<RelayedRun>,
    /// The TURN thread is in poll, or about to be.
    asleep: AtomicBool,
    stop: AtomicBool,
    waker: mio::Waker,
}

/// The end media threads and the node hold.
#[derive(Clone, Debug)]
pub struct RelayBox(Arc<Shared>);

/// The end the TURN thread reads.
#[derive(Debug)]
pub struct RelayInbox(Arc<Shared>);

impl RelayBox {
    /// Both ends. `waker` belongs to the poll of the TURN thread.
    pub fn new(waker: mio::Waker) -> (Self, RelayInbox) {
        let shared = Arc::new(Shared {
            runs: ArrayQueue::new(RUNS),
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            waker,
        });
        (Self(shared.clone()), RelayInbox(shared))
    }

    /// Queue a run and wake the thread. Full: it comes back, to be counted as lost.
    pub fn send(&self, run: RelayedRun) -> Result<(), RelayedRun> {
        self.0.runs.push(run)?;
        self.wake();
        Ok(())
    }

    /// Tell the thread to end after its current turn.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// What is to be read has been written before: the reader raises `asleep` first and looks afterwards, so one of both
    /// sees the other.
    fn wake(&self) {
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.0.asleep.swap(false, Ordering::SeqCst) {
            let _ = self.0.waker.wake();
        }
    }
}

impl RelayInbox {
    /// The next run. Never waits.
    pub fn take(&self) -> Option<RelayedRun> {
        self.0.runs.pop()
    }

    /// Whether the thread is to end.
    pub fn is_stopped(&self) -> bool {
        self.0.stop.load(Ordering::SeqCst)
    }

    /// Announce that the thread is about to sleep. `false`: something waits, do not.
    pub fn may_sleep(&self) -> bool {
        self.0.asleep.store(true, Ordering::SeqCst);
        std::sync::atomic::fence(Ordering::SeqCst);
        let is_idle = self.0.runs.is_empty() && !self.is_stopped();
        if !is_idle {
            self.awake();
        }
        is_idle
    }

    /// The thread is awake: no need to wake it.
    pub fn awake(&self) {
        self.0.asleep.store(false, Ordering::SeqCst);
    }
}
