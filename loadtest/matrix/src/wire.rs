//! What clients write into rooms and to each other's devices about a call, and how it is read. Pure.
//!
//! The carrier is the state event that deployed clients send by default (MSC3401's type, MSC4143's meaning); keys of
//! frames go as `io.element.call.encryption_keys` from device to device.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Value, json};

/// Type of the state event of a member of a call.
pub const MEMBER: &str = "org.matrix.msc3401.call.member";
/// Type of the to-device message with a key of frames.
pub const KEYS: &str = "io.element.call.encryption_keys";
/// A membership that nobody renews ends by itself, milliseconds.
const EXPIRES_MS: u64 = 14_400_000;
/// Clients differ in whether they pad.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A device of a user.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    /// `@user:server`.
    pub user: String,
    /// The device's id.
    pub device: String,
}

impl Device {
    /// What it is called in the call.
    pub fn identity(&self) -> String {
        format!("{}:{}", self.user, self.device)
    }

    /// State key of its membership: the underscore keeps it from being the user's own, which no device id may follow.
    pub fn state_key(&self) -> String {
        format!("_{}_{}_m.call", self.user, self.device)
    }
}

/// The membership of a device in the call of a room, at the SFU whose tokens `service` gives out.
pub fn member(device: &Device, room: &str, service: &str) -> Value {
    json!({
        "application": "m.call",
        "call_id": "",
        "scope": "m.room",
        "device_id": device.device,
        "expires": EXPIRES_MS,
        "m.call.intent": "video",
        "focus_active": { "type": "livekit", "focus_selection": "multi_sfu" },
        "foci_preferred": [{ "type": "livekit", "livekit_service_url": service, "livekit_alias": room }],
    })
}

/// A change of a call's members, as a state event tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which membership.
    pub state_key: String,
    /// When the homeserver took it, milliseconds since 1970.
    pub at_ms: u64,
    /// Who is in the call by it; `None`: nobody any more.
    pub member: Option<Device>,
}

/// Read a state event; `None` when it is none of a call's members. `now_ms` is the time since 1970: memberships expire.
pub fn read_member(event: &Value, now_ms: u64) -> Option<Change> {
    if event.get("type")?.as_str()? != MEMBER {
        return None;
    }
    let content = event.get("content")?;
    let at_ms = event.get("origin_server_ts").and_then(Value::as_u64).unwrap_or(0);
    let of = |name: &str| content.get(name).and_then(Value::as_str);
    let lasts = content.get("expires").and_then(Value::as_u64).unwrap_or(EXPIRES_MS);
    let since = content.get("created_ts").and_then(Value::as_u64).unwrap_or(at_ms);
    let is_here =
        of("application") == Some("m.call") && of("call_id") == Some("") && since.saturating_add(lasts) > now_ms;
    let sender = event.get("sender")?.as_str()?;
    let device = of("device_id").filter(|_| is_here);
    Some(Change {
        state_key: event.get("state_key")?.as_str()?.to_owned(),
        at_ms,
        member: device.map(|device| Device { user: sender.to_owned(), device: device.to_owned() }),
    })
}

/// A message with a key of frames.
pub fn key_message(from: &Device, room: &str, index: u8, material: &[u8], now_ms: u64) -> Value {
    json!({
        "keys": { "index": index, "key": BASE64.encode(material) },
        "room_id": room,
        "member": { "claimed_device_id": from.device, "id": from.identity() },
        "session": { "call_id": "", "application": "m.call", "scope": "m.room" },
        "sent_ts": now_ms,
    })
}

/// A key that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CameKey {
    /// Whose frames it opens.
    pub of: Device,
    /// The room of the call.
    pub room: String,
    /// Its index.
    pub index: u8,
    /// 16 or 32 bytes.
    pub material: Vec<u8>,
}

/// Read a decrypted to-device message; `device` is the one it was encrypted by. `None` when it holds no key, or one of
/// another device.
pub fn read_key(event: &Value, device: &str) -> Option<CameKey> {
    if event.get("type")?.as_str()? != KEYS {
        return None;
    }
    let content = event.get("content")?;
    if content.get("member")?.get("claimed_device_id")?.as_str()? != device {
        return None;
    }
    let keys = content.get("keys")?;
    let material = BASE64.decode(keys.get("key")?.as_str()?).ok()?;
    matches!(material.len(), 16 | 32).then_some(())?;
    Some(CameKey {
        of: Device { user: event.get("sender")?.as_str()?.to_owned(), device: device.to_owned() },
        room: content.get("room_id")?.as_str()?.to_owned(),
        index: u8::try_from(keys.get("index")?.as_u64()?).ok()?,
        material,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn bob() -> Device {
        Device { user: "@bob:example.org".to_owned(), device: "PHONE".to_owned() }
    }

    #[test]
    fn a_membership_is_read_as_it_is_written_and_ends_by_an_empty_one_or_by_time() {
        let content = member(&bob(), "!r:example.org", "https://rtc.example.org");
        let mut event = json!({
            "type": MEMBER, "state_key": bob().state_key(), "sender": "@bob:example.org", "origin_server_ts": 1_000,
            "content": content,
        });
        let here = Change { state_key: "_@bob:example.org_PHONE_m.call".into(), at_ms: 1_000, member: Some(bob()) };
        assert_eq!(read_member(&event, 2_000), Some(here.clone()));
        assert_eq!(read_member(&event, 1_000 + EXPIRES_MS), Some(Change { member: None, ..here.clone() }));
        event["content"] = json!({});
        assert_eq!(read_member(&event, 2_000), Some(Change { member: None, ..here }));
        event["type"] = json!("m.room.name");
        assert_eq!(read_member(&event, 2_000), None);
    }

    #[test]
    fn a_key_is_read_padded_or_not_and_only_from_the_device_it_names() {
        let content = key_message(&bob(), "!r:example.org", 7, &[9; 16], 5);
        let mut event = json!({ "type": KEYS, "sender": "@bob:example.org", "content": content });
        let key = CameKey { of: bob(), room: "!r:example.org".into(), index: 7, material: vec![9; 16] };
        assert_eq!(read_key(&event, "PHONE"), Some(key.clone()));
        assert_eq!(read_key(&event, "LAPTOP"), None);
        event["content"]["keys"]["key"] = json!("CQkJCQkJCQkJCQkJCQkJCQ==");
        assert_eq!(read_key(&event, "PHONE"), Some(key));
        for wrong in [json!("CQk"), json!("!"), json!(7)] {
            event["content"]["keys"]["key"] = wrong;
            assert_eq!(read_key(&event, "PHONE"), None);
        }
    }
}
