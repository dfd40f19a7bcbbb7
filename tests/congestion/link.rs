//! The bottleneck of the simulation: the model of `weir-loadtest net`, by a virtual clock, with rates by the second.

use weir_loadtest::net::link::{self, Counts, Link as Model};

/// Bytes of IP and UDP.
const HEADERS: usize = 28;
/// When the flow beside begins, ms.
const TCP_BEGINS: u64 = 10_000;

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
    /// Lost packets, thousandths, and how many are lost in a row on average.
    pub loss: u64,
    pub burst: u64,
    pub tcp: bool,
    /// The far end gives no transport-wide feedback.
    pub mute: bool,
    /// Both ends share a computer with too much to do: each stands still now and then, up to this long, ms.
    pub starved: u64,
    /// How many subscribers are behind it.
    pub viewers: usize,
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
            viewers: 1,
            seconds,
        }
    }

    pub fn rate(&self, ms: u64) -> u64 {
        self.rates.iter().rev().find(|(from, _)| *from * 1000 <= ms).map_or(0, |(_, rate)| *rate)
    }

    fn at(&self, ms: u64) -> link::Shape {
        link::Shape {
            rate: Some(self.rate(ms)),
            queue: self.queue,
            delay: self.delay,
            jitter: self.jitter,
            loss: self.loss * 1000,
            burst: self.burst,
            tcp: self.tcp && ms > TCP_BEGINS,
            ..link::Shape::default()
        }
    }
}

/// The link at work; a step is a millisecond.
pub struct Link {
    pub shape: Shape,
    model: Model<(usize, Vec<u8>)>,
}

impl Link {
    pub fn new(shape: Shape, seed: u64) -> Self {
        Self { model: Model::new(shape.at(0), seed), shape }
    }

    pub fn send(&mut self, ms: u64, viewer: usize, bytes: Vec<u8>) {
        self.model.send(ms * 1000, bytes.len() + HEADERS, (viewer, bytes));
    }

    /// What arrives in this millisecond, and at whom.
    pub fn step(&mut self, ms: u64) -> Vec<(usize, Vec<u8>)> {
        if *self.model.shape() != self.shape.at(ms) {
            self.model.set_shape(ms * 1000, self.shape.at(ms));
        }
        core::iter::from_fn(|| self.model.receive(ms * 1000)).collect()
    }

    /// What went through since it was asked last.
    pub fn counts(&mut self) -> Counts {
        self.model.take_counts()
    }
}
