//! How a light participant joins: the WebSocket and generation 1 of the signalling, one peer connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use livekit_protocol as proto;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use tokio::sync::oneshot;

use crate::client::Options;
use crate::light::engine::{Order, Sealer, Seat};
use crate::light::offer::{self, Local, Remote, Section, track};
use crate::light::peer::{Identity, Peer};
use crate::light::shape::Shape;
use crate::peer::now;
use crate::signal::{Hello, Signal};
use crate::stats::nanos;

/// No step of a join takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where and as whom.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// Base address.
    pub url: String,
    /// Access token.
    pub token: String,
    /// Number of the participant, unique in the process; its SSRC follows from it.
    pub number: u32,
    /// What it publishes, each shape once.
    pub publishes: Vec<Shape>,
    /// What it receives at first: sections for them are in its first offer; more follow when the server asks for them.
    /// Empty, and publishing: it receives nothing.
    pub receives: Vec<Shape>,
}

/// A participant that has joined. Dropping it breaks its WebSocket off; its path is served until it leaves.
#[derive(Debug)]
pub struct Joined {
    /// From the first octet sent to SRTP being up, in nanoseconds.
    pub join_ns: u64,
    /// When it began, by the clock of [`nanos`].
    pub began: u64,
    /// What publishing takes.
    pub sealer: Option<Sealer>,
    /// Its tracks and their SSRCs.
    pub tracks: Vec<(Shape, u32)>,
    /// Set when a key frame is asked for.
    pub key_frame: Arc<AtomicBool>,
    /// Set to send nothing.
    pub quiet: Arc<AtomicBool>,
    pub(crate) left: Arc<AtomicBool>,
    /// Tells when the first media packet came.
    pub first_media: oneshot::Receiver<u64>,
    pub(crate) stop: oneshot::Sender<()>,
}

impl Joined {
    /// Leave politely.
    pub fn leave(self) {
        self.left.store(true, Ordering::Relaxed);
        // The signalling may have ended by itself.
        let _ = self.stop.send(());
    }
}

struct Talk {
    signal: Signal,
    local: Local,
    sections: Vec<Section>,
    offers: u32,
    remote: Remote,
    answered: bool,
    ping: Duration,
    number: u32,
}

/// Join; returns when SRTP is up.
pub async fn join(ticket: &Ticket, identity: &Arc<Identity>, engine: &Sender<Order>) -> anyhow::Result<Joined> {
    tokio::time::timeout(PATIENCE, join_now(ticket, identity, engine)).await.context("the join takes too long")?
}

async fn join_now(ticket: &Ticket, identity: &Arc<Identity>, engine: &Sender<Order>) -> anyhow::Result<Joined> {
    let ssrc = 0x1000_0000 + 4 * ticket.number;
    let tracks: Vec<(Shape, u32)> = ticket.publishes.iter().copied().zip(ssrc..).collect();
    let began = nanos();
    let local = Local {
        ufrag: format!("lt{:06}", ticket.number),
        password: format!("light-participant-{:08}", ticket.number),
        fingerprint: identity.fingerprint.clone(),
    };
    let receiving = ticket.receives.iter().copied().map(Section::Receive).collect();
    let mut talk = Talk::open(ticket, local, receiving).await?;
    for (shape, ssrc) in &tracks {
        talk.announce(*shape).await?;
        talk.sections.push(Section::Send(*shape, *ssrc));
    }
    if !tracks.is_empty() {
        talk.answered = false;
        talk.offer().await?;
    }
    while !talk.answered || talk.remote.candidates.is_empty() {
        talk.step().await?;
    }
    let peer = Peer::new(identity, &talk.local, &talk.remote, now())?;
    let (key_frame, left) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    // What the server says meanwhile waits in the socket.
    let Up { sealer, first_media } = serve(peer, ssrc, !tracks.is_empty(), (&key_frame, &left), engine).await?;
    let join_ns = nanos() - began;
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(talk.run(stopped));
    Ok(Joined { join_ns, began, sealer, tracks, key_frame, quiet: Arc::default(), left, first_media, stop })
}

/// A path whose SRTP is up.
#[derive(Debug)]
pub(crate) struct Up {
    /// What publishing takes.
    pub(crate) sealer: Option<Sealer>,
    /// Tells when the first media packet came.
    pub(crate) first_media: oneshot::Receiver<u64>,
}

/// Have a path served from now on; returns when SRTP is up. Of the two switches the first is set when a key frame is
/// asked for, the second ends it.
pub(crate) async fn serve(
    peer: Peer,
    ssrc: u32,
    publishes: bool,
    (key_frame, left): (&Arc<AtomicBool>, &Arc<AtomicBool>),
    engine: &Sender<Order>,
) -> anyhow::Result<Up> {
    let (connected, is_connected) = oneshot::channel();
    let (first, first_media) = oneshot::channel();
    let seat = Seat {
        peer,
        ssrc,
        key_frame: Arc::clone(key_frame),
        publishes,
        left: Arc::clone(left),
        connected: Some(connected),
        first_media: Some(first),
    };
    engine.send(Order::Add(Box::new(seat))).map_err(|_| anyhow!("the receiving thread has ended"))?;
    let sealer = is_connected.await.context("ICE or DTLS failed")?;
    Ok(Up { sealer, first_media })
}

impl Talk {
    async fn open(ticket: &Ticket, local: Local, sections: Vec<Section>) -> anyhow::Result<Self> {
        let offer = (!sections.is_empty()).then(|| describe(offer::write(&local, 1, &sections), 1));
        let offers = u32::from(offer.is_some());
        let is_deaf = ticket.receives.is_empty() && !ticket.publishes.is_empty();
        let options = Options { auto_subscribe: !is_deaf, ..Options::default() };
        let hello = Hello { offer, ..Hello::default() };
        let mut signal = Signal::connect(&ticket.url, &ticket.token, &options, hello).await?;
        let ping = match signal.next().await {
            Some(Response::Join(join)) => u64::try_from(join.ping_interval).unwrap_or(5).max(1),
            other => bail!("the join was answered with {other:?}"),
        };
        Ok(Self {
            signal,
            local,
            sections,
            offers,
            remote: Remote::default(),
            answered: false,
            ping: Duration::from_secs(ping),
            number: ticket.number,
        })
    }

    /// Ask for a track and wait until the server has one.
    async fn announce(&mut self, shape: Shape) -> anyhow::Result<()> {
        let is_video = shape.is_video();
        let (width, height, bitrate) = shape.size();
        let layer = proto::VideoLayer { quality: 2, width, height, bitrate, ..Default::default() };
        let kind = if is_video { proto::TrackType::Video } else { proto::TrackType::Audio };
        let source = if is_video { proto::TrackSource::Camera } else { proto::TrackSource::Microphone };
        let cid = track(shape).to_owned();
        let codec = proto::SimulcastCodec {
            codec: "vp8".to_owned(),
            cid: cid.clone(),
            layers: vec![layer.clone()],
            ..Default::default()
        };
        let request = proto::AddTrackRequest {
            cid: cid.clone(),
            name: cid,
            r#type: kind as i32,
            source: source as i32,
            width,
            height,
            layers: if is_video { vec![layer] } else { vec![] },
            simulcast_codecs: if is_video { vec![codec] } else { vec![] },
            disable_red: true,
            ..Default::default()
        };
        self.signal.send(Request::AddTrack(request)).await?;
        loop {
            let message = self.signal.next().await.context("the WebSocket closed instead of publishing")?;
            if matches!(message, Response::TrackPublished(_)) {
                return Ok(());
            }
            self.hear(message).await?;
        }
    }

    async fn offer(&mut self) -> anyhow::Result<()> {
        self.offers += 1;
        let sdp = offer::write(&self.local, self.offers, &self.sections);
        self.signal.send(Request::Offer(describe(sdp, self.offers))).await
    }

    async fn step(&mut self) -> anyhow::Result<()> {
        let message = self.signal.next().await.context("the WebSocket closed")?;
        self.hear(message).await
    }

    async fn hear(&mut self, message: Response) -> anyhow::Result<()> {
        match message {
            Response::Answer(answer) => {
                let early = std::mem::take(&mut self.remote.candidates);
                self.remote = offer::read(&answer.sdp)?;
                self.remote.candidates.extend(early);
                self.answered = true;
            }
            Response::Trickle(trickle) => {
                let init: serde_json::Value = serde_json::from_str(&trickle.candidate_init)?;
                let line = init.get("candidate").and_then(serde_json::Value::as_str).unwrap_or_default();
                self.remote.candidates.extend(offer::candidate(line));
            }
            Response::MediaSectionsRequirement(more) => {
                let audio = std::iter::repeat_n(Section::Receive(Shape::Audio), more.num_audios.min(64) as usize);
                let video = std::iter::repeat_n(Section::Receive(Shape::Video), more.num_videos.min(64) as usize);
                self.sections.extend(audio.chain(video));
                self.offer().await?;
            }
            Response::Leave(leave) => bail!("the server ends the session: {leave:?}"),
            _ => {}
        }
        Ok(())
    }

    /// Keep the session alive and receive what comes.
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        let mut ping = tokio::time::interval(self.ping);
        loop {
            tokio::select! {
                message = self.signal.next() => {
                    let Some(message) = message else { return };
                    if let Err(error) = self.hear(message).await {
                        eprintln!("light participant {}: {error:#}", self.number);
                        return;
                    }
                }
                _ = ping.tick() => {
                    let timestamp = i64::try_from(nanos() / 1_000_000).unwrap_or(0) + 1;
                    if self.signal.send(Request::PingReq(proto::Ping { timestamp, rtt: 0 })).await.is_err() {
                        return;
                    }
                }
                polite = &mut stopped => {
                    if polite.is_ok() {
                        let leave = proto::LeaveRequest {
                            reason: proto::DisconnectReason::ClientInitiated as i32,
                            ..Default::default()
                        };
                        // It may have closed first.
                        let _ = self.signal.send(Request::Leave(leave)).await;
                    }
                    return;
                }
            }
        }
    }
}

fn describe(sdp: String, id: u32) -> proto::SessionDescription {
    proto::SessionDescription { r#type: "offer".to_owned(), sdp, id, ..Default::default() }
}
