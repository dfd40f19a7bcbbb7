//! Our offers to clients with two peer connections, and their answers (RFC 9429, 5.2).

use super::{Description, LocalTransport, NegotiatedSection, OfferSection, SdpError};

/// Writes the offer of a subscriber's transport. Payload types and header extension ids are always the same ones.
pub fn write_offer(local: &LocalTransport, sections: &[OfferSection]) -> String {
    let _ = (local, sections);
    String::new()
}

/// What a client's answer makes of our offer, section by section.
///
/// # Errors
/// The answer has other sections than the offer, or asks for the DTLS role that is ours.
pub fn check_answer(
    local: &LocalTransport,
    offer: &[OfferSection],
    answer: &Description,
) -> Result<Vec<NegotiatedSection>, SdpError> {
    let _ = (local, offer, answer);
    Err(SdpError::Mismatch { index: 0, what: "not ready" })
}
