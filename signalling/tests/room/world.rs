//! A room, the time, and clients that remember what they were told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use livekit_protocol as proto;
use proto::signal_request::Message as Ask;
use proto::signal_response::Message;
use signalling::media::{MediaCommand, MediaEvent, TransportId};
use signalling::room::api::*;
use signalling::room::{Config, Room};

use crate::oracle::Oracle;
use crate::sdp::{self, Section};

pub(crate) struct World {
    pub(crate) room: Room,
    pub(crate) now: Now,
    pub(crate) inboxes: BTreeMap<ConnectionId, VecDeque<Message>>,
    pub(crate) media: Vec<MediaCommand>,
    pub(crate) notices: Vec<Notice>,
    pub(crate) closed: Vec<ConnectionId>,
    pub(crate) refused: Vec<(ConnectionId, Refusal)>,
    pub(crate) tokens: Vec<(ConnectionId, Grants)>,
    pub(crate) answers: Vec<Result<AdminAnswer, AdminError>>,
    pub(crate) ended: bool,
    /// Bytes encoded, and bytes on all the wires.
    pub(crate) said: (usize, usize),
    oracle: Oracle,
    next_connection: u64,
}

/// What a test holds of a client.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) connection: ConnectionId,
    pub(crate) sid: String,
    pub(crate) identity: String,
    pub(crate) ufrag: String,
    pub(crate) sections: Vec<Section>,
    pub(crate) offers: u32,
}

pub(crate) fn params() -> RoomParams {
    RoomParams {
        name: "lobby".into(),
        first_id: 1000,
        seed: [7; 32],
        ufrag_prefix: "a0".into(),
        candidates: vec![
            "candidate:1 1 udp 2130706431 127.0.0.1 7882 typ host".into(),
            "candidate:2 1 tcp 1671430143 127.0.0.1 7881 typ host tcptype passive".into(),
        ],
        fingerprint: [9; 32],
        empty_timeout: None,
        departure_timeout: None,
        max_participants: 0,
        metadata: String::new(),
    }
}

pub(crate) fn grants(identity: &str) -> Grants {
    Grants {
        identity: identity.into(),
        name: identity.to_uppercase(),
        metadata: String::new(),
        attributes: BTreeMap::new(),
        kind: 0,
        room: "lobby".into(),
        room_join: true,
        room_create: false,
        joined: false,
        company: Company::default(),
        call: None,
        can_publish: true,
        can_publish_sources: Vec::new(),
        can_subscribe: true,
        can_publish_data: true,
        can_update_own_metadata: true,
        hidden: false,
        recorder: false,
        agent: false,
        can_subscribe_metrics: false,
        expires_at: 0,
    }
}

pub(crate) fn join_request(identity: &str, generation: Generation) -> JoinRequest {
    JoinRequest {
        generation,
        grants: grants(identity),
        client: proto::ClientInfo {
            protocol: 17,
            sdk: proto::client_info::Sdk::Js.into(),
            browser: "Chrome".into(),
            ..Default::default()
        },
        auto_subscribe: true,
        auto_subscribe_data_track: true,
        adaptive_stream: false,
        subscriber_allow_pause: None,
        reconnect: false,
        reconnect_reason: 0,
        participant_sid: String::new(),
        metadata: String::new(),
        attributes: BTreeMap::new(),
        add_tracks: Vec::new(),
        publisher_offer: None,
        sync_state: None,
    }
}

pub(crate) fn add_track(cid: &str, kind: proto::TrackType, source: proto::TrackSource) -> proto::AddTrackRequest {
    let mut request = proto::AddTrackRequest {
        cid: cid.into(),
        r#type: kind.into(),
        source: source.into(),
        encryption: 1,
        ..Default::default()
    };
    if kind == proto::TrackType::Video {
        let layer = |quality, width, height| proto::VideoLayer { quality, width, height, ..Default::default() };
        let layers = vec![layer(0, 320, 180), layer(1, 640, 360), layer(2, 1280, 720)];
        request.simulcast_codecs.push(proto::SimulcastCodec {
            codec: "vp8".into(),
            cid: cid.into(),
            layers: layers.clone(),
            ..Default::default()
        });
        request.layers = layers;
        (request.width, request.height) = (1280, 720);
    }
    request
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(params(), Config::default())
    }

    pub(crate) fn with(params: RoomParams, config: Config) -> Self {
        let now = Now { mono: Duration::from_secs(100), unix_ms: 1_700_000_000_000 };
        Self {
            room: Room::new(params, Arc::new(config), now),
            now,
            inboxes: BTreeMap::new(),
            media: Vec::new(),
            notices: Vec::new(),
            closed: Vec::new(),
            refused: Vec::new(),
            tokens: Vec::new(),
            answers: Vec::new(),
            ended: false,
            said: (0, 0),
            oracle: Oracle::default(),
            next_connection: 1,
        }
    }

    pub(crate) fn input(&mut self, input: Input) {
        self.oracle.before(&input);
        let mut out = Vec::new();
        self.room.handle(self.now, input, &mut out);
        for output in out {
            assert!(!self.ended, "nothing follows the end: {output:?}");
            self.oracle.check(&output);
            match output {
                Output::Send { to, message } => {
                    self.said.0 += message.len();
                    self.said.1 += to.len() * message.len();
                    let message = message.message().message.unwrap();
                    for connection in to {
                        self.inboxes.entry(connection).or_default().push_back(message.clone());
                    }
                }
                Output::Close { connection } => self.closed.push(connection),
                Output::Refuse { connection, refusal } => self.refused.push((connection, refusal)),
                Output::Media(command) => self.media.push(command),
                Output::RefreshToken { connection, grants } => self.tokens.push((connection, *grants)),
                Output::Notice(notice) => self.notices.push(notice),
                Output::Admin { answer, .. } => self.answers.push(answer),
                Output::Ended => self.ended = true,
            }
        }
        if let Some(next) = self.room.next_timeout() {
            assert!(next > self.now.mono, "a timer in the past");
        }
    }

    /// Lets time pass, timers firing when they are due.
    pub(crate) fn advance(&mut self, by: Duration) {
        let end = self.now.mono + by;
        while let Some(next) = self.room.next_timeout().filter(|next| *next <= end) {
            self.set_time(next);
            self.input(Input::Timeout);
        }
        self.set_time(end);
    }

    fn set_time(&mut self, mono: Duration) {
        let passed = mono.saturating_sub(self.now.mono);
        self.now.mono = mono;
        self.now.unix_ms += i64::try_from(passed.as_millis()).unwrap();
    }

    pub(crate) fn connection(&mut self) -> ConnectionId {
        self.next_connection += 1;
        ConnectionId(self.next_connection)
    }

    /// Sends a join and reads the answer.
    pub(crate) fn join_with(&mut self, request: JoinRequest) -> Client {
        let identity = request.grants.identity.clone();
        let connection = self.connection();
        self.input(Input::Join { connection, request: Box::new(request) });
        let inbox = self.inboxes.get_mut(&connection).expect("an answer");
        let Some(Message::Join(join)) = inbox.pop_front() else { panic!("join comes first") };
        let sid = join.participant.unwrap().sid;
        let ufrag = format!("ufrag{identity}");
        Client { connection, sid, identity, ufrag, sections: Vec::new(), offers: 0 }
    }

    /// A v1 client as browsers are: the offer with three sections of each kind is inside the join.
    pub(crate) fn join(&mut self, identity: &str) -> Client {
        let mut request = join_request(identity, Generation::V1);
        let mut sections = vec![Section::channels()];
        sections.extend(["audio", "audio", "audio", "video", "video", "video"].map(Section::receiving));
        let ufrag = format!("ufrag{identity}").replace('-', "");
        request.publisher_offer = Some(session("offer", sdp::describe(&ufrag, "actpass", &sections), 1));
        let mut client = self.join_with(request);
        client.ufrag = ufrag;
        client.sections = sections;
        client.offers = 1;
        client
    }

    /// The same, with its media connected and everything read.
    pub(crate) fn join_active(&mut self, identity: &str) -> Client {
        let client = self.join(identity);
        self.connect(&client);
        self.drain(&client);
        client
    }

    pub(crate) fn connect(&mut self, client: &Client) {
        for transport in self.transports(client) {
            self.event(MediaEvent::TransportConnected { transport });
            self.event(MediaEvent::ChannelsOpen { transport });
        }
    }

    /// Transports of a client that were opened, oldest first.
    pub(crate) fn transports(&self, client: &Client) -> Vec<TransportId> {
        let of_client = |ufrag: &str| ufrag == client.ufrag;
        let opened = self.media.iter().filter_map(|command| match command {
            MediaCommand::AddTransport { transport, params, .. } => {
                params.remote.as_ref().is_some_and(|remote| of_client(&remote.ufrag)).then_some(*transport)
            }
            MediaCommand::SetRemote { transport, remote } => of_client(&remote.ufrag).then_some(*transport),
            _ => None,
        });
        let mut transports: Vec<_> = opened.collect();
        transports.dedup();
        transports
    }

    pub(crate) fn event(&mut self, event: MediaEvent) {
        self.input(Input::Media(event));
    }

    pub(crate) fn say(&mut self, client: &Client, message: Ask) {
        let request = Box::new(proto::SignalRequest { message: Some(message) });
        self.input(Input::Signal { connection: client.connection, request });
    }

    pub(crate) fn offer(&mut self, client: &mut Client) {
        client.offers += 1;
        let text = sdp::describe(&client.ufrag, "actpass", &client.sections);
        self.say(client, Ask::Offer(session("offer", text, client.offers)));
    }

    /// Announces and negotiates a track; its sid.
    pub(crate) fn publish(&mut self, client: &mut Client, request: proto::AddTrackRequest) -> String {
        let (cid, video) = (request.cid.clone(), request.r#type == proto::TrackType::Video as i32);
        let simulcast = request.simulcast_codecs.first().is_some_and(|codec| codec.codec == "vp8");
        self.say(client, Ask::AddTrack(request));
        let published = self.find(client, |message| match message {
            Message::TrackPublished(published) => Some(published.track.clone().unwrap().sid),
            _ => None,
        });
        let kind = if video { "video" } else { "audio" };
        client.sections.push(if simulcast { Section::simulcast(&cid) } else { Section::sending(kind, &cid) });
        self.offer(client);
        published
    }

    pub(crate) fn publish_camera(&mut self, client: &mut Client) -> String {
        let cid = format!("cam-{}", client.identity);
        self.publish(client, add_track(&cid, proto::TrackType::Video, proto::TrackSource::Camera))
    }

    pub(crate) fn publish_microphone(&mut self, client: &mut Client) -> String {
        let cid = format!("mic-{}", client.identity);
        self.publish(client, add_track(&cid, proto::TrackType::Audio, proto::TrackSource::Microphone))
    }

    /// Everything a client was told and has not read yet.
    pub(crate) fn drain(&mut self, client: &Client) -> Vec<Message> {
        self.inboxes.get_mut(&client.connection).map(|inbox| inbox.drain(..).collect()).unwrap_or_default()
    }

    /// The first unread message that fits; others stay unread.
    pub(crate) fn find<T>(&mut self, client: &Client, fits: impl Fn(&Message) -> Option<T>) -> T {
        let found = self.try_find(client, fits);
        found.unwrap_or_else(|| panic!("not told; unread: {:?}", names(&self.inboxes[&client.connection])))
    }

    pub(crate) fn try_find<T>(&mut self, client: &Client, fits: impl Fn(&Message) -> Option<T>) -> Option<T> {
        let inbox = self.inboxes.get_mut(&client.connection)?;
        let (index, found) = inbox.iter().enumerate().find_map(|(index, message)| Some((index, fits(message)?)))?;
        inbox.remove(index);
        Some(found)
    }

    /// The kinds of unread messages, in order.
    pub(crate) fn unread(&self, client: &Client) -> Vec<&'static str> {
        self.inboxes.get(&client.connection).map(names).unwrap_or_default()
    }

    pub(crate) fn close(&mut self, client: &Client) {
        self.input(Input::ConnectionClosed { connection: client.connection });
    }

    pub(crate) fn admin(&mut self, request: AdminRequest) -> Result<AdminAnswer, AdminError> {
        self.input(Input::Admin { id: AdminId(1), request: Box::new(request) });
        self.answers.pop().unwrap()
    }
}

pub(crate) fn session(kind: &str, sdp: String, id: u32) -> proto::SessionDescription {
    proto::SessionDescription { r#type: kind.into(), sdp, id, ..Default::default() }
}

fn names(inbox: &VecDeque<Message>) -> Vec<&'static str> {
    inbox.iter().map(name).collect()
}

pub(crate) fn name(message: &Message) -> &'static str {
    match message {
        Message::Join(_) => "join",
        Message::Answer(_) => "answer",
        Message::Offer(_) => "offer",
        Message::Trickle(_) => "trickle",
        Message::Update(_) => "update",
        Message::TrackPublished(_) => "track_published",
        Message::TrackUnpublished(_) => "track_unpublished",
        Message::Leave(_) => "leave",
        Message::Mute(_) => "mute",
        Message::SpeakersChanged(_) => "speakers",
        Message::RoomUpdate(_) => "room_update",
        Message::ConnectionQuality(_) => "quality",
        Message::StreamStateUpdate(_) => "stream_state",
        Message::SubscribedQualityUpdate(_) => "subscribed_quality",
        Message::SubscriptionPermissionUpdate(_) => "permission",
        Message::Reconnect(_) => "reconnect",
        Message::SubscriptionResponse(_) => "subscription_response",
        Message::RequestResponse(_) => "request_response",
        Message::TrackSubscribed(_) => "track_subscribed",
        Message::MediaSectionsRequirement(_) => "sections",
        Message::DataTrackSubscriberHandles(_) => "handles",
        Message::PublishDataTrackResponse(_) => "data_track",
        Message::Pong(_) | Message::PongResp(_) => "pong",
        _ => "other",
    }
}
