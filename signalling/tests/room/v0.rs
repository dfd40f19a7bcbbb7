//! Clients with two peer connections: the server offers what they receive.

use std::time::Duration;

use livekit_protocol as proto;
use proto::signal_request::Message as Ask;
use proto::signal_response::Message;
use signalling::media::MediaCommand;
use signalling::room::api::{Generation, Input};

use crate::sdp::{Section, answer_to, outline};
use crate::world::{Client, World, join_request, session};

fn offer_of(world: &mut World, client: &Client) -> Option<proto::SessionDescription> {
    world.try_find(client, |message| match message {
        Message::Offer(offer) => Some(offer.clone()),
        _ => None,
    })
}

fn answer(world: &mut World, client: &Client, offer: &proto::SessionDescription) {
    let text = answer_to(&offer.sdp, &client.ufrag);
    world.say(client, Ask::Answer(session("answer", text, offer.id)));
}

/// A v0 client that has answered the first offer.
fn join_v0(world: &mut World, identity: &str) -> (Client, proto::SessionDescription) {
    let client = world.join_with(join_request(identity, Generation::V0));
    let offer = offer_of(world, &client).unwrap();
    answer(world, &client, &offer);
    world.connect(&client);
    world.drain(&client);
    (client, offer)
}

#[test]
fn the_first_offer_follows_the_join_and_carries_what_is_there() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    let sid = world.publish_camera(&mut alice);
    let bob = world.join_with(join_request("bob", Generation::V0));
    assert_eq!(world.unread(&bob), ["offer", "trickle", "trickle"]);
    let offer = offer_of(&mut world, &bob).unwrap();
    assert!((1..=256).contains(&offer.id));
    let sections = outline(&offer.sdp);
    assert_eq!(sections.len(), 2);
    assert_eq!(sections[1].1, "sendonly");
    assert_eq!(offer.mid_to_track_id.get(&sections[1].0), Some(&sid));
    let opened = world.media.iter().any(|command| {
        matches!(command, MediaCommand::AddTransport { params, .. } if params.open_channels && params.remote.is_none())
    });
    assert!(opened);
    let target = world.find(&bob, |message| match message {
        Message::Trickle(trickle) => Some(trickle.target),
        _ => None,
    });
    assert_eq!(target, proto::SignalTarget::Subscriber as i32);
    assert!(!world.media.iter().any(|command| matches!(command, MediaCommand::Subscribe { .. })));
    answer(&mut world, &bob, &offer);
    assert!(world.media.iter().any(|command| matches!(command, MediaCommand::Subscribe { .. })));
}

#[test]
fn one_offer_at_a_time() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    let (bob, first) = join_v0(&mut world, "bob");
    world.publish_camera(&mut alice);
    world.advance(Duration::from_millis(200));
    let second = offer_of(&mut world, &bob).unwrap();
    assert_eq!(second.id, first.id + 1);
    world.publish_microphone(&mut alice);
    world.advance(Duration::from_secs(2));
    assert_eq!(offer_of(&mut world, &bob), None);
    // A stale answer changes nothing.
    world.say(&bob, Ask::Answer(session("answer", answer_to(&first.sdp, &bob.ufrag), first.id)));
    assert!(!world.media.iter().any(|command| matches!(command, MediaCommand::Subscribe { .. })));
    answer(&mut world, &bob, &second);
    world.advance(Duration::from_millis(200));
    let third = offer_of(&mut world, &bob).unwrap();
    assert_eq!(outline(&third.sdp).len(), 3);
}

#[test]
fn an_unanswered_offer_sends_the_client_round() {
    let mut world = World::new();
    let bob = world.join_with(join_request("bob", Generation::V0));
    world.advance(Duration::from_secs(14));
    assert!(!world.unread(&bob).contains(&"leave"));
    world.advance(Duration::from_secs(2));
    let leave = world.find(&bob, |message| match message {
        Message::Leave(leave) => Some((leave.reason, leave.action)),
        _ => None,
    });
    assert_eq!(leave, (proto::DisconnectReason::StateMismatch as i32, 2));
}

/// The next offer, answered: (mid, direction, msid) of each section.
fn negotiated(world: &mut World, client: &Client) -> Vec<(String, String, Option<String>)> {
    world.advance(Duration::from_millis(200));
    let offer = offer_of(world, client).unwrap();
    answer(world, client, &offer);
    world.drain(client);
    outline(&offer.sdp)
}

#[test]
fn a_track_that_is_wanted_again_comes_back_in_its_section() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    let sid = world.publish_camera(&mut alice);
    let (bob, first) = join_v0(&mut world, "bob");
    let change = |subscribe| {
        Ask::Subscription(proto::UpdateSubscription { track_sids: vec![sid.clone()], subscribe, ..Default::default() })
    };
    world.say(&bob, change(false));
    assert_eq!(negotiated(&mut world, &bob)[1].1, "inactive");
    world.say(&bob, change(true));
    let sections = negotiated(&mut world, &bob);
    assert_eq!(sections, outline(&first.sdp));
    assert_eq!(sections[1].2, Some(format!("{}|camera {sid}", alice.sid)));
}

#[test]
fn another_track_gets_another_section_until_there_are_many() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    let (bob, _) = join_v0(&mut world, "bob");
    for round in 1..40 {
        alice.identity = format!("alice{round}");
        let sid = world.publish_camera(&mut alice);
        let sections = negotiated(&mut world, &bob);
        let sending: Vec<_> = sections.iter().filter(|(_, direction, _)| direction == "sendonly").collect();
        // A browser calls what comes in a used section by its first track's id, so that the stream has to name the track.
        let (place, stream) = if round <= 32 { (round, "camera") } else { (1, sid.as_str()) };
        assert_eq!(
            sending,
            [&(place.to_string(), "sendonly".to_owned(), Some(format!("{}|{stream} {sid}", alice.sid)))]
        );
        alice.sections.last_mut().unwrap().direction = "inactive";
        world.offer(&mut alice);
        // Offered inactive once before anything else comes in it.
        let sections = negotiated(&mut world, &bob);
        assert!(sections.iter().all(|(_, direction, _)| direction != "sendonly"));
    }
}

#[test]
fn publishes_on_its_own_transport() {
    let mut world = World::new();
    let (mut bob, _) = join_v0(&mut world, "bob");
    let carol = world.join_active("carol");
    bob.sections = vec![Section::channels()];
    let sid = world.publish_camera(&mut bob);
    let transports: Vec<_> = world
        .media
        .iter()
        .filter_map(|command| match command {
            MediaCommand::AddTransport { transport, .. } => Some(*transport),
            _ => None,
        })
        .collect();
    let published = world.media.iter().find_map(|command| match command {
        MediaCommand::Publish { transport, .. } => Some(*transport),
        _ => None,
    });
    assert!(transports.contains(&published.unwrap()));
    assert_ne!(published, Some(transports[0]));
    let seen = world.find(&carol, |message| match message {
        Message::Update(update) => update.participants[0].tracks.first().map(|track| track.sid.clone()),
        _ => None,
    });
    assert_eq!(seen, sid);
}

#[test]
fn a_resume_restarts_ice_by_an_offer() {
    let mut world = World::new();
    let mut alice = world.join_active("alice");
    world.publish_camera(&mut alice);
    let (bob, first) = join_v0(&mut world, "bob");
    world.close(&bob);
    let connection = world.connection();
    let mut request = join_request("bob", Generation::V0);
    (request.reconnect, request.participant_sid) = (true, bob.sid.clone());
    world.input(Input::Join { connection, request: Box::new(request) });
    let bob = Client { connection, ..bob };
    assert_eq!(world.unread(&bob)[..4], ["reconnect", "update", "room_update", "offer"]);
    let offer = offer_of(&mut world, &bob).unwrap();
    let ufrag = |sdp: &str| sdp.split("a=ice-ufrag:").nth(1).unwrap().split("\r\n").next().unwrap().to_owned();
    assert_ne!(ufrag(&first.sdp), ufrag(&offer.sdp));
    assert!(world.media.iter().any(|command| matches!(command, MediaCommand::RestartIce { remote: None, .. })));
    answer(&mut world, &bob, &offer);
    world.advance(Duration::from_secs(20));
    assert!(!world.unread(&bob).contains(&"leave"));
}
