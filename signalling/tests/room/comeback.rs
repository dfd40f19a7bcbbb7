//! livekit-client after a full reconnect: it tells its page nothing from the moment its own tracks are published until
//! two seconds after its join. Nobody may be lost to that, and nobody is to wait without need.

use std::time::Duration;

use livekit_protocol as proto;
use proto::signal_request::Message as Ask;
use proto::signal_response::Message;
use signalling::room::api::{Company, Generation, Input, JoinRequest};

use crate::sdp::{self, Section};
use crate::world::{Client, World, add_track, join_request, session};

const MS: Duration = Duration::from_millis(1);

/// The join of a page that lost its node, or was sent away with the others.
fn comeback(identity: &str, company: Company) -> (JoinRequest, Vec<Section>) {
    let mut request = join_request(identity, Generation::V1);
    (request.grants.joined, request.grants.company) = (true, company);
    let mut sections = vec![Section::channels()];
    sections.extend(["audio", "audio", "audio", "video", "video", "video"].map(Section::receiving));
    let text = sdp::describe(&format!("ufrag{identity}"), "actpass", &sections);
    request.publisher_offer = Some(session("offer", text, 1));
    (request, sections)
}

fn come_back(world: &mut World, identity: &str, company: Company) -> Client {
    let (request, sections) = comeback(identity, company);
    let mut client = world.join_with(request);
    (client.sections, client.offers) = (sections, 1);
    world.connect(&client);
    client
}

/// Announces a camera, and negotiates it without waiting for the answer.
fn republish(world: &mut World, client: &mut Client) {
    announce(world, client);
    client.sections.push(Section::simulcast(&format!("cam-{}", client.identity)));
    world.offer(client);
}

fn announce(world: &mut World, client: &Client) {
    let cid = format!("cam-{}", client.identity);
    world.say(client, Ask::AddTrack(add_track(&cid, proto::TrackType::Video, proto::TrackSource::Camera)));
}

/// What browsers do when asked for sections.
fn follow(world: &mut World, client: &mut Client) {
    while let Some(needed) = world.try_find(client, |message| match message {
        Message::MediaSectionsRequirement(needed) => Some(*needed),
        _ => None,
    }) {
        client.sections.extend((0..needed.num_audios).map(|_| Section::receiving("audio")));
        client.sections.extend((0..needed.num_videos).map(|_| Section::receiving("video")));
        world.offer(client);
    }
}

fn is_answered(world: &mut World, client: &Client) -> bool {
    let answered = |message: &Message| matches!(message, Message::TrackPublished(_)).then_some(());
    world.try_find(client, answered).is_some()
}

/// Tracks of others a client is told of, by identity, oldest message first.
fn told(world: &mut World, client: &Client) -> Vec<(String, usize)> {
    let mut told = Vec::new();
    while let Some(update) = world.try_find(client, |message| match message {
        Message::Update(update) => Some(update.clone()),
        _ => None,
    }) {
        told.extend(update.participants.into_iter().map(|one| (one.identity, one.tracks.len())));
    }
    told.retain(|(identity, _)| *identity != client.identity);
    told
}

/// Steps of 20 ms until `done`, with clients that do as they are told.
fn until(
    world: &mut World,
    clients: &mut [&mut Client],
    mut done: impl FnMut(&mut World, &[&mut Client]) -> bool,
) -> Duration {
    for step in 0..200 {
        if done(world, clients) {
            return step * 20 * MS;
        }
        world.advance(20 * MS);
        for client in &mut *clients {
            follow(world, client);
        }
    }
    panic!("not within four seconds");
}

#[test]
fn whoever_is_sent_away_carries_along_how_many_are() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    world.publish_camera(&mut alice);
    world.publish_microphone(&mut alice);
    let bob = world.join_active("bob");
    world.tokens.clear();
    world.input(Input::Drain);
    let companies: Vec<_> = world.tokens.iter().map(|(to, grants)| (*to, grants.company)).collect();
    let company = Company { people: 2, tracks: 2 };
    assert_eq!(companies, [(alice.connection, company), (bob.connection, company)]);
}

#[test]
fn those_who_come_back_are_not_connected_before_all_are_seen() {
    let mut world = World::new();
    let company = Company { people: 2, tracks: 2 };
    let mut alice = come_back(&mut world, "alice", company);
    republish(&mut world, &mut alice);
    world.advance(400 * MS);
    assert!(!is_answered(&mut world, &alice));
    let mut bob = come_back(&mut world, "bob", company);
    republish(&mut world, &mut bob);
    assert_eq!(told(&mut world, &alice).last(), Some(&("bob".to_owned(), 1)), "told at once: it counts as before");
    let waited = until(&mut world, &mut [&mut alice, &mut bob], |world, clients| is_answered(world, clients[0]));
    assert!(waited <= 350 * MS, "{waited:?}");
    until(&mut world, &mut [&mut alice, &mut bob], |world, clients| is_answered(world, clients[1]));
    let given = |world: &World| {
        let subscribed =
            |one: &&signalling::media::MediaCommand| matches!(one, signalling::media::MediaCommand::Subscribe { .. });
        world.media.iter().filter(subscribed).count()
    };
    assert_eq!(given(&world), 2, "each has the other's camera");
    assert!(world.tokens.iter().all(|(_, grants)| grants.company == Company::default()), "said once");
}

#[test]
fn without_knowing_who_is_expected_they_wait_a_moment() {
    let mut world = World::new();
    let mut alice = come_back(&mut world, "alice", Company::default());
    republish(&mut world, &mut alice);
    let waited = until(&mut world, &mut [&mut alice], |world, clients| is_answered(world, clients[0]));
    assert!((1000 * MS..=1400 * MS).contains(&waited), "{waited:?}");
}

#[test]
fn one_alone_does_not_wait() {
    let mut world = World::new();
    let mut alice = come_back(&mut world, "alice", Company { people: 1, tracks: 1 });
    republish(&mut world, &mut alice);
    let waited = until(&mut world, &mut [&mut alice], |world, clients| is_answered(world, clients[0]));
    assert!(waited <= 350 * MS, "{waited:?}");
}

#[test]
fn whoever_comes_later_is_told_of_when_it_is_heard() {
    let mut world = World::new();
    let company = Company { people: 1, tracks: 1 };
    let mut alice = come_back(&mut world, "alice", company);
    republish(&mut world, &mut alice);
    let waited = until(&mut world, &mut [&mut alice], |world, clients| is_answered(world, clients[0]));
    told(&mut world, &alice);
    let mut bob = come_back(&mut world, "bob", Company::default());
    republish(&mut world, &mut bob);
    let mut carol = world.join_active("carol");
    world.publish_camera(&mut carol);
    world.say(&carol, Ask::Leave(proto::LeaveRequest::default()));
    world.advance(2100 * MS - waited);
    let early = told(&mut world, &alice);
    assert_eq!(early, [("carol".to_owned(), 0)], "her farewell alone");
    let asked = |message: &Message| matches!(message, Message::MediaSectionsRequirement(_)).then_some(());
    assert!(world.try_find(&alice, asked).is_none(), "its media neither");
    world.advance(150 * MS);
    assert_eq!(told(&mut world, &alice), [("bob".to_owned(), 1)]);
    assert!(world.try_find(&alice, asked).is_some());
    // From now on as ever.
    let mut dave = world.join_active("dave");
    world.publish_camera(&mut dave);
    assert_eq!(told(&mut world, &alice).last(), Some(&("dave".to_owned(), 1)));
}

#[test]
fn clients_that_negotiate_after_the_answer_get_it() {
    let mut world = World::new();
    let mut alice = come_back(&mut world, "alice", Company { people: 2, tracks: 2 });
    announce(&mut world, &alice);
    let waited = until(&mut world, &mut [&mut alice], |world, clients| is_answered(world, clients[0]));
    assert!(waited <= 360 * MS, "{waited:?}");
}

#[test]
fn a_resume_in_between_gets_what_was_held_back() {
    let mut world = World::new();
    let mut alice = come_back(&mut world, "alice", Company { people: 2, tracks: 2 });
    republish(&mut world, &mut alice);
    world.advance(100 * MS);
    world.close(&alice);
    let (mut request, _) = comeback("alice", Company::default());
    (request.reconnect, request.participant_sid) = (true, alice.sid.clone());
    request.publisher_offer = None;
    alice.connection = world.connection();
    world.input(Input::Join { connection: alice.connection, request: Box::new(request) });
    assert!(is_answered(&mut world, &alice));
}

#[test]
fn others_are_answered_at_once() {
    let mut world = World::new();
    let (mut request, _) = comeback("robot", Company { people: 2, tracks: 2 });
    request.client.sdk = proto::client_info::Sdk::Python.into();
    let robot = world.join_with(request);
    announce(&mut world, &robot);
    assert!(is_answered(&mut world, &robot), "another SDK");
    let fresh = world.join_active("fresh");
    announce(&mut world, &fresh);
    assert!(is_answered(&mut world, &fresh), "a new page");
    let mut alice = come_back(&mut world, "alice", Company::default());
    republish(&mut world, &mut alice);
    let waited = until(&mut world, &mut [&mut alice], |world, clients| is_answered(world, clients[0]));
    assert!(waited <= 1300 * MS, "{waited:?}");
}
