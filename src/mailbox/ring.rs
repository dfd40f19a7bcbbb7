//! The way from one shard to another: whole batches there, empty ones back. One ring for each ordered pair of media
//! threads; made once, nothing is allocated when batches have grown to what crosses in a turn.
//!
//! A full ring makes the sender keep its batch and go on filling it; only when that is full too, packets are dropped.
//! Neither side ever waits for the other.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use super::Shared;
use crate::base::ShardId;
use crate::shard::relay::Batch;

/// Batches on the way from one thread to another. The reader takes all of them in each turn; more would only let them
/// grow old together.
const BATCHES: usize = 8;

/// What both ends share.
#[derive(Debug)]
pub struct Ring {
    full: ArrayQueue<Box<Batch>>,
    empty: ArrayQueue<Box<Batch>>,
}

/// The sending end.
#[derive(Debug)]
pub struct RingInlet {
    ring: Arc<Ring>,
    reader: Arc<Shared>,
}

/// The reading end.
#[derive(Debug)]
pub struct RingOutlet {
    from: ShardId,
    ring: Arc<Ring>,
}

impl Ring {
    /// Both ends of a way from `from` to the thread that reads `reader`.
    pub(super) fn ends(from: ShardId, reader: Arc<Shared>) -> (RingInlet, RingOutlet) {
        let ring = Arc::new(Self { full: ArrayQueue::new(BATCHES), empty: ArrayQueue::new(BATCHES) });
        (RingInlet { ring: ring.clone(), reader }, RingOutlet { from, ring })
    }
}

impl RingInlet {
    /// Hand over what is in `batch`, which is empty afterwards. `false`: there is no place now, it stays as it is.
    pub fn send(&self, batch: &mut Box<Batch>) -> bool {
        if self.ring.full.is_full() {
            return false;
        }
        let empty = self.ring.empty.pop().unwrap_or_default();
        // This is the only sender, so there is still a place.
        let sent = self.ring.full.push(std::mem::replace(batch, empty)).is_ok();
        self.reader.wake();
        sent
    }
}

impl RingOutlet {
    /// Whose batches these are.
    pub const fn from(&self) -> ShardId {
        self.from
    }

    /// The next batch, to be given back by [`Self::done`].
    pub fn take(&self) -> Option<Box<Batch>> {
        self.ring.full.pop()
    }

    /// A batch has been read.
    pub fn done(&self, mut batch: Box<Batch>) {
        batch.clear();
        // More than fit exist only while the ring grows: they are forgotten.
        let _ = self.ring.empty.push(batch);
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.ring.full.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn carries_batches_over_and_their_memory_back() {
        let poll = mio::Poll::new().unwrap();
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
        let (mailbox, mut inbox) = super::super::Mailbox::new(waker);
        let (inlet, outlet) = mailbox.ring(ShardId(3));
        inbox.attach(outlet);
        let mut batch = Box::new(Batch::default());
        for _ in 0..BATCHES {
            assert!(inlet.send(&mut batch));
        }
        assert!(!inlet.send(&mut batch), "full");
        assert!(!inbox.may_sleep(), "something waits");
        let outlet = &inbox.rings()[0];
        assert_eq!(outlet.from(), ShardId(3));
        let first = outlet.take().unwrap();
        let memory = std::ptr::from_ref::<Batch>(&first);
        outlet.done(first);
        assert!(inlet.send(&mut batch));
        assert_eq!(std::ptr::from_ref::<Batch>(&batch), memory, "the memory came back");
    }
}
