//! Joins at bad moments: events that are late, a homeserver that has just come back, one that cannot reach weir, lists
//! that were not read yet.

use super::*;

const CAROL: &str = "@carol:hs.test";

fn reads(node: &Node) -> usize {
    node.home.asked().iter().filter(|asked| asked.contains("/state?")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takes_who_has_just_joined_although_nothing_was_pushed_yet() {
    let node = Node::start().await;
    node.token(ALICE).await;
    assert_eq!(node.sfu_get(CAROL).await.0, 403);
    node.home.member(ROOM, CAROL, "join");
    node.token(CAROL).await;
    // However many are refused: the homeserver is asked about the room now and then.
    let before = reads(&node);
    let strangers: Vec<String> = (0..12).map(|number| format!("@stranger{number}:hs.test")).collect();
    let refused = futures_util::future::join_all(strangers.iter().map(|user| node.sfu_get(user))).await;
    assert!(refused.iter().all(|(status, _)| *status == 403), "{refused:?}");
    let cost = reads(&node) - before;
    assert!(cost <= 4, "{cost} reads for a dozen strangers at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_homeserver_that_is_back_is_found_so_by_the_first_who_asks() {
    let node = Node::start().await;
    node.token(BOB).await;
    node.home.set_down(true);
    // A push that cannot be put in order makes weir read the room, and notice.
    let event = node.home.set(ROOM, "m.room.member", "@x:hs.test", ALICE, &json!({ "membership": "join" }));
    let mut odd = event.clone();
    (odd["event_id"], odd["origin_server_ts"]) = (json!("$odd"), json!(1));
    node.home.push(node.weir, &[event, odd]).await;
    // Proven shortly before, so only the room has to be asked about.
    assert_eq!(node.sfu_get(BOB).await.0, 503);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    node.home.set_down(false);
    let (status, body) = node.sfu_get(BOB).await;
    assert_eq!(status, 200, "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_rooms_often_where_the_homeserver_cannot_reach_weir() {
    let home = Homeserver::start().await;
    home.set_unreachable(true);
    let node = Node::of(home, watched).await;
    let token = node.token(BOB).await;
    let metric = "weir_matrix_homeserver_pushes{homeserver=\"hs.test\"} 0";
    let started = Instant::now();
    while !node.metrics().await.contains(metric) {
        assert!(started.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(node.validate(&token).await, 200, "it answers, so joins are let in");
    node.home.set(ROOM, "m.room.member", BOB, ALICE, &json!({ "membership": "leave" }));
    let started = Instant::now();
    while node.sfu_get(BOB).await.0 != 403 {
        assert!(started.elapsed() < Duration::from_secs(10), "nothing is pushed, and it has to be known all the same");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_let_in_before_the_moderation_lists_were_read() {
    let list = "!list:hs.test";
    let home = Homeserver::start().await;
    home.member(list, ALICE, "join");
    for (kind, entity) in [("user", "@bob:*"), ("server", "*.evil.test"), ("room", "!bad*")] {
        let rule = json!({ "entity": entity, "recommendation": "m.ban" });
        home.set(list, &format!("m.policy.rule.{kind}"), kind, ALICE, &rule);
    }
    home.set_down(true);
    let node = Node::of(home, |config| {
        watched(config);
        config.matrix.homeserver_grace = Span(Duration::from_secs(10));
        config.matrix.homeservers[0].policy_rooms =
            vec![PolicyRoomConfig { room: list.to_owned(), as_user: ALICE.to_owned() }];
    })
    .await;
    let home = node.home.clone();
    let recovers = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        home.set_down(false);
    };
    let ((bob, _), (alice, body), ()) = tokio::join!(node.sfu_get(BOB), node.sfu_get(ALICE), recovers);
    assert_eq!((bob, alice), (403, 200), "{body}");
    let mut bad = sfu_get(ALICE);
    bad["room"] = json!("!bad:hs.test");
    node.home.member("!bad:hs.test", ALICE, "join");
    assert_eq!(node.post("/sfu/get", &bad).await.0, 403);
    assert!(node.metrics().await.contains("weir_matrix_policy_rules{homeserver=\"hs.test\"} 3"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_gets_listed_during_a_call_is_out_at_once() {
    let list = "!list:hs.test";
    let node = Node::with(|config| {
        config.matrix.homeservers[0].policy_rooms =
            vec![PolicyRoomConfig { room: list.to_owned(), as_user: ALICE.to_owned() }];
    })
    .await;
    node.home.member(list, ALICE, "join");
    let token = node.token(BOB).await;
    let mut bob = node.join(&token).await;
    let rule = json!({ "entity": "@bob:hs.test", "recommendation": "m.ban" });
    let event = node.home.set(list, "m.policy.rule.user", "bob", ALICE, &rule);
    let started = Instant::now();
    node.home.push(node.weir, &[event]).await;
    let (leave, _) = bob.until_leave().await;
    assert!(started.elapsed() < Duration::from_secs(1), "took {:?}", started.elapsed());
    assert_eq!(leave.reason(), proto::DisconnectReason::ParticipantRemoved);
    assert_eq!(node.validate(&token).await, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moderators_take_and_give_the_right_to_publish_during_a_call() {
    let node = Node::start().await;
    let mut bob = node.join(&node.token(BOB).await).await;
    let steps = [
        (json!({ "org.weir.call.publish": 50 }), (false, 0)),
        (json!({ "org.weir.call.publish": 50, "org.weir.call.publish.microphone": 0 }), (true, 1)),
        (json!({}), (true, 0)),
    ];
    for (events, expected) in steps {
        let event = node.home.set(ROOM, "m.room.power_levels", "", ALICE, &levels(&events));
        let started = Instant::now();
        node.home.push(node.weir, &[event]).await;
        let permission = bob.until_permission(expected).await;
        assert!(started.elapsed() < Duration::from_secs(1), "took {:?}", started.elapsed());
        assert!(permission.can_subscribe, "listening is not taken");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_slot_or_an_upgrade_stops_new_joins_and_lets_the_call_finish() {
    for (kind, key, content) in [
        ("m.rtc.slot", "m.call#ROOM", json!({ "status": "closed" })),
        ("m.room.tombstone", "", json!({ "body": "moved", "replacement_room": "!new:hs.test" })),
    ] {
        let node = Node::start().await;
        let mut bob = node.join(&node.token(BOB).await).await;
        let event = node.home.set(ROOM, kind, key, ALICE, &content);
        node.home.push(node.weir, &[event]).await;
        assert_eq!(node.sfu_get(ALICE).await.0, 403, "{kind}");
        let quiet = tokio::time::timeout(Duration::from_millis(300), bob.until_leave()).await;
        assert!(quiet.is_err(), "{kind}: whoever is inside stays");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ejection_takes_effect_on_every_weir_of_the_homeserver() {
    let first = Node::start().await;
    let second = Node::of(first.home.clone(), |config| {
        config.matrix.homeservers[0].hs_token = Secret::new("hs-token-of-the-second-weir");
    })
    .await;
    let mut there = Vec::new();
    for node in [&first, &second] {
        there.push(node.join(&node.token(BOB).await).await);
    }
    let kick = first.home.set(ROOM, "m.room.member", BOB, ALICE, &json!({ "membership": "leave" }));
    first.home.push(first.weir, std::slice::from_ref(&kick)).await;
    assert_eq!(second.home.push_as(second.weir, "hs-token-of-the-second-weir", "1", &[kick]).await, 200);
    for client in &mut there {
        client.until_leave().await;
    }
    // Each keeps to its own token.
    assert_eq!(second.home.push_as(second.weir, HS_TOKEN, "2", &[]).await, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tells_its_operator_why() {
    let node = Node::with(watched).await;
    node.sfu_get("@stranger:hs.test").await;
    let token = node.token(BOB).await;
    let mut bob = node.join(&token).await;
    let kick = node.home.set(ROOM, "m.room.member", BOB, ALICE, &json!({ "membership": "leave" }));
    node.home.push(node.weir, &[kick]).await;
    bob.until_leave().await;
    node.validate(&token).await;
    let told = node.why(BOB).await;
    assert!(told.contains("got a token and may publish sound, video, a screen"), "{told}");
    assert!(told.contains("was removed, with all tokens: is not in the Matrix room"), "{told}");
    assert!(node.why("@stranger:hs.test").await.contains("got no token: is not in the Matrix room"));
    assert!(!node.why(ALICE).await.contains("token"), "of nobody else");
    let page = node.metrics().await;
    for line in [
        "weir_matrix_token_requests_total{result=\"forbidden\"} 1",
        "weir_matrix_token_requests_total{result=\"ok\"} 1",
        "weir_matrix_delayed_leaves 0",
        "weir_matrix_homeserver_up{homeserver=\"hs.test\"} 1",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_user_is_found_in_the_room_of_one_of_many_homeservers_at_once() {
    let far = Homeserver::named("127.0.0.1:1", "as-token-of-nobody-at-all", "hs-token-of-nobody-at-all").await;
    let home = Homeserver::start().await;
    home.member(ROOM, "@rita:127.0.0.1:1", "join");
    let node = Node::of(home, |config| {
        let real = config.matrix.homeservers.remove(0);
        for number in 0..12 {
            config.matrix.homeservers.push(HomeserverConfig {
                server_name: format!("h{number}.test"),
                client_api_url: far.url(),
                as_token: Secret::new("as-token-of-nobody-at-all"),
                hs_token: Secret::new(format!("hs-token-of-nobody-at-all-{number}")),
                ..HomeserverConfig::default()
            });
        }
        config.matrix.homeservers.push(real);
    })
    .await;
    // As it is forwarded, so that nobody has to be found over federation to prove who she is.
    let url = format!("http://{}/_matrix/federation/unstable/io.element.msc4195/rtc/livekit/get_token", node.weir);
    let body = json!({
        "user_id": "@rita:127.0.0.1:1", "url": "wss://sfu.test", "room_id": ROOM, "slot_id": "m.call#ROOM",
        "member_id": "mem",
    });
    for _ in 0..3 {
        let request = node.http.post(&url).bearer_auth(HS_TOKEN).header("X-Matrix-Origin", "127.0.0.1:1").json(&body);
        let reply = request.send().await.unwrap();
        assert_eq!(reply.status(), 200, "{}", reply.text().await.unwrap());
    }
}
