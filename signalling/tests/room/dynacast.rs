//! What publishers are told to encode, and when.

use std::time::Duration;

use livekit_protocol as proto;
use proto::signal_request::Message as Ask;
use proto::signal_response::Message;

use signalling::room::api::AdminRequest;

use crate::world::{Client, World};

/// Which of low, medium, high are wanted, each time the publisher was told.
fn told(world: &mut World, client: &Client) -> Vec<[bool; 3]> {
    let mut all = Vec::new();
    while let Some(qualities) = world.try_find(client, |message| match message {
        Message::SubscribedQualityUpdate(update) => {
            assert_eq!(update.subscribed_codecs[0].codec, "vp8");
            Some(update.subscribed_codecs[0].qualities.clone())
        }
        _ => None,
    }) {
        all.push([0, 1, 2].map(|index| qualities[index].enabled));
    }
    all
}

fn size(sid: &str, height: u32) -> Ask {
    Ask::TrackSetting(proto::UpdateTrackSettings {
        track_sids: vec![sid.into()],
        width: height * 16 / 9,
        height,
        disabled: height == 0,
        ..Default::default()
    })
}

#[test]
fn a_publisher_without_audience_rests_after_ten_seconds() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    world.publish_camera(&mut alice);
    world.advance(Duration::from_millis(9900));
    assert!(told(&mut world, &alice).is_empty());
    world.advance(Duration::from_millis(200));
    assert_eq!(told(&mut world, &alice), [[false; 3]]);
    // The first subscriber is told of at once.
    world.join_active("bob");
    assert_eq!(told(&mut world, &alice), [[true; 3]]);
}

#[test]
fn less_is_told_late_and_more_at_once() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    let sid = world.publish_camera(&mut alice);
    let bob = world.join_active("bob");
    let carol = world.join_active("carol");
    world.advance(Duration::from_secs(11));
    assert_eq!(told(&mut world, &alice), [[true; 3]], "said once, unasked");
    world.say(&bob, size(&sid, 180));
    world.advance(Duration::from_secs(10));
    assert!(told(&mut world, &alice).is_empty(), "carol still wants everything");
    world.say(&carol, size(&sid, 360));
    world.advance(Duration::from_secs(5));
    assert!(told(&mut world, &alice).is_empty());
    world.advance(Duration::from_millis(200));
    assert_eq!(told(&mut world, &alice), [[true, true, false]]);
    world.say(&carol, size(&sid, 0));
    world.advance(Duration::from_secs(3));
    world.say(&carol, size(&sid, 720));
    assert_eq!(told(&mut world, &alice), [[true; 3]], "becoming visible waits for nothing");
    world.advance(Duration::from_secs(20));
    assert!(told(&mut world, &alice).is_empty(), "the dip in between is never heard of");
}

#[test]
fn nobody_looking_is_nothing_wanted() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    let sid = world.publish_camera(&mut alice);
    let bob = world.join_active("bob");
    world.advance(Duration::from_secs(11));
    told(&mut world, &alice);
    world.say(&bob, size(&sid, 0));
    world.advance(Duration::from_millis(5200));
    assert_eq!(told(&mut world, &alice), [[false; 3]]);
}

#[test]
fn what_was_said_into_a_dead_connection_is_said_again() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    let sid = world.publish_camera(&mut alice);
    let bob = world.join_active("bob");
    world.advance(Duration::from_secs(11));
    told(&mut world, &alice);
    world.close(&alice);
    world.say(&bob, size(&sid, 180));
    world.advance(Duration::from_secs(10));
    let again = crate::resume::come_back(&mut world, &alice);
    assert_eq!(told(&mut world, &again), [[true, false, false]]);
}

#[test]
fn video_that_is_limited_is_sent_low_to_everybody_and_its_publisher_told_at_once() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    world.publish_camera(&mut alice);
    world.join_active("bob");
    world.advance(Duration::from_secs(11));
    assert_eq!(told(&mut world, &alice), [[true; 3]]);
    let limit = |max_spatial| AdminRequest::LimitVideo { identity: "alice".to_owned(), max_spatial };
    world.admin(limit(Some(0))).unwrap();
    assert_eq!(told(&mut world, &alice), [[true, false, false]]);
    // Neither somebody who comes later nor a second camera gets around it.
    world.join_active("carol");
    world.advance(Duration::from_secs(11));
    assert!(told(&mut world, &alice).is_empty());
    world.admin(limit(Some(1))).unwrap();
    assert_eq!(told(&mut world, &alice), [[true, true, false]]);
    world.admin(limit(None)).unwrap();
    assert_eq!(told(&mut world, &alice), [[true; 3]]);
    assert!(world.admin(AdminRequest::LimitVideo { identity: "nobody".to_owned(), max_spatial: None }).is_err());
}
