//! Carries frames between one WebSocket and its room. Knows nothing of what they mean.
//!
//! Both directions are bounded: what the client sends waits in its own socket when the room is busy or the client too
//! fast; what the room sends waits in a queue of limited size, and a client that does not empty it is cut off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::WebSocketUpgrade;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use livekit_protocol as proto;
use signalling::livekit::{Encoded, Frame, Wire, decode_request};
use signalling::room::api::{ConnectionId, Input};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::connection::Feed;
use super::http::Closing;
use super::listener::Guest;
use super::metrics::Metrics;
use super::room_task::{LoadShare, RoomInput};

/// What one WebSocket may cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct WsRules {
    /// Bytes of a message.
    pub(super) max_message: usize,
    /// Messages per second in the long run; ten times as many at once.
    pub(super) rate: u32,
}

/// The library fills this at each read; its default of 128 KiB would be paid per participant.
const READ_BUFFER: usize = 4 << 10;
/// Written at once when a burst is sent.
const WRITE_BUFFER: usize = 16 << 10;
/// How often the WebSocket itself is pinged: keeps proxies from closing it and shows dead ones.
const PING: Duration = Duration::from_secs(10);
/// Without any frame for so long the connection is dead. Clients answer pings and send their own.
const SILENCE: Duration = Duration::from_secs(30);
/// How long one write may take.
const WRITE: Duration = Duration::from_secs(10);
/// How long the far end has to close after we did. Closing at once, with bytes unread, would reset the connection and
/// may take the last message with it.
const LINGER: Duration = Duration::from_secs(2);
/// A message this long costs as much of the rate as two short ones.
const BYTES_PER_TOKEN: usize = 16 << 10;

impl WsRules {
    /// Set up an upgrade.
    pub(super) fn apply(self, upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
        upgrade
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_message_size(self.max_message)
            .max_frame_size(self.max_message)
    }
}

/// A joined connection, to be run over its socket.
#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) connection: ConnectionId,
    pub(super) inputs: mpsc::Sender<RoomInput>,
    pub(super) feed: Feed,
    pub(super) closing: Closing,
    pub(super) rules: WsRules,
    pub(super) metrics: Arc<Metrics>,
    /// Counts it among the conversations of the node.
    pub(super) present: LoadShare,
    /// The place of its connection.
    pub(super) guest: Option<Guest>,
}

impl Conversation {
    /// Until either side ends it. The room learns of the end when `self` is dropped.
    pub(super) async fn run(self: Box<Self>, socket: WebSocket) {
        let Self { connection, inputs, mut feed, closing, rules, metrics, present, guest } = *self;
        let _ended = (closing, present, guest);
        metrics.connections.inc();
        let (mut sink, mut stream) = socket.split();
        let text = AtomicBool::new(false);
        let overrun = feed.overrun();
        let reader = Reader { connection, inputs: &inputs, rules, text: &text };
        let closed_by_room = tokio::select! {
            () = reader.run(&mut stream) => false,
            closed = write(&mut sink, &mut feed, &text) => closed,
            () = overrun.happened() => false,
        };
        metrics.connections.dec();
        if closed_by_room {
            linger(&mut sink, &mut stream).await;
        }
    }
}

/// From the client to the room.
struct Reader<'a> {
    connection: ConnectionId,
    inputs: &'a mpsc::Sender<RoomInput>,
    rules: WsRules,
    text: &'a AtomicBool,
}

impl Reader<'_> {
    async fn run(&self, stream: &mut SplitStream<WebSocket>) {
        let mut bucket = Bucket::new(self.rules.rate);
        while let Ok(Some(Ok(message))) = timeout(SILENCE, stream.next()).await {
            let frame = match &message {
                Message::Binary(bytes) => Frame::Binary(bytes),
                Message::Text(text) => {
                    self.text.store(true, Ordering::Relaxed);
                    Frame::Text(text)
                }
                Message::Ping(_) | Message::Pong(_) => {
                    bucket.take(1).await;
                    continue;
                }
                Message::Close(_) => return,
            };
            let Ok(request) = decode_request(frame, self.rules.max_message) else { return };
            let size = message.into_data().len();
            bucket.take(1 + size / BYTES_PER_TOKEN).await;
            let input = Input::Signal { connection: self.connection, request: Box::new(request) };
            if self.inputs.send(RoomInput::Plain(input)).await.is_err() {
                return;
            }
        }
    }
}

/// From the room to the client. Gives whether the room closed the connection.
async fn write(sink: &mut SplitSink<WebSocket, Message>, feed: &mut Feed, text: &AtomicBool) -> bool {
    let mut ping = tokio::time::interval_at(Instant::now() + PING, PING);
    loop {
        let written = tokio::select! {
            next = feed.next() => match next {
                Some(first) => {
                    let burst = async {
                        let mut next = Some(first);
                        while let Some(outgoing) = next {
                            let wire = if text.load(Ordering::Relaxed) { Wire::Text } else { Wire::Binary };
                            if let Some(message) = outgoing.encoded(wire).and_then(frame) {
                                sink.feed(message).await?;
                            }
                            next = feed.try_next();
                        }
                        sink.flush().await
                    };
                    timeout(WRITE, burst).await
                }
                None => return true,
            },
            _ = ping.tick() => timeout(WRITE, sink.send(Message::Ping(axum::body::Bytes::new()))).await,
        };
        if !matches!(written, Ok(Ok(()))) {
            return false;
        }
    }
}

fn frame(encoded: Encoded) -> Option<Message> {
    match encoded {
        Encoded::Binary(bytes) => Some(Message::Binary(bytes)),
        Encoded::Text(bytes) => Utf8Bytes::try_from(bytes).ok().map(Message::Text),
    }
}

/// Close politely: our close frame, then wait for theirs.
async fn linger(sink: &mut SplitSink<WebSocket, Message>, stream: &mut SplitStream<WebSocket>) {
    let polite = async {
        if sink.send(Message::Close(None)).await.is_ok() {
            while let Some(Ok(_)) = stream.next().await {}
        }
    };
    // A far end that does not answer is cut.
    let _ = timeout(LINGER, polite).await;
}

/// Answer a resume whose room is gone: join anew. As the first message, so that the client does it at once.
pub(super) async fn send_away(socket: WebSocket, protocol: i32) {
    let leave = proto::LeaveRequest {
        can_reconnect: protocol < LEAVE_ACTION_PROTOCOL,
        reason: proto::DisconnectReason::StateMismatch.into(),
        action: proto::leave_request::Action::Reconnect.into(),
        regions: None,
    };
    let message = proto::SignalResponse { message: Some(proto::signal_response::Message::Leave(leave)) };
    let (mut sink, mut stream) = socket.split();
    let encoded = signalling::livekit::encode_response(&message, Wire::Binary).ok().and_then(frame);
    if let Some(message) = encoded
        && matches!(timeout(WRITE, sink.send(message)).await, Ok(Ok(())))
    {
        linger(&mut sink, &mut stream).await;
    }
}

/// From this protocol on clients read `LeaveRequest.action`; before, `can_reconnect`.
const LEAVE_ACTION_PROTOCOL: i32 = 13;

/// A rate with a burst of ten seconds' worth. Whoever exceeds it waits.
struct Bucket {
    rate: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn new(rate: u32) -> Self {
        let rate = f64::from(rate.max(1));
        Self { rate, tokens: rate * 10.0, at: Instant::now() }
    }

    async fn take(&mut self, tokens: usize) {
        let now = Instant::now();
        let earned = now.duration_since(self.at).as_secs_f64() * self.rate;
        self.at = now;
        let wanted = f64::from(u32::try_from(tokens).unwrap_or(u32::MAX));
        self.tokens = (self.tokens + earned).min(self.rate * 10.0) - wanted;
        if self.tokens < 0.0 {
            tokio::time::sleep(Duration::from_secs_f64(-self.tokens / self.rate)).await;
        }
    }
}
