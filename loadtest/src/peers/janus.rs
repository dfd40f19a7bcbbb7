//! Janus: the WebSocket interface and the plugin VideoRoom. A participant has a session; who publishes and receives has
//! two handles in it, which are two paths.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Sender;

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::{Peers, local};
use crate::light::engine::Order;
use crate::light::join::{Joined, Ticket, serve};
use crate::light::offer::{self, Local, Section};
use crate::light::peer::{Identity, Peer, Role};
use crate::light::shape::Shape;
use crate::peer::now;
use crate::stats::nanos;

const ROOM: u32 = 1;
/// It does not wait for candidates where one is in the description; checks come from another port anyway.
const CANDIDATE: &str = "a=candidate:1 1 udp 2130706431 192.0.2.1 9 typ host\r\na=end-of-candidates\r\n";

/// A session on a WebSocket.
struct Session {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    id: Value,
    asked: u64,
}

/// Make the room.
pub(super) async fn prepare(peers: &Peers) -> anyhow::Result<()> {
    let mut session = Session::open(&peers.url).await?;
    let handle = session.attach().await?;
    let room = json!({
        "request": "create", "room": ROOM, "publishers": peers.publishers.max(1), "bitrate": 0,
        "audiocodec": "opus", "videocodec": "vp8",
    });
    let made = session.message(&handle, room, None).await?;
    match made.pointer("/plugindata/data/videoroom").and_then(Value::as_str) {
        Some("created") => Ok(()),
        _ => bail!("no room was made: {made}"),
    }
}

pub(super) async fn join(
    peers: &Arc<Peers>,
    ticket: &Ticket,
    identity: &Arc<Identity>,
    engine: &Sender<Order>,
) -> anyhow::Result<Joined> {
    let (number, began) = (ticket.number, nanos());
    let ssrc = 0x1000_0000 + 4 * number;
    let tracks: Vec<(Shape, u32)> = ticket.publishes.iter().copied().zip(ssrc..).collect();
    let (key_frame, left) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let mut session = Session::open(&ticket.url).await?;
    let up = if tracks.is_empty() {
        let peer = session.subscribe(peers, identity, number).await?.context("there is nothing to receive")?;
        serve(peer, ssrc, false, (&key_frame, &left), engine).await?
    } else {
        let local = local(identity, number, 0);
        let sections: Vec<Section> = tracks.iter().map(|(shape, ssrc)| Section::Send(*shape, *ssrc)).collect();
        let offer = offer::write(&local, 1, &sections).replace("a=setup:actpass", "a=setup:active");
        let handle = session.attach().await?;
        let body = json!({ "request": "joinandconfigure", "ptype": "publisher", "room": ROOM, "id": number });
        // Each section needs one, as they are bundled the first counts.
        let offer = offer.replacen("a=rtcp-mux\r\n", &format!("{CANDIDATE}a=rtcp-mux\r\n"), 1);
        let answer = session.message(&handle, body, Some(("offer", offer))).await?;
        let peer = Peer::new(identity, &local, &offer::read(sdp_of(&answer)?)?, now())?.as_full(Role::Controlling);
        let up = serve(peer, ssrc, true, (&key_frame, &left), engine).await?;
        peers.publishes(number);
        up
    };
    let join_ns = nanos() - began;
    let (stop, stopped) = oneshot::channel::<()>();
    let receives = !tracks.is_empty() && !ticket.receives.is_empty();
    let (others, engine, identity) = (Arc::clone(peers), engine.clone(), Arc::clone(identity));
    let (heard, gone) = (Arc::clone(&key_frame), Arc::clone(&left));
    tokio::spawn(async move {
        if receives {
            let subscribed = async {
                let Some(peer) = session.subscribe(&others, &identity, number).await? else { return Ok(()) };
                serve(peer, ssrc + 3, false, (&heard, &gone), &engine).await.map(|_| ())
            };
            let subscribed: anyhow::Result<()> = subscribed.await;
            if let Err(error) = subscribed {
                eprintln!("light participant {number} receives nothing: {error:#}");
            }
        }
        tokio::select! {
            _ = stopped => {}
            // Nobody is answered; what comes is only taken in.
            () = async { while session.socket.next().await.is_some() {} } => {}
        }
    });
    let first_media = up.first_media;
    Ok(Joined { join_ns, began, sealer: up.sealer, tracks, key_frame, quiet: Arc::default(), left, first_media, stop })
}

fn sdp_of(event: &Value) -> anyhow::Result<&str> {
    event.pointer("/jsep/sdp").and_then(Value::as_str).with_context(|| format!("no description came: {event}"))
}

impl Session {
    async fn open(url: &str) -> anyhow::Result<Self> {
        let mut request = url.into_client_request()?;
        request.headers_mut().insert("sec-websocket-protocol", "janus-protocol".parse()?);
        let (socket, _) = tokio_tungstenite::connect_async(request).await.context("cannot open the WebSocket")?;
        let mut session = Self { socket, id: Value::Null, asked: 0 };
        let made = session.ask(json!({ "janus": "create" })).await?;
        session.id = made.pointer("/data/id").context("no session")?.clone();
        Ok(session)
    }

    async fn attach(&mut self) -> anyhow::Result<Value> {
        let made = self.ask(json!({ "janus": "attach", "plugin": "janus.plugin.videoroom" })).await?;
        Ok(made.pointer("/data/id").context("no handle")?.clone())
    }

    /// A request to the plugin, and what it says to it.
    async fn message(&mut self, handle: &Value, body: Value, jsep: Option<(&str, String)>) -> anyhow::Result<Value> {
        let mut request = json!({ "janus": "message", "handle_id": handle, "body": body });
        if let Some((kind, sdp)) = jsep {
            request["jsep"] = json!({ "type": kind, "sdp": sdp });
        }
        let answer = self.ask(request).await?;
        match answer.pointer("/plugindata/data/error") {
            Some(error) => bail!("the plugin refuses: {error}"),
            None => Ok(answer),
        }
    }

    async fn ask(&mut self, mut request: Value) -> anyhow::Result<Value> {
        self.asked += 1;
        let transaction = self.asked.to_string();
        request["transaction"] = json!(transaction);
        if !self.id.is_null() {
            request["session_id"] = self.id.clone();
        }
        self.socket.send(Message::text(request.to_string())).await?;
        loop {
            let Message::Text(text) = self.socket.next().await.context("the WebSocket closed")?? else { continue };
            let answer: Value = serde_json::from_str(&text)?;
            if answer["transaction"] != json!(transaction) || answer["janus"] == json!("ack") {
                continue;
            }
            if answer["janus"] == json!("error") {
                bail!("refused: {answer}");
            }
            return Ok(answer);
        }
    }

    /// Take the tracks of everybody else; `None` when there are none.
    async fn subscribe(
        &mut self,
        peers: &Peers,
        identity: &Arc<Identity>,
        number: u32,
    ) -> anyhow::Result<Option<Peer>> {
        let feeds: Vec<Value> = peers.others(number).await.into_iter().map(|feed| json!({ "feed": feed })).collect();
        if feeds.is_empty() {
            return Ok(None);
        }
        let handle = self.attach().await?;
        let body = json!({ "request": "join", "ptype": "subscriber", "room": ROOM, "streams": feeds });
        let offered = self.message(&handle, body, None).await?;
        let (offer, local) = (sdp_of(&offered)?, local(identity, number, 1));
        self.message(&handle, json!({ "request": "start" }), Some(("answer", answer(offer, &local)))).await?;
        // Who offers chooses.
        Ok(Some(Peer::new(identity, &local, &offer::read(offer)?, now())?.as_full(Role::Controlled)))
    }
}

/// An answer that receives all that is offered.
fn answer(offer: &str, local: &Local) -> String {
    let mut sdp = String::from("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n");
    let mut first = true;
    for line in offer.lines().map(str::trim_end) {
        let is_kept = ["a=group:", "a=mid:", "a=rtpmap:", "a=fmtp:", "a=rtcp-fb:", "a=rtcp-mux"];
        if line.starts_with("m=") {
            // Writing to a String cannot fail.
            let _ = write!(
                sdp,
                "{line}\r\nc=IN IP4 0.0.0.0\r\na=recvonly\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\n\
                 a=fingerprint:sha-256 {}\r\na=setup:active\r\n",
                local.ufrag, local.password, local.fingerprint
            );
            if std::mem::take(&mut first) {
                sdp.push_str(CANDIDATE);
            }
        } else if is_kept.iter().any(|kept| line.starts_with(kept)) {
            let _ = write!(sdp, "{line}\r\n");
        }
    }
    sdp
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_take_what_is_offered_with_the_credentials_of_this_end() {
        let offer = "v=0\r\na=group:BUNDLE 0 1\r\na=ice-ufrag:theirs\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=sendonly\r\n\
                     a=mid:0\r\na=ice-ufrag:theirs\r\na=setup:actpass\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\n";
        let local = Local { ufrag: "mine".into(), password: "p".into(), fingerprint: "AA".into() };
        let answer = answer(offer, &local);
        assert_eq!(answer.matches("a=ice-ufrag:mine").count(), 2);
        assert_eq!(answer.matches("a=recvonly").count(), 2);
        assert_eq!(answer.matches("a=setup:active").count(), 2);
        assert!(!answer.contains("theirs") && answer.contains("a=group:BUNDLE 0 1") && answer.contains("a=mid:1"));
    }
}
