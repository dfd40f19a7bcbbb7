//! Bodies of the token and delegation endpoints of every generation (lk-jwt-service's API, MSC4195 and its rewrite).
//!
//! All shapes end in one [`TokenRequest`]. Fields we do not know are ignored: clients grow faster than servers, and a
//! refusal here is an error page there. Errors are what clients expect: an HTTP status, a Matrix error code, a text.

use serde::Deserialize;
use serde_json::{Value, json};

use super::identity::{Caller, IdentityForm, ROOM_CALL_SLOT};

/// Longest id of any kind (Matrix ids have at most 255 bytes; member and delay ids are opaque and get the same).
const MAX_ID: usize = 255;
/// Longest OpenID access token or URL.
const MAX_TOKEN: usize = 2048;

/// An error as clients of these endpoints read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{errcode}: {text}")]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// Matrix error code.
    pub errcode: &'static str,
    /// For people; never contains what the client or another server sent.
    pub text: &'static str,
}

impl ApiError {
    /// 400, the body is no JSON or not of the right types.
    pub const NOT_JSON: Self =
        Self { status: 400, errcode: "M_NOT_JSON", text: "Error reading request: a JSON object is expected" };
    /// 401, whatever the reason: which one is for the operator's log only.
    pub const UNAUTHORIZED: Self =
        Self { status: 401, errcode: "M_UNAUTHORIZED", text: "The request could not be authorised." };

    const fn bad(text: &'static str) -> Self {
        Self { status: 400, errcode: "M_BAD_JSON", text }
    }

    /// A refusal: the person is known, and may not.
    pub const fn forbidden(text: &'static str) -> Self {
        Self { status: 403, errcode: "M_FORBIDDEN", text }
    }

    /// The JSON body.
    pub fn body(self) -> Value {
        json!({ "errcode": self.errcode, "error": self.text })
    }
}

/// An OpenID token as the homeserver handed it to the client (Matrix spec, OpenID). Secret.
#[derive(Clone, Deserialize)]
pub struct OpenIdToken {
    /// The token.
    #[serde(default)]
    pub access_token: String,
    /// The homeserver that can say whose it is. An attacker's choice.
    #[serde(default)]
    pub matrix_server_name: String,
}

impl std::fmt::Debug for OpenIdToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpenIdToken { *** }")
    }
}

/// A delayed leave to look after (MSC4140) in the client's place.
#[derive(Clone, PartialEq, Eq)]
pub struct DelayedLeave {
    /// Its id. Whoever knows it can send, restart or cancel the event. Secret, and an attacker's choice: escape it in paths.
    pub delay_id: String,
    /// Its delay in milliseconds.
    pub timeout_ms: u64,
    /// The homeserver's client API as the client says; only a hint, never asked without checks.
    pub cs_api_url: Option<String>,
}

impl std::fmt::Debug for DelayedLeave {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DelayedLeave {{ timeout_ms: {}, .. }}", self.timeout_ms)
    }
}

/// Which endpoint family a request came by. It decides the identity the token gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `POST /sfu/get`
    SfuGet,
    /// `POST /get_token`
    GetToken,
    /// `POST …/rtc/livekit/get_token` through the homeserver.
    Mediated,
}

impl Endpoint {
    /// The identity form tokens of this endpoint carry. Mediated requests that name a device come from the draft in
    /// between, whose clients expect the form with the device.
    pub const fn identity_form(self, has_device: bool) -> IdentityForm {
        match self {
            Self::SfuGet => IdentityForm::UserDevice,
            Self::GetToken => IdentityForm::UserDeviceMember,
            Self::Mediated if has_device => IdentityForm::UserDeviceMember,
            Self::Mediated => IdentityForm::UserMember,
        }
    }
}

/// A request for a token or for looking after a leave, whatever its shape was.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// Where it came by.
    pub endpoint: Endpoint,
    /// Matrix room.
    pub matrix_room: String,
    /// Slot of the call.
    pub slot: String,
    /// Proof of who asks; `None` where the homeserver vouches.
    pub openid: Option<OpenIdToken>,
    /// User id the client claims; must equal the proven one where present.
    pub claimed_user: Option<String>,
    /// Device id the client claims.
    pub device: Option<String>,
    /// Member id.
    pub member: Option<String>,
    /// Leave to look after.
    pub delayed_leave: Option<DelayedLeave>,
    /// Mediated: the SFU the client wants a token for.
    pub url: Option<String>,
    /// Mediated: the server that SFU belongs to, when it is not the client's own.
    pub server_name: Option<String>,
    /// Mediated over federation: the user on whose behalf the other server asks.
    pub user_id: Option<String>,
}

impl TokenRequest {
    /// The caller, once the user is proven.
    pub fn caller(&self, user: &str) -> Caller {
        Caller { user: user.to_owned(), device: self.device.clone(), member: self.member.clone() }
    }

    /// The identity the token is to carry; `None` cannot happen for requests that parsed.
    pub fn identity(&self, user: &str) -> Option<String> {
        self.caller(user).identity(self.endpoint.identity_form(self.device.is_some()))
    }
}

#[derive(Deserialize)]
struct Body {
    room: Option<String>,
    room_id: Option<String>,
    slot_id: Option<String>,
    openid_token: Option<OpenIdToken>,
    device_id: Option<String>,
    member: Option<MemberBody>,
    member_id: Option<String>,
    delay_id: Option<String>,
    delay_timeout: Option<u64>,
    delay_cs_api_url: Option<String>,
    url: Option<String>,
    server_name: Option<String>,
    user_id: Option<String>,
}

#[derive(Deserialize)]
struct MemberBody {
    id: Option<String>,
    claimed_user_id: Option<String>,
    claimed_device_id: Option<String>,
}

/// Read the body of a token request.
///
/// # Errors
/// With the answer the client gets: not JSON, a field missing, too long or half given.
pub fn token_request(endpoint: Endpoint, body: &[u8]) -> Result<TokenRequest, ApiError> {
    let body: Body = serde_json::from_slice(body).map_err(|_| ApiError::NOT_JSON)?;
    check_lengths(&body)?;
    let delayed_leave = delayed_leave(&body)?;
    let member = body.member.as_ref();
    let request = TokenRequest {
        endpoint,
        matrix_room: filled(body.room_id.or(body.room))
            .ok_or(ApiError::bad("The request body is missing `room_id`"))?,
        slot: match endpoint {
            Endpoint::SfuGet => ROOM_CALL_SLOT.to_owned(),
            _ => filled(body.slot_id).ok_or(ApiError::bad("The request body is missing `slot_id`"))?,
        },
        openid: body.openid_token,
        claimed_user: member.and_then(|m| filled(m.claimed_user_id.clone())),
        device: filled(body.device_id).or_else(|| member.and_then(|m| filled(m.claimed_device_id.clone()))),
        member: filled(body.member_id).or_else(|| member.and_then(|m| filled(m.id.clone()))),
        delayed_leave,
        url: filled(body.url),
        server_name: filled(body.server_name),
        user_id: filled(body.user_id),
    };
    check_complete(&request)?;
    Ok(request)
}

/// Read the body of a delegation request: a token request in which the leave is mandatory. `POST /delegate_delayed_leave`
/// takes the shape of either token endpoint.
///
/// # Errors
/// As [`token_request`], and when there is no leave in it.
pub fn delegation_request(mediated: bool, body: &[u8]) -> Result<TokenRequest, ApiError> {
    let has_room = serde_json::from_slice::<Value>(body).is_ok_and(|v| v.get("room").is_some());
    let endpoint = match (mediated, has_room) {
        (true, _) => Endpoint::Mediated,
        (false, true) => Endpoint::SfuGet,
        (false, false) => Endpoint::GetToken,
    };
    let request = token_request(endpoint, body)?;
    if request.delayed_leave.is_none() && !mediated {
        return Err(ApiError::bad("The request body is missing `delay_id` or `delay_timeout`"));
    }
    Ok(request)
}

fn filled(text: Option<String>) -> Option<String> {
    text.filter(|t| !t.is_empty())
}

fn check_lengths(body: &Body) -> Result<(), ApiError> {
    let member = body.member.as_ref();
    let ids = [
        &body.room,
        &body.room_id,
        &body.slot_id,
        &body.device_id,
        &body.member_id,
        &body.delay_id,
        &body.server_name,
        &body.user_id,
    ];
    let member_ids = member.map(|m| [&m.id, &m.claimed_user_id, &m.claimed_device_id]);
    let too_long = |text: &Option<String>, limit| text.as_ref().is_some_and(|t| t.len() > limit);
    let long_id = ids.into_iter().chain(member_ids.into_iter().flatten()).any(|id| too_long(id, MAX_ID));
    let long_url = too_long(&body.url, MAX_TOKEN) || too_long(&body.delay_cs_api_url, MAX_TOKEN);
    let long_token = body
        .openid_token
        .as_ref()
        .is_some_and(|t| t.access_token.len() > MAX_TOKEN || t.matrix_server_name.len() > MAX_ID);
    if long_id || long_url || long_token {
        Err(ApiError::bad("A field of the request body is too long"))
    } else {
        Ok(())
    }
}

fn check_complete(request: &TokenRequest) -> Result<(), ApiError> {
    let openid = request.openid.as_ref();
    let has_openid = openid.is_some_and(|t| !t.access_token.is_empty() && !t.matrix_server_name.is_empty());
    match request.endpoint {
        Endpoint::Mediated if request.member.is_none() => Err(ApiError::bad("The request body is missing `member_id`")),
        Endpoint::Mediated => Ok(()),
        _ if !has_openid => Err(ApiError::bad("The request body is missing `openid_token`")),
        Endpoint::SfuGet if request.device.is_none() => Err(ApiError::bad("The request body is missing `device_id`")),
        Endpoint::GetToken
            if request.device.is_none() || request.member.is_none() || request.claimed_user.is_none() =>
        {
            Err(ApiError::bad("The request body is missing `member` `id`, `claimed_user_id` or `claimed_device_id`"))
        }
        _ => Ok(()),
    }
}

fn delayed_leave(body: &Body) -> Result<Option<DelayedLeave>, ApiError> {
    match (filled(body.delay_id.clone()), body.delay_timeout) {
        (Some(delay_id), Some(timeout_ms)) if timeout_ms > 0 => {
            Ok(Some(DelayedLeave { delay_id, timeout_ms, cs_api_url: filled(body.delay_cs_api_url.clone()) }))
        }
        (None, None) => Ok(None),
        _ => Err(ApiError::bad("`delay_id` and `delay_timeout` go together")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn openid() -> Value {
        json!({"access_token": "tok", "token_type": "Bearer", "matrix_server_name": "x", "expires_in": 3600})
    }

    fn read(endpoint: Endpoint, body: &Value) -> Result<TokenRequest, ApiError> {
        token_request(endpoint, body.to_string().as_bytes())
    }

    #[test]
    fn reads_both_shapes_in_the_field() {
        let old = json!({"room": "!r:x", "openid_token": openid(), "device_id": "DEV", "unknown": 1});
        let request = read(Endpoint::SfuGet, &old).unwrap();
        assert_eq!((request.slot.as_str(), request.identity("@a:x").as_deref()), ("m.call#ROOM", Some("@a:x:DEV")));
        let new = json!({
            "room_id": "!r:x", "slot_id": "m.call#ROOM", "openid_token": openid(),
            "member": {"id": "m", "claimed_user_id": "@a:x", "claimed_device_id": "DEV"},
            "delay_id": "syd_1", "delay_timeout": 3_600_000, "delay_cs_api_url": "https://hs.x",
        });
        let request = read(Endpoint::GetToken, &new).unwrap();
        assert_eq!(request.delayed_leave.as_ref().unwrap().timeout_ms, 3_600_000);
        assert_eq!(request.identity("@a:x").unwrap().len(), 43);
        assert!(
            !format!("{request:?}").contains("tok") && !format!("{request:?}").contains("syd_1"),
            "secrets are not printed"
        );
    }

    #[test]
    fn reads_both_shapes_of_the_mediated_endpoint() {
        let rewrite = json!({"url": "wss://s", "room_id": "!r:x", "slot_id": "m.call#ROOM", "member_id": "m"});
        let draft =
            json!({"room_id": "!r:x", "slot_id": "m.call#ROOM", "member": {"id": "m", "claimed_device_id": "DEV"}});
        let (rewrite, draft) = (read(Endpoint::Mediated, &rewrite).unwrap(), read(Endpoint::Mediated, &draft).unwrap());
        assert_ne!(rewrite.identity("@a:x"), draft.identity("@a:x"));
    }

    #[test]
    fn says_what_is_missing_in_words_clients_know() {
        assert_eq!(token_request(Endpoint::SfuGet, b"no json").unwrap_err(), ApiError::NOT_JSON);
        assert_eq!(token_request(Endpoint::SfuGet, b"[]").unwrap_err(), ApiError::NOT_JSON);
        for (endpoint, body) in [
            (Endpoint::SfuGet, json!({})),
            (Endpoint::SfuGet, json!({"room": "!r:x"})),
            (Endpoint::SfuGet, json!({"room": "!r:x", "openid_token": {}, "device_id": "D"})),
            (Endpoint::SfuGet, json!({"room": "!r:x", "openid_token": openid(), "device_id": ""})),
            (Endpoint::SfuGet, json!({"room": "!r:x", "openid_token": openid(), "device_id": "D", "delay_id": "d"})),
            (
                Endpoint::GetToken,
                json!({"room_id": "!r:x", "slot_id": "s#t", "openid_token": openid(), "member": {"id": "m"}}),
            ),
            (Endpoint::SfuGet, json!({"room": "r".repeat(256), "openid_token": openid(), "device_id": "D"})),
        ] {
            assert_eq!(read(endpoint, &body).unwrap_err().errcode, "M_BAD_JSON", "{body}");
        }
        assert_eq!(delegation_request(false, b"").unwrap_err().status, 400, "a probe is never answered with 404");
    }
}
