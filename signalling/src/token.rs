//! Access tokens: JWTs with HS256 as LiveKit's server SDKs make them.
//!
//! [`verify`] reads and checks one, [`mint`] signs one. Time comes in as a number: the library's own look at the clock is
//! switched off.

use std::collections::BTreeMap;

use base64::Engine as _;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use livekit_protocol::TrackSource;
use livekit_protocol::participant_info::Kind;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::room::api::{Company, Grants};

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
    /// What we say to ourselves. Not part of LiveKit's claims; clients carry it along unread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weir: Option<OwnClaim>,
}

/// Our own claim, in tokens we made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnClaim {
    /// The bearer was let into the room before. A client that lost its node can only come back with the token it has:
    /// it asks nobody for another, and gives up for good when told that the room does not exist. So this one may make
    /// its room again, and no other.
    #[serde(skip_serializing_if = "is_false")]
    pub joined: bool,
    /// So many were told to come back together. Who comes back waits a moment for the others.
    #[serde(skip_serializing_if = "is_zero")]
    pub people: u32,
    /// What they published.
    #[serde(skip_serializing_if = "is_zero")]
    pub tracks: u32,
    /// Who was let into which call of a Matrix room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<CallClaim>,
}

/// Whom a token for a call of a Matrix room was made for, so that a node that did not make it can ask that room whether
/// its bearer may still be there. It says nothing its bearer does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CallClaim {
    /// Server name of the homeserver that knew the user to be in the room; empty: none was asked.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub home: String,
    /// The Matrix room.
    pub room: String,
    /// The call's slot.
    pub slot: String,
    /// Matrix user id.
    pub user: String,
    /// Device id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Member id of its join.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// It announces its membership by sticky events, not in room state.
    #[serde(skip_serializing_if = "is_false")]
    pub sticky: bool,
}

/// The `video` object of a token. `None` is "not said", and so is what a signed token leaves out: `false`, empty names
/// and lists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(clippy::struct_excessive_bools, reason = "as many as the protocol has")]
#[allow(missing_docs, reason = "named as the claims of the protocol are; what they do stands at `Grants`")]
pub struct VideoGrant {
    #[serde(skip_serializing_if = "is_false")]
    pub room_create: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub room_list: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub room_record: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub room_admin: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub room_join: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub room: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub destination_room: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_subscribe: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish_data: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub can_publish_sources: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_update_own_metadata: Option<bool>,
    #[serde(skip_serializing_if = "is_false")]
    pub ingress_admin: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub hidden: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub recorder: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub agent: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_subscribe_metrics: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_manage_agent_session: Option<bool>,
}

fn is_zero<N: Default + PartialEq>(value: &N) -> bool {
    *value == N::default()
}

fn is_false(value: &bool) -> bool {
    !*value
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
    /// Neither `sub` nor `jti`.
    #[error("identity cannot be empty")]
    NoIdentity,
    /// Identity longer than the limit.
    #[error("identity is too long")]
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
            Self::NoIdentity | Self::BadIdentity | Self::BadRoom => 400,
            Self::CannotSign => 500,
            _ => 401,
        }
    }
}

/// Largest token that is looked at, bytes. LiveKit's largest (metadata and attributes at their limits) stay far below.
const MAX_TOKEN: usize = 256 * 1024;
/// Clocks of the signer and ours may differ by this, seconds.
const LEEWAY: i64 = 60;
/// Shortest life of a refreshed token, seconds.
const MIN_REFRESH: i64 = 600;
/// Longest identity and longest room name, bytes, as LiveKit has them.
const MAX_NAME: usize = 256;

/// Checks a token: HS256 with the secret that `secret_of` knows for its issuer, not before `nbf`, not after `exp`
/// (required), 60 seconds of leeway either way. `now` is Unix seconds.
///
/// # Errors
/// See [`TokenError`].
pub fn verify<'k>(token: &str, secret_of: impl Fn(&str) -> Option<&'k str>, now: i64) -> Result<Claims, TokenError> {
    if token.len() > MAX_TOKEN {
        return Err(TokenError::TooLarge);
    }
    // Only to learn which key to check with; nothing of it is believed before the signature is.
    let issuer: Issuer = jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(|_| TokenError::Malformed)?;
    // An empty secret would let everybody sign.
    let secret = secret_of(&issuer.iss).filter(|secret| !secret.is_empty()).ok_or(TokenError::UnknownKey)?;
    // The algorithm is ours, not the header's, and key ids or URLs in the header are never followed.
    let mut validation = Validation::new(Algorithm::HS256);
    // The library would look at the clock and take a missing `exp` for a wrong token; both are checked below.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let key = DecodingKey::from_secret(secret.as_bytes());
    let claims = jsonwebtoken::decode::<Claims>(token, &key, &validation)
        .map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => TokenError::BadSignature,
            _ => TokenError::Malformed,
        })?
        .claims;
    if claims.exp <= 0 || claims.exp.saturating_add(LEEWAY) < now {
        return Err(TokenError::Expired);
    }
    if claims.nbf.saturating_sub(LEEWAY) > now {
        return Err(TokenError::NotYet);
    }
    Ok(claims)
}

/// The claim that names the key.
#[derive(Deserialize)]
struct Issuer {
    iss: String,
}

/// Signs `claims` with HS256. `claims.iss` has to name the key that `secret` belongs to.
///
/// Element Call reads the claims with a browser's `atob`, which knows the plain alphabet of base64 and gives one character
/// per byte. Claims are therefore written so that neither `-` nor `_` can appear and all bytes are ASCII.
///
/// # Errors
/// [`TokenError::CannotSign`] with an empty secret.
pub fn mint(claims: &Claims, secret: &str) -> Result<String, TokenError> {
    if secret.is_empty() {
        return Err(TokenError::CannotSign);
    }
    let json = |text: serde_json::Result<String>| text.map_err(|_| TokenError::CannotSign);
    let header = json(serde_json::to_string(&Header::new(Algorithm::HS256)))?;
    let claims = plain(&json(serde_json::to_string(claims))?);
    let base64 = &base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let mut token = format!("{}.{}", base64.encode(header), base64.encode(claims));
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = jsonwebtoken::crypto::sign(token.as_bytes(), &key, Algorithm::HS256);
    token.push('.');
    token.push_str(&signature.map_err(|_| TokenError::CannotSign)?);
    Ok(token)
}

/// The same JSON, with everything escaped that base64 might write with its last two digits. Six bits of ASCII are 62 or
/// 63 only where a byte ends in them: `>`, `?`, `~` and DEL. They stand in strings alone, where an escape says the same.
fn plain(json: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() && !matches!(character, '>' | '?' | '~' | '\x7f') {
            text.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\u{unit:04x}");
        }
    }
    text
}

/// The `sha256` claim for a webhook with this body: base64 of its SHA-256.
pub fn body_hash(body: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(body))
}

impl Claims {
    /// What a participant may do with it, tri-states resolved.
    ///
    /// # Errors
    /// No `roomJoin`, or no usable identity or room.
    pub fn grants(&self) -> Result<Grants, TokenError> {
        let video = self.video.as_ref().filter(|video| video.room_join).ok_or(TokenError::NoRoomJoin)?;
        let identity = self.identity();
        if identity.is_empty() {
            return Err(TokenError::NoIdentity);
        }
        if identity.len() > MAX_NAME {
            return Err(TokenError::BadIdentity);
        }
        if video.room.is_empty() || video.room.len() > MAX_NAME {
            return Err(TokenError::BadRoom);
        }
        let own = self.weir.clone().unwrap_or_default();
        let can_publish = video.can_publish.unwrap_or(true);
        let mut can_publish_sources: Vec<i32> =
            video.can_publish_sources.iter().filter_map(|name| source_of(name)).collect();
        if can_publish_sources.is_empty() && !video.can_publish_sources.is_empty() {
            // A list of names we do not know narrows to nothing, not to everything.
            can_publish_sources.push(TrackSource::Unknown.into());
        }
        Ok(Grants {
            identity: identity.to_owned(),
            name: self.name.clone(),
            metadata: self.metadata.clone(),
            attributes: self.attributes.clone(),
            kind: self.participant_kind(video).into(),
            room: video.room.clone(),
            room_join: true,
            room_create: video.room_create,
            joined: own.joined,
            company: Company { people: own.people, tracks: own.tracks },
            call: own.call.map(Box::new),
            can_publish,
            can_publish_sources,
            can_subscribe: video.can_subscribe.unwrap_or(true),
            can_publish_data: video.can_publish_data.unwrap_or(can_publish),
            can_update_own_metadata: video.can_update_own_metadata.unwrap_or(false),
            hidden: video.hidden,
            recorder: video.recorder,
            agent: video.agent,
            can_subscribe_metrics: video.can_subscribe_metrics.unwrap_or(false),
            expires_at: self.exp,
        })
    }

    /// Who the bearer is: `sub`, or `jti` where that is empty.
    pub fn identity(&self) -> &str {
        if self.sub.is_empty() { &self.jti } else { &self.sub }
    }

    /// Claims for a refreshed token: `issuer` signs, good for at least ten minutes from `now` (Unix seconds), or for
    /// what remained.
    pub fn refreshed(grants: &Grants, issuer: &str, now: i64) -> Self {
        let can_publish_sources = grants.can_publish_sources.iter().map(|source| source_name(*source)).collect();
        let kind = Kind::try_from(grants.kind).unwrap_or(Kind::Standard);
        Self {
            iss: issuer.to_owned(),
            sub: grants.identity.clone(),
            nbf: now,
            iat: now,
            exp: grants.expires_at.max(now.saturating_add(MIN_REFRESH)),
            name: grants.name.clone(),
            kind: if kind == Kind::Standard { String::new() } else { kind.as_str_name().to_ascii_lowercase() },
            metadata: grants.metadata.clone(),
            attributes: grants.attributes.clone(),
            video: Some(VideoGrant {
                room_create: grants.room_create,
                room_join: grants.room_join,
                room: grants.room.clone(),
                can_publish: Some(grants.can_publish),
                can_subscribe: Some(grants.can_subscribe),
                can_publish_data: Some(grants.can_publish_data),
                can_publish_sources,
                can_update_own_metadata: Some(grants.can_update_own_metadata),
                hidden: grants.hidden,
                recorder: grants.recorder,
                agent: grants.agent,
                can_subscribe_metrics: Some(grants.can_subscribe_metrics),
                ..VideoGrant::default()
            }),
            weir: Some(OwnClaim {
                joined: true,
                people: grants.company.people,
                tracks: grants.company.tracks,
                call: grants.call.as_deref().cloned(),
            }),
            ..Self::default()
        }
    }

    fn participant_kind(&self, video: &VideoGrant) -> Kind {
        match Kind::from_str_name(&self.kind.to_ascii_uppercase()) {
            Some(kind) => kind,
            None if video.agent => Kind::Agent,
            None if video.recorder => Kind::Egress,
            None => Kind::Standard,
        }
    }
}

fn source_of(name: &str) -> Option<i32> {
    TrackSource::from_str_name(&name.to_ascii_uppercase()).map(Into::into)
}

fn source_name(source: i32) -> String {
    TrackSource::try_from(source).unwrap_or(TrackSource::Unknown).as_str_name().to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
