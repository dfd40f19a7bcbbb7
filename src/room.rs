//! The SFU itself: who gets which packet.

pub mod config;

pub use config::RoomConfig;

/// Most spatial layers (simulcast encodings or SVC layers) of a track.
pub const MAX_SPATIAL: usize = 3;
