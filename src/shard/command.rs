//! Everything control may ask of a shard. Commands are obeyed in order and need no answer: ids come from control.

use bytes::Bytes;

use crate::base::{Bitrate, DowntrackId, ParticipantId, RoomId, ShardId, TrackId, TransportId};
use crate::transport::params::{Demand, DowntrackParams, IceCredentials, RemoteParams, TrackParams, TransportParams};

/// One thing control asks for. A command about something that is gone already is ignored: it crossed an event.
#[derive(Clone, Debug)]
pub enum Command {
    /// Make a room. Participants need one.
    AddRoom {
        /// Its id from now on.
        room: RoomId,
    },
    /// Remove a room with everything in it.
    RemoveRoom {
        /// Which.
        room: RoomId,
    },
    /// Make a participant without transports.
    AddParticipant {
        /// Where.
        room: RoomId,
        /// Its id from now on.
        participant: ParticipantId,
    },
    /// Whether what a participant receives may be paused when not even its lowest layer fits its link.
    SetPausing {
        /// Who.
        participant: ParticipantId,
        /// False: the lowest layer is sent whatever its link says. Without this command: as the operator says.
        allowed: bool,
    },
    /// Remove a participant with its transports, tracks and downtracks. The next packet from or to it is dropped.
    RemoveParticipant {
        /// Who.
        participant: ParticipantId,
    },
    /// Open a transport; it waits for ICE checks.
    AddTransport {
        /// Whose.
        participant: ParticipantId,
        /// Its id from now on.
        transport: TransportId,
        /// What was negotiated.
        params: TransportParams,
    },
    /// The far end's half became known, or changed by an ICE restart of its own.
    SetRemote {
        /// Which transport.
        transport: TransportId,
        /// The new half. A changed fingerprint closes the transport.
        remote: RemoteParams,
    },
    /// ICE restart (RFC 8445, 9): new credentials of ours; the old ones work until a check with the new ones arrived.
    RestartIce {
        /// Which transport.
        transport: TransportId,
        /// Our new credentials.
        local: IceCredentials,
        /// The far end's new half, when it asked for the restart.
        remote: Option<RemoteParams>,
    },
    /// Close a transport and what runs over it.
    RemoveTransport {
        /// Which.
        transport: TransportId,
    },
    /// Take a track from a participant; with a known id, change its parameters.
    Publish {
        /// The publisher's transport.
        transport: TransportId,
        /// Its id from now on.
        track: TrackId,
        /// What was negotiated.
        params: TrackParams,
    },
    /// A track published on another shard, by somebody of the same room, can be taken here too; with a known id, its
    /// parameters change. [`Command::SetMuted`] and [`Command::Unpublish`] are to be sent to both.
    Mirror {
        /// The room.
        room: RoomId,
        /// The track's id, the same on all shards.
        track: TrackId,
        /// Where it is published.
        origin: ShardId,
        /// What was negotiated with its publisher.
        params: TrackParams,
    },
    /// Nothing that is published in the room here goes to that shard any more: it has died.
    ForgetShard {
        /// The room.
        room: RoomId,
        /// Which shard.
        shard: ShardId,
    },
    /// Stop taking a track; its downtracks end.
    Unpublish {
        /// Which.
        track: TrackId,
    },
    /// The publisher muted or unmuted a track.
    SetMuted {
        /// Which.
        track: TrackId,
        /// True: nothing is to be heard or seen of it.
        muted: bool,
    },
    /// Send a track to a subscriber; with a known id, change its parameters (numbering goes on).
    Subscribe {
        /// The subscriber's transport.
        transport: TransportId,
        /// The track, of the same room.
        track: TrackId,
        /// The downtrack's id from now on.
        downtrack: DowntrackId,
        /// What was negotiated.
        params: DowntrackParams,
    },
    /// Stop sending a track to a subscriber.
    Unsubscribe {
        /// Which.
        downtrack: DowntrackId,
    },
    /// The subscriber wants another size, or nothing for now.
    SetDemand {
        /// Which downtrack.
        downtrack: DowntrackId,
        /// What it wants now.
        demand: Demand,
    },
    /// Never send more than this to a transport, whatever its estimate says; `None` lifts the cap.
    CapBitrate {
        /// Which transport.
        transport: TransportId,
        /// The cap.
        cap: Option<Bitrate>,
    },
    /// Send a message on a data channel of each of these transports. One that has no such channel yet, or too much
    /// queued, is left out (lossy) or closed (reliable).
    SendData {
        /// To whom, in order.
        transports: Vec<TransportId>,
        /// On which channel.
        channel: DataChannel,
        /// The message as it goes out.
        payload: Bytes,
    },
    /// Control has taken this many bytes of [`super::event::Event::Data`] of the transport off its hands; the shard reads
    /// on from the far end. Keeps a fast sender within its receive window.
    DataTaken {
        /// Which transport.
        transport: TransportId,
        /// Message bytes handled since the last one.
        bytes: usize,
    },
}

/// The data channels of a transport, by their label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataChannel {
    /// `_reliable`: ordered, reliable.
    Reliable,
    /// `_lossy`: unordered, never retransmitted.
    Lossy,
    /// `_data_track`: unordered, never retransmitted.
    DataTrack,
}
