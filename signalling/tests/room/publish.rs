//! Publishing, muting, ending tracks.

use std::time::Duration;

use livekit_protocol as proto;
use proto::request_response::Reason;
use proto::signal_request::Message as Ask;
use proto::signal_response::Message;
use signalling::media::{Codec, MediaCommand, MediaKind};
use signalling::room::api::{Generation, Notice};

use crate::sdp::{Section, outline};
use crate::world::{Client, World, add_track, join_request, name};

fn camera(cid: &str) -> proto::AddTrackRequest {
    add_track(cid, proto::TrackType::Video, proto::TrackSource::Camera)
}

fn refusal(world: &mut World, client: &Client) -> Reason {
    world.find(client, |message| match message {
        Message::RequestResponse(response) => Some(Reason::try_from(response.reason).unwrap()),
        _ => None,
    })
}

#[test]
fn a_published_camera_reaches_the_others() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    let bob = world.join_active("bob");
    world.drain(&alice);
    let sid = world.publish_camera(&mut alice);
    assert!(sid.starts_with("TR_VC"));
    let params = world.media.iter().find_map(|command| match command {
        MediaCommand::Publish { params, .. } => Some(params.clone()),
        _ => None,
    });
    let params = params.unwrap();
    assert_eq!(params.kind, MediaKind::Video);
    let rids: Vec<_> = params.encodings.iter().map(|encoding| encoding.rid.clone().unwrap()).collect();
    assert_eq!(rids, ["q", "h", "f"]);
    assert_eq!(params.codecs[0].codec, Codec::Vp8);
    // Bob learns of the track by message before any description could carry it.
    let told = world.drain(&bob);
    let Some(Message::Update(update)) = told.first() else { panic!("{told:?}") };
    let track = &update.participants[0].tracks[0];
    assert_eq!((track.sid.as_str(), track.encryption, track.width), (sid.as_str(), 1, 1280));
    assert_eq!(track.mime_type, "video/VP8");
    assert!(update.participants[0].is_publisher);
    // Then he is asked for an offer; his three free sections are enough.
    world.advance(Duration::from_millis(20));
    let needed = world.find(&bob, |message| match message {
        Message::MediaSectionsRequirement(needed) => Some((needed.num_audios, needed.num_videos)),
        _ => None,
    });
    assert_eq!(needed, (0, 0));
    assert!(
        world.notices.iter().any(|notice| matches!(notice, Notice::TrackPublished(_, _, track) if track.sid == sid))
    );
}

#[test]
fn an_offer_after_the_news_carries_the_track() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    let mut bob = world.join_active("bob");
    let sid = world.publish_camera(&mut alice);
    world.advance(Duration::from_millis(20));
    world.drain(&bob);
    world.offer(&mut bob);
    let answer = world.find(&bob, |message| match message {
        Message::Answer(answer) => Some(answer.clone()),
        _ => None,
    });
    assert_eq!(answer.id, 2);
    assert_eq!(answer.mid_to_track_id.values().collect::<Vec<_>>(), [&sid]);
    assert!(!world.unread(&bob).contains(&"trickle"), "candidates are sent once");
    let told = world.find(&alice, |message| match message {
        Message::TrackSubscribed(subscribed) => Some(subscribed.track_sid.clone()),
        _ => None,
    });
    assert_eq!(told, sid);
}

#[test]
fn the_answer_to_the_publisher_comes_before_the_news_to_others() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    let cid = "cam";
    world.say(&alice, Ask::AddTrack(camera(cid)));
    alice.sections.push(Section::simulcast(cid));
    world.offer(&mut alice);
    let kinds: Vec<_> = world.drain(&alice).iter().map(name).collect();
    assert_eq!(kinds, ["track_published", "answer", "update"]);
}

#[test]
fn a_track_with_another_id_is_taken_by_kind() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    world.say(&alice, Ask::AddTrack(camera("first")));
    alice.sections.push(Section::simulcast("rewritten-by-the-browser"));
    world.offer(&mut alice);
    assert!(world.media.iter().any(|command| matches!(command, MediaCommand::Publish { .. })));
}

#[test]
fn an_offer_may_run_ahead_of_the_announcement() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    alice.sections.push(Section::simulcast("cam"));
    world.offer(&mut alice);
    let answer = world.find(&alice, |message| match message {
        Message::Answer(answer) => Some(answer.sdp.clone()),
        _ => None,
    });
    assert_eq!(outline(&answer).last().unwrap().1, "recvonly");
    assert!(!world.media.iter().any(|command| matches!(command, MediaCommand::Publish { .. })));
    world.say(&alice, Ask::AddTrack(camera("cam")));
    assert!(world.media.iter().any(|command| matches!(command, MediaCommand::Publish { .. })));
    assert!(world.unread(&alice).contains(&"track_published"));
}

#[test]
fn mute_is_seen_by_others_and_the_media_plane() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    let bob = world.join_active("bob");
    let sid = world.publish_microphone(&mut alice);
    world.drain(&bob);
    let muted = |world: &mut World, client: &Client| {
        world.find(client, |message| match message {
            Message::Update(update) => Some(update.participants[0].tracks[0].muted),
            _ => None,
        })
    };
    world.say(&alice, Ask::Mute(proto::MuteTrackRequest { sid: sid.clone(), muted: true }));
    assert!(muted(&mut world, &bob));
    assert!(matches!(world.media.last(), Some(MediaCommand::SetMuted { muted: true, .. })));
    world.say(&alice, Ask::Mute(proto::MuteTrackRequest { sid, muted: false }));
    assert!(!muted(&mut world, &bob));
    world.say(&alice, Ask::Mute(proto::MuteTrackRequest { sid: "TR_unknown".into(), muted: true }));
    assert_eq!(refusal(&mut world, &alice), Reason::NotFound);
}

#[test]
fn stopping_a_section_ends_the_track_everywhere() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    world.publish_camera(&mut alice);
    let bob = world.join_active("bob");
    alice.sections.last_mut().unwrap().direction = "inactive";
    world.offer(&mut alice);
    assert!(world.media.iter().any(|command| matches!(command, MediaCommand::Unpublish { .. })));
    let tracks = world.find(&bob, |message| match message {
        Message::Update(update) => Some(update.participants[0].tracks.len()),
        _ => None,
    });
    assert_eq!(tracks, 0);
    assert!(world.notices.iter().any(|notice| matches!(notice, Notice::TrackUnpublished(..))));
    // Bob's section has to be renegotiated.
    world.advance(Duration::from_millis(200));
    assert!(world.unread(&bob).contains(&"sections"));
}

#[test]
fn the_same_device_again_waits_for_its_older_track() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    let first = world.publish(&mut alice, camera("cam"));
    world.drain(&alice);
    world.say(&alice, Ask::AddTrack(camera("cam")));
    assert_eq!(refusal(&mut world, &alice), Reason::Queued);
    alice.sections.last_mut().unwrap().direction = "inactive";
    alice.sections.push(Section::simulcast("cam"));
    world.offer(&mut alice);
    let second = world.find(&alice, |message| match message {
        Message::TrackPublished(published) => Some(published.track.clone().unwrap().sid),
        _ => None,
    });
    assert_ne!(first, second);
    let published = world.media.iter().filter(|command| matches!(command, MediaCommand::Publish { .. })).count();
    assert_eq!(published, 2);
}

#[test]
fn only_what_is_granted_is_published() {
    let mut world = World::new();
    let mut request = join_request("alice", Generation::V1);
    request.grants.can_publish_sources = vec![proto::TrackSource::Microphone.into()];
    let alice = world.join_with(request);
    world.say(&alice, Ask::AddTrack(camera("cam")));
    assert_eq!(refusal(&mut world, &alice), Reason::NotAllowed);
    let microphone = add_track("mic", proto::TrackType::Audio, proto::TrackSource::Microphone);
    world.say(&alice, Ask::AddTrack(microphone));
    assert!(world.unread(&alice).contains(&"track_published"));
    let mut data = camera("data");
    (data.r#type, data.source) = (2, 2);
    world.say(&alice, Ask::AddTrack(data));
    assert_eq!(refusal(&mut world, &alice), Reason::UnsupportedType);
    let mut second = add_track("x", proto::TrackType::Audio, proto::TrackSource::Microphone);
    second.sid = "TR_unknown".into();
    world.say(&alice, Ask::AddTrack(second));
    assert_eq!(refusal(&mut world, &alice), Reason::NotFound);
}

#[test]
fn new_ice_credentials_restart_the_transport() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    alice.ufrag = "fresh".into();
    world.offer(&mut alice);
    let restart = world.media.iter().find_map(|command| match command {
        MediaCommand::RestartIce { local, remote, .. } => Some((local.clone(), remote.clone().unwrap())),
        _ => None,
    });
    let (local, remote) = restart.unwrap();
    assert_eq!(remote.ufrag, "fresh");
    let answer = world.find(&alice, |message| match message {
        Message::Answer(answer) => Some(answer.sdp.clone()),
        _ => None,
    });
    assert!(answer.contains(&format!("a=ice-ufrag:{}\r\n", local.ufrag)));
    assert!(world.unread(&alice).contains(&"trickle"));
}

#[test]
fn a_changed_size_is_told() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    let sid = world.publish_camera(&mut alice);
    let bob = world.join_active("bob");
    let update = proto::UpdateLocalVideoTrack { track_sid: sid, width: 640, height: 480 };
    world.say(&alice, Ask::UpdateVideoTrack(update));
    let size = world.find(&bob, |message| match message {
        Message::Update(update) => update.participants[0].tracks.first().map(|track| (track.width, track.height)),
        _ => None,
    });
    assert_eq!(size, (640, 480));
}
