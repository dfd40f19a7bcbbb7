//! A Matrix event as pushed to an application service or fetched from room state, reduced to what matters for a call.
//!
//! Two dialects of call membership are read (MSC3401 state events as deployed, MSC4143 sticky events), the call slot
//! (MSC4143), and plain room state. Anything else is [`Fact::Other`]. Content is untrusted: wrong types mean absent values.

use serde_json::Value;

use super::power::PowerLevels;

/// Call membership in room state (MSC3401 as deployed).
pub const CALL_MEMBER: &str = "org.matrix.msc3401.call.member";
/// Sticky call membership (MSC4143), unstable and stable names.
pub const RTC_MEMBER: [&str; 2] = ["org.matrix.msc4143.rtc.member", "m.rtc.member"];
/// Call slot (MSC4143), unstable and stable names.
pub const RTC_SLOT: [&str; 2] = ["org.matrix.msc4143.rtc.slot", "m.rtc.slot"];
/// How long a state membership lasts that does not say: what clients take as default.
const DEFAULT_EXPIRES_MS: i64 = 4 * 3600 * 1000;
/// The longest a sticky event lasts (MSC4354).
const MAX_STICKY_MS: i64 = 3600 * 1000;

/// One event, reduced.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its id, unique.
    pub id: String,
    /// Room it is in; empty in answers that are about one room anyway.
    pub room: String,
    /// Who sent it.
    pub sender: String,
    /// Milliseconds since 1970 by the sender's homeserver's clock. Not to be trusted for order alone.
    pub origin_ts: i64,
    /// The state event it replaced, when the homeserver says so.
    pub replaces: Option<String>,
    /// What it says.
    pub fact: Fact,
}

/// What an event says about a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// `m.room.member`.
    RoomMember {
        /// Whose membership.
        user: String,
        /// What it is.
        membership: Membership,
    },
    /// `m.room.power_levels`.
    PowerLevels(PowerLevels),
    /// `m.room.create`: who made the room, and whether its creators stand above all levels (room version 12 on).
    Create {
        /// Creators.
        creators: Vec<String>,
        /// Room version 12 or later.
        creators_unlimited: bool,
    },
    /// A call slot was opened or closed.
    Slot {
        /// Its id, for example `m.call#ROOM`.
        slot: String,
        /// Open or closed.
        open: bool,
    },
    /// Call membership in state; `None` is a leave.
    CallMember {
        /// State key, opaque: never parsed, the sender counts.
        key: String,
        /// Who is a member with what.
        member: Option<CallMember>,
    },
    /// Sticky call membership; `None` is a leave.
    StickyMember {
        /// Sticky key: the member id.
        key: String,
        /// Who is a member with what.
        member: Option<CallMember>,
    },
    /// `m.room.tombstone`: the room was replaced.
    Tombstone,
    /// `m.room.encryption`: members send encrypted events from now on.
    Encryption,
    /// A rule of a moderation list.
    PolicyRule {
        /// What kind of thing it is about.
        kind: super::policy::RuleKind,
        /// State key of the rule.
        key: String,
        /// The rule, `None` where it was withdrawn.
        rule: Option<super::policy::Rule>,
    },
    /// Nothing of ours.
    Other,
}

/// Room membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// In the room.
    Join,
    /// Invited.
    Invite,
    /// Asked to be let in.
    Knock,
    /// Left or was removed.
    Leave,
    /// Banned.
    Ban,
}

/// A member of a call as its device announced it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallMember {
    /// The user: the event's sender, whatever its content claims.
    pub user: String,
    /// The device.
    pub device: String,
    /// Member id, where the dialect has one.
    pub member: Option<String>,
    /// The slot of the call.
    pub slot: String,
    /// Unix milliseconds at which it ends by itself.
    pub expires_at: i64,
    /// Service URLs of the SFUs it publishes over, first one first.
    pub services: Vec<String>,
}

impl Event {
    /// Read a client-format event. `None` when it has no id, type or sender: not an event.
    pub fn from_json(json: &Value) -> Option<Self> {
        let text = |key: &str| json.get(key).and_then(Value::as_str);
        let sender = text("sender")?.to_owned();
        let origin_ts = json.get("origin_server_ts").and_then(Value::as_i64).unwrap_or(0);
        let content = json.get("content").unwrap_or(&Value::Null);
        let unsigned = json.get("unsigned");
        let kind = text("type")?;
        let fact = match text("state_key") {
            Some(key) => state_fact(kind, key, &sender, content, origin_ts),
            None => timeline_fact(kind, &sender, content, origin_ts, json),
        };
        Some(Self {
            id: text("event_id")?.to_owned(),
            room: text("room_id").unwrap_or_default().to_owned(),
            sender,
            origin_ts,
            replaces: unsigned.and_then(|u| u.get("replaces_state")).and_then(Value::as_str).map(str::to_owned),
            fact,
        })
    }
}

fn state_fact(kind: &str, key: &str, sender: &str, content: &Value, origin_ts: i64) -> Fact {
    match kind {
        "m.room.member" => Fact::RoomMember { user: key.to_owned(), membership: membership(content) },
        "m.room.power_levels" if key.is_empty() => Fact::PowerLevels(PowerLevels::from_content(content)),
        "m.room.create" if key.is_empty() => create(sender, content),
        "m.room.tombstone" if key.is_empty() => Fact::Tombstone,
        "m.room.encryption" if key.is_empty() => Fact::Encryption,
        CALL_MEMBER => Fact::CallMember { key: key.to_owned(), member: state_member(sender, content, origin_ts) },
        _ if RTC_SLOT.contains(&kind) => {
            let open = content.get("status").and_then(Value::as_str) == Some("open");
            Fact::Slot { slot: key.to_owned(), open }
        }
        _ => super::policy::rule_kind(kind).map_or(Fact::Other, |kind| Fact::PolicyRule {
            kind,
            key: key.to_owned(),
            rule: super::policy::Rule::from_content(content),
        }),
    }
}

fn timeline_fact(kind: &str, sender: &str, content: &Value, origin_ts: i64, json: &Value) -> Fact {
    if !RTC_MEMBER.contains(&kind) {
        return Fact::Other;
    }
    let key = ["msc4354_sticky_key", "sticky_key"].iter().find_map(|k| content.get(*k)).and_then(Value::as_str);
    let Some(key) = key else { return Fact::Other };
    let sticky = ["msc4354_sticky", "sticky"].iter().find_map(|k| json.get(*k));
    let duration = sticky.and_then(|s| s.get("duration_ms")).and_then(Value::as_i64).unwrap_or(0);
    let expires_at = origin_ts.saturating_add(duration.clamp(0, MAX_STICKY_MS));
    Fact::StickyMember { key: key.to_owned(), member: sticky_member(sender, key, content, expires_at) }
}

fn membership(content: &Value) -> Membership {
    match content.get("membership").and_then(Value::as_str) {
        Some("join") => Membership::Join,
        Some("invite") => Membership::Invite,
        Some("knock") => Membership::Knock,
        Some("ban") => Membership::Ban,
        _ => Membership::Leave,
    }
}

fn create(sender: &str, content: &Value) -> Fact {
    let version = content.get("room_version").and_then(Value::as_str).unwrap_or("1");
    let creators_unlimited = version.parse::<u32>().is_ok_and(|v| v >= 12);
    let mut creators = vec![sender.to_owned()];
    if creators_unlimited && let Some(more) = content.get("additional_creators").and_then(Value::as_array) {
        creators.extend(more.iter().filter_map(Value::as_str).map(str::to_owned));
    }
    Fact::Create { creators, creators_unlimited }
}

fn state_member(sender: &str, content: &Value, origin_ts: i64) -> Option<CallMember> {
    let text = |key: &str| content.get(key).and_then(Value::as_str);
    let device = text("device_id")?.to_owned();
    let application = text("application")?;
    // The wire writes the room's own call as an empty id; the slot spells it out.
    let call = text("call_id").filter(|id| !id.is_empty()).unwrap_or("ROOM");
    let created = content.get("created_ts").and_then(Value::as_i64).unwrap_or(origin_ts);
    let expires = content.get("expires").and_then(Value::as_i64).filter(|e| *e >= 0).unwrap_or(DEFAULT_EXPIRES_MS);
    Some(CallMember {
        user: sender.to_owned(),
        device,
        member: None,
        slot: format!("{application}#{call}"),
        expires_at: created.saturating_add(expires),
        services: services(content.get("foci_preferred")),
    })
}

fn sticky_member(sender: &str, key: &str, content: &Value, expires_at: i64) -> Option<CallMember> {
    let member = content.get("member")?;
    if member.get("membership").and_then(Value::as_str) == Some("leave") {
        return None;
    }
    let text = |key: &str| member.get(key).and_then(Value::as_str).map(str::to_owned);
    let transports = content.get("rtc_transports").or_else(|| content.get("transports")?.get("published"));
    Some(CallMember {
        user: sender.to_owned(),
        device: text("device_id").or_else(|| text("claimed_device_id")).unwrap_or_default(),
        member: Some(text("id").unwrap_or_else(|| key.to_owned())),
        slot: content.get("slot_id").and_then(Value::as_str)?.to_owned(),
        expires_at,
        services: services(transports),
    })
}

fn services(list: Option<&Value>) -> Vec<String> {
    let entries = list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    entries
        .iter()
        .take(16)
        .filter_map(|t| t.get("livekit_service_url").or_else(|| t.get("url")).and_then(Value::as_str))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;
    use serde_json::json;

    fn read(json: &Value) -> Event {
        Event::from_json(json).unwrap()
    }

    #[test]
    fn reads_a_state_membership_and_its_leave() {
        let join = json!({
            "type": CALL_MEMBER, "state_key": "_@a:x_DEV_m.call", "sender": "@a:x", "event_id": "$1", "room_id": "!r:x",
            "origin_server_ts": 1000,
            "content": {
                "application": "m.call", "call_id": "", "scope": "m.room", "device_id": "DEV", "expires": 5000,
                "focus_active": {"type": "livekit", "focus_selection": "multi_sfu"},
                "foci_preferred": [{"type": "livekit", "livekit_service_url": "https://rtc.x/livekit/jwt", "livekit_alias": "!r:x"}],
            }
        });
        let Fact::CallMember { member: Some(member), .. } = read(&join).fact else { panic!() };
        assert_eq!(
            (member.user.as_str(), member.device.as_str(), member.slot.as_str()),
            ("@a:x", "DEV", "m.call#ROOM")
        );
        assert_eq!(member.expires_at, 6000);
        assert_eq!(member.services, ["https://rtc.x/livekit/jwt"]);
        let mut leave = join;
        leave["content"] = json!({});
        assert!(matches!(read(&leave).fact, Fact::CallMember { member: None, .. }));
    }

    #[test]
    fn reads_sticky_memberships_of_both_drafts_and_their_leaves() {
        let event = |content: Value| {
            read(&json!({
                "type": "org.matrix.msc4143.rtc.member", "sender": "@a:x", "event_id": "$1", "origin_server_ts": 1000,
                "msc4354_sticky": {"duration_ms": 7_200_000}, "content": content,
            }))
        };
        let deployed = json!({
            "slot_id": "m.call#ROOM", "application": {"type": "m.call"}, "msc4354_sticky_key": "mem",
            "member": {"user_id": "@evil:y", "device_id": "DEV", "id": "mem"},
            "rtc_transports": [{"type": "livekit", "livekit_service_url": "https://s"}], "versions": [],
        });
        let Fact::StickyMember { member: Some(member), .. } = event(deployed).fact else { panic!() };
        assert_eq!(member.user, "@a:x", "the sender counts, not the claim");
        assert_eq!(member.expires_at, 1000 + MAX_STICKY_MS, "never longer than an hour");
        let newer =
            json!({"slot_id": "m.call#ROOM", "sticky_key": "mem", "member": {"id": "mem", "membership": "leave"}});
        assert!(matches!(event(newer).fact, Fact::StickyMember { member: None, .. }));
        let clear_leave = json!({"msc4354_sticky_key": "mem"});
        assert!(matches!(event(clear_leave).fact, Fact::StickyMember { member: None, .. }));
    }

    #[test]
    fn takes_wrong_types_as_absent() {
        let event = read(
            &json!({"type": "m.room.member", "state_key": "@a:x", "sender": "@b:x", "event_id": "$1", "content": 7}),
        );
        assert_eq!(event.fact, Fact::RoomMember { user: "@a:x".to_owned(), membership: Membership::Leave });
        assert_eq!(Event::from_json(&json!({"type": "m.room.member"})), None);
        assert_eq!(Event::from_json(&json!([])), None);
    }
}
