//! Participants from the command line: a few that are complete, or hundreds that are light and measured; and a bad
//! network to put between them and a server.

mod talk;

use clap::{Parser, Subcommand};
use weir_loadtest::floor::{self, FloorArgs};
use weir_loadtest::net::{self, NetArgs};
use weir_loadtest::sfu::{self, SfuArgs};

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
    /// Load a server with light participants and measure it.
    Sfu(SfuArgs),
    /// Stand between clients and a server as a bad network (UDP): rate, queue, delay, jitter, loss, reordering.
    Net(NetArgs),
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

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Talk(args) => runtime(true)?.block_on(talk::run(args)),
        Command::Sfu(args) => {
            let report = runtime(false)?.block_on(sfu::run(&args))?;
            println!("{}", report.summary());
            if let Some(path) = &args.json {
                std::fs::write(path, serde_json::to_vec_pretty(&report)?)?;
            }
            anyhow::ensure!(!report.void, "void: the generator was too busy");
            Ok(())
        }
        Command::Net(args) => runtime(false)?.block_on(net::run(&args)),
        Command::Floor(args) => {
            println!("{}", serde_json::to_string(&floor::run(&args)?)?);
            Ok(())
        }
        Command::Drain { receivers } => floor::drain(receivers),
    }
}

fn runtime(threads: bool) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = if threads {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    builder.enable_all().build()
}
