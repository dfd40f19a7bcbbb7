//! ICE candidates in trickle messages: JSON of WebRTC's `RTCIceCandidateInit`.

use serde::{Deserialize, Serialize};

/// `candidateInit` of a trickle message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CandidateInit {
    /// `candidate:…`; empty at the end of candidates in what clients send.
    #[serde(default)]
    pub candidate: String,
    /// Media section identifier.
    #[serde(default)]
    pub sdp_mid: Option<String>,
    /// Index of the media section.
    #[serde(default)]
    pub sdp_m_line_index: Option<u16>,
    /// ICE user name fragment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username_fragment: Option<String>,
}

/// Why a candidate was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrickleError {
    /// Over 4 KiB.
    #[error("candidate is too large")]
    TooLarge,
    /// Not JSON of a candidate.
    #[error("candidate cannot be decoded")]
    Malformed,
    /// Clients must never be sent an empty candidate.
    #[error("candidate is empty")]
    Empty,
}

impl CandidateInit {
    /// Reads a client's candidate. `None` is the end of its candidates.
    ///
    /// # Errors
    /// See [`TrickleError`].
    pub fn decode(json: &str) -> Result<Option<Self>, TrickleError> {
        if json.len() > 4096 {
            return Err(TrickleError::TooLarge);
        }
        let parsed: Self = serde_json::from_str(json).map_err(|_| TrickleError::Malformed)?;
        Ok((!parsed.candidate.trim().is_empty()).then_some(parsed))
    }

    /// Writes a candidate for a client.
    ///
    /// # Errors
    /// [`TrickleError::Empty`] for an empty candidate, which some clients do not survive.
    pub fn encode(&self) -> Result<String, TrickleError> {
        if self.candidate.trim().is_empty() {
            return Err(TrickleError::Empty);
        }
        serde_json::to_string(self).map_err(|_| TrickleError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_clients_parse_and_never_an_empty_candidate() {
        let mut candidate = CandidateInit {
            candidate: "candidate:1 1 udp 1 127.0.0.1 7882 typ host".to_owned(),
            sdp_mid: Some("0".to_owned()),
            sdp_m_line_index: Some(0),
            username_fragment: None,
        };
        let json = r#"{"candidate":"candidate:1 1 udp 1 127.0.0.1 7882 typ host","sdpMid":"0","sdpMLineIndex":0}"#;
        assert_eq!(candidate.encode().as_deref(), Ok(json));
        assert_eq!(CandidateInit::decode(json), Ok(Some(candidate.clone())));
        candidate.candidate = " ".to_owned();
        assert_eq!(candidate.encode(), Err(TrickleError::Empty));
    }

    #[test]
    fn takes_the_end_of_candidates_and_refuses_the_rest() {
        assert_eq!(CandidateInit::decode(r#"{"candidate":"","sdpMid":null}"#), Ok(None));
        assert_eq!(CandidateInit::decode("{}"), Ok(None));
        assert_eq!(CandidateInit::decode("null"), Err(TrickleError::Malformed));
        assert_eq!(CandidateInit::decode(&"x".repeat(5000)), Err(TrickleError::TooLarge));
    }
}
