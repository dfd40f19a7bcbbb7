//! LiveKit's messages and how they travel: frames, the join request of either generation, trickled candidates.
//!
//! The message types are those of the `livekit-protocol` crate, re-exported as [`proto`].

mod frame;
mod join;
mod trickle;

pub use frame::{Encoded, Frame, FrameError, Wire, decode_request, decode_response, encode_request, encode_response};
pub use join::{JoinError, JoinLimits, join_request};
pub use livekit_protocol as proto;
pub use trickle::{CandidateInit, TrickleError};
