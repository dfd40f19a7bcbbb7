//! Errors as Twirp has them: `{"code": …, "msg": …}`, always in JSON, each code with its HTTP status.

use std::borrow::Cow;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
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
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Why a call failed. The text is safe to show to the caller.
#[derive(Clone, Debug)]
pub(super) struct TwirpError {
    code: Code,
    text: Cow<'static, str>,
}

impl TwirpError {
    pub(super) const fn new(code: Code, text: &'static str) -> Self {
        Self { code, text: Cow::Borrowed(text) }
    }

    /// With a text made for the occasion.
    pub(super) const fn made(code: Code, text: String) -> Self {
        Self { code, text: Cow::Owned(text) }
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
        let body = serde_json::json!({ "code": self.code.text(), "msg": self.text }).to_string();
        (self.code.status(), [(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}
