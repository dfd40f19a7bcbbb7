//! The WebSocket: how the two generations join, and frames as protobuf.

use std::io::Write;

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::{SinkExt, StreamExt};
use livekit_protocol as proto;
use prost::Message as _;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::client::{Generation, Options};

/// LiveKit protocol number spoken.
pub(crate) const PROTOCOL: i32 = 16;

/// A signalling connection.
#[derive(Debug)]
pub(crate) struct Signal(WebSocketStream<MaybeTlsStream<TcpStream>>);

/// What to say when connecting.
#[derive(Debug, Default)]
pub(crate) struct Hello {
    /// Resume the session of this participant sid.
    pub(crate) resume: Option<String>,
    /// First offer, in generation 1.
    pub(crate) offer: Option<proto::SessionDescription>,
    /// What the participant has, when resuming.
    pub(crate) sync_state: Option<proto::SyncState>,
}

impl Signal {
    pub(crate) async fn connect(url: &str, token: &str, options: &Options, hello: Hello) -> anyhow::Result<Self> {
        let base = url.trim_end_matches('/').replacen("http", "ws", 1);
        let address = match options.generation {
            Generation::V1 => format!("{base}/rtc/v1?join_request={}", join_request(options, hello)?),
            Generation::V0 => {
                let mut address = format!(
                    "{base}/rtc?protocol={PROTOCOL}&sdk=rust&version=0.1&auto_subscribe={}&adaptive_stream={}",
                    u8::from(options.auto_subscribe),
                    u8::from(options.adaptive_stream)
                );
                if let Some(sid) = hello.resume {
                    address.push_str(&format!("&reconnect=1&sid={sid}"));
                }
                address
            }
        };
        let mut request = address.into_client_request()?;
        let bearer = format!("Bearer {token}").parse().context("a token that fits into a header")?;
        request.headers_mut().insert("authorization", bearer);
        let (socket, _) = tokio_tungstenite::connect_async(request).await.context("cannot open the WebSocket")?;
        Ok(Self(socket))
    }

    pub(crate) async fn send(&mut self, message: proto::signal_request::Message) -> anyhow::Result<()> {
        let bytes = proto::SignalRequest { message: Some(message) }.encode_to_vec();
        self.send_raw(bytes).await
    }

    pub(crate) async fn send_raw(&mut self, bytes: Vec<u8>) -> anyhow::Result<()> {
        Ok(self.0.send(Message::Binary(bytes.into())).await?)
    }

    /// The next message; `None` when the connection ended.
    pub(crate) async fn next(&mut self) -> Option<proto::signal_response::Message> {
        while let Some(Ok(frame)) = self.0.next().await {
            if let Message::Binary(bytes) = frame
                && let Ok(response) = proto::SignalResponse::decode(bytes)
                && let Some(message) = response.message
            {
                return Some(message);
            }
        }
        None
    }

    pub(crate) async fn close(mut self) {
        let _ = self.0.close(None).await;
    }
}

/// `join_request` of generation 1: protobuf in gzip in protobuf in base64.
fn join_request(options: &Options, hello: Hello) -> anyhow::Result<String> {
    let join = proto::JoinRequest {
        client_info: Some(proto::ClientInfo {
            sdk: proto::client_info::Sdk::Rust as i32,
            version: "0.1".to_owned(),
            protocol: PROTOCOL,
            ..Default::default()
        }),
        connection_settings: Some(proto::ConnectionSettings {
            auto_subscribe: options.auto_subscribe,
            adaptive_stream: options.adaptive_stream,
            auto_subscribe_data_track: Some(options.auto_subscribe),
            ..Default::default()
        }),
        publisher_offer: hello.offer,
        reconnect: hello.resume.is_some(),
        participant_sid: hello.resume.unwrap_or_default(),
        sync_state: hello.sync_state,
        ..Default::default()
    };
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&join.encode_to_vec())?;
    let wrapped = proto::WrappedJoinRequest {
        compression: proto::wrapped_join_request::Compression::Gzip as i32,
        join_request: gzip.finish()?,
    };
    // `=` is the only character of it that a query must not hold.
    Ok(BASE64_URL_SAFE.encode(wrapped.encode_to_vec()).replace('=', "%3D"))
}
