//! Sessions, over which the daemon calls its client: inlay's own, and those of clients, whose HTTP/2
//! connection inlay terminates and whose calls it proxies.
//!
//! A session is an HTTP/2 connection within the messages of one call ([`byte_stream`], [`framing`]),
//! and the daemon is its client. Here is also what the daemon finds there: the content service, and
//! the client's credentials.

mod auth;
pub mod byte_stream;
mod client;
mod content;
pub mod framing;
mod own;

pub use auth::{credentials, fetch_token};
pub use client::{Calls, ClientSession, Offer, Opening, PATH, Sessions, is_compressed};
pub use content::{Blobs, Chunks, ReadError, Store, StoreError};
pub use own::{Session, SessionError};
