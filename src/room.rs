//! The SFU itself: who gets which packet.

/// Most spatial layers (simulcast encodings or SVC layers) of a track.
pub const MAX_SPATIAL: usize = 3;
