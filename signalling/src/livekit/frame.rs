//! One message per WebSocket frame: protobuf in binary frames, protojson in text frames.
//!
//! A client that once sends text gets text from then on; the caller keeps that as a [`Wire`] per connection.

use bytes::Bytes;
use livekit_protocol as proto;
use prost::Message;

/// How messages of a connection are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wire {
    /// Protobuf in binary frames.
    #[default]
    Binary,
    /// Protojson in text frames.
    Text,
}

/// A WebSocket frame that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Binary.
    Binary(&'a [u8]),
    /// Text.
    Text(&'a str),
}

impl Frame<'_> {
    /// How a client that sends this wants to be answered.
    pub const fn wire(&self) -> Wire {
        match self {
            Self::Binary(_) => Wire::Binary,
            Self::Text(_) => Wire::Text,
        }
    }
}

/// A WebSocket frame to send. Cheap to clone: one encoding serves all receivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encoded {
    /// Binary.
    Binary(Bytes),
    /// Text, UTF-8.
    Text(Bytes),
}

/// Why a frame was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Larger than the limit.
    #[error("signal message is too large")]
    TooLarge,
    /// Neither protobuf nor protojson of the expected message.
    #[error("signal message cannot be decoded")]
    Malformed,
}

/// Reads a client's message of at most `limit` bytes.
///
/// # Errors
/// See [`FrameError`].
pub fn decode_request(frame: Frame<'_>, limit: usize) -> Result<proto::SignalRequest, FrameError> {
    match frame {
        Frame::Binary(data) if data.len() > limit => Err(FrameError::TooLarge),
        Frame::Text(text) if text.len() > limit => Err(FrameError::TooLarge),
        Frame::Binary(data) => proto::SignalRequest::decode(data).map_err(|_| FrameError::Malformed),
        Frame::Text(text) => serde_json::from_str(text).map_err(|_| FrameError::Malformed),
    }
}

/// Reads a server's message of at most `limit` bytes; for clients and tests.
///
/// # Errors
/// See [`FrameError`].
pub fn decode_response(frame: Frame<'_>, limit: usize) -> Result<proto::SignalResponse, FrameError> {
    match frame {
        Frame::Binary(data) if data.len() > limit => Err(FrameError::TooLarge),
        Frame::Text(text) if text.len() > limit => Err(FrameError::TooLarge),
        Frame::Binary(data) => proto::SignalResponse::decode(data).map_err(|_| FrameError::Malformed),
        Frame::Text(text) => serde_json::from_str(text).map_err(|_| FrameError::Malformed),
    }
}

/// Writes a message for clients.
///
/// # Errors
/// [`FrameError::Malformed`] when a text form does not exist (an enum number the protocol does not know).
pub fn encode_response(message: &proto::SignalResponse, wire: Wire) -> Result<Encoded, FrameError> {
    match wire {
        Wire::Binary => Ok(Encoded::Binary(message.encode_to_vec().into())),
        Wire::Text => text(message),
    }
}

/// Writes a message for the server; for clients and tests.
///
/// # Errors
/// As [`encode_response`].
pub fn encode_request(message: &proto::SignalRequest, wire: Wire) -> Result<Encoded, FrameError> {
    match wire {
        Wire::Binary => Ok(Encoded::Binary(message.encode_to_vec().into())),
        Wire::Text => text(message),
    }
}

fn text(message: &impl serde::Serialize) -> Result<Encoded, FrameError> {
    serde_json::to_vec(message).map(|json| Encoded::Text(json.into())).map_err(|_| FrameError::Malformed)
}
