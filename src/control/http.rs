//! The public HTTP routes: joining by WebSocket, asking why a join failed, and being there.
//!
//! Status codes and bodies decide what clients do next, so they are fixed: a 404 on `/rtc/v1` makes them fall back to
//! `/rtc`, unless its body says that the room does not exist; 401 and 403 end the attempt; 429 and 503 are tried again.
//! Every answer carries CORS headers, or a browser would hide the status from the client.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Extension, RawQuery, Request, State, WebSocketUpgrade};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use signalling::livekit::{JoinLimits, join_request};
use signalling::room::api::{ConnectionId, Generation, Input, JoinRequest, Refusal};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::Instant;
use tower_http::cors::{AllowHeaders, Any, CorsLayer};

use super::audit::{Audit, Record, What};
use super::auth::Auth;
use super::connection::{self, QueueLimits};
use super::health::Health;
use super::listener::{Crowded, Guest, Held};
use super::matrix::{self, Matrix, Vouched};
use super::metrics::Metrics;
use super::nodes::{self, Nodes};
use super::redact::Redacted;
use super::registry::{FULL, Registry};
use super::room_task::{LoadShare, RoomInput};
use super::twirp::{self, ApiRules};
use super::ws::{self, Conversation, WsRules};
use crate::mailbox::Mailbox;

/// What the routes share.
#[derive(Debug)]
pub(super) struct App {
    pub(super) auth: Arc<Auth>,
    pub(super) registry: Registry,
    /// Decides about rooms that are calls of Matrix rooms.
    pub(super) matrix: Option<Matrix>,
    pub(super) audit: Audit,
    pub(super) metrics: Arc<Metrics>,
    pub(super) nodes: Nodes,
    pub(super) join_limits: JoinLimits,
    pub(super) queue_limits: QueueLimits,
    pub(super) ws_rules: WsRules,
    /// Joins being answered.
    pub(super) pending: Arc<Semaphore>,
    /// Conversations over WebSockets now.
    pub(super) conversations: Arc<AtomicUsize>,
    /// By thread number: to ask for pictures of the shards.
    pub(super) mailboxes: Vec<Mailbox>,
    /// No new rooms are made: the node is about to end.
    pub(super) draining: AtomicBool,
    /// The rooms it has go elsewhere too.
    pub(super) leaving: AtomicBool,
    /// Somebody asked the node to end, other than by a signal.
    pub(super) end: Notify,
    pub(super) next_connection: AtomicU64,
    pub(super) api: ApiRules,
}

/// How long a room may take for its first answer. Clients wait 5 seconds for the upgrade.
const FIRST_ANSWER: Duration = Duration::from_secs(4);
/// How often a join that met a room in its last moment is tried again.
const ATTEMPTS: usize = 3;
/// How long browsers may remember what CORS allows.
const CORS_AGE: Duration = Duration::from_secs(86_400);
/// Paths served, longest first: a request path may have anything in front of them.
const ENDPOINTS: [&str; 10] = [
    "/rtc/v1/validate",
    "/rtc/validate",
    "/rtc/v1",
    "/rtc",
    "/sfu/get",
    "/get_token",
    "/delegate_delayed_leave",
    "/healthz",
    "/readyz",
    "/.well-known/matrix/client",
];
/// What is behind this is served whole, whatever stands in front.
const MATRIX: &str = "/_matrix/";

/// The routes.
pub(super) fn router(app: Arc<App>) -> Router {
    let methods = [Method::OPTIONS, Method::HEAD, Method::GET, Method::POST, Method::PATCH, Method::DELETE];
    let cors = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods(methods)
        // Not `*`: that would leave out `Authorization` (Fetch standard, 4.9).
        .allow_headers(AllowHeaders::mirror_request())
        .max_age(CORS_AGE);
    let router = Router::new()
        .route("/", get(async || "OK"))
        .route(
            "/rtc",
            any(async |app, held, ws, query, headers| join(app, Generation::V0, held, ws, query, headers).await),
        )
        .route(
            "/rtc/v1",
            any(async |app, held, ws, query, headers| join(app, Generation::V1, held, ws, query, headers).await),
        )
        .route(
            "/rtc/validate",
            get(async |app, held, query, headers| validate(app, Generation::V0, held, query, headers).await),
        )
        .route(
            "/rtc/v1/validate",
            get(async |app, held, query, headers| validate(app, Generation::V1, held, query, headers).await),
        )
        // Who reached the wrong node is taken to the right one.
        .route_layer(middleware::from_fn_with_state(app.clone(), nodes::pass::joins))
        .route("/healthz", get(async || "OK"))
        .route("/readyz", get(ready))
        .route("/twirp/{*route}", any(twirp::serve))
        .fallback(async || StatusCode::NOT_FOUND)
        .with_state(app.clone());
    let router = match &app.matrix {
        Some(matrix) => router.merge(matrix::router(matrix.clone())),
        None => router,
    };
    router.layer(cors)
}

/// Rewrite a request to the path it is served under: runs of `/` count as one, a prefix in front of a known endpoint is
/// dropped, as reverse proxies do or do not.
pub(super) fn normalise(request: &mut Request) {
    let path = request.uri().path();
    let Some(served) = served_path(path) else { return };
    if served == path {
        return;
    }
    let target = match request.uri().query() {
        Some(query) => format!("{served}?{query}"),
        None => served.into_owned(),
    };
    if let Ok(uri) = target.parse() {
        *request.uri_mut() = uri;
    }
}

fn served_path(path: &str) -> Option<Cow<'_, str>> {
    let collapsed: Cow<'_, str> = if path.contains("//") {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        Cow::Owned(format!("/{}", parts.join("/")))
    } else {
        Cow::Borrowed(path)
    };
    let trimmed = collapsed.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(&collapsed);
    if let Some(at) = collapsed.find(MATRIX) {
        return collapsed.get(at..).map(|served| Cow::Owned(served.to_owned()));
    }
    if let Some(at) = trimmed.rfind(twirp::PREFIX) {
        return trimmed.get(at..).map(|served| Cow::Owned(served.to_owned()));
    }
    match ENDPOINTS.iter().find(|endpoint| trimmed.ends_with(**endpoint)) {
        Some(endpoint) => Some(Cow::Borrowed(endpoint)),
        None => Some(collapsed),
    }
}

/// The room a join is to, if its token is good.
pub(super) fn room_of(app: &App, query: Option<&str>, headers: &HeaderMap) -> Option<String> {
    let query = query.unwrap_or_default();
    let in_query = || {
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        pairs.find(|(key, _)| key == "access_token").map(|(_, token)| token)
    };
    let token = bearer(headers).map(Cow::Borrowed).or_else(in_query)?;
    app.auth.grants(&token).ok().map(|(grants, _)| grants.room)
}

/// What clients of calls have words for: the call cannot be.
pub(super) fn no_such_room() -> Response {
    Refused::from(Refusal::NoSuchRoom).into_response()
}

/// An answer instead of an upgrade.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    text: Cow<'static, str>,
}

impl Refused {
    fn new(status: u16, text: impl Into<Cow<'static, str>>) -> Self {
        Self { status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), text: text.into() }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unauthorized(text) => Self::new(401, text),
            Refusal::BadRequest(text) => Self::new(400, text),
            Refusal::NoSuchRoom => Self::new(404, "requested room does not exist"),
            Refusal::Unavailable(text) => Self::new(503, text),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], self.text.into_owned()).into_response()
    }
}

/// Whether proxies should send new calls here. Why not, only the operator's listener says.
async fn ready(State(app): State<Arc<App>>) -> Response {
    if Health::is_ready(&app) { "ready".into_response() } else { StatusCode::SERVICE_UNAVAILABLE.into_response() }
}

async fn validate(
    State(app): State<Arc<App>>,
    generation: Generation,
    Extension(held): Extension<Arc<Held>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let result = match admit(held, &headers, false) {
        Ok(_) => check(&app, generation, query.as_deref(), &headers).await,
        Err(refused) => Err(refused),
    };
    match result {
        Ok(()) => "success".into_response(),
        Err(refused) => refused.into_response(),
    }
}

/// Who asks, if its address may join once more; `take` counts the join.
pub(super) fn admit(held: Arc<Held>, headers: &HeaderMap, take: bool) -> Result<Guest, Refused> {
    let crowded = || Refused::new(429, "too many connections from this address");
    let guest = held.guest(headers).map_err(|Crowded| crowded())?;
    if let Some(visit) = guest.visit() {
        if visit.is_crowded() {
            return Err(crowded());
        }
        if !visit.may_join(Instant::now(), take) {
            return Err(Refused::new(429, "too many joins from this address"));
        }
    }
    Ok(guest)
}

async fn check(app: &App, generation: Generation, query: Option<&str>, headers: &HeaderMap) -> Result<(), Refused> {
    let (mut request, issued_at) = read_request(app, generation, query, headers)?;
    let door = door(app, &mut request, issued_at, &mut None).await?;
    match app.registry.check(&request.grants.room, door.may_create).await {
        // A resume is told to join anew by a message, not by a status.
        Err(Refusal::NoSuchRoom) if request.reconnect => Ok(()),
        result => Ok(result.map_err(|refusal| door.told(refusal, &request))?),
    }
}

async fn join(
    State(app): State<Arc<App>>,
    generation: Generation,
    Extension(held): Extension<Arc<Held>>,
    ws: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let Ok(ws) = ws else { return StatusCode::NOT_FOUND.into_response() };
    let ws = app.ws_rules.apply(ws);
    let request = admit(held, &headers, true)
        .and_then(|guest| Ok((guest, read_request(&app, generation, query.as_deref(), &headers)?)));
    let mut log = JoinLog::new(&app.audit, request.as_ref().ok().map(|(_, (request, _))| request));
    let result = match request {
        Ok((guest, (request, issued_at))) => {
            enter(&app, request, issued_at, &mut log).await.map(|entered| (guest, entered))
        }
        Err(refused) => Err(refused),
    };
    match result {
        Ok((guest, Entered::Joined(mut conversation))) => {
            app.metrics.join("joined");
            log.admitted();
            conversation.guest = Some(guest);
            ws.on_upgrade(move |socket| conversation.run(socket))
        }
        Ok((guest, Entered::MustRejoin { protocol })) => {
            app.metrics.join("must_rejoin");
            log.refused(101, "resume of a room that is gone: told to join anew");
            ws.on_upgrade(move |socket| async move {
                ws::send_away(socket, protocol).await;
                drop(guest);
            })
        }
        Err(refused) => {
            log.refused(refused.status.as_u16(), &refused.text);
            app.metrics.join(match refused.status.as_u16() {
                400 => "bad_request",
                401 => "unauthorized",
                404 => "no_such_room",
                429 => "too_many",
                503 => "unavailable",
                _ => "error",
            });
            refused.into_response()
        }
    }
}

/// One line for each join that is not let in, and an audit record for each join. Names of room and participant as
/// pseudonyms, tokens never.
struct JoinLog<'a> {
    audit: &'a Audit,
    /// Room and identity, once the token is believed.
    who: Option<(String, String)>,
    is_resume: bool,
    /// What room state said.
    vouched: Option<Vouched>,
    answered: bool,
}

impl<'a> JoinLog<'a> {
    fn new(audit: &'a Audit, request: Option<&JoinRequest>) -> Self {
        let who = request.map(|request| (request.grants.room.clone(), request.grants.identity.clone()));
        let is_resume = request.is_some_and(|request| request.reconnect);
        Self { audit, who, is_resume, vouched: None, answered: false }
    }

    fn admitted(&mut self) {
        self.answered = true;
        let rule = self.vouched.as_ref().map_or("token", |vouched| vouched.rule);
        self.record(What::Admission, rule, "may join");
    }

    fn record(&self, what: What, rule: &str, why: &str) {
        let at = if self.is_resume { "resume" } else { "join" };
        let (room, identity) = self.who.as_ref().map_or(("", ""), |(room, who)| (room.as_str(), who.as_str()));
        let who = self.vouched.as_ref().and_then(|vouched| vouched.user.as_deref()).unwrap_or(identity);
        self.audit.record(&Record { what, at, room, who, rule, why, ..Record::default() });
    }

    fn refused(&mut self, status: u16, reason: &str) {
        self.answered = true;
        let by_room = self.vouched.as_ref().filter(|vouched| vouched.is_refusal).map(|vouched| vouched.rule);
        self.record(What::Refusal, by_room.unwrap_or_else(|| rule_of(status)), reason);
        match &self.who {
            Some((room, who)) => {
                tracing::info!(status, reason, room = %Redacted(room), who = %Redacted(who), "join refused");
            }
            None => tracing::info!(status, reason, "join refused"),
        }
    }
}

/// What refused a join, other than room state.
const fn rule_of(status: u16) -> &'static str {
    match status {
        101 => "room_gone",
        400 => "request",
        401 => "token",
        404 => "no_such_room",
        429 => "limit_per_address",
        499 => "client_gone",
        503 => "no_place",
        _ => "error",
    }
}

impl Drop for JoinLog<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.refused(499, "the client went away before it was answered");
        }
    }
}

/// The token and the request, checked as far as they can be without a room.
fn read_request(
    app: &App,
    generation: Generation,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<(JoinRequest, i64), Refused> {
    let query: Vec<(Cow<'_, str>, Cow<'_, str>)> =
        url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).collect();
    let in_query = || query.iter().find(|(key, _)| key == "access_token").map(|(_, value)| value.as_ref());
    let token = bearer(headers).or_else(in_query).filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| Refused::new(401, "no access token"))?;
    let (grants, issued_at) =
        app.auth.grants(token).map_err(|error| Refused::new(error.status(), error.to_string()))?;
    let pairs = query.iter().map(|(key, value)| (key.as_ref(), value.as_ref()));
    let request = join_request(generation, pairs, grants, &app.join_limits)
        .map_err(|error| Refused::new(error.status(), error.to_string()))?;
    Ok((request, issued_at))
}

/// The token of an `Authorization: Bearer` header. Another scheme is not ours: a proxy in front may have put it there.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

enum Entered {
    Joined(Box<Conversation>),
    MustRejoin { protocol: i32 },
}

/// Take the request to its room and wait for the room's first answer.
async fn enter(
    app: &Arc<App>,
    mut request: JoinRequest,
    issued_at: i64,
    log: &mut JoinLog<'_>,
) -> Result<Entered, Refused> {
    let _pending =
        app.pending.clone().try_acquire_owned().map_err(|_| Refusal::Unavailable("too many joins at once"))?;
    let door = door(app, &mut request, issued_at, &mut log.vouched).await?;
    let answered = tokio::time::timeout(FIRST_ANSWER, async {
        for _ in 0..ATTEMPTS {
            match attempt(app, &request, door.may_create).await {
                Attempt::Over(result) => return result,
                Attempt::RoomEnded => {}
            }
        }
        Err(Refusal::Unavailable("room is ending"))
    })
    .await;
    match answered {
        Ok(Ok(conversation)) => Ok(Entered::Joined(conversation)),
        Ok(Err(Refusal::NoSuchRoom)) if request.reconnect => {
            Ok(Entered::MustRejoin { protocol: request.client.protocol })
        }
        Ok(Err(refusal)) => Err(door.told(refusal, &request).into()),
        Err(_) => Err(Refusal::Unavailable("server is overloaded").into()),
    }
}

/// How a join is let in.
#[derive(Clone, Copy)]
struct Door {
    /// It may make its room.
    may_create: bool,
    /// It is to a call of a Matrix room.
    is_matrix: bool,
}

impl Door {
    /// What the client is told. Clients of Matrix calls show a meaningful page for one status only: for a room that
    /// cannot be made they say that the call could not be created, and to try again later. What they make of 503 blames
    /// the network.
    fn told(self, refusal: Refusal, request: &JoinRequest) -> Refusal {
        if self.is_matrix && !request.reconnect && refusal == FULL { Refusal::NoSuchRoom } else { refusal }
    }
}

/// For calls of Matrix rooms, room state says whether a join may happen at all, and what is left of the grants. Elsewhere
/// who was in a room may make it again: clients never ask for another token.
async fn door(
    app: &App,
    request: &mut JoinRequest,
    issued_at: i64,
    vouched: &mut Option<Vouched>,
) -> Result<Door, Refusal> {
    let is_matrix = match &app.matrix {
        Some(matrix) => matrix.check_join(&mut request.grants, issued_at, vouched).await?,
        None => false,
    };
    Ok(Door { may_create: is_matrix || request.grants.room_create || request.grants.joined, is_matrix })
}

enum Attempt {
    Over(Result<Box<Conversation>, Refusal>),
    /// The room ended before it answered.
    RoomEnded,
}

async fn attempt(app: &Arc<App>, request: &JoinRequest, may_create: bool) -> Attempt {
    let room = match app.registry.enter(&request.grants.room, may_create).await {
        Ok(room) => room,
        Err(refusal) => return Attempt::Over(Err(refusal)),
    };
    let connection = ConnectionId(app.next_connection.fetch_add(1, Ordering::Relaxed));
    // The place for "closed" is taken before anything else, so that it can never fail to arrive.
    let Ok(closing) = room.inputs.clone().reserve_owned().await else { return Attempt::RoomEnded };
    let closing = Closing { connection, permit: Some(closing) };
    let (link, feed, answer) = connection::pair(app.queue_limits);
    let join = RoomInput::Join { connection, request: Box::new(request.clone()), link };
    if room.inputs.send(join).await.is_err() {
        return Attempt::RoomEnded;
    }
    match answer.await {
        Ok(Ok(())) => Attempt::Over(Ok(Box::new(Conversation {
            connection,
            inputs: room.inputs,
            feed,
            closing,
            rules: app.ws_rules,
            metrics: app.metrics.clone(),
            present: LoadShare::of(&app.conversations),
            guest: None,
        }))),
        Ok(Err(refusal)) => Attempt::Over(Err(refusal)),
        Err(_) => Attempt::RoomEnded,
    }
}

/// Tells the room that a connection is gone, however it went.
#[derive(Debug)]
pub(super) struct Closing {
    connection: ConnectionId,
    permit: Option<mpsc::OwnedPermit<RoomInput>>,
}

impl Drop for Closing {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            permit.send(RoomInput::Plain(Input::ConnectionClosed { connection: self.connection }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::served_path;

    #[test]
    fn prefixes_and_double_slashes_lead_to_the_endpoint() {
        for (path, expected) in [
            ("/rtc", "/rtc"),
            ("//rtc", "/rtc"),
            ("/rtc/", "/rtc"),
            ("/livekit/sfu/rtc/v1", "/rtc/v1"),
            ("/livekit/sfu//rtc/v1/validate", "/rtc/v1/validate"),
            ("/a/rtc/validate", "/rtc/validate"),
            ("/a//twirp/livekit.RoomService/ListRooms", "/twirp/livekit.RoomService/ListRooms"),
            ("/", "/"),
            ("//", "/"),
            ("/other", "/other"),
            ("/notrtc", "/notrtc"),
            ("/livekit/jwt/sfu/get", "/sfu/get"),
            ("/_matrix/client/v1/rtc/livekit/get_token", "/_matrix/client/v1/rtc/livekit/get_token"),
            ("/weir/_matrix/app/v1/transactions/7", "/_matrix/app/v1/transactions/7"),
        ] {
            assert_eq!(served_path(path).as_deref(), Some(expected), "{path}");
        }
    }
}
