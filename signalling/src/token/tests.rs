//! What tokens are taken, and which tricks are not.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;

const KEY: &str = "devkey";
const SECRET: &str = "a secret of more than thirty-two bytes";
const NOW: i64 = 1_700_000_000;

fn secret_of(key: &str) -> Option<&'static str> {
    match key {
        KEY => Some(SECRET),
        "empty" => Some(""),
        _ => None,
    }
}

/// A token as any SDK would sign it, with any header and claims.
fn token(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let body = format!("{}.{}", part(header), part(claims));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(body.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{body}.{signature}")
}

fn hs256() -> Value {
    json!({"alg": "HS256", "typ": "JWT"})
}

fn claims(video: Value) -> Value {
    json!({"iss": KEY, "sub": "@alice:example.org:DEVICE", "nbf": NOW - 5, "exp": NOW + 3600, "video": video})
}

fn grants(video: Value) -> Result<Grants, TokenError> {
    verify(&token(&hs256(), &claims(video)), secret_of, NOW)?.grants()
}

#[test]
fn resolves_what_the_token_does_not_say() {
    let grants = grants(json!({"roomJoin": true, "room": "r"})).unwrap();
    assert!(grants.can_publish && grants.can_subscribe && grants.can_publish_data);
    assert!(!grants.can_update_own_metadata && !grants.can_subscribe_metrics && !grants.room_create);
    assert_eq!((grants.identity.as_str(), grants.room.as_str()), ("@alice:example.org:DEVICE", "r"));
    assert_eq!(grants.expires_at, NOW + 3600);
}

#[test]
fn data_follows_publishing_unless_said_otherwise() {
    let without = grants(json!({"roomJoin": true, "room": "r", "canPublish": false})).unwrap();
    assert!(!without.can_publish && !without.can_publish_data);
    let with = grants(json!({"roomJoin": true, "room": "r", "canPublish": false, "canPublishData": true})).unwrap();
    assert!(with.can_publish_data);
}

#[test]
fn narrows_publishing_to_sources() {
    let video = json!({"roomJoin": true, "room": "r", "canPublishSources": ["microphone", "screen_share"]});
    let expected: [i32; 2] = [TrackSource::Microphone.into(), TrackSource::ScreenShare.into()];
    assert_eq!(grants(video).unwrap().can_publish_sources, expected);
    let unknown = json!({"roomJoin": true, "room": "r", "canPublishSources": ["hologram"]});
    assert_eq!(grants(unknown).unwrap().can_publish_sources, [0], "an unknown source opens nothing else");
}

#[test]
fn takes_the_identity_from_jti_when_sub_is_missing() {
    let claims = json!({"iss": KEY, "jti": "bob", "exp": NOW + 1, "video": {"roomJoin": true, "room": "r"}});
    assert_eq!(verify(&token(&hs256(), &claims), secret_of, NOW).unwrap().grants().unwrap().identity, "bob");
}

#[test]
fn refuses_a_join_without_permission_identity_or_room() {
    assert_eq!(grants(json!({"room": "r"})), Err(TokenError::NoRoomJoin));
    assert_eq!(grants(json!({"roomJoin": true})), Err(TokenError::BadRoom));
    assert_eq!(grants(json!({"roomJoin": true, "room": "r".repeat(257)})), Err(TokenError::BadRoom));
    let nobody = json!({"iss": KEY, "exp": NOW + 1, "video": {"roomJoin": true, "room": "r"}});
    let verified = verify(&token(&hs256(), &nobody), secret_of, NOW).unwrap();
    assert_eq!(verified.grants(), Err(TokenError::NoIdentity));
    assert_eq!((TokenError::BadIdentity.status(), TokenError::NoRoomJoin.status()), (400, 401));
}

#[test]
fn honours_the_times_with_a_minute_of_leeway() {
    let at = |claims: Value, now| verify(&token(&hs256(), &claims), secret_of, now).map(|_| ());
    let span = json!({"iss": KEY, "sub": "a", "nbf": NOW, "exp": NOW + 100});
    assert_eq!(at(span.clone(), NOW - 60), Ok(()));
    assert_eq!(at(span.clone(), NOW - 61), Err(TokenError::NotYet));
    assert_eq!(at(span.clone(), NOW + 160), Ok(()));
    assert_eq!(at(span, NOW + 161), Err(TokenError::Expired));
    assert_eq!(at(json!({"iss": KEY, "sub": "a"}), NOW), Err(TokenError::Expired), "exp is required");
    assert_eq!(at(json!({"iss": KEY, "exp": "soon"}), NOW), Err(TokenError::Malformed));
    assert_eq!(at(json!({"iss": KEY, "exp": i64::MAX}), NOW), Ok(()), "no overflow");
}

#[test]
fn refuses_other_algorithms_keys_and_signatures() {
    let claims = claims(json!({"roomJoin": true, "room": "r"}));
    let check = |token: &str| verify(token, secret_of, NOW).map(|_| ());
    for algorithm in ["none", "None", "HS384", "HS512", "RS256", "ES256", ""] {
        let signed = token(&json!({"alg": algorithm}), &claims);
        assert_eq!(check(&signed), Err(TokenError::Malformed), "{algorithm}");
        let unsigned = signed.rsplit_once('.').unwrap().0;
        assert_eq!(check(&format!("{unsigned}.")), Err(TokenError::Malformed), "{algorithm}");
    }
    let good = token(&hs256(), &claims);
    let (body, signature) = good.rsplit_once('.').unwrap();
    assert_eq!(check(&format!("{body}.")), Err(TokenError::BadSignature));
    let zero = URL_SAFE_NO_PAD.encode([0; 32]);
    assert_eq!(check(&format!("{body}.{zero}")), Err(TokenError::BadSignature));
    assert!(check(&format!("{good}.{signature}")).is_err());
    for broken in ["", ".", "..", "a.b.c", "é.é.é"] {
        assert_eq!(check(broken), Err(TokenError::Malformed), "{broken}");
    }
    assert_eq!(check(&"a".repeat(MAX_TOKEN + 1)), Err(TokenError::TooLarge));
}

#[test]
fn never_follows_the_header_to_a_key() {
    let claims = claims(json!({"roomJoin": true, "room": "r"}));
    let tricks =
        json!({"alg": "HS256", "kid": "../../dev/null", "jku": "http://127.0.0.1/keys", "x5u": "file:///etc/passwd"});
    assert!(verify(&token(&tricks, &claims), secret_of, NOW).is_ok(), "ignored, since the signature is right");
    let other = json!({"iss": "other", "exp": NOW + 1});
    assert_eq!(verify(&token(&hs256(), &other), secret_of, NOW).map(|_| ()), Err(TokenError::UnknownKey));
    let empty = json!({"iss": "empty", "exp": NOW + 1});
    assert_eq!(verify(&token(&hs256(), &empty), secret_of, NOW).map(|_| ()), Err(TokenError::UnknownKey));
    let missing = json!({"exp": NOW + 1});
    assert_eq!(verify(&token(&hs256(), &missing), secret_of, NOW).map(|_| ()), Err(TokenError::Malformed));
}

#[test]
fn a_refreshed_token_says_the_same_and_lives_on() {
    let mut before = grants(json!({
        "roomJoin": true, "room": "r", "canPublishSources": ["camera"], "canUpdateOwnMetadata": true, "hidden": true
    }))
    .unwrap();
    before.expires_at = NOW + 30;
    before.kind = Kind::Agent.into();
    let signed = mint(&Claims::refreshed(&before, KEY, NOW), SECRET).unwrap();
    let after = verify(&signed, secret_of, NOW).unwrap().grants().unwrap();
    assert_eq!(after.expires_at, NOW + 600);
    assert!(after.joined && !before.joined, "only what we signed ourselves says that its bearer was here");
    assert_eq!(Grants { expires_at: before.expires_at, joined: false, ..after }, before);
    before.expires_at = NOW + 7200;
    assert_eq!(Claims::refreshed(&before, KEY, NOW).exp, NOW + 7200, "never shorter than what remained");
    assert_eq!(mint(&Claims::default(), ""), Err(TokenError::CannotSign));
}

#[test]
fn a_signed_token_says_nothing_it_need_not_and_everything_clients_read() {
    let mut before = grants(json!({"roomJoin": true, "room": "r", "canPublish": false})).unwrap();
    before.name = "Alice".to_owned();
    let signed = mint(&Claims::refreshed(&before, KEY, NOW), SECRET).unwrap();
    let claims: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(signed.split('.').nth(1).unwrap()).unwrap()).unwrap();
    let expected = json!({
        "iss": KEY, "sub": "@alice:example.org:DEVICE", "name": "Alice", "iat": NOW, "nbf": NOW, "exp": NOW + 3600,
        "weir": {"joined": true},
        "video": {
            "roomJoin": true, "room": "r", "canPublish": false, "canPublishData": false, "canSubscribe": true,
            "canUpdateOwnMetadata": false, "canSubscribeMetrics": false,
        },
    });
    assert_eq!(claims, expected);
}

#[test]
fn an_empty_identity_is_named_as_such() {
    for nobody in [json!({}), json!({"sub": ""}), json!({"sub": "", "jti": ""})] {
        let mut claims = claims(json!({"roomJoin": true, "room": "r"}));
        claims.as_object_mut().unwrap().remove("sub");
        claims.as_object_mut().unwrap().extend(nobody.as_object().unwrap().clone());
        let error = verify(&token(&hs256(), &claims), secret_of, NOW).unwrap().grants().unwrap_err();
        assert_eq!((error.status(), error.to_string().as_str()), (400, "identity cannot be empty"));
    }
}

#[test]
fn reads_the_grants_of_the_server_api() {
    let claims = json!({"iss": KEY, "exp": NOW + 1, "video": {
        "roomCreate": true, "roomList": true, "roomAdmin": true, "room": "a", "destinationRoom": "b", "unknown": 1
    }});
    let video = verify(&token(&hs256(), &claims), secret_of, NOW).unwrap().video.unwrap();
    assert!(video.room_create && video.room_list && video.room_admin && !video.room_join);
    assert_eq!(video.destination_room, "b");
}

#[test]
fn claims_can_be_read_with_the_plain_alphabet_whatever_they_say() {
    use base64::engine::general_purpose::STANDARD_NO_PAD;
    // Every character at every place of a group of three, and those that take more than one byte or unit.
    let strange: String = (' '..='\u{ff}').chain("\\\"日本語🖐️\u{7f}".chars()).flat_map(|c| [c, c, c, 'x']).collect();
    for shift in 0..3 {
        let sub = format!("{}{strange}", "a".repeat(shift));
        let claims = Claims { iss: KEY.to_owned(), sub, exp: NOW + 3600, ..Claims::default() };
        let token = mint(&claims, SECRET).unwrap();
        let payload = token.split('.').nth(1).unwrap();
        let json = STANDARD_NO_PAD.decode(payload).unwrap();
        assert!(json.is_ascii());
        assert_eq!(serde_json::from_slice::<Claims>(&json).unwrap(), claims);
        assert_eq!(verify(&token, secret_of, NOW), Ok(claims));
    }
}
