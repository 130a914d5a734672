//! HTTP/2: connections of clients and servers, single calls and their bodies, and what becomes of
//! calls when a connection ends.
//!
//! It is on h2 itself, so that a call ends on one side exactly as it ended on the other: with the
//! same code, and with what was sent before it.

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

/// What HTTP/2 holds back of one call until it is taken (bytes). It bounds the memory that a slow reader
/// costs, and is above what a fast local socket has in flight: below this, a client that sends a large
/// context waits for its window more often than for anything else.
const STREAM_WINDOW: u32 = 1 << 20;
/// And of all calls of a connection: as long as fewer than 64 wait for who reads them, they hold up no
/// other. Of frames that hold a few bytes each, as steps of a build and terminals make them, h2 bears
/// half as many bytes before it takes them for an attack.
const CONNECTION_WINDOW: u32 = 64 * STREAM_WINDOW;
/// The largest header list: that of gRPC's Go implementation, since errors carry whole sources in
/// trailers. h2 takes as many frames of headers as make up this length if all are of the largest size
/// that it was told of: no larger one than gRPC's 16 KiB, or the last of its frames are too many.
pub const MAX_HEADER_LIST: u32 = 16 << 20;
/// The largest frame that is read (bytes).
const MAX_FRAME: u32 = 16 << 10;
/// What is read at once from a connection (bytes): no more than stays in a processor's own cache until
/// it is written.
const READ_AHEAD: usize = 64 << 10;

/// A socket that HTTP/2 is spoken over, read and written in large pieces: HTTP/2 itself reads a
/// frame's head and its data, each by a call of the system, and others send frames of at most 16 KiB.
pub type Socket<S> = Batched<HeldPings<HopStream<BufReader<S>>>>;

/// A socket on which a client was accepted.
pub fn accepted<S: AsyncRead>(stream: S, hop: &Hop) -> Socket<S> {
    Batched::new(HeldPings::accepted(hop.client(read_ahead(stream))))
}

/// A socket that was connected to the daemon.
pub fn connected<S: AsyncRead>(stream: S, hop: &Hop) -> Socket<S> {
    Batched::new(HeldPings::connected(hop.daemon(read_ahead(stream))))
}

fn read_ahead<S: AsyncRead>(stream: S) -> BufReader<S> {
    BufReader::with_capacity(READ_AHEAD, stream)
}
