//! Getting tracks, choosing sizes, being let.

use std::time::Duration;

use livekit_protocol as proto;
use proto::signal_request::Message as Ask;
use proto::signal_response::Message;
use signalling::media::{Demand, MediaCommand, MediaEvent, TrackId};
use signalling::room::api::Generation;

use crate::sdp::Section;
use crate::world::{Client, World, add_track, join_request};

fn settings(sid: &str) -> proto::UpdateTrackSettings {
    proto::UpdateTrackSettings { track_sids: vec![sid.into()], quality: 2, ..Default::default() }
}

fn demands(world: &World) -> Vec<Demand> {
    let demands = world.media.iter().filter_map(|command| match command {
        MediaCommand::SetDemand { demand, .. } => Some(*demand),
        _ => None,
    });
    demands.collect()
}

fn sections_asked(world: &mut World, client: &Client) -> Option<(u32, u32)> {
    world.try_find(client, |message| match message {
        Message::MediaSectionsRequirement(needed) => Some((needed.num_audios, needed.num_videos)),
        _ => None,
    })
}

/// Alice publishes a camera, bob is there and gets it.
fn watching() -> (World, Client, Client, String) {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    let sid = world.publish_camera(&mut alice);
    let bob = world.join_active("bob");
    (world, alice, bob, sid)
}

#[test]
fn asks_for_as_many_sections_as_are_missing() {
    let mut world = World::new();
    let mut publishers = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        let mut publisher = world.join_active(name);
        world.publish_camera(&mut publisher);
        publishers.push(publisher);
    }
    let mut bob = world.join("bob");
    assert_eq!(sections_asked(&mut world, &bob), Some((0, 2)), "three of five fit");
    world.drain(&bob);
    bob.sections.extend([Section::receiving("video"), Section::receiving("video")]);
    world.offer(&mut bob);
    let mids = world.find(&bob, |message| match message {
        Message::Answer(answer) => Some(answer.mid_to_track_id.len()),
        _ => None,
    });
    assert_eq!(mids, 5);
    assert_eq!(sections_asked(&mut world, &bob), None);
    // One goes: its section is answered inactive once, then free for the next one.
    world.close(&publishers[0]);
    world.say(&publishers[1], Ask::Leave(proto::LeaveRequest::default()));
    world.advance(Duration::from_millis(200));
    assert_eq!(sections_asked(&mut world, &bob), Some((0, 0)));
    world.offer(&mut bob);
    world.drain(&bob);
    let mut late = world.join_active("late");
    world.publish_camera(&mut late);
    world.advance(Duration::from_millis(200));
    assert_eq!(sections_asked(&mut world, &bob), Some((0, 0)), "the old section will do");
    world.offer(&mut bob);
    let mids = world.find(&bob, |message| match message {
        Message::Answer(answer) => Some(answer.mid_to_track_id.len()),
        _ => None,
    });
    assert_eq!(mids, 5);
}

#[test]
fn sections_are_not_asked_for_twice() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    let mut request = join_request("bob", Generation::V1);
    request.client.browser = "Firefox".into();
    let mut bob = world.join_with(request);
    bob.sections = vec![Section::channels()];
    world.offer(&mut bob);
    world.drain(&bob);
    world.publish_camera(&mut alice);
    world.advance(Duration::from_millis(20));
    assert_eq!(sections_asked(&mut world, &bob), Some((0, 1)));
    world.publish_microphone(&mut alice);
    world.advance(Duration::from_secs(1));
    assert_eq!(sections_asked(&mut world, &bob), Some((1, 0)));
    assert_eq!(sections_asked(&mut world, &bob), None);
}

#[test]
fn unsubscribing_ends_the_downtrack_and_subscribing_brings_it_back() {
    let (mut world, _, mut bob, sid) = watching();
    let change = |subscribe| {
        Ask::Subscription(proto::UpdateSubscription { track_sids: vec![sid.clone()], subscribe, ..Default::default() })
    };
    world.say(&bob, change(false));
    assert!(matches!(world.media.last(), Some(MediaCommand::Unsubscribe { .. })));
    world.advance(Duration::from_millis(20));
    assert_eq!(sections_asked(&mut world, &bob), Some((0, 0)));
    world.offer(&mut bob);
    world.drain(&bob);
    world.say(&bob, change(true));
    world.advance(Duration::from_millis(200));
    assert_eq!(sections_asked(&mut world, &bob), Some((0, 0)));
    let before = world.media.len();
    world.offer(&mut bob);
    assert!(world.media[before..].iter().any(|command| matches!(command, MediaCommand::Subscribe { .. })));
}

#[test]
fn a_wish_for_an_unknown_track_is_kept_a_minute() {
    let mut world = World::new();
    let mut request = join_request("bob", Generation::V1);
    request.auto_subscribe = false;
    let mut bob = world.join_with(request);
    bob.sections = vec![Section::channels()];
    world.offer(&mut bob);
    let tracks = proto::ParticipantTracks { participant_sid: "PA_x".into(), track_sids: vec!["TR_later".into()] };
    let wish = proto::UpdateSubscription { participant_tracks: vec![tracks], subscribe: true, ..Default::default() };
    world.say(&bob, Ask::Subscription(wish));
    world.connect(&bob);
    world.advance(Duration::from_secs(59));
    assert!(!world.unread(&bob).contains(&"subscription_response"));
    world.advance(Duration::from_secs(2));
    let response = world.try_find(&bob, |message| match message {
        Message::SubscriptionResponse(response) => Some((response.track_sid.clone(), response.err)),
        _ => None,
    });
    assert_eq!(response, Some(("TR_later".into(), proto::SubscriptionError::SeTrackNotfound as i32)));
}

#[test]
fn size_chooses_the_layer_by_height() {
    let (mut world, _, bob, sid) = watching();
    let mut seen = Vec::new();
    for (width, height) in [(320, 180), (356, 200), (480, 270), (640, 380), (1280, 720), (4000, 3000)] {
        let size = proto::UpdateTrackSettings { width, height, ..settings(&sid) };
        world.say(&bob, Ask::TrackSetting(size));
        world.advance(Duration::from_millis(150));
        seen.push(demands(&world).last().map_or(2, |demand| demand.max_spatial));
    }
    // 200 × 0.9 is 180; 380 × 0.9 is 342.
    assert_eq!(seen, [0, 0, 1, 1, 2, 2]);
}

#[test]
fn size_chooses_among_layers_inside_one_encoding() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    let mut request = add_track("cam", proto::TrackType::Video, proto::TrackSource::Camera);
    request.simulcast_codecs[0].codec = "vp9".into();
    let sid = world.publish(&mut alice, request);
    let bob = world.join_active("bob");
    let mut seen = Vec::new();
    for height in [180, 360, 720] {
        let size = proto::UpdateTrackSettings { width: height * 16 / 9, height, ..settings(&sid) };
        world.say(&bob, Ask::TrackSetting(size));
        world.advance(Duration::from_millis(150));
        seen.push(demands(&world).last().map_or(2, |demand| demand.max_spatial));
    }
    assert_eq!(seen, [0, 1, 2]);
}

#[test]
fn settings_are_collected_but_becoming_visible_is_not() {
    let (mut world, _, bob, sid) = watching();
    for height in [180, 360, 181, 179] {
        let size = proto::UpdateTrackSettings { width: height * 16 / 9, height, ..settings(&sid) };
        world.say(&bob, Ask::TrackSetting(size));
    }
    assert!(demands(&world).is_empty());
    world.advance(Duration::from_millis(101));
    assert_eq!(demands(&world).len(), 1);
    world.say(&bob, Ask::TrackSetting(proto::UpdateTrackSettings { disabled: true, ..settings(&sid) }));
    world.advance(Duration::from_millis(101));
    assert!(!demands(&world)[1].enabled);
    world.say(&bob, Ask::TrackSetting(proto::UpdateTrackSettings { fps: 15, priority: 9, ..settings(&sid) }));
    let last = demands(&world)[2];
    assert!(last.enabled, "at once");
    assert_eq!((last.max_spatial, last.max_temporal, last.priority), (2, 1, 9));
}

#[test]
fn adaptive_subscribers_start_low() {
    let (mut world, ..) = watching();
    let mut request = join_request("carol", Generation::V1);
    request.adaptive_stream = true;
    let mut carol = world.join_with(request);
    carol.sections = vec![Section::channels(), Section::receiving("video")];
    world.offer(&mut carol);
    let starts: Vec<_> = world
        .media
        .iter()
        .filter_map(|command| match command {
            MediaCommand::Subscribe { params, .. } => Some(params.demand.max_spatial),
            _ => None,
        })
        .collect();
    assert_eq!(starts, [2, 0]);
}

#[test]
fn a_publisher_chooses_its_audience() {
    let (mut world, alice, bob, sid) = watching();
    let nobody = proto::SubscriptionPermission { all_participants: false, track_permissions: Vec::new() };
    world.say(&alice, Ask::SubscriptionPermission(nobody));
    assert!(matches!(world.media.last(), Some(MediaCommand::Unsubscribe { .. })));
    let told = |world: &mut World, client: &Client| {
        world.find(client, |message| match message {
            Message::SubscriptionPermissionUpdate(update) => Some((update.track_sid.clone(), update.allowed)),
            _ => None,
        })
    };
    assert_eq!(told(&mut world, &bob), (sid.clone(), false));
    let carol = world.join("carol");
    assert_eq!(told(&mut world, &carol), (sid.clone(), false));
    let entry = proto::TrackPermission {
        participant_identity: "bob".into(),
        track_sids: vec![sid.clone()],
        ..Default::default()
    };
    let only_bob = proto::SubscriptionPermission { all_participants: false, track_permissions: vec![entry] };
    world.say(&alice, Ask::SubscriptionPermission(only_bob));
    assert_eq!(told(&mut world, &bob), (sid, true));
    assert!(!world.unread(&carol).contains(&"permission"));
}

#[test]
fn who_cannot_decode_is_told_so() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    let sid = world.publish_camera(&mut alice);
    let mut bob = world.join_with(join_request("bob", Generation::V1));
    let codecs: &[(u8, &str)] = &[(98, "VP9/90000")];
    bob.sections = vec![Section::channels(), Section { codecs, ..Section::receiving("video") }];
    world.offer(&mut bob);
    let response = world.try_find(&bob, |message| match message {
        Message::SubscriptionResponse(response) => Some((response.track_sid.clone(), response.err)),
        _ => None,
    });
    assert_eq!(response, Some((sid, proto::SubscriptionError::SeCodecUnsupported as i32)));
    assert!(!world.media.iter().any(|command| matches!(command, MediaCommand::Subscribe { .. })));
}

fn published(world: &World) -> Vec<TrackId> {
    let tracks = world.media.iter().filter_map(|command| match command {
        MediaCommand::Publish { track, .. } => Some(*track),
        _ => None,
    });
    tracks.collect()
}

#[test]
fn speakers_are_told_to_those_who_hear_them() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    world.publish_microphone(&mut alice);
    let mut deaf = join_request("deaf", Generation::V1);
    deaf.auto_subscribe = false;
    let deaf = world.join_with(deaf);
    let bob = world.join_active("bob");
    let track = published(&world)[0];
    world.event(MediaEvent::Speakers { levels: vec![(track, 0.3)] });
    let speaker = |world: &mut World, client: &Client| {
        world.try_find(client, |message| match message {
            Message::SpeakersChanged(changed) => Some((changed.speakers[0].level, changed.speakers[0].active)),
            _ => None,
        })
    };
    assert_eq!(speaker(&mut world, &bob), Some((0.375, true)));
    assert_eq!(speaker(&mut world, &alice), Some((0.375, true)));
    assert_eq!(speaker(&mut world, &deaf), None);
    world.event(MediaEvent::Speakers { levels: vec![(track, 0.31)] });
    assert_eq!(speaker(&mut world, &bob), None, "the same eighth is no news");
    world.event(MediaEvent::Speakers { levels: vec![(track, 0.0)] });
    assert_eq!(speaker(&mut world, &bob), Some((0.0, false)));
}

#[test]
fn quality_and_pauses_reach_the_subscriber() {
    let (mut world, alice, bob, sid) = watching();
    let participants: Vec<_> = world
        .media
        .iter()
        .filter_map(|command| match command {
            MediaCommand::AddParticipant { participant } => Some(*participant),
            _ => None,
        })
        .collect();
    world.event(MediaEvent::Quality { participant: participants[0], score: 30 });
    world.advance(Duration::from_secs(6));
    let quality = world.find(&bob, |message| match message {
        Message::ConnectionQuality(update) => {
            Some((update.updates[0].participant_sid.clone(), update.updates[0].quality))
        }
        _ => None,
    });
    assert_eq!(quality, (alice.sid, proto::ConnectionQuality::Poor as i32));
    world.advance(Duration::from_secs(20));
    assert!(!world.unread(&bob).contains(&"quality"), "only changes are told");
    let downtrack = world.media.iter().find_map(|command| match command {
        MediaCommand::Subscribe { downtrack, .. } => Some(*downtrack),
        _ => None,
    });
    world.event(MediaEvent::StreamState { downtrack: downtrack.unwrap(), paused: true });
    let state = world.find(&bob, |message| match message {
        Message::StreamStateUpdate(update) => {
            Some((update.stream_states[0].track_sid.clone(), update.stream_states[0].state))
        }
        _ => None,
    });
    assert_eq!(state, (sid, proto::StreamState::Paused as i32));
}
