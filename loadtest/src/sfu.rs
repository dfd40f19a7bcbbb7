//! `weir-loadtest sfu`: participants in rooms of any server that speaks LiveKit's protocol, and what came of it. Other
//! modes let them in by other doors ([`run_at`]).
//!
//! Everybody joins ([`crowd`]), everything is looked at once a second ([`measure`]), and with `--find-limit` more join
//! until something breaks.

mod crowd;
mod measure;
mod progress;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

use crate::door::{Door, Keyed};
use crate::fault::Fault;
use crate::light::engine::{Engine, Window};
use crate::light::publish::{self, Published};
use crate::peers::{Peers, Speaks};
use crate::report::{Limit, Percentiles, Report, Second};
use crate::scenario::{Scenario, ScenarioArgs};
use crate::scrape::Scraper;
use crate::stats::{Histogram, resident_kb};
use crowd::{Crowd, Member};
use measure::{Meter, Moment, float};
use progress::Progress;

/// Between the last join and the measurement.
const WARM_UP: u64 = 2;
/// After it, for what is under way.
const TAIL: Duration = Duration::from_millis(700);
/// A generator busier than this measures itself.
pub const BUSY_LIMIT: f64 = 80.0;
/// Steps of a search.
const MAX_STEPS: u32 = 64;

/// What grows in a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Grow {
    /// Participants of each room.
    Participants,
    /// Rooms.
    Rooms,
}

/// What to do.
#[derive(Clone, Debug, Args)]
pub struct SfuArgs {
    /// Base address of the server
    #[arg(long, default_value = "ws://127.0.0.1:7880")]
    pub url: String,
    /// API key
    #[arg(long, default_value = "devkey", env = "LIVEKIT_API_KEY")]
    pub api_key: String,
    /// API secret
    #[arg(long, default_value = "secret", env = "LIVEKIT_API_SECRET", hide_env_values = true)]
    pub api_secret: String,
    /// Room to join, or the beginning of the rooms' names
    #[arg(long, default_value = "load")]
    pub room: String,
    /// What the server speaks: livekit, or for comparison janus (its WebSocket)
    #[arg(long, default_value = "livekit", hide_possible_values = true, value_name = "PROTOCOL")]
    pub speaks: Speaks,
    /// What happens there
    #[command(flatten)]
    pub run: RunArgs,
}

/// What happens, whoever takes part.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// For how long to measure, in seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub duration: u64,
    /// Joins under way at a time
    #[arg(long, default_value_t = 8)]
    pub joins: usize,
    /// Joins per second; 0: as fast as they go
    #[arg(long, default_value_t = 0, value_name = "PER_SECOND")]
    pub ramp: u32,
    /// Who takes part
    #[command(flatten)]
    pub scenario: ScenarioArgs,
    /// Let more and more join until a limit breaks, and say which
    #[arg(long, value_name = "WHAT", help_heading = "Search")]
    pub find_limit: Option<Grow>,
    /// Seconds that each step of the search must hold
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600), help_heading = "Search")]
    pub step_seconds: u64,
    /// Growth from step to step, in percent
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=400), help_heading = "Search")]
    pub step_percent: u32,
    /// Where the search ends in any case
    #[arg(long, default_value_t = 2_000, help_heading = "Search")]
    pub up_to: u32,
    /// What must hold
    #[command(flatten)]
    pub thresholds: Thresholds,
    /// Process of the server on this machine: its processor time and memory are measured too
    #[arg(long, help_heading = "Server")]
    pub server_pid: Option<u32>,
    /// The server's metrics, as http://127.0.0.1:6789/metrics: the same from afar
    #[arg(long, conflicts_with = "server_pid", help_heading = "Server")]
    pub metrics_url: Option<String>,
    /// Write the report here as JSON
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub json: Option<PathBuf>,
    /// Write the report here as one HTML page with plots
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub html: Option<PathBuf>,
    /// Plant a fault in what complete participants receive, as drop:20 (of a thousand packets): drop, corrupt, reorder,
    /// delay or swap. Shows that it is found
    #[arg(long, value_name = "KIND:PER_MILLE", help_heading = "Report")]
    pub plant: Option<Fault>,
}

/// What must hold, or the exit code is 3.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Thresholds (exit code 3 when one breaks)")]
pub struct Thresholds {
    /// Least share of packets and frames that arrive (a search takes 99.9)
    #[arg(long, value_name = "PERCENT")]
    pub min_delivery: Option<f64>,
    /// Greatest latency, 99th percentile, in milliseconds (a search takes 50)
    #[arg(long, value_name = "MS")]
    pub max_latency_p99: Option<f64>,
    /// Greatest time to join, 99th percentile, in milliseconds
    #[arg(long, value_name = "MS")]
    pub max_join_p99: Option<f64>,
    /// Greatest time to the first media, 99th percentile, in milliseconds
    #[arg(long, value_name = "MS")]
    pub max_first_media_p99: Option<f64>,
    /// Most freezes
    #[arg(long, value_name = "COUNT")]
    pub max_freezes: Option<u64>,
    /// No fault of any kind may be found
    #[arg(long)]
    pub no_faults: bool,
}

/// Run it, show what happens, give the report.
pub async fn run(args: &SfuArgs) -> anyhow::Result<Report> {
    let scenario = args.run.scenario.scenario()?;
    let door = Keyed {
        url: args.url.clone(),
        key: args.api_key.clone(),
        secret: args.api_secret.clone(),
        room: args.room.clone(),
        peers: Peers::open(args.speaks, &args.url, &scenario).await?,
        only_room: scenario.rooms == 1 && args.run.find_limit != Some(Grow::Rooms),
    };
    run_at(&args.run, &args.url, Arc::new(door), scenario).await
}

/// The same where participants come in by this door; `url` is for the report.
pub async fn run_at(args: &RunArgs, url: &str, door: Arc<dyn Door>, scenario: Scenario) -> anyhow::Result<Report> {
    if args.find_limit.is_some() && (scenario.churn > 0 || scenario.e2ee) {
        bail!("a search is for scenarios without churn and encryption");
    }
    let window = Arc::new(Window::default());
    let published = Arc::new(Published::default());
    let engine = Engine::start(Arc::clone(&window))?;
    let sources = publish::start(Arc::clone(&window), Arc::clone(&published))?;
    let scraper = args.metrics_url.as_deref().map(Scraper::new).transpose()?;
    let meter = Meter::new(engine.clone(), args.server_pid, scraper);
    let crowd = Crowd::new(door, scenario, (engine, sources), args.joins, args.plant)?;
    let mut run = Run {
        args,
        crowd,
        meter,
        window,
        published,
        report: begin(url),
        progress: Progress::new(),
        stop: stop_by_signal(),
    };
    let done = run.go().await;
    run.progress.end();
    run.crowd.leave_all().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    done.map(|()| run.report)
}

#[expect(clippy::disallowed_methods, reason = "a report says when it was made")]
fn begin(url: &str) -> Report {
    Report {
        url: url.to_owned(),
        began: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        ..Report::default()
    }
}

struct Run<'a> {
    args: &'a RunArgs,
    crowd: Crowd,
    meter: Meter,
    window: Arc<Window>,
    published: Arc<Published>,
    report: Report,
    progress: Progress,
    /// Somebody wants it to end.
    stop: Arc<AtomicBool>,
}

/// Set when the process is interrupted for the first time; the second time ends it at once.
fn stop_by_signal() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = Arc::clone(&stop);
    tokio::spawn(async move {
        // Where there are no signals nobody is interrupted.
        while tokio::signal::ctrl_c().await.is_ok() {
            if stopping.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
            eprintln!("\nthe run ends early; once more ends it at once");
        }
    });
    stop
}

impl Run<'_> {
    async fn go(&mut self) -> anyhow::Result<()> {
        let scenario = &self.crowd.scenario;
        let all: Vec<(u32, u32)> =
            (0..scenario.rooms).flat_map(|room| (0..scenario.participants).map(move |number| (room, number))).collect();
        let publishers = scenario.publishers();
        let (first, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, number)| *number < publishers);
        // Memory is of what joins after those who publish.
        let pid = self.args.server_pid.map(|pid| pid.to_string());
        self.join(&first).await?;
        let memory = pid.as_deref().and_then(resident_kb).map(|kb| (kb, rest.len()));
        self.join(&rest).await?;
        for _ in 0..WARM_UP {
            self.second().await?;
        }
        let before = self.start().await?;
        if self.args.find_limit.is_some() {
            self.search().await?;
        } else {
            self.hold(self.args.duration).await?;
        }
        let after_kb = pid.as_deref().and_then(resident_kb);
        self.finish(&before).await?;
        if let (Some((before, joined)), Some(after)) = (memory, after_kb)
            && joined > 0
        {
            self.report.server_kb_per_subscriber = Some((float(after) - float(before)) / float(joined as u64));
        }
        Ok(())
    }

    /// Let them join while it is looked at.
    async fn join(&mut self, who: &[(u32, u32)]) -> anyhow::Result<()> {
        // A part at a time, so that there is a second to look at in between.
        let part = if self.args.ramp > 0 { self.args.ramp as usize } else { 64 };
        for part in who.chunks(part) {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let known = self.crowd.seats.len();
            let (failed, why) = self.crowd.join(part, self.args.ramp).await;
            for seat in self.crowd.seats.iter().skip(known) {
                self.meter.joined(seat.join_ns);
            }
            self.report.failed_joins += failed as u64;
            if let Some(why) = why {
                eprintln!("{failed} could not join: {why:#}");
                if self.crowd.seats.is_empty() {
                    return Err(why.context("nobody could join"));
                }
            }
            self.look().await?;
        }
        Ok(())
    }

    /// A second passes.
    async fn second(&mut self) -> anyhow::Result<()> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.look().await
    }

    async fn look(&mut self) -> anyhow::Result<()> {
        let second = self.meter.second(&mut self.crowd).await?;
        self.progress.show(&second);
        self.report.series.push(second);
        Ok(())
    }

    /// What is measured begins here.
    async fn start(&mut self) -> anyhow::Result<Moment> {
        self.meter.second(&mut self.crowd).await?;
        self.meter.delays = Histogram::default();
        self.window.open();
        Ok(self.meter.moment())
    }

    /// Let it run, with leaves and turns as the scenario has them.
    async fn hold(&mut self, seconds: u64) -> anyhow::Result<()> {
        let (churn, turns) = (self.crowd.scenario.churn, u64::from(self.crowd.scenario.turns));
        let every = u64::from(churn * self.crowd.scenario.rooms);
        let mut replaced = 0;
        for second in 0..seconds {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            if turns > 0 && second % turns == 0 {
                self.crowd.speak(u32::try_from(second / turns).unwrap_or(0)).await;
            }
            while replaced < (second + 1) * every / 60 {
                replaced += 1;
                self.replace(replaced).await?;
            }
            self.second().await?;
        }
        Ok(())
    }

    /// One leaves, and another takes its place.
    async fn replace(&mut self, count: u64) -> anyhow::Result<()> {
        let candidates: Vec<usize> =
            (0..self.crowd.seats.len()).filter(|at| self.crowd.seats[*at].number > 0).collect();
        let Some(at) = usize::try_from(count).ok().and_then(|n| candidates.get(n * 7 % candidates.len().max(1))) else {
            return Ok(());
        };
        let (room, number) = (self.crowd.seats[*at].room, self.crowd.seats[*at].number);
        self.crowd.leave(*at).await?;
        self.join(&[(room, number)]).await
    }

    /// More and more join until something breaks.
    async fn search(&mut self) -> anyhow::Result<()> {
        let grow = self.args.find_limit.unwrap_or(Grow::Participants);
        let of = if grow == Grow::Rooms { "rooms" } else { "participants of each room" };
        let mut limit = Limit { of: of.to_owned(), ..Limit::default() };
        for _ in 0..MAX_STEPS {
            let failed = self.report.failed_joins;
            let from = self.report.series.len();
            self.hold(self.args.step_seconds).await?;
            let now = if grow == Grow::Rooms { self.crowd.scenario.rooms } else { self.crowd.scenario.participants };
            let why = self.broken(from, failed);
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            if !why.is_empty() {
                (limit.broke, limit.why) = (Some(now), why);
                break;
            }
            limit.held = Some(now);
            let next = (now + (now * self.args.step_percent / 100).max(1)).min(self.args.up_to);
            if next <= now {
                break;
            }
            let joined = self.report.failed_joins;
            self.grow(grow, now, next).await?;
            if self.report.failed_joins > joined {
                (limit.broke, limit.why) = (Some(next), vec!["participants could not join".to_owned()]);
                break;
            }
            self.second().await?;
        }
        self.report.limit = Some(limit);
        Ok(())
    }

    async fn grow(&mut self, grow: Grow, now: u32, next: u32) -> anyhow::Result<()> {
        let scenario = &mut self.crowd.scenario;
        let new: Vec<(u32, u32)> = match grow {
            Grow::Rooms => {
                scenario.rooms = next;
                (now..next).flat_map(|room| (0..scenario.participants).map(move |number| (room, number))).collect()
            }
            Grow::Participants => {
                // Those who come now are light and listen, where not everybody is complete or publishes.
                let everybody = |count: &mut u32| {
                    if *count == now {
                        *count = next;
                    }
                };
                everybody(&mut scenario.microphones);
                everybody(&mut scenario.cameras);
                everybody(&mut scenario.full);
                scenario.participants = next;
                (0..scenario.rooms).flat_map(|room| (now..next).map(move |number| (room, number))).collect()
            }
        };
        self.join(&new).await
    }

    /// What of the limits of a search the seconds from here on broke.
    fn broken(&self, from: usize, failed: u64) -> Vec<String> {
        let seconds = self.report.series.get(from..).unwrap_or_default();
        let thresholds = &self.args.thresholds;
        let (least, most) = (thresholds.min_delivery.unwrap_or(99.9), thresholds.max_latency_p99.unwrap_or(50.0));
        let mut why = Vec::new();
        let mut unless = |holds: bool, words: String| {
            if !holds {
                why.push(words);
            }
        };
        let mean = |of: fn(&Second) -> Option<f64>| {
            let values: Vec<f64> = seconds.iter().filter_map(of).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / float(values.len() as u64))
        };
        let delivery = mean(|second| second.delivery_percent).unwrap_or(0.0);
        let p99 = mean(|second| second.p99_ms).unwrap_or(0.0);
        let busy = mean(|second| Some(second.generator_percent)).unwrap_or(0.0);
        unless(busy <= BUSY_LIMIT, format!("the generator was {busy:.0} % busy: it is what ran out, not the server"));
        unless(delivery >= least, format!("delivery {delivery:.3} % is below {least} %"));
        unless(p99 <= most, format!("latency p99 {p99:.1} ms is above {most} ms"));
        unless(self.report.failed_joins == failed, "participants could not join".to_owned());
        if !why.is_empty()
            && let Some(server) = mean(|second| second.server_percent)
        {
            why.push(format!("the server was at {server:.0} % of a processor"));
        }
        why
    }

    async fn finish(&mut self, before: &Moment) -> anyhow::Result<()> {
        let after = self.meter.moment();
        self.window.close();
        tokio::time::sleep(TAIL).await;
        let last = self.meter.second(&mut self.crowd).await?;
        let end = self.meter.moment();
        let silent = self.report.series.last().map_or(0, |second| second.streams_wanted.saturating_sub(second.streams));
        let silent = silent.min(last.streams_wanted.saturating_sub(last.streams));
        self.fill(before, &after, &end);
        self.report.faults =
            self.meter.faults(before, if self.crowd.scenario.churn > 0 { 0 } else { silent }, self.crowd.keyless);
        let (mut joins, mut firsts) = (Histogram::default(), Histogram::default());
        for seat in &mut self.crowd.seats {
            joins.add(seat.join_ns);
            let first = match &mut seat.member {
                Member::Light(joined) => joined.first_media.try_recv().ok(),
                Member::Full(_) => seat.last.snapshot.received.values().filter_map(|r| r.first_frame_ns).min(),
            };
            if let Some(at) = first {
                firsts.add(at.saturating_sub(seat.began));
            }
        }
        let report = &mut self.report;
        report.join_ms = Percentiles::of(&joins);
        report.first_media_ms = Percentiles::of(&firsts);
        report.scenario = self.crowd.scenario.clone();
        report.participants = self.crowd.seats.len() as u64;
        report.broken = self.args.thresholds.broken(report);
        Ok(())
    }

    /// Figures of the time between, packets under way at its end included.
    fn fill(&mut self, before: &Moment, after: &Moment, end: &Moment) {
        let scenario = &self.crowd.scenario;
        let report = &mut self.report;
        let (totals, tally) = (&end.totals, &end.tally);
        let seconds = float(after.at - before.at) / 1e9;
        let frames = tally.frames.since(&before.tally.frames);
        report.seconds = seconds;
        report.published = self.published.counted.load(Ordering::Relaxed);
        let is_fixed = scenario.full == 0 && scenario.churn == 0 && self.args.find_limit.is_none();
        (report.delivered, report.expected) = if is_fixed {
            // Everybody gets everything but its own: exact, packets lost at the ends of the time included.
            (totals.counted, report.published * u64::from(scenario.participants - 1))
        } else {
            (totals.came - before.totals.came, totals.spanned - before.totals.spanned)
        };
        report.frames = frames;
        report.others = tally.others;
        let (came, should) = (report.delivered + frames.right, report.expected + frames.expected());
        report.delivery_percent = if should == 0 { 100.0 } else { float(came) / float(should) * 100.0 };
        // What was under way at the end counts as delivered, but not into the rates: it came after the time.
        let (light, full) = (after.totals.came - before.totals.came, after.tally.packets - before.tally.packets);
        let packets = if is_fixed { report.delivered } else { light + full };
        report.packets_per_second = float(packets) / seconds;
        let bytes = after.totals.bytes - before.totals.bytes + after.tally.bytes - before.tally.bytes;
        report.mbit_per_second = float(bytes) * 8.0 / seconds / 1e6;
        report.disordered = totals.disordered - before.totals.disordered + tally.disordered - before.tally.disordered;
        let foreign = if scenario.full == 0 { totals.unknown - before.totals.unknown } else { 0 };
        report.wrong = totals.unauthentic - before.totals.unauthentic + foreign + frames.wrong;
        report.latency_ms = Percentiles::of(&totals.latency);
        report.frame_delay_ms = Percentiles::of(&self.meter.delays);
        let busy = float(after.generator_us - before.generator_us) / (seconds * 1e4);
        report.generator_cpu_percent = busy / float(report.processors as u64);
        report.void = report.generator_cpu_percent > BUSY_LIMIT;
        let spent = before.server.cpu_seconds.zip(after.server.cpu_seconds).map(|(before, after)| after - before);
        report.server_cpu_percent = spent.map(|spent| spent / seconds * 100.0);
        report.server_cpu_us_per_packet = spent.map(|spent| spent * 1e6 / float(packets.max(1)));
    }
}

impl Thresholds {
    /// Those that the report breaks, in words.
    pub fn broken(&self, report: &Report) -> Vec<String> {
        let mut broken = Vec::new();
        let mut at_most = |name: &str, limit: Option<f64>, found: &Percentiles| {
            if let Some(limit) = limit
                && (found.count == 0 || found.p99 > limit)
            {
                broken.push(format!("{name} p99 {:.1} ms of {} is above {limit} ms", found.p99, found.count));
            }
        };
        let light = report.latency_ms.count > 0;
        at_most("latency", self.max_latency_p99, if light { &report.latency_ms } else { &report.frame_delay_ms });
        at_most("join", self.max_join_p99, &report.join_ms);
        at_most("first media", self.max_first_media_p99, &report.first_media_ms);
        if self.min_delivery.is_some_and(|least| report.delivery_percent < least) {
            broken.push(format!("delivery {:.3} % is below the least", report.delivery_percent));
        }
        if self.max_freezes.is_some_and(|most| report.frames.freezes > most) {
            broken.push(format!("{} freezes are too many", report.frames.freezes));
        }
        if self.no_faults && (!report.faults.is_empty() || report.failed_joins > 0) {
            let names: Vec<&str> = report.faults.iter().map(|fault| fault.name.as_str()).collect();
            broken.push(format!("faults: {} ({} joins failed)", names.join(", "), report.failed_joins));
        }
        broken
    }
}

/// What `run` returns is to be written: the files that were asked for, and the summary.
pub fn write(args: &RunArgs, report: &Report) -> anyhow::Result<()> {
    println!("{}", report.summary());
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_vec_pretty(report)?).with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &args.html {
        std::fs::write(path, crate::report::html::page(report)).with_context(|| path.display().to_string())?;
    }
    Ok(())
}
