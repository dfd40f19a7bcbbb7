//! The fold under every order of pushes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn event(id: u32, ts: i64, kind: &str, key: &str, replaces: Option<u32>, content: &Value) -> Event {
    let mut json = json!({
        "type": kind, "state_key": key, "sender": "@mod:x", "event_id": format!("${id}"), "origin_server_ts": ts, "content": content,
    });
    if let Some(replaces) = replaces {
        json["unsigned"] = json!({"replaces_state": format!("${replaces}")});
    }
    Event::from_json(&json).unwrap()
}

fn member(id: u32, ts: i64, user: &str, membership: &str) -> Event {
    event(id, ts, "m.room.member", user, None, &json!({"membership": membership}))
}

fn known(state: Vec<Event>) -> View {
    let mut view = View::new();
    view.begin_fetch();
    view.install(state);
    view
}

#[test]
fn admits_the_joined_and_nobody_else() {
    let view = known(vec![
        member(1, 1, "@in:x", "join"),
        member(2, 1, "@out:x", "leave"),
        member(3, 1, "@ban:x", "ban"),
        member(4, 1, "@inv:x", "invite"),
    ]);
    assert_eq!(view.may_join("@in:x", "m.call#ROOM"), Ok(()));
    assert_eq!(view.may_join("@out:x", "m.call#ROOM"), Err(Denied::NotInRoom));
    assert_eq!(view.may_join("@inv:x", "m.call#ROOM"), Err(Denied::NotInRoom));
    assert_eq!(view.may_join("@stranger:x", "m.call#ROOM"), Err(Denied::NotInRoom));
    assert_eq!(view.may_join("@ban:x", "m.call#ROOM"), Err(Denied::Banned));
}

#[test]
fn tells_who_left_at_once_when_the_push_follows_what_stands() {
    let mut view = known(vec![member(1, 10, "@a:x", "join")]);
    let ban = event(2, 5, "m.room.member", "@a:x", Some(1), &json!({"membership": "ban"}));
    let changes = view.apply(ban.clone());
    assert_eq!(changes.left, [("@a:x".to_owned(), Departure::Banned)], "even when its clock says earlier");
    assert!(!view.is_doubtful());
    assert!(view.apply(ban).is_empty(), "a repeated push is nothing new");
}

#[test]
fn fetches_when_a_push_cannot_be_put_in_order() {
    let mut view = known(vec![member(2, 10, "@a:x", "join")]);
    assert!(view.apply(member(1, 5, "@a:x", "leave")).is_empty());
    assert!(view.is_doubtful());
    view.begin_fetch();
    assert!(view.install(vec![member(2, 10, "@a:x", "join")]).is_empty());
    assert!(!view.is_doubtful());
}

#[test]
fn keeps_pushes_that_crossed_a_fetch() {
    let mut view = known(vec![member(1, 1, "@a:x", "join")]);
    view.begin_fetch();
    let kick = event(2, 9, "m.room.member", "@a:x", Some(1), &json!({"membership": "leave"}));
    assert_eq!(view.apply(kick).left.len(), 1);
    let changes = view.install(vec![member(1, 1, "@a:x", "join")]);
    assert!(changes.is_empty(), "the older snapshot does not bring the kicked user back: {changes:?}");
    assert_eq!(view.membership("@a:x"), Some(Membership::Leave));
}

#[test]
fn follows_slots_upgrades_and_levels() {
    let mut view = known(vec![member(1, 1, "@a:x", "join")]);
    assert!(view.slot_open("m.call#ROOM"), "a room without a slot event counts as open");
    let closed = event(2, 2, "m.rtc.slot", "m.call#ROOM", None, &json!({"status": "closed"}));
    assert!(view.apply(closed).slots);
    assert_eq!(view.may_join("@a:x", "m.call#ROOM"), Err(Denied::SlotClosed));
    assert_eq!(view.may_join("@a:x", "m.call#other"), Ok(()));
    view.apply(event(3, 3, "m.room.tombstone", "", None, &json!({"replacement_room": "!n:x"})));
    assert_eq!(view.may_join("@a:x", "m.call#other"), Err(Denied::RoomUpgraded));

    assert_eq!(view.rights("@a:x", Dialect::State), Rights::ALL, "no power levels: everybody may");
    let levels = json!({"users": {"@mod:x": 50}, "events": {"org.matrix.msc3401.call.member": 0, "org.weir.call.publish.camera": 50}});
    assert!(view.apply(event(4, 4, "m.room.power_levels", "", None, &levels)).rights);
    assert_eq!(view.rights("@a:x", Dialect::State), Rights { microphone: true, camera: false, screen_share: true });
    assert_eq!(view.rights("@mod:x", Dialect::State), Rights::ALL);
}

#[test]
fn creators_of_new_rooms_stand_above_all_levels() {
    let view = known(vec![
        event(1, 1, "m.room.create", "", None, &json!({"room_version": "12", "additional_creators": ["@b:x"]})),
        event(2, 1, "m.room.power_levels", "", None, &json!({"state_default": 100})),
    ]);
    assert_eq!(view.rights("@mod:x", Dialect::State), Rights::ALL);
    assert_eq!(view.rights("@b:x", Dialect::State), Rights::ALL);
    assert_eq!(view.rights("@c:x", Dialect::State), Rights::NONE);
}

#[test]
fn lists_call_members_until_they_leave_or_expire() {
    let content = json!({"application": "m.call", "call_id": "", "device_id": "D", "expires": 100});
    let mut view = known(vec![
        member(1, 1, "@mod:x", "join"),
        event(2, 1000, "org.matrix.msc3401.call.member", "_@mod:x_D", None, &content),
    ]);
    assert_eq!(view.call_members(1050).count(), 1);
    assert_eq!(view.call_members(1100).count(), 0);
    assert_eq!(view.standing_members().count(), 1, "expired, but still in state");
    let changes = view.apply(event(3, 1001, "org.matrix.msc3401.call.member", "_@mod:x_D", Some(2), &json!({})));
    assert_eq!(changes.members, [(MemberKey::State("_@mod:x_D".to_owned()), false)]);
    assert_eq!(view.standing_members().count(), 0);
}

/// A room's history: per user a chain of memberships, each event naming the one it replaced, with clocks that lie.
fn history() -> impl Strategy<Value = Vec<Event>> {
    let step = (0..4u8, 0..4u8, -50..50i64, any::<bool>());
    prop::collection::vec(step, 1..40).prop_map(|steps| {
        let mut last: BTreeMap<String, u32> = BTreeMap::new();
        let mut events = Vec::new();
        for (number, (user, kind, skew, says_replaces)) in steps.into_iter().enumerate() {
            let id = u32::try_from(number).unwrap() + 1;
            let user = format!("@u{user}:x");
            let membership = ["join", "leave", "ban", "invite"][usize::from(kind)];
            let replaces = last.insert(user.clone(), id).filter(|_| says_replaces);
            let ts = i64::from(id) * 10 + skew;
            events.push(event(id, ts, "m.room.member", &user, replaces, &json!({"membership": membership})));
        }
        events
    })
}

/// The state of the room after the first `count` events, as a homeserver would answer.
fn state_after(history: &[Event], count: usize) -> Vec<Event> {
    let mut state = BTreeMap::new();
    for event in &history[..count] {
        state.insert(place_of(event), event.clone());
    }
    state.into_values().collect()
}

proptest! {
    /// Whatever is pushed in which order, how often, and whenever the state is fetched in between: when the last push is in
    /// and doubts are settled by a fetch, the view is the room's state, and everybody who was seen in and is not in any
    /// longer was reported as gone.
    #[test]
    fn ends_as_the_rooms_state_whatever_the_order(
        history in history(),
        order in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..80),
        start in any::<prop::sample::Index>(),
    ) {
        let mut view = View::new();
        view.begin_fetch();
        let mut inside: std::collections::BTreeSet<String> = std::collections::BTreeSet::new();
        let mut note = |changes: Changes| {
            for user in changes.joined { inside.insert(user); }
            for (user, _) in changes.left { inside.remove(&user); }
        };
        note(view.install(state_after(&history, start.index(history.len()))));
        for (index, fetch) in order {
            note(view.apply(history[index.index(history.len())].clone()));
            if fetch && view.is_doubtful() {
                view.begin_fetch();
                note(view.install(state_after(&history, history.len())));
            }
        }
        // Every event arrives at least once, in the end.
        for event in &history {
            note(view.apply(event.clone()));
        }
        if view.is_doubtful() {
            view.begin_fetch();
            note(view.install(state_after(&history, history.len())));
        }
        let truth = known(state_after(&history, history.len()));
        let joined: Vec<&str> = view.joined().collect();
        prop_assert_eq!(&joined, &truth.joined().collect::<Vec<_>>());
        prop_assert_eq!(joined, inside.iter().map(String::as_str).collect::<Vec<_>>());
    }
}
