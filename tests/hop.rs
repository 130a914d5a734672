//! The hop's conformance: a client and a daemon of ours do the same directly and through inlay, and
//! see the same. What a case is to show is asserted of the direct run, so that no two errors are equal.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "hop/builds.rs"]
mod builds;
#[path = "hop/cases.rs"]
mod cases;
#[path = "hop/connections.rs"]
mod connections;
#[path = "hop/peers.rs"]
mod peers;
