//! Between the words of signalling and those of the core. The only file that knows both.
//!
//! Ids are the same numbers on both sides; a room's ids all share their upper half, so an event finds its room by it.

use signalling::media as s;

use crate::base::{Bitrate, DowntrackId, MediaKind, ParticipantId, PayloadType, RoomId, Ssrc, TrackId, TransportId};
use crate::shard::command::{Command, DataChannel};
use crate::shard::event::{CloseReason, Event};
use crate::transport::params as c;

/// How far the number of a room stands above the ids of what is in it.
const ROOM_SHIFT: u32 = 32;

/// The first id of the room with this number, which is also the room's own in the core.
pub const fn first_id(room: u64) -> u64 {
    room << ROOM_SHIFT
}

/// The core's id of the room with this number.
pub const fn room_id(room: u64) -> RoomId {
    RoomId(first_id(room))
}

/// The number of a room by its id.
pub const fn room_number(room: RoomId) -> u64 {
    room.0 >> ROOM_SHIFT
}

/// The number of the room a participant is in.
pub const fn room_of_participant(participant: ParticipantId) -> u64 {
    participant.0 >> ROOM_SHIFT
}

/// The number of the room an event is about; `None` for counters.
pub const fn room_of(event: &Event) -> Option<u64> {
    let id = match event {
        Event::TransportConnected { transport }
        | Event::TransportFailed { transport, .. }
        | Event::ChannelsOpen { transport }
        | Event::Data { transport, .. } => transport.0,
        Event::TrackStarted { track } => track.0,
        Event::StreamState { downtrack, .. } => downtrack.0,
        Event::Speakers { room, .. } => room.0,
        Event::Quality { participant, .. } => participant.0,
        Event::Stats(_) => return None,
    };
    Some(id >> ROOM_SHIFT)
}

/// What the room asks, as the shard understands it.
pub fn command(room: u64, command: s::MediaCommand) -> Command {
    use s::MediaCommand as M;
    match command {
        M::AddParticipant { participant } => {
            Command::AddParticipant { room: room_id(room), participant: ParticipantId(participant.0) }
        }
        M::SetPausing { participant, allowed } => {
            Command::SetPausing { participant: ParticipantId(participant.0), allowed }
        }
        M::RemoveParticipant { participant } => {
            Command::RemoveParticipant { participant: ParticipantId(participant.0) }
        }
        M::AddTransport { participant, transport, params } => Command::AddTransport {
            participant: ParticipantId(participant.0),
            transport: TransportId(transport.0),
            params: transport_params(params),
        },
        M::SetRemote { transport, remote } => {
            Command::SetRemote { transport: TransportId(transport.0), remote: remote_params(remote) }
        }
        M::RestartIce { transport, local, remote } => Command::RestartIce {
            transport: TransportId(transport.0),
            local: credentials(local),
            remote: remote.map(remote_params),
        },
        M::RemoveTransport { transport } => Command::RemoveTransport { transport: TransportId(transport.0) },
        M::Publish { transport, track, params } => Command::Publish {
            transport: TransportId(transport.0),
            track: TrackId(track.0),
            params: track_params(params),
        },
        M::Unpublish { track } => Command::Unpublish { track: TrackId(track.0) },
        M::SetMuted { track, muted } => Command::SetMuted { track: TrackId(track.0), muted },
        M::Subscribe { transport, track, downtrack, params } => Command::Subscribe {
            transport: TransportId(transport.0),
            track: TrackId(track.0),
            downtrack: DowntrackId(downtrack.0),
            params: downtrack_params(params),
        },
        M::Unsubscribe { downtrack } => Command::Unsubscribe { downtrack: DowntrackId(downtrack.0) },
        M::SetDemand { downtrack, demand: wish } => {
            Command::SetDemand { downtrack: DowntrackId(downtrack.0), demand: demand(wish) }
        }
        M::CapBitrate { transport, bps } => {
            Command::CapBitrate { transport: TransportId(transport.0), cap: bps.map(Bitrate::from_bps) }
        }
        M::SendData { transports, channel, payload } => Command::SendData {
            transports: transports.into_iter().map(|t| TransportId(t.0)).collect(),
            channel: match channel {
                s::DataChannel::Reliable => DataChannel::Reliable,
                s::DataChannel::Lossy => DataChannel::Lossy,
                s::DataChannel::DataTrack => DataChannel::DataTrack,
            },
            payload,
        },
        M::DataTaken { transport, bytes } => Command::DataTaken { transport: TransportId(transport.0), bytes },
    }
}

/// What the shard reports, as the room understands it; `None` for what is no room's business.
pub fn event(event: Event) -> Option<s::MediaEvent> {
    use s::MediaEvent as M;
    Some(match event {
        Event::TransportConnected { transport } => M::TransportConnected { transport: s::TransportId(transport.0) },
        Event::TransportFailed { transport, reason } => M::TransportFailed {
            transport: s::TransportId(transport.0),
            reason: close_reason(reason),
            closed_by_peer: reason == CloseReason::ClosedByPeer,
        },
        Event::ChannelsOpen { transport } => M::ChannelsOpen { transport: s::TransportId(transport.0) },
        Event::Data { transport, channel, payload } => M::Data {
            transport: s::TransportId(transport.0),
            channel: match channel {
                DataChannel::Reliable => s::DataChannel::Reliable,
                DataChannel::Lossy => s::DataChannel::Lossy,
                DataChannel::DataTrack => s::DataChannel::DataTrack,
            },
            payload,
        },
        Event::TrackStarted { track } => M::TrackStarted { track: s::TrackId(track.0) },
        Event::StreamState { downtrack, paused } => M::StreamState { downtrack: s::DowntrackId(downtrack.0), paused },
        Event::Speakers { levels, .. } => {
            M::Speakers { levels: levels.into_iter().map(|(track, level)| (s::TrackId(track.0), level)).collect() }
        }
        Event::Quality { participant, score } => M::Quality { participant: s::ParticipantId(participant.0), score },
        Event::Stats(_) => return None,
    })
}

/// Why a transport ended, as logs say it.
const fn close_reason(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::IceTimeout => "ice_timeout",
        CloseReason::DtlsFailed => "dtls_failed",
        CloseReason::FingerprintMismatch => "fingerprint_mismatch",
        CloseReason::Silent => "silent",
        CloseReason::ClosedByPeer => "closed_by_peer",
        CloseReason::DataQueueFull => "data_queue_full",
        CloseReason::DataProtocol => "data_protocol",
        CloseReason::Limit => "limit",
    }
}

fn transport_params(params: s::TransportParams) -> c::TransportParams {
    c::TransportParams {
        local: credentials(params.local),
        remote: params.remote.map(remote_params),
        open_channels: params.open_channels,
    }
}

fn credentials(credentials: s::IceCredentials) -> c::IceCredentials {
    c::IceCredentials { ufrag: credentials.ufrag, pwd: credentials.pwd }
}

fn remote_params(remote: s::RemoteParams) -> c::RemoteParams {
    let dtls = match remote.dtls {
        s::DtlsRole::Passive => c::DtlsRole::Passive,
        s::DtlsRole::Active => c::DtlsRole::Active,
    };
    c::RemoteParams { ufrag: remote.ufrag, fingerprint: c::Fingerprint(remote.fingerprint), dtls }
}

fn track_params(params: s::TrackParams) -> c::TrackParams {
    c::TrackParams {
        kind: kind(params.kind),
        screen_share: params.screen_share,
        always_heard: params.always_heard,
        mid: params.mid,
        codecs: params.codecs.into_iter().map(codec_params).collect(),
        encodings: params.encodings.into_iter().map(encoding_params).collect(),
        extensions: extensions(params.extensions),
        nack: params.nack,
        muted: params.muted,
    }
}

const fn kind(kind: s::MediaKind) -> MediaKind {
    match kind {
        s::MediaKind::Audio => MediaKind::Audio,
        s::MediaKind::Video => MediaKind::Video,
    }
}

fn codec_params(codec: s::CodecParams) -> c::CodecParams {
    c::CodecParams {
        payload_type: PayloadType(codec.payload_type),
        codec: match codec.codec {
            s::Codec::Opus => c::Codec::Opus,
            s::Codec::Vp8 => c::Codec::Vp8,
            s::Codec::Vp9 => c::Codec::Vp9,
            s::Codec::Av1 => c::Codec::Av1,
            s::Codec::H264 => c::Codec::H264,
            s::Codec::H265 => c::Codec::H265,
            s::Codec::Other => c::Codec::Other,
        },
        clock_rate: codec.clock_rate,
        rtx: codec.rtx.map(PayloadType),
    }
}

fn encoding_params(encoding: s::EncodingParams) -> c::EncodingParams {
    c::EncodingParams { rid: encoding.rid, ssrc: encoding.ssrc.map(Ssrc), rtx_ssrc: encoding.rtx_ssrc.map(Ssrc) }
}

const fn extensions(ids: s::ExtensionIds) -> c::ExtensionIds {
    c::ExtensionIds {
        mid: ids.mid,
        rid: ids.rid,
        repaired_rid: ids.repaired_rid,
        audio_level: ids.audio_level,
        abs_send_time: ids.abs_send_time,
        transport_cc: ids.transport_cc,
        dependency_descriptor: ids.dependency_descriptor,
        abs_capture_time: ids.abs_capture_time,
        playout_delay: ids.playout_delay,
        video_orientation: ids.video_orientation,
        color_space: ids.color_space,
        video_content_type: ids.video_content_type,
    }
}

fn downtrack_params(params: s::DowntrackParams) -> c::DowntrackParams {
    let payload = |map: s::PayloadMap| c::PayloadMap {
        from: PayloadType(map.from),
        to: PayloadType(map.to),
        rtx: map.rtx.map(PayloadType),
    };
    c::DowntrackParams {
        ssrc: Ssrc(params.ssrc),
        rtx_ssrc: params.rtx_ssrc.map(Ssrc),
        payload_types: params.payload_types.into_iter().map(payload).collect(),
        extensions: extensions(params.extensions),
        mid: params.mid,
        cname: params.cname,
        nack: params.nack,
        demand: demand(params.demand),
    }
}

const fn demand(demand: s::Demand) -> c::Demand {
    c::Demand {
        enabled: demand.enabled,
        max_spatial: demand.max_spatial,
        max_temporal: demand.max_temporal,
        priority: demand.priority,
    }
}
