//! The `weir` program. All of it is in the library: see [`weir::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    weir::cli::run()
}
