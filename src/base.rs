//! Words every layer shares: ids, units, time, randomness, and the reasons a packet can end for.
//!
//! Depends on nothing above it and on no clock, socket or logger.

pub mod drop_reason;
pub mod id;
pub mod rng;
pub mod spread;
pub mod time;
pub mod unit;

pub use drop_reason::DropReason;
pub use id::{DowntrackId, ParticipantId, RoomId, ShardId, TrackId, TransportId};
pub use rng::Rng;
pub use spread::Spread;
pub use time::Instant;
pub use unit::{Bitrate, MediaKind, PayloadType, Ssrc};
