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
    /// SSRC of the track.
    pub ssrc: u32,
    /// A key frame is asked for.
    pub key_frame: Arc<AtomicBool>,
}

/// Counters of the thread.
#[derive(Debug, Default)]
pub struct Published {
    /// Packets of the window.
    pub counted: AtomicU64,
    /// Packets the kernel did not take.
    pub refused: AtomicU64,
}

/// Start the thread. It ends when the sender is dropped.
pub fn start(shape: Shape, window: Arc<Window>, published: Arc<Published>) -> anyhow::Result<Sender<Source>> {
    let (sender, sources) = std::sync::mpsc::channel();
    let every = Duration::from_secs(1) / shape.bursts_per_second();
    std::thread::Builder::new().name("publish".to_owned()).spawn(move || {
        run(shape, every, &window, &published, &sources);
    })?;
    Ok(sender)
}

fn run(shape: Shape, every: Duration, window: &Window, published: &Published, sources: &Receiver<Source>) {
    let mut all: Vec<(Source, Stream, Instant)> = Vec::new();
    let mut plain = Vec::with_capacity(1_500);
    loop {
        loop {
            match sources.try_recv() {
                Ok(source) => {
                    // Rooms do not send in step.
                    let offset = every * u32::try_from(all.len() % 16).unwrap_or(0) / 16;
                    let stream = Stream::new(shape, source.ssrc);
                    all.push((source, stream, clock() + offset));
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        let now = clock();
        let mut next = now + Duration::from_millis(10);
        for (source, stream, due) in &mut all {
            if *due <= now {
                *due += every;
                burst(shape, source, stream, window, published, &mut plain);
            }
            next = next.min(*due);
        }
        std::thread::park_timeout(next.saturating_duration_since(clock()));
    }
}

fn burst(
    shape: Shape,
    source: &mut Source,
    stream: &mut Stream,
    window: &Window,
    published: &Published,
    plain: &mut Vec<u8>,
) {
    let key = stream.packets == 0 || source.key_frame.swap(false, Ordering::Relaxed);
    for at in 0..shape.burst() {
        plain.clear();
        let sent = nanos();
        stream.packet(at, key, sent, plain);
        let Ok(sealed) = source.sealer.context.encrypt_rtp(plain) else { continue };
        if source.sealer.socket.send(&sealed).is_err() {
            published.refused.fetch_add(1, Ordering::Relaxed);
        }
        if window.holds(sent) {
            published.counted.fetch_add(1, Ordering::Relaxed);
        }
    }
}
