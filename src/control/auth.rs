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
}

impl Auth {
    /// With these keys.
    pub const fn new(keys: Keys) -> Self {
        Self { keys }
    }

    /// Everything a token says.
    ///
    /// # Errors
    /// When it is not good.
    pub fn claims(&self, token: &str) -> Result<Claims, TokenError> {
        token::verify(token, |key| self.keys.secret(key).map(|s| s.expose()), now())
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
        let (key, secret) = self.keys.first().ok_or(TokenError::CannotSign)?;
        sign(key, secret, claims, lifetime, now().max(not_before))
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
        let (key, secret) = self.keys.first().ok_or(TokenError::CannotSign)?;
        let token = token::mint(&Claims::refreshed(grants, key, now()), secret.expose())?;
        Ok(proto::SignalResponse { message: Some(proto::signal_response::Message::RefreshToken(token)) })
    }
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
