//! What a client asks when it joins: v0 query parameters, or v1's `join_request`.

use crate::room::api::{Generation, Grants, JoinRequest};

/// What a join may be at most, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinLimits {
    /// The `join_request` parameter as written.
    pub encoded: usize,
    /// The request after base64 and gzip.
    pub decoded: usize,
    /// Metadata.
    pub metadata: usize,
    /// Attributes, keys and values together.
    pub attributes: usize,
}

impl Default for JoinLimits {
    fn default() -> Self {
        Self { encoded: 1 << 20, decoded: 1 << 20, metadata: 64 << 10, attributes: 64 << 10 }
    }
}

/// Why a join was refused. The text is safe to show to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// `/rtc/v1` without `join_request`.
    #[error("join_request is missing")]
    Missing,
    /// Not base64, gzip, protobuf or JSON where it should be.
    #[error("join request cannot be decoded: {0}")]
    Malformed(&'static str),
    /// Over a limit.
    #[error("join request is too large: {0}")]
    TooLarge(&'static str),
    /// Metadata or attributes without the grant to set them.
    #[error("token does not allow setting metadata or attributes")]
    NotAllowed,
}

impl JoinError {
    /// 401 for what the token does not allow, else 400.
    pub const fn status(self) -> u16 {
        match self {
            Self::NotAllowed => 401,
            _ => 400,
        }
    }
}

/// Reads a join from the decoded query parameters of the upgrade request. `endpoint` is the one that was called; `/rtc`
/// with a `join_request` counts as v1.
///
/// # Errors
/// See [`JoinError`].
pub fn join_request<'q>(
    endpoint: Generation,
    query: impl IntoIterator<Item = (&'q str, &'q str)>,
    grants: Grants,
    limits: &JoinLimits,
) -> Result<JoinRequest, JoinError> {
    let _ = (endpoint, query.into_iter().next(), grants, limits);
    Err(JoinError::Missing)
}
