//! A bottleneck: a rate over time, a drop-tail queue, delay, smooth jitter, loss, a greedy flow beside.

use std::collections::VecDeque;

use weir::base::Rng;

/// What the link is like.
#[derive(Clone, Debug)]
pub struct Shape {
    /// From which second on which rate, bits per second.
    pub rates: Vec<(u64, u64)>,
    /// One way, ms.
    pub delay: u64,
    /// Longest queue, ms.
    pub queue: u64,
    /// At most, ms.
    pub jitter: u64,
    /// Chance that a loss begins, thousandths, and how many packets it takes on average.
    pub loss: u64,
    pub burst: u64,
    pub tcp: bool,
    /// The far end gives no transport-wide feedback.
    pub mute: bool,
    /// Both ends share a computer with too much to do: each stands still now and then, up to this long, ms.
    pub starved: u64,
    pub seconds: u64,
}

impl Shape {
    pub fn of(rates: &[(u64, u64)], seconds: u64) -> Self {
        let rates = rates.iter().map(|(s, kbps)| (*s, kbps * 1000)).collect();
        Self {
            rates,
            delay: 25,
            queue: 300,
            jitter: 0,
            loss: 0,
            burst: 1,
            tcp: false,
            mute: false,
            starved: 0,
            seconds,
        }
    }

    pub fn rate(&self, ms: u64) -> u64 {
        self.rates.iter().rev().find(|(from, _)| *from * 1000 <= ms).map_or(0, |(_, rate)| *rate)
    }
}

struct Waiting {
    entered: u64,
    /// `None`: of the other flow.
    bytes: Option<Vec<u8>>,
    size: usize,
}

/// The link at work; a step is a millisecond.
pub struct Link {
    pub shape: Shape,
    queue: VecDeque<Waiting>,
    queued: usize,
    credit: u64,
    road: VecDeque<(u64, Waiting)>,
    wobble: i64,
    last: u64,
    burst: u64,
    window: f64,
    threshold: f64,
    in_flight: f64,
    recover: u64,
    acks: VecDeque<(u64, bool)>,
    /// Milliseconds each packet of ours waited.
    pub waited: Vec<u32>,
    pub tcp_bytes: u64,
}

impl Link {
    pub fn new(shape: Shape) -> Self {
        Self {
            shape,
            queue: VecDeque::new(),
            queued: 0,
            credit: 0,
            road: VecDeque::new(),
            wobble: 0,
            last: 0,
            burst: 0,
            window: 10.0,
            threshold: 1e9,
            in_flight: 0.0,
            recover: 0,
            acks: VecDeque::new(),
            waited: Vec::new(),
            tcp_bytes: 0,
        }
    }

    pub fn send(&mut self, ms: u64, bytes: Vec<u8>) {
        let size = bytes.len() + 28;
        self.enqueue(ms, Some(bytes), size);
    }

    fn enqueue(&mut self, ms: u64, bytes: Option<Vec<u8>>, size: usize) -> bool {
        let limit = (self.shape.rate(ms) * self.shape.queue / 8000) as usize;
        if self.queued + size > limit.max(4000) {
            return false;
        }
        self.queued += size;
        self.queue.push_back(Waiting { entered: ms, bytes, size });
        true
    }

    /// What arrives in this millisecond.
    pub fn step(&mut self, ms: u64, rng: &mut Rng) -> Vec<Vec<u8>> {
        if self.shape.tcp && ms > 10_000 {
            self.tcp(ms);
        }
        self.credit += self.shape.rate(ms) / 8;
        while let Some(head) = self.queue.pop_front() {
            let cost = head.size as u64 * 1000;
            if cost > self.credit {
                self.queue.push_front(head);
                break;
            }
            self.credit -= cost;
            self.queued -= head.size;
            if head.bytes.is_some() {
                self.waited.push((ms - head.entered) as u32);
                if self.burst == 0 && rng.below(1000) < self.shape.loss {
                    self.burst = if self.shape.burst > 1 { 1 + rng.below(2 * self.shape.burst) } else { 1 };
                }
                if self.burst > 0 {
                    self.burst -= 1;
                    continue;
                }
            }
            let pull = rng.below(2 * self.shape.jitter * 10 + 1) as i64 - self.shape.jitter as i64 * 10;
            self.wobble = (self.wobble * 95 + pull * 30) / 100;
            let wobble = (self.wobble.unsigned_abs() / 10).min(self.shape.jitter);
            self.last = self.last.max(ms + self.shape.delay + wobble);
            self.road.push_back((self.last, head));
        }
        if self.queue.is_empty() {
            // A packet takes its time from when it comes.
            self.credit = 0;
        }
        let mut arrived = Vec::new();
        while let Some((at, _)) = self.road.front()
            && *at <= ms
        {
            let (_, packet) = self.road.pop_front().unwrap();
            match packet.bytes {
                Some(bytes) => arrived.push(bytes),
                None => {
                    self.acks.push_back((ms + self.shape.delay, true));
                    self.tcp_bytes += packet.size as u64;
                }
            }
        }
        arrived
    }

    fn tcp(&mut self, ms: u64) {
        self.acks.make_contiguous().sort_unstable();
        while let Some((at, good)) = self.acks.front().copied()
            && at <= ms
        {
            self.acks.pop_front();
            self.in_flight -= 1.0;
            if good {
                self.window += if self.window < self.threshold { 1.0 } else { 1.0 / self.window };
            } else if ms > self.recover {
                self.window = (self.window / 2.0).max(2.0);
                self.threshold = self.window;
                self.recover = ms + 2 * self.shape.delay + self.shape.queue;
            }
        }
        while self.in_flight < self.window {
            self.in_flight += 1.0;
            if !self.enqueue(ms, None, 1500) {
                self.acks.push_back((ms + 2 * self.shape.delay + self.shape.queue, false));
            }
        }
    }
}
