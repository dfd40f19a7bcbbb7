//! Webhooks: tells the configured receivers what happens in rooms, signed as LiveKit signs them, so that its receivers
//! work: `Authorization` is a token whose `sha256` claim is that of the body.
//!
//! A room hands an event over and never waits. One task ([`delivery`]) keeps a queue for each room and receiver: what
//! one room says arrives in order, and a slow receiver delays neither other rooms nor other receivers.

mod delivery;

use std::sync::Arc;
use std::time::Duration;

use livekit_protocol as proto;
use reqwest::Url;
use signalling::room::api::Notice;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::auth::Auth;
use super::metrics::Metrics;
use crate::media::clock::unix_now;
use delivery::{Delivery, Poster};

/// Events on their way from rooms to the delivery task. Full: the event is dropped and counted; a room never waits.
const INBOX: usize = 4_096;
/// Requests at once, over all rooms and receivers.
const AT_ONCE: usize = 32;
/// How long one request may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Takes events for the receivers. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Webhooks {
    inbox: mpsc::Sender<Told>,
    metrics: Arc<Metrics>,
}

/// What the delivery task is told.
#[derive(Debug)]
enum Told {
    /// Something happened in a room.
    Event { room: String, event: Box<proto::WebhookEvent>, at: Instant },
    /// Say when nothing is left to deliver.
    Flush(oneshot::Sender<()>),
}

impl Webhooks {
    /// Start the delivery task. `key` signs; empty: the first one.
    ///
    /// # Errors
    /// When there can be no HTTP client, for example because the system has no root certificates.
    pub(super) fn start(
        receivers: Vec<Url>,
        key: String,
        auth: Arc<Auth>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
            // Only to whom the operator named: a receiver cannot send weir elsewhere, nor can the environment.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .build()?;
        let poster = Arc::new(Poster { client, receivers, key, auth, places: Semaphore::new(AT_ONCE) });
        let (inbox, told) = mpsc::channel(INBOX);
        tokio::spawn(Delivery::new(poster, metrics.clone()).run(told));
        Ok(Self { inbox, metrics })
    }

    /// Tell the receivers. Never waits.
    pub(super) fn tell(&self, notice: Notice) {
        let event = event_of(notice);
        let room = event.room.as_ref().map(|room| room.name.clone()).unwrap_or_default();
        if self.inbox.try_send(Told::Event { room, event: Box::new(event), at: Instant::now() }).is_err() {
            self.metrics.webhooks.with_label_values(&["dropped"]).inc();
        }
    }

    /// Wait until nothing is left to deliver.
    pub(super) async fn flush(&self) {
        let (done, waiting) = oneshot::channel();
        if self.inbox.send(Told::Flush(done)).await.is_ok() {
            // Fails when the task is gone: then nothing is left either.
            let _ = waiting.await;
        }
    }
}

fn event_of(notice: Notice) -> proto::WebhookEvent {
    let (name, room, participant, track) = match notice {
        Notice::RoomStarted(room) => ("room_started", room, None, None),
        Notice::RoomFinished(room) => ("room_finished", room, None, None),
        Notice::ParticipantJoined(room, who) => ("participant_joined", room, Some(*who), None),
        Notice::ParticipantLeft(room, who) => ("participant_left", room, Some(*who), None),
        Notice::ParticipantAborted(room, who) => ("participant_connection_aborted", room, Some(*who), None),
        Notice::TrackPublished(room, who, track) => ("track_published", room, Some(*who), Some(*track)),
        Notice::TrackUnpublished(room, who, track) => ("track_unpublished", room, Some(*who), Some(*track)),
    };
    proto::WebhookEvent {
        event: name.to_owned(),
        room: Some(*room),
        participant,
        track,
        id: event_id(),
        created_at: i64::try_from(unix_now().as_secs()).unwrap_or(i64::MAX),
        ..Default::default()
    }
}

/// A random UUID (RFC 9562, 5.4): receivers tell a repeated delivery by it.
fn event_id() -> String {
    let mut bytes = [0; 16];
    // Without randomness the id is empty of meaning, the event is not.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    let bits = u128::from_be_bytes(bytes) & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| hex.get(range).unwrap_or_default());
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::event_id;

    #[test]
    fn ids_are_random_uuids() {
        let id = event_id();
        assert_eq!(id.len(), 36);
        assert_eq!(id.as_bytes().get(14), Some(&b'4'), "{id}");
        assert!(id.as_bytes().get(19).is_some_and(|c| b"89ab".contains(c)), "{id}");
        assert_ne!(id, event_id());
    }
}
