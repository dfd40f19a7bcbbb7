//! Access tokens as a backend would mint them (HS256, LiveKit's claims).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// A token for `identity` in `room` with all ordinary grants, valid for an hour.
pub fn join_token(key: &str, secret: &str, identity: &str, room: &str) -> anyhow::Result<String> {
    token_with(key, secret, identity, json!({ "roomJoin": true, "room": room, "canUpdateOwnMetadata": true }))
}

/// A token with exactly these video grants.
#[expect(clippy::disallowed_methods, reason = "a token says until when it is valid, by the date")]
pub fn token_with(key: &str, secret: &str, identity: &str, video: Value) -> anyhow::Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let claims = json!({
        "iss": key,
        "sub": identity,
        "name": identity,
        "nbf": now.saturating_sub(Duration::from_secs(5)).as_secs(),
        "exp": (now + Duration::from_secs(3_600)).as_secs(),
        "video": video,
    });
    Ok(jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret.as_bytes()))?)
}
