//! What users of other homeservers publish, against the ceilings of `matrix.remote_users`.

use signalling::matrix::server_name::server_of_user;

use super::super::calls::HomeId;
use super::super::ceilings::{Group, Published};
use super::{Order, Service};
use crate::config::RemoteUsersConfig;

/// How often the ceilings are looked at, ms.
const REVIEW: i64 = 1_000;

impl Service {
    /// What holds for users of other homeservers in rooms known through this one.
    pub(super) fn remote_policy(&self, home: HomeId) -> &RemoteUsersConfig {
        let own = self.homes.get(home.0).and_then(|it| it.server.config.remote_users.as_ref());
        own.unwrap_or(&self.config.remote_users)
    }

    /// What participants of a call publish, in bit/s.
    pub(super) fn on_rates(&mut self, now: i64, room: &str, rates: Vec<(String, u64)>) {
        let (calls, homes) = (&self.calls, &self.homes);
        let remote = rates.into_iter().filter_map(|(identity, bps)| {
            let known = calls.known(room, &identity).map(|(_, known)| known)?;
            let home = known.home?;
            let is_local = homes.get(home.0)?.server.is_local(&known.caller.user);
            let server = server_of_user(&known.caller.user)?.to_owned();
            (!is_local).then_some(Published { identity, home, server, bps })
        });
        self.ceilings.note(now, room, remote);
    }

    pub(super) fn review_ceilings(&mut self, now: i64) {
        if now < self.review_at {
            return;
        }
        self.review_at = now + REVIEW;
        let mut ceilings = std::mem::take(&mut self.ceilings);
        let news = ceilings.review(now, |group| {
            let kbps = match group {
                Group::Room(home, _) => self.remote_policy(*home).max_kbps_per_room,
                Group::Server(home, _) => self.remote_policy(*home).max_kbps_per_server,
            };
            u64::from(kbps) * 1_000
        });
        let (rooms, servers) = ceilings.lowered();
        self.ceilings = ceilings;
        for (kind, count) in [("room", rooms), ("server", servers)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.metrics.matrix.lowered.with_label_values(&[kind]).set(count);
        }
        for ((room, identity), max_spatial) in news {
            if let Some((_, known)) = self.calls.known(&room, &identity) {
                let user = known.caller.user.clone();
                let words = match max_spatial {
                    Some(_) => {
                        "has its video kept low: users of other homeservers publish much (`matrix.remote_users`)"
                    }
                    None => "may send all layers of its video again",
                };
                self.decisions.note(now, &user, words);
            }
            self.order(Order::Lower { room, identity, max_spatial });
        }
    }
}
