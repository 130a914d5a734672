//! The `inlay` command.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Returns the memory of a large import to the system once it is freed.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    inlay::cli::run()
}
