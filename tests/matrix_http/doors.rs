//! Who else might come in: by other keys, in great numbers, from other homeservers.

use signalling::token::{self, Claims, VideoGrant};

use super::*;

/// A token as the holder of an API key signs it.
fn signed(room: &str, sub: &str) -> String {
    let keys = Config::dev().keys;
    let (key, secret) = keys.first().unwrap();
    let video =
        VideoGrant { room_join: true, room_create: true, hidden: true, room: room.to_owned(), ..VideoGrant::default() };
    let claims =
        Claims { iss: key.to_owned(), sub: sub.to_owned(), exp: i64::MAX, video: Some(video), ..Claims::default() };
    token::mint(&claims, secret.expose()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_api_key_opens_the_call_of_a_room() {
    let node = Node::start().await;
    let mut alice = node.join(&node.token(ALICE).await).await;
    let call = claims(&node.token(BOB).await)["video"]["room"].as_str().unwrap().to_owned();
    // As a stranger, and as somebody room state has let in.
    for identity in ["spy", "@bob:hs.test:DEV", "@alice:hs.test:DEV"] {
        assert_eq!(node.validate(&signed(&call, identity)).await, 401, "{identity}");
    }
    assert_eq!(node.validate(&signed("another room", "spy")).await, 200, "its own rooms are another matter");
    let quiet = tokio::time::timeout(Duration::from_millis(300), alice.until_leave()).await;
    assert!(quiet.is_err(), "nobody took her place");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_may_ask_for_so_many_tokens_and_no_more() {
    let node = Node::with(|config| config.limit.token_rate_per_address = 1).await;
    let mut refused = None;
    for _ in 0..30 {
        let (status, body) = node.sfu_get(ALICE).await;
        if status != 200 {
            refused = Some((status, body["errcode"].clone()));
            break;
        }
    }
    assert_eq!(refused, Some((429, json!("M_LIMIT_EXCEEDED"))));
    // Whoever is inside already is not asked for a token, and homeservers are not counted.
    let event = node.home.member(ROOM, "@carol:hs.test", "join");
    node.home.push(node.weir, &[event]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moment_of_a_homeserver_s_weakness_costs_nobody_the_join() {
    let node = Node::with(|config| config.matrix.homeserver_grace = Span(Duration::from_secs(10))).await;
    node.home.set_down(true);
    let home = node.home.clone();
    let recovers = async {
        tokio::time::sleep(Duration::from_millis(600)).await;
        home.set_down(false);
    };
    let ((status, body), ()) = tokio::join!(node.sfu_get(ALICE), recovers);
    assert_eq!(status, 200, "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn homeservers_of_one_weir_know_nothing_of_each_other() {
    let other = Homeserver::named("other.test", "as-token-of-the-other-one", "hs-token-of-the-other-one").await;
    let node = Node::with(|config| {
        config.matrix.homeservers.push(HomeserverConfig {
            server_name: "other.test".to_owned(),
            client_api_url: other.url(),
            as_token: Secret::new("as-token-of-the-other-one"),
            hs_token: Secret::new("hs-token-of-the-other-one"),
            ..HomeserverConfig::default()
        });
    })
    .await;
    let (dora, theirs) = ("@dora:other.test", "!theirs:other.test");
    other.member(theirs, dora, "join");
    other.set(theirs, "m.room.power_levels", "", dora, &json!({ "users_default": 50 }));
    let ask = |room: &str, user: &str| {
        let mut body = sfu_get(user);
        body["room"] = json!(room);
        body
    };
    assert_eq!(node.post("/sfu/get", &ask(theirs, dora)).await.0, 200);
    assert_eq!(node.post("/sfu/get", &ask(theirs, ALICE)).await.0, 403, "not in it");
    assert_eq!(node.post("/sfu/get", &ask(ROOM, dora)).await.0, 403);
    let mut forged = ask(theirs, dora);
    forged["openid_token"]["matrix_server_name"] = json!(NAME);
    assert_eq!(node.post("/sfu/get", &forged).await.0, 401, "a homeserver speaks for its own users");
    // One homeserver cannot end the calls of the other, whatever it says about its rooms.
    let (_, reply) = node.post("/sfu/get", &ask(theirs, dora)).await;
    let token = reply["jwt"].as_str().unwrap().to_owned();
    let lie = node.home.set(theirs, "m.room.member", dora, ALICE, &json!({ "membership": "ban" }));
    node.home.push(node.weir, &[lie]).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(node.validate(&token).await, 200);
    let ban = other.set(theirs, "m.room.member", dora, dora, &json!({ "membership": "ban" }));
    other.push(node.weir, &[ban]).await;
    let started = Instant::now();
    while node.validate(&token).await != 401 {
        assert!(started.elapsed() < Duration::from_secs(1));
    }
    let about = |asked: Vec<String>, what: &str| {
        asked.iter().any(|line| line.contains(what) && !line.contains("/openid/userinfo"))
    };
    assert!(!about(other.asked(), "%21room") && !about(other.asked(), "alice"), "{:?}", other.asked());
    assert!(!about(node.home.asked(), "dora"), "{:?}", node.home.asked());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asks_the_weir_of_another_server_through_the_homeserver() {
    let node = Node::start().await;
    let url = format!("http://{}/_matrix/client/unstable/io.element.msc4195/rtc/livekit/get_token", node.weir);
    let body = json!({
        "server_name": "far.test", "url": "wss://sfu.far.test", "room_id": ROOM, "slot_id": "m.call#ROOM",
        "member_id": "mem",
    });
    let send = async || {
        let request = node.http.post(&url).bearer_auth(HS_TOKEN).header("X-Matrix-User-Identifier", ALICE).json(&body);
        let reply = request.send().await.unwrap();
        (reply.status().as_u16(), reply.json::<Value>().await.unwrap())
    };
    node.home.elsewhere(200, json!({ "jwt": "a.b.c", "more": "of a stranger" }));
    assert_eq!(send().await, (200, json!({ "url": "wss://sfu.far.test", "jwt": "a.b.c" })));
    let asked = node.home.proxied().remove(0);
    assert_eq!((&asked["destination"], &asked["method"]), (&json!("far.test"), &json!("POST")));
    assert_eq!(asked["path"], "/_matrix/federation/unstable/io.element.msc4195/rtc/livekit/get_token");
    let told = json!({
        "user_id": ALICE, "url": "wss://sfu.far.test", "room_id": ROOM, "slot_id": "m.call#ROOM", "member_id": "mem",
    });
    assert_eq!(asked["body"], told);
    node.home.elsewhere(403, json!({ "errcode": "M_FORBIDDEN", "error": "text of a stranger" }));
    let (status, refused) = send().await;
    assert_eq!(status, 403);
    assert!(!refused.to_string().contains("stranger"), "{refused}");
    node.home.elsewhere(200, json!({}));
    assert_eq!(send().await.0, 502);
}
