//! Sessions, over which the daemon calls its client: inlay's own, and those of clients, whose HTTP/2
//! connection inlay terminates and whose calls it proxies.
//!
//! A session is an HTTP/2 connection within the messages of one call ([`byte_stream`], [`framing`]). The
//! daemon is the client of that connection. This folder also has two of the services in a session: the
//! content service, by which the daemon reads and writes blobs, and the one for the client's credentials.

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
