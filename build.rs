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
        // What is handed on is shared; maps of LLB have an order, so that equal operations have equal bytes.
        .bytes(".moby")
        .bytes(".containerd")
        .btree_map(".pb")
        .include_file("proto.rs")
        .compile_fds(descriptors)
}
