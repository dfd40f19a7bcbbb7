//! SRTP against the vectors of its RFCs and an independent implementation, and against replays and forgeries.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::indexing_slicing, reason = "tests may panic")]

use rtc_srtp::context::Context;
use rtc_srtp::protection_profile::ProtectionProfile;

use super::*;
use crate::base::Rng;

const PROFILES: [(Profile, ProtectionProfile); 2] = [
    (Profile::AeadAes128Gcm, ProtectionProfile::AeadAes128Gcm),
    (Profile::Aes128CmSha1, ProtectionProfile::Aes128CmHmacSha1_80),
];

fn material(profile: Profile) -> Vec<u8> {
    (0..profile.exported()).map(|i| (i * 7 + 3) as u8).collect()
}

/// Us as server and as client, with the same keying material.
fn pair(profile: Profile) -> (Srtp, Srtp) {
    let config = Config::default();
    let material = material(profile);
    (Srtp::new(profile, &material, false, &config).unwrap(), Srtp::new(profile, &material, true, &config).unwrap())
}

/// The library's context for the client's key: opens what our client sealed, seals what our server opens.
fn library(profile: Profile, theirs: ProtectionProfile) -> Context {
    let material = material(profile);
    let salt = &material[2 * KEY..2 * KEY + profile.salt()];
    let provider = rtc_dtls::crypto_provider::default_provider().unwrap();
    Context::new(&material[..KEY], salt, theirs, None, None, provider.crypto()).unwrap()
}

fn header(ssrc: u32, index: u64, extension: bool) -> Vec<u8> {
    let mut header = vec![if extension { 0x90 } else { 0x80 }, 96];
    header.extend_from_slice(&(index as u16).to_be_bytes());
    header.extend_from_slice(&[0, 0, 0, 9]);
    header.extend_from_slice(&ssrc.to_be_bytes());
    if extension {
        header.extend_from_slice(&[0xbe, 0xde, 0, 1, 0x10, 0xff, 0, 0]);
    }
    header
}

fn sealed(srtp: &mut Srtp, ssrc: u32, index: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![1, 2, 3];
    let (a, b) = payload.split_at(payload.len() / 3);
    srtp.seal_rtp(index, &header(ssrc, index, true), &[a, b], &mut out).unwrap();
    assert_eq!(out[..3], [1, 2, 3], "what was in the buffer stays");
    out.split_off(3)
}

fn receiver_report(ssrc: u32, blocks: usize) -> Vec<u8> {
    let mut packet = vec![0x80 | blocks as u8, 201, 0, (1 + 6 * blocks) as u8];
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.resize(8 + 24 * blocks, 7);
    packet
}

#[test]
fn rtp_is_what_the_library_makes_and_takes_across_roll_over() {
    for (profile, theirs) in PROFILES {
        let (mut server, mut client) = pair(profile);
        let (mut seals, mut opens) = (library(profile, theirs), library(profile, theirs));
        let mut rng = Rng::new(1);
        for ssrc in [0xdead_beef, 1] {
            // Across two roll-overs, with gaps.
            let mut index = 65_000;
            while index < 200_000 {
                let payload = vec![index as u8; rng.below(1200) as usize];
                let plain = [header(ssrc, index, true), payload.clone()].concat();
                let ours = sealed(&mut client, ssrc, index, &payload);
                assert_eq!(seals.encrypt_rtp(&plain).unwrap(), ours, "{profile:?} {index}");
                assert_eq!(opens.decrypt_rtp(&ours).unwrap(), plain);
                let mut packet = ours;
                let opened = server.open_rtp(&mut packet).unwrap();
                assert_eq!((opened.index, &packet[..opened.len]), (index, &plain[..]));
                index += 1 + rng.below(2000);
            }
        }
    }
}

#[test]
fn rtcp_is_what_the_library_makes_and_takes() {
    for (profile, theirs) in PROFILES {
        let (mut server, mut client) = pair(profile);
        let (mut seals, mut opens) = (library(profile, theirs), library(profile, theirs));
        for n in 0..50 {
            let plain = receiver_report(99, n % 5);
            let mut ours = Vec::new();
            client.seal_rtcp(&plain, &mut ours).unwrap();
            assert_eq!(opens.decrypt_rtcp(&ours).unwrap(), plain, "{profile:?} {n}");
            let len = server.open_rtcp(&mut ours).unwrap();
            assert_eq!(&ours[..len], plain);
            // Another SSRC: the library counts from its own start.
            let plain = receiver_report(100, n % 5);
            let mut theirs = seals.encrypt_rtcp(&plain).unwrap().to_vec();
            let len = server.open_rtcp(&mut theirs).unwrap();
            assert_eq!(&theirs[..len], plain);
        }
    }
}

#[test]
fn derives_the_session_keys_of_rfc_3711_b3() {
    let key = hex("E1F97A0D3E018BE0D64FA32C06DE4139");
    let salt = hex("0EC675AD498AFEEBB6960B3AABE6");
    let [session, auth, session_salt] = cipher::session_keys(&key, &salt);
    assert_eq!(session, hex("C61E7A93744F39EE10734AFE3FF7A087"));
    assert_eq!(session_salt, hex("30CBBC08863D8C85D49DB34A9AE1"));
    assert_eq!(auth, hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"));
}

#[test]
fn seals_the_packet_of_rfc_7714_16_1() {
    // The RFC gives session key and salt, so derivation is left out.
    let cipher =
        Cipher::gcm_with_session_key(&hex("000102030405060708090a0b0c0d0e0f"), &hex("517569642070726f2071756f"));
    let header = hex("8040f17b8041f8d35501a0b2");
    let payload = hex("47616c6c696120657374206f6d6e69732064697669736120696e207061727465732074726573");
    let mut out = [header.clone(), payload].concat();
    cipher.seal_rtp(&mut out, 0, header.len(), 0x5501_a0b2, 0xf17b).unwrap();
    let expected = "8040f17b8041f8d35501a0b2f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833899d7f27beb16a9152cf765ee4390cce";
    assert_eq!(out, hex(expected));
    assert_eq!(cipher.open_rtp(&mut out, 12, 0x5501_a0b2, 0xf17b), Ok(12 + 38));
}

#[test]
fn refuses_replays_forgeries_and_late_packets() {
    for (profile, _) in PROFILES {
        let (mut server, mut client) = pair(profile);
        let early = sealed(&mut client, 5, 10, b"early");
        let packet = sealed(&mut client, 5, 1000, b"payload");
        assert!(server.open_rtp(&mut packet.clone()).is_ok());
        assert_eq!(server.open_rtp(&mut packet.clone()), Err(DropReason::Replayed));
        assert!(server.open_rtp(&mut early.clone()).is_ok(), "late within the window");
        assert_eq!(server.open_rtp(&mut early.clone()), Err(DropReason::Replayed));
        let far = sealed(&mut client, 5, 3000, b"payload");
        assert!(server.open_rtp(&mut far.clone()).is_ok());
        assert_eq!(server.open_rtp(&mut early.clone()), Err(DropReason::TooLate));
        let fresh = sealed(&mut client, 5, 3001, b"payload");
        for at in 0..fresh.len() {
            let mut forged = fresh.clone();
            forged[at] ^= 0x40;
            assert!(server.open_rtp(&mut forged).is_err(), "byte {at}");
        }
        assert_eq!(server.open_rtp(&mut fresh.clone()).map(|o| o.index), Ok(3001), "forgeries do no harm");

        let mut report = Vec::new();
        client.seal_rtcp(&receiver_report(7, 1), &mut report).unwrap();
        for at in 0..report.len() {
            let mut forged = report.clone();
            forged[at] ^= 0x40;
            assert!(server.open_rtcp(&mut forged).is_err(), "byte {at}");
        }
        assert!(server.open_rtcp(&mut report.clone()).is_ok());
        assert_eq!(server.open_rtcp(&mut report.clone()), Err(DropReason::Replayed));
    }
}

#[test]
fn never_seals_an_index_twice() {
    let (_, mut client) = pair(Profile::AeadAes128Gcm);
    let mut out = Vec::new();
    let mut seal = |index| client.seal_rtp(index, &header(1, index, false), &[b"x"], &mut out);
    assert_eq!(seal(70_000), Ok(()));
    assert_eq!(seal(69_999), Ok(()), "out of order is fine");
    assert_eq!(seal(70_000), Err(DropReason::Duplicate));
    assert_eq!(seal(70_000 - 2000), Err(DropReason::TooLate));
    assert_eq!(seal((1 << 48) + 5), Err(DropReason::MalformedRtp));
    assert_eq!(client.seal_rtp(7, &header(1, 8, false), &[], &mut out), Err(DropReason::MalformedRtp));
    assert_eq!(out.len(), 2 * (12 + 1 + 16), "a refusal appends nothing");
}

#[test]
fn remembers_no_more_streams_than_the_cap() {
    let config = Config { max_receive_streams: 4, max_send_streams: 3, ..Config::default() };
    let material = material(Profile::AeadAes128Gcm);
    let mut server = Srtp::new(Profile::AeadAes128Gcm, &material, false, &config).unwrap();
    let (_, mut client) = pair(Profile::AeadAes128Gcm);
    for ssrc in 0..100 {
        assert!(server.open_rtp(&mut sealed(&mut client, ssrc, 1, b"x")).is_ok());
        assert!(server.open_rtp(&mut sealed(&mut client, 0, u64::from(ssrc) + 2, b"x")).is_ok(), "one in use is kept");
    }
    assert_eq!(server.received.len(), 4);
    let mut out = Vec::new();
    let results = (0..5).map(|ssrc| server.seal_rtp(1, &header(ssrc, 1, false), &[], &mut out));
    assert_eq!(results.filter(|r| *r == Err(DropReason::Full)).count(), 2);
}

#[test]
fn unwraps_to_the_nearest_index() {
    for (highest, seq, index) in [
        (0, 5, 5),
        (5, 65_535, 65_535),
        (65_535, 0, 65_536),
        (65_536, 65_535, 65_535),
        (3 << 16, 65_000, (2 << 16) + 65_000),
        ((3 << 16) + 40_000, 100, (4 << 16) + 100),
    ] {
        assert_eq!(unwrap_index(highest, seq), index, "{highest} {seq}");
    }
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}
