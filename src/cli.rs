//! The command line: `serve`, `token`, `keys`, `registration`, `why`, `audit`, `doctor`,
//! `support-bundle`, `reference`, `config`.
//!
//! What a person did wrong is one line on stderr that says what to change, and exit code 2.

mod audit;
mod bundle;
mod doctor;
mod keys;
mod registration;
mod serve;
mod token;
mod why;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{Config, ConfigError, Keys};

/// A decentralized voice and video SFU for Matrix.
#[derive(Debug, Parser)]
#[command(name = "weir", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve(serve::ServeArgs),
    /// Print a token that lets somebody join a room.
    Token(token::TokenArgs),
    /// Print a fresh API key with its secret, to be put into the configuration.
    Keys,
    /// Print what makes weir an application service of a homeserver, and what to set there.
    Registration(registration::RegistrationArgs),
    /// Ask a running weir what it decided about a Matrix user lately.
    Why(why::WhyArgs),
    /// Say which pseudonym a person or a room has in audit records.
    Audit(audit::AuditArgs),
    /// Find out which hop of a call is broken, and how to mend it.
    Doctor(doctor::DoctorArgs),
    /// Collect what whoever helps asks for, without anything private.
    SupportBundle(bundle::BundleArgs),
    /// Print a page of the documentation.
    Reference {
        /// Which.
        #[arg(value_enum)]
        page: Reference,
    },
    /// Check or show configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Reference {
    /// Every setting: docs/configuration.md.
    Configuration,
    /// Every metric: docs/metrics.md.
    Metrics,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say whether a file is good, and what to change if not.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Print a documented file with all defaults.
    Example,
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Args)]
struct Source {
    /// Try it out: loopback and the machine's own addresses, key `devkey`, secret `secret`.
    #[arg(long, conflicts_with = "config")]
    dev: bool,
    /// Configuration file.
    #[arg(long, value_name = "FILE", env = "WEIR_CONFIG")]
    config: Option<PathBuf>,
    /// The configuration itself instead of a file.
    #[arg(long, value_name = "YAML", env = "LIVEKIT_CONFIG", hide_env_values = true)]
    config_body: Option<String>,
    /// API keys as `key: secret`, one per line; they come before those of the file.
    #[arg(long, env = "WEIR_KEYS", hide_env_values = true, value_name = "KEY: SECRET")]
    keys: Option<String>,
    /// The same under the name LiveKit has for it.
    #[arg(long, env = "LIVEKIT_KEYS", hide = true, value_name = "KEY: SECRET")]
    livekit_keys: Option<String>,
    /// Where other nodes reach this one, instead of `nodes.address`; of an IP address alone, `port` there is meant.
    #[arg(long, env = "WEIR_NODE_ADDRESS", value_name = "ADDRESS")]
    node_address: Option<String>,
}

impl Source {
    /// Read it, without checking it.
    fn read(&self) -> Result<Config, ConfigError> {
        let mut config = match (&self.config, &self.config_body) {
            _ if self.dev => Config::dev(),
            (Some(file), _) => Config::load(file)?,
            (None, Some(text)) => Config::from_body(text)?,
            (None, None) => Config::new(),
        };
        // Variables of LiveKit may be there for another program: they never mix with a key of `--dev`.
        let livekit_keys = self.livekit_keys.as_ref().filter(|_| !self.dev);
        if let Some(text) = self.keys.as_ref().or(livekit_keys) {
            let mut keys = Keys::parse(text)?;
            keys.extend(config.keys);
            config.keys = keys;
        }
        if let Some(address) = &self.node_address {
            config.nodes.address = match address.parse::<IpAddr>() {
                Ok(ip) => format!("http://{}", SocketAddr::new(ip, config.port)),
                Err(_) => address.clone(),
            };
        }
        Ok(config)
    }
}

/// Run what the command line asks for.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Keys => keys::run(),
        Command::Registration(args) => registration::run(&args),
        Command::Why(args) => why::run(&args),
        Command::Audit(args) => audit::run(&args),
        Command::Doctor(args) => match doctor::run(&args) {
            Ok(false) => return ExitCode::FAILURE,
            result => result.map(|_| ()),
        },
        Command::SupportBundle(args) => bundle::run(&args),
        Command::Reference { page: Reference::Configuration } => {
            print(&crate::config::reference::page());
            Ok(())
        }
        Command::Reference { page: Reference::Metrics } => crate::control::metrics_reference().map(|page| print(&page)),
        Command::Config { command: ConfigCommand::Check { file } } => check(&file),
        Command::Config { command: ConfigCommand::Example } => {
            print(&crate::config::example::example());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            tell(&message);
            ExitCode::from(2)
        }
    }
}

fn check(file: &std::path::Path) -> Result<(), String> {
    let config = Config::load(file).map_err(|e| e.to_string())?;
    config.check().map_err(|e| e.in_file(file).to_string())?;
    for note in config.notes.iter().chain(&config.matrix.state_problem()) {
        print(&format!("note: {note}\n"));
    }
    print(&format!("{}: good\n{}", file.display(), ports(&config)));
    Ok(())
}

/// What a firewall has to let through.
fn ports(config: &Config) -> String {
    let (first, threads) = (config.rtc.udp_port.first, config.rtc.threads());
    let last = usize::from(first) + threads - 1;
    let udp = if threads == 1 { first.to_string() } else { format!("{first}-{last}") };
    let tcp = if config.rtc.tcp_port == 0 { String::new() } else { format!(", {}/tcp", config.rtc.tcp_port) };
    format!("open for clients: {}/tcp{tcp}, {udp}/udp\n", config.port)
}

/// To stdout. A reader that has gone (`| head`) is no fault of ours.
fn print(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// One line on stderr.
fn tell(message: &str) {
    use std::io::Write;
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let _ = writeln!(std::io::stderr(), "weir: {line}");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may fail by panicking")]

    use super::*;

    #[test]
    fn the_address_of_a_node_may_come_from_its_surroundings() {
        let address = |given: Option<&str>| {
            let (config_body, node_address) = (Some("port: 7000".to_owned()), given.map(str::to_owned));
            let (config, keys, livekit_keys) = (None, None, None);
            let source = Source { dev: false, config, config_body, keys, livekit_keys, node_address };
            source.read().unwrap().nodes.address
        };
        assert_eq!(address(None), "");
        assert_eq!(address(Some("10.0.0.5")), "http://10.0.0.5:7000");
        assert_eq!(address(Some("fd00::5")), "http://[fd00::5]:7000");
        assert_eq!(address(Some("http://node-a:7880")), "http://node-a:7880");
    }
}
