//! Platforms, as BuildKit names them.

use std::env::consts::ARCH;

/// This machine's architecture, which is the daemon's.
pub fn own_architecture() -> &'static str {
    match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// This machine's platform.
pub fn own_platform() -> String {
    format!("linux/{}", own_architecture())
}

/// One that this machine is not of.
pub fn other_platform() -> &'static str {
    if ARCH == "aarch64" {
        "linux/amd64"
    } else {
        "linux/arm64"
    }
}
