//! The handle of one participant: what a test asks of it and what it sees.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use livekit_protocol as proto;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::clip;
use crate::e2ee::Material;
use crate::fault::Fault;
use crate::participant::{self, Participant};
use crate::receive::Received;

/// Which signalling is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Generation {
    /// `/rtc/v1`: one peer connection, the client always offers.
    #[default]
    V1,
    /// `/rtc`: one peer connection to publish, one to subscribe.
    V0,
}

/// How to take part.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Which signalling.
    pub generation: Generation,
    /// Take every track without asking.
    pub auto_subscribe: bool,
    /// Say that sizes will be asked for.
    pub adaptive_stream: bool,
    /// Publish right in the first offer of generation 1, as newer clients do. Otherwise the first offer follows the
    /// join.
    pub offer_in_join: bool,
    /// Answer the offers of generation 0 as DTLS client, as browsers do, rather than as server, as native clients do.
    pub answer_active: bool,
    /// Publish real pictures and sound, so that people see and hear something.
    pub real: bool,
    /// Encrypt frames, and expect encrypted ones; keys come by [`Client::use_key`] and [`Client::know_key`].
    pub e2ee: bool,
    /// Do this to what is received.
    pub fault: Option<Fault>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            generation: Generation::V1,
            auto_subscribe: true,
            adaptive_stream: false,
            offer_in_join: true,
            answer_active: false,
            real: false,
            e2ee: false,
            fault: None,
        }
    }
}

/// A video track to publish.
#[derive(Clone, Debug)]
pub struct Video {
    /// A name for people; also the client's id of the track.
    pub name: String,
    /// Screen rather than camera.
    pub screen_share: bool,
    /// Frames per second.
    pub fps: u32,
    /// Encodings from the lowest: width, height, bits per second. More than one is simulcast with rids q, h, f.
    pub encodings: Vec<(u16, u16, usize)>,
}

impl Video {
    /// One small encoding: 320x180, 150 kbit/s, 15 frames a second.
    pub fn small(name: &str) -> Self {
        let encodings = vec![(320, 180, 150_000)];
        Self { name: name.to_owned(), screen_share: false, fps: 15, encodings }
    }

    /// Three encodings, the highest 1280x720.
    pub fn simulcast(name: &str) -> Self {
        let encodings = vec![(320, 180, 150_000), (640, 360, 400_000), (1280, 720, 1_200_000)];
        Self { encodings, ..Self::small(name) }
    }

    /// Real pictures in this many encodings (1 to 3).
    pub fn clip(name: &str, encodings: usize) -> Self {
        let encodings = clip::sizes().into_iter().take(encodings.max(1)).collect();
        Self { name: name.to_owned(), screen_share: false, fps: clip::FPS, encodings }
    }
}

/// What a participant sees happen.
#[derive(Clone, Debug)]
pub enum Event {
    /// A signalling message, every one, in order.
    Signal(Box<proto::signal_response::Message>),
    /// The WebSocket is gone.
    SignalLost,
    /// ICE and DTLS of the main peer connection are through.
    Connected,
    /// A peer connection has failed.
    MediaFailed,
    /// A data packet; the channel's label, then the packet.
    Data(String, Box<proto::DataPacket>),
}

/// What a participant has seen and received so far.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Own participant sid.
    pub sid: String,
    /// `_reliable` and `_lossy` are open, both ways.
    pub channels_open: bool,
    /// Others by identity, as last told; those that left are gone.
    pub others: BTreeMap<String, proto::ParticipantInfo>,
    /// What was received, by track sid.
    pub received: BTreeMap<String, Received>,
    /// Packets of streams that no description announced.
    pub strangers: u64,
    /// Own tracks by sid: which encodings the server wants, from the lowest.
    pub wanted: BTreeMap<String, Vec<bool>>,
    /// Audio levels of active speakers by participant sid.
    pub speakers: BTreeMap<String, f32>,
    /// Last refreshed token, if any.
    pub token: Option<String>,
}

/// A [`Snapshot`] and the delays of frames since the last sample, in nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// What was seen so far.
    pub snapshot: Snapshot,
    /// From sending a frame to its being whole.
    pub delays: Vec<u64>,
}

pub(crate) type Reply<T> = oneshot::Sender<anyhow::Result<T>>;

/// What the handle asks of its task.
#[derive(Debug)]
pub(crate) enum Ask {
    PublishAudio { cid: String, reply: Reply<String> },
    PublishVideo { video: Video, reply: Reply<String> },
    Unpublish { sid: String, reply: Reply<()> },
    Mute { sid: String, muted: bool, reply: Reply<()> },
    Silence { sid: String, silent: bool, reply: Reply<()> },
    Signal { message: Box<proto::signal_request::Message>, reply: Reply<()> },
    RawSignal { bytes: Vec<u8>, reply: Reply<()> },
    RawData { label: String, bytes: Vec<u8>, reply: Reply<()> },
    DropSignal { reply: Reply<()> },
    Resume { reply: Reply<()> },
    Snapshot { reply: Reply<Snapshot> },
    Sample { reply: Reply<Sample> },
    UseKey { index: u8, material: Material, reply: Reply<()> },
    KnowKey { identity: String, index: u8, material: Vec<u8>, reply: Reply<()> },
    Leave { reply: Reply<()> },
}

/// One participant. Dropping it breaks it off without a word, like a crash.
#[derive(Debug)]
pub struct Client {
    asks: mpsc::Sender<Ask>,
    events: mpsc::UnboundedReceiver<Event>,
    /// The answer to the join.
    pub join: proto::JoinResponse,
    task: JoinHandle<()>,
}

/// Hands keys to a participant, from anywhere.
#[derive(Clone, Debug)]
pub struct Keyholder {
    asks: mpsc::Sender<Ask>,
}

impl Keyholder {
    /// Encrypt own frames with this key from now on.
    pub async fn use_key(&self, index: u8, material: Material) -> anyhow::Result<()> {
        ask(&self.asks, |reply| Ask::UseKey { index, material, reply }).await
    }

    /// The key of another participant's frames (16 or 32 bytes).
    pub async fn know_key(&self, identity: &str, index: u8, material: &[u8]) -> anyhow::Result<()> {
        let (identity, material) = (identity.to_owned(), material.to_vec());
        ask(&self.asks, |reply| Ask::KnowKey { identity, index, material, reply }).await
    }
}

async fn ask<T>(asks: &mpsc::Sender<Ask>, ask: impl FnOnce(Reply<T>) -> Ask) -> anyhow::Result<T> {
    let (reply, answer) = oneshot::channel();
    asks.send(ask(reply)).await.context("the participant has ended")?;
    answer.await.context("the participant has ended")?
}

impl Client {
    /// Join. `url` is the base address (`ws://` or `http://`). Fails with what the server answered.
    pub async fn connect(url: &str, token: &str, options: Options) -> anyhow::Result<Self> {
        let (asks, inbox) = mpsc::channel(64);
        let (outbox, events) = mpsc::unbounded_channel();
        let (participant, join) = Participant::join(url, token, options, inbox, outbox).await?;
        let task = tokio::spawn(participant.run());
        Ok(Self { asks, events, join, task })
    }

    async fn ask<T>(&self, what: impl FnOnce(Reply<T>) -> Ask) -> anyhow::Result<T> {
        ask(&self.asks, what).await
    }

    /// To hand keys to it from elsewhere.
    pub fn keyholder(&self) -> Keyholder {
        Keyholder { asks: self.asks.clone() }
    }

    /// Publish a synthetic voice; gives the track sid once the server has one for it.
    pub async fn publish_audio(&self, cid: &str) -> anyhow::Result<String> {
        self.ask(|reply| Ask::PublishAudio { cid: cid.to_owned(), reply }).await
    }

    /// Publish synthetic video; gives the track sid.
    pub async fn publish_video(&self, video: Video) -> anyhow::Result<String> {
        self.ask(|reply| Ask::PublishVideo { video, reply }).await
    }

    /// Stop publishing.
    pub async fn unpublish(&self, sid: &str) -> anyhow::Result<()> {
        self.ask(|reply| Ask::Unpublish { sid: sid.to_owned(), reply }).await
    }

    /// Mute or unmute an own track.
    pub async fn mute(&self, sid: &str, muted: bool) -> anyhow::Result<()> {
        self.ask(|reply| Ask::Mute { sid: sid.to_owned(), muted, reply }).await
    }

    /// Let the audio level extension of an own track say silence.
    pub async fn silence(&self, sid: &str, silent: bool) -> anyhow::Result<()> {
        self.ask(|reply| Ask::Silence { sid: sid.to_owned(), silent, reply }).await
    }

    /// Ask for a size of subscribed video.
    pub async fn ask_size(&self, sid: &str, width: u32, height: u32) -> anyhow::Result<()> {
        let settings =
            proto::UpdateTrackSettings { track_sids: vec![sid.to_owned()], width, height, ..Default::default() };
        self.signal(proto::signal_request::Message::TrackSetting(settings)).await
    }

    /// Subscribe or unsubscribe.
    pub async fn subscribe(&self, sid: &str, subscribe: bool) -> anyhow::Result<()> {
        let update = proto::UpdateSubscription { track_sids: vec![sid.to_owned()], subscribe, ..Default::default() };
        self.signal(proto::signal_request::Message::Subscription(update)).await
    }

    /// Send any signalling message.
    pub async fn signal(&self, message: proto::signal_request::Message) -> anyhow::Result<()> {
        self.ask(|reply| Ask::Signal { message: Box::new(message), reply }).await
    }

    /// Send bytes on the WebSocket that need not be a message.
    pub async fn raw_signal(&self, bytes: Vec<u8>) -> anyhow::Result<()> {
        self.ask(|reply| Ask::RawSignal { bytes, reply }).await
    }

    /// Send bytes on a data channel that need not be a packet.
    pub async fn raw_data(&self, label: &str, bytes: Vec<u8>) -> anyhow::Result<()> {
        self.ask(|reply| Ask::RawData { label: label.to_owned(), bytes, reply }).await
    }

    /// Send a user packet, to all or to these identities.
    pub async fn send_data(&self, reliable: bool, payload: &[u8], to: &[&str]) -> anyhow::Result<()> {
        let packet = participant::user_packet(reliable, payload, to);
        let label = if reliable { "_reliable" } else { "_lossy" };
        self.raw_data(label, packet).await
    }

    /// Lose the WebSocket without a word; media stays.
    pub async fn drop_signal(&self) -> anyhow::Result<()> {
        self.ask(|reply| Ask::DropSignal { reply }).await
    }

    /// Come back after the WebSocket was lost, keeping the session.
    pub async fn resume(&self) -> anyhow::Result<()> {
        self.ask(|reply| Ask::Resume { reply }).await
    }

    /// What was seen and received so far.
    pub async fn snapshot(&self) -> anyhow::Result<Snapshot> {
        self.ask(|reply| Ask::Snapshot { reply }).await
    }

    /// The same, with the delays of frames since the last time.
    pub async fn sample(&self) -> anyhow::Result<Sample> {
        self.ask(|reply| Ask::Sample { reply }).await
    }

    /// Encrypt own frames with this key from now on.
    pub async fn use_key(&self, index: u8, material: Material) -> anyhow::Result<()> {
        self.keyholder().use_key(index, material).await
    }

    /// The key of another participant's frames (16 or 32 bytes).
    pub async fn know_key(&self, identity: &str, index: u8, material: &[u8]) -> anyhow::Result<()> {
        self.keyholder().know_key(identity, index, material).await
    }

    /// Leave properly.
    pub async fn leave(mut self) -> anyhow::Result<()> {
        self.ask(|reply| Ask::Leave { reply }).await?;
        (&mut self.task).await.context("the participant's task")
    }

    /// The next event `wanted` gives something for; those before it are forgotten. Fails after `patience`.
    pub async fn wait<T>(
        &mut self,
        patience: Duration,
        mut wanted: impl FnMut(Event) -> Option<T>,
    ) -> anyhow::Result<T> {
        let found = async {
            loop {
                let Some(event) = self.events.recv().await else { bail!("the participant has ended") };
                if let Some(found) = wanted(event) {
                    return Ok(found);
                }
            }
        };
        tokio::time::timeout(patience, found).await.context("what was waited for did not happen")?
    }

    /// Forget what happened and nobody waited for: in a long run it would pile up.
    pub fn forget_events(&mut self) {
        while self.events.try_recv().is_ok() {}
    }

    /// Look at snapshots until `wanted` gives something. Fails after `patience` with the last snapshot in words.
    pub async fn until<T>(
        &self,
        patience: Duration,
        mut wanted: impl FnMut(&Snapshot) -> Option<T>,
    ) -> anyhow::Result<T> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let snapshot = self.snapshot().await?;
            if let Some(found) = wanted(&snapshot) {
                return Ok(found);
            }
            if tokio::time::Instant::now() > deadline {
                bail!("did not come about; received: {:#?}", snapshot.received);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}
