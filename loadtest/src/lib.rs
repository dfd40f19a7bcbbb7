//! Participants that behave like real callers, for tests and load: LiveKit signalling over a WebSocket, media through
//! the WebRTC implementation of the `rtc` crate, which shares no media code with weir beyond DTLS and SCTP.
//!
//! [`Client`] is one participant. What it publishes is synthetic: every frame names its source and its number, and its
//! bytes follow from both, so that whoever receives it can tell whether each bit arrived: frames that are Opus and VP8 as
//! far as a server may look, no further ([`content`]), or real pictures and sound ([`clip`]), encrypted as clients do it
//! if asked to ([`e2ee`]). Tests below signalling use its parts: [`peer`], [`send`], [`receive`].

pub mod client;
pub mod clip;
pub mod content;
pub mod door;
pub mod e2ee;
pub mod fault;
pub mod floor;
pub mod light;
#[cfg(feature = "matrix")]
pub mod matrix;
pub mod net;
pub mod peer;
pub mod peers;
pub mod receive;
pub mod report;
pub mod scenario;
pub mod scrape;
pub mod send;
pub mod sfu;
pub mod stats;
pub mod token;

mod participant;
mod signal;

pub use client::{Client, Event, Generation, Options, Sample, Snapshot, Video};
pub use livekit_protocol as proto;
