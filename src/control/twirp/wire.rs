//! The two formats of a call: protobuf and JSON, chosen by the caller's content type and used for the answer too.

use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use prost::Message;
use serde::de::DeserializeOwned;

use super::error::{Code, TwirpError};
use super::json::ProtoJson;

/// How a caller writes and reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Protobuf,
    Json,
}

impl Wire {
    /// By the content type of the request, parameters aside.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, TwirpError> {
        let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = text.split(';').next().unwrap_or_default().trim();
        if kind.eq_ignore_ascii_case("application/protobuf") {
            Ok(Self::Protobuf)
        } else if kind.eq_ignore_ascii_case("application/json") {
            Ok(Self::Json)
        } else {
            Err(TwirpError::new(
                Code::BadRoute,
                "unexpected Content-Type: send application/protobuf or application/json",
            ))
        }
    }

    /// The request in a body. JSON may have either spelling of field names, and fields weir does not know.
    pub(super) fn read<M: Message + Default + DeserializeOwned>(self, body: &[u8]) -> Result<M, TwirpError> {
        match self {
            Self::Protobuf => M::decode(body)
                .map_err(|_| TwirpError::new(Code::Malformed, "the protobuf request could not be decoded")),
            Self::Json => serde_json::from_slice(body)
                .map_err(|_| TwirpError::new(Code::Malformed, "the json request could not be decoded")),
        }
    }

    /// The answer.
    pub(super) fn reply<M: Message + ProtoJson>(self, message: &M) -> Response {
        match self {
            Self::Protobuf => {
                ([(header::CONTENT_TYPE, "application/protobuf")], message.encode_to_vec()).into_response()
            }
            Self::Json => {
                ([(header::CONTENT_TYPE, "application/json")], message.proto_json().to_string()).into_response()
            }
        }
    }
}
