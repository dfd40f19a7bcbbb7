//! A shard's picture of a room as JSON, for `/debug/rooms`: what flows in which layer at what bitrate and loss. Ids are
//! the numbers the room's own picture uses; addresses are not in it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::base::Bitrate;
use crate::shard::debug::{DowntrackState, EncodingState, ParticipantState, RoomState, TrackState, TransportState};
use crate::transport::route::Route;

/// One room.
pub(super) fn room(room: &RoomState) -> Value {
    json!({ "participants": room.participants.iter().map(participant).collect::<Vec<_>>() })
}

fn participant(state: &ParticipantState) -> Value {
    json!({
        "id": state.id.0,
        "quality": state.quality,
        "needed_bps": state.needed.as_bps(),
        "allotted_bps": state.allotted.as_bps(),
        "transports": state.transports.iter().map(transport).collect::<Vec<_>>(),
        "tracks": state.tracks.iter().map(track).collect::<Vec<_>>(),
        "downtracks": state.downtracks.iter().map(downtrack).collect::<Vec<_>>(),
    })
}

fn transport(state: &TransportState) -> Value {
    json!({
        "id": state.id.0,
        "connected": state.connected,
        "path": state.route.map(|route| match route {
            Route::Udp { .. } => "udp",
            Route::Tcp { .. } => "tcp",
            Route::Turn { .. } => "turn",
        }),
        "sending_bps": state.sending.as_bps(),
        "estimate_bps": (state.estimate != Bitrate::MAX).then(|| state.estimate.as_bps()),
        "rtt_ms": state.path.map(|path| milliseconds(path.rtt)),
        "queue_ms": state.path.map(|path| milliseconds(path.queue)),
        "lost_percent": state.path.map(|path| f64::from(path.loss_per_mille) / 10.0),
    })
}

fn track(state: &TrackState) -> Value {
    json!({
        "id": state.id.0,
        "muted": state.muted,
        "encodings": state.encodings.iter().map(encoding).collect::<Vec<_>>(),
        "downtracks": state.downtracks,
    })
}

fn encoding(state: &EncodingState) -> Value {
    json!({
        "active": state.active,
        "bitrate_bps": state.bitrate.as_bps(),
        "received": state.received,
        "lost_percent": percent(state.fraction_lost),
    })
}

fn downtrack(state: &DowntrackState) -> Value {
    json!({
        "id": state.id.0,
        "track": state.track.0,
        "demand": state.demand,
        "target": state.target,
        "current": state.current,
        "reason": state.reason.label(),
        "rtt_ms": state.rtt.map(milliseconds),
        "sent": state.sent,
        "lost_percent": percent(state.fraction_lost),
    })
}

/// To a tenth.
pub(super) fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

/// 1/256 as reports have it, in percent, to a tenth.
pub(super) fn percent(fraction: u8) -> f64 {
    (f64::from(fraction) / 256.0 * 1_000.0).round() / 10.0
}
