//! The two ends of a WebSocket connection inside the server: the room task writes into [`Link`], the WebSocket task
//! reads from [`Feed`]. Bounded by messages and by bytes, so that a client that does not read costs its own connection
//! and nobody else's time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use signalling::livekit::{Encoded, Wire};
use signalling::room::api::{Refusal, Said};
use tokio::sync::{Notify, mpsc, oneshot};

/// A message on its way to any number of clients, encoded once per wire format.
#[derive(Debug)]
pub(super) struct Outgoing {
    message: Said,
    /// Hardly any client speaks JSON: made for the first that does.
    text: OnceLock<Option<Encoded>>,
}

impl Outgoing {
    pub(super) fn new(message: Said) -> Arc<Self> {
        Arc::new(Self { message, text: OnceLock::new() })
    }

    /// As the client reads it.
    pub(super) fn encoded(&self, wire: Wire) -> Option<Encoded> {
        match wire {
            Wire::Binary => self.message.encoded(wire).ok(),
            Wire::Text => self.text.get_or_init(|| self.message.encoded(wire).ok()).clone(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.message.len()
    }
}

/// How much may wait for one client.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueLimits {
    /// Messages.
    pub(super) messages: usize,
    /// Bytes.
    pub(super) bytes: usize,
}

/// The room's end.
#[derive(Debug)]
pub(super) struct Link {
    queue: Option<mpsc::Sender<Arc<Outgoing>>>,
    shared: Arc<Shared>,
    limit: usize,
    /// Taken when the first answer is known; the upgrade waits for it.
    first: Option<oneshot::Sender<Result<(), Refusal>>>,
}

/// The WebSocket's end.
#[derive(Debug)]
pub(super) struct Feed {
    queue: mpsc::Receiver<Arc<Outgoing>>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    bytes: AtomicUsize,
    overrun: Notify,
}

/// Why nothing more can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendError {
    /// The client reads too slowly: its connection is cut.
    Overrun,
    /// Closed before.
    Closed,
}

/// Both ends, and where the first answer shows.
pub(super) fn pair(limits: QueueLimits) -> (Link, Feed, oneshot::Receiver<Result<(), Refusal>>) {
    let (sender, receiver) = mpsc::channel(limits.messages);
    let (first, answer) = oneshot::channel();
    let shared = Arc::new(Shared::default());
    let link = Link { queue: Some(sender), shared: shared.clone(), limit: limits.bytes, first: Some(first) };
    (link, Feed { queue: receiver, shared }, answer)
}

impl Link {
    /// Queue a message; the first one lets the upgrade go on. Never waits.
    pub(super) fn send(&mut self, message: Arc<Outgoing>) -> Result<(), SendError> {
        let queue = self.queue.as_ref().ok_or(SendError::Closed)?;
        let length = message.len();
        let queued = self.shared.bytes.fetch_add(length, Ordering::Relaxed).saturating_add(length);
        if queued > self.limit || queue.try_send(message).is_err() {
            self.queue = None;
            self.shared.overrun.notify_one();
            return Err(SendError::Overrun);
        }
        if let Some(first) = self.first.take() {
            // Nobody waits any more: the client has gone, and its end says so on its own way.
            let _ = first.send(Ok(()));
        }
        Ok(())
    }

    /// Nothing follows; what is queued still goes out.
    pub(super) fn close(&mut self) {
        self.queue = None;
    }

    /// Answer with an HTTP status instead of an upgrade.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.queue = None;
        if let Some(first) = self.first.take() {
            let _ = first.send(Err(refusal));
        }
    }
}

impl Feed {
    /// The next message; `None` when the room has closed the connection and all before it was taken.
    pub(super) async fn next(&mut self) -> Option<Arc<Outgoing>> {
        let message = self.queue.recv().await?;
        self.shared.bytes.fetch_sub(message.len(), Ordering::Relaxed);
        Some(message)
    }

    /// The next message if it is there already.
    pub(super) fn try_next(&mut self) -> Option<Arc<Outgoing>> {
        let message = self.queue.try_recv().ok()?;
        self.shared.bytes.fetch_sub(message.len(), Ordering::Relaxed);
        Some(message)
    }

    /// Something to await beside [`Self::next`]: the client was too slow, all is lost.
    pub(super) fn overrun(&self) -> Overrun {
        Overrun(self.shared.clone())
    }
}

/// See [`Feed::overrun`].
#[derive(Debug)]
pub(super) struct Overrun(Arc<Shared>);

impl Overrun {
    pub(super) async fn happened(&self) {
        self.0.overrun.notified().await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may fail by panicking")]

    use livekit_protocol as proto;

    use super::*;

    fn message(bytes: usize) -> Arc<Outgoing> {
        let message = proto::signal_response::Message::RefreshToken("x".repeat(bytes));
        Outgoing::new(Said::from(&proto::SignalResponse { message: Some(message) }))
    }

    #[test]
    fn refuses_more_bytes_than_the_limit_and_takes_more_after_reading() {
        let (mut link, mut feed, _answer) = pair(QueueLimits { messages: 16, bytes: 1_000 });
        link.send(message(600)).unwrap();
        assert!(feed.try_next().is_some());
        link.send(message(600)).unwrap();
        assert_eq!(link.send(message(600)), Err(SendError::Overrun));
        assert_eq!(link.send(message(1)), Err(SendError::Closed));
    }

    #[test]
    fn refuses_more_messages_than_the_limit() {
        let (mut link, _feed, _answer) = pair(QueueLimits { messages: 2, bytes: 1_000 });
        link.send(message(1)).unwrap();
        link.send(message(1)).unwrap();
        assert_eq!(link.send(message(1)), Err(SendError::Overrun));
    }

    #[test]
    fn first_message_or_refusal_answers_the_join() {
        let (mut link, _feed, mut answer) = pair(QueueLimits { messages: 2, bytes: 1_000 });
        link.send(message(1)).unwrap();
        assert_eq!(answer.try_recv().unwrap(), Ok(()));
        let (mut link, _feed, mut answer) = pair(QueueLimits { messages: 2, bytes: 1_000 });
        link.refuse(Refusal::NoSuchRoom);
        assert_eq!(answer.try_recv().unwrap(), Err(Refusal::NoSuchRoom));
    }
}
