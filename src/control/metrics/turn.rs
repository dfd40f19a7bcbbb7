//! Numbers of the TURN service. Its thread counts and reports about once a second; what is new in a report is added here.

use prometheus::{Error, IntCounterVec, IntGaugeVec};

use super::build::Builder;
use crate::turn::{Lost, Refusal, Stats};

/// All of them.
#[derive(Debug)]
pub(in crate::control) struct TurnNumbers {
    allocations: IntGaugeVec,
    allocated: IntCounterVec,
    datagrams: IntCounterVec,
    bytes: IntCounterVec,
    refused: IntCounterVec,
    lost: IntCounterVec,
}

impl TurnNumbers {
    pub(super) fn new(make: &Builder<'_>) -> Result<Self, Error> {
        const RELAYED: [&str; 2] = ["kind", "direction"];
        Ok(Self {
            allocations: make.gauges("weir_turn_allocations", "Allocations now, by what they are for.", &["kind"])?,
            allocated: make.counters("weir_turn_allocations_made_total", "Allocations made.", &["kind"])?,
            datagrams: make.counters("weir_turn_datagrams_total", "Datagrams relayed.", &RELAYED)?,
            bytes: make.counters("weir_turn_bytes_total", "Bytes relayed, without what TURN adds.", &RELAYED)?,
            refused: make.counters("weir_turn_refused_total", "TURN requests refused.", &["reason"])?,
            lost: make.counters("weir_turn_lost_total", "Datagrams of TURN not relayed.", &["reason"])?,
        })
    }

    /// Whatever can be counted starts at zero.
    pub(super) fn begin(&self) {
        self.fold(&Stats::default());
    }

    /// Take over the counters of the thread. They never go back: it lives as long as the process.
    pub(in crate::control) fn fold(&self, stats: &Stats) {
        let raise = |counters: &IntCounterVec, labels: &[&str], to: u64| {
            let counter = counters.with_label_values(labels);
            counter.inc_by(to.saturating_sub(counter.get()));
        };
        for (name, of) in [("media", &stats.media), ("legacy_calls", &stats.calls)] {
            self.allocations.with_label_values(&[name]).set(i64::try_from(of.allocations).unwrap_or(i64::MAX));
            raise(&self.allocated, &[name], of.allocated);
            for (direction, traffic) in [("to_peers", of.to_peers), ("to_clients", of.to_clients)] {
                raise(&self.datagrams, &[name, direction], traffic.datagrams);
                raise(&self.bytes, &[name, direction], traffic.bytes);
            }
        }
        for reason in Refusal::ALL {
            raise(&self.refused, &[reason.label()], stats.refused(reason));
        }
        for reason in Lost::ALL {
            raise(&self.lost, &[reason.label()], stats.lost(reason));
        }
    }
}
