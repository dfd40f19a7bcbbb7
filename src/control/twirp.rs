//! LiveKit's server API: `POST /twirp/livekit.RoomService/<Method>`, in protobuf and JSON, as the Twirp protocol has it
//! (github.com/twitchtv/twirp, docs/spec_v7.md), so that existing server SDKs and tools work.
//!
//! A request passes in this order: its route, its token, the grant the method needs, then its body. So only holders of a
//! key make weir read a body. What a method does is in [`rooms`], and in the room machine behind it.

mod elsewhere;
mod error;
mod json;
mod rooms;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::Method as HttpMethod;
use axum::response::{IntoResponse, Response};
use signalling::token::{Claims, VideoGrant};
use tokio::sync::Semaphore;

use super::audit::{Record, What};
use super::http::{App, bearer};
use super::listener::Held;
use elsewhere::Call;
use error::{Code, TwirpError};
use rooms::Subject;
use wire::Wire;

/// What the path of a call starts with.
pub(super) const PREFIX: &str = "/twirp/";
/// Longest body, bytes.
const MAX_BODY: usize = 10 << 20;
/// Calls answered at once; further ones wait. Each may hold a body.
const PLACES: usize = 32;
/// Calls of participants' methods at once: they wait without holding a body.
const RPCS: usize = 512;
/// How much longer those may take: what the room grants them at most.
const RPC_PATIENCE: Duration = Duration::from_secs(60);
/// How long a call may take in all, its body and the wait for a place included. SDKs give up after 10 to 60 seconds.
const PATIENCE: Duration = Duration::from_secs(15);
/// Services LiveKit has and weir does not: said to be so, rather than not to exist.
const OTHER_SERVICES: [&str; 5] =
    ["livekit.Egress", "livekit.Ingress", "livekit.SIP", "livekit.AgentDispatchService", "livekit.Connector"];

/// Bounds of the server API.
#[derive(Debug)]
pub(super) struct ApiRules {
    places: Semaphore,
    rpcs: Semaphore,
    /// For calls that other nodes passed on.
    passed: Semaphore,
    /// Bytes of a room name.
    room_name: usize,
    /// Bytes of room metadata.
    metadata: usize,
}

impl ApiRules {
    /// With bounds in bytes.
    pub(super) fn new(room_name: usize, metadata: usize) -> Self {
        let (places, passed) = (Semaphore::new(PLACES), Semaphore::new(PLACES));
        Self { places, rpcs: Semaphore::new(RPCS), passed, room_name, metadata }
    }
}

/// Methods of `livekit.RoomService` that weir has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    CreateRoom,
    ListRooms,
    DeleteRoom,
    ListParticipants,
    GetParticipant,
    RemoveParticipant,
    MutePublishedTrack,
    UpdateParticipant,
    UpdateSubscriptions,
    SendData,
    UpdateRoomMetadata,
    PerformRpc,
}

impl Method {
    /// By the last two parts of the path.
    fn of(service: &str, name: &str) -> Result<Self, TwirpError> {
        if OTHER_SERVICES.contains(&service) {
            return Err(TwirpError::new(Code::Unimplemented, "weir does not have this service"));
        }
        let bad_route = TwirpError::new(Code::BadRoute, "no handler for this path");
        if service != "livekit.RoomService" {
            return Err(bad_route);
        }
        Ok(match name {
            "CreateRoom" => Self::CreateRoom,
            "ListRooms" => Self::ListRooms,
            "DeleteRoom" => Self::DeleteRoom,
            "ListParticipants" => Self::ListParticipants,
            "GetParticipant" => Self::GetParticipant,
            "RemoveParticipant" => Self::RemoveParticipant,
            "MutePublishedTrack" => Self::MutePublishedTrack,
            "UpdateParticipant" => Self::UpdateParticipant,
            "UpdateSubscriptions" => Self::UpdateSubscriptions,
            "SendData" => Self::SendData,
            "UpdateRoomMetadata" => Self::UpdateRoomMetadata,
            "PerformRpc" => Self::PerformRpc,
            "ForwardParticipant" | "MoveParticipant" => {
                return Err(TwirpError::new(Code::Unimplemented, "weir does not have this method"));
            }
            _ => return Err(bad_route),
        })
    }

    /// As the path has it.
    const fn name(self) -> &'static str {
        match self {
            Self::CreateRoom => "CreateRoom",
            Self::ListRooms => "ListRooms",
            Self::DeleteRoom => "DeleteRoom",
            Self::ListParticipants => "ListParticipants",
            Self::GetParticipant => "GetParticipant",
            Self::RemoveParticipant => "RemoveParticipant",
            Self::MutePublishedTrack => "MutePublishedTrack",
            Self::UpdateParticipant => "UpdateParticipant",
            Self::UpdateSubscriptions => "UpdateSubscriptions",
            Self::SendData => "SendData",
            Self::UpdateRoomMetadata => "UpdateRoomMetadata",
            Self::PerformRpc => "PerformRpc",
        }
    }

    /// Whether it changes anything.
    const fn is_change(self) -> bool {
        !matches!(self, Self::ListRooms | Self::ListParticipants | Self::GetParticipant)
    }

    /// Whether the grant allows the method, for some room at least.
    const fn is_allowed(self, grant: &VideoGrant) -> bool {
        match self {
            Self::CreateRoom | Self::DeleteRoom => grant.room_create,
            Self::ListRooms => grant.room_list,
            _ => grant.room_admin,
        }
    }
}

/// Who calls: the grant of a verified token.
struct Caller(VideoGrant);

/// LiveKit answers missing grants like missing tokens, and tools look for that.
const NOT_ALLOWED: TwirpError = TwirpError::new(Code::Unauthenticated, "permissions denied");

impl Caller {
    fn of(claims: Claims, method: Method) -> Result<Self, TwirpError> {
        let grant = claims.video.unwrap_or_default();
        if method.is_allowed(&grant) { Ok(Self(grant)) } else { Err(NOT_ALLOWED) }
    }

    /// Whether it administers this very room.
    fn check_room(&self, room: &str) -> Result<(), TwirpError> {
        if !room.is_empty() && self.0.room_admin && self.0.room == room { Ok(()) } else { Err(NOT_ALLOWED) }
    }
}

/// Somebody is slow.
const TOO_LONG: TwirpError = TwirpError::new(Code::Unavailable, "the call took too long");

/// The handler of everything below [`PREFIX`].
pub(super) async fn serve(State(app): State<Arc<App>>, Path(route): Path<String>, request: Request) -> Response {
    let patience = if route.ends_with("/PerformRpc") { PATIENCE + RPC_PATIENCE } else { PATIENCE };
    let answered = tokio::time::timeout(patience, answer(&app, &route, request)).await;
    let result = answered.unwrap_or(Err(TOO_LONG));
    let code = result.as_ref().map_or_else(TwirpError::code, |_| "ok");
    app.metrics.api_requests.with_label_values(&[code]).inc();
    result.unwrap_or_else(IntoResponse::into_response)
}

async fn answer(app: &App, route: &str, request: Request) -> Result<Response, TwirpError> {
    let (service, name) = route.split_once('/').unwrap_or((route, ""));
    let method = Method::of(service, name)?;
    if request.method() != HttpMethod::POST {
        return Err(TwirpError::new(Code::BadRoute, "unsupported HTTP method (only POST is allowed)"));
    }
    let wire = Wire::of(request.headers())?;
    let token = bearer(request.headers()).filter(|token| !token.is_empty()).ok_or(NOT_ALLOWED)?;
    let claims = app.auth.claims(token).map_err(|error| TwirpError::made(Code::Unauthenticated, error.to_string()))?;
    let (key, by) = (claims.iss.clone(), claims.sub.clone());
    let caller = Caller::of(claims, method)?;
    let closed = |_| TwirpError::new(Code::Unavailable, "server is stopping");
    let is_passed = app.nodes.passed(request.headers()).is_some();
    let places = if is_passed { &app.api.passed } else { &app.api.places };
    let place = places.acquire().await.map_err(closed)?;
    let (parts, body) = request.into_parts();
    let body = tokio::time::timeout(PATIENCE, read_body(body)).await.map_err(|_| TOO_LONG)??;
    let place = if method == Method::PerformRpc {
        drop(place);
        let full = |_| TwirpError::new(Code::Unavailable, "too many calls wait for participants");
        app.api.rpcs.try_acquire().map_err(full)?
    } else {
        place
    };
    let peer = parts.extensions.get::<Arc<Held>>().map(|held| held.peer());
    let call = Call { method, wire, route, headers: &parts.headers, body: &body, peer };
    // Said in the audit stream of the node that does it.
    if !is_passed && let Some(answer) = elsewhere::answer(app, &call).await? {
        return Ok(answer);
    }
    let mut subject = Subject::default();
    let result = match method {
        Method::ListRooms if !is_passed => rooms::list_all(app, &call).await,
        _ => rooms::call(app, method, &caller, wire, &body, &mut subject).await,
    };
    if method.is_change() {
        let code = result.as_ref().map_or_else(TwirpError::code, |_| "ok");
        app.audit.record(&Record {
            what: What::Admin,
            at: "api",
            room: &subject.room,
            who: &subject.who,
            rule: method.name(),
            why: code,
            key: &key,
            by: &by,
        });
    }
    drop(place);
    result
}

async fn read_body(body: Body) -> Result<Bytes, TwirpError> {
    to_bytes(body, MAX_BODY)
        .await
        .map_err(|_| TwirpError::new(Code::Malformed, "the body ended early or is larger than 10 MiB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admins_reach_their_own_room_only() {
        let grant = VideoGrant { room_admin: true, room: "mine".to_owned(), ..VideoGrant::default() };
        let caller = Caller(grant);
        assert!(caller.check_room("mine").is_ok());
        assert!(caller.check_room("other").is_err());
        assert!(Caller(VideoGrant { room_admin: true, ..VideoGrant::default() }).check_room("").is_err());
    }

    #[test]
    fn joining_a_room_allows_no_method() {
        let grant = VideoGrant { room_join: true, room: "mine".to_owned(), ..VideoGrant::default() };
        for name in ["CreateRoom", "ListRooms", "DeleteRoom", "GetParticipant", "SendData", "UpdateRoomMetadata"] {
            let method = Method::of("livekit.RoomService", name);
            assert!(method.is_ok_and(|method| !method.is_allowed(&grant)), "{name}");
        }
    }
}
