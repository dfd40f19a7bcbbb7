//! What travels through every handler: the time, and where outputs go.

use std::time::Duration;

use livekit_protocol as proto;
pub(super) use proto::signal_response::Message;

use super::api::{ConnectionId, Notice, Now, Output};
use super::said::Said;
use crate::media::MediaCommand;

/// Lent by the caller of [`super::Room::handle`] for one input.
#[derive(Debug)]
pub(super) struct Cx<'a> {
    pub(super) now: Now,
    out: &'a mut Vec<Output>,
}

impl<'a> Cx<'a> {
    pub(super) const fn new(now: Now, out: &'a mut Vec<Output>) -> Self {
        Self { now, out }
    }

    pub(super) const fn mono(&self) -> Duration {
        self.now.mono
    }

    pub(super) fn after(&self, delay: Duration) -> Duration {
        self.now.mono.saturating_add(delay)
    }

    pub(super) fn push(&mut self, output: Output) {
        self.out.push(output);
    }

    pub(super) fn media(&mut self, command: MediaCommand) {
        self.out.push(Output::Media(command));
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        self.out.push(Output::Notice(notice));
    }

    /// To one participant; nothing if it is away.
    pub(super) fn send(&mut self, to: Option<ConnectionId>, message: Message) {
        if let Some(connection) = to {
            self.send_many(vec![connection], message);
        }
    }

    /// One message, built once, to many.
    pub(super) fn send_many(&mut self, to: Vec<ConnectionId>, message: Message) {
        if !to.is_empty() {
            self.say(to, Said::from(&proto::SignalResponse { message: Some(message) }));
        }
    }

    /// The same with what has been encoded already.
    pub(super) fn say(&mut self, to: Vec<ConnectionId>, message: Said) {
        if !to.is_empty() {
            self.out.push(Output::Send { to, message });
        }
    }

    pub(super) fn close(&mut self, connection: ConnectionId) {
        self.out.push(Output::Close { connection });
    }
}
