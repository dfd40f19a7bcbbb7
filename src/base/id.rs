//! Ids of the things control and core talk about.
//!
//! Control chooses them, unique for the life of the process, so that it can name a thing in further commands without
//! waiting for an answer. The core maps them to its own generational keys once per command, never per packet.

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);
    };
}

id!(
    /// One call session on this SFU.
    RoomId
);
id!(
    /// One device of one user in a room.
    ParticipantId
);
id!(
    /// One ICE + DTLS + SRTP association with a far end.
    TransportId
);
id!(
    /// One published audio or video source.
    TrackId
);
id!(
    /// One track as sent to one subscriber.
    DowntrackId
);

/// One shard of this node: the number of its media thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);
