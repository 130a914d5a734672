//! The settings of TCP connections.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::sockopt;

/// The keepalive time and interval, as in Go.
const PROBED: Duration = Duration::from_secs(15);
/// How long a daemon's host may acknowledge nothing, or take no data, before the connection counts as
/// broken. A daemon under load may take no data for a while.
const USER_TIMEOUT: Duration = Duration::from_secs(150);

/// Sets up a client's connection: writes are sent at once, and a host that is gone is noticed.
///
/// # Errors
/// Where the system refuses.
pub fn of_client(stream: impl AsFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(&stream, true)?;
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, PROBED)?;
    sockopt::set_tcp_keepintvl(&stream, PROBED)?;
    Ok(())
}

/// Sets up a daemon's connection: the same, and data that is not acknowledged in time breaks it. A client's
/// connection has no such timeout, since a client may be stopped and go on.
///
/// # Errors
/// Where the system refuses.
pub fn of_daemon(stream: impl AsFd) -> io::Result<()> {
    of_client(&stream)?;
    sockopt::set_tcp_user_timeout(&stream, USER_TIMEOUT.as_millis() as u32)?;
    Ok(())
}
