//! HTTP/2: connections of clients and servers, single calls and their bodies, and what becomes of
//! calls when a connection ends.
//!
//! It uses h2 directly, so that a call ends on one side exactly as it ended on the other: with the same
//! code, and after what was sent before.

mod body;
mod client;
mod incoming;
mod pipe;
mod server;

use tokio::io::{AsyncRead, BufReader};

use super::{Batched, HeldPings, Hop, HopStream};

pub use body::{Body, BodyError, canceled, followed_by, from_later_parts, from_parts, to_body};
pub use client::{CallError, Connection, Requests, connect};
pub use incoming::Incoming;
pub use server::serve;

/// The flow-control window of a call (bytes). It bounds the memory that a slow reader costs. It is above
/// what a fast local socket has in flight: with less, a client that sends a large context would mostly
/// wait for its window.
const STREAM_WINDOW: u32 = 1 << 20;
/// The flow-control window of a connection (bytes). Calls that wait for their readers hold up no other
/// call, as long as fewer than 64 of them wait. If the frames have a few bytes each, as those of progress
/// and terminals, h2 treats half as many bytes as an attack.
const CONNECTION_WINDOW: u32 = 64 * STREAM_WINDOW;
/// The largest header list (bytes), as in gRPC's Go implementation: errors carry whole sources in
/// trailers. h2 computes the most header frames of a list from this and from `MAX_FRAME`. gRPC sends
/// frames of at most 16 KiB, so with a larger `MAX_FRAME` a long list would have too many.
pub const MAX_HEADER_LIST: u32 = 16 << 20;
/// The largest frame that is read (bytes).
const MAX_FRAME: u32 = 16 << 10;
/// The most that is read at once from a connection (bytes). It stays in a processor's own cache until it
/// is written.
const READ_AHEAD: usize = 64 << 10;

/// A socket for HTTP/2 that is read and written in large pieces. Without that, h2 makes a system call for
/// each frame's head and another for its data, and peers send frames of at most 16 KiB.
pub type Socket<S> = Batched<HeldPings<HopStream<BufReader<S>>>>;

/// Wraps the socket of a client that was accepted.
pub fn accepted<S: AsyncRead>(stream: S, hop: &Hop) -> Socket<S> {
    Batched::new(HeldPings::accepted(hop.client(read_ahead(stream))))
}

/// Wraps a socket that was connected to the daemon.
pub fn connected<S: AsyncRead>(stream: S, hop: &Hop) -> Socket<S> {
    Batched::new(HeldPings::connected(hop.daemon(read_ahead(stream))))
}

fn read_ahead<S: AsyncRead>(stream: S) -> BufReader<S> {
    BufReader::with_capacity(READ_AHEAD, stream)
}
