//! What users ask of their homeserver, and of the service that gives out tokens for its SFU: plain HTTP.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use hmac::{Hmac, Mac};
use reqwest::{Method, StatusCode, Url};
use serde_json::{Value, json};
use sha1::Sha1;

use crate::wire::{self, Device};

/// No request takes longer, waiting for one's turn included.
const PATIENCE: Duration = Duration::from_secs(30);
/// Turns that are waited for when there is a limit to requests.
const TURNS: u32 = 8;
const CLIENT: &str = "_matrix/client/v3";
const DELAYED: &str = "_matrix/client/unstable/org.matrix.msc4140/delayed_events";

/// A user's device that is logged in.
#[derive(Clone)]
pub struct Account {
    /// Whose it is, and which.
    pub device: Device,
    pub(crate) token: String,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("device", &self.device).finish_non_exhaustive()
    }
}

/// A room of calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// Its id.
    pub id: String,
    /// Keys of frames are exchanged in it.
    pub encrypted: bool,
}

/// A token for an SFU.
#[derive(Clone)]
pub struct Grant {
    /// Base address of the SFU.
    pub url: String,
    /// The token.
    pub jwt: String,
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grant").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A homeserver.
#[derive(Clone, Debug)]
pub struct Homeserver {
    pub(crate) base: Url,
    pub(crate) http: reqwest::Client,
}

impl Homeserver {
    /// By its base address, as clients know it.
    pub fn new(base: &str) -> anyhow::Result<Self> {
        let base = Url::parse(base).with_context(|| format!("the address {base}"))?;
        if base.cannot_be_a_base() {
            bail!("{base} is no address of a homeserver");
        }
        // Longer than the long poll of a sync, which this client carries too.
        let http = reqwest::Client::builder().timeout(2 * PATIENCE).build()?;
        Ok(Self { base, http })
    }

    /// `path` as it stands, then `rest` as one part each.
    fn at(&self, path: &str, rest: &[&str]) -> anyhow::Result<Url> {
        let mut url = self.base.clone();
        let mut parts = url.path_segments_mut().map_err(|()| anyhow::anyhow!("no address of a homeserver"))?;
        parts.pop_if_empty().extend(path.split('/')).extend(rest);
        drop(parts);
        Ok(url)
    }

    /// Ask; waits for its turn where requests are limited.
    async fn ask(&self, method: Method, url: Url, token: Option<&str>, body: Option<&Value>) -> anyhow::Result<Value> {
        let (status, answer) = self.try_ask(method.clone(), url.clone(), token, body).await?;
        if !status.is_success() {
            let errcode = answer.get("errcode").and_then(Value::as_str).unwrap_or("");
            let error = answer.get("error").and_then(Value::as_str).unwrap_or("");
            bail!("{method} {}: {status} {errcode} {error}", url.path());
        }
        Ok(answer)
    }

    async fn try_ask(
        &self,
        method: Method,
        url: Url,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        for turn in 1.. {
            let mut request = self.http.request(method.clone(), url.clone()).timeout(PATIENCE);
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            if let Some(body) = body {
                request = request.json(body);
            }
            let answer = request.send().await.with_context(|| format!("{method} {}", url.path()))?;
            let status = answer.status();
            let text = answer.text().await.with_context(|| format!("{method} {}", url.path()))?;
            let json: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
            if status != StatusCode::TOO_MANY_REQUESTS || turn >= TURNS {
                return Ok((status, json));
            }
            let wait = json.get("retry_after_ms").and_then(Value::as_u64).unwrap_or(1_000);
            tokio::time::sleep(Duration::from_millis(wait).min(PATIENCE)).await;
        }
        bail!("{method} {}: no turn", url.path())
    }

    /// Register a user by the homeserver's shared secret (Synapse).
    pub async fn register(&self, secret: &str, name: &str, password: &str) -> anyhow::Result<Account> {
        let url = self.at("_synapse/admin/v1/register", &[])?;
        let answer = self.ask(Method::GET, url.clone(), None, None).await?;
        let nonce = answer.get("nonce").and_then(Value::as_str).context("no nonce for a registration")?;
        let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).context("the shared secret")?;
        mac.update([nonce, name, password, "notadmin"].join("\0").as_bytes());
        let mac: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let body = json!({ "nonce": nonce, "username": name, "password": password, "admin": false, "mac": mac });
        read_account(&self.ask(Method::POST, url, None, Some(&body)).await.context("cannot register")?)
    }

    /// Log a user in, as a new device.
    pub async fn login(&self, user: &str, password: &str) -> anyhow::Result<Account> {
        let body = json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": user },
            "password": password,
            "initial_device_display_name": "weir-loadtest",
        });
        let url = self.at(CLIENT, &["login"])?;
        let answer = self.ask(Method::POST, url, None, Some(&body)).await;
        read_account(&answer.with_context(|| format!("{user} cannot log in"))?)
    }

    /// The device is needed no more.
    pub async fn logout(&self, account: &Account) -> anyhow::Result<()> {
        let url = self.at(CLIENT, &["logout"])?;
        self.ask(Method::POST, url, Some(&account.token), Some(&json!({}))).await.map(drop)
    }

    /// Where tokens for calls are given out: by the homeserver's list of transports, else by its well-known document.
    pub async fn service(&self, account: &Account) -> anyhow::Result<String> {
        let listed = self.at("_matrix/client/unstable/org.matrix.msc4143/rtc/transports", &[])?;
        let known = self.at(".well-known/matrix/client", &[])?;
        let places = [(listed, "rtc_transports"), (known, "org.matrix.msc4143.rtc_foci")];
        for (url, list) in places {
            let (_, answer) = self.try_ask(Method::GET, url, Some(&account.token), None).await?;
            let all = answer.get(list).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let livekit = all.iter().find(|one| one.get("type").and_then(Value::as_str) == Some("livekit"));
            let service = livekit.and_then(|one| one.get("livekit_service_url")).and_then(Value::as_str);
            if let Some(service) = service {
                return Ok(service.trim_end_matches('/').to_owned());
            }
        }
        bail!("the homeserver names no service for calls; --service-url can")
    }

    /// Make an encrypted room that everybody may join.
    pub async fn create_room(&self, account: &Account, name: &str) -> anyhow::Result<Room> {
        let encryption =
            json!({ "type": "m.room.encryption", "state_key": "", "content": { "algorithm": "m.megolm.v1.aes-sha2" } });
        let body = json!({
            "preset": "public_chat",
            "name": name,
            // Everybody may stand in calls.
            "power_level_content_override": { "events": { wire::MEMBER: 0 } },
            "initial_state": [encryption],
        });
        let answer =
            self.ask(Method::POST, self.at(CLIENT, &["createRoom"])?, Some(&account.token), Some(&body)).await?;
        let id = answer.get("room_id").and_then(Value::as_str).context("a new room without id")?;
        Ok(Room { id: id.to_owned(), encrypted: true })
    }

    /// Join a room by its id or alias.
    pub async fn join(&self, account: &Account, room: &str) -> anyhow::Result<Room> {
        let url = self.at(CLIENT, &["join", room])?;
        let answer = self.ask(Method::POST, url, Some(&account.token), Some(&json!({}))).await;
        let answer = answer.with_context(|| format!("{} cannot join {room}", account.device.user))?;
        let id = answer.get("room_id").and_then(Value::as_str).context("a joined room without id")?.to_owned();
        let url = self.at(CLIENT, &["rooms", &id, "state", "m.room.encryption"])?;
        let (status, _) = self.try_ask(Method::GET, url, Some(&account.token), None).await?;
        Ok(Room { id, encrypted: status.is_success() })
    }

    /// A token for the call of the room, as clients get it: the homeserver vouches for who asks.
    pub async fn grant(&self, account: &Account, room: &str, service: &str) -> anyhow::Result<Grant> {
        let Device { user, device } = &account.device;
        let url = self.at(CLIENT, &["user", user, "openid", "request_token"])?;
        let openid = self.ask(Method::POST, url, Some(&account.token), Some(&json!({}))).await?;
        let body = json!({ "room": room, "openid_token": openid, "device_id": device });
        let url = Url::parse(&format!("{service}/sfu/get")).context("the service's address")?;
        let answer = self.ask(Method::POST, url, None, Some(&body)).await?;
        let text = |name: &str| answer.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
        let (url, jwt) = text("url").zip(text("jwt")).context("an answer without url and jwt")?;
        Ok(Grant { url, jwt })
    }

    /// Stand in the call of a room; with `None`, no more.
    pub async fn stand(&self, account: &Account, room: &str, service: Option<&str>) -> anyhow::Result<()> {
        let content = service.map_or_else(|| json!({}), |service| wire::member(&account.device, room, service));
        let url = self.at(CLIENT, &["rooms", room, "state", wire::MEMBER, &account.device.state_key()])?;
        self.ask(Method::PUT, url, Some(&account.token), Some(&content)).await.map(drop)
    }

    /// Have the homeserver end the membership after this time, unless it is put off (MSC4140). Gives the event's id.
    pub async fn delay_leave(&self, account: &Account, room: &str, after: Duration) -> anyhow::Result<String> {
        let mut url = self.at(CLIENT, &["rooms", room, "state", wire::MEMBER, &account.device.state_key()])?;
        url.query_pairs_mut().append_pair("org.matrix.msc4140.delay", &after.as_millis().to_string());
        let answer = self.ask(Method::PUT, url, Some(&account.token), Some(&json!({}))).await;
        let answer = answer.context("no delayed leave (MSC4140: max_event_delay_duration of Synapse)")?;
        Ok(answer.get("delay_id").and_then(Value::as_str).context("a delayed event without id")?.to_owned())
    }

    /// `restart` the time of a delayed event, or `send` it now.
    pub async fn update_delayed(&self, account: &Account, id: &str, action: &str) -> anyhow::Result<()> {
        let url = self.at(DELAYED, &[id, action])?;
        self.ask(Method::POST, url, Some(&account.token), Some(&json!({}))).await.map(drop)
    }

    /// The state events of a room.
    pub async fn state(&self, account: &Account, room: &str) -> anyhow::Result<Vec<Value>> {
        let url = self.at(CLIENT, &["rooms", room, "state"])?;
        match self.ask(Method::GET, url, Some(&account.token), None).await? {
            Value::Array(events) => Ok(events),
            _ => bail!("the state of a room is no list"),
        }
    }
}

fn read_account(answer: &Value) -> anyhow::Result<Account> {
    let text = |name: &str| answer.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
    let (user, device) = text("user_id").zip(text("device_id")).context("an account without user and device")?;
    Ok(Account { device: Device { user, device }, token: text("access_token").context("an account without token")? })
}

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "memberships end by the date")]
pub(crate) fn date_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
