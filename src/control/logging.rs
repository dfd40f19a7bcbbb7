//! Sets up log lines. Called once, by `main`.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::LoggingConfig;

/// Write log lines to stderr from now on, as configured.
pub fn start(config: &LoggingConfig) {
    // Fails where a test has set another one.
    let _ = tracing::subscriber::set_global_default(subscriber(config, std::io::stderr));
}

/// A subscriber that writes to `writer`.
///
/// Weir's own lines only, and no environment variable opens it wider: at their finer levels the libraries below log
/// headers and frames, with tokens in them.
pub fn subscriber<W>(config: &LoggingConfig, writer: W) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::new(format!("weir={}", config.level.as_str()));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_target(false);
    if config.json { Box::new(builder.json().finish()) } else { Box::new(builder.with_ansi(false).finish()) }
}
