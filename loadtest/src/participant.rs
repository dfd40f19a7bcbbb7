//! The task behind a [`crate::Client`]: one loop over the WebSocket, one or two peer connections, and the frames that
//! are due.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use tokio::sync::mpsc;

use crate::client::{Ask, Event, Generation, Options, Reply, Sample, Snapshot, Video};
use crate::e2ee::{FrameKey, Keyring};
use crate::fault::Stage;
use crate::peer::{Peer, PeerEvent, now};
use crate::receive::Receiver;
use crate::send::{Encoding, Source};
use crate::signal::{Hello, Signal};
use crate::stats::nanos;

/// How long the server may take for the answer to a join.
const JOIN_PATIENCE: Duration = Duration::from_secs(10);
/// Sections a client of generation 1 offers at first, of each kind.
const FIRST_SECTIONS: u32 = 3;
/// Of a participant whose keys have not come.
static NO_KEYS: Keyring = Keyring::none();
const RIDS: [&str; 3] = ["q", "h", "f"];
/// Datagrams taken from a socket before everything else gets its turn.
const BURST: usize = 64;

/// One participant.
#[derive(Debug)]
pub(crate) struct Participant {
    url: String,
    token: String,
    identity: String,
    options: Options,
    signal: Option<Signal>,
    asks: mpsc::Receiver<Ask>,
    events: mpsc::UnboundedSender<Event>,
    /// Publishes; in generation 1 it receives too.
    publisher: Peer,
    /// Receives in generation 0.
    subscriber: Option<Peer>,
    /// Number of the last offer, and whether its answer is awaited.
    offer_id: u32,
    is_offering: bool,
    wants_offer: bool,
    wants_restart: bool,
    channels_open: u32,
    /// Tracks the server has not named yet.
    requested: Vec<(Requested, Reply<String>)>,
    sources: Vec<Source>,
    receivers: BTreeMap<u32, (String, Receiver)>,
    seen: Snapshot,
    ping: tokio::time::Interval,
    /// Own key, and those of others by identity.
    key: Option<FrameKey>,
    keyrings: BTreeMap<String, Keyring>,
    /// Identity of the publisher by track sid.
    publishers: BTreeMap<String, String>,
    stage: Option<Stage>,
    has_left: bool,
}

#[derive(Debug)]
struct Requested {
    cid: String,
    encodings: Vec<Encoding>,
    fps: Option<u32>,
}

/// What the loop woke up for.
enum Wake {
    Ask(Option<Ask>),
    Signal(Option<Box<Response>>),
    Publisher,
    Subscriber,
    Ping,
    Due,
}

impl Participant {
    pub(crate) async fn join(
        url: &str,
        token: &str,
        options: Options,
        asks: mpsc::Receiver<Ask>,
        events: mpsc::UnboundedSender<Event>,
    ) -> anyhow::Result<(Self, proto::JoinResponse)> {
        let mut publisher = Peer::new(options.answer_active).await?;
        publisher.open_channels()?;
        let subscriber = match options.generation {
            Generation::V1 => {
                publisher.receive_more(FIRST_SECTIONS, FIRST_SECTIONS)?;
                None
            }
            Generation::V0 => Some(Peer::new(options.answer_active).await?),
        };
        let in_join = options.generation == Generation::V1 && options.offer_in_join;
        let offer = in_join.then(|| publisher.offer(false)).transpose()?.map(|sdp| description("offer", sdp, 1));
        let mut signal = Signal::connect(url, token, &options, Hello { offer, ..Default::default() }).await?;
        let first = tokio::time::timeout(JOIN_PATIENCE, signal.next()).await.context("no answer to the join")?;
        let join = match first {
            Some(Response::Join(join)) => join,
            other => bail!("the join was answered with {other:?}"),
        };
        let me = join.participant.clone().context("a join response without participant")?;
        let mut seen = Snapshot { sid: me.sid, ..Default::default() };
        seen.others.extend(join.other_participants.iter().map(|p| (p.identity.clone(), p.clone())));
        let every = Duration::from_secs(u64::try_from(join.ping_interval).unwrap_or(1).max(1));
        let participant = Self {
            url: url.to_owned(),
            token: token.to_owned(),
            identity: me.identity,
            options,
            signal: Some(signal),
            asks,
            events,
            publisher,
            subscriber,
            offer_id: u32::from(in_join),
            is_offering: in_join,
            wants_offer: !in_join,
            wants_restart: false,
            channels_open: 0,
            requested: Vec::new(),
            sources: Vec::new(),
            receivers: BTreeMap::new(),
            seen,
            ping: tokio::time::interval(every),
            key: None,
            keyrings: BTreeMap::new(),
            publishers: BTreeMap::new(),
            stage: options.fault.map(Stage::new),
            has_left: false,
        };
        let mut participant = participant;
        participant.note_publishers();
        Ok((participant, join))
    }

    pub(crate) async fn run(mut self) {
        while !self.has_left {
            self.media().await;
            self.negotiate().await;
            match self.wake().await {
                Wake::Ask(None) => return,
                Wake::Ask(Some(ask)) => self.obey(ask).await,
                Wake::Signal(Some(message)) => self.hear(*message).await,
                Wake::Signal(None) => {
                    self.signal = None;
                    self.tell(Event::SignalLost);
                }
                Wake::Publisher => receive(&mut self.publisher),
                Wake::Subscriber => {
                    if let Some(peer) = &mut self.subscriber {
                        receive(peer);
                    }
                }
                Wake::Ping => {
                    let timestamp = i64::try_from(now().elapsed().as_millis()).unwrap_or(0) + 1;
                    self.say(Request::PingReq(proto::Ping { timestamp, rtt: 0 })).await;
                }
                Wake::Due => {}
            }
        }
    }

    async fn wake(&mut self) -> Wake {
        let peers = [self.publisher.deadline(), self.subscriber.as_mut().and_then(Peer::deadline)];
        let due = peers.into_iter().chain(self.sources.iter().map(Source::due)).flatten().min();
        let due = due.map_or_else(|| tokio::time::Instant::now() + Duration::from_secs(1), Into::into);
        // Sockets alone: a peer connection may move between threads, a reference to it may not.
        let (published, subscribed) = (&self.publisher.socket, self.subscriber.as_ref().map(|peer| &peer.socket));
        let (signal, asks, ping) = (&mut self.signal, &mut self.asks, &mut self.ping);
        let hear = async {
            match signal {
                Some(signal) => signal.next().await,
                None => std::future::pending().await,
            }
        };
        let subscribed = async {
            match subscribed {
                Some(socket) => socket.readable().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            ask = asks.recv() => Wake::Ask(ask),
            message = hear => Wake::Signal(message.map(Box::new)),
            _ = ping.tick() => Wake::Ping,
            _ = published.readable() => Wake::Publisher,
            _ = subscribed => Wake::Subscriber,
            () = tokio::time::sleep_until(due) => Wake::Due,
        }
    }

    /// Send frames that are due and work through what the peer connections have.
    async fn media(&mut self) {
        let now = now();
        for source in &mut self.sources {
            // Without a key nothing leaves: never in the clear.
            let packets = match (&self.key, self.options.e2ee) {
                (None, true) => Vec::new(),
                (key, _) => source.sealed(now, key.as_ref()),
            };
            for packet in packets {
                // Before the transport is up nothing can be sent; the frame is lost, as it would be in a client.
                let _ = self.publisher.send_rtp(source.sender, packet);
            }
        }
        let mut events = Vec::new();
        if self.publisher.deadline().is_some_and(|at| at <= now) {
            self.publisher.timeout();
        }
        self.publisher.pump(&mut events).await;
        self.heed(events, self.subscriber.is_none());
        if let Some(subscriber) = &mut self.subscriber {
            let mut events = Vec::new();
            if subscriber.deadline().is_some_and(|at| at <= now) {
                subscriber.timeout();
            }
            subscriber.pump(&mut events).await;
            self.heed(events, true);
        }
    }

    fn heed(&mut self, events: Vec<PeerEvent>, is_main: bool) {
        for event in events {
            match event {
                PeerEvent::Connected if is_main => self.tell(Event::Connected),
                PeerEvent::Connected => {}
                PeerEvent::Failed => self.tell(Event::MediaFailed),
                PeerEvent::ChannelOpen(label) => {
                    if label == "_reliable" || label == "_lossy" {
                        self.channels_open += 1;
                        let wanted = if self.subscriber.is_some() { 4 } else { 2 };
                        self.seen.channels_open = self.channels_open >= wanted;
                    }
                }
                PeerEvent::Data(label, bytes) => {
                    if let Ok(packet) = proto::DataPacket::decode(bytes) {
                        self.tell(Event::Data(label, Box::new(packet)));
                    }
                }
                PeerEvent::Rtp(packet) => self.stage(packet),
                PeerEvent::KeyFrameWanted(ssrc) => {
                    self.sources.iter_mut().for_each(|source| source.want_key_frame(ssrc));
                }
            }
        }
    }

    /// Through the planted fault, if there is one.
    fn stage(&mut self, packet: rtc::rtp::Packet) {
        let Some(stage) = &mut self.stage else { return self.take(&packet) };
        let mut through = Vec::new();
        stage.take(nanos(), packet, &mut through);
        through.iter().for_each(|packet| self.take(packet));
    }

    fn take(&mut self, packet: &rtc::rtp::Packet) {
        let receiving = self.subscriber.as_ref().unwrap_or(&self.publisher);
        let Some(announced) = receiving.announced.get(&packet.header.ssrc) else {
            self.seen.strangers += 1;
            return;
        };
        let fresh = || (announced.track.clone(), Receiver::new(announced.is_video));
        let entry = self.receivers.entry(packet.header.ssrc).or_insert_with(fresh);
        // A section that was given to another track.
        if entry.0 != announced.track {
            *entry = fresh();
        }
        let keys = self.options.e2ee.then(|| {
            let publisher = self.publishers.get(&entry.0);
            publisher.and_then(|identity| self.keyrings.get(identity)).unwrap_or(&NO_KEYS)
        });
        entry.1.handle_at(packet, nanos(), keys);
    }

    fn note_publishers(&mut self) {
        for (identity, info) in &self.seen.others {
            for track in &info.tracks {
                self.publishers.entry(track.sid.clone()).or_insert_with(|| identity.clone());
            }
        }
    }

    async fn hear(&mut self, message: Response) {
        self.tell(Event::Signal(Box::new(message.clone())));
        let result = match message {
            Response::Answer(answer) => self.answered(answer),
            Response::Offer(offer) => self.offered(offer).await,
            Response::Trickle(trickle) => self.candidate(&trickle),
            Response::TrackPublished(published) => self.published(published),
            Response::MediaSectionsRequirement(more) => {
                self.wants_offer = true;
                self.publisher.receive_more(more.num_audios, more.num_videos)
            }
            Response::Update(update) => {
                self.participants(update.participants);
                Ok(())
            }
            Response::SubscribedQualityUpdate(update) => {
                self.qualities(&update);
                Ok(())
            }
            Response::SpeakersChanged(changed) => {
                for speaker in changed.speakers {
                    if speaker.active {
                        self.seen.speakers.insert(speaker.sid, speaker.level);
                    } else {
                        self.seen.speakers.remove(&speaker.sid);
                    }
                }
                Ok(())
            }
            Response::RefreshToken(token) => {
                self.token.clone_from(&token);
                self.seen.token = Some(token);
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(error) = result {
            eprintln!("{}: {error:#}", self.identity);
        }
    }

    fn answered(&mut self, answer: proto::SessionDescription) -> anyhow::Result<()> {
        if answer.id != 0 && answer.id != self.offer_id {
            return Ok(());
        }
        self.is_offering = false;
        let tracks = answer.mid_to_track_id.into_iter().collect();
        self.publisher.accept(&answer.sdp, &tracks).context("the server's answer")?;
        for source in &mut self.sources {
            source.wiring = self.publisher.wiring(source.sender, source.is_video);
        }
        Ok(())
    }

    async fn offered(&mut self, offer: proto::SessionDescription) -> anyhow::Result<()> {
        let peer = self.subscriber.as_mut().ok_or_else(|| anyhow!("an offer in generation 1"))?;
        let sdp = peer.answer_to(&offer.sdp).context("the server's offer")?;
        self.say(Request::Answer(description("answer", sdp, offer.id))).await;
        Ok(())
    }

    fn candidate(&mut self, trickle: &proto::TrickleRequest) -> anyhow::Result<()> {
        let for_subscriber = trickle.target == proto::SignalTarget::Subscriber as i32;
        match &mut self.subscriber {
            Some(subscriber) if for_subscriber => subscriber.candidate(&trickle.candidate_init),
            _ => self.publisher.candidate(&trickle.candidate_init),
        }
    }

    fn published(&mut self, published: proto::TrackPublishedResponse) -> anyhow::Result<()> {
        let position = self.requested.iter().position(|(requested, _)| requested.cid == published.cid);
        let position = position.with_context(|| format!("a track not asked for: {}", published.cid))?;
        let (requested, reply) = self.requested.remove(position);
        let sid = published.track.context("a published track without information")?.sid;
        let is_video = requested.fps.is_some();
        let sender = self.publisher.publish(&requested.cid, is_video, &requested.encodings)?;
        let Requested { cid, encodings, fps } = requested;
        let mut source = Source::new(sid.clone(), cid, &self.identity, sender, encodings, fps, now());
        source.real = self.options.real;
        self.sources.push(source);
        self.wants_offer = true;
        // The caller may have gone.
        let _ = reply.send(Ok(sid));
        Ok(())
    }

    fn participants(&mut self, changed: Vec<proto::ParticipantInfo>) {
        for info in changed.into_iter().filter(|info| info.identity != self.identity) {
            if info.state == proto::participant_info::State::Disconnected as i32 {
                if self.seen.others.get(&info.identity).is_some_and(|known| known.sid == info.sid) {
                    self.seen.others.remove(&info.identity);
                }
            } else {
                self.seen.others.insert(info.identity.clone(), info);
            }
        }
        self.note_publishers();
    }

    fn qualities(&mut self, update: &proto::SubscribedQualityUpdate) {
        let Some(source) = self.sources.iter_mut().find(|source| source.sid == update.track_sid) else { return };
        let Some(codec) = update.subscribed_codecs.first() else { return };
        let wanted = |position: usize| {
            let position = i32::try_from(position).unwrap_or(i32::MAX);
            codec.qualities.iter().any(|q| q.quality == position && q.enabled)
        };
        source.enable(wanted);
        self.seen.wanted.insert(update.track_sid.clone(), source.encodings.iter().map(|e| e.enabled).collect());
    }

    /// Offer, if something changed and no answer is awaited.
    async fn negotiate(&mut self) {
        if !self.wants_offer || self.is_offering || self.signal.is_none() {
            return;
        }
        match self.publisher.offer(std::mem::take(&mut self.wants_restart)) {
            Ok(sdp) => {
                self.wants_offer = false;
                self.is_offering = true;
                self.offer_id += 1;
                self.say(Request::Offer(description("offer", sdp, self.offer_id))).await;
            }
            Err(error) => {
                self.wants_offer = false;
                eprintln!("{}: cannot offer: {error:#}", self.identity);
            }
        }
    }

    async fn obey(&mut self, ask: Ask) {
        match ask {
            Ask::PublishAudio { cid, reply } => {
                let request = proto::AddTrackRequest {
                    cid: cid.clone(),
                    name: cid.clone(),
                    r#type: proto::TrackType::Audio as i32,
                    source: proto::TrackSource::Microphone as i32,
                    encryption: self.encryption(),
                    disable_red: true,
                    ..Default::default()
                };
                let encodings = vec![Encoding::new(random_ssrc(), None, (0, 0), 0)];
                self.requested.push((Requested { cid, encodings, fps: None }, reply));
                self.say(Request::AddTrack(request)).await;
            }
            Ask::PublishVideo { video, reply } => {
                let (request, requested) = add_video(video);
                self.requested.push((requested, reply));
                let encryption = self.encryption();
                self.say(Request::AddTrack(proto::AddTrackRequest { encryption, ..request })).await;
            }
            Ask::Unpublish { sid, reply } => answer(reply, self.unpublish(&sid)),
            Ask::Mute { sid, muted, reply } => {
                let result = self.source(&sid).map(|source| {
                    source.muted = muted;
                    // Video comes back with a key frame, as cameras do.
                    (0..source.encodings.len()).for_each(|n| source.want_key_frame(source.encodings[n].ssrc));
                });
                if result.is_ok() {
                    self.say(Request::Mute(proto::MuteTrackRequest { sid, muted })).await;
                }
                answer(reply, result);
            }
            Ask::Silence { sid, silent, reply } => answer(reply, self.source(&sid).map(|s| s.silent = silent)),
            Ask::Signal { message, reply } => answer(reply, self.try_say(*message).await),
            Ask::RawSignal { bytes, reply } => {
                let result = match &mut self.signal {
                    Some(signal) => signal.send_raw(bytes).await,
                    None => Err(anyhow!("no WebSocket")),
                };
                answer(reply, result);
            }
            Ask::RawData { label, bytes, reply } => {
                let sent = self.publisher.send_data(&label, &bytes);
                answer(reply, sent.then_some(()).ok_or_else(|| anyhow!("the channel {label} is not open")));
            }
            Ask::DropSignal { reply } => {
                self.signal = None;
                answer(reply, Ok(()));
            }
            Ask::Resume { reply } => {
                let result = self.resume().await;
                answer(reply, result);
            }
            Ask::Snapshot { reply } => answer(reply, Ok(self.snapshot())),
            Ask::Sample { reply } => {
                let delays = self.receivers.values_mut().flat_map(|(_, receiver)| std::mem::take(&mut receiver.delays));
                let delays = delays.collect();
                answer(reply, Ok(Sample { snapshot: self.snapshot(), delays }));
            }
            Ask::UseKey { index, material, reply } => {
                self.key = FrameKey::new(index, &material);
                answer(reply, Ok(()));
            }
            Ask::KnowKey { identity, index, material, reply } => {
                let key = FrameKey::new(index, &material).context("a key of a wrong length");
                answer(reply, key.map(|key| self.keyrings.entry(identity).or_default().add(key)));
            }
            Ask::Leave { reply } => {
                let leave = proto::LeaveRequest {
                    reason: proto::DisconnectReason::ClientInitiated as i32,
                    action: proto::leave_request::Action::Disconnect as i32,
                    ..Default::default()
                };
                let result = self.try_say(Request::Leave(leave)).await;
                if let Some(signal) = self.signal.take() {
                    signal.close().await;
                }
                self.has_left = true;
                answer(reply, result);
            }
        }
    }

    /// Clients decrypt what says that it is encrypted.
    const fn encryption(&self) -> i32 {
        let kind = if self.options.e2ee { proto::encryption::Type::Gcm } else { proto::encryption::Type::None };
        kind as i32
    }

    fn source(&mut self, sid: &str) -> anyhow::Result<&mut Source> {
        self.sources.iter_mut().find(|source| source.sid == sid).with_context(|| format!("no own track {sid}"))
    }

    fn unpublish(&mut self, sid: &str) -> anyhow::Result<()> {
        let sender = self.source(sid)?.sender;
        self.publisher.unpublish(sender)?;
        self.sources.retain(|source| source.sid != sid);
        self.wants_offer = true;
        Ok(())
    }

    /// A new WebSocket for the same session; then new ICE credentials, as clients do.
    async fn resume(&mut self) -> anyhow::Result<()> {
        self.signal = None;
        let sync_state = self.sync_state();
        let hello = Hello { resume: Some(self.seen.sid.clone()), sync_state: Some(sync_state.clone()), offer: None };
        let mut signal = Signal::connect(&self.url, &self.token, &self.options, hello).await?;
        let first = tokio::time::timeout(JOIN_PATIENCE, signal.next()).await.context("no answer to the resume")?;
        let first = first.context("the WebSocket closed instead of resuming")?;
        let is_resumed = matches!(first, Response::Reconnect(_));
        self.tell(Event::Signal(Box::new(first.clone())));
        if !is_resumed {
            bail!("the resume was answered with {first:?}");
        }
        self.signal = Some(signal);
        if self.options.generation == Generation::V0 {
            self.try_say(Request::SyncState(sync_state)).await?;
        }
        self.is_offering = false;
        self.wants_offer = true;
        self.wants_restart = true;
        Ok(())
    }

    fn sync_state(&self) -> proto::SyncState {
        let published = |source: &Source| proto::TrackPublishedResponse {
            cid: source.cid.clone(),
            track: Some(proto::TrackInfo { sid: source.sid.clone(), ..Default::default() }),
        };
        proto::SyncState {
            publish_tracks: self.sources.iter().map(published).collect(),
            subscription: Some(proto::UpdateSubscription {
                subscribe: !self.options.auto_subscribe,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.seen.clone();
        for (sid, receiver) in self.receivers.values() {
            snapshot.received.insert(sid.clone(), receiver.seen.clone());
        }
        snapshot
    }

    async fn say(&mut self, message: Request) {
        // Lost with the WebSocket, which tells of itself.
        let _ = self.try_say(message).await;
    }

    async fn try_say(&mut self, message: Request) -> anyhow::Result<()> {
        self.signal.as_mut().context("no WebSocket")?.send(message).await
    }

    fn tell(&self, event: Event) {
        // Nobody listens any more: fine.
        let _ = self.events.send(event);
    }
}

fn receive(peer: &mut Peer) {
    let mut buffer = [0; 2_048];
    for _ in 0..BURST {
        let Ok((length, from)) = peer.socket.try_recv_from(&mut buffer) else { return };
        peer.datagram(from, buffer.get(..length).unwrap_or_default());
    }
}

fn add_video(video: Video) -> (proto::AddTrackRequest, Requested) {
    let is_simulcast = video.encodings.len() > 1;
    let (width, height, _) = video.encodings.last().copied().unwrap_or((320, 180, 0));
    let encoding = |(rid, (width, height, bitrate)): (&&str, &(u16, u16, usize))| {
        Encoding::new(random_ssrc(), is_simulcast.then(|| (*rid).to_owned()), (*width, *height), *bitrate)
    };
    let encodings: Vec<Encoding> = RIDS.iter().zip(&video.encodings).map(encoding).collect();
    let layers: Vec<proto::VideoLayer> = encodings
        .iter()
        .zip(0..)
        .map(|(encoding, quality)| proto::VideoLayer {
            quality,
            width: encoding.size.0.into(),
            height: encoding.size.1.into(),
            bitrate: u32::try_from(encoding.bitrate).unwrap_or(u32::MAX),
            ..Default::default()
        })
        .collect();
    let source = if video.screen_share { proto::TrackSource::ScreenShare } else { proto::TrackSource::Camera };
    let request = proto::AddTrackRequest {
        cid: video.name.clone(),
        name: video.name.clone(),
        r#type: proto::TrackType::Video as i32,
        source: source as i32,
        width: width.into(),
        height: height.into(),
        layers: layers.clone(),
        simulcast_codecs: vec![proto::SimulcastCodec {
            codec: "vp8".to_owned(),
            cid: video.name.clone(),
            layers,
            ..Default::default()
        }],
        ..Default::default()
    };
    (request, Requested { cid: video.name, encodings, fps: Some(video.fps) })
}

/// A user packet as it goes over a data channel.
#[expect(deprecated, reason = "older clients read `kind`, so newer ones still fill it")]
pub(crate) fn user_packet(reliable: bool, payload: &[u8], to: &[&str]) -> Vec<u8> {
    let user = proto::UserPacket { payload: payload.to_vec(), ..Default::default() };
    let kind = if reliable { proto::data_packet::Kind::Reliable } else { proto::data_packet::Kind::Lossy };
    proto::DataPacket {
        kind: kind as i32,
        destination_identities: to.iter().map(|identity| (*identity).to_owned()).collect(),
        value: Some(proto::data_packet::Value::User(user)),
        ..Default::default()
    }
    .encode_to_vec()
}

fn description(kind: &str, sdp: String, id: u32) -> proto::SessionDescription {
    proto::SessionDescription { r#type: kind.to_owned(), sdp, id, ..Default::default() }
}

fn answer<T>(reply: Reply<T>, result: anyhow::Result<T>) {
    // The caller may have gone.
    let _ = reply.send(result);
}

/// A random SSRC. The standard library's hash seeds come from the system's randomness.
fn random_ssrc() -> u32 {
    (RandomState::new().hash_one(0) >> 32) as u32 | 1
}
