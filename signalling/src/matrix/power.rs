//! Power levels (Matrix spec, `m.room.power_levels`) and what they say about publishing in a call.

use std::collections::BTreeMap;

use serde_json::Value;

use super::event::{CALL_MEMBER, RTC_MEMBER};

/// Event type whose level in `events` says who may publish in calls over weir. Nobody sends such an event: it is a place
/// in the power levels that any client's editor can reach. Where it is absent the level of the call-member event counts.
pub const PUBLISH: &str = "org.weir.call.publish";
/// The same, for one kind of source only; where absent, [`PUBLISH`] counts.
pub const PUBLISH_MICROPHONE: &str = "org.weir.call.publish.microphone";
/// See [`PUBLISH_MICROPHONE`].
pub const PUBLISH_CAMERA: &str = "org.weir.call.publish.camera";
/// See [`PUBLISH_MICROPHONE`].
pub const PUBLISH_SCREEN: &str = "org.weir.call.publish.screen_share";

/// Most entries read from one power-levels event; the rest is ignored (an event is at most 64 kB anyway).
const MAX_ENTRIES: usize = 4096;

/// Which dialect a client announces its membership in: it decides whose level counts for publishing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// State events (`org.matrix.msc3401.call.member`).
    State,
    /// Sticky events (MSC4143), which are timeline events, encrypted in encrypted rooms.
    Sticky,
}

/// Content of `m.room.power_levels`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PowerLevels {
    users: BTreeMap<String, i64>,
    events: BTreeMap<String, i64>,
    users_default: i64,
    events_default: i64,
    state_default: i64,
}

impl PowerLevels {
    /// Read the content of the event.
    pub fn from_content(content: &Value) -> Self {
        let number = |key: &str, default: i64| content.get(key).and_then(level).unwrap_or(default);
        Self {
            users: map(content.get("users")),
            events: map(content.get("events")),
            users_default: number("users_default", 0),
            events_default: number("events_default", 0),
            state_default: number("state_default", 50),
        }
    }

    /// What holds in a room without the event: everybody may send everything, the creator has 100.
    pub fn absent(creators: &[String]) -> Self {
        Self {
            users: creators.iter().map(|c| (c.clone(), 100)).collect(),
            events: BTreeMap::new(),
            users_default: 0,
            events_default: 0,
            state_default: 0,
        }
    }

    /// The level of a user.
    pub fn of(&self, user: &str) -> i64 {
        self.users.get(user).copied().unwrap_or(self.users_default)
    }

    /// The level it takes to send call membership.
    pub fn to_send_membership(&self, dialect: Dialect, encrypted: bool) -> i64 {
        match dialect {
            Dialect::State => self.events.get(CALL_MEMBER).copied().unwrap_or(self.state_default),
            Dialect::Sticky if encrypted => self.events.get("m.room.encrypted").copied().unwrap_or(self.events_default),
            Dialect::Sticky => {
                let named = RTC_MEMBER.iter().find_map(|name| self.events.get(*name));
                named.copied().unwrap_or(self.events_default)
            }
        }
    }

    /// The level it takes to publish from a source, given by its key.
    pub fn to_publish(&self, source: &str, dialect: Dialect, encrypted: bool) -> i64 {
        let own = self.events.get(source).or_else(|| self.events.get(PUBLISH));
        own.copied().unwrap_or_else(|| self.to_send_membership(dialect, encrypted))
    }
}

/// Old rooms have levels as strings, some clients as floats; room version 10 and later integers only.
fn level(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
}

fn map(value: Option<&Value>) -> BTreeMap<String, i64> {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    entries.take(MAX_ENTRIES).filter_map(|(k, v)| Some((k.clone(), level(v)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn takes_the_call_member_level_unless_weirs_own_key_says_more() {
        let plain = PowerLevels::from_content(&json!({"events": {CALL_MEMBER: 0}, "users": {"@mod:x": 50}}));
        assert_eq!(plain.to_publish(PUBLISH_CAMERA, Dialect::State, true), 0);
        let stage =
            PowerLevels::from_content(&json!({"events": {CALL_MEMBER: 0, PUBLISH: 50, PUBLISH_MICROPHONE: 10}}));
        assert_eq!(stage.to_publish(PUBLISH_CAMERA, Dialect::State, true), 50);
        assert_eq!(stage.to_publish(PUBLISH_MICROPHONE, Dialect::State, true), 10);
        assert_eq!(stage.to_send_membership(Dialect::State, true), 0, "joining is not publishing");
    }

    #[test]
    fn follows_the_specification_where_nothing_is_said() {
        let empty = PowerLevels::from_content(&json!({}));
        assert_eq!(empty.to_send_membership(Dialect::State, false), 50);
        assert_eq!(empty.to_send_membership(Dialect::Sticky, false), 0);
        let absent = PowerLevels::absent(&["@c:x".to_owned()]);
        assert_eq!(absent.to_send_membership(Dialect::State, false), 0);
        assert_eq!((absent.of("@c:x"), absent.of("@d:x")), (100, 0));
        let encrypted = PowerLevels::from_content(&json!({"events": {"m.room.encrypted": 25, RTC_MEMBER[0]: 1}}));
        assert_eq!(encrypted.to_send_membership(Dialect::Sticky, true), 25);
        assert_eq!(encrypted.to_send_membership(Dialect::Sticky, false), 1);
    }

    #[test]
    fn reads_levels_of_old_rooms() {
        let old = PowerLevels::from_content(&json!({"users": {"@a:x": "75"}, "users_default": "x"}));
        assert_eq!((old.of("@a:x"), old.of("@b:x")), (75, 0));
    }
}
