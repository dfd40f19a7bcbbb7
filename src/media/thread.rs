//! One media thread: its loop, and the supervisor that starts an empty shard when one has panicked.
//!
//! A turn: obey commands, take in what has arrived, serve timers, flush the shard, send, report. Each step has a limit,
//! so none starves another. The thread waits nowhere but in poll.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mio::{Events, Poll, Token};

use super::clock::Clock;
use super::tcp::TcpTable;
use super::udp::UdpPort;
use crate::base::{Instant, ShardId};
use crate::mailbox::{Inbox, Order, RelayBox, RelayedRun, Reporter, RingInlet, ThreadStats};
use crate::shard::outbox::Outbox;
use crate::shard::{Shard, ShardConfig};
use crate::transport::route::Route;

/// Token of the mailbox's waker.
pub(super) const WAKE: Token = Token(0);
/// Token of the first UDP socket; the others follow.
pub(super) const FIRST_UDP: usize = 1;
/// Commands, connections and questions taken per turn.
const ORDERS_PER_TURN: usize = 32;
/// Transports that are sent to before the thread looks for arrivals again. Fewer join more packets into one run and cost
/// more looks, each about a tenth of what sending to one transport costs.
const TRANSPORTS_PER_PART: usize = 12;
/// Most such looks per turn, so that commands and timers get theirs.
const LOOKS_PER_TURN: usize = 64;
/// Batches taken from each other shard per turn.
const BATCHES_PER_TURN: usize = 8;
/// How often counters are reported and slow things are looked after.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How soon to try again when control has not taken all reports.
const REPORT_AGAIN: Duration = Duration::from_millis(5);
/// How soon to try again when another media thread has not taken all there is for its shard.
const CROSS_AGAIN: Duration = Duration::from_millis(1);
/// Pause before a new shard runs when the last one lived shorter than `LONG_LIFE`: a bug at every turn must not eat
/// the machine.
const PAUSE_AFTER_DEATH: Duration = Duration::from_millis(200);
const LONG_LIFE: Duration = Duration::from_secs(10);

/// When the current turn began, in milliseconds since the clock's zero plus one; 0 while the thread sleeps. Written by
/// the thread, read by the watchdog.
pub(super) type Pulse = Arc<AtomicU64>;

/// Everything of a media thread that outlives a shard.
#[derive(Debug)]
pub(super) struct MediaThread {
    pub(super) index: usize,
    pub(super) clock: Clock,
    pub(super) poll: Poll,
    pub(super) udp: Vec<UdpPort>,
    pub(super) inbox: Inbox,
    pub(super) reporter: Reporter,
    pub(super) config: ShardConfig,
    pub(super) pulse: Pulse,
    pub(super) tcp: TcpTable,
    /// The TURN thread, if there is one.
    pub(super) relay: Option<RelayBox>,
    /// Ways to the other shards of the node, by their number.
    pub(super) rings: Vec<(ShardId, RingInlet)>,
    pub(super) outbox: Outbox,
    pub(super) stats: ThreadStats,
}

impl MediaThread {
    /// Serve until the mailbox says stop. A shard that panics takes its rooms with it, nothing else.
    pub(super) fn run(mut self) {
        loop {
            let born = self.clock.now();
            // The state that could be torn by a panic is thrown away below; what stays (sockets, queues) is changed
            // in steps that leave it whole.
            let result = catch_unwind(AssertUnwindSafe(|| self.serve()));
            if result.is_ok() {
                return;
            }
            // Where it happened, the panic hook has said. What it said may hold what a client sent.
            tracing::error!(thread = self.index, "a shard died, its rooms end");
            self.tcp.clear();
            self.outbox.clear();
            self.outbox.crossings.clear();
            self.stats.deaths += 1;
            self.reporter.shard_died();
            if self.clock.now().since(born) < LONG_LIFE {
                std::thread::park_timeout(PAUSE_AFTER_DEATH);
            }
        }
    }

    fn serve(&mut self) {
        let mut shard = Shard::new(self.config.clone(), seed());
        let mut events = Events::with_capacity(1_024);
        let mut housekeeping = self.clock.now();
        let mut all_reported = true;
        for port in &mut self.udp {
            port.set_ready();
        }
        while !self.inbox.is_stopped() {
            self.sleep(&shard, housekeeping, all_reported, &mut events);
            // The only time the core gets to see in this turn.
            let now = self.clock.now();
            self.pulse.store(now.as_millis() + 1, Ordering::Relaxed);
            let forwarded = shard.stats().rtp_forwarded;
            self.sort(&events);
            self.obey(now, &mut shard);
            self.take_relayed(now, &mut shard);
            self.receive(now, &mut shard);
            if shard.next_timeout().is_some_and(|at| at <= now) {
                shard.handle_timeout(now, &mut self.outbox);
            }
            // Others can seal for their subscribers while this one does.
            self.relay();
            self.flush(now, &mut shard);
            if housekeeping <= now {
                housekeeping = now + HOUSEKEEPING;
                self.keep_house(now, &shard);
            }
            all_reported = self.report();
            // A second look at the clock, for the histograms alone.
            let took = self.clock.now().since(now);
            self.stats.turns.add(took);
            self.stats.forwarding.add(took, shard.stats().rtp_forwarded.wrapping_sub(forwarded));
        }
    }

    /// Wait for something to do. Does not wait when there is something already.
    fn sleep(&mut self, shard: &Shard, housekeeping: Instant, all_reported: bool, events: &mut Events) {
        let now = self.clock.now();
        let until = |at: Instant| at.since(now);
        let mut timeout = until(housekeeping);
        if let Some(at) = shard.next_timeout() {
            timeout = timeout.min(until(at));
        }
        if !all_reported {
            timeout = timeout.min(REPORT_AGAIN);
        }
        if !self.outbox.crossings.is_empty() {
            timeout = timeout.min(CROSS_AGAIN);
        }
        let busy = self.udp.iter().any(UdpPort::is_ready) || self.tcp.is_ready() || !self.inbox.may_sleep();
        if busy {
            timeout = Duration::ZERO;
        }
        self.pulse.store(0, Ordering::Relaxed);
        // An interrupted poll is a short sleep; other errors mean a broken descriptor, which cannot be.
        let _ = self.poll.poll(events, Some(timeout));
        self.inbox.awake();
    }

    /// Note what the poll reported.
    fn sort(&mut self, events: &Events) {
        let first_tcp = self.first_tcp();
        for event in events {
            match event.token() {
                WAKE => {}
                Token(token) if token >= first_tcp => {
                    self.tcp.set_ready(token - first_tcp, event.is_readable(), event.is_writable());
                }
                Token(token) => {
                    if let Some(port) = self.udp.get_mut(token - FIRST_UDP) {
                        port.set_ready();
                    }
                }
            }
        }
    }

    const fn first_tcp(&self) -> usize {
        FIRST_UDP + self.udp.len()
    }

    /// Commands come before packets, so that what was sent by somebody removed in the same turn is not forwarded.
    fn obey(&mut self, now: Instant, shard: &mut Shard) {
        for _ in 0..ORDERS_PER_TURN {
            match self.inbox.take() {
                Some(Order::Command(command)) => shard.handle_command(now, command, &mut self.outbox),
                Some(Order::Connection(handed)) => {
                    let first = self.first_tcp();
                    self.tcp.add(now, handed, self.poll.registry(), first);
                }
                Some(Order::Relayed(mut batch)) => {
                    for (route, range) in batch.datagrams {
                        if let Some(datagram) = batch.bytes.get_mut(range) {
                            take(shard, now, route, datagram, &mut self.outbox);
                        }
                    }
                }
                // Nobody waits for the answer any more: fine.
                Some(Order::Inspect(reply)) => drop(reply.send(shard.state(now))),
                None => return,
            }
        }
    }

    /// What the other shards have for this one: after commands, so that nothing of somebody removed goes on.
    fn take_relayed(&mut self, now: Instant, shard: &mut Shard) {
        for ring in self.inbox.rings() {
            for _ in 0..BATCHES_PER_TURN {
                let Some(batch) = ring.take() else { break };
                shard.handle_relayed(now, ring.from(), &batch, &mut self.outbox);
                ring.done(batch);
            }
        }
    }

    /// What goes to other shards. What finds no place stays in the outbox.
    fn relay(&mut self) {
        for (to, batch) in self.outbox.crossings.full() {
            if let Some((_, ring)) = self.rings.iter().find(|(shard, _)| *shard == to) {
                ring.send(batch);
            } else {
                batch.clear();
            }
        }
    }

    fn receive(&mut self, now: Instant, shard: &mut Shard) {
        let outbox = &mut self.outbox;
        for port in &mut self.udp {
            port.receive(&mut self.stats, |route, datagram| take(shard, now, route, datagram, outbox));
        }
        self.tcp.receive(now, |route, datagram| take(shard, now, route, datagram, outbox));
        while let Some(route) = self.tcp.next_closed() {
            shard.route_closed(now, route, outbox);
        }
    }

    /// Send what was decided, a few transports at a time, and take in between what arrives meanwhile: the rest of a
    /// frame whose first packet woke us leaves with it, in one run, for all but the first few subscribers.
    fn flush(&mut self, now: Instant, shard: &mut Shard) {
        let mut now = now;
        for _ in 0..LOOKS_PER_TURN {
            let more = shard.flush_part(now, TRANSPORTS_PER_PART, &mut self.outbox);
            self.send(now);
            self.outbox.sent();
            if !more {
                return;
            }
            // Sending took its time: what is sent next is noted with the time it leaves at.
            now = self.clock.now();
            for port in &mut self.udp {
                port.set_ready();
            }
            self.receive(now, shard);
            self.relay();
        }
        shard.flush(now, &mut self.outbox);
        self.send(now);
    }

    fn send(&mut self, now: Instant) {
        for (transmit, run) in self.outbox.transmits() {
            match transmit.route {
                Route::Udp { local, remote } => match self.udp.iter().find(|port| port.serves(local)) {
                    Some(port) => port.send(local, remote, run, transmit.segment, &mut self.stats),
                    None => self.stats.send_failed += run.len().div_ceil(transmit.segment.max(1)) as u64,
                },
                Route::Tcp { connection, .. } => self.tcp.send(now, connection, run, transmit.segment, &mut self.stats),
                Route::Turn { allocation, peer, .. } => {
                    let run = RelayedRun { allocation, from: peer, bytes: run.to_vec(), segment: transmit.segment };
                    let lost = self.relay.as_ref().is_none_or(|relay| relay.send(run).is_err());
                    if lost {
                        self.stats.relay_full += 1;
                    }
                }
            }
        }
        self.tcp.flush(now);
        // After the flush: a last message (a DTLS alert) still gets its chance.
        for connection in &self.outbox.close_tcp {
            self.tcp.close(*connection);
        }
    }

    fn keep_house(&mut self, now: Instant, shard: &Shard) {
        self.tcp.sweep(now);
        // Should an arrival ever have been missed, it waits no longer than this.
        for port in &mut self.udp {
            port.set_ready();
        }
        let mut stats = Box::new(self.stats.clone());
        stats.shard = shard.stats().clone();
        stats.census = shard.census(now);
        stats.published = shard.published();
        stats.tcp_connections = u32::try_from(self.tcp.len()).unwrap_or(u32::MAX);
        stats.mailbox_depth = u32::try_from(self.inbox.depth()).unwrap_or(u32::MAX);
        stats.data_lost = self.reporter.data_lost();
        self.reporter.stats(stats);
    }

    /// `false`: control is slow, something is left.
    fn report(&mut self) -> bool {
        for event in self.outbox.events.drain(..) {
            self.reporter.event(event);
        }
        self.outbox.clear();
        self.reporter.flush()
    }
}

fn take(shard: &mut Shard, now: Instant, route: Route, datagram: &mut [u8], outbox: &mut Outbox) {
    #[cfg(test)]
    assert!(datagram != super::tests::POISON, "a poisoned datagram");
    shard.handle_datagram(now, route, datagram, outbox);
}

/// A seed nobody can guess; should the system have no randomness, the shard runs all the same: no key comes from it.
pub(super) fn seed() -> u64 {
    let mut bytes = [0; 8];
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}
