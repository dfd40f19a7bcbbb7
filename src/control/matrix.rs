//! Matrix: tokens for callers that room state admits, and room state that decides who stays.
//!
//! [`http`] takes requests, [`openid`] proves users (over [`resolve`], which asks no forbidden address), [`service`] is the
//! one task that knows rooms, calls and leaves and decides. It reads homeservers through [`homeserver`], keeps what must
//! outlive it in [`store`], and gives [`Order`]s to the SFU. [`Matrix`] is the handle everybody else has.

mod admission;
mod calls;
mod ceilings;
mod coalesced;
mod decisions;
mod fetch;
mod homeserver;
mod http;
mod openid;
mod resolve;
mod rooms;
mod service;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::HeaderMap;
use livekit_protocol as proto;
use serde_json::{Value, json};
use signalling::matrix::identity::{IdentityForm, room_name};
use signalling::matrix::power::Dialect;
use signalling::matrix::request::{ApiError, TokenRequest};
use signalling::matrix::server_name::{ServerName, server_of_user};
use signalling::room::api::{AdminRequest, Grants, Notice, Refusal};
use signalling::token::{CallClaim, Claims, OwnClaim, VideoGrant};
use tokio::sync::{mpsc, oneshot};
use url::Url;

use self::admission::Refused;
use self::calls::HomeId;
use self::homeserver::Homeserver;
use self::openid::{OpenId, OpenIdError};
use self::resolve::{Federation, SystemDns};
use self::service::{Admitted, Came, Input, Looked, Order, Parts, Presence, Service, Shown, TokenQuestion};
use self::store::Store;
use super::audit::{Audit, Record, What};
use super::auth::{Auth, is_call};
use super::listener::Held;
use super::metrics::Metrics;
use super::nodes::pass::{NoAnswer, Passing, relayed_json};
use super::nodes::{Nodes, Where};
use super::registry::{self, Registry};
use crate::config::{Config, MatrixConfig, Secret};
use crate::media::clock::unix_now;

pub(super) use self::http::router;

/// Inputs that wait for the service. Full: pushes are refused and come again, requests wait.
const INPUTS: usize = 4_096;
/// Orders that wait for rooms.
const ORDERS: usize = 4_096;
/// Where the weir of another server gives tokens to users of ours.
const REMOTE_TOKEN: &str = "/_matrix/federation/unstable/io.element.msc4195/rtc/livekit/get_token";
/// How long a push may wait for a place in the queue.
const PUSH_PATIENCE: Duration = Duration::from_secs(5);

/// Asks and tells the Matrix service. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Matrix {
    inputs: mpsc::Sender<Input>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Arc<MatrixConfig>,
    /// By their places in the configuration.
    homes: Vec<Homeserver>,
    openid: OpenId,
    auth: Arc<Auth>,
    registry: Registry,
    url: String,
    metrics: Arc<Metrics>,
    nodes: Nodes,
    audit: Audit,
}

/// Reports of room tasks, on their way to the service.
#[derive(Clone, Debug)]
pub(super) struct Notices(mpsc::Sender<Input>);

/// The service before there are rooms: rooms report to it, and it gives orders to rooms.
#[derive(Debug)]
pub(super) struct Prepared {
    inputs: mpsc::Sender<Input>,
    receiver: mpsc::Receiver<Input>,
}

/// A queue for reports, to be made before the registry is.
pub(super) fn prepare() -> (Notices, Prepared) {
    let (inputs, receiver) = mpsc::channel(INPUTS);
    (Notices(inputs.clone()), Prepared { inputs, receiver })
}

impl Notices {
    /// A room task reports. Never waits: what finds no place is sent from beside.
    pub(super) fn tell(&self, room: &str, notice: &Notice) {
        let intended =
            |who: &proto::ParticipantInfo| matches!(who.disconnect_reason(), proto::DisconnectReason::ClientInitiated);
        let (who, what) = match notice {
            Notice::ParticipantJoined(_, who) => (who, Came::Joined),
            Notice::ParticipantLeft(_, who) | Notice::ParticipantAborted(_, who) => {
                (who, Came::Left { intended: intended(who) })
            }
            _ => return,
        };
        if !is_call(room) {
            return;
        }
        let presence = Presence { room: room.to_owned(), identity: who.identity.clone(), sid: who.sid.clone(), what };
        if let Err(mpsc::error::TrySendError::Full(input)) = self.0.try_send(Input::Presence(presence)) {
            let inputs = self.0.clone();
            tokio::spawn(async move { inputs.send(input).await });
        }
    }
}

impl Notices {
    /// What participants of a room publish, in bit/s. Never waits: what finds no place is told a second later.
    pub(super) fn tell_rates(&self, room: &str, rates: Vec<(String, u64)>) {
        if is_call(room) {
            let _ = self.0.try_send(Input::Rates { room: room.to_owned(), rates });
        }
    }
}

impl Prepared {
    /// Start the service.
    ///
    /// # Errors
    /// In words, when a file or the system's name resolution cannot be used.
    pub(super) fn start(
        self,
        config: &Config,
        auth: Arc<Auth>,
        registry: Registry,
        metrics: Arc<Metrics>,
        nodes: Nodes,
        audit: Audit,
    ) -> Result<Matrix, String> {
        let matrix = Arc::new(config.matrix.clone());
        let authorities = authorities(&matrix.federation_ca_file)?;
        let client = openid::trusted_client(&authorities)?;
        let allowed = matrix.allow_private_addresses.iter().map(|block| block.0).collect();
        let federation = Arc::new(Federation::new(Arc::new(SystemDns::new()?), allowed, authorities));
        let homes: Vec<Homeserver> =
            matrix.homeservers.iter().filter_map(|home| Homeserver::new(home.clone(), client.clone())).collect();
        let bases: BTreeMap<String, Url> = matrix
            .homeservers
            .iter()
            .filter_map(|home| Some((home.server_name.clone(), Url::parse(home.openid_base()).ok()?)))
            .collect();
        let (store, loaded) = Store::open(matrix.state_path().as_deref());
        let (orders, receiver) = mpsc::channel(ORDERS);
        let asked = homes.clone();
        let parts = Parts {
            config: matrix.clone(),
            homes,
            federation: federation.clone(),
            store,
            loaded,
            orders,
            results: self.inputs.downgrade(),
            metrics: metrics.clone(),
            audit: audit.clone(),
            nodes: Some(nodes.clone()),
        };
        for home in &matrix.homeservers {
            let (numbers, name) = (&metrics.matrix, [&home.server_name]);
            numbers.last_push.with_label_values(&name).set(0);
            for gauge in [&numbers.homeserver_up, &numbers.homeserver_pushes] {
                gauge.with_label_values(&name).set(1);
            }
            if !home.policy_rooms.is_empty() {
                numbers.lists_read.with_label_values(&name).set(0);
            }
        }
        tokio::spawn(obey(receiver, registry.clone()));
        tokio::spawn(Service::new(parts, service::now()).run(self.receiver));
        let url = if matrix.url.is_empty() { format!("ws://localhost:{}", config.port) } else { matrix.url.clone() };
        let openid = OpenId::new(bases, client, matrix.homeserver_grace.0, federation);
        let shared =
            Arc::new(Shared { config: matrix, homes: asked, openid, auth, registry, url, metrics, nodes, audit });
        Ok(Matrix { inputs: self.inputs, shared })
    }
}

impl Matrix {
    /// The user whose request it is, by the OpenID token in it.
    async fn prove(&self, request: &TokenRequest, asked: &Asked) -> Result<String, ApiError> {
        if let Some(user) = self.shared.nodes.passed(&asked.headers).and_then(|passed| passed.user) {
            return Ok(user);
        }
        let token = request.openid.as_ref().ok_or(ApiError::UNAUTHORIZED)?;
        let user = self.shared.openid.user(token).await.map_err(|error| match error {
            OpenIdError::Refused => ApiError::UNAUTHORIZED,
            OpenIdError::HomeserverDown | OpenIdError::Busy => admission::unavailable(),
        })?;
        if request.claimed_user.as_ref().is_some_and(|claimed| *claimed != user) {
            return Err(ApiError::UNAUTHORIZED);
        }
        Ok(user)
    }

    /// Count a request that came to nothing before anybody was asked about the room.
    fn count_unproven(&self, request: &TokenRequest, error: ApiError) -> ApiError {
        let (rule, why) = match error.status {
            401 => ("openid", "could not prove who it is"),
            _ => ("homeserver_down", "could not be looked up: the homeserver does not answer"),
        };
        let room = room_name(&request.matrix_room, &request.slot);
        self.shared.audit.record(&Record {
            what: What::Refusal,
            at: "token",
            room: &room,
            rule,
            why,
            ..Record::default()
        });
        self.shared.metrics.matrix.tokens.with_label_values(&[result_of(&error)]).inc();
        error
    }

    /// A token for a proven user, as the answer's body.
    async fn token(&self, request: &TokenRequest, user: &str, asked: &Asked) -> Result<Value, ApiError> {
        let result = match self.elsewhere(request, user, asked).await {
            Some(result) => result,
            None => self.make_token(request, user).await,
        };
        let label = result.as_ref().err().map_or("ok", |error| result_of(error));
        self.shared.metrics.matrix.tokens.with_label_values(&[label]).inc();
        result
    }

    /// The answer of the node where the room is, if it is not this one: that node is to know whom it lets in.
    async fn elsewhere(&self, request: &TokenRequest, user: &str, asked: &Asked) -> Option<Result<Value, ApiError>> {
        let nodes = &self.shared.nodes;
        if nodes.passed(&asked.headers).is_some() {
            return None;
        }
        let room = room_name(&request.matrix_room, &request.slot);
        let client = asked
            .held
            .as_ref()
            .map(|held| nodes.regions().of_client(held.trusted(&asked.headers), Some(held.client(&asked.headers))));
        let wanted = nodes.regions().of_user(server_of_user(user).unwrap_or_default(), client.unwrap_or_default());
        for _ in 0..2 {
            let peer = match nodes.locate(&room, &wanted).await {
                Where::Here => return None,
                Where::Nowhere => {
                    return Some(Err(ApiError::forbidden(
                        "Calls of your homeserver stay in a region that has no place.",
                    )));
                }
                Where::There(peer) => peer,
            };
            let passing = Passing {
                method: axum::http::Method::POST,
                path: &asked.path,
                headers: &asked.headers,
                body: asked.body.clone(),
                peer: asked.held.as_ref().map(|held| held.peer()),
                user: Some(user),
            };
            // One that does not answer counts as gone: the room is placed anew.
            if let Ok(answer) = nodes.pass(&peer, &passing).await {
                self.shared.metrics.passed.with_label_values(&["token"]).inc();
                return Some(match relayed_json(answer).await {
                    Some((200, json)) => Ok(json),
                    Some((status, json)) => Err(passed_error(status, &json)),
                    None => Err(admission::unavailable()),
                });
            }
        }
        Some(Err(admission::unavailable()))
    }

    async fn make_token(&self, request: &TokenRequest, user: &str) -> Result<Value, ApiError> {
        let identity = request.identity(user).ok_or(ApiError::UNAUTHORIZED)?;
        let form = request.endpoint.identity_form(request.device.is_some());
        let dialect = if form == IdentityForm::UserDevice { Dialect::State } else { Dialect::Sticky };
        let question = Box::new(TokenQuestion {
            matrix_room: request.matrix_room.clone(),
            slot: request.slot.clone(),
            caller: request.caller(user),
            identity: identity.clone(),
            dialect,
            leave: request.delayed_leave.clone(),
        });
        let admitted = self.ask(|answer| Input::Token { request: question, answer }).await;
        let admitted = admitted.unwrap_or(Err(Refused::HomeserverDown)).map_err(Refused::api_error)?;
        let room = room_name(&request.matrix_room, &request.slot);
        // Made here, so that nobody else needs the right to make rooms. A node without head-room gives the token all the
        // same and refuses the join: clients have words for that, but none for a token that was refused.
        match self.shared.registry.enter(&room, true).await {
            Ok(_) | Err(registry::FULL) => {}
            Err(_) => return Err(UNABLE),
        }
        let homes = &self.shared.config.homeservers;
        let home = admitted.home.and_then(|home| homes.get(home.0)).map(|home| home.server_name.clone());
        let caller = request.caller(user);
        let call = CallClaim {
            home: home.unwrap_or_default(),
            room: request.matrix_room.clone(),
            slot: request.slot.clone(),
            user: caller.user,
            device: caller.device,
            member: caller.member,
            sticky: dialect == Dialect::Sticky,
        };
        let jwt = self.sign(room, identity, admitted, call)?;
        let own = self.shared.nodes.own_url();
        let url = if own.is_empty() { self.shared.url.as_str() } else { own };
        Ok(json!({ "url": url, "jwt": jwt }))
    }

    /// A token of the weir of another server, for one of our users who may join the room here.
    async fn token_from(
        &self,
        home: HomeId,
        server: &str,
        request: &TokenRequest,
        user: &str,
    ) -> Result<Value, ApiError> {
        let bad = ApiError { status: 400, errcode: "M_INVALID_PARAM", text: "This is no server name." };
        ServerName::parse(server).map_err(|_| bad)?;
        let asked = self.shared.homes.get(home.0).ok_or(ApiError::UNAUTHORIZED)?;
        let body = json!({
            "user_id": user, "url": request.url, "room_id": request.matrix_room, "slot_id": request.slot,
            "member_id": request.member,
        });
        let answer = asked.ask_remote(server, REMOTE_TOKEN, &body).await;
        let unreachable = ApiError { status: 502, errcode: "M_UNKNOWN", text: "The other server cannot be asked." };
        match answer {
            // Only what a client expects is handed on: the rest is a stranger's.
            Ok((200, json)) => match json.get("jwt").and_then(Value::as_str) {
                Some(jwt) => {
                    let url = json.get("url").and_then(Value::as_str).or(request.url.as_deref());
                    Ok(json!({ "url": url, "jwt": jwt }))
                }
                None => Err(unreachable),
            },
            Ok((401 | 403, _)) => Err(ApiError::forbidden("The other server lets you take no part in this call.")),
            Ok((429, _)) => {
                let text = "The other server has no place for you now.";
                Err(ApiError { status: 429, errcode: "M_LIMIT_EXCEEDED", text })
            }
            _ => Err(unreachable),
        }
    }

    fn sign(&self, room: String, identity: String, admitted: Admitted, call: CallClaim) -> Result<String, ApiError> {
        let Admitted { rights, not_before, .. } = admitted;
        let video = VideoGrant {
            room_join: true,
            room,
            can_publish: Some(rights.any()),
            can_publish_data: Some(rights.any()),
            can_publish_sources: admission::source_names(rights),
            can_subscribe: Some(true),
            can_update_own_metadata: Some(false),
            ..VideoGrant::default()
        };
        let weir = Some(OwnClaim { call: Some(call), ..OwnClaim::default() });
        let claims = Claims { sub: identity, video: Some(video), weir, ..Claims::default() };
        self.shared.auth.sign(claims, self.shared.config.token_lifetime.0, not_before).map_err(|_| UNABLE)
    }

    /// A token is shown at the door: may its bearer still come in, and with which rights now? Tokens for rooms that are
    /// no Matrix rooms are none of ours.
    ///
    /// Gives whether the room may be made: after a restart nobody else brings a running call back.
    ///
    /// # Errors
    /// With what the client is told.
    pub(super) async fn check_join(
        &self,
        grants: &mut Grants,
        issued_at: i64,
        vouched: &mut Option<Vouched>,
    ) -> Result<bool, Refusal> {
        if !is_call(&grants.room) {
            return Ok(false);
        }
        let shown = Shown {
            room: grants.room.clone(),
            identity: grants.identity.clone(),
            issued_at,
            call: grants.call.clone(),
            joined: grants.joined,
        };
        let answer = self.ask(|answer| Input::Join { shown: Box::new(shown), answer }).await;
        let Looked { user, rule, result } = answer.unwrap_or(Looked::nobody(Refused::HomeserverDown));
        *vouched = Some(Vouched { user, rule, is_refusal: result.is_err() });
        let rights = result.map_err(Refused::refusal)?;
        admission::narrow(grants, rights);
        Ok(true)
    }

    /// Hand a push on to all other nodes. False when one that lives did not take it.
    async fn tell_others(&self, path: &str, headers: &HeaderMap, body: &Bytes) -> bool {
        let nodes = &self.shared.nodes;
        if nodes.passed(headers).is_some() {
            return true;
        }
        let others = nodes.others();
        let tell = others.iter().map(|peer| async move {
            let (method, body) = (axum::http::Method::PUT, body.clone());
            let passing = Passing { method, path, headers, body, peer: None, user: None };
            match nodes.pass(peer, &passing).await {
                Ok(answer) => {
                    self.shared.metrics.passed.with_label_values(&["push"]).inc();
                    answer.status().is_success()
                }
                // It counts as gone: what it has is made anew elsewhere, or read again when it is back.
                Err(NoAnswer) => true,
            }
        });
        futures_util::future::join_all(tell).await.into_iter().all(|told| told)
    }

    /// A homeserver pushes. False when there is no place.
    async fn push(&self, home: HomeId, events: Vec<signalling::matrix::event::Event>) -> bool {
        if let Some(name) = self.server_name(home) {
            let now = i64::try_from(unix_now().as_secs()).unwrap_or(i64::MAX);
            self.shared.metrics.matrix.last_push.with_label_values(&[name]).set(now);
        }
        let sent = self.inputs.send(Input::Push { home, events });
        matches!(tokio::time::timeout(PUSH_PATIENCE, sent).await, Ok(Ok(())))
    }

    /// The last decisions about a user, in plain words.
    pub(super) async fn why(&self, user: &str) -> Vec<String> {
        let user = user.to_owned();
        self.ask(|answer| Input::Why { user, answer }).await.unwrap_or_default()
    }

    /// The homeserver whose token this is, compared in constant time.
    fn home_of_token(&self, token: &str) -> Option<HomeId> {
        let is = |expected: &str| {
            // An unset token is nobody's.
            !expected.is_empty()
                && aws_lc_rs::constant_time::verify_slices_are_equal(expected.as_bytes(), token.as_bytes()).is_ok()
        };
        self.shared.config.homeservers.iter().position(|home| is(home.hs_token.expose())).map(HomeId)
    }

    /// The homeserver of ours with this name.
    fn home_of_server(&self, name: &str) -> Option<HomeId> {
        self.shared.config.homeservers.iter().position(|home| home.server_name == name).map(HomeId)
    }

    fn server_name(&self, home: HomeId) -> Option<&str> {
        self.shared.config.homeservers.get(home.0).map(|home| home.server_name.as_str())
    }

    fn url(&self) -> &str {
        &self.shared.url
    }

    /// What clients are told as `livekit_service_url`: the same place, over HTTP.
    fn service_url(&self) -> String {
        self.shared.url.replacen("ws", "http", 1)
    }

    async fn ask<T>(&self, input: impl FnOnce(oneshot::Sender<T>) -> Input) -> Option<T> {
        let (sender, answer) = oneshot::channel();
        self.inputs.send(input(sender)).await.ok()?;
        answer.await.ok()
    }
}

/// What room state said about a join, for the audit stream.
#[derive(Debug)]
pub(super) struct Vouched {
    /// Matrix user, where it is known whose token it is.
    pub(super) user: Option<String>,
    /// By what it was decided.
    pub(super) rule: &'static str,
    /// It decided against.
    pub(super) is_refusal: bool,
}

/// A request with what is needed to pass it on.
#[derive(Debug)]
struct Asked {
    /// With the query.
    path: String,
    headers: HeaderMap,
    held: Option<Arc<Held>>,
    body: Bytes,
}

/// Another node's refusal as this node's own.
fn passed_error(status: u16, json: &Value) -> ApiError {
    match (status, json.get("errcode").and_then(Value::as_str)) {
        (401, _) => ApiError::UNAUTHORIZED,
        (403, _) => ApiError::forbidden("You may not take part in this call."),
        (429, _) => ApiError { status: 429, errcode: "M_LIMIT_EXCEEDED", text: "There is no place for you now." },
        (400, Some(_)) => ApiError { status: 400, errcode: "M_BAD_JSON", text: "The request is not understood." },
        _ => admission::unavailable(),
    }
}

/// An answer as a metric label.
const fn result_of(error: &ApiError) -> &'static str {
    match error.status {
        400 => "bad_request",
        401 => "unauthorized",
        403 => "forbidden",
        429 => "limited",
        503 => "unavailable",
        _ => "error",
    }
}

/// Stopping, or no key to sign with.
const UNABLE: ApiError = ApiError { status: 500, errcode: "M_UNKNOWN", text: "Unable to create room on SFU" };

/// The secret behind tokens for calls. It follows from what only weir and a homeserver know, so that holders of API keys do
/// not have it, and it is the same after a restart, when pages come back with the tokens they have.
pub(super) fn calls_secret(config: &Config) -> Option<Secret> {
    use aws_lc_rs::hmac;
    if !config.matrix.is_on() {
        return None;
    }
    // Of all homeservers, in an order of its own: who has the registration of one cannot make tokens for calls of others.
    let tokens = config.matrix.homeservers.iter().map(|home| [home.as_token.expose(), home.hs_token.expose()].concat());
    let tokens: BTreeSet<String> = tokens.filter(|tokens| !tokens.is_empty()).collect();
    let all = tokens.into_iter().reduce(|all, one| format!("{all}\n{one}"));
    // Without a registration nothing but the name of the homeserver is checked anyway.
    let known = all.or_else(|| config.keys.first().map(|(_, secret)| secret.expose().to_owned()))?;
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, known.as_bytes()), b"weir: tokens for calls");
    let hex = |byte: &u8| [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0'));
    Some(Secret::new(tag.as_ref().iter().flat_map(hex).collect::<String>()))
}

/// Hand orders to rooms, one after the other.
async fn obey(mut orders: mpsc::Receiver<Order>, registry: Registry) {
    while let Some(order) = orders.recv().await {
        let (room, request) = match order {
            Order::Remove { room, identity } => {
                let reason = proto::DisconnectReason::ParticipantRemoved;
                (room, AdminRequest::RemoveParticipant { identity, reason })
            }
            Order::Permit { room, identity, rights } => {
                let request = proto::UpdateParticipantRequest {
                    room: room.clone(),
                    identity,
                    permission: Some(admission::permission(rights)),
                    ..proto::UpdateParticipantRequest::default()
                };
                (room, AdminRequest::UpdateParticipant(Box::new(request)))
            }
            Order::Lower { room, identity, max_spatial } => (room, AdminRequest::LimitVideo { identity, max_spatial }),
        };
        // Nobody there by that name: nothing to do. The answer is not waited for: what happens in one room must not hold up
        // a removal from another.
        if let Some(room) = registry.find(&room).await {
            room.order(request);
        }
    }
}

fn authorities(file: &str) -> Result<Vec<reqwest::Certificate>, String> {
    if file.is_empty() {
        return Ok(Vec::new());
    }
    let pem = std::fs::read(file).map_err(|e| format!("cannot read {file}: {}", crate::config::plain(&e)))?;
    reqwest::Certificate::from_pem_bundle(&pem)
        .map_err(|_| format!("`matrix.federation_ca_file`: {file} holds no certificates in PEM form"))
}
