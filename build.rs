//! Compiles `proto/` with protoc: the messages of LLB, and with the server all that it speaks.

use std::env;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

/// What the files' imports are relative to.
const PROTO: &str = "proto";

#[cfg(not(feature = "server"))]
const FILES: [&str; 1] = ["github.com/moby/buildkit/solver/pb/ops.proto"];
#[cfg(feature = "server")]
const FILES: [&str; 6] = [
    "github.com/moby/buildkit/solver/pb/ops.proto",
    "github.com/moby/buildkit/api/services/control/control.proto",
    "github.com/moby/buildkit/frontend/gateway/pb/gateway.proto",
    "github.com/moby/buildkit/session/auth/auth.proto",
    "github.com/containerd/containerd/api/services/content/v1/content.proto",
    "google/rpc/status.proto",
];

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed={PROTO}");
    println!("cargo::rerun-if-env-changed=PROTOC");
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            // protoc finds several errors at once. One that is missing is an error that says what
            // to install.
            for line in err.to_string().lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn compile() -> io::Result<()> {
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?;
    let mut config = prost_build::Config::new();
    config
        // Bytes that are forwarded are shared. Maps of LLB have an order, so that equal operations
        // have equal bytes.
        .bytes([".moby", ".containerd"])
        .btree_map([".pb"])
        .include_file("proto.rs")
        // tests/protocol.rs compares them with those of the real peers.
        .file_descriptor_set_path(PathBuf::from(out).join("descriptors.bin"));
    #[cfg(feature = "server")]
    config.service_generator(tonic_prost_build::configure().service_generator());
    config.compile_protos(&FILES, &[PROTO])
}
