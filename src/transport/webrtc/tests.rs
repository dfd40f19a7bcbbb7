//! Whole transports against a far end in virtual time: handshakes, data channels, loss, hostile input, time limits.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests may panic")]

mod active;
mod client;

use core::time::Duration;

use bytes::Bytes;
use client::{ClientOptions, Pair, route};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile as Offer;

use super::*;
use crate::shard::event::CloseReason;
use crate::transport::Transport;
use crate::transport::srtp::Profile;

const GCM: Offer = Offer::Srtp_Aead_Aes_128_Gcm;
const CM: Offer = Offer::Srtp_Aes128_Cm_Hmac_Sha1_80;

fn rtp(ssrc: u32, seq: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 96];
    packet.extend_from_slice(&seq.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 1]);
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(b"payload");
    packet
}

#[test]
fn prefers_gcm_whatever_the_client_prefers_and_media_flows_both_ways() {
    for (offer, profile) in [
        (vec![CM, GCM], Profile::AeadAes128Gcm),
        (vec![GCM, CM], Profile::AeadAes128Gcm),
        (vec![CM], Profile::Aes128CmSha1),
    ] {
        let mut pair = Pair::new(ClientOptions { offer, ..ClientOptions::default() });
        assert_eq!(pair.server.open_rtp(pair.now, &mut rtp(1, 1)), Err(DropReason::NoKeys));
        pair.connect();
        assert_eq!(pair.client.profile(), profile);
        let mut sealed = Vec::new();
        pair.client.srtp().seal_rtp(7, &rtp(5, 7)[..12], &[b"payload"], &mut sealed).unwrap();
        let opened = pair.server.open_rtp(pair.now, &mut sealed).unwrap();
        assert_eq!(&sealed[..opened.len], rtp(5, 7));
        sealed.clear();
        pair.server.seal_rtp(9, &rtp(6, 9)[..12], &[b"pay", b"load"], &mut sealed).unwrap();
        let opened = pair.client.srtp().open_rtp(&mut sealed).unwrap();
        assert_eq!(&sealed[..opened.len], rtp(6, 9));
    }
}

#[test]
fn takes_a_client_hello_in_fragments_in_any_order() {
    for reverse in [false, true] {
        let mut pair = Pair::new(ClientOptions { mtu: 60, reverse, ..ClientOptions::default() });
        pair.keep_alive_until(Duration::from_secs(5));
        assert!(pair.edges.connected, "reverse: {reverse}, {:?}", pair.edges);
        assert_eq!(pair.client.profile(), Profile::AeadAes128Gcm);
    }
}

#[test]
fn connects_over_a_lossy_path() {
    for seed in 0..20 {
        let mut pair = Pair::new(ClientOptions { loss_percent: 30, seed, ..ClientOptions::default() });
        pair.keep_alive_until(Duration::from_secs(28));
        assert!(pair.edges.connected && pair.client.is_established(), "seed {seed}: {:?}", pair.edges);
    }
}

#[test]
fn refuses_dtls_before_ice_and_from_unchecked_routes() {
    let mut pair = Pair::new(ClientOptions::default());
    let hello = pair.client.datagrams().remove(0);
    let handled = pair.server.handle_dtls(pair.now, route(1), &hello, &mut pair.out);
    assert_eq!(handled, Err(DropReason::DtlsRefused));
    pair.check(route(1), true);
    assert_eq!(pair.server.handle_dtls(pair.now, route(2), &hello, &mut pair.out), Err(DropReason::DtlsRefused));
    assert!(pair.server.handle_dtls(pair.now, route(1), &hello, &mut pair.out).is_ok());
}

#[test]
fn serves_the_handshake_before_the_fingerprint_is_known_and_waits_with_media() {
    let mut pair = Pair::new(ClientOptions { remote_known: false, ..ClientOptions::default() });
    pair.check(route(1), true);
    pair.pump();
    assert!(pair.client.is_established() && !pair.server.is_connected() && pair.edges.is_none());
    pair.client.start_sctp(pair.now);
    pair.pump();
    let remote = pair.client.remote();
    let edges = pair.server.set_remote(pair.now, &remote);
    assert!(edges.connected && pair.server.is_connected());
    pair.pump();
    pair.client.open_channels(pair.now, &["_reliable", "_lossy"]);
    pair.pump();
    assert!(pair.edges.channels_open, "what came early was kept");
}

#[test]
fn closes_when_the_certificate_is_not_the_one_signalled() {
    let mut pair = Pair::new(ClientOptions { remote_known: false, ..ClientOptions::default() });
    let mut remote = pair.client.remote();
    remote.fingerprint.0[5] ^= 1;
    assert!(pair.server.set_remote(pair.now, &remote).is_none());
    pair.check(route(1), true);
    pair.pump();
    assert_eq!(pair.edges.closed, Some(CloseReason::FingerprintMismatch));
    assert!(!pair.server.is_connected());
    assert_eq!(pair.server.open_rtp(pair.now, &mut rtp(1, 1)), Err(DropReason::NoKeys));
    assert_eq!(pair.server.seal_rtp(1, &rtp(1, 1)[..12], &[], &mut Vec::new()), Err(DropReason::NotConnected));
}

#[test]
fn a_changed_fingerprint_closes() {
    let mut pair = Pair::new(ClientOptions::default());
    pair.connect();
    let mut remote = pair.client.remote();
    assert!(pair.server.set_remote(pair.now, &remote).is_none());
    remote.fingerprint.0[0] ^= 1;
    let edges = pair.server.set_remote(pair.now, &remote);
    assert_eq!(edges.closed, Some(CloseReason::FingerprintMismatch));
}

#[test]
fn goodbyes_are_heard_both_ways() {
    let mut pair = Pair::new(ClientOptions::default());
    pair.connect();
    pair.client.close(pair.now);
    pair.pump();
    assert_eq!(pair.edges.closed, Some(CloseReason::ClosedByPeer));

    let mut pair = Pair::new(ClientOptions::default());
    pair.connect();
    pair.server.close(pair.now, &mut pair.out);
    pair.pump();
    assert!(pair.client.closed);
    assert_eq!(pair.server.next_timeout(), None);
}

#[test]
fn dies_when_nothing_is_heard_and_lives_by_any_authentic_packet() {
    let timeouts = |pair: &mut Pair, seconds: u64| {
        pair.run(Duration::from_secs(seconds));
        pair.edges.closed
    };
    let mut pair = Pair::new(ClientOptions::default());
    assert_eq!(timeouts(&mut pair, 19), None);
    assert_eq!(timeouts(&mut pair, 2), Some(CloseReason::IceTimeout));

    let mut pair = Pair::new(ClientOptions { silent: true, ..ClientOptions::default() });
    for _ in 0..4 {
        pair.check(route(1), true);
        assert_eq!(timeouts(&mut pair, 7), None);
    }
    pair.check(route(1), true);
    assert_eq!(timeouts(&mut pair, 7), Some(CloseReason::DtlsFailed));

    let mut pair = Pair::new(ClientOptions::default());
    pair.connect();
    for seq in 0..5 {
        assert_eq!(timeouts(&mut pair, 9), None);
        let mut sealed = Vec::new();
        pair.client.srtp().seal_rtp(seq, &rtp(5, seq as u16)[..12], &[b"x"], &mut sealed).unwrap();
        pair.server.open_rtp(pair.now, &mut sealed.clone()).unwrap();
        assert!(pair.server.open_rtp(pair.now, &mut sealed).is_err(), "a replay is no sign of life");
    }
    assert_eq!(timeouts(&mut pair, 11), Some(CloseReason::Silent));
}

#[test]
fn junk_from_a_checked_route_neither_closes_nor_grows() {
    let mut pair = Pair::new(ClientOptions::default());
    pair.connect();
    let mut rng = crate::base::Rng::new(3);
    for _ in 0..20_000 {
        let size = 13 + rng.below(100) as usize;
        let mut junk: Vec<u8> = (0..size).map(|_| rng.next_u32() as u8).collect();
        junk[0] = 20 + rng.below(4) as u8;
        junk[1..5].copy_from_slice(&[0xfe, 0xfd, 0, rng.below(3) as u8]);
        junk[11..13].copy_from_slice(&((size - 13) as u16).to_be_bytes());
        if let Ok(edges) = pair.server.handle_dtls(pair.now, route(1), &junk, &mut pair.out) {
            assert!(edges.is_none());
        }
        pair.out.clear();
    }
    pair.exchange_message();
}

#[test]
fn a_handshake_that_never_ends_is_cut_off() {
    let mut pair = Pair::new(ClientOptions::default());
    pair.check(route(1), true);
    pair.client_hello_only();
    // Fragments of a Certificate message that is never whole.
    let mut closed = None;
    for n in 0..2000u32 {
        let body = [&[11, 0, 100, 0, 0, 2, 0][..], &n.to_be_bytes()[2..], &[0, 0, 1, 7]].concat();
        let mut record = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0];
        record.extend_from_slice(&(n as u16 + 10).to_be_bytes());
        record.extend_from_slice(&(body.len() as u16).to_be_bytes());
        record.extend_from_slice(&body);
        if let Ok(edges) = pair.server.handle_dtls(pair.now, route(1), &record, &mut pair.out) {
            closed = closed.or(edges.closed);
        }
        pair.out.clear();
    }
    assert_eq!(closed, None, "what is beyond the limit is just not taken");
    pair.keep_alive_until(Duration::from_secs(31));
    assert_eq!(pair.edges.closed, Some(CloseReason::DtlsFailed));
}

#[test]
fn channels_of_the_client_open_and_carry_messages_both_ways() {
    let mut pair = Pair::new(ClientOptions::default());
    pair.connect();
    let lossy = Bytes::from_static(b"lossy");
    assert_eq!(pair.server.send_data(pair.now, DataChannel::Lossy, &lossy), Err(DropReason::NotConnected));
    pair.client.start_sctp(pair.now);
    pair.pump();
    pair.client.open_channels(pair.now, &["_reliable", "_lossy", "_data_track", "else"]);
    pair.pump();
    assert!(pair.edges.channels_open);
    for (at, channel) in [DataChannel::Reliable, DataChannel::Lossy, DataChannel::DataTrack].into_iter().enumerate() {
        for size in [1, 1000, 15_000, 60_000] {
            let message = Bytes::from(vec![size as u8; size]);
            pair.client.send(pair.now, at, &message);
            pair.run(Duration::from_secs(1));
            assert_eq!(pair.received.pop(), Some((channel, message.clone())), "{channel:?} {size}");
            assert!(pair.server.send_data(pair.now, channel, &message).unwrap().is_none());
            pair.run(Duration::from_secs(1));
            assert_eq!(pair.client.received.pop(), Some((at, message)), "{channel:?} {size}");
        }
    }
    pair.client.send(pair.now, 3, &lossy);
    pair.pump();
    assert!(pair.received.is_empty(), "a label that means nothing");
    assert!(pair.server.poll_data().is_none() && pair.edges.closed.is_none());
}

#[test]
fn channels_of_ours_open_and_carry_messages() {
    let mut pair = Pair::new(ClientOptions { server_opens: true, ..ClientOptions::default() });
    pair.connect();
    pair.client.start_sctp(pair.now);
    pair.pump();
    assert!(pair.edges.channels_open);
    assert_eq!(pair.client.labels(), ["_reliable", "_lossy", "_data_track"]);
    pair.exchange_message();
}

#[test]
fn reliable_data_arrives_whole_and_in_order_over_a_lossy_path() {
    let mut pair = Pair::new(ClientOptions { server_opens: true, ..ClientOptions::default() });
    pair.connect();
    pair.client.start_sctp(pair.now);
    pair.pump();
    pair.loss_percent = 5;
    for n in 0..60u32 {
        let mut message = vec![n as u8; 10_000];
        message[..4].copy_from_slice(&n.to_be_bytes());
        let message = Bytes::from(message);
        pair.client.send(pair.now, 0, &message);
        assert!(pair.server.send_data(pair.now, DataChannel::Reliable, &message).unwrap().is_none());
    }
    pair.keep_alive_until(Duration::from_secs(60));
    let numbers = |messages: Vec<Bytes>| messages.iter().map(|m| u32::from(m[3])).collect::<Vec<_>>();
    let expected: Vec<u32> = (0..60).collect();
    assert_eq!(numbers(pair.received.iter().map(|(_, m)| m.clone()).collect()), expected);
    assert_eq!(numbers(pair.client.received.iter().map(|(_, m)| m.clone()).collect()), expected);
}

#[test]
fn a_fast_sender_is_held_back_while_control_is_slow() {
    let mut pair = Pair::new(ClientOptions { server_opens: true, ..ClientOptions::default() });
    pair.connect();
    pair.client.start_sctp(pair.now);
    pair.pump();
    pair.take_data = false;
    let message = Bytes::from(vec![1; 10_000]);
    for _ in 0..27 {
        pair.client.send(pair.now, 0, &message);
    }
    pair.keep_alive_until(Duration::from_secs(5));
    pair.client.send(pair.now, 1, &message);
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.received.iter().filter(|(c, _)| *c == DataChannel::Lossy).count(), 0, "lossy is dropped meanwhile");
    assert_eq!(pair.server.stats().messages_dropped, 1);
    for _ in 27..200 {
        pair.client.send(pair.now, 0, &message);
    }
    pair.keep_alive_until(Duration::from_secs(5));
    let held: usize = pair.received.iter().map(|(_, m)| m.len()).sum();
    assert!((256 * 1024..256 * 1024 + 10_000).contains(&held), "{held}");
    pair.take_data = true;
    let edges = pair.server.data_taken(pair.now, held);
    assert!(edges.is_none());
    pair.keep_alive_until(Duration::from_secs(120));
    assert_eq!(pair.received.iter().filter(|(c, _)| *c == DataChannel::Reliable).count(), 200);
}

#[test]
fn a_receiver_that_takes_nothing_is_closed_and_lossy_goes_first() {
    let mut pair = Pair::new(ClientOptions { server_opens: true, ..ClientOptions::default() });
    pair.connect();
    pair.client.start_sctp(pair.now);
    pair.pump();
    let message = Bytes::from(vec![1; 10_000]);
    let mut lossy = 0;
    while pair.server.send_data(pair.now, DataChannel::Lossy, &message).is_ok() {
        lossy += 1;
    }
    assert_eq!(lossy, 6, "64 kB");
    let mut reliable = 0;
    let closed = loop {
        let edges = pair.server.send_data(pair.now, DataChannel::Reliable, &message).unwrap();
        if edges.closed.is_some() {
            break edges.closed;
        }
        reliable += 1;
    };
    assert_eq!((closed, reliable), (Some(CloseReason::DataQueueFull), 413), "4 MiB together");
    assert_eq!(pair.server.send_data(pair.now, DataChannel::Reliable, &message), Err(DropReason::NotConnected));
}

#[test]
fn data_goes_out_in_bounded_portions() {
    let mut pair = Pair::new(ClientOptions { server_opens: true, ..ClientOptions::default() });
    pair.connect();
    pair.client.start_sctp(pair.now);
    pair.pump();
    for _ in 0..50 {
        let _ = pair.server.send_data(pair.now, DataChannel::Reliable, &Bytes::from(vec![1; 20_000]));
    }
    for _ in 0..40 {
        pair.out.clear();
        let _ = pair.server.drain_data(pair.now, &mut pair.out);
        let bytes: usize = pair.out.datagrams().map(|(_, d)| d.len()).sum();
        assert!(bytes < 70_000, "{bytes}");
        pair.deliver_to_client();
        pair.pump_client();
    }
}

#[test]
fn a_message_beyond_the_limit_closes() {
    let mut pair = Pair::new(ClientOptions { server_opens: true, ..ClientOptions::default() });
    pair.connect();
    pair.client.start_sctp(pair.now);
    pair.pump();
    pair.client.send(pair.now, 0, &Bytes::from(vec![1; 70_000]));
    pair.run(Duration::from_secs(2));
    assert_eq!(pair.edges.closed, Some(CloseReason::DataProtocol));
}

#[test]
fn too_many_streams_close() {
    let mut pair = Pair::new(ClientOptions::default());
    pair.connect();
    pair.client.start_sctp(pair.now);
    pair.pump();
    pair.client.open_channels(pair.now, &["a"; 40]);
    pair.run(Duration::from_secs(2));
    assert_eq!(pair.edges.closed, Some(CloseReason::DataProtocol));
}

#[test]
fn media_and_data_follow_the_nominated_route() {
    let mut pair = Pair::new(ClientOptions { server_opens: true, ..ClientOptions::default() });
    pair.connect();
    pair.client.start_sctp(pair.now);
    pair.pump();
    pair.check(route(2), true);
    assert_eq!(pair.server.route(), Some(route(2)));
    let _ = pair.server.send_data(pair.now, DataChannel::Reliable, &Bytes::from_static(b"x"));
    pair.out.clear();
    let _ = pair.server.drain_data(pair.now, &mut pair.out);
    assert!(pair.out.datagrams().all(|(to, _)| to == route(2)));
    assert_eq!(pair.server.stats().route_changes, 2);
}

#[test]
fn a_plain_transport_has_the_same_surface() {
    let mut plain = Transport::plain(route(1), &Config::default());
    assert!(plain.is_connected() && plain.route() == Some(route(1)) && plain.next_timeout().is_none());
    let mut packet = rtp(3, 65_535);
    assert_eq!(plain.open_rtp(Instant::ZERO, &mut packet).unwrap().index, 65_535);
    assert_eq!(plain.open_rtp(Instant::ZERO, &mut rtp(3, 0)).unwrap(), Opened { len: packet.len(), index: 65_536 });
    let mut sealed = Vec::new();
    plain.seal_rtp(0, &packet[..12], &[b"pay", b"load"], &mut sealed).unwrap();
    assert_eq!(sealed, packet);
    let mut out = Outbox::new();
    assert!(plain.send_data(Instant::ZERO, DataChannel::Lossy, &Bytes::from_static(b"hi")).unwrap().is_none());
    assert!(plain.wants_drain());
    let _ = plain.drain_data(Instant::ZERO, &mut out);
    let sent: Vec<_> = out.datagrams().map(|(_, d)| d.to_vec()).collect();
    let mut other = Transport::plain(route(2), &Config::default());
    assert!(other.handle_dtls(Instant::ZERO, route(1), &sent[0], &mut out).unwrap().is_none());
    assert_eq!(other.poll_data(), Some((DataChannel::Lossy, Bytes::from_static(b"hi"))));
}
