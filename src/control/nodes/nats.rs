//! The directory in NATS. Nodes are heard by ordinary messages, rooms and placements are key-value buckets of JetStream,
//! which give who comes late what was said before, and the first of two claims its right.
//!
//! | what | subject | only writer |
//! |---|---|---|
//! | a node, each second | `weir.node.NODE` | that node |
//! | a room of a node | `$KV.weir_rooms.room.ROOM.NODE`, kept 2 h | that node |
//! | where a room is to be | `$KV.weir_place.place.ROOM`, kept 10 s | whoever was first |
//!
//! Nothing in it is durable: whatever the servers lose is said again. So every error, a missing bucket too, is the same
//! as silence.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, HeaderMap, Message, Request, ServerAddr};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::directory::{Claim, Fact, LIMIT};
use super::view::{NodeRow, PLACED, PlaceRow, RoomKey, RoomRow};
use crate::config::NodesConfig;

/// What nodes are heard by.
const NODES: &str = "weir.node";
/// Rooms, as `room.ROOM.NODE`.
const ROOMS: &str = "$KV.weir_rooms";
/// Placements, as `place.ROOM`.
const PLACES: &str = "$KV.weir_place";
/// How long a row of a room is kept that is not said again.
const ROOMS_AGE: Duration = Duration::from_secs(2 * 3_600);
/// How long until servers that do not answer are tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Bytes of a row.
const MAX_ROW: usize = 4_096;
/// Error code of JetStream: somebody wrote in between.
const WRONG_SEQUENCE: u64 = 10_071;
/// Error code of JetStream: there is a bucket of this name with other settings, which the operator chose.
const NAME_IN_USE: u64 = 10_058;

/// A connection to the servers, now or soon.
#[derive(Clone, Debug)]
pub(super) struct Nats {
    client: Arc<OnceLock<Client>>,
    /// Copies the servers keep of a row.
    copies: u32,
    facts: mpsc::Sender<Fact>,
}

impl Nats {
    /// Connects beside; what is asked before that is not answered. `facts` gets what others say.
    ///
    /// # Errors
    /// In words, when an address is none.
    pub(super) fn start(config: &NodesConfig, node: &str, facts: mpsc::Sender<Fact>) -> Result<Self, String> {
        let parse = |url: &String| url.parse::<ServerAddr>();
        let servers: Result<Vec<ServerAddr>, _> = config.directory.iter().map(parse).collect();
        let servers = servers.map_err(|_| "`nodes.directory`: there is an entry that is no URL of a NATS server")?;
        let copies = if servers.len() >= 3 { 3 } else { 1 };
        let nats = Self { client: Arc::default(), copies, facts };
        let mut options = ConnectOptions::new()
            .name(format!("weir {node}"))
            .retry_on_initial_connect()
            .connection_timeout(RETRY)
            .ping_interval(5 * RETRY)
            .request_timeout(Some(LIMIT))
            .reconnect_delay_callback(|attempt| if attempt < 2 { LIMIT } else { RETRY });
        if !config.directory_ca_file.is_empty() {
            options = options.add_root_certificates(config.directory_ca_file.clone().into());
        }
        // The library does not take them from URLs it tries again.
        if let Some((user, password)) = config.directory_user() {
            options = options.user_and_password(user, password);
        }
        tokio::spawn(nats.clone().connect(options, servers));
        Ok(nats)
    }

    async fn connect(self, options: ConnectOptions, servers: Vec<ServerAddr>) {
        // Servers that do not answer are tried again without end: an error is the file's fault.
        match options.connect(&servers).await {
            Ok(client) => self.listen(client).await,
            Err(error) => tracing::error!(%error, "the directory of nodes cannot be used; this node stays alone"),
        }
    }

    /// Reads until nobody wants to know any more.
    async fn listen(self, client: Client) {
        let nodes = client.subscribe(format!("{NODES}.*")).await;
        let rooms = client.subscribe(format!("{ROOMS}.>")).await;
        let (Ok(mut nodes), Ok(mut rooms)) = (nodes, rooms) else {
            tracing::error!("the directory of nodes takes no subscriptions; this node stays alone");
            return;
        };
        let _ = self.client.set(client);
        loop {
            let fact = tokio::select! {
                Some(message) = nodes.next() => node_of(&message),
                Some(message) = rooms.next() => room_of(&message),
                () = self.facts.closed() => return,
                else => return,
            };
            if let Some(fact) = fact {
                // Full: it is said again.
                let _ = self.facts.try_send(fact);
            }
        }
    }

    /// This node about itself.
    pub(super) async fn announce(&self, row: &NodeRow) -> Option<()> {
        let subject = format!("{NODES}.{}", row.node);
        self.client.get()?.publish(subject, serde_json::to_vec(row).ok()?.into()).await.ok()
    }

    /// A room of this node.
    pub(super) async fn set_room(&self, key: &RoomKey, node: &str, row: &RoomRow) -> Option<()> {
        let mut headers = HeaderMap::new();
        if row.ended {
            // For those who look at the bucket with other tools: it is deleted.
            headers.insert("KV-Operation", "DEL");
        }
        let subject = format!("{ROOMS}.room.{}.{node}", key.0);
        self.client.get()?.publish_with_headers(subject, headers, serde_json::to_vec(row).ok()?.into()).await.ok()
    }

    /// Place a room.
    pub(super) async fn claim(&self, key: &RoomKey, place: &PlaceRow, instead_of: Option<u64>) -> Option<Claim> {
        let client = self.client.get()?;
        let subject = format!("{PLACES}.place.{}", key.0);
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Last-Subject-Sequence", instead_of.unwrap_or(0).to_string().as_str());
        let request = Request::new().payload(serde_json::to_vec(place).ok()?.into()).headers(headers);
        let answer = json_of(&client.send_request(subject.clone(), request).await.ok()?)?;
        match error_code(&answer) {
            None => return answer.get("seq").and_then(Value::as_u64).map(|_| Claim::Mine),
            Some(WRONG_SEQUENCE) => {}
            Some(_) => return None,
        }
        let question = json!({ "last_by_subj": subject });
        let answer = self.ask("STREAM.MSG.GET.KV_weir_place", &question).await?;
        let message = answer.get("message")?;
        let data = STANDARD.decode(message.get("data")?.as_str()?).ok()?;
        let there: PlaceRow = serde_json::from_slice(&data).ok()?;
        let revision = message.get("seq")?.as_u64()?;
        Some(if there == *place { Claim::Mine } else { Claim::Theirs { place: there, revision } })
    }

    /// Make the buckets where there are none, and have all rows of rooms said again.
    pub(super) async fn recall(&self) -> bool {
        self.recalled().await.is_some()
    }

    async fn recalled(&self) -> Option<()> {
        self.bucket("weir_place", PLACED).await?;
        self.bucket("weir_rooms", ROOMS_AGE).await?;
        let client = self.client.get()?;
        let inbox = client.new_inbox();
        let mut rows = client.subscribe(inbox.clone()).await.ok()?;
        let question = json!({
            "stream_name": "KV_weir_rooms",
            "config": {
                "deliver_subject": inbox, "deliver_policy": "last_per_subject", "ack_policy": "none",
                "replay_policy": "instant", "mem_storage": true,
            },
        });
        let answer = self.ask("CONSUMER.CREATE.KV_weir_rooms", &question).await?;
        if error_code(&answer).is_some() {
            return None;
        }
        let mut pending = answer.get("num_pending").and_then(Value::as_u64).unwrap_or(0);
        while pending > 0 {
            let message = timeout(5 * LIMIT, rows.next()).await.ok()??;
            pending = message.reply.as_ref().and_then(|reply| reply.rsplit('.').next()?.parse().ok()).unwrap_or(0);
            if let Some(fact) = room_of(&message) {
                self.facts.send(fact).await.ok()?;
            }
        }
        Some(())
    }

    async fn bucket(&self, name: &str, age: Duration) -> Option<()> {
        let age = u64::try_from(age.as_nanos()).ok()?;
        let question = json!({
            "name": format!("KV_{name}"), "subjects": [format!("$KV.{name}.>")], "retention": "limits",
            "max_msgs_per_subject": 1, "max_age": age, "duplicate_window": age.min(120_000_000_000), "storage": "file",
            "max_msg_size": MAX_ROW, "discard": "new", "num_replicas": self.copies, "deny_delete": true,
            "allow_rollup_hdrs": true, "allow_direct": true, "max_msgs": -1, "max_bytes": -1, "max_consumers": -1,
        });
        let answer = self.ask(&format!("STREAM.CREATE.KV_{name}"), &question).await?;
        match error_code(&answer) {
            None | Some(NAME_IN_USE) => Some(()),
            Some(code) => {
                tracing::warn!(code, name, "the directory of nodes lets no bucket be made: does it have JetStream?");
                None
            }
        }
    }

    async fn ask(&self, what: &str, question: &Value) -> Option<Value> {
        let payload = question.to_string().into_bytes().into();
        // Making a bucket writes a file.
        let request = Request::new().payload(payload).timeout(Some(5 * LIMIT));
        json_of(&self.client.get()?.send_request(format!("$JS.API.{what}"), request).await.ok()?)
    }
}

fn json_of(message: &Message) -> Option<Value> {
    serde_json::from_slice(&message.payload).ok()
}

/// The error of an answer of JetStream; one without a code counts as some.
fn error_code(answer: &Value) -> Option<u64> {
    answer.get("error").map(|error| error.get("err_code").and_then(Value::as_u64).unwrap_or(0))
}

fn node_of(message: &Message) -> Option<Fact> {
    let row: NodeRow = row_of(message)?;
    // A node speaks of itself only.
    (message.subject.rsplit('.').next() == Some(row.node.as_str())).then_some(Fact::Node(row))
}

fn room_of(message: &Message) -> Option<Fact> {
    let (room, node) = message.subject.strip_prefix(ROOMS)?.strip_prefix(".room.")?.split_once('.')?;
    Some(Fact::Room { key: RoomKey(room.to_owned()), node: node.to_owned(), row: row_of(message)? })
}

fn row_of<T: serde::de::DeserializeOwned>(message: &Message) -> Option<T> {
    if message.payload.len() > MAX_ROW {
        return None;
    }
    serde_json::from_slice(&message.payload).ok()
}
