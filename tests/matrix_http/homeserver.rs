//! A homeserver that does what a test tells it: rooms with state, OpenID tokens, and a list of what was asked of it.

#![allow(dead_code, reason = "each of its users needs a part")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use serde_json::{Value, json};

pub const AS_TOKEN: &str = "as-token-as-token-as-token";
pub const HS_TOKEN: &str = "hs-token-hs-token-hs-token";
pub const NAME: &str = "hs.test";

#[derive(Default)]
struct World {
    /// Room, type, state key.
    state: BTreeMap<(String, String, String), Value>,
    asked: Vec<String>,
    down: bool,
    unreachable: bool,
    /// It knows no delayed events.
    undelayed: bool,
    events: u64,
    transactions: u64,
    name: String,
    as_token: String,
    /// What another server says when asked through this one, and what was asked of it.
    elsewhere: (u16, Value),
    proxied: Vec<Value>,
}

/// The homeserver, running.
#[derive(Clone)]
pub struct Homeserver {
    pub address: SocketAddr,
    hs_token: String,
    world: Arc<Mutex<World>>,
    http: reqwest::Client,
}

type Shared = State<Arc<Mutex<World>>>;

impl Homeserver {
    pub async fn start() -> Self {
        Self::named(NAME, AS_TOKEN, HS_TOKEN).await
    }

    pub async fn named(name: &str, as_token: &str, hs_token: &str) -> Self {
        let world = World { name: name.to_owned(), as_token: as_token.to_owned(), ..World::default() };
        let world = Arc::new(Mutex::new(world));
        let router = Router::new()
            .route("/_matrix/federation/v1/openid/userinfo", get(userinfo))
            .route("/_matrix/client/v3/rooms/{room}/state", get(state))
            .route("/_matrix/client/v3/rooms/{room}/joined_members", get(joined_members))
            .route("/_matrix/client/v3/rooms/{room}/state/{kind}/{key}", put(put_state))
            .route("/_matrix/client/v3/rooms/{room}/send/{kind}/{txn}", put(async || axum::Json(json!({}))))
            .route("/_matrix/client/v1/appservice/weir/ping", post(ping))
            .route("/_matrix/client/unstable/org.matrix.msc4140/delayed_events/{id}/{action}", post(delayed))
            .route("/_matrix/client/unstable/io.element.msc4512/appservice/fed_proxy", post(fed_proxy))
            .layer(middleware::from_fn_with_state(world.clone(), note))
            .with_state(world.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, hs_token: hs_token.to_owned(), world, http: reqwest::Client::new() }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every answer is 502 from now on, or no longer.
    pub fn set_down(&self, down: bool) {
        self.world.lock().unwrap().down = down;
    }

    /// What another server says when it is asked through this one.
    pub fn elsewhere(&self, status: u16, content: Value) {
        self.world.lock().unwrap().elsewhere = (status, content);
    }

    /// It answers, but reaches no weir.
    pub fn set_unreachable(&self, unreachable: bool) {
        self.world.lock().unwrap().unreachable = unreachable;
    }

    /// It knows nothing of delayed events.
    pub fn set_undelayed(&self, undelayed: bool) {
        self.world.lock().unwrap().undelayed = undelayed;
    }

    pub fn is_undelayed(&self) -> bool {
        self.world.lock().unwrap().undelayed
    }

    /// What was asked of other servers through this one.
    pub fn proxied(&self) -> Vec<Value> {
        self.world.lock().unwrap().proxied.clone()
    }

    /// Method and path of what was asked so far.
    pub fn asked(&self) -> Vec<String> {
        self.world.lock().unwrap().asked.clone()
    }

    /// Put an event into the state of a room, and give it as it would be pushed.
    pub fn set(&self, room: &str, kind: &str, key: &str, sender: &str, content: &Value) -> Value {
        self.world.lock().unwrap().set(room, kind, key, sender, content)
    }

    pub fn member(&self, room: &str, user: &str, membership: &str) -> Value {
        self.set(room, "m.room.member", user, user, &json!({ "membership": membership }))
    }

    /// Push events to weir, and expect them to be taken.
    pub async fn push(&self, weir: SocketAddr, events: &[Value]) {
        let txn = {
            let mut world = self.world.lock().unwrap();
            world.transactions += 1;
            world.transactions
        };
        assert_eq!(self.push_as(weir, &self.hs_token, &txn.to_string(), events).await, 200);
    }

    pub async fn push_as(&self, weir: SocketAddr, token: &str, txn: &str, events: &[Value]) -> u16 {
        let url = format!("http://{weir}/_matrix/app/v1/transactions/{txn}");
        let sent = self.http.put(url).bearer_auth(token).json(&json!({ "events": events })).send().await;
        sent.unwrap().status().as_u16()
    }
}

impl World {
    fn set(&mut self, room: &str, kind: &str, key: &str, sender: &str, content: &Value) -> Value {
        self.events += 1;
        let place = (room.to_owned(), kind.to_owned(), key.to_owned());
        let mut event = json!({
            "type": kind, "state_key": key, "sender": sender, "room_id": room, "content": content,
            "event_id": format!("${}", self.events), "origin_server_ts": 1_700_000_000_000_u64 + self.events,
        });
        if let Some(before) = self.state.get(&place) {
            event["unsigned"] = json!({ "replaces_state": before["event_id"] });
        }
        self.state.insert(place, event.clone());
        event
    }

    fn joined(&self, room: &str) -> Vec<&str> {
        let members = self.state.iter().filter(|((r, kind, _), event)| {
            r == room && kind == "m.room.member" && event["content"]["membership"] == "join"
        });
        members.map(|((_, _, user), _)| user.as_str()).collect()
    }
}

async fn note(State(world): Shared, request: Request, next: Next) -> Response {
    let (down, token) = {
        let mut world = world.lock().unwrap();
        world.asked.push(format!("{} {}", request.method(), request.uri()));
        (world.down, world.as_token.clone())
    };
    let public = request.uri().path().contains("openid") || request.uri().path().contains("delayed_events");
    let shown = request.headers().get("authorization").and_then(|h| h.to_str().ok()).unwrap_or_default();
    match () {
        () if down => StatusCode::BAD_GATEWAY.into_response(),
        () if !public && shown != format!("Bearer {token}") => error(401, "M_UNKNOWN_TOKEN"),
        () => next.run(request).await,
    }
}

/// Token `openid:@user:server` is that user's.
async fn userinfo(Query(query): Query<BTreeMap<String, String>>) -> Response {
    match query.get("access_token").and_then(|token| token.strip_prefix("openid:")) {
        Some(user) => axum::Json(json!({ "sub": user })).into_response(),
        None => error(401, "M_UNKNOWN_TOKEN"),
    }
}

async fn state(
    State(world): Shared,
    Path(room): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let world = world.lock().unwrap();
    let user = query.get("user_id").cloned().unwrap_or_default();
    if !world.joined(&room).contains(&user.as_str()) {
        return error(403, "M_FORBIDDEN");
    }
    let events = world.state.iter().filter(|((r, _, _), _)| *r == room).map(|(_, event)| event.clone());
    axum::Json(Value::Array(events.collect())).into_response()
}

async fn joined_members(State(world): Shared, Path(room): Path<String>) -> Response {
    let world = world.lock().unwrap();
    let joined = world.joined(&room);
    if !joined.iter().any(|user| user.ends_with(&format!(":{}", world.name))) {
        return error(403, "M_FORBIDDEN");
    }
    let joined: BTreeMap<&str, Value> = joined.into_iter().map(|user| (user, json!({}))).collect();
    axum::Json(json!({ "joined": joined })).into_response()
}

async fn put_state(
    State(world): Shared,
    Path((room, kind, key)): Path<(String, String, String)>,
    Query(query): Query<BTreeMap<String, String>>,
    body: axum::Json<Value>,
) -> Response {
    let sender = query.get("user_id").cloned().unwrap_or_default();
    let event = world.lock().unwrap().set(&room, &kind, &key, &sender, &body.0);
    axum::Json(json!({ "event_id": event["event_id"] })).into_response()
}

async fn ping(State(world): Shared) -> Response {
    if world.lock().unwrap().unreachable {
        return error(502, "M_CONNECTION_FAILED");
    }
    axum::Json(json!({ "duration_ms": 1 })).into_response()
}

async fn delayed(State(world): Shared) -> Response {
    if world.lock().unwrap().undelayed { error(404, "M_NOT_FOUND") } else { axum::Json(json!({})).into_response() }
}

async fn fed_proxy(State(world): Shared, body: axum::Json<Value>) -> Response {
    let mut world = world.lock().unwrap();
    world.proxied.push(body.0);
    let (status, content) = &world.elsewhere;
    axum::Json(json!({ "status": status, "content": content })).into_response()
}

fn error(status: u16, code: &str) -> Response {
    (StatusCode::from_u16(status).unwrap(), axum::Json(json!({ "errcode": code, "error": "no" }))).into_response()
}
