//! The host of an image's registry, and whether it is this machine.

use std::net::IpAddr;

use oci_spec::distribution::Reference;

/// The name of Docker Hub in images' names, and that of its registry.
const HUB: &str = "docker.io";
const HUB_REGISTRY: &str = "registry-1.docker.io";

/// The host and port of an image's registry.
pub fn host(reference: &Reference) -> &str {
    match reference.registry() {
        HUB => HUB_REGISTRY,
        host => host,
    }
}

/// Whether BuildKit speaks to a host without TLS, if it is not told how: this machine.
pub fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        // Not the last part of an IPv6 address.
        Some((name, port)) if port.parse::<u16>().is_ok() && !name.ends_with(':') => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost"
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_spoken_to_without_tls() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.1.2.3",
            "[::1]:5000",
            "[::1]",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "registry-1.docker.io",
            "localhost.example",
            "128.0.0.1:5000",
            "[::2]:5000",
            "127.0.0.1.example:5000",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }
}
