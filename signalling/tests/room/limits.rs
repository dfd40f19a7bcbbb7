//! Bounds that a client runs into.

use livekit_protocol as proto;
use proto::request_response::Reason;
use proto::signal_request::Message as Ask;
use proto::signal_response::Message;
use signalling::media::MediaCommand;
use signalling::room::Config;
use signalling::room::api::{Generation, Input, Refusal};

use crate::world::{Client, World, add_track, join_request, params};

fn refusals(world: &mut World, client: &Client) -> Vec<Reason> {
    let mut all = Vec::new();
    while let Some(reason) = world.try_find(client, |message| match message {
        Message::RequestResponse(response) => Some(response.reason),
        _ => None,
    }) {
        all.push(Reason::try_from(reason).unwrap());
    }
    all
}

#[test]
fn a_full_room_refuses_but_lets_a_member_back() {
    let mut world =
        World::with(signalling::room::api::RoomParams { max_participants: 2, ..params() }, Config::default());
    world.join_active("alice");
    world.join_active("bob");
    let connection = world.connection();
    world.input(Input::Join { connection, request: Box::new(join_request("carol", Generation::V1)) });
    assert!(matches!(world.refused[..], [(_, Refusal::Unavailable(_))]));
    world.join_active("alice");
}

#[test]
fn announcements_are_bounded() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    for index in 0..25 {
        let request = add_track(&format!("mic-{index}"), proto::TrackType::Audio, proto::TrackSource::Microphone);
        world.say(&alice, Ask::AddTrack(request));
    }
    assert_eq!(refusals(&mut world, &alice), [Reason::LimitExceeded; 5]);
    for index in 0..5 {
        let _ = index;
        let request = add_track("mic-0", proto::TrackType::Audio, proto::TrackSource::Microphone);
        world.say(&alice, Ask::AddTrack(request));
    }
    assert_eq!(refusals(&mut world, &alice), [Reason::LimitExceeded; 5]);
}

#[test]
fn one_device_may_queue_three_times() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    for _ in 0..5 {
        let request = add_track("mic", proto::TrackType::Audio, proto::TrackSource::Microphone);
        world.say(&alice, Ask::AddTrack(request));
    }
    let expected = [Reason::Queued, Reason::Queued, Reason::Queued, Reason::LimitExceeded];
    assert_eq!(refusals(&mut world, &alice), expected);
}

#[test]
fn profiles_are_bounded() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let update = |name: String, metadata: String, value: String| {
        let attributes = [("key".to_owned(), value)].into_iter().collect();
        Ask::UpdateMetadata(proto::UpdateParticipantMetadata { name, metadata, attributes, request_id: 9 })
    };
    world.say(&alice, update("x".repeat(257), String::new(), String::new()));
    world.say(&alice, update(String::new(), "x".repeat((512 << 10) + 1), String::new()));
    world.say(&alice, update(String::new(), String::new(), "x".repeat(64 << 10)));
    world.say(&alice, update("Alice".into(), "meta".into(), "value".into()));
    let expected = [Reason::LimitExceeded, Reason::LimitExceeded, Reason::LimitExceeded, Reason::Ok];
    assert_eq!(refusals(&mut world, &alice), expected);
}

#[test]
fn a_flood_of_requests_is_refused_then_ends() {
    let mut config = Config::default();
    (config.limits.signal_rate, config.limits.signal_burst) = (10, 100);
    let mut world = World::with(params(), config);
    let alice = world.join_active("alice");
    let bob = world.join_active("bob");
    for _ in 0..150 {
        world.say(&alice, Ask::Ping(1));
    }
    let pongs = world.unread(&alice).iter().filter(|name| **name == "pong").count();
    assert_eq!(pongs, 100);
    assert_eq!(refusals(&mut world, &alice), [Reason::LimitExceeded]);
    for _ in 0..1000 {
        world.say(&alice, Ask::Ping(1));
    }
    assert!(world.closed.contains(&alice.connection));
    world.say(&bob, Ask::Ping(1));
    assert!(world.unread(&bob).contains(&"pong"));
}

#[test]
fn subscriptions_are_bounded_by_kind() {
    let mut config = Config::default();
    config.limits.video_subscriptions = 1;
    let mut world = World::with(params(), config);
    for name in ["alice", "carol"] {
        let mut publisher = world.join_active(name);
        world.publish_camera(&mut publisher);
        world.publish_microphone(&mut publisher);
    }
    let before = world.media.len();
    world.join_active("bob");
    let subscribed =
        world.media[before..].iter().filter(|command| matches!(command, MediaCommand::Subscribe { .. })).count();
    assert_eq!(subscribed, 3, "one camera, two microphones");
}

#[test]
fn a_description_that_is_none_sends_the_client_round() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.say(&alice, Ask::Offer(crate::world::session("offer", "v=0\r\nnonsense".into(), 2)));
    let action = world.find(&alice, |message| match message {
        Message::Leave(leave) => Some(leave.action),
        _ => None,
    });
    assert_eq!(action, 2);
}

#[test]
fn old_clients_are_sent_nothing_they_cannot_read() {
    let mut world = World::new();
    let mut request = join_request("old", Generation::V0);
    request.client.protocol = 9;
    let old = world.join_with(request);
    world.say(&old, Ask::Mute(proto::MuteTrackRequest { sid: "TR_x".into(), muted: true }));
    assert!(!world.unread(&old).contains(&"request_response"));
}
