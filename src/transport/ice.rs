//! ICE-lite (RFC 8445, 2.5): answers checks, never sends one, and follows the far end's nomination.
//!
//! A route is learned from an authentic check and only so. The route of the latest check with USE-CANDIDATE is the one
//! to send on; before there was one, the first that was checked, so that DTLS can begin. Also keeps time: when the
//! far end was last heard, and when that is too long ago.

use aws_lc_rs::hmac;

use crate::base::{DropReason, Instant};
use crate::shard::event::CloseReason;
use crate::shard::outbox::Outbox;
use crate::transport::params::IceCredentials;
use crate::transport::route::Route;
use crate::transport::{Checked, Config, stun};

/// Selected routes silent for this long give way to one that something comes by: the far end's address has changed (NAT
/// rebinding), and its checks for consent (RFC 7675) need not nominate anew.
const SILENT: core::time::Duration = core::time::Duration::from_millis(500);

/// Our end of ICE.
#[derive(Debug)]
pub(crate) struct IceLite {
    current: Credentials,
    /// After a restart, until a check with it arrived.
    next: Option<Credentials>,
    /// The far end's ufrag, once known.
    remote_ufrag: Option<String>,
    /// Checked routes, the longest unheard of first.
    routes: Vec<Route>,
    max_routes: usize,
    selected: Option<Route>,
    /// Whether `selected` was nominated, by USE-CANDIDATE.
    nominated: bool,
    /// When something authentic came by `selected` last.
    selected_heard: Instant,
    made: Instant,
    first_check: Option<Instant>,
    heard: Instant,
    ice_timeout: core::time::Duration,
    liveness_timeout: core::time::Duration,
    checks: u64,
    route_changes: u64,
}

#[derive(Debug)]
struct Credentials {
    ufrag: String,
    key: hmac::Key,
}

impl Credentials {
    fn new(credentials: &IceCredentials) -> Self {
        Self { ufrag: credentials.ufrag.clone(), key: stun::integrity_key(&credentials.pwd) }
    }
}

impl IceLite {
    /// Waiting for checks to `local`.
    pub(crate) fn new(now: Instant, local: &IceCredentials, config: &Config) -> Self {
        let max_routes = config.max_routes.max(1);
        Self {
            current: Credentials::new(local),
            next: None,
            remote_ufrag: None,
            routes: Vec::with_capacity(max_routes),
            max_routes,
            selected: None,
            nominated: false,
            selected_heard: now,
            made: now,
            first_check: None,
            heard: now,
            ice_timeout: config.ice_timeout,
            liveness_timeout: config.liveness_timeout,
            checks: 0,
            route_changes: 0,
        }
    }

    /// Take a STUN message; an authentic check is answered on the route it came by.
    ///
    /// # Errors
    /// Why it was dropped without an answer (or, for a role conflict, answered by an error).
    pub(crate) fn handle_stun(
        &mut self,
        now: Instant,
        route: Route,
        packet: &[u8],
        out: &mut Outbox,
    ) -> Result<Checked, DropReason> {
        let request = stun::parse(packet)?;
        let (local, remote) = request.ice_username().ok_or(DropReason::StunRefused)?;
        let is_next = self.next.as_ref().is_some_and(|next| next.ufrag == local);
        let credentials = match &self.next {
            Some(next) if is_next => next,
            _ if self.current.ufrag == local => &self.current,
            _ => return Err(DropReason::StunRefused),
        };
        if !request.is_authentic(&credentials.key) {
            return Err(DropReason::StunRefused);
        }
        // From here on it is the far end that signalling told our password. Until an answer told us its ufrag (or after
        // its restart before the new answer) any is taken: the password is what authenticates.
        if request.controlled {
            out.datagram(route, |arena| {
                request.write_role_conflict(&credentials.key, arena);
                Some(())
            });
            return Err(DropReason::StunRefused);
        }
        // RFC 8445, 7.3.1.5: a nomination from the far end's former session must not undo the new one.
        let stale = !is_next && self.next.is_none() && self.remote_ufrag.as_ref().is_some_and(|ufrag| ufrag != remote);
        out.datagram(route, |arena| {
            request.write_success(route.reflexive(), &credentials.key, arena);
            Some(())
        });
        let mut checked = Checked::default();
        if is_next && let Some(next) = self.next.take() {
            checked.retired = Some(core::mem::replace(&mut self.current, next).ufrag);
            // The new session nominates for itself.
            self.nominated = false;
        }
        self.checks += 1;
        self.heard = now;
        self.first_check.get_or_insert(now);
        self.learn(route, &mut checked);
        // One checked before is a spare of the far end's, which it goes on checking.
        let moved = checked.bound == Some(route) && self.is_silent(now) && !stale;
        if request.use_candidate && !stale {
            self.select(route);
            self.nominated = true;
        } else if self.selected.is_none() || (checked.retired.is_some() && !self.nominated) || moved {
            self.select(route);
        }
        if self.selected == Some(route) {
            self.selected_heard = now;
        }
        Ok(checked)
    }

    fn learn(&mut self, route: Route, checked: &mut Checked) {
        if let Some(at) = self.routes.iter().position(|known| *known == route) {
            if let Some(rest) = self.routes.get_mut(at..) {
                rest.rotate_left(1);
            }
            return;
        }
        if self.routes.len() >= self.max_routes {
            let oldest = self.routes.iter().position(|known| Some(*known) != self.selected).unwrap_or_default();
            let evicted = self.routes.remove(oldest);
            if self.selected == Some(evicted) {
                self.selected = None;
            }
            checked.evicted = Some(evicted);
        }
        self.routes.push(route);
        checked.bound = Some(route);
    }

    fn select(&mut self, route: Route) {
        if self.selected != Some(route) {
            self.selected = Some(route);
            self.route_changes += 1;
        }
    }

    /// The far end's ufrag, from signalling.
    pub(crate) fn set_remote_ufrag(&mut self, ufrag: &str) {
        self.remote_ufrag = Some(ufrag.to_owned());
    }

    /// Accept checks to `local` too; the first one retires the credentials of now. Gives the ufrag of a former restart
    /// that never came to that.
    pub(crate) fn restart(&mut self, local: &IceCredentials) -> Option<String> {
        if self.current.ufrag == local.ufrag {
            return None;
        }
        self.next.replace(Credentials::new(local)).map(|former| former.ufrag).filter(|ufrag| *ufrag != local.ufrag)
    }

    /// A route is gone. The one heard of last takes its place.
    pub(crate) fn forget(&mut self, route: Route) {
        self.routes.retain(|known| *known != route);
        if self.selected == Some(route) {
            self.selected = self.routes.last().copied();
            self.nominated = false;
        }
    }

    /// Whether an authentic check came by this route.
    pub(crate) fn knows(&self, route: Route) -> bool {
        self.routes.contains(&route)
    }

    fn is_silent(&self, now: Instant) -> bool {
        now.since(self.selected_heard) >= SILENT
    }

    /// Media arrived by this route: where the far end sends from is where it listens.
    pub(crate) fn arrived_by(&mut self, now: Instant, route: Route) {
        if self.selected == Some(route) {
            self.selected_heard = now;
        } else if self.is_silent(now) && self.knows(route) {
            self.select(route);
            self.selected_heard = now;
        }
    }

    /// Something authentic arrived.
    pub(crate) const fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Where to send.
    pub(crate) const fn route(&self) -> Option<Route> {
        self.selected
    }

    /// When the first authentic check came.
    pub(crate) const fn first_check(&self) -> Option<Instant> {
        self.first_check
    }

    /// When it is to be called dead, and as what.
    pub(crate) fn deadline(&self) -> (Instant, CloseReason) {
        if self.first_check.is_none() {
            (self.made + self.ice_timeout, CloseReason::IceTimeout)
        } else {
            (self.heard + self.liveness_timeout, CloseReason::Silent)
        }
    }

    /// Checks answered and changes of route, so far.
    pub(crate) const fn counts(&self) -> (u64, u64) {
        (self.checks, self.route_changes)
    }
}

#[cfg(test)]
pub(crate) mod tests;
