//! One association with a far end: ICE-lite, DTLS, SRTP and SCTP, and the table that finds it by route or ufrag.
//!
//! Signalling hands over typed parameters ([`params`]); no SDP text comes in here. Called by [`crate::shard`] only.

pub mod params;
pub mod route;
