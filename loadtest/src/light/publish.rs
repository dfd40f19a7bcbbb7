//! One thread for all that is published: bursts of packets on time, one system call each, as clients send them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use crate::light::engine::{Sealer, Window};
use crate::light::shape::{Shape, Stream};
use crate::peer::now as clock;
use crate::stats::nanos;

/// A publisher to send for.
#[derive(Debug)]
pub struct Source {
    /// What to send with.
    pub sealer: Sealer,
    /// Its tracks and their SSRCs.
    pub tracks: Vec<(Shape, u32)>,
    /// A key frame is asked for.
    pub key_frame: Arc<AtomicBool>,
    /// Nothing is sent while it is set; the participant has left once its sender is gone.
    pub quiet: Arc<AtomicBool>,
}

/// Counters of the thread.
#[derive(Debug, Default)]
pub struct Published {
    /// Packets, in the window or not.
    pub packets: AtomicU64,
    /// Packets of the window.
    pub counted: AtomicU64,
    /// Packets the kernel did not take.
    pub refused: AtomicU64,
}

/// A track that is sent.
struct Sending {
    stream: Stream,
    every: Duration,
    due: Instant,
}

/// A publisher with its tracks.
struct Publisher {
    source: Source,
    sending: Vec<Sending>,
    /// Packets of all its tracks, for the transport-wide number.
    packets: u16,
}

/// Start the thread. It ends when the sender is dropped.
pub fn start(window: Arc<Window>, published: Arc<Published>) -> anyhow::Result<Sender<Source>> {
    let (sender, sources) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("publish".to_owned()).spawn(move || run(&window, &published, &sources))?;
    Ok(sender)
}

fn run(window: &Window, published: &Published, sources: &Receiver<Source>) {
    let mut all: Vec<Publisher> = Vec::new();
    let mut plain = Vec::with_capacity(1_500);
    loop {
        loop {
            match sources.try_recv() {
                Ok(source) => all.push(Publisher::new(source, all.len())),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        // Who left holds the switch no longer.
        all.retain(|publisher| Arc::strong_count(&publisher.source.quiet) > 1);
        let now = clock();
        let mut next = now + Duration::from_millis(10);
        for publisher in &mut all {
            next = next.min(publisher.turn(now, window, published, &mut plain));
        }
        std::thread::park_timeout(next.saturating_duration_since(clock()));
    }
}

impl Publisher {
    fn new(source: Source, number: usize) -> Self {
        // Publishers do not send in step.
        let step = u32::try_from(number % 16).unwrap_or(0);
        let sending = source.tracks.iter().map(|(shape, ssrc)| {
            let every = Duration::from_secs(1) / shape.bursts_per_second();
            Sending { stream: Stream::new(*shape, *ssrc), every, due: clock() + every * step / 16 }
        });
        Self { sending: sending.collect(), source, packets: 0 }
    }

    /// Send what is due; says when something is due again.
    fn turn(&mut self, now: Instant, window: &Window, published: &Published, plain: &mut Vec<u8>) -> Instant {
        let mut next = now + Duration::from_secs(1);
        for sending in &mut self.sending {
            if sending.due <= now {
                sending.due += sending.every;
                if !self.source.quiet.load(Ordering::Relaxed) {
                    burst(&mut self.source, &mut self.packets, &mut sending.stream, window, published, plain);
                }
            }
            next = next.min(sending.due);
        }
        next
    }
}

fn burst(
    source: &mut Source,
    packets: &mut u16,
    stream: &mut Stream,
    window: &Window,
    published: &Published,
    plain: &mut Vec<u8>,
) {
    let shape = stream.shape();
    let key = shape.is_video() && (stream.packets == 0 || source.key_frame.swap(false, Ordering::Relaxed));
    for at in 0..shape.burst() {
        plain.clear();
        let sent = nanos();
        stream.packet(at, key, sent, *packets, plain);
        *packets = packets.wrapping_add(1);
        let Ok(sealed) = source.sealer.context.encrypt_rtp(plain) else { continue };
        if source.sealer.socket.send(&sealed).is_err() {
            published.refused.fetch_add(1, Ordering::Relaxed);
        }
        published.packets.fetch_add(1, Ordering::Relaxed);
        if window.holds(sent) {
            published.counted.fetch_add(1, Ordering::Relaxed);
        }
    }
}
