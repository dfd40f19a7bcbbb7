//! Coming back with the transports kept.

use std::time::Duration;

use livekit_protocol as proto;
use proto::signal_request::Message as Ask;
use proto::signal_response::Message;
use signalling::media::{MediaCommand, MediaEvent};
use signalling::room::api::{ConnectionId, Generation, Input};

use crate::world::{Client, World, join_request};

fn resume(world: &mut World, client: &Client, generation: Generation) -> ConnectionId {
    let connection = world.connection();
    let mut request = join_request(&client.identity, generation);
    request.reconnect = true;
    request.participant_sid = client.sid.clone();
    world.input(Input::Join { connection, request: Box::new(request) });
    connection
}

/// Resumes and reads the first message.
pub(crate) fn come_back(world: &mut World, client: &Client) -> Client {
    let again = Client { connection: resume(world, client, Generation::V1), ..client.clone() };
    let first = world.inboxes.get_mut(&again.connection).unwrap().pop_front();
    assert!(matches!(first, Some(Message::Reconnect(_))), "{first:?}");
    again
}

fn sync(world: &mut World, client: &Client, state: proto::SyncState) {
    world.say(client, Ask::SyncState(state));
}

#[test]
fn a_resumed_client_is_told_all_it_missed_in_order() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    let sid = world.publish_camera(&mut alice);
    let bob = world.join_active("bob");
    world.close(&bob);
    world.say(&alice, Ask::Mute(proto::MuteTrackRequest { sid, muted: true }));
    let carol = world.join_active("carol");
    let before = world.media.len();
    let bob = come_back(&mut world, &bob);
    let told = world.drain(&bob);
    let kinds: Vec<_> = told.iter().map(crate::world::name).collect();
    assert_eq!(kinds[..2], ["update", "room_update"]);
    let Message::Update(update) = &told[0] else { panic!() };
    let mut sids: Vec<_> = update.participants.iter().map(|info| info.sid.as_str()).collect();
    sids.sort_unstable();
    let mut expected = [alice.sid.as_str(), bob.sid.as_str(), carol.sid.as_str()];
    expected.sort_unstable();
    assert_eq!(sids, expected);
    let of_alice = update.participants.iter().find(|info| info.sid == alice.sid).unwrap();
    assert!(of_alice.tracks[0].muted);
    // The media plane noticed nothing.
    assert_eq!(world.media.len(), before);
    assert_eq!(world.tokens.last().unwrap().0, bob.connection);
}

#[test]
fn a_resumed_client_learns_who_left_meanwhile() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let bob = world.join_active("bob");
    world.close(&bob);
    world.say(&alice, Ask::Leave(proto::LeaveRequest::default()));
    world.advance(Duration::from_secs(30));
    let bob = come_back(&mut world, &bob);
    let told = world.drain(&bob);
    let Message::Update(farewell) = &told[0] else { panic!("{told:?}") };
    assert_eq!((farewell.participants[0].sid.as_str(), farewell.participants[0].state), (alice.sid.as_str(), 3));
}

#[test]
fn the_older_connection_of_a_resumed_client_is_closed() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let again = come_back(&mut world, &alice);
    assert!(world.closed.contains(&alice.connection));
    world.close(&alice);
    world.say(&again, Ask::Ping(1));
    assert!(world.unread(&again).contains(&"pong"));
}

#[test]
fn an_unknown_session_is_sent_round_with_its_first_message() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let stranger = Client { identity: "stranger".into(), ..alice.clone() };
    let stale = Client { sid: "PA_older".into(), ..alice.clone() };
    for client in [stranger, stale] {
        let connection = resume(&mut world, &client, Generation::V1);
        let inbox = &world.inboxes[&connection];
        let [Message::Leave(leave)] = inbox.iter().collect::<Vec<_>>()[..] else { panic!("{inbox:?}") };
        assert_eq!((leave.reason, leave.action), (proto::DisconnectReason::StateMismatch as i32, 2));
        assert!(world.closed.contains(&connection));
    }
    // Alice is not disturbed.
    world.say(&alice, Ask::Ping(1));
    assert!(world.unread(&alice).contains(&"pong"));
}

#[test]
fn dead_media_cannot_be_resumed() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.close(&alice);
    let transport = world.transports(&alice)[0];
    world.event(MediaEvent::TransportFailed { transport, reason: "silent", closed_by_peer: false });
    let connection = resume(&mut world, &alice, Generation::V1);
    assert!(matches!(world.inboxes[&connection].front(), Some(Message::Leave(_))));
}

#[test]
fn the_restarting_offer_after_a_resume_is_answered() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    world.publish_camera(&mut alice);
    world.close(&alice);
    world.advance(Duration::from_secs(3));
    let mut alice = come_back(&mut world, &alice);
    sync(&mut world, &alice, proto::SyncState::default());
    alice.ufrag = "restarted".into();
    world.offer(&mut alice);
    assert!(world.unread(&alice).contains(&"answer"));
    assert!(world.media.iter().any(|command| matches!(command, MediaCommand::RestartIce { .. })));
    assert!(!world.media.iter().any(|command| matches!(command, MediaCommand::Unpublish { .. })));
}

#[test]
fn subscriptions_follow_the_synced_state() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    let sid = world.publish_camera(&mut alice);
    let bob = world.join_active("bob");
    let bob = come_back(&mut world, &bob);
    let unsubscribed =
        proto::UpdateSubscription { track_sids: vec![sid.clone()], subscribe: false, ..Default::default() };
    sync(&mut world, &bob, proto::SyncState { subscription: Some(unsubscribed), ..Default::default() });
    assert!(matches!(world.media.last(), Some(MediaCommand::Unsubscribe { .. })));
    let carol = world.join_active("carol");
    let carol = come_back(&mut world, &carol);
    let state = proto::SyncState {
        subscription: Some(proto::UpdateSubscription::default()),
        track_sids_disabled: vec![sid],
        ..Default::default()
    };
    sync(&mut world, &carol, state);
    let Some(MediaCommand::SetDemand { demand, .. }) = world.media.last() else { panic!() };
    assert!(!demand.enabled);
}

#[test]
fn a_track_nobody_knows_needs_a_new_join() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let alice = come_back(&mut world, &alice);
    let track = proto::TrackInfo { sid: "TR_gone".into(), ..Default::default() };
    let published = proto::TrackPublishedResponse { cid: "x".into(), track: Some(track) };
    sync(&mut world, &alice, proto::SyncState { publish_tracks: vec![published], ..Default::default() });
    let action = world.find(&alice, |message| match message {
        Message::Leave(leave) => Some(leave.action),
        _ => None,
    });
    assert_eq!(action, 2);
}

#[test]
fn failures_are_played_on_request() {
    use proto::simulate_scenario::Scenario;
    let mut world = World::new();
    let alice = world.join_active("alice");
    let simulate = |scenario| Ask::Simulate(proto::SimulateScenario { scenario: Some(scenario) });
    world.say(&alice, simulate(Scenario::DisconnectSignalOnResumeNoMessages(true)));
    let connection = resume(&mut world, &alice, Generation::V1);
    assert!(!world.inboxes.contains_key(&connection) && world.closed.contains(&connection));
    let alice = come_back(&mut world, &alice);
    world.say(&alice, simulate(Scenario::SubscriberBandwidth(100_000)));
    assert!(matches!(world.media.last(), Some(MediaCommand::CapBitrate { bps: Some(100_000), .. })));
    world.say(&alice, simulate(Scenario::LeaveRequestFullReconnect(true)));
    assert!(world.unread(&alice).contains(&"leave"));
}
