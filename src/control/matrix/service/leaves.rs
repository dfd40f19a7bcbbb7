//! Delayed leaves clients have handed over (MSC4140): pushed off while their owner is in the call, sent when it is gone.

use std::collections::BTreeMap;

use signalling::matrix::delayed::{Answer, Job, Request};
use signalling::matrix::identity::Caller;
use signalling::matrix::request::DelayedLeave;
use signalling::matrix::server_name::server_of_user;

use super::super::homeserver::{delayed_answer, delayed_path};
use super::super::store::StoredLeave;
use super::{Input, Service, spawn};

/// SFU room, user, device: there is one membership for each, whatever identity its owner joins under.
pub(super) type LeaveKey = (String, String, String);

/// Most leaves looked after.
const MAX_LEAVES: usize = 65_536;

#[derive(Debug)]
struct Leave {
    job: Job,
    delay_id: String,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Leaves {
    leaves: BTreeMap<LeaveKey, Leave>,
}

impl Leaves {
    /// What outlived a restart. Whoever does not come back is noticed as gone by other means.
    pub(super) fn restore(&mut self, now: i64, stored: Vec<StoredLeave>) {
        for leave in stored.into_iter().take(MAX_LEAVES) {
            let job = Job::new(now, leave.timeout_ms, 0);
            self.leaves.insert((leave.room, leave.user, leave.device), Leave { job, delay_id: leave.delay_id });
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.leaves.len()
    }

    /// When the next one wants something.
    pub(super) fn next_due(&self) -> Option<i64> {
        self.leaves.values().filter_map(|leave| leave.job.next_at()).min()
    }
}

impl Service {
    /// Look after a leave.
    pub(super) fn delegate(&mut self, now: i64, room: &str, caller: &Caller, leave: &DelayedLeave) {
        let Some(device) = &caller.device else { return };
        let key = (room.to_owned(), caller.user.clone(), device.clone());
        if !self.leaves.leaves.contains_key(&key) && self.leaves.leaves.len() >= MAX_LEAVES {
            return;
        }
        // The grace is waited out before a participant counts as gone.
        let mut job = Job::new(now, leave.timeout_ms, 0);
        if self.calls.is_live(room, &caller.user, Some(device)) {
            job.on_connected(now);
        }
        self.store.leave(&StoredLeave {
            room: key.0.clone(),
            user: key.1.clone(),
            device: key.2.clone(),
            delay_id: leave.delay_id.clone(),
            timeout_ms: leave.timeout_ms,
        });
        self.leaves.leaves.insert(key, Leave { job, delay_id: leave.delay_id.clone() });
        self.decisions.note(now, &caller.user, "handed over its delayed leave");
    }

    /// Its owner is in the call.
    pub(super) fn leave_connected(&mut self, now: i64, room: &str, identity: &str) {
        let key = self.calls.known(room, identity).and_then(|(_, known)| leave_key(room, &known.caller));
        if let Some(leave) = key.and_then(|key| self.leaves.leaves.get_mut(&key)) {
            leave.job.on_connected(now);
        }
    }

    /// Its owner is gone for good. True when there was a leave to send.
    pub(super) fn leave_gone(&mut self, now: i64, room: &str, caller: &Caller) -> bool {
        let leave = leave_key(room, caller).and_then(|key| self.leaves.leaves.get_mut(&key));
        leave.is_some_and(|leave| {
            leave.job.on_gone(now, true);
            true
        })
    }

    pub(super) fn leaves_due(&mut self, now: i64) {
        for (key, leave) in &mut self.leaves.leaves {
            let is_due = leave.job.next_at().is_some_and(|at| at <= now);
            if is_due && self.nodes.as_ref().is_some_and(|nodes| nodes.is_elsewhere(&key.0)) {
                // Its owner may be in the call there: the leave is pushed off until the call is over or back here.
                leave.job.on_connected(now);
            }
            let Some(request) = leave.job.poll(now) else { continue };
            let (key, delay_id) = (key.clone(), leave.delay_id.clone());
            if request == Request::Send {
                self.decisions.note(now, &key.1, "is gone: its leave is sent");
            }
            let server = server_of_user(&key.1).unwrap_or_default().to_owned();
            let own = self.homes.iter().find(|home| home.server.config.server_name == server);
            let (own, federation) = (own.map(|home| home.server.clone()), self.federation.clone());
            spawn(&self.results, async move {
                let answer = match own {
                    Some(own) => own.delayed(&delay_id, request).await,
                    None => match federation.post_client(&server, &delayed_path(&delay_id, request)).await {
                        Ok(reply) => delayed_answer(&reply),
                        Err(_) => Answer::Failed,
                    },
                };
                Input::Delayed { key, answer }
            });
        }
    }

    pub(super) fn on_delayed(&mut self, now: i64, key: &LeaveKey, answer: Answer) {
        let Some(leave) = self.leaves.leaves.get_mut(key) else { return };
        leave.job.on_answer(now, answer);
        if leave.job.is_done() {
            let how = match answer {
                Answer::Ok => "sent",
                Answer::Gone => "gone",
                Answer::SlowDown(_) | Answer::Failed => "given_up",
            };
            self.metrics.matrix.leaves_sent.with_label_values(&[how]).inc();
            if answer != Answer::Ok {
                let (room, user, device) = key.clone();
                self.ghosts.no_leave(now, &room, &Caller { user, device: Some(device), member: None });
            }
            self.leaves.leaves.remove(key);
            self.store.forget_leave(key);
        }
    }
}

fn leave_key(room: &str, caller: &Caller) -> Option<LeaveKey> {
    Some((room.to_owned(), caller.user.clone(), caller.device.clone()?))
}
