//! Large rooms: what a join, a leave or a storm of them costs, and that nobody misses anything of it.

use std::collections::BTreeMap;
use std::time::Duration;

use livekit_protocol as proto;
use proto::participant_info::State;
use proto::signal_request::Message as Ask;
use proto::signal_response::Message;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use signalling::media::MediaEvent;
use signalling::room::Config;
use signalling::room::api::{AdminAnswer, AdminRequest, ConnectionId, Generation};

use crate::world::{Client, World, join_request, params};

/// One who only listens.
fn listener(world: &mut World, name: &str) -> Client {
    let mut request = join_request(name, Generation::V1);
    request.grants.can_publish = false;
    world.join_with(request)
}

/// A room of so many, all of it read.
fn room_of(count: usize) -> (World, Vec<Client>) {
    let mut config = Config::default();
    config.limits.participants = 5000;
    // Those who only listen never connect here.
    config.join_timeout = Duration::from_secs(3600);
    let mut world = World::with(params(), config);
    let clients: Vec<_> = (0..count).map(|index| listener(&mut world, &format!("listener-{index}"))).collect();
    calm(&mut world);
    (world, clients)
}

fn calm(world: &mut World) {
    world.advance(Duration::from_secs(20));
    world.inboxes.values_mut().for_each(std::collections::VecDeque::clear);
    world.said = (0, 0);
}

/// Messages of one kind that a client got.
fn count(world: &mut World, client: &Client, kind: &str) -> usize {
    world.unread(client).iter().filter(|name| **name == kind).count()
}

#[test]
fn a_join_costs_the_others_the_same_in_any_room() {
    let costs = [10, 100, 1000].map(|size| {
        let (mut world, clients) = room_of(size);
        listener(&mut world, "newcomer");
        let joined = world.said.0;
        world.advance(Duration::from_secs(4));
        let told = world.said.0 - joined;
        assert_eq!(count(&mut world, &clients[0], "update"), 1, "in a room of {size}");
        (joined / size, told)
    });
    // The newcomer is told of everybody; all others are told one thing, encoded once.
    assert!(costs.iter().all(|(per_other, _)| *per_other < 250), "{costs:?}");
    assert!(costs[2].1 <= costs[0].1 + 16, "{costs:?}");
}

#[test]
fn a_thousand_joins_in_a_second_are_a_few_messages_for_everybody() {
    let (mut world, clients) = room_of(100);
    for index in 0..1000 {
        let client = listener(&mut world, &format!("newcomer-{index}"));
        world.connect(&client);
        world.advance(Duration::from_millis(1));
    }
    world.advance(Duration::from_secs(4));
    let updates = count(&mut world, &clients[0], "update");
    assert!(updates <= 16, "{updates} updates");
    // What is encoded: joins, and each newcomer once or twice, for all who are there.
    let joins = 1000 * 600 * 250;
    assert!(world.said.0 < joins, "{} bytes encoded", world.said.0);
}

#[test]
fn a_thousand_leaves_at_once_are_a_few_messages_for_the_rest() {
    let (mut world, clients) = room_of(1100);
    for client in &clients[100..] {
        world.say(client, Ask::Leave(proto::LeaveRequest::default()));
    }
    world.advance(Duration::from_secs(4));
    let mut gone = 0;
    while let Some(update) = world.try_find(&clients[0], |message| match message {
        Message::Update(update) => Some(update.clone()),
        _ => None,
    }) {
        gone += update.participants.iter().filter(|info| info.state() == State::Disconnected).count();
    }
    assert_eq!(gone, 1000);
    assert_eq!(count(&mut world, &clients[0], "update"), 0);
    assert!(world.said.0 < 1_500_000, "{} bytes encoded", world.said.0);
}

#[test]
fn in_a_calm_large_room_a_speaker_waits_for_nothing() {
    let (mut world, clients) = room_of(300);
    let mut speaker = world.join_active("speaker");
    calm(&mut world);
    let sid = world.publish_microphone(&mut speaker);
    assert_eq!(count(&mut world, &clients[0], "update"), 1);
    calm(&mut world);
    world.say(&speaker, Ask::Mute(proto::MuteTrackRequest { sid, muted: true }));
    assert_eq!((count(&mut world, &clients[0], "update"), count(&mut world, &speaker, "update")), (1, 0));
}

#[test]
fn a_storm_of_publishers_is_told_in_time_and_before_it_is_offered() {
    let (mut world, _) = room_of(300);
    let watcher = world.join_active("watcher");
    calm(&mut world);
    for index in 0..60 {
        let mut speaker = world.join(&format!("speaker-{index}"));
        world.publish_microphone(&mut speaker);
        world.advance(Duration::from_millis(3));
    }
    world.advance(Duration::from_millis(500));
    let (mut told, mut updates) = (0, 0);
    let mut last = BTreeMap::new();
    for message in world.drain(&watcher) {
        match message {
            Message::Update(update) => {
                updates += 1;
                last.extend(update.participants.into_iter().map(|info| (info.identity.clone(), info)));
                told = last.values().filter(|info| !info.tracks.is_empty()).count();
            }
            Message::MediaSectionsRequirement(missing) => {
                assert!(usize::try_from(missing.num_audios).unwrap() <= told, "sections for tracks nobody told of");
            }
            _ => {}
        }
    }
    assert_eq!(told, 60);
    assert!(updates <= 12, "{updates} updates in 680 ms");
}

#[test]
fn levels_of_speakers_are_one_message_for_all_who_hear_the_same() {
    let (mut world, clients) = room_of(400);
    let mut speaker = world.join_active("speaker");
    world.publish_microphone(&mut speaker);
    calm(&mut world);
    let track = world.media.iter().rev().find_map(|command| match command {
        signalling::media::MediaCommand::Publish { track, .. } => Some(*track),
        _ => None,
    });
    world.event(MediaEvent::Speakers { levels: vec![(track.unwrap(), 0.5)] });
    assert_eq!(count(&mut world, &clients[7], "speakers"), 1);
    assert!(world.said.0 < 200, "{} bytes encoded", world.said.0);
}

#[test]
fn who_comes_back_before_its_farewell_was_told_stays_for_everybody() {
    let (mut world, clients) = room_of(200);
    world.say(&clients[5], Ask::Leave(proto::LeaveRequest::default()));
    let back = listener(&mut world, "listener-5");
    let late = listener(&mut world, "late");
    world.advance(Duration::from_secs(4));
    for client in [&clients[0], &late] {
        let told = world.drain(client).into_iter().filter_map(|message| match message {
            Message::Update(update) => Some(update.participants),
            _ => None,
        });
        let about: Vec<_> = told.flatten().filter(|info| info.identity == "listener-5").collect();
        assert!(about.iter().all(|info| info.sid == back.sid && info.state() != State::Disconnected), "{about:?}");
    }
}

/// What a client of today's kind believes: by identity, the newest of each session.
#[derive(Default)]
struct Belief {
    roster: BTreeMap<String, proto::ParticipantInfo>,
}

impl Belief {
    fn learn(&mut self, message: &Message, own: &str) {
        let infos = match message {
            Message::Join(join) => &join.other_participants,
            Message::Update(update) => &update.participants,
            _ => return,
        };
        for info in infos.iter().filter(|info| info.identity != own) {
            if info.state() == State::Disconnected {
                self.roster.remove(&info.identity);
                continue;
            }
            let known = self.roster.get(&info.identity).filter(|known| known.sid == info.sid);
            if known.is_none_or(|known| known.version <= info.version) {
                self.roster.insert(info.identity.clone(), info.clone());
            }
        }
    }
}

fn live_through(seed: u64, size: usize) {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut world, _) = room_of(size);
    let mut present: Vec<(Client, bool, Option<String>)> = Vec::new();
    let mut beliefs: BTreeMap<ConnectionId, (String, Belief)> = BTreeMap::new();
    for step in 0..400 {
        let pick = if present.is_empty() { 0 } else { random.random_range(0..present.len()) };
        match random.random_range(0..10) {
            0..=3 => {
                // A few names only, so that many come back or replace themselves.
                let name = format!("guest-{}", random.random_range(0..40));
                present.retain(|(client, ..)| client.identity != name);
                let connection = {
                    let client = world.join(&name);
                    present.push((client.clone(), false, None));
                    client.connection
                };
                // `join` takes the first message: the roster it carried is asked of the room.
                let mut belief = Belief::default();
                let Ok(AdminAnswer::Participants(all)) = world.admin(AdminRequest::ListParticipants) else { panic!() };
                belief.roster = all.into_iter().map(|info| (info.identity.clone(), info)).collect();
                belief.roster.remove(&name);
                beliefs.insert(connection, (name, belief));
            }
            4 | 5 if !present.is_empty() => {
                let (client, ..) = present.remove(pick);
                world.say(&client, Ask::Leave(proto::LeaveRequest::default()));
            }
            6 | 7 if !present.is_empty() => {
                let (client, published, sid) = &mut present[pick];
                if !std::mem::replace(published, true) {
                    *sid = Some(world.publish_microphone(client));
                }
            }
            8 if !present.is_empty() => {
                let (client, _, sid) = &present[pick];
                if let Some(sid) = sid.clone() {
                    world.say(client, Ask::Mute(proto::MuteTrackRequest { sid, muted: random.random() }));
                }
            }
            _ => {
                if let Some((client, ..)) = present.get(pick) {
                    let client = client.clone();
                    world.connect(&client);
                }
            }
        }
        if step % 3 == 0 {
            world.advance(Duration::from_millis(random.random_range(0..120)));
        }
    }
    world.advance(Duration::from_secs(5));
    let Ok(AdminAnswer::Participants(all)) = world.admin(AdminRequest::ListParticipants) else { panic!() };
    for (client, ..) in &present {
        let (name, mut belief) = beliefs.remove(&client.connection).unwrap();
        for message in world.drain(client) {
            belief.learn(&message, &name);
        }
        let truth: BTreeMap<_, _> =
            all.iter().filter(|info| info.identity != name).map(|info| (info.identity.clone(), info.clone())).collect();
        assert_eq!(belief.roster, truth, "{name} of seed {seed} in a room of {size}");
    }
}

#[test]
fn after_any_life_everybody_believes_what_is_true() {
    for seed in 0..6 {
        live_through(seed, 0);
        live_through(seed, 120);
    }
}
