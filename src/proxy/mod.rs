//! The proxy: one connection of a client, one connection to the daemon, and every call passes.
//!
//! [`Server`] listens and gives each client a connection of its own to the daemon. Its calls go to
//! the [`Service`] that the server was given. [`Connection::forward`](crate::daemon::Connection) is the
//! answer that changes nothing: headers, messages and trailers pass both ways as they come. [`unary`]
//! reads the message of a call and puts another in its place. The end of either connection is the end of the other.

mod bind;
mod connection;
mod listener;
pub mod unary;
mod unix;

pub use bind::BindError;
pub use connection::Service;
pub use listener::Server;
