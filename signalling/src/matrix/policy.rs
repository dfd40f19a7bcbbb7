//! Moderation lists (Matrix spec, "Moderation policy lists"): rules in policy rooms that the operator has chosen to honour.

use std::collections::BTreeMap;

use serde_json::Value;

/// Longest glob that is honoured; a rule with a longer one is ignored.
const MAX_GLOB: usize = 255;

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleKind {
    /// `m.policy.rule.user`
    User,
    /// `m.policy.rule.server`
    Server,
    /// `m.policy.rule.room`
    Room,
}

/// A ban rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Glob over ids: `*` any run, `?` any one character.
    pub entity: String,
    /// Why, as its author wrote. For the operator only.
    pub reason: String,
}

impl Rule {
    /// Read the content of a rule; `None` when it was withdrawn, is too long or recommends anything but a ban.
    pub fn from_content(content: &Value) -> Option<Self> {
        let text = |key: &str| content.get(key).and_then(Value::as_str);
        let entity = text("entity").filter(|e| !e.is_empty() && e.len() <= MAX_GLOB)?;
        let is_ban = matches!(text("recommendation"), Some("m.ban" | "org.matrix.mjolnir.ban"));
        is_ban.then(|| Self {
            entity: entity.to_owned(),
            reason: text("reason").unwrap_or_default().chars().take(200).collect(),
        })
    }
}

/// The kind of a state event type, where it is a rule; old spellings included.
pub fn rule_kind(event_type: &str) -> Option<RuleKind> {
    match event_type {
        "m.policy.rule.user" | "m.room.rule.user" | "org.matrix.mjolnir.rule.user" => Some(RuleKind::User),
        "m.policy.rule.server" | "m.room.rule.server" | "org.matrix.mjolnir.rule.server" => Some(RuleKind::Server),
        "m.policy.rule.room" | "m.room.rule.room" | "org.matrix.mjolnir.rule.room" => Some(RuleKind::Room),
        _ => None,
    }
}

/// All rules of the honoured lists.
#[derive(Clone, Debug)]
pub struct Policies {
    rules: BTreeMap<(String, RuleKind, String), Rule>,
    limit: usize,
}

impl Policies {
    /// No rules, and room for `limit`.
    pub const fn new(limit: usize) -> Self {
        Self { rules: BTreeMap::new(), limit }
    }

    /// A rule of a policy room was set or withdrawn. True when something changed.
    pub fn apply(&mut self, policy_room: &str, kind: RuleKind, key: &str, rule: Option<Rule>) -> bool {
        let place = (policy_room.to_owned(), kind, key.to_owned());
        match rule {
            Some(rule) if self.rules.contains_key(&place) || self.rules.len() < self.limit => {
                self.rules.insert(place, rule.clone()) != Some(rule)
            }
            Some(_) => false,
            None => self.rules.remove(&place).is_some(),
        }
    }

    /// Forget a policy room, before its state is read afresh.
    pub fn clear(&mut self, policy_room: &str) {
        self.rules.retain(|(room, _, _), _| room != policy_room);
    }

    /// The rule that bans a user, the user's server, or the room; `None` when no rule does.
    pub fn ban(&self, user: &str, matrix_room: &str) -> Option<&Rule> {
        let server = super::server_name::server_of_user(user).unwrap_or_default();
        // Rules about servers name hosts; a port in the user's server name does not hide from them.
        let host = server
            .rsplit_once(':')
            .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
            .map_or(server, |(host, _)| host);
        self.rules.iter().find_map(|((_, kind, _), rule)| {
            let hit = match kind {
                RuleKind::User => matches_glob(&rule.entity, user),
                RuleKind::Server => matches_glob(&rule.entity, server) || matches_glob(&rule.entity, host),
                RuleKind::Room => matches_glob(&rule.entity, matrix_room),
            };
            hit.then_some(rule)
        })
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

/// Glob match in time linear in the product at worst, without recursion: an attacker writes both sides.
fn matches_glob(glob: &str, text: &str) -> bool {
    let (glob, text) = (glob.as_bytes(), text.as_bytes());
    let (mut g, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match glob.get(g) {
            Some(b'*') => {
                retry = Some((g + 1, t));
                g += 1;
            }
            Some(&c) if c == b'?' || text.get(t) == Some(&c) => {
                g += 1;
                t += 1;
            }
            _ => match retry {
                Some((after_star, taken)) => {
                    retry = Some((after_star, taken + 1));
                    g = after_star;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    glob.iter().skip(g).all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    fn with(kind: RuleKind, entity: &str) -> Policies {
        let mut policies = Policies::new(10);
        let rule = Rule::from_content(&json!({"entity": entity, "recommendation": "m.ban"}));
        assert!(policies.apply("!p:x", kind, "k", rule));
        policies
    }

    #[test]
    fn bans_users_servers_and_rooms_by_glob() {
        assert!(with(RuleKind::User, "@spam*:*").ban("@spammer:evil", "!r:x").is_some());
        assert!(with(RuleKind::User, "@spam*:*").ban("@ham:evil", "!r:x").is_none());
        assert!(with(RuleKind::Server, "*.evil.org").ban("@a:b.evil.org", "!r:x").is_some());
        assert!(with(RuleKind::Server, "evil.org").ban("@a:evil.org:8448", "!r:x").is_some());
        assert!(with(RuleKind::Server, "evil.org").ban("@a:notevil.org", "!r:x").is_none());
        assert!(with(RuleKind::Room, "!bad:?").ban("@a:b", "!bad:x").is_some());
    }

    #[test]
    fn forgets_what_is_withdrawn_and_ignores_what_is_no_ban() {
        let mut policies = with(RuleKind::User, "@a:b");
        assert!(policies.apply("!p:x", RuleKind::User, "k", None));
        assert!(policies.is_empty());
        assert_eq!(Rule::from_content(&json!({"entity": "*", "recommendation": "m.warn"})), None);
        assert_eq!(Rule::from_content(&json!({})), None);
    }

    #[test]
    fn matches_hostile_globs_in_bounded_time() {
        let glob = format!("{}b", "*a".repeat(100));
        assert!(!matches_glob(&glob, &"a".repeat(255)));
        assert!(matches_glob("*", "") && matches_glob("", "") && !matches_glob("?", ""));
    }

    #[test]
    fn holds_no_more_rules_than_its_limit() {
        let mut policies = Policies::new(1);
        let rule = Rule { entity: "a".to_owned(), reason: String::new() };
        assert!(policies.apply("!p", RuleKind::User, "1", Some(rule.clone())));
        assert!(!policies.apply("!p", RuleKind::User, "2", Some(rule)));
        assert_eq!(policies.len(), 1);
    }
}
