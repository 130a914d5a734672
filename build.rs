//! Compiles the protos of `proto/` without an installed `protoc`.
use std::error::Error;

/// Messages only: usable without tokio and tonic.
const MESSAGES: &[&str] = &["proto/github.com/moby/buildkit/solver/pb/ops.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    prost_build::Config::new()
        .btree_map(["."])
        .compile_fds(protox::compile(MESSAGES, ["proto"])?)?;
    Ok(())
}
