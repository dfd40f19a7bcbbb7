//! Coming in.

use std::time::Duration;

use livekit_protocol as proto;
use proto::signal_response::Message;
use signalling::media::MediaCommand;
use signalling::room::api::{Generation, Input, Notice, Refusal};

use crate::sdp::{Section, outline};
use crate::world::{World, grants, join_request};

#[test]
fn greets_in_the_order_clients_rely_on() {
    let mut world = World::new();
    let alice = world.join("alice");
    // The token comes by its own output; the answer to the offer inside the join follows.
    assert_eq!(world.tokens[0].0, alice.connection);
    let unread = world.drain(&alice);
    let kinds: Vec<_> = unread.iter().map(crate::world::name).collect();
    assert_eq!(kinds, ["answer", "trickle", "trickle"]);
    let Message::Answer(answer) = &unread[0] else { panic!() };
    assert_eq!((answer.id, answer.r#type.as_str()), (1, "answer"));
    let [.., Message::Trickle(first), Message::Trickle(last)] = unread.as_slice() else { panic!() };
    assert!(!first.r#final && last.r#final);
    let candidate: serde_json::Value = serde_json::from_str(&last.candidate_init).unwrap();
    assert!(candidate["candidate"].as_str().unwrap().starts_with("candidate:2"));
    assert_eq!(candidate["sdpMLineIndex"], 0);
}

#[test]
fn tells_a_newcomer_everything_it_needs() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let connection = world.connection();
    let request = Box::new(join_request("bob", Generation::V0));
    world.input(Input::Join { connection, request });
    let Some(Message::Join(join)) = world.inboxes.get_mut(&connection).unwrap().pop_front() else { panic!() };
    let room = join.room.unwrap();
    assert!(room.sid.starts_with("RM_") && room.name == "lobby");
    assert_eq!((room.empty_timeout, room.departure_timeout), (300, 20));
    assert!(join.participant.unwrap().sid.starts_with("PA_"));
    assert_eq!(join.other_participants.len(), 1);
    assert_eq!(join.other_participants[0].sid, alice.sid);
    assert!(join.subscriber_primary && join.fast_publish);
    assert_eq!((join.ping_interval, join.ping_timeout), (2, 5));
    assert!(!join.sif_trailer.is_empty());
    assert!(!join.server_info.unwrap().version.is_empty() && !join.server_version.is_empty());
    let codecs: Vec<_> = join.enabled_publish_codecs.iter().map(|codec| codec.mime.as_str()).collect();
    assert!(codecs.contains(&"video/vp8") && codecs.contains(&"audio/opus"));
    assert!(join.alternative_url.is_empty());
}

#[test]
fn is_active_once_media_connects() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let bob = world.join("bob");
    assert!(
        !world
            .notices
            .iter()
            .any(|notice| matches!(notice, Notice::ParticipantJoined(_, info) if info.identity == "bob"))
    );
    world.connect(&bob);
    assert!(
        world
            .notices
            .iter()
            .any(|notice| matches!(notice, Notice::ParticipantJoined(_, info) if info.identity == "bob"))
    );
    world.advance(Duration::from_secs(1));
    let state = world.find(&alice, |message| match message {
        Message::Update(update) => update.participants.iter().find(|info| info.sid == bob.sid).map(|info| info.state),
        _ => None,
    });
    assert_eq!(state, proto::participant_info::State::Active as i32);
}

#[test]
fn removes_who_never_connects() {
    let mut world = World::new();
    let alice = world.join("alice");
    world.advance(Duration::from_secs(59));
    assert!(world.closed.is_empty());
    world.advance(Duration::from_secs(2));
    let reason = world.find(&alice, |message| match message {
        Message::Leave(leave) => Some((leave.reason, leave.action)),
        _ => None,
    });
    assert_eq!(reason, (proto::DisconnectReason::JoinFailure as i32, 0));
    assert!(world.notices.iter().any(|notice| matches!(notice, Notice::ParticipantAborted(..))));
}

#[test]
fn refuses_what_the_token_does_not_allow() {
    let mut world = World::new();
    let mut attempts = Vec::new();
    let mut attempt = |change: &dyn Fn(&mut signalling::room::api::JoinRequest)| {
        let mut request = join_request("alice", Generation::V1);
        change(&mut request);
        attempts.push(request);
    };
    attempt(&|request| request.grants.room_join = false);
    attempt(&|request| request.grants.identity.clear());
    attempt(&|request| request.grants.identity = "x".repeat(257));
    attempt(&|request| {
        request.metadata = "m".into();
        request.grants.can_update_own_metadata = false;
    });
    for request in attempts {
        let connection = world.connection();
        world.input(Input::Join { connection, request: Box::new(request) });
        assert!(!world.inboxes.contains_key(&connection));
    }
    let kinds: Vec<_> = world.refused.iter().map(|(_, refusal)| *refusal).collect();
    assert!(matches!(
        kinds[..],
        [Refusal::Unauthorized(_), Refusal::BadRequest(_), Refusal::BadRequest(_), Refusal::Unauthorized(_)]
    ));
}

#[test]
fn tracks_that_are_there_ride_in_the_first_answer() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    let camera = world.publish_camera(&mut alice);
    let bob = world.join("bob");
    let answer = world.find(&bob, |message| match message {
        Message::Answer(answer) => Some(answer.clone()),
        _ => None,
    });
    assert_eq!(answer.mid_to_track_id.get("4"), Some(&camera));
    let sections = outline(&answer.sdp);
    assert_eq!(sections[4].1, "sendonly");
    assert_eq!(sections[4].2.as_deref(), Some(format!("{}|camera {camera}", alice.sid).as_str()));
    assert!(world.media.iter().any(|command| matches!(command, MediaCommand::Subscribe { .. })));
    assert!(!world.unread(&bob).contains(&"sections"));
}

#[test]
fn refreshes_tokens_every_five_minutes() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.tokens.clear();
    world.advance(Duration::from_secs(601));
    assert_eq!(world.tokens.len(), 2);
    assert_eq!(world.tokens[0], (alice.connection, grants("alice")));
}

#[test]
fn the_second_login_replaces_the_first() {
    let mut world = World::new();
    let mut first = world.join_active("alice");
    world.publish_camera(&mut first);
    let bob = world.join_active("bob");
    let second = world.join("alice");
    let leave = world.find(&first, |message| match message {
        Message::Leave(leave) => Some((leave.reason, leave.action)),
        _ => None,
    });
    assert_eq!(leave, (proto::DisconnectReason::DuplicateIdentity as i32, 0));
    assert!(world.closed.contains(&first.connection));
    assert_ne!(first.sid, second.sid);
    // Bob sees the new sid at once and no farewell, which he would take for the new one.
    let states: Vec<_> = world
        .drain(&bob)
        .into_iter()
        .filter_map(|message| match message {
            Message::Update(update) => Some(update.participants),
            _ => None,
        })
        .flatten()
        .map(|info| (info.sid, info.state))
        .collect();
    let states: Vec<_> = states.into_iter().filter(|(sid, _)| *sid != bob.sid).collect();
    assert_eq!(states, [(second.sid, proto::participant_info::State::Joined as i32)]);
}

#[test]
fn hidden_participants_are_seen_by_nobody() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let mut request = join_request("spy", Generation::V1);
    request.grants.hidden = true;
    let mut spy = world.join_with(request);
    spy.sections = vec![Section::channels()];
    world.offer(&mut spy);
    world.connect(&spy);
    world.advance(Duration::from_secs(10));
    let told = world.drain(&alice);
    let seen = told.iter().any(|message| format!("{message:?}").contains(&spy.sid));
    assert!(!seen);
    let bob = world.join("bob");
    assert!(!format!("{:?}", world.drain(&bob)).contains(&spy.sid));
}
