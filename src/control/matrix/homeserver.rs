//! One homeserver's client API, asked as its application service. The operator named it, so it is asked where they say.
//!
//! Every call is one request with a time and a size limit, and says in its error only what the caller acts on: that the
//! homeserver knows better (refused), or that nothing was learnt (down).

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use signalling::matrix::delayed::{Answer, Request};
use signalling::matrix::event::{Event, Fact, Membership, RTC_MEMBER};
use signalling::matrix::server_name::server_of_user;
use url::Url;

use super::fetch::{Reply, read};
use crate::config::{Feed, HomeserverConfig};

/// Why nothing came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AskError {
    /// It answered no: nobody of ours is in the room, or not allowed.
    #[error("the homeserver refused")]
    Refused,
    /// No answer, a failure, or it does not know our token.
    #[error("the homeserver does not answer as it should")]
    Down,
}

/// How far a homeserver and weir hear each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Each hears the other, as far as the homeserver can tell.
    Both,
    /// It answers, but cannot push: it does not reach weir.
    OneWay,
}

/// Bytes of a room's state: rooms with a hundred thousand members exist.
const MAX_STATE: usize = 128 << 20;
/// Bytes of any other answer.
const MAX_ANSWER: usize = 64 << 10;
/// Time a room's state may take.
const STATE_PATIENCE: Duration = Duration::from_secs(60);
/// Time anything else may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time another server may take, asked through this one.
const REMOTE_PATIENCE: Duration = Duration::from_secs(20);
/// How long a sticky leave sticks, ms: as long as the join it ends may have (MSC4354).
const STICKY_MS: &str = "3600000";

/// A homeserver.
#[derive(Clone, Debug)]
pub(super) struct Homeserver {
    pub(super) config: HomeserverConfig,
    base: Url,
    client: reqwest::Client,
}

#[derive(Deserialize)]
struct JoinedMembers {
    joined: std::collections::BTreeMap<String, Value>,
}

/// The answer of another server, as the homeserver hands it on.
#[derive(Deserialize)]
struct Proxied {
    status: u16,
    #[serde(default)]
    content: Value,
}

impl Homeserver {
    /// `None` when its URL cannot be used, which the configuration's check has ruled out.
    pub(super) fn new(config: HomeserverConfig, client: reqwest::Client) -> Option<Self> {
        let url = if config.client_api_url.is_empty() { config.openid_base() } else { &config.client_api_url };
        let base = Url::parse(url).ok().filter(|url| !url.cannot_be_a_base())?;
        Some(Self { config, base, client })
    }

    /// Whether a user is one of its own.
    pub(super) fn is_local(&self, user: &str) -> bool {
        server_of_user(user) == Some(self.config.server_name.as_str())
    }

    /// What is known of a room now. With a full feed its whole state, else who is joined.
    ///
    /// `hint` is a user who is probably in it.
    pub(super) async fn room(&self, room: &str, hint: Option<&str>) -> Result<Vec<Event>, AskError> {
        if self.config.feed != Feed::Full {
            return Ok(self.joined(room).await?.into_iter().map(joined_event).collect());
        }
        if let Some(user) = hint.filter(|user| self.is_local(user))
            && let Some(state) = self.state_as(room, user).await?
        {
            return Ok(state);
        }
        let joined = self.joined(room).await?;
        let local = joined.iter().filter(|user| self.is_local(user)).take(3);
        for user in local {
            if let Some(state) = self.state_as(room, user).await? {
                return Ok(state);
            }
        }
        Err(AskError::Refused)
    }

    /// The state as a local user sees it; `None` when that user is not joined: then it would be the state of the past.
    async fn state_as(&self, room: &str, user: &str) -> Result<Option<Vec<Event>>, AskError> {
        let url = self.url(&["_matrix", "client", "v3", "rooms", room, "state"], Some(user));
        let reply = self.ask(self.client.get(url).timeout(STATE_PATIENCE), MAX_STATE).await?;
        if reply.status != 200 {
            return Ok(None);
        }
        let events: Vec<Value> = serde_json::from_slice(&reply.body).map_err(|_| AskError::Down)?;
        let events: Vec<Event> =
            events.iter().filter_map(Event::from_json).filter(|event| event.fact != Fact::Other).collect();
        let joined = events.iter().any(
            |event| matches!(&event.fact, Fact::RoomMember { user: who, membership: Membership::Join } if who == user),
        );
        Ok(joined.then_some(events))
    }

    async fn joined(&self, room: &str) -> Result<Vec<String>, AskError> {
        let url = self.url(&["_matrix", "client", "v3", "rooms", room, "joined_members"], None);
        let reply = self.ask(self.client.get(url).timeout(STATE_PATIENCE), MAX_STATE).await?;
        match reply.status {
            200 => {
                let members: JoinedMembers = serde_json::from_slice(&reply.body).map_err(|_| AskError::Down)?;
                Ok(members.joined.into_keys().collect())
            }
            403 | 404 => Err(AskError::Refused),
            _ => Err(AskError::Down),
        }
    }

    /// Ask it to push at once what it holds back (Matrix spec, application service ping). Also shows that it is there.
    pub(super) async fn ping(&self) -> Result<Reach, AskError> {
        let id = self.config.registration_id();
        let url = self.url(&["_matrix", "client", "v1", "appservice", id, "ping"], None);
        let request = self.client.post(url).timeout(PATIENCE).json(&json!({}));
        let sent = request.bearer_auth(self.config.as_token.expose()).send().await.map_err(|_| AskError::Down)?;
        let reply = read(sent, MAX_ANSWER).await.ok_or(AskError::Down)?;
        if cannot_reach(&reply) {
            // A failure by its status, and yet it is up.
            return Ok(Reach::OneWay);
        }
        match reply.status {
            401 | 429 | 500.. => Err(AskError::Down),
            // One that knows no ping says nothing about its way to us.
            _ => Ok(Reach::Both),
        }
    }

    /// Empty a call membership in room state, in the name of `user`.
    pub(super) async fn clear_state(&self, room: &str, kind: &str, key: &str, user: &str) -> Result<(), AskError> {
        let url = self.url(&["_matrix", "client", "v3", "rooms", room, "state", kind, key], Some(user));
        done(&self.ask(self.client.put(url).json(&json!({})), MAX_ANSWER).await?)
    }

    /// Send the leave of a sticky membership, in the name of `user`.
    pub(super) async fn send_sticky_leave(
        &self,
        room: &str,
        user: &str,
        member: &str,
        txn: &str,
    ) -> Result<(), AskError> {
        let path = ["_matrix", "client", "v3", "rooms", room, "send", RTC_MEMBER[0], txn];
        let mut url = self.url(&path, Some(user));
        url.query_pairs_mut().append_pair("org.matrix.msc4354.sticky_duration_ms", STICKY_MS);
        done(&self.ask(self.client.put(url).json(&json!({ "msc4354_sticky_key": member })), MAX_ANSWER).await?)
    }

    /// Push a delayed leave off, or send it (MSC4140). Needs no token: whoever knows the id may.
    pub(super) async fn delayed(&self, delay_id: &str, request: Request) -> Answer {
        let url = self.url(&delayed_path(delay_id, request), None);
        let sent = self.client.post(url).timeout(PATIENCE).json(&json!({})).send().await;
        match sent {
            Ok(response) => read(response, MAX_ANSWER).await.map_or(Answer::Failed, |reply| delayed_answer(&reply)),
            Err(_) => Answer::Failed,
        }
    }

    /// Have it ask the weir of another server, over federation (MSC4512): status and JSON of that one's answer.
    pub(super) async fn ask_remote(&self, server: &str, path: &str, body: &Value) -> Result<(u16, Value), AskError> {
        let url = self.url(&["_matrix", "client", "unstable", "io.element.msc4512", "appservice", "fed_proxy"], None);
        let request = json!({ "destination": server, "method": "POST", "path": path, "body": body });
        let reply = self.ask(self.client.post(url).timeout(REMOTE_PATIENCE).json(&request), MAX_ANSWER).await?;
        if reply.status != 200 {
            return Err(AskError::Refused);
        }
        let answer: Proxied = serde_json::from_slice(&reply.body).map_err(|_| AskError::Down)?;
        Ok((answer.status, answer.content))
    }

    fn url(&self, path: &[&str], as_user: Option<&str>) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            // Each part is escaped: ids are what strangers wrote.
            segments.pop_if_empty().extend(path);
        }
        if let Some(user) = as_user {
            url.query_pairs_mut().append_pair("user_id", user);
        }
        url
    }

    async fn ask(&self, request: reqwest::RequestBuilder, limit: usize) -> Result<Reply, AskError> {
        let response = request.bearer_auth(self.config.as_token.expose()).send().await.map_err(|_| AskError::Down)?;
        let reply = read(response, limit).await.ok_or(AskError::Down)?;
        match reply.status {
            // Our token is not known there (yet): a fault to be mended, not an answer about rooms.
            401 | 429 | 500.. => Err(AskError::Down),
            _ => Ok(reply),
        }
    }
}

/// Path of the delayed events API that is deployed.
pub(super) fn delayed_path(delay_id: &str, request: Request) -> [&str; 7] {
    let action = match request {
        Request::Restart => "restart",
        Request::Send => "send",
    };
    ["_matrix", "client", "unstable", "org.matrix.msc4140", "delayed_events", delay_id, action]
}

/// What a homeserver said about a delayed event.
pub(super) fn delayed_answer(reply: &Reply) -> Answer {
    match reply.status {
        200..300 => Answer::Ok,
        404 => Answer::Gone,
        429 => {
            let body: Option<i64> =
                serde_json::from_slice::<Value>(&reply.body).ok().and_then(|json| json.get("retry_after_ms")?.as_i64());
            let header = reply.retry_after.and_then(|s| i64::try_from(s).ok()).map(|s| s.saturating_mul(1000));
            Answer::SlowDown(body.or(header).unwrap_or(2_000))
        }
        _ => Answer::Failed,
    }
}

/// Whether a ping came back with word that the homeserver does not reach weir.
fn cannot_reach(reply: &Reply) -> bool {
    let json = serde_json::from_slice::<Value>(&reply.body).unwrap_or_default();
    let code = json.get("errcode").and_then(Value::as_str).unwrap_or_default();
    ["M_URL_NOT_SET", "M_BAD_STATUS", "M_CONNECTION_TIMEOUT", "M_CONNECTION_FAILED"].contains(&code)
}

fn done(reply: &Reply) -> Result<(), AskError> {
    if (200..300).contains(&reply.status) { Ok(()) } else { Err(AskError::Refused) }
}

fn joined_event(user: String) -> Event {
    Event {
        id: format!("joined:{user}"),
        room: String::new(),
        sender: user.clone(),
        origin_ts: 0,
        replaces: None,
        fact: Fact::RoomMember { user, membership: Membership::Join },
    }
}
