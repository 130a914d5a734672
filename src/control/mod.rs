//! The gRPC face: serves BuildKit's protocol to clients and pipes it to the daemon, but for four
//! calls.
//!
//! `Control.Solve`, `LLBBridge.Solve` and `LLBBridge.Return` of a build that asks for inline cache,
//! or imports a cache from an image, are read, and go on changed. `Control.Session` of a build that
//! imports is ended here on both sides, see [`session`](crate::session). Every other call, of services
//! known and unknown, passes as bytes: headers, messages and trailers, both ways, as they come. Each
//! client connection has a connection of its own to the daemon, and ends with it.

mod builds;
mod connection;
mod drive;
mod gateway_solve;
mod pipe;
mod report;
mod returns;
mod server;
mod sessions;
mod socket;
mod solve;
mod unary;

pub use server::{BindError, Server};
