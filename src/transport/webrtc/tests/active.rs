//! The same with us as DTLS client and the far end as server.

use super::*;

fn served() -> ClientOptions {
    ClientOptions { is_server: true, ..ClientOptions::default() }
}

#[test]
fn offers_both_profiles_and_media_flows_both_ways() {
    for (offer, profile) in [
        (vec![GCM, CM], Profile::AeadAes128Gcm),
        (vec![GCM], Profile::AeadAes128Gcm),
        (vec![CM], Profile::Aes128CmSha1),
    ] {
        let mut pair = Pair::new(ClientOptions { offer, ..served() });
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
fn connects_over_a_lossy_path() {
    for seed in 0..20 {
        let mut pair = Pair::new(ClientOptions { loss_percent: 30, seed, ..served() });
        pair.keep_alive_until(Duration::from_secs(28));
        assert!(pair.edges.connected && pair.client.is_established(), "seed {seed}: {:?}", pair.edges);
    }
}

#[test]
fn connects_though_flights_come_in_pieces_in_the_wrong_order() {
    for reverse in [false, true] {
        let mut pair = Pair::new(ClientOptions { mtu: 100, reverse, ..served() });
        pair.keep_alive_until(Duration::from_secs(5));
        assert!(pair.edges.connected && pair.client.is_established(), "reverse: {reverse}, {:?}", pair.edges);
    }
}

#[test]
fn says_the_first_word_when_route_and_far_end_are_known() {
    let mut pair = Pair::new(ClientOptions { remote_known: false, ..served() });
    pair.check(route(1), true);
    pair.pump();
    assert!(pair.out.is_quiet() && !pair.client.is_established());
    let remote = pair.client.remote();
    assert!(pair.server.set_remote(pair.now, &remote).is_none());
    assert_eq!(pair.server.next_timeout(), Some(pair.now));
    pair.run(Duration::from_millis(1));
    assert!(pair.edges.connected && pair.client.is_established());

    let mut pair = Pair::new(served());
    pair.run(Duration::from_secs(1));
    assert!(!pair.client.is_established(), "no route");
    pair.connect();
}

#[test]
fn a_far_end_that_never_answers_is_asked_a_bounded_number_of_times() {
    let mut pair = Pair::new(ClientOptions { silent: true, ..served() });
    let mut asked = 0;
    while pair.edges.closed.is_none() {
        pair.check(route(1), true);
        for _ in 0..50 {
            pair.now = pair.now + Duration::from_millis(100);
            let _ = pair.server.handle_timeout(pair.now, &mut pair.out);
            let hellos = pair.out.datagrams().filter(|(_, d)| d[0] == 22 && d[13] == 1);
            asked += hellos.count();
            pair.out.clear();
        }
        pair.run(Duration::from_millis(1));
        assert!(pair.now < Instant::from_millis(60_000));
        if pair.server.next_timeout().is_none() {
            break;
        }
    }
    assert!((5..=12).contains(&asked), "{asked}");
}

#[test]
fn closes_on_another_certificate_and_on_another_role() {
    let mut pair = Pair::new(ClientOptions { remote_known: false, ..served() });
    let mut remote = pair.client.remote();
    remote.fingerprint.0[5] ^= 1;
    assert!(pair.server.set_remote(pair.now, &remote).is_none());
    pair.check(route(1), true);
    pair.pump();
    assert_eq!(pair.edges.closed, Some(CloseReason::FingerprintMismatch));
    assert!(!pair.server.is_connected());

    for is_server in [false, true] {
        let mut pair = Pair::new(ClientOptions { is_server, ..ClientOptions::default() });
        pair.connect();
        let mut remote = pair.client.remote();
        assert!(pair.server.set_remote(pair.now, &remote).is_none());
        remote.dtls = if is_server { DtlsRole::Passive } else { DtlsRole::Active };
        assert_eq!(pair.server.set_remote(pair.now, &remote).closed, Some(CloseReason::FingerprintMismatch));
    }

    // It says first word itself and then, that we should have.
    let mut pair = Pair::new(ClientOptions { remote_known: false, ..ClientOptions::default() });
    pair.check(route(1), true);
    pair.pump();
    let remote = RemoteParams { dtls: DtlsRole::Active, ..pair.client.remote() };
    assert_eq!(pair.server.set_remote(pair.now, &remote).closed, Some(CloseReason::FingerprintMismatch));
}

#[test]
fn data_flows_both_ways_whoever_opens_the_channels() {
    for server_opens in [false, true] {
        let mut pair = Pair::new(ClientOptions { server_opens, ..served() });
        pair.connect();
        pair.client.start_sctp(pair.now);
        pair.pump();
        if server_opens {
            assert_eq!(pair.client.labels(), ["_reliable", "_lossy", "_data_track"]);
        } else {
            pair.client.open_channels(pair.now, &["_reliable", "_lossy"]);
            pair.pump();
        }
        assert!(pair.edges.channels_open);
        assert!(pair.client.channel_ids().all(|id| id % 2 == u16::from(!server_opens)));
        pair.exchange_message();
    }
}

#[test]
fn starts_the_association_where_the_far_end_waits_for_it() {
    for server_opens in [false, true] {
        let mut pair = Pair::new(ClientOptions { server_opens, awaits_association: true, ..served() });
        pair.connect();
        pair.keep_alive_until(Duration::from_secs(1));
        if !server_opens {
            pair.client.open_channels(pair.now, &["_reliable", "_lossy"]);
            pair.pump();
        }
        assert!(pair.edges.channels_open);
        pair.exchange_message();
    }
}

#[test]
fn reliable_data_survives_loss_from_the_first_word_on() {
    for seed in 0..5 {
        let mut pair = Pair::new(ClientOptions { server_opens: true, loss_percent: 15, seed, ..served() });
        pair.keep_alive_until(Duration::from_secs(20));
        assert!(pair.edges.connected, "{seed}");
        pair.client.start_sctp(pair.now);
        pair.keep_alive_until(Duration::from_secs(20));
        assert!(pair.edges.channels_open, "{seed}");
        let message = Bytes::from(vec![7; 10_000]);
        pair.client.send(pair.now, 0, &message);
        assert!(pair.server.send_data(pair.now, DataChannel::Reliable, &message).unwrap().is_none());
        pair.keep_alive_until(Duration::from_secs(60));
        assert_eq!(pair.received.pop(), Some((DataChannel::Reliable, message.clone())), "{seed}");
        assert_eq!(pair.client.received.pop(), Some((0, message)), "{seed}");
    }
}

#[test]
fn goodbyes_and_junk() {
    let mut pair = Pair::new(served());
    pair.connect();
    let mut rng = crate::base::Rng::new(5);
    let mut sent = 0;
    for _ in 0..5_000 {
        let size = 13 + rng.below(100) as usize;
        let mut junk: Vec<u8> = (0..size).map(|_| rng.next_u32() as u8).collect();
        junk[0] = 20 + rng.below(4) as u8;
        junk[1..5].copy_from_slice(&[0xfe, 0xfd, 0, rng.below(3) as u8]);
        junk[11..13].copy_from_slice(&((size - 13) as u16).to_be_bytes());
        if let Ok(edges) = pair.server.handle_dtls(pair.now, route(1), &junk, &mut pair.out) {
            assert!(edges.is_none());
        }
        sent += pair.out.datagrams().map(|(_, d)| d.len()).sum::<usize>();
        pair.out.clear();
    }
    assert!(sent < 16_000, "{sent} bytes in answer to junk");
    pair.exchange_message();
    pair.client.close(pair.now);
    pair.pump();
    assert_eq!(pair.edges.closed, Some(CloseReason::ClosedByPeer));

    let mut pair = Pair::new(served());
    pair.connect();
    pair.server.close(pair.now, &mut pair.out);
    pair.pump();
    assert!(pair.client.closed);
}
