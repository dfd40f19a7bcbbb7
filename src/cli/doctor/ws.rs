//! Joins a room as a client of the first protocol generation does, far enough to be told where media goes: over a
//! WebSocket on an upgraded HTTP connection (RFC 6455), of which only the few frames needed are spoken.

use std::time::Duration;

use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_response::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::service::upgrade;
use super::web::Web;

/// How long the first messages may take.
const PATIENCE: Duration = Duration::from_secs(8);
/// Bytes of a frame.
const MAX_FRAME: usize = 1 << 20;

/// A conversation that has begun.
pub(super) struct Joined {
    connection: reqwest::Upgraded,
    pub(super) join: proto::JoinResponse,
    /// The SDP weir offers for what it sends.
    pub(super) offer: String,
}

/// Why it has not.
pub(super) enum NotJoined {
    /// An answer instead of an upgrade.
    Refused(u16, String),
    /// Upgraded, then nothing that makes sense.
    Silent(String),
}

impl Joined {
    /// Join with a token.
    pub(super) async fn new(web: &Web, base: &str, token: &str) -> Result<Self, NotJoined> {
        let url = format!("{base}/rtc?auto_subscribe=1&protocol=15&sdk=rust&version=0.0.0&access_token={token}");
        let response = upgrade(web, &url).send().await.map_err(|error| NotJoined::Silent(error.to_string()))?;
        let status = response.status().as_u16();
        if status != 101 {
            let text = response.text().await.unwrap_or_default();
            return Err(NotJoined::Refused(status, text.chars().take(200).collect()));
        }
        let connection = response.upgrade().await.map_err(|error| NotJoined::Silent(error.to_string()))?;
        match tokio::time::timeout(PATIENCE, Self::begin(connection)).await {
            Ok(result) => result.map_err(|error| NotJoined::Silent(error.to_string())),
            Err(_) => Err(NotJoined::Silent("no join message within 8 seconds".to_owned())),
        }
    }

    async fn begin(mut connection: reqwest::Upgraded) -> std::io::Result<Self> {
        let mut joined = None;
        loop {
            let frame = frame(&mut connection).await?;
            let message = proto::SignalResponse::decode(frame.as_slice()).ok().and_then(|response| response.message);
            match (message, joined.take()) {
                (Some(Message::Join(join)), _) => joined = Some(join),
                (Some(Message::Offer(offer)), Some(join)) => return Ok(Self { connection, join, offer: offer.sdp }),
                (_, before) => joined = before,
            }
        }
    }

    /// Take leave, so that nobody waits for media.
    pub(super) async fn leave(mut self) {
        let leave = proto::LeaveRequest {
            reason: proto::DisconnectReason::ClientInitiated.into(),
            ..proto::LeaveRequest::default()
        };
        let request = proto::SignalRequest { message: Some(proto::signal_request::Message::Leave(leave)) };
        let body = request.encode_to_vec();
        // Final, binary, masked with zeros: what is sent is no secret and goes through no old proxy's cache.
        let mut bytes = vec![0x82, 0x80 | u8::try_from(body.len()).unwrap_or(0).min(125), 0, 0, 0, 0];
        bytes.extend_from_slice(&body);
        let _ = self.connection.write_all(&bytes).await;
        let _ = self.connection.flush().await;
        let mut rest = [0; 1_024];
        // Until weir has closed, or is slow about it.
        let closed = async { while matches!(self.connection.read(&mut rest).await, Ok(1..)) {} };
        let _ = tokio::time::timeout(Duration::from_secs(1), closed).await;
    }
}

/// The next data frame from a server, which does not mask. Pings go unanswered: this does not last.
async fn frame(connection: &mut reqwest::Upgraded) -> std::io::Result<Vec<u8>> {
    loop {
        let mut head = [0; 2];
        connection.read_exact(&mut head).await?;
        let [first, second] = head;
        let length = match second & 0x7f {
            126 => usize::from(connection.read_u16().await?),
            127 => usize::try_from(connection.read_u64().await?).unwrap_or(usize::MAX),
            short => usize::from(short),
        };
        if length > MAX_FRAME {
            return Err(std::io::Error::other("a frame is too long"));
        }
        let mut body = vec![0; length];
        connection.read_exact(&mut body).await?;
        match first & 0x0f {
            1 | 2 => return Ok(body),
            8 => return Err(std::io::Error::other("closed at once")),
            _ => {}
        }
    }
}
