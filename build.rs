//! Compiles `proto/` without an installed `protoc`.

use std::io::Result;

const PROTO: &str = "proto";
const FILES: [&str; 3] = [
    "github.com/moby/buildkit/api/services/control/control.proto",
    "github.com/moby/buildkit/frontend/gateway/pb/gateway.proto",
    "github.com/containerd/containerd/api/services/content/v1/content.proto",
];

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed={PROTO}");
    let descriptors = protox::compile(FILES, [PROTO]).map_err(std::io::Error::other)?;
    tonic_prost_build::configure()
        .bytes(".")
        .include_file("proto.rs")
        .compile_fds(descriptors)
}
