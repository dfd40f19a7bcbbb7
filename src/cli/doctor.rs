//! `weir doctor`: which hop of a call is broken, and how to mend it. From anywhere with the name of a homeserver, or on
//! the server with its configuration, which shows more: the way back from the homeserver, and media.
//!
//! It asks what clients ask and changes nothing but a room of its own, which it leaves. Exit code 0: nothing is wrong;
//! 1: something is.

mod certificate;
mod homeserver;
mod media;
mod report;
mod service;
mod stun;
mod web;
mod ws;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use self::report::Report;
use self::web::Web;
use super::{Source, print};
use crate::config::{Config, HomeserverConfig, plain};

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Name of a homeserver: what stands behind the colon in user ids. Without it, those of the configuration.
    name: Option<String>,
    #[command(flatten)]
    source: Source,
    /// Where weir is, such as https://rtc.example.org, instead of what the homeserver or the configuration says.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// File with certificates (PEM) of authorities that are trusted beside the system's.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// How long weir may take to say whether it is ready.
const PATIENCE: Duration = Duration::from_secs(3);

/// Look, print; gives whether all is well.
pub(super) fn run(args: &DoctorArgs) -> Result<bool, String> {
    let report = examine(args)?;
    if args.json {
        print(&format!("{:#}\n", report.json()));
    } else {
        print(&report.text());
    }
    Ok(report.is_well())
}

/// What there is to find on the server, for programs.
pub(super) fn findings(source: &Source) -> Result<serde_json::Value, String> {
    let args = DoctorArgs { name: None, source: source.clone(), url: None, ca_file: None, json: true };
    examine(&args).map(|report| report.json())
}

fn examine(args: &DoctorArgs) -> Result<Report, String> {
    let has_config = args.source.config.is_some() || args.source.dev || args.source.keys.is_some();
    if args.name.is_none() && args.url.is_none() && !has_config {
        return Err("say what to look at: the name of a homeserver, `--url` or `--config`".to_owned());
    }
    let config = has_config.then(|| args.source.read().map_err(|e| e.to_string())).transpose()?;
    let authority = args.ca_file.clone().or_else(|| {
        let file = &config.as_ref()?.matrix.federation_ca_file;
        (!file.is_empty()).then(|| PathBuf::from(file))
    });
    let web = Web::new(authority.map_or_else(|| Ok(Vec::new()), |file| authorities(&file))?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    Ok(runtime.block_on(look(args, config.as_ref(), &web)))
}

fn authorities(file: &std::path::Path) -> Result<Vec<reqwest::Certificate>, String> {
    let pem = std::fs::read(file).map_err(|e| format!("cannot read {}: {}", file.display(), plain(&e)))?;
    reqwest::Certificate::from_pem_bundle(&pem)
        .map_err(|_| format!("{} holds no certificates in PEM form", file.display()))
}

async fn look(args: &DoctorArgs, config: Option<&Config>, web: &Web) -> Report {
    let mut report = Report::default();
    if let Some(config) = config {
        configuration(config, &mut report);
    }
    let configured: &[HomeserverConfig] = config.map_or(&[], |config| &config.matrix.homeservers);
    let names: Vec<&str> = match &args.name {
        Some(name) => vec![name.as_str()],
        None => configured.iter().map(|home| home.server_name.as_str()).collect(),
    };
    let mut bases = Vec::new();
    for name in &names {
        let home = configured.iter().find(|home| home.server_name == *name);
        let found = homeserver::look(web, name, home, &mut report).await;
        if let Some(home) = home {
            homeserver::registration(web, home, &mut report).await;
        }
        bases.extend(found.service);
    }
    let public = config.map(|config| config.matrix.url.as_str()).filter(|url| !url.is_empty());
    if let (Some(public), Some(told)) = (public.map(http_of), bases.first())
        && public != *told
    {
        report.bad(
            "service-url",
            format!("clients are sent to {told}, but `matrix.url` is {}", public.replacen("http", "ws", 1)),
            "make both the same place: what the homeserver and the well-known file say, and `matrix.url`",
        );
    }
    let local = || config.filter(|config| config.port != 0).map(|config| format!("http://127.0.0.1:{}", config.port));
    let base = args.url.as_deref().or(public).map(http_of).or_else(|| bases.into_iter().next()).or_else(local);
    let Some(base) = base else {
        report.skip("service", "nothing says where weir is");
        return report;
    };
    let is_matrix = !names.is_empty() || config.is_some_and(|config| config.matrix.is_on());
    if service::look(web, &base, is_matrix, &mut report).await {
        match config.filter(|config| config.keys.first().is_some()) {
            Some(config) => {
                let url = url::Url::parse(&base).ok();
                let host = url.as_ref().and_then(url::Url::host_str).unwrap_or_default().trim_matches(['[', ']']);
                media::look(web, &base, host, &config.keys, &mut report).await;
            }
            None => {
                report.skip("join", "without `--config` or `--keys` there is no token to join with: media is not tried")
            }
        }
    }
    report
}

/// The same place over HTTP.
fn http_of(url: &str) -> String {
    let url = url.trim_end_matches('/');
    if url.starts_with("ws") { url.replacen("ws", "http", 1) } else { url.to_owned() }
}

/// The file, and whether weir runs with it.
fn configuration(config: &Config, report: &mut Report) {
    match config.check() {
        Ok(()) => report.ok("configuration", "good"),
        Err(error) => report.bad("configuration", error.to_string(), "correct it; `weir config check` says the same"),
    }
    if config.matrix.is_on() && config.matrix.url.is_empty() && !config.development {
        report.bad(
            "service-url",
            "`matrix.url` is empty: clients are told ws://localhost",
            "set it to where clients reach weir, such as wss://rtc.example.org",
        );
    }
    let Ok(address) = config.admin_address() else {
        return report.skip("weir", "`admin.port` is not set: weir cannot be asked how it is");
    };
    match ready(address) {
        Ok((200, text)) => report.ok("weir", text.replace('\n', "; ").trim_end_matches("; ")),
        Ok((_, text)) => {
            report.bad("weir", text.replace('\n', "; ").trim_end_matches("; "), "see the status page and the log")
        }
        Err(error) => report.bad(
            "weir",
            format!("weir does not answer at {address}: {}", plain(&error)),
            "start weir with this configuration, or look at this on the machine it runs on",
        ),
    }
}

fn ready(address: SocketAddr) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /readyz HTTP/1.0\r\nHost: weir\r\n\r\n")?;
    let mut text = String::new();
    stream.take(1 << 16).read_to_string(&mut text)?;
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok((status, body))
}
