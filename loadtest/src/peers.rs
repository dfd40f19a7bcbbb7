//! Servers that do not speak LiveKit's protocol, so that `bench.sh` can put figures of theirs beside ours: the same light
//! participants publish and receive the same packets, only the signalling differs.
//!
//! One room, light participants only. Who publishes takes the others' tracks once everybody who publishes is there.

mod janus;

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;
use tokio::sync::watch;

use crate::light::engine::Order;
use crate::light::join::{Joined, Ticket};
use crate::light::offer::Local;
use crate::light::peer::Identity;
use crate::scenario::Scenario;

/// No step of a join takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a server speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Speaks {
    /// LiveKit's protocol.
    #[default]
    #[value(name = "livekit")]
    LiveKit,
    /// The WebSocket interface of Janus, with its plugin VideoRoom.
    Janus,
}

/// Such a server.
#[derive(Debug)]
pub struct Peers {
    speaks: Speaks,
    url: String,
    /// How many publish.
    publishers: usize,
    /// Who publishes already, by number.
    published: watch::Sender<Vec<u32>>,
}

impl Peers {
    /// The server at `url`; `None` where LiveKit's protocol is spoken.
    pub async fn open(speaks: Speaks, url: &str, scenario: &Scenario) -> anyhow::Result<Option<Arc<Self>>> {
        if speaks == Speaks::LiveKit {
            return Ok(None);
        }
        if scenario.rooms != 1 || scenario.full != 0 || scenario.churn != 0 || scenario.e2ee {
            bail!("servers that do not speak LiveKit's protocol take one room of light participants who stay");
        }
        let publishers = scenario.publishers() as usize;
        let (published, _) = watch::channel(Vec::new());
        let peers = Self { speaks, url: url.to_owned(), publishers, published };
        if speaks == Speaks::Janus {
            janus::prepare(&peers).await?;
        }
        Ok(Some(Arc::new(peers)))
    }

    /// Join; returns when SRTP is up.
    pub async fn join(
        self: &Arc<Self>,
        ticket: &Ticket,
        identity: &Arc<Identity>,
        engine: &Sender<Order>,
    ) -> anyhow::Result<Joined> {
        let join = async {
            match self.speaks {
                Speaks::LiveKit => bail!("there is another way to join such a server"),
                Speaks::Janus => janus::join(self, ticket, identity, engine).await,
            }
        };
        tokio::time::timeout(PATIENCE, join).await.context("the join takes too long")?
    }

    fn publishes(&self, number: u32) {
        self.published.send_modify(|all| all.push(number));
    }

    /// Wait until everybody who publishes is there; gives the others.
    async fn others(&self, number: u32) -> Vec<u32> {
        let mut published = self.published.subscribe();
        // The sender lives as long as we do.
        let all = published.wait_for(|all| all.len() >= self.publishers).await.map(|all| all.clone());
        all.unwrap_or_default().into_iter().filter(|other| *other != number).collect()
    }
}

/// Credentials of a path of ours; a participant may have two.
fn local(identity: &Identity, number: u32, path: u32) -> Local {
    Local {
        ufrag: format!("lt{number:05}{path}"),
        password: format!("light-participant-{number:07}{path}"),
        fingerprint: identity.fingerprint.clone(),
    }
}
