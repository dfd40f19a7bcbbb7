//! Reading HTTP answers with a limit on their size, whoever gives them.

use reqwest::header::{LOCATION, RETRY_AFTER};

/// What weir calls itself.
pub(super) const USER_AGENT: &str = concat!("weir/", env!("CARGO_PKG_VERSION"));

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Reply {
    /// HTTP status.
    pub(super) status: u16,
    /// Where a redirect points.
    pub(super) location: Option<String>,
    /// Pause asked for, seconds.
    pub(super) retry_after: Option<u64>,
    /// The body.
    pub(super) body: Vec<u8>,
}

/// Read an answer of at most `limit` bytes; `None` when it is larger or breaks off. Time is the request's to limit.
pub(super) async fn read(mut response: reqwest::Response, limit: usize) -> Option<Reply> {
    let header = |name| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let (location, retry_after) = (header(LOCATION), header(RETRY_AFTER).and_then(|text| text.parse().ok()));
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        if body.len() + chunk.len() > limit {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    Some(Reply { status, location, retry_after, body })
}
