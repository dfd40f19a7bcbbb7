//! LiveKit signalling and MatrixRTC meaning, as pure state machines: requests and facts in, messages and media commands
//! out. Knows nothing of weir's core, of sockets, clocks or tasks; time and randomness come in as values.
//!
//! Two dialects live here:
//! - LiveKit: [`livekit`] (messages and frames), [`token`] (grants), [`sdp`] (offers and answers), [`room`] (the room
//!   machine: who is in, who publishes, who gets what), [`media`] (what the room asks of the media plane).
//! - MatrixRTC: [`matrix`] (members, slots, rights, identities, tokens, delegated leaves).

pub mod livekit;
pub mod matrix;
pub mod media;
pub mod relay;
pub mod room;
pub mod sdp;
pub mod token;
