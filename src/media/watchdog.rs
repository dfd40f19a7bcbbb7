//! Notices a media thread whose turn does not end: a bug, or a machine that gives it no time.
//!
//! Nothing is done about it but to say so; the pictures and sounds of its rooms stand still meanwhile.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::clock::Clock;
use super::thread::Pulse;
use crate::mailbox::Mailbox;

/// How often to look.
const INTERVAL: Duration = Duration::from_millis(250);
/// How long a turn may take, milliseconds.
const STALL_MS: u64 = 1_000;

/// Look until the other end of `ended` is dropped.
pub(super) fn run(threads: Vec<(Pulse, Mailbox)>, clock: Clock, ended: &Receiver<()>) {
    // The pulse of the turn that was reported, so that each stall is told once.
    let mut told = vec![0; threads.len()];
    while ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let now = clock.now().as_millis();
        for (index, ((pulse, mailbox), told)) in threads.iter().zip(&mut told).enumerate() {
            let began = pulse.load(Ordering::Relaxed);
            if began != 0 && began != *told && now.saturating_sub(began) >= STALL_MS {
                *told = began;
                mailbox.count_stall();
                tracing::warn!(thread = index, waiting = mailbox.depth(), "a media thread has not turned for a second");
            }
        }
    }
}
