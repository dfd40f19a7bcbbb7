//! How participants get into the rooms of a run: who they are, where to and with which token, and who looks after them
//! meanwhile. With an API key there is nothing to it ([`Keyed`]); Matrix users do more (`matrix`).

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use crate::client::Keyholder;
use crate::peers::Peers;
use crate::token;

/// Something that takes time.
pub type Soon<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The way in.
pub trait Door: Debug + Send + Sync {
    /// Let one in; `number` counts those of a room, `count` all there ever were.
    fn admit(&self, room: u32, number: u32, count: u32) -> Soon<'_, anyhow::Result<Pass>>;

    /// Whether this participant is one of the run; others are people.
    fn is_ours(&self, identity: &str) -> bool;

    /// People may look and listen, so pictures and sound are real.
    fn has_people(&self) -> bool;

    /// The server, where it does not speak LiveKit's protocol.
    fn peers(&self) -> Option<&Arc<Peers>> {
        None
    }

    /// Everybody has left.
    fn close(&self) -> Soon<'_, ()>;
}

/// What one who is let in gets.
#[derive(Debug)]
pub struct Pass {
    /// Base address of the server.
    pub url: String,
    /// Access token.
    pub token: String,
    /// What the participant is called.
    pub identity: String,
    /// Who looks after it, if anybody does. Without one, keys of frames go round within this process.
    pub companion: Option<Box<dyn Companion>>,
    /// How many of the run's participants did not send a key in time.
    pub keyless: u64,
}

/// Looks after a participant.
pub trait Companion: Debug + Send {
    /// Hand it the keys that came and those that will.
    fn keys_to(&mut self, holder: Keyholder);

    /// It has left the server.
    fn leave(self: Box<Self>) -> Soon<'static, ()>;
}

/// By API key and secret, as a backend does it.
#[derive(Clone, Debug)]
pub struct Keyed {
    /// Base address of the server.
    pub url: String,
    /// API key.
    pub key: String,
    /// API secret.
    pub secret: String,
    /// The room, or the beginning of the rooms' names.
    pub room: String,
    /// There is but one.
    pub only_room: bool,
    /// The server, where it does not speak LiveKit's protocol: then key and secret mean nothing.
    pub peers: Option<Arc<Peers>>,
}

impl Door for Keyed {
    fn admit(&self, room: u32, number: u32, count: u32) -> Soon<'_, anyhow::Result<Pass>> {
        let pass = || {
            let name = if self.only_room { self.room.clone() } else { format!("{}-{room}", self.room) };
            let identity = format!("p{number}-{count}");
            let token = token::join_token(&self.key, &self.secret, &identity, &name)?;
            Ok(Pass { url: self.url.clone(), token, identity, companion: None, keyless: 0 })
        };
        Box::pin(std::future::ready(pass()))
    }

    fn is_ours(&self, _: &str) -> bool {
        true
    }

    fn has_people(&self) -> bool {
        false
    }

    fn peers(&self) -> Option<&Arc<Peers>> {
        self.peers.as_ref()
    }

    fn close(&self) -> Soon<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
