//! `weir-loadtest sfu`: light participants against any server that speaks LiveKit's protocol, and what came of it.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use serde::Serialize;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use crate::light::engine::{Engine, Order, Totals, Window};
use crate::light::join::{Joined, Ticket, join};
use crate::light::peer::Identity;
use crate::light::publish::{self, Published, Source};
use crate::light::shape::Shape;
use crate::stats::{Histogram, cpu_us, nanos, resident_kb};
use crate::token;

/// Between the last join and the measurement.
const WARM_UP: Duration = Duration::from_secs(2);
/// After it, for what is under way.
const TAIL: Duration = Duration::from_millis(700);
/// A generator busier than this measures itself.
const BUSY_LIMIT: f64 = 80.0;

/// What to do.
#[derive(Clone, Debug, Args)]
pub struct SfuArgs {
    /// Base address of the server.
    #[arg(long, default_value = "ws://127.0.0.1:7880")]
    pub url: String,
    /// API key.
    #[arg(long, default_value = "devkey")]
    pub api_key: String,
    /// API secret.
    #[arg(long, default_value = "secret")]
    pub api_secret: String,
    /// What each room's publisher sends.
    #[arg(long, default_value = "V")]
    pub shape: Shape,
    /// Subscribers in each room.
    #[arg(long, default_value_t = 10)]
    pub subscribers: u32,
    /// Rooms, each with one publisher.
    #[arg(long, default_value_t = 1)]
    pub rooms: u32,
    /// For how long to measure, in seconds.
    #[arg(long, default_value_t = 10)]
    pub duration: u64,
    /// Room to join, or the beginning of the rooms' names.
    #[arg(long, default_value = "load")]
    pub room: String,
    /// Joins under way at a time.
    #[arg(long, default_value_t = 8)]
    pub joins: usize,
    /// Process of the server on this machine: its processor time and memory are measured too.
    #[arg(long)]
    pub server_pid: Option<u32>,
    /// Write the report here as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// Three percentiles, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Percentiles {
    /// Half are not above.
    pub p50: f64,
    /// 99 % are not above.
    pub p99: f64,
    /// 99.9 % are not above.
    pub p999: f64,
}

/// What came of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Letter of the shape.
    pub shape: &'static str,
    /// Rooms.
    pub rooms: u32,
    /// Subscribers of each.
    pub subscribers: u32,
    /// Time measured, in seconds.
    pub seconds: f64,
    /// Packets published.
    pub published: u64,
    /// Packets that should have arrived.
    pub expected: u64,
    /// Packets that arrived.
    pub delivered: u64,
    /// Share of them.
    pub delivery_percent: f64,
    /// Packets forwarded per second.
    pub packets_per_second: f64,
    /// RTP payload forwarded, in Mbit/s.
    pub payload_mbit_per_second: f64,
    /// Packets that came twice or out of order.
    pub disordered: u64,
    /// Packets that did not open, or ended with something else than was sent.
    pub wrong: u64,
    /// From sending to receiving, in milliseconds.
    pub latency_ms: Percentiles,
    /// From the first octet to SRTP being up.
    pub join_ms: Percentiles,
    /// From the first octet to the first media packet.
    pub first_media_ms: Percentiles,
    /// How busy the generator's processors were.
    pub generator_cpu_percent: f64,
    /// The generator was too busy for the figures to mean anything.
    pub void: bool,
    /// Processor time of the server per forwarded packet, in microseconds.
    pub server_cpu_us_per_packet: Option<f64>,
    /// How busy the server was, in percent of one processor.
    pub server_cpu_percent: Option<f64>,
    /// Resident memory of the server that came with each subscriber, in kB.
    pub server_kb_per_subscriber: Option<f64>,
}

/// Run it, print what happens, give the report.
pub async fn run(args: &SfuArgs) -> anyhow::Result<Report> {
    if args.rooms == 0 || args.subscribers == 0 {
        bail!("at least one room and one subscriber");
    }
    let window = Arc::new(Window::default());
    let published = Arc::new(Published::default());
    let engine = Engine::start(Arc::clone(&window))?;
    let sources = publish::start(args.shape, Arc::clone(&window), Arc::clone(&published))?;
    let identity = Arc::new(Identity::new()?);
    let pid = args.server_pid.map(|pid| pid.to_string());

    let mut publishers = Vec::new();
    for room in 0..args.rooms {
        let ticket = ticket(args, room, None)?;
        let mut joined = join(&ticket, &identity, &engine).await.context("a publisher cannot join")?;
        let sealer = joined.sealer.take().context("a publisher without keys")?;
        let source = Source { sealer, ssrc: joined.ssrc, key_frame: Arc::clone(&joined.key_frame) };
        sources.send(source).map_err(|_| anyhow!("the publishing thread has ended"))?;
        publishers.push(joined);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let memory_before = pid.as_deref().and_then(resident_kb);
    let mut subscribers = join_all(args, &identity, &engine).await?;
    tokio::time::sleep(WARM_UP).await;

    let measure = || (nanos(), cpu_us("self"), pid.as_deref().and_then(cpu_us));
    let before = measure();
    window.open();
    let progress = Progress::new();
    for second in 1..=args.duration {
        tokio::time::sleep(Duration::from_secs(1)).await;
        progress.show(second, args, &totals(&engine).await?, pid.as_deref());
    }
    window.close();
    let after = measure();
    let memory_after = pid.as_deref().and_then(resident_kb);
    tokio::time::sleep(TAIL).await;
    progress.end();
    let totals = totals(&engine).await?;

    let (mut joins, mut firsts) = (Histogram::default(), Histogram::default());
    for subscriber in &mut subscribers {
        joins.add(subscriber.join_ns);
        if let Ok(at) = subscriber.first_media.try_recv() {
            firsts.add(at.saturating_sub(subscriber.began));
        }
    }
    subscribers.into_iter().chain(publishers).for_each(Joined::leave);
    tokio::time::sleep(Duration::from_millis(200)).await;
    // It may have ended by itself.
    let _ = engine.send(Order::Stop);
    let memory = memory_before.zip(memory_after);
    Ok(report(args, &published, &totals, &joins, &firsts, before, after, memory))
}

fn ticket(args: &SfuArgs, room: u32, subscriber: Option<u32>) -> anyhow::Result<Ticket> {
    let name = if args.rooms == 1 { args.room.clone() } else { format!("{}-{room}", args.room) };
    let identity = subscriber.map_or_else(|| "publisher".to_owned(), |n| format!("subscriber-{n}"));
    let number = room * (args.subscribers + 1) + subscriber.map_or(0, |n| n + 1);
    let token = token::join_token(&args.api_key, &args.api_secret, &identity, &name)?;
    Ok(Ticket { url: args.url.clone(), token, number, shape: args.shape, publishes: subscriber.is_none() })
}

async fn join_all(args: &SfuArgs, identity: &Arc<Identity>, engine: &Sender<Order>) -> anyhow::Result<Vec<Joined>> {
    let gate = Arc::new(Semaphore::new(args.joins.max(1)));
    let mut joining = JoinSet::new();
    for room in 0..args.rooms {
        for subscriber in 0..args.subscribers {
            let ticket = ticket(args, room, Some(subscriber))?;
            let (gate, identity, engine) = (Arc::clone(&gate), Arc::clone(identity), engine.clone());
            joining.spawn(async move {
                let _turn = gate.acquire_owned().await?;
                join(&ticket, &identity, &engine).await
            });
        }
    }
    let mut joined = Vec::new();
    while let Some(result) = joining.join_next().await {
        joined.push(result.context("a join panicked")?.context("a subscriber cannot join")?);
    }
    Ok(joined)
}

async fn totals(engine: &Sender<Order>) -> anyhow::Result<Totals> {
    let (reply, told) = oneshot::channel();
    engine.send(Order::Tell(reply)).map_err(|_| anyhow!("the receiving thread has ended"))?;
    told.await.context("the receiving thread has ended")
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn milliseconds(histogram: &Histogram) -> Percentiles {
    let at = |share| histogram.percentile(share) as f64 / 1e6;
    Percentiles { p50: at(0.5), p99: at(0.99), p999: at(0.999) }
}

/// Time, processor time of the generator and of the server, in nanoseconds and microseconds.
type Moment = (u64, Option<u64>, Option<u64>);

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
#[expect(clippy::too_many_arguments, reason = "all that was seen, once")]
fn report(
    args: &SfuArgs,
    published: &Published,
    totals: &Totals,
    joins: &Histogram,
    firsts: &Histogram,
    before: Moment,
    after: Moment,
    memory: Option<(u64, u64)>,
) -> Report {
    let seconds = (after.0 - before.0) as f64 / 1e9;
    let sent = published.counted.load(Ordering::Relaxed);
    let expected = sent * u64::from(args.subscribers);
    let spent = |a: Option<u64>, b: Option<u64>| Some(b?.saturating_sub(a?) as f64);
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64;
    let generator = spent(before.1, after.1).unwrap_or(0.0) / (seconds * 1e6 * processors) * 100.0;
    let server = spent(before.2, after.2);
    let all = f64::from(args.subscribers * args.rooms);
    Report {
        shape: args.shape.letter(),
        rooms: args.rooms,
        subscribers: args.subscribers,
        seconds,
        published: sent,
        expected,
        delivered: totals.counted,
        delivery_percent: totals.counted as f64 / (expected.max(1)) as f64 * 100.0,
        packets_per_second: totals.counted as f64 / seconds,
        payload_mbit_per_second: totals.counted as f64 * (args.shape.payload() * 8) as f64 / seconds / 1e6,
        disordered: totals.disordered,
        wrong: totals.unauthentic + totals.unknown,
        latency_ms: milliseconds(&totals.latency),
        join_ms: milliseconds(joins),
        first_media_ms: milliseconds(firsts),
        generator_cpu_percent: generator,
        void: generator > BUSY_LIMIT,
        server_cpu_us_per_packet: server.map(|us| us / totals.counted.max(1) as f64),
        server_cpu_percent: server.map(|us| us / (seconds * 1e4)),
        server_kb_per_subscriber: memory.map(|(before, after)| (after as f64 - before as f64) / all),
    }
}

impl Report {
    /// For people.
    pub fn summary(&self) -> String {
        let percentiles = |p: &Percentiles| format!("p50 {:.2}  p99 {:.2}  p99.9 {:.2} ms", p.p50, p.p99, p.p999);
        let mut text = format!(
            "shape {}, {} room(s) of 1 to {}, {:.1} s\n\
             delivery    {:.3} % ({} of {} packets, {} out of order, {} wrong)\n\
             forwarded   {:.0} packets/s, {:.1} Mbit/s of payload\n\
             latency     {}\n\
             join        {}\n\
             first media {}\n\
             generator   {:.0} % busy{}\n",
            self.shape,
            self.rooms,
            self.subscribers,
            self.seconds,
            self.delivery_percent,
            self.delivered,
            self.expected,
            self.disordered,
            self.wrong,
            self.packets_per_second,
            self.payload_mbit_per_second,
            percentiles(&self.latency_ms),
            percentiles(&self.join_ms),
            percentiles(&self.first_media_ms),
            self.generator_cpu_percent,
            if self.void { ": VOID, the generator was the limit" } else { "" },
        );
        if let (Some(cost), Some(busy)) = (self.server_cpu_us_per_packet, self.server_cpu_percent) {
            text.push_str(&format!("server      {cost:.2} us of processor per forwarded packet, {busy:.0} % busy"));
        }
        if let Some(memory) = self.server_kb_per_subscriber {
            text.push_str(&format!(", {memory:.0} kB more resident memory per subscriber"));
        }
        text
    }
}

/// The line that lives while it runs.
struct Progress {
    terminal: bool,
    last: std::cell::Cell<(u64, u64, u64)>,
}

impl Progress {
    fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), last: std::cell::Cell::new((nanos(), 0, 0)) }
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn show(&self, second: u64, args: &SfuArgs, totals: &Totals, server: Option<&str>) {
        let (at, cpu) = (nanos(), server.and_then(cpu_us).unwrap_or(0));
        let (at_before, packets_before, cpu_before) = self.last.replace((at, totals.counted, cpu));
        let elapsed = (at - at_before) as f64 / 1e9;
        let rate = (totals.counted - packets_before) as f64 / elapsed;
        let p99 = milliseconds(&totals.recent).p99;
        let mut line = format!("{second:>4}/{} s  {rate:>8.0} packets/s  p99 {p99:.2} ms", args.duration);
        if server.is_some() && cpu_before > 0 {
            line.push_str(&format!("  server {:.0} %", (cpu - cpu_before) as f64 / elapsed / 1e4));
        }
        if self.terminal {
            eprint!("\r\x1b[K{line}");
            // A line that does not show harms nobody.
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }

    fn end(&self) {
        if self.terminal {
            eprintln!();
        }
    }
}
