//! Access tokens: JWTs with HS256 as LiveKit's server SDKs make them.
//!
//! [`verify`] reads and checks one, [`mint`] signs one. Time comes in as a number: the library's own look at the clock is
//! switched off.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::room::api::Grants;

/// Everything a token says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Claims {
    /// API key that signed it.
    pub iss: String,
    /// Participant identity.
    pub sub: String,
    /// Token id; the identity where `sub` is empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub jti: String,
    /// Unix seconds from which on it is good; 0: always was.
    #[serde(skip_serializing_if = "is_zero")]
    pub nbf: i64,
    /// Unix seconds at which it was signed.
    #[serde(skip_serializing_if = "is_zero")]
    pub iat: i64,
    /// Unix seconds at which it ends. Required.
    pub exp: i64,
    /// Display name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Participant kind in lower case, for example `agent`; empty for an ordinary one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Participant metadata.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub metadata: String,
    /// Participant attributes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// What it allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video: Option<VideoGrant>,
    /// Base64 of the SHA-256 of a webhook's body.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// Name of a room configuration.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub room_preset: String,
}

/// The `video` object of a token. `None` is "not said".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "named as the claims of the protocol are; what they do stands at `Grants`")]
pub struct VideoGrant {
    pub room_create: bool,
    pub room_list: bool,
    pub room_record: bool,
    pub room_admin: bool,
    pub room_join: bool,
    pub room: String,
    pub destination_room: String,
    pub can_publish: Option<bool>,
    pub can_subscribe: Option<bool>,
    pub can_publish_data: Option<bool>,
    pub can_publish_sources: Vec<String>,
    pub can_update_own_metadata: Option<bool>,
    pub ingress_admin: bool,
    pub hidden: bool,
    pub recorder: bool,
    pub agent: bool,
    pub can_subscribe_metrics: Option<bool>,
    pub can_manage_agent_session: Option<bool>,
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// Why a token is refused. The text is safe to show to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Larger than any honest token.
    #[error("token is too large")]
    TooLarge,
    /// Not a JWT, or not with HS256, or claims of the wrong type.
    #[error("invalid token")]
    Malformed,
    /// Its key is not ours.
    #[error("unknown API key")]
    UnknownKey,
    /// The signature is wrong.
    #[error("invalid token signature")]
    BadSignature,
    /// `exp` is missing or over.
    #[error("token is expired")]
    Expired,
    /// `nbf` is still to come.
    #[error("token is not valid yet")]
    NotYet,
    /// No permission to join.
    #[error("token does not allow joining a room")]
    NoRoomJoin,
    /// Neither `sub` nor `jti`, or longer than the limit.
    #[error("identity is empty or too long")]
    BadIdentity,
    /// No room name, or longer than the limit.
    #[error("room name is empty or too long")]
    BadRoom,
    /// The key to sign with has no secret, or signing failed.
    #[error("token cannot be signed")]
    CannotSign,
}

impl TokenError {
    /// The HTTP status that clients understand: 400 for names, 500 for our own failure, else 401.
    pub const fn status(self) -> u16 {
        match self {
            Self::BadIdentity | Self::BadRoom => 400,
            Self::CannotSign => 500,
            _ => 401,
        }
    }
}

/// Checks a token: HS256 with the secret that `secret_of` knows for its issuer, not before `nbf`, not after `exp`
/// (required), 60 seconds of leeway either way. `now` is Unix seconds.
///
/// # Errors
/// See [`TokenError`].
pub fn verify<'k>(token: &str, secret_of: impl Fn(&str) -> Option<&'k str>, now: i64) -> Result<Claims, TokenError> {
    let _ = (token, secret_of, now);
    Err(TokenError::Malformed)
}

/// Signs `claims` with HS256. `claims.iss` has to name the key that `secret` belongs to.
///
/// # Errors
/// [`TokenError::CannotSign`] with an empty secret.
pub fn mint(claims: &Claims, secret: &str) -> Result<String, TokenError> {
    let _ = (claims, secret);
    Err(TokenError::CannotSign)
}

impl Claims {
    /// What a participant may do with it, tri-states resolved.
    ///
    /// # Errors
    /// No `roomJoin`, or no usable identity or room.
    pub fn grants(&self) -> Result<Grants, TokenError> {
        Err(TokenError::NoRoomJoin)
    }

    /// Claims for a refreshed token: `issuer` signs, good for at least ten minutes from `now` (Unix seconds), or for
    /// what remained.
    pub fn refreshed(grants: &Grants, issuer: &str, now: i64) -> Self {
        let _ = (grants, now);
        Self { iss: issuer.to_owned(), ..Self::default() }
    }
}
