//! ICE-lite against checks of an independent codec: nomination, restart, hostile requests, time limits.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests may panic")]

use core::time::Duration;

use rtc_dtls::crypto_provider::default_provider;
use rtc_stun::attributes::*;
use rtc_stun::fingerprint::FINGERPRINT;
use rtc_stun::integrity::MessageIntegrity;
use rtc_stun::message::{BINDING_REQUEST, Message, Setter, TransactionId};

use super::*;

const PASSWORD: &str = "the local password 0123";
const NEW_PASSWORD: &str = "the new password 456789";

/// A connectivity check as a browser sends it, made by an independent codec.
pub(crate) fn check(username: &str, password: &str, use_candidate: bool, controlled: bool) -> Vec<u8> {
    let provider = default_provider().unwrap();
    let mut message = Message::new();
    message.build(&[Box::new(BINDING_REQUEST), Box::new(TransactionId([5; 12]))]).unwrap();
    let mut add = |typ, value: &[u8]| message.add(typ, value);
    add(ATTR_USERNAME, username.as_bytes());
    add(ATTR_PRIORITY, &[0, 0, 1, 0]);
    add(if controlled { ATTR_ICE_CONTROLLED } else { ATTR_ICE_CONTROLLING }, &[3; 8]);
    if use_candidate {
        add(ATTR_USE_CANDIDATE, &[]);
    }
    MessageIntegrity::new_short_term_integrity_with_provider(password.into(), provider.crypto())
        .add_to(&mut message)
        .unwrap();
    FINGERPRINT.add_to(&mut message).unwrap();
    message.raw
}

fn route(port: u16) -> Route {
    Route::Udp { local: ([127, 0, 0, 1], 7882).into(), remote: ([10, 0, 0, 9], port).into() }
}

struct Agent {
    ice: IceLite,
    out: Outbox,
}

impl Agent {
    fn new() -> Self {
        let local = IceCredentials { ufrag: "local".into(), pwd: PASSWORD.into() };
        let config = Config { max_routes: 3, ..Config::default() };
        Self { ice: IceLite::new(Instant::ZERO, &local, &config), out: Outbox::new() }
    }

    /// What came of it and the size of the answer.
    fn take(&mut self, port: u16, packet: &[u8]) -> (Result<Checked, DropReason>, usize) {
        self.out.clear();
        let result = self.ice.handle_stun(Instant::from_millis(5), route(port), packet, &mut self.out);
        assert!(self.out.datagrams().all(|(to, _)| to == route(port)), "answers go where the request came from");
        (result, self.out.datagrams().map(|(_, datagram)| datagram.len()).sum())
    }
}

#[test]
fn the_first_check_gives_a_route_and_a_nomination_selects() {
    let mut agent = Agent::new();
    let (checked, answer) = agent.take(1, &check("local:remote", PASSWORD, false, false));
    assert_eq!(checked.unwrap().bound, Some(route(1)));
    assert!(answer > 0);
    assert_eq!(agent.ice.route(), Some(route(1)));
    agent.take(2, &check("local:remote", PASSWORD, false, false)).0.unwrap();
    assert_eq!(agent.ice.route(), Some(route(1)), "a check alone does not move it");
    agent.take(2, &check("local:remote", PASSWORD, true, false)).0.unwrap();
    assert_eq!(agent.ice.route(), Some(route(2)));
    agent.take(1, &check("local:remote", PASSWORD, true, false)).0.unwrap();
    assert_eq!(agent.ice.route(), Some(route(1)), "the latest nomination counts");
}

#[test]
fn a_far_end_that_has_moved_is_followed_without_a_nomination() {
    let mut agent = Agent::new();
    agent.take(1, &check("local:remote", PASSWORD, true, false)).0.unwrap();
    agent.take(2, &check("local:remote", PASSWORD, false, false)).0.unwrap();
    let mut at = |ms: u64, port: u16, ice: &mut IceLite| {
        let packet = check("local:remote", PASSWORD, false, false);
        ice.handle_stun(Instant::from_millis(ms), route(port), &packet, &mut agent.out).unwrap();
        ice.route()
    };
    let ice = &mut agent.ice;
    ice.arrived_by(Instant::from_millis(5_000), route(1));
    assert_eq!(at(5_100, 3, ice), Some(route(1)), "it was heard of a moment ago");
    assert_eq!(at(6_000, 2, ice), Some(route(1)), "a spare is only kept open");
    assert_eq!(at(6_000, 4, ice), Some(route(4)), "another address after silence");
    ice.arrived_by(Instant::from_millis(6_400), route(2));
    assert_eq!(ice.route(), Some(route(4)));
    ice.arrived_by(Instant::from_millis(7_000), route(9));
    assert_eq!(ice.route(), Some(route(4)), "nothing goes to where nobody proved to be");
    ice.arrived_by(Instant::from_millis(7_000), route(2));
    assert_eq!(ice.route(), Some(route(2)), "media shows where the far end is");
}

#[test]
fn nothing_unauthentic_is_answered_or_remembered() {
    let mut agent = Agent::new();
    let good = check("local:remote", PASSWORD, true, false);
    let mut tampered = good.clone();
    tampered[30] ^= 1;
    let no_integrity = {
        let mut message = Message::new();
        message.build(&[Box::new(BINDING_REQUEST), Box::new(TransactionId([5; 12]))]).unwrap();
        message.add(ATTR_USERNAME, b"local:remote");
        FINGERPRINT.add_to(&mut message).unwrap();
        message.raw
    };
    for packet in [
        check("local:remote", "wrong password 012345678", true, false),
        check("other:remote", PASSWORD, true, false),
        check("local", PASSWORD, true, false),
        check("", PASSWORD, true, false),
        check("local:remote", "wrong password 012345678", true, true),
        tampered,
        no_integrity,
        good[..good.len() - 8].to_vec(),
        [good, vec![0; 4]].concat(),
        vec![],
        vec![0; 20],
    ] {
        let (result, answer) = agent.take(1, &packet);
        assert!(matches!(result, Err(DropReason::StunRefused | DropReason::MalformedStun)), "{result:?}");
        assert_eq!(answer, 0);
    }
    assert_eq!(agent.ice.route(), None);
    assert!(!agent.ice.knows(route(1)));
    assert_eq!(agent.ice.deadline().1, CloseReason::IceTimeout);
}

#[test]
fn a_controlled_far_end_is_told_of_the_role_conflict() {
    let mut agent = Agent::new();
    let request = check("local:remote", PASSWORD, false, true);
    let (result, answer) = agent.take(1, &request);
    assert_eq!(result, Err(DropReason::StunRefused));
    assert!(answer > 0 && answer <= request.len());
    assert!(!agent.ice.knows(route(1)));
}

#[test]
fn old_credentials_work_until_the_new_ones_are_used() {
    let mut agent = Agent::new();
    agent.take(1, &check("local:remote", PASSWORD, true, false)).0.unwrap();
    let local = IceCredentials { ufrag: "new".into(), pwd: NEW_PASSWORD.into() };
    assert_eq!(agent.ice.restart(&local), None);
    agent.take(1, &check("local:remote", PASSWORD, true, false)).0.unwrap();
    assert!(agent.take(2, &check("new:remote", PASSWORD, true, false)).0.is_err(), "each ufrag has its password");
    let checked = agent.take(2, &check("new:remote2", NEW_PASSWORD, false, false)).0.unwrap();
    assert_eq!(checked.retired.as_deref(), Some("local"));
    assert_eq!(agent.ice.route(), Some(route(2)), "the new session's first route");
    assert!(agent.take(1, &check("local:remote", PASSWORD, true, false)).0.is_err());
    agent.take(1, &check("new:remote2", NEW_PASSWORD, true, false)).0.unwrap();
    assert_eq!(agent.ice.route(), Some(route(1)));
}

#[test]
fn a_second_restart_replaces_one_that_was_not_used() {
    let mut agent = Agent::new();
    let credentials = |ufrag: &str| IceCredentials { ufrag: ufrag.into(), pwd: NEW_PASSWORD.into() };
    assert_eq!(agent.ice.restart(&credentials("one")), None);
    assert_eq!(agent.ice.restart(&credentials("two")).as_deref(), Some("one"));
    assert!(agent.take(1, &check("one:remote", NEW_PASSWORD, true, false)).0.is_err());
    agent.take(1, &check("two:remote", NEW_PASSWORD, true, false)).0.unwrap();
}

#[test]
fn never_forgets_the_selected_route_for_new_ones() {
    let mut agent = Agent::new();
    agent.take(1, &check("local:remote", PASSWORD, true, false)).0.unwrap();
    let mut evicted = Vec::new();
    for port in 2..10 {
        evicted.extend(agent.take(port, &check("local:remote", PASSWORD, false, false)).0.unwrap().evicted);
    }
    assert_eq!(evicted, (2..8).map(route).collect::<Vec<_>>());
    assert!(agent.ice.knows(route(1)) && !agent.ice.knows(route(2)));
    agent.ice.forget(route(1));
    assert_eq!(agent.ice.route(), Some(route(9)), "the one heard of last takes over");
}

#[test]
fn keeps_time() {
    let mut agent = Agent::new();
    assert_eq!(agent.ice.deadline(), (Instant::from_millis(20_000), CloseReason::IceTimeout));
    agent.take(1, &check("local:remote", PASSWORD, true, false)).0.unwrap();
    assert_eq!(agent.ice.deadline(), (Instant::from_millis(10_005), CloseReason::Silent));
    agent.ice.heard(Instant::ZERO + Duration::from_secs(8));
    assert_eq!(agent.ice.deadline(), (Instant::from_millis(18_000), CloseReason::Silent));
}
