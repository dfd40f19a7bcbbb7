//! Whole conversations with the room machine: what clients of both generations say, what they are told, in order, under
//! virtual time. Every run is also watched by the rules in `oracle`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod comeback;
mod crowd;
mod data;
mod dynacast;
mod hostile;
mod join;
mod leave;
mod limits;
mod oracle;
mod permission;
mod publish;
mod resume;
mod sdp;
mod subscribe;
mod v0;
mod world;
