//! Going, and being told to come back.

use std::sync::Arc;
use std::time::Duration;

use livekit_protocol as proto;
use proto::DisconnectReason as Reason;
use proto::signal_request::Message as Ask;
use proto::signal_response::Message;
use signalling::media::{MediaCommand, MediaEvent};
use signalling::room::api::{AdminRequest, Input, MediaPlace, Notice, Refusal};

use crate::world::{Client, World};

const RECONNECT: i32 = 2;
const DISCONNECT: i32 = 0;

fn leave_of(world: &mut World, client: &Client) -> Option<(i32, i32)> {
    world.try_find(client, |message| match message {
        Message::Leave(leave) => Some((leave.reason, leave.action)),
        _ => None,
    })
}

fn reasons(world: &World) -> Vec<i32> {
    let left = world.notices.iter().filter_map(|notice| match notice {
        Notice::ParticipantLeft(_, info) => Some(info.disconnect_reason),
        _ => None,
    });
    left.collect()
}

fn goodbye() -> Ask {
    Ask::Leave(proto::LeaveRequest { reason: Reason::ClientInitiated.into(), ..Default::default() })
}

#[test]
fn hanging_up_is_seen_at_once() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    world.publish_camera(&mut alice);
    let bob = world.join_active("bob");
    world.say(&alice, goodbye());
    assert!(world.closed.contains(&alice.connection));
    assert_eq!(reasons(&world), [Reason::ClientInitiated as i32]);
    let gone = world.find(&bob, |message| match message {
        Message::Update(update) => Some((update.participants[0].sid.clone(), update.participants[0].state)),
        _ => None,
    });
    assert_eq!(gone, (alice.sid, 3));
    assert!(world.media.iter().any(|command| matches!(command, MediaCommand::RemoveParticipant { .. })));
}

#[test]
fn a_lost_websocket_keeps_the_session_while_media_lives() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.close(&alice);
    world.advance(Duration::from_secs(120));
    assert!(reasons(&world).is_empty());
    let transport = world.transports(&alice)[0];
    world.event(MediaEvent::TransportFailed { transport, reason: "silent", closed_by_peer: false });
    world.advance(Duration::from_secs(4));
    assert!(reasons(&world).is_empty());
    world.advance(Duration::from_secs(2));
    assert_eq!(reasons(&world), [Reason::ConnectionTimeout as i32]);
}

#[test]
fn a_lost_websocket_before_media_ends_the_session_soon() {
    let mut world = World::new();
    let alice = world.join("alice");
    world.close(&alice);
    world.advance(Duration::from_secs(3));
    let aborted = world.notices.iter().find_map(|notice| match notice {
        Notice::ParticipantAborted(_, info) => Some(info.disconnect_reason),
        _ => None,
    });
    assert_eq!(aborted, Some(Reason::SignalClose as i32));
}

#[test]
fn a_closed_tab_is_seen_within_seconds() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let transport = world.transports(&alice)[0];
    world.event(MediaEvent::TransportFailed { transport, reason: "closed", closed_by_peer: true });
    world.close(&alice);
    world.advance(Duration::from_secs(3));
    assert_eq!(reasons(&world).len(), 1);
}

#[test]
fn dead_media_with_live_signalling_is_told_at_once() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let transport = world.transports(&alice)[0];
    world.event(MediaEvent::TransportFailed { transport, reason: "silent", closed_by_peer: false });
    assert_eq!(leave_of(&mut world, &alice).map(|leave| leave.1), Some(RECONNECT));
    // The client says goodbye on the old connection and joins again: no hang-up.
    world.advance(Duration::from_millis(300));
    world.say(&alice, goodbye());
    assert!(reasons(&world).is_empty());
    let again = world.join("alice");
    assert_ne!(again.sid, alice.sid);
    assert_eq!(reasons(&world), [Reason::ConnectionTimeout as i32]);
}

#[test]
fn whoever_does_not_come_back_is_forgotten() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let transport = world.transports(&alice)[0];
    world.event(MediaEvent::TransportFailed { transport, reason: "silent", closed_by_peer: false });
    world.advance(Duration::from_secs(6));
    assert_eq!(reasons(&world), [Reason::ConnectionTimeout as i32]);
    assert!(world.closed.contains(&alice.connection));
}

#[test]
fn a_goodbye_just_after_the_media_closed_is_a_hang_up() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let transport = world.transports(&alice)[0];
    world.event(MediaEvent::TransportFailed { transport, reason: "closed", closed_by_peer: true });
    world.advance(Duration::from_millis(200));
    assert_eq!(leave_of(&mut world, &alice), None);
    world.say(&alice, goodbye());
    assert_eq!(reasons(&world), [Reason::ClientInitiated as i32]);
}

#[test]
fn draining_moves_everybody_and_ends_the_room() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let bob = world.join_active("bob");
    world.input(Input::Drain);
    for client in [&alice, &bob] {
        assert_eq!(leave_of(&mut world, client), Some((Reason::ServerShutdown as i32, RECONNECT)));
    }
    let connection = world.connection();
    let request = crate::world::join_request("late", signalling::room::api::Generation::V1);
    world.input(Input::Join { connection, request: Box::new(request) });
    assert!(matches!(world.refused[..], [(_, Refusal::Unavailable(_))]));
    world.advance(Duration::from_secs(6));
    assert!(world.ended);
    assert!(!reasons(&world).contains(&(Reason::ClientInitiated as i32)));
}

#[test]
fn a_dead_media_thread_sends_everybody_round_again() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    world.publish_camera(&mut alice);
    world.input(Input::MediaLost);
    assert_eq!(leave_of(&mut world, &alice).map(|leave| leave.1), Some(RECONNECT));
    let again = world.join_active("alice");
    assert_ne!(again.sid, alice.sid);
    assert!(!world.ended);
}

#[test]
fn one_dead_media_thread_of_several_sends_round_those_who_were_on_it() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let place = MediaPlace { ufrag_prefix: "0z".into(), candidates: vec!["candidate:other".into()] };
    world.room.set_place(Arc::new(place));
    let bob = world.join_active("bob");
    let participants = vec![world.room.participant("bob").unwrap()];
    world.input(Input::MediaLostOf { participants });
    assert_eq!(leave_of(&mut world, &bob).map(|leave| leave.1), Some(RECONNECT));
    assert_eq!(leave_of(&mut world, &alice), None);
    assert!(world.room.has_participant("alice") && !world.room.has_participant("bob"));
    let again = world.join_active("bob");
    assert_ne!(again.sid, bob.sid);
}

#[test]
fn removal_is_final() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let remove = AdminRequest::RemoveParticipant { identity: "alice".into(), reason: Reason::ParticipantRemoved };
    world.admin(remove).unwrap();
    assert_eq!(leave_of(&mut world, &alice), Some((Reason::ParticipantRemoved as i32, DISCONNECT)));
    assert!(world.closed.contains(&alice.connection));
    assert!(world.admin(AdminRequest::GetParticipant("alice".into())).is_err());
}

#[test]
fn old_clients_read_whether_to_come_back() {
    let mut world = World::new();
    let mut request = crate::world::join_request("old", signalling::room::api::Generation::V0);
    request.client.protocol = 12;
    let old = world.join_with(request);
    world.input(Input::Drain);
    let can_reconnect = world.find(&old, |message| match message {
        Message::Leave(leave) => Some(leave.can_reconnect),
        _ => None,
    });
    assert!(can_reconnect);
}

#[test]
fn a_room_ends_when_nobody_comes_or_comes_back() {
    let mut world = World::new();
    world.advance(Duration::from_secs(299));
    assert!(!world.ended);
    let alice = world.join_active("alice");
    world.advance(Duration::from_secs(600));
    assert!(!world.ended);
    world.say(&alice, goodbye());
    world.advance(Duration::from_secs(19));
    let again = world.join_active("alice");
    world.advance(Duration::from_secs(60));
    world.say(&again, goodbye());
    world.advance(Duration::from_secs(21));
    assert!(world.ended);
    assert!(matches!(world.notices.last(), Some(Notice::RoomFinished(_))));
    let started = world.notices.iter().filter(|notice| matches!(notice, Notice::RoomStarted(_))).count();
    assert_eq!(started, 1);
    assert_eq!(world.room.next_timeout(), None);

    let mut lonely = World::new();
    lonely.advance(Duration::from_secs(301));
    assert!(lonely.ended);
}

#[test]
fn deleting_a_room_tells_everybody() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.admin(AdminRequest::DeleteRoom).unwrap();
    assert_eq!(leave_of(&mut world, &alice), Some((Reason::RoomDeleted as i32, DISCONNECT)));
    assert!(world.ended);
}
