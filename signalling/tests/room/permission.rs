//! What the server API changes about participants.

use livekit_protocol as proto;
use proto::signal_response::Message;
use signalling::media::MediaCommand;
use signalling::room::Config;
use signalling::room::api::{AdminAnswer, AdminError, AdminRequest};

use crate::world::{World, params};

fn all() -> proto::ParticipantPermission {
    proto::ParticipantPermission {
        can_subscribe: true,
        can_publish: true,
        can_publish_data: true,
        ..Default::default()
    }
}

fn update(identity: &str, permission: proto::ParticipantPermission) -> AdminRequest {
    let permission = Some(permission);
    AdminRequest::UpdateParticipant(Box::new(proto::UpdateParticipantRequest {
        identity: identity.into(),
        permission,
        ..Default::default()
    }))
}

#[test]
fn losing_the_right_to_publish_ends_the_tracks() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    let sid = world.publish_camera(&mut alice);
    let bob = world.join_active("bob");
    world.tokens.clear();
    world.admin(update("alice", proto::ParticipantPermission { can_publish: false, ..all() })).unwrap();
    let unpublished = world.find(&alice, |message| match message {
        Message::TrackUnpublished(unpublished) => Some(unpublished.track_sid.clone()),
        _ => None,
    });
    assert_eq!(unpublished, sid);
    assert!(world.media.iter().any(|command| matches!(command, MediaCommand::Unpublish { .. })));
    assert!(!world.tokens[0].1.can_publish);
    let permission = world.find(&alice, |message| match message {
        Message::Update(update) => {
            update.participants[0].permission.clone().filter(|permission| !permission.can_publish)
        }
        _ => None,
    });
    assert!(permission.can_subscribe);
    assert!(world.unread(&bob).contains(&"update"));
}

#[test]
fn losing_and_regaining_the_right_to_subscribe() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    world.publish_camera(&mut alice);
    let mut bob = world.join_active("bob");
    world.admin(update("bob", proto::ParticipantPermission { can_subscribe: false, ..all() })).unwrap();
    assert!(world.media.iter().any(|command| matches!(command, MediaCommand::Unsubscribe { .. })));
    world.offer(&mut bob);
    world.admin(update("bob", all())).unwrap();
    let before = world.media.len();
    world.offer(&mut bob);
    assert!(world.media[before..].iter().any(|command| matches!(command, MediaCommand::Subscribe { .. })));
}

#[test]
fn becoming_hidden_looks_like_leaving() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    world.publish_camera(&mut alice);
    let bob = world.join_active("bob");
    world.admin(update("alice", proto::ParticipantPermission { hidden: true, ..all() })).unwrap();
    let state = world.find(&bob, |message| match message {
        Message::Update(update) => Some(update.participants[0].state),
        _ => None,
    });
    assert_eq!(state, proto::participant_info::State::Disconnected as i32);
    assert!(world.media.iter().any(|command| matches!(command, MediaCommand::Unsubscribe { .. })));
}

#[test]
fn the_server_mutes_by_telling_the_client_first() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    let sid = world.publish_microphone(&mut alice);
    world.drain(&alice);
    let mute = |muted| AdminRequest::MuteTrack { identity: "alice".into(), track_sid: sid.clone(), muted };
    let answer = world.admin(mute(true)).unwrap();
    assert!(matches!(answer, AdminAnswer::Track(track) if track.muted));
    assert_eq!(world.unread(&alice), ["mute", "update"]);
    assert!(matches!(world.admin(mute(false)), Err(AdminError::Precondition(_))));
    let mut lenient = World::with(params(), Config { enable_remote_unmute: true, ..Default::default() });
    let mut alice = lenient.join_active("alice");
    let sid = lenient.publish_microphone(&mut alice);
    let unmute = AdminRequest::MuteTrack { identity: "alice".into(), track_sid: sid, muted: false };
    assert!(lenient.admin(unmute).is_ok());
}

#[test]
fn rooms_and_participants_can_be_looked_at() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    world.publish_camera(&mut alice);
    let Ok(AdminAnswer::Room(room)) = world.admin(AdminRequest::GetRoom) else { panic!() };
    assert_eq!((room.num_participants, room.num_publishers), (1, 1));
    let Ok(AdminAnswer::Participants(list)) = world.admin(AdminRequest::ListParticipants) else { panic!() };
    assert_eq!(list[0].tracks.len(), 1);
    assert!(matches!(world.admin(AdminRequest::GetParticipant("nobody".into())), Err(AdminError::NotFound(_))));
    let Ok(AdminAnswer::Debug(debug)) = world.admin(AdminRequest::Debug) else { panic!() };
    assert!(!debug.to_string().contains("alice"), "no identities in what operators see");
    world.admin(AdminRequest::UpdateRoomMetadata("topic".into())).unwrap();
    let metadata = world.find(&alice, |message| match message {
        Message::RoomUpdate(update) => Some(update.room.clone().unwrap().metadata),
        _ => None,
    });
    assert_eq!(metadata, "topic");
}
