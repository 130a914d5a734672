//! The `inlay` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    inlay::cli::run()
}
