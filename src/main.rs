//! The `inlay` command.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Memory that a large import took goes back to the system when it is free.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    inlay::cli::run()
}
