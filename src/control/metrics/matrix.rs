//! Numbers about Matrix: tokens, what homeservers do, whom room state removed, what was cleaned up after somebody.

use prometheus::{Error, IntCounterVec, IntGauge, IntGaugeVec};

use super::build::Builder;

/// All of them.
#[derive(Debug)]
pub(in crate::control) struct MatrixNumbers {
    pub(in crate::control) tokens: IntCounterVec,
    pub(in crate::control) ejections: IntCounterVec,
    pub(in crate::control) clearings: IntCounterVec,
    pub(in crate::control) leaves: IntGauge,
    pub(in crate::control) leaves_sent: IntCounterVec,
    pub(in crate::control) last_push: IntGaugeVec,
    pub(in crate::control) homeserver_up: IntGaugeVec,
    pub(in crate::control) homeserver_pushes: IntGaugeVec,
    pub(in crate::control) lists_read: IntGaugeVec,
    pub(in crate::control) list_rules: IntGaugeVec,
    pub(in crate::control) lowered: IntGaugeVec,
}

impl MatrixNumbers {
    pub(super) fn new(make: &Builder<'_>) -> Result<Self, Error> {
        let of_homeserver = |name: &str, help: &str| make.gauges(name, help, &["homeserver"]);
        let by_result = |name: &str, help: &str| make.counters(name, help, &["result"]);
        Ok(Self {
            tokens: by_result("weir_matrix_token_requests_total", "Token requests by how they were answered.")?,
            ejections: make.counters(
                "weir_matrix_ejections_total",
                "Participants removed from calls because of what happened in the Matrix room, by cause.",
                &["reason"],
            )?,
            clearings: by_result(
                "weir_matrix_memberships_cleared_total",
                "Stale call memberships by what became of them; left: cleared less than ten minutes before.",
            )?,
            leaves: make.gauge("weir_matrix_delayed_leaves", "Delayed leaves weir looks after now.")?,
            leaves_sent: by_result("weir_matrix_delayed_leaves_ended_total", "Delayed leaves by how they ended.")?,
            last_push: of_homeserver(
                "weir_matrix_last_push_timestamp_seconds",
                "When a homeserver last pushed events, Unix time; 0: never.",
            )?,
            homeserver_up: of_homeserver(
                "weir_matrix_homeserver_up",
                "Whether a homeserver answered when it was last asked.",
            )?,
            homeserver_pushes: of_homeserver(
                "weir_matrix_homeserver_pushes",
                "Whether a homeserver could reach weir when it was last asked to; 0: rooms are polled instead.",
            )?,
            lists_read: of_homeserver(
                "weir_matrix_policy_lists_read_timestamp_seconds",
                "When the moderation list that was not read for longest was read, Unix time; 0: one never was.",
            )?,
            list_rules: of_homeserver("weir_matrix_policy_rules", "Rules of moderation lists that are honoured.")?,
            lowered: make.gauges(
                "weir_matrix_remote_video_lowered",
                "Calls and servers whose remote users' video is kept low by `matrix.remote_users`.",
                &["kind"],
            )?,
        })
    }

    /// Whatever can be counted starts at zero: the first one has to be seen as a change.
    pub(super) fn begin(&self) {
        let begin = |counters: &IntCounterVec, values: &[&str]| {
            for value in values {
                counters.with_label_values(&[*value]).inc_by(0);
            }
        };
        begin(&self.tokens, &["ok", "bad_request", "unauthorized", "forbidden", "limited", "unavailable", "error"]);
        begin(&self.ejections, &["not_in_room", "banned", "listed"]);
        begin(&self.clearings, &["cleared", "failed", "left"]);
        begin(&self.leaves_sent, &["sent", "gone", "given_up"]);
        for kind in ["room", "server"] {
            self.lowered.with_label_values(&[kind]).set(0);
        }
    }
}
