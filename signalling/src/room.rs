//! The room machine: one value per room that owns everything signalling knows about it. Inputs in, outputs out; driven
//! by one task per room in the server, by plain calls in tests. See [`Room`].
//!
//! Why one machine per room and not one per participant: nearly every request touches others (a mute, a subscription, a
//! leave), and one owner needs no lock, no message order between tasks and no shared table.

pub mod api;
pub mod config;

use std::sync::Arc;
use std::time::Duration;

use api::{Input, Now, Output, RoomParams};
pub use config::{Config, Limits};

/// One room: participants, tracks, subscriptions and the conversations with their clients.
///
/// Pure and deterministic: the same parameters (seed included), times and inputs give the same outputs.
#[derive(Debug)]
pub struct Room {
    params: RoomParams,
    config: Arc<Config>,
}

impl Room {
    /// A room with nobody in it, which ends by itself when nobody comes within the empty timeout.
    #[must_use]
    pub fn new(params: RoomParams, config: Arc<Config>, _now: Now) -> Self {
        Self { params, config }
    }

    /// Takes one input and appends what has to be done, in order. Never panics, whatever a client sends.
    ///
    /// After [`Output::Ended`] the room ignores everything.
    pub fn handle(&mut self, _now: Now, _input: Input, _out: &mut Vec<Output>) {}

    /// When [`Input::Timeout`] is due, on the clock of [`Now::mono`]; `None` once the room has ended.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        None
    }

    /// The room's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.params.name
    }

    /// The configuration it was made with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }
}
