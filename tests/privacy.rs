//! Personal data is where docs/privacy.md says, and nowhere else: calls with marked data go through a real weir, then its
//! log, its pages and every file it wrote are searched for the marks, and what is found is held against the page.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests may fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test of a real process in real time")]
#![allow(clippy::disallowed_types, unreachable_pub, reason = "the homeserver is shared between tasks")]

#[path = "matrix_http/homeserver.rs"]
mod homeserver;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use homeserver::{AS_TOKEN, HS_TOKEN, Homeserver, NAME};
use serde_json::{Value, json};
use signalling::matrix::identity::room_name;
use weir_loadtest::{Client, Event, Options};

const KEY: &str = "key";
const SECRET: &str = "marked-secret-0123456789abcdef-0123456789";
const ROOM: &str = "!markedmatrixroom:hs.test";
const SLOT: &str = "m.call#ROOM";
const USER: &str = "@marked.user:hs.test";
const OTHER: &str = "@marked.user.two:hs.test";
const DEVICE: &str = "MARKEDDEVICE";
const MEMBER: &str = "markedmember";
const DELAY: &str = "markeddelay";
const PLAIN_ROOM: &str = "markedplainroom";
const IDENTITY: &str = "markedidentity";
const ADDRESS: &str = "127.77.66.55";
const PATIENCE: Duration = Duration::from_secs(20);

/// A weir of its own, with a folder of its own.
struct Node {
    child: Child,
    folder: PathBuf,
    http: SocketAddr,
    admin: SocketAddr,
    client: reqwest::Client,
}

impl Node {
    fn start(home: &Homeserver) -> Self {
        // Somebody else may take the port of the admin listener in the moment between.
        (0..5).find_map(|_| Self::try_start(home)).expect("a weir that starts")
    }

    fn try_start(home: &Homeserver) -> Option<Self> {
        let folder = std::env::temp_dir().join(format!("weir-privacy-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let text = format!(
            "port: 0\nbind_addresses: [127.0.0.1]\nkeys: {{{KEY}: {SECRET}}}\nadmin: {{port: {}}}\n\
             rtc: {{udp_port: 0, tcp_port: 0, node_ip: 127.0.0.1, enable_loopback_candidate: true}}\n\
             audit: {{to: audit}}\n\
             matrix:\n  url: 'wss://sfu.test'\n  homeservers:\n    - {{server_name: {NAME}, client_api_url: '{}', \
             as_token: {AS_TOKEN}, hs_token: {HS_TOKEN}}}\n",
            admin.port(),
            home.url(),
        );
        std::fs::write(folder.join("weir.yaml"), text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
            .env_clear()
            .args(["serve", "--config", folder.join("weir.yaml").to_str().unwrap()])
            .current_dir(&folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut banner = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let http = banner.find_map(|line| line.trim().strip_prefix("http ").map(str::to_owned));
        let Some(http) = http else {
            child.wait().unwrap();
            return None;
        };
        let client = reqwest::Client::builder().no_proxy().local_address(Some(ADDRESS.parse().unwrap())).build();
        Some(Self { child, folder, http: http.trim().parse().unwrap(), admin, client: client.unwrap() })
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        let sent = self.client.post(format!("http://{}{path}", self.http)).json(body).send().await.unwrap();
        assert_eq!(sent.status(), 200);
        sent.json().await.unwrap()
    }

    async fn page(&self, path: &str) -> String {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.get(format!("http://{}{path}", self.admin)).send().await.unwrap().text().await.unwrap()
    }

    /// Joins with media.
    async fn join(&self, token: &str) -> Client {
        let url = format!("ws://{}", self.http);
        let mut client = Client::connect(&url, token, Options::default()).await.unwrap();
        client.wait(PATIENCE, |event| matches!(event, Event::Connected).then_some(())).await.unwrap();
        client
    }

    /// Joins from the marked address, without media.
    async fn knock(&self, token: &str) -> impl Sized + use<> {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(format!("{ADDRESS}:0").parse().unwrap()).unwrap();
        let stream = socket.connect(self.http).await.unwrap();
        let url = format!("ws://{}/rtc?access_token={token}&protocol=16", self.http);
        tokio_tungstenite::client_async(url, stream).await.unwrap()
    }

    /// Ends it in order; gives all it logged.
    fn end(&mut self) -> String {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        self.child.wait().unwrap();
        log
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn openid(user: &str) -> Value {
    json!({ "access_token": format!("openid:{user}"), "token_type": "Bearer", "matrix_server_name": NAME, "expires_in": 3600 })
}

/// A token as a token service makes it, with everything people see in it.
fn plain_token() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = signalling::token::Claims {
        iss: KEY.to_owned(),
        sub: IDENTITY.to_owned(),
        name: "Marked Name".to_owned(),
        metadata: "markedmetadata".to_owned(),
        attributes: BTreeMap::from([("k".to_owned(), "markedattribute".to_owned())]),
        exp: i64::try_from(now + 3600).unwrap(),
        video: Some(signalling::token::VideoGrant {
            room_join: true,
            room: PLAIN_ROOM.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    signalling::token::mint(&claims, SECRET).unwrap()
}

fn subject(jwt: &str) -> String {
    let payload = base64::engine::general_purpose::STANDARD_NO_PAD.decode(jwt.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice::<Value>(&payload).unwrap()["sub"].as_str().unwrap().to_owned()
}

/// Nobody can do anything with a token without its end.
fn end_of(jwt: &str) -> String {
    jwt.rsplit('.').next().unwrap().to_owned()
}

/// All files below a folder but the configuration, which is the operator's own.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.file_name().is_some_and(|name| name != "weir.yaml"))
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

fn place_of(file: &Path) -> String {
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    match name.as_str() {
        "weir-state.db" | "weir-state.db-wal" | "weir-state.db-shm" => "state file".to_owned(),
        _ if name.starts_with("audit-") => "audit stream".to_owned(),
        _ => name,
    }
}

/// Datum and place of each row of the page's first table.
fn documented() -> BTreeSet<(String, String)> {
    let page = include_str!("../docs/privacy.md");
    let table = page.split("## What is where").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 6, "{row}");
        assert!(cells[1..5].iter().all(|cell| !cell.is_empty()), "{row}");
        (cells[1].to_owned(), cells[2].to_owned())
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn personal_data_is_where_the_page_says_and_nowhere_else() {
    let home = Homeserver::start().await;
    home.member(ROOM, USER, "join");
    home.member(ROOM, OTHER, "join");
    let mut node = Node::start(&home);

    // A call of a Matrix room: one comes as older clients do, with a leave to be sent, one as newer clients do; one more
    // from an address that can be told.
    let old = json!({ "room": ROOM, "openid_token": openid(USER), "device_id": DEVICE, "delay_id": DELAY,
        "delay_timeout": 3_600_000 });
    let old = node.post("/sfu/get", &old).await["jwt"].as_str().unwrap().to_owned();
    let new = json!({ "room_id": ROOM, "slot_id": SLOT, "openid_token": openid(OTHER),
        "member": { "id": MEMBER, "claimed_user_id": OTHER, "claimed_device_id": DEVICE } });
    let new = node.post("/get_token", &new).await["jwt"].as_str().unwrap().to_owned();
    let user = node.join(&old).await;
    let other = node.knock(&new).await;
    // A room without Matrix, with all that tokens and participants may say.
    let plain = plain_token();
    let named = node.join(&plain).await;
    named.until(PATIENCE, |seen| seen.channels_open.then_some(())).await.unwrap();
    named.send_data(true, b"markedmessage", &[]).await.unwrap();
    // Refusals are logged too.
    let bad = format!("http://{}/rtc/validate?access_token={plain}x", node.http);
    assert_eq!(node.client.get(bad).send().await.unwrap().status(), 401);

    let mut found: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut note = |place: &str, bytes: &[u8]| found.entry(place.to_owned()).or_default().extend_from_slice(bytes);
    for page in ["/", "/status.json", "/debug/rooms", "/readyz"] {
        note("admin listener", node.page(page).await.as_bytes());
    }
    for number in 1..=2 {
        note("admin listener", node.page(&format!("/rooms/{number}")).await.as_bytes());
        note("admin listener", node.page(&format!("/rooms/{number}/status.json")).await.as_bytes());
    }
    note("metrics", node.page("/metrics").await.as_bytes());
    note("answer of `weir why`", node.page(&format!("/debug/why?user={USER}")).await.as_bytes());
    // What is handed to whoever helps is below the same folder: nothing may be in it.
    std::fs::write(node.folder.join("lines"), format!("{USER} at {ADDRESS} with {old} in {ROOM}\n")).unwrap();
    let bundle = Command::new(env!("CARGO_BIN_EXE_weir"))
        .env_clear()
        .current_dir(&node.folder)
        .args(["support-bundle", "--config", "weir.yaml", "--no-doctor", "--log", "lines"])
        .output()
        .unwrap();
    assert!(bundle.status.success(), "{}", String::from_utf8_lossy(&bundle.stderr));
    std::fs::remove_file(node.folder.join("lines")).unwrap();
    let status = std::fs::read_to_string(node.folder.join("weir-support-bundle/status.json")).unwrap();
    assert!(status.contains("participants"), "{status}");

    // Somebody is removed, which is kept.
    let kick = home.set(ROOM, "m.room.member", OTHER, USER, &json!({ "membership": "leave" }));
    home.push(node.http, &[kick]).await;
    let sid = user.join.participant.as_ref().unwrap().sid.clone();
    note("state file", &std::fs::read(node.folder.join("weir-state.db-wal")).unwrap_or_default());
    drop((user, other, named));
    let log = node.end();
    assert!(log.contains("participant joined"), "{log}");
    note("log", log.as_bytes());
    for file in files(&node.folder) {
        note(&place_of(&file), &std::fs::read(&file).unwrap());
    }

    let call = room_name(ROOM, SLOT);
    let (hashed, open, sealed, openid) = (subject(&new), end_of(&old), end_of(&new), format!("openid:{USER}"));
    let plain = end_of(&plain);
    let marks: [(&str, &[&str]); 15] = [
        ("Matrix user id", &[USER, OTHER, "marked.user"]),
        ("Matrix device id", &[DEVICE]),
        ("Matrix member id", &[MEMBER]),
        ("Matrix room id", &[ROOM]),
        ("name of a call (a hash of the room id)", &[&call]),
        ("participant identity in a Matrix call", &[&hashed, "@marked.user:hs.test:MARKEDDEVICE"]),
        ("id of a delayed leave", &[DELAY]),
        ("participant identity without Matrix", &[IDENTITY]),
        ("name of a room without Matrix", &[PLAIN_ROOM]),
        ("display name", &["Marked Name"]),
        ("metadata and attributes", &["markedmetadata", "markedattribute"]),
        ("data message", &["markedmessage"]),
        ("participant sid", &[&sid]),
        ("access token", &[&open, &sealed, &plain]),
        ("OpenID token", &[&openid]),
    ];
    let secrets = [SECRET, AS_TOKEN, HS_TOKEN];
    let seen: BTreeSet<(String, String)> = marks
        .iter()
        .copied()
        .chain([("IP address of signalling", &[ADDRESS][..]), ("secret", &secrets[..])])
        .flat_map(|(datum, marks)| {
            let holds =
                |bytes: &[u8]| marks.iter().any(|mark| bytes.windows(mark.len()).any(|it| it == mark.as_bytes()));
            let places = found.iter().filter(|(_, bytes)| holds(bytes)).map(|(place, _)| place.clone());
            places.map(|place| (datum.to_owned(), place)).collect::<Vec<_>>()
        })
        .collect();

    // What cannot be marked: it is in the page with the places it can be in.
    let unmarked =
        ["client software", "pseudonym of a person and a room", "IP address of media", "room state of the homeserver"];
    let mut expected = documented();
    expected.retain(|(datum, place)| place != "memory" && !unmarked.contains(&datum.as_str()));
    assert_eq!(seen, expected, "left: where personal data was found; right: where docs/privacy.md says it is");
    assert!(String::from_utf8_lossy(&found["audit stream"]).contains("person-"), "the audit stream was on");
}
