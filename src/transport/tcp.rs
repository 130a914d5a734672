//! The settings of TCP connections.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::sockopt;

/// How long a connection is silent before it is probed, and between two probes: as Go has it.
const PROBED: Duration = Duration::from_secs(15);
/// How long a daemon's host may acknowledge nothing, or take no more data, before the connection
/// counts as broken. A daemon under load may take none for a while.
const USER_TIMEOUT: Duration = Duration::from_secs(150);

/// Of a client's connection: what is written is sent at once, and a host that is gone is noticed.
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

/// Of a daemon's connection: the same, and data that is not acknowledged breaks it. A client may be
/// stopped and go on; a daemon is not.
///
/// # Errors
/// Where the system refuses.
pub fn of_daemon(stream: impl AsFd) -> io::Result<()> {
    of_client(&stream)?;
    sockopt::set_tcp_user_timeout(&stream, USER_TIMEOUT.as_millis() as u32)?;
    Ok(())
}
