//! Data packets and data tracks.

use std::time::Duration;

use bytes::Bytes;
use livekit_protocol as proto;
use prost::Message as _;
use proto::data_packet::Value;
use proto::signal_request::Message as Ask;
use proto::signal_response::Message;
use signalling::media::{DataChannel, MediaCommand, MediaEvent, TransportId};
use signalling::room::Config;
use signalling::room::api::{AdminAnswer, AdminError, AdminId, AdminRequest, Input};

use crate::world::{Client, World, params};

fn text(payload: &str, sequence: u32) -> proto::DataPacket {
    let user = proto::UserPacket { payload: payload.into(), ..Default::default() };
    proto::DataPacket { value: Some(Value::User(user)), sequence, ..Default::default() }
}

fn send(world: &mut World, client: &Client, channel: DataChannel, packet: &proto::DataPacket) {
    let transport = world.transports(client)[0];
    world.event(MediaEvent::Data { transport, channel, payload: Bytes::from(packet.encode_to_vec()) });
}

/// Packets the media plane was asked to send since the last call.
fn sent(world: &mut World) -> Vec<(Vec<TransportId>, DataChannel, Bytes)> {
    let commands = std::mem::take(&mut world.media);
    let packets = commands.iter().filter_map(|command| match command {
        MediaCommand::SendData { transports, channel, payload } => {
            Some((transports.clone(), *channel, payload.clone()))
        }
        _ => None,
    });
    let packets: Vec<_> = packets.collect();
    world.media = commands.into_iter().filter(|command| !matches!(command, MediaCommand::SendData { .. })).collect();
    packets
}

#[test]
fn a_packet_reaches_everybody_else_with_the_true_sender() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let bob = world.join_active("bob");
    let carol = world.join_active("carol");
    let mut packet = text("hello", 1);
    packet.participant_identity = "somebody else".into();
    send(&mut world, &alice, DataChannel::Reliable, &packet);
    let expected = [world.transports(&bob)[0], world.transports(&carol)[0]];
    let packets = sent(&mut world);
    let [(to, DataChannel::Reliable, payload)] = &packets[..] else { panic!("{packets:?}") };
    assert_eq!(to[..], expected);
    let read = proto::DataPacket::decode(payload.clone()).unwrap();
    assert_eq!((read.participant_identity.as_str(), read.participant_sid), ("alice", alice.sid.clone()));
    assert_eq!(read.sequence, 1);
    assert!(matches!(world.media.last(), Some(MediaCommand::DataTaken { .. })));
}

#[test]
fn destinations_are_respected_and_repeats_dropped() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let bob = world.join_active("bob");
    world.join_active("carol");
    let packet = proto::DataPacket { destination_identities: vec!["bob".into()], ..text("psst", 5) };
    send(&mut world, &alice, DataChannel::Reliable, &packet);
    send(&mut world, &alice, DataChannel::Reliable, &packet);
    send(&mut world, &alice, DataChannel::Reliable, &text("old", 4));
    let expected = vec![world.transports(&bob)[0]];
    let packets = sent(&mut world);
    assert_eq!(packets.len(), 1);
    assert_eq!(packets[0].0, expected);
}

#[test]
fn sealed_packets_pass_unread() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.join_active("bob");
    let sealed =
        proto::EncryptedPacket { encrypted_value: vec![1, 2, 3], iv: vec![4; 12], key_index: 3, encryption_type: 1 };
    let packet = proto::DataPacket { value: Some(Value::EncryptedPacket(sealed.clone())), ..Default::default() };
    send(&mut world, &alice, DataChannel::Lossy, &packet);
    let packets = sent(&mut world);
    let read = proto::DataPacket::decode(packets[0].2.clone()).unwrap();
    assert_eq!(read.value, Some(Value::EncryptedPacket(sealed)));
    assert_eq!(packets[0].1, DataChannel::Lossy);
}

#[test]
fn who_may_not_send_is_not_heard() {
    let mut world = World::new();
    let mut request = crate::world::join_request("mute", signalling::room::api::Generation::V1);
    request.grants.can_publish_data = false;
    let mut mute = world.join_with(request);
    mute.sections = vec![crate::sdp::Section::channels()];
    world.offer(&mut mute);
    world.connect(&mute);
    world.join_active("bob");
    send(&mut world, &mute, DataChannel::Reliable, &text("hello", 1));
    assert!(sent(&mut world).is_empty());
    let transport = world.transports(&mute)[0];
    world.event(MediaEvent::Data {
        transport,
        channel: DataChannel::Reliable,
        payload: Bytes::from_static(&[0xff; 40]),
    });
    assert!(sent(&mut world).is_empty());
}

#[test]
fn a_newcomer_gets_what_was_said_while_its_channels_opened() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    world.join_active("witness");
    send(&mut world, &alice, DataChannel::Reliable, &text("before", 1));
    world.advance(Duration::from_millis(100));
    let bob = world.join("bob");
    send(&mut world, &alice, DataChannel::Reliable, &text("meanwhile", 2));
    sent(&mut world);
    world.connect(&bob);
    let packets = sent(&mut world);
    assert_eq!(packets.len(), 1);
    assert_eq!(proto::DataPacket::decode(packets[0].2.clone()).unwrap().sequence, 2);
}

#[test]
fn a_resumed_client_gets_what_it_missed() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let bob = world.join_active("bob");
    for sequence in 1..=3 {
        send(&mut world, &alice, DataChannel::Reliable, &text("x", sequence));
    }
    sent(&mut world);
    let bob = crate::resume::come_back(&mut world, &bob);
    let reached = proto::DataChannelReceiveState { publisher_sid: alice.sid.clone(), last_seq: 2 };
    let state = proto::SyncState { datachannel_receive_states: vec![reached], ..Default::default() };
    world.say(&bob, Ask::SyncState(state));
    let packets = sent(&mut world);
    assert_eq!(packets.len(), 1);
    let connection = world.connection();
    let mut request = crate::world::join_request("alice", signalling::room::api::Generation::V1);
    (request.reconnect, request.participant_sid) = (true, alice.sid.clone());
    world.input(Input::Join { connection, request: Box::new(request) });
    let Some(Message::Reconnect(reconnect)) = world.inboxes[&connection].front() else { panic!() };
    assert_eq!(reconnect.last_message_seq, 3);
}

#[test]
fn a_flood_waits_for_its_credit() {
    let mut config = Config::default();
    (config.limits.data_rate, config.limits.data_burst) = (10_000, 20_000);
    let mut world = World::with(params(), config);
    let alice = world.join_active("alice");
    world.join_active("bob");
    let big = "x".repeat(9_000);
    let taken =
        |world: &World| world.media.iter().filter(|command| matches!(command, MediaCommand::DataTaken { .. })).count();
    for sequence in 1..=5 {
        send(&mut world, &alice, DataChannel::Reliable, &text(&big, sequence));
    }
    assert_eq!(sent(&mut world).len(), 5, "reliable packets are never lost");
    assert_eq!(taken(&world), 2);
    send(&mut world, &alice, DataChannel::Lossy, &text(&big, 0));
    assert!(sent(&mut world).is_empty(), "lossy ones are");
    world.advance(Duration::from_secs(5));
    assert_eq!(taken(&world), 3, "the rest is paid at once");
}

#[test]
fn the_server_api_can_speak() {
    let mut world = World::new();
    world.join_active("alice");
    let request = proto::SendDataRequest { data: b"news".to_vec(), nonce: vec![7; 16], ..Default::default() };
    world.admin(AdminRequest::SendData(Box::new(request.clone()))).unwrap();
    world.admin(AdminRequest::SendData(Box::new(request))).unwrap();
    assert_eq!(sent(&mut world).len(), 1, "a retry is delivered once");
}

#[test]
fn data_tracks_are_forwarded_under_the_subscribers_handle() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let bob = world.join_active("bob");
    let publish = |handle, name: &str| {
        Ask::PublishDataTrackRequest(proto::PublishDataTrackRequest {
            pub_handle: handle,
            name: name.into(),
            ..Default::default()
        })
    };
    world.say(&alice, publish(500, "pose"));
    let info = world.find(&alice, |message| match message {
        Message::PublishDataTrackResponse(response) => response.info.clone(),
        _ => None,
    });
    assert!(info.sid.starts_with("DTR_"));
    let handles = world.find(&bob, |message| match message {
        Message::DataTrackSubscriberHandles(handles) => Some(handles.sub_handles.clone()),
        _ => None,
    });
    let (handle, track) = handles.iter().next().unwrap();
    assert_eq!((track.track_sid.as_str(), track.publisher_identity.as_str()), (info.sid.as_str(), "alice"));
    let mut packet = vec![0x18, 0, 1, 0xf4];
    packet.extend([0; 20]);
    let transport = world.transports(&alice)[0];
    sent(&mut world);
    world.event(MediaEvent::Data { transport, channel: DataChannel::DataTrack, payload: packet.into() });
    let packets = sent(&mut world);
    assert_eq!(u32::from(u16::from_be_bytes([packets[0].2[2], packets[0].2[3]])), *handle);
    let refusal = |world: &mut World| {
        world.find(&alice, |message| match message {
            Message::RequestResponse(response) => Some(response.reason),
            _ => None,
        })
    };
    use proto::request_response::Reason;
    for (request, reason) in [
        (publish(500, "other"), Reason::DuplicateHandle),
        (publish(501, "pose"), Reason::DuplicateName),
        (publish(0, "x"), Reason::InvalidHandle),
        (publish(70_000, "x"), Reason::InvalidHandle),
        (publish(9, ""), Reason::InvalidName),
    ] {
        world.say(&alice, request);
        assert_eq!(refusal(&mut world), reason as i32);
    }
    world.say(&alice, Ask::UnpublishDataTrackRequest(proto::UnpublishDataTrackRequest { pub_handle: 500 }));
    let handles = world.find(&bob, |message| match message {
        Message::DataTrackSubscriberHandles(handles) => Some(handles.sub_handles.len()),
        _ => None,
    });
    assert_eq!(handles, 0);
}

fn call(to: &str, timeout_ms: u32) -> proto::PerformRpcRequest {
    proto::PerformRpcRequest {
        destination_identity: to.into(),
        method: "greet".into(),
        payload: "hello".into(),
        response_timeout_ms: timeout_ms,
        ..Default::default()
    }
}

fn ask(world: &mut World, request: proto::PerformRpcRequest) {
    world.input(Input::Admin { id: AdminId(7), request: Box::new(AdminRequest::PerformRpc(Box::new(request))) });
}

/// The request that went out, and to whom.
fn asked(world: &mut World) -> (Vec<TransportId>, proto::DataPacket, proto::RpcRequest) {
    let packets = sent(world);
    let [(to, DataChannel::Reliable, payload)] = &packets[..] else { panic!("{packets:?}") };
    let packet = proto::DataPacket::decode(payload.clone()).unwrap();
    let Some(Value::RpcRequest(request)) = packet.value.clone() else { panic!("{packet:?}") };
    (to.clone(), packet, request)
}

fn of_call(value: Value, sequence: u32) -> proto::DataPacket {
    // Clients answer whoever is named as the caller.
    let destination_identities = vec!["weir:server".into()];
    proto::DataPacket { value: Some(value), sequence, destination_identities, ..Default::default() }
}

fn ack(id: &str, sequence: u32) -> proto::DataPacket {
    of_call(Value::RpcAck(proto::RpcAck { request_id: id.into() }), sequence)
}

fn response(id: &str, value: proto::rpc_response::Value, sequence: u32) -> proto::DataPacket {
    of_call(Value::RpcResponse(proto::RpcResponse { request_id: id.into(), value: Some(value) }), sequence)
}

#[test]
fn the_server_calls_a_method_of_a_participant_and_nobody_hears_the_answer() {
    use proto::rpc_response::Value as Answer;
    let mut world = World::new();
    let alice = world.join_active("alice");
    let bob = world.join_active("bob");
    ask(&mut world, call("alice", 10_000));
    let (to, packet, request) = asked(&mut world);
    assert_eq!(to, [world.transports(&alice)[0]]);
    assert_eq!((packet.participant_identity.as_str(), request.version), ("weir:server", 1));
    assert_eq!((request.method.as_str(), request.payload.as_str()), ("greet", "hello"));
    assert_eq!(request.response_timeout_ms, 3_000, "less the way there and back");
    // Somebody else who guesses the id answers nothing.
    send(&mut world, &bob, DataChannel::Reliable, &response(&request.id, Answer::Payload("forged".into()), 1));
    send(&mut world, &alice, DataChannel::Reliable, &ack(&request.id, 1));
    assert!(world.answers.is_empty());
    world.advance(Duration::from_secs(9));
    send(&mut world, &alice, DataChannel::Reliable, &response(&request.id, Answer::Payload("hi".into()), 2));
    assert!(matches!(world.answers.pop(), Some(Ok(AdminAnswer::Rpc(payload))) if payload == "hi"));
    send(&mut world, &alice, DataChannel::Reliable, &response(&request.id, Answer::Payload("again".into()), 3));
    assert!(world.answers.is_empty(), "answered once");
    world.advance(Duration::from_secs(60));
    assert!(world.answers.is_empty() && sent(&mut world).is_empty());
    // An error is an answer too.
    ask(&mut world, call("alice", 0));
    let (_, _, request) = asked(&mut world);
    let error = proto::RpcError { code: 1_400, message: "no such method".into(), data: String::new() };
    send(&mut world, &alice, DataChannel::Reliable, &response(&request.id, Answer::Error(error.clone()), 4));
    assert!(matches!(world.answers.pop(), Some(Ok(AdminAnswer::RpcFailed(told))) if *told == error));
}

#[test]
fn calls_end_with_patience_with_the_participant_and_at_their_limits() {
    let mut world = World::new();
    let alice = world.join_active("alice");
    let failure = |world: &mut World| world.answers.pop().map(|answer| answer.map(|_| ()));
    ask(&mut world, call("nobody", 0));
    assert_eq!(failure(&mut world), Some(Err(AdminError::NotFound("participant does not exist"))));
    for broken in [
        proto::PerformRpcRequest { method: String::new(), ..call("alice", 0) },
        proto::PerformRpcRequest { method: "m".repeat(65), ..call("alice", 0) },
        proto::PerformRpcRequest { payload: "p".repeat(15 * 1024 + 1), ..call("alice", 0) },
    ] {
        ask(&mut world, broken);
        assert!(matches!(failure(&mut world), Some(Err(AdminError::Invalid(_)))));
    }
    world.join("deaf");
    ask(&mut world, call("deaf", 0));
    assert!(matches!(failure(&mut world), Some(Err(AdminError::Unavailable(_)))), "its channels are not open yet");
    // One that does not take it in time; one that does and never answers.
    ask(&mut world, call("alice", 10_000));
    asked(&mut world);
    world.advance(Duration::from_millis(6_900));
    assert!(world.answers.is_empty());
    world.advance(Duration::from_millis(200));
    assert_eq!(failure(&mut world), Some(Err(AdminError::TimedOut("the participant did not take the call in time"))));
    ask(&mut world, call("alice", 10_000));
    let (_, _, request) = asked(&mut world);
    send(&mut world, &alice, DataChannel::Reliable, &ack(&request.id, 1));
    world.advance(Duration::from_millis(9_900));
    assert!(world.answers.is_empty());
    world.advance(Duration::from_millis(200));
    assert_eq!(failure(&mut world), Some(Err(AdminError::TimedOut("the participant did not answer in time"))));
    // No more than a room's share at once; they end with the participant.
    for _ in 0..64 {
        ask(&mut world, call("alice", 60_000));
    }
    assert!(world.answers.is_empty());
    ask(&mut world, call("alice", 60_000));
    assert!(matches!(failure(&mut world), Some(Err(AdminError::Unavailable(_)))));
    let reason = proto::DisconnectReason::ParticipantRemoved;
    world.admin(AdminRequest::RemoveParticipant { identity: "alice".into(), reason }).unwrap();
    let gone = std::mem::take(&mut world.answers);
    assert_eq!(gone.len(), 64);
    assert!(gone.iter().all(|answer| matches!(answer, Err(AdminError::Unavailable("the participant left")))));
}
