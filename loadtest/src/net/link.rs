//! One direction of a bad network: a rate with a drop-tail queue, delay, smooth jitter, loss in bursts, reordering, and a
//! greedy TCP flow beside. A pure value: time comes in as microseconds, chance from a seed.
//!
//! [`super`] puts two of them between real sockets; simulations with a virtual clock drive the same type. It models no
//! medium access and no active queue management.

use std::collections::VecDeque;

use super::tcp::Tcp;
use super::waits::Waits;

/// Microseconds in a millisecond.
const MS: u64 = 1000;
/// A queue holds at least this many bytes: two whole packets and some.
const LEAST_QUEUE: usize = 4000;
/// Parts of one.
const MILLION: u64 = 1_000_000;

/// What one direction is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bits per second, headers of IP and UDP counted; `None`: no bottleneck. 0: nothing passes.
    pub rate: Option<u64>,
    /// Longest queue in milliseconds of the rate.
    pub queue: u64,
    /// One way, ms.
    pub delay: u64,
    /// Added to the delay at most, ms. It wanders; packets keep their order.
    pub jitter: u64,
    /// Share of packets lost, in millionths.
    pub loss: u64,
    /// How many packets in a row a loss takes on average (Gilbert's model).
    pub burst: u64,
    /// Share of packets that come later than they should, in millionths, and how much later, ms.
    pub late: u64,
    /// See `late`.
    pub late_by: u64,
    /// A greedy TCP flow (NewReno) shares the queue.
    pub tcp: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self { rate: None, queue: 300, delay: 0, jitter: 0, loss: 0, burst: 1, late: 0, late_by: 20, tcp: false }
    }
}

/// What went through since it was asked last.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Packets that arrived at the far end, and their bytes with headers.
    pub delivered: u64,
    /// See `delivered`.
    pub bytes: u64,
    /// Packets that found the queue full.
    pub dropped: u64,
    /// Packets lost behind it.
    pub lost: u64,
    /// Packets that came later than they should.
    pub late: u64,
    /// Bits the link could have carried; 0 without a rate.
    pub capacity: u64,
    /// Bytes of the TCP flow.
    pub tcp_bytes: u64,
    /// How long packets waited in the queue.
    pub waits: Waits,
}

#[derive(Debug)]
struct Waiting<T> {
    entered: u64,
    size: usize,
    /// `None`: of the TCP flow.
    packet: Option<T>,
}

/// One direction at work.
#[derive(Debug)]
pub struct Link<T> {
    shape: Shape,
    random: u64,
    now: u64,
    queue: VecDeque<Waiting<T>>,
    queued: usize,
    /// Of the head of the queue, what is yet to leave: bits times a million.
    left: u64,
    /// On its way, by the time of arrival.
    road: VecDeque<(u64, Waiting<T>)>,
    /// Nothing that keeps its order arrives before this.
    last: u64,
    /// Tenths of a millisecond.
    wobble: i64,
    losing: bool,
    tcp: Tcp,
    counts: Counts,
}

impl<T> Link<T> {
    /// An empty one. The same seed gives the same chances.
    pub fn new(shape: Shape, seed: u64) -> Self {
        Self {
            shape,
            random: seed,
            now: 0,
            queue: VecDeque::new(),
            queued: 0,
            left: 0,
            road: VecDeque::new(),
            last: 0,
            wobble: 0,
            losing: false,
            tcp: Tcp::default(),
            counts: Counts::default(),
        }
    }

    /// What it is like now.
    pub const fn shape(&self) -> &Shape {
        &self.shape
    }

    /// From `now` on, it is like this. What waits already goes on waiting.
    pub fn set_shape(&mut self, now: u64, shape: Shape) {
        self.advance(now);
        self.shape = shape;
    }

    /// Counts since the last call.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// A packet of `size` bytes, headers included, enters. False when the queue is full.
    pub fn send(&mut self, now: u64, size: usize, packet: T) -> bool {
        self.advance(now);
        let taken = self.enqueue(Waiting { entered: self.now, size, packet: Some(packet) });
        if !taken {
            self.counts.dropped += 1;
        }
        taken
    }

    /// The next packet that has arrived by `now`.
    pub fn receive(&mut self, now: u64) -> Option<T> {
        self.advance(now);
        while self.road.front().is_some_and(|(at, _)| *at <= now) {
            let (at, arrived) = self.road.pop_front()?;
            if let Some(packet) = arrived.packet {
                self.counts.delivered += 1;
                self.counts.bytes += arrived.size as u64;
                return Some(packet);
            }
            self.counts.tcp_bytes += arrived.size as u64;
            self.tcp.on_delivered(at + self.shape.delay * MS);
        }
        None
    }

    /// When [`Self::receive`] is worth asking again, if ever.
    pub fn next_at(&self) -> Option<u64> {
        let arrival = self.road.front().map(|(at, _)| *at);
        let departure = match (self.queue.is_empty(), self.shape.rate) {
            (false, Some(rate)) if rate > 0 => Some(self.now + self.left.div_ceil(rate)),
            _ => None,
        };
        let tcp = self.runs_tcp().then_some(self.now - self.now % MS + MS);
        [arrival, departure, tcp].into_iter().flatten().min()
    }

    const fn runs_tcp(&self) -> bool {
        self.shape.tcp && self.shape.rate.is_some()
    }

    fn enqueue(&mut self, waiting: Waiting<T>) -> bool {
        let Some(rate) = self.shape.rate else {
            self.depart(waiting);
            return true;
        };
        let limit = usize::try_from(rate * self.shape.queue / 8000).unwrap_or(usize::MAX).max(LEAST_QUEUE);
        if self.queued + waiting.size > limit {
            return false;
        }
        if self.queue.is_empty() {
            self.left = bits(&waiting);
        }
        self.queued += waiting.size;
        self.queue.push_back(waiting);
        true
    }

    /// Let time pass.
    pub fn advance(&mut self, to: u64) {
        while self.now < to {
            let end = if self.runs_tcp() { to.min(self.now - self.now % MS + MS) } else { to };
            self.counts.capacity += self.shape.rate.unwrap_or(0) * (end - self.now) / MILLION;
            self.serve(end);
            if self.runs_tcp() && self.now.is_multiple_of(MS) {
                let round_trip = (2 * self.shape.delay + self.shape.queue) * MS;
                for _ in 0..self.tcp.due(self.now, round_trip) {
                    let taken = self.enqueue(Waiting { entered: self.now, size: Tcp::PACKET, packet: None });
                    self.tcp.on_sent(taken, self.now + round_trip);
                }
            }
        }
    }

    fn serve(&mut self, end: u64) {
        loop {
            let needs = match self.shape.rate {
                Some(0) => break,
                Some(rate) => self.left.div_ceil(rate),
                None => 0,
            };
            if self.queue.is_empty() {
                break;
            }
            if self.now + needs > end {
                let sent = self.shape.rate.unwrap_or(0) * (end - self.now);
                self.left = self.left.saturating_sub(sent);
                break;
            }
            self.now += needs;
            let Some(head) = self.queue.pop_front() else { break };
            self.queued -= head.size;
            self.left = self.queue.front().map_or(0, bits);
            self.depart(head);
        }
        self.now = end;
    }

    /// Leaves the queue: it is lost, or on its way.
    fn depart(&mut self, waiting: Waiting<T>) {
        if waiting.packet.is_some() {
            self.counts.waits.add((self.now - waiting.entered) / MS);
            if self.loses() {
                self.counts.lost += 1;
                return;
            }
        }
        let most = i64::try_from(self.shape.jitter * 10).unwrap_or(i64::MAX);
        let pull = i64::try_from(self.below(2 * self.shape.jitter * 10 + 1)).unwrap_or(0) - most;
        // A slow walk towards chance: neighbours are delayed alike, as on radio links.
        self.wobble = (self.wobble * 95 + pull * 30) / 100;
        let wobble = (self.wobble.unsigned_abs() * MS / 10).min(self.shape.jitter * MS);
        let at = self.now + self.shape.delay * MS + wobble;
        if waiting.packet.is_some() && self.below(MILLION) < self.shape.late {
            self.counts.late += 1;
            let at = at + self.shape.late_by * MS;
            let place = self.road.partition_point(|(other, _)| *other <= at);
            self.road.insert(place, (at, waiting));
            return;
        }
        self.last = self.last.max(at);
        let place = self.road.partition_point(|(other, _)| *other <= self.last);
        self.road.insert(place, (self.last, waiting));
    }

    fn loses(&mut self) -> bool {
        let burst = self.shape.burst.max(1);
        if self.losing {
            self.losing = self.below(burst) != 0;
            return true;
        }
        // How often a run begins, so that runs of that length make up the share.
        let loss = self.shape.loss.min(MILLION);
        let begins = loss * MILLION / (loss + burst * (MILLION - loss)).max(1);
        if self.below(MILLION) >= begins {
            return false;
        }
        self.losing = self.below(burst) != 0;
        true
    }

    /// SplitMix64.
    const fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

const fn bits<T>(waiting: &Waiting<T>) -> u64 {
    waiting.size as u64 * 8 * MILLION
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends a packet of 1000 bytes every `every` ms for a second; gives what arrives with its time in ms.
    fn arrivals(shape: Shape, every: u64) -> (Vec<(u64, u64)>, Counts) {
        let mut link = Link::new(shape, 1);
        let mut arrived = Vec::new();
        for ms in 0..5000 {
            if ms < 1000 && ms % every == 0 {
                link.send(ms * MS, 1000, ms);
            }
            while let Some(sent) = link.receive(ms * MS) {
                arrived.push((sent, ms));
            }
        }
        (arrived, link.take_counts())
    }

    #[test]
    fn packets_take_their_time_at_the_bottleneck() {
        // 8 ms for each, and one comes every 10.
        let shape = Shape { rate: Some(1_000_000), delay: 30, ..Shape::default() };
        let (arrived, counts) = arrivals(shape, 10);
        assert_eq!(arrived.len(), 100);
        assert!(arrived.iter().all(|(sent, at)| at - sent == 38), "{arrived:?}");
        assert_eq!((counts.dropped, counts.lost, counts.bytes), (0, 0, 100_000));
    }

    #[test]
    fn a_full_queue_drops_and_delays_no_longer_than_it_is() {
        let shape = Shape { rate: Some(400_000), queue: 200, ..Shape::default() };
        let (arrived, counts) = arrivals(shape, 10);
        let longest = arrived.iter().map(|(sent, at)| at - sent).max().unwrap_or(0);
        assert!((180..=201).contains(&longest), "{longest}");
        assert!(counts.dropped >= 35 && counts.waits.percentile(95) >= 150, "{counts:?}");
        assert_eq!(arrived.len() as u64 + counts.dropped, 100);
    }

    #[test]
    fn loss_has_its_share_alone_and_in_bursts() {
        for burst in [1, 8] {
            let mut link = Link::new(Shape { loss: 100_000, burst, ..Shape::default() }, 7);
            let mut runs = 0;
            let mut before = true;
            for n in 0..100_000u64 {
                link.send(n * MS, 100, ());
                let came = link.receive(n * MS).is_some();
                runs += u64::from(before && !came);
                before = came;
            }
            let lost = link.take_counts().lost;
            assert!((9_000..11_000).contains(&lost), "burst {burst}: {lost}");
            let length = lost / runs.max(1);
            assert!(if burst == 1 { length == 1 } else { (6..10).contains(&length) }, "burst {burst}: {length}");
        }
    }

    #[test]
    fn jitter_keeps_the_order_and_lateness_does_not() {
        let ordered = arrivals(Shape { jitter: 30, ..Shape::default() }, 2).0;
        assert!(ordered.is_sorted(), "{ordered:?}");
        assert!(ordered.iter().any(|(sent, at)| at - sent >= 5), "{ordered:?}");
        assert!(ordered.iter().all(|(sent, at)| at - sent <= 30 + 500), "{ordered:?}");
        let (late, counts) = arrivals(Shape { late: 100_000, ..Shape::default() }, 2);
        assert!(!late.is_sorted() && counts.late > 20 && late.len() == 500);
    }

    #[test]
    fn nothing_passes_a_dead_link_and_it_comes_back() {
        let mut link = Link::new(Shape { rate: Some(0), ..Shape::default() }, 1);
        assert!(link.send(0, 1000, ()));
        assert_eq!((link.receive(1_000_000), link.next_at()), (None, None));
        link.set_shape(1_000_000, Shape { rate: Some(8_000_000), ..Shape::default() });
        assert_eq!(link.next_at(), Some(1_001_000));
        assert_eq!(link.receive(1_001_000), Some(()));
    }

    #[test]
    fn a_greedy_flow_fills_what_is_left() {
        let mut link: Link<()> =
            Link::new(Shape { rate: Some(3_000_000), delay: 25, tcp: true, ..Shape::default() }, 1);
        for ms in 0..20_000 {
            let _ = link.receive(ms * MS);
        }
        let counts = link.take_counts();
        let share = counts.tcp_bytes * 8 * 100 / counts.capacity;
        assert!((85..=100).contains(&share), "{share} %");
    }
}
