//! Calls about rooms of other nodes: passed on to the node that has the room, and lists made of what all nodes say.
//!
//! What another node passed on is answered here and nowhere else, so no call goes in circles. Such calls have places of
//! their own: two nodes that wait for each other would wait in vain.

use std::net::IpAddr;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, Method as HttpMethod, StatusCode, header};
use axum::response::Response;
use futures_util::{FutureExt, StreamExt, stream};
use livekit_protocol as proto;
use prost::Message as _;

use super::error::{Code, TwirpError};
use super::rooms::same_rooms_once;
use super::wire::Wire;
use super::{App, Method, PATIENCE, RPC_PATIENCE};
use crate::control::nodes::pass::{AskError, Passing, relayed_up_to};
use crate::control::nodes::{Peer, Wanted, Where};

/// How long another node may take; one second less than the whole call, so that there is time to say so.
const NODE_PATIENCE: Duration = PATIENCE.saturating_sub(Duration::from_secs(1));
/// The same for its part of a list.
const LIST_PATIENCE: Duration = Duration::from_secs(5);
/// Nodes asked at once for a list.
const ASKED_AT_ONCE: usize = 16;
/// Nodes tried for one call: the next one only if the first could not even be reached.
const ATTEMPTS: usize = 2;
/// Longest answer of another node, bytes: a thousand participants with much metadata.
const MAX_ANSWER: usize = 32 << 20;

const SILENT: TwirpError = TwirpError::new(Code::Unavailable, "the node of this room does not answer");
/// A list without what that node has would be wrong.
const UNKNOWN: TwirpError = TwirpError::new(Code::Unavailable, "not every node says which rooms it has: try again");

/// A call as it came.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) wire: Wire,
    /// Below [`super::PREFIX`].
    pub(super) route: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a Bytes,
    /// Whose connection it came over.
    pub(super) peer: Option<IpAddr>,
}

impl Call<'_> {
    /// The name of the room it is about; `None`: all rooms, or it cannot be read.
    fn room(&self) -> Option<String> {
        let (wire, body) = (self.wire, self.body);
        let room = match self.method {
            Method::ListRooms => return None,
            Method::CreateRoom => wire.read::<proto::CreateRoomRequest>(body).ok()?.name,
            Method::DeleteRoom => wire.read::<proto::DeleteRoomRequest>(body).ok()?.room,
            Method::ListParticipants => wire.read::<proto::ListParticipantsRequest>(body).ok()?.room,
            Method::GetParticipant | Method::RemoveParticipant => {
                wire.read::<proto::RoomParticipantIdentity>(body).ok()?.room
            }
            Method::MutePublishedTrack => wire.read::<proto::MuteRoomTrackRequest>(body).ok()?.room,
            Method::UpdateParticipant => wire.read::<proto::UpdateParticipantRequest>(body).ok()?.room,
            Method::UpdateSubscriptions => wire.read::<proto::UpdateSubscriptionsRequest>(body).ok()?.room,
            Method::SendData => wire.read::<proto::SendDataRequest>(body).ok()?.room,
            Method::PerformRpc => wire.read::<proto::PerformRpcRequest>(body).ok()?.room,
            Method::UpdateRoomMetadata => wire.read::<proto::UpdateRoomMetadataRequest>(body).ok()?.room,
        };
        (!room.is_empty() && room.len() <= MAX_NAME).then_some(room)
    }

    const fn patience(&self) -> Duration {
        match self.method {
            Method::PerformRpc => NODE_PATIENCE.saturating_add(RPC_PATIENCE),
            _ => NODE_PATIENCE,
        }
    }
}

/// Longer names are refused by whoever is asked; nobody need be told of them.
const MAX_NAME: usize = 4_096;

/// The answer of the node that has the room; `None`: it is here, or nowhere.
pub(super) async fn answer(app: &App, call: &Call<'_>) -> Result<Option<Response>, TwirpError> {
    if app.nodes.is_alone() {
        return Ok(None);
    }
    let Some(room) = call.room() else { return Ok(None) };
    for _ in 0..ATTEMPTS {
        let Some(peer) = node_of(app, call.method, &room).await else { return Ok(None) };
        match ask(app, &peer, call.route, call.headers, call.body, call.peer, call.patience()).await {
            Ok(answer) => {
                app.metrics.passed.with_label_values(&["api"]).inc();
                let answer = relayed_up_to(answer, MAX_ANSWER).await;
                // What is no answer of a weir is none.
                let is_error = answer.status().is_server_error() && !is_json(&answer);
                return if is_error { Err(SILENT) } else { Ok(Some(answer)) };
            }
            // It did not get there: nothing was done. The room is elsewhere from now on, or gone.
            Err(AskError::Unreachable) => {}
            // It may have been done.
            Err(AskError::Silent) => return Err(SILENT),
        }
    }
    Err(SILENT)
}

/// Where a room is; one that is to be made gets a place.
async fn node_of(app: &App, method: Method, room: &str) -> Option<Peer> {
    if method != Method::CreateRoom {
        return app.nodes.find(room);
    }
    match app.nodes.locate(room, &Wanted::default()).await {
        Where::There(peer) => Some(peer),
        Where::Here | Where::Nowhere => None,
    }
}

fn is_json(answer: &Response) -> bool {
    let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/json"))
}

async fn ask(
    app: &App,
    peer: &Peer,
    route: &str,
    headers: &HeaderMap,
    body: &Bytes,
    from: Option<IpAddr>,
    patience: Duration,
) -> Result<reqwest::Response, AskError> {
    let path = format!("{}{route}", super::PREFIX);
    let passing =
        Passing { method: HttpMethod::POST, path: &path, headers, body: body.clone(), peer: from, user: None };
    app.nodes.ask(peer, &passing, patience).await
}

/// What this node says of rooms with what all others say. A node that cannot be reached is gone, and its rooms with it;
/// one that is only slow has rooms nobody knows of, and then there is no list.
pub(super) async fn list(
    app: &App,
    call: &Call<'_>,
    own: proto::ListRoomsResponse,
) -> Result<proto::ListRoomsResponse, TwirpError> {
    let request: proto::ListRoomsRequest = call.wire.read(call.body)?;
    let body = Bytes::from(request.encode_to_vec());
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/protobuf"));
    if let Some(token) = call.headers.get(header::AUTHORIZATION) {
        headers.insert(header::AUTHORIZATION, token.clone());
    }
    let (headers, body) = (&headers, &body);
    let asked = stream::iter(app.nodes.others()).map(|peer| {
        async move {
            let answer = ask(app, &peer, call.route, headers, body, call.peer, LIST_PATIENCE).await;
            let answer = match answer {
                Ok(answer) => answer,
                Err(AskError::Unreachable) => return Ok(Vec::new()),
                Err(AskError::Silent) => return Err(UNKNOWN),
            };
            let reading = tokio::time::timeout(LIST_PATIENCE, relayed_up_to(answer, MAX_ANSWER));
            let answer = reading.await.map_err(|_| UNKNOWN)?;
            if answer.status() != StatusCode::OK {
                return Err(UNKNOWN);
            }
            let body = axum::body::to_bytes(answer.into_body(), MAX_ANSWER).await.map_err(|_| UNKNOWN)?;
            Ok(proto::ListRoomsResponse::decode(body).map_err(|_| UNKNOWN)?.rooms)
        }
        .boxed()
    });
    let mut answers = asked.buffer_unordered(ASKED_AT_ONCE);
    let mut rooms = own.rooms;
    while let Some(more) = answers.next().await {
        rooms.extend(more?);
    }
    Ok(proto::ListRoomsResponse { rooms: same_rooms_once(rooms) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may fail by panicking")]

    use super::*;

    #[test]
    fn every_call_says_which_room_it_is_about() {
        let body = |method: Method| match method {
            Method::CreateRoom => r#"{"name": "r"}"#,
            Method::ListRooms => "{}",
            _ => r#"{"room": "r"}"#,
        };
        let headers = HeaderMap::new();
        for name in [
            "CreateRoom",
            "ListRooms",
            "DeleteRoom",
            "ListParticipants",
            "GetParticipant",
            "RemoveParticipant",
            "MutePublishedTrack",
            "UpdateParticipant",
            "UpdateSubscriptions",
            "SendData",
            "UpdateRoomMetadata",
            "PerformRpc",
        ] {
            let method = Method::of("livekit.RoomService", name).ok().unwrap();
            let about = |body: &'static str| {
                let body = Bytes::from_static(body.as_bytes());
                let call = Call { method, wire: Wire::Json, route: name, headers: &headers, body: &body, peer: None };
                call.room()
            };
            assert_eq!(about(body(method)).as_deref(), (method != Method::ListRooms).then_some("r"), "{name}");
            assert_eq!((about("nonsense"), about("{}")), (None, None), "{name}");
        }
    }
}
