//! Whose OpenID token it is: asked of the homeserver the client names (Matrix spec, OpenID). Proves a user, and nothing
//! about rooms.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use signalling::matrix::request::OpenIdToken;
use signalling::matrix::server_name::{ServerName, server_of_user};
use tokio::sync::Semaphore;
use url::Url;

use super::coalesced::{Coalesced, key};
use super::fetch::{Reply, USER_AGENT, read};
use super::resolve::Federation;

/// Why a token proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenIdError {
    /// It is not good, or its homeserver cannot be asked. Not said which: it would be a window into our network.
    Refused,
    /// One of our own homeservers does not answer.
    HomeserverDown,
    /// Too many are being asked at once.
    Busy,
}

/// How long a proof is good. Short: a token can be withdrawn by logging out.
const GOOD: Duration = Duration::from_secs(60);
/// How long a refusal is remembered.
const REFUSED: Duration = Duration::from_secs(5);
/// Pause before a homeserver of ours that failed is asked again.
const AGAIN: Duration = Duration::from_millis(250);
/// How long a homeserver that did not answer is left alone.
const DOWN: Duration = Duration::from_secs(1);
/// Proofs remembered.
const MAX_PROOFS: usize = 16_384;
/// Look-ups at once at homeservers of our own. More wait for a place: a call that everybody joins at once is no misuse.
const MAX_OWN: usize = 64;
/// Look-ups at once at homeservers of others, in lanes by their names: a slow one holds up those of its lane alone, and
/// never our own users.
const LANES: usize = 32;
const MAX_PER_LANE: usize = 4;
/// How long a look-up waits for a place. Clients show an error page when they wait for longer.
const PLACE_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer.
const MAX_ANSWER: usize = 16 << 10;

/// Proves users.
#[derive(Debug)]
pub(super) struct OpenId {
    /// Configured homeservers, asked where the operator says.
    homes: BTreeMap<String, Url>,
    trusted: reqwest::Client,
    /// How long one of ours may take, all attempts together.
    patience: Duration,
    federation: Arc<Federation>,
    proofs: Coalesced<Result<String, OpenIdError>>,
    own: Semaphore,
    lanes: [Semaphore; LANES],
}

#[derive(Deserialize)]
struct UserInfo {
    sub: String,
}

impl OpenId {
    /// `homes`: base URLs by server name. `patience`: how long one of them may take.
    pub(super) fn new(
        homes: BTreeMap<String, Url>,
        trusted: reqwest::Client,
        patience: Duration,
        federation: Arc<Federation>,
    ) -> Self {
        let proofs = Coalesced::new(MAX_PROOFS);
        let (own, lanes) = (Semaphore::new(MAX_OWN), std::array::from_fn(|_| Semaphore::new(MAX_PER_LANE)));
        Self { homes, trusted, patience, federation, proofs, own, lanes }
    }

    /// The user whose token it is.
    pub(super) async fn user(&self, token: &OpenIdToken) -> Result<String, OpenIdError> {
        let server = &token.matrix_server_name;
        let lookup = || async {
            let result = self.ask(server, &token.access_token).await;
            let good_for = match &result {
                Ok(_) => GOOD,
                Err(OpenIdError::Refused) => REFUSED,
                Err(OpenIdError::HomeserverDown | OpenIdError::Busy) => DOWN,
            };
            (result, good_for)
        };
        self.proofs.get(key(&[server, &token.access_token]), lookup).await
    }

    async fn ask(&self, server: &str, token: &str) -> Result<String, OpenIdError> {
        ServerName::parse(server).map_err(|_| OpenIdError::Refused)?;
        let places = if self.homes.contains_key(server) { &self.own } else { self.lane(server) };
        // Elapsed, or (never) closed.
        let place = tokio::time::timeout(PLACE_PATIENCE, places.acquire()).await;
        let _place = place.map_err(|_| OpenIdError::Busy)?.map_err(|_| OpenIdError::Busy)?;
        let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("access_token", token).finish();
        let path = format!("/_matrix/federation/v1/openid/userinfo?{query}");
        let reply = match self.homes.get(server) {
            Some(base) => self.ask_patiently(base, &path).await?,
            None => self.federation.get(server, &path).await.map_err(|error| {
                tracing::debug!(%error, "an OpenID token could not be looked up at a remote server");
                OpenIdError::Refused
            })?,
        };
        if reply.status != 200 {
            return Err(OpenIdError::Refused);
        }
        let user = serde_json::from_slice::<UserInfo>(&reply.body).map_err(|_| OpenIdError::Refused)?.sub;
        // A server speaks for its own users only.
        let speaks_for = user.len() <= 255
            && server_of_user(&user) == Some(server)
            && !user.chars().any(|c| c.is_control() || c.is_whitespace());
        if speaks_for { Ok(user) } else { Err(OpenIdError::Refused) }
    }

    fn lane(&self, server: &str) -> &Semaphore {
        let mut hasher = DefaultHasher::new();
        server.hash(&mut hasher);
        let at = usize::try_from(hasher.finish() % LANES as u64).unwrap_or(0);
        self.lanes.get(at).unwrap_or(&self.own)
    }

    /// Clients do not ask twice: a join that meets a homeserver in a bad moment would end in an error page.
    async fn ask_patiently(&self, base: &Url, path: &str) -> Result<Reply, OpenIdError> {
        let attempts = async {
            loop {
                match self.ask_own(base, path).await {
                    Err(OpenIdError::HomeserverDown) => tokio::time::sleep(AGAIN).await,
                    result => return result,
                }
            }
        };
        tokio::time::timeout(self.patience, attempts).await.unwrap_or(Err(OpenIdError::HomeserverDown))
    }

    async fn ask_own(&self, base: &Url, path: &str) -> Result<Reply, OpenIdError> {
        let url = format!("{}{path}", base.as_str().trim_end_matches('/'));
        let down = OpenIdError::HomeserverDown;
        let response = self.trusted.get(url).timeout(self.patience).send().await.map_err(|_| down)?;
        let reply = read(response, MAX_ANSWER).await.ok_or(down)?;
        if reply.status >= 500 { Err(down) } else { Ok(reply) }
    }
}

/// A client for homeservers the operator has named: their addresses are the operator's word.
pub(super) fn trusted_client(authorities: &[reqwest::Certificate]) -> Result<reqwest::Client, String> {
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(3))
        .user_agent(USER_AGENT);
    if !authorities.is_empty() {
        builder = builder.tls_certs_merge(authorities.iter().cloned());
    }
    builder.timeout(Duration::from_secs(5)).build().map_err(|e| e.to_string())
}
