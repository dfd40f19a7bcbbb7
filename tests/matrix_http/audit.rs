//! The audit stream: who was let in, refused and removed, by which rule, and what operators did; without a name in it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use signalling::matrix::identity::room_name;
use weir::control::audit::Pseudonyms;

use super::*;

const STRANGER: &str = "@stranger:hs.test";

fn scratch() -> PathBuf {
    let path = std::env::temp_dir().join(format!("weir-audit-http-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// All records of a folder, in order.
fn records(folder: &Path) -> Vec<Value> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|it| it == "jsonl")).collect();
    files.sort();
    let text: String = files.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    for name in ["alice", "bob", "stranger", "hs.test", "!room", "DEV"] {
        assert!(!text.contains(name), "{name} is in\n{text}");
    }
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admissions_refusals_and_ejections_are_on_record_without_names() {
    let folder = scratch();
    let key = folder.join("key").to_string_lossy().into_owned();
    let node = Node::with(|config| {
        watched(config);
        config.audit.to = folder.to_string_lossy().into_owned();
        config.audit.key_file.clone_from(&key);
    })
    .await;
    node.sfu_get(STRANGER).await;
    let unproven = json!({ "room": ROOM, "device_id": "DEV", "openid_token": {
        "access_token": "nobody's", "token_type": "Bearer", "matrix_server_name": NAME, "expires_in": 3600 } });
    assert_eq!(node.post("/sfu/get", &unproven).await.0, 401);
    let token = node.token(BOB).await;
    let mut bob = node.join(&token).await;
    let kick = node.home.set(ROOM, "m.room.member", BOB, ALICE, &json!({ "membership": "leave" }));
    node.home.push(node.weir, &[kick]).await;
    bob.until_leave().await;
    let url = format!("ws://{}/rtc?access_token={token}&protocol=16", node.weir);
    assert!(tokio_tungstenite::connect_async(url).await.is_err(), "his token is void");
    let url = format!("ws://{}/rtc?access_token=nonsense&protocol=16", node.weir);
    assert!(tokio_tungstenite::connect_async(url).await.is_err());
    node.why(BOB).await;
    let page = node.metrics().await;
    assert!(page.contains("weir_audit_records_total{result=\"failed\"} 0"), "{page}");
    // The end of weir waits until all is written.
    drop(node.server);

    let pseudonyms = Pseudonyms::load(Path::new(&key)).unwrap();
    let room = pseudonyms.room(&room_name(ROOM, "m.call#ROOM"));
    let (bob, stranger) = (pseudonyms.person(BOB), pseudonyms.person(STRANGER));
    let records = records(&folder);
    let text = |record: &Value, field: &str| record[field].as_str().unwrap_or("").to_owned();
    let short: Vec<_> =
        records.iter().map(|record| ["event", "at", "rule", "who", "room"].map(|field| text(record, field))).collect();
    let expected = [
        ["refusal", "token", "not_in_room", stranger.as_str(), &room],
        ["refusal", "token", "openid", "", &room],
        ["admission", "token", "room_state", &bob, &room],
        ["admission", "join", "room_state", &bob, &room],
        // Without media he was not in the call yet.
        ["ejection", "token", "not_in_room", &bob, &room],
        // Whose it was is not known any more: its identity is.
        ["refusal", "join", "revoked", &pseudonyms.person("@bob:hs.test:DEV"), &room],
        ["refusal", "join", "token", "", ""],
        ["admin", "admin", "why", &bob, ""],
    ];
    assert_eq!(short, expected.map(|fields| fields.map(str::to_owned)));
    assert!(records.iter().all(|record| !text(record, "why").is_empty() && text(record, "time").ends_with('Z')));
    std::fs::remove_dir_all(&folder).unwrap();
}
