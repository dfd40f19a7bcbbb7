//! Errors as Twirp has them: `{"code": …, "msg": …}`, always in JSON, each code with its HTTP status.

use std::borrow::Cow;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use livekit_protocol::RpcError;
use signalling::room::api::{AdminError, Refusal};

/// The codes of Twirp that weir uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    BadRoute,
    Malformed,
    InvalidArgument,
    Unauthenticated,
    PermissionDenied,
    NotFound,
    FailedPrecondition,
    Unimplemented,
    Unavailable,
    DeadlineExceeded,
    Aborted,
    Internal,
}

impl Code {
    const fn text(self) -> &'static str {
        match self {
            Self::BadRoute => "bad_route",
            Self::Malformed => "malformed",
            Self::InvalidArgument => "invalid_argument",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
            Self::NotFound => "not_found",
            Self::FailedPrecondition => "failed_precondition",
            Self::Unimplemented => "unimplemented",
            Self::Unavailable => "unavailable",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Aborted => "aborted",
            Self::Internal => "internal",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::BadRoute | Self::NotFound => StatusCode::NOT_FOUND,
            Self::Malformed | Self::InvalidArgument => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::PermissionDenied => StatusCode::FORBIDDEN,
            Self::FailedPrecondition => StatusCode::PRECONDITION_FAILED,
            Self::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::DeadlineExceeded => StatusCode::REQUEST_TIMEOUT,
            Self::Aborted => StatusCode::CONFLICT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Why a call failed. The text is safe to show to the caller.
#[derive(Clone, Debug)]
pub(super) struct TwirpError {
    code: Code,
    text: Cow<'static, str>,
    /// What a participant said about its error.
    rpc: Option<Box<RpcError>>,
}

impl TwirpError {
    pub(super) const fn new(code: Code, text: &'static str) -> Self {
        Self { code, text: Cow::Borrowed(text), rpc: None }
    }

    /// With a text made for the occasion.
    pub(super) const fn made(code: Code, text: String) -> Self {
        Self { code, text: Cow::Owned(text), rpc: None }
    }

    /// A participant's method failed, or there is none. Its number and data are in `meta`, whose values are texts.
    pub(super) fn of_participant(mut error: RpcError) -> Self {
        // 1400: clients have no method of this name.
        let code = if error.code == 1_400 { Code::Unimplemented } else { Code::Aborted };
        let text = std::mem::take(&mut error.message);
        let text = if text.is_empty() { "the participant answered with an error".to_owned() } else { text };
        Self { code, text: Cow::Owned(text), rpc: Some(Box::new(error)) }
    }

    pub(super) fn is_not_found(&self) -> bool {
        self.code == Code::NotFound
    }

    /// For metrics.
    pub(super) const fn code(&self) -> &'static str {
        self.code.text()
    }
}

impl From<AdminError> for TwirpError {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::NotFound(text) => Self::new(Code::NotFound, text),
            AdminError::Invalid(text) => Self::new(Code::InvalidArgument, text),
            AdminError::Precondition(text) => Self::new(Code::FailedPrecondition, text),
            AdminError::Denied(text) => Self::new(Code::PermissionDenied, text),
            AdminError::Unavailable(text) => Self::new(Code::Unavailable, text),
            AdminError::TimedOut(text) => Self::new(Code::DeadlineExceeded, text),
        }
    }
}

impl From<Refusal> for TwirpError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unauthorized(text) => Self::new(Code::Unauthenticated, text),
            Refusal::BadRequest(text) => Self::new(Code::InvalidArgument, text),
            Refusal::NoSuchRoom => super::rooms::NO_ROOM,
            Refusal::Unavailable(text) => Self::new(Code::Unavailable, text),
        }
    }
}

impl IntoResponse for TwirpError {
    fn into_response(self) -> Response {
        let mut body = serde_json::json!({ "code": self.code.text(), "msg": self.text });
        if let (Some(error), Some(body)) = (&self.rpc, body.as_object_mut()) {
            let meta = serde_json::json!({ "rpc_code": error.code.to_string(), "rpc_data": error.data });
            body.insert("meta".to_owned(), meta);
        }
        let body = body.to_string();
        (self.code.status(), [(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}
