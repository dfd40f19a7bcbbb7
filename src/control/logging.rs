//! Sets up log lines. Called once, by `main`.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::LoggingConfig;

/// Write log lines to stderr from now on, as configured. `RUST_LOG` refines the level, for finding faults.
pub fn start(config: &LoggingConfig) {
    let _ = tracing::subscriber::set_global_default(subscriber(config, std::io::stderr));
}

/// A subscriber that writes to `writer`.
pub fn subscriber<W>(config: &LoggingConfig, writer: W) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder().with_default_directive(directive(config)).from_env_lossy();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_target(false);
    if config.json { Box::new(builder.json().finish()) } else { Box::new(builder.with_ansi(false).finish()) }
}

/// Only weir's own lines below `warn`: libraries log addresses and headers at their finer levels.
fn directive(config: &LoggingConfig) -> tracing_subscriber::filter::Directive {
    let own = format!("weir={}", config.level.as_str());
    own.parse().unwrap_or_else(|_| tracing_subscriber::filter::LevelFilter::INFO.into())
}
