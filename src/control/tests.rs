//! Parts of a node that fail while the rest goes on: a room, a media thread, a client that does not read, a media thread
//! that does not obey. With hooks that are compiled into these tests only.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may fail by panicking")]

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use livekit_protocol as proto;
use mio::{Poll, Token, Waker};
use prost::Message as _;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use signalling::livekit::{JoinLimits, join_request};
use signalling::room::Room;
use signalling::room::api::{ConnectionId, Generation, Input, Refusal, RoomParams};
use signalling::token::VideoGrant;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::auth::{self, Auth};
use super::connection::{QueueLimits, pair};
use super::load::Load;
use super::metrics::Metrics;
use super::places::Places;
use super::registry::{RoomContext, ThreadInfo, now};
use super::room_task::{self, RoomInput, RoomTask};
use super::seats::Seats;
use super::server::Server;
use crate::base::{ParticipantId, RoomId};
use crate::config::{Config, LimitConfig, PortRange};
use crate::mailbox::{COMMANDS, Inbox, Mailbox, Order};
use crate::media::clock::Clock;
use crate::shard::command::Command;

/// The identity whose join is a fault of the room it comes to.
pub(super) const POISON: &str = "poison";
/// The datagram that is a fault of the shard it comes to.
const POISONED_DATAGRAM: &[u8] = b"\0poison";
const PATIENCE: Duration = Duration::from_secs(20);

fn config() -> Config {
    let mut config = Config::dev();
    config.port = 0;
    config.rtc.udp_port = PortRange { first: 0, last: None };
    config.rtc.tcp_port = 0;
    config.rtc.media_threads = 2;
    config.rtc.node_ip = "127.0.0.1".to_owned();
    config
}

fn token(identity: &str, room: &str) -> String {
    let video = VideoGrant {
        room_join: true,
        room: room.to_owned(),
        can_update_own_metadata: Some(true),
        ..VideoGrant::default()
    };
    auth::mint(&Config::dev().keys, identity, video, PATIENCE * 100).unwrap()
}

/// A signalling client without media.
#[derive(Debug)]
struct Client(WebSocketStream<TcpStream>);

impl Client {
    async fn join(server: &Server, identity: &str, room: &str) -> Result<Self, u16> {
        Self::join_by(TcpSocket::new_v4().unwrap(), server, identity, room).await
    }

    async fn join_by(socket: TcpSocket, server: &Server, identity: &str, room: &str) -> Result<Self, u16> {
        let address = server.started().http[0];
        let stream = socket.connect(address).await.unwrap();
        let url = format!("ws://{address}/rtc?access_token={}&protocol=17", token(identity, room));
        match tokio::time::timeout(PATIENCE, client_async(url, stream)).await.unwrap() {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// The next signal message; `None` at the end.
    async fn next(&mut self) -> Option<Response> {
        loop {
            match tokio::time::timeout(PATIENCE, self.0.next()).await.expect("something in time")? {
                Ok(Message::Binary(bytes)) => return proto::SignalResponse::decode(bytes).unwrap().message,
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    async fn until<T>(&mut self, wanted: impl Fn(Response) -> Option<T>) -> Option<T> {
        loop {
            if let Some(found) = wanted(self.next().await?) {
                return Some(found);
            }
        }
    }

    async fn send(&mut self, message: Request) {
        let request = proto::SignalRequest { message: Some(message) };
        self.0.send(Message::binary(request.encode_to_vec())).await.unwrap();
    }

    /// Its conversation goes on.
    async fn assert_well(&mut self) {
        self.send(Request::PingReq(proto::Ping { timestamp: 1, rtt: 0 })).await;
        let pong = self.until(|message| matches!(message, Response::PongResp(_)).then_some(())).await;
        assert!(pong.is_some(), "closed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_a_room_ends_that_room_and_no_other() {
    let server = Server::start(&config()).unwrap();
    let mut victim = Client::join(&server, "victim", "bad").await.unwrap();
    let mut witness = Client::join(&server, "witness", "good").await.unwrap();
    assert_eq!(Client::join(&server, POISON, "bad").await.unwrap_err(), 503);
    while victim.next().await.is_some() {}
    witness.assert_well().await;
    let mut back = Client::join(&server, "victim", "bad").await.unwrap();
    back.assert_well().await;
    witness.assert_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_a_media_thread_sends_its_rooms_back_and_it_serves_new_ones() {
    let server = Server::start(&config()).unwrap();
    // Rooms go to the thread with fewer connections: the first to 0, the second to 1.
    let mut victims = vec![
        Client::join(&server, "one", "first").await.unwrap(),
        Client::join(&server, "two", "first").await.unwrap(),
    ];
    let mut witness = Client::join(&server, "witness", "second").await.unwrap();
    let port = server.started().udp[0].port();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(POISONED_DATAGRAM, SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
    for victim in &mut victims {
        let leave = victim.until(|message| if let Response::Leave(leave) = message { Some(leave) } else { None }).await;
        assert_eq!(leave.expect("a leave").action(), proto::leave_request::Action::Reconnect);
    }
    witness.assert_well().await;
    // They come back as told, and the thread has them.
    let mut back = Client::join(&server, "one", "first").await.unwrap();
    back.assert_well().await;
    let served = async {
        loop {
            let picture = server.app().mailboxes[0].inspect().await;
            if picture.is_ok_and(|shard| shard.rooms.iter().any(|room| !room.participants.is_empty())) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, served).await.expect("the participant is on the new shard");
    witness.assert_well().await;
}

/// Participants of the only room, by media thread, once they are what is `wanted`.
async fn seated(server: &Server, wanted: [usize; 2]) {
    let there = async {
        loop {
            let mut counts = [0; 2];
            for (count, mailbox) in counts.iter_mut().zip(&server.app().mailboxes) {
                let picture = mailbox.inspect().await.unwrap_or_default();
                *count = picture.rooms.iter().map(|room| room.participants.len()).sum();
            }
            if counts == wanted {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, there).await.unwrap_or_else(|_| panic!("not {wanted:?}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_a_media_thread_sends_back_those_of_a_room_who_were_on_it() {
    let mut config = config();
    config.room.participants_per_thread = 1;
    let server = Server::start(&config).unwrap();
    let mut here = Client::join(&server, "here", "wide").await.unwrap();
    let mut there = Client::join(&server, "there", "wide").await.unwrap();
    seated(&server, [1, 1]).await;
    let port = server.started().udp[1].port();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(POISONED_DATAGRAM, SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
    let leave = there.until(|message| if let Response::Leave(leave) = message { Some(leave) } else { None }).await;
    assert_eq!(leave.expect("a leave").action(), proto::leave_request::Action::Reconnect);
    here.assert_well().await;
    let mut back = Client::join(&server, "there", "wide").await.unwrap();
    back.assert_well().await;
    here.assert_well().await;
    seated(&server, [1, 1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_cut_and_others_are_not() {
    let mut config = config();
    config.limit.signal_queue_bytes = 256 << 10;
    let server = Server::start(&config).unwrap();
    let small = TcpSocket::new_v4().unwrap();
    small.set_recv_buffer_size(4 << 10).unwrap();
    let mut deaf = Client::join_by(small, &server, "deaf", "r").await.unwrap();
    let mut talker = Client::join(&server, "talker", "r").await.unwrap();
    let slow_readers = || server.app().metrics.slow_readers.get();
    let talk = async {
        for round in 0.. {
            let metadata = round.to_string().repeat(100_000).chars().take(100_000).collect();
            let update = proto::UpdateParticipantMetadata { metadata, request_id: round, ..Default::default() };
            talker.send(Request::UpdateMetadata(update)).await;
            // Its own picture comes back each time: it reads, and learns that the room has done it.
            talker.assert_well().await;
            if slow_readers() > 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE * 3, talk).await.expect("the deaf one is cut");
    talker.assert_well().await;
    while deaf.next().await.is_some() {}
    assert_eq!(slow_readers(), 1, "nobody else");
}

/// A room whose media thread is never scheduled.
struct Stalled {
    room: mpsc::Sender<RoomInput>,
    mailbox: Mailbox,
    inbox: Inbox,
    _media: mpsc::Sender<super::reports::MediaInput>,
    _poll: Poll,
}

impl Stalled {
    fn start() -> Self {
        let config = config();
        let poll = Poll::new().unwrap();
        let (mailbox, inbox) = Mailbox::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let context = Arc::new(RoomContext {
            config: Arc::new(config.signal_room("ND_x")),
            clock: Clock::start(),
            auth: Arc::new(Auth::new(config.keys, None)),
            metrics: Arc::new(
                Metrics::new("ND_test", Load::new(LimitConfig::default(), 1, tokio::time::Instant::now())).unwrap(),
            ),
            fingerprint: [0; 32],
            max_rooms: 1,
            max_pending_joins: 10,
            auto_create: true,
            per_thread: 0,
            places: Places::new(10),
            notices: None,
            webhooks: None,
            nodes: None,
        });
        let params = RoomParams {
            name: "r".to_owned(),
            first_id: 1,
            seed: [7; 32],
            ufrag_prefix: "00".to_owned(),
            candidates: Vec::new(),
            fingerprint: [0; 32],
            empty_timeout: None,
            departure_timeout: None,
            max_participants: 0,
            metadata: String::new(),
        };
        let room = Room::new(params, context.config.clone(), now(context.clock));
        let thread = ThreadInfo {
            mailbox: mailbox.clone(),
            ufrag_prefix: "00".to_owned(),
            candidates: Vec::new(),
            load: Arc::new(AtomicUsize::new(0)),
        };
        let (inputs, receiver) = mpsc::channel(100);
        let (media, media_receiver) = mpsc::channel(100);
        tokio::spawn(room_task::run(RoomTask::new(
            0,
            room,
            context,
            Seats::new(0, [thread].into(), 0, 0),
            receiver,
            media_receiver,
        )));
        Self { room: inputs, mailbox, inbox, _media: media, _poll: poll }
    }

    async fn join(&self, connection: u64, identity: &str) -> Result<(), Refusal> {
        let auth = Auth::new(Config::dev().keys, None);
        let (grants, _) = auth.grants(&token(identity, "r")).unwrap();
        let request = join_request(Generation::V0, [("protocol", "17")], grants, &JoinLimits::default()).unwrap();
        let (link, feed, answer) = pair(QueueLimits { messages: 100, bytes: 1 << 20 });
        let join = RoomInput::Join { connection: ConnectionId(connection), request: Box::new(request), link };
        self.room.send(join).await.unwrap();
        let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
        // Kept until the end of the test.
        std::mem::forget(feed);
        answer
    }
}

#[tokio::test]
async fn a_media_thread_that_is_behind_gets_no_newcomers_and_every_removal() {
    let mut stalled = Stalled::start();
    stalled.join(1, "alice").await.unwrap();
    let filler = |n| Command::AddParticipant { room: RoomId(9), participant: ParticipantId(n) };
    while stalled.mailbox.depth() < COMMANDS / 8 * 7 {
        stalled.mailbox.send(filler(1 << 40)).unwrap();
    }
    assert_eq!(stalled.join(2, "bob").await, Err(Refusal::Unavailable("server is overloaded")));
    while stalled.mailbox.send(filler(1 << 40)).is_ok() {}
    let leave = proto::SignalRequest { message: Some(Request::Leave(proto::LeaveRequest::default())) };
    let input = Input::Signal { connection: ConnectionId(1), request: Box::new(leave) };
    stalled.room.send(RoomInput::Plain(input)).await.unwrap();
    let removed = async {
        while stalled.mailbox.depth() <= COMMANDS {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, removed).await.expect("a removal in the queue");
    let mut removals = 0;
    while let Some(Order::Command(command)) = stalled.inbox.take() {
        match command {
            Command::RemoveParticipant { .. } => break,
            Command::Unpublish { .. } | Command::Unsubscribe { .. } | Command::RemoveTransport { .. } => removals += 1,
            other => panic!("{other:?} is obeyed before the removal, after {removals} others"),
        }
    }
}
