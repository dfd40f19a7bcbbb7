//! Credentials of the node's own TURN service, made anew for each participant and for a limited time (the form of
//! draft-uberti-behave-turn-rest: user name `expiry:subject`, password an HMAC of it). The service keeps no list: it
//! makes the password again from the user name.

use std::time::Duration;

use hmac::{Hmac, Mac};
use livekit_protocol as proto;
use sha2::Sha256;

/// The node's own TURN service, as participants are told of it.
#[derive(Clone, PartialEq, Eq)]
pub struct RelayAccess {
    /// Where it is, best first.
    pub urls: Vec<String>,
    /// What the service checks passwords with. Secret.
    pub key: Vec<u8>,
    /// How long a participant's credentials are good for.
    pub lifetime: Duration,
}

impl std::fmt::Debug for RelayAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RelayAccess {{ urls: {:?}, key: *** }}", self.urls)
    }
}

impl RelayAccess {
    /// The service with credentials for `subject`, made at `now` of the node's monotonic clock.
    pub fn server(&self, now: Duration, subject: &str) -> proto::IceServer {
        let username = format!("{}:{subject}", now.saturating_add(self.lifetime).as_secs());
        let credential = self.password(&username);
        proto::IceServer { urls: self.urls.clone(), username, credential }
    }

    /// HMAC-SHA-256 of the user name, in hexadecimal digits.
    fn password(&self, username: &str) -> String {
        // HMAC takes keys of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else { return String::new() };
        mac.update(username.as_bytes());
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
