//! Participants from the command line: a few that are complete, or hundreds that are light and measured; and a bad
//! network to put between them and a server.
//!
//! Exit codes: 0 all is well, 1 it could not be done, 2 wrong usage, 3 a threshold broke, 4 the generator was too busy.

mod talk;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use weir_loadtest::floor::{self, FloorArgs};
#[cfg(feature = "matrix")]
use weir_loadtest::matrix::{self, MatrixArgs};
use weir_loadtest::net::{self, NetArgs};
use weir_loadtest::report::Report;
use weir_loadtest::report::compare::{self, CompareArgs};
use weir_loadtest::sfu::{self, RunArgs, SfuArgs};

/// After a run whose thresholds broke.
const BROKEN: u8 = 3;
/// After a run that means nothing.
const VOID: u8 = 4;

/// Participants that behave like real callers.
#[derive(Debug, Parser)]
#[command(name = "weir-loadtest", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Join a room as one or several complete participants and check every frame.
    Talk(talk::TalkArgs),
    /// Stand between clients and a server as a bad network (UDP): rate, queue, delay, jitter, loss, reordering.
    Net(NetArgs),
    /// Load any LiveKit-compatible server with participants, measure and check what arrives.
    #[command(after_help = EXAMPLES)]
    Sfu(Box<SfuArgs>),
    /// The same with Matrix users, in calls that people may join: encrypted, with keys handed out through Matrix.
    #[cfg(feature = "matrix")]
    #[command(after_help = MATRIX_EXAMPLES)]
    Matrix(Box<MatrixArgs>),
    /// Compare two reports (JSON), with ratios.
    Compare(CompareArgs),
    /// Measure what sealing and sending alone costs.
    Floor(FloorArgs),
    /// The receiving end of `floor`.
    #[command(hide = true)]
    Drain {
        /// How many.
        #[arg(long)]
        receivers: usize,
    },
}

const EXAMPLES: &str = "\
Examples:
  weir-loadtest sfu --scenario meeting --html report.html
  weir-loadtest sfu --scenario webinar --participants 300 --metrics-url http://127.0.0.1:6789/metrics
  weir-loadtest sfu --scenario many-rooms --find-limit rooms --json limit.json
  weir-loadtest sfu --scenario churn --no-faults --min-delivery 99.9 --max-latency-p99 20   # exit code 3 when broken
  weir-loadtest compare before.json after.json

Exit codes: 0 all is well, 1 it could not be done, 2 wrong usage, 3 a threshold broke, 4 void: the generator was more
than 80 % busy, so the figures are its own.";

#[cfg(feature = "matrix")]
const MATRIX_EXAMPLES: &str = "\
Examples:
  weir-loadtest matrix --homeserver https://matrix.example.org --registration-secret SECRET
  weir-loadtest matrix --homeserver https://matrix.example.org --users users.txt --room '#lounge:example.org'
  weir-loadtest matrix --participants 20 --full 4 --microphones 4 --cameras 4 --duration 60 --no-faults --html report.html

In an encrypted room complete participants come first, and light ones only listen. Exit codes as those of `sfu`.";

fn main() -> anyhow::Result<ExitCode> {
    let code = match Cli::parse().command {
        Command::Talk(args) => {
            runtime(true)?.block_on(talk::run(args))?;
            ExitCode::SUCCESS
        }
        Command::Sfu(args) => {
            let report = runtime(args.run.scenario.scenario()?.full > 0)?.block_on(sfu::run(&args))?;
            end(&args.run, &report)?
        }
        #[cfg(feature = "matrix")]
        Command::Matrix(args) => {
            let report = runtime(true)?.block_on(matrix::run(&args))?;
            end(&args.run, &report)?
        }
        Command::Compare(args) => {
            println!("{}", compare::run(&args)?);
            ExitCode::SUCCESS
        }
        Command::Net(args) => {
            runtime(false)?.block_on(net::run(&args))?;
            ExitCode::SUCCESS
        }
        Command::Floor(args) => {
            println!("{}", serde_json::to_string(&floor::run(&args)?)?);
            ExitCode::SUCCESS
        }
        Command::Drain { receivers } => {
            floor::drain(receivers)?;
            ExitCode::SUCCESS
        }
    };
    Ok(code)
}

/// The report, and what it means.
fn end(args: &RunArgs, report: &Report) -> anyhow::Result<ExitCode> {
    sfu::write(args, report)?;
    Ok(match (report.void, report.broken.is_empty()) {
        (true, _) => ExitCode::from(VOID),
        (false, false) => ExitCode::from(BROKEN),
        (false, true) => ExitCode::SUCCESS,
    })
}

fn runtime(threads: bool) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = if threads {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    builder.enable_all().build()
}
