//! The command line, one file a subcommand. It reads what the user says, and leaves the work to the
//! library.

mod serve;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// A reproducible inline build cache for BuildKit.
///
/// inlay stands between BuildKit's clients (buildctl, docker buildx) and an unmodified buildkitd. A
/// build that asks for inline cache gets one that the build alone determines: the same build gives the
/// same image.
#[derive(Debug, Parser)]
#[command(name = "inlay", version)]
struct Cli {
    /// What is logged on standard error: a level, or tracing's directives, as in inlay=debug
    #[arg(
        long,
        global = true,
        env = "RUST_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    log: EnvFilter,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
}

/// Runs the command that the arguments name.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(cli.log)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    let outcome = match cli.command {
        Command::Serve(serve) => serve.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("inlay: {err}");
            ExitCode::FAILURE
        }
    }
}
