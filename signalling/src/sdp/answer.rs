//! Our answers to clients' offers (RFC 9429, 5.3).

use super::{Answer, AnswerSection, Description, LocalTransport, SdpError};

/// Answers `offer`. `plan` goes section by section; what it does not reach stays inactive (data channels: accepted).
///
/// # Errors
/// The plan puts media into an application section or the other way round, or the offer leaves us no DTLS role.
pub fn write_answer(offer: &Description, local: &LocalTransport, plan: &[AnswerSection]) -> Result<Answer, SdpError> {
    let _ = (offer, local, plan);
    Err(SdpError::Mismatch { index: 0, what: "not ready" })
}
