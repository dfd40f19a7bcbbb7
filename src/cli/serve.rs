//! `weir serve`: start a node, say where it listens, run until a signal, take leave in order.

use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;

use clap::Args;
use signalling::token::VideoGrant;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Source, print};
use crate::config::{Bind, Config, DEV_KEY, DEV_SECRET};
use crate::control::{Server, Started, auth, logging, system};

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    source: Source,
    /// Address HTTP listens on, instead of those of the configuration; may be given several times.
    #[arg(long, value_name = "IP")]
    bind: Vec<Bind>,
    /// Address clients reach media at, where it is not the machine's own.
    #[arg(long, value_name = "IP")]
    node_ip: Option<IpAddr>,
}

/// How long the token of `--dev` is good.
const DEV_TOKEN: Duration = Duration::from_secs(24 * 3600);
/// How long the runtime may take to end what is left.
const LAST_MOMENT: Duration = Duration::from_millis(500);

pub(super) fn run(args: &ServeArgs) -> Result<(), String> {
    let mut config = args.source.read().map_err(|e| e.to_string())?;
    if !args.bind.is_empty() {
        config.bind_addresses.clone_from(&args.bind);
    }
    if let Some(ip) = args.node_ip {
        config.rtc.node_ip = ip.to_string();
    }
    config.check().map_err(|e| match &args.source.config {
        Some(file) => e.in_file(file).to_string(),
        None => e.to_string(),
    })?;
    logging::start(&config.logging);
    quiet_panics();
    for note in config.notes.iter().chain(&config.matrix.state_problem()) {
        tracing::warn!("{note}");
    }
    let files = system::raise_open_files(config.limit.open_files);
    if files < u64::from(config.limit.max_participants) {
        tracing::warn!(files, "fewer open files than `limit.max_participants`: raise the limit of the service");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("weir-control")
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start: {e}"))?;
    let result = runtime.block_on(serve(&config));
    runtime.shutdown_timeout(LAST_MOMENT);
    result
}

async fn serve(config: &Config) -> Result<(), String> {
    let mut signals = Signals::new().map_err(|e| format!("cannot take signals: {e}"))?;
    let server = Server::start(config).map_err(|e| e.to_string())?;
    print(&banner(config, server.started()));
    // Fails where no service manager asked for it.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tokio::select! {
        () = signals.stop(|| server.reload()) => {}
        () = server.asked_to_end() => {}
    }
    let wait = config.drain.patience().as_secs();
    tracing::info!(wait, "stopping: no new calls; those that run end or are moved; a second signal ends at once");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    tokio::select! {
        () = server.drain() => {}
        () = signals.stop(|| ()) => tracing::info!("ending at once"),
    }
    // Stops the media threads, which blocks for the length of a loop turn.
    tokio::task::block_in_place(|| drop(server));
    Ok(())
}

/// A panic is reported where it happened, without its message: that may hold what a client sent.
fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a fault of weir: please report it");
    }));
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Until SIGTERM or SIGINT. SIGHUP has certificates read again.
    async fn stop(&mut self, reload: impl Fn()) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => reload(),
            }
        }
    }
}

/// What a person wants to know at the start.
fn banner(config: &Config, started: &Started) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let mut line = |what: &str, value: &str| {
        let _ = writeln!(out, "  {what:<8} {value}");
    };
    let list = |items: &[String]| items.join(", ");
    let shown =
        |addresses: &[std::net::SocketAddr]| list(&addresses.iter().map(ToString::to_string).collect::<Vec<_>>());
    let url = started.http.first().map(|address| ws_url(*address, config.tls.is_on())).unwrap_or_default();
    line("http", &shown(&started.http));
    line("url", &url);
    line("udp", &shown(&started.udp));
    line("tcp", &if started.tcp.is_empty() { "off".to_owned() } else { shown(&started.tcp) });
    if let Some(turn) = &started.turn {
        let ports = [("udp", &turn.udp), ("tcp", &turn.tcp), ("tls", &turn.tls)];
        let ports = ports.iter().filter(|(_, bound)| !bound.is_empty());
        line("turn", &list(&ports.map(|(how, bound)| format!("{how} {}", shown(bound))).collect::<Vec<_>>()));
    }
    line("clients", &list(&started.advertised.iter().map(ToString::to_string).collect::<Vec<_>>()));
    if let Some(address) = started.metrics.first() {
        line("metrics", &format!("http://{address}/metrics"));
    }
    if let Some(address) = started.admin.first() {
        line("status", &format!("http://{address}/"));
    }
    for home in &config.matrix.homeservers {
        line("matrix", &format!("{}: {}", home.server_name, home.feed.words(config.matrix.without_feed)));
    }
    if config.matrix.is_on() {
        let kept = config.matrix.state_path().filter(|_| config.matrix.state_problem().is_none());
        line("state", &kept.map_or_else(|| "in memory, lost when weir ends".to_owned(), |it| it.display().to_string()));
    }
    if config.development {
        line("key", &format!("{DEV_KEY} (secret: {DEV_SECRET}), for trying out only"));
        let video = VideoGrant { room_join: true, room: "demo".to_owned(), room_create: true, ..VideoGrant::default() };
        if let Ok(token) = auth::mint(&config.keys, "you", video, DEV_TOKEN) {
            line("token", &token);
            let _ = write!(out, "{}", try_it(&url, &token));
        }
    }
    format!("weir {} is running\n{out}", env!("CARGO_PKG_VERSION"))
}

/// One line that uses the token, with a client everybody can open.
fn try_it(url: &str, token: &str) -> String {
    format!(
        "\nJoin room `demo` as `you`:\n  https://meet.livekit.io/custom?liveKitUrl={url}&token={token}\n\
         Another participant: weir token --dev --room demo --identity another\n"
    )
}

/// Where clients connect to. A wildcard is no address to connect to: loopback is, on this machine.
fn ws_url(address: std::net::SocketAddr, tls: bool) -> String {
    let host = match address.ip() {
        ip if ip.is_unspecified() || ip.is_loopback() && ip.is_ipv4() => "localhost".to_owned(),
        IpAddr::V6(ip) => format!("[{ip}]"),
        ip => ip.to_string(),
    };
    format!("{}://{host}:{}", if tls { "wss" } else { "ws" }, address.port())
}
