//! Everybody in the rooms of a run: joins, leaves, and the keys they hand to each other where nobody else does.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::client::{Client, Options, Sample, Video};
use crate::clip;
use crate::door::{Companion, Door};
use crate::e2ee::{self, Material};
use crate::fault::Fault;
use crate::light::engine::Order;
use crate::light::join::{Joined, Ticket, join};
use crate::light::peer::Identity;
use crate::light::publish::Source;
use crate::light::shape::Shape;
use crate::scenario::{Camera, Scenario};
use crate::stats::nanos;

/// Media of a complete participant is up within this time, or its join failed.
const CONNECTED: Duration = Duration::from_secs(20);

/// One participant.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) room: u32,
    pub(super) number: u32,
    pub(super) identity: String,
    pub(super) member: Member,
    /// When its join began, by the clock of [`nanos`], and how long it took.
    pub(super) began: u64,
    pub(super) join_ns: u64,
    /// Its key of frames: index and material.
    key: Option<(u8, Material)>,
    /// Sid of its microphone's track.
    microphone: Option<String>,
    /// What it had received when it was last asked.
    pub(super) last: Sample,
    companion: Option<Box<dyn Companion>>,
    keyless: u64,
}

#[derive(Debug)]
pub(super) enum Member {
    Full(Box<Client>),
    Light(Box<Joined>),
}

/// All of them.
#[derive(Debug)]
pub(super) struct Crowd {
    pub(super) door: Arc<dyn Door>,
    pub(super) scenario: Scenario,
    identity: Arc<Identity>,
    engine: Sender<Order>,
    sources: Sender<Source>,
    joins: Arc<Semaphore>,
    fault: Option<Fault>,
    pub(super) seats: Vec<Seat>,
    /// Keys that did not come to those who joined.
    pub(super) keyless: u64,
    /// Light participants so far: each has a number of its own.
    lights: u32,
    /// Participants so far, to tell replacements apart.
    joined: u32,
}

impl Crowd {
    pub(super) fn new(
        door: Arc<dyn Door>,
        scenario: Scenario,
        (engine, sources): (Sender<Order>, Sender<Source>),
        joins: usize,
        fault: Option<Fault>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            door,
            scenario,
            identity: Arc::new(Identity::new()?),
            engine,
            sources,
            joins: Arc::new(Semaphore::new(joins.max(1))),
            fault,
            seats: Vec::new(),
            keyless: 0,
            lights: 0,
            joined: 0,
        })
    }

    /// Let these participants (room, number) join, those who publish first. Says how many could not, and why one of
    /// them could not.
    pub(super) async fn join(&mut self, who: &[(u32, u32)], rate: u32) -> (usize, Option<anyhow::Error>) {
        let (mut failed, mut why) = (0, None);
        let publishers = self.scenario.publishers();
        let (first, then): (Vec<_>, Vec<_>) = who.iter().copied().partition(|(_, number)| *number < publishers);
        for wave in [first, then] {
            let mut joining = JoinSet::new();
            for (room, number) in wave {
                if rate > 0 {
                    tokio::time::sleep(Duration::from_secs(1) / rate).await;
                }
                joining.spawn(self.one(room, number));
            }
            while let Some(result) = joining.join_next().await {
                let seated = result.context("a join panicked").and_then(|seat| seat);
                let seated = match seated {
                    Ok(seat) => self.seat(seat).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = seated {
                    failed += 1;
                    why.get_or_insert(error);
                }
            }
        }
        (failed, why)
    }

    /// The join of one, to be waited for anywhere.
    fn one(&mut self, room: u32, number: u32) -> impl Future<Output = anyhow::Result<Seat>> + use<> {
        let (door, scenario, engine) = (Arc::clone(&self.door), self.scenario.clone(), self.engine.clone());
        let (light_identity, joins, fault) = (Arc::clone(&self.identity), Arc::clone(&self.joins), self.fault);
        self.joined += 1;
        let count = self.joined;
        self.lights += 1;
        let light = self.lights;
        async move {
            let _turn = joins.acquire_owned().await?;
            let began = nanos();
            let pass = door.admit(room, number, count).await?;
            let options = Options { e2ee: scenario.e2ee, real: door.has_people(), fault, ..Options::default() };
            let member = if scenario.is_full(number) {
                Member::Full(Box::new(full(&pass.url, &pass.token, options).await?))
            } else {
                let publishes = scenario.light_tracks(number);
                let mut receives: Vec<Shape> = Vec::new();
                if scenario.streams_for(number) > 0 {
                    receives.extend((scenario.microphones > 0).then_some(Shape::Audio));
                    receives.extend((scenario.cameras + scenario.screens > 0).then_some(Shape::Video));
                }
                let ticket = Ticket { url: pass.url, token: pass.token, number: light, publishes, receives };
                let joined = match door.peers() {
                    Some(peers) => peers.join(&ticket, &light_identity, &engine).await?,
                    None => join(&ticket, &light_identity, &engine).await?,
                };
                Member::Light(Box::new(joined))
            };
            let join_ns = nanos() - began;
            let last = Sample::default();
            let (identity, companion, keyless) = (pass.identity, pass.companion, pass.keyless);
            Ok(Seat {
                room,
                number,
                identity,
                member,
                began,
                join_ns,
                key: None,
                microphone: None,
                last,
                companion,
                keyless,
            })
        }
    }

    /// Let one who joined publish; keys first.
    async fn seat(&mut self, mut seat: Seat) -> anyhow::Result<()> {
        let (number, scenario) = (seat.number, self.scenario.clone());
        self.keyless += seat.keyless;
        match &mut seat.member {
            Member::Full(client) => {
                if let Some(companion) = &mut seat.companion {
                    companion.keys_to(client.keyholder());
                } else if scenario.e2ee {
                    let material = e2ee::material().context("no randomness for keys")?;
                    for other in self.seats.iter().filter(|other| other.room == seat.room) {
                        let Member::Full(theirs) = &other.member else { continue };
                        theirs.know_key(&seat.identity, 0, &material).await?;
                        if let Some((index, theirs)) = other.key {
                            client.know_key(&other.identity, index, &theirs).await?;
                        }
                    }
                    client.use_key(0, material).await?;
                    seat.key = Some((0, material));
                }
                if number < scenario.microphones {
                    let sid = client.publish_audio("mic").await?;
                    seat.microphone = Some(sid);
                }
                if number < scenario.cameras {
                    client.publish_video(camera(scenario.camera, self.door.has_people())).await?;
                }
                if number < scenario.screens {
                    let screen = Video { screen_share: true, fps: 5, ..Video::small("screen") };
                    client.publish_video(Video { encodings: vec![(1280, 720, 600_000)], ..screen }).await?;
                }
            }
            Member::Light(joined) => {
                if let Some(sealer) = joined.sealer.take() {
                    let (key_frame, quiet) = (Arc::clone(&joined.key_frame), Arc::clone(&joined.quiet));
                    let source = Source { sealer, tracks: joined.tracks.clone(), key_frame, quiet };
                    self.sources.send(source).map_err(|_| anyhow!("the publishing thread has ended"))?;
                }
            }
        }
        self.seats.push(seat);
        Ok(())
    }

    /// One leaves; the others of an encrypted room get new keys, so that it can read no more.
    pub(super) async fn leave(&mut self, at: usize) -> anyhow::Result<()> {
        let gone = self.seats.remove(at);
        let room = gone.room;
        let is_looked_after = gone.companion.is_some();
        gone.leave().await;
        if !self.scenario.e2ee || is_looked_after {
            return Ok(());
        }
        let stayed: Vec<usize> = (0..self.seats.len()).filter(|at| self.seats[*at].room == room).collect();
        for at in &stayed {
            let material = e2ee::material().context("no randomness for keys")?;
            let index = self.seats[*at].key.map_or(0, |(index, _)| index.wrapping_add(1));
            let identity = self.seats[*at].identity.clone();
            // Everybody has it before it is used.
            for other in stayed.iter().filter(|other| *other != at) {
                if let Member::Full(client) = &self.seats[*other].member {
                    client.know_key(&identity, index, &material).await?;
                }
            }
            if let Member::Full(client) = &self.seats[*at].member {
                client.use_key(index, material).await?;
            }
            self.seats[*at].key = Some((index, material));
        }
        Ok(())
    }

    /// In each room this microphone is spoken into, and no other.
    pub(super) async fn speak(&self, turn: u32) {
        let speaker = turn % self.scenario.microphones.max(1);
        for seat in self.seats.iter().filter(|seat| seat.number < self.scenario.microphones) {
            let silent = seat.number != speaker;
            match &seat.member {
                Member::Full(client) => {
                    if let Some(sid) = &seat.microphone {
                        // It may have ended by itself.
                        let _ = client.silence(sid, silent).await;
                    }
                }
                Member::Light(joined) if self.scenario.cameras == 0 => joined.quiet.store(silent, Ordering::Relaxed),
                Member::Light(_) => {}
            }
        }
    }

    pub(super) async fn leave_all(&mut self) {
        let mut leaving = JoinSet::new();
        for seat in std::mem::take(&mut self.seats) {
            leaving.spawn(seat.leave());
        }
        leaving.join_all().await;
        self.door.close().await;
        // It may have ended by itself.
        let _ = self.engine.send(Order::Stop);
    }
}

impl Seat {
    async fn leave(self) {
        match self.member {
            // It may have ended by itself.
            Member::Full(client) => drop(client.leave().await),
            Member::Light(joined) => joined.leave(),
        }
        if let Some(companion) = self.companion {
            companion.leave().await;
        }
    }
}

fn camera(camera: Camera, is_real: bool) -> Video {
    if is_real {
        // What there are pictures for; a small camera sends the smallest.
        return Video::clip("cam", if camera == Camera::Small { 1 } else { clip::sizes().len() });
    }
    match camera {
        Camera::Hd => Video { fps: 30, encodings: vec![(1280, 720, 2_100_000)], ..Video::small("cam") },
        Camera::Small => Video::small("cam"),
        Camera::Simulcast => Video::simulcast("cam"),
    }
}

async fn full(url: &str, token: &str, options: Options) -> anyhow::Result<Client> {
    let mut client = Client::connect(url, token, options).await?;
    let connected = |event| matches!(event, crate::Event::Connected).then_some(());
    client.wait(CONNECTED, connected).await.context("no media path")?;
    Ok(client)
}
