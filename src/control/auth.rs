//! Who may do what: tokens checked and signed with the keys of the configuration.

use std::time::Duration;

use livekit_protocol as proto;
use signalling::room::api::Grants;
use signalling::token::{self, Claims, TokenError, VideoGrant};

use crate::config::{Keys, Secret};
use crate::media::clock::unix_now;

/// Checks and signs tokens.
#[derive(Debug)]
pub struct Auth {
    keys: Keys,
    /// Signs for calls of Matrix rooms, and nothing else does.
    calls: Option<Secret>,
}

/// Name of the key that signs for calls of Matrix rooms. A key of this name in the configuration is not used.
const CALLS: &str = "weir:calls";

impl Auth {
    /// With these keys. `calls`: the secret behind tokens for calls of Matrix rooms, where there are any.
    pub const fn new(keys: Keys, calls: Option<Secret>) -> Self {
        Self { keys, calls }
    }

    /// Everything a token says.
    ///
    /// # Errors
    /// When it is not good.
    pub fn claims(&self, token: &str) -> Result<Claims, TokenError> {
        let secret = |key: &str| if key == CALLS { self.calls.as_ref() } else { self.keys.secret(key) };
        let claims = token::verify(token, |key| secret(key).map(|s| s.expose()), now())?;
        let room = claims.video.as_ref().filter(|video| video.room_join).map(|video| video.room.as_str());
        // Whoever has an API key has none to calls that only room state opens.
        let is_call = self.calls.is_some() && room.is_some_and(is_call);
        if is_call == (claims.iss == CALLS) { Ok(claims) } else { Err(TokenError::UnknownKey) }
    }

    /// What a token allows its bearer who wants to join, and when it was signed (unix seconds).
    ///
    /// # Errors
    /// When it is not good, or good for something else.
    pub fn grants(&self, token: &str) -> Result<(Grants, i64), TokenError> {
        let claims = self.claims(token)?;
        Ok((claims.grants()?, claims.iat))
    }

    /// Sign claims, issuer and times of which are filled in. `not_before`: the earliest second it may claim to be signed
    /// at, where tokens from before are revoked.
    ///
    /// # Errors
    /// When there is no key to sign with.
    pub fn sign(&self, claims: Claims, lifetime: Duration, not_before: i64) -> Result<String, TokenError> {
        let room = claims.video.as_ref().map_or("", |video| video.room.as_str());
        let (key, secret) = self.key_for(room)?;
        sign(key, secret, claims, lifetime, now().max(not_before))
    }

    fn key_for(&self, room: &str) -> Result<(&str, &Secret), TokenError> {
        match &self.calls {
            Some(secret) if is_call(room) => Ok((CALLS, secret)),
            _ => self.keys.first().ok_or(TokenError::CannotSign),
        }
    }

    /// The same with a key of one's own; empty: the first one.
    ///
    /// # Errors
    /// When there is no such key to sign with.
    pub fn sign_as(&self, key: &str, claims: Claims, lifetime: Duration) -> Result<String, TokenError> {
        if key.is_empty() {
            return self.sign(claims, lifetime, 0);
        }
        let secret = self.keys.secret(key).ok_or(TokenError::CannotSign)?;
        sign(key, secret, claims, lifetime, now())
    }

    /// The message that hands a client its next token.
    ///
    /// # Errors
    /// When there is no key to sign with.
    pub fn refreshed(&self, grants: &Grants) -> Result<proto::SignalResponse, TokenError> {
        let (key, secret) = self.key_for(&grants.room)?;
        let token = token::mint(&Claims::refreshed(grants, key, now()), secret.expose())?;
        Ok(proto::SignalResponse { message: Some(proto::signal_response::Message::RefreshToken(token)) })
    }
}

/// Whether a room has a name as calls of Matrix rooms have: 32 bytes in base64. Where Matrix is on, these names are theirs.
pub fn is_call(room: &str) -> bool {
    room.len() == 43 && room.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
}

/// A token for people and tests: `weir token`, `weir serve --dev`.
///
/// # Errors
/// When there is no key to sign with.
pub fn mint(keys: &Keys, identity: &str, video: VideoGrant, lifetime: Duration) -> Result<String, TokenError> {
    let claims = Claims { sub: identity.to_owned(), video: Some(video), ..Claims::default() };
    mint_claims(keys, claims, lifetime)
}

/// The same with all claims given but issuer and times.
///
/// # Errors
/// When there is no key to sign with.
pub fn mint_claims(keys: &Keys, claims: Claims, lifetime: Duration) -> Result<String, TokenError> {
    let (key, secret) = keys.first().ok_or(TokenError::CannotSign)?;
    sign(key, secret, claims, lifetime, now())
}

fn sign(key: &str, secret: &Secret, claims: Claims, lifetime: Duration, now: i64) -> Result<String, TokenError> {
    let seconds = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
    let claims = Claims { iss: key.to_owned(), iat: now, nbf: now, exp: now.saturating_add(seconds), ..claims };
    token::mint(&claims, secret.expose())
}

fn now() -> i64 {
    i64::try_from(unix_now().as_secs()).unwrap_or(i64::MAX)
}
