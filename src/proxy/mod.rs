//! The proxy: one connection of a client, and one connection to the daemon to which its calls are forwarded.
//!
//! [`Server`] listens and gives each client a connection of its own to the daemon. Its calls go to
//! the [`Service`] that the server was given. [`Connection::forward`](crate::daemon::Connection) forwards a
//! call unchanged: headers, messages and trailers pass both ways as they come. [`unary`] reads the message of
//! a call and replaces it. When either connection ends, so does the other.

mod bind;
mod connection;
mod listener;
pub mod unary;
mod unix;

pub use bind::BindError;
pub use connection::Service;
pub use listener::Server;
