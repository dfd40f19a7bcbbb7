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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use super::*;

    fn offer() -> proto::SignalRequest {
        let offer = proto::SessionDescription { r#type: "offer".to_owned(), id: 7, ..Default::default() };
        proto::SignalRequest { message: Some(proto::signal_request::Message::Offer(offer)) }
    }

    #[test]
    fn reads_both_forms_of_a_message() {
        for wire in [Wire::Binary, Wire::Text] {
            let decoded = match encode_request(&offer(), wire).unwrap() {
                Encoded::Binary(data) => decode_request(Frame::Binary(&data), 1000),
                Encoded::Text(data) => decode_request(Frame::Text(std::str::from_utf8(&data).unwrap()), 1000),
            };
            assert_eq!(decoded, Ok(offer()));
        }
        assert_eq!((Frame::Binary(b"").wire(), Frame::Text("").wire()), (Wire::Binary, Wire::Text));
    }

    #[test]
    fn takes_json_as_other_protobuf_libraries_write_it() {
        let text = r#"{"pingReq":{"timestamp":"1700000000000","rtt":"12"}}"#;
        let ping = proto::Ping { timestamp: 1_700_000_000_000, rtt: 12 };
        let expected = proto::SignalRequest { message: Some(proto::signal_request::Message::PingReq(ping)) };
        assert_eq!(decode_request(Frame::Text(text), 1000), Ok(expected));
        let future = r#"{"pingReq":{"timestamp":1,"fromTheFuture":true}}"#;
        assert!(decode_request(Frame::Text(future), 1000).is_ok(), "unknown fields are skipped");
    }

    #[test]
    fn refuses_large_and_broken_frames() {
        let Encoded::Binary(data) = encode_request(&offer(), Wire::Binary).unwrap() else { return };
        assert_eq!(decode_request(Frame::Binary(&data), data.len() - 1), Err(FrameError::TooLarge));
        assert_eq!(decode_request(Frame::Text("{}{}{}"), 3), Err(FrameError::TooLarge));
        assert_eq!(decode_request(Frame::Binary(&[0xff; 8]), 1000), Err(FrameError::Malformed));
        assert_eq!(decode_request(Frame::Text("[1"), 1000), Err(FrameError::Malformed));
        let deep = "[".repeat(100_000);
        assert_eq!(decode_request(Frame::Text(&deep), 1 << 20), Err(FrameError::Malformed));
    }
}
