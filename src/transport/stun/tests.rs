//! STUN against an independent codec, and against damaged and forged messages.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::indexing_slicing, reason = "tests may panic")]

use rtc_dtls::crypto_provider::default_provider;
use rtc_stun::attributes::{ATTR_ICE_CONTROLLING, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME, RawAttribute};
use rtc_stun::fingerprint::FINGERPRINT as LIBRARY_FINGERPRINT;
use rtc_stun::integrity::MessageIntegrity;
use rtc_stun::message::{BINDING_REQUEST as LIBRARY_REQUEST, Getter, Message, Setter, TransactionId};
use rtc_stun::textattrs::TextAttribute;
use rtc_stun::xoraddr::XorMappedAddress;

use super::*;

const PASSWORD: &str = "0123456789012345678901";

/// A check as the library builds one.
fn check(username: &str, password: &str) -> Vec<u8> {
    let provider = default_provider().unwrap();
    let integrity = MessageIntegrity::new_short_term_integrity_with_provider(password.into(), provider.crypto());
    let raw = |typ, value: &[u8]| RawAttribute { typ, length: value.len() as u16, value: value.to_vec() };
    let mut message = Message::new();
    message
        .build(&[
            Box::new(LIBRARY_REQUEST),
            Box::new(TransactionId([7; 12])),
            Box::new(TextAttribute::new(ATTR_USERNAME, username.into())) as Box<dyn Setter>,
        ])
        .unwrap();
    raw(ATTR_PRIORITY, &[1, 2, 3, 4]).add_to(&mut message).unwrap();
    raw(ATTR_ICE_CONTROLLING, &[9; 8]).add_to(&mut message).unwrap();
    raw(ATTR_USE_CANDIDATE, &[]).add_to(&mut message).unwrap();
    integrity.add_to(&mut message).unwrap();
    LIBRARY_FINGERPRINT.add_to(&mut message).unwrap();
    message.raw
}

#[test]
fn reads_a_check_of_the_library() {
    for username in ["l:r", "local:remote", "abcd:efghi"] {
        let packet = check(username, PASSWORD);
        let request = parse(&packet).unwrap();
        assert_eq!(request.ice_username(), username.split_once(':'));
        assert!(request.use_candidate && !request.controlled);
        assert!(request.is_authentic(&integrity_key(PASSWORD)));
        assert!(!request.is_authentic(&integrity_key("another password of 22")));
    }
}

#[test]
fn writes_answers_the_library_takes() {
    let packet = check("local:remote", PASSWORD);
    let request = parse(&packet).unwrap();
    let provider = default_provider().unwrap();
    for from in ["10.1.2.3:4567", "[2001:db8::7]:89"] {
        let from: SocketAddr = from.parse().unwrap();
        let mut out = Vec::from(*b"before");
        request.write_success(from, &integrity_key(PASSWORD), &mut out);
        let mut message = Message::new();
        message.unmarshal_binary(&out[6..]).unwrap();
        assert_eq!(message.typ, rtc_stun::message::BINDING_SUCCESS);
        assert_eq!(message.transaction_id.0, [7; 12]);
        let mut address = XorMappedAddress::default();
        address.get_from(&message).unwrap();
        assert_eq!((address.ip, address.port), (from.ip(), from.port()));
        MessageIntegrity::check(&mut message, PASSWORD.as_bytes(), provider.crypto()).unwrap();
        LIBRARY_FINGERPRINT.check(&message).unwrap();
    }
    let mut out = Vec::new();
    request.write_role_conflict(&integrity_key(PASSWORD), &mut out);
    let mut message = Message::new();
    message.unmarshal_binary(&out).unwrap();
    assert_eq!(message.typ, rtc_stun::message::BINDING_ERROR);
    let mut code = rtc_stun::error_code::ErrorCodeAttribute::default();
    code.get_from(&message).unwrap();
    assert_eq!(code.code.0, 487);
    MessageIntegrity::check(&mut message, PASSWORD.as_bytes(), provider.crypto()).unwrap();
    LIBRARY_FINGERPRINT.check(&message).unwrap();
}

#[test]
fn refuses_every_cut_and_every_flipped_bit() {
    let packet = check("local:remote", PASSWORD);
    let key = integrity_key(PASSWORD);
    for end in 0..packet.len() {
        assert!(parse(&packet[..end]).is_err(), "cut at {end}");
    }
    for at in 0..packet.len() {
        for bit in 0..8 {
            let mut broken = packet.clone();
            broken[at] ^= 1 << bit;
            assert!(!parse(&broken).is_ok_and(|request| request.is_authentic(&key)), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn ignores_what_stands_behind_the_integrity() {
    // A man in the middle may put an attribute there and fix the fingerprint.
    let packet = check("local:remote", PASSWORD);
    let mut forged = packet[..packet.len() - 8].to_vec();
    forged.extend_from_slice(&[0x80, 0x29, 0, 8, 1, 1, 1, 1, 1, 1, 1, 1]);
    let length = (forged.len() + 8 - 20) as u16;
    forged[2..4].copy_from_slice(&length.to_be_bytes());
    let crc = crc32(&forged) ^ FINGERPRINT_XOR;
    forged.extend_from_slice(&[0x80, 0x28, 0, 4]);
    forged.extend_from_slice(&crc.to_be_bytes());
    let request = parse(&forged).unwrap();
    assert!(request.is_authentic(&integrity_key(PASSWORD)));
    assert!(!request.controlled, "an unauthenticated ICE-CONTROLLED has no effect");
}
