//! The methods of `livekit.RoomService`: from request to room and back. Nothing of a room's rules is here.

use std::time::Duration;

use axum::response::Response;
use futures_util::{FutureExt, StreamExt, stream};
use livekit_protocol as proto;
use signalling::room::api::{AdminAnswer, AdminRequest};

use super::elsewhere::{self, Call};
use super::error::{Code, TwirpError};
use super::wire::Wire;
use super::{App, Caller, Method, RPC_PATIENCE};
use crate::control::registry::{RoomHandle, RoomSettings};

/// What tools look for to tell a missing room from a missing participant.
pub(super) const NO_ROOM: TwirpError = TwirpError::new(Code::NotFound, "requested room does not exist");
/// How long a room may take to answer.
const ROOM_PATIENCE: Duration = Duration::from_secs(5);
/// Rooms asked at once for a list.
const ASKED_AT_ONCE: usize = 64;
/// How often the making of a room that met its predecessor in its last moment is tried again.
const ATTEMPTS: usize = 3;

/// What a call is about, for the audit stream.
#[derive(Debug, Default)]
pub(super) struct Subject {
    pub(super) room: String,
    /// Participant identity; empty: the room.
    pub(super) who: String,
}

impl Subject {
    fn is(&mut self, room: &str, who: &str) {
        (self.room, self.who) = (room.to_owned(), who.to_owned());
    }
}

/// Answer a call whose token allows the method for some room.
pub(super) async fn call(
    app: &App,
    method: Method,
    caller: &Caller,
    wire: Wire,
    body: &[u8],
    subject: &mut Subject,
) -> Result<Response, TwirpError> {
    Ok(match method {
        Method::CreateRoom => {
            let request: proto::CreateRoomRequest = wire.read(body)?;
            subject.is(&request.name, "");
            wire.reply(&create_room(app, request).await?)
        }
        Method::ListRooms => wire.reply(&list_rooms(app, wire.read(body)?).await?),
        Method::DeleteRoom => {
            let request: proto::DeleteRoomRequest = wire.read(body)?;
            subject.is(&request.room, "");
            let room = app.registry.find(&request.room).await.ok_or(NO_ROOM)?;
            ask(&room, AdminRequest::DeleteRoom).await?;
            wire.reply(&proto::DeleteRoomResponse {})
        }
        Method::ListParticipants => {
            let request: proto::ListParticipantsRequest = wire.read(body)?;
            caller.check_room(&request.room)?;
            wire.reply(&list_participants(app, &request.room).await?)
        }
        Method::GetParticipant => {
            let request: proto::RoomParticipantIdentity = wire.read(body)?;
            let room = room(app, caller, &request.room).await?;
            wire.reply(&participant(ask(&room, AdminRequest::GetParticipant(request.identity)).await?)?)
        }
        Method::RemoveParticipant => {
            let request: proto::RoomParticipantIdentity = wire.read(body)?;
            subject.is(&request.room, &request.identity);
            let room = room(app, caller, &request.room).await?;
            let reason = proto::DisconnectReason::ParticipantRemoved;
            ask(&room, AdminRequest::RemoveParticipant { identity: request.identity, reason }).await?;
            wire.reply(&proto::RemoveParticipantResponse {})
        }
        Method::MutePublishedTrack => {
            let proto::MuteRoomTrackRequest { room: name, identity, track_sid, muted } = wire.read(body)?;
            subject.is(&name, &identity);
            let room = room(app, caller, &name).await?;
            match ask(&room, AdminRequest::MuteTrack { identity, track_sid, muted }).await? {
                AdminAnswer::Track(track) => wire.reply(&proto::MuteRoomTrackResponse { track: Some(*track) }),
                _ => return Err(OTHER_ANSWER),
            }
        }
        Method::UpdateParticipant => {
            let request: proto::UpdateParticipantRequest = wire.read(body)?;
            subject.is(&request.room, &request.identity);
            let room = room(app, caller, &request.room).await?;
            wire.reply(&participant(ask(&room, AdminRequest::UpdateParticipant(Box::new(request))).await?)?)
        }
        Method::UpdateSubscriptions => {
            let request: proto::UpdateSubscriptionsRequest = wire.read(body)?;
            subject.is(&request.room, &request.identity);
            let room = room(app, caller, &request.room).await?;
            ask(&room, AdminRequest::UpdateSubscriptions(Box::new(request))).await?;
            wire.reply(&proto::UpdateSubscriptionsResponse {})
        }
        Method::SendData => {
            let request: proto::SendDataRequest = wire.read(body)?;
            subject.is(&request.room, "");
            let room = room(app, caller, &request.room).await?;
            ask(&room, AdminRequest::SendData(Box::new(request))).await?;
            wire.reply(&proto::SendDataResponse {})
        }
        Method::PerformRpc => {
            let request: proto::PerformRpcRequest = wire.read(body)?;
            subject.is(&request.room, &request.destination_identity);
            let room = room(app, caller, &request.room).await?;
            match ask_for(&room, AdminRequest::PerformRpc(Box::new(request)), RPC_PATIENCE).await? {
                AdminAnswer::Rpc(payload) => wire.reply(&proto::PerformRpcResponse { payload }),
                AdminAnswer::RpcFailed(error) => return Err(TwirpError::of_participant(*error)),
                _ => return Err(OTHER_ANSWER),
            }
        }
        Method::UpdateRoomMetadata => {
            let request: proto::UpdateRoomMetadataRequest = wire.read(body)?;
            subject.is(&request.room, "");
            let room = room(app, caller, &request.room).await?;
            wire.reply(&room_of(ask(&room, AdminRequest::UpdateRoomMetadata(request.metadata)).await?)?)
        }
    })
}

/// The room of this name, made if it is not there. One that is there stays as it is.
async fn create_room(app: &App, request: proto::CreateRoomRequest) -> Result<proto::Room, TwirpError> {
    if request.name.is_empty() || request.name.len() > app.api.room_name {
        return Err(TwirpError::new(Code::InvalidArgument, "room name is empty or too long"));
    }
    if request.metadata.len() > app.api.metadata {
        return Err(TwirpError::new(Code::InvalidArgument, "metadata is too large"));
    }
    let set = |seconds: u32| (seconds > 0).then_some(seconds);
    for _ in 0..ATTEMPTS {
        let settings = RoomSettings {
            empty_timeout: set(request.empty_timeout),
            departure_timeout: set(request.departure_timeout),
            max_participants: request.max_participants,
            metadata: request.metadata.clone(),
        };
        let room = app.registry.create(request.name.clone(), settings).await?;
        match ask(&room, AdminRequest::GetRoom).await {
            Err(error) if error.is_not_found() => tokio::task::yield_now().await,
            answer => return room_of(answer?),
        }
    }
    Err(TwirpError::new(Code::Unavailable, "room is ending"))
}

/// All rooms, or those named. One that ends meanwhile is left out.
async fn list_rooms(app: &App, request: proto::ListRoomsRequest) -> Result<proto::ListRoomsResponse, TwirpError> {
    let handles = if request.names.is_empty() {
        app.registry.all().await
    } else {
        let mut names = request.names;
        names.sort_unstable();
        names.dedup();
        let found = stream::iter(names).map(|name| async move { app.registry.find(&name).await }.boxed());
        let found: Vec<_> = found.buffered(ASKED_AT_ONCE).collect().await;
        found.into_iter().flatten().collect()
    };
    // Boxed, and no async closures: the compiler (1.95) has crashed over the types when it built incrementally.
    let asked = stream::iter(handles).map(|room| async move { ask(&room, AdminRequest::GetRoom).await }.boxed());
    let mut answers = asked.buffered(ASKED_AT_ONCE);
    let mut rooms = Vec::new();
    while let Some(answer) = answers.next().await {
        match answer {
            Err(error) if error.is_not_found() => {}
            answer => rooms.push(room_of(answer?)?),
        }
    }
    Ok(proto::ListRoomsResponse { rooms })
}

/// All rooms of all nodes, or those named.
pub(super) async fn list_all(app: &App, call: &Call<'_>) -> Result<Response, TwirpError> {
    let own = list_rooms(app, call.wire.read(call.body)?).await?;
    let all = if app.nodes.is_alone() { own } else { elsewhere::list(app, call, own).await? };
    Ok(call.wire.reply(&all))
}

/// A room that two nodes have for a moment is the older one: that is where it goes on.
pub(super) fn same_rooms_once(mut rooms: Vec<proto::Room>) -> Vec<proto::Room> {
    rooms.sort_by(|a, b| (&a.name, a.creation_time_ms).cmp(&(&b.name, b.creation_time_ms)));
    rooms.dedup_by(|later, older| later.name == older.name);
    rooms
}

/// A room that does not exist has no participants: tools that poll before the first join expect no error.
async fn list_participants(app: &App, name: &str) -> Result<proto::ListParticipantsResponse, TwirpError> {
    let Some(room) = app.registry.find(name).await else { return Ok(proto::ListParticipantsResponse::default()) };
    match ask(&room, AdminRequest::ListParticipants).await {
        Ok(AdminAnswer::Participants(participants)) => Ok(proto::ListParticipantsResponse { participants }),
        Ok(_) => Err(OTHER_ANSWER),
        Err(error) if error.is_not_found() => Ok(proto::ListParticipantsResponse::default()),
        Err(error) => Err(error),
    }
}

/// The room of this name, if the caller administers it.
async fn room(app: &App, caller: &Caller, name: &str) -> Result<RoomHandle, TwirpError> {
    caller.check_room(name)?;
    app.registry.find(name).await.ok_or(NO_ROOM)
}

async fn ask(room: &RoomHandle, request: AdminRequest) -> Result<AdminAnswer, TwirpError> {
    ask_for(room, request, ROOM_PATIENCE).await
}

async fn ask_for(room: &RoomHandle, request: AdminRequest, patience: Duration) -> Result<AdminAnswer, TwirpError> {
    match tokio::time::timeout(patience, room.admin(request)).await {
        Ok(Some(answer)) => Ok(answer?),
        Ok(None) => Err(NO_ROOM),
        Err(_) => Err(TwirpError::new(Code::Unavailable, "the room does not answer")),
    }
}

/// The room machine answered another question: a fault of weir.
const OTHER_ANSWER: TwirpError = TwirpError::new(Code::Internal, "unexpected answer");

fn room_of(answer: AdminAnswer) -> Result<proto::Room, TwirpError> {
    match answer {
        AdminAnswer::Room(room) => Ok(*room),
        _ => Err(OTHER_ANSWER),
    }
}

fn participant(answer: AdminAnswer) -> Result<proto::ParticipantInfo, TwirpError> {
    match answer {
        AdminAnswer::Participant(participant) => Ok(*participant),
        _ => Err(OTHER_ANSWER),
    }
}
