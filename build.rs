//! Compiles `proto/` without an installed `protoc`.

use std::env;
use std::fs;
use std::io::{Error, Result};
use std::path::Path;

use prost::Message as _;

const PROTO: &str = "proto";
const FILES: [&str; 6] = [
    "github.com/moby/buildkit/api/services/control/control.proto",
    "github.com/moby/buildkit/frontend/gateway/pb/gateway.proto",
    "github.com/moby/buildkit/session/auth/auth.proto",
    "github.com/containerd/containerd/api/services/content/v1/content.proto",
    "github.com/containerd/containerd/api/services/images/v1/images.proto",
    "google/rpc/status.proto",
];

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed={PROTO}");
    let descriptors = protox::compile(FILES, [PROTO]).map_err(Error::other)?;
    // tests/protocol.rs holds them against those of the real peers.
    let out = env::var_os("OUT_DIR").ok_or_else(|| Error::other("OUT_DIR is not set"))?;
    fs::write(
        Path::new(&out).join("descriptors.bin"),
        descriptors.encode_to_vec(),
    )?;
    tonic_prost_build::configure()
        // What is handed on is shared; maps of LLB have an order, so that equal operations have
        // equal bytes.
        .bytes(".moby")
        .bytes(".containerd")
        .btree_map(".pb")
        .include_file("proto.rs")
        .compile_fds(descriptors)
}
