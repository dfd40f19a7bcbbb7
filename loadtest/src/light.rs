//! Light participants: the same join, ICE and DTLS as everybody, then SRTP that is opened, counted and time-stamped.
//!
//! Hundreds fit into a process: a WebSocket each ([`join`]), one thread for all that arrives ([`engine`]), one for all
//! that is published ([`publish`]). There is no frame to decode: each packet says at its end when it was sent, by the
//! clock of this process ([`shape`]).

pub mod engine;
pub mod feedback;
pub mod join;
pub mod offer;
pub mod peer;
pub mod publish;
pub mod shape;
