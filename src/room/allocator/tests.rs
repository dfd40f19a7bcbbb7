//! Tables for the allocator: budgets and what becomes of them.

#![allow(clippy::indexing_slicing, reason = "tests")]

use super::*;

const LADDER: [Option<Bitrate>; 3] =
    [Some(Bitrate::from_kbps(150)), Some(Bitrate::from_kbps(500)), Some(Bitrate::from_kbps(1700))];
const CAMERA: Request = Request {
    kind: MediaKind::Video,
    priority: 1,
    max_spatial: 2,
    costs: LADDER,
    held: None,
    not_above: None,
    paused: false,
};
const SCREEN: Request = Request { priority: 255, ..CAMERA };
const VOICE: Request = Request {
    kind: MediaKind::Audio,
    priority: 1,
    max_spatial: 0,
    costs: [None; 3],
    held: None,
    not_above: None,
    paused: false,
};

fn at(spatial: u8) -> Target {
    Target::Layer { spatial, starved: false }
}

fn shared(kbps: u64, requests: &[Request], allow_pause: bool) -> Vec<Target> {
    let mut targets = Vec::new();
    let pausing = if allow_pause { Pausing::Now } else { Pausing::Never };
    allocate(Bitrate::from_kbps(kbps), requests, pausing, &mut targets);
    targets
}

#[test]
fn everybody_gets_the_lowest_layer_before_anybody_gets_more() {
    assert_eq!(shared(100_000, &[CAMERA; 3], false), [at(2); 3]);
    assert_eq!(shared(700, &[CAMERA; 4], false), [at(0); 4]);
    assert_eq!(shared(1100, &[CAMERA; 4], false), [at(1), at(0), at(0), at(0)]);
}

#[test]
fn screens_are_raised_first() {
    assert_eq!(shared(800, &[CAMERA, SCREEN], false), [at(0), at(1)]);
}

#[test]
fn sound_is_paid_for_before_pictures() {
    let requests = [CAMERA, VOICE, VOICE, VOICE, VOICE];
    assert_eq!(shared(600, &requests, false)[0], at(0), "160 of 600 are for voices");
    assert_eq!(shared(0, &requests, true), [Target::Paused, at(0), at(0), at(0), at(0)]);
}

#[test]
fn what_does_not_fit_is_starved_or_paused() {
    let starved = Target::Layer { spatial: 0, starved: true };
    assert_eq!(shared(100, &[CAMERA], false), [starved]);
    assert_eq!(shared(100, &[CAMERA], true), [Target::Paused]);
    assert_eq!(shared(200, &[CAMERA, SCREEN], true), [Target::Paused, at(0)]);
}

#[test]
fn a_held_layer_needs_no_reserve() {
    let held = Request { held: Some(1), ..CAMERA };
    assert_eq!(shared(510, &[CAMERA], false), [at(0)]);
    assert_eq!(shared(510, &[held], false), [at(1)]);
}

#[test]
fn a_layer_that_does_not_flow_is_let_in_where_there_is_room() {
    let low_only = Request { costs: [LADDER[0], None, None], ..CAMERA };
    assert_eq!(shared(100_000, &[low_only], false), [at(2)]);
    assert_eq!(shared(400, &[low_only], false), [at(0)]);
    let top_only = Request { costs: [None, None, LADDER[2]], max_spatial: 0, ..CAMERA };
    assert_eq!(shared(100_000, &[top_only], false), [at(2)], "better too large than nothing");
    assert_eq!(shared(100_000, &[Request { costs: [None; 3], ..CAMERA }], false), [at(2)]);
}

#[test]
fn more_budget_never_takes_from_anybody() {
    let requests = [CAMERA, SCREEN, VOICE, Request { max_spatial: 1, ..CAMERA }];
    let rank = |t: &Target| match t {
        Target::Paused => 0,
        Target::Layer { starved: true, .. } => 1,
        Target::Layer { spatial, .. } => 2 + *spatial,
    };
    let mut before = vec![0; requests.len()];
    for kbps in (0..6000).step_by(50) {
        let now: Vec<u8> = shared(kbps, &requests, true).iter().map(rank).collect();
        assert!(now.iter().sum::<u8>() >= before.iter().sum::<u8>(), "{kbps}: {before:?} {now:?}");
        before = now;
    }
}

#[test]
fn what_nearly_fits_is_borrowed_for_a_moment_and_what_does_not_is_paused_at_once() {
    let run = |kbps, request| {
        let mut targets = Vec::new();
        allocate(Bitrate::from_kbps(kbps), &[request], Pausing::WhenFarShort, &mut targets);
        targets[0]
    };
    assert_eq!(run(130, CAMERA), Target::Layer { spatial: 0, starved: true });
    assert_eq!(run(80, CAMERA), Target::Paused);
    assert_eq!(run(130, Request { paused: true, ..CAMERA }), Target::Paused);
    assert_eq!(run(155, Request { paused: true, ..CAMERA }), Target::Paused, "it goes on with some to spare");
    assert_eq!(run(170, Request { paused: true, ..CAMERA }), at(0));
}

#[test]
fn one_that_was_lowered_is_not_raised_for_a_while() {
    let lowered = Request { not_above: Some(0), ..CAMERA };
    assert_eq!(shared(600, &[CAMERA], true), [at(1)]);
    assert_eq!(shared(600, &[lowered], true), [at(0)]);
    assert_eq!(shared(700, &[lowered], true), [at(1)], "unless there is plenty");
}

#[test]
fn needs_what_is_wanted_and_a_reserve() {
    let kbps = |requests: &[Request]| needed(requests).as_bps() / 1000;
    assert_eq!(kbps(&[VOICE, Request { max_spatial: 1, ..CAMERA }]), 540 * 100 / 92);
    assert_eq!(kbps(&[Request { costs: [LADDER[0], None, None], ..CAMERA }]), 163, "the higher ones do not flow");
    assert_eq!(kbps(&[Request { costs: [None; 3], ..CAMERA }]), 1847);
}
