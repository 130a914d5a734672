//! The gRPC face: serves BuildKit's protocol to clients and pipes it to the daemon, but for three
//! calls.
//!
//! `Control.Solve` and `LLBBridge.Return` of a build that asks for inline cache are read, and go on
//! changed. `Control.Session` is ended here and carried on. Every other call, of services known and
//! unknown, passes as bytes: headers, messages and trailers, both ways, as they come. Each client
//! connection has a connection of its own to the daemon, and ends with it.

mod builds;
mod connection;
mod drive;
mod pipe;
mod policies;
mod returns;
mod server;
mod sessions;
mod socket;
mod solve;
mod unary;

pub use server::{BindError, InlineExport, Server};
