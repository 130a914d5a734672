//! HTTP/2 as inlay speaks it on both sides, and the bytes below it.
//!
//! [`http2`] has the settings of clients and servers, and forwards single calls. [`Batched`] writes
//! to a socket in large pieces, and [`HeldPings`] delays pings.

mod batched;
pub mod http2;
mod pings;

pub use batched::Batched;
pub use pings::HeldPings;
