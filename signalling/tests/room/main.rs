//! Whole conversations with the room machine: what clients of both generations say, what they are told, in order, under
//! virtual time. Every run is also watched by the rules in `oracle`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod join;
mod oracle;
#[allow(dead_code, reason = "shared by conversations to come")]
mod sdp;
#[allow(dead_code, reason = "shared by conversations to come")]
mod world;
