//! Brings webhooks to their receivers: a queue for each room and receiver, one request at a time in each, tried again
//! with growing pauses until the event is too old. Bounded in events, bytes, requests and age.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use reqwest::{StatusCode, Url, header};
use signalling::token::{Claims, body_hash};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::Told;
use crate::control::auth::Auth;
use crate::control::metrics::Metrics;

/// Events that may wait for one room and receiver; further ones are dropped, so that what is sent stays in order.
const DEPTH: usize = 200;
/// Bytes that may wait in all queues together.
const MAX_BYTES: usize = 64 << 20;
/// An event older than this is dropped: its receiver has been told nothing for so long that it must ask anyway.
const MAX_AGE: Duration = Duration::from_secs(30);
/// The first pause before a request is tried again; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long the token of a request is good.
const TOKEN_LIFETIME: Duration = Duration::from_secs(300);
/// Troubles are logged at most this often.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// An event as it is sent.
#[derive(Debug)]
struct Parcel {
    body: Bytes,
    expires: Instant,
}

/// A room's name and a receiver's number.
type Key = (String, usize);

/// The delivery task.
pub(super) struct Delivery {
    poster: Arc<Poster>,
    metrics: Arc<Metrics>,
    /// What waits behind the request that is under way; a key is here exactly as long as one is.
    queues: BTreeMap<Key, VecDeque<Arc<Parcel>>>,
    under_way: FuturesUnordered<BoxFuture<'static, (Key, Outcome)>>,
    bytes: usize,
    flushes: Vec<oneshot::Sender<()>>,
    logged: Option<Instant>,
}

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Delivered,
    /// The receiver does not want it, now or later.
    Refused,
    /// The receiver could not be reached in time.
    Expired,
}

impl Delivery {
    pub(super) fn new(poster: Arc<Poster>, metrics: Arc<Metrics>) -> Self {
        let (queues, under_way) = (BTreeMap::new(), FuturesUnordered::new());
        Self { poster, metrics, queues, under_way, bytes: 0, flushes: Vec::new(), logged: None }
    }

    /// Until the node is gone.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Told>) {
        loop {
            tokio::select! {
                told = inbox.recv() => match told {
                    Some(Told::Event { room, event, at }) => {
                        // A message of ours always has a JSON form.
                        let Ok(body) = serde_json::to_vec(&event) else { continue };
                        let parcel = Arc::new(Parcel { body: body.into(), expires: at + MAX_AGE });
                        for receiver in 0..self.poster.receivers.len() {
                            self.queue((room.clone(), receiver), parcel.clone());
                        }
                    }
                    // As many as there are callers: one, when the node stops.
                    Some(Told::Flush(done)) => self.flushes.push(done),
                    None => return,
                },
                Some((key, outcome)) = self.under_way.next() => self.ended(key, outcome),
            }
            if self.queues.is_empty() {
                for done in self.flushes.drain(..) {
                    let _ = done.send(());
                }
            }
        }
    }

    fn queue(&mut self, key: Key, parcel: Arc<Parcel>) {
        let receiver = key.1;
        match self.queues.entry(key) {
            Entry::Vacant(place) => {
                let key = place.key().clone();
                place.insert(VecDeque::new());
                self.send(key, parcel);
            }
            Entry::Occupied(mut queue) => {
                if queue.get().len() >= DEPTH || self.bytes.saturating_add(parcel.body.len()) > MAX_BYTES {
                    self.count("dropped");
                    self.log(receiver, "too many webhooks wait for a receiver; one is dropped");
                    return;
                }
                self.bytes = self.bytes.saturating_add(parcel.body.len());
                queue.get_mut().push_back(parcel);
            }
        }
    }

    fn ended(&mut self, key: Key, outcome: Outcome) {
        match outcome {
            Outcome::Delivered => self.count("delivered"),
            Outcome::Refused => {
                self.count("refused");
                self.log(key.1, "a receiver refuses a webhook");
            }
            Outcome::Expired => {
                self.count("expired");
                self.log(key.1, "a receiver could not be reached for 30 seconds; a webhook is dropped");
            }
        }
        match self.queues.get_mut(&key).and_then(VecDeque::pop_front) {
            Some(parcel) => {
                self.bytes = self.bytes.saturating_sub(parcel.body.len());
                self.send(key, parcel);
            }
            None => {
                self.queues.remove(&key);
            }
        }
    }

    fn send(&self, key: Key, parcel: Arc<Parcel>) {
        let poster = self.poster.clone();
        self.under_way.push(Box::pin(async move {
            let outcome = poster.deliver(key.1, &parcel).await;
            (key, outcome)
        }));
    }

    fn count(&self, result: &str) {
        self.metrics.webhooks.with_label_values(&[result]).inc();
    }

    fn log(&mut self, receiver: usize, what: &str) {
        let now = Instant::now();
        if self.logged.is_none_or(|last| now.duration_since(last) >= LOG_INTERVAL) {
            self.logged = Some(now);
            tracing::warn!(receiver = receiver + 1, "{what}");
        }
    }
}

/// Makes the requests.
#[derive(Debug)]
pub(super) struct Poster {
    pub(super) client: reqwest::Client,
    pub(super) receivers: Vec<Url>,
    /// Signs; empty: the first key.
    pub(super) key: String,
    pub(super) auth: Arc<Auth>,
    /// Requests that may be under way.
    pub(super) places: Semaphore,
}

/// How a receiver answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Taken,
    Never,
    Later,
}

impl Poster {
    async fn deliver(&self, receiver: usize, parcel: &Parcel) -> Outcome {
        let mut pause = FIRST_PAUSE;
        while Instant::now() < parcel.expires {
            let attempt = async {
                let place = self.places.acquire().await;
                let answer = self.post(receiver, &parcel.body).await;
                drop(place);
                answer
            };
            match tokio::time::timeout_at(parcel.expires, attempt).await {
                Ok(Answer::Taken) => return Outcome::Delivered,
                Ok(Answer::Never) => return Outcome::Refused,
                Ok(Answer::Later) => {}
                Err(_) => return Outcome::Expired,
            }
            tokio::time::sleep_until(parcel.expires.min(Instant::now() + pause)).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
        Outcome::Expired
    }

    async fn post(&self, receiver: usize, body: &Bytes) -> Answer {
        let Some(url) = self.receivers.get(receiver) else { return Answer::Never };
        let claims = Claims { sha256: body_hash(body), ..Claims::default() };
        let Ok(token) = self.auth.sign_as(&self.key, claims, TOKEN_LIFETIME) else { return Answer::Never };
        let request = self
            .client
            .post(url.clone())
            .header(header::CONTENT_TYPE, "application/webhook+json")
            .header(header::AUTHORIZATION, token)
            .body(body.clone());
        match request.send().await {
            // What the receiver says beyond its status is not read.
            Ok(response) => answer_of(response.status()),
            Err(_) => Answer::Later,
        }
    }
}

fn answer_of(status: StatusCode) -> Answer {
    if status.is_success() {
        Answer::Taken
    } else if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
        || status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
    {
        Answer::Later
    } else {
        // A redirect too: it is not followed, and does not go away by being asked again.
        Answer::Never
    }
}
