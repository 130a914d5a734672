//! HTTP/2 as inlay speaks it on both sides, and the bytes below it.
//!
//! [`http2`] has the settings of clients and servers, and forwards single calls. [`Batched`] writes to a
//! socket in large pieces. [`HeldPings`] delays pings. [`Hop`] forwards the pings that ask whether the
//! daemon is alive.

mod batched;
mod frames;
mod hop;
pub mod http2;
mod pings;
pub mod tcp;

pub use batched::Batched;
pub use hop::{Hop, HopStream};
pub use pings::HeldPings;
